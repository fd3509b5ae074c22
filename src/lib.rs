//! Sockudo as a library: the rooms that the server binary is made of, so that tests and benches can
//! enter each.
//!
//! Owns: the list of rooms.
//! May depend on: nothing.
//! Invariants: a room named here as pure holds no socket, clock, thread or random source.

#![cfg_attr(
    test,
    allow(
        clippy::cast_possible_truncation,
        reason = "numbers of a test are its own"
    )
)]
#![cfg_attr(
    not(test),
    warn(
        clippy::wildcard_enum_match_arm,
        reason = "a new variant makes the compiler list every place to think about"
    )
)]

pub mod bridge;
pub mod channel;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod connection;
pub mod handover;
mod holders;
pub mod http;
pub mod logging;
pub mod metrics;
pub mod protocol;
pub mod serve;
pub mod server;
pub mod ws;
