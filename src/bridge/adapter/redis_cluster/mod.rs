//! The bus on a Redis Cluster: SPUBLISH and SSUBSCRIBE on the master of each topic's slot.
//!
//! Owns: `RedisClusterBus`, `RedisClusterSetup`; `slots` (which topic is whose), `chart` (who finds that out),
//! `members` (where servers are, as whom), `parts` (several connections as one end of a road),
//! `publisher`, `subscriber`.
//! May depend on: the rest of `adapter`, `redis` for single connections, `bridge::tls`, `cluster::topic`,
//! `config::secret`, the crate `redis`, tokio.
//! Invariants: each road has a publishing and a subscribing connection to each master, made anew for
//! ever; a road is up while all of them stand. Which topics are wanted is kept here, since a server
//! that loses a slot tells it once. The crate's own cluster connection is not used: it takes that
//! message for a wish of ours, and forgets the topic.

pub(in crate::bridge) mod chart;
pub(in crate::bridge) mod members;
mod parts;
mod publisher;
pub(in crate::bridge) mod slots;
mod subscriber;

use std::{sync::Arc, time::Duration};

use ::redis::Value;
use tokio::{sync::watch, task::JoinSet, time::timeout};

use self::{
    chart::{Chart, KnownTopics},
    members::{ClusterServers, Members},
    slots::{Address, TopicSlots, read_map},
};
use super::{
    BusError,
    redis::{self, link::Keys},
    roads::Roads,
};
use crate::{
    bridge::tls::TlsFiles,
    cluster::{identity::NodeId, topic::TopicNames},
    config::Secret,
};

/// What the configuration says of the bus.
#[derive(Clone, Debug)]
pub struct RedisClusterSetup {
    /// `adapter.cluster.nodes`, or else `database.redis.cluster_nodes`: URLs, or hosts with or without a
    /// port. Any of the cluster: the others are found by them.
    pub nodes: Vec<Secret>,
    /// `database.redis.cluster.username` and `.password`, for all servers; those of the first URL that
    /// has any where there are none.
    pub username: Option<String>,
    pub password: Option<Secret>,
    /// `database.redis.cluster.use_tls` or `database.redis.tls.enabled`; else TLS is spoken if the nodes are
    /// `rediss://`.
    pub uses_tls: bool,
    /// `database.redis.tls`.
    pub tls: TlsFiles,
    /// `adapter.cluster.prefix`.
    pub prefix: String,
    /// The cluster's name.
    pub cluster: String,
    /// Of this node.
    pub node: NodeId,
    /// Of each direction of each road. At least one batch fits.
    pub queue_bytes_max: usize,
    /// `adapter.cluster.request_timeout_ms`: what was sent and not answered for so long is given up.
    pub timeout: Duration,
}

/// Our connections to the masters of a Redis Cluster.
#[derive(Debug)]
pub struct RedisClusterBus {
    pub(super) roads: Roads,
    // Dropping a set ends its tasks.
    publishers: JoinSet<()>,
    _others: JoinSet<()>,
}

/// What both ends of a road work with.
#[derive(Clone)]
struct Duty {
    members: Arc<Members>,
    names: Arc<TopicNames>,
    timeout: Duration,
    chart: Chart,
}

impl Duty {
    /// For a connection to one master.
    fn of(&self, at: &Address) -> redis::Duty {
        redis::Duty {
            server: self.members.server(at),
            names: Arc::clone(&self.names),
            timeout: self.timeout,
            way: self.chart.way(),
        }
    }
}

impl RedisClusterSetup {
    fn members(&self) -> Result<Members, BusError> {
        let members = Members::new(&self.servers(), Keys::CLUSTER)?;
        for (key, text) in [
            ("adapter.cluster.prefix", &self.prefix),
            ("cluster.name", &self.cluster),
        ] {
            if text.contains(['{', '}']) {
                return Err(BusError::Braces { key });
            }
        }
        Ok(members)
    }

    fn servers(&self) -> ClusterServers {
        ClusterServers {
            nodes: self.nodes.clone(),
            username: self.username.clone(),
            password: self.password.clone(),
            uses_tls: self.uses_tls,
            tls: self.tls.clone(),
        }
    }
}

impl RedisClusterBus {
    pub(super) fn check(setup: &RedisClusterSetup) -> Result<(), BusError> {
        setup.members().map(drop)
    }

    pub(super) fn start(setup: RedisClusterSetup) -> Result<Self, BusError> {
        let members = Arc::new(setup.members()?);
        // A cluster has database 0 only.
        let names = TopicNames::redis(&setup.prefix, 0, &setup.cluster).of_node(setup.node);
        let names = Arc::new(names);
        let slots = Arc::new(TopicSlots::new(&names));
        let (known, receiver) = watch::channel(KnownTopics::default());
        let chart = Chart::new(receiver);
        let duty = Duty {
            members: Arc::clone(&members),
            names,
            timeout: setup.timeout,
            chart: chart.clone(),
        };
        let (roads, ends) = Roads::new("redis_cluster", setup.queue_bytes_max);
        let mut publishers = JoinSet::new();
        let mut others = JoinSet::new();
        let read = move |ranges: &Value, asked: &Address| read_map(ranges, asked, &slots);
        others.spawn(chart::keep(members, read, known, chart.asked()));
        for ends in ends {
            publishers.spawn(publisher::run(duty.clone(), ends.publisher));
            others.spawn(subscriber::run(duty.clone(), ends.subscriber));
        }
        Ok(Self {
            roads,
            publishers,
            _others: others,
        })
    }

    pub(super) async fn close(self) {
        let Self {
            roads,
            mut publishers,
            _others: others,
        } = self;
        drop(others);
        // Without the bridge's end a publisher sends what is queued, and ends.
        drop(roads);
        let all = async { while publishers.join_next().await.is_some() {} };
        if timeout(CLOSE_WITHIN, all).await.is_err() {
            tracing::warn!("the bus between nodes: not all that was queued could be sent");
        }
    }
}

const CLOSE_WITHIN: Duration = Duration::from_secs(2);
