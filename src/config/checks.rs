//! Checks that look at more than one value.
//!
//! Owns: conflicts between keys, apps that clash, webhooks that cannot work, demo credentials.
//! May depend on: `settings`, `error`, `release`.
//! Invariants: every conflict names both keys, and what would resolve it.

use std::{collections::BTreeMap, path::Path};

use super::derive::largest_message_bytes;
use super::error::{Fault, Report};
use super::keys::APP_PREFIX;
use super::origin::Origin;
use super::release;
use super::secret::{Secret, masked_url};
use super::sections::{ADMIN_SOCKET, app::EventType, limits_upgrades};
use super::settings::{Setting, Settings};
use super::shape;
use super::shared_redis::{self, client_certificate, has_scheme, unused_files};

/// What a load was told about the demo app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Demo {
    /// Nothing was configured: the demo app runs.
    pub(super) is_on: bool,
    /// `--allow-demo-app`.
    pub(super) is_allowed: bool,
}

pub(super) fn check(settings: &Settings, demo: Demo, report: &mut Report) {
    release::check(settings, report);
    bus(settings, report);
    shared_redis::check(settings, report);
    numbers(settings, report);
    queues(settings, report);
    apps(settings, report);
    app_store(settings, report);
    demo_credentials(settings, demo, report);
    limiter_that_is_off(settings, report);
    proxies(settings, report);
    unix_socket(settings, report);
    tls_of_port(settings, report);
    unset_limits(settings, report);
    for app in settings.records(APPS) {
        for webhook in app.records("webhooks") {
            check_webhook(webhook, report);
        }
    }
}

/// Beside it a file of a longer name is made first.
const SOCKET_PATH_BYTES_MAX: usize = 96;

/// Who may write to the socket's file may say whose requests it forwards.
fn unix_socket(settings: &Settings, report: &mut Report) {
    let path = "unix_socket.permission_mode";
    let mode = settings.setting(path);
    let is_open = matches!(mode, Setting::Mode(mode) if mode & 0o002 != 0);
    let socket = "unix_socket.path";
    let bytes = settings.text(socket).len();
    if settings.flag("unix_socket.enabled") && bytes > SOCKET_PATH_BYTES_MAX {
        let text =
            format!("has {bytes} bytes; Linux takes {SOCKET_PATH_BYTES_MAX} of a socket's path");
        report.error(settings.origin(socket), socket, Fault::Conflict(text));
    }
    let admin = settings.get::<Option<String>>("admin.socket");
    let admin = admin.as_deref().unwrap_or(ADMIN_SOCKET);
    // What is written in two ways may be one place.
    let is_admins = Path::new(admin) == Path::new(settings.text(socket));
    if settings.flag("unix_socket.enabled") && is_admins {
        let text = format!("{admin:?} is admin.socket too: each wants a path of its own");
        report.error(settings.origin(socket), socket, Fault::Conflict(text));
    }
    if settings.flag("unix_socket.enabled") && is_open {
        let text = "every user of this host may connect, and is believed whom it forwards";
        report.warn(settings.origin(path), path, text.to_owned());
    }
}

/// What the driver of the bus does not do: it would connect elsewhere, or in plain text.
fn bus(settings: &Settings, report: &mut Report) {
    match settings.text("adapter.driver") {
        "redis-cluster" => bus_redis_cluster(settings, report),
        "nats" => bus_nats(settings, report),
        _ => {}
    }
}

fn bus_nats(settings: &Settings, report: &mut Report) {
    logins_nats(settings, report);
    client_certificate(settings, "adapter.nats.tls", report);
    let is_asked_for = match settings.setting("adapter.nats.servers") {
        Setting::Urls(urls) => urls.iter().all(|url| has_scheme(url, &["tls"])),
        _ => false,
    };
    if !is_asked_for && !settings.flag("adapter.nats.tls.required") {
        let what = "is used where a server asks for TLS, and the others are spoken to without: \
                    adapter.nats.tls.required = true takes no other";
        unused_files(settings, "adapter.nats.tls", what, report);
    }
}

/// A server is told one of them, and would refuse it where the other was meant.
fn logins_nats(settings: &Settings, report: &mut Report) {
    let files = ["adapter.nats.creds_file", "adapter.nats.nkey_seed_file"];
    let texts = [
        "adapter.nats.username",
        "adapter.nats.password",
        "adapter.nats.token",
    ];
    // A variable that is set to nothing names nobody.
    let is_set = |path: &str| match settings.setting(path) {
        Setting::Text(text) => !text.is_empty(),
        Setting::Secret(secret) => !secret.expose().is_empty(),
        _ => false,
    };
    let Some(file) = files.into_iter().find(|path| is_set(path)) else {
        return;
    };
    let mut refuse = |text: String| {
        report.error(settings.origin(file), file, Fault::Conflict(text));
    };
    let others = files.into_iter().chain(texts);
    if let Some(other) = others
        .filter(|path| *path != file)
        .find(|path| is_set(path))
    {
        refuse(format!(
            "is a login, and {other} is another: set one of them"
        ));
    }
    let servers = "adapter.nats.servers";
    if let Setting::Urls(urls) = settings.setting(servers)
        && urls.iter().any(|url| url.expose().contains('@'))
    {
        refuse(format!(
            "is a login, and {servers} holds another before an @: leave one of them out"
        ));
    }
}

fn bus_redis_cluster(settings: &Settings, report: &mut Report) {
    let mut refuse = |path: &str, what: &str, available: &str| {
        let fault = Fault::NotInThisRelease {
            shown: format!("{what} with adapter.driver = \"redis-cluster\""),
            available: available.to_owned(),
        };
        report.error(settings.origin(path), path, fault);
    };
    if !settings.flag("adapter.cluster.use_sharded_pubsub") {
        let path = "adapter.cluster.use_sharded_pubsub";
        refuse(path, "PUBLISH and SUBSCRIBE", "true, for Redis 7 and later");
    }
    let mut conflict = |path: &str, text: &str| {
        report.error(
            settings.origin(path),
            path,
            Fault::Conflict(text.to_owned()),
        );
    };
    if settings.u64("database.redis.db") != 0 {
        conflict(
            "database.redis.db",
            "must be 0 with adapter.driver = \"redis-cluster\": a cluster has no other database",
        );
    }
    if settings.text("adapter.cluster.prefix").contains(['{', '}']) {
        conflict(
            "adapter.cluster.prefix",
            "must not hold { or }: they would say which node a name belongs to",
        );
    }
}

fn numbers(settings: &Settings, report: &mut Report) {
    let mut conflict = |path: &str, text: String| {
        report.error(settings.origin(path), path, Fault::Conflict(text));
    };
    let (lease, heartbeat) = (
        settings.u64("cluster.lease_ms"),
        settings.u64("cluster.heartbeat_ms"),
    );
    if lease < heartbeat.saturating_mul(3) {
        let text = format!("{lease} is less than three times cluster.heartbeat_ms = {heartbeat}");
        conflict("cluster.lease_ms", text);
    }
    let canary = settings.u64("cluster.canary_ms");
    if canary > lease / 3 {
        let text = format!("{canary} is more than a third of cluster.lease_ms = {lease}");
        conflict("cluster.canary_ms", text);
    }
    let (least, most) = (
        settings.u64("database_pooling.min"),
        settings.u64("database_pooling.max"),
    );
    if least > most {
        let text = format!("{least} is more than database_pooling.max = {most}");
        conflict("database_pooling.min", text);
    }
    for (min, max) in [
        ("database.mysql.pool_min", "database.mysql.pool_max"),
        ("database.postgres.pool_min", "database.postgres.pool_max"),
    ] {
        let least = settings.get::<Option<u64>>(min).unwrap_or(0);
        let most = settings.get::<Option<u64>>(max).unwrap_or(u64::MAX);
        if least > most {
            conflict(min, format!("{least} is more than {max} = {most}"));
        }
    }
    let (wait, deadline) = (
        settings.u64("drain.lb_wait_s"),
        settings.u64("drain.deadline_s"),
    );
    if wait > 0 && wait >= deadline {
        let text = format!(
            "{wait} leaves nothing of drain.deadline_s = {deadline}, by which the process has \
             ended: set a wait below it, or a later deadline"
        );
        conflict("drain.lb_wait_s", text);
    }
    let (first, most) = (
        settings.u64("webhooks.retry.backoff_ms"),
        settings.u64("webhooks.retry.backoff_max_ms"),
    );
    if first > most {
        let text = format!("{first} is more than webhooks.retry.backoff_max_ms = {most}");
        conflict("webhooks.retry.backoff_ms", text);
    }
    let (port, metrics) = (settings.u64("port"), settings.u64("metrics.port"));
    if settings.flag("metrics.enabled") && port == metrics && port != 0 {
        conflict(
            "metrics.port",
            format!("{metrics} is the server's own port"),
        );
    }
}

/// The database that keeps the apps.
fn app_store(settings: &Settings, report: &mut Report) {
    let driver = settings.text("app_manager.driver");
    let is_seeded = settings.text("app_manager.seed") != "never";
    let apps = settings.records(APPS).len();
    let is_asked = [
        ("app_manager.seed", is_seeded),
        (
            "app_manager.create_schema",
            settings.flag("app_manager.create_schema"),
        ),
    ];
    if driver == "memory" {
        for (path, _) in is_asked.into_iter().filter(|(_, is_asked)| *is_asked) {
            let text = "has no effect: app_manager.driver = \"memory\" has no database to write to";
            report.warn(settings.origin(path), path, text.to_owned());
        }
        return;
    }
    if apps > 0 && !is_seeded {
        let text = format!(
            "{apps} not used: app_manager.driver = \"{driver}\" keeps the apps; app_manager.seed or \
             `sockudo apps import` takes them over"
        );
        report.warn(settings.origin(APPS), APPS, text);
    }
    if apps == 0 && is_seeded {
        let text = format!("has no effect: there is no app in {APPS}");
        report.warn(
            settings.origin("app_manager.seed"),
            "app_manager.seed",
            text,
        );
    }
    let pairs = [
        (
            "database.mysql.tls.cert_path",
            "database.mysql.tls.key_path",
        ),
        (
            "database.postgres.tls.cert_path",
            "database.postgres.tls.key_path",
        ),
        (
            "database.dynamodb.aws_access_key_id",
            "database.dynamodb.aws_secret_access_key",
        ),
    ];
    for (certificate, key) in pairs {
        for (one, other) in [(certificate, key), (key, certificate)] {
            if !settings.is_null(one) && settings.is_null(other) {
                let fault = Fault::Conflict(format!("needs {other}"));
                report.error(settings.origin(one), one, fault);
            }
        }
    }
    for (table, outer) in [
        ("database.mysql.table_name", "database"),
        ("database.postgres.table_name", "schema"),
    ] {
        let parts: Vec<&str> = settings.text(table).split('.').collect();
        if parts.len() > 2 || parts.contains(&"") {
            let text = format!("has a dot that stands between no {outer} and its table");
            report.error(settings.origin(table), table, Fault::Conflict(text));
        }
    }
}

/// Buffers and outboxes.
fn queues(settings: &Settings, report: &mut Report) {
    let mut conflict = |path: &str, text: String| {
        report.error(settings.origin(path), path, Fault::Conflict(text));
    };
    if let Setting::Whole(buffers) = settings.setting("net.recv_buffers")
        && !buffers.is_power_of_two()
    {
        conflict(
            "net.recv_buffers",
            format!("{buffers} is not a power of two"),
        );
    }
    let (queue, largest) = (
        settings.u64("net.send_queue_bytes"),
        largest_message_bytes(settings),
    );
    if queue < largest.saturating_mul(2) {
        let text = format!("{queue} is less than twice the largest message, {largest} bytes");
        conflict("net.send_queue_bytes", text);
    }
    let burst = settings.u64("net.burst_queue_bytes");
    if burst < queue {
        let text = format!("{burst} is less than net.send_queue_bytes = {queue}");
        conflict("net.burst_queue_bytes", text);
    }
}

fn apps(settings: &Settings, report: &mut Report) {
    let apps = settings.records(APPS);
    if apps.is_empty() && settings.text("app_manager.driver") == "memory" {
        let text = "lists no app: every connection will get 4001, and /up says 503".to_owned();
        report.warn(settings.origin(APPS), APPS, text);
    }
    for member in ["id", "key"] {
        let mut owners: BTreeMap<&str, &Settings> = BTreeMap::new();
        for app in apps {
            // A wrong value was reported already.
            let Setting::Text(name) = app.setting(member) else {
                continue;
            };
            if let Some(first) = owners.insert(name, app) {
                let place = first.origin(member).place();
                let place = place.map_or_else(String::new, |place| format!(" ({place})"));
                let text = format!("{name:?} is already that of another app{place}");
                report.error(app.origin(member), app.name(member), Fault::Conflict(text));
            }
        }
    }
    for app in apps {
        secret_is_there(app, report);
        let key = app.setting("key");
        if matches!(key, Setting::Text(key) if key.contains(':')) {
            // The left part of `auth` must be the whole key.
            let text = "has a colon, at which clients' auth is split: nobody can join a private \
                        or presence channel, or sign in";
            report.warn(app.origin("key"), app.name("key"), text.to_owned());
        }
    }
}

/// What stands for a secret where it is not shown.
const MASK: &str = "***";

pub(super) fn secret_is_there(app: &Settings, report: &mut Report) {
    let has_secrets = matches!(app.setting("secrets"), Setting::Secrets(s) if !s.is_empty());
    let name = app.name("secret");
    if app.is_null("secret") && !has_secrets && !report.is_refused(&name) {
        report.error(&app.origin, name, Fault::Missing);
        return;
    }
    let is_mask = |secret: &Secret| secret.expose() == MASK;
    for member in ["secret", "secrets"] {
        let is_masked = match app.setting(member) {
            Setting::Secret(secret) => is_mask(secret),
            Setting::Secrets(secrets) => secrets.iter().any(is_mask),
            _ => false,
        };
        if is_masked {
            let text = format!("is {MASK}, as a secret is printed: write the secret itself");
            report.error(app.origin(member), app.name(member), Fault::Conflict(text));
        }
    }
}

/// The demo credentials are public: anybody could publish to whoever connects.
fn demo_credentials(settings: &Settings, demo: Demo, report: &mut Report) {
    let mut apps = settings.records(APPS).iter();
    let Some(app) = apps.find(|app| has_demo_credentials(app)) else {
        return;
    };
    if settings.text("mode") != "production" {
        return;
    }
    let origin = app.origin("secret");
    let hosts = settings.text("host");
    if !is_public_production(settings) {
        let text = "the demo app's credentials are public; \
                    here they are reachable from this host only";
        if !demo.is_on {
            report.warn(origin, app.name("secret"), text.to_owned());
        }
    } else if !demo.is_allowed {
        let text = format!(
            "the demo app's credentials are public, and {hosts} can be reached from outside; \
             choose a key and a secret of your own, or pass --allow-demo-app"
        );
        report.error(origin, app.name("secret"), Fault::Conflict(text));
    }
}

pub(super) fn has_demo_credentials(app: &Settings) -> bool {
    let secret = matches!(app.setting("secret"), Setting::Secret(s) if s.expose() == DEMO_SECRET);
    secret && *app.setting("key") == Setting::Text(DEMO_KEY.to_owned())
}

/// Others than this host reach a server that is not for trying out.
pub(super) fn is_public_production(settings: &Settings) -> bool {
    settings.text("mode") == "production" && !is_local(settings)
}

/// Only this host reaches the server.
pub(super) fn is_local(settings: &Settings) -> bool {
    let mut hosts = settings.text("host").split(',').map(str::trim);
    hosts.all(is_loopback)
}

/// TLS that has nothing to show would be plain text.
fn tls_of_port(settings: &Settings, report: &mut Report) {
    let redirect = "ssl.redirect_http";
    if !settings.flag("ssl.enabled") {
        if settings.flag(redirect) {
            let text =
                "does nothing while ssl.enabled = false: there is no https to send anybody to";
            report.warn(settings.origin(redirect), redirect, text.to_owned());
        }
        return;
    }
    let http_port = "ssl.http_port";
    let port = settings.get::<Option<u16>>(http_port).unwrap_or(80);
    let has_metrics = settings.flag("metrics.enabled");
    for (other, is_on) in [("port", true), ("metrics.port", has_metrics)] {
        if settings.flag(redirect) && is_on && settings.get::<u16>(other) == port {
            let text = format!("{port} is {other} too: plain http needs a port of its own");
            report.error(settings.origin(http_port), http_port, Fault::Conflict(text));
        }
    }
    let (clients, ca) = ("ssl.client_certificates", "ssl.ca_path");
    let nobody = settings
        .get::<Option<String>>(ca)
        .is_none_or(|path| path.is_empty());
    if settings.is_said(clients) && nobody {
        let text = format!("asks nobody for a certificate without {ca}, the CA that signs them");
        match settings.text(clients) {
            "required" => report.error(settings.origin(clients), clients, Fault::Conflict(text)),
            _ => report.warn(settings.origin(clients), clients, text),
        }
    }
    for path in ["ssl.cert_path", "ssl.key_path"] {
        if settings.text(path).is_empty() {
            let text = "is empty, and ssl.enabled = true: name a PEM file, or turn TLS off";
            report.error(
                settings.origin(path),
                path,
                Fault::Conflict(text.to_owned()),
            );
        }
    }
}

/// Sockudo 2.9 had it on: there a driver alone was enough.
fn limiter_that_is_off(settings: &Settings, report: &mut Report) {
    let (enabled, driver) = ("rate_limiter.enabled", "rate_limiter.driver");
    let is_shared = ["redis", "redis-cluster"].contains(&settings.text(driver));
    if is_shared
        && settings.is_explicit(driver)
        && !settings.is_said(enabled)
        && !settings.flag(enabled)
        && !limits_upgrades(settings)
    {
        let text = "has no effect: no limit is set; rate_limiter.enabled = true limits the API to \
                    100 requests a minute and address";
        report.warn(settings.origin(driver), driver, text.to_owned());
    }
}

/// What limits by address and `require_tls` can know behind a proxy, or without one.
fn proxies(settings: &Settings, report: &mut Report) {
    let is_local = is_local(settings);
    let is_on =
        settings.flag("rate_limiter.enabled") && settings.text("rate_limiter.driver") != "none";
    let limits = [
        ("rate_limiter.api_rate_limit.trust_hops", is_on),
        (
            "rate_limiter.websocket_rate_limit.trust_hops",
            limits_upgrades(settings),
        ),
    ];
    let trusted = "rate_limiter.trusted_proxies";
    let trusts_all = settings.get::<Vec<ipnet::IpNet>>(trusted).is_empty();
    let header = "net.proxy_protocol";
    let has_header = settings.text(header) != "off";
    // Who comes over the Unix socket is believed without a list.
    let has_local = settings.flag("unix_socket.enabled");
    if has_header && trusts_all && !has_local {
        let text = "needs rate_limiter.trusted_proxies: a PROXY header is believed from them only";
        report.error(
            settings.origin(header),
            header,
            Fault::Conflict(text.to_owned()),
        );
    }
    let is_only_local = has_local && !settings.flag("unix_socket.also_tcp");
    let mut hops_max = 0;
    for (path, is_on) in limits {
        let hops = settings.u64(path);
        hops_max = hops_max.max(hops);
        // Who wrote 0 for an address that others reach has no proxy in front.
        let is_meant = settings.is_explicit(path) && !is_local;
        if is_on && hops == 0 && !is_meant && !has_header && !is_only_local {
            let text = "is 0: behind a proxy all its clients count as one address; set it to the \
                        number of proxies, or to 0 where there is none";
            report.warn(settings.origin(path), path, text.to_owned());
        }
    }
    if hops_max > 0 && trusts_all && !has_header {
        let text = format!(
            "is empty, so with trust_hops = {hops_max} the headers of every peer are believed: \
             who reaches this port past the proxy, or through one that sets no header, chooses \
             its own address"
        );
        if is_local {
            report.note(settings.origin(trusted), trusted, text);
        } else {
            report.warn(settings.origin(trusted), trusted, text);
        }
    }
    for app in settings.records(APPS) {
        if app.flag("require_tls") && hops_max == 0 && !settings.flag("ssl.enabled") {
            let text = "refuses every connection with 4000: TLS is a proxy's, and no proxy is \
                        trusted to say so (rate_limiter.websocket_rate_limit.trust_hops)";
            report.warn(
                app.origin("require_tls"),
                app.name("require_tls"),
                text.to_owned(),
            );
        }
    }
}

fn is_loopback(host: &str) -> bool {
    let address = host
        .trim_start_matches('[')
        .trim_end_matches(']')
        .parse::<std::net::IpAddr>();
    address.map_or_else(
        |_| host.eq_ignore_ascii_case("localhost"),
        |address| address.is_loopback(),
    )
}

/// Upstream had no such limits: say that they hold now although nobody asked for them. Which, a check of the
/// configuration lists for each app.
fn unset_limits(settings: &Settings, report: &mut Report) {
    if settings.text("limits_mode") != "pusher" {
        return;
    }
    let is_silent = |app: &&Settings| {
        // What Sockudo's variables make is told where it is made.
        let variable = app.origin.variable();
        let is_of_variables = variable.is_some_and(|name| name.starts_with(APP_PREFIX));
        let is_unset = |path: &&str| *app.origin(path) == Origin::Default;
        app.origin != Origin::Default && !is_of_variables && NEW_LIMITS.iter().any(is_unset)
    };
    let silent: Vec<&Settings> = settings.records(APPS).iter().filter(is_silent).collect();
    let (origin, name, whose) = match silent[..] {
        [] => return,
        [app] => (
            &app.origin,
            app.prefix.trim_end_matches('.'),
            "limits".to_owned(),
        ),
        [first, ..] => (
            &first.origin,
            APPS,
            format!("limits of {} apps", silent.len()),
        ),
    };
    let text = format!(
        "{whose} that are not set are the protocol's, where Sockudo 2.9 had none: \
         sockudo config check lists them (limits_mode = \"upstream\" lifts them)"
    );
    report.note(origin, name, text);
}

pub(super) fn check_webhook(webhook: &Settings, report: &mut Report) {
    target_of_webhook(webhook, report);
    if let Setting::Texts(names) = webhook.setting("event_types") {
        for text in names.iter().filter_map(|name| unknown_event(name)) {
            report.warn(
                webhook.origin("event_types"),
                webhook.name("event_types"),
                text,
            );
        }
    }
    for (name, value) in webhook.get::<Vec<(String, Secret)>>("headers") {
        let lower = name.to_ascii_lowercase();
        let is_ours = OUR_HEADERS.contains(&lower.as_str()) || lower.starts_with("x-pusher-");
        let is_printable = value.expose().chars().all(|c| !c.is_control() || c == '\t');
        if is_ours {
            // Sockudo 2.9 took such a file; what it says is not done, so it must not stop a start.
            let text = format!("{name:?} is set by the server itself: ignored");
            report.warn(webhook.origin("headers"), webhook.name("headers"), text);
            continue;
        }
        let wrong = if !(shape::TOKEN.fits)(&name) {
            "is no header name"
        } else if !is_printable {
            "has a value that no header can have"
        } else {
            continue;
        };
        let fault = Fault::Conflict(format!("{name:?} {wrong}"));
        report.error(webhook.origin("headers"), webhook.name("headers"), fault);
    }
}

/// What is said of an event that is none.
pub(super) fn unknown_event(name: &str) -> Option<String> {
    if EventType::parse(name).is_some() {
        return None;
    }
    let known = EventType::ALL.into_iter().map(EventType::as_str);
    let nearest = super::suggest::nearest(name, known);
    let hint = nearest.map_or_else(String::new, |name| format!("; did you mean {name}?"));
    Some(format!("there is no event {name:?}{hint}"))
}

/// Where it goes: to a URL, or else to a function.
fn target_of_webhook(webhook: &Settings, report: &mut Report) {
    let lambda = ["lambda.function_name", "lambda_function"];
    let lambda = lambda.into_iter().find(|path| !webhook.is_null(path));
    match (webhook.setting("url"), lambda) {
        (Setting::Url(url), lambda) => {
            if !(shape::HTTP_URL.fits)(url.expose()) {
                let shown = format!("{:?}", masked_url(url.expose()));
                let wanted = shape::HTTP_URL.wanted.to_owned();
                let fault = Fault::Value { shown, wanted };
                report.error(webhook.origin("url"), webhook.name("url"), fault);
            }
            if let Some(path) = lambda {
                let text = "has no effect beside `url`".to_owned();
                report.warn(webhook.origin(path), webhook.name(path), text);
            }
        }
        (_, Some(_)) => {
            let region: Option<String> = webhook.get("lambda.region");
            let is_one = |region: &String| {
                let mut letters = region.chars();
                letters.all(|c| c.is_ascii_alphanumeric() || c == '-')
            };
            if let Some(region) = region.filter(|region| !is_one(region)) {
                let shown = format!("{region:?}");
                let wanted = "a region of AWS such as eu-central-1".to_owned();
                let fault = Fault::Value { shown, wanted };
                let path = "lambda.region";
                report.error(webhook.origin(path), webhook.name(path), fault);
            }
        }
        (_, None) if report.is_refused(&webhook.name("")) => {}
        (_, None) if webhook.is_explicit("lambda.region") => {
            let path = "lambda.function_name";
            report.error(
                webhook.origin("lambda.region"),
                webhook.name(path),
                Fault::Missing,
            );
        }
        (_, None) => report.error(&webhook.origin, webhook.name("url"), Fault::Missing),
    }
}

pub(super) const APPS: &str = "app_manager.array.apps";
/// Digits: the Python library takes no other ids.
pub(super) const DEMO_ID: &str = "1";
pub(super) const DEMO_FORMER_ID: &str = "app-id";
pub(super) const DEMO_KEY: &str = "app-key";
pub(super) const DEMO_SECRET: &str = "app-secret";

/// Limits that upstream left off where the app did not set them.
const NEW_LIMITS: &[&str] = &[
    "max_client_events_per_second",
    "max_presence_members_per_channel",
    "max_presence_member_size_in_kb",
    "max_event_channels_at_once",
    "max_event_payload_in_kb",
    "max_event_batch_size",
    "max_subscriptions_per_connection",
];

const OUR_HEADERS: &[&str] = &["content-type", "content-length", "host"];
