//! Messages to shards that met a full queue.
//!
//! Owns: what waits per shard, and what is left out.
//! May depend on: `bridge::{link, message}`.
//! Invariants: the bridge never waits for a shard; config, health, the steps of a drain, an order
//! to shed and the question for numbers always arrive, the latest of each; so do answers, of which a shard never
//! awaits more than fit, changes of apps and news of topics, in order; events of other nodes keep their order, and
//! where they would hold more than their bound the newest is dropped and counted.

use std::{collections::VecDeque, mem, sync::Arc};

use shards::application::{BridgeFull, ShardId};

use super::{
    link::ShardLink,
    message::{FromBridge, Health, NodeEvent, Ownership, USAGES_ASKED_MAX},
};
use crate::config::Config;

/// What could not be sent yet, for all shards.
#[derive(Debug)]
pub(super) struct Outbox {
    shards: Vec<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    config: Option<Arc<Config>>,
    /// Changes of apps and answers to who looks for one, in order.
    apps: VecDeque<FromBridge>,
    health: Option<Health>,
    drain: Option<FromBridge>,
    shed: Option<FromBridge>,
    settles: bool,
    scrape: Option<u64>,
    /// Live topics behind the last loss of all of them.
    topics: VecDeque<FromBridge>,
    owned: Option<Box<Ownership>>,
    answers: VecDeque<FromBridge>,
    /// What other nodes have: nothing of it may be lost, so who sends it stops while much waits.
    states: VecDeque<FromBridge>,
    events: VecDeque<Box<NodeEvent>>,
    event_bytes: usize,
    /// Messages that met a full queue.
    full: u64,
    events_dropped: u64,
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
        self.shards.iter().any(|it| it.states.len() >= STATES_MANY)
    }

    /// Events of other nodes that shards will not get.
    pub(super) fn events_dropped(&self) -> u64 {
        self.shards.iter().map(|it| it.events_dropped).sum()
    }
}

impl Waiting {
    /// Something waits that the message may not overtake.
    fn is_ahead_of(&self, message: &FromBridge) -> bool {
        match message {
            FromBridge::Event(_) => !self.events.is_empty(),
            FromBridge::State(_)
            | FromBridge::Terminate(_)
            | FromBridge::Spent(_)
            | FromBridge::KeptAsk(_)
            | FromBridge::Kept(_) => !self.states.is_empty(),
            FromBridge::TopicsLive(_) | FromBridge::TopicsLost => !self.topics.is_empty(),
            FromBridge::Apps { .. }
            | FromBridge::AppsOpen { .. }
            | FromBridge::ForgetMissing
            | FromBridge::AppFound { .. } => !self.apps.is_empty(),
            FromBridge::Config(_)
            | FromBridge::Health(_)
            | FromBridge::Drain { .. }
            | FromBridge::Shed { .. }
            | FromBridge::Settle
            | FromBridge::Scrape { .. }
            | FromBridge::Owned(_)
            | FromBridge::Usage { .. } => false,
        }
    }

    fn keep(&mut self, message: FromBridge) {
        match message {
            FromBridge::Config(config) => self.config = Some(config),
            FromBridge::Apps { .. }
            | FromBridge::AppsOpen { .. }
            | FromBridge::ForgetMissing
            | FromBridge::AppFound { .. } => {
                self.apps.push_back(message);
            }
            FromBridge::Health(health) => self.health = Some(health),
            FromBridge::Drain { .. } => self.drain = Some(message),
            FromBridge::Shed { .. } => self.shed = Some(message),
            FromBridge::Settle => self.settles = true,
            FromBridge::Scrape { token } => self.scrape = Some(token),
            FromBridge::Owned(owned) => self.owned = Some(owned),
            FromBridge::TopicsLost => {
                self.topics.clear();
                self.topics.push_back(message);
            }
            FromBridge::TopicsLive(_) => self.topics.push_back(message),
            FromBridge::State(_)
            | FromBridge::Terminate(_)
            | FromBridge::Spent(_)
            | FromBridge::KeptAsk(_)
            | FromBridge::Kept(_) => {
                self.states.push_back(message);
            }
            FromBridge::Event(event) => {
                let bytes = event.approximate_bytes();
                if self.event_bytes + bytes > EVENT_BYTES_MAX {
                    self.events_dropped += 1;
                    return;
                }
                self.event_bytes += bytes;
                self.events.push_back(event);
            }
            FromBridge::Usage { .. } => {
                assert!(
                    self.answers.len() < ANSWERS_MAX,
                    "more answers than asked for"
                );
                self.answers.push_back(message);
            }
        }
    }

    fn take(&mut self) -> Option<FromBridge> {
        let state = self.config.take().map(FromBridge::Config);
        let state = state.or_else(|| self.apps.pop_front());
        let state = state.or_else(|| self.health.take().map(FromBridge::Health));
        state
            .or_else(|| self.drain.take())
            .or_else(|| self.shed.take())
            .or_else(|| mem::take(&mut self.settles).then_some(FromBridge::Settle))
            .or_else(|| {
                let token = self.scrape.take()?;
                Some(FromBridge::Scrape { token })
            })
            .or_else(|| self.owned.take().map(FromBridge::Owned))
            .or_else(|| self.topics.pop_front())
            .or_else(|| self.answers.pop_front())
            .or_else(|| self.states.pop_front())
            .or_else(|| {
                let event = self.events.pop_front()?;
                self.event_bytes -= event.approximate_bytes();
                Some(FromBridge::Event(event))
            })
    }

    fn put_back(&mut self, message: FromBridge) {
        match message {
            FromBridge::Usage { .. } => self.answers.push_front(message),
            FromBridge::TopicsLive(_) | FromBridge::TopicsLost => self.topics.push_front(message),
            FromBridge::State(_)
            | FromBridge::Terminate(_)
            | FromBridge::Spent(_)
            | FromBridge::KeptAsk(_)
            | FromBridge::Kept(_) => {
                self.states.push_front(message);
            }
            FromBridge::Event(event) => {
                self.event_bytes += event.approximate_bytes();
                self.events.push_front(event);
            }
            FromBridge::Apps { .. }
            | FromBridge::AppsOpen { .. }
            | FromBridge::ForgetMissing
            | FromBridge::AppFound { .. } => {
                self.apps.push_front(message);
            }
            FromBridge::Scrape { .. }
            | FromBridge::Config(_)
            | FromBridge::Health(_)
            | FromBridge::Drain { .. }
            | FromBridge::Shed { .. }
            | FromBridge::Owned(_)
            | FromBridge::Settle => {
                self.keep(message);
            }
        }
    }

    fn is_empty(&self) -> bool {
        let no_state = self.owned.is_none()
            && self.config.is_none()
            && self.apps.is_empty()
            && self.health.is_none()
            && self.drain.is_none()
            && self.shed.is_none()
            && !self.settles
            && self.scrape.is_none();
        let no_news = self.topics.is_empty() && self.states.is_empty() && self.events.is_empty();
        no_state && no_news && self.answers.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
