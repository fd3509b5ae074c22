//! What `apps` does: the apps of the configured store, listed, changed, carried in and out.
//!
//! Owns: the subcommands' work and words.
//! May depend on: `bridge::apps::store`, `config`, getrandom; the arguments in `cli`.
//! Invariants: nothing is written before the whole app passed the rules of a file; a secret is
//! printed under `--secrets` only; where the configuration keeps the apps nothing is written.

use std::{collections::BTreeMap, fmt::Write as _};

use serde_json::{Map, Value, json};

use super::{
    AppsCommand, OfApps,
    cluster::{self, align},
    config::{Answer, EXIT_BAD_CONFIG},
};
use crate::{
    bridge::apps::store::{
        Created, ImportError, Imported, Rows, RowsError, StoreError, StoreSetupError,
        with_first_secret,
    },
    config::{
        self, AppDefaults, ConfigErrors, Loaded, app_key, nearest_app_key, record_of_settings,
        records_of_file,
        settings::Settings,
        settings_of_record,
        show::{self, Secrets},
    },
};

/// Why a command did nothing, or not all.
#[derive(Debug, thiserror::Error)]
enum AppsError {
    #[error("{0}")]
    Config(ConfigErrors),
    #[error("{0}")]
    Setup(#[from] StoreSetupError),
    #[error("{0}")]
    Rows(#[from] RowsError),
    #[error("there is no app {0:?}")]
    Unknown(String),
    #[error("there is an app {0:?} already")]
    Known(String),
    #[error("{0:?} is no KEY=VALUE")]
    NoAssignment(String),
    #[error("{name}: no such key of an app{}", hint(nearest))]
    NoKey {
        name: String,
        nearest: Option<String>,
    },
    #[error("{0} names the app and cannot be set")]
    Fixed(&'static str),
    #[error("the app {id:?} would not hold:\n{}", faults.join("\n"))]
    Faults { id: String, faults: Vec<String> },
    #[error("{0}")]
    Import(#[from] ImportError),
    #[error("{path}: {fault}")]
    File { path: String, fault: String },
    #[error("no random bytes: {0}")]
    Random(getrandom::Error),
}

fn hint(nearest: &Option<String>) -> String {
    nearest
        .as_ref()
        .map_or_else(String::new, |name| format!("; did you mean {name}?"))
}

impl AppsError {
    fn exit(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Setup(_) => EXIT_BAD_CONFIG,
            Self::Rows(_)
            | Self::Unknown(_)
            | Self::Known(_)
            | Self::NoAssignment(_)
            | Self::NoKey { .. }
            | Self::Fixed(_)
            | Self::Faults { .. }
            | Self::Import(_)
            | Self::File { .. }
            | Self::Random(_) => 1,
        }
    }
}

pub fn run(command: &AppsCommand, environment: BTreeMap<String, String>) -> Answer {
    if let AppsCommand::Reload { of, json } = command {
        return cluster::reload_apps(of, *json, environment);
    }
    let from = command.of().map(|of| of.from.clone()).unwrap_or_default();
    match config::load(&from.sources(environment)) {
        Ok(loaded) => answer(command, loaded),
        Err(errors) => refused(&AppsError::Config(errors)),
    }
}

/// Makes the table of apps, or gives one that is there what it lacks.
pub fn migrate_db(of: &OfApps, environment: BTreeMap<String, String>) -> Answer {
    match config::load(&of.from.sources(environment)) {
        Ok(loaded) => migrate_db_of(of, loaded),
        Err(errors) => refused(&AppsError::Config(errors)),
    }
}

/// The same with a configuration in hand.
pub fn migrate_db_of(of: &OfApps, loaded: Loaded) -> Answer {
    let answer = Kept::open(&loaded).and_then(complete);
    let answer = answer.map(|answer| match of.json {
        true => Answer {
            out: pretty(&serde_json::json!({ "done": answer.out.trim_end() })),
            ..answer
        },
        false => answer,
    });
    answer.unwrap_or_else(|error| refused(&error))
}

fn complete(kept: Kept) -> Result<Answer, AppsError> {
    let Kept::Store(mut rows) = kept else {
        return Ok(done(NO_TABLE.to_owned()));
    };
    Ok(match rows.create()? {
        Created::Made => done(MADE.to_owned()),
        Created::Whole => done(WHOLE.to_owned()),
        Created::Lacks(statement) => {
            rows.complete(&statement)?;
            Answer {
                diagnostics: format!("what it lacked: {statement};\n"),
                ..done("completed the table\n".to_owned())
            }
        }
    })
}

const NO_TABLE: &str = "apps are in the configuration: there is nothing to make\n";
const MADE: &str = "made the table\n";
const LACKS: &str = "the table is there and lacks columns; nothing was changed. It serves as it is; this completes it:\n";
const WHOLE: &str = "the table is there, with every column\n";

/// A command of `apps` with a configuration in hand.
pub fn answer(command: &AppsCommand, loaded: Loaded) -> Answer {
    let answer = Kept::open(&loaded).and_then(|kept| {
        let of = &command.of().cloned().unwrap_or_default();
        let has_made_secret = false;
        let mut work = Work {
            of,
            loaded,
            kept,
            has_made_secret,
        };
        work.run(command)
    });
    answer.unwrap_or_else(|error| refused(&error))
}

fn refused(error: &AppsError) -> Answer {
    Answer {
        out: String::new(),
        diagnostics: format!("{error}\n"),
        exit: error.exit(),
    }
}

/// Where the apps are.
enum Kept {
    Store(Rows),
    /// In the file or the variables, which this program does not write.
    Configuration,
}

impl Kept {
    fn open(loaded: &Loaded) -> Result<Self, AppsError> {
        match Rows::open(&loaded.config)? {
            Some(Ok(rows)) => Ok(Self::Store(rows)),
            Some(Err(error)) => Err(RowsError::from(error).into()),
            None => Ok(Self::Configuration),
        }
    }
}

struct Work<'a> {
    of: &'a OfApps,
    loaded: Loaded,
    kept: Kept,
    /// One that stands nowhere but here.
    has_made_secret: bool,
}

/// One app as it is kept.
struct Entry {
    record: Map<String, Value>,
    settings: Settings,
}

impl Work<'_> {
    fn run(&mut self, command: &AppsCommand) -> Result<Answer, AppsError> {
        match command {
            AppsCommand::List { .. } => self.list(),
            AppsCommand::Get { id, .. } => self.get(id),
            AppsCommand::Add {
                id, key, values, ..
            } => self.add(id, key.as_deref(), values),
            AppsCommand::Set { id, values, .. } => {
                let changes = assignments(values)?;
                self.change(id, changes, "changed")
            }
            AppsCommand::Disable { id, .. } => self.switch(id, false),
            AppsCommand::Enable { id, .. } => self.switch(id, true),
            AppsCommand::Remove { id, .. } => self.remove(id),
            AppsCommand::RotateSecret { id, .. } => self.rotate_secret(id),
            AppsCommand::Import {
                file, overwrite, ..
            } => self.import(file, *overwrite),
            AppsCommand::Export { .. } => self.export(),
            AppsCommand::Init { .. } => self.init(),
            AppsCommand::Reload { .. } => unreachable!("a running node is asked, and no store"),
        }
    }

    fn defaults(&self) -> &AppDefaults {
        &self.loaded.config.app_manager.app_defaults
    }

    fn secrets(&self) -> Secrets {
        match self.of.secrets {
            true => Secrets::Shown,
            false => Secrets::Hidden,
        }
    }

    /// All apps by id, and what is wrong with those that cannot be.
    fn all(&mut self) -> Result<(Vec<Settings>, String), AppsError> {
        let defaults = self.loaded.config.app_manager.app_defaults.clone();
        let (mut apps, mut faults) = (Vec::new(), String::new());
        match &mut self.kept {
            Kept::Store(rows) => rows.list(|row| {
                let app = row.and_then(|record| {
                    let id = record.get("id").map_or_else(String::new, text_of);
                    let app = settings_of_record(&defaults, &record);
                    app.map_err(|faults| (id, faults.join("; ")))
                });
                match app {
                    Ok(app) => apps.push(app),
                    Err((id, fault)) => _ = writeln!(faults, "{}", malformed(&id, &fault)),
                }
            })?,
            Kept::Configuration => apps.extend_from_slice(self.loaded.settings.records(APPS)),
        }
        Ok((apps, faults))
    }

    fn one(&mut self, id: &str) -> Result<Option<Entry>, AppsError> {
        let record = match &mut self.kept {
            Kept::Store(rows) => rows.read(id)?,
            Kept::Configuration => {
                let mut apps = self.loaded.settings.records(APPS).iter();
                apps.find(|app| text(app, "id") == id)
                    .map(record_of_settings)
            }
        };
        let Some(record) = record else {
            return Ok(None);
        };
        let settings = self.holding(id, &record)?;
        Ok(Some(Entry { record, settings }))
    }

    /// The record as an app, or why it cannot be one.
    fn holding(&self, id: &str, record: &Map<String, Value>) -> Result<Settings, AppsError> {
        settings_of_record(self.defaults(), record).map_err(|faults| AppsError::Faults {
            id: id.to_owned(),
            faults,
        })
    }

    fn list(&mut self) -> Result<Answer, AppsError> {
        let (apps, faults) = self.all()?;
        let out = match self.of.json {
            true => {
                let apps = apps.iter().map(|app| show::given(app, self.secrets()));
                pretty(&Value::from_iter(apps))
            }
            false => table(&apps),
        };
        Ok(Answer {
            out,
            exit: u8::from(!faults.is_empty()),
            diagnostics: faults,
        })
    }

    fn get(&mut self, id: &str) -> Result<Answer, AppsError> {
        let entry = self.one(id)?;
        let Entry { settings, .. } = entry.ok_or_else(|| AppsError::Unknown(id.to_owned()))?;
        Ok(done(match self.of.json {
            true => pretty(&Value::Object(show::given(&settings, self.secrets()))),
            false => show::toml(&settings, self.secrets(), show::Origins::Left),
        }))
    }

    fn add(&mut self, id: &str, key: Option<&str>, values: &[String]) -> Result<Answer, AppsError> {
        if self.one(id)?.is_some() {
            return Err(AppsError::Known(id.to_owned()));
        }
        let mut record = assignments(values)?;
        record.retain(|_, value| !value.is_null());
        record.insert("id".to_owned(), id.into());
        let key = key.map_or_else(|| random(KEY_BYTES), |key| Ok(key.to_owned()))?;
        record.insert("key".to_owned(), key.into());
        if !record.contains_key("secret") {
            self.has_made_secret = true;
            record.insert("secret".to_owned(), random(SECRET_BYTES)?.into());
        }
        let settings = self.holding(id, &record)?;
        if let Kept::Store(rows) = &mut self.kept {
            rows.add(&settings)?;
        }
        let mut answer = self.told(id, "added", &settings);
        answer.diagnostics += &self.when_found();
        if matches!(self.kept, Kept::Store(_)) && !self.of.json && !self.of.secrets {
            // Clients need it, and whoever added the app may not have chosen it.
            _ = writeln!(answer.out, "key = {:?}", text(&settings, "key"));
        }
        Ok(answer)
    }

    /// Changes some members of an app, if the whole holds afterwards.
    fn change(
        &mut self,
        id: &str,
        changes: Map<String, Value>,
        verb: &str,
    ) -> Result<Answer, AppsError> {
        if let Some(fixed) = ["id"]
            .into_iter()
            .find(|fixed| changes.contains_key(*fixed))
        {
            return Err(AppsError::Fixed(fixed));
        }
        // One that does not hold may be mended so.
        let record = match &mut self.kept {
            Kept::Store(rows) => rows.read(id)?,
            Kept::Configuration => self.one(id)?.map(|entry| entry.record),
        };
        let mut record = record.ok_or_else(|| AppsError::Unknown(id.to_owned()))?;
        record.retain(|name, _| app_key(name).is_none_or(|key| !changes.contains_key(key)));
        record.extend(changes.clone());
        let settings = self.holding(id, &record)?;
        if let Kept::Store(rows) = &mut self.kept {
            // In the form of a file: lists as lists, numbers as numbers.
            let mut given = record_of_settings(&settings);
            let changes = changes
                .keys()
                .map(|key| (key.clone(), given.remove(key).unwrap_or_default()));
            rows.update(id, &changes.collect())?;
        }
        let mut answer = self.told(id, verb, &settings);
        answer.diagnostics += &self.when_followed();
        Ok(answer)
    }

    fn switch(&mut self, id: &str, is_on: bool) -> Result<Answer, AppsError> {
        let changes = Map::from_iter([("enabled".to_owned(), is_on.into())]);
        let verb = match is_on {
            true => "enabled",
            false => "disabled",
        };
        self.change(id, changes, verb)
    }

    fn remove(&mut self, id: &str) -> Result<Answer, AppsError> {
        let is_there = match &mut self.kept {
            Kept::Store(rows) => match rows.read(id) {
                Ok(record) => record.is_some(),
                // What cannot be read can be removed.
                Err(RowsError::Store(StoreError::Malformed { .. })) => true,
                Err(error) => return Err(error.into()),
            },
            Kept::Configuration => self.one(id)?.is_some(),
        };
        if !is_there {
            return Err(AppsError::Unknown(id.to_owned()));
        }
        match &mut self.kept {
            Kept::Store(rows) => {
                rows.remove(id)?;
                Ok(Answer {
                    diagnostics: self.when_followed(),
                    ..self.done(format!("removed {id}\n"), &json!({"removed": id}))
                })
            }
            Kept::Configuration => Ok(Answer {
                diagnostics: format!("{NOT_WRITTEN}: take the app {id} out of it\n"),
                ..self.done(String::new(), &json!({"removed": null}))
            }),
        }
    }

    /// A new secret; the one that signed until now goes on to verify.
    fn rotate_secret(&mut self, id: &str) -> Result<Answer, AppsError> {
        let entry = self.one(id)?;
        let entry = entry.ok_or_else(|| AppsError::Unknown(id.to_owned()))?;
        let old = with_first_secret(record_of_settings(&entry.settings));
        // Those of an earlier rotation stay too, until they are taken away.
        let mut olds = vec![old.get("secret").cloned().unwrap_or_default()];
        let earlier = old.get("secrets").and_then(Value::as_array);
        olds.extend(earlier.into_iter().flatten().cloned());
        olds.dedup();
        self.has_made_secret = true;
        let changes = Map::from_iter([
            ("secret".to_owned(), random(SECRET_BYTES)?.into()),
            ("secrets".to_owned(), json!(olds)),
        ]);
        let mut answer = self.change(id, changes, "rotated the secret of")?;
        if matches!(self.kept, Kept::Store(_)) {
            answer.diagnostics += &format!(
                "the old secret stays valid; when all use the new one: sockudo apps set {id} \
                 secrets=\n"
            );
        }
        Ok(answer)
    }

    fn import(&mut self, path: &str, overwrite: bool) -> Result<Answer, AppsError> {
        let file = |fault: String| AppsError::File {
            path: path.to_owned(),
            fault,
        };
        let text = std::fs::read_to_string(path).map_err(|error| file(error.to_string()))?;
        let records = records_of_file(&text, path.ends_with(".toml")).map_err(file)?;
        // All are looked at before the first is written.
        let mut apps = Vec::with_capacity(records.len());
        for record in &records {
            let id = record.get("id").map_or_else(String::new, text_of);
            apps.push((id.clone(), self.holding(&id, record)?));
        }
        let Kept::Store(rows) = &mut self.kept else {
            let apps = apps.iter();
            return Ok(not_written(match self.of.json {
                true => pretty(&apps.map(|it| show::given(&it.1, self.secrets())).collect()),
                false => apps.map(|it| lines(&it.1, self.secrets())).collect(),
            }));
        };
        let apps: Vec<Settings> = apps.into_iter().map(|(_, app)| app).collect();
        let Imported {
            added,
            changed,
            left,
        } = rows.import(&apps, overwrite)?;
        let hint = match left {
            0 => "",
            _ => " (--overwrite changes them too)",
        };
        let out = format!("{added} added, {changed} changed, {left} left as they were{hint}\n");
        let json = json!({"added": added, "changed": changed, "left": left});
        Ok(Answer {
            diagnostics: match (added, changed) {
                (0, 0) => String::new(),
                (_, 0) => self.when_found(),
                (_, _) => self.when_followed(),
            },
            ..self.done(out, &json)
        })
    }

    fn export(&mut self) -> Result<Answer, AppsError> {
        let (apps, faults) = self.all()?;
        let apps = apps.iter().map(|app| show::given(app, self.secrets()));
        let apps = json!({"app_manager": {"array": {"apps": Value::from_iter(apps)}}});
        let mut answer = done(pretty(&apps));
        if !self.of.secrets {
            answer.diagnostics += "secrets are masked: --secrets exports what can be imported\n";
        }
        answer.exit = u8::from(!faults.is_empty());
        answer.diagnostics += &faults;
        Ok(answer)
    }

    fn init(&mut self) -> Result<Answer, AppsError> {
        let said = match &mut self.kept {
            Kept::Configuration => NO_TABLE,
            Kept::Store(rows) => match rows.create()? {
                Created::Made => MADE,
                Created::Whole => WHOLE,
                Created::Lacks(statement) => {
                    let json = json!({"done": null, "lacks": statement});
                    return Ok(Answer {
                        diagnostics: LACKS.to_owned(),
                        exit: 1,
                        ..self.done(format!("{statement};\n"), &json)
                    });
                }
            },
        };
        Ok(self.done(said.to_owned(), &json!({"done": said.trim_end()})))
    }

    /// In words, or as JSON.
    fn done(&self, words: String, json: &Value) -> Answer {
        done(match self.of.json {
            true => pretty(json),
            false => words,
        })
    }

    /// What was changed in a table, nodes that run see later.
    fn when_followed(&self) -> String {
        let app_manager = &self.loaded.config.app_manager;
        let ttl_s = match app_manager.cache_enabled {
            true => app_manager.cache_ttl_s.max(1),
            false => 1,
        };
        self.in_running_nodes(&format!("follow within {ttl_s} s"))
    }

    /// They look for an app that they do not know.
    fn when_found(&self) -> String {
        let negative_ttl_s = self.loaded.config.app_manager.negative_ttl_s.max(1);
        self.in_running_nodes(&format!(
            "find the app when it is used; those that have just missed it, within {negative_ttl_s} s"
        ))
    }

    fn in_running_nodes(&self, words: &str) -> String {
        match self.kept {
            Kept::Store(_) => {
                format!("running nodes {words}, or at once: sockudo apps reload\n")
            }
            Kept::Configuration => String::new(),
        }
    }

    /// What was done, or what to write instead.
    fn told(&self, id: &str, verb: &str, settings: &Settings) -> Answer {
        if matches!(self.kept, Kept::Configuration) {
            let secrets = match self.has_made_secret {
                true => Secrets::Shown,
                false => self.secrets(),
            };
            return not_written(lines(settings, secrets));
        }
        done(match (self.of.json, self.of.secrets) {
            (true, _) => pretty(&Value::Object(show::given(settings, self.secrets()))),
            (false, true) => format!(
                "{verb} {id}\n{}",
                show::toml(settings, Secrets::Shown, show::Origins::Left)
            ),
            (false, false) => format!("{verb} {id}\n"),
        })
    }
}

/// `KEY=VALUE` as members; nothing after the sign is null, which unsets.
fn assignments(values: &[String]) -> Result<Map<String, Value>, AppsError> {
    let mut members = Map::new();
    for value in values {
        let (name, value) = value
            .split_once('=')
            .ok_or_else(|| AppsError::NoAssignment(value.clone()))?;
        let key = app_key(name).ok_or_else(|| AppsError::NoKey {
            name: name.to_owned(),
            nearest: nearest_app_key(name),
        })?;
        let value = match value {
            "" | "null" => Value::Null,
            text => text.into(),
        };
        members.insert(key.to_owned(), value);
    }
    Ok(members)
}

fn random(bytes: usize) -> Result<String, AppsError> {
    let mut buffer = vec![0; bytes];
    getrandom::fill(&mut buffer).map_err(AppsError::Random)?;
    let digits = buffer.iter().map(|byte| format!("{byte:02x}"));
    Ok(digits.collect())
}

fn table(apps: &[Settings]) -> String {
    let head = ["ID", "KEY", "ENABLED", "MAX CONNECTIONS", "WEBHOOKS"];
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(apps.iter().map(|app| {
        let all = show::all(app, Secrets::Hidden);
        let cell = |key| all.get(key).map_or_else(String::new, text_of);
        let webhooks = app.records("webhooks").len().to_string();
        let most = cell("max_connections");
        let most = match most.as_str() {
            "0" => "unlimited".to_owned(),
            _ => most,
        };
        [cell("id"), cell("key"), cell("enabled"), most, webhooks]
    }));
    let mut out = String::new();
    align(&mut out, &rows);
    out
}

/// The app as lines of a file.
fn lines(app: &Settings, secrets: Secrets) -> String {
    pretty(&Value::Object(show::given(app, secrets)))
}

fn not_written(lines: String) -> Answer {
    Answer {
        out: lines,
        diagnostics: format!("{NOT_WRITTEN}; it would have this in {APPS}:\n"),
        exit: 0,
    }
}

fn done(out: String) -> Answer {
    Answer {
        out,
        diagnostics: String::new(),
        exit: 0,
    }
}

fn malformed(id: &str, fault: &str) -> StoreError {
    StoreError::Malformed {
        id: id.to_owned(),
        faults: vec![fault.to_owned()],
        stand_in: None,
    }
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

fn text(app: &Settings, key: &str) -> String {
    let all = show::all(app, Secrets::Hidden);
    all.get(key).map_or_else(String::new, text_of)
}

fn text_of(value: &Value) -> String {
    match value.as_str() {
        Some(text) => text.to_owned(),
        None => value.to_string(),
    }
}

const APPS: &str = "app_manager.array.apps";
const NOT_WRITTEN: &str =
    "app_manager.driver is memory: the configuration is yours to change, nothing was written";
const KEY_BYTES: usize = 10;
const SECRET_BYTES: usize = 20;
