//! The configuration as an operator meets it: files, variables, flags, errors, exit codes.
//!
//! Owns: the acceptance checks of loading; most walk the table of keys, so a new key is tested
//! by being there.
//! May depend on: `config`'s public side and the built program.
//! Invariants: each test writes only into a temporary folder of its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use sockudo::config::keys::{APP, Key, SERVER, Status};
use sockudo::config::kind::Kind;
use sockudo::config::settings::{Setting, Settings};
use sockudo::config::{ConfigErrors, Flag, Level, Loaded, Origin, Sources, load, show};

/// One load: a file, variables, flags.
#[derive(Clone, Default)]
struct Given<'a> {
    file: Option<(&'a str, &'a str)>,
    env: &'a [(&'a str, &'a str)],
    env_file: Option<&'a str>,
    flags: &'a [(&'static str, &'static str, &'a str)],
    lenient: bool,
    allow_demo_app: bool,
}

impl Given<'_> {
    fn load(&self) -> Result<Loaded, ConfigErrors> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let write = |name: &str, text: &str| -> PathBuf {
            let path = folder.path().join(name);
            std::fs::write(&path, text).expect("the folder is ours");
            path
        };
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        load(&Sources {
            config: self.file.map(|(name, text)| write(name, text)),
            env_file: self.env_file.map(|text| write("env", text)),
            search: Vec::new(),
            environment: self.env.iter().map(owned).collect(),
            flags: self
                .flags
                .iter()
                .map(|&(flag, key, value)| Flag {
                    flag,
                    key,
                    value: value.to_owned(),
                })
                .collect(),
            lenient: self.lenient,
            allow_demo_app: self.allow_demo_app,
        })
    }

    fn loaded(&self) -> Loaded {
        self.load()
            .unwrap_or_else(|errors| panic!("{:?} {:?}: {errors}", self.file, self.env))
    }

    /// The errors without the folder's name.
    fn errors(&self) -> Vec<String> {
        match self.load() {
            Ok(_) => panic!("{:?} {:?} loads", self.file, self.env),
            Err(errors) => errors
                .0
                .iter()
                .map(|error| without_folder(&error.to_string()))
                .collect(),
        }
    }
}

fn without_folder(text: &str) -> String {
    match (text.starts_with('/'), text.split_once(": ")) {
        (true, Some((place, rest))) => {
            let name = place.rsplit('/').next().unwrap_or(place);
            format!("{name}: {rest}")
        }
        _ => text.to_owned(),
    }
}

fn file(text: &str) -> Given<'_> {
    Given {
        file: Some(("config.json", text)),
        ..Given::default()
    }
}

fn env<'a>(variables: &'a [(&'a str, &'a str)]) -> Given<'a> {
    Given {
        env: variables,
        ..Given::default()
    }
}

/// The key as the only one of a file, in line 2.
fn nested(path: &str, value: &str) -> String {
    let mut text = String::new();
    let (sections, name) = path.rsplit_once('.').unwrap_or(("", path));
    for section in sections.split('.').filter(|section| !section.is_empty()) {
        text.push_str(&format!("{{{section:?}:"));
    }
    text.push_str(&format!("\n{{{name:?}: {value}"));
    text.push_str(&"}".repeat(path.split('.').count()));
    text
}

fn in_an_app(path: &str, value: &str) -> String {
    let credentials = [("id", "a"), ("key", "k"), ("secret", "s")];
    let others: Vec<String> = credentials
        .iter()
        .filter(|(name, _)| *name != path)
        .map(|(name, value)| format!("{name:?}: {value:?}"))
        .collect();
    format!(
        "{{\"app_manager\": {{\"array\": {{\"apps\": [{{ {},\n\"{path}\": {value} }}]}}}}}}",
        others.join(", ")
    )
}

fn plain_keys() -> impl Iterator<Item = &'static Key> {
    SERVER
        .iter()
        .filter(|key| !matches!(key.kind, Kind::Records(_)))
}

/// A value that fits the key, is not its default, and is in this release; as a variable has it.
fn example(key: &Key) -> String {
    let fixed = match key.path {
        // Choices and switches whose other values are not in this release.
        "adapter.driver" => "local",
        "app_manager.driver" => "memory",
        "cache.driver" | "queue.driver" | "rate_limiter.driver" => "none",
        "cluster.replication" => "full",
        "ssl.enabled" | "unix_socket.enabled" => "false",
        // Values that must fit others.
        "net.recv_buffers" => "2048",
        "net.send_queue_bytes" => "2000000",
        "websocket.max_payload_kb" => "65",
        "path_prefix" => "/realtime",
        "unix_socket.path" => "/run/x",
        _ => "",
    };
    if !fixed.is_empty() {
        return fixed.to_owned();
    }
    let is_new = |text: &&&str| key.default != Some(**text);
    match key.kind {
        Kind::Flag if key.default == Some("true") => "false".to_owned(),
        Kind::Flag => "true".to_owned(),
        Kind::Whole(bounds) | Kind::WholeOrAuto(bounds) => {
            let default: u64 = key.default.and_then(|text| text.parse().ok()).unwrap_or(0);
            let above = default.saturating_add(1).clamp(bounds.min, bounds.max);
            let number = if above == default { default - 1 } else { above };
            number.to_string()
        }
        Kind::Kilobytes(_) => "7.5".to_owned(),
        Kind::Fraction => "0.5".to_owned(),
        Kind::Text(shape) | Kind::Texts(shape) => {
            let candidates = ["https://h.example", "PATCH", "name", "other", "/x"];
            let fits = |text: &&&str| (shape.fits)(text) && is_new(text);
            let found = candidates.iter().find(fits);
            (*found.unwrap_or_else(|| panic!("an example for {}", key.path))).to_owned()
        }
        Kind::Choice(choices) => {
            let mut names = choices.iter().map(|choice| choice.name);
            let other = names.clone().find(|name| key.default != Some(name));
            other
                .or(names.next_back())
                .expect("a choice has names")
                .to_owned()
        }
        Kind::Secret | Kind::Secrets => "hunter2".to_owned(),
        Kind::Url | Kind::Urls => "https://user:hunter2@h.example".to_owned(),
        Kind::Cidrs => "10.0.0.0/8".to_owned(),
        Kind::Endpoints { .. } => "h.example:7001".to_owned(),
        Kind::Mode => "600".to_owned(),
        Kind::Headers => "{\"a\": \"hunter2\"}".to_owned(),
        Kind::Records(_) => "[]".to_owned(),
    }
}

fn json_text(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Values that do not fit the key, in JSON, each with what the error shows of it.
fn wrong_values(key: &Key) -> Vec<(String, String)> {
    let mut values = vec![("[[1]]".to_owned(), String::new())];
    let mut add = |json: &str| values.push((json.to_owned(), json.to_owned()));
    match key.kind {
        Kind::Flag => ["\"maybe\"", "2"].iter().for_each(|value| add(value)),
        Kind::Whole(bounds) | Kind::WholeOrAuto(bounds) => {
            ["\"lots\"", "1.5", "true"]
                .iter()
                .for_each(|value| add(value));
            if bounds.min > 0 {
                add(&(bounds.min - 1).to_string());
            }
            if bounds.negative.is_none() {
                add("-1");
            }
            add(&(u128::from(bounds.max) + 1).to_string());
        }
        Kind::Kilobytes(bounds) => {
            ["\"lots\"", "true", "0"]
                .iter()
                .for_each(|value| add(value));
            add(&(bounds.max / 1024 + 1).to_string());
        }
        Kind::Fraction => ["\"lots\"", "-0.1", "100.5"]
            .iter()
            .for_each(|value| add(value)),
        Kind::Choice(_) => ["\"sns\"", "1"].iter().for_each(|value| add(value)),
        Kind::Text(_) => ["1", "true"].iter().for_each(|value| add(value)),
        Kind::Texts(_) | Kind::Cidrs | Kind::Endpoints { .. } => add("true"),
        Kind::Mode => ["660", "\"888\"", "\"1777\""]
            .iter()
            .for_each(|value| add(value)),
        Kind::Secret | Kind::Secrets | Kind::Headers => {
            values.push(("987654".to_owned(), "***".to_owned()));
        }
        Kind::Url | Kind::Urls | Kind::Records(_) => add("1"),
    }
    values
}

#[test]
fn every_key_refuses_what_does_not_fit_and_says_where() {
    let server = plain_keys().map(|key| (key, key.path.to_owned()));
    let app = APP
        .iter()
        .map(|key| (key, format!("app_manager.array.apps[0].{}", key.path)));
    for (key, name) in server.chain(app) {
        for (json, shown) in wrong_values(key) {
            let is_app = name.contains("[0]");
            let text = if is_app {
                in_an_app(key.path, &json)
            } else {
                nested(key.path, &json)
            };
            let errors = file(&text).errors();
            let about: Vec<_> = errors
                .iter()
                .filter(|e| e.contains(&format!(" {name}")))
                .collect();
            let [error] = &about[..] else {
                panic!("{text}: {errors:#?}")
            };
            assert!(
                error.starts_with(&format!("config.json:2: {name}")),
                "{error}"
            );
            assert!(
                error.contains(&format!("{shown} is not ")),
                "{json} {error}"
            );
            assert!(!error.contains("987654"), "{error}");
        }
    }
}

#[test]
fn every_variable_alone_sets_exactly_its_keys() {
    let mut keys_of: BTreeMap<String, Vec<&Key>> = BTreeMap::new();
    for key in plain_keys() {
        let fallback = key.fallback_env.iter().map(|name| (*name).to_owned());
        for name in key.variables().into_iter().chain(fallback) {
            keys_of.entry(name).or_default().push(key);
        }
    }
    for (name, keys) in keys_of {
        let value = match name.as_str() {
            // It feeds lists of two kinds.
            "DATABASE_REDIS_CLUSTER_NODES" => "redis://h.example:7001".to_owned(),
            _ => example(keys[0]),
        };
        let variables = [(name.as_str(), value.as_str())];
        let loaded = Given {
            allow_demo_app: true,
            ..env(&variables)
        }
        .loaded();
        for key in plain_keys() {
            let origin = loaded.settings.origin(key.path).to_string();
            if keys.iter().any(|k| k.path == key.path) {
                assert_eq!(origin, format!("env:{name}"), "{}", key.path);
            } else if key.derived.is_none() {
                assert_eq!(origin, "default", "{name} also sets {}", key.path);
            }
        }
    }
}

#[test]
fn a_key_takes_the_value_of_the_highest_source_and_remembers_it() {
    for key in plain_keys() {
        let value = example(key);
        let text = nested(key.path, &json_text(&value));
        let from_file = file(&text).loaded();
        let entry = from_file.settings.entry(key.path);
        assert!(
            matches!(&entry.origin, Origin::File { path, line: 2 } if path.ends_with("config.json")),
            "{}: {}",
            key.path,
            entry.origin
        );
        let name = key.variables().pop().expect("every key has a variable");
        let env = [(name.as_str(), value.as_str())];
        let from_env = Given {
            env: &env,
            ..file(&text)
        }
        .loaded();
        assert_eq!(
            from_env.settings.origin(key.path).to_string(),
            format!("env:{name}")
        );
        assert_eq!(
            from_env.settings.setting(key.path),
            &entry.setting,
            "{}",
            key.path
        );
        let by_flag = Given {
            flags: &[("--x", key.path, &value)],
            env: &env,
            ..file(&text)
        };
        assert_eq!(
            by_flag.loaded().settings.origin(key.path),
            &Origin::Cli { flag: "--x" }
        );
    }
}

#[test]
fn every_variable_of_the_app_sets_exactly_its_key() {
    let credentials = [
        ("SOCKUDO_DEFAULT_APP_ID", "a"),
        ("SOCKUDO_DEFAULT_APP_KEY", "k"),
        ("SOCKUDO_DEFAULT_APP_SECRET", "s"),
    ];
    let base = env(&credentials).loaded();
    let [base] = base.settings.records("app_manager.array.apps") else {
        panic!("one app")
    };
    for key in APP.iter().filter(|key| key.path != "enabled") {
        for name in key.app_variables() {
            let value = match key.kind {
                Kind::Records(_) => "[{\"url\": \"https://h\", \"event_types\": []}]".to_owned(),
                _ => example(key),
            };
            let mut variables: Vec<_> = credentials
                .iter()
                .copied()
                .filter(|(given, _)| *given != name)
                .collect();
            variables.push((&name, &value));
            let loaded = env(&variables).loaded();
            let apps = loaded.settings.records("app_manager.array.apps");
            let [app] = apps else {
                panic!("{name}: one app, not {}", apps.len())
            };
            for other in APP.iter() {
                let is_same = app.setting(other.path) == base.setting(other.path);
                assert_eq!(is_same, other.path != key.path, "{name} and {}", other.path);
            }
        }
    }
}

#[test]
fn an_app_of_variables_has_defaults_of_its_own_and_changes_the_one_of_its_id() {
    let credentials = [
        ("SOCKUDO_DEFAULT_APP_ID", "a"),
        ("SOCKUDO_DEFAULT_APP_KEY", "k2"),
        ("SOCKUDO_DEFAULT_APP_SECRET", "s2"),
    ];
    let config = env(&credentials).loaded().config;
    assert!(!config.demo);
    let app = &config.app_manager.apps[0];
    assert_eq!(
        (app.max_connections, app.max_client_events_per_second),
        (100, 100)
    );
    assert_eq!(app.presence_member_bytes_max, 100 * 1024);

    let text = in_an_app("max_connections", "7");
    let config = Given {
        env: &credentials,
        ..file(&text)
    }
    .loaded()
    .config;
    let [app] = &config.app_manager.apps[..] else {
        panic!("the app was changed, not added")
    };
    assert_eq!((app.key.as_str(), app.secrets[0].expose()), ("k2", "s2"));
    assert_eq!((app.max_connections, app.event_batch_max), (7, 10));

    let off = [
        &credentials[..],
        &[("SOCKUDO_DEFAULT_APP_ENABLED", "false")],
    ]
    .concat();
    assert!(env(&off).loaded().config.app_manager.apps.is_empty());
    let errors = env(&credentials[..2]).errors();
    assert_eq!(
        errors,
        ["env SOCKUDO_DEFAULT_APP_ID: app_manager.array.apps[env].secret: is required"]
    );
}

#[test]
fn the_error_of_the_reference_has_its_exact_words() {
    for (text, expected) in [
        (
            in_an_app("max_connections", "\"lots\""),
            "config.json:2: app_manager.array.apps[0].max_connections: \"lots\" is not a whole \
             number >= 0 (or -1 for unlimited)",
        ),
        (
            "{\"databse\": {\"redis\": {}}}".to_owned(),
            "config.json:1: databse: no such key; did you mean database?",
        ),
        (
            "{\"adapter\": {\"driver\": \"nats\"}}".to_owned(),
            "config.json:1: adapter.driver: \"nats\" is not in this release, which has \"local\"",
        ),
        (
            "{\"port\": 1, \"host\": \"${NOWHERE}\"}".to_owned(),
            "config.json:1: host: variable NOWHERE is not set and has no default; set it, or \
             write ${NOWHERE:-default}",
        ),
        (
            "{\"cors\": {\"origin\": [\"*\", \"a b\"]}}".to_owned(),
            "config.json:1: cors.origin[1]: \"a b\" is not a list, each a header value without \
             spaces",
        ),
        (
            "{\"port\": 1,\n\"Port\": 2}".to_owned(),
            "config.json:2: Port: given twice in one object (first in line 1)",
        ),
        (
            "{\"net\": 5}".to_owned(),
            "config.json:1: net: 5 is not an object",
        ),
        (
            "{\"port\": 1".to_owned(),
            "config.json:1: not valid JSON: Unterminated object (column 1)",
        ),
    ] {
        assert_eq!(file(&text).errors(), [expected]);
    }
    assert_eq!(
        env(&[("PORT", "abc")]).errors(),
        ["env PORT: port: \"abc\" is not a whole number 0..=65535"]
    );
    assert_eq!(
        env(&[("PORT", " ")]).errors(),
        ["env PORT: port: must not be empty: a whole number 0..=65535"]
    );
    assert_eq!(
        Given {
            flags: &[("--port", "port", "-1")],
            ..Given::default()
        }
        .errors(),
        ["--port: port: \"-1\" is not a whole number 0..=65535"]
    );
}

#[test]
fn all_errors_come_out_at_once_in_reading_order() {
    let text = "{\"port\": \"x\",\n\"hosst\": 1,\n\"debug\": 7,\n\"pin\": true}";
    let given = Given {
        env: &[("QUEUE_DRIVER", "sns"), ("HOST", "")],
        ..file(text)
    };
    let places: Vec<String> = given
        .errors()
        .iter()
        .map(|error| error.split(": ").take(2).collect::<Vec<_>>().join(": "))
        .collect();
    assert_eq!(
        places,
        [
            "config.json:1: port",
            "config.json:2: hosst",
            "config.json:3: debug",
            "env HOST: host",
            "env QUEUE_DRIVER: queue.driver"
        ]
    );
}

#[test]
fn limits_may_be_numbers_or_texts_in_three_spellings_but_not_in_two_at_once() {
    let limits = APP
        .iter()
        .filter(|key| matches!(key.kind, Kind::Whole(_) | Kind::Kilobytes(_)));
    for key in limits {
        let mut camel = String::new();
        for (index, word) in key.path.split('_').enumerate() {
            let (first, rest) = word.split_at(1);
            let first = if index == 0 {
                first.to_owned()
            } else {
                first.to_uppercase()
            };
            camel.push_str(&first);
            camel.push_str(rest);
        }
        let pascal = format!("{}{}", camel[..1].to_uppercase(), &camel[1..]);
        let setting = |name: &str, value: &str| {
            let loaded = file(&in_an_app(name, value)).loaded();
            loaded.settings.records("app_manager.array.apps")[0]
                .setting(key.path)
                .clone()
        };
        let expected = setting(key.path, "7");
        assert!(
            matches!(expected, Setting::Whole(7) | Setting::Bytes(7168)),
            "{expected:?}"
        );
        for name in [
            key.path,
            &camel,
            &pascal,
            &format!("policy.limits.{}", key.path)[14..],
        ] {
            assert_eq!(setting(name, "\"7\""), expected, "{name}");
        }
        let both = in_an_app(key.path, &format!("7, {camel:?}: 7"));
        let errors = file(&both).errors();
        assert!(
            errors.len() == 1 && errors[0].contains("given twice"),
            "{errors:?}"
        );
    }
    let nested = in_an_app("policy", "{\"limits\": {\"max_connections\": 3}}");
    assert_eq!(
        file(&nested).loaded().config.app_manager.apps[0].max_connections,
        3
    );
}

#[test]
fn limits_that_nobody_set_are_the_protocols_or_upstreams() {
    let limits = |text: &str| {
        let config = file(text).loaded().config;
        let app = config.app_manager.apps[0].clone();
        [
            app.max_client_events_per_second,
            app.max_presence_members_per_channel,
            app.presence_member_bytes_max,
            app.channel_name_bytes_max,
            app.event_channels_max,
            app.event_name_bytes_max,
            app.event_payload_bytes_max,
            app.event_batch_max,
            u32::try_from(config.channel_limits.cache_ttl_s).expect("small"),
            u32::from(config.rate_limiter.enabled),
        ]
    };
    let plain = in_an_app("enabled", "true");
    assert_eq!(
        limits(&plain),
        [10, 100, 1024, 200, 100, 200, 102_400, 10, 1800, 0]
    );
    let max = u32::MAX;
    let upstream = plain.replacen('{', "{\"limits_mode\": \"upstream\", ", 1);
    assert_eq!(
        limits(&upstream),
        [0, max, max, 200, max, 200, max, max, 3600, 1]
    );
    let server = plain.replacen('{', "{\"event_limits\": {\"max_batch_size\": 20}, ", 1);
    assert_eq!(limits(&server)[7], 20);
    let both = server.replace("\"enabled\"", "\"max_event_batch_size\": -1, \"enabled\"");
    assert_eq!(limits(&both)[7], max);
}

#[test]
fn the_examples_of_the_reference_load() {
    let read = |name: &str| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config");
        std::fs::read_to_string(folder.join(name)).expect("the example is there")
    };
    let config = file(&read("minimal.json")).loaded().config;
    let app = &config.app_manager.apps[0];
    assert_eq!(
        (app.id.as_str(), app.max_client_events_per_second),
        ("shop", 100)
    );

    // Upstream's own default queue is not in this release; everything else of it loads.
    let complete = read("complete.json");
    let errors = file(&complete).errors();
    assert!(
        errors.len() == 1 && errors[0].contains("queue.driver: \"redis\""),
        "{errors:#?}"
    );
    let loaded = Given {
        env: &[("QUEUE_DRIVER", "memory")],
        ..file(&complete)
    }
    .loaded();
    assert_eq!(
        (
            loaded.config.cluster.lease_ms,
            loaded.config.cluster.heartbeat_ms
        ),
        (30_000, 10_000)
    );
    let app = &loaded.config.app_manager.apps[0];
    assert_eq!(app.event_payload_bytes_max, 102_400);
    assert_eq!(app.webhooks[0].filter.prefix.as_deref(), Some("presence-"));
    assert!(
        loaded
            .notices
            .iter()
            .all(|notice| notice.level == Level::Note),
        "{:#?}",
        loaded.notices
    );

    let loaded = file(&read("extensions.json")).loaded();
    for key in plain_keys().filter(|key| key.derived.is_none()) {
        if let Origin::File { .. } = loaded.settings.origin(key.path) {
            let default = show_default(key);
            assert_eq!(loaded.settings.setting(key.path), &default, "{}", key.path);
        }
    }
}

fn show_default(key: &Key) -> Setting {
    load::defaults().setting(key.path).clone()
}

#[test]
fn what_upstreams_container_ships_loads_but_its_demo_app_may_not_face_the_network() {
    let shipped = r#"{
        "host": "127.0.0.1", "port": 6001,
        "queue": { "driver": "memory" }, "metrics": { "enabled": false },
        "rate_limiter": { "enabled": false, "driver": "redis" },
        "event_limits": { "max_payload_in_kb": 1000, "max_name_length": 2000 },
        "adapter": { "cluster": { "prefix": "sockudo_cluster:" } },
        "instance": { "process_id": "sockudo-docker-1" },
        "app_manager": { "array": { "apps": [
            { "id": "app-id", "key": "app-key", "secret": "app-secret", "enabled": true,
              "max_connections": 10000, "enable_client_messages": true,
              "max_client_events_per_second": 1000, "allowed_origins": ["*"] } ] } }
    }"#;
    let loaded = file(shipped).loaded();
    assert_eq!(loaded.config.cluster.node_id, None);
    assert_eq!(loaded.config.net.send_queue_bytes, 2 * 1000 * 1024);
    assert!(
        loaded
            .notices
            .iter()
            .any(|n| n.level == Level::Warning && n.key.ends_with("secret"))
    );

    let outside = Given {
        env: &[("HOST", "0.0.0.0")],
        ..file(shipped)
    };
    assert!(
        outside.errors()[0].contains("pass --allow-demo-app"),
        "{:?}",
        outside.errors()
    );
    Given {
        allow_demo_app: true,
        ..outside.clone()
    }
    .loaded();
    Given {
        env: &[("HOST", "0.0.0.0"), ("ENVIRONMENT", "dev")],
        ..file(shipped)
    }
    .loaded();
    Given {
        env: &[("HOST", "localhost,[::1]")],
        ..file(shipped)
    }
    .loaded();
    let demo = env(&[("HOST", "0.0.0.0")]).errors();
    assert!(demo[0].contains("pass --allow-demo-app"), "{demo:?}");
}

#[test]
fn upstreams_lease_and_heartbeat_change_ours() {
    for (variables, expected) in [
        (&[][..], (5000, 1000)),
        (&[("CLUSTER_HEALTH_NODE_TIMEOUT", "9000")], (9000, 1000)),
        (&[("CLUSTER_HEALTH_NODE_TIMEOUT", "900")], (900, 300)),
        (
            &[("CLUSTER_HEALTH_HEARTBEAT_INTERVAL", "4000")],
            (12_000, 4000),
        ),
        (&[("CLUSTER_NODE_TIMEOUT", "8000")], (8000, 1000)),
        (
            &[
                ("CLUSTER_NODE_TIMEOUT", "8000"),
                ("CLUSTER_HEALTH_NODE_TIMEOUT", "9000"),
            ],
            (9000, 1000),
        ),
        (
            &[
                ("SOCKUDO_CLUSTER_LEASE_MS", "7000"),
                ("CLUSTER_HEALTH_NODE_TIMEOUT", "9000"),
            ],
            (7000, 1000),
        ),
    ] {
        let cluster = env(variables).loaded().config.cluster;
        assert_eq!(
            (cluster.lease_ms, cluster.heartbeat_ms),
            expected,
            "{variables:?}"
        );
    }
    let text = "{\"cluster_health\": {\"node_timeout_ms\": 9000}}";
    assert_eq!(file(text).loaded().config.cluster.lease_ms, 9000);
    let both = "{\"cluster_health\": {\"node_timeout_ms\": 9000},
                 \"adapter\": {\"cluster_health\": {\"node_timeout_ms\": 6000}}}";
    assert_eq!(file(both).loaded().config.cluster.lease_ms, 6000);
    let bad = "{\"cluster\": {\"lease_ms\": 2000, \"heartbeat_ms\": 1000}}";
    assert!(file(bad).errors()[0].contains("less than three times cluster.heartbeat_ms = 1000"));
}

#[test]
fn variables_that_are_not_quite_a_key_are_translated() {
    for (variables, path, expected) in [
        (
            &[("DEBUG", "true"), ("DEBUG_MODE", "false")][..],
            "debug",
            Setting::Flag(true),
        ),
        (
            &[("DEBUG", "false"), ("DEBUG_MODE", "true")],
            "debug",
            Setting::Flag(true),
        ),
        (
            &[("DEBUG", "1")],
            "logging.level",
            text("info,sockudo=debug"),
        ),
        (
            &[("RUST_LOG", "trace"), ("SOCKUDO__LOGGING__LEVEL", "warn")],
            "logging.level",
            text("trace"),
        ),
        (
            &[("LOG_LEVEL", "warn"), ("SOCKUDO_LOG_PROD", "error")],
            "logging.level",
            text("error"),
        ),
        (
            &[("LOG_LEVEL", "warn"), ("SOCKUDO_LOG_DEBUG", "error")],
            "logging.level",
            text("warn"),
        ),
        (
            &[("DEBUG", "1"), ("SOCKUDO_LOG_DEBUG", "debug")],
            "logging.level",
            text("debug"),
        ),
        (&[("LOG_FORMAT", "json")], "logging.format", text("json")),
        (&[("LOG_FORMAT", "fancy")], "logging.format", text("human")),
        (
            &[("WEBSOCKET_DISCONNECT_ON_BUFFER_FULL", "false")],
            "net.slow_consumer",
            text("drop_newest"),
        ),
        (
            &[
                ("WEBSOCKET_MAX_MESSAGE_SIZE", "70000"),
                ("WEBSOCKET_MAX_FRAME_SIZE", "66000"),
            ],
            "websocket.max_payload_kb",
            Setting::Bytes(66_000),
        ),
        (
            &[
                ("WEBSOCKET_MAX_FRAME_SIZE", "66000"),
                ("WEBSOCKET_MAX_PAYLOAD_KB", "70"),
            ],
            "websocket.max_payload_kb",
            Setting::Bytes(71_680),
        ),
        (
            &[
                ("WEBSOCKET_MAX_BYTES", "900000"),
                ("WEBSOCKET_MAX_BACKPRESSURE", "800000"),
            ],
            "net.send_queue_bytes",
            Setting::Whole(800_000),
        ),
        (
            &[("HTTP_ACCEPT_TRAFFIC_MEMORY_THRESHOLD", "85")],
            "http_api.accept_traffic.memory_threshold",
            Setting::Fraction(0.85),
        ),
        (
            &[("CACHE_TTL_SECONDS", "9"), ("APP_MANAGER_CACHE_TTL", "8")],
            "app_manager.cache.ttl",
            Setting::Whole(9),
        ),
        (
            &[("APP_MANAGER_CACHE_TTL", "8")],
            "app_manager.negative_ttl",
            Setting::Whole(8),
        ),
        (
            &[("INSTANCE_PROCESS_ID", "n1")],
            "cluster.node_id",
            text("n1"),
        ),
        (
            &[("INSTANCE_PROCESS_ID", "sockudo-docker-1")],
            "cluster.node_id",
            Setting::Null,
        ),
        (
            &[("APP_MANAGER_DRIVER", "Memory")],
            "app_manager.driver",
            text("memory"),
        ),
        (
            &[("SHUTDOWN_GRACE_PERIOD", "20")],
            "drain.deadline_s",
            Setting::Whole(20),
        ),
        (
            &[("REDIS_CLUSTER_NODES", "")],
            "adapter.cluster.nodes",
            Setting::Urls(Vec::new()),
        ),
        (
            &[("DATABASE_REDIS_PASSWORD", "")],
            "database.redis.password",
            Setting::Null,
        ),
    ] {
        let loaded = env(variables).loaded();
        assert_eq!(loaded.settings.setting(path), &expected, "{variables:?}");
    }
}

fn text(text: &str) -> Setting {
    Setting::Text(text.to_owned())
}

#[test]
fn fallback_variables_and_the_env_file_rank_where_the_reference_says() {
    let text = "{\"database\": {\"dynamodb\": {\"region\": \"file\"}}}";
    let region = |given: Given<'_>| given.loaded().config.database.dynamodb.region;
    assert_eq!(region(env(&[("AWS_REGION", "aws")])), "aws");
    assert_eq!(
        region(Given {
            env: &[("AWS_REGION", "aws")],
            ..file(text)
        }),
        "file"
    );
    let lines = "DATABASE_DYNAMODB_REGION=env-file";
    assert_eq!(
        region(Given {
            env_file: Some(lines),
            ..file(text)
        }),
        "env-file"
    );
    let env = &[("DATABASE_DYNAMODB_REGION", "env")];
    assert_eq!(
        region(Given {
            env,
            env_file: Some(lines),
            ..file(text)
        }),
        "env"
    );
}

#[test]
fn the_file_may_be_toml_or_of_unknown_suffix_and_is_searched_for_in_order() {
    for (name, text) in [
        ("c.toml", "port = 7001"),
        ("c.json", "{\"port\": 7001}"),
        ("c.conf", "{\"port\": 7001}"),
        ("c.conf", "port = 7001"),
    ] {
        let given = Given {
            file: Some((name, text)),
            ..Given::default()
        };
        assert_eq!(given.loaded().config.port, 7001, "{name}");
    }
    let errors = Given {
        file: Some(("c.conf", "port")),
        ..Given::default()
    }
    .errors();
    assert!(errors.len() == 2 && errors[0].contains("JSON") && errors[1].contains("TOML"));

    let folder = tempfile::tempdir().expect("a temporary folder");
    let write = |name: &str, port: u16| {
        let path = folder.path().join(name);
        std::fs::write(&path, format!("port = {port}")).expect("the folder is ours");
        path
    };
    let (first, second, named) = (folder.path().join("none"), write("b", 2), write("c", 3));
    let search = vec![first, second, write("d", 4)];
    let mut sources = Sources {
        search,
        ..Sources::default()
    };
    let port = |sources: &Sources| load(sources).expect("it loads").config.port;
    assert_eq!(port(&sources), 2);
    let name = named.display().to_string();
    sources.environment = BTreeMap::from([("CONFIG_FILE".to_owned(), name)]);
    assert_eq!(port(&sources), 3);
    sources.config = Some(write("e", 5));
    assert_eq!(port(&sources), 5);
    sources.config = Some(folder.path().join("none"));
    let errors = load(&sources)
        .expect_err("the file is not there")
        .to_string();
    assert!(
        errors.contains("none: cannot be read: No such file"),
        "{errors}"
    );
}

#[test]
fn names_without_a_meaning_are_warnings_and_unknown_ones_errors_unless_lenient() {
    let later = r#"{ "delta_compression": { "enabled": true }, "websocket": { "max_messages": 5 },
        "adapter": { "redis": { "redis_pub_options": { "tls": {} } } } }"#;
    let loaded = file(later).loaded();
    let warnings: Vec<&str> = loaded
        .notices
        .iter()
        .filter(|n| n.text.contains("no effect"))
        .map(|n| n.key.as_str())
        .collect();
    assert_eq!(
        warnings,
        [
            "delta_compression",
            "websocket.max_messages",
            "adapter.redis.redis_pub_options.tls"
        ]
    );
    let unknown = file("{\"prot\": 1}");
    assert_eq!(
        unknown.errors(),
        ["config.json:1: prot: no such key; did you mean port?"]
    );
    let loaded = Given {
        lenient: true,
        ..unknown
    }
    .loaded();
    assert!(
        loaded
            .notices
            .iter()
            .any(|n| n.key == "prot" && n.level == Level::Warning)
    );
    for key in plain_keys() {
        if let Status::NoEffect(_) = key.status {
            let text = nested(key.path, &json_text(&example(key)));
            let loaded = file(&text).loaded();
            let is_about = |n: &&sockudo::config::Notice| n.key == key.path;
            assert!(loaded.notices.iter().any(|n| is_about(&n)), "{}", key.path);
        }
    }
}

#[test]
fn what_this_release_does_not_ship_refuses_to_start() {
    for (path, value) in [
        ("adapter.driver", "redis"),
        ("adapter.driver", "redis-cluster"),
        ("adapter.driver", "nats"),
        ("app_manager.driver", "mysql"),
        ("app_manager.driver", "postgres"),
        ("app_manager.driver", "dynamodb"),
        ("app_manager.driver", "scylla"),
        ("cache.driver", "redis"),
        ("queue.driver", "redis"),
        ("queue.driver", "sqs"),
        ("ssl.enabled", "true"),
        ("unix_socket.enabled", "true"),
        ("cluster.replication", "owned"),
    ] {
        let errors = file(&nested(path, &json_text(value))).errors();
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(
            errors[0].starts_with(&format!("config.json:2: {path}: ")),
            "{errors:?}"
        );
        assert!(errors[0].contains("not in this release"), "{errors:?}");
    }
    let limiter = "{\"rate_limiter\": {\"enabled\": true, \"driver\": \"redis\"}}";
    assert!(file(limiter).errors()[0].contains("not in this release"));
    let hook = in_an_app(
        "webhooks",
        "[{\"lambda_function\": \"f\", \"event_types\": []}]",
    );
    assert!(file(&hook).errors()[0].contains("a Lambda function is not in this release"));
}

#[test]
fn webhooks_and_apps_that_cannot_work_are_refused() {
    let hook = |members: &str| in_an_app("webhooks", &format!("[{{{members}}}]"));
    let base = "\"event_types\": []";
    for (text, part) in [
        (hook(base), "webhooks[0].url: is required"),
        (hook("\"url\": \"https://h\""), "webhooks[0].event_types: is required"),
        (hook(&format!("\"url\": \"ftp://h\", {base}")), "\"ftp://h\" is not an http:// or https:// URL"),
        (hook(&format!("\"url\": \"https://h\", {base}, \"filter\": {{\"channel_pattern\": \"(\"}}")), "\"(\" is not a regular expression"),
        (hook(&format!("\"url\": \"https://h\", {base}, \"headers\": {{\"X-Pusher-Key\": \"a\"}}")), "set by the server itself"),
        (in_an_app("allowed_origins", "[\"https://*.*\"]"), "allowed_origins[0]: \"https://*.*\" is not"),
        (in_an_app("webhooks", "\"[{\""), "webhooks: not valid JSON"),
        ("{\"app_manager\": {\"array\": {\"apps\": [{}]}}}".to_owned(), "apps[0].id: is required"),
        ("{\"app_manager\": {\"array\": {\"apps\": [{\"id\": \"a\", \"key\": \"k\"}]}}}".to_owned(), "apps[0].secret: is required"),
        ("{\"app_manager\": {\"array\": {\"apps\": [{\"id\": \"a\", \"key\": \"k\", \"secret\": \"s\"}, {\"id\": \"b\", \"key\": \"k\", \"secret\": \"s\"}]}}}".to_owned(), "apps[1].key: \"k\" is already that of another app"),
    ] {
        let errors = file(&text).errors();
        assert!(errors.iter().any(|error| error.contains(part)), "{part}: {errors:#?}");
    }
    let text = in_an_app(
        "webhooks",
        "\"[{\\\"url\\\": \\\"https://h\\\", \\\"event_types\\\": [\\\"chanel_vacated\\\"]}]\"",
    );
    let loaded = file(&text).loaded();
    assert_eq!(loaded.config.app_manager.apps[0].webhooks.len(), 1);
    let hint = "did you mean channel_vacated?";
    assert!(
        loaded.notices.iter().any(|n| n.text.contains(hint)),
        "{:?}",
        loaded.notices
    );
}

#[test]
fn values_that_contradict_each_other_are_refused() {
    for (text, part) in [
        (
            "{\"database_pooling\": {\"min\": 11}}",
            "database_pooling.min: 11 is more than database_pooling.max = 10",
        ),
        (
            "{\"database\": {\"mysql\": {\"pool_min\": 3, \"pool_max\": 2}}}",
            "pool_min: 3 is more than",
        ),
        (
            "{\"net\": {\"recv_buffers\": 1000}}",
            "1000 is not a power of two",
        ),
        (
            "{\"net\": {\"send_queue_bytes\": 100000}}",
            "less than twice the largest message, 65536 bytes",
        ),
        (
            "{\"metrics\": {\"port\": 6001}}",
            "metrics.port: 6001 is the server's own port",
        ),
        (
            "{\"webhooks\": {\"retry\": {\"backoff_max_ms\": 10}}}",
            "backoff_ms: 1000 is more than",
        ),
    ] {
        let errors = file(text).errors();
        assert!(
            errors.len() == 1 && errors[0].contains(part),
            "{part}: {errors:?}"
        );
    }
}

#[test]
fn no_secret_reaches_an_error_a_notice_debug_or_show() {
    let secrets = |key: &&Key| {
        matches!(
            key.kind,
            Kind::Secret | Kind::Secrets | Kind::Url | Kind::Urls
        )
    };
    for key in plain_keys().filter(secrets) {
        let value = example(key);
        assert!(value.contains("hunter2"));
        let loaded = file(&nested(key.path, &json_text(&value))).loaded();
        no_secret_in(&loaded);
        let wrong = format!("{{\"x\": {}}}", json_text(&value));
        let errors = file(&nested(key.path, &wrong)).errors().join("\n");
        assert!(!errors.contains("hunter2"), "{errors}");
    }
    let app = in_an_app(
        "webhooks",
        "[{\"url\": \"https://u:hunter2@h/\", \"event_types\": [],
           \"headers\": {\"Authorization\": \"hunter2\"}}], \"secrets\": [\"hunter2\"]",
    );
    no_secret_in(&file(&app).loaded());
    for wrong in [
        in_an_app("secret", "[\"hunter2\"]"),
        in_an_app("secrets", "{\"hunter1\": \"hunter2\"}"),
        in_an_app(
            "webhooks",
            "[{\"url\": \"ftp://u:hunter2@h\", \"event_types\": []}]",
        ),
        in_an_app(
            "webhooks",
            "[{\"url\": \"http://h\", \"event_types\": [], \"headers\": {\"Host\": \"hunter2\"}}]",
        ),
        in_an_app("webhooks", "\"[{\\\"url\\\": hunter2}]\""),
    ] {
        let errors = file(&wrong).errors().join("\n");
        assert!(!errors.contains("hunter2"), "{errors}");
    }
    let misplaced = Given {
        env: &[("PASSWORD", "hunter2")],
        ..file("{\"port\": \"${PASSWORD}\"}")
    };
    assert_eq!(
        misplaced.errors(),
        ["config.json:1: port: \"${PASSWORD}\" is not a whole number 0..=65535"]
    );
}

fn no_secret_in(loaded: &Loaded) {
    let Loaded {
        config,
        settings,
        notices,
        ..
    } = loaded;
    let shown = |settings: &Settings| {
        let (secrets, origins) = (show::Secrets::Hidden, show::Origins::Shown);
        show::json(settings, secrets, origins) + &show::toml(settings, secrets, origins)
    };
    for text in [
        format!("{config:?}"),
        format!("{settings:?}{notices:?}"),
        shown(settings),
    ] {
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[test]
fn a_reload_names_the_keys_that_need_a_restart() {
    let first = file("{\"port\": 1, \"activity_timeout\": 10}").loaded();
    let next = file("{\"port\": 2, \"activity_timeout\": 20, \"net\": {\"backlog\": 5}}").loaded();
    assert_eq!(
        first.keys_that_need_a_restart(&next),
        ["port", "net.backlog"]
    );
}

#[test]
fn the_program_exits_with_78_for_a_bad_configuration_and_says_why() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("cut.json"), "{\"port\": 6001, ").expect("ours");
    std::fs::write(folder.path().join("warn.json"), "{\"history\": {}}").expect("ours");
    let run = |arguments: &[&str], variables: &[(&str, &str)]| {
        let output = Command::new(env!("CARGO_BIN_EXE_sockudo"))
            .args(arguments)
            .env_clear()
            .envs(variables.iter().copied())
            .current_dir(folder.path())
            .output()
            .expect("the program was built");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (
            output.status.code(),
            text(&output.stdout),
            text(&output.stderr),
        )
    };
    for (arguments, variables, part) in [
        (
            &["-c", "cut.json"][..],
            &[][..],
            "cut.json:1: not valid JSON",
        ),
        (
            &["serve", "-c", "cut.json"],
            &[],
            "cut.json:1: not valid JSON",
        ),
        (&["-c", "none.json"], &[], "none.json: cannot be read"),
        (&[], &[("PORT", "abc")], "env PORT: port: \"abc\""),
        (
            &[],
            &[("ADAPTER_DRIVER", "reddis")],
            "env ADAPTER_DRIVER: adapter.driver: \"reddis\"",
        ),
        (&["--port", "abc"], &[], "--port: port: \"abc\""),
        (
            &["config", "show", "-c", "cut.json"],
            &[],
            "cut.json:1: not valid JSON",
        ),
    ] {
        let (code, out, diagnostics) = run(arguments, variables);
        assert_eq!(code, Some(78), "{arguments:?}: {diagnostics}");
        assert!(diagnostics.contains(part), "{arguments:?}: {diagnostics}");
        assert_eq!(out, "", "{arguments:?}");
    }
    let (code, out, _) = run(&["config", "check", "-c", "cut.json"], &[]);
    assert!(code == Some(78) && out.contains("1 error found"), "{out}");
    let (code, out, _) = run(&["config", "check", "-c", "warn.json"], &[]);
    assert!(
        code == Some(0) && out.contains("warning: warn.json:1: history: not supported"),
        "{out}"
    );
    let (code, out, _) = run(
        &["config", "check", "--strict", "--json", "-c", "warn.json"],
        &[],
    );
    let answer: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(
        (code, &answer["ok"]),
        (Some(1), &serde_json::Value::Bool(true))
    );
    assert_eq!(
        run(&["--prot"], &[]).0,
        Some(2),
        "a flag that does not exist is wrong usage"
    );
}
