//! What Sockudo counts, and how it is shown.
//!
//! Owns: metric names, per-shard counters, the exposition.
//! May depend on: `shards` for its counters, `prometheus` (exposition only).
//! Invariants: a shard counts into plain numbers of its own; summing happens on the bridge.

pub mod backend;
pub mod bridge;
mod catalogue;
pub mod cluster;
pub mod counters;
pub mod exposition;
mod families;
mod node;
pub mod packed;
pub mod sample;
mod upstream;

#[cfg(test)]
mod tests;
