//! The bus between nodes.
//!
//! Owns: `adapter`.
//! May depend on: the words of `keys::rows`.
//! Invariants: those of `keys`.

use crate::config::Secret;
use crate::config::keys::rows::*;
use crate::config::shape;

section! {
    pub struct Adapter in "adapter" {
        /// How nodes talk to each other.
        driver: AdapterDriver = choice(AdapterDriver::CHOICES).default("local")
            .env(&["ADAPTER_DRIVER"]);
        /// Concurrent sends.
        _ as "buffer_multiplier_per_cpu" = count(0).default("64")
            .env(&["ADAPTER_BUFFER_MULTIPLIER_PER_CPU"]).no_effect("there is no such pool");
        redis: AdapterRedis => AdapterRedis::read;
        cluster: AdapterCluster => AdapterCluster::read;
        nats: AdapterNats => AdapterNats::read;
    }
}

choices! {
    pub enum AdapterDriver {
        Local = "local",
        Redis = "redis",
        RedisCluster = "redis-cluster" | "redis_cluster",
        Nats = "nats",
    }
}

section! {
    pub struct AdapterRedis in "adapter.redis" {
        /// Wait for other nodes' answers.
        requests_timeout_ms: u64 as "requests_timeout" = milliseconds(1).default("5000")
            .env(&["ADAPTER_REQUEST_TIMEOUT"]);
        /// Prefix of the bus's channels.
        prefix: String = text(shape::ANY).default("sockudo_adapter:").null_is_absent()
            .env(&["ADAPTER_REDIS_PREFIX"]);
        /// Redis to publish to.
        pub_url: Option<Secret> as "redis_pub_options.url" = url().env(REDIS_URLS);
        /// Redis to subscribe to.
        sub_url: Option<Secret> as "redis_sub_options.url" = url()
            .derived("adapter.redis.redis_pub_options.url").env(REDIS_URLS);
        /// Same as driver `redis-cluster`.
        _ as "cluster_mode" = flag().default("false");
    }
}

const REDIS_URLS: &[&str] = &["EXTERNAL_REDIS_URL", "REDIS_URL", "ADAPTER_REDIS_URL"];

section! {
    pub struct AdapterCluster in "adapter.cluster" {
        /// Nodes of the cluster; empty = database.redis.cluster_nodes.
        nodes: Vec<Secret> = urls().default("").fallback_env(&["DATABASE_REDIS_CLUSTER_NODES"])
            .env(&["REDIS_CLUSTER_NODES"]);
        /// Prefix of the bus's channels.
        prefix: String = text(shape::ANY).default("sockudo");
        /// Wait for other nodes' answers.
        request_timeout_ms: u64 = milliseconds(1).default("5000");
        /// Reconnect.
        _ as "use_connection_manager" = flag().default("true")
            .no_effect("a lost connection is always made again");
        /// SPUBLISH and SSUBSCRIBE, which need Redis 7; nothing else is there yet.
        _ as "use_sharded_pubsub" = flag().default("true").ours();
    }
}

section! {
    pub struct AdapterNats in "adapter.nats" {
        /// NATS servers.
        servers: Vec<Secret> = urls().default("nats://localhost:4222").null_is_absent()
            .env(&["NATS_SERVERS"]);
        /// First part of the subjects.
        prefix: String = text(shape::ANY).default("sockudo").null_is_absent();
        /// Wait for other nodes' answers.
        request_timeout_ms: u64 = milliseconds(1).default("5000").env(&["NATS_REQUEST_TIMEOUT_MS"]);
        /// Wait for a connection.
        connection_timeout_ms: u64 = milliseconds(1).default("5000")
            .env(&["NATS_CONNECTION_TIMEOUT_MS"]);
        /// Used with a password.
        username: Option<String> = text(shape::ANY).env(&["NATS_USERNAME"]);
        /// Used with a user name.
        password: Option<Secret> = secret().env(&["NATS_PASSWORD"]);
        /// Used without user name and password.
        token: Option<Secret> = secret().env(&["NATS_TOKEN"]);
        /// A `.creds` file, which is a login alone; read again before each connection.
        creds_file: Option<String> = text(shape::NOT_EMPTY).ours();
        /// A file with a user's nkey seed, which is a login alone; read again before each connection.
        nkey_seed_file: Option<String> = text(shape::NOT_EMPTY).ours();
        tls: NatsTls => NatsTls::read;
    }
}

section! {
    pub struct NatsTls in "adapter.nats.tls" {
        /// Refuse servers without TLS.
        required: bool = flag().default("false").ours();
        /// CA of the servers, PEM.
        ca_path: Option<String> = text(shape::NOT_EMPTY).ours();
        /// Client certificate, PEM.
        cert_path: Option<String> = text(shape::NOT_EMPTY).ours();
        /// Client key, PEM.
        key_path: Option<String> = text(shape::NOT_EMPTY).ours();
    }
}

section! {
    const MEMBERSHIP in "adapter" {
        /// Expected answers.
        "nats.nodes_number" = count(0).env(&["ADAPTER_NATS_NODES_NUMBER"])
            .no_effect("membership is known");
        /// Leases of nodes; they cannot be turned off.
        "cluster_health.enabled" = flag().default("true").env(&["CLUSTER_HEALTH_ENABLED"]);
        /// Sets `cluster.heartbeat_ms` where that is not set.
        "cluster_health.heartbeat_interval_ms" = milliseconds(1)
            .fallback_env(&["CLUSTER_HELLO_INTERVAL"]).env(&["CLUSTER_HEALTH_HEARTBEAT_INTERVAL"]);
        /// Sets `cluster.lease_ms` where that is not set.
        "cluster_health.node_timeout_ms" = milliseconds(3).fallback_env(&["CLUSTER_NODE_TIMEOUT"])
            .env(&["CLUSTER_HEALTH_NODE_TIMEOUT"]);
        /// Pause between sweeps.
        "cluster_health.cleanup_interval_ms" = milliseconds(1).default("10000")
            .env(&["CLUSTER_HEALTH_CLEANUP_INTERVAL"])
            .no_effect("a dead node is removed when its lease ends");
    }
}
