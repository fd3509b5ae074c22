//! Limits: open files and locked memory of a process and of the host.
//!
//! Owns: the checks of group `limits`.
//! May depend on: `finding`, `host`, `target`.
//! Invariants: the limits of a shell count only where no unit is installed and no server runs.

use super::{at_least, bytes, number, set_key};
use crate::{
    finding::{Finding, Group, Rule, Severity},
    host::{Host, limits::Limits, processes::Server},
    target::Needs,
    tree::Reading,
};

const fn rule(check: &'static str, why: &'static str) -> Rule {
    Rule {
        check,
        group: Group::Limits,
        why,
    }
}

pub(super) const FILES_WHY: &str = "each connection is an open file; the server raises its soft limit to the hard one, \
                                    and refuses connections that it has no file for (4100)";
pub(super) const LOCKED_WHY: &str =
    "each shard's rings lock their buffers; without enough the server does not start";

pub(super) fn check(host: &Host, needs: &Needs) -> Vec<Finding> {
    let mut findings = Vec::new();
    for Server { pid, limits } in &host.processes.servers {
        findings.extend(of_process(
            limits,
            needs,
            &format!("the server that runs as process {pid}"),
        ));
    }
    if host.processes.servers.is_empty() && host.unit.is_none() {
        findings.extend(of_process(&host.limits, needs, "this shell"));
    }
    findings.push(of_any_process(host, needs));
    findings.push(of_host(host, needs));
    findings
}

fn of_process(limits: &Reading<Limits>, needs: &Needs, whose: &str) -> Vec<Finding> {
    const FILES: Rule = rule("limits.nofile", FILES_WHY);
    const LOCKED: Rule = rule("limits.memlock", LOCKED_WHY);
    let limits = match limits {
        Reading::Is(limits) => limits,
        other => {
            return vec![
                FILES.unread(other, number(needs.files)),
                LOCKED.unread(other, bytes(needs.locked_bytes)),
            ];
        }
    };
    let (files, locked) = (limits.files.hard, limits.locked_bytes.hard);
    let mend_files = format!(
        "`* - nofile {0}` in /etc/security/limits.d/90-sockudo.conf and a new session; LimitNOFILE={0} for a unit; \
         `docker run --ulimit nofile={0}` for a container",
        needs.files
    );
    vec![
        FILES.judge(
            files >= needs.files,
            Severity::Blocking,
            format!("{} for {whose}", number(files)),
            format!("at least {}", number(needs.files)),
            mend_files,
        ),
        judge_locked(&LOCKED, locked, needs, whose, |kib| {
            format!(
                "`* - memlock {kib}` in /etc/security/limits.d/90-sockudo.conf and a new session; LimitMEMLOCK={kib}K \
                 for a unit"
            )
        }),
    ]
}

/// Too little to start is worse than too little to have room.
pub(super) fn judge_locked(
    rule: &Rule,
    locked: u64,
    needs: &Needs,
    whose: &str,
    mend: impl Fn(u64) -> String,
) -> Finding {
    let severity = match locked < needs.locked_bytes_min {
        true => Severity::Blocking,
        false => Severity::Warning,
    };
    rule.judge(
        locked >= needs.locked_bytes,
        severity,
        format!("{} for {whose}", bytes(locked)),
        format!("at least {}", bytes(needs.locked_bytes)),
        mend(needs.locked_bytes >> 10),
    )
}

fn of_any_process(host: &Host, needs: &Needs) -> Finding {
    const RULE: Rule = rule(
        "fs.nr_open",
        "no process can have a limit of open files above it",
    );
    at_least(
        &RULE,
        &host.kernel.files_of_process_max,
        needs.files,
        Severity::Blocking,
    )
}

fn of_host(host: &Host, needs: &Needs) -> Finding {
    const RULE: Rule = rule(
        "fs.file-max",
        "open files of all processes together; beyond it nobody but root opens one",
    );
    let finding = at_least(
        &RULE,
        &host.kernel.files_max,
        needs.files_of_host,
        Severity::Blocking,
    );
    // More than usual may be open already.
    let (Some(&max), Some(&now)) = (host.kernel.files_max.value(), host.kernel.files.value())
    else {
        return finding;
    };
    let should_be = needs.files.saturating_add(now);
    if finding.severity > Severity::Fine || max >= should_be || !host.processes.servers.is_empty() {
        return finding;
    }
    RULE.judge(
        false,
        Severity::Blocking,
        format!("{}, of which {} are open", number(max), number(now)),
        format!("at least {}", number(should_be)),
        set_key(RULE.check, should_be),
    )
}
