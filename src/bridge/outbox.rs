//! Messages to shards that met a full queue.
//!
//! Owns: what waits per shard, and what is left out.
//! May depend on: `bridge::{link, message}`.
//! Invariants: the bridge never waits for a shard; config, apps, health and the steps of a drain
//! always arrive, the latest of each; answers beyond the bound are dropped oldest first and counted.

use std::{collections::VecDeque, mem, sync::Arc};

use shards::application::{BridgeFull, ShardId};

use super::{
    apps::AppTable,
    link::ShardLink,
    message::{FromBridge, Health},
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
    apps: Option<Arc<AppTable>>,
    health: Option<Health>,
    drain: Option<FromBridge>,
    settles: bool,
    answers: VecDeque<FromBridge>,
    /// Messages that met a full queue.
    full: u64,
}

/// Answers that wait for one shard; who waits for a dropped one runs into its own timeout.
const ANSWERS_MAX: usize = 1_024;

impl Outbox {
    pub(super) fn new(shards: u16) -> Self {
        Self {
            shards: (0..shards).map(|_| Waiting::default()).collect(),
        }
    }

    /// Sends to one shard, or keeps the message for `retry`.
    pub(super) fn send(&mut self, link: &impl ShardLink, to: ShardId, message: FromBridge) {
        let waiting = &mut self.shards[usize::from(to.0)];
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
}

impl Waiting {
    fn keep(&mut self, message: FromBridge) {
        match message {
            FromBridge::Config(config) => self.config = Some(config),
            FromBridge::Apps(apps) => self.apps = Some(apps),
            FromBridge::Health(health) => self.health = Some(health),
            FromBridge::Drain { .. } => self.drain = Some(message),
            FromBridge::Settle => self.settles = true,
            FromBridge::Usage { .. } | FromBridge::Scrape { .. } => {
                if self.answers.len() >= ANSWERS_MAX {
                    self.answers.pop_front();
                }
                self.answers.push_back(message);
            }
        }
    }

    fn take(&mut self) -> Option<FromBridge> {
        let state = self.config.take().map(FromBridge::Config);
        let state = state.or_else(|| self.apps.take().map(FromBridge::Apps));
        let state = state.or_else(|| self.health.take().map(FromBridge::Health));
        state
            .or_else(|| self.drain.take())
            .or_else(|| mem::take(&mut self.settles).then_some(FromBridge::Settle))
            .or_else(|| self.answers.pop_front())
    }

    fn put_back(&mut self, message: FromBridge) {
        match message {
            FromBridge::Usage { .. } | FromBridge::Scrape { .. } => {
                self.answers.push_front(message);
            }
            FromBridge::Config(_)
            | FromBridge::Apps(_)
            | FromBridge::Health(_)
            | FromBridge::Drain { .. }
            | FromBridge::Settle => {
                self.keep(message);
            }
        }
    }

    fn is_empty(&self) -> bool {
        let no_state = self.config.is_none()
            && self.apps.is_none()
            && self.health.is_none()
            && self.drain.is_none();
        no_state && self.answers.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
            FromBridge::Scrape { token: 3 },
        ] {
            outbox.send(&link, to, message);
        }
        assert_eq!(outbox.full(0), 4);
        let mut received = Vec::new();
        while !outbox.is_empty() {
            received.extend(shards.received(0));
            outbox.retry(&link);
        }
        received.extend(shards.received(0));
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
                "Scrape { token: 2 }",
                "Scrape { token: 3 }"
            ]
        );
    }

    #[test]
    fn answers_beyond_the_bound_drop_the_oldest() {
        let (link, mut shards) = FakeLink::new(1, 1);
        let mut outbox = Outbox::new(1);
        let bound = ANSWERS_MAX as u64;
        for token in 0..=bound + 1 {
            outbox.send(&link, ShardId(0), FromBridge::Scrape { token });
        }
        assert_eq!(shards.received(0).len(), 1, "token 0 went at once");
        outbox.retry(&link);
        let first = format!("{:?}", shards.received(0)[0]);
        assert_eq!(
            first, "Scrape { token: 2 }",
            "token 1 was the oldest one waiting"
        );
    }
}
