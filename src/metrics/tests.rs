//! The scrape of a node against the names, types, labels and buckets that are promised.
//!
//! Owns: an independent copy of that table.
//! May depend on: `metrics`.
//! Invariants: a row of the first table is changed only together with every user's dashboards.

use std::collections::BTreeSet;

use prometheus::proto::{MetricFamily, MetricType};

use super::{
    bridge::{DeliveryResult, Seconds, StrangeReason, WebhookCounters},
    cluster::{ClusterSample, PeerSample, RoadSample},
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

/// Sockudo 2.9: all of these are there as soon as one app is known.
const UPSTREAM: &[Row] = &[
    ("connected", "gauge", &["app_id", "port"], &[]),
    ("new_connections_total", "counter", &["app_id", "port"], &[]),
    (
        "new_disconnections_total",
        "counter",
        &["app_id", "port"],
        &[],
    ),
    (
        "connection_errors_total",
        "counter",
        &["app_id", "error_type", "port"],
        &[],
    ),
    ("socket_received_bytes", "counter", &["app_id", "port"], &[]),
    (
        "socket_transmitted_bytes",
        "counter",
        &["app_id", "port"],
        &[],
    ),
    (
        "ws_messages_received_total",
        "counter",
        &["app_id", "port"],
        &[],
    ),
    (
        "ws_messages_sent_total",
        "counter",
        &["app_id", "port"],
        &[],
    ),
    ("http_received_bytes", "counter", &["app_id", "port"], &[]),
    (
        "http_transmitted_bytes",
        "counter",
        &["app_id", "port"],
        &[],
    ),
    (
        "http_calls_received_total",
        "counter",
        &["app_id", "port"],
        &[],
    ),
    (
        "horizontal_adapter_resolve_time",
        "histogram",
        &["app_id", "port"],
        I,
    ),
    (
        "horizontal_adapter_resolved_promises",
        "counter",
        &["app_id", "port"],
        &[],
    ),
    (
        "horizontal_adapter_uncomplete_promises",
        "counter",
        &["app_id", "port"],
        &[],
    ),
    (
        "horizontal_adapter_sent_requests",
        "counter",
        &["app_id", "port"],
        &[],
    ),
    (
        "horizontal_adapter_received_requests",
        "counter",
        &["app_id", "port"],
        &[],
    ),
    (
        "horizontal_adapter_received_responses",
        "counter",
        &["app_id", "port"],
        &[],
    ),
    (
        "rate_limit_checks_total",
        "counter",
        &["app_id", "limiter_type", "port", "request_context"],
        &[],
    ),
    (
        "rate_limit_triggered_total",
        "counter",
        &["app_id", "limiter_type", "port", "request_context"],
        &[],
    ),
    (
        "channel_subscriptions_total",
        "counter",
        &["app_id", "channel_type", "port"],
        &[],
    ),
    (
        "channel_unsubscriptions_total",
        "counter",
        &["app_id", "channel_type", "port"],
        &[],
    ),
    (
        "active_channels",
        "gauge",
        &["app_id", "channel_type", "port"],
        &[],
    ),
    (
        "broadcast_latency_ms",
        "histogram",
        &["app_id", "channel_type", "port", "recipient_count_bucket"],
        E,
    ),
];

/// Ours.
const ADDED: &[Row] = &[
    (
        "build_info",
        "gauge",
        &["commit", "features", "node", "version"],
        &[],
    ),
    ("config_last_reload_success", "gauge", &["node"], &[]),
    ("log_lines_lost_total", "counter", &["node"], &[]),
    ("upgrades_total", "counter", &["node", "result"], &[]),
    ("upgrade_silence_seconds", "gauge", &["node"], &[]),
    (
        "config_last_reload_timestamp_seconds",
        "gauge",
        &["node"],
        &[],
    ),
    ("ready", "gauge", &["node", "reason"], &[]),
    ("shard_connections", "gauge", &["node", "shard"], &[]),
    ("shard_channels", "gauge", &["node", "shard"], &[]),
    ("shard_accepted_total", "counter", &["node", "shard"], &[]),
    (
        "shard_handed_over_total",
        "counter",
        &["node", "shard"],
        &[],
    ),
    ("shard_loop_busy_ratio", "gauge", &["node", "shard"], &[]),
    ("shard_turn_seconds", "histogram", &["node", "shard"], L),
    ("mesh_hop_seconds", "histogram", &["node"], L),
    ("http_request_seconds", "histogram", &["node", "route"], L),
    ("app_lookup_total", "counter", &["node", "result"], &[]),
    (
        "shard_turn_stalls_total",
        "counter",
        &["node", "shard"],
        &[],
    ),
    (
        "shard_ring_overflows_total",
        "counter",
        &["node", "shard"],
        &[],
    ),
    ("shard_recv_buffers_free", "gauge", &["node", "shard"], &[]),
    (
        "shard_recv_buffers_exhausted_total",
        "counter",
        &["node", "shard"],
        &[],
    ),
    ("mesh_queue_depth", "gauge", &["node", "peer", "shard"], &[]),
    (
        "mesh_overflow_depth",
        "gauge",
        &["node", "peer", "shard"],
        &[],
    ),
    (
        "mesh_backpressure_seconds_total",
        "counter",
        &["node", "shard"],
        &[],
    ),
    ("send_queue_bytes", "gauge", &["node", "shard"], &[]),
    ("send_queue_max_bytes", "gauge", &["node", "shard"], &[]),
    (
        "slow_consumer_disconnects_total",
        "counter",
        &["app_id", "node"],
        &[],
    ),
    (
        "dropped_frames_total",
        "counter",
        &["app_id", "node", "reason"],
        &[],
    ),
    (
        "dropped_bytes_total",
        "counter",
        &["app_id", "node", "reason"],
        &[],
    ),
    (
        "accept_rate_limited_total",
        "counter",
        &["node", "reason", "shard"],
        &[],
    ),
    (
        "handshake_failures_total",
        "counter",
        &["node", "reason"],
        &[],
    ),
    (
        "proxy_header_failures_total",
        "counter",
        &["node", "reason"],
        &[],
    ),
    (
        "http_errors_total",
        "counter",
        &["app_id", "node", "status"],
        &[],
    ),
    (
        "bridge_queue_depth",
        "gauge",
        &["direction", "node", "shard"],
        &[],
    ),
    (
        "bridge_queue_full_total",
        "counter",
        &["node", "request", "shard"],
        &[],
    ),
    ("bridge_busy_ratio", "gauge", &["node"], &[]),
    ("webhook_queue_depth", "gauge", &["driver", "node"], &[]),
    ("webhook_queue_bytes", "gauge", &["driver", "node"], &[]),
    (
        "webhook_events_dropped_total",
        "counter",
        &["app_id", "node"],
        &[],
    ),
    ("bridge_queue_bytes", "gauge", &["node", "shard"], &[]),
    (
        "shard_accepts_refused_total",
        "counter",
        &["node", "shard"],
        &[],
    ),
    (
        "shard_accept_rests_total",
        "counter",
        &["node", "shard"],
        &[],
    ),
    ("shard_turns_cut_total", "counter", &["node", "shard"], &[]),
    (
        "tls_handshakes_total",
        "counter",
        &["kind", "node", "shard"],
        &[],
    ),
    (
        "tls_failures_total",
        "counter",
        &["node", "reason", "shard"],
        &[],
    ),
    ("tls_truncated_total", "counter", &["node", "shard"], &[]),
    ("tls_key_updates_total", "counter", &["node", "shard"], &[]),
    ("tls_sealed_bytes_total", "counter", &["node", "shard"], &[]),
    ("tls_connections", "gauge", &["node", "shard"], &[]),
    ("tls_handshaking", "gauge", &["node", "shard"], &[]),
    ("tls_input_bytes", "gauge", &["node", "shard"], &[]),
    (
        "shard_outbox_presses_total",
        "counter",
        &["node", "shard"],
        &[],
    ),
    (
        "shard_submit_refusals_total",
        "counter",
        &["node", "shard"],
        &[],
    ),
    (
        "shard_publishers_held_total",
        "counter",
        &["node", "shard"],
        &[],
    ),
    (
        "shard_inputs_throttled_total",
        "counter",
        &["node", "shard"],
        &[],
    ),
    (
        "shard_inputs_shed_total",
        "counter",
        &["node", "shard"],
        &[],
    ),
    (
        "shard_connections_aged_total",
        "counter",
        &["node", "shard"],
        &[],
    ),
    ("shard_kept_bytes", "gauge", &["node", "shard"], &[]),
    (
        "shard_kept_doubted_total",
        "counter",
        &["node", "shard"],
        &[],
    ),
    (
        "shard_kept_replaced_total",
        "counter",
        &["node", "shard"],
        &[],
    ),
    ("shard_joins_waiting", "gauge", &["node", "shard"], &[]),
    (
        "shard_joins_refused_total",
        "counter",
        &["node", "shard"],
        &[],
    ),
    (
        "shard_node_events_refused_total",
        "counter",
        &["node", "shard"],
        &[],
    ),
    ("limited_addresses", "gauge", &["node", "shard"], &[]),
    (
        "limited_addresses_evicted_total",
        "counter",
        &["node", "shard"],
        &[],
    ),
    ("webhook_in_flight", "gauge", &["node"], &[]),
    (
        "webhook_deliveries_total",
        "counter",
        &["app_id", "event", "node", "result"],
        &[],
    ),
    ("webhook_delivery_seconds", "histogram", &["node"], L),
    ("webhook_retries_total", "counter", &["app_id", "node"], &[]),
    (
        "webhook_dead_letters_total",
        "counter",
        &["app_id", "node", "reason"],
        &[],
    ),
    ("webhook_targets_failing", "gauge", &["node"], &[]),
    ("webhook_dead_letters", "gauge", &["node"], &[]),
    (
        "webhook_dead_letters_dropped_total",
        "counter",
        &["node"],
        &[],
    ),
    ("webhook_oldest_job_seconds", "gauge", &["node"], &[]),
    ("drain_connections_remaining", "gauge", &["node"], &[]),
    (
        "limit_lease_denied_total",
        "counter",
        &["app_id", "limit", "node"],
        &[],
    ),
];

/// On a node with a bus.
const CLUSTER: &[Row] = &[
    (
        "cluster_snapshots_total",
        "counter",
        &["direction", "node"],
        &[],
    ),
    ("cluster_sequence_gaps_total", "counter", &["node"], &[]),
    ("upgrade_dropped_batches_total", "counter", &["node"], &[]),
    ("cluster_partitions_behind", "gauge", &["node"], &[]),
    ("backend_up", "gauge", &["backend", "node", "role"], &[]),
    (
        "backend_reconnects_total",
        "counter",
        &["backend", "node", "role"],
        &[],
    ),
    ("adapter_canary_seconds", "histogram", &["node", "road"], L),
    (
        "adapter_canary_last_success_timestamp_seconds",
        "gauge",
        &["node", "road"],
        &[],
    ),
    (
        "adapter_canary_failures_total",
        "counter",
        &["node", "road"],
        &[],
    ),
    ("cluster_nodes", "gauge", &["node", "state"], &[]),
    ("cluster_lease_expiries_total", "counter", &["node"], &[]),
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
    ("cluster_unknown_messages_total", "counter", &["node"], &[]),
    ("cluster_broken_messages_total", "counter", &["node"], &[]),
    ("cluster_dropped_total", "counter", &["node", "reason"], &[]),
    (
        "horizontal_transport_messages_dropped_total",
        "counter",
        &["node", "transport"],
        &[],
    ),
    ("cluster_topics", "gauge", &["node", "state"], &[]),
    ("cluster_witnesses", "gauge", &["node", "state"], &[]),
    ("cluster_subscribe_seconds", "histogram", &["node"], L),
];

/// Standard names, without the prefix.
const PROCESS: &[&str] = &[
    "process_cpu_seconds_total",
    "process_max_fds",
    "process_open_fds",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
    "process_threads",
    "process_virtual_memory_bytes",
];

#[test]
fn a_fresh_node_with_one_app_exports_every_name_of_upstream() {
    let families = scrape(
        &[idle_shard()],
        &["app-1"],
        1_000,
        &WebhookCounters::default(),
    );
    for row in UPSTREAM {
        assert_row(&families, row);
    }
}

#[test]
fn a_busy_node_exports_exactly_the_names_of_the_reference() {
    let mut webhooks = WebhookCounters::default();
    let app = webhooks.app(AppIndex(0));
    app.count(&[1, 0, 0, 0, 0, 0, 0], DeliveryResult::Ok);
    app.retries = 1;
    app.dead[0] = 1;
    let families = scrape(&[busy_shard(), busy_shard()], &["app-1"], 1_000, &webhooks);
    for row in UPSTREAM.iter().chain(ADDED) {
        assert_row(&families, row);
    }
    let exported: BTreeSet<&str> = families.iter().map(MetricFamily::name).collect();
    let prefixed = UPSTREAM
        .iter()
        .chain(ADDED)
        .map(|row| format!("sockudo_{}", row.0));
    let expected: BTreeSet<String> = prefixed
        .chain(PROCESS.iter().map(|name| (*name).to_owned()))
        .collect();
    assert_eq!(exported, expected.iter().map(String::as_str).collect());
}

#[test]
fn what_goes_wrong_with_an_app_is_there_from_0_on_so_that_its_first_time_is_an_increase() {
    let families = scrape(&[], &["app-1"], 1_000, &WebhookCounters::default());
    let body = text(&families).expect("valid families");
    for (name, rows) in [
        ("connection_errors_total", 19),
        ("slow_consumer_disconnects_total", 1),
        ("dropped_frames_total", 4),
        ("dropped_bytes_total", 4),
        ("limit_lease_denied_total", 3),
        ("webhook_events_dropped_total", 1),
        ("webhook_retries_total", 1),
        ("webhook_dead_letters_total", 5),
    ] {
        let begin = format!("sockudo_{name}{{app_id=\"app-1\",");
        let of_name = body.lines().filter(|line| line.starts_with(&begin));
        let zeros = of_name.filter(|line| line.ends_with(" 0"));
        assert_eq!(zeros.count(), rows, "{name}");
    }
}

#[test]
fn jobs_of_a_shared_store_that_are_nobodys_are_counted_under_no_app_from_0_on() {
    let mut webhooks = WebhookCounters::default();
    webhooks.gave_up_strange(StrangeReason::Malformed);
    let mut sample = sample(&[], &[], 10, &webhooks);
    let rows = |sample: &Sample<'_>| -> Vec<String> {
        let exposition = Exposition::new("sockudo_").expect("collector");
        let families = exposition.families(sample, &mut AppLabels::default());
        let body = text(&families).expect("valid families");
        let name = "sockudo_webhook_dead_letters_total{app_id=\"unknown\",";
        let lines = body.lines().filter_map(|line| line.strip_prefix(name));
        lines.map(str::to_owned).collect()
    };
    assert_eq!(rows(&sample), [""; 0], "nobody else puts jobs there");
    sample.webhook_state.store = Some(WebhookStoreSample::default());
    let expected = ["gone", "malformed"].map(|it| format!("node=\"n1\",reason=\"{it}\"}} "));
    let [gone, malformed] = expected;
    assert_eq!(rows(&sample), [gone + "0", malformed + "1"]);
}

#[test]
fn the_numbers_of_all_shards_are_added_up() {
    let families = scrape(
        &[busy_shard(), busy_shard()],
        &["app-1"],
        1_000,
        &WebhookCounters::default(),
    );
    let body = text(&families).expect("valid families");
    for line in [
        "sockudo_connected{app_id=\"app-1\",port=\"9601\"} 6",
        "sockudo_connection_errors_total{app_id=\"app-1\",error_type=\"pong_timeout\",\
         port=\"9601\"} 2",
        "sockudo_connection_errors_total{app_id=\"unknown\",error_type=\"app_not_found\",\
         port=\"9601\"} 14",
        "sockudo_http_calls_received_total{app_id=\"system\",port=\"9601\"} 4",
        "sockudo_broadcast_latency_ms_bucket{app_id=\"app-1\",channel_type=\"presence\",\
         port=\"9601\",recipient_count_bucket=\"md\",le=\"2.5\"} 2",
        "sockudo_broadcast_latency_ms_sum{app_id=\"app-1\",channel_type=\"presence\",\
         port=\"9601\",recipient_count_bucket=\"md\"} 4.5",
        "sockudo_http_errors_total{app_id=\"app-1\",node=\"n1\",status=\"401\"} 2",
        "sockudo_http_errors_total{app_id=\"unknown\",node=\"n1\",status=\"404\"} 6",
        "sockudo_handshake_failures_total{node=\"n1\",reason=\"tls\"} 104",
        "sockudo_mesh_queue_depth{node=\"n1\",peer=\"1\",shard=\"0\"} 5",
        "sockudo_shard_accepts_refused_total{node=\"n1\",shard=\"1\"} 11",
        "sockudo_shard_accept_rests_total{node=\"n1\",shard=\"1\"} 12",
        "sockudo_shard_turns_cut_total{node=\"n1\",shard=\"1\"} 13",
        "sockudo_shard_outbox_presses_total{node=\"n1\",shard=\"1\"} 14",
        "sockudo_shard_submit_refusals_total{node=\"n1\",shard=\"1\"} 15",
        "sockudo_shard_publishers_held_total{node=\"n1\",shard=\"1\"} 16",
        "sockudo_shard_inputs_throttled_total{node=\"n1\",shard=\"1\"} 17",
        "sockudo_shard_inputs_shed_total{node=\"n1\",shard=\"1\"} 18",
        "sockudo_shard_connections_aged_total{node=\"n1\",shard=\"1\"} 37",
        "sockudo_proxy_header_failures_total{node=\"n1\",reason=\"malformed\"} 82",
        "sockudo_tls_handshakes_total{kind=\"resumed\",node=\"n1\",shard=\"1\"} 51",
        "sockudo_tls_failures_total{node=\"n1\",reason=\"not_tls\",shard=\"1\"} 52",
        "sockudo_tls_failures_total{node=\"n1\",reason=\"bad_record\",shard=\"1\"} 53",
        "sockudo_tls_handshaking{node=\"n1\",shard=\"1\"} 54",
        "sockudo_tls_connections{node=\"n1\",shard=\"1\"} 55",
        "sockudo_tls_sealed_bytes_total{node=\"n1\",shard=\"1\"} 56",
        "sockudo_shard_kept_bytes{node=\"n1\",shard=\"1\"} 19",
        "sockudo_shard_kept_doubted_total{node=\"n1\",shard=\"1\"} 43",
        "sockudo_shard_kept_replaced_total{node=\"n1\",shard=\"1\"} 47",
        "sockudo_shard_joins_waiting{node=\"n1\",shard=\"1\"} 23",
        "sockudo_shard_joins_refused_total{node=\"n1\",shard=\"1\"} 29",
        "sockudo_shard_node_events_refused_total{node=\"n1\",shard=\"1\"} 31",
    ] {
        assert!(body.lines().any(|l| l == line), "no line {line}\n{body}");
    }
}

#[test]
fn a_node_with_a_bus_shows_it_and_its_peers() {
    let webhooks = WebhookCounters::default();
    let mut sample = sample(&[], &[], 10, &webhooks);
    let alone = sample_names(&sample);
    let mut echoes = Seconds::default();
    echoes.observe(0.003);
    let road = RoadSample {
        echoes,
        echoed_unix_s: 5.0,
        failures: 1,
    };
    sample.cluster = Some(ClusterSample {
        driver: "redis",
        is_up: true,
        roads: [road, RoadSample::default()],
        nodes: [2, 1],
        peers: vec![PeerSample {
            name: "n2".to_owned(),
            lost: [7, 0],
        }],
        events: [3, 4],
        batches_refused: [0, 0, 0, 0, 5, 6, 0, 0],
        dropped: [1, 2, 0, 0, 0, 4, 0, 0, 0],
        unkept: 3,
        topics: [9, 8],
        ..ClusterSample::default()
    });
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
        "sockudo_adapter_canary_seconds_bucket{node=\"n1\",road=\"events\",le=\"0.005\"} 1",
        "sockudo_adapter_canary_failures_total{node=\"n1\",road=\"events\"} 1",
        "sockudo_cluster_nodes{node=\"n1\",state=\"suspect\"} 1",
        "sockudo_cluster_messages_total{direction=\"in\",kind=\"event\",node=\"n1\"} 4",
        "sockudo_cluster_lost_batches_total{node=\"n1\",peer=\"n2\",road=\"events\"} 7",
        "sockudo_cluster_refused_batches_total{node=\"n1\",reason=\"wrong_mac\"} 6",
        "sockudo_cluster_dropped_total{node=\"n1\",reason=\"shard_full\"} 4",
        "sockudo_horizontal_transport_messages_dropped_total{node=\"n1\",transport=\"redis\"} 7",
        "sockudo_upgrade_dropped_batches_total{node=\"n1\"} 3",
        "sockudo_cluster_topics{node=\"n1\",state=\"live\"} 8",
    ] {
        assert!(body.lines().any(|l| l == line), "no line {line}\n{body}");
    }
}

#[test]
fn a_redis_cluster_has_one_name_whichever_role_it_has() {
    let webhooks = WebhookCounters::default();
    let mut sample = sample(&[], &[], 10, &webhooks);
    sample.cluster = Some(ClusterSample {
        driver: "redis-cluster",
        is_up: true,
        ..ClusterSample::default()
    });
    sample.webhook_state.driver = "redis-cluster";
    sample.webhook_state.store = Some(WebhookStoreSample::default());
    let exposition = Exposition::new("sockudo_").expect("collector");
    let families = exposition.families(&sample, &mut AppLabels::default());
    let body = text(&families).expect("valid families");
    for line in [
        "sockudo_backend_up{backend=\"redis_cluster\",node=\"n1\",role=\"adapter\"} 1",
        "sockudo_backend_reconnects_total{backend=\"redis_cluster\",node=\"n1\",role=\"adapter\"} 0",
        "sockudo_backend_up{backend=\"redis_cluster\",node=\"n1\",role=\"queue\"} 0",
        "sockudo_webhook_queue_depth{driver=\"redis-cluster\",node=\"n1\"} 0",
    ] {
        assert!(body.lines().any(|l| l == line), "no line {line}\n{body}");
    }
}

/// Only where nodes share a cache.
const CACHE: &[Row] = &[
    (
        "cache_operations_total",
        "counter",
        &["node", "result"],
        &[],
    ),
    ("cache_waiting_bytes", "gauge", &["node"], &[]),
    ("backend_up", "gauge", &["backend", "node", "role"], &[]),
];

#[test]
fn a_node_with_a_shared_cache_shows_it() {
    let webhooks = WebhookCounters::default();
    let mut sample = sample(&[], &[], 10, &webhooks);
    let alone = sample_names(&sample);
    sample.backends = vec![BackendSample {
        backend: "redis",
        role: "cache",
        is_up: false,
    }];
    sample.cache = Some(CacheSample {
        operations: [1, 2, 3, 4, 5],
        waiting_bytes: 6,
    });
    let exposition = Exposition::new("sockudo_").expect("collector");
    let families = exposition.families(&sample, &mut AppLabels::default());
    for row in CACHE {
        assert_row(&families, row);
    }
    let added: BTreeSet<String> = &sample_names(&sample) - &alone;
    let names = CACHE.iter().map(|row| format!("sockudo_{}", row.0));
    assert_eq!(added, names.collect());
    let body = text(&families).expect("valid families");
    for line in [
        "sockudo_backend_up{backend=\"redis\",node=\"n1\",role=\"cache\"} 0",
        "sockudo_cache_operations_total{node=\"n1\",result=\"error\"} 3",
        "sockudo_cache_operations_total{node=\"n1\",result=\"lost\"} 5",
        "sockudo_cache_waiting_bytes{node=\"n1\"} 6",
    ] {
        assert!(body.lines().any(|l| l == line), "no line {line}\n{body}");
    }
}

fn sample_names(sample: &Sample<'_>) -> BTreeSet<String> {
    let exposition = Exposition::new("sockudo_").expect("collector");
    let families = exposition.families(sample, &mut AppLabels::default());
    families.iter().map(|it| it.name().to_owned()).collect()
}

#[test]
fn apps_beyond_the_bound_share_a_row_named_other() {
    let mut shard = idle_shard();
    for index in 0..4 {
        shard.counters.app(AppIndex(index)).new_connections = u64::from(index) + 1;
    }
    let families = scrape(
        &[shard],
        &["a", "b", "c", "d"],
        2,
        &WebhookCounters::default(),
    );
    let body = text(&families).expect("valid families");
    for (id, count) in [("a", 1), ("b", 2), ("other", 7)] {
        let line =
            format!("sockudo_new_connections_total{{app_id=\"{id}\",port=\"9601\"}} {count}");
        assert!(body.contains(&line), "{line}");
    }
    assert!(!body.contains("app_id=\"c\""));
}

#[test]
fn a_forgotten_app_takes_nothing_away_from_other_and_no_app_leaves_it() {
    let all = ["a", "b", "c", "d", "e"];
    let mut labels = AppLabels::default();
    let mut shown = |shard: &ShardSnapshot, webhooks: &WebhookCounters, known: &[u32]| {
        let shards = [shard.clone()];
        let mut sample = sample(&shards, &[], 2, webhooks);
        let known = known
            .iter()
            .map(|index| (AppIndex(*index), all[*index as usize]));
        sample.apps = known.collect();
        let rows = sample.app_rows(&mut labels);
        let row = |row: &AppRow<'_>| {
            let counters = &row.counters;
            let counted = [
                counters.new_connections,
                counters.connected,
                row.webhooks.retries,
            ];
            format!(
                "{} {counted:?} {:?}",
                row.id,
                counters.faults().http_errors.iter().collect::<Vec<_>>()
            )
        };
        rows.iter().map(row).collect::<Vec<String>>()
    };
    let (mut shard, mut webhooks) = (idle_shard(), WebhookCounters::default());
    for index in 0..4 {
        let counters = shard.counters.app(AppIndex(index));
        counters.new_connections = 10;
        counters.connected = 1;
        counters.http_error(404);
        webhooks.app(AppIndex(index)).retries = 1;
    }
    let first = shown(&shard, &webhooks, &[0, 1, 2, 3]);
    let own = |id: &str| format!("{id} [10, 1, 1] [(404, 1)]");
    assert_eq!(
        first,
        [own("a"), own("b"), "other [20, 2, 2] [(404, 2)]".to_owned()]
    );
    // The table is new before the shards have forgotten.
    let other = "other [20, 1, 2] [(404, 2)]".to_owned();
    assert_eq!(shown(&shard, &webhooks, &[1, 2]), [own("b"), other.clone()]);
    shard
        .counters
        .forget_apps(|app| app != AppIndex(0) && app != AppIndex(3));
    webhooks.forget_apps(|app| app != AppIndex(0) && app != AppIndex(3));
    assert_eq!(shown(&shard, &webhooks, &[1, 2]), [own("b"), other]);
    // A new app takes the free place; the one in `other` stays there and is counted on.
    shard.counters.app(AppIndex(2)).new_connections += 5;
    shard.counters.app(AppIndex(4)).new_connections = 1;
    let last = shown(&shard, &webhooks, &[1, 2, 4]);
    let other = "other [25, 1, 2] [(404, 2)]".to_owned();
    assert_eq!(last, [own("b"), "e [1, 0, 0] []".to_owned(), other]);
}

#[test]
fn open_metrics_ends_with_eof_and_keeps_the_names_of_samples() {
    let families = scrape(
        &[busy_shard()],
        &["a\"b\\c"],
        10,
        &WebhookCounters::default(),
    );
    let body = open_metrics(&families);
    for line in [
        "# TYPE sockudo_new_connections counter",
        "# TYPE sockudo_socket_received_bytes unknown",
        "sockudo_new_connections_total{app_id=\"a\\\"b\\\\c\",port=\"9601\"} 3",
        "sockudo_webhook_delivery_seconds_bucket{node=\"n1\",le=\"+Inf\"} 0",
    ] {
        assert!(body.lines().any(|l| l == line), "no line {line}\n{body}");
    }
    assert!(body.ends_with("# EOF\n"));
}

#[test]
fn the_json_variant_lists_rows_with_labels_and_totals() {
    let exposition = Exposition::new("sockudo_").expect("collector");
    let families = scrape(&[busy_shard()], &["a"], 10, &WebhookCounters::default());
    let json = exposition.json(&families, "2026-01-01T00:00:00Z");
    assert_eq!(json["timestamp"], "2026-01-01T00:00:00Z");
    assert_eq!(json["formatted"]["connections"]["current"], 3);
    let row = &json["raw"]["sockudo_connected"][0];
    assert_eq!((&row["app_id"], &row["value"]), (&"a".into(), &3.into()));
    let histogram = &json["raw"]["sockudo_horizontal_adapter_resolve_time"][0]["value"];
    assert_eq!(histogram["sample_count"], 0);
    assert_eq!(histogram["buckets"][0]["upper_bound"], 0.005);
    assert_eq!(histogram["buckets"][0]["cumulative_count"], 0);
}

#[test]
fn a_moment_is_written_as_rfc_3339() {
    for (unix_s, text) in [
        (0, "1970-01-01T00:00:00Z"),
        (951_782_399, "2000-02-28T23:59:59Z"),
        (951_782_400, "2000-02-29T00:00:00Z"),
        (1_700_000_000, "2023-11-14T22:13:20Z"),
        (4_102_444_800, "2100-01-01T00:00:00Z"),
    ] {
        assert_eq!(rfc3339(unix_s), text);
    }
}

#[test]
fn a_node_that_is_not_ready_shows_one_row_per_reason() {
    let webhooks = WebhookCounters::default();
    let mut sample = sample(&[], &[], 10, &webhooks);
    sample.bridge.unready = &["draining", "memory"];
    let families = Exposition::new("p_").expect("collector");
    let families = families.families(&sample, &mut AppLabels::default());
    let body = text(&families).expect("valid families");
    assert!(body.contains("p_ready{node=\"n1\",reason=\"draining\"} 0\n"));
    assert!(body.contains("p_ready{node=\"n1\",reason=\"memory\"} 0\n"));
    assert!(!body.contains("reason=\"none\""));
}

fn assert_row(families: &[MetricFamily], (name, kind, labels, buckets): &Row) {
    let full = format!("sockudo_{name}");
    let family = families.iter().find(|family| family.name() == full);
    let family = family.unwrap_or_else(|| panic!("{name} is missing"));
    let shown = match family.get_field_type() {
        MetricType::COUNTER => "counter",
        MetricType::GAUGE => "gauge",
        MetricType::HISTOGRAM => "histogram",
        MetricType::SUMMARY | MetricType::UNTYPED => "other",
    };
    assert_eq!(shown, *kind, "type of {name}");
    for row in family.get_metric() {
        let keys: Vec<&str> = row.get_label().iter().map(|pair| pair.name()).collect();
        assert_eq!(keys, *labels, "labels of {name}");
        let bounds: Vec<f64> = row
            .get_histogram()
            .get_bucket()
            .iter()
            .map(|bucket| bucket.upper_bound())
            .collect();
        assert_eq!(bounds, *buckets, "buckets of {name}");
    }
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
