//! Checks of the Redis that components share.
//!
//! Owns: who speaks to Redis, and what `database.redis` must say for all of them.
//! May depend on: `settings`, `error`, `secret`.
//! Invariants: a setting that components share is checked for each that uses it, and for none that does not; what is
//! wrong for all of them is said once.

use super::error::{Fault, Report};
use super::secret::Secret;
use super::sections::limits_upgrades;
use super::settings::{Setting, Settings};

/// What speaks to Redis, with one of two drivers.
struct Component {
    name: &'static str,
    driver: &'static str,
    /// Without it the driver does not matter.
    is_wanted: fn(&Settings) -> bool,
    /// URLs of its own, with the driver `redis`.
    urls: &'static [&'static str],
    /// Nodes of its own, with the driver `redis-cluster`.
    nodes: Option<&'static str>,
}

const COMPONENTS: &[Component] = &[
    Component {
        name: "the adapter",
        driver: "adapter.driver",
        is_wanted: |_| true,
        urls: &[
            "adapter.redis.redis_pub_options.url",
            "adapter.redis.redis_sub_options.url",
        ],
        nodes: Some("adapter.cluster.nodes"),
    },
    Component {
        name: "the cache",
        driver: "cache.driver",
        is_wanted: |_| true,
        urls: &["cache.redis.url_override"],
        nodes: None,
    },
    Component {
        name: "the rate limiter",
        driver: "rate_limiter.driver",
        is_wanted: |settings| settings.flag("rate_limiter.enabled") || limits_upgrades(settings),
        urls: &["rate_limiter.redis.url_override"],
        nodes: None,
    },
    Component {
        name: "the queue",
        driver: "queue.driver",
        is_wanted: |_| true,
        urls: &["queue.redis.url_override"],
        nodes: Some("queue.redis_cluster.nodes"),
    },
];

const SENTINELS: &str = "database.redis.sentinels";
const NODES: &str = "database.redis.cluster_nodes";
const TLS: &str = "database.redis.tls";
const TLS_ENABLED: &str = "database.redis.tls.enabled";

pub(super) fn check(settings: &Settings, report: &mut Report) {
    let users: Vec<&Component> = COMPONENTS.iter().filter(|it| it.is_on(settings)).collect();
    if users.is_empty() {
        return;
    }
    client_certificate(settings, TLS, report);
    sentinels_speak_tls(settings, &users, report);
    for user in &users {
        match user.is_clustered(settings) {
            true => nodes(settings, user, report),
            false => urls(settings, user, report),
        }
    }
    let plain = users.iter().filter(|it| !it.speaks_tls(settings));
    let plain: Vec<&str> = plain.map(|it| it.name).collect();
    if !plain.is_empty() {
        let what = format!(
            "has no effect on {}, without TLS: set database.redis.tls.enabled, or rediss:// in its URL",
            plain.join(", ")
        );
        unused_files(settings, TLS, &what, report);
    }
}

impl Component {
    fn is_on(&self, settings: &Settings) -> bool {
        (self.is_wanted)(settings)
            && ["redis", "redis-cluster"].contains(&settings.text(self.driver))
    }

    fn is_clustered(&self, settings: &Settings) -> bool {
        settings.text(self.driver) == "redis-cluster"
    }

    /// Its URLs that are set.
    fn named<'a>(
        &self,
        settings: &'a Settings,
    ) -> impl Iterator<Item = (&'static str, &'a Secret)> {
        let url = move |path: &&'static str| match settings.setting(path) {
            Setting::Url(url) => Some((*path, url)),
            _ => None,
        };
        self.urls.iter().filter_map(url)
    }

    /// Its own nodes, if it has any.
    fn own_nodes<'a>(&self, settings: &'a Settings) -> &'a [Secret] {
        match self.nodes.map(|path| settings.setting(path)) {
            Some(Setting::Urls(all)) => all,
            _ => &[],
        }
    }

    fn speaks_tls(&self, settings: &Settings) -> bool {
        let is_tls = |url: &Secret| has_scheme(url, TLS_SCHEMES);
        if settings.flag(TLS_ENABLED) {
            return true;
        }
        if !self.is_clustered(settings) {
            return self.named(settings).any(|(_, url)| is_tls(url));
        }
        let own = self.own_nodes(settings);
        let named = match (own, settings.setting(NODES)) {
            ([], Setting::Endpoints(all)) => all.iter().any(|it| it.tls),
            (own, _) => own.iter().any(is_tls),
        };
        named || settings.flag("database.redis.cluster.use_tls")
    }
}

/// Half of one would be none.
pub(super) fn client_certificate(settings: &Settings, section: &str, report: &mut Report) {
    let [cert, key] = ["cert_path", "key_path"].map(|name| format!("{section}.{name}"));
    let (set, unset) = match (settings.is_null(&cert), settings.is_null(&key)) {
        (false, true) => (cert, key),
        (true, false) => (key, cert),
        (true, true) | (false, false) => return,
    };
    let text = format!("needs {unset} beside it: a client certificate is both");
    report.error(settings.origin(&set), set.clone(), Fault::Conflict(text));
}

fn sentinels_speak_tls(settings: &Settings, users: &[&Component], report: &mut Report) {
    let asks = |user: &&Component| !user.is_clustered(settings);
    let Setting::Endpoints(all) = settings.setting(SENTINELS) else {
        return;
    };
    if users.iter().any(asks) && all.iter().any(|it| it.tls) && !settings.flag(TLS_ENABLED) {
        let text = "rediss:// on a Sentinel needs database.redis.tls.enabled = true: Sentinels and \
                    their master speak TLS alike";
        let fault = Fault::Conflict(text.to_owned());
        report.error(settings.origin(SENTINELS), SENTINELS, fault);
    }
}

/// A URL names another server than `database.redis` does, and how to speak to it.
fn urls(settings: &Settings, user: &Component, report: &mut Report) {
    let has_sentinels =
        matches!(settings.setting(SENTINELS), Setting::Endpoints(all) if !all.is_empty());
    if let Some((url, _)) = user.named(settings).next().filter(|_| has_sentinels) {
        let text = format!("not asked where {url} names the server");
        report.warn(settings.origin(SENTINELS), SENTINELS, text);
    }
    let is_on = settings.flag(TLS_ENABLED);
    let mut plain = user
        .named(settings)
        .filter(|(_, url)| is_on && !has_scheme(url, TLS_SCHEMES));
    if let Some((path, _)) = plain.next() {
        let is_on = "although database.redis.tls.enabled = true: write rediss://";
        // A server of one component's own may be another one, on this host.
        match user.driver {
            "adapter.driver" => {
                let fault = Fault::Conflict(format!("would go without TLS {is_on}"));
                report.error(settings.origin(path), path, fault);
            }
            _ => report.warn(
                settings.origin(path),
                path,
                format!("goes without TLS {is_on}"),
            ),
        }
    }
}

/// Somebody must name a node of the cluster.
fn nodes(settings: &Settings, user: &Component, report: &mut Report) {
    let is_shared = matches!(settings.setting(NODES), Setting::Endpoints(all) if !all.is_empty());
    if is_shared || !user.own_nodes(settings).is_empty() {
        return;
    }
    let (path, text) = match user.nodes {
        Some(own) => (
            own,
            format!(
                "{} = \"redis-cluster\" needs at least one node of the cluster here or in {NODES}",
                user.driver
            ),
        ),
        None => (
            user.driver,
            format!("needs at least one node of the cluster in {NODES}"),
        ),
    };
    report.error(settings.origin(path), path, Fault::Conflict(text));
}

pub(super) fn has_scheme(url: &Secret, schemes: &[&str]) -> bool {
    let (scheme, _) = url.expose().split_once("://").unwrap_or_default();
    schemes.iter().any(|it| scheme.eq_ignore_ascii_case(it))
}

/// Whoever names files for TLS believes that it is spoken.
pub(super) fn unused_files(settings: &Settings, section: &str, what: &str, report: &mut Report) {
    let paths = ["ca_path", "cert_path", "key_path"].map(|name| format!("{section}.{name}"));
    if let Some(path) = paths.into_iter().find(|path| !settings.is_null(path)) {
        report.warn(settings.origin(&path), path.clone(), what.to_owned());
    }
}

const TLS_SCHEMES: &[&str] = &["rediss", "valkeys"];
