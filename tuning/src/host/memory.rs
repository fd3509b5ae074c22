//! The host's memory.
//!
//! Owns: `Memory`.
//! May depend on: `tree`.
//! Invariants: values are as read; kibibytes became bytes.

use crate::tree::{Reading, Tree};

/// How much, and in which pages.
#[derive(Clone, Debug)]
pub struct Memory {
    /// All of the host's.
    pub total_bytes: Reading<u64>,
    /// What could be had now.
    pub available_bytes: Reading<u64>,
    /// Transparent huge pages: `always`, `madvise`, `never`.
    pub huge_pages: Reading<String>,
    /// How hard the kernel tries for a huge page at a fault: `always` stops the thread.
    pub huge_page_defrag: Reading<String>,
}

impl Memory {
    pub(super) fn read(tree: &Tree) -> Self {
        let text = tree.text("/proc/meminfo");
        let line = |label: &'static str| {
            text.clone().parsed(|text| {
                let line = text.lines().find_map(|line| line.strip_prefix(label))?;
                line.trim()
                    .strip_suffix("kB")?
                    .trim()
                    .parse::<u64>()
                    .ok()?
                    .checked_mul(1_024)
            })
        };
        let huge = "/sys/kernel/mm/transparent_hugepage";
        Self {
            total_bytes: line("MemTotal:"),
            available_bytes: line("MemAvailable:"),
            huge_pages: tree.text(&format!("{huge}/enabled")).parsed(chosen),
            huge_page_defrag: tree.text(&format!("{huge}/defrag")).parsed(chosen),
        }
    }
}

/// The word in brackets.
fn chosen(text: &str) -> Option<String> {
    let (_, rest) = text.split_once('[')?;
    Some(rest.split_once(']')?.0.to_owned())
}
