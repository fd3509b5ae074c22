//! The plain counters of the bridge.
//!
//! Owns: `WebhookCounters` and the names of their columns.
//! May depend on: `protocol::app::AppIndex`, `protocol::webhook`, `metrics::{catalogue, counters}`. Not on `prometheus`.
//! Invariants: counters only grow, also when a webhook is removed, and leave with their app.

use crate::{
    metrics::{catalogue::bucket_of, counters::fallen},
    protocol::{
        app::{AppIndex, AppRows},
        webhook::WebhookEvent,
    },
};

/// `event` labels, in the order of the bits of `WebhookInterest`.
pub const WEBHOOK_EVENTS: [&str; 7] = WebhookEvent::NAMES;

/// What became of a webhook event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum DeliveryResult {
    /// The target answered 2xx.
    Ok,
    /// The attempt failed; another one follows.
    Retry,
    /// Given up.
    Dead,
    /// The webhook's filter does not want this channel.
    Filtered,
}

impl DeliveryResult {
    /// The label of each variant, by its number.
    pub const LABELS: [&str; 4] = ["ok", "retry", "dead", "filtered"];
}

/// Why a webhook request was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum DeadReason {
    /// `webhooks.retry.attempts` were made.
    Attempts,
    /// It grew older than `webhooks.retry.max_age_s`.
    Age,
    /// Its webhook was removed by a reload.
    Gone,
    /// The queue was full, and this was the oldest request.
    Overflow,
    /// The process stopped before it could be delivered.
    Shutdown,
}

impl DeadReason {
    /// The label of each variant, by its number.
    pub const LABELS: [&str; 5] = ["attempts", "age", "gone", "overflow", "shutdown"];
}

/// Why a job of a store was given up that belongs to no app of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum StrangeReason {
    /// Nobody has known its target for a minute.
    Gone,
    /// It is no job, or of a version that is not known here.
    Malformed,
}

impl StrangeReason {
    /// The label of each variant, by its number.
    pub const LABELS: [&str; 2] = ["gone", "malformed"];
}

/// What is counted about one app's webhooks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AppWebhooks {
    /// Events: [event][result].
    pub deliveries: [[u64; 4]; 7],
    /// Requests tried again.
    pub retries: u64,
    /// Requests given up, by reason.
    pub dead: [u64; 5],
}

/// A histogram of seconds with the bounds `BUCKETS_S`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seconds {
    pub buckets: [u64; 17],
    pub sum_s: f64,
}

/// What is counted about all webhooks of this node.
#[derive(Clone, Debug, Default)]
pub struct WebhookCounters {
    apps: AppRows<Box<AppWebhooks>>,
    /// Requests of a store that were given up, of no app that has webhooks here, by `StrangeReason`.
    pub strange: [u64; 2],
    /// Length of one HTTP attempt.
    pub attempts: Seconds,
}

impl WebhookCounters {
    /// The counters of an app; made when first asked for (bounded by the number of apps).
    pub fn app(&mut self, app: AppIndex) -> &mut AppWebhooks {
        self.apps.enter(app, Box::default)
    }

    /// Forgets apps that are gone.
    pub fn forget_apps(&mut self, is_known: impl Fn(AppIndex) -> bool) {
        self.apps.retain(|app, _| is_known(app));
    }

    /// Counts a job of a store that belongs to nobody here and was given up.
    pub fn gave_up_strange(&mut self, reason: StrangeReason) {
        self.strange[reason as usize] += 1;
    }

    /// Adds what was counted elsewhere on this node of its apps.
    pub fn absorb(&mut self, other: &Self) {
        for (app, webhooks) in other.apps() {
            self.app(app).absorb(webhooks);
        }
    }

    /// All apps' counters, by their index.
    pub fn apps(&self) -> impl Iterator<Item = (AppIndex, &AppWebhooks)> {
        self.apps.iter().map(|(app, webhooks)| (app, &**webhooks))
    }
}

impl AppWebhooks {
    /// Counts `events` (a count per kind) with one result.
    pub fn count(&mut self, events: &[u32; 7], result: DeliveryResult) {
        for (row, count) in self.deliveries.iter_mut().zip(events) {
            row[result as usize] += u64::from(*count);
        }
    }

    /// Adds what another app counted.
    pub fn absorb(&mut self, other: &Self) {
        let theirs = other.deliveries.iter().flatten().chain(&other.dead);
        let ours = self.deliveries.iter_mut().flatten().chain(&mut self.dead);
        for (ours, theirs) in ours.zip(theirs) {
            *ours += theirs;
        }
        self.retries += other.retries;
    }

    /// By how much the counters have fallen below `before`.
    pub(super) fn shortfall(&self, before: &Self) -> Self {
        Self {
            deliveries: std::array::from_fn(|event| {
                fallen(&self.deliveries[event], &before.deliveries[event])
            }),
            retries: before.retries.saturating_sub(self.retries),
            dead: fallen(&self.dead, &before.dead),
        }
    }
}

impl Seconds {
    /// Adds what was observed elsewhere.
    pub fn absorb(&mut self, other: &Self) {
        for (ours, theirs) in self.buckets.iter_mut().zip(other.buckets) {
            *ours += theirs;
        }
        self.sum_s += other.sum_s;
    }

    /// Records one observation.
    pub fn observe(&mut self, seconds: f64) {
        self.buckets[bucket_of(seconds)] += 1;
        self.sum_s += seconds;
    }
}
