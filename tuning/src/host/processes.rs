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
                Some(command) if processes.servers.len() < SERVERS_MAX => {
                    let is_server = is_server(tree, pid, command == "sockudo");
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

/// A server names its threads: other commands of the same program have no shards, and a program of
/// another name that has both shards and a bridge is one of ours.
fn is_server(tree: &Tree, pid: u64, is_named: bool) -> bool {
    let threads = tree.names(&format!("/proc/{pid}/task"));
    let (mut has_shards, mut has_bridge) = (false, is_named);
    for thread in threads.iter().take(THREADS_MAX) {
        let name = tree.text(&format!("/proc/{pid}/task/{thread}/comm"));
        match name.value().map(String::as_str) {
            Some("bridge") => has_bridge = true,
            Some(name) if name.starts_with("shard") => has_shards = true,
            _ => {}
        }
        if has_shards && has_bridge {
            return true;
        }
    }
    false
}

const SERVERS_MAX: usize = 16;
const THREADS_MAX: usize = 4_096;

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_server_is_told_by_its_threads_whatever_the_program_is_called() {
        let folder = tempfile::tempdir().expect("a folder");
        for (pid, command, threads, _) in CASES {
            let process = folder.path().join("proc").join(pid);
            let write = |path: &str, text: &str| {
                let path = process.join(path);
                fs::create_dir_all(path.parent().expect("it has one")).expect("ours");
                fs::write(path, text).expect("ours");
            };
            write("comm", command);
            for (number, thread) in threads.iter().enumerate() {
                write(&format!("task/{number}/comm"), thread);
            }
        }
        let found = Processes::read(&Tree::new(folder.path()));
        let found: Vec<u64> = found.servers.iter().map(|server| server.pid).collect();
        let expected = CASES.iter().filter(|case| case.3);
        let expected: Vec<u64> = expected
            .map(|case| case.0.parse().expect("a pid"))
            .collect();
        assert_eq!(found, expected);
    }

    /// Number, name of the program, of its threads, whether it is a server.
    const CASES: &[(&str, &str, &[&str], bool)] = &[
        ("10", "sockudo", &["sockudo", "shard-0"], true),
        ("11", "sockudo", &["sockudo", "tokio"], false),
        ("12", "realtime", &["realtime", "shard-0", "bridge"], true),
        ("13", "mongod", &["mongod", "shard-0"], false),
        ("14", "ip", &["ip", "bridge"], false),
    ];
}
