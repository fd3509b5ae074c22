//! How near to their limits a host and a server on it are.
//!
//! Owns: the reading of `/proc` for that.
//! May depend on: nothing of ours.
//! Invariants: what cannot be read is none, never zero.

use std::{collections::HashMap, fs, path::Path, time::Instant};

/// A reading to which a later one is compared.
pub struct Strain {
    pid: Option<u32>,
    began: Instant,
    threads: HashMap<u32, u64>,
    host: Option<HostTime>,
}

/// Ticks of all cores since the host's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct HostTime {
    all: u64,
    idle: u64,
}

impl Strain {
    pub fn start(pid: Option<u32>) -> Self {
        Self {
            pid,
            began: Instant::now(),
            threads: pid.map(threads).unwrap_or_default(),
            host: host_time(),
        }
    }

    /// The CPU time of the server's busiest thread as a part of the time that passed.
    pub fn busiest_thread(&self) -> Option<f64> {
        let passed_ns = self.began.elapsed().as_nanos() as f64;
        let used = threads(self.pid?).into_iter().map(|(thread, now_ns)| {
            now_ns.saturating_sub(self.threads.get(&thread).copied().unwrap_or(0))
        });
        Some(used.max()? as f64 / passed_ns)
    }

    /// The part of all cores' time in which nothing ran.
    pub fn host_idle(&self) -> Option<f64> {
        let (before, after) = (self.host?, host_time()?);
        let all = after.all.checked_sub(before.all).filter(|all| *all > 0)?;
        Some(after.idle.saturating_sub(before.idle) as f64 / all as f64)
    }
}

/// CPU time by thread, in nanoseconds.
fn threads(pid: u32) -> HashMap<u32, u64> {
    let folder = fs::read_dir(format!("/proc/{pid}/task"));
    let threads = folder.into_iter().flatten().flatten();
    threads
        .filter_map(|thread| {
            let id = thread.file_name().to_str()?.parse().ok()?;
            let statistics = fs::read_to_string(thread.path().join("schedstat")).ok()?;
            Some((id, statistics.split(' ').next()?.parse().ok()?))
        })
        .collect()
}

fn host_time() -> Option<HostTime> {
    host_time_of(&fs::read_to_string("/proc/stat").ok()?)
}

/// The first line: user, nice, system, idle, iowait, irq, softirq, steal; guests are in user already.
fn host_time_of(stat: &str) -> Option<HostTime> {
    let rest = stat.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<u64> = rest
        .split_whitespace()
        .take(8)
        .map_while(|ticks| ticks.parse().ok())
        .collect();
    Some(HostTime {
        all: ticks.iter().sum(),
        idle: *ticks.get(3)? + *ticks.get(4)?,
    })
}

/// The files that a process has open, and how many it may have.
pub fn files(pid: u32) -> Option<(u64, u64)> {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count();
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
    Some((open as u64, files_limit(&limits)?))
}

fn files_limit(limits: &str) -> Option<u64> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

pub fn is_running(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// The part of the host's memory that can still be had.
pub fn memory_left() -> Option<f64> {
    memory_left_of(&fs::read_to_string("/proc/meminfo").ok()?)
}

fn memory_left_of(meminfo: &str) -> Option<f64> {
    let field = |name| {
        let rest = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        rest.split_whitespace().next()?.parse::<f64>().ok()
    };
    let all = field("MemTotal:").filter(|all| *all > 0.0)?;
    Some(field("MemAvailable:")? / all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_is_read_as_the_kernel_writes_it() {
        let stat = "cpu  100 1 50 800 40 2 3 4 0 0\ncpu0 1 2 3 4\n";
        assert_eq!(
            host_time_of(stat),
            Some(HostTime {
                all: 1_000,
                idle: 840
            })
        );
        let limits = "Limit   Soft Limit  Hard Limit  Units\nMax open files            20000                40000                files\n";
        assert_eq!(files_limit(limits), Some(20_000));
        let meminfo = "MemTotal:  1000 kB\nMemFree:  10 kB\nMemAvailable:  250 kB\n";
        assert_eq!(memory_left_of(meminfo), Some(0.25));
        for nothing in ["", "cpu", "MemTotal: 0 kB", "Max open files"] {
            assert_eq!(host_time_of(nothing), None);
            assert_eq!(files_limit(nothing), None);
            assert_eq!(memory_left_of(nothing), None);
        }
    }

    #[test]
    fn this_process_has_threads_files_and_memory() {
        let strain = Strain::start(Some(std::process::id()));
        let busy = strain.busiest_thread().expect("it has a thread");
        assert!(busy >= 0.0);
        let (open, limit) = files(std::process::id()).expect("its own");
        assert!(open > 0 && open <= limit);
        assert!(memory_left().is_some_and(|left| left > 0.0));
        assert!(is_running(std::process::id()));
        assert_eq!(Strain::start(None).busiest_thread(), None);
    }
}
