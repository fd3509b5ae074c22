//! Processes that are stopped for a while and go on.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Sends `STOP` or `CONT` to processes, of which some may have ended. After `STOP` none of them does
/// anything more: the kernel only notes the signal, and a thread that waits for a core while others run
/// would still answer for some milliseconds.
#[track_caller]
pub(crate) fn signal(signal: &str, pids: &[u32]) {
    let arguments = pids.iter().map(u32::to_string);
    let sent = Command::new("kill")
        .args(["-s", signal])
        .args(arguments)
        .output();
    assert!(sent.is_ok(), "kill runs");
    let deadline = Instant::now() + Duration::from_secs(30);
    while signal == "STOP" && !pids.iter().all(|pid| is_stopped(*pid)) {
        assert!(Instant::now() < deadline, "{pids:?} do not stop");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// All threads of the process have stopped, or it is gone.
fn is_stopped(pid: u32) -> bool {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
        return true;
    };
    threads.flatten().all(|thread| has_stopped(&thread.path()))
}

fn has_stopped(thread: &Path) -> bool {
    let Ok(stat) = std::fs::read_to_string(thread.join("stat")) else {
        return true;
    };
    // The name in brackets may hold anything.
    let state = stat.rsplit_once(") ").map(|(_, rest)| rest.as_bytes()[0]);
    matches!(state, Some(b'T' | b't' | b'Z' | b'X'))
}
