//! Names that later versions of Sockudo know: a warning, never an error, and no effect.
//!
//! Owns: the lists.
//! May depend on: `tree`.
//! Invariants: a name here is no key and no alias; `x.*` stands for everything below `x`.

use crate::config::tree::Value;

/// Names of later versions, between spaces.
#[derive(Debug)]
pub struct Later(&'static str);

impl Later {
    pub(in crate::config) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.0.split_ascii_whitespace()
    }

    /// One of the names, or below one that ends with `.*`.
    pub(in crate::config) fn matches(&self, path: &str) -> bool {
        self.names().any(|name| match name.strip_suffix(".*") {
            Some(section) => path
                .strip_prefix(section)
                .is_some_and(|rest| rest.starts_with('.')),
            None => path == name,
        })
    }
}

/// It asks for what happens anyway.
pub(in crate::config) fn is_met(path: &str, value: &Value) -> bool {
    let is_text = |wanted: &str| matches!(value, Value::Text(text) if text.trim().eq_ignore_ascii_case(wanted));
    path == "websocket.compression" && is_text("disabled")
}

pub(in crate::config) const SERVER: Later = Later(
    "server_role tag_filtering delta_compression connection_recovery history presence_history \
     idempotency ephemeral echo_control event_name_filtering versioned_messages annotations \
     ai_transport ably_compat push push_rules websocket.max_messages \
     websocket.write_buffer_size websocket.auto_ping websocket.ping_interval \
     websocket.idle_timeout websocket.compression adapter.enable_socket_counting \
     adapter.fallback_to_local adapter.aggregate_counts adapter.fast_presence_transitions \
     adapter.pulsar adapter.rabbitmq adapter.google_pubsub adapter.kafka adapter.iggy \
     adapter.redis.tls adapter.redis.redis_pub_options.* adapter.redis.redis_sub_options.* \
     adapter.nats.no_echo adapter.nats.discovery_max_wait_ms \
     adapter.nats.discovery_idle_wait_ms adapter.nats.subscription_capacity \
     adapter.nats.client_capacity adapter.nats.max_reconnects \
     app_manager.register_inline_apps cache.redis.redis_options cache.redis.tls \
     database.redis.cluster.tls database.surrealdb queue.sns queue.lease \
     queue.retry queue.redis.redis_options queue.redis.tls metrics.tcp_exporter \
     rate_limiter.redis.redis_options rate_limiter.redis.tls",
);

pub(in crate::config) const APP: Later = Later(
    "channel_delta_compression idempotency history presence_history channel_namespaces \
     connection_recovery event_name_filtering annotations push policy.* created_at updated_at",
);

pub(in crate::config) const WEBHOOK: Later = Later("lambda.async lambda.client_options retry");
