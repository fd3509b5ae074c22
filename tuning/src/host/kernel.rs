//! The kernel: version, switches, clock.
//!
//! Owns: `Kernel`.
//! May depend on: `tree`.
//! Invariants: none beyond the module's: values are as read.

use crate::tree::{Reading, Tree};

/// Version, switches, clock.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// As `uname -r` says it.
    pub release: Reading<String>,
    /// `kernel.io_uring_disabled`, from Linux 6.6: 0, 1 (some groups only), 2 (nobody).
    pub ring_disabled: Reading<u64>,
    /// `kernel.io_uring_group`: who may with 1; -1 is no group.
    pub ring_group: Reading<i64>,
    /// `CONFIG_IO_URING` in `/boot`, where that lies.
    pub ring_built: Option<bool>,
    /// Of this process: 0 none, 1 strict, 2 a filter.
    pub seccomp: Reading<u64>,
    /// Where the time comes from.
    pub clock: Reading<String>,
    /// Where else it could come from.
    pub clocks: Vec<String>,
    /// `fs.nr_open`: the highest limit of open files that a process may have.
    pub files_of_process_max: Reading<u64>,
    /// `fs.file-max`: open files of the host.
    pub files_max: Reading<u64>,
    /// Open files of the host now.
    pub files: Reading<u64>,
}

impl Kernel {
    pub(super) fn read(tree: &Tree) -> Self {
        let release = tree.text("/proc/sys/kernel/osrelease");
        let built = release
            .value()
            .and_then(|release| ring_built(tree, release));
        let clock = "/sys/devices/system/clocksource/clocksource0";
        let clocks = tree.text(&format!("{clock}/available_clocksource"));
        let clocks = clocks
            .value()
            .map(|text| text.split_whitespace().map(str::to_owned).collect());
        Self {
            release,
            ring_disabled: tree.number("/proc/sys/kernel/io_uring_disabled"),
            ring_group: tree
                .text("/proc/sys/kernel/io_uring_group")
                .parsed(|text| text.parse().ok()),
            ring_built: built,
            seccomp: status(tree, "Seccomp:").parsed(|text| text.parse().ok()),
            clock: tree.text(&format!("{clock}/current_clocksource")),
            clocks: clocks.unwrap_or_default(),
            files_of_process_max: tree.number("/proc/sys/fs/nr_open"),
            files_max: tree.number("/proc/sys/fs/file-max"),
            files: tree.numbers("/proc/sys/fs/file-nr").and_then(
                |numbers| format!("{numbers:?}"),
                |numbers| numbers.first().copied(),
            ),
        }
    }

    /// Major and minor version.
    pub fn version(&self) -> Option<(u32, u32)> {
        let mut parts = self.release.value()?.split(|c: char| !c.is_ascii_digit());
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    }
}

/// A line of the status of the process that reads.
pub(super) fn status(tree: &Tree, label: &str) -> Reading<String> {
    match tree.text("/proc/self/status") {
        Reading::Is(text) => {
            let line = text.lines().find_map(|line| line.strip_prefix(label));
            line.map_or(Reading::Absent, |line| Reading::Is(line.trim().to_owned()))
        }
        other => other,
    }
}

fn ring_built(tree: &Tree, release: &str) -> Option<bool> {
    // A name from outside that becomes a part of a path.
    if release.contains('/') {
        return None;
    }
    match tree.text(&format!("/boot/config-{release}")) {
        Reading::Is(text) if text.contains("CONFIG_") => {
            Some(text.lines().any(|line| line == "CONFIG_IO_URING=y"))
        }
        _ => None,
    }
}
