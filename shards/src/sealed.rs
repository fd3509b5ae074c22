//! Data path. Rows with TLS: what they receive is opened, what they send is sealed.
//!
//! Owns: the way of their bytes between a receive and the application, and between an outbox and a
//! send; handshakes, as many as a turn pays for.
//! May depend on: `turn` and what it holds, `shard`.
//! Invariants: bytes of a handshake wait until everybody else's receives are dealt with, but for its end where more
//! comes behind it than a handshake may hold; what was
//! sealed is off the outbox's entries, whatever the kernel took of it, and is sent before anything
//! that is sealed later.

use crate::{
    application::{Application, Closed, Slot},
    connections::{Flag, State},
    outbound::JOINED_BYTES_MAX,
    shard::Shard,
    turn::RingTurn,
    wire::{HOLDERS_LOOKED_AT, Opened, Progress, RECORD_BYTES_MAX},
    work::Work,
};

impl<A: Application> RingTurn<A> {
    /// A row speaks TLS from here on; `bytes` of it have come already. False if there is no TLS on
    /// this shard.
    pub(crate) fn begin_sealing(&mut self, slot: Slot, bytes: &[u8]) -> bool {
        let is_plain = self
            .rows
            .open_row(slot)
            .is_some_and(|row| !row.is(Flag::TLS));
        if !is_plain || !self.wire.sessions.begin(slot.index) {
            return false;
        }
        let row = self.rows.row_mut(slot.index);
        row.mark(Flag::TLS, true);
        row.mark(Flag::SHAKING, true);
        self.keep_handshake(slot, bytes);
        true
    }

    pub(crate) fn keep_handshake(&mut self, slot: Slot, bytes: &[u8]) {
        self.make_room_for_input(slot.index, bytes.len());
        if !self.wire.sessions.keep_handshake(slot, bytes) {
            self.end_now(slot.index, Closed::ByUs);
        }
    }

    /// Where too much waits to be opened, somebody who holds much of it goes.
    fn make_room_for_input(&mut self, index: u32, bytes: usize) {
        if let Some(other) = self.wire.sessions.crowded_by(index, bytes) {
            self.budget.spend(Work::ROW.times(HOLDERS_LOOKED_AT));
            self.end_now(other, Closed::ByUs);
        }
    }

    /// Sealed bytes have been added or sent: the outbox counts them as its own.
    pub(crate) fn recount_sealed(&mut self, index: u32) {
        let (before, now) = self.wire.sessions.recount(index);
        let can_say_end = self.wire.sessions.is_open(index);
        let row = self.rows.row_mut(index);
        let has_unsent = now > 0 || (can_say_end && row.state == State::Flushing);
        row.outbox_bytes = (row.outbox_bytes + now).saturating_sub(before);
        let all = self.counts.outbox_bytes + u64::from(now);
        self.counts.outbox_bytes = all.saturating_sub(u64::from(before));
        row.mark(Flag::UNSENT, has_unsent);
        if has_unsent {
            self.mark_dirty(index, true);
        }
    }

    /// Our end is to be said when all else is sent.
    pub(crate) fn owe_end(&mut self, index: u32) {
        self.rows.row_mut(index).mark(Flag::UNSENT, true);
        self.mark_dirty(index, true);
    }

    /// Seals what a row has to send, as much as one send takes, and sends it.
    // Per record one allocation and two copies beside the cipher's work; no system call of its own.
    pub(crate) fn start_sealed_send(&mut self, index: u32) {
        let is_flushing = self.rows.row(index).state == State::Flushing;
        let sending = self.wire.sessions.begin_send(index, JOINED_BYTES_MAX);
        let mut sealed = 0;
        while self.wire.sessions.has_room(index, &sending) {
            let row = self.rows.row(index);
            let plain = self.outbound.gather(row, &self.frames, sealed);
            if plain.is_empty() {
                if is_flushing {
                    self.wire.sessions.say_end(index);
                }
                break;
            }
            sealed += plain.len();
            if !self.wire.sessions.seal(index, plain) {
                self.end_now(index, Closed::ByUs);
                return;
            }
        }
        let (start, len) = self.wire.sessions.sent_bytes(index, &sending);
        if len > 0 {
            self.wire.send(index, self.rows.row_mut(index), start, len);
        } else if is_flushing {
            // There is no TLS to say anything in.
            self.forget_unsent(index);
            self.outbox_flushed(index);
        } else {
            self.rows.row_mut(index).mark(Flag::UNSENT, false);
        }
    }

    /// The kernel took so many of the sealed bytes.
    pub(crate) fn sent_sealed(&mut self, index: u32, taken: u32) {
        let row = self.rows.row(index);
        let len = row.sending;
        assert!(taken <= len);
        let plain = self.wire.sessions.sent(index, len as usize, taken as usize);
        self.taken_from_outbox(index, plain);
        self.recount_sealed(index);
        self.after_send(index, taken < len);
    }

    /// A handshake goes on. True when it is done.
    fn shake(&mut self, index: u32) -> bool {
        let (progress, work) = self.wire.sessions.step(index);
        self.budget.spend(work);
        self.recount_sealed(index);
        match progress {
            Progress::Waits => false,
            Progress::Done { .. } => {
                let row = self.rows.row_mut(index);
                row.mark(Flag::SHAKING, false);
                if !row.outbox_is_empty() {
                    self.mark_dirty(index, true);
                }
                true
            }
            Progress::Failed(_) => {
                self.rows.row_mut(index).mark(Flag::SHAKING, false);
                self.forget_entries(index);
                self.end_after_flush(index);
                false
            }
        }
    }
}

impl<A: Application> Shard<A> {
    /// Bytes of an open row with TLS have come.
    pub(crate) fn receive_sealed(&mut self, slot: Slot, bytes: &mut [u8]) {
        let bytes = match self.turn.rows.row(slot.index).is(Flag::SHAKING) {
            true => self.receive_handshake(slot, bytes),
            false => bytes,
        };
        if bytes.is_empty() {
            return;
        }
        let mut waiting = self.turn.wire.sessions.take_unopened(slot.index);
        if waiting.is_empty() {
            let used = self.open_all(slot, bytes);
            waiting = bytes[used..].to_vec();
        } else {
            waiting.extend_from_slice(bytes);
            let used = self.open_all(slot, &mut waiting);
            waiting.drain(..used);
        }
        self.keep_rest(slot, waiting);
    }

    /// Keeps bytes of a handshake. Gives back those that came behind its end, where it was taken there.
    fn receive_handshake<'a>(&mut self, slot: Slot, bytes: &'a mut [u8]) -> &'a mut [u8] {
        let mut kept = 0;
        while kept < bytes.len() {
            let row = self.turn.rows.open_row(slot);
            match row.map(|row| row.is(Flag::SHAKING)) {
                Some(true) => {}
                Some(false) => return &mut bytes[kept..],
                None => break,
            }
            let part = &bytes[kept..bytes.len().min(kept + RECORD_BYTES_MAX)];
            if self.turn.wire.sessions.must_step(slot.index, part.len()) {
                self.go_on_shaking(slot);
            } else {
                self.turn.keep_handshake(slot, part);
                kept += part.len();
            }
        }
        &mut []
    }

    fn keep_rest(&mut self, slot: Slot, rest: Vec<u8>) {
        if self.turn.rows.open_row(slot).is_none() {
            return;
        }
        self.turn.make_room_for_input(slot.index, rest.len());
        if !self.turn.wire.sessions.keep(slot.index, rest) {
            self.turn.end_now(slot.index, Closed::ByUs);
        }
    }

    /// Opens all whole records; their length.
    fn open_all(&mut self, slot: Slot, bytes: &mut [u8]) -> usize {
        let mut used = 0;
        // It may end with what it is given.
        while self.turn.rows.open_row(slot).is_some() {
            match self.turn.wire.sessions.open(slot.index, &mut bytes[used..]) {
                Ok(Some((opened, len))) => {
                    let work = Work::RECORD.and(Work::bytes_sealed(len));
                    self.turn.budget.spend(work);
                    self.take_opened(slot, opened, &mut bytes[used..used + len]);
                    used += len;
                }
                Ok(None) => return used,
                Err(_) => {
                    self.turn.forget_entries(slot.index);
                    self.turn.recount_sealed(slot.index);
                    self.turn.end_after_flush(slot.index);
                }
            }
        }
        bytes.len()
    }

    fn take_opened(&mut self, slot: Slot, opened: Opened, record: &mut [u8]) {
        match opened {
            Opened::Plain(range) => {
                self.application
                    .on_received(&mut self.turn, slot, &mut record[range]);
            }
            Opened::Nothing => {}
            Opened::KeyUpdate { .. } => {
                self.turn.budget.spend(Work::HANDSHAKE_STEP);
                self.turn.recount_sealed(slot.index);
            }
            Opened::PeerEnded => {
                if self.turn.peer_ended(slot.index) {
                    self.application.on_peer_ended(&mut self.turn, slot);
                }
            }
            Opened::Alerted => self.turn.end_now(slot.index, Closed::ByPeer),
        }
    }

    /// Takes handshakes on, as many as the stage pays for: a storm of them stalls nobody.
    pub(crate) fn take_handshakes(&mut self) -> bool {
        let mut has_moved = false;
        while self.has_work_left()
            && let Some(slot) = self.turn.wire.sessions.take_ready()
        {
            has_moved = true;
            self.turn.frost.told += 1;
            if self.turn.rows.open_row(slot).is_none() {
                continue;
            }
            // Some have been taken on already, since more came.
            if self.turn.wire.sessions.is_ready(slot.index) {
                self.go_on_shaking(slot);
            }
            // Its end was there before its turn came.
            let row = self.turn.rows.open_row(slot);
            if row.is_some_and(|row| row.is(Flag::PEER_ENDED)) {
                self.peer_ended_sealed(slot);
            }
        }
        has_moved
    }

    /// A handshake goes on, and what has come behind its end is opened.
    fn go_on_shaking(&mut self, slot: Slot) {
        if self.turn.shake(slot.index) {
            let mut waiting = self.turn.wire.sessions.take_unopened(slot.index);
            let used = self.open_all(slot, &mut waiting);
            waiting.drain(..used);
            self.keep_rest(slot, waiting);
        }
    }

    /// The peer ended its side without a word of TLS.
    pub(crate) fn peer_ended_sealed(&mut self, slot: Slot) {
        let row = self.turn.rows.row(slot.index);
        if !row.is(Flag::SHAKING) {
            self.application.on_peer_ended(&mut self.turn, slot);
        } else if !self.turn.wire.sessions.is_ready(slot.index) {
            // No more comes that could take the handshake on.
            self.turn.end_now(slot.index, Closed::ByPeer);
        }
    }
}

const _: () = assert!(RECORD_BYTES_MAX * 2 < JOINED_BYTES_MAX);
