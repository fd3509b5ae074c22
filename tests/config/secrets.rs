//! No secret is ever printed.

use sockudo::config::keys::Key;
use sockudo::config::kind::Kind;
use sockudo::config::settings::Settings;
use sockudo::config::{Loaded, show};

use crate::{Given, example, file, in_an_app, json_text, nested, plain_keys};

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
            "[{\"url\": \"http://h\", \"event_types\": [], \"headers\": {\"X y\": \"hunter2\"}}]",
        ),
        in_an_app("webhooks", "\"[{\\\"url\\\": hunter2}]\""),
    ] {
        let errors = file(&wrong).errors().join("\n");
        assert!(!errors.contains("hunter2"), "{errors}");
    }
    for options in [
        r#"{"host": "h", "password": "hunter2", "keyPrefix": "hunter1"}"#,
        r#""redis://u:hunter2@h""#,
        r#""{\"host\": \"h\", \"password\": \"hunter2\"""#,
    ] {
        let given = nested("cache.redis.redisOptions", options);
        match file(&given).load() {
            Ok(loaded) => no_secret_in(&loaded),
            Err(errors) => assert!(!errors.to_string().contains("hunter2"), "{errors}"),
        }
    }
    for wrong in [
        nested("database.redis", r#""redis://u:hunter2@h""#),
        nested("database.redis", r#""u:hunter2@h:6379""#),
        nested("database.redis.port", r#""redis://u:hunter2@h""#),
        nested(
            "database.redis.cluster_nodes",
            r#"["redis://u:hunter2@${H}:none"]"#,
        ),
        nested("database.redis.cluster_nodes", r#"["u:hunter2@${H}:none"]"#),
        nested("host", r#""https://u:hunter2@h""#),
        nested("database.redis.host", r#""redis://u:hunter2@h""#),
        nested("database.mysql.host", r#""u:hunter2@h""#),
        nested("database.postgres.host", r#""postgres://u:hunter2@h/db""#),
        nested("app_manager.array.apps", r#"["http://k:hunter2@h/apps/1"]"#),
        nested("app_manager.array.apps", r#"["1:k:hunter2"]"#),
    ] {
        let given = Given {
            env: &[("H", "h")],
            ..file(&wrong)
        };
        let errors = given.errors().join("\n");
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
