//! What a node counts of the backends that it asks: how long answers took, what failed, what was connected anew.

use std::net::TcpStream;

use serde_json::json;

use crate::redis::Redis;
use crate::scale_out::{BusKeys as _, is_ready, node_config};
use crate::stores;
use crate::support::config::merge;
use crate::support::eventually;
use crate::support::server::Server;
use crate::support::skip::skip;
use crate::support::webhook::WebhookSink;

const OF_REDIS: [&str; 4] = ["adapter", "cache", "queue", "rate_limiter"];

/// How often an operation was answered, where it is shown.
fn asked(node: &Server, role: &str, operation: &str) -> Option<f64> {
    let name = "sockudo_backend_request_seconds_count";
    node.metric_with(name, &format!("op=\"{operation}\",role=\"{role}\""))
}

fn failed(node: &Server, role: &str, kind: &str) -> Option<f64> {
    let labels = format!("kind=\"{kind}\",node=\"a\",role=\"{role}\"");
    node.metric_with("sockudo_backend_errors_total", &labels)
}

fn reconnected(node: &Server, role: &str) -> Option<f64> {
    let name = "sockudo_backend_reconnects_total";
    node.metric_with(name, &format!("role=\"{role}\""))
}

fn is_above_0(count: Option<f64>) -> Option<()> {
    (count > Some(0.0)).then_some(())
}

#[test]
fn what_each_backend_answers_fails_and_loses_is_counted_under_its_role() {
    let name = "what_each_backend_answers_fails_and_loses_is_counted_under_its_role";
    let Some(mut redis) = Redis::start() else {
        return skip(name, "there is no redis-server; `scripts/test` installs it");
    };
    let Some(mut database) = stores::database(name) else {
        return;
    };
    let sink = WebhookSink::start();
    let hooks = json!([sink.entry(&["channel_occupied"])]).to_string();
    let set = format!("UPDATE apps.applications SET webhooks = '{hooks}' WHERE id = 'shop-id'");
    database.run(&[&set]);
    let mut keys = redis.keys();
    let all = json!({
        "cache": {"driver": "redis"}, "queue": {"driver": "redis"},
        "rate_limiter": {"enabled": true, "driver": "redis"},
    });
    merge(&mut keys, all);
    // Known apps are looked at again all the time.
    merge(&mut keys, json!({"app_manager": {"cache": {"ttl": 1}}}));
    let keys = stores::keys(&database, keys);
    let node = Server::start(&node_config(&redis, "a", keys), 2);
    is_ready(&node);
    for role in ["adapter", "app_manager", "cache", "queue", "rate_limiter"] {
        for kind in ["timeout", "io", "auth", "protocol"] {
            assert_eq!(failed(&node, role, kind), Some(0.0), "{kind} of {role}");
        }
        assert_eq!(reconnected(&node, role), Some(0.0), "{role}");
    }
    let mut alice = node.client_of("shop", "alice");
    alice.subscribes_to_empty_cache("cache-news");
    node.api_of("shop").publishes("n", "cache-news", "x");
    alice.expects_frame(json!({"event": "n", "channel": "cache-news", "data": "x"}));
    for (role, operation) in [
        ("adapter", "publish"),
        ("adapter", "subscribe"),
        ("app_manager", "lookup"),
        ("app_manager", "refresh"),
        ("cache", "get"),
        ("cache", "set"),
        ("queue", "put"),
        ("queue", "turn"),
        ("rate_limiter", "take"),
    ] {
        eventually(&format!("{operation} of {role}"), || {
            is_above_0(asked(&node, role, operation))
        });
    }
    // A server that accepts and never answers, and one that is gone.
    database.signal("STOP");
    eventually("a timeout", || {
        is_above_0(failed(&node, "app_manager", "timeout"))
    });
    database.signal("CONT");
    database.kill();
    redis.kill();
    for role in OF_REDIS.into_iter().chain(["app_manager"]) {
        let what = format!("a fault of {role}");
        eventually(&what, || is_above_0(failed(&node, role, "io")));
    }
    database.start_again();
    redis.start_again();
    for role in OF_REDIS.into_iter().chain(["app_manager"]) {
        let what = format!("a new connection of {role}");
        eventually(&what, || is_above_0(reconnected(&node, role)));
        assert_eq!(failed(&node, role, "auth"), Some(0.0), "{role}");
    }
}

#[test]
fn who_is_refused_by_a_backend_counts_that_as_a_fault_of_rights() {
    let name = "who_is_refused_by_a_backend_counts_that_as_a_fault_of_rights";
    let Some(redis) = Redis::start_with_password("wanted") else {
        return skip(name, "there is no redis-server; `scripts/test` installs it");
    };
    let Some(database) = stores::database(name) else {
        return;
    };
    let mut keys = redis.keys();
    let wrong = json!({
        "cache": {"driver": "redis"}, "queue": {"driver": "redis"},
        "rate_limiter": {"enabled": true, "driver": "redis"},
        "database": {"redis": {"password": "wrong"}, "mysql": {"password": "wrong"}},
    });
    merge(&mut keys, wrong);
    let keys = stores::keys(&database, keys);
    let node = Server::spawn(&node_config(&redis, "a", keys), 2);
    eventually("its metrics", || TcpStream::connect(node.metrics).ok());
    for role in OF_REDIS.into_iter().chain(["app_manager"]) {
        let what = format!("a refusal of {role}");
        eventually(&what, || is_above_0(failed(&node, role, "auth")));
        eventually(&format!("{role} to be down"), || {
            let up = node.metric_with("sockudo_backend_up", &format!("role=\"{role}\""));
            (up == Some(0.0)).then_some(())
        });
    }
}
