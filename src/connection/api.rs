//! Which requests of the HTTP API are done: every check in its order, before anything happens.
//!
//! Owns: the order of checks (docs/http-api.md), the frames of events that are published.
//! May depend on: `connection::{pending, rules}`, `channel::{names, user}`, `http`, `protocol`, `ws::encode`.
//! Invariants: an `Action` passed every check of the whole request; nothing was published, kept or
//! counted for it.

use std::{borrow::Cow, sync::Arc};

use shards::work::Work;

use super::pending::{Action, PublicEvent, Publication};
use crate::{
    channel::{
        kept::Event,
        names::{NameHasher, NameKey},
        user::UserId,
    },
    http::{
        api::{ApiError, BatchRequest, EventLimits, PublishRequest},
        query::{self, ChannelsQuery},
        request::Head,
        route::Route,
    },
    protocol::{
        name::{ChannelName, is_user_id},
        outgoing,
        partition::AppPartitions,
        request_auth::{self, BodyDigest, RequestToVerify},
        rules::AppRules,
    },
    ws::encode,
};

/// A whole request of the API, for the app that its path names.
pub struct ApiRequest<'r, 'h> {
    pub head: &'r Head<'h>,
    pub route: &'r Route<'r>,
    pub body: &'r [u8],
    /// Of a body that came in pieces.
    pub digest: Option<BodyDigest>,
    /// By which channels and users are found.
    pub names: &'r NameHasher,
    /// Of the node, as configured.
    pub path_prefix: &'r str,
    /// Of an event as subscribers get it.
    pub frame_bytes_max: usize,
    pub now_s: u64,
}

/// What checking a request's signature may cost.
pub fn cost_of_check(request: &RequestToVerify<'_>) -> Work {
    let (tries, bytes) = request_auth::hashing_max(request);
    Work::SIGNATURE.and(Work::bytes_hashed(bytes)).times(tries)
}

impl ApiRequest<'_, '_> {
    /// Checks it and says what is to be done. `work` grows by what that costs, `frame` is room to
    /// write in.
    ///
    /// # Errors
    /// The first check that it did not pass.
    pub fn check(
        self,
        app: &AppRules,
        work: &mut Work,
        frame: &mut Vec<u8>,
    ) -> Result<Action, ApiError> {
        let head = self.head;
        let to_verify = RequestToVerify {
            method: head.method,
            raw_path: head.raw_path,
            query: head.query,
            body: self.body,
            app_key: &app.key,
            signers: &app.signers,
            now_s: self.now_s,
            path_prefix: self.path_prefix,
        };
        *work = work.and(cost_of_check(&to_verify));
        let form = match self.digest {
            Some(digest) => request_auth::verify_hashed_request(to_verify, digest)?,
            None => request_auth::verify_request(to_verify)?,
        };
        if !app.is_enabled {
            return Err(ApiError::AppDisabled);
        }
        let body = if matches!(self.route, Route::Events { .. }) && self.body.is_empty() {
            query::event_body(head.query, form)?.into()
        } else {
            Cow::Borrowed(self.body)
        };
        let keys = Keys {
            names: self.names,
            app: &app.partitions,
            frame_bytes_max: self.frame_bytes_max,
        };
        action_of(app, keys, self.route, head, &body, frame)
    }
}

/// Makes the keys of what a request names, and says how long a frame may be that is made of it.
#[derive(Clone, Copy)]
struct Keys<'r> {
    names: &'r NameHasher,
    app: &'r AppPartitions,
    frame_bytes_max: usize,
}

impl Keys<'_> {
    fn of_channel(self, name: &str) -> NameKey {
        self.names.channel_key(self.app, name)
    }
}

fn action_of(
    app: &AppRules,
    keys: Keys<'_>,
    route: &Route<'_>,
    head: &Head<'_>,
    body: &[u8],
    frame: &mut Vec<u8>,
) -> Result<Action, ApiError> {
    let name_max = app.channel_name_bytes_max as usize;
    match route {
        Route::Events { .. } => {
            let request = PublishRequest::parse(body, &event_limits(app))?;
            let mut publication = Publication {
                events: Vec::with_capacity(request.channels().len()),
                reports: vec![request.info],
                is_batch: false,
            };
            encode_events(&request, 0, keys, frame, &mut publication.events)?;
            Ok(Action::Publish(publication))
        }
        Route::BatchEvents { .. } => batch_of(app, keys, body, frame),
        Route::Channels { .. } => {
            let query = ChannelsQuery::parse(head.query)?;
            let prefix = (*query.filter_by_prefix).into();
            Ok(Action::Channels {
                prefix,
                info: query.info,
            })
        }
        Route::Channel { channel, .. } => {
            let name = ChannelName::parse(channel.text()?, name_max)?;
            let info = query::channel_info(head.query, name.kind())?;
            Ok(Action::Channel {
                name: name.as_str().into(),
                key: keys.of_channel(name.as_str()),
                info,
            })
        }
        Route::Users { channel, .. } => {
            let name = ChannelName::parse(channel.text()?, name_max)?;
            if !name.kind().is_presence() {
                return Err(ApiError::NotPresence);
            }
            Ok(Action::Users {
                name: name.as_str().into(),
                key: keys.of_channel(name.as_str()),
            })
        }
        Route::Terminate { user, .. } => {
            let user = user.text()?;
            if !is_user_id(user) {
                return Err(ApiError::UserId);
            }
            Ok(Action::Terminate {
                user_id: UserId::new(keys.names, keys.app, user),
            })
        }
        Route::App { .. }
        | Route::AppBadPath
        | Route::Up
        | Route::UpApp { .. }
        | Route::Usage
        | Route::Live
        | Route::Ready
        | Route::AcceptTraffic
        | Route::Root
        | Route::WelcomeSign
        | Route::Unknown => Err(ApiError::NotFound),
    }
}

fn batch_of(
    app: &AppRules,
    keys: Keys<'_>,
    body: &[u8],
    frame: &mut Vec<u8>,
) -> Result<Action, ApiError> {
    let batch = BatchRequest::parse(body, &event_limits(app), app.batch_events_max as usize)?;
    let mut publication = Publication {
        events: Vec::new(),
        reports: Vec::new(),
        is_batch: true,
    };
    for (item, request) in batch.events.iter().enumerate() {
        publication.reports.push(request.info);
        let item = u32::try_from(item).expect("batches are bounded");
        encode_events(request, item, keys, frame, &mut publication.events)?;
    }
    Ok(Action::Publish(publication))
}

/// Encodes one event for each of its channels.
fn encode_events(
    request: &PublishRequest<'_>,
    item: u32,
    keys: Keys<'_>,
    frame: &mut Vec<u8>,
    events: &mut Vec<PublicEvent>,
) -> Result<(), ApiError> {
    for (position, channel) in request.channels().enumerate() {
        frame.clear();
        let start = encode::begin_text(frame);
        let (event, data) = (request.event.token(), &*request.data);
        outgoing::event(frame, event, channel.as_str(), data, None);
        encode::finish_text(frame, start);
        if frame.len() > keys.frame_bytes_max {
            return Err(ApiError::PayloadTooLarge {
                bytes: frame.len(),
                bytes_max: keys.frame_bytes_max,
            });
        }
        let frame: Arc<[u8]> = Arc::from(frame.as_slice());
        // `data` stands last: `...,"data":<token>}`.
        let data_start = frame.len() - 1 - data.len();
        let event = Event {
            data_start: u32::try_from(data_start).expect("payloads are bounded"),
            data_bytes: u32::try_from(data.len()).expect("payloads are bounded"),
            frame,
        };
        events.push(PublicEvent {
            channel: channel.as_str().into(),
            key: keys.of_channel(channel.as_str()),
            event,
            except: request.except,
            item,
            is_first: position == 0,
        });
    }
    Ok(())
}

fn event_limits(app: &AppRules) -> EventLimits {
    EventLimits {
        event_name_bytes_max: app.event_name_bytes_max as usize,
        channels_max: app.event_channels_max as usize,
        payload_bytes_max: app.event_data_bytes_max as usize,
        channel_name_bytes_max: app.channel_name_bytes_max as usize,
    }
}

#[cfg(test)]
mod tests {
    use md5::{Digest, Md5};

    use super::*;
    use crate::{
        channel::names::tests::hasher, connection::fixture, http::request::parse_head,
        protocol::auth::Signer,
    };

    const NOW_S: u64 = 1_700_000_000;

    /// A request whose parts can be broken one by one; the signature follows what is broken before
    /// it is made.
    struct Sent {
        app: AppRules,
        key: &'static str,
        secret: &'static str,
        timestamp_s: u64,
        frame_bytes_max: usize,
        digest_of: Option<&'static str>,
        body: String,
    }

    impl Sent {
        fn new(body: &str) -> Self {
            Self {
                app: fixture::app_rules(),
                key: "app-key",
                secret: "app-secret",
                timestamp_s: NOW_S,
                frame_bytes_max: usize::MAX,
                digest_of: None,
                body: body.to_owned(),
            }
        }

        fn check(&self, path: &str) -> Result<Action, ApiError> {
            let digest = Md5::digest(self.digest_of.unwrap_or(&self.body));
            let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
            let query = format!(
                "auth_key={}&auth_timestamp={}&auth_version=1.0&body_md5={hex}",
                self.key, self.timestamp_s
            );
            let signed = format!("POST\n{path}\n{query}");
            let signature = Signer::new(self.secret).sign_hex(&[signed.as_bytes()]);
            let signature = String::from_utf8_lossy(&signature);
            let bytes = format!(
                "POST {path}?{query}&auth_signature={signature} HTTP/1.1\r\nHost: h\r\n\
                 Content-Length: {}\r\n\r\n",
                self.body.len()
            );
            let head = parse_head(bytes.as_bytes()).expect("a head");
            let head = head.expect("a whole one");
            let request = ApiRequest {
                head: &head,
                route: &Route::of(head.raw_path, ""),
                body: self.body.as_bytes(),
                digest: None,
                names: &hasher(),
                path_prefix: "",
                frame_bytes_max: self.frame_bytes_max,
                now_s: NOW_S,
            };
            request.check(&self.app, &mut Work::default(), &mut Vec::new())
        }
    }

    const EVENT: &str = r#"{"name":"made","channel":"room","data":"{}"}"#;

    #[test]
    fn who_asks_is_looked_at_before_what_is_asked() {
        type Fault = fn(&mut Sent);
        let faults: [(&str, Fault); 8] = [
            ("key", |sent| sent.key = "another"),
            ("time", |sent| sent.timestamp_s = NOW_S - 601),
            ("signature", |sent| sent.secret = "guessed"),
            ("digest", |sent| sent.digest_of = Some("another body")),
            ("disabled", |sent| sent.app.is_enabled = false),
            ("json", |sent| sent.body = "{".to_owned()),
            ("name", |sent| sent.app.event_name_bytes_max = 3),
            ("channel", |sent| sent.app.channel_name_bytes_max = 3),
        ];
        let told = |faults: &[Fault]| {
            let mut sent = Sent::new(EVENT);
            for fault in faults {
                fault(&mut sent);
            }
            let checked = sent.check("/apps/1/events");
            checked.map_err(|error| (error.status().code(), error.to_string()))
        };
        assert!(matches!(told(&[]), Ok(Action::Publish(_))));
        let expected = [401, 401, 401, 401, 403, 400, 400, 400];
        for (index, ((name, fault), status)) in faults.iter().zip(expected).enumerate() {
            let alone = told(&[*fault]).expect_err(name);
            assert_eq!(alone.0, status, "{name}");
            for (other, later) in &faults[index + 1..] {
                let both = told(&[*fault, *later]).expect_err(name);
                assert_eq!(both, alone, "{name} beside {other}");
            }
        }
    }

    #[test]
    fn a_batch_is_encoded_item_by_item_and_refused_as_a_whole() {
        let item = EVENT.replace("room", "one");
        let sent = Sent::new(&format!(r#"{{"batch":[{EVENT},{item}]}}"#));
        let Ok(Action::Publish(publication)) = sent.check("/apps/1/batch_events") else {
            panic!("two good events");
        };
        let told = publication.events.iter().map(|it| (&*it.channel, it.item));
        assert_eq!(told.collect::<Vec<_>>(), [("room", 0), ("one", 1)]);
        let mut sent = Sent::new(&format!(r#"{{"batch":[{EVENT},{item}]}}"#));
        sent.app.batch_events_max = 1;
        let error = sent
            .check("/apps/1/batch_events")
            .expect_err("one too many");
        assert_eq!(error.status().code(), 400);
    }

    #[test]
    fn an_event_that_no_batch_between_nodes_holds_is_refused() {
        let mut sent = Sent::new(EVENT);
        let Ok(Action::Publish(publication)) = sent.check("/apps/1/events") else {
            panic!("a good event");
        };
        let bytes = publication.events[0].event.frame.len();
        sent.frame_bytes_max = bytes;
        assert!(sent.check("/apps/1/events").is_ok());
        sent.frame_bytes_max = bytes - 1;
        let error = sent.check("/apps/1/events").expect_err("a byte too long");
        assert_eq!(error.status().code(), 413);
    }
}
