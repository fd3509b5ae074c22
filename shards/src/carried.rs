//! What of a connection goes to another process beside its socket.
//!
//! Owns: `Carried`, plain data.
//! May depend on: serde, the plain types of `wire`.
//! Invariants: fields are named, and each that a later version adds has a default, so that a process
//! reads what an older or a newer one has written; what is secret shows in no `Debug`.

use crate::wire::CarriedTls;
use serde::{Deserialize, Serialize};

/// A connection without its socket and without what its application knows of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Carried {
    /// What waits to be sent, in order; of the first only what the kernel has not taken. Before it goes what
    /// `tls` has sealed already.
    pub unsent: Vec<CarriedFrame>,
    /// Shared frames are not queued any more (`Turn::seal`).
    pub is_sealed: bool,
    /// The application wants to hear when the outbox has drained (`Turn::await_drained`).
    pub awaits_drained: bool,
    /// The application paused reading (`Turn::pause_reading`).
    pub is_paused: bool,
    /// The peer ended its side, and the application was told.
    pub peer_ended: bool,
    /// For how long the kernel has taken nothing of what waits, milliseconds.
    pub blocked_ms: u64,
    /// When its timer falls due, milliseconds of the node's clock, which goes on in the other process
    /// (`Config::started`); `None` = not armed.
    pub timer_ms: Option<u64>,
    /// Its TLS; `None` = it is plain.
    pub tls: Option<CarriedTls>,
}

/// Bytes that wait to be sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CarriedFrame {
    /// Never empty where a shard has carried it.
    #[serde(with = "serde_bytes")]
    pub bytes: Vec<u8>,
    /// Queued with `Turn::send`: it is never dropped.
    pub is_own: bool,
}
