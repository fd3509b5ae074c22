//! What of a connection goes to another process beside its socket.
//!
//! Owns: `Carried`, `SharedFrame`, plain data.
//! May depend on: serde, the plain types of `wire`.
//! Invariants: fields are named, and each that a later version adds has a default, so that a process
//! reads what an older or a newer one has written; what is secret shows in no `Debug`.

use crate::wire::CarriedTls;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

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
    /// Empty only where `shared` says which they are.
    #[serde(with = "serde_bytes", skip_serializing_if = "Vec::is_empty")]
    pub bytes: Vec<u8>,
    /// Queued with `Turn::send`: it is never dropped.
    #[serde(skip_serializing_if = "is_false")]
    pub is_own: bool,
    /// The number of the `SharedFrame` whose bytes they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shared: Option<u64>,
    /// Bytes of that one which the kernel has taken; of the first in an outbox only.
    #[serde(skip_serializing_if = "is_zero")]
    pub sent: u32,
}

// A frame that says what it is not would be longer than most of the names of frames that it refers to.
fn is_false(is_so: &bool) -> bool {
    !is_so
}

fn is_zero(count: &u32) -> bool {
    *count == 0
}

/// How frames that several connections wait for are carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FramesAs {
    /// As copies, for each connection.
    #[default]
    Bytes,
    /// As the numbers of those that `Turn::carry_frames` has told.
    Numbers,
}

/// Bytes that wait on several connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedFrame {
    /// No other frame of this process has it as long as these bytes are held; the same bytes may have it on
    /// several shards.
    pub number: u64,
    /// All of them.
    pub bytes: Arc<[u8]>,
}
