//! The program: reads the command line and runs the command.
//!
//! Owns: exit codes, printing what commands answer, and what of the environment is taken away before anybody reads it.
//! May depend on: `cli`, `config`, `bench`, `handover::process`, `shards::small_pages`.
//! Invariants: answers go to stdout, diagnostics to stderr.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use clap::Parser as _;
use shards::small_pages;
use sockudo::cli::config::{self as command, Answer};
use sockudo::cli::{
    Cli, Command, ConfigCommand, Serve, apps, cluster, doctor, migrate, top, tune, upgrade,
    webhooks,
};
use sockudo::config::reference;
use sockudo::handover::process;
use sockudo::serve;

/// The shards' small, short-lived allocations are what it is good at.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    if let Some(ended) = process::keep() {
        return ended;
    }
    process::take_name();
    unset_blank_variables_of_aws();
    // For the load generator too, whose stalls would count as the server's.
    let is_second_start_of_use = small_pages::leave_huge_pages();
    let cli = Cli::parse();
    if is_second_start_of_use && matches!(cli.command, None | Some(Command::Serve(_))) {
        small_pages::start_anew_if_locked_memory_is_short();
    }
    let environment = environment();
    let wants_json = cli.command.as_ref().is_some_and(Command::wants_json);
    let tell = |answer: Answer| match wants_json {
        true => print(&answer.in_json()),
        false => print(&answer),
    };
    match cli.command {
        None => serve(&cli.serve, environment),
        Some(Command::Serve(arguments)) => serve(&arguments, environment),
        Some(Command::Apps(command)) => tell(apps::run(&command, environment)),
        Some(Command::MigrateDb(of)) => tell(apps::migrate_db(&of, environment)),
        Some(Command::Webhooks(command)) => tell(webhooks::run(&command, environment)),
        Some(Command::Bench(arguments)) => bench::cli::run(arguments),
        Some(Command::Top(top)) => tell(top::run(&top, &environment)),
        Some(Command::Upgrade(arguments)) => tell(upgrade::run(&arguments, &environment)),
        Some(Command::Cluster(command)) => tell(cluster::run(&command, environment)),
        Some(Command::Config(ConfigCommand::Check(arguments))) => {
            tell(command::check(&arguments, environment))
        }
        Some(Command::Config(ConfigCommand::Show(arguments))) => {
            tell(command::show(&arguments, environment))
        }
        Some(Command::Doctor(arguments)) => {
            let is_terminal = std::io::stdout().is_terminal();
            tell(doctor::run(&arguments, &environment, is_terminal))
        }
        Some(Command::Tune(arguments)) => tell(tune::run(&arguments)),
        Some(Command::MigrateFrom(arguments)) => tell(migrate::run(&arguments)),
        Some(Command::Config(ConfigCommand::Reference)) => {
            let out = reference::markdown();
            tell(Answer {
                out,
                diagnostics: String::new(),
                exit: 0,
            })
        }
    }
}

fn serve(arguments: &Serve, environment: BTreeMap<String, String>) -> ExitCode {
    match serve::serve(arguments.sources(environment)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => print(&Answer {
            out: String::new(),
            diagnostics: format!("{error}\n"),
            exit: error.exit_code(),
        }),
    }
}

/// Takes variables of AWS that say nothing out of the environment. They are as good as unset to us; AWS's own
/// library reads the environment by itself, and would look for a profile whose name is empty.
fn unset_blank_variables_of_aws() {
    let is_blank = |(name, value): &(OsString, OsString)| {
        let is_of_aws = name.to_str().is_some_and(|name| name.starts_with("AWS_"));
        is_of_aws && value.to_str().is_some_and(|value| value.trim().is_empty())
    };
    let blank: Vec<(OsString, OsString)> = std::env::vars_os().filter(is_blank).collect();
    for (name, _) in blank {
        // SAFETY: nobody may read or write the environment in another thread meanwhile. There is no other one: this is the
        // beginning of `main`, and what ran before it (the allocator, `process::keep`) starts none.
        unsafe { std::env::remove_var(name) };
    }
}

/// The variables of this process; one that is not UTF-8 cannot be a value of ours.
fn environment() -> BTreeMap<String, String> {
    let utf8 = |(name, value): (OsString, OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    std::env::vars_os().filter_map(utf8).collect()
}

fn print(answer: &Answer) -> ExitCode {
    // A reader that closed the pipe, such as `head`, has what it wanted.
    let _ = std::io::stdout().lock().write_all(answer.out.as_bytes());
    let _ = std::io::stderr()
        .lock()
        .write_all(answer.diagnostics.as_bytes());
    ExitCode::from(answer.exit)
}
