//! What the configuration says of the webhook queue.
//!
//! Owns: `keeping`, `stores`, `check`, `declined`.
//! May depend on: `bridge::{queue, redis_commands, redis_setup, redis_cluster_setup, webhook}`, `config`.
//! Invariants: what a driver does not do was refused with the configuration.

use std::time::Duration;

use super::{
    adapter::BusError,
    queue::{
        dead::{LETTER_BYTES_MAX, LETTERS_MAX},
        store::{
            Store, StoreFault,
            redis::{Keys, REDIS_PURPOSE, RedisBounds, RedisStore, old::OldList},
            sqs::{SqsSetup, SqsStore},
        },
    },
    redis_cluster_setup::cluster_redis,
    redis_commands::{CommandsSetup, RedisCommands},
    redis_setup::one_redis,
    webhook::shared::{Keeping, SharedSetup},
};
use crate::config::{Config, sections::QueueDriver};

/// Parts of a queue in a cluster: each on one master.
const CLUSTER_PARTS: usize = 16;

/// A server that is slower than this is as good as gone.
const REDIS_TIMEOUT: Duration = Duration::from_secs(3);

/// Where webhooks wait. Needs a tokio runtime.
///
/// # Errors
/// When the store's server cannot even be asked: a URL that is none, a certificate that cannot be read.
pub(super) async fn keeping(config: &Config) -> Result<Keeping, BusError> {
    let queue = &config.queue;
    let (driver, in_flight_max) = match queue.driver {
        QueueDriver::Memory => return Ok(Keeping::Memory),
        QueueDriver::None => return Ok(Keeping::Nowhere),
        QueueDriver::Sqs => return sqs_keeping(config),
        QueueDriver::Redis => ("redis", queue.redis.concurrency),
        QueueDriver::RedisCluster => ("redis-cluster", queue.redis_cluster.concurrency),
    };
    let (stores, old) = redis_stores(config, &incarnation())?;
    if let Some(fault) = declined(config, &stores).await {
        tracing::warn!(
            %fault,
            "webhooks wait in memory, and end with the process: give the user of Redis these rights, or set \
             queue.driver = \"memory\""
        );
        return Ok(Keeping::Memory);
    }
    tokio::spawn(old.warning_of_loss());
    Ok(Keeping::Shared(SharedSetup {
        driver,
        stores,
        old: Some(old),
        in_flight_max: in_flight_max.max(1) as usize,
    }))
}

/// The parts of the queue, for who looks at it. Needs a tokio runtime.
///
/// # Errors
/// As `keeping`.
pub fn stores(config: &Config) -> Result<Vec<Store>, BusError> {
    match config.queue.driver {
        QueueDriver::Memory | QueueDriver::None => Ok(Vec::new()),
        QueueDriver::Sqs => Ok(vec![sqs_store(SqsSetup::of(config))?]),
        QueueDriver::Redis | QueueDriver::RedisCluster => {
            redis_stores(config, &incarnation()).map(|(stores, _)| stores)
        }
    }
}

/// Whether `stores` could ever be had. Credentials of AWS are looked for over the network, so not here.
pub(super) fn check(config: &Config) -> Result<(), BusError> {
    match config.queue.driver {
        QueueDriver::Memory | QueueDriver::None | QueueDriver::Sqs => Ok(()),
        QueueDriver::Redis | QueueDriver::RedisCluster => redis_setup(config).check(REDIS_PURPOSE),
    }
}

fn redis_setup(config: &Config) -> CommandsSetup {
    let queue = &config.queue;
    match queue.driver == QueueDriver::RedisCluster {
        false => one_redis(config, queue.redis.url_override.as_ref()),
        true => cluster_redis(config, &queue.redis_cluster.nodes),
    }
}

/// Why a Redis that nobody chose for the queue is not for its user: webhooks wait in memory then. Whoever chose it
/// waits for it.
pub async fn declined(config: &Config, stores: &[Store]) -> Option<StoreFault> {
    match stores {
        [store, ..] if config.queue.is_driver_derived => store.forbids().await,
        _ => None,
    }
}

fn sqs_keeping(config: &Config) -> Result<Keeping, BusError> {
    let setup = SqsSetup::of(config);
    Ok(Keeping::Shared(SharedSetup {
        driver: "sqs",
        in_flight_max: setup.in_flight_max(),
        stores: vec![sqs_store(setup)?],
        old: None,
    }))
}

fn sqs_store(setup: SqsSetup) -> Result<Store, BusError> {
    let store = SqsStore::start(setup, &incarnation());
    Ok(Store::Sqs(store.map_err(BusError::Credentials)?))
}

fn redis_stores(config: &Config, node: &str) -> Result<(Vec<Store>, OldList), BusError> {
    let queue = &config.queue;
    let is_cluster = queue.driver == QueueDriver::RedisCluster;
    let (prefix, parts, timeout) = match is_cluster {
        false => (&queue.redis.prefix, vec![None], REDIS_TIMEOUT),
        true => {
            let cluster = &queue.redis_cluster;
            let timeout = Duration::from_millis(cluster.request_timeout_ms);
            let parts = (0..CLUSTER_PARTS).map(Some).collect();
            (&cluster.prefix, parts, timeout)
        }
    };
    let commands = RedisCommands::start(&redis_setup(config), REDIS_PURPOSE)?;
    let count = parts.len() as u64;
    let store = |part| {
        let bounds = RedisBounds {
            lease: Duration::from_secs(queue.lease_s.into()),
            bytes_max: (config.queue.bytes / count).max(1),
            dead_max: (LETTERS_MAX / count).max(1),
            dead_bytes_max: (LETTER_BYTES_MAX / count).max(1),
            timeout,
        };
        let keys = Keys::new(prefix, part);
        Store::Redis(RedisStore::new(commands.clone(), keys, node, bounds))
    };
    let old = OldList::new(commands.clone(), prefix, node);
    Ok((parts.into_iter().map(store).collect(), old))
}

/// A name that no other process has or had. Without chance the time tells them apart.
fn incarnation() -> String {
    let chance = getrandom::u64().unwrap_or_else(|_| super::webhook::wall_ms());
    format!("{chance:016x}")
}
