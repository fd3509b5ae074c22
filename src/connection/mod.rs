//! One connection: a row of plain data, and the small machines in it.
//!
//! Owns: the row, its keep-alive, its client-event rate, its list of subscriptions.
//! May depend on: `protocol`, `ws`, `http`, `channel` for the references that it holds, plain ids.
//! Not on channel rosters or other connections, sockets, clocks.
//! Invariants: stated at the head of each file. The row is plain data: no closure, no future.
#![forbid(unsafe_code)]

pub mod body;
pub mod keep_alive;
pub mod pending;
pub mod row;
pub mod subscriptions;
pub mod table;
pub mod token_bucket;
