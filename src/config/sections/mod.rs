//! The sections of a configuration: each file has the keys of some, and the records that they fill.
//!
//! Owns: the table of the server's keys, in the order in which they are shown.
//! May depend on: `keys`, `settings`, `secret`.
//! Invariants: a key stands in one row; its record is read after every check passed.

pub mod adapter;
pub mod app;
pub mod app_manager;
pub mod cache;
pub mod cluster;
pub mod database;
pub mod http_api;
pub mod limits;
pub mod listeners;
pub mod logging;
pub mod metrics;
pub mod net;
pub mod queue;
pub mod rate_limiter;
pub mod server;
pub mod webhooks;

pub use adapter::{Adapter, AdapterCluster, AdapterNats, AdapterRedis, NatsTls};
pub use app_manager::AppManager;
pub use cache::{Cache, CacheDriver, CacheMemory, CacheRedis};
pub use cluster::Cluster;
pub use database::{
    Database, DatabasePooling, Dynamodb, DynamodbLayout, Endpoint, Mysql, Postgres, Redis, Scylladb,
};
pub use http_api::{Cors, CorsOrigin, HttpApi};
pub use limits::ChannelLimits;
pub use listeners::{Ssl, UnixSocket};
pub use logging::{LogFormat, Logging};
pub use metrics::Metrics;
pub use net::{Admission, Drain, Net, SlowConsumer, Websocket};
pub use queue::{Queue, QueueDriver, QueueRedis, QueueRedisCluster, Sqs};
pub use rate_limiter::{RateLimit, RateLimiter, RateLimiterDriver};
pub use server::{Config, LimitsMode};
pub use webhooks::{Retry, Targets, Webhooks};

use super::keys::{Table, aliases, later, soketi};

/// The keys of the server.
pub static SERVER: Table = Table {
    keys: &[
        Config::KEYS,
        Websocket::KEYS,
        Net::KEYS,
        Admission::KEYS,
        Drain::KEYS,
        cluster::INSTANCE,
        Cluster::KEYS,
        ChannelLimits::KEYS,
        limits::EVENT_LIMITS,
        limits::PRESENCE,
        Logging::KEYS,
        Cors::KEYS,
        HttpApi::KEYS,
        RateLimiter::KEYS,
        Metrics::KEYS,
        Ssl::KEYS,
        UnixSocket::KEYS,
        AppManager::KEYS,
        Queue::KEYS,
        QueueRedis::KEYS,
        QueueRedisCluster::KEYS,
        Sqs::KEYS,
        Webhooks::KEYS,
        Retry::KEYS,
        Targets::KEYS,
        webhooks::CLEANUP,
        Adapter::KEYS,
        AdapterRedis::KEYS,
        AdapterCluster::KEYS,
        AdapterNats::KEYS,
        NatsTls::KEYS,
        adapter::MEMBERSHIP,
        Cache::KEYS,
        CacheRedis::KEYS,
        CacheMemory::KEYS,
        Database::KEYS,
        Redis::KEYS,
        Mysql::KEYS,
        Postgres::KEYS,
        Dynamodb::KEYS,
        Scylladb::KEYS,
        DatabasePooling::KEYS,
    ],
    aliases: aliases::SERVER,
    soketi: soketi::SERVER,
    later: later::SERVER,
    hoisted: &[],
};
