//! Which check of a request to the HTTP API comes first, and which refusal is told.

use serde_json::json;

use crate::on_one_and_three_shards;
use crate::support::api::Api;
use crate::support::config::Config;
use crate::support::eventually;
use crate::support::server::Server;

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
        let target = api.signed(method, resource, &[], b"");
        let reply = api.sends(method, &target, b"");
        // 400: `/channels/` could be read as a channel with an empty name.
        let empty_name = resource == "/channels/" && reply.status == 400;
        let said = String::from_utf8_lossy(&reply.body);
        let is_told = said.contains("the user's id in the path is not valid UTF-8");
        assert_eq!(is_told, resource.contains("%FF"), "{resource}: {said}");
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
    let body = br#"{"name":"e","channels":["c"],"data":"x"}"#;
    let target = api.signed("POST", "/events", &[], body);
    for content_type in [
        "",
        "Content-Type: text/plain\r\n",
        "Content-Type: nonsense\r\n",
    ] {
        let mut wire = server.wire();
        wire.sends(format!(
            "POST {target} HTTP/1.1\r\nHost: x\r\n{content_type}Content-Length: {}\r\n\r\n{}",
            body.len(),
            String::from_utf8_lossy(body)
        ));
        assert_eq!(wire.reply().status, 200, "{content_type:?}");
    }
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
    let signed = |api: &Api, body: &[u8]| api.signed("POST", "/events", &[], body);
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

on_one_and_three_shards! {
    wrong_methods_and_unknown_routes_are_told_apart,
    of_two_faults_of_a_request_the_one_that_is_looked_for_first_is_told,
    the_limit_per_address_comes_before_the_size_of_a_body,
}
