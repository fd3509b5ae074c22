//! The batches in which records travel.
//!
//! Owns: `Exported`, `Import`.
//! May depend on: std.
//! Invariants: a record is bytes here.

use std::{
    os::fd::{OwnedFd, RawFd},
    sync::Arc,
};

/// A part of what a shard holds, for the next process.
#[derive(Clone, Debug, Default)]
pub struct Exported {
    /// Sockets, which stay this process', and the written records of their connections.
    pub connections: Vec<(RawFd, Vec<u8>)>,
    /// Written `StateRecord`s.
    pub state: Vec<Vec<u8>>,
    /// Connections that cannot follow.
    pub left: u64,
    /// Connections whose answer is awaited still.
    pub stuck: u64,
    pub is_last: bool,
}

/// A part of what another process held.
#[derive(Debug, Default)]
pub struct Import {
    pub connections: Vec<(OwnedFd, Vec<u8>)>,
    /// Of the whole node: each shard takes what is its own.
    pub state: Arc<[Vec<u8>]>,
    /// Nothing follows; `ToBridge::Imported` is the answer.
    pub is_last: bool,
}
