//! The sections of a configuration: each file has the keys of some, and the records that they fill.
//!
//! Owns: the table of the server's keys, in the order in which they are shown.
//! May depend on: `keys`, `settings`, `secret`.
//! Invariants: a key stands in one row; its record is read after every check passed.

mod adapter;
mod admin;
pub mod app;
mod app_manager;
mod cache;
mod cluster;
mod database;
mod http_api;
mod limits;
mod listeners;
mod logging;
mod metrics;
mod net;
mod queue;
mod rate_limiter;
mod server;
mod webhooks;

pub use adapter::*;
pub use admin::*;
pub use app_manager::*;
pub use cache::*;
pub use cluster::*;
pub use database::*;
pub use http_api::*;
pub use limits::*;
pub use listeners::*;
pub use logging::*;
pub use metrics::*;
pub use net::*;
pub use queue::*;
pub use rate_limiter::*;
pub use server::*;
pub use webhooks::*;

use super::keys::{Table, aliases, later, soketi};

/// The keys of the server.
pub static SERVER: Table = Table {
    keys: &[
        Config::KEYS,
        Websocket::KEYS,
        Net::KEYS,
        Admission::KEYS,
        Drain::KEYS,
        Upgrade::KEYS,
        INSTANCE,
        Cluster::KEYS,
        ChannelLimits::KEYS,
        EVENT_LIMITS,
        PRESENCE,
        Logging::KEYS,
        Cors::KEYS,
        HttpApi::KEYS,
        RateLimiter::KEYS,
        Metrics::KEYS,
        Admin::KEYS,
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
        CLEANUP,
        Adapter::KEYS,
        AdapterRedis::KEYS,
        AdapterCluster::KEYS,
        AdapterNats::KEYS,
        NatsTls::KEYS,
        MEMBERSHIP,
        Cache::KEYS,
        CacheRedis::KEYS,
        CacheMemory::KEYS,
        Database::KEYS,
        Redis::KEYS,
        RedisTls::KEYS,
        Mysql::KEYS,
        MysqlTls::KEYS,
        Postgres::KEYS,
        PostgresTls::KEYS,
        Dynamodb::KEYS,
        Scylladb::KEYS,
        DatabasePooling::KEYS,
    ],
    aliases: aliases::SERVER,
    soketi: soketi::SERVER,
    later: later::SERVER,
    hoisted: &[],
};
