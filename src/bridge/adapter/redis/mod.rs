//! The bus on one Redis server: PUBLISH and SUBSCRIBE over RESP3.
//!
//! Owns: `RedisBus`, `RedisSetup`, `RedisServer`, `Way`; `link` (one connection), `publisher`, `subscriber`,
//! `tap` (messages, before the crate reads them), `heartbeat`, `sentinel` (where the master is), `fault` (what an
//! error means).
//! May depend on: the rest of `adapter`, `bridge::tls`, `cluster::topic`, `config::secret`, the crate `redis`,
//! tokio.
//! Invariants: each road has a publishing and a subscribing connection of its own; each is made anew
//! when it ends or is silent, for ever. The crate's own reconnecting connection is not used: it gives
//! up after some tries, and does not subscribe again.

pub(in crate::bridge) mod fault;
pub(in crate::bridge) mod heartbeat;
pub(in crate::bridge) mod link;
pub(super) mod publisher;
pub mod sentinel;
pub(super) mod subscriber;
mod tap;

use std::{sync::Arc, time::Duration};

use redis::{ErrorKind, RedisError, ServerErrorKind};
use tokio::{sync::Notify, task::JoinSet, time::timeout};

use self::{
    link::{Keys, Server, Standing, uses_tls},
    sentinel::{SentinelSetup, Sentinels},
};
use super::{BusError, roads::Roads};
use crate::{
    bridge::tls::{TlsClient, TlsFiles},
    cluster::{identity::NodeId, topic::TopicNames},
    config::Secret,
};

/// What the configuration says of the bus.
#[derive(Clone, Debug)]
pub struct RedisSetup {
    /// `database.redis`; for a connection that has no URL.
    pub server: RedisServer,
    /// Who says where that server is, instead of its host and port.
    pub sentinels: Option<SentinelSetup>,
    /// `adapter.redis.redis_pub_options.url`.
    pub publisher_url: Option<Secret>,
    /// `adapter.redis.redis_sub_options.url`.
    pub subscriber_url: Option<Secret>,
    /// `database.redis.tls`, wherever TLS is spoken.
    pub tls: TlsFiles,
    /// `adapter.redis.prefix`.
    pub prefix: String,
    /// The cluster's name.
    pub cluster: String,
    /// Of this node.
    pub node: NodeId,
    /// Of each direction of each road. At least one batch fits.
    pub queue_bytes_max: usize,
    /// `adapter.redis.requests_timeout`: what was sent and not answered for so long is given up.
    pub timeout: Duration,
}

/// Where a server is, and who we are there.
#[derive(Clone, Debug)]
pub struct RedisServer {
    pub host: String,
    pub port: u16,
    /// `database.redis.tls.enabled`.
    pub uses_tls: bool,
    pub database: u32,
    pub username: Option<String>,
    pub password: Option<Secret>,
}

/// Our connections to one Redis server.
#[derive(Debug)]
pub struct RedisBus {
    pub(super) roads: Roads,
    // Dropping a set ends its tasks.
    publishers: JoinSet<()>,
    subscribers: JoinSet<()>,
}

/// What one connection of a road works with.
#[derive(Clone)]
pub(super) struct Duty {
    pub(super) server: Server,
    pub(super) names: Arc<TopicNames>,
    pub(super) timeout: Duration,
    pub(super) way: Way,
}

impl Duty {
    /// The same at the server that was found.
    fn at(&self, standing: &Standing) -> Self {
        Self {
            server: standing.server.clone(),
            ..self.clone()
        }
    }
}

/// Which publish-subscribe of Redis.
#[derive(Clone)]
pub(super) enum Way {
    /// Of one server, or of all servers of a cluster.
    Classic,
    /// Of the slot of a name, on its master. Who knows where slots are is woken when this one may have
    /// moved.
    Sharded(Arc<Notify>),
}

impl Way {
    const fn publish(&self) -> &'static str {
        match self {
            Self::Classic => "publish",
            Self::Sharded(_) => "spublish",
        }
    }

    const fn subscribe(&self) -> &'static str {
        match self {
            Self::Classic => "subscribe",
            Self::Sharded(_) => "ssubscribe",
        }
    }

    fn moved(&self) {
        if let Self::Sharded(watcher) = self {
            watcher.notify_one();
        }
    }

    /// Whether the error only says that a slot is elsewhere.
    fn is_redirection(&self, error: &RedisError) -> bool {
        use ServerErrorKind::{Ask, ClusterDown, Moved, TryAgain};
        let ErrorKind::Server(kind) = error.kind() else {
            return false;
        };
        if matches!(kind, Moved | Ask | TryAgain | ClusterDown) {
            self.moved();
        }
        matches!(self, Self::Sharded(_)) && matches!(kind, Moved | Ask | TryAgain)
    }
}

impl RedisBus {
    pub(super) fn check(setup: &RedisSetup) -> Result<(), BusError> {
        ends(setup).map(drop)
    }

    pub(super) fn start(setup: RedisSetup) -> Result<Self, BusError> {
        let [publish, subscribe] = ends(&setup)?;
        let names = TopicNames::redis(&setup.prefix, publish.database(), &setup.cluster)
            .of_node(setup.node);
        let names = Arc::new(names);
        let duty = |server: &Server| Duty {
            server: server.clone(),
            names: Arc::clone(&names),
            timeout: setup.timeout,
            way: Way::Classic,
        };
        let (roads, ends) = Roads::new("redis", setup.queue_bytes_max);
        let mut publishers = JoinSet::new();
        let mut subscribers = JoinSet::new();
        for ends in ends {
            publishers.spawn(publisher::run(duty(&publish), ends.publisher));
            subscribers.spawn(subscriber::run(duty(&subscribe), ends.subscriber));
        }
        Ok(Self {
            roads,
            publishers,
            subscribers,
        })
    }

    pub(super) async fn close(self) {
        let Self {
            roads,
            mut publishers,
            subscribers,
        } = self;
        drop(subscribers);
        // Without the bridge's end a publisher sends what is queued, and ends.
        drop(roads);
        let all = async { while publishers.join_next().await.is_some() {} };
        if timeout(CLOSE_WITHIN, all).await.is_err() {
            tracing::warn!("the bus between nodes: not all that was queued could be sent");
        }
    }
}

/// Where the two ends of the roads go. They share a database.
fn ends(setup: &RedisSetup) -> Result<[Server; 2], BusError> {
    let urls = [setup.publisher_url.as_ref(), setup.subscriber_url.as_ref()];
    let is_used = urls.iter().any(|url| uses_tls(*url, &setup.server));
    let tls = is_used.then(|| TlsClient::read(&setup.tls)).transpose()?;
    let server = |url: Option<&Secret>, keys| {
        let server = Server::new(url, &setup.server, keys, tls.as_ref())?;
        let sentinels = setup
            .sentinels
            .as_ref()
            .filter(|it| !it.sentinels.is_empty());
        let Some(sentinels) = sentinels.filter(|_| url.is_none()) else {
            return Ok(server);
        };
        let sentinels = Sentinels::new(sentinels, &setup.server, keys, tls.as_ref())?;
        Ok::<_, BusError>(server.by(sentinels))
    };
    let [publish, subscribe] = urls;
    let publish = server(publish, Keys::PUBLISHER)?;
    let subscribe = server(subscribe, Keys::SUBSCRIBER)?;
    if publish.database() != subscribe.database() {
        return Err(BusError::Databases {
            publish: publish.database(),
            subscribe: subscribe.database(),
        });
    }
    Ok([publish, subscribe])
}

const CLOSE_WITHIN: Duration = Duration::from_secs(2);
