//! All numbers of this node at one moment, from which a scrape is made.
//!
//! Owns: `Sample`, `AppLabels`, and which apps get rows of their own.
//! May depend on: `metrics::{backend, counters, bridge, cluster}`. Not on `prometheus`.
//! Invariants: an app keeps its rows until it is forgotten, so that no counter of its own goes down;
//! apps beyond `metrics.max_apps` share one row each under `other`, and stay there; no counter of
//! `other` goes down when one of them is forgotten.

use std::collections::BTreeSet;

use super::{
    backend::BackendCounts,
    bridge::{AppWebhooks, WebhookCounters},
    cluster::ClusterSample,
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
    /// `None` where apps stand in the configuration.
    pub store: Option<StoreSample>,
    /// Other backends than the bus that this node uses.
    pub backends: Vec<BackendSample>,
    /// Of each backend that this node uses, the bus too.
    pub backend_counts: Vec<BackendCounts>,
    /// `None` where the cache is this node's own.
    pub cache: Option<CacheSample>,
    /// None on a node without a bus.
    pub cluster: Option<ClusterSample>,
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
    pub targets_failing: usize,
    pub oldest_s: f64,
    pub dead_letters: u64,
    pub dead_letters_dropped: u64,
    /// `None` where webhooks wait in this process.
    pub store: Option<WebhookStoreSample>,
}

/// The webhook queue that nodes share.
#[derive(Clone, Copy, Debug, Default)]
pub struct WebhookStoreSample {
    pub is_up: bool,
    pub jobs: u64,
    pub bytes: u64,
    /// In the order of `EVENTS`.
    pub events: [u64; 6],
}

impl WebhookStoreSample {
    /// Labels of `webhook_store_events_total`.
    pub const EVENTS: [&str; 6] = ["put", "taken", "recovered", "overflow", "fault", "forgot"];
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
    pub log_lines_lost: u64,
    /// Done, failed.
    pub upgrades: [u64; 2],
    /// Of the last upgrade.
    pub upgrade_silence_s: Option<f64>,
    pub build: Build,
}

/// The store of apps.
#[derive(Clone, Copy, Debug)]
pub struct StoreSample {
    /// As in `app_manager.driver`.
    pub backend: &'static str,
    pub is_up: bool,
    /// Questions of shards, in the order of `bridge_hit`, `store`, `error`.
    pub lookups: [u64; 3],
}

/// What a driver's backend is called, in labels and logs: as a name, whichever part of the node uses it.
pub fn backend_of(driver: &'static str) -> &'static str {
    match driver {
        "redis-cluster" => "redis_cluster",
        name => name,
    }
}

/// A backend and whether it answers.
#[derive(Clone, Copy, Debug)]
pub struct BackendSample {
    /// `redis`, `mysql` and such.
    pub backend: &'static str,
    /// `cache`, `queue` and such.
    pub role: &'static str,
    pub is_up: bool,
}

/// The shared cache of last events.
#[derive(Clone, Copy, Debug)]
pub struct CacheSample {
    /// In the order of `CACHE_RESULTS`.
    pub operations: [u64; 5],
    pub waiting_bytes: usize,
}

/// Labels of `CacheSample::operations`.
pub const CACHE_RESULTS: [&str; 5] = ["hit", "miss", "error", "written", "lost"];

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

/// Which apps have rows of their own, from one scrape to the next.
#[derive(Debug, Default)]
pub struct AppLabels {
    /// At most `metrics.max_apps`.
    own: BTreeSet<AppIndex>,
    /// The known apps that share the row `other`.
    sharing: BTreeSet<AppIndex>,
    other: Other,
}

/// What the row `other` must not fall below.
#[derive(Debug, Default)]
struct Other {
    /// Some app has shared it.
    exists: bool,
    shown: (AppCounters, AppWebhooks),
    /// Counted by apps that are forgotten.
    gone: (AppCounters, AppWebhooks),
}

impl AppLabels {
    /// Drops the apps that are gone; a new one gets a row of its own while there is room.
    fn settle(&mut self, apps: &[(AppIndex, &str)], own_max: usize) {
        let is_known = |app: &AppIndex| apps.binary_search_by_key(app, |(index, _)| *index).is_ok();
        self.own.retain(is_known);
        self.sharing.retain(is_known);
        for (app, _) in apps {
            if self.own.contains(app) || self.sharing.contains(app) {
                continue;
            }
            if self.own.len() < own_max {
                self.own.insert(*app);
            } else {
                self.sharing.insert(*app);
                self.other.exists = true;
            }
        }
    }
}

impl Other {
    /// Adds to the sum of those that are there what those that are gone had counted.
    fn complete(&mut self, row: &mut AppRow<'_>) {
        row.counters.absorb(&self.gone.0);
        row.webhooks.absorb(&self.gone.1);
        let lost = (
            row.counters.shortfall(&self.shown.0),
            row.webhooks.shortfall(&self.shown.1),
        );
        for (counters, webhooks) in [
            (&mut self.gone.0, &mut self.gone.1),
            (&mut row.counters, &mut row.webhooks),
        ] {
            counters.absorb(&lost.0);
            webhooks.absorb(&lost.1);
        }
        self.shown = (row.counters.clone(), row.webhooks.clone());
    }
}

impl Sample<'_> {
    /// The apps' numbers summed over the shards; beyond `apps_max` under `other`.
    pub fn app_rows(&self, labels: &mut AppLabels) -> Vec<AppRow<'_>> {
        labels.settle(&self.apps, self.apps_max);
        let row = |id| AppRow {
            id,
            counters: AppCounters::default(),
            webhooks: AppWebhooks::default(),
        };
        let own = self.apps.iter().filter(|(app, _)| labels.own.contains(app));
        let (places, mut rows): (Vec<AppIndex>, Vec<AppRow<'_>>) =
            own.map(|(app, id)| (*app, row(id))).unzip();
        let other = rows.len();
        if labels.other.exists {
            rows.push(row("other"));
        }
        // `None` for an app that was forgotten.
        let place = |app: AppIndex| match places.binary_search(&app) {
            Ok(place) => Some(place),
            Err(_) => labels.sharing.contains(&app).then_some(other),
        };
        for snapshot in self.shards.iter().filter_map(|shard| shard.snapshot) {
            for (app, counters) in snapshot.counters.reported_apps() {
                if let Some(row) = place(app).and_then(|place| rows.get_mut(place)) {
                    row.counters.absorb(&counters);
                }
            }
        }
        for (app, webhooks) in self.webhooks.apps() {
            if let Some(row) = place(app).and_then(|place| rows.get_mut(place)) {
                row.webhooks.absorb(webhooks);
            }
        }
        if let Some(row) = rows.get_mut(other) {
            labels.other.complete(row);
        }
        rows
    }
}
