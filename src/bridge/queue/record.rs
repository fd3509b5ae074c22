//! A job as text, for stores that nodes share and for dead letters.
//!
//! Owns: `Record`, its JSON.
//! May depend on: `bridge::{message, queue}`, `protocol::{json, webhook}`, `sonic-rs`.
//! Invariants: no secret stands in it, and no URL; events are written as they go on the wire, and what is
//! read gives the same bytes again; nothing that is read can panic.

use std::{borrow::Cow, sync::Arc};

use serde::Deserialize;
use shards::application::Millis;
use sonic_rs::LazyValue;

use super::{Job, TargetName};
use crate::{
    bridge::webhook_event::{ClientEventOfWebhook, WebhookEvent, WebhookKind},
    protocol::{
        app::AppIndex,
        json::{write_json_string, write_u64},
        outgoing::write_list,
    },
};

/// A job without anything that only one process knows.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    pub app_id: Box<str>,
    pub target: TargetName,
    /// From when its age counts, milliseconds since the Unix epoch; later than the first event's time
    /// for a dead letter that was called back.
    pub since_ms: u64,
    /// Attempts made before it was written.
    pub attempts: u32,
    /// What the last one met.
    pub error: Option<Arc<str>>,
    /// Their `app` is not known yet.
    pub events: Vec<Arc<WebhookEvent>>,
}

/// Why a text is no job. It never quotes the text: a job of Sockudo 2.9 holds a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordFault {
    #[error("it is not the JSON of a job")]
    Json,
    #[error("version {0} of a job is not known here")]
    Version(u32),
    #[error("its target is no name of one")]
    Target,
    #[error("it has no event that is known here")]
    Empty,
}

/// The version of the format that this program writes.
const VERSION: u32 = 1;

#[derive(Deserialize)]
struct Text<'a> {
    v: u32,
    #[serde(borrow)]
    app: Cow<'a, str>,
    #[serde(borrow)]
    target: Cow<'a, str>,
    since: u64,
    #[serde(default)]
    attempts: u32,
    error: Option<Arc<str>>,
    time_ms: u64,
    #[serde(borrow)]
    events: Vec<EventText<'a>>,
}

/// An event on the wire, of whichever kind.
#[derive(Deserialize)]
pub(super) struct EventText<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    channel: Cow<'a, str>,
    user_id: Option<Arc<str>>,
    #[serde(borrow, default)]
    event: Option<LazyValue<'a>>,
    #[serde(borrow, default)]
    data: Option<LazyValue<'a>>,
    socket_id: Option<Box<str>>,
    subscription_count: Option<u64>,
}

impl Record {
    /// Writes a job for `target` of `app_id`.
    pub fn write(out: &mut Vec<u8>, app_id: &str, target: TargetName, since_ms: u64, job: &Job) {
        let error = job.error.as_deref();
        let head = (app_id, target, since_ms, job.attempts, error);
        write(out, head, &job.events);
    }

    /// The same with other events.
    pub fn with(&self, events: Vec<Arc<WebhookEvent>>) -> Self {
        Self {
            app_id: self.app_id.clone(),
            error: self.error.clone(),
            events,
            ..*self
        }
    }

    /// The same text again.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let error = self.error.as_deref();
        let head = (
            &*self.app_id,
            self.target,
            self.since_ms,
            self.attempts,
            error,
        );
        write(&mut out, head, &self.events);
        out
    }

    /// # Errors
    /// When `text` is no job of a version that this program knows.
    pub fn read(text: &[u8]) -> Result<Self, RecordFault> {
        let text: Text<'_> = sonic_rs::from_slice(text).map_err(|_| RecordFault::Json)?;
        if text.v != VERSION {
            return Err(RecordFault::Version(text.v));
        }
        let events = text.events.into_iter();
        let events = events.filter_map(|it| it.event(text.time_ms)).map(Arc::new);
        let events: Vec<Arc<WebhookEvent>> = events.collect();
        if events.is_empty() {
            return Err(RecordFault::Empty);
        }
        Ok(Self {
            app_id: text.app.into(),
            target: TargetName::parse(&text.target).ok_or(RecordFault::Target)?,
            since_ms: text.since,
            attempts: text.attempts,
            error: text.error,
            events,
        })
    }

    /// The job of an app that this node knows by that number.
    pub fn into_job(self, app: AppIndex, created: Millis) -> Job {
        let of_app = |mut event: Arc<WebhookEvent>| {
            Arc::make_mut(&mut event).app = app;
            event
        };
        let events = self.events.into_iter().map(of_app).collect();
        Job {
            attempts: self.attempts,
            error: self.error,
            ..Job::new(app, events, created)
        }
    }
}

/// What a job of Sockudo 2.9 says. The secret in it is not read.
#[derive(Debug)]
pub struct OldRecord {
    pub app_id: Box<str>,
    /// Their `app` is not known yet.
    pub events: Vec<WebhookEvent>,
}

#[derive(Deserialize)]
struct OldText<'a> {
    app_id: Box<str>,
    #[serde(borrow)]
    payload: OldPayload<'a>,
}

#[derive(Deserialize)]
struct OldPayload<'a> {
    time_ms: u64,
    #[serde(borrow)]
    events: Vec<EventText<'a>>,
}

impl OldRecord {
    /// `None` for what is none.
    pub fn read(text: &[u8]) -> Option<Self> {
        let OldText { app_id, payload } = sonic_rs::from_slice(text).ok()?;
        let events = payload.events.into_iter();
        let events: Vec<WebhookEvent> = events.filter_map(|it| it.event(payload.time_ms)).collect();
        (!events.is_empty()).then_some(Self { app_id, events })
    }
}

type Head<'a> = (&'a str, TargetName, u64, u32, Option<&'a str>);

fn write(
    out: &mut Vec<u8>,
    (app_id, target, since_ms, attempts, error): Head<'_>,
    events: &[Arc<WebhookEvent>],
) {
    // What Redis looks for in it and changes stands first.
    out.extend_from_slice(br#"{"v":1,"#);
    if let Some(error) = error {
        out.extend_from_slice(br#""error":"#);
        write_json_string(out, error);
        out.push(b',');
    }
    out.extend_from_slice(br#""app":"#);
    write_json_string(out, app_id);
    out.extend_from_slice(format!(r#","target":"{target}","since":"#).as_bytes());
    write_u64(out, since_ms);
    out.extend_from_slice(br#","attempts":"#);
    write_u64(out, attempts.into());
    out.extend_from_slice(br#","time_ms":"#);
    write_u64(out, events.first().map_or(0, |event| event.time_ms));
    out.extend_from_slice(br#","events":["#);
    write_list(out, events.iter(), |out, event| {
        event.on_the_wire().write(out)
    });
    out.extend_from_slice(b"]}");
}

impl EventText<'_> {
    /// `None` for one that is of no kind, or lacks a part of its kind.
    pub(super) fn event(self, time_ms: u64) -> Option<WebhookEvent> {
        let user_id = self.user_id;
        let kind = match &*self.name {
            "channel_occupied" => WebhookKind::ChannelOccupied,
            "channel_vacated" => WebhookKind::ChannelVacated,
            "member_added" => WebhookKind::MemberAdded { user_id: user_id? },
            "member_removed" => WebhookKind::MemberRemoved { user_id: user_id? },
            "client_event" => WebhookKind::ClientEvent(Box::new(ClientEventOfWebhook {
                event: self.event?.as_raw_str().into(),
                data: self.data?.as_raw_str().into(),
                socket_id: self.socket_id.unwrap_or_default(),
                user_id,
            })),
            "cache_miss" => WebhookKind::CacheMiss,
            "subscription_count" => WebhookKind::SubscriptionCount {
                count: self.subscription_count?,
            },
            _ => return None,
        };
        Some(WebhookEvent {
            app: AppIndex::NONE,
            time_ms,
            channel: self.channel.into(),
            kind,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_kinds() -> Vec<Arc<WebhookEvent>> {
        let client_event = |user_id: Option<&str>| {
            WebhookKind::ClientEvent(Box::new(ClientEventOfWebhook {
                event: r#""client-\"x\"""#.into(),
                data: r#""{\"é\":1}""#.into(),
                socket_id: "1.2".into(),
                user_id: user_id.map(Into::into),
            }))
        };
        let user_id: Arc<str> = "u\"é".into();
        let kinds = [
            WebhookKind::ChannelOccupied,
            WebhookKind::ChannelVacated,
            WebhookKind::MemberAdded {
                user_id: Arc::clone(&user_id),
            },
            WebhookKind::MemberRemoved { user_id },
            client_event(Some("7")),
            client_event(None),
            WebhookKind::CacheMiss,
            WebhookKind::SubscriptionCount { count: 3 },
        ];
        let event = |kind| WebhookEvent {
            app: AppIndex(4),
            time_ms: 1_700,
            channel: "presence-\"é\"".into(),
            kind,
        };
        kinds
            .into_iter()
            .map(|kind| Arc::new(event(kind)))
            .collect()
    }

    #[test]
    fn a_job_is_read_as_it_was_written_with_every_kind_of_event() {
        let events = all_kinds();
        let mut job = Job::new(AppIndex(4), events.clone(), Millis(9));
        job.attempts = 3;
        job.met("answered \"500\"");
        let target = TargetName::of("shop \"1\"", "http://x/", 0);
        let mut out = Vec::new();
        Record::write(&mut out, "shop \"1\"", target, 1_800, &job);
        let record = Record::read(&out).expect("our own");
        let head = (
            &*record.app_id,
            record.target,
            record.since_ms,
            record.attempts,
        );
        assert_eq!(head, ("shop \"1\"", target, 1_800, 3));
        assert_eq!(record.to_bytes(), out);
        let again = record.into_job(AppIndex(4), Millis(9));
        assert_eq!((again.events, again.attempts), (events, 3));
        assert_eq!(again.error.as_deref(), Some("answered \"500\""));
        assert_eq!(again.channels, job.channels);
    }

    #[test]
    fn of_a_long_error_the_beginning_is_kept() {
        let mut job = Job::new(AppIndex(4), all_kinds(), Millis(9));
        job.met(&"é".repeat(1_000));
        assert_eq!(job.error.as_deref(), Some(&*"é".repeat(128)));
        job.met(&format!("x{}", "é".repeat(1_000)));
        assert_eq!(
            job.error.as_deref(),
            Some(&*format!("x{}", "é".repeat(127)))
        );
    }

    #[test]
    fn what_is_no_job_is_said_to_be_none() {
        let name = TargetName::of("a", "b", 0);
        let whole = format!(
            r#"{{"v":1,"app":"a","target":"{name}","since":1,"time_ms":2,"events":[{{"name":"cache_miss","channel":"c"}}]}}"#
        );
        assert!(Record::read(whole.as_bytes()).is_ok());
        for (from, to, fault) in [
            (r#""v":1"#, r#""v":2"#, RecordFault::Version(2)),
            (r#""v":1"#, r#""v":-1"#, RecordFault::Json),
            (r#"cache_miss"#, "unheard_of", RecordFault::Empty),
            (r#"cache_miss"#, "member_added", RecordFault::Empty),
            (r#"cache_miss"#, "client_event", RecordFault::Empty),
            (r#""app":"a","#, "", RecordFault::Json),
            ("]}", "]", RecordFault::Json),
            (r#""target":""#, r#""target":"x"#, RecordFault::Target),
        ] {
            let text = whole.replace(from, to);
            assert_eq!(Record::read(text.as_bytes()), Err(fault), "{text}");
        }
        for end in 0..whole.len() {
            assert!(Record::read(&whole.as_bytes()[..end]).is_err(), "{end}");
        }
        assert_eq!(Record::read(b"\xff\xfe"), Err(RecordFault::Json));
    }

    #[test]
    fn a_job_of_sockudo_2_9_is_read() {
        let text = br#"{"app_key":"k","app_id":"a","app_secret":"s","payload":{"time_ms":5,"events":[
            {"name":"client_event","channel":"private-c","event":"client-x","data":{"a":1},"socket_id":"1.2"},
            {"name":"unheard_of","channel":"c"}]},"original_signature":"ff"}"#;
        let record = OldRecord::read(text).expect("a job");
        assert_eq!((&*record.app_id, record.events.len()), ("a", 1));
        let mut wire = Vec::new();
        record.events[0].on_the_wire().write(&mut wire);
        assert_eq!(
            String::from_utf8_lossy(&wire),
            r#"{"name":"client_event","channel":"private-c","event":"client-x","data":{"a":1},"socket_id":"1.2"}"#
        );
        assert!(!format!("{record:?}").contains("app_secret"));
        assert!(OldRecord::read(b"{}").is_none());
        assert!(
            OldRecord::read(br#"{"app_id":"a","payload":{"time_ms":5,"events":[]}}"#).is_none()
        );
    }

    #[test]
    fn a_target_has_a_name_that_tells_nothing_and_is_its_own() {
        let name = TargetName::of("a", "http://x/?token=1", 0);
        assert_eq!(TargetName::parse(&name.to_string()), Some(name));
        for (app, url, ordinal) in [
            ("a", "http://x/?token=1", 1),
            ("a", "http://x/?token=2", 0),
            ("ahttp://x/?token=1", "", 0),
            ("b", "http://x/?token=1", 0),
        ] {
            assert_ne!(TargetName::of(app, url, ordinal), name);
        }
        let text = name.to_string();
        for bad in [
            &text[1..],
            "+0000000000000000000000000000001",
            &text.to_uppercase().replace(char::is_numeric, "A"),
        ] {
            assert_eq!(TargetName::parse(bad), None, "{bad}");
        }
    }
}
