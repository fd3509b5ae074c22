//! Keys of webhooks and their queue, and of upstream's disconnect workers.
//!
//! Owns: rows of the table. Longer than a screen because it is a list.
//! May depend on: the builders of `keys`.
//! Invariants: those of `keys`.

use super::{
    Key, auto_or, choice, count, key, milliseconds, named, named_also, seconds, text, whole,
};
use crate::config::kind::Kind;
use crate::config::shape;

pub(super) const KEYS: &[Key] = &[
    key(
        "queue.driver",
        choice(&[
            named_also("memory", &["sync"]),
            named("redis"),
            named_also("redis-cluster", &["redis_cluster"]),
            named("sqs"),
            named("none"),
        ]),
        "Where webhooks wait; `none` = webhooks are off.",
    )
    .default("memory")
    .env(&["QUEUE_DRIVER"]),
    key("queue.redis.concurrency", count(1), "Deliveries in flight.")
        .default("5")
        .env(&["QUEUE_REDIS_CONCURRENCY"]),
    key(
        "queue.redis.prefix",
        text(shape::ANY),
        "Prefix of the queue's keys.",
    )
    .default("sockudo_queue:")
    .nullable()
    .derived("database.redis.key_prefix and `queue:` where null")
    .env(&["QUEUE_REDIS_PREFIX"]),
    key("queue.redis.url_override", Kind::Url, "Redis of the queue.")
        .env(&["EXTERNAL_REDIS_URL", "REDIS_URL"]),
    key(
        "queue.redis.cluster_mode",
        Kind::Flag,
        "Same as driver `redis-cluster`.",
    )
    .default("false"),
    key(
        "queue.redis_cluster.concurrency",
        count(1),
        "Deliveries in flight.",
    )
    .default("5")
    .env(&["REDIS_CLUSTER_QUEUE_CONCURRENCY"]),
    key(
        "queue.redis_cluster.prefix",
        text(shape::ANY),
        "Prefix of the queue's keys.",
    )
    .default("sockudo_queue:")
    .nullable()
    .derived("database.redis.key_prefix and `queue:` where null")
    .env(&["REDIS_CLUSTER_QUEUE_PREFIX"]),
    key(
        "queue.redis_cluster.nodes",
        Kind::Urls,
        "Nodes of the cluster; empty = database.redis.cluster_nodes.",
    )
    .default("redis://127.0.0.1:6379")
    .null_is_absent()
    .fallback_env(&["DATABASE_REDIS_CLUSTER_NODES"])
    .env(&["REDIS_CLUSTER_NODES"]),
    key(
        "queue.redis_cluster.request_timeout_ms",
        milliseconds(1),
        "Wait for an answer.",
    )
    .default("5000"),
    key("queue.sqs.region", text(shape::NOT_EMPTY), "AWS region.")
        .default("us-east-1")
        .env(&["QUEUE_SQS_REGION"]),
    key(
        "queue.sqs.queue_url_prefix",
        text(shape::HTTP_URL),
        "The queue's URL without its name.",
    ),
    key(
        "queue.sqs.visibility_timeout",
        whole(0, 43_200, "seconds"),
        "A job is leased so long.",
    )
    .default("30")
    .env(&["QUEUE_SQS_VISIBILITY_TIMEOUT"]),
    key(
        "queue.sqs.endpoint_url",
        text(shape::HTTP_URL),
        "Another endpoint than AWS's.",
    )
    .env(&["QUEUE_SQS_ENDPOINT_URL"]),
    key(
        "queue.sqs.max_messages",
        whole(1, 10, ""),
        "Jobs fetched at once.",
    )
    .default("10")
    .env(&["QUEUE_SQS_MAX_MESSAGES"]),
    key(
        "queue.sqs.wait_time_seconds",
        whole(0, 20, "seconds"),
        "Long poll.",
    )
    .default("5")
    .env(&["QUEUE_SQS_WAIT_TIME_SECONDS"]),
    key("queue.sqs.concurrency", count(1), "Pollers.")
        .default("5")
        .env(&["QUEUE_SQS_CONCURRENCY"]),
    key("queue.sqs.fifo", Kind::Flag, "A `.fifo` queue.")
        .default("false")
        .env(&["QUEUE_SQS_FIFO"]),
    key(
        "queue.sqs.message_group_id",
        text(shape::NOT_EMPTY),
        "Group; or `per_channel`.",
    )
    .default("default")
    .nullable(),
    key(
        "webhooks.batching.enabled",
        Kind::Flag,
        "Merge events of one target into one body.",
    )
    .default("true")
    .env(&["WEBHOOK_BATCHING_ENABLED"])
    .reloads(),
    key(
        "webhooks.batching.duration",
        milliseconds(1),
        "Collect so long.",
    )
    .default("50")
    .env(&["WEBHOOK_BATCHING_DURATION"])
    .reloads(),
    key(
        "webhooks.batching.size",
        count(1),
        "Send at once when so many are collected.",
    )
    .default("50")
    .ours()
    .reloads(),
    key(
        "webhooks.grace_ms",
        milliseconds(0),
        "How long a vacated channel waits for a return.",
    )
    .default("3000")
    .ours()
    .reloads(),
    key(
        "webhooks.queue_bytes",
        whole(1_048_576, 1_099_511_627_776, "bytes"),
        "What may wait for delivery; beyond it the app with the most loses its oldest.",
    )
    .default("268435456")
    .ours()
    .reloads(),
    key(
        "webhooks.shard_queue_bytes",
        whole(65_536, 1_073_741_824, "bytes"),
        "What may wait on one shard for the bridge; beyond it as `webhooks.queue_bytes`.",
    )
    .default("16777216")
    .ours(),
    key(
        "webhooks.retry.attempts",
        count(0),
        "Tries of one body; 0 = until it is too old.",
    )
    .default("0")
    .ours()
    .reloads(),
    key(
        "webhooks.retry.backoff_ms",
        milliseconds(1),
        "Wait after the first failure; doubles.",
    )
    .default("1000")
    .ours()
    .reloads(),
    key(
        "webhooks.retry.backoff_max_ms",
        milliseconds(1),
        "Longest wait.",
    )
    .default("60000")
    .ours()
    .reloads(),
    key(
        "webhooks.retry.max_age_s",
        seconds(0),
        "A body older than this is given up.",
    )
    .default("300")
    .ours()
    .reloads(),
    key(
        "webhooks.targets.deny",
        Kind::Cidrs,
        "Networks that webhooks may not reach.",
    )
    .default(DENIED)
    .ours()
    .reloads(),
    key(
        "webhooks.targets.allow",
        Kind::Cidrs,
        "Exceptions; they win over `deny`.",
    )
    .default("")
    .ours()
    .reloads(),
];

/// Link-local networks, which hold the metadata services of AWS, Azure and Google; the IPv6
/// address of AWS's, and the address of Alibaba's.
const DENIED: &str = "169.254.0.0/16,fe80::/10,fd00:ec2::254/128,100.100.100.200/32";

const NO_WORKERS: &str = "leaving is part of a shard's turn, there are no workers";

pub(super) const CLEANUP: &[Key] = &[
    key("cleanup.async_enabled", Kind::Flag, "Disconnect workers.")
        .default("true")
        .env(&["CLEANUP_ASYNC_ENABLED"])
        .no_effect(NO_WORKERS),
    key(
        "cleanup.fallback_to_sync",
        Kind::Flag,
        "Disconnect workers.",
    )
    .default("true")
    .env(&["CLEANUP_FALLBACK_TO_SYNC"])
    .no_effect(NO_WORKERS),
    key("cleanup.queue_buffer_size", count(0), "Disconnect workers.")
        .default("50000")
        .env(&["CLEANUP_QUEUE_BUFFER_SIZE"])
        .no_effect(NO_WORKERS),
    key("cleanup.batch_size", count(0), "Disconnect workers.")
        .default("25")
        .env(&["CLEANUP_BATCH_SIZE"])
        .no_effect(NO_WORKERS),
    key(
        "cleanup.batch_timeout_ms",
        milliseconds(0),
        "Disconnect workers.",
    )
    .default("50")
    .env(&["CLEANUP_BATCH_TIMEOUT_MS"])
    .no_effect(NO_WORKERS),
    key(
        "cleanup.worker_threads",
        auto_or(0, 65_535),
        "Disconnect workers.",
    )
    .default("auto")
    .env(&["CLEANUP_WORKER_THREADS"])
    .no_effect(NO_WORKERS),
    key(
        "cleanup.max_retry_attempts",
        count(0),
        "Disconnect workers.",
    )
    .default("2")
    .env(&["CLEANUP_MAX_RETRY_ATTEMPTS"])
    .no_effect(NO_WORKERS),
];
