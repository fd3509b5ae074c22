//! The name, type and labels of every metric, in one place.
//!
//! Owns: `Family` and one constant per metric of this node.
//! May depend on: nothing.
//! Invariants: labels are in alphabetical order; the first part of this file is Sockudo 2.9's and
//! no name, type or label there may change, because dashboards are built on them.

/// What Prometheus calls the type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// One metric: all that is fixed about it. The configured prefix goes before `name`.
#[derive(Debug)]
pub(super) struct Family {
    pub name: &'static str,
    pub kind: Kind,
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

/// The label of what belongs to no app that is known.
pub(super) const UNKNOWN_APP: &str = "unknown";

const APP: &[&str] = &["app_id", "port"];
const APP_CHANNEL_TYPE: &[&str] = &["app_id", "channel_type", "port"];
const RATE_LIMIT: &[&str] = &["app_id", "limiter_type", "port", "request_context"];
const NODE: &[&str] = &["node"];
const SHARD: &[&str] = &["node", "shard"];
const PEER: &[&str] = &["node", "peer", "shard"];
const CLUSTER_PEER: &[&str] = &["node", "peer"];
const APP_ON_NODE: &[&str] = &["app_id", "node"];
const APP_REASON: &[&str] = &["app_id", "node", "reason"];

const fn counter(name: &'static str, labels: &'static [&str], help: &'static str) -> Family {
    Family {
        name,
        kind: Kind::Counter,
        labels,
        help,
    }
}

const fn gauge(name: &'static str, labels: &'static [&str], help: &'static str) -> Family {
    Family {
        name,
        kind: Kind::Gauge,
        labels,
        help,
    }
}

const fn histogram(name: &'static str, labels: &'static [&str], help: &'static str) -> Family {
    Family {
        name,
        kind: Kind::Histogram,
        labels,
        help,
    }
}

// Sockudo 2.9's metrics. Times are in milliseconds.

pub(super) const CONNECTED: Family = gauge("connected", APP, "Open connections of the app");
pub(super) const NEW_CONNECTIONS: Family = counter(
    "new_connections_total",
    APP,
    "Connections that were established",
);
pub(super) const NEW_DISCONNECTIONS: Family = counter(
    "new_disconnections_total",
    APP,
    "Established connections that ended",
);
pub(super) const CONNECTION_ERRORS: Family = counter(
    "connection_errors_total",
    &["app_id", "error_type", "port"],
    "Connections refused or ended by an error",
);
pub(super) const SOCKET_RECEIVED_BYTES: Family = counter(
    "socket_received_bytes",
    APP,
    "Payload bytes of messages from clients",
);
pub(super) const SOCKET_TRANSMITTED_BYTES: Family = counter(
    "socket_transmitted_bytes",
    APP,
    "Payload bytes of messages to clients",
);
pub(super) const WS_MESSAGES_RECEIVED: Family =
    counter("ws_messages_received_total", APP, "Messages from clients");
pub(super) const WS_MESSAGES_SENT: Family =
    counter("ws_messages_sent_total", APP, "Messages to clients");
pub(super) const HTTP_RECEIVED_BYTES: Family = counter(
    "http_received_bytes",
    APP,
    "Body bytes of API requests that were in order",
);
pub(super) const HTTP_TRANSMITTED_BYTES: Family = counter(
    "http_transmitted_bytes",
    APP,
    "Body bytes of API answers below 400",
);
pub(super) const HTTP_CALLS_RECEIVED: Family = counter(
    "http_calls_received_total",
    APP,
    "API calls that were carried out",
);
pub(super) const ADAPTER_RESOLVE_TIME: Family = histogram(
    "horizontal_adapter_resolve_time",
    APP,
    "Time until a question to the other nodes was answered or given up, ms",
);
pub(super) const ADAPTER_RESOLVED: Family = counter(
    "horizontal_adapter_resolved_promises",
    APP,
    "Questions answered in time",
);
pub(super) const ADAPTER_UNCOMPLETE: Family = counter(
    "horizontal_adapter_uncomplete_promises",
    APP,
    "Questions not answered in time",
);
pub(super) const ADAPTER_SENT_REQUESTS: Family = counter(
    "horizontal_adapter_sent_requests",
    APP,
    "Questions sent to other nodes",
);
pub(super) const ADAPTER_RECEIVED_REQUESTS: Family = counter(
    "horizontal_adapter_received_requests",
    APP,
    "Questions from other nodes",
);
pub(super) const ADAPTER_RECEIVED_RESPONSES: Family = counter(
    "horizontal_adapter_received_responses",
    APP,
    "Answers from other nodes",
);
pub(super) const RATE_LIMIT_CHECKS: Family =
    counter("rate_limit_checks_total", RATE_LIMIT, "Rate limit checks");
pub(super) const RATE_LIMIT_TRIGGERED: Family = counter(
    "rate_limit_triggered_total",
    RATE_LIMIT,
    "Rate limit checks that refused",
);
pub(super) const CHANNEL_SUBSCRIPTIONS: Family = counter(
    "channel_subscriptions_total",
    APP_CHANNEL_TYPE,
    "Subscriptions made",
);
pub(super) const CHANNEL_UNSUBSCRIPTIONS: Family = counter(
    "channel_unsubscriptions_total",
    APP_CHANNEL_TYPE,
    "Subscriptions ended",
);
pub(super) const ACTIVE_CHANNELS: Family = gauge(
    "active_channels",
    APP_CHANNEL_TYPE,
    "Channels with at least one subscriber",
);
pub(super) const BROADCAST_LATENCY: Family = histogram(
    "broadcast_latency_ms",
    &["app_id", "channel_type", "port", "recipient_count_bucket"],
    "Time from an API event's arrival to its last send on a shard, ms with fractions",
);

// Ours. Times are in seconds.

pub(super) const BUILD_INFO: Family = gauge(
    "build_info",
    &["commit", "features", "node", "version"],
    "Always 1; what is running is in the labels",
);
pub(super) const CONFIG_RELOAD_SUCCESS: Family = gauge(
    "config_last_reload_success",
    NODE,
    "1 if the last (re)load of the configuration worked",
);
pub(super) const CONFIG_RELOAD_TIMESTAMP: Family = gauge(
    "config_last_reload_timestamp_seconds",
    NODE,
    "Unix time of the last configuration that was taken over",
);
pub(super) const LOG_LINES_LOST: Family = counter(
    "log_lines_lost_total",
    NODE,
    "Lines of the log that could not be written: a full disk, a closed pipe",
);
pub(super) const UPGRADES: Family = counter(
    "upgrades_total",
    &["node", "result"],
    "Upgrades of the running node: done, failed; they go on from one process to the next",
);
pub(super) const UPGRADE_SILENCE: Family = gauge(
    "upgrade_silence_seconds",
    NODE,
    "For so long nothing was read or sent in the last upgrade; absent before the first",
);
pub(super) const READY: Family = gauge(
    "ready",
    &["node", "reason"],
    "1 with the reason none when ready; else 0, one row for each reason",
);
pub(super) const SHARD_CONNECTIONS: Family =
    gauge("shard_connections", SHARD, "Open WebSocket connections");
pub(super) const SHARD_CHANNELS: Family =
    gauge("shard_channels", SHARD, "Channels whose home is here");
pub(super) const SHARD_ACCEPTED: Family =
    counter("shard_accepted_total", SHARD, "Accepted connections");
pub(super) const SHARD_HANDED_OVER: Family = counter(
    "shard_handed_over_total",
    SHARD,
    "Accepted connections given to another shard",
);
pub(super) const SHARD_LOOP_BUSY_RATIO: Family = gauge(
    "shard_loop_busy_ratio",
    SHARD,
    "Share of the last 10 s not parked, 0 to 1",
);
pub(super) const SHARD_TURN_SECONDS: Family =
    histogram("shard_turn_seconds", SHARD, "Length of a turn");
pub(super) const SHARD_TURN_STALLS: Family =
    counter("shard_turn_stalls_total", SHARD, "Turns longer than 100 ms");
pub(super) const SHARD_RING_OVERFLOWS: Family = counter(
    "shard_ring_overflows_total",
    SHARD,
    "Overflows of the completion queue",
);
pub(super) const SHARD_RECV_BUFFERS_FREE: Family = gauge(
    "shard_recv_buffers_free",
    SHARD,
    "Receive buffers not in use",
);
pub(super) const SHARD_RECV_BUFFERS_EXHAUSTED: Family = counter(
    "shard_recv_buffers_exhausted_total",
    SHARD,
    "Receives that found no buffer",
);
pub(super) const SHARD_TURNS_CUT: Family = counter(
    "shard_turns_cut_total",
    SHARD,
    "Turns that ended with work left over for the next one",
);
pub(super) const SHARD_ACCEPTS_REFUSED: Family = counter(
    "shard_accepts_refused_total",
    SHARD,
    "Connections closed at once, because open files allow no more",
);
pub(super) const SHARD_SUBMIT_REFUSALS: Family = counter(
    "shard_submit_refusals_total",
    SHARD,
    "Times that the kernel refused operations for want of memory",
);
pub(super) const SHARD_ACCEPT_RESTS: Family = counter(
    "shard_accept_rests_total",
    SHARD,
    "Times that accepting rested for a second because of that",
);
pub(super) const TLS_HANDSHAKES: Family = counter(
    "tls_handshakes_total",
    &["kind", "node", "shard"],
    "TLS handshakes that were done, in full or as a resumption",
);
pub(super) const TLS_FAILURES: Family = counter(
    "tls_failures_total",
    &["node", "reason", "shard"],
    "TLS handshakes that failed and TLS connections that were ended, by reason",
);
pub(super) const TLS_TRUNCATED: Family = counter(
    "tls_truncated_total",
    SHARD,
    "TLS connections whose client ended them by TCP alone",
);
pub(super) const TLS_KEY_UPDATES: Family =
    counter("tls_key_updates_total", SHARD, "Keys that clients renewed");
pub(super) const TLS_SEALED_BYTES: Family = counter(
    "tls_sealed_bytes_total",
    SHARD,
    "Bytes that were sealed for clients, as they were before",
);
pub(super) const TLS_CONNECTIONS: Family = gauge(
    "tls_connections",
    SHARD,
    "Connections with TLS, those whose handshake is not done among them",
);
pub(super) const TLS_HANDSHAKING: Family = gauge(
    "tls_handshaking",
    SHARD,
    "Connections whose TLS handshake is not done",
);
pub(super) const TLS_INPUT_BYTES: Family = gauge(
    "tls_input_bytes",
    SHARD,
    "Bytes of unfinished handshakes and records",
);
pub(super) const SHARD_OUTBOX_PRESSES: Family = counter(
    "shard_outbox_presses_total",
    SHARD,
    "Full outboxes that were sent within a turn",
);
pub(super) const SHARD_PUBLISHERS_HELD: Family = counter(
    "shard_publishers_held_total",
    SHARD,
    "Times that a channel's publishers were held until its fan-out had caught up",
);
pub(super) const SHARD_INPUTS_THROTTLED: Family = counter(
    "shard_inputs_throttled_total",
    SHARD,
    "Times that a connection's input was held for its rate of subscribes",
);
pub(super) const SHARD_INPUTS_SHED: Family = counter(
    "shard_inputs_shed_total",
    SHARD,
    "Strangers sent away because too much input was held for them",
);
pub(super) const SHARD_BODIES_SHED: Family = counter(
    "shard_bodies_shed_total",
    SHARD,
    "Signed requests answered 503 before their bodies had come, because too much was held of bodies",
);
pub(super) const SHARD_READS_ALONE: Family = counter(
    "shard_reads_alone_total",
    SHARD,
    "Publications that were read on alone, all others waiting, because too much was held of those that are read",
);
pub(super) const SHARD_CONNECTIONS_AGED: Family = counter(
    "shard_connections_aged_total",
    SHARD,
    "WebSocket connections closed because they had lasted net.connection_age_max_s",
);
pub(super) const SHARD_KEPT_BYTES: Family = gauge(
    "shard_kept_bytes",
    SHARD,
    "Bytes of the last events kept for cache channels",
);
pub(super) const SHARD_KEPT_DOUBTED: Family = counter(
    "shard_kept_doubted_total",
    SHARD,
    "Questions for last events of cache channels that were in doubt, as after an outage of the bus",
);
pub(super) const SHARD_KEPT_REPLACED: Family = counter(
    "shard_kept_replaced_total",
    SHARD,
    "Last events of cache channels in whose place an answer has put a newer one",
);
pub(super) const SHARD_JOINS_WAITING: Family = gauge(
    "shard_joins_waiting",
    SHARD,
    "Subscriptions that wait until the bus has confirmed their topic",
);
pub(super) const SHARD_JOINS_REFUSED: Family = counter(
    "shard_joins_refused_total",
    SHARD,
    "Subscriptions closed with 4100 because too many waited for the bus",
);
pub(super) const SHARD_NODE_EVENTS_REFUSED: Family = counter(
    "shard_node_events_refused_total",
    SHARD,
    "Events and members of other nodes that are not of their form",
);
pub(super) const MESH_QUEUE_DEPTH: Family =
    gauge("mesh_queue_depth", PEER, "Messages waiting to peer");
pub(super) const MESH_OVERFLOW_DEPTH: Family = gauge(
    "mesh_overflow_depth",
    PEER,
    "Messages to peer on the overflow list",
);
pub(super) const MESH_BACKPRESSURE: Family = counter(
    "mesh_backpressure_seconds_total",
    SHARD,
    "Time during which reading was stopped for a full mesh queue",
);
pub(super) const SEND_QUEUE_BYTES: Family =
    gauge("send_queue_bytes", SHARD, "Bytes in all outboxes");
pub(super) const SEND_QUEUE_MAX_BYTES: Family =
    gauge("send_queue_max_bytes", SHARD, "Bytes in the fullest outbox");
pub(super) const SLOW_CONSUMER_DISCONNECTS: Family = counter(
    "slow_consumer_disconnects_total",
    APP_ON_NODE,
    "Connections closed because they read too slowly",
);
pub(super) const DROPPED_FRAMES: Family =
    counter("dropped_frames_total", APP_REASON, "Frames dropped");
pub(super) const DROPPED_BYTES: Family =
    counter("dropped_bytes_total", APP_REASON, "Bytes of dropped frames");
pub(super) const ACCEPT_RATE_LIMITED: Family = counter(
    "accept_rate_limited_total",
    &["node", "reason", "shard"],
    "Connections refused before any work was spent on them",
);
pub(super) const LIMITED_ADDRESSES: Family = gauge(
    "limited_addresses",
    SHARD,
    "Addresses that the address limiters remember",
);
pub(super) const LIMITED_ADDRESSES_EVICTED: Family = counter(
    "limited_addresses_evicted_total",
    SHARD,
    "Addresses forgotten before their window's end, because there were too many",
);
pub(super) const HANDSHAKE_FAILURES: Family = counter(
    "handshake_failures_total",
    &["node", "reason"],
    "Handshakes that failed",
);
pub(super) const PROXY_HEADER_FAILURES: Family = counter(
    "proxy_header_failures_total",
    &["node", "reason"],
    "Connections of trusted proxies closed for their PROXY header",
);
pub(super) const MESH_HOP_SECONDS: Family = histogram(
    "mesh_hop_seconds",
    NODE,
    "Sampled time from a message's sending to its handling on another shard",
);
pub(super) const HTTP_REQUEST_SECONDS: Family = histogram(
    "http_request_seconds",
    &["node", "route"],
    "API requests, from their last byte to their answer",
);
pub(super) const APP_LOOKUP: Family = counter(
    "app_lookup_total",
    &["node", "result"],
    "Look-ups of an app by its key or id",
);
pub(super) const CACHE_OPERATIONS: Family = counter(
    "cache_operations_total",
    &["node", "result"],
    "Last events read from and written to the shared cache",
);
pub(super) const CACHE_WAITING_BYTES: Family = gauge(
    "cache_waiting_bytes",
    &["node"],
    "Bytes of last events that wait to be written to the shared cache",
);
pub(super) const HTTP_ERRORS: Family = counter(
    "http_errors_total",
    &["app_id", "node", "status"],
    "API answers of 400 and above; unknown: before an app was known",
);
pub(super) const BRIDGE_QUEUE_DEPTH: Family = gauge(
    "bridge_queue_depth",
    &["direction", "node", "shard"],
    "Messages waiting between a shard and the bridge",
);
pub(super) const BRIDGE_QUEUE_BYTES: Family = gauge(
    "bridge_queue_bytes",
    SHARD,
    "Bytes waiting between a shard and the bridge, but those of its own questions",
);
pub(super) const BRIDGE_QUEUE_FULL: Family = counter(
    "bridge_queue_full_total",
    &["node", "request", "shard"],
    "Messages that met a full queue between a shard and the bridge",
);
pub(super) const BRIDGE_BUSY_RATIO: Family = gauge(
    "bridge_busy_ratio",
    NODE,
    "Share of the last 10 s in which the bridge worked, 0 to 1",
);
pub(super) const WEBHOOK_QUEUE_DEPTH: Family = gauge(
    "webhook_queue_depth",
    &["driver", "node"],
    "Webhook events that wait for delivery",
);
pub(super) const WEBHOOK_QUEUE_BYTES: Family = gauge(
    "webhook_queue_bytes",
    &["driver", "node"],
    "Bytes of the webhook events that wait for delivery",
);
pub(super) const WEBHOOK_EVENTS_DROPPED: Family = counter(
    "webhook_events_dropped_total",
    APP_ON_NODE,
    "Webhook events dropped between a shard and the bridge",
);
pub(super) const WEBHOOK_IN_FLIGHT: Family =
    gauge("webhook_in_flight", NODE, "Webhook requests under way");
pub(super) const WEBHOOK_TARGETS_FAILING: Family = gauge(
    "webhook_targets_failing",
    NODE,
    "Webhook targets that this node leaves alone between attempts, since they fail",
);
pub(super) const WEBHOOK_DELIVERIES: Family = counter(
    "webhook_deliveries_total",
    &["app_id", "event", "node", "result"],
    "Webhook events by what became of them: ok, retry, dead, filtered",
);
pub(super) const WEBHOOK_DELIVERY_SECONDS: Family = histogram(
    "webhook_delivery_seconds",
    NODE,
    "Length of one webhook request",
);
pub(super) const WEBHOOK_RETRIES: Family = counter(
    "webhook_retries_total",
    APP_ON_NODE,
    "Webhook requests that were tried again",
);
pub(super) const WEBHOOK_DEAD_LETTERS: Family = counter(
    "webhook_dead_letters_total",
    APP_REASON,
    "Webhook requests given up: attempts, age, gone, malformed, overflow, shutdown",
);
pub(super) const WEBHOOK_DEAD_LETTERS_KEPT: Family = gauge(
    "webhook_dead_letters",
    NODE,
    "Webhook requests kept after they were given up",
);
pub(super) const WEBHOOK_OLDEST_JOB: Family = gauge(
    "webhook_oldest_job_seconds",
    NODE,
    "Age of the oldest webhook not yet delivered",
);
pub(super) const WEBHOOK_DEAD_LETTERS_DROPPED: Family = counter(
    "webhook_dead_letters_dropped_total",
    NODE,
    "Dead letters dropped for want of room",
);
pub(super) const WEBHOOK_STORE_JOBS: Family = gauge(
    "webhook_store_jobs",
    &["driver", "node"],
    "Webhook requests in the store that nodes share, waiting or taken",
);
pub(super) const WEBHOOK_STORE_BYTES: Family = gauge(
    "webhook_store_bytes",
    &["driver", "node"],
    "Bytes of the webhook requests in the store that nodes share",
);
pub(super) const WEBHOOK_STORE_EVENTS: Family = counter(
    "webhook_store_events_total",
    &["driver", "event", "node"],
    "What this node did and saw at the store: put, taken, recovered, overflow, fault, forgot",
);
pub(super) const DRAIN_CONNECTIONS_REMAINING: Family = gauge(
    "drain_connections_remaining",
    NODE,
    "Connections still to close; -1 when not draining",
);
pub(super) const LIMIT_LEASE_DENIED: Family = counter(
    "limit_lease_denied_total",
    &["app_id", "limit", "node"],
    "App-wide limits that refused",
);

pub(super) const BACKEND_UP: Family = gauge(
    "backend_up",
    &["backend", "node", "role"],
    "1 while all connections to the backend stand",
);
pub(super) const BACKEND_REQUEST_SECONDS: Family = histogram(
    "backend_request_seconds",
    &["backend", "node", "op", "role"],
    "Time from a question's coming to the bridge to the backend's answer",
);
pub(super) const BACKEND_ERRORS: Family = counter(
    "backend_errors_total",
    &["backend", "kind", "node", "role"],
    "Questions and attempts to connect that failed: timeout, io, auth, protocol",
);
pub(super) const BACKEND_RECONNECTS: Family = counter(
    "backend_reconnects_total",
    &["backend", "node", "role"],
    "Connections to the backend that were made anew",
);
pub(super) const ADAPTER_CANARY_SECONDS: Family = histogram(
    "adapter_canary_seconds",
    NODE,
    "Time until what the node sends itself on each road of the bus is back, to the millisecond",
);
pub(super) const ADAPTER_CANARY_SUCCESS: Family = gauge(
    "adapter_canary_last_success_timestamp_seconds",
    NODE,
    "Unix time of its last return, on the road where that is longer ago; 0 before it was back on both",
);
pub(super) const ADAPTER_CANARY_FAILURES: Family = counter(
    "adapter_canary_failures_total",
    NODE,
    "Times that it stopped coming back in time on one of them",
);
pub(super) const CLUSTER_NODES: Family = gauge(
    "cluster_nodes",
    &["node", "state"],
    "Nodes, this one too: live, suspect after two silent heartbeats, expired within the last hour",
);
pub(super) const CLUSTER_LEASE_EXPIRIES: Family = counter(
    "cluster_lease_expiries_total",
    CLUSTER_PEER,
    "Times that peer was silent for cluster.lease_ms and counted as dead",
);
pub(super) const PRESENCE_LEASE_EXPIRIES: Family = counter(
    "presence_lease_expiries_total",
    APP_ON_NODE,
    "Members removed from presence channels because the lease of their node ran out",
);
pub(super) const CLUSTER_MESSAGES: Family = counter(
    "cluster_messages_total",
    &["direction", "kind", "node"],
    "Messages to and from other nodes",
);
pub(super) const CLUSTER_BATCHES: Family = counter(
    "cluster_batches_total",
    &["direction", "node"],
    "Batches made for the bus, and batches of others that were read",
);
pub(super) const CLUSTER_BYTES: Family = counter(
    "cluster_bytes_total",
    &["direction", "node"],
    "Bytes to and from the bus, own batches that come back too",
);
pub(super) const CLUSTER_PEER_LAST_HEARD: Family = gauge(
    "cluster_peer_last_heard_seconds",
    CLUSTER_PEER,
    "Time since a peer that is there was heard last",
);
pub(super) const CLUSTER_LOST_BATCHES: Family = counter(
    "cluster_lost_batches_total",
    &["node", "peer", "road"],
    "Batches of a peer that is there which never arrived here",
);
pub(super) const CLUSTER_REFUSED_BATCHES: Family = counter(
    "cluster_refused_batches_total",
    &["node", "reason"],
    "Batches that were not read",
);
pub(super) const CLUSTER_UNKNOWN_MESSAGES: Family = counter(
    "cluster_unknown_messages_total",
    CLUSTER_PEER,
    "Messages of peer of kinds of a later version, skipped",
);
pub(super) const CLUSTER_BROKEN_MESSAGES: Family = counter(
    "cluster_broken_messages_total",
    NODE,
    "Messages of a known kind that are wrong, or where they have no place",
);
pub(super) const CLUSTER_DROPPED: Family = counter(
    "cluster_dropped_total",
    &["node", "reason"],
    "Messages that this node could not bring to or from the bus",
);
pub(super) const TRANSPORT_DROPPED: Family = counter(
    "horizontal_transport_messages_dropped_total",
    &["node", "transport"],
    "Sum of cluster_dropped_total, under a name of later upstream versions",
);
pub(super) const CLUSTER_TOPICS: Family = gauge(
    "cluster_topics",
    NODE,
    "Subscriptions to topics that the bus has confirmed",
);
pub(super) const CLUSTER_TOPICS_WANTED: Family = gauge(
    "cluster_topics_wanted",
    NODE,
    "Topics on the bus that are to be subscribed to",
);
pub(super) const CLUSTER_WITNESSES: Family = gauge(
    "cluster_witnesses",
    &["node", "state"],
    "Servers of the bus at which topics are to be proven, and those where that is heard",
);
pub(super) const CLUSTER_SUBSCRIBE_SECONDS: Family = histogram(
    "cluster_subscribe_seconds",
    NODE,
    "Time from asking for a topic to its confirmation",
);
pub(super) const CLUSTER_SNAPSHOTS: Family = counter(
    "cluster_snapshots_total",
    &["direction", "node", "peer"],
    "Snapshots of partitions: out, sent since peer asked first; in, merged from peer",
);
pub(super) const UPGRADE_DROPPED_BATCHES: Family = counter(
    "upgrade_dropped_batches_total",
    NODE,
    "Batches of others that this process kept no longer, of what came before it took over",
);
pub(super) const CLUSTER_SEQUENCE_GAPS: Family = counter(
    "cluster_sequence_gaps_total",
    CLUSTER_PEER,
    "Partitions of peer of which something was found to be missing, and asked for",
);
pub(super) const CLUSTER_BEHIND: Family = gauge(
    "cluster_partitions_behind",
    NODE,
    "Partitions of peers of which something is missing now",
);

/// Bounds I of Sockudo 2.9 (its client library's defaults), ms.
pub(super) const RESOLVE_BUCKETS_MS: [f64; 11] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// Bounds of all our own histograms, seconds.
pub(super) const BUCKETS_S: [f64; 16] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
];

/// The bucket of `BUCKETS_S` that counts so many seconds; the one behind the last is above all.
pub(super) fn bucket_of(seconds: f64) -> usize {
    let mut bounds = BUCKETS_S.iter();
    let position = bounds.position(|bound| seconds <= *bound);
    position.unwrap_or(BUCKETS_S.len())
}
