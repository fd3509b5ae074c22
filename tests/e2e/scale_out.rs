//! Several nodes on one bus: each is told what it would be told if they were one.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::bus::BusServer;
use crate::clients;
use crate::moto::Moto;
use crate::nats::Nats;
use crate::redis::Redis;
use crate::redis_cluster::RedisCluster;
use crate::support::client::Client;
use crate::support::config::{Config, merge};
use crate::support::server::{Server, own_address};
use crate::support::skip::skip;
use crate::support::webhook::WebhookSink;
use crate::support::wire::Wire;
use crate::support::{SILENCE, eventually};

/// What a node must be told of its bus.
pub(crate) trait BusKeys {
    fn keys(&self) -> Value;
}

impl BusKeys for Redis {
    fn keys(&self) -> Value {
        let (host, port) = (self.address.ip().to_string(), self.address.port());
        json!({
            "adapter": {"driver": "redis"},
            "database": {"redis": {"host": host, "port": port}},
        })
    }
}

impl BusKeys for RedisCluster {
    fn keys(&self) -> Value {
        // One is enough to find the others.
        let node = self.masters[1].address.to_string();
        json!({"adapter": {"driver": "redis-cluster", "cluster": {"nodes": [node]}}})
    }
}

impl BusKeys for Nats {
    fn keys(&self) -> Value {
        let server = format!("nats://{}", self.address);
        json!({"adapter": {"driver": "nats", "nats": {"servers": [server]}}})
    }
}

impl BusKeys for BusServer {
    fn keys(&self) -> Value {
        match self {
            Self::Redis(redis) => redis.keys(),
            Self::RedisCluster(cluster) => cluster.keys(),
            Self::Nats(nats) => nats.keys(),
        }
    }
}

/// A node of the cluster `test` on this bus.
pub(crate) fn node_config(bus: &impl BusKeys, name: &str, keys: Value) -> Config {
    let mut all = json!({
        "cluster": {
            "node_id": name, "name": "test", "secret": "between nodes",
            // A start listens for two of them.
            "heartbeat_ms": 400,
        },
    });
    merge(&mut all, bus.keys());
    merge(&mut all, keys);
    Config::new().with(all)
}

pub(crate) fn starts(bus: &impl BusKeys, name: &str, keys: Value) -> Server {
    Server::start(&node_config(bus, name, keys), 2)
}

pub(crate) fn is_ready(node: &Server) {
    eventually("a node to be ready", || {
        (node.gets("/up").status == 200).then_some(())
    });
}

pub(crate) fn hears(client: &mut Client, event: &str, channel: &str, data: &str) {
    client.expects_frame(json!({"event": event, "channel": channel, "data": data}));
}

#[test]
fn events_of_one_node_reach_subscribers_of_the_other_once_and_in_order() {
    for bus in
        BusServer::start_each("events_of_one_node_reach_subscribers_of_the_other_once_and_in_order")
    {
        let nodes = ["a", "b"].map(|name| starts(&bus, name, json!({})));
        let [mut alice, mut bob] = [nodes[0].client("alice"), nodes[1].client("bob")];
        for client in [&mut alice, &mut bob] {
            client.subscribes("news");
            client.subscribes("private-room");
        }
        let mut api = nodes[0].api();
        for number in 0..500 {
            api.publishes("n", "news", &number.to_string());
        }
        for client in [&mut alice, &mut bob] {
            for number in 0..500 {
                hears(client, "n", "news", &number.to_string());
            }
        }
        // Whoever is excepted may be on another node; of a client event it is the sender.
        let event =
            json!({"name": "n", "channel": "news", "data": "x", "socket_id": bob.socket_id});
        api.posts_event(&event);
        hears(&mut alice, "n", "news", "x");
        bob.triggers("client-typing", "private-room", json!("hi"));
        hears(&mut alice, "client-typing", "private-room", "hi");
        let event =
            json!({"name": "m", "channels": ["news", "private-room", "empty"], "data": "all"});
        api.posts_event(&event);
        for client in [&mut alice, &mut bob] {
            let mut heard: Vec<Value> = (0..2).map(|_| client.next()["channel"].clone()).collect();
            heard.sort_by_key(Value::to_string);
            assert_eq!(heard, ["news", "private-room"]);
            client.expects_nothing();
        }
        let shown = |node: &Server, name: &str| node.metric(&format!("sockudo_{name}"));
        for node in &nodes {
            assert_eq!(shown(node, "backend_up"), Some(1.0));
            assert_eq!(shown(node, "cluster_nodes"), Some(2.0));
            assert_eq!(shown(node, "cluster_lost_batches_total"), Some(0.0));
            assert_eq!(shown(node, "cluster_dropped_total"), Some(0.0));
            assert_eq!(shown(node, "horizontal_adapter_sent_requests"), Some(0.0));
            for grows in [
                "adapter_canary_seconds_count",
                "cluster_subscribe_seconds_count",
            ] {
                assert!(shown(node, grows) >= Some(2.0), "{grows}");
            }
        }
        assert!(shown(&nodes[0], "cluster_messages_total") >= Some(504.0));
    }
}

#[test]
fn a_subscription_begins_when_the_bus_has_confirmed_it_and_not_before() {
    for mut bus in
        BusServer::start_each("a_subscription_begins_when_the_bus_has_confirmed_it_and_not_before")
    {
        bus.kill();
        let node = Server::spawn(&node_config(&bus, "a", json!({})), 2);
        let mut alice = eventually("the port", || {
            std::net::TcpStream::connect(node.address).ok()?;
            Some(node.client("alice"))
        });
        let up = node.gets("/up");
        assert_eq!(
            (up.status, up.header("x-health-check")),
            (503, Some("ERROR"))
        );
        for channel in ["news", "more", "and-more"] {
            alice.asks_for(channel);
        }
        // What it says next is held, pings too.
        assert_eq!(alice.next_within(SILENCE), None);
        bus.start_again();
        for channel in ["news", "more", "and-more"] {
            alice.expects_frame(json!({
                "event": "pusher_internal:subscription_succeeded", "channel": channel, "data": "{}",
            }));
        }
        is_ready(&node);
        node.api().publishes("n", "news", "x");
        hears(&mut alice, "n", "news", "x");
    }
}

#[test]
fn a_bus_that_dies_is_said_and_after_it_all_goes_on() {
    let Some(mut redis) = Redis::start_with_password("wanted") else {
        return skip("scale_out", "no redis-server");
    };
    let keys = json!({"database": {"redis": {"password": "wanted"}}});
    let nodes = ["a", "b"].map(|name| starts(&redis, name, keys.clone()));
    let [mut alice, mut bob] = [nodes[0].client("alice"), nodes[1].client("bob")];
    for client in [&mut alice, &mut bob] {
        client.subscribes("news");
    }
    redis.kill();
    for node in &nodes {
        eventually("a node to say that the bus is gone", || {
            (node.gets("/up").status == 503).then_some(())
        });
        assert_eq!(node.metric("sockudo_backend_up"), Some(0.0));
    }
    // Who is here is told; what does not cross is lost.
    nodes[0].api().publishes("n", "news", "local");
    hears(&mut alice, "n", "news", "local");
    bob.expects_nothing();
    let mut carol = nodes[1].client("carol");
    carol.asks_for("news");
    assert_eq!(carol.next_within(SILENCE), None);
    redis.start_again();
    carol.expects("pusher_internal:subscription_succeeded", "news");
    for node in &nodes {
        is_ready(node);
    }
    nodes[0].api().publishes("n", "news", "crosses");
    for client in [&mut alice, &mut bob, &mut carol] {
        hears(client, "n", "news", "crosses");
    }
    let sees = |name: &str| nodes[0].metric(name).expect("it is shown");
    assert_eq!(sees("sockudo_backend_up"), 1.0);
    assert!(sees("sockudo_backend_reconnects_total") >= 4.0);
    assert!(sees("sockudo_cluster_dropped_total") >= 1.0);
    let log = nodes[0].log();
    assert!(log.contains("the bus is gone"), "{log}");
    assert!(!log.contains("wanted"), "{log}");
}

#[test]
fn clusters_on_one_redis_do_not_hear_each_other() {
    let Some(mut redis) = Redis::start() else {
        return skip("scale_out", "no redis-server");
    };
    let nodes = [
        ("a", json!({})),
        ("other name", json!({"cluster": {"name": "other"}})),
        ("other database", json!({"database": {"redis": {"db": 1}}})),
        ("other secret", json!({"cluster": {"secret": "guessed"}})),
        ("none", json!({"cluster": {"secret": null}})),
        (
            "rolled",
            json!({"cluster": {"secret": "next", "secrets": ["between nodes"]}}),
        ),
    ]
    .map(|(name, keys)| {
        let mut keys = keys;
        merge(
            &mut keys,
            json!({"cluster": {"node_id": name.replace(' ', "-")}}),
        );
        (name, starts(&redis, name, keys))
    });
    let mut clients: Vec<(&str, Client)> = Vec::new();
    for (name, node) in &nodes {
        let mut client = node.client(name);
        client.subscribes("news");
        clients.push((name, client));
    }
    nodes[0].1.api().publishes("n", "news", "x");
    for (name, client) in &mut clients {
        // Who has no secret believes everybody; while a secret is rolled both are believed.
        if ["a", "none", "rolled"].contains(name) {
            hears(client, "n", "news", "x");
        } else {
            client.expects_nothing();
        }
    }
    for (name, node) in &nodes {
        if ["a", "other secret"].contains(name) {
            eventually("a word of the other secret", || {
                let log = node.log();
                log.contains("not signed with this node's cluster.secret")
                    .then_some(())
            });
        }
    }
    assert!(
        redis
            .command(&["PUBSUB", "CHANNELS", "*news*"])
            .starts_with("*0")
    );
}

#[test]
fn the_last_event_of_a_cache_channel_is_known_where_somebody_subscribes() {
    let Some(redis) = Redis::start() else {
        return skip("scale_out", "no redis-server");
    };
    let nodes = ["a", "b"].map(|name| starts(&redis, name, json!({})));
    let mut bob = nodes[1].client("bob");
    bob.subscribes_to_empty_cache("cache-news");
    let mut api = nodes[0].api();
    api.publishes("n", "cache-news", "first");
    api.publishes("n", "cache-news", "{\"data\": \"second\"}");
    hears(&mut bob, "n", "cache-news", "first");
    hears(&mut bob, "n", "cache-news", "{\"data\": \"second\"}");
    for node in &nodes {
        let mut client = node.client("carol");
        client.subscribes("cache-news");
        hears(&mut client, "n", "cache-news", "{\"data\": \"second\"}");
        let known = node
            .api()
            .reads("/channels/cache-news", &[("info", "cache")]);
        assert_eq!(
            known["cache"]["data"],
            json!("{\"data\": \"second\"}"),
            "{known}"
        );
    }
}

#[test]
fn who_starts_under_the_name_of_a_living_node_gives_way_before_anybody_hears_of_it() {
    for bus in BusServer::start_each(
        "who_starts_under_the_name_of_a_living_node_gives_way_before_anybody_hears_of_it",
    ) {
        let nodes = ["a", "b"].map(|name| starts(&bus, name, json!({})));
        let mut bob = nodes[1].client("bob");
        bob.subscribes("news");
        let mut api = nodes[0].api();
        let mut double = Server::spawn(&node_config(&bus, "a", json!({})), 2);
        let mut published = 0;
        while double.is_running() {
            api.publishes("n", "news", &published.to_string());
            hears(&mut bob, "n", "news", &published.to_string());
            published += 1;
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        assert_eq!(double.exits().code(), Some(78));
        let log = double.log();
        assert!(!log.contains("ready node="), "{log}");
        let told = "cluster.node_id = \"a\": a node that runs already has this name; give each";
        assert!(log.contains(told), "{log}");
        api.publishes("n", "news", "after");
        hears(&mut bob, "n", "news", "after");
        let log = nodes[1].log();
        assert!(!log.contains("has started anew"), "{log}");
    }
}

#[test]
fn a_node_that_was_killed_starts_again_at_once_under_its_name() {
    let Some(redis) = Redis::start() else {
        return skip("scale_out", "no redis-server");
    };
    let peer = starts(&redis, "b", json!({}));
    let mut bob = peer.client("bob");
    bob.subscribes("news");
    for life in 0..3 {
        let mut node = starts(&redis, "a", json!({}));
        node.api().publishes("n", "news", &life.to_string());
        hears(&mut bob, "n", "news", &life.to_string());
        node.signal(libc::SIGKILL);
        node.exits();
    }
}

#[test]
fn of_two_that_start_at_once_under_one_name_one_stays() {
    let Some(redis) = Redis::start() else {
        return skip("scale_out", "no redis-server");
    };
    let config = node_config(&redis, "a", json!({}));
    let mut nodes = [(); 2].map(|()| Server::spawn(&config, 2));
    eventually("one to give way", || {
        let [a, b] = &mut nodes;
        (a.is_running() != b.is_running()).then_some(())
    });
    let stays = nodes
        .iter_mut()
        .find_map(|it| it.is_running().then_some(it));
    is_ready(stays.expect("one runs"));
}

#[test]
fn pusher_js_and_the_node_library_see_one_server() {
    let name = "pusher_js_and_the_node_library_see_one_server";
    let Some(mut redis) = Redis::start() else {
        return skip(name, "no redis-server");
    };
    let nodes = ["a", "b"].map(|name| starts(&redis, name, json!({})));
    let port = nodes[1].address.port().to_string();
    let Some(mut script) = clients::node(name, &nodes[0], "cluster.mjs", &[&port]) else {
        return;
    };
    script.says("ready for the bus to die");
    redis.kill();
    for node in &nodes {
        eventually("a node to say that the bus is gone", || {
            (node.gets("/up").status == 503).then_some(())
        });
    }
    redis.start_again();
    nodes.iter().for_each(is_ready);
    script.hears("it is back");
    script.succeeds();
}

#[test]
fn a_rolling_restart_loses_nothing_for_whoever_is_subscribed() {
    let name = "a_rolling_restart_loses_nothing_for_whoever_is_subscribed";
    for bus in BusServer::start_each(name) {
        let config = |name: &&str| node_config(&bus, name, json!({"shutdown_grace_period": 2}));
        let configs = ["a", "b", "c"].each_ref().map(config);
        let mut nodes = configs.each_ref().map(|config| Server::start(config, 2));
        let ports = nodes.each_ref().map(|node| node.address.port().to_string());
        let Some(mut script) =
            clients::node(name, &nodes[0], "rolling.mjs", &[&ports[1], &ports[2]])
        else {
            return;
        };
        for (number, config) in configs.iter().enumerate() {
            script.says(&format!("restart {number}"));
            nodes[number].drains();
            assert!(nodes[number].exits().success());
            nodes[number] = nodes[number].is_succeeded(config, 2);
            script.hears(&format!("restarted {number}"));
        }
        script.succeeds();
    }
}

/// Runs `scripts/cluster`; what it printed.
fn cluster(arguments: &[&str]) -> String {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/cluster");
    let output = std::process::Command::new(script)
        .args(arguments)
        .output()
        .expect("bash is there");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {said}");
    text
}

// What a newcomer tries first.
#[test]
fn the_script_starts_a_cluster_on_loopback_and_leaves_nothing_behind() {
    let name = "the_script_starts_a_cluster_on_loopback_and_leaves_nothing_behind";
    if Redis::start().is_none() {
        return skip(name, "no redis-server");
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path().join("cluster");
    let folder = folder
        .to_str()
        .expect("a temporary folder has a plain name");
    let host = own_address().to_string();
    let binary = env!("CARGO_BIN_EXE_sockudo");
    let mut arguments = vec!["up", "--host", &host, "--port", "20000"];
    arguments.extend(["--binary", binary, "--folder", folder]);
    let has_proxy = std::path::Path::new("/usr/sbin/haproxy").exists();
    match has_proxy {
        true => arguments.extend(["--proxy", "haproxy"]),
        false => skip(name, "no haproxy: without a proxy"),
    }
    let printed = cluster(&arguments);
    let mut addresses = vec![20_010, 20_020];
    addresses.extend(has_proxy.then_some(20_001));
    for port in addresses {
        assert!(
            printed.contains(&format!("http://{host}:{port}")),
            "{printed}"
        );
        let mut wire = Wire::connect((own_address(), port).into());
        wire.sends(format!("GET /up HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(wire.reply().status, 200);
    }
    let status = printed
        .lines()
        .find_map(|line| line.strip_prefix("status "));
    let mut status = status.expect("how to ask").split_whitespace();
    let asked = std::process::Command::new(status.next().expect("a program"))
        .args(status)
        .output()
        .expect("it can be run");
    let table = String::from_utf8_lossy(&asked.stdout);
    for node in ["node-1", "node-2"] {
        assert!(table.contains(node), "{table}{asked:?}");
    }
    cluster(&["down", "--folder", folder]);
    assert!(!std::path::Path::new(folder).exists());
    for port in [20_000, 20_001, 20_010, 20_020] {
        let connected = std::net::TcpStream::connect((own_address(), port));
        assert!(connected.is_err(), "something listens on {port}");
    }
}

#[test]
fn the_script_keeps_apps_in_a_database_of_its_own_if_it_is_asked_to() {
    let name = "the_script_keeps_apps_in_a_database_of_its_own_if_it_is_asked_to";
    if Redis::start().is_none() || !std::path::Path::new("/usr/sbin/mariadbd").exists() {
        return skip(name, "no redis-server or no MariaDB");
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path().join("cluster");
    let folder = folder
        .to_str()
        .expect("a temporary folder has a plain name");
    let host = own_address().to_string();
    let binary = env!("CARGO_BIN_EXE_sockudo");
    let mut arguments = vec!["up", "--host", &host, "--port", "22000", "--apps", "mysql"];
    arguments.extend(["--binary", binary, "--folder", folder]);
    let printed = cluster(&arguments);
    assert!(printed.contains(&format!("{host}:22008")), "{printed}");
    for port in [22_010, 22_020] {
        let mut wire = Wire::connect((own_address(), port).into());
        wire.sends(format!("GET /up/1 HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(wire.reply().status, 200);
    }
    cluster(&["down", "--folder", folder]);
    assert!(!std::path::Path::new(folder).exists());
    let connected = std::net::TcpStream::connect((own_address(), 22_008));
    assert!(connected.is_err(), "the database goes on");
}

/// Three nodes that share all backends, as the script starts them: pusher-js is on each, and a webhook is told once.
fn nodes_share_backends(name: &str, port: u16, how: &[&str]) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path().join("cluster");
    let folder = folder
        .to_str()
        .expect("a temporary folder has a plain name");
    let (host, port_text) = (own_address().to_string(), port.to_string());
    let binary = env!("CARGO_BIN_EXE_sockudo");
    let mut arguments = vec!["up", "--nodes", "3", "--host", &host, "--port", &port_text];
    arguments.extend(["--binary", binary, "--folder", folder]);
    arguments.extend(how);
    cluster(&arguments);
    let mut sink = WebhookSink::start();
    let hooks = format!("webhooks={}", json!([sink.entry(&["channel_occupied"])]));
    let config = format!("{folder}/node-1.json");
    for words in [
        &["apps", "set", "1", &*hooks, "--config", &config][..],
        &["apps", "reload", "--config", &config],
    ] {
        let output = std::process::Command::new(binary).args(words).output();
        let output = output.expect("it can be run");
        assert!(output.status.success(), "{words:?}: {output:?}");
    }
    let [first, second, third] = [10, 20, 30].map(|more| port + more);
    let others = [second, third].map(|port| port.to_string());
    let others = others.each_ref().map(String::as_str);
    let address = (own_address(), first).into();
    if let Some(script) = clients::node_at(name, address, "backends.mjs", &others) {
        script.succeeds();
        let mut told = [sink.next(), sink.next()];
        told.sort_by_key(|event| event["channel"].to_string());
        for (event, channel) in told.iter().zip(["cache-last", "news"]) {
            assert_eq!(
                event,
                &json!({"name": "channel_occupied", "channel": channel})
            );
        }
        sink.expects_nothing_for(SILENCE);
    }
    cluster(&["down", "--folder", folder]);
    assert!(!std::path::Path::new(folder).exists());
}

#[test]
fn nodes_share_a_database_and_a_redis_for_all_the_rest() {
    let name = "nodes_share_a_database_and_a_redis_for_all_the_rest";
    if Redis::start().is_none() || !std::path::Path::new("/usr/sbin/mariadbd").exists() {
        return skip(name, "no redis-server or no MariaDB");
    }
    let mut how = vec!["--adapter", "redis", "--apps", "mysql", "--queue", "redis"];
    how.extend(["--cache", "redis", "--rate-limiter", "redis"]);
    nodes_share_backends(name, 25_000, &how);
}

#[test]
fn nodes_share_apps_in_dynamodb_a_queue_in_sqs_and_a_bus_of_nats() {
    let name = "nodes_share_apps_in_dynamodb_a_queue_in_sqs_and_a_bus_of_nats";
    let servers = (Redis::start(), Nats::start(), Moto::start());
    if !matches!(servers, (Some(_), Some(_), Some(_))) {
        return skip(name, "no redis-server, no nats-server or no moto");
    }
    let mut how = vec!["--adapter", "nats", "--apps", "dynamodb", "--queue", "sqs"];
    how.extend(["--cache", "redis", "--rate-limiter", "redis"]);
    nodes_share_backends(name, 26_000, &how);
}

// What an operator copies.
#[test]
fn the_redis_user_of_the_documentation_may_do_all_that_is_needed() {
    let Some(mut redis) = Redis::start() else {
        return skip("scale_out", "no redis-server");
    };
    let page = include_str!("../../docs/scale-out.md");
    let line = page.lines().find(|line| line.starts_with("ACL SETUSER"));
    let words: Vec<&str> = line.expect("it is there").split(' ').collect();
    redis.command(&words);
    let keys = json!({"database": {"redis": {"username": "sockudo", "password": "password"}}});
    let nodes = ["a", "b"].map(|name| starts(&redis, name, keys.clone()));
    let mut bob = nodes[1].client("bob");
    bob.subscribes("news");
    nodes[0].api().publishes("n", "news", "x");
    hears(&mut bob, "n", "news", "x");
    for node in &nodes {
        let log = node.log();
        assert!(!log.contains("the bus between nodes"), "{log}");
    }
}

#[test]
fn the_user_of_the_documentation_may_do_all_that_is_needed_on_a_redis_cluster() {
    let Some(mut cluster) = RedisCluster::start() else {
        return skip("scale_out", "no redis-server");
    };
    let page = include_str!("../../docs/scale-out.md");
    let is_its = |line: &&str| line.starts_with("ACL SETUSER") && line.contains("+spublish");
    let line = page.lines().find(is_its);
    let words: Vec<&str> = line.expect("it is there").split(' ').collect();
    for master in &mut cluster.masters {
        master.command(&words);
    }
    let login = json!({"username": "sockudo", "password": "password"});
    let keys = json!({
        "database": {"redis": {"cluster": login}},
        "cluster": {"name": "shop"},
    });
    let nodes = ["a", "b"].map(|name| starts(&cluster, name, keys.clone()));
    let mut bob = nodes[1].client("bob");
    for number in 0..50 {
        let channel = format!("news-{number}");
        bob.subscribes(&channel);
        nodes[0].api().publishes("n", &channel, "x");
        hears(&mut bob, "n", &channel, "x");
    }
    for node in &nodes {
        let log = node.log();
        assert!(!log.contains("the bus between nodes"), "{log}");
    }
}

/// A channel hears from the other node again, whoever has its slot by then; what comes is in order.
#[test]
fn a_master_that_dies_or_gives_slots_away_takes_no_client_with_it() {
    let Some(mut cluster) = RedisCluster::start_with_replicas() else {
        return skip("scale_out", "no redis-server");
    };
    let nodes = ["a", "b"].map(|name| starts(&cluster, name, json!({})));
    let mut bob = nodes[1].client("bob");
    let channels: Vec<String> = (0..60).map(|number| format!("news-{number}")).collect();
    for channel in &channels {
        bob.subscribes(channel);
    }
    let mut api = nodes[0].api();
    let mut round = 0;
    let mut heard = BTreeMap::new();
    for step in 0..3 {
        match step {
            0 => {}
            1 => cluster.moves(0..500, 0, 1),
            _ => cluster.masters[2].kill(),
        }
        eventually("every channel to be heard again", || {
            round += 1;
            for channel in &channels {
                api.publishes("n", channel, &round.to_string());
            }
            // What crosses has crossed by then, or comes with the next round.
            std::thread::sleep(std::time::Duration::from_millis(300));
            nodes[1].api().publishes("n", "news-0", "end");
            let mut missing = channels.len();
            loop {
                let frame = bob.next();
                assert_eq!(frame["event"], "n", "{frame}");
                let data = frame["data"].as_str().expect("a text");
                let Ok(number) = data.parse::<u32>() else {
                    break;
                };
                let channel = frame["channel"].as_str().expect("a text").to_owned();
                let last = heard.insert(channel, number);
                assert!(last < Some(number), "{frame} after {last:?}");
                missing -= usize::from(number == round);
            }
            (missing == 0).then_some(())
        });
    }
    nodes.iter().for_each(is_ready);
}

#[test]
fn the_nats_user_of_the_documentation_may_do_all_that_is_needed() {
    let page = include_str!("../../docs/scale-out.md");
    let (_, block) = page
        .split_once("```text\nauthorization")
        .expect("it is there");
    let (block, _) = block.split_once("```").expect("it ends");
    let Some(nats) = Nats::start_with(&format!("authorization{block}")) else {
        return skip("scale_out", "no nats-server");
    };
    let keys = json!({
        "adapter": {"nats": {"username": "sockudo", "password": "password"}},
        "cluster": {"name": "shop"},
    });
    let nodes = ["a", "b"].map(|name| starts(&nats, name, keys.clone()));
    let mut bob = nodes[1].client("bob");
    bob.subscribes("news");
    nodes[0].api().publishes("n", "news", "x");
    hears(&mut bob, "n", "news", "x");
    for node in &nodes {
        let log = node.log();
        assert!(!log.contains("the bus between nodes"), "{log}");
        assert!(!log.contains("async_nats"), "{log}");
    }
}
