//! The bus on one Redis server: PUBLISH and SUBSCRIBE over RESP3.
//!
//! Owns: `RedisBus`, `RedisSetup`, `RedisServer`; `link` (one connection), `publisher`, `subscriber`,
//! `heartbeat`, `fault` (what an error means).
//! May depend on: the rest of `adapter`, `cluster::topic`, `config::secret`, the crate `redis`, tokio.
//! Invariants: each road has a publishing and a subscribing connection of its own; each is made anew
//! when it ends or is silent, for ever. The crate's own reconnecting connection is not used: it gives
//! up after some tries, and does not subscribe again.

mod fault;
mod heartbeat;
mod link;
mod publisher;
mod subscriber;

use std::{sync::Arc, time::Duration};

use tokio::{task::JoinSet, time::timeout};

use self::link::{Keys, Server};
use super::{BusError, roads::Roads};
use crate::{
    cluster::{identity::NodeId, topic::TopicNames},
    config::Secret,
};

/// What the configuration says of the bus.
#[derive(Clone, Debug)]
pub struct RedisSetup {
    /// `database.redis`; for a connection that has no URL.
    pub server: RedisServer,
    /// `adapter.redis.redis_pub_options.url`.
    pub publisher_url: Option<Secret>,
    /// `adapter.redis.redis_sub_options.url`.
    pub subscriber_url: Option<Secret>,
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
struct Duty {
    server: Server,
    names: Arc<TopicNames>,
    timeout: Duration,
}

impl RedisBus {
    pub(super) fn start(setup: RedisSetup) -> Result<Self, BusError> {
        let publish = Server::new(setup.publisher_url.as_ref(), &setup.server, Keys::PUBLISHER)?;
        let subscribe = Server::new(
            setup.subscriber_url.as_ref(),
            &setup.server,
            Keys::SUBSCRIBER,
        )?;
        if publish.database() != subscribe.database() {
            return Err(BusError::Databases {
                publish: publish.database(),
                subscribe: subscribe.database(),
            });
        }
        let names = TopicNames::redis(&setup.prefix, publish.database(), &setup.cluster)
            .of_node(setup.node);
        let names = Arc::new(names);
        let duty = |server: &Server| Duty {
            server: server.clone(),
            names: Arc::clone(&names),
            timeout: setup.timeout,
        };
        let (roads, ends) = Roads::new(setup.queue_bytes_max);
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

const CLOSE_WITHIN: Duration = Duration::from_secs(2);
