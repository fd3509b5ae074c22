//! How much memory this process may use, and how much is used.
//!
//! Owns: reading of `/proc/meminfo` and the cgroup (v2 and v1), the body of `/usage`.
//! May depend on: std only.
//! Invariants: `used <= total`; the files are read at most once per second.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Memory of the cgroup that bounds this process, or of the host when none does. Bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    pub total: u64,
    /// Without page cache that the kernel can take back at any time.
    pub used: u64,
}

impl Memory {
    /// Reads the files below `root` (`/` except in tests). `None` when `/proc` tells nothing.
    pub fn read(root: &Path) -> Option<Self> {
        let host = host(root)?;
        let group = cgroup(root).filter(|group| group.total < host.total);
        Some(group.unwrap_or(host))
    }

    /// 0 to 1.
    pub fn fraction(self) -> f64 {
        if self.total == 0 {
            0.0
        } else {
            self.used as f64 / self.total as f64
        }
    }

    /// The body of `/usage`.
    pub fn json(self) -> String {
        format!(
            r#"{{"memory":{{"free":{},"used":{},"total":{},"percent":{:.2}}}}}"#,
            self.total - self.used,
            self.used,
            self.total,
            self.fraction() * 100.0,
        )
    }

    fn of(total: u64, used: u64) -> Self {
        Self {
            total,
            used: used.min(total),
        }
    }
}

/// The latest reading.
#[derive(Debug)]
pub struct MemoryGauge {
    root: PathBuf,
    read_at: Option<Instant>,
    memory: Memory,
}

/// A reading is used again for so long.
const FRESH: Duration = Duration::from_secs(1);

impl MemoryGauge {
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            read_at: None,
            memory: Memory::default(),
        }
    }

    /// The memory, at most one second old.
    pub fn read(&mut self, now: Instant) -> Memory {
        let is_fresh = self
            .read_at
            .is_some_and(|at| now.saturating_duration_since(at) < FRESH);
        if !is_fresh {
            self.read_at = Some(now);
            self.memory = Memory::read(&self.root).unwrap_or(self.memory);
        }
        self.memory
    }
}

fn host(root: &Path) -> Option<Memory> {
    let text = fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let bytes = |key: &str| field(&text, key).map(|kib| kib * 1024);
    let total = bytes("MemTotal:")?;
    let available = bytes("MemAvailable:").or_else(|| bytes("MemFree:"))?;
    Some(Memory::of(total, total.saturating_sub(available)))
}

/// The tightest bound on the way from our cgroup to the root.
fn cgroup(root: &Path) -> Option<Memory> {
    let text = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    let unified = text.lines().find_map(|line| line.strip_prefix("0::"));
    let legacy = text.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        controllers
            .split(',')
            .any(|name| name == "memory")
            .then_some(path)
    });
    let mount = root.join("sys/fs/cgroup");
    let v1 = legacy.and_then(|path| tightest(&mount.join("memory"), path, &V1));
    let v2 = unified.and_then(|path| tightest(&mount, path, &V2));
    [v1, v2]
        .into_iter()
        .flatten()
        .min_by_key(|group| group.total)
}

/// File names of one cgroup version.
struct Files {
    limit: &'static str,
    usage: &'static str,
    inactive_file: &'static str,
}

const V2: Files = Files {
    limit: "memory.max",
    usage: "memory.current",
    inactive_file: "inactive_file",
};
const V1: Files = Files {
    limit: "memory.limit_in_bytes",
    usage: "memory.usage_in_bytes",
    inactive_file: "total_inactive_file",
};

fn tightest(mount: &Path, path: &str, files: &Files) -> Option<Memory> {
    let start = mount.join(path.trim_start_matches('/'));
    // A container sees its own group as the root, whatever path its cgroup file tells.
    let start = if start.is_dir() {
        start
    } else {
        mount.to_owned()
    };
    let groups = start
        .ancestors()
        .take_while(|folder| folder.starts_with(mount));
    groups
        .filter_map(|folder| group(folder, files))
        .min_by_key(|group| group.total)
}

fn group(folder: &Path, files: &Files) -> Option<Memory> {
    let number = |name: &str| {
        fs::read_to_string(folder.join(name))
            .ok()?
            .trim()
            .parse()
            .ok()
    };
    let limit: u64 = number(files.limit)?; // "max" is no number: no bound here.
    let usage: u64 = number(files.usage)?;
    let stat = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
    let reclaimable = field(&stat, files.inactive_file).unwrap_or(0);
    Some(Memory::of(limit, usage.saturating_sub(reclaimable)))
}

/// The number behind `key` in a file of `key number` lines.
fn field(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some(key))
            .then(|| words.next()?.parse().ok())
            .flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Paths and texts.
    type Texts<'a> = &'a [(&'a str, &'a str)];

    const MEMINFO: (&str, &str) = (
        "proc/meminfo",
        "MemTotal: 1000 kB\nMemFree: 100 kB\nMemAvailable: 600 kB\n",
    );

    #[test]
    fn memory_is_that_of_the_tightest_group_and_else_of_the_host() {
        for (name, files, expected) in cases() {
            let root = tempfile::tempdir().expect("temporary folder");
            for (path, text) in files.iter().chain([&MEMINFO]) {
                let path = root.path().join(path);
                fs::create_dir_all(path.parent().expect("a folder")).expect("folder");
                fs::write(path, text).expect("file");
            }
            assert_eq!(Memory::read(root.path()), Some(expected), "{name}");
        }
    }

    #[test]
    fn the_body_of_usage_is_in_bytes_and_percent() {
        let body = Memory {
            total: 1_000,
            used: 250,
        }
        .json();
        let expected = r#"{"memory":{"free":750,"used":250,"total":1000,"percent":25.00}}"#;
        assert_eq!(body, expected);
        assert!(Memory::default().json().contains(r#""percent":0.00"#));
    }

    const STAT: &str = "anon 1\ninactive_file 50000\n";

    /// Name, files, what is read from them. Longer than a screen because it is a table.
    fn cases() -> Vec<(&'static str, Texts<'static>, Memory)> {
        let host = Memory {
            total: 1_024_000,
            used: 409_600,
        };
        let group = Memory {
            total: 500_000,
            used: 200_000,
        };
        vec![
            ("no cgroup", &[], host),
            (
                "v2 bound by an ancestor",
                &[
                    ("proc/self/cgroup", "0::/a/b\n"),
                    ("sys/fs/cgroup/a/b/memory.max", "max\n"),
                    ("sys/fs/cgroup/a/memory.max", "500000\n"),
                    ("sys/fs/cgroup/a/memory.current", "250000\n"),
                    ("sys/fs/cgroup/a/memory.stat", STAT),
                ],
                group,
            ),
            (
                "v2 inside a container, whose path is not mounted",
                &[
                    ("proc/self/cgroup", "0::/docker/1234\n"),
                    ("sys/fs/cgroup/memory.max", "500000\n"),
                    ("sys/fs/cgroup/memory.current", "250000\n"),
                    ("sys/fs/cgroup/memory.stat", STAT),
                ],
                group,
            ),
            (
                "v1",
                &[
                    ("proc/self/cgroup", "5:cpu:/x\n4:memory:/m\n"),
                    ("sys/fs/cgroup/memory/m/memory.limit_in_bytes", "500000\n"),
                    ("sys/fs/cgroup/memory/m/memory.usage_in_bytes", "250000\n"),
                    (
                        "sys/fs/cgroup/memory/m/memory.stat",
                        "total_inactive_file 50000\n",
                    ),
                ],
                group,
            ),
            (
                "a bound above the host's memory",
                &[
                    ("proc/self/cgroup", "0::/\n"),
                    ("sys/fs/cgroup/memory.max", "9223372036854771712\n"),
                    ("sys/fs/cgroup/memory.current", "1\n"),
                ],
                host,
            ),
            (
                "usage above the bound",
                &[
                    ("proc/self/cgroup", "0::/\n"),
                    ("sys/fs/cgroup/memory.max", "500000\n"),
                    ("sys/fs/cgroup/memory.current", "600000\n"),
                ],
                Memory {
                    total: 500_000,
                    used: 500_000,
                },
            ),
        ]
    }
}
