//! The command line of the load generator: `sockudo bench SCENARIO`.
//!
//! Owns: flags that all scenarios share, the choice of the scenario, the exit code.
//! May depend on: clap, `rig`, `scenarios`, `outcome`, and the reports made of it.
//! Invariants: a secret is never printed; answers go to stdout, everything else to stderr; exit 0 = clean,
//! 1 = faults or no run, 2 = void.

use std::{
    net::{SocketAddr, TcpStream, ToSocketAddrs},
    path::PathBuf,
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use clap::{Args, Subcommand};

use crate::{
    html, json,
    outcome::{Machine, Run},
    plan,
    rig::{Rig, RunError},
    scenarios::{
        chatter::Chatter, connect::Connect, fanout::Fanout, idle::Idle, mixed::Mixed,
        presence::Presence, publish::Publish, ramp::RampUp, slow::Slow, storm::Storm, whole,
    },
    summary::Summary,
    target::{Credentials, Target},
};

#[derive(Debug, Args)]
#[command(
    subcommand_value_name = "SCENARIO",
    subcommand_help_heading = "Scenarios"
)]
pub struct Arguments {
    #[command(flatten)]
    shared: Shared,
    #[command(subcommand)]
    command: Command,
}

/// What all scenarios ask for.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Target and run")]
struct Shared {
    /// Server, as HOST:PORT; plain TCP, no TLS
    #[arg(
        long,
        global = true,
        value_name = "HOST:PORT",
        default_value = "127.0.0.1:6001"
    )]
    target: String,
    /// The app's id
    #[arg(long, global = true, value_name = "ID", default_value = "app-id")]
    app_id: String,
    /// The app's key
    #[arg(long, global = true, value_name = "KEY", default_value = "app-key")]
    key: String,
    /// The app's secret [default: the demo app's]
    #[arg(
        long,
        global = true,
        value_name = "SECRET",
        default_value = "app-secret",
        env = "SOCKUDO_BENCH_SECRET",
        hide_env_values = true,
        hide_default_value = true
    )]
    secret: String,
    /// Process of the server, if on this machine: its CPU time and memory are read [default: none]
    #[arg(long, global = true, value_name = "PID", value_parser = clap::value_parser!(u32).range(1..))]
    pid: Option<u32>,
    /// Length of the load in seconds, 1..=3600
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 10, value_parser = whole(1..=3_600))]
    seconds: u64,
    /// Microseconds between two looks at the sockets, 10..=5000; the resolution of latencies. Short
    /// steps cost this program CPU time
    #[arg(long, global = true, value_name = "US", default_value_t = 100, value_parser = whole(10..=5_000))]
    poll_interval_us: u64,
    /// Count the server's system calls (needs --pid and the right to trace); each then takes longer
    #[arg(long, global = true, requires = "pid")]
    system_calls: bool,
    /// Print one JSON object
    #[arg(long, global = true)]
    json: bool,
    /// Write a page for a browser as well, one file with tables and plots [default: none]
    #[arg(long, global = true, value_name = "FILE")]
    report: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(flatten)]
    Load(Scenario),
    /// No load at all: compute the cores, memory and network that a load needs
    Plan(plan::Arguments),
}

/// The scenarios.
#[derive(Debug, Subcommand)]
enum Scenario {
    /// One channel, many subscribers, published to over the API
    Fanout(Fanout),
    /// Private channels whose members send client events to each other
    Chatter(Chatter),
    /// Users who join and leave presence channels, before the eyes of those who stay
    Presence(Presence),
    /// API requests, to a channel without subscribers
    Publish(Publish),
    /// New connections: TCP, established, subscribed, closed
    Connect(Connect),
    /// Connections that do nothing: memory of each, CPU time of all
    Idle(Idle),
    /// All connections drop at once and come back; do others notice?
    Storm(Storm),
    /// A day in small: rooms, pairs that talk, newcomers
    Mixed(Mixed),
    /// Some subscribers stop reading; do the others notice?
    Slow(Slow),
    /// Raise a load until an objective breaks, and name the highest that held
    Ramp(RampUp),
}

/// Runs what was asked for and reports it.
pub fn run(arguments: Arguments) -> ExitCode {
    let shared = arguments.shared;
    match arguments.command {
        Command::Load(scenario) => load(shared, scenario),
        Command::Plan(plan) => plan::run(&plan, shared.json),
    }
}

fn load(shared: Shared, scenario: Scenario) -> ExitCode {
    let (as_json, report) = (shared.json, shared.report.clone());
    let run = match execute(shared, scenario) {
        Ok(run) => run,
        Err(error) => {
            eprintln!("sockudo bench: {error}");
            return ExitCode::FAILURE;
        }
    };
    if as_json {
        println!("{:#}", json::of(&run));
    } else {
        print!("{}", Summary(&run));
    }
    if let Some(path) = report
        && let Err(error) = std::fs::write(&path, html::page(&run))
    {
        eprintln!("sockudo bench: --report {}: {error}", path.display());
        return ExitCode::FAILURE;
    }
    exit_code(&run)
}

fn execute(shared: Shared, scenario: Scenario) -> Result<Run, RunError> {
    let rig = shared.rig()?;
    let machine = Machine::here();
    let (outcomes, ramp) = match scenario {
        Scenario::Fanout(fanout) => (vec![fanout.run(&rig)?], None),
        Scenario::Chatter(chatter) => (vec![chatter.run(&rig)?], None),
        Scenario::Presence(presence) => (vec![presence.run(&rig)?], None),
        Scenario::Publish(publish) => (vec![publish.run(&rig)?], None),
        Scenario::Connect(connect) => (vec![connect.run(&rig)?], None),
        Scenario::Idle(idle) => (vec![idle.run(&rig)?], None),
        Scenario::Storm(storm) => (vec![storm.run(&rig)?], None),
        Scenario::Mixed(mixed) => (vec![mixed.run(&rig)?], None),
        Scenario::Slow(slow) => (vec![slow.run(&rig)?], None),
        Scenario::Ramp(ramp) => {
            let (outcomes, ramp) = ramp.run(&rig)?;
            (outcomes, Some(ramp))
        }
    };
    Ok(Run {
        machine,
        outcomes,
        ramp,
    })
}

/// Void outweighs faults: what a late generator saw says nothing about the target.
fn exit_code(run: &Run) -> ExitCode {
    let is_void = run.outcomes.iter().any(|outcome| outcome.void.is_some());
    let is_faulty = run
        .outcomes
        .iter()
        .any(|outcome| !outcome.faults.is_empty());
    match (is_void, is_faulty) {
        (true, _) => ExitCode::from(2),
        (false, true) => ExitCode::FAILURE,
        (false, false) => ExitCode::SUCCESS,
    }
}

impl Shared {
    fn rig(self) -> Result<Rig, RunError> {
        let address = address(&self.target)?;
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
        let tag = since_epoch.map_or(0, |time| time.as_millis()) % 1_000_000_000;
        Ok(Rig {
            target: Target {
                name: self.target.clone(),
                address,
                authority: self.target,
                app: Credentials {
                    id: self.app_id,
                    key: self.key,
                    secret: self.secret,
                },
                pid: self.pid,
            },
            seconds: self.seconds,
            step: Duration::from_micros(self.poll_interval_us),
            tag: tag.to_string(),
            counts_system_calls: self.system_calls,
        })
    }
}

/// The first of a name's addresses that answers.
fn address(target: &str) -> Result<SocketAddr, RunError> {
    const PATIENCE: Duration = Duration::from_secs(5);
    let unnamed = |error| RunError::Name(target.to_owned(), error);
    let mut reason = "the name has no address".to_owned();
    for address in target.to_socket_addrs().map_err(unnamed)? {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(_) => return Ok(address),
            Err(error) => reason = format!("{address}: {error}"),
        }
    }
    Err(RunError::Unreachable {
        authority: target.to_owned(),
        reason,
    })
}
