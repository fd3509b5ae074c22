//! Where cache channels keep their last event.
//!
//! Owns: `cache`.
//! May depend on: the words of `keys::rows`.
//! Invariants: those of `keys`.

use crate::config::Secret;
use crate::config::keys::rows::*;
use crate::config::shape;

section! {
    pub struct Cache in "cache" {
        /// Where cache channels keep their last event; `none` = they always miss.
        driver: CacheDriver = choice(CacheDriver::CHOICES).default("memory").env(&["CACHE_DRIVER"]);
        redis: CacheRedis => CacheRedis::read;
        memory: CacheMemory => CacheMemory::read;
    }
}

choices! {
    pub enum CacheDriver {
        Memory = "memory",
        Redis = "redis",
        RedisCluster = "redis-cluster" | "redis_cluster",
        /// Cache channels always miss.
        None = "none",
    }
}

impl CacheDriver {
    /// Other nodes find there what this one keeps.
    pub const fn is_shared(self) -> bool {
        matches!(self, Self::Redis | Self::RedisCluster)
    }
}

section! {
    pub struct CacheRedis in "cache.redis" {
        /// Prefix of the cache's keys.
        prefix: String = text(shape::ANY).default("sockudo_cache:").nullable()
            .derived("database.redis.key_prefix and `cache:` where null");
        /// Redis of the cache.
        url_override: Option<Secret> = url().env(&["EXTERNAL_REDIS_URL", "REDIS_URL"]);
        /// Same as driver `redis-cluster`.
        _ as "cluster_mode" = flag().default("false");
    }
}

section! {
    pub struct CacheMemory in "cache.memory" {
        /// Default time to live.
        ttl_s: u64 as "ttl" = seconds(0).default("300").env(&["CACHE_TTL_SECONDS"]);
        /// Pause between sweeps.
        _ as "cleanup_interval" = seconds(0).default("60").env(&["CACHE_CLEANUP_INTERVAL"])
            .no_effect("entries expire by themselves");
        /// Entries per node: each shard keeps its part, rounded up, and at least one, even of 0.
        /// `cache.driver` = `none` keeps none.
        max_capacity: u64 = whole(0, u64::MAX, "").default("10000").env(&["CACHE_MAX_CAPACITY"]);
        /// Bytes of entries per node: each shard keeps its part, rounded up.
        max_bytes: u64 = whole(0, u64::MAX, "bytes").default("268435456").ours();
    }
}
