//! What is published. The bytes: a body, read as one of `/events` and as one of `/batch_events`.
//!
//! Owns: what either must be, told over serde_json's view of it.
//! May depend on: `judge`; `sockudo::http::{api, info}`, `sockudo::protocol::{name, socket_id}`.
//! Invariants: none.

use sockudo::http::api::{self, ApiError, EventLimits, PublishRequest};
use sockudo::http::batch::{BatchReader, Read};
use sockudo::http::info::Info;
use sockudo::protocol::name::{ChannelName, check_event_name};
use sockudo::protocol::socket_id::SocketId;

use super::judge;

pub fn check(bytes: &[u8]) {
    let one = PublishRequest::parse(bytes, &LIMITS);
    let batch = batch(bytes);
    for error in [one.as_ref().err(), batch.as_ref().err()]
        .into_iter()
        .flatten()
    {
        answer(*error);
    }
    let Some(text) = std::str::from_utf8(bytes)
        .ok()
        .filter(|text| judge::accepts(text))
    else {
        assert_eq!(one, Err(ApiError::MalformedJson));
        assert_eq!(batch, Err(ApiError::MalformedJson));
        return;
    };
    if judge::members(text).is_none() {
        assert_eq!(one, Err(ApiError::NotAnObject), "{text}");
        assert_eq!(batch, Err(ApiError::NotAnObject), "{text}");
        return;
    }
    match (&one, expected(text)) {
        (Ok(request), Some(event)) => assert_eq!(Event::of(request), event, "{text}"),
        (Err(_), None) => {}
        (one, event) => panic!("{text}\n{one:?}\n{event:?}"),
    }
    batch_of(text, &batch);
}

/// The events of a batch.
fn batch(bytes: &[u8]) -> Result<Vec<PublishRequest<'_>>, ApiError> {
    let body = api::text(bytes)?;
    let (mut reader, mut events) = (BatchReader::default(), Vec::new());
    loop {
        match reader.step(body, &LIMITS, EVENTS_MAX)? {
            Read::Begins => events.clear(),
            Read::Event(event) => events.push(event),
            Read::Other => {}
            Read::Whole => return Ok(events),
        }
    }
}

/// One event, whatever it was read from.
#[derive(Debug, PartialEq)]
struct Event {
    name: String,
    channels: Vec<String>,
    data: String,
    except: Option<SocketId>,
    info: Info,
}

impl Event {
    fn of(request: &PublishRequest<'_>) -> Self {
        let channels = request.names.iter().map(|name| (**name).to_owned());
        Self {
            name: request.event.decoded().into_owned(),
            channels: channels.collect(),
            data: judge::string(&request.data).expect("data is a JSON string token"),
            except: request.except,
            info: request.info,
        }
    }
}

/// The event that an object describes; `None` where it must be refused.
fn expected(object: &str) -> Option<Event> {
    let fields = judge::members(object)?;
    let name = fields.last("name").and_then(judge::string)?;
    check_event_name(&name, LIMITS.event_name_bytes_max).ok()?;
    let given: Vec<String> = match fields.last_but_null("channels") {
        Some(list) => {
            let names = judge::items(list)?;
            let names = names.iter().map(|item| judge::string(item.get()));
            names.collect::<Option<_>>()?
        }
        None => vec![fields.last_but_null("channel").and_then(judge::string)?],
    };
    if !(1..=LIMITS.channels_max).contains(&given.len()) {
        return None;
    }
    let mut channels: Vec<String> = Vec::new();
    for name in given {
        ChannelName::parse(&name, LIMITS.channel_name_bytes_max).ok()?;
        if !channels.contains(&name) {
            channels.push(name);
        }
    }
    let except = match fields.last_but_null("socket_id") {
        None => None,
        Some(id) => SocketId::parse(&judge::string(id)?).ok()?,
    };
    let info = match fields.last_but_null("info") {
        None => Info::default(),
        Some(list) => Info::parse(&judge::string(list)?).ok()?.for_events().ok()?,
    };
    let data = fields.last("data")?;
    let data = judge::string(data).unwrap_or_else(|| judge::compact(data));
    (data.len() <= LIMITS.payload_bytes_max).then_some(Event {
        name,
        channels,
        data,
        except,
        info,
    })
}

/// A batch is accepted iff each of its items would be, and says the same as they do.
fn batch_of(text: &str, batch: &Result<Vec<PublishRequest<'_>>, ApiError>) {
    let items = judge::members(text)
        .and_then(|fields| judge::items(fields.last("batch")?))
        .filter(|items| (1..=EVENTS_MAX).contains(&items.len()));
    let events: Option<Vec<Event>> =
        items.and_then(|items| items.iter().map(|item| expected(item.get())).collect());
    match (batch, events) {
        (Ok(batch), Some(events)) => {
            let read: Vec<Event> = batch.iter().map(Event::of).collect();
            assert_eq!(read, events, "{text}");
        }
        (Err(_), None) => {}
        (batch, events) => panic!("{text}\n{batch:?}\n{events:?}"),
    }
}

/// Every refusal is a client's fault, told as an object with a text.
fn answer(error: ApiError) {
    let mut body = Vec::new();
    error.write_body(&mut body);
    let body = String::from_utf8(body).expect("an answer is text");
    let told = judge::members(&body).and_then(|fields| judge::string(fields.last("error")?));
    assert!(told.is_some_and(|text| !text.is_empty()), "{body}");
    assert!((400..500).contains(&error.status().code()), "{error:?}");
}

/// Small, so that inputs on both sides of each are short; more channels than are compared pairwise.
const LIMITS: EventLimits = EventLimits {
    event_name_bytes_max: 12,
    channel_name_bytes_max: 12,
    channels_max: 11,
    payload_bytes_max: 32,
};
const EVENTS_MAX: usize = 3;
