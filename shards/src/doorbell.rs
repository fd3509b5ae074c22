//! How a thread with news wakes a shard that is parked.
//!
//! Owns: a shard's eventfd and its word on whether it is parked.
//! May depend on: libc.
//! Invariants: who publishes a message and then rings finds the shard either parked (and wakes
//! it) or about to look at its queues once more; a running shard costs its peers no system call.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    sync::atomic::{AtomicBool, Ordering, fence},
};

/// One shard's bell.
pub(crate) struct Doorbell {
    eventfd: OwnedFd,
    parked: AtomicBool,
}

impl Doorbell {
    pub(crate) fn new() -> io::Result<Self> {
        // Nobody reads it: the net ring's multishot poll completes once per write.
        // SAFETY: no pointer is passed; the result is checked.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a fresh descriptor that nothing else owns.
        let eventfd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self {
            eventfd,
            parked: AtomicBool::new(false),
        })
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.eventfd.as_raw_fd()
    }

    /// Says that the owner is about to wait. It must look at its queues after this call.
    pub(crate) fn park(&self) {
        self.parked.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// Says that the owner is awake.
    pub(crate) fn unpark(&self) {
        self.parked.store(false, Ordering::SeqCst);
    }

    pub(crate) fn is_parked(&self) -> bool {
        self.parked.load(Ordering::Relaxed)
    }

    /// Wakes the owner if it is parked. Call it after the message is in its queue.
    pub(crate) fn ring(&self) {
        fence(Ordering::SeqCst);
        if self.parked.load(Ordering::Relaxed) && self.parked.swap(false, Ordering::SeqCst) {
            let one = 1_u64;
            // SAFETY: eight readable bytes, as an eventfd wants.
            let written = unsafe { libc::write(self.fd(), (&raw const one).cast(), 8) };
            assert!(
                written == 8,
                "an eventfd far from its maximum takes a write"
            );
        }
    }
}
