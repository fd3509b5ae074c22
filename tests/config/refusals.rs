//! What does not load, and in which words.

use sockudo::config::keys::Status;
use sockudo::config::{Level, Notice};

use crate::{Given, env, example, file, in_an_app, json_text, nested, plain_keys};

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
            "{\"app_manager\": {\"driver\": \"scylladb\"}}".to_owned(),
            "config.json:1: app_manager.driver: \"scylladb\" is not in this release, which has \"memory\" and \"mysql\" and \"dynamodb\" and \"pgsql\"",
        ),
        (
            "{\"port\": 1, \"host\": \"${NOWHERE}\"}".to_owned(),
            "config.json:1: host: variable NOWHERE is not set and has no default; set it, or \
             write ${NOWHERE:-default}",
        ),
        (
            "{\"cors\": {\"origin\": [\"*\", \"a b\"]}}".to_owned(),
            "config.json:1: cors.origin[1]: \"a b\" is not a header value without spaces",
        ),
        (
            "{\"logging\": {\"level\": \"loud\"}}".to_owned(),
            "config.json:1: logging.level: \"loud\" is not one of error, warn, info, debug, trace, \
             off, or a log filter such as info,sockudo=debug",
        ),
        (
            "{\"logging\": {\"level\": \"0\"}}".to_owned(),
            "config.json:1: logging.level: \"0\" is not one of error, warn, info, debug, trace, \
             off, or a log filter such as info,sockudo=debug",
        ),
        (
            "{\"logging\": {\"level\": \"info,sockudo=3\"}}".to_owned(),
            "config.json:1: logging.level: \"info,sockudo=3\" is not one of error, warn, info, debug, trace, \
             off, or a log filter such as info,sockudo=debug",
        ),
        (
            "{\"logging\": {\"level\": \"warning,soon\"}}".to_owned(),
            "config.json:1: logging.level: \"warning,soon\" is not one of error, warn, info, debug, trace, \
             off, or a log filter such as info,sockudo=debug",
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
            let is_about = |n: &&Notice| n.key == key.path;
            assert!(loaded.notices.iter().any(|n| is_about(&n)), "{}", key.path);
        }
    }
}

#[test]
fn what_is_not_used_of_apps_and_their_database_is_said() {
    let app = r#"{"id": "a", "key": "k", "secret": "s"}"#;
    let odd = r#"{"id": "a", "key": "k:2", "secret": "s"}"#;
    let config = |driver: &str, more: &str, apps: &str| {
        let text = format!(r#""driver": "{driver}"{more}, "array": {{"apps": [{apps}]}}"#);
        format!(r#"{{"app_manager": {{{text}}}}}"#)
    };
    let seed = r#", "seed": "if_missing""#;
    let create = r#", "create_schema": true"#;
    for (driver, more, apps, said) in [
        ("mysql", "", app, "app_manager.array.apps: 1 not used"),
        ("mysql", seed, app, ""),
        ("pgsql", create, "", ""),
        (
            "mysql",
            seed,
            "",
            "app_manager.seed: has no effect: there is no app",
        ),
        (
            "memory",
            seed,
            app,
            "app_manager.seed: has no effect: app_manager.driver",
        ),
        (
            "memory",
            create,
            app,
            "app_manager.create_schema: has no effect",
        ),
        ("memory", "", app, ""),
        ("memory", "", odd, "apps[0].key: has a colon"),
    ] {
        let loaded = file(&config(driver, more, apps)).loaded();
        let warnings = loaded
            .notices
            .iter()
            .filter(|it| it.level == Level::Warning);
        let warnings: Vec<String> = warnings.map(ToString::to_string).collect();
        match said {
            "" => assert!(warnings.is_empty(), "{warnings:?}"),
            said => assert!(warnings.iter().any(|it| it.contains(said)), "{warnings:?}"),
        }
    }
}

#[test]
fn webhooks_and_apps_that_cannot_work_are_refused() {
    let hook = |members: &str| in_an_app("webhooks", &format!("[{{{members}}}]"));
    let base = "\"event_types\": []";
    let pattern = format!(r#""url": "https://h", {base}, "filter": {{"channel_pattern": "("}}"#);
    let elsewhere = format!(r#""lambda": {{"function_name": "f", "region": "e/u"}}, {base}"#);
    let errors = file(&hook(&elsewhere)).errors();
    assert!(
        errors[0].contains("lambda.region: \"e/u\" is not a region"),
        "{errors:?}"
    );
    file(&hook(&format!(r#""lambda_function": "f", {base}"#))).loaded();
    let ftp = format!(r#""url": "ftp://h", {base}"#);
    let apps = |apps: &str| format!(r#"{{"app_manager": {{"array": {{"apps": [{apps}]}}}}}}"#);
    let two = r#"{"id": "a", "key": "k", "secret": "s"}, {"id": "b", "key": "k", "secret": "s"}"#;
    for (text, part) in [
        (hook(base), "webhooks[0].url: is required"),
        (
            hook(&format!(
                r#""lambda": {{"region": "eu-central-1"}}, {base}"#
            )),
            "webhooks[0].lambda.function_name: is required",
        ),
        (
            in_an_app("allowed_origins", r#"[""]"#),
            r#"allowed_origins[0]: "" is not an origin such as"#,
        ),
        (
            hook(r#""url": "https://h""#),
            "webhooks[0].event_types: is required",
        ),
        (hook(&ftp), r#""ftp://h" is not an http:// or https:// URL"#),
        (hook(&pattern), r#""(" is not a regular expression"#),
        (
            in_an_app("allowed_origins", r#"["https://*.*"]"#),
            r#"allowed_origins[0]: "https://*.*" is not an origin such as"#,
        ),
        (in_an_app("webhooks", r#""[{""#), "webhooks: not valid JSON"),
        (apps("{}"), "apps[0].id: is required"),
        (
            apps(r#"{"id": "a", "key": "k"}"#),
            "apps[0].secret: is required",
        ),
        (
            apps(two),
            r#"apps[1].key: "k" is already that of another app"#,
        ),
    ] {
        let errors = file(&text).errors();
        assert!(
            errors.iter().any(|error| error.contains(part)),
            "{part}: {errors:#?}"
        );
    }
    let header = format!(r#""url": "https://h", {base}, "headers": {{"X-Pusher-Key": "a"}}"#);
    let loaded = file(&hook(&header)).loaded();
    assert!(
        loaded
            .notices
            .iter()
            .any(|n| n.level == Level::Warning && n.text.contains("set by the server itself")),
        "{:#?}",
        loaded.notices
    );
    let text = in_an_app(
        "webhooks",
        &json_text(r#"[{"url": "https://h", "event_types": ["chanel_vacated"]}]"#),
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
            "{\"app_manager\": {\"driver\": \"pgsql\"}, \"database\": {\"postgres\": {\"tls\": {\"key_path\": \"k\"}}}}",
            "database.postgres.tls.key_path: needs database.postgres.tls.cert_path",
        ),
        (
            "{\"app_manager\": {\"driver\": \"pgsql\"}, \"database\": {\"postgres\": {\"table_name\": \"a.b.c\"}}}",
            "database.postgres.table_name: has a dot that stands between no schema",
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
            "{\"net\": {\"burst_queue_bytes\": 1048575}}",
            "burst_queue_bytes: 1048575 is less than net.send_queue_bytes = 1048576",
        ),
        (
            "{\"net\": {\"proxy_protocol\": \"v1v2\"}}",
            "net.proxy_protocol: needs rate_limiter.trusted_proxies",
        ),
        (
            "{\"drain\": {\"lb_wait_s\": 10, \"deadline_s\": 10}}",
            "drain.lb_wait_s: 10 leaves nothing of drain.deadline_s = 10",
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
fn limits_by_address_say_what_they_cannot_know_behind_a_proxy() {
    let limiter = |members: &str| format!("{{\"rate_limiter\": {{\"enabled\": true, {members}}}}}");
    let hops = |hops: u8| limiter(&format!("\"api_rate_limit\": {{\"trust_hops\": {hops}}}"));
    let upgrades = |hops: u8| {
        format!(
            "\"websocket_rate_limit\": {{\"max_requests\": 5, \"trust_hops\": {hops}}}, \
             \"api_rate_limit\": {{\"trust_hops\": 1}}"
        )
    };
    let local = &[("HOST", "127.0.0.1,[::1]")][..];
    let (as_one, believed) = (
        "count as one address",
        "the headers of every peer are believed",
    );
    for (text, env, expected) in [
        (limiter("\"driver\": \"memory\""), &[][..], &[as_one][..]),
        // Who says 0 aloud has no proxy, unless nobody but a proxy can reach the port.
        (hops(0), &[], &[]),
        (hops(0), local, &[as_one]),
        (hops(1), &[], &[believed]),
        (hops(1), local, &[]),
        (limiter(&upgrades(0)), local, &[as_one]),
        (
            limiter(&format!(
                "{}, \"trusted_proxies\": [\"10.0.0.0/8\"]",
                upgrades(1)
            )),
            &[],
            &[],
        ),
        (limiter("\"driver\": \"none\""), &[], &[]),
        // A header names each connection's client.
        (
            format!(
                "{{\"net\": {{\"proxy_protocol\": \"v1v2\"}}, {}",
                &limiter("\"trusted_proxies\": [\"10.0.0.1/32\"]")[1..]
            ),
            &[],
            &[],
        ),
        ("{}".to_owned(), &[], &[]),
    ] {
        let loaded = Given { env, ..file(&text) }.loaded();
        let warned: Vec<&Notice> = loaded
            .notices
            .iter()
            .filter(|n| n.level == Level::Warning && n.key.starts_with("rate_limiter"))
            .collect();
        let fits = warned.len() == expected.len()
            && warned
                .iter()
                .zip(expected)
                .all(|(n, part)| n.text.contains(part));
        assert!(fits, "{text} {env:?}: {warned:#?}");
    }
    let tls = in_an_app("require_tls", "true");
    let behind = tls.replacen(
        '{',
        "{\"rate_limiter\": {\"websocket_rate_limit\": {\"trust_hops\": 1}}, ",
        1,
    );
    for (text, is_warned) in [(&tls, true), (&behind, false)] {
        let notices = file(text).loaded().notices;
        let found = notices
            .iter()
            .any(|n| n.text.contains("every connection with 4000"));
        assert_eq!(found, is_warned, "{text}");
    }
}

#[test]
fn tls_and_sockets_that_cannot_work_are_refused_before_a_start() {
    let tls = |more: &str| {
        format!(
            "{{\"port\": 7001, \"ssl\": {{\"enabled\": true, \"cert_path\": \"/c\", \"key_path\": \"/k\"{more}}}}}"
        )
    };
    file(&tls("")).loaded();
    for (port, other) in [(7_001, "port"), (9_601, "metrics.port")] {
        let more = format!(", \"redirect_http\": true, \"http_port\": {port}");
        let errors = file(&tls(&more)).errors();
        assert_eq!(errors.len(), 1, "{errors:?}");
        let is_said =
            errors[0].contains("ssl.http_port") && errors[0].contains(&format!("is {other} too"));
        assert!(is_said, "{errors:?}");
    }
    let asks = |more: &str| tls(&format!(", \"client_certificates\": {more}"));
    file(&asks("\"required\", \"ca_path\": \"/a\"")).loaded();
    for ca in ["", ", \"ca_path\": \"\""] {
        let errors = file(&asks(&format!("\"required\"{ca}"))).errors();
        let is_said =
            errors[0].contains("ssl.client_certificates") && errors[0].contains("ssl.ca_path");
        assert!(errors.len() == 1 && is_said, "{errors:?}");
        let notices = file(&asks(&format!("\"optional\"{ca}"))).loaded().notices;
        assert!(
            notices.iter().any(|it| it.text.contains("asks nobody")),
            "{notices:?}"
        );
    }
    let of_wait =
        |wait: u8| format!("{{\"drain\": {{\"lb_wait_s\": {wait}, \"deadline_s\": 20}}}}");
    file(&of_wait(19)).loaded();
    file("{\"drain\": {\"deadline_s\": 0}}").loaded();
    let alone = file("{\"drain\": {\"lb_wait_s\": 30}}").loaded();
    assert_eq!(alone.config.drain.deadline_s, 40);
    let former = file("{\"drain\": {\"lb_wait_s\": 3}, \"shutdown_grace_period\": 5}").loaded();
    assert_eq!(former.config.drain.deadline_s, 5);
    let path = "x".repeat(200);
    let errors = file(&format!(
        "{{\"unix_socket\": {{\"enabled\": true, \"path\": \"/run/{path}\"}}}}"
    ))
    .errors();
    assert!(
        errors[0].contains("unix_socket.path") && errors[0].contains("205 bytes"),
        "{errors:?}"
    );
    for (unix, admin) in [
        ("/run/a.sock", ", \"admin\": {\"socket\": \"/run/a.sock\"}"),
        (
            "/run//a.sock",
            ", \"admin\": {\"socket\": \"/run/./a.sock\"}",
        ),
        ("/run/sockudo/admin.sock", ""),
    ] {
        let unix = format!("\"unix_socket\": {{\"enabled\": true, \"path\": \"{unix}\"}}");
        let errors = file(&format!("{{{unix}{admin}}}")).errors();
        let expected = "is admin.socket too: each wants a path of its own";
        assert!(errors[0].contains(expected), "{errors:?}");
    }
}

#[test]
fn two_logins_to_nats_at_once_are_refused_with_both_keys() {
    let two = |nats: &str| {
        let errors = file(&format!(
            r#"{{"adapter": {{"driver": "nats", "nats": {{{nats}}}}}}}"#
        ))
        .errors();
        assert_eq!(errors.len(), 1, "{errors:?}");
        errors[0].clone()
    };
    let (creds, nkey) = ("adapter.nats.creds_file", "adapter.nats.nkey_seed_file");
    for (nats, first, second) in [
        (r#""creds_file": "f", "nkey_seed_file": "f""#, creds, nkey),
        (
            r#""creds_file": "f", "username": "u", "password": "p""#,
            creds,
            "adapter.nats.username",
        ),
        (
            r#""creds_file": "f", "token": "t""#,
            creds,
            "adapter.nats.token",
        ),
        (
            r#""nkey_seed_file": "f", "password": "p""#,
            nkey,
            "adapter.nats.password",
        ),
        (
            r#""nkey_seed_file": "f", "token": "t""#,
            nkey,
            "adapter.nats.token",
        ),
        (
            r#""nkey_seed_file": "f", "servers": ["h", "nats://u:p@h"]"#,
            nkey,
            "adapter.nats.servers",
        ),
        (
            r#""creds_file": "f", "servers": ["nats://t@h"]"#,
            creds,
            "adapter.nats.servers",
        ),
    ] {
        let error = two(nats);
        assert!(error.contains(&format!("{first}: ")), "{error}");
        assert!(error.contains(&format!("{second} ")), "{error}");
    }
    // They say nothing to another bus.
    file(r#"{"adapter": {"driver": "redis", "nats": {"creds_file": "f", "token": "t"}}}"#).loaded();
}

#[test]
fn compression_that_is_asked_to_be_off_is_told_nowhere() {
    for (value, is_told) in [
        ("\"disabled\"", false),
        ("\"Disabled\"", false),
        ("\"shared\"", true),
        ("true", true),
    ] {
        let text = nested("websocket.compression", value);
        let loaded = file(&text).loaded();
        let told = loaded
            .notices
            .iter()
            .any(|it| it.key == "websocket.compression");
        assert_eq!(told, is_told, "{value}: {:?}", loaded.notices);
    }
}
