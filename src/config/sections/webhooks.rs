//! Webhooks: batches, retries, and where they may go; upstream's disconnect workers.
//!
//! Owns: `webhooks`, `cleanup`.
//! May depend on: the words of `keys::rows`.
//! Invariants: those of `keys`.

use crate::config::keys::rows::*;
use crate::config::shape;
use ipnet::IpNet;

section! {
    pub struct Webhooks in "webhooks" {
        /// Merge events of one target into one body.
        batching_enabled: bool as "batching.enabled" = flag().default("true")
            .env(&["WEBHOOK_BATCHING_ENABLED"]).reloads();
        /// Collect so long.
        batching_ms: u64 as "batching.duration" = milliseconds(1).default("50")
            .env(&["WEBHOOK_BATCHING_DURATION"]).reloads();
        /// Send at once when so many are collected.
        batching_size: u32 as "batching.size" = count(1).default("50").ours().reloads();
        /// How long a vacated channel waits for a return.
        grace_ms: u64 = milliseconds(0).default("3000").ours().reloads();
        /// What may wait for delivery; beyond it the app with the most loses its oldest.
        queue_bytes: u64 = whole(1_048_576, 1_099_511_627_776, "bytes").default("268435456").ours()
            .reloads();
        /// What may wait on one shard for the bridge; beyond it as `webhooks.queue_bytes`.
        shard_queue_bytes: u32 = whole(65_536, 1_073_741_824, "bytes").default("16777216").ours();
        /// Another address of AWS Lambda than its own.
        lambda_endpoint_url: Option<String> as "lambda.endpoint_url" = text(shape::HTTP_URL).ours();
        retry: Retry => Retry::read;
        targets: Targets => Targets::read;
    }
}

section! {
    pub struct Retry in "webhooks.retry" {
        /// Tries of one body; 0 = until it is too old.
        attempts: u32 = count(0).default("0").ours().reloads();
        /// Wait after the first failure; doubles.
        backoff_ms: u64 = milliseconds(1).default("1000").ours().reloads();
        /// Longest wait.
        backoff_max_ms: u64 = milliseconds(1).default("60000").ours().reloads();
        /// A body older than this is given up.
        max_age_s: u64 = seconds(0).default("300").ours().reloads();
    }
}

section! {
    /// Where webhooks may go: `allow` wins over `deny`.
    pub struct Targets in "webhooks.targets" {
        /// Networks that webhooks may not reach.
        deny: Vec<IpNet> = cidrs().default(DENIED).ours().reloads();
        /// Exceptions; they win over `deny`.
        allow: Vec<IpNet> = cidrs().default("").ours().reloads();
    }
}

/// Link-local networks, which hold the metadata services of AWS, Azure and Google; the IPv6
/// address of AWS's, and the address of Alibaba's.
const DENIED: &str = "169.254.0.0/16,fe80::/10,fd00:ec2::254/128,100.100.100.200/32";

section! {
    const CLEANUP in "cleanup" {
        /// Disconnect workers.
        "async_enabled" = flag().default("true").env(&["CLEANUP_ASYNC_ENABLED"])
            .no_effect(NO_WORKERS);
        /// Disconnect workers.
        "fallback_to_sync" = flag().default("true").env(&["CLEANUP_FALLBACK_TO_SYNC"])
            .no_effect(NO_WORKERS);
        /// Disconnect workers.
        "queue_buffer_size" = count(0).default("50000").env(&["CLEANUP_QUEUE_BUFFER_SIZE"])
            .no_effect(NO_WORKERS);
        /// Disconnect workers.
        "batch_size" = count(0).default("25").env(&["CLEANUP_BATCH_SIZE"]).no_effect(NO_WORKERS);
        /// Disconnect workers.
        "batch_timeout_ms" = milliseconds(0).default("50").env(&["CLEANUP_BATCH_TIMEOUT_MS"])
            .no_effect(NO_WORKERS);
        /// Disconnect workers.
        "worker_threads" = auto_or(0, 65_535).default("auto").env(&["CLEANUP_WORKER_THREADS"])
            .no_effect(NO_WORKERS);
        /// Disconnect workers.
        "max_retry_attempts" = count(0).default("2").env(&["CLEANUP_MAX_RETRY_ATTEMPTS"])
            .no_effect(NO_WORKERS);
    }
}

const NO_WORKERS: &str = "leaving is part of a shard's turn, there are no workers";
