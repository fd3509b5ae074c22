//! The hand-over: what a running process and the one that follows it say to each other, and how.
//!
//! Owns: the socket pair between them (`link`), its words (`packet`), the successor as a process (`process`), the
//! predecessor as the successor meets it (`predecessor`), one clock for both (`clock`).
//! May depend on: rustix, serde, tokio's readiness of descriptors. Not on the server, the bridge or `shards`.
//! Invariants: nothing here knows what a record means; whatever arrives is bounded and checked before it is believed.

pub mod clock;
pub mod link;
pub mod packet;
pub mod predecessor;
pub mod process;
pub mod record;
