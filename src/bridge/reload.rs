//! What a reload cannot change.
//!
//! Owns: the list of settings that are read once, at the start.
//! May depend on: `config`.
//! Invariants: a key that a reload takes over is not listed here, and every other one is.

use crate::config::Config;

/// Names the changed settings that need a restart. `Debug` is compared: no setting has an order or
/// an address in it that changes by itself.
pub(super) fn keys_that_need_a_restart(old: &Config, new: &Config) -> Vec<&'static str> {
    macro_rules! changed {
        ($($field:ident),* $(,)?) => {
            [$((stringify!($field), format!("{:?}", old.$field) != format!("{:?}", new.$field))),*]
        };
    }
    let whole = changed![
        host,
        port,
        mode,
        path_prefix,
        activity_timeout_s,
        user_authentication_timeout_s,
        shards,
        bridge_core,
        pin,
        websocket,
        net,
        admission,
        cluster,
        cors,
        channel_limits,
        rate_limiter,
        logging,
        ssl,
        unix_socket,
        adapter,
        cache,
        queue,
    ];
    let parts = [
        ("metrics.enabled", old.metrics.enabled != new.metrics.enabled),
        ("metrics.host", old.metrics.host != new.metrics.host),
        ("metrics.port", old.metrics.port != new.metrics.port),
        ("metrics.prometheus.prefix", old.metrics.prefix != new.metrics.prefix),
        ("webhooks.grace", old.webhooks.grace_ms != new.webhooks.grace_ms),
        (
            "http_api.request_limit_in_mb",
            old.http_api.request_bytes_max != new.http_api.request_bytes_max,
        ),
        ("http_api.usage_enabled", old.http_api.usage_enabled != new.http_api.usage_enabled),
        ("app_manager.driver", old.app_manager.driver != new.app_manager.driver),
    ];
    let all = whole.into_iter().chain(parts);
    all.filter(|(_, is_changed)| *is_changed).map(|(key, _)| key).collect()
}
