//! Last events of cache channels in a Redis: after a restart, on another node, while it is gone.

use std::time::Duration;

use serde_json::{Value, json};

use crate::redis::Redis;
use crate::redis_cluster::RedisCluster;
use crate::support::client::Client;
use crate::support::config::{APP_ID, Config, merge};
use crate::support::eventually;
use crate::support::server::Server;
use crate::support::skip::skip;
use crate::support::webhook::WebhookSink;

const NO_REDIS: &str = "there is no redis-server; `scripts/test` installs it";

fn on_redis(redis: &Redis, more: Value) -> Config {
    let (host, port) = (redis.address.ip().to_string(), redis.address.port());
    let mut keys = json!({
        "cache": {"driver": "redis"}, "database": {"redis": {"host": host, "port": port}},
    });
    merge(&mut keys, more);
    Config::new().with(keys)
}

fn key(channel: &str) -> String {
    format!("sockudo_cache::app:{APP_ID}:channel:{channel}:cache_miss")
}

fn has_health(server: &Server, word: &str) {
    eventually(&format!("/up to say {word}"), || {
        let up = server.gets("/up");
        (up.status == 200 && up.header("x-health-check") == Some(word)).then_some(())
    });
}

fn operations(server: &Server, result: &str) -> f64 {
    let label = format!("result=\"{result}\"");
    let name = "sockudo_cache_operations_total";
    server.metric_with(name, &label).unwrap_or(0.0)
}

#[test]
fn the_last_event_outlives_the_server() {
    let Some(mut redis) = Redis::start() else {
        return skip("the_last_event_outlives_the_server", NO_REDIS);
    };
    let odd = "{ \"a\" : 1.50, \"b\":\"\\u00e9\" , not json";
    for shards in [1, 3] {
        let config = on_redis(&redis, json!({}));
        {
            let server = Server::start(&config, shards);
            has_health(&server, "OK");
            let mut api = server.api();
            for number in 0..40 {
                api.publishes("first", &format!("cache-{number}"), "1");
                api.publishes("my-event", &format!("cache-{number}"), odd);
            }
            eventually("the last one to be written", || {
                let value = redis.command(&["GET", &key("cache-39")]);
                value.contains("my-event").then_some(())
            });
        }
        let left: i64 = redis
            .command(&["PTTL", &key("cache-7")])
            .trim()
            .trim_start_matches(':')
            .parse()
            .expect("a number");
        assert!(left > 1_000_000 && left <= 1_800_000, "{left}");
        let server = Server::start(&config, shards);
        let mut alice = server.client("alice");
        for number in 0..40 {
            let channel = format!("cache-{number}");
            alice.subscribes(&channel);
            alice.expects_frame(json!({"event": "my-event", "channel": channel, "data": odd}));
        }
        // There is none for sure, and nobody waits for anything more.
        alice.subscribes_to_empty_cache("cache-nothing");
        redis.command(&["FLUSHALL"]);
    }
}

#[test]
fn what_sockudo_2_9_kept_is_found_and_what_is_no_event_is_a_miss() {
    let name = "what_sockudo_2_9_kept_is_found_and_what_is_no_event_is_a_miss";
    let Some(mut redis) = Redis::start() else {
        return skip(name, NO_REDIS);
    };
    for (channel, value) in [
        (
            "cache-text",
            r#"{"event":"e","channel":"cache-text","data":"{\"a\":1}"}"#,
        ),
        (
            "cache-json",
            r#"{"channel":"other", "event":"e", "data": {"a" : [1, 2]}}"#,
        ),
        ("cache-none", r#"{"event":"e"}"#),
        ("cache-list", r#"["event"]"#),
        ("cache-cut", r#"{"event":"e","data":"#),
        ("cache-empty", ""),
    ] {
        redis.command(&["SET", &key(channel), value]);
    }
    let server = Server::start(&on_redis(&redis, json!({})), 2);
    let mut alice = server.client("alice");
    for (channel, data) in [
        ("cache-text", "{\"a\":1}"),
        ("cache-json", "{\"a\":[1,2]}"),
        ("cache-none", "null"),
    ] {
        alice.subscribes(channel);
        alice.expects_frame(json!({"event": "e", "channel": channel, "data": data}));
    }
    for channel in ["cache-list", "cache-cut", "cache-empty"] {
        alice.subscribes_to_empty_cache(channel);
    }
    let huge = "x".repeat(2 << 20);
    let huge = format!(r#"{{"event":"e","channel":"cache-huge","data":"{huge}"}}"#);
    redis.command(&["SET", &key("cache-huge"), &huge]);
    alice.subscribes_to_empty_cache("cache-huge");
    // From now on it is here, and heard once more by nobody.
    let mut bob = server.client("bob");
    bob.subscribes("cache-text");
    bob.expects_frame(json!({"event": "e", "channel": "cache-text", "data": "{\"a\":1}"}));
}

#[test]
fn what_another_node_wrote_while_nobody_was_subscribed_here_is_the_last_event() {
    let name = "what_another_node_wrote_while_nobody_was_subscribed_here_is_the_last_event";
    let Some(mut redis) = Redis::start() else {
        return skip(name, NO_REDIS);
    };
    for shards in [1, 3] {
        let server = Server::start(&on_redis(&redis, json!({})), shards);
        has_health(&server, "OK");
        let channel = format!("cache-of-{shards}");
        let last = |data: &str| json!({"event": "e", "channel": channel, "data": data});
        let mut api = server.api();
        api.publishes("e", &channel, "1");
        eventually("the first one to be written", || {
            let value = redis.command(&["GET", &key(&channel)]);
            value.contains("\"data\":\"1\"").then_some(())
        });
        let mut others = |data: &str| {
            redis.command(&["SET", &key(&channel), &last(data).to_string()]);
        };
        others("2");
        let mut alice = server.client("alice");
        alice.subscribes(&channel);
        alice.expects_frame(last("2"));
        // Who is subscribed hears the others: nobody asks.
        others("3");
        let mut bob = server.client("bob");
        bob.subscribes(&channel);
        bob.expects_frame(last("2"));
        alice.unsubscribes(&channel);
        bob.unsubscribes(&channel);
        alice.subscribes(&channel);
        alice.expects_frame(last("3"));
        // What is published here is the last one, whether it is written already or not.
        for number in 4..40 {
            let data = number.to_string();
            api.publishes("e", &channel, &data);
            alice.expects_frame(last(&data));
            alice.unsubscribes(&channel);
            alice.subscribes(&channel);
            alice.expects_frame(last(&data));
        }
    }
}

#[test]
fn while_redis_is_gone_channels_miss_and_what_was_published_is_written_later() {
    let name = "while_redis_is_gone_channels_miss_and_what_was_published_is_written_later";
    let Some(mut redis) = Redis::start() else {
        return skip(name, NO_REDIS);
    };
    redis.command(&["SET", &key("cache-old"), r#"{"event":"e","data":"1"}"#]);
    let server = Server::start(&on_redis(&redis, json!({})), 2);
    has_health(&server, "OK");
    redis.kill();
    has_health(&server, "DEGRADED");
    let mut alice = server.client("alice");
    alice.subscribes_to_empty_cache("cache-old");
    let mut api = server.api();
    for number in 0..3 {
        api.publishes("e", "cache-new", &number.to_string());
    }
    // What this node heard it still knows.
    alice.subscribes("cache-new");
    alice.expects_frame(json!({"event": "e", "channel": "cache-new", "data": "2"}));
    redis.start_again();
    has_health(&server, "OK");
    eventually("what waited to be written", || {
        let value = redis.command(&["GET", &key("cache-new")]);
        value.contains("\"data\":\"2\"").then_some(())
    });
    // One that accepts and does not answer delays a subscription, and nothing else.
    redis.signal("STOP");
    alice.subscribes_to_empty_cache("cache-silent");
    alice.expects_pong();
    redis.signal("CONT");
    eventually("an answer to be counted as missing", || {
        (operations(&server, "error") > 0.0).then_some(())
    });
}

#[test]
fn what_a_full_redis_refuses_is_written_when_it_has_room() {
    let Some(mut redis) = Redis::start() else {
        return skip(
            "what_a_full_redis_refuses_is_written_when_it_has_room",
            NO_REDIS,
        );
    };
    let server = Server::start(&on_redis(&redis, json!({})), 2);
    has_health(&server, "OK");
    let mut api = server.api();
    api.publishes("e", "cache-full", "1");
    eventually("the first one to be written", || {
        let value = redis.command(&["GET", &key("cache-full")]);
        value.contains("\"data\":\"1\"").then_some(())
    });
    redis.command(&["CONFIG", "SET", "maxmemory", "1"]);
    api.publishes("e", "cache-full", "2");
    has_health(&server, "DEGRADED");
    redis.command(&["CONFIG", "SET", "maxmemory", "0"]);
    eventually("the second one to be written", || {
        let value = redis.command(&["GET", &key("cache-full")]);
        value.contains("\"data\":\"2\"").then_some(())
    });
    has_health(&server, "OK");
}

#[test]
fn a_cluster_keeps_last_events_wherever_their_slot_is() {
    let name = "a_cluster_keeps_last_events_wherever_their_slot_is";
    let Some(cluster) = RedisCluster::start() else {
        return skip(name, NO_REDIS);
    };
    let node = &cluster.masters[1].address;
    let nodes = json!([{"host": node.ip().to_string(), "port": node.port()}]);
    let config = Config::new().with(json!({
        "cache": {"driver": "redis-cluster"}, "database": {"redis": {"cluster_nodes": nodes}},
    }));
    {
        let server = Server::start(&config, 2);
        has_health(&server, "OK");
        let mut api = server.api();
        for number in 0..60 {
            api.publishes("e", &format!("cache-{number}"), &number.to_string());
        }
        eventually("all to be written", || {
            (operations(&server, "written") >= 60.0).then_some(())
        });
    }
    let server = Server::start(&config, 2);
    has_health(&server, "OK");
    let mut alice = server.client("alice");
    for number in 0..60 {
        let channel = format!("cache-{number}");
        alice.subscribes(&channel);
        alice.expects_frame(json!({"event": "e", "channel": channel, "data": number.to_string()}));
    }
}

#[test]
fn a_redis_that_takes_events_again_is_known_though_what_it_refused_has_ended() {
    let name = "a_redis_that_takes_events_again_is_known";
    let Some(mut redis) = Redis::start() else {
        return skip(name, NO_REDIS);
    };
    let brief = json!({"channel_limits": {"cache_ttl": 1}});
    let server = Server::start(&on_redis(&redis, brief), 2);
    has_health(&server, "OK");
    let mut api = server.api();
    redis.command(&["CONFIG", "SET", "maxmemory", "1"]);
    api.publishes("e", "cache-brief", "1");
    has_health(&server, "DEGRADED");
    eventually("the event's end", || {
        let answer = api.reads("/channels/cache-brief", &[("info", "cache")]);
        answer["cache"].is_null().then_some(())
    });
    redis.command(&["CONFIG", "SET", "maxmemory", "0"]);
    has_health(&server, "OK");
    assert_eq!(redis.command(&["KEYS", "*brief*"]), "*0");
}

#[test]
fn a_node_that_nobody_uses_says_when_its_redis_is_gone_and_when_it_is_back() {
    let name = "a_node_that_nobody_uses_says_when_its_redis_is_gone_and_when_it_is_back";
    let Some(mut redis) = Redis::start() else {
        return skip(name, NO_REDIS);
    };
    let (store, limiter) = (
        json!({"driver": "redis"}),
        json!({"enabled": true, "driver": "redis"}),
    );
    for keys in [
        json!({"cache": store}),
        json!({"cache": {"driver": "memory"}, "rate_limiter": limiter}),
        json!({"cache": {"driver": "memory"}, "queue": store}),
    ] {
        let server = Server::start(&on_redis(&redis, keys), 1);
        has_health(&server, "OK");
        redis.signal("STOP");
        has_health(&server, "DEGRADED");
        redis.signal("CONT");
        has_health(&server, "OK");
        redis.kill();
        has_health(&server, "DEGRADED");
        redis.start_again();
        has_health(&server, "OK");
    }
}

#[test]
fn what_a_dead_or_silent_cache_does_not_answer_is_a_miss_for_the_client_alone() {
    let name = "what_a_dead_or_silent_cache_does_not_answer_is_a_miss_for_the_client_alone";
    let Some(mut redis) = Redis::start() else {
        return skip(name, NO_REDIS);
    };
    for shards in [1, 3] {
        let mut sink = WebhookSink::start();
        let config = on_redis(&redis, json!({}));
        let config = config.with_app(json!({"webhooks": [sink.entry(&["cache_miss"])]}));
        let server = Server::start(&config, shards);
        has_health(&server, "OK");
        let mut alice = server.client("alice");
        is_missed_for_the_app(&mut alice, &mut sink, "cache-first");
        redis.signal("STOP");
        for number in 0..5 {
            alice.subscribes_to_empty_cache(&format!("cache-silent-{number}"));
        }
        let too_late = "the cache answers too late: events that it has are missed";
        assert_eq!(server.log().matches(too_late).count(), 1, "once a minute");
        redis.signal("CONT");
        is_missed_for_the_app(&mut alice, &mut sink, "cache-second");
        redis.kill();
        for number in 0..5 {
            alice.subscribes_to_empty_cache(&format!("cache-dead-{number}"));
        }
        redis.start_again();
        is_missed_for_the_app(&mut alice, &mut sink, "cache-third");
    }
}

/// As soon as the cache answers again. Webhooks of one target come in order, so none was sent meanwhile.
fn is_missed_for_the_app(client: &mut Client, sink: &mut WebhookSink, of: &str) {
    let mut number = 0;
    eventually("a miss that the cache has told", || {
        number += 1;
        client.subscribes_to_empty_cache(&format!("{of}-{number}"));
        let event = sink.next_within(Duration::from_millis(500))?;
        assert_eq!(event["name"], "cache_miss");
        let channel = event["channel"].as_str().expect("a name");
        assert!(
            channel.starts_with(of),
            "{channel}: the cache did not answer"
        );
        Some(())
    });
}
