//! The command line: what a person may type, and the help that explains it.
//!
//! Owns: subcommands, flags and their words; turning flags into `config::Sources`.
//! May depend on: `clap`, `config`.
//! Invariants: a flag's value is checked by the table of keys, so that the same mistake gets the
//! same words in a file, a variable and a flag.

pub mod apps;
pub mod cluster;
pub mod config;
pub mod doctor;
mod failure;
pub mod migrate;
pub mod top;
pub mod tune;
pub mod upgrade;
pub mod webhooks;

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::{Flag, Sources, sections::SHARDS_MAX};

/// A self-hosted realtime server that speaks the Pusher Channels protocol.
///
/// Clients of Pusher Channels (pusher-js, Laravel Echo, the HTTP libraries) connect to it
/// unchanged. It runs one thread per core and needs nothing but this binary.
#[derive(Debug, Parser)]
#[command(
    name = "sockudo",
    version,
    about,
    long_about,
    args_conflicts_with_subcommands = true,
    before_help = "New here? `sockudo` starts a demo server on 127.0.0.1:6001, and\n\
                   `sockudo config check` says what is wrong with a configuration.",
    after_help = EXAMPLES
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub serve: Serve,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the server (also what happens without a command)
    Serve(Serve),
    /// Check or show the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Ask a running node about its cluster, or have it give connections away
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// List and change the apps of the configured store
    ///
    /// The store is app_manager.driver's: a table of MariaDB, MySQL, PostgreSQL or DynamoDB. Where the configuration itself keeps the
    /// apps (memory), what changes one prints the lines for the file and writes nothing. Running nodes take a change
    /// up within app_manager.cache.ttl.
    #[command(subcommand)]
    Apps(AppsCommand),
    /// Webhooks that were given up, and one that is sent to see what comes back
    #[command(subcommand)]
    Webhooks(WebhooksCommand),
    /// Watch a running node: shards, bridge, backends
    ///
    /// Asks over the admin socket (admin.socket), as the node's user or as root. Keys: q ends it, p pauses, s sorts by the next
    /// column. Without a terminal, and with --once, one table over some two seconds. Exit status: 0, or 1 if the node does not
    /// answer.
    Top(Top),
    /// Let another process take over a running node, with all its connections
    ///
    /// The node starts its program anew, or another binary, hands it listening sockets, connections and their state, and ends; no
    /// client notices. Whatever stands against it, the old process goes on. Asks over the admin socket (admin.socket), as the
    /// node's user or as root, and waits for the outcome; SIGUSR2 does the same and tells the log. Exit status: 0 if the new
    /// process serves, 1 if the old one goes on, 2 for wrong usage.
    Upgrade(Upgrade),
    /// Say what this host lacks for so many connections, and how to mend it
    ///
    /// Reads /proc, /sys and the unit of systemd, makes one ring of io_uring and closes it; changes nothing. Works as root
    /// and as an ordinary user, who may see less. Exit status: 0 if all is fine, 1 if something would be better otherwise,
    /// 2 if the server would not start or not carry the connections.
    Doctor(Doctor),
    /// Write the files that make this host fit for so many connections; apply nothing
    ///
    /// For this host's kernel, cards and cores: sysctl.d, a drop-in of the unit, limits.d, a script for interrupts and packet
    /// queues with a unit that runs it at the boot. Each line has its reason, and no value is below what the host has. Prints how
    /// to apply them, and what no file can mend. Exit status: 0, 1 if the host cannot carry so many or a file could not be
    /// written, 2 for wrong usage.
    Tune(Tune),
    /// Write a configuration from that of another server, and say what has no place in it
    ///
    /// Reads the files that are named and nothing else, changes none of them. What was carried goes to stdout or to
    /// --output, what was not to stderr, each with what to do instead; secrets are in the file, which only its owner may
    /// read, and nowhere else. Exit status: 0, with --strict 1 if something was not carried, 73 if the file to write exists
    /// or cannot be written, 78 if what is to be read cannot be.
    MigrateFrom(MigrateFrom),
    /// Make the table of apps, or give one that is there what it lacks
    ///
    /// In the database that app_manager.driver names, with an account that may change tables. Columns and an index are
    /// added, nothing is taken away; `apps init` only prints what a table lacks. Exit status: 0 if the table is whole now,
    /// 1 if the database refuses or does not answer, 78 for a bad configuration.
    MigrateDb(OfApps),
    /// Put a server under load and measure it: latencies, CPU time, memory, what was lost
    ///
    /// Works with any server that speaks the Pusher protocol. Put load on servers only that you own
    /// or may test: it is meant to take them to their limits.
    ///
    /// Operations begin when their schedule says, whatever became of the earlier ones, and latencies
    /// count from the scheduled time; their resolution is --poll-interval-us. Exit status: 0 for a
    /// clean run, 1 for faults (lost, refused, closed) or if no run was possible, 2 if this program
    /// was the bottleneck, in which case the numbers say nothing about the server.
    Bench(bench::cli::Arguments),
}

#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Say everything that is wrong with the configuration, and what to know about it
    ///
    /// Reads file, environment and flags as `serve` would, opens no port, and a connection under --online
    /// only. Exit status: 0 if the server would start, 78 if not, 1 for warnings under --strict, and for a
    /// backend that does not answer under --online.
    Check(Check),
    /// Print the values that are in effect, secrets masked
    Show(Show),
    /// Print the reference page of all keys, as Markdown
    Reference,
}

#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// Print the nodes: state, last heard, connections, what is missing of each
    ///
    /// Asks one running node over its admin socket (admin.socket), as its user or as root. Exit
    /// status: 0, or 1 if it does not answer.
    Status {
        #[command(flatten)]
        of: OfNode,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Close connections that a node has above the mean of all, with 4200, so that they come back elsewhere
    ///
    /// At drain.rate_per_s, or evenly within a minute. A node that came back stays nearly empty
    /// otherwise, since connections live long. Exit status: 0, or 1 if the node refuses or does not
    /// answer.
    Rebalance {
        #[command(flatten)]
        of: OfNode,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
pub enum AppsCommand {
    /// Print all apps, and those rows that cannot be one
    ///
    /// Exit status: 0, 1 if there is a row that cannot be an app or the store does not answer, 78 for a bad
    /// configuration; the same for all of `apps`.
    List {
        #[command(flatten)]
        of: OfApps,
    },
    /// Print one app with every value that holds for it
    Get {
        /// Id of the app
        id: String,
        #[command(flatten)]
        of: OfApps,
    },
    /// Add an app; key and secret are made where none is given
    Add {
        /// Id of the app
        id: String,
        /// Key of the app [default: 20 random hexadecimal digits]
        #[arg(long, value_name = "KEY")]
        key: Option<String>,
        /// Values of an app's keys, as a variable has them: max_connections=100
        #[arg(value_name = "KEY=VALUE")]
        values: Vec<String>,
        #[command(flatten)]
        of: OfApps,
    },
    /// Change values of an app; KEY= goes back to the default
    Set {
        /// Id of the app
        id: String,
        /// Values of an app's keys, as a variable has them: max_connections=100
        #[arg(value_name = "KEY=VALUE", required = true)]
        values: Vec<String>,
        #[command(flatten)]
        of: OfApps,
    },
    /// Have a running node look at its apps again, so that changes hold at once
    ///
    /// Asks one running node over its admin socket (admin.socket), as its user or as root; it tells the other
    /// nodes of its cluster. Where the configuration keeps the apps it is read again, as with SIGHUP. Exit status: 0,
    /// or 1 if the node does not answer or refuses.
    Reload {
        #[command(flatten)]
        of: OfNode,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Turn an app off: its connections are closed with 4003, its requests refused
    Disable {
        /// Id of the app
        id: String,
        #[command(flatten)]
        of: OfApps,
    },
    /// Turn an app on again
    Enable {
        /// Id of the app
        id: String,
        #[command(flatten)]
        of: OfApps,
    },
    /// Remove an app
    Remove {
        /// Id of the app
        id: String,
        #[command(flatten)]
        of: OfApps,
    },
    /// Make a new secret; the old one goes on to verify until `apps set ID secrets=`
    RotateSecret {
        /// Id of the app
        id: String,
        #[command(flatten)]
        of: OfApps,
    },
    /// Add the apps of a file: a configuration, or a JSON list of apps
    ///
    /// Nothing is written unless all of them hold.
    Import {
        /// JSON, or TOML if its name ends so
        #[arg(value_name = "FILE")]
        file: String,
        /// Change apps that are there already, too
        #[arg(long)]
        overwrite: bool,
        #[command(flatten)]
        of: OfApps,
    },
    /// Print all apps as a configuration file, which `import` reads
    Export {
        #[command(flatten)]
        of: OfApps,
    },
    /// Make the table; of one that is there, print the statement that adds what it lacks
    Init {
        #[command(flatten)]
        of: OfApps,
    },
}

#[derive(Debug, Subcommand)]
pub enum WebhooksCommand {
    /// List, show, retry or drop webhooks that were given up
    ///
    /// With queue.driver redis or redis-cluster they are read from the store, whichever node gave them up. With
    /// memory each node keeps its own until it ends, and one running node is asked over its admin socket.
    #[command(subcommand)]
    Dead(DeadCommand),
    /// Send a signed webhook to the targets of an app, once, and print what they answer
    ///
    /// It goes out from here, not from a node, with the filters of the app and within webhooks.targets. Exit
    /// status: 0 if every target that asks for the event answered 2xx, 1 if not, or if none asks for it.
    Send(SendWebhook),
}

#[derive(Debug, Subcommand)]
pub enum DeadCommand {
    /// Print all, oldest first
    ///
    /// Exit status: 0, 1 if the store or the node does not answer, 78 for a bad configuration; the same for all of
    /// `dead`.
    List {
        #[command(flatten)]
        of: OfNode,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Print one with its events, as JSON
    Show {
        /// As `list` has it
        id: String,
        #[command(flatten)]
        of: OfNode,
    },
    /// Put one or all back into the queue, as if they were new
    Retry {
        #[command(flatten)]
        which: WhichLetters,
        #[command(flatten)]
        of: OfNode,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Drop one or all
    Drop {
        #[command(flatten)]
        which: WhichLetters,
        #[command(flatten)]
        of: OfNode,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
}

impl DeadCommand {
    /// Which node, or whose store.
    pub fn of(&self) -> &OfNode {
        match self {
            Self::List { of, .. }
            | Self::Show { of, .. }
            | Self::Retry { of, .. }
            | Self::Drop { of, .. } => of,
        }
    }
}

/// One, or all on purpose.
#[derive(Clone, Debug, Args)]
#[group(required = true, multiple = false)]
pub struct WhichLetters {
    /// As `list` has it
    pub id: Option<String>,
    /// All of them
    #[arg(long)]
    pub all: bool,
}

#[derive(Clone, Debug, Args)]
pub struct SendWebhook {
    /// Id of the app
    #[arg(long, value_name = "ID")]
    pub app: String,
    /// channel_occupied, channel_vacated, member_added, member_removed, client_event, cache_miss or
    /// subscription_count
    #[arg(long, value_name = "EVENT")]
    pub event: String,
    /// Channel that the event is about
    #[arg(long, value_name = "CHANNEL", default_value = "test-channel")]
    pub channel: String,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub from: From,
}

/// Which store, and how its apps are printed.
#[derive(Clone, Debug, Default, Args)]
pub struct OfApps {
    #[command(flatten)]
    pub from: From,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Print secrets instead of ***
    #[arg(long)]
    pub secrets: bool,
}

impl AppsCommand {
    /// Which store it is about; `None`: a running node is asked.
    pub fn of(&self) -> Option<&OfApps> {
        let of = match self {
            Self::Reload { .. } => return None,
            Self::List { of }
            | Self::Get { of, .. }
            | Self::Add { of, .. }
            | Self::Set { of, .. }
            | Self::Disable { of, .. }
            | Self::Enable { of, .. }
            | Self::Remove { of, .. }
            | Self::RotateSecret { of, .. }
            | Self::Import { of, .. }
            | Self::Export { of }
            | Self::Init { of } => of,
        };
        Some(of)
    }
}

#[derive(Clone, Debug, Args)]
pub struct MigrateFrom {
    /// Whose configuration it is; sockudo is 2.9 to 5
    #[arg(value_name = "SERVER")]
    pub former: Former,
    /// Its file; - reads stdin. soketi: JSON or a module that exports it; reverb: config/reverb.php; sockudo: JSON or
    /// TOML; for each the .env alone will do, and is all that there is for pusher
    #[arg(value_name = "FILE", required_unless_present_any = ["config", "env_file"])]
    pub file: Option<PathBuf>,
    /// The same file, named by a flag
    #[arg(short, long, value_name = "FILE", conflicts_with = "file")]
    pub config: Option<PathBuf>,
    /// Its .env, which ranks above the file as it did there; for reverb it fills env()
    #[arg(long, visible_alias = "env", value_name = "FILE")]
    pub env_file: Option<PathBuf>,
    /// Write to this file, which must not exist yet, with mode 0600 [default: stdout]
    #[arg(short, long, visible_alias = "write", value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Say what would be carried, write nothing
    #[arg(long, conflicts_with = "output")]
    pub check: bool,
    /// Exit 1 if something is not carried
    #[arg(long)]
    pub strict: bool,
}

/// Whose configuration is carried over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Former {
    Soketi,
    Reverb,
    Pusher,
    Sockudo,
}

#[derive(Clone, Debug, Args)]
pub struct Top {
    #[command(flatten)]
    pub of: OfNode,
    /// Print one table and end
    #[arg(long)]
    pub once: bool,
    /// Print what the node says, as JSON, and end, with --once or without; what counts, counts since its start
    #[arg(long)]
    pub json: bool,
    /// Seconds between two looks, 1..=60; the node itself looks at its shards every two
    #[arg(long = "interval", value_name = "SECONDS", default_value_t = 2,
          value_parser = seconds_of_minute)]
    pub interval_s: u64,
}

#[derive(Clone, Debug, Args)]
pub struct Upgrade {
    #[command(flatten)]
    pub of: OfNode,
    /// The program to start [default: the file that the node was started from, as it is now]
    #[arg(long, value_name = "PATH")]
    pub binary: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Which running node is asked.
#[derive(Clone, Debug, Default, Args)]
pub struct OfNode {
    /// The node's admin socket [default: admin.socket of the configuration]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    #[command(flatten)]
    pub from: From,
}

/// Where a configuration comes from.
#[derive(Clone, Debug, Default, Args)]
pub struct From {
    /// Configuration file, JSON or TOML [default: $SOCKUDO_CONFIG, else the first of
    /// config/config.toml, config/config.json, /etc/sockudo/sockudo.toml, /etc/sockudo/config.json]
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// File of NAME=value lines that rank below the environment [default: none]
    #[arg(long, value_name = "FILE")]
    pub env_file: Option<PathBuf>,
    /// Unknown keys are warnings instead of errors
    #[arg(long)]
    pub lenient_config: bool,
    /// Let the demo app, whose secret is public, be reached from outside
    #[arg(long)]
    pub allow_demo_app: bool,
}

#[derive(Clone, Debug, Default, Args)]
pub struct Serve {
    #[command(flatten)]
    pub from: From,
    /// Addresses or names to listen on, between commas [default: 0.0.0.0; demo: 127.0.0.1]
    #[arg(long, value_name = "HOST")]
    pub host: Option<String>,
    /// Port for WebSocket and HTTP API, 0..=65535, 0 = any free one [default: 6001]
    #[arg(long, value_name = "PORT")]
    pub port: Option<String>,
    /// Port for /metrics, 0..=65535, 0 = any free one [default: 9601]
    #[arg(long, value_name = "PORT")]
    pub metrics_port: Option<String>,
    /// Threads that serve connections, 1..=512 or auto [default: auto, one per physical core]
    #[arg(long, value_name = "COUNT")]
    pub shards: Option<String>,
    /// Name of this node in a cluster, 1..=64 of letters, digits, _ . - [default: host name and a
    /// random part]
    #[arg(long, value_name = "NAME")]
    pub node_id: Option<String>,
    /// Do not pin threads to cores
    #[arg(long)]
    pub no_pin: bool,
}

fn connections(text: &str) -> Result<u64, String> {
    within(text, CONNECTIONS_MAX)
}

/// As many as `shards` of the configuration.
fn shards(text: &str) -> Result<u64, String> {
    within(text, SHARDS_MAX)
}

/// As often as a table is of use.
fn seconds_of_minute(text: &str) -> Result<u64, String> {
    within(text, 60)
}

fn within(text: &str, max: u64) -> Result<u64, String> {
    let number = text.parse().ok();
    let number = number.filter(|number| (1..=max).contains(number));
    number.ok_or_else(|| format!("not a whole number 1..={max}"))
}

const CONNECTIONS_MAX: u64 = 1_000_000_000;

#[derive(Clone, Debug, Args)]
pub struct Doctor {
    /// Connections that the host is to carry at once, 1..=1000000000 [default: admission.max_connections
    /// of --config, else 10000]
    #[arg(long, value_name = "COUNT", value_parser = connections)]
    pub connections: Option<u64>,
    /// Threads that serve connections, 1..=512 [default: shards of --config, else as many as `serve` starts, one per
    /// physical core but one]
    #[arg(long, value_name = "COUNT", value_parser = shards)]
    pub shards: Option<u64>,
    /// The server's configuration, for its connections, shards and ports [default: none is read]
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// Read a copy of a host's files, as tuning/record makes it
    #[arg(long, value_name = "DIR", hide = true)]
    pub root: Option<PathBuf>,
}

#[derive(Clone, Debug, Args)]
pub struct Tune {
    /// Connections that the host is to carry at once, 1..=1000000000
    #[arg(long, value_name = "COUNT", value_parser = connections)]
    pub connections: u64,
    /// Threads that serve connections, 1..=512 [default: as many as `serve` starts, one per physical core but one]
    #[arg(long, value_name = "COUNT", value_parser = shards)]
    pub shards: Option<u64>,
    /// Folder to write into, made if it is not there; etc/ and usr/ come below it
    #[arg(long, value_name = "DIR", required_unless_present = "diff")]
    pub write: Option<PathBuf>,
    /// Print what would change in the files that this host has
    #[arg(long)]
    pub diff: bool,
    /// Read a copy of a host's files, as tuning/record makes it
    #[arg(long, value_name = "DIR", hide = true)]
    pub root: Option<PathBuf>,
}

#[derive(Clone, Debug, Default, Args)]
pub struct Check {
    #[command(flatten)]
    pub from: From,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// Exit 1 if there is a warning
    #[arg(long)]
    pub strict: bool,
    /// Also ask every backend whether it answers: apps, bus, cache, rate limiter, queue
    #[arg(long)]
    pub online: bool,
}

#[derive(Clone, Debug, Args)]
pub struct Show {
    #[command(flatten)]
    pub from: From,
    /// Say where each value came from
    #[arg(long)]
    pub origin: bool,
    /// Print secrets instead of ***
    #[arg(long)]
    pub secrets: bool,
    /// Form of the output
    #[arg(long, value_enum, default_value_t = Format::Toml)]
    pub format: Format,
    /// Print the defaults instead: no file, no environment
    #[arg(long)]
    pub defaults: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Json,
    Toml,
}

impl Serve {
    /// The sources of a server's configuration.
    pub fn sources(&self, environment: BTreeMap<String, String>) -> Sources {
        let given = [
            ("--host", "host", &self.host),
            ("--port", "port", &self.port),
            ("--metrics-port", "metrics.port", &self.metrics_port),
            ("--shards", "shards", &self.shards),
            ("--node-id", "cluster.node_id", &self.node_id),
        ];
        let flag = |(flag, key, value): (&'static str, &'static str, &Option<String>)| {
            value.clone().map(|value| Flag { flag, key, value })
        };
        let mut flags: Vec<Flag> = given.into_iter().filter_map(flag).collect();
        if self.no_pin {
            flags.push(Flag {
                flag: "--no-pin",
                key: "pin",
                value: "false".to_owned(),
            });
        }
        Sources {
            flags,
            ..self.from.sources(environment)
        }
    }
}

impl From {
    /// The sources, without any flag that sets a key.
    pub fn sources(&self, environment: BTreeMap<String, String>) -> Sources {
        Sources {
            config: self.config.clone(),
            env_file: self.env_file.clone(),
            search: Sources::usual_places(),
            environment,
            flags: Vec::new(),
            lenient: self.lenient_config,
            allow_demo_app: self.allow_demo_app,
        }
    }
}

const EXAMPLES: &str = "\
Examples:
  sockudo                                   demo server: app 1 / app-key / app-secret
  sockudo -c sockudo.toml                   serve what the file says
  sockudo serve -c sockudo.toml --port 80   the same, on another port
  SOCKUDO_DEFAULT_APP_ID=shop SOCKUDO_DEFAULT_APP_KEY=k_3f9c \\
    SOCKUDO_DEFAULT_APP_SECRET=s3cret sockudo
                                            serve one app without a file
  sockudo config check -c sockudo.toml      what is wrong, before a restart
  sockudo config show --origin              every value, and where it came from
  sockudo migrate-from soketi --config soketi.json -o sockudo.toml
                                            the same server, in a file of ours
  sockudo doctor --connections 100000       what this host lacks for that
  sockudo tune --connections 100000 --write tuned
                                            the files that mend it, to look at

Every key and variable: docs/configuration.md";

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    /// Every option of `command` and below it, each with the words that lead to it.
    fn options(command: &clap::Command, words: &[String], found: &mut Vec<Vec<String>>) {
        let with = |word: &str| [words, &[word.to_owned()]].concat();
        for argument in command.get_arguments().filter(|it| !it.is_positional()) {
            let takes_value = argument.get_action().takes_values();
            found.extend(
                argument
                    .get_long()
                    .filter(|_| takes_value)
                    .map(|long| with(&format!("--{long}"))),
            );
        }
        for inner in command.get_subcommands() {
            options(inner, &with(inner.get_name()), found);
        }
    }

    #[test]
    fn an_option_that_refuses_a_word_says_what_is_allowed() {
        let mut found = Vec::new();
        let mut command = Cli::command();
        command.build();
        options(&command, &["sockudo".to_owned()], &mut found);
        let mut refused = 0;
        for words in &found {
            let given = words.iter().map(String::as_str).chain(["abc!"]);
            let Err(error) = Cli::try_parse_from(given) else {
                continue;
            };
            if error.kind() == clap::error::ErrorKind::ValueValidation {
                refused += 1;
                // Words of the parsers of `core`, which know no range.
                let text = error.to_string();
                let bare = [
                    "invalid digit",
                    "invalid float",
                    "cannot parse",
                    "too large to",
                ];
                let is_told = !bare.iter().any(|words| text.contains(words));
                assert!(is_told, "{words:?}: {text}");
            }
        }
        assert!(refused > 50, "{refused} of {}", found.len());
    }

    #[test]
    fn without_a_command_the_flags_are_those_of_serve() {
        let cli = Cli::try_parse_from(["sockudo", "-c", "x.json", "--port", "7001", "--no-pin"]);
        let cli = cli.expect("flags of serve");
        assert!(cli.command.is_none());
        let sources = cli.serve.sources(BTreeMap::new());
        assert_eq!(sources.config, Some(PathBuf::from("x.json")));
        let flags: Vec<_> = sources
            .flags
            .iter()
            .map(|f| (f.flag, f.key, &*f.value))
            .collect();
        assert_eq!(
            flags,
            [("--port", "port", "7001"), ("--no-pin", "pin", "false")]
        );
    }

    #[test]
    fn every_flag_names_a_key() {
        let serve = Serve {
            host: Some(String::new()),
            port: Some(String::new()),
            metrics_port: Some(String::new()),
            shards: Some(String::new()),
            node_id: Some(String::new()),
            no_pin: true,
            ..Serve::default()
        };
        for flag in serve.sources(BTreeMap::new()).flags {
            assert!(
                crate::config::keys::SERVER.find(flag.key).is_some(),
                "{}",
                flag.key
            );
        }
    }
}
