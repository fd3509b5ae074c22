//! Values that follow from other values where nobody set them.
//!
//! Owns: those rules; they run after settling and before the checks.
//! May depend on: `settings`.
//! Invariants: a value that somebody set stays; what follows from another key has its origin.

use super::error::Report;
use super::kind::UNLIMITED;
use super::origin::Origin;
use super::settings::{Said, Setting, Settings};
use super::shape;

/// Fills in what follows. `demo`: nothing was configured at all.
pub(super) fn derive(settings: &mut Settings, demo: bool, report: &mut Report) {
    if demo {
        for path in ["host", "metrics.host"] {
            if !settings.is_explicit(path) {
                settings.derive(path, Setting::Text("127.0.0.1".to_owned()));
            }
        }
    }
    follow(
        settings,
        "drain.deadline_s",
        "shutdown_grace_period",
        |seconds| seconds.min(86_400),
    );
    drain_deadline(settings);
    follow(
        settings,
        "admission.accept_burst",
        "admission.accept_rate_per_s",
        |rate| rate,
    );
    follow(
        settings,
        "app_manager.negative_ttl",
        "app_manager.cache.ttl",
        |ttl| ttl.min(NEGATIVE_TTL_MAX_S),
    );
    if settings.flag("debug") && !settings.is_explicit("logging.level") {
        settings.derive("logging.level", Setting::Text(DEBUG_FILTER.to_owned()));
    }
    if let Some(filter) = shape::log_filter(settings.text("logging.level")) {
        settings.derive("logging.level", Setting::Text(filter));
    }
    if *settings.setting(ADMIN_SOCKET) == Setting::Text(shape::NO_SOCKET.to_owned()) {
        settings.derive(ADMIN_SOCKET, Setting::Text(String::new()));
    }
    websocket_rate_limit(settings);
    rate_limiter(settings);
    node_id(settings, report);
    cluster_timing(settings, report);
    queue_driver(settings, report);
    redis(settings);
    subscriber(settings);
    send_queue(settings, report);
}

/// Where `path` is unset, it takes the value of `from`, and its origin.
fn follow(settings: &mut Settings, path: &'static str, from: &str, value: fn(u64) -> u64) {
    if settings.is_null(path) {
        let number = value(settings.u64(from));
        let origin = settings.origin(from).clone();
        settings.put(path, Setting::Whole(number), origin);
    }
}

/// Nobody who sets a wait alone wants it to leave no time for the drain.
fn drain_deadline(settings: &mut Settings) {
    let (deadline, grace, wait) = (
        "drain.deadline_s",
        "shutdown_grace_period",
        "drain.lb_wait_s",
    );
    if settings.is_explicit(wait) && !settings.is_explicit(deadline) {
        let origin = settings.origin(wait).clone();
        let seconds = settings.u64(wait) + settings.u64(grace);
        settings.put(deadline, Setting::Whole(seconds.min(86_400)), origin);
    }
}

/// One of the two turns the limit on, the other then has its usual value.
fn websocket_rate_limit(settings: &mut Settings) {
    let number = "rate_limiter.websocket_rate_limit.max_requests";
    let window = "rate_limiter.websocket_rate_limit.window_seconds";
    match (settings.is_null(number), settings.is_null(window)) {
        (true, false) => settings.derive(number, Setting::Whole(20)),
        (false, true) => settings.derive(window, Setting::Whole(60)),
        (true, true) | (false, false) => {}
    }
}

/// Whoever sets the API's limit wants it. That of upgrades is on by itself.
fn rate_limiter(settings: &mut Settings) {
    let enabled = "rate_limiter.enabled";
    let limits = [
        "rate_limiter.api_rate_limit.max_requests",
        "rate_limiter.api_rate_limit.window_seconds",
    ];
    if settings.is_said(enabled) {
        return;
    }
    if let Some(limit) = limits.into_iter().find(|path| settings.is_explicit(path)) {
        let origin = settings.origin(limit).clone();
        settings.put(enabled, Setting::Flag(true), origin);
    }
}

fn node_id(settings: &mut Settings, report: &mut Report) {
    let Some(process_id) = settings.get::<Option<String>>("instance.process_id") else {
        return;
    };
    let origin = settings.origin("instance.process_id").clone();
    if process_id == SHIPPED_PROCESS_ID {
        let text = format!("{process_id:?} is what every container ships with: not used as a name");
        report.note(&origin, "instance.process_id", text);
    } else if settings.is_null("cluster.node_id") {
        if (shape::NODE_ID.fits)(&process_id) {
            settings.put("cluster.node_id", Setting::Text(process_id), origin);
        } else {
            let text = format!("not used as cluster.node_id: not {}", shape::NODE_ID.wanted);
            report.warn(&origin, "instance.process_id", text);
        }
    }
}

/// Upstream's keys feed ours, and a lone value draws the other one with it, so that an
/// installation that set one of two stays valid.
fn cluster_timing(settings: &mut Settings, report: &mut Report) {
    for (path, from) in [
        (
            "cluster.heartbeat_ms",
            "adapter.cluster_health.heartbeat_interval_ms",
        ),
        ("cluster.lease_ms", "adapter.cluster_health.node_timeout_ms"),
    ] {
        if settings.is_null(from) {
            let default = if path == "cluster.lease_ms" {
                30_000
            } else {
                10_000
            };
            settings.derive(from, Setting::Whole(default));
        } else if !settings.is_explicit(path) {
            let (setting, origin) = (
                settings.setting(from).clone(),
                settings.origin(from).clone(),
            );
            settings.put(path, setting, origin);
        }
    }
    let (lease, heartbeat) = (
        settings.u64("cluster.lease_ms"),
        settings.u64("cluster.heartbeat_ms"),
    );
    match (
        settings.is_explicit("cluster.lease_ms"),
        settings.is_explicit("cluster.heartbeat_ms"),
    ) {
        (false, true) => {
            settings.derive("cluster.lease_ms", Setting::Whole(lease.max(heartbeat * 3)));
        }
        (true, false) => {
            settings.derive(
                "cluster.heartbeat_ms",
                Setting::Whole(heartbeat.min(lease / 3).max(1)),
            );
        }
        (false, false) | (true, true) => {}
    }
    canary_timing(settings);
    let enabled = "adapter.cluster_health.enabled";
    if !settings.flag(enabled) {
        let text = "has no effect: a cluster cannot do without leases".to_owned();
        report.warn(&settings.origin(enabled).clone(), enabled, text);
    }
}

/// The canary flies three times in a lease at least.
fn canary_timing(settings: &mut Settings) {
    let (lease, canary) = ("cluster.lease_ms", "cluster.canary_ms");
    let (lease_ms, canary_ms) = (settings.u64(lease), settings.u64(canary));
    if !settings.is_explicit(canary) {
        settings.derive(canary, Setting::Whole(canary_ms.min(lease_ms / 3)));
    } else if !settings.is_explicit(lease) {
        settings.derive(lease, Setting::Whole(lease_ms.max(canary_ms * 3)));
    }
}

/// Webhooks wait in Redis, as in Sockudo 2.9, where one is named for them or for everything.
fn queue_driver(settings: &mut Settings, report: &mut Report) {
    let driver = "queue.driver";
    if settings.is_said(driver) {
        return;
    }
    // A cluster is another driver's, the adapter's URL is the bus' alone, and other keys name no server.
    let mut names = [
        "queue.redis.url_override",
        "database.redis.host",
        "database.redis.port",
        "database.redis.username",
        "database.redis.password",
        "database.redis.sentinels",
    ]
    .into_iter();
    // Soketi's own variables come with its default, which is memory.
    let named = names.find(|path| {
        settings.is_explicit(path) && !settings.is_null(path) && !settings.is_translated(path)
    });
    let in_cluster = Some("queue.redis.cluster_mode").filter(|it| settings.flag(it));
    let named = in_cluster.or(named);
    if let Some(path) = named {
        let origin = settings.origin(path).clone();
        let word = in_cluster.map_or("redis", |_| "redis-cluster");
        let text = format!("{word}, as {path} is set; \"memory\" keeps webhooks in each node");
        report.note(&origin, driver, text);
        let setting = Setting::Text(word.to_owned());
        settings.put_said(driver, setting, origin, Said::InPassing);
        return;
    }
    let mut apps = settings.records("app_manager.array.apps").iter();
    let has_webhooks = settings.text("app_manager.driver") != "memory"
        || apps.any(|app| !app.records("webhooks").is_empty());
    if has_webhooks {
        let text = "memory, as no Redis is named for it: webhooks that wait end with the process";
        report.note(&Origin::Default, driver, text.to_owned());
    }
}

/// What `queue.redis` says of a queue that is in a cluster, where `queue.redis_cluster` says nothing.
fn queue_cluster(settings: &mut Settings) {
    let (nodes, known) = ("queue.redis_cluster.nodes", "database.redis.cluster_nodes");
    if settings.text("queue.driver") != "redis-cluster" {
        return;
    }
    let is_known = matches!(settings.setting(known), Setting::Endpoints(all) if !all.is_empty());
    if !settings.is_explicit(nodes) && is_known {
        // None of its own: those of the database.
        let origin = settings.origin(known).clone();
        settings.put(nodes, Setting::Urls(Vec::new()), origin);
    }
    if !settings.flag("queue.redis.cluster_mode") {
        return;
    }
    for (path, from) in [
        ("queue.redis_cluster.prefix", "queue.redis.prefix"),
        ("queue.redis_cluster.concurrency", "queue.redis.concurrency"),
    ] {
        if !settings.is_explicit(path) && settings.is_explicit(from) {
            let of = settings.entry(from).clone();
            settings.put(path, of.setting, of.origin);
        }
    }
    let url = settings.entry("queue.redis.url_override").clone();
    if let (false, Setting::Url(node)) = (settings.is_explicit(nodes), url.setting) {
        settings.put(nodes, Setting::Urls(vec![node]), url.origin);
    }
}

/// `cluster_mode`, and prefixes that are null.
fn redis(settings: &mut Settings) {
    for (driver, cluster_mode) in [
        ("adapter.driver", "adapter.redis.cluster_mode"),
        ("cache.driver", "cache.redis.cluster_mode"),
        ("queue.driver", "queue.redis.cluster_mode"),
        ("rate_limiter.driver", "rate_limiter.redis.cluster_mode"),
    ] {
        if settings.text(driver) == "redis" && settings.flag(cluster_mode) {
            settings.derive(driver, Setting::Text("redis-cluster".to_owned()));
        }
    }
    queue_cluster(settings);
    let key_prefix = settings.text("database.redis.key_prefix").to_owned();
    for (path, component) in [
        ("cache.redis.prefix", "cache:"),
        ("queue.redis.prefix", "queue:"),
        ("queue.redis_cluster.prefix", "queue:"),
        ("rate_limiter.redis.prefix", "rl_http:"),
    ] {
        if settings.is_null(path) {
            settings.derive(path, Setting::Text(format!("{key_prefix}{component}")));
        }
    }
}

/// Upstream reads the publisher's URL alone: it names the server for both.
fn subscriber(settings: &mut Settings) {
    let (publisher, subscriber) = (
        "adapter.redis.redis_pub_options.url",
        "adapter.redis.redis_sub_options.url",
    );
    if settings.is_null(subscriber) && !settings.is_null(publisher) {
        let of = settings.entry(publisher).clone();
        settings.put(subscriber, of.setting, of.origin);
    }
}

fn send_queue(settings: &mut Settings, report: &mut Report) {
    let path = "net.send_queue_bytes";
    messages_of_other_versions(settings, report);
    let wanted = largest_message_bytes(settings)
        .saturating_mul(2)
        .min(SEND_QUEUE_BYTES_MAX);
    if settings.u64(path) < wanted {
        let text = format!("raised to {wanted}, twice the largest message");
        if !settings.is_explicit(path) {
            report.note(&Origin::Default, path, text);
            settings.derive(path, Setting::Whole(wanted));
        } else if settings.is_translated(path) {
            report.warn(&settings.origin(path).clone(), path, text);
            settings.derive(path, Setting::Whole(wanted));
        }
    }
    let (queue, burst) = (settings.u64(path), "net.burst_queue_bytes");
    if !settings.is_explicit(burst) && settings.u64(burst) < queue {
        settings.derive(burst, Setting::Whole(queue));
    }
}

/// Sockudo 4 and 5 take messages that their own bound of an outbox would never let out. The outbox
/// costs memory for each slow reader, so its bound holds and a message is at most half of it.
fn messages_of_other_versions(settings: &mut Settings, report: &mut Report) {
    let (queue, message) = ("net.send_queue_bytes", "websocket.max_payload_kb");
    if !settings.is_explicit(queue) || !settings.is_translated(message) {
        return;
    }
    let bytes_max = (settings.u64(queue) / 2).max(MESSAGE_BYTES_USUAL);
    let bytes = settings.u64(message);
    if bytes > bytes_max {
        settings.derive(message, Setting::Bytes(bytes_max));
        let text = format!(
            "{bytes} bytes are more than half of net.send_queue_bytes: {bytes_max} is used; \
             write both keys for more"
        );
        report.warn(&settings.origin(message).clone(), message, text);
    }
}

/// The largest message that a connection may be sent, as far as limits say.
pub(super) fn largest_message_bytes(settings: &Settings) -> u64 {
    let apps = settings.records("app_manager.array.apps").iter();
    let payloads = apps.map(|app| app.u64("max_event_payload_in_kb"));
    // Apps of a database are not known yet; those that set no limit of their own have this one.
    let of_others = match settings.text("app_manager.driver") {
        "memory" => 0,
        _ => settings.u64("event_limits.max_payload_in_kb"),
    };
    payloads
        .chain([of_others, settings.u64("websocket.max_payload_kb")])
        .filter(|bytes| *bytes != UNLIMITED)
        .max()
        .unwrap_or(0)
}

const ADMIN_SOCKET: &str = "admin.socket";
const DEBUG_FILTER: &str = "info,sockudo=debug";
/// The default of `websocket.max_payload_kb`.
const MESSAGE_BYTES_USUAL: u64 = 64 * 1024;
const NEGATIVE_TTL_MAX_S: u64 = 10;
const SEND_QUEUE_BYTES_MAX: u64 = 1 << 30;
/// `instance.process_id` of the file in upstream's container image.
const SHIPPED_PROCESS_ID: &str = "sockudo-docker-1";
