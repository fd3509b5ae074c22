//! Data path. The table of connections: one small plain row each.
//!
//! Owns: rows, their generations, which operations are in flight on them, their outboxes' entries.
//! May depend on: `application`, `work`, libc. Not on the ring: it decides nothing, it keeps.
//! Invariants: a row is freed only when no operation on its fd is in flight and its `on_closed` was
//! delivered; an outbox's bytes are the sum of its entries less what of the first one was sent.

use crate::{
    application::{Closed, FrameId, Millis, Slot},
    work::Work,
};
use std::{collections::VecDeque, os::fd::RawFd};

/// Where a connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// No connection: the row is on the free list.
    Free,
    /// The application knows it.
    Open,
    /// Ends when its outbox is empty; input is discarded.
    Flushing,
    /// Our side is shut down; input is discarded until the peer ends too.
    Lingering,
    /// Waits for the last completions of its operations.
    Ending,
}

/// Facts about a row, one bit each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flag(u16);

impl Flag {
    /// A multishot receive is in flight.
    pub(crate) const RECV: Self = Self(1);
    /// A send is in flight.
    pub(crate) const SEND: Self = Self(1 << 1);
    /// A wait for room in the socket is in flight.
    pub(crate) const WRITABLE: Self = Self(1 << 2);
    /// On the list of rows to flush.
    pub(crate) const DIRTY: Self = Self(1 << 3);
    /// The application paused reading.
    pub(crate) const PAUSED: Self = Self(1 << 4);
    /// On the list of receives that found no buffer.
    pub(crate) const STARVED: Self = Self(1 << 5);
    /// The peer ended its side.
    pub(crate) const PEER_ENDED: Self = Self(1 << 6);
    /// `on_closed` is queued or was delivered.
    pub(crate) const ENDED: Self = Self(1 << 7);
    /// `on_closed` was delivered.
    pub(crate) const TOLD: Self = Self(1 << 8);
    /// On the list of rows whose outbox waits for its peer.
    pub(crate) const LAGGING: Self = Self(1 << 9);
    /// The application wants to hear when the outbox has drained.
    pub(crate) const DRAIN_AWAITED: Self = Self(1 << 10);
    /// Shared frames are not queued any more.
    pub(crate) const SEALED: Self = Self(1 << 11);

    /// Its bytes are sealed: the application knows them opened.
    pub(crate) const TLS: Self = Self(1 << 12);
    /// The handshake of its TLS is not done.
    pub(crate) const SHAKING: Self = Self(1 << 13);
    /// Sealed bytes wait to be sent, or our end is to be said.
    pub(crate) const UNSENT: Self = Self(1 << 14);

    const IN_FLIGHT: u16 = Self::RECV.0 | Self::SEND.0 | Self::WRITABLE.0;
}

/// Entries beyond the two inline ones. Boxed, so that an idle row has but a null pointer.
pub(crate) type Spill = Box<VecDeque<u32>>;

/// Set in an entry whose frame was queued with `send`: it is never dropped.
const OWN: u32 = 1 << 31;

/// One connection.
pub(crate) struct Row {
    pub(crate) fd: RawFd,
    pub(crate) generation: u32,
    /// Bytes queued and not yet taken by the kernel.
    pub(crate) outbox_bytes: u32,
    /// Bytes of the entries that were queued with `send`, whatever the kernel took of the first.
    pub(crate) own_bytes: u32,
    /// Bytes of the first entry that the kernel took already.
    pub(crate) first_sent: u32,
    /// Bytes of the send in flight.
    pub(crate) sending: u32,
    /// When the kernel last refused bytes after it had taken some, in units of `Millis::coarse`.
    pub(crate) blocked_at: u32,
    /// When its last bytes began to be flushed before its end, in the same units.
    pub(crate) flushing_since: u32,
    next_free: u32,
    /// The turn in which a receive was last handed over, wrapping.
    pub(crate) received_in: u32,
    /// What its receives cost lately, in microseconds of work: half of it is forgotten with each unit
    /// of time that passes. At most `HEAT_MAX`.
    heat: u16,
    /// When `heat` was right, in units of `HEAT_UNIT_MS`, wrapping.
    heat_at: u16,
    /// The first entries; `spill` holds those behind them.
    inline: [u32; 2],
    spill: Option<Spill>,
    flags: u16,
    pub(crate) state: State,
    inline_count: u8,
}

const _: () = assert!(size_of::<Row>() <= 64);

impl Row {
    fn free(generation: u32, next_free: u32) -> Self {
        Self {
            fd: -1,
            generation,
            outbox_bytes: 0,
            own_bytes: 0,
            first_sent: 0,
            sending: 0,
            blocked_at: 0,
            flushing_since: 0,
            next_free,
            received_in: 0,
            heat: 0,
            heat_at: 0,
            inline: [0; 2],
            spill: None,
            flags: 0,
            state: State::Free,
            inline_count: 0,
        }
    }

    /// Notes a receive: its turn, what handling it has cost, and its bytes, since those that were
    /// kept for later will cost something too.
    pub(crate) fn note_receive(&mut self, turn: u32, now: Millis, spent: Work, bytes: usize) {
        let cost = spent.max(Work::bytes_hashed(bytes.saturating_mul(8)));
        let cost_us = u16::try_from(cost.0 / 1_000).unwrap_or(u16::MAX);
        self.heat = self.heat_at(now).saturating_add(cost_us).min(HEAT_MAX);
        self.heat_at = heat_time(now);
        self.received_in = turn;
    }

    /// True for one whose receives cost much lately, served in the last turns or not.
    pub(crate) fn is_busy(&self, now: Millis) -> bool {
        self.heat_at(now) >= HEAT_BUSY
    }

    fn heat_at(&self, now: Millis) -> u16 {
        let passed = heat_time(now).wrapping_sub(self.heat_at);
        self.heat.checked_shr(passed.into()).unwrap_or(0)
    }

    pub(crate) fn is(&self, flag: Flag) -> bool {
        self.flags & flag.0 != 0
    }

    /// Sets or clears a flag; returns whether it was set before.
    pub(crate) fn mark(&mut self, flag: Flag, on: bool) -> bool {
        let before = self.is(flag);
        match on {
            true => self.flags |= flag.0,
            false => self.flags &= !flag.0,
        }
        before
    }

    pub(crate) fn has_in_flight(&self) -> bool {
        self.flags & Flag::IN_FLIGHT != 0
    }

    pub(crate) fn outbox_is_empty(&self) -> bool {
        self.inline_count == 0 && !self.is(Flag::UNSENT)
    }

    /// Appends an entry. No allocation up to two entries, then from `spares` if there is one.
    pub(crate) fn push(&mut self, frame: FrameId, is_own: bool, spares: &mut Spares) {
        assert!(frame.0 & OWN == 0);
        let entry = if is_own { frame.0 | OWN } else { frame.0 };
        if self.spill.is_none() && usize::from(self.inline_count) < self.inline.len() {
            self.inline[usize::from(self.inline_count)] = entry;
            self.inline_count += 1;
        } else {
            self.spill
                .get_or_insert_with(|| spares.take())
                .push_back(entry);
        }
    }

    /// Removes the first entry; says whether it was queued with `send`.
    pub(crate) fn pop(&mut self, spares: &mut Spares) -> Option<(FrameId, bool)> {
        if self.inline_count == 0 {
            return None;
        }
        let entry = self.inline[0];
        self.inline[0] = self.inline[1];
        self.inline_count -= 1;
        self.refill(spares);
        Some((FrameId(entry & !OWN), entry & OWN != 0))
    }

    fn refill(&mut self, spares: &mut Spares) {
        let Some(spill) = &mut self.spill else { return };
        while usize::from(self.inline_count) < self.inline.len()
            && let Some(entry) = spill.pop_front()
        {
            self.inline[usize::from(self.inline_count)] = entry;
            self.inline_count += 1;
        }
        if spill.is_empty() {
            self.spill
                .take()
                .into_iter()
                .for_each(|empty| spares.keep(empty));
        }
    }

    /// All entries, first to last.
    pub(crate) fn entries(&self) -> impl Iterator<Item = FrameId> + '_ {
        self.marked_entries().map(|(frame, _)| frame)
    }

    /// All entries with whether they were queued with `send`.
    pub(crate) fn marked_entries(&self) -> impl Iterator<Item = (FrameId, bool)> + '_ {
        let inline = self.inline[..usize::from(self.inline_count)].iter();
        inline
            .chain(self.spill.iter().flat_map(|spill| spill.iter()))
            .map(|e| (FrameId(e & !OWN), e & OWN != 0))
    }

    /// The first two entries.
    pub(crate) fn first_two(&self) -> (Option<FrameId>, Option<FrameId>) {
        let mut entries = self.entries();
        (entries.next(), entries.next())
    }

    /// The last entry, if it was queued with `send` and is not being sent.
    pub(crate) fn last_own(&self) -> Option<FrameId> {
        let last = match &self.spill {
            Some(spill) => spill.back().copied()?,
            None => *self.inline[..usize::from(self.inline_count)].last()?,
        };
        (last & OWN != 0 && !self.is(Flag::SEND)).then_some(FrameId(last & !OWN))
    }

    /// Takes out shared entries, oldest first and never the first when part of it was sent, for as
    /// long as `wants_more` says so for each one taken. Returns how many entries were looked at.
    // Those that stay in front, answers, are passed over; none behind the last one taken is looked at.
    pub(crate) fn remove_shared(
        &mut self,
        spares: &mut Spares,
        mut wants_more: impl FnMut(FrameId) -> bool,
    ) -> usize {
        let mut position = usize::from(self.first_sent > 0 || self.is(Flag::SEND));
        let mut looked_at = 0;
        while let Some(entry) = self.entry(position) {
            looked_at += 1;
            if entry & OWN != 0 {
                position += 1;
                continue;
            }
            self.remove(position);
            self.refill(spares);
            if !wants_more(FrameId(entry)) {
                break;
            }
        }
        looked_at
    }

    fn entry(&self, position: usize) -> Option<u32> {
        match position.checked_sub(usize::from(self.inline_count)) {
            None => Some(self.inline[position]),
            Some(behind) => self.spill.as_ref()?.get(behind).copied(),
        }
    }

    /// Takes an entry that is there out; `refill` follows.
    fn remove(&mut self, position: usize) {
        let inline_count = usize::from(self.inline_count);
        match (position.checked_sub(inline_count), &mut self.spill) {
            (Some(behind), Some(spill)) => _ = spill.remove(behind),
            (Some(_), None) => unreachable!("what is not in line is behind"),
            (None, _) => {
                self.inline
                    .copy_within(position + 1..inline_count, position);
                self.inline_count -= 1;
            }
        }
    }
}

/// Nearly twice what 500 pings per second keep a row at. A flood that shares a shard with a hundred
/// others still gets so much between two halvings.
const HEAT_BUSY: u16 = 384;
/// So that the heaviest is cool again after four units.
const HEAT_MAX: u16 = 8 * HEAT_BUSY;
const HEAT_UNIT_MS: u64 = 32;

#[expect(clippy::cast_possible_truncation, reason = "it wraps")]
const fn heat_time(now: Millis) -> u16 {
    (now.0 / HEAT_UNIT_MS) as u16
}

/// Emptied spill lists, kept for the next connection that needs one.
pub(crate) struct Spares(Vec<Spill>);

impl Spares {
    fn take(&mut self) -> Spill {
        self.0.pop().unwrap_or_default()
    }

    fn keep(&mut self, spill: Spill) {
        assert!(spill.is_empty());
        if self.0.len() < SPARES_MAX && spill.capacity() <= SPARE_ENTRIES_MAX {
            self.0.push(spill);
        }
    }
}

const SPARES_MAX: usize = 4_096;
const SPARE_ENTRIES_MAX: usize = 256;

/// Rows per page: growing never moves a row, so it costs no more than one page.
const PAGE_ROWS: usize = PAGE as usize;
/// The same as indices count them.
const PAGE: u32 = 1_024;
const NONE: u32 = u32::MAX;

/// Bytes that wait on a connection, as its row counts them.
#[expect(
    clippy::cast_possible_truncation,
    reason = "an outbox is far below 4 GiB: `ANSWERS_BYTES_MAX`, the bounds of a burst and one frame"
)]
pub(crate) const fn row_bytes(count: usize) -> u32 {
    debug_assert!(count <= u32::MAX as usize);
    count as u32
}

/// All connections of one shard.
pub(crate) struct Connections {
    pages: Vec<Box<[Row]>>,
    first_free: u32,
    /// Rows in use, those included that only wait for their last completions.
    pub(crate) used: u32,
    /// Connections of which the application was not told that they ended.
    pub(crate) open: u32,
    pub(crate) spares: Spares,
}

impl Connections {
    pub(crate) fn new() -> Self {
        Self {
            pages: Vec::new(),
            first_free: NONE,
            used: 0,
            open: 0,
            spares: Spares(Vec::new()),
        }
    }

    /// Gives the connection a row.
    pub(crate) fn insert(&mut self, fd: RawFd) -> Slot {
        if self.first_free == NONE {
            self.grow();
        }
        let index = self.first_free;
        let row = self.row_mut(index);
        assert!(row.state == State::Free);
        assert!(row.flags == 0);
        row.state = State::Open;
        row.fd = fd;
        let (next_free, generation) = (row.next_free, row.generation);
        self.first_free = next_free;
        self.used += 1;
        self.open += 1;
        Slot { index, generation }
    }

    fn grow(&mut self) {
        let first = self.capacity();
        let last = first + PAGE - 1;
        let next = |index: u32| if index == last { NONE } else { index + 1 };
        self.pages.push(
            (first..=last)
                .map(|index| Row::free(1, next(index)))
                .collect(),
        );
        self.first_free = first;
    }

    /// Frees a row whose last completion was reaped and whose end was told; returns its fd.
    pub(crate) fn remove(&mut self, index: u32) -> RawFd {
        let next_free = self.first_free;
        let row = self.row_mut(index);
        assert!(row.state == State::Ending);
        assert!(!row.has_in_flight());
        assert!(row.is(Flag::TOLD));
        assert!(row.outbox_is_empty());
        let fd = row.fd;
        *row = Row::free(row.generation.wrapping_add(1), next_free);
        self.first_free = index;
        self.used -= 1;
        fd
    }

    pub(crate) fn row(&self, index: u32) -> &Row {
        &self.pages[index as usize / PAGE_ROWS][index as usize % PAGE_ROWS]
    }

    pub(crate) fn row_mut(&mut self, index: u32) -> &mut Row {
        &mut self.pages[index as usize / PAGE_ROWS][index as usize % PAGE_ROWS]
    }

    /// The row and the spare lists, for changes of the outbox.
    pub(crate) fn outbox_mut(&mut self, index: u32) -> (&mut Row, &mut Spares) {
        let row = &mut self.pages[index as usize / PAGE_ROWS][index as usize % PAGE_ROWS];
        (row, &mut self.spares)
    }

    /// The row that the application means, while it is open.
    pub(crate) fn open_row(&self, slot: Slot) -> Option<&Row> {
        let row = self.pages.get(slot.index as usize / PAGE_ROWS)?;
        let row = &row[slot.index as usize % PAGE_ROWS];
        (row.generation == slot.generation && row.state == State::Open).then_some(row)
    }

    /// Rows there are, in use or not.
    pub(crate) fn capacity(&self) -> u32 {
        let rows = u32::try_from(self.pages.len() * PAGE_ROWS);
        rows.expect("fewer connections than 2^32: they have descriptors")
    }

    /// Indices of all rows in use.
    pub(crate) fn used_rows(&self) -> Vec<u32> {
        let rows = (0..).zip(self.pages.iter().flat_map(|page| page.iter()));
        rows.filter(|(_, row)| row.state != State::Free)
            .map(|(index, _)| index)
            .collect()
    }

    /// Queues that `on_closed` must be delivered; true the first time.
    pub(crate) fn end(&mut self, index: u32) -> bool {
        let is_first = !self.row_mut(index).mark(Flag::ENDED, true);
        if is_first {
            self.open -= 1;
        }
        is_first
    }
}

impl Drop for Connections {
    /// Closes what is left. The ring is gone by then (field order in `RingTurn`).
    fn drop(&mut self) {
        for index in self.used_rows() {
            // SAFETY: the row owns its fd, and nothing uses it after this.
            unsafe { libc::close(self.row(index).fd) };
        }
    }
}

/// A connection's end that the application must still hear of.
pub(crate) struct Ended {
    pub(crate) slot: Slot,
    pub(crate) how: Closed,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(row: &Row) -> Vec<u32> {
        row.entries().map(|frame| frame.0).collect()
    }

    #[test]
    fn an_outbox_is_first_in_first_out_at_every_length() {
        let mut table = std::mem::ManuallyDrop::new(Connections::new());
        let slot = table.insert(7);
        let (row, spares) = table.outbox_mut(slot.index);
        for count in 0..9_u32 {
            (0..count).for_each(|frame| row.push(FrameId(frame), frame % 2 == 0, spares));
            assert_eq!(entries(row), (0..count).collect::<Vec<_>>());
            for frame in 0..count {
                assert_eq!(row.pop(spares), Some((FrameId(frame), frame % 2 == 0)));
                // A push between pops goes behind all others.
                row.push(FrameId(100 + frame), false, spares);
            }
            for frame in 0..count {
                assert_eq!(row.pop(spares), Some((FrameId(100 + frame), false)));
            }
            assert!(row.outbox_is_empty());
            assert!(row.spill.is_none());
        }
    }

    #[test]
    fn dropping_the_oldest_spares_own_frames_and_one_that_was_begun() {
        let mut table = std::mem::ManuallyDrop::new(Connections::new());
        let slot = table.insert(7);
        let (row, spares) = table.outbox_mut(slot.index);
        (0..6).for_each(|frame| row.push(FrameId(frame), frame == 2, spares));
        row.first_sent = 1;
        let mut left = 2;
        let looked_at = row.remove_shared(spares, |_| {
            left -= 1;
            left > 0
        });
        assert_eq!(entries(row), [0, 2, 4, 5]);
        assert_eq!(looked_at, 3, "1, 2 and 3");
        row.first_sent = 0;
        row.remove_shared(spares, |_| true);
        assert_eq!(entries(row), [2]);
        assert!(row.spill.is_none());
        assert_eq!(row.pop(spares), Some((FrameId(2), true)));
        assert_eq!(row.remove_shared(spares, |_| true), 0);
    }

    #[test]
    fn dropping_the_oldest_of_many_looks_at_those_that_go() {
        let mut table = std::mem::ManuallyDrop::new(Connections::new());
        let slot = table.insert(7);
        let (row, spares) = table.outbox_mut(slot.index);
        (0..20_000).for_each(|frame| row.push(FrameId(frame), false, spares));
        let looked_at: usize = (0..1_000)
            .map(|_| row.remove_shared(spares, |_| false))
            .sum();
        assert_eq!(looked_at, 1_000);
        assert_eq!(entries(row), (1_000..20_000).collect::<Vec<_>>());
    }

    #[test]
    fn whose_receives_cost_much_is_busy_until_it_pauses_and_who_says_hello_is_not() {
        // Receives, milliseconds between them, their work in microseconds, their bytes.
        let received = |&(count, every_ms, spent_us, bytes): &(u64, u64, u32, usize)| {
            let mut row = Row::free(1, NONE);
            for number in 0..count {
                let now = Millis(1_000 + number * every_ms);
                row.note_receive(number as u32, now, Work(spent_us * 1_000), bytes);
            }
            (row, 1_000 + (count - 1) * every_ms)
        };
        for (case, receives, later_ms, is_busy) in [
            ("request, sign-in, subscriptions", (4, 1, 25, 400), 0, false),
            ("500 pings per second", (1_000, 2, 7, 40), 0, false),
            ("a pipeline", (4, 1, 150, 4_096), 0, true),
            (
                "… that waited for some turns",
                (200, 1, 150, 4_096),
                30,
                true,
            ),
            ("… that pauses", (200, 1, 150, 4_096), 128, false),
            ("… served every 25 ms", (20, 25, 400, 4_096), 24, true),
            ("… which is kept for later", (200, 1, 1, 4_096), 30, true),
            (
                "messages of 4 KiB a second apart",
                (9, 1_000, 20, 4_096),
                0,
                false,
            ),
            ("one heavy receive", (1, 0, 4_000_000, 4_096), 30, true),
            ("… long ago", (1, 0, 4_000_000, 4_096), 60_000, false),
        ] {
            let (row, last_ms) = received(&receives);
            assert_eq!(row.is_busy(Millis(last_ms + later_ms)), is_busy, "{case}");
        }
    }

    #[test]
    fn a_reused_row_has_another_generation() {
        let mut table = std::mem::ManuallyDrop::new(Connections::new());
        let old = table.insert(7);
        table.end(old.index);
        let row = table.row_mut(old.index);
        row.state = State::Ending;
        row.mark(Flag::TOLD, true);
        assert_eq!(table.remove(old.index), 7);
        let new = table.insert(8);
        assert_eq!(new.index, old.index);
        assert!(table.open_row(old).is_none());
        assert!(table.open_row(new).is_some());
    }
}
