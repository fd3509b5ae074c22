//! Data path. Accepting, receiving, pausing.
//!
//! Owns: `Inbound`, what was received and waits; which accepts and receives are armed, and when they
//! are armed again; `Rest`.
//! May depend on: `turn` and what it holds. Not on the application.
//! Invariants: a connection has at most one receive in flight; it has one unless it is paused,
//! starved of buffers, ended by its peer, or ending, or the shard is frozen.

use crate::{
    application::{Application, Closed, Millis, Slot},
    connections::{Flag, State},
    listener::ShardListener,
    ring::Completion,
    timers::TICK_MS,
    turn::RingTurn,
    wire::Wire,
    work::Work,
};
use std::{
    collections::VecDeque,
    os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd},
};

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

/// Listeners, and receives that wait.
pub(crate) struct Inbound {
    listeners: Vec<ShardListener>,
    /// Receives whose last completion was not dealt with.
    receiving: u32,
    is_accepting: bool,
    /// The listeners do not listen yet.
    waits: bool,
    rest: Rest,
    /// Accepts that have completed, bounded by the files that the process may open.
    newcomers: VecDeque<Completion>,
    /// Connections whose receive found no buffer, one entry per connection.
    starved: VecDeque<Slot>,
    /// Receives kept back while reading is held; bounded by the buffers and the connections.
    held: VecDeque<Completion>,
    /// Receives of connections that cost much lately, in their order; empty between turns.
    busy: VecDeque<Completion>,
    /// Those of them whose connections had theirs in this turn.
    served: VecDeque<Completion>,
}

impl Inbound {
    pub(crate) fn new(listeners: Vec<ShardListener>) -> Self {
        Self {
            listeners,
            receiving: 0,
            is_accepting: true,
            waits: true,
            rest: Rest::default(),
            newcomers: VecDeque::new(),
            starved: VecDeque::new(),
            held: VecDeque::new(),
            busy: VecDeque::new(),
            served: VecDeque::new(),
        }
    }

    /// No accept was armed yet: the listeners may not listen.
    pub(crate) fn waits(&self) -> bool {
        self.waits
    }

    pub(crate) fn waits_no_longer(&mut self) {
        self.waits = false;
    }

    /// No order to stop accepting has come.
    pub(crate) fn is_accepting(&self) -> bool {
        self.is_accepting
    }

    /// When accepting goes on, while it rests.
    pub(crate) fn rests_until(&self) -> Option<Millis> {
        self.rest.until()
    }

    /// Receives that are armed, or brought something that was not dealt with.
    pub(crate) fn receiving(&self) -> u32 {
        self.receiving
    }

    /// An accept is armed.
    pub(crate) fn has_armed(&self) -> bool {
        self.listeners.iter().any(|listener| listener.is_armed)
    }

    /// Every listener is closed.
    pub(crate) fn has_closed(&self) -> bool {
        self.listeners.is_empty()
    }

    /// An accept has completed: it is dealt with after what those bring who are here.
    pub(crate) fn queue_newcomer(&mut self, completion: Completion) {
        self.newcomers.push_back(completion);
    }

    pub(crate) fn take_newcomer(&mut self) -> Option<Completion> {
        self.newcomers.pop_front()
    }

    pub(crate) fn has_newcomers(&self) -> bool {
        !self.newcomers.is_empty()
    }

    /// Keeps a receive back, behind those that are kept back already.
    pub(crate) fn hold(&mut self, completion: Completion) {
        self.held.push_back(completion);
    }

    pub(crate) fn take_held(&mut self) -> Option<Completion> {
        self.held.pop_front()
    }

    pub(crate) fn has_held(&self) -> bool {
        !self.held.is_empty()
    }

    /// A receive of a connection that is busy: it comes after the others.
    pub(crate) fn queue_busy(&mut self, completion: Completion) {
        self.busy.push_back(completion);
    }

    pub(crate) fn take_busy(&mut self) -> Option<Completion> {
        self.busy.pop_front()
    }

    /// A receive of a connection that is busy and had one in this turn: it comes last.
    pub(crate) fn queue_served(&mut self, completion: Completion) {
        self.served.push_back(completion);
    }

    pub(crate) fn take_served(&mut self) -> Option<Completion> {
        self.served.pop_front()
    }

    /// Puts what is left of busy connections' receives before all others, in their order: before
    /// those that are kept back if there are such, else before what has arrived.
    pub(crate) fn put_back_busy(&mut self, wire: &mut Wire, is_held: bool) {
        let left = self.served.drain(..).chain(self.busy.drain(..));
        for completion in left.rev() {
            if is_held {
                self.held.push_front(completion);
            } else {
                wire.put_back(completion);
            }
        }
    }

    pub(crate) fn has_starved(&self) -> bool {
        !self.starved.is_empty()
    }
}

/// After a refusal for want of memory: each connection would want more of it.
const REST_MS: u64 = 1_000;

impl<A: Application> RingTurn<A> {
    /// Lets accepting rest when the kernel has refused operations lately: those who are here come
    /// before those who would like to.
    pub(crate) fn rest_if_refused(&mut self) {
        if !self.inbound.is_accepting
            || !self
                .inbound
                .rest
                .begin_if_refused(self.wire.refusals(), self.clock.now)
        {
            return;
        }
        self.counts.accept_rests += 1;
        self.cancel_accepts();
    }

    pub(crate) fn cancel_accepts(&mut self) {
        for (index, listener) in (0..).zip(&self.inbound.listeners) {
            if listener.is_armed {
                self.wire.cancel_accept(index);
            }
        }
    }

    /// Arms the accept of every listener that has none.
    pub(crate) fn arm_accepts(&mut self) {
        self.inbound.rest.end();
        for (index, listener) in (0..).zip(&mut self.inbound.listeners) {
            if !std::mem::replace(&mut listener.is_armed, true) {
                self.wire.accept(index, listener.socket.as_raw_fd());
            }
        }
    }

    /// Deals with an accept's completion; returns the connection if it stays here.
    pub(crate) fn accepted(&mut self, completion: Completion) -> Option<OwnedFd> {
        let listener = completion.token.index() as usize;
        if !completion.goes_on() {
            self.inbound.listeners[listener].is_armed = false;
        }
        let connection = match completion.result {
            // SAFETY: the kernel made this descriptor for us; nothing else owns it.
            fd @ 0.. => Some(unsafe { OwnedFd::from_raw_fd(fd) }),
            code => {
                self.accept_failed(-code);
                None
            }
        };
        let may_accept = self.inbound.is_accepting && !self.frost.is_frozen();
        if may_accept && self.inbound.rest.until().is_none() {
            self.arm_accepts();
        }
        let connection = connection?;
        self.budget.spend(Work::ACCEPT);
        if self.mesh.connections(self.rows.used()) >= u64::from(self.limits.connections_max) {
            // Dropped, that is closed: a row, a message or an answer would cost what is short.
            self.counts.accepts_refused += 1;
            return None;
        }
        self.counts.accepted += 1;
        match self.mesh.lighter_peer(self.rows.open() + 1) {
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
                if self.inbound.is_accepting {
                    self.inbound.rest.begin_shortly(self.clock.now);
                }
            }
        }
    }

    /// Gives a connection its row and begins to read it.
    pub(crate) fn adopt(&mut self, connection: OwnedFd) -> Slot {
        let slot = self.rows.insert(connection.into_raw_fd());
        self.arm_recv_if_wanted(slot.index);
        slot
    }

    fn arm_recv(&mut self, index: u32) {
        self.inbound.receiving += 1;
        self.wire.receive(index, self.rows.row_mut(index));
    }

    /// Arms the receive if this row wants one and has none.
    pub(crate) fn arm_recv_if_wanted(&mut self, index: u32) {
        let row = self.rows.row(index);
        let is_wanted = match row.state {
            State::Open => !row.is(Flag::PAUSED),
            State::Flushing | State::Lingering => true,
            State::Free | State::Ending => false,
        };
        let is_held = row.is(Flag::RECV) || row.is(Flag::STARVED) || row.is(Flag::PEER_ENDED);
        if is_wanted && !is_held && !self.frost.is_frozen() {
            self.arm_recv(index);
        }
    }

    pub(crate) fn pause_recv(&mut self, index: u32) {
        let row = self.rows.row_mut(index);
        if !row.mark(Flag::PAUSED, true) {
            self.wire.stop_receiving(index, row);
        }
    }

    pub(crate) fn resume_recv(&mut self, index: u32) {
        // A receive whose cancellation is under way is armed again when that has completed.
        self.rows.row_mut(index).mark(Flag::PAUSED, false);
        self.arm_recv_if_wanted(index);
    }

    /// Deals with what a receive's completion says beside bytes. True if the peer ended its side of
    /// an open connection.
    pub(crate) fn recv_went_on(&mut self, completion: Completion) -> bool {
        let mut peer_ended = false;
        let index = completion.token.index();
        let row = self.rows.row_mut(index);
        if !completion.goes_on() {
            row.mark(Flag::RECV, false);
            self.inbound.receiving -= 1;
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
        if self.rows.row(index).state == State::Ending {
            self.free_if_quiet(index);
        } else {
            self.arm_recv_if_wanted(index);
        }
        peer_ended
    }

    fn starve(&mut self, index: u32) {
        self.counts.recv_buffers_exhausted += 1;
        let slot = self.rows.slot(index);
        if !self.rows.row_mut(index).mark(Flag::STARVED, true) {
            self.inbound.starved.push_back(slot);
        }
    }

    /// Arms receives that found no buffer, as far as there are buffers again.
    pub(crate) fn feed_starved(&mut self) {
        let mut buffers = self.wire.free_buffers();
        while buffers > 0
            && let Some(slot) = self.inbound.starved.pop_front()
        {
            let row = self.rows.row_mut(slot.index);
            if row.generation == slot.generation {
                row.mark(Flag::STARVED, false);
                self.arm_recv_if_wanted(slot.index);
                buffers -= 1;
            }
        }
    }

    /// Closes the listeners; one whose accept is in flight when that has been cancelled.
    pub(crate) fn stop_accepting(&mut self) {
        self.inbound.is_accepting = false;
        self.inbound.rest.end();
        self.cancel_accepts();
        self.close_idle_listeners();
    }

    pub(crate) fn close_idle_listeners(&mut self) {
        // Accepts name listeners by position: they go all at once or not at all.
        if !self.inbound.is_accepting
            && self
                .inbound
                .listeners
                .iter()
                .all(|listener| !listener.is_armed)
        {
            self.inbound.listeners.clear();
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
