//! Data path. What a shard has for the bridge, in lanes that do not hold each other up.
//!
//! Owns: the queues of one shard to the bridge, and the events that wait for room in theirs.
//! May depend on: crossbeam-channel, `application`.
//! Invariants: neither side waits for room; a full lane costs another lane nothing; events of one
//! source keep their order and take turns with other sources'; when events must go, they are the
//! oldest of the source that holds the most bytes; `AfterEvents` overtakes no event; a publish that
//! was taken is never dropped; that publishes are held is seen by the next one, however much waits; each lane but
//! that of control has a bound in bytes, which only what is larger by itself passes, while nothing else waits.

use crate::application::{BridgeDropped, Lane, PublishRoom};
use crossbeam_channel::{Receiver, Sender, bounded};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    mem,
    ops::Bound,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering, fence},
    },
};

/// Questions that wait; more are given back.
const QUESTIONS_MAX: usize = 1_024;
/// Messages that wait behind events; more are given back.
const LAST_MAX: usize = 16;
/// Events, and as many publishes, taken at once, so that what came meanwhile in the other lanes is
/// seen soon.
const EVENTS_PER_TAKE: usize = 1_024;

/// A shard's end.
pub(crate) struct LaneSender<M> {
    control: Sender<M>,
    questions: Sender<Event<M>>,
    states: Sender<Event<M>>,
    publishes: Sender<Event<M>>,
    events: Sender<Event<M>>,
    crossing: Arc<Crossing>,
    /// Bytes on their way in each lane but that of control; of events, as many again that wait here.
    bytes_max: usize,
    spilled: Spilled<M>,
    last: VecDeque<M>,
    has_posted: bool,
    /// Messages dropped or given back.
    pub(crate) lost: u64,
}

/// The bridge's end.
pub(crate) struct LaneReceiver<M> {
    control: Receiver<M>,
    questions: Receiver<Event<M>>,
    states: Receiver<Event<M>>,
    publishes: Receiver<Event<M>>,
    events: Receiver<Event<M>>,
    crossing: Arc<Crossing>,
}

/// What both ends know of what is between them.
#[derive(Default)]
struct Crossing {
    /// Of events.
    bytes: AtomicUsize,
    question_bytes: AtomicUsize,
    state_bytes: AtomicUsize,
    publish_bytes: AtomicUsize,
    /// A `PublishRoom`: what the bridge has behind it.
    publish_room: AtomicU8,
    /// What the shard hands over for others reaches nobody.
    is_cut_off: AtomicBool,
    /// Others may have told what the bridge has not heard yet.
    is_behind: AtomicBool,
    /// The shard has events that wait for room: ring it when there is some.
    wants_room: AtomicBool,
}

struct Event<M> {
    bytes: usize,
    message: M,
}

/// What one `take` found.
pub(crate) struct Taken {
    /// Something is left.
    pub(crate) has_more: bool,
    /// The shard waits for the room that was made.
    pub(crate) ring: bool,
}

/// Both ends: `messages_max` in the lanes of control, of state, of publishes and of events; `bytes_max` of
/// events on their way and waiting here, half as many of publishes, of state and of questions each.
pub(crate) fn lanes<M>(messages_max: usize, bytes_max: usize) -> (LaneSender<M>, LaneReceiver<M>) {
    let (control, control_end) = bounded(messages_max);
    let (questions, questions_end) = bounded(QUESTIONS_MAX);
    let (states, states_end) = bounded(messages_max);
    let (publishes, publishes_end) = bounded(messages_max);
    let (events, events_end) = bounded(messages_max);
    let crossing = Arc::new(Crossing::default());
    let sender = LaneSender {
        control,
        questions,
        states,
        publishes,
        events,
        crossing: Arc::clone(&crossing),
        bytes_max: bytes_max / 2,
        spilled: Spilled::default(),
        last: VecDeque::new(),
        has_posted: false,
        lost: 0,
    };
    let receiver = LaneReceiver {
        control: control_end,
        questions: questions_end,
        states: states_end,
        publishes: publishes_end,
        events: events_end,
        crossing,
    };
    (sender, receiver)
}

impl<M> LaneSender<M> {
    pub(crate) fn post(&mut self, lane: Lane, message: M) -> Result<(), BridgeDropped<M>> {
        self.has_posted = true;
        let dropped = match lane {
            Lane::Control => offer(&self.control, message),
            Lane::Question { bytes } => self.post_question(bytes, message),
            Lane::State { bytes } => self.post_state(bytes, message),
            Lane::Publish { bytes } => self.post_publish(bytes, message),
            Lane::Event { source, bytes } => self.post_event(source, bytes, message),
            Lane::AfterEvents if self.last.len() < LAST_MAX => {
                self.last.push_back(message);
                self.send_spilled();
                Vec::new()
            }
            Lane::AfterEvents => vec![message],
        };
        if dropped.is_empty() {
            return Ok(());
        }
        self.lost += dropped.len() as u64;
        Err(BridgeDropped(dropped))
    }

    fn post_question(&self, bytes: usize, message: M) -> Vec<M> {
        let counted = &self.crossing.question_bytes;
        offer_bytes(&self.questions, counted, self.bytes_max, bytes, message)
    }

    fn post_state(&self, bytes: usize, message: M) -> Vec<M> {
        let counted = &self.crossing.state_bytes;
        offer_bytes(&self.states, counted, self.bytes_max, bytes, message)
    }

    fn post_publish(&self, bytes: usize, message: M) -> Vec<M> {
        let counted = &self.crossing.publish_bytes;
        offer_bytes(&self.publishes, counted, self.bytes_max, bytes, message)
    }

    // While the bridge keeps up: two loads of a shared counter, one add, one push; no allocation.
    fn post_event(&mut self, source: u32, bytes: usize, message: M) -> Vec<M> {
        let bytes = bytes + size_of::<Event<M>>();
        let event = Event { bytes, message };
        if !self.has_spilled() && self.has_room() {
            self.send_event(event);
            return Vec::new();
        }
        self.spilled.push(source, event);
        self.send_spilled();
        let mut dropped = Vec::new();
        while self.spilled.bytes > self.bytes_max {
            dropped.push(self.spilled.drop_oldest());
        }
        dropped
    }

    /// Sends what waits for room, as far as there is some. True if anything was sent.
    pub(crate) fn send_spilled(&mut self) -> bool {
        if !self.has_spilled() {
            return false;
        }
        let mut has_sent = self.send_what_fits();
        if self.has_spilled() {
            self.crossing.wants_room.store(true, Ordering::SeqCst);
            // The other end may have made room just before it could see the wish.
            fence(Ordering::SeqCst);
            has_sent |= self.send_what_fits();
        }
        has_sent
    }

    fn send_what_fits(&mut self) -> bool {
        let mut has_sent = false;
        while self.has_room() {
            let event = self.spilled.pop_next().or_else(|| {
                let message = self.last.pop_front()?;
                Some(Event { bytes: 0, message })
            });
            let Some(event) = event else { break };
            self.send_event(event);
            has_sent = true;
        }
        self.has_posted |= has_sent;
        has_sent
    }

    fn send_event(&mut self, event: Event<M>) {
        self.crossing
            .bytes
            .fetch_add(event.bytes, Ordering::Relaxed);
        let sent = self.events.try_send(event);
        let kept = sent.err().map(crossbeam_channel::TrySendError::into_inner);
        // Only this end fills the lane, so the room that was seen is there, or nobody listens.
        if let Some(event) = kept {
            self.crossing
                .bytes
                .fetch_sub(event.bytes, Ordering::Relaxed);
            self.lost += 1;
        }
    }

    fn has_room(&self) -> bool {
        !self.events.is_full() && self.crossing.bytes.load(Ordering::Relaxed) < self.bytes_max
    }

    /// Events wait here for room.
    pub(crate) fn has_spilled(&self) -> bool {
        !self.spilled.sources.is_empty() || !self.last.is_empty()
    }

    /// True once after something was posted.
    pub(crate) fn take_posted(&mut self) -> bool {
        mem::take(&mut self.has_posted)
    }

    /// What room there is for publishes, in their lane and behind the bridge.
    // Two loads of shared counters.
    pub(crate) fn publish_room(&self) -> PublishRoom {
        const BEHIND: [PublishRoom; 3] =
            [PublishRoom::Free, PublishRoom::Scarce, PublishRoom::None];
        let behind = usize::from(self.crossing.publish_room.load(Ordering::Acquire));
        let behind = BEHIND.get(behind).copied().unwrap_or(PublishRoom::None);
        let bytes = self.crossing.publish_bytes.load(Ordering::Relaxed);
        match bytes > self.bytes_max - self.bytes_max / 4 {
            true => behind.max(PublishRoom::Scarce),
            false => behind,
        }
    }

    /// True while what is for others reaches nobody behind the bridge.
    pub(crate) fn is_cut_off(&self) -> bool {
        self.crossing.is_cut_off.load(Ordering::Acquire)
    }

    /// True while the bridge may not have heard all that others have told.
    pub(crate) fn is_behind(&self) -> bool {
        self.crossing.is_behind.load(Ordering::Acquire)
    }

    /// Messages that wait, here and on their way.
    pub(crate) fn depth(&self) -> usize {
        let waiting = self.spilled.messages + self.last.len();
        let asked = self.control.len() + self.questions.len();
        waiting + asked + self.states.len() + self.publishes.len() + self.events.len()
    }

    /// Bytes that wait, here and on their way, but those of control.
    pub(crate) fn bytes(&self) -> usize {
        let crossing = &self.crossing;
        let counted = [
            &crossing.bytes,
            &crossing.publish_bytes,
            &crossing.state_bytes,
            &crossing.question_bytes,
        ];
        let counted = counted.map(|bytes| bytes.load(Ordering::Relaxed));
        self.spilled.bytes + counted.into_iter().sum::<usize>()
    }
}

fn offer<M>(queue: &Sender<M>, message: M) -> Vec<M> {
    match queue.try_send(message) {
        Ok(()) => Vec::new(),
        Err(refused) => vec![refused.into_inner()],
    }
}

/// Offers a message of so many bytes on the heap to a lane that holds `bytes_max`; it comes back where there is no room.
// One load and one add of a shared counter, one push; no allocation.
fn offer_bytes<M>(
    queue: &Sender<Event<M>>,
    counted: &AtomicUsize,
    bytes_max: usize,
    bytes: usize,
    message: M,
) -> Vec<M> {
    let bytes = bytes + size_of::<Event<M>>();
    // One that is larger than the lane passes when nothing else waits.
    if counted.load(Ordering::Relaxed) >= bytes_max {
        return vec![message];
    }
    counted.fetch_add(bytes, Ordering::Relaxed);
    match queue.try_send(Event { bytes, message }) {
        Ok(()) => Vec::new(),
        Err(refused) => {
            counted.fetch_sub(bytes, Ordering::Relaxed);
            vec![refused.into_inner().message]
        }
    }
}

/// Takes what is there, `messages_max` at most. Returns how many came.
fn take_counted<M>(
    queue: &Receiver<Event<M>>,
    counted: &AtomicUsize,
    messages_max: usize,
    take: &mut impl FnMut(M),
) -> usize {
    let (mut bytes, mut count) = (0, 0);
    for event in queue.try_iter().take(messages_max) {
        bytes += event.bytes;
        count += 1;
        take(event.message);
    }
    let before = counted.fetch_sub(bytes, Ordering::Relaxed);
    assert!(before >= bytes, "more bytes left the lane than came");
    count
}

impl<M> LaneReceiver<M> {
    /// Tells the shard at once, however much waits in either direction. What it posts is taken all the same.
    pub(crate) fn set_publish_room(&self, room: PublishRoom) {
        self.crossing
            .publish_room
            .store(room as u8, Ordering::Release);
    }

    /// Tells the shard at once.
    pub(crate) fn set_cut_off(&self, is_cut_off: bool) {
        self.crossing
            .is_cut_off
            .store(is_cut_off, Ordering::Release);
    }

    /// Tells the shard at once.
    pub(crate) fn set_behind(&self, is_behind: bool) {
        self.crossing.is_behind.store(is_behind, Ordering::Release);
    }

    /// Takes what is there: all of the control, and a bounded part of the rest.
    pub(crate) fn take(&self, mut take: impl FnMut(M)) -> Taken {
        let crossing = &*self.crossing;
        let control = self.control.try_iter().take(self.control.len());
        control.for_each(&mut take);
        let (questions, bytes) = (&self.questions, &crossing.question_bytes);
        take_counted(questions, bytes, QUESTIONS_MAX, &mut take);
        let (states, bytes) = (&self.states, &crossing.state_bytes);
        take_counted(states, bytes, EVENTS_PER_TAKE, &mut take);
        let (publishes, bytes) = (&self.publishes, &crossing.publish_bytes);
        take_counted(publishes, bytes, EVENTS_PER_TAKE, &mut take);
        let (events, bytes) = (&self.events, &crossing.bytes);
        let count = take_counted(events, bytes, EVENTS_PER_TAKE, &mut take);
        fence(Ordering::SeqCst);
        let ring = count > 0 && self.crossing.wants_room.swap(false, Ordering::SeqCst);
        let no_questions = self.control.is_empty() && self.questions.is_empty();
        let no_questions = no_questions && self.states.is_empty();
        let is_empty = no_questions && self.publishes.is_empty() && self.events.is_empty();
        let has_more = !is_empty;
        Taken { has_more, ring }
    }
}

/// Events that wait for room, by source.
struct Spilled<M> {
    /// Sources with events, and only those.
    sources: BTreeMap<u32, Source<M>>,
    by_bytes: BTreeSet<(usize, u32)>,
    /// Whose turn it was last.
    cursor: u32,
    messages: usize,
    bytes: usize,
}

struct Source<M> {
    events: VecDeque<Event<M>>,
    bytes: usize,
}

impl<M> Default for Spilled<M> {
    fn default() -> Self {
        Self {
            sources: BTreeMap::new(),
            by_bytes: BTreeSet::new(),
            cursor: 0,
            messages: 0,
            bytes: 0,
        }
    }
}

impl<M> Spilled<M> {
    // Here and below: one look-up by source and one move in the order by bytes.
    fn push(&mut self, source: u32, event: Event<M>) {
        self.messages += 1;
        self.bytes += event.bytes;
        let row = self.sources.entry(source).or_insert_with(|| Source {
            events: VecDeque::new(),
            bytes: 0,
        });
        self.by_bytes.remove(&(row.bytes, source));
        row.bytes += event.bytes;
        row.events.push_back(event);
        self.by_bytes.insert((row.bytes, source));
    }

    /// The oldest event of the source whose turn it is.
    fn pop_next(&mut self) -> Option<Event<M>> {
        let after = (Bound::Excluded(self.cursor), Bound::Unbounded);
        let next = self.sources.range(after).next();
        let next = next.or_else(|| self.sources.iter().next());
        self.cursor = *next?.0;
        self.pop_of(self.cursor)
    }

    /// The oldest event of the source that holds the most.
    fn drop_oldest(&mut self) -> M {
        let heaviest = self.by_bytes.last().map(|(_, source)| *source);
        let event = heaviest.and_then(|source| self.pop_of(source));
        event.expect("bytes are held by a source").message
    }

    fn pop_of(&mut self, source: u32) -> Option<Event<M>> {
        let row = self.sources.get_mut(&source)?;
        let event = row.events.pop_front()?;
        self.by_bytes.remove(&(row.bytes, source));
        row.bytes -= event.bytes;
        if row.events.is_empty() {
            assert!(row.bytes == 0, "an empty source holds no bytes");
            self.sources.remove(&source);
        } else {
            self.by_bytes.insert((row.bytes, source));
        }
        self.messages -= 1;
        self.bytes -= event.bytes;
        Some(event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEIGHT: usize = 100;

    /// `source * 1000 + number`, of equal weight.
    fn event(source: u32) -> Lane {
        let bytes = WEIGHT - size_of::<Event<u32>>();
        Lane::Event { source, bytes }
    }

    /// Of as much weight.
    const QUESTION: Lane = Lane::Question {
        bytes: WEIGHT - size_of::<Event<u32>>(),
    };
    const STATE: Lane = Lane::State {
        bytes: WEIGHT - size_of::<Event<u32>>(),
    };

    fn take(receiver: &LaneReceiver<u32>) -> (Vec<u32>, Taken) {
        let mut messages = Vec::new();
        let taken = receiver.take(|message| messages.push(message));
        (messages, taken)
    }

    fn dropped(result: Result<(), BridgeDropped<u32>>) -> Vec<u32> {
        result.err().map_or_else(Vec::new, |dropped| dropped.0)
    }

    #[test]
    fn control_and_questions_pass_while_events_are_dropped() {
        let (mut sender, receiver) = lanes(1_000, WEIGHT * 8);
        let mut lost = 0;
        for number in 0..50 {
            lost += dropped(sender.post(event(1), 1_000 + number)).len();
        }
        assert_eq!(lost, 42, "four on their way, four waiting");
        assert_eq!(sender.lost, 42);
        assert!(sender.post(Lane::Control, 1).is_ok());
        assert!(sender.post(QUESTION, 2).is_ok());
        let (messages, taken) = take(&receiver);
        assert_eq!(messages, [1, 2, 1_000, 1_001, 1_002, 1_003]);
        assert!(taken.ring, "events wait for the room that was made");
        assert!(sender.send_spilled());
        let (messages, taken) = take(&receiver);
        assert_eq!(
            messages,
            [1_046, 1_047, 1_048, 1_049],
            "the oldest ones went"
        );
        assert!(!taken.ring);
        assert_eq!((sender.depth(), sender.bytes()), (0, 0));
    }

    #[test]
    fn a_flood_of_questions_refuses_no_control() {
        let (mut sender, receiver) = lanes(4, WEIGHT * 4_000);
        for number in 0..2_000 {
            let refused = sender.post(QUESTION, number).is_err();
            assert_eq!(refused, number >= QUESTIONS_MAX as u32, "{number}");
        }
        assert!(sender.post(Lane::Control, 9_999).is_ok());
        assert_eq!(take(&receiver).0[0], 9_999);
    }

    #[test]
    fn what_one_source_floods_is_dropped_from_that_source_only() {
        let (mut sender, receiver) = lanes(1_000, WEIGHT * 16);
        let mut lost = Vec::new();
        for number in 0..100 {
            lost.extend(dropped(sender.post(event(1), 1_000 + number)));
            if number >= 50 && number % 20 == 0 {
                lost.extend(dropped(sender.post(event(2), 2_000 + number)));
            }
        }
        assert!(lost.iter().all(|message| message / 1_000 == 1), "{lost:?}");
        take(&receiver);
        sender.send_spilled();
        let (messages, _) = take(&receiver);
        assert_eq!(
            messages,
            [1_094, 2_060, 1_095, 2_080, 1_096, 1_097, 1_098, 1_099],
            "the sources take turns"
        );
    }

    #[test]
    fn what_comes_after_events_stays_behind_them_and_is_never_dropped_for_them() {
        let (mut sender, receiver) = lanes(2, WEIGHT * 8);
        for number in 0..4 {
            assert!(sender.post(event(1), number).is_ok());
        }
        assert!(sender.post(Lane::AfterEvents, 99).is_ok());
        let mut all = Vec::new();
        while sender.depth() > 0 {
            all.extend(take(&receiver).0);
            sender.send_spilled();
        }
        assert_eq!(all, [0, 1, 2, 3, 99]);
    }

    #[test]
    fn publishes_beyond_the_bound_are_given_back_and_cost_events_nothing() {
        let (mut sender, receiver) = lanes(1_000, WEIGHT * 8);
        let bytes = WEIGHT - size_of::<Event<u32>>();
        let publish = Lane::Publish { bytes };
        for round in 0..3 {
            assert!(sender.post(event(1), 9).is_ok());
            for number in 0..10 {
                let refused = dropped(sender.post(publish, number));
                assert_eq!(refused.is_empty(), number < 4, "{number}");
            }
            assert_eq!(sender.bytes(), 5 * WEIGHT);
            assert_eq!(take(&receiver).0, [0, 1, 2, 3, 9]);
            assert_eq!(sender.lost, (round + 1) * 6);
        }
        let large = Lane::Publish { bytes: 100_000 };
        assert!(sender.post(large, 1).is_ok());
        assert_eq!(dropped(sender.post(publish, 2)), [2]);
        assert_eq!(take(&receiver).0, [1]);
    }

    #[test]
    fn each_lane_has_a_bound_in_bytes_of_its_own() {
        let (mut sender, receiver) = lanes(1_000, WEIGHT * 8);
        for _ in 0..2 {
            for (lane, first) in [(QUESTION, 100), (STATE, 200)] {
                for number in 0..10 {
                    let given_back = dropped(sender.post(lane, first + number));
                    let fits = number < 4;
                    let expected = if fits { vec![] } else { vec![first + number] };
                    assert_eq!(given_back, expected, "{lane:?}");
                }
            }
            assert_eq!(sender.bytes(), 8 * WEIGHT);
            assert_eq!(take(&receiver).0, [100, 101, 102, 103, 200, 201, 202, 203]);
            assert_eq!(sender.bytes(), 0);
        }
        let large = Lane::State { bytes: 100_000 };
        assert!(sender.post(large, 1).is_ok(), "nothing else waits");
        assert_eq!(dropped(sender.post(STATE, 2)), [2]);
        assert!(sender.post(QUESTION, 3).is_ok());
    }

    #[test]
    fn a_shard_sees_at_once_that_publishes_are_held_and_what_it_posts_is_taken() {
        let (mut sender, receiver) = lanes(1_000, WEIGHT * 8);
        assert_eq!(sender.publish_room(), PublishRoom::Free);
        for room in [PublishRoom::Scarce, PublishRoom::None] {
            receiver.set_publish_room(room);
            assert_eq!(sender.publish_room(), room);
            // What was begun is finished, and what is for somebody else passes.
            assert!(sender.post(Lane::Publish { bytes: 1 }, 1).is_ok());
            assert_eq!(take(&receiver).0, [1]);
        }
        receiver.set_publish_room(PublishRoom::Free);
        assert_eq!(sender.publish_room(), PublishRoom::Free);
    }

    #[test]
    fn the_last_quarter_of_the_lane_of_publishes_is_scarce() {
        let (mut sender, receiver) = lanes(1_000, WEIGHT * 16);
        let publish = Lane::Publish {
            bytes: WEIGHT - size_of::<Event<u32>>(),
        };
        let mut rooms = Vec::new();
        for number in 0..8 {
            rooms.push(sender.publish_room());
            assert!(sender.post(publish, number).is_ok(), "{number}");
        }
        let [free, scarce] = [PublishRoom::Free, PublishRoom::Scarce];
        assert_eq!(rooms, [[free; 7].as_slice(), &[scarce]].concat());
        assert_eq!(sender.publish_room(), scarce);
        receiver.set_publish_room(PublishRoom::None);
        assert_eq!(sender.publish_room(), PublishRoom::None);
        receiver.set_publish_room(free);
        take(&receiver);
        assert_eq!(sender.publish_room(), free);
    }

    #[test]
    fn a_shard_sees_at_once_whether_the_bridge_reaches_others_and_hears_them() {
        let (sender, receiver) = lanes::<u64>(1_000, WEIGHT * 8);
        let seen = |sender: &LaneSender<u64>| {
            let holds = sender.publish_room() == PublishRoom::None;
            (sender.is_cut_off(), sender.is_behind(), holds)
        };
        assert_eq!(seen(&sender), (false, false, false));
        receiver.set_cut_off(true);
        assert_eq!(seen(&sender), (true, false, false));
        receiver.set_behind(true);
        receiver.set_cut_off(false);
        assert_eq!(seen(&sender), (false, true, false));
        receiver.set_behind(false);
        assert_eq!(seen(&sender), (false, false, false));
    }

    #[test]
    fn an_event_larger_than_the_lane_passes_when_nothing_else_waits() {
        let (mut sender, receiver) = lanes(4, WEIGHT * 8);
        let large = Lane::Event {
            source: 1,
            bytes: WEIGHT * 100,
        };
        assert!(sender.post(large, 1).is_ok());
        assert_eq!(dropped(sender.post(large, 2)), [2]);
        assert_eq!(take(&receiver).0, [1]);
        assert!(sender.post(large, 3).is_ok());
    }

    #[test]
    fn the_bytes_that_wait_never_pass_the_bound_by_more_than_one_event() {
        let (mut sender, receiver) = lanes(1_000, 20_000);
        let mut random = 7_u32;
        for number in 0..10_000 {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let bytes = random as usize >> 22; // Up to 1 023.
            let source = random % 7;
            let _ = sender.post(Lane::Event { source, bytes }, number);
            if random.is_multiple_of(31) {
                take(&receiver);
            }
            assert!(sender.bytes() <= 20_000 + 1_100, "{}", sender.bytes());
        }
        let held: usize = sender.spilled.sources.values().map(|row| row.bytes).sum();
        assert_eq!(held, sender.spilled.bytes);
        assert_eq!(sender.spilled.by_bytes.len(), sender.spilled.sources.len());
    }
}
