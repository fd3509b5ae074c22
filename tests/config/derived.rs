//! What follows from what was set: one key from another, ours from names of other versions.

use sockudo::config::keys::APP;
use sockudo::config::sections::QueueDriver;
use sockudo::config::settings::Setting;
use sockudo::config::{Level, Notice, Secret};

use crate::{Given, env, file, in_an_app, json_text, nested};

#[test]
fn what_later_versions_write_for_themselves_is_brought_within_bounds_and_told() {
    let defaults = r#"{"websocket": {"max_message_size": 67108864, "max_frame_size": 16777216,
        "max_backpressure": 1048576, "max_bytes": null}}"#;
    let variables = [
        ("WEBSOCKET_MAX_MESSAGE_SIZE", "67108864"),
        ("WEBSOCKET_MAX_FRAME_SIZE", "16777216"),
        ("WEBSOCKET_MAX_BACKPRESSURE", "1048576"),
    ];
    let large = r#"{"websocket": {"max_backpressure": 1048576}, "event_limits": {"max_payload_in_kb": 1000},
        "app_manager": {"array": {"apps": [{"id": "a", "key": "k", "secret": "s"}]}}}"#;
    let (message, queue) = ("websocket.max_payload_kb", "net.send_queue_bytes");
    for (given, bytes, warned) in [
        (
            file(defaults),
            (524_288, 1_048_576),
            &[(message, "524288 is used")][..],
        ),
        (
            env(&variables),
            (524_288, 1_048_576),
            &[(message, "524288 is used")],
        ),
        // As if nothing had been said of the outbox.
        (env(&variables[..2]), (16_777_216, 33_554_432), &[]),
        (
            file(large),
            (65_536, 2_048_000),
            &[(queue, "raised to 2048000")],
        ),
        (
            env(&[
                ("WEBSOCKET_MAX_BYTES", "1"),
                ("WEBSOCKET_MAX_MESSAGE_SIZE", "70000"),
            ]),
            (65_536, 204_800),
            &[
                (queue, "1 bytes: 4096 is used"),
                (message, "65536 is used"),
                (queue, "raised to 204800"),
            ],
        ),
        (
            env(&[("WEBSOCKET_MAX_BACKPRESSURE", "0")]),
            (65_536, 1_048_576),
            &[(queue, "0 has no effect")],
        ),
    ] {
        let loaded = given.loaded();
        let bytes_of = |path: &str| match loaded.settings.setting(path) {
            Setting::Whole(bytes) | Setting::Bytes(bytes) => *bytes,
            other => panic!("{path}: {other:?}"),
        };
        assert_eq!(
            (bytes_of(message), bytes_of(queue)),
            bytes,
            "{:?}",
            given.file
        );
        let said = loaded.notices.iter().filter(|notice| {
            notice.level == Level::Warning && [message, queue].contains(&notice.key.as_str())
        });
        let said: Vec<&Notice> = said.collect();
        let fits = said.len() == warned.len()
            && said
                .iter()
                .zip(warned)
                .all(|(notice, (key, part))| notice.key == *key && notice.text.contains(part));
        assert!(fits, "{:?} {:?}: {said:#?}", given.file, given.env);
    }
}

#[test]
fn a_number_of_later_versions_that_is_too_small_or_too_large_here_is_used_as_far_as_it_goes() {
    let (message, queue) = ("websocket.max_payload_kb", "net.send_queue_bytes");
    let (half, all) = (1_u64 << 29, 1_u64 << 30);
    let rows = |variables: [&'static str; 2], key, rows: [(u64, u64, bool); 6]| {
        let each = move |name| rows.map(|(value, used, is_told)| (name, key, value, used, is_told));
        variables.into_iter().flat_map(each)
    };
    let messages = rows(
        ["WEBSOCKET_MAX_MESSAGE_SIZE", "WEBSOCKET_MAX_FRAME_SIZE"],
        message,
        [
            (0, 65_536, true),
            (1, 1, false),
            (half, half, false),
            (half + 1, half, true),
            (99_999_999_999, half, true),
            (u64::MAX, half, true),
        ],
    );
    let outboxes = rows(
        ["WEBSOCKET_MAX_BYTES", "WEBSOCKET_MAX_BACKPRESSURE"],
        queue,
        [
            (0, 1_048_576, true),
            // Two of the app's events fit, and it is told that more was needed.
            (1, 204_800, true),
            (204_800, 204_800, false),
            (all, all, false),
            (all + 1, all, true),
            (u64::MAX, all, true),
        ],
    );
    for (variable, key, value, used, is_told) in messages.chain(outboxes) {
        let place = format!("{variable}={value}");
        let number = value.to_string();
        let loaded = env(&[(variable, &*number)]).loaded();
        let is_used = match loaded.settings.setting(key) {
            Setting::Whole(bytes) | Setting::Bytes(bytes) => *bytes == used,
            _ => false,
        };
        assert!(is_used, "{place}: {:?}", loaded.settings.setting(key));
        let warns = |it: &&Notice| it.level == Level::Warning && it.key == key;
        let told = loaded.notices.iter().any(|it| warns(&it));
        assert_eq!(told, is_told, "{place}: {:#?}", loaded.notices);
        // In a file it is the same.
        let name = variable
            .trim_start_matches("WEBSOCKET_")
            .to_ascii_lowercase();
        let app = &in_an_app("enabled", "true")[1..];
        let text = format!("{{\"websocket\": {{{name:?}: {number}}}, {app}");
        let of_file = file(&text).loaded().settings;
        assert_eq!(
            of_file.setting(key),
            loaded.settings.setting(key),
            "{place}"
        );
    }
    for variable in ["WEBSOCKET_MAX_MESSAGE_SIZE", "WEBSOCKET_MAX_BYTES"] {
        for value in ["-1", "lots", "1.5"] {
            let errors = env(&[(variable, value)]).errors();
            assert!(errors[0].contains("a whole number of bytes"), "{errors:?}");
        }
    }
}

#[test]
fn an_empty_variable_leaves_what_the_file_says() {
    // In a file an empty text may be a value, and has a word for variables.
    for none in ["", "none"] {
        let none = file(&nested("admin.socket", &json_text(none))).loaded();
        assert_eq!(none.config.admin.socket.as_deref(), Some(""));
    }
    for (path, said, variable) in [
        (
            "cluster.secret",
            "a-secret-of-32-bytes-or-even-more",
            "SOCKUDO_CLUSTER_SECRET",
        ),
        ("database.redis.password", "p", "DATABASE_REDIS_PASSWORD"),
        ("database.mysql.password", "p", "DATABASE_MYSQL_PASSWORD"),
        ("adapter.nats.token", "t", "NATS_TOKEN"),
        (
            "adapter.cluster.nodes",
            "redis://h:1",
            "REDIS_CLUSTER_NODES",
        ),
        ("queue.redis.url_override", "redis://h", "REDIS_URL"),
        ("ssl.passphrase", "p", "SSL_PASS"),
        ("admin.socket", "/run/a.sock", "SOCKUDO_ADMIN_SOCKET"),
        ("admin.socket", "", "SOCKUDO__ADMIN__SOCKET"),
        ("logging.level", "warn", "RUST_LOG"),
        ("logging.format", "json", "LOG_FORMAT"),
        (
            "net.slow_consumer",
            "drop_oldest",
            "WEBSOCKET_DISCONNECT_ON_BUFFER_FULL",
        ),
    ] {
        let text = nested(path, &json_text(said));
        let alone = file(&text).loaded().settings;
        let env = &[(variable, " ")][..];
        let beside = Given { env, ..file(&text) }.loaded().settings;
        assert_eq!(beside.setting(path), alone.setting(path), "{variable}");
        assert!(
            beside.origin(path).to_string().starts_with("file:"),
            "{variable}"
        );
    }
}

#[test]
fn webhooks_wait_in_redis_where_one_is_named_and_nobody_says_otherwise() {
    let hook = in_an_app(
        "webhooks",
        r#"[{"url": "https://h", "event_types": ["channel_occupied"]}]"#,
    );
    let beside = |section: &str| format!("{{{section}, {}", &hook[1..]);
    for (text, variables, driver, is_told) in [
        (beside(r#""port": 1"#), &[][..], "memory", true),
        (in_an_app("enabled", "true"), &[], "memory", false),
        (hook.clone(), &[("REDIS_URL", "redis://h")], "redis", false),
        (
            hook.clone(),
            &[("DATABASE_REDIS_HOST", "h")],
            "redis",
            false,
        ),
        (
            hook.clone(),
            &[
                ("QUEUE_REDIS_CONCURRENCY", "6"),
                ("DATABASE_REDIS_DB", "3"),
                ("DATABASE_REDIS_KEY_PREFIX", "k:"),
            ],
            "memory",
            true,
        ),
        (
            hook.clone(),
            &[("SOKETI_DB_REDIS_HOST", "h")],
            "memory",
            true,
        ),
        (hook.clone(), &[("REDIS_URL", "")], "memory", true),
        (
            hook.clone(),
            &[("REDIS_URL", "redis://h"), ("QUEUE_DRIVER", "memory")],
            "memory",
            false,
        ),
        // The bus has a Redis of its own, and a cluster is another driver's.
        (
            hook.clone(),
            &[("ADAPTER_REDIS_URL", "redis://h")],
            "memory",
            true,
        ),
        (
            hook.clone(),
            &[("REDIS_CLUSTER_NODES", "redis://h:1")],
            "memory",
            true,
        ),
        (
            beside(r#""database": {"redis": {"port": 6380}}"#),
            &[],
            "redis",
            false,
        ),
        (
            beside(r#""database": {"redis": {"password": null}}"#),
            &[],
            "memory",
            true,
        ),
        (
            beside(r#""database": {"redis": {"cluster_nodes": ["h:1"]}}"#),
            &[],
            "memory",
            true,
        ),
        (
            beside(r#""queue": {"redis": {"prefix": "q:"}}"#),
            &[],
            "memory",
            true,
        ),
        (
            beside(r#""queue": {"driver": "none", "redis": {"prefix": "q:"}}"#),
            &[],
            "none",
            false,
        ),
    ] {
        let given = Given {
            env: variables,
            ..file(&text)
        };
        let loaded = given.loaded();
        let place = format!("{text} {variables:?}");
        let settings = &loaded.settings;
        assert_eq!(
            settings.setting("queue.driver"),
            &Setting::Text(driver.to_owned()),
            "{place}"
        );
        let notices = loaded.notices.iter();
        let told = notices
            .filter(|notice| notice.key == "queue.driver")
            .count();
        assert_eq!(told, usize::from(is_told || driver == "redis"), "{place}");
        if driver == "redis" {
            assert_ne!(
                settings.origin("queue.driver").to_string(),
                "default",
                "{place}"
            );
        }
    }
}

#[test]
fn a_queue_in_a_cluster_goes_to_the_nodes_that_are_named_under_the_queues_own_prefix() {
    let urls = |all: &[&str]| all.iter().map(|url| Secret::new(*url)).collect::<Vec<_>>();
    for (queue, redis, nodes, prefix, concurrency) in [
        (
            r#""redis": {"cluster_mode": true, "prefix": "q:", "concurrency": 9}"#,
            r#""cluster_nodes": ["h:7000"]"#,
            urls(&[]),
            "q:",
            9,
        ),
        (
            r#""driver": "redis-cluster", "redis": {"prefix": "q:"}"#,
            r#""cluster_nodes": ["h:7000"]"#,
            urls(&[]),
            "sockudo_queue:",
            5,
        ),
        (
            r#""redis": {"cluster_mode": true, "prefix": "q:"},
               "redis_cluster": {"nodes": ["redis://n:1"], "prefix": "c:"}"#,
            r#""cluster_nodes": ["h:7000"]"#,
            urls(&["redis://n:1"]),
            "c:",
            5,
        ),
        (
            r#""redis": {"cluster_mode": true, "url_override": "redis://u:1", "prefix": null}"#,
            r#""key_prefix": "k:""#,
            urls(&["redis://u:1"]),
            "k:queue:",
            5,
        ),
    ] {
        let text = format!(r#"{{"queue": {{{queue}}}, "database": {{"redis": {{{redis}}}}}}}"#);
        let config = file(&text).loaded().config.queue;
        assert_eq!(config.driver, QueueDriver::RedisCluster, "{text}");
        let cluster = config.redis_cluster;
        assert_eq!(cluster.nodes, nodes, "{text}");
        assert_eq!(
            (&*cluster.prefix, cluster.concurrency),
            (prefix, concurrency),
            "{text}"
        );
    }
}

#[test]
fn whoever_sets_a_limit_by_address_has_it_unless_the_limiter_is_off() {
    let off = [("RATE_LIMITER_ENABLED", "false")];
    let (seven, of_api) = (
        r#""websocket_rate_limit": {"max_requests": 7}"#,
        r#""api_rate_limit": {"max_requests": 7}"#,
    );
    let both = format!("{seven}, {of_api}");
    let with = |rest: &str| format!("{seven}, {rest}");
    // New connections: the number, the window.
    for (limiter, variables, is_on, upgrades, is_told) in [
        ("", &[][..], false, None, false),
        (
            "",
            &[("RATE_LIMITER_API_MAX_REQUESTS", "7")],
            true,
            None,
            false,
        ),
        (
            "",
            &[("RATE_LIMITER_WS_WINDOW_SECONDS", "7")],
            false,
            Some((20, 7)),
            false,
        ),
        (
            "",
            &[("RATE_LIMITER_WS_MAX_REQUESTS", "9")],
            false,
            Some((9, 60)),
            false,
        ),
        (of_api, &[], true, None, false),
        (seven, &[], false, Some((7, 60)), false),
        (&both, &[], true, Some((7, 60)), false),
        (&with(r#""enabled": true"#), &[], true, Some((7, 60)), false),
        (&with(r#""enabled": false"#), &[], false, None, false),
        (seven, &off, false, None, false),
        (&both, &off, false, None, false),
        (
            &with(r#""driver": "redis""#),
            &[],
            false,
            Some((7, 60)),
            false,
        ),
        (&with(r#""driver": "none""#), &[], false, None, false),
        (
            r#""websocket_rate_limit": {"trust_hops": 1}"#,
            &[],
            false,
            None,
            false,
        ),
        (
            r#""api_rate_limit": {"trust_hops": 1}"#,
            &[],
            false,
            None,
            false,
        ),
        (
            r#""enabled": false, "driver": "redis", "api_rate_limit": {"max_requests": 7}"#,
            &[],
            false,
            None,
            false,
        ),
        (r#""driver": "redis""#, &[], false, None, true),
        (r#""driver": "none""#, &[], false, None, false),
        (
            r#""driver": "none", "api_rate_limit": {"max_requests": 7}"#,
            &[],
            false,
            None,
            false,
        ),
    ] {
        let text = format!(r#"{{"rate_limiter": {{{limiter}}}}}"#);
        let given = Given {
            env: variables,
            ..file(&text)
        };
        let loaded = given.loaded();
        let place = format!("{text} {variables:?}");
        let limiter = &loaded.config.rate_limiter;
        assert_eq!(limiter.enabled, is_on, "{place}");
        let limit = limiter.websocket.as_ref();
        let limit = limit.map(|limit| (limit.max_requests, limit.window_s));
        assert_eq!(limit, upgrades, "{place}");
        let mut notices = loaded.notices.iter();
        let is_found = notices.any(|notice| notice.text.contains("has no effect"));
        assert_eq!(is_found, is_told, "{place}: {:?}", loaded.notices);
    }
}

#[test]
fn the_publishers_url_names_the_server_of_the_subscriber_too_unless_it_has_one() {
    let url = |text: &str| Setting::Url(Secret::new(text));
    let both = [
        "adapter.redis.redis_pub_options.url",
        "adapter.redis.redis_sub_options.url",
    ];
    for (options, expected) in [
        (
            r#""redis_pub_options": {"url": "redis://p"}"#,
            [url("redis://p"), url("redis://p")],
        ),
        (
            r#""redis_pub_options": {"url": "redis://p"}, "redis_sub_options": {"url": "redis://s"}"#,
            [url("redis://p"), url("redis://s")],
        ),
        (
            r#""redis_sub_options": {"url": "redis://s"}"#,
            [Setting::Null, url("redis://s")],
        ),
        ("", [Setting::Null, Setting::Null]),
    ] {
        let text = format!(r#"{{"adapter": {{"driver": "redis", "redis": {{{options}}}}}}}"#);
        let settings = file(&text).loaded().settings;
        let found = both.map(|path| settings.setting(path).clone());
        assert_eq!(found, expected, "{options}");
    }
}

#[test]
fn minus_one_lifts_each_limit_of_the_app_that_variables_make() {
    let credentials = [
        ("SOCKUDO_DEFAULT_APP_ID", "a"),
        ("SOCKUDO_DEFAULT_APP_KEY", "k"),
        ("SOCKUDO_DEFAULT_APP_SECRET", "s"),
    ];
    let advice = |variables: &[(&str, &str)]| {
        let notices = env(variables).loaded().notices;
        let mut notices = notices.into_iter().map(|notice| notice.text);
        notices.find(|text| text.contains("-1 lifts a limit"))
    };
    let limits: Vec<_> = APP.iter().filter(|key| key.env_app.is_some()).collect();
    let names: Vec<String> = limits
        .iter()
        .map(|key| key.app_variables().remove(0))
        .collect();
    let told = advice(&credentials).expect("nobody set a limit");
    assert!(limits.iter().all(|key| told.contains(key.path)), "{told}");
    let lifted = names.iter().map(|name| (name.as_str(), "-1"));
    let all: Vec<_> = credentials.iter().copied().chain(lifted).collect();
    assert_eq!(advice(&all), None);
}
