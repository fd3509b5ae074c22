//! A host, as far as a server on it depends on it, in plain types.
//!
//! Owns: `Host`, and the order in which its parts are read.
//! May depend on: `tree`; its parts on libc (`ring`).
//! Invariants: reading changes nothing and never fails; each value says for itself if it could not be had.

pub mod cards;
pub mod cores;
pub mod groups;
pub mod kernel;
pub mod limits;
pub mod memory;
pub mod network;
pub mod processes;
pub mod ring;
pub mod unit;

use std::path::Path;

use self::{
    cards::Card, cores::Cores, groups::GroupLimits, kernel::Kernel, limits::Limits, memory::Memory,
    network::Network, processes::Processes, ring::Ring, unit::Unit,
};
use crate::tree::{Reading, Tree};

/// What is there.
#[derive(Clone, Debug)]
pub struct Host {
    /// Version, switches, clock.
    pub kernel: Kernel,
    /// Whether a ring could be made; not tried on a copied tree.
    pub ring: Option<Ring>,
    /// Of the process that reads.
    pub limits: Reading<Limits>,
    /// Servers that run, and what else matters.
    pub processes: Processes,
    /// Settings of TCP and its neighbours.
    pub network: Network,
    /// How much, and in which pages.
    pub memory: Memory,
    /// Which cores a server may use.
    pub cores: Cores,
    /// Network cards, virtual ones without hardware left out.
    pub cards: Vec<Card>,
    /// Of the running server's cgroup, else of this process'.
    pub group: GroupLimits,
    /// The server's unit, if one is installed.
    pub unit: Option<Unit>,
}

impl Host {
    /// Reads what lies below `root`: `/`, or a copy of its files.
    pub fn read(root: &Path) -> Self {
        let tree = Tree::new(root);
        let processes = Processes::read(&tree);
        let subject = processes.servers.first();
        let subject = subject.map_or_else(|| "self".to_owned(), |server| server.pid.to_string());
        Self {
            kernel: Kernel::read(&tree),
            ring: None,
            limits: Limits::read(&tree, "self"),
            network: Network::read(&tree),
            memory: Memory::read(&tree),
            cores: Cores::read(&tree),
            cards: cards::read(&tree),
            group: GroupLimits::read(&tree, &subject),
            unit: Unit::read(&tree),
            processes,
        }
    }
}
