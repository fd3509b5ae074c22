//! Data path. Accepting, receiving, pausing.
//!
//! Owns: which accepts and receives are armed, and when they are armed again; `Rest`.
//! May depend on: `turn` and what it holds. Not on the application.
//! Invariants: a connection has at most one receive in flight; it has one unless it is paused,
//! starved of buffers, ended by its peer, or ending.

use crate::{
    application::{Application, Closed, Millis, Slot},
    buffers::GROUP,
    connections::{Flag, State},
    ring::{Completion, Kind, Token},
    timers::TICK_MS,
    turn::RingTurn,
    work::Work,
};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};

/// Whether accepting rests, for want of files or of the kernel's memory.
#[derive(Debug, Default)]
pub(crate) struct Rest {
    until: Option<Millis>,
    /// Of the ring's refusals, those that a rest was taken for.
    refusals_seen: u64,
}

impl Rest {
    /// When accepting goes on.
    pub(crate) const fn until(&self) -> Option<Millis> {
        self.until
    }

    /// True when the kernel has refused operations since the last call: accepting rests from now
    /// on, and what is armed must be cancelled.
    pub(crate) fn begin_if_refused(&mut self, refusals: u64, now: Millis) -> bool {
        let is_refused = refusals > self.refusals_seen;
        self.refusals_seen = refusals;
        if is_refused {
            self.until = Some(now.plus(REST_MS));
        }
        is_refused
    }

    fn begin_shortly(&mut self, now: Millis) {
        self.until = self.until.max(Some(now.plus(TICK_MS)));
    }

    const fn end(&mut self) {
        self.until = None;
    }
}

/// After a refusal for want of memory: each connection would want more of it.
const REST_MS: u64 = 1_000;

impl<A: Application> RingTurn<A> {
    /// Lets accepting rest when the kernel has refused operations lately: those who are here come
    /// before those who would like to.
    pub(crate) fn rest_if_refused(&mut self) {
        if !self.is_accepting
            || !self
                .rest
                .begin_if_refused(self.ring.refusals, self.clock.now)
        {
            return;
        }
        self.counts.accept_rests += 1;
        self.cancel_accepts();
    }

    fn cancel_accepts(&mut self) {
        for index in 0..self.listeners.len() {
            if self.listeners[index].is_armed {
                self.ring
                    .push_cancel(Token::new(Kind::Accept, index as u32, 0));
            }
        }
    }

    /// Arms the accept of every listener that has none.
    pub(crate) fn arm_accepts(&mut self) {
        self.rest.end();
        for (index, listener) in self.listeners.iter_mut().enumerate() {
            if !std::mem::replace(&mut listener.is_armed, true) {
                let token = Token::new(Kind::Accept, index as u32, 0);
                self.ring.push_accept(listener.socket.as_raw_fd(), token);
            }
        }
    }

    /// Deals with an accept's completion; returns the connection if it stays here.
    pub(crate) fn accepted(&mut self, completion: Completion) -> Option<OwnedFd> {
        let listener = completion.token.index() as usize;
        if !completion.goes_on() {
            self.listeners[listener].is_armed = false;
        }
        let connection = match completion.result {
            // SAFETY: the kernel made this descriptor for us; nothing else owns it.
            fd @ 0.. => Some(unsafe { OwnedFd::from_raw_fd(fd) }),
            code => {
                self.accept_failed(-code);
                None
            }
        };
        if self.is_accepting && self.rest.until().is_none() {
            self.arm_accepts();
        }
        let connection = connection?;
        self.budget.spend(Work::ACCEPT);
        if self.mesh.connections(self.connections.used) >= u64::from(self.connections_max) {
            // Dropped, that is closed: a row, a message or an answer would cost what is short.
            self.counts.accepts_refused += 1;
            return None;
        }
        self.counts.accepted += 1;
        match self.mesh.lighter_peer(self.connections.open + 1) {
            Some(peer) => {
                self.counts.handed_over += 1;
                self.mesh.hand_over(peer, connection);
                None
            }
            None => Some(connection),
        }
    }

    fn accept_failed(&mut self, code: i32) {
        match code {
            // A peer that gave up while it waited, or nothing at all: simply go on.
            libc::ECONNABORTED | libc::EPROTO | libc::EINTR | libc::EAGAIN | libc::ECANCELED => {}
            // EMFILE, ENFILE, ENOMEM and their like would fail again at once: rest a little.
            _ => {
                self.counts.accept_failures += 1;
                // Who has stopped accepting does not begin again.
                if self.is_accepting {
                    self.rest.begin_shortly(self.clock.now);
                }
            }
        }
    }

    /// Gives a connection its row and begins to read it.
    pub(crate) fn adopt(&mut self, connection: OwnedFd) -> Slot {
        let slot = self.connections.insert(connection.into_raw_fd());
        self.arm_recv(slot.index);
        slot
    }

    fn arm_recv(&mut self, index: u32) {
        let row = self.connections.row_mut(index);
        assert!(!row.mark(Flag::RECV, true));
        let token = Token::new(Kind::Recv, index, row.generation);
        self.ring.push_recv(row.fd, GROUP, token);
    }

    /// Arms the receive if this row wants one and has none.
    pub(crate) fn arm_recv_if_wanted(&mut self, index: u32) {
        let row = self.connections.row(index);
        let is_wanted = match row.state {
            State::Open => !row.is(Flag::PAUSED),
            State::Flushing | State::Lingering => true,
            State::Free | State::Ending => false,
        };
        let is_held = row.is(Flag::RECV) || row.is(Flag::STARVED) || row.is(Flag::PEER_ENDED);
        if is_wanted && !is_held {
            self.arm_recv(index);
        }
    }

    pub(crate) fn pause_recv(&mut self, index: u32) {
        let row = self.connections.row_mut(index);
        if !row.mark(Flag::PAUSED, true) && row.is(Flag::RECV) {
            let token = Token::new(Kind::Recv, index, row.generation);
            self.ring.push_cancel(token);
        }
    }

    pub(crate) fn resume_recv(&mut self, index: u32) {
        // A receive whose cancellation is under way is armed again when that has completed.
        self.connections.row_mut(index).mark(Flag::PAUSED, false);
        self.arm_recv_if_wanted(index);
    }

    /// Deals with what a receive's completion says beside bytes. True if the peer ended its side of
    /// an open connection.
    pub(crate) fn recv_went_on(&mut self, completion: Completion) -> bool {
        let mut peer_ended = false;
        let index = completion.token.index();
        let row = self.connections.row_mut(index);
        if !completion.goes_on() {
            row.mark(Flag::RECV, false);
        }
        match completion.result {
            0 => peer_ended = self.peer_ended(index),
            1.. => {}
            code => match -code {
                libc::ENOBUFS => self.starve(index),
                // We cancelled it ourselves.
                libc::ECANCELED | libc::EINTR | libc::EAGAIN => {}
                _ => self.end_now(index, Closed::ByError),
            },
        }
        if self.connections.row(index).state == State::Ending {
            self.free_if_quiet(index);
        } else {
            self.arm_recv_if_wanted(index);
        }
        peer_ended
    }

    fn starve(&mut self, index: u32) {
        self.counts.recv_buffers_exhausted += 1;
        let slot = self.slot(index);
        if !self.connections.row_mut(index).mark(Flag::STARVED, true) {
            self.starved.push_back(slot);
        }
    }

    /// Arms receives that found no buffer, as far as there are buffers again.
    pub(crate) fn feed_starved(&mut self) {
        let mut buffers = u32::from(self.buffers.count()).saturating_sub(self.ring.buffers_reaped);
        while buffers > 0
            && let Some(slot) = self.starved.pop_front()
        {
            let row = self.connections.row_mut(slot.index);
            if row.generation == slot.generation {
                row.mark(Flag::STARVED, false);
                self.arm_recv_if_wanted(slot.index);
                buffers -= 1;
            }
        }
    }

    /// Closes the listeners; one whose accept is in flight when that has been cancelled.
    pub(crate) fn stop_accepting(&mut self) {
        self.is_accepting = false;
        self.rest.end();
        self.cancel_accepts();
        self.close_idle_listeners();
    }

    pub(crate) fn close_idle_listeners(&mut self) {
        // Accepts name listeners by position: they go all at once or not at all.
        if !self.is_accepting && self.listeners.iter().all(|listener| !listener.is_armed) {
            self.listeners.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepting_rests_a_second_after_each_new_refusal_and_not_for_old_ones() {
        let mut rest = Rest::default();
        for (now, refusals, begins, until) in [
            (0, 0, false, None),
            (10, 2, true, Some(1_010)),
            (20, 2, false, Some(1_010)),
            (500, 3, true, Some(1_500)),
            (900, 3, false, Some(1_500)),
        ] {
            assert_eq!(
                rest.begin_if_refused(refusals, Millis(now)),
                begins,
                "{now}"
            );
            assert_eq!(rest.until(), until.map(Millis), "{now}");
        }
        rest.begin_shortly(Millis(1_000));
        assert_eq!(rest.until(), Some(Millis(1_500)), "the longer rest holds");
        rest.end();
        assert_eq!(rest.until(), None);
        assert!(
            !rest.begin_if_refused(3, Millis(2_000)),
            "it was rested for"
        );
        rest.begin_shortly(Millis(2_000));
        assert_eq!(rest.until(), Some(Millis(2_000 + TICK_MS)));
    }
}
