//! Connections on their way to another process, and from one.
//!
//! Owns: what of a row goes into a `Carried`, and how a row is made of one; `Inherited`, frames that another
//! process has told.
//! May depend on: `turn` and what it holds, `carried`.
//! Invariants: carrying changes nothing, so that it can be taken back; only a connection of a still
//! shard is carried, since its outbox is what the kernel has not taken; what cannot be gone on with
//! leaves no row behind; a frame that was told is there once, however many connections refer to it.

use crate::{
    application::{Application, FrameId, Millis, Slot},
    carried::{Carried, CarriedFrame, FramesAs, SharedFrame},
    connections::Flag,
    frames::{FrameTable, LOOKED_AT_ONCE},
    turn::{ANSWERS_BYTES_MAX, RingTurn},
    work::Work,
};
use std::{
    collections::BTreeMap,
    os::fd::{IntoRawFd, OwnedFd, RawFd},
    sync::Arc,
};

/// Frames that another process has told, until all connections that may refer to them are here.
#[derive(Default)]
pub(crate) struct Inherited(BTreeMap<u64, Heirloom>);

struct Heirloom {
    bytes: Arc<[u8]>,
    /// Made when a connection first refers to it. The table holds it beside the outboxes, so that its number stays
    /// its own.
    frame: Option<FrameId>,
}

impl Inherited {
    fn add(&mut self, frame: &SharedFrame) {
        self.0.entry(frame.number).or_insert_with(|| Heirloom {
            bytes: Arc::clone(&frame.bytes),
            frame: None,
        });
    }

    /// How many bytes a carried frame has to be sent yet; `None`: nobody knows them.
    fn bytes_left(&self, frame: &CarriedFrame, is_first: bool) -> Option<usize> {
        let Some(number) = frame.shared else {
            return (frame.sent == 0).then_some(frame.bytes.len());
        };
        let whole = self.0.get(&number)?.bytes.len();
        let left = whole.checked_sub(frame.sent as usize)?;
        // What is referred to is dropped like any that is shared, unless it has begun.
        let may_have_begun = is_first && !frame.is_own && left > 0;
        let is_alone = frame.bytes.is_empty();
        (is_alone && (frame.sent == 0 || may_have_begun)).then_some(left)
    }

    fn frame(&mut self, number: u64, frames: &mut FrameTable) -> Option<FrameId> {
        let it = self.0.get_mut(&number)?;
        let made = || {
            let frame = frames.add_shared(Arc::clone(&it.bytes));
            frames.retain(frame);
            frame
        };
        Some(*it.frame.get_or_insert_with(made))
    }
}

impl<A: Application> RingTurn<A> {
    /// See `Turn::carry_frames`.
    pub(crate) fn tell_frames(&mut self, from: u32, into: &mut Vec<SharedFrame>) -> Option<u32> {
        if !self.frost.is_still() {
            return None;
        }
        self.budget.spend(Work::ROW.times(LOOKED_AT_ONCE as usize));
        self.frames.tell_shared(from, into)
    }

    /// See `Turn::carry`.
    // One copy of what waits for this connection alone; of what it shares, a number for each frame.
    pub(crate) fn carry_row(&self, slot: Slot, frames: FramesAs) -> Option<(RawFd, Carried)> {
        let row = self.rows.open_row(slot)?;
        if !self.frost.is_still() {
            return None;
        }
        let tls = if row.is(Flag::TLS) {
            Some(self.wire.sessions.carry(slot.index)?)
        } else {
            None
        };
        let mut sent = row.first_sent;
        let unsent = row.marked_entries().map(|(frame, is_own)| {
            let sent = std::mem::take(&mut sent);
            let is_referred_to = frames == FramesAs::Numbers && !is_own;
            let told = is_referred_to.then(|| self.frames.told_as(frame)).flatten();
            if told.is_some() {
                return CarriedFrame {
                    shared: told,
                    sent,
                    ..CarriedFrame::default()
                };
            }
            CarriedFrame {
                bytes: self.frames.bytes(frame)[sent as usize..].to_vec(),
                // What has begun is not dropped any more, whatever it was.
                is_own: is_own || sent > 0,
                ..CarriedFrame::default()
            }
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
        let unsent = carried.unsent.iter().enumerate();
        let lengths = unsent.map(|(at, frame)| self.inherited.bytes_left(frame, at == 0));
        let bytes = lengths.sum::<Option<usize>>()?;
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
            self.queue_carried(slot, frame);
        }
        self.tell_if_drained(slot.index);
        self.arm_recv_if_wanted(slot.index);
        if let Some(hello) = hello {
            // Last: it may be too much, and end the connection.
            self.keep_handshake(slot, &hello);
        }
        Some(slot)
    }

    /// One of the frames whose `bytes_left` are known.
    fn queue_carried(&mut self, slot: Slot, carried: CarriedFrame) {
        let number = carried.shared;
        let known = number.and_then(|it| self.inherited.frame(it, &mut self.frames));
        let (frame, sent) = match known {
            Some(frame) => (frame, carried.sent),
            None if carried.bytes.is_empty() => return,
            None => {
                let bytes = carried.bytes.into_boxed_slice();
                (self.frames.add_boxed(bytes), 0)
            }
        };
        let bytes = self.frames.bytes(frame).len() - sent as usize;
        if bytes == 0 {
            return;
        }
        self.queue(slot, frame, bytes, carried.is_own);
        if sent > 0 {
            self.rows.row_mut(slot.index).first_sent = sent;
        }
    }

    /// See `Turn::adopt_frames`.
    pub(crate) fn inherit_frames(&mut self, frames: &[SharedFrame]) {
        frames.iter().for_each(|frame| self.inherited.add(frame));
    }

    /// See `Turn::forget_frames`.
    pub(crate) fn forget_inherited(&mut self) {
        let inherited = std::mem::take(&mut self.inherited.0);
        let made = inherited.into_values().filter_map(|it| it.frame);
        made.for_each(|frame| self.frames.release(frame));
    }
}
