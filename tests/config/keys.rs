//! What holds for every row of the table of keys: a new key is tested by being there.

use std::collections::BTreeMap;

use sockudo::config::Origin;
use sockudo::config::keys::{APP, Key, WEBHOOK};
use sockudo::config::kind::Kind;
use sockudo::config::settings::Setting;

use crate::{Given, env, example, file, in_an_app, json_text, nested, plain_keys};

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
        Kind::TextOrNumber(_) => ["1.5", "-1", "true"].iter().for_each(|value| add(value)),
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

/// Whose key it is.
#[derive(Clone, Copy)]
enum In {
    Server,
    App,
    Webhook,
}

#[test]
fn every_key_refuses_what_does_not_fit_and_says_where() {
    let server = plain_keys().map(|key| (key, In::Server));
    let app = APP.iter().map(|key| (key, In::App));
    let webhook = WEBHOOK.iter().map(|key| (key, In::Webhook));
    for (key, place) in server.chain(app).chain(webhook) {
        let (name, line) = match place {
            In::Server => (key.path.to_owned(), 2),
            In::App => (format!("app_manager.array.apps[0].{}", key.path), 2),
            In::Webhook => (
                format!("app_manager.array.apps[0].webhooks[0].{}", key.path),
                3,
            ),
        };
        for (json, shown) in wrong_values(key) {
            let text = match place {
                In::Server => nested(key.path, &json),
                In::App => in_an_app(key.path, &json),
                In::Webhook => in_an_app("webhooks", &format!("[{}]", nested(key.path, &json))),
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
                error.starts_with(&format!("config.json:{line}: {name}")),
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
