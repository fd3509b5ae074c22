//! One node of several is followed by another process, and neither clients nor the other nodes notice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};

use crate::bus::BusServer;
use crate::redis::Redis;
use crate::returning::{Returning, TEN_THOUSAND};
use crate::scale_out::{is_ready, node_config, starts};
use crate::shared_state::reads;
use crate::support::client::Client;
use crate::support::config::merge;
use crate::support::server::Server;
use crate::support::skip::skip;
use crate::support::webhook::WebhookSink;
use crate::support::{SILENCE, eventually};

const LEASE_MS: u64 = 4_000;

/// Publishes numbers on `news`, one after the other, until it is told to end; how many.
fn publishes(node: &Server, name: &'static str, ends: &Arc<AtomicBool>) -> JoinHandle<u64> {
    let (mut api, ends) = (node.api(), Arc::clone(ends));
    std::thread::spawn(move || {
        let mut published = 0;
        while !ends.load(Ordering::Relaxed) {
            api.publishes(name, "news", &published.to_string());
            published += 1;
            std::thread::sleep(Duration::from_millis(2));
        }
        published
    })
}

/// Hears every number of each publisher, each in its order.
fn hears_all(client: &mut Client, published: &[(&str, u64)]) {
    let mut heard = vec![0; published.len()];
    let is_all = |heard: &[u64]| {
        published
            .iter()
            .zip(heard)
            .all(|(it, heard)| it.1 == *heard)
    };
    while !is_all(&heard) {
        let frame = client.next();
        let name = frame["event"].as_str().unwrap_or_default();
        let at = published.iter().position(|it| it.0 == name);
        let at = at.unwrap_or_else(|| panic!("{frame}"));
        assert_eq!(frame["data"], json!(heard[at].to_string()), "{frame}");
        heard[at] += 1;
    }
}

/// As the others see it: names and lives of all nodes.
fn lives(node: &Server) -> Vec<(String, String)> {
    let output = node.is_asked(&["cluster", "status", "--json"]);
    let status: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let text = |it: &Value| it.as_str().unwrap_or_default().to_owned();
    let nodes = status["nodes"].as_array().expect("a list").iter();
    let mut lives: Vec<_> = nodes
        .map(|it| (text(&it["node_id"]), text(&it["incarnation"])))
        .collect();
    lives.sort_unstable();
    lives
}

/// The lives of three nodes, once each knows all of them by name.
fn known_lives(nodes: &[Server; 3]) -> Vec<(String, String)> {
    eventually("the nodes to know each other", || {
        let all = nodes.each_ref().map(lives);
        let is_whole = all.iter().all(|it| *it == all[0] && it.len() == 3);
        let is_named = all[0].iter().all(|(name, _)| name.len() == 1);
        (is_whole && is_named).then(|| all[0].clone())
    })
}

#[test]
fn one_of_three_nodes_is_upgraded_under_load_and_neither_clients_nor_nodes_notice() {
    let name = "one_of_three_nodes_is_upgraded_under_load_and_neither_clients_nor_nodes_notice";
    for bus in BusServer::start_each(name) {
        let mut sink = WebhookSink::start();
        let hooks = sink.entry(&[
            "channel_occupied",
            "channel_vacated",
            "member_added",
            "member_removed",
        ]);
        let mut nodes = ["a", "b", "c"].map(|name| {
            let mut keys = json!({"webhooks": {"grace_ms": 0}});
            merge(&mut keys, json!({"cluster": {"lease_ms": LEASE_MS}}));
            let config = node_config(&bus, name, keys);
            Server::start(&config.with_app(json!({"webhooks": [hooks.clone()]})), 2)
        });
        let mut heard: Vec<Client> = Vec::new();
        let mut members: Vec<Client> = Vec::new();
        for (number, node) in nodes.iter().enumerate() {
            let mut client = node.client("listener");
            client.subscribes("news");
            heard.push(client);
            members.push(node.client("member"));
            let id = number.to_string();
            let ids = members[number].joins("presence-room", &id).ids;
            for earlier in &mut members[..number] {
                earlier.expects_member_added("presence-room", &id);
            }
            assert_eq!(ids.len(), number + 1);
        }
        let users = json!({"users": [{"id": "0"}, {"id": "1"}, {"id": "2"}]});
        for node in &nodes {
            reads(node, "/channels/presence-room/users", "", &users);
        }
        let before = known_lives(&nodes);
        expects_each_once(
            &mut sink,
            &[
                ("channel_occupied", "news", None),
                ("channel_occupied", "presence-room", None),
                ("member_added", "presence-room", Some("0")),
                ("member_added", "presence-room", Some("1")),
                ("member_added", "presence-room", Some("2")),
            ],
        );
        // What falls due while the nodes begin to share it may be told twice: two leases later it is shared.
        std::thread::sleep(Duration::from_millis(2 * LEASE_MS));
        let ends = Arc::new(AtomicBool::new(false));
        let names = ["from a", "from b", "from c"];
        let publishers = nodes.iter().zip(names);
        let publishers: Vec<_> = publishers
            .map(|(node, name)| publishes(node, name, &ends))
            .collect();
        for number in 1..=3 {
            let report = nodes[1].is_upgraded();
            assert_eq!(report["number"], number, "{report}");
            assert_eq!(report["closed"], 0, "{report}");
            is_ready(&nodes[1]);
        }
        ends.store(true, Ordering::Relaxed);
        let counts = publishers.into_iter().map(|it| it.join().expect("it ends"));
        let published: Vec<(&str, u64)> = names.into_iter().zip(counts).collect();
        for client in &mut heard {
            hears_all(client, &published);
            client.expects_nothing();
        }
        for member in &mut members {
            member.expects_nothing();
        }
        assert_eq!(known_lives(&nodes), before, "the same lives");
        for node in &nodes {
            reads(node, "/channels/presence-room/users", "", &users);
            assert_eq!(node.metric("sockudo_cluster_lost_batches_total"), Some(0.0));
        }
        // It goes on as one of them: who comes and goes is told once, on each of them.
        let mut eve = nodes[1].client("eve");
        assert_eq!(eve.joins("presence-room", "3").ids, ["0", "1", "2", "3"]);
        for member in &mut members {
            member.expects_member_added("presence-room", "3");
        }
        eve.subscribes("afterwards");
        for node in [&nodes[2], &nodes[1]] {
            node.api().publishes("e", "afterwards", "x");
            eve.expects("e", "afterwards");
        }
        members.remove(1).leaves();
        for member in members.iter_mut().chain([&mut eve]) {
            member.expects_member_removed("presence-room", "1");
            member.expects_nothing();
        }
        expects_each_once(
            &mut sink,
            &[
                ("channel_occupied", "afterwards", None),
                ("member_added", "presence-room", Some("3")),
                ("member_removed", "presence-room", Some("1")),
            ],
        );
    }
}

#[test]
fn ten_thousand_clients_of_one_of_three_nodes_do_not_notice_two_upgrades() {
    let name = "ten_thousand_clients_of_one_of_three_nodes_do_not_notice_two_upgrades";
    let Some(redis) = Redis::start() else {
        return skip(name, "no redis-server");
    };
    let keys = json!({"cluster": {"lease_ms": 20_000}});
    let mut nodes = ["a", "b", "c"].map(|name| starts(&redis, name, keys.clone()));
    let before = known_lives(&nodes);
    let clients = Returning::start(nodes[1].address, TEN_THOUSAND);
    clients.are_joined(TEN_THOUSAND.clients);
    let mut silences = Vec::new();
    for _ in 0..2 {
        let report = nodes[1].is_upgraded();
        assert_eq!(report["closed"], 0, "{report}");
        silences.push(report["silence_ms"].as_f64().expect("a number"));
        is_ready(&nodes[1]);
    }
    let suffered = clients.end();
    println!("{}", suffered.summary());
    println!("silences in ms: {silences:.1?}");
    suffered.is_nothing();
    assert_eq!(known_lives(&nodes), before, "the same lives");
}

/// These and no others, in whatever order the nodes tell them.
fn expects_each_once(sink: &mut WebhookSink, events: &[(&str, &str, Option<&str>)]) {
    let mut expected: Vec<String> = events
        .iter()
        .map(|(name, channel, user_id)| match user_id {
            Some(id) => json!({"name": name, "channel": channel, "user_id": id}).to_string(),
            None => json!({"name": name, "channel": channel}).to_string(),
        })
        .collect();
    expected.sort_unstable();
    let mut came: Vec<String> = expected.iter().map(|_| sink.next().to_string()).collect();
    came.sort_unstable();
    assert_eq!(came, expected);
    sink.expects_nothing_for(SILENCE);
}
