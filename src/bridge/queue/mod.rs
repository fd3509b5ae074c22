//! The webhook queue: what waits for delivery, in which order, and for how long.
//!
//! Owns: `Job`; `batch` makes them, `memory` holds what this process may deliver, `store` is where nodes
//! share the rest, `record` is a job as text. Also its bounds.
//! May depend on: `bridge::message`, `metrics::bridge`, the configuration's `webhooks` section. Not
//! on HTTP or a clock: time is an argument. Only drivers of `store` know sockets.
//! Invariants: a job is in the queue or in flight until it is delivered or counted as dead.

mod batch;
pub mod dead;
pub(super) mod lane;
pub mod memory;
mod owned;
pub mod part;
#[cfg(test)]
mod part_tests;
pub mod record;
mod shares;
pub mod store;
#[cfg(test)]
mod tests;
mod turns;

use std::{fmt, sync::Arc};

use sha2::{Digest as _, Sha256};

use super::webhook_event::WebhookEvent;
use crate::config::sections::{Retry, Webhooks};
use crate::protocol::app::AppIndex;
use shards::application::Millis;

use self::store::Receipt;

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
    /// What the last attempt met.
    pub error: Option<Arc<str>>,
    /// By which the store knows it; `None` = this process alone has it.
    pub receipt: Option<Receipt>,
    /// Its target was failing when the attempt under way began.
    pub(super) is_probe: bool,
    /// Hashes of its channels, sorted: two jobs that share one must not overtake each other.
    pub(super) channels: Vec<u64>,
    /// Bytes that it counts against the bound.
    pub(super) bytes: usize,
}

impl Job {
    pub fn new(app: AppIndex, events: Vec<Arc<WebhookEvent>>, created: Millis) -> Self {
        let mut channels: Vec<u64> = events.iter().map(|event| hash(&event.channel)).collect();
        channels.sort_unstable();
        channels.dedup();
        let bytes = events.iter().map(|event| event.approximate_bytes()).sum();
        Self {
            app,
            events,
            created,
            attempts: 0,
            error: None,
            receipt: None,
            is_probe: false,
            channels,
            bytes,
        }
    }

    /// Notes what its attempt met, as far as there is room for it.
    pub fn met(&mut self, error: &str) {
        self.error = Some(error[..error.floor_char_boundary(ERROR_BYTES_MAX)].into());
    }

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

/// Of what is kept of an attempt's error. It stays as long as the job, in a store too.
const ERROR_BYTES_MAX: usize = 256;

/// Equal channels hash equally within one process; a collision only delays a job.
fn hash(channel: &str) -> u64 {
    HASHER.with(|hasher| hasher.hash_one(channel))
}

thread_local! {
    static HASHER: ahash::RandomState = ahash::RandomState::new();
}

/// What every node calls a target: a digest of its app's id, its URL, and how many of the app's earlier
/// targets have the same URL. It tells nothing of the URL, which may hold a credential.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TargetName([u8; 16]);

impl TargetName {
    pub fn of(app_id: &str, url: &str, ordinal: usize) -> Self {
        let ordinal = u64::try_from(ordinal).unwrap_or(u64::MAX).to_be_bytes();
        let mut digest = Sha256::new();
        // An id has a length of its own, so that no part can be taken for another.
        let id_bytes = u64::try_from(app_id.len())
            .unwrap_or(u64::MAX)
            .to_be_bytes();
        for part in [&id_bytes[..], app_id.as_bytes(), &ordinal, url.as_bytes()] {
            digest.update(part);
        }
        let mut name = [0; 16];
        name.copy_from_slice(&digest.finalize()[..16]);
        Self(name)
    }

    /// Of the 32 hexadecimal digits that `Display` writes.
    pub fn parse(text: &str) -> Option<Self> {
        let is_hex = |it: u8| it.is_ascii_digit() || (b'a'..=b'f').contains(&it);
        if text.len() != 32 || !text.bytes().all(is_hex) {
            return None;
        }
        u128::from_str_radix(text, 16)
            .ok()
            .map(|it| Self(it.to_be_bytes()))
    }

    /// One of `count` parts, evenly.
    pub fn part(self, count: usize) -> usize {
        usize::from(self.0[15]) % count
    }
}

impl fmt::Display for TargetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for TargetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
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

/// A slow target has its places for as long as it takes to answer, so there are many: each may cost a file and some
/// 130 kB at the worst. As many connections are kept.
pub(super) const IN_FLIGHT_MAX: usize = 64;

impl QueueSettings {
    /// The bounds and the rhythm of the configuration, with the places of this release.
    pub fn of(webhooks: &Webhooks) -> Self {
        Self {
            bytes_max: usize::try_from(webhooks.queue_bytes).unwrap_or(usize::MAX),
            in_flight_max: IN_FLIGHT_MAX,
            in_flight_per_target_max: 5,
            batch_ms: webhooks.batching_enabled.then_some(webhooks.batching_ms),
            batch_events_max: webhooks.batching_size.max(1) as usize,
            retry: webhooks.retry.clone(),
        }
    }
}

/// Half of a pause, and of the other half as much as `jitter` says, which is in 0..1.
#[expect(
    clippy::cast_possible_truncation,
    reason = "not negative, and no more than `pause_ms`"
)]
fn between_half_and_all(pause_ms: u64, jitter: f64) -> u64 {
    pause_ms / 2 + (pause_ms as f64 / 2.0 * jitter) as u64
}
