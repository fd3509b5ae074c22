//! The signed HTTP API, for those who may call it.

use std::time::Duration;

use serde_json::{Value, json};

use crate::on_one_and_three_shards;
use crate::support::api::Api;
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

// P-097
fn occupied_channels_are_listed_by_prefix(shards: usize) {
    let server = Server::start(&Config::new().with_users(), shards);
    let mut api = server.api();
    assert_eq!(api.reads("/channels", &[]), json!({"channels": {}}));
    let mut alice = server.client("alice");
    let mut bob = server.client("bob");
    alice.subscribes("news");
    bob.subscribes("news");
    alice.joins("presence-a", "1");
    bob.joins("presence-a", "1");
    bob.joins("presence-b", "2");
    alice.signs_in("42");
    assert_eq!(
        api.reads("/channels", &[]),
        json!({"channels": {"news": {}, "presence-a": {}, "presence-b": {}}})
    );
    assert_eq!(
        api.reads(
            "/channels",
            &[("filter_by_prefix", "presence-"), ("info", "user_count")]
        ),
        json!({"channels": {"presence-a": {"user_count": 1}, "presence-b": {"user_count": 1}}})
    );
    assert_eq!(
        api.reads("/channels", &[("info", "subscription_count")]),
        json!({"channels": {
            "news": {"subscription_count": 2},
            "presence-a": {"subscription_count": 2},
            "presence-b": {"subscription_count": 1},
        }})
    );
    assert_eq!(
        api.reads("/channels", &[("filter_by_prefix", "nothing")]),
        json!({"channels": {}})
    );
    for parameters in [
        &[("info", "user_count")][..],
        &[("filter_by_prefix", "presence"), ("info", "user_count")],
        &[("info", "nonsense")],
        &[("info", "cache")],
    ] {
        assert_eq!(
            api.get("/channels", parameters).status,
            400,
            "{parameters:?}"
        );
    }
}

// P-098
fn one_channel_tells_its_state(shards: usize) {
    let server = Server::start(&Config::new(), shards);
    let mut api = server.api();
    let mut alice = server.client("alice");
    let mut bob = server.client("bob");
    alice.joins("presence-a", "1");
    bob.joins("presence-a", "1");
    alice.subscribes_to_empty_cache("cache-x");
    assert_eq!(
        api.reads(
            "/channels/presence-a",
            &[("info", "user_count,subscription_count")]
        ),
        json!({"occupied": true, "user_count": 1, "subscription_count": 2})
    );
    assert_eq!(
        api.reads("/channels/presence-a", &[]),
        json!({"occupied": true})
    );
    assert_eq!(
        api.reads(
            "/channels/presence-z",
            &[("info", "user_count,subscription_count")]
        ),
        json!({"occupied": false, "user_count": 0, "subscription_count": 0})
    );
    assert_eq!(
        api.reads("/channels/unknown", &[]),
        json!({"occupied": false})
    );
    assert_eq!(
        api.reads("/channels/cache-x", &[("info", "cache")]),
        json!({"occupied": true, "cache": null})
    );
    api.publishes("e", "cache-x", r#"{"hello":"world"}"#);
    let answer = api.reads("/channels/cache-x", &[("info", "cache")]);
    assert_eq!(answer["cache"]["data"], r#"{"hello":"world"}"#);
    let ttl = answer["cache"]["ttl"].as_u64().expect("whole seconds");
    assert!((1_790..=1_800).contains(&ttl), "{ttl}");
    eventually("the ttl to decrease", || {
        let answer = api.reads("/channels/cache-x", &[("info", "cache")]);
        (answer["cache"]["ttl"].as_u64()? < ttl).then_some(())
    });
    for (resource, info) in [
        ("/channels/news", "user_count"),
        ("/channels/news", "cache"),
        ("/channels/presence-a", "cache"),
        ("/channels/presence-a", "nonsense"),
        ("/channels/a:b", ""),
        ("/channels/a%3Ab", ""),
        ("/channels/%FF", ""),
        ("/channels/a%FF/users", ""),
    ] {
        let parameters = [("info", info)];
        let parameters = if info.is_empty() {
            &[][..]
        } else {
            &parameters
        };
        assert_eq!(
            api.get(resource, parameters).status,
            400,
            "{resource} {info}"
        );
    }
}

// P-099
fn the_users_of_a_presence_channel_are_listed_once_each(shards: usize) {
    let server = Server::start(&Config::new(), shards);
    let mut api = server.api();
    assert_eq!(
        api.reads("/channels/presence-a/users", &[]),
        json!({"users": []})
    );
    let mut clients: Vec<_> = (0..3)
        .map(|n| server.client(&format!("client {n}")))
        .collect();
    clients[0].asks_to_join("presence-a", r#"{"user_id":10}"#);
    clients[0].expects_snapshot("presence-a");
    clients[1].joins("presence-a", "10");
    clients[2].joins("presence-a", "7");
    let mut users = api.reads("/channels/presence-a/users", &[])["users"].clone();
    users
        .as_array_mut()
        .expect("a list")
        .sort_by_key(|user| user["id"].to_string());
    assert_eq!(users, json!([{"id": "10"}, {"id": "7"}]));
    assert_eq!(api.get("/channels/news/users", &[]).status, 400);
}

// P-100
fn wrong_methods_and_unknown_routes_are_told_apart(shards: usize) {
    let server = Server::start(&Config::new(), shards);
    let mut api = server.api();
    for (method, resource, status) in [
        ("GET", "/events", 405),
        ("PUT", "/events", 405),
        ("DELETE", "/channels", 405),
        ("POST", "/channels", 405),
        ("POST", "/channels/x/users", 405),
        ("GET", "/users/42/terminate_connections", 405),
        ("POST", "/events/", 404),
        ("GET", "/channels/", 404),
        ("GET", "/nothing", 404),
        ("POST", "/channels/x/events", 404),
        ("GET", "/stats", 404),
        // No user has such an id (P-101).
        ("POST", "/users/%FF/terminate_connections", 400),
        ("POST", "/users//terminate_connections", 400),
    ] {
        let path = api.path(resource);
        let query = api.query(method, &path, &[], b"");
        let reply = api.sends(method, &format!("{path}?{query}"), b"");
        // 400: `/channels/` could be read as a channel with an empty name.
        let empty_name = resource == "/channels/" && reply.status == 400;
        assert!(
            reply.status == status || empty_name,
            "{method} {resource}: {}",
            reply.status
        );
    }
    for path in ["/nowhere", "/apps", "/apps/", "/up/", "/usage/"] {
        assert_eq!(server.gets(path).status, 404, "{path}");
    }
    let mut wire = server.wire();
    wire.sends("POST /up HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(wire.reply().status, 405);
    // The content type is not looked at.
    let path = api.path("/events");
    let body = br#"{"name":"e","channels":["c"],"data":"x"}"#;
    let query = api.query("POST", &path, &[], body);
    for content_type in [
        "",
        "Content-Type: text/plain\r\n",
        "Content-Type: nonsense\r\n",
    ] {
        let mut wire = server.wire();
        wire.sends(format!(
            "POST {path}?{query} HTTP/1.1\r\nHost: x\r\n{content_type}Content-Length: {}\r\n\r\n{}",
            body.len(),
            String::from_utf8_lossy(body)
        ));
        assert_eq!(wire.reply().status, 200, "{content_type:?}");
    }
}

// P-101
fn the_limit_per_address_refuses_with_headers_and_spares_health(shards: usize) {
    let config = Config::new().with(json!({"rate_limiter": {
        "enabled": true, "driver": "memory",
        "api_rate_limit": {"max_requests": 3, "window_seconds": 2, "trust_hops": 0},
    }}));
    let server = Server::start(&config, shards);
    let mut api = server.api();
    for left in [2, 1, 0] {
        let reply = api.get("/channels", &[]);
        assert_eq!(reply.status, 200);
        assert_eq!(reply.header("x-ratelimit-limit"), Some("3"));
        assert_eq!(
            reply.header("x-ratelimit-remaining"),
            Some(&*left.to_string())
        );
        assert!(reply.header("x-ratelimit-reset").is_some());
        assert_eq!(reply.header("retry-after"), None);
    }
    let reply = api.get("/channels", &[]);
    assert_eq!(reply.status, 429);
    assert_eq!(
        reply.json(),
        json!({
            "error": "Too Many Requests",
            "message": "Rate limit exceeded. Please try again later.",
        })
    );
    for header in [
        "x-ratelimit-limit",
        "x-ratelimit-remaining",
        "x-ratelimit-reset",
        "ratelimit-limit",
        "ratelimit-remaining",
        "ratelimit-reset",
        "retry-after",
    ] {
        let value = reply.header(header).unwrap_or_else(|| panic!("{header}"));
        assert!(value.parse::<u32>().is_ok(), "{header}: {value}");
    }
    for _ in 0..10 {
        assert_eq!(server.gets("/up").status, 200);
    }
    server.client("sockets are counted apart").expects_pong();
    eventually("the next window", || {
        (api.get("/channels", &[]).status == 200).then_some(())
    });
}

/// Two megabytes that are announced, of the whole body or of its first chunk.
const TOO_LARGE: [(&str, &str); 2] = [
    ("a body", "Content-Length: 2000000\r\n\r\n"),
    ("a chunk", "Transfer-Encoding: chunked\r\n\r\n1E8480\r\n"),
];

// Section 9.1: which check comes first.
fn of_two_faults_of_a_request_the_one_that_is_looked_for_first_is_told(shards: usize) {
    let config = Config::new()
        .with(json!({
            "http_api": {"request_limit_in_mb": 1},
            "rate_limiter": {
                "enabled": true, "driver": "memory",
                "api_rate_limit": {"max_requests": 1000, "window_seconds": 600, "trust_hops": 0},
            },
        }))
        .with_app(json!({"max_backend_events_per_second": "1"}))
        .and_app("off", json!({"enabled": false}));
    let server = Server::start(&config, shards);
    let (api, off) = (server.api(), server.api_of("off"));
    let bad = br#"{"name":"","channels":["a"],"data":"x"}"#;
    let signed = |api: &Api, body: &[u8]| {
        let path = api.path("/events");
        format!("{path}?{}", api.query("POST", &path, &[], body))
    };
    let good = br#"{"name":"e","channels":["a"],"data":"x"}"#;
    let whole = |body: &[u8]| {
        let text = std::str::from_utf8(body).expect("ASCII");
        format!("Content-Length: {}\r\n\r\n{text}", body.len())
    };
    eventually("the app's rate to be used up", || {
        let mut wire = server.wire();
        wire.sends(format!(
            "POST {} HTTP/1.1\r\nHost: x\r\n{}",
            signed(&api, good),
            whole(good)
        ));
        (wire.reply().status == 429).then_some(())
    });
    let [body, chunk] = TOO_LARGE.map(|(_, head)| head.to_owned());
    for (name, target, body, status) in [
        (
            "bad parameters, over the app's rate",
            signed(&api, bad),
            whole(bad),
            400,
        ),
        (
            "too large, of no app",
            "/apps/none/events".to_owned(),
            body.clone(),
            413,
        ),
        (
            "too large, unsigned",
            "/apps/app-id/events".to_owned(),
            body,
            413,
        ),
        (
            "too large in chunks, unsigned",
            "/apps/app-id/events".to_owned(),
            chunk,
            413,
        ),
        (
            "no app, unsigned",
            "/apps/none/events".to_owned(),
            whole(bad),
            404,
        ),
        (
            "disabled, unsigned",
            "/apps/off-id/events".to_owned(),
            whole(bad),
            401,
        ),
        (
            "disabled, bad parameters",
            signed(&off, bad),
            whole(bad),
            403,
        ),
    ] {
        let mut wire = server.wire();
        wire.sends(format!("POST {target} HTTP/1.1\r\nHost: x\r\n{body}"));
        let reply = wire.reply();
        assert_eq!(reply.status, status, "{name}: {}", reply.text());
        let limit = reply.header("x-ratelimit-limit");
        assert_eq!(limit, Some("1000"), "{name}: it was counted");
        assert_eq!(reply.header("retry-after"), None, "{name}");
    }
}

// Section 9.1: the limit per address comes before everything, and a body too large is counted like any request.
fn the_limit_per_address_comes_before_the_size_of_a_body(shards: usize) {
    let config = Config::new().with(json!({
        "http_api": {"request_limit_in_mb": 1},
        "rate_limiter": {
            "enabled": true, "driver": "memory",
            "api_rate_limit": {"max_requests": 4, "window_seconds": 600, "trust_hops": 0},
        },
    }));
    let server = Server::start(&config, shards);
    for (round, status) in [(0, 413), (1, 413), (2, 429)] {
        for (at, (name, head)) in TOO_LARGE.into_iter().enumerate() {
            let mut wire = server.wire();
            wire.sends(format!(
                "POST /apps/app-id/events HTTP/1.1\r\nHost: x\r\n{head}"
            ));
            let reply = wire.reply();
            assert_eq!(
                reply.status,
                status,
                "{name}, round {round}: {}",
                reply.text()
            );
            let left = 4_usize.saturating_sub(2 * round + at + 1).to_string();
            assert_eq!(
                reply.header("x-ratelimit-remaining"),
                Some(&*left),
                "{name}"
            );
            assert_eq!(
                reply.header("retry-after").is_some(),
                status == 429,
                "{name}"
            );
            assert_eq!(reply.header("connection"), Some("close"), "{name}");
            assert_eq!(wire.ends(), b"", "{name}: what follows is not read");
        }
    }
    let mut api = server.api();
    assert_eq!(api.get("/channels", &[]).status, 429, "signed");
    for path in ["/apps/app-id/channels", "/apps/none/channels"] {
        assert_eq!(server.gets(path).status, 429, "{path}");
    }
    for (path, status) in [("/apps/app-id/none", 404), ("/apps/app-id/events", 405)] {
        assert_eq!(server.gets(path).status, status, "{path}");
    }
    let refused = |name: &str| {
        let mut wire = server.wire();
        wire.sends(format!(
            "POST {name} HTTP/1.1\r\nHost: x\r\nContent-Length: 2000000\r\n\r\n"
        ));
        wire.reply().status
    };
    // The limit is the API's alone, and where nothing would be read the size is nothing.
    assert_eq!((refused("/up"), refused("/nowhere")), (405, 404));
    assert_eq!(server.gets("/up").status, 200);
}

// Section 9.9: upgrades per address.
fn upgrades_per_address_can_be_limited(shards: usize) {
    let config = Config::new().with(json!({"rate_limiter": {
        "enabled": true, "driver": "memory",
        "websocket_rate_limit": {"max_requests": 3, "window_seconds": 60},
    }}));
    let server = Server::start(&config, shards);
    let _inside: Vec<_> = (0..3).map(|n| server.client(&n.to_string())).collect();
    let mut wire = server.wire();
    wire.asks_upgrade("/app/app-key?protocol=7", "");
    assert_eq!(wire.reply().status, 429);
}

// Section 9.9: what an app may publish and read per second.
fn an_apps_budget_of_events_and_reads_is_kept(shards: usize) {
    let config = Config::new().with_app(
        json!({"max_backend_events_per_second": "5", "max_read_requests_per_second": "5"}),
    );
    let server = Server::start(&config, shards);
    let mut api = server.api();
    let body = br#"{"name":"e","channels":["a"],"data":"x"}"#;
    let statuses: Vec<u16> = (0..30).map(|_| api.post("/events", body).status).collect();
    let accepted = statuses.iter().filter(|status| **status == 200).count();
    assert!((5..=15).contains(&accepted), "{statuses:?}");
    assert!(statuses.contains(&429), "{statuses:?}");
    let statuses: Vec<u16> = (0..30).map(|_| api.get("/channels", &[]).status).collect();
    let accepted = statuses.iter().filter(|status| **status == 200).count();
    assert!((5..=15).contains(&accepted), "{statuses:?}");
    // Each channel of an event counts, and a request that does not fit publishes nothing.
    eventually("a new second", || {
        (api.post("/events", body).status == 200).then_some(())
    });
    let channels: Vec<String> = (0..20).map(|n| format!("c{n}")).collect();
    let event = json!({"name": "e", "channels": channels, "data": "x"}).to_string();
    let reply = api.post("/events", event.as_bytes());
    assert_eq!(reply.status, 429);
    assert!(reply.header("retry-after").is_some());
    // More than there ever is passes when nothing is used up, and those that come after it pay.
    let channels: Vec<String> = (0..100).map(|n| format!("c{n}")).collect();
    let event = json!({"name": "e", "channels": channels, "data": "x"}).to_string();
    eventually("all of the rate to be there", || {
        (api.post("/events", event.as_bytes()).status == 200).then_some(())
    });
    let reply = api.post("/events", body);
    assert_eq!(reply.status, 429);
    let wait_s = reply.header("retry-after").expect("a time");
    let wait_s: u64 = wait_s.parse().expect("seconds");
    assert!((2..=20).contains(&wait_s), "{wait_s}");
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

// P-104
fn browsers_of_any_or_of_listed_origins_may_read(shards: usize) {
    let preflight = |server: &Server, origin: &str| {
        let mut wire = server.wire();
        wire.sends(format!(
            "OPTIONS /apps/app-id/events HTTP/1.1\r\nHost: x\r\nOrigin: {origin}\r\n\
             Access-Control-Request-Method: POST\r\n\
             Access-Control-Request-Headers: content-type\r\n\r\n"
        ));
        let reply = wire.reply();
        assert_eq!((reply.status, reply.body.len()), (200, 0), "{origin}");
        reply
    };
    let simple = |server: &Server, origin: &str| {
        let mut wire = server.wire();
        wire.sends(format!(
            "GET /up HTTP/1.1\r\nHost: x\r\nOrigin: {origin}\r\n\r\n"
        ));
        wire.reply()
    };
    let server = Server::start(&Config::new(), shards);
    let reply = preflight(&server, "https://any.test");
    assert_eq!(reply.header("access-control-allow-origin"), Some("*"));
    assert_eq!(reply.header("access-control-allow-credentials"), None);
    let methods = reply
        .header("access-control-allow-methods")
        .expect("methods");
    assert!(methods.contains("POST"), "{methods}");
    let headers = reply
        .header("access-control-allow-headers")
        .expect("headers");
    assert!(
        headers.to_ascii_lowercase().contains("content-type"),
        "{headers}"
    );
    let reply = simple(&server, "https://any.test");
    assert_eq!(reply.header("access-control-allow-origin"), Some("*"));

    let config = Config::new()
        .with(json!({"cors": {"origin": ["https://listed.test"], "credentials": true}}));
    let server = Server::start(&config, shards);
    for reply in [
        preflight(&server, "https://listed.test"),
        simple(&server, "https://listed.test"),
    ] {
        assert_eq!(
            reply.header("access-control-allow-origin"),
            Some("https://listed.test")
        );
        assert_eq!(
            reply.header("access-control-allow-credentials"),
            Some("true")
        );
        let vary = reply.header("vary").expect("Vary").to_ascii_lowercase();
        assert!(vary.contains("origin"), "{vary}");
    }
    let reply = simple(&server, "https://other.test");
    assert_ne!(
        reply.header("access-control-allow-origin"),
        Some("https://other.test")
    );
    // It does not decide an upgrade.
    let mut wire = server.wire();
    wire.upgrades("/app/app-key?protocol=7", "Origin: https://other.test\r\n");
}

fn a_browser_may_read_every_answer_refusals_included(shards: usize) {
    let config = Config::new().with(json!({
        "cors": {"origin": ["https://listed.test"]},
        "net": {"handshake_timeout_ms": 500},
        "http_api": {"request_limit_in_mb": 1},
        "rate_limiter": {
            "enabled": true, "driver": "memory",
            "api_rate_limit": {"max_requests": 3, "window_seconds": 60, "trust_hops": 0},
        },
    }));
    let server = Server::start(&config, shards);
    let api = server.api();
    let path = api.path("/channels");
    let signed = format!("GET {path}?{}", api.query("GET", &path, &[], b""));
    for (request, more, status) in [
        ("GET /up", "", 200),
        ("GET /", "", 200),
        ("GET /usage", "", 200),
        ("GET /nowhere", "", 404),
        ("POST /up", "", 405),
        ("GET /app/app-key", "", 400),
        ("GET /up/nobody", "", 404),
        (&*signed, "", 200),
        ("GET /apps/app-id/channels", "", 401),
        (
            "POST /apps/app-id/events",
            "Content-Length: 9999999\r\n",
            413,
        ),
        (&*signed, "", 429),
        (
            "POST /apps/app-id/events",
            "Content-Length: 9999999\r\n",
            429,
        ),
        ("GET /up", "Transfer-Encoding: gzip\r\nX: y\r\n", 501),
        ("POST /apps/app-id/events", "Content-Length: 9\r\n", 408),
    ] {
        let mut wire = server.wire();
        wire.sends(format!(
            "{request} HTTP/1.1\r\nHost: x\r\nOrigin: https://listed.test\r\n{more}\r\n"
        ));
        let reply = wire.reply();
        assert_eq!(reply.status, status, "{request}");
        let origin = reply.header("access-control-allow-origin");
        // What was refused while its head was read has shown no origin yet.
        let expected = (status != 501).then_some("https://listed.test");
        assert_eq!(origin, expected, "{request}: {status}");
        assert_eq!(reply.header("vary"), Some("Origin"), "{request}: {status}");
    }
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
    let batch = api.path("/batch_events");
    let query = api.query(
        "POST",
        &batch,
        &[("name", "e"), ("channel", "news"), ("data", "x")],
        b"",
    );
    assert_eq!(
        api.sends("POST", &format!("{batch}?{query}"), b"").status,
        400
    );
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
    occupied_channels_are_listed_by_prefix,
    one_channel_tells_its_state,
    the_users_of_a_presence_channel_are_listed_once_each,
    wrong_methods_and_unknown_routes_are_told_apart,
    the_limit_per_address_refuses_with_headers_and_spares_health,
    of_two_faults_of_a_request_the_one_that_is_looked_for_first_is_told,
    the_limit_per_address_comes_before_the_size_of_a_body,
    upgrades_per_address_can_be_limited,
    an_apps_budget_of_events_and_reads_is_kept,
    health_usage_and_metrics_answer_where_they_belong,
    a_server_without_any_app_is_not_ready,
    browsers_of_any_or_of_listed_origins_may_read,
    a_browser_may_read_every_answer_refusals_included,
    an_event_may_stand_in_the_query_where_there_is_no_body,
    a_connection_is_kept_over_many_requests,
}
