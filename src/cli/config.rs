//! What `config check` and `config show` answer, as texts and exit codes.
//!
//! Owns: the form of a check's findings.
//! May depend on: `config`, `bridge::{port_tls, reach, refusals}`, and the arguments in `cli`.
//! Invariants: pure but for the load, the files that a start reads and the backends that are asked: the caller prints.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Check, Format, Show};
use crate::bridge::{
    port_tls::PortTls,
    reach::{self, Backend},
    refusals::{Reader, refusals},
};
use crate::config::load::{self, Loaded};
use crate::config::show::{self, Origins, Secrets};
use crate::config::{App, ConfigError, ConfigErrors, Level, Notice};

/// What a command prints and how it ends.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// For stdout.
    pub out: String,
    /// For stderr.
    pub diagnostics: String,
    pub exit: u8,
}

/// `EX_CONFIG` of sysexits.
pub const EXIT_BAD_CONFIG: u8 = 78;
const EXIT_FINDINGS: u8 = 1;

pub fn check(arguments: &Check, environment: BTreeMap<String, String>) -> Answer {
    let loaded = load::load(&arguments.from.sources(environment)).and_then(startable);
    let backends = match &loaded {
        Ok(loaded) if arguments.online => reached(loaded),
        Ok(_) | Err(_) => Vec::new(),
    };
    let has_silent = backends.iter().any(|backend| backend.answer.is_err());
    let exit = match &loaded {
        Err(_) => EXIT_BAD_CONFIG,
        Ok(loaded) if arguments.strict && count(&loaded.notices, Level::Warning) > 0 => {
            EXIT_FINDINGS
        }
        Ok(_) if has_silent => EXIT_FINDINGS,
        Ok(_) => 0,
    };
    let out = if arguments.json {
        check_json(&loaded, arguments.online.then_some(&*backends))
    } else {
        check_text(&loaded, &backends)
    };
    Answer {
        out,
        diagnostics: String::new(),
        exit,
    }
}

fn reached(loaded: &Loaded) -> Vec<Backend> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => {
            let backends = runtime.block_on(reach::reach(loaded));
            // Whoever still waits for a server that is too slow is not waited for.
            runtime.shutdown_background();
            backends
        }
        Err(error) => vec![Backend {
            section: "online",
            driver: "none",
            start: None,
            answer: Err(format!("no runtime: {error}")),
        }],
    }
}

/// What a start would refuse before it opens anything is wrong here too.
fn startable(loaded: Loaded) -> Result<Loaded, ConfigErrors> {
    let errors = refusals(&loaded, Reader::Other);
    match errors.is_empty() {
        true => Ok(with_doubts(loaded)),
        false => Err(ConfigErrors(errors)),
    }
}

/// What a start would say of the port's certificates.
fn with_doubts(mut loaded: Loaded) -> Loaded {
    for doubt in PortTls::doubts_of(&loaded.config.ssl) {
        loaded.notices.push(Notice {
            level: Level::Warning,
            key: doubt.key.to_owned(),
            origin: loaded.settings.origin(doubt.key).clone(),
            text: doubt.text,
        });
    }
    loaded
}

pub fn show(arguments: &Show, environment: BTreeMap<String, String>) -> Answer {
    let settings = if arguments.defaults {
        load::defaults()
    } else {
        match load::load(&arguments.from.sources(environment)) {
            Ok(loaded) => loaded.settings,
            Err(errors) => {
                let diagnostics = format!("{errors}\n");
                return Answer {
                    out: String::new(),
                    diagnostics,
                    exit: EXIT_BAD_CONFIG,
                };
            }
        }
    };
    let secrets = if arguments.secrets {
        Secrets::Shown
    } else {
        Secrets::Hidden
    };
    let origins = if arguments.origin {
        Origins::Shown
    } else {
        Origins::Left
    };
    let out = match arguments.format {
        Format::Json => show::json(&settings, secrets, origins),
        Format::Toml => show::toml(&settings, secrets, origins),
    };
    Answer {
        out,
        diagnostics: String::new(),
        exit: 0,
    }
}

fn check_text(loaded: &Result<Loaded, ConfigErrors>, backends: &[Backend]) -> String {
    match loaded {
        Err(errors) => {
            let count = errors.0.len();
            format!(
                "{errors}\n\n{} found: the server would not start\n",
                plural(count, "error")
            )
        }
        Ok(loaded) => {
            let mut out = String::new();
            for level in [Level::Warning, Level::Note] {
                for notice in loaded.notices.iter().filter(|notice| notice.level == level) {
                    out.push_str(&format!("{}: {notice}\n", name(level)));
                }
            }
            out.push_str(&limits_text(&loaded.config.app_manager.apps));
            for backend in backends {
                let answer = match (&backend.answer, backend.start) {
                    (Ok(()), None) => "answers",
                    (Ok(()), Some(start)) => &format!("answers; {start}"),
                    (Err(fault), _) => fault,
                };
                let (section, driver) = (backend.section, backend.driver);
                out.push_str(&format!("backend: {section} ({driver}): {answer}\n"));
            }
            let file = loaded.file.as_ref().map(|file| file.display().to_string());
            let file = file.unwrap_or_else(|| "no file".to_owned());
            let warnings = plural(count(&loaded.notices, Level::Warning), "warning");
            let notes = plural(count(&loaded.notices, Level::Note), "note");
            let apps = plural(loaded.config.app_manager.apps.len(), "app");
            let silent = backends.iter().filter(|it| it.answer.is_err()).count();
            let verdict = match silent {
                0 => "ok".to_owned(),
                silent => format!("{} without an answer", plural(silent, "backend")),
            };
            out.push_str(&format!(
                "{verdict} ({file}, {apps}): {warnings}, {notes}\n"
            ));
            out
        }
    }
}

/// `backends` if they were asked.
fn check_json(loaded: &Result<Loaded, ConfigErrors>, backends: Option<&[Backend]>) -> String {
    let answer = match loaded {
        Err(ConfigErrors(errors)) => {
            let error = |error: &ConfigError| {
                json!({
                    "key": error.key,
                    "place": error.origin.place(),
                    "text": error.fault.to_string(),
                })
            };
            let errors: Vec<Value> = errors.iter().map(error).collect();
            json!({ "ok": false, "errors": errors })
        }
        Ok(loaded) => {
            let notice = |notice: &Notice| {
                json!({
                    "level": name(notice.level),
                    "key": notice.key,
                    "place": notice.origin.place(),
                    "text": notice.text,
                })
            };
            let notices: Vec<Value> = loaded.notices.iter().map(notice).collect();
            let file = loaded.file.as_ref().map(|file| file.display().to_string());
            let apps = loaded.config.app_manager.apps.iter();
            let apps: Vec<Value> = apps.map(limits_json).collect();
            let mut answer = json!({ "ok": true, "file": file, "notices": notices, "apps": apps });
            if let Some(backends) = backends {
                answer["ok"] = backends.iter().all(|it| it.answer.is_ok()).into();
                answer["backends"] = backends.iter().map(backend_json).collect();
            }
            answer
        }
    };
    format!("{answer:#}\n")
}

fn backend_json(backend: &Backend) -> Value {
    json!({
        "section": backend.section,
        "driver": backend.driver,
        "ok": backend.answer.is_ok(),
        "start": backend.start,
        "text": backend.answer.as_ref().err(),
    })
}

/// The limits that hold, app by app, whoever set them.
fn limits_text(apps: &[App]) -> String {
    let mut out = String::new();
    for app in apps.iter().take(APPS_SHOWN_MAX) {
        let limits = limits_of(app).map(|(name, limit)| match limit {
            Some(limit) => format!("{name} {limit}"),
            None => format!("{name} unlimited"),
        });
        out.push_str(&format!("limits: app {}: {}\n", app.id, limits.join(", ")));
    }
    if apps.len() > APPS_SHOWN_MAX {
        let more = plural(apps.len() - APPS_SHOWN_MAX, "more app");
        out.push_str(&format!("limits: {more}; --json has them all\n"));
    }
    out
}

fn limits_json(app: &App) -> Value {
    let limits = limits_of(app).map(|(name, limit)| (name.to_owned(), json!(limit)));
    json!({ "id": app.id, "limits": serde_json::Map::from_iter(limits) })
}

/// Names of keys and their values, `None` where there is no limit.
fn limits_of(app: &App) -> [(&'static str, Option<Value>); 12] {
    let zero_is_none = |limit: u64| (limit > 0).then(|| json!(limit));
    let most_is_none = |limit: u32| (limit < u32::MAX).then(|| json!(limit));
    let in_kb = |limit: u32| {
        let kilobytes = match limit % 1024 {
            0 => json!(limit / 1024),
            _ => json!(f64::from(limit) / 1024.0),
        };
        (limit < u32::MAX).then_some(kilobytes)
    };
    [
        ("max_connections", zero_is_none(app.max_connections)),
        (
            "max_client_events_per_second",
            zero_is_none(app.max_client_events_per_second.into()),
        ),
        (
            "max_backend_events_per_second",
            zero_is_none(app.max_backend_events_per_second.into()),
        ),
        (
            "max_read_requests_per_second",
            zero_is_none(app.max_read_requests_per_second.into()),
        ),
        (
            "max_subscriptions_per_connection",
            zero_is_none(app.subscriptions_per_connection_max.into()),
        ),
        (
            "max_presence_members_per_channel",
            most_is_none(app.max_presence_members_per_channel),
        ),
        (
            "max_presence_member_size_in_kb",
            in_kb(app.presence_member_bytes_max),
        ),
        (
            "max_channel_name_length",
            most_is_none(app.channel_name_bytes_max),
        ),
        (
            "max_event_name_length",
            most_is_none(app.event_name_bytes_max),
        ),
        (
            "max_event_payload_in_kb",
            in_kb(app.event_payload_bytes_max),
        ),
        (
            "max_event_channels_at_once",
            most_is_none(app.event_channels_max),
        ),
        ("max_event_batch_size", most_is_none(app.event_batch_max)),
    ]
}

/// A file of thousands of apps is not read line by line.
const APPS_SHOWN_MAX: usize = 20;

fn name(level: Level) -> &'static str {
    match level {
        Level::Warning => "warning",
        Level::Note => "note",
    }
}

fn count(notices: &[Notice], level: Level) -> usize {
    notices
        .iter()
        .filter(|notice| notice.level == level)
        .count()
}

fn plural(count: usize, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}
