//! Events that clients send to each other.

use std::time::Duration;

use serde_json::json;

use crate::on_one_and_three_shards;
use crate::support::config::Config;
use crate::support::server::Server;

const ROOM: &str = "private-room";

// P-062, P-064, P-068
fn the_others_hear_it_as_a_string_and_the_sender_does_not(shards: usize) {
    let server = Server::start(
        &Config::new().with_app(json!({"max_client_events_per_second": 0})),
        shards,
    );
    let mut alice = server.client("alice");
    let mut bob = server.client("bob");
    alice.subscribes(ROOM);
    bob.subscribes(ROOM);
    for (sent, heard) in [
        (r#"{"on":true}"#, r#"{"on":true}"#),
        (r#""plain""#, "plain"),
        (r#""{\"a\": 1}""#, r#"{"a": 1}"#),
        (
            r#"{"channel":"x","channel_data":"y","user_data":"z","auth":"w"}"#,
            r#"{"channel":"x","channel_data":"y","user_data":"z","auth":"w"}"#,
        ),
        ("null", "null"),
        ("[1, 2.50, \"é\"]", "[1,2.50,\"é\"]"),
        ("12345678901234567890", "12345678901234567890"),
        (r#""""#, ""),
        (r#""\u00e9\n""#, "é\n"),
    ] {
        alice.wire.sends_text(&format!(
            r#"{{"event":"client-typing","channel":"{ROOM}","data":{sent}}}"#
        ));
        let frame = bob.next();
        assert_eq!(frame["event"], "client-typing", "{sent}: {frame}");
        assert_eq!(frame["data"], heard, "{sent}");
        assert_eq!(frame.get("user_id"), None, "{sent}");
    }
    alice.sends(json!({"event": "client-typing", "channel": ROOM}));
    bob.expects_frame(json!({"event": "client-typing", "channel": ROOM, "data": "null"}));
    alice.expects_nothing();
}

// P-063, P-067
fn on_presence_the_sender_is_named_and_cannot_be_forged(shards: usize) {
    let server = Server::start(&Config::new(), shards);
    let mut alice = server.client("alice");
    let mut tab = server.client("alice's other tab");
    let mut bob = server.client("bob");
    alice.joins("presence-room", "alice");
    tab.joins("presence-room", "alice");
    bob.joins("presence-room", "bob");
    alice.expects_member_added("presence-room", "bob");
    tab.expects_member_added("presence-room", "bob");
    alice.sends(json!({
        "event": "client-typing", "channel": "presence-room", "data": {"on": true},
        "user_id": "mallory",
    }));
    let heard = json!({
        "event": "client-typing", "channel": "presence-room", "data": r#"{"on":true}"#,
        "user_id": "alice",
    });
    bob.expects_frame(heard.clone());
    tab.expects_frame(heard);
    alice.expects_nothing();
    bob.subscribes(ROOM);
    alice.subscribes(ROOM);
    alice.sends(json!({
        "event": "client-x", "channel": ROOM, "data": "1", "user_id": "mallory",
    }));
    bob.expects_frame(json!({"event": "client-x", "channel": ROOM, "data": "1"}));
}

// P-065
fn what_may_not_be_sent_is_an_error_and_is_not_delivered(shards: usize) {
    let config = Config::new()
        .with_app(json!({"max_client_events_per_second": 0, "max_event_payload_in_kb": "1"}))
        .and_app("quiet", json!({"enable_client_messages": false}));
    let server = Server::start(&config, shards);
    let mut alice = server.client("alice");
    let mut bob = server.client("bob");
    for channel in [ROOM, "public", "private-encrypted-x"] {
        alice.subscribes(channel);
        bob.subscribes(channel);
    }
    bob.subscribes("private-not-alices");
    let longest = format!("client-{}", "x".repeat(193));
    let too_long = format!("client-{}", "x".repeat(194));
    let (fits, too_big) = ("x".repeat(1024), "x".repeat(1025));
    for (event, channel, data) in [
        ("client-x", "public", "1"),
        ("client-x", "private-encrypted-x", "1"),
        ("client-x", "private-not-alices", "1"),
        ("client-x", "private-nobodys", "1"),
        ("client-x", "bad name", "1"),
        ("client-x", "#server-to-user-1", "1"),
        ("client-", ROOM, "1"),
        (&too_long, ROOM, "1"),
        ("client-x", ROOM, &too_big),
    ] {
        alice.triggers(event, channel, json!(data));
        let error = alice.expects_error(4301);
        assert_eq!(error["channel"], channel, "{event}: {error}");
    }
    alice.sends(json!({"event": "client-x", "data": 1}));
    alice.expects_error(4301);
    bob.expects_nothing();
    alice.triggers(&longest, ROOM, json!(fits));
    bob.expects(&longest, ROOM);

    let mut muted = server.client_of("quiet", "muted");
    muted.subscribes(ROOM);
    muted.triggers("client-x", ROOM, json!(1));
    assert_eq!(muted.expects_error(4301)["channel"], ROOM);
    // Without the prefix it is no client event: ignored.
    alice.triggers("typing", ROOM, json!(1));
    alice.expects_pong();
    bob.expects_nothing();
    // Gone means gone.
    alice.unsubscribes(ROOM);
    alice.triggers("client-x", ROOM, json!(1));
    alice.expects_error(4301);
}

// P-066
fn the_eleventh_event_of_an_instant_is_refused_and_a_second_later_it_passes(shards: usize) {
    let server = Server::start(&Config::new(), shards);
    let mut alice = server.client("alice");
    let mut bob = server.client("bob");
    alice.subscribes(ROOM);
    bob.subscribes(ROOM);
    for number in 0..12 {
        alice.triggers("client-x", ROOM, json!(number));
    }
    let error = alice.expects_error(4301);
    assert_eq!(
        error["data"]["message"],
        "Client event rejected due to rate limit"
    );
    assert_eq!(error["channel"], ROOM);
    let mut heard = 0;
    while let Some(frame) = bob.next_within(Duration::from_millis(300)) {
        assert_eq!(frame["data"], heard.to_string(), "in order");
        heard += 1;
    }
    assert!(
        (10..=11).contains(&heard),
        "ten tokens, and at most one that came back: {heard}"
    );
    // The bucket is full again after a second.
    while alice.next_within(Duration::from_millis(1_100)).is_some() {}
    for number in 0..10 {
        alice.triggers("client-y", ROOM, json!(number));
    }
    for number in 0..10 {
        assert_eq!(bob.expects("client-y", ROOM)["data"], number.to_string());
    }
    alice.expects_pong();
}

on_one_and_three_shards! {
    the_others_hear_it_as_a_string_and_the_sender_does_not,
    on_presence_the_sender_is_named_and_cannot_be_forged,
    what_may_not_be_sent_is_an_error_and_is_not_delivered,
    the_eleventh_event_of_an_instant_is_refused_and_a_second_later_it_passes,
}
