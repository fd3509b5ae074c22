//! What is Redis Cluster's own.

use std::time::Duration;

use sockudo::bridge::adapter::redis_cluster::RedisClusterSetup;
use sockudo::cluster::identity::NodeId;
use sockudo::config::Secret;

use crate::redis_cluster::RedisCluster;

pub(crate) fn setup(cluster: &RedisCluster) -> RedisClusterSetup {
    let url = |address| Secret::new(format!("redis://{address}"));
    RedisClusterSetup {
        nodes: cluster.masters.iter().map(|it| url(it.address)).collect(),
        username: None,
        password: None,
        prefix: "sockudo".to_owned(),
        cluster: "test".to_owned(),
        node: NodeId::of_name("test"),
        queue_bytes_max: 64 << 20,
        timeout: Duration::from_secs(5),
    }
}
