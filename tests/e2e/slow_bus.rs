//! A bus that hangs, or takes less than is published: what was answered crosses, the rest is refused, and nobody is
//! held up.

use serde_json::json;

use crate::bus::BusServer;
use crate::scale_out::{hears, is_ready, node_config, starts};
use crate::support::api::Api;
use crate::support::client::Client;
use crate::support::eventually;
use crate::support::server::Server;

#[test]
fn a_bus_that_hangs_is_noticed_and_holds_up_nobody() {
    for bus in BusServer::start_each("a_bus_that_hangs_is_noticed_and_holds_up_nobody") {
        let nodes = ["a", "b"].map(|name| starts(&bus, name, json!({})));
        let [mut alice, mut bob] = [nodes[0].client("alice"), nodes[1].client("bob")];
        for client in [&mut alice, &mut bob] {
            client.subscribes("news");
        }
        bus.signal("STOP");
        let mut api = nodes[0].api();
        for number in 0..1_000 {
            api.publishes("n", "news", &number.to_string());
            hears(&mut alice, "n", "news", &number.to_string());
        }
        for node in &nodes {
            eventually("a node to say that the bus hangs", || {
                (node.gets("/up").status == 503).then_some(())
            });
        }
        bus.signal("CONT");
        nodes.iter().for_each(is_ready);
        // What was sent before the trouble may come late; what comes stays in order and comes once.
        api.publishes("n", "news", "last");
        let mut heard = Vec::new();
        while heard.last().is_none_or(|it: &String| it != "last") {
            let frame = bob.next();
            heard.push(frame["data"].as_str().expect("a text").to_owned());
        }
        heard.pop();
        let numbers: Vec<u32> = heard
            .iter()
            .map(|it| it.parse().expect("a number"))
            .collect();
        assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
    }
}

/// About the largest event that an app may publish, and ten channels for it: one signature for a megabyte.
const FLOOD_BYTES: usize = 95_000;
const FLOODED: [&str; 10] = [
    "flood-0", "flood-1", "flood-2", "flood-3", "flood-4", "flood-5", "flood-6", "flood-7",
    "flood-8", "flood-9",
];
/// A queue may be full in the middle of a request: the last of its events goes with all others, where they have one
/// home, or not at all.
const LAST_FLOODED: &str = FLOODED[9];
/// Events that are published for the other nodes, and what of them met a full queue.
const PUBLISHED: (&str, &str) = (
    "sockudo_cluster_messages_total",
    "direction=\"out\",kind=\"event\"",
);
const MET_FULL: (&str, &str) = ("sockudo_cluster_dropped_total", "reason=\"queue_full\"");

fn shown(node: &Server, (name, label): (&str, &str)) -> f64 {
    node.metric_with(name, label).expect("it is shown")
}

/// Whether a large event for each channel was taken; else it was refused.
fn floods(api: &mut Api, number: usize) -> bool {
    let data = "x".repeat(FLOOD_BYTES);
    let event = json!({"name": number.to_string(), "channels": FLOODED, "data": data});
    match api.post("/events", event.to_string().as_bytes()).status {
        200 => true,
        503 => false,
        status => panic!("{status}"),
    }
}

/// Takes what comes up to the event with this name; the names of those before it.
fn numbers_before(client: &mut Client, last: &str) -> Vec<usize> {
    let mut numbers = Vec::new();
    loop {
        let event = client.next()["event"].clone();
        let name = event.as_str().expect("a name");
        if name == last {
            return numbers;
        }
        numbers.push(name.parse().expect("a number"));
    }
}

#[test]
fn what_was_answered_crosses_and_a_full_queue_is_refused_before_anybody_hears() {
    for bus in BusServer::start_each(
        "what_was_answered_crosses_and_a_full_queue_is_refused_before_anybody_hears",
    ) {
        // What comes is to be limited by the queue to the bus: neither by signing, nor by a lane to the bridge.
        let keys = json!({
            "cluster": {"secret": null},
            "net": {"send_queue_bytes": 64 << 20},
            "webhooks": {"shard_queue_bytes": 128 << 20},
        });
        let node = |name| Server::start(&node_config(&bus, name, keys.clone()), 1);
        let nodes = ["a", "b"].map(node);
        let [mut alice, mut bob] = [nodes[0].client("alice"), nodes[1].client("bob")];
        for client in [&mut alice, &mut bob] {
            client.subscribes(LAST_FLOODED);
        }
        let mut api = nodes[0].api();
        let reconnects = nodes[0].metric("sockudo_backend_reconnects_total");
        bus.signal("STOP");
        // A bus that hangs is given up after two seconds: it is full long before.
        let (mut answered, mut refused) = (Vec::new(), 0);
        for number in 0..400 {
            if floods(&mut api, number) {
                answered.push(number);
                refused = 0;
            } else {
                refused += 1;
            }
            if refused == 20 {
                break;
            }
        }
        bus.signal("CONT");
        assert_eq!(refused, 20, "the queue is full, and nothing makes room");
        let bytes = answered.len() * FLOODED.len() * FLOOD_BYTES;
        // Of an app that publishes as much, up to three quarters of the mark.
        assert!(bytes > 23 << 20, "{bytes}");
        let after = answered.last().expect("some were taken") + refused + 1;
        eventually("room", || floods(&mut api, after).then_some(()));
        answered.push(after);
        nodes.iter().for_each(is_ready);
        api.publishes("last", LAST_FLOODED, "");
        assert_eq!(numbers_before(&mut alice, "last"), answered);
        let heard = numbers_before(&mut bob, "last");
        // Where the machine was too slow for that, what was on its way then is lost.
        if nodes[0].metric("sockudo_backend_reconnects_total") == reconnects {
            assert_eq!(heard, answered);
        }
        let published = (answered.len() * FLOODED.len() + 1) as f64;
        assert!(shown(&nodes[0], PUBLISHED) >= published);
        assert_eq!(shown(&nodes[0], MET_FULL), 0.0);
    }
}

#[test]
fn a_flood_that_the_bus_does_not_take_is_bounded_refused_and_disturbs_nobody() {
    for bus in BusServer::start_each("a_flood_that_the_bus_does_not_take_is_bounded_and_refused") {
        // What comes to Bob in the end comes at once.
        let roomy = json!({"net": {"send_queue_bytes": 64 << 20}});
        let nodes = ["a", "b"].map(|name| starts(&bus, name, roomy.clone()));
        let [mut alice, mut bob] = [nodes[0].client("alice"), nodes[1].client("bob")];
        alice.subscribes("news");
        bob.subscribes(LAST_FLOODED);
        let mut api = nodes[0].api();
        let before = nodes[0].resident_bytes();
        bus.signal("STOP");
        // More than 300 MB.
        let mut taken = 0;
        for number in 0..400 {
            taken += usize::from(floods(&mut api, number));
            if number % 10 == 0 {
                alice.expects_pong();
            }
        }
        let grown = nodes[0].resident_bytes().saturating_sub(before);
        assert!(grown < 160 << 20, "{grown} bytes for what waits");
        assert!(taken < 400, "none was refused");
        // What was taken went into the queue, whatever becomes of it there.
        assert!(shown(&nodes[0], PUBLISHED) >= (taken * FLOODED.len()) as f64);
        assert_eq!(shown(&nodes[0], MET_FULL), 0.0);
        let log = nodes[0].log();
        assert!(log.contains("the queue to the bus is nearly full"), "{log}");
        // Who has not noticed yet is ready.
        for node in &nodes {
            eventually("the bus to be missed", || {
                (node.gets("/up").status == 503).then_some(())
            });
        }
        bus.signal("CONT");
        nodes.iter().for_each(is_ready);
        api.publishes("last", LAST_FLOODED, "");
        while bob.next()["event"] != "last" {}
        let log = nodes[0].log();
        assert!(log.contains("the queue to the bus has room again"), "{log}");
    }
}
