//! The nodes of a cluster: names, leases, what each holds.
//!
//! Owns: `instance`, `cluster`.
//! May depend on: the words of `keys::rows`.
//! Invariants: those of `keys`.

use crate::config::Secret;
use crate::config::keys::rows::*;
use crate::config::shape;

section! {
    const INSTANCE in "instance" {
        /// Default of `cluster.node_id`.
        "process_id" = text_or_number(shape::NOT_EMPTY).env(&["INSTANCE_PROCESS_ID"]);
    }
}

section! {
    pub struct Cluster in "cluster" {
        // `None` = the host's name and a random part.
        /// Stable name of this node.
        node_id: Option<String> = text(shape::NODE_ID)
            .derived("instance.process_id, else host name and a random part").ours();
        // `None` = without a name.
        /// Tells clusters on one bus apart: stands in every topic.
        name: Option<String> = text(shape::NODE_ID).ours();
        /// Signs what travels on the bus, so that only nodes are heard.
        secret: Option<Secret> = secret().ours();
        /// More secrets that are believed, while one is rolled.
        secrets: Vec<Secret> = secrets().default("").ours();
        /// Silence after which a node is dead; >= 3 heartbeats.
        lease_ms: u32 = milliseconds(3).default("5000")
            .derived("adapter.cluster_health.node_timeout_ms where that is set").ours();
        /// A node is heard at least so often.
        heartbeat_ms: u32 = milliseconds(1).default("1000")
            .derived("adapter.cluster_health.heartbeat_interval_ms where that is set").ours();
        /// Self-test through the bus, at least three times in a lease; 0 = off.
        canary_ms: u32 = milliseconds(0).default("1000").ours();
        /// Keep a topic so long after its last subscriber.
        linger_ms: u32 = milliseconds(0).default("5000").ours();
        /// Which partitions of the cluster's state a node holds.
        replication: Replication = choice(Replication::CHOICES).default("full").ours();
    }
}

choices! {
    pub enum Replication {
        Full = "full",
        Owned = "owned" later,
    }
}
