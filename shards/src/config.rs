//! What the runtime needs to know before it starts.
//!
//! Owns: `Config`, its ranges and defaults.
//! May depend on: thiserror, `wire::TlsPort`.
//! Invariants: a `Config` that `check` accepted can be started on any host whose kernel allows
//! io_uring.

use crate::wire::TlsPort;
use std::{
    net::SocketAddr,
    os::{fd::OwnedFd, unix::net::UnixListener},
    sync::Arc,
    time::Instant,
};
use thiserror::Error;

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
    /// A Unix socket from which all shards accept too; who comes over it has no address.
    pub local: Option<Arc<UnixListener>>,
    /// Listen backlog per shard.
    pub backlog: u32,
    /// Receive buffers per shard, a power of two.
    pub recv_buffers: u16,
    /// Bytes of one receive buffer.
    pub recv_buffer_bytes: u32,
    /// Bound of one connection's outbox.
    pub outbox_bytes_max: u32,
    /// What an outbox may hold beyond that while the kernel goes on taking bytes of it; below
    /// `outbox_bytes_max` it changes nothing.
    pub burst_bytes_max: u32,
    /// Work that one turn may do, microseconds at the prices of `work`.
    pub turn_work_us: u32,
    /// Spin this long before parking, microseconds.
    pub busy_poll_us: u32,
    /// Messages to one shard from all others before senders are held back; each pair of shards has
    /// its part of it, and 256 at least.
    pub mesh_messages_max: u32,
    /// Messages between one shard and the bridge, each way; of events as many again.
    pub bridge_messages_max: u32,
    /// Bytes of the events that wait on one shard for the bridge; more drops the oldest of the
    /// source that holds the most.
    pub bridge_event_bytes_max: u32,
    /// Connections of the node at most; more are closed right after accept. Shards know each
    /// other's counts but a tick late, so that some more may be let in.
    pub connections_max: u32,
    /// TLS on all listeners; `None` = what comes is plain.
    pub tls: Option<TlsPort>,
    /// Starts frozen: nothing is read, sent or accepted and no timer fires before `BridgeLink::thaw`.
    pub frozen: bool,
    /// Listening TCP sockets of another process, to be listened on in place of new ones where their
    /// address is wanted. They are dealt to the shards, however many that process had; the copies are
    /// given up by the start, so that whoever keeps others listens on.
    pub inherited: Vec<Arc<OwnedFd>>,
    /// Origin of the node's clock, so that times mean the same as in the process before; `None` = now.
    pub started: Option<Instant>,
}

impl Config {
    /// Messages from one shard to another before senders are held back: what one shard may be sent
    /// by all, divided, since queues for each pair grow with the square of the shards.
    pub(crate) fn mesh_messages_per_pair(&self, shards: u16) -> usize {
        let peers = u32::from(shards).saturating_sub(1).max(1);
        let least = self.mesh_messages_max.min(MESH_MESSAGES_PER_PAIR_MIN);
        (self.mesh_messages_max / peers).max(least) as usize
    }
}

/// A pair of shards has at least this many, however many shards there are.
const MESH_MESSAGES_PER_PAIR_MIN: u32 = 256;

impl Default for Config {
    fn default() -> Self {
        Self {
            shards: None,
            pin: true,
            bridge_core: None,
            listen: Vec::new(),
            local: None,
            backlog: 4_096,
            recv_buffers: 1_024,
            recv_buffer_bytes: 4_096,
            outbox_bytes_max: 1_048_576,
            burst_bytes_max: 8_388_608,
            turn_work_us: 1_250,
            busy_poll_us: 0,
            mesh_messages_max: 8_192,
            bridge_messages_max: 8_192,
            bridge_event_bytes_max: 16 * 1_024 * 1_024,
            connections_max: 4_000_000,
            tls: None,
            frozen: false,
            inherited: Vec::new(),
            started: None,
        }
    }
}

/// A setting is out of its range.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("{key} = {value}: must be {allowed}")]
pub struct ConfigError {
    /// The field of `Config`.
    pub key: &'static str,
    /// Its value.
    pub value: u64,
    /// What is allowed.
    pub allowed: &'static str,
}

impl Config {
    /// Checks all ranges.
    ///
    /// # Errors
    /// Names the first setting that is out of its range.
    pub fn check(&self) -> Result<(), ConfigError> {
        let shards = u64::from(self.shards.unwrap_or(1));
        let buffers = u64::from(self.recv_buffers);
        let buffers_ok = self.recv_buffers.is_power_of_two() && (8..=32_768).contains(&buffers);
        let buffer_bytes = u64::from(self.recv_buffer_bytes);
        let outbox = u64::from(self.outbox_bytes_max);
        let burst = u64::from(self.burst_bytes_max);
        let work = u64::from(self.turn_work_us);
        let mesh = u64::from(self.mesh_messages_max);
        let bridge = u64::from(self.bridge_messages_max);
        let rules = [
            ("shards", shards, (1..=1_024).contains(&shards), "1..=1024"),
            (
                "recv_buffers",
                buffers,
                buffers_ok,
                "a power of two in 8..=32768",
            ),
            (
                "recv_buffer_bytes",
                buffer_bytes,
                (256..=1_048_576).contains(&buffer_bytes),
                "256..=1048576",
            ),
            (
                "outbox_bytes_max",
                outbox,
                (1_024..=1_073_741_824).contains(&outbox),
                "1024..=1073741824",
            ),
            (
                "burst_bytes_max",
                burst,
                (1_024..=1_073_741_824).contains(&burst),
                "1024..=1073741824",
            ),
            (
                "turn_work_us",
                work,
                (10..=100_000).contains(&work),
                "10..=100000",
            ),
            (
                "mesh_messages_max",
                mesh,
                (1..=16_777_216).contains(&mesh),
                "1..=16777216",
            ),
            (
                "bridge_messages_max",
                bridge,
                (1..=16_777_216).contains(&bridge),
                "1..=16777216",
            ),
            (
                "bridge_event_bytes_max",
                u64::from(self.bridge_event_bytes_max),
                (65_536..=1_073_741_824).contains(&self.bridge_event_bytes_max),
                "65536..=1073741824",
            ),
        ];
        match rules.into_iter().find(|(_, _, is_allowed, _)| !is_allowed) {
            Some((key, value, _, allowed)) => Err(ConfigError {
                key,
                value,
                allowed,
            }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_out_of_range_are_named_with_what_is_allowed() {
        assert_eq!(Config::default().check(), Ok(()));
        let error = Config {
            recv_buffers: 1_000,
            ..Config::default()
        }
        .check();
        let error = error.expect_err("not a power of two");
        assert_eq!(
            error.to_string(),
            "recv_buffers = 1000: must be a power of two in 8..=32768"
        );
        let error = Config {
            shards: Some(0),
            ..Config::default()
        }
        .check();
        assert_eq!(error.expect_err("no shard").key, "shards");
    }
}
