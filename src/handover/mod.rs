//! The hand-over: what a running process and the one that follows it say to each other, and how.
//!
//! Owns: the socket pair between them (`link`), its words (`packet`), the successor as a process (`process`).
//! May depend on: rustix, serde, tokio's readiness of descriptors. Not on the server, the bridge or `shards`.
//! Invariants: nothing here knows what a record means; whatever arrives is bounded and checked before it is believed.

pub mod link;
pub mod packet;
pub mod process;
