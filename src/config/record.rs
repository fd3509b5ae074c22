//! An app as a store keeps it: a row of a table, an item, an object.
//!
//! Owns: the road from such a record to an `App`, and what of the server's own keys an app takes
//! over.
//! May depend on: `read`, `checks`, `json`, `toml`, `show`, `suggest`, `keys`, `settings`, `serde_json`.
//! Invariants: a record gives the app that it would give as an element of
//! `app_manager.array.apps`; no fault's text holds a secret.

use std::sync::Arc;

use serde_json::{Map, Value as Json};

use super::checks;
use super::error::Report;
use super::json;
use super::keys::{APP, Meaning, SERVER};
use super::kind::{Kind, UNLIMITED, kilobytes};
use super::origin::Origin;
use super::read::{self, Defaults, snake_case};
use super::sections::app::App;
use super::settings::Settings;
use super::show::{self, Secrets};
use super::suggest;
use super::toml;
use super::tree::{Member, Node, Value};

/// What an app takes from the server where its record says nothing, and what bounds it. A reload
/// makes another one.
#[derive(Clone, Debug)]
pub struct AppDefaults {
    server: Settings,
}

impl AppDefaults {
    pub(in crate::config) fn read(settings: &Settings) -> Self {
        let mut server = Settings::new(&SERVER, Origin::Default, String::new());
        let inherited = APP.iter().filter_map(|key| key.inherits);
        for path in inherited.chain(["limits_mode", SEND_QUEUE, "mode", "host"]) {
            let entry = settings.entry(path);
            server.put(path, entry.setting.clone(), entry.origin.clone());
        }
        Self { server }
    }
}

/// The app of a record; otherwise all that is wrong with it, each as `column: fault`.
pub fn app_of_record(
    defaults: &AppDefaults,
    record: &Map<String, Json>,
) -> Result<App, Vec<String>> {
    settings_of_record(defaults, record).map(|settings| App::read(&settings))
}

/// The same before it becomes an app: each value beside whether the record gave it.
///
/// A member that no key or other name of an app knows is none of ours. Null is as good as absent.
pub fn settings_of_record(
    defaults: &AppDefaults,
    record: &Map<String, Json>,
) -> Result<Settings, Vec<String>> {
    let mut report = Report {
        lenient: true,
        ..Report::default()
    };
    let source = Origin::File {
        path: Arc::from("the store"),
        line: 1,
    };
    let members: Vec<Member> = record
        .iter()
        .filter_map(|(name, value)| member(name, value))
        .collect();
    let mut given = read::assignments(&APP, &members, &source, "", &mut report);
    let mut app = Settings::new(&APP, source, String::new());
    let server = &defaults.server;
    let of_server = Defaults {
        mode: server.get("limits_mode"),
        server: Some(server),
    };
    read::settle(&mut app, &mut given, of_server, &mut report);
    checks::secret_is_there(&app, &mut report);
    for webhook in app.records("webhooks") {
        checks::check_webhook(webhook, &mut report);
    }
    let mut faults: Vec<String> = report
        .errors
        .iter()
        .map(|error| format!("{}: {}", error.key, error.fault))
        .collect();
    if faults.is_empty() {
        faults.extend(beside_the_server(&app, server));
    }
    match faults.is_empty() {
        true => Ok(app),
        false => Err(faults),
    }
}

/// The key of an app that a member or column of this name is about.
pub fn app_key(name: &str) -> Option<&'static str> {
    let name = snake_case(name);
    if let Some(key) = APP.find(&name) {
        return Some(key.path);
    }
    let mut others = APP.other_names().filter(|other| other.path == name);
    others.find_map(|other| match other.meaning {
        Meaning::Key { to, .. } => Some(to),
        Meaning::NoEffect(_) => None,
    })
}

/// The key that was probably meant by a name that is none.
pub fn nearest_app_key(name: &str) -> Option<String> {
    suggest::key(&APP, &snake_case(name))
}

/// What was given of an app, as a member of a file or a row would say it.
pub fn record_of_settings(app: &Settings) -> Map<String, Json> {
    show::given(app, Secrets::Shown)
}

/// The records of a file: a configuration, or only its list of apps. Other keys are left alone.
pub fn records_of_file(text: &str, is_toml: bool) -> Result<Vec<Map<String, Json>>, String> {
    let parsed = match is_toml {
        true => toml::parse(text),
        false => json::parse(text),
    };
    let tree = parsed.map_err(|(line, fault)| format!("{line}: {fault}"))?;
    let mut value = show::value_json(&tree.value);
    for name in ["app_manager", "array", "apps"] {
        if let Some(inner) = value.get_mut(name) {
            value = inner.take();
        }
    }
    let Json::Array(apps) = value else {
        return Err("holds no list of apps".to_owned());
    };
    let record = |app| match app {
        Json::Object(record) => Ok(record),
        _ => Err("an app is not an object".to_owned()),
    };
    apps.into_iter().map(record).collect()
}

/// What a file's apps are held against when it is loaded.
fn beside_the_server(app: &Settings, server: &Settings) -> Vec<String> {
    let mut faults = Vec::new();
    let (payload, queue) = (app.u64(PAYLOAD), server.u64(SEND_QUEUE));
    if payload != UNLIMITED && payload.saturating_mul(2) > queue {
        let payload = kilobytes(payload);
        faults.push(format!(
            "{PAYLOAD}: {payload} KB is more than half of {SEND_QUEUE} = {queue}: raise that key"
        ));
    }
    if checks::has_demo_credentials(app) && checks::is_public_production(server) {
        faults.push(
            "secret: the demo app's credentials are public: change it (sockudo apps \
             rotate-secret), or disable the app"
                .to_owned(),
        );
    }
    faults
}

fn member(name: &str, value: &Json) -> Option<Member> {
    let kind = APP.find(&snake_case(name)).map(|key| key.kind);
    let node = match (kind, value) {
        (Some(Kind::Flag), Json::Number(number)) => {
            // A truth value is a small number in most databases.
            Node::new(Value::Flag(number.as_f64() != Some(0.0)), 1)
        }
        (Some(Kind::Texts(_) | Kind::Secrets | Kind::Records(_)), Json::String(text)) => {
            list(text)?
        }
        _ => node(value)?,
    };
    Some(Member {
        name: name.to_owned(),
        line: 1,
        node,
    })
}

/// A list in a column of text: as JSON, else its elements between commas. JSON's null is no list.
fn list(text: &str) -> Option<Node> {
    let trimmed = text.trim();
    if trimmed == "null" {
        return None;
    }
    let parsed = trimmed.starts_with('[').then(|| json::parse(trimmed).ok());
    Some(parsed.flatten().unwrap_or_else(|| Node::text(text)))
}

fn node(value: &Json) -> Option<Node> {
    let value = match value {
        Json::Null => return None,
        Json::Bool(flag) => Value::Flag(*flag),
        Json::Number(number) => Value::Number(digits(number)),
        Json::String(text) => Value::Text(text.clone()),
        Json::Array(elements) => Value::List(elements.iter().filter_map(node).collect()),
        Json::Object(members) => {
            let member = |(name, value): (&String, &Json)| {
                Some(Member {
                    name: name.clone(),
                    line: 1,
                    node: node(value)?,
                })
            };
            Value::Object(members.iter().filter_map(member).collect())
        }
    };
    Some(Node::new(value, 1))
}

/// Columns for fractions hold whole numbers too: 100.00 is 100.
#[expect(
    clippy::cast_possible_truncation,
    reason = "a whole number below 2^53 is exact"
)]
fn digits(number: &serde_json::Number) -> String {
    match number.as_f64() {
        Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() < 9.0e15 => {
            (float as i64).to_string()
        }
        _ => number.to_string(),
    }
}

const PAYLOAD: &str = "max_event_payload_in_kb";
const SEND_QUEUE: &str = "net.send_queue_bytes";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::{Sources, load};

    fn defaults(environment: &[(&str, &str)]) -> AppDefaults {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let environment = environment.iter().map(owned).collect();
        let sources = Sources {
            environment,
            ..Sources::default()
        };
        let loaded = load(&sources).expect("a configuration that holds");
        loaded.config.app_manager.app_defaults
    }

    fn app(defaults: &AppDefaults, record: Json) -> Result<App, Vec<String>> {
        let Json::Object(record) = record else {
            panic!("a record is an object")
        };
        app_of_record(defaults, &record)
    }

    #[test]
    fn a_row_in_any_spelling_and_type_gives_the_same_app() {
        let defaults = defaults(&[]);
        for record in [
            json!({"id": "1", "key": "k", "secret": "s", "enabled": 0, "max_connections": 5,
                   "max_client_events_per_second": 7, "enable_client_messages": true,
                   "allowed_origins": ["https://a.example", "*.b.example"], "tenant": [1]}),
            json!({"id": 1, "key": "k", "secret": "s", "Enabled": "false", "maxConnections": "5",
                   "max_client_events_per_sec": 7.0, "enable_client_messages": 1,
                   "allowed_origins": "[\"https://a.example\", \"*.b.example\"]",
                   "webhooks": "null", "secrets": null, "max_event_payload_in_kb": null}),
            json!({"id": "1", "key": "k", "secrets": "[\"s\"]", "enabled": "no",
                   "max_connections": 5, "max_client_events_per_second": "7",
                   "enable_client_messages": 1, "webhooks": "", "created_at": "2020-01-01",
                   "allowed_origins": "https://a.example,*.b.example"}),
            // A table may have the columns of two servers: the key's own name holds.
            json!({"id": "1", "key": "k", "secret": "s", "max_connections": 5, "enabled": false,
                   "max_client_events_per_sec": 9, "max_client_events_per_second": 7,
                   "policy": {"limits": {"max_connections": 1}}, "enable_client_messages": true,
                   "allowed_origins": ["https://a.example", "*.b.example"]}),
        ] {
            let app =
                app(&defaults, record.clone()).unwrap_or_else(|it| panic!("{record}: {it:?}"));
            assert_eq!((&*app.id, &*app.key), ("1", "k"), "{record}");
            assert_eq!(app.secrets.len(), 1, "{record}");
            assert_eq!(app.secrets[0].expose(), "s", "{record}");
            assert!(!app.enabled && app.enable_client_messages, "{record}");
            assert_eq!(app.max_connections, 5, "{record}");
            assert_eq!(app.max_client_events_per_second, 7, "{record}");
            assert_eq!(app.event_payload_bytes_max, 100 * 1024, "{record}");
            assert_eq!(app.allowed_origins, ["https://a.example", "*.b.example"]);
        }
    }

    #[test]
    fn unlimited_is_minus_one_and_what_is_left_out_is_the_servers() {
        let defaults = defaults(&[
            ("SOCKUDO__PRESENCE__MAX_MEMBERS_PER_CHANNEL", "42"),
            ("SOCKUDO__EVENT_LIMITS__MAX_BATCH_SIZE", "3"),
        ]);
        let record = json!({"id": "1", "key": "k", "secret": "s", "max_connections": -1,
            "max_backend_events_per_second": -1, "max_event_batch_size": -1});
        let app = app(&defaults, record).expect("an app");
        assert_eq!(app.max_connections, 0);
        assert_eq!(app.max_backend_events_per_second, 0);
        assert_eq!(app.event_batch_max, u32::MAX);
        assert_eq!(app.max_presence_members_per_channel, 42);
    }

    #[test]
    fn what_no_app_can_be_is_said_by_its_column() {
        let defaults = defaults(&[]);
        let whole = json!({"id": "1", "key": "k", "secret": "s"});
        for (column, value, fault) in [
            ("id", json!(null), "id: is required"),
            (
                "key",
                json!("with space"),
                "key: \"with space\" is not 1..=255 bytes",
            ),
            ("secret", json!(null), "secret: is required"),
            (
                "max_connections",
                json!("lots"),
                "max_connections: \"lots\" is not a whole number",
            ),
            (
                "max_connections",
                json!(1.5),
                "max_connections: 1.5 is not a whole number",
            ),
            (
                "enabled",
                json!("maybe"),
                "enabled: \"maybe\" is not true or false",
            ),
            ("webhooks", json!("{\"url\""), "webhooks: "),
            (
                "webhooks",
                json!([{"event_types": ["member_added"]}]),
                "webhooks[0].url: is required",
            ),
            (
                "allowed_origins",
                json!("[\"https://*.*.a\"]"),
                "allowed_origins[0]: ",
            ),
            (
                "max_event_payload_in_kb",
                json!(4000),
                "max_event_payload_in_kb: 4000 KB is more",
            ),
        ] {
            let mut record = whole.clone();
            record[column] = value;
            let faults = app(&defaults, record.clone()).expect_err(column);
            assert!(faults[0].starts_with(fault), "{record}: {faults:?}");
        }
    }

    #[test]
    fn public_credentials_of_a_table_hold_on_loopback_only() {
        let record = json!({"id": "app-id", "key": "app-key", "secret": "app-secret"});
        let at_home = defaults(&[
            ("HOST", "127.0.0.1"),
            ("SOCKUDO_DEFAULT_APP_ID", "a"),
            ("SOCKUDO_DEFAULT_APP_KEY", "k"),
            ("SOCKUDO_DEFAULT_APP_SECRET", "s"),
        ]);
        assert!(app(&at_home, record.clone()).is_ok());
        let outside = defaults(&[
            ("HOST", "0.0.0.0"),
            ("SOCKUDO_DEFAULT_APP_ID", "a"),
            ("SOCKUDO_DEFAULT_APP_KEY", "k"),
            ("SOCKUDO_DEFAULT_APP_SECRET", "s"),
        ]);
        let faults = app(&outside, record).expect_err("public");
        assert!(
            faults[0].starts_with("secret: the demo app's"),
            "{faults:?}"
        );
    }

    #[test]
    fn a_column_of_an_app_is_known_under_all_its_names() {
        for (name, key) in [
            ("id", Some("id")),
            ("maxConnections", Some("max_connections")),
            ("max_read_req_per_sec", Some("max_read_requests_per_second")),
            ("created_at", None),
            ("logo", None),
        ] {
            assert_eq!(app_key(name), key, "{name}");
        }
    }

    #[test]
    fn what_a_record_gives_is_given_back_and_nothing_else() {
        let given = json!({"id": "1", "key": "k", "secret": "s", "maxConnections": "5",
            "enabled": 0, "max_event_payload_in_kb": 0.5, "max_event_batch_size": -1,
            "allowed_origins": "https://a.example,*.b.example", "secrets": "[\"old\"]",
            "webhooks": [{"url": "https://u:p@h.example/", "eventTypes": ["member_added"],
                          "filter": {"channel_name_starts_with": "x"}, "headers": {"a": "b"}}]});
        let back = json!({"id": "1", "key": "k", "secret": "s", "max_connections": 5,
            "enabled": false, "max_event_payload_in_kb": 0.5, "max_event_batch_size": -1,
            "allowed_origins": ["https://a.example", "*.b.example"], "secrets": ["old"],
            "webhooks": [{"url": "https://u:p@h.example/", "event_types": ["member_added"],
                          "filter": {"channel_prefix": "x"}, "headers": {"a": "b"}}]});
        let Json::Object(given) = given else {
            panic!("a record is an object")
        };
        let settings = settings_of_record(&defaults(&[]), &given).expect("an app");
        assert_eq!(Json::Object(record_of_settings(&settings)), back);
        let hidden = Json::Object(show::given(&settings, Secrets::Hidden)).to_string();
        assert!(
            !hidden.contains("u:p") && !hidden.contains("old"),
            "{hidden}"
        );
    }
}
