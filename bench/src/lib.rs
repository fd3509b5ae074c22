//! Load generator: what a message, a request and a connection cost a server, in CPU time and memory.
//!
//! `cli` is the subcommand `sockudo bench`. It puts a *scenario* on any Pusher-compatible target at a
//! scheduled rate (`pace`), through many connections on one thread (`crowd`), and makes an `outcome`.
//!
//! `summary`, `json` and `html` tell it; `plan` multiplies what was measured.
//!
//! `bench-compare` runs the older *measures*: a *subject* (our build, a peer) is a child process with a
//! configuration of its own; a measure puts load on it over loopback at a fixed rate and reads the process' CPU clock; a *floor* is the
//! same shape of load on a bare loop of system calls in this process. `compare` runs all of them in
//! turn, round after round, and `report` prints medians and ratios.

pub mod axis;
pub mod cli;
pub mod client;
pub mod compare;
mod conversation;
pub mod cpu;
pub mod crowd;
pub mod floors;
pub mod html;
pub mod json;
pub mod ledger;
pub mod machine;
pub mod measures;
pub mod memory;
pub mod outcome;
pub mod pace;
pub mod peers;
pub mod perf;
pub mod plan;
pub mod plots;
pub mod report;
pub mod requests;
pub mod rig;
pub mod scenarios;
pub mod summary;
pub mod svg;
pub mod target;
pub mod text;
pub mod track;
pub mod wire;
