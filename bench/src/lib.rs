//! Load generator: what a message, a request and a connection cost a server, in CPU time and memory.
//!
//! A *subject* (our build, a peer) is a child process with a configuration of its own; a *scenario*
//! puts load on it over loopback at a fixed rate and reads the process' CPU clock; a *floor* is the
//! same shape of load on a bare loop of system calls in this process. `compare` runs all of them in
//! turn, round after round, and `report` prints medians and ratios.

pub mod axis;
pub mod client;
pub mod compare;
pub mod cpu;
pub mod floors;
pub mod html;
pub mod json;
pub mod outcome;
pub mod pace;
pub mod peers;
pub mod plan;
pub mod plots;
pub mod report;
pub mod scenarios;
pub mod summary;
pub mod svg;
pub mod target;
pub mod text;
pub mod wire;
