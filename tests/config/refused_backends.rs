//! Drivers and backends that cannot work: what does not load, and in which words.

use crate::{file, json_text, nested};

#[test]
fn what_this_release_does_not_ship_refuses_to_start() {
    for (path, value) in [
        ("app_manager.driver", "scylla"),
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
    for (driver, database, places) in [
        (
            r#"{"driver": "redis", "redis": {"redis_pub_options": {"url": "rediss://h"},
                "redis_sub_options": {"host": "h", "tls": {}}}}"#,
            r#"{"redis": {"sentinels": ["s:1"], "tls": {"enabled": true, "ca_path": "f"}}}"#,
            &[][..],
        ),
        (
            r#"{"driver": "nats", "nats": {"servers": ["h", "tls://h"], "creds_file": "f",
                "username": null, "token": "", "tls": {"required": true, "ca_path": "f"}}}"#,
            "{}",
            &[],
        ),
        (
            r#"{"driver": "nats", "nats": {"nkey_seed_file": "f"}}"#,
            "{}",
            &[],
        ),
        (
            r#"{"driver": "nats", "nats": {"servers": ["h", "nats://u:p@h:1"], "token": "t"}}"#,
            r#"{"redis": {"sentinels": ["s:1"]}}"#,
            &[],
        ),
        (
            r#"{"driver": "redis-cluster", "cluster": {"nodes": ["h", "rediss://u:p@h"],
                "use_sharded_pubsub": false}}"#,
            r#"{"redis": {"cluster": {"use_tls": true}}}"#,
            &["adapter.cluster.use_sharded_pubsub"],
        ),
        (
            r#"{"driver": "redis", "redis": {"cluster_mode": true}}"#,
            r#"{"redis": {"cluster_nodes": ["rediss://h:1"]}}"#,
            &[],
        ),
        (
            r#"{"driver": "redis-cluster", "cluster": {"nodes": ["h", "redis://u:p@h:1"]}}"#,
            r#"{"redis": {"cluster_nodes": ["rediss://h:1"], "sentinels": ["s:1"]}}"#,
            &[],
        ),
        (
            r#"{"driver": "local"}"#,
            r#"{"redis": {"sentinels": ["s:1"]}}"#,
            &[],
        ),
        (
            r#"{"driver": "redis", "redis": {"redis_pub_options": {"url": "redis://h"}}}"#,
            r#"{"redis": {"sentinels": []}}"#,
            &[],
        ),
    ] {
        let text = format!("{{\"adapter\": {driver}, \"database\": {database}}}");
        if places.is_empty() {
            file(&text).loaded();
            continue;
        }
        let errors = file(&text).errors();
        assert_eq!(errors.len(), places.len(), "{errors:?}");
        for place in places {
            let error = errors.iter().find(|error| error.contains(place));
            let error = error.unwrap_or_else(|| panic!("{place} in {errors:?}"));
            let told = "\" is not in this release, which has";
            assert!(error.contains("with adapter.driver = \""), "{error}");
            assert!(error.contains(told), "{error}");
        }
    }
    let text = r#"{"adapter": {"driver": "redis-cluster", "cluster": {"prefix": "{a}"}},
        "database": {"redis": {"db": 3}}}"#;
    let errors = file(text).errors();
    for (key, part) in [
        ("adapter.cluster.nodes", "needs at least one node"),
        ("adapter.cluster.prefix", "must not hold { or }"),
        ("database.redis.db", "a cluster has no other database"),
    ] {
        let is_told = |error: &String| error.contains(key) && error.contains(part);
        assert!(errors.iter().any(is_told), "{key}: {errors:?}");
    }
    assert_eq!(errors.len(), 3, "{errors:?}");
    for (adapter, redis, place, part) in [
        (
            r#"{"driver": "redis"}"#,
            r#"{"tls": {"enabled": true, "cert_path": "c"}}"#,
            "database.redis.tls.cert_path",
            "needs database.redis.tls.key_path beside it",
        ),
        (
            r#"{"driver": "redis-cluster", "cluster": {"nodes": ["h"]}}"#,
            r#"{"tls": {"key_path": "k"}}"#,
            "database.redis.tls.key_path",
            "needs database.redis.tls.cert_path beside it",
        ),
        (
            r#"{"driver": "nats", "nats": {"tls": {"key_path": "k"}}}"#,
            "{}",
            "adapter.nats.tls.key_path",
            "needs adapter.nats.tls.cert_path beside it",
        ),
        (
            r#"{"driver": "redis", "redis": {"redis_sub_options": {"url": "redis://h"}}}"#,
            r#"{"tls": {"enabled": true}}"#,
            "adapter.redis.redis_sub_options.url",
            "would go without TLS although database.redis.tls.enabled = true",
        ),
        (
            r#"{"driver": "redis"}"#,
            r#"{"sentinels": ["rediss://s:1"]}"#,
            "database.redis.sentinels",
            "needs database.redis.tls.enabled = true",
        ),
    ] {
        let text = format!(r#"{{"adapter": {adapter}, "database": {{"redis": {redis}}}}}"#);
        let errors = file(&text).errors();
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(errors[0].contains(place), "{errors:?}");
        assert!(errors[0].contains(part), "{errors:?}");
    }
    let warned = |adapter: &str, redis: &str| {
        let text = format!(r#"{{"adapter": {adapter}, "database": {{"redis": {redis}}}}}"#);
        let notices = file(&text).loaded().notices;
        notices
            .iter()
            .any(|it| it.to_string().contains("tls.ca_path"))
    };
    let files = r#"{"tls": {"ca_path": "c"}}"#;
    let nats = |servers: &str| {
        format!(
            r#"{{"driver": "nats", "nats": {{"servers": {servers}, "tls": {{"ca_path": "c"}}}}}}"#
        )
    };
    assert!(warned(r#"{"driver": "redis"}"#, files));
    assert!(!warned(
        r#"{"driver": "redis"}"#,
        r#"{"tls": {"enabled": true, "ca_path": "c"}}"#
    ));
    assert!(!warned(r#"{"driver": "local"}"#, files));
    assert!(warned(&nats(r#"["h", "tls://h"]"#), "{}"));
    assert!(!warned(&nats(r#"["tls://h"]"#), "{}"));
    for (text, place) in [
        (
            r#"{"rate_limiter": {"enabled": true, "driver": "redis-cluster"}}"#,
            "rate_limiter.driver",
        ),
        (r#"{"cache": {"driver": "redis-cluster"}}"#, "cache.driver"),
        (
            r#"{"cache": {"driver": "redis"}, "database": {"redis": {"tls": {"cert_path": "c"}}}}"#,
            "database.redis.tls.cert_path",
        ),
    ] {
        let errors = file(text).errors();
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(errors[0].contains(place), "{errors:?}");
    }
    file(r#"{"rate_limiter": {"enabled": false, "driver": "redis-cluster"}}"#).loaded();
}

/// What speaks to Redis: its section, and the section with its URL.
const OF_REDIS: [(&str, &str); 4] = [
    ("adapter", r#""redis": {"redis_pub_options": {"url": URL}}"#),
    ("cache", r#""redis": {"url_override": URL}"#),
    ("queue", r#""redis": {"url_override": URL}"#),
    (
        "rate_limiter",
        r#""redis": {"url_override": URL}, "enabled": true"#,
    ),
];

#[test]
fn what_components_share_of_redis_is_checked_for_each_that_uses_it() {
    let half = r#""tls": {"enabled": true, "cert_path": "c"}"#;
    let lacks_key = "needs database.redis.tls.key_path beside it";
    let sentinels = r#""sentinels": ["rediss://s:1"]"#;
    for (section, url) in OF_REDIS {
        let given = |driver: &str, url_is: &str, redis: &str| {
            let url = url.replace("URL", url_is);
            // Sentinels would have the queue in Redis too.
            let queue = match section {
                "queue" => "",
                _ => r#""queue": {"driver": "none"}, "#,
            };
            format!(
                r#"{{{queue}{section:?}: {{"driver": {driver:?}, {url}}}, "database": {{"redis": {{{redis}}}}}}}"#
            )
        };
        let nodes = format!(r#""cluster_nodes": ["h:1"], {half}"#);
        for (driver, url_is, redis, part) in [
            ("redis", "null", half, lacks_key),
            ("redis-cluster", "null", &nodes, lacks_key),
            ("redis", "null", sentinels, "rediss:// on a Sentinel needs"),
        ] {
            let text = given(driver, url_is, redis);
            let errors = file(&text).errors();
            assert!(
                errors.len() == 1 && errors[0].contains(part),
                "{text}: {errors:?}"
            );
        }
        let is_warned = |text: &str, part: &str| {
            let notices = file(text).loaded().notices;
            notices.iter().any(|it| it.text.contains(part))
        };
        let without = given("redis", "\"redis://h\"", r#""tls": {"enabled": true}"#);
        match section {
            "adapter" => assert!(file(&without).errors()[0].contains("would go without TLS")),
            _ => assert!(is_warned(&without, "goes without TLS")),
        }
        let ca = r#""tls": {"ca_path": "c"}, "sentinels": ["s:1"]"#;
        let (unused, unasked) = ("has no effect on the ", "not asked where");
        let plain = given("redis", "\"redis://h\"", ca);
        assert!(is_warned(&plain, unused) && is_warned(&plain, unasked));
        let with_tls = given("redis", "\"rediss://h\"", ca);
        assert!(!is_warned(&with_tls, unused));
        let cluster = given(
            "redis-cluster",
            "null",
            r#""cluster_nodes": ["h:1"], "tls": {"ca_path": "c"}"#,
        );
        assert!(is_warned(&cluster, unused));
        // Who does not speak to Redis has nothing to say of it.
        file(&given("DRIVER", "null", half).replace(r#""driver": "DRIVER", "#, "")).loaded();
    }
    let text = r#"{"queue": {"driver": "redis-cluster", "redis_cluster": {"nodes": []}}}"#;
    let errors = file(text).errors();
    let needs =
        "queue.redis_cluster.nodes: queue.driver = \"redis-cluster\" needs at least one node";
    assert!(errors.len() == 1 && errors[0].contains(needs), "{errors:?}");
    let half_for_two = format!(
        r#"{{"cache": {{"driver": "redis"}}, "queue": {{"driver": "redis"}}, "database": {{"redis": {{{half}}}}}}}"#
    );
    assert_eq!(file(&half_for_two).errors().len(), 1, "it is said once");
}
