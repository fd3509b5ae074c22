//! The sections of a `Config` that concern other processes: bus, databases, cache, queue.
//!
//! Owns: plain records and their enums; no parsing and no checks.
//! May depend on: `secret`.
//! Invariants: none of its own; `load` alone builds these, after every check passed.

use super::secret::Secret;

#[derive(Clone, Debug)]
pub struct Adapter {
    pub driver: AdapterDriver,
    pub redis: AdapterRedis,
    pub cluster: AdapterCluster,
    pub nats: AdapterNats,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdapterDriver {
    Local,
    Redis,
    RedisCluster,
    Nats,
}

#[derive(Clone, Debug)]
pub struct AdapterRedis {
    pub requests_timeout_ms: u64,
    pub prefix: String,
    pub pub_url: Option<Secret>,
    pub sub_url: Option<Secret>,
}

#[derive(Clone, Debug)]
pub struct AdapterCluster {
    /// Empty = `database.redis.cluster_nodes`.
    pub nodes: Vec<Secret>,
    pub prefix: String,
    pub request_timeout_ms: u64,
    /// `None` = where the server knows sharded pub/sub (Redis 7).
    pub use_sharded_pubsub: Option<bool>,
}

#[derive(Clone, Debug)]
pub struct AdapterNats {
    pub servers: Vec<Secret>,
    pub prefix: String,
    pub request_timeout_ms: u64,
    pub connection_timeout_ms: u64,
    pub username: Option<String>,
    pub password: Option<Secret>,
    pub token: Option<Secret>,
    pub creds_file: Option<String>,
    pub nkey_seed_file: Option<String>,
    pub tls: NatsTls,
}

#[derive(Clone, Debug)]
pub struct NatsTls {
    pub required: bool,
    pub ca_path: Option<String>,
    pub cert_path: Option<String>,
    pub key_path: Option<String>,
}

#[derive(Clone, Debug)]
pub struct Cache {
    pub driver: CacheDriver,
    pub redis: RedisComponent,
    pub memory: CacheMemory,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheDriver {
    Memory,
    Redis,
    RedisCluster,
    /// Cache channels always miss.
    None,
}

#[derive(Clone, Debug)]
pub struct CacheMemory {
    pub ttl_s: u64,
    /// Entries per node.
    pub max_capacity: u64,
    /// Bytes of entries per node.
    pub max_bytes: u64,
}

/// What a component needs to use Redis with names of its own.
#[derive(Clone, Debug)]
pub struct RedisComponent {
    pub prefix: String,
    pub url_override: Option<Secret>,
}

#[derive(Clone, Debug)]
pub struct Queue {
    pub driver: QueueDriver,
    pub redis: QueueRedis,
    pub redis_cluster: QueueRedisCluster,
    pub sqs: Sqs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueDriver {
    Memory,
    Redis,
    RedisCluster,
    Sqs,
    /// Webhooks are off.
    None,
}

#[derive(Clone, Debug)]
pub struct QueueRedis {
    pub concurrency: u32,
    pub prefix: String,
    pub url_override: Option<Secret>,
}

#[derive(Clone, Debug)]
pub struct QueueRedisCluster {
    pub concurrency: u32,
    pub prefix: String,
    /// Empty = `database.redis.cluster_nodes`.
    pub nodes: Vec<Secret>,
    pub request_timeout_ms: u64,
}

#[derive(Clone, Debug)]
pub struct Sqs {
    pub region: String,
    pub queue_url_prefix: Option<String>,
    pub visibility_timeout_s: u32,
    pub endpoint_url: Option<String>,
    pub max_messages: u32,
    pub wait_time_s: u32,
    pub concurrency: u32,
    pub fifo: bool,
    pub message_group_id: Option<String>,
}

#[derive(Clone, Debug)]
pub struct Database {
    pub redis: Redis,
    pub mysql: Sql,
    pub postgres: Sql,
    pub dynamodb: Dynamodb,
    pub scylladb: Scylladb,
}

#[derive(Clone, Debug)]
pub struct Redis {
    pub host: String,
    pub port: u16,
    pub db: u32,
    pub username: Option<String>,
    pub password: Option<Secret>,
    pub key_prefix: String,
    pub sentinels: Vec<Endpoint>,
    pub sentinel_password: Option<Secret>,
    /// The master's name for Sentinel.
    pub name: String,
    pub cluster_nodes: Vec<Endpoint>,
    pub cluster_username: Option<String>,
    pub cluster_password: Option<Secret>,
    pub cluster_use_tls: bool,
}

/// A host and a port, and whether to speak TLS there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub tls: bool,
    /// An IPv6 address carries no brackets.
    pub host: String,
    pub port: u16,
}

#[derive(Clone, Debug)]
pub struct Sql {
    pub host: String,
    pub port: u16,
    pub username: String,
    pub password: Secret,
    pub database: String,
    pub table_name: String,
    pub connection_pool_size: u32,
    pub pool_min: Option<u32>,
    pub pool_max: Option<u32>,
}

#[derive(Clone, Debug)]
pub struct Dynamodb {
    pub region: String,
    pub table_name: String,
    pub endpoint_url: Option<String>,
    pub aws_access_key_id: Option<Secret>,
    pub aws_secret_access_key: Option<Secret>,
    pub aws_profile_name: Option<String>,
    pub layout: DynamodbLayout,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DynamodbLayout {
    Sockudo,
    Soketi,
}

#[derive(Clone, Debug)]
pub struct Scylladb {
    pub nodes: Vec<String>,
    pub keyspace: String,
    pub table_name: String,
    pub username: Option<String>,
    pub password: Option<Secret>,
    pub replication_class: String,
    pub replication_factor: u32,
}

#[derive(Clone, Debug)]
pub struct DatabasePooling {
    pub enabled: bool,
    pub min: u32,
    pub max: u32,
}
