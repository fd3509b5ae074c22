//! What `doctor` answers: the host's findings as a page or as JSON, and an exit code.
//!
//! Owns: the form of the JSON; when the page has colours.
//! May depend on: `tuning`, `config`; the arguments in `cli`.
//! Invariants: nothing of the host is changed; a host that cannot be read is a finding, not an error.

use std::{collections::BTreeMap, path::Path};

use serde_json::json;
use tuning::{Finding, Host, Ring, Severity, Target, check, report, report::Ink, verdict};

use super::config::{Answer, EXIT_BAD_CONFIG};
use super::{CONNECTIONS_MAX, Doctor, From};
use crate::config::{ConfigErrors, load};

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
    let target = match target(arguments, environment) {
        Ok(target) => target,
        Err(errors) => {
            return Answer {
                out: String::new(),
                diagnostics: format!("{errors}\n"),
                exit: EXIT_BAD_CONFIG,
            };
        }
    };
    let mut host = Host::read(root.unwrap_or_else(|| Path::new("/")));
    if root.is_none() {
        host.ring = Some(Ring::probe());
    }
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

/// What the flags ask for, and where they are silent the configuration.
fn target(
    arguments: &Doctor,
    environment: &BTreeMap<String, String>,
) -> Result<Target, ConfigErrors> {
    let mut target = Target::default();
    if let Some(file) = &arguments.config {
        let from = From {
            config: Some(file.clone()),
            ..From::default()
        };
        let config = load(&from.sources(environment.clone()))?.config;
        if config.admission.max_connections > 0 {
            target.connections = config.admission.max_connections.min(CONNECTIONS_MAX);
        }
        target.shards = config.shards.map(u64::from);
        target.ports = vec![config.port];
        target
            .ports
            .extend(config.metrics.enabled.then_some(config.metrics.port));
    }
    target.connections = arguments.connections.unwrap_or(target.connections);
    target.shards = arguments.shards.or(target.shards);
    Ok(target)
}

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
    fn the_configuration_says_what_the_flags_do_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("sockudo.toml");
        let text = "shards = 3\nport = 443\nmetrics.enabled = false\n\
                    admission.max_connections = 77\n";
        std::fs::write(&file, text).expect("ours");
        let of = |connections, shards, config| {
            let arguments = Doctor {
                connections,
                shards,
                config,
                json: false,
                root: None,
            };
            let target = target(&arguments, &BTreeMap::new()).expect("the file holds");
            (target.connections, target.shards, target.ports)
        };
        let usual = vec![6_001, 9_601];
        assert_eq!(of(None, None, None), (10_000, None, usual));
        let file = Some(file);
        assert_eq!(of(None, None, file.clone()), (77, Some(3), vec![443]));
        assert_eq!(of(Some(5), Some(2), file), (5, Some(2), vec![443]));
        let arguments = Doctor {
            connections: None,
            shards: None,
            config: Some("/none/such.toml".into()),
            json: false,
            root: None,
        };
        assert_eq!(run(&arguments, &BTreeMap::new(), false).exit, 78);
    }

    #[test]
    fn a_root_that_is_not_there_is_wrong_usage() {
        let arguments = Doctor {
            connections: Some(1),
            shards: None,
            config: None,
            json: false,
            root: Some("/none/such".into()),
        };
        let answer = run(&arguments, &BTreeMap::new(), false);
        assert_eq!(answer.exit, 2);
        assert!(answer.out.is_empty(), "{answer:?}");
    }
}
