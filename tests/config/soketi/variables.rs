//! Variables of Soketi: each has its effect, or says that it has none; the app that they make.

use std::collections::BTreeSet;

use sockudo::config::keys::{Meaning, SERVER};
use sockudo::config::settings::Setting;
use sockudo::config::{Level, Origin};

use super::{Effect, app, secret};
use crate::env;

/// Variables after `SOKETI_`: value, effect, expected.
pub(in super::super) const VARIABLES: &[(&str, &str, Effect, &str)] = &[
    (
        "ADAPTER_DRIVER",
        "local",
        |c| format!("{:?}", c.adapter.driver),
        "Local",
    ),
    (
        "ADAPTER_REDIS_PREFIX",
        "p",
        |c| c.adapter.redis.prefix.clone(),
        "p",
    ),
    (
        "ADAPTER_REDIS_REQUESTS_TIMEOUT",
        "7",
        |c| c.adapter.redis.requests_timeout_ms.to_string(),
        "7",
    ),
    (
        "ADAPTER_REDIS_PUB_OPTIONS",
        r#"{"host":"h"}"#,
        |c| secret(&c.adapter.redis.pub_url),
        "redis://h:6379",
    ),
    (
        "ADAPTER_REDIS_SUB_OPTIONS",
        r#"{"host":"h"}"#,
        |c| secret(&c.adapter.redis.sub_url),
        "redis://h:6379",
    ),
    (
        "ADAPTER_NATS_PREFIX",
        "p",
        |c| c.adapter.nats.prefix.clone(),
        "p",
    ),
    (
        "ADAPTER_NATS_SERVERS",
        r#"["a:1","b:2"]"#,
        |c| c.adapter.nats.servers[1].expose().to_owned(),
        "b:2",
    ),
    (
        "ADAPTER_NATS_USER",
        "u",
        |c| format!("{:?}", c.adapter.nats.username),
        "Some(\"u\")",
    ),
    (
        "ADAPTER_NATS_PASSWORD",
        "p",
        |c| secret(&c.adapter.nats.password),
        "p",
    ),
    (
        "ADAPTER_NATS_TOKEN",
        "t",
        |c| secret(&c.adapter.nats.token),
        "t",
    ),
    (
        "ADAPTER_NATS_TIMEOUT",
        "7",
        |c| c.adapter.nats.connection_timeout_ms.to_string(),
        "7",
    ),
    (
        "ADAPTER_NATS_REQUESTS_TIMEOUT",
        "7",
        |c| c.adapter.nats.request_timeout_ms.to_string(),
        "7",
    ),
    (
        "APP_MANAGER_DRIVER",
        "array",
        |c| format!("{:?}", c.app_manager.driver),
        "Memory",
    ),
    (
        "APP_MANAGER_CACHE_ENABLED",
        "false",
        |c| c.app_manager.cache_enabled.to_string(),
        "false",
    ),
    (
        "APP_MANAGER_CACHE_TTL",
        "-1",
        |c| c.app_manager.cache_ttl_s.to_string(),
        "86400",
    ),
    (
        "APP_MANAGER_DYNAMODB_TABLE",
        "apps",
        |c| {
            format!(
                "{} {:?}",
                c.database.dynamodb.table_name, c.database.dynamodb.layout
            )
        },
        "apps Soketi",
    ),
    (
        "APP_MANAGER_DYNAMODB_REGION",
        "eu",
        |c| c.database.dynamodb.region.clone(),
        "eu",
    ),
    (
        "APP_MANAGER_DYNAMODB_ENDPOINT",
        "http://h",
        |c| format!("{:?}", c.database.dynamodb.endpoint_url),
        "Some(\"http://h\")",
    ),
    (
        "APP_MANAGER_MYSQL_TABLE",
        "t",
        |c| c.database.mysql.table_name.clone(),
        "t",
    ),
    (
        "APP_MANAGER_POSTGRES_TABLE",
        "t",
        |c| c.database.postgres.table_name.clone(),
        "t",
    ),
    (
        "CHANNEL_LIMITS_MAX_NAME_LENGTH",
        "50",
        |c| app(c).channel_name_bytes_max.to_string(),
        "50",
    ),
    (
        "CHANNEL_CACHE_TTL",
        "60",
        |c| c.channel_limits.cache_ttl_s.to_string(),
        "60",
    ),
    (
        "CACHE_DRIVER",
        "none",
        |c| format!("{:?}", c.cache.driver),
        "None",
    ),
    (
        "CACHE_REDIS_OPTIONS",
        r#"{"host":"h"}"#,
        |c| secret(&c.cache.redis.url_override),
        "redis://h:6379",
    ),
    ("DEBUG", "1", |c| c.debug.to_string(), "true"),
    (
        "DB_POOLING_ENABLED",
        "false",
        |c| c.database_pooling.enabled.to_string(),
        "false",
    ),
    (
        "DB_POOLING_MIN",
        "1",
        |c| c.database_pooling.min.to_string(),
        "1",
    ),
    (
        "DB_POOLING_MAX",
        "7",
        |c| c.database_pooling.max.to_string(),
        "7",
    ),
    ("DB_MYSQL_HOST", "h", |c| c.database.mysql.host.clone(), "h"),
    (
        "DB_MYSQL_PORT",
        "1",
        |c| c.database.mysql.port.to_string(),
        "1",
    ),
    (
        "DB_MYSQL_USERNAME",
        "u",
        |c| c.database.mysql.username.clone(),
        "u",
    ),
    (
        "DB_MYSQL_PASSWORD",
        "p",
        |c| c.database.mysql.password.expose().to_owned(),
        "p",
    ),
    (
        "DB_MYSQL_DATABASE",
        "d",
        |c| c.database.mysql.database.clone(),
        "d",
    ),
    (
        "DB_POSTGRES_HOST",
        "h",
        |c| c.database.postgres.host.clone(),
        "h",
    ),
    (
        "DB_POSTGRES_PORT",
        "1",
        |c| c.database.postgres.port.to_string(),
        "1",
    ),
    (
        "DB_POSTGRES_USERNAME",
        "u",
        |c| c.database.postgres.username.clone(),
        "u",
    ),
    (
        "DB_POSTGRES_PASSWORD",
        "p",
        |c| c.database.postgres.password.expose().to_owned(),
        "p",
    ),
    (
        "DB_POSTGRES_DATABASE",
        "d",
        |c| c.database.postgres.database.clone(),
        "d",
    ),
    ("DB_REDIS_HOST", "h", |c| c.database.redis.host.clone(), "h"),
    (
        "DB_REDIS_PORT",
        "1",
        |c| c.database.redis.port.to_string(),
        "1",
    ),
    ("DB_REDIS_DB", "2", |c| c.database.redis.db.to_string(), "2"),
    (
        "DB_REDIS_USERNAME",
        "u",
        |c| format!("{:?}", c.database.redis.username),
        "Some(\"u\")",
    ),
    (
        "DB_REDIS_PASSWORD",
        "p",
        |c| secret(&c.database.redis.password),
        "p",
    ),
    (
        "DB_REDIS_KEY_PREFIX",
        "k:",
        |c| c.database.redis.key_prefix.clone(),
        "k:",
    ),
    (
        "DB_REDIS_SENTINELS",
        r#"[{"host":"s","port":1}]"#,
        |c| c.database.redis.sentinels[0].host.clone(),
        "s",
    ),
    (
        "DB_REDIS_SENTINEL_PASSWORD",
        "p",
        |c| secret(&c.database.redis.sentinel_password),
        "p",
    ),
    (
        "DB_REDIS_CLUSTER_NODES",
        r#"[{"host":"s","port":1}]"#,
        |c| c.database.redis.cluster_nodes[0].host.clone(),
        "s",
    ),
    (
        "DB_REDIS_INSTANCE_NAME",
        "m",
        |c| c.database.redis.name.clone(),
        "m",
    ),
    (
        "EVENT_MAX_BATCH_SIZE",
        "5",
        |c| app(c).event_batch_max.to_string(),
        "5",
    ),
    (
        "EVENT_MAX_CHANNELS_AT_ONCE",
        "5",
        |c| app(c).event_channels_max.to_string(),
        "5",
    ),
    (
        "EVENT_MAX_NAME_LENGTH",
        "5",
        |c| app(c).event_name_bytes_max.to_string(),
        "5",
    ),
    (
        "EVENT_MAX_SIZE_IN_KB",
        "0.5",
        |c| app(c).event_payload_bytes_max.to_string(),
        "512",
    ),
    ("HOST", "127.0.0.2", |c| c.host.join(","), "127.0.0.2"),
    ("PORT", "7001", |c| c.port.to_string(), "7001"),
    ("PATH_PREFIX", "/x", |c| c.path_prefix.clone(), "/x"),
    ("PATH_PREFIX", "", |c| c.path_prefix.clone(), ""),
    (
        "HTTP_ACCEPT_TRAFFIC_MEMORY_THRESHOLD",
        "85",
        |c| c.http_api.memory_threshold.to_string(),
        "0.85",
    ),
    (
        "METRICS_ENABLED",
        "false",
        |c| c.metrics.enabled.to_string(),
        "false",
    ),
    (
        "METRICS_DRIVER",
        "prometheus",
        |c| c.metrics.enabled.to_string(),
        "true",
    ),
    (
        "METRICS_HOST",
        "127.0.0.2",
        |c| c.metrics.host.clone(),
        "127.0.0.2",
    ),
    (
        "METRICS_PROMETHEUS_PREFIX",
        "soketi_",
        |c| c.metrics.prefix.clone(),
        "soketi_",
    ),
    (
        "METRICS_SERVER_PORT",
        "9999",
        |c| c.metrics.port.to_string(),
        "9999",
    ),
    ("MODE", "full", |c| c.mode.clone(), "production"),
    (
        "PRESENCE_MAX_MEMBERS",
        "5",
        |c| app(c).max_presence_members_per_channel.to_string(),
        "5",
    ),
    (
        "PRESENCE_MAX_MEMBER_SIZE",
        "2",
        |c| app(c).presence_member_bytes_max.to_string(),
        "2048",
    ),
    (
        "QUEUE_DRIVER",
        "sync",
        |c| format!("{:?}", c.queue.driver),
        "Memory",
    ),
    (
        "QUEUE_REDIS_CONCURRENCY",
        "1",
        |c| c.queue.redis.concurrency.to_string(),
        "1",
    ),
    (
        "QUEUE_REDIS_OPTIONS",
        r#"{"host":"h"}"#,
        |c| secret(&c.queue.redis.url_override),
        "redis://h:6379",
    ),
    (
        "QUEUE_SQS_REGION",
        "eu",
        |c| c.queue.sqs.region.clone(),
        "eu",
    ),
    (
        "QUEUE_SQS_URL",
        "https://h/1/webhooks.fifo",
        |c| format!("{:?}", c.queue.sqs.queue_url_prefix),
        "Some(\"https://h/1/\")",
    ),
    (
        "QUEUE_SQS_ENDPOINT",
        "http://h",
        |c| format!("{:?}", c.queue.sqs.endpoint_url),
        "Some(\"http://h\")",
    ),
    (
        "QUEUE_SQS_BATCH_SIZE",
        "3",
        |c| c.queue.sqs.max_messages.to_string(),
        "3",
    ),
    (
        "QUEUE_SQS_POLLING_WAIT_TIME_MS",
        "1",
        |c| c.queue.sqs.wait_time_s.to_string(),
        "1",
    ),
    (
        "RATE_LIMITER_DRIVER",
        "local",
        |c| format!("{:?}", c.rate_limiter.driver),
        "Memory",
    ),
    (
        "RATE_LIMITER_REDIS_OPTIONS",
        r#"{"host":"h"}"#,
        |c| secret(&c.rate_limiter.redis.url_override),
        "redis://h:6379",
    ),
    (
        "SHUTDOWN_GRACE_PERIOD",
        "3000",
        |c| c.drain.deadline_s.to_string(),
        "3",
    ),
    ("SSL_PASS", "p", |c| secret(&c.ssl.passphrase), "p"),
    (
        "SSL_CA",
        "/ca",
        |c| format!("{:?}", c.ssl.ca_path),
        "Some(\"/ca\")",
    ),
    (
        "USER_AUTHENTICATION_TIMEOUT",
        "30000",
        |c| c.user_authentication_timeout_s.to_string(),
        "30",
    ),
    (
        "WEBHOOKS_BATCHING",
        "false",
        |c| c.webhooks.batching_enabled.to_string(),
        "false",
    ),
    (
        "WEBHOOKS_BATCHING_DURATION",
        "70",
        |c| c.webhooks.batching_ms.to_string(),
        "70",
    ),
    (
        "DEFAULT_APP_ENABLED",
        "false",
        |c| app(c).enabled.to_string(),
        "false",
    ),
    (
        "DEFAULT_APP_MAX_CONNS",
        "-1",
        |c| app(c).max_connections.to_string(),
        "0",
    ),
    (
        "DEFAULT_APP_MAX_CONNS",
        "50",
        |c| app(c).max_connections.to_string(),
        "50",
    ),
    (
        "DEFAULT_APP_ENABLE_CLIENT_MESSAGES",
        "true",
        |c| app(c).enable_client_messages.to_string(),
        "true",
    ),
    (
        "DEFAULT_APP_MAX_CLIENT_EVENTS_PER_SEC",
        "-1",
        |c| app(c).max_client_events_per_second.to_string(),
        "0",
    ),
    (
        "DEFAULT_APP_MAX_BACKEND_EVENTS_PER_SEC",
        "9",
        |c| app(c).max_backend_events_per_second.to_string(),
        "9",
    ),
    (
        "DEFAULT_APP_MAX_READ_REQ_PER_SEC",
        "-1",
        |c| app(c).max_read_requests_per_second.to_string(),
        "0",
    ),
    (
        "DEFAULT_APP_USER_AUTHENTICATION",
        "true",
        |c| app(c).enable_user_authentication.to_string(),
        "true",
    ),
    (
        "DEFAULT_APP_WEBHOOKS",
        r#"[{"url":"https://h","event_types":["channel_occupied"]}]"#,
        |c| app(c).webhooks.len().to_string(),
        "1",
    ),
];

/// Variables after `SOKETI_` whose effect waits for a later release, or is what happens anyway:
/// value, key, what it is set to.
const SETTINGS: &[(&str, &str, &str, Setting)] = &[
    (
        "ADAPTER_REDIS_CLUSTER_MODE",
        "true",
        "adapter.redis.cluster_mode",
        Setting::Flag(true),
    ),
    (
        "ADAPTER_NATS_NODES_NUMBER",
        "3",
        "adapter.nats.nodes_number",
        Setting::Whole(3),
    ),
    (
        "CACHE_REDIS_CLUSTER_MODE",
        "true",
        "cache.redis.cluster_mode",
        Setting::Flag(true),
    ),
    (
        "QUEUE_REDIS_CLUSTER_MODE",
        "true",
        "queue.redis.cluster_mode",
        Setting::Flag(true),
    ),
    (
        "RATE_LIMITER_REDIS_CLUSTER_MODE",
        "true",
        "rate_limiter.redis.cluster_mode",
        Setting::Flag(true),
    ),
];

pub(in super::super) const SOKETI_APP: [(&str, &str); 3] = [
    ("SOKETI_DEFAULT_APP_ID", "shop"),
    ("SOKETI_DEFAULT_APP_KEY", "k"),
    ("SOKETI_DEFAULT_APP_SECRET", "s"),
];

#[test]
fn every_variable_of_soketi_has_its_effect() {
    for &(name, value, effect, expected) in VARIABLES {
        let name = format!("SOKETI_{name}");
        let variables = [&SOKETI_APP[..], &[(&*name, value)]].concat();
        let loaded = env(&variables).loaded();
        assert_eq!(effect(&loaded.config), expected, "{name}={value}");
        let in_vain = |n: &&sockudo::config::Notice| n.text.contains("no such variable");
        assert_eq!(loaded.notices.iter().find(in_vain), None, "{name}");
        if value.is_empty() || value == "full" {
            continue; // Says nothing.
        }
        // Where the effect is that of the default, this alone tells.
        let expected = Origin::Env {
            name: (&*name).into(),
        };
        for row in SERVER.soketi {
            if row.variable().as_ref() != Some(&name) {
                continue;
            }
            if let Meaning::Key { to, .. } = row.meaning {
                assert_eq!(*loaded.settings.origin(to), expected, "{name} sets {to}");
            }
        }
    }
    for (name, value, key, expected) in SETTINGS {
        let name = format!("SOKETI_{name}");
        let variables = [&SOKETI_APP[..], &[(&*name, *value)]].concat();
        let settings = env(&variables).loaded().settings;
        assert_eq!(settings.setting(key), expected, "{name}");
        assert_eq!(
            *settings.origin(key),
            Origin::Env {
                name: (&*name).into()
            }
        );
    }
    let names = VARIABLES.iter().map(|row| row.0);
    let names = names.chain(SETTINGS.iter().map(|row| row.0));
    let shown: BTreeSet<String> = names.map(|name| format!("SOKETI_{name}")).collect();
    for row in SERVER.soketi {
        let Some(name) = row.variable() else { continue };
        match row.meaning {
            // Its effect is a refusal: see below.
            Meaning::Key { .. } if name == "SOKETI_SSL_CERT" || name == "SOKETI_SSL_KEY" => {}
            Meaning::Key { .. } => assert!(shown.contains(&name), "{name} has a case"),
            Meaning::NoEffect(why) => {
                let variables = [&SOKETI_APP[..], &[(&*name, "1")]].concat();
                let notices = env(&variables).loaded().notices;
                let words = format!("env {name}: has no effect: {why}");
                assert!(
                    notices.iter().any(|n| n.to_string() == words),
                    "{words}: {notices:?}"
                );
            }
        }
    }
    let tls = [&SOKETI_APP[..], &[("SOKETI_SSL_CERT", "/c.pem")]].concat();
    assert!(env(&tls).errors()[0].contains("ssl.key_path: is empty, and ssl.enabled = true"));
    let bus = [&SOKETI_APP[..], &[("SOKETI_ADAPTER_DRIVER", "cluster")]].concat();
    assert!(env(&bus).errors()[0].contains("by UDP"));
    let misspelt = [&SOKETI_APP[..], &[("SOKETI_DEFAULT_APP_MAX_CONN", "1")]].concat();
    let notices = env(&misspelt).loaded().notices;
    let hint = "no such variable; did you mean SOKETI_DEFAULT_APP_MAX_CONNS?";
    assert!(notices.iter().any(|n| n.text == hint), "{notices:?}");
}

#[test]
fn variables_of_soketi_make_an_app_with_soketis_limits_and_rank_below_ours() {
    let loaded = env(&SOKETI_APP).loaded();
    assert!(!loaded.config.demo);
    assert_eq!(loaded.config.host, ["0.0.0.0"]);
    let [shop] = &loaded.config.app_manager.apps[..] else {
        panic!("one app")
    };
    assert_eq!(
        (&*shop.id, &*shop.key, shop.secrets[0].expose()),
        ("shop", "k", "s")
    );
    assert_eq!(
        (shop.max_connections, shop.event_payload_bytes_max),
        (0, 102_400)
    );
    let ours = [
        &SOKETI_APP[..],
        &[
            ("SOCKUDO_DEFAULT_APP_KEY", "ours"),
            ("PORT", "1"),
            ("SOKETI_PORT", "2"),
        ],
    ]
    .concat();
    let config = env(&ours).loaded().config;
    assert_eq!((&*app(&config).key, config.port), ("ours", 1));
    let errors = env(&SOKETI_APP[..2]).errors();
    assert_eq!(
        errors,
        ["env SOKETI_DEFAULT_APP_ID: app_manager.array.apps[env].secret: is required"]
    );
    let missing = env(&[("SOKETI_PORT", "6002"), ("SOKETI_DEBUG", "0")]).loaded();
    assert!(missing.config.demo);
    let words = "SOKETI_DEBUG, SOKETI_PORT set, which are understood, but no app";
    assert!(
        missing
            .notices
            .iter()
            .any(|n| n.text.starts_with(words) && n.level == Level::Warning),
        "{:?}",
        missing.notices
    );
    let public = [
        ("SOKETI_DEFAULT_APP_ID", "app-id"),
        ("SOKETI_DEFAULT_APP_KEY", "app-key"),
        ("SOKETI_DEFAULT_APP_SECRET", "app-secret"),
    ];
    assert!(env(&public).errors()[0].contains("pass --allow-demo-app"));
}

#[test]
fn addresses_that_kubernetes_puts_into_the_environment_are_no_ports() {
    for name in [
        "SOKETI",
        "SOCKUDO",
        "SOCKUDO_METRICS",
        "SOKETI_METRICS_SERVER",
        "SOCKUDO_DATABASE_MYSQL",
        // Services that are called as a part of ours is.
        "METRICS",
        "DATABASE_REDIS",
        "DATABASE_MYSQL",
        "DATABASE_POSTGRES",
        "CLUSTER",
    ] {
        let port = format!("{name}_PORT");
        let links = [
            (port.clone(), "tcp://10.0.0.1:6001"),
            (format!("{name}_SERVICE_HOST"), "10.0.0.1"),
            (format!("{name}_SERVICE_PORT_WS"), "6001"),
            (format!("{name}_PORT_6001_TCP_ADDR"), "10.0.0.1"),
        ];
        let links: Vec<(&str, &str)> = links.iter().map(|(n, value)| (&**n, *value)).collect();
        let variables = [&SOKETI_APP[..], &links].concat();
        let loaded = env(&variables).loaded();
        assert_eq!(
            (loaded.config.port, loaded.config.metrics.port),
            (6001, 9601)
        );
        let said: Vec<String> = loaded
            .notices
            .iter()
            .filter(|n| n.level == Level::Warning)
            .map(ToString::to_string)
            .collect();
        let words = format!(
            "env {port}: is Kubernetes' word for a service of that name, not a port: ignored"
        );
        assert_eq!(said, [words]);
    }
}

#[test]
fn only_what_kubernetes_writes_is_passed_over_and_only_names_of_ours_are_told() {
    // Nothing of ours is called so.
    for (name, value) in [
        ("NGINX_PORT", "tcp://10.0.0.1:80"),
        ("REDIS_PORT", "udp://10.0.0.1:6379"),
    ] {
        let variables = [&SOKETI_APP[..], &[(name, value)]].concat();
        let notices = env(&variables).loaded().notices;
        let said: Vec<String> = notices.iter().map(ToString::to_string).collect();
        assert!(!said.concat().contains(name), "{said:?}");
    }
    for (name, value) in [
        ("METRICS_PORT", "udp://10.0.0.1:9601"),
        ("DATABASE_REDIS_PORT", "sctp://10.0.0.1:6379"),
    ] {
        let variables = [&SOKETI_APP[..], &[(name, value)]].concat();
        let notices = env(&variables).loaded().notices;
        let said: Vec<String> = notices.iter().map(ToString::to_string).collect();
        let words = format!("env {name}: is Kubernetes' word for a service");
        assert!(said.iter().any(|it| it.starts_with(&words)), "{said:?}");
    }
    // A service cannot be called nothing, and its address is no web page.
    for (name, value) in [
        ("PORT", "tcp://10.0.0.1:6001"),
        ("METRICS_PORT", "http://10.0.0.1:9601"),
        ("METRICS_PORT", "10.0.0.1:9601"),
        ("METRICS_PORT", "tcp:9601"),
        ("METRICS_HOST", "tcp://10.0.0.1:9601"),
    ] {
        let variables = [&SOKETI_APP[..], &[(name, value)]].concat();
        let errors = env(&variables).errors();
        assert!(errors.concat().contains(name), "{name}={value}: {errors:?}");
    }
}
