//! What an operator does: reload, disable, break the configuration, watch the numbers.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::on_one_and_three_shards;
use crate::support::config::{APP_ID, Config};
use crate::support::eventually;
use crate::support::server::{Server, own_address};
use crate::support::skip::skip;
use crate::support::wire::Wire;

// P-114
fn an_app_that_is_disabled_or_deleted_loses_its_sockets(shards: usize) {
    let config = Config::new()
        .and_app("off", json!({}))
        .and_app("gone", json!({}));
    let server = Server::start(&config, shards);
    let mut kept = server.client("kept");
    let mut disabled = server.client_of("off", "disabled");
    let mut deleted = server.client_of("gone", "deleted");
    kept.subscribes("news");
    server.reloads(|json| {
        let apps = json["app_manager"]["array"]["apps"]
            .as_array_mut()
            .expect("a list");
        apps.retain(|app| app["id"] != "gone-id");
        apps[1]["enabled"] = json!(false);
    });
    disabled.is_closed_with(4003);
    deleted.is_closed_with(4001);
    kept.expects_pong();
    server.api().publishes("e", "news", "x");
    kept.expects("e", "news");
}

// P-114
fn a_reload_lets_new_apps_in_and_a_broken_file_changes_nothing(shards: usize) {
    let mut server = Server::start(&Config::new(), shards);
    let mut alice = server.client("alice");
    server.reloads(|json| {
        let mut more = json["app_manager"]["array"]["apps"][0].clone();
        more["id"] = json!("new-id");
        more["key"] = json!("new-key");
        more["secret"] = json!("new-secret");
        let apps = json["app_manager"]["array"]["apps"]
            .as_array_mut()
            .expect("a list");
        apps.push(more);
    });
    eventually("the new app", || {
        let mut wire = server.wire();
        wire.upgrades("/app/new-key?protocol=7", "");
        let text = String::from_utf8(wire.frame().payload).expect("UTF-8");
        text.contains("connection_established").then_some(())
    });
    server.reloads(|json| json["app_manager"] = json!("nonsense"));
    alice.expects_pong();
    server.client_of("new", "still there").expects_pong();
    assert!(server.is_running());
}

// P-115
fn connections_that_come_and_go_leave_no_memory_behind(shards: usize) {
    let server = Server::start(&Config::new(), shards);
    let churn = || {
        for _ in 0..40 {
            let mut clients: Vec<_> = (0..50).map(|n| server.client(&n.to_string())).collect();
            for (number, client) in clients.iter_mut().enumerate() {
                client.asks_to_join("presence-room", &json!({"user_id": number % 7}).to_string());
            }
            for client in &clients {
                client.wire.resets_on_drop();
            }
        }
        eventually("the room to be empty", || {
            (server.api().reads("/channels", &[]) == json!({"channels": {}})).then_some(())
        });
        server.resident_bytes()
    };
    let resident: Vec<u64> = (0..6).map(|_| churn()).collect();
    println!("resident bytes after each two thousand connections: {resident:?}");
    // What leaks grows with every round. The allocator asks for huge pages, so that the first touch of
    // a fresh one adds 2 MiB at once: that is no connection's.
    let growths = resident
        .windows(2)
        .skip(1)
        .map(|pair| pair[1].saturating_sub(pair[0]));
    let least = growths.min().expect("several rounds");
    assert!(least < 1 << 16, "each round grows: {resident:?}");
    let whole = resident[5].saturating_sub(resident[1]);
    assert!(whole < 3 << 20, "{resident:?}");
}

// Section 1.4: the numbers that an operator watches are those of reality.
fn the_metrics_count_connections_and_messages(shards: usize) {
    let server = Server::start(&Config::new(), shards);
    let clients: Vec<_> = (0..3).map(|n| server.client(&n.to_string())).collect();
    let connected = || server.metric("sockudo_connected");
    eventually("three connections in the metrics", || {
        (connected() == Some(3.0)).then_some(())
    });
    drop(clients);
    eventually("none in the metrics", || {
        (connected() == Some(0.0)).then_some(())
    });
}

// Who cannot sign moves no number of an app but that of its refusals; each refusal has a number.
fn what_is_refused_is_counted_as_refused_alone(shards: usize) {
    let server = Server::start(&Config::new(), shards);
    let mut api = server.api();
    api.publishes("e", "news", "1");
    let path = format!("/apps/{APP_ID}/channels");
    assert_eq!(server.gets(&path).status, 401);
    assert_eq!(server.gets("/apps/no-such-app/channels").status, 404);
    let mut wire = server.wire();
    wire.upgrades("/app/app-key?protocol=4", "");
    _ = wire.frame();
    let counted = |name: &str, label: &str| server.metric_with(name, label).unwrap_or(0.0);
    let app = format!("app_id=\"{APP_ID}\"");
    eventually("all of it in the metrics", || {
        let refused = |label: &str| counted("sockudo_http_errors_total", label);
        let is_counted = refused("status=\"401\"") == 1.0
            && refused("app_id=\"unknown\"") == 1.0
            && counted("sockudo_http_calls_received_total", &app) == 1.0
            && counted(
                "sockudo_connection_errors_total",
                "error_type=\"protocol_error\"",
            ) == 1.0;
        is_counted.then_some(())
    });
}

// HAProxy asks OPTIONS when it is told no method.
fn a_bare_options_is_told_the_health_as_get_is_also_while_draining(shards: usize) {
    let config = Config::new().with(json!({"drain": {"deadline_s": 60, "lb_wait_s": 30}}));
    let server = Server::start(&config, shards);
    let ask = |request: &str| {
        let mut wire = server.wire();
        wire.sends(request);
        let reply = wire.reply();
        (
            reply.status,
            reply.header("x-health-check").map(str::to_owned),
        )
    };
    let bare = [
        "OPTIONS / HTTP/1.0\r\n\r\n",
        "OPTIONS / HTTP/1.1\r\nHost: x\r\n\r\n",
        "OPTIONS /up HTTP/1.0\r\n\r\n",
        "OPTIONS /ready HTTP/1.0\r\n\r\n",
    ];
    let preflight = "OPTIONS / HTTP/1.1\r\nHost: x\r\nOrigin: https://a.test\r\n\
                     Access-Control-Request-Method: GET\r\n\r\n";
    for request in bare {
        assert_eq!(ask(request), (200, Some("OK".to_owned())), "{request}");
    }
    server.drains();
    eventually("the drain to be known", || {
        (server.gets("/up").status == 503).then_some(())
    });
    for request in bare {
        eventually(request, || {
            (ask(request) == (503, Some("ERROR".to_owned()))).then_some(())
        });
    }
    assert_eq!(
        ask(preflight),
        (200, None),
        "a browser's question is none of health"
    );
}

// In a rolling restart half of those who came were told 4200 or found the node unready.
fn who_comes_while_a_server_drains_goes_to_the_other_one_on_its_port(shards: usize) {
    let config = Config::new().with(json!({"drain": {"deadline_s": 600, "lb_wait_s": 300}}));
    for is_there_before in [true, false] {
        let first = Server::start(&config, shards);
        assert!(!first.log().contains("listens here too"), "{}", first.log());
        let mut held = first.client("held");
        let second = is_there_before.then(|| first.is_succeeded(&config, shards));
        first.drains();
        let second = second.unwrap_or_else(|| first.is_succeeded(&config, shards));
        let log = second.log();
        let warning = log.lines().find(|line| line.contains("listens here too"));
        let names_it = warning.is_some_and(|it| it.contains(&format!("pid={}", first.pid())));
        assert!(names_it, "the second server names the first: {log}");
        // Closing a listener resets what is queued there, unless the kernel may move it.
        let may_reset = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_migrate_req")
            .map_or(true, |key| key.trim() != "1");
        eventually("the first server's listeners to be closed", || {
            let is_answered = answers_up(&second).is_some();
            assert!(is_answered || may_reset, "a connection was reset");
            (listeners(first.address) == shards).then_some(())
        });
        for number in 0..300 {
            assert_eq!(answers_up(&second), Some(200), "connection {number}");
        }
        second.client("newcomer").expects_pong();
        held.expects_pong();
    }
}

// Events published by way of a node without its bus reached nobody on the other.
fn a_server_that_cannot_serve_yet_leaves_the_port_to_the_one_that_does(shards: usize) {
    let mut first = Server::start(&Config::new(), shards);
    let nobody = std::net::TcpListener::bind((own_address(), 0)).expect("a free port");
    let bus = nobody.local_addr().expect("it is bound");
    drop(nobody);
    let config = Config::new().with(json!({
        "adapter": {"driver": "redis"},
        "database": {"redis": {"host": bus.ip().to_string(), "port": bus.port()}},
        "cluster": {"secret": "between nodes"},
    }));
    let second = first.is_followed(&config, shards);
    eventually("the second server to be there", || {
        let log = second.log();
        (log.contains("waits until it can serve") && log.contains("running")).then_some(())
    });
    for number in 0..100 {
        assert_eq!(answers_up(&first), Some(200), "connection {number}");
    }
    assert_eq!(listeners(first.address), shards, "the first server's");
    first.drains();
    assert!(first.exits().success());
    // Nobody else is left: better one that is not ready than none.
    eventually("the second server to listen", || answers_up(&second));
    assert_eq!(answers_up(&second), Some(503));
}

/// The status that a fresh connection gets, if it is not reset.
fn answers_up(server: &Server) -> Option<u16> {
    let stream = std::net::TcpStream::connect(server.address).ok()?;
    let mut wire = Wire::over(stream);
    wire.sends("GET /up HTTP/1.1\r\nHost: x\r\n\r\n");
    Some(wire.try_reply()?.status)
}

/// Sockets of all processes that listen at this address.
fn listeners(address: std::net::SocketAddr) -> usize {
    let std::net::SocketAddr::V4(address) = address else {
        unreachable!("tests use IPv4");
    };
    let host = u32::from_ne_bytes(address.ip().octets());
    let local = format!(" {host:08X}:{:04X} 00000000:0000 0A ", address.port());
    let table = std::fs::read_to_string("/proc/net/tcp").expect("Linux has it");
    table.lines().filter(|line| line.contains(&local)).count()
}

/// Runs the binary with a configuration file of this text, to its end.
fn refuses(text: &str, environment: &[(&str, &str)]) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("config.json");
    std::fs::write(&file, text).expect("the file can be written");
    let output = Command::new(env!("CARGO_BIN_EXE_sockudo"))
        .arg("serve")
        .arg("--config")
        .arg(&file)
        .envs(environment.iter().copied())
        .current_dir(folder.path())
        .output()
        .expect("the binary runs");
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

#[test]
fn a_broken_configuration_is_refused_with_78_and_a_reason() {
    for (name, text, environment, told) in [
        ("no JSON", "{", &[][..], "config.json"),
        ("a wrong type", r#"{"port": "lots"}"#, &[], "port"),
        ("an unknown key", r#"{"prot": 1}"#, &[], "prot"),
        (
            "an unknown driver",
            r#"{"adapter": {"driver": "reddis"}}"#,
            &[],
            "adapter.driver",
        ),
        ("a bad variable", "{}", &[("PORT", "abc")], "PORT"),
    ] {
        let (code, errors) = refuses(text, environment);
        assert_eq!(code, Some(78), "{name}: {errors}");
        assert!(errors.contains(told), "{name}: {errors}");
    }
    let missing = Command::new(env!("CARGO_BIN_EXE_sockudo"))
        .args(["serve", "--config", "/does/not/exist.json"])
        .output()
        .expect("the binary runs");
    assert_eq!(missing.status.code(), Some(78));
}

#[test]
fn the_secrets_are_in_no_log_line() {
    let config = Config::new()
        .with(json!({"debug": true}))
        .with_app(json!({"secret": "very-secret-value"}));
    let server = Server::start(&config, 1);
    let mut api = crate::support::api::Api::new(&server, "app-id", "app-key", "very-secret-value");
    api.publishes("e", "c", "x");
    let _unsigned = server.gets("/apps/app-id/channels");
    assert!(
        !server.log().contains("very-secret-value"),
        "{}",
        server.log()
    );
}

#[test]
fn without_configuration_there_is_a_demo_on_loopback_with_a_welcome_page() {
    let server = Server::start_demo();
    let mut alice = server.client("alice");
    alice.subscribes("my-channel");
    let page = server.gets("/");
    assert_eq!(page.status, 200);
    assert!(
        page.header("content-type")
            .is_some_and(|value| value.starts_with("text/html"))
    );
    let body = r#"{"name":"my-event","channels":["my-channel"],"data":"hello"}"#;
    let asks = |path: &str| json!({"path": path, "body": body}).to_string();
    let mut wire = server.wire();
    // The Python library takes ids of digits only; what was copied earlier goes on working.
    for path in ["/apps/1/events", "/apps/app-id/events"] {
        let question = asks(path);
        wire.sends(format!(
            "POST /welcome/sign HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n\r\n{question}",
            server.address,
            question.len()
        ));
        let signed: Value = wire.reply().json();
        let query = signed["query"].as_str().expect("a query");
        wire.sends(format!(
            "POST {path}?{query} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ));
        assert_eq!(wire.reply().status, 200, "{path}");
        alice.expects_frame(json!({"event": "my-event", "channel": "my-channel", "data": "hello"}));
    }
    for path in ["/up/1", "/up/app-id"] {
        assert_eq!(server.gets(path).status, 200, "{path}");
    }
    let question = asks("/apps/1/events");
    // A page of another site, pointed at this address by its name server, gets no signature.
    wire.sends(format!(
        "POST /welcome/sign HTTP/1.1\r\nHost: evil.test\r\nContent-Length: {}\r\n\r\n{question}",
        question.len()
    ));
    assert_eq!(wire.reply().status, 404);
    // A configured server has neither: balancers ask `/` by default.
    let configured = Server::start(&Config::new(), 1);
    let root = configured.gets("/");
    assert_eq!((root.status, &*root.text()), (200, "OK"));
    assert!(
        root.header("content-type")
            .is_some_and(|it| it.starts_with("text/plain"))
    );
    let mut wire = configured.wire();
    wire.sends("POST /welcome/sign HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}");
    assert_eq!(wire.reply().status, 404);
}

#[test]
fn an_ordinary_user_with_a_desktops_limits_can_run_seven_shards() {
    let Some(server) = Server::start_as_a_desktop_user(7) else {
        skip(
            "an_ordinary_user_with_a_desktops_limits_can_run_seven_shards",
            "only root can become an ordinary user",
        );
        return;
    };
    server.client("alice").expects_pong();
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", server.pid()));
    let limits = limits.expect("the server runs");
    let files = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let soft = files.and_then(|line| line.split_whitespace().nth(3));
    assert_eq!(soft, Some("4096"), "raised by the server to its hard limit");
}

fn a_connection_that_has_lasted_long_enough_is_sent_to_come_back(shards: usize) {
    let age = json!({"net": {"connection_age_max_s": 1}});
    let server = Server::start(&Config::new().with(age), shards);
    let mut clients = ["a", "b", "c", "d"].map(|name| server.client(name));
    // Only WebSockets go.
    let mut kept = server.wire();
    let asks = "GET /live HTTP/1.1\r\nHost: test\r\n\r\n";
    kept.sends(asks);
    assert_eq!(kept.reply().status, 200);
    for client in &mut clients {
        client.is_closed_with(4200);
    }
    kept.sends(asks);
    assert_eq!(kept.reply().status, 200);
    eventually("the count of the old", || {
        let count = server.metric("sockudo_shard_connections_aged_total");
        (count == Some(4.0)).then_some(())
    });
    let errors = server.metric("sockudo_connection_errors_total");
    assert_eq!(errors.unwrap_or(0.0), 0.0);
}

// Whoever is there already goes at the next look at its silence; one that speaks is looked at each second.
#[test]
fn a_reload_gives_connections_that_are_there_an_age() {
    let server = Server::start(&Config::new().with(json!({"activity_timeout": 1})), 1);
    let mut client = server.client("alice");
    server.reloads(|json| json["net"] = json!({"connection_age_max_s": 1}));
    let code = eventually("the connection to be old", || {
        client.sends(json!({"event": "pusher:ping", "data": {}}));
        let frame = client.wire.try_frame(Duration::from_millis(100))?;
        frame.close_code()
    });
    assert_eq!(code, 4200);
}

// A huge page that is touched for the first time stops its shard for milliseconds.
#[test]
fn a_server_takes_no_huge_pages() {
    let server = Server::start(&Config::new(), 2);
    server.client("alice").expects_pong();
    let of_server = |file: &str| {
        let path = format!("/proc/{}/{file}", server.pid());
        std::fs::read_to_string(path).expect("the server runs")
    };
    assert!(of_server("status").contains("\nTHP_enabled:\t0\n"));
    // Where the kernel gives them unasked, two are there before the program begins.
    let pages = of_server("smaps_rollup");
    let huge = pages
        .lines()
        .find_map(|line| line.strip_prefix("AnonHugePages:"));
    let huge = huge.and_then(|value| value.trim().strip_suffix(" kB"));
    let huge_kib: u64 = huge.expect("in kB").parse().expect("a number");
    assert!(huge_kib <= 4_096, "{huge_kib}");
}

on_one_and_three_shards! {
    who_comes_while_a_server_drains_goes_to_the_other_one_on_its_port,
    a_server_that_cannot_serve_yet_leaves_the_port_to_the_one_that_does,
    an_app_that_is_disabled_or_deleted_loses_its_sockets,
    a_reload_lets_new_apps_in_and_a_broken_file_changes_nothing,
    connections_that_come_and_go_leave_no_memory_behind,
    the_metrics_count_connections_and_messages,
    what_is_refused_is_counted_as_refused_alone,
    a_bare_options_is_told_the_health_as_get_is_also_while_draining,
    a_connection_that_has_lasted_long_enough_is_sent_to_come_back,
}
