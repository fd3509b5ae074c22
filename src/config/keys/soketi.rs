//! Soketi's names: what its files and its `SOKETI_*` variables mean here, unit by unit.
//!
//! Owns: one row per name of Soketi that is not simply a key of ours in camelCase.
//! May depend on: `names`, `convert`.
//! Invariants: a row names a key, or says why it has no effect; a variable stands in one row per
//! key that it sets. Longer than a screen because it is a list.

use super::convert::{
    bus_driver, day_for_ever, json_or_list, limiter_driver, milliseconds_as_seconds, mode,
    process_id, queue_prefix, redis_url, same, soketi_layout, tls_where_set, wait_seconds,
};
use super::names::{Converted, OtherName};
use crate::config::tree::Node;

/// Before the name of each variable of Soketi.
pub(in crate::config) const SOKETI_PREFIX: &str = "SOKETI_";

/// Variables that make Soketi's app, after `SOKETI_DEFAULT_APP_`, and its keys.
#[rustfmt::skip] // One name a line.
pub(in crate::config) const SOKETI_APP: &[(&str, &str)] = &[
    ("ID", "id"),
    ("KEY", "key"),
    ("SECRET", "secret"),
    ("ENABLED", "enabled"),
    ("MAX_CONNS", "max_connections"),
    ("ENABLE_CLIENT_MESSAGES", "enable_client_messages"),
    ("MAX_CLIENT_EVENTS_PER_SEC", "max_client_events_per_second"),
    ("MAX_BACKEND_EVENTS_PER_SEC", "max_backend_events_per_second"),
    ("MAX_READ_REQ_PER_SEC", "max_read_requests_per_second"),
    ("USER_AUTHENTICATION", "enable_user_authentication"),
    ("WEBHOOKS", "webhooks"),
];

/// Names of an app's keys in Soketi's files, beside those in camelCase.
pub(in crate::config) const APP: &[OtherName] = &[none(
    "enable_statistics",
    "",
    "the metrics count every app by themselves",
)];

#[rustfmt::skip] // One name a line.
pub(in crate::config) const SERVER: &[OtherName] = &[
    // Units.
    row("user_authentication_timeout", "USER_AUTHENTICATION_TIMEOUT", "user_authentication_timeout", milliseconds_as_seconds)
        .in_camel_case(),
    row("shutdown_grace_period", "SHUTDOWN_GRACE_PERIOD", "shutdown_grace_period", milliseconds_as_seconds)
        .in_camel_case(),
    row("app_manager.cache.ttl", "APP_MANAGER_CACHE_TTL", "app_manager.cache.ttl", day_for_ever).in_camel_case(),
    row("queue.sqs.polling_wait_time_ms", "QUEUE_SQS_POLLING_WAIT_TIME_MS", "queue.sqs.wait_time_seconds", wait_seconds),
    // Values.
    row("adapter.driver", "ADAPTER_DRIVER", "adapter.driver", bus_driver),
    row("rate_limiter.driver", "RATE_LIMITER_DRIVER", "rate_limiter.driver", limiter_driver),
    row("mode", "MODE", "mode", mode),
    row("instance.process_id", "", "instance.process_id", process_id),
    row("queue.sqs.queue_url", "QUEUE_SQS_URL", "queue.sqs.queue_url_prefix", queue_prefix),
    row("ssl.cert_path", "SSL_CERT", "ssl.enabled", tls_where_set).in_camel_case(),
    row("ssl.key_path", "SSL_KEY", "ssl.enabled", tls_where_set).in_camel_case(),
    row("app_manager.dynamodb.table", "APP_MANAGER_DYNAMODB_TABLE", "database.dynamodb.layout", soketi_layout),
    // Options of ioredis.
    row("adapter.redis.redis_pub_options", "ADAPTER_REDIS_PUB_OPTIONS", "adapter.redis.redis_pub_options.url", redis_url),
    row("adapter.redis.redis_sub_options", "ADAPTER_REDIS_SUB_OPTIONS", "adapter.redis.redis_sub_options.url", redis_url),
    row("cache.redis.redis_options", "CACHE_REDIS_OPTIONS", "cache.redis.url_override", redis_url),
    row("queue.redis.redis_options", "QUEUE_REDIS_OPTIONS", "queue.redis.url_override", redis_url),
    row("rate_limiter.redis.redis_options", "RATE_LIMITER_REDIS_OPTIONS", "rate_limiter.redis.url_override", redis_url),
    // Names.
    named("adapter.nats.user", "ADAPTER_NATS_USER", "adapter.nats.username"),
    named("adapter.nats.pass", "ADAPTER_NATS_PASSWORD", "adapter.nats.password"),
    named("adapter.nats.timeout", "ADAPTER_NATS_TIMEOUT", "adapter.nats.connection_timeout_ms"),
    named("adapter.nats.requests_timeout", "ADAPTER_NATS_REQUESTS_TIMEOUT", "adapter.nats.request_timeout_ms"),
    named("app_manager.dynamodb.table", "APP_MANAGER_DYNAMODB_TABLE", "database.dynamodb.table_name"),
    named("app_manager.dynamodb.region", "APP_MANAGER_DYNAMODB_REGION", "database.dynamodb.region"),
    named("app_manager.dynamodb.endpoint", "APP_MANAGER_DYNAMODB_ENDPOINT", "database.dynamodb.endpoint_url"),
    named("app_manager.mysql.table", "APP_MANAGER_MYSQL_TABLE", "database.mysql.table_name"),
    named("app_manager.postgres.table", "APP_MANAGER_POSTGRES_TABLE", "database.postgres.table_name"),
    named("database.mysql.user", "DB_MYSQL_USERNAME", "database.mysql.username"),
    named("database.postgres.user", "DB_POSTGRES_USERNAME", "database.postgres.username"),
    named("queue.sqs.endpoint", "QUEUE_SQS_ENDPOINT", "queue.sqs.endpoint_url"),
    named("queue.sqs.batch_size", "QUEUE_SQS_BATCH_SIZE", "queue.sqs.max_messages"),
    // Variables of keys that a file names as we do.
    variable("ADAPTER_REDIS_PREFIX", "adapter.redis.prefix"),
    variable("ADAPTER_REDIS_CLUSTER_MODE", "adapter.redis.cluster_mode"),
    variable("ADAPTER_REDIS_REQUESTS_TIMEOUT", "adapter.redis.requests_timeout"),
    variable("ADAPTER_NATS_PREFIX", "adapter.nats.prefix"),
    list("ADAPTER_NATS_SERVERS", "adapter.nats.servers"),
    variable("ADAPTER_NATS_TOKEN", "adapter.nats.token"),
    variable("ADAPTER_NATS_NODES_NUMBER", "adapter.nats.nodes_number"),
    variable("APP_MANAGER_DRIVER", "app_manager.driver"),
    variable("APP_MANAGER_CACHE_ENABLED", "app_manager.cache.enabled"),
    variable("CACHE_DRIVER", "cache.driver"),
    variable("CACHE_REDIS_CLUSTER_MODE", "cache.redis.cluster_mode"),
    variable("CHANNEL_CACHE_TTL", "channel_limits.cache_ttl"),
    variable("CHANNEL_LIMITS_MAX_NAME_LENGTH", "channel_limits.max_name_length"),
    variable("DB_MYSQL_DATABASE", "database.mysql.database"),
    variable("DB_MYSQL_HOST", "database.mysql.host"),
    variable("DB_MYSQL_PASSWORD", "database.mysql.password"),
    variable("DB_MYSQL_PORT", "database.mysql.port"),
    variable("DB_POOLING_ENABLED", "database_pooling.enabled"),
    variable("DB_POOLING_MAX", "database_pooling.max"),
    variable("DB_POOLING_MIN", "database_pooling.min"),
    variable("DB_POSTGRES_DATABASE", "database.postgres.database"),
    variable("DB_POSTGRES_HOST", "database.postgres.host"),
    variable("DB_POSTGRES_PASSWORD", "database.postgres.password"),
    variable("DB_POSTGRES_PORT", "database.postgres.port"),
    list("DB_REDIS_CLUSTER_NODES", "database.redis.cluster_nodes"),
    variable("DB_REDIS_DB", "database.redis.db"),
    variable("DB_REDIS_HOST", "database.redis.host"),
    variable("DB_REDIS_INSTANCE_NAME", "database.redis.name"),
    variable("DB_REDIS_KEY_PREFIX", "database.redis.key_prefix"),
    variable("DB_REDIS_PASSWORD", "database.redis.password"),
    variable("DB_REDIS_PORT", "database.redis.port"),
    variable("DB_REDIS_SENTINEL_PASSWORD", "database.redis.sentinel_password"),
    list("DB_REDIS_SENTINELS", "database.redis.sentinels"),
    variable("DB_REDIS_USERNAME", "database.redis.username"),
    variable("DEBUG", "debug"),
    variable("EVENT_MAX_BATCH_SIZE", "event_limits.max_batch_size"),
    variable("EVENT_MAX_CHANNELS_AT_ONCE", "event_limits.max_channels_at_once"),
    variable("EVENT_MAX_NAME_LENGTH", "event_limits.max_name_length"),
    variable("EVENT_MAX_SIZE_IN_KB", "event_limits.max_payload_in_kb"),
    variable("HOST", "host"),
    variable("HTTP_ACCEPT_TRAFFIC_MEMORY_THRESHOLD", "http_api.accept_traffic.memory_threshold"),
    variable("METRICS_DRIVER", "metrics.driver"),
    variable("METRICS_ENABLED", "metrics.enabled"),
    variable("METRICS_HOST", "metrics.host"),
    variable("METRICS_PROMETHEUS_PREFIX", "metrics.prometheus.prefix"),
    variable("METRICS_SERVER_PORT", "metrics.port"),
    variable("PATH_PREFIX", "path_prefix"),
    variable("PORT", "port"),
    variable("PRESENCE_MAX_MEMBERS", "presence.max_members_per_channel"),
    variable("PRESENCE_MAX_MEMBER_SIZE", "presence.max_member_size_in_kb"),
    variable("QUEUE_DRIVER", "queue.driver"),
    variable("QUEUE_REDIS_CLUSTER_MODE", "queue.redis.cluster_mode"),
    variable("QUEUE_REDIS_CONCURRENCY", "queue.redis.concurrency"),
    variable("QUEUE_SQS_REGION", "queue.sqs.region"),
    variable("RATE_LIMITER_REDIS_CLUSTER_MODE", "rate_limiter.redis.cluster_mode"),
    variable("SSL_CA", "ssl.ca_path"),
    variable("SSL_CERT", "ssl.cert_path"),
    variable("SSL_KEY", "ssl.key_path"),
    variable("SSL_PASS", "ssl.passphrase"),
    variable("WEBHOOKS_BATCHING", "webhooks.batching.enabled"),
    variable("WEBHOOKS_BATCHING_DURATION", "webhooks.batching.duration"),
    // Without effect.
    none("adapter.cluster.requests_timeout", "ADAPTER_CLUSTER_REQUESTS_TIMEOUT", NO_DISCOVERY),
    none("app_manager.mysql.version", "APP_MANAGER_MYSQL_VERSION", NO_VERSION),
    none("app_manager.mysql.use_mysql2", "APP_MANAGER_MYSQL_USE_V2", NO_VERSION),
    none("app_manager.postgres.version", "APP_MANAGER_POSTGRES_VERSION", NO_VERSION),
    none("cluster.broadcast", "CLUSTER_BROADCAST_ADDRESS", NO_DISCOVERY),
    none("cluster.check_interval", "CLUSTER_CHECK_INTERVAL", NO_DISCOVERY),
    none("cluster.hello_interval", "CLUSTER_HELLO_INTERVAL", NO_DISCOVERY),
    none("cluster.hostname", "CLUSTER_HOSTNAME", NO_DISCOVERY),
    none("cluster.ignore_process", "CLUSTER_IGNORE_PROCESS", NO_DISCOVERY),
    none("cluster.master_timeout", "CLUSTER_MASTER_TIMEOUT", NO_DISCOVERY),
    none("cluster.multicast", "CLUSTER_MULTICAST_ADDRESS", NO_DISCOVERY),
    none("cluster.node_timeout", "CLUSTER_NODE_TIMEOUT", NO_DISCOVERY),
    none("cluster.port", "CLUSTER_PORT", NO_DISCOVERY),
    none("cluster.prefix", "CLUSTER_PREFIX", NO_DISCOVERY),
    none("cluster.unicast", "CLUSTER_UNICAST_ADDRESSES", NO_DISCOVERY),
    none("enable_statistics", "", "the metrics count by themselves"),
    none("instance.node_id", "", "cluster.node_id names a node"),
    none("instance.pod_id", "", "cluster.node_id names a node"),
    none("queue.sqs.client_options", "QUEUE_SQS_CLIENT_OPTIONS", NO_OPTIONS),
    none("queue.sqs.consumer_options", "QUEUE_SQS_CONSUMER_OPTIONS", NO_OPTIONS),
    none("queue.sqs.process_batch", "QUEUE_SQS_PROCESS_BATCH", "webhooks.batching merges events"),
];

const NO_DISCOVERY: &str = "nodes do not look for each other by UDP";
const NO_VERSION: &str = "the driver asks the database";
const NO_OPTIONS: &str = "options of Soketi's own library";

/// A path, what follows `SOKETI_` in the variable's name, the key, and how the value becomes the key's.
const fn row(
    path: &'static str,
    variable: &'static str,
    to: &'static str,
    convert: fn(&Node) -> Converted,
) -> OtherName {
    OtherName::new(path, to, convert).of_soketi(variable)
}

/// A key that Soketi's files call otherwise.
const fn named(path: &'static str, variable: &'static str, to: &'static str) -> OtherName {
    row(path, variable, to, same).spelled_otherwise()
}

const fn variable(name: &'static str, to: &'static str) -> OtherName {
    row("", name, to, same)
}

/// A variable that holds a list as JSON.
const fn list(name: &'static str, to: &'static str) -> OtherName {
    row("", name, to, json_or_list)
}

const fn none(path: &'static str, variable: &'static str, why: &'static str) -> OtherName {
    OtherName::without_effect(path, why).of_soketi(variable)
}
