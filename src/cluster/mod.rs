//! Many nodes as one: what they tell each other, and who of them is there.
//!
//! Owns: `identity` (who speaks), `wire` (batches as bytes), `entry` and `change` (what stands in
//! them), `mac` (who may speak), `topic` (where batches travel), `membership` (who is there), `node` (all of
//! it together: messages in, messages and effects out) with its `start`, `drafts`, `replay`, `canary`.
//! May depend on: `protocol`, plain ids; `hmac`, `sha2`, `subtle`, `thiserror`. Not on the bus (it
//! sees messages in, messages out), sockets, clocks, randomness.
//! Invariants: stated at the head of each file; nothing here panics on any bytes of the bus.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::unwrap_used))]

mod canary;
pub mod change;
mod drafts;
pub mod entry;
pub mod field;
pub mod identity;
pub mod mac;
pub mod membership;
pub mod node;
mod replay;
pub mod start;
pub mod topic;
pub mod wire;

#[cfg(test)]
mod node_tests;
#[cfg(test)]
mod tests;
