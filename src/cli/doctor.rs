//! What `doctor` answers: the host's findings as a page or as JSON, and an exit code.
//!
//! Owns: the form of the JSON; when the page has colours.
//! May depend on: `tuning`; the arguments in `cli`.
//! Invariants: nothing of the host is changed; a host that cannot be read is a finding, not an error.

use std::{collections::BTreeMap, path::Path};

use serde_json::json;
use tuning::{Finding, Host, Ring, Severity, Target, check, report, report::Ink, verdict};

use super::{Doctor, config::Answer};

pub fn run(
    arguments: &Doctor,
    environment: &BTreeMap<String, String>,
    is_terminal: bool,
) -> Answer {
    let root = arguments.root.as_deref();
    if let Some(root) = root.filter(|root| !root.is_dir()) {
        return Answer {
            out: String::new(),
            diagnostics: format!("--root {}: no such folder\n", root.display()),
            exit: EXIT_WRONG_USAGE,
        };
    }
    let mut host = Host::read(root.unwrap_or_else(|| Path::new("/")));
    if root.is_none() {
        host.ring = Some(Ring::probe());
    }
    let target = Target {
        connections: arguments.connections,
        shards: arguments.shards,
        ..Target::default()
    };
    let findings = check(&host, &target);
    let out = match arguments.json {
        true => as_json(&host, &target, &findings),
        false => report::text(&host, &target, &findings, ink(environment, is_terminal)),
    };
    Answer {
        out,
        diagnostics: String::new(),
        exit: exit(verdict(&findings)),
    }
}

const EXIT_WRONG_USAGE: u8 = 2;

const fn exit(worst: Severity) -> u8 {
    match worst {
        Severity::Fine => 0,
        Severity::Warning => 1,
        Severity::Blocking => 2,
    }
}

/// no-color.org: set and not empty is a wish.
fn ink(environment: &BTreeMap<String, String>, is_terminal: bool) -> Ink {
    let is_unwanted = environment.get("NO_COLOR").is_some_and(|it| !it.is_empty());
    let is_dumb = environment.get("TERM").is_some_and(|term| term == "dumb");
    match is_terminal && !is_unwanted && !is_dumb {
        true => Ink::Colours,
        false => Ink::None,
    }
}

fn as_json(host: &Host, target: &Target, findings: &[Finding]) -> String {
    let needs = target.needs(host);
    let report = json!({
        "connections": needs.connections,
        "shards": needs.shards,
        "verdict": verdict(findings),
        "findings": findings,
    });
    format!("{report:#}\n")
}

#[cfg(test)]
mod tests {
    use bench::plan::MEASURED;
    use tuning::target;

    use super::*;

    #[test]
    fn colours_are_for_terminals_whose_user_has_nothing_against_them() {
        let of = |pairs: &[(&str, &str)]| {
            pairs
                .iter()
                .map(|&(name, value)| (name.to_owned(), value.to_owned()))
                .collect()
        };
        for (pairs, is_terminal, expected) in [
            (&[][..], true, Ink::Colours),
            (&[], false, Ink::None),
            (&[("NO_COLOR", "1")], true, Ink::None),
            (&[("NO_COLOR", "")], true, Ink::Colours),
            (&[("TERM", "dumb")], true, Ink::None),
        ] {
            assert_eq!(
                ink(&of(pairs), is_terminal),
                expected,
                "{pairs:?} {is_terminal}"
            );
        }
    }

    #[test]
    fn the_doctor_counts_memory_as_the_plan_does() {
        assert_eq!(
            target::CONNECTION_BYTES as f64,
            MEASURED.connection_bytes + MEASURED.channel_bytes
        );
        assert_eq!(
            target::CONNECTION_KERNEL_BYTES as f64,
            MEASURED.connection_kernel_bytes
        );
        assert_eq!(target::PROCESS_BYTES as f64, MEASURED.process_bytes);
        assert_eq!(target::SHARD_BYTES as f64, MEASURED.shard_bytes);
    }

    #[test]
    fn a_root_that_is_not_there_is_wrong_usage() {
        let arguments = Doctor {
            connections: 1,
            shards: None,
            json: false,
            root: Some("/none/such".into()),
        };
        let answer = run(&arguments, &BTreeMap::new(), false);
        assert_eq!(answer.exit, 2);
        assert!(answer.out.is_empty(), "{answer:?}");
    }
}
