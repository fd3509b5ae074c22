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
}

/// Listens from now on. Needs a tokio runtime.
///
/// # Errors
/// When the host refuses a signal handler.
pub fn listen() -> io::Result<mpsc::Receiver<Signal>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut user = signal(SignalKind::user_defined1())?;
    let (sender, receiver) = mpsc::channel(16);
    tokio::spawn(async move {
        loop {
            let received = tokio::select! {
                _ = terminate.recv() => Signal::Stop,
                _ = interrupt.recv() => Signal::Stop,
                _ = hangup.recv() => Signal::Reload,
                _ = user.recv() => Signal::DumpStats,
            };
            if sender.send(received).await.is_err() {
                return; // The bridge has stopped.
            }
        }
    });
    Ok(receiver)
}
