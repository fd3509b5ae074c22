//! A network name space of the test's own, with the keys of the kernel that a host has once it is tuned.

use std::process::Command;

/// Moves the calling thread, and what it starts, into a fresh network with a loopback only. False for
/// whoever may not.
///
/// Call it before anything else is started: threads and processes that are there already stay outside.
pub(crate) fn is_own() -> bool {
    // SAFETY: no pointers; it changes the calling thread alone.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        return false;
    }
    let up = Command::new("ip")
        .args(["link", "set", "lo", "up"])
        .status();
    up.is_ok_and(|status| status.success())
}

/// Listeners that close hand what waits for them to others of their port.
pub(crate) fn migrates_requests() {
    std::fs::write("/proc/sys/net/ipv4/tcp_migrate_req", "1").expect("the name space is ours");
}
