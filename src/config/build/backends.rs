//! From settings to the sections of other processes.
//!
//! Owns: which key fills which field of bus, cache, queue and databases.
//! May depend on: `settings`, `config::backends`.
//! Invariants: those of `build`.

use super::chosen;
use crate::config::backends::{
    Adapter, AdapterCluster, AdapterDriver, AdapterNats, AdapterRedis, Cache, CacheDriver,
    CacheMemory, Database, Dynamodb, DynamodbLayout, NatsTls, Queue, QueueDriver, QueueRedis,
    QueueRedisCluster, Redis, RedisComponent, Scylladb, Sql, Sqs,
};
use crate::config::settings::Settings;

pub(super) fn adapter(s: &Settings) -> Adapter {
    let sharded = "adapter.cluster.use_sharded_pubsub";
    Adapter {
        driver: chosen(
            s,
            "adapter.driver",
            &[
                ("local", AdapterDriver::Local),
                ("redis", AdapterDriver::Redis),
                ("redis-cluster", AdapterDriver::RedisCluster),
                ("nats", AdapterDriver::Nats),
            ],
        ),
        redis: AdapterRedis {
            requests_timeout_ms: s.u64("adapter.redis.requests_timeout"),
            prefix: s.text("adapter.redis.prefix").to_owned(),
            pub_url: s.optional_secret("adapter.redis.redis_pub_options.url"),
            sub_url: s.optional_secret("adapter.redis.redis_sub_options.url"),
        },
        cluster: AdapterCluster {
            nodes: s.secrets("adapter.cluster.nodes"),
            prefix: s.text("adapter.cluster.prefix").to_owned(),
            request_timeout_ms: s.u64("adapter.cluster.request_timeout_ms"),
            use_sharded_pubsub: (!s.is_null(sharded)).then(|| s.flag(sharded)),
        },
        nats: AdapterNats {
            servers: s.secrets("adapter.nats.servers"),
            prefix: s.text("adapter.nats.prefix").to_owned(),
            request_timeout_ms: s.u64("adapter.nats.request_timeout_ms"),
            connection_timeout_ms: s.u64("adapter.nats.connection_timeout_ms"),
            username: s.optional_text("adapter.nats.username"),
            password: s.optional_secret("adapter.nats.password"),
            token: s.optional_secret("adapter.nats.token"),
            creds_file: s.optional_text("adapter.nats.creds_file"),
            nkey_seed_file: s.optional_text("adapter.nats.nkey_seed_file"),
            tls: NatsTls {
                required: s.flag("adapter.nats.tls.required"),
                ca_path: s.optional_text("adapter.nats.tls.ca_path"),
                cert_path: s.optional_text("adapter.nats.tls.cert_path"),
                key_path: s.optional_text("adapter.nats.tls.key_path"),
            },
        },
    }
}

pub(super) fn redis_component(s: &Settings, section: &str) -> RedisComponent {
    RedisComponent {
        prefix: s.text(&format!("{section}.prefix")).to_owned(),
        url_override: s.optional_secret(&format!("{section}.url_override")),
    }
}

pub(super) fn cache(s: &Settings) -> Cache {
    Cache {
        driver: chosen(
            s,
            "cache.driver",
            &[
                ("memory", CacheDriver::Memory),
                ("redis", CacheDriver::Redis),
                ("redis-cluster", CacheDriver::RedisCluster),
                ("none", CacheDriver::None),
            ],
        ),
        redis: redis_component(s, "cache.redis"),
        memory: CacheMemory {
            ttl_s: s.u64("cache.memory.ttl"),
            max_capacity: s.u64("cache.memory.max_capacity"),
            max_bytes: s.u64("cache.memory.max_bytes"),
        },
    }
}

pub(super) fn queue(s: &Settings) -> Queue {
    Queue {
        driver: chosen(
            s,
            "queue.driver",
            &[
                ("memory", QueueDriver::Memory),
                ("redis", QueueDriver::Redis),
                ("redis-cluster", QueueDriver::RedisCluster),
                ("sqs", QueueDriver::Sqs),
                ("none", QueueDriver::None),
            ],
        ),
        redis: QueueRedis {
            concurrency: s.u32("queue.redis.concurrency"),
            prefix: s.text("queue.redis.prefix").to_owned(),
            url_override: s.optional_secret("queue.redis.url_override"),
        },
        redis_cluster: QueueRedisCluster {
            concurrency: s.u32("queue.redis_cluster.concurrency"),
            prefix: s.text("queue.redis_cluster.prefix").to_owned(),
            nodes: s.secrets("queue.redis_cluster.nodes"),
            request_timeout_ms: s.u64("queue.redis_cluster.request_timeout_ms"),
        },
        sqs: Sqs {
            region: s.text("queue.sqs.region").to_owned(),
            queue_url_prefix: s.optional_text("queue.sqs.queue_url_prefix"),
            visibility_timeout_s: s.u32("queue.sqs.visibility_timeout"),
            endpoint_url: s.optional_text("queue.sqs.endpoint_url"),
            max_messages: s.u32("queue.sqs.max_messages"),
            wait_time_s: s.u32("queue.sqs.wait_time_seconds"),
            concurrency: s.u32("queue.sqs.concurrency"),
            fifo: s.flag("queue.sqs.fifo"),
            message_group_id: s.optional_text("queue.sqs.message_group_id"),
        },
    }
}

pub(super) fn database(s: &Settings) -> Database {
    Database {
        redis: Redis {
            host: s.text("database.redis.host").to_owned(),
            port: s.u16("database.redis.port"),
            db: s.u32("database.redis.db"),
            username: s.optional_text("database.redis.username"),
            password: s.optional_secret("database.redis.password"),
            key_prefix: s.text("database.redis.key_prefix").to_owned(),
            sentinels: s.endpoints("database.redis.sentinels"),
            sentinel_password: s.optional_secret("database.redis.sentinel_password"),
            name: s.text("database.redis.name").to_owned(),
            cluster_nodes: s.endpoints("database.redis.cluster_nodes"),
            cluster_username: s.optional_text("database.redis.cluster.username"),
            cluster_password: s.optional_secret("database.redis.cluster.password"),
            cluster_use_tls: s.flag("database.redis.cluster.use_tls"),
        },
        mysql: sql(s, "database.mysql"),
        postgres: sql(s, "database.postgres"),
        dynamodb: Dynamodb {
            region: s.text("database.dynamodb.region").to_owned(),
            table_name: s.text("database.dynamodb.table_name").to_owned(),
            endpoint_url: s.optional_text("database.dynamodb.endpoint_url"),
            aws_access_key_id: s.optional_secret("database.dynamodb.aws_access_key_id"),
            aws_secret_access_key: s.optional_secret("database.dynamodb.aws_secret_access_key"),
            aws_profile_name: s.optional_text("database.dynamodb.aws_profile_name"),
            layout: chosen(
                s,
                "database.dynamodb.layout",
                &[
                    ("sockudo", DynamodbLayout::Sockudo),
                    ("soketi", DynamodbLayout::Soketi),
                ],
            ),
        },
        scylladb: Scylladb {
            nodes: s.texts("database.scylladb.nodes").to_vec(),
            keyspace: s.text("database.scylladb.keyspace").to_owned(),
            table_name: s.text("database.scylladb.table_name").to_owned(),
            username: s.optional_text("database.scylladb.username"),
            password: s.optional_secret("database.scylladb.password"),
            replication_class: s.text("database.scylladb.replication_class").to_owned(),
            replication_factor: s.u32("database.scylladb.replication_factor"),
        },
    }
}

fn sql(s: &Settings, section: &str) -> Sql {
    let text = |member: &str| s.text(&format!("{section}.{member}")).to_owned();
    Sql {
        host: text("host"),
        port: s.u16(&format!("{section}.port")),
        username: text("username"),
        password: s.secret(&format!("{section}.password")),
        database: text("database"),
        table_name: text("table_name"),
        connection_pool_size: s.u32(&format!("{section}.connection_pool_size")),
        pool_min: s.optional_u32(&format!("{section}.pool_min")),
        pool_max: s.optional_u32(&format!("{section}.pool_max")),
    }
}
