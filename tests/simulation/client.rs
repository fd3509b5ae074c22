//! A WebSocket client that believes nothing: it checks each frame against what it has asked for.
//!
//! Commands are replayed in their order as the answers arrive, so that at each frame it is known
//! which subscriptions the server must have, must not have, or may still have.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde_json::{Value, json};
use shards::application::Millis;

use crate::{
    dice::Dice,
    ledger::{Ledger, Moment, Place},
    plan::Keeping,
    sign,
    wire::{self, Frame},
};

pub(crate) struct Client {
    /// Also the number of its link.
    pub(crate) number: usize,
    pub(crate) app: usize,
    pub(crate) key: String,
    pub(crate) secret: String,
    /// The user that it is wherever it must be somebody.
    pub(crate) identity: String,
    pub(crate) reads_rarely: bool,
    input: Vec<u8>,
    pub(crate) phase: Phase,
    pub(crate) came: Moment,
    pub(crate) socket_id: String,
    pub(crate) expected: VecDeque<Expected>,
    pub(crate) channels: BTreeMap<String, Subscription>,
    pub(crate) user: Option<User>,
    /// A sign-in was sent.
    pub(crate) signs_in: bool,
    /// It has ended its side.
    pub(crate) leaves: bool,
    /// Frames for it were dropped, or it was too slow.
    pub(crate) is_lossy: bool,
    /// Members of which it heard that they are gone, by channel, until somebody looks.
    pub(crate) gone: Vec<(String, String)>,
    /// When it asked for the subscriptions that it got, until somebody looks.
    pub(crate) joined: Vec<Millis>,
    epoch: u64,
    /// To send as soon as the caller can.
    pub(crate) output: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Upgrading,
    Upgraded,
    Open,
    /// An error announced the close with this code.
    Announced(u16),
    Closed(u16),
    /// Closed without any word.
    Ended,
}

/// A command whose outcome is not known yet, in the order of sending.
#[derive(Debug)]
pub(crate) enum Expected {
    Subscribe {
        channel: String,
        is_bad: bool,
        asked: Moment,
    },
    /// Is not answered.
    Unsubscribe {
        channel: String,
    },
    Pong,
    SignIn {
        user_data: String,
        watchlist: Vec<String>,
    },
    /// Is answered only when it is refused.
    ClientEvent {
        channel: String,
        number: usize,
    },
}

#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) epoch: u64,
    pub(crate) since: Millis,
    pub(crate) members: BTreeSet<String>,
    pub(crate) seen: BTreeSet<usize>,
    latest: BTreeMap<usize, usize>,
    /// Of each publishing node.
    last: BTreeMap<usize, usize>,
    /// The cached event or a miss comes first.
    awaits_cached: Option<Moment>,
    /// What came then; `Some(None)`: a miss.
    pub(crate) cached: Option<Option<usize>>,
    pub(crate) count: Option<u64>,
    /// An unsubscribe was sent.
    pub(crate) ends: bool,
}

#[derive(Debug)]
pub(crate) struct User {
    pub(crate) watchlist: BTreeSet<String>,
    pub(crate) online: BTreeMap<String, bool>,
}

/// What a client needs to judge a frame.
pub(crate) struct Judge<'a> {
    pub(crate) ledger: &'a mut Ledger,
    pub(crate) now: Moment,
    pub(crate) keeping: Keeping,
    pub(crate) dice: &'a mut Dice,
}

pub(crate) fn is_presence(channel: &str) -> bool {
    channel.starts_with("presence-")
}

pub(crate) fn is_cache(channel: &str) -> bool {
    [
        "cache-",
        "private-cache-",
        "presence-cache-",
        "private-encrypted-cache-",
    ]
    .iter()
    .any(|prefix| channel.starts_with(prefix))
}

fn needs_auth(channel: &str) -> bool {
    channel.starts_with("private-") || is_presence(channel)
}

/// The number that an event carries in its data.
pub(crate) fn event_number(data: &str) -> usize {
    let data: Value = serde_json::from_str(data).expect("the data is as it was sent");
    data["id"].as_u64().expect("the data is as it was sent") as usize
}

impl Client {
    pub(crate) fn new(
        number: usize,
        app: usize,
        credentials: (&str, &str),
        user: &str,
        came: Moment,
    ) -> Self {
        Self {
            number,
            app,
            key: credentials.0.to_owned(),
            secret: credentials.1.to_owned(),
            identity: user.to_owned(),
            reads_rarely: false,
            input: Vec::new(),
            phase: Phase::Upgrading,
            came,
            socket_id: String::new(),
            expected: VecDeque::new(),
            channels: BTreeMap::new(),
            user: None,
            signs_in: false,
            leaves: false,
            is_lossy: false,
            gone: Vec::new(),
            joined: Vec::new(),
            epoch: 0,
            output: wire::upgrade_request(credentials.0).into_bytes(),
        }
    }

    /// Open, wants to stay so, and was not given up by the server.
    pub(crate) fn is_steady(&self) -> bool {
        self.phase == Phase::Open && !self.leaves
    }

    pub(crate) fn is_over(&self) -> bool {
        self.leaves || matches!(self.phase, Phase::Closed(_) | Phase::Ended)
    }

    fn say(&mut self, dice: &mut Dice, frame: &Value) {
        let text = frame.to_string();
        wire::put_frame(&mut self.output, 1, text.as_bytes(), dice.next() as u32);
    }

    pub(crate) fn subscribes(&mut self, dice: &mut Dice, now: Moment, channel: &str, is_bad: bool) {
        let mut data = json!({"channel": channel, "auth": ""});
        if needs_auth(channel) {
            let text = json!({"user_id": self.identity, "user_info": {"name": self.identity}});
            let text = text.to_string();
            let by_user = self.signs_in && dice.percent(30);
            let member = (is_presence(channel) && !by_user).then_some(&*text);
            let secret = if is_bad { "wrong" } else { &self.secret };
            let auth = sign::channel_auth(&self.key, secret, &self.socket_id, channel, member);
            data["auth"] = auth.into();
            if let Some(member) = member {
                data["channel_data"] = member.into();
            }
        }
        self.say(dice, &json!({"event": "pusher:subscribe", "data": data}));
        let is_bad = is_bad && needs_auth(channel);
        self.expected.push_back(Expected::Subscribe {
            channel: channel.to_owned(),
            is_bad,
            asked: now,
        });
    }

    pub(crate) fn unsubscribes(&mut self, dice: &mut Dice, channel: &str) {
        self.say(
            dice,
            &json!({"event": "pusher:unsubscribe", "data": {"channel": channel}}),
        );
        if let Some(subscription) = self.channels.get_mut(channel) {
            subscription.ends = true;
        }
        let channel = channel.to_owned();
        self.expected.push_back(Expected::Unsubscribe { channel });
    }

    /// Many pings at once, more bytes than the server holds for a connection that waits.
    pub(crate) fn floods(&mut self, dice: &mut Dice) {
        for _ in 0..90 {
            let padding = "x".repeat(1_000);
            self.say(
                dice,
                &json!({"event": "pusher:ping", "data": {"pad": padding}}),
            );
            self.expected.push_back(Expected::Pong);
        }
    }

    pub(crate) fn pings(&mut self, dice: &mut Dice) {
        self.say(dice, &json!({"event": "pusher:ping", "data": {}}));
        self.expected.push_back(Expected::Pong);
    }

    pub(crate) fn signs_in(&mut self, dice: &mut Dice, watchlist: Vec<String>) {
        let user_data = json!({"id": self.identity, "watchlist": watchlist}).to_string();
        let auth = sign::signin_auth(&self.key, &self.secret, &self.socket_id, &user_data);
        let data = json!({"auth": auth, "user_data": user_data});
        self.say(dice, &json!({"event": "pusher:signin", "data": data}));
        self.signs_in = true;
        self.expected.push_back(Expected::SignIn {
            user_data,
            watchlist,
        });
    }

    pub(crate) fn sends(&mut self, dice: &mut Dice, channel: &str, number: usize, padding: usize) {
        let data = json!({"id": number, "pad": "x".repeat(padding)});
        self.say(
            dice,
            &json!({"event": "client-said", "channel": channel, "data": data}),
        );
        let channel = channel.to_owned();
        self.expected
            .push_back(Expected::ClientEvent { channel, number });
    }

    pub(crate) fn closes(&mut self, dice: &mut Dice) {
        let mask = dice.next() as u32;
        wire::put_frame(&mut self.output, 8, &1000_u16.to_be_bytes(), mask);
        self.leaves = true;
    }

    /// Takes in what the server sent.
    pub(crate) fn reads(&mut self, bytes: &[u8], judge: &mut Judge<'_>) {
        self.input.extend_from_slice(bytes);
        if self.phase == Phase::Upgrading {
            let Some(response) = wire::take_response(&mut self.input) else {
                return;
            };
            if response.status == 408 {
                wire::check_timeout(self.came, judge.now);
                self.phase = Phase::Ended;
                return;
            }
            assert_eq!(response.status, 101, "an upgrade is accepted");
            self.phase = Phase::Upgraded;
        }
        while let Some(frame) = wire::take_frame(&mut self.input) {
            assert!(
                !matches!(self.phase, Phase::Closed(_)),
                "client {} got a frame after the close: {frame:?}",
                self.number
            );
            match frame {
                Frame::Text(frame) => self.hears(&frame, judge),
                Frame::Ping | Frame::Pong => {}
                Frame::Close(code) => self.is_closed(code, judge),
            }
        }
    }

    /// The link is at its end.
    pub(crate) fn is_ended(&mut self) {
        let in_silence = matches!(self.phase, Phase::Upgrading | Phase::Upgraded | Phase::Open);
        assert!(
            self.leaves
                || self.is_lossy
                || self.reads_rarely
                || !in_silence
                || self.phase == Phase::Upgrading,
            "client {} lost its connection without a word: {:?}",
            self.number,
            self.phase
        );
        if !matches!(self.phase, Phase::Closed(_)) {
            self.phase = Phase::Ended;
        }
        self.channels.clear();
        self.user = None;
    }

    fn is_closed(&mut self, code: u16, judge: &mut Judge<'_>) {
        if let Phase::Announced(announced) = self.phase {
            assert_eq!(
                code, announced,
                "the close has the code of the error before it"
            );
        } else {
            assert!(
                self.leaves,
                "client {} was closed with {code} unannounced",
                self.number
            );
        }
        self.phase = Phase::Closed(code);
        self.channels.clear();
        self.user = None;
        if !self.leaves && judge.dice.percent(60) {
            let mask = judge.dice.next() as u32;
            wire::put_frame(&mut self.output, 8, &code.to_be_bytes(), mask);
        }
    }

    fn hears(&mut self, frame: &Value, judge: &mut Judge<'_>) {
        assert!(
            !matches!(self.phase, Phase::Announced(_)),
            "a frame after the last error: {frame}"
        );
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (event, channel) = (text(&frame["event"]), text(&frame["channel"]));
        let data = text(&frame["data"]);
        match &*event {
            "pusher:connection_established" => {
                assert_eq!(self.phase, Phase::Upgraded);
                self.phase = Phase::Open;
                let data: Value = serde_json::from_str(&data).expect("data is JSON");
                self.socket_id = text(&data["socket_id"]);
            }
            "pusher_internal:subscription_succeeded" => self.subscribed(&channel, &data, judge),
            "pusher:subscription_error" => self.refused(&channel, &frame["data"], judge),
            "pusher:pong" => {
                let answered = self.next_expected(judge, frame);
                assert!(
                    matches!(answered, Expected::Pong),
                    "{answered:?} was answered with a pong"
                );
            }
            "pusher:signin_success" => self.signed_in(&frame["data"], judge, frame),
            "pusher:error" => self.hears_error(&channel, &frame["data"], judge, frame),
            "pusher:ping" => {
                if judge.dice.percent(90) {
                    self.say(judge.dice, &json!({"event": "pusher:pong", "data": {}}));
                }
            }
            "pusher_internal:watchlist_events" => self.hears_of_watched(&data),
            "pusher_internal:member_added" => self.member_comes(&channel, &data),
            "pusher_internal:member_removed" => self.member_goes(&channel, &data),
            "pusher_internal:subscription_count" => {
                let data: Value = serde_json::from_str(&data).expect("data is JSON");
                let subscription = self.subscription(&channel, frame);
                assert_eq!(
                    subscription.awaits_cached, None,
                    "a count before the cached event"
                );
                subscription.count = data["subscription_count"].as_u64();
            }
            "pusher:cache_miss" => {
                let place = (self.app, channel.clone());
                let subscription = self.subscription(&channel, frame);
                subscription.cached = Some(None);
                let asked = subscription.awaits_cached.take();
                let asked = asked.expect("a miss is told once, to a newcomer");
                if !judge.keeping.evicts {
                    judge
                        .ledger
                        .check_cached(&place, None, asked, judge.now, judge.keeping);
                }
            }
            _ => self.hears_event(frame, &channel, &data, judge),
        }
    }

    /// The subscription that a frame of its channel proves to be there.
    fn subscription(&mut self, channel: &str, frame: &Value) -> &mut Subscription {
        let number = self.number;
        self.channels
            .get_mut(channel)
            .unwrap_or_else(|| panic!("client {number} is not subscribed, but got {frame}"))
    }

    /// The command that an answer belongs to; those before it that need no answer are settled.
    fn next_expected(&mut self, judge: &mut Judge<'_>, answer: &Value) -> Expected {
        loop {
            let Some(next) = self.expected.pop_front() else {
                panic!("client {} asked for nothing, but got {answer}", self.number);
            };
            if let Some(next) = self.settle(next, judge.ledger, judge.now) {
                return next;
            }
        }
    }

    /// Replays a command that needs no answer; gives back one that does.
    fn settle(&mut self, next: Expected, ledger: &mut Ledger, now: Moment) -> Option<Expected> {
        match next {
            Expected::Unsubscribe { channel } => {
                self.channels.remove(&channel);
                None
            }
            Expected::ClientEvent { channel, number } if self.channels.contains_key(&channel) => {
                ledger.events[number].acknowledged = Some(now);
                None
            }
            next => Some(next),
        }
    }

    /// At rest nothing may be unanswered.
    pub(crate) fn rests(&mut self, ledger: &mut Ledger, now: Moment) {
        while let Some(next) = self.expected.pop_front() {
            if let Some(next) = self.settle(next, ledger, now) {
                panic!("client {} never got an answer to {next:?}", self.number);
            }
        }
    }

    fn subscribed(&mut self, channel: &str, data: &str, judge: &mut Judge<'_>) {
        let answer = json!(format!("subscription_succeeded of {channel}"));
        let answered = self.next_expected(judge, &answer);
        let Expected::Subscribe {
            channel: wanted,
            is_bad: false,
            asked,
        } = answered
        else {
            panic!("{answered:?} was answered with {answer}");
        };
        assert_eq!(wanted, channel, "answers come in the order of requests");
        let mut members = BTreeSet::new();
        if is_presence(channel) {
            let data: Value = serde_json::from_str(data).expect("data is JSON");
            let ids = data["presence"]["ids"].as_array().expect("a list of ids");
            members.extend(ids.iter().map(|id| id.as_str().expect("a text").to_owned()));
            assert_eq!(members.len(), ids.len(), "ids are unique");
            assert_eq!(data["presence"]["count"], ids.len());
            assert!(
                members.contains(&self.identity),
                "a snapshot lists the newcomer"
            );
        }
        let ends = self.expected.iter().any(
            |later| matches!(later, Expected::Unsubscribe { channel: ended } if *ended == wanted),
        );
        if let Some(subscription) = self.channels.get_mut(channel) {
            if !self.is_lossy {
                assert_eq!(
                    subscription.members, members,
                    "client {}: members seen in {channel} against a fresh snapshot",
                    self.number
                );
            }
            return;
        }
        self.joined.push(asked.at);
        self.epoch += 1;
        let subscription = Subscription {
            epoch: self.epoch,
            members,
            since: judge.now.at,
            seen: BTreeSet::new(),
            latest: BTreeMap::new(),
            last: BTreeMap::new(),
            awaits_cached: is_cache(channel).then_some(asked),
            cached: None,
            count: None,
            ends,
        };
        self.channels.insert(wanted, subscription);
    }

    fn refused(&mut self, channel: &str, data: &Value, judge: &mut Judge<'_>) {
        let answered = self.next_expected(judge, data);
        let Expected::Subscribe {
            channel: wanted,
            is_bad,
            ..
        } = answered
        else {
            panic!("{answered:?} was answered with a subscription_error");
        };
        assert_eq!(wanted, channel, "answers come in the order of requests");
        let is_full = data["status"] == 4100 && is_presence(channel);
        assert!(
            is_bad && data["status"] == 401 || is_full,
            "{channel} was refused with {data}"
        );
        assert!(
            !is_full || !self.channels.contains_key(channel),
            "who is in needs no room"
        );
    }

    fn signed_in(&mut self, data: &Value, judge: &mut Judge<'_>, frame: &Value) {
        let answered = self.next_expected(judge, frame);
        let Expected::SignIn {
            user_data,
            watchlist,
        } = answered
        else {
            panic!("{answered:?} was answered with a signin_success");
        };
        assert_eq!(data["user_data"], user_data, "user_data is echoed");
        self.user = Some(User {
            watchlist: watchlist.into_iter().collect(),
            online: BTreeMap::new(),
        });
    }

    fn hears_of_watched(&mut self, data: &str) {
        let number = self.number;
        let Some(user) = &mut self.user else {
            panic!("client {number} watches nobody, but got {data}");
        };
        let data: Value = serde_json::from_str(data).expect("data is JSON");
        let is_first = user.online.is_empty();
        let mut named = BTreeSet::new();
        for event in data["events"].as_array().expect("a list of events") {
            let is_online = event["name"] == "online";
            for id in event["user_ids"].as_array().expect("a list of ids") {
                let id = id.as_str().expect("a text").to_owned();
                assert!(
                    user.watchlist.contains(&id),
                    "client {number} does not watch {id}: {data}"
                );
                assert!(
                    named.insert(id.clone()),
                    "client {number}: {id} is named twice: {data}"
                );
                let before = user.online.insert(id.clone(), is_online);
                // Whoever reads too slowly may have lost what was told between.
                assert!(
                    self.is_lossy || before != Some(is_online),
                    "client {number} knew that of {id}: {data}"
                );
            }
        }
        assert!(
            !is_first || named == user.watchlist,
            "the first list names all: {data}"
        );
    }

    fn hears_error(&mut self, channel: &str, data: &Value, judge: &mut Judge<'_>, frame: &Value) {
        let code = data["code"].as_u64().unwrap_or(0);
        if code != 4301 {
            assert!(
                matches!(code, 4003 | 4004 | 4009 | 4100 | 4200 | 4201),
                "client {} got {frame}",
                self.number
            );
            self.phase = Phase::Announced(u16::try_from(code).expect("a close code"));
            return;
        }
        let answered = self.next_expected(judge, frame);
        let Expected::ClientEvent {
            channel: wanted,
            number,
        } = answered
        else {
            panic!("{answered:?} was answered with {frame}");
        };
        assert_eq!(wanted, channel, "answers come in the order of requests");
        judge.ledger.events[number].is_refused = true;
    }

    fn member_comes(&mut self, channel: &str, data: &str) {
        let (number, identity, is_lossy) = (self.number, self.identity.clone(), self.is_lossy);
        let subscription = self.subscription(channel, &json!(format!("member_added {data}")));
        let data: Value = serde_json::from_str(data).expect("data is JSON");
        let user = data["user_id"].as_str().expect("a text").to_owned();
        assert_ne!(
            user, identity,
            "client {number} heard that it came to {channel} itself"
        );
        assert_eq!(
            subscription.awaits_cached, None,
            "a member before the cached event"
        );
        let is_new = subscription.members.insert(user.clone());
        assert!(
            is_new || is_lossy,
            "client {number} heard twice that {user} came to {channel}"
        );
    }

    fn member_goes(&mut self, channel: &str, data: &str) {
        let (number, identity, is_lossy) = (self.number, self.identity.clone(), self.is_lossy);
        let subscription = self.subscription(channel, &json!(format!("member_removed {data}")));
        let data: Value = serde_json::from_str(data).expect("data is JSON");
        let user = data["user_id"].as_str().expect("a text").to_owned();
        assert_ne!(
            user, identity,
            "client {number} heard that it left {channel} itself"
        );
        assert_eq!(
            subscription.awaits_cached, None,
            "a member before the cached event"
        );
        let was_there = subscription.members.remove(&user);
        assert!(
            was_there || is_lossy,
            "client {number} heard that {user} left {channel} in vain"
        );
        self.gone.push((channel.to_owned(), user));
    }

    fn hears_event(&mut self, frame: &Value, channel: &str, data: &str, judge: &mut Judge<'_>) {
        let place: Place = (self.app, channel.to_owned());
        let (own, socket_id) = (self.number, self.socket_id.clone());
        let subscription = self.subscription(channel, frame);
        let number = judge.ledger.find(&place, event_number(data));
        if let Some(asked) = subscription.awaits_cached.take() {
            subscription.cached = Some(Some(number));
            judge
                .ledger
                .check_cached(&place, Some(number), asked, judge.now, judge.keeping);
        } else {
            let except = judge.ledger.events[number].except.as_ref();
            assert_ne!(
                except,
                Some(&socket_id),
                "client {own} was to be left out of {number}"
            );
        }
        let event = &judge.ledger.events[number];
        assert!(
            !event.is_refused,
            "client {own} got the refused event {number}"
        );
        assert_eq!(
            frame["user_id"].as_str(),
            event.user_id.as_deref(),
            "the sender of {number}"
        );
        assert!(
            subscription.seen.insert(number),
            "client {own} got event {number} twice"
        );
        let latest = subscription.latest.insert(event.publisher, number);
        assert!(
            latest < Some(number),
            "client {own} got {number} after {latest:?} of one sender"
        );
        let node = event.node;
        if let Some(last) = subscription.last.insert(node, number) {
            judge.ledger.follows(&place, last, number);
        }
    }
}
