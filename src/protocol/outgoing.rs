//! Data path. What the server says: the JSON text of each frame, appended to a buffer.
//!
//! Owns: the exact bytes of every server frame; golden rows below are compared as bytes, since
//! clients parse bytes.
//! May depend on: `json`, `code`, `socket_id`.
//! Invariants: no whitespace is emitted; an absent `channel` or `user_id` is left out, never
//! `null`; internal events and application events carry `data` as a string, the four error and
//! sign-in frames as an object.

use std::ops::Range;

use crate::protocol::code::SubscriptionRefusal;
use crate::protocol::json::{
    self, compact::compact_into_string_token, write_escaped, write_json_string, write_u64,
};
use crate::protocol::socket_id::SocketId;

/// The first frame of every accepted connection. pusher-js throws when `activity_timeout` is
/// missing or 0.
pub fn connection_established(out: &mut Vec<u8>, socket_id: SocketId, activity_timeout_s: u64) {
    out.extend_from_slice(br#"{"event":"pusher:connection_established","data":"{\"socket_id\":\""#);
    write_u64(out, socket_id.high());
    out.push(b'.');
    write_u64(out, socket_id.low());
    out.extend_from_slice(br#"\",\"activity_timeout\":"#);
    write_u64(out, activity_timeout_s);
    out.extend_from_slice(br#"}"}"#);
}

/// `pusher:error`. `code` `None` is JSON's `null`; `channel` only when the error concerns one.
pub fn error(out: &mut Vec<u8>, code: Option<u16>, message: &str, channel: Option<&str>) {
    out.extend_from_slice(br#"{"event":"pusher:error""#);
    if let Some(channel) = channel {
        write_channel(out, json::cut(channel, CHANNEL_ECHO_BYTES_MAX));
    }
    out.extend_from_slice(br#","data":{"code":"#);
    match code {
        Some(code) => write_u64(out, code.into()),
        None => out.extend_from_slice(b"null"),
    }
    out.extend_from_slice(br#","message":"#);
    write_json_string(out, message);
    out.extend_from_slice(b"}}");
}

/// The server's question whether the client lives.
pub fn ping(out: &mut Vec<u8>) {
    out.extend_from_slice(PING);
}

/// The answer to a client's `pusher:ping`.
pub fn pong(out: &mut Vec<u8>) {
    out.extend_from_slice(PONG);
}

/// `presence` is the inner JSON that `presence_snapshot` writes; other channels have none.
pub fn subscription_succeeded(out: &mut Vec<u8>, channel: &str, presence: Option<&str>) {
    out.extend_from_slice(br#"{"event":"pusher_internal:subscription_succeeded""#);
    write_channel(out, channel);
    out.extend_from_slice(br#","data":"#);
    write_json_string(out, presence.unwrap_or("{}"));
    out.push(b'}');
}

/// The inner JSON of a presence channel's `subscription_succeeded`: `(user id, user_info JSON)` of
/// each member once, the subscriber included.
pub fn presence_snapshot<'a>(
    out: &mut Vec<u8>,
    members: impl ExactSizeIterator<Item = (&'a str, &'a str)> + Clone,
) {
    out.extend_from_slice(br#"{"presence":{"count":"#);
    write_u64(out, members.len() as u64);
    out.extend_from_slice(br#","ids":["#);
    write_list(out, members.clone(), |out, (user_id, _)| {
        write_json_string(out, user_id)
    });
    out.extend_from_slice(br#"],"hash":{"#);
    write_list(out, members, |out, (user_id, user_info)| {
        write_json_string(out, user_id);
        out.push(b':');
        out.extend_from_slice(user_info.as_bytes());
    });
    out.extend_from_slice(b"}}}");
}

/// `user_info` is compact JSON, `null` when the member gave none.
pub fn member_added(out: &mut Vec<u8>, channel: &str, user_id: &str, user_info: &str) {
    out.extend_from_slice(br#"{"event":"pusher_internal:member_added""#);
    write_channel(out, channel);
    out.extend_from_slice(br#","data":"{\"user_id\":"#);
    write_string_in_string(out, user_id);
    out.extend_from_slice(br#",\"user_info\":"#);
    write_escaped(out, user_info);
    out.extend_from_slice(br#"}"}"#);
}

pub fn member_removed(out: &mut Vec<u8>, channel: &str, user_id: &str) {
    out.extend_from_slice(br#"{"event":"pusher_internal:member_removed""#);
    write_channel(out, channel);
    out.extend_from_slice(br#","data":"{\"user_id\":"#);
    write_string_in_string(out, user_id);
    out.extend_from_slice(br#"}"}"#);
}

pub fn subscription_count(out: &mut Vec<u8>, channel: &str, count: u64) {
    out.extend_from_slice(br#"{"event":"pusher_internal:subscription_count""#);
    write_channel(out, channel);
    out.extend_from_slice(br#","data":"{\"subscription_count\":"#);
    write_u64(out, count);
    out.extend_from_slice(br#"}"}"#);
}

/// No `data`: pusher-js hands `undefined` to whoever is bound, as with the other servers.
pub fn cache_miss(out: &mut Vec<u8>, channel: &str) {
    out.extend_from_slice(br#"{"event":"pusher:cache_miss""#);
    write_channel(out, channel);
    out.push(b'}');
}

/// `user_data` is echoed as the client sent it.
pub fn signin_success(out: &mut Vec<u8>, user_data: &str) {
    out.extend_from_slice(br#"{"event":"pusher:signin_success","data":{"user_data":"#);
    write_json_string(out, user_data);
    out.extend_from_slice(b"}}");
}

/// Who of the watched users is there and who is not. Writes nothing when both lists are empty.
pub fn watchlist_events(out: &mut Vec<u8>, online: &[&str], offline: &[&str]) {
    let lists = [("online", online), ("offline", offline)];
    let lists = lists
        .into_iter()
        .filter(|(_, user_ids)| !user_ids.is_empty());
    if lists.clone().next().is_none() {
        return;
    }
    out.extend_from_slice(br#"{"event":"pusher_internal:watchlist_events","data":"{\"events\":["#);
    write_list(out, lists, |out, (name, user_ids)| {
        out.extend_from_slice(br#"{\"name\":\""#);
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(br#"\",\"user_ids\":["#);
        write_list(out, user_ids.iter(), |out, user_id| {
            write_string_in_string(out, user_id)
        });
        out.extend_from_slice(b"]}");
    });
    out.extend_from_slice(br#"]}"}"#);
}

/// `channel` is echoed as received, cut when a client sent something absurd.
pub fn subscription_error(out: &mut Vec<u8>, channel: &str, refusal: SubscriptionRefusal) {
    let (kind, text, status) = refusal.parts();
    out.extend_from_slice(br#"{"event":"pusher:subscription_error""#);
    write_channel(out, json::cut(channel, CHANNEL_ECHO_BYTES_MAX));
    out.extend_from_slice(br#","data":{"type":"#);
    write_json_string(out, kind);
    out.extend_from_slice(br#","error":"#);
    write_json_string(out, text);
    out.extend_from_slice(br#","status":"#);
    write_u64(out, status.into());
    out.extend_from_slice(b"}}");
}

/// An application's event. `event_token` and `data_token` are validated JSON string tokens, copied
/// verbatim; `user_id` only for client events on presence channels.
///
/// Per event, not per subscriber: four copies, no allocation when `out` has room.
pub fn event(
    out: &mut Vec<u8>,
    event_token: &str,
    channel: &str,
    data_token: &str,
    user_id: Option<&str>,
) {
    out.reserve(64 + event_token.len() + channel.len() + data_token.len());
    out.extend_from_slice(br#"{"event":"#);
    out.extend_from_slice(event_token.as_bytes());
    write_channel(out, channel);
    out.extend_from_slice(br#","data":"#);
    out.extend_from_slice(data_token.as_bytes());
    if let Some(user_id) = user_id {
        out.extend_from_slice(br#","user_id":"#);
        write_json_string(out, user_id);
    }
    out.push(b'}');
}

/// An event that was kept as JSON somewhere, as one of this channel: its name and data as they are
/// written there, data that is no string as its JSON. `None`, with nothing of use appended, where it
/// is no event.
pub fn stored_event(out: &mut Vec<u8>, text: &str, channel: &str) -> Option<()> {
    let (mut name, mut data) = (None, None);
    json::for_each_member(text, |key, value| {
        if key.is("event") {
            name = value.as_text();
        } else if key.is("data") {
            data = Some(value);
        }
    })
    .ok()?;
    let name = name?;
    let mut token = Vec::new();
    let data = match data {
        Some(data) => match data.as_text() {
            Some(text) => text.token(),
            None => {
                compact_into_string_token(data.raw(), &mut token);
                std::str::from_utf8(&token).ok()?
            }
        },
        None => "\"null\"",
    };
    event(out, name.token(), channel, data, None);
    Some(())
}

/// Where the JSON token of `data` stands in an event's text, which another node may have made.
/// `None` where it is not such a text.
pub fn data_of(text: &str) -> Option<Range<usize>> {
    let mut data = None;
    json::for_each_member(text, |key, value| {
        if key.is("data") {
            // What is shown is a part of the text.
            let start = value.raw().as_ptr().addr() - text.as_ptr().addr();
            data = Some(start..start + value.raw().len());
        }
    })
    .ok()?;
    data
}

/// Appends the items with commas between.
pub(crate) fn write_list<T>(
    out: &mut Vec<u8>,
    items: impl Iterator<Item = T>,
    mut write: impl FnMut(&mut Vec<u8>, T),
) {
    for (index, item) in items.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write(out, item);
    }
}

fn write_channel(out: &mut Vec<u8>, channel: &str) {
    out.extend_from_slice(br#","channel":"#);
    write_json_string(out, channel);
}

/// A string token inside a string token: escaped twice.
fn write_string_in_string(out: &mut Vec<u8>, text: &str) {
    let mut token = Vec::with_capacity(text.len() + 2);
    write_json_string(&mut token, text);
    match std::str::from_utf8(&token) {
        Ok(token) => write_escaped(out, token),
        Err(_) => unreachable!("a token written from text is text"),
    }
}

pub const PING: &[u8] = br#"{"event":"pusher:ping","data":"{}"}"#;
pub const PONG: &[u8] = br#"{"event":"pusher:pong","data":"{}"}"#;
const CHANNEL_ECHO_BYTES_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).expect("frames are UTF-8")
    }

    fn inner(frame: &str) -> Value {
        let frame: Value = serde_json::from_str(frame).expect(frame);
        serde_json::from_str(frame["data"].as_str().expect("data is a string"))
            .expect("data holds JSON")
    }

    #[test]
    fn each_frame_has_exactly_the_bytes_of_the_contract() {
        let socket_id = SocketId::new(1234, 5678).expect("in range");
        let members = [("7", r#"{"name":"Bob"}"#), ("10", r#"{"name":"Ann"}"#)];
        let presence = written(|out| presence_snapshot(out, members.iter().copied()));
        for (frame, golden) in [
            (
                written(|out| connection_established(out, socket_id, 120)),
                r#"{"event":"pusher:connection_established","data":"{\"socket_id\":\"1234.5678\",\"activity_timeout\":120}"}"#,
            ),
            (
                written(|out| {
                    error(
                        out,
                        Some(4301),
                        "Client event rejected due to rate limit",
                        Some("private-x"),
                    )
                }),
                r#"{"event":"pusher:error","channel":"private-x","data":{"code":4301,"message":"Client event rejected due to rate limit"}}"#,
            ),
            (
                written(|out| error(out, None, "Invalid message format", None)),
                r#"{"event":"pusher:error","data":{"code":null,"message":"Invalid message format"}}"#,
            ),
            (
                written(|out| error(out, Some(4302), crate::protocol::code::WATCHLIST_CUT, None)),
                r#"{"event":"pusher:error","data":{"code":4302,"message":"Watchlist limit exceeded. Only the first 100 user IDs are accepted."}}"#,
            ),
            (written(ping), r#"{"event":"pusher:ping","data":"{}"}"#),
            (written(pong), r#"{"event":"pusher:pong","data":"{}"}"#),
            (
                written(|out| subscription_succeeded(out, "my-channel", None)),
                r#"{"event":"pusher_internal:subscription_succeeded","channel":"my-channel","data":"{}"}"#,
            ),
            (
                written(|out| subscription_succeeded(out, "presence-foobar", Some(&presence))),
                r#"{"event":"pusher_internal:subscription_succeeded","channel":"presence-foobar","data":"{\"presence\":{\"count\":2,\"ids\":[\"7\",\"10\"],\"hash\":{\"7\":{\"name\":\"Bob\"},\"10\":{\"name\":\"Ann\"}}}}"}"#,
            ),
            (
                written(|out| member_added(out, "presence-foobar", "10", r#"{"name":"Ann"}"#)),
                r#"{"event":"pusher_internal:member_added","channel":"presence-foobar","data":"{\"user_id\":\"10\",\"user_info\":{\"name\":\"Ann\"}}"}"#,
            ),
            (
                written(|out| member_removed(out, "presence-foobar", "10")),
                r#"{"event":"pusher_internal:member_removed","channel":"presence-foobar","data":"{\"user_id\":\"10\"}"}"#,
            ),
            (
                written(|out| subscription_count(out, "my-channel", 3)),
                r#"{"event":"pusher_internal:subscription_count","channel":"my-channel","data":"{\"subscription_count\":3}"}"#,
            ),
            (
                written(|out| cache_miss(out, "cache-foo")),
                r#"{"event":"pusher:cache_miss","channel":"cache-foo"}"#,
            ),
            (
                written(|out| signin_success(out, r#"{"id":"42","watchlist":["7","8"]}"#)),
                r#"{"event":"pusher:signin_success","data":{"user_data":"{\"id\":\"42\",\"watchlist\":[\"7\",\"8\"]}"}}"#,
            ),
            (
                written(|out| watchlist_events(out, &["7"], &["8"])),
                r#"{"event":"pusher_internal:watchlist_events","data":"{\"events\":[{\"name\":\"online\",\"user_ids\":[\"7\"]},{\"name\":\"offline\",\"user_ids\":[\"8\"]}]}"}"#,
            ),
            (
                written(|out| watchlist_events(out, &[], &["8", "9"])),
                r#"{"event":"pusher_internal:watchlist_events","data":"{\"events\":[{\"name\":\"offline\",\"user_ids\":[\"8\",\"9\"]}]}"}"#,
            ),
            (written(|out| watchlist_events(out, &[], &[])), ""),
            (
                written(|out| {
                    subscription_error(out, "private-foobar", SubscriptionRefusal::Unauthorized)
                }),
                r#"{"event":"pusher:subscription_error","channel":"private-foobar","data":{"type":"AuthError","error":"The connection is unauthorized.","status":401}}"#,
            ),
            (
                written(|out| {
                    event(
                        out,
                        r#""my-event""#,
                        "my-channel",
                        r#""{\"hello\":\"world\"}""#,
                        None,
                    )
                }),
                r#"{"event":"my-event","channel":"my-channel","data":"{\"hello\":\"world\"}"}"#,
            ),
            (
                written(|out| {
                    event(
                        out,
                        r#""client-typing""#,
                        "presence-foobar",
                        r#""{\"on\":true}""#,
                        Some("10"),
                    )
                }),
                r#"{"event":"client-typing","channel":"presence-foobar","data":"{\"on\":true}","user_id":"10"}"#,
            ),
        ] {
            assert_eq!(frame, golden);
        }
    }

    #[test]
    fn an_empty_channel_has_an_empty_snapshot() {
        let presence = written(|out| presence_snapshot(out, [].iter().copied()));
        assert_eq!(presence, r#"{"presence":{"count":0,"ids":[],"hash":{}}}"#);
    }

    #[test]
    fn an_absurd_channel_name_is_echoed_cut() {
        for (characters, echoed_bytes) in [(127, 254), (128, 256), (129, 256), (10_000, 256)] {
            let channel = "é".repeat(characters);
            for frame in [
                written(|out| {
                    subscription_error(out, &channel, SubscriptionRefusal::InvalidChannel)
                }),
                written(|out| error(out, Some(4301), "x", Some(&channel))),
            ] {
                let frame: Value = serde_json::from_str(&frame).expect("JSON");
                let echoed = frame["channel"].as_str().expect("a string");
                assert_eq!(echoed.len(), echoed_bytes);
                assert!(channel.starts_with(echoed));
            }
        }
    }

    proptest! {
        #[test]
        fn any_user_id_and_info_survive_two_levels_of_quoting(
            user_id in any::<String>(),
            text in any::<String>(),
        ) {
            let info = json!({ "n": text });
            let info_text = info.to_string();
            let members = [(user_id.as_str(), info_text.as_str())];
            let presence = written(|out| presence_snapshot(out, members.iter().copied()));
            let hash = json!({ user_id.as_str(): &info });
            for (frame, expected) in [
                (
                    written(|out| member_added(out, "presence-a", &user_id, &info_text)),
                    json!({ "user_id": &user_id, "user_info": &info }),
                ),
                (
                    written(|out| member_removed(out, "presence-a", &user_id)),
                    json!({ "user_id": &user_id }),
                ),
                (
                    written(|out| watchlist_events(out, &[&user_id], &[])),
                    json!({ "events": [{ "name": "online", "user_ids": [&user_id] }] }),
                ),
                (
                    written(|out| subscription_succeeded(out, "presence-a", Some(&presence))),
                    json!({ "presence": { "count": 1, "ids": [&user_id], "hash": hash } }),
                ),
            ] {
                prop_assert_eq!(inner(&frame), expected);
            }
        }
    }
}
