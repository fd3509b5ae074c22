//! Limits by client address.
//!
//! Owns: `rate_limiter`.
//! May depend on: the words of `keys::rows`.
//! Invariants: those of `keys`.

use ipnet::IpNet;

use crate::config::Secret;
use crate::config::keys::rows::*;
use crate::config::settings::Settings;
use crate::config::shape;

section! {
    pub struct RateLimiter in "rate_limiter" {
        /// Limit requests of the HTTP API, and new connections where set, per client address; false: neither.
        _ as "enabled" = flag().default("false").upstream("true")
            .derived("true where the API's number or window is set").env(&["RATE_LIMITER_ENABLED"])
            .reloads();
        enabled: bool => enabled;
        /// Where counts are kept; `none` = no limits.
        driver: RateLimiterDriver = choice(RateLimiterDriver::CHOICES).default("memory")
            .env(&["RATE_LIMITER_DRIVER"]).matters_with("rate_limiter.enabled");
        /// Requests per address and window.
        _ as "api_rate_limit.max_requests" = count(1).default("100")
            .env(&["RATE_LIMITER_API_MAX_REQUESTS"]).reloads();
        /// The window, sliding.
        _ as "api_rate_limit.window_seconds" = seconds(1).default("60")
            .env(&["RATE_LIMITER_API_WINDOW_SECONDS"]).reloads();
        /// A name.
        _ as "api_rate_limit.identifier" = text(shape::ANY).default("api").nullable()
            .no_effect("nothing is named by it");
        /// Proxies in front whose `X-Forwarded-For` and `X-Forwarded-Proto` count; 0 = none.
        _ as "api_rate_limit.trust_hops" = whole(0, 32, "").default("0").null_is_absent()
            .env(&["RATE_LIMITER_API_TRUST_HOPS"]).reloads();
        api: RateLimit => api;
        /// New connections per address and window; off unless this or the window is set, which need no `enabled`.
        _ as "websocket_rate_limit.max_requests" = count(1).derived("20 where the window is set")
            .env(&["RATE_LIMITER_WS_MAX_REQUESTS"]).reloads();
        /// The window, sliding.
        _ as "websocket_rate_limit.window_seconds" = seconds(1)
            .derived("60 where the number is set").env(&["RATE_LIMITER_WS_WINDOW_SECONDS"])
            .reloads();
        /// A name.
        _ as "websocket_rate_limit.identifier" = text(shape::ANY).default("websocket_connect")
            .nullable().no_effect("nothing is named by it");
        /// As for the API's limit.
        _ as "websocket_rate_limit.trust_hops" = whole(0, 32, "").default("0").null_is_absent()
            .reloads();
        /// `Some` only when file or environment set it: 20 a minute would break an office behind NAT. It needs no `enabled`,
        /// unless that is set.
        websocket: Option<RateLimit> => websocket;
        /// Proxies in front, of whichever limit names more; also where no limit is on.
        upgrade_trust_hops: u32 => upgrade_trust_hops;
        /// Prefix of the limiter's keys.
        _ as "redis.prefix" = text(shape::ANY).default("sockudo_rl:").nullable()
            .derived("database.redis.key_prefix and `rl_http:` where null")
            .env(&["RATE_LIMITER_REDIS_PREFIX"]);
        /// Redis of the limiter.
        _ as "redis.url_override" = url().env(&["EXTERNAL_REDIS_URL", "REDIS_URL"]);
        /// Same as driver `redis-cluster`.
        _ as "redis.cluster_mode" = flag().default("false");
        redis: LimiterRedis => LimiterRedis::read;
        /// Peers whose forwarding headers count; empty = all, as far as `trust_hops` says. They send
        /// PROXY headers where `net.proxy_protocol` asks for them.
        trusted_proxies: Vec<IpNet> = cidrs().default("").ours().reloads();
        /// While shared counts cannot be reached: each node counts for itself, or 500.
        on_error: OnError = choice(OnError::CHOICES).default("allow").ours().reloads();
    }
}

impl RateLimiter {
    /// Something is limited by address.
    pub const fn is_on(&self) -> bool {
        self.enabled || self.websocket.is_some()
    }
}

choices! {
    pub enum RateLimiterDriver {
        Memory = "memory",
        Redis = "redis",
        RedisCluster = "redis-cluster" | "redis_cluster",
        None = "none",
    }
}

impl RateLimiterDriver {
    /// Nodes count together there.
    pub const fn is_shared(self) -> bool {
        matches!(self, Self::Redis | Self::RedisCluster)
    }
}

choices! {
    pub enum OnError {
        Deny = "deny",
        Allow = "allow",
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimit {
    pub max_requests: u32,
    pub window_s: u64,
    /// Forwarding hops that are trusted; 0 = the peer's address counts.
    pub trust_hops: u32,
}

#[derive(Clone, Debug)]
pub struct LimiterRedis {
    pub prefix: String,
    pub url_override: Option<Secret>,
}

fn enabled(settings: &Settings) -> bool {
    settings.flag("rate_limiter.enabled") && settings.text("rate_limiter.driver") != "none"
}

fn api(settings: &Settings) -> RateLimit {
    RateLimit {
        max_requests: settings.get("rate_limiter.api_rate_limit.max_requests"),
        window_s: settings.get("rate_limiter.api_rate_limit.window_seconds"),
        trust_hops: settings.get("rate_limiter.api_rate_limit.trust_hops"),
    }
}

/// New connections are limited, with or without the API.
pub(in crate::config) fn limits_upgrades(settings: &Settings) -> bool {
    let switch = "rate_limiter.enabled";
    let is_off = settings.is_said(switch) && !settings.flag(switch);
    let is_set = !settings.is_null("rate_limiter.websocket_rate_limit.max_requests");
    is_set && !is_off && settings.text("rate_limiter.driver") != "none"
}

fn websocket(settings: &Settings) -> Option<RateLimit> {
    if !limits_upgrades(settings) {
        return None;
    }
    let max_requests: Option<u32> = settings.get("rate_limiter.websocket_rate_limit.max_requests");
    max_requests.map(|max_requests| RateLimit {
        max_requests,
        window_s: settings.get("rate_limiter.websocket_rate_limit.window_seconds"),
        trust_hops: settings.get("rate_limiter.websocket_rate_limit.trust_hops"),
    })
}

fn upgrade_trust_hops(settings: &Settings) -> u32 {
    let websocket: u32 = settings.get("rate_limiter.websocket_rate_limit.trust_hops");
    websocket.max(api(settings).trust_hops)
}

impl LimiterRedis {
    fn read(settings: &Settings) -> Self {
        Self {
            prefix: settings.get("rate_limiter.redis.prefix"),
            url_override: settings.get("rate_limiter.redis.url_override"),
        }
    }
}
