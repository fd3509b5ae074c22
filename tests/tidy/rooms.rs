//! What a room may name: the pure ones no world outside, and each one only rooms below it.

use crate::{
    Findings,
    source::{has_word, sources},
};

/// Rooms that decide and never do: no runtime, socket, file, clock or chance.
const PURE_ROOMS: [&str; 6] = ["protocol", "ws", "http", "connection", "channel", "cluster"];

const IMPURE: [&str; 16] = [
    "glommio",
    "tokio",
    "io_uring",
    "libc",
    "socket2",
    "std::net",
    "std::fs",
    "std::io",
    "std::thread",
    "std::process",
    "std::env",
    "Instant",
    "SystemTime",
    "getrandom",
    "rand::",
    "reqwest",
];

/// Impure names that only carry plain values: an address is data, a socket is not.
const PLAIN_VALUES: [&str; 5] = [
    "std::net::IpAddr",
    "std::net::Ipv4Addr",
    "std::net::Ipv6Addr",
    "std::net::Ipv6Addr",
    "std::net::SocketAddr",
];

/// What may stand where: by room, the rooms that it must not name.
const ARROWS: [(&str, &str); 10] = [
    (
        "protocol",
        "ws http channel connection cluster server bridge config",
    ),
    ("ws", "http channel connection cluster server bridge config"),
    ("http", "channel connection cluster server bridge config"),
    ("channel", "connection cluster server bridge config ws http"),
    ("connection", "server bridge config"),
    ("cluster", "server bridge config"),
    (
        "handover",
        "server bridge config ws channel connection cluster",
    ),
    ("config", "server bridge ws http channel connection cluster"),
    (
        "metrics",
        "server config ws http channel connection cluster",
    ),
    ("bridge", "ws http channel connection"),
];

#[test]
fn pure_rooms_name_no_runtime_socket_clock_or_chance() {
    let mut findings = Findings::default();
    for source in sources(&["src"]) {
        let room = source.room();
        if !PURE_ROOMS.contains(&&*room) {
            continue;
        }
        for (line, code) in source.ungrouped() {
            let plain = PLAIN_VALUES.iter().any(|value| code.contains(value));
            for impure in IMPURE {
                if has_word(&code, impure) && !(plain && impure == "std::net") {
                    let rule = format!("`{room}` is a pure room and may not name `{impure}`");
                    findings.add(&source.path, line, rule);
                }
            }
        }
    }
    findings.none();
}

#[test]
fn dependencies_between_rooms_point_one_way() {
    let mut findings = Findings::default();
    for source in sources(&["src"]) {
        let room = source.room();
        let Some((_, forbidden)) = ARROWS.iter().find(|(name, _)| *name == room) else {
            continue;
        };
        for (line, code) in source.ungrouped() {
            for other in forbidden.split(' ') {
                // The messages are what the bridge and the server share.
                let message = other == "bridge" && code.contains("bridge::message");
                if code.contains(&format!("crate::{other}::")) && !message {
                    let rule = format!("`{room}` may not depend on `{other}`");
                    findings.add(&source.path, line, rule);
                }
            }
        }
    }
    for source in sources(&["shards/src"]) {
        let is_wire = source.path.to_string_lossy().contains("shards/src/wire/");
        for (line, code) in source.product() {
            if !is_wire && has_word(code, "rustls") {
                let rule = "of `shards` only `wire` knows of rustls".to_owned();
                findings.add(&source.path, line, rule);
            }
            for word in [
                "sockudo",
                "pusher",
                "Pusher",
                "httparse",
                "tungstenite",
                "serde_json",
            ] {
                if has_word(code, word) {
                    findings.add(
                        &source.path,
                        line,
                        format!("`shards` knows nothing of {word}"),
                    );
                }
            }
        }
    }
    findings.none();
}
