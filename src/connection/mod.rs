//! One connection: a row of plain data, and the small machines in it.
//!
//! Owns: the row, its keep-alive, its client-event rate, its list of subscriptions.
//! May depend on: `protocol`, `ws`, `http`, `handover::record`, `channel` for the references that it holds, plain ids.
//! Not on channel rosters or other connections, sockets, clocks.
//! Invariants: stated at the head of each file. The row is plain data: no closure, no future.
#![forbid(unsafe_code)]

pub mod api;
pub mod body;
mod carry;
mod client_event;
pub mod deadline;
pub mod effect;
#[cfg(test)]
mod fixture;
pub mod input;
pub mod keep_alive;
#[cfg(test)]
mod pair;
pub mod pending;
pub mod publication;
pub mod row;
pub mod rules;
pub mod sign_in;
mod step;
mod subscribe;
pub mod subscriptions;
pub mod table;
pub mod token_bucket;
pub mod upgrade;
