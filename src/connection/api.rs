//! Which requests of the HTTP API are done: every check in its order, before anything happens.
//!
//! Owns: the order of checks (docs/http-api.md).
//! May depend on: `connection::{pending, rules}`, `channel::{names, user}`, `http`, `protocol`.
//! Invariants: an `Action` passed every check of the whole request; nothing was published, kept or
//! counted for it.

use shards::work::Work;

use super::pending::Action;
use crate::{
    channel::{names::NameHasher, user::UserId},
    http::{
        api::ApiError,
        query::{self, ChannelsQuery},
        request::Head,
        route::Route,
    },
    protocol::{
        name::{ChannelName, is_user_id},
        request_auth::{self, BodyDigest, RequestToVerify},
        rules::AppRules,
    },
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
    pub now_s: u64,
}

/// What a request that may be done asks for.
#[derive(Debug)]
pub enum Checked {
    Action(Action),
    /// To publish what its body says, or what stands in the body's place.
    Event(Option<Vec<u8>>),
    /// To publish what its body says.
    Batch,
}

/// What checking a request's signature may cost.
pub fn cost_of_check(request: &RequestToVerify<'_>) -> Work {
    let (tries, bytes) = request_auth::hashing_max(request);
    Work::SIGNATURE.and(Work::bytes_hashed(bytes)).times(tries)
}

impl ApiRequest<'_, '_> {
    /// Checks it and says what is to be done. `work` grows by what that costs.
    ///
    /// # Errors
    /// The first check that it did not pass.
    pub fn check(self, app: &AppRules, work: &mut Work) -> Result<Checked, ApiError> {
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
        if matches!(self.route, Route::BatchEvents { .. }) {
            return Ok(Checked::Batch);
        }
        if !matches!(self.route, Route::Events { .. }) {
            return action_of(app, self.names, self.route, head).map(Checked::Action);
        }
        let instead = match self.body {
            [] => Some(query::event_body(head.query, form)?),
            _ => None,
        };
        Ok(Checked::Event(instead))
    }
}

fn action_of(
    app: &AppRules,
    names: &NameHasher,
    route: &Route<'_>,
    head: &Head<'_>,
) -> Result<Action, ApiError> {
    let name_max = app.channel_name_bytes_max as usize;
    let key_of = |name: &ChannelName<'_>| names.channel_key(&app.partitions, name.as_str());
    match route {
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
                key: key_of(&name),
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
                key: key_of(&name),
            })
        }
        Route::Terminate { user, .. } => {
            let user = user.text()?;
            if !is_user_id(user) {
                return Err(ApiError::UserId);
            }
            Ok(Action::Terminate {
                user_id: UserId::new(names, &app.partitions, user),
            })
        }
        Route::Events { .. }
        | Route::BatchEvents { .. }
        | Route::App { .. }
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

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use md5::{Digest, Md5};

    use super::*;
    use crate::{
        channel::names::tests::hasher,
        connection::{
            fixture,
            publication::{Keys, PublicationUnderWay},
        },
        http::request::parse_head,
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
        /// What of a batch is read at once, and how many reads that took.
        enough: Work,
        reads: Cell<usize>,
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
                enough: Work(u32::MAX),
                reads: Cell::new(0),
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
                now_s: NOW_S,
            };
            let (mut work, mut scratch) = (Work::default(), Vec::new());
            let (mut publication, body) = match request.check(&self.app, &mut work)? {
                Checked::Action(action) => return Ok(action),
                Checked::Event(body) => (PublicationUnderWay::event(), body),
                Checked::Batch => (PublicationUnderWay::batch(), None),
            };
            let body = body.map(|body| String::from_utf8(body).expect("text"));
            let body = body.as_ref().unwrap_or(&self.body);
            let names = hasher();
            let keys = Keys {
                names: &names,
                app: &self.app.partitions,
                frame_bytes_max: self.frame_bytes_max,
            };
            loop {
                self.reads.set(self.reads.get() + 1);
                let room = (&mut work, &mut scratch);
                let read = publication.go_on(&self.app, keys, body, self.enough, room)?;
                if let Some(publication) = read {
                    return Ok(Action::Publish(publication));
                }
            }
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
        assert_eq!(sent.reads.get(), 1);
        let mut sent = Sent::new(&format!(r#"{{"batch":[{EVENT},{item}]}}"#));
        sent.app.batch_events_max = 1;
        let error = sent
            .check("/apps/1/batch_events")
            .expect_err("one too many");
        assert_eq!(error.status().code(), 400);
    }

    #[test]
    fn a_batch_that_is_read_in_many_turns_is_the_same() {
        let events: Vec<String> = (0..10)
            .map(|room| EVENT.replace("room", &format!("room-{room}")))
            .collect();
        let body = format!(r#"{{"batch":[{EVENT}],"batch":[{}]}}"#, events.join(","));
        let of = |enough| {
            let mut sent = Sent::new(&body);
            sent.enough = enough;
            let Ok(Action::Publish(publication)) = sent.check("/apps/1/batch_events") else {
                panic!("ten good events");
            };
            (format!("{publication:?}"), sent.reads.get())
        };
        let (whole, reads) = of(Work(u32::MAX));
        assert_eq!((whole.matches("is_first: true").count(), reads), (10, 1));
        // The object, the first list, its item, the second list, its items, the end.
        let (same, reads) = of(Work(1));
        assert!(same == whole && reads == 1 + 1 + 1 + 1 + 10 + 1, "{reads}");
        let one = Work::EVENT.times(2);
        let (same, reads) = of(one);
        assert!(same == whole && (3..15).contains(&reads), "{reads}");
    }

    #[test]
    fn an_event_for_many_channels_is_written_in_many_turns_and_is_the_same() {
        let channels: Vec<String> = (0..100).map(|room| format!(r#""room-{room}""#)).collect();
        let body = EVENT.replace(
            r#""channel":"room""#,
            &format!(r#""channels":[{}]"#, channels.join(",")),
        );
        let batch = format!(r#"{{"batch":[{EVENT},{body}]}}"#);
        for (path, body, events, reads) in [
            ("/apps/1/events", &body, 100, 100),
            // The object, the list, the one event, the frames of the other, the end.
            ("/apps/1/batch_events", &batch, 101, 2 + 1 + 100 + 1),
        ] {
            let of = |enough| {
                let mut sent = Sent::new(body);
                sent.enough = enough;
                let Ok(Action::Publish(publication)) = sent.check(path) else {
                    panic!("good events");
                };
                assert_eq!(publication.events.len(), events);
                (format!("{publication:?}"), sent.reads.get())
            };
            let (whole, all_at_once) = of(Work(u32::MAX));
            assert_eq!(all_at_once, 1);
            let (same, read) = of(Work(1));
            assert!(same == whole && read == reads, "{path}: in {read} reads");
        }
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
