//! What the cgroups of a process leave it: memory, threads, time.
//!
//! Owns: `GroupLimits`, from version 2 and version 1 of cgroups.
//! May depend on: `tree`.
//! Invariants: of a limit the smallest on the way to the root counts; `None` is no limit.

use crate::tree::Tree;

/// The limits on the way from a process' cgroups to their roots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupLimits {
    /// Bytes of memory, the kernel's for sockets counted.
    pub memory_bytes: Option<u64>,
    /// Threads and processes.
    pub threads: Option<u64>,
    /// Thousandths of a core's time per period.
    pub cpu_millicores: Option<u64>,
}

impl GroupLimits {
    /// Of a process by its number, or of `self`.
    pub(super) fn read(tree: &Tree, process: &str) -> Self {
        let text = tree.text(&format!("/proc/{process}/cgroup"));
        let mut limits = Self::default();
        for line in text
            .value()
            .map(String::as_str)
            .unwrap_or_default()
            .lines()
            .take(LINES_MAX)
        {
            let mut parts = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
                continue;
            };
            for root in roots(tree, controllers) {
                for folder in folders(&root, path) {
                    limits.narrow(tree, &folder);
                }
            }
        }
        limits
    }

    /// Takes in the limits of one folder; it has the files of either version.
    fn narrow(&mut self, tree: &Tree, folder: &str) {
        let number = |file: &str| tree.number(&format!("{folder}/{file}")).value().copied();
        let least = |a: Option<u64>, b: Option<u64>| match (a, b) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        let memory = number("memory.max").or_else(|| number("memory.limit_in_bytes"));
        // Version 1 writes the largest whole pages below 2^63 for no limit.
        self.memory_bytes = least(self.memory_bytes, memory.filter(|&bytes| bytes < 1 << 62));
        self.threads = least(self.threads, number("pids.max"));
        let both = tree.numbers(&format!("{folder}/cpu.max"));
        let cpu = match both.value().map(Vec::as_slice) {
            Some(&[quota, period]) => millicores(quota, period),
            _ => number("cpu.cfs_quota_us")
                .zip(number("cpu.cfs_period_us"))
                .and_then(|(quota, period)| millicores(quota, period)),
        };
        self.cpu_millicores = least(self.cpu_millicores, cpu);
    }

    /// Cores' worth of time, rounded up as the server does.
    pub fn quota_cores(&self) -> Option<u64> {
        self.cpu_millicores
            .map(|millicores| millicores.div_ceil(1_000))
    }
}

fn millicores(quota: u64, period: u64) -> Option<u64> {
    quota.checked_mul(1_000)?.checked_div(period)
}

/// Where a hierarchy is mounted, by the controllers in its line.
fn roots(tree: &Tree, controllers: &str) -> Vec<String> {
    let names = match controllers {
        "" => vec![
            "/sys/fs/cgroup".to_owned(),
            "/sys/fs/cgroup/unified".to_owned(),
        ],
        _ => vec![format!("/sys/fs/cgroup/{controllers}")],
    };
    names
        .into_iter()
        .filter(|name| !name.contains("..") && tree.has(name))
        .collect()
}

/// The group's folder and those above it, as far as they can be seen from here.
fn folders(root: &str, path: &str) -> Vec<String> {
    let mut folders = vec![root.to_owned()];
    let mut folder = root.to_owned();
    for part in path
        .split('/')
        .filter(|part| !part.is_empty())
        .take(DEPTH_MAX)
    {
        // `/../x`: outside of our namespace.
        if part == ".." {
            break;
        }
        folder = format!("{folder}/{part}");
        folders.push(folder.clone());
    }
    folders
}

const LINES_MAX: usize = 64;
const DEPTH_MAX: usize = 64;
