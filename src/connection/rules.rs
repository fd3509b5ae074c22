//! What the node and an app allow a connection.
//!
//! Owns: `NodeRules`, `AppRules`.
//! May depend on: `protocol::{app, auth, origin, partition}`.
//! Invariants: plain values, made once per start or reload; 0 stands for *unlimited* where a field
//! says so.

use std::sync::Arc;

use crate::protocol::{
    app::AppIndex, auth::Signer, origin::OriginPattern, partition::AppPartitions,
};

/// What holds for every connection of the node.
#[derive(Clone, Debug)]
pub struct NodeRules {
    pub activity_timeout_ms: u64,
    /// How long a connection may stay without signing in or subscribing to a channel that needs
    /// authentication, where its app asks for that.
    pub authorize_within_ms: u64,
    pub requires_protocol: bool,
    /// Subscribes, unsubscribes and sign-ins of one connection; 0 = unlimited.
    pub memberships_per_s: u32,
    pub memberships_burst: u32,
    /// Connections are counted for the node.
    pub limits_connections: bool,
    /// How long a message may take, from its first byte to its last.
    pub message_within_ms: u64,
    /// How long a connection may last, and a tenth of it more; 0 = for ever.
    pub age_max_ms: u64,
}

/// What holds for the connections of an app. What is large is shared by all shards, and counted by none of
/// them once it is here.
#[derive(Clone, Debug)]
pub struct AppRules {
    pub index: AppIndex,
    pub key: Arc<str>,
    /// Where its names belong.
    pub partitions: Arc<AppPartitions>,
    /// One per secret.
    pub signers: Arc<[Signer]>,
    /// None: every origin may come.
    pub origins: Arc<[OriginPattern]>,
    pub is_enabled: bool,
    pub requires_tls: bool,
    /// Connections are counted for the app.
    pub limits_connections: bool,
    pub allows_client_events: bool,
    /// Of one connection; 0 = unlimited.
    pub client_events_per_s: u32,
    /// Of one connection; 0 = unlimited.
    pub subscriptions_max: usize,
    pub channel_name_bytes_max: usize,
    pub event_name_bytes_max: usize,
    pub event_data_bytes_max: usize,
    /// Of an event as subscribers get it: what travels to other nodes fits into one batch.
    pub frame_bytes_max: usize,
    pub member_bytes_max: usize,
    /// Channels of one event.
    pub event_channels_max: usize,
    pub batch_events_max: usize,
    pub allows_sign_in: bool,
    pub has_watchlists: bool,
}
