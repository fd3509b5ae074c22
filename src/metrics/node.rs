//! The metrics of our own, from a sample.
//!
//! Owns: which rows each of them gets.
//! May depend on: `metrics::{backend, catalogue, cluster, families, sample}`, the runtime's bucket bounds.
//! Invariants: every row has the label `node`; rows of a shard appear with its first snapshot.

use super::{
    backend,
    bridge::{AppWebhooks, DeadReason, DeliveryResult, StrangeReason, WEBHOOK_EVENTS},
    catalogue as name,
    catalogue::{Family, UNKNOWN_APP},
    cluster,
    counters::{AppCounters, HttpErrors, ShardSnapshot},
    families::Families,
    sample::{AppRow, CACHE_RESULTS, Sample, ShardSample, WebhookStoreSample, backend_of},
};

/// Adds the rows of the node, its shards and its apps.
pub(super) fn add(families: &mut Families<'_>, sample: &Sample<'_>, rows: &[AppRow<'_>]) {
    add_bridge(families, sample);
    add_webhook_queue(families, sample);
    for (index, shard) in sample.shards.iter().enumerate() {
        let label = index.to_string();
        let full = shard.from_bridge_full as f64;
        families.add(
            &name::BRIDGE_QUEUE_FULL,
            &[sample.node, "from_bridge", &label],
            full,
        );
        if let Some(snapshot) = shard.snapshot {
            add_shard(families, sample.node, &label, shard, snapshot);
            add_pressure(families, sample.node, &label, snapshot);
            add_tls(families, sample.node, &label, snapshot);
            add_mesh(families, sample.node, &label, snapshot);
            add_admission(families, sample.node, &label, snapshot);
        }
    }
    add_handshakes(families, sample);
    let snapshots = || sample.shards.iter().filter_map(|shard| shard.snapshot);
    let mut unknown = HttpErrors::default();
    for (status, count) in snapshots().flat_map(|it| it.counters.unknown_http_errors.iter()) {
        unknown.add(status, count);
    }
    add_http_errors(families, sample.node, UNKNOWN_APP, &unknown);
    add_requests(families, sample);
    add_hops(families, sample);
    for counts in &sample.backend_counts {
        backend::add(families, sample.node, counts);
    }
    if let Some(numbers) = &sample.cluster {
        cluster::add(families, sample.node, numbers);
    }
    for row in rows {
        add_app(families, sample.node, row.id, &row.counters);
        if sample.cluster.is_some() {
            let expiries = row.counters.faults().presence_lease_expiries as f64;
            let labels = [row.id, sample.node];
            families.add(&name::PRESENCE_LEASE_EXPIRIES, &labels, expiries);
        }
        add_app_webhooks(families, sample.node, row.id, &row.webhooks);
    }
}

/// Columns of the counters' arrays.
const DROP_REASONS: [&str; 4] = ["slow_oldest", "slow_newest", "bridge_full", "drain"];
const LIMITS: [&str; 3] = ["connections", "backend_events", "read_requests"];
const HANDSHAKE_REASONS: [&str; 4] = ["timeout", "too_large", "bad_request", "tls"];
const PROXY_HEADER_REASONS: [&str; 4] = ["timeout", "missing", "malformed", "too_long"];
const ACCEPT_REASONS: [&str; 4] = ["rate", "max_connections", "memory", "ip"];
const BRIDGE_REQUESTS: [&str; 3] = ["webhook", "other", "publish"];

fn add_bridge(families: &mut Families<'_>, sample: &Sample<'_>) {
    let node = sample.node;
    let bridge = &sample.bridge;
    let build = &bridge.build;
    families.add(
        &name::BUILD_INFO,
        &[build.commit, build.features, node, build.version],
        1.0,
    );
    let succeeded = f64::from(u8::from(bridge.reload_succeeded));
    families.add(&name::CONFIG_RELOAD_SUCCESS, &[node], succeeded);
    families.add(
        &name::CONFIG_RELOAD_TIMESTAMP,
        &[node],
        bridge.reload_unix_s,
    );
    let lost = bridge.log_lines_lost as f64;
    families.add(&name::LOG_LINES_LOST, &[node], lost);
    for (result, count) in ["done", "failed"].into_iter().zip(bridge.upgrades) {
        families.add(&name::UPGRADES, &[node, result], count as f64);
    }
    if let Some(silence_s) = bridge.upgrade_silence_s {
        families.add(&name::UPGRADE_SILENCE, &[node], silence_s);
    }
    if bridge.unready.is_empty() {
        families.add(&name::READY, &[node, "none"], 1.0);
    }
    for reason in bridge.unready {
        families.add(&name::READY, &[node, reason], 0.0);
    }
    families.add(&name::BRIDGE_BUSY_RATIO, &[node], bridge.busy_ratio);
    let remaining: u64 = sample
        .shards
        .iter()
        .filter_map(|shard| shard.snapshot)
        .map(|snapshot| snapshot.draining.unwrap_or(snapshot.counters.websockets))
        .sum();
    let remaining = if bridge.draining {
        remaining as f64
    } else {
        -1.0
    };
    families.add(&name::DRAIN_CONNECTIONS_REMAINING, &[node], remaining);
}

fn add_webhook_queue(families: &mut Families<'_>, sample: &Sample<'_>) {
    let node = sample.node;
    let state = &sample.webhook_state;
    let depth = state.waiting_events as f64;
    families.add(&name::WEBHOOK_QUEUE_DEPTH, &[state.driver, node], depth);
    let bytes = state.waiting_bytes as f64;
    families.add(&name::WEBHOOK_QUEUE_BYTES, &[state.driver, node], bytes);
    families.add(&name::WEBHOOK_IN_FLIGHT, &[node], state.in_flight as f64);
    families.add(&name::WEBHOOK_OLDEST_JOB, &[node], state.oldest_s);
    let failing = state.targets_failing as f64;
    families.add(&name::WEBHOOK_TARGETS_FAILING, &[node], failing);
    let letters = state.dead_letters as f64;
    families.add(&name::WEBHOOK_DEAD_LETTERS_KEPT, &[node], letters);
    let dropped = state.dead_letters_dropped as f64;
    families.add(&name::WEBHOOK_DEAD_LETTERS_DROPPED, &[node], dropped);
    if let Some(store) = &state.store {
        let labels = [state.driver, node];
        families.add(&name::WEBHOOK_STORE_JOBS, &labels, store.jobs as f64);
        families.add(&name::WEBHOOK_STORE_BYTES, &labels, store.bytes as f64);
        for (event, count) in WebhookStoreSample::EVENTS.into_iter().zip(store.events) {
            let labels = [state.driver, event, node];
            families.add(&name::WEBHOOK_STORE_EVENTS, &labels, count as f64);
        }
        let strange = StrangeReason::LABELS
            .into_iter()
            .zip(sample.webhooks.strange);
        for (reason, count) in strange {
            let labels = [UNKNOWN_APP, node, reason];
            families.add(&name::WEBHOOK_DEAD_LETTERS, &labels, count as f64);
        }
        let labels = [backend_of(state.driver), node, "queue"];
        families.add(&name::BACKEND_UP, &labels, f64::from(u8::from(store.is_up)));
    }
    let attempts = &sample.webhooks.attempts;
    let bounds = &name::BUCKETS_S;
    let family = &name::WEBHOOK_DELIVERY_SECONDS;
    families.add_histogram(family, &[node], bounds, &attempts.buckets, attempts.sum_s);
}

fn add_shard(
    families: &mut Families<'_>,
    node: &str,
    shard: &str,
    sampled: &ShardSample<'_>,
    snapshot: &ShardSnapshot,
) {
    let labels = [node, shard];
    let runtime = &snapshot.runtime;
    let numbers: [(&'static Family, u64); 10] = [
        (&name::SHARD_CONNECTIONS, snapshot.counters.websockets),
        (&name::SHARD_CHANNELS, snapshot.counters.home_channels),
        (&name::SHARD_ACCEPTED, runtime.accepted),
        (&name::SHARD_HANDED_OVER, runtime.handed_over),
        (&name::SHARD_TURN_STALLS, runtime.turn_stalls),
        (&name::SHARD_RING_OVERFLOWS, runtime.ring_overflows),
        (&name::SHARD_RECV_BUFFERS_FREE, runtime.recv_buffers_free),
        (
            &name::SHARD_RECV_BUFFERS_EXHAUSTED,
            runtime.recv_buffers_exhausted,
        ),
        (&name::SEND_QUEUE_BYTES, runtime.outbox_bytes),
        (&name::SEND_QUEUE_MAX_BYTES, runtime.outbox_bytes_highest),
    ];
    for (family, value) in numbers {
        families.add(family, &labels, value as f64);
    }
    families.add(&name::SHARD_LOOP_BUSY_RATIO, &labels, sampled.busy_ratio);
    families.add_histogram(
        &name::SHARD_TURN_SECONDS,
        &labels,
        &name::BUCKETS_S,
        &runtime.turn_us_buckets,
        runtime.turn_us_sum as f64 / 1e6,
    );
    for (direction, depth) in [
        ("to_bridge", runtime.to_bridge_depth),
        ("from_bridge", runtime.from_bridge_depth),
    ] {
        families.add(
            &name::BRIDGE_QUEUE_DEPTH,
            &[direction, node, shard],
            f64::from(depth),
        );
    }
    let bytes = runtime.to_bridge_bytes as f64;
    families.add(&name::BRIDGE_QUEUE_BYTES, &labels, bytes);
    for (request, count) in BRIDGE_REQUESTS
        .into_iter()
        .zip(snapshot.counters.bridge_full)
    {
        families.add(
            &name::BRIDGE_QUEUE_FULL,
            &[node, request, shard],
            count as f64,
        );
    }
}

fn add_tls(families: &mut Families<'_>, node: &str, shard: &str, snapshot: &ShardSnapshot) {
    let tls = &snapshot.runtime.tls;
    for (kind, count) in [
        ("full", tls.handshakes_full),
        ("resumed", tls.handshakes_resumed),
    ] {
        families.add(&name::TLS_HANDSHAKES, &[kind, node, shard], count as f64);
    }
    for (reason, count) in [
        ("not_tls", tls.failed_not_tls),
        ("client_gave_up", tls.failed_by_client),
        ("no_agreement", tls.failed_by_us),
        ("unfinished", tls.failed_unfinished),
        ("input_full", tls.input_refused),
        ("bad_record", tls.records_refused),
        ("alert", tls.alerts_received),
    ] {
        families.add(&name::TLS_FAILURES, &[node, reason, shard], count as f64);
    }
    for (family, value) in [
        (&name::TLS_TRUNCATED, tls.truncated),
        (&name::TLS_KEY_UPDATES, tls.key_updates),
        (&name::TLS_SEALED_BYTES, tls.sealed_bytes),
        (&name::TLS_CONNECTIONS, tls.connections),
        (&name::TLS_HANDSHAKING, tls.handshaking),
        (&name::TLS_INPUT_BYTES, tls.input_bytes),
    ] {
        families.add(family, &[node, shard], value as f64);
    }
}

/// What a shard did to stay within its bounds.
fn add_pressure(families: &mut Families<'_>, node: &str, shard: &str, snapshot: &ShardSnapshot) {
    let (counters, runtime) = (&snapshot.counters, &snapshot.runtime);
    let numbers: [(&'static Family, u64); 17] = [
        (&name::SHARD_TURNS_CUT, runtime.turns_cut),
        (&name::SHARD_ACCEPTS_REFUSED, runtime.accepts_refused),
        (&name::SHARD_SUBMIT_REFUSALS, runtime.submit_refusals),
        (&name::SHARD_ACCEPT_RESTS, runtime.accept_rests),
        (&name::SHARD_OUTBOX_PRESSES, runtime.outbox_presses),
        (&name::SHARD_PUBLISHERS_HELD, counters.publishers_held),
        (&name::SHARD_INPUTS_THROTTLED, counters.inputs_throttled),
        (&name::SHARD_INPUTS_SHED, counters.inputs_shed),
        (&name::SHARD_BODIES_SHED, counters.bodies_shed),
        (&name::SHARD_READS_ALONE, counters.reads_alone),
        (&name::SHARD_CONNECTIONS_AGED, counters.connections_aged),
        (&name::SHARD_KEPT_BYTES, counters.kept_bytes),
        (&name::SHARD_KEPT_DOUBTED, counters.kept_doubted),
        (&name::SHARD_KEPT_REPLACED, counters.kept_replaced),
        (&name::SHARD_JOINS_WAITING, counters.joins_waiting),
        (&name::SHARD_JOINS_REFUSED, counters.joins_refused),
        (
            &name::SHARD_NODE_EVENTS_REFUSED,
            counters.node_events_refused,
        ),
    ];
    for (family, value) in numbers {
        families.add(family, &[node, shard], value as f64);
    }
}

fn add_mesh(families: &mut Families<'_>, node: &str, shard: &str, snapshot: &ShardSnapshot) {
    let runtime = &snapshot.runtime;
    for (family, depths) in [
        (&name::MESH_QUEUE_DEPTH, &runtime.mesh_depths),
        (&name::MESH_OVERFLOW_DEPTH, &runtime.mesh_overflow_depths),
    ] {
        for (peer, depth) in depths.iter().enumerate() {
            let peer = peer.to_string();
            if peer != shard {
                families.add(family, &[node, &peer, shard], f64::from(*depth));
            }
        }
    }
    let stopped_s = runtime.mesh_backpressure_ms as f64 / 1e3;
    families.add(&name::MESH_BACKPRESSURE, &[node, shard], stopped_s);
}

fn add_admission(families: &mut Families<'_>, node: &str, shard: &str, snapshot: &ShardSnapshot) {
    let (addresses, evicted) = (
        snapshot.counters.addresses,
        snapshot.counters.addresses_evicted,
    );
    let labels = [node, shard];
    families.add(&name::LIMITED_ADDRESSES, &labels, addresses as f64);
    families.add(&name::LIMITED_ADDRESSES_EVICTED, &labels, evicted as f64);
    for (reason, count) in ACCEPT_REASONS
        .into_iter()
        .zip(snapshot.counters.accept_limited)
    {
        families.add(
            &name::ACCEPT_RATE_LIMITED,
            &[node, reason, shard],
            count as f64,
        );
    }
}

fn add_requests(families: &mut Families<'_>, sample: &Sample<'_>) {
    let counters = || {
        sample
            .shards
            .iter()
            .filter_map(|it| it.snapshot)
            .map(|it| &it.counters)
    };
    for (index, route) in ROUTES.into_iter().enumerate() {
        let buckets = sum_of(counters().map(|it| it.http_request_us_buckets[index]));
        let sum_us: u64 = counters().map(|it| it.http_request_us_sum[index]).sum();
        families.add_histogram(
            &name::HTTP_REQUEST_SECONDS,
            &[sample.node, route],
            &name::BUCKETS_S,
            &buckets,
            sum_us as f64 / 1e6,
        );
    }
    for (index, result) in LOOKUP_RESULTS.into_iter().enumerate() {
        let count: u64 = counters().map(|it| it.app_lookups[index]).sum();
        families.add(&name::APP_LOOKUP, &[sample.node, result], count as f64);
    }
    if let Some(store) = &sample.store {
        let [hits, answers, errors] = store.lookups;
        for (result, count) in [("bridge_hit", hits), ("store", answers), ("error", errors)] {
            families.add(&name::APP_LOOKUP, &[sample.node, result], count as f64);
        }
        let labels = [store.backend, sample.node, "app_manager"];
        let is_up = f64::from(u8::from(store.is_up));
        families.add(&name::BACKEND_UP, &labels, is_up);
    }
    for backend in &sample.backends {
        let labels = [backend.backend, sample.node, backend.role];
        let is_up = f64::from(u8::from(backend.is_up));
        families.add(&name::BACKEND_UP, &labels, is_up);
    }
    if let Some(cache) = &sample.cache {
        for (result, count) in CACHE_RESULTS.into_iter().zip(cache.operations) {
            families.add(
                &name::CACHE_OPERATIONS,
                &[sample.node, result],
                count as f64,
            );
        }
        let waiting = cache.waiting_bytes as f64;
        families.add(&name::CACHE_WAITING_BYTES, &[sample.node], waiting);
    }
}

fn add_hops(families: &mut Families<'_>, sample: &Sample<'_>) {
    let runtimes = || {
        sample
            .shards
            .iter()
            .filter_map(|it| it.snapshot)
            .map(|it| &it.runtime)
    };
    let buckets = sum_of(runtimes().map(|it| it.mesh_hop_us_buckets));
    let sum_us: u64 = runtimes().map(|it| it.mesh_hop_us_sum).sum();
    families.add_histogram(
        &name::MESH_HOP_SECONDS,
        &[sample.node],
        &name::BUCKETS_S,
        &buckets,
        sum_us as f64 / 1e6,
    );
}

/// Bucket by bucket.
fn sum_of(rows: impl Iterator<Item = [u64; 17]>) -> [u64; 17] {
    rows.fold([0; 17], |mut sums, row| {
        sums.iter_mut()
            .zip(row)
            .for_each(|(sum, count)| *sum += count);
        sums
    })
}

/// Labels of the API's routes, by `ApiRoute`.
const ROUTES: [&str; 6] = [
    "events",
    "batch_events",
    "channels",
    "channel",
    "users",
    "terminate",
];
/// Labels of `ShardCounters::app_lookups`.
const LOOKUP_RESULTS: [&str; 2] = ["shard_hit", "negative_hit"];

/// By `HANDSHAKE_REASONS`.
fn failed_handshakes(shard: &ShardSnapshot) -> [u64; 4] {
    let [timeout, too_large, bad_request] = shard.counters.handshake_failures;
    let tls = &shard.runtime.tls;
    let of_tls =
        tls.failed_not_tls + tls.failed_by_client + tls.failed_by_us + tls.failed_unfinished;
    [timeout, too_large, bad_request, of_tls]
}

fn add_handshakes(families: &mut Families<'_>, sample: &Sample<'_>) {
    for (index, reason) in HANDSHAKE_REASONS.into_iter().enumerate() {
        let snapshots = sample.shards.iter().filter_map(|shard| shard.snapshot);
        let count: u64 = snapshots.map(|it| failed_handshakes(it)[index]).sum();
        families.add(
            &name::HANDSHAKE_FAILURES,
            &[sample.node, reason],
            count as f64,
        );
    }
    for (index, reason) in PROXY_HEADER_REASONS.into_iter().enumerate() {
        let snapshots = sample.shards.iter().filter_map(|shard| shard.snapshot);
        let counts = snapshots.map(|it| it.counters.proxy_header_failures[index]);
        families.add(
            &name::PROXY_HEADER_FAILURES,
            &[sample.node, reason],
            counts.sum::<u64>() as f64,
        );
    }
}

/// From 0 on: a row that comes with its first move is missed by whoever asks for its increase.
fn add_app(families: &mut Families<'_>, node: &str, id: &str, counters: &AppCounters) {
    let counters = counters.faults();
    let slow = counters.slow_consumer_disconnects as f64;
    families.add(&name::SLOW_CONSUMER_DISCONNECTS, &[id, node], slow);
    for (index, reason) in DROP_REASONS.into_iter().enumerate() {
        let (frames, bytes) = (
            counters.dropped_frames[index],
            counters.dropped_bytes[index],
        );
        families.add(&name::DROPPED_FRAMES, &[id, node, reason], frames as f64);
        families.add(&name::DROPPED_BYTES, &[id, node, reason], bytes as f64);
    }
    for (limit, count) in LIMITS.into_iter().zip(counters.limit_denied) {
        families.add(&name::LIMIT_LEASE_DENIED, &[id, limit, node], count as f64);
    }
    let dropped = counters.webhooks_dropped as f64;
    families.add(&name::WEBHOOK_EVENTS_DROPPED, &[id, node], dropped);
    add_http_errors(families, node, id, &counters.http_errors);
}

fn add_http_errors(families: &mut Families<'_>, node: &str, id: &str, errors: &HttpErrors) {
    for (status, count) in errors.iter() {
        let labels = [id, node, &status.to_string()];
        families.add(&name::HTTP_ERRORS, &labels, count as f64);
    }
}

fn add_app_webhooks(families: &mut Families<'_>, node: &str, id: &str, webhooks: &AppWebhooks) {
    for (event, counts) in WEBHOOK_EVENTS.into_iter().zip(webhooks.deliveries) {
        // An app has few of the events, and what goes wrong with one has gone well or was tried before.
        if counts == [0; DeliveryResult::LABELS.len()] {
            continue;
        }
        for (result, count) in DeliveryResult::LABELS.into_iter().zip(counts) {
            let labels = [id, event, node, result];
            families.add(&name::WEBHOOK_DELIVERIES, &labels, count as f64);
        }
    }
    families.add(&name::WEBHOOK_RETRIES, &[id, node], webhooks.retries as f64);
    for (reason, count) in DeadReason::LABELS.into_iter().zip(webhooks.dead) {
        families.add(
            &name::WEBHOOK_DEAD_LETTERS,
            &[id, node, reason],
            count as f64,
        );
    }
}
