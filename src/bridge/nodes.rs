//! The other nodes: what this one tells them over the bus, and what it hears.
//!
//! Owns: `Nodes`: the bus, the cluster's protocol on it, which topics shards wish for and which are live,
//! whose webhooks this node tells.
//! May depend on: `bridge::{adapter, apps, message}`, `cluster`, `config`, `metrics`, the clock.
//! Invariants: a topic is told live only after the bus confirmed it, and never after its road went
//! down; the bus is always read; nothing here waits for it.

#![expect(
    clippy::disallowed_methods,
    reason = "an incarnation begins with the clock, and so does what lingers"
)]

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use ahash::{AHashMap, RandomState};
use shards::application::{Millis, ShardId};

use super::{
    adapter::{
        Bus, BusError, Setup,
        news::{News, Refused},
        redis::{RedisServer, RedisSetup},
        status::{Counts, Status},
    },
    apps::AppTable,
    message::{
        FromBridge, NodeEvent, NodeState, Ownership, Spent, StateChange, TopicWish, UserOfNodes,
    },
    nats_setup::nats_setup,
    redis_cluster_setup::redis_cluster_setup,
};
use crate::{
    cluster::{
        entry::{self, Event, Group},
        holdings::{Merged, ViewChange},
        identity::{ClusterTag, Identity, Incarnation, NodeId},
        ledger::{Own, OwnChange},
        mac::Secrets,
        membership::{self, Reason, Times},
        node::{Effect, Heard, Node, Outgoing, Peer, Setup as NodeSetup},
        owner::{self, Owners},
        start::Name,
        topic::{Road, Topic},
        wire::PushError,
    },
    config::{Config, sections::AdapterDriver},
    metrics::{
        bridge::Seconds,
        cluster::{ClusterSample, PeerSample, RoadSample},
    },
    protocol::{
        app::AppIndex,
        partition::{PARTITIONS, Partition},
    },
};

/// Bytes that may wait on each direction of each road of the bus.
const QUEUE_BYTES_MAX: usize = 32 << 20;
/// Bytes that what the other nodes have may take on the bridge.
const VIEW_BYTES_MAX: usize = 2 << 30;
/// Rows of an ended peer, or of a snapshot, that are looked at in one step.
const VIEWS_PER_STEP: usize = 4_096;
/// News taken at once, so that shards are heard in between.
const NEWS_PER_TAKE: usize = 1_024;

/// What it tells the shards.
pub(super) type Told = Vec<(ShardId, FromBridge)>;

pub(super) struct Nodes {
    node: Node,
    bus: Bus,
    /// By partition.
    topics: Vec<Row>,
    /// Topics that nobody wishes for, and until when they are kept; may name some that are wished
    /// for again.
    lingering: VecDeque<(Instant, Partition)>,
    linger: Duration,
    heartbeat_ms: u64,
    /// Topics that are subscribed to and not confirmed since the road last went down.
    unproven: usize,
    /// The topics that every node listens to.
    common: Vec<(Topic, bool)>,
    identity: Identity,
    /// The others hear of this node.
    has_come: bool,
    owners: Owners,
    /// Ids of apps that were named by their index, also of those that are gone meanwhile.
    app_ids: AHashMap<AppIndex, Arc<str>>,
    /// A peer's end or a snapshot is not wholly told to shards.
    has_views: bool,
    effects: Vec<Effect>,
    name_is_taken: bool,
    /// Start of the node's clock.
    started: Instant,
    shards: u16,
    counters: Counters,
}

#[derive(Clone, Copy, Default)]
struct Row {
    wish: TopicWish,
    state: State,
    /// When it was asked for; none while it is live, or is asked for again because its road went down.
    asked_at: Option<Instant>,
    /// Confirmed again or not, it was live before its road went down.
    is_unproven: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Idle,
    Asked,
    Live,
}

/// What happened, for metrics.
#[derive(Debug, Default)]
struct Counters {
    /// Own events that do not fit into a batch.
    events_too_long: u64,
    /// Own events from before this node had started, beyond what may wait for that.
    events_before_start: u64,
    /// Events of others for apps that this node does not have.
    events_of_unknown_apps: u64,
    /// Events of others for a channel that does not belong to their partition.
    events_misplaced: u64,
    /// Own batches that are too long for the bus.
    batches_too_long: u64,
    bytes_out: u64,
    bytes_in: u64,
    lease_expiries: u64,
    /// From a topic's asking to its confirmation.
    subscribe: Seconds,
    /// By `Road::ALL`.
    echoes: [Echoed; 2],
}

/// What this node sent itself on a road.
#[derive(Debug, Default)]
struct Echoed {
    /// Counted so far.
    count: u64,
    seconds: Seconds,
    failures: u64,
}

impl Nodes {
    /// Begins to connect; `None` with the local adapter. Must be called inside the bridge's runtime.
    ///
    /// # Errors
    /// The configuration names something that is no server.
    pub(super) fn start(
        config: &Config,
        name: &str,
        program: &str,
        started: Instant,
        shards: u16,
    ) -> Result<Option<Self>, BusError> {
        let setup = match config.adapter.driver {
            AdapterDriver::Redis => Setup::Redis(redis_setup(config, name)),
            AdapterDriver::Nats => Setup::Nats(nats_setup(config, name, QUEUE_BYTES_MAX)),
            AdapterDriver::RedisCluster => {
                Setup::RedisCluster(redis_cluster_setup(config, name, QUEUE_BYTES_MAX))
            }
            AdapterDriver::Local => return Ok(None),
        };
        let mut bus = Bus::start(setup)?;
        let cluster = config.cluster.name.as_deref().unwrap_or_default();
        let secrets = Secrets::new(secrets_of(config));
        if secrets.is_empty() {
            tracing::warn!(
                "cluster.secret is not set: whoever can publish on the bus is believed to be a node"
            );
        }
        let now = now_of(started);
        let identity = Identity {
            node: NodeId::of_name(name),
            incarnation: incarnation(),
        };
        let whose = match config.cluster.node_id {
            Some(_) => Name::Given,
            None => Name::Chance,
        };
        let setup = NodeSetup {
            identity,
            name: name.to_owned(),
            program: program.to_owned(),
            cluster: ClusterTag::of_name(cluster),
            secrets,
            hasher: RandomState::new(),
            view_bytes_max: VIEW_BYTES_MAX,
            times: Times {
                lease_ms: config.cluster.lease_ms.into(),
                heartbeat_ms: config.cluster.heartbeat_ms.into(),
                canary_ms: config.cluster.canary_ms.into(),
            },
        };
        let node = Node::listening(now, setup, whose);
        let groups = (0..).map_while(Group::from_number).map(Topic::State);
        let common: Vec<_> = groups.chain([Topic::Nodes, Topic::Echo]).collect();
        common.iter().for_each(|topic| bus.subscribe(*topic));
        Ok(Some(Self {
            node,
            bus,
            topics: vec![Row::default(); usize::from(PARTITIONS)],
            lingering: VecDeque::new(),
            linger: Duration::from_millis(config.cluster.linger_ms.into()),
            heartbeat_ms: config.cluster.heartbeat_ms.into(),
            unproven: 0,
            common: common.into_iter().map(|topic| (topic, false)).collect(),
            identity,
            has_come: false,
            owners: Owners::new(identity, config.cluster.lease_ms.into()),
            app_ids: AHashMap::new(),
            has_views: false,
            effects: Vec::new(),
            name_is_taken: false,
            started,
            shards,
            counters: Counters::default(),
        }))
    }

    /// Takes an event of this node; `flush` sends it.
    // Per event: one look-up of its app, one copy into a batch.
    pub(super) fn publish(&mut self, apps: &AppTable, event: &NodeEvent) {
        let Some(app) = apps.get(event.app) else {
            return; // It was taken away meanwhile, on all nodes.
        };
        if self.node.is_outside() {
            self.counters.events_before_start += 1;
            return; // Nobody knows how long it would have to wait.
        }
        let outgoing = Outgoing {
            partition: event.partition,
            app: &app.app.id,
            channel: &event.channel,
            origin: event.origin,
            except: event.except,
            frame: &event.frame,
        };
        let mut result = self.node.publish(&outgoing);
        if result == Err(PushError::BatchFull) {
            self.flush();
            result = self.node.publish(&outgoing);
        }
        match result {
            Ok(()) => {}
            Err(PushError::BatchFull) => self.counters.events_before_start += 1,
            Err(_) => self.counters.events_too_long += 1,
        }
    }

    /// Takes a change of what this node has; `flush` sends it.
    pub(super) fn report(&mut self, apps: &AppTable, state: &NodeState) {
        let Some(app) = self.app_id(apps, state.app) else {
            return;
        };
        let change = match &state.change {
            StateChange::Subscriptions(count) => OwnChange::Subscriptions(*count),
            StateChange::MemberJoined { user_id, info } => {
                OwnChange::MemberJoined { user_id, info }
            }
            StateChange::MemberLeft { user_id } => OwnChange::MemberLeft { user_id },
            StateChange::UserOnline => OwnChange::UserOnline,
            StateChange::UserOffline => OwnChange::UserOffline,
            StateChange::Connections(count) => OwnChange::Connections(*count),
        };
        let own = Own {
            partition: state.partition,
            app: &app,
            name: &state.name,
            change,
        };
        self.node.report(now_of(self.started), &own);
    }

    /// Has a user's connections on the other nodes ended; `flush` sends it.
    pub(super) fn terminate(&mut self, apps: &AppTable, user: &UserOfNodes) {
        let Some(app) = self.app_id(apps, user.app) else {
            return;
        };
        let result = self.node.terminate(&app, &user.id);
        self.counters.events_too_long += u64::from(result.is_err());
    }

    /// Tells the other nodes what was used of an app's rates; `flush` sends it.
    pub(super) fn spend(&mut self, apps: &AppTable, spent: &Spent) {
        let Some(app) = self.app_id(apps, spent.app) else {
            return;
        };
        // Without room they hear less of it: a rate is kept less well for a moment.
        _ = self.node.spend(entry::Spent {
            app: &app,
            backend_events: spent.backend_events.into(),
            reads: spent.reads.into(),
        });
    }

    /// An app that has been taken away still has connections that end.
    fn app_id(&mut self, apps: &AppTable, index: AppIndex) -> Option<Arc<str>> {
        if let Some(id) = self.app_ids.get(&index) {
            return Some(Arc::clone(id));
        }
        let id: Arc<str> = apps.get(index)?.app.id.as_str().into();
        self.app_ids.insert(index, Arc::clone(&id));
        Some(id)
    }

    /// Goes on telling shards what is long: true if more is left.
    pub(super) fn tell_views(&mut self, apps: &AppTable, told: &mut Told) {
        let (counters, shards) = (&mut self.counters, self.shards);
        self.has_views = self.node.next_views(VIEWS_PER_STEP, |view| {
            tell_view(apps, shards, &view, counters, told);
        });
    }

    /// `tell_views` has more to tell.
    pub(super) fn has_views(&self) -> bool {
        self.has_views
    }

    /// Hands all that waits to the bus: what a wake-up brought goes out together.
    pub(super) fn flush(&mut self) {
        let (bus, counters) = (&mut self.bus, &mut self.counters);
        self.node.take_batches(|topic, batch| {
            counters.bytes_out += batch.len() as u64;
            match bus.publish(topic, batch) {
                Ok(()) | Err(Refused::Full { .. }) => {} // The bus counts it.
                Err(Refused::TooLong { .. }) => counters.batches_too_long += 1,
            }
        });
    }

    /// A shard wishes for a topic, or not any more.
    pub(super) fn wish(&mut self, partition: Partition, wish: TopicWish, told: &mut Told) {
        let shard = self.home_of(partition);
        let row = &mut self.topics[usize::from(partition.number())];
        row.wish = wish;
        if !wish.is_wanted() {
            let until = Instant::now() + self.linger;
            self.lingering.push_back((until, partition));
            return;
        }
        match row.state {
            State::Idle => {
                row.state = State::Asked;
                row.asked_at = Some(Instant::now());
                self.bus.subscribe(Topic::Events(partition));
            }
            State::Asked => {}
            State::Live => {
                let topics = [(partition, wish)].into();
                told.push((shard, FromBridge::TopicsLive(topics)));
            }
        }
    }

    /// Waits for news of the bus. Nothing is lost when the future is dropped.
    pub(super) async fn next(&mut self) -> News {
        self.bus.next().await
    }

    /// Takes news, and what came right behind.
    pub(super) fn take(&mut self, apps: &AppTable, first: News, told: &mut Told) {
        let mut news = Some(first);
        for _ in 0..NEWS_PER_TAKE {
            let Some(it) = news else { break };
            self.take_one(apps, it, told);
            news = self.bus.try_next();
        }
        if let Some(it) = news {
            self.take_one(apps, it, told);
        }
        self.tell_effects(told);
        self.has_views = true;
    }

    fn take_one(&mut self, apps: &AppTable, news: News, told: &mut Told) {
        match news {
            News::Batch { topic, bytes } => {
                self.counters.bytes_in += bytes.len() as u64;
                let now = now_of(self.started);
                let (counters, shards) = (&mut self.counters, self.shards);
                self.node
                    .hear(now, topic, &bytes, &mut self.effects, |heard| {
                        let event = match heard {
                            Heard::Event(event) => event,
                            Heard::View(view) => {
                                return tell_view(apps, shards, &view, counters, told);
                            }
                            Heard::Terminate { app, user_id } => {
                                return tell_terminate(apps, shards, app, user_id, told);
                            }
                            Heard::Spent(spent) => return tell_spent(apps, shards, &spent, told),
                        };
                        let Some(app) = apps.by_id(event.app) else {
                            counters.events_of_unknown_apps += 1;
                            return;
                        };
                        // Its name says where it belongs, whatever the sender says.
                        if app.partitions.of_channel(event.channel) != event.partition {
                            counters.events_misplaced += 1;
                            return;
                        }
                        let home = ShardId(event.partition.number() % shards);
                        let event = Box::new(owned(app.index, &event));
                        told.push((home, FromBridge::Event(event)));
                    });
                self.count_echoes();
            }
            News::Live(topics) => self.on_live(&topics, told),
            News::Up(road) => tracing::info!(road = road.name(), "the bus is there"),
            News::Down(road) => self.on_down(road, told),
            News::Lost(topics) => self.on_lost(&topics, told),
            News::Dropped { road, batches } => {
                let road = road.name();
                tracing::warn!(road, batches, "the bus brought more than could be taken");
            }
        }
    }

    fn on_live(&mut self, topics: &[Topic], told: &mut Told) {
        let mut by_shard: Vec<Vec<(Partition, TopicWish)>> = Vec::new();
        by_shard.resize_with(usize::from(self.shards), Vec::new);
        for topic in topics {
            self.node.heard_anew(*topic);
            let Topic::Events(partition) = *topic else {
                self.on_common_live(*topic);
                continue;
            };
            let home = self.home_of(partition);
            let row = &mut self.topics[usize::from(partition.number())];
            if row.state == State::Idle {
                continue; // It was left meanwhile.
            }
            row.state = State::Live;
            if let Some(asked_at) = row.asked_at.take() {
                let taken = asked_at.elapsed().as_secs_f64();
                self.counters.subscribe.observe(taken);
            }
            self.unproven -= usize::from(std::mem::take(&mut row.is_unproven));
            if row.wish.is_wanted() {
                by_shard[usize::from(home.0)].push((partition, row.wish));
            }
        }
        for (shard, topics) in (0..).zip(by_shard) {
            if !topics.is_empty() {
                told.push((ShardId(shard), FromBridge::TopicsLive(topics.into())));
            }
        }
    }

    fn on_common_live(&mut self, topic: Topic) {
        for (_, is_live) in self.common.iter_mut().filter(|(it, _)| *it == topic) {
            *is_live = true;
        }
        if self.are_common_live() {
            self.node.listens(now_of(self.started), true);
        }
    }

    fn on_down(&mut self, road: Road, told: &mut Told) {
        tracing::warn!(road = road.name(), "the bus is gone; connecting again");
        for (topic, is_live) in &mut self.common {
            *is_live &= topic.road() != road;
        }
        self.node.listens(now_of(self.started), false);
        if road == Road::State {
            return;
        }
        for row in &mut self.topics {
            if row.state == State::Live {
                row.state = State::Asked;
                row.is_unproven = true;
                self.unproven += 1;
            }
        }
        for shard in 0..self.shards {
            told.push((ShardId(shard), FromBridge::TopicsLost));
        }
    }

    /// Topics that the bus has given up and others of the same road not.
    fn on_lost(&mut self, topics: &[Topic], told: &mut Told) {
        let mut shards = BTreeSet::new();
        for topic in topics {
            let Topic::Events(partition) = *topic else {
                self.on_common_lost(*topic);
                continue;
            };
            let row = &mut self.topics[usize::from(partition.number())];
            if row.state == State::Live {
                row.state = State::Asked;
                row.is_unproven = true;
                self.unproven += 1;
                shards.insert(self.home_of(partition).0);
            }
        }
        for shard in shards {
            // Those that stay are told again: shards know only of all of them at once.
            let partitions = (0..PARTITIONS).filter_map(Partition::from_number);
            let rows = partitions.zip(&self.topics);
            let live = rows.filter(|(partition, row)| {
                let is_live = row.state == State::Live && row.wish.is_wanted();
                is_live && self.home_of(*partition) == ShardId(shard)
            });
            let live = live.map(|(partition, row)| (partition, row.wish)).collect();
            told.push((ShardId(shard), FromBridge::TopicsLost));
            told.push((ShardId(shard), FromBridge::TopicsLive(live)));
        }
    }

    fn on_common_lost(&mut self, topic: Topic) {
        for (_, is_live) in self.common.iter_mut().filter(|(it, _)| *it == topic) {
            *is_live = false;
        }
        self.node.listens(now_of(self.started), false);
    }

    /// When `tick` is due.
    pub(super) fn due(&self) -> Instant {
        let tick = self.started + Duration::from_millis(self.node.next_tick().0);
        let lingers = self.lingering.front().map_or(tick, |(until, _)| *until);
        tick.min(lingers)
    }

    /// Does what is due.
    pub(super) fn tick(&mut self, told: &mut Told) {
        let now = Instant::now();
        while let Some((until, partition)) = self.lingering.front().copied()
            && until <= now
        {
            self.lingering.pop_front();
            self.leave(partition);
        }
        if now_of(self.started) >= self.node.next_tick() {
            self.node.tick(now_of(self.started), &mut self.effects);
            self.tell_effects(told);
            for peer in self.node.peers() {
                self.owners.heard(peer.identity.node, peer.heard_at);
            }
            if !self.has_come && self.node.has_started() && self.are_common_live() {
                self.has_come = true;
                self.owners.came(self.identity, now_of(self.started));
            }
            let change = self.owners.step(now_of(self.started));
            self.tell_owned(change, told);
            self.has_views = true;
        }
        self.flush();
    }

    /// Gives a topic up, unless it is wished for again.
    fn leave(&mut self, partition: Partition) {
        let row = &mut self.topics[usize::from(partition.number())];
        if row.wish.is_wanted() || row.state == State::Idle {
            return;
        }
        row.state = State::Idle;
        row.asked_at = None;
        self.unproven -= usize::from(std::mem::take(&mut row.is_unproven));
        self.bus.unsubscribe(Topic::Events(partition));
        self.node.forget_lane(Topic::Events(partition));
    }

    fn tell_effects(&mut self, told: &mut Told) {
        let now = now_of(self.started);
        for effect in std::mem::take(&mut self.effects) {
            match effect {
                Effect::Peer(membership::Effect::Joined(peer)) => {
                    self.owners.came(peer, now);
                    tracing::info!(peer = %self.name_of(peer), "a node is there");
                }
                Effect::Peer(membership::Effect::Restarted { old, new }) => {
                    let change = self.owners.went(old.node, now);
                    self.tell_owned(change, told);
                    self.owners.came(new, now);
                    self.has_views = true;
                    tracing::info!(peer = %self.name_of(new), "a node has started anew");
                }
                Effect::Peer(membership::Effect::Expelled(peer, reason)) => {
                    let change = self.owners.went(peer.node, now);
                    self.tell_owned(change, told);
                    self.has_views = true;
                    let reason = match reason {
                        Reason::Goodbye => "it said goodbye",
                        Reason::LeaseRanOut => {
                            self.counters.lease_expiries += 1;
                            "it was silent for cluster.lease_ms"
                        }
                    };
                    tracing::info!(peer = %self.name_of(peer), reason, "a node is gone");
                }
                Effect::Peer(membership::Effect::Conflict(node)) => {
                    let node = format!("{:032x}", node.0);
                    tracing::error!(
                        node,
                        "two nodes run under one cluster.node_id: give each its own"
                    );
                }
                Effect::Peer(membership::Effect::Stale) => {
                    tracing::warn!("this node may be behind: nothing is announced until it is not");
                }
                Effect::Peer(membership::Effect::Fresh) => {
                    tracing::info!("this node is up to date")
                }
                Effect::Introduced(peer) => {
                    tracing::info!(peer = %self.name_of(peer), "a node has said its name");
                }
                Effect::Late(road) => {
                    let [events, state] = &mut self.counters.echoes;
                    match road {
                        Road::Events => events.failures += 1,
                        Road::State => state.failures += 1,
                    }
                    tracing::warn!(
                        road = road.name(),
                        "what is sent to the bus does not come back"
                    );
                }
                Effect::InTime(road) => tracing::info!(road = road.name(), "the bus answers again"),
                Effect::NameTaken => self.name_is_taken = true,
            }
        }
    }

    /// Tells all shards whose webhooks are this node's, where that has changed.
    fn tell_owned(&self, change: Option<owner::Change>, told: &mut Told) {
        let Some(owner::Change { partitions, since }) = change else {
            return;
        };
        let mut owned = Ownership {
            since,
            ..Ownership::default()
        };
        for partition in partitions {
            owned.add(partition);
        }
        for shard in 0..self.shards {
            told.push((ShardId(shard), FromBridge::Owned(Box::new(owned.clone()))));
        }
    }

    fn count_echoes(&mut self) {
        for (road, echoed) in Road::ALL.into_iter().zip(&mut self.counters.echoes) {
            if let Some(echoes) = self.node.echoes(road)
                && echoes.count > echoed.count
            {
                echoed.count = echoes.count;
                let round_trip = Duration::from_millis(echoes.round_trip_ms);
                echoed.seconds.observe(round_trip.as_secs_f64());
            }
        }
    }

    fn name_of(&self, peer: Identity) -> String {
        let known = self.node.peers().find(|it| it.identity.node == peer.node);
        shown(known.map_or("", |it| it.name), peer)
    }

    /// The others have not heard of this node yet.
    pub(super) fn is_starting(&self) -> bool {
        !self.node.has_started()
    }

    /// Another node lives under this one's name, which therefore must not start.
    pub(super) fn is_name_taken(&self) -> bool {
        self.name_is_taken
    }

    /// Why no client should come here: a connection is gone, the bus does not bring back what is sent
    /// to it, or a topic is not proven again since.
    pub(super) fn is_failing(&self) -> bool {
        !self.are_common_live()
            || self.unproven > 0
            || self.node.bus().is_late()
            || !self.bus.status().is_up()
    }

    fn are_common_live(&self) -> bool {
        self.common.iter().all(|(_, is_live)| *is_live)
    }

    /// For a scrape. Of other nodes' events shards will not get so many.
    pub(super) fn sample(&self, events_dropped: u64, unix_s: u64) -> ClusterSample {
        let (status, node, ours) = (self.bus.status(), self.node.counters(), &self.counters);
        let roads = [&status.events, &status.state];
        let state = self.node.state_counters();
        let sum = |count: fn(&Counts) -> u64| roads.map(|it| count(&it.counts)).iter().sum();
        let doubled = node.batches_doubled;
        let (live, suspect) = self.count_nodes();
        ClusterSample {
            backend: status.driver,
            is_up: status.is_up(),
            reconnects: sum(|it| it.reconnects),
            roads: self.road_samples(unix_s),
            nodes: [live, suspect],
            lease_expiries: ours.lease_expiries,
            peers: self.peer_samples(),
            events: [node.events_published, node.events_heard],
            deltas: [state.own.deltas_told, state.view.deltas_applied],
            snapshots: [state.supply.snapshots_sent, state.view.snapshots_merged],
            gaps: state.view.gaps,
            behind: state.view.wanted as u64,
            batches: [node.batches_sent, node.batches_heard],
            bytes: [ours.bytes_out, ours.bytes_in],
            batches_refused: [
                node.batches_foreign + sum(|it| it.strange),
                node.batches_malformed,
                node.batches_of_other_version,
                node.batches_of_other_cluster,
                node.batches_without_mac,
                node.batches_with_wrong_mac,
                node.batches_misplaced,
                doubled,
            ],
            entries_unknown: node.entries_unknown,
            entries_broken: node.entries_broken + node.entries_misplaced + ours.events_misplaced,
            dropped: [
                sum(|it| it.lost_while_down),
                sum(|it| it.publish_unknown),
                sum(|it| it.publish_denied),
                sum(|it| it.refused),
                sum(|it| it.dropped),
                events_dropped,
                ours.events_too_long + ours.batches_too_long,
                ours.events_before_start,
                ours.events_of_unknown_apps,
            ],
            topics: [
                roads.map(|it| it.topics_wanted).iter().sum(),
                roads.map(|it| it.topics_live).iter().sum(),
            ],
            subscribe: ours.subscribe.clone(),
        }
    }

    fn road_samples(&self, unix_s: u64) -> [RoadSample; 2] {
        let now = now_of(self.started);
        let mut echoed = Road::ALL.into_iter().zip(&self.counters.echoes);
        std::array::from_fn(|_| {
            let (road, echoed) = echoed.next().expect("there are two roads");
            let heard_at = self.node.echoes(road).map(|it| it.heard_at);
            let age_s = heard_at.map(|at| now.since(at) as f64 / 1e3);
            RoadSample {
                echoes: echoed.seconds.clone(),
                echoed_unix_s: age_s.map_or(0.0, |age_s| unix_s as f64 - age_s),
                failures: echoed.failures,
            }
        })
    }

    fn peer_samples(&self) -> Vec<PeerSample> {
        let sample = |peer: Peer<'_>| {
            let lost = peer.counters.batches_lost;
            PeerSample {
                name: shown(peer.name, peer.identity),
                lost: [lost.events, lost.state],
            }
        };
        self.node.peers().map(sample).collect()
    }

    /// Live ones with this one, and those of which nothing was heard for two heartbeats.
    fn count_nodes(&self) -> (u64, u64) {
        let all = self.peers().count() as u64;
        let silent = self
            .peers()
            .filter(|(_, silent_ms)| self.is_suspect(*silent_ms));
        let suspect = silent.count() as u64;
        (1 + all - suspect, suspect)
    }

    /// The others, each with the time since it was heard, in milliseconds.
    pub(super) fn peers(&self) -> impl Iterator<Item = (Peer<'_>, u64)> {
        let now = now_of(self.started);
        let peers = self.node.peers();
        peers.map(move |peer| (peer, now.since(peer.heard_at)))
    }

    /// A node that was not heard for so long may be gone.
    pub(super) fn is_suspect(&self, silent_ms: u64) -> bool {
        silent_ms > 2 * self.heartbeat_ms
    }

    pub(super) fn incarnation(&self) -> Incarnation {
        self.identity.incarnation
    }

    /// Of the last echo on the road.
    pub(super) fn round_trip_ms(&self, road: Road) -> Option<u64> {
        Some(self.node.echoes(road)?.round_trip_ms)
    }

    pub(super) fn bus_status(&self) -> Status {
        self.bus.status()
    }

    /// WebSocket connections of this node, for the others to know.
    pub(super) fn set_connections(&mut self, connections: u64) {
        self.node.set_connections(connections);
    }

    /// Says goodbye, so that nobody waits for the lease.
    pub(super) async fn close(mut self) {
        self.node.goodbye();
        self.flush();
        self.bus.close().await;
    }

    fn home_of(&self, partition: Partition) -> ShardId {
        ShardId(partition.number() % self.shards)
    }
}

/// Its name, or where it has not said it yet what is left of that on the wire.
fn shown(name: &str, peer: Identity) -> String {
    match name.is_empty() {
        true => peer.node.to_string(),
        false => name.to_owned(),
    }
}

/// Of an app that this node does not have there is nothing to tell.
fn tell_view(
    apps: &AppTable,
    shards: u16,
    view: &ViewChange<'_>,
    counters: &mut Counters,
    told: &mut Told,
) {
    let Some(app) = apps.by_id(view.app) else {
        counters.events_of_unknown_apps += 1;
        return;
    };
    let change = match view.change {
        Merged::Subscriptions(count) => StateChange::Subscriptions(count),
        Merged::MemberJoined { user_id, info } => StateChange::MemberJoined {
            user_id: Arc::clone(user_id),
            info: Arc::clone(info),
        },
        Merged::MemberLeft { user_id } => StateChange::MemberLeft {
            user_id: Arc::clone(user_id),
        },
        Merged::UserOnline => StateChange::UserOnline,
        Merged::UserOffline => StateChange::UserOffline,
        Merged::Connections(count) => StateChange::Connections(count),
    };
    let state = NodeState {
        app: app.index,
        partition: view.partition,
        name: Arc::clone(view.name),
        change,
    };
    let home = ShardId(view.partition.number() % shards);
    told.push((home, FromBridge::State(Box::new(state))));
}

fn tell_terminate(apps: &AppTable, shards: u16, app: &str, user_id: &str, told: &mut Told) {
    let Some(app) = apps.by_id(app) else { return };
    let partition = app.partitions.of_user(user_id);
    let user = UserOfNodes {
        app: app.index,
        partition,
        id: user_id.into(),
    };
    let home = ShardId(partition.number() % shards);
    told.push((home, FromBridge::Terminate(Box::new(user))));
}

fn tell_spent(apps: &AppTable, shards: u16, spent: &entry::Spent<'_>, told: &mut Told) {
    let Some(app) = apps.by_id(spent.app) else {
        return;
    };
    let home = ShardId(app.partitions.own().number() % shards);
    let of = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
    let spent = Spent {
        app: app.index,
        backend_events: of(spent.backend_events),
        reads: of(spent.reads),
    };
    told.push((home, FromBridge::Spent(spent)));
}

fn owned(app: AppIndex, event: &Event<'_>) -> NodeEvent {
    NodeEvent {
        app,
        partition: event.partition,
        channel: Arc::from(event.channel),
        origin: event.origin,
        except: event.except,
        frame: Arc::from(event.frame),
    }
}

fn redis_setup(config: &Config, name: &str) -> RedisSetup {
    let (adapter, server) = (&config.adapter.redis, &config.database.redis);
    RedisSetup {
        server: RedisServer {
            host: server.host.clone(),
            port: server.port,
            database: server.db,
            username: server.username.clone(),
            password: server.password.clone(),
        },
        publisher_url: adapter.pub_url.clone(),
        subscriber_url: adapter.sub_url.clone(),
        prefix: adapter.prefix.clone(),
        cluster: config.cluster.name.clone().unwrap_or_default(),
        node: NodeId::of_name(name),
        queue_bytes_max: QUEUE_BYTES_MAX,
        timeout: Duration::from_millis(adapter.requests_timeout_ms),
    }
}

/// The first one signs.
fn secrets_of(config: &Config) -> impl Iterator<Item = &str> {
    let cluster = &config.cluster;
    let all = cluster.secret.iter().chain(&cluster.secrets);
    all.map(crate::config::Secret::expose)
}

fn now_of(started: Instant) -> Millis {
    Millis(u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX))
}

/// Greater than that of any earlier life, as long as the clock does not go back.
fn incarnation() -> Incarnation {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let since = since.map_or(0, |since| since.as_micros());
    Incarnation(u64::try_from(since).unwrap_or(u64::MAX))
}
