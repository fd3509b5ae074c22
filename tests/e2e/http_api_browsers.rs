//! Who may read answers of the HTTP API in a browser.

use serde_json::json;

use crate::on_one_and_three_shards;
use crate::support::config::Config;
use crate::support::server::Server;

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
    let signed = format!("GET {}", server.api().signed("GET", "/channels", &[], b""));
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

on_one_and_three_shards! {
    browsers_of_any_or_of_listed_origins_may_read,
    a_browser_may_read_every_answer_refusals_included,
}
