//! How connections end.
//!
//! Owns: the way from `Open` to a free row: flush, linger, last completions, close.
//! May depend on: `turn` and what it holds. Not on the application.
//! Invariants: each connection's end is queued for `on_closed` exactly once; its fd is closed after
//! its last completion; no peer can hold a row for longer than the deadlines below.

use crate::{
    application::{Application, Closed},
    connections::{Flag, State, row_bytes},
    turn::RingTurn,
    work::Work,
};

/// For how long a closing connection may accept nothing of what is queued.
const FLUSH_MS: u64 = 10_000;
/// For how long it may take to accept all of it.
const FLUSH_ALL_MS: u64 = 120_000;
/// For how long input is discarded after our side was shut down. Closing earlier, with input
/// unread, would make the kernel send a reset, and that would destroy what the peer has not read.
const LINGER_MS: u64 = 2_000;

impl<A: Application> RingTurn<A> {
    /// Ends an open connection when its outbox is empty.
    pub(crate) fn end_after_flush(&mut self, index: u32) {
        let until = self.clock.now.plus(FLUSH_MS);
        self.rows.arm(index, until);
        let row = self.rows.row_mut(index);
        assert!(row.state == State::Open);
        row.state = State::Flushing;
        row.flushing_since = self.clock.now.coarse();
        if row.is(Flag::TLS) {
            if row.is(Flag::SHAKING) {
                self.forget_entries(index);
            }
            self.owe_end(index);
        }
        let row = self.rows.row(index);
        if row.outbox_is_empty() {
            self.outbox_flushed(index);
        } else {
            // A paused connection must be read again: its end and its reset are news.
            self.arm_recv_if_wanted(index);
        }
    }

    /// A closing connection took some of what is queued: it has time for more.
    pub(crate) fn flush_goes_on(&mut self, index: u32) {
        let now = self.clock.now;
        let row = self.rows.row(index);
        assert!(row.state == State::Flushing);
        let passed_ms = u64::from(now.coarse().wrapping_sub(row.flushing_since)) << 4;
        let left_ms = FLUSH_ALL_MS.saturating_sub(passed_ms);
        self.rows.arm(index, now.plus(FLUSH_MS.min(left_ms)));
    }

    /// The last queued byte is with the kernel: shut our side down.
    pub(crate) fn outbox_flushed(&mut self, index: u32) {
        let row = self.rows.row_mut(index);
        assert!(row.state == State::Flushing);
        assert!(row.outbox_is_empty());
        // SAFETY: a plain call on a descriptor that the row owns; that it may fail (the peer has
        // reset the connection) changes nothing for us.
        unsafe { libc::shutdown(row.fd, libc::SHUT_WR) };
        if row.is(Flag::PEER_ENDED) {
            self.end_now(index, Closed::ByPeer);
            return;
        }
        row.state = State::Lingering;
        let until = self.clock.now.plus(LINGER_MS);
        self.rows.arm(index, until);
        self.rows.end(index, Closed::ByUs);
        self.arm_recv_if_wanted(index);
    }

    /// The peer ended its side. True if the application must say when ours ends: the peer may
    /// still read, and what it asked for may be under way.
    pub(crate) fn peer_ended(&mut self, index: u32) -> bool {
        let row = self.rows.row_mut(index);
        let was_told = row.mark(Flag::PEER_ENDED, true);
        match row.state {
            State::Open => return !was_told,
            State::Lingering => self.end_now(index, Closed::ByPeer),
            State::Flushing | State::Ending => {}
            State::Free => unreachable!("a free row has no receive in flight"),
        }
        false
    }

    /// Ends a connection at once, whatever it was doing; harmless when it ends already.
    pub(crate) fn end_now(&mut self, index: u32, how: Closed) {
        self.rows.end(index, how);
        if self.rows.row(index).state == State::Ending {
            return;
        }
        self.rows.disarm(index);
        self.drop_outbox(index);
        let row = self.rows.row_mut(index);
        row.state = State::Ending;
        self.wire.cancel(index, row);
        if row.is(Flag::TLS) {
            self.wire.sessions.end(index);
        }
        self.free_if_quiet(index);
    }

    fn drop_outbox(&mut self, index: u32) {
        self.forget_entries(index);
        self.forget_unsent(index);
    }

    /// Drops what is queued and not sealed.
    pub(crate) fn forget_entries(&mut self, index: u32) {
        let (row, spares) = self.rows.outbox_mut(index);
        assert!(!row.is(Flag::SEND));
        let mut bytes = 0;
        while let Some((frame, _)) = row.pop(spares) {
            bytes += row_bytes(self.frames.bytes(frame).len());
            self.frames.release(frame);
        }
        bytes -= row.first_sent;
        assert!(bytes <= row.outbox_bytes);
        row.outbox_bytes -= bytes;
        self.counts.outbox_bytes -= u64::from(bytes);
        row.own_bytes = 0;
        row.first_sent = 0;
    }

    /// Drops the count of what is sealed; the bytes go with the row's TLS.
    pub(crate) fn forget_unsent(&mut self, index: u32) {
        let row = self.rows.row_mut(index);
        row.mark(Flag::UNSENT, false);
        self.counts.outbox_bytes -= u64::from(row.outbox_bytes);
        row.outbox_bytes = 0;
    }

    /// The application has heard that the connection ended.
    pub(crate) fn told(&mut self, index: u32) {
        let row = self.rows.row_mut(index);
        assert!(row.is(Flag::ENDED));
        assert!(!row.mark(Flag::TOLD, true));
        self.free_if_quiet(index);
    }

    /// Frees a row for which nothing more can arrive.
    pub(crate) fn free_if_quiet(&mut self, index: u32) {
        let row = self.rows.row(index);
        if row.state == State::Ending && !row.has_in_flight() && row.is(Flag::TOLD) {
            let fd = self.rows.remove(index);
            self.budget.spend(Work::CLOSE);
            // SAFETY: the row owned this descriptor; its last operation has completed.
            unsafe { libc::close(fd) };
        }
    }
}
