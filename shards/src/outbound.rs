//! Data path. Outboxes to sockets: one send per connection and turn.
//!
//! Owns: `Outbound`, which rows are to be sent; how queued frames become sends, and what their
//! completions mean.
//! May depend on: `turn` and what it holds. Not on the application.
//! Invariants: at most one send per connection is in flight; all sends of a flush have completed
//! when it returns, so their bytes may move or go afterwards.

use crate::{
    application::{Application, Closed, Slot},
    connections::{Flag, Row, State, row_bytes},
    frames::FrameTable,
    ring::Completion,
    turn::RingTurn,
    wire::RECORD_BYTES_MAX,
    work::Work,
};
use std::collections::VecDeque;

/// Bytes that are joined into one send at most. A larger first frame is sent in place.
pub(crate) const JOINED_BYTES_MAX: usize = 65_536;
/// Memory in which frames are joined, per flush between two system calls.
const SCRATCH_BYTES: usize = 524_288;

/// What of a shard's outboxes is to be sent, or told.
pub(crate) struct Outbound {
    /// Rows to flush at the end of the turn, each on one of the two lists; one that was pressed
    /// meanwhile may stand there again, to no effect.
    shared: Vec<u32>,
    /// Those that first got bytes of their own: they go out before the turn's fan-outs, so that an
    /// answer does not wait for a thousand sends.
    replies: Vec<u32>,
    /// The list that is worked off while the others are filled.
    working: Vec<u32>,
    /// Small frames joined for one send each; reused when the sends have settled.
    scratch: Box<[u8]>,
    scratch_used: usize,
    /// Small frames joined for one record; empty while there is no TLS.
    record: Vec<u8>,
    /// Connections whose outbox waited for its peer lately, one entry per connection.
    lagging: Vec<Slot>,
    /// Connections whose answers have gone and whose application wants to know.
    drained: VecDeque<Slot>,
}

impl Outbound {
    pub(crate) fn new() -> Self {
        Self {
            shared: Vec::new(),
            replies: Vec::new(),
            working: Vec::new(),
            scratch: vec![0; SCRATCH_BYTES].into_boxed_slice(),
            scratch_used: 0,
            record: Vec::new(),
            lagging: Vec::new(),
            drained: VecDeque::new(),
        }
    }

    /// Lists a row for the next flush.
    pub(crate) fn list(&mut self, index: u32, is_reply: bool) {
        if is_reply {
            self.replies.push(index);
        } else {
            self.shared.push(index);
        }
    }

    /// Rows are listed for the next flush.
    pub(crate) fn has_listed(&self) -> bool {
        !self.shared.is_empty() || !self.replies.is_empty()
    }

    /// The rows that are listed.
    pub(crate) fn listed(&self) -> impl Iterator<Item = u32> {
        self.replies.iter().chain(&self.shared).copied()
    }

    fn take_listed(&mut self) -> Vec<u32> {
        let next = std::mem::take(&mut self.working);
        let mut rows = std::mem::replace(&mut self.replies, next);
        rows.append(&mut self.shared);
        rows
    }

    fn worked_off(&mut self, mut rows: Vec<u32>) {
        rows.clear();
        self.working = rows;
    }

    fn has_room_to_join(&self) -> bool {
        self.scratch_used + JOINED_BYTES_MAX <= self.scratch.len()
    }

    /// Copies the first frames of a row together, as many as fit; where they are, and their bytes.
    fn join(&mut self, row: &Row, frames: &FrameTable) -> (*const u8, usize) {
        let joined = &mut self.scratch[self.scratch_used..][..JOINED_BYTES_MAX];
        let mut len = 0;
        let mut left_out = row.first_sent as usize;
        for frame in row.entries() {
            let bytes = &frames.bytes(frame)[left_out..];
            let Some(room) = joined.get_mut(len..len + bytes.len()) else {
                break;
            };
            room.copy_from_slice(bytes);
            len += bytes.len();
            left_out = 0;
        }
        self.scratch_used += len;
        (joined.as_ptr(), len)
    }

    /// The bytes of one record: those of a row's entries behind `skipped` that follow what was sent.
    pub(crate) fn gather<'a>(
        &'a mut self,
        row: &Row,
        frames: &'a FrameTable,
        skipped: usize,
    ) -> &'a [u8] {
        let mut skipped = row.first_sent as usize + skipped;
        let mut entries = row.entries().peekable();
        self.record.clear();
        while let Some(frame) = entries.next() {
            let bytes = frames.bytes(frame);
            let Some(bytes) = bytes.get(skipped..).filter(|bytes| !bytes.is_empty()) else {
                skipped -= bytes.len();
                continue;
            };
            skipped = 0;
            let room = RECORD_BYTES_MAX - self.record.len();
            let bytes = &bytes[..bytes.len().min(room)];
            let is_alone = bytes.len() == room || entries.peek().is_none();
            if self.record.is_empty() && is_alone {
                return bytes;
            }
            self.record.extend_from_slice(bytes);
            if self.record.len() == RECORD_BYTES_MAX {
                break;
            }
        }
        &self.record
    }

    /// No send is in flight: nothing reads the joined frames any more.
    fn settled(&mut self) {
        self.scratch_used = 0;
    }

    /// Some outboxes waited for their peers lately.
    pub(crate) fn has_lagging(&self) -> bool {
        !self.lagging.is_empty()
    }

    pub(crate) fn lagging(&self) -> impl Iterator<Item = Slot> {
        self.lagging.iter().copied()
    }

    /// The next connection to be told that its answers have gone.
    pub(crate) fn take_drained(&mut self) -> Option<Slot> {
        self.drained.pop_front()
    }

    pub(crate) fn has_drained(&self) -> bool {
        !self.drained.is_empty()
    }
}

impl<A: Application> RingTurn<A> {
    /// Sends what the turn queued.
    // Per connection: one row, one 64 B submission, one 16 B completion; frames under 64 KiB that
    // wait together cost one copy and no further send. One `enter` per 2 048 connections.
    pub(crate) fn flush(&mut self) {
        if self.frost.is_still() {
            // Who is listed stays so.
            if self.wire.has_unsubmitted() {
                self.settle();
            }
            return;
        }
        let rows = self.outbound.take_listed();
        for &index in &rows {
            self.start_send(index);
        }
        if !rows.is_empty() || self.wire.has_unsubmitted() {
            self.settle();
        }
        self.outbound.worked_off(rows);
    }

    /// Offers a row's outbox to the kernel until it is empty or the kernel takes no more. Nothing
    /// of other rows is sent.
    pub(crate) fn press_row(&mut self, index: u32) {
        let mut is_first = true;
        loop {
            let row = self.rows.row(index);
            let is_sendable = matches!(row.state, State::Open | State::Flushing)
                && !row.is(Flag::WRITABLE)
                && !row.is(Flag::SHAKING)
                && !row.outbox_is_empty()
                && !self.frost.is_still();
            if !is_sendable {
                return;
            }
            self.counts.outbox_presses += u64::from(std::mem::take(&mut is_first));
            self.budget.spend(Work::SEND);
            self.start_send(index);
            self.settle();
        }
    }

    /// Queues `on_drained` for an application that awaits it.
    pub(crate) fn tell_if_drained(&mut self, index: u32) {
        let low = self.limits.outbox_bytes_max / 4;
        let row = self.rows.row_mut(index);
        if row.is(Flag::DRAIN_AWAITED) && row.own_bytes <= low {
            row.mark(Flag::DRAIN_AWAITED, false);
            let slot = self.rows.slot(index);
            self.outbound.drained.push_back(slot);
        }
    }

    fn start_send(&mut self, index: u32) {
        if !self.outbound.has_room_to_join() {
            self.settle();
        }
        let row = self.rows.row_mut(index);
        row.mark(Flag::DIRTY, false);
        let may_send = matches!(row.state, State::Open | State::Flushing);
        if !may_send || row.is(Flag::SEND) || row.is(Flag::WRITABLE) {
            return;
        }
        if row.is(Flag::TLS) {
            if !self.wire.sessions.has_memory_for(JOINED_BYTES_MAX) {
                self.settle();
            }
            self.start_sealed_send(index);
            return;
        }
        let (first, second) = row.first_two();
        let Some(first) = first else { return };
        let unsent = &self.frames.bytes(first)[row.first_sent as usize..];
        let second = second.map_or(usize::MAX, |frame| self.frames.bytes(frame).len());
        let (start, len) = if unsent.len().saturating_add(second) <= JOINED_BYTES_MAX {
            self.outbound.join(row, &self.frames)
        } else {
            (unsent.as_ptr(), unsent.len())
        };
        self.wire.send(index, row, start, len);
    }

    /// Waits out all sends in flight (they complete as they are submitted) and deals with them.
    fn settle(&mut self) {
        let mut sends = self.wire.settle();
        for completion in sends.drain(..) {
            self.sent(completion);
        }
        self.wire.reuse(sends);
        self.outbound.settled();
        self.wire.sessions.sends_settled();
    }

    fn sent(&mut self, completion: Completion) {
        let index = completion.token.index();
        let row = self.rows.row_mut(index);
        assert!(completion.token.is_of(row.generation));
        assert!(row.mark(Flag::SEND, false));
        match completion.result {
            taken @ 1.. if row.is(Flag::TLS) => self.sent_sealed(index, taken as u32),
            taken @ 1.. => self.sent_bytes(index, taken as u32),
            // The socket has no room: poll, and send on when it has.
            code if matches!(-code, libc::EAGAIN | libc::ENOBUFS | libc::EINTR) => {
                if row.is(Flag::TLS) {
                    self.sent_sealed(index, 0);
                } else {
                    self.await_room(index);
                }
            }
            // EPIPE, ECONNRESET, ETIMEDOUT and their like: the peer is gone.
            _ => self.end_now(index, Closed::ByError),
        }
    }

    fn sent_bytes(&mut self, index: u32, taken: u32) {
        let sending = self.rows.row(index).sending;
        assert!(taken <= sending);
        self.taken_from_outbox(index, taken);
        self.after_send(index, taken < sending);
    }

    /// So many bytes are off the outbox.
    pub(crate) fn taken_from_outbox(&mut self, index: u32, taken: u32) {
        let (row, spares) = self.rows.outbox_mut(index);
        assert!(taken <= row.outbox_bytes);
        row.outbox_bytes -= taken;
        self.counts.outbox_bytes -= u64::from(taken);
        let mut left = taken + row.first_sent;
        while left > 0 {
            let first = row.entries().next().expect("more was sent than was queued");
            let bytes = row_bytes(self.frames.bytes(first).len());
            if left < bytes {
                break;
            }
            left -= bytes;
            if row.pop(spares).is_some_and(|(_, is_own)| is_own) {
                row.own_bytes -= bytes;
            }
            self.frames.release(first);
        }
        row.first_sent = left;
    }

    /// What follows a send, of which the kernel left something or not.
    pub(crate) fn after_send(&mut self, index: u32, is_short: bool) {
        let row = self.rows.row(index);
        let (is_empty, state) = (row.outbox_is_empty(), row.state);
        self.tell_if_drained(index);
        if state == State::Flushing && !is_empty {
            self.flush_goes_on(index);
        }
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
        let slot = self.rows.slot(index);
        let now = self.clock.now.coarse();
        let row = self.rows.row_mut(index);
        if !self.wire.await_room(index, row) {
            return;
        }
        row.blocked_at = now;
        if !row.mark(Flag::LAGGING, true) {
            self.outbound.lagging.push(slot);
        }
    }

    /// A poll for room completed; also with an error, which the next send will tell.
    pub(crate) fn has_room(&mut self, completion: Completion) {
        let index = completion.token.index();
        let row = self.rows.row_mut(index);
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
        let mut lagging = std::mem::take(&mut self.outbound.lagging);
        lagging.retain(|slot| {
            let row = self.rows.row_mut(slot.index);
            if row.generation != slot.generation {
                return false;
            }
            let lags = !row.outbox_is_empty();
            row.mark(Flag::LAGGING, lags);
            lags
        });
        self.outbound.lagging = lagging;
    }
}
