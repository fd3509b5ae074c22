//! A thread-per-core runtime: pinned shard threads, each with a glommio executor and an io_uring
//! net ring, joined by a mesh of bounded queues and by a link to one bridge thread.
//!
//! Owns: threads, pinning, listeners, sockets, buffers, outboxes, timers, queues between threads.
//! May depend on: glommio, io-uring, crossbeam-channel, tokio (bridge thread only), libc; serde for what is
//! carried to another process.
//! Invariants: a connection never leaves its shard once the application has seen it, but for another
//! process, and then only from a node at rest; shards and
//! bridge share no mutable memory but flags and byte counts; nothing here knows what bytes mean.

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
#![warn(missing_docs, reason = "each application builds on this page alone")]

pub mod application;
pub mod bridge;
pub mod carried;
pub mod config;
pub mod error;
pub mod small_pages;
pub mod start;
pub mod work;

mod buffers;
mod carrying;
mod closing;
mod connections;
mod doorbell;
mod frames;
mod freezing;
mod inbound;
mod lanes;
mod listener;
mod mesh;
mod neighbours;
mod outbound;
mod ring;
mod rows;
mod sealed;
mod settling;
mod shard;
mod timers;
mod topology;
mod turn;
mod wire;

pub use application::{
    Application, BridgeDropped, BridgeFull, Closed, FrameId, Lane, Millis, Peer, PublishRoom,
    Queued, RuntimeCounters, ShardId, Slot, Turn, TurnOf,
};
pub use bridge::BridgeLink;
pub use carried::{Carried, CarriedFrame, FramesAs, SharedFrame};
pub use config::Config;
pub use error::{StartError, advice};
pub use neighbours::{Neighbour, Process, holders_of, holders_told};
pub use settling::Freeze;
pub use start::{abort_on_panic, run};
pub use topology::allowed_cores;
pub use wire::{CarriedKeys, CarriedTls, Secret, TlsCounters, TlsPort};
pub use work::Work;
