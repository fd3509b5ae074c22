//! An app: its credentials, its switches, its limits, its webhooks.
//!
//! Owns: the record that the whole server reads. The server's own limits are already resolved into
//! it, so a reader asks the app and nobody else.
//! May depend on: `secret`, `regex`.
//! Invariants: `secrets` is never empty and its first entry signs; every origin and pattern was
//! checked; the limits say "unlimited" as their fields' comments do.

use super::secret::Secret;

#[derive(Clone, Debug)]
pub struct App {
    pub id: String,
    /// An id of earlier versions that the HTTP API still answers to.
    pub former_id: Option<&'static str>,
    pub key: String,
    /// Any verifies; the first signs.
    pub secrets: Vec<Secret>,
    pub enabled: bool,
    /// 0 = unlimited.
    pub max_connections: u64,
    pub enable_client_messages: bool,
    /// Per connection; 0 = unlimited.
    pub max_client_events_per_second: u32,
    /// 0 = unlimited.
    pub max_backend_events_per_second: u32,
    /// 0 = unlimited.
    pub max_read_requests_per_second: u32,
    /// `u32::MAX` = unlimited; so in all that follow, up to `event_batch_max`.
    pub max_presence_members_per_channel: u32,
    pub presence_member_bytes_max: u32,
    pub channel_name_bytes_max: u32,
    pub event_channels_max: u32,
    pub event_name_bytes_max: u32,
    pub event_payload_bytes_max: u32,
    pub event_batch_max: u32,
    /// 0 = unlimited.
    pub subscriptions_per_connection_max: u32,
    pub enable_user_authentication: bool,
    pub enable_watchlist_events: bool,
    pub enable_subscription_count: bool,
    pub require_tls: bool,
    pub webhooks: Vec<Webhook>,
    /// Checked patterns; empty = every origin.
    pub allowed_origins: Vec<String>,
}

#[derive(Clone, Debug)]
pub struct Webhook {
    pub target: WebhookTarget,
    /// Empty = none.
    pub event_types: Vec<EventType>,
    pub filter: WebhookFilter,
    /// Added to the request; values may be credentials.
    pub headers: Vec<(String, Secret)>,
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

impl WebhookFilter {
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
