//! Connections on their way to another process, and from one.
//!
//! Owns: what of a row goes into a `Carried`, and how a row is made of one.
//! May depend on: `turn` and what it holds, `carried`.
//! Invariants: carrying changes nothing, so that it can be taken back; only a connection of a still
//! shard is carried, since its outbox is what the kernel has not taken; what cannot be gone on with
//! leaves no row behind.

use crate::{
    application::{Application, Millis, Slot},
    carried::{Carried, CarriedFrame},
    connections::Flag,
    turn::{ANSWERS_BYTES_MAX, RingTurn},
};
use std::os::fd::{IntoRawFd, OwnedFd, RawFd};

impl<A: Application> RingTurn<A> {
    /// See `Turn::carry`.
    // One copy of what waits; nothing else grows with the connection.
    pub(crate) fn carry_row(&self, slot: Slot) -> Option<(RawFd, Carried)> {
        let row = self.rows.open_row(slot)?;
        if !self.frost.is_still() {
            return None;
        }
        let tls = if row.is(Flag::TLS) {
            Some(self.wire.sessions.carry(slot.index)?)
        } else {
            None
        };
        let mut sent = row.first_sent as usize;
        let unsent = row.marked_entries().map(|(frame, is_own)| {
            let sent = std::mem::take(&mut sent);
            let bytes = self.frames.bytes(frame)[sent..].to_vec();
            // What has begun is not dropped any more, whatever it was.
            let is_own = is_own || sent > 0;
            CarriedFrame { bytes, is_own }
        });
        let blocked = self.clock.now.coarse().wrapping_sub(row.blocked_at);
        let carried = Carried {
            unsent: unsent.collect(),
            is_sealed: row.is(Flag::SEALED),
            awaits_drained: row.is(Flag::DRAIN_AWAITED),
            is_paused: row.is(Flag::PAUSED),
            peer_ended: row.is(Flag::PEER_ENDED),
            blocked_ms: u64::from(blocked) << 4,
            timer_ms: self.rows.due_at(slot.index).map(|at| at.0),
            tls,
        };
        Some((row.fd, carried))
    }

    /// See `Turn::adopt`.
    pub(crate) fn adopt_carried(&mut self, connection: OwnedFd, carried: Carried) -> Option<Slot> {
        let bytes: usize = carried.unsent.iter().map(|frame| frame.bytes.len()).sum();
        if bytes > ANSWERS_BYTES_MAX {
            return None;
        }
        let (tls, hello) = match carried.tls {
            Some(mut tls) => {
                let hello = tls.is_fresh.then(|| std::mem::take(&mut tls.unopened));
                (Some(self.wire.sessions.adopt(tls)?), hello)
            }
            None => (None, None),
        };
        let slot = self.rows.insert(connection.into_raw_fd());
        let blocked = Millis(carried.blocked_ms).coarse();
        let now = self.clock.now.coarse();
        let row = self.rows.row_mut(slot.index);
        row.blocked_at = now.wrapping_sub(blocked);
        for (flag, is_set) in [
            (Flag::SEALED, carried.is_sealed),
            (Flag::PAUSED, carried.is_paused),
            (Flag::PEER_ENDED, carried.peer_ended),
            (Flag::DRAIN_AWAITED, carried.awaits_drained),
        ] {
            row.mark(flag, is_set);
        }
        if let Some(tls) = tls {
            row.mark(Flag::TLS, true);
            row.mark(Flag::SHAKING, hello.is_some());
            self.wire.sessions.put(slot.index, tls);
            self.recount_sealed(slot.index);
        }
        if let Some(at) = carried.timer_ms {
            self.rows.arm(slot.index, Millis(at));
        }
        for frame in carried.unsent {
            let bytes = frame.bytes.len();
            if bytes > 0 {
                let id = self.frames.add_boxed(frame.bytes.into_boxed_slice());
                self.queue(slot, id, bytes, frame.is_own);
            }
        }
        self.tell_if_drained(slot.index);
        self.arm_recv_if_wanted(slot.index);
        if let Some(hello) = hello {
            // Last: it may be too much, and end the connection.
            self.keep_handshake(slot, &hello);
        }
        Some(slot)
    }
}
