//! Many nodes as one: what they tell each other, and who of them is there.
//!
//! Owns: `identity` (who speaks), `wire` (batches as bytes), `entry` and `change` (what stands in
//! them), `mac` (who may speak), `topic` (where batches travel), `membership` (who is there), `node` (all of
//! it together: messages in, messages and effects out) with its `start`, `drafts`, `replay`, `canary`, `tallies` and `figures`;
//! `state` (who holds what): `ledger` and `supply` (the own, told and asked for), `view` and `replica` (the
//! peers', merged), all of it in `holdings` of `table`s with `app_ids`; `owner` (who tells webhooks);
//! `carrying` (all of it for the process that follows).
//! May depend on: `protocol`, plain ids; `hmac`, `sha2`, `subtle`, `thiserror`; serde and MessagePack. Not on the bus (it
//! sees messages in, messages out), sockets, clocks, randomness.
//! Invariants: stated at the head of each file; nothing here panics on any bytes of the bus.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::unwrap_used))]

mod app_ids;
mod canary;
pub mod carrying;
pub mod change;
mod drafts;
pub mod entry;
pub mod fault;
pub mod field;
pub mod figures;
pub mod holdings;
pub mod identity;
pub mod ledger;
pub mod mac;
pub mod membership;
pub mod node;
pub mod owner;
mod replay;
mod replica;
mod retelling;
pub mod start;
pub mod state;
pub mod supply;
mod table;
pub mod tallies;
pub mod topic;
pub mod view;
pub mod wire;

#[cfg(test)]
mod node_tests;
#[cfg(test)]
mod tests;
