//! The server's own settings, as plain values made from the configuration.
//!
//! Owns: `Settings`.
//! May depend on: `config`.
//! Invariants: made once per start or reload; a shard has a copy of its own.

use crate::{
    channel::home_table::KeptMax,
    cluster::wire::EVENT_FRAME_BYTES_MAX,
    config::{
        Config,
        sections::{AdapterDriver, Cors, CorsOrigin, ProxyProtocol, RateLimit, SlowConsumer},
    },
    connection::{body::Pace, rules::NodeRules},
    http::cors::{CorsError, CorsPolicy},
    protocol::app::AppIndex,
};

/// What a shard needs to know of the configuration, beside the apps.
#[derive(Clone, Debug)]
pub struct Settings {
    pub connections: NodeRules,
    pub message_bytes_max: u32,
    pub path_prefix: String,
    pub handshake_timeout_ms: u64,
    /// Input of the node that is held for peers which nobody has vouched for.
    pub input_held_bytes: u64,
    /// A request's body must come at this rate; 0 = any.
    pub body_rate_min_bytes_per_s: u32,
    pub slow_consumer: SlowConsumer,
    pub accept_rate_per_s: u32,
    pub accept_burst: u32,
    /// Of the node; 0 = unlimited.
    pub connections_max: u64,
    /// Sockets of the node that the process' open-file limit leaves room for.
    pub sockets_max: u64,
    pub request_bytes_max: u64,
    pub usage_enabled: bool,
    pub kept_ms: u64,
    /// Last events that the node keeps at most.
    pub kept_max: KeptMax,
    /// False with `cache.driver = none`: cache channels always miss.
    pub keeps_events: bool,
    /// The bridge writes last events into a cache that other nodes share, and reads them there.
    pub shares_events: bool,
    /// The bridge counts rates together with other nodes.
    pub shares_rates: bool,
    /// While it cannot, requests are refused.
    pub denies_uncounted: bool,
    pub grace_ms: u64,
    pub cors: CorsPolicy,
    pub api_limit: Option<RateLimit>,
    pub upgrade_limit: Option<RateLimit>,
    pub trusted_proxies: Vec<ipnet::IpNet>,
    pub proxy_protocol: ProxyProtocol,
    /// All connections are TLS.
    pub speaks_tls: bool,
    /// Proxies in front of a WebSocket, whether its address is limited or not.
    pub upgrade_trust_hops: u32,
    /// The welcome page is served, for this app.
    pub demo: Option<AppIndex>,
    /// Peer addresses matter: a limiter or the welcome page looks at them.
    pub wants_peers: bool,
    pub node: String,
    /// Other nodes are spoken with.
    pub has_bus: bool,
    /// Apps that are not known may be in a store, which the bridge asks.
    pub asks_for_apps: bool,
    /// Silence after which another node is taken for dead.
    pub lease_ms: u64,
}

impl Settings {
    /// The settings that a configuration means.
    ///
    /// # Errors
    /// A CORS value cannot stand in a header.
    pub fn from_config(config: &Config, node: String, sockets_max: u64) -> Result<Self, CorsError> {
        use crate::config::sections::AppStoreDriver;
        use crate::config::sections::CacheDriver;
        use crate::config::sections::OnError;
        let limiter = &config.rate_limiter;
        let api_limit = limiter.enabled.then(|| limiter.api.clone());
        let upgrade_limit = limiter.websocket.clone();
        let asks_for_apps = config.app_manager.driver != AppStoreDriver::Memory;
        Ok(Self {
            connections: NodeRules {
                activity_timeout_ms: config.activity_timeout_s * 1_000,
                authorize_within_ms: config.user_authentication_timeout_s * 1_000,
                requires_protocol: config.websocket.require_protocol,
                memberships_per_s: config.net.subscribe_rate_per_s,
                memberships_burst: config.net.subscribe_burst,
                limits_connections: config.admission.max_connections > 0,
                message_within_ms: Pace {
                    grace_ms: config.activity_timeout_s * 1_000,
                    bytes_per_s_min: config.net.body_rate_min_bytes_per_s,
                }
                .within_ms(config.websocket.max_payload_bytes.into()),
                age_max_ms: u64::from(config.net.connection_age_max_s) * 1_000,
                frame_bytes_max: frame_bytes_max(config),
            },
            message_bytes_max: config.websocket.max_payload_bytes,
            path_prefix: config.path_prefix.clone(),
            handshake_timeout_ms: u64::from(config.net.handshake_timeout_ms),
            body_rate_min_bytes_per_s: config.net.body_rate_min_bytes_per_s,
            input_held_bytes: config.net.input_held_bytes,
            slow_consumer: config.net.slow_consumer,
            accept_rate_per_s: config.admission.accept_rate_per_s,
            accept_burst: config.admission.accept_burst,
            connections_max: config.admission.max_connections,
            sockets_max,
            request_bytes_max: config.http_api.request_bytes_max,
            usage_enabled: config.http_api.usage_enabled,
            kept_ms: config.channel_limits.cache_ttl_s.saturating_mul(1_000),
            kept_max: KeptMax {
                events: usize::try_from(config.cache.memory.max_capacity).unwrap_or(usize::MAX),
                bytes: usize::try_from(config.cache.memory.max_bytes).unwrap_or(usize::MAX),
            },
            keeps_events: config.cache.driver != CacheDriver::None,
            shares_events: config.cache.driver.is_shared(),
            shares_rates: limiter.is_on() && limiter.driver.is_shared(),
            denies_uncounted: limiter.on_error == OnError::Deny,
            grace_ms: config.webhooks.grace_ms,
            cors: cors_of(&config.cors)?,
            upgrade_trust_hops: limiter.upgrade_trust_hops,
            speaks_tls: config.ssl.enabled,
            wants_peers: limiter.upgrade_trust_hops > 0
                || api_limit.is_some()
                || upgrade_limit.is_some()
                || config.unix_socket.enabled
                || config.demo
                || asks_for_apps,
            api_limit,
            upgrade_limit,
            trusted_proxies: limiter.trusted_proxies.clone(),
            proxy_protocol: config.net.proxy_protocol,
            demo: config.demo.then_some(AppIndex(0)),
            lease_ms: config.cluster.lease_ms.into(),
            has_bus: has_bus(config),
            asks_for_apps,
            node,
        })
    }
}

fn has_bus(config: &Config) -> bool {
    config.adapter.driver != AdapterDriver::Local
}

/// Of an event as subscribers get it.
fn frame_bytes_max(config: &Config) -> usize {
    match has_bus(config) {
        true => EVENT_FRAME_BYTES_MAX,
        false => usize::MAX,
    }
}

fn cors_of(cors: &Cors) -> Result<CorsPolicy, CorsError> {
    let origins = match &cors.origin {
        CorsOrigin::Any => vec!["*".to_owned()],
        CorsOrigin::Listed(list) => list.clone(),
    };
    CorsPolicy::new(
        &origins,
        &cors.methods,
        &cors.allowed_headers,
        cors.credentials,
    )
}
