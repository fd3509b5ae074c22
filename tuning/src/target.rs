//! What a number of connections asks of a host: the formulas.
//!
//! Owns: `Target`, `Needs`, every constant that they are computed from.
//! May depend on: `host`.
//! Invariants: more connections never need less; nothing overflows, whatever is asked for. `docs/host.md` has a
//! row for each formula, with its source.

use crate::host::Host;

/// What the host is wanted for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Connections at once.
    pub connections: u64,
    /// Threads that serve them; `None`: as many as the server starts by itself.
    pub shards: Option<u64>,
    /// Ports that the server listens on.
    pub ports: Vec<u16>,
}

impl Default for Target {
    fn default() -> Self {
        Self {
            connections: 10_000,
            shards: None,
            ports: vec![6_001, 9_601],
        }
    }
}

/// What that comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needs {
    /// Connections at once.
    pub connections: u64,
    /// Shards, as given or as the server chooses.
    pub shards: u64,
    /// Open files of the server.
    pub files: u64,
    /// Open files of the host: those of the server and of everything else.
    pub files_of_host: u64,
    /// Locked memory without which the rings do not start.
    pub locked_bytes_min: u64,
    /// Locked memory with room.
    pub locked_bytes: u64,
    /// Connections that wait for their accept, per listener; also for half-open ones.
    pub backlog: u64,
    /// Packets that wait for a core.
    pub device_backlog: u64,
    /// Pages of TCP's buffers at which the kernel begins to save.
    pub tcp_pages_pressure: u64,
    /// Pages of TCP's buffers at most.
    pub tcp_pages: u64,
    /// Entries of connection tracking.
    pub tracked: u64,
    /// Memory of server and kernel for idle connections.
    pub memory_bytes: u64,
    /// Threads of the server.
    pub threads: u64,
}

impl Target {
    /// Computes what this host must have.
    pub fn needs(&self, host: &Host) -> Needs {
        let quota = host.group.quota_cores();
        let shards = self
            .shards
            .unwrap_or_else(|| host.cores.shards(quota))
            .max(1);
        self.needs_of_shards(shards)
    }

    /// Computes what so many shards must have.
    pub fn needs_of_shards(&self, shards: u64) -> Needs {
        let connections = self.connections;
        let per_shard = connections.div_ceil(shards);
        // A 64th of the sockets is kept for requests (`serve.rs`).
        let sockets = connections.saturating_add(connections.div_ceil(63));
        let files = sockets
            .saturating_add(FILES_RESERVED)
            .saturating_add(shards.saturating_mul(FILES_OF_SHARD));
        let locked = |per_shard: u64| shards.saturating_mul(per_shard);
        let of_connections = connections.saturating_mul(CONNECTION_BYTES + CONNECTION_KERNEL_BYTES);
        let of_shards = PROCESS_BYTES.saturating_add(shards.saturating_mul(SHARD_BYTES));
        Needs {
            connections,
            shards,
            files,
            files_of_host: files.saturating_add(FILES_OF_OTHERS),
            locked_bytes_min: locked(LOCKED_OF_SHARD).max(LOCKED_MIN),
            locked_bytes: locked(LOCKED_OF_SHARD.next_power_of_two()).max(LOCKED_USUAL),
            backlog: power_of_two(per_shard / STALLS_PER_S).clamp(BACKLOG_MIN, BACKLOG_MAX),
            device_backlog: power_of_two(connections / PACKET_STALLS_PER_S).clamp(1_000, 32_768),
            tcp_pages_pressure: connections,
            tcp_pages: connections.saturating_mul(2),
            tracked: connections
                .saturating_mul(2)
                .saturating_add(TRACKED_OF_OTHERS),
            memory_bytes: of_connections.saturating_add(of_shards),
            threads: shards
                .saturating_mul(THREADS_PER_SHARD)
                .saturating_add(THREADS_BESIDE),
        }
    }
}

fn power_of_two(value: u64) -> u64 {
    value.checked_next_power_of_two().unwrap_or(u64::MAX)
}

/// docs/capacity.md, as `sockudo bench plan` counts: a connection with one channel of its own.
pub const CONNECTION_BYTES: u64 = 275 + 262;
/// docs/capacity.md, *Kernel memory*.
pub const CONNECTION_KERNEL_BYTES: u64 = 4_200;
/// docs/capacity.md, *A node before its first connection*.
pub const PROCESS_BYTES: u64 = 12_000_000;
/// The same, of each shard.
pub const SHARD_BYTES: u64 = 7_200_000;
/// `serve.rs`: for bridge, webhooks, scrapes and logs.
const FILES_RESERVED: u64 = 256;
/// `serve.rs`: rings and doorbells (8), accepts that others do not know of yet (16), a listener for each of two hosts.
const FILES_OF_SHARD: u64 = 26;
/// What a host without the server has open, generously.
const FILES_OF_OTHERS: u64 = 16_384;
/// `shards/src/start.rs`: less is refused.
const LOCKED_MIN: u64 = 512 << 10;
/// Three buffers of 64 KiB that an executor registers (`shards/src/small_pages.rs`).
const LOCKED_OF_SHARD: u64 = 192 << 10;
const LOCKED_USUAL: u64 = 8 << 20;
/// All clients come back within a second, and a shard is away for a 16th of it at most.
const STALLS_PER_S: u64 = 16;
/// The same of a core that handles packets: a 64th.
const PACKET_STALLS_PER_S: u64 = 64;
/// `net.backlog`, unless the configuration says more.
const BACKLOG_MIN: u64 = 4_096;
const BACKLOG_MAX: u64 = 65_535;
const TRACKED_OF_OTHERS: u64 = 16_384;
/// A shard's own and those that its executor starts for blocking calls.
const THREADS_PER_SHARD: u64 = 4;
/// Bridge, look-ups of names, pools of databases.
const THREADS_BESIDE: u64 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_connections_never_need_less_and_nothing_overflows() {
        let needs = |connections, shards| {
            let target = Target {
                connections,
                ..Target::default()
            };
            let it = target.needs_of_shards(shards);
            [
                it.files,
                it.files_of_host,
                it.locked_bytes_min,
                it.locked_bytes,
                it.backlog,
                it.device_backlog,
                it.tcp_pages_pressure,
                it.tcp_pages,
                it.tracked,
                it.memory_bytes,
                it.threads,
            ]
        };
        for shards in [1, 12, 1_024, u64::MAX] {
            let mut before = needs(0, shards);
            for connections in [1, 62, 63, 64, 10_000, 1_000_000, u64::MAX / 2, u64::MAX] {
                let now = needs(connections, shards);
                for (less, more) in before.iter().zip(now) {
                    assert!(
                        *less <= more,
                        "{connections} on {shards}: {before:?} {now:?}"
                    );
                }
                before = now;
            }
        }
    }

    #[test]
    fn the_files_leave_the_server_all_the_sockets_asked_for() {
        // As `serve.rs` counts, with two hosts to listen on.
        for (connections, shards) in [(1, 1), (63, 1), (1_000_000, 12)] {
            let target = Target {
                connections,
                ..Target::default()
            };
            let files = target.needs_of_shards(shards).files;
            let accepts = files - (256 + shards * (8 + 16 + 2));
            assert!(accepts - accepts / 64 >= connections, "{connections}");
        }
    }
}
