//! What the runtime needs to know before it starts.
//!
//! Owns: `Config`, its ranges and defaults.
//! May depend on: std only.
//! Invariants: a `Config` that `check` accepted can be started on any host whose kernel allows
//! io_uring.

use std::net::SocketAddr;

/// The runtime's settings. `Config::default()` listens on nothing.
#[derive(Clone, Debug)]
pub struct Config {
    /// Shard threads; `None` = one per physical core allowed, less one for the bridge.
    pub shards: Option<u16>,
    /// Pin threads to cores. Given up with a warning when there are fewer cores than threads.
    pub pin: bool,
    /// Core of the bridge thread; `None` = the first core that no shard uses, else the last.
    pub bridge_core: Option<usize>,
    /// Listen addresses; port 0 takes a free port, the same one for all shards.
    pub listen: Vec<SocketAddr>,
    /// Listen backlog per shard.
    pub backlog: u32,
    /// Receive buffers per shard, a power of two.
    pub recv_buffers: u16,
    /// Bytes of one receive buffer.
    pub recv_buffer_bytes: u32,
    /// Bound of one connection's outbox.
    pub outbox_bytes_max: u32,
    /// Spin this long before parking, microseconds.
    pub busy_poll_us: u32,
    /// Messages from one shard to another before senders are held back.
    pub mesh_messages_max: u32,
    /// Messages between one shard and the bridge, each way.
    pub bridge_messages_max: u32,
    /// Connections per shard at most; more are closed right after accept.
    pub connections_max: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            shards: None,
            pin: true,
            bridge_core: None,
            listen: Vec::new(),
            backlog: 4_096,
            recv_buffers: 1_024,
            recv_buffer_bytes: 4_096,
            outbox_bytes_max: 1_048_576,
            busy_poll_us: 0,
            mesh_messages_max: 8_192,
            bridge_messages_max: 8_192,
            connections_max: 4_000_000,
        }
    }
}
