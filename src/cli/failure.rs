//! What a command that is to print JSON prints when it fails.
//!
//! Owns: which commands are to; the object with `error`.
//! May depend on: the arguments in `cli`, `config::Answer`.
//! Invariants: whoever reads stdout finds one JSON object there, whatever the exit status; stderr says the same in words.

use serde_json::json;

use super::{
    AppsCommand, ClusterCommand, Command, ConfigCommand, DeadCommand, WebhooksCommand,
    config::Answer,
};

impl Command {
    /// It was asked for JSON.
    pub fn wants_json(&self) -> bool {
        match self {
            Self::Config(ConfigCommand::Check(check)) => check.json,
            Self::Cluster(
                ClusterCommand::Status { json, .. } | ClusterCommand::Rebalance { json, .. },
            )
            | Self::Apps(AppsCommand::Reload { json, .. }) => *json,
            Self::Apps(command) => command.of().is_some_and(|of| of.json),
            Self::MigrateDb(of) => of.json,
            Self::Webhooks(WebhooksCommand::Dead(
                DeadCommand::List { json, .. }
                | DeadCommand::Retry { json, .. }
                | DeadCommand::Drop { json, .. },
            )) => *json,
            Self::Webhooks(WebhooksCommand::Send(send)) => send.json,
            Self::Top(top) => top.json,
            Self::Upgrade(upgrade) => upgrade.json,
            Self::Doctor(doctor) => doctor.json,
            Self::Serve(_)
            | Self::Config(ConfigCommand::Show(_) | ConfigCommand::Reference)
            | Self::Tune(_)
            | Self::MigrateFrom(_)
            | Self::Webhooks(WebhooksCommand::Dead(DeadCommand::Show { .. }))
            | Self::Bench(_) => false,
        }
    }
}

impl Answer {
    /// The same, for who reads JSON: a failure that printed nothing is an object with its reason.
    #[must_use]
    pub fn in_json(self) -> Self {
        if self.exit == 0 || !self.out.is_empty() {
            return self;
        }
        let failure = json!({ "error": self.diagnostics.trim_end() });
        Self {
            out: format!("{failure:#}\n"),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_failure_that_printed_nothing_is_told_again() {
        for (out, diagnostics, exit, printed) in [
            (
                "",
                "it is not there\n",
                1,
                "{\n  \"error\": \"it is not there\"\n}\n",
            ),
            (
                "",
                "two\nlines\n",
                78,
                "{\n  \"error\": \"two\\nlines\"\n}\n",
            ),
            (
                "{\"ok\": false}\n",
                "it is not there\n",
                78,
                "{\"ok\": false}\n",
            ),
            ("", "added\n", 0, ""),
        ] {
            let answer = Answer {
                out: out.to_owned(),
                diagnostics: diagnostics.to_owned(),
                exit,
            };
            let told = answer.in_json();
            assert_eq!(told.out, printed);
            assert_eq!((&*told.diagnostics, told.exit), (diagnostics, exit));
        }
    }
}
