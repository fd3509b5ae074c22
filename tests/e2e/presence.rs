//! Who is in a presence channel, and who is told.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::on_one_and_three_shards;
use crate::support::client::Client;
use crate::support::config::Config;
use crate::support::eventually;
use crate::support::server::Server;

const ROOM: &str = "presence-room";

// P-043, P-049
fn a_newcomer_gets_the_roster_and_the_others_get_the_newcomer(shards: usize) {
    let server = Server::start(&Config::new(), shards);
    let mut alice = server.client("alice");
    let alone = alice.joins_with(ROOM, "10", json!({"name": "Ann"}));
    assert_eq!(alone.ids, ["10"]);
    assert_eq!(alone.hash, json!({"10": {"name": "Ann"}}));
    let mut bob = server.client("bob");
    let both = bob.joins_with(ROOM, "7", json!({"name": "Bob"}));
    assert_eq!(both.ids, ["10", "7"]);
    assert_eq!(
        both.hash,
        json!({"10": {"name": "Ann"}, "7": {"name": "Bob"}})
    );
    let added = alice.expects_data("pusher_internal:member_added", ROOM);
    assert_eq!(added, json!({"user_id": "7", "user_info": {"name": "Bob"}}));
    bob.expects_nothing();
    alice.unsubscribes(ROOM);
    bob.expects_member_removed(ROOM, "10");
    alice.expects_nothing();
}

// P-044, P-045
fn a_user_id_is_a_short_text_or_an_integer(shards: usize) {
    let server = Server::start(&Config::new(), shards);
    let mut alice = server.client("alice");
    alice.asks_to_join(ROOM, r#"{"user_id":10,"user_info":{"name":"Ann"}}"#);
    let snapshot = alice.expects_snapshot(ROOM);
    assert_eq!(snapshot.ids, ["10"]);
    let mut text = server.client("text");
    assert_eq!(
        text.joins(ROOM, "10").ids,
        ["10"],
        "10 and \"10\" are one user"
    );
    alice.expects_nothing();

    let longest = "é".repeat(128);
    let mut others = Vec::new();
    for (number, id) in [
        json!(longest),
        json!(-5),
        json!(9_007_199_254_740_992u64),
        json!(" "),
    ]
    .into_iter()
    .enumerate()
    {
        let mut other = server.client("other");
        let channel = format!("presence-{number}");
        other.asks_to_join(&channel, &json!({"user_id": id}).to_string());
        let expected = id.as_str().map_or_else(|| id.to_string(), str::to_owned);
        assert_eq!(other.expects_snapshot(&channel).ids, [expected]);
        others.push(other);
    }
    let mut refused = server.client("refused");
    let too_long = json!({"user_id": "é".repeat(129)}).to_string();
    for channel_data in [
        r#"{"user_id":null}"#,
        r#"{"user_id":true}"#,
        r#"{"user_id":1.5}"#,
        r#"{"user_id":1e3}"#,
        r#"{"user_id":9007199254740993}"#,
        r#"{"user_id":[]}"#,
        r#"{"user_id":{}}"#,
        r#"{"user_id":""}"#,
        "{}",
        "[]",
        "5",
        "not json",
        r#"{"user_id":"1""#,
        &too_long,
    ] {
        refused.asks_to_join(ROOM, channel_data);
        refused.expects_refusal(ROOM, "InvalidChannelData", 400);
    }
    alice.expects_nothing();
}

// P-046, P-047
fn the_signature_covers_channel_data_as_it_was_sent(shards: usize) {
    let server = Server::start(&Config::new(), shards);
    let mut alice = server.client("alice");
    alice.asks_to_join(ROOM, r#"{"user_id":"é","user_info":{"n":"日本"}}"#);
    let snapshot = alice.expects_snapshot(ROOM);
    assert_eq!(snapshot.hash, json!({"é": {"n": "日本"}}));
    let odd = "{ \"user_info\" :\t{\"a\" : [1, 2.50, \"\\u00e9\\/\"]}, \"user_id\" :\"x\\u0041\" }";
    let mut bob = server.client("bob");
    bob.asks_to_join(ROOM, odd);
    let snapshot = bob.expects_snapshot(ROOM);
    assert_eq!(snapshot.ids, ["xA", "é"]);
    assert_eq!(snapshot.hash["xA"], json!({"a": [1, 2.5, "é/"]}));
    // One byte other than what was signed.
    let mut eve = server.client("eve");
    let auth = eve.channel_auth(ROOM, Some(r#"{"user_id":"eve"}"#));
    eve.sends(json!({"event": "pusher:subscribe", "data": {
        "auth": auth, "channel_data": r#"{"user_id": "eve"}"#, "channel": ROOM,
    }}));
    eve.expects_refusal(ROOM, "AuthError", 401);
}

// P-048
fn without_channel_data_a_member_must_have_signed_in(shards: usize) {
    let server = Server::start(&Config::new().with_users(), shards);
    let mut alice = server.client("alice");
    let auth = alice.channel_auth(ROOM, None);
    let subscribe = json!({"event": "pusher:subscribe", "data": {"auth": auth, "channel": ROOM}});
    alice.sends(subscribe.clone());
    alice.expects_refusal(ROOM, "AuthError", 401);
    alice.signs_in_with(r#"{"id":"42","user_info":{"name":"Ann"}}"#);
    alice.sends(subscribe);
    let snapshot = alice.expects_snapshot(ROOM);
    assert_eq!(snapshot.hash, json!({"42": {"name": "Ann"}}));
}

// P-050
fn a_second_tab_of_the_same_user_is_not_announced(shards: usize) {
    let server = Server::start(&Config::new(), shards);
    let mut watcher = server.client("watcher");
    watcher.joins(ROOM, "watcher");
    let mut first = server.client("first tab");
    first.joins(ROOM, "alice");
    watcher.expects_member_added(ROOM, "alice");
    let mut second = server.client("second tab");
    let snapshot = second.joins_with(ROOM, "alice", json!({"name": "renamed"}));
    assert_eq!(snapshot.ids, ["alice", "watcher"]);
    watcher.expects_nothing();
    first.expects_nothing();
    // The later info is what newcomers see.
    let mut late = server.client("late");
    assert_eq!(
        late.joins(ROOM, "late").hash["alice"],
        json!({"name": "renamed"})
    );
    for member in [&mut watcher, &mut first, &mut second] {
        member.expects_member_added(ROOM, "late");
    }
    first.leaves();
    watcher.expects_nothing();
    second.unsubscribes(ROOM);
    watcher.expects_member_removed(ROOM, "alice");
    watcher.expects_nothing();
}

/// Members of the room, by the names 0, 1, 2, ...
fn fill_room(server: &Server, count: usize) -> Vec<Client> {
    let joined = |number: usize| {
        let mut member = server.client(&number.to_string());
        member.joins(ROOM, &number.to_string());
        member
    };
    (0..count).map(joined).collect()
}

// P-053
fn a_full_room_takes_no_new_user_but_another_tab_of_a_member(shards: usize) {
    let config = Config::new().with_app(json!({"max_presence_members_per_channel": "5"}));
    let server = Server::start(&config, shards);
    let mut members = fill_room(&server, 5);
    let mut sixth = server.client("sixth");
    sixth.asks_to_join(ROOM, r#"{"user_id":"sixth"}"#);
    sixth.expects_refusal(ROOM, "LimitReached", 4100);
    let mut tab = server.client("tab");
    assert_eq!(tab.joins(ROOM, "3").ids.len(), 5);
    // A place that was given up can be taken.
    members.remove(0).leaves();
    eventually("the free place", || {
        sixth.asks_to_join(ROOM, r#"{"user_id":"sixth"}"#);
        let answer = sixth.next();
        (answer["event"] == "pusher_internal:subscription_succeeded").then_some(())
    });
}

// P-053 with the default of a hundred
fn the_hundred_and_first_member_is_refused(shards: usize) {
    let server = Server::start(&Config::new(), shards);
    let _members = fill_room(&server, 100);
    let mut late = server.client("late");
    late.asks_to_join(ROOM, r#"{"user_id":"late"}"#);
    late.expects_refusal(ROOM, "LimitReached", 4100);
}

// P-054
fn user_info_may_be_a_kilobyte_and_absent_is_null(shards: usize) {
    let server = Server::start(&Config::new(), shards);
    let mut watcher = server.client("watcher");
    watcher.joins(ROOM, "watcher");
    let of_bytes = |bytes: usize| "x".repeat(bytes - 2); // Two quotes belong to the JSON text.
    let mut alice = server.client("alice");
    for bytes in [1023, 1024] {
        alice.joins_with(ROOM, "alice", json!(of_bytes(bytes)));
        watcher.expects_member_added(ROOM, "alice");
        alice.unsubscribes(ROOM);
        watcher.expects_member_removed(ROOM, "alice");
    }
    let channel_data = json!({"user_id": "alice", "user_info": of_bytes(1025)}).to_string();
    alice.asks_to_join(ROOM, &channel_data);
    alice.expects_refusal(ROOM, "LimitReached", 413);
    // Bytes of UTF-8 count, not characters.
    let channel_data = json!({"user_id": "alice", "user_info": "é".repeat(512)}).to_string();
    alice.asks_to_join(ROOM, &channel_data);
    alice.expects_refusal(ROOM, "LimitReached", 413);
    alice.asks_to_join(ROOM, r#"{"user_id":"alice"}"#);
    assert_eq!(alice.expects_snapshot(ROOM).hash["alice"], Value::Null);
    let added = watcher.expects_data("pusher_internal:member_added", ROOM);
    assert_eq!(added, json!({"user_id": "alice", "user_info": null}));
}

// P-055
fn a_snapshot_and_what_follows_it_equal_the_truth_under_churn(shards: usize) {
    let server = Server::start(&Config::new(), shards);
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let server = &server;
            scope.spawn(move || {
                for round in 0..25 {
                    let mut visitor = server.client("visitor");
                    visitor.joins_any(&format!("{worker}-{}", round % 3));
                    drop(visitor);
                }
            });
        }
        let mut stayers = Vec::new();
        for number in 0..8 {
            let mut stayer = server.client(&format!("stayer {number}"));
            let seen = stayer.joins_any(&format!("stayer-{number}"));
            stayers.push((stayer, seen));
        }
        let mut views = Vec::new();
        for (mut stayer, mut seen) in stayers {
            // The visitors end within the deadline; then the eight are alone.
            while seen.iter().any(|id| !id.starts_with("stayer")) || seen.len() < 8 {
                apply(&mut seen, &stayer.next());
            }
            views.push((stayer, seen));
        }
        let truth: BTreeSet<String> = (0..8).map(|number| format!("stayer-{number}")).collect();
        for (stayer, seen) in &mut views {
            // Late visitors may still come and go; whatever comes, each change must fit the view.
            while let Some(frame) = stayer.next_within(std::time::Duration::from_millis(500)) {
                apply(seen, &frame);
            }
            assert_eq!(*seen, truth, "{}", stayer.name);
        }
    });
}

/// A member event changes the view: adding someone who is in or removing someone who is not is a fault.
#[track_caller]
fn apply(seen: &mut BTreeSet<String>, frame: &Value) {
    let data: Value = serde_json::from_str(frame["data"].as_str().expect("text")).expect("JSON");
    let id = data["user_id"].as_str().expect("a user").to_owned();
    let changed = match frame["event"].as_str().expect("a name") {
        "pusher_internal:member_added" => seen.insert(id),
        "pusher_internal:member_removed" => seen.remove(&id),
        other => panic!("{other}"),
    };
    assert!(changed, "{frame} does not fit {seen:?}");
}

impl Client {
    fn joins_any(&mut self, user_id: &str) -> BTreeSet<String> {
        self.joins(ROOM, user_id).ids.into_iter().collect()
    }
}

// P-056, P-057
fn joining_again_gives_a_fresh_roster_and_cannot_change_who_one_is(shards: usize) {
    let server = Server::start(&Config::new(), shards);
    let mut watcher = server.client("watcher");
    watcher.joins(ROOM, "watcher");
    let mut alice = server.client("alice");
    alice.joins(ROOM, "alice");
    watcher.expects_member_added(ROOM, "alice");
    assert_eq!(alice.joins(ROOM, "alice").ids, ["alice", "watcher"]);
    watcher.expects_nothing();
    alice.asks_to_join(ROOM, r#"{"user_id":"mallory"}"#);
    alice.expects_refusal(ROOM, "InvalidChannelData", 400);
    watcher.expects_nothing();
    alice.unsubscribes(ROOM);
    watcher.expects_member_removed(ROOM, "alice");
}

// P-052
fn a_member_who_vanishes_is_removed_once_from_each_room(shards: usize) {
    let server = Server::start(&Config::new(), shards);
    let mut watcher = server.client("watcher");
    let rooms = ["presence-a", "presence-b", "presence-c"];
    let mut alice = server.client("alice");
    for room in rooms {
        watcher.joins(room, "watcher");
        alice.joins(room, "alice");
        watcher.expects_member_added(room, "alice");
    }
    alice.leaves();
    let mut left: Vec<String> = (0..3)
        .map(|_| {
            let frame = watcher.next();
            assert_eq!(frame["event"], "pusher_internal:member_removed");
            frame["channel"].as_str().expect("a name").to_owned()
        })
        .collect();
    left.sort();
    assert_eq!(left, rooms);
    watcher.expects_nothing();
}

on_one_and_three_shards! {
    a_newcomer_gets_the_roster_and_the_others_get_the_newcomer,
    a_user_id_is_a_short_text_or_an_integer,
    the_signature_covers_channel_data_as_it_was_sent,
    without_channel_data_a_member_must_have_signed_in,
    a_second_tab_of_the_same_user_is_not_announced,
    a_full_room_takes_no_new_user_but_another_tab_of_a_member,
    the_hundred_and_first_member_is_refused,
    user_info_may_be_a_kilobyte_and_absent_is_null,
    a_snapshot_and_what_follows_it_equal_the_truth_under_churn,
    joining_again_gives_a_fresh_roster_and_cannot_change_who_one_is,
    a_member_who_vanishes_is_removed_once_from_each_room,
}
