//! What this release does not ship: the keys are known and checked, choosing it refuses to start.
//!
//! Owns: the one list of such choices. Shipping one means deleting its line.
//! May depend on: `settings`, `error`.
//! Invariants: nothing falls back silently to something else.

use super::error::{Fault, Report};
use super::settings::{Setting, Settings};

/// Values of a key that cannot be chosen yet.
pub(super) struct Refusal {
    pub(super) key: &'static str,
    pub(super) values: &'static [&'static str],
    /// What can be chosen.
    pub(super) available: &'static str,
    /// A switch that, when off, makes the choice irrelevant.
    switch: Option<&'static str>,
}

pub(super) const NOT_IN_THIS_RELEASE: &[Refusal] = &[
    refuse(
        "adapter.driver",
        &["redis", "redis-cluster", "nats"],
        "\"local\"",
    ),
    refuse(
        "app_manager.driver",
        &["mysql", "dynamodb", "pgsql", "scylladb"],
        "\"memory\"",
    ),
    refuse(
        "cache.driver",
        &["redis", "redis-cluster"],
        "\"memory\" and \"none\"",
    ),
    refuse(
        "queue.driver",
        &["redis", "redis-cluster", "sqs"],
        "\"memory\" and \"none\"",
    ),
    Refusal {
        key: "rate_limiter.driver",
        values: &["redis", "redis-cluster"],
        available: "\"memory\" and \"none\"",
        switch: Some("rate_limiter.enabled"),
    },
    refuse("cluster.replication", &["owned"], "\"full\""),
    refuse(
        "ssl.enabled",
        &["true"],
        "plain TCP only; put a TLS proxy in front",
    ),
    refuse("unix_socket.enabled", &["true"], "TCP listeners only"),
];

/// Targets of webhooks that cannot be chosen yet.
pub(super) const LAMBDA_AVAILABLE: &str = "webhooks by \"url\" only";

const fn refuse(
    key: &'static str,
    values: &'static [&'static str],
    available: &'static str,
) -> Refusal {
    Refusal {
        key,
        values,
        available,
        switch: None,
    }
}

/// Reports every choice that this release does not have.
pub(super) fn check(settings: &Settings, report: &mut Report) {
    for refusal in NOT_IN_THIS_RELEASE {
        let shown = match settings.setting(refusal.key) {
            Setting::Text(text) if refusal.values.contains(&text.as_str()) => format!("{text:?}"),
            Setting::Flag(true) if refusal.values.contains(&"true") => "true".to_owned(),
            _ => continue,
        };
        let origin = settings.origin(refusal.key);
        if refusal.switch.is_some_and(|switch| !settings.flag(switch)) {
            let text = format!("{shown} is not in this release; it is off, so nothing is lost");
            report.note(origin, refusal.key, text);
            continue;
        }
        let fault = Fault::NotInThisRelease {
            shown,
            available: refusal.available,
        };
        report.error(origin, refusal.key, fault);
    }
}
