//! Pages of 4 KiB for the whole process, instead of the kernel's huge ones.
//!
//! Owns: the process' flag against transparent huge pages; whether a start needs a second one.
//! May depend on: libc.
//! Invariants: once the flag is set no page that is touched for the first time is a huge one, in this
//! process or in the programs that it starts; a second start is never followed by a third.
//!
//! A huge page is cleared as a whole when it is first touched, and stops its shard for that time (4 to
//! 6 ms on a virtual machine). Without them a fan-out takes up to 4 % more CPU time, and a
//! connection 0.3 instead of 0.7 KiB (`bench table`; decision 0009).

use std::{os::unix::process::CommandExt as _, process::Command};

/// Keeps the process from huge pages. Whether a second start, which begins with the flag, would be of
/// use: this one may have some from before.
///
/// Call it before anything else. A kernel or sandbox that refuses leaves things as they were.
pub fn leave_huge_pages() -> bool {
    let was_set = is_set();
    // SAFETY: no pointers; the call sets a flag of this process.
    unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
    is_second_start_of_use(was_set, is_set())
}

fn is_set() -> bool {
    // SAFETY: no pointers; the call reads a flag of this process.
    unsafe { libc::prctl(libc::PR_GET_THP_DISABLE, 0, 0, 0, 0) == 1 }
}

/// Where the flag cannot be set, each start would find it as the first one did, and so on for ever.
fn is_second_start_of_use(was_set: bool, is_set: bool) -> bool {
    !was_set && is_set
}

/// Starts the program anew, now without huge pages, where locked memory is short and counts.
///
/// An executor registers a buffer of 64 KiB three times. If that lies in a huge page from before
/// `leave_huge_pages`, the kernel counts 2 MiB as locked each time, and 8 MiB are not enough for
/// seven shards. The second program finds the flag set, and goes on.
pub fn start_anew_if_locked_memory_is_short() {
    let is_short = memlock_hard().is_some_and(|bytes| bytes < HUGE_MEMLOCK_BYTES);
    if !is_short || may_lock_at_will() {
        return;
    }
    let Ok(program) = std::env::current_exe() else {
        return;
    };
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_else(|| program.clone().into());
    // Returns only if it fails: then this program goes on as well as it can.
    let _ = Command::new(program).arg0(name).args(arguments).exec();
}

/// With so much, 40 shards start though each of their buffers counts as a huge page.
const HUGE_MEMLOCK_BYTES: u64 = 256 << 20;

/// `run` raises the soft limit to it.
fn memlock_hard() -> Option<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: a valid place for the answer.
    let code = unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) };
    (code == 0).then_some(limit.rlim_max)
}

/// CAP_IPC_LOCK: the kernel counts nothing then.
fn may_lock_at_will() -> bool {
    const CAP_IPC_LOCK: u64 = 1 << 14;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    bits.is_some_and(|bits| bits & CAP_IPC_LOCK != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_followed_by_a_second_only_if_that_begins_with_the_flag() {
        for (was_set, is_set, expected) in [
            (false, true, true),
            (true, true, false),
            (false, false, false),
        ] {
            let found = is_second_start_of_use(was_set, is_set);
            assert_eq!(found, expected, "was {was_set}, is {is_set}");
        }
    }
}
