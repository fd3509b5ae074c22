//! What the node allows a connection; what its app does, is in `protocol::rules`.
//!
//! Owns: `NodeRules`.
//! May depend on: nothing.
//! Invariants: plain values, made once per start or reload; 0 stands for *unlimited* where a field
//! says so.

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
    /// Of an event as subscribers get it: what travels to other nodes fits into one batch.
    pub frame_bytes_max: usize,
}
