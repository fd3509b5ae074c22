//! PROXY headers as bytes: who must send one, who must not, and what it changes.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

use crate::on_one_and_three_shards;
use crate::support::config::Config;
use crate::support::eventually;
use crate::support::server::Server;
use crate::support::wire::Wire;

/// The proxy that is trusted, and somebody else on this machine.
const PROXY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const STRANGER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);
const TARGET: &str = "/app/app-key?protocol=7";

/// Two upgrades an hour for each address.
fn config(limiter: Value) -> Config {
    let limit = json!({"max_requests": 2, "window_seconds": 3_600});
    Config::new()
        .with(json!({
            "net": {"proxy_protocol": "v1v2"},
            "rate_limiter": {
                "enabled": true, "trusted_proxies": [PROXY.to_string()],
                "websocket_rate_limit": limit,
            },
        }))
        .with(json!({"rate_limiter": limiter}))
}

fn v1(client: &str) -> Vec<u8> {
    format!("PROXY TCP4 {client} 198.51.100.1 40000 443\r\n").into()
}

fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).expect("it fits").to_be_bytes();
    let head = [&b"\r\n\r\n\0\r\nQUIT\n"[..], &[command, family], &length];
    [&head.concat(), rest].concat()
}

fn v2_of(client: [u8; 4]) -> Vec<u8> {
    v2(
        0x21,
        0x11,
        &[&client[..], &[198, 51, 100, 1, 0x9C, 0x40, 1, 0xBB]].concat(),
    )
}

fn opened(server: &Server, source: Ipv4Addr, header: &[u8]) -> Wire {
    let mut wire = Wire::connect_from(source, server.address);
    wire.sends(header);
    wire
}

/// The status with which an upgrade is answered.
#[track_caller]
fn upgrade(server: &Server, source: Ipv4Addr, header: &[u8], more_headers: &str) -> u16 {
    let mut wire = opened(server, source, header);
    wire.asks_upgrade(TARGET, more_headers);
    wire.reply().status
}

fn failures(server: &Server) -> f64 {
    let count = server.metric("sockudo_proxy_header_failures_total");
    count.expect("it is there from the start")
}

fn whom_a_trusted_proxy_names_has_limits_of_its_own(shards: usize) {
    let server = Server::start(&config(json!({})), shards);
    let [one, other] = [v1("192.0.2.1"), v1("192.0.2.2")];
    for (header, status) in [
        (&one, 101),
        (&v2_of([192, 0, 2, 1]), 101),
        (&one, 429),
        (&v2_of([192, 0, 2, 1]), 429),
        (&other, 101),
        // The proxy's own address, and each other one, is somebody else.
        (&v1("127.0.0.2"), 101),
        (&v1("192.0.2.3"), 101),
    ] {
        let text = String::from_utf8_lossy(header);
        assert_eq!(upgrade(&server, PROXY, header, ""), status, "{text}");
    }
    assert_eq!(failures(&server), 0.0);
}

fn a_header_in_pieces_and_with_what_follows_is_one(shards: usize) {
    let server = Server::start(&config(json!({})), shards);
    for header in [v1("192.0.2.1"), v2_of([192, 0, 2, 1])] {
        let mut wire = opened(&server, PROXY, b"");
        for byte in &header {
            wire.sends([*byte]);
        }
        wire.upgrades(TARGET, "");
        assert!(
            wire.frame()
                .payload
                .starts_with(b"{\"event\":\"pusher:connection_established")
        );
    }
    let mut wire = opened(&server, PROXY, b"");
    let request = b"GET /live HTTP/1.1\r\nHost: test\r\n\r\n";
    wire.sends([&v2_of([192, 0, 2, 1])[..], request, request].concat());
    for _ in 0..2 {
        assert_eq!(wire.reply().status, 200);
    }
}

fn a_proxy_s_own_connections_are_answered_and_counted_as_its_own(shards: usize) {
    let server = Server::start(&config(json!({})), shards);
    for header in [
        v2(0x20, 0, b""),
        v2(0x20, 0x11, &[1; 12]),
        v2(0x21, 0, b""),
        v2(0x21, 0x31, &[b'/'; 216]),
        b"PROXY UNKNOWN\r\n".to_vec(),
    ] {
        let mut wire = opened(&server, PROXY, &header);
        wire.sends("OPTIONS /up HTTP/1.0\r\n\r\n");
        assert_eq!(wire.reply().status, 200, "{header:?}");
    }
    let local = v2(0x20, 0, b"");
    let statuses = [(); 3].map(|()| upgrade(&server, PROXY, &local, ""));
    assert_eq!(statuses, [101, 101, 429]);
}

fn a_trusted_proxy_without_a_right_header_is_closed_without_a_word(shards: usize) {
    let server = Server::start(&config(json!({})), shards);
    let request = b"GET /up HTTP/1.1\r\nHost: test\r\n\r\n";
    let mut count = 0.0;
    for header in [
        &b""[..],
        b"PROXY TCP4 192.0.2.1\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.1 1 65536\r\n",
        &[b"PROXY UNKNOWN ", &[b'f'; 200][..]].concat(),
        &v2(0x31, 0x11, &[0; 12]),
        &v2(0x21, 0x11, &[0; 600]),
    ] {
        let mut wire = opened(&server, PROXY, &[header, request].concat());
        assert_eq!(wire.ends(), b"", "{}", String::from_utf8_lossy(header));
        count += 1.0;
    }
    eventually("the count of wrong headers", || {
        (failures(&server) == count).then_some(())
    });
}

fn a_header_is_bytes_like_any_from_somebody_who_is_not_trusted(shards: usize) {
    let server = Server::start(&config(json!({})), shards);
    assert_eq!(upgrade(&server, STRANGER, b"", ""), 101);
    for header in [v1("192.0.2.1"), v2_of([192, 0, 2, 1])] {
        let mut wire = opened(&server, STRANGER, &header);
        wire.sends("GET /up HTTP/1.1\r\nHost: test\r\n\r\n");
        is_no_http(wire);
    }
    // Nobody is asked for one where it is off, and nobody's is believed.
    let off = Server::start(
        &config(json!({})).with(json!({"net": {"proxy_protocol": "off"}})),
        shards,
    );
    assert_eq!(upgrade(&off, PROXY, b"", ""), 101);
    let wire = opened(&off, PROXY, &v1("192.0.2.1"));
    is_no_http(wire);
    assert_eq!(failures(&server), 0.0);
}

/// A version of HTTP that is not there, or no line of a request at all.
#[track_caller]
fn is_no_http(mut wire: Wire) {
    let status = wire.reply().status;
    assert!([400, 505].contains(&status), "{status}");
}

fn forwarding_headers_count_from_the_address_that_is_named(shards: usize) {
    let nearer = json!({
        "trusted_proxies": [PROXY.to_string(), "10.0.0.1"],
        "websocket_rate_limit": {"trust_hops": 1},
    });
    let server = Server::start(&config(nearer), shards);
    let forwarded = |client: &str| format!("X-Forwarded-For: {client}\r\n");
    // Behind it stands another proxy, which speaks HTTP and is trusted as well.
    let proxy = v1("10.0.0.1");
    let statuses = [(); 3].map(|()| upgrade(&server, PROXY, &proxy, &forwarded("192.0.2.1")));
    assert_eq!(statuses, [101, 101, 429]);
    assert_eq!(
        upgrade(&server, PROXY, &proxy, &forwarded("192.0.2.2")),
        101
    );
    // A client that came past it says what it likes.
    let client = v2_of([192, 0, 2, 9]);
    let statuses = ["192.0.2.3", "192.0.2.4", "192.0.2.5"]
        .map(|claimed| upgrade(&server, PROXY, &client, &forwarded(claimed)));
    assert_eq!(statuses, [101, 101, 429]);
}

#[test]
fn a_header_that_does_not_come_in_time_ends_the_connection_without_a_word() {
    let net = json!({"net": {"handshake_timeout_ms": 200}});
    let server = Server::start(&config(json!({})).with(net), 1);
    for header in [
        &b""[..],
        b"PROXY TCP4 192.0.2.1 ",
        &v2_of([192, 0, 2, 1])[..20],
    ] {
        assert_eq!(opened(&server, PROXY, header).ends(), b"");
    }
    eventually("the count of late headers", || {
        (failures(&server) == 3.0).then_some(())
    });
    // The request has its deadline as well, and an answer.
    let mut wire = opened(&server, PROXY, &v1("192.0.2.1"));
    wire.sends("GET /up HT");
    assert_eq!(wire.reply().status, 408);
}

#[test]
fn a_reload_asks_for_headers_of_new_connections_only() {
    let off = json!({"net": {"proxy_protocol": "off"}});
    let server = Server::start(&config(json!({})).with(off), 1);
    let mut before = opened(&server, PROXY, b"");
    let asks = "GET /live HTTP/1.1\r\nHost: test\r\n\r\n";
    before.sends(asks);
    assert_eq!(before.reply().status, 200);
    server.reloads(|json| json["net"]["proxy_protocol"] = json!("v1v2"));
    eventually("a header to be asked for", || {
        let mut wire = opened(&server, PROXY, b"");
        wire.sends(asks);
        wire.try_reply().is_none().then_some(())
    });
    before.sends(asks);
    assert_eq!(before.reply().status, 200);
}

on_one_and_three_shards! {
    whom_a_trusted_proxy_names_has_limits_of_its_own,
    a_header_in_pieces_and_with_what_follows_is_one,
    a_proxy_s_own_connections_are_answered_and_counted_as_its_own,
    a_trusted_proxy_without_a_right_header_is_closed_without_a_word,
    a_header_is_bytes_like_any_from_somebody_who_is_not_trusted,
    forwarding_headers_count_from_the_address_that_is_named,
}
