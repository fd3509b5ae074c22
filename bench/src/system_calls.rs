//! How many system calls a process makes, where the kernel lets us count them.
//!
//! Owns: one perf event per thread of the process.
//! May depend on: libc.
//! Invariants: what cannot be counted whole is not counted: a thread that refuses makes the count None.
//! Counting costs every process of the machine a little at each system call, so that it is asked for.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    os::fd::{FromRawFd as _, RawFd},
};

/// The count since it was made. Threads that start later are counted with the one that started them.
pub struct SystemCalls(Vec<File>);

/// The first version of the kernel's `perf_event_attr`.
#[repr(C)]
struct Attributes {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    breakpoint_type: u32,
    breakpoint_address: u64,
}

const TRACEPOINT: u32 = 2;
const INHERIT: u64 = 1 << 1;
const CLOSE_ON_EXEC: libc::c_ulong = 1 << 3;
const ID: &str = "tracing/events/raw_syscalls/sys_enter/id";

impl SystemCalls {
    /// Begins to count; None without tracefs, or without the right to it.
    pub fn of(pid: u32) -> Option<Self> {
        let mut ids = ["/sys/kernel", "/sys/kernel/debug"].iter();
        let id = ids.find_map(|folder| fs::read_to_string(format!("{folder}/{ID}")).ok())?;
        let id = id.trim().parse().ok()?;
        let mut counters = Vec::new();
        for thread in fs::read_dir(format!("/proc/{pid}/task")).ok()? {
            let thread = thread.ok()?.file_name().to_str()?.parse().ok()?;
            counters.push(open(id, thread).ok()?);
        }
        Some(Self(counters))
    }

    /// Calls so far.
    pub fn count(&mut self) -> Option<u64> {
        let mut sum = 0;
        for counter in &mut self.0 {
            let mut value = [0; 8];
            counter.read_exact(&mut value).ok()?;
            sum += u64::from_ne_bytes(value);
        }
        Some(sum)
    }
}

fn open(id: u64, thread: libc::pid_t) -> io::Result<File> {
    let attributes = Attributes {
        kind: TRACEPOINT,
        size: size_of::<Attributes>() as u32,
        config: id,
        sample_period: 0,
        sample_type: 0,
        read_format: 0,
        flags: INHERIT,
        wakeup_events: 0,
        breakpoint_type: 0,
        breakpoint_address: 0,
    };
    let (any_cpu, no_group): (libc::c_int, libc::c_int) = (-1, -1);
    // SAFETY: the call reads `attributes`, which is valid and as long as its `size` says, and no other
    // memory of ours.
    let descriptor = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            &raw const attributes,
            thread,
            any_cpu,
            no_group,
            CLOSE_ON_EXEC,
        )
    };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave us this descriptor, and nobody else has it.
    Ok(unsafe { File::from_raw_fd(descriptor as RawFd) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_where_the_kernel_lets_us() {
        let Some(mut calls) = SystemCalls::of(std::process::id()) else {
            return; // No tracefs, or not for us.
        };
        let before = calls.count().expect("it can be read");
        for _ in 0..100 {
            // SAFETY: takes nothing and cannot fail.
            unsafe { libc::syscall(libc::SYS_getppid) };
        }
        assert!(calls.count().expect("it can be read") >= before + 100);
    }
}
