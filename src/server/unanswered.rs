//! Requests that a shard which drains still owes an answer, and answers that are still to be sent.
//!
//! Owns: the search for them, and the list of what it found.
//! May depend on: `connection::row`, the runtime's outboxes.
//! Invariants: whatever was whole when the search passed it is listed until it was answered and the kernel has its
//! answer; each row is looked at once per search, and then only those that are listed. A kept connection that is
//! idle, or in the middle of a request, is not listed.

use shards::{application::Slot, work::Work};

use super::{ServerTurn, ShardServer};
use crate::connection::row::{Connection, State};

/// A search through all rows, and those that owe. Bounded by the connections of the shard: each is listed once.
#[derive(Clone, Debug, Default)]
pub(super) struct Unanswered {
    /// Where the search goes on.
    next: usize,
    /// How many rows there were when it began: who came later asked later.
    rows: usize,
    slots: Vec<Slot>,
}

impl Unanswered {
    /// A search through so many rows.
    pub(super) fn among(rows: usize) -> Self {
        Self {
            next: 0,
            rows,
            slots: Vec::new(),
        }
    }

    /// Rows are still to be looked at.
    pub(super) fn is_searching(&self) -> bool {
        self.next < self.rows
    }

    /// All rows were looked at, and none owes anything.
    fn is_empty(&self) -> bool {
        !self.is_searching() && self.slots.is_empty()
    }
}

impl ShardServer {
    /// Goes on with the search, until this turn's work is done.
    pub(super) fn search_unanswered(&mut self, turn: &mut impl ServerTurn) {
        let Some(mut unanswered) = self.take_unanswered() else {
            return;
        };
        while unanswered.is_searching() && turn.work_left() > Work(0) {
            turn.spend(Work::ROW);
            let index = unanswered.next;
            unanswered.next += 1;
            let row = &self.connections[index];
            let slot = Slot {
                index: u32::try_from(index).expect("slot indices are u32"),
                generation: row.generation,
            };
            if owes(turn, row, slot) {
                unanswered.slots.push(slot);
            }
        }
        self.put_unanswered(unanswered);
    }

    /// Looks again at who owed something: true if nobody does any more.
    // Per tick of a drain: the rows that owed something at the last one.
    pub(super) fn has_answered_all(&mut self, turn: &mut impl ServerTurn) -> bool {
        let Some(mut unanswered) = self.take_unanswered() else {
            return true;
        };
        turn.spend(Work::ROW.times(unanswered.slots.len()));
        unanswered.slots.retain(|slot| {
            let row = &self.connections[slot.index as usize];
            row.generation == slot.generation && owes(turn, row, *slot)
        });
        let is_empty = unanswered.is_empty();
        self.put_unanswered(unanswered);
        is_empty
    }
}

/// Whether a whole request of a connection is not answered, or its answer not with the kernel.
fn owes(turn: &impl ServerTurn, row: &Connection, slot: Slot) -> bool {
    match row.state {
        // Held is what is whole: behind an answer, a full outbox or a share of a turn.
        State::Http(_) => row.is_held() || turn.outbox_bytes(slot) > 0,
        // The runtime says that it has ended when its last byte is with the kernel. A WebSocket has had its time.
        State::Ending => !row.was_open(),
        State::Vacant | State::ProxyHeader | State::Upgrading | State::Open(_) | State::Closing => {
            false
        }
    }
}
