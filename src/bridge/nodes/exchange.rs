//! The exchange between shards and the other nodes: what shards say becomes batches, what the bus
//! brings becomes messages for shards. It decides, and does nothing: time comes in, commands go out.
//!
//! Owns: `Exchange`: the cluster's protocol, which topics shards wish for and which are live, whose
//! webhooks this node tells; `Command`. `outgoing` is what shards have for others, `peers` what becomes known of these.
//! May depend on: `bridge::{adapter::news, apps, log_limit, message}`, `cluster`, `protocol`. Not on a bus, a
//! clock, or the configuration.
//! Invariants: a topic is told live only after the bus confirmed it, and never after its road went down.

mod outgoing;
mod peers;

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use ahash::AHashMap;
use shards::application::{Millis, ShardId};

use super::{
    carrying::{Following, Held},
    sample::Counters,
    told::{Teller, Told, home_of, tell_owned},
    topics::{Topics, Wished},
};
use crate::{
    bridge::{
        adapter::news::{News, Refused},
        apps::AppTable,
        log_limit::LogLimit,
        message::{FromBridge, TopicWish},
    },
    cluster::{
        fault::{Fault, is_planted},
        figures::Peer,
        identity::{Identity, Incarnation},
        node::{Effect, Heard, Node, Setup as NodeSetup},
        owner::Owners,
        start::Name,
        topic::{Road, Topic},
    },
    protocol::{app::AppIndex, partition::Partition},
};

/// Rows of an ended peer, or of a snapshot, that are looked at in one step.
const VIEWS_PER_STEP: usize = 4_096;

/// Some decades after the start.
const NEVER: Duration = Duration::from_secs(1 << 30);

/// Times are since the node's start, and never go back.
#[derive(Debug)]
pub struct Exchange {
    pub(super) node: Node,
    /// Until it takes the place of another process's.
    pub(super) following: Option<Box<Following>>,
    /// Batches are not read while this process hands over to another one.
    pub(super) held: Option<Held>,
    pub(super) topics: Topics,
    pub(super) commands: VecDeque<Command>,
    pub(super) heartbeat_ms: u64,
    identity: Identity,
    /// The others hear of this node.
    pub(super) has_come: bool,
    /// All topics of the others have been live.
    pub(super) has_heard: bool,
    pub(super) owners: Owners,
    /// Ids of apps that were named by their index, also of those that are gone meanwhile.
    app_ids: AHashMap<AppIndex, Arc<str>>,
    /// A peer's end or a snapshot is not wholly told to shards.
    pub(super) has_views: bool,
    /// Apps that were forgotten, of which shards are told that the others have nothing.
    forgotten: AHashMap<String, AppIndex>,
    effects: Vec<Effect>,
    name_is_taken: bool,
    /// A peer says so, of those in the store that all ask.
    pub(super) apps_have_changed: bool,
    pub(super) shards: u16,
    /// How many messages with another secret were told of.
    strangers: u64,
    strangers_told: LogLimit,
    pub(super) counters: Counters,
}

/// What is needed to start.
#[derive(Clone, Debug)]
pub struct Setup {
    pub node: NodeSetup,
    /// Whose word the node's name is.
    pub name: Name,
    /// How long a topic is kept after its last subscriber.
    pub linger: Duration,
    pub shards: u16,
}

/// What the bus is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    Subscribe(Topic),
    Unsubscribe(Topic),
    Publish { topic: Topic, batch: Vec<u8> },
}

impl Exchange {
    /// Of a node that starts now, and listens before it speaks.
    pub fn new(now: Duration, setup: Setup) -> Self {
        let Setup {
            node,
            name,
            linger,
            shards,
        } = setup;
        let (identity, times) = (node.identity, node.times);
        let topics = Topics::new(linger);
        Self {
            commands: topics.common().map(Command::Subscribe).collect(),
            topics,
            following: None,
            held: None,
            heartbeat_ms: times.heartbeat_ms,
            identity,
            has_come: false,
            has_heard: false,
            owners: Owners::new(identity, times.lease_ms),
            app_ids: AHashMap::new(),
            has_views: false,
            forgotten: AHashMap::new(),
            effects: Vec::new(),
            name_is_taken: false,
            apps_have_changed: false,
            node: Node::listening(millis(now), node, name),
            shards,
            strangers: 0,
            strangers_told: LogLimit::once_a_minute(),
            counters: Counters::default(),
        }
    }

    /// What the bus is to do next. To be asked for after each step, until there is nothing.
    pub fn next_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    /// The bus did not take a batch.
    pub fn batch_refused(&mut self, refused: Refused) {
        match refused {
            Refused::Full { .. } => {} // The bus counts it.
            Refused::TooLong { .. } => self.counters.batches_too_long += 1,
        }
    }

    /// Tells the others that apps have changed in the store; `flush` sends it.
    pub fn tell_apps_changed(&mut self) -> bool {
        self.node.tell_apps_changed()
    }

    /// Whether a peer has told so since this was asked.
    pub fn take_apps_changed(&mut self) -> bool {
        std::mem::take(&mut self.apps_have_changed)
    }

    /// An app has become known here: shards are told what the others have of it.
    pub fn app_came(&mut self, id: &str) {
        self.forgotten.remove(id);
        self.node.app_came(id);
        self.has_views = true;
    }

    /// An app is forgotten: shards are told that the others have nothing of it.
    pub fn app_went(&mut self, index: AppIndex, id: &str) {
        self.forgotten.insert(id.to_owned(), index);
        self.node.app_went(id);
        self.has_views = true;
    }

    /// Goes on telling shards what is long.
    pub fn tell_views(&mut self, apps: &AppTable, told: &mut Told) {
        let forgotten = &self.forgotten;
        let mut teller = Teller {
            apps,
            shards: self.shards,
            counters: &mut self.counters,
            told,
        };
        let node = &mut self.node;
        self.has_views = node.next_views(VIEWS_PER_STEP, |view| match forgotten.get(view.app) {
            Some(index) if view.change.is_nothing() => teller.tell_view_of(*index, &view),
            Some(_) => {}
            None => teller.tell_view(&view),
        });
        if !self.has_views {
            self.forgotten.clear();
        }
    }

    /// `tell_views` has more to tell.
    pub fn has_views(&self) -> bool {
        self.has_views
    }

    /// Hands all that waits to the bus: what a wake-up brought goes out together.
    pub fn flush(&mut self) {
        if self.following.is_some() {
            return;
        }
        let (commands, counters) = (&mut self.commands, &mut self.counters);
        self.node.take_batches(|topic, batch| {
            counters.bytes_out += batch.len() as u64;
            commands.push_back(Command::Publish { topic, batch });
        });
    }

    /// A shard wishes for a topic, or not any more.
    pub fn wish(&mut self, now: Duration, partition: Partition, wish: TopicWish, told: &mut Told) {
        match self.topics.wish(now, partition, wish) {
            Wished::Wait => {}
            Wished::Live if self.following.is_some() => {} // Told when it takes over.
            Wished::Subscribe => {
                let topic = Topic::Events(partition);
                self.commands.push_back(Command::Subscribe(topic));
                if is_planted(Fault::TopicLiveEarly) {
                    let topics = [(partition, wish)].into();
                    let home = home_of(partition, self.shards);
                    told.push((home, FromBridge::TopicsLive(topics)));
                }
            }
            Wished::Live => {
                let topics = [(partition, wish)].into();
                let home = home_of(partition, self.shards);
                told.push((home, FromBridge::TopicsLive(topics)));
            }
        }
    }

    /// Takes news of the bus. `settle` follows, once for as many as are there.
    pub fn take(&mut self, now: Duration, apps: &AppTable, news: News, told: &mut Told) {
        if self.following.is_some() {
            return self.keep(now, news);
        }
        let Some(news) = self.hold_back(news) else {
            return;
        };
        match news {
            News::Batch { topic, bytes } => {
                self.counters.bytes_in += bytes.len() as u64;
                let mut teller = Teller {
                    apps,
                    shards: self.shards,
                    counters: &mut self.counters,
                    told,
                };
                let effects = &mut self.effects;
                let tell = |heard: Heard<'_>| teller.tell(heard);
                self.node.hear(millis(now), topic, &bytes, effects, tell);
                self.counters.count_echoes(&self.node);
            }
            News::Live(topics) => {
                self.on_live(now, &topics, told);
                self.listen_to_peers();
            }
            News::Up(road) => tracing::info!(road = road.name(), "the bus is there"),
            News::Down(road) => {
                self.on_down(now, road, told);
                self.listen_to_peers();
            }
            News::Lost(topics) => {
                self.on_lost(now, &topics, told);
                self.listen_to_peers();
            }
            News::Dropped { road, batches } => {
                let road = road.name();
                tracing::warn!(road, batches, "the bus brought more than could be taken");
                // Among them may have been any channel's last event.
                self.tell_topics(told);
            }
        }
    }

    /// What the news that were taken mean.
    pub fn settle(&mut self, now: Duration, told: &mut Told) {
        if self.following.is_some() {
            return;
        }
        self.tell_effects(now, told);
        self.has_views = true;
    }

    fn on_live(&mut self, now: Duration, topics: &[Topic], told: &mut Told) {
        let mut by_shard: Vec<Vec<(Partition, TopicWish)>> = Vec::new();
        by_shard.resize_with(usize::from(self.shards), Vec::new);
        for topic in topics {
            let Topic::Events(partition) = *topic else {
                self.topics.confirm_common(*topic);
                if self.topics.are_common_live() {
                    self.node.listens(millis(now), true);
                }
                continue;
            };
            let Some(confirmed) = self.topics.confirm(now, partition) else {
                continue; // It was left meanwhile.
            };
            if confirmed.was_left {
                self.node.forget_lane(*topic);
            }
            if let Some(taken) = confirmed.taken {
                self.counters.subscribe.observe(taken.as_secs_f64());
            }
            if let Some(wish) = confirmed.wish {
                let home = home_of(partition, self.shards);
                by_shard[usize::from(home.0)].push((partition, wish));
            }
        }
        for (shard, topics) in (0..).zip(by_shard) {
            if !topics.is_empty() {
                told.push((ShardId(shard), FromBridge::TopicsLive(topics.into())));
            }
        }
    }

    fn on_down(&mut self, now: Duration, road: Road, told: &mut Told) {
        tracing::warn!(road = road.name(), "the bus is gone; connecting again");
        self.topics.lose(road);
        self.node.listens(millis(now), false);
        if road == Road::State {
            return;
        }
        for shard in 0..self.shards {
            told.push((ShardId(shard), FromBridge::TopicsLost));
        }
    }

    /// While a topic of the others is lost, their silence says nothing.
    pub(super) fn listen_to_peers(&mut self) {
        let hears = self.topics.is_state_live();
        self.has_heard |= hears;
        if self.has_heard {
            self.node.hears_peers(hears);
        }
    }

    /// Topics that the bus has given up, and others of the same road not.
    fn on_lost(&mut self, now: Duration, topics: &[Topic], told: &mut Told) {
        let mut homes = BTreeSet::new();
        for topic in topics {
            match (self.topics.lose_one(*topic), topic) {
                (true, Topic::Events(partition)) => {
                    homes.insert(home_of(*partition, self.shards).0);
                }
                (true, _) => self.node.listens(millis(now), false),
                (false, _) => {}
            }
        }
        for home in homes {
            // A shard takes this for all of its topics; those that stay are told again.
            let home = ShardId(home);
            let is_its = |(partition, _): &_| home_of(*partition, self.shards) == home;
            let live = self.topics.live().filter(is_its).collect();
            told.push((home, FromBridge::TopicsLost));
            told.push((home, FromBridge::TopicsLive(live)));
        }
    }

    /// When `tick` is due.
    pub fn due(&self) -> Duration {
        if self.following.is_some() {
            return NEVER;
        }
        let owners = self.owners.due().unwrap_or(Millis(u64::MAX));
        let tick = Duration::from_millis(self.node.next_tick().min(owners).0);
        self.topics.due().map_or(tick, |at| at.min(tick))
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Duration, told: &mut Told) {
        if self.following.is_some() {
            return;
        }
        while let Some(partition) = self.topics.leave(now) {
            let topic = Topic::Events(partition);
            self.commands.push_back(Command::Unsubscribe(topic));
            self.node.forget_lane(topic);
        }
        if millis(now) >= self.node.next_tick() {
            self.tick_node(now, told);
        }
        for change in self.owners.step(millis(now)) {
            tell_owned(Some(change), self.shards, told);
        }
        if self.owners.is_founded() {
            self.node.set_founded(millis(now));
        }
        self.flush();
    }

    fn tick_node(&mut self, now: Duration, told: &mut Told) {
        self.node.tick(millis(now), &mut self.effects);
        self.tell_effects(now, told);
        self.tell_strangers(now);
        self.owners.set_deaf(millis(now), !self.node.is_fresh());
        for peer in self.node.peers() {
            self.owners.heard(peer.identity.node, peer.heard_at);
        }
        let founded_at = self.node.peers().filter_map(|peer| peer.founded_at);
        if let Some(founded_at) = founded_at.min() {
            self.owners.set_founded(founded_at);
        }
        if !self.has_come && self.node.has_started() && self.topics.are_common_live() {
            self.has_come = true;
            self.owners.came(self.identity, millis(now));
        }
        self.has_views = true;
    }

    /// The others have not heard of this node yet.
    pub fn is_starting(&self) -> bool {
        !self.is_following() && !self.node.has_started()
    }

    /// Another node lives under this one's name, which therefore must not start.
    pub fn is_name_taken(&self) -> bool {
        self.name_is_taken
    }

    /// Why no client should come here: the bus does not bring back what is sent to it, a topic is
    /// not proven again since a connection was gone, or the others listen to a later process of this name.
    pub fn is_failing(&self) -> bool {
        if self.is_following() {
            return !self.is_proven(self.subscribed());
        }
        let is_heard = !self.node.bus().is_late() && !self.node.is_succeeded();
        !is_heard || !self.topics.are_common_live() || self.topics.is_unproven()
    }

    /// Ends this life for the others, so that nobody waits for the lease.
    pub fn say_goodbye(&mut self) {
        self.node.goodbye();
        self.flush();
    }

    /// The others, each with the time since it was heard, in milliseconds.
    pub fn peers(&self, now: Duration) -> impl Iterator<Item = (Peer<'_>, u64)> {
        let now = millis(now);
        let peers = self.node.peers();
        peers.map(move |peer| (peer, now.since(peer.heard_at)))
    }

    /// A node that was not heard for so long may be gone.
    pub fn is_suspect(&self, silent_ms: u64) -> bool {
        silent_ms > 2 * self.heartbeat_ms
    }

    /// Of this life.
    pub fn incarnation(&self) -> Incarnation {
        self.identity.incarnation
    }

    /// WebSocket connections of this node, for the others to know.
    pub fn set_connections(&mut self, connections: u64) {
        self.node.set_connections(connections);
    }

    /// The cluster's protocol, to look at.
    pub fn node(&self) -> &Node {
        &self.node
    }
}

/// As the cluster's protocol has it.
pub(super) fn millis(since_start: Duration) -> Millis {
    Millis(u64::try_from(since_start.as_millis()).unwrap_or(u64::MAX))
}
