//! The exchange of a process that takes the place of another one, in the middle of its cluster.
//!
//! Owns: `Following`: what the bus brings before that; `Exchange::{carry, following, take_over}`.
//! May depend on: `bridge::{adapter::news, apps}`, `cluster`, serde, MessagePack. Not on a bus or a clock.
//! Invariants: until it takes over nothing is published and nothing told; from the moment at which all topics
//! are proven nothing that they bring is missed, and what both processes have heard is taken once.

use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use shards::application::ShardId;

use super::{
    exchange::{Command, Exchange, Setup, millis},
    told::{Told, home_of},
};
use crate::{
    bridge::{adapter::news::News, apps::AppTable, message::FromBridge},
    cluster::{
        carrying::{Carried, CarryError},
        fault::{Fault, is_planted},
        node::{Node, Setup as NodeSetup},
        topic::{Road, Topic},
        wire::Lane,
    },
    protocol::partition::Partition,
};

/// What is kept for an exchange that has not taken over.
#[derive(Debug)]
pub(super) struct Following {
    setup: NodeSetup,
    kept: VecDeque<Kept>,
    /// At most `KEPT_BYTES_MAX`, or those of one batch.
    bytes: usize,
    /// Topics on which the others speak of themselves were lost after they were live: since when it hears them
    /// again, or does not.
    deaf_until: Option<Duration>,
    /// What the other process knew, once it has said so.
    carried: Option<Box<(Carried, ExchangeRecord)>>,
}

/// Batches that came while this process hands over, and are read if that comes to nothing.
#[derive(Debug, Default)]
pub(super) struct Held {
    batches: Vec<(Topic, Vec<u8>)>,
    /// What else the bus brought, once shards may be told nothing any more.
    news: Option<Vec<News>>,
    bytes: usize,
}

#[derive(Debug)]
struct Kept {
    at: Duration,
    topic: Topic,
    bytes: Vec<u8>,
}

/// Beside the node.
#[derive(Debug, Deserialize, Serialize)]
struct ExchangeRecord {
    has_come: bool,
    has_heard: bool,
    apps_have_changed: bool,
    /// Ids of all that are known: shards have been told what the others have of them.
    apps: Vec<String>,
    /// By lane, batches that have come and were not read. They may be from before the next process heard anything.
    #[serde(default)]
    held: Vec<(u16, ByteBuf)>,
}

impl Exchange {
    /// Writes what the next process needs to go on in its place; after `flush` and the last of `tell_views`.
    /// Nothing changes, so that this one may go on itself.
    pub fn carry(&self, apps: &AppTable, put: &mut impl FnMut(Vec<u8>)) {
        let known = apps.known().into_iter().map(|(_, id)| id.to_owned());
        let held = self.held.iter().flat_map(|held| &held.batches);
        let held = held.filter(|_| !is_planted(Fault::CarriedHeldLost));
        let held = held.map(|(topic, bytes)| (topic.lane().0, ByteBuf::from(bytes.as_slice())));
        let record = ExchangeRecord {
            has_come: self.has_come,
            has_heard: self.has_heard,
            apps_have_changed: self.apps_have_changed,
            apps: known.collect(),
            held: held.collect(),
        };
        let beside = rmp_serde::to_vec_named(&record).expect("plain values can be written");
        self.node.carry(&self.owners, &beside, put);
    }

    /// Partitions whose topics it is subscribed to, or has asked for: those that the next process is to follow.
    pub fn subscribed(&self) -> impl Iterator<Item = Partition> {
        self.topics.subscribed()
    }

    /// Of a process that is to take the place of another one, of the same life of the same node: it
    /// subscribes, and keeps what it hears. `setup` names that life.
    pub fn following(
        now: Duration,
        setup: Setup,
        partitions: impl IntoIterator<Item = Partition>,
    ) -> Self {
        let following = Following {
            setup: setup.node.clone(),
            kept: VecDeque::new(),
            bytes: 0,
            deaf_until: None,
            carried: None,
        };
        let mut exchange = Self::new(now, setup);
        exchange.following = Some(Box::new(following));
        exchange.follow(partitions);
        exchange
    }

    /// Subscribes to more of the topics that the other process has meanwhile; before it takes over.
    pub fn follow(&mut self, partitions: impl IntoIterator<Item = Partition>) {
        for partition in partitions {
            if self.topics.follow(partition) {
                let topic = Topic::Events(partition);
                self.commands.push_back(Command::Subscribe(topic));
            }
        }
    }

    /// It has not taken over.
    pub fn is_following(&self) -> bool {
        self.following.is_some()
    }

    /// Whether these partitions' topics, and all to which every node listens, are live now.
    pub fn is_proven(&self, partitions: impl IntoIterator<Item = Partition>) -> bool {
        let mut partitions = partitions.into_iter();
        self.topics.are_common_live() && partitions.all(|it| self.topics.is_live(it))
    }

    /// Takes news while it follows.
    pub(super) fn keep(&mut self, now: Duration, news: News) {
        let Some(following) = &mut self.following else {
            return;
        };
        match news {
            News::Batch { topic, bytes } => {
                self.counters.batches_unkept += following.keep(now, topic, bytes);
            }
            News::Live(topics) => {
                if !self.topics.is_state_live() {
                    following.deaf_until = following.deaf_until.map(|_| now);
                }
                for topic in topics {
                    match topic {
                        Topic::Events(partition) => _ = self.topics.confirm(now, partition),
                        Topic::State(_) | Topic::Nodes | Topic::Echo => {
                            self.topics.confirm_common(topic);
                        }
                    }
                }
            }
            News::Up(road) => tracing::info!(road = road.name(), "the bus is there"),
            News::Down(road) => {
                tracing::warn!(road = road.name(), "the bus is gone; connecting again");
                if road == Road::State {
                    following.deaf_until = Some(now);
                }
                self.topics.lose(road);
            }
            News::Lost(topics) => {
                for topic in topics {
                    if topic.road() == Road::State {
                        following.deaf_until = Some(now);
                    }
                    self.topics.lose_one(topic);
                }
            }
            News::Dropped { road, batches } => {
                let road = road.name();
                tracing::warn!(road, batches, "the bus brought more than could be taken");
            }
        }
    }

    /// Takes what the process that it follows knew, and goes on to follow.
    ///
    /// # Errors
    /// The records are not those of this life of the node, or not whole.
    pub fn take_records(
        &mut self,
        now: Duration,
        records: impl IntoIterator<Item = impl AsRef<[u8]>>,
    ) -> Result<(), CarryError> {
        let following = self.following.as_mut();
        let following = following.ok_or(CarryError::Inconsistent("it follows nobody"))?;
        let carried = Node::carried(millis(now), following.setup.clone(), records)?;
        let record: ExchangeRecord = rmp_serde::from_slice(&carried.beside)?;
        following.carried = Some(Box::new((carried, record)));
        Ok(())
    }

    /// Takes the place of the process whose records it has: of what both have heard nothing is taken twice. Shards
    /// are told of the topics that they have wished for. Without records it stays as it is.
    pub fn take_over(&mut self, now: Duration, apps: &AppTable, told: &mut Told) {
        let has_records = |it: &mut Box<Following>| it.carried.is_some();
        let Some(mut following) = self.following.take_if(has_records) else {
            return;
        };
        let Some((carried, record)) = following.carried.take().map(|it| *it) else {
            return;
        };
        let Carried { node, owners, .. } = carried;
        (self.node, self.owners) = (node, owners);
        (self.has_come, self.has_heard) = (record.has_come, record.has_heard);
        self.apps_have_changed |= record.apps_have_changed;
        let is_known = |id: &str| apps.by_id(id).is_some() || apps.index_of(id).is_some();
        self.node.end_unknown(millis(now), is_known);
        self.topics.let_linger(now);
        self.tell_topics(told);
        for (lane, bytes) in record.held {
            if let Some(topic) = Topic::from_lane(Lane(lane)) {
                let bytes = bytes.into_vec();
                self.take(now, apps, News::Batch { topic, bytes }, told);
            }
        }
        self.come_behind(now, *following, apps, told);
        // Nobody here was told what the others have of an app that the other process did not know.
        let known: BTreeSet<&str> = record.apps.iter().map(String::as_str).collect();
        for (_, id) in apps.known() {
            if !known.contains(id) {
                self.app_came(id);
            }
        }
        self.settle(now, told);
    }

    /// Batches are kept unread from now on, until `release`.
    pub fn hold(&mut self) {
        self.held = Some(Held::default());
    }

    /// Shards may be told nothing from now on: all that the bus brings is kept.
    pub fn hold_all(&mut self) {
        if let Some(held) = &mut self.held {
            held.news = Some(Vec::new());
        }
    }

    /// As much is kept as may be: the rest is to wait on the bus.
    pub fn is_full(&self) -> bool {
        let held = self.held.as_ref();
        held.is_some_and(|held| held.bytes > KEPT_BYTES_MAX)
    }

    /// Gives back what is to be taken at once.
    pub(super) fn hold_back(&mut self, news: News) -> Option<News> {
        match (&mut self.held, news) {
            (Some(held), News::Batch { topic, bytes }) => {
                held.bytes += bytes.len();
                held.batches.push((topic, bytes));
                None
            }
            (
                Some(Held {
                    news: Some(kept), ..
                }),
                news,
            ) => {
                kept.push(news);
                None
            }
            (_, news) => Some(news),
        }
    }

    /// The other process does not take over: what was kept is heard now.
    pub fn release(&mut self, now: Duration, apps: &AppTable, told: &mut Told) {
        let Some(held) = self.held.take() else { return };
        if is_planted(Fault::ReleasedHeldLost) {
            return;
        }
        for (topic, bytes) in held.batches {
            self.take(now, apps, News::Batch { topic, bytes }, told);
        }
        for news in held.news.into_iter().flatten() {
            self.take(now, apps, news, told);
        }
        self.settle(now, told);
    }

    /// Takes what was kept.
    fn come_behind(
        &mut self,
        now: Duration,
        following: Following,
        apps: &AppTable,
        told: &mut Told,
    ) {
        // Of a peer that has ended meanwhile no numbers are left, whether it came back since or not, and what it
        // said before was heard.
        let lease_ms = following.setup.times.lease_ms;
        let lease = Duration::from_millis(lease_ms - lease_ms / 4);
        // What it missed longer ago the process before has heard, which is still for half a lease at most.
        let whole_lease = Duration::from_millis(lease_ms);
        let was_deaf = following
            .deaf_until
            .is_some_and(|until| now < until + whole_lease);
        for Kept { at, topic, bytes } in following.kept {
            let known = self
                .node
                .knows_since(&bytes)
                .map(|at| Duration::from_millis(at.0));
            let is_new = at + lease > known.unwrap_or(now);
            if is_new || is_planted(Fault::CarriedPeerBack) {
                self.take(now, apps, News::Batch { topic, bytes }, told);
            }
        }
        let is_live = self.topics.are_common_live();
        if was_deaf {
            self.node.hears_peers(false);
        }
        if was_deaf || !is_live {
            self.node.listens(millis(now), false);
        }
        if was_deaf && is_live {
            self.node.listens(millis(now), true);
        }
        self.listen_to_peers();
    }

    /// Tells shards which of the topics that they wish for are live, from now on.
    pub(super) fn tell_topics(&self, told: &mut Told) {
        for shard in 0..self.shards {
            let home = ShardId(shard);
            let live = self.topics.live();
            let live: Vec<_> = live
                .filter(|(partition, _)| home_of(*partition, self.shards) == home)
                .collect();
            if !live.is_empty() {
                told.push((home, FromBridge::TopicsLive(live.into())));
            }
        }
    }
}

impl Following {
    /// How many are not kept any more.
    fn keep(&mut self, at: Duration, topic: Topic, bytes: Vec<u8>) -> u64 {
        self.bytes += bytes.len();
        self.kept.push_back(Kept { at, topic, bytes });
        // The other process has heard the oldest.
        let mut dropped = 0;
        while self.bytes > KEPT_BYTES_MAX
            && let Some(oldest) = self.kept.pop_front()
        {
            self.bytes -= oldest.bytes.len();
            dropped += 1;
        }
        dropped
    }
}

/// Of batches that wait until it takes over.
pub(super) const KEPT_BYTES_MAX: usize = 32 << 20;
