//! From settled settings to the records of `Config`.
//!
//! Owns: which key fills which field of the server's own sections, and units.
//! May depend on: `settings`, `sections`.
//! Invariants: runs only after every check passed, so what does not fit here is our bug.

mod app;
mod backends;

use super::Config;
use super::app::App;
use super::checks::{APPS, DEMO_FORMER_ID};
use super::sections::{
    Admission, AppManager, AppStoreDriver, ChannelLimits, Cluster, Cors, CorsOrigin, Drain,
    HttpApi, LimitsMode, LogFormat, Logging, Metrics, Net, OnError, RateLimit, RateLimiter,
    RateLimiterDriver, Replication, Retry, Seed, SlowConsumer, Ssl, Targets, UnixSocket, Webhooks,
    Websocket,
};
use super::settings::Settings;

pub(super) fn config(s: &Settings, demo: bool) -> Config {
    Config {
        demo,
        debug: s.flag("debug"),
        host: hosts(s.text("host")),
        port: s.u16("port"),
        mode: s.text("mode").to_owned(),
        path_prefix: path_prefix(s.text("path_prefix")),
        activity_timeout_s: s.u64("activity_timeout"),
        user_authentication_timeout_s: s.u64("user_authentication_timeout"),
        health_check_timeout_ms: s.u64("health_check_timeout_ms"),
        limits_mode: chosen(
            s,
            "limits_mode",
            &[
                ("pusher", LimitsMode::Pusher),
                ("upstream", LimitsMode::Upstream),
            ],
        ),
        shards: s.optional_u16("shards"),
        bridge_core: s.optional_u16("bridge_core"),
        pin: s.flag("pin"),
        websocket: Websocket {
            max_payload_bytes: s.u32("websocket.max_payload_kb"),
            require_protocol: s.flag("websocket.require_protocol"),
        },
        net: net(s),
        admission: Admission {
            accept_rate_per_s: s.u32("admission.accept_rate_per_s"),
            accept_burst: s.u32("admission.accept_burst"),
            max_connections: s.u64("admission.max_connections"),
        },
        drain: Drain {
            deadline_s: s.u32("drain.deadline_s"),
            rate_per_s: s.u32("drain.rate_per_s"),
            lb_wait_s: s.u32("drain.lb_wait_s"),
        },
        cluster: cluster(s),
        cors: cors(s),
        http_api: HttpApi {
            request_bytes_max: s.u64("http_api.request_limit_in_mb") << 20,
            memory_threshold: s.fraction("http_api.accept_traffic.memory_threshold"),
            usage_enabled: s.flag("http_api.usage_enabled"),
        },
        channel_limits: ChannelLimits {
            cache_ttl_s: s.u64("channel_limits.cache_ttl"),
        },
        metrics: metrics(s),
        webhooks: webhooks(s),
        rate_limiter: rate_limiter(s),
        logging: logging(s),
        ssl: ssl(s),
        unix_socket: UnixSocket {
            enabled: s.flag("unix_socket.enabled"),
            path: s.text("unix_socket.path").to_owned(),
            permission_mode: s.mode("unix_socket.permission_mode"),
            also_tcp: s.flag("unix_socket.also_tcp"),
        },
        app_manager: app_manager(s, demo),
        adapter: backends::adapter(s),
        cache: backends::cache(s),
        queue: backends::queue(s),
        database: backends::database(s),
        database_pooling: crate::config::backends::DatabasePooling {
            enabled: s.flag("database_pooling.enabled"),
            min: s.u32("database_pooling.min"),
            max: s.u32("database_pooling.max"),
        },
    }
}

/// The value that stands for the chosen name.
fn chosen<T: Copy>(s: &Settings, path: &str, meanings: &[(&str, T)]) -> T {
    let name = s.text(path);
    let meaning = meanings.iter().find(|(meant, _)| *meant == name);
    meaning
        .unwrap_or_else(|| panic!("{path} = {name:?} has a meaning"))
        .1
}

fn hosts(text: &str) -> Vec<String> {
    let bare = |host: &str| {
        host.trim()
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned()
    };
    text.split(',').map(bare).collect()
}

fn path_prefix(text: &str) -> String {
    match text.trim_matches('/') {
        "" => String::new(),
        path => format!("/{path}"),
    }
}

fn net(s: &Settings) -> Net {
    Net {
        send_queue_bytes: s.u32("net.send_queue_bytes"),
        burst_queue_bytes: s.u32("net.burst_queue_bytes"),
        slow_consumer: chosen(
            s,
            "net.slow_consumer",
            &[
                ("disconnect", SlowConsumer::Disconnect),
                ("drop_newest", SlowConsumer::DropNewest),
                ("drop_oldest", SlowConsumer::DropOldest),
            ],
        ),
        recv_buffers: s.optional_u32("net.recv_buffers"),
        recv_buffer_bytes: s.u32("net.recv_buffer_bytes"),
        busy_poll_us: s.u32("net.busy_poll_us"),
        backlog: s.u32("net.backlog"),
        handshake_timeout_ms: s.u32("net.handshake_timeout_ms"),
        body_rate_min_bytes_per_s: s.u32("net.body_rate_min_bytes_per_s"),
        input_held_bytes: s.u64("net.input_held_bytes"),
        subscribe_rate_per_s: s.u32("net.subscribe_rate_per_s"),
        subscribe_burst: s.u32("net.subscribe_burst"),
    }
}

fn cluster(s: &Settings) -> Cluster {
    Cluster {
        node_id: s.optional_text("cluster.node_id"),
        lease_ms: s.u32("cluster.lease_ms"),
        heartbeat_ms: s.u32("cluster.heartbeat_ms"),
        canary_ms: s.u32("cluster.canary_ms"),
        linger_ms: s.u32("cluster.linger_ms"),
        replication: chosen(
            s,
            "cluster.replication",
            &[("full", Replication::Full), ("owned", Replication::Owned)],
        ),
    }
}

fn cors(s: &Settings) -> Cors {
    let listed = s.texts("cors.origin");
    let is_any = listed
        .iter()
        .any(|origin| origin == "*" || origin.eq_ignore_ascii_case("any"));
    let origin = if is_any {
        CorsOrigin::Any
    } else {
        CorsOrigin::Listed(listed.to_vec())
    };
    Cors {
        credentials: s.flag("cors.credentials") && !is_any && !listed.is_empty(),
        origin,
        methods: s.texts("cors.methods").to_vec(),
        allowed_headers: s.texts("cors.allowed_headers").to_vec(),
    }
}

fn metrics(s: &Settings) -> Metrics {
    Metrics {
        enabled: s.flag("metrics.enabled"),
        host: s.text("metrics.host").to_owned(),
        port: s.u16("metrics.port"),
        prefix: s.text("metrics.prometheus.prefix").to_owned(),
        required: s.flag("metrics.required"),
        max_apps: s.u32("metrics.max_apps"),
    }
}

fn webhooks(s: &Settings) -> Webhooks {
    Webhooks {
        batching_enabled: s.flag("webhooks.batching.enabled"),
        batching_ms: s.u64("webhooks.batching.duration"),
        batching_size: s.u32("webhooks.batching.size"),
        grace_ms: s.u64("webhooks.grace_ms"),
        queue_bytes: s.u64("webhooks.queue_bytes"),
        shard_queue_bytes: s.u32("webhooks.shard_queue_bytes"),
        retry: Retry {
            attempts: s.u32("webhooks.retry.attempts"),
            backoff_ms: s.u64("webhooks.retry.backoff_ms"),
            backoff_max_ms: s.u64("webhooks.retry.backoff_max_ms"),
            max_age_s: s.u64("webhooks.retry.max_age_s"),
        },
        targets: Targets {
            deny: s.cidrs("webhooks.targets.deny"),
            allow: s.cidrs("webhooks.targets.allow"),
        },
    }
}

fn rate_limiter(s: &Settings) -> RateLimiter {
    let limit = |section: &str| RateLimit {
        max_requests: s.u32(&format!("rate_limiter.{section}.max_requests")),
        window_s: s.u64(&format!("rate_limiter.{section}.window_seconds")),
        trust_hops: s.u32(&format!("rate_limiter.{section}.trust_hops")),
    };
    let has_websocket = !s.is_null("rate_limiter.websocket_rate_limit.max_requests");
    let driver = chosen(
        s,
        "rate_limiter.driver",
        &[
            ("memory", RateLimiterDriver::Memory),
            ("redis", RateLimiterDriver::Redis),
            ("redis-cluster", RateLimiterDriver::RedisCluster),
            ("none", RateLimiterDriver::None),
        ],
    );
    RateLimiter {
        enabled: s.flag("rate_limiter.enabled") && driver != RateLimiterDriver::None,
        driver,
        api: limit("api_rate_limit"),
        upgrade_trust_hops: s
            .u32("rate_limiter.websocket_rate_limit.trust_hops")
            .max(s.u32("rate_limiter.api_rate_limit.trust_hops")),
        websocket: has_websocket.then(|| limit("websocket_rate_limit")),
        trusted_proxies: s.cidrs("rate_limiter.trusted_proxies"),
        on_error: chosen(
            s,
            "rate_limiter.on_error",
            &[("deny", OnError::Deny), ("allow", OnError::Allow)],
        ),
        redis: backends::redis_component(s, "rate_limiter.redis"),
    }
}

fn logging(s: &Settings) -> Logging {
    Logging {
        format: chosen(
            s,
            "logging.format",
            &[("human", LogFormat::Human), ("json", LogFormat::Json)],
        ),
        level: s.text("logging.level").to_owned(),
        colors_enabled: (!s.is_null("logging.colors_enabled"))
            .then(|| s.flag("logging.colors_enabled")),
        include_target: s.flag("logging.include_target"),
    }
}

fn ssl(s: &Settings) -> Ssl {
    Ssl {
        enabled: s.flag("ssl.enabled"),
        cert_path: s.text("ssl.cert_path").to_owned(),
        key_path: s.text("ssl.key_path").to_owned(),
        passphrase: s.optional_secret("ssl.passphrase"),
        ca_path: s.optional_text("ssl.ca_path"),
        redirect_http: s.flag("ssl.redirect_http"),
        http_port: s.optional_u16("ssl.http_port"),
    }
}

fn app_manager(s: &Settings, demo: bool) -> AppManager {
    let mut apps: Vec<App> = s.records(APPS).iter().map(app::app).collect();
    if let (true, [demo_app]) = (demo, &mut apps[..]) {
        demo_app.former_id = Some(DEMO_FORMER_ID);
    }
    AppManager {
        driver: chosen(
            s,
            "app_manager.driver",
            &[
                ("memory", AppStoreDriver::Memory),
                ("mysql", AppStoreDriver::Mysql),
                ("dynamodb", AppStoreDriver::Dynamodb),
                ("pgsql", AppStoreDriver::Pgsql),
                ("scylladb", AppStoreDriver::Scylladb),
            ],
        ),
        apps,
        cache_enabled: s.flag("app_manager.cache.enabled"),
        cache_ttl_s: s.u64("app_manager.cache.ttl"),
        negative_ttl_s: s.u64("app_manager.negative_ttl"),
        seed: chosen(
            s,
            "app_manager.seed",
            &[
                ("never", Seed::Never),
                ("if_missing", Seed::IfMissing),
                ("overwrite", Seed::Overwrite),
            ],
        ),
        create_schema: s.flag("app_manager.create_schema"),
    }
}
