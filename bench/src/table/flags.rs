//! What both tables ask for on the command line.
//!
//! Owns: the flags' defaults and ranges; the subjects that this build is.
//! May depend on: clap, `ranges`, `rounds`, `subjects`.
//! Invariants: every subject of a table gets the same rounds, seconds and steps.

use std::{env, io, path::PathBuf, time::Duration};

use clap::Args;

use super::{Form, rounds::Plan, rows::Row, subjects::Subject};
use crate::{cpu, ranges::within, scenarios::whole};

#[derive(Clone, Debug, Args)]
pub struct Flags {
    /// Rounds, 1..=100; in each, every server gets every load once
    #[arg(long, value_name = "COUNT", default_value_t = 3, value_parser = within::<u32>(1..=100))]
    pub rounds: u32,
    /// Length of each load in seconds, 1..=60
    #[arg(long, value_name = "SECONDS", default_value_t = 4, value_parser = whole(1..=60))]
    pub seconds: u64,
    /// Shards of this build, 1..=512; COUNT,COUNT for several servers, which are then not pinned to
    /// cores [default: the server's default]
    #[arg(long, value_name = "COUNT", value_delimiter = ',', value_parser = within::<u16>(1..=512))]
    pub shards: Vec<u16>,
    /// Another build of this server, beside this one; may be repeated
    #[arg(long, value_name = "NAME=PATH", value_parser = named)]
    pub build: Vec<(String, String)>,
    /// Microseconds between two looks at the sockets, 10..=5000; the resolution of latencies
    #[arg(long, value_name = "US", default_value_t = 100, value_parser = whole(10..=5_000))]
    pub poll_interval_us: u64,
    /// Print Markdown
    #[arg(long, conflicts_with = "json")]
    pub markdown: bool,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// What the head of the table says was run [default: the command line]
    #[arg(long, value_name = "TEXT")]
    pub shown_as: Option<String>,
}

impl Flags {
    pub fn form(&self) -> Form {
        match (self.json, self.markdown) {
            (true, _) => Form::Json,
            (false, true) => Form::Markdown,
            (false, false) => Form::Text,
        }
    }

    /// This build first, then the other ones; each once, or with each number of shards.
    pub fn ours(&self) -> io::Result<Vec<Subject>> {
        let mut builds = vec![("ours", env::current_exe()?)];
        builds.extend(self.build.iter().map(|(name, path)| (&**name, path.into())));
        let counts: Vec<Option<u16>> = match &*self.shards {
            [] => vec![None],
            counts => counts.iter().copied().map(Some).collect(),
        };
        let each = |(name, path): (&str, PathBuf)| {
            let subject = |&count: &Option<u16>| Subject::ours(name, path.clone(), count);
            counts.iter().map(subject).collect::<Vec<_>>()
        };
        Ok(builds.into_iter().flat_map(each).collect())
    }

    pub fn plan(&self, subjects: &[Subject], rows: &[Row]) -> Plan {
        Plan {
            runs: Plan::runs(subjects, rows),
            subjects: subjects.to_vec(),
            rounds: self.rounds,
            seconds: self.seconds,
            step: Duration::from_micros(self.poll_interval_us),
            descriptors: cpu::raise_descriptor_limit(),
        }
    }

    /// What was typed, without the program's folder, unless something else is to be said.
    pub fn command(&self) -> String {
        let arguments: Vec<String> = env::args().skip(1).collect();
        let typed = || format!("sockudo {}", arguments.join(" "));
        self.shown_as.clone().unwrap_or_else(typed)
    }
}

/// `NAME=VALUE`, neither of them empty.
pub(super) fn named(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() && !value.is_empty() => {
            Ok((name.to_owned(), value.to_owned()))
        }
        _ => Err("must be NAME=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peers_command_may_hold_equals_signs() {
        let peer = ("soketi".to_owned(), "PORT=1 exec soketi start".to_owned());
        assert_eq!(named("soketi=PORT=1 exec soketi start"), Ok(peer));
        for wrong in ["soketi", "=x", "x="] {
            assert!(named(wrong).is_err(), "{wrong}");
        }
    }
}
