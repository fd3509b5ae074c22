//! The server's own keys: listening, limits, threads, network, drain, cluster.
//!
//! Owns: rows of the table. Longer than a screen because it is a list.
//! May depend on: the builders of `keys`.
//! Invariants: those of `keys`.

use super::{
    GIBIBYTE, Key, auto_or, choice, count, key, kilobyte_limit, limit, milliseconds, named,
    named_also, port, seconds, text, whole,
};
use crate::config::kind::{Kind, Whole};
use crate::config::shape;

pub(super) const KEYS: &[Key] = &[
    key("debug", Kind::Flag, "Debug logs, with file and line.")
        .default("false")
        .env(&["DEBUG_MODE"]),
    key(
        "host",
        text(shape::HOSTS),
        "Addresses to listen on, between commas; `::` is dual stack.",
    )
    .default("0.0.0.0")
    .derived("127.0.0.1 in demo mode")
    .env(&["HOST"]),
    key(
        "port",
        port(),
        "Port of WebSocket and HTTP API; 0 = any free port.",
    )
    .default("6001")
    .env(&["PORT"]),
    key(
        "mode",
        text(shape::NOT_EMPTY),
        "`production` refuses demo credentials off loopback.",
    )
    .default("production")
    .env(&["ENVIRONMENT"]),
    key(
        "path_prefix",
        text(shape::URL_PATH),
        "Stands before all public routes, which also answer without it.",
    )
    .default("/")
    .null_is_absent()
    .env(&["PATH_PREFIX"]),
    key(
        "shutdown_grace_period",
        seconds(0),
        "Bound of the drain; default of `drain.deadline_s`.",
    )
    .default("10")
    .env(&["SHUTDOWN_GRACE_PERIOD"])
    .reloads(),
    key(
        "user_authentication_timeout",
        seconds(1),
        "Closes with 4009 a connection that has neither signed in nor subscribed with \
         authorisation by then; where the app asks for user authentication.",
    )
    .default("3600")
    .env(&["USER_AUTHENTICATION_TIMEOUT"])
    .reloads(),
    key(
        "activity_timeout",
        seconds(1),
        "Silence after which the server pings.",
    )
    .default("120")
    .env(&["ACTIVITY_TIMEOUT"])
    .reloads(),
    key(
        "health_check_timeout_ms",
        milliseconds(1),
        "How long `/up` waits for a backend.",
    )
    .default("400")
    .reloads(),
    key(
        "limits_mode",
        choice(&[named("pusher"), named("upstream")]),
        "Which defaults hold for limits nobody set: the protocol's, or those of Sockudo 2.9, which \
         left most of them off.",
    )
    .default("pusher")
    .ours()
    .reloads(),
    // Threads.
    key(
        "shards",
        auto_or(1, 512),
        "Shard threads; auto = physical cores less one for the bridge.",
    )
    .default("auto")
    .ours(),
    key(
        "bridge_core",
        auto_or(0, 4095),
        "Core that runs the bridge.",
    )
    .default("auto")
    .ours(),
    key("pin", Kind::Flag, "Pin threads to cores.")
        .default("true")
        .ours(),
    // Network.
    key(
        "websocket.max_payload_kb",
        Kind::Kilobytes(Whole {
            min: 1,
            max: GIBIBYTE,
            unit: "",
            negative: None,
        }),
        "Largest message in; a larger one closes with 1009.",
    )
    .default("64")
    .env(&["WEBSOCKET_MAX_PAYLOAD_KB"])
    .ours()
    .reloads(),
    key(
        "websocket.require_protocol",
        Kind::Flag,
        "Refuse (4008) clients that send no `protocol` parameter, instead of assuming 7.",
    )
    .default("false")
    .ours()
    .reloads(),
    key(
        "net.send_queue_bytes",
        whole(4096, GIBIBYTE, "bytes"),
        "Bound of one connection's outbox; at least twice the largest message.",
    )
    .default("1048576")
    .derived("raised to twice the largest message")
    .ours(),
    key(
        "net.burst_queue_bytes",
        whole(4096, GIBIBYTE, "bytes"),
        "What one connection's outbox may hold for a moment while the kernel still takes bytes; \
         beyond `net.send_queue_bytes` a consumer is slow only when it took nothing for a second.",
    )
    .default("8388608")
    .derived("raised to net.send_queue_bytes")
    .ours(),
    key(
        "net.slow_consumer",
        choice(&[
            named("disconnect"),
            named("drop_newest"),
            named("drop_oldest"),
        ]),
        "What happens when the outbox is full. Only events are dropped, never replies.",
    )
    .default("disconnect")
    .ours()
    .reloads(),
    key(
        "net.recv_buffers",
        auto_or(1, 32_768),
        "Receive buffers per shard, a power of two.",
    )
    .default("auto")
    .ours(),
    key(
        "net.recv_buffer_bytes",
        whole(256, 1 << 20, "bytes"),
        "Size of one receive buffer.",
    )
    .default("4096")
    .ours(),
    key(
        "net.busy_poll_us",
        whole(0, 1_000_000, "microseconds"),
        "Spin so long before parking.",
    )
    .default("0")
    .ours(),
    key("net.backlog", whole(1, 65_535, ""), "Listen backlog.")
        .default("4096")
        .ours(),
    key(
        "net.handshake_timeout_ms",
        milliseconds(1),
        "From accept to the whole head of a request.",
    )
    .default("10000")
    .ours()
    .reloads(),
    key(
        "net.body_rate_min_bytes_per_s",
        whole(0, GIBIBYTE, "bytes"),
        "After `net.handshake_timeout_ms` a request's body must have come at this rate at least; \
         0 = any rate, within an hour.",
    )
    .default("16384")
    .ours()
    .reloads(),
    key(
        "net.input_held_bytes",
        whole(1 << 20, 64 * GIBIBYTE, "bytes"),
        "Bytes of requests that the node holds for peers that have not shown who they are.",
    )
    .default("67108864")
    .ours()
    .reloads(),
    key(
        "net.subscribe_rate_per_s",
        whole(0, 1_000_000, ""),
        "Subscribes, unsubscribes and sign-ins of one connection per second; beyond it its input \
         waits, nothing is refused. 0 = no limit.",
    )
    .default("500")
    .ours()
    .reloads(),
    key(
        "net.subscribe_burst",
        whole(1, 1_000_000, ""),
        "So many of them at once.",
    )
    .default("1000")
    .ours()
    .reloads(),
    key(
        "admission.accept_rate_per_s",
        count(0),
        "New connections per second; 0 = no limit.",
    )
    .default("0")
    .ours()
    .reloads(),
    key(
        "admission.accept_burst",
        count(0),
        "New connections at once.",
    )
    .derived("admission.accept_rate_per_s")
    .ours()
    .reloads(),
    key(
        "admission.max_connections",
        whole(0, u64::MAX, ""),
        "Connections of the node; 0 = as many as file descriptors allow.",
    )
    .default("0")
    .env(&["SOCKUDO_MAX_CONNECTIONS"])
    .ours()
    .reloads(),
    key(
        "drain.deadline_s",
        whole(0, 86_400, "seconds"),
        "The process has ended by then.",
    )
    .derived("shutdown_grace_period")
    .ours()
    .reloads(),
    key(
        "drain.rate_per_s",
        count(0),
        "Closes per second; 0 = spread over the deadline.",
    )
    .default("0")
    .ours()
    .reloads(),
    key(
        "drain.lb_wait_s",
        whole(0, 86_400, "seconds"),
        "Unready but serving, before closing starts.",
    )
    .default("0")
    .ours()
    .reloads(),
    // Cluster.
    key(
        "instance.process_id",
        Kind::TextOrNumber(shape::NOT_EMPTY),
        "Default of `cluster.node_id`.",
    )
    .env(&["INSTANCE_PROCESS_ID"]),
    key(
        "cluster.node_id",
        text(shape::NODE_ID),
        "Stable name of this node.",
    )
    .derived("instance.process_id, else host name and a random part")
    .ours(),
    key(
        "cluster.lease_ms",
        milliseconds(3),
        "Silence after which a node is dead; >= 3 heartbeats.",
    )
    .default("5000")
    .derived("adapter.cluster_health.node_timeout_ms where that is set")
    .ours(),
    key(
        "cluster.heartbeat_ms",
        milliseconds(1),
        "A node is heard at least so often.",
    )
    .default("1000")
    .derived("adapter.cluster_health.heartbeat_interval_ms where that is set")
    .ours(),
    key(
        "cluster.canary_ms",
        milliseconds(0),
        "Self-test through the bus; 0 = off.",
    )
    .default("1000")
    .ours(),
    key(
        "cluster.linger_ms",
        milliseconds(0),
        "Keep a topic so long after its last subscriber.",
    )
    .default("5000")
    .ours(),
    key(
        "cluster.replication",
        choice(&[named("full"), named("owned")]),
        "Which partitions of the cluster's state a node holds.",
    )
    .default("full")
    .ours(),
    // Limits of apps that set none of their own.
    key(
        "channel_limits.max_name_length",
        limit(),
        "Longest channel name, in bytes.",
    )
    .default("200")
    .env(&["CHANNEL_LIMITS_MAX_NAME_LENGTH"])
    .reloads(),
    key(
        "channel_limits.cache_ttl",
        seconds(0),
        "How long a cache channel keeps its last event.",
    )
    .default("1800")
    .upstream("3600")
    .env(&["CHANNEL_CACHE_TTL"])
    .reloads(),
    key(
        "event_limits.max_channels_at_once",
        limit(),
        "Channels of one event of the API.",
    )
    .default("100")
    .upstream("-1")
    .reloads(),
    key(
        "event_limits.max_name_length",
        limit(),
        "Longest event name, in bytes.",
    )
    .default("200")
    .reloads(),
    key(
        "event_limits.max_payload_in_kb",
        kilobyte_limit(),
        "Largest `data` of an event.",
    )
    .default("100")
    .upstream("-1")
    .reloads(),
    key(
        "event_limits.max_batch_size",
        limit(),
        "Events of one batch of the API.",
    )
    .default("10")
    .upstream("-1")
    .reloads(),
    key(
        "presence.max_members_per_channel",
        limit(),
        "Users of one presence channel.",
    )
    .default("100")
    .upstream("-1")
    .reloads(),
    key(
        "presence.max_member_size_in_kb",
        kilobyte_limit(),
        "Largest `user_info`.",
    )
    .default("1")
    .upstream("-1")
    .reloads(),
    // Logs.
    key(
        "logging.colors_enabled",
        Kind::Flag,
        "Colours in the human format.",
    )
    .derived("whether stdout is a terminal")
    .env(&["LOG_COLORS_ENABLED"]),
    key(
        "logging.include_target",
        Kind::Flag,
        "The module in each line.",
    )
    .default("true")
    .env(&["LOG_INCLUDE_TARGET"]),
    key(
        "logging.format",
        choice(&[named_also("human", &["pretty", "text"]), named("json")]),
        "Form of a line.",
    )
    .default("human")
    .env(&["LOG_OUTPUT_FORMAT"])
    .ours(),
    key(
        "logging.level",
        text(shape::LOG_FILTER),
        "Log filter. `SOCKUDO_LOG_DEBUG` sets it in debug mode, `SOCKUDO_LOG_PROD` otherwise; \
         `RUST_LOG` wins over everything.",
    )
    .default("info")
    .derived("info,sockudo=debug in debug mode")
    .env(&["LOG_LEVEL"])
    .ours()
    .reloads(),
];
