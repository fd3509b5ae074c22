//! Carrying over what another server was configured with: its texts in, a file of ours out.
//!
//! Owns: what is written, what is left behind, and how a value that does not fit here is left out
//! until the rest holds. Each former server's own names stand in a file below.
//! May depend on: the rest of `config`. Reads no file: the texts are arguments.
//! Invariants: the file loads to the settings that were carried; no name of what is left behind
//! shows a secret; an app whose origins are in doubt is written disabled, never open to all.

mod php;
mod pusher;
mod reverb;
mod soketi;
mod written;

use std::collections::BTreeSet;
use std::fmt;

use super::checks::{APPS, Demo};
use super::environment::{self, Variables};
use super::error::{ConfigError, ConfigErrors, Fault, Level, Notice, Report};
use super::keys::{Key, SERVER, Status};
use super::kind::Kind;
use super::origin::Origin;
use super::read::{self, Assignment, Defaults};
use super::settings::{Setting, Settings};
use super::show;
use super::tree::{Member, Value};
use super::{checks, derive, load, substitute, toml};

/// Whose configuration it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Former {
    Soketi,
    Reverb,
    Pusher,
    /// Sockudo 2.9 to 5.
    Sockudo,
}

/// A text, and what its lines are named by.
#[derive(Clone, Copy)]
pub struct Text<'a> {
    pub name: &'a str,
    pub text: &'a str,
}

/// What there is of the former configuration.
#[derive(Clone, Copy, Default)]
pub struct Given<'a> {
    /// Its file; where that is a list of variables, as good as `variables`.
    pub file: Option<Text<'a>>,
    /// Its `.env`.
    pub variables: Option<Text<'a>>,
}

/// What became of it.
#[derive(Debug)]
pub struct Carried {
    /// A configuration of ours, as TOML, secrets included.
    pub file: String,
    pub apps: usize,
    /// What has no place here.
    pub left: Vec<Left>,
    /// What to know of the rest.
    pub notes: Vec<String>,
}

/// Something that could not be carried. Prints as `PLACE: NAME = VALUE: WHAT TO DO`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    pub place: Option<String>,
    /// Empty where the place is a variable, which has the name.
    pub name: String,
    /// `None` where it is a secret, or no single word.
    pub value: Option<String>,
    pub what: String,
    pub why: Why,
}

/// Why something was not carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Nothing here is like it, or what is does not go with the rest.
    NoPlace,
    /// Its value is none that it can have: whoever wrote it meant another one.
    Wrong,
}

impl fmt::Display for Left {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            let end = if self.name.is_empty() { "" } else { ": " };
            write!(out, "{place}{end}")?;
        }
        out.write_str(&self.name)?;
        if let Some(value) = &self.value {
            write!(out, " = {value}")?;
        }
        write!(out, ": {}", self.what)
    }
}

/// A former configuration in our own keys, before anything is checked.
struct Draft {
    source: Origin,
    members: Vec<Member>,
    variables: Variables,
    left: Vec<Left>,
    notes: Vec<String>,
}

impl Draft {
    fn new(source: Origin) -> Self {
        Self {
            source,
            members: Vec::new(),
            variables: Variables::default(),
            left: Vec::new(),
            notes: Vec::new(),
        }
    }
}

/// Turns a former configuration into one of ours, or says why it cannot be read.
pub fn carry(former: Former, given: Given<'_>) -> Result<Carried, ConfigErrors> {
    let mut report = Report {
        lenient: true,
        ..Report::default()
    };
    let draft = match former {
        Former::Soketi => soketi::draft(given),
        Former::Sockudo => soketi::draft_of_sockudo(given),
        Former::Reverb => reverb::draft(given),
        Former::Pusher => pusher::draft(given),
    };
    let draft = draft.map_err(|error| ConfigErrors(vec![error]))?;
    let mut assignments = assigned(former, &draft, &mut report);
    let mut settings = load::settled(&mut assignments, &draft.variables, &mut report);
    load::env_app(&mut settings, &draft.variables, &mut report);
    if former == Former::Soketi {
        soketi::unlimited_where_nobody_said(&mut settings);
    }
    let warned = report.notices.len();
    let mut errors = std::mem::take(&mut report.errors);
    drop_refused(&mut settings, &errors);
    derive::derive(&mut settings, false, &mut report);
    settle_conflicts(&mut settings, &mut errors)?;
    let unknown_events = drop_unknown_events(&mut settings);
    let shown = Shown {
        draft: &draft,
        settings: &settings,
    };
    let mut left = draft.left.clone();
    left.extend(unknown_events);
    left.extend(errors.iter().map(|error| shown.refused(error)));
    let mut notes = draft.notes.clone();
    for (at, notice) in report.notices.iter().enumerate() {
        match notice.level {
            Level::Warning if at < warned => left.push(shown.without_effect(notice)),
            Level::Warning | Level::Note => notes.push(notice.to_string()),
        }
    }
    Ok(Carried {
        file: written(former, &settings)?,
        apps: settings.records(APPS).len(),
        left,
        notes,
    })
}

/// What the draft says about our keys, and what held there where it says nothing.
fn assigned(former: Former, draft: &Draft, report: &mut Report) -> Vec<Assignment> {
    let mut tree = super::tree::Node::new(Value::Object(draft.members.clone()), 1);
    substitute::substitute(&mut tree, "", &draft.source, &draft.variables, report);
    let Value::Object(members) = tree.value else {
        unreachable!("it was made an object")
    };
    let mut all = read::assignments(&SERVER, &members, &draft.source, "", report);
    let of_variables = environment::server_assignments(&draft.variables, report);
    all.extend(of_variables);
    environment::warn_of_unused(&draft.variables, report);
    match former {
        Former::Soketi => soketi::add_defaults(&mut all),
        Former::Sockudo => soketi::add_limits_mode(&mut all),
        Former::Reverb | Former::Pusher => {}
    }
    all
}

/// Takes out what an error was about, where its default would not do.
fn drop_refused(settings: &mut Settings, errors: &[ConfigError]) {
    let apps = settings.records_mut(APPS);
    for error in errors {
        let about = |record: &Settings| rest_of(&error.key, record).map(str::to_owned);
        let Some((at, rest)) = (0..apps.len()).find_map(|at| Some((at, about(&apps[at])?))) else {
            continue;
        };
        let key = read::snake_case(rest.split(['[', '.']).next().unwrap_or_default());
        match key.as_str() {
            "" | "id" | "key" | "secret" | "secrets" => {
                apps.remove(at);
            }
            "allowed_origins" => {
                let origin = apps[at].origin.clone();
                apps[at].put("enabled", Setting::Flag(false), origin);
            }
            "webhooks" => {
                let is_meant = |hook: &Settings| rest_of(&error.key, hook).is_some();
                apps[at]
                    .records_mut("webhooks")
                    .retain(|hook| !is_meant(hook));
            }
            _ => reset(&mut apps[at], &key),
        }
    }
}

/// What follows a record's name in the name of a key.
fn rest_of<'a>(key: &'a str, record: &Settings) -> Option<&'a str> {
    let rest = key.strip_prefix(record.prefix.trim_end_matches('.'))?;
    match rest.strip_prefix('.') {
        Some(rest) => Some(rest),
        None => rest.is_empty().then_some(rest),
    }
}

/// Takes out the events that no webhook can be told of. A start only warns of them.
fn drop_unknown_events(settings: &mut Settings) -> Vec<Left> {
    let path = "event_types";
    let mut left = Vec::new();
    let apps = settings.records_mut(APPS).iter_mut();
    for hook in apps.flat_map(|app| app.records_mut("webhooks")) {
        let Setting::Texts(names) = hook.setting(path).clone() else {
            continue;
        };
        let (unknown, known): (Vec<_>, Vec<_>) = names
            .into_iter()
            .partition(|name| checks::unknown_event(name).is_some());
        let (origin, key) = (hook.origin(path).clone(), hook.name(path));
        left.extend(unknown.iter().filter_map(|name| {
            Some(Left {
                place: origin.place(),
                name: key.clone(),
                // The text shows it.
                value: None,
                what: checks::unknown_event(name)?,
                why: Why::Wrong,
            })
        }));
        if !unknown.is_empty() {
            hook.put(path, Setting::Texts(known), origin);
        }
    }
    left
}

/// Gives a key its default again.
fn reset(settings: &mut Settings, path: &str) {
    if let Some(key) = settings.table.find(path) {
        let text = key.default;
        let setting = text.map_or(Setting::Null, |text| read::default_setting(key, text));
        settings.put(key.path, setting, Origin::Default);
    }
}

/// Leaves out what does not fit beside the rest, until the rest holds.
fn settle_conflicts(
    settings: &mut Settings,
    errors: &mut Vec<ConfigError>,
) -> Result<(), ConfigErrors> {
    let mut left_out = BTreeSet::new();
    for _ in 0..ROUNDS_MAX {
        let found = conflicts(settings);
        if found.is_empty() {
            return Ok(());
        }
        // Nobody set it, or it is back after it was left out: another key's value is in its way.
        let (stuck, own): (Vec<_>, Vec<_>) = found
            .into_iter()
            .partition(|error| error.origin == Origin::Default || left_out.contains(&error.key));
        drop_refused(settings, &own);
        for error in &own {
            reset(settings, &error.key);
            left_out.insert(error.key.clone());
        }
        if let ([], Some(error)) = (&*own, stuck.first()) {
            let Some(key) = in_the_way(settings, error) else {
                errors.extend(stuck);
                break;
            };
            errors.push(ConfigError {
                origin: settings.origin(key).clone(),
                key: key.to_owned(),
                fault: Fault::Conflict(format!(
                    "left out, since with it {} is refused: {}",
                    error.key, error.fault
                )),
            });
            reset(settings, key);
        }
        // What was left out may follow from others now.
        derive::derive(settings, false, &mut Report::default());
        let is_new = |error: &ConfigError| !errors.contains(error);
        let new: Vec<_> = own.into_iter().filter(is_new).collect();
        errors.extend(new);
    }
    Err(ConfigErrors(std::mem::take(errors)))
}

/// What is wrong with values that are right by themselves.
fn conflicts(settings: &Settings) -> Vec<ConfigError> {
    let demo = Demo {
        is_on: false,
        is_allowed: false,
    };
    let mut report = Report::default();
    checks::check(settings, demo, &mut report);
    report.errors
}

/// The key that somebody set, and without which `error` goes; of its own section, if there is one.
fn in_the_way(settings: &Settings, error: &ConfigError) -> Option<&'static str> {
    let section = |path: &str| path.split('.').next().map(str::to_owned);
    let is_set = |key: &&Key| {
        settings.is_explicit(key.path)
            && key.path != error.key
            && !matches!(key.kind, Kind::Records(_))
    };
    let mut set: Vec<&'static str> = SERVER.iter().filter(is_set).map(|key| key.path).collect();
    set.sort_by_key(|path| section(path) != section(&error.key));
    set.into_iter().find(|path| {
        let mut without = settings.clone();
        reset(&mut without, path);
        derive::derive(&mut without, false, &mut Report::default());
        let mut left = conflicts(&without).into_iter();
        left.all(|other| other.key != error.key)
    })
}

/// More conflicts than that in a chain are a fault of ours.
const ROUNDS_MAX: usize = 16;

/// The file, made of what somebody set and of what would otherwise be different here.
fn written(former: Former, settings: &Settings) -> Result<String, ConfigErrors> {
    let mut also = BTreeSet::new();
    match former {
        // Redis there, unless it says otherwise.
        Former::Sockudo => also.extend(["queue.driver"]),
        // So it is whatever a variable of the new server turns on.
        Former::Soketi => also.extend(["queue.driver", "rate_limiter.enabled"]),
        Former::Reverb | Former::Pusher => {}
    }
    loop {
        let is_written = |of: &Settings, key: &'static Key| match of.table.find("adapter.driver") {
            Some(_) => {
                key.status == Status::Keep && (of.is_explicit(key.path) || also.contains(key.path))
            }
            None => differs_from_default(of, key, settings),
        };
        let head = format!("# Carried over from {}.\n\n", name_of(former));
        let text = head + show::carried(settings, &is_written).trim_start();
        let again = loaded(&text)?;
        let is_missed = |key: &&Key| {
            key.status == Status::Keep
                && again.setting(key.path) != settings.setting(key.path)
                && !matches!(key.kind, Kind::Records(_))
        };
        let missed: Vec<&str> = SERVER
            .iter()
            .filter(is_missed)
            .map(|key| key.path)
            .collect();
        let before = also.len();
        also.extend(missed);
        if also.len() == before {
            return Ok(text);
        }
    }
}

fn differs_from_default(record: &Settings, key: &'static Key, server: &Settings) -> bool {
    let defaults = Defaults {
        mode: server.get("limits_mode"),
        server: Some(server),
    };
    key.required || *record.setting(key.path) != read::default_of(key, defaults).0
}

fn name_of(former: Former) -> &'static str {
    match former {
        Former::Soketi => "Soketi",
        Former::Reverb => "Laravel Reverb",
        Former::Pusher => "Pusher Channels",
        Former::Sockudo => "an earlier Sockudo",
    }
}

/// The settings of a text of ours, as `config check` would find them.
fn loaded(text: &str) -> Result<Settings, ConfigErrors> {
    let mut report = Report::default();
    let source = Origin::File {
        path: "the new file".into(),
        line: 1,
    };
    let none = Variables::default();
    let wrong = |(line, fault): (u32, Fault)| refusal(&source.at_line(line), fault);
    let mut tree = toml::parse(text).map_err(|it| ConfigErrors(vec![wrong(it)]))?;
    substitute::substitute(&mut tree, "", &source, &none, &mut report);
    let Value::Object(members) = &tree.value else {
        unreachable!("TOML is an object")
    };
    let mut given = read::assignments(&SERVER, members, &source, "", &mut report);
    let mut settings = load::settled(&mut given, &none, &mut report);
    derive::derive(&mut settings, false, &mut report);
    let demo = Demo {
        is_on: false,
        is_allowed: false,
    };
    checks::check(&settings, demo, &mut report);
    match report.errors.is_empty() {
        true => Ok(settings),
        false => Err(ConfigErrors(report.errors)),
    }
}

fn refusal(origin: &Origin, fault: Fault) -> ConfigError {
    ConfigError {
        origin: origin.clone(),
        key: String::new(),
        fault,
    }
}

/// How what is left behind is named.
struct Shown<'a> {
    draft: &'a Draft,
    settings: &'a Settings,
}

impl Shown<'_> {
    fn refused(&self, error: &ConfigError) -> Left {
        let mut what = error.fault.to_string();
        let is_closed = |app: &&Settings| {
            rest_of(&error.key, app).is_some_and(|rest| {
                read::snake_case(rest).starts_with("allowed_origins") && !app.flag("enabled")
            })
        };
        if self
            .settings
            .records(APPS)
            .iter()
            .any(|app| is_closed(&app))
        {
            what.push_str("; the app is written disabled, so that it is not open to every origin");
        }
        Left {
            place: error.origin.place(),
            name: error.key.clone(),
            // The fault shows it.
            value: None,
            what,
            why: match error.fault {
                Fault::Value { .. }
                | Fault::Empty { .. }
                | Fault::Missing
                | Fault::Twice { .. }
                | Fault::VariableUnset { .. }
                | Fault::Syntax { .. }
                | Fault::Unreadable { .. } => Why::Wrong,
                Fault::UnknownKey { .. } | Fault::NotInThisRelease { .. } | Fault::Conflict(_) => {
                    Why::NoPlace
                }
            },
        }
    }

    fn without_effect(&self, notice: &Notice) -> Left {
        let value = match notice.origin.variable() {
            Some(name) => self.draft.variables.value(name).map(str::to_owned),
            None => member_at(&self.draft.members, &notice.key),
        };
        let name = notice.origin.variable().unwrap_or(&notice.key);
        // Whoever misspells a secret's name must not read it in a log.
        let is_stranger = notice.text.starts_with("no such ");
        let value = value.filter(|value| !is_stranger || is_harmless(value));
        Left {
            place: notice.origin.place(),
            name: notice.key.clone(),
            value: value.and_then(|value| speakable(name, &value)),
            what: notice.text.clone(),
            why: Why::NoPlace,
        }
    }
}

/// The single word at a path of a file.
fn member_at(members: &[Member], path: &str) -> Option<String> {
    let find = |(member, rest): (&Member, &str)| match &member.node.value {
        Value::Object(inner) => member_at(inner, rest.strip_prefix('.')?),
        Value::Flag(_) | Value::Number(_) | Value::Text(_) if rest.is_empty() => {
            Some(member.node.shown())
        }
        _ => None,
    };
    let begins = |member| {
        path.strip_prefix(name_in(member))
            .map(|rest| (member, rest))
    };
    members.iter().filter_map(begins).find_map(find)
}

fn name_in(member: &Member) -> &str {
    &member.name
}

/// A value, unless it may be a secret or is long.
fn speakable(name: &str, value: &str) -> Option<String> {
    let name = read::snake_case(name);
    let is_secret = SECRET_WORDS.iter().any(|word| name.contains(word));
    let is_word = value.len() <= SHOWN_BYTES_MAX && !value.contains(['{', '\n', '@']);
    (!is_secret && is_word && !value.is_empty()).then(|| value.to_owned())
}

/// A number or a flag says little, whatever its name.
fn is_harmless(value: &str) -> bool {
    value.parse::<f64>().is_ok() || value.parse::<bool>().is_ok()
}

const SECRET_WORDS: [&str; 8] = [
    "secret",
    "pass",
    "token",
    "key",
    "url",
    "auth",
    "option",
    "credential",
];
const SHOWN_BYTES_MAX: usize = 60;
