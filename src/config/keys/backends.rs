//! Keys of the bus between nodes, the cache and the databases.
//!
//! Owns: rows of the table. Longer than a screen because it is a list.
//! May depend on: the builders of `keys`.
//! Invariants: those of `keys`.

use super::{Key, choice, count, key, milliseconds, named, named_also, port, seconds, text, whole};
use crate::config::kind::Kind;
use crate::config::shape;

const REDIS_URLS: &[&str] = &["EXTERNAL_REDIS_URL", "REDIS_URL", "ADAPTER_REDIS_URL"];

pub(super) const KEYS: &[Key] = &[
    key(
        "adapter.driver",
        choice(&[
            named("local"),
            named("redis"),
            named_also("redis-cluster", &["redis_cluster"]),
            named("nats"),
        ]),
        "How nodes talk to each other.",
    )
    .default("local")
    .env(&["ADAPTER_DRIVER"]),
    key(
        "adapter.buffer_multiplier_per_cpu",
        count(0),
        "Concurrent sends.",
    )
    .default("64")
    .env(&["ADAPTER_BUFFER_MULTIPLIER_PER_CPU"])
    .no_effect("there is no such pool"),
    key(
        "adapter.redis.requests_timeout",
        milliseconds(1),
        "Wait for other nodes' answers.",
    )
    .default("5000")
    .env(&["ADAPTER_REQUEST_TIMEOUT"]),
    key(
        "adapter.redis.prefix",
        text(shape::ANY),
        "Prefix of the bus's channels.",
    )
    .default("sockudo_adapter:")
    .null_is_absent()
    .env(&["ADAPTER_REDIS_PREFIX"]),
    key(
        "adapter.redis.redis_pub_options.url",
        Kind::Url,
        "Redis to publish to.",
    )
    .env(REDIS_URLS),
    key(
        "adapter.redis.redis_sub_options.url",
        Kind::Url,
        "Redis to subscribe to.",
    )
    .env(REDIS_URLS),
    key(
        "adapter.redis.cluster_mode",
        Kind::Flag,
        "Same as driver `redis-cluster`.",
    )
    .default("false"),
    key(
        "adapter.cluster.nodes",
        Kind::Urls,
        "Nodes of the cluster; empty = database.redis.cluster_nodes.",
    )
    .default("")
    .fallback_env(&["DATABASE_REDIS_CLUSTER_NODES"])
    .env(&["REDIS_CLUSTER_NODES"]),
    key(
        "adapter.cluster.prefix",
        text(shape::ANY),
        "Prefix of the bus's channels.",
    )
    .default("sockudo"),
    key(
        "adapter.cluster.request_timeout_ms",
        milliseconds(1),
        "Wait for other nodes' answers.",
    )
    .default("5000"),
    key(
        "adapter.cluster.use_connection_manager",
        Kind::Flag,
        "Reconnect.",
    )
    .default("true")
    .no_effect("a lost connection is always made again"),
    key(
        "adapter.cluster.use_sharded_pubsub",
        Kind::Flag,
        "SPUBLISH and SSUBSCRIBE.",
    )
    .derived("true on Redis 7 and later")
    .ours(),
    key("adapter.nats.servers", Kind::Urls, "NATS servers.")
        .default("nats://localhost:4222")
        .null_is_absent()
        .env(&["NATS_SERVERS"]),
    key(
        "adapter.nats.prefix",
        text(shape::ANY),
        "First part of the subjects.",
    )
    .default("sockudo")
    .null_is_absent(),
    key(
        "adapter.nats.request_timeout_ms",
        milliseconds(1),
        "Wait for other nodes' answers.",
    )
    .default("5000")
    .env(&["NATS_REQUEST_TIMEOUT_MS"]),
    key(
        "adapter.nats.connection_timeout_ms",
        milliseconds(1),
        "Wait for a connection.",
    )
    .default("5000")
    .env(&["NATS_CONNECTION_TIMEOUT_MS"]),
    key(
        "adapter.nats.username",
        text(shape::ANY),
        "Used with a password.",
    )
    .env(&["NATS_USERNAME"]),
    key(
        "adapter.nats.password",
        Kind::Secret,
        "Used with a user name.",
    )
    .env(&["NATS_PASSWORD"]),
    key(
        "adapter.nats.token",
        Kind::Secret,
        "Used without user name and password.",
    )
    .env(&["NATS_TOKEN"]),
    key(
        "adapter.nats.creds_file",
        text(shape::NOT_EMPTY),
        "A `.creds` file.",
    )
    .ours(),
    key(
        "adapter.nats.nkey_seed_file",
        text(shape::NOT_EMPTY),
        "A file with an nkey seed.",
    )
    .ours(),
    key(
        "adapter.nats.tls.required",
        Kind::Flag,
        "Refuse servers without TLS.",
    )
    .default("false")
    .ours(),
    key(
        "adapter.nats.tls.ca_path",
        text(shape::NOT_EMPTY),
        "CA of the servers, PEM.",
    )
    .ours(),
    key(
        "adapter.nats.tls.cert_path",
        text(shape::NOT_EMPTY),
        "Client certificate, PEM.",
    )
    .ours(),
    key(
        "adapter.nats.tls.key_path",
        text(shape::NOT_EMPTY),
        "Client key, PEM.",
    )
    .ours(),
    key("adapter.nats.nodes_number", count(0), "Expected answers.")
        .env(&["ADAPTER_NATS_NODES_NUMBER"])
        .no_effect("membership is known"),
    key(
        "adapter.cluster_health.enabled",
        Kind::Flag,
        "Leases of nodes; they cannot be turned off.",
    )
    .default("true")
    .env(&["CLUSTER_HEALTH_ENABLED"]),
    key(
        "adapter.cluster_health.heartbeat_interval_ms",
        milliseconds(1),
        "Sets `cluster.heartbeat_ms` where that is not set.",
    )
    .fallback_env(&["CLUSTER_HELLO_INTERVAL"])
    .env(&["CLUSTER_HEALTH_HEARTBEAT_INTERVAL"]),
    key(
        "adapter.cluster_health.node_timeout_ms",
        milliseconds(3),
        "Sets `cluster.lease_ms` where that is not set.",
    )
    .fallback_env(&["CLUSTER_NODE_TIMEOUT"])
    .env(&["CLUSTER_HEALTH_NODE_TIMEOUT"]),
    key(
        "adapter.cluster_health.cleanup_interval_ms",
        milliseconds(1),
        "Pause between sweeps.",
    )
    .default("10000")
    .env(&["CLUSTER_HEALTH_CLEANUP_INTERVAL"])
    .no_effect("a dead node is removed when its lease ends"),
    key(
        "cache.driver",
        choice(&[
            named("memory"),
            named("redis"),
            named_also("redis-cluster", &["redis_cluster"]),
            named("none"),
        ]),
        "Where cache channels keep their last event; `none` = they always miss.",
    )
    .default("memory")
    .env(&["CACHE_DRIVER"]),
    key(
        "cache.redis.prefix",
        text(shape::ANY),
        "Prefix of the cache's keys.",
    )
    .default("sockudo_cache:")
    .nullable()
    .derived("database.redis.key_prefix and `cache:` where null"),
    key("cache.redis.url_override", Kind::Url, "Redis of the cache.")
        .env(&["EXTERNAL_REDIS_URL", "REDIS_URL"]),
    key(
        "cache.redis.cluster_mode",
        Kind::Flag,
        "Same as driver `redis-cluster`.",
    )
    .default("false"),
    key("cache.memory.ttl", seconds(0), "Default time to live.")
        .default("300")
        .env(&["CACHE_TTL_SECONDS"]),
    key(
        "cache.memory.cleanup_interval",
        seconds(0),
        "Pause between sweeps.",
    )
    .default("60")
    .env(&["CACHE_CLEANUP_INTERVAL"])
    .no_effect("entries expire by themselves"),
    key(
        "cache.memory.max_capacity",
        whole(0, u64::MAX, ""),
        "Entries per node.",
    )
    .default("10000")
    .env(&["CACHE_MAX_CAPACITY"]),
    key(
        "cache.memory.max_bytes",
        whole(0, u64::MAX, "bytes"),
        "Bytes of entries per node.",
    )
    .default("268435456")
    .ours(),
];

const NOT_USED: &str = "app_manager.cache holds apps";

pub(super) const DATABASE: &[Key] = &[
    key("database.redis.host", text(shape::NOT_EMPTY), "Redis host.")
        .default("127.0.0.1")
        .env(&["DATABASE_REDIS_HOST"]),
    key("database.redis.port", port(), "Redis port.")
        .default("6379")
        .env(&["DATABASE_REDIS_PORT"]),
    key("database.redis.db", count(0), "Redis database.")
        .default("0")
        .env(&["DATABASE_REDIS_DB"]),
    key("database.redis.username", text(shape::ANY), "Redis user.")
        .env(&["DATABASE_REDIS_USERNAME"]),
    key("database.redis.password", Kind::Secret, "Redis password.")
        .fallback_env(&["REDIS_PASSWORD"])
        .env(&["DATABASE_REDIS_PASSWORD"]),
    key(
        "database.redis.key_prefix",
        text(shape::ANY),
        "Where a component's prefix is null.",
    )
    .default("sockudo:")
    .null_is_absent()
    .env(&["DATABASE_REDIS_KEY_PREFIX"]),
    key(
        "database.redis.sentinels",
        Kind::Endpoints {
            host: "localhost",
            port: 26_379,
        },
        "Sentinels; they name the master.",
    )
    .default("")
    .null_is_absent(),
    key(
        "database.redis.sentinel_password",
        Kind::Secret,
        "Password of the Sentinels.",
    ),
    key(
        "database.redis.name",
        text(shape::NOT_EMPTY),
        "The master's name for Sentinel.",
    )
    .default("mymaster"),
    key(
        "database.redis.cluster_nodes",
        Kind::Endpoints {
            host: "127.0.0.1",
            port: 7000,
        },
        "Nodes of a Redis Cluster; a host may carry `redis://` or `rediss://` and a port.",
    )
    .default("")
    .null_is_absent()
    .env(&["DATABASE_REDIS_CLUSTER_NODES"]),
    key(
        "database.redis.cluster.username",
        text(shape::ANY),
        "User for all cluster connections.",
    )
    .env(&["DATABASE_REDIS_CLUSTER_USERNAME"]),
    key(
        "database.redis.cluster.password",
        Kind::Secret,
        "Password for all cluster connections.",
    )
    .env(&["DATABASE_REDIS_CLUSTER_PASSWORD"]),
    key(
        "database.redis.cluster.use_tls",
        Kind::Flag,
        "TLS for all cluster connections.",
    )
    .default("false")
    .env(&["DATABASE_REDIS_CLUSTER_USE_TLS"]),
    key("database.mysql.host", text(shape::NOT_EMPTY), "MySQL host.")
        .default("localhost")
        .env(&["DATABASE_MYSQL_HOST"]),
    key("database.mysql.port", port(), "MySQL port.")
        .default("3306")
        .env(&["DATABASE_MYSQL_PORT"]),
    key(
        "database.mysql.username",
        text(shape::NOT_EMPTY),
        "MySQL user.",
    )
    .default("root")
    .env(&["DATABASE_MYSQL_USERNAME"]),
    key("database.mysql.password", Kind::Secret, "MySQL password.")
        .default("")
        .env(&["DATABASE_MYSQL_PASSWORD"]),
    key(
        "database.mysql.database",
        text(shape::NOT_EMPTY),
        "MySQL database.",
    )
    .default("sockudo")
    .env(&["DATABASE_MYSQL_DATABASE"]),
    key(
        "database.mysql.table_name",
        text(shape::TABLE_NAME),
        "Table of the apps.",
    )
    .default("applications")
    .env(&["DATABASE_MYSQL_TABLE_NAME"]),
    key(
        "database.mysql.connection_pool_size",
        count(1),
        "Connections, where pooling is off.",
    )
    .default("10")
    .env(&["DATABASE_CONNECTION_POOL_SIZE"]),
    key(
        "database.mysql.pool_min",
        count(0),
        "Instead of database_pooling.min.",
    )
    .env(&["DATABASE_MYSQL_POOL_MIN"]),
    key(
        "database.mysql.pool_max",
        count(1),
        "Instead of database_pooling.max.",
    )
    .env(&["DATABASE_MYSQL_POOL_MAX"]),
    key("database.mysql.cache_ttl", count(0), "Cache.")
        .default("300")
        .no_effect(NOT_USED),
    key("database.mysql.cache_cleanup_interval", count(0), "Cache.")
        .default("60")
        .no_effect(NOT_USED),
    key("database.mysql.cache_max_capacity", count(0), "Cache.")
        .default("100")
        .no_effect(NOT_USED),
    key(
        "database.postgres.host",
        text(shape::NOT_EMPTY),
        "Postgres host.",
    )
    .default("localhost")
    .env(&["DATABASE_POSTGRES_HOST"]),
    key("database.postgres.port", port(), "Postgres port.")
        .default("5432")
        .env(&["DATABASE_POSTGRES_PORT"]),
    key(
        "database.postgres.username",
        text(shape::NOT_EMPTY),
        "Postgres user.",
    )
    .default("postgres")
    .env(&["DATABASE_POSTGRES_USERNAME"]),
    key(
        "database.postgres.password",
        Kind::Secret,
        "Postgres password.",
    )
    .default("")
    .env(&["DATABASE_POSTGRES_PASSWORD"]),
    key(
        "database.postgres.database",
        text(shape::NOT_EMPTY),
        "Postgres database.",
    )
    .default("sockudo")
    .env(&["DATABASE_POSTGRES_DATABASE"]),
    key(
        "database.postgres.table_name",
        text(shape::TABLE_NAME),
        "Table of the apps.",
    )
    .default("applications")
    .env(&["DATABASE_POSTGRES_TABLE_NAME"]),
    key(
        "database.postgres.connection_pool_size",
        count(1),
        "Connections, where pooling is off.",
    )
    .default("10")
    .env(&["DATABASE_CONNECTION_POOL_SIZE"]),
    key(
        "database.postgres.pool_min",
        count(0),
        "Instead of database_pooling.min.",
    )
    .env(&["DATABASE_POSTGRES_POOL_MIN"]),
    key(
        "database.postgres.pool_max",
        count(1),
        "Instead of database_pooling.max.",
    )
    .env(&["DATABASE_POSTGRES_POOL_MAX"]),
    key("database.postgres.cache_ttl", count(0), "Cache.")
        .default("300")
        .no_effect(NOT_USED),
    key(
        "database.postgres.cache_cleanup_interval",
        count(0),
        "Cache.",
    )
    .default("60")
    .no_effect(NOT_USED),
    key("database.postgres.cache_max_capacity", count(0), "Cache.")
        .default("100")
        .no_effect(NOT_USED),
    key(
        "database.dynamodb.region",
        text(shape::NOT_EMPTY),
        "AWS region.",
    )
    .default("us-east-1")
    .fallback_env(&["AWS_REGION"])
    .env(&["DATABASE_DYNAMODB_REGION"]),
    key(
        "database.dynamodb.table_name",
        text(shape::TABLE_NAME_AWS),
        "Table of the apps.",
    )
    .default("sockudo-applications")
    .env(&["DATABASE_DYNAMODB_TABLE_NAME"]),
    key(
        "database.dynamodb.endpoint_url",
        text(shape::HTTP_URL),
        "Another endpoint than AWS's.",
    )
    .env(&["DATABASE_DYNAMODB_ENDPOINT_URL"]),
    key(
        "database.dynamodb.aws_access_key_id",
        Kind::Secret,
        "Static credentials.",
    )
    .env(&["AWS_ACCESS_KEY_ID"]),
    key(
        "database.dynamodb.aws_secret_access_key",
        Kind::Secret,
        "Static credentials.",
    )
    .env(&["AWS_SECRET_ACCESS_KEY"]),
    key(
        "database.dynamodb.aws_profile_name",
        text(shape::NOT_EMPTY),
        "A profile of AWS's files.",
    )
    .fallback_env(&["AWS_PROFILE"]),
    key(
        "database.dynamodb.layout",
        choice(&[named("sockudo"), named("soketi")]),
        "Whose names the table's attributes have.",
    )
    .default("sockudo")
    .ours(),
    key(
        "database.scylladb.nodes",
        Kind::Texts(shape::NOT_EMPTY),
        "Nodes.",
    )
    .default("127.0.0.1:9042"),
    key(
        "database.scylladb.keyspace",
        text(shape::TABLE_NAME),
        "Keyspace.",
    )
    .default("sockudo"),
    key(
        "database.scylladb.table_name",
        text(shape::TABLE_NAME),
        "Table of the apps.",
    )
    .default("applications"),
    key("database.scylladb.username", text(shape::ANY), "User."),
    key("database.scylladb.password", Kind::Secret, "Password."),
    key(
        "database.scylladb.replication_class",
        text(shape::NOT_EMPTY),
        "Of a new keyspace.",
    )
    .default("SimpleStrategy"),
    key(
        "database.scylladb.replication_factor",
        count(1),
        "Of a new keyspace.",
    )
    .default("3"),
    key(
        "database_pooling.enabled",
        Kind::Flag,
        "Pools of SQL connections.",
    )
    .default("true")
    .env(&["DATABASE_POOLING_ENABLED"]),
    key("database_pooling.min", count(0), "Connections kept.")
        .default("2")
        .env(&["DATABASE_POOL_MIN"]),
    key("database_pooling.max", count(1), "Connections at most.")
        .default("10")
        .env(&["DATABASE_POOL_MAX"]),
];
