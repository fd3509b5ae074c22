//! Data path. Bytes of one connection, in order: HTTP first, frames after an upgrade.
//!
//! Owns: unfinished and held input, and when reading is paused.
//! May depend on: `connection::row`, the other files of this room.
//! Invariants: input is handled strictly in order; while an answer is awaited it is held, up to a
//! bound beyond which TCP holds the peer back; an idle connection holds no buffer.

use shards::application::Slot;

use super::{ServerTurn, ShardServer};
use crate::connection::row::State;

/// Input held for a waiting connection before its reading is paused.
const HELD_BYTES_MAX: usize = 64 * 1_024;

impl ShardServer {
    /// Bytes arrived.
    // With nothing held, whole frames are handled in the receive buffer itself: no copy.
    pub(super) fn receive(&mut self, turn: &mut impl ServerTurn, slot: Slot, bytes: &mut [u8]) {
        let Some(row) = self.row(slot) else { return };
        if row.state == State::Ending {
            return;
        }
        if !row.waiting && row.input.is_empty() {
            let used = self.consume(turn, slot, bytes);
            self.hold(turn, slot, bytes.get(used..).unwrap_or_default());
            return;
        }
        row.input.extend_from_slice(bytes);
        let (waiting, held) = (row.waiting, row.input.len());
        if waiting && held > HELD_BYTES_MAX && !row.paused {
            row.paused = true;
            turn.pause_reading(slot);
        } else if !waiting && held >= row.input_wanted as usize {
            self.resume(turn, slot);
        }
    }

    /// Goes on with held input, if the connection waits for nothing.
    pub(super) fn resume(&mut self, turn: &mut impl ServerTurn, slot: Slot) {
        let Some(row) = self.row(slot).filter(|row| !row.waiting) else {
            return;
        };
        let mut input = std::mem::take(&mut row.input);
        row.input_wanted = 0;
        let used = self.consume(turn, slot, &mut input);
        let Some(row) = self.row(slot) else { return };
        assert!(row.input.is_empty(), "input is kept by whoever took it");
        if used < input.len() && row.state != State::Ending {
            input.drain(..used);
            row.input = input;
        }
        // Only now: if each answer let in a receive, a pipeline of small messages that each wait
        // would have ever more held.
        if row.paused && !(row.waiting && row.input.len() > HELD_BYTES_MAX) {
            row.paused = false;
            turn.resume_reading(slot);
        }
    }

    /// Handles what is whole in `bytes` and returns how many bytes that was.
    fn consume(&mut self, turn: &mut impl ServerTurn, slot: Slot, bytes: &mut [u8]) -> usize {
        let mut used = 0;
        while let Some(rest) = bytes.get_mut(used..).filter(|rest| !rest.is_empty()) {
            let Some(row) = self.row(slot).filter(|row| row.state != State::Ending) else {
                return bytes.len();
            };
            if row.waiting {
                break;
            }
            let taken = match row.state {
                State::Http => self.take_request(turn, slot, rest),
                State::Open | State::Closing => self.take_frame(turn, slot, rest),
                State::Vacant | State::Ending => return bytes.len(),
            };
            if taken == 0 {
                break;
            }
            used += taken;
        }
        used
    }

    /// Keeps what is left of a receive.
    fn hold(&mut self, turn: &mut impl ServerTurn, slot: Slot, rest: &[u8]) {
        let now = turn.now();
        let handshake_ms = self.settings.handshake_timeout_ms;
        let Some(row) = self.row(slot).filter(|row| row.state != State::Ending) else {
            return;
        };
        if rest.is_empty() {
            return;
        }
        row.input.extend_from_slice(rest);
        if row.state == State::Http && !row.waiting {
            // The next request on a kept connection has begun: it must be whole in time.
            row.until = row.until.min(now.plus(handshake_ms));
            turn.arm_timer(slot, row.until);
        }
    }
}
