//! From an app's settings to `App`.
//!
//! Owns: which key fills which field of an app and of its webhooks.
//! May depend on: `settings`, `config::app`.
//! Invariants: those of `build`.

use crate::config::Secret;
use crate::config::app::{App, EventType, Webhook, WebhookFilter, WebhookTarget};
use crate::config::settings::Settings;

pub(super) fn app(s: &Settings) -> App {
    let secrets = s
        .optional_secret("secret")
        .into_iter()
        .chain(s.secrets("secrets"));
    let mut unique: Vec<Secret> = Vec::new();
    for secret in secrets {
        if !unique.contains(&secret) {
            unique.push(secret);
        }
    }
    let secrets = unique;
    assert!(
        !secrets.is_empty(),
        "the checks refuse an app without a secret"
    );
    App {
        id: s.text("id").to_owned(),
        former_id: None,
        key: s.text("key").to_owned(),
        secrets,
        enabled: s.flag("enabled"),
        max_connections: s.u64("max_connections"),
        enable_client_messages: s.flag("enable_client_messages"),
        max_client_events_per_second: s.u32("max_client_events_per_second"),
        max_backend_events_per_second: s.u32("max_backend_events_per_second"),
        max_read_requests_per_second: s.u32("max_read_requests_per_second"),
        max_presence_members_per_channel: s.u32("max_presence_members_per_channel"),
        presence_member_bytes_max: s.u32("max_presence_member_size_in_kb"),
        channel_name_bytes_max: s.u32("max_channel_name_length"),
        event_channels_max: s.u32("max_event_channels_at_once"),
        event_name_bytes_max: s.u32("max_event_name_length"),
        event_payload_bytes_max: s.u32("max_event_payload_in_kb"),
        event_batch_max: s.u32("max_event_batch_size"),
        subscriptions_per_connection_max: s.u32("max_subscriptions_per_connection"),
        enable_user_authentication: s.flag("enable_user_authentication"),
        enable_watchlist_events: s.flag("enable_watchlist_events"),
        enable_subscription_count: s.flag("enable_subscription_count"),
        require_tls: s.flag("require_tls"),
        webhooks: s.records("webhooks").iter().map(webhook).collect(),
        allowed_origins: s.texts("allowed_origins").to_vec(),
    }
}

fn webhook(s: &Settings) -> Webhook {
    let function = s.optional_text("lambda.function_name");
    // Soketi writes the name in one place and the region in the other.
    let function = function.or_else(|| s.optional_text("lambda_function"));
    let target = match (s.optional_secret("url"), function) {
        (Some(url), _) => WebhookTarget::Url(url),
        (None, Some(function_name)) => {
            let region = s.optional_text("lambda.region");
            let region = region.unwrap_or_else(|| "us-east-1".to_owned());
            WebhookTarget::Lambda {
                function_name,
                region,
            }
        }
        (None, None) => unreachable!("the checks refuse a webhook without a target"),
    };
    let pattern = s.optional_text("filter.channel_pattern");
    let pattern = pattern.map(|pattern| {
        regex::Regex::new(&pattern).unwrap_or_else(|_| unreachable!("the shape was checked"))
    });
    Webhook {
        target,
        event_types: s
            .texts("event_types")
            .iter()
            .filter_map(|t| EventType::parse(t))
            .collect(),
        filter: WebhookFilter {
            prefix: s.optional_text("filter.channel_prefix"),
            suffix: s.optional_text("filter.channel_suffix"),
            pattern,
        },
        headers: s.headers("headers"),
    }
}
