//! Values of other names turned into the keys': units, words, options of Soketi's Redis library.
//!
//! Owns: one function per kind of value; each says what it did where that is not plain.
//! May depend on: `tree`, `names`, `kind`, the parser of JSON.
//! Invariants: what is said never holds a value that may be a secret.

use super::names::Converted;
use super::rows::GIBIBYTE;
use crate::config::error::Level;
use crate::config::json;
use crate::config::kind::{Kind, kilobytes};
use crate::config::settings::Setting;
use crate::config::tree::{Member, Node, Value};

pub(super) fn same(_: &Node) -> Converted {
    Converted::Same
}

/// What other versions bound an outbox by, brought within our bounds. Null is no bound of theirs.
pub(super) fn outbox_bytes(node: &Node) -> Converted {
    if node.value == Value::Null {
        return Converted::Nothing;
    }
    let said = |value: Option<u64>, text: String| Converted::Said {
        value: value.map(|bytes| Value::Text(bytes.to_string())),
        level: Level::Warning,
        text,
    };
    match whole(node) {
        None => Converted::Same,
        Some(0) => said(
            None,
            "0 has no effect: an outbox always has a bound, net.send_queue_bytes".to_owned(),
        ),
        Some(bytes) => match bytes.clamp(OUTBOX_BYTES_MIN, GIBIBYTE) {
            used if used == bytes => Converted::Same,
            used => said(Some(used), format!("{bytes} bytes: {used} is used")),
        },
    }
}

/// `DEBUG=true` turns debug mode on; nothing turns it off.
pub(super) fn only_true(node: &Node) -> Converted {
    match flag(node) {
        Some(true) => Converted::Text("true".to_owned()),
        Some(false) => Converted::Nothing,
        None => Converted::Refused {
            wanted: "true or false",
        },
    }
}

pub(super) fn disconnect_or_drop(node: &Node) -> Converted {
    match flag(node) {
        Some(true) => Converted::Text("disconnect".to_owned()),
        Some(false) => Converted::Text("drop_newest".to_owned()),
        None => Converted::Refused {
            wanted: "true or false",
        },
    }
}

/// The variable was documented but never read: what it holds besides `json` is anybody's guess.
pub(super) fn json_or_human(node: &Node) -> Converted {
    match &node.value {
        Value::Text(text) if text.trim().eq_ignore_ascii_case("json") => Converted::Same,
        _ => Converted::Text("human".to_owned()),
    }
}

/// The size of a message in other versions, of which an outbox must hold two.
pub(super) fn message_bytes(node: &Node) -> Converted {
    let said = |value: Option<u64>, text: String| Converted::Said {
        value: value.map(|bytes| Value::Text(kilobytes(bytes))),
        level: Level::Warning,
        text,
    };
    match whole(node) {
        None => Converted::Refused {
            wanted: "a whole number of bytes",
        },
        Some(0) => said(
            None,
            "0 has no effect: a message always has a bound, websocket.max_payload_kb".to_owned(),
        ),
        Some(bytes) if bytes > MESSAGE_BYTES_MAX => said(
            Some(MESSAGE_BYTES_MAX),
            format!("{bytes} bytes: {MESSAGE_BYTES_MAX} is used"),
        ),
        Some(bytes) => Converted::Text(kilobytes(bytes)),
    }
}

fn flag(node: &Node) -> Option<bool> {
    match Kind::Flag.parse(node) {
        Ok(Setting::Flag(flag)) => Some(flag),
        Ok(_) | Err(_) => None,
    }
}

/// Rounded up: none becomes zero, which means something else.
pub(super) fn milliseconds_as_seconds(node: &Node) -> Converted {
    let Some(milliseconds) = whole(node) else {
        return Converted::Refused {
            wanted: "a whole number of milliseconds >= 0 (Soketi's unit)",
        };
    };
    let seconds = milliseconds.div_ceil(1_000);
    Converted::Said {
        value: Some(Value::Text(seconds.to_string())),
        level: Level::Note,
        text: format!("{milliseconds} milliseconds, as Soketi counts, are {seconds} s here"),
    }
}

/// SQS polls for whole seconds.
pub(super) fn wait_seconds(node: &Node) -> Converted {
    match whole(node) {
        Some(milliseconds) => Converted::Text(milliseconds.div_ceil(1_000).to_string()),
        None => Converted::Refused {
            wanted: "a whole number of milliseconds >= 0 (Soketi's unit)",
        },
    }
}

/// -1 means "for ever" there; a day is as long as anyone should rely on an old copy.
pub(super) fn day_for_ever(node: &Node) -> Converted {
    match text_of(node) {
        Some("-1") => Converted::Said {
            value: Some(Value::Text("86400".to_owned())),
            level: Level::Note,
            text: "-1, for ever in Soketi, is a day here".to_owned(),
        },
        _ => Converted::Same,
    }
}

pub(super) fn bus_driver(node: &Node) -> Converted {
    match text_of(node) {
        Some(text) if text.eq_ignore_ascii_case("cluster") => Converted::Refused {
            wanted: "possible here: nodes do not look for each other by UDP; \
                     write \"local\" for one node, or \"redis\", \"redis-cluster\" or \"nats\" for more",
        },
        _ => Converted::Same,
    }
}

pub(super) fn limiter_driver(node: &Node) -> Converted {
    match text_of(node).map(str::to_ascii_lowercase).as_deref() {
        Some("local") => Converted::Text("memory".to_owned()),
        Some("cluster") => Converted::Said {
            value: Some(Value::Text("memory".to_owned())),
            level: Level::Warning,
            text: "\"cluster\" counts over nodes in Soketi; here each node counts for itself"
                .to_owned(),
        },
        _ => Converted::Same,
    }
}

/// Soketi's modes split a node into parts; ours say whether this is production.
pub(super) fn mode(node: &Node) -> Converted {
    match text_of(node) {
        Some("full") => Converted::Nothing,
        Some(part @ ("server" | "worker")) => Converted::Said {
            value: None,
            level: Level::Warning,
            text: format!("{part:?} has no effect: a node always does both, serving and sending"),
        },
        _ => Converted::Same,
    }
}

/// Soketi writes a process' number there.
pub(super) fn process_id(node: &Node) -> Converted {
    match &node.value {
        Value::Number(digits) if whole_digits(digits) => Converted::Said {
            value: None,
            level: Level::Warning,
            text: "has no effect: a number changes with each start; cluster.node_id names a node"
                .to_owned(),
        },
        _ => Converted::Same,
    }
}

/// `https://sqs/1/webhooks` is `https://sqs/1/` and the name of our queue.
pub(super) fn queue_prefix(node: &Node) -> Converted {
    let Some(url) = text_of(node).filter(|url| !url.is_empty()) else {
        return Converted::Nothing;
    };
    let Some((prefix, name)) = url.rsplit_once('/') else {
        return Converted::Same;
    };
    let value = Value::Text(format!("{prefix}/"));
    if name.trim_end_matches(".fifo") == "webhooks" {
        return Converted::Text(format!("{prefix}/"));
    }
    Converted::Said {
        value: Some(value),
        level: Level::Warning,
        text: format!("the queue is called \"webhooks\" here, not {name:?}"),
    }
}

/// A certificate turns TLS on in Soketi; passing that over would serve in the clear.
pub(super) fn tls_where_set(node: &Node) -> Converted {
    match text_of(node) {
        None | Some("") => Converted::Nothing,
        Some(_) => Converted::Text("true".to_owned()),
    }
}

pub(super) fn soketi_layout(node: &Node) -> Converted {
    match node.value {
        Value::Null => Converted::Nothing,
        _ => Converted::Text("soketi".to_owned()),
    }
}

/// A variable's list, as JSON or between commas.
pub(super) fn json_or_list(node: &Node) -> Converted {
    match text_of(node) {
        Some(text) if text.starts_with('[') => match json::parse(text) {
            Ok(list) => Converted::Value(list.value),
            Err(_) => Converted::Refused {
                wanted: "a JSON list",
            },
        },
        _ => Converted::Same,
    }
}

/// Options of ioredis, as an object or as JSON: what makes a URL, and a list of the rest.
pub(super) fn redis_url(node: &Node) -> Converted {
    let parsed: Node;
    let members = match &node.value {
        Value::Object(members) => members,
        Value::Null => return Converted::Nothing,
        Value::Text(text) if text.trim().is_empty() => return Converted::Nothing,
        Value::Text(text) => match json::parse(text) {
            Ok(
                node @ Node {
                    value: Value::Object(_),
                    ..
                },
            ) => {
                parsed = node;
                let Value::Object(members) = &parsed.value else {
                    unreachable!("it was matched above")
                };
                members
            }
            Ok(_) | Err(_) => return NOT_OPTIONS,
        },
        Value::Flag(_) | Value::Number(_) | Value::List(_) => return NOT_OPTIONS,
    };
    let member = |name: &str| members.iter().find(|member| member.name == name);
    let text = |name: &str| member(name).and_then(|member| text_of(&member.node));
    let is_used = |member: &&Member| URL_PARTS.contains(&member.name.as_str());
    let left = members
        .iter()
        .filter(|member| !is_used(member) && member.node.value != Value::Null);
    let left: Vec<&str> = left.map(|member| member.name.as_str()).collect();
    let Some(host) = text("host") else {
        return if members.is_empty() {
            Converted::Nothing
        } else {
            Converted::Section
        };
    };
    let value = Value::Text(redis_url_of(host, member, text));
    if left.is_empty() {
        return Converted::Value(value);
    }
    Converted::Said {
        value: Some(value),
        level: Level::Warning,
        text: format!("no effect: {}", left.join(", ")),
    }
}

fn redis_url_of<'a>(
    host: &str,
    member: impl Fn(&str) -> Option<&'a Member>,
    text: impl Fn(&str) -> Option<&'a str>,
) -> String {
    let has_tls = member("tls")
        .is_some_and(|tls| !matches!(tls.node.value, Value::Null | Value::Flag(false)));
    let scheme = if has_tls { "rediss" } else { "redis" };
    let user = match (text("username"), text("password")) {
        (None, None) => String::new(),
        (user, password) => format!(
            "{}:{}@",
            escaped(user.unwrap_or_default()),
            escaped(password.unwrap_or_default())
        ),
    };
    let host = if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    };
    let port = text("port").unwrap_or("6379");
    let database = text("db").map_or_else(String::new, |db| format!("/{db}"));
    format!("{scheme}://{user}{host}:{port}{database}")
}

/// For the part of a URL before its `@`.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// A text, or a number's digits.
fn text_of(node: &Node) -> Option<&str> {
    match &node.value {
        Value::Text(text) | Value::Number(text) => Some(text.trim()),
        Value::Null | Value::Flag(_) | Value::List(_) | Value::Object(_) => None,
    }
}

fn whole_digits(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

fn whole(node: &Node) -> Option<u64> {
    text_of(node)?.parse().ok()
}

/// The least that `net.send_queue_bytes` may be.
const OUTBOX_BYTES_MIN: u64 = 4096;
/// Half of the most.
const MESSAGE_BYTES_MAX: u64 = GIBIBYTE / 2;

const URL_PARTS: &[&str] = &["host", "port", "username", "password", "db", "tls"];

const NOT_OPTIONS: Converted = Converted::Refused {
    wanted: "an object of options such as {\"host\": …}",
};
