//! What the configuration says of Redis Cluster, as the bus and those who send commands want it.
//!
//! Owns: `redis_cluster_setup`, `cluster_redis`.
//! May depend on: `bridge::{adapter, redis_commands}`, `cluster::identity`, `config`.
//! Invariants: what the driver does not do was refused with the configuration.

use std::time::Duration;

use super::{
    adapter::redis_cluster::{RedisClusterSetup, members::ClusterServers},
    redis_commands::CommandsSetup,
    redis_setup::redis_tls,
};
use crate::{
    cluster::identity::NodeId,
    config::{Config, Secret, sections::Endpoint},
};

pub(super) fn redis_cluster_setup(
    config: &Config,
    name: &str,
    queue_bytes_max: usize,
) -> RedisClusterSetup {
    let (cluster, redis) = (&config.adapter.cluster, &config.database.redis);
    let nodes = match cluster.nodes.is_empty() {
        true => redis.cluster_nodes.iter().map(url).collect(),
        false => cluster.nodes.clone(),
    };
    RedisClusterSetup {
        nodes,
        username: redis.cluster_username.clone(),
        password: redis.cluster_password.clone(),
        uses_tls: redis.cluster_use_tls || redis.tls.enabled,
        tls: redis_tls(config),
        prefix: cluster.prefix.clone(),
        cluster: config.cluster.name.clone().unwrap_or_default(),
        node: NodeId::of_name(name),
        queue_bytes_max,
        timeout: Duration::from_millis(cluster.request_timeout_ms),
    }
}

/// The cluster for commands: of `nodes`, or else `database.redis.cluster_nodes`.
pub(super) fn cluster_redis(config: &Config, nodes: &[Secret]) -> CommandsSetup {
    let redis = &config.database.redis;
    CommandsSetup::Cluster(ClusterServers {
        nodes: match nodes.is_empty() {
            true => redis.cluster_nodes.iter().map(url).collect(),
            false => nodes.to_vec(),
        },
        username: redis.cluster_username.clone(),
        password: redis.cluster_password.clone(),
        uses_tls: redis.cluster_use_tls || redis.tls.enabled,
        tls: redis_tls(config),
    })
}

fn url(endpoint: &Endpoint) -> Secret {
    let (host, port) = (&endpoint.host, endpoint.port);
    // Without one it is not said which, and the others may say it.
    let scheme = if endpoint.tls { "rediss://" } else { "" };
    Secret::new(match host.contains(':') {
        true => format!("{scheme}[{host}]:{port}"),
        false => format!("{scheme}{host}:{port}"),
    })
}
