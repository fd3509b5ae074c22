//! Printing settings: `config show`.
//!
//! Owns: settings as JSON and as TOML, with or without origins, with or without secrets.
//! May depend on: `keys`, `settings`, `tree`, `kind`.
//! Invariants: without `Secrets::Shown` no secret is printed; what is printed without origins is a
//! configuration file that loads to the same values.

use std::fmt::Write as _;

use serde_json::{Map, Value as Json};

use super::keys::{Key, Status, gather_sections};
use super::kind::{Kind, UNLIMITED, kilobytes};
use super::origin::Origin;
use super::secret::{MASK, Secret, masked_target, masked_url};
use super::sections::Endpoint;
use super::settings::{Entry, Setting, Settings};
use super::tree::{Member, Node, Value};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secrets {
    Hidden,
    Shown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origins {
    Left,
    Shown,
}

/// The settings as JSON. With origins each value is an object of `value` and `origin`.
pub fn json(settings: &Settings, secrets: Secrets, origins: Origins) -> String {
    let mut out = String::new();
    json_value(&object(settings, secrets, origins), 0, &mut out);
    out.push('\n');
    out
}

/// What somebody gave of an app or of a webhook, without what follows by itself.
pub fn given(settings: &Settings, secrets: Secrets) -> Map<String, Json> {
    let mut members = Vec::new();
    let given = settings.table.iter();
    for key in given.filter(|key| settings.is_explicit(key.path)) {
        match settings.setting(key.path) {
            Setting::Null => {}
            Setting::Records(records) => {
                let records = records.iter().map(|record| given_node(record, secrets));
                insert(&mut members, key.path, Value::List(records.collect()));
            }
            setting => insert(&mut members, key.path, plain(key, setting, secrets)),
        }
    }
    members_json(&members)
}

/// Every value that holds for an app, whoever said it.
pub fn all(settings: &Settings, secrets: Secrets) -> Map<String, Json> {
    match value_json(&object(settings, secrets, Origins::Left)) {
        Json::Object(mut members) => {
            members.retain(|_, value| !value.is_null());
            members
        }
        _ => Map::new(),
    }
}

fn given_node(record: &Settings, secrets: Secrets) -> Node {
    let mut members = Vec::new();
    for key in record.table.iter() {
        let setting = record.setting(key.path);
        if record.is_explicit(key.path) && *setting != Setting::Null {
            insert(&mut members, key.path, plain(key, setting, secrets));
        }
    }
    Node::new(Value::Object(members), 0)
}

fn members_json(members: &[Member]) -> Map<String, Json> {
    let member = |member: &Member| (member.name.clone(), value_json(&member.node.value));
    members.iter().map(member).collect()
}

/// A value as the crate for JSON has it.
pub(super) fn value_json(value: &Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Flag(flag) => (*flag).into(),
        Value::Number(digits) => digits.parse().map_or(Json::Null, Json::Number),
        Value::Text(text) => text.as_str().into(),
        Value::List(nodes) => nodes.iter().map(|node| value_json(&node.value)).collect(),
        Value::Object(members) => Json::Object(members_json(members)),
    }
}

/// The settings as TOML. Origins are comments; a key that is unset is left out.
pub fn toml(settings: &Settings, secrets: Secrets, origins: Origins) -> String {
    toml_of(settings, secrets, origins, &is_shown)
}

/// Only the keys that `is_written` names, as a file to keep: with secrets, without origins.
pub(super) fn carried(settings: &Settings, is_written: Written<'_>) -> String {
    toml_of(settings, Secrets::Shown, Origins::Left, is_written)
}

/// Which keys of a record are printed.
type Written<'a> = &'a dyn Fn(&Settings, &'static Key) -> bool;

fn toml_of(
    settings: &Settings,
    secrets: Secrets,
    origins: Origins,
    is_written: Written<'_>,
) -> String {
    let mut out = String::new();
    let mut section = "";
    let keys = settings.table.iter();
    let keys =
        keys.filter(|key| !matches!(key.kind, Kind::Records(_)) && is_written(settings, key));
    let mut keys: Vec<&Key> = keys.collect();
    // A table's header may stand only once.
    gather_sections(&mut keys, section_of);
    for key in keys {
        let entry = settings.entry(key.path);
        if entry.setting == Setting::Null {
            continue;
        }
        let name = section_of(key.path);
        if name != section {
            write_line(&mut out, format_args!("\n[{name}]"));
            section = name;
        }
        let member = key.path.rsplit('.').next().unwrap_or(key.path);
        toml_line(member, key, entry, secrets, origins, &mut out);
    }
    for key in settings.table.iter() {
        if let Setting::Records(records) = settings.setting(key.path) {
            let form = (secrets, origins, is_written);
            toml_records(key.path, records, form, &mut out);
        }
    }
    out
}

/// The table in which a key stands.
fn section_of(path: &str) -> &str {
    path.rsplit_once('.').map_or("", |(section, _)| section)
}

/// Keys that do nothing are shown only where somebody set them.
fn shown_keys(settings: &Settings) -> impl Iterator<Item = &'static Key> {
    settings.table.iter().filter(|key| is_shown(settings, key))
}

fn is_shown(settings: &Settings, key: &'static Key) -> bool {
    let does_something = key.status == Status::Keep && !is_of_no_function(settings, key);
    does_something || *settings.origin(key.path) != Origin::Default
}

/// The region of a webhook that goes to a URL.
fn is_of_no_function(settings: &Settings, key: &'static Key) -> bool {
    let functions = ["lambda.function_name", "lambda_function"];
    key.path == "lambda.region" && functions.iter().all(|path| settings.is_null(path))
}

fn toml_records(
    path: &str,
    records: &[Settings],
    form: (Secrets, Origins, Written<'_>),
    out: &mut String,
) {
    let (secrets, origins, is_written) = form;
    for record in records {
        write_line(out, format_args!("\n[[{path}]]"));
        for key in record.table.iter().filter(|key| is_written(record, key)) {
            let entry = record.entry(key.path);
            if !matches!(entry.setting, Setting::Null | Setting::Records(_)) {
                toml_line(key.path, key, entry, secrets, origins, out);
            }
        }
        for key in record.table.iter() {
            if let Setting::Records(inner) = record.setting(key.path) {
                toml_records(&format!("{path}.{}", key.path), inner, form, out);
            }
        }
    }
}

fn toml_line(
    name: &str,
    key: &Key,
    entry: &Entry,
    secrets: Secrets,
    origins: Origins,
    out: &mut String,
) {
    let value = toml_value(&plain(key, &entry.setting, secrets));
    match origins {
        Origins::Left => write_line(out, format_args!("{name} = {value}")),
        Origins::Shown => write_line(out, format_args!("{name} = {value} # {}", entry.origin)),
    }
}

fn write_line(out: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(out, "{line}").expect("writing to a String cannot fail");
}

/// The settings as a tree of objects, in the order of the table.
fn object(settings: &Settings, secrets: Secrets, origins: Origins) -> Value {
    let mut members = Vec::new();
    for key in shown_keys(settings) {
        let entry = settings.entry(key.path);
        let value = match &entry.setting {
            Setting::Records(records) => {
                let objects = records
                    .iter()
                    .map(|record| object(record, secrets, origins));
                Value::List(objects.map(|value| Node::new(value, 0)).collect())
            }
            setting => plain(key, setting, secrets),
        };
        let is_leaf = !matches!(entry.setting, Setting::Records(_));
        let value = match origins {
            Origins::Shown if is_leaf => Value::Object(vec![
                member("value", value),
                member("origin", Value::Text(entry.origin.to_string())),
            ]),
            Origins::Shown | Origins::Left => value,
        };
        insert(&mut members, key.path, value);
    }
    Value::Object(members)
}

fn insert(members: &mut Vec<Member>, path: &str, value: Value) {
    let Some((section, rest)) = path.split_once('.') else {
        return members.push(member(path, value));
    };
    let at = members
        .iter()
        .position(|member| member.name == section)
        .unwrap_or_else(|| {
            members.push(member(section, Value::Object(Vec::new())));
            members.len() - 1
        });
    let Value::Object(inner) = &mut members[at].node.value else {
        unreachable!("no key is the section of another")
    };
    insert(inner, rest, value);
}

fn member(name: &str, value: Value) -> Member {
    Member {
        name: name.to_owned(),
        line: 0,
        node: Node::new(value, 0),
    }
}

/// Of a webhook; no other key is called so.
const WEBHOOK_URL: &str = "url";

/// A setting as a file would hold it.
fn plain(key: &Key, setting: &Setting, secrets: Secrets) -> Value {
    let hidden = |secret: &Secret| match secrets {
        Secrets::Shown => secret.expose().to_owned(),
        // An empty one is no secret, and "***" would not say that none is set.
        Secrets::Hidden if secret.expose().is_empty() => String::new(),
        Secrets::Hidden => MASK.to_owned(),
    };
    let url = |url: &Secret| match secrets {
        Secrets::Shown => url.expose().to_owned(),
        Secrets::Hidden if key.path == WEBHOOK_URL => masked_target(url.expose()),
        Secrets::Hidden => masked_url(url.expose()),
    };
    match setting {
        Setting::Null => Value::Null,
        Setting::Flag(flag) => Value::Flag(*flag),
        Setting::Whole(number) => Value::Number(whole(key, *number)),
        Setting::Bytes(bytes) if is_unlimited(key, *bytes) => Value::Number("-1".to_owned()),
        Setting::Bytes(bytes) => Value::Number(kilobytes(*bytes)),
        Setting::Auto => Value::Text("auto".to_owned()),
        Setting::Fraction(number) => Value::Number(number.to_string()),
        Setting::Text(text) => Value::Text(text.clone()),
        Setting::Texts(texts) => list(texts.iter().cloned()),
        Setting::Secret(secret) => Value::Text(hidden(secret)),
        Setting::Secrets(secrets) => list(secrets.iter().map(hidden)),
        Setting::Url(one) => Value::Text(url(one)),
        Setting::Urls(urls) => list(urls.iter().map(url)),
        Setting::Cidrs(networks) => list(networks.iter().map(ToString::to_string)),
        Setting::Endpoints(endpoints) => Value::List(
            endpoints
                .iter()
                .map(|e| Node::new(endpoint(e), 0))
                .collect(),
        ),
        Setting::Mode(mode) => Value::Text(format!("{mode:o}")),
        Setting::Headers(headers) => {
            let header =
                |(name, value): &(String, Secret)| member(name, Value::Text(hidden(value)));
            Value::Object(headers.iter().map(header).collect())
        }
        Setting::Records(_) => unreachable!("records are printed by their own settings"),
    }
}

fn whole(key: &Key, number: u64) -> String {
    if is_unlimited(key, number) {
        "-1".to_owned()
    } else {
        number.to_string()
    }
}

fn is_unlimited(key: &Key, number: u64) -> bool {
    let negative = match key.kind {
        Kind::Whole(bounds) | Kind::Kilobytes(bounds) => bounds.negative,
        _ => None,
    };
    negative == Some(UNLIMITED) && number == UNLIMITED
}

fn list(texts: impl Iterator<Item = String>) -> Value {
    Value::List(texts.map(|text| Node::new(Value::Text(text), 0)).collect())
}

fn endpoint(endpoint: &Endpoint) -> Value {
    let scheme = if endpoint.tls { "rediss://" } else { "" };
    Value::Object(vec![
        member("host", Value::Text(format!("{scheme}{}", endpoint.host))),
        member("port", Value::Number(endpoint.port.to_string())),
    ])
}

fn json_value(value: &Value, depth: usize, out: &mut String) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Flag(flag) => out.push_str(if *flag { "true" } else { "false" }),
        Value::Number(digits) => out.push_str(digits),
        Value::Text(text) => out.push_str(&quoted(text)),
        Value::List(nodes)
            if nodes
                .iter()
                .all(|node| !matches!(node.value, Value::Object(_))) =>
        {
            let items: Vec<String> = nodes
                .iter()
                .map(|node| {
                    let mut item = String::new();
                    json_value(&node.value, depth, &mut item);
                    item
                })
                .collect();
            out.push_str(&format!("[{}]", items.join(", ")));
        }
        Value::List(nodes) => {
            let nodes = nodes.iter().map(|node| (None, &node.value));
            json_block('[', ']', nodes, depth, out);
        }
        Value::Object(members) => {
            let members = members
                .iter()
                .map(|m| (Some(m.name.as_str()), &m.node.value));
            json_block('{', '}', members, depth, out);
        }
    }
}

fn json_block<'a>(
    open: char,
    close: char,
    items: impl Iterator<Item = (Option<&'a str>, &'a Value)>,
    depth: usize,
    out: &mut String,
) {
    out.push(open);
    let mut is_empty = true;
    for (name, value) in items {
        out.push_str(if is_empty { "\n" } else { ",\n" });
        out.push_str(&"  ".repeat(depth + 1));
        if let Some(name) = name {
            out.push_str(&format!("{}: ", quoted(name)));
        }
        json_value(value, depth + 1, out);
        is_empty = false;
    }
    if !is_empty {
        out.push('\n');
        out.push_str(&"  ".repeat(depth));
    }
    out.push(close);
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn toml_value(value: &Value) -> String {
    match value {
        Value::Null => "\"\"".to_owned(),
        Value::Flag(flag) => flag.to_string(),
        // TOML has no integer beyond 63 bits; as a text every number is read.
        Value::Number(digits) if digits.parse::<f64>().is_ok_and(|n| n > i64::MAX as f64) => {
            quoted(digits)
        }
        Value::Number(digits) => digits.clone(),
        Value::Text(text) => toml_text(text),
        Value::List(nodes) => {
            let items: Vec<String> = nodes.iter().map(|node| toml_value(&node.value)).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(members) => {
            let pair =
                |m: &Member| format!("{} = {}", toml_text(&m.name), toml_value(&m.node.value));
            let pairs: Vec<String> = members.iter().map(pair).collect();
            if pairs.is_empty() {
                "{}".to_owned()
            } else {
                format!("{{ {} }}", pairs.join(", "))
            }
        }
    }
}

/// A basic string on one line: JSON's escapes are TOML's, but for DEL.
fn toml_text(text: &str) -> String {
    quoted(text).replace('\u{7f}', "\\u007F")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load::{Sources, defaults, load};

    fn settings_of(name: &str, text: &str) -> Settings {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("the folder is ours");
        let sources = Sources {
            config: Some(path),
            ..Sources::default()
        };
        load(&sources)
            .unwrap_or_else(|errors| panic!("{errors}\n{text}"))
            .settings
    }

    const FULL: &str = r#"{
        "port": 7001, "admission": { "max_connections": 18446744073709551615 },
        "database": { "redis": { "password": "hunter2", "cluster_nodes": [ "rediss://[::1]:7000" ] } },
        "queue": { "redis": { "url_override": "redis://u:hunter2@h:1" } },
        "app_manager": { "array": { "apps": [ {
            "id": "a", "key": "k", "secret": "hunter2", "secrets": ["hunter2", "hunter3"],
            "max_event_payload_in_kb": 1.5, "max_event_batch_size": -1,
            "webhooks": [ { "url": "https://u:hunter2@h/hunter4?hunter5", "event_types": ["member_added"],
                "filter": { "channel_pattern": "^a\"\\d" },
                "headers": { "Authorization": "hunter2", "X.Y": "b" } } ]
        } ] } }
    }"#;

    #[test]
    fn what_is_shown_with_secrets_loads_to_the_same_settings() {
        for first in [settings_of("c.json", FULL), defaults()] {
            let json = json(&first, Secrets::Shown, Origins::Left);
            assert!(settings_of("c.json", &json) == first, "{json}");
            let toml = toml(&first, Secrets::Shown, Origins::Left);
            assert!(settings_of("c.toml", &toml) == first, "{toml}");
        }
    }

    #[test]
    fn a_region_is_shown_where_there_is_a_function_or_somebody_set_it() {
        for (target, is_shown) in [
            (r#""url": "https://h/x""#, false),
            (
                r#""url": "https://h/x", "lambda": {"function_name": null}"#,
                false,
            ),
            (r#""lambda": {"function_name": "f"}"#, true),
            (r#""lambda_function": "f""#, true),
            (
                r#""lambda": {"function_name": "f", "region": "eu-west-1"}"#,
                true,
            ),
        ] {
            let text = format!(
                r#"{{"app_manager": {{"array": {{"apps": [{{"id": "a", "key": "k", "secret": "s",
                    "webhooks": [{{{target}, "event_types": ["member_added"]}}]}}]}}}}}}"#
            );
            let settings = settings_of("c.json", &text);
            let [app] = settings.records("app_manager.array.apps") else {
                panic!("{target}: one app");
            };
            let as_json = Json::Object(all(app, Secrets::Hidden)).to_string();
            for shown in [as_json, toml(app, Secrets::Hidden, Origins::Left)] {
                assert_eq!(shown.contains("region"), is_shown, "{target}: {shown}");
            }
        }
    }

    #[test]
    fn no_secret_is_shown_unless_asked_for() {
        let settings = settings_of("c.json", FULL);
        for origins in [Origins::Left, Origins::Shown] {
            for text in [
                json(&settings, Secrets::Hidden, origins),
                toml(&settings, Secrets::Hidden, origins),
                format!("{settings:?}"),
            ] {
                assert!(!text.contains("hunter"), "{text}");
            }
        }
    }

    #[test]
    fn an_origin_stands_beside_each_value() {
        let settings = settings_of("c.json", "{\n\"port\": 7001}");
        let shown = toml(&settings, Secrets::Hidden, Origins::Shown);
        let line = shown
            .lines()
            .find(|line| line.starts_with("port"))
            .expect("a line");
        assert!(
            line.starts_with("port = 7001 # file:") && line.ends_with("c.json:2"),
            "{line}"
        );
        assert!(
            shown.contains("activity_timeout = 120 # default\n"),
            "{shown}"
        );
        let json = json(&settings, Secrets::Hidden, Origins::Shown);
        let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!(json["metrics"]["port"]["value"], 9601);
        assert_eq!(json["metrics"]["port"]["origin"], "default");
    }
}
