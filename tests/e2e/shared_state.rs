//! Presence, counts, users and webhooks of several nodes on one bus: those of one.

use std::time::Duration;

use serde_json::{Value, json};

use crate::bus::BusServer;
use crate::scale_out::{is_ready, node_config, starts};
use crate::support::client::Client;
use crate::support::config::merge;
use crate::support::server::Server;
use crate::support::webhook::WebhookSink;
use crate::support::wire::Wire;
use crate::support::{SILENCE, eventually};
use crate::users::told;

/// A dead node is known to be after three seconds: a busy machine may hold a living one up for one.
pub(crate) fn quick() -> Value {
    json!({"cluster": {"lease_ms": 3_000, "heartbeat_ms": 500, "canary_ms": 500}})
}

#[track_caller]
pub(crate) fn reads(node: &Server, resource: &str, info: &str, wanted: &Value) {
    let parameters: &[(&str, &str)] = if info.is_empty() {
        &[]
    } else {
        &[("info", info)]
    };
    let mut last = Value::Null;
    eventually(&format!("{resource} to be {wanted}, not {last}"), || {
        last = node.api().reads(resource, parameters);
        (last == *wanted).then_some(())
    });
}

#[test]
fn members_and_counts_are_those_of_all_nodes() {
    for bus in BusServer::start_each("members_and_counts_are_those_of_all_nodes") {
        let nodes = ["a", "b", "c"].map(|name| starts(&bus, name, json!({})));
        let [mut alice, mut bob, mut again] =
            [(0, "alice"), (1, "bob"), (2, "again")].map(|(at, name)| nodes[at].client(name));
        assert_eq!(alice.joins("presence-room", "1").ids, ["1"]);
        reads(
            &nodes[1],
            "/channels/presence-room/users",
            "",
            &json!({"users": [{"id": "1"}]}),
        );
        assert_eq!(bob.joins("presence-room", "2").ids, ["1", "2"]);
        alice.expects_member_added("presence-room", "2");
        reads(
            &nodes[2],
            "/channels/presence-room/users",
            "",
            &json!({"users": [{"id": "1"}, {"id": "2"}]}),
        );
        // Another connection of the same user, on a third node, is no other member.
        assert_eq!(again.joins("presence-room", "1").ids, ["1", "2"]);
        let counts = json!({"occupied": true, "user_count": 2, "subscription_count": 3});
        for node in &nodes {
            reads(
                node,
                "/channels/presence-room",
                "user_count,subscription_count",
                &counts,
            );
            let listed = json!({"channels": {"presence-room": {"user_count": 2}}});
            eventually("the channel to be listed", || {
                let parameters = [("filter_by_prefix", "presence-"), ("info", "user_count")];
                (node.api().reads("/channels", &parameters) == listed).then_some(())
            });
        }
        alice.leaves();
        bob.expects_nothing();
        again.leaves();
        bob.expects_member_removed("presence-room", "1");
        bob.leaves();
        for node in &nodes {
            reads(node, "/channels", "", &json!({"channels": {}}));
        }
    }
}

#[test]
fn members_of_a_killed_node_go_once_and_those_who_are_elsewhere_stay() {
    for bus in
        BusServer::start_each("members_of_a_killed_node_go_once_and_those_who_are_elsewhere_stay")
    {
        let mut sink = WebhookSink::start();
        let hooks = sink.entry(&[
            "channel_occupied",
            "channel_vacated",
            "member_added",
            "member_removed",
        ]);
        let starts = |name: &str| {
            let mut keys = quick();
            merge(&mut keys, json!({"webhooks": {"grace_ms": 0}}));
            let config =
                node_config(&bus, name, keys).with_app(json!({"webhooks": [hooks.clone()]}));
            Server::start(&config, 2)
        };
        let mut nodes: Vec<Server> = ["a", "b", "c"].map(starts).into();
        // Nobody owns anything before a lease: what falls due until then is told after it.
        let mut alice = nodes[0].client("alice");
        alice.joins("presence-room", "1");
        sink.expects(json!({"name": "channel_occupied", "channel": "presence-room"}));
        sink.expects(json!({"name": "member_added", "channel": "presence-room", "user_id": "1"}));
        std::thread::sleep(Duration::from_secs(6)); // Two leases: shares do not move any more.
        let mut bob = nodes[2].client("bob");
        reads(
            &nodes[2],
            "/channels/presence-room/users",
            "",
            &json!({"users": [{"id": "1"}]}),
        );
        bob.joins("presence-room", "2");
        alice.expects_member_added("presence-room", "2");
        sink.expects(json!({"name": "member_added", "channel": "presence-room", "user_id": "2"}));
        let mut bob_too = nodes[1].client("bob too");
        reads(
            &nodes[1],
            "/channels/presence-room/users",
            "",
            &json!({"users": [{"id": "1"}, {"id": "2"}]}),
        );
        bob_too.joins("presence-room", "2");
        let mut carol = nodes[2].client("carol");
        carol.joins("presence-room", "3");
        for client in [&mut alice, &mut bob_too] {
            client.expects_member_added("presence-room", "3");
        }
        sink.expects(json!({"name": "member_added", "channel": "presence-room", "user_id": "3"}));
        // What an owner told within its last heartbeat may come twice: some more of them follow.
        std::thread::sleep(Duration::from_secs(3));
        let killed = nodes.pop().expect("the third one");
        killed.signal(libc::SIGKILL);
        for client in [&mut alice, &mut bob_too] {
            client.expects_member_removed("presence-room", "3");
            client.expects_nothing();
        }
        sink.expects(json!({"name": "member_removed", "channel": "presence-room", "user_id": "3"}));
        for node in &nodes {
            let shown = |name, label| node.metric_with(&format!("sockudo_{name}"), label);
            // The other one is on a node that lives.
            assert_eq!(shown("presence_lease_expiries_total", ""), Some(1.0));
            let peer = "peer=\"c\"";
            assert_eq!(shown("cluster_lease_expiries_total", peer), Some(1.0));
            assert_eq!(shown("cluster_nodes", "state=\"expired\""), Some(1.0));
            assert_eq!(shown("cluster_nodes", "state=\"live\""), Some(2.0));
            reads(
                node,
                "/channels/presence-room/users",
                "",
                &json!({"users": [{"id": "1"}, {"id": "2"}]}),
            );
        }
        alice.leaves();
        bob_too.expects_member_removed("presence-room", "1");
        bob_too.leaves();
        sink.expects(json!({"name": "member_removed", "channel": "presence-room", "user_id": "1"}));
        sink.expects(json!({"name": "member_removed", "channel": "presence-room", "user_id": "2"}));
        sink.expects(json!({"name": "channel_vacated", "channel": "presence-room"}));
        sink.expects_nothing_for(Duration::from_secs(4));
    }
}

#[test]
fn users_are_watched_reached_and_sent_away_wherever_they_are() {
    for bus in BusServer::start_each("users_are_watched_reached_and_sent_away_wherever_they_are") {
        let nodes = ["a", "b"]
            .map(|name| Server::start(&node_config(&bus, name, json!({})).with_users(), 2));
        let [mut alice, mut bob] = [nodes[0].client("alice"), nodes[1].client("bob")];
        alice.signs_in_with(r#"{"id":"alice","watchlist":["bob"]}"#);
        assert_eq!(alice.expects_watchlist(), told(&[("bob", "offline")]));
        bob.signs_in("bob");
        assert_eq!(alice.expects_watchlist(), told(&[("bob", "online")]));
        let mut late = nodes[0].client("late");
        late.signs_in_with(r#"{"id":"late","watchlist":["bob"]}"#);
        assert_eq!(late.expects_watchlist(), told(&[("bob", "online")]));
        let channel = bob.subscribes_to_own_channel("bob");
        nodes[0].api().publishes("n", &channel, "for bob");
        bob.expects_frame(json!({"event": "n", "channel": channel, "data": "for bob"}));
        nodes[0].api().terminates("bob");
        bob.is_closed_with(4009);
        for client in [&mut alice, &mut late] {
            assert_eq!(client.expects_watchlist(), told(&[("bob", "offline")]));
        }
    }
}

#[test]
fn who_comes_to_a_cluster_knows_all_and_a_bus_that_died_leaves_no_ghost() {
    for mut bus in BusServer::start_each(
        "who_comes_to_a_cluster_knows_all_and_a_bus_that_died_leaves_no_ghost",
    ) {
        let nodes = ["a", "b"].map(|name| starts(&bus, name, quick()));
        let [mut alice, mut bob] = [nodes[0].client("alice"), nodes[1].client("bob")];
        alice.joins("presence-room", "1");
        reads(
            &nodes[1],
            "/channels/presence-room/users",
            "",
            &json!({"users": [{"id": "1"}]}),
        );
        bob.joins("presence-room", "2");
        alice.expects_member_added("presence-room", "2");
        let third = starts(&bus, "c", quick());
        reads(
            &third,
            "/channels/presence-room/users",
            "",
            &json!({"users": [{"id": "1"}, {"id": "2"}]}),
        );
        bus.kill();
        for node in &nodes {
            eventually("a node to say that the bus is gone", || {
                (node.gets("/up").status == 503).then_some(())
            });
        }
        bob.leaves();
        alice.expects_nothing_for(Duration::from_secs(6)); // Two leases: nobody is taken for dead.
        bus.start_again();
        for node in nodes.iter().chain([&third]) {
            is_ready(node);
            reads(
                node,
                "/channels/presence-room/users",
                "",
                &json!({"users": [{"id": "1"}]}),
            );
        }
        alice.expects_member_removed("presence-room", "2");
        alice.expects_nothing();
    }
}

#[test]
fn a_node_that_learns_of_an_app_later_knows_what_the_others_have_of_it() {
    for bus in BusServer::start_each("a_node_that_learns_of_an_app_later") {
        let config = |name| node_config(&bus, name, quick());
        let a = Server::start(&config("a").and_app("late", json!({})), 2);
        let b = Server::start(&config("b"), 2);
        let mut alice = a.client_of("late", "alice");
        alice.joins("presence-room", "1");
        alice.subscribes("news");
        let has_beside_its_first = |name: &str| {
            b.reloads(|json| {
                let apps = &mut json["app_manager"]["array"]["apps"];
                let apps = apps.as_array_mut().expect("a list");
                apps.truncate(1);
                let mut other = apps[0].clone();
                for key in ["id", "key", "secret"] {
                    other[key] = json!(format!("{name}-{key}"));
                }
                apps.push(other);
            });
            eventually("the change", || {
                (b.api_of(name).get("/channels", &[]).status == 200).then_some(())
            });
        };
        let has = |users: Value, channels: Value| {
            eventually("the node to know of the other", || {
                let mut api = b.api_of("late");
                let found = (
                    api.reads("/channels/presence-room/users", &[])["users"].clone(),
                    api.reads("/channels", &[])["channels"].clone(),
                );
                (found == (users.clone(), channels.clone())).then_some(())
            });
        };
        has_beside_its_first("late");
        has(
            json!([{"id": "1"}]),
            json!({"presence-room": {}, "news": {}}),
        );
        // It is remembered until the second change.
        has_beside_its_first("one");
        has_beside_its_first("two");
        alice.unsubscribes("presence-room");
        let mut bob = a.client_of("late", "bob");
        bob.joins("presence-new", "2");
        has_beside_its_first("late");
        has(json!([]), json!({"presence-new": {}, "news": {}}));
    }
}

/// A new connection to the node, unless it is refused for the app's limit.
fn is_admitted(node: &Server) -> Option<Wire> {
    let mut wire = node.wire();
    wire.upgrades("/app/app-key?protocol=7&client=test", "");
    let first: Value = serde_json::from_slice(&wire.frame().payload).expect("JSON");
    if first["event"] == "pusher:connection_established" {
        return Some(wire);
    }
    assert_eq!(first["data"]["code"], 4004, "{first}");
    None
}

#[test]
fn connections_of_an_app_are_limited_over_all_nodes() {
    for bus in BusServer::start_each("connections_of_an_app_are_limited_over_all_nodes") {
        is_limited_over(&bus);
    }
}

fn is_limited_over(bus: &BusServer) {
    let nodes = ["a", "b"].map(|name| {
        let config = node_config(bus, name, quick());
        Server::start(&config.with_app(json!({"max_connections": 3})), 2)
    });
    for node in &nodes {
        is_ready(node);
    }
    let mut here = vec![is_admitted(&nodes[0]), is_admitted(&nodes[0])];
    let there = is_admitted(&nodes[1]);
    assert!(there.is_some() && here.iter().all(Option::is_some));
    // Both nodes know within a moment that there are three.
    for node in &nodes {
        eventually("the fourth to be refused", || {
            is_admitted(node).is_none().then_some(())
        });
    }
    here.pop();
    let _again = eventually("one more on the other node", || is_admitted(&nodes[1]));
    // What a dead node had is given back with its lease.
    let [a, b] = nodes;
    drop(a);
    let more = eventually("the dead node's place", || is_admitted(&b));
    assert!(is_admitted(&b).is_none());
    drop((here, there, more));
}

#[test]
fn the_last_event_of_a_cache_channel_reaches_a_first_subscriber_on_any_node() {
    for bus in BusServer::start_each("the_last_event_reaches_a_first_subscriber") {
        let nodes = ["a", "b"].map(|name| starts(&bus, name, quick()));
        for node in &nodes {
            is_ready(node);
        }
        let event = json!({"event": "n", "channel": "cache-news", "data": "one"});
        // Nobody has subscribed to it anywhere.
        nodes[0].api().publishes("n", "cache-news", "one");
        let mut bob = eventually("the other node to know of it", || {
            let mut client = nodes[1].client("bob");
            client.asks_for("cache-news");
            client.expects("pusher_internal:subscription_succeeded", "cache-news");
            let next = client.next();
            if next == event {
                return Some(client);
            }
            // It has not heard yet that there is one.
            assert_eq!(next["event"], "pusher:cache_miss");
            None
        });
        // Now it is here too, whatever becomes of the other one.
        nodes[0].api().publishes("n", "cache-news", "two");
        bob.expects_frame(json!({"event": "n", "channel": "cache-news", "data": "two"}));
        let [a, b] = nodes;
        drop(a);
        let mut carol = b.client("carol");
        carol.asks_for("cache-news");
        carol.expects("pusher_internal:subscription_succeeded", "cache-news");
        carol.expects_frame(json!({"event": "n", "channel": "cache-news", "data": "two"}));
    }
}

#[test]
fn what_was_published_while_the_bus_was_gone_is_the_last_event_of_newcomers_on_any_node() {
    for mut bus in BusServer::start_each("what_was_published_while_the_bus_was_gone") {
        let nodes = ["a", "b", "c"].map(|name| starts(&bus, name, quick()));
        let mut there: Vec<_> = nodes.iter().map(|node| node.client("there")).collect();
        let event = |data: &str| json!({"event": "n", "channel": "cache-news", "data": data});
        for client in &mut there {
            client.subscribes_to_empty_cache("cache-news");
        }
        nodes[0].api().publishes("n", "cache-news", "one");
        for client in &mut there {
            client.expects_frame(event("one"));
        }
        bus.kill();
        for node in &nodes {
            eventually("the bus to be missed", || {
                (node.gets("/up").status == 503).then_some(())
            });
        }
        nodes[1].api().publishes("n", "cache-news", "two");
        there[1].expects_frame(event("two"));
        bus.start_again();
        nodes.iter().for_each(is_ready);
        for node in &nodes {
            // Others are asked for half a second at most, which a busy machine may not keep.
            let mut newcomer = eventually("a newcomer to get the newest one", || {
                let mut client = node.client("newcomer");
                client.asks_for("cache-news");
                client.expects("pusher_internal:subscription_succeeded", "cache-news");
                (client.next() == event("two")).then_some(client)
            });
            newcomer.expects_nothing();
        }
        let counted = |node: &Server, name: &str| {
            let counted = node.metric(&format!("sockudo_shard_kept_{name}_total"));
            counted.expect("it is there from the start")
        };
        let asked = counted(&nodes[0], "doubted");
        assert!(asked >= 1.0, "whose newcomer came first: {asked}");
        // Node b has published the newest itself.
        let replaced = nodes.each_ref().map(|node| counted(node, "replaced"));
        assert_eq!(replaced, [1.0, 0.0, 1.0]);
        // An event that was lost stays lost.
        there[0].expects_nothing();
        there[2].expects_nothing();
        nodes[0].api().publishes("n", "cache-news", "three");
        for client in &mut there {
            client.expects_frame(event("three"));
        }
    }
}

#[test]
fn a_client_event_is_nobodys_last_event_on_any_node() {
    for bus in BusServer::start_each("a_client_event_is_nobodys_last_event") {
        let nodes = ["a", "b"].map(|name| starts(&bus, name, quick()));
        for node in &nodes {
            is_ready(node);
        }
        let event = json!({"event": "n", "channel": "private-cache-x", "data": "ours"});
        for published in [false, true] {
            let mut alice = nodes[0].client("alice");
            let mut bob = nodes[1].client("bob");
            for client in [&mut alice, &mut bob] {
                client.asks_for("private-cache-x");
                client.expects("pusher_internal:subscription_succeeded", "private-cache-x");
                client.expects("pusher:cache_miss", "private-cache-x");
            }
            if published {
                nodes[0].api().publishes("n", "private-cache-x", "ours");
                for client in [&mut alice, &mut bob] {
                    client.expects_frame(event.clone());
                }
            }
            alice.triggers("client-a", "private-cache-x", json!("theirs"));
            bob.expects("client-a", "private-cache-x");
            for node in &nodes {
                let mut carol = node.client("carol");
                carol.asks_for("private-cache-x");
                carol.expects("pusher_internal:subscription_succeeded", "private-cache-x");
                match published {
                    true => carol.expects_frame(event.clone()),
                    false => drop(carol.expects("pusher:cache_miss", "private-cache-x")),
                }
            }
        }
    }
}

#[test]
fn a_node_that_was_stopped_past_its_lease_comes_back_whole_and_no_event_is_doubled() {
    for bus in BusServer::start_each(
        "a_node_that_was_stopped_past_its_lease_comes_back_whole_and_no_event_is_doubled",
    ) {
        let nodes = ["a", "b", "c"].map(|name| starts(&bus, name, quick()));
        let room = "presence-room";
        let lists = |ids: &[&str]| {
            let users: Vec<Value> = ids.iter().map(|id| json!({"id": id})).collect();
            let users = json!({"users": users});
            for node in &nodes {
                reads(node, "/channels/presence-room/users", "", &users);
            }
        };
        let mut clients = [nodes[0].client("alice"), nodes[1].client("bob")];
        for (client, id) in clients.iter_mut().zip(["1", "2"]) {
            client.joins(room, id);
            lists(&["1", "2"][..id.parse().expect("a number")]);
        }
        let mut carol = nodes[2].client("carol");
        assert_eq!(carol.joins(room, "3").ids, ["1", "2", "3"]);
        clients[0].expects_member_added(room, "2");
        for client in &mut clients {
            client.expects_member_added(room, "3");
        }
        lists(&["1", "2", "3"]);
        nodes[2].signal(libc::SIGSTOP);
        // While it is thought to live, and when it is not any more.
        let mut api = nodes[0].api();
        let mut published = 0..;
        let mut publishes = |clients: &mut [Client; 2]| {
            let number: usize = published.next().expect("there are more");
            api.publishes("n", room, &number.to_string());
            for client in clients {
                client.expects_frame(
                    json!({"event": "n", "channel": room, "data": number.to_string()}),
                );
            }
            number
        };
        (0..20).for_each(|_| _ = publishes(&mut clients));
        for client in &mut clients {
            client.expects_member_removed(room, "3");
        }
        let last = (0..20).map(|_| publishes(&mut clients)).last();
        nodes[2].signal(libc::SIGCONT);
        for client in &mut clients {
            client.expects_member_added(room, "3");
        }
        lists(&["1", "2", "3"]);
        is_ready(&nodes[2]);
        // What came while it was stopped may have been lost to it.
        let mut heard: Vec<usize> = Vec::new();
        eventually("an event to come where the node was stopped", || {
            publishes(&mut clients);
            while let Some(frame) = carol.next_within(SILENCE) {
                assert_eq!(frame["event"], "n", "nobody has left, and nobody came");
                let number = frame["data"].as_str().expect("a text");
                heard.push(number.parse().expect("a number"));
            }
            (heard.last() > last.as_ref()).then_some(())
        });
        assert!(heard.is_sorted_by(|a, b| a < b), "{heard:?}");
        for client in &mut clients {
            client.expects_nothing();
        }
        lists(&["1", "2", "3"]);
    }
}
