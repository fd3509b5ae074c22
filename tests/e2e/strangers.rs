//! Whom nobody has vouched for, and who reads too little or leaves too early: none of them costs others
//! anything, and none of them is cut off for what is not its fault.

use std::{
    net::Shutdown,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::on_one_and_three_shards;
use crate::support::config::Config;
use crate::support::server::Server;
use crate::support::wire::Wire;

/// A signed publish of `body`, without it.
fn signed_head(server: &Server, body: &[u8], framing: &str) -> String {
    let target = server.api().signed("POST", "/events", &[], body);
    format!("POST {target} HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n")
}

fn event(channels: &[String], data_bytes: usize) -> Vec<u8> {
    let data = "x".repeat(data_bytes);
    let event = json!({"name": "e", "channels": channels, "data": data});
    event.to_string().into_bytes()
}

/// The connection is in step: the next request has its answer.
fn goes_on(wire: &mut Wire, name: &str) {
    wire.sends("GET /up HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(wire.reply().status, 200, "{name}");
}

fn a_request_that_cannot_matter_is_answered_before_its_body_and_the_connection_goes_on(
    shards: usize,
) {
    let server = Server::start(&Config::new(), shards);
    for (target, status) in [
        ("/nowhere", 404),
        ("/apps/nobody/events", 404),
        ("/up", 405),
        ("/apps/app-id/channels", 405),
    ] {
        for (framing, body) in [
            ("Content-Length: 50000", "x".repeat(50_000)),
            (
                "Transfer-Encoding: chunked",
                format!("c350\r\n{}\r\n0\r\n\r\n", "x".repeat(50_000)),
            ),
        ] {
            let name = format!("{target}, {framing}");
            let mut wire = server.wire();
            wire.sends(format!(
                "POST {target} HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n"
            ));
            wire.sends(&body[..100]);
            assert_eq!(wire.reply().status, status, "{name}");
            wire.sends(&body[100..]);
            goes_on(&mut wire, &name);
        }
    }
}

fn a_body_that_nobody_signed_for_is_not_kept_and_is_refused_at_its_end(shards: usize) {
    let server = Server::start(&Config::new(), shards);
    let before = server.resident_bytes();
    let chunk = format!("f4240\r\n{}\r\n", "x".repeat(1_000_000));
    let mut wires: Vec<Wire> = (0..20)
        .map(|_| {
            let mut wire = server.wire();
            let target = "/apps/app-id/events?auth_key=app-key";
            let framing = "Transfer-Encoding: chunked";
            wire.sends(format!(
                "POST {target} HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n"
            ));
            (0..3).for_each(|_| wire.sends(&chunk));
            wire
        })
        .collect();
    for wire in &mut wires {
        wire.sends("0\r\n\r\n");
        assert_eq!(wire.reply().status, 401);
        goes_on(wire, "after a body that was thrown away");
    }
    let grown = server.resident_bytes().saturating_sub(before);
    assert!(
        grown < 20_000_000,
        "60 MB came and the server grew by {grown} bytes"
    );
    let mut wire = server.wire();
    wire.sends(
        "POST /apps/app-id/events HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
    );
    for _ in 0..11 {
        wire.sends(&chunk);
    }
    assert_eq!(
        wire.reply().status,
        413,
        "also what is thrown away has a bound"
    );
}

fn a_signed_body_without_its_digest_is_refused_however_it_comes(shards: usize) {
    let server = Server::start(&Config::new(), shards);
    let mut alice = server.client("alice");
    alice.subscribes("news");
    let api = server.api();
    let path = api.path("/events");
    // Signed over a query that names no digest, and would do for an empty body.
    let named = [("name", "e"), ("channel", "news"), ("data", "x")];
    let query = api.query("POST", &path, &named, b"");
    assert!(!query.contains("body_md5"), "{query}");
    for pieces in [1, 2] {
        let mut wire = server.wire();
        let head = format!("POST {path}?{query} HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n");
        if pieces == 1 {
            wire.sends(format!("{head}body"));
        } else {
            wire.sends(head);
            server.gets("/up");
            wire.sends("body");
        }
        assert_eq!(wire.reply().status, 401, "in {pieces} pieces");
    }
    alice.expects_nothing();
}

fn a_slow_upload_that_was_signed_has_the_time_that_it_takes(shards: usize) {
    let net = json!({"handshake_timeout_ms": 500, "body_rate_min_bytes_per_s": 100});
    let server = Server::start(&Config::new().with(json!({"net": net})), shards);
    let mut alice = server.client("alice");
    alice.subscribes("news");
    let body = event(&["news".to_owned()], 4_000);
    for chunked in [false, true] {
        let framing = if chunked {
            "Transfer-Encoding: chunked".to_owned()
        } else {
            format!("Content-Length: {}", body.len())
        };
        let mut wire = server.wire();
        wire.sends(signed_head(&server, &body, &framing));
        let start = Instant::now();
        for piece in body.chunks(700) {
            if chunked {
                wire.sends(format!("{:x}\r\n", piece.len()));
                wire.sends(piece);
                wire.sends("\r\n");
            } else {
                wire.sends(piece);
            }
            std::thread::sleep(Duration::from_millis(200)); // The pace is what is tested.
        }
        if chunked {
            wire.sends("0\r\n\r\n");
        }
        assert!(start.elapsed() > Duration::from_millis(1_000));
        assert_eq!(wire.reply().status, 200, "{framing}");
        alice.expects("e", "news");
    }
}

// A peer that ends its side may still read: its requests were accepted.
fn who_half_closes_after_a_request_gets_its_answer(shards: usize) {
    let server = Server::start(&Config::new(), shards);
    for number in 0..30 {
        let body = event(&[format!("news-{number}")], 10);
        let framing = format!("Content-Length: {}", body.len());
        let mut wire = server.wire();
        let mut request = signed_head(&server, &body, &framing).into_bytes();
        request.extend(&body);
        wire.sends(&request);
        wire.stream
            .shutdown(Shutdown::Write)
            .expect("our side ends");
        assert_eq!(wire.reply().status, 200, "request {number}");
        assert!(wire.ends().is_empty());
    }
}

fn a_prompt_reader_gets_all_that_one_request_brings_it(shards: usize) {
    let server = Server::start(&Config::new(), shards);
    let mut alice = server.client("alice");
    let channels: Vec<String> = (0..30).map(|number| format!("news-{number}")).collect();
    channels
        .iter()
        .for_each(|channel| alice.subscribes(channel));
    let body = event(&channels, 100 * 1_024);
    assert_eq!(server.api().post("/events", &body).status, 200);
    let mut heard: Vec<String> = (0..channels.len())
        .map(|_| {
            let frame = alice.next();
            assert_eq!(frame["event"], "e");
            frame["channel"].as_str().expect("a channel").to_owned()
        })
        .collect();
    heard.sort_by_key(|name| name["news-".len()..].parse::<u32>().expect("a number"));
    assert_eq!(heard, channels);
    alice.expects_pong();
}

fn five_hundred_channels_at_once_are_subscribed_to_and_a_flood_is_held_but_not_refused(
    shards: usize,
) {
    let server = Server::start(&Config::new(), shards);
    let mut alice = server.client("alice");
    let mut bob = server.client("bob");
    let frame = |event: &str, number: u32| {
        let data = json!({"channel": format!("news-{number}")});
        json!({"event": event, "data": data})
    };
    for number in 0..1_200 {
        alice.sends(frame("pusher:subscribe", number));
    }
    for number in 0..1_200 {
        alice.expects(
            "pusher_internal:subscription_succeeded",
            &format!("news-{number}"),
        );
    }
    for number in 0..3_000 {
        alice.sends(frame("pusher:unsubscribe", 5_000 + number));
    }
    bob.expects_pong();
    alice.expects_pong();
}

fn a_channel_beyond_the_bound_of_a_connection_is_refused_with_a_limit(shards: usize) {
    let config = Config::new().with(json!({"net": {"subscribe_rate_per_s": 0}}));
    let server = Server::start(&config, shards);
    let mut alice = server.client("alice");
    for number in 0..4_001 {
        let data = json!({"channel": format!("news-{number}")});
        alice.sends(json!({"event": "pusher:subscribe", "data": data}));
    }
    for number in 0..4_000 {
        alice.expects(
            "pusher_internal:subscription_succeeded",
            &format!("news-{number}"),
        );
    }
    alice.expects_refusal("news-4000", "LimitReached", 4100);
}

on_one_and_three_shards! {
    a_request_that_cannot_matter_is_answered_before_its_body_and_the_connection_goes_on,
    a_body_that_nobody_signed_for_is_not_kept_and_is_refused_at_its_end,
    a_signed_body_without_its_digest_is_refused_however_it_comes,
    a_slow_upload_that_was_signed_has_the_time_that_it_takes,
    who_half_closes_after_a_request_gets_its_answer,
    a_prompt_reader_gets_all_that_one_request_brings_it,
    five_hundred_channels_at_once_are_subscribed_to_and_a_flood_is_held_but_not_refused,
    a_channel_beyond_the_bound_of_a_connection_is_refused_with_a_limit,
}
