//! Keep-alive, the RFC 6455 layer, and what bad input does to a socket.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::on_one_and_three_shards;
use crate::support::client::Client;
use crate::support::config::Config;
use crate::support::server::Server;
use crate::support::wire::{BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, frame, head};

const FIN: u8 = 0x80;

// P-018
fn a_ping_is_answered_whatever_its_data(shards: usize) {
    let server = Server::start(&Config::new(), shards);
    let mut alice = server.client("alice");
    for text in [
        r#"{"event":"pusher:ping"}"#,
        r#"{"event":"pusher:ping","data":{}}"#,
        r#"{"event":"pusher:ping","data":"{}"}"#,
        r#"{"event":"pusher:ping","data":""}"#,
        r#"{ "data" : {} , "event" : "pusher:ping" }"#,
        r#"{"event":"pusher\u003aping"}"#,
    ] {
        alice.wire.sends_text(text);
        // Exact bytes: older clients look at the text.
        assert_eq!(
            alice.wire.frame().payload,
            br#"{"event":"pusher:pong","data":"{}"}"#,
            "{text}"
        );
    }
}

// P-019
fn a_websocket_ping_is_answered_with_its_payload(shards: usize) {
    let server = Server::start(&Config::new(), shards);
    let mut alice = server.client("alice");
    for payload in [&b""[..], b"x", &[0xFF; 125]] {
        alice.wire.sends_frame(PING, payload);
        let pong = alice.wire.frame();
        assert_eq!((pong.opcode, &pong.payload[..]), (PONG, payload));
    }
    // An unsolicited pong is no question.
    alice.wire.sends_frame(PONG, b"hello");
    alice.sends(json!({"event": "pusher:pong", "data": {}}));
    alice.expects_pong();
}

// P-020
fn a_silent_socket_is_pinged_once_and_closed_with_4201_after_thirty_seconds(shards: usize) {
    let server = Server::start(&Config::new().with(json!({"activity_timeout": 1})), shards);
    let connected = Instant::now();
    let mut alice = server.client("alice");
    alice.expects_frame(json!({"event": "pusher:ping", "data": "{}"}));
    let quiet = connected.elapsed();
    assert!(
        quiet >= Duration::from_millis(950),
        "pinged after {quiet:?}"
    );
    assert!(quiet < Duration::from_secs(3), "pinged after {quiet:?}");
    // Counted from the connection: a stalled test reads the ping late, the server does not wait.
    let silent_until = connected + Duration::from_millis(30_500);
    while Instant::now() < silent_until {
        // In short waits: the kernel may end a long one seconds late.
        let frame = alice.next_within(Duration::from_millis(100));
        assert_eq!(frame, None, "one ping, no close yet");
    }
    alice.is_closed_with(4201);
    let waited = connected.elapsed();
    assert!(waited < Duration::from_secs(34), "closed after {waited:?}");
}

// P-020: bytes are no frame.
fn a_frame_that_trickles_in_is_no_sign_of_life(shards: usize) {
    // A message may take its time: it is the silence that ends the connection.
    let slow = json!({"activity_timeout": 1, "net": {"body_rate_min_bytes_per_s": 0}});
    let server = Server::start(&Config::new().with(slow), shards);
    let connected = Instant::now();
    let mut alice = server.client("alice");
    let frame = frame(0x80 | TEXT, &[b'x'; 1_000]);
    let mut bytes = frame.into_iter();
    let mut seen = Vec::new();
    let silent_until = connected + Duration::from_millis(30_500);
    while Instant::now() < silent_until {
        let byte = bytes.next().expect("more bytes than waits");
        alice.wire.sends([byte]);
        seen.extend(alice.next_within(Duration::from_millis(100)));
    }
    let ping = json!({"event": "pusher:ping", "data": "{}"});
    assert_eq!(seen, [ping], "one ping, no close yet");
    // The echo of the close would be a part of the frame: the end comes later than the word.
    alice.expects_error(4201);
    let waited = connected.elapsed();
    assert!(waited < Duration::from_secs(34), "closed after {waited:?}");
    assert_eq!(alice.wire.frame().close_code(), Some(4201));
}

// Some clients answer WebSocket pings only.
fn a_websocket_ping_goes_beside_the_servers_ping_and_its_pong_keeps_the_socket(shards: usize) {
    let server = Server::start(&Config::new().with(json!({"activity_timeout": 1})), shards);
    let mut alice = server.client("alice");
    for _ in 0..2 {
        let event = alice.wire.frame();
        assert_eq!(event.opcode, TEXT);
        assert_eq!(event.payload, br#"{"event":"pusher:ping","data":"{}"}"#);
        let ping = alice.wire.frame();
        assert_eq!((ping.opcode, &*ping.payload), (PING, &b""[..]));
        alice.wire.sends_frame(PONG, &ping.payload);
    }
}

// P-021
fn any_complete_frame_keeps_a_pinged_socket_alive(shards: usize) {
    let server = Server::start(&Config::new().with(json!({"activity_timeout": 1})), shards);
    type Answer = fn(&mut Client);
    let answers: [(&str, Answer); 5] = [
        ("pusher:pong", |client| {
            client.sends(json!({"event": "pusher:pong", "data": {}}))
        }),
        ("WebSocket pong", |client| {
            client.wire.sends_frame(PONG, b"")
        }),
        ("WebSocket ping", |client| {
            client.wire.sends_frame(PING, b"")
        }),
        ("unknown event", |client| {
            client.sends(json!({"event": "whatever"}))
        }),
        ("no JSON", |client| client.wire.sends_text("{")),
    ];
    let mut clients: Vec<(Client, Answer)> = answers
        .into_iter()
        .map(|(name, answer)| (server.client(name), answer))
        .collect();
    for cycle in 0..3 {
        for (client, answer) in &mut clients {
            let ping = loop {
                let frame = client.next();
                if frame["event"] != "pusher:error" {
                    break frame; // The answer to what is no JSON came before.
                }
            };
            assert_eq!(
                ping,
                json!({"event": "pusher:ping", "data": "{}"}),
                "{cycle}"
            );
            answer(client);
        }
    }
    for (client, _) in &mut clients {
        if client.name == "no JSON" {
            client.expects_error(Value::Null);
        }
        client.expects_pong();
    }
}

// P-022
fn a_talking_socket_is_not_pinged(shards: usize) {
    let server = Server::start(&Config::new().with(json!({"activity_timeout": 1})), shards);
    let mut alice = server.client("alice");
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(3_500) {
        alice.wire.sends_frame(PONG, b""); // Says something and asks nothing.
        assert_eq!(alice.next_within(Duration::from_millis(300)), None);
    }
}

// P-023, P-024
fn malformed_messages_are_errors_without_code_and_unknown_events_are_ignored(shards: usize) {
    let server = Server::start(&Config::new(), shards);
    let mut alice = server.client("alice");
    let deep = format!(
        r#"{{"event":"x","data":{}{}}}"#,
        "[".repeat(200),
        "]".repeat(200)
    );
    for text in [
        "not json",
        "",
        "[]",
        r#""x""#,
        "null",
        "42",
        "{}",
        r#"{"event":1}"#,
        r#"{"event":null}"#,
        r#"{"event":""}"#,
        r#"{"event":"pusher:ping""#,
        r#"{"event":"pusher:ping"} x"#,
        r#"{"event":"\ud800"}"#,
        r#"{"event":"\x"}"#,
        "{\"event\":\"a\nb\"}",
        &deep,
    ] {
        alice.wire.sends_text(text);
        let error = alice.expects_error(Value::Null);
        assert_eq!(error["data"]["message"], "Invalid message format", "{text}");
        assert_eq!(error.get("channel"), None);
    }
    for text in [
        r#"{"event":"pusher:foo"}"#,
        r#"{"event":"foo","channel":"x","data":{}}"#,
        r#"{"event":"pusher_internal:member_added","channel":"x"}"#,
        r#"{"event":"pusher:connection_established","data":"{}"}"#,
    ] {
        alice.wire.sends_text(text);
        alice.expects_pong();
    }
}

// P-025
fn a_binary_message_closes_with_1003(shards: usize) {
    let server = Server::start(&Config::new(), shards);
    let mut alice = server.client("alice");
    alice
        .wire
        .sends_frame(BINARY, br#"{"event":"pusher:ping"}"#);
    assert!(
        alice.wire.is_closed_with(1003).is_empty(),
        "an RFC close comes without error frame"
    );
}

// P-026
fn text_must_be_utf8_also_across_fragments(shards: usize) {
    let server = Server::start(&Config::new(), shards);
    for payload in [
        &b"\xFF"[..],
        b"\xC0\xAF",
        b"\xED\xA0\x80",
        b"\xF4\x90\x80\x80",
        b"\xC3",
    ] {
        let mut alice = server.client("alice");
        alice.wire.sends_frame(TEXT, payload);
        alice.wire.is_closed_with(1007);
    }
    let mut alice = server.client("alice");
    alice.wire.sends(frame(TEXT, b"\"\xC3"));
    alice.wire.sends(frame(FIN | CONTINUATION, b"\xFF\""));
    alice.wire.is_closed_with(1007);
    // A character split over two fragments is fine.
    let mut alice = server.client("alice");
    let message = r#"{"event":"pusher:ping","data":"é"}"#.as_bytes();
    let middle = message
        .iter()
        .position(|byte| *byte == 0xC3)
        .expect("é starts with it")
        + 1;
    alice.wire.sends(frame(TEXT, &message[..middle]));
    alice
        .wire
        .sends(frame(FIN | CONTINUATION, &message[middle..]));
    alice.expects_frame(json!({"event": "pusher:pong", "data": "{}"}));
}

// P-027
fn a_message_of_exactly_64_kib_is_accepted_and_one_byte_more_is_not(shards: usize) {
    const LIMIT: usize = 64 * 1024;
    let server = Server::start(&Config::new(), shards);
    let message = |bytes: usize| {
        let frame = r#"{"event":"pusher:ping","x":""}"#;
        frame.replace(
            r#""""#,
            &format!(r#""{}""#, "x".repeat(bytes - frame.len())),
        )
    };
    let pong = json!({"event": "pusher:pong", "data": "{}"});

    let mut alice = server.client("alice");
    for bytes in [LIMIT - 1, LIMIT, 125, 126, 127] {
        assert_eq!(message(bytes).len(), bytes);
        alice.wire.sends_text(&message(bytes));
        alice.expects_frame(pong.clone());
    }
    let whole = message(LIMIT);
    let (one, two) = whole.as_bytes().split_at(LIMIT / 3);
    alice.wire.sends(frame(TEXT, one));
    alice.wire.sends(frame(FIN | CONTINUATION, two));
    alice.expects_frame(pong);

    // Decided from the header: nothing of the payload is sent.
    alice.wire.sends(head(FIN | TEXT, 0x80, LIMIT as u64 + 1));
    alice.wire.is_closed_with(1009);

    let mut alice = server.client("alice");
    alice.wire.sends(frame(TEXT, one));
    alice.wire.sends(frame(CONTINUATION, two));
    alice.wire.sends(frame(FIN | CONTINUATION, b"x"));
    alice.wire.is_closed_with(1009);

    for length in [u64::from(u32::MAX), u64::MAX >> 1] {
        let mut alice = server.client("alice");
        alice.wire.sends(head(FIN | TEXT, 0x80, length));
        alice.wire.is_closed_with(1009);
    }
}

// P-028
fn frames_that_break_the_rfc_close_with_1002(shards: usize) {
    let server = Server::start(&Config::new(), shards);
    let mut unmasked = head(FIN | TEXT, 0, 2);
    unmasked.extend(b"{}");
    let fragmented = |second: Vec<u8>| [frame(TEXT, b"{"), second].concat();
    let cases = [
        ("unmasked text", unmasked),
        ("RSV1 without extension", frame(FIN | 0x40 | TEXT, b"{}")),
        ("RSV2", frame(FIN | 0x20 | TEXT, b"{}")),
        ("RSV3", frame(FIN | 0x10 | TEXT, b"{}")),
        ("reserved opcode 3", frame(FIN | 0x3, b"{}")),
        ("reserved opcode 11", frame(FIN | 0xB, b"")),
        ("reserved opcode 15", frame(FIN | 0xF, b"")),
        ("ping of 126 bytes", frame(FIN | PING, &[0; 126])),
        ("fragmented ping", frame(PING, b"")),
        (
            "close of 126 bytes",
            frame(FIN | CLOSE, &[&[3u8, 232][..], &[b'x'; 124]].concat()),
        ),
        (
            "continuation without start",
            frame(FIN | CONTINUATION, b"{}"),
        ),
        (
            "text inside a fragmented text",
            fragmented(frame(FIN | TEXT, b"}")),
        ),
        (
            "binary inside a fragmented text",
            fragmented(frame(FIN | BINARY, b"}")),
        ),
    ];
    for (name, bytes) in cases {
        let mut alice = server.client(name);
        alice.wire.sends(bytes);
        let texts = alice.wire.is_closed_with(1002);
        assert!(texts.is_empty(), "{name}: {texts:?}");
    }
}

// P-029
fn a_ping_between_fragments_is_answered_before_the_message_is_whole(shards: usize) {
    let server = Server::start(&Config::new(), shards);
    let mut alice = server.client("alice");
    alice.wire.sends(frame(TEXT, br#"{"event":"#));
    alice.wire.sends_frame(PING, b"now");
    let pong = alice.wire.frame();
    assert_eq!((pong.opcode, &pong.payload[..]), (PONG, &b"now"[..]));
    alice.wire.sends(frame(CONTINUATION, b""));
    alice
        .wire
        .sends(frame(FIN | CONTINUATION, br#""pusher:ping"}"#));
    alice.expects_frame(json!({"event": "pusher:pong", "data": "{}"}));
}

// P-030
fn a_close_is_echoed_when_its_code_may_be_sent(shards: usize) {
    let server = Server::start(&Config::new(), shards);
    let with_reason = |code: u16, reason: &[u8]| [&code.to_be_bytes()[..], reason].concat();
    for (payload, code) in [
        (with_reason(1000, b""), Some(1000)),
        (with_reason(1001, b"going away"), Some(1001)),
        (with_reason(3000, b""), Some(3000)),
        (with_reason(4999, "é".as_bytes()), Some(4999)),
        (Vec::new(), None),
        (vec![3], Some(1002)),
        (with_reason(0, b""), Some(1002)),
        (with_reason(999, b""), Some(1002)),
        (with_reason(1004, b""), Some(1002)),
        (with_reason(1005, b""), Some(1002)),
        (with_reason(1006, b""), Some(1002)),
        (with_reason(1015, b""), Some(1002)),
        (with_reason(1016, b""), Some(1002)),
        (with_reason(2999, b""), Some(1002)),
        (with_reason(5000, b""), Some(1002)),
        (with_reason(1000, b"\xFF"), Some(1007)),
    ] {
        let mut alice = server.client("alice");
        alice.wire.sends_frame(CLOSE, &payload);
        // What follows a close frame is discarded.
        alice.sends(json!({"event": "pusher:ping"}));
        let frames = alice.wire.frames_until_end();
        assert_eq!(frames.len(), 1, "{payload:?}: {frames:?}");
        assert_eq!(frames[0].opcode, CLOSE, "{payload:?}");
        assert_eq!(frames[0].close_code(), code, "{payload:?}");
    }
}

// P-031
fn the_data_of_pusher_events_may_be_a_string_that_holds_the_object(shards: usize) {
    let server = Server::start(&Config::new().with_users(), shards);
    let mut alice = server.client("alice");
    alice.sends(json!({"event": "pusher:subscribe", "data": r#"{"channel":"news"}"#}));
    alice.expects("pusher_internal:subscription_succeeded", "news");
    alice.sends(json!({"event": "pusher:unsubscribe", "data": r#"{"channel":"news"}"#}));
    alice.expects_pong();
    server.api().publishes("hello", "news", "x");
    alice.expects_nothing();
    let user_data = r#"{"id":"42"}"#;
    let auth = crate::support::sign::signin_auth(
        "app-key",
        "app-secret",
        &alice.socket_id.clone(),
        user_data,
    );
    let data = json!({"auth": auth, "user_data": user_data}).to_string();
    alice.sends(json!({"event": "pusher:signin", "data": data}));
    alice
        .expects_frame(json!({"event": "pusher:signin_success", "data": {"user_data": user_data}}));
}

// P-032
fn a_reader_that_stops_is_closed_and_costs_the_others_nothing(shards: usize) {
    const EVENTS: usize = 400;
    let server = Server::start(&Config::new(), shards);
    let mut slow = server.client("slow");
    socket2::SockRef::from(&slow.wire.stream)
        .set_recv_buffer_size(16 * 1024)
        .expect("the receive buffer can be made small");
    let mut quick = server.client("quick");
    slow.subscribes("news");
    quick.subscribes("news");
    let before = server.resident_bytes();
    let mut api = server.api();
    let data = "x".repeat(60 * 1024);
    for _ in 0..EVENTS {
        api.publishes("hello", "news", &data);
        quick.expects("hello", "news");
    }
    let grown = server.resident_bytes().saturating_sub(before);
    assert!(
        grown < 16 << 20,
        "24 MB were published and the server grew by {grown} bytes"
    );
    let received = slow.wire.ends().len();
    assert!(
        received < EVENTS * data.len() / 2,
        "the slow one was cut off: {received} bytes"
    );
    quick.expects_pong();
}

// P-033
fn a_close_that_is_not_answered_ends_within_five_seconds(shards: usize) {
    let server = Server::start(&Config::new(), shards);
    let mut alice = server.client("alice");
    alice.wire.sends_frame(BINARY, b"x");
    assert_eq!(alice.wire.frame().close_code(), Some(1003));
    let closed = Instant::now();
    assert_eq!(alice.wire.frames_until_end(), []);
    let waited = closed.elapsed();
    assert!(
        waited < Duration::from_secs(7),
        "the connection ended after {waited:?}"
    );
}

// P-034, P-052
fn a_reset_connection_is_cleaned_up_once(shards: usize) {
    let server = Server::start(&Config::new(), shards);
    let mut alice = server.client("alice");
    alice.joins("presence-room", "alice");
    let mut bob = server.client("bob");
    bob.joins("presence-room", "bob");
    alice.expects_member_added("presence-room", "bob");
    bob.wire.resets_on_drop();
    drop(bob);
    alice.expects_member_removed("presence-room", "bob");
    alice.expects_nothing();
}

// Section 3.4: nothing a stranger sends after the upgrade takes the server down.
fn garbage_after_the_upgrade_hurts_only_its_sender(shards: usize) {
    let server = Server::start(&Config::new(), shards);
    let mut bystander = server.client("bystander");
    bystander.subscribes("news");
    let mut seed = 0x2545_F491_4F6C_DD1Du64;
    for _ in 0..100 {
        let mut vandal = server.client("vandal");
        let bytes: Vec<u8> = (0..512)
            .map(|_| {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                seed.to_be_bytes()[3]
            })
            .collect();
        vandal.wire.sends(bytes);
    }
    bystander.expects_pong();
    server.api().publishes("hello", "news", "x");
    bystander.expects("hello", "news");
}

on_one_and_three_shards! {
    a_ping_is_answered_whatever_its_data,
    a_websocket_ping_is_answered_with_its_payload,
    a_silent_socket_is_pinged_once_and_closed_with_4201_after_thirty_seconds,
    a_frame_that_trickles_in_is_no_sign_of_life,
    a_websocket_ping_goes_beside_the_servers_ping_and_its_pong_keeps_the_socket,
    any_complete_frame_keeps_a_pinged_socket_alive,
    a_talking_socket_is_not_pinged,
    malformed_messages_are_errors_without_code_and_unknown_events_are_ignored,
    a_binary_message_closes_with_1003,
    text_must_be_utf8_also_across_fragments,
    a_message_of_exactly_64_kib_is_accepted_and_one_byte_more_is_not,
    frames_that_break_the_rfc_close_with_1002,
    a_ping_between_fragments_is_answered_before_the_message_is_whole,
    a_close_is_echoed_when_its_code_may_be_sent,
    the_data_of_pusher_events_may_be_a_string_that_holds_the_object,
    a_reader_that_stops_is_closed_and_costs_the_others_nothing,
    a_close_that_is_not_answered_ends_within_five_seconds,
    a_reset_connection_is_cleaned_up_once,
    garbage_after_the_upgrade_hurts_only_its_sender,
}
