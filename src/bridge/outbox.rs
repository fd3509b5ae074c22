//! Messages to shards that met a full queue.
//!
//! Owns: what waits per shard, and what is left out.
//! May depend on: `bridge::{link, message}`.
//! Invariants: the bridge never waits for a shard; config, health, the steps of a drain, an order
//! to shed and the question for numbers always arrive, the latest of each; so do answers, of which a shard never
//! awaits more than fit, changes of apps and news of topics, in order; events of other nodes keep their order, and
//! where they would hold more than their bound the newest is dropped and counted.

use std::collections::VecDeque;

use shards::application::{BridgeFull, ShardId};

use super::{
    link::ShardLink,
    message::{FromBridge, NodeEvent, USAGES_ASKED_MAX},
};

/// What could not be sent yet, for all shards.
#[derive(Debug)]
pub(super) struct Outbox {
    shards: Vec<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// Of what only the newest counts.
    newest: [Option<FromBridge>; NEWEST],
    lines: [VecDeque<FromBridge>; LINES],
    events: VecDeque<Box<NodeEvent>>,
    event_bytes: usize,
    /// Messages that met a full queue.
    full: u64,
    events_dropped: u64,
}

/// Where a message waits.
#[derive(Clone, Copy)]
enum Place {
    /// In place of the one before it.
    Newest(usize),
    /// Behind those before it.
    Line(usize),
    /// Among events, which are dropped beyond a bound.
    Events,
}

const NEWEST: usize = 8;
const LINES: usize = 5;
/// Changes of apps and answers to who looks for one.
const APPS: Place = Place::Line(0);
/// Live topics behind the last loss of all of them.
const TOPICS: usize = 1;
const ANSWERS: usize = 2;
/// Answers about rates: one for each that a shard asked for.
const RATES: usize = 4;
/// What other nodes have: nothing of it may be lost, so who sends it stops while much waits.
const STATES: usize = 3;

/// What goes first. The configuration goes before the apps that it is read with.
const ORDER: [Place; NEWEST + LINES + 1] = [
    Place::Newest(0),
    APPS,
    Place::Newest(1),
    Place::Newest(2),
    Place::Newest(3),
    Place::Newest(4),
    Place::Newest(5),
    Place::Newest(6),
    Place::Newest(7),
    Place::Line(TOPICS),
    Place::Line(ANSWERS),
    Place::Line(RATES),
    Place::Line(STATES),
    Place::Events,
];

fn place_of(message: &FromBridge) -> Place {
    match message {
        FromBridge::Config(_) => Place::Newest(0),
        FromBridge::Apps { .. }
        | FromBridge::AppsOpen { .. }
        | FromBridge::ForgetMissing
        | FromBridge::AppFound { .. } => APPS,
        FromBridge::RateTaken(_) => Place::Line(RATES),
        FromBridge::Health(_) => Place::Newest(1),
        FromBridge::Drain { .. } => Place::Newest(2),
        FromBridge::Shed { .. } => Place::Newest(3),
        FromBridge::Settle => Place::Newest(4),
        FromBridge::Scrape { .. } => Place::Newest(5),
        FromBridge::Tls(_) => Place::Newest(6),
        FromBridge::Largest { .. } => Place::Newest(7),
        FromBridge::TopicsLive(_) | FromBridge::TopicsLost => Place::Line(TOPICS),
        FromBridge::Usage { .. } => Place::Line(ANSWERS),
        FromBridge::State(_)
        // Each says what fell due between two of them, and comes where it came among what did.
        | FromBridge::Owned(_)
        | FromBridge::Terminate(_)
        | FromBridge::Spent(_)
        | FromBridge::KeptAsk(_)
        | FromBridge::Kept(_)
        | FromBridge::Found(_) => Place::Line(STATES),
        // One after the other, and nothing else is on its way to a shard that is still.
        FromBridge::Export { .. }
        | FromBridge::ExportMore { .. }
        | FromBridge::ExportConnections
        | FromBridge::Import(_)
        | FromBridge::TakenOver { .. } => Place::Line(STATES),
        FromBridge::Event(_) => Place::Events,
    }
}

/// Answers that wait for one shard: as many as it may await.
const ANSWERS_MAX: usize = USAGES_ASKED_MAX as usize;
/// Changes of other nodes' state that wait for one shard before no more are taken from the bus.
const STATES_MANY: usize = 16_384;
/// Bytes of other nodes' events that wait for one shard, beside those in its queue.
const EVENT_BYTES_MAX: usize = 8 << 20;

impl Outbox {
    pub(super) fn new(shards: u16) -> Self {
        Self {
            shards: (0..shards).map(|_| Waiting::default()).collect(),
        }
    }

    /// Sends to one shard, or keeps the message for `retry`.
    pub(super) fn send(&mut self, link: &impl ShardLink, to: ShardId, message: FromBridge) {
        let waiting = &mut self.shards[usize::from(to.0)];
        if waiting.is_ahead_of(&message) {
            return waiting.keep(message);
        }
        if let Err(BridgeFull(message)) = link.send(to, message) {
            waiting.full += 1;
            waiting.keep(message);
        }
    }

    /// Tries again what waits.
    pub(super) fn retry(&mut self, link: &impl ShardLink) {
        for (index, waiting) in self.shards.iter_mut().enumerate() {
            let to = ShardId(u16::try_from(index).expect("shards are numbered in u16"));
            while let Some(message) = waiting.take() {
                if let Err(BridgeFull(message)) = link.send(to, message) {
                    waiting.put_back(message);
                    break;
                }
            }
        }
    }

    /// Nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.shards.iter().all(Waiting::is_empty)
    }

    /// Messages to the shard that met a full queue.
    pub(super) fn full(&self, shard: usize) -> u64 {
        self.shards[shard].full
    }

    /// So much of other nodes' state waits for shards that no more should be sent.
    pub(super) fn is_behind(&self) -> bool {
        self.shards
            .iter()
            .any(|it| it.lines[STATES].len() >= STATES_MANY)
    }

    /// Events of other nodes that shards will not get.
    pub(super) fn events_dropped(&self) -> u64 {
        self.shards.iter().map(|it| it.events_dropped).sum()
    }
}

impl Waiting {
    /// Something waits that the message may not overtake. Answers go to who asked, each for itself.
    fn is_ahead_of(&self, message: &FromBridge) -> bool {
        match place_of(message) {
            Place::Newest(_) | Place::Line(ANSWERS | RATES) => false,
            Place::Line(line) => !self.lines[line].is_empty(),
            Place::Events => !self.events.is_empty(),
        }
    }

    fn keep(&mut self, message: FromBridge) {
        if matches!(message, FromBridge::TopicsLost) {
            self.lines[TOPICS].clear();
        }
        let place = place_of(&message);
        match (place, message) {
            (Place::Newest(place), message) => self.newest[place] = Some(message),
            (_, FromBridge::Event(event)) => {
                let bytes = event.approximate_bytes();
                if self.event_bytes + bytes > EVENT_BYTES_MAX {
                    self.events_dropped += 1;
                    return;
                }
                self.event_bytes += bytes;
                self.events.push_back(event);
            }
            (Place::Line(line), message) => {
                self.lines[line].push_back(message);
                let answers = self.lines[ANSWERS].len();
                assert!(answers <= ANSWERS_MAX, "more answers than asked for");
            }
            (Place::Events, _) => unreachable!("only an event is among events"),
        }
    }

    fn take(&mut self) -> Option<FromBridge> {
        ORDER.into_iter().find_map(|place| match place {
            Place::Newest(place) => self.newest[place].take(),
            Place::Line(line) => self.lines[line].pop_front(),
            Place::Events => {
                let event = self.events.pop_front()?;
                self.event_bytes -= event.approximate_bytes();
                Some(FromBridge::Event(event))
            }
        })
    }

    /// What was taken and not sent; nothing newer of its kind has come meanwhile.
    fn put_back(&mut self, message: FromBridge) {
        let place = place_of(&message);
        match (place, message) {
            (Place::Newest(place), message) => self.newest[place] = Some(message),
            (_, FromBridge::Event(event)) => {
                self.event_bytes += event.approximate_bytes();
                self.events.push_front(event);
            }
            (Place::Line(line), message) => self.lines[line].push_front(message),
            (Place::Events, _) => unreachable!("only an event is among events"),
        }
    }

    fn is_empty(&self) -> bool {
        let no_news = self.newest.iter().all(Option::is_none);
        no_news && self.lines.iter().all(VecDeque::is_empty) && self.events.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::bridge::health::Health;
    use crate::bridge::message::Ownership;
    use shards::application::Waiter;

    use crate::bridge::fixture::FakeLink;

    #[test]
    fn a_full_queue_keeps_the_latest_state_and_every_answer_in_order() {
        let (link, mut shards) = FakeLink::new(1, 1);
        let mut outbox = Outbox::new(1);
        let to = ShardId(0);
        let failing = Health {
            queue_failing: true,
            ..Health::default()
        };
        for message in [
            FromBridge::Scrape { token: 1 },
            FromBridge::Health(Health::default()),
            FromBridge::Scrape { token: 2 },
            FromBridge::Health(failing),
            usage(1),
            FromBridge::Scrape { token: 3 },
            usage(2),
        ] {
            outbox.send(&link, to, message);
        }
        assert_eq!(outbox.full(0), 6);
        let mut received = Vec::new();
        while !outbox.is_empty() {
            received.extend(shards.told(0));
            outbox.retry(&link);
        }
        received.extend(shards.told(0));
        let shown: Vec<String> = received
            .iter()
            .map(|message| format!("{message:?}"))
            .collect();
        let health = format!("{:?}", FromBridge::Health(failing));
        assert_eq!(
            shown,
            [
                "Scrape { token: 1 }",
                &health,
                "Scrape { token: 3 }",
                &format!("{:?}", usage(1)),
                &format!("{:?}", usage(2)),
            ]
        );
    }

    #[test]
    fn each_change_of_who_tells_webhooks_waits_and_none_replaces_another() {
        let (link, mut shards) = FakeLink::new(1, 1);
        let mut outbox = Outbox::new(1);
        let changes = [5, 9, u64::MAX].map(|until| Ownership {
            until: ::shards::application::Millis(until),
            ..Ownership::default()
        });
        outbox.send(&link, ShardId(0), FromBridge::Scrape { token: 1 });
        for change in &changes {
            outbox.send(
                &link,
                ShardId(0),
                FromBridge::Owned(Box::new(change.clone())),
            );
        }
        let mut told = Vec::new();
        while !outbox.is_empty() {
            told.extend(shards.told(0));
            outbox.retry(&link);
        }
        told.extend(shards.told(0));
        let told = told.into_iter().filter_map(|message| match message {
            FromBridge::Owned(change) => Some(*change),
            _ => None,
        });
        assert_eq!(told.collect::<Vec<_>>(), changes);
    }

    #[test]
    fn every_kind_of_message_that_met_a_full_queue_waits() {
        let drain = FromBridge::Drain {
            deadline: shards::application::Millis(1),
            rate_per_s: 0,
        };
        for message in [
            FromBridge::Scrape { token: 7 },
            FromBridge::Settle,
            FromBridge::Health(Health::default()),
            FromBridge::Apps {
                number: 1,
                changes: Arc::default(),
            },
            drain,
            usage(1),
        ] {
            let expected = format!("{message:?}");
            let (link, mut shards) = FakeLink::new(1, 1);
            let mut outbox = Outbox::new(1);
            outbox.send(&link, ShardId(0), FromBridge::Scrape { token: 1 });
            outbox.send(&link, ShardId(0), message);
            assert!(!outbox.is_empty(), "{expected} waits");
            shards.told(0);
            outbox.retry(&link);
            assert!(outbox.is_empty(), "{expected} went");
            let received = shards.told(0);
            assert_eq!(format!("{:?}", received[0]), expected);
        }
    }

    fn usage(operation: u32) -> FromBridge {
        let slot = shards::application::Slot {
            index: 0,
            generation: 0,
        };
        let waiter = Waiter {
            shard: ShardId(0),
            slot,
            operation,
        };
        let body = "{}".into();
        FromBridge::Usage { waiter, body }
    }

    #[test]
    fn as_many_answers_as_a_shard_may_await_all_arrive() {
        let (link, mut shards) = FakeLink::new(1, 1);
        let mut outbox = Outbox::new(1);
        for operation in 0..USAGES_ASKED_MAX {
            outbox.send(&link, ShardId(0), usage(operation));
        }
        let mut operations = Vec::new();
        while operations.len() < ANSWERS_MAX {
            for message in shards.told(0) {
                if let FromBridge::Usage { waiter, .. } = message {
                    operations.push(waiter.operation);
                }
            }
            outbox.retry(&link);
        }
        assert!(operations.into_iter().eq(0..USAGES_ASKED_MAX));
    }
}
