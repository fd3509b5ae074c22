//! What people bring from another server, carried into a file of ours: each name to its effect.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use sockudo::config::Loaded;
use sockudo::config::carry::{Carried, Former, Given as Texts, Text, Why, carry};
use sockudo::config::sections::{QueueDriver, app::EventType};

use crate::migrate_reverb::REVERB_APP;
use crate::soketi::Effect;
use crate::soketi::in_a_file::IN_A_FILE;
use crate::soketi::variables::{SOKETI_APP, VARIABLES};
use crate::{Given, nested, soketi};

/// Of a file and a `.env`, either of which may be empty.
fn try_carry(former: Former, file: &str, env: &str) -> Result<Carried, String> {
    let text = |name, text| Text { name, text };
    let texts = Texts {
        file: (!file.is_empty()).then(|| text("old", file)),
        variables: (!env.is_empty()).then(|| text(".env", env)),
    };
    carry(former, texts).map_err(|errors| errors.to_string())
}

pub(crate) fn carried(former: Former, file: &str, env: &str) -> Carried {
    try_carry(former, file, env).unwrap_or_else(|errors| panic!("{file}\n{env}\n{errors}"))
}

/// The file that was made, as a server would read it.
pub(crate) fn loaded(carried: &Carried) -> Loaded {
    let given = Given {
        file: Some(("sockudo.toml", &carried.file)),
        ..Given::default()
    };
    given.loaded()
}

pub(crate) fn left(carried: &Carried) -> Vec<String> {
    carried.left.iter().map(ToString::to_string).collect()
}

pub(crate) fn is_listed(carried: &Carried, parts: &[&str]) -> bool {
    let lines = left(carried);
    lines
        .iter()
        .any(|line| parts.iter().all(|part| line.contains(part)))
}

#[test]
fn every_name_of_a_soketi_file_has_its_effect_in_the_new_file() {
    for &(path, value, effect, expected) in IN_A_FILE {
        let old = nested(path, value);
        let new = carried(Former::Soketi, &old, "");
        assert_eq!(
            effect(&loaded(&new).config),
            expected,
            "{old}\n{}",
            new.file
        );
    }
}

#[test]
fn every_variable_of_soketi_has_its_effect_in_the_new_file() {
    let app: Vec<String> = SOKETI_APP
        .map(|(name, value)| format!("{name}={value}\n"))
        .into();
    for &(name, value, effect, expected) in VARIABLES {
        if name == "METRICS_DRIVER" {
            continue; // It looks whether metrics are on, which they are not in Soketi.
        }
        let value = value.replace('"', "\\\"");
        let env = format!("PORT=1\n{}SOKETI_{name}=\"{value}\"\n", app.concat());
        let new = carried(Former::Soketi, "", &env);
        assert_eq!(
            effect(&loaded(&new).config),
            expected,
            "{env}\n{}",
            new.file
        );
        if name == "PORT" {
            // A list of variables is as good in place of the file.
            assert_eq!(carried(Former::Soketi, &env, "").file, new.file);
        }
    }
}

#[test]
fn the_usual_file_of_soketi_is_carried_and_lists_what_has_no_place() {
    let old = soketi::usual();
    let new = carried(Former::Soketi, old, "");
    let config = loaded(&new).config;
    assert_eq!(new.apps, 1);
    assert_eq!(
        config.app_manager.apps[0].secrets[0].expose(),
        "shop-secret"
    );
    assert!(
        is_listed(&new, &["old:", "cluster.port", "11002", "by UDP"]),
        "{:?}",
        left(&new)
    );
    assert!(
        is_listed(
            &new,
            &["appManager.mysql.version = \"8.0\"", "the driver asks"]
        ),
        "{:?}",
        left(&new)
    );
    let all = left(&new).concat() + &new.notes.concat();
    assert!(!all.contains("shop-secret"), "{all}");
}

/// What Soketi does without being told, or in a unit of its own: its file, effect, expected.
const SILENT: &[(&str, Effect, &str)] = &[
    ("{\"port\": 1}", |c| c.metrics.enabled.to_string(), "false"),
    ("{\"port\": 1}", |c| c.metrics.prefix.clone(), "soketi_"),
    (
        "{\"port\": 1}",
        |c| c.webhooks.batching_enabled.to_string(),
        "false",
    ),
    (
        "{\"port\": 1}",
        |c| c.database_pooling.enabled.to_string(),
        "false",
    ),
    ("{\"port\": 1}", |c| c.database_pooling.max.to_string(), "7"),
    (
        "{\"port\": 1}",
        |c| c.rate_limiter.enabled.to_string(),
        "false",
    ),
    (
        "{\"rateLimiter\": {\"driver\": \"redis\"}}",
        |c| c.rate_limiter.enabled.to_string(),
        "false",
    ),
    (
        "{\"port\": 1}",
        |c| c.app_manager.cache_enabled.to_string(),
        "false",
    ),
    (
        "{\"port\": 1}",
        |c| c.cors.allowed_headers.len().to_string(),
        "9",
    ),
    (
        "{\"port\": 1}",
        |c| c.cors.methods.join(" "),
        "GET POST PUT DELETE OPTIONS",
    ),
    (
        "{\"port\": 1}",
        |c| c.http_api.request_bytes_max.to_string(),
        "104857600",
    ),
    (
        "{\"port\": 1}",
        |c| c.http_api.memory_threshold.to_string(),
        "0.85",
    ),
    (
        "{\"port\": 1}",
        |c| format!("{:?}", c.queue.driver),
        "Memory",
    ),
    (
        "{\"port\": 1}",
        |c| c.user_authentication_timeout_s.to_string(),
        "30",
    ),
    ("{\"port\": 1}", |c| c.drain.deadline_s.to_string(), "3"),
    (
        "{\"port\": 1}",
        |c| c.channel_limits.cache_ttl_s.to_string(),
        "3600",
    ),
    (
        "{\"appManager\": {\"driver\": \"mysql\"}}",
        |c| c.database.mysql.table_name.clone(),
        "apps",
    ),
    (
        "{\"appManager\": {\"driver\": \"postgres\"}}",
        |c| c.database.postgres.database.clone(),
        "main",
    ),
    (
        "{\"appManager\": {\"driver\": \"dynamodb\"}}",
        |c| c.database.dynamodb.table_name.clone(),
        "apps",
    ),
    (
        "{\"metrics\": {\"enabled\": true, \"prometheus\": {\"prefix\": \"a_\"}}}",
        |c| format!("{} {}", c.metrics.enabled, c.metrics.prefix),
        "true a_",
    ),
    (
        r#"{"appManager": {"array": {"apps": [{"id": 1, "key": "k", "secret": "s"}]}}}"#,
        |c| {
            c.app_manager.apps[0]
                .max_client_events_per_second
                .to_string()
        },
        "0",
    ),
];

#[test]
fn what_soketi_does_without_being_told_is_written_out() {
    for &(old, effect, expected) in SILENT {
        let new = carried(Former::Soketi, old, "");
        assert_eq!(
            effect(&loaded(&new).config),
            expected,
            "{old}\n{}",
            new.file
        );
    }
    // Whatever variables the new server has.
    let file = carried(Former::Soketi, "{\"port\": 1}", "").file;
    for line in ["[rate_limiter]\nenabled = false\n", "driver = \"memory\"\n"] {
        assert!(file.contains(line), "{line}\n{file}");
    }
}

#[test]
fn what_soketi_has_and_this_release_has_not_is_listed_and_the_rest_carried() {
    for (old, parts) in [
        (
            "{\"adapter\": {\"driver\": \"cluster\"}, \"port\": 7}",
            &["old:1: adapter.driver", "by UDP", "\"redis\""][..],
        ),
        (
            "{\"port\": 7, \"appManager\": {\"driver\": \"scylla\"}}",
            &["app_manager.driver", "not in this release"],
        ),
        (
            "{\"port\": 7, \"databse\": {}}",
            &["databse", "no such key; did you mean database"],
        ),
        (
            "{\"port\": 7, \"eventLimits\": {\"maxBatchSize\": \"many\"}}",
            &["eventLimits.maxBatchSize", "\"many\" is not"],
        ),
        (
            "{\"port\": 7, \"appManager\": {\"array\": {\"apps\": [{\"id\": \"a\", \"key\": \"k\"}]}}}",
            &["apps[0].secret", "is required"],
        ),
        (
            "{\"port\": 7, \"appManager\": {\"array\": {\"apps\": [{\"id\": \"app-id\", \"key\": \"app-key\", \"secret\": \"app-secret\"}]}}}",
            &["credentials are public"],
        ),
        (
            "module.exports = { port: 7, // c\n queue: { driver: 'kafka' }, };",
            &["old:2: queue.driver", "kafka"],
        ),
    ] {
        let new = carried(Former::Soketi, old, "");
        assert!(is_listed(&new, parts), "{old}: {:?}", left(&new));
        assert_eq!(loaded(&new).config.port, 7, "{old}");
        assert_eq!(new.apps, 0, "{old}");
    }
    let tls = "{\"ssl\": {\"certPath\": \"/c\", \"keyPath\": \"/k\"}}";
    let ssl = loaded(&carried(Former::Soketi, tls, "")).config.ssl;
    let files = (ssl.cert_path.as_str(), ssl.key_path.as_str());
    assert_eq!((ssl.enabled, files), (true, ("/c", "/k")));
}

#[test]
fn however_much_is_wrong_in_one_file_each_is_told_once_with_its_place_and_the_rest_carried() {
    let old = r#"{"port": "abc",
        "ssl": {"certPath": "", "keyPath": "/k"},
        "databasePooling": {"min": 5, "max": 1},
        "pathPrefix": "/rest",
        "appManager": {"array": {"apps": [
            {"id": "a", "key": "k", "secret": "s1"},
            {"id": "b", "key": "k", "secret": ""},
            {"id": "c", "key": "kc", "secret": "s2", "maxConnections": "many"}]}}}"#;
    let new = carried(Former::Soketi, old, "");
    let mut lines = left(&new);
    lines.sort_unstable();
    let apps = "appManager.array.apps";
    assert_eq!(
        lines,
        [
            "old:1: port: \"abc\" is not a whole number 0..=65535".to_owned(),
            "old:2: ssl.cert_path: is empty, and ssl.enabled = true: name a PEM file, or turn TLS off"
                .to_owned(),
            "old:2: ssl.enabled: left out, since with it ssl.cert_path is refused: is empty, and \
             ssl.enabled = true: name a PEM file, or turn TLS off"
                .to_owned(),
            "old:3: database_pooling.max: left out, since with it database_pooling.min is refused: \
             2 is more than database_pooling.max = 1"
                .to_owned(),
            "old:3: database_pooling.min: 5 is more than database_pooling.max = 1".to_owned(),
            format!("old:7: {apps}[1].key: \"k\" is already that of another app (old:6)"),
            format!("old:7: {apps}[1].secret: is required"),
            format!(
                "old:8: {apps}[2].maxConnections: \"many\" is not a whole number >= 0 (or -1 for unlimited)"
            ),
        ]
    );
    let config = loaded(&new).config;
    let ids = config.app_manager.apps.iter().map(|app| app.id.as_str());
    assert_eq!(ids.collect::<Vec<_>>(), ["a", "c"]);
    assert_eq!((config.ssl.enabled, &*config.path_prefix), (false, "/rest"));
}

#[test]
fn what_stands_in_the_way_of_a_default_is_left_out() {
    for (old, key) in [
        ("\"ssl\": {\"enabled\": true}", "ssl.enabled"),
        (
            "\"ssl\": {\"enabled\": true, \"key_path\": \"/k\"}",
            "ssl.enabled",
        ),
        ("\"metrics\": {\"enabled\": true}, \"port\": 9601", "port"),
        ("\"database_pooling\": {\"max\": 1}", "database_pooling.max"),
        (
            "\"webhooks\": {\"retry\": {\"backoff_max_ms\": 1}}",
            "webhooks.retry.backoff_max_ms",
        ),
    ] {
        let new = carried(Former::Sockudo, &format!("{{{old}}}"), "");
        let told = format!("old:1: {key}: left out, since with it ");
        let lines = left(&new);
        assert!(
            lines.len() == 1 && lines[0].starts_with(&told),
            "{old}: {lines:?}"
        );
        loaded(&new);
    }
}

#[test]
fn an_event_that_no_webhook_can_be_told_of_is_a_wrong_value_and_the_others_are_carried() {
    let old = r#"{"appManager": {"array": {"apps": [{"id": "a", "key": "k", "secret": "s", "webhooks": [
        {"url": "https://h", "event_types": ["channel_ocupied", "member_added"]},
        {"url": "https://i", "event_types": ["nope"]}]}]}}}"#;
    for former in [Former::Soketi, Former::Sockudo] {
        let new = carried(former, old, "");
        let hook = "appManager.array.apps[0].webhooks";
        assert_eq!(
            left(&new),
            [
                format!(
                    "old:2: {hook}[0].event_types: there is no event \"channel_ocupied\"; \
                     did you mean channel_occupied?"
                ),
                format!("old:3: {hook}[1].event_types: there is no event \"nope\""),
            ]
        );
        assert!(new.left.iter().all(|left| left.why == Why::Wrong));
        let again = loaded(&new);
        let hooks = &again.config.app_manager.apps[0].webhooks;
        let events: Vec<_> = hooks.iter().map(|hook| &*hook.event_types).collect();
        assert_eq!(events, [&[EventType::MemberAdded][..], &[]]);
        let warned = again.notices.iter().map(|notice| &*notice.text);
        assert!(!warned.collect::<String>().contains("no event"));
    }
}

#[test]
fn an_app_whose_origins_are_in_doubt_is_closed_and_a_broken_webhook_alone_goes() {
    let old = r#"{"appManager": {"array": {"apps": [
        {"id": "a", "key": "ka", "secret": "s1", "allowedOrigins": ["https://*.*.a"]},
        {"id": "b", "key": "kb", "secret": "s2", "webhooks": [
            {"url": "gopher://x", "event_types": ["channel_occupied"]},
            {"url": "https://h", "event_types": ["channel_occupied"]}]}]}}}"#;
    let new = carried(Former::Soketi, old, "");
    let config = loaded(&new).config;
    let [a, b] = &config.app_manager.apps[..] else {
        panic!("two apps: {}", new.file)
    };
    assert!(!a.enabled && b.enabled);
    assert_eq!(b.webhooks.len(), 1);
    assert!(
        is_listed(&new, &["allowedOrigins[0]", "written disabled"]),
        "{:?}",
        left(&new)
    );
    assert!(is_listed(&new, &["webhooks[0].url"]), "{:?}", left(&new));
}

#[test]
fn what_cannot_be_read_is_refused_with_its_line() {
    for (former, file, env, part) in [
        (
            Former::Soketi,
            "{\"port\": 1,\n",
            "",
            "old:1: not valid JSON",
        ),
        (
            Former::Soketi,
            "module.exports = {\n port: process.env.PORT }",
            "",
            "old:2: not valid JSON",
        ),
        (Former::Soketi, "[1]", "", "an object of keys"),
        (Former::Soketi, "", "FOO=1", "no variable of that server"),
        (
            Former::Soketi,
            "",
            "SOKETI_DEFAULT_APP_SECRET='hunter2",
            ".env:1: not valid env file",
        ),
        (
            Former::Reverb,
            "<?php\nreturn [",
            "",
            "old:2: not valid PHP",
        ),
        (
            Former::Reverb,
            "<?php\nreturn config('x');",
            "",
            "old:2: not valid PHP",
        ),
        (
            Former::Reverb,
            "",
            "PUSHER_APP_ID=1",
            "no variable of Reverb",
        ),
        (
            Former::Pusher,
            "",
            "PUSHER_APP_ID=1\nPUSHER_APP_KEY=k",
            "it holds no PUSHER_APP_SECRET",
        ),
        (Former::Sockudo, "port = = 1", "", "old:1: not valid TOML"),
        (Former::Sockudo, "{\"port\": \"${NONE}\"}", "", "NONE"),
    ] {
        match try_carry(former, file, env) {
            Ok(new) => assert!(is_listed(&new, &[part]), "{file}{env}: {:?}", left(&new)),
            Err(errors) => {
                assert!(errors.contains(part), "{file}{env}: {errors}");
                assert!(!errors.contains("hunter2"), "{errors}");
            }
        }
    }
}

#[test]
fn the_variables_of_pusher_make_an_app_and_say_what_to_change() {
    for env in [
        "PUSHER_APP_ID=12\nPUSHER_APP_KEY=k\nPUSHER_APP_SECRET=hunter2\nPUSHER_APP_CLUSTER=eu\nPUSHER_HOST=\n",
        "export PUSHER_ID=12\nPUSHER_KEY=k\nPUSHER_SECRET='hunter2'\nPUSHER_CLUSTER=eu\n",
        "PUSHER_URL=https://k:hunter2@api-eu.pusher.com/apps/12\nPUSHER_CLUSTER=eu\n",
    ] {
        for new in [
            carried(Former::Pusher, env, ""),
            carried(Former::Pusher, "", env),
        ] {
            let config = loaded(&new).config;
            let app = &config.app_manager.apps[0];
            let given = (&*app.id, &*app.key, app.secrets[0].expose());
            assert_eq!(given, ("12", "k", "hunter2"), "{env}");
            assert!(new.left.is_empty(), "{:?}", left(&new));
            let notes = new.notes.concat();
            assert!(
                notes.contains("cluster (eu)") && notes.contains("wsHost"),
                "{notes}"
            );
            assert!(!notes.contains("hunter2"), "{notes}");
        }
    }
    let env = "PUSHER_APP_ID=12\nPUSHER_APP_KEY=k\nPUSHER_APP_SECRET=s\nPUSHER_HOST=ws.example\n\
               PUSHER_PORT=443\nPUSHER_SCHEME=https\n";
    let notes = carried(Former::Pusher, "", env).notes.concat();
    for part in [
        "PUSHER_HOST (ws.example)",
        "PUSHER_PORT (443)",
        "PUSHER_SCHEME (https)",
    ] {
        assert!(notes.contains(part), "{part}: {notes}");
    }
}

#[test]
fn of_a_pusher_app_that_is_not_whole_each_refusal_names_the_variable_and_its_line() {
    let form = "PUSHER_URL: \"***\" is not https://KEY:SECRET@HOST/apps/ID";
    for (env, expected) in [
        (
            "PUSHER_APP_ID=1\nPUSHER_APP_KEY=\nPUSHER_APP_SECRET=hunter2\n",
            ".env:2: PUSHER_APP_KEY: must not be empty: the app's key".to_owned(),
        ),
        (
            "PUSHER_APP_ID=1\nPUSHER_APP_KEY=k\n\nPUSHER_SECRET=''\n",
            ".env:4: PUSHER_SECRET: must not be empty: the app's secret".to_owned(),
        ),
        (
            "PUSHER_APP_ID=1\nPUSHER_APP_KEY=k\n",
            ".env:1: not valid configuration: it holds no PUSHER_APP_SECRET".to_owned(),
        ),
        (
            "PUSHER_URL=https://k@api.pusher.com/apps/1\n",
            format!(".env:1: {form}: it has no secret"),
        ),
        (
            "A=b\nPUSHER_URL=https://k:hunter2@api.pusher.com\n",
            format!(".env:2: {form}: it has no app"),
        ),
        (
            "PUSHER_URL=https://k:hunter2@api.pusher.com/apps/\n",
            format!(".env:1: {form}: it has no app"),
        ),
        (
            "PUSHER_URL=https://api.pusher.com/apps/1\n",
            format!(".env:1: {form}: it has no key"),
        ),
        (
            "PUSHER_URL=hunter2\n",
            format!(".env:1: {form}: it has no app"),
        ),
        (
            "PUSHER_URL=\n",
            ".env:1: PUSHER_URL: must not be empty: https://KEY:SECRET@HOST/apps/ID".to_owned(),
        ),
    ] {
        for (file, variables) in [("", env), (env, "")] {
            let error = try_carry(Former::Pusher, file, variables).expect_err(env);
            assert_eq!(error.replace("old:", ".env:"), expected, "{env}");
        }
    }
    // The second text's line is not the first one's.
    let second = "\n\nPUSHER_APP_SECRET=\n";
    let error = try_carry(Former::Pusher, "PUSHER_ID=1\nPUSHER_KEY=k\n", second).expect_err("none");
    assert!(error.starts_with(".env:3: PUSHER_APP_SECRET: "), "{error}");
    // What the URL lacks may stand beside it.
    let beside = "PUSHER_APP_ID=1\nPUSHER_URL=https://k:s@api.pusher.com\n";
    assert_eq!(carried(Former::Pusher, "", beside).apps, 1);
}

#[test]
fn a_file_or_the_variables_of_an_earlier_sockudo_keep_their_effects() {
    let app = "{\"id\": \"a\", \"key\": \"k\", \"secret\": \"s\"}";
    let file = format!(
        "{{\"port\": 7, \"cleanup\": {{\"batch_size\": 5}}, \"history\": {{}},
          \"app_manager\": {{\"array\": {{\"apps\": [{app}]}}}}}}"
    );
    let toml = "port = 7\n[history]\n[[app_manager.array.apps]]\nid = \"a\"\nkey = \"k\"\nsecret = \"s\"\n";
    for old in [&*file, toml] {
        let new = carried(Former::Sockudo, old, "REDIS_URL=redis://r:1\n");
        let config = loaded(&new).config;
        assert_eq!(config.port, 7);
        assert!(
            is_listed(&new, &["history", "not supported"]),
            "{:?}",
            left(&new)
        );
        assert_eq!(new.left.len(), 1, "{:?}", left(&new));
        let url = config
            .queue
            .redis
            .url_override
            .as_ref()
            .map(|it| it.expose());
        assert_eq!(url, Some("redis://r:1"));
        // As before: no limit where 2.x had none.
        assert_eq!(config.app_manager.apps[0].event_batch_max, u32::MAX);
        assert_eq!(config.app_manager.apps[0].max_client_events_per_second, 0);
    }
    // What 4 and 5 write for themselves; where webhooks wait is written whatever it is.
    let websocket = "{\"websocket\": {\"max_message_size\": 67108864, \"max_frame_size\": 16777216,
          \"max_backpressure\": 1048576}}";
    for (env, driver) in [
        ("", QueueDriver::Memory),
        ("REDIS_URL=redis://r:1\n", QueueDriver::Redis),
    ] {
        let new = carried(Former::Sockudo, websocket, env);
        assert!(new.left.is_empty(), "{:?}", left(&new));
        let config = loaded(&new).config;
        assert_eq!(config.websocket.max_payload_bytes, 524_288, "{}", new.file);
        assert_eq!(config.net.send_queue_bytes, 1_048_576, "{}", new.file);
        assert_eq!(config.queue.driver, driver, "{}", new.file);
        assert!(new.file.contains("[queue]"), "{}", new.file);
    }
    let conflict = "{\"port\": 7, \"net\": {\"send_queue_bytes\": 100000}}";
    let new = carried(Former::Sockudo, conflict, "");
    assert_eq!(new.left.len(), 1, "{:?}", left(&new));
    assert_eq!(loaded(&new).config.net.send_queue_bytes, 1 << 20);
    let env = "SOCKUDO_DEFAULT_APP_ID=a\nSOCKUDO_DEFAULT_APP_KEY=k\nSOCKUDO_DEFAULT_APP_SECRET=s\n";
    let new = carried(Former::Sockudo, "", env);
    let config = loaded(&new).config;
    assert_eq!(
        config.app_manager.apps[0].max_connections, 100,
        "{}",
        new.file
    );
}

fn migrate(folder: &Path, arguments: &[&str]) -> (Output, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_sockudo"))
        .arg("migrate-from")
        .args(arguments)
        .env_clear()
        .env("PORT", "1")
        .current_dir(folder)
        .output()
        .expect("the program was built");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, diagnostics) = (text(&output.stdout), text(&output.stderr));
    (output, out, diagnostics)
}

#[test]
fn the_program_writes_a_new_file_that_holds_and_never_over_another() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("env"), REVERB_APP).expect("ours");
    std::fs::write(path("soketi.json"), soketi::usual()).expect("ours");
    let run = |arguments: &[&str]| migrate(folder.path(), arguments);

    let (output, out, said) = run(&["reverb", "--env", "env", "--write", "new.toml"]);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(
        out.is_empty() && said.contains("new.toml is written"),
        "{said}"
    );
    assert!(!said.contains("hunter2"), "{said}");
    let mode = std::fs::metadata(path("new.toml"))
        .expect("written")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let check = Command::new(env!("CARGO_BIN_EXE_sockudo"))
        .args(["config", "check", "--config", "new.toml"])
        .env_clear()
        .current_dir(folder.path())
        .output()
        .expect("the program was built");
    assert_eq!(check.status.code(), Some(0), "{check:?}");

    let (output, _, said) = run(&["soketi", "soketi.json", "--write", "new.toml"]);
    assert_eq!(output.status.code(), Some(73), "{said}");
    assert!(said.contains("new.toml: cannot be written"), "{said}");
    let kept = std::fs::read_to_string(path("new.toml")).expect("still there");
    assert!(kept.contains("Reverb"), "{kept}");

    let (output, out, said) = run(&["soketi", "soketi.json"]);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("not carried: "), "{said}");
    assert!(
        out.contains("shop-secret") && !said.contains("shop-secret"),
        "{said}"
    );
    let (output, out, _) = run(&["soketi", "soketi.json", "--check"]);
    assert_eq!((output.status.code(), &*out), (Some(0), ""));
    let (output, _, said) = run(&["soketi", "none.json"]);
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(said.contains("none.json: cannot be read"), "{said}");
    assert_eq!(run(&["soketi"]).0.status.code(), Some(2));
}

#[test]
fn what_was_left_out_is_an_exit_status_only_where_that_is_asked_for() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("env"), REVERB_APP).expect("ours");
    std::fs::write(path("soketi.json"), soketi::usual()).expect("ours");
    let run = |arguments: &[&str]| migrate(folder.path(), arguments);
    let whole = run(&["reverb", "--env-file", "env"]).1;
    assert!(whole.contains("Laravel Reverb"), "{whole}");
    for (arguments, code) in [
        (&["soketi", "--config", "soketi.json"][..], 0),
        (&["soketi", "--config", "soketi.json", "--strict"], 1),
        (&["soketi", "soketi.json", "--strict"], 1),
        (&["soketi", "-c", "soketi.json", "--strict", "--check"], 1),
        (&["reverb", "--env-file", "env", "--strict"], 0),
        // One file, whichever way it is named.
        (&["soketi", "soketi.json", "--config", "soketi.json"], 2),
    ] {
        let (output, _, said) = run(arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    }
    for (at, flag) in ["-o", "--output", "--write"].into_iter().enumerate() {
        let name = format!("{at}.toml");
        let (output, out, said) = run(&["reverb", "--env-file", "env", flag, &name]);
        assert_eq!((output.status.code(), &*out), (Some(0), ""), "{said}");
        let written = std::fs::read_to_string(path(&name)).expect("written");
        assert_eq!(written, whole, "{flag}");
    }
    // What is left out of a file that is written is no fault either, and neither is it silent.
    let (output, _, said) = run(&["soketi", "soketi.json", "--strict", "-o", "strict.toml"]);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("not carried: ") && path("strict.toml").is_file());
}

#[test]
fn of_a_value_that_is_none_it_is_said_that_it_is_wrong() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let reverb = |app: &str| {
        format!(
            "<?php\nreturn ['servers' => ['reverb' => ['port' => 8080, 'max_request_size' => 10000]], \
             'apps' => ['apps' => [['app_id' => 'a', 'key' => 'k', 'secret' => 's', \
             'allowed_origins' => ['*'], {app}]]]];"
        )
    };
    let app = "\"appManager.array.apps\": [{\"id\": \"a\", \"key\": \"k\", \"secret\": \"s\"}]";
    let limit = |attempts: &str| {
        reverb(&format!(
            "'rate_limiting' => ['enabled' => true, 'max_attempts' => {attempts}, 'decay_seconds' => 1]"
        ))
    };
    for (former, text, wrong) in [
        ("soketi", "SOKETI_PORT=6001\n".to_owned(), 0),
        ("soketi", "SOKETI_PORT=abc\n".to_owned(), 1),
        (
            "soketi",
            "SOKETI_PORT=70000\nSOKETI_DEBUG=perhaps\n".to_owned(),
            2,
        ),
        ("soketi", format!("{{\"port\": 6001, {app}}}"), 0),
        ("soketi", format!("{{\"port\": \"abc\", {app}}}"), 1),
        ("soketi", format!("{{\"port\": [1], {app}}}"), 1),
        // It has no place here, and is none of ours to judge.
        ("soketi", format!("{{\"cluster.port\": \"abc\", {app}}}"), 0),
        ("sockudo", "PORT=6001\n".to_owned(), 0),
        ("sockudo", "PORT=abc\n".to_owned(), 1),
        (
            "sockudo",
            "{\"adapter\": {\"driver\": \"reddis\"}}".to_owned(),
            1,
        ),
        ("reverb", reverb("'max_message_size' => 10000"), 0),
        ("reverb", reverb("'max_message_size' => 'many'"), 1),
        ("reverb", reverb("'max_message_size' => many()"), 0),
        ("reverb", reverb("'activity_timeout' => 'long'"), 1),
        ("reverb", reverb("'max_connections' => 'many'"), 1),
        (
            "reverb",
            reverb("'accept_client_events_from' => 'friends'"),
            1,
        ),
        ("reverb", reverb("").replace("10000", "'much'"), 1),
        ("reverb", reverb("").replace("8080", "'http'"), 1),
        ("reverb", limit("10"), 0),
        ("reverb", limit("null"), 0),
        ("reverb", limit("'ten'"), 1),
        ("reverb", limit("ten()"), 0),
    ] {
        std::fs::write(folder.path().join("given"), &text).expect("ours");
        let (output, out, said) = migrate(folder.path(), &[former, "given"]);
        let lines = said.lines();
        let told = lines.filter(|line| {
            line.starts_with("not carried: ") && line.ends_with(" (its value is wrong)")
        });
        assert_eq!(told.count(), wrong, "{text}: {said}");
        assert_eq!(output.status.code(), Some(0), "{text}: {said}");
        assert_eq!(
            said.contains(&format!("({wrong} with a wrong value)")),
            wrong > 0,
            "{said}"
        );
        assert!(out.starts_with("# Carried over from "), "{text}: {out}");
    }
}
