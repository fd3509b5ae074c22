//! Data path. What a client says: one text message becomes one `Incoming`.
//!
//! Owns: the envelope, the known `pusher:` events and the shapes of their data.
//! May depend on: `json`, `code`, `name` (for the prefix of client events).
//! Invariants: a frame is validated whole before anything of it is used; of duplicate keys the last
//! wins; a client's own `user_id` is never looked at.

use std::borrow::Cow;

use thiserror::Error;

use crate::protocol::code;
use crate::protocol::json::{
    self, JsonString, JsonValue,
    compact::{compact_bytes, compact_into_string_token},
};
use crate::protocol::name::CLIENT_EVENT_PREFIX;

/// A parsed frame of a client. Names and data are not checked further than their type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming<'a> {
    Subscribe {
        channel: Cow<'a, str>,
        /// `None` when missing or not a string: both are an authentication failure where auth is
        /// needed.
        auth: Option<Cow<'a, str>>,
        channel_data: ChannelData<'a>,
    },
    Unsubscribe {
        channel: Cow<'a, str>,
    },
    SignIn {
        auth: Cow<'a, str>,
        user_data: Cow<'a, str>,
    },
    Ping,
    Pong,
    ClientEvent {
        event: Cow<'a, str>,
        event_token: JsonString<'a>,
        /// `None` when missing or not a string.
        channel: Option<Cow<'a, str>>,
        data: ClientData<'a>,
    },
    /// An event that is not for us and not for others: silently dropped.
    Ignored,
}

/// The `channel_data` of a subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChannelData<'a> {
    /// Missing, `null` or an empty string.
    Absent,
    Text(Cow<'a, str>),
    /// Some other JSON: refused as invalid where channel data counts.
    NotText,
}

impl ChannelData<'_> {
    /// What takes part in the signature.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Absent | Self::NotText => None,
        }
    }
}

/// The data of a client event, raw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientData<'a> {
    /// Passed on as it was spelled.
    Text(JsonString<'a>),
    /// Passed on as a string that holds the compact text.
    Json(&'a str),
    /// Passed on as `"null"`.
    Absent,
}

impl ClientData<'_> {
    /// What the data limit counts: bytes of the string, or of the compact JSON.
    pub fn bytes(self) -> usize {
        match self {
            Self::Text(string) => string.decoded_bytes(),
            Self::Json(raw) => compact_bytes(raw),
            Self::Absent => "null".len(),
        }
    }

    /// Appends the JSON string token that subscribers get, and returns what `bytes` would.
    pub fn write_token(self, out: &mut Vec<u8>) -> usize {
        match self {
            Self::Text(string) => {
                out.extend_from_slice(string.token().as_bytes());
                string.decoded_bytes()
            }
            Self::Json(raw) => compact_into_string_token(raw, out),
            Self::Absent => compact_into_string_token("null", out),
        }
    }
}

impl<'a> Incoming<'a> {
    /// Reads one text message. One pass, no allocation unless a name or signature has escapes; data
    /// in a string (subscribe, unsubscribe, sign-in only) is read in a second pass.
    pub fn parse(text: &'a str) -> Result<Self, IncomingError> {
        let envelope = Envelope::parse(text)?;
        let event = envelope.event.decoded();
        if event.starts_with(CLIENT_EVENT_PREFIX) {
            return Ok(Self::ClientEvent {
                event,
                event_token: envelope.event,
                channel: envelope.channel.and_then(text_of),
                data: match envelope.data {
                    None => ClientData::Absent,
                    Some(JsonValue::Text(string)) => ClientData::Text(string),
                    Some(other) => ClientData::Json(other.raw()),
                },
            });
        }
        match &*event {
            "" => Err(IncomingError::Nameless),
            "pusher:ping" => Ok(Self::Ping),
            "pusher:pong" => Ok(Self::Pong),
            "pusher:subscribe" => subscribe(envelope.data),
            "pusher:unsubscribe" => unsubscribe(envelope.data),
            "pusher:signin" => sign_in(envelope.data),
            _ => Ok(Self::Ignored),
        }
    }
}

/// What is wrong with a frame. The connection stays open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum IncomingError {
    #[error("{}", code::INVALID_MESSAGE_FORMAT)]
    Malformed,
    /// JSON without an `event`; told as `Malformed` is.
    #[error("{}", code::INVALID_MESSAGE_FORMAT)]
    Nameless,
    #[error("Missing channel")]
    NoChannel,
    #[error("Sign-in needs the strings auth and user_data")]
    BadSignIn,
}

impl IncomingError {
    /// The code of the `pusher:error` frame that answers it; `None` is JSON's `null`.
    pub fn code(self) -> Option<u16> {
        match self {
            Self::Malformed | Self::Nameless => None,
            Self::NoChannel => Some(code::GENERIC_ERROR),
            Self::BadSignIn => Some(code::CloseCode::UNAUTHORIZED.value()),
        }
    }

    pub fn message(self) -> &'static str {
        match self {
            Self::Malformed | Self::Nameless => code::INVALID_MESSAGE_FORMAT,
            Self::NoChannel => "Missing channel",
            Self::BadSignIn => "Sign-in needs the strings auth and user_data",
        }
    }
}

/// The three keys that count, last one of each.
struct Envelope<'a> {
    event: JsonString<'a>,
    data: Option<JsonValue<'a>>,
    channel: Option<JsonValue<'a>>,
}

impl<'a> Envelope<'a> {
    fn parse(text: &'a str) -> Result<Self, IncomingError> {
        let (mut event, mut data, mut channel) = (None, None, None);
        json::for_each_member(text, |key, value| {
            if key.is("event") {
                event = Some(value);
            } else if key.is("data") {
                data = Some(value);
            } else if key.is("channel") {
                channel = Some(value);
            }
        })
        .map_err(|_| IncomingError::Malformed)?;
        let event = match event {
            None | Some(JsonValue::Null) => return Err(IncomingError::Nameless),
            Some(event) => event.as_text().ok_or(IncomingError::Malformed)?,
        };
        Ok(Self {
            event,
            data,
            channel,
        })
    }
}

/// The fields of a `pusher:` event's data, last one of each.
#[derive(Default)]
struct Fields<'a> {
    channel: Option<JsonValue<'a>>,
    auth: Option<JsonValue<'a>>,
    channel_data: Option<JsonValue<'a>>,
    user_data: Option<JsonValue<'a>>,
}

impl<'a> Fields<'a> {
    /// `None` when the text is no JSON object.
    fn parse(text: &'a str) -> Option<Self> {
        let mut fields = Self::default();
        json::for_each_member(text, |key, value| {
            if key.is("channel") {
                fields.channel = Some(value);
            } else if key.is("auth") {
                fields.auth = Some(value);
            } else if key.is("channel_data") {
                fields.channel_data = Some(value);
            } else if key.is("user_data") {
                fields.user_data = Some(value);
            }
        })
        .ok()?;
        Some(fields)
    }

    fn subscribe(self) -> Result<Incoming<'a>, IncomingError> {
        Ok(Incoming::Subscribe {
            channel: self
                .channel
                .and_then(text_of)
                .ok_or(IncomingError::NoChannel)?,
            auth: self.auth.and_then(text_of),
            channel_data: match self.channel_data {
                None | Some(JsonValue::Null) => ChannelData::Absent,
                Some(JsonValue::Text(string)) if string.is("") => ChannelData::Absent,
                Some(JsonValue::Text(string)) => ChannelData::Text(string.decoded()),
                Some(_) => ChannelData::NotText,
            },
        })
    }

    fn unsubscribe(self) -> Result<Incoming<'a>, IncomingError> {
        let channel = self
            .channel
            .and_then(text_of)
            .ok_or(IncomingError::NoChannel)?;
        Ok(Incoming::Unsubscribe { channel })
    }

    fn sign_in(self) -> Result<Incoming<'a>, IncomingError> {
        Ok(Incoming::SignIn {
            auth: self
                .auth
                .and_then(text_of)
                .ok_or(IncomingError::BadSignIn)?,
            user_data: self
                .user_data
                .and_then(text_of)
                .ok_or(IncomingError::BadSignIn)?,
        })
    }
}

fn subscribe(data: Option<JsonValue<'_>>) -> Result<Incoming<'_>, IncomingError> {
    with_fields(data, |fields| match fields {
        Ok(fields) => fields.subscribe(),
        Err(_) => Err(IncomingError::NoChannel),
    })
}

fn unsubscribe(data: Option<JsonValue<'_>>) -> Result<Incoming<'_>, IncomingError> {
    with_fields(data, |fields| match fields {
        Ok(fields) => fields.unsubscribe(),
        // Old clients of 2.9.2 name the channel directly.
        Err(Some(text)) => Ok(Incoming::Unsubscribe {
            channel: Cow::Borrowed(text),
        }),
        Err(None) => Err(IncomingError::NoChannel),
    })
}

fn sign_in(data: Option<JsonValue<'_>>) -> Result<Incoming<'_>, IncomingError> {
    with_fields(data, |fields| match fields {
        Ok(fields) => fields.sign_in(),
        Err(_) => Err(IncomingError::BadSignIn),
    })
}

/// `Err` carries a string that holds no object, and `None` where there is not even a string.
type FieldsOrText<'a> = Result<Fields<'a>, Option<&'a str>>;

/// Reads data that is an object, or a string that holds one.
fn with_fields<'a>(
    data: Option<JsonValue<'a>>,
    read: impl for<'b> Fn(FieldsOrText<'b>) -> Result<Incoming<'b>, IncomingError>,
) -> Result<Incoming<'a>, IncomingError> {
    match data {
        Some(JsonValue::Object(raw)) => read(Fields::parse(raw).ok_or(None)),
        Some(JsonValue::Text(string)) => match string.decoded() {
            Cow::Borrowed(text) => read(Fields::parse(text).ok_or(Some(text))),
            Cow::Owned(text) => {
                read(Fields::parse(&text).ok_or(Some(&text))).map(Incoming::into_owned)
            }
        },
        _ => read(Err(None)),
    }
}

impl Incoming<'_> {
    /// Only what `with_fields` can have read from a decoded string.
    fn into_owned<'b>(self) -> Incoming<'b> {
        let own = |text: Cow<'_, str>| Cow::<'b, str>::Owned(text.into_owned());
        match self {
            Self::Subscribe {
                channel,
                auth,
                channel_data,
            } => Incoming::Subscribe {
                channel: own(channel),
                auth: auth.map(own),
                channel_data: match channel_data {
                    ChannelData::Absent => ChannelData::Absent,
                    ChannelData::NotText => ChannelData::NotText,
                    ChannelData::Text(text) => ChannelData::Text(own(text)),
                },
            },
            Self::Unsubscribe { channel } => Incoming::Unsubscribe {
                channel: own(channel),
            },
            Self::SignIn { auth, user_data } => Incoming::SignIn {
                auth: own(auth),
                user_data: own(user_data),
            },
            Self::Ping => Incoming::Ping,
            Self::Pong => Incoming::Pong,
            Self::ClientEvent { .. } | Self::Ignored => Incoming::Ignored,
        }
    }
}

fn text_of(value: JsonValue<'_>) -> Option<Cow<'_, str>> {
    value.as_text().map(JsonString::decoded)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn subscribe<'a>(
        channel: &'a str,
        auth: Option<&'a str>,
        channel_data: ChannelData<'a>,
    ) -> Incoming<'a> {
        Incoming::Subscribe {
            channel: channel.into(),
            auth: auth.map(Into::into),
            channel_data,
        }
    }

    fn unsubscribe(channel: &str) -> Incoming<'_> {
        Incoming::Unsubscribe {
            channel: channel.into(),
        }
    }

    #[test]
    fn a_text_that_is_no_event_is_malformed() {
        for text in [
            "",
            " ",
            "x",
            "[]",
            "\"x\"",
            "1",
            "null",
            r#"{"event":1}"#,
            r#"{"event":{}}"#,
            r#"{"event":"pusher:ping"} x"#,
            r#"{"event":"pusher:ping","data":}"#,
            r#"{"event":"pusher:ping","x":"\ud800"}"#,
            r#"{"event":"pusher:ping","x":"\q"}"#,
            r#"{"event":"pusher:ping","event":5}"#,
            r#"{"event":"pusher:ping""#,
        ] {
            assert_eq!(
                Incoming::parse(text),
                Err(IncomingError::Malformed),
                "{text}"
            );
        }
        for text in [
            "{}",
            r#"{"event":null}"#,
            r#"{"event":""}"#,
            r#"{"event":"pusher:ping","event":null}"#,
            r#"{"data":{}}"#,
            r#"{"Event":"pusher:ping"}"#,
        ] {
            assert_eq!(
                Incoming::parse(text),
                Err(IncomingError::Nameless),
                "{text}"
            );
        }
        assert_eq!(IncomingError::Malformed.code(), None);
        assert_eq!(IncomingError::Nameless.code(), None);
        assert_eq!(IncomingError::NoChannel.code(), Some(4300));
        assert_eq!(IncomingError::BadSignIn.code(), Some(4009));
        for error in [
            IncomingError::Malformed,
            IncomingError::Nameless,
            IncomingError::NoChannel,
            IncomingError::BadSignIn,
        ] {
            assert_eq!(error.message(), error.to_string());
        }
    }

    #[test]
    fn nesting_of_a_frame_is_counted_from_its_outermost_object() {
        for (inner, accepted) in [(126, true), (127, true), (128, false)] {
            let text = format!(
                "{{\"event\":\"pusher:ping\",\"data\":{}{}}}",
                "[".repeat(inner),
                "]".repeat(inner)
            );
            assert_eq!(
                Incoming::parse(&text).is_ok(),
                accepted,
                "{inner} inside one"
            );
        }
    }

    #[test]
    fn pings_pongs_and_unknown_events_need_no_data() {
        for (text, expected) in [
            (r#"{"event":"pusher:ping"}"#, Incoming::Ping),
            (r#"{"event":"pusher:ping","data":{}}"#, Incoming::Ping),
            (r#"{"event":"pusher:ping","data":"{}"}"#, Incoming::Ping),
            (r#"{"event":"pusher:ping","data":""}"#, Incoming::Ping),
            (r#"{"\u0065vent":"pusher:\u0070ing"}"#, Incoming::Ping),
            (
                r#" { "data" : [1] , "event" : "pusher:pong" } "#,
                Incoming::Pong,
            ),
            (r#"{"event":1,"event":"pusher:pong"}"#, Incoming::Pong),
            (r#"{"event":"pusher:foo"}"#, Incoming::Ignored),
            (
                r#"{"event":"pusher_internal:member_added","data":{}}"#,
                Incoming::Ignored,
            ),
            (
                r#"{"event":"foo","channel":"private-a"}"#,
                Incoming::Ignored,
            ),
            (r#"{"event":"Client-foo"}"#, Incoming::Ignored),
            (r#"{"event":"pusher:Ping"}"#, Incoming::Ignored),
        ] {
            assert_eq!(Incoming::parse(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn a_subscription_is_read_from_an_object_or_a_string() {
        use ChannelData::{Absent, NotText, Text};
        for (data, expected) in [
            (r#"{"channel":"a"}"#, subscribe("a", None, Absent)),
            (
                r#"{"channel":"a","auth":""}"#,
                subscribe("a", Some(""), Absent),
            ),
            (
                r#"{"auth":"k:s","channel":"a"}"#,
                subscribe("a", Some("k:s"), Absent),
            ),
            (r#"{"channel":"a","auth":5}"#, subscribe("a", None, Absent)),
            (
                r#"{"channel":"a","auth":null}"#,
                subscribe("a", None, Absent),
            ),
            (r#"{"channel":""}"#, subscribe("", None, Absent)),
            (
                r#"{"channel":"b","channel":"a"}"#,
                subscribe("a", None, Absent),
            ),
            (r#"{"channel":"\u0061"}"#, subscribe("a", None, Absent)),
            (
                r#"{"channel":"a","channel_data":""}"#,
                subscribe("a", None, Absent),
            ),
            (
                r#"{"channel":"a","channel_data":null}"#,
                subscribe("a", None, Absent),
            ),
            (
                r#"{"channel":"a","channel_data":{}}"#,
                subscribe("a", None, NotText),
            ),
            (
                r#"{"channel":"a","channel_data":7}"#,
                subscribe("a", None, NotText),
            ),
            (
                r#"{"channel":"a","channel_data":" {\"user_id\" : \"\\u00e9\"}"}"#,
                subscribe("a", None, Text(r#" {"user_id" : "\u00e9"}"#.into())),
            ),
            (
                r#""{\"channel\":\"a\",\"auth\":\"k:s\"}""#,
                subscribe("a", Some("k:s"), Absent),
            ),
            (
                r#""{\"channel\":\"a\",\"channel_data\":\"{\\\"user_id\\\":1}\"}""#,
                subscribe("a", None, Text(r#"{"user_id":1}"#.into())),
            ),
        ] {
            let text = format!(r#"{{"event":"pusher:subscribe","data":{data}}}"#);
            assert_eq!(Incoming::parse(&text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn a_subscription_without_a_channel_is_4300() {
        for data in [
            "{}",
            r#"{"channel":1}"#,
            r#"{"channel":null}"#,
            "[]",
            "null",
            "1",
            r#""a""#,
            r#""{}""#,
            r#""[]""#,
        ] {
            let text = format!(r#"{{"event":"pusher:subscribe","data":{data}}}"#);
            assert_eq!(
                Incoming::parse(&text),
                Err(IncomingError::NoChannel),
                "{text}"
            );
        }
        let absent = r#"{"event":"pusher:subscribe","channel":"a"}"#;
        assert_eq!(Incoming::parse(absent), Err(IncomingError::NoChannel));
    }

    #[test]
    fn an_unsubscription_may_name_its_channel_directly() {
        for (data, expected) in [
            (r#"{"channel":"a"}"#, Ok(unsubscribe("a"))),
            (r#""{\"channel\":\"a\"}""#, Ok(unsubscribe("a"))),
            (r#""my-channel""#, Ok(unsubscribe("my-channel"))),
            (r#""m\u0079""#, Ok(unsubscribe("my"))),
            (r#""[]""#, Ok(unsubscribe("[]"))),
            (r#""{}""#, Err(IncomingError::NoChannel)),
            ("{}", Err(IncomingError::NoChannel)),
            (r#"{"channel":[]}"#, Err(IncomingError::NoChannel)),
            ("null", Err(IncomingError::NoChannel)),
            ("5", Err(IncomingError::NoChannel)),
        ] {
            let text = format!(r#"{{"event":"pusher:unsubscribe","data":{data}}}"#);
            assert_eq!(Incoming::parse(&text), expected, "{text}");
        }
    }

    #[test]
    fn a_sign_in_needs_two_strings() {
        let expected = Ok(Incoming::SignIn {
            auth: "k:s".into(),
            user_data: r#"{"id":"1"}"#.into(),
        });
        for data in [
            r#"{"auth":"k:s","user_data":"{\"id\":\"1\"}"}"#,
            r#""{\"auth\":\"k:s\",\"user_data\":\"{\\\"id\\\":\\\"1\\\"}\"}""#,
        ] {
            let text = format!(r#"{{"event":"pusher:signin","data":{data}}}"#);
            assert_eq!(Incoming::parse(&text), expected, "{text}");
        }
        for data in [
            "{}",
            r#"{"auth":"k:s"}"#,
            r#"{"user_data":"{}"}"#,
            r#"{"auth":1,"user_data":"{}"}"#,
            r#"{"auth":"k:s","user_data":{"id":"1"}}"#,
            r#""x""#,
            "null",
        ] {
            let text = format!(r#"{{"event":"pusher:signin","data":{data}}}"#);
            assert_eq!(
                Incoming::parse(&text),
                Err(IncomingError::BadSignIn),
                "{text}"
            );
        }
    }

    #[test]
    fn a_client_event_keeps_its_data_as_it_was_spelled() {
        // data member, token for the subscribers, bytes counted
        for (data, token, bytes) in [
            ("", r#""null""#, 4),
            (r#","data":null"#, r#""null""#, 4),
            (r#","data":"""#, r#""""#, 0),
            (r#","data":"a\u00e9\"""#, r#""a\u00e9\"""#, 4),
            (r#","data":{ "on" : true }"#, r#""{\"on\":true}""#, 11),
            (
                r#","data":{"channel":"x","channel_data":"y","user_data":"z"}"#,
                r#""{\"channel\":\"x\",\"channel_data\":\"y\",\"user_data\":\"z\"}""#,
                50,
            ),
            (r#","data":[1.0, 1e2]"#, r#""[1.0,1e2]""#, 9),
            (r#","data":1,"data":2"#, r#""2""#, 1),
        ] {
            let text =
                format!(r#"{{"event":"client-x","channel":"private-a","user_id":"9"{data}}}"#);
            let Ok(Incoming::ClientEvent {
                event,
                event_token,
                channel,
                data,
            }) = Incoming::parse(&text)
            else {
                panic!("not a client event: {text}")
            };
            assert_eq!(event, "client-x");
            assert_eq!(event_token.token(), r#""client-x""#);
            assert_eq!(channel.as_deref(), Some("private-a"));
            let mut out = Vec::new();
            assert_eq!(data.write_token(&mut out), bytes, "{text}");
            assert_eq!(String::from_utf8_lossy(&out), token, "{text}");
            assert_eq!(data.bytes(), bytes, "{text}");
        }
    }

    #[test]
    fn a_client_event_without_a_usable_channel_is_still_one() {
        for channel in [
            "",
            r#","channel":null"#,
            r#","channel":7"#,
            r#","channel":"a","channel":{}"#,
        ] {
            let text = format!(r#"{{"event":"client-x"{channel}}}"#);
            let parsed = Incoming::parse(&text);
            assert!(
                matches!(parsed, Ok(Incoming::ClientEvent { channel: None, .. })),
                "{text}"
            );
        }
        let prefix_alone = Incoming::parse(r#"{"event":"client-"}"#);
        assert!(matches!(prefix_alone, Ok(Incoming::ClientEvent { .. })));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in any::<String>()) {
            let _ = Incoming::parse(&text);
            let quoted = serde_json::to_string(&text).expect("a string");
            for event in ["subscribe", "unsubscribe", "signin"] {
                let frame = format!(r#"{{"event":"pusher:{event}","data":{quoted}}}"#);
                let _ = Incoming::parse(&frame);
            }
        }

        #[test]
        fn any_name_survives_the_envelope(name in any::<String>()) {
            let quoted = serde_json::to_string(&name).expect("a string");
            let frame = format!(r#"{{"event":"pusher:subscribe","data":{{"channel":{quoted}}}}}"#);
            prop_assert_eq!(Incoming::parse(&frame), Ok(subscribe(&name, None, ChannelData::Absent)));
        }
    }
}
