//! Data path. Frames for one connection alone.
//!
//! Owns: encoding a reply into the shard's scratch buffer and queueing it.
//! May depend on: `ws::encode`, the turn.
//! Invariants: a reply that does not even fit behind twice the outbox's bound dooms its connection.

use shards::application::{Queued, Slot};

use super::{ServerTurn, ShardServer};
use crate::{protocol::code::CloseCode, ws::encode};

impl ShardServer {
    /// Sends a text frame with the JSON that `write` appends.
    pub(super) fn reply(
        &mut self,
        turn: &mut impl ServerTurn,
        slot: Slot,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        self.scratch.clear();
        let start = encode::begin_text(&mut self.scratch);
        write(&mut self.scratch);
        encode::finish_text(&mut self.scratch, start);
        let bytes = self.scratch.len() as u64;
        let queued = turn.send(slot, &self.scratch);
        self.count_reply(slot, bytes, queued);
    }

    /// Sends bytes that are a frame already.
    pub(super) fn reply_frame(&mut self, turn: &mut impl ServerTurn, slot: Slot, frame: &[u8]) {
        let queued = turn.send(slot, frame);
        self.count_reply(slot, frame.len() as u64, queued);
    }

    /// Sends a close frame; `code` `None` echoes a close without one.
    pub(super) fn reply_close(
        &mut self,
        turn: &mut impl ServerTurn,
        slot: Slot,
        code: impl Into<Option<u16>>,
        reason: &str,
    ) {
        self.scratch.clear();
        encode::close_frame(&mut self.scratch, code.into(), reason);
        // A close that finds no room is followed by the end of TCP all the same.
        let _ = turn.send(slot, &self.scratch);
    }

    /// Answers a WebSocket ping.
    pub(super) fn reply_pong(&mut self, turn: &mut impl ServerTurn, slot: Slot, payload: &[u8]) {
        self.scratch.clear();
        encode::pong_frame(&mut self.scratch, payload);
        let queued = turn.send(slot, &self.scratch);
        self.doom_if_full(slot, queued);
    }

    fn count_reply(&mut self, slot: Slot, bytes: u64, queued: Queued) {
        let row = &self.connections[slot.index as usize];
        if queued == Queued::Accepted && row.established {
            let counters = self.counters.app(row.app);
            counters.messages_sent += 1;
            counters.transmitted_bytes += bytes;
        }
        self.doom_if_full(slot, queued);
    }

    fn doom_if_full(&mut self, slot: Slot, queued: Queued) {
        if queued == Queued::Full {
            self.doom(slot, CloseCode::OVER_CAPACITY);
        }
    }
}
