//! What people bring from Reverb: each of its variables to its effect, and its file without PHP.

use sockudo::config::Config;
use sockudo::config::carry::Former;

use crate::migrate::{carried, is_listed, left, loaded};
use crate::soketi::Effect;

pub(crate) const REVERB_APP: &str =
    "REVERB_APP_ID=1\nREVERB_APP_KEY=k\nREVERB_APP_SECRET=hunter2\n";

/// Variables of Reverb: lines, effect, expected.
const REVERB: &[(&str, Effect, &str)] = &[
    ("", |c| c.host.join(","), "0.0.0.0"),
    ("", |c| c.port.to_string(), "8080"),
    ("", |c| c.activity_timeout_s.to_string(), "30"),
    ("", |c| c.websocket.max_payload_bytes.to_string(), "10000"),
    ("", |c| c.http_api.request_bytes_max.to_string(), "1048576"),
    ("", |c| format!("{:?}", c.adapter.driver), "Local"),
    ("", |c| c.app_manager.apps[0].id.clone(), "1"),
    ("", |c| c.app_manager.apps[0].key.clone(), "k"),
    (
        "",
        |c| c.app_manager.apps[0].secrets[0].expose().to_owned(),
        "hunter2",
    ),
    (
        "",
        |c| c.app_manager.apps[0].enable_client_messages.to_string(),
        "true",
    ),
    (
        "",
        |c| {
            c.app_manager.apps[0]
                .max_client_events_per_second
                .to_string()
        },
        "0",
    ),
    (
        "",
        |c| c.app_manager.apps[0].max_connections.to_string(),
        "0",
    ),
    (
        "",
        |c| c.app_manager.apps[0].allowed_origins.len().to_string(),
        "0",
    ),
    (
        "REVERB_SERVER_HOST=127.0.0.1",
        |c| c.host.join(","),
        "127.0.0.1",
    ),
    ("REVERB_SERVER_PORT=9000", |c| c.port.to_string(), "9000"),
    ("REVERB_SERVER_PATH=/ws", |c| c.path_prefix.clone(), "/ws"),
    (
        "REVERB_PORT=443\nREVERB_HOST=x.example",
        |c| format!("{} {}", c.port, c.host.join(",")),
        "8080 0.0.0.0",
    ),
    (
        "REVERB_MAX_REQUEST_SIZE=2_000_000",
        |c| c.http_api.request_bytes_max.to_string(),
        "10485760",
    ),
    (
        "REVERB_MAX_REQUEST_SIZE=2000000",
        |c| c.http_api.request_bytes_max.to_string(),
        "2097152",
    ),
    (
        "REVERB_APP_ACTIVITY_TIMEOUT=45",
        |c| c.activity_timeout_s.to_string(),
        "45",
    ),
    (
        "REVERB_APP_MAX_MESSAGE_SIZE=20480",
        |c| c.websocket.max_payload_bytes.to_string(),
        "20480",
    ),
    (
        "REVERB_APP_MAX_CONNECTIONS=50",
        |c| c.app_manager.apps[0].max_connections.to_string(),
        "50",
    ),
    (
        "REVERB_APP_ACCEPT_CLIENT_EVENTS_FROM=none",
        |c| c.app_manager.apps[0].enable_client_messages.to_string(),
        "false",
    ),
    (
        "REVERB_APP_ACCEPT_CLIENT_EVENTS_FROM=all",
        |c| c.app_manager.apps[0].enable_client_messages.to_string(),
        "true",
    ),
    (
        "REVERB_APP_RATE_LIMITING_ENABLED=true",
        |c| {
            c.app_manager.apps[0]
                .max_client_events_per_second
                .to_string()
        },
        "1",
    ),
    (
        "REVERB_APP_RATE_LIMITING_ENABLED=true\nREVERB_APP_RATE_LIMIT_MAX_ATTEMPTS=601\nREVERB_APP_RATE_LIMIT_DECAY_SECONDS=60",
        |c| {
            c.app_manager.apps[0]
                .max_client_events_per_second
                .to_string()
        },
        "11",
    ),
    (
        "REVERB_SCALING_ENABLED=true",
        |c| format!("{:?} {}", c.adapter.driver, c.adapter.redis.prefix),
        "Redis reverb",
    ),
    (
        "REVERB_SCALING_ENABLED=true\nREVERB_SCALING_CHANNEL=x",
        |c| c.adapter.redis.prefix.clone(),
        "x",
    ),
    (
        "REVERB_SCALING_ENABLED=true\nREDIS_HOST=r\nREDIS_PORT=7\nREDIS_PASSWORD=p\nREDIS_DB=2\nREDIS_USERNAME=u",
        |c| {
            let redis = &c.database.redis;
            let password = redis.password.as_ref().map(|it| it.expose().to_owned());
            format!(
                "{} {} {:?} {} {:?}",
                redis.host, redis.port, password, redis.db, redis.username
            )
        },
        "r 7 Some(\"p\") 2 Some(\"u\")",
    ),
    (
        "REVERB_SCALING_ENABLED=true\nREDIS_URL=redis://:p@r:1",
        |c| {
            c.adapter
                .redis
                .sub_url
                .as_ref()
                .map_or_else(String::new, |it| it.expose().to_owned())
        },
        "redis://:p@r:1",
    ),
];

#[test]
fn every_variable_of_reverb_has_its_effect_in_the_new_file() {
    for &(lines, effect, expected) in REVERB {
        let env = format!(
            "APP_NAME=\"a b\"\n{REVERB_APP}{lines}\nVITE_REVERB_APP_KEY=\"${{REVERB_APP_KEY}}\"\n"
        );
        let new = carried(Former::Reverb, "", &env);
        assert_eq!(
            effect(&loaded(&new).config),
            expected,
            "{lines}\n{}",
            new.file
        );
        let is_about_size = lines.contains("2_000_000");
        assert_eq!(
            new.left.is_empty(),
            !is_about_size,
            "{lines}: {:?}",
            left(&new)
        );
    }
}

#[test]
fn what_reverb_has_and_this_server_has_not_is_listed_with_a_way_out() {
    for (lines, parts) in [
        (
            "REVERB_PULSE_INGEST_INTERVAL=5",
            &[".env:4: REVERB_PULSE_INGEST_INTERVAL = 5", "sockudo top"][..],
        ),
        (
            "REVERB_TELESCOPE_INGEST_INTERVAL=5",
            &["REVERB_TELESCOPE_INGEST_INTERVAL = 5", "log"],
        ),
        (
            "REVERB_APP_PING_INTERVAL=5",
            &["REVERB_APP_PING_INTERVAL = 5", "activity_timeout"],
        ),
        (
            "REVERB_APP_ACCEPT_CLIENT_EVENTS_FROM=some",
            &["REVERB_APP_ACCEPT_CLIENT_EVENTS_FROM = some", "none"],
        ),
        (
            "REVERB_APP_RATE_LIMITING_ENABLED=true\nREVERB_APP_RATE_LIMIT_TERMINATE=true",
            &["REVERB_APP_RATE_LIMIT_TERMINATE = true", "4301"],
        ),
        (
            "REVERB_SCALING_ENABLED=true\nREDIS_TIMEOUT=5",
            &["REDIS_TIMEOUT = 5"],
        ),
        ("REVERB_SERVER_PORT=abc", &["port", "\"abc\" is not"]),
        (
            "REVERB_SERVER=swoole",
            &["servers.swoole", "no such server"],
        ),
        (
            "REVERB_APPS_COUNT=5",
            &[".env:4: REVERB_APPS_COUNT = 5", "config/reverb.php"],
        ),
        ("REVERB_PEPPER=hunter3", &[".env:4: REVERB_PEPPER: "]),
        (
            "REVERB_WEBHOOK_SECRET=hunter3",
            &[".env:4: REVERB_WEBHOOK_SECRET: "],
        ),
    ] {
        let new = carried(Former::Reverb, "", &format!("{REVERB_APP}{lines}\n"));
        loaded(&new);
        assert!(is_listed(&new, parts), "{lines}: {:?}", left(&new));
        assert_eq!(
            new.left.len(),
            if lines.contains("swoole") { 2 } else { 1 },
            "{lines}: {:?}",
            left(&new)
        );
        assert!(!left(&new).concat().contains("hunter"), "{:?}", left(&new));
    }
}

const REVERB_FILE: &str = include_str!("files/reverb.php");

#[test]
fn a_file_of_reverb_with_several_apps_is_read_without_php() {
    let env = "REVERB_APP_KEY=k1\nREVERB_APP_SECRET=hunter2\nCHAT_SECRET=hunter3\nREDIS_URL=redis://r:1\n";
    let new = carried(Former::Reverb, REVERB_FILE, env);
    let config: Config = loaded(&new).config;
    let apps = &config.app_manager.apps;
    let ids: Vec<&str> = apps.iter().map(|app| &*app.id).collect();
    assert_eq!(ids, ["shop", "chat", "closed"], "{}", new.file);
    assert_eq!(
        apps[1].allowed_origins,
        ["chat.example.com", "*.chat.example.com"]
    );
    assert_eq!((apps[0].max_connections, apps[1].max_connections), (0, 500));
    assert!(apps[0].enabled && apps[1].enabled && !apps[2].enabled);
    assert_eq!(config.activity_timeout_s, 30);
    assert_eq!(config.websocket.max_payload_bytes, 50_000);
    let url = config.adapter.redis.pub_url.as_ref().map(|it| it.expose());
    assert_eq!(url, Some("redis://r:1"));
    for parts in [
        &["servers.reverb.options.tls", "ssl.cert_path"][..],
        &["servers.other", "for each"],
        &["servers.reverb.magic = 7", "not a name of Reverb's"],
        &["apps[2].allowed_origins", "only PHP", "disabled"],
        &["apps[3].secret", "GONE_SECRET is not set"],
        &["apps.apps[].activity_timeout = 60", "30 is written"],
    ] {
        assert!(is_listed(&new, parts), "{parts:?}: {:#?}", left(&new));
    }
    assert!(!left(&new).concat().contains("hunter"), "{:?}", left(&new));
}
