//! The scrape of a node against the names, types, labels and buckets that are promised.
//!
//! Owns: the parts by family; how a sample is made, scraped and compared.
//! May depend on: `metrics`.
//! Invariants: the tables of the parts are copies of their own: nothing in them is taken from the catalogue.

mod apps;
mod backends;
mod cluster;
mod contract;
mod exposition;
mod node;
mod upstream;

use std::collections::BTreeSet;

use prometheus::proto::{MetricFamily, MetricType};

use super::{
    bridge::{DeliveryResult, Seconds, StrangeReason, WebhookCounters},
    cluster::{CanarySample, ClusterSample, PeerSample, PeerTally},
    counters::{ShardCounters, ShardSnapshot},
    exposition::{Exposition, open_metrics, rfc3339, text},
    sample::{
        AppLabels, AppRow, BackendSample, BridgeState, Build, CacheSample, Sample, ShardSample,
        WebhookState, WebhookStoreSample,
    },
};
use crate::protocol::app::AppIndex;

const I: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];
const E: &[f64] = &[
    0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0, 5000.0,
];
const L: &[f64] = &[
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
];

type Row = (
    &'static str,
    &'static str,
    &'static [&'static str],
    &'static [f64],
);

fn assert_row(families: &[MetricFamily], (name, kind, labels, buckets): &Row) {
    assert_family(families, name, kind, labels, buckets);
}

fn assert_family(
    families: &[MetricFamily],
    name: &str,
    kind: &str,
    labels: &[&str],
    buckets: &[f64],
) {
    let full = format!("sockudo_{name}");
    let family = families.iter().find(|family| family.name() == full);
    let family = family.unwrap_or_else(|| panic!("{name} is missing"));
    let shown = match family.get_field_type() {
        MetricType::COUNTER => "counter",
        MetricType::GAUGE => "gauge",
        MetricType::HISTOGRAM => "histogram",
        MetricType::SUMMARY | MetricType::UNTYPED => "other",
    };
    assert_eq!(shown, kind, "type of {name}");
    for row in family.get_metric() {
        let keys: Vec<&str> = row.get_label().iter().map(|pair| pair.name()).collect();
        assert_eq!(keys, labels, "labels of {name}");
        let bounds: Vec<f64> = row
            .get_histogram()
            .get_bucket()
            .iter()
            .map(|bucket| bucket.upper_bound())
            .collect();
        assert_eq!(bounds, buckets, "buckets of {name}");
    }
}

fn sample_names(sample: &Sample<'_>) -> BTreeSet<String> {
    let exposition = Exposition::new("sockudo_").expect("collector");
    let families = exposition.families(sample, &mut AppLabels::default());
    families.iter().map(|it| it.name().to_owned()).collect()
}

fn scrape(
    shards: &[ShardSnapshot],
    apps: &[&str],
    apps_max: usize,
    webhooks: &WebhookCounters,
) -> Vec<MetricFamily> {
    let exposition = Exposition::new("sockudo_").expect("collector");
    let sample = sample(shards, apps, apps_max, webhooks);
    exposition.families(&sample, &mut AppLabels::default())
}

fn sample<'a>(
    shards: &'a [ShardSnapshot],
    apps: &[&'a str],
    apps_max: usize,
    webhooks: &'a WebhookCounters,
) -> Sample<'a> {
    Sample {
        store: None,
        backends: Vec::new(),
        backend_counts: Vec::new(),
        cache: None,
        node: "n1",
        port: "9601",
        apps: (0..).map(AppIndex).zip(apps.iter().copied()).collect(),
        apps_max,
        shards: shards
            .iter()
            .map(|snapshot| ShardSample {
                snapshot: Some(snapshot),
                busy_ratio: 0.25,
                from_bridge_full: 0,
            })
            .collect(),
        webhooks,
        webhook_state: WebhookState {
            driver: "memory",
            ..WebhookState::default()
        },
        cluster: None,
        bridge: BridgeState {
            busy_ratio: 0.1,
            unready: &[],
            draining: false,
            reload_succeeded: true,
            reload_unix_s: 1.0,
            log_lines_lost: 3,
            upgrades: [2, 1],
            upgrade_silence_s: Some(0.012),
            build: Build {
                version: "0",
                commit: "c",
                features: "",
            },
        },
    }
}

fn idle_shard() -> ShardSnapshot {
    ShardSnapshot {
        counters: ShardCounters::default(),
        runtime: shards::application::RuntimeCounters::default(),
        draining: None,
    }
}

fn busy_shard() -> ShardSnapshot {
    let mut shard = idle_shard();
    shard.counters.unknown_app_errors[0] = 7;
    shard.counters.unknown_http_errors.add(404, 3);
    shard.counters.system_http_calls = 2;
    shard.runtime.mesh_depths = vec![0, 5];
    shard.runtime.mesh_overflow_depths = vec![0, 0];
    shard.runtime.accepts_refused = 11;
    shard.runtime.accept_rests = 12;
    shard.runtime.turns_cut = 13;
    shard.runtime.outbox_presses = 14;
    shard.runtime.submit_refusals = 15;
    shard.runtime.tls.handshakes_resumed = 51;
    shard.runtime.tls.failed_not_tls = 52;
    shard.runtime.tls.records_refused = 53;
    shard.runtime.tls.handshaking = 54;
    shard.runtime.tls.connections = 55;
    shard.runtime.tls.sealed_bytes = 56;
    shard.counters.publishers_held = 16;
    shard.counters.inputs_throttled = 17;
    shard.counters.inputs_shed = 18;
    shard.counters.bodies_shed = 83;
    shard.counters.reads_alone = 84;
    shard.counters.connections_aged = 37;
    shard.counters.proxy_header_failures[2] = 41;
    shard.counters.kept_bytes = 19;
    shard.counters.kept_doubted = 43;
    shard.counters.kept_replaced = 47;
    shard.counters.joins_waiting = 23;
    shard.counters.joins_refused = 29;
    shard.counters.node_events_refused = 31;
    let app = shard.counters.app(AppIndex(0));
    app.connected = 3;
    app.new_connections = 3;
    let faults = app.faults_mut();
    faults.connection_errors[super::counters::ConnectionError::PongTimeout as usize] = 1;
    faults.dropped_frames[0] = 1;
    faults.dropped_bytes[0] = 100;
    faults.limit_denied[0] = 1;
    faults.webhooks_dropped = 1;
    app.http_error(401);
    app.broadcast_latency.get_or_insert_with(Box::default)[2][2].observe(2_250);
    shard
}
