//! Signed-in users: their own channel, their watchers, and being sent away.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::on_one_and_three_shards;
use crate::support::client::Client;
use crate::support::config::Config;
use crate::support::eventually;
use crate::support::server::Server;

impl Client {
    fn asks_for_own_channel(&mut self, id: &str) -> String {
        let channel = format!("#server-to-user-{id}");
        self.sends(json!({"event": "pusher:subscribe", "data": {"auth": "", "channel": channel}}));
        channel
    }

    #[track_caller]
    pub(crate) fn subscribes_to_own_channel(&mut self, id: &str) -> String {
        let channel = self.asks_for_own_channel(id);
        self.expects_frame(json!({
            "event": "pusher_internal:subscription_succeeded", "channel": channel, "data": "{}",
        }));
        channel
    }

    /// The next frame is a watchlist frame; gives id -> name of the event.
    #[track_caller]
    pub(crate) fn expects_watchlist(&mut self) -> BTreeMap<String, String> {
        let frame = self.next();
        assert_eq!(
            frame["event"], "pusher_internal:watchlist_events",
            "{}: {frame}",
            self.name
        );
        assert_eq!(frame.get("channel"), None);
        let data: Value =
            serde_json::from_str(frame["data"].as_str().expect("text")).expect("JSON");
        let mut told = BTreeMap::new();
        for event in data["events"].as_array().expect("a list") {
            let ids = event["user_ids"].as_array().expect("a list");
            assert!(!ids.is_empty(), "empty entries are left out: {data}");
            for id in ids {
                let name = event["name"].as_str().expect("a name").to_owned();
                told.insert(id.as_str().expect("a string").to_owned(), name);
            }
        }
        told
    }
}

pub(crate) fn told(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(id, name)| ((*id).to_owned(), (*name).to_owned()))
        .collect()
}

// P-075, P-076
fn a_sign_in_echoes_its_data_and_a_failure_leaves_the_socket_open(shards: usize) {
    let config = Config::new()
        .with_app(json!({"enable_user_authentication": true}))
        .and_app("plain", json!({"enable_user_authentication": false}));
    let server = Server::start(&config, shards);
    let mut alice = server.client("alice");
    for user_data in [
        r#"{"id":42}"#,
        r#"{"id":""}"#,
        r#"{"id":null}"#,
        "{}",
        "[]",
        "42",
        "not json",
        &json!({"id": "x".repeat(129)}).to_string(),
    ] {
        alice.asks_to_sign_in(user_data);
        alice.expects_error(4009);
    }
    for data in [
        json!({}),
        json!({"auth": "app-key:00", "user_data": r#"{"id":"42"}"#}),
        json!({"user_data": r#"{"id":"42"}"#}),
        json!({"auth": "app-key:00"}),
        json!({"auth": 1, "user_data": r#"{"id":"42"}"#}),
        json!("nonsense"),
    ] {
        alice.sends(json!({"event": "pusher:signin", "data": data}));
        alice.expects_error(4009);
    }
    alice.signs_in_with("{ \"id\" : \"42\", \"watchlist\":[\"7\"], \"x\":\"\\u00e9\" }");
    alice.signs_in_with(r#"{"id":"42","user_info":{"name":"Ann"}}"#);
    alice.asks_to_sign_in(r#"{"id":"43"}"#);
    alice.expects_error(4009);
    alice.subscribes_to_own_channel("42");

    let mut plain = server.client_of("plain", "plain");
    plain.asks_to_sign_in(r#"{"id":"42"}"#);
    plain.expects_error(4009);
    plain.expects_pong();
    // Another socket's signature.
    let mut bob = server.client("bob");
    let auth = crate::support::sign::signin_auth(
        "app-key",
        "app-secret",
        &alice.socket_id,
        r#"{"id":"42"}"#,
    );
    bob.sends(json!({"event": "pusher:signin", "data": {
        "auth": auth, "user_data": r#"{"id":"42"}"#,
    }}));
    bob.expects_error(4009);
}

// P-077, P-078
fn a_user_has_a_channel_of_their_own_on_all_sockets(shards: usize) {
    let server = Server::start(&Config::new().with_users(), shards);
    let mut unsigned = server.client("unsigned");
    let channel = unsigned.asks_for_own_channel("42");
    unsigned.expects_refusal(&channel, "AuthError", 401);
    let mut tabs: Vec<Client> = (0..4).map(|n| server.client(&format!("tab {n}"))).collect();
    for tab in &mut tabs {
        tab.signs_in("42");
        let others = tab.asks_for_own_channel("43");
        tab.expects_refusal(&others, "AuthError", 403);
        tab.subscribes_to_own_channel("42");
    }
    server.api().publishes("greet", &channel, "hi");
    for tab in &mut tabs {
        tab.expects_frame(json!({"event": "greet", "channel": channel, "data": "hi"}));
    }
    assert_eq!(
        server.api().reads("/channels", &[]),
        json!({"channels": {}})
    );
    unsigned.expects_nothing();
    // Ids may hold what channel names may not.
    let mut odd = server.client("odd");
    odd.signs_in("a b/é:#");
    let channel = odd.subscribes_to_own_channel("a b/é:#");
    server.api().publishes("greet", &channel, "hi");
    odd.expects("greet", &channel);
}

// P-079
fn a_watchlist_tells_who_is_there_and_who_comes_and_goes(shards: usize) {
    let server = Server::start(&Config::new().with_users(), shards);
    let mut bob = server.client("bob");
    bob.signs_in("bob");
    let mut alice = server.client("alice");
    alice.signs_in_with(r#"{"id":"alice","watchlist":["bob","carol","bob",7]}"#);
    assert_eq!(
        alice.expects_watchlist(),
        told(&[("bob", "online"), ("carol", "offline")])
    );
    // The watched one needs no watchlist. Only the first socket and the last one count.
    let mut carol = server.client("carol");
    carol.signs_in("carol");
    assert_eq!(alice.expects_watchlist(), told(&[("carol", "online")]));
    let mut tab = server.client("carol's other tab");
    tab.signs_in("carol");
    alice.expects_nothing();
    carol.leaves();
    alice.expects_nothing();
    drop(tab);
    assert_eq!(alice.expects_watchlist(), told(&[("carol", "offline")]));
    bob.expects_nothing();
    // Nothing to say, no frame.
    let mut dave = server.client("dave");
    dave.signs_in_with(r#"{"id":"dave","watchlist":[]}"#);
    dave.expects_nothing();
}

// P-080
fn a_watchlist_of_more_than_a_hundred_is_cut_and_said_so(shards: usize) {
    let server = Server::start(&Config::new().with_users(), shards);
    let mut alice = server.client("alice");
    let ids: Vec<String> = (1..=101).map(|number| format!("user-{number}")).collect();
    alice.signs_in_with(&json!({"id": "alice", "watchlist": ids}).to_string());
    let error = alice.expects_error(4302);
    assert_eq!(
        error["data"]["message"],
        "Watchlist limit exceeded. Only the first 100 user IDs are accepted."
    );
    assert_eq!(alice.expects_watchlist().len(), 100);
    let mut last = server.client("user-101");
    last.signs_in("user-101");
    alice.expects_nothing();
    let mut hundredth = server.client("user-100");
    hundredth.signs_in("user-100");
    assert_eq!(alice.expects_watchlist(), told(&[("user-100", "online")]));
}

// P-081
fn terminating_a_user_closes_what_signed_in_and_nothing_else(shards: usize) {
    let server = Server::start(&Config::new().with_users(), shards);
    let mut tabs: Vec<Client> = (0..4).map(|n| server.client(&format!("tab {n}"))).collect();
    for tab in &mut tabs {
        tab.signs_in("42");
    }
    let mut present = server.client("present");
    present.joins("presence-room", "42");
    let mut other = server.client("other");
    other.signs_in("43");
    let mut api = server.api();
    api.terminates("42");
    for tab in &mut tabs {
        tab.is_closed_with(4009);
    }
    api.terminates("42");
    api.terminates("nobody");
    present.expects_pong();
    other.expects_pong();
    // Percent-decoded once.
    let mut odd = server.client("odd");
    odd.signs_in("a b");
    api.terminates("a%20b");
    odd.is_closed_with(4009);
    let too_long = format!("/users/{}/terminate_connections", "x".repeat(129));
    assert_eq!(api.post(&too_long, b"{}").status, 400);
}

// P-082
fn a_socket_that_never_proves_itself_is_closed(shards: usize) {
    let config = Config::new()
        .with_users()
        .with(json!({"user_authentication_timeout": 1}));
    let server = Server::start(&config, shards);
    let connected = Instant::now();
    let mut idle = server.client("idle");
    let mut public = server.client("public");
    public.subscribes("news");
    let mut signed = server.client("signed");
    signed.signs_in("42");
    let mut private = server.client("private");
    private.subscribes("private-x");
    let mut present = server.client("present");
    present.joins("presence-x", "1");
    let mut cached = server.client("cached");
    cached.subscribes_to_empty_cache("private-cache-x");
    cached.unsubscribes("private-cache-x");
    idle.is_closed_with(4009);
    let waited = connected.elapsed();
    assert!(
        waited >= Duration::from_millis(950),
        "closed after {waited:?}"
    );
    assert!(waited < Duration::from_secs(3), "closed after {waited:?}");
    public.is_closed_with(4009);
    for survivor in [&mut signed, &mut private, &mut present, &mut cached] {
        survivor.expects_nothing_for(Duration::from_millis(700));
    }
}

// P-082: without user authentication nobody has to prove anything.
fn an_app_without_users_closes_no_one(shards: usize) {
    let config = Config::new().with(json!({"user_authentication_timeout": 1}));
    let server = Server::start(&config, shards);
    let mut idle = server.client("idle");
    idle.expects_nothing_for(Duration::from_millis(2_200));
}

// P-078: a signed-in user's channel goes with the socket.
fn an_event_for_a_user_who_left_reaches_no_one_and_is_no_error(shards: usize) {
    let server = Server::start(&Config::new().with_users(), shards);
    let mut alice = server.client("alice");
    alice.signs_in("42");
    alice.subscribes_to_own_channel("42");
    alice.leaves();
    let mut api = server.api();
    api.publishes("greet", "#server-to-user-42", "hi");
    let mut bob = server.client("bob");
    bob.signs_in("42");
    bob.subscribes_to_own_channel("42");
    bob.expects_nothing();
    eventually("the second greeting", || {
        api.publishes("greet", "#server-to-user-42", "again");
        bob.next_within(Duration::from_millis(200))
    });
}

// Section 7.2: never listed, never in counts.
fn the_channel_of_a_user_is_neither_listed_nor_counted(shards: usize) {
    let config = Config::new()
        .with_users()
        .with_app(json!({"enable_subscription_count": true}));
    let server = Server::start(&config, shards);
    let mut alice = server.client("alice");
    alice.signs_in("42");
    alice.subscribes_to_own_channel("42");
    alice.expects_nothing();
    let mut api = server.api();
    let event = |info: &str| {
        json!({
            "name": "e", "channels": ["news", "#server-to-user-42"], "data": "x", "info": info,
        })
    };
    for info in ["subscription_count", "user_count,subscription_count"] {
        assert_eq!(
            api.posts_event(&event(info)),
            json!({"channels": {"news": {"subscription_count": 0}, "#server-to-user-42": {}}}),
            "{info}"
        );
        alice.expects("e", "#server-to-user-42");
    }
    let name = "/channels/%23server-to-user-42";
    assert_eq!(api.reads(name, &[]), json!({"occupied": true}));
    for info in ["subscription_count", "user_count", "cache"] {
        assert_eq!(api.get(name, &[("info", info)]).status, 400, "{info}");
    }
    for prefix in ["", "#", "#server-to-user-42"] {
        let listed = api.reads("/channels", &[("filter_by_prefix", prefix)]);
        assert_eq!(listed, json!({"channels": {}}), "{prefix:?}");
    }
    // In metrics it is a public channel, as in Sockudo 2.9.
    eventually("its channel", || {
        let public = "channel_type=\"public\"";
        let channels = server.metric_with("sockudo_active_channels", public)?;
        (channels == 1.0).then_some(())
    });
}

on_one_and_three_shards! {
    the_channel_of_a_user_is_neither_listed_nor_counted,
    a_sign_in_echoes_its_data_and_a_failure_leaves_the_socket_open,
    a_user_has_a_channel_of_their_own_on_all_sockets,
    a_watchlist_tells_who_is_there_and_who_comes_and_goes,
    a_watchlist_of_more_than_a_hundred_is_cut_and_said_so,
    terminating_a_user_closes_what_signed_in_and_nothing_else,
    a_socket_that_never_proves_itself_is_closed,
    an_app_without_users_closes_no_one,
    an_event_for_a_user_who_left_reaches_no_one_and_is_no_error,
}
