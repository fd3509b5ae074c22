//! The listening sockets beside the port, as far as a hand-over knows them.
//!
//! Owns: `Doors`: a copy of each for the next process; `Gate`: whether they are accepted from.
//! May depend on: tokio's `watch`, `handover::packet::Kind`.
//! Invariants: whoever connects while the gate is shut waits in the kernel, and is accepted by the process that
//! opens its own; a copy is given up as soon as a stop begins, or it would listen on; once all are closed for good no
//! socket is kept, and none is bound.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::sync::watch;

use crate::{
    bridge::socket_file::{Access, Ownership},
    handover::packet::Kind,
};

/// A copy of a socket, once that is bound.
pub type Copied = Arc<OnceLock<OwnedFd>>;

/// The sockets, and what decides over them.
#[derive(Debug)]
pub struct Doors {
    copies: Vec<(Kind, String, Copied)>,
    position: watch::Sender<Position>,
    guests: Arc<AtomicUsize>,
    /// Of the sockets' files.
    pub files: Ownership,
    /// Files of the process before, and who is to open them.
    accesses: Vec<(PathBuf, Access)>,
}

/// Of all gates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Position {
    Open,
    Shut,
    /// For good: another process has the sockets.
    Closed,
}

impl Default for Doors {
    fn default() -> Self {
        Self {
            copies: Vec::new(),
            position: watch::Sender::new(Position::Open),
            guests: Arc::default(),
            files: Ownership::default(),
            accesses: Vec::new(),
        }
    }
}

impl Doors {
    /// When this process takes over, the socket's file there is for those.
    pub fn set_access_later(&mut self, path: PathBuf, access: Access) {
        self.accesses.push((path, access));
    }

    /// The sockets' files are this process' from now on, and for whom it was told.
    pub(super) fn take_over_files(&mut self) {
        self.files.set(true);
        for (path, access) in self.accesses.drain(..) {
            if let Err(error) = access.set(&path) {
                let path = path.display();
                tracing::error!(%path, %error, "the socket's file keeps the owner and mode that it had");
            }
        }
    }

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
        let position = match is_open {
            true => Position::Open,
            false => Position::Shut,
        };
        self.position.send_replace(position);
    }

    /// Another process serves: whoever accepts gives its socket up.
    pub(super) fn close(&mut self) {
        self.forget();
        self.files.set(false);
        self.position.send_replace(Position::Closed);
    }

    /// For who accepts from one of them.
    pub fn gate(&self) -> Gate {
        Gate {
            position: self.position.subscribe(),
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
    position: watch::Receiver<Position>,
    guests: Arc<AtomicUsize>,
}

impl Gate {
    /// Waits until it is open; false when it is closed for good.
    pub async fn opens(&mut self) -> bool {
        self.turns(|it| it != Position::Shut).await == Position::Open
    }

    /// Waits until it is not open.
    pub async fn shuts(&mut self) {
        self.turns(|it| it != Position::Open).await;
    }

    /// Waits until it is closed for good.
    pub async fn closes(&mut self) {
        self.turns(|it| it == Position::Closed).await;
    }

    async fn turns(&mut self, is_it: impl Fn(Position) -> bool) -> Position {
        loop {
            let position = *self.position.borrow_and_update();
            if is_it(position) {
                return position;
            }
            if self.position.changed().await.is_err() {
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
        assert!(gate.opens().await);
        doors.set_open(false);
        gate.shuts().await;
        tokio::select! {
            biased;
            _ = gate.opens() => panic!("it is shut"),
            () = tokio::task::yield_now() => {}
        }
        let open = async {
            tokio::task::yield_now().await;
            doors.set_open(true);
        };
        tokio::join!(gate.opens(), open);
        drop(doors);
        assert!(gate.opens().await);
        tokio::select! {
            biased;
            () = gate.shuts() => panic!("nobody is left to shut it"),
            () = tokio::task::yield_now() => {}
        }
    }

    #[tokio::test]
    async fn a_gate_that_is_closed_for_good_never_opens_and_no_copy_is_kept() {
        let mut doors = Doors::default();
        let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let place = || "here".to_owned();
        doors.add(Kind::Metrics, place(), &socket).expect("room");
        let mut gates = [doors.gate(), doors.gate()];
        doors.set_open(false);
        let closes = async {
            tokio::task::yield_now().await;
            doors.close();
        };
        let [first, second] = &mut gates;
        let (opens, (), ()) = tokio::join!(first.opens(), second.closes(), closes);
        assert!(!opens);
        gates[1].shuts().await;
        assert_eq!(doors.copies().count(), 0);
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
