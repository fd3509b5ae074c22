//! Apps that stand in a database: found when somebody wants them, kept while it is gone.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::gate::Gate;
use crate::mariadb::MariaDb;
use crate::postgres::Postgres;
use crate::redis::Redis;
use crate::scale_out::starts;
use crate::support::api::Api;
use crate::support::client::Client;
use crate::support::config::{Config, merge};
use crate::support::eventually;
use crate::support::server::{Server, next_port, own_address};
use crate::support::skip::skip;
use crate::support::wire::Wire;

const TABLE: &str = "CREATE TABLE apps.applications (
    id VARCHAR(255) PRIMARY KEY, `key` VARCHAR(255) UNIQUE NOT NULL, secret VARCHAR(255) NOT NULL,
    enabled BOOLEAN NOT NULL DEFAULT TRUE, max_connections INT UNSIGNED NOT NULL DEFAULT 0,
    enable_client_messages BOOLEAN NOT NULL DEFAULT FALSE,
    max_client_events_per_second INT UNSIGNED NOT NULL DEFAULT 0, webhooks JSON NULL
) DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci";

/// A database with the apps `shop` and `other`, of which the server may only read.
pub(crate) fn database(test: &str) -> Option<MariaDb> {
    let Some(database) = MariaDb::start() else {
        skip(test, "there is no MariaDB; `scripts/test` installs it");
        return None;
    };
    database.run(&[
        "CREATE DATABASE apps",
        TABLE,
        "CREATE USER reader IDENTIFIED BY 'wanted'",
        "GRANT SELECT ON apps.applications TO reader",
    ]);
    for name in ["shop", "other"] {
        adds(&database, name);
    }
    Some(database)
}

fn adds(database: &MariaDb, name: &str) {
    database.run(&[&format!(
        "INSERT INTO apps.applications (id, `key`, secret) \
         VALUES ('{name}-id', '{name}-key', '{name}-secret')"
    )]);
}

fn config(database: &MariaDb, more: Value) -> Config {
    Config::new().with(keys(database, more))
}

pub(crate) fn keys(database: &MariaDb, more: Value) -> Value {
    let mut keys = json!({
        "app_manager": {"driver": "mysql", "array": {"apps": []}},
        "database": {"mysql": {
            "host": database.address.ip().to_string(), "port": database.address.port(),
            "username": "reader", "password": "wanted", "database": "apps", "timeout_ms": 1_000,
        }},
    });
    merge(&mut keys, more);
    keys
}

/// The code with which a new connection is refused; 0 = it is not.
fn refusal(server: &Server, key: &str) -> u64 {
    refusal_of(server, key, "")
}

/// With more headers.
fn refusal_of(server: &Server, key: &str, headers: &str) -> u64 {
    let mut wire = server.wire();
    wire.upgrades(&format!("/app/{key}?protocol=7&client=test"), headers);
    let first: Value = serde_json::from_slice(&wire.frame().payload).expect("JSON");
    if first["event"] == "pusher:connection_established" {
        return 0;
    }
    first["data"]["code"].as_u64().expect("a code")
}

fn is_refused(server: &Server, key: &str, code: u64) {
    let mut last = 0;
    eventually(&format!("{key} to be refused with {code}"), || {
        last = refusal(server, key);
        (last == code).then_some(())
    });
}

fn has_health(server: &Server, status: u16, word: &str) {
    eventually(&format!("/up to say {status} {word}"), || {
        let up = server.gets("/up");
        (up.status == status && up.header("x-health-check") == Some(word)).then_some(())
    });
}

#[test]
fn apps_of_a_database_serve_as_those_of_a_file() {
    let Some(database) = database("apps_of_a_database_serve_as_those_of_a_file") else {
        return;
    };
    for shards in [1, 3] {
        let server = Server::start(&config(&database, json!({})), shards);
        has_health(&server, 200, "OK");
        // Its first use is by a client, and by the API.
        let mut alice = server.client_of("shop", "alice");
        let channels: Vec<String> = (0..30).map(|number| format!("c-{number}")).collect();
        for channel in &channels {
            alice.subscribes(channel);
        }
        let mut api = server.api_of("shop");
        for channel in &channels {
            api.publishes("n", channel, "x");
            alice.expects("n", channel);
        }
        assert_eq!(server.api_of("other").get("/channels", &[]).status, 200);
        assert_eq!(server.gets("/up/shop-id").status, 200);
        // What the database takes for equal is not.
        for key in ["SHOP-KEY", "shop-key%20", "sh%C3%B6p-key", "nobody"] {
            assert_eq!(refusal(&server, key), 4001, "{key}");
        }
        assert_eq!(server.api_of("nobody").get("/channels", &[]).status, 404);
        assert_eq!(server.gets("/up/nobody").status, 404);
        let log = server.log();
        assert!(
            !log.contains("shop-secret") && !log.contains("wanted"),
            "{log}"
        );
    }
}

#[test]
fn a_node_is_ready_when_its_apps_are_in_the_database_as_it_was_told_to_write_them() {
    let test = "a_node_is_ready_when_its_apps_are_in_the_database";
    let Some(database) = database(test) else {
        return;
    };
    let seeds = |more: Value| {
        let app = json!({"id": "new-id", "key": "new-key", "secret": "new-secret"});
        let array = json!({"apps": [app]});
        let mut all = json!({"app_manager": {
            "seed": "if_missing", "create_schema": true, "array": array,
        }});
        merge(&mut all, more);
        config(&database, all)
    };
    // An account that may only read.
    let server = Server::spawn(&seeds(json!({})), 1);
    eventually("the log to say what stands in its way", || {
        let log = server.log();
        log.contains("app_manager.create_schema: ").then_some(())
    });
    has_health(&server, 503, "ERROR");
    assert!(!server.log().contains("new-secret"), "{}", server.log());
    database.run(&["GRANT ALL ON apps.applications TO reader"]);
    has_health(&server, 200, "OK");
    assert_eq!(refusal(&server, "new-key"), 0);
    // What somebody changed since stays.
    database.run(&["UPDATE apps.applications SET enabled = FALSE WHERE id = 'new-id'"]);
    drop(server);
    let server = Server::start(&seeds(json!({})), 1);
    has_health(&server, 200, "OK");
    assert_eq!(refusal(&server, "new-key"), 4003);
    assert_eq!(refusal(&server, "shop-key"), 0);
}

#[test]
fn what_changes_in_the_database_holds_within_its_time_and_at_once_after_a_reload() {
    let Some(database) = database("what_changes_in_the_database_holds") else {
        return;
    };
    let quick = json!({"app_manager": {"cache": {"ttl": 1}}});
    let servers = [json!({}), quick].map(|more| Server::start(&config(&database, more), 2));
    let mut clients: Vec<[Client; 2]> = servers
        .iter()
        .map(|server| ["shop", "other"].map(|name| server.client_of(name, name)))
        .collect();
    for server in &servers {
        is_refused(server, "late-key", 4001);
    }
    database.run(&[
        "UPDATE apps.applications SET enabled = FALSE WHERE id = 'shop-id'",
        "DELETE FROM apps.applications WHERE id = 'other-id'",
    ]);
    adds(&database, "late");
    let asked = servers[0].is_asked(&["apps", "reload"]);
    let said = String::from_utf8_lossy(&asked.stdout);
    assert_eq!(
        said, "looking again at the 2 apps that are known\n",
        "{asked:?}"
    );
    for [disabled, deleted] in &mut clients {
        disabled.is_closed_with(4003);
        deleted.is_closed_with(4001);
    }
    for server in &servers {
        is_refused(server, "late-key", 0);
        is_refused(server, "shop-key", 4003);
        is_refused(server, "other-key", 4001);
    }
}

#[test]
fn an_app_whose_row_is_wrong_is_disabled_and_serves_when_that_is_mended() {
    let Some(database) = database("an_app_whose_row_is_wrong_is_disabled") else {
        return;
    };
    for by_api in [false, true] {
        database.run(&[
            "UPDATE apps.applications SET webhooks = '[{\"url\": 5}]' WHERE id = 'shop-id'",
        ]);
        let server = Server::start(&config(&database, json!({})), 2);
        has_health(&server, 200, "OK");
        let by_client = || assert_eq!(refusal(&server, "shop-key"), 4003);
        if !by_api {
            by_client();
        }
        assert_eq!(server.api_of("shop").get("/channels", &[]).status, 403);
        assert_eq!(server.gets("/up/shop-id").status, 503);
        by_client();
        assert_eq!(refusal(&server, "other-key"), 0);
        assert_eq!(refusal(&server, "nobody"), 4001);
        let log = server.log();
        let told = log.matches("an app of the store is disabled").count();
        assert!(told == 1 && log.contains("webhooks[0].url"), "{log}");
        // Looked at again it is what it was.
        server.is_asked(&["apps", "reload"]);
        by_client();
        database.run(&["UPDATE apps.applications SET webhooks = NULL WHERE id = 'shop-id'"]);
        server.is_asked(&["apps", "reload"]);
        is_refused(&server, "shop-key", 0);
        assert_eq!(server.api_of("shop").get("/channels", &[]).status, 200);
        assert_eq!(server.gets("/up/shop-id").status, 200);
    }
}

fn is_occupied(api: &mut Api, channel: &str) -> bool {
    let reply = api.get(&format!("/channels/{channel}"), &[]);
    assert_eq!(reply.status, 200);
    reply.json()["occupied"] == true
}

#[test]
fn of_two_rows_with_one_key_the_first_that_is_known_keeps_it_and_the_log_names_both() {
    let Some(database) = database("of_two_rows_with_one_key") else {
        return;
    };
    let server = Server::start(&config(&database, json!({})), 3);
    let mut shop = server.api_of("shop");
    assert_eq!(shop.get("/channels", &[]).status, 200);
    database.run(&[
        "ALTER TABLE apps.applications DROP INDEX `key`",
        "UPDATE apps.applications SET `key` = 'shop-key' WHERE id = 'other-id'",
    ]);
    let mut other = Api::new(&server, "other-id", "shop-key", "other-secret");
    assert_eq!(other.get("/channels", &[]).status, 200);
    let mut alice = server.client_of("shop", "alice");
    alice.subscribes("one");
    assert!(is_occupied(&mut shop, "one") && !is_occupied(&mut other, "one"));
    // Given up, it is the other one's.
    database.run(&["UPDATE apps.applications SET `key` = 'fresh-key' WHERE id = 'shop-id'"]);
    assert!(server.is_asked(&["apps", "reload"]).status.success());
    eventually("the key to lead to the other app", || {
        let mut bob = server.client_of("shop", "bob");
        bob.subscribes("two");
        is_occupied(&mut other, "two").then_some(())
    });
    let log = server.log();
    let told: Vec<&str> = log.lines().filter(|it| it.contains("one key")).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("other-id") && told[0].contains("shop-id"));
    assert!(!told[0].contains("shop-key"), "{told:?}");
}

#[test]
fn nodes_of_a_cluster_share_apps_and_hear_of_their_changes() {
    let name = "nodes_of_a_cluster_share_apps_and_hear_of_their_changes";
    let Some(database) = database(name) else {
        return;
    };
    let Some(redis) = Redis::start() else {
        return skip(name, "no redis-server");
    };
    let nodes = ["a", "b"].map(|name| starts(&redis, name, keys(&database, json!({}))));
    let mut alice = nodes[0].client_of("shop", "alice");
    alice.joins("presence-room", "1");
    // The other node has not used the app yet: it learns what there is of it when it does.
    eventually("the other node to know of her", || {
        let mut api = nodes[1].api_of("shop");
        let users = api.reads("/channels/presence-room/users", &[]);
        (users == json!({"users": [{"id": "1"}]})).then_some(())
    });
    let mut bob = nodes[1].client_of("shop", "bob");
    bob.joins("presence-room", "2");
    alice.expects_member_added("presence-room", "2");
    database.run(&["UPDATE apps.applications SET enabled = FALSE WHERE id = 'shop-id'"]);
    assert!(nodes[0].is_asked(&["apps", "reload"]).status.success());
    bob.is_closed_with(4003);
    is_refused(&nodes[0], "shop-key", 4003);
}

#[test]
fn a_database_that_is_killed_under_load_takes_no_known_app_with_it() {
    let Some(mut database) = database("a_database_that_is_killed_under_load") else {
        return;
    };
    // Known apps are looked at again all the time.
    let quick = json!({"app_manager": {"cache": {"ttl": 1}}});
    let server = Server::start(&config(&database, quick), 2);
    let mut alice = server.client_of("shop", "alice");
    alice.subscribes("news");
    let mut api = server.api_of("shop");
    let mut published = 0;
    let mut works_for = |lasts: Duration| {
        let until = Instant::now() + lasts;
        while Instant::now() < until {
            api.publishes("n", "news", &published.to_string());
            alice.expects_frame(
                json!({"event": "n", "channel": "news", "data": published.to_string()}),
            );
            assert_eq!(refusal(&server, "shop-key"), 0);
            published += 1;
        }
    };
    works_for(Duration::from_secs(1));
    database.kill();
    works_for(Duration::from_secs(3));
    has_health(&server, 200, "DEGRADED");
    assert_eq!(server.metric("sockudo_backend_up"), Some(0.0));
    // Whether there is such an app cannot be known: they are to come back.
    assert_eq!(refusal(&server, "other-key"), 4100);
    assert_eq!(server.api_of("other").get("/channels", &[]).status, 503);
    works_for(Duration::from_secs(1));
    database.start_again();
    has_health(&server, 200, "OK");
    is_refused(&server, "other-key", 0);
    is_refused(&server, "nobody", 4001);
    // A server that accepts and never answers.
    database.signal("STOP");
    assert_eq!(refusal(&server, "somebody"), 4100);
    works_for(Duration::from_secs(2));
    has_health(&server, 200, "DEGRADED");
    database.signal("CONT");
    has_health(&server, 200, "OK");
    is_refused(&server, "somebody", 4001);
}

#[test]
fn a_look_up_is_counted_once_and_once_more_as_the_question_that_it_waited_for() {
    let Some(database) = database("a_look_up_is_counted_once") else {
        return;
    };
    let server = Server::start(&config(&database, json!({})), 1);
    let counts = || {
        ["shard_hit", "negative_hit", "bridge_hit", "store", "error"].map(|result| {
            let label = format!("result=\"{result}\"");
            server.metric_with("sockudo_app_lookup_total", &label)
        })
    };
    let are = |expected: [u32; 5]| {
        let expected = expected.map(|it| Some(f64::from(it)));
        eventually("look-ups to be counted", || {
            (counts() == expected).then_some(())
        });
    };
    are([0; 5]);
    assert_eq!(refusal(&server, "shop-key"), 0);
    are([1, 0, 0, 1, 0]);
    assert_eq!(refusal(&server, "shop-key"), 0);
    are([2, 0, 0, 1, 0]);
    for times in 1..=2 {
        assert_eq!(refusal(&server, "nobody"), 4001);
        are([2, times, 0, 2, 0]);
    }
}

#[test]
fn a_node_that_nobody_uses_says_when_its_database_is_gone_and_when_it_is_back() {
    let Some(mut database) = database("a_node_that_nobody_uses_says") else {
        return;
    };
    let server = Server::start(&config(&database, json!({})), 2);
    // Ten times what it may take.
    let says = |word: &str| {
        let deadline = Instant::now() + Duration::from_secs(100);
        while server.gets("/up").header("x-health-check") != Some(word) {
            assert!(Instant::now() < deadline, "waited for {word}");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    says("OK");
    database.signal("STOP");
    says("DEGRADED");
    database.signal("CONT");
    says("OK");
    database.kill();
    says("DEGRADED");
    database.start_again();
    says("OK");
}

#[test]
fn postgresql_behind_apps_may_die_and_come_back() {
    let Some(mut database) = Postgres::start() else {
        return skip("postgresql_behind_apps_may_die", "there is no postgres");
    };
    database.run(&[
        "CREATE TABLE applications (id TEXT PRIMARY KEY, key TEXT UNIQUE, secret TEXT)",
        "INSERT INTO applications SELECT n || '-id', n || '-key', n || '-secret'
            FROM unnest(ARRAY['shop', 'other']) n",
        "CREATE USER reader PASSWORD 'wanted'",
        "GRANT SELECT ON applications TO reader",
    ]);
    let address = database.address;
    let server = Server::start(
        &Config::new().with(json!({
            "app_manager": {"driver": "pgsql", "array": {"apps": []}, "cache": {"ttl": 1}},
            "database": {"postgres": {
                "host": address.ip().to_string(), "port": address.port(), "username": "reader",
                "password": "wanted", "timeout_ms": 1_000,
            }},
        })),
        2,
    );
    let mut alice = server.client_of("shop", "alice");
    alice.subscribes("news");
    let mut api = server.api_of("shop");
    assert_eq!(refusal(&server, "SHOP-KEY"), 4001);
    database.kill();
    has_health(&server, 200, "DEGRADED");
    api.publishes("n", "news", "x");
    alice.expects("n", "news");
    assert_eq!(refusal(&server, "other-key"), 4100);
    database.start_again();
    has_health(&server, 200, "OK");
    is_refused(&server, "other-key", 0);
    database.run(&["UPDATE applications SET key = 'new-key' WHERE id = 'shop-id'"]);
    is_refused(&server, "shop-key", 4001);
    is_refused(&server, "new-key", 0);
    let log = server.log();
    assert!(
        !log.contains("wanted") && !log.contains("shop-secret"),
        "{log}"
    );
}

#[test]
fn a_node_is_not_ready_before_its_database_has_answered_once() {
    let Some(mut database) = database("a_node_is_not_ready_before_its_database") else {
        return;
    };
    database.kill();
    let server = Server::spawn(&config(&database, json!({})), 2);
    eventually("the port", || {
        std::net::TcpStream::connect(server.address).ok()
    });
    has_health(&server, 503, "ERROR");
    assert_eq!(refusal(&server, "shop-key"), 4100);
    database.start_again();
    has_health(&server, 200, "OK");
    is_refused(&server, "shop-key", 0);
}

#[test]
fn a_flood_of_unknown_keys_reaches_the_database_a_little_and_delays_no_known_app() {
    let Some(database) = database("a_flood_of_unknown_keys") else {
        return;
    };
    let server = Server::start(&config(&database, json!({})), 2);
    let mut alice = server.client_of("shop", "alice");
    alice.subscribes("news");
    let mut api = server.api_of("shop");
    let before = database.counter("Com_stmt_execute");
    let began = Instant::now();
    let flood: Vec<_> = (0..2_000)
        .map(|number| {
            let mut wire = server.wire();
            let head = format!("GET /app/stranger-{number}?protocol=7 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n");
            wire.sends(head);
            if number % 100 == 0 {
                api.publishes("n", "news", &number.to_string());
                alice.expects("n", "news");
                assert_eq!(refusal(&server, "shop-key"), 0);
            }
            wire
        })
        .collect();
    alice.expects_pong();
    let asked = database.counter("Com_stmt_execute") - before;
    // Two seconds' worth at once, and what came in since.
    let allowed = 400 + 200 * (began.elapsed().as_secs() + 1) + 50;
    assert!(asked <= allowed, "{asked} questions, {allowed} allowed");
    drop(flood);
    assert_eq!(refusal(&server, "shop-key"), 0);
}

#[test]
fn a_flood_of_unknown_keys_from_one_address_delays_no_first_look_up_of_another() {
    let Some(database) = database("a_flood_of_unknown_keys_from_one_address") else {
        return;
    };
    let hops = json!({"rate_limiter": {"websocket_rate_limit": {"trust_hops": 1}}});
    let server = Server::start(&config(&database, hops), 2);
    let errors = || server.metric_with("sockudo_app_lookup_total", "result=\"error\"");
    // Connections first, so that what is asked comes at once.
    let mut flood: Vec<_> = (0..700).map(|_| server.wire()).collect();
    for (number, wire) in flood.iter_mut().enumerate() {
        // Of one /64.
        wire.sends(format!(
            "GET /app/stranger-{number}?protocol=7 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Version: 13\r\nX-Forwarded-For: 2001:db8::{number:x}\r\n\r\n"
        ));
    }
    let other = "X-Forwarded-For: 2001:db8:0:1::1\r\n";
    assert_eq!(refusal_of(&server, "shop-key", other), 0);
    eventually("the flood to be beyond its rate", || {
        (errors() > Some(0.0)).then_some(())
    });
    assert_eq!(refusal_of(&server, "other-key", other), 0);
}

#[test]
fn who_wants_apps_looked_at_again_is_told_that_the_database_is_gone() {
    let Some(mut database) = database("who_wants_apps_looked_at_again_is_told") else {
        return;
    };
    let server = Server::start(&config(&database, json!({})), 2);
    let reloads = |words: &[&str]| {
        let asked = server.is_asked(&[&["apps", "reload"], words].concat());
        let [out, said] = [asked.stdout, asked.stderr];
        let [out, said] = [out, said].map(|it| String::from_utf8_lossy(&it).into_owned());
        (asked.status.code(), out, said)
    };
    let is_refused_with = |part: &str, apps: usize| {
        for words in [&[][..], &["--json"]] {
            let (code, out, said) = reloads(words);
            let expected = match words {
                [] => String::new(),
                _ => format!("{:#}\n", json!({ "error": said.trim_end() })),
            };
            assert_eq!((code, out), (Some(1), expected), "{said}");
            let stay = format!("the {apps} apps that are known stay as they are");
            assert!(said.contains(part) && said.contains(&stay), "{said}");
        }
    };
    let succeeds = |apps: usize| {
        eventually("the database to be asked again", || {
            (reloads(&[]).0 == Some(0)).then_some(())
        });
        let said = format!("looking again at the {apps} apps that are known\n");
        assert_eq!(reloads(&[]), (Some(0), said, String::new()));
    };
    succeeds(0);
    database.signal("STOP");
    is_refused_with("does not answer within 1000 ms", 0);
    database.signal("CONT");
    succeeds(0);
    assert_eq!(refusal(&server, "shop-key"), 0);
    succeeds(1);
    database.kill();
    is_refused_with("cannot be reached", 1);
    database.start_again();
    succeeds(1);
    let report: Value = serde_json::from_str(&reloads(&["--json"]).1).expect("JSON");
    assert_eq!(report, json!({"driver": "mysql", "apps": 1}));
}

/// Connections with made-up keys, some 100 a second, all of one address. They end when it is dropped.
struct Flood {
    came: Arc<AtomicUsize>,
    is_over: Arc<AtomicBool>,
}

impl Flood {
    fn begins(server: &Server) -> Self {
        let (came, is_over) = (
            Arc::new(AtomicUsize::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        let flood = Self {
            came: Arc::clone(&came),
            is_over: Arc::clone(&is_over),
        };
        let address = server.address;
        std::thread::spawn(move || {
            let mut wires = VecDeque::new();
            while !is_over.load(Ordering::Relaxed) {
                for _ in 0..10 {
                    let number = came.fetch_add(1, Ordering::Relaxed);
                    let mut wire = Wire::connect(address);
                    let target = format!("/app/stranger-{number}?protocol=7");
                    wire.asks_upgrade(&target, "X-Forwarded-For: 192.0.2.1\r\n");
                    wires.push_back(wire);
                }
                // Each has its answer after four seconds.
                wires.drain(..wires.len().saturating_sub(500));
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        flood
    }

    /// Waits until so many more have come; before each look does something else.
    fn goes_on_for(&self, more: usize, mut meanwhile: impl FnMut()) {
        let until = self.came.load(Ordering::Relaxed) + more;
        eventually("the flood to go on", || {
            meanwhile();
            (self.came.load(Ordering::Relaxed) >= until).then_some(())
        });
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

/// On a database whose `keys` lead through a gate so slow that four connections answer fewer questions than a flood puts.
/// It has the apps `shop` and `late-0` to `late-4`.
fn keeps_no_other_question_waiting_in_a_flood(keys: Value, disables_shop: impl FnOnce()) {
    let mut all = json!({
        "app_manager": {"array": {"apps": []}},
        "database_pooling": {"max": 4},
        "rate_limiter": {"websocket_rate_limit": {"trust_hops": 1}},
    });
    merge(&mut all, keys);
    let server = Server::start(&Config::new().with(all), 2);
    let mut alice = server.client_of("shop", "alice");
    has_health(&server, 200, "OK");
    let lookups = |result: &str| {
        let label = format!("result=\"{result}\"");
        server.metric_with("sockudo_app_lookup_total", &label)
    };
    let flood = Flood::begins(&server);
    eventually("the flood to be more than can be answered", || {
        (lookups("error") > Some(100.0)).then_some(())
    });
    let is_well = || {
        let up = server.gets("/up");
        assert_eq!(up.header("x-health-check"), Some("OK"), "{}", up.text());
    };
    flood.goes_on_for(300, is_well);
    let other = "X-Forwarded-For: 198.51.100.1\r\n";
    for number in 0..5 {
        let key = format!("late-{number}-key");
        assert_eq!(refusal_of(&server, &key, other), 0, "{key}");
        is_well();
    }
    disables_shop();
    assert!(server.is_asked(&["apps", "reload"]).status.success());
    alice.is_closed_with(4003);
    // All of it happened in the flood, and what the database was asked was of use.
    let answered = lookups("store");
    flood.goes_on_for(100, is_well);
    assert!(lookups("store") > answered);
    let label = "role=\"app_manager\"";
    let faults = server.metric_with("sockudo_backend_errors_total", label);
    assert_eq!(faults, Some(0.0), "{}", server.log());
}

const SLOW: Duration = Duration::from_millis(60);

#[test]
fn a_flood_of_unknown_keys_on_a_slow_mariadb_keeps_no_other_question_waiting() {
    let Some(database) = database("a_flood_of_unknown_keys_on_a_slow_mariadb") else {
        return;
    };
    for number in 0..5 {
        adds(&database, &format!("late-{number}"));
    }
    let at = SocketAddr::from((own_address(), next_port()));
    let _gate = Gate::slow(at, database.address, SLOW);
    let through = json!({"database": {"mysql": {
        "host": at.ip().to_string(), "port": at.port(), "timeout_ms": 4_000,
    }}});
    keeps_no_other_question_waiting_in_a_flood(keys(&database, through), || {
        database.run(&["UPDATE apps.applications SET enabled = FALSE WHERE id = 'shop-id'"]);
    });
}

#[test]
fn a_flood_of_unknown_keys_on_a_slow_postgresql_keeps_no_other_question_waiting() {
    let Some(database) = Postgres::start() else {
        let test = "a_flood_of_unknown_keys_on_a_slow_postgresql";
        return skip(test, "there is no postgres; `scripts/test` installs it");
    };
    database.run(&[
        "CREATE TABLE applications (id TEXT PRIMARY KEY, key TEXT UNIQUE, secret TEXT, enabled BOOLEAN)",
        "INSERT INTO applications SELECT n || '-id', n || '-key', n || '-secret', TRUE FROM \
         unnest(ARRAY['shop', 'late-0', 'late-1', 'late-2', 'late-3', 'late-4']) n",
        "CREATE USER reader PASSWORD 'wanted'",
        "GRANT SELECT ON applications TO reader",
    ]);
    let at = SocketAddr::from((own_address(), next_port()));
    let _gate = Gate::slow(at, database.address, SLOW);
    let keys = json!({
        "app_manager": {"driver": "pgsql"},
        "database": {"postgres": {
            "host": at.ip().to_string(), "port": at.port(), "username": "reader",
            "password": "wanted", "timeout_ms": 4_000,
        }},
    });
    keeps_no_other_question_waiting_in_a_flood(keys, || {
        database.run(&["UPDATE applications SET enabled = FALSE WHERE id = 'shop-id'"]);
    });
}
