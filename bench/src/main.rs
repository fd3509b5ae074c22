//! `bench-compare`: Sockudo beside its predecessor and beside bare system calls, in one run.

use std::{path::PathBuf, process::ExitCode};

use bench::{
    compare::{Comparison, Scenario},
    cpu,
    measures::Load,
    peers::Subject,
};
use clap::{Parser, Subcommand, builder::PossibleValuesParser};

/// Load generator of Sockudo.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure our build, a peer and the floors in turn, and print one table
    Compare(Compare),
}

#[derive(clap::Args)]
struct Compare {
    /// Our server; given twice or more, one build beside the other
    #[arg(long, value_name = "PATH", default_value = "target/release/sockudo")]
    ours: Vec<PathBuf>,
    /// Sockudo 2.9.2 (scripts/bench-peers installs one); none = ours and the floors only
    #[arg(long, value_name = "PATH")]
    peer: Option<PathBuf>,
    /// Shards of our server, 1..=1024; several = several subjects; none = the server's default
    #[arg(long, value_name = "COUNT", value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..=1_024))]
    shards: Vec<u16>,
    /// Rounds, 1..=100; within one each subject gets each scenario once
    #[arg(long, value_name = "COUNT", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Length of each load in seconds, 1..=60
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// Scenarios to run, all without this flag
    #[arg(long, value_name = "NAMES", value_delimiter = ',',
        value_parser = PossibleValuesParser::new(Scenario::ALL.map(Scenario::name)))]
    scenarios: Vec<String>,
    /// Client events per second, 1..=200000
    #[arg(long, value_name = "RATE", default_value_t = 5_000,
        value_parser = clap::value_parser!(u64).range(1..=200_000))]
    client_events_per_s: u64,
    /// HTTP requests per second, 1..=200000
    #[arg(long, value_name = "RATE", default_value_t = 4_000,
        value_parser = clap::value_parser!(u64).range(1..=200_000))]
    requests_per_s: u64,
    /// API publishes per second of the fan-out, 5..=10000
    #[arg(long, value_name = "RATE", default_value_t = 50, value_parser = clap::value_parser!(u64).range(5..=10_000))]
    publishes_per_s: u64,
    /// Leave the floors out
    #[arg(long)]
    no_floors: bool,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let Command::Compare(compare) = Arguments::parse().command;
    cpu::raise_descriptor_limit();
    let as_json = compare.json;
    let report = comparison(compare).run(|step| eprintln!("bench-compare: {step}"));
    match report {
        Ok(report) if as_json => println!("{:#}", report.to_json()),
        Ok(report) => print!("{report}"),
        Err(error) => {
            eprintln!("bench-compare: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn comparison(compare: Compare) -> Comparison {
    let mut subjects = Vec::new();
    for (build, program) in compare.ours.iter().enumerate() {
        let counts = match &*compare.shards {
            [] => vec![None],
            counts => counts.iter().map(|&count| Some(count)).collect(),
        };
        subjects.extend(counts.into_iter().map(|shards| Subject::Ours {
            program: program.clone(),
            build,
            shards,
        }));
    }
    subjects.extend(compare.peer.map(|program| Subject::Peer { program }));
    let is_wanted = |scenario: &Scenario| {
        compare.scenarios.is_empty() || compare.scenarios.iter().any(|name| name == scenario.name())
    };
    Comparison {
        subjects,
        scenarios: Scenario::ALL.into_iter().filter(is_wanted).collect(),
        load: Load {
            seconds: compare.seconds,
            client_events_per_s: compare.client_events_per_s,
            requests_per_s: compare.requests_per_s,
            publishes_per_s: compare.publishes_per_s,
            ..Load::default()
        },
        rounds: compare.rounds,
        with_floors: !compare.no_floors,
    }
}
