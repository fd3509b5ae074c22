//! What a client says. The bytes: one text message.
//!
//! Owns: the meaning of a frame, read from serde_json's view of it.
//! May depend on: `judge`; `sockudo::protocol::{incoming, json}`.
//! Invariants: none.

use sockudo::protocol::incoming::{ChannelData, ClientData, Incoming, IncomingError};
use sockudo::protocol::json::{self, JsonError, JsonString, JsonValue};

use super::judge::{self, Members};

pub fn check(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    json_of_any_type(text);
    let parsed = Incoming::parse(text);
    assert_eq!(parsed, expected(text), "{text}");
    if let Ok(Incoming::ClientEvent { data, .. }) = parsed {
        client_data(text, data);
    }
}

/// Our scanner and the judge accept the same texts, and tell an object from the rest.
fn json_of_any_type(text: &str) {
    let is_accepted = judge::accepts(text);
    let parsed = JsonValue::parse(text);
    assert_eq!(parsed.is_ok(), is_accepted, "{text}");
    if let Ok(value) = parsed {
        assert_eq!(value.raw(), text.trim_matches(WHITESPACE));
    }
    let members = json::for_each_member(text, |_, _| ());
    match judge::members(text) {
        Some(_) => assert_eq!(members, Ok(()), "{text}"),
        None if is_accepted => assert_eq!(members, Err(JsonError::NotAnObject), "{text}"),
        None => assert!(
            matches!(members, Err(JsonError::Malformed | JsonError::TooDeep)),
            "{text}: {members:?}"
        ),
    }
    let mut ours = Vec::new();
    let items = json::for_each_item(text, |item| ours.push(item.raw()));
    match judge::items(text) {
        Some(theirs) => {
            let theirs: Vec<&str> = theirs.iter().map(|item| item.get()).collect();
            assert_eq!((items, ours), (Ok(()), theirs), "{text}");
        }
        None => assert!(items.is_err(), "{text}"),
    }
}

fn expected(text: &str) -> Result<Incoming<'_>, IncomingError> {
    let frame = judge::members(text).ok_or(IncomingError::Malformed)?;
    let event_token = frame
        .last_but_null("event")
        .ok_or(IncomingError::Nameless)?;
    let event = judge::string(event_token).ok_or(IncomingError::Malformed)?;
    let data = frame.last("data");
    match &*event {
        "" => Err(IncomingError::Nameless),
        "pusher:ping" => Ok(Incoming::Ping),
        "pusher:pong" => Ok(Incoming::Pong),
        "pusher:subscribe" => subscribe(data),
        "pusher:unsubscribe" => unsubscribe(data),
        "pusher:signin" => sign_in(data),
        client if client.starts_with("client-") => Ok(Incoming::ClientEvent {
            event_token: JsonString::parse(event_token).expect("the judge accepted the token"),
            channel: string_of(&frame, "channel").map(Into::into),
            data: match data {
                None => ClientData::Absent,
                Some(token) if token.starts_with('"') => {
                    ClientData::Text(JsonString::parse(token).expect("as above"))
                }
                // What stands for it is the same static text on both sides.
                Some(raw) => ClientData::Json(raw),
            },
            event: event.into(),
        }),
        _ => Ok(Incoming::Ignored),
    }
}

fn subscribe(data: Option<&str>) -> Result<Incoming<'static>, IncomingError> {
    let text = object_text(data);
    let fields = text.as_deref().and_then(judge::members);
    let fields = fields.ok_or(IncomingError::NoChannel)?;
    Ok(Incoming::Subscribe {
        channel: string_of(&fields, "channel")
            .ok_or(IncomingError::NoChannel)?
            .into(),
        auth: string_of(&fields, "auth").map(Into::into),
        channel_data: match fields.last_but_null("channel_data") {
            None => ChannelData::Absent,
            Some(value) => match judge::string(value) {
                None => ChannelData::NotText,
                Some(empty) if empty.is_empty() => ChannelData::Absent,
                Some(text) => ChannelData::Text(text.into()),
            },
        },
    })
}

fn unsubscribe(data: Option<&str>) -> Result<Incoming<'static>, IncomingError> {
    let text = object_text(data).ok_or(IncomingError::NoChannel)?;
    let channel = match judge::members(&text) {
        Some(fields) => string_of(&fields, "channel"),
        // Old clients of 2.9.2 name the channel directly, as a string.
        None => data.and_then(judge::string),
    };
    Ok(Incoming::Unsubscribe {
        channel: channel.ok_or(IncomingError::NoChannel)?.into(),
    })
}

fn sign_in(data: Option<&str>) -> Result<Incoming<'static>, IncomingError> {
    let text = object_text(data);
    let fields = text.as_deref().and_then(judge::members);
    let fields = fields.ok_or(IncomingError::BadSignIn)?;
    let field = |key| string_of(&fields, key).ok_or(IncomingError::BadSignIn);
    Ok(Incoming::SignIn {
        auth: field("auth")?.into(),
        user_data: field("user_data")?.into(),
    })
}

/// The text of the object that data is, or of the string that may hold one.
fn object_text(data: Option<&str>) -> Option<String> {
    let data = data?;
    judge::string(data).or_else(|| data.starts_with('{').then(|| data.to_owned()))
}

fn string_of(fields: &Members<'_>, key: &str) -> Option<String> {
    fields.last(key).and_then(judge::string)
}

/// Subscribers get a string token: the string that the client sent, or the compact text of what else it sent.
fn client_data(text: &str, data: ClientData<'_>) {
    let mut token = Vec::new();
    let written = data.write_token(&mut token);
    assert_eq!(written, data.bytes(), "{text}");
    let token = String::from_utf8(token).expect("a token is text");
    let decoded = judge::string(&token).expect("a token is a JSON string");
    assert_eq!(decoded.len(), written, "{text}");
    let sent = judge::members(text).and_then(|frame| frame.last("data"));
    let sent = sent.unwrap_or("null");
    let expected = judge::string(sent).unwrap_or_else(|| judge::compact(sent));
    assert_eq!(decoded, expected, "{text}");
}

const WHITESPACE: [char; 4] = [' ', '\t', '\n', '\r'];
