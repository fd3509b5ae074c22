//! The names, types, labels and buckets of Sockudo 2.9 on a node that has just started.
//!
//! Owns: an independent copy of that table.
//! May depend on: `metrics::tests`.
//! Invariants: a row of it is changed only together with every user's dashboards.

use super::*;

/// Sockudo 2.9: all of these are there as soon as one app is known.
pub(super) const UPSTREAM: &[Row] = &[
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
