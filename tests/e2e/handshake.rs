//! Upgrades: who is let in, what the first frame says, and how a refusal reaches a browser.

use std::collections::HashSet;
use std::time::Duration;

use serde_json::{Value, json};

use crate::on_one_and_three_shards;
use crate::support::client::Client;
use crate::support::config::{Config, KEY, SECRET};
use crate::support::eventually;
use crate::support::server::Server;
use crate::support::wire::{CLOSE, TEXT, reason};

/// Upgrades and gives the first frame.
#[track_caller]
fn first_frame(server: &Server, target: &str, headers: &str) -> Value {
    let mut wire = server.wire();
    wire.upgrades(target, headers);
    let frame = wire.frame();
    assert_eq!(frame.opcode, TEXT, "{target}");
    serde_json::from_slice(&frame.payload).expect("JSON")
}

#[track_caller]
fn is_established(server: &Server, target: &str, headers: &str) {
    let first = first_frame(server, target, headers);
    assert_eq!(
        first["event"], "pusher:connection_established",
        "{target} {headers}: {first}"
    );
    let data: Value =
        serde_json::from_str(first["data"].as_str().expect("a string")).expect("JSON");
    assert_eq!(data["activity_timeout"], 120, "{target}");
    assert!(
        is_socket_id(data["socket_id"].as_str().expect("a string")),
        "{data}"
    );
}

/// 101, one error frame, a close frame with the same code and message, the end; nothing else.
#[track_caller]
fn is_refused(server: &Server, target: &str, headers: &str, code: u16) {
    let mut wire = server.wire();
    wire.upgrades(target, headers);
    let error = wire.frame();
    assert_eq!(error.opcode, TEXT, "{target} {headers}");
    let error: Value = serde_json::from_slice(&error.payload).expect("JSON");
    assert_eq!(
        error["event"], "pusher:error",
        "{target} {headers}: {error}"
    );
    assert_eq!(error["data"]["code"], code, "{target} {headers}: {error}");
    let close = wire.frame();
    assert_eq!(
        (close.opcode, close.close_code()),
        (CLOSE, Some(code)),
        "{target} {headers}"
    );
    assert_eq!(error["data"]["message"], reason(&close), "{target}");
    wire.sends_frame(CLOSE, &code.to_be_bytes());
    assert_eq!(wire.frames_until_end(), [], "{target}");
}

fn is_socket_id(text: &str) -> bool {
    let parts: Vec<_> = text.split('.').collect();
    parts.len() == 2
        && parts.iter().all(|part| {
            part.bytes().all(|byte| byte.is_ascii_digit())
                && part
                    .parse::<u64>()
                    .is_ok_and(|number| number <= 10_000_000_000)
                && (part.len() == 1 || !part.starts_with('0'))
        })
}

// P-001, P-002, P-003
fn every_spoken_protocol_is_greeted_with_socket_id_and_timeout(shards: usize) {
    let server = Server::start(&Config::new(), shards);
    for query in [
        "?protocol=7&client=js&version=8.4.0&flash=false",
        "?protocol=6",
        "?protocol=5&client=iOS-libPusher",
        "?protocol=7&protocol=abc",
        "?client=js",
        "",
    ] {
        is_established(&server, &format!("/app/app-key{query}"), "");
    }
}

// P-003
fn a_client_without_protocol_is_refused_where_one_is_required(shards: usize) {
    let config = Config::new().with(json!({"websocket": {"require_protocol": true}}));
    let server = Server::start(&config, shards);
    is_refused(&server, "/app/app-key?client=js", "", 4008);
    is_established(&server, "/app/app-key?protocol=7", "");
}

// P-004, P-005, P-016
fn a_protocol_that_is_no_number_or_unknown_is_refused_before_the_key(shards: usize) {
    let server = Server::start(&Config::new(), shards);
    for (protocol, code) in [
        ("abc", 4006),
        ("", 4006),
        ("7.0", 4006),
        ("-1", 4006),
        ("4", 4007),
        ("8", 4007),
        ("0", 4007),
        ("99999999999", 4007),
        ("99999999999999999999999", 4007),
    ] {
        is_refused(
            &server,
            &format!("/app/app-key?protocol={protocol}"),
            "",
            code,
        );
    }
    is_refused(&server, "/app/no-such-key?protocol=8", "", 4007);
}

// P-006, P-007, P-009
fn unknown_and_disabled_apps_and_odd_paths_are_refused_by_code(shards: usize) {
    let config = Config::new().and_app("off", json!({"enabled": false}));
    let server = Server::start(&config, shards);
    is_refused(&server, "/app/no-such-key?protocol=7", "", 4001);
    is_refused(&server, "/app/off-key?protocol=7", "", 4003);
    for path in ["/app", "/app/", "/app/app-key/more"] {
        is_refused(&server, &format!("{path}?protocol=7"), "", 4005);
    }
    let mut wire = server.wire();
    wire.asks_upgrade("/application/app-key?protocol=7", "");
    assert_eq!(wire.reply().status, 404);
    // The key is percent-decoded once.
    is_established(&server, "/app/app%2Dkey?protocol=7", "");
    is_refused(&server, "/app/app%252Dkey?protocol=7", "", 4001);
}

// P-008
fn the_connection_quota_of_an_app_is_exact_and_a_place_is_given_back(shards: usize) {
    let config = Config::new().with_app(json!({"max_connections": 3}));
    let server = Server::start(&config, shards);
    let mut inside: Vec<Client> = (0..3)
        .map(|n| server.client(&format!("guest {n}")))
        .collect();
    for _ in 0..5 {
        is_refused(&server, "/app/app-key?protocol=7", "", 4004);
    }
    inside.pop().expect("three are inside").leaves();
    let mut next = eventually("the place that was given back", || {
        let mut wire = server.wire();
        wire.upgrades("/app/app-key?protocol=7", "");
        let frame = wire.frame();
        let text = String::from_utf8(frame.payload).expect("UTF-8");
        text.contains("connection_established").then_some(wire)
    });
    is_refused(&server, "/app/app-key?protocol=7", "", 4004);
    next.sends_text(r#"{"event":"pusher:ping"}"#);
    assert_eq!(
        next.frame().payload,
        br#"{"event":"pusher:pong","data":"{}"}"#
    );
}

// P-010
fn what_is_no_upgrade_is_refused_over_http_and_tells_nothing_of_the_key(shards: usize) {
    let server = Server::start(&Config::new(), shards);
    for key in ["app-key", "no-such-key"] {
        assert_eq!(server.gets(&format!("/app/{key}?protocol=7")).status, 400);
        let mut wire = server.wire();
        wire.sends(format!(
            "GET /app/{key}?protocol=7 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Version: 8\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        ));
        let reply = wire.reply();
        assert_eq!(reply.status, 426);
        assert_eq!(reply.header("sec-websocket-version"), Some("13"));
        for ws_key in ["", "Sec-WebSocket-Key: c2hvcnQ=\r\n"] {
            let mut wire = server.wire();
            wire.sends(format!(
                "GET /app/{key}?protocol=7 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\
                 Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n{ws_key}\r\n"
            ));
            assert_eq!(wire.reply().status, 400, "{ws_key:?}");
        }
    }
    // Where its frames would begin cannot be known.
    for (headers, body) in [
        ("Content-Length: 5\r\n", "hello"),
        ("Content-Length: 5\r\n", "he"),
        ("Transfer-Encoding: chunked\r\n", "0\r\n\r\n"),
    ] {
        let mut wire = server.wire();
        wire.sends(format!(
            "GET /app/app-key?protocol=7 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n{body}"
        ));
        assert_eq!(wire.reply().status, 400, "{headers:?} {body:?}");
    }
}

// P-011
fn neither_subprotocol_nor_compression_is_negotiated(shards: usize) {
    let server = Server::start(&Config::new(), shards);
    let mut wire = server.wire();
    let reply = wire.upgrades(
        "/app/app-key?protocol=7",
        "Sec-WebSocket-Protocol: pusher\r\n\
         Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n",
    );
    assert_eq!(reply.header("sec-websocket-protocol"), None);
    assert_eq!(reply.header("sec-websocket-extensions"), None);
    assert_eq!(wire.frame().opcode, TEXT);
}

// P-001: header names and token values are case-insensitive, and Connection is a list.
fn an_upgrade_is_recognised_in_every_legal_spelling(shards: usize) {
    let server = Server::start(&Config::new(), shards);
    for headers in [
        "upgrade: WebSocket\r\nconnection: keep-alive, Upgrade\r\n",
        "UPGRADE: websocket\r\nCONNECTION: upgrade\r\n",
    ] {
        let mut wire = server.wire();
        wire.sends(format!(
            "GET /app/app-key?protocol=7 HTTP/1.1\r\nhost: x\r\n{headers}\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        ));
        assert_eq!(wire.reply().status, 101, "{headers}");
    }
}

// P-012, P-013
fn only_listed_origins_are_let_in(shards: usize) {
    let config = Config::new()
        .with_app(json!({"allowed_origins": [
            "https://Example.com", "plain.test", "ported.test:3000", "*.wild.test",
            "https://pre*fix.test",
        ]}))
        .and_app("any", json!({"allowed_origins": ["*"]}));
    let server = Server::start(&config, shards);
    let target = "/app/app-key?protocol=7";
    for origin in [
        "https://example.com",
        "HTTPS://EXAMPLE.COM",
        "http://plain.test",
        "https://plain.test",
        "http://ported.test:3000",
        "https://wild.test",
        "http://a.b.wild.test",
        "https://pre-and-fix.test",
        "https://prefix.test",
    ] {
        is_established(&server, target, &format!("Origin: {origin}\r\n"));
    }
    for origin in [
        "http://example.com",
        "https://example.com:8443",
        "https://sub.plain.test",
        "http://plain.test:80",
        "http://ported.test:3001",
        "http://ported.test",
        "http://badwild.test",
        "https://wild.test.evil.test",
        "https://pre.test",
        "null",
    ] {
        is_refused(&server, target, &format!("Origin: {origin}\r\n"), 4009);
    }
    is_refused(&server, target, "", 4009);
    is_established(&server, "/app/any-key?protocol=7", "");
    is_established(
        &server,
        "/app/any-key?protocol=7",
        "Origin: https://any.where\r\n",
    );
}

// The server itself has no TLS: a proxy says what the client's own connection was.
fn an_app_that_requires_tls_believes_a_trusted_proxy_only(shards: usize) {
    let target = "/app/app-key?protocol=7";
    let requires = |limiter: Value| {
        Config::new()
            .with_app(json!({"require_tls": true}))
            .with(json!({"rate_limiter": limiter}))
    };
    let https = "X-Forwarded-Proto: https\r\n";
    let nobody = Server::start(&requires(json!({})), shards);
    for headers in ["", https] {
        is_refused(&nobody, target, headers, 4000);
    }
    let hops = json!({"websocket_rate_limit": {"trust_hops": 1}});
    let behind = Server::start(&requires(hops.clone()), shards);
    is_established(&behind, target, https);
    is_established(&behind, target, "X-Forwarded-Proto: wss\r\n");
    for headers in [
        "",
        "X-Forwarded-Proto: http\r\n",
        "X-Forwarded-Proto: https, http\r\n",
    ] {
        is_refused(&behind, target, headers, 4000);
    }
    let mut elsewhere = hops;
    elsewhere["trusted_proxies"] = json!(["192.0.2.0/24"]);
    let strangers = Server::start(&requires(elsewhere), shards);
    is_refused(&strangers, target, https, 4000);
}

#[test]
fn what_looks_wrong_about_forwarding_headers_is_logged_once() {
    let words = [
        "trust_hops is 0",
        "without the X-Forwarded-For",
        "not among",
    ];
    let forwarded = "X-Forwarded-For: 192.0.2.1\r\n";
    for (hops, proxies, headers, expected) in [
        (0, json!([]), "", None),
        (0, json!([]), forwarded, Some(words[0])),
        (1, json!([]), forwarded, None),
        (1, json!([]), "", Some(words[1])),
        (1, json!(["192.0.2.0/24"]), forwarded, Some(words[2])),
    ] {
        let limit = json!({"max_requests": 100, "window_seconds": 60, "trust_hops": hops});
        let config = Config::new().with(json!({"rate_limiter": {
            "enabled": true, "trusted_proxies": proxies,
            "websocket_rate_limit": limit, "api_rate_limit": limit,
        }}));
        let server = Server::start(&config, 1);
        for _ in 0..3 {
            is_established(&server, "/app/app-key?protocol=7", headers);
        }
        let log = server.log();
        for word in words {
            let count = log.matches("limits by address: a request").count();
            let is_told = log.contains(word) && count > 0;
            assert_eq!(
                is_told,
                expected == Some(word),
                "{hops} {headers}: {word}\n{log}"
            );
            assert_eq!(count, usize::from(expected.is_some()), "{log}");
        }
    }
}

// P-014; twenty thousand at once are compared in `limits`.
fn socket_ids_are_well_formed_and_distinct(shards: usize) {
    let server = Server::start(&Config::new(), shards);
    let clients: Vec<Client> = (0..200).map(|n| server.client(&n.to_string())).collect();
    let ids: HashSet<&str> = clients
        .iter()
        .map(|client| client.socket_id.as_str())
        .collect();
    assert_eq!(ids.len(), clients.len());
    for id in ids {
        assert!(is_socket_id(id), "{id}");
    }
}

// P-015
fn the_path_prefix_holds_for_sockets_and_api_alike(shards: usize) {
    let config = Config::new().with(json!({"path_prefix": "/realtime"}));
    let server = Server::start(&config, shards);
    let mut alice = server.client("alice");
    alice.subscribes("news");
    server.api().publishes("hello", "news", "x");
    alice.expects_frame(json!({"event": "hello", "channel": "news", "data": "x"}));
    is_established(&server, "/realtime/app/app-key?protocol=7", "");
    // Without it there is no such path for a socket: neither a handshake nor a refusal behind one.
    for path in ["/app/app-key", "/app", "/app/", "/app/app-key/more"] {
        let mut wire = server.wire();
        wire.asks_upgrade(&format!("{path}?protocol=7"), "");
        assert_eq!(wire.reply().status, 404, "{path}");
        assert_eq!(server.gets(path).status, 404, "{path}");
    }
    is_refused(&server, "/realtime/app/?protocol=7", "", 4005);
    // For the API a proxy may have taken it away, and PHP's library signs without it.
    let mut api = server.api();
    let prefixed = api.path("/channels");
    let stripped = prefixed
        .strip_prefix("/realtime")
        .expect("prefixed")
        .to_owned();
    for (signed, sent) in [
        (&prefixed, &stripped),
        (&stripped, &prefixed),
        (&stripped, &stripped),
    ] {
        let query = api.query("GET", signed, &[], b"");
        let reply = api.sends("GET", &format!("{sent}?{query}"), b"");
        assert_eq!(reply.status, 200, "{signed} as {sent}: {}", reply.text());
    }
    assert_eq!(server.gets("/other/apps/app-id/channels").status, 404);
    for path in ["/up", "/realtime/up", "/ready", "/usage", "/"] {
        assert_eq!(server.gets(path).status, 200, "{path}");
    }
}

// P-017
fn a_draining_server_sends_everyone_elsewhere_and_exits_in_order(shards: usize) {
    let config =
        Config::new().with(json!({"drain": {"deadline_s": 10, "rate_per_s": 2, "lb_wait_s": 0}}));
    let mut server = Server::start(&config, shards);
    let clients: Vec<Client> = (0..6).map(|n| server.client(&n.to_string())).collect();
    server.drains();
    let readers: Vec<_> = clients
        .into_iter()
        .map(|mut client| std::thread::spawn(move || client.is_closed_with(4200)))
        .collect();
    // An upgrade while the others are still being closed. Readiness goes off a moment before all shards know.
    eventually("the drain to begin", || {
        let remaining = server.metric("sockudo_drain_connections_remaining");
        remaining.filter(|count| *count >= 0.0)
    });
    is_refused(&server, "/app/app-key?protocol=7", "", 4200);
    for reader in readers {
        reader.join().expect("each socket is closed with 4200");
    }
    assert_eq!(server.exits().code(), Some(0));
}

// P-017
fn a_draining_server_still_serves_while_the_load_balancer_looks_away(shards: usize) {
    let config = Config::new().with(json!({"drain": {"deadline_s": 10, "lb_wait_s": 2}}));
    let mut server = Server::start(&config, shards);
    let mut alice = server.client("alice");
    server.drains();
    eventually("readiness to go off", || {
        (server.gets("/up").status == 503).then_some(())
    });
    alice.expects_pong();
    server.client("late").expects_pong();
    alice.is_closed_with(4200);
    assert_eq!(server.exits().code(), Some(0));
}

// P-017: a second signal means now.
fn a_second_signal_stops_at_once(shards: usize) {
    let config = Config::new().with(json!({"drain": {"deadline_s": 60, "lb_wait_s": 30}}));
    let mut server = Server::start(&config, shards);
    let _alice = server.client("alice");
    server.drains();
    eventually("the drain to begin", || {
        (server.gets("/up").status == 503).then_some(())
    });
    server.drains();
    server.exits();
}

// Section 11: the node's own ceiling.
fn over_the_nodes_ceiling_clients_are_told_to_back_off(shards: usize) {
    let config = Config::new().with(json!({"admission": {"max_connections": 2}}));
    let server = Server::start(&config, shards);
    let _inside = [server.client("one"), server.client("two")];
    is_refused(&server, "/app/app-key?protocol=7", "", 4100);
}

// RFC 6455: a client may not send frames before the 101, but a fast one's may arrive with the request.
fn frames_that_arrive_with_the_request_are_not_lost(shards: usize) {
    let server = Server::start(&Config::new(), shards);
    let mut wire = server.wire();
    let ping = crate::support::wire::frame(0x80 | TEXT, br#"{"event":"pusher:ping"}"#);
    let request = "GET /app/app-key?protocol=7 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\
                   Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    wire.sends([request.as_bytes(), &ping].concat());
    assert_eq!(wire.reply().status, 101);
    assert!(String::from_utf8_lossy(&wire.frame().payload).contains("connection_established"));
    assert_eq!(
        wire.frame().payload,
        br#"{"event":"pusher:pong","data":"{}"}"#
    );
}

fn a_request_cut_at_every_byte_is_understood(shards: usize) {
    let server = Server::start(&Config::new(), shards);
    let mut wire = server.wire();
    let request = "GET /app/app-key?protocol=7 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\
                   Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    for byte in request.bytes() {
        wire.sends([byte]);
        std::thread::sleep(Duration::from_micros(500)); // Apart, so that the kernel does not join them.
    }
    assert_eq!(wire.reply().status, 101);
    assert!(String::from_utf8_lossy(&wire.frame().payload).contains("connection_established"));
    let subscribe = br#"{"event":"pusher:subscribe","data":{"auth":"","channel":"news"}}"#;
    for byte in crate::support::wire::frame(0x80 | TEXT, subscribe) {
        wire.sends([byte]);
        std::thread::sleep(Duration::from_micros(500));
    }
    let answer = String::from_utf8(wire.frame().payload).expect("UTF-8");
    assert!(answer.contains("subscription_succeeded"), "{answer}");
}

fn two_apps_do_not_hear_each_other(shards: usize) {
    let server = Server::start(&Config::new().and_app("other", json!({})), shards);
    let mut ours = Client::connect(&server, "ours", KEY, SECRET);
    let mut theirs = server.client_of("other", "theirs");
    ours.subscribes("news");
    theirs.subscribes("news");
    server.api().publishes("hello", "news", "for us");
    ours.expects_frame(json!({"event": "hello", "channel": "news", "data": "for us"}));
    theirs.expects_nothing();
}

on_one_and_three_shards! {
    every_spoken_protocol_is_greeted_with_socket_id_and_timeout,
    a_client_without_protocol_is_refused_where_one_is_required,
    a_protocol_that_is_no_number_or_unknown_is_refused_before_the_key,
    unknown_and_disabled_apps_and_odd_paths_are_refused_by_code,
    the_connection_quota_of_an_app_is_exact_and_a_place_is_given_back,
    what_is_no_upgrade_is_refused_over_http_and_tells_nothing_of_the_key,
    neither_subprotocol_nor_compression_is_negotiated,
    an_upgrade_is_recognised_in_every_legal_spelling,
    only_listed_origins_are_let_in,
    an_app_that_requires_tls_believes_a_trusted_proxy_only,
    socket_ids_are_well_formed_and_distinct,
    the_path_prefix_holds_for_sockets_and_api_alike,
    a_draining_server_sends_everyone_elsewhere_and_exits_in_order,
    a_draining_server_still_serves_while_the_load_balancer_looks_away,
    a_second_signal_stops_at_once,
    over_the_nodes_ceiling_clients_are_told_to_back_off,
    frames_that_arrive_with_the_request_are_not_lost,
    a_request_cut_at_every_byte_is_understood,
    two_apps_do_not_hear_each_other,
}
