//! The signed HTTP API, for those who may call it.

use std::time::Duration;

use serde_json::{Value, json};

use crate::on_one_and_three_shards;
use crate::support::config::Config;
use crate::support::eventually;
use crate::support::server::Server;

// P-089, P-090
fn data_reaches_subscribers_as_the_text_that_was_posted(shards: usize) {
    let server = Server::start(&Config::new(), shards);
    let mut alice = server.client("alice");
    alice.subscribes("news");
    let mut api = server.api();
    for (data, heard) in [
        (r#""{\"hello\":\"world\"}""#, r#"{"hello":"world"}"#),
        (r#""plain""#, "plain"),
        (r#""12.50""#, "12.50"),
        (r#""{ odd : json""#, "{ odd : json"),
        (r#""\u00e9\u65e5\ud83d\ude00\n\t\"\\""#, "é日😀\n\t\"\\"),
        (r#""{\"a\":\"\\u00e9\"}""#, r#"{"a":"\u00e9"}"#),
        (r#""""#, ""),
        (r#"{ "b" : 1.50 , "a" : [ ] }"#, r#"{"b":1.50,"a":[]}"#),
        ("5", "5"),
        ("true", "true"),
        ("[1, 2]", "[1,2]"),
    ] {
        let body = format!(r#"{{"name":"e","channels":["news"],"data":{data}}}"#);
        let reply = api.post("/events", body.as_bytes());
        assert_eq!(
            (reply.status, reply.text()),
            (200, "{}".to_owned()),
            "{data}"
        );
        let frame = alice.expects("e", "news");
        assert_eq!(frame["data"], heard, "{data}");
        assert_eq!(frame.get("user_id"), None);
    }
    alice.expects_pong();
    // Exact bytes, in the order that older clients expect.
    api.publishes("my-event", "news", "x");
    assert_eq!(
        alice.wire.frame().payload,
        br#"{"event":"my-event","channel":"news","data":"x"}"#
    );
}

// P-090, P-091, P-093, P-094, P-100, P-102
fn a_bad_event_is_refused_and_nothing_of_it_is_published(shards: usize) {
    let config = Config::new().with_app(json!({"max_event_payload_in_kb": "1"}));
    let server = Server::start(&config, shards);
    let mut alice = server.client("alice");
    alice.subscribes("news");
    let mut api = server.api();
    let channels = |count: usize| (0..count).map(|n| format!("c{n}")).collect::<Vec<_>>();
    let text = |bytes: usize| "x".repeat(bytes);
    let with = |change: Value| {
        let mut event = json!({"name": "e", "channels": ["news"], "data": "x"});
        crate::support::config::merge(&mut event, change);
        event.to_string()
    };
    let cases = [
        ("no JSON", "{".to_owned(), 400),
        ("an array", "[]".to_owned(), 400),
        ("a null", "null".to_owned(), 400),
        (
            "no name",
            json!({"channels": ["news"], "data": "x"}).to_string(),
            400,
        ),
        ("an empty name", with(json!({"name": ""})), 400),
        ("a numeric name", with(json!({"name": 5})), 400),
        ("a long name", with(json!({"name": text(201)})), 400),
        ("a reserved name", with(json!({"name": "pusher:foo"})), 400),
        (
            "an internal name",
            with(json!({"name": "pusher_internal:foo"})),
            400,
        ),
        (
            "no data",
            json!({"name": "e", "channels": ["news"]}).to_string(),
            400,
        ),
        (
            "no channel",
            json!({"name": "e", "data": "x"}).to_string(),
            400,
        ),
        ("no channels", with(json!({"channels": []})), 400),
        (
            "101 channels",
            with(json!({"channels": channels(101)})),
            400,
        ),
        (
            "a numeric channel",
            with(json!({"channels": ["news", 5]})),
            400,
        ),
        ("channels as text", with(json!({"channels": "news"})), 400),
        (
            "one bad channel",
            with(json!({"channels": ["news", "a:b"]})),
            400,
        ),
        (
            "a long channel",
            with(json!({"channels": ["news", text(201)]})),
            400,
        ),
        ("a bad socket id", with(json!({"socket_id": "1.2.3"})), 400),
        ("a numeric socket id", with(json!({"socket_id": 5})), 400),
        (
            "an unknown attribute",
            with(json!({"info": "user_count,nonsense"})),
            400,
        ),
        ("the cache attribute", with(json!({"info": "cache"})), 400),
        ("too much data", with(json!({"data": text(1025)})), 413),
        (
            "too much data in characters of two bytes",
            with(json!({"data": "é".repeat(513)})),
            413,
        ),
    ];
    for (name, body, status) in cases {
        let reply = api.post("/events", body.as_bytes());
        assert_eq!(reply.status, status, "{name}: {}", reply.text());
        assert!(
            reply.json()["error"].is_string(),
            "{name}: {}",
            reply.text()
        );
        assert_eq!(
            reply.header("content-type"),
            Some("application/json"),
            "{name}"
        );
    }
    let invalid = b"{\"name\":\"e\",\"channels\":[\"news\"],\"data\":\"\xFF\"}";
    assert_eq!(api.post("/events", invalid).status, 400);
    alice.expects_nothing();
    for (name, body) in [
        ("the longest name", with(json!({"name": text(200)}))),
        ("a client event", with(json!({"name": "client-x"}))),
        ("as much data as fits", with(json!({"data": text(1024)}))),
        (
            "one channel twice",
            with(json!({"channels": ["news", "news"]})),
        ),
        ("a socket id of no one", with(json!({"socket_id": "1.1"}))),
        (
            "channel alone",
            json!({"name": "e", "channel": "news", "data": "x"}).to_string(),
        ),
        ("channels before channel", with(json!({"channel": "other"}))),
        ("unknown keys", with(json!({"more": {"a": 1}}))),
    ] {
        let reply = api.post("/events", body.as_bytes());
        assert_eq!(reply.status, 200, "{name}: {}", reply.text());
        assert_eq!(alice.next()["channel"], "news", "{name}");
    }
    alice.expects_nothing();
    assert_eq!(
        api.post(
            "/events",
            with(json!({"channels": channels(100)})).as_bytes()
        )
        .status,
        200
    );
}

// P-093
fn a_body_over_the_limit_is_refused(shards: usize) {
    let config = Config::new().with(json!({"http_api": {"request_limit_in_mb": 1}}));
    let server = Server::start(&config, shards);
    let mut api = server.api();
    let event = |bytes: usize| {
        let body = json!({"name": "e", "channels": ["c"], "data": "x", "pad": ""}).to_string();
        let pad = "p".repeat(bytes - body.len());
        body.replace(r#""pad":"""#, &format!(r#""pad":"{pad}""#))
    };
    assert_eq!(
        api.post("/events", event(1024 * 1024).as_bytes()).status,
        200
    );
    assert_eq!(
        api.post("/events", event(1024 * 1024 + 1).as_bytes())
            .status,
        413
    );
    // Said from the header, before a byte of the body.
    let mut wire = server.wire();
    wire.sends(
        "POST /apps/app-id/events HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n",
    );
    assert_eq!(wire.reply().status, 413);
}

// P-094
fn the_excluded_socket_alone_does_not_hear(shards: usize) {
    let server = Server::start(&Config::new(), shards);
    let mut clients: Vec<_> = (0..6)
        .map(|n| server.client(&format!("client {n}")))
        .collect();
    for client in &mut clients {
        client.subscribes("news");
    }
    for excluded in 0..6 {
        let socket_id = clients[excluded].socket_id.clone();
        server.api().posts_event(
            &json!({"name": "e", "channels": ["news"], "data": "x", "socket_id": socket_id}),
        );
        for (number, client) in clients.iter_mut().enumerate() {
            if number != excluded {
                client.expects("e", "news");
            }
        }
        clients[excluded].expects_pong();
    }
    clients[0].expects_nothing();
}

// P-095
fn counts_come_with_the_answer_when_asked_for(shards: usize) {
    let server = Server::start(&Config::new(), shards);
    let mut clients: Vec<_> = (0..3)
        .map(|n| server.client(&format!("client {n}")))
        .collect();
    for client in &mut clients {
        client.subscribes("news");
    }
    clients[0].joins("presence-room", "alice");
    clients[1].joins("presence-room", "alice");
    let mut api = server.api();
    let answer = api.posts_event(&json!({
        "name": "e", "channels": ["news", "presence-room", "empty", "news"], "data": "x",
        "info": " user_count , subscription_count",
    }));
    assert_eq!(
        answer,
        json!({"channels": {
            "news": {"subscription_count": 3},
            "presence-room": {"user_count": 1, "subscription_count": 2},
            "empty": {"subscription_count": 0},
        }})
    );
    let answer = api.posts_event(&json!({
        "name": "e", "channels": ["news", "presence-room"], "data": "x", "info": "user_count",
    }));
    assert_eq!(
        answer,
        json!({"channels": {"news": {}, "presence-room": {"user_count": 1}}})
    );
}

// P-096
fn a_batch_is_published_in_order_or_not_at_all(shards: usize) {
    let server = Server::start(&Config::new(), shards);
    let mut alice = server.client("alice");
    alice.subscribes("a");
    alice.subscribes("b");
    let mut api = server.api();
    let mut post = |batch: Value| {
        api.post(
            "/batch_events",
            json!({"batch": batch}).to_string().as_bytes(),
        )
    };
    let item = |data: &str| json!({"name": "e", "channel": "a", "data": data});
    let ten: Vec<Value> = (0..10).map(|number| item(&number.to_string())).collect();
    let reply = post(json!(ten));
    assert_eq!((reply.status, reply.text()), (200, "{}".to_owned()));
    for number in 0..10 {
        assert_eq!(alice.expects("e", "a")["data"], number.to_string());
    }
    let eleven: Vec<Value> = (0..11).map(|number| item(&number.to_string())).collect();
    for (name, batch) in [
        ("eleven", json!(eleven)),
        ("none", json!([])),
        ("no list", json!({})),
        (
            "a bad channel",
            json!([item("1"), {"name": "e", "channel": "a:b", "data": "2"}]),
        ),
        ("no data", json!([item("1"), {"name": "e", "channel": "a"}])),
        ("no object", json!([item("1"), 5])),
        (
            "a reserved name",
            json!([item("1"), {"name": "pusher:x", "channel": "a", "data": "2"}]),
        ),
        (
            "a bad socket id",
            json!([item("1"), {"name": "x", "channel": "a", "data": "2", "socket_id": "x"}]),
        ),
    ] {
        assert_eq!(post(batch).status, 400, "{name}");
    }
    let too_big = "x".repeat(100 * 1024 + 1);
    assert_eq!(post(json!([item("1"), item(&too_big)])).status, 413);
    alice.expects_nothing();
    let reply = post(json!([
        {"name": "e1", "channel": "a", "data": "1", "info": "subscription_count"},
        {"name": "e2", "channel": "b", "data": "2", "socket_id": alice.socket_id},
        {"name": "e3", "channel": "a", "data": "3", "info": "user_count"},
        {"name": "e4", "channels": ["b"], "data": "4"},
    ]));
    assert_eq!(
        reply.json(),
        json!({"batch": [{"subscription_count": 1}, {}, {}, {}]})
    );
    let mut heard: Vec<String> = (0..3)
        .map(|_| alice.next()["event"].as_str().expect("a name").to_owned())
        .collect();
    heard.sort(); // Two channels have no order between them.
    assert_eq!(heard, ["e1", "e3", "e4"]);
    assert_eq!(api.post("/batch_events", b"{}").status, 400);
}

// P-103
fn health_usage_and_metrics_answer_where_they_belong(shards: usize) {
    let config = Config::new().and_app("off", json!({"enabled": false}));
    let server = Server::start(&config, shards);
    for (path, status, body) in [
        ("/up", 200, "OK"),
        ("/up/app-id", 200, "OK"),
        ("/up/no-such-app", 404, "NOT_FOUND"),
        ("/up/off-id", 503, "ERROR"),
    ] {
        let reply = server.gets(path);
        assert_eq!((reply.status, &*reply.text()), (status, body), "{path}");
        assert_eq!(reply.header("x-health-check"), Some(body), "{path}");
        let content_type = reply.header("content-type").unwrap_or_default();
        assert!(
            content_type.starts_with("text/plain"),
            "{path}: {content_type}"
        );
    }
    let memory = server.gets("/usage").json()["memory"].clone();
    let number = |key: &str| {
        memory[key]
            .as_f64()
            .unwrap_or_else(|| panic!("{key} in {memory}"))
    };
    assert!(number("total") > number("used"), "{memory}");
    assert!(
        number("total") < 64e12,
        "bytes, not kibibytes of bytes: {memory}"
    );
    assert!((0.0..=100.0).contains(&number("percent")), "{memory}");
    assert!(number("free") <= number("total"), "{memory}");
    assert_eq!(server.gets("/metrics").status, 404);
    let mut wire = crate::support::wire::Wire::connect(server.metrics);
    wire.sends("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    let reply = wire.reply();
    assert_eq!(reply.status, 200);
    assert_eq!(
        reply.header("content-type"),
        Some("text/plain; version=0.0.4; charset=utf-8")
    );
    assert!(reply.text().contains("sockudo_"), "{}", reply.text());
}

// P-103
fn a_server_without_any_app_is_not_ready(shards: usize) {
    let config = Config::new().with(json!({"app_manager": {"array": {"apps": []}}}));
    let server = Server::spawn(&config, shards);
    eventually("an answer on /up", || {
        let stream = std::net::TcpStream::connect(server.address).ok()?;
        let mut wire = crate::support::wire::Wire::over(stream);
        wire.sends("GET /up HTTP/1.1\r\nHost: x\r\n\r\n");
        let reply = wire.try_reply()?;
        assert_eq!((reply.status, &*reply.text()), (503, "ERROR"));
        Some(())
    });
}

// Pusher's documentation: POST parameters may stand in the query string.
fn an_event_may_stand_in_the_query_where_there_is_no_body(shards: usize) {
    let server = Server::start(&Config::new(), shards);
    let mut api = server.api();
    let mut alice = server.client("alice");
    alice.subscribes("news");
    alice.subscribes("more");
    let path = api.path("/events");
    let base = [("name", "e"), ("data", "a b+c=d")];
    let mut post = |wire_form: &str, parameters: &[(&str, &str)]| {
        let query = api.query("POST", &path, &[&base, parameters].concat(), b"");
        let query = query.replace("a b+c=d", wire_form);
        api.sends("POST", &format!("{path}?{query}"), b"")
    };
    for wire_form in ["a%20b%2Bc%3Dd", "a+b%2Bc=d", "a%20b+c=d"] {
        let reply = post(wire_form, &[("channels[]", "news"), ("channels[]", "more")]);
        assert_eq!((reply.status, &*reply.text()), (200, "{}"), "{wire_form}");
        // Channels with different homes have no order between them.
        let mut heard = [alice.next(), alice.next()];
        heard.sort_by_key(|frame| frame["channel"] == "more");
        for (frame, channel) in heard.iter().zip(["news", "more"]) {
            let expected = json!({"event": "e", "channel": channel, "data": "a b+c=d"});
            assert_eq!(*frame, expected);
        }
    }
    let plain = "a%20b%2Bc%3Dd";
    let reply = post(
        plain,
        &[("channel", "news"), ("info", "subscription_count")],
    );
    assert_eq!(
        reply.json(),
        json!({"channels": {"news": {"subscription_count": 1}}})
    );
    alice.expects("e", "news");
    let own_id = alice.socket_id.clone();
    assert_eq!(
        post(plain, &[("channel", "news"), ("socket_id", &own_id)]).status,
        200
    );
    for refused in [
        &[][..],
        &[("channel", "a:b")],
        &[("channel", "news"), ("info", "nonsense")],
        &[("channel", "news"), ("socket_id", "x")],
    ] {
        assert_eq!(post(plain, refused).status, 400, "{refused:?}");
    }
    alice.expects_nothing();
    let parameters = [("name", "e"), ("channel", "news"), ("data", "x")];
    let batch = api.signed("POST", "/batch_events", &parameters, b"");
    assert_eq!(api.sends("POST", &batch, b"").status, 400);
}

// Section 9.1: keep-alive holds over many requests, and idle ones do not block others.
fn a_connection_is_kept_over_many_requests(shards: usize) {
    let server = Server::start(&Config::new(), shards);
    let mut idle: Vec<_> = (0..50).map(|_| server.wire()).collect();
    let mut wire = server.wire();
    for _ in 0..200 {
        wire.sends("GET /up HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(wire.reply().status, 200);
    }
    for wire in &mut idle {
        wire.sends("GET /up HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(wire.reply().status, 200);
    }
    let mut alice = server.client("alice");
    alice.expects_nothing_for(Duration::from_millis(50));
}

on_one_and_three_shards! {
    data_reaches_subscribers_as_the_text_that_was_posted,
    a_bad_event_is_refused_and_nothing_of_it_is_published,
    a_body_over_the_limit_is_refused,
    the_excluded_socket_alone_does_not_hear,
    counts_come_with_the_answer_when_asked_for,
    a_batch_is_published_in_order_or_not_at_all,
    health_usage_and_metrics_answer_where_they_belong,
    a_server_without_any_app_is_not_ready,
    an_event_may_stand_in_the_query_where_there_is_no_body,
    a_connection_is_kept_over_many_requests,
}
