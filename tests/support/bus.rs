//! A server of any kind that nodes can have as their bus.

use crate::nats::Nats;
use crate::redis::Redis;
use crate::redis_cluster::RedisCluster;
use crate::skip::skip;

pub(crate) enum BusServer {
    Redis(Redis),
    RedisCluster(RedisCluster),
    Nats(Nats),
}

impl BusServer {
    /// One of each kind that the machine has; says which it lacks.
    pub(crate) fn start_each(test: &str) -> Vec<Self> {
        let redis = Redis::start().map(Self::Redis);
        let cluster = RedisCluster::start().map(Self::RedisCluster);
        let nats = Nats::start().map(Self::Nats);
        for (name, is_missing) in [
            ("redis-server", redis.is_none()),
            ("nats-server", nats.is_none()),
        ] {
            if is_missing {
                let reason = format!("there is no {name}; `scripts/test` installs it");
                skip(test, &reason);
            }
        }
        redis.into_iter().chain(cluster).chain(nats).collect()
    }

    /// As `kill -9`.
    pub(crate) fn kill(&mut self) {
        match self {
            Self::Redis(redis) => redis.kill(),
            Self::RedisCluster(cluster) => cluster.kill(),
            Self::Nats(nats) => nats.kill(),
        }
    }

    /// After `kill`: another one on the same port, which knows nothing of the first.
    pub(crate) fn start_again(&mut self) {
        match self {
            Self::Redis(redis) => redis.start_again(),
            Self::RedisCluster(cluster) => cluster.start_again(),
            Self::Nats(nats) => nats.start_again(),
        }
    }

    /// `STOP` or `CONT`.
    pub(crate) fn signal(&self, signal: &str) {
        match self {
            Self::Redis(redis) => redis.signal(signal),
            Self::RedisCluster(cluster) => cluster.signal(signal),
            Self::Nats(nats) => nats.signal(signal),
        }
    }
}
