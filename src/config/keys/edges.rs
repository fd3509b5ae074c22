//! Keys of what faces clients and operators: apps, CORS, HTTP API, rate limits, metrics, TLS.
//!
//! Owns: rows of the table. Longer than a screen because it is a list.
//! May depend on: the builders of `keys`.
//! Invariants: those of `keys`.

use super::app::APP;
use super::{Key, choice, count, key, named, named_also, port, seconds, text, whole};
use crate::config::kind::Kind;
use crate::config::shape;

pub(super) const APP_KEYS: &[Key] = &[
    key(
        "app_manager.driver",
        choice(&[
            named_also("memory", &["array"]),
            named("mysql"),
            named("dynamodb"),
            named_also("pgsql", &["postgres", "postgresql"]),
            named_also("scylladb", &["scylla"]),
        ]),
        "Where apps are kept.",
    )
    .default("memory")
    .env(&["APP_MANAGER_DRIVER"]),
    key(
        "app_manager.array.apps",
        Kind::Records(&APP),
        "Static apps; see the keys of an app.",
    )
    .default("")
    .reloads(),
    key(
        "app_manager.cache.enabled",
        Kind::Flag,
        "Keep apps of a database in memory.",
    )
    .default("true")
    .env(&["APP_MANAGER_CACHE_ENABLED"]),
    key("app_manager.cache.ttl", seconds(0), "How long.")
        .default("300")
        .env(&["APP_MANAGER_CACHE_TTL", "CACHE_TTL_SECONDS"]),
    key(
        "app_manager.negative_ttl",
        seconds(0),
        "How long an unknown app stays unknown.",
    )
    .derived("app_manager.cache.ttl, 10 at most")
    .ours(),
    key(
        "app_manager.seed",
        choice(&[named("never"), named("if_missing"), named("overwrite")]),
        "Whether static apps are written to the database at start.",
    )
    .default("never")
    .ours(),
    key(
        "app_manager.create_schema",
        Kind::Flag,
        "Create or alter the database's table at start.",
    )
    .default("false")
    .ours(),
];

pub(super) const KEYS: &[Key] = &[
    key(
        "cors.credentials",
        Kind::Flag,
        "Allow credentials; off whenever every origin is allowed.",
    )
    .default("true")
    .env(&["CORS_CREDENTIALS"])
    .reloads(),
    key(
        "cors.origin",
        Kind::Texts(shape::HEADER_VALUE),
        "Allowed origins; `*` = every.",
    )
    .default("*")
    .env(&["CORS_ORIGINS"])
    .reloads(),
    key(
        "cors.methods",
        Kind::Texts(shape::TOKEN),
        "Allowed methods.",
    )
    .default("GET,POST,OPTIONS")
    .env(&["CORS_METHODS"])
    .reloads(),
    key(
        "cors.allowed_headers",
        Kind::Texts(shape::TOKEN),
        "Allowed request headers.",
    )
    .default("Authorization,Content-Type,X-Requested-With,Accept")
    .env(&["CORS_HEADERS"])
    .reloads(),
    key(
        "http_api.request_limit_in_mb",
        whole(1, 1024, "megabytes"),
        "Largest body; else 413.",
    )
    .default("10")
    .env(&["HTTP_REQUEST_LIMIT_MB"])
    .reloads(),
    key(
        "http_api.accept_traffic.memory_threshold",
        Kind::Fraction,
        "Memory use above which new connections get 4100.",
    )
    .default("0.9")
    .env(&["HTTP_ACCEPT_TRAFFIC_MEMORY_THRESHOLD"])
    .reloads(),
    key("http_api.usage_enabled", Kind::Flag, "Offer `/usage`.")
        .default("true")
        .ours()
        .reloads(),
    key(
        "rate_limiter.enabled",
        Kind::Flag,
        "Limit requests of the HTTP API, and new connections where set, per client address.",
    )
    .default("false")
    .upstream("true")
    .env(&["RATE_LIMITER_ENABLED"])
    .reloads(),
    key(
        "rate_limiter.driver",
        choice(&[
            named("memory"),
            named("redis"),
            named_also("redis-cluster", &["redis_cluster"]),
            named("none"),
        ]),
        "Where counts are kept; `none` = no limits.",
    )
    .default("memory")
    .env(&["RATE_LIMITER_DRIVER"]),
    key(
        "rate_limiter.api_rate_limit.max_requests",
        count(1),
        "Requests per address and window.",
    )
    .default("100")
    .env(&["RATE_LIMITER_API_MAX_REQUESTS"])
    .reloads(),
    key(
        "rate_limiter.api_rate_limit.window_seconds",
        seconds(1),
        "The window, sliding.",
    )
    .default("60")
    .env(&["RATE_LIMITER_API_WINDOW_SECONDS"])
    .reloads(),
    key(
        "rate_limiter.api_rate_limit.identifier",
        text(shape::ANY),
        "A name.",
    )
    .default("api")
    .nullable()
    .no_effect("nothing is named by it"),
    key(
        "rate_limiter.api_rate_limit.trust_hops",
        whole(0, 32, ""),
        "Proxies in front whose `X-Forwarded-For` and `X-Forwarded-Proto` count; 0 = none.",
    )
    .default("0")
    .null_is_absent()
    .env(&["RATE_LIMITER_API_TRUST_HOPS"])
    .reloads(),
    key(
        "rate_limiter.websocket_rate_limit.max_requests",
        count(1),
        "New connections per address and window; off unless this or the window is set.",
    )
    .derived("20 where the window is set")
    .env(&["RATE_LIMITER_WS_MAX_REQUESTS"])
    .reloads(),
    key(
        "rate_limiter.websocket_rate_limit.window_seconds",
        seconds(1),
        "The window, sliding.",
    )
    .derived("60 where the number is set")
    .env(&["RATE_LIMITER_WS_WINDOW_SECONDS"])
    .reloads(),
    key(
        "rate_limiter.websocket_rate_limit.identifier",
        text(shape::ANY),
        "A name.",
    )
    .default("websocket_connect")
    .nullable()
    .no_effect("nothing is named by it"),
    key(
        "rate_limiter.websocket_rate_limit.trust_hops",
        whole(0, 32, ""),
        "As for the API's limit.",
    )
    .default("0")
    .null_is_absent()
    .reloads(),
    key(
        "rate_limiter.redis.prefix",
        text(shape::ANY),
        "Prefix of the limiter's keys.",
    )
    .default("sockudo_rl:")
    .nullable()
    .derived("database.redis.key_prefix and `rl_http:` where null")
    .env(&["RATE_LIMITER_REDIS_PREFIX"]),
    key(
        "rate_limiter.redis.url_override",
        Kind::Url,
        "Redis of the limiter.",
    )
    .env(&["EXTERNAL_REDIS_URL", "REDIS_URL"]),
    key(
        "rate_limiter.redis.cluster_mode",
        Kind::Flag,
        "Same as driver `redis-cluster`.",
    )
    .default("false"),
    key(
        "rate_limiter.trusted_proxies",
        Kind::Cidrs,
        "Peers whose forwarding headers count; empty = all, as far as `trust_hops` says.",
    )
    .default("")
    .ours()
    .reloads(),
    key(
        "rate_limiter.on_error",
        choice(&[named("deny"), named("allow")]),
        "What a request gets while counts cannot be reached: 500, or through.",
    )
    .default("deny")
    .ours()
    .reloads(),
    key(
        "metrics.enabled",
        Kind::Flag,
        "A listener of its own for `/metrics`.",
    )
    .default("true")
    .env(&["METRICS_ENABLED"]),
    key(
        "metrics.driver",
        choice(&[named("prometheus")]),
        "Form of the metrics.",
    )
    .default("prometheus")
    .env(&["METRICS_DRIVER"]),
    key("metrics.host", text(shape::HOSTS), "Address to listen on.")
        .default("0.0.0.0")
        .derived("127.0.0.1 in demo mode")
        .env(&["METRICS_HOST"]),
    key(
        "metrics.port",
        port(),
        "Port to listen on; 0 = any free port.",
    )
    .default("9601")
    .env(&["METRICS_PORT"]),
    key(
        "metrics.prometheus.prefix",
        text(shape::METRIC_PREFIX),
        "Put before every name.",
    )
    .default("sockudo_")
    .env(&["METRICS_PROMETHEUS_PREFIX"]),
    key(
        "metrics.required",
        Kind::Flag,
        "Do not start when the port cannot be had.",
    )
    .default("true")
    .ours(),
    key(
        "metrics.max_apps",
        count(1),
        "Apps with series of their own; the rest is summed.",
    )
    .default("1000")
    .ours(),
    key("ssl.enabled", Kind::Flag, "TLS on `port`.")
        .default("false")
        .env(&["SSL_ENABLED"]),
    key("ssl.cert_path", text(shape::ANY), "Certificate chain, PEM.")
        .default("")
        .env(&["SSL_CERT_PATH"])
        .reloads(),
    key("ssl.key_path", text(shape::ANY), "Private key, PEM.")
        .default("")
        .env(&["SSL_KEY_PATH"])
        .reloads(),
    key("ssl.passphrase", Kind::Secret, "Opens the private key.").env(&["SSL_PASS"]),
    key(
        "ssl.ca_path",
        text(shape::ANY),
        "CA of client certificates, PEM.",
    )
    .env(&["SSL_CA"]),
    key(
        "ssl.redirect_http",
        Kind::Flag,
        "A second listener that redirects to https.",
    )
    .default("false")
    .env(&["SSL_REDIRECT_HTTP"]),
    key("ssl.http_port", port(), "Its port.")
        .default("80")
        .nullable()
        .env(&["SSL_HTTP_PORT"]),
    key(
        "unix_socket.enabled",
        Kind::Flag,
        "Listen on a Unix socket instead of TCP.",
    )
    .default("false")
    .env(&["UNIX_SOCKET_ENABLED"]),
    key("unix_socket.path", text(shape::ABSOLUTE_PATH), "Its path.")
        .default("/var/run/sockudo/sockudo.sock")
        .env(&["UNIX_SOCKET_PATH"]),
    key(
        "unix_socket.permission_mode",
        Kind::Mode,
        "Its mode, octal.",
    )
    .default("660")
    .env(&["UNIX_SOCKET_PERMISSION_MODE"]),
    key("unix_socket.also_tcp", Kind::Flag, "Listen on TCP as well.")
        .default("false")
        .ours(),
];
