//! Pusher Channels protocol 7 as values: names, frames' JSON, signatures, codes. Bytes in, values
//! out.
//!
//! Owns: every rule of the wire contract that needs neither a connection nor a channel to decide.
//! May depend on: nothing of ours; `hmac`, `sha2`, `md-5`, `siphasher`, `subtle`, `smallvec`,
//! `thiserror`.
//! Invariants: no socket, clock, randomness, runtime or channel state; what a value of a checked
//! type proves stands in its doc comment; nothing here panics on any input.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::unwrap_used))]

pub mod app;
pub mod auth;
pub mod code;
pub mod incoming;
pub mod json;
pub mod name;
pub mod origin;
pub mod outgoing;
pub mod partition;
pub mod presence;
pub mod query;
pub mod request_auth;
pub mod rules;
pub mod signed_text;
pub mod socket_id;
pub mod webhook;
