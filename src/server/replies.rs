//! Data path. Frames for one connection alone.
//!
//! Owns: encoding a reply into the shard's scratch buffer and queueing it.
//! May depend on: `ws::encode`, the turn.
//! Invariants: a reply is sent, or its connection ends; who replies stops reading a connection that
//! lets its answers pile up (`receive`).

use shards::application::Slot;

use super::{ServerTurn, ShardServer};
use crate::ws::encode;

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
        let bytes = self.scratch.len();
        turn.send(slot, &self.scratch);
        self.count_reply(slot, bytes);
    }

    /// Sends bytes that are a text frame already.
    pub(super) fn reply_frame(&mut self, turn: &mut impl ServerTurn, slot: Slot, frame: &[u8]) {
        turn.send(slot, frame);
        self.count_reply(slot, frame.len());
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
        turn.send(slot, &self.scratch);
    }

    /// Answers a WebSocket ping.
    pub(super) fn reply_pong(&mut self, turn: &mut impl ServerTurn, slot: Slot, payload: &[u8]) {
        self.scratch.clear();
        encode::pong_frame(&mut self.scratch, payload);
        turn.send(slot, &self.scratch);
    }

    /// Counts a text frame that was sent to one connection.
    pub(super) fn count_reply(&mut self, slot: Slot, frame_bytes: usize) {
        let row = &self.connections[slot.index as usize];
        if row.is_open() {
            let counters = self.counters.app(row.app);
            counters.messages_sent += 1;
            counters.transmitted_bytes += encode::payload_bytes(frame_bytes) as u64;
        }
    }
}
