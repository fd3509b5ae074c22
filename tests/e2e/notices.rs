//! What the log says of single connections: at debug alone.

use serde_json::{Value, json};

use crate::support::{
    config::{APP_ID, Config},
    eventually,
    server::Server,
};

// Section 7: at debug there is one line for each connection that comes and goes, and for each refusal.
#[test]
fn at_debug_the_log_tells_of_connections_and_refusals_and_of_nothing_that_is_sent() {
    let logging = json!({"debug": true, "logging": {"format": "json"}});
    let server = Server::start(&Config::new().with(logging), 1);
    let (mut alice, bob) = (server.client("alice"), server.client("bob"));
    let names = [alice.socket_id.clone(), bob.socket_id.clone()];
    alice.subscribes("news");
    let mut api = server.api();
    api.publishes("published-event", "news", "published-payload");
    alice.expects("published-event", "news");
    alice.sends(json!({"event": "pusher:subscribe",
        "data": {"channel": "private-room", "auth": "app-key:wrong-auth"}}));
    alice.expects_refusal("private-room", "AuthError", 401);
    alice.sends(json!({"event": "pusher:signin",
        "data": {"auth": "app-key:wrong-auth", "user_data": "{\"id\":\"wrong-user\"}"}}));
    alice.expects_error(4009);
    alice.triggers("client-event", "private-room", json!("sent-payload"));
    alice.expects_error(4301);
    let path = format!("/apps/{APP_ID}/channels");
    assert_eq!(server.gets(&path).status, 401);
    let mut stranger = server.wire();
    stranger.upgrades("/app/unknown-key?protocol=7", "");
    stranger.is_closed_with(4001);
    bob.leaves();
    alice.wire.resets_on_drop();
    drop(alice);
    let lines = eventually("both connections are told to have closed", || {
        let lines = debug_lines(&server);
        let closed = lines
            .iter()
            .filter(|it| it["message"] == "connection closed");
        (closed.count() == 2).then_some(lines)
    });
    let [alice, bob] = names;
    let of = |name: &str| json!({"shard": 0, "app_id": APP_ID, "socket_id": name});
    let room = json!({"socket_id": alice, "app_id": APP_ID, "channel": "private-room"});
    for (message, fields) in [
        ("connection opened", of(&alice)),
        ("connection opened", of(&bob)),
        ("subscription refused", room.clone()),
        ("sign-in refused", of(&alice)),
        ("client event refused", room),
        (
            "API request refused",
            json!({"app_id": APP_ID, "status": 401}),
        ),
        ("connection refused", json!({"close_code": 4001})),
        (
            "connection closed",
            json!({"socket_id": bob, "close_code": 1000}),
        ),
        (
            "connection closed",
            json!({"socket_id": alice, "reason": "the socket failed"}),
        ),
    ] {
        let is_it = |line: &&Value| {
            let mut fields = fields.as_object().expect("fields").iter();
            line["message"] == message && fields.all(|(key, value)| line[key] == *value)
        };
        let count = lines.iter().filter(is_it).count();
        assert_eq!(count, 1, "{message} {fields}: {lines:#?}");
    }
    assert_eq!(lines.len(), 9, "{lines:#?}");
    let opened = lines
        .iter()
        .filter(|it| it["message"] == "connection opened");
    for peer in opened.map(|it| it["peer"].as_str().expect("an address")) {
        assert!(peer.starts_with("127."), "{peer}");
    }
    let log = server.log();
    for sent in [
        "app-secret",
        "app-key",
        "wrong-auth",
        "wrong-user",
        "unknown-key",
        "-payload",
        "published-event",
    ] {
        assert!(!log.contains(sent), "{sent}: {log}");
    }
}

#[test]
fn without_debug_the_log_says_nothing_of_single_connections() {
    let json = json!({"logging": {"format": "json"}});
    let server = Server::start(&Config::new().with(json), 1);
    let mut alice = server.client("alice");
    alice.triggers("client-event", "private-room", json!("x"));
    alice.expects_error(4301);
    alice.leaves();
    assert!(server.log().contains("\"ready\""), "{}", server.log());
    assert!(!server.log().contains("::notices"), "{}", server.log());
}

/// The fields of the lines that are about single connections and requests.
fn debug_lines(server: &Server) -> Vec<Value> {
    let log = server.log();
    let lines = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let told = lines.filter(|line| line["target"] == "sockudo::server::notices");
    told.map(|line| {
        assert_eq!(line["level"], "DEBUG", "{line}");
        line["fields"].clone()
    })
    .collect()
}
