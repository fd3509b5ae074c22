//! What a process has used: CPU time, memory, context switches.
//!
//! Owns: the reading of `/proc` and of the CPU clocks.
//! May depend on: libc.
//! Invariants: differences of two readings of one process are never negative.

use std::{fs, io, time::Duration};

/// One reading of a process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// CPU time of all threads, ended ones too, to the nanosecond.
    pub cpu: Duration,
    /// The part of it in user space, to the kernel's tick.
    pub user: Duration,
    pub rss_bytes: u64,
    /// Context switches of the threads that live: a thread waited, or was pushed aside.
    pub switches_waited: u64,
    pub switches_pushed: u64,
}

impl Usage {
    /// Reads a process' use so far.
    pub fn of(pid: u32) -> io::Result<Self> {
        let mut usage = Self {
            cpu: process_cpu(pid)?,
            user: user_time(&fs::read_to_string(format!("/proc/{pid}/stat"))?),
            ..Self::default()
        };
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        usage.rss_bytes = field(&status, "VmRSS:") * 1_024;
        for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
            // A thread may end between the listing and the reading.
            let status = fs::read_to_string(thread?.path().join("status")).unwrap_or_default();
            usage.switches_waited += field(&status, "voluntary_ctxt_switches:");
            usage.switches_pushed += field(&status, "nonvoluntary_ctxt_switches:");
        }
        Ok(usage)
    }

    /// What was used after an earlier reading. Memory is the latest, not a difference.
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(earlier.cpu),
            user: self.user.saturating_sub(earlier.user),
            rss_bytes: self.rss_bytes,
            switches_waited: self.switches_waited.saturating_sub(earlier.switches_waited),
            switches_pushed: self.switches_pushed.saturating_sub(earlier.switches_pushed),
        }
    }
}

/// CPU time of the calling thread.
pub fn thread_cpu() -> Duration {
    clock(libc::CLOCK_THREAD_CPUTIME_ID).expect("a thread can read its own clock")
}

fn process_cpu(pid: u32) -> io::Result<Duration> {
    let mut id = 0;
    // SAFETY: `id` is valid for the call to write to.
    let code = unsafe { libc::clock_getcpuclockid(pid as libc::pid_t, &raw mut id) };
    match code {
        0 => clock(id),
        code => Err(io::Error::from_raw_os_error(code)),
    }
}

fn clock(id: libc::clockid_t) -> io::Result<Duration> {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is valid for the call to write to.
    match unsafe { libc::clock_gettime(id, &raw mut time) } {
        0 => Ok(Duration::new(time.tv_sec as u64, time.tv_nsec as u32)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The user time in `/proc/PID/stat`: the 14th field; the 2nd is in parentheses and may hold blanks.
fn user_time(stat: &str) -> Duration {
    const TICKS_PER_S: u64 = 100; // USER_HZ, the same on all platforms that we run on.
    let after_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let ticks = after_name
        .split(' ')
        .nth(11)
        .and_then(|ticks| ticks.parse::<u64>().ok());
    Duration::from_millis(ticks.unwrap_or(0) * 1_000 / TICKS_PER_S)
}

fn field(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

/// Lets this process, and the subjects that it starts, hold many connections.
pub fn raise_descriptor_limit() {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: both calls read or write the one struct, which is valid.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
    }
}
