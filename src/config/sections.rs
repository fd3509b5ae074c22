//! The sections of a `Config` that concern this process: listening, limits, logs, webhooks.
//!
//! Owns: plain records and their enums; no parsing and no checks.
//! May depend on: `app`, `secret`, `ipnet`.
//! Invariants: none of its own; `load` alone builds these, after every check passed.

use ipnet::IpNet;

use super::app::App;
use super::secret::Secret;

/// Which defaults hold for a limit that nobody set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitsMode {
    /// Those of the Pusher protocol.
    Pusher,
    /// Those of Sockudo 2.9, which left most limits off.
    Upstream,
}

#[derive(Clone, Debug)]
pub struct Websocket {
    /// Largest message in, in bytes; a larger one closes with 1009.
    pub max_payload_bytes: u32,
    pub require_protocol: bool,
}

#[derive(Clone, Debug)]
pub struct Net {
    /// Bound of one connection's outbox; at least twice the largest message.
    pub send_queue_bytes: u32,
    /// What an outbox may hold while the kernel still takes bytes; at least `send_queue_bytes`.
    pub burst_queue_bytes: u32,
    pub slow_consumer: SlowConsumer,
    /// Per shard; `None` = chosen by the runtime. A power of two.
    pub recv_buffers: Option<u32>,
    pub recv_buffer_bytes: u32,
    pub busy_poll_us: u32,
    pub backlog: u32,
    pub handshake_timeout_ms: u32,
    /// Slowest body after `handshake_timeout_ms`; 0 = any.
    pub body_rate_min_bytes_per_s: u32,
    /// Bytes of requests that the node holds for peers that are not authenticated.
    pub input_held_bytes: u64,
    /// Subscribes and unsubscribes of one connection; 0 = any number.
    pub subscribe_rate_per_s: u32,
    /// So many of them at once, at least 1.
    pub subscribe_burst: u32,
}

/// What happens to a connection whose outbox is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlowConsumer {
    Disconnect,
    DropNewest,
    DropOldest,
}

#[derive(Clone, Debug)]
pub struct Admission {
    /// New connections per second and node; 0 = no limit.
    pub accept_rate_per_s: u32,
    pub accept_burst: u32,
    /// Connections per node; 0 = as many as file descriptors allow.
    pub max_connections: u64,
}

#[derive(Clone, Debug)]
pub struct Drain {
    pub deadline_s: u32,
    /// Closes per second; 0 = spread over the deadline.
    pub rate_per_s: u32,
    /// Unready but still serving for so long, before closing starts.
    pub lb_wait_s: u32,
}

#[derive(Clone, Debug)]
pub struct Cluster {
    /// `None` = the host's name and a random part.
    pub node_id: Option<String>,
    pub lease_ms: u32,
    pub heartbeat_ms: u32,
    /// 0 = no canary.
    pub canary_ms: u32,
    pub linger_ms: u32,
    pub replication: Replication,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replication {
    Full,
    Owned,
}

#[derive(Clone, Debug)]
pub struct Cors {
    /// Off whenever `origin` is `Any` or lists nothing.
    pub credentials: bool,
    pub origin: CorsOrigin,
    pub methods: Vec<String>,
    pub allowed_headers: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CorsOrigin {
    Any,
    Listed(Vec<String>),
}

#[derive(Clone, Debug)]
pub struct HttpApi {
    /// Largest request body; a larger one is answered 413.
    pub request_bytes_max: u64,
    /// Fraction of the memory, 0..=1, above which new connections are refused.
    pub memory_threshold: f64,
    pub usage_enabled: bool,
}

#[derive(Clone, Debug)]
pub struct ChannelLimits {
    /// How long a cache channel keeps its last event.
    pub cache_ttl_s: u64,
}

#[derive(Clone, Debug)]
pub struct Metrics {
    pub enabled: bool,
    pub host: String,
    /// 0 = any free port.
    pub port: u16,
    /// Put before every metric's name.
    pub prefix: String,
    /// A port that cannot be bound stops the start.
    pub required: bool,
    /// Apps with series of their own; the rest is summed under `app_id="other"`.
    pub max_apps: u32,
}

#[derive(Clone, Debug)]
pub struct Webhooks {
    pub batching_enabled: bool,
    pub batching_ms: u64,
    /// Events of one body at most.
    pub batching_size: u32,
    /// How long `channel_vacated` and `member_removed` wait for a return.
    pub grace_ms: u64,
    /// What may wait for delivery on this node.
    pub queue_bytes: u64,
    /// What may wait on one shard for the bridge.
    pub shard_queue_bytes: u32,
    pub retry: Retry,
    pub targets: Targets,
}

#[derive(Clone, Debug)]
pub struct Retry {
    /// Deliveries tried at most, the first included; 0 = as many as `max_age_s` allows.
    pub attempts: u32,
    pub backoff_ms: u64,
    pub backoff_max_ms: u64,
    pub max_age_s: u64,
}

/// Where webhooks may go: `allow` wins over `deny`.
#[derive(Clone, Debug)]
pub struct Targets {
    pub deny: Vec<IpNet>,
    pub allow: Vec<IpNet>,
}

#[derive(Clone, Debug)]
pub struct RateLimiter {
    pub enabled: bool,
    pub driver: RateLimiterDriver,
    pub api: RateLimit,
    /// `Some` only when file or environment set it: 20 a minute would break an office behind NAT.
    pub websocket: Option<RateLimit>,
    /// Proxies in front, of whichever limit names more; also where no limit is on.
    pub upgrade_trust_hops: u32,
    /// Peers whose forwarding headers count; empty = every peer, as far as `trust_hops` says.
    pub trusted_proxies: Vec<IpNet>,
    pub on_error: OnError,
    pub redis: super::backends::RedisComponent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateLimiterDriver {
    Memory,
    Redis,
    RedisCluster,
    None,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimit {
    pub max_requests: u32,
    pub window_s: u64,
    /// Forwarding hops that are trusted; 0 = the peer's address counts.
    pub trust_hops: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    Allow,
    Deny,
}

#[derive(Clone, Debug)]
pub struct Logging {
    pub format: LogFormat,
    /// A filter as `RUST_LOG` has it; checked.
    pub level: String,
    /// `None` = by whether stdout is a terminal.
    pub colors_enabled: Option<bool>,
    pub include_target: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Human,
    Json,
}

#[derive(Clone, Debug)]
pub struct Ssl {
    pub enabled: bool,
    pub cert_path: String,
    pub key_path: String,
    pub passphrase: Option<Secret>,
    pub ca_path: Option<String>,
    pub redirect_http: bool,
    pub http_port: Option<u16>,
}

#[derive(Clone, Debug)]
pub struct UnixSocket {
    pub enabled: bool,
    pub path: String,
    pub permission_mode: u32,
    pub also_tcp: bool,
}

#[derive(Clone, Debug)]
pub struct AppManager {
    pub driver: AppStoreDriver,
    /// The static apps of file and environment; ids and keys are unique.
    pub apps: Vec<App>,
    pub cache_enabled: bool,
    pub cache_ttl_s: u64,
    /// How long an unknown app stays unknown.
    pub negative_ttl_s: u64,
    pub seed: Seed,
    pub create_schema: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppStoreDriver {
    Memory,
    Mysql,
    Dynamodb,
    Pgsql,
    Scylladb,
}

/// Whether static apps are written to the database at start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seed {
    Never,
    IfMissing,
    Overwrite,
}
