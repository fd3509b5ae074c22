//! Load generator: what a message, a request and a connection cost a server, in CPU time and memory.
//!
//! `cli` is the subcommand `sockudo bench`. It puts a *scenario* on any Pusher-compatible target at a
//! scheduled rate (`pace`), through many connections on one thread (`crowd`), and makes an `outcome`.
//!
//! `summary`, `json` and `html` tell it; `plan` multiplies what was measured.
//!
//! `table` puts the same scenarios on several servers in turn, round after round: this build, *peers*, and
//! *floors*, which are bare loops of system calls with the same shape of load.

#![cfg_attr(
    test,
    allow(
        clippy::cast_possible_truncation,
        reason = "numbers of a test are its own"
    )
)]
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a load generator lives by the clock; its tables have keys of its own making"
)]

pub mod axis;
mod casts;
pub mod cli;
mod conversation;
pub mod cores;
pub mod cpu;
pub mod crowd;
pub mod floors;
pub mod html;
pub mod json;
pub mod ledger;
mod line;
pub mod machine;
pub mod memory;
pub mod outcome;
pub mod pace;
pub mod perf;
pub mod plan;
pub mod plots;
mod ranges;
pub mod requests;
pub mod rig;
pub mod scenarios;
pub mod sources;
pub mod stalls;
pub mod strain;
pub mod summary;
pub mod svg;
pub mod table;
pub mod target;
pub mod text;
pub mod tls;
pub mod track;
pub mod wire;
