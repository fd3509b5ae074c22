//! The environment: which variables set which keys, and which ones set nothing.
//!
//! Owns: the variables given to a load, the two general forms `SOCKUDO__A__B` and `SOCKUDO_A_B`,
//! and the list of variables that are documented somewhere but unused.
//! May depend on: `keys`, `read`.
//! Invariants: the process's environment is never read here; it comes as an argument.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::dotenv;
use super::error::Report;
use super::keys::{
    APP, APP_PREFIX, Converted, Key, Meaning, OtherName, SERVER, SOKETI_APP, SOKETI_PREFIX, Status,
    TRANSLATIONS, general_form, short_form,
};
use super::origin::Origin;
use super::read::{self, Assignment, Rank};
use super::suggest;
use super::tree::Node;

/// The variables of one load: the environment over the `--env-file`.
#[derive(Default)]
pub(super) struct Variables(BTreeMap<String, Variable>);

struct Variable {
    value: String,
    origin: Origin,
}

impl Variables {
    pub(super) fn new(environment: &BTreeMap<String, String>) -> Self {
        let variable = |(name, value): (&String, &String)| {
            let origin = Origin::Env {
                name: Arc::from(name.as_str()),
            };
            (
                name.clone(),
                Variable {
                    value: value.clone(),
                    origin,
                },
            )
        };
        Self(environment.iter().map(variable).collect())
    }

    /// Adds the lines of an `--env-file` below what is there.
    pub(super) fn add_file(&mut self, path: &Arc<str>, lines: Vec<dotenv::Line>) {
        let mut from_file = BTreeMap::new();
        for dotenv::Line { name, value, line } in lines {
            let origin = Origin::EnvFile {
                name: Arc::from(name.as_str()),
                path: Arc::clone(path),
                line,
            };
            // In the file itself the last line of a name holds.
            from_file.insert(name, Variable { value, origin });
        }
        for (name, variable) in from_file {
            self.0.entry(name).or_insert(variable);
        }
    }

    pub(super) fn value(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|variable| variable.value.as_str())
    }

    pub(super) fn origin(&self, name: &str) -> Option<&Origin> {
        self.0.get(name).map(|variable| &variable.origin)
    }

    /// All names, in order.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// A name with a value that is not empty.
    pub(super) fn is_set(&self, name: &str) -> bool {
        self.value(name)
            .is_some_and(|value| !value.trim().is_empty())
    }

    #[cfg(test)]
    pub(super) fn of(variables: &[(&str, &str)]) -> Self {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Self::new(&variables.iter().map(owned).collect())
    }
}

/// A variable, the key that it sets, and how.
struct Sets {
    variable: String,
    key: &'static Key,
    rank: Rank,
    convert: fn(&Node) -> Converted,
}

impl Sets {
    fn same(variable: impl Into<String>, key: &'static Key, rank: Rank) -> Self {
        Self {
            variable: variable.into(),
            key,
            rank,
            convert: |_| Converted::Same,
        }
    }
}

/// What the variables of a key do: those below the file, then its own.
fn of_key(key: &'static Key, own: Vec<String>) -> impl Iterator<Item = Sets> {
    let fallback = key.fallback_env.iter();
    let fallback = fallback.map(move |name| Sets::same(*name, key, Rank::Fallback));
    let own = own.into_iter().enumerate();
    fallback.chain(own.map(move |(index, name)| Sets::same(name, key, Rank::Env(index))))
}

fn of_server_keys() -> impl Iterator<Item = Sets> {
    SERVER.iter().flat_map(|key| of_key(key, key.variables()))
}

fn of_app_keys() -> impl Iterator<Item = Sets> {
    APP.iter().flat_map(|key| of_key(key, key.app_variables()))
}

fn of_soketis_app() -> impl Iterator<Item = Sets> {
    let sets = |(name, path): &(&str, &str)| {
        Sets::same(
            soketi_app_variable(name),
            APP.key(path),
            Rank::EnvTranslated,
        )
    };
    SOKETI_APP.iter().map(sets)
}

/// Variables of the server's keys under other names. An alias has the variables of a key.
fn of_other_names() -> impl Iterator<Item = Sets> {
    let of_path = |row: &'static OtherName| {
        let forms = [short_form(row.path), general_form(row.path)];
        forms.into_iter().filter_map(|form| sets(row, Some(form)))
    };
    let is_own = |sets: &Sets| sets.key.variables().contains(&sets.variable);
    let aliases = SERVER.aliases.iter().flat_map(of_path);
    let aliases = aliases.filter(move |sets| !is_own(sets));
    let named = SERVER.soketi.iter().chain(TRANSLATIONS);
    aliases.chain(named.filter_map(|row| sets(row, row.variable())))
}

fn sets(row: &OtherName, variable: Option<String>) -> Option<Sets> {
    let Meaning::Key { to, convert } = row.meaning else {
        return None;
    };
    let rank = if row.is_top {
        Rank::EnvTop
    } else {
        Rank::EnvTranslated
    };
    Some(Sets {
        variable: variable?,
        key: SERVER.key(to),
        rank,
        convert: convert.0,
    })
}

/// What the variables say about the server's keys.
pub(super) fn server_assignments(variables: &Variables, report: &mut Report) -> Vec<Assignment> {
    let all = of_server_keys().chain(of_other_names());
    all.filter_map(|sets| assignment(variables, &sets, report))
        .collect()
}

/// What the variables say about the app that they make.
pub(super) fn app_assignments(variables: &Variables, report: &mut Report) -> Vec<Assignment> {
    // One that is set to nothing would else take the place of what such an app has by default, or of what a file says.
    let ours = of_app_keys().filter(|sets| variables.is_set(&sets.variable));
    let all = ours.chain(of_soketis_app());
    all.filter_map(|sets| assignment(variables, &sets, report))
        .collect()
}

/// The key gets the variable's value, if there is one.
fn assignment(variables: &Variables, sets: &Sets, report: &mut Report) -> Option<Assignment> {
    let key = sets.key;
    let Variable { value, origin } = variables.0.get(&sets.variable)?;
    if is_service_link(&sets.variable, value) {
        return None;
    }
    // Whatever a translation would make of nothing; and who speaks below the file speaks of more than this server.
    let is_anothers = matches!(
        sets.rank,
        Rank::Fallback | Rank::EnvTop | Rank::EnvTranslated
    );
    if is_anothers && value.trim().is_empty() && !sets.variable.starts_with(SOKETI_PREFIX) {
        return None;
    }
    let given = Node::text(value.clone());
    let became = (sets.convert)(&given);
    let node = read::converted(key, &given, became, (origin, key.path), report)?;
    if let Status::NoEffect(why) = key.status {
        let note = format!("has no effect: {why}");
        report.note(origin, key.path, note);
    }
    Some(Assignment {
        key,
        rank: sets.rank,
        origin: origin.clone(),
        written: key.path.to_owned(),
        node,
    })
}

fn soketi_app_variable(name: &str) -> String {
    format!("{SOKETI_PREFIX}DEFAULT_APP_{name}")
}

/// Whose variables say who the app is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AppOfVariables {
    None,
    /// Soketi's alone: limits that nobody set are those of an app in a file.
    Soketi,
    /// Sockudo's, with the limits that it always gave to such an app.
    Sockudo,
}

pub(super) fn app_of_variables(variables: &Variables) -> AppOfVariables {
    let credentials = ["ID", "KEY", "SECRET"];
    let ours = |part: &&str| variables.is_set(&format!("{APP_PREFIX}{part}"));
    let soketis = |part: &&str| variables.is_set(&soketi_app_variable(part));
    if credentials.iter().any(ours) {
        AppOfVariables::Sockudo
    } else if credentials.iter().any(soketis) {
        AppOfVariables::Soketi
    } else {
        AppOfVariables::None
    }
}

/// The variables of Soketi that are set, in order.
pub(super) fn of_soketi(variables: &Variables) -> Vec<&str> {
    let names = variables.0.iter();
    let names = names.filter(|(name, variable)| {
        name.starts_with(SOKETI_PREFIX) && !is_service_link(name, &variable.value)
    });
    names.map(|(name, _)| name.as_str()).collect()
}

/// Kubernetes gives each container the addresses of all services: one called `sockudo-metrics`
/// makes `SOCKUDO_METRICS_PORT=tcp://10.0.0.1:9601` and names that begin so, one called `metrics`
/// `METRICS_PORT`.
fn is_service_link(name: &str, value: &str) -> bool {
    if is_port_of_service(name, value) {
        return true;
    }
    if !has_our_prefix(name) {
        return false;
    }
    let is_port = |rest: &str| rest.is_empty() || rest.starts_with('_');
    let is_number = |rest: &str| rest.starts_with(|c: char| c.is_ascii_digit());
    let follows = |word: &str, test: &dyn Fn(&str) -> bool| {
        let mut ends = name.match_indices(word);
        ends.any(|(at, _)| test(&name[at + word.len()..]))
    };
    name.ends_with("_SERVICE_HOST")
        || follows("_SERVICE_PORT", &is_port)
        || follows("_PORT_", &is_number)
}

fn has_our_prefix(name: &str) -> bool {
    let mut prefixes = [SOKETI_PREFIX, "SOCKUDO_"].into_iter();
    prefixes.any(|prefix| name.starts_with(prefix))
}

/// Our ports are numbers; a service's is a URL.
fn is_port_of_service(name: &str, value: &str) -> bool {
    let mut schemes = ["tcp://", "udp://", "sctp://"].into_iter();
    name.ends_with("_PORT")
        && (schemes.any(|scheme| value.starts_with(scheme))
            || has_our_prefix(name) && value.contains("://"))
}

/// Warns of variables that somebody set in vain.
pub(super) fn warn_of_unused(variables: &Variables, report: &mut Report) {
    let known: Vec<String> = known_names();
    for (name, variable) in &variables.0 {
        let is_known = known.iter().any(|known| known == name);
        if is_service_link(name, &variable.value) {
            // Of all the services of a cluster those that look as if they were meant for us.
            let is_met = is_known
                || has_our_prefix(name)
                || UNUSED.iter().any(|(pattern, _)| matches(pattern, name));
            if is_met && is_port_of_service(name, &variable.value) {
                let text = "is Kubernetes' word for a service of that name, not a port: ignored";
                report.warn(&variable.origin, "", text.to_owned());
            }
            continue;
        }
        if is_known || SILENT.iter().any(|p| matches(p, name)) {
            continue;
        }
        let unused_soketi = |row: &&OtherName| row.variable().as_ref() == Some(name);
        let unused_soketi = SERVER.soketi.iter().find(unused_soketi);
        if let Some(Meaning::NoEffect(why)) = unused_soketi.map(|row| row.meaning) {
            if !is_harmless(name, &variable.value) {
                report.warn(&variable.origin, "", format!("has no effect: {why}"));
            }
        } else if let Some((_, why)) = UNUSED.iter().find(|(pattern, _)| matches(pattern, name)) {
            if !is_harmless(name, &variable.value) {
                report.warn(&variable.origin, "", format!("has no effect: {why}"));
            }
        } else if name.starts_with("SOCKUDO_") || name.starts_with(SOKETI_PREFIX) {
            let nearest = suggest::nearest(name, known.iter().map(String::as_str));
            let hint = nearest.map_or_else(String::new, |name| format!("; did you mean {name}?"));
            report.warn(&variable.origin, "", format!("no such variable{hint}"));
        }
    }
}

/// Its value asks for what happens anyway.
fn is_harmless(name: &str, value: &str) -> bool {
    match name {
        "TAG_FILTERING_ENABLED" => !value.trim().eq_ignore_ascii_case("true"),
        "WEBSOCKET_COMPRESSION" => value.trim().eq_ignore_ascii_case("disabled"),
        _ => value.trim().is_empty(),
    }
}

/// Every variable that has a meaning.
fn known_names() -> Vec<String> {
    let all = of_server_keys().chain(of_app_keys());
    let all = all.chain(of_other_names()).chain(of_soketis_app());
    let all = all.map(|sets| sets.variable);
    all.chain(SPECIAL.map(str::to_owned)).collect()
}

/// `LOG_MAX_*` stands for every name that begins so, `*_PORT` for every one that ends so.
fn matches(pattern: &str, name: &str) -> bool {
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(end), _) => name.ends_with(end),
        (None, Some(start)) => name.starts_with(start),
        (None, None) => name == pattern,
    }
}

/// Variables that are read elsewhere in `config`.
pub(super) const SPECIAL: [&str; 4] = [
    "SOCKUDO_CONFIG",
    "CONFIG_FILE",
    "SOCKUDO_LOG_DEBUG",
    "SOCKUDO_LOG_PROD",
];

const NO_MECHANISM: &str = "there is no such mechanism; nodes find each other over the bus";
const NOT_READ: &str = "nothing reads it";

/// Documented for upstream, or in its `.env.example`, without a meaning here.
#[rustfmt::skip] // One name a line.
pub(super) const UNUSED: &[(&str, &str)] = &[
    ("ADAPTER_ENABLE_SOCKET_COUNTING", "counting is free"),
    ("TAG_FILTERING_ENABLED", "there is no tag filtering"),
    ("WEBSOCKET_MAX_MESSAGES", "outboxes are bounded in bytes: SOCKUDO_NET_SEND_QUEUE_BYTES"),
    ("WEBSOCKET_WRITE_BUFFER_SIZE", "there is no such buffer"),
    ("WEBSOCKET_AUTO_PING", "the protocol's own pings are used: ACTIVITY_TIMEOUT"),
    ("WEBSOCKET_PING_INTERVAL", "the protocol's own pings are used: ACTIVITY_TIMEOUT"),
    ("WEBSOCKET_IDLE_TIMEOUT", "the protocol's own pings are used: ACTIVITY_TIMEOUT"),
    ("WEBSOCKET_COMPRESSION", "messages are not compressed"),
    ("REDIS_CONNECTION_POOL_SIZE", "one connection carries all requests"),
    ("CLUSTER_HOSTNAME", NO_MECHANISM),
    ("CLUSTER_PORT", NO_MECHANISM),
    ("CLUSTER_CHECK_INTERVAL", NO_MECHANISM),
    ("CLUSTER_MASTER_TIMEOUT", NO_MECHANISM),
    ("LOG_FILE_PATH", "logs go to stdout"),
    ("LOG_MAX_SIZE", "logs go to stdout"),
    ("LOG_MAX_FILES", "logs go to stdout"),
    ("JWT_SECRET", NOT_READ),
    ("TEST_*", NOT_READ),
    ("HEALTH_CHECK_*", NOT_READ),
    ("EXTERNAL_MYSQL_URL", "write DATABASE_MYSQL_HOST and its neighbours"),
    ("SOCKUDO_SKIP_INLINE_APPS", "write SOCKUDO__APP_MANAGER__SEED"),
    ("APP_MANAGER_REGISTER_INLINE_APPS", "write SOCKUDO__APP_MANAGER__SEED"),
];

/// Set for Compose, not for the server.
const SILENT: &[&str] = &["SOCKUDO_MEMORY_*", "SOCKUDO_CPU_*", "SOCKUDO_REPLICAS"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_keys_share_a_general_or_short_form() {
        let mut owners: BTreeMap<String, &str> = BTreeMap::new();
        for key in SERVER.iter() {
            for name in [short_form(key.path), general_form(key.path)] {
                let other = owners.insert(name.clone(), key.path);
                assert_eq!(other, None, "{name} sets {} as well", key.path);
            }
        }
        for key in APP.iter() {
            for name in key.app_variables() {
                assert_eq!(owners.insert(name.clone(), key.path), None, "{name}");
            }
        }
    }

    #[test]
    fn a_variable_set_in_vain_is_named_with_the_nearest_one() {
        for (name, value, expected) in [
            (
                "SOCKUDO_NET_SEND_QUEUE_BITES",
                "1",
                Some("did you mean SOCKUDO_NET_SEND_QUEUE_BYTES?"),
            ),
            (
                "SOCKUDO_DEFAULT_APP_KEYS",
                "1",
                Some("did you mean SOCKUDO_DEFAULT_APP_KEY?"),
            ),
            ("LOG_FILE_PATH", "/x", Some("logs go to stdout")),
            ("TAG_FILTERING_ENABLED", "true", Some("no tag filtering")),
            ("TAG_FILTERING_ENABLED", "false", None),
            ("WEBSOCKET_COMPRESSION", "disabled", None),
            ("SOCKUDO_MEMORY_LIMIT", "1g", None),
            ("SOCKUDO_CONFIG", "x", None),
            ("GRAFANA_PASSWORD", "x", None),
            ("PATH", "/bin", None),
        ] {
            let mut report = Report::default();
            warn_of_unused(&Variables::of(&[(name, value)]), &mut report);
            let texts: Vec<String> = report.notices.iter().map(ToString::to_string).collect();
            match expected {
                None => assert!(texts.is_empty(), "{name}: {texts:?}"),
                Some(part) => {
                    assert_eq!(texts.len(), 1, "{name}");
                    assert!(texts[0].contains(part), "{name}: {texts:?}");
                }
            }
        }
    }
}
