//! Other names of keys: older and later spellings, and variables that need a translation.
//!
//! Owns: which name stands for which key, and how its value is turned into the key's.
//! May depend on: `tree`, `error`.
//! Invariants: an alias ranks below its key in the same kind of source, unless it says otherwise.

use crate::config::error::Level;
use crate::config::tree::{Node, Value};

/// Another name of a key in a file.
#[derive(Debug)]
pub struct Alias {
    pub path: &'static str,
    pub to: &'static str,
    pub(in crate::config) convert: fn(&Node) -> Converted,
}

/// A variable whose value is not yet the key's.
#[derive(Debug)]
pub(in crate::config) struct Translation {
    pub variable: &'static str,
    pub to: &'static str,
    pub(in crate::config) rank: TranslationRank,
    pub(in crate::config) convert: fn(&Node) -> Converted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) enum TranslationRank {
    /// Below the key's own variables.
    Low,
    /// Above everything but a flag.
    Top,
}

/// What became of a value.
#[derive(Debug)]
pub(in crate::config) enum Converted {
    Same,
    /// The key's value instead.
    Text(String),
    Value(Value),
    /// The key's value instead, if any, and what the operator should know of it.
    Said {
        value: Option<Value>,
        level: Level,
        text: String,
    },
    /// No value: an object whose members have names of their own.
    Section,
    /// Nothing is said about the key.
    Nothing,
    Refused {
        wanted: &'static str,
    },
}

impl Alias {
    pub(in crate::config) const fn same(path: &'static str, to: &'static str) -> Self {
        Self {
            path,
            to,
            convert: same,
        }
    }
}

pub(in crate::config) const SERVER: &[Alias] = &[
    Alias::same("websocket_max_payload_kb", "websocket.max_payload_kb"),
    Alias::same("max_connections", "admission.max_connections"),
    Alias::same("cluster_health.enabled", "adapter.cluster_health.enabled"),
    Alias::same(
        "cluster_health.heartbeat_interval_ms",
        "adapter.cluster_health.heartbeat_interval_ms",
    ),
    Alias::same(
        "cluster_health.node_timeout_ms",
        "adapter.cluster_health.node_timeout_ms",
    ),
    Alias::same(
        "cluster_health.cleanup_interval_ms",
        "adapter.cluster_health.cleanup_interval_ms",
    ),
    Alias::same(
        "database.redis.cluster.nodes",
        "database.redis.cluster_nodes",
    ),
    Alias {
        path: "websocket.disconnect_on_buffer_full",
        to: "net.slow_consumer",
        convert: disconnect_or_drop,
    },
    Alias {
        path: "websocket.max_bytes",
        to: "net.send_queue_bytes",
        convert: unless_null,
    },
    Alias {
        path: "websocket.max_backpressure",
        to: "net.send_queue_bytes",
        convert: unless_null,
    },
    Alias {
        path: "websocket.max_message_size",
        to: "websocket.max_payload_kb",
        convert: bytes_to_kilobytes,
    },
    Alias {
        path: "websocket.max_frame_size",
        to: "websocket.max_payload_kb",
        convert: bytes_to_kilobytes,
    },
];

pub(in crate::config) const TRANSLATIONS: &[Translation] = &[
    Translation {
        variable: "DEBUG",
        to: "debug",
        rank: TranslationRank::Top,
        convert: only_true,
    },
    Translation {
        variable: "RUST_LOG",
        to: "logging.level",
        rank: TranslationRank::Top,
        convert: same,
    },
    Translation {
        variable: "LOG_FORMAT",
        to: "logging.format",
        rank: TranslationRank::Low,
        convert: json_or_human,
    },
    Translation {
        variable: "WEBSOCKET_DISCONNECT_ON_BUFFER_FULL",
        to: "net.slow_consumer",
        rank: TranslationRank::Low,
        convert: disconnect_or_drop,
    },
    Translation {
        variable: "WEBSOCKET_MAX_BYTES",
        to: "net.send_queue_bytes",
        rank: TranslationRank::Low,
        convert: same,
    },
    Translation {
        variable: "WEBSOCKET_MAX_BACKPRESSURE",
        to: "net.send_queue_bytes",
        rank: TranslationRank::Low,
        convert: same,
    },
    Translation {
        variable: "WEBSOCKET_MAX_MESSAGE_SIZE",
        to: "websocket.max_payload_kb",
        rank: TranslationRank::Low,
        convert: bytes_to_kilobytes,
    },
    Translation {
        variable: "WEBSOCKET_MAX_FRAME_SIZE",
        to: "websocket.max_payload_kb",
        rank: TranslationRank::Low,
        convert: bytes_to_kilobytes,
    },
];

/// Keys of which two aliases may speak at once: the lower value holds.
pub(in crate::config) const LOWEST_ALIAS_HOLDS: &[&str] =
    &["websocket.max_payload_kb", "net.send_queue_bytes"];

fn same(_: &Node) -> Converted {
    Converted::Same
}

fn unless_null(node: &Node) -> Converted {
    if node.value == Value::Null {
        Converted::Nothing
    } else {
        Converted::Same
    }
}

/// `DEBUG=true` turns debug mode on; nothing turns it off.
fn only_true(node: &Node) -> Converted {
    match flag(node) {
        Some(true) => Converted::Text("true".to_owned()),
        Some(false) => Converted::Nothing,
        None => Converted::Refused {
            wanted: "true or false",
        },
    }
}

fn disconnect_or_drop(node: &Node) -> Converted {
    match flag(node) {
        Some(true) => Converted::Text("disconnect".to_owned()),
        Some(false) => Converted::Text("drop_newest".to_owned()),
        None => Converted::Refused {
            wanted: "true or false",
        },
    }
}

/// The variable was documented but never read: what it holds besides `json` is anybody's guess.
fn json_or_human(node: &Node) -> Converted {
    match &node.value {
        Value::Text(text) if text.trim().eq_ignore_ascii_case("json") => Converted::Same,
        _ => Converted::Text("human".to_owned()),
    }
}

fn bytes_to_kilobytes(node: &Node) -> Converted {
    let bytes = match &node.value {
        Value::Number(digits) | Value::Text(digits) => digits.trim().parse::<u64>().ok(),
        _ => None,
    };
    match bytes.filter(|bytes| *bytes > 0) {
        Some(bytes) => Converted::Text(crate::config::kind::kilobytes(bytes)),
        None => Converted::Refused {
            wanted: "a whole number of bytes >= 1",
        },
    }
}

fn flag(node: &Node) -> Option<bool> {
    match crate::config::kind::Kind::Flag.parse(node) {
        Ok(crate::config::settings::Setting::Flag(flag)) => Some(flag),
        Ok(_) | Err(_) => None,
    }
}
