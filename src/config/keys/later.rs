//! Names that later versions of Sockudo know: a warning, never an error, and no effect.
//!
//! Owns: the list.
//! May depend on: nothing.
//! Invariants: a name here is no key and no alias; `x.*` stands for everything below `x`.

/// A name of a later version; everything below it is meant too.
#[derive(Debug)]
pub struct Later(pub &'static str);

impl Later {
    pub fn matches(&self, path: &str) -> bool {
        let Self(name) = self;
        match name.strip_suffix(".*") {
            Some(section) => path
                .strip_prefix(section)
                .is_some_and(|rest| rest.starts_with('.')),
            None => path == *name,
        }
    }
}

pub(in crate::config) const SERVER: &[Later] = &[
    Later("server_role"),
    Later("tag_filtering"),
    Later("delta_compression"),
    Later("connection_recovery"),
    Later("history"),
    Later("presence_history"),
    Later("idempotency"),
    Later("ephemeral"),
    Later("echo_control"),
    Later("event_name_filtering"),
    Later("versioned_messages"),
    Later("annotations"),
    Later("ai_transport"),
    Later("ably_compat"),
    Later("push"),
    Later("push_rules"),
    Later("websocket.max_messages"),
    Later("websocket.write_buffer_size"),
    Later("websocket.auto_ping"),
    Later("websocket.ping_interval"),
    Later("websocket.idle_timeout"),
    Later("websocket.compression"),
    Later("adapter.enable_socket_counting"),
    Later("adapter.fallback_to_local"),
    Later("adapter.aggregate_counts"),
    Later("adapter.fast_presence_transitions"),
    Later("adapter.pulsar"),
    Later("adapter.rabbitmq"),
    Later("adapter.google_pubsub"),
    Later("adapter.kafka"),
    Later("adapter.iggy"),
    Later("adapter.redis.tls"),
    Later("adapter.redis.redis_pub_options.*"),
    Later("adapter.redis.redis_sub_options.*"),
    Later("adapter.nats.no_echo"),
    Later("adapter.nats.discovery_max_wait_ms"),
    Later("adapter.nats.discovery_idle_wait_ms"),
    Later("adapter.nats.subscription_capacity"),
    Later("adapter.nats.client_capacity"),
    Later("adapter.nats.max_reconnects"),
    Later("app_manager.register_inline_apps"),
    Later("cache.redis.redis_options"),
    Later("cache.redis.tls"),
    Later("database.redis.tls"),
    Later("database.redis.cluster.tls"),
    Later("database.surrealdb"),
    Later("queue.sns"),
    Later("queue.lease"),
    Later("queue.retry"),
    Later("queue.redis.redis_options"),
    Later("queue.redis.tls"),
    Later("metrics.tcp_exporter"),
    Later("rate_limiter.redis.redis_options"),
    Later("rate_limiter.redis.tls"),
];
