//! A shard's turn without a ring: slots, outboxes and timers in plain memory.
//!
//! It keeps every promise of `shards::application::Turn` and uses all the liberty that it leaves: a
//! slot is given away again as soon as its end was told, and a frame's number is void after its turn.

use std::{
    collections::{BTreeMap, VecDeque},
    os::fd::{AsRawFd, OwnedFd, RawFd},
    sync::Arc,
};

use shards::{
    Carried, CarriedFrame, FramesAs, SharedFrame,
    application::{
        BridgeDropped, Closed, FrameId, Millis, PublishRoom, Queued, RuntimeCounters, ShardId,
        Slot, Turn,
    },
    work::{Budget, Work},
};
use sockudo::{bridge::message::ToBridge, server::message::Message};

/// Resolution of timers and of `tick`.
pub(crate) const TICK_MS: u64 = 100;
/// Wall clock at the virtual time 0.
pub(crate) const UNIX_MS: u64 = 1_700_000_000_000;

/// What a shard's runtime bounds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) outbox_bytes_max: usize,
    /// What an outbox may hold while its peer goes on taking bytes.
    pub(crate) burst_bytes_max: usize,
    pub(crate) turn_work: Work,
}

impl Limits {
    /// Those of a server as it comes.
    pub(crate) const USUAL: Self = Self {
        outbox_bytes_max: 1 << 20,
        burst_bytes_max: 1 << 23,
        turn_work: Work(1_250_000),
    };
}

/// A peer that takes nothing for so long is slow, milliseconds.
const PATIENCE_MS: u64 = 1_000;
/// The largest answer to one request: no simulated roster or list comes near it.
const ANSWER_BYTES_MAX: usize = 64 * 1_024;

pub(crate) struct SimulatedTurn {
    shard: ShardId,
    shards: u16,
    pub(crate) budget: Budget,
    pub(crate) drained: VecDeque<Slot>,
    pub(crate) now: Millis,
    /// Work of the node before this turn, nanoseconds: while it works the measuring clock goes on.
    pub(crate) worked_ns: u64,
    rows: Vec<Row>,
    free: Vec<u32>,
    frames: Vec<Arc<[u8]>>,
    frames_before: u32,
    limits: Limits,
    pub(crate) posted: Vec<(ShardId, Message)>,
    pub(crate) told_bridge: Vec<ToBridge>,
    pub(crate) ended: VecDeque<(Slot, Closed)>,
    /// Rows that may have something to send.
    dirty: Vec<u32>,
    /// The bridge has room for what is published.
    pub(crate) publish_room: PublishRoom,
    /// What is for other nodes reaches none.
    pub(crate) is_cut_off: bool,
    /// Other nodes may have told what is not heard here yet.
    pub(crate) is_behind: bool,
    pub(crate) keeps_ticking: bool,
    pub(crate) tick_at: Millis,
    /// Frames accepted this turn, and connections that they were for.
    pub(crate) frames_sent: usize,
    pub(crate) sends: usize,
    number: u64,
    /// Nothing is read, and no timer falls due.
    pub(crate) is_frozen: bool,
    /// Nothing is sent either.
    pub(crate) is_still: bool,
    /// Descriptors that stand for the links of another process.
    pub(crate) arriving: BTreeMap<RawFd, usize>,
    /// Links that were taken over, and their slots.
    pub(crate) adopted: Vec<(usize, Slot)>,
    /// Numbers of frames that were told to another process, by where their bytes are.
    numbers: BTreeMap<usize, u64>,
    /// Frames that another process has told.
    inherited: BTreeMap<u64, Arc<[u8]>>,
    /// The lane to the bridge has no room for the next part of an export.
    gives_back: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Free,
    Open,
    Flushing,
    Ended,
}

struct Row {
    generation: u32,
    state: State,
    link: usize,
    outbox: VecDeque<Entry>,
    outbox_bytes: usize,
    /// What the peer's socket still takes in this turn, and what it took.
    room: usize,
    taken: Vec<u8>,
    /// Since when the socket takes nothing, while something waits.
    blocked_at: Option<Millis>,
    awaits_drained: bool,
    peer_ended: bool,
    paused: bool,
    told: bool,
    was_full: bool,
    /// Shared frames are refused.
    sealed: bool,
    /// The tick in which the timer falls due.
    due_tick: Option<u64>,
    /// The turn that last sent a frame.
    sent_in: u64,
}

impl Row {
    /// Bytes of answers that wait.
    fn own_bytes(&self) -> usize {
        let own = self.outbox.iter().filter(|entry| entry.is_own);
        own.map(|entry| entry.bytes.len()).sum()
    }
}

struct Entry {
    bytes: Arc<[u8]>,
    sent: usize,
    is_own: bool,
}

impl SimulatedTurn {
    pub(crate) fn new(shard: ShardId, shards: u16, limits: Limits) -> Self {
        Self {
            shard,
            shards,
            now: Millis(0),
            worked_ns: 0,
            rows: Vec::new(),
            free: Vec::new(),
            frames: Vec::new(),
            frames_before: 0,
            limits,
            budget: Budget::new(limits.turn_work),
            drained: VecDeque::new(),
            posted: Vec::new(),
            told_bridge: Vec::new(),
            ended: VecDeque::new(),
            dirty: Vec::new(),
            publish_room: PublishRoom::Free,
            is_cut_off: false,
            is_behind: false,
            keeps_ticking: false,
            tick_at: Millis(TICK_MS),
            frames_sent: 0,
            sends: 0,
            number: 1,
            is_frozen: false,
            is_still: false,
            arriving: BTreeMap::new(),
            adopted: Vec::new(),
            numbers: BTreeMap::new(),
            inherited: BTreeMap::new(),
            gives_back: false,
        }
    }

    /// Takes a link in, on the slot that became free last.
    pub(crate) fn adopt(&mut self, link: usize) -> Slot {
        let index = self.free.pop().unwrap_or_else(|| {
            self.rows.push(Row {
                generation: 0,
                state: State::Free,
                link: 0,
                outbox: VecDeque::new(),
                outbox_bytes: 0,
                room: 0,
                taken: Vec::new(),
                blocked_at: None,
                awaits_drained: false,
                peer_ended: false,
                paused: false,
                told: false,
                was_full: false,
                sealed: false,
                due_tick: None,
                sent_in: 0,
            });
            u32::try_from(self.rows.len() - 1).expect("few rows")
        });
        let row = &mut self.rows[index as usize];
        assert_eq!(row.state, State::Free);
        row.generation = row.generation.wrapping_add(1);
        row.state = State::Open;
        row.sealed = false;
        row.link = link;
        (row.paused, row.told) = (false, false);
        (row.was_full, row.peer_ended, row.awaits_drained) = (false, false, false);
        (row.room, row.blocked_at) = (0, None);
        assert!(row.taken.is_empty(), "what was taken was handed over");
        Slot {
            index,
            generation: row.generation,
        }
    }

    fn row(&mut self, slot: Slot) -> Option<&mut Row> {
        let row = self.rows.get_mut(slot.index as usize)?;
        (row.generation == slot.generation && row.state != State::Free).then_some(row)
    }

    fn open(&mut self, slot: Slot) -> Option<&mut Row> {
        self.row(slot).filter(|row| row.state == State::Open)
    }

    pub(crate) fn is_open(&mut self, slot: Slot) -> bool {
        self.open(slot).is_some()
    }

    pub(crate) fn is_reading(&mut self, slot: Slot) -> bool {
        self.open(slot).is_some_and(|row| !row.paused)
    }

    /// The connection is there, though it may be closing.
    pub(crate) fn is_there(&mut self, slot: Slot) -> bool {
        self.row(slot).is_some_and(|row| row.state != State::Ended)
    }

    /// Some frame met a full outbox.
    pub(crate) fn was_full(&self, slot: Slot) -> bool {
        let row = &self.rows[slot.index as usize];
        row.generation == slot.generation && row.was_full
    }

    /// The peer ended its side, or reset the connection. True if the application must say when
    /// ours ends.
    pub(crate) fn peer_ends(&mut self, slot: Slot, how: Closed) -> bool {
        let Some(row) = self.row(slot) else {
            return false;
        };
        row.peer_ended = true;
        match (row.state, how) {
            (State::Open, Closed::ByPeer) => return true,
            (State::Open | State::Flushing, Closed::ByError) => self.end_now(slot, how),
            (State::Open | State::Flushing | State::Ended | State::Free, _) => {}
        }
        false
    }

    /// What the peer's socket takes in this turn.
    pub(crate) fn has_room(&mut self, slot: Slot, room: usize) {
        let Some(row) = self.row(slot) else { return };
        row.room = room;
        if room > 0 {
            row.blocked_at = None;
        }
    }

    /// Offers a row's outbox to its peer's socket, as far as that takes it.
    fn press(&mut self, index: u32) {
        let (now, low) = (self.now, self.limits.outbox_bytes_max / 4);
        let row = &mut self.rows[index as usize];
        if !matches!(row.state, State::Open | State::Flushing) || row.blocked_at.is_some() {
            return;
        }
        self.budget.spend(Work::SEND);
        while let Some(entry) = row.outbox.front_mut().filter(|_| row.room > 0) {
            let part = &entry.bytes[entry.sent..];
            let part = &part[..part.len().min(row.room)];
            row.taken.extend_from_slice(part);
            row.room -= part.len();
            row.outbox_bytes -= part.len();
            entry.sent += part.len();
            if entry.sent == entry.bytes.len() {
                row.outbox.pop_front();
            }
        }
        if !row.outbox.is_empty() {
            row.blocked_at = Some(now);
        }
        if row.awaits_drained && row.own_bytes() <= low {
            row.awaits_drained = false;
            let generation = row.generation;
            self.drained.push_back(Slot { index, generation });
        }
    }

    fn end_now(&mut self, slot: Slot, how: Closed) {
        self.tell(slot, how);
        if let Some(row) = self.row(slot) {
            row.state = State::Ended;
            row.outbox.clear();
            row.outbox_bytes = 0;
            row.due_tick = None;
            row.awaits_drained = false;
        }
    }

    fn tell(&mut self, slot: Slot, how: Closed) {
        let row = self.row(slot).expect("it is told once, while it is there");
        if !std::mem::replace(&mut row.told, true) {
            self.ended.push_back((slot, how));
        }
    }

    /// The application has heard of the end: the slot is free for the next one at once.
    pub(crate) fn heard_end(&mut self, slot: Slot) {
        let row = self.row(slot).expect("an end is told once");
        if row.state == State::Ended {
            row.state = State::Free;
            self.free.push(slot.index);
        }
    }

    /// Timers that have fallen due; each is disarmed.
    pub(crate) fn due_timers(&mut self) -> Vec<Slot> {
        let tick = self.now.0 / TICK_MS;
        let mut due = Vec::new();
        for (index, row) in self.rows.iter_mut().enumerate() {
            if row.state == State::Open && row.due_tick.is_some_and(|due| due <= tick) {
                row.due_tick = None;
                due.push(Slot {
                    index: u32::try_from(index).expect("few rows"),
                    generation: row.generation,
                });
            }
        }
        due
    }

    pub(crate) fn next_timer(&self) -> Option<Millis> {
        let ticks = self.rows.iter().filter_map(|row| row.due_tick);
        ticks.min().map(|tick| Millis(tick * TICK_MS))
    }

    /// Moves queued bytes to the sockets, each as far as it has room; calls `put` with what they took,
    /// or with nothing when the connection ends. Returns the rows that still have something to send.
    pub(crate) fn flush(&mut self, mut put: impl FnMut(usize, Option<&[u8]>)) -> usize {
        if self.is_still {
            return 0;
        }
        let mut rows = std::mem::take(&mut self.dirty);
        rows.sort_unstable();
        rows.dedup();
        for index in rows {
            self.press(index);
            let row = &mut self.rows[index as usize];
            let slot = Slot {
                index,
                generation: row.generation,
            };
            if !row.taken.is_empty() {
                put(row.link, Some(&row.taken));
                row.taken.clear();
            }
            if !row.outbox.is_empty() {
                self.dirty.push(index);
            } else if row.state == State::Flushing {
                let told = row.told;
                put(row.link, None);
                self.end_now(slot, Closed::ByUs);
                if told && !self.ended.iter().any(|(ended, _)| *ended == slot) {
                    self.heard_end(slot);
                }
            }
        }
        self.dirty.len()
    }

    /// Hands over what connections that are closing have queued.
    pub(crate) fn flush_closing(&mut self, mut put: impl FnMut(usize, &[u8])) {
        for row in self
            .rows
            .iter_mut()
            .filter(|row| row.state == State::Flushing)
        {
            for entry in row.outbox.drain(..) {
                put(row.link, &entry.bytes[entry.sent..]);
            }
        }
    }

    pub(crate) fn end_turn(&mut self) {
        self.frames_before += u32::try_from(self.frames.len()).expect("few frames");
        self.frames.clear();
        (self.frames_sent, self.sends) = (0, 0);
        self.number += 1;
    }

    fn frame(&self, frame: FrameId) -> Arc<[u8]> {
        let index = frame.0.checked_sub(self.frames_before);
        let index = index.expect("a frame's number is void after its turn");
        Arc::clone(&self.frames[index as usize])
    }

    fn queue(&mut self, slot: Slot, bytes: Arc<[u8]>, is_own: bool) -> Queued {
        if self.open(slot).is_none() {
            return Queued::Gone;
        }
        if bytes.is_empty() {
            return Queued::Accepted;
        }
        if !is_own && !self.has_room_for(slot, bytes.len()) {
            self.rows[slot.index as usize].was_full = true;
            return Queued::Full;
        }
        let whole = self
            .limits
            .outbox_bytes_max
            .max(self.limits.burst_bytes_max);
        let work = Work::JOINED_FRAME.and(Work::bytes(bytes.len()));
        self.budget.spend(work);
        let row = &mut self.rows[slot.index as usize];
        row.outbox_bytes += bytes.len();
        row.outbox.push_back(Entry {
            bytes,
            sent: 0,
            is_own,
        });
        let held = row.outbox_bytes;
        assert!(
            held <= whole + ANSWER_BYTES_MAX,
            "{held} bytes wait for one connection"
        );
        self.dirty.push(slot.index);
        Queued::Accepted
    }

    fn has_room_for(&mut self, slot: Slot, bytes: usize) -> bool {
        let wanted = |row: &Row| row.outbox_bytes + bytes;
        let max = self.limits.outbox_bytes_max;
        if wanted(&self.rows[slot.index as usize]) <= max {
            return true;
        }
        self.press(slot.index);
        let row = &self.rows[slot.index as usize];
        let blocked_ms = row.blocked_at.map_or(0, |at| self.now.since(at));
        wanted(row) <= max
            || row.outbox.is_empty()
            || (wanted(row) <= self.limits.burst_bytes_max && blocked_ms <= PATIENCE_MS)
    }
}

impl Turn for SimulatedTurn {
    type Message = Message;
    type ToBridge = ToBridge;

    fn shard(&self) -> ShardId {
        self.shard
    }

    fn shards(&self) -> u16 {
        self.shards
    }

    fn now(&self) -> Millis {
        self.now
    }

    fn unix_ms(&self) -> u64 {
        UNIX_MS + self.now.0
    }

    fn clock_us(&self) -> u64 {
        self.now.0 * 1_000 + (self.worked_ns + self.budget.spent()) / 1_000
    }

    fn spend(&mut self, work: Work) {
        self.budget.spend(work);
    }

    fn work_left(&self) -> Work {
        self.budget.stage_left()
    }

    fn add_frame(&mut self, bytes: Arc<[u8]>) -> FrameId {
        let index = u32::try_from(self.frames.len()).expect("few frames");
        self.frames.push(bytes);
        FrameId(self.frames_before + index)
    }

    fn send_frame(&mut self, slot: Slot, frame: FrameId) -> Queued {
        let bytes = self.frame(frame);
        self.frames_sent += 1;
        if self.open(slot).is_none_or(|row| row.sealed) {
            self.budget.spend(Work::ROW);
            return Queued::Gone;
        }
        let queued = self.queue(slot, bytes, false);
        if queued != Queued::Accepted {
            self.budget.spend(Work::ROW);
            return queued;
        }
        let number = self.number;
        if let Some(row) = self.open(slot) {
            let is_first = std::mem::replace(&mut row.sent_in, number) != number;
            self.sends += usize::from(is_first);
            if is_first {
                self.budget.spend(Work::SEND);
            }
        }
        queued
    }

    fn send(&mut self, slot: Slot, bytes: &[u8]) {
        let queued = self.queue(slot, bytes.into(), true);
        assert_ne!(queued, Queued::Full, "an answer cannot be refused");
    }

    fn is_congested(&mut self, slot: Slot) -> bool {
        let mark = self.limits.outbox_bytes_max / 2;
        let has_many = |it: &mut Self| it.open(slot).is_some_and(|row| row.own_bytes() > mark);
        if !has_many(self) {
            return false;
        }
        self.press(slot.index);
        has_many(self)
    }

    fn await_drained(&mut self, slot: Slot) {
        let low = self.limits.outbox_bytes_max / 4;
        let Some(row) = self.open(slot) else { return };
        if row.own_bytes() <= low {
            self.drained.push_back(slot);
        } else {
            row.awaits_drained = true;
        }
    }

    fn drop_oldest(&mut self, slot: Slot, bytes: usize) -> (u32, usize) {
        let max = self.limits.outbox_bytes_max;
        let Some(row) = self.open(slot) else {
            return (0, 0);
        };
        let mut too_many = (row.outbox_bytes + bytes).saturating_sub(max);
        let (mut looked_at, mut dropped, mut dropped_bytes) = (0, 0, 0);
        row.outbox.retain(|entry| {
            looked_at += usize::from(too_many > 0);
            let stays = too_many == 0 || entry.is_own || entry.sent > 0;
            if !stays {
                too_many = too_many.saturating_sub(entry.bytes.len());
                dropped += 1;
                dropped_bytes += entry.bytes.len();
            }
            stays
        });
        row.outbox_bytes -= dropped_bytes;
        let work = Work::bytes(8 * looked_at).and(Work::ROW.times(dropped as usize));
        self.budget.spend(work);
        (dropped, dropped_bytes)
    }

    fn outbox_bytes(&self, slot: Slot) -> usize {
        let row = &self.rows[slot.index as usize];
        let is_it = row.generation == slot.generation && row.state == State::Open;
        if is_it { row.outbox_bytes } else { 0 }
    }

    fn seal(&mut self, slot: Slot) {
        if let Some(row) = self.open(slot) {
            row.sealed = true;
        }
    }

    fn close_after_flush(&mut self, slot: Slot) {
        if let Some(row) = self.open(slot) {
            row.state = State::Flushing;
            row.due_tick = None;
            self.dirty.push(slot.index);
        }
    }

    fn close_now(&mut self, slot: Slot) {
        if self.is_open(slot) {
            self.end_now(slot, Closed::ByUs);
        }
    }

    fn pause_reading(&mut self, slot: Slot) {
        if let Some(row) = self.open(slot) {
            row.paused = true;
        }
    }

    fn resume_reading(&mut self, slot: Slot) {
        if let Some(row) = self.open(slot) {
            row.paused = false;
        }
    }

    fn arm_timer(&mut self, slot: Slot, at: Millis) {
        let next = self.now.0 / TICK_MS + 1;
        if let Some(row) = self.open(slot) {
            row.due_tick = Some(at.0.div_ceil(TICK_MS).max(next));
        }
    }

    fn cancel_timer(&mut self, slot: Slot) {
        if let Some(row) = self.open(slot) {
            row.due_tick = None;
        }
    }

    fn is_frozen(&self) -> bool {
        self.is_frozen
    }

    fn carry_frames(&mut self, from: u32, into: &mut Vec<SharedFrame>) -> Option<u32> {
        assert!(self.is_still, "only what is still is carried");
        self.budget.spend(Work::ROW);
        if from == 0 {
            self.numbers.clear();
        }
        let row = self.rows.get(from as usize)?;
        for entry in row.outbox.iter().filter(|it| !it.is_own) {
            let place = entry.bytes.as_ptr().addr();
            if Arc::strong_count(&entry.bytes) > 1 && !self.numbers.contains_key(&place) {
                // Not where it is, so that a seed always does the same.
                let number = u64::from(self.shard.0) << 32 | self.numbers.len() as u64;
                self.numbers.insert(place, number);
                let bytes = Arc::clone(&entry.bytes);
                into.push(SharedFrame { number, bytes });
            }
        }
        Some(from + 1)
    }

    fn carry(&mut self, slot: Slot, frames: FramesAs) -> Option<(RawFd, Carried)> {
        assert!(self.is_still, "only what is still is carried");
        let now = self.now;
        let row = self.rows.get(slot.index as usize)?;
        if row.generation != slot.generation || row.state != State::Open {
            return None;
        }
        let told = |entry: &Entry| {
            let number = self.numbers.get(&entry.bytes.as_ptr().addr());
            let is_told = frames == FramesAs::Numbers && !entry.is_own;
            number.copied().filter(|_| is_told)
        };
        let unsent = row.outbox.iter().map(|entry| match told(entry) {
            Some(number) => CarriedFrame {
                shared: Some(number),
                sent: u32::try_from(entry.sent).expect("frames are short"),
                ..CarriedFrame::default()
            },
            None => CarriedFrame {
                bytes: entry.bytes[entry.sent..].to_vec(),
                is_own: entry.is_own || entry.sent > 0,
                ..CarriedFrame::default()
            },
        });
        let carried = Carried {
            unsent: unsent.collect(),
            is_sealed: row.sealed,
            awaits_drained: row.awaits_drained,
            is_paused: row.paused,
            peer_ended: row.peer_ended,
            blocked_ms: row.blocked_at.map_or(0, |at| now.since(at)),
            timer_ms: row.due_tick.map(|tick| tick * TICK_MS),
            ..Carried::default()
        };
        Some((RawFd::try_from(row.link).expect("few links"), carried))
    }

    fn adopt_frames(&mut self, frames: &[SharedFrame]) {
        for frame in frames {
            let bytes = Arc::clone(&frame.bytes);
            let before = self.inherited.insert(frame.number, bytes);
            assert!(before.is_none(), "a frame is told twice");
        }
    }

    fn forget_frames(&mut self) {
        self.inherited.clear();
    }

    fn adopt(&mut self, connection: OwnedFd, carried: Carried) -> Option<Slot> {
        let link = self.arriving.remove(&connection.as_raw_fd());
        let link = link.expect("each descriptor stands for a link");
        let entry = |it: CarriedFrame| {
            let bytes = match it.shared {
                Some(number) => self.inherited.get(&number)?.clone(),
                None => it.bytes.into(),
            };
            Some(Entry {
                bytes,
                sent: it.sent as usize,
                is_own: it.is_own,
            })
        };
        let outbox = carried.unsent.into_iter().map(entry);
        let outbox = outbox.collect::<Option<VecDeque<Entry>>>()?;
        let slot = Self::adopt(self, link);
        self.adopted.push((link, slot));
        let (now, row) = (self.now, self.open(slot).expect("just adopted"));
        row.sealed = carried.is_sealed;
        row.awaits_drained = carried.awaits_drained;
        row.paused = carried.is_paused;
        row.peer_ended = carried.peer_ended;
        row.due_tick = carried.timer_ms.map(|ms| ms.div_ceil(TICK_MS));
        row.blocked_at = (!outbox.is_empty()).then_some(now);
        row.outbox_bytes = outbox.iter().map(|it| it.bytes.len() - it.sent).sum();
        row.outbox = outbox;
        self.dirty.push(slot.index);
        Some(slot)
    }

    fn keep_ticking(&mut self, on: bool) {
        self.keeps_ticking = on;
    }

    fn post(&mut self, to: ShardId, message: Message) {
        assert_ne!(to, self.shard, "a shard posts to others only");
        self.posted.push((to, message));
    }

    fn to_bridge(&mut self, message: ToBridge) -> Result<(), BridgeDropped<ToBridge>> {
        if matches!(message, ToBridge::Exported(_)) {
            self.gives_back = !self.gives_back;
            if self.gives_back {
                return Err(BridgeDropped(vec![message]));
            }
        }
        self.told_bridge.push(message);
        Ok(())
    }

    fn publish_room(&self) -> PublishRoom {
        self.publish_room
    }

    fn is_cut_off(&self) -> bool {
        self.is_cut_off
    }

    fn is_behind(&self) -> bool {
        self.is_behind
    }

    fn runtime_counters(&self) -> RuntimeCounters {
        RuntimeCounters::default()
    }
}
