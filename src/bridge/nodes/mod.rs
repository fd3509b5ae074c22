//! The other nodes: what this one tells them over the bus, and what it hears.
//!
//! Owns: `Nodes`: the bus and the clock around `exchange`, where everything is decided; how it starts;
//! `carrying`, `topics`, `told` and `sample`, which are parts of the exchange.
//! May depend on: `bridge::{adapter, apps, message}`, `cluster`, `config`, `metrics`, the clock.
//! Invariants: the bus is always read; nothing here waits for it; what the exchange commands is done
//! after each step.

#![expect(
    clippy::disallowed_methods,
    reason = "an incarnation begins with the clock, and so does what lingers"
)]

mod carrying;
#[cfg(test)]
mod carrying_tests;
pub mod exchange;
#[cfg(test)]
mod loss_tests;
mod sample;
pub mod told;
mod topics;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ahash::RandomState;
use shards::application::PublishRoom;

use self::exchange::{Command, Exchange};
pub(super) use self::told::Told;
use super::{
    adapter::{Bus, BusError, Setup, news::News, status::Status},
    apps::AppTable,
    message::{KeptEvent, KeptName, NodeEvent, NodeState, Spent, TopicWish, UserOfNodes},
    nats_setup::nats_setup,
    redis_cluster_setup::redis_cluster_setup,
    redis_setup::redis_setup,
};
use crate::{
    cluster::{
        carrying::CarryError,
        figures::Peer,
        identity::{ClusterTag, Identity, Incarnation, NodeId},
        mac::Secrets,
        membership::Times,
        node::Setup as NodeSetup,
        start::Name,
        topic::Road,
        wire::{BATCH_BYTES_MAX, Version},
    },
    config::{Config, sections::AdapterDriver},
    handover::packet::Welcome,
    metrics::{backend::BackendCounts, cluster::ClusterSample},
    protocol::{app::AppIndex, partition::Partition},
};

/// Bytes that may wait on each direction of each road of the bus; events to it, before shards are told to stop.
const QUEUE_BYTES_MAX: usize = 32 << 20;
/// Bytes that what the other nodes have may take on the bridge.
const VIEW_BYTES_MAX: usize = 2 << 30;
/// Of what a bus brings: less is within the grain of a round trip, more the silence of an upgrade does not bear.
const WAY_MS_MIN: u64 = 10;
const WAY_MS_MAX: u64 = 200;
/// News taken at once, so that shards are heard in between, and those that are behind are noticed.
const NEWS_PER_TAKE: usize = 1_024;
/// Bytes of batches likewise: one of them may be a thousand times another.
const BYTES_PER_TAKE: usize = 4 << 20;

pub(super) struct Nodes {
    exchange: Exchange,
    bus: Bus,
    /// Start of the node's clock.
    started: Instant,
}

/// Which node this is.
pub(super) struct NodeOf<'a> {
    pub name: &'a str,
    pub program: &'a str,
    /// The process whose place this one takes.
    pub followed: Option<&'a Welcome>,
}

/// The bus of the configuration, as a node of that name connects to it; `None` with the local adapter.
pub(super) fn bus_setup(config: &Config, name: &str) -> Option<Setup> {
    Some(match config.adapter.driver {
        AdapterDriver::Redis => Setup::Redis(redis_setup(config, name, QUEUE_BYTES_MAX)),
        AdapterDriver::Nats => Setup::Nats(nats_setup(config, name, QUEUE_BYTES_MAX)),
        AdapterDriver::RedisCluster => {
            Setup::RedisCluster(redis_cluster_setup(config, name, QUEUE_BYTES_MAX))
        }
        AdapterDriver::Local => return None,
    })
}

impl Nodes {
    /// Begins to connect; `None` with the local adapter. Must be called inside the bridge's runtime.
    ///
    /// # Errors
    /// The configuration names something that is no server.
    pub(super) fn start(
        config: &Config,
        of_node: &NodeOf<'_>,
        started: Instant,
        shards: u16,
    ) -> Result<Option<Self>, BusError> {
        let Some(setup) = bus_setup(config, of_node.name) else {
            return Ok(None);
        };
        let mut bus = Bus::start(setup)?;
        bus.widen(Road::Events, on_their_way_bytes_max(config, shards));
        let node = node_setup(config, of_node);
        if node.secrets.is_empty() {
            tracing::warn!(
                "cluster.secret is not set: whoever can publish on the bus is believed to be a node"
            );
        }
        let whose = match config.cluster.node_id {
            Some(_) => Name::Given,
            None => Name::Chance,
        };
        let setup = exchange::Setup {
            node,
            name: whose,
            linger: Duration::from_millis(config.cluster.linger_ms.into()),
            shards,
        };
        let now = started.elapsed();
        let exchange = match of_node.followed {
            Some(welcome) => {
                let topics = welcome.topics.iter();
                let topics = topics.filter_map(|number| Partition::from_number(*number));
                Exchange::following(now, setup, topics)
            }
            None => Exchange::new(now, setup),
        };
        let mut nodes = Self {
            exchange,
            bus,
            started,
        };
        nodes.obey();
        Ok(Some(nodes))
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Does what the exchange commands.
    fn obey(&mut self) {
        while let Some(command) = self.exchange.next_command() {
            match command {
                Command::Subscribe(topic) => self.bus.subscribe(topic),
                Command::Unsubscribe(topic) => self.bus.unsubscribe(topic),
                Command::Publish { topic, batch } => {
                    if let Err(refused) = self.bus.publish(topic, batch) {
                        self.exchange.batch_refused(refused);
                    }
                }
            }
        }
    }

    /// Takes an event of this node; `flush` sends it.
    pub(super) fn publish(&mut self, apps: &AppTable, event: &NodeEvent) {
        self.exchange.publish(apps, event);
        self.obey();
    }

    /// Takes a change of what this node has; `flush` sends it.
    pub(super) fn report(&mut self, apps: &AppTable, state: &NodeState) {
        self.exchange.report(self.now(), apps, state);
    }

    /// Has a user's connections on the other nodes ended; `flush` sends it.
    pub(super) fn terminate(&mut self, apps: &AppTable, user: &UserOfNodes) {
        self.exchange.terminate(apps, user);
    }

    /// Tells the other nodes what was used of an app's rates; `flush` sends it.
    pub(super) fn spend(&mut self, apps: &AppTable, spent: &Spent) {
        self.exchange.spend(apps, spent);
    }

    /// Asks other nodes for a channel's last event; `flush` sends it.
    pub(super) fn ask_kept(&mut self, apps: &AppTable, name: &KeptName, told: &mut Told) {
        self.exchange.ask_kept(apps, name, told);
    }

    /// Answers another node's question for it; `flush` sends it.
    pub(super) fn answer_kept(&mut self, apps: &AppTable, kept: &KeptEvent) {
        self.exchange.answer_kept(apps, kept);
    }

    /// Tells the others that apps have changed in the store that all ask.
    pub(super) fn tell_apps_changed(&mut self) {
        if !self.exchange.tell_apps_changed() {
            tracing::warn!("the other nodes were not told that apps have changed");
        }
        self.flush();
    }

    /// Whether a peer has told so since this was asked.
    pub(super) fn take_apps_changed(&mut self) -> bool {
        self.exchange.take_apps_changed()
    }

    /// An app has become known here; `tell_views` says what follows.
    pub(super) fn app_came(&mut self, id: &str) {
        self.exchange.app_came(id);
    }

    /// An app is forgotten; `tell_views` says what follows.
    pub(super) fn app_went(&mut self, index: AppIndex, id: &str) {
        self.exchange.app_went(index, id);
    }

    /// Goes on telling shards what is long.
    pub(super) fn tell_views(&mut self, apps: &AppTable, told: &mut Told) {
        self.exchange.tell_views(apps, told);
    }

    /// `tell_views` has more to tell.
    pub(super) fn has_views(&self) -> bool {
        self.exchange.has_views()
    }

    /// Hands all that waits to the bus: what a wake-up brought goes out together.
    pub(super) fn flush(&mut self) {
        self.exchange.flush();
        self.obey();
    }

    /// A shard wishes for a topic, or not any more.
    pub(super) fn wish(&mut self, partition: Partition, wish: TopicWish, told: &mut Told) {
        self.exchange.wish(self.now(), partition, wish, told);
        self.obey();
    }

    /// Waits for news of the bus. Nothing is lost when the future is dropped.
    pub(super) async fn next(&mut self) -> News {
        self.bus.next().await
    }

    /// Takes news, and what came right behind.
    pub(super) fn take(&mut self, apps: &AppTable, first: News, told: &mut Told) {
        let Self {
            exchange,
            bus,
            started,
        } = self;
        let next = || bus.try_next();
        take_some(first, next, |it| {
            exchange.take(started.elapsed(), apps, it, told);
        });
        self.exchange.settle(self.now(), told);
        self.obey();
    }

    /// When `tick` is due.
    pub(super) fn due(&self) -> Instant {
        self.started + self.exchange.due()
    }

    /// Does what is due.
    pub(super) fn tick(&mut self, told: &mut Told) {
        self.exchange.tick(self.now(), told);
        self.obey();
    }

    /// The others have not heard of this node yet.
    pub(super) fn is_starting(&self) -> bool {
        self.exchange.is_starting()
    }

    /// Another node lives under this one's name, which therefore must not start.
    pub(super) fn is_name_taken(&self) -> bool {
        self.exchange.is_name_taken()
    }

    /// Why no client should come here: a connection is gone, the bus does not bring back what is sent
    /// to it, or a topic is not proven again since.
    pub(super) fn is_failing(&self) -> bool {
        self.exchange.is_failing() || !self.bus.is_up()
    }

    /// What the others have told may not be known here: who is gone may be with them.
    pub(super) fn is_behind(&self) -> bool {
        !self.exchange.node().is_fresh()
    }

    pub(super) fn bus_status(&self) -> Status {
        self.bus.status()
    }

    /// The others, each with the time since it was heard, in milliseconds.
    pub(super) fn peers(&self) -> impl Iterator<Item = (Peer<'_>, u64)> {
        self.exchange.peers(self.now())
    }

    /// What room the bus has for what shards publish; what they have on its way has room in any case.
    pub(super) fn publish_room(&mut self) -> PublishRoom {
        self.bus.publish_room(Road::Events)
    }

    pub(super) fn exchange(&self) -> &Exchange {
        &self.exchange
    }

    /// WebSocket connections of this node, for the others to know.
    pub(super) fn set_connections(&mut self, connections: u64) {
        self.exchange.set_connections(connections);
    }

    /// For a scrape. Of other nodes' events shards will not get so many.
    pub(super) fn sample(&self, events_dropped: u64, unix_s: u64) -> ClusterSample {
        let status = self.bus.status();
        let now = self.now();
        self.exchange.sample(now, &status, events_dropped, unix_s)
    }

    /// Of the bus, for a scrape.
    pub(super) fn backend_counts(&self) -> BackendCounts {
        let mut counts = self.bus.meter().counts();
        self.exchange.add_subscribes(&mut counts);
        counts
    }

    /// Partitions whose topics this node hears, or is about to.
    pub(super) fn topics(&self) -> Vec<u16> {
        let topics = self.exchange.subscribed();
        topics.map(|partition| partition.number()).collect()
    }

    /// From now on batches of the bus are kept, and their time is not noticed.
    pub(super) fn hold(&mut self) {
        self.exchange.hold();
    }

    /// From now on all news of the bus are kept.
    pub(super) fn hold_all(&mut self) {
        self.exchange.hold_all();
    }

    /// Within this time after another subscription all that was sent before it has come here.
    pub(super) fn way(&self) -> Duration {
        let bus = self.exchange.node().bus();
        let round_trips = [bus.events.round_trip_ms, bus.state.round_trip_ms];
        let longest_ms = round_trips.into_iter().flatten().max().unwrap_or(0);
        Duration::from_millis((2 * longest_ms).clamp(WAY_MS_MIN, WAY_MS_MAX))
    }

    /// What was kept is heard now, as if it had come now.
    pub(super) fn release(&mut self, apps: &AppTable, told: &mut Told) {
        self.exchange.release(self.now(), apps, told);
        self.obey();
    }

    /// As much is kept as may be: the rest waits on the bus.
    pub(super) fn is_full(&self) -> bool {
        self.exchange.is_full()
    }

    /// The bus has all that this node had to say, as far as it will ever be known.
    pub(super) fn is_all_published(&self) -> bool {
        let status = self.bus.status();
        status.events.outgoing_bytes == 0 && status.state.outgoing_bytes == 0
    }

    /// What the process that follows is to know, in parts.
    pub(super) fn carry(&mut self, apps: &AppTable, put: &mut impl FnMut(Vec<u8>)) {
        self.exchange.carry(apps, put);
    }

    /// Subscribes to these as well, for the process whose place this one takes.
    pub(super) fn follow(&mut self, partitions: &[Partition]) {
        self.exchange.follow(partitions.iter().copied());
        self.obey();
    }

    /// All that it hears is heard here too.
    pub(super) fn is_proven(&self, partitions: &[Partition]) -> bool {
        self.exchange.is_proven(partitions.iter().copied())
    }

    /// Takes what that process knew. Nothing is said yet.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn take_records(&mut self, records: &[Vec<u8>]) -> Result<(), CarryError> {
        self.exchange.take_records(self.now(), records)
    }

    /// This process is the node now: it hears what was kept, and speaks.
    pub(super) fn take_over(&mut self, apps: &AppTable, told: &mut Told) {
        self.exchange.take_over(self.now(), apps, told);
        self.obey();
    }

    /// Ends without a word: another process is this node.
    pub(super) async fn leave(self) {
        self.bus.close().await;
    }

    /// Says goodbye, so that nobody waits for the lease.
    pub(super) async fn close(mut self) {
        self.exchange.say_goodbye();
        self.obey();
        self.bus.close().await;
    }
}

/// Events that shards were answered for and that are in no queue of the bus, when they are told that it is full.
// Of each shard what one wake-up took out of its lane, and what it has filled the lane with meanwhile: its bytes,
// and one event beyond them. A second one is for what batches cost.
fn on_their_way_bytes_max(config: &Config, shards: u16) -> usize {
    let lane_bytes = config.webhooks.shard_queue_bytes as usize / 2;
    2 * usize::from(shards) * (lane_bytes + 2 * BATCH_BYTES_MAX)
}

/// Takes news, and what is there behind them, until it is enough for one turn.
fn take_some(first: News, mut next: impl FnMut() -> Option<News>, mut take: impl FnMut(News)) {
    let (mut news, mut bytes) = (Some(first), 0);
    for number in 1..=NEWS_PER_TAKE {
        let Some(it) = news else { return };
        if let News::Batch { bytes: batch, .. } = &it {
            bytes += batch.len();
        }
        take(it);
        if number == NEWS_PER_TAKE || bytes >= BYTES_PER_TAKE {
            return;
        }
        news = next();
    }
}

fn node_setup(config: &Config, of_node: &NodeOf<'_>) -> NodeSetup {
    let NodeOf {
        name,
        program,
        followed,
    } = *of_node;
    let followed = followed.map(|welcome| Incarnation(welcome.incarnation));
    let cluster = config.cluster.name.as_deref().unwrap_or_default();
    NodeSetup {
        identity: Identity {
            node: NodeId::of_name(name),
            incarnation: followed.unwrap_or_else(incarnation),
        },
        name: name.to_owned(),
        program: program.to_owned(),
        cluster: ClusterTag::of_name(cluster),
        secrets: Secrets::new(secrets_of(config)),
        hasher: RandomState::new(),
        version: Version::OURS,
        view_bytes_max: VIEW_BYTES_MAX,
        times: Times {
            lease_ms: config.cluster.lease_ms.into(),
            heartbeat_ms: config.cluster.heartbeat_ms.into(),
            canary_ms: config.cluster.canary_ms.into(),
        },
    }
}

/// The first one signs.
fn secrets_of(config: &Config) -> impl Iterator<Item = &str> {
    let cluster = &config.cluster;
    let all = cluster.secret.iter().chain(&cluster.secrets);
    all.map(crate::config::Secret::expose)
}

/// Greater than that of any earlier life, as long as the clock does not go back.
fn incarnation() -> Incarnation {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let since_us = since.map_or(0, |since| since.as_micros());
    // Without chance, two that start in one microsecond are one life, as far as others see.
    incarnation_of(since_us, getrandom::u32().unwrap_or_default())
}

/// The microsecond, then chance: two copies of a node may be started in the same one.
fn incarnation_of(since_us: u128, chance: u32) -> Incarnation {
    let since_us = u64::try_from(since_us).unwrap_or(u64::MAX);
    let began = since_us.min(u64::MAX >> CHANCE_BITS) << CHANCE_BITS;
    Incarnation(began | (u64::from(chance) & ((1 << CHANCE_BITS) - 1)))
}

/// The microseconds have 52 bits until the year 2112.
const CHANCE_BITS: u32 = 12;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::topic::Topic;

    #[test]
    fn so_many_news_are_taken_at_once_and_no_more_than_so_many_bytes() {
        let batch = |bytes| News::Batch {
            topic: Topic::Nodes,
            bytes: vec![0; bytes],
        };
        for (bytes, there, taken) in [
            (100, 10, 10),
            (100, 5_000, NEWS_PER_TAKE),
            (BATCH_BYTES_MAX, 5_000, BYTES_PER_TAKE / BATCH_BYTES_MAX),
            (BATCH_BYTES_MAX, 2, 2),
        ] {
            let (mut left, mut count) = (there - 1, 0);
            let next = || {
                left = usize::checked_sub(left, 1)?;
                Some(batch(bytes))
            };
            take_some(batch(bytes), next, |_| count += 1);
            assert_eq!(count, taken, "{there} of {bytes}");
        }
    }

    #[test]
    fn a_later_life_is_greater_and_two_of_one_microsecond_differ() {
        let now_us = 1_795_940_121_874_052;
        let [first, second] = [7, 8].map(|chance| incarnation_of(now_us, chance));
        assert!(first < second);
        assert!(incarnation_of(now_us, u32::MAX) < incarnation_of(now_us + 1, 0));
        assert_eq!(incarnation_of(u128::MAX, u32::MAX), Incarnation(u64::MAX));
    }
}
