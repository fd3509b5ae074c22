//! Sockudo as a library: the rooms that the server binary is made of, so that tests and benches can enter each.
//!
//! Owns: the list of rooms.
//! May depend on: nothing.
//! Invariants: a room named here as pure holds no socket, clock, thread or random source.

pub mod protocol;
