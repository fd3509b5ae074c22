//! Parameters of request lines: what a WebSocket client says about itself, what a reader of
//! channels asks for, an event without a body.
//!
//! Owns: the protocol version rule of the upgrade, `filter_by_prefix`, events in a query.
//! May depend on: `info`, `api` (errors), `protocol::{auth, json, name, query}`.
//! Invariants: of repeated parameters the first counts; parameters that are not named here are
//! ignored.

use std::borrow::Cow;

use crate::http::api::ApiError;
use crate::http::info::Info;
use crate::protocol::json;
use crate::protocol::name::ChannelKind;
use crate::protocol::query::{decode, first, pairs};
use crate::protocol::signed_text::QueryForm;

/// What a WebSocket request says about the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientQuery<'a> {
    pub protocol: ProtocolParam,
    /// Library name, informative.
    pub client: Option<Cow<'a, str>>,
    /// Library version, informative, at most 64 bytes.
    pub version: Option<Cow<'a, str>>,
}

impl<'a> ClientQuery<'a> {
    pub fn parse(query: &'a str) -> Self {
        let short = |text: Cow<'a, str>| match text {
            Cow::Borrowed(text) => Cow::Borrowed(json::cut(text, LABEL_BYTES_MAX)),
            Cow::Owned(text) => Cow::Owned(json::cut(&text, LABEL_BYTES_MAX).to_owned()),
        };
        Self {
            protocol: ProtocolParam::parse(first(query, "protocol").as_deref()),
            client: first(query, "client").map(short),
            version: first(query, "version").map(short),
        }
    }
}

/// The protocol version that a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolParam {
    /// Taken as 7, or refused with 4008 when the server is strict.
    Absent,
    /// 5, 6 or 7.
    Accepted(u8),
    /// Not a base-10 unsigned integer: 4006.
    Invalid,
    /// Another integer: 4007.
    Unsupported,
}

impl ProtocolParam {
    pub fn parse(value: Option<&str>) -> Self {
        let Some(digits) = value else {
            return Self::Absent;
        };
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Self::Invalid;
        }
        match digits.parse() {
            Ok(version @ 5..=7) => Self::Accepted(version),
            Ok(_) | Err(_) => Self::Unsupported,
        }
    }
}

/// The parameters of `GET /apps/{app}/channels`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelsQuery<'a> {
    /// A literal prefix of the names; empty matches all.
    pub filter_by_prefix: Cow<'a, str>,
    pub info: Info,
}

impl<'a> ChannelsQuery<'a> {
    pub fn parse(query: &'a str) -> Result<Self, ApiError> {
        let filter_by_prefix = first(query, "filter_by_prefix").unwrap_or_default();
        let info = Info::parse(first(query, "info").as_deref().unwrap_or_default())?;
        let info = info.for_channels(filter_by_prefix.starts_with("presence-"))?;
        Ok(Self {
            filter_by_prefix,
            info,
        })
    }
}

/// The body that `POST /events` would have had, from parameters in its query: Pusher's documentation
/// lets them stand there.
pub fn event_body(query: &str, form: QueryForm) -> Result<Vec<u8>, ApiError> {
    let mut body = Vec::with_capacity(query.len() + 64);
    body.push(b'{');
    for name in ["name", "data", "channel", "socket_id", "info"] {
        if let Some(value) = values(query, name).next() {
            write_key(&mut body, name);
            write_value(&mut body, name, value, form)?;
        }
    }
    let mut channels = values(query, "channels[]").peekable();
    if channels.peek().is_some() {
        write_key(&mut body, "channels");
        body.push(b'[');
        for (index, channel) in channels.enumerate() {
            if index > 0 {
                body.push(b',');
            }
            write_value(&mut body, "channels[]", channel, form)?;
        }
        body.push(b']');
    }
    body.push(b'}');
    Ok(body)
}

/// The raw values of a parameter, in order. Names as they are signed: in lower case.
fn values<'q>(query: &'q str, name: &'q str) -> impl Iterator<Item = &'q str> {
    pairs(query)
        .filter(|pair| decode(pair.key).eq_ignore_ascii_case(name.as_bytes()))
        .map(|pair| pair.value)
}

fn write_key(body: &mut Vec<u8>, name: &str) {
    if body.len() > 1 {
        body.push(b',');
    }
    json::write_json_string(body, name);
    body.push(b':');
}

fn write_value(
    body: &mut Vec<u8>,
    name: &'static str,
    raw_value: &str,
    form: QueryForm,
) -> Result<(), ApiError> {
    let value = form.read(raw_value);
    let text = std::str::from_utf8(&value).map_err(|_| ApiError::NotText(name))?;
    json::write_json_string(body, text);
    Ok(())
}

/// The `info` parameter of `GET /apps/{app}/channels/{channel}`.
pub fn channel_info(query: &str, kind: ChannelKind) -> Result<Info, ApiError> {
    Info::parse(first(query, "info").as_deref().unwrap_or_default())?.for_channel(kind)
}

/// How much of a client's name and version is kept for logs and metrics.
const LABEL_BYTES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_are_asked_for_by_prefix_and_attribute() {
        let user_count = Info {
            user_count: true,
            ..Info::default()
        };
        let subscription_count = Info {
            subscription_count: true,
            ..Info::default()
        };
        for (query, prefix, info) in [
            ("", "", Info::default()),
            ("auth_key=x", "", Info::default()),
            (
                "filter_by_prefix=presence-&info=user_count",
                "presence-",
                user_count,
            ),
            (
                "filter_by_prefix=presence-x&info=user_count",
                "presence-x",
                user_count,
            ),
            ("info=subscription_count", "", subscription_count),
            ("filter_by_prefix=a%20b%40c", "a b@c", Info::default()),
            (
                "filter_by_prefix=a&filter_by_prefix=b",
                "a",
                Info::default(),
            ),
        ] {
            let filter_by_prefix = prefix.into();
            assert_eq!(
                ChannelsQuery::parse(query),
                Ok(ChannelsQuery {
                    filter_by_prefix,
                    info
                }),
                "{query}"
            );
        }
        for query in [
            "info=user_count",
            "info=user_count&filter_by_prefix=",
            "info=user_count&filter_by_prefix=presence",
            "info=user_count&filter_by_prefix=private-",
            "info=cache",
            "info=x",
        ] {
            let error = ChannelsQuery::parse(query).expect_err(query);
            assert_eq!(error.status().code(), 400, "{query}");
        }
    }

    #[test]
    fn an_event_in_the_query_is_that_of_a_body() {
        use QueryForm::*;
        for (query, form, expected) in [
            ("", Decoded, Ok("{}")),
            ("auth_key=x&x=1", Decoded, Ok("{}")),
            (
                "name=e&data=a%20%22b%22+c&channels[]=x&channels%5B%5D=y&socket_id=1.2&info=user_count",
                Decoded,
                Ok(
                    r#"{"name":"e","data":"a \"b\" c","socket_id":"1.2","info":"user_count","channels":["x","y"]}"#,
                ),
            ),
            (
                "NAME=e&name=f&channel=x",
                Decoded,
                Ok(r#"{"name":"e","channel":"x"}"#),
            ),
            ("data=a%20+", PlusKept, Ok(r#"{"data":"a +"}"#)),
            ("data=a%20+", Raw, Ok(r#"{"data":"a%20+"}"#)),
            ("channels=x", Decoded, Ok("{}")),
            ("data=%ff", Decoded, Err(ApiError::NotText("data"))),
            (
                "channels[]=%ff",
                Decoded,
                Err(ApiError::NotText("channels[]")),
            ),
        ] {
            let body = event_body(query, form);
            let body = body.map(|body| String::from_utf8(body).expect("UTF-8"));
            assert_eq!(body, expected.map(str::to_owned), "{query}");
        }
    }

    #[test]
    fn the_protocol_version_decides_the_code() {
        use ProtocolParam::*;
        for (query, expected) in [
            ("", Absent),
            ("client=js", Absent),
            ("protocol=5", Accepted(5)),
            ("protocol=6", Accepted(6)),
            (
                "protocol=7&client=js&version=8.4.0&flash=false",
                Accepted(7),
            ),
            ("protocol=7&protocol=abc", Accepted(7)),
            ("protocol=%37", Accepted(7)),
            ("protocol=07", Accepted(7)),
            ("protocol", Invalid),
            ("protocol=", Invalid),
            ("protocol=7.0", Invalid),
            ("protocol=-1", Invalid),
            ("protocol=+7", Invalid),
            ("protocol=abc", Invalid),
            ("protocol=7%20", Invalid),
            ("protocol=abc&protocol=7", Invalid),
            ("protocol=0", Unsupported),
            ("protocol=4", Unsupported),
            ("protocol=8", Unsupported),
            ("protocol=263", Unsupported),
            ("protocol=99999999999", Unsupported),
            ("protocol=99999999999999999999999999", Unsupported),
        ] {
            assert_eq!(ClientQuery::parse(query).protocol, expected, "{query}");
        }
    }

    #[test]
    fn a_version_is_cut_to_64_bytes() {
        for (bytes, kept) in [(63, 63), (64, 64), (65, 64), (9_000, 64)] {
            let query = format!("version={}", "v".repeat(bytes));
            assert_eq!(
                ClientQuery::parse(&query).version.map(|v| v.len()),
                Some(kept)
            );
        }
        let query = format!("version=%20{}", "é".repeat(40));
        assert_eq!(
            ClientQuery::parse(&query).version.map(|v| v.len()),
            Some(63)
        );
    }
}
