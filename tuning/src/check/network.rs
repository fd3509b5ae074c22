//! Network: backlogs, ports, buffers, connection tracking.
//!
//! Owns: the checks of group `network`.
//! May depend on: `finding`, `host`, `target`.
//! Invariants: keys are judged as they hold in this network namespace.

use super::{at_least, number, set_key};
use crate::{
    finding::{Finding, Group, Rule, Severity},
    host::Host,
    target::{Needs, Target},
    tree::Reading,
};

const fn rule(check: &'static str, why: &'static str) -> Rule {
    Rule {
        check,
        group: Group::Network,
        why,
    }
}

pub(super) fn check(host: &Host, target: &Target, needs: &Needs) -> Vec<Finding> {
    let mut findings = vec![
        accept_backlog(host, needs),
        syn_backlog(host, needs),
        syn_cookies(host),
        device_backlog(host, needs),
        ports(host, needs),
        reserved_ports(host, target),
        time_wait(host),
        migration(host),
        pages(host, needs),
    ];
    findings.extend(buffers(host));
    findings.extend(tracking(host, needs));
    findings
}

fn accept_backlog(host: &Host, needs: &Needs) -> Finding {
    const RULE: Rule = rule(
        "net.core.somaxconn",
        "the kernel cuts net.backlog to it; when all clients come back at once, connections beyond it are dropped and \
         try again after a second or more",
    );
    at_least(
        &RULE,
        &host.network.backlog_max,
        needs.backlog,
        Severity::Warning,
    )
}

fn syn_backlog(host: &Host, needs: &Needs) -> Finding {
    const RULE: Rule = rule(
        "net.ipv4.tcp_max_syn_backlog",
        "connections that are half open; beyond it newcomers get a cookie, which costs them options of TCP, or nothing",
    );
    at_least(
        &RULE,
        &host.network.syn_backlog,
        needs.backlog,
        Severity::Warning,
    )
}

fn syn_cookies(host: &Host) -> Finding {
    const RULE: Rule = rule(
        "net.ipv4.tcp_syncookies",
        "with 0 a full backlog drops newcomers; with 2 each connection goes without some options of TCP",
    );
    match &host.network.syn_cookies {
        Reading::Is(value) => RULE.judge(
            *value == 1,
            Severity::Warning,
            value.to_string(),
            "1",
            set_key(RULE.check, 1),
        ),
        // A kernel may be built without.
        Reading::Absent => RULE.fine("not built into this kernel", "1"),
        other => RULE.unread(other, "1"),
    }
}

fn device_backlog(host: &Host, needs: &Needs) -> Finding {
    const RULE: Rule = rule(
        "net.core.netdev_max_backlog",
        "packets that wait for a core, on loopback and where RPS spreads them; beyond it they are dropped and sent again",
    );
    let reading = &host.network.device_backlog;
    if *reading == Reading::Absent {
        return RULE.unread_here(
            reading,
            format!("at least {}", number(needs.device_backlog)),
        );
    }
    let mut finding = at_least(&RULE, reading, needs.device_backlog, Severity::Warning);
    if let (Severity::Warning, Some(drops)) = (finding.severity, host.network.device_drops.value())
        && *drops > 0
    {
        finding.is = format!(
            "{}; {} packets found it full so far",
            finding.is,
            number(*drops)
        );
    }
    finding
}

fn ports(host: &Host, needs: &Needs) -> Finding {
    const RULE: Rule = rule(
        "net.ipv4.ip_local_port_range",
        "of no matter to the server; a proxy or load generator on this host has so many connections from one address \
         to one address of the server's, and not one more",
    );
    let should_be = match needs.connections <= PORTS_MAX {
        true => format!("at least {} ports", number(needs.connections)),
        false => format!(
            "1024 to 65535, and {} addresses of the proxy's or the server's",
            number(needs.connections.div_ceil(PORTS_MAX))
        ),
    };
    match &host.network.ports {
        Reading::Is((first, last)) => {
            let count = last - first + 1;
            RULE.judge(
                count >= needs.connections.min(PORTS_MAX),
                Severity::Warning,
                format!("{first} to {last}: {} ports", number(count)),
                should_be,
                format!(
                    "if a proxy or load generator runs here: {}",
                    set_key(RULE.check, "1024 65535")
                ),
            )
        }
        other => RULE.unread(other, should_be),
    }
}

fn reserved_ports(host: &Host, target: &Target) -> Finding {
    const RULE: Rule = rule(
        "net.ipv4.ip_local_reserved_ports",
        "an outgoing connection may have taken the server's port when it starts again",
    );
    let Some(&(first, last)) = host.network.ports.value() else {
        return RULE.unread(&host.network.ports, "the server's ports");
    };
    let reserved = match &host.network.reserved_ports {
        Reading::Is(reserved) => reserved,
        other => return RULE.unread(other, "the server's ports"),
    };
    let is_in = |port: u16, (first, last): (u64, u64)| (first..=last).contains(&u64::from(port));
    let is_safe =
        |port: u16| !is_in(port, (first, last)) || reserved.iter().any(|it| is_in(port, *it));
    let lacking: Vec<String> = target
        .ports
        .iter()
        .filter(|&&port| !is_safe(port))
        .map(u16::to_string)
        .collect();
    if lacking.is_empty() {
        return RULE.fine(
            "the server's ports are not given away",
            "the server's ports, where they lie in the range",
        );
    }
    let mut all: Vec<String> = reserved
        .iter()
        .map(|(first, last)| format!("{first}-{last}"))
        .collect();
    all.extend(lacking.iter().cloned());
    RULE.judge(
        false,
        Severity::Warning,
        format!(
            "without {}, which outgoing connections may take",
            lacking.join(", ")
        ),
        lacking.join(","),
        set_key(RULE.check, all.join(",")),
    )
}

fn time_wait(host: &Host) -> Finding {
    const RULE: Rule = rule(
        "net.ipv4.tcp_tw_reuse",
        "of no matter to the server; with 0 a proxy or load generator on this host waits a minute for each port",
    );
    match &host.network.time_wait_reuse {
        Reading::Is(value) => RULE.judge(
            *value == 1 || *value == 2,
            Severity::Warning,
            value.to_string(),
            "1, or 2 (on loopback only)",
            set_key(RULE.check, 1),
        ),
        other => RULE.unread(other, "1, or 2 (on loopback only)"),
    }
}

fn migration(host: &Host) -> Finding {
    const RULE: Rule = rule(
        "net.ipv4.tcp_migrate_req",
        "when a server ends and a successor listens on its port, the connections that wait for their accept go there; \
         with 0 the kernel resets them",
    );
    match &host.network.migrate_requests {
        Reading::Is(value) => RULE.judge(
            *value == 1,
            Severity::Warning,
            value.to_string(),
            "1",
            set_key(RULE.check, 1),
        ),
        other => RULE.unread(other, "1"),
    }
}

fn pages(host: &Host, needs: &Needs) -> Finding {
    const RULE: Rule = rule(
        "net.ipv4.tcp_mem",
        "pages of all sockets' buffers: the kernel promises each one page to send and one to receive; above the second \
         number it shrinks windows, above the third it drops",
    );
    let should_be = format!(
        "at least {} and {} pages",
        number(needs.tcp_pages_pressure),
        number(needs.tcp_pages)
    );
    match &host.network.memory_pages {
        Reading::Is([low, pressure, most]) => {
            let holds = *pressure >= needs.tcp_pages_pressure && *most >= needs.tcp_pages;
            let wanted = pages_wanted(needs, [*low, *pressure, *most]);
            RULE.judge(
                holds,
                Severity::Warning,
                format!("{} and {} pages", number(*pressure), number(*most)),
                should_be,
                set_key(RULE.check, wanted),
            )
        }
        other => RULE.unread_here(other, should_be),
    }
}

/// Never less than there is.
fn pages_wanted(needs: &Needs, [low, pressure, most]: [u64; 3]) -> String {
    let pressure = pressure.max(needs.tcp_pages_pressure);
    let low = low.max(pressure / 4 * 3);
    let most = most.max(needs.tcp_pages);
    format!("{low} {pressure} {most}")
}

fn buffers(host: &Host) -> [Finding; 2] {
    const RECEIVE: Rule = rule(
        "net.ipv4.tcp_rmem",
        "a buffer grows from the second number to the third; what no client sends takes no memory",
    );
    const SEND: Rule = rule(
        "net.ipv4.tcp_wmem",
        "a buffer grows from the second number to the third; the third holds a whole outbox (net.send_queue_bytes), so \
         that a burst is taken at once",
    );
    let judge = |rule: &Rule, reading: &Reading<[u64; 3]>, wanted: [u64; 3]| {
        let [least, first, most] = wanted;
        let should_be = format!("at least {least}, {first}, {most}");
        match reading {
            Reading::Is(is) => {
                let holds = is.iter().zip(wanted).all(|(is, wanted)| *is >= wanted);
                let mend = is
                    .iter()
                    .zip(wanted)
                    .map(|(is, wanted)| is.max(&wanted).to_string());
                let mend = set_key(rule.check, mend.collect::<Vec<_>>().join(" "));
                rule.judge(
                    holds,
                    Severity::Warning,
                    format!("{}, {}, {}", is[0], is[1], is[2]),
                    should_be,
                    mend,
                )
            }
            other => rule.unread(other, should_be),
        }
    };
    [
        judge(&RECEIVE, &host.network.receive_bytes, RECEIVE_BYTES),
        judge(&SEND, &host.network.send_bytes, SEND_BYTES),
    ]
}

fn tracking(host: &Host, needs: &Needs) -> Vec<Finding> {
    const MAX: Rule = rule(
        "net.netfilter.nf_conntrack_max",
        "each connection is an entry, and one more where a proxy here passes it on; newcomers beyond it are dropped \
         without a word to them",
    );
    const BUCKETS: Rule = rule(
        "net.netfilter.nf_conntrack_buckets",
        "each packet looks its entry up; with more than four entries to a bucket that takes long",
    );
    const NOTRACK: &str = "or leave the server's port untracked: `nft add table inet sockudo`, `nft add chain inet \
                           sockudo pre '{ type filter hook prerouting priority raw; }'`, `nft add rule inet sockudo \
                           pre tcp dport 6001 notrack`";
    let network = &host.network;
    let max = match &network.tracked_max {
        Reading::Is(max) => *max,
        Reading::Absent => {
            return vec![MAX.fine(
                "connections are not tracked here",
                "nothing, or room for all",
            )];
        }
        other => return vec![MAX.unread(other, number(needs.tracked))],
    };
    let now = network.tracked.value().copied().unwrap_or(0);
    let is_full = now >= max / 10 * 9;
    let is = match now {
        0 => number(max),
        now => format!("{}, of which {} are taken", number(max), number(now)),
    };
    let should_be = needs.tracked.max(now.saturating_mul(2));
    let mut findings = vec![MAX.judge(
        max >= needs.tracked && !is_full,
        Severity::Blocking,
        is,
        format!("at least {}", number(should_be)),
        format!("{}; {NOTRACK}", set_key(MAX.check, should_be)),
    )];
    if let Reading::Is(buckets) = network.tracked_buckets {
        let least = max.max(should_be) / ENTRIES_PER_BUCKET_MAX;
        findings.push(at_least(
            &BUCKETS,
            &Reading::Is(buckets),
            least,
            Severity::Warning,
        ));
    }
    findings
}

/// 1024 to 65535.
const PORTS_MAX: u64 = 64_512;
/// The kernel's own (ip-sysctl): one page, and what its defaults begin with.
pub(crate) const RECEIVE_BYTES: [u64; 3] = [4_096, 65_536, 1_048_576];
/// The last one is `net.send_queue_bytes`.
pub(crate) const SEND_BYTES: [u64; 3] = [4_096, 16_384, 1_048_576];
/// Kernels before 5.15 had four (nf_conntrack-sysctl).
const ENTRIES_PER_BUCKET_MAX: u64 = 4;
