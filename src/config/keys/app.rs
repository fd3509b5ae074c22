//! Keys of an app and of its webhooks.
//!
//! Owns: rows of the tables, in the order in which an app is shown.
//! May depend on: the builders of `keys`.
//! Invariants: those of `keys`.

use super::{Alias, Key, Later, Table, key, kilobyte_limit, limit, text, zero_is_unlimited};
use crate::config::kind::{Kind, Whole};
use crate::config::shape;

pub static APP: Table = Table {
    keys: &[APP_KEYS],
    aliases: &[
        Alias::same("max_client_events_per_sec", "max_client_events_per_second"),
        Alias::same(
            "max_backend_events_per_sec",
            "max_backend_events_per_second",
        ),
        Alias::same("max_read_req_per_sec", "max_read_requests_per_second"),
        Alias::same("max_payload_in_kb", "max_event_payload_in_kb"),
    ],
    soketi: super::soketi::APP,
    later: &[
        Later("channel_delta_compression"),
        Later("idempotency"),
        Later("history"),
        Later("presence_history"),
        Later("channel_namespaces"),
        Later("connection_recovery"),
        Later("event_name_filtering"),
        Later("annotations"),
        Later("push"),
        Later("policy.*"),
        Later("created_at"),
        Later("updated_at"),
    ],
    hoisted: &["policy.limits", "policy.features", "policy.channels"],
};

pub static WEBHOOK: Table = Table {
    keys: &[WEBHOOK_KEYS],
    aliases: &[
        Alias::same("filter.channel_name_starts_with", "filter.channel_prefix"),
        Alias::same("filter.channel_name_ends_with", "filter.channel_suffix"),
    ],
    soketi: &[],
    later: &[
        Later("lambda.async"),
        Later("lambda.client_options"),
        Later("retry"),
    ],
    hoisted: &[],
};

const APP_KEYS: &[Key] = &[
    key(
        "id",
        Kind::TextOrNumber(shape::PATH_SEGMENT),
        "Names the app in the HTTP API.",
    )
    .required(),
    key(
        "key",
        Kind::TextOrNumber(shape::PATH_SEGMENT),
        "Names the app to clients.",
    )
    .required(),
    key(
        "secret",
        Kind::Secret,
        "Signs and verifies. Required unless `secrets` is given.",
    )
    .null_is_absent(),
    key(
        "secrets",
        Kind::Secrets,
        "For rotation: any verifies, the first signs.",
    )
    .default("")
    .null_is_absent()
    .ours(),
    key(
        "enabled",
        Kind::Flag,
        "Off: 4003, and 403 from the HTTP API.",
    )
    .default("true")
    .null_is_absent(),
    key(
        "max_connections",
        Kind::Whole(Whole {
            min: 0,
            max: u64::MAX,
            unit: "",
            negative: Some(0),
        }),
        "Connections of the app, cluster-wide; 0 = unlimited. Beyond: 4004.",
    )
    .default("0")
    .null_is_absent()
    .env_app("100"),
    key(
        "enable_client_messages",
        Kind::Flag,
        "Clients may send `client-*` events.",
    )
    .default("false")
    .null_is_absent()
    .env(&["SOCKUDO_ENABLE_CLIENT_MESSAGES"]),
    key(
        "max_client_events_per_second",
        zero_is_unlimited(),
        "Client events per connection; 0 = unlimited. Beyond: 4301.",
    )
    .default("10")
    .null_is_absent()
    .upstream("0")
    .env_app("100"),
    key(
        "max_backend_events_per_second",
        zero_is_unlimited(),
        "Events of the API; 0 = unlimited.",
    )
    .default("0")
    .null_is_absent()
    .env_app("100"),
    key(
        "max_read_requests_per_second",
        zero_is_unlimited(),
        "GETs of the API; 0 = unlimited.",
    )
    .default("0")
    .null_is_absent()
    .env_app("100"),
    key(
        "max_presence_members_per_channel",
        limit(),
        "Users of one presence channel.",
    )
    .inherits("presence.max_members_per_channel")
    .env_app("100"),
    key(
        "max_presence_member_size_in_kb",
        kilobyte_limit(),
        "Largest `user_info`.",
    )
    .inherits("presence.max_member_size_in_kb")
    .env_app("100"),
    key(
        "max_channel_name_length",
        limit(),
        "Longest channel name, in bytes.",
    )
    .inherits("channel_limits.max_name_length")
    .env_app("100"),
    key(
        "max_event_channels_at_once",
        limit(),
        "Channels of one event of the API.",
    )
    .inherits("event_limits.max_channels_at_once")
    .env_app("100"),
    key(
        "max_event_name_length",
        limit(),
        "Longest event name, in bytes.",
    )
    .inherits("event_limits.max_name_length")
    .env_app("100"),
    key(
        "max_event_payload_in_kb",
        kilobyte_limit(),
        "Largest `data` of an event.",
    )
    .inherits("event_limits.max_payload_in_kb")
    .env_app("100"),
    key(
        "max_event_batch_size",
        limit(),
        "Events of one batch of the API.",
    )
    .inherits("event_limits.max_batch_size")
    .env_app("100"),
    key(
        // Ten times what clients of Pusher use; 4 000 rows are some 2 MB.
        "max_subscriptions_per_connection",
        zero_is_unlimited(),
        "Channels of one connection; 0 = unlimited.",
    )
    .default("4000")
    .null_is_absent()
    .upstream("0")
    .ours(),
    key(
        "enable_user_authentication",
        Kind::Flag,
        "Starts `user_authentication_timeout`.",
    )
    .default("false")
    .null_is_absent(),
    key(
        "enable_watchlist_events",
        Kind::Flag,
        "Tell users who of their watchlist is online.",
    )
    .default("false")
    .null_is_absent(),
    key(
        "enable_subscription_count",
        Kind::Flag,
        "Send `pusher_internal:subscription_count`.",
    )
    .default("false")
    .null_is_absent()
    .ours(),
    key(
        "require_tls",
        Kind::Flag,
        "Refuse (4000) connections without TLS, as `X-Forwarded-Proto` of a trusted proxy tells it.",
    )
    .default("false")
    .null_is_absent()
    .ours(),
    key(
        "webhooks",
        Kind::Records(&WEBHOOK),
        "See the keys of a webhook.",
    )
    .default("")
    .null_is_absent(),
    key(
        "allowed_origins",
        Kind::Texts(shape::ORIGIN),
        "Origins that may connect; empty = every. `*.example.com` covers the domain itself.",
    )
    .default("")
    .null_is_absent(),
];

const WEBHOOK_KEYS: &[Key] = &[
    key("url", Kind::Url, "Where to POST; http or https.").null_is_absent(),
    key(
        "lambda.function_name",
        text(shape::NOT_EMPTY),
        "An AWS Lambda function instead.",
    ),
    key("lambda.region", text(shape::NOT_EMPTY), "Its region.")
        .default("us-east-1")
        .nullable(),
    key(
        "lambda_function",
        text(shape::NOT_EMPTY),
        "Older form; the region is `lambda.region`.",
    ),
    key(
        "event_types",
        Kind::Texts(shape::NOT_EMPTY),
        "Events to send; empty = none.",
    )
    .required(),
    key(
        "filter.channel_prefix",
        text(shape::ANY),
        "Only channels that begin so.",
    ),
    key(
        "filter.channel_suffix",
        text(shape::ANY),
        "Only channels that end so.",
    ),
    key(
        "filter.channel_pattern",
        text(shape::PATTERN),
        "Only channels that match.",
    ),
    key(
        "headers",
        Kind::Headers,
        "Added to the request; may not replace the server's own.",
    ),
];
