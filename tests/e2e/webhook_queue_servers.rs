//! Webhooks that wait in Redis over TLS, and in one that Sentinels watch over.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::bus_servers::{files_of_client, is_ready_in_the_end};
use crate::certificates::Certificates;
use crate::redis::{Redis, own_host};
use crate::redis_cluster::RedisCluster;
use crate::sentinel::{self, Watched};
use crate::support::client::Client;
use crate::support::config::{Config, KEY, SECRET, merge};
use crate::support::eventually;
use crate::support::server::Server;
use crate::support::skip::skip;
use crate::support::webhook::WebhookSink;

/// Two nodes with a queue there, which tell the sink of channels.
fn nodes(queue: Value, redis: &Value, sink: &WebhookSink) -> [Server; 2] {
    let hooks = json!([sink.entry(&["channel_occupied"])]);
    let config = Config::new()
        .with(json!({
            "queue": queue,
            "webhooks": {"retry": {"backoff_ms": 50, "backoff_max_ms": 500}},
            "database": {"redis": redis},
        }))
        .with_app(json!({"webhooks": hooks}));
    [1, 2].map(|shards| Server::start(&config, shards))
}

/// Channels of these names become occupied, on both nodes in turn, and the sink hears of each.
fn all_are_told(clients: &mut [Client], names: &str, sink: &mut WebhookSink) {
    let name = |number| format!("{names}-{number}");
    for number in 0..20 {
        clients[number % 2].subscribes(&name(number));
    }
    let mut missing: BTreeSet<String> = (0..20).map(name).collect();
    while !missing.is_empty() {
        let delivery = sink.next_delivery();
        delivery.is_signed_with(KEY, SECRET);
        for event in delivery.events() {
            missing.remove(event["channel"].as_str().expect("a name"));
        }
    }
}

fn is_empty(nodes: &[Server]) {
    for node in nodes {
        eventually("the queue to be empty", || {
            let jobs = node.metric("sockudo_webhook_store_jobs");
            (jobs == Some(0.0)).then_some(())
        });
    }
}

#[test]
fn webhooks_wait_in_redis_over_tls() {
    let name = "webhooks_wait_in_redis_over_tls";
    let Some(certificates) = Certificates::make(own_host()) else {
        return skip(name, "there is no openssl");
    };
    let files = files_of_client(&certificates);
    let redis = Redis::start_with_tls(&certificates, "server");
    let cluster = RedisCluster::start_with_tls(&certificates);
    let (Some(redis), Some(cluster)) = (redis, cluster) else {
        return skip(name, "there is no redis-server");
    };
    let mut redis_tls = files;
    merge(&mut redis_tls, json!({"enabled": true}));
    let at = redis.tls.expect("it speaks TLS");
    let member = cluster.masters[2].tls.expect("it speaks TLS");
    let seeds = [format!("rediss://{member}")];
    for (queue, keys) in [
        (
            json!({"driver": "redis", "lease_s": 1}),
            json!({"host": at.ip(), "port": at.port(), "tls": redis_tls}),
        ),
        (
            json!({"driver": "redis-cluster", "lease_s": 1, "redis_cluster": {"nodes": seeds}}),
            json!({"tls": redis_tls}),
        ),
    ] {
        let mut sink = WebhookSink::start();
        let nodes = nodes(queue, &keys, &sink);
        let mut clients = [nodes[0].client("alice"), nodes[1].client("bob")];
        all_are_told(&mut clients, "room", &mut sink);
        is_empty(&nodes);
    }
}

#[test]
fn webhooks_wait_in_the_replica_that_sentinels_make_the_master() {
    let name = "webhooks_wait_in_the_replica_that_sentinels_make_the_master";
    let Some(mut watched) = Watched::start() else {
        return skip(name, "there is no redis-server; `scripts/test` installs it");
    };
    let at = |it: &sentinel::Sentinel| json!({"host": it.address.ip(), "port": it.address.port()});
    let sentinels: Vec<Value> = watched.sentinels.iter().map(at).collect();
    let keys = json!({"sentinels": sentinels, "name": sentinel::NAME});
    let mut sink = WebhookSink::start();
    let nodes = nodes(json!({"driver": "redis", "lease_s": 1}), &keys, &sink);
    let mut clients = [nodes[0].client("alice"), nodes[1].client("bob")];
    all_are_told(&mut clients, "before", &mut sink);
    watched.master.kill();
    sentinel::until("a new master", || {
        let info = watched.replica.command(&["INFO", "replication"]);
        info.contains("role:master")
    });
    nodes.iter().for_each(is_ready_in_the_end);
    all_are_told(&mut clients, "after", &mut sink);
    is_empty(&nodes);
}
