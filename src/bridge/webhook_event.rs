//! One event for the webhooks of an app, on its way from a shard to the queue.
//!
//! Owns: its kinds, and which of them an app wants.
//! May depend on: `protocol`.
//! Invariants: the column of a kind is the number of its bit in `WebhookInterest`.

use std::sync::Arc;

use crate::protocol::{app::AppIndex, webhook as wire};

/// One event for the webhooks of an app.
#[derive(Clone, Debug, PartialEq)]
pub struct WebhookEvent {
    pub app: AppIndex,
    /// Wall clock of its making, milliseconds since the Unix epoch.
    pub time_ms: u64,
    pub channel: Arc<str>,
    pub kind: WebhookKind,
}

/// What an app may be told (docs/http-api.md).
#[derive(Clone, Debug, PartialEq)]
pub enum WebhookKind {
    ChannelOccupied,
    ChannelVacated,
    MemberAdded { user_id: Arc<str> },
    MemberRemoved { user_id: Arc<str> },
    ClientEvent(Box<ClientEventOfWebhook>),
    CacheMiss,
    SubscriptionCount { count: u64 },
}

impl WebhookKind {
    /// Number of the kind; the bit `1 << column` stands for it in `WebhookInterest`.
    pub fn column(&self) -> usize {
        match self {
            Self::ChannelOccupied => 0,
            Self::ChannelVacated => 1,
            Self::MemberAdded { .. } => 2,
            Self::MemberRemoved { .. } => 3,
            Self::ClientEvent(_) => 4,
            Self::CacheMiss => 5,
            Self::SubscriptionCount { .. } => 6,
        }
    }
}

impl WebhookEvent {
    /// As it stands in a body.
    pub fn on_the_wire(&self) -> wire::WebhookEvent<'_> {
        let channel = &*self.channel;
        match &self.kind {
            WebhookKind::ChannelOccupied => wire::WebhookEvent::ChannelOccupied { channel },
            WebhookKind::ChannelVacated => wire::WebhookEvent::ChannelVacated { channel },
            WebhookKind::MemberAdded { user_id } => {
                wire::WebhookEvent::MemberAdded { channel, user_id }
            }
            WebhookKind::MemberRemoved { user_id } => {
                wire::WebhookEvent::MemberRemoved { channel, user_id }
            }
            WebhookKind::ClientEvent(event) => wire::WebhookEvent::ClientEvent {
                channel,
                event_token: &event.event,
                data_token: &event.data,
                socket_id: &event.socket_id,
                user_id: event.user_id.as_deref(),
            },
            WebhookKind::CacheMiss => wire::WebhookEvent::CacheMiss { channel },
            WebhookKind::SubscriptionCount { count } => wire::WebhookEvent::SubscriptionCount {
                channel,
                count: *count,
            },
        }
    }

    /// About the bytes that the event holds while it waits, as a job of its own.
    pub fn approximate_bytes(&self) -> usize {
        let fixed = 384 + self.channel.len();
        match &self.kind {
            WebhookKind::ClientEvent(event) => fixed + event.event.len() + event.data.len(),
            WebhookKind::MemberAdded { user_id } | WebhookKind::MemberRemoved { user_id } => {
                fixed + user_id.len()
            }
            WebhookKind::ChannelOccupied
            | WebhookKind::ChannelVacated
            | WebhookKind::CacheMiss
            | WebhookKind::SubscriptionCount { .. } => fixed,
        }
    }
}

/// The fields of a `client_event`; `event` and `data` are JSON string tokens with their quotes.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientEventOfWebhook {
    pub event: Box<str>,
    pub data: Box<str>,
    pub socket_id: Box<str>,
    pub user_id: Option<Arc<str>>,
}

/// Bits of the webhook kinds that an app wants, so that a shard makes no event for nobody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WebhookInterest(pub u8);

impl WebhookInterest {
    pub const CHANNEL_OCCUPIED: u8 = 1;
    pub const CHANNEL_VACATED: u8 = 2;
    pub const MEMBER_ADDED: u8 = 4;
    pub const MEMBER_REMOVED: u8 = 8;
    pub const CLIENT_EVENT: u8 = 16;
    pub const CACHE_MISS: u8 = 32;
    pub const SUBSCRIPTION_COUNT: u8 = 64;

    /// True if any of `bits` is wanted.
    pub fn any(self, bits: u8) -> bool {
        self.0 & bits != 0
    }
}
