//! Service: what the unit of systemd gives the server.
//!
//! Owns: the checks of group `service`.
//! May depend on: `limits`, `finding`, `host`, `target`.
//! Invariants: without a unit there is one finding, and it is fine: other ways to start a server are as good.

use super::{bytes, limits, number};
use crate::{
    finding::{Finding, Group, Rule, Severity},
    host::{Host, unit::Unit},
    target::Needs,
};

const fn rule(check: &'static str, why: &'static str) -> Rule {
    Rule {
        check,
        group: Group::Service,
        why,
    }
}

pub(super) fn check(host: &Host, needs: &Needs) -> Vec<Finding> {
    const RULE: Rule = rule(
        "service.unit",
        "a unit raises the limits, starts the server again and stops it gently",
    );
    let Some(unit) = &host.unit else {
        return vec![RULE.fine(
            "no unit of ours is installed",
            "systemd/sockudo.service, or another supervisor",
        )];
    };
    let kind = unit.kind.as_deref().unwrap_or("simple");
    let kind = RULE.judge(
        kind == "notify",
        Severity::Warning,
        format!("{}, Type={kind}", unit.path),
        "Type=notify",
        drop_in("Type=notify"),
    );
    let mut findings = vec![
        kind,
        files(unit, needs),
        locked(unit, needs),
        calls(unit),
        stop(unit),
    ];
    findings.push(threads(unit, needs));
    findings.extend(memory(unit, needs));
    findings.extend(time(unit, needs));
    findings
}

fn drop_in(line: &str) -> String {
    format!(
        "`[Service]` and `{line}` in /etc/systemd/system/sockudo.service.d/50-tuning.conf, then `systemctl \
         daemon-reload && systemctl restart sockudo`"
    )
}

fn files(unit: &Unit, needs: &Needs) -> Finding {
    const RULE: Rule = rule("service.nofile", limits::FILES_WHY);
    RULE.judge(
        unit.files.hard >= needs.files,
        Severity::Blocking,
        format!("LimitNOFILE={}", number(unit.files.hard)),
        format!("at least {}", number(needs.files)),
        drop_in(&format!("LimitNOFILE={}", needs.files)),
    )
}

fn locked(unit: &Unit, needs: &Needs) -> Finding {
    const RULE: Rule = rule("service.memlock", limits::LOCKED_WHY);
    let mend = |kib: u64| drop_in(&format!("LimitMEMLOCK={kib}K"));
    match unit.locked_bytes {
        Some(limit) => limits::judge_locked(&RULE, limit.hard, needs, "the unit", mend),
        None => RULE.judge(
            false,
            Severity::Warning,
            "LimitMEMLOCK= is not set: systemd's own, 64 KiB or 8 MiB by its version",
            format!("at least {}", bytes(needs.locked_bytes)),
            mend(needs.locked_bytes >> 10),
        ),
    }
}

fn calls(unit: &Unit) -> Finding {
    const RULE: Rule = rule(
        "service.calls",
        "the filter must let the three calls of io_uring through; a group that systemd does not know leaves nothing \
         but @default",
    );
    const CALLS: [&str; 3] = ["io_uring_setup", "io_uring_enter", "io_uring_register"];
    let should_be = "no filter, or one with io_uring_setup, io_uring_enter, io_uring_register";
    let has = |word: &str| unit.calls.iter().any(|it| it == word);
    let is_forbidden = ["~@io-uring", "~@aio"].into_iter().any(has)
        || CALLS.iter().any(|call| has(&format!("~{call}")));
    // A filter whose first line forbids lets everything else through.
    let allows_the_rest = unit
        .calls
        .first()
        .is_none_or(|first| first.starts_with('~'));
    let lets_through = !is_forbidden && (allows_the_rest || CALLS.into_iter().all(has));
    // @system-service has had them since it came, by way of @aio, which is documented nowhere.
    let severity = match has("@system-service") && !is_forbidden {
        true => Severity::Warning,
        false => Severity::Blocking,
    };
    let is = match unit.calls.is_empty() {
        true => "no filter".to_owned(),
        false => format!("SystemCallFilter={}", unit.calls.join(" ")),
    };
    let mend = drop_in("SystemCallFilter=io_uring_setup io_uring_enter io_uring_register");
    RULE.judge(lets_through, severity, is, should_be, mend)
}

fn stop(unit: &Unit) -> Finding {
    const RULE: Rule = rule(
        "service.stop",
        "a stop is a drain, which takes drain.deadline_s (10 s by default); systemd kills what takes longer",
    );
    // DefaultTimeoutStopSec is 90 s unless somebody changed it.
    let stop_ms = unit.stop_ms.unwrap_or(90_000);
    RULE.judge(
        stop_ms >= STOP_MS_MIN,
        Severity::Warning,
        match stop_ms {
            u64::MAX => "for ever".to_owned(),
            ms => format!("{} s", ms / 1_000),
        },
        "at least 20 s, and more than drain.deadline_s",
        drop_in("TimeoutStopSec=40"),
    )
}

fn threads(unit: &Unit, needs: &Needs) -> Finding {
    const RULE: Rule = rule(
        "service.tasks",
        "a thread per shard, and some beside; without them the server does not start",
    );
    // DefaultTasksMax is a share of the host's, thousands at least.
    let Some(threads) = unit.threads else {
        return RULE.fine(
            "TasksMax= is systemd's default",
            format!("at least {}", needs.threads),
        );
    };
    RULE.judge(
        threads >= needs.threads,
        Severity::Blocking,
        format!("TasksMax={}", number(threads)),
        format!("at least {}", number(needs.threads)),
        drop_in(&format!("TasksMax={}", needs.threads)),
    )
}

fn memory(unit: &Unit, needs: &Needs) -> Option<Finding> {
    const RULE: Rule = rule(
        "service.memory",
        "the kernel's part of each connection counts too; beyond it the server is killed",
    );
    let bytes_max = unit.memory_bytes?;
    let should_be = needs.memory_bytes.saturating_add(needs.memory_bytes / 9);
    Some(RULE.judge(
        bytes_max >= should_be,
        Severity::Blocking,
        format!("MemoryMax={}", bytes(bytes_max)),
        format!("at least {}", bytes(should_be)),
        drop_in(&format!("MemoryMax={}M", should_be.div_ceil(1 << 20))),
    ))
}

fn time(unit: &Unit, needs: &Needs) -> Option<Finding> {
    const RULE: Rule = rule(
        "service.cpu",
        "a quota stops every shard until the period is over, up to 100 ms",
    );
    let millicores = unit.cpu_millicores?;
    let should_be = needs.shards.saturating_add(1);
    Some(RULE.judge(
        millicores >= should_be.saturating_mul(1_000),
        Severity::Warning,
        format!("CPUQuota={}%", millicores / 10),
        format!("none, or at least {}%", should_be.saturating_mul(100)),
        drop_in("CPUQuota="),
    ))
}

const STOP_MS_MIN: u64 = 20_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_lets_the_rings_through_or_not() {
        for (filter, expected) in [
            ("", Severity::Fine),
            (
                "@system-service io_uring_setup io_uring_enter io_uring_register ~@privileged",
                Severity::Fine,
            ),
            ("~@privileged ~@mount", Severity::Fine),
            ("@system-service", Severity::Warning),
            ("@system-service io_uring_setup", Severity::Warning),
            ("@basic-io", Severity::Blocking),
            ("~io_uring_setup", Severity::Blocking),
            (
                "@system-service io_uring_setup io_uring_enter io_uring_register ~@aio",
                Severity::Blocking,
            ),
        ] {
            let unit = Unit {
                calls: filter.split_whitespace().map(str::to_owned).collect(),
                ..Unit::default()
            };
            assert_eq!(calls(&unit).severity, expected, "{filter:?}");
        }
    }
}
