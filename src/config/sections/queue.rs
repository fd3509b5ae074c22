//! Where webhooks wait.
//!
//! Owns: `queue`.
//! May depend on: the words of `keys::rows`.
//! Invariants: those of `keys`.

use crate::config::Secret;
use crate::config::keys::rows::*;
use crate::config::shape;

section! {
    pub struct Queue in "queue" {
        /// Where webhooks wait; `none` = webhooks are off.
        driver: QueueDriver = choice(QueueDriver::CHOICES).default("memory")
            .derived("redis where queue.redis or database.redis names a server")
            .env(&["QUEUE_DRIVER"]);
        /// Nobody chose the driver: it follows from a server that is named.
        is_driver_derived: bool;
        /// A node that is silent so long is dead, and its jobs go to others.
        lease_s: u32 = whole(1, 43_200, "seconds").default("30").ours();
        /// What may wait in Redis; beyond it the target with the most loses its oldest, to the dead letters.
        bytes: u64 = whole(1_048_576, 1_099_511_627_776, "bytes").default("268435456").ours();
        redis: QueueRedis => QueueRedis::read;
        redis_cluster: QueueRedisCluster => QueueRedisCluster::read;
        sqs: Sqs => Sqs::read;
    }
}

choices! {
    pub enum QueueDriver {
        Memory = "memory" | "sync",
        Redis = "redis",
        RedisCluster = "redis-cluster" | "redis_cluster",
        Sqs = "sqs",
        /// Webhooks are off.
        None = "none",
    }
}

section! {
    pub struct QueueRedis in "queue.redis" {
        /// Deliveries in flight.
        concurrency: u32 = count(1).default("5").env(&["QUEUE_REDIS_CONCURRENCY"]);
        /// Prefix of the queue's keys.
        prefix: String = text(shape::ANY).default("sockudo_queue:").nullable()
            .derived("database.redis.key_prefix and `queue:` where null")
            .env(&["QUEUE_REDIS_PREFIX"]);
        /// Redis of the queue.
        url_override: Option<Secret> = url().env(&["EXTERNAL_REDIS_URL", "REDIS_URL"]);
        /// Same as driver `redis-cluster`, with this prefix and concurrency.
        _ as "cluster_mode" = flag().default("false");
    }
}

section! {
    pub struct QueueRedisCluster in "queue.redis_cluster" {
        /// Deliveries in flight.
        concurrency: u32 = count(1).default("5")
            .derived("queue.redis.concurrency with its cluster_mode")
            .env(&["REDIS_CLUSTER_QUEUE_CONCURRENCY"]);
        /// Prefix of the queue's keys.
        prefix: String = text(shape::ANY).default("sockudo_queue:").nullable()
            .derived("queue.redis.prefix with its cluster_mode; database.redis.key_prefix and `queue:` where null")
            .env(&["REDIS_CLUSTER_QUEUE_PREFIX"]);
        /// Nodes of the cluster; empty = database.redis.cluster_nodes.
        nodes: Vec<Secret> = urls().default("redis://127.0.0.1:6379").null_is_absent()
            .derived("database.redis.cluster_nodes where those are set")
            .fallback_env(&["DATABASE_REDIS_CLUSTER_NODES"]).env(&["REDIS_CLUSTER_NODES"]);
        /// Wait for an answer.
        request_timeout_ms: u64 = milliseconds(1).default("5000");
    }
}

section! {
    pub struct Sqs in "queue.sqs" {
        /// AWS region.
        region: String = text(shape::NOT_EMPTY).default("us-east-1").fallback_env(&["AWS_REGION"])
            .env(&["QUEUE_SQS_REGION"]);
        /// The queues' URLs without their names; unset = AWS tells them by the names, and they are made if missing.
        queue_url_prefix: Option<String> = text(shape::HTTP_URL);
        /// A job is a node's for so long, at least 2, and again and again while that node lives.
        visibility_timeout_s: u32 as "visibility_timeout" = whole(0, 43_200, "seconds")
            .default("30").env(&["QUEUE_SQS_VISIBILITY_TIMEOUT"]);
        /// Another endpoint than AWS's.
        endpoint_url: Option<String> = text(shape::HTTP_URL).env(&["QUEUE_SQS_ENDPOINT_URL"]);
        /// Messages fetched at once.
        max_messages: u32 = whole(1, 10, "").default("10").env(&["QUEUE_SQS_MAX_MESSAGES"]);
        /// Long poll.
        wait_time_s: u32 as "wait_time_seconds" = whole(0, 20, "seconds").default("5")
            .env(&["QUEUE_SQS_WAIT_TIME_SECONDS"]);
        /// Pollers, at most 64; deliveries in flight are this times `max_messages`, 20 to 256.
        concurrency: u32 = count(1).default("5").env(&["QUEUE_SQS_CONCURRENCY"]);
        /// The queue `webhooks.fifo`, which has orders, instead of `webhooks`.
        fifo: bool = flag().default("false").env(&["QUEUE_SQS_FIFO"]);
        /// With `fifo`: one order of all jobs, by this name; or `per_channel`: one for each target and channel.
        message_group_id: Option<String> = text(shape::NOT_EMPTY).default("default").nullable();
    }
}
