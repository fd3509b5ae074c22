//! Names, authorisation and the order of what a subscriber hears.

use std::time::Duration;

use serde_json::{Value, json};

use crate::on_one_and_three_shards;
use crate::support::config::{Config, KEY};
use crate::support::server::Server;
use crate::support::sign;

// P-035
fn a_public_channel_needs_no_auth_and_answers_with_exact_bytes(shards: usize) {
    let server = Server::start(&Config::new(), shards);
    let mut alice = server.client("alice");
    for data in [
        json!({"channel": "my-channel"}),
        json!({"channel": "my-channel", "auth": ""}),
        json!({"channel": "my-channel", "auth": "nonsense", "channel_data": 5}),
    ] {
        alice.sends(json!({"event": "pusher:subscribe", "data": data}));
        let text = String::from_utf8(alice.wire.frame().payload).expect("UTF-8");
        assert_eq!(
            text,
            r#"{"event":"pusher_internal:subscription_succeeded","channel":"my-channel","data":"{}"}"#
        );
    }
}

// P-036
fn channel_names_keep_to_the_grammar(shards: usize) {
    let server = Server::start(&Config::new(), shards);
    let mut alice = server.client("alice");
    let longest = "x".repeat(200);
    for name in [
        "a", "a_b", "a-b", "a=b", "a@b", "a,b", "a.b", "a;b", "AZaz09", &longest,
    ] {
        alice.subscribes(name);
    }
    let too_long = "x".repeat(201);
    for name in [
        "",
        " ",
        "a b",
        "a:b",
        "a/b",
        "#x",
        "a#b",
        "é",
        "a\tb",
        "a\0b",
        "a\"b",
        "a\\b",
        "a+b",
        "a!b",
        "#server-to-user-",
        &too_long,
    ] {
        alice.sends(json!({"event": "pusher:subscribe", "data": {"channel": name}}));
        alice.expects_refusal(name, "InvalidChannel", 400);
    }
    // The echo of a huge name is cut.
    let huge = "y".repeat(5_000);
    alice.sends(json!({"event": "pusher:subscribe", "data": {"channel": huge}}));
    let frame = alice.next();
    assert_eq!(frame["channel"].as_str().expect("a string").len(), 256);
    // Names differ by case.
    alice.subscribes("Case");
    server.api().publishes("hello", "case", "x");
    alice.expects_nothing();
    for data in [
        json!({}),
        json!({"channel": null}),
        json!({"channel": 5}),
        json!([]),
        json!(1),
    ] {
        alice.sends(json!({"event": "pusher:subscribe", "data": data}));
        alice.expects_error(4300);
    }
    alice.sends(json!({"event": "pusher:subscribe"}));
    alice.expects_error(4300);
}

// P-037, P-038, P-039, P-040
fn private_channels_of_every_kind_need_a_fitting_signature(shards: usize) {
    let server = Server::start(&Config::new(), shards);
    let mut alice = server.client("alice");
    let bob = server.client("bob");
    for channel in [
        "private-foobar",
        "private-encrypted-foobar",
        "private-cache-foobar",
        "private-encrypted-cache-foobar",
        "private-x-cache-y",
        "private-encrypted",
    ] {
        let good = alice.channel_auth(channel, None);
        let (key, signature) = good.split_once(':').expect("key:signature");
        let last = if signature.ends_with('0') { '1' } else { '0' };
        let refused = [
            json!(format!("{key}:{}{last}", &signature[..63])),
            json!(format!("wrong-key:{signature}")),
            json!(format!("{key}x:{signature}")),
            json!(format!(":{signature}")),
            json!(signature),
            json!(format!("{key}:")),
            json!(format!("{key}:{}", signature.to_uppercase())),
            json!(format!("{key}:{signature} ")),
            json!(format!("{key}:{}", &signature[..62])),
            json!(""),
            json!(7),
            json!(null),
            json!([good]),
            json!(bob.channel_auth(channel, None)),
            json!(alice.channel_auth("private-other", None)),
            json!(sign::channel_auth(
                KEY,
                "wrong-secret",
                &alice.socket_id,
                channel,
                None
            )),
        ];
        for auth in refused {
            let upper = signature.to_uppercase();
            if upper == signature && auth == json!(format!("{key}:{upper}")) {
                continue; // A signature of digits alone has no upper case.
            }
            alice.sends(json!({
                "event": "pusher:subscribe", "data": {"auth": auth, "channel": channel},
            }));
            alice.expects_refusal(channel, "AuthError", 401);
        }
        alice.sends(json!({"event": "pusher:subscribe", "data": {"channel": channel}}));
        alice.expects_refusal(channel, "AuthError", 401);
        // Refused means deaf.
        server.api().publishes("secret", channel, "x");
        alice.expects_pong();
    }
    alice.subscribes("private-foobar");
    alice.subscribes("private-encrypted-foobar");
    alice.subscribes("private-encrypted");
    alice.subscribes("private-x-cache-y");
}

// P-041
fn only_a_names_start_decides_its_kind(shards: usize) {
    let server = Server::start(&Config::new(), shards);
    let mut api = server.api();
    let mut alice = server.client("alice");
    for channel in [
        "private",
        "privatefoo",
        "presence",
        "my-cache-x",
        "my-private-x",
        "cache",
    ] {
        api.publishes("early", channel, "x");
        alice.sends(json!({"event": "pusher:subscribe", "data": {"channel": channel}}));
        alice.expects("pusher_internal:subscription_succeeded", channel);
        alice.expects_pong();
    }
    api.publishes("early", "presence-x-cache-y", "x");
    alice.joins("presence-x-cache-y", "alice");
    alice.expects_pong();
}

// P-042
fn a_private_channel_accepts_channel_data_that_was_signed(shards: usize) {
    let server = Server::start(&Config::new(), shards);
    let mut alice = server.client("alice");
    let data = "anything at all";
    let signed = alice.channel_auth("private-x", Some(data));
    let unsigned = alice.channel_auth("private-x", None);
    alice.sends(json!({"event": "pusher:subscribe", "data": {
        "auth": unsigned, "channel_data": data, "channel": "private-x",
    }}));
    alice.expects_refusal("private-x", "AuthError", 401);
    alice.sends(json!({"event": "pusher:subscribe", "data": {
        "auth": signed, "channel_data": data, "channel": "private-x",
    }}));
    alice.expects("pusher_internal:subscription_succeeded", "private-x");
    alice.sends(json!({"event": "pusher:subscribe", "data": {
        "auth": alice.channel_auth("private-y", None), "channel_data": "", "channel": "private-y",
    }}));
    alice.expects("pusher_internal:subscription_succeeded", "private-y");
}

// P-056
fn subscribing_again_succeeds_again_and_says_nothing_else(shards: usize) {
    let config = Config::new().with_app(json!({"enable_subscription_count": true}));
    let server = Server::start(&config, shards);
    let mut alice = server.client("alice");
    alice.asks_for("cache-news");
    alice.expects("pusher_internal:subscription_succeeded", "cache-news");
    alice.expects("pusher:cache_miss", "cache-news");
    alice.expects("pusher_internal:subscription_count", "cache-news");
    server.api().publishes("kept", "cache-news", "1");
    alice.expects("kept", "cache-news");
    alice.asks_for("cache-news");
    alice.expects("pusher_internal:subscription_succeeded", "cache-news");
    alice.expects_nothing();
    // One delivery, however often one subscribed.
    server.api().publishes("once", "cache-news", "2");
    alice.expects("once", "cache-news");
    alice.expects_nothing();
    // A failed second attempt keeps the first.
    alice.subscribes("private-x");
    alice.expects("pusher_internal:subscription_count", "private-x");
    alice.sends(json!({"event": "pusher:subscribe", "data": {
        "auth": "app-key:bad", "channel": "private-x",
    }}));
    alice.expects_refusal("private-x", "AuthError", 401);
    server.api().publishes("still", "private-x", "3");
    alice.expects("still", "private-x");
}

// P-058
fn unsubscribing_is_silent_and_stops_delivery(shards: usize) {
    let server = Server::start(&Config::new(), shards);
    let mut alice = server.client("alice");
    for channel in [
        json!("never-joined"),
        json!("bad name"),
        json!(""),
        json!("presence-x"),
    ] {
        alice.sends(json!({"event": "pusher:unsubscribe", "data": {"channel": channel}}));
        alice.expects_pong();
    }
    alice.sends(json!({"event": "pusher:unsubscribe", "data": {"channel": 5}}));
    alice.expects_error(4300);
    alice.subscribes("news");
    alice.unsubscribes("news");
    server.api().publishes("hello", "news", "x");
    alice.expects_nothing();
    // A bare name as data.
    alice.subscribes("news");
    alice.sends(json!({"event": "pusher:unsubscribe", "data": "news"}));
    alice.expects_pong();
    server.api().publishes("hello", "news", "x");
    alice.expects_nothing();
    assert_eq!(
        server.api().reads("/channels", &[]),
        json!({"channels": {}})
    );
}

// P-059
fn pipelined_subscribe_and_unsubscribe_are_done_in_order(shards: usize) {
    let server = Server::start(&Config::new(), shards);
    let mut alice = server.client("alice");
    for round in 0..20 {
        let channel = format!("room-{round}");
        let subscribe = json!({"event": "pusher:subscribe", "data": {"channel": channel}});
        let unsubscribe = json!({"event": "pusher:unsubscribe", "data": {"channel": channel}});
        alice.sends(subscribe.clone());
        alice.sends(unsubscribe.clone());
        alice.sends(subscribe);
        let expected = "pusher_internal:subscription_succeeded";
        alice.expects(expected, &channel);
        alice.expects(expected, &channel);
        server.api().publishes("hello", &channel, "x");
        alice.expects("hello", &channel);
        alice.sends(unsubscribe);
        alice.expects_pong();
        server.api().publishes("hello", &channel, "x");
        alice.expects_nothing_for(Duration::from_millis(20));
    }
}

// P-060
fn subscription_counts_are_told_when_the_app_wants_them(shards: usize) {
    let config = Config::new().and_app("counting", json!({"enable_subscription_count": true}));
    let server = Server::start(&config, shards);
    let mut silent = server.client("silent");
    silent.subscribes("news");
    silent.expects_nothing();

    let count = |count: u64| {
        json!({
            "event": "pusher_internal:subscription_count", "channel": "news",
            "data": format!(r#"{{"subscription_count":{count}}}"#),
        })
    };
    let mut alice = server.client_of("counting", "alice");
    let mut bob = server.client_of("counting", "bob");
    alice.subscribes("news");
    alice.expects_frame(count(1));
    bob.subscribes("news");
    bob.expects_frame(count(2));
    alice.expects_frame(count(2));
    bob.unsubscribes("news");
    alice.expects_frame(count(1));
    bob.subscribes("news");
    bob.expects_frame(count(2));
    alice.expects_frame(count(2));
    bob.leaves();
    alice.expects_frame(count(1));
    // Presence channels have members instead.
    alice.joins("presence-room", "alice");
    alice.expects_nothing();
}

// P-060
fn above_a_hundred_subscribers_counts_are_told_at_most_every_five_seconds(shards: usize) {
    let config = Config::new().with_app(json!({"enable_subscription_count": true}));
    let server = Server::start(&config, shards);
    let mut first = server.client("first");
    first.subscribes("news");
    let mut others = Vec::new();
    for number in 0..120 {
        let mut other = server.client(&number.to_string());
        other.subscribes("news");
        others.push(other);
    }
    let mut told = Vec::new();
    while let Some(frame) = first.next_within(Duration::from_secs(6)) {
        assert_eq!(
            frame["event"], "pusher_internal:subscription_count",
            "{frame}"
        );
        let data: Value =
            serde_json::from_str(frame["data"].as_str().expect("text")).expect("JSON");
        told.push(data["subscription_count"].as_u64().expect("an integer"));
    }
    assert_eq!(
        told.last(),
        Some(&121),
        "the latest count is told in the end: {told:?}"
    );
    let above = told.iter().filter(|count| **count > 101).count();
    assert!(
        above <= 3,
        "twenty joins above the hundredth were told {above} times: {told:?}"
    );
}

// P-061
fn what_a_subscriber_hears_is_in_order(shards: usize) {
    let config = Config::new().with_app(json!({"enable_subscription_count": true}));
    let server = Server::start(&config, shards);
    let mut api = server.api();
    let mut alice = server.client("alice");
    api.publishes("kept", "cache-news", "old");
    alice.asks_for("cache-news");
    api.publishes("live", "cache-news", "new");
    alice.expects("pusher_internal:subscription_succeeded", "cache-news");
    let mut events = Vec::new();
    while events.last().is_none_or(|event| event != "live") {
        events.push(alice.next()["event"].as_str().expect("a name").to_owned());
    }
    // Had the publish won the race, it would be the cached event itself and the only one.
    let count = "pusher_internal:subscription_count";
    assert!(
        events == ["kept", count, "live"] || events == ["live"],
        "{events:?}"
    );
}

fn events_of_one_publisher_arrive_in_order(shards: usize) {
    let server = Server::start(&Config::new(), shards);
    let mut listeners: Vec<_> = (0..4)
        .map(|n| server.client(&format!("listener {n}")))
        .collect();
    for listener in &mut listeners {
        listener.subscribes("one");
        listener.subscribes("two");
    }
    let mut api = server.api();
    for number in 0..200 {
        api.posts_event(&json!({
            "name": "tick", "channels": ["one", "two"], "data": number.to_string(),
        }));
    }
    for listener in &mut listeners {
        let mut next = [0, 0];
        for _ in 0..400 {
            let frame = listener.next();
            let channel = usize::from(frame["channel"] == "two");
            assert_eq!(
                frame["data"],
                next[channel].to_string(),
                "{}",
                listener.name
            );
            next[channel] += 1;
        }
    }
}

on_one_and_three_shards! {
    a_public_channel_needs_no_auth_and_answers_with_exact_bytes,
    channel_names_keep_to_the_grammar,
    private_channels_of_every_kind_need_a_fitting_signature,
    only_a_names_start_decides_its_kind,
    a_private_channel_accepts_channel_data_that_was_signed,
    subscribing_again_succeeds_again_and_says_nothing_else,
    unsubscribing_is_silent_and_stops_delivery,
    pipelined_subscribe_and_unsubscribe_are_done_in_order,
    subscription_counts_are_told_when_the_app_wants_them,
    above_a_hundred_subscribers_counts_are_told_at_most_every_five_seconds,
    what_a_subscriber_hears_is_in_order,
    events_of_one_publisher_arrive_in_order,
}
