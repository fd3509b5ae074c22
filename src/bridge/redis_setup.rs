//! What the configuration says of one Redis, as the bus and those who send commands want it.
//!
//! Owns: `redis_setup`, `one_redis`, `redis_tls`.
//! May depend on: `bridge::{adapter, redis_commands, tls}`, `cluster::identity`, `config`.
//! Invariants: what the driver does not do was refused with the configuration.

use std::time::Duration;

use super::{
    adapter::redis::{RedisServer, RedisSetup, sentinel::SentinelSetup},
    redis_commands::{CommandsSetup, OneServer},
    tls::{TlsFiles, TlsKeys},
};
use crate::{
    cluster::identity::NodeId,
    config::{
        Config, Secret,
        sections::{Endpoint, Redis},
    },
};

pub(super) fn redis_setup(config: &Config, name: &str, queue_bytes_max: usize) -> RedisSetup {
    let adapter = &config.adapter.redis;
    RedisSetup {
        server: server(&config.database.redis),
        sentinels: sentinels(&config.database.redis),
        publisher_url: adapter.pub_url.clone(),
        subscriber_url: adapter.sub_url.clone(),
        tls: redis_tls(config),
        prefix: adapter.prefix.clone(),
        cluster: config.cluster.name.clone().unwrap_or_default(),
        node: NodeId::of_name(name),
        queue_bytes_max,
        timeout: Duration::from_millis(adapter.requests_timeout_ms),
    }
}

/// The server for commands: of `url`, or else `database.redis`.
pub(super) fn one_redis(config: &Config, url: Option<&Secret>) -> CommandsSetup {
    CommandsSetup::One(OneServer {
        server: server(&config.database.redis),
        sentinels: sentinels(&config.database.redis),
        url: url.cloned(),
        tls: redis_tls(config),
    })
}

fn server(redis: &Redis) -> RedisServer {
    RedisServer {
        host: redis.host.clone(),
        port: redis.port,
        uses_tls: redis.tls.enabled,
        database: redis.db,
        username: redis.username.clone(),
        password: redis.password.clone(),
    }
}

fn sentinels(redis: &Redis) -> Option<SentinelSetup> {
    let at = |sentinel: &Endpoint| (sentinel.host.clone(), sentinel.port);
    (!redis.sentinels.is_empty()).then(|| SentinelSetup {
        sentinels: redis.sentinels.iter().map(at).collect(),
        password: redis.sentinel_password.clone(),
        name: redis.name.clone(),
    })
}

/// For whatever speaks to Redis.
pub(super) fn redis_tls(config: &Config) -> TlsFiles {
    let tls = &config.database.redis.tls;
    TlsFiles {
        keys: TlsKeys::REDIS,
        ca_path: tls.ca_path.clone(),
        cert_path: tls.cert_path.clone(),
        key_path: tls.key_path.clone(),
    }
}
