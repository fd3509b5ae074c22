//! Data path. What a shard offers its application during a turn.
//!
//! Owns: all of a shard's state but the application; the answers to `Turn`'s calls.
//! May depend on: every module of this crate but `start` and `shard`.
//! Invariants: nothing here calls the application, so that it is never entered twice; nothing
//! blocks; sends leave with `flush`, ends are told with the shard's next step.

use crate::{
    application::{
        Application, BridgeDropped, FrameId, Millis, PublishRoom, Queued, RuntimeCounters, ShardId,
        Slot, TURN_BUCKETS_US, Turn,
    },
    bridge::ShardLink,
    carried::{Carried, FramesAs, SharedFrame},
    carrying::Inherited,
    connections::{Flag, row_bytes},
    frames::FrameTable,
    freezing::Frost,
    inbound::Inbound,
    mesh::{Envelope, MeshEnd},
    outbound::Outbound,
    rows::Rows,
    timers::TICK_MS,
    wire::{TlsPort, Wire},
    work::{Budget, Work},
};
use std::{
    os::fd::{OwnedFd, RawFd},
    sync::Arc,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

/// The part of a shard that its application sees. Field order matters at the end of life: the
/// ring goes first, then what the kernel might still have touched through it.
pub(crate) struct RingTurn<A: Application> {
    pub(crate) wire: Wire,
    pub(crate) rows: Rows,
    pub(crate) frames: FrameTable,
    pub(crate) inherited: Inherited,
    pub(crate) inbound: Inbound,
    pub(crate) outbound: Outbound,
    pub(crate) frost: Frost,
    pub(crate) mesh: MeshEnd<A::Message>,
    pub(crate) link: ShardLink<A>,
    pub(crate) shard: ShardId,
    pub(crate) limits: Limits,
    pub(crate) budget: Budget,
    pub(crate) clock: Clock,
    pub(crate) keeps_ticking: bool,
    pub(crate) tick_at: Millis,
    pub(crate) counts: RuntimeCounters,
    holding_since_ns: Option<u64>,
    /// Messages posted to other shards; one in `HOP_SAMPLED_EVERY` is timed.
    posted: u64,
}

/// What a shard may hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) outbox_bytes_max: u32,
    /// What an outbox may hold beyond its bound while the kernel goes on taking bytes.
    pub(crate) burst_bytes_max: u32,
    /// Connections of the node at most.
    pub(crate) connections_max: u32,
}

const HOP_SAMPLED_EVERY: u64 = 64;

/// The turn's idea of time: read once, the same for all of the turn.
pub(crate) struct Clock {
    pub(crate) node_started: Instant,
    pub(crate) shard_started_ns: u64,
    pub(crate) now: Millis,
    pub(crate) now_ns: u64,
    pub(crate) unix_ms: u64,
}

impl Clock {
    pub(crate) fn starting(node_started: Instant) -> Self {
        let mut clock = Self {
            node_started,
            shard_started_ns: 0,
            now: Millis(0),
            now_ns: 0,
            unix_ms: 0,
        };
        clock.read();
        clock.shard_started_ns = clock.now_ns;
        clock
    }

    /// Nanoseconds of the node's clock, read now.
    pub(crate) fn ns(&self) -> u64 {
        u64::try_from(self.node_started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    pub(crate) fn read(&mut self) {
        self.now_ns = self.ns();
        self.now = Millis(self.now_ns / 1_000_000);
        #[expect(clippy::disallowed_methods, reason = "the one reading of the turn")]
        let unix = SystemTime::now().duration_since(UNIX_EPOCH);
        self.unix_ms = unix.map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        });
    }
}

impl<A: Application> RingTurn<A> {
    /// A shard's part that waits for its first turn.
    pub(crate) fn new(
        wire: Wire,
        (inbound, frost): (Inbound, Frost),
        (mesh, link): (MeshEnd<A::Message>, ShardLink<A>),
        shard: ShardId,
        limits: Limits,
        budget: Budget,
        clock: Clock,
    ) -> Self {
        Self {
            wire,
            rows: Rows::starting_at(clock.now),
            frames: FrameTable::new(),
            inherited: Inherited::default(),
            inbound,
            outbound: Outbound::new(),
            frost,
            mesh,
            link,
            shard,
            limits,
            budget,
            keeps_ticking: false,
            tick_at: clock.now.plus(TICK_MS),
            clock,
            counts: RuntimeCounters::default(),
            holding_since_ns: None,
            posted: 0,
        }
    }

    pub(crate) fn mark_dirty(&mut self, index: u32, is_reply: bool) {
        if self.rows.row_mut(index).mark(Flag::DIRTY, true) {
            return;
        }
        self.budget.spend(Work::SEND);
        if self.rows.row(index).is(Flag::TLS) {
            self.budget.spend(Work::RECORD);
        }
        self.outbound.list(index, is_reply);
    }

    /// Bytes join a send, and are sealed for it where there is TLS: paid for here, since what a flush
    /// costs no stage can take into account any more.
    fn spend_on_joined(&mut self, index: u32, bytes: usize) {
        let work = Work::JOINED_FRAME.and(Work::bytes(bytes));
        let is_sealed = self.rows.row(index).is(Flag::TLS);
        let sealing = Work::bytes_sealed(if is_sealed { bytes } else { 0 });
        self.budget.spend(work.and(sealing));
    }

    pub(crate) fn queue(&mut self, slot: Slot, frame: FrameId, bytes: usize, is_own: bool) {
        self.frames.retain(frame);
        let (row, spares) = self.rows.outbox_mut(slot.index);
        row.push(frame, is_own, spares);
        row.outbox_bytes += row_bytes(bytes);
        if is_own {
            row.own_bytes += row_bytes(bytes);
        }
        self.counts.outbox_bytes += bytes as u64;
        self.spend_on_joined(slot.index, bytes);
        self.mark_dirty(slot.index, is_own);
    }

    /// Whether a shared frame may be queued: within the bound; else, once what waits was offered to
    /// the kernel, within the bound of a burst for as long as the kernel goes on taking bytes.
    fn has_room_for(&mut self, index: u32, bytes: usize) -> bool {
        let wanted = |row: &crate::connections::Row| row.outbox_bytes as usize + bytes;
        if wanted(self.rows.row(index)) <= self.limits.outbox_bytes_max as usize {
            return true;
        }
        self.press_row(index);
        let row = self.rows.row(index);
        if row.state != crate::connections::State::Open {
            return false;
        }
        let all = self.counts.outbox_bytes + bytes as u64;
        let is_in_bound =
            wanted(row) <= self.limits.outbox_bytes_max as usize || row.outbox_is_empty();
        let blocked = self.clock.now.coarse().wrapping_sub(row.blocked_at);
        let is_in_burst = wanted(row) <= self.limits.burst_bytes_max as usize
            && all <= u64::from(self.limits.burst_bytes_max) * BURSTS_MAX
            && blocked <= Millis(PATIENCE_MS).coarse();
        is_in_bound || is_in_burst
    }

    /// Tells this turn from others, wrapping.
    #[expect(clippy::cast_possible_truncation, reason = "it wraps")]
    pub(crate) fn number(&self) -> u32 {
        self.counts.turns as u32
    }

    /// Notes what a receive has cost its connection's row.
    pub(crate) fn count_receive(&mut self, index: u32, bytes: usize, spent_before: u64) {
        let spent = self.budget.spent() - spent_before;
        let spent = Work(u32::try_from(spent).unwrap_or(u32::MAX));
        let (turn, now) = (self.number(), self.clock.now);
        self.rows
            .row_mut(index)
            .note_receive(turn, now, spent, bytes);
    }

    /// A connection whose receives cost much lately.
    pub(crate) fn is_busy(&self, index: u32) -> bool {
        self.rows.row(index).is_busy(self.clock.now)
    }

    /// Completions, ends or drained outboxes that are known wait for the next turn.
    pub(crate) fn has_left_over(&self) -> bool {
        self.wire.arrived() > 0
            || self.inbound.has_newcomers()
            || self.rows.has_ended()
            || self.outbound.has_drained()
    }

    /// Counts a turn that began at the clock's time and ends now.
    pub(crate) fn count_turn(&mut self) {
        let length_ns = self.clock.ns() - self.clock.now_ns;
        let length_us = length_ns / 1_000;
        let bucket = TURN_BUCKETS_US.partition_point(|&bound| bound < length_us);
        self.counts.turns += 1;
        self.counts.turn_stalls += u64::from(length_us > STALL_US);
        self.counts.busy_ns += length_ns;
        self.counts.turn_us_buckets[bucket] += 1;
        self.counts.turn_us_sum += length_us;
    }

    /// Counts a sampled hop that ends now.
    pub(crate) fn count_hop(&mut self, sent_ns: u64) {
        let hop_us = self.clock.ns().saturating_sub(sent_ns) / 1_000;
        let bucket = TURN_BUCKETS_US.partition_point(|&bound| bound < hop_us);
        self.counts.mesh_hop_us_buckets[bucket] += 1;
        self.counts.mesh_hop_us_sum += hop_us;
    }

    /// Notes since when reading is held, and adds the time up when it is taken up again.
    pub(crate) fn count_holding(&mut self) {
        match (self.mesh.holds_reading(), self.holding_since_ns) {
            (true, None) => self.holding_since_ns = Some(self.clock.now_ns),
            (false, Some(since)) => {
                let span_ms = (self.clock.ns() - since).div_ceil(1_000_000);
                self.counts.mesh_backpressure_ms += span_ms;
                self.holding_since_ns = None;
            }
            (true, Some(_)) | (false, None) => {}
        }
    }
}

impl<A: Application> Turn for RingTurn<A> {
    type Message = A::Message;
    type ToBridge = A::ToBridge;

    fn shard(&self) -> ShardId {
        self.shard
    }

    fn shards(&self) -> u16 {
        self.mesh.shards()
    }

    fn now(&self) -> Millis {
        self.clock.now
    }

    fn unix_ms(&self) -> u64 {
        self.clock.unix_ms
    }

    fn clock_us(&self) -> u64 {
        self.clock.ns() / 1_000
    }

    fn spend(&mut self, work: Work) {
        self.budget.spend(work);
    }

    fn work_left(&self) -> Work {
        self.budget.stage_left()
    }

    fn add_frame(&mut self, bytes: Arc<[u8]>) -> FrameId {
        self.frames.add_shared(bytes)
    }

    // Per subscriber: one row (a cache line), one frame's length and count, four bytes on the
    // dirty list; no allocation up to two entries, no system call.
    fn send_frame(&mut self, slot: Slot, frame: FrameId) -> Queued {
        if self
            .rows
            .open_row(slot)
            .is_none_or(|row| row.is(Flag::SEALED))
        {
            self.budget.spend(Work::ROW);
            return Queued::Gone;
        }
        let bytes = self.frames.bytes(frame).len();
        if bytes == 0 {
            return Queued::Accepted;
        }
        if !self.has_room_for(slot.index, bytes) {
            self.budget.spend(Work::ROW);
            let is_open = self.rows.open_row(slot).is_some();
            return if is_open { Queued::Full } else { Queued::Gone };
        }
        self.queue(slot, frame, bytes, false);
        Queued::Accepted
    }

    // One copy into the turn's arena; bytes that follow bytes of the same connection extend them.
    fn send(&mut self, slot: Slot, bytes: &[u8]) {
        let Some(row) = self.rows.open_row(slot) else {
            return;
        };
        if bytes.is_empty() {
            return;
        }
        if row.outbox_bytes as usize + bytes.len() > ANSWERS_BYTES_MAX {
            self.end_now(slot.index, crate::application::Closed::ByUs);
            return;
        }
        if row
            .last_own()
            .is_some_and(|last| self.frames.extend_own(last, bytes))
        {
            let row = self.rows.row_mut(slot.index);
            row.outbox_bytes += row_bytes(bytes.len());
            row.own_bytes += row_bytes(bytes.len());
            self.counts.outbox_bytes += bytes.len() as u64;
            self.spend_on_joined(slot.index, bytes.len());
            return;
        }
        let frame = self.frames.add_own(bytes);
        self.queue(slot, frame, bytes.len(), true);
    }

    fn is_congested(&mut self, slot: Slot) -> bool {
        let mark = self.limits.outbox_bytes_max as usize / 2;
        let has_many = |it: &Self| {
            let row = it.rows.open_row(slot);
            row.is_some_and(|row| row.own_bytes as usize > mark)
        };
        if !has_many(self) {
            return false;
        }
        self.press_row(slot.index);
        has_many(self)
    }

    fn await_drained(&mut self, slot: Slot) {
        if self.rows.open_row(slot).is_none() {
            return;
        }
        self.rows
            .row_mut(slot.index)
            .mark(Flag::DRAIN_AWAITED, true);
        self.tell_if_drained(slot.index);
    }

    fn drop_oldest(&mut self, slot: Slot, bytes: usize) -> (u32, usize) {
        if self.rows.open_row(slot).is_none() {
            return (0, 0);
        }
        let (row, spares) = self.rows.outbox_mut(slot.index);
        let wanted = row.outbox_bytes as usize + bytes;
        let too_many = wanted.saturating_sub(self.limits.outbox_bytes_max as usize);
        let (mut dropped, mut dropped_bytes) = (0, 0);
        if too_many > 0 {
            let frames = &mut self.frames;
            let looked_at = row.remove_shared(spares, |frame| {
                dropped += 1;
                dropped_bytes += frames.bytes(frame).len();
                frames.release(frame);
                dropped_bytes < too_many
            });
            let work = Work::bytes(8 * looked_at).and(Work::ROW.times(dropped as usize));
            self.budget.spend(work);
        }
        row.outbox_bytes -= row_bytes(dropped_bytes);
        self.counts.outbox_bytes -= dropped_bytes as u64;
        self.tell_if_drained(slot.index);
        (dropped, dropped_bytes)
    }

    fn outbox_bytes(&self, slot: Slot) -> usize {
        self.rows
            .open_row(slot)
            .map_or(0, |row| row.outbox_bytes as usize)
    }

    fn seal(&mut self, slot: Slot) {
        if self.rows.open_row(slot).is_some() {
            self.rows.row_mut(slot.index).mark(Flag::SEALED, true);
        }
    }

    fn close_after_flush(&mut self, slot: Slot) {
        if self.rows.open_row(slot).is_some() {
            self.end_after_flush(slot.index);
        }
    }

    fn close_now(&mut self, slot: Slot) {
        if self.rows.open_row(slot).is_some() {
            self.end_now(slot.index, crate::application::Closed::ByUs);
        }
    }

    fn pause_reading(&mut self, slot: Slot) {
        if self.rows.open_row(slot).is_some() {
            self.pause_recv(slot.index);
        }
    }

    fn resume_reading(&mut self, slot: Slot) {
        if self.rows.open_row(slot).is_some() {
            self.resume_recv(slot.index);
        }
    }

    fn arm_timer(&mut self, slot: Slot, at: Millis) {
        if self.rows.open_row(slot).is_some() {
            self.rows.arm(slot.index, at);
        }
    }

    fn cancel_timer(&mut self, slot: Slot) {
        if self.rows.open_row(slot).is_some() {
            self.rows.disarm(slot.index);
        }
    }

    fn begin_tls(&mut self, slot: Slot, bytes: &[u8]) -> bool {
        self.begin_sealing(slot, bytes)
    }

    fn offer_tls(&mut self, port: TlsPort) {
        self.wire.sessions.offer(port);
    }

    fn keep_ticking(&mut self, on: bool) {
        self.keeps_ticking = on;
    }

    fn post(&mut self, to: ShardId, message: Self::Message) {
        self.posted += 1;
        if self.posted.is_multiple_of(HOP_SAMPLED_EVERY) {
            self.mesh.post(to, Envelope::Sent(self.clock.ns()));
        }
        self.mesh.post(to, Envelope::Message(message));
    }

    fn to_bridge(&mut self, message: Self::ToBridge) -> Result<(), BridgeDropped<Self::ToBridge>> {
        self.link.post(message)
    }

    fn publish_room(&self) -> PublishRoom {
        self.link.lanes.publish_room()
    }

    fn is_cut_off(&self) -> bool {
        self.link.lanes.is_cut_off()
    }

    fn is_behind(&self) -> bool {
        self.link.lanes.is_behind()
    }

    fn is_frozen(&self) -> bool {
        self.frost.is_frozen()
    }

    fn carry_frames(&mut self, from: u32, into: &mut Vec<SharedFrame>) -> Option<u32> {
        self.tell_frames(from, into)
    }

    fn carry(&mut self, slot: Slot, frames: FramesAs) -> Option<(RawFd, Carried)> {
        self.carry_row(slot, frames)
    }

    fn adopt_frames(&mut self, frames: &[SharedFrame]) {
        self.inherit_frames(frames);
    }

    fn forget_frames(&mut self) {
        self.forget_inherited();
    }

    fn adopt(&mut self, connection: OwnedFd, carried: Carried) -> Option<Slot> {
        self.adopt_carried(connection, carried)
    }

    fn runtime_counters(&self) -> RuntimeCounters {
        let mut counts = self.counts.clone();
        let lagging = self.outbound.lagging().map(|slot| self.outbox_bytes(slot));
        let listed = self.outbound.listed();
        let listed = listed.map(|index| self.rows.row(index).outbox_bytes as usize);
        counts.outbox_bytes_highest = lagging.chain(listed).max().unwrap_or(0) as u64;
        counts.connections = u64::from(self.rows.open());
        counts.since_start_ns = self.clock.ns() - self.clock.shard_started_ns;
        counts.ring_overflows = self.wire.overflows();
        counts.submit_refusals = self.wire.refusals();
        counts.recv_buffers_free = u64::from(self.wire.free_buffers());
        counts.tls = self.wire.sessions.counts.clone();
        counts.mesh_depths = self.mesh.depths();
        counts.mesh_overflow_depths = self.mesh.spilled_depths();
        (counts.to_bridge_depth, counts.from_bridge_depth) = self.link.depths();
        counts.to_bridge_bytes = self.link.lanes.bytes() as u64;
        counts.to_bridge_full = self.link.lanes.lost;
        counts
    }
}

/// For how long a kernel that takes nothing is waited for before its peer counts as slow.
const PATIENCE_MS: u64 = 1_000;
/// Outboxes of a shard hold so many bursts together; beyond that each has its bound only.
const BURSTS_MAX: u64 = 16;
/// An outbox that would pass this ends its connection: no application answers so much at once.
pub(crate) const ANSWERS_BYTES_MAX: usize = 1 << 30;
/// A turn longer than this is a stall, microseconds.
const STALL_US: u64 = 100_000;
