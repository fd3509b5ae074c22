//! Cache channels: the last event waits for whoever comes.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::on_one_and_three_shards;
use crate::support::config::Config;
use crate::support::eventually;
use crate::support::server::Server;
use crate::support::webhook::WebhookSink;

// P-069
fn an_empty_cache_is_a_miss_and_fifty_misses_are_one_webhook(shards: usize) {
    let mut sink = WebhookSink::start();
    let config = Config::new().with_app(json!({"webhooks": [sink.entry(&["cache_miss"])]}));
    let server = Server::start(&config, shards);
    let mut clients: Vec<_> = (0..50).map(|n| server.client(&n.to_string())).collect();
    for client in &mut clients {
        client.asks_for("cache-news");
    }
    for client in &mut clients {
        client.expects("pusher_internal:subscription_succeeded", "cache-news");
        client.expects_frame(json!({"event": "pusher:cache_miss", "channel": "cache-news"}));
    }
    sink.expects(json!({"name": "cache_miss", "channel": "cache-news"}));
    sink.expects_nothing_for(Duration::from_millis(500));
}

// P-070, P-071, P-074
fn a_newcomer_gets_the_last_event_byte_for_byte(shards: usize) {
    let server = Server::start(&Config::new(), shards);
    let mut api = server.api();
    let odd = "{ \"a\" : 1.50, \"b\":\"\\u00e9\" , not json";
    api.publishes("first", "cache-news", "1");
    api.publishes("my-event", "cache-news", odd);
    let mut alice = server.client("alice");
    alice.subscribes("cache-news");
    let kept = |data: &str| json!({"event": "my-event", "channel": "cache-news", "data": data});
    alice.expects_frame(kept(odd));
    alice.expects_nothing();
    // An event that excluded someone is kept for everyone.
    api.posts_event(&json!({
        "name": "my-event", "channels": ["cache-news"], "data": "excluded",
        "socket_id": alice.socket_id,
    }));
    alice.expects_nothing();
    let mut bob = server.client("bob");
    bob.subscribes("cache-news");
    bob.expects_frame(kept("excluded"));
    // A batch is kept as well, its last event last.
    let batch = json!({"batch": [
        {"name": "my-event", "channel": "cache-news", "data": "b1"},
        {"name": "my-event", "channel": "cache-news", "data": "b2"},
    ]});
    assert_eq!(
        api.post("/batch_events", batch.to_string().as_bytes())
            .status,
        200
    );
    for data in ["b1", "b2"] {
        bob.expects_frame(kept(data));
        alice.expects_frame(kept(data));
    }
    let mut carol = server.client("carol");
    carol.subscribes("cache-news");
    carol.expects_frame(kept("b2"));
    // It outlives its audience.
    drop((alice, bob, carol));
    eventually("the channel to be vacant", || {
        (api.reads("/channels", &[]) == json!({"channels": {}})).then_some(())
    });
    let mut dave = server.client("dave");
    dave.subscribes("cache-news");
    dave.expects_frame(kept("b2"));
}

// P-071
fn a_kept_event_expires(shards: usize) {
    let config = Config::new().with(json!({"channel_limits": {"cache_ttl": 1}}));
    let server = Server::start(&config, shards);
    let mut api = server.api();
    let published = Instant::now();
    api.publishes("kept", "cache-news", "1");
    let mut alice = server.client("alice");
    alice.subscribes("cache-news");
    alice.expects("kept", "cache-news");
    eventually("the cached event to expire", || {
        let answer = api.reads("/channels/cache-news", &[("info", "cache")]);
        answer["cache"].is_null().then_some(())
    });
    assert!(
        published.elapsed() >= Duration::from_millis(950),
        "{:?}",
        published.elapsed()
    );
    server.client("bob").subscribes_to_empty_cache("cache-news");
}

// P-072
fn presence_and_encrypted_channels_can_have_a_cache(shards: usize) {
    let server = Server::start(&Config::new(), shards);
    let mut api = server.api();
    let mut alice = server.client("alice");
    let room = "presence-cache-room";
    let snapshot = alice.joins(room, "alice");
    assert_eq!(snapshot.ids, ["alice"]);
    alice.expects("pusher:cache_miss", room);
    api.publishes("kept", room, "1");
    alice.expects("kept", room);
    let mut bob = server.client("bob");
    assert_eq!(bob.joins(room, "bob").ids, ["alice", "bob"]);
    bob.expects_frame(json!({"event": "kept", "channel": room, "data": "1"}));
    alice.expects_member_added(room, "bob");
    for channel in ["private-cache-x", "private-encrypted-cache-x"] {
        alice.subscribes_to_empty_cache(channel);
        let data = r#"{"nonce":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYX","ciphertext":"eA=="}"#;
        api.publishes("kept", channel, data);
        alice.expects("kept", channel);
        bob.subscribes(channel);
        bob.expects_frame(json!({"event": "kept", "channel": channel, "data": data}));
    }
}

// P-068
fn client_events_are_not_kept(shards: usize) {
    let server = Server::start(&Config::new(), shards);
    let mut alice = server.client("alice");
    let mut bob = server.client("bob");
    alice.subscribes_to_empty_cache("private-cache-x");
    bob.subscribes_to_empty_cache("private-cache-x");
    alice.triggers("client-x", "private-cache-x", json!(1));
    bob.expects("client-x", "private-cache-x");
    server
        .client("carol")
        .subscribes_to_empty_cache("private-cache-x");
}

// P-073
fn a_publish_that_races_a_subscribe_is_heard_exactly_once(shards: usize) {
    let server = Server::start(&Config::new(), shards);
    for round in 0..60 {
        let channel = format!("cache-race-{round}");
        let mut alice = server.client("alice");
        let mut api = server.api();
        std::thread::scope(|scope| {
            let publisher = scope.spawn(|| {
                api.publishes("tick", &channel, "1");
                api.publishes("tick", &channel, "2");
            });
            alice.asks_for(&channel);
            publisher.join().expect("both are published");
        });
        alice.expects("pusher_internal:subscription_succeeded", &channel);
        let mut heard = Vec::new();
        while heard.last().is_none_or(|data| data != "2") {
            let frame = alice.next();
            if frame["event"] != "pusher:cache_miss" {
                heard.push(frame["data"].as_str().expect("text").to_owned());
            }
        }
        assert!(heard == ["1", "2"] || heard == ["2"], "{heard:?}");
        alice.expects_nothing_for(Duration::from_millis(5));
    }
}

on_one_and_three_shards! {
    an_empty_cache_is_a_miss_and_fifty_misses_are_one_webhook,
    a_newcomer_gets_the_last_event_byte_for_byte,
    a_kept_event_expires,
    presence_and_encrypted_channels_can_have_a_cache,
    client_events_are_not_kept,
    a_publish_that_races_a_subscribe_is_heard_exactly_once,
}
