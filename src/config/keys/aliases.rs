//! Other spellings of our keys, and variables whose value is not yet the key's.
//!
//! Owns: which name stands for which key.
//! May depend on: `names`, `convert`.
//! Invariants: those of `names`.

use super::convert::{
    disconnect_or_drop, json_or_human, message_bytes, only_true, outbox_bytes, same,
};
use super::names::{Converted, OtherName};
use crate::config::tree::Node;

#[rustfmt::skip] // One name a line.
pub(in crate::config) const SERVER: &[OtherName] = &[
    below("websocket_max_payload_kb", "websocket.max_payload_kb"),
    also("max_connections", "admission.max_connections"),
    below("cluster_health.enabled", "adapter.cluster_health.enabled"),
    below("cluster_health.heartbeat_interval_ms", "adapter.cluster_health.heartbeat_interval_ms"),
    below("cluster_health.node_timeout_ms", "adapter.cluster_health.node_timeout_ms"),
    below("cluster_health.cleanup_interval_ms", "adapter.cluster_health.cleanup_interval_ms"),
    below("database.redis.cluster.nodes", "database.redis.cluster_nodes"),
    OtherName::new("websocket.disconnect_on_buffer_full", "net.slow_consumer", disconnect_or_drop),
    OtherName::new("websocket.max_bytes", "net.send_queue_bytes", outbox_bytes),
    OtherName::new("websocket.max_backpressure", "net.send_queue_bytes", outbox_bytes),
    OtherName::new("websocket.max_message_size", "websocket.max_payload_kb", message_bytes),
    OtherName::new("websocket.max_frame_size", "websocket.max_payload_kb", message_bytes),
];

#[rustfmt::skip] // One name a line.
pub(in crate::config) const APP: &[OtherName] = &[
    also("max_client_events_per_sec", "max_client_events_per_second"),
    also("max_backend_events_per_sec", "max_backend_events_per_second"),
    also("max_read_req_per_sec", "max_read_requests_per_second"),
    also("max_payload_in_kb", "max_event_payload_in_kb"),
];

pub(in crate::config) const WEBHOOK: &[OtherName] = &[
    also("filter.channel_name_starts_with", "filter.channel_prefix"),
    also("filter.channel_name_ends_with", "filter.channel_suffix"),
];

#[rustfmt::skip] // One name a line.
pub(in crate::config) const TRANSLATIONS: &[OtherName] = &[
    variable("DEBUG", "debug", only_true).above_all(),
    variable("RUST_LOG", "logging.level", same).above_all(),
    variable("LOG_FORMAT", "logging.format", json_or_human),
    variable("WEBSOCKET_DISCONNECT_ON_BUFFER_FULL", "net.slow_consumer", disconnect_or_drop),
    variable("WEBSOCKET_MAX_BYTES", "net.send_queue_bytes", outbox_bytes),
    variable("WEBSOCKET_MAX_BACKPRESSURE", "net.send_queue_bytes", outbox_bytes),
    variable("WEBSOCKET_MAX_MESSAGE_SIZE", "websocket.max_payload_kb", message_bytes),
    variable("WEBSOCKET_MAX_FRAME_SIZE", "websocket.max_payload_kb", message_bytes),
];

/// Keys of which two aliases may speak at once: the lower value holds.
pub(in crate::config) const LOWEST_ALIAS_HOLDS: &[&str] =
    &["websocket.max_payload_kb", "net.send_queue_bytes"];

const fn also(path: &'static str, to: &'static str) -> OtherName {
    below(path, to).spelled_otherwise()
}

/// Files of other versions have both; the key's own name holds.
const fn below(path: &'static str, to: &'static str) -> OtherName {
    OtherName::new(path, to, same)
}

const fn variable(
    name: &'static str,
    to: &'static str,
    convert: fn(&Node) -> Converted,
) -> OtherName {
    OtherName::new("", to, convert).variable_named(name)
}
