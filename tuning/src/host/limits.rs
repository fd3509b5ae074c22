//! A process' resource limits.
//!
//! Owns: `Limits`, read from `/proc/PID/limits`.
//! May depend on: `tree`.
//! Invariants: unlimited is `u64::MAX`.

use crate::tree::{Reading, Tree};

/// The soft and the hard limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limit {
    /// What holds; a process may raise it to `hard`.
    pub soft: u64,
    /// What only root may raise.
    pub hard: u64,
}

/// What a process may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Open files.
    pub files: Limit,
    /// Bytes of locked memory.
    pub locked_bytes: Limit,
}

impl Limits {
    /// Of a process by its number, or of `self`.
    pub(super) fn read(tree: &Tree, process: &str) -> Reading<Self> {
        tree.text(&format!("/proc/{process}/limits"))
            .parsed(|text| {
                Some(Self {
                    files: limit(text, "Max open files")?,
                    locked_bytes: limit(text, "Max locked memory")?,
                })
            })
    }
}

fn limit(text: &str, label: &str) -> Option<Limit> {
    let mut words = text
        .lines()
        .find_map(|line| line.strip_prefix(label))?
        .split_whitespace();
    let mut number = || match words.next()? {
        "unlimited" => Some(u64::MAX),
        digits => digits.parse().ok(),
    };
    Some(Limit {
        soft: number()?,
        hard: number()?,
    })
}
