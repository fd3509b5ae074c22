//! The metrics that Sockudo 2.9 has, from a sample.
//!
//! Owns: which rows each of them gets.
//! May depend on: `metrics::{catalogue, families, sample, counters}`.
//! Invariants: every name is there from the start for every known app. Of a metric with a second
//! label the first row is always there, and another one from the moment it moved.

use super::{
    catalogue as name,
    catalogue::{Family, UNKNOWN_APP},
    counters::{
        AppCounters, CHANNEL_TYPES, ConnectionError, LATENCY_BUCKETS_US, Latency, RECIPIENT_BUCKETS,
    },
    families::Families,
    sample::{AppRow, Sample},
};

/// Adds the rows of all apps and of what belongs to none.
pub(super) fn add(families: &mut Families<'_>, sample: &Sample<'_>, rows: &[AppRow<'_>]) {
    for row in rows {
        add_plain(families, sample.port, row);
        add_adapter(families, sample.port, row.id);
        add_by_type(families, sample.port, row);
        add_client_event_limits(families, sample.port, row);
        add_errors(
            families,
            sample.port,
            row.id,
            &row.counters.faults().connection_errors,
        );
        add_broadcast_latency(families, sample.port, row);
    }
    add_without_app(families, sample);
}

/// Labels of what belongs to no app.
const SYSTEM: &str = "system";
const GLOBAL: &str = "global";

fn add_plain(families: &mut Families<'_>, port: &str, row: &AppRow<'_>) {
    let AppCounters {
        connected,
        new_connections,
        new_disconnections,
        received_bytes,
        transmitted_bytes,
        messages_received,
        messages_sent,
        http_received_bytes,
        http_transmitted_bytes,
        http_calls,
        ..
    } = &row.counters;
    let numbers: [(&'static Family, &u64); 10] = [
        (&name::CONNECTED, connected),
        (&name::NEW_CONNECTIONS, new_connections),
        (&name::NEW_DISCONNECTIONS, new_disconnections),
        (&name::SOCKET_RECEIVED_BYTES, received_bytes),
        (&name::SOCKET_TRANSMITTED_BYTES, transmitted_bytes),
        (&name::WS_MESSAGES_RECEIVED, messages_received),
        (&name::WS_MESSAGES_SENT, messages_sent),
        (&name::HTTP_RECEIVED_BYTES, http_received_bytes),
        (&name::HTTP_TRANSMITTED_BYTES, http_transmitted_bytes),
        (&name::HTTP_CALLS_RECEIVED, http_calls),
    ];
    for (family, value) in numbers {
        families.add(family, &[row.id, port], *value as f64);
    }
}

/// One node asks nobody: these stay 0 until there is an adapter to other nodes.
fn add_adapter(families: &mut Families<'_>, port: &str, id: &str) {
    let labels = [id, port];
    let bounds = &name::RESOLVE_BUCKETS_MS;
    families.add_histogram(&name::ADAPTER_RESOLVE_TIME, &labels, bounds, &[0; 12], 0.0);
    for family in [
        &name::ADAPTER_RESOLVED,
        &name::ADAPTER_UNCOMPLETE,
        &name::ADAPTER_SENT_REQUESTS,
        &name::ADAPTER_RECEIVED_REQUESTS,
        &name::ADAPTER_RECEIVED_RESPONSES,
    ] {
        families.add(family, &labels, 0.0);
    }
}

fn add_by_type(families: &mut Families<'_>, port: &str, row: &AppRow<'_>) {
    for (index, channel_type) in CHANNEL_TYPES.into_iter().enumerate() {
        let counters = row.counters.of_type(index);
        if index > 0 && counters.subscriptions == 0 && counters.active == 0 {
            continue;
        }
        let labels = [row.id, channel_type, port];
        families.add(
            &name::CHANNEL_SUBSCRIPTIONS,
            &labels,
            counters.subscriptions as f64,
        );
        let ended = counters.unsubscriptions as f64;
        families.add(&name::CHANNEL_UNSUBSCRIPTIONS, &labels, ended);
        families.add(&name::ACTIVE_CHANNELS, &labels, counters.active as f64);
    }
}

fn add_client_event_limits(families: &mut Families<'_>, port: &str, row: &AppRow<'_>) {
    let labels = [row.id, "client_events", port, "unknown"];
    families.add(
        &name::RATE_LIMIT_CHECKS,
        &labels,
        row.counters.client_event_checks as f64,
    );
    families.add(
        &name::RATE_LIMIT_TRIGGERED,
        &labels,
        row.counters.client_event_limited as f64,
    );
}

fn add_errors(
    families: &mut Families<'_>,
    port: &str,
    id: &str,
    errors: &[u64; ConnectionError::COUNT],
) {
    for (error_type, count) in ConnectionError::LABELS.into_iter().zip(errors) {
        families.add(
            &name::CONNECTION_ERRORS,
            &[id, error_type, port],
            *count as f64,
        );
    }
}

fn add_broadcast_latency(families: &mut Families<'_>, port: &str, row: &AppRow<'_>) {
    let none = Latency::default();
    let bounds_ms = LATENCY_BUCKETS_US.map(|us| us as f64 / 1_000.0);
    for (type_index, channel_type) in CHANNEL_TYPES.into_iter().enumerate() {
        for (size_index, size) in RECIPIENT_BUCKETS.into_iter().enumerate() {
            let measured = row.counters.broadcast_latency.as_ref();
            let latency = measured.map_or(&none, |all| &all[type_index][size_index]);
            let first = type_index + size_index == 0;
            if first || latency.buckets.iter().any(|count| *count > 0) {
                families.add_histogram(
                    &name::BROADCAST_LATENCY,
                    &[row.id, channel_type, port, size],
                    &bounds_ms,
                    &latency.buckets,
                    latency.sum_us as f64 / 1_000.0,
                );
            }
        }
    }
}

fn add_without_app(families: &mut Families<'_>, sample: &Sample<'_>) {
    let mut errors = [0; ConnectionError::COUNT];
    let mut system_http_calls = 0;
    let mut checks = [0; 2];
    let mut triggered = [0; 2];
    for snapshot in sample.shards.iter().filter_map(|shard| shard.snapshot) {
        let counters = &snapshot.counters;
        system_http_calls += counters.system_http_calls;
        for (sum, count) in errors.iter_mut().zip(counters.unknown_app_errors) {
            *sum += count;
        }
        for index in 0..2 {
            checks[index] += counters.ip_limit_checks[index];
            triggered[index] += counters.ip_limit_triggered[index];
        }
    }
    add_errors(families, sample.port, UNKNOWN_APP, &errors);
    let calls = system_http_calls as f64;
    families.add(&name::HTTP_CALLS_RECEIVED, &[SYSTEM, sample.port], calls);
    for (index, request) in ["websocket_upgrade", "http_api"].into_iter().enumerate() {
        let labels = [GLOBAL, "api_rate_limit", sample.port, request];
        families.add(&name::RATE_LIMIT_CHECKS, &labels, checks[index] as f64);
        families.add(
            &name::RATE_LIMIT_TRIGGERED,
            &labels,
            triggered[index] as f64,
        );
    }
}
