//! Connections: what one may hold, how many there may be, how they are closed.
//!
//! Owns: `websocket`, `net`, `admission`, `drain`, `upgrade`.
//! May depend on: the words of `keys::rows`.
//! Invariants: those of `keys`.

use crate::config::keys::rows::*;

section! {
    pub struct Websocket in "websocket" {
        /// Largest message in; a larger one closes with 1009.
        max_payload_bytes: u32 as "max_payload_kb" = kilobytes().default("64")
            .env(&["WEBSOCKET_MAX_PAYLOAD_KB"]).ours().reloads();
        /// Refuse (4008) clients that send no `protocol` parameter, instead of assuming 7.
        require_protocol: bool = flag().default("false").ours().reloads();
    }
}

section! {
    pub struct Net in "net" {
        /// Bound of one connection's outbox; at least twice the largest message.
        send_queue_bytes: u32 = whole(4096, GIBIBYTE, "bytes").default("1048576")
            .derived("raised to twice the largest message").ours();
        /// What one connection's outbox may hold for a moment while the kernel still takes bytes;
        /// beyond `net.send_queue_bytes` a consumer is slow only when it took nothing for a second.
        burst_queue_bytes: u32 = whole(4096, GIBIBYTE, "bytes").default("8388608")
            .derived("raised to net.send_queue_bytes").ours();
        /// What happens when the outbox is full. Only events are dropped, never replies.
        slow_consumer: SlowConsumer = choice(SlowConsumer::CHOICES).default("disconnect").ours()
            .reloads();
        // `None` = chosen by the runtime.
        /// Receive buffers per shard, a power of two.
        recv_buffers: Option<u32> = auto_or(1, 32_768).default("auto").ours();
        /// Size of one receive buffer.
        recv_buffer_bytes: u32 = whole(256, 1 << 20, "bytes").default("4096").ours();
        /// Spin so long before parking.
        busy_poll_us: u32 = whole(0, 1_000_000, "microseconds").default("0").ours();
        /// Listen backlog.
        backlog: u32 = whole(1, 65_535, "").default("4096").ours();
        /// `v1v2`: a connection from `rate_limiter.trusted_proxies` begins with a PROXY header, and
        /// who it names counts as the peer; no other may send one.
        proxy_protocol: ProxyProtocol = choice(ProxyProtocol::CHOICES).default("off").ours()
            .reloads();
        /// A WebSocket connection that has lasted so long is closed with 4200, at some moment within
        /// a tenth of it more. 0 = never.
        connection_age_max_s: u32 = seconds(0).default("0").ours().reloads();
        /// From accept to the whole head of a request.
        handshake_timeout_ms: u32 = milliseconds(1).default("10000").ours().reloads();
        /// After `net.handshake_timeout_ms` a request's body must have come at this rate at least,
        /// and after `activity_timeout` a WebSocket message of the largest size; 0 = any rate,
        /// within an hour.
        body_rate_min_bytes_per_s: u32 = whole(0, GIBIBYTE, "bytes").default("16384").ours()
            .reloads();
        /// Bytes of requests that the node holds for peers that have not shown who they are.
        input_held_bytes: u64 = whole(1 << 20, 64 * GIBIBYTE, "bytes").default("67108864").ours()
            .reloads();
        /// Subscribes, unsubscribes and sign-ins of one connection per second; beyond it its input
        /// waits, nothing is refused. 0 = no limit.
        subscribe_rate_per_s: u32 = whole(0, 1_000_000, "").default("500").ours().reloads();
        /// So many of them at once.
        subscribe_burst: u32 = whole(1, 1_000_000, "").default("1000").ours().reloads();
    }
}

choices! {
    /// What happens to a connection whose outbox is full.
    pub enum SlowConsumer {
        Disconnect = "disconnect",
        DropNewest = "drop_newest",
        DropOldest = "drop_oldest",
    }
}

choices! {
    /// How a proxy says whose connection it passes on.
    pub enum ProxyProtocol {
        Off = "off",
        V1V2 = "v1v2",
    }
}

section! {
    pub struct Admission in "admission" {
        /// New connections per second; 0 = no limit.
        accept_rate_per_s: u32 = count(0).default("0").ours().reloads();
        /// New connections at once.
        accept_burst: u32 = count(0).derived("admission.accept_rate_per_s").ours().reloads();
        /// Connections of the node; 0 = as many as file descriptors allow.
        max_connections: u64 = whole(0, u64::MAX, "").default("0")
            .env(&["SOCKUDO_MAX_CONNECTIONS"]).ours().reloads();
    }
}

section! {
    pub struct Drain in "drain" {
        /// The process has ended by then.
        deadline_s: u32 = whole(0, 86_400, "seconds").ours().reloads()
            .derived("shutdown_grace_period, and drain.lb_wait_s where only that is set");
        /// Closes per second; 0 = spread over the deadline.
        rate_per_s: u32 = count(0).default("0").ours().reloads();
        /// Unready but serving, before closing starts.
        lb_wait_s: u32 = whole(0, 86_400, "seconds").default("0").ours().reloads();
    }
}

section! {
    pub struct Upgrade in "upgrade" {
        /// The process that is to take over is ready by then, or is given up.
        ready_within_s: u32 = whole(1, 3_600, "seconds").default("60").ours().reloads();
    }
}
