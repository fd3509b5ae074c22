//! The hand-over: what a running process and the one that follows it say to each other, and how.
//!
//! Owns: the socket pair between them (`link`), its words (`packet`), the successor as a process (`process`), the
//! predecessor as the successor meets it (`predecessor`), one clock for both (`clock`); the records of connections,
//! channels and limits (`record`).
//! May depend on: rustix, serde, tokio's readiness of descriptors; `record` on `http::body` and what `shards` carries.
//! Not on the server or the bridge.
//! Invariants: whatever arrives is bounded and checked before it is believed; of packets and records alike a field that a
//! reader does not know is skipped, and one that is missing has a default; only `record` knows what a record means.

pub mod clock;
pub mod link;
pub mod packet;
pub mod predecessor;
pub mod process;
pub mod record;

#[cfg(test)]
mod frozen_tests;
