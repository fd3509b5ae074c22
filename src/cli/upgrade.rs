//! What `upgrade` answers: a running node is asked to let another process take over, and what came of it.
//!
//! Owns: asking, waiting for the outcome from whichever process answers, the words.
//! May depend on: `bridge::handover::UpgradeReport`, `cli::cluster`, reqwest; the arguments in `cli`.
//! Invariants: exit status 0 only if the new process serves.

#![expect(
    clippy::disallowed_methods,
    reason = "a command that waits for a node reads the clock"
)]

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};

use super::{
    OfNode, Upgrade,
    cluster::{AskError, Method, ask, to_json, told},
    config::Answer,
};
use crate::bridge::handover::UpgradeReport;

/// Between two looks.
const LOOKS_EVERY: Duration = Duration::from_millis(50);
/// The socket changes hands meanwhile, and one that answers to nobody for so long does not come back.
const SILENT_WITHIN: Duration = Duration::from_secs(15);

/// Where nobody answers, the process before is not the one that serves.
const NOBODY: &str = "; the upgrade was under way: either the new process has another admin.socket now, or nobody serves, \
                      since it hangs or neither of the two is left, until the node is started anew (systemd does \
                      that; the log tells more)";

const STARTED_ANEW: &str = "the node was started anew meanwhile, without its connections: the new process has died after \
                            it began to serve, or both were ended; the log tells more";

pub fn run(command: &Upgrade, environment: &BTreeMap<String, String>) -> Answer {
    let Upgrade { of, binary, json } = command;
    let answer = begin(of, environment, binary.as_deref())
        .and_then(|begun| outcome(of, environment, &begun))
        .and_then(|report| match (report.state.as_str(), json) {
            ("done", true) => Ok(to_json(&report)),
            ("done", false) => Ok(in_words(&report)),
            _ => {
                let reason = report.reason.unwrap_or_default();
                Err(AskError::Refused(reason + "; the process before goes on"))
            }
        });
    told(answer)
}

fn begin(
    of: &OfNode,
    environment: &BTreeMap<String, String>,
    binary: Option<&Path>,
) -> Result<UpgradeReport, AskError> {
    let route = match binary {
        None => "/upgrade".to_owned(),
        Some(binary) => {
            let binary = std::path::absolute(binary)?;
            let name = binary.to_string_lossy();
            let url = reqwest::Url::parse_with_params("http://sockudo/upgrade", [("binary", name)]);
            let url = url.map_err(|error| AskError::Refused(error.to_string()))?;
            format!("/upgrade?{}", url.query().unwrap_or_default())
        }
    };
    ask(of, environment.clone(), Method::Post, &route)
}

/// Waits until it is over; the process that answers last is the one that serves.
fn outcome(
    of: &OfNode,
    environment: &BTreeMap<String, String>,
    begun: &UpgradeReport,
) -> Result<UpgradeReport, AskError> {
    let mut heard = Instant::now();
    loop {
        match ask::<UpgradeReport>(of, environment.clone(), Method::Get, "/upgrade") {
            Ok(report) if report.number >= begun.number && report.state != "running" => {
                return Ok(report);
            }
            // Numbers go on from one process to the next.
            Ok(report) if report.number < begun.number => {
                return Err(AskError::Refused(STARTED_ANEW.to_owned()));
            }
            Ok(_) => heard = Instant::now(),
            Err(_) if heard.elapsed() < SILENT_WITHIN => {}
            Err(error) => {
                let reason = format!("{error}{NOBODY}");
                return Err(AskError::Refused(reason));
            }
        }
        std::thread::sleep(LOOKS_EVERY);
    }
}

fn in_words(report: &UpgradeReport) -> String {
    let UpgradeReport {
        from_version,
        to_version,
        pid,
        connections,
        closed,
        silence_ms,
        ..
    } = report;
    format!(
        "process {pid} serves now: version {to_version} after {from_version}\n\
         connections carried over: {connections}, closed: {closed}\n\
         silence: {silence_ms:.1} ms\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happened_is_said_with_its_numbers() {
        let report = UpgradeReport {
            number: 3,
            state: "done".to_owned(),
            from_version: "0.1.0".to_owned(),
            to_version: "0.2.0".to_owned(),
            pid: 77,
            connections: 10_000,
            closed: 2,
            silence_ms: 41.26,
            ..UpgradeReport::default()
        };
        let expected = "process 77 serves now: version 0.2.0 after 0.1.0\n\
                        connections carried over: 10000, closed: 2\n\
                        silence: 41.3 ms\n";
        assert_eq!(in_words(&report), expected);
    }

    #[test]
    fn a_node_that_is_not_there_is_said_with_its_socket() {
        let of = OfNode {
            socket: Some("/nowhere/admin.sock".into()),
            ..OfNode::default()
        };
        let command = Upgrade {
            of,
            binary: Some("/usr/bin/sockudo".into()),
            json: false,
        };
        let answer = run(&command, &BTreeMap::new());
        assert_eq!((answer.exit, answer.out.as_str()), (1, ""));
        let start = "the node cannot be asked at /nowhere/admin.sock: ";
        assert!(
            answer.diagnostics.starts_with(start),
            "{}",
            answer.diagnostics
        );
    }
}
