//! What goes wrong around a server, and what a reload reaches: a clear sentence, nothing lost.

use std::net::TcpListener;

use serde_json::{Value, json};

use crate::support::config::Config;
use crate::support::eventually;
use crate::support::server::{Server, next_port, own_address};
use crate::support::webhook::WebhookSink;

fn app(json: &mut Value) -> &mut Value {
    &mut json["app_manager"]["array"]["apps"][0]
}

/// Adds an app, which shows when the reload is through.
fn reloads_with(server: &Server, marker: &str, change: impl FnOnce(&mut Value)) {
    server.reloads(|json| {
        let mut more = app(json).clone();
        for (key, value) in [("id", "-id"), ("key", "-key"), ("secret", "-secret")] {
            more[key] = json!(format!("{marker}{value}"));
        }
        let apps = json["app_manager"]["array"]["apps"].as_array_mut();
        apps.expect("a list").push(more);
        change(json);
    });
    eventually("the reload to reach every shard", || {
        let mut wire = server.wire();
        wire.upgrades(&format!("/app/{marker}-key?protocol=7"), "");
        let text = String::from_utf8_lossy(&wire.frame().payload).into_owned();
        text.contains("connection_established").then_some(())
    });
}

#[test]
fn a_reload_changes_the_log_level() {
    let server = Server::start(&Config::new(), 1);
    let told = || server.log().matches("configuration reloaded").count();
    reloads_with(&server, "quiet", |json| {
        json["logging"] = json!({"level": "error"});
    });
    reloads_with(&server, "loud", |json| {
        json["logging"] = json!({"level": "info"});
    });
    eventually("the second reload in the log", || {
        (told() > 0).then_some(())
    });
    // The first one was told to nobody.
    assert_eq!(told(), 1, "{}", server.log());
}

#[test]
fn a_reload_changes_limits_and_webhooks_and_a_broken_file_keeps_them() {
    let mut sink = WebhookSink::start();
    let config = Config::new().with_app(json!({"max_connections": 50}));
    let server = Server::start(&config, 1);
    let mut alice = server.client("alice");
    reloads_with(&server, "limited", |json| {
        app(json)["max_connections"] = json!(2);
        app(json)["webhooks"] = json!([sink.entry(&["channel_occupied"])]);
    });
    alice.subscribes("news");
    assert_eq!(sink.next()["channel"], "news");
    let mut bob = server.client("bob");
    let is_full = || {
        let mut wire = server.wire();
        wire.upgrades("/app/app-key?protocol=7", "");
        String::from_utf8_lossy(&wire.frame().payload).contains("4004")
    };
    assert!(is_full());
    server.reloads(|json| {
        app(json)["max_connections"] = json!(0);
        app(json)["webhooks"] = json!("nonsense");
    });
    eventually("the refusal in the log", || {
        let log = server.log();
        log.contains("the new configuration is refused; the old one stays")
            .then_some(())
    });
    assert!(is_full());
    bob.subscribes("sport");
    assert_eq!(sink.next()["channel"], "sport");
    assert_eq!(
        server.metric("sockudo_config_last_reload_success"),
        Some(0.0)
    );
}

#[test]
fn an_app_that_gets_its_first_limit_counts_who_is_there_already() {
    for shards in [1, 3] {
        let server = Server::start(&Config::new(), shards);
        let mut early: Vec<_> = (0..4)
            .map(|number| server.client(&number.to_string()))
            .collect();
        reloads_with(&server, "limited", |json| {
            app(json)["max_connections"] = json!(3);
        });
        let told = || {
            let mut wire = server.wire();
            wire.upgrades("/app/app-key?protocol=7", "");
            String::from_utf8_lossy(&wire.frame().payload).into_owned()
        };
        // Shards count them in slices.
        eventually("all to be counted", || {
            told().contains("4004").then_some(())
        });
        for client in &mut early {
            client.subscribes("news"); // Nobody is sent away.
        }
        early.truncate(2);
        eventually("a place", || {
            told().contains("connection_established").then_some(())
        });
        // The second limit does not count them again.
        reloads_with(&server, "again", |json| {
            app(json)["max_connections"] = json!(0);
        });
        reloads_with(&server, "four", |json| {
            app(json)["max_connections"] = json!(3);
        });
        eventually("a place", || {
            told().contains("connection_established").then_some(())
        });
    }
}

#[test]
fn a_reload_names_the_keys_that_need_a_restart() {
    let server = Server::start(&Config::new(), 1);
    reloads_with(&server, "more", |json| json["net"] = json!({"backlog": 77}));
    eventually("the key in the log", || {
        let log = server.log();
        let mut lines = log.lines();
        lines
            .any(|line| line.contains("with a restart only") && line.contains("net.backlog"))
            .then_some(())
    });
}

#[test]
fn a_port_that_is_taken_is_refused_with_its_holder() {
    let server = Server::start(&Config::new(), 1);
    let taken = TcpListener::bind((own_address(), next_port())).expect("a free port");
    let address = taken.local_addr().expect("it is bound");
    let port = address.port().to_string();
    let holder = format!("(pid {}) on {address}", std::process::id());
    for (flags, part) in [
        (["--port", &port, "--metrics-port", "0"], "cannot listen on"),
        (["--port", "0", "--metrics-port", &port], "metrics.port ="),
    ] {
        let output = server.has_run(&[&["serve"], &flags[..]].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{flags:?}: {said}");
        assert!(said.contains(part), "{flags:?}: {said}");
        assert!(said.contains("it is held by "), "{flags:?}: {said}");
        assert!(said.contains(&holder), "{flags:?}: {said}");
    }
}

#[test]
fn a_full_disk_under_the_log_costs_lines_and_nothing_else() {
    let config = Config::new().with_a_full_disk();
    let mut server = Server::spawn(&config, 1);
    eventually("the server", || {
        let stream = std::net::TcpStream::connect(server.address);
        stream.is_ok().then_some(())
    });
    let mut alice = eventually("the first client", || {
        let is_ready = server.gets("/up").status == 200;
        is_ready.then(|| server.client("alice"))
    });
    alice.subscribes("news");
    server.api().publishes("e", "news", "x");
    alice.expects("e", "news");
    let lost = || server.metric("sockudo_log_lines_lost_total").unwrap_or(0.0);
    let before = lost();
    assert!(before > 0.0, "the start alone writes lines");
    server.signal(libc::SIGUSR1);
    eventually("more lines to be lost", || (lost() > before).then_some(()));
    alice.expects_pong();
    assert!(server.is_running());
}
