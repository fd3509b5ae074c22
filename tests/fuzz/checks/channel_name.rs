//! Names of channels, events and sockets, and the paths that they stand in. The bytes: one name, or one path.
//!
//! Owns: the rules of names, told a second time and as naively as possible; that a path loses nothing of a name.
//! May depend on: `sockudo::protocol::{name, socket_id}`, `sockudo::http::route`.
//! Invariants: none.

use sockudo::http::route::Route;
use sockudo::protocol::name::{
    ChannelKind, ChannelName, check_client_event_name, check_event_name, is_user_id,
};
use sockudo::protocol::socket_id::{PART_MAX, SocketId, SocketIdError};

pub fn check(bytes: &[u8]) {
    let Ok(name) = std::str::from_utf8(bytes) else {
        return;
    };
    channel(name);
    kind(name);
    event(name);
    socket_id(name);
    in_a_path(name);
    path(name);
}

/// A name is accepted iff every character may stand in one and its length is within the limit.
fn channel(name: &str) {
    let user_id = name.strip_prefix("#server-to-user-");
    let is_good = match user_id {
        Some(id) => (1..=128).contains(&id.chars().count()) && !id.contains(char::is_control),
        None => !name.is_empty() && name.bytes().all(|byte| ALPHABET.contains(&byte)),
    };
    for (bytes_max, is_within) in [
        (name.len().saturating_sub(1), name.is_empty()),
        (name.len(), true),
        (name.len() + 1, true),
    ] {
        let parsed = ChannelName::parse(name, bytes_max);
        let expected = is_good && (is_within || user_id.is_some());
        assert_eq!(parsed.is_ok(), expected, "{name:?} of {bytes_max} bytes");
        if let Ok(parsed) = parsed {
            assert_eq!(parsed.as_str(), name);
            assert_eq!(parsed.user_id(), user_id);
            assert_eq!(parsed.kind(), ChannelKind::of(name));
        }
    }
    let characters = name.chars().count();
    assert_eq!(is_user_id(name), (1..=128).contains(&characters));
}

/// Each attribute of a kind is decided by the start of the name, independently of the others.
fn kind(name: &str) {
    let kind = ChannelKind::of(name);
    let starts = |prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
    let is_cache = starts(&[
        "cache-",
        "private-cache-",
        "private-encrypted-cache-",
        "presence-cache-",
    ]);
    let is_private = starts(&["private-"]);
    let is_presence = starts(&["presence-"]);
    let is_encrypted = starts(&["private-encrypted-"]);
    let is_user = starts(&["#server-to-user-"]);
    assert_eq!(kind.is_cache(), is_cache, "{name:?}");
    assert_eq!(kind.is_presence(), is_presence, "{name:?}");
    assert_eq!(kind.is_encrypted(), is_encrypted, "{name:?}");
    assert_eq!(kind.is_user(), is_user, "{name:?}");
    let needs_auth = is_private || is_presence;
    assert_eq!(kind.needs_auth(), needs_auth, "{name:?}");
    let allows_client_events = needs_auth && !is_encrypted;
    assert_eq!(kind.allows_client_events(), allows_client_events);
    assert_eq!(kind.counts_subscriptions(), !is_presence && !is_user);
    let label = ChannelKind::ALL_METRIC_LABELS[kind.metric_column()];
    assert_eq!(kind.metric_label(), label);
}

fn event(name: &str) {
    let is_reserved = name.starts_with("pusher:") || name.starts_with("pusher_internal:");
    let is_client_event = name.len() > "client-".len() && name.starts_with("client-");
    for bytes_max in [name.len().saturating_sub(1), name.len(), name.len() + 1] {
        let is_within = (1..=bytes_max).contains(&name.len());
        assert_eq!(
            check_event_name(name, bytes_max).is_ok(),
            is_within && !is_reserved,
            "{name:?} of {bytes_max} bytes"
        );
        assert_eq!(
            check_client_event_name(name, bytes_max).is_ok(),
            is_within && is_client_event,
            "{name:?} of {bytes_max} bytes"
        );
    }
}

/// An id of the right form is ours iff it is spelled as we print it.
fn socket_id(text: &str) {
    let parsed = SocketId::parse(text);
    let is_digits = |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let parts: Vec<&str> = text.split('.').collect();
    if parts.len() != 2 || !parts.iter().all(is_digits) {
        assert_eq!(parsed, Err(SocketIdError), "{text:?}");
        return;
    }
    let number = |part: &str| part.parse::<u128>().ok();
    let is_ours = parts
        .iter()
        .all(|part| number(part).is_some_and(|n| n <= PART_MAX.into() && n.to_string() == **part));
    match parsed {
        Ok(Some(id)) => {
            assert!(is_ours, "{text:?}");
            assert_eq!(id.to_string(), text);
            assert_eq!(SocketId::new(id.high(), id.low()), Some(id));
        }
        Ok(None) => assert!(!is_ours, "{text:?}"),
        Err(error) => panic!("{text:?}: {error}"),
    }
}

/// Every name but the empty one arrives through a path, decoded exactly once.
fn in_a_path(name: &str) {
    let escaped: String = name.bytes().map(|byte| format!("%{byte:02X}")).collect();
    for path in [
        format!("/app/{escaped}"),
        format!("/apps/{escaped}/channels/{escaped}"),
        format!("/apps/{escaped}/channels/{escaped}/users"),
        format!("/apps/{escaped}/users/{escaped}/terminate_connections"),
    ] {
        let found = match Route::of(&path, "") {
            Route::AppBadPath | Route::Unknown if name.is_empty() => continue,
            Route::App { key } => vec![key.into_owned()],
            Route::Channel { app, channel } | Route::Users { app, channel } => {
                vec![app.into_owned(), channel.text().expect("UTF-8").to_owned()]
            }
            Route::Terminate { app, user } => {
                vec![app.into_owned(), user.text().expect("UTF-8").to_owned()]
            }
            route => panic!("{path}: {route:?}"),
        };
        assert!(found.iter().all(|it| it == name), "{path}: {found:?}");
    }
}

/// A path means the same behind the prefix and where there is none; without it a WebSocket is not found.
fn path(path: &str) {
    let bare = Route::of(path, "");
    if !path.starts_with('/') {
        assert_eq!(bare, Route::Unknown, "{path:?}");
        return;
    }
    let prefixed = format!("{PREFIX}{path}");
    assert_eq!(Route::of(&prefixed, PREFIX), bare, "{path:?}");
    if !path.starts_with(PREFIX) {
        let without = Route::of(path, PREFIX);
        let is_socket = matches!(bare, Route::App { .. } | Route::AppBadPath);
        let expected = if is_socket { &Route::Unknown } else { &bare };
        assert_eq!(&without, expected, "{path:?}");
    }
    assert_eq!(bare.method().is_none(), bare == Route::Unknown, "{path:?}");
    let app = bare.api_app();
    assert!(app.is_none_or(|app| !app.is_empty() && path.starts_with("/apps/")));
}

const PREFIX: &str = "/realtime";
const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-=@,.;";
