//! Settings of TCP, its ports and connection tracking, as they hold in this network namespace.
//!
//! Owns: `Network`.
//! May depend on: `tree`.
//! Invariants: values are as read; pages are of 4 KiB.

use crate::tree::{Reading, Tree};

/// Settings of TCP and its neighbours.
#[derive(Clone, Debug)]
pub struct Network {
    /// `net.core.somaxconn`.
    pub backlog_max: Reading<u64>,
    /// `net.core.netdev_max_backlog`.
    pub device_backlog: Reading<u64>,
    /// Packets that found that backlog full since the start, all cores together.
    pub device_drops: Reading<u64>,
    /// `net.ipv4.tcp_max_syn_backlog`.
    pub syn_backlog: Reading<u64>,
    /// `net.ipv4.tcp_syncookies`.
    pub syn_cookies: Reading<u64>,
    /// `net.ipv4.ip_local_port_range`, first and last.
    pub ports: Reading<(u64, u64)>,
    /// `net.ipv4.ip_local_reserved_ports`, first and last of each.
    pub reserved_ports: Reading<Vec<(u64, u64)>>,
    /// `net.ipv4.tcp_mem`, pages: low, pressure, most.
    pub memory_pages: Reading<[u64; 3]>,
    /// `net.ipv4.tcp_rmem`, bytes: least, at first, most.
    pub receive_bytes: Reading<[u64; 3]>,
    /// `net.ipv4.tcp_wmem`, likewise.
    pub send_bytes: Reading<[u64; 3]>,
    /// `net.ipv4.tcp_tw_reuse`.
    pub time_wait_reuse: Reading<u64>,
    /// `net.ipv4.tcp_migrate_req`, from Linux 5.14.
    pub migrate_requests: Reading<u64>,
    /// `net.netfilter.nf_conntrack_max`; absent where nothing tracks.
    pub tracked_max: Reading<u64>,
    /// `net.netfilter.nf_conntrack_count`.
    pub tracked: Reading<u64>,
    /// `net.netfilter.nf_conntrack_buckets`.
    pub tracked_buckets: Reading<u64>,
}

impl Network {
    pub(super) fn read(tree: &Tree) -> Self {
        let key = |name: &str| tree.number(&format!("/proc/sys/net/{name}"));
        let three = |name: &str| {
            let numbers = tree.numbers(&format!("/proc/sys/net/{name}"));
            numbers.and_then(|it| format!("{it:?}"), |it| it.as_slice().try_into().ok())
        };
        Self {
            backlog_max: key("core/somaxconn"),
            device_backlog: key("core/netdev_max_backlog"),
            device_drops: tree.text("/proc/net/softnet_stat").parsed(drops),
            syn_backlog: key("ipv4/tcp_max_syn_backlog"),
            syn_cookies: key("ipv4/tcp_syncookies"),
            ports: tree
                .numbers("/proc/sys/net/ipv4/ip_local_port_range")
                .and_then(
                    |it| format!("{it:?}"),
                    |it| match it[..] {
                        [first, last] if first <= last && last <= 65_535 => Some((first, last)),
                        _ => None,
                    },
                ),
            reserved_ports: tree
                .text("/proc/sys/net/ipv4/ip_local_reserved_ports")
                .parsed(ranges),
            memory_pages: three("ipv4/tcp_mem"),
            receive_bytes: three("ipv4/tcp_rmem"),
            send_bytes: three("ipv4/tcp_wmem"),
            time_wait_reuse: key("ipv4/tcp_tw_reuse"),
            migrate_requests: key("ipv4/tcp_migrate_req"),
            tracked_max: key("netfilter/nf_conntrack_max"),
            tracked: key("netfilter/nf_conntrack_count"),
            tracked_buckets: key("netfilter/nf_conntrack_buckets"),
        }
    }
}

/// The second column of `softnet_stat`, hexadecimal, a line per core.
fn drops(text: &str) -> Option<u64> {
    let of_core = |line: &str| u64::from_str_radix(line.split_whitespace().nth(1)?, 16).ok();
    text.lines()
        .map(of_core)
        .try_fold(0u64, |sum, drops| Some(sum.saturating_add(drops?)))
}

/// `6001,9600-9601`, or nothing.
pub(crate) fn ranges(text: &str) -> Option<Vec<(u64, u64)>> {
    if text.is_empty() {
        return Some(Vec::new());
    }
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some((first.trim().parse().ok()?, last.trim().parse().ok()?))
    };
    text.split(',').map(range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_and_ranges_are_understood() {
        assert_eq!(drops("0a 00000002 0\n0b 0000000f 0"), Some(17));
        assert_eq!(drops(""), Some(0));
        assert_eq!(drops("0a"), None);
        assert_eq!(drops("0a zz"), None);
        assert_eq!(ranges(""), Some(vec![]));
        assert_eq!(
            ranges("6001,9600-9601"),
            Some(vec![(6_001, 6_001), (9_600, 9_601)])
        );
        assert_eq!(ranges("6001,x"), None);
    }
}
