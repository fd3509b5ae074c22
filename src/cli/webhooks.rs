//! What `webhooks` does: dead letters listed, tried again, dropped; a webhook sent to see what comes back.
//!
//! Owns: the subcommands' work and words.
//! May depend on: `bridge::{admin, apps, queue, webhook}`, `config`, tokio; the arguments in `cli`.
//! Invariants: letters of a store are read there, those of `memory` are asked of a node; no URL is printed
//! beyond its host, and no secret.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io,
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::json;

use super::{
    DeadCommand, OfNode, SendWebhook, WebhooksCommand, WhichLetters,
    cluster::{self, AskError, Method, align},
    config::{Answer, EXIT_BAD_CONFIG},
};
use crate::{
    bridge::{
        admin::report::{LetterReport, LettersReport, SettledReport},
        apps::{
            AppName,
            store::{StoreError, StoreSetupError},
        },
        queue::{
            dead::DeadLetter,
            store::{NewJob, SettledLetter, Store, StoreFault},
        },
        queue_setup,
        webhook::probe::{Outcome, Probed, probe},
    },
    config::{self, App, Config, ConfigErrors, app::EventType, sections::QueueDriver},
    protocol::name::ChannelName,
};

/// Why a command did nothing, or not all.
#[derive(Debug, thiserror::Error)]
enum WebhooksError {
    #[error("{0}")]
    Config(ConfigErrors),
    #[error("{0}")]
    Ask(#[from] AskError),
    #[error("{0}")]
    Setup(String),
    #[error("{0}")]
    Store(#[from] StoreFault),
    #[error("{0}")]
    Apps(#[from] StoreError),
    #[error("{0}")]
    AppsSetup(#[from] StoreSetupError),
    #[error("queue.driver = none: webhooks are off, and there are no dead letters")]
    NoQueue,
    #[error("there is no dead letter {0:?}; `sockudo webhooks dead list` shows them")]
    NoLetter(String),
    #[error("there is no app {0:?}; `sockudo apps list` shows them")]
    NoApp(String),
    #[error("the app {0:?} has no webhooks")]
    NoTargets(String),
    #[error("no such event {0:?}: {1}")]
    NoEvent(String, String),
    #[error("--channel {0:?}: {1}")]
    Channel(String, String),
    #[error("{0}")]
    Runtime(#[from] io::Error),
}

impl WebhooksError {
    fn exit(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Setup(_) | Self::AppsSetup(_) => EXIT_BAD_CONFIG,
            Self::NoEvent(..) | Self::Channel(..) => 2,
            Self::Ask(_)
            | Self::Store(_)
            | Self::Apps(_)
            | Self::NoQueue
            | Self::NoLetter(_)
            | Self::NoApp(_)
            | Self::NoTargets(_)
            | Self::Runtime(_) => 1,
        }
    }
}

pub fn run(command: &WebhooksCommand, environment: BTreeMap<String, String>) -> Answer {
    let answer = match command {
        WebhooksCommand::Dead(command) => dead(command, environment),
        WebhooksCommand::Send(arguments) => send(arguments, environment),
    };
    answer.unwrap_or_else(|error| Answer {
        out: String::new(),
        diagnostics: format!("{error}\n"),
        exit: error.exit(),
    })
}

fn dead(
    command: &DeadCommand,
    environment: BTreeMap<String, String>,
) -> Result<Answer, WebhooksError> {
    let letters = Letters::of(command.of(), environment)?;
    match command {
        DeadCommand::List { json, .. } => {
            let report = letters.list()?;
            Ok(done(match json {
                true => cluster::to_json(&report),
                false => table(&report),
            }))
        }
        DeadCommand::Show { id, .. } => {
            let report = letters.list()?;
            let mut found = report.letters.into_iter();
            let letter = found.find(|letter| letter.id == *id);
            let letter = letter.ok_or_else(|| WebhooksError::NoLetter(id.clone()))?;
            Ok(done(cluster::to_json(&letter)))
        }
        DeadCommand::Retry { which, json, .. } => settle(&letters, which, true, *json),
        DeadCommand::Drop { which, json, .. } => settle(&letters, which, false, *json),
    }
}

fn settle(
    letters: &Letters,
    which: &WhichLetters,
    is_retry: bool,
    json: bool,
) -> Result<Answer, WebhooksError> {
    let report = letters.settle(which.id.as_deref(), is_retry)?;
    if let (0, Some(id)) = (report.settled, &which.id) {
        return Err(WebhooksError::NoLetter(id.clone()));
    }
    let verb = match is_retry {
        true => "wait again",
        false => "dropped",
    };
    Ok(done(match json {
        true => cluster::to_json(&report),
        false => format!("{} {verb}\n", report.settled),
    }))
}

/// Where they are.
enum Letters {
    /// By part.
    Store {
        runtime: tokio::runtime::Runtime,
        stores: Vec<Store>,
    },
    Node {
        of: OfNode,
        environment: BTreeMap<String, String>,
    },
}

impl Letters {
    fn of(of: &OfNode, environment: BTreeMap<String, String>) -> Result<Self, WebhooksError> {
        let node = |environment| Self::Node {
            of: of.clone(),
            environment,
        };
        if of.socket.is_some() {
            return Ok(node(environment));
        }
        let config = load(&of.from, &environment)?;
        match config.queue.driver {
            QueueDriver::Memory => return Ok(node(environment)),
            QueueDriver::None => return Err(WebhooksError::NoQueue),
            QueueDriver::Redis | QueueDriver::RedisCluster | QueueDriver::Sqs => {}
        }
        let runtime = runtime()?;
        let _entered = runtime.enter();
        let stores = queue_setup::stores(&config);
        let stores = stores.map_err(|error| WebhooksError::Setup(error.to_string()))?;
        drop(_entered);
        let declined = queue_setup::declined(&config, &stores);
        if runtime.block_on(declined).is_some() {
            return Ok(node(environment));
        }
        Ok(Self::Store { runtime, stores })
    }

    fn list(&self) -> Result<LettersReport, WebhooksError> {
        match self {
            Self::Node { of, environment } => {
                let route = "/webhooks/dead";
                Ok(cluster::ask(of, environment.clone(), Method::Get, route)?)
            }
            Self::Store { .. } => {
                let letters = self.read()?.into_iter();
                let letters = letters.filter_map(|(id, text)| LetterReport::of(id.shown(), &text));
                let mut letters: Vec<LetterReport> = letters.collect();
                letters.sort_by_key(|letter| letter.died_ms);
                Ok(LettersReport { letters })
            }
        }
    }

    fn read(&self) -> Result<Vec<(LetterId, Vec<u8>)>, WebhooksError> {
        let Self::Store { runtime, stores } = self else {
            return Ok(Vec::new());
        };
        let mut all = Vec::new();
        for (part, store) in stores.iter().enumerate() {
            let letters = runtime.block_on(store.letters())?.into_iter();
            let parts = stores.len();
            all.extend(letters.map(|(id, text)| (LetterId { id, part, parts }, text)));
        }
        Ok(all)
    }

    fn settle(&self, id: Option<&str>, is_retry: bool) -> Result<SettledReport, WebhooksError> {
        let (runtime, stores) = match self {
            Self::Node { of, environment } => {
                let is_id = |id: &str| id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
                if id.is_some_and(|id| !is_id(id)) {
                    return Ok(SettledReport { settled: 0 });
                }
                let verb = if is_retry { "retry" } else { "drop" };
                let which = id.map_or_else(String::new, |id| format!("?id={id}"));
                let route = format!("/webhooks/dead/{verb}{which}");
                return Ok(cluster::ask(of, environment.clone(), Method::Post, &route)?);
            }
            Self::Store { runtime, stores } => (runtime, stores),
        };
        let mut by_part: Vec<Vec<SettledLetter>> = vec![Vec::new(); stores.len()];
        for (letter, text) in self.read()? {
            if id.is_some_and(|id| id != letter.shown()) {
                continue;
            }
            let job = DeadLetter::read(&text).and_then(|it| it.job);
            let again = match (is_retry, job) {
                (false, _) => None,
                (true, None) => continue, // It never was a job.
                (true, Some(mut job)) => {
                    job.attempts = 0;
                    job.since_ms = now_ms();
                    Some(NewJob {
                        target: job.target,
                        channel: 0,
                        text: job.to_bytes(),
                    })
                }
            };
            by_part[letter.part].push(SettledLetter {
                id: letter.id,
                again,
            });
        }
        let mut settled = 0;
        for (store, letters) in stores.iter().zip(&by_part) {
            for some in letters.chunks(LETTERS_AT_ONCE) {
                settled += runtime.block_on(store.settle_letters(some))?;
            }
        }
        Ok(SettledReport { settled })
    }
}

/// A server is not kept longer from its other work.
const LETTERS_AT_ONCE: usize = 500;

/// Of a queue in parts each part has numbers of its own.
#[derive(Clone, Copy)]
struct LetterId {
    id: u64,
    part: usize,
    parts: usize,
}

impl LetterId {
    fn shown(self) -> String {
        match self.parts {
            1 => self.id.to_string(),
            _ => format!("{}-{}", self.part, self.id),
        }
    }
}

fn send(
    arguments: &SendWebhook,
    environment: BTreeMap<String, String>,
) -> Result<Answer, WebhooksError> {
    let names = || EventType::ALL.map(EventType::as_str).join(", ");
    let kind = EventType::parse(&arguments.event);
    let kind = kind.ok_or_else(|| WebhooksError::NoEvent(arguments.event.clone(), names()))?;
    let channel = &arguments.channel;
    ChannelName::parse(channel, CHANNEL_BYTES_MAX)
        .map_err(|fault| WebhooksError::Channel(channel.clone(), fault.to_string()))?;
    let config = load(&arguments.from, &environment)?;
    let runtime = runtime()?;
    let app = find_app(&runtime, &config, &arguments.app)?;
    let app = app.ok_or_else(|| WebhooksError::NoApp(arguments.app.clone()))?;
    if app.webhooks.is_empty() {
        return Err(WebhooksError::NoTargets(arguments.app.clone()));
    }
    let sent = probe(&app, &config.webhooks, kind, channel, now_ms());
    let sent = runtime.block_on(sent);
    let is_well = |it: &Probed| matches!(it.outcome, Outcome::Answered { is_taken: true, .. });
    let is_wanted = |it: &&Probed| !matches!(it.outcome, Outcome::NotWanted | Outcome::Filtered);
    let mut wanted = sent.iter().filter(is_wanted).peekable();
    let exit = u8::from(wanted.peek().is_none() || !wanted.all(is_well));
    Ok(Answer {
        out: match arguments.json {
            true => cluster::to_json(&sent.iter().map(probed_json).collect::<Vec<_>>()),
            false => sent.iter().map(probed_line).collect(),
        },
        diagnostics: String::new(),
        exit,
    })
}

/// Longer than any limit of an app.
const CHANNEL_BYTES_MAX: usize = 1_024;

fn find_app(
    runtime: &tokio::runtime::Runtime,
    config: &Config,
    id: &str,
) -> Result<Option<App>, WebhooksError> {
    let entered = runtime.enter();
    let store = crate::bridge::apps::store::Store::start(config)?;
    drop(entered);
    match store {
        Some(store) => Ok(runtime.block_on(store.find(AppName::Id(id.into())))?),
        None => {
            let mut apps = config.app_manager.apps.iter();
            Ok(apps.find(|app| app.id == id).cloned())
        }
    }
}

fn probed_line(probed: &Probed) -> String {
    let endpoint = &probed.endpoint;
    match &probed.outcome {
        Outcome::NotWanted => format!("{endpoint}: not sent, it does not ask for this event\n"),
        Outcome::Filtered => format!("{endpoint}: not sent, its filter leaves this channel out\n"),
        Outcome::Failed { error, took } => {
            format!(
                "{endpoint}: failed after {} ms: {error}\n",
                took.as_millis()
            )
        }
        Outcome::Answered {
            status,
            is_taken,
            took,
            body,
        } => {
            let mut line = format!("{endpoint}: {status} in {} ms", took.as_millis());
            // The number alone says it of all others.
            if !is_taken && (200..300).contains(status) {
                line += ", not taken: a function that is called says 202";
            }
            if !body.is_empty() {
                // What came may hold anything: a terminal is not to obey it.
                _ = write!(line, ": {}", String::from_utf8_lossy(body).escape_debug());
            }
            line + "\n"
        }
    }
}

fn probed_json(probed: &Probed) -> serde_json::Value {
    let endpoint = &probed.endpoint;
    match &probed.outcome {
        Outcome::NotWanted => json!({"endpoint": endpoint, "outcome": "not_wanted"}),
        Outcome::Filtered => json!({"endpoint": endpoint, "outcome": "filtered"}),
        Outcome::Failed { error, took } => json!({
            "endpoint": endpoint, "outcome": "failed", "error": error,
            "ms": took.as_secs_f64() * 1e3,
        }),
        Outcome::Answered {
            status,
            is_taken,
            took,
            body,
        } => json!({
            "endpoint": endpoint, "outcome": "answered", "status": status, "is_taken": is_taken,
            "ms": took.as_secs_f64() * 1e3, "body": String::from_utf8_lossy(body),
        }),
    }
}

fn table(report: &LettersReport) -> String {
    if report.letters.is_empty() {
        return "no dead letters\n".to_owned();
    }
    let head = [
        "id",
        "app",
        "events",
        "first event",
        "reason",
        "attempts",
        "died",
        "error",
    ];
    let mut rows = vec![head.map(str::to_uppercase)];
    let now_ms = now_ms();
    for letter in &report.letters {
        let first = letter.events.first();
        let first = first.map(|event| {
            let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
            format!("{} {}", text("name"), text("channel"))
        });
        let none = || "-".to_owned();
        rows.push([
            letter.id.clone(),
            letter.app_id.clone().unwrap_or_else(none),
            letter.events.len().to_string(),
            first.unwrap_or_else(none),
            letter.reason.clone(),
            letter.attempts.to_string(),
            format!("{} s ago", now_ms.saturating_sub(letter.died_ms) / 1_000),
            letter.error.clone().unwrap_or_else(none),
        ]);
    }
    let mut out = String::new();
    align(&mut out, &rows);
    out
}

fn load(
    from: &super::From,
    environment: &BTreeMap<String, String>,
) -> Result<Config, WebhooksError> {
    let loaded = config::load(&from.sources(environment.clone()));
    Ok(loaded.map_err(WebhooksError::Config)?.config)
}

fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
}

#[expect(clippy::disallowed_methods, reason = "a command asks what time it is")]
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

fn done(out: String) -> Answer {
    Answer {
        out,
        diagnostics: String::new(),
        exit: 0,
    }
}
