//! What the bridge shows of the node: scrapes, `/debug/shards`, the dump of USR1.
//!
//! Owns: how the loop's state becomes a `Sample`.
//! May depend on: `bridge::run`'s state, `metrics`.
//! Invariants: reads only, except for the window of the bridge's own busy ratio.

use std::sync::Arc;

use serde_json::{Value, json};
use shards::TlsCounters;
use tokio::runtime::Handle;

use super::{
    admin::Scrape,
    app_source::AppSource,
    gather::Latest,
    kept_store::KeptStore,
    link::ShardLink,
    nodes::Nodes,
    rate_store::RateStore,
    run::{Bridge, unix_s},
};
use crate::metrics::{
    backend::BackendCounts,
    sample::{BackendSample, BridgeState, Sample, ShardSample},
};

impl<L: ShardLink> Bridge<L> {
    pub(super) fn scrape(&mut self) -> Scrape {
        let busy_ratio = self.busy_ratio();
        let unready = self.health().unready();
        let shards = self.gathering.shards();
        let sample = Sample {
            node: &self.node_id,
            port: &self.port,
            apps: self.apps.known(),
            apps_max: self.config.metrics.max_apps as usize,
            shards: shards
                .iter()
                .enumerate()
                .map(|(index, latest)| ShardSample {
                    snapshot: latest.snapshot.as_deref(),
                    busy_ratio: latest.busy_ratio,
                    from_bridge_full: self.outbox.full(index),
                })
                .collect(),
            webhooks: self.webhooks.counters(),
            webhook_state: self.webhooks.state(),
            store: self.source.as_ref().map(AppSource::sample),
            backends: self.backends(),
            backend_counts: self.backend_counts(),
            cache: self.kept_store.as_ref().map(KeptStore::sample),
            cluster: self
                .nodes
                .as_ref()
                .map(|nodes| nodes.sample(self.outbox.events_dropped(), unix_s())),
            bridge: BridgeState {
                busy_ratio,
                unready: &unready,
                draining: self.drain.is_some(),
                reload_succeeded: self.reloaded.succeeded,
                reload_unix_s: self.reloaded.unix_s as f64,
                upgrades: self.handover.counts,
                upgrade_silence_s: self.handover.silence_s(),
                log_lines_lost: crate::logging::lines_lost(),
                build: self.build,
            },
        };
        Scrape {
            families: Arc::new(self.exposition.families(&sample, &mut self.app_labels)),
            shards: Arc::new(shards.iter().enumerate().map(shard_json).collect()),
            unix_s: unix_s(),
        }
    }

    pub(super) fn backends(&self) -> Vec<BackendSample> {
        let caches = self.kept_store.iter().map(KeptStore::backend);
        let limiters = self.rate_store.iter().map(RateStore::backend);
        caches.chain(limiters).collect()
    }

    fn backend_counts(&self) -> Vec<BackendCounts> {
        let counts = [
            self.nodes.as_ref().map(Nodes::backend_counts),
            self.source.as_ref().map(AppSource::backend_counts),
            self.kept_store.as_ref().map(KeptStore::backend_counts),
            self.rate_store.as_ref().map(RateStore::backend_counts),
            self.webhooks.backend_counts(),
        ];
        counts.into_iter().flatten().collect()
    }

    /// One line per shard and one for the bridge.
    pub(super) fn log_stats(&mut self) {
        let busy_ratio = self.busy_ratio();
        for (shard, latest) in self.gathering.shards().iter().enumerate() {
            let Some(snapshot) = &latest.snapshot else {
                continue;
            };
            tracing::info!(
                shard,
                connections = snapshot.counters.websockets,
                channels = snapshot.counters.home_channels,
                outbox_bytes = snapshot.runtime.outbox_bytes,
                turn_stalls = snapshot.runtime.turn_stalls,
                busy_ratio = latest.busy_ratio,
                "stats"
            );
        }
        let state = self.webhooks.state();
        tracing::info!(
            node = self.node_id,
            apps = self.apps.iter().count(),
            webhook_events = state.waiting_events,
            webhook_in_flight = state.in_flight,
            webhook_oldest_s = state.oldest_s,
            busy_ratio,
            "stats"
        );
    }

    pub(super) fn busy_ratio(&mut self) -> f64 {
        let Ok(runtime) = Handle::try_current() else {
            return 0.0;
        };
        let busy = runtime.metrics().worker_total_busy_duration(0).as_nanos();
        let since = self.link.started().elapsed().as_nanos();
        let clamp = |ns: u128| u64::try_from(ns).unwrap_or(u64::MAX);
        self.busy.push(clamp(since), clamp(busy))
    }
}

fn shard_json((shard, latest): (usize, &Latest)) -> Value {
    let Some(snapshot) = &latest.snapshot else {
        return json!({ "shard": shard });
    };
    let (counters, runtime) = (&snapshot.counters, &snapshot.runtime);
    json!({
        "shard": shard,
        "connections": runtime.connections,
        "websockets": counters.websockets,
        "channels": counters.home_channels,
        "accepted": runtime.accepted,
        "handed_over": runtime.handed_over,
        "busy_ratio": latest.busy_ratio,
        "turns": runtime.turns,
        "turn_stalls": runtime.turn_stalls,
        "turns_cut": runtime.turns_cut,
        "accepts_refused": runtime.accepts_refused,
        "accept_rests": runtime.accept_rests,
        "submit_refusals": runtime.submit_refusals,
        "outbox_bytes": runtime.outbox_bytes,
        "outbox_bytes_highest": runtime.outbox_bytes_highest,
        "outbox_presses": runtime.outbox_presses,
        "ring_overflows": runtime.ring_overflows,
        "recv_buffers_free": runtime.recv_buffers_free,
        "recv_buffers_exhausted": runtime.recv_buffers_exhausted,
        "mesh_depths": runtime.mesh_depths,
        "mesh_overflow_depths": runtime.mesh_overflow_depths,
        "mesh_backpressure_ms": runtime.mesh_backpressure_ms,
        "to_bridge_depth": runtime.to_bridge_depth,
        "from_bridge_depth": runtime.from_bridge_depth,
        "to_bridge_full": runtime.to_bridge_full,
        "tls": tls_json(&runtime.tls),
        "draining": snapshot.draining,
    })
}

fn tls_json(tls: &TlsCounters) -> Value {
    json!({
        "connections": tls.connections,
        "handshaking": tls.handshaking,
        "handshakes_full": tls.handshakes_full,
        "handshakes_resumed": tls.handshakes_resumed,
        "handshakes_failed": tls.handshakes_failed(),
        "input_bytes": tls.input_bytes,
        "sealed_bytes": tls.sealed_bytes,
        "key_updates": tls.key_updates,
    })
}
