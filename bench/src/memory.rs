//! The kernel's memory, of which no process is said to be the owner.
//!
//! Owns: the reading of `/proc/meminfo` and `/proc/net/sockstat`.
//! May depend on: nothing.
//! Invariants: what cannot be read is 0. These are sums over the whole machine: a difference says
//! something only while nothing else opens connections or files.

use std::fs;

/// One reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelMemory {
    /// All objects of the kernel: sockets, files, epoll and io_uring entries.
    pub slab_bytes: u64,
    /// Pages of TCP's buffers.
    pub tcp_bytes: u64,
}

impl KernelMemory {
    pub fn now() -> Self {
        let read = |file| fs::read_to_string(file).unwrap_or_default();
        Self::parse(&read("/proc/meminfo"), &read("/proc/net/sockstat"))
    }

    fn parse(meminfo: &str, sockstat: &str) -> Self {
        const PAGE_BYTES: u64 = 4_096;
        let number_after = |line: Option<&str>, word: &str| {
            let mut words = line.unwrap_or_default().split_whitespace();
            words.find(|&other| other == word)?;
            words.next()?.parse::<u64>().ok()
        };
        let slab = meminfo.lines().find(|line| line.starts_with("Slab:"));
        let tcp = sockstat.lines().find(|line| line.starts_with("TCP:"));
        Self {
            slab_bytes: number_after(slab, "Slab:").unwrap_or(0) * 1_024,
            tcp_bytes: number_after(tcp, "mem").unwrap_or(0) * PAGE_BYTES,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slab_is_in_kibibytes_and_tcp_in_pages() {
        let meminfo = "MemTotal:       100 kB\nSlab:            70 kB\n";
        let sockstat =
            "sockets: used 9\nTCP: inuse 4 orphan 0 tw 1 alloc 5 mem 3\nUDP: inuse 1 mem 9\n";
        let expected = KernelMemory {
            slab_bytes: 71_680,
            tcp_bytes: 12_288,
        };
        assert_eq!(KernelMemory::parse(meminfo, sockstat), expected);
        assert_eq!(KernelMemory::parse("", ""), KernelMemory::default());
    }
}
