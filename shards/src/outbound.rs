//! Data path. Outboxes to sockets: one send per connection and turn.
//!
//! Owns: how queued frames become sends, and what their completions mean.
//! May depend on: `turn` and what it holds. Not on the application.
//! Invariants: at most one send per connection is in flight; all sends of a flush have completed
//! when it returns, so their bytes may move or go afterwards.

use crate::{
    application::{Application, Closed},
    connections::{Flag, State},
    ring::{Completion, Kind, Token},
    turn::RingTurn,
    work::Work,
};

/// Bytes that are joined into one send at most. A larger first frame is sent in place.
const JOINED_BYTES_MAX: usize = 65_536;
/// Memory in which frames are joined, per flush between two system calls.
pub(crate) const SCRATCH_BYTES: usize = 524_288;

impl<A: Application> RingTurn<A> {
    /// Sends what the turn queued.
    // Per connection: one row, one 64 B submission, one 16 B completion; frames under 64 KiB that
    // wait together cost one copy and no further send. One `enter` per 2 048 connections.
    pub(crate) fn flush(&mut self) {
        let next = std::mem::take(&mut self.flushing);
        let mut rows = std::mem::replace(&mut self.dirty_replies, next);
        rows.append(&mut self.dirty);
        for &index in &rows {
            self.start_send(index);
        }
        if !rows.is_empty() || self.ring.has_unsubmitted() {
            self.settle();
        }
        rows.clear();
        self.flushing = rows;
    }

    /// Offers a row's outbox to the kernel until it is empty or the kernel takes no more. Nothing
    /// of other rows is sent.
    pub(crate) fn press_row(&mut self, index: u32) {
        let mut is_first = true;
        loop {
            let row = self.connections.row(index);
            let is_sendable = matches!(row.state, State::Open | State::Flushing)
                && !row.is(Flag::WRITABLE)
                && !row.outbox_is_empty();
            if !is_sendable {
                return;
            }
            self.counts.outbox_presses += u64::from(std::mem::take(&mut is_first));
            self.budget.spend(Work::SEND);
            self.start_send(index);
            self.settle();
        }
    }

    /// Queues `drained` for an application that awaits it.
    pub(crate) fn tell_if_drained(&mut self, index: u32) {
        let low = self.outbox_bytes_max / 4;
        let row = self.connections.row_mut(index);
        if row.is(Flag::DRAIN_AWAITED) && row.own_bytes <= low {
            row.mark(Flag::DRAIN_AWAITED, false);
            let slot = self.slot(index);
            self.drained.push_back(slot);
        }
    }

    fn start_send(&mut self, index: u32) {
        if self.scratch_used + JOINED_BYTES_MAX > self.scratch.len() {
            self.settle();
        }
        let row = self.connections.row_mut(index);
        row.mark(Flag::DIRTY, false);
        let may_send = matches!(row.state, State::Open | State::Flushing);
        if !may_send || row.is(Flag::SEND) || row.is(Flag::WRITABLE) {
            return;
        }
        let (first, second) = row.first_two();
        let Some(first) = first else { return };
        let unsent = &self.frames.bytes(first)[row.first_sent as usize..];
        let second = second.map_or(usize::MAX, |frame| self.frames.bytes(frame).len());
        let (start, len) = if unsent.len().saturating_add(second) <= JOINED_BYTES_MAX {
            let joined = &mut self.scratch[self.scratch_used..][..JOINED_BYTES_MAX];
            let mut len = 0;
            let mut left_out = row.first_sent as usize;
            for frame in row.entries() {
                let bytes = &self.frames.bytes(frame)[left_out..];
                let Some(room) = joined.get_mut(len..len + bytes.len()) else {
                    break;
                };
                room.copy_from_slice(bytes);
                len += bytes.len();
                left_out = 0;
            }
            self.scratch_used += len;
            (joined.as_ptr(), len)
        } else {
            (unsent.as_ptr(), unsent.len())
        };
        assert!(len > 0);
        row.sending = len as u32;
        row.mark(Flag::SEND, true);
        let token = Token::new(Kind::Send, index, row.generation);
        self.ring.push_send(row.fd, start, len as u32, token);
    }

    /// Waits out all sends in flight (they complete as they are submitted) and deals with them.
    fn settle(&mut self) {
        self.ring.settle_sends();
        let mut sends = std::mem::take(&mut self.ring.sends);
        for completion in sends.drain(..) {
            self.sent(completion);
        }
        self.ring.sends = sends;
        self.scratch_used = 0;
    }

    fn sent(&mut self, completion: Completion) {
        let index = completion.token.index();
        let row = self.connections.row_mut(index);
        assert!(completion.token.is_of(row.generation));
        assert!(row.mark(Flag::SEND, false));
        match completion.result {
            taken @ 1.. => self.sent_bytes(index, taken as u32),
            // The socket has no room: poll, and send on when it has.
            code if matches!(-code, libc::EAGAIN | libc::ENOBUFS | libc::EINTR) => {
                self.await_room(index);
            }
            // EPIPE, ECONNRESET, ETIMEDOUT and their like: the peer is gone.
            _ => self.end_now(index, Closed::ByError),
        }
    }

    fn sent_bytes(&mut self, index: u32, taken: u32) {
        let (row, spares) = self.connections.outbox_mut(index);
        assert!(taken <= row.sending);
        assert!(taken <= row.outbox_bytes);
        row.outbox_bytes -= taken;
        self.counts.outbox_bytes -= u64::from(taken);
        let mut left = (taken + row.first_sent) as usize;
        while left > 0 {
            let first = row.entries().next().expect("more was sent than was queued");
            let bytes = self.frames.bytes(first).len();
            if left < bytes {
                break;
            }
            left -= bytes;
            if row.pop(spares).is_some_and(|(_, is_own)| is_own) {
                row.own_bytes -= bytes as u32;
            }
            self.frames.release(first);
        }
        row.first_sent = left as u32;
        let is_short = taken < row.sending;
        let (is_empty, state) = (row.outbox_is_empty(), row.state);
        self.tell_if_drained(index);
        if is_short {
            self.await_room(index);
        } else if !is_empty {
            self.mark_dirty(index, false);
        } else if state == State::Flushing {
            self.outbox_flushed(index);
        }
    }

    /// Arms a one-shot poll for room in the socket.
    fn await_room(&mut self, index: u32) {
        let slot = self.slot(index);
        let now = self.clock.now.coarse();
        let row = self.connections.row_mut(index);
        if row.mark(Flag::WRITABLE, true) {
            return;
        }
        row.blocked_at = now;
        let token = Token::new(Kind::Writable, index, slot.generation);
        self.ring.push_writable(row.fd, token);
        if !row.mark(Flag::LAGGING, true) {
            self.lagging.push(slot);
        }
    }

    /// A poll for room completed; also with an error, which the next send will tell.
    pub(crate) fn has_room(&mut self, completion: Completion) {
        let index = completion.token.index();
        let row = self.connections.row_mut(index);
        assert!(completion.token.is_of(row.generation));
        assert!(row.mark(Flag::WRITABLE, false));
        if row.state == State::Ending {
            self.free_if_quiet(index);
        } else if !row.outbox_is_empty() {
            self.mark_dirty(index, false);
        }
    }

    /// Forgets connections that caught up with their outbox.
    pub(crate) fn sweep_lagging(&mut self) {
        let mut lagging = std::mem::take(&mut self.lagging);
        lagging.retain(|slot| {
            let row = self.connections.row_mut(slot.index);
            if row.generation != slot.generation {
                return false;
            }
            let lags = !row.outbox_is_empty();
            row.mark(Flag::LAGGING, lags);
            lags
        });
        self.lagging = lagging;
    }
}
