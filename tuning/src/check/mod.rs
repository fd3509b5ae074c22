//! The checks: a host against a target.
//!
//! Owns: the list of checks, and what they share: comparing a key of the kernel's with what it should be.
//! May depend on: `finding`, `host`, `target`.
//! Invariants: pure: the same host and target give the same findings; every check gives one finding at least, so
//! that what was looked at can be seen.

mod cards;
mod cgroup;
mod cores;
mod kernel;
mod limits;
mod memory;
mod network;
mod service;

pub(crate) use cores::shards;
pub(crate) use kernel::is_fast_clock;
pub(crate) use network::{RECEIVE_BYTES, SEND_BYTES};

use crate::{
    finding::{self, Finding, Rule, Severity},
    host::Host,
    target::Target,
    tree::Reading,
};

/// Everything that was looked at, worst first.
pub fn check(host: &Host, target: &Target) -> Vec<Finding> {
    let needs = target.needs(host);
    let mut findings = Vec::new();
    findings.extend(kernel::check(host));
    findings.extend(limits::check(host, &needs));
    findings.extend(service::check(host, &needs));
    findings.extend(network::check(host, target, &needs));
    findings.extend(memory::check(host, &needs));
    findings.extend(cores::check(host, &needs));
    findings.extend(cards::check(host, &needs));
    findings.extend(cgroup::check(host, &needs));
    finding::sort(&mut findings);
    findings
}

/// A key of the kernel's that should be this at least. The rule's name is the key's.
fn at_least(rule: &Rule, reading: &Reading<u64>, least: u64, otherwise: Severity) -> Finding {
    let should_be = format!("at least {}", number(least));
    match reading {
        Reading::Is(value) => {
            let mend = set_key(rule.check, least);
            rule.judge(*value >= least, otherwise, number(*value), should_be, mend)
        }
        other => rule.unread(other, should_be),
    }
}

/// The command, and the line that keeps it.
fn set_key(key: &str, value: impl std::fmt::Display) -> String {
    format!("sysctl -w {key}=\"{value}\", and `{key} = {value}` in /etc/sysctl.d/90-sockudo.conf")
}

/// With thin groups of three digits, as a person reads them.
pub(crate) fn number(value: u64) -> String {
    if value == u64::MAX {
        return "unlimited".to_owned();
    }
    let digits = value.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

/// A size, with as much of a fraction as tells something.
pub(crate) fn bytes(value: u64) -> String {
    if value == u64::MAX {
        return "unlimited".to_owned();
    }
    let units = [
        (1u64 << 40, "TiB"),
        (1 << 30, "GiB"),
        (1 << 20, "MiB"),
        (1 << 10, "KiB"),
    ];
    for (unit, name) in units {
        if value >= unit {
            let whole = value as f64 / unit as f64;
            let text = format!("{whole:.1}");
            return format!("{} {name}", text.strip_suffix(".0").unwrap_or(&text));
        }
    }
    format!("{value} B")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_sizes_are_written_for_people() {
        assert_eq!(number(0), "0");
        assert_eq!(number(1_048_576), "1 048 576");
        assert_eq!(number(u64::MAX), "unlimited");
        assert_eq!(bytes(8 << 20), "8 MiB");
        assert_eq!(bytes(524_288), "512 KiB");
        assert_eq!(bytes(1_600_000_000), "1.5 GiB");
        assert_eq!(bytes(12), "12 B");
    }
}
