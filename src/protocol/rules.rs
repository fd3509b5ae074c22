//! What an app allows its connections and its own requests.
//!
//! Owns: `AppRules`.
//! May depend on: `protocol::{app, auth, origin, partition}`.
//! Invariants: plain values, made once when the app became what it is; 0 stands for *unlimited* where a field
//! says so.

use super::{app::AppIndex, auth::Signer, origin::OriginPattern, partition::AppPartitions};

/// What holds for the connections of an app: a row that all shards read and none of them changes. There may be ten
/// thousand, so it is kept short.
#[derive(Clone, Debug)]
pub struct AppRules {
    pub index: AppIndex,
    pub key: Box<str>,
    /// Where its names belong.
    pub partitions: AppPartitions,
    /// One per secret.
    pub signers: Box<[Signer]>,
    /// None: every origin may come.
    pub origins: Box<[OriginPattern]>,
    pub is_enabled: bool,
    pub requires_tls: bool,
    /// Connections are counted for the app.
    pub limits_connections: bool,
    pub allows_client_events: bool,
    /// Of one connection; 0 = unlimited.
    pub client_events_per_s: u32,
    /// Of one connection; 0 = unlimited.
    pub subscriptions_max: u32,
    pub channel_name_bytes_max: u32,
    pub event_name_bytes_max: u32,
    pub event_data_bytes_max: u32,
    pub member_bytes_max: u32,
    /// Channels of one event.
    pub event_channels_max: u32,
    pub batch_events_max: u32,
    pub allows_sign_in: bool,
    pub has_watchlists: bool,
}
