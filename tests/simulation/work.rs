//! What one message costs a node of 1, 2, 4 and 8 shards: frames queued and messages between shards; and what is
//! said of the time that it took.
//!
//! `WORK_LOOPS` repeats each step that often, for a profiler that counts instructions.

use serde_json::json;
use shards::work::Work as Price;
use sockudo::{
    bridge::message::{AppFound, FromBridge, ToBridge},
    config::Config,
    metrics::counters::{AppCounters, ConnectionError, ShardCounters},
};

use crate::{
    dice::Dice,
    node::Node,
    plan::{loaded, node_seed},
    sign,
    turn::{Limits, UNIX_MS},
    wire,
};

const KEY: (&str, &str) = ("work-key", "work-secret");
/// Links per shard. All are in one channel, so every shard is interested in it.
const MEMBERS: usize = 4;
const CHANNEL: &str = "private-room";
/// A channel in which nobody is.
const EMPTY: &str = "nobody";

/// A node whose links are all subscribed to one channel.
struct Work {
    node: Node,
    dice: Dice,
    shards: usize,
    publisher: usize,
}

/// What a step cost the whole node.
#[derive(Debug, PartialEq, Eq)]
struct Cost {
    posted: u64,
    frames: u64,
}

impl Work {
    fn start(shards: u16) -> Self {
        Self::with_members(shards, MEMBERS)
    }

    fn with_members(shards: u16, members: usize) -> Self {
        let mut work = Self {
            node: Node::start(&node_seed(&config(), 1), shards, Limits::USUAL),
            dice: Dice::new(1),
            shards: usize::from(shards),
            publisher: 0,
        };
        for number in 0..members * work.shards {
            work.subscribe(number % work.shards);
        }
        work.publisher = work.node.connect(0, usize::MAX);
        work.rest();
        work
    }

    fn subscribe(&mut self, shard: usize) {
        let link = self.node.connect(shard, usize::MAX);
        self.say(link, wire::upgrade_request(KEY.0).as_bytes());
        self.rest();
        let said: Vec<u8> = self.node.links[link].to_client.drain(..).collect();
        let said = String::from_utf8_lossy(&said);
        let (_, id) = said.split_once(r#"socket_id\":\""#).expect("established");
        let (id, _) = id.split_once('\\').expect("an id ends");
        let auth = sign::channel_auth(KEY.0, KEY.1, id, CHANNEL, None);
        let data = json!({"channel": CHANNEL, "auth": auth});
        self.frame(
            link,
            &json!({"event": "pusher:subscribe", "data": data}).to_string(),
        );
        self.rest();
        let said: Vec<u8> = self.node.links[link].to_client.drain(..).collect();
        assert!(String::from_utf8_lossy(&said).contains("subscription_succeeded"));
    }

    fn frame(&mut self, link: usize, text: &str) {
        let mut bytes = Vec::new();
        wire::put_frame(&mut bytes, 1, text.as_bytes(), 0x0102_0304);
        self.say(link, &bytes);
    }

    fn say(&mut self, link: usize, bytes: &[u8]) {
        self.node.links[link].to_server.extend(bytes);
    }

    /// Turns until nothing is left to do.
    fn rest(&mut self) {
        let mut is_moving = true;
        while is_moving {
            is_moving = false;
            for shard in 0..self.shards {
                is_moving |= self.node.take_turn(shard, &mut self.dice, true);
            }
        }
    }

    fn cost(&mut self, step: impl Fn(&mut Self)) -> Cost {
        let loops = std::env::var("WORK_LOOPS").map_or(1, |text| text.parse().expect("a number"));
        let (posted, frames) = (self.node.posted, self.node.frames);
        for _ in 0..loops {
            step(self);
            self.rest();
            for link in &mut self.node.links {
                link.to_client.clear();
            }
        }
        Cost {
            posted: (self.node.posted - posted) / loops,
            frames: (self.node.frames - frames) / loops,
        }
    }

    fn publish(&mut self, channel: &str) -> Cost {
        let request = event_request(channel);
        let cost = self.cost(|work| work.say(work.publisher, request.as_bytes()));
        assert!(!self.node.links[self.publisher].server_ended);
        cost
    }

    /// What each shard has counted so far.
    fn reports(&mut self) -> Vec<ShardCounters> {
        self.node.tell_all(|| FromBridge::Scrape { token: 1 });
        self.rest();
        let told = self.node.told.drain(..);
        told.filter_map(|(_, _, told)| match told {
            ToBridge::Snapshot { snapshot, .. } => Some(snapshot.counters),
            _ => None,
        })
        .collect()
    }

    /// All that they have counted of the app.
    fn counted(&mut self) -> AppCounters {
        let mut sum = AppCounters::default();
        for report in self.reports() {
            let apps = report.reported_apps();
            apps.for_each(|(_, app)| sum.absorb(&app));
        }
        sum
    }

    /// Broadcasts by size of the audience: how many, and how long altogether, in microseconds.
    fn latencies(&mut self) -> [(u64, u64); 5] {
        let mut sums = [(0, 0); 5];
        let counted = self.counted().broadcast_latency;
        for kind in counted.iter().flat_map(|kinds| kinds.iter()) {
            for (sum, latency) in sums.iter_mut().zip(kind) {
                sum.0 += latency.buckets.iter().sum::<u64>();
                sum.1 += latency.sum_us;
            }
        }
        sums
    }

    fn client_event(&mut self) -> Cost {
        let data = "y".repeat(100);
        let text = json!({"event": "client-says", "channel": CHANNEL, "data": data}).to_string();
        self.cost(|work| work.frame(0, &text))
    }
}

/// The API's request for one event.
fn event_request(channel: &str) -> String {
    let body = json!({"name": "news", "channels": [channel], "data": "x".repeat(200)});
    let body = body.to_string();
    let path = "/apps/work-id/events";
    let query = sign::api_query(KEY, "POST", path, &[], body.as_bytes(), UNIX_MS / 1_000);
    let length = body.len();
    format!(
        "POST {path}?{query} HTTP/1.1\r\nHost: node\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n{body}"
    )
}

fn config() -> Config {
    loaded(&json!({
        "rate_limiter": {"enabled": false},
        "app_manager": {"driver": "memory", "array": {"apps": [{
            "id": "work-id", "key": KEY.0, "secret": KEY.1, "enabled": true, "max_connections": 0,
            "enable_client_messages": true, "max_client_events_per_second": 0,
        }]}},
    }))
}

/// With n shards that are all interested, a message travels to the home (if that is another shard),
/// from there to each other shard, and an answer goes back to who asked: n + 1 at the most, whatever
/// the number of subscribers.
#[test]
fn work_of_a_message_is_its_frames_and_at_most_one_more_hop_than_there_are_shards() {
    for shards in [1_u16, 2, 4, 8] {
        let mut work = Work::start(shards);
        let (members, shards) = ((MEMBERS * work.shards) as u64, u64::from(shards));
        let cost = work.publish(CHANNEL);
        assert_eq!(cost.frames, members, "{shards} shards");
        let least = shards - 1;
        assert!(
            (least..=least + 2).contains(&cost.posted),
            "{shards} shards: {cost:?}"
        );
        let cost = work.client_event();
        assert_eq!(cost.frames, members - 1, "{shards} shards");
        assert!(
            (least..=least + 1).contains(&cost.posted),
            "{shards} shards: {cost:?}"
        );
        let cost = work.publish(EMPTY);
        assert_eq!(cost.frames, 0);
        assert!(cost.posted <= 2, "{shards} shards: {cost:?}");
    }
}

/// Each shard that sends an event tells one time, which holds the work of its sends at least; nobody's
/// and clients' events have none.
#[test]
fn work_of_an_event_of_the_api_is_timed_once_by_each_shard_that_sends_it() {
    for shards in [1_u16, 2, 4] {
        let mut work = Work::start(shards);
        assert_eq!(work.latencies(), [(0, 0); 5]);
        work.publish(CHANNEL);
        let all = work.latencies();
        let (count, sum_us) = all[0];
        assert_eq!(count, u64::from(shards), "{shards} shards: {all:?}");
        assert_eq!(
            all[1..],
            [(0, 0); 4],
            "{shards} shards: no audience is larger"
        );
        let least_us = MEMBERS as u64 * u64::from(Price::SEND.0) * count / 1_000;
        assert!(sum_us >= least_us, "{shards} shards: {all:?}");
        assert!(sum_us <= 100 * least_us, "{shards} shards: {all:?}");
        work.client_event();
        work.publish(EMPTY);
        assert_eq!(
            work.latencies(),
            all,
            "{shards} shards: clients' and nobody's events"
        );
    }
}

/// The last send ends it, in whichever turn that is: two events that follow each other have one time each.
#[test]
fn work_of_several_turns_is_timed_from_the_events_arrival_to_its_last_send() {
    const AUDIENCE: usize = 1_200;
    let mut work = Work::with_members(1, AUDIENCE);
    let request = event_request(CHANNEL).repeat(2);
    work.say(work.publisher, request.as_bytes());
    work.rest();
    let all = work.latencies();
    let (count, sum_us) = all[3];
    assert_eq!(count, 2, "{all:?}");
    let least_us = AUDIENCE as u64 * u64::from(Price::SEND.0) / 1_000;
    let turn_us = u64::from(Limits::USUAL.turn_work.0) / 1_000;
    assert!(least_us > 2 * turn_us, "it takes several turns");
    assert!(sum_us >= 2 * least_us, "{all:?}");
    assert!(sum_us <= 4 * least_us, "{all:?}");
    assert_eq!(all.iter().map(|it| it.0).sum::<u64>(), 2, "{all:?}");
}

/// What is counted as sent is what the clients' messages hold, and no byte of their frames.
#[test]
fn work_of_a_message_is_counted_by_its_payload_alone() {
    let mut work = Work::start(2);
    for link in &mut work.node.links {
        link.to_client.clear();
    }
    let before = work.counted();
    let request = event_request(CHANNEL);
    work.say(work.publisher, request.as_bytes());
    work.frame(0, r#"{"event":"pusher:ping"}"#);
    work.rest();
    // All clients are asked whether they live: a message and a ping of WebSocket, which is none.
    work.node.now = work.node.now.plus(130_000);
    work.rest();
    let (mut messages, mut bytes) = (0, 0);
    for link in &mut work.node.links[..work.publisher] {
        let said: Vec<u8> = link.to_client.drain(..).collect();
        let texts = text_payloads(&said);
        messages += texts.len() as u64;
        bytes += texts.iter().sum::<usize>() as u64;
    }
    let after = work.counted();
    assert_eq!(messages, 8 + 1 + 8, "events, a pong, pings");
    assert_eq!(after.messages_sent - before.messages_sent, messages);
    assert_eq!(after.transmitted_bytes - before.transmitted_bytes, bytes);
}

/// The lengths of the text messages in what a client got.
fn text_payloads(mut bytes: &[u8]) -> Vec<usize> {
    let mut lengths = Vec::new();
    while let [first, second, rest @ ..] = bytes {
        let (length, rest) = match second {
            126 => (
                usize::from(u16::from_be_bytes([rest[0], rest[1]])),
                &rest[2..],
            ),
            short => (usize::from(*short), rest),
        };
        if *first == 0x81 {
            lengths.push(length);
        }
        bytes = &rest[length..];
    }
    lengths
}

#[test]
fn work_of_a_health_check_is_counted_for_the_known_app_that_it_names() {
    let mut work = Work::start(1);
    for (request, calls) in [
        ("GET /up/work-id", 1),
        ("HEAD /up/work-id", 1),
        ("GET /up/nobody", 0),
        ("GET /up", 0),
    ] {
        let before = work.counted();
        let link = work.node.connect(0, usize::MAX);
        work.say(
            link,
            format!("{request} HTTP/1.1\r\nHost: node\r\n\r\n").as_bytes(),
        );
        work.rest();
        let answer: Vec<u8> = work.node.links[link].to_client.drain(..).collect();
        let answer = String::from_utf8(answer).expect("text");
        let (_, body) = answer.split_once("\r\n\r\n").expect("a head");
        assert_eq!(body.is_empty(), request.starts_with("HEAD"), "{answer}");
        let after = work.counted();
        assert_eq!(after.http_calls - before.http_calls, calls, "{request}");
        let bytes = after.http_transmitted_bytes - before.http_transmitted_bytes;
        assert_eq!(bytes, calls * body.len() as u64, "{request}");
    }
}

#[test]
fn work_of_what_goes_wrong_with_a_connection_is_counted_under_its_name() {
    let data = json!({"channel": CHANNEL, "auth": "work-key:00"});
    let subscribe = json!({"event": "pusher:subscribe", "data": data}).to_string();
    let data = json!({"auth": "work-key:00", "user_data": "{}"});
    let sign_in = json!({"event": "pusher:signin", "data": data}).to_string();
    for (opcode, text, error) in [
        (1, "x", ConnectionError::InvalidMessageFormat),
        (1, r#"{"event":1}"#, ConnectionError::InvalidMessageFormat),
        (1, "{}", ConnectionError::MissingEventName),
        (1, r#"{"event":null}"#, ConnectionError::MissingEventName),
        (1, r#"{"event":""}"#, ConnectionError::MissingEventName),
        (1, &*subscribe, ConnectionError::AuthenticationFailed),
        (1, &*sign_in, ConnectionError::AuthenticationError),
        (
            1,
            r#"{"event":"pusher:signin"}"#,
            ConnectionError::AuthenticationError,
        ),
        (2, "x", ConnectionError::ProtocolError),
    ] {
        let mut work = Work::start(1);
        let link = work.node.connect(0, usize::MAX);
        work.say(link, wire::upgrade_request(KEY.0).as_bytes());
        work.rest();
        let mut bytes = Vec::new();
        wire::put_frame(&mut bytes, opcode, text.as_bytes(), 0x0102_0304);
        work.say(link, &bytes);
        work.rest();
        let mut expected = [0; ConnectionError::COUNT];
        expected[error as usize] = 1;
        assert_eq!(
            work.counted().faults().connection_errors,
            expected,
            "{text}"
        );
    }
}

#[test]
fn work_of_a_client_whose_app_is_not_known_for_want_of_an_answer_is_counted_as_that() {
    let mut seed = node_seed(&config(), 1);
    seed.settings.asks_for_apps = true;
    let mut work = Work {
        node: Node::start(&seed, 1, Limits::USUAL),
        dice: Dice::new(1),
        shards: 1,
        publisher: 0,
    };
    let link = work.node.connect(0, usize::MAX);
    work.say(link, wire::upgrade_request("other-key").as_bytes());
    work.rest();
    let mut told = work.node.told.drain(..);
    let name = told.find_map(|(_, _, told)| match told {
        ToBridge::FindApp(wanted) => Some(Box::new(wanted.name)),
        _ => None,
    });
    drop(told);
    let (name, found) = (name.expect("it is looked for"), AppFound::Unavailable);
    work.node.tell(0, FromBridge::AppFound { name, found });
    work.rest();
    let mut expected = [0; ConnectionError::COUNT];
    expected[ConnectionError::AppValidationFailed as usize] = 1;
    assert_eq!(work.reports()[0].unknown_app_errors, expected);
}
