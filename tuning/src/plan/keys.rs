//! Keys of the kernel: `sysctl.d`.
//!
//! Owns: which keys are set, and to what.
//! May depend on: `finding`, `host`, `target`.
//! Invariants: a key that cannot be seen here is not set; no number goes down.

use super::comment;
use crate::{
    check,
    finding::{Finding, Severity},
    host::Host,
    target::{Needs, Target},
    tree::Reading,
};

/// A key and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) value: String,
}

pub(super) fn keys(host: &Host, target: &Target, needs: &Needs) -> Vec<Key> {
    let network = &host.network;
    let mut keys = backlogs_and_files(host, needs);
    keys.extend(tracking(host, needs));
    keys.extend(switches(host));
    keys.extend(pages(host, needs));
    keys.extend(ports(host, target, needs));
    keys.extend(three(
        "net.ipv4.tcp_rmem",
        &network.receive_bytes,
        check::RECEIVE_BYTES,
    ));
    keys.extend(three(
        "net.ipv4.tcp_wmem",
        &network.send_bytes,
        check::SEND_BYTES,
    ));
    keys
}

fn at_least(name: &'static str, reading: &Reading<u64>, least: u64) -> Option<Key> {
    let is = known(reading)?.copied().unwrap_or(0);
    Some(key(name, is.max(least)))
}

fn backlogs_and_files(host: &Host, needs: &Needs) -> Vec<Key> {
    let (kernel, network) = (&host.kernel, &host.network);
    let open = kernel.files.value().copied().unwrap_or(0);
    let files_of_host = needs.files_of_host.max(needs.files.saturating_add(open));
    let keys = [
        at_least("fs.nr_open", &kernel.files_of_process_max, needs.files),
        at_least("fs.file-max", &kernel.files_max, files_of_host),
        at_least("net.core.somaxconn", &network.backlog_max, needs.backlog),
        at_least(
            "net.ipv4.tcp_max_syn_backlog",
            &network.syn_backlog,
            needs.backlog,
        ),
        at_least(
            "net.core.netdev_max_backlog",
            &network.device_backlog,
            needs.device_backlog,
        ),
    ];
    keys.into_iter().flatten().collect()
}

fn tracking(host: &Host, needs: &Needs) -> Vec<Key> {
    let network = &host.network;
    let now = network.tracked.value().copied().unwrap_or(0);
    let tracked = needs.tracked.max(now.saturating_mul(2));
    let entries = network
        .tracked_max
        .value()
        .copied()
        .unwrap_or(0)
        .max(tracked);
    let keys = [
        at_least(
            "net.netfilter.nf_conntrack_max",
            &network.tracked_max,
            tracked,
        ),
        at_least(
            "net.netfilter.nf_conntrack_buckets",
            &network.tracked_buckets,
            entries / 4,
        ),
    ];
    keys.into_iter().flatten().collect()
}

/// Keys that are right or wrong, and no matter of how much.
fn switches(host: &Host) -> Vec<Key> {
    let (kernel, network) = (&host.kernel, &host.network);
    let mut keys = Vec::new();
    if known(&network.syn_cookies).is_some() {
        keys.push(key("net.ipv4.tcp_syncookies", 1));
    }
    if known(&network.migrate_requests).is_some() {
        keys.push(key("net.ipv4.tcp_migrate_req", 1));
    }
    if network.time_wait_reuse.value() == Some(&0) {
        keys.push(key("net.ipv4.tcp_tw_reuse", 1));
    }
    if kernel.ring_disabled.value().is_some_and(|&value| value > 0) {
        keys.push(key("kernel.io_uring_disabled", 0));
    }
    if host.cores.nodes.len() > 1 && host.cores.numa_balancing.is_some() {
        keys.push(key("kernel.numa_balancing", 0));
    }
    keys
}

fn key(name: &'static str, value: impl ToString) -> Key {
    Key {
        name,
        value: value.to_string(),
    }
}

/// `None`: not to be seen here, so not to be set.
fn known<T>(reading: &Reading<T>) -> Option<Option<&T>> {
    match reading {
        Reading::Is(value) => Some(Some(value)),
        Reading::Denied | Reading::Strange(_) => Some(None),
        Reading::Absent => None,
    }
}

fn three(name: &'static str, reading: &Reading<[u64; 3]>, least: [u64; 3]) -> Option<Key> {
    let is = known(reading)?.copied().unwrap_or_default();
    let value: Vec<String> = is
        .iter()
        .zip(least)
        .map(|(is, least)| is.max(&least).to_string())
        .collect();
    Some(key(name, value.join(" ")))
}

/// The kernel must not give half of the memory to buffers, whatever is asked for.
fn pages(host: &Host, needs: &Needs) -> Option<Key> {
    let is = known(&host.network.memory_pages)?
        .copied()
        .unwrap_or_default();
    let half = host
        .memory
        .total_bytes
        .value()
        .map_or(u64::MAX, |bytes| bytes / 2 / PAGE_BYTES);
    let most = is[2].max(needs.tcp_pages.min(half));
    let pressure = is[1].max(needs.tcp_pages_pressure.min(half / 2));
    let low = is[0].max(pressure / 4 * 3);
    Some(key("net.ipv4.tcp_mem", format!("{low} {pressure} {most}")))
}

/// A wider range may reach the server's own ports.
fn ports(host: &Host, target: &Target, needs: &Needs) -> Vec<Key> {
    let mut keys = Vec::new();
    let Some(&(mut first, mut last)) = host.network.ports.value() else {
        return keys;
    };
    if last - first + 1 < needs.connections.min(PORTS_MAX) {
        (first, last) = (PORT_FIRST, PORT_LAST);
        keys.push(key(
            "net.ipv4.ip_local_port_range",
            format!("{first} {last}"),
        ));
    }
    if let Some(reserved) = known(&host.network.reserved_ports) {
        let mut all = reserved.cloned().unwrap_or_default();
        let is_reserved = |all: &[(u64, u64)], port| {
            all.iter()
                .any(|(first, last)| (*first..=*last).contains(&port))
        };
        for port in target.ports.iter().map(|&port| u64::from(port)) {
            if (first..=last).contains(&port) && !is_reserved(&all, port) {
                all.push((port, port));
            }
        }
        let range = |(first, last): &(u64, u64)| match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        };
        if !all.is_empty() {
            let all: Vec<String> = all.iter().map(range).collect();
            keys.push(key("net.ipv4.ip_local_reserved_ports", all.join(",")));
        }
    }
    keys
}

impl Key {
    /// The host as if the key had been set.
    pub(super) fn set(&self, host: &mut Host) {
        let number = || self.value.parse().map_or(Reading::Absent, Reading::Is);
        let three = || {
            let numbers: Vec<u64> = self
                .value
                .split(' ')
                .filter_map(|it| it.parse().ok())
                .collect();
            numbers.try_into().map_or(Reading::Absent, Reading::Is)
        };
        let (kernel, network) = (&mut host.kernel, &mut host.network);
        match self.name {
            "fs.nr_open" => kernel.files_of_process_max = number(),
            "fs.file-max" => kernel.files_max = number(),
            "net.core.somaxconn" => network.backlog_max = number(),
            "net.ipv4.tcp_max_syn_backlog" => network.syn_backlog = number(),
            "net.core.netdev_max_backlog" => network.device_backlog = number(),
            "net.netfilter.nf_conntrack_max" => network.tracked_max = number(),
            "net.netfilter.nf_conntrack_buckets" => network.tracked_buckets = number(),
            "net.ipv4.tcp_syncookies" => network.syn_cookies = number(),
            "net.ipv4.tcp_migrate_req" => network.migrate_requests = number(),
            "net.ipv4.tcp_tw_reuse" => network.time_wait_reuse = number(),
            "kernel.io_uring_disabled" => {
                kernel.ring_disabled = number();
                host.ring = None;
            }
            "kernel.numa_balancing" => host.cores.numa_balancing = Some(0),
            "net.ipv4.tcp_mem" => network.memory_pages = three(),
            "net.ipv4.tcp_rmem" => network.receive_bytes = three(),
            "net.ipv4.tcp_wmem" => network.send_bytes = three(),
            "net.ipv4.ip_local_port_range" => network.ports = Reading::Is((PORT_FIRST, PORT_LAST)),
            "net.ipv4.ip_local_reserved_ports" => {
                network.reserved_ports =
                    Reading::Is(crate::host::network::ranges(&self.value).unwrap_or_default());
            }
            name => unreachable!("{name} is not set by `keys`"),
        }
    }

    /// Not there until something tracks connections, which may be after the boot read the file.
    fn is_optional(&self) -> bool {
        self.name.starts_with("net.netfilter.")
    }
}

/// The file, each key below what it is good for.
pub(super) fn text(keys: &[Key], findings: &[Finding], needs: &Needs) -> String {
    let mut out = comment(&format!(
        "Written by `sockudo tune` for {} connections. The formulas: docs/host.md. Read by `sysctl --system`, and at \
         the boot.",
        needs.connections
    ));
    for key in keys {
        out.push('\n');
        let finding = findings.iter().find(|finding| finding.check == key.name);
        if let Some(finding) = finding {
            out.push_str(&comment(&sentence(finding.why)));
            let was = match finding.severity {
                Severity::Fine => format!("As it was: {}.", finding.is),
                Severity::Warning | Severity::Blocking => {
                    format!("Was {}; should be {}.", finding.is, finding.should_be)
                }
            };
            out.push_str(&comment(&was));
        }
        let sign = if key.is_optional() { "-" } else { "" };
        out.push_str(&format!("{sign}{} = {}\n", key.name, key.value));
    }
    out
}

fn sentence(why: &str) -> String {
    let mut rest = why.chars();
    let first = rest.next().map(|c| c.to_ascii_uppercase());
    first.into_iter().chain(rest).chain(['.']).collect()
}

const PAGE_BYTES: u64 = 4_096;
const PORT_FIRST: u64 = 1_024;
const PORT_LAST: u64 = 65_535;
const PORTS_MAX: u64 = PORT_LAST - PORT_FIRST + 1;
