//! Nodes on buses of more than one plain server: over TLS, with Sentinels, with several servers of NATS.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::certificates::Certificates;
use crate::nats::Nats;
use crate::redis::{Redis, own_host};
use crate::redis_cluster::RedisCluster;
use crate::scale_out::{BusKeys, is_ready, starts};
use crate::sentinel::{self, Watched};
use crate::shared_state::{quick, reads};
use crate::support::client::Client;
use crate::support::config::merge;
use crate::support::server::Server;
use crate::support::skip::skip;

/// Keys as they stand in a file.
struct Keys(Value);

impl BusKeys for Keys {
    fn keys(&self) -> Value {
        self.0.clone()
    }
}

impl BusKeys for Watched {
    fn keys(&self) -> Value {
        let at =
            |it: &sentinel::Sentinel| json!({"host": it.address.ip(), "port": it.address.port()});
        let sentinels: Vec<Value> = self.sentinels.iter().map(at).collect();
        json!({
            "adapter": {"driver": "redis"},
            "database": {"redis": {"sentinels": sentinels, "name": sentinel::NAME}},
        })
    }
}

fn hears(client: &mut Client, data: &str) {
    client.expects_frame(json!({"event": "n", "channel": "news", "data": data}));
}

/// Waits longer than for anything that is decided here.
pub(crate) fn is_ready_in_the_end(node: &Server) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while node.gets("/up").status != 200 {
        assert!(Instant::now() < deadline, "waited for a node to be ready");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The keys by which a node shows a server who it is, and knows it.
pub(crate) fn files_of_client(certificates: &Certificates) -> Value {
    json!({
        "ca_path": certificates.certificate("ca"),
        "cert_path": certificates.certificate("client"),
        "key_path": certificates.key("client"),
    })
}

#[test]
fn nodes_find_each_other_over_tls() {
    let name = "nodes_find_each_other_over_tls";
    let Some(certificates) = Certificates::make(own_host()) else {
        return skip(name, "there is no openssl");
    };
    let files = files_of_client(&certificates);
    let redis = Redis::start_with_tls(&certificates, "server");
    let cluster = RedisCluster::start_with_tls(&certificates);
    let nats = Nats::start_with_tls(&certificates, "server");
    let (Some(redis), Some(cluster), Some(nats)) = (redis, cluster, nats) else {
        return skip(name, "there is no redis-server or nats-server");
    };
    let mut redis_tls = files.clone();
    merge(&mut redis_tls, json!({"enabled": true}));
    let at = redis.tls.expect("it speaks TLS");
    let member = cluster.masters[2].tls.expect("it speaks TLS");
    for keys in [
        json!({
            "adapter": {"driver": "redis"},
            "database": {"redis": {"host": at.ip(), "port": at.port(), "tls": redis_tls}},
        }),
        json!({
            "adapter": {"driver": "redis-cluster"},
            "database": {"redis": {
                "cluster_nodes": [format!("rediss://{member}")], "tls": files,
            }},
        }),
        json!({"adapter": {"driver": "nats", "nats": {
            "servers": [format!("tls://{}", nats.address)], "tls": files,
        }}}),
    ] {
        let bus = Keys(keys);
        let nodes = ["a", "b"].map(|name| starts(&bus, name, json!({})));
        let [mut alice, mut bob] = [nodes[0].client("alice"), nodes[1].client("bob")];
        for client in [&mut alice, &mut bob] {
            client.subscribes("news");
        }
        for number in 0..100 {
            nodes[0].api().publishes("n", "news", &number.to_string());
        }
        for client in [&mut alice, &mut bob] {
            for number in 0..100 {
                hears(client, &number.to_string());
            }
        }
    }
}

#[test]
fn a_master_that_dies_is_followed_by_its_replica_and_may_come_back_as_one() {
    let Some(mut watched) = Watched::start() else {
        return skip(
            "a_master_that_dies_is_followed_by_its_replica_and_may_come_back_as_one",
            "there is no redis-server; `scripts/test` installs it",
        );
    };
    let nodes = ["a", "b"].map(|name| starts(&watched, name, json!({})));
    let [mut alice, mut bob] = [nodes[0].client("alice"), nodes[1].client("bob")];
    for client in [&mut alice, &mut bob] {
        client.subscribes("news");
    }
    nodes.iter().for_each(is_ready);
    watched.master.kill();
    for node in &nodes {
        // Of its four connections each was made anew.
        sentinel::until("all connections", || {
            node.metric("sockudo_backend_reconnects_total") >= Some(4.0)
        });
        is_ready_in_the_end(node);
    }
    let info = watched.replica.command(&["INFO", "replication"]);
    assert!(info.contains("role:master"), "{info}");
    // Those who subscribed before need not do so again.
    let mut api = nodes[0].api();
    api.publishes("n", "news", "followed");
    for client in [&mut alice, &mut bob] {
        hears(client, "followed");
    }

    watched.master.start_again();
    let mut number = 0;
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut is_replica = false;
    while !is_replica {
        assert!(Instant::now() < deadline, "waited for a replica");
        let info = watched.master.command(&["INFO", "replication"]);
        is_replica = info.contains("role:slave") && info.contains("master_link_status:up");
        for _ in 0..10 {
            api.publishes("n", "news", &number.to_string());
            for client in [&mut alice, &mut bob] {
                hears(client, &number.to_string());
            }
            number += 1;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    for node in &nodes {
        is_ready(node);
        let lost = node.metric("sockudo_cluster_lost_batches_total");
        assert!(lost.is_some(), "it is shown");
    }
}

fn at(servers: &[&Nats]) -> Keys {
    let url = |it: &&Nats| format!("nats://{}", it.address);
    let servers: Vec<String> = servers.iter().map(url).collect();
    Keys(json!({"adapter": {"driver": "nats", "nats": {"servers": servers}}}))
}

fn users_are(nodes: &[Server], ids: &[&str]) {
    let users: Vec<Value> = ids.iter().map(|id| json!({"id": id})).collect();
    for node in nodes {
        reads(
            node,
            "/channels/presence-room/users",
            "",
            &json!({"users": users}),
        );
    }
}

#[test]
fn nodes_of_a_server_that_dies_go_over_to_another() {
    let name = "nodes_of_a_server_that_dies_go_over_to_another";
    let Some(mut servers) = Nats::start_cluster::<3>() else {
        return skip(name, "there is no nats-server; `scripts/test` installs it");
    };
    let bus = at(&servers.each_ref());
    let nodes = ["a", "b"].map(|name| starts(&bus, name, quick()));
    let [mut alice, mut bob] = [nodes[0].client("alice"), nodes[1].client("bob")];
    alice.joins("presence-room", "1");
    users_are(&nodes, &["1"]);
    bob.joins("presence-room", "2");
    alice.expects_member_added("presence-room", "2");
    for dies in 0..3 {
        servers[dies].kill();
        let mut carol = nodes[dies % 2].client("carol");
        carol.joins("presence-room", "3");
        users_are(&nodes, &["1", "2", "3"]);
        for client in [&mut alice, &mut bob] {
            client.expects_member_added("presence-room", "3");
        }
        carol.leaves();
        for client in [&mut alice, &mut bob] {
            client.expects_member_removed("presence-room", "3");
        }
        users_are(&nodes, &["1", "2"]);
        nodes.iter().for_each(is_ready_in_the_end);
        servers[dies].start_again();
        for node in &nodes {
            crate::support::eventually("all witnesses", || {
                // Three are wanted, and three heard.
                let all = node.metric("sockudo_cluster_witnesses");
                (all == Some(6.0)).then_some(())
            });
        }
    }
    for client in [&mut alice, &mut bob] {
        client.expects_nothing();
    }
}

#[test]
fn nodes_that_no_route_joins_count_each_other_as_dead_and_find_each_other_again() {
    let name = "nodes_that_no_route_joins_count_each_other_as_dead_and_find_each_other_again";
    let Some(([near, far], gate)) = Nats::start_pair() else {
        return skip(name, "there is no nats-server; `scripts/test` installs it");
    };
    let nodes = [("a", &near), ("b", &far)].map(|(name, it)| starts(&at(&[it]), name, quick()));
    let [mut alice, mut bob] = [nodes[0].client("alice"), nodes[1].client("bob")];
    alice.joins("presence-room", "1");
    users_are(&nodes, &["1"]);
    bob.joins("presence-room", "2");
    alice.expects_member_added("presence-room", "2");
    for _ in 0..2 {
        gate.shut();
        // Each has its server and its canary: the other is silent for a lease, and then dead.
        alice.expects_member_removed("presence-room", "2");
        bob.expects_member_removed("presence-room", "1");
        nodes.iter().for_each(is_ready);
        let mut carol = nodes[1].client("carol");
        carol.joins("presence-room", "3");
        bob.expects_member_added("presence-room", "3");
        carol.leaves();
        bob.expects_member_removed("presence-room", "3");
        gate.open_again();
        alice.expects_member_added("presence-room", "2");
        bob.expects_member_added("presence-room", "1");
        users_are(&nodes, &["1", "2"]);
    }
    bob.leaves();
    alice.expects_member_removed("presence-room", "2");
    users_are(&nodes, &["1"]);
    alice.expects_nothing();
}
