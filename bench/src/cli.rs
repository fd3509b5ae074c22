//! The command line of the load generator: `sockudo bench SCENARIO`.
//!
//! Owns: flags that all scenarios share, the choice of the scenario, the exit code.
//! May depend on: clap, `rig`, `scenarios`, `outcome`, and the reports made of it.
//! Invariants: a secret is never printed; answers go to stdout, everything else to stderr; exit 0 = clean,
//! 1 = faults or no run, 2 = void.

use std::{
    net::{SocketAddr, TcpStream, ToSocketAddrs},
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::{
    outcome::{Latency, Machine, Outcome, Run},
    rig::{Rig, RunError},
    scenarios::{
        chatter::Chatter, connect::Connect, fanout::Fanout, idle::Idle, mixed::Mixed,
        presence::Presence, publish::Publish, ramp::RampUp, slow::Slow, storm::Storm, whole,
    },
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
}

/// The scenarios.
#[derive(Debug, Subcommand)]
pub enum Command {
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
    let as_json = arguments.shared.json;
    let run = match execute(arguments) {
        Ok(run) => run,
        Err(error) => {
            eprintln!("sockudo bench: {error}");
            return ExitCode::FAILURE;
        }
    };
    if as_json {
        println!("{:#}", as_value(&run));
    } else {
        print!("{}", as_text(&run));
    }
    exit_code(&run)
}

fn execute(arguments: Arguments) -> Result<Run, RunError> {
    let rig = arguments.shared.rig()?;
    let machine = Machine::here();
    let (outcomes, ramp) = match arguments.command {
        Command::Fanout(fanout) => (vec![fanout.run(&rig)?], None),
        Command::Chatter(chatter) => (vec![chatter.run(&rig)?], None),
        Command::Presence(presence) => (vec![presence.run(&rig)?], None),
        Command::Publish(publish) => (vec![publish.run(&rig)?], None),
        Command::Connect(connect) => (vec![connect.run(&rig)?], None),
        Command::Idle(idle) => (vec![idle.run(&rig)?], None),
        Command::Storm(storm) => (vec![storm.run(&rig)?], None),
        Command::Mixed(mixed) => (vec![mixed.run(&rig)?], None),
        Command::Slow(slow) => (vec![slow.run(&rig)?], None),
        Command::Ramp(ramp) => {
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

fn as_value(run: &Run) -> Value {
    let latency = |latency: &Latency| {
        let mut value = json!({"key": latency.key, "count": latency.histogram.len()});
        for (name, percentile) in Latency::PERCENTILES {
            value[format!("{name}_ms")] = json!(latency.percentile_ms(percentile));
        }
        value
    };
    let outcome = |outcome: &Outcome| {
        json!({
            "scenario": outcome.scenario, "settings": outcome.settings, "figures": outcome.figures,
            "latencies": outcome.latencies.iter().map(latency).collect::<Vec<_>>(),
            "deliveries": outcome.deliveries, "used": outcome.used, "generator": outcome.generator,
            "faults": outcome.faults, "void": outcome.void,
        })
    };
    json!({
        "outcomes": run.outcomes.iter().map(outcome).collect::<Vec<_>>(), "ramp": run.ramp,
    })
}

fn as_text(run: &Run) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    for outcome in &run.outcomes {
        for figure in &outcome.figures {
            let _ = writeln!(
                text,
                "{}: {:.2} {}",
                figure.label, figure.value, figure.unit
            );
        }
        for latency in &outcome.latencies {
            let _ = write!(text, "{}:", latency.label);
            for (name, percentile) in Latency::PERCENTILES {
                let _ = write!(text, " {name} {:.2} ms", latency.percentile_ms(percentile));
            }
            text.push('\n');
        }
        let _ = writeln!(text, "{:?}\n{:?}", outcome.generator, outcome.deliveries);
        for fault in &outcome.faults {
            let _ = writeln!(text, "fault: {fault}");
        }
        if let Some(void) = &outcome.void {
            let _ = writeln!(text, "void: {void}");
        }
    }
    text
}
