//! The server as a whole: where it listens, its mode, its threads.
//!
//! Owns: `Config`, the keys outside any section, and which record has which section.
//! May depend on: the words of `keys::rows`.
//! Invariants: those of `keys`.

use crate::config::keys::rows::*;
use crate::config::settings::Settings;
use crate::config::shape;

use super::{
    Adapter, Admin, Admission, AppManager, Cache, ChannelLimits, Cluster, Cors, Database,
    DatabasePooling, Drain, HttpApi, Logging, Metrics, Net, Queue, RateLimiter, Ssl, UnixSocket,
    Upgrade, Webhooks, Websocket,
};

/// Shard threads of one node.
pub const SHARDS_MAX: u64 = 512;

section! {
    /// The effective configuration: what holds after defaults, file, environment and flags were
    /// merged and checked. Field names mirror the key tree; a unit stands last in a name.
    pub struct Config {
        /// No configuration at all was found: the demo app, on 127.0.0.1 only, with a welcome page.
        demo: bool;
        /// Debug logs, with file and line.
        debug: bool = flag().default("false").env(&["DEBUG_MODE"]);
        /// Addresses to listen on, between commas; `::` is dual stack.
        _ as "host" = text(shape::HOSTS).default("0.0.0.0").derived("127.0.0.1 in demo mode")
            .env(&["HOST"]);
        /// Addresses or names to listen on, without port; an IPv6 address carries no brackets.
        host: Vec<String> => hosts;
        /// Port of WebSocket and HTTP API; 0 = any free port.
        port: u16 = port().default("6001").env(&["PORT"]);
        /// `production` refuses demo credentials off loopback.
        mode: String = text(shape::NOT_EMPTY).default("production").env(&["ENVIRONMENT"]);
        /// Stands before all public routes. Those for WebSockets are there only behind it, all others also without it.
        _ as "path_prefix" = text(shape::URL_PATH).default("/").null_is_absent()
            .env(&["PATH_PREFIX"]);
        /// "" or "/realtime": begins with a slash, never ends with one.
        path_prefix: String => path_prefix;
        /// Bound of the drain; default of `drain.deadline_s`.
        _ as "shutdown_grace_period" = seconds(0).default("10").env(&["SHUTDOWN_GRACE_PERIOD"])
            .reloads();
        /// Closes with 4009 a connection that has neither signed in nor subscribed with
        /// authorisation by then; where the app asks for user authentication.
        user_authentication_timeout_s: u64 as "user_authentication_timeout" = seconds(1)
            .default("3600").env(&["USER_AUTHENTICATION_TIMEOUT"]).reloads();
        /// Silence after which the server pings.
        activity_timeout_s: u64 as "activity_timeout" = seconds(1).default("120")
            .env(&["ACTIVITY_TIMEOUT"]).reloads();
        /// How long `/up` waits for a backend.
        health_check_timeout_ms: u64 = milliseconds(1).default("400").reloads();
        /// Which defaults hold for limits nobody set: the protocol's, or those of Sockudo 2.9,
        /// which left most of them off.
        limits_mode: LimitsMode = choice(LimitsMode::CHOICES).default("pusher").ours().reloads();
        // `None` = as many as the host's cores call for.
        /// Shard threads; auto = physical cores less one for the bridge.
        shards: Option<u16> = auto_or(1, SHARDS_MAX).default("auto").ours();
        // `None` = chosen by the runtime.
        /// Core that runs the bridge.
        bridge_core: Option<u16> = auto_or(0, 4095).default("auto").ours();
        /// Pin threads to cores.
        pin: bool = flag().default("true").ours();
        websocket: Websocket => Websocket::read;
        net: Net => Net::read;
        admission: Admission => Admission::read;
        drain: Drain => Drain::read;
        upgrade: Upgrade => Upgrade::read;
        cluster: Cluster => Cluster::read;
        cors: Cors => Cors::read;
        http_api: HttpApi => HttpApi::read;
        channel_limits: ChannelLimits => ChannelLimits::read;
        metrics: Metrics => Metrics::read;
        admin: Admin => Admin::read;
        webhooks: Webhooks => Webhooks::read;
        rate_limiter: RateLimiter => RateLimiter::read;
        logging: Logging => Logging::read;
        ssl: Ssl => Ssl::read;
        unix_socket: UnixSocket => UnixSocket::read;
        app_manager: AppManager => AppManager::read;
        adapter: Adapter => Adapter::read;
        cache: Cache => Cache::read;
        queue: Queue => Queue::read;
        database: Database => Database::read;
        database_pooling: DatabasePooling => DatabasePooling::read;
    }
}

choices! {
    /// Which defaults hold for a limit that nobody set.
    pub enum LimitsMode {
        /// Those of the Pusher protocol.
        Pusher = "pusher",
        /// Those of Sockudo 2.9, which left most limits off.
        Upstream = "upstream",
    }
}

fn hosts(settings: &Settings) -> Vec<String> {
    let bare = |host: &str| {
        host.trim()
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned()
    };
    settings.text("host").split(',').map(bare).collect()
}

fn path_prefix(settings: &Settings) -> String {
    match settings.text("path_prefix").trim_matches('/') {
        "" => String::new(),
        path => format!("/{path}"),
    }
}
