//! The webhook queue: what waits for delivery, in which order, and for how long.
//!
//! Owns: the drivers; today the one in memory. Also its bounds.
//! May depend on: `bridge::message`, `metrics::bridge`, the configuration's `webhooks` section. Not
//! on HTTP, sockets or a clock: time is an argument.
//! Invariants: a job is in the queue or in flight until it is delivered or counted as dead.

pub(super) mod lane;
pub mod memory;
mod shares;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use super::message::WebhookEvent;
use crate::config::sections::{Retry, Webhooks};
use crate::protocol::app::AppIndex;
use shards::application::Millis;

/// Number of a webhook target on this node; never given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TargetId(pub u32);

/// One request to one target: the events that travel in one body.
#[derive(Clone, Debug)]
pub struct Job {
    pub app: AppIndex,
    pub events: Vec<Arc<WebhookEvent>>,
    /// When its first event came to the queue.
    pub created: Millis,
    /// Attempts made.
    pub attempts: u32,
    /// Its target was failing when the attempt under way began.
    pub(super) is_probe: bool,
    /// Hashes of its channels, sorted: two jobs that share one must not overtake each other.
    pub(super) channels: Vec<u64>,
    /// Bytes that it counts against the bound.
    pub(super) bytes: usize,
}

impl Job {
    /// Events per kind, in the order of `WEBHOOK_EVENTS`.
    pub fn counts(&self) -> [u32; 7] {
        let mut counts = [0; 7];
        for event in &self.events {
            counts[event.kind.column()] += 1;
        }
        counts
    }

    /// Wall clock of the webhook's making, the same at every attempt.
    pub fn time_ms(&self) -> u64 {
        self.events.first().map_or(0, |event| event.time_ms)
    }
}

/// The queue's bounds and rhythm.
#[derive(Clone, Debug)]
pub struct QueueSettings {
    /// Bytes that wait; more drops the oldest job of the app that holds the most.
    pub bytes_max: usize,
    /// Requests at the same time, per node.
    pub in_flight_max: usize,
    /// Requests at the same time to one target that answers.
    pub in_flight_per_target_max: usize,
    /// How long a batch collects; `None` = one event per request.
    pub batch_ms: Option<u64>,
    /// Events of one body at most.
    pub batch_events_max: usize,
    pub retry: Retry,
}

impl QueueSettings {
    /// The bounds and the rhythm of the configuration, with the places of this release.
    pub fn of(webhooks: &Webhooks) -> Self {
        Self {
            bytes_max: usize::try_from(webhooks.queue_bytes).unwrap_or(usize::MAX),
            in_flight_max: 20, // As Sockudo 2.9.
            in_flight_per_target_max: 5,
            batch_ms: webhooks.batching_enabled.then_some(webhooks.batching_ms),
            batch_events_max: webhooks.batching_size.max(1) as usize,
            retry: webhooks.retry.clone(),
        }
    }
}
