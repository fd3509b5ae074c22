//! One key given twice in a file, in one spelling or in two.

use crate::{Given, file, in_an_app};

/// What is said of a key, `this` unless its place spells it, that line 1 or another has given as `first`.
fn twice(at: &str, this: &str, line: u32, first: &str) -> String {
    format!(
        "config.json:{at}: {this}is given in line {line} too, as {first}: leave one of them out"
    )
}

#[test]
fn a_key_that_a_file_gives_twice_is_refused_with_both_spellings() {
    for (text, at, this, first) in [
        (
            [
                r#"{"adapter.driver": "redis","#,
                r#""adapter": {"driver": "local"}}"#,
            ],
            "adapter.driver",
            "",
            r#""adapter.driver""#,
        ),
        (
            [
                r#"{"adapter": {"driver": "local"},"#,
                r#""adapter.driver": "local"}"#,
            ],
            "adapter.driver",
            r#""adapter.driver" "#,
            "adapter.driver",
        ),
        (
            [
                r#"{"ssl.enabled": false,"#,
                r#""ssl": {"ca_path": null, "enabled": false}}"#,
            ],
            "ssl.enabled",
            "",
            r#""ssl.enabled""#,
        ),
        (
            [
                r#"{"adapter": {"redis.prefix": "a","#,
                r#""redis": {"prefix": "a"}}}"#,
            ],
            "adapter.redis.prefix",
            "",
            r#""adapter.redis.prefix""#,
        ),
        (
            [
                r#"{"admission": {"max_connections": 3},"#,
                r#""maxConnections": 4}"#,
            ],
            "maxConnections",
            "",
            "admission.max_connections",
        ),
        (
            [
                r#"{"adapter": {"nats": {"user": "a","#,
                r#""username": "b"}}}"#,
            ],
            "adapter.nats.username",
            "",
            "adapter.nats.user",
        ),
    ] {
        let (text, at) = (text.join("\n"), format!("2: {at}"));
        assert_eq!(file(&text).errors(), [twice(&at, this, 1, first)], "{text}");
    }
    let text = "{\"userAuthenticationTimeout\": 30000,\n\"user_authentication_timeout\": 30}";
    let expected =
        "config.json:2: user_authentication_timeout: given twice in one object (first in line 1)";
    assert_eq!(file(text).errors(), [expected]);
}

#[test]
fn a_key_that_an_app_or_a_toml_file_gives_twice_is_refused_too() {
    for (rest, at, line, first) in [
        (
            r#""policy": {"limits": {"max_connections": 2}}"#,
            "policy.limits.max_connections",
            2,
            "max_connections",
        ),
        (
            r#""max_read_req_per_sec": 2, "max_read_requests_per_second": 2"#,
            "max_read_requests_per_second",
            3,
            "max_read_req_per_sec",
        ),
    ] {
        let text = in_an_app("max_connections", &format!("1,\n{rest}"));
        let at = format!("3: app_manager.array.apps[0].{at}");
        assert_eq!(
            file(&text).errors(),
            [twice(&at, "", line, first)],
            "{text}"
        );
    }
    let toml = "\"adapter.driver\" = \"local\"\n[adapter]\ndriver = \"local\"\n";
    let errors = Given {
        file: Some(("config.toml", toml)),
        ..Given::default()
    };
    let errors = errors.errors();
    let expected = "config.toml:3: adapter.driver: is given in line 1 too, as \"adapter.driver\": leave one of them out";
    assert_eq!(errors, [expected]);
}

#[test]
fn keys_that_only_stand_near_each_other_are_no_conflict() {
    let both = in_an_app(
        "max_connections",
        "1, \"policy\": {\"limits\": {\"max_event_batch_size\": 2}}",
    );
    for text in [
        r#"{"ssl.enabled": false, "ssl": {"cert_path": "", "key_path": ""}}"#,
        r#"{"ssl": {"cert_path": ""}, "ssl.enabled": false, "ssl.key_path": ""}"#,
        r#"{"adapter": {"driver": "local"}, "adapter.redis": {"prefix": "x"}, "adapter.redis.requests_timeout": 7}"#,
        r#"{"ssl": {"certPath": "", "keyPath": ""}}"#,
        r#"{"database": {"redis": {"cluster_nodes": null}}, "database.redis.cluster_nodes": ["h:1"]}"#,
        // Names that files of other versions have beside ours.
        r#"{"cluster_health": {"node_timeout_ms": 9000}, "adapter": {"cluster_health": {"node_timeout_ms": 9000}}}"#,
        r#"{"database": {"redis": {"cluster_nodes": [], "cluster": {"nodes": ["h:1"]}}}}"#,
        // The first is what the second is where nobody says it.
        r#"{"websocket_max_payload_kb": 64, "websocket": {"maxPayloadKb": 65}}"#,
        // Each says something of its own about one key.
        r#"{"websocket_max_payload_kb": 64, "websocket": {"max_message_size": 70000, "max_frame_size": 80000}}"#,
        r#"{"websocket": {"max_bytes": 300000, "max_backpressure": 400000}}"#,
        &both,
    ] {
        file(text).loaded();
    }
    // A file and a variable rank, and say so.
    let ranked = Given {
        env: &[("PORT", "7002")],
        ..file(r#"{"port": 7001}"#)
    };
    assert_eq!(ranked.loaded().config.port, 7002);
}
