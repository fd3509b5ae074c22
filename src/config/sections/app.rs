//! An app: its credentials, its switches, its limits, its webhooks.
//!
//! Owns: the record that the whole server reads. The server's own limits are already resolved into
//! it, so a reader asks the app and nobody else.
//! May depend on: the words of `keys::rows`, `secret`, `regex`.
//! Invariants: `secrets` is never empty and its first entry signs; every origin and pattern was
//! checked. A limit that is off is 0 where the row says so, elsewhere `u32::MAX`.

use crate::config::Secret;
use crate::config::keys::rows::*;
use crate::config::keys::{Table, aliases, later, soketi};
use crate::config::settings::Settings;
use crate::config::shape;

section! {
    #[derive(PartialEq)]
    pub struct App {
        /// Names the app in the HTTP API.
        id: String = text_or_number(shape::PATH_SEGMENT).required();
        /// An id of earlier versions that the HTTP API still answers to.
        former_id: Option<&'static str>;
        /// Names the app to clients.
        key: String = text_or_number(shape::PATH_SEGMENT).required();
        /// Signs and verifies. Required unless `secrets` is given.
        _ as "secret" = secret().null_is_absent();
        /// For rotation: any verifies, the first signs.
        _ as "secrets" = secrets().default("").null_is_absent().ours();
        /// Any verifies; the first signs. Never empty.
        secrets: Vec<Secret> => all_secrets;
        /// Off: 4003, and 403 from the HTTP API.
        enabled: bool = flag().default("true").null_is_absent();
        /// Connections of the app, cluster-wide; 0 = unlimited. Beyond: 4004.
        max_connections: u64 = zero_is_unlimited_u64().default("0").null_is_absent()
            .env_app("100");
        /// Clients may send `client-*` events.
        enable_client_messages: bool = flag().default("false").null_is_absent()
            .env(&["SOCKUDO_ENABLE_CLIENT_MESSAGES"]);
        /// Client events per connection; 0 = unlimited. Beyond: 4301.
        max_client_events_per_second: u32 = zero_is_unlimited().default("10")
            .null_is_absent().upstream("0").env_app("100");
        /// Events of the API; 0 = unlimited.
        max_backend_events_per_second: u32 = zero_is_unlimited().default("0")
            .null_is_absent().env_app("100");
        /// GETs of the API; 0 = unlimited.
        max_read_requests_per_second: u32 = zero_is_unlimited().default("0")
            .null_is_absent().env_app("100");
        /// Users of one presence channel.
        max_presence_members_per_channel: u32 = limit()
            .inherits("presence.max_members_per_channel").env_app("100");
        /// Largest `user_info`.
        presence_member_bytes_max: u32 as "max_presence_member_size_in_kb" = kilobyte_limit()
            .inherits("presence.max_member_size_in_kb").env_app("100");
        /// Longest channel name, in bytes.
        channel_name_bytes_max: u32 as "max_channel_name_length" = limit()
            .inherits("channel_limits.max_name_length").env_app("100");
        /// Channels of one event of the API.
        event_channels_max: u32 as "max_event_channels_at_once" = limit()
            .inherits("event_limits.max_channels_at_once").env_app("100");
        /// Longest event name, in bytes.
        event_name_bytes_max: u32 as "max_event_name_length" = limit()
            .inherits("event_limits.max_name_length").env_app("100");
        /// Largest `data` of an event.
        event_payload_bytes_max: u32 as "max_event_payload_in_kb" = kilobyte_limit()
            .inherits("event_limits.max_payload_in_kb").env_app("100");
        /// Events of one batch of the API.
        event_batch_max: u32 as "max_event_batch_size" = limit()
            .inherits("event_limits.max_batch_size").env_app("100");
        // Ten times what clients of Pusher use; 4 000 rows are some 2 MB.
        /// Channels of one connection; 0 = unlimited.
        subscriptions_per_connection_max: u32 as "max_subscriptions_per_connection" =
            zero_is_unlimited().default("4000").null_is_absent().upstream("0").ours();
        /// Starts `user_authentication_timeout`.
        enable_user_authentication: bool = flag().default("false").null_is_absent();
        /// Tell users who of their watchlist is online.
        enable_watchlist_events: bool = flag().default("false").null_is_absent();
        /// Send `pusher_internal:subscription_count`.
        enable_subscription_count: bool = flag().default("false").null_is_absent().ours();
        /// Refuse (4000) connections without TLS, as `X-Forwarded-Proto` of a trusted proxy tells
        /// it.
        require_tls: bool = flag().default("false").null_is_absent().ours();
        /// See the keys of a webhook.
        _ as "webhooks" = records(&WEBHOOK).default("").null_is_absent();
        webhooks: Vec<Webhook> => all_webhooks;
        /// Origins that may connect; empty = every. `*.example.com` covers the domain itself.
        allowed_origins: Vec<String> = texts(shape::ORIGIN).default("").null_is_absent();
    }
}

fn all_secrets(settings: &Settings) -> Vec<Secret> {
    let first: Option<Secret> = settings.get("secret");
    let mut all: Vec<Secret> = Vec::new();
    for secret in first
        .into_iter()
        .chain(settings.get::<Vec<Secret>>("secrets"))
    {
        if !all.contains(&secret) {
            all.push(secret);
        }
    }
    assert!(!all.is_empty(), "the checks refuse an app without a secret");
    all
}

fn all_webhooks(settings: &Settings) -> Vec<Webhook> {
    settings
        .records("webhooks")
        .iter()
        .map(Webhook::read)
        .collect()
}

section! {
    #[derive(PartialEq)]
    pub struct Webhook {
        /// Where to POST; http or https.
        _ as "url" = url().null_is_absent();
        /// An AWS Lambda function instead.
        _ as "lambda.function_name" = text(shape::NOT_EMPTY);
        /// Its region.
        _ as "lambda.region" = text(shape::NOT_EMPTY).default("us-east-1").nullable();
        /// Older form; the region is `lambda.region`.
        _ as "lambda_function" = text(shape::NOT_EMPTY);
        target: WebhookTarget => WebhookTarget::read;
        /// Events to send; empty = none.
        _ as "event_types" = texts(shape::NOT_EMPTY).required();
        event_types: Vec<EventType> => event_types;
        /// Only channels that begin so.
        _ as "filter.channel_prefix" = text(shape::ANY);
        /// Only channels that end so.
        _ as "filter.channel_suffix" = text(shape::ANY);
        /// Only channels that match.
        _ as "filter.channel_pattern" = text(shape::PATTERN);
        filter: WebhookFilter => WebhookFilter::read;
        /// Added to the request; may not replace the server's own.
        headers: Vec<(String, Secret)> = headers();
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WebhookTarget {
    /// An http or https URL.
    Url(Secret),
    Lambda {
        function_name: String,
        region: String,
    },
}

impl WebhookTarget {
    fn read(settings: &Settings) -> Self {
        if let Some(url) = settings.get("url") {
            return Self::Url(url);
        }
        // Soketi writes the name in one place and the region in the other.
        let function: Option<String> = settings.get("lambda.function_name");
        let function = function.or_else(|| settings.get("lambda_function"));
        let region: Option<String> = settings.get("lambda.region");
        Self::Lambda {
            function_name: function
                .unwrap_or_else(|| unreachable!("the checks refuse a webhook without a target")),
            region: region.unwrap_or_else(|| "us-east-1".to_owned()),
        }
    }
}

fn event_types(settings: &Settings) -> Vec<EventType> {
    let names: Vec<String> = settings.get("event_types");
    names
        .iter()
        .filter_map(|name| EventType::parse(name))
        .collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EventType {
    ChannelOccupied,
    ChannelVacated,
    MemberAdded,
    MemberRemoved,
    ClientEvent,
    CacheMiss,
    SubscriptionCount,
}

impl EventType {
    pub const ALL: [Self; 7] = [
        Self::ChannelOccupied,
        Self::ChannelVacated,
        Self::MemberAdded,
        Self::MemberRemoved,
        Self::ClientEvent,
        Self::CacheMiss,
        Self::SubscriptionCount,
    ];

    /// The name on the wire and in a file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ChannelOccupied => "channel_occupied",
            Self::ChannelVacated => "channel_vacated",
            Self::MemberAdded => "member_added",
            Self::MemberRemoved => "member_removed",
            Self::ClientEvent => "client_event",
            Self::CacheMiss => "cache_miss",
            Self::SubscriptionCount => "subscription_count",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|event_type| event_type.as_str() == name)
    }
}

/// Which channels a webhook hears about: all given parts must match.
#[derive(Clone, Debug, Default)]
pub struct WebhookFilter {
    pub prefix: Option<String>,
    pub suffix: Option<String>,
    pub pattern: Option<regex::Regex>,
}

impl PartialEq for WebhookFilter {
    fn eq(&self, other: &Self) -> bool {
        let parts = |filter: &Self| {
            let pattern = filter.pattern.as_ref().map(|it| it.as_str().to_owned());
            (filter.prefix.clone(), filter.suffix.clone(), pattern)
        };
        parts(self) == parts(other)
    }
}

impl WebhookFilter {
    fn read(settings: &Settings) -> Self {
        let pattern: Option<String> = settings.get("filter.channel_pattern");
        let pattern = pattern.map(|pattern| {
            regex::Regex::new(&pattern).unwrap_or_else(|_| unreachable!("the shape was checked"))
        });
        Self {
            prefix: settings.get("filter.channel_prefix"),
            suffix: settings.get("filter.channel_suffix"),
            pattern,
        }
    }

    pub fn matches(&self, channel: &str) -> bool {
        self.prefix
            .as_deref()
            .is_none_or(|prefix| channel.starts_with(prefix))
            && self
                .suffix
                .as_deref()
                .is_none_or(|suffix| channel.ends_with(suffix))
            && self
                .pattern
                .as_ref()
                .is_none_or(|pattern| pattern.is_match(channel))
    }
}

pub static APP: Table = Table {
    keys: &[App::KEYS],
    aliases: aliases::APP,
    soketi: soketi::APP,
    later: later::APP,
    hoisted: &["policy.limits", "policy.features", "policy.channels"],
};

pub static WEBHOOK: Table = Table {
    keys: &[Webhook::KEYS],
    aliases: aliases::WEBHOOK,
    soketi: &[],
    later: later::WEBHOOK,
    hoisted: &[],
};
