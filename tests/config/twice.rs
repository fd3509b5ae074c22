//! One key given twice in a file, in one spelling or in two.

use crate::{Given, file, in_an_app};

#[test]
fn a_key_that_a_file_gives_twice_is_refused_with_both_spellings() {
    let twice = |at: &str, this: &str, line: u32, first: &str| {
        format!(
            "config.json:{at}: {this}is given in line {line} too, as {first}: leave one of them out"
        )
    };
    let in_app = |rest: &str| in_an_app("max_connections", &format!("1,\n{rest}"));
    let app = "app_manager.array.apps[0].";
    for (text, expected) in [
        (
            "{\"adapter.driver\": \"redis\",\n\"adapter\": {\"driver\": \"local\"}}".to_owned(),
            twice("2: adapter.driver", "", 1, "\"adapter.driver\""),
        ),
        (
            "{\"adapter\": {\"driver\": \"local\"},\n\"adapter.driver\": \"local\"}".to_owned(),
            twice("2: adapter.driver", "\"adapter.driver\" ", 1, "adapter.driver"),
        ),
        (
            "{\"ssl.enabled\": false,\n\"ssl\": {\"ca_path\": null, \"enabled\": false}}".to_owned(),
            twice("2: ssl.enabled", "", 1, "\"ssl.enabled\""),
        ),
        (
            "{\"adapter\": {\"redis.prefix\": \"a\",\n\"redis\": {\"prefix\": \"a\"}}}".to_owned(),
            twice("2: adapter.redis.prefix", "", 1, "\"adapter.redis.prefix\""),
        ),
        (
            "{\"admission\": {\"max_connections\": 3},\n\"maxConnections\": 4}".to_owned(),
            twice("2: maxConnections", "", 1, "admission.max_connections"),
        ),
        (
            "{\"adapter\": {\"nats\": {\"user\": \"a\",\n\"username\": \"b\"}}}".to_owned(),
            twice("2: adapter.nats.username", "", 1, "adapter.nats.user"),
        ),
        (
            "{\"userAuthenticationTimeout\": 30000,\n\"user_authentication_timeout\": 30}".to_owned(),
            "config.json:2: user_authentication_timeout: given twice in one object (first in line 1)"
                .to_owned(),
        ),
        (
            in_app("\"policy\": {\"limits\": {\"max_connections\": 2}}"),
            twice(&format!("3: {app}policy.limits.max_connections"), "", 2, "max_connections"),
        ),
        (
            in_app("\"max_read_req_per_sec\": 2, \"max_read_requests_per_second\": 2"),
            twice(
                &format!("3: {app}max_read_requests_per_second"),
                "",
                3,
                "max_read_req_per_sec",
            ),
        ),
    ] {
        assert_eq!(file(&text).errors(), [expected], "{text}");
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
