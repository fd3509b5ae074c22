//! The bus between nodes, as the bridge uses it: batches out and in, topics, and what is live.
//!
//! Owns: `Bus` over a closed set of drivers, `Setup`, `BusError`; `news` (what comes out), `status`
//! (what is counted), `wishes` (what is to be subscribed), `queue` (what waits, in bytes), `roads` (the
//! caller's end of both roads), `backoff`.
//! May depend on: `cluster::{topic, wire}` for names, bounds and how many entries a batch has, `config::secret`, `bridge::tls`,
//! `metrics::backend`, tokio, the drivers' crates. Not on what stands in a batch.
//! Invariants: nothing here waits for a bus but `next` and `close`; every queue is bounded in bytes;
//! what may have been delivered is never sent again; a topic is told live only after the bus said so.

pub(super) mod backoff;
pub mod nats;
pub mod news;
mod queue;
pub mod redis;
pub mod redis_cluster;
mod roads;
pub mod status;
mod wishes;

use shards::application::PublishRoom;

use self::{
    nats::{LoginFileError, NatsBus, NatsSetup},
    news::{News, Refused},
    redis::{RedisBus, RedisSetup},
    redis_cluster::{RedisClusterBus, RedisClusterSetup},
    status::Status,
};
use crate::{
    bridge::{aws::NoCredentials, tls::TlsError},
    cluster::topic::{Road, Topic},
    metrics::backend::Meter,
};

/// A bus and our connections to it. Connects by itself, again and again, until it is closed.
#[derive(Debug)]
pub enum Bus {
    Redis(RedisBus),
    RedisCluster(RedisClusterBus),
    Nats(NatsBus),
}

/// What a driver needs to start.
#[derive(Clone, Debug)]
pub enum Setup {
    Redis(RedisSetup),
    RedisCluster(RedisClusterSetup),
    Nats(NatsSetup),
}

/// Why a bus cannot be started: the operator erred. A server that is not there is no such error.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    #[error("{}: {}", .0.key, .0.fault)]
    Credentials(NoCredentials),
    /// What is shown holds no password.
    #[error("{key}: {shown:?} is no URL of a Redis server: {reason}")]
    Url {
        key: &'static str,
        shown: String,
        reason: &'static str,
    },
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(
        "{key}: TLS on some servers of a Redis Cluster and not on others: rediss:// on all, or on none"
    )]
    MixedTls { key: &'static str },
    #[error(
        "adapter.redis.redis_pub_options.url names database {publish} and \
         adapter.redis.redis_sub_options.url database {subscribe}: must be the same"
    )]
    Databases { publish: u32, subscribe: u32 },
    #[error("{key}: wants at least one server of a Redis Cluster, such as redis://host:7000")]
    NoNodes { key: &'static str },
    /// They would say which slot a topic is in.
    #[error("{key} must not hold {{ or }} with adapter.driver = \"redis-cluster\"")]
    Braces { key: &'static str },
    #[error("{key} names no server of NATS: wants at least one, such as nats://host:4222")]
    NoServers { key: &'static str },
    /// What is shown holds no password.
    #[error("{key}: {shown:?} is no URL of a NATS server: {reason}")]
    NatsUrl {
        key: &'static str,
        shown: String,
        reason: &'static str,
    },
    #[error(transparent)]
    NatsLogin(#[from] LoginFileError),
    #[error(
        "adapter.nats.prefix and cluster.name: {bytes} bytes of a subject, dots and what is written as \
         =XX included: at most {max}"
    )]
    LongSubjects { bytes: usize, max: usize },
}

impl BusError {
    /// The key with which its sentence begins.
    pub fn key(&self) -> &'static str {
        match self {
            Self::Credentials(missing) => missing.key,
            Self::Url { key, .. }
            | Self::MixedTls { key }
            | Self::NoNodes { key }
            | Self::Braces { key }
            | Self::NoServers { key }
            | Self::NatsUrl { key, .. } => key,
            Self::Tls(error) => error.key(),
            Self::Databases { .. } => "adapter.redis.redis_pub_options.url",
            Self::NatsLogin(error) => error.key,
            Self::LongSubjects { .. } => "adapter.nats.prefix",
        }
    }

    /// This user may not read a file: whether the server can use it is not known.
    pub fn is_forbidden(&self) -> bool {
        match self {
            Self::Tls(error) => error.is_forbidden(),
            Self::NatsLogin(error) => error.is_forbidden,
            Self::Credentials(_)
            | Self::Url { .. }
            | Self::MixedTls { .. }
            | Self::Databases { .. }
            | Self::NoNodes { .. }
            | Self::Braces { .. }
            | Self::NoServers { .. }
            | Self::NatsUrl { .. }
            | Self::LongSubjects { .. } => false,
        }
    }
}

impl Setup {
    /// Whether it could ever start, without connecting: what `Bus::start` looks at first.
    ///
    /// # Errors
    /// As `Bus::start`.
    pub fn check(&self) -> Result<(), BusError> {
        match self {
            Self::Redis(setup) => RedisBus::check(setup),
            Self::RedisCluster(setup) => RedisClusterBus::check(setup),
            Self::Nats(setup) => NatsBus::check(setup),
        }
    }
}

impl Bus {
    /// Starts to connect in the background. Needs a tokio runtime with time and I/O.
    ///
    /// # Errors
    /// When the setup can never work.
    pub fn start(setup: Setup) -> Result<Self, BusError> {
        match setup {
            Setup::Redis(setup) => RedisBus::start(setup).map(Self::Redis),
            Setup::RedisCluster(setup) => RedisClusterBus::start(setup).map(Self::RedisCluster),
            Setup::Nats(setup) => NatsBus::start(setup).map(Self::Nats),
        }
    }

    /// Queues a batch; never waits. While its road is down it is counted as lost instead.
    ///
    /// # Errors
    /// When the road's queue is full, or the batch too long for any bus. It is not queued then.
    pub fn publish(&mut self, topic: Topic, batch: Vec<u8>) -> Result<(), Refused> {
        match self {
            Self::Redis(bus) => bus.roads.publish(topic, batch),
            Self::RedisCluster(bus) => bus.roads.publish(topic, batch),
            Self::Nats(bus) => bus.roads.publish(topic, batch),
        }
    }

    /// From now on a road's queue has room for so much that is on its way when those who fill it are told to stop,
    /// beyond what it was started with.
    pub fn widen(&mut self, road: Road, bytes: usize) {
        match self {
            Self::Redis(bus) => bus.roads.widen(road, bytes),
            Self::RedisCluster(bus) => bus.roads.widen(road, bytes),
            Self::Nats(bus) => bus.roads.widen(road, bytes),
        }
    }

    /// What room a road's queue has, as it is told to those who fill it.
    pub fn publish_room(&mut self, road: Road) -> PublishRoom {
        match self {
            Self::Redis(bus) => bus.roads.publish_room(road),
            Self::RedisCluster(bus) => bus.roads.publish_room(road),
            Self::Nats(bus) => bus.roads.publish_room(road),
        }
    }

    /// Wishes for a topic, until `unsubscribe`, over all reconnects. Each call is followed by
    /// `News::Live` with it, also when it was subscribed before.
    pub fn subscribe(&mut self, topic: Topic) {
        match self {
            Self::Redis(bus) => bus.roads.subscribe(topic),
            Self::RedisCluster(bus) => bus.roads.subscribe(topic),
            Self::Nats(bus) => bus.roads.subscribe(topic),
        }
    }

    /// Batches of the topic may still come for a while.
    pub fn unsubscribe(&mut self, topic: Topic) {
        match self {
            Self::Redis(bus) => bus.roads.unsubscribe(topic),
            Self::RedisCluster(bus) => bus.roads.unsubscribe(topic),
            Self::Nats(bus) => bus.roads.unsubscribe(topic),
        }
    }

    /// Waits for news; those of the state come first. Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> News {
        match self {
            Self::Redis(bus) => bus.roads.next().await,
            Self::RedisCluster(bus) => bus.roads.next().await,
            Self::Nats(bus) => bus.roads.next().await,
        }
    }

    /// News that are there already.
    pub fn try_next(&mut self) -> Option<News> {
        match self {
            Self::Redis(bus) => bus.roads.try_next(),
            Self::RedisCluster(bus) => bus.roads.try_next(),
            Self::Nats(bus) => bus.roads.try_next(),
        }
    }

    /// As of the news that were taken.
    pub fn is_up(&self) -> bool {
        match self {
            Self::Redis(bus) => bus.roads.is_up(),
            Self::RedisCluster(bus) => bus.roads.is_up(),
            Self::Nats(bus) => bus.roads.is_up(),
        }
    }

    /// How it is.
    pub fn status(&self) -> Status {
        match self {
            Self::Redis(bus) => bus.roads.status("redis"),
            Self::RedisCluster(bus) => bus.roads.status("redis-cluster"),
            Self::Nats(bus) => bus.roads.status("nats"),
        }
    }

    /// What is counted of its server: batches, faults, connections.
    pub fn meter(&self) -> &Meter {
        match self {
            Self::Redis(bus) => bus.roads.meter(),
            Self::RedisCluster(bus) => bus.roads.meter(),
            Self::Nats(bus) => bus.roads.meter(),
        }
    }

    /// Sends what is queued and ends the connections; takes at most two seconds.
    pub async fn close(self) {
        match self {
            Self::Redis(bus) => bus.close().await,
            Self::RedisCluster(bus) => bus.close().await,
            Self::Nats(bus) => bus.close().await,
        }
    }
}
