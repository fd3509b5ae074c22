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
fn a_command_that_is_to_print_json_says_in_json_why_it_failed() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("cut.json"), "{\"port\": 6001, ").expect("ours");
    let socket = ["--socket", "/nowhere/admin.sock"];
    let cut = ["--config", "cut.json"];
    let send = ["--app", "a", "--event", "channel_occupied"];
    for (words, more, status, part) in [
        (&["upgrade"][..], &socket[..], 1, "/nowhere/admin.sock"),
        (&["top"], &socket, 1, "/nowhere/admin.sock"),
        (&["cluster", "status"], &socket, 1, "/nowhere/admin.sock"),
        (&["cluster", "rebalance"], &socket, 1, "/nowhere/admin.sock"),
        (&["apps", "reload"], &socket, 1, "/nowhere/admin.sock"),
        (
            &["webhooks", "dead", "list"],
            &socket,
            1,
            "/nowhere/admin.sock",
        ),
        (
            &["webhooks", "dead", "retry", "1"],
            &socket,
            1,
            "/nowhere/admin.sock",
        ),
        (
            &["webhooks", "dead", "drop", "--all"],
            &socket,
            1,
            "/nowhere/admin.sock",
        ),
        (
            &["webhooks", "send", send[0], send[1], send[2], send[3]],
            &cut,
            78,
            "cut.json:1",
        ),
        (&["upgrade"], &cut, 1, "cut.json:1"),
        (&["apps", "list"], &cut, 78, "cut.json:1"),
        (&["apps", "remove", "a"], &cut, 78, "cut.json:1"),
        (&["migrate-db"], &cut, 78, "cut.json:1"),
        (&["doctor"], &cut, 78, "cut.json:1"),
    ] {
        let told = |json: &[&str]| {
            let output = Command::new(env!("CARGO_BIN_EXE_sockudo"))
                .args(words.iter().chain(more).chain(json))
                .env_clear()
                .current_dir(folder.path())
                .output()
                .expect("the program was built");
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            assert_eq!(output.status.code(), Some(status), "{words:?}: {output:?}");
            (text(&output.stdout), text(&output.stderr))
        };
        let (out, in_words) = told(&[]);
        assert_eq!(out, "", "{words:?}");
        assert!(in_words.contains(part), "{words:?}: {in_words}");
        let (out, diagnostics) = told(&["--json"]);
        assert_eq!(diagnostics, in_words, "{words:?}");
        let answer: serde_json::Value = serde_json::from_str(&out).expect("one JSON object");
        let expected = serde_json::json!({ "error": in_words.trim_end() });
        assert_eq!(answer, expected, "{words:?}");
    }
}

#[test]
fn limits_that_nobody_set_are_one_short_line_for_all_apps() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let notes = |count: usize, more: &str| {
        let app = |id| format!(r#"{{"id": "a{id}", "key": "k{id}", "secret": "s"}}"#);
        let apps: Vec<String> = (0..count).map(app).collect();
        let apps = apps.join(",");
        let file = format!(r#"{{{more}"app_manager": {{"array": {{"apps": [{apps}]}}}}}}"#);
        std::fs::write(folder.path().join("c.json"), file).expect("ours");
        let output = Command::new(env!("CARGO_BIN_EXE_sockudo"))
            .args(["config", "check", "-c", "c.json"])
            .env_clear()
            .current_dir(folder.path())
            .output()
            .expect("the program was built");
        let out = String::from_utf8(output.stdout).expect("UTF-8");
        let lines = out.lines().filter(|line| line.contains("2.9 had none"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    for (count, name, whose) in [
        (1, "app_manager.array.apps[0]: ", "limits that are"),
        (2, "app_manager.array.apps: ", "limits of 2 apps that are"),
        (40, "app_manager.array.apps: ", "limits of 40 apps that are"),
    ] {
        let lines = notes(count, "");
        assert_eq!(lines.len(), 1, "{lines:?}");
        for part in [name, whose, "sockudo config check lists them"] {
            assert!(lines[0].contains(part), "{part}: {lines:?}");
        }
        assert!(lines[0].len() <= 220, "{lines:?}");
    }
    let upstream = r#""limits_mode": "upstream", "#;
    assert_eq!(notes(2, upstream), Vec::<String>::new());
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

/// A server that would have to open its ports finds one of them taken, which is another error.
struct Held {
    folder: tempfile::TempDir,
    port: std::net::TcpListener,
}

impl Held {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().expect("a temporary folder"),
            port: std::net::TcpListener::bind("127.0.0.1:0").expect("a free port"),
        }
    }

    /// Exit code and all that was said.
    fn run(&self, arguments: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, String) {
        let port = self.port.local_addr().expect("it is bound").port();
        let output = Command::new(env!("CARGO_BIN_EXE_sockudo"))
            .args(arguments)
            .args(["-c", "c.json"])
            .env_clear()
            .env("SOCKUDO_DEFAULT_APP_ID", "a")
            .env("SOCKUDO_DEFAULT_APP_KEY", "k")
            .env("SOCKUDO_DEFAULT_APP_SECRET", "s")
            .env("METRICS_HOST", "127.0.0.1")
            .env("METRICS_PORT", port.to_string())
            .envs(variables.iter().copied())
            .current_dir(self.folder.path())
            .output()
            .expect("the program was built");
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        (output.status.code(), said)
    }

    /// The check and the start refuse it alike, before a port is opened; each part is said.
    fn refuses(&self, text: &str, variables: &[(&str, &str)], parts: &[&str]) {
        std::fs::write(self.folder.path().join("c.json"), text).expect("ours");
        for arguments in [&["config", "check"][..], &["serve"]] {
            let (code, said) = self.run(arguments, variables);
            let place = format!("{text} {variables:?} {arguments:?}: {said}");
            assert_eq!(code, Some(78), "{place}");
            for part in parts {
                assert!(said.contains(part), "{part}: {place}");
            }
            assert!(!said.contains("hunter2"), "{place}");
        }
    }
}

#[test]
fn what_is_no_url_of_a_server_is_refused_by_the_check_and_before_a_start_opens_a_port() {
    let held = Held::new();
    let redis = [("ADAPTER_DRIVER", "redis")];
    for (url, shown) in [
        ("localhost:6379", "\"localhost:6379\""),
        ("http://x", "\"http://x\""),
        ("redis://", "\"redis://\""),
        ("redis://h:abc", "\"redis://h:abc\""),
        ("redis://h:1/x", "\"redis://h:1/x\""),
        ("redis://u:hunter2@h:abc", "\"redis://***@h:abc\""),
    ] {
        let place = "env REDIS_URL: adapter.redis.redis_pub_options.url: ";
        let told = format!("{place}{shown} is no URL of a Redis server: wants redis://");
        held.refuses("{}", &[redis[0], ("REDIS_URL", url)], &[&told]);
    }
    for url in ["redis://:hunter2#@h:1", "rediss://u:hunter2#@h:1"] {
        let parts = ["env REDIS_URL: ", "must be percent-encoded, as %23"];
        held.refuses("{}", &[redis[0], ("REDIS_URL", url)], &parts);
    }
    let cluster = r#"{"database": {"redis": {"cluster_nodes": ["h"]}}}"#;
    for (text, variables, part) in [
        (
            "{\"queue\": {\"driver\": \"redis\",\n\"redis\": {\"url_override\": \"h:1\"}}}",
            &[][..],
            "c.json:2: queue.redis.url_override: \"h:1\" is no URL",
        ),
        (
            "{}",
            &[
                ("CACHE_DRIVER", "redis"),
                ("SOCKUDO_CACHE_REDIS_URL_OVERRIDE", "h:1"),
            ],
            "env SOCKUDO_CACHE_REDIS_URL_OVERRIDE: cache.redis.url_override: \"h:1\" is no URL",
        ),
        (
            "{}",
            &[
                ("RATE_LIMITER_ENABLED", "true"),
                ("RATE_LIMITER_DRIVER", "redis"),
                ("SOCKUDO_RATE_LIMITER_REDIS_URL_OVERRIDE", "h:1"),
            ],
            "rate_limiter.redis.url_override: \"h:1\" is no URL",
        ),
        (
            cluster,
            &[
                ("ADAPTER_DRIVER", "redis-cluster"),
                ("REDIS_CLUSTER_NODES", "x:y"),
            ],
            "env REDIS_CLUSTER_NODES: adapter.cluster.nodes: \"x:y\" is no URL",
        ),
        (
            cluster,
            &[
                ("QUEUE_DRIVER", "redis-cluster"),
                ("REDIS_CLUSTER_NODES", "x:y"),
            ],
            "env REDIS_CLUSTER_NODES: queue.redis_cluster.nodes: \"x:y\" is no URL",
        ),
        (
            "{\"adapter\": {\"driver\": \"nats\",\n\"nats\": {\"servers\": [\"http://u:hunter2@x\"]}}}",
            &[],
            "c.json:2: adapter.nats.servers: \"http://***@x\" is no URL of a NATS server: wants nats://",
        ),
        (
            r#"{"adapter": {"driver": "nats", "nats": {"servers": []}}}"#,
            &[],
            "c.json:1: adapter.nats.servers names no server of NATS",
        ),
        (
            "{}",
            &[("ADAPTER_DRIVER", "nats"), ("NATS_SERVERS", ",")],
            "env NATS_SERVERS: adapter.nats.servers",
        ),
    ] {
        held.refuses(text, variables, &[part]);
    }
}

#[test]
fn files_folders_and_cores_that_are_not_there_are_refused_by_the_check_and_before_a_start_opens_a_port()
 {
    let held = Held::new();
    let of_server = |section: &str, rest: &str| {
        let tls = format!(r#""tls": {{"enabled": true, "ca_path": "/no/ca"}}{rest}"#);
        format!("{{\"database\": {{\"{section}\": {{{tls}}}}}}}")
    };
    let nats = |rest: &str| format!(r#"{{"adapter": {{"driver": "nats", "nats": {{{rest}}}}}}}"#);
    for (text, variables, part) in [
        (
            nats(r#""creds_file": "/no/creds""#),
            &[][..],
            "c.json:1: adapter.nats.creds_file: \"/no/creds\": cannot be read: No such file",
        ),
        (
            nats(r#""nkey_seed_file": "/no/seed""#),
            &[],
            "c.json:1: adapter.nats.nkey_seed_file: \"/no/seed\": cannot be read: No such file",
        ),
        (
            nats(r#""tls": {"ca_path": "/no/ca"}"#),
            &[],
            "c.json:1: adapter.nats.tls.ca_path: \"/no/ca\": cannot be read: No such file",
        ),
        (
            of_server("redis", ""),
            &[("ADAPTER_DRIVER", "redis"), ("CACHE_DRIVER", "redis")],
            "c.json:1: database.redis.tls.ca_path: \"/no/ca\": cannot be read: No such file",
        ),
        (
            of_server("mysql", ""),
            &[("APP_MANAGER_DRIVER", "mysql")],
            "c.json:1: database.mysql.tls.ca_path: \"/no/ca\" cannot be read: No such file",
        ),
        (
            of_server("postgres", ""),
            &[("APP_MANAGER_DRIVER", "pgsql")],
            "c.json:1: database.postgres.tls.ca_path: \"/no/ca\": cannot be read: No such file",
        ),
        (
            r#"{"admin": {"socket": "/no/such/admin.sock"}}"#.to_owned(),
            &[],
            "c.json:1: admin.socket: \"/no/such/admin.sock\": \"/no/such\" is not there",
        ),
        (
            r#"{"admin": {"socket": "/proc/version/admin.sock"}}"#.to_owned(),
            &[],
            "c.json:1: admin.socket: \"/proc/version/admin.sock\": \"/proc/version\" is no folder",
        ),
        (
            r#"{"unix_socket": {"enabled": true, "path": "/proc/version/a/b.sock"}}"#.to_owned(),
            &[],
            "c.json:1: unix_socket.path: \"/proc/version/a/b.sock\": \"/proc/version\" is no folder",
        ),
        (
            "{}".to_owned(),
            &[("SOCKUDO_BRIDGE_CORE", "4095")],
            "env SOCKUDO_BRIDGE_CORE: bridge_core: 4095 is no core that this process may use, which are ",
        ),
    ] {
        held.refuses(&text, variables, &[part]);
    }
    // Of one key it is told once, however many read it.
    let both = [("ADAPTER_DRIVER", "redis"), ("CACHE_DRIVER", "redis")];
    let (_, said) = {
        let text = of_server("redis", "");
        std::fs::write(held.folder.path().join("c.json"), text).expect("ours");
        held.run(&["config", "check"], &both)
    };
    assert!(said.contains("1 error found"), "{said}");
}

#[test]
fn what_no_driver_reads_is_refused_by_nobody() {
    let held = Held::new();
    for (text, variables) in [
        ("{}", &[("NATS_SERVERS", "http://x")][..]),
        (
            r#"{"adapter": {"nats": {"servers": [], "creds_file": "/no/creds", "tls": {"ca_path": "/no/ca"}}}}"#,
            &[],
        ),
        (
            r#"{"database": {"redis": {"tls": {"enabled": true, "ca_path": "/no/ca"}}}}"#,
            &[],
        ),
        (
            r#"{"database": {"mysql": {"tls": {"ca_path": "/no/ca"}}}}"#,
            &[("APP_MANAGER_DRIVER", "mysql")],
        ),
        (
            "{}",
            &[("REDIS_CLUSTER_NODES", "x:y"), ("QUEUE_DRIVER", "memory")],
        ),
        // Made by the start, or with it.
        (
            r#"{"unix_socket": {"enabled": true, "path": "/no/such/a.sock"}}"#,
            &[],
        ),
        (r#"{"admin": {"socket": "/run/no-such/admin.sock"}}"#, &[]),
        (r#"{"admin": {"socket": "none"}}"#, &[]),
    ] {
        std::fs::write(held.folder.path().join("c.json"), text).expect("ours");
        let (code, said) = held.run(&["config", "check"], variables);
        assert_eq!(code, Some(0), "{text} {variables:?}: {said}");
    }
}

#[test]
fn a_host_of_metrics_that_does_not_resolve_is_a_wrong_configuration() {
    let held = Held::new();
    std::fs::write(held.folder.path().join("c.json"), "{}").expect("ours");
    // A label of a name has at most 63 bytes.
    let host = "x".repeat(64);
    for key in ["host", "metrics.host"] {
        let name = key.replace('.', "_").to_uppercase();
        let variables = [("HOST", "127.0.0.1"), ("PORT", "0"), (&*name, &*host)];
        let (code, said) = held.run(&["serve"], &variables);
        assert_eq!(code, Some(78), "{said}");
        assert!(said.contains(&format!("{key} = ")), "{said}");
    }
}
