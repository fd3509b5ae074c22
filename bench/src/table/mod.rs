//! Tables: this build beside floors and budgets, or beside other servers, in rounds.
//!
//! Owns: `sockudo bench table`, `sockudo bench peers` and `sockudo bench cluster`, with all that only they need.
//! May depend on: `floors`, `scenarios`, `outcome`, `rig`, `target`, `wire`. Nothing outside depends on it but `cli`.
//! Invariants: what a table compares ran in the same rounds; what failed or was void is said below it.

use std::process::ExitCode;

use clap::Subcommand;

use crate::floors::FloorProcess;
use beside_floors::BudgetTable;
use beside_peers::PeerTable;
use cluster::ClusterTable;

pub mod beside_floors;
pub mod beside_peers;
pub mod budgets;
pub mod cluster;
pub mod courses;
pub mod exposition;
pub mod flags;
pub mod identity;
pub mod print;
pub mod rounds;
pub mod rows;
pub mod sink;
pub mod spread;
pub mod subjects;

/// The subcommands of `sockudo bench` that are no scenarios.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Budgets: this build beside bare system calls
    Table(BudgetTable),
    /// Side by side with other servers
    Peers(PeerTable),
    /// Two nodes with a bus between them, beside the bare client of that bus
    Cluster(ClusterTable),
    /// A server of bare system calls, which the table runs for itself
    #[command(hide = true)]
    Floor(FloorProcess),
}

impl Command {
    pub fn run(self) -> ExitCode {
        match self {
            Self::Table(table) => table.run(),
            Self::Peers(table) => table.run(),
            Self::Cluster(table) => table.run(),
            Self::Floor(floor) => floor.run(),
        }
    }
}

/// How a table is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Text,
    Markdown,
    Json,
}
