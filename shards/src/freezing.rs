//! What a shard does so that another process can go on where it stops, and how it goes on itself.
//!
//! Owns: `Frost`; what is cancelled and armed again; what is let go of; what a shard answers to the bridge's order.
//! May depend on: `settling`, `shard`, `turn` and what it holds.
//! Invariants: a frozen shard arms no receive and no accept and fires no timer; one that is still sends
//! nothing either; whatever was frozen can be thawed, and nothing is lost by it, until it lets go: then nothing
//! that it does reaches a socket that another process has.

use crate::{
    application::{Application, Millis},
    connections::{Flag, State},
    settling::{Order, Said},
    shard::Shard,
    turn::RingTurn,
    work::Work,
};
use std::{
    fs::File,
    os::fd::{AsRawFd as _, OwnedFd},
};

/// A shard's part.
#[derive(Default)]
pub(crate) struct Frost {
    order: Order,
    /// The next row whose receive is to be cancelled or, once it runs again, armed; `None` = all are.
    next: Option<u32>,
    /// When the last row was dealt with.
    walked_ns: u64,
    /// What stands in the place of connections that were let go of.
    nothing: Option<OwnedFd>,
    /// What the application was told of, ever: completions, messages, ends.
    pub(crate) told: u64,
}

impl Frost {
    pub(crate) fn starting(order: Order) -> Self {
        Self {
            order,
            ..Self::default()
        }
    }

    /// No receive or accept may be armed, no timer fires.
    pub(crate) fn is_frozen(&self) -> bool {
        self.order.freezes()
    }

    /// Nothing may be sent.
    pub(crate) fn is_still(&self) -> bool {
        self.order.stills()
    }

    /// Rows are left to deal with.
    pub(crate) fn walks(&self) -> bool {
        self.next.is_some()
    }
}

/// Rows that are dealt with in one turn: their cancellations fit into the ring's queue.
const ROWS_PER_TURN: u32 = 1_024;
/// A receive that is there so long after its cancellation is cancelled once more: it may have been
/// on its way to be armed again.
const AGAIN_NS: u64 = 10_000_000;

impl<A: Application> RingTurn<A> {
    fn obey(&mut self, order: Order) {
        let was_frozen = self.frost.is_frozen();
        let is_new = order.number() != self.frost.order.number();
        self.frost.order = order;
        if order.lets_go() {
            self.stop_accepting();
            self.frost.nothing = nothing();
            self.frost.next = Some(0);
        } else if self.frost.is_frozen() {
            if is_new || !was_frozen {
                self.cancel_accepts();
                self.frost.next = Some(0);
            }
        } else {
            self.frost.next = Some(0);
            let is_waited_for = self.inbound.waits() || self.inbound.rests_until().is_some();
            if self.inbound.is_accepting() && !is_waited_for {
                self.arm_accepts();
            }
        }
    }

    /// Receives and accepts are over, and what they brought was handed on.
    fn is_deaf(&self) -> bool {
        self.inbound.receiving() == 0 && !self.inbound.has_armed()
    }

    /// When a frozen shard looks again whether its receives are over.
    pub(crate) fn looks_again_at(&self) -> Option<Millis> {
        let waits = self.frost.is_frozen() && !self.is_deaf();
        waits.then(|| Millis((self.frost.walked_ns + AGAIN_NS) / 1_000_000 + 1))
    }

    /// Cancels the next rows' receives, or arms them.
    // Per row a cache line, and one entry of the ring.
    fn walk(&mut self) {
        let is_late = self.clock.now_ns >= self.frost.walked_ns + AGAIN_NS;
        if self.frost.is_frozen() && !self.frost.walks() && is_late && !self.is_deaf() {
            self.cancel_accepts();
            self.frost.next = Some(0);
        }
        let Some(from) = self.frost.next else { return };
        let rows = self.rows.capacity();
        let to = from.saturating_add(ROWS_PER_TURN).min(rows);
        for index in from..to {
            self.budget.spend(Work::ROW);
            if self.frost.order.lets_go() {
                self.let_go(index);
            } else if self.frost.is_frozen() {
                let row = self.rows.row(index);
                if row.is(Flag::RECV) {
                    self.wire.stop_receiving(index, row);
                }
            } else {
                self.arm_recv_if_wanted(index);
            }
        }
        self.frost.next = (to < rows).then_some(to);
        self.frost.walked_ns = self.clock.now_ns;
    }

    /// Closes this process' copy of an open connection. Its number stays taken, so that nothing that is done with the
    /// row later reaches another file. One that is being closed here ends with this process.
    fn let_go(&mut self, index: u32) {
        let row = self.rows.row(index);
        let Some(nothing) = self.frost.nothing.as_ref() else {
            return;
        };
        if row.state != State::Open {
            return;
        }
        // A poll for room would hold it.
        self.wire.cancel(index, row);
        self.budget.spend(Work::CLOSE);
        // SAFETY: both are descriptors that are open and ours, the second one the row's own, on which nothing is in
        // flight but what was cancelled; should the call fail the connection stays until the process ends.
        unsafe { libc::dup3(nothing.as_raw_fd(), row.fd, libc::O_CLOEXEC) };
    }

    /// Nothing is left to do, `has_more` of the application's apart.
    fn is_idle(&self) -> bool {
        let is_sent = !self.outbound.has_listed() && !self.link.lanes.has_spilled();
        let is_heard = !self.has_left_over() && !self.link.has_incoming();
        let is_passed_on = !self.mesh.has_spilled() && !self.wire.sessions.has_ready();
        self.is_deaf() && !self.frost.walks() && is_sent && is_heard && is_passed_on
    }
}

/// A descriptor of nothing. Without one connections stay until the process ends.
fn nothing() -> Option<OwnedFd> {
    match File::open("/dev/null") {
        Ok(file) => Some(file.into()),
        Err(error) => {
            tracing::warn!(%error, "connections that another process has are kept open (/dev/null)");
            None
        }
    }
}

impl<A: Application> Shard<A> {
    /// Sees what the bridge wants, first of all in a turn.
    pub(crate) fn take_order(&mut self) {
        let order = self.orders.frost.get();
        if order == self.turn.frost.order && !self.turn.frost.is_frozen() {
            if self.turn.frost.walks() {
                self.turn.walk();
            }
            return;
        }
        self.record.turn_begins();
        if order != self.turn.frost.order {
            self.turn.obey(order);
        }
        self.turn.walk();
    }

    /// The bridge wants something that the shard has not seen.
    pub(crate) fn has_order(&self) -> bool {
        self.orders.frost.get() != self.turn.frost.order
    }

    /// Says how far this shard is, last of all in a turn. `has_more`: the application has left
    /// something over.
    pub(crate) fn answer_order(&self, has_more: bool) {
        let turn = &self.turn;
        if !turn.frost.is_frozen() {
            return;
        }
        let (posted, received) = turn.mesh.counts();
        let is_idle = !has_more && turn.is_idle() && self.application.is_settled();
        let order = turn.frost.order;
        self.record.turn_ends(Said {
            order: order.number(),
            posted,
            received,
            told: turn.frost.told,
            is_idle,
        });
        if turn.frost.is_still() {
            self.record.is_still(order);
        }
    }
}
