//! Channels: the home's truth about each one, and each shard's own subscribers.
//!
//! Owns: `home` (one channel: occupancy, roster, order), `kept` (its last event), `home_table` (all of a shard),
//! `home_effect` (what their steps ask for), `local` (a shard's subscribers), `timed` (how long their
//! events take).
//! May depend on: `protocol`, `handover::record`, the plain ids of `shards::application`. Not on connections (it knows
//! slots), queues, sockets, clocks.
//! Invariants: stated at the head of each file.
#![forbid(unsafe_code)]

mod departures;
pub mod home;
mod home_carry;
pub mod home_effect;
pub mod home_later;
pub mod home_table;
pub mod kept;
mod kept_order;
pub mod largest;
pub mod local;
pub mod names;
pub mod roster;
pub mod rows;
pub mod socket_set;
pub mod timed;
pub mod user;
