//! The built program: exit codes, stdout and stderr.

use std::process::Command;

#[test]
fn the_program_exits_with_78_for_a_bad_configuration_and_says_why() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("cut.json"), "{\"port\": 6001, ").expect("ours");
    std::fs::write(folder.path().join("warn.json"), "{\"history\": {}}").expect("ours");
    let run = |arguments: &[&str], variables: &[(&str, &str)]| {
        let output = Command::new(env!("CARGO_BIN_EXE_sockudo"))
            .args(arguments)
            .env_clear()
            .envs(variables.iter().copied())
            .current_dir(folder.path())
            .output()
            .expect("the program was built");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (
            output.status.code(),
            text(&output.stdout),
            text(&output.stderr),
        )
    };
    for (arguments, variables, part) in [
        (
            &["-c", "cut.json"][..],
            &[][..],
            "cut.json:1: not valid JSON",
        ),
        (
            &["serve", "-c", "cut.json"],
            &[],
            "cut.json:1: not valid JSON",
        ),
        (&["-c", "none.json"], &[], "none.json: cannot be read"),
        (&[], &[("PORT", "abc")], "env PORT: port: \"abc\""),
        (
            &[],
            &[("ADAPTER_DRIVER", "reddis")],
            "env ADAPTER_DRIVER: adapter.driver: \"reddis\"",
        ),
        (&["--port", "abc"], &[], "--port: port: \"abc\""),
        (
            &["config", "show", "-c", "cut.json"],
            &[],
            "cut.json:1: not valid JSON",
        ),
    ] {
        let (code, out, diagnostics) = run(arguments, variables);
        assert_eq!(code, Some(78), "{arguments:?}: {diagnostics}");
        assert!(diagnostics.contains(part), "{arguments:?}: {diagnostics}");
        assert_eq!(out, "", "{arguments:?}");
    }
    let (code, out, _) = run(&["config", "check", "-c", "cut.json"], &[]);
    assert!(code == Some(78) && out.contains("1 error found"), "{out}");
    for (arguments, part) in [
        (&["doctor", "--connections", "abc"][..], "1..=1000000000"),
        (&["doctor", "--shards", "513"], "1..=512"),
        (&["tune", "--connections", "9", "--shards", "0"], "1..=512"),
    ] {
        let (code, _, diagnostics) = run(arguments, &[]);
        assert_eq!(code, Some(2), "{arguments:?}: {diagnostics}");
        let told = format!("not a whole number {part}");
        assert!(diagnostics.contains(&told), "{arguments:?}: {diagnostics}");
    }
    let tls = r#"{"ssl": {"enabled": true, "cert_path": "/no/c", "key_path": "/no/k"}}"#;
    std::fs::write(folder.path().join("tls.json"), tls).expect("ours");
    let (code, out, _) = run(&["config", "check", "-c", "tls.json"], &[]);
    let is_told = out.contains("ssl.cert_path") && out.contains("ssl.key_path");
    assert!(code == Some(78) && is_told, "{out}");
    let (_, out, _) = run(&["config", "--help"], &[]);
    assert!(out.contains("reference"), "{out}");
    for (variables, part) in [
        (&[][..], "on this host only"),
        (&[("HOST", "0.0.0.0")], "which others can reach"),
    ] {
        let (_, out, _) = run(&["config", "check", "--allow-demo-app"], variables);
        assert!(out.contains(part), "{variables:?}: {out}");
    }
    let (code, out, _) = run(&["config", "check", "-c", "warn.json"], &[]);
    assert!(
        code == Some(0) && out.contains("warning: warn.json:1: history: not supported"),
        "{out}"
    );
    let (code, out, _) = run(
        &["config", "check", "--strict", "--json", "-c", "warn.json"],
        &[],
    );
    let answer: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(
        (code, &answer["ok"]),
        (Some(1), &serde_json::Value::Bool(true))
    );
    assert_eq!(
        run(&["--prot"], &[]).0,
        Some(2),
        "a flag that does not exist is wrong usage"
    );
}

#[test]
fn a_check_says_the_limits_that_hold_for_each_app() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(
        folder.path().join("c.json"),
        r#"{"app_manager": {"array": {"apps": [
            {"id": "a", "key": "ka", "secret": "s", "max_connections": 7},
            {"id": "b", "key": "kb", "secret": "s", "max_event_batch_size": -1}]}}}"#,
    )
    .expect("ours");
    let run = |arguments: &[&str], variables: &[(&str, &str)]| {
        let output = Command::new(env!("CARGO_BIN_EXE_sockudo"))
            .args(["config", "check"])
            .args(arguments)
            .env_clear()
            .envs(variables.iter().copied())
            .current_dir(folder.path())
            .output()
            .expect("the program was built");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let out = run(&["-c", "c.json"], &[]);
    for line in [
        "limits: app a: max_connections 7, max_client_events_per_second 10, \
         max_backend_events_per_second unlimited, max_read_requests_per_second unlimited, \
         max_subscriptions_per_connection 4000, max_presence_members_per_channel 100, \
         max_presence_member_size_in_kb 1, max_channel_name_length 200, \
         max_event_name_length 200, max_event_payload_in_kb 100, \
         max_event_channels_at_once 100, max_event_batch_size 10\n",
        "max_event_batch_size unlimited\n",
    ] {
        assert!(out.contains(line), "{line}\n{out}");
    }
    let json: serde_json::Value =
        serde_json::from_str(&run(&["--json", "-c", "c.json"], &[])).expect("JSON");
    assert_eq!(json["apps"][0]["limits"]["max_connections"], 7);
    assert_eq!(
        json["apps"][1]["limits"]["max_event_batch_size"],
        serde_json::Value::Null
    );

    let credentials = [
        ("SOCKUDO_DEFAULT_APP_ID", "a"),
        ("SOCKUDO_DEFAULT_APP_KEY", "k"),
        ("SOCKUDO_DEFAULT_APP_SECRET", "s"),
    ];
    let out = run(&[], &credentials);
    for part in [
        "limits: app a: max_connections 100, max_client_events_per_second 100,",
        "warning: env SOCKUDO_DEFAULT_APP_ID: app_manager.array.apps[env]: variables made this \
         app, so limits hold that nobody set: max_connections = 100, \
         max_client_events_per_second = 100,",
    ] {
        assert!(out.contains(part), "{part}\n{out}");
    }
    let set = [
        &credentials[..],
        &[("SOCKUDO_DEFAULT_APP_MAX_CONNECTIONS", "0")],
    ]
    .concat();
    let out = run(&[], &set);
    assert!(out.contains("app a: max_connections unlimited"), "{out}");
    assert!(!out.contains("max_connections = 100"), "{out}");
}
