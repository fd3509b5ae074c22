//! A thread-per-core runtime: pinned shard threads, each with a glommio executor and an io_uring
//! net ring, joined by a mesh of bounded queues and by a link to one bridge thread.
//!
//! Owns: threads, pinning, listeners, sockets, buffers, outboxes, timers, queues between threads.
//! May depend on: glommio, io-uring, crossbeam-channel, tokio (bridge thread only), libc.
//! Invariants: a connection never leaves its shard once the application has seen it; shards and
//! bridge share no mutable memory; nothing here knows what the bytes mean.

pub mod application;
pub mod config;

pub use application::{Application, Closed, Queued, Turn};
