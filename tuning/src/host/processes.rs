//! Processes that matter: servers that run, and what moves interrupts.
//!
//! Owns: `Processes`.
//! May depend on: `limits`, `tree`.
//! Invariants: at most `SERVERS_MAX` servers are looked at.

use super::limits::Limits;
use crate::tree::{Reading, Tree};

/// Servers that run, and what else matters.
#[derive(Clone, Debug, Default)]
pub struct Processes {
    /// Running servers, lowest number first.
    pub servers: Vec<Server>,
    /// Whether irqbalance runs.
    pub has_irqbalance: bool,
}

/// A server that runs.
#[derive(Clone, Debug)]
pub struct Server {
    /// Its process.
    pub pid: u64,
    /// What it may have.
    pub limits: Reading<Limits>,
}

impl Processes {
    pub(super) fn read(tree: &Tree) -> Self {
        let mut processes = Self::default();
        for name in tree.names("/proc") {
            let Ok(pid) = name.parse::<u64>() else {
                continue;
            };
            let command = tree.text(&format!("/proc/{pid}/comm"));
            match command.value().map(String::as_str) {
                Some("irqbalance") => processes.has_irqbalance = true,
                Some("sockudo") if processes.servers.len() < SERVERS_MAX => {
                    // Other commands of the same program have no shards.
                    let is_server = has_shards(tree, pid);
                    let limits = Limits::read(tree, &name);
                    processes
                        .servers
                        .extend(is_server.then_some(Server { pid, limits }));
                }
                _ => {}
            }
        }
        processes
    }
}

/// A server names its threads.
fn has_shards(tree: &Tree, pid: u64) -> bool {
    let threads = tree.names(&format!("/proc/{pid}/task"));
    let mut threads = threads.iter().take(THREADS_MAX);
    threads.any(|thread| {
        let name = tree.text(&format!("/proc/{pid}/task/{thread}/comm"));
        name.value().is_some_and(|name| name.starts_with("shard"))
    })
}

const SERVERS_MAX: usize = 16;
const THREADS_MAX: usize = 4_096;
