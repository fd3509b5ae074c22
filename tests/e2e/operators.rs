//! What operators ask of a running node over its admin socket.

use std::collections::HashSet;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::gate::Gate;
use crate::mariadb::MariaDb;
use crate::nats::Nats;
use crate::redis::{Redis, next_address};
use crate::scale_out::{is_ready, starts};
use crate::sentinel::Sentinel;
use crate::support::config::Config;
use crate::support::eventually;
use crate::support::server::Server;
use crate::support::skip::skip;

fn said(output: &Output) -> (i32, String) {
    let code = output.status.code().expect("it ends by itself");
    let text = [&*output.stdout, &*output.stderr].concat();
    (code, String::from_utf8(text).expect("text"))
}

fn status(node: &Server) -> Value {
    let (code, text) = said(&node.is_asked(&["cluster", "status", "--json"]));
    assert_eq!(code, 0, "{text}");
    serde_json::from_str(&text).expect("JSON")
}

#[test]
fn a_node_that_is_alone_shows_itself_and_has_nobody_to_give_connections_to() {
    let node = Server::start(&Config::new(), 2);
    let clients = ["a", "b", "c"].map(|name| node.client(name));
    let alone = eventually("its numbers", || {
        let status = status(&node);
        (status["nodes"][0]["connections"] == 3).then_some(status)
    });
    assert_eq!(alone["adapter"], "local");
    assert_eq!(alone["is_ready"], true);
    assert_eq!(alone["nodes"].as_array().map(Vec::len), Some(1));
    let (code, text) = said(&node.is_asked(&["cluster", "rebalance"]));
    assert_eq!(
        (code, text.contains("this node is alone")),
        (1, true),
        "{text}"
    );
    let (code, table) = said(&node.is_asked(&["cluster", "status"]));
    assert!(code == 0 && table.contains("this one"), "{table}");
    drop(clients);
}

#[test]
fn nodes_see_each_other_and_a_full_one_gives_away_what_it_has_above_the_mean() {
    let Some(redis) = Redis::start() else {
        return skip("operators", "no redis-server");
    };
    let full = starts(&redis, "full", json!({"drain": {"rate_per_s": 5}}));
    let empty = starts(&redis, "empty", json!({}));
    for node in [&full, &empty] {
        is_ready(node);
    }
    let mut clients: Vec<_> = (0..21)
        .map(|number| full.client(&number.to_string()))
        .collect();
    clients
        .iter_mut()
        .for_each(|client| client.subscribes("news"));
    // Both know what both have.
    for node in [&full, &empty] {
        eventually("what all have", || {
            let status = status(node);
            let nodes = status["nodes"].as_array()?;
            let shown = |it: &Value| {
                Some((
                    it["node_id"].as_str()?.to_owned(),
                    it["connections"].as_u64()?,
                ))
            };
            let all: Option<HashSet<_>> = nodes.iter().map(shown).collect();
            let wanted = [("full".to_owned(), 21), ("empty".to_owned(), 0)];
            (all? == HashSet::from(wanted)).then_some(())
        });
    }
    let seen = status(&empty);
    assert_eq!(seen["nodes"][0]["node_id"], "empty");
    assert_eq!(seen["nodes"][0]["is_this"], true);
    assert_eq!(seen["nodes"][1]["state"], "live");
    let up = |it: &Value| (it["road"].clone(), it["is_up"].clone());
    let roads: Vec<_> = seen["roads"]
        .as_array()
        .expect("a list")
        .iter()
        .map(up)
        .collect();
    assert_eq!(
        roads,
        [
            (json!("events"), json!(true)),
            (json!("state"), json!(true))
        ]
    );
    let (code, text) = said(&empty.is_asked(&["cluster", "rebalance"]));
    assert!(code == 0 && text.starts_with("nothing to do"), "{text}");
    let (code, text) = said(&full.is_asked(&["cluster", "rebalance"]));
    assert_eq!(code, 0, "{text}");
    assert!(text.starts_with("closing 10 of 21 connections"), "{text}");
    eventually("eleven to be left", || {
        (status(&full)["nodes"][0]["connections"] == 11).then_some(())
    });
    full.api().publishes("n", "news", "x");
    let mut closed = 0;
    for client in &mut clients {
        let frame = client.next();
        match frame["event"].as_str() {
            Some("n") => {}
            Some("pusher:error") => {
                assert_eq!(frame["data"]["code"], 4200);
                closed += 1;
            }
            _ => panic!("{frame}"),
        }
    }
    assert_eq!(closed, 10);
}

#[test]
fn top_shows_a_node_once_as_json_and_in_a_terminal() {
    let name = "top_shows_a_node_once_as_json_and_in_a_terminal";
    let node = Server::start(&Config::new(), 2);
    let mut clients = ["a", "b", "c"].map(|name| node.client(name));
    clients
        .iter_mut()
        .for_each(|client| client.subscribes("news"));
    clients[0].subscribes("orders");
    let seen = eventually("its numbers", || {
        let (code, text) = said(&node.is_asked(&["top", "--json"]));
        assert_eq!(code, 0, "{text}");
        let top: Value = serde_json::from_str(&text).expect("JSON");
        let shards = top["shards"].as_array().expect("a list");
        let all: u64 = shards
            .iter()
            .filter_map(|it| it["connections"].as_u64())
            .sum();
        // A shard that is late is shown with what it said last.
        let has_all = all == 3 && top["channels"].as_array().map(Vec::len) == Some(2);
        has_all.then_some(top)
    });
    assert_eq!((&seen["health"], &seen["nodes"]), (&json!("ok"), &json!(1)));
    assert_eq!(
        seen["channels"],
        json!([
            {"app_id": "app-id", "channel": "news", "subscribers": 3, "everywhere": 3},
            {"app_id": "app-id", "channel": "orders", "subscribers": 1, "everywhere": 1},
        ])
    );
    // A script may say that it wants no view, too.
    let (code, text) = said(&node.is_asked(&["top", "--once", "--json"]));
    assert_eq!(code, 0, "{text}");
    let once: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(once["channels"], seen["channels"]);
    let (code, table) = said(&node.is_asked(&["top", "--once"]));
    assert!(code == 0 && table.contains("ok, 3 connections"), "{table}");
    assert!(
        table.contains("app-id  news")
            && table.contains("turn us")
            && table.contains("webhooks (memory)"),
        "{table}"
    );
    let Some(screen) = Screen::start(&node, "top") else {
        return skip(name, "there is no tmux: the live view was not looked at");
    };
    screen.shows("ok, 3 connections");
    screen.shows("sort by shard");
    screen.types("s");
    screen.shows("sort by busy");
    screen.types("p");
    screen.shows("paused");
    screen.types("q");
    eventually("the view to end", || (!screen.is_there()).then_some(()));
}

/// A terminal of its own with one command of the program in it.
struct Screen {
    socket: String,
}

impl Screen {
    /// `None` where there is no tmux.
    fn start(node: &Server, command: &str) -> Option<Self> {
        let socket = format!("sockudo-test-{}", node.pid());
        let program = node.asking(&[command]).join(" ");
        let screen = Self { socket };
        let started = screen.tmux(&["new-session", "-d", "-x", "120", "-y", "20", &program])?;
        assert!(started.status.success(), "{started:?}");
        Some(screen)
    }

    fn tmux(&self, arguments: &[&str]) -> Option<Output> {
        let mut command = Command::new("tmux");
        command.args(["-L", &self.socket, "-f", "/dev/null"]);
        command
            .args(arguments)
            .env("TERM", "xterm-256color")
            .output()
            .ok()
    }

    fn shows(&self, part: &str) {
        let mut last = String::new();
        eventually(&format!("{part:?} on the screen"), || {
            let output = self.tmux(&["capture-pane", "-p"]).expect("it runs");
            last = String::from_utf8_lossy(&output.stdout).into_owned();
            last.contains(part).then_some(())
        });
    }

    fn types(&self, key: &str) {
        self.tmux(&["send-keys", key]).expect("it runs");
    }

    fn is_there(&self) -> bool {
        self.tmux(&["has-session"])
            .is_some_and(|it| it.status.success())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // It has ended already where all went well.
        self.tmux(&["kill-server"]);
    }
}

/// `config check --online` on these keys: how it ends, and what it says of each backend.
fn checked(keys: &Value) -> (i32, Vec<(String, Option<String>)>) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("config.json");
    std::fs::write(&file, keys.to_string()).expect("a file");
    let output = Command::new(env!("CARGO_BIN_EXE_sockudo"))
        .args(["config", "check", "--online", "--json", "--config"])
        .arg(&file)
        .output()
        .expect("it starts");
    let (code, text) = said(&output);
    let answer: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(answer["ok"], code == 0);
    let backends = answer["backends"].as_array().expect("a list").iter();
    let backend = |it: &Value| {
        let (section, text) = (&it["section"], &it["text"]);
        assert_eq!(it["ok"], text.is_null());
        let section = section.as_str().expect("a text").to_owned();
        (section, text.as_str().map(str::to_owned))
    };
    (code, backends.map(backend).collect())
}

#[test]
fn a_check_asks_each_backend_and_names_the_keys_of_who_does_not_answer() {
    let Some(mut redis) = Redis::start_with_password("hunter-2") else {
        return skip("operators", "no redis-server");
    };
    let (host, port) = (redis.address.ip().to_string(), redis.address.port());
    let keys = |password: &str| {
        json!({
            "adapter": {"driver": "redis"}, "cache": {"driver": "redis"}, "queue": {"driver": "redis"},
            "rate_limiter": {"enabled": true, "driver": "redis"},
            "database": {"redis": {"host": host, "port": port, "password": password}},
        })
    };
    assert_eq!(checked(&json!({})), (0, vec![]));
    let (code, backends) = checked(&keys("hunter-2"));
    let sections = ["adapter", "cache", "rate_limiter", "queue"];
    let all_answer = sections.map(|section| (section.to_owned(), None));
    assert_eq!((code, &*backends), (0, &all_answer[..]));
    // It wrote nothing there.
    assert_eq!(redis.command(&["DBSIZE"]), ":0");
    for (password, part) in [
        ("wrong-2", "database.redis.password"),
        ("hunter-2", "cannot"),
    ] {
        let (code, backends) = checked(&keys(password));
        assert_eq!((code, backends.len()), (1, 4), "{backends:?}");
        for (section, text) in &backends {
            let text = text.as_deref().unwrap_or_default();
            assert!(
                text.contains(part) && !text.contains(password),
                "{section}: {text}"
            );
        }
        redis.kill();
    }
}

#[test]
fn a_table_that_the_start_makes_is_no_fault_of_its_database() {
    let Some(database) = MariaDb::start() else {
        return skip(
            "operators",
            "there is no MariaDB; `scripts/test` installs it",
        );
    };
    database.run(&[
        "CREATE DATABASE apps",
        "CREATE USER node IDENTIFIED BY 'wanted'",
    ]);
    database.run(&["GRANT SELECT ON apps.* TO node"]);
    let keys = |makes_table: bool| {
        let (host, port) = (database.address.ip().to_string(), database.address.port());
        json!({
            "app_manager": {"driver": "mysql", "create_schema": makes_table, "array": {"apps": []}},
            "database": {"mysql": {
                "host": host, "port": port, "username": "node", "password": "wanted", "database": "apps",
            }},
        })
    };
    let says = |makes_table| {
        let (code, backends) = checked(&keys(makes_table));
        let text = backends.into_iter().next().and_then(|(_, text)| text);
        (code, text.unwrap_or_default())
    };
    let (code, text) = says(false);
    assert!(code == 1 && text.contains("has no table"), "{text}");
    // As the start, which it could not make.
    let (code, text) = says(true);
    assert!(
        code == 1 && text.starts_with("app_manager.create_schema: "),
        "{text}"
    );
    database.run(&["GRANT CREATE ON apps.* TO node"]);
    assert_eq!(says(true), (0, String::new()));
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("config.json");
    std::fs::write(&file, keys(true).to_string()).expect("a file");
    let output = Command::new(env!("CARGO_BIN_EXE_sockudo"))
        .args(["config", "check", "--online", "--config"])
        .arg(&file)
        .output()
        .expect("it starts");
    let (_, text) = said(&output);
    let line = "backend: app_manager (mysql): answers; the start makes the table\n";
    assert!(text.contains(line), "{text}");
}

#[test]
fn who_is_refused_is_told_at_once_and_not_after_all_the_time_of_a_server_that_is_gone() {
    let name = "who_is_refused_is_told_at_once";
    let Some(redis) = Redis::start_with_password("hunter-2") else {
        return skip(name, "no redis-server");
    };
    let to = redis.address;
    let sentinel = Sentinel::start(to, 1, "requirepass hunter-2").expect("a redis-server");
    let nats = Nats::start_with("authorization { user: node, password: hunter-2 }");
    let wrong = "wrong-2";
    let one = |at: SocketAddr| json!({"host": at.ip(), "port": at.port(), "password": wrong});
    let cluster =
        |at: SocketAddr| json!({"cluster_nodes": [at.to_string()], "cluster": {"password": wrong}});
    let adapter = |driver: &str, redis: Value| {
        let queue = json!({"driver": "memory"});
        json!({"adapter": {"driver": driver}, "queue": queue, "database": {"redis": redis}})
    };
    let stores = |driver: &str, redis: Value| {
        json!({
            "cache": {"driver": driver}, "queue": {"driver": driver},
            "rate_limiter": {"enabled": true, "driver": driver}, "database": {"redis": redis},
        })
    };
    let by_sentinel = |at: SocketAddr| {
        let sentinels = [json!({"host": at.ip(), "port": at.port()})];
        json!({"sentinels": sentinels, "name": "shop", "sentinel_password": wrong})
    };
    let by_nats = |at: SocketAddr| {
        let nats = json!({"servers": [at.to_string()], "username": "node", "password": wrong});
        json!({"adapter": {"driver": "nats", "nats": nats}})
    };
    let refuses = |to: SocketAddr, keys: &dyn Fn(SocketAddr) -> Value, key: &str| {
        let at = next_address();
        let gate = Gate::open(at, to);
        let (code, backends) = checked(&keys(at));
        assert_eq!(code, 1, "{backends:?}");
        for (_, text) in &backends {
            let text = text.as_deref().unwrap_or_default();
            assert!(text.contains(key) && !text.contains(wrong), "{text}");
        }
        // In ten seconds each of them would try thirteen times.
        let (tries, most) = (gate.passed(), 5 * backends.len().max(4));
        assert!(tries > 0 && tries <= most, "{tries} tries: {key}");
    };
    let key = "database.redis.password";
    refuses(to, &|at| adapter("redis", one(at)), key);
    refuses(to, &|at| stores("redis", one(at)), key);
    let key = "database.redis.cluster";
    refuses(to, &|at| adapter("redis-cluster", cluster(at)), key);
    let in_cluster = |at: SocketAddr| {
        let mut keys = stores("redis-cluster", cluster(at));
        keys["queue"]["redis_cluster"] = json!({"nodes": [at.to_string()]});
        keys
    };
    refuses(to, &in_cluster, key);
    let key = "database.redis.sentinel_password";
    refuses(
        sentinel.address,
        &|at| adapter("redis", by_sentinel(at)),
        key,
    );
    refuses(
        sentinel.address,
        &|at| stores("redis", by_sentinel(at)),
        key,
    );
    match nats {
        Some(nats) => refuses(nats.address, &by_nats, "adapter.nats.password"),
        None => skip(name, "no nats-server"),
    }
}

#[test]
fn a_login_without_rights_another_protocol_and_a_silent_cluster_are_told_with_their_keys() {
    let name = "a_login_without_rights_another_protocol_and_a_silent_cluster";
    let (code_of, text_of) = (
        |keys: &Value| checked(keys).0,
        |keys: &Value| {
            let (_, backends) = checked(keys);
            let text = backends.into_iter().next().and_then(|(_, text)| text);
            text.unwrap_or_default()
        },
    );
    let listener = || TcpListener::bind("127.0.0.1:0").expect("a port");
    let at = |listener: &TcpListener| listener.local_addr().expect("it is bound");
    // It takes connections, and that is all.
    let silent = listener();
    let keys = json!({
        "adapter": {"driver": "redis-cluster"},
        "database": {"redis": {"cluster_nodes": [at(&silent).to_string()]}},
    });
    let text = text_of(&keys);
    assert!(text.contains("database.redis.cluster"), "{text}");
    let web = listener();
    let (host, port) = (at(&web).ip().to_string(), at(&web).port());
    // The thread ends with the test's process.
    std::thread::spawn(move || {
        for mut stream in web.incoming().flatten() {
            _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
        }
    });
    for keys in [
        json!({"adapter": {"driver": "redis"}}),
        json!({"cache": {"driver": "redis"}}),
    ] {
        let mut keys = keys;
        keys["database"] = json!({"redis": {"host": host, "port": port}});
        let text = text_of(&keys);
        let is_told = text.contains("does not speak") && text.contains("database.redis.host");
        assert!(is_told && !text.contains("\\n"), "{text}");
        assert_eq!(code_of(&keys), 1);
    }
    let user =
        r#"{user: node, password: hunter-2, permissions: {publish: ">", subscribe: "other.>"}}"#;
    let Some(nats) = Nats::start_with(&format!("authorization {{ users: [{user}] }}")) else {
        return skip(name, "no nats-server");
    };
    let at = next_address();
    let gate = Gate::open(at, nats.address);
    let servers = json!({"servers": [at.to_string()], "username": "node", "password": "hunter-2"});
    let text = text_of(&json!({"adapter": {"driver": "nats", "nats": servers}}));
    assert!(text.contains("does not let this user subscribe"), "{text}");
    let tries = gate.passed();
    assert!(tries > 0 && tries <= 20, "{tries} tries");
}

#[test]
fn a_node_in_demo_mode_cannot_be_asked_and_every_command_says_which_key_or_variable_is_missing() {
    let node = Server::start_demo();
    for command in [
        &["upgrade"][..],
        &["top", "--once"],
        &["cluster", "status"],
        &["cluster", "rebalance"],
        &["apps", "reload"],
        &["webhooks", "dead", "list"],
    ] {
        let mut sockudo = Command::new(env!("CARGO_BIN_EXE_sockudo"));
        sockudo.args(command).current_dir(node.folder()).env_clear();
        let (code, text) = said(&sockudo.output().expect("it starts"));
        assert_eq!(code, 1, "{command:?}: {text}");
        for part in ["demo mode", "SOCKUDO_ADMIN_SOCKET", "admin.socket"] {
            assert!(text.contains(part), "{command:?}: {text}");
        }
        sockudo.env("SOCKUDO_ADMIN_SOCKET", "none");
        let (code, text) = said(&sockudo.output().expect("it starts"));
        assert_eq!(code, 1, "{command:?}: {text}");
        assert!(text.contains("admin.socket is none"), "{command:?}: {text}");
    }
}
