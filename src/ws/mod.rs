//! WebSocket (RFC 6455), server side: bytes to frames and back.
//!
//! Owns: the upgrade's validity, framing, masking, fragments, close codes of the RFC.
//! May depend on: nothing of ours; `simdutf8`, `tungstenite` (the accept key), `thiserror`.
//! Invariants: knows nothing of Pusher; no socket, clock or randomness; no extension is ever
//! negotiated; nothing here panics on any input.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::unwrap_used))]

pub mod codec;
pub mod encode;
pub mod handshake;
