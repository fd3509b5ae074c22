//! The Redis of cache, rate limiter and queue alike: over TLS, and so slow that many wait for it at once.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};

use crate::bus_servers::files_of_client;
use crate::certificates::Certificates;
use crate::gate::Gate;
use crate::redis::{Redis, own_host};
use crate::redis_cluster::RedisCluster;
use crate::support::config::{Config, merge};
use crate::support::eventually;
use crate::support::server::{Server, next_port, own_address};
use crate::support::skip::skip;

const NO_REDIS: &str = "there is no redis-server; `scripts/test` installs it";
/// So long that nothing comes back within a test.
const LONG_S: u64 = 86_400;

fn has_health(server: &Server, status: u16, word: &str) {
    eventually(&format!("/up to say {status} {word}"), || {
        let up = server.gets("/up");
        (up.status == status && up.header("x-health-check") == Some(word)).then_some(())
    });
}

fn limiter(driver: &str) -> Value {
    let limit = json!({"max_requests": 20, "window_seconds": LONG_S});
    json!({"enabled": true, "driver": driver, "api_rate_limit": limit})
}

/// A last event that one node has written is read by the other, and both count together.
fn is_shared_by(name: &str, keys: &Value) {
    let config = Config::new().with(keys.clone());
    let nodes = [1, 2].map(|shards| Server::start(&config, shards));
    nodes.iter().for_each(|node| has_health(node, 200, "OK"));
    nodes[0].api().publishes("n", "cache-news", "kept");
    let event = json!({"event": "n", "channel": "cache-news", "data": "kept"});
    eventually("the event to be written", || {
        let label = "result=\"written\"";
        let written = nodes[0].metric_with("sockudo_cache_operations_total", label);
        (written >= Some(1.0)).then_some(())
    });
    let mut bob = nodes[1].client("bob");
    bob.subscribes("cache-news");
    bob.expects_frame(event);
    let mut passed = 1;
    for number in 0..40 {
        let reply = nodes[number % 2].api().get("/channels", &[]);
        assert!([200, 429].contains(&reply.status), "{name}: {reply:?}");
        passed += usize::from(reply.status == 200);
    }
    assert_eq!(passed, 20, "{name}");
}

#[test]
fn nodes_share_last_events_and_rates_over_tls() {
    let name = "nodes_share_last_events_and_rates_over_tls";
    let Some(certificates) = Certificates::make(own_host()) else {
        return skip(name, "there is no openssl");
    };
    let redis = Redis::start_with_tls(&certificates, "server");
    let cluster = RedisCluster::start_with_tls(&certificates);
    let (Some(redis), Some(cluster)) = (redis, cluster) else {
        return skip(name, NO_REDIS);
    };
    let files = files_of_client(&certificates);
    let mut enabled = files.clone();
    merge(&mut enabled, json!({"enabled": true}));
    let at = redis.tls.expect("it speaks TLS");
    // As a port of `database.redis`, as URLs of their own, and as a cluster.
    let by_port = json!({
        "cache": {"driver": "redis"},
        "rate_limiter": limiter("redis"),
        "database": {"redis": {"host": at.ip(), "port": at.port(), "tls": enabled}},
    });
    is_shared_by("by port", &by_port);
    let url = json!({"redis": {"url_override": format!("rediss://{at}/1")}});
    let mut by_url = json!({
        "cache": {"driver": "redis"},
        "rate_limiter": limiter("redis"),
        "database": {"redis": {"tls": files}},
    });
    merge(&mut by_url["cache"], url.clone());
    merge(&mut by_url["rate_limiter"], url);
    is_shared_by("by URL", &by_url);
    let member = cluster.masters[1].tls.expect("it speaks TLS");
    let in_cluster = json!({
        "cache": {"driver": "redis-cluster"},
        "rate_limiter": limiter("redis-cluster"),
        "database": {"redis": {"cluster_nodes": [format!("rediss://{member}")], "tls": files}},
    });
    is_shared_by("in a cluster", &in_cluster);
}

#[test]
fn a_redis_of_another_ca_or_without_tls_is_told_by_each_role_that_wants_it() {
    let name = "a_redis_of_another_ca_or_without_tls_is_told_by_each_role_that_wants_it";
    let Some(certificates) = Certificates::make(own_host()) else {
        return skip(name, "there is no openssl");
    };
    let Some(redis) = Redis::start_with_tls(&certificates, "server") else {
        return skip(name, NO_REDIS);
    };
    let mut other_ca = files_of_client(&certificates);
    merge(
        &mut other_ca,
        json!({"ca_path": certificates.certificate("other-ca")}),
    );
    let plain = redis.address;
    let tls = redis.tls.expect("it speaks TLS");
    for (role, driver) in [
        ("cache", json!({"cache": {"driver": "redis"}})),
        ("rate limiter", json!({"rate_limiter": limiter("redis")})),
        ("queue", json!({"queue": {"driver": "redis"}})),
    ] {
        for (at, says) in [
            (tls, "is of no CA in the file of database.redis.tls.ca_path"),
            (plain, "database.redis.tls.enabled"),
        ] {
            let mut files = other_ca.clone();
            merge(&mut files, json!({"enabled": true}));
            let at = json!({"redis": {"host": at.ip(), "port": at.port(), "tls": files}});
            let config = Config::new()
                .with(driver.clone())
                .with(json!({"database": at}));
            let server = Server::spawn(&config, 1);
            eventually(&format!("the {role} to say: {says}"), || {
                server.log().contains(says).then_some(())
            });
            has_health(&server, 200, "DEGRADED");
        }
    }
}

/// Each answer is late by so much, which is less than it is waited for.
const SLOW: Duration = Duration::from_millis(120);
/// One after the other they would take longer than anything is waited for here.
const ASKERS: usize = 200;

#[test]
fn a_crowd_that_waits_for_a_slow_redis_delays_nobody_who_asks_nothing_of_it() {
    let name = "a_crowd_that_waits_for_a_slow_redis_delays_nobody";
    let Some(redis) = Redis::start() else {
        return skip(name, NO_REDIS);
    };
    let at = SocketAddr::from((own_address(), next_port()));
    let _gate = Gate::slow(at, redis.address, SLOW);
    // Nothing is taken in advance, so that each request asks.
    let limit = json!({"max_requests": 40, "window_seconds": LONG_S, "trust_hops": 1});
    let config = Config::new().with(json!({
        "cache": {"driver": "redis"},
        "rate_limiter": {"enabled": true, "driver": "redis", "api_rate_limit": limit},
        "database": {"redis": {"host": at.ip(), "port": at.port()}},
    }));
    let config = config.with_app(json!({"max_client_events_per_second": 0}));
    for shards in [1, 3] {
        let server = Server::start(&config, shards);
        has_health(&server, 200, "OK");
        let mut pairs: Vec<_> = (0..2 * shards)
            .map(|number| {
                let mut pair = ["speaks", "hears"].map(|it| server.client(it));
                let room = format!("private-{number}");
                pair.iter_mut().for_each(|client| client.subscribes(&room));
                (room, pair)
            })
            .collect();
        let mut wait_for_cache: Vec<_> = (0..ASKERS).map(|_| server.client("waits")).collect();
        let mut wait_for_rates: Vec<_> = (0..ASKERS).map(|_| server.wire()).collect();
        for (number, client) in wait_for_cache.iter_mut().enumerate() {
            client.asks_for(&format!("cache-{shards}-{number}"));
        }
        for (number, wire) in wait_for_rates.iter_mut().enumerate() {
            wire.sends(format!(
                "GET /apps/app-id/channels HTTP/1.1\r\nHost: test\r\nX-Forwarded-For: 198.51.100.{number}\r\n\r\n"
            ));
        }
        for number in 0..50 {
            for (room, [speaks, hears]) in &mut pairs {
                speaks.triggers("client-n", room, json!(number));
                let event = hears.expects("client-n", room);
                assert_eq!(event["data"], number.to_string(), "in order");
            }
            assert_eq!(server.gets("/up").status, 200);
        }
        for (number, client) in wait_for_cache.iter_mut().enumerate() {
            let channel = format!("cache-{shards}-{number}");
            client.expects("pusher_internal:subscription_succeeded", &channel);
            client.expects("pusher:cache_miss", &channel);
        }
        for wire in &mut wait_for_rates {
            assert_eq!(wire.reply().status, 401, "counted, and not signed");
        }
    }
}
