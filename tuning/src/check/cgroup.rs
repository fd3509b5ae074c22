//! Cgroup: what it leaves of memory, threads and time.
//!
//! Owns: the checks of group `cgroup`.
//! May depend on: `finding`, `host`, `target`.
//! Invariants: no limit is fine.

use super::{bytes, number};
use crate::{
    finding::{Finding, Group, Rule, Severity},
    host::Host,
    target::Needs,
};

const fn rule(check: &'static str, why: &'static str) -> Rule {
    Rule {
        check,
        group: Group::Cgroup,
        why,
    }
}

pub(super) fn check(host: &Host, needs: &Needs) -> Vec<Finding> {
    vec![memory(host, needs), threads(host, needs), time(host, needs)]
}

fn memory(host: &Host, needs: &Needs) -> Finding {
    const RULE: Rule = rule(
        "cgroup.memory",
        "the kernel's part of each connection counts too; at the limit sends are refused, beyond it the server is killed",
    );
    let wanted = needs.memory_bytes.saturating_add(needs.memory_bytes / 9);
    let should_be = format!("none, or at least {}", bytes(wanted));
    match host.group.memory_bytes {
        None => RULE.fine("no limit", should_be),
        Some(limit) => RULE.judge(
            limit >= wanted,
            Severity::Blocking,
            bytes(limit),
            should_be,
            format!(
                "`docker run --memory {0}m`, or MemoryMax={0}M in the unit",
                wanted.div_ceil(1 << 20)
            ),
        ),
    }
}

fn threads(host: &Host, needs: &Needs) -> Finding {
    const RULE: Rule = rule(
        "cgroup.threads",
        "a thread per shard, and some beside; without them the server does not start",
    );
    let should_be = format!("none, or at least {}", number(needs.threads));
    match host.group.threads {
        None => RULE.fine("no limit", should_be),
        Some(limit) => RULE.judge(
            limit >= needs.threads,
            Severity::Blocking,
            number(limit),
            should_be,
            format!(
                "`docker run --pids-limit {0}`, or TasksMax={0} in the unit",
                needs.threads
            ),
        ),
    }
}

fn time(host: &Host, needs: &Needs) -> Finding {
    const RULE: Rule = rule(
        "cgroup.cpu",
        "a quota that is used up stops every shard until the period is over, up to 100 ms",
    );
    let cores = needs.shards.saturating_add(1);
    let should_be = format!("none, or at least {cores} cores");
    match host.group.cpu_millicores {
        None => RULE.fine("no quota", should_be),
        Some(millicores) => RULE.judge(
            millicores >= cores.saturating_mul(1_000),
            Severity::Warning,
            format!(
                "{}.{} cores' time",
                millicores / 1_000,
                millicores % 1_000 / 100
            ),
            should_be,
            format!(
                "`docker run --cpuset-cpus` in place of `--cpus`, or fewer shards than {}",
                needs.shards
            ),
        ),
    }
}
