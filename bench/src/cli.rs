//! The command line of the load generator: `sockudo bench SCENARIO`.
//!
//! Owns: flags that all scenarios share, the choice of the scenario, the exit code.
//! May depend on: clap, `ranges`, `rig`, `scenarios`, `plan`, `table`, `outcome`, and the reports made of it.
//! Invariants: a secret is never printed; answers go to stdout, everything else to stderr; exit 0 = clean,
//! 1 = faults or no run, 2 = void.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    net::{SocketAddr, TcpStream, ToSocketAddrs},
    path::PathBuf,
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use clap::{Args, Subcommand};

use crate::{
    html, json,
    outcome::{Machine, Outcome, Ramp, Run},
    plan,
    ranges::within,
    rig::{Rig, RunError},
    scenarios::{
        burst::Burst, carry::Carry, chatter::Chatter, connect::Connect, drop_all::DropAll,
        fanout::Fanout, hostile::Hostile, idle::Idle, listing::Listing, mixed::Mixed,
        neighbour::Neighbour, presence::Presence, publish::Publish, ramp::RampUp,
        reconnect::Reconnect, slow::Slow, storm::Storm, upgrade::Upgrade, whole,
    },
    summary::Summary,
    table,
    target::{Credentials, Target},
    tls::Tls,
};

#[derive(Debug, Args)]
#[command(
    subcommand_value_name = "SCENARIO",
    subcommand_help_heading = "Scenarios",
    after_help = EXAMPLES
)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

/// A scenario's flags, and those that all have.
#[derive(Debug, Args)]
pub struct With<S: Args> {
    #[command(flatten)]
    scenario: S,
    #[command(flatten)]
    shared: Shared,
}

/// What all scenarios ask for.
#[derive(Debug, Args)]
#[command(next_help_heading = "Target and run")]
struct Shared {
    /// Server, as HOST:PORT
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:6001")]
    target: String,
    /// Speak TLS, and trust the certificates of this PEM file, no others [default: plain TCP]
    #[arg(long, value_name = "FILE.pem")]
    ca: Option<PathBuf>,
    /// The app's id
    #[arg(long, value_name = "ID", default_value = "app-id")]
    app_id: String,
    /// The app's key
    #[arg(long, value_name = "KEY", default_value = "app-key")]
    key: String,
    /// The app's secret [default: the demo app's]
    #[arg(
        long,
        value_name = "SECRET",
        default_value = "app-secret",
        env = "SOCKUDO_BENCH_SECRET",
        hide_env_values = true,
        hide_default_value = true
    )]
    secret: String,
    /// Process of the server, if on this machine: its CPU time and memory are read [default: none]
    #[arg(long, value_name = "PID", value_parser = within::<u32>(1..=u32::MAX.into()))]
    pid: Option<u32>,
    /// Length of the load in seconds, 1..=3600
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = whole(1..=3_600))]
    seconds: u64,
    /// Microseconds between two looks at the sockets, 10..=5000; the resolution of latencies. Short
    /// steps cost this program CPU time
    #[arg(long, value_name = "US", default_value_t = 100, value_parser = whole(10..=5_000))]
    poll_interval_us: u64,
    /// Count the server's system calls, and sample which part of its time is in user space; needs --pid
    /// and the right to trace. The server then uses 14 to 66 % more CPU time. Without it, the part is
    /// of the server's whole life
    #[arg(long, requires = "pid")]
    trace: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Also write a page for browsers, with plots
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// One channel, many subscribers, published to over the API
    Fanout(With<Fanout>),
    /// Private channels whose members send client events to each other
    #[command(visible_alias = "client-events")]
    Chatter(With<Chatter>),
    /// Users who join and leave presence channels, before the eyes of those who stay
    Presence(With<Presence>),
    /// API requests, to a channel without subscribers
    #[command(visible_alias = "api")]
    Publish(With<Publish>),
    /// New connections: TCP, established, subscribed, closed
    Connect(With<Connect>),
    /// Connections that do nothing: memory of each, CPU time of all
    Idle(With<Idle>),
    /// All connections drop at once and come back, again and again; do others notice?
    Storm(With<Storm>),
    /// All connections drop at once and come back, again and again; does somebody who stayed notice?
    Reconnect(With<Reconnect>),
    /// A day in small: rooms, pairs that talk, newcomers
    Mixed(With<Mixed>),
    /// Some subscribers stop reading; do the others notice?
    Slow(With<Slow>),
    /// One very large channel is published to; do other channels notice?
    Neighbour(With<Neighbour>),
    /// Very many events at once on one large channel; does somebody else notice, does all arrive?
    Burst(With<Burst>),
    /// All connections drop at once and stay away; is somebody held up who comes anew?
    Drop(With<DropAll>),
    /// A stranger floods the server in one manner after another; does somebody else notice?
    ///
    /// For a server of your own only: subscribes, unsubscribes, endless bodies, pipelines and forged
    /// requests, half of --seconds each.
    Hostile(With<Hostile>),
    /// An app with very many channels is asked for all of them; is the answer whole, does somebody else notice?
    Listing(With<Listing>),
    /// Another process of the server takes over, again and again; for how long does anybody hear nothing?
    ///
    /// Needs a server with an admin.socket, as `sockudo upgrade` does.
    Upgrade(With<Upgrade>),
    /// Hold many connections and publish to them: does the server carry it, and what was the limit?
    ///
    /// Ends with a verdict. `scripts/load-test` runs it with a server of its own.
    Carry(With<Carry>),
    /// Raise a load until an objective breaks, and name the highest that held
    ///
    /// Each step lasts --seconds. A step breaks by its latency or by a fault; one whose generator was
    /// the limit is void and ends the search.
    Ramp(With<RampUp>),
    /// Say how large a host a load needs; nothing is measured or sent
    Plan(plan::Arguments),
    #[command(flatten)]
    Table(table::Command),
}

/// Runs what was asked for and reports it.
pub fn run(arguments: Arguments) -> ExitCode {
    match arguments.command {
        Command::Fanout(with) => with.run_one(Fanout::run),
        Command::Chatter(with) => with.run_one(Chatter::run),
        Command::Presence(with) => with.run_one(Presence::run),
        Command::Publish(with) => with.run_one(Publish::run),
        Command::Connect(with) => with.run_one(Connect::run),
        Command::Idle(with) => with.run_one(Idle::run),
        Command::Storm(with) => with.run_one(Storm::run),
        Command::Reconnect(with) => with.run_one(Reconnect::run),
        Command::Mixed(with) => with.run_one(Mixed::run),
        Command::Slow(with) => with.run_one(Slow::run),
        Command::Neighbour(with) => with.run_one(Neighbour::run),
        Command::Burst(with) => with.run_one(Burst::run),
        Command::Drop(with) => with.run_one(DropAll::run),
        Command::Hostile(with) => with.run_one(Hostile::run),
        Command::Listing(with) => with.run_one(Listing::run),
        Command::Upgrade(with) => with.run_one(Upgrade::run),
        Command::Carry(with) => with.run_one(Carry::run),
        Command::Ramp(with) => with.run(|ramp, rig| {
            let (outcomes, ramp) = ramp.run(rig)?;
            Ok((outcomes, Some(ramp)))
        }),
        Command::Plan(arguments) => plan::run(arguments),
        Command::Table(table) => table.run(),
    }
}

/// All outcomes, and the ramp that they were steps of.
type Shown = (Vec<Outcome>, Option<Ramp>);

impl<S: Args> With<S> {
    fn run_one(self, scenario: impl Fn(&S, &Rig) -> Result<Outcome, RunError>) -> ExitCode {
        self.run(|flags, rig| Ok((vec![scenario(flags, rig)?], None)))
    }

    fn run(self, scenario: impl Fn(&S, &Rig) -> Result<Shown, RunError>) -> ExitCode {
        let run = || {
            let page = self.shared.page()?;
            let rig = self.shared.rig()?;
            let machine = Machine::here();
            let (outcomes, ramp) = scenario(&self.scenario, &rig)?;
            let run = Run {
                machine,
                outcomes,
                ramp,
            };
            self.shared.report(&run, page)?;
            Ok::<_, RunError>(run)
        };
        match run() {
            Ok(run) => exit_code(&run),
            Err(error) => json::tell_failure("sockudo bench", error, self.shared.json),
        }
    }
}

/// Void outweighs faults: what a late generator saw says nothing about the target.
fn exit_code(run: &Run) -> ExitCode {
    let is_void = run.outcomes.iter().any(|outcome| outcome.void.is_some());
    let has_failed = |outcome: &Outcome| {
        let verdict = outcome.verdict.as_ref();
        !outcome.faults.is_empty() || verdict.is_some_and(|verdict| !verdict.has_passed)
    };
    let is_faulty = run.outcomes.iter().any(has_failed);
    match (is_void, is_faulty) {
        (true, _) => ExitCode::from(2),
        (false, true) => ExitCode::FAILURE,
        (false, false) => ExitCode::SUCCESS,
    }
}

impl Shared {
    /// The file of the page, opened before the run, which would be lost if it could not be.
    fn page(&self) -> Result<Option<File>, RunError> {
        let Some(path) = &self.report else {
            return Ok(None);
        };
        let page = File::create(path).map_err(|error| RunError::Page(path.clone(), error))?;
        Ok(Some(page))
    }

    fn report(&self, run: &Run, page: Option<File>) -> Result<(), RunError> {
        let mut out = io::stdout().lock();
        // A reader that closed the pipe, such as `head`, has what it wanted.
        let _ = match self.json {
            true => writeln!(out, "{:#}", json::of(run)),
            false => write!(out, "{}", Summary(run)),
        };
        if let (Some(path), Some(mut page)) = (&self.report, page) {
            page.write_all(html::page(run).as_bytes())
                .map_err(|error| RunError::Page(path.clone(), error))?;
        }
        Ok(())
    }

    fn tls(&self) -> Result<Option<Tls>, RunError> {
        let Some(file) = &self.ca else {
            return Ok(None);
        };
        let refused = |reason: String| RunError::Setting(format!("{}: {reason}", file.display()));
        let pem = fs::read(file).map_err(|error| refused(error.to_string()))?;
        let host = self.target.rsplit_once(':');
        let host = host.map_or(&*self.target, |(host, _)| host);
        let tls = Tls::to(host, &pem).map_err(|error| refused(error.to_string()))?;
        Ok(Some(tls))
    }

    fn rig(&self) -> Result<Rig, RunError> {
        let (address, tls) = (address(&self.target)?, self.tls()?);
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
        let tag = since_epoch.map_or(0, |time| time.as_millis()) % 1_000_000_000;
        Ok(Rig {
            target: Target {
                name: match tls {
                    None => self.target.clone(),
                    Some(_) => format!("{}, TLS", self.target),
                },
                address,
                authority: self.target.clone(),
                app: Credentials {
                    id: self.app_id.clone(),
                    key: self.key.clone(),
                    secret: self.secret.clone(),
                },
                pid: self.pid,
                tls,
                admin_socket: None,
            },
            seconds: self.seconds,
            step: Duration::from_micros(self.poll_interval_us),
            tag: tag.to_string(),
            in_bursts: false,
            is_traced: self.trace,
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

const EXAMPLES: &str = "\
Put load only on servers that you own or may test.

Examples:
  sockudo bench fanout --pid $(pgrep -o sockudo)   1000 subscribers of the demo server
  sockudo bench chatter --target 10.0.0.7:6001 --app-id shop --key k_3f9c --rate 20000
  sockudo bench ramp --of fanout --objective-ms 20 --report ramp.html
  sockudo bench plan --connections 1000000 --rate 200000";

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser, error::ErrorKind};

    use super::*;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        bench: Arguments,
    }

    fn parsed(flags: &str) -> Result<Program, clap::Error> {
        Program::try_parse_from(["bench"].into_iter().chain(flags.split(' ')))
    }

    #[test]
    fn the_definition_is_consistent() {
        Program::command().debug_assert();
    }

    #[test]
    fn every_scenario_runs_with_its_defaults() {
        for scenario in [
            "fanout", "chatter", "presence", "publish", "connect", "idle", "storm", "mixed",
            "slow", "ramp", "carry",
        ] {
            assert!(parsed(scenario).is_ok(), "{scenario}");
        }
    }

    #[test]
    fn values_beyond_their_ranges_are_refused() {
        for (flag, values) in [
            ("fanout --message-bytes", ["15", "100001"]),
            ("fanout --rate", ["0", "100001"]),
            ("fanout --batch", ["0", "11"]),
            ("fanout --seconds", ["0", "3601"]),
            ("fanout --poll-interval-us", ["9", "5001"]),
            ("chatter --members", ["1", "51"]),
            ("presence --members", ["0", "96"]),
            ("slow --slow-percent", ["0", "91"]),
            ("ramp --percentile", ["0.9", "100.1"]),
            ("ramp --factor", ["1.0", "10.1"]),
            ("carry --connections", ["0", "1000001"]),
            ("carry --ports-per-address", ["0", "64001"]),
        ] {
            for value in values {
                let kind = parsed(&format!("{flag} {value}")).map_err(|error| error.kind());
                assert!(
                    matches!(kind, Err(ErrorKind::ValueValidation)),
                    "{flag} {value}"
                );
            }
        }
        for edge in [
            "fanout --message-bytes 16 --rate 100000 --batch 10 --seconds 3600",
            "ramp --percentile 100 --factor 1.1 --to 1",
            "fanout --pid 1 --trace",
        ] {
            assert!(parsed(edge).is_ok(), "{edge}");
        }
        assert!(parsed("fanout --trace").is_err());
    }

    #[test]
    fn help_shows_no_secret() {
        let mut command = Program::command();
        let fanout = command.find_subcommand_mut("fanout").expect("it is there");
        let help = fanout.render_long_help().to_string();
        assert!(
            help.contains("SOCKUDO_BENCH_SECRET") && !help.contains("app-secret"),
            "{help}"
        );
    }
}
