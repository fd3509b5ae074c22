//! What a process has used: CPU time, memory, context switches.
//!
//! Owns: the reading of `/proc` and of the CPU clocks.
//! May depend on: libc.
//! Invariants: differences of two readings of one process are never negative.

use std::{fs, io, path::PathBuf, time::Duration};

/// One reading of a process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// CPU time of all threads, ended ones too, to the nanosecond.
    pub cpu: Duration,
    /// The part of it in user space: the kernel's ticks say which part, the clock says of what.
    pub user: Duration,
    ticks: Ticks,
    pub rss_bytes: u64,
    /// Context switches of the threads that live: a thread waited, or was pushed aside.
    pub switches_waited: u64,
    pub switches_pushed: u64,
}

/// A process' times in `/proc/PID/stat`, in units of 10 ms: too coarse for a sum, good for a ratio.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Ticks {
    user: u64,
    system: u64,
}

impl Ticks {
    /// The 14th and 15th field; the 2nd is in parentheses and may hold blanks.
    fn read(stat: &str) -> Self {
        let after_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        let mut fields = after_name.split(' ').skip(11);
        let mut next = || fields.next().and_then(|ticks| ticks.parse().ok());
        Self {
            user: next().unwrap_or(0),
            system: next().unwrap_or(0),
        }
    }

    fn user_part(self, cpu: Duration) -> Duration {
        let both = (self.user + self.system).max(1) as f64;
        cpu.mul_f64(self.user as f64 / both)
    }
}

impl Usage {
    /// Reads a process' use so far.
    pub fn of(pid: u32) -> io::Result<Self> {
        let cpu = process_cpu(pid)?;
        let ticks = Ticks::read(&fs::read_to_string(format!("/proc/{pid}/stat"))?);
        let mut usage = Self {
            cpu,
            user: ticks.user_part(cpu),
            ticks,
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
        let cpu = self.cpu.saturating_sub(earlier.cpu);
        let ticks = Ticks {
            user: self.ticks.user.saturating_sub(earlier.ticks.user),
            system: self.ticks.system.saturating_sub(earlier.ticks.system),
        };
        Self {
            cpu,
            user: ticks.user_part(cpu),
            ticks,
            rss_bytes: self.rss_bytes,
            switches_waited: self.switches_waited.saturating_sub(earlier.switches_waited),
            switches_pushed: self.switches_pushed.saturating_sub(earlier.switches_pushed),
        }
    }
}

/// CPU time of a process' first thread with that name. Of one that runs just now the last few
/// milliseconds may be missing.
pub fn cpu_of_thread(pid: u32, name: &str) -> Option<Duration> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let mut folders = threads.filter_map(|thread| Some(thread.ok()?.path()));
    let is_it = |folder: &PathBuf| {
        let comm = fs::read_to_string(folder.join("comm")).unwrap_or_default();
        comm.trim_end() == name
    };
    let statistics = fs::read_to_string(folders.find(is_it)?.join("schedstat")).ok()?;
    let ran_ns = statistics.split(' ').next()?.parse().ok()?;
    Some(Duration::from_nanos(ran_ns))
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
        0 => {
            let nanoseconds = u32::try_from(time.tv_nsec).expect("less than a second");
            Ok(Duration::new(time.tv_sec as u64, nanoseconds))
        }
        _ => Err(io::Error::last_os_error()),
    }
}

fn field(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

/// Lets this thread's sleeps end when they should, rather than up to 50 us later.
pub fn sleep_exactly() {
    // SAFETY: the call takes numbers and changes this thread's timer slack only.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1_u64, 0_u64, 0_u64, 0_u64) };
}

/// As `sleep_exactly`, for a thread that watches while others of this process make a load on the same core:
/// it runs as soon as it may, where the system allows that, so that its times are the server's. Otherwise
/// it waits for the others' slices, 3 ms each, and "operations late" says so.
pub fn watch_exactly() {
    sleep_exactly();
    let first = libc::sched_param { sched_priority: 1 };
    // SAFETY: the call reads the one struct, which is valid, and changes this thread's scheduling only.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const first) };
}

/// Lets this process' other threads run first, from now on.
pub fn give_way() {
    // SAFETY: the call takes numbers and changes this thread's priority only, which anybody may lower.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 10) };
}

/// Lets this process, and the subjects that it starts, hold many connections; how many files it may
/// have open then.
pub fn raise_descriptor_limit() -> u64 {
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
    limit.rlim_cur
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_say_which_part_of_the_clock_was_in_user_space() {
        let stat = "7 (a) b c) S 1 7 7 0 -1 4194304 100 0 0 0 30 10 0 0 20 0 3 0 100 0 0";
        let ticks = Ticks::read(stat);
        assert_eq!(
            ticks,
            Ticks {
                user: 30,
                system: 10
            }
        );
        let cpu = Duration::from_micros(400);
        assert_eq!(ticks.user_part(cpu), Duration::from_micros(300));
        assert_eq!(Ticks::default().user_part(cpu), Duration::ZERO);
    }

    #[test]
    fn a_process_can_read_itself() {
        let usage = Usage::of(std::process::id()).expect("it exists");
        assert!(usage.rss_bytes > 0 && usage.user <= usage.cpu);
    }

    #[test]
    fn a_thread_is_found_by_its_name() {
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let named = std::thread::Builder::new().name("by its name".to_owned());
        let thread = named.spawn(move || stopped.recv().is_err());
        let thread = thread.expect("it starts");
        let pid = std::process::id();
        while cpu_of_thread(pid, "by its name").is_none() {
            std::thread::yield_now();
        }
        assert_eq!(cpu_of_thread(pid, "nobody"), None);
        drop(stop);
        thread.join().expect("it ends");
    }
}
