//! All numbers of this node at one moment, from which a scrape is made.
//!
//! Owns: `Sample`, `AppLabels`, and which apps get rows of their own.
//! May depend on: `metrics::{counters, bridge}`. Not on `prometheus`.
//! Invariants: an app keeps its rows until it is forgotten, so that no counter of its own goes down;
//! apps beyond `metrics.max_apps` share one row each under `other`.

use super::{
    bridge::{AppWebhooks, WebhookCounters},
    counters::{AppCounters, ShardSnapshot},
};
use crate::protocol::app::AppIndex;

/// All numbers of this node at one moment.
#[derive(Debug)]
pub struct Sample<'a> {
    pub node: &'a str,
    /// Port of the metrics listener, as Sockudo 2.9 has it in the label `port`.
    pub port: &'a str,
    /// The known apps, by their index.
    pub apps: Vec<(AppIndex, &'a str)>,
    /// Apps with rows of their own; the others are summed.
    pub apps_max: usize,
    /// The latest snapshot of each shard; `None` before its first answer.
    pub shards: Vec<ShardSample<'a>>,
    pub webhooks: &'a WebhookCounters,
    pub webhook_state: WebhookState,
    pub bridge: BridgeState<'a>,
}

/// The latest numbers of one shard.
#[derive(Debug)]
pub struct ShardSample<'a> {
    pub snapshot: Option<&'a ShardSnapshot>,
    /// Share of the last 10 s not parked.
    pub busy_ratio: f64,
    /// Messages from the bridge that met a full queue to this shard.
    pub from_bridge_full: u64,
}

/// The webhook queue now.
#[derive(Clone, Copy, Debug, Default)]
pub struct WebhookState {
    pub driver: &'static str,
    pub waiting_events: usize,
    pub waiting_bytes: usize,
    pub in_flight: usize,
    pub oldest_s: f64,
}

/// The bridge itself now.
#[derive(Debug)]
pub struct BridgeState<'a> {
    pub busy_ratio: f64,
    /// Reasons for not being ready; empty = ready.
    pub unready: &'a [&'static str],
    pub draining: bool,
    pub reload_succeeded: bool,
    pub reload_unix_s: f64,
    pub build: Build,
}

/// What is running.
#[derive(Clone, Copy, Debug)]
pub struct Build {
    pub version: &'static str,
    pub commit: &'static str,
    pub features: &'static str,
}

/// One row per exported app id.
#[derive(Debug)]
pub struct AppRow<'a> {
    pub id: &'a str,
    pub counters: AppCounters,
    pub webhooks: AppWebhooks,
}

impl Sample<'_> {
    /// The apps' numbers summed over the shards; beyond `apps_max` under `other`.
    pub fn app_rows(&self) -> Vec<AppRow<'_>> {
        let own = self.apps.len().min(self.apps_max);
        let mut ids: Vec<&str> = self.apps.iter().take(own).map(|(_, id)| *id).collect();
        if own < self.apps.len() {
            ids.push("other");
        }
        let mut rows: Vec<AppRow<'_>> = ids
            .into_iter()
            .map(|id| AppRow {
                id,
                counters: AppCounters::default(),
                webhooks: AppWebhooks::default(),
            })
            .collect();
        for snapshot in self.shards.iter().filter_map(|shard| shard.snapshot) {
            for (app, counters) in snapshot.counters.apps() {
                if let Some(row) = self.row_of(app).and_then(|row| rows.get_mut(row.min(own))) {
                    row.counters.absorb(counters);
                }
            }
        }
        for (app, webhooks) in self.webhooks.apps() {
            if let Some(row) = self.row_of(app).and_then(|row| rows.get_mut(row.min(own))) {
                row.webhooks.absorb(webhooks);
            }
        }
        rows
    }

    /// `None` for an app that was forgotten.
    fn row_of(&self, app: AppIndex) -> Option<usize> {
        self.apps
            .binary_search_by_key(&app, |(index, _)| *index)
            .ok()
    }
}
