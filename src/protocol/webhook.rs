//! What the application's servers are told: the body of a webhook.
//!
//! Owns: the events of webhooks and their JSON.
//! May depend on: `json`, `outgoing` (lists).
//! Invariants: a body's bytes are a function of its time and events alone, so a retry signs the
//! same bytes.

use crate::protocol::json::{write_json_string, write_u64};
use crate::protocol::outgoing::write_list;

/// One event, borrowed from who reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WebhookEvent<'a> {
    ChannelOccupied {
        channel: &'a str,
    },
    ChannelVacated {
        channel: &'a str,
    },
    MemberAdded {
        channel: &'a str,
        user_id: &'a str,
    },
    MemberRemoved {
        channel: &'a str,
        user_id: &'a str,
    },
    ClientEvent {
        channel: &'a str,
        /// JSON string token, as subscribers got it.
        event_token: &'a str,
        /// JSON string token, as subscribers got it.
        data_token: &'a str,
        socket_id: &'a str,
        /// Presence channels only.
        user_id: Option<&'a str>,
    },
    CacheMiss {
        channel: &'a str,
    },
    SubscriptionCount {
        channel: &'a str,
        count: u64,
    },
}

impl<'a> WebhookEvent<'a> {
    /// Every name that `event_types` of a webhook may list, in the order of the variants.
    pub const NAMES: [&'static str; 7] = [
        "channel_occupied",
        "channel_vacated",
        "member_added",
        "member_removed",
        "client_event",
        "cache_miss",
        "subscription_count",
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::ChannelOccupied { .. } => "channel_occupied",
            Self::ChannelVacated { .. } => "channel_vacated",
            Self::MemberAdded { .. } => "member_added",
            Self::MemberRemoved { .. } => "member_removed",
            Self::ClientEvent { .. } => "client_event",
            Self::CacheMiss { .. } => "cache_miss",
            Self::SubscriptionCount { .. } => "subscription_count",
        }
    }

    pub fn channel(self) -> &'a str {
        match self {
            Self::ChannelOccupied { channel }
            | Self::ChannelVacated { channel }
            | Self::MemberAdded { channel, .. }
            | Self::MemberRemoved { channel, .. }
            | Self::ClientEvent { channel, .. }
            | Self::CacheMiss { channel }
            | Self::SubscriptionCount { channel, .. } => channel,
        }
    }

    /// Appends the event's JSON object.
    pub fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(br#"{"name":"#);
        write_json_string(out, self.name());
        write_text(out, "channel", self.channel());
        match self {
            Self::ChannelOccupied { .. } | Self::ChannelVacated { .. } | Self::CacheMiss { .. } => {
            }
            Self::MemberAdded { user_id, .. } | Self::MemberRemoved { user_id, .. } => {
                write_text(out, "user_id", user_id);
            }
            Self::ClientEvent {
                event_token,
                data_token,
                socket_id,
                user_id,
                ..
            } => {
                out.extend_from_slice(br#","event":"#);
                out.extend_from_slice(event_token.as_bytes());
                out.extend_from_slice(br#","data":"#);
                out.extend_from_slice(data_token.as_bytes());
                write_text(out, "socket_id", socket_id);
                if let Some(user_id) = user_id {
                    write_text(out, "user_id", user_id);
                }
            }
            Self::SubscriptionCount { count, .. } => {
                out.extend_from_slice(br#","subscription_count":"#);
                write_u64(out, count);
            }
        }
        out.push(b'}');
    }
}

/// Appends a whole body. `time_ms` is when the webhook was made and stays the same on retries.
pub fn body<'a>(
    out: &mut Vec<u8>,
    time_ms: u64,
    events: impl IntoIterator<Item = WebhookEvent<'a>>,
) {
    begin_body(out, time_ms);
    write_list(out, events.into_iter(), |out, event| event.write(out));
    end_body(out);
}

/// Appends a whole body from events that were written before.
pub fn body_of_written<'a>(
    out: &mut Vec<u8>,
    time_ms: u64,
    events: impl IntoIterator<Item = &'a [u8]>,
) {
    begin_body(out, time_ms);
    write_list(out, events.into_iter(), |out, event| {
        out.extend_from_slice(event)
    });
    end_body(out);
}

fn begin_body(out: &mut Vec<u8>, time_ms: u64) {
    out.extend_from_slice(br#"{"time_ms":"#);
    write_u64(out, time_ms);
    out.extend_from_slice(br#","events":["#);
}

fn end_body(out: &mut Vec<u8>) {
    out.extend_from_slice(b"]}");
}

fn write_text(out: &mut Vec<u8>, key: &str, text: &str) {
    out.push(b',');
    write_json_string(out, key);
    out.push(b':');
    write_json_string(out, text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_has_exactly_the_bytes_that_were_signed() {
        let channel = "presence-foobar";
        for (events, golden) in [
            (
                // V23.
                vec![WebhookEvent::ChannelOccupied {
                    channel: "my-channel",
                }],
                r#"{"time_ms":1700000000000,"events":[{"name":"channel_occupied","channel":"my-channel"}]}"#,
            ),
            (
                // V24.
                vec![
                    WebhookEvent::MemberAdded {
                        channel,
                        user_id: "10",
                    },
                    WebhookEvent::CacheMiss {
                        channel: "cache-foo",
                    },
                ],
                r#"{"time_ms":1700000000000,"events":[{"name":"member_added","channel":"presence-foobar","user_id":"10"},{"name":"cache_miss","channel":"cache-foo"}]}"#,
            ),
            (
                vec![
                    WebhookEvent::ChannelVacated { channel: "a" },
                    WebhookEvent::MemberRemoved {
                        channel,
                        user_id: "é\"",
                    },
                    WebhookEvent::SubscriptionCount {
                        channel: "a",
                        count: 3,
                    },
                ],
                r#"{"time_ms":1700000000000,"events":[{"name":"channel_vacated","channel":"a"},{"name":"member_removed","channel":"presence-foobar","user_id":"é\""},{"name":"subscription_count","channel":"a","subscription_count":3}]}"#,
            ),
            (
                vec![WebhookEvent::ClientEvent {
                    channel,
                    event_token: r#""client-x""#,
                    data_token: r#""{\"on\":true}""#,
                    socket_id: "1234.5678",
                    user_id: Some("10"),
                }],
                r#"{"time_ms":1700000000000,"events":[{"name":"client_event","channel":"presence-foobar","event":"client-x","data":"{\"on\":true}","socket_id":"1234.5678","user_id":"10"}]}"#,
            ),
            (
                vec![WebhookEvent::ClientEvent {
                    channel: "private-a",
                    event_token: r#""client-x""#,
                    data_token: r#""null""#,
                    socket_id: "1.2",
                    user_id: None,
                }],
                r#"{"time_ms":1700000000000,"events":[{"name":"client_event","channel":"private-a","event":"client-x","data":"null","socket_id":"1.2"}]}"#,
            ),
        ] {
            let mut out = Vec::new();
            body(&mut out, 1_700_000_000_000, events.iter().copied());
            assert_eq!(String::from_utf8_lossy(&out), golden);
            assert!(serde_json::from_slice::<serde_json::Value>(&out).is_ok());
            let written: Vec<Vec<u8>> = events
                .iter()
                .map(|event| {
                    let mut out = Vec::new();
                    event.write(&mut out);
                    out
                })
                .collect();
            let mut again = Vec::new();
            body_of_written(
                &mut again,
                1_700_000_000_000,
                written.iter().map(Vec::as_slice),
            );
            assert_eq!(again, out);
            assert!(
                events
                    .iter()
                    .all(|event| WebhookEvent::NAMES.contains(&event.name()))
            );
        }
    }
}
