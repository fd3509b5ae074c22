//! Kernel: version, io_uring, clock.
//!
//! Owns: the checks of group `kernel`.
//! May depend on: `finding`, `host`.
//! Invariants: what a ring said when one was made counts more than what the switches say.

use crate::{
    finding::{Finding, Group, Rule, Severity},
    host::{Host, ring::Ring},
    tree::Reading,
};

const fn rule(check: &'static str, why: &'static str) -> Rule {
    Rule {
        check,
        group: Group::Kernel,
        why,
    }
}

pub(super) fn check(host: &Host) -> Vec<Finding> {
    vec![version(host), switch(host), ring(host), clock(host)]
}

fn version(host: &Host) -> Finding {
    const RULE: Rule = rule(
        "kernel.version",
        "the rings need deferred task work, which io_uring has from Linux 6.1",
    );
    let should_be = "at least 6.1";
    match (host.kernel.version(), &host.kernel.release) {
        (Some(version), Reading::Is(release)) => {
            let mend = "install a newer kernel: on Debian 12 `apt-get install linux-image-amd64`";
            RULE.judge(
                version >= (6, 1),
                Severity::Blocking,
                release,
                should_be,
                mend,
            )
        }
        (_, Reading::Is(release)) => {
            RULE.unread(&Reading::<u64>::Strange(release.clone()), should_be)
        }
        (_, other) => RULE.unread(other, should_be),
    }
}

fn switch(host: &Host) -> Finding {
    const RULE: Rule = rule(
        "kernel.io_uring_disabled",
        "without io_uring the server does not start",
    );
    let mend = "sysctl -w kernel.io_uring_disabled=0, and `kernel.io_uring_disabled = 0` in \
                /etc/sysctl.d/90-sockudo.conf";
    let has_key = host
        .kernel
        .version()
        .is_some_and(|version| version >= (6, 6));
    match (&host.kernel.ring_disabled, host.kernel.ring_built) {
        (Reading::Is(0), _) => RULE.fine("0", "0"),
        (Reading::Is(1), _) => {
            let group = host.kernel.ring_group.value().filter(|&&group| group >= 0);
            let is = group.map_or_else(
                || "1, without a kernel.io_uring_group".to_owned(),
                |group| format!("1: processes of group {group} only"),
            );
            let severity = group.map_or(Severity::Blocking, |_| Severity::Warning);
            RULE.judge(
                false,
                severity,
                is,
                "0, or 1 with the server's user in kernel.io_uring_group",
                mend,
            )
        }
        (Reading::Is(value), _) => RULE.judge(
            false,
            Severity::Blocking,
            format!("{value}: nobody may"),
            "0",
            mend,
        ),
        (Reading::Absent, Some(false)) => RULE.judge(
            false,
            Severity::Blocking,
            "not built into this kernel",
            "CONFIG_IO_URING=y",
            "install a kernel that has io_uring, such as the distribution's own",
        ),
        // The key came with 6.6; an older kernel without it has io_uring for everybody.
        (Reading::Absent, _) if !has_key => RULE.fine("no such key before Linux 6.6", "0"),
        (Reading::Absent, Some(true)) => RULE.fine("built in; the key cannot be seen", "0"),
        (other, _) => RULE.unread(other, "0"),
    }
}

/// What only trying can tell: filters of system calls and security modules.
fn ring(host: &Host) -> Finding {
    const RULE: Rule = rule(
        "kernel.io_uring",
        "a container's seccomp profile or a unit's filter may hide io_uring though the kernel has it",
    );
    const EPERM: i32 = 1;
    const ENOMEM: i32 = 12;
    const EACCES: i32 = 13;
    const EINVAL: i32 = 22;
    const ENOSYS: i32 = 38;
    let should_be = "a ring can be made";
    let filtered = host.kernel.seccomp.value() == Some(&2);
    let (is, mend) = match host.ring {
        Some(Ring::Works) => return RULE.fine("a ring was made and closed", should_be),
        None if filtered => {
            let is = "not tried; a filter of system calls holds for this process";
            let mend = "allow io_uring_setup, io_uring_enter and io_uring_register in the container's seccomp profile";
            return RULE.judge(false, Severity::Warning, is, should_be, mend);
        }
        None => {
            return RULE.fine(
                "not tried here; no filter holds for this process",
                should_be,
            );
        }
        Some(Ring::Refused(EPERM | EACCES)) if filtered => (
            "forbidden by a filter of system calls (EPERM)".to_owned(),
            "allow io_uring_setup, io_uring_enter and io_uring_register in the container's seccomp profile",
        ),
        Some(Ring::Refused(EPERM | EACCES)) => (
            "forbidden (EPERM)".to_owned(),
            "sysctl -w kernel.io_uring_disabled=0; else look at the security module's log",
        ),
        Some(Ring::Refused(ENOSYS)) => (
            "not there (ENOSYS)".to_owned(),
            "a kernel with CONFIG_IO_URING, or a seccomp profile that allows io_uring_setup, io_uring_enter and \
             io_uring_register",
        ),
        Some(Ring::Refused(EINVAL)) => (
            "without deferred task work (EINVAL)".to_owned(),
            "install Linux 6.1 or newer",
        ),
        Some(Ring::Refused(ENOMEM)) => (
            "refused for want of locked memory (ENOMEM)".to_owned(),
            "`ulimit -l 8192`, or LimitMEMLOCK=8M in the unit",
        ),
        Some(Ring::Refused(number)) => (
            format!("refused with error {number}"),
            "look the error up in io_uring_setup(2)",
        ),
    };
    RULE.judge(false, Severity::Blocking, is, should_be, mend)
}

fn clock(host: &Host) -> Finding {
    const RULE: Rule = rule(
        "kernel.clocksource",
        "each turn reads the clock; from these that takes no system call (vDSO), from others about a microsecond",
    );
    let should_be = FAST.join(", ");
    match &host.kernel.clock {
        Reading::Is(clock) => {
            let better = FAST
                .iter()
                .find(|fast| host.kernel.clocks.iter().any(|it| it == *fast));
            let mend = match better {
                Some(better) => format!(
                    "echo {better} > /sys/devices/system/clocksource/clocksource0/current_clocksource; to keep it, \
                     clocksource={better} on the kernel's command line"
                ),
                None => "the kernel found no fast clock stable: see `dmesg | grep -i clocksource`, and the \
                         hypervisor's settings"
                    .to_owned(),
            };
            RULE.judge(
                is_fast_clock(clock),
                Severity::Warning,
                clock,
                should_be,
                mend,
            )
        }
        other => RULE.unread(other, should_be),
    }
}

/// Whether reading this clock takes no system call.
pub(crate) fn is_fast_clock(clock: &str) -> bool {
    FAST.contains(&clock)
}

const FAST: [&str; 4] = [
    "tsc",
    "kvm-clock",
    "hyperv_clocksource_tsc_page",
    "arch_sys_counter",
];
