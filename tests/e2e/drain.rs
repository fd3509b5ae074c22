//! Servers that stop and start under thousands of clients, of whom none suffers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::network;
use crate::proxy::Proxy;
use crate::redis::Redis;
use crate::returning::{Returning, Size, Suffered};
use crate::scale_out::{is_ready, node_config};
use crate::support::config::Config;
use crate::support::server::Server;
use crate::support::skip::skip;
use crate::support::webhook::WebhookSink;
use crate::support::wire::Wire;
use crate::support::{DEADLINE, eventually};

const SIZE: Size = Size {
    clients: 5_000,
    members: 20,
    newcomers_per_s: 100,
    news_per_s: 4,
    rooms_per_s: 100,
};

/// Ten times what a busy machine was seen to need.
const OFFLINE_MAX: Duration = Duration::from_secs(20);

#[track_caller]
fn nobody_suffered(name: &str, suffered: &Suffered) {
    println!("{name}: {}", suffered.summary());
    assert!(suffered.refused.is_empty(), "{:#?}", suffered.refused);
    assert!(suffered.unanswered.is_empty(), "{:#?}", suffered.unanswered);
    assert!(suffered.faults.is_empty(), "{:#?}", suffered.faults);
    let longest = suffered.longest_offline();
    assert!(longest < OFFLINE_MAX, "{longest:?} offline");
}

/// Whoever the API lists is there: each presence channel has its members, once. What happened on another
/// node is known here a moment later.
fn has_no_ghosts(node: &Server) {
    let mut api = node.api();
    for team in 0..SIZE.clients / SIZE.members {
        let first = team * SIZE.members;
        let all: BTreeSet<String> = (first..first + SIZE.members)
            .map(|user| format!("user-{user}"))
            .collect();
        eventually(
            "a presence channel to have its members and no other",
            || {
                let users = api.reads(&format!("/channels/presence-team-{team}/users"), &[]);
                let users = users["users"].as_array().expect("a list");
                let ids = users.iter().filter_map(|user| user["id"].as_str());
                let is_whole = users.len() == all.len() && ids.clone().all(|id| all.contains(id));
                is_whole.then_some(())
            },
        );
    }
}

/// What webhooks have told of who is there: names and channels or users, each with how often.
#[derive(Default)]
struct Told(BTreeMap<String, usize>);

impl Told {
    /// All channels and members once: a private and a presence channel of each team, and the news.
    const WHOLE: usize = SIZE.clients + 2 * SIZE.clients / SIZE.members + 1;

    /// Reads what has come, until it is whole and nothing more comes for a while.
    fn reads(&mut self, sink: &mut WebhookSink) {
        let patience = |told: &Self| match told.0.len() < Self::WHOLE {
            true => DEADLINE,
            false => Duration::from_secs(1),
        };
        while let Some(event) = sink.next_within(patience(self)) {
            let name = event["name"].as_str().expect("a name");
            let whom = event["user_id"]
                .as_str()
                .or_else(|| event["channel"].as_str());
            let whom = whom.expect("a user or a channel");
            *self.0.entry(format!("{name} {whom}")).or_default() += 1;
        }
    }

    /// Whoever moved to another node was never gone.
    #[track_caller]
    fn nobody_left(&self) {
        let is_coming =
            |name: &str| name.starts_with("member_added ") || name.starts_with("channel_occupied ");
        let left: Vec<_> = self.0.keys().filter(|name| !is_coming(name)).collect();
        let doubles = self.0.values().filter(|count| **count > 1).count();
        let (told, whole) = (self.0.len() - left.len(), Self::WHOLE);
        println!("webhooks: {told} of {whole} have come, {doubles} of them more than once");
        let first = &left[..left.len().min(20)];
        assert!(left.is_empty(), "{} have left: {first:?}", left.len());
    }
}

fn node(redis: &Redis, name: &str, sink: &WebhookSink, keys: Value) -> Config {
    let told = [
        "channel_occupied",
        "channel_vacated",
        "member_added",
        "member_removed",
    ];
    // Nobody is gone who comes back within it; a busy machine may need more than the usual 3 s.
    let grace = json!({"webhooks": {"grace_ms": 60_000}});
    let config = node_config(redis, name, keys).with(grace);
    config.with_app(json!({"webhooks": [sink.entry(&told)]}))
}

#[test]
fn a_successor_on_the_same_port_takes_five_thousand_clients_over() {
    let name = "a_successor_on_the_same_port_takes_five_thousand_clients_over";
    if !network::is_own() {
        return skip(name, "not root: no network of the test's own");
    }
    network::migrates_requests();
    let Some(redis) = Redis::start() else {
        return skip(name, "no redis-server");
    };
    let mut sink = WebhookSink::start();
    let mut told = Told::default();
    let configs =
        ["a", "b"].map(|name| node(&redis, name, &sink, json!({"drain": {"deadline_s": 20}})));
    let mut first = Server::start(&configs[0], 2);
    is_ready(&first);
    let clients = Returning::start(first.address, SIZE);
    clients.are_joined(SIZE.clients);
    let second = first.is_succeeded(&configs[1], 2);
    first.drains();
    has_ended(&mut first);
    clients.are_joined(SIZE.clients);
    has_no_ghosts(&second);
    told.reads(&mut sink);
    nobody_suffered(name, &clients.end());
    told.nobody_left();
    nobody_is_left(&second);
}

#[test]
fn a_rolling_restart_behind_a_balancer_moves_five_thousand_clients_twice() {
    let name = "a_rolling_restart_behind_a_balancer_moves_five_thousand_clients_twice";
    let Some(redis) = Redis::start() else {
        return skip(name, "no redis-server");
    };
    let mut sink = WebhookSink::start();
    let mut told = Told::default();
    // As the balancer's file says.
    let keys = json!({"drain": {"lb_wait_s": 3, "deadline_s": 23}});
    let configs = ["a", "b"].map(|name| node(&redis, name, &sink, keys.clone()));
    let mut nodes = configs.each_ref().map(|config| Server::start(config, 2));
    nodes.iter().for_each(is_ready);
    let both = [&nodes[0], &nodes[1]];
    let Some(proxy) = Proxy::start_for("haproxy.cfg", both, SIZE.clients + 1_000) else {
        return skip(name, "no haproxy");
    };
    eventually("the balancer to have found a node", || {
        let mut wire = Wire::connect(proxy.plain);
        wire.sends("GET /up HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        (wire.try_reply()?.status == 200).then_some(())
    });
    let clients = Returning::start(proxy.plain, SIZE);
    clients.are_joined(SIZE.clients);
    for number in [0, 1] {
        nodes[number].drains();
        has_ended(&mut nodes[number]);
        nodes[number] = nodes[number].is_succeeded(&configs[number], 2);
        clients.are_joined(SIZE.clients);
        // The balancer sees it after two checks.
        let node = &nodes[number];
        eventually("the balancer to send somebody there", || {
            (node.metric("sockudo_new_connections_total") > Some(10.0)).then_some(())
        });
    }
    nodes.iter().for_each(has_no_ghosts);
    told.reads(&mut sink);
    nobody_suffered(name, &clients.end());
    told.nobody_left();
    nodes.iter().for_each(nobody_is_left);
}

fn nobody_is_left(node: &Server) {
    eventually("all to have left", || {
        (node.api().reads("/channels", &[]) == json!({"channels": {}})).then_some(())
    });
}

/// Its deadline is longer than tests wait elsewhere.
fn has_ended(node: &mut Server) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while node.is_running() {
        assert!(Instant::now() < deadline, "the drain has no end");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(node.exits().success());
}
