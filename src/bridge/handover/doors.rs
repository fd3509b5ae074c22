//! The listening sockets beside the port, as far as a hand-over knows them.
//!
//! Owns: `Doors`: a copy of each for the next process; `Gate`: whether they are accepted from.
//! May depend on: tokio's `watch`, `handover::packet::Kind`.
//! Invariants: whoever connects while the gate is shut waits in the kernel, and is accepted by the process that
//! opens its own; a copy is given up as soon as a stop begins, or it would listen on.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::sync::watch;

use crate::{bridge::socket_file::Ownership, handover::packet::Kind};

/// A copy of a socket, once that is bound.
pub type Copied = Arc<OnceLock<OwnedFd>>;

/// The sockets, and what decides over them.
#[derive(Debug)]
pub struct Doors {
    copies: Vec<(Kind, String, Copied)>,
    is_open: watch::Sender<bool>,
    guests: Arc<AtomicUsize>,
    /// Of the sockets' files.
    pub files: Ownership,
}

impl Default for Doors {
    fn default() -> Self {
        Self {
            copies: Vec::new(),
            is_open: watch::Sender::new(true),
            guests: Arc::default(),
            files: Ownership::default(),
        }
    }
}

impl Doors {
    /// Remembers a copy of a socket, for the next process.
    ///
    /// # Errors
    /// When there is no room for more files.
    pub fn add(&mut self, kind: Kind, place: String, socket: &impl AsFd) -> io::Result<()> {
        let copy = socket.as_fd().try_clone_to_owned()?;
        self.add_later(kind, place, Arc::new(OnceLock::from(copy)));
        Ok(())
    }

    /// The same for a socket that may be bound later.
    pub fn add_later(&mut self, kind: Kind, place: String, copy: Copied) {
        self.copies.push((kind, place, copy));
    }

    pub(super) fn copies(&self) -> impl Iterator<Item = (Kind, &str, &OwnedFd)> {
        let bound = self.copies.iter();
        bound.filter_map(|(kind, place, copy)| Some((*kind, place.as_str(), copy.get()?)))
    }

    /// Nobody is to follow any more.
    pub(in crate::bridge) fn forget(&mut self) {
        self.copies.clear();
    }

    pub(super) fn set_open(&self, is_open: bool) {
        self.is_open.send_replace(is_open);
    }

    /// For who accepts from one of them.
    pub fn gate(&self) -> Gate {
        Gate {
            is_open: self.is_open.subscribe(),
            guests: Arc::clone(&self.guests),
        }
    }

    /// Whether somebody is being served.
    pub(super) fn has_guests(&self) -> bool {
        self.guests.load(Ordering::Relaxed) > 0
    }
}

/// Whether one accepts.
#[derive(Clone, Debug)]
pub struct Gate {
    is_open: watch::Receiver<bool>,
    guests: Arc<AtomicUsize>,
}

impl Gate {
    /// Waits until it is open.
    pub async fn opens(&mut self) {
        self.turns(true).await;
    }

    /// Waits until it is shut.
    pub async fn shuts(&mut self) {
        self.turns(false).await;
    }

    async fn turns(&mut self, is_open: bool) {
        while *self.is_open.borrow_and_update() != is_open {
            if self.is_open.changed().await.is_err() {
                // Nobody is left who could turn it: it stays as it is.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Somebody is served until it is dropped.
    pub fn guest(&self) -> Served {
        self.guests.fetch_add(1, Ordering::Relaxed);
        Served(Arc::clone(&self.guests))
    }
}

#[derive(Debug)]
pub struct Served(Arc<AtomicUsize>);

impl Drop for Served {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_waits_at_a_gate_sees_it_open_and_shut() {
        let doors = Doors::default();
        let mut gate = doors.gate();
        gate.opens().await;
        doors.set_open(false);
        gate.shuts().await;
        tokio::select! {
            biased;
            () = gate.opens() => panic!("it is shut"),
            () = tokio::task::yield_now() => {}
        }
        let open = async {
            tokio::task::yield_now().await;
            doors.set_open(true);
        };
        tokio::join!(gate.opens(), open);
        drop(doors);
        gate.opens().await;
        tokio::select! {
            biased;
            () = gate.shuts() => panic!("nobody is left to shut it"),
            () = tokio::task::yield_now() => {}
        }
    }

    #[test]
    fn a_guest_is_counted_until_it_has_gone() {
        let doors = Doors::default();
        assert!(!doors.has_guests());
        let served = doors.gate().guest();
        assert!(doors.has_guests());
        drop(served);
        assert!(!doors.has_guests());
    }
}
