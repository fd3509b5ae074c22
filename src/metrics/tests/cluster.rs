//! The names, types, labels and buckets of a node with a bus.
//!
//! Owns: an independent copy of that table.
//! May depend on: `metrics::tests`.
//! Invariants: what a bus adds is what the table has, and nothing else.

use super::*;

/// On a node with a bus.
const CLUSTER: &[Row] = &[
    (
        "cluster_snapshots_total",
        "counter",
        &["direction", "node", "peer"],
        &[],
    ),
    (
        "cluster_sequence_gaps_total",
        "counter",
        &["node", "peer"],
        &[],
    ),
    ("upgrade_dropped_batches_total", "counter", &["node"], &[]),
    ("cluster_partitions_behind", "gauge", &["node"], &[]),
    ("backend_up", "gauge", &["backend", "node", "role"], &[]),
    ("adapter_canary_seconds", "histogram", &["node"], L),
    (
        "adapter_canary_last_success_timestamp_seconds",
        "gauge",
        &["node"],
        &[],
    ),
    ("adapter_canary_failures_total", "counter", &["node"], &[]),
    ("cluster_nodes", "gauge", &["node", "state"], &[]),
    (
        "cluster_lease_expiries_total",
        "counter",
        &["node", "peer"],
        &[],
    ),
    (
        "cluster_messages_total",
        "counter",
        &["direction", "kind", "node"],
        &[],
    ),
    (
        "cluster_batches_total",
        "counter",
        &["direction", "node"],
        &[],
    ),
    (
        "cluster_bytes_total",
        "counter",
        &["direction", "node"],
        &[],
    ),
    (
        "cluster_peer_last_heard_seconds",
        "gauge",
        &["node", "peer"],
        &[],
    ),
    (
        "cluster_lost_batches_total",
        "counter",
        &["node", "peer", "road"],
        &[],
    ),
    (
        "cluster_refused_batches_total",
        "counter",
        &["node", "reason"],
        &[],
    ),
    (
        "cluster_unknown_messages_total",
        "counter",
        &["node", "peer"],
        &[],
    ),
    ("cluster_broken_messages_total", "counter", &["node"], &[]),
    ("cluster_dropped_total", "counter", &["node", "reason"], &[]),
    (
        "horizontal_transport_messages_dropped_total",
        "counter",
        &["node", "transport"],
        &[],
    ),
    ("cluster_topics", "gauge", &["node"], &[]),
    ("cluster_topics_wanted", "gauge", &["node"], &[]),
    (
        "presence_lease_expiries_total",
        "counter",
        &["app_id", "node"],
        &[],
    ),
    ("cluster_witnesses", "gauge", &["node", "state"], &[]),
    ("cluster_subscribe_seconds", "histogram", &["node"], L),
];

/// Each number another one.
fn counted() -> ClusterSample {
    let mut echoes = Seconds::default();
    echoes.observe(0.003);
    let canary = CanarySample {
        echoes,
        echoed_unix_s: 5.0,
        failures: 1,
    };
    ClusterSample {
        driver: "redis",
        is_up: true,
        canary: Some(canary),
        nodes: [2, 1, 3],
        peers: vec![PeerSample {
            name: "n2".to_owned(),
            silent_s: 0.4,
            lost: [7, 0],
        }],
        tallies: vec![PeerTally {
            name: "n2".to_owned(),
            gaps: 11,
            snapshots: [12, 13],
            unknown: 14,
            lease_expiries: 15,
        }],
        messages: [[3, 4], [0, 0], [0, 0], [0, 0], [16, 17], [0, 0]],
        batches_refused: [0, 0, 0, 0, 5, 6, 0, 0],
        dropped: [1, 2, 0, 0, 0, 4, 0, 0, 0],
        unkept: 3,
        topics_wanted: 9,
        topics: 8,
        ..ClusterSample::default()
    }
}

#[test]
fn a_node_with_a_bus_shows_it_and_its_peers() {
    let webhooks = WebhookCounters::default();
    let mut shard = idle_shard();
    let faults = shard.counters.app(AppIndex(0)).faults_mut();
    faults.presence_lease_expiries = 18;
    let shards = [shard];
    let mut sample = sample(&shards, &["app-1"], 10, &webhooks);
    let alone = sample_names(&sample);
    sample.cluster = Some(counted());
    let exposition = Exposition::new("sockudo_").expect("collector");
    let families = exposition.families(&sample, &mut AppLabels::default());
    for row in CLUSTER {
        assert_row(&families, row);
    }
    let added: BTreeSet<String> = &sample_names(&sample) - &alone;
    let names = CLUSTER.iter().map(|row| format!("sockudo_{}", row.0));
    assert_eq!(added, names.collect());
    let body = text(&families).expect("valid families");
    for line in [
        "sockudo_backend_up{backend=\"redis\",node=\"n1\",role=\"adapter\"} 1",
        "sockudo_adapter_canary_seconds_bucket{node=\"n1\",le=\"0.005\"} 1",
        "sockudo_adapter_canary_last_success_timestamp_seconds{node=\"n1\"} 5",
        "sockudo_adapter_canary_failures_total{node=\"n1\"} 1",
        "sockudo_cluster_nodes{node=\"n1\",state=\"suspect\"} 1",
        "sockudo_cluster_nodes{node=\"n1\",state=\"expired\"} 3",
        "sockudo_cluster_messages_total{direction=\"in\",kind=\"event\",node=\"n1\"} 4",
        "sockudo_cluster_messages_total{direction=\"out\",kind=\"request\",node=\"n1\"} 16",
        "sockudo_cluster_sequence_gaps_total{node=\"n1\",peer=\"n2\"} 11",
        "sockudo_cluster_snapshots_total{direction=\"out\",node=\"n1\",peer=\"n2\"} 12",
        "sockudo_cluster_snapshots_total{direction=\"in\",node=\"n1\",peer=\"n2\"} 13",
        "sockudo_cluster_unknown_messages_total{node=\"n1\",peer=\"n2\"} 14",
        "sockudo_cluster_lease_expiries_total{node=\"n1\",peer=\"n2\"} 15",
        "sockudo_cluster_peer_last_heard_seconds{node=\"n1\",peer=\"n2\"} 0.4",
        "sockudo_cluster_lost_batches_total{node=\"n1\",peer=\"n2\",road=\"events\"} 7",
        "sockudo_cluster_refused_batches_total{node=\"n1\",reason=\"wrong_mac\"} 6",
        "sockudo_cluster_dropped_total{node=\"n1\",reason=\"shard_full\"} 4",
        "sockudo_horizontal_transport_messages_dropped_total{node=\"n1\",transport=\"redis\"} 7",
        "sockudo_upgrade_dropped_batches_total{node=\"n1\"} 3",
        "sockudo_presence_lease_expiries_total{app_id=\"app-1\",node=\"n1\"} 18",
        "sockudo_cluster_topics{node=\"n1\"} 8",
        "sockudo_cluster_topics_wanted{node=\"n1\"} 9",
    ] {
        assert!(body.lines().any(|l| l == line), "no line {line}\n{body}");
    }
}

#[test]
fn a_canary_that_does_not_fly_has_no_time_that_could_be_long_ago() {
    let webhooks = WebhookCounters::default();
    let shards = [idle_shard()];
    let mut sample = sample(&shards, &["app-1"], 10, &webhooks);
    let mut counted = counted();
    counted.canary = None;
    sample.cluster = Some(counted);
    let names = sample_names(&sample);
    let canary: Vec<_> = names.iter().filter(|it| it.contains("canary")).collect();
    assert_eq!(canary, [""; 0]);
    assert!(names.contains("sockudo_cluster_nodes"));
}
