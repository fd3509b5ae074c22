//! Data path. A shard's own subscribers of each channel, and fan-outs that take several turns.
//!
//! Owns: per channel the dense list of subscribed slots, joins under way, the fan-out job.
//! May depend on: `channel::{rows, timed}`, `protocol`, plain ids. Not on connections: it knows their slot
//! numbers and which of their subscriptions is meant.
//! Invariants: a subscriber stands once in its channel's list, at the position that its connection
//! remembers; an entry exists iff it has subscribers, joins under way, or a job; during a job no
//! position moves, so that each frame reaches each subscriber of its time once.

use std::{collections::VecDeque, sync::Arc};

use shards::{
    application::{ShardId, Slot},
    work::Work,
};
use smallvec::SmallVec;

use super::{
    home::HomeRef,
    names::{NameHash, NameKey, Names},
    rows::{RowRef, Rows},
    timed::{Timed, TimedAt, TimedFrames},
};
use crate::protocol::{app::AppIndex, name::ChannelKind};

/// Points at a local channel from its home and from connections of this shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LocalRef(pub RowRef);

/// The channels that connections of this shard subscribe to.
#[derive(Clone, Debug, Default)]
pub struct LocalTable {
    rows: Rows<LocalChannel>,
    names: Names,
}

/// One channel on this shard.
#[derive(Clone, Debug)]
pub struct LocalChannel {
    pub app: AppIndex,
    pub name: Arc<str>,
    pub key: NameKey,
    pub kind: ChannelKind,
    /// The shard that is this channel's home.
    pub home: ShardId,
    /// Where it stands there; known from the first `Joined` on.
    pub home_ref: Option<HomeRef>,
    /// One stands in the row itself: most private channels have no more on a shard.
    subscribers: SmallVec<[Subscriber; 1]>,
    joins_pending: u32,
    /// The last turn in which a frame was queued for all subscribers at once; 0 = none.
    pub sent_in_turn: u32,
    /// The home asks to hold publishers, since some shard is behind.
    pub holds_publishers: bool,
    job: Option<Box<Job>>,
}

/// The bound of a channel's row on a shard.
const ROW_BYTES_MAX: usize = 88;
const _: () = assert!(size_of::<LocalChannel>() <= ROW_BYTES_MAX);

/// A subscribed connection: its slot and the number of the subscription in its own list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscriber {
    pub slot: Slot,
    pub subscription: u32,
}

/// A subscriber whose position changed; its connection must be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    pub subscriber: Subscriber,
    pub position: u32,
}

/// A fan-out that goes on in the next turn.
#[derive(Clone, Debug, Default)]
struct Job {
    segments: VecDeque<Segment>,
    timed: TimedFrames,
    /// The home that was asked to hold the channel's publishers, since so much waits here.
    behind_at: Option<HomeRef>,
}

/// A run of positions and the frames that are still to be queued to each.
#[derive(Clone, Debug)]
struct Segment {
    next: u32,
    end: u32,
    frames: Vec<JobFrame>,
    /// Of all its frames.
    bytes: usize,
}

/// What waits for the subscriber for whom most waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Backlog {
    pub frames: usize,
    pub bytes: usize,
}

impl Backlog {
    /// Publishers are held from here on, until half of it is left.
    pub const HIGH: Self = Self {
        frames: 256,
        bytes: 1_048_576,
    };

    /// More than this `part`-th of the bound waits.
    pub fn is_above(self, part: usize) -> bool {
        self.frames > Self::HIGH.frames / part || self.bytes > Self::HIGH.bytes / part
    }
}

/// One frame of a job; `except` is the slot that must not get it.
#[derive(Clone, Debug, PartialEq)]
pub struct JobFrame {
    pub bytes: Arc<[u8]>,
    pub except: Option<Slot>,
    /// `None` for what is not timed.
    timed: Option<TimedAt>,
}

/// A part of a job to be done now.
#[derive(Debug, PartialEq)]
pub struct Slice {
    pub start: u32,
    pub end: u32,
    pub frames: SmallVec<[JobFrame; 2]>,
}

/// Stands where a subscriber left during a job.
const LEFT: Subscriber = Subscriber {
    slot: Slot {
        index: u32::MAX,
        generation: 0,
    },
    subscription: u32::MAX,
};

impl LocalTable {
    /// The channel's row, made if it is not there.
    pub fn enter(&mut self, app: AppIndex, name: &str, key: NameKey, home: ShardId) -> LocalRef {
        if let Some(at) = self.find(app, name, key.hash) {
            return at;
        }
        let name: Arc<str> = name.into();
        let at = LocalRef(self.rows.insert(LocalChannel {
            app,
            name: Arc::clone(&name),
            key,
            kind: ChannelKind::of(&name),
            home,
            home_ref: None,
            subscribers: SmallVec::new(),
            joins_pending: 0,
            sent_in_turn: 0,
            holds_publishers: false,
            job: None,
        }));
        self.names.insert(app, key.hash, at.0.index);
        at
    }

    /// The channel's row, if it has one.
    pub fn find(&self, app: AppIndex, name: &str, hash: NameHash) -> Option<LocalRef> {
        let is_named =
            |row| matches!(self.rows.at(row), Some((_, channel)) if *channel.name == *name);
        let row = self.names.find(app, hash, is_named)?;
        self.rows.at(row).map(|(at, _)| LocalRef(at))
    }

    /// The row behind a reference, if it is still that channel's.
    pub fn get(&self, at: LocalRef) -> Option<&LocalChannel> {
        self.rows.get(at.0)
    }

    /// See `get`.
    pub fn get_mut(&mut self, at: LocalRef) -> Option<&mut LocalChannel> {
        self.rows.get_mut(at.0)
    }

    /// The row that a subscription holds. Panics if there is none: the subscription keeps it.
    pub fn held(&mut self, index: u32) -> &mut LocalChannel {
        self.rows
            .at_mut(index)
            .expect("a subscription keeps its channel's row")
    }

    /// See `held`.
    pub fn at(&self, index: u32) -> &LocalChannel {
        let row = self.rows.at(index);
        row.expect("a subscription keeps its channel's row").1
    }

    /// The full reference of a row that a subscription holds.
    pub fn reference(&self, index: u32) -> LocalRef {
        LocalRef(
            self.rows
                .at(index)
                .expect("a subscription keeps its channel's row")
                .0,
        )
    }

    /// Forgets a row that nothing holds any more.
    pub fn release_if_idle(&mut self, at: LocalRef) {
        let Some(channel) = self.rows.get(at.0) else {
            return;
        };
        if !channel.is_idle() {
            return;
        }
        let channel = self.rows.remove(at.0).expect("it was there a line ago");
        self.names.remove(channel.app, channel.key.hash, at.0.index);
    }

    /// Channels with a row.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// True without any channel.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

impl LocalChannel {
    /// Those who get the channel's frames; some may be `has_left`.
    pub fn subscribers(&self) -> &[Subscriber] {
        &self.subscribers
    }

    /// A join went to the home; the row stays until its answer.
    pub fn join_begins(&mut self) {
        self.joins_pending += 1;
    }

    /// The answer to a join arrived.
    pub fn join_ends(&mut self) {
        self.joins_pending = self
            .joins_pending
            .checked_sub(1)
            .expect("an answer follows a join");
    }

    /// Adds a subscriber and returns its position.
    pub fn add(&mut self, subscriber: Subscriber) -> u32 {
        assert_ne!(subscriber, LEFT);
        self.subscribers.push(subscriber);
        u32::try_from(self.subscribers.len() - 1).expect("slot indices are u32")
    }

    /// Takes the subscriber at a position out. Another may take its place: it is returned.
    pub fn remove(&mut self, position: u32) -> Option<Moved> {
        let at = position as usize;
        assert_ne!(self.subscribers[at], LEFT, "a subscriber leaves once");
        if self.job.is_some() {
            self.subscribers[at] = LEFT;
            return None;
        }
        self.subscribers.swap_remove(at);
        let subscriber = *self.subscribers.get(at)?;
        Some(Moved {
            subscriber,
            position,
        })
    }

    /// The connection of the subscriber at a position numbered its subscriptions anew.
    pub fn renumber(&mut self, position: u32, subscription: u32) {
        self.subscribers[position as usize].subscription = subscription;
    }

    /// True while a fan-out of this channel goes on.
    pub fn has_job(&self) -> bool {
        self.job.is_some()
    }

    /// Begins or joins a job with a frame for all who subscribe now.
    ///
    /// Frames that arrive during a job are added to what each position still has to get, so the
    /// later part of the audience gets them in one send, and order is kept for everyone.
    /// One that arrived at `began_us` is timed.
    pub fn add_to_job(&mut self, bytes: &Arc<[u8]>, except: Option<Slot>, began_us: Option<u64>) {
        let audience = u32::try_from(self.subscribers.len()).expect("slot indices are u32");
        let job = &mut **self.job.get_or_insert_default();
        let gaps = job.gaps(audience);
        let parts = job.segments.len() + gaps.len();
        let began_us = began_us.filter(|_| parts > 0);
        let frame = JobFrame {
            bytes: Arc::clone(bytes),
            except,
            timed: began_us.map(|began_us| job.timed.add(began_us, parts)),
        };
        for segment in &mut job.segments {
            segment.frames.push(frame.clone());
            segment.bytes += bytes.len();
        }
        for (next, end) in gaps {
            job.segments.push_back(Segment {
                next,
                end,
                frames: vec![frame.clone()],
                bytes: bytes.len(),
            });
        }
    }

    /// A slice of the job, or what was taken out for one position, was sent: so many have got this
    /// frame of it. Returns what is known of a timed frame when nobody is to get it any more.
    pub fn sent(&mut self, frame: &JobFrame, count: u64) -> Option<Timed> {
        let at = frame.timed?;
        let job = self.job.as_mut().expect("a job waits for its slices");
        job.timed.sent(at, count)
    }

    /// Parts of the job: what adding a frame walks.
    pub fn segments(&self) -> usize {
        self.job.as_ref().map_or(0, |job| job.segments.len())
    }

    /// The most that waits for a subscriber.
    pub fn backlog(&self) -> Backlog {
        let segments = self.job.iter().flat_map(|job| &job.segments);
        segments.fold(Backlog::default(), |most, segment| Backlog {
            frames: most.frames.max(segment.frames.len()),
            bytes: most.bytes.max(segment.bytes),
        })
    }

    /// The home that believes this shard to be behind.
    pub fn behind_at(&self) -> Option<HomeRef> {
        self.job.as_ref()?.behind_at
    }

    /// Notes which home is to believe it from now on; without a job none is.
    pub fn set_behind_at(&mut self, at: Option<HomeRef>) {
        if let Some(job) = &mut self.job {
            job.behind_at = at;
        }
    }

    /// Takes the frames that still wait for one position out of the job: they are sent now.
    pub fn take_position(&mut self, position: u32) -> Vec<JobFrame> {
        let Some(job) = self.job.as_deref_mut() else {
            return Vec::new();
        };
        let covers = |it: &Segment| (it.next..it.end).contains(&position);
        let Some(at) = job.segments.iter().position(covers) else {
            return Vec::new();
        };
        let segment = &mut job.segments[at];
        let frames = segment.frames.clone();
        let rest = Segment {
            next: position + 1,
            end: segment.end,
            frames: frames.clone(),
            bytes: segment.bytes,
        };
        segment.end = position;
        let is_first = segment.next == segment.end;
        let is_last = rest.next == rest.end;
        job.split(&frames, usize::from(!is_first) + usize::from(!is_last));
        if is_first {
            job.segments.remove(at);
        }
        if !is_last {
            job.segments.push_back(rest);
        }
        frames
    }

    /// The next part of the job: as many positions as `work` pays for, one at least and
    /// `positions_max` at most; `None` when it is done. `each` says what a position costs that
    /// gets so many frames of so many bytes together.
    pub fn take_slice(
        &mut self,
        positions_max: u32,
        work: Work,
        each: impl Fn(usize, usize) -> Work,
    ) -> Option<Slice> {
        let job = self.job.as_deref_mut()?;
        let segment = job.segments.front_mut()?;
        let start = segment.next;
        let paid = work.0 / each(segment.frames.len(), segment.bytes).0.max(1);
        let positions = paid.clamp(1, positions_max.max(1));
        let end = segment.end.min(start.saturating_add(positions));
        let frames: SmallVec<[JobFrame; 2]> = segment.frames.iter().cloned().collect();
        segment.next = end;
        if segment.next == segment.end {
            job.segments.pop_front();
        } else {
            job.split(&frames, 1);
        }
        Some(Slice { start, end, frames })
    }

    /// Ends a job that is done: closes the gaps of those who left meanwhile.
    pub fn end_job(&mut self) -> Vec<Moved> {
        let job = self.job.take().expect("a job is ended once");
        assert!(job.segments.is_empty(), "a job is ended when it is done");
        assert!(job.timed.is_empty(), "what was sent was counted");
        assert!(job.behind_at.is_none(), "who is behind has not ended");
        let mut moved = Vec::new();
        let mut position = 0;
        while position < self.subscribers.len() {
            if self.subscribers[position] != LEFT {
                position += 1;
                continue;
            }
            self.subscribers.swap_remove(position);
            while self.subscribers.len() > position && self.subscribers.last() == Some(&LEFT) {
                self.subscribers.pop();
            }
            if let Some(subscriber) = self.subscribers.get(position) {
                let at = u32::try_from(position).expect("slot indices are u32");
                moved.push(Moved {
                    subscriber: *subscriber,
                    position: at,
                });
            }
        }
        // Gaps at the end bring others forward twice: only the last position counts.
        moved.retain(|it| self.subscribers.get(it.position as usize) == Some(&it.subscriber));
        moved
    }

    fn is_idle(&self) -> bool {
        self.subscribers.is_empty() && self.joins_pending == 0 && self.job.is_none()
    }
}

impl Job {
    /// Runs of positions for which nothing waits.
    fn gaps(&self, audience: u32) -> SmallVec<[(u32, u32); 8]> {
        let covered = self.segments.iter().map(|it| (it.next, it.end));
        let mut covered: SmallVec<[(u32, u32); 8]> = covered.collect();
        covered.sort_unstable();
        let (mut gaps, mut from) = (SmallVec::new(), 0);
        for (start, end) in covered.into_iter().chain([(audience, audience)]) {
            assert!(from <= start, "segments do not overlap");
            if from < start {
                gaps.push((from, start));
            }
            from = end;
        }
        gaps
    }

    /// What waited for one part waits for so many more.
    fn split(&mut self, frames: &[JobFrame], more: usize) {
        for at in frames.iter().filter_map(|it| it.timed) {
            self.timed.split(at, more);
        }
    }
}

impl Subscriber {
    /// True for the gap that someone left behind during a job.
    pub fn has_left(self) -> bool {
        self == LEFT
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use ahash::AHashMap;
    use proptest::prelude::*;

    use super::{super::names::tests::key, *};

    fn channel(count: u32) -> LocalChannel {
        let mut table = LocalTable::default();
        let at = table.enter(AppIndex(0), "stadium", key("stadium"), ShardId(0));
        let mut channel = table.rows.remove(at.0).expect("just entered");
        for slot_index in 0..count {
            channel.add(subscriber(slot_index));
        }
        channel
    }

    fn subscriber(index: u32) -> Subscriber {
        Subscriber {
            slot: Slot {
                index,
                generation: 0,
            },
            subscription: 0,
        }
    }

    /// Adds a frame of one byte; it is timed from the moment of the same number on.
    fn add(channel: &mut LocalChannel, number: u8) {
        let bytes = Arc::from([number].as_slice());
        channel.add_to_job(&bytes, None, Some(number.into()));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Publish,
        Slice(u32),
        Single(usize),
        Leave(usize),
        Join,
    }

    /// A slice of a job in which a position with its frames costs one unit of work.
    fn take(channel: &mut LocalChannel, positions: u32) -> Option<Slice> {
        channel.take_slice(100, Work(positions), |_, _| Work(1))
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            2 => Just(Step::Publish),
            4 => (1_u32..7).prop_map(Step::Slice),
            1 => any::<prop::sample::Index>().prop_map(|it| Step::Single(it.index(64))),
            2 => any::<prop::sample::Index>().prop_map(|it| Step::Leave(it.index(64))),
            2 => Just(Step::Join),
        ]
    }

    /// Runs a job by slices beside a model: what each slot should get, in order.
    struct Model {
        channel: LocalChannel,
        positions: AHashMap<u32, u32>,
        expected: AHashMap<u32, Vec<u8>>,
        got: AHashMap<u32, Vec<u8>>,
        /// By frame: how many were given it, and how many were told when it was done.
        given: BTreeMap<u8, u64>,
        timed: BTreeMap<u8, u64>,
    }

    impl Model {
        fn deliver(&mut self, slice: &Slice) {
            let mut count = 0;
            for position in slice.start..slice.end {
                let subscriber = self.channel.subscribers()[position as usize];
                if !subscriber.has_left() {
                    let got = self.got.entry(subscriber.slot.index).or_default();
                    got.extend(slice.frames.iter().map(|frame| frame.bytes[0]));
                    count += 1;
                }
            }
            self.sent(&slice.frames, count);
        }

        fn sent(&mut self, frames: &[JobFrame], count: u64) {
            for frame in frames {
                let number = frame.bytes[0];
                *self.given.entry(number).or_default() += count;
                if let Some(Timed { began_us, sent }) = self.channel.sent(frame, count) {
                    assert_eq!(began_us, u64::from(number));
                    assert_eq!(self.timed.insert(number, sent), None, "told once");
                }
            }
        }

        fn finish(&mut self) {
            if self.channel.has_job() {
                while let Some(slice) = take(&mut self.channel, 3) {
                    self.deliver(&slice);
                }
                for moved in self.channel.end_job() {
                    self.positions
                        .insert(moved.subscriber.slot.index, moved.position);
                }
            }
        }
    }

    #[test]
    fn a_slice_is_what_its_work_pays_for_and_one_position_at_least() {
        let each = |frames, bytes| Work(u32::try_from(100 * frames + bytes).expect("small"));
        for (frames, work, positions) in [(1, 1_010, 10), (1, 1, 1), (10, 10_100, 10), (10, 0, 1)] {
            let mut channel = channel(64);
            (0..frames).for_each(|number| add(&mut channel, number));
            let slice = channel.take_slice(20, Work(work), each).expect("a job");
            assert_eq!(
                slice.end - slice.start,
                positions,
                "{frames} frames for {work}"
            );
        }
    }

    #[test]
    fn a_channel_is_behind_by_the_frames_or_the_bytes_of_one_subscriber() {
        let mut channel = channel(2);
        (0..=255).for_each(|number| add(&mut channel, number));
        assert_eq!(
            channel.backlog(),
            Backlog {
                frames: 256,
                bytes: 256
            }
        );
        assert!(!channel.backlog().is_above(1));
        add(&mut channel, 0);
        assert!(channel.backlog().is_above(1));
        let bytes = Backlog {
            frames: 1,
            bytes: Backlog::HIGH.bytes + 1,
        };
        assert!(bytes.is_above(1));
    }

    proptest! {
        #[test]
        fn each_subscriber_of_its_time_gets_each_frame_once_and_in_order(
            steps in prop::collection::vec(step(), 1..60)
        ) {
            let count = 10;
            let mut model = Model {
                channel: channel(count),
                positions: (0..count).map(|it| (it, it)).collect(),
                expected: AHashMap::new(),
                got: AHashMap::new(),
                given: BTreeMap::new(),
                timed: BTreeMap::new(),
            };
            let (mut published, mut newest) = (0_u8, count);
            for step in steps {
                match step {
                    Step::Publish => {
                        published += 1;
                        add(&mut model.channel, published);
                        for slot in model.positions.keys() {
                            model.expected.entry(*slot).or_default().push(published);
                        }
                    }
                    Step::Slice(size) => {
                        if let Some(slice) = take(&mut model.channel, size) {
                            model.deliver(&slice);
                        } else {
                            model.finish();
                        }
                    }
                    Step::Single(choice) => {
                        let mut slots: Vec<u32> = model.positions.keys().copied().collect();
                        slots.sort_unstable();
                        if slots.is_empty() { continue; }
                        let slot = slots[choice % slots.len()];
                        let frames = model.channel.take_position(model.positions[&slot]);
                        let got = model.got.entry(slot).or_default();
                        got.extend(frames.iter().map(|frame| frame.bytes[0]));
                        let expected = model.expected.get(&slot).cloned().unwrap_or_default();
                        prop_assert_eq!(&*got, &expected, "nothing waits for it any more");
                        if got.is_empty() { model.got.remove(&slot); }
                        model.sent(&frames, 1);
                    }
                    Step::Leave(choice) => {
                        let mut slots: Vec<u32> = model.positions.keys().copied().collect();
                        slots.sort_unstable();
                        if slots.is_empty() { continue; }
                        let slot = slots[choice % slots.len()];
                        let position = model.positions.remove(&slot).expect("listed");
                        if let Some(moved) = model.channel.remove(position) {
                            model.positions.insert(moved.subscriber.slot.index, moved.position);
                        }
                        // What it had not got yet is lost with it: only the order must hold.
                        let got = model.got.remove(&slot).unwrap_or_default();
                        let expected = model.expected.remove(&slot).unwrap_or_default();
                        prop_assert!(expected.starts_with(&got));
                    }
                    Step::Join => {
                        let subscriber = subscriber(newest);
                        let position = model.channel.add(subscriber);
                        model.positions.insert(newest, position);
                        newest += 1;
                    }
                }
            }
            model.finish();
            prop_assert_eq!(&model.expected, &model.got);
            prop_assert_eq!(&model.given, &model.timed, "each frame was told with its last part");
            prop_assert_eq!(model.channel.subscribers().len(), model.positions.len());
            for (slot, position) in &model.positions {
                prop_assert_eq!(model.channel.subscribers()[*position as usize].slot.index, *slot);
            }
        }
    }
}
