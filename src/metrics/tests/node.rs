//! The names, types, labels and buckets of our own that every node has.
//!
//! Owns: an independent copy of that table; the sums over shards.
//! May depend on: `metrics::tests`.
//! Invariants: what is exported is what the tables have, and nothing else.

use super::{upstream::UPSTREAM, *};

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
        "shard_bodies_shed_total",
        "counter",
        &["node", "shard"],
        &[],
    ),
    (
        "shard_reads_alone_total",
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
        "sockudo_shard_bodies_shed_total{node=\"n1\",shard=\"1\"} 83",
        "sockudo_shard_reads_alone_total{node=\"n1\",shard=\"1\"} 84",
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
