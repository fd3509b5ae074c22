//! Data path. The API's bodies: what is published, checked whole before anything of it happens.
//!
//! Owns: the rules of `/events` and of each event of a batch, and the answer to every fault of an API
//! request.
//! May depend on: `info`, `response` (statuses), `protocol::{auth, json, name, socket_id}`.
//! Invariants: a `PublishRequest` in hand keeps every limit: event name, channel names and their
//! number, data size; its channels are distinct and in the order given.

use std::borrow::Cow;

use smallvec::SmallVec;
use thiserror::Error;

use crate::http::info::Info;
use crate::http::response::Status;
use crate::protocol::json::{
    self, Bound, JsonError, JsonString, JsonValue, Place, Scanner,
    compact::{compact_bytes, compact_into_string_token},
};
use crate::protocol::name::{
    ChannelName, ChannelNameError, EventNameError, USER_ID_CHARACTERS_MAX, USER_PREFIX,
    check_event_name,
};
use crate::protocol::request_auth::HttpAuthError;
use crate::protocol::socket_id::{SocketId, SocketIdError};

/// The app's limits on one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventLimits {
    pub event_name_bytes_max: usize,
    pub channel_name_bytes_max: usize,
    pub channels_max: usize,
    pub payload_bytes_max: usize,
}

impl EventLimits {
    /// What a body of so many events may have beside the plain text of its strings: what data that is no string may
    /// take, spelled as widely as anybody does, data of escapes alone, and some of what nobody reads.
    pub(super) fn bound(&self, events: usize) -> Bound {
        let payload = self.payload_bytes_max;
        Bound {
            dear_bytes_max: payload.saturating_mul(events + 8) + DEAR_BYTES_BESIDE,
            escapes_max: payload.saturating_mul(events) + ESCAPES_BESIDE,
        }
    }
}

/// One event to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishRequest<'a> {
    /// The name as it was spelled, valid in any JSON text.
    pub event: JsonString<'a>,
    /// Of its channels: at least one, distinct, and each checked. The first is the one that a batch answer reports.
    pub names: SmallVec<[Cow<'a, str>; 2]>,
    /// The data as a JSON string token: a string verbatim, anything else as its compact text.
    pub data: Cow<'a, str>,
    /// Who does not get it. `None` also for an id that no connection of ours can have.
    pub except: Option<SocketId>,
    pub info: Info,
}

impl<'a> PublishRequest<'a> {
    /// Reads the body of `/events`. One pass; no allocation when the data is a string and there are
    /// at most two channels.
    pub fn parse(body: &'a [u8], limits: &EventLimits) -> Result<Self, ApiError> {
        Self::of_text(text(body)?, limits).1
    }

    /// The same of a body that is known to be text. Says how far it was read, too.
    pub fn of_text(body: &'a str, limits: &EventLimits) -> (Place, Result<Self, ApiError>) {
        let mut scanner = Scanner::resumed(body, Place::default(), limits.bound(1));
        let fields = scanner
            .check_object()
            .and_then(|()| EventFields::read(&mut scanner))
            .and_then(|fields| scanner.end().map(|()| fields));
        let event = fields.map_err(ApiError::from);
        let event = event.and_then(|fields| Self::of_fields(fields, limits));
        (scanner.place(), event)
    }

    /// Checks what was read.
    pub(super) fn of_fields(
        fields: EventFields<'a>,
        limits: &EventLimits,
    ) -> Result<Self, ApiError> {
        let event = match fields.name {
            Some(JsonValue::Text(name)) => name,
            Some(_) => return Err(ApiError::WrongType("name")),
            None => return Err(ApiError::Missing("name")),
        };
        check_name(event, limits.event_name_bytes_max)?;
        let names = fields.channels(limits)?;
        let except = match fields.socket_id {
            None => None,
            Some(JsonValue::Text(id)) if id.decoded_bytes() > SHORT_BYTES_MAX => {
                return Err(SocketIdError.into());
            }
            Some(JsonValue::Text(id)) => SocketId::parse(&id.decoded())?,
            Some(_) => return Err(ApiError::WrongType("socket_id")),
        };
        let info = match fields.info {
            None => Info::default(),
            Some(JsonValue::Text(list)) if list.decoded_bytes() > SHORT_BYTES_MAX => {
                return Err(ApiError::UnknownInfo);
            }
            Some(JsonValue::Text(list)) => Info::parse(&list.decoded())?.for_events()?,
            Some(_) => return Err(ApiError::WrongType("info")),
        };
        let data = data_token(fields.data.ok_or(ApiError::Missing("data"))?, limits)?;
        Ok(Self {
            event,
            names,
            data,
            except,
            info,
        })
    }
}

/// The known keys of an event; `null` counts as absent where the field is optional.
#[derive(Default)]
pub(super) struct EventFields<'a> {
    name: Option<JsonValue<'a>>,
    data: Option<JsonValue<'a>>,
    channel: Option<JsonValue<'a>>,
    channels: Option<JsonValue<'a>>,
    socket_id: Option<JsonValue<'a>>,
    info: Option<JsonValue<'a>>,
}

impl<'a> EventFields<'a> {
    /// Reads the object that begins where the scan stands.
    pub(super) fn read(scanner: &mut Scanner<'a>) -> Result<Self, JsonError> {
        let mut fields = Self::default();
        scanner.members(|key, value| {
            let optional = (value != JsonValue::Null).then_some(value);
            if key.is("name") {
                fields.name = Some(value);
            } else if key.is("data") {
                fields.data = Some(value);
            } else if key.is("channel") {
                fields.channel = optional;
            } else if key.is("channels") {
                fields.channels = optional;
            } else if key.is("socket_id") {
                fields.socket_id = optional;
            } else if key.is("info") {
                fields.info = optional;
            }
        })?;
        Ok(fields)
    }

    fn channels(&self, limits: &EventLimits) -> Result<SmallVec<[Cow<'a, str>; 2]>, ApiError> {
        let mut names = SmallVec::<[Cow<'a, str>; 2]>::new();
        let mut fault = None;
        let mut add = |name| match channel_name(name, limits.channel_name_bytes_max) {
            Ok(name) => names.push(name),
            Err(error) => _ = fault.get_or_insert(error),
        };
        match (self.channels, self.channel) {
            (Some(JsonValue::Array(raw)), _) => {
                let (mut count, mut wrong_type) = (0, false);
                json::for_each_item(raw, |item| {
                    count += 1;
                    match item {
                        JsonValue::Text(name) if count <= limits.channels_max => add(name),
                        JsonValue::Text(_) => {}
                        JsonValue::Object(_)
                        | JsonValue::Array(_)
                        | JsonValue::Number(_)
                        | JsonValue::Bool(_)
                        | JsonValue::Null => wrong_type = true,
                    }
                })?;
                match count {
                    0 => return Err(ApiError::NoChannels),
                    _ if count > limits.channels_max => {
                        return Err(ApiError::TooManyChannels {
                            count,
                            count_max: limits.channels_max,
                        });
                    }
                    _ if wrong_type => return Err(ApiError::WrongType("channels")),
                    _ => {}
                }
            }
            (Some(_), _) => return Err(ApiError::WrongType("channels")),
            (None, Some(JsonValue::Text(name))) => add(name),
            (None, Some(_)) => return Err(ApiError::WrongType("channel")),
            (None, None) => return Err(ApiError::Missing("channels")),
        }
        if let Some(fault) = fault {
            return Err(fault.into());
        }
        drop_repetitions(&mut names);
        Ok(names)
    }
}

/// Checks an event's name. Of one that is too long no more is decoded than shows that.
fn check_name(name: JsonString<'_>, bytes_max: usize) -> Result<(), EventNameError> {
    let decoded = name.beginning(bytes_max.max(RESERVED_BYTES_MAX));
    match check_event_name(&decoded, bytes_max) {
        Err(EventNameError::TooLong { bytes_max, .. }) => Err(EventNameError::TooLong {
            bytes: name.decoded_bytes(),
            bytes_max,
        }),
        checked => checked,
    }
}

/// A channel's name that is as it must be. Of one that is too long no more is decoded than shows that.
fn channel_name(name: JsonString<'_>, bytes_max: usize) -> Result<Cow<'_, str>, ChannelNameError> {
    // That of a user has its own bound.
    let decoded = name.beginning(bytes_max.max(USER_NAME_BYTES_MAX));
    match ChannelName::parse(&decoded, bytes_max) {
        Ok(_) => Ok(decoded),
        Err(ChannelNameError::TooLong { bytes_max, .. }) => Err(ChannelNameError::TooLong {
            bytes: name.decoded_bytes(),
            bytes_max,
        }),
        Err(error) => Err(error),
    }
}

/// Keeps the first of equal names, in order. A short list is compared pairwise; a long one by sorted
/// look-up, so that a hostile list of any allowed length stays cheap.
fn drop_repetitions(names: &mut SmallVec<[Cow<'_, str>; 2]>) {
    if names.len() <= PAIRWISE_NAMES_MAX {
        let mut kept = SmallVec::new();
        for name in names.drain(..) {
            if !kept.contains(&name) {
                kept.push(name);
            }
        }
        *names = kept;
        return;
    }
    let mut order: Vec<usize> = (0..names.len()).collect();
    order.sort_by(|one, other| names.get(*one).cmp(&names.get(*other)));
    let repeated = order.windows(2).filter_map(|pair| match pair {
        [first, second] if names.get(*first) == names.get(*second) => Some(*second),
        _ => None,
    });
    let mut repeated: Vec<usize> = repeated.collect();
    repeated.sort_unstable();
    let (mut index, mut repeated) = (0, repeated.into_iter().peekable());
    names.retain(|_| {
        let is_repeated = repeated.next_if_eq(&index).is_some();
        index += 1;
        !is_repeated
    });
}

fn data_token<'a>(data: JsonValue<'a>, limits: &EventLimits) -> Result<Cow<'a, str>, ApiError> {
    let bytes_max = limits.payload_bytes_max;
    let check = |bytes| match bytes {
        bytes if bytes > bytes_max => Err(ApiError::PayloadTooLarge { bytes, bytes_max }),
        _ => Ok(()),
    };
    match data {
        JsonValue::Text(string) => {
            check(string.decoded_bytes())?;
            Ok(Cow::Borrowed(string.token()))
        }
        other @ (JsonValue::Object(_)
        | JsonValue::Array(_)
        | JsonValue::Number(_)
        | JsonValue::Bool(_)
        | JsonValue::Null) => {
            check(compact_bytes(other.raw()))?;
            let mut token = Vec::new();
            compact_into_string_token(other.raw(), &mut token);
            Ok(Cow::Owned(
                String::from_utf8(token).map_err(|_| ApiError::MalformedJson)?,
            ))
        }
    }
}

/// A body as the text that JSON is.
pub fn text(body: &[u8]) -> Result<&str, ApiError> {
    simdutf8::basic::from_utf8(body).map_err(|_| ApiError::MalformedJson)
}

/// The same of one that may be kept.
pub fn text_of(body: Cow<'_, [u8]>) -> Result<Cow<'_, str>, ApiError> {
    match body {
        Cow::Borrowed(body) => text(body).map(Cow::Borrowed),
        Cow::Owned(body) => match String::from_utf8(body) {
            Ok(body) => Ok(Cow::Owned(body)),
            Err(_) => Err(ApiError::MalformedJson),
        },
    }
}

/// Everything that an API request can be refused for. Where the libraries' own tests look for
/// Pusher's words (`pusher-http-php`, `TriggerBatchTest`), the text has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ApiError {
    #[error("the body is not valid JSON")]
    MalformedJson,
    #[error("the body must be a JSON object")]
    NotAnObject,
    #[error("{0} is not valid UTF-8")]
    NotText(&'static str),
    #[error("{0} is missing")]
    Missing(&'static str),
    #[error("{0} has the wrong type")]
    WrongType(&'static str),
    #[error(transparent)]
    EventName(#[from] EventNameError),
    #[error(transparent)]
    ChannelName(#[from] ChannelNameError),
    #[error(transparent)]
    SocketId(#[from] SocketIdError),
    #[error("channels is empty")]
    NoChannels,
    #[error("{count} channels: at most {count_max} are allowed")]
    TooManyChannels { count: usize, count_max: usize },
    #[error("batch is empty")]
    NoEvents,
    #[error("Batch too large ({count} > {count_max})")]
    TooManyEvents { count: usize, count_max: usize },
    #[error(
        "The data content of this event exceeds the allowed maximum ({bytes_max} bytes): it has {bytes}"
    )]
    PayloadTooLarge { bytes: usize, bytes_max: usize },
    #[error("info may list user_count, subscription_count and cache")]
    UnknownInfo,
    #[error("{0} does not apply to this request")]
    InfoNotApplicable(&'static str),
    #[error("only presence channels have users")]
    NotPresence,
    #[error("user id must have 1..=128 characters")]
    UserId,
    #[error(
        "the body has more than {bytes_max} bytes of JSON beside its strings: the data of its events may not have that"
    )]
    TooMuchJson { bytes_max: usize },
    #[error(
        "the body has more than {count_max} escapes in its strings: the data of its events may not have that"
    )]
    TooManyEscapes { count_max: usize },
    #[error("the body exceeds {bytes_max} bytes")]
    BodyTooLarge { bytes_max: usize },
    #[error("{}", auth_text(*.0))]
    Auth(#[from] HttpAuthError),
    #[error("the app is disabled")]
    AppDisabled,
    #[error("the app does not exist")]
    AppUnknown,
    #[error("not found")]
    NotFound,
    #[error("method not allowed")]
    MethodNotAllowed,
    #[error("Too Many Requests")]
    RateLimited,
    #[error("internal error")]
    Internal,
    #[error("temporarily unavailable, try again")]
    Unavailable,
}

impl ApiError {
    pub fn status(self) -> Status {
        match self {
            Self::MalformedJson
            | Self::NotAnObject
            | Self::NotText(_)
            | Self::Missing(_)
            | Self::WrongType(_)
            | Self::EventName(_)
            | Self::ChannelName(_)
            | Self::SocketId(_)
            | Self::NoChannels
            | Self::TooManyChannels { .. }
            | Self::NoEvents
            | Self::TooManyEvents { .. }
            | Self::UnknownInfo
            | Self::InfoNotApplicable(_)
            | Self::NotPresence
            | Self::UserId => Status::BadRequest,
            Self::Auth(_) => Status::Unauthorized,
            Self::AppDisabled => Status::Forbidden,
            Self::AppUnknown | Self::NotFound => Status::NotFound,
            Self::MethodNotAllowed => Status::MethodNotAllowed,
            Self::PayloadTooLarge { .. }
            | Self::BodyTooLarge { .. }
            | Self::TooMuchJson { .. }
            | Self::TooManyEscapes { .. } => Status::ContentTooLarge,
            Self::RateLimited => Status::TooManyRequests,
            Self::Internal => Status::Internal,
            Self::Unavailable => Status::Unavailable,
        }
    }

    /// Appends the body of the answer.
    pub fn write_body(self, out: &mut Vec<u8>) {
        if self == Self::RateLimited {
            out.extend_from_slice(RATE_LIMITED);
            return;
        }
        out.extend_from_slice(br#"{"error":"#);
        json::write_json_string(out, &self.to_string());
        out.push(b'}');
    }
}

impl From<JsonError> for ApiError {
    fn from(error: JsonError) -> Self {
        match error {
            JsonError::NotAnObject => Self::NotAnObject,
            JsonError::Malformed | JsonError::TooDeep => Self::MalformedJson,
            JsonError::TooMuch { bytes_max } => Self::TooMuchJson { bytes_max },
            JsonError::TooManyEscapes { count_max } => Self::TooManyEscapes { count_max },
        }
    }
}

/// A wrong signature has the text that libraries' users search for; no text holds what would have
/// been right.
fn auth_text(error: HttpAuthError) -> String {
    error.to_string()
}

const PAIRWISE_NAMES_MAX: usize = 8;
/// JSON of an event beside its data and its strings.
const DEAR_BYTES_BESIDE: usize = 65_536;
/// Escapes of an event beside its data.
const ESCAPES_BESIDE: usize = 16_384;
/// No socket id and no list of attributes is longer.
const SHORT_BYTES_MAX: usize = 256;
/// No name of a user's channel is longer.
const USER_NAME_BYTES_MAX: usize = USER_PREFIX.len() + 4 * USER_ID_CHARACTERS_MAX;
/// Beginnings that no event's name may have are shorter.
const RESERVED_BYTES_MAX: usize = 32;
const RATE_LIMITED: &[u8] =
    br#"{"error":"Too Many Requests","message":"Rate limit exceeded. Please try again later."}"#;

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(in crate::http) const LIMITS: EventLimits = EventLimits {
        event_name_bytes_max: 200,
        channel_name_bytes_max: 200,
        channels_max: 100,
        payload_bytes_max: 102_400,
    };

    pub(in crate::http) fn names(request: &PublishRequest<'_>) -> Vec<String> {
        request
            .names
            .iter()
            .map(|name| (**name).to_owned())
            .collect()
    }

    fn parse(body: &str) -> Result<PublishRequest<'_>, ApiError> {
        PublishRequest::parse(body.as_bytes(), &LIMITS)
    }

    #[test]
    fn refusals_hold_the_words_that_libraries_look_for() {
        for (error, status, words) in [
            (
                ApiError::PayloadTooLarge {
                    bytes: 11,
                    bytes_max: 10,
                },
                413,
                "The data content of this event exceeds the allowed maximum (10 bytes)",
            ),
            (
                ApiError::TooManyEvents {
                    count: 11,
                    count_max: 10,
                },
                400,
                "Batch too large (11 > 10)",
            ),
        ] {
            assert_eq!(error.status().code(), status);
            assert!(error.to_string().starts_with(words), "{error}");
        }
    }

    #[test]
    fn a_whole_request_is_read() {
        let request = parse(
            r#"{"name":"my-event","channels":["my-channel","presence-foobar"],"data":"{\"hello\":\"world\"}","socket_id":"1234.5678","info":"user_count,subscription_count","x":[{}]}"#,
        )
        .expect("valid");
        assert_eq!(request.event.token(), r#""my-event""#);
        assert_eq!(names(&request), ["my-channel", "presence-foobar"]);
        assert_eq!(request.data, r#""{\"hello\":\"world\"}""#);
        assert_eq!(request.except, SocketId::new(1234, 5678));
        assert_eq!(
            request.info,
            Info {
                user_count: true,
                subscription_count: true,
                cache: false
            }
        );
    }

    #[test]
    fn data_is_a_string_verbatim_or_compact_json() {
        for (data, token) in [
            (r#""""#, r#""""#),
            (r#""not json {""#, r#""not json {""#),
            (r#""\u00e9\/ 1.0""#, r#""\u00e9\/ 1.0""#),
            ("null", r#""null""#),
            ("1.50", r#""1.50""#),
            ("true", r#""true""#),
            (
                r#"{ "b" : [ 1 , 2 ], "a" : "x y" }"#,
                r#""{\"b\":[1,2],\"a\":\"x y\"}""#,
            ),
        ] {
            let body = format!(r#"{{"name":"e","channel":"a","data":{data}}}"#);
            assert_eq!(parse(&body).expect(&body).data, token);
        }
    }

    #[test]
    fn channels_win_over_channel_and_repetitions_collapse() {
        for (fields, expected) in [
            (r#""channel":"a""#, vec!["a"]),
            (r#""channels":["b"],"channel":"a""#, vec!["b"]),
            (r#""channels":null,"channel":"a""#, vec!["a"]),
            (
                r#""channels":["b","a","b","c","a","b"]"#,
                vec!["b", "a", "c"],
            ),
            (r#""channels":["\u0061","a"]"#, vec!["a"]),
            (
                r##""channels":["#server-to-user-42"]"##,
                vec!["#server-to-user-42"],
            ),
        ] {
            let body = format!(r#"{{"name":"e","data":"1",{fields}}}"#);
            assert_eq!(names(&parse(&body).expect(&body)), expected);
        }
    }

    #[test]
    fn what_is_wrong_with_a_request_decides_its_status() {
        let name_error =
            |character| ApiError::ChannelName(ChannelNameError::Character { character });
        for (body, error, status) in [
            ("", ApiError::MalformedJson, 400),
            ("{", ApiError::MalformedJson, 400),
            ("[]", ApiError::NotAnObject, 400),
            ("{}", ApiError::Missing("name"), 400),
            (
                r#"{"name":1,"channel":"a","data":""}"#,
                ApiError::WrongType("name"),
                400,
            ),
            (
                r#"{"name":null,"channel":"a","data":""}"#,
                ApiError::WrongType("name"),
                400,
            ),
            (
                r#"{"channel":"a","data":""}"#,
                ApiError::Missing("name"),
                400,
            ),
            (
                r#"{"name":"","channel":"a","data":""}"#,
                ApiError::EventName(EventNameError::Empty),
                400,
            ),
            (
                r#"{"name":"pusher:x","channel":"a","data":""}"#,
                ApiError::EventName(EventNameError::Reserved),
                400,
            ),
            (
                r#"{"name":"pusher\u005finternal:x","channel":"a","data":""}"#,
                ApiError::EventName(EventNameError::Reserved),
                400,
            ),
            (
                r#"{"name":"e","channel":"a"}"#,
                ApiError::Missing("data"),
                400,
            ),
            (
                r#"{"name":"e","data":""}"#,
                ApiError::Missing("channels"),
                400,
            ),
            (
                r#"{"name":"e","data":"","channel":5}"#,
                ApiError::WrongType("channel"),
                400,
            ),
            (
                r#"{"name":"e","data":"","channels":"a"}"#,
                ApiError::WrongType("channels"),
                400,
            ),
            (
                r#"{"name":"e","data":"","channels":["a",5]}"#,
                ApiError::WrongType("channels"),
                400,
            ),
            (
                r#"{"name":"e","data":"","channels":[]}"#,
                ApiError::NoChannels,
                400,
            ),
            (
                r#"{"name":"e","data":"","channels":["a","b c"]}"#,
                name_error(' '),
                400,
            ),
            (
                r#"{"name":"e","data":"","channels":["a",""]}"#,
                ApiError::ChannelName(ChannelNameError::Empty),
                400,
            ),
            (
                r#"{"name":"e","data":"","channel":"a:b"}"#,
                name_error(':'),
                400,
            ),
            (
                r#"{"name":"e","data":"","channel":"a","socket_id":"12"}"#,
                ApiError::SocketId(SocketIdError),
                400,
            ),
            (
                r#"{"name":"e","data":"","channel":"a","socket_id":""}"#,
                ApiError::SocketId(SocketIdError),
                400,
            ),
            (
                r#"{"name":"e","data":"","channel":"a","socket_id":1.2}"#,
                ApiError::WrongType("socket_id"),
                400,
            ),
            (
                r#"{"name":"e","data":"","channel":"a","info":"x"}"#,
                ApiError::UnknownInfo,
                400,
            ),
            (
                r#"{"name":"e","data":"","channel":"a","info":["x"]}"#,
                ApiError::WrongType("info"),
                400,
            ),
            (
                r#"{"name":"e","data":"","channel":"a","info":"cache"}"#,
                ApiError::InfoNotApplicable("cache"),
                400,
            ),
            (
                r#"{"name":"e","data":"\ud800","channel":"a"}"#,
                ApiError::MalformedJson,
                400,
            ),
        ] {
            assert_eq!(parse(body), Err(error), "{body}");
            assert_eq!(error.status().code(), status, "{body}");
        }
        assert_eq!(
            PublishRequest::parse(b"{\"name\":\"\xFF\"}", &LIMITS),
            Err(ApiError::MalformedJson)
        );
    }

    #[test]
    fn an_unknown_socket_excludes_nobody() {
        for (socket_id, except) in [
            (r#","socket_id":"1.2""#, SocketId::new(1, 2)),
            (r#","socket_id":"99999999999.1""#, None),
            (r#","socket_id":null"#, None),
            ("", None),
        ] {
            let body = format!(r#"{{"name":"client-e","data":"","channel":"a"{socket_id}}}"#);
            assert_eq!(parse(&body).expect(&body).except, except);
        }
    }

    #[test]
    fn each_limit_of_an_event_is_exact() {
        let limits = EventLimits {
            event_name_bytes_max: 10,
            channel_name_bytes_max: 10,
            channels_max: 10,
            payload_bytes_max: 10,
        };
        for (size, accepted) in [(9, true), (10, true), (11, false)] {
            let text = "x".repeat(size);
            let channels: Vec<String> = (0..size).map(|n| format!("\"{n}\"")).collect();
            for (what, body, status) in [
                (
                    "name",
                    format!(r#"{{"name":"{text}","channel":"a","data":""}}"#),
                    400,
                ),
                (
                    "channel",
                    format!(r#"{{"name":"e","channel":"{text}","data":""}}"#),
                    400,
                ),
                (
                    "channels",
                    format!(
                        r#"{{"name":"e","channels":[{}],"data":""}}"#,
                        channels.join(",")
                    ),
                    400,
                ),
                (
                    "data",
                    format!(r#"{{"name":"e","channel":"a","data":"{text}"}}"#),
                    413,
                ),
                (
                    "escaped data",
                    format!(
                        r#"{{"name":"e","channel":"a","data":"\u0078{}"}}"#,
                        &text[1..]
                    ),
                    413,
                ),
                (
                    "array data",
                    format!(
                        r#"{{"name":"e","channel":"a","data":[ "{}" ]}}"#,
                        &text[4..]
                    ),
                    413,
                ),
            ] {
                match PublishRequest::parse(body.as_bytes(), &limits) {
                    Ok(_) => assert!(accepted, "{what} of {size}"),
                    Err(error) => {
                        assert!(!accepted, "{what} of {size}: {error}");
                        assert_eq!(error.status().code(), status, "{what}");
                    }
                }
            }
        }
        // The list counts before repetitions collapse.
        let repeated = format!(
            r#"{{"name":"e","channels":[{}"a"],"data":""}}"#,
            "\"a\",".repeat(10)
        );
        assert_eq!(
            PublishRequest::parse(repeated.as_bytes(), &limits),
            Err(ApiError::TooManyChannels {
                count: 11,
                count_max: 10
            })
        );
    }

    #[test]
    fn json_that_no_event_can_have_is_not_read_to_its_end() {
        let with = |more: &str| format!(r#"{{"name":"e","channel":"c","data":"x",{more}}}"#);
        let items = |count: usize| format!("[{}0]", "[],".repeat(count));
        let keys: String = (0..200_000).map(|_| r#""":1,"#).collect();
        let dear_max = LIMITS.bound(1).dear_bytes_max;
        let too_much = Err(ApiError::TooMuchJson {
            bytes_max: dear_max,
        });
        for (more, expected) in [
            (format!(r#""z":{}"#, items(100)), Ok(())),
            (format!(r#""z":"{}""#, "x".repeat(2 * dear_max)), Ok(())),
            (format!(r#""z":{}"#, items(dear_max / 2)), too_much),
            (format!("{keys}\"z\":1"), too_much),
        ] {
            let body = with(&more);
            let single = PublishRequest::parse(body.as_bytes(), &LIMITS).map(|_| ());
            assert_eq!(single, expected, "{}", body.len());
        }
        let data = format!(
            r#"{{"name":"e","channel":"c","data":[{}1]}}"#,
            "1,".repeat(LIMITS.payload_bytes_max / 2 - 2)
        );
        assert!(PublishRequest::parse(data.as_bytes(), &LIMITS).is_ok());
    }

    #[test]
    fn of_escapes_there_may_be_as_many_as_data_has_bytes_and_some_wherever_they_stand() {
        let count_max = LIMITS.bound(1).escapes_max;
        let too_many = Err(ApiError::TooManyEscapes { count_max });
        let with = |name: &str, data: &str, more: &str| {
            format!(r#"{{"name":"{name}","channel":"c","data":"{data}"{more}}}"#)
        };
        let payload = LIMITS.payload_bytes_max;
        let run = |escape: &str, count: usize| escape.repeat(count);
        let name_bytes = |bytes| {
            Err(ApiError::EventName(EventNameError::TooLong {
                bytes,
                bytes_max: LIMITS.event_name_bytes_max,
            }))
        };
        let key = format!(r#","{}":1"#, run(r"\n", count_max + 1));
        for (body, expected) in [
            (with("e", &run(r"\u0001", payload), ""), Ok(())),
            (with("e", &run(r"\u4e2d", payload / 3), ""), Ok(())),
            (
                with("e", &run(r"\n", payload + 1), ""),
                Err(ApiError::PayloadTooLarge {
                    bytes: payload + 1,
                    bytes_max: payload,
                }),
            ),
            (with("e", &run(r"\n", count_max + 1), ""), too_many),
            (with(&run(r"\n", count_max + 1), "", ""), too_many),
            (with("e", "", &key), too_many),
            (with(&run(r"\u00e9", 100), "", ""), Ok(())),
            (with(&run(r"\u00e9", 5_000), "", ""), name_bytes(10_000)),
        ] {
            let read = PublishRequest::parse(body.as_bytes(), &LIMITS).map(|_| ());
            assert_eq!(read, expected, "{body:.80}");
        }
    }

    #[test]
    fn of_what_is_too_long_to_be_right_its_length_is_told_and_no_more_is_looked_at() {
        let with = |more: &str| format!(r#"{{"name":"e","data":"",{more}}}"#);
        let long = r"\u0061".repeat(10_000);
        let channel = ApiError::ChannelName(ChannelNameError::TooLong {
            bytes: 10_000,
            bytes_max: 200,
        });
        let user = ApiError::ChannelName(ChannelNameError::UserId);
        for (more, expected) in [
            (format!(r#""channel":"{long}""#), channel),
            (format!(r#""channels":["a","{long}","{long}b"]"#), channel),
            (format!(r##""channel":"#server-to-user-{long}""##), user),
            (
                format!(r#""channel":"a","socket_id":"{}.1""#, "1".repeat(10_000)),
                ApiError::SocketId(SocketIdError),
            ),
            (
                format!(r#""channel":"a","info":"{}""#, ",".repeat(10_000)),
                ApiError::UnknownInfo,
            ),
        ] {
            let body = with(&more);
            let read = PublishRequest::parse(body.as_bytes(), &LIMITS);
            assert_eq!(read, Err(expected), "{body:.60}");
        }
        let id = "é".repeat(128);
        let body = with(&format!(r##""channel":"#server-to-user-{id}""##));
        assert!(PublishRequest::parse(body.as_bytes(), &LIMITS).is_ok());
    }

    #[test]
    fn an_error_is_answered_in_json() {
        for (error, body) in [
            (
                ApiError::Auth(HttpAuthError::WrongSignature),
                r#"{"error":"Invalid API signature"}"#,
            ),
            (
                ApiError::RateLimited,
                r#"{"error":"Too Many Requests","message":"Rate limit exceeded. Please try again later."}"#,
            ),
            (ApiError::Missing("data"), r#"{"error":"data is missing"}"#),
        ] {
            let mut out = Vec::new();
            error.write_body(&mut out);
            assert_eq!(String::from_utf8_lossy(&out), body);
        }
        for (error, status) in [
            (ApiError::Auth(HttpAuthError::Skew), 401),
            (ApiError::AppDisabled, 403),
            (ApiError::AppUnknown, 404),
            (ApiError::NotFound, 404),
            (ApiError::MethodNotAllowed, 405),
            (ApiError::BodyTooLarge { bytes_max: 1 }, 413),
            (
                ApiError::PayloadTooLarge {
                    bytes: 2,
                    bytes_max: 1,
                },
                413,
            ),
            (ApiError::RateLimited, 429),
            (ApiError::Internal, 500),
            (ApiError::Unavailable, 503),
            (ApiError::NotPresence, 400),
            (ApiError::UserId, 400),
        ] {
            assert_eq!(error.status().code(), status, "{error}");
        }
    }

    proptest! {
        #[test]
        fn distinct_names_stay_in_the_order_given(picks in prop::collection::vec(0_u8..12, 1..60)) {
            let mut names: SmallVec<[Cow<'_, str>; 2]> =
                picks.iter().map(|pick| Cow::from(pick.to_string())).collect();
            let mut naive: Vec<String> = Vec::new();
            for pick in &picks {
                if !naive.contains(&pick.to_string()) {
                    naive.push(pick.to_string());
                }
            }
            drop_repetitions(&mut names);
            prop_assert_eq!(names.to_vec(), naive);
        }

        #[test]
        fn no_body_makes_the_parser_panic(body in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = PublishRequest::parse(&body, &LIMITS);
        }
    }
}
