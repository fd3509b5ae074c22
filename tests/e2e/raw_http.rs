//! HTTP as no client library would send it: pipelined, chunked, slow, contradictory, or not HTTP at all.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::on_one_and_three_shards;
use crate::support::config::Config;
use crate::support::server::Server;
use crate::support::wire::Wire;

const EVENT: &str = r#"{"name":"e","channels":["news"],"data":"x"}"#;

/// The target of a signed publish of `EVENT`.
fn signed_target(server: &Server) -> String {
    let body = EVENT.as_bytes();
    server.api().signed("POST", "/events", &[], body)
}

/// Refused with one of these statuses, or cut off; never answered twice, never left open.
#[track_caller]
fn is_refused_and_closed(mut wire: Wire, name: &str, statuses: &[u16]) {
    if let Some(reply) = wire.try_reply() {
        assert!(statuses.contains(&reply.status), "{name}: {}", reply.status);
        let rest = wire.ends();
        assert!(
            rest.is_empty(),
            "{name}: {:?} follows",
            String::from_utf8_lossy(&rest)
        );
    }
}

fn pipelined_requests_are_answered_in_order(shards: usize) {
    let server = Server::start(&Config::new(), shards);
    let mut alice = server.client("alice");
    alice.subscribes("news");
    let mut wire = server.wire();
    let post = format!(
        "POST {} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{EVENT}",
        signed_target(&server),
        EVENT.len()
    );
    let mut requests = String::new();
    for _ in 0..20 {
        requests.push_str("GET /up HTTP/1.1\r\nHost: x\r\n\r\n");
        requests.push_str(&post);
        requests.push_str("GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n");
    }
    wire.sends(requests);
    for round in 0..20 {
        for status in [200, 200, 404] {
            assert_eq!(wire.reply().status, status, "round {round}");
        }
    }
    for _ in 0..20 {
        alice.expects("e", "news");
    }
}

fn a_chunked_body_is_read_however_it_is_cut(shards: usize) {
    let server = Server::start(&Config::new(), shards);
    let mut alice = server.client("alice");
    alice.subscribes("news");
    let target = signed_target(&server);
    for size in [1, 7, EVENT.len()] {
        let mut request =
            format!("POST {target} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
        for piece in EVENT.as_bytes().chunks(size) {
            let piece = std::str::from_utf8(piece).expect("ASCII");
            request.push_str(&format!("{:X};note=1\r\n{piece}\r\n", piece.len()));
        }
        request.push_str("0\r\nTrailer: x\r\n\r\nGET /up HTTP/1.1\r\nHost: x\r\n\r\n");
        let mut wire = server.wire();
        for bytes in request.as_bytes().chunks(11) {
            wire.sends(bytes);
        }
        assert_eq!(wire.reply().status, 200, "chunks of {size}");
        assert_eq!(wire.reply().status, 200, "the request after it");
        alice.expects("e", "news");
    }
}

fn a_request_cut_at_every_place_gives_one_answer(shards: usize) {
    let server = Server::start(&Config::new(), shards);
    let request = format!(
        "POST {} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{EVENT}",
        signed_target(&server),
        EVENT.len()
    );
    let mut wire = server.wire();
    for place in 1..request.len() {
        let (start, end) = request.split_at(place);
        wire.sends(start);
        std::thread::sleep(Duration::from_micros(200)); // Apart, so that the kernel does not join them.
        wire.sends(end);
        assert_eq!(wire.reply().status, 200, "cut at {place}");
    }
}

fn contradictory_lengths_are_refused_and_the_connection_ends(shards: usize) {
    let server = Server::start(&Config::new(), shards);
    let hidden = "GET /up HTTP/1.1\r\nHost: x\r\n\r\n";
    for (name, headers) in [
        (
            "length and chunked",
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        ),
        (
            "chunked and length",
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        ),
        ("two lengths", "Content-Length: 5\r\nContent-Length: 6\r\n"),
        ("a list of lengths", "Content-Length: 5, 6\r\n"),
        ("a signed length", "Content-Length: +5\r\n"),
        ("a negative length", "Content-Length: -1\r\n"),
        ("a hexadecimal length", "Content-Length: 0x5\r\n"),
        ("a length with a space", "Content-Length: 5 5\r\n"),
        ("an empty length", "Content-Length:\r\n"),
        (
            "a length beyond numbers",
            "Content-Length: 99999999999999999999999999\r\n",
        ),
        ("an unknown coding", "Transfer-Encoding: xchunked\r\n"),
        (
            "a coding after chunked",
            "Transfer-Encoding: chunked, gzip\r\n",
        ),
        (
            "chunked twice",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        ),
        ("a space before the colon", "Content-Length : 5\r\n"),
        ("a folded header", "X: a\r\n b\r\nContent-Length: 5\r\n"),
        ("a header without colon", "Nonsense\r\n"),
        ("a control character", "X: a\0b\r\n"),
    ] {
        let mut wire = server.wire();
        wire.sends(format!(
            "POST {} HTTP/1.1\r\nHost: x\r\n{headers}\r\n0\r\n\r\n{hidden}",
            signed_target(&server)
        ));
        is_refused_and_closed(wire, name, &[400, 413, 501]);
    }
    for (name, body) in [
        ("no size", "\r\nx\r\n"),
        ("no hex", "g\r\nx\r\n"),
        ("a signed size", "+1\r\nx\r\n"),
        ("a size beyond numbers", "fffffffffffffffffff\r\nx\r\n"),
        ("a chunk without its end", "1\r\nxy\r\n0\r\n\r\n"),
        ("a bare line feed", "1\nx\n0\n\n"),
    ] {
        let mut wire = server.wire();
        wire.sends(format!(
            "POST {} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{body}{hidden}",
            signed_target(&server)
        ));
        is_refused_and_closed(wire, name, &[400, 413]);
    }
}

fn what_is_not_http_is_turned_away(shards: usize) {
    let server = Server::start(&Config::new(), shards);
    let long_target = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(20_000));
    let long_header = format!("GET /up HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(20_000));
    let endless_header = format!("GET /up HTTP/1.1\r\nX: {}", "x".repeat(40_000));
    let many_headers = format!("GET /up HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(2_000));
    for (name, bytes) in [
        (
            "a TLS hello",
            &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        ),
        ("zeros", &[0; 64]),
        ("high bytes", &[0xFF; 64]),
        ("an HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        ("a redis command", b"*1\r\n$4\r\nPING\r\n"),
        ("no version", b"GET /up\r\n\r\n"),
        ("another version", b"GET /up HTTP/3.0\r\n\r\n"),
        (
            "a space in the target",
            b"GET /u p HTTP/1.1\r\nHost: x\r\n\r\n",
        ),
        ("a long target", long_target.as_bytes()),
        ("a long header", long_header.as_bytes()),
        ("an endless header", endless_header.as_bytes()),
        ("many headers", many_headers.as_bytes()),
    ] {
        let mut wire = server.wire();
        wire.sends(bytes);
        is_refused_and_closed(wire, name, &[400, 404, 414, 431, 505]);
    }
    assert_eq!(server.gets("/up").status, 200);
}

fn a_client_that_dawdles_with_its_headers_is_let_go(shards: usize) {
    let config = Config::new().with(json!({"net": {"handshake_timeout_ms": 500}}));
    let server = Server::start(&config, shards);
    let start = Instant::now();
    let mut silent = server.wire();
    let mut slow = server.wire();
    slow.sends("GET /app/app-key?protocol=7 HTTP/1.1\r\n");
    let mut dripping = server.wire();
    let mut body = server.wire();
    body.sends("POST /apps/app-id/events HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{");
    // A byte now and then does not buy more time.
    dripping.sends("GET /up HTTP/1.1\r\nX: ");
    while start.elapsed() < Duration::from_millis(1_500) {
        dripping.sends("x");
        std::thread::sleep(Duration::from_millis(50)); // The pace is what is tested.
    }
    for (name, wire) in [
        ("headers that stop", &mut slow),
        ("headers that drip", &mut dripping),
        ("silence", &mut silent),
        ("a body that stops", &mut body),
    ] {
        let rest = wire.ends();
        let text = String::from_utf8_lossy(&rest);
        assert!(
            text.is_empty() || text.starts_with("HTTP/1.1 408"),
            "{name}: {text}"
        );
    }
    assert!(
        start.elapsed() < Duration::from_secs(6),
        "{:?}",
        start.elapsed()
    );
    server.client("a quick one").expects_pong();
}

fn a_request_that_ends_early_leaves_nothing_behind(shards: usize) {
    let server = Server::start(&Config::new(), shards);
    let mut alice = server.client("alice");
    alice.subscribes("news");
    let request = format!(
        "POST {} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{EVENT}",
        signed_target(&server),
        EVENT.len()
    );
    for place in (0..request.len()).step_by(13) {
        let mut wire = server.wire();
        wire.sends(&request[..place]);
        if place % 2 == 0 {
            wire.resets_on_drop();
        }
    }
    alice.expects_nothing();
    server.api().publishes("e", "news", "x");
    alice.expects("e", "news");
}

fn connection_close_and_http_1_0_end_after_the_answer(shards: usize) {
    let server = Server::start(&Config::new(), shards);
    for request in [
        "GET /up HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        "GET /up HTTP/1.0\r\n\r\n",
    ] {
        let mut wire = server.wire();
        wire.sends(request);
        assert_eq!(wire.reply().status, 200, "{request}");
        assert!(wire.ends().is_empty(), "{request}");
    }
    // Half closed: the asker sends no more but still listens.
    let mut wire = server.wire();
    wire.sends("GET /up HTTP/1.1\r\nHost: x\r\n\r\n");
    wire.stream
        .shutdown(std::net::Shutdown::Write)
        .expect("it is open");
    assert_eq!(wire.reply().status, 200);
}

fn no_answer_to_head_has_a_body_and_pipelines_stay_in_step(shards: usize) {
    let server = Server::start(&Config::new(), shards);
    let api = server.api();
    let signed = |method: &str, resource: &str| api.signed(method, resource, &[], b"");
    let mut wire = server.wire();
    for (target, status) in [
        ("/up".to_owned(), 200),
        ("/up/app-id".to_owned(), 200),
        ("/up/nobody".to_owned(), 404),
        ("/live".to_owned(), 200),
        ("/ready".to_owned(), 200),
        ("/".to_owned(), 200),
        ("/usage".to_owned(), 200),
        ("/nowhere".to_owned(), 404),
        ("/app/app-key".to_owned(), 400),
        ("/welcome/sign".to_owned(), 405),
        (signed("GET", "/channels"), 200),
        (signed("HEAD", "/channels"), 200),
        (signed("GET", "/channels/news"), 200),
        (signed("GET", "/channels/presence-a/users"), 200),
        (signed("GET", "/channels/news/users"), 400),
        (signed("POST", "/channels"), 401),
        (api.path("/channels"), 401),
        ("/apps/nobody/channels".to_owned(), 404),
        (signed("HEAD", "/events"), 405),
    ] {
        wire.sends(format!(
            "HEAD {target} HTTP/1.1\r\nHost: x\r\n\r\nGET /live HTTP/1.1\r\nHost: x\r\n\r\n"
        ));
        let reply = wire.reply_head().expect("an answer");
        assert_eq!(reply.status, status, "{target}");
        let length: usize = reply
            .header("content-length")
            .expect("a length")
            .parse()
            .expect("digits");
        assert!(length > 0, "{target}: the length that GET would have");
        let allowed = reply.header("allow");
        assert_eq!(allowed.is_some(), status == 405, "{target}: {allowed:?}");
        let next = wire.reply();
        assert_eq!((next.status, &*next.text()), (200, "OK"), "after {target}");
    }
    wire.sends("POST /up HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
    let allowed = wire.reply().header("allow").expect("Allow").to_owned();
    assert!(allowed.contains("GET, HEAD"), "{allowed}");
}

fn no_refusal_of_a_broken_or_late_head_request_has_a_body(shards: usize) {
    let config = Config::new().with(
        json!({"net": {"handshake_timeout_ms": 500}, "http_api": {"request_limit_in_mb": 1}}),
    );
    let server = Server::start(&config, shards);
    for (bytes, status) in [
        ("HEAD /up HTTP/1.1\r\n\r\n", 400),
        ("HEAD /up HTTP/2.0\r\n\r\n", 505),
        (
            "\r\nHEAD /up HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
            400,
        ),
        (
            "HEAD /up HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n\r\n",
            413,
        ),
        (
            "HEAD /up HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
            400,
        ),
        (
            "HEAD /up HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n",
            408,
        ),
        ("HEAD /up HTTP/1.1\r\nHos", 408),
    ] {
        let mut wire = server.wire();
        wire.sends(bytes);
        let reply = wire.reply_head().expect("an answer");
        assert_eq!(reply.status, status, "{bytes:?}");
        let rest = wire.ends();
        assert!(
            rest.is_empty(),
            "{bytes:?}: {:?}",
            String::from_utf8_lossy(&rest)
        );
    }
}

fn a_fallback_transport_gets_404(shards: usize) {
    let server = Server::start(&Config::new(), shards);
    for path in [
        "/pusher/app/app-key/info",
        "/pusher/app/app-key/1/2/xhr_streaming",
        "/timeline",
    ] {
        assert_eq!(server.gets(path).status, 404, "{path}");
    }
}

on_one_and_three_shards! {
    pipelined_requests_are_answered_in_order,
    a_chunked_body_is_read_however_it_is_cut,
    a_request_cut_at_every_place_gives_one_answer,
    contradictory_lengths_are_refused_and_the_connection_ends,
    what_is_not_http_is_turned_away,
    a_client_that_dawdles_with_its_headers_is_let_go,
    a_request_that_ends_early_leaves_nothing_behind,
    connection_close_and_http_1_0_end_after_the_answer,
    no_answer_to_head_has_a_body_and_pipelines_stay_in_step,
    no_refusal_of_a_broken_or_late_head_request_has_a_body,
    a_fallback_transport_gets_404,
}
