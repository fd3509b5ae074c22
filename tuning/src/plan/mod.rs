//! What would make a host fit: files for it, each line with its reason, and what no file can do.
//!
//! Owns: `Plan`, the files' places, the host as it would be with them.
//! May depend on: `check`, `finding`, `host`, `target`.
//! Invariants: pure; no value is below what the host has; a host with the plan applied needs no plan.

mod cores;
mod diff;
mod keys;
mod service;

use std::fmt::Write as _;

use self::{cores::Assignment, keys::Key};
use crate::{
    check::{check, number},
    finding::{Finding, Severity},
    host::Host,
    target::{Needs, Target},
};

pub use diff::diff;

/// Files for one host and one target.
#[derive(Clone, Debug)]
pub struct Plan {
    /// In the order in which they are best read.
    pub files: Vec<PlannedFile>,
    /// What stays to be mended once they are applied, with the unit of this release.
    pub left: Vec<Finding>,
    /// Connections that this host's memory carries, if it can be read.
    pub connections_max: Option<u64>,
}

/// A file of the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedFile {
    /// Below the root of the host, without a slash before it.
    pub path: String,
    /// All of it.
    pub text: String,
    /// For programs.
    pub is_executable: bool,
}

/// Plans what brings this host to the target.
pub fn plan(host: &Host, target: &Target) -> Plan {
    let needs = target.needs(host);
    let findings = check(host, target);
    let keys = keys::keys(host, target, &needs);
    let assignment = Assignment::of(host, &needs);
    let unit = service::name(host);
    let files = vec![
        file(
            "etc/sysctl.d/90-sockudo.conf",
            keys::text(&keys, &findings, &needs),
        ),
        file(
            &format!("etc/systemd/system/{unit}.d/50-tuning.conf"),
            service::drop_in(host, &needs),
        ),
        file(
            "etc/security/limits.d/90-sockudo.conf",
            service::limits(host, &needs),
        ),
        PlannedFile {
            is_executable: true,
            ..file(
                "usr/local/sbin/sockudo-host",
                cores::script(&assignment, &needs),
            )
        },
        file(
            "etc/systemd/system/sockudo-host.service",
            service::OF_SCRIPT.to_owned(),
        ),
    ];
    let left = check(&applied(host, &keys, &assignment, &needs), target);
    Plan {
        files,
        left: left
            .into_iter()
            .filter(|it| it.severity > Severity::Fine)
            .collect(),
        connections_max: connections_max(host, &needs),
    }
}

fn file(path: &str, text: String) -> PlannedFile {
    PlannedFile {
        path: path.to_owned(),
        text,
        is_executable: false,
    }
}

/// The host as it would be after all files were copied, with the unit, and the server started anew.
fn applied(host: &Host, keys: &[Key], assignment: &Assignment, needs: &Needs) -> Host {
    let mut host = host.clone();
    for key in keys {
        key.set(&mut host);
    }
    host.processes.servers.clear();
    host.unit = Some(service::applied(host.unit.as_ref(), needs));
    assignment.set(&mut host);
    host
}

/// At nine tenths of what the host, its cgroup and its unit leave.
fn connections_max(host: &Host, needs: &Needs) -> Option<u64> {
    let limits = [
        host.group.memory_bytes,
        host.unit.as_ref().and_then(|unit| unit.memory_bytes),
    ];
    let total = limits
        .into_iter()
        .flatten()
        .fold(*host.memory.total_bytes.value()?, u64::min);
    let each = crate::target::CONNECTION_BYTES + crate::target::CONNECTION_KERNEL_BYTES;
    let beside = needs.memory_bytes
        - needs
            .connections
            .saturating_mul(each)
            .min(needs.memory_bytes);
    Some((total / 10).saturating_mul(9).saturating_sub(beside) / each)
}

/// What a person reads after the files were written.
pub fn text(plan: &Plan, needs: &Needs, folder: &str) -> String {
    let mut out = format!(
        "For {} connections on {}, written and not applied:\n",
        number(needs.connections),
        crate::check::shards(needs.shards)
    );
    for file in &plan.files {
        let _ = writeln!(out, "  {folder}/{}", file.path);
    }
    let _ = write!(
        out,
        "\nLook at them. Then, as root:\n  cp --recursive --preserve=mode {folder}/etc {folder}/usr /\n  sysctl --system\n  \
         systemctl daemon-reload\n  systemctl enable --now sockudo-host\n  systemctl restart sockudo\n"
    );
    if needs.backlog > BACKLOG_USUAL {
        let _ = write!(
            out,
            "\nAnd in the server's configuration: net.backlog = {}\n",
            needs.backlog
        );
    }
    if plan.left.is_empty() {
        out.push_str("\n`sockudo doctor` will then find nothing to mend.\n");
        return out;
    }
    out.push_str("\nNo file mends this:\n");
    for finding in &plan.left {
        let word = match finding.severity {
            Severity::Blocking => "blocking",
            Severity::Fine | Severity::Warning => "warning",
        };
        let _ = writeln!(
            out,
            "  {word:8}  {}: {}; should be {}\n            {}",
            finding.check,
            finding.is,
            finding.should_be,
            finding.mend.as_deref().unwrap_or_default()
        );
    }
    if let Some(most) = plan
        .connections_max
        .filter(|&most| most < needs.connections)
    {
        let _ = writeln!(
            out,
            "  This host's memory carries {} connections at most.",
            number(most)
        );
    }
    out
}

/// A comment of lines that fit.
fn comment(text: &str) -> String {
    let mut out = String::new();
    let mut columns = COLUMNS;
    for word in text.split_whitespace() {
        if columns + 1 + word.len() > COLUMNS {
            out.push_str(if out.is_empty() { "#" } else { "\n#" });
            columns = 1;
        }
        out.push(' ');
        // A value from the host stands in a comment and must not end it.
        out.extend(word.chars().map(|c| if c.is_control() { '?' } else { c }));
        columns += 1 + word.len();
    }
    out.push('\n');
    out
}

const COLUMNS: usize = 100;
/// The server's default of `net.backlog`.
const BACKLOG_USUAL: u64 = 4_096;
