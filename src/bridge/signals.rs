//! Signals of the process, as the bridge understands them.
//!
//! Owns: `Signal` and the task that listens.
//! May depend on: tokio.
//! Invariants: TERM and INT mean the same; no signal is lost while the bridge is busy.

use std::io;

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

/// What an operator asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// TERM, INT: drain; the second one: stop now.
    Stop,
    /// HUP.
    Reload,
    /// USR1.
    DumpStats,
    /// USR2: another process takes over.
    Upgrade,
}

/// Holds our signals back in this thread and all that it starts, until `listen`. Called before any
/// other thread is there: a signal that comes while the node starts waits instead of killing it,
/// and shards are never interrupted by one.
pub fn hold() {
    mask(libc::SIG_BLOCK);
}

fn mask(how: libc::c_int) {
    // SAFETY: sigemptyset makes `set` a valid set before anything reads it; the calls only touch
    // `set` and this thread's mask.
    let result = unsafe {
        let mut set = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&raw mut set);
        let ours = [
            libc::SIGTERM,
            libc::SIGINT,
            libc::SIGHUP,
            libc::SIGUSR1,
            libc::SIGUSR2,
        ];
        for signal in ours {
            libc::sigaddset(&raw mut set, signal);
        }
        libc::pthread_sigmask(how, &raw const set, std::ptr::null_mut())
    };
    assert_eq!(result, 0, "the mask is one of SIG_BLOCK and SIG_UNBLOCK");
}

/// Listens from now on, also to signals held back until now. Needs a tokio runtime.
///
/// # Errors
/// When the host refuses a signal handler.
pub fn listen() -> io::Result<mpsc::Receiver<Signal>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut user = signal(SignalKind::user_defined1())?;
    let mut second = signal(SignalKind::user_defined2())?;
    mask(libc::SIG_UNBLOCK);
    let (sender, receiver) = mpsc::channel(16);
    tokio::spawn(async move {
        loop {
            let received = tokio::select! {
                _ = terminate.recv() => Signal::Stop,
                _ = interrupt.recv() => Signal::Stop,
                _ = hangup.recv() => Signal::Reload,
                _ = user.recv() => Signal::DumpStats,
                _ = second.recv() => Signal::Upgrade,
            };
            if sender.send(received).await.is_err() {
                return; // The bridge has stopped.
            }
        }
    });
    Ok(receiver)
}
