//! Loading: find the file, merge the sources, settle, derive, check, build.
//!
//! Owns: the order of the sources and the demo mode. The only place that reads a file.
//! May depend on: the rest of `config`.
//! Invariants: the environment and the flags are arguments; all errors are reported at once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::checks::{APPS, DEMO_FORMER_ID, DEMO_ID, DEMO_KEY, DEMO_SECRET, Demo};
use super::environment::{self, AppOfVariables, Variables};
use super::error::{ConfigError, ConfigErrors, Fault, Notice, Report};
use super::keys::{APP, APP_PREFIX, SERVER};
use super::origin::Origin;
use super::read::{self, Assignment, Defaults, Rank};
use super::sections::LimitsMode;
use super::settings::{Setting, Settings};
use super::tree::{Member, Node, Value};
use super::{Config, checks, derive, dotenv, json, substitute, toml};

/// Everything a load reads from.
///
/// It has no `Debug`: the environment may hold secrets that are not even ours.
#[derive(Clone, Default)]
pub struct Sources {
    /// `--config`.
    pub config: Option<PathBuf>,
    /// `--env-file`.
    pub env_file: Option<PathBuf>,
    /// Looked for in this order when no file is named; see `Sources::usual_places`.
    pub search: Vec<PathBuf>,
    pub environment: BTreeMap<String, String>,
    pub flags: Vec<Flag>,
    /// Unknown keys are warnings.
    pub lenient: bool,
    /// The demo app's public credentials may face the network.
    pub allow_demo_app: bool,
}

/// A command-line flag that sets a key.
#[derive(Clone, Debug)]
pub struct Flag {
    pub flag: &'static str,
    pub key: &'static str,
    pub value: String,
}

/// A configuration that holds.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub config: Config,
    /// The same values by key, each with its origin.
    pub settings: Settings,
    pub notices: Vec<Notice>,
    /// The file that was read.
    pub file: Option<PathBuf>,
}

impl Sources {
    /// Where a file is looked for when none is named.
    pub fn usual_places() -> Vec<PathBuf> {
        [
            "config/config.toml",
            "config/config.json",
            "/etc/sockudo/sockudo.toml",
            "/etc/sockudo/config.json",
        ]
        .map(PathBuf::from)
        .into()
    }
}

impl Loaded {
    /// Keys that differ in `next` but need a restart to take effect.
    pub fn keys_that_need_a_restart(&self, next: &Self) -> Vec<&'static str> {
        let differs = |path: &str| self.settings.setting(path) != next.settings.setting(path);
        let keys = SERVER
            .iter()
            .filter(|key| !key.reloads && differs(key.path));
        keys.map(|key| key.path).collect()
    }

    /// What holds after a reload: `next`, but for the keys that need a restart, which stay.
    #[must_use]
    pub fn reloaded(&self, mut next: Self) -> Self {
        for path in self.keys_that_need_a_restart(&next) {
            let running = self.settings.entry(path);
            let (setting, origin) = (running.setting.clone(), running.origin.clone());
            next.settings.put(path, setting, origin);
        }
        next.config = config_of(&next.settings, next.config.demo);
        next
    }
}

/// Loads the configuration from `sources`, or says everything that is wrong with it.
pub fn load(sources: &Sources) -> Result<Loaded, ConfigErrors> {
    let mut report = Report {
        lenient: sources.lenient,
        wants_one_name: true,
        ..Report::default()
    };
    let mut variables = Variables::new(&sources.environment);
    if let Some(path) = &sources.env_file {
        read_env_file(path, &mut variables, &mut report);
    }
    let file = find_file(sources, &variables);
    let mut assignments = Vec::new();
    if let Some(path) = &file {
        assignments.extend(read_file(path, &variables, &mut report));
    }
    assignments.extend(environment::server_assignments(&variables, &mut report));
    assignments.extend(flag_assignments(&sources.flags));
    environment::warn_of_unused(&variables, &mut report);

    let mut settings = settled(&mut assignments, &variables, &mut report);
    env_app(&mut settings, &variables, &mut report);
    let is_demo = file.is_none() && !makes_an_app(&variables, &settings);
    if is_demo {
        demo_app(&mut settings, &variables, &mut report);
    }
    derive::derive(&mut settings, is_demo, &mut report);
    let demo = Demo {
        is_on: is_demo,
        is_allowed: sources.allow_demo_app,
    };
    checks::check(&settings, demo, &mut report);
    if !report.errors.is_empty() {
        report.errors.sort_by_key(reading_order);
        return Err(ConfigErrors(report.errors));
    }
    let config = config_of(&settings, is_demo);
    Ok(Loaded {
        config,
        settings,
        notices: report.notices,
        file,
    })
}

/// The records that the settings fill.
fn config_of(settings: &Settings, is_demo: bool) -> Config {
    let mut config = Config::read(settings);
    config.demo = is_demo;
    config.queue.is_driver_derived = settings.is_in_passing("queue.driver");
    if let (true, [app]) = (is_demo, &mut config.app_manager.apps[..]) {
        app.former_id = Some(DEMO_FORMER_ID);
    }
    config
}

/// A file's errors from top to bottom, then the others.
fn reading_order(error: &ConfigError) -> (u8, u32) {
    match &error.origin {
        Origin::Default => (0, 0),
        Origin::File { line, .. } => (1, *line),
        Origin::EnvFile { line, .. } => (2, *line),
        Origin::Env { .. } => (3, 0),
        Origin::Cli { .. } => (4, 0),
    }
}

/// The settings that hold where nobody says anything: the defaults, without the demo app.
pub fn defaults() -> Settings {
    let mut report = Report::default();
    let mut settings = settled(&mut Vec::new(), &Variables::default(), &mut report);
    derive::derive(&mut settings, false, &mut report);
    assert_eq!(report.errors, [], "the defaults hold");
    settings
}

fn find_file(sources: &Sources, variables: &Variables) -> Option<PathBuf> {
    let named = ["SOCKUDO_CONFIG", "CONFIG_FILE"]
        .into_iter()
        .find(|name| variables.is_set(name));
    let named = named
        .and_then(|name| variables.value(name))
        .map(PathBuf::from);
    let found = || sources.search.iter().find(|path| path.exists()).cloned();
    sources.config.clone().or(named).or_else(found)
}

fn read_env_file(path: &Path, variables: &mut Variables, report: &mut Report) {
    let name: Arc<str> = path.display().to_string().into();
    match std::fs::read_to_string(path) {
        Ok(text) => match dotenv::parse(&text) {
            Ok(lines) => variables.add_file(&name, lines),
            Err((line, fault)) => report.error(&Origin::File { path: name, line }, "", fault),
        },
        Err(error) => unreadable(&name, &error, report),
    }
}

fn unreadable(path: &str, error: &std::io::Error, report: &mut Report) {
    let fault = Fault::Unreadable {
        message: error.to_string(),
    };
    report.error(&Origin::Default, path, fault);
}

fn read_file(path: &Path, variables: &Variables, report: &mut Report) -> Vec<Assignment> {
    let name: Arc<str> = path.display().to_string().into();
    let source = Origin::File {
        path: Arc::clone(&name),
        line: 1,
    };
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => {
            unreadable(&name, &error, report);
            return Vec::new();
        }
    };
    let suffix = path
        .extension()
        .and_then(|suffix| suffix.to_str())
        .unwrap_or_default();
    let parsed = match suffix.to_ascii_lowercase().as_str() {
        "json" => json::parse(&text).map_err(|fault| vec![fault]),
        "toml" => toml::parse(&text).map_err(|fault| vec![fault]),
        _ => json::parse(&text)
            .or_else(|first| toml::parse(&text).map_err(|second| vec![first, second])),
    };
    let mut tree = match parsed {
        Ok(tree) => tree,
        Err(faults) => {
            for (line, fault) in faults {
                report.error(&source.at_line(line), "", fault);
            }
            return Vec::new();
        }
    };
    substitute::substitute(&mut tree, "", &source, variables, report);
    match &tree.value {
        Value::Object(members) => read::assignments(&SERVER, members, &source, "", report),
        _ => {
            let (shown, wanted) = (tree.shown_for_keys(), "an object of keys".to_owned());
            report.error(
                &source.at_line(tree.line),
                "",
                Fault::Value { shown, wanted },
            );
            Vec::new()
        }
    }
}

fn flag_assignments(flags: &[Flag]) -> Vec<Assignment> {
    let assignment = |flag: &Flag| {
        let key = SERVER.key(flag.key);
        Assignment {
            key,
            rank: Rank::Cli,
            origin: Origin::Cli { flag: flag.flag },
            written: key.path.to_owned(),
            node: Node::text(flag.value.clone()),
        }
    };
    flags.iter().map(assignment).collect()
}

/// Settles the server's keys. Two come first: which defaults hold, and which log filter.
pub(super) fn settled(
    assignments: &mut Vec<Assignment>,
    variables: &Variables,
    report: &mut Report,
) -> Settings {
    let mut settings = Settings::new(&SERVER, Origin::Default, String::new());
    assignments.sort_by_key(|assignment| assignment.rank);
    let mut defaults = Defaults {
        mode: LimitsMode::Pusher,
        server: None,
    };
    // Their errors come out below, once.
    let mut silent = Report::default();
    for path in ["limits_mode", "debug"] {
        let key = SERVER.key(path);
        read::settle_key(&mut settings, key, assignments, defaults, &mut silent);
    }
    defaults.mode = settings.get("limits_mode");
    let name = if settings.flag("debug") {
        "SOCKUDO_LOG_DEBUG"
    } else {
        "SOCKUDO_LOG_PROD"
    };
    if let (true, Some(value), Some(origin)) = (
        variables.is_set(name),
        variables.value(name),
        variables.origin(name),
    ) {
        let key = SERVER.key("logging.level");
        assignments.push(Assignment {
            key,
            // Beside LOG_LEVEL, which was read before, and below RUST_LOG.
            rank: Rank::Env(0),
            origin: origin.clone(),
            written: key.path.to_owned(),
            node: Node::text(value),
        });
    }
    read::settle(&mut settings, assignments, defaults, report);
    settings
}

/// The app that `SOCKUDO_DEFAULT_APP_*` makes, or changes where a file has one of that id.
pub(super) fn env_app(settings: &mut Settings, variables: &Variables, report: &mut Report) {
    let mut given = environment::app_assignments(variables, report);
    let made_by = environment::app_of_variables(variables);
    if made_by == AppOfVariables::None {
        if let Some(first) = given.first() {
            let text = format!("has no effect without {APP_PREFIX}ID, _KEY and _SECRET");
            report.warn(&first.origin, "", text);
        }
        return;
    }
    let source = given
        .first()
        .map_or(Origin::Default, |first| first.origin.clone());
    let prefix = format!("{APPS}[env].");
    let mut app = Settings::new(&APP, source, prefix);
    let defaults = Defaults {
        mode: settings.get("limits_mode"),
        server: Some(settings),
    };
    read::settle(&mut app, &mut given, defaults, report);
    let is_disabled = *app.setting("enabled") == Setting::Flag(false);
    if made_by == AppOfVariables::Sockudo && is_disabled {
        return; // As upstream: a disabled app of variables does not exist.
    }
    let is_given = |path: &str| given.iter().any(|given| given.key.path == path);
    let apps = settings.records_mut(APPS);
    if let Some(existing) = apps
        .iter_mut()
        .find(|a| a.setting("id") == app.setting("id"))
    {
        for key in APP.iter().filter(|key| is_given(key.path)) {
            let entry = app.entry(key.path);
            existing.put(key.path, entry.setting.clone(), entry.origin.clone());
        }
        return;
    }
    let mut unset = Vec::new();
    for key in APP.iter().filter(|key| !is_given(key.path)) {
        if let (Some(text), AppOfVariables::Sockudo) = (key.env_app, made_by) {
            app.put(key.path, read::default_setting(key, text), Origin::Default);
            unset.push(format!("{} = {text}", key.path));
        }
    }
    if !unset.is_empty() {
        let text = format!(
            "variables made this app, so limits hold that nobody set: {} (as Sockudo 2.9; set \
             {APP_PREFIX}MAX_CONNECTIONS and its neighbours, -1 lifts a limit)",
            unset.join(", ")
        );
        report.warn(&app.origin, app.prefix.trim_end_matches('.'), text);
    }
    apps.push(app);
}

/// Somebody said where apps come from.
fn makes_an_app(variables: &Variables, settings: &Settings) -> bool {
    environment::app_of_variables(variables) != AppOfVariables::None
        || settings.is_explicit(APPS)
        || settings.text("app_manager.driver") != "memory"
}

fn demo_app(settings: &mut Settings, variables: &Variables, report: &mut Report) {
    let text = |name: &str, text: &str| member(name, Value::Text(text.to_owned()));
    let members = vec![
        text("id", DEMO_ID),
        text("key", DEMO_KEY),
        text("secret", DEMO_SECRET),
        member("enable_client_messages", Value::Flag(true)),
    ];
    let prefix = format!("{APPS}[demo].");
    let mut given = read::assignments(&APP, &members, &Origin::Default, &prefix, report);
    let mut app = Settings::new(&APP, Origin::Default, prefix);
    let defaults = Defaults {
        mode: LimitsMode::Pusher,
        server: Some(settings),
    };
    read::settle(&mut app, &mut given, defaults, report);
    settings.records_mut(APPS).push(app);
    let reach = match settings.is_explicit("host") && !checks::is_local(settings) {
        true => "which others can reach",
        false => "on this host only",
    };
    let note = format!(
        "no configuration was found: demo mode, with the app {DEMO_ID} and its key {DEMO_KEY}, \
         {reach}"
    );
    report.warn(&Origin::Default, "", note);
    let of_soketi = environment::of_soketi(variables);
    if !of_soketi.is_empty() {
        let text = format!(
            "{} set, which {} understood, but no app: Soketi's own is public; \
             set SOKETI_DEFAULT_APP_ID, _KEY and _SECRET",
            of_soketi.join(", "),
            if of_soketi.len() == 1 { "is" } else { "are" }
        );
        report.warn(&Origin::Default, "", text);
    }
}

fn member(name: &str, value: Value) -> Member {
    Member {
        name: name.to_owned(),
        line: 1,
        node: Node::new(value, 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loaded(environment: &[(&str, &str)]) -> Result<Loaded, ConfigErrors> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let environment = environment.iter().map(owned).collect();
        load(&Sources {
            environment,
            ..Sources::default()
        })
    }

    #[test]
    fn without_any_configuration_the_demo_app_listens_on_loopback_only() {
        let config = loaded(&[]).expect("defaults hold").config;
        assert!(config.demo);
        assert_eq!(config.host, ["127.0.0.1"]);
        assert_eq!(config.metrics.host, "127.0.0.1");
        let [app] = &config.app_manager.apps[..] else {
            panic!("one app")
        };
        assert_eq!((app.id.as_str(), app.key.as_str()), ("1", "app-key"));
        assert_eq!(app.former_id, Some("app-id"));
        assert_eq!(app.secrets[0].expose(), "app-secret");
        assert!(app.enable_client_messages);
    }
}
