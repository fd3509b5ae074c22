//! Which source wins: files, variables and what they are translated to, the env file, a reload.

use std::collections::BTreeMap;

use sockudo::config::keys::{APP, Key};
use sockudo::config::settings::Setting;
use sockudo::config::{Secret, Sources, load};

use crate::{Given, env, file, in_an_app, nested};

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
        (
            &[("SOCKUDO_ADMIN_SOCKET", "")],
            "admin.socket",
            Setting::Null,
        ),
        (
            &[("SOCKUDO_ADMIN_SOCKET", "none")],
            "admin.socket",
            text(""),
        ),
        (&[("LOG_LEVEL", "warning")], "logging.level", text("warn")),
        (&[("LOG_LEVEL", "Notice")], "logging.level", text("info")),
        (&[("LOG_LEVEL", "critical")], "logging.level", text("error")),
        (&[("LOG_LEVEL", "verbose")], "logging.level", text("debug")),
        (
            &[("LOG_LEVEL", "warning,sockudo=debug")],
            "logging.level",
            text("warn,sockudo=debug"),
        ),
        (
            &[("LOG_LEVEL", " notice, sockudo::bridge = Critical ,shards,")],
            "logging.level",
            text("info,sockudo::bridge=error,shards"),
        ),
        (
            &[("RUST_LOG", "INFO,[turn{shard=1}]=verbose,[turn{shard=2}]")],
            "logging.level",
            text("INFO,[turn{shard=1}]=debug,[turn{shard=2}]"),
        ),
        (
            &[("RUST_LOG", "info,hyper=warn,shards")],
            "logging.level",
            text("info,hyper=warn,shards"),
        ),
        (
            &[("RUST_LOG", ""), ("LOG_LEVEL", "warn")],
            "logging.level",
            text("warn"),
        ),
        (&[("LOG_LEVEL", "")], "logging.level", text("info")),
        (
            &[("DEBUG", ""), ("DEBUG_MODE", "true")],
            "debug",
            Setting::Flag(true),
        ),
    ] {
        let loaded = env(variables).loaded();
        assert_eq!(loaded.settings.setting(path), &expected, "{variables:?}");
    }
}

#[test]
fn bounds_of_what_a_peer_may_cost_have_defaults_and_follow_one_another() {
    let config = file(&in_an_app("enabled", "true")).loaded().config;
    let app = &config.app_manager.apps[0];
    assert_eq!(app.subscriptions_per_connection_max, 4000);
    let net = &config.net;
    assert_eq!(
        (net.send_queue_bytes, net.burst_queue_bytes),
        (1 << 20, 8 << 20)
    );
    assert_eq!((net.subscribe_rate_per_s, net.subscribe_burst), (500, 1000));
    assert_eq!(
        (net.input_held_bytes, net.body_rate_min_bytes_per_s),
        (64 << 20, 16 << 10)
    );
    assert_eq!(config.cache.memory.max_bytes, 256 << 20);

    let raised = file("{\"net\": {\"send_queue_bytes\": 33554432}}").loaded();
    assert_eq!(raised.config.net.burst_queue_bytes, 32 << 20);
    let lifted = file(&in_an_app("max_subscriptions_per_connection", "-1")).loaded();
    let app = &lifted.config.app_manager.apps[0];
    assert_eq!(app.subscriptions_per_connection_max, 0);
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
fn a_reload_names_the_keys_that_need_a_restart() {
    let first = file("{\"port\": 1, \"activity_timeout\": 10}").loaded();
    let next = file("{\"port\": 2, \"activity_timeout\": 20, \"net\": {\"backlog\": 5}}").loaded();
    assert_eq!(
        first.keys_that_need_a_restart(&next),
        ["port", "net.backlog"]
    );
    let running = first.reloaded(next).config;
    assert_eq!((running.port, running.net.backlog), (1, 4096));
    assert_eq!(running.activity_timeout_s, 20);
}

/// What a variable of section 8 comes to.
enum Comes {
    To(&'static str, Setting),
    /// A warning or note with these words.
    Told(&'static str),
    /// Nothing at all is said.
    Silent,
}

#[test]
fn every_variable_that_was_ever_documented_has_its_effect_or_is_told_or_is_composes() {
    use Comes::{Silent, To, Told};
    let url = |text: &str| Setting::Url(Secret::new(text));
    let urls = |text: &str| Setting::Urls(vec![Secret::new(text)]);
    let rows = [
        // Read by Sockudo 2.9 under names of their own.
        (
            "REDIS_URL",
            "redis://h",
            To("adapter.redis.redis_pub_options.url", url("redis://h")),
        ),
        (
            "REDIS_URL",
            "redis://h",
            To("adapter.redis.redis_sub_options.url", url("redis://h")),
        ),
        (
            "REDIS_URL",
            "redis://h",
            To("cache.redis.url_override", url("redis://h")),
        ),
        (
            "REDIS_URL",
            "redis://h",
            To("queue.redis.url_override", url("redis://h")),
        ),
        (
            "REDIS_URL",
            "redis://h",
            To("rate_limiter.redis.url_override", url("redis://h")),
        ),
        (
            "REDIS_URL",
            "redis://h",
            To("adapter.cluster.nodes", Setting::Urls(Vec::new())),
        ),
        (
            "REDIS_CLUSTER_NODES",
            "redis://h:1",
            To("adapter.cluster.nodes", urls("redis://h:1")),
        ),
        (
            "REDIS_CLUSTER_NODES",
            "redis://h:1",
            To("queue.redis_cluster.nodes", urls("redis://h:1")),
        ),
        (
            "DATABASE_CONNECTION_POOL_SIZE",
            "3",
            To("database.mysql.connection_pool_size", Setting::Whole(3)),
        ),
        (
            "DATABASE_CONNECTION_POOL_SIZE",
            "3",
            To("database.postgres.connection_pool_size", Setting::Whole(3)),
        ),
        (
            "CACHE_TTL_SECONDS",
            "9",
            To("app_manager.cache.ttl", Setting::Whole(9)),
        ),
        (
            "CACHE_TTL_SECONDS",
            "9",
            To("cache.memory.ttl", Setting::Whole(9)),
        ),
        ("DEBUG", "true", To("debug", Setting::Flag(true))),
        ("DEBUG_MODE", "true", To("debug", Setting::Flag(true))),
        ("ENVIRONMENT", "staging", To("mode", text("staging"))),
        ("RUST_LOG", "warn", To("logging.level", text("warn"))),
        (
            "SOCKUDO_LOG_PROD",
            "warn",
            To("logging.level", text("warn")),
        ),
        (
            "SOCKUDO_LOG_DEBUG",
            "warn",
            To("logging.level", text("info")),
        ),
        (
            "LOG_OUTPUT_FORMAT",
            "json",
            To("logging.format", text("json")),
        ),
        // Documented, and read by no version that we follow.
        (
            "DATABASE_REDIS_USERNAME",
            "u",
            To("database.redis.username", text("u")),
        ),
        (
            "DATABASE_REDIS_CLUSTER_NODES",
            "redis://h:1",
            To("adapter.cluster.nodes", urls("redis://h:1")),
        ),
        (
            "DATABASE_REDIS_CLUSTER_NODES",
            "redis://h:1",
            To("queue.redis_cluster.nodes", urls("redis://h:1")),
        ),
        (
            "DATABASE_REDIS_CLUSTER_USERNAME",
            "u",
            To("database.redis.cluster.username", text("u")),
        ),
        (
            "DATABASE_REDIS_CLUSTER_PASSWORD",
            "p",
            To(
                "database.redis.cluster.password",
                Setting::Secret(Secret::new("p")),
            ),
        ),
        (
            "DATABASE_REDIS_CLUSTER_USE_TLS",
            "true",
            To("database.redis.cluster.use_tls", Setting::Flag(true)),
        ),
        (
            "ADAPTER_ENABLE_SOCKET_COUNTING",
            "true",
            Told("counting is free"),
        ),
        ("TAG_FILTERING_ENABLED", "true", Told("no tag filtering")),
        ("TAG_FILTERING_ENABLED", "false", Silent),
        (
            "WEBSOCKET_MAX_BYTES",
            "900000",
            To("net.send_queue_bytes", Setting::Whole(900_000)),
        ),
        (
            "WEBSOCKET_MAX_BYTES",
            "33554432",
            To("net.burst_queue_bytes", Setting::Whole(32 << 20)),
        ),
        (
            "WEBSOCKET_MAX_BACKPRESSURE",
            "900000",
            To("net.send_queue_bytes", Setting::Whole(900_000)),
        ),
        ("WEBSOCKET_MAX_MESSAGES", "5", Told("bounded in bytes")),
        (
            "WEBSOCKET_DISCONNECT_ON_BUFFER_FULL",
            "true",
            To("net.slow_consumer", text("disconnect")),
        ),
        (
            "WEBSOCKET_DISCONNECT_ON_BUFFER_FULL",
            "false",
            To("net.slow_consumer", text("drop_newest")),
        ),
        (
            "WEBSOCKET_MAX_MESSAGE_SIZE",
            "70000",
            To("websocket.max_payload_kb", Setting::Bytes(70_000)),
        ),
        (
            "WEBSOCKET_MAX_FRAME_SIZE",
            "70000",
            To("websocket.max_payload_kb", Setting::Bytes(70_000)),
        ),
        ("WEBSOCKET_WRITE_BUFFER_SIZE", "1", Told("no such buffer")),
        ("WEBSOCKET_AUTO_PING", "true", Told("ACTIVITY_TIMEOUT")),
        ("WEBSOCKET_PING_INTERVAL", "30", Told("ACTIVITY_TIMEOUT")),
        ("WEBSOCKET_IDLE_TIMEOUT", "120", Told("ACTIVITY_TIMEOUT")),
        ("WEBSOCKET_COMPRESSION", "shared", Told("not compressed")),
        ("WEBSOCKET_COMPRESSION", "disabled", Silent),
        // In an example or a Compose file only.
        ("LOG_LEVEL", "warn", To("logging.level", text("warn"))),
        ("LOG_FORMAT", "json", To("logging.format", text("json"))),
        (
            "REDIS_PASSWORD",
            "p",
            To("database.redis.password", Setting::Secret(Secret::new("p"))),
        ),
        (
            "EXTERNAL_REDIS_URL",
            "redis://h",
            To("cache.redis.url_override", url("redis://h")),
        ),
        (
            "EXTERNAL_REDIS_URL",
            "redis://h",
            To("adapter.redis.redis_pub_options.url", url("redis://h")),
        ),
        (
            "ADAPTER_REDIS_URL",
            "redis://h",
            To("adapter.redis.redis_pub_options.url", url("redis://h")),
        ),
        (
            "ADAPTER_REDIS_URL",
            "redis://h",
            To("cache.redis.url_override", Setting::Null),
        ),
        (
            "ADAPTER_REDIS_PREFIX",
            "p",
            To("adapter.redis.prefix", text("p")),
        ),
        (
            "ADAPTER_REQUEST_TIMEOUT",
            "7",
            To("adapter.redis.requests_timeout", Setting::Whole(7)),
        ),
        (
            "REDIS_CONNECTION_POOL_SIZE",
            "5",
            Told("one connection carries all requests"),
        ),
        (
            "AWS_REGION",
            "eu",
            To("database.dynamodb.region", text("eu")),
        ),
        (
            "AWS_PROFILE",
            "p",
            To("database.dynamodb.aws_profile_name", text("p")),
        ),
        (
            "CLUSTER_NODE_TIMEOUT",
            "9000",
            To("cluster.lease_ms", Setting::Whole(9000)),
        ),
        (
            "CLUSTER_HELLO_INTERVAL",
            "500",
            To("cluster.heartbeat_ms", Setting::Whole(500)),
        ),
        ("CLUSTER_HOSTNAME", "h", Told("no such mechanism")),
        ("CLUSTER_PORT", "1", Told("no such mechanism")),
        ("CLUSTER_CHECK_INTERVAL", "1", Told("no such mechanism")),
        ("CLUSTER_MASTER_TIMEOUT", "1", Told("no such mechanism")),
        ("LOG_FILE_PATH", "/x", Told("logs go to stdout")),
        ("LOG_MAX_SIZE", "1", Told("logs go to stdout")),
        ("LOG_MAX_FILES", "1", Told("logs go to stdout")),
        ("JWT_SECRET", "x", Told("nothing reads it")),
        ("TEST_REDIS_URL", "x", Told("nothing reads it")),
        ("HEALTH_CHECK_INTERVAL", "x", Told("nothing reads it")),
        ("EXTERNAL_MYSQL_URL", "x", Told("DATABASE_MYSQL_HOST")),
        ("DOMAIN", "x", Silent),
        ("GRAFANA_PASSWORD", "x", Silent),
        ("MYSQL_ROOT_PASSWORD", "x", Silent),
        ("SOCKUDO_MEMORY_LIMIT", "x", Silent),
        ("SOCKUDO_CPU_LIMIT", "x", Silent),
        ("SOCKUDO_REPLICAS", "2", Silent),
        ("REDIS_MEMORY_LIMIT", "x", Silent),
        ("MONITORING_ENABLED", "x", Silent),
        ("PROMETHEUS_RETENTION", "x", Silent),
        ("GRAFANA_PORT", "3000", Silent),
        ("BACKUP_ENABLED", "x", Silent),
        ("SOCKUDO_PROT", "1", Told("did you mean SOCKUDO_PORT?")),
    ];
    for (name, value, comes) in rows {
        let credentials = [
            ("SOCKUDO_DEFAULT_APP_ID", "a"),
            ("SOCKUDO_DEFAULT_APP_KEY", "k"),
            ("SOCKUDO_DEFAULT_APP_SECRET", "s"),
        ];
        let quiet = env(&credentials).loaded().notices;
        let variables = [&credentials[..], &[(name, value)]].concat();
        let loaded = env(&variables).loaded();
        let said: Vec<String> = loaded
            .notices
            .iter()
            .filter(|notice| !quiet.contains(notice))
            .map(ToString::to_string)
            .collect();
        match comes {
            To(path, setting) => {
                assert_eq!(loaded.settings.setting(path), &setting, "{name}={value}");
            }
            Told(words) => assert!(
                said.len() == 1 && said[0].contains(words),
                "{name}={value}: {said:?}"
            ),
            Silent => assert_eq!(said, [""; 0], "{name}={value}"),
        }
    }
}

#[test]
fn the_clients_own_switch_has_two_variables_and_the_longer_one_is_upstreams_composes() {
    let credentials = [
        ("SOCKUDO_DEFAULT_APP_ID", "a"),
        ("SOCKUDO_DEFAULT_APP_KEY", "k"),
        ("SOCKUDO_DEFAULT_APP_SECRET", "s"),
    ];
    for name in [
        "SOCKUDO_ENABLE_CLIENT_MESSAGES",
        "SOCKUDO_DEFAULT_APP_ENABLE_CLIENT_MESSAGES",
    ] {
        let variables = [&credentials[..], &[(name, "true")]].concat();
        let config = env(&variables).loaded().config;
        assert!(config.app_manager.apps[0].enable_client_messages, "{name}");
    }
}

#[test]
fn an_empty_variable_of_the_app_is_an_unset_one() {
    let app = [
        ("SOCKUDO_DEFAULT_APP_ID", "a"),
        ("SOCKUDO_DEFAULT_APP_KEY", "k"),
        ("SOCKUDO_DEFAULT_APP_SECRET", "s"),
    ];
    let of_file = r#"{"app_manager": {"array": {"apps": [{"id": "a", "key": "kf", "secret": "sf",
        "max_connections": 7, "enable_client_messages": true, "allowed_origins": ["b.example"]}]}}}"#;
    let apps = |given: &Given<'_>| given.loaded().config.app_manager.apps;
    let (without, with_file) = (
        apps(&env(&app)),
        apps(&Given {
            env: &app,
            ..file(of_file)
        }),
    );
    assert_eq!(without[0].max_connections, 100);
    assert_eq!(with_file[0].max_connections, 7);
    let names = APP.iter().flat_map(Key::app_variables);
    for name in names.filter(|name| app.iter().all(|(given, _)| given != name)) {
        for blank in ["", " \t"] {
            let variables = [&app[..], &[(&*name, blank)]].concat();
            assert_eq!(apps(&env(&variables)), without, "{name}={blank:?}");
            let given = Given {
                env: &variables,
                ..file(of_file)
            };
            assert_eq!(apps(&given), with_file, "{name}={blank:?} beside a file");
        }
    }
    for (name, key) in [("ID", "id"), ("KEY", "key"), ("SECRET", "secret")] {
        let name = format!("SOCKUDO_DEFAULT_APP_{name}");
        let mut variables = app;
        for (given, value) in &mut variables {
            if *given == name {
                *value = "";
            }
        }
        let errors = env(&variables).errors();
        let is_told =
            errors.len() == 1 && errors[0].ends_with(&format!("[env].{key}: is required"));
        assert!(is_told, "{name}: {errors:?}");
    }
}

#[test]
fn an_empty_variable_of_aws_is_an_unset_one_and_its_region_is_the_queues_too() {
    let (table, queue) = ("database.dynamodb.region", "queue.sqs.region");
    let region = |given: &Given<'_>, path: &str| given.loaded().settings.setting(path).clone();
    let is = |name: &str| Setting::Text(name.to_owned());
    for blank in ["", " "] {
        for name in [
            "AWS_REGION",
            "AWS_ACCESS_KEY_ID",
            "AWS_SECRET_ACCESS_KEY",
            "AWS_SESSION_TOKEN",
            "AWS_PROFILE",
        ] {
            let loaded = env(&[(name, blank)]).loaded();
            assert_eq!(
                loaded.settings,
                env(&[]).loaded().settings,
                "{name}={blank:?}"
            );
        }
    }
    let set = [("AWS_REGION", "eu-west-3")];
    for path in [table, queue] {
        assert_eq!(region(&env(&set), path), is("eu-west-3"), "{path}");
        let text = nested(path, "\"eu-west-1\"");
        let given = Given {
            env: &set,
            ..file(&text)
        };
        assert_eq!(region(&given, path), is("eu-west-1"), "{path}");
    }
    let both = [set[0], ("QUEUE_SQS_REGION", "eu-west-2")];
    assert_eq!(region(&env(&both), queue), is("eu-west-2"));
}
