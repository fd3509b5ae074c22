//! A node and clients whose bytes a test writes itself, with rounds of turns that it counts.
//!
//! Time stands still unless a test lets it pass. Every turn is held against its bound of work by `node`.

use std::sync::Arc;

use serde_json::{Value, json};
use shards::application::{Closed, ShardId};
use sockudo::{
    bridge::{
        apps::AppTable,
        message::{FromBridge, ToBridge},
    },
    metrics::counters::ShardCounters,
    server::NodeSeed,
};

use crate::{
    dice::Dice,
    node::Node,
    plan::{loaded, node_seed},
    sign,
    turn::{Limits, UNIX_MS},
    wire,
};

pub(crate) const KEY: (&str, &str) = ("scene-key", "scene-secret");
/// Within which whatever was asked must have come.
const ROUNDS_MAX: usize = 100_000;
const MASK: u32 = 0x0102_0304;

pub(crate) struct Scene {
    pub(crate) node: Node,
    /// The apps as the node was started with them.
    pub(crate) apps: Arc<AppTable>,
    /// What it was started with.
    pub(crate) seed: NodeSeed,
    dice: Dice,
    shards: usize,
}

/// An established WebSocket.
#[derive(Clone)]
pub(crate) struct Visitor {
    pub(crate) link: usize,
    pub(crate) socket_id: String,
}

impl Scene {
    /// A node with one app; `keys` and `app` replace or add to what they have.
    pub(crate) fn start(shards: u16, keys: &Value, app: &Value) -> Self {
        Self::start_with(shards, keys, app, Limits::USUAL)
    }

    pub(crate) fn start_with(shards: u16, keys: &Value, app: &Value, limits: Limits) -> Self {
        let mut its = json!({
            "id": "scene-id", "key": KEY.0, "secret": KEY.1, "enabled": true, "max_connections": 0,
            "enable_client_messages": true, "enable_user_authentication": true,
            "enable_watchlist_events": true,
        });
        merge(&mut its, app);
        let mut config = json!({
            "rate_limiter": {"enabled": false},
            "app_manager": {"driver": "memory", "array": {"apps": [its]}},
        });
        merge(&mut config, keys);
        let seed = node_seed(&loaded(&config), 1);
        Self {
            node: Node::start(&seed, shards, limits),
            apps: Arc::clone(&seed.apps),
            seed,
            dice: Dice::new(1),
            shards: usize::from(shards),
        }
    }

    /// One turn of each shard. True if anything happened.
    pub(crate) fn round(&mut self) -> bool {
        let mut moved = false;
        for shard in 0..self.shards {
            moved |= self.node.take_turn(shard, &mut self.dice, true);
        }
        moved
    }

    /// One turn of one shard, while the others rest.
    pub(crate) fn turn_of(&mut self, shard: usize) {
        self.node.take_turn(shard, &mut self.dice, true);
    }

    /// Rounds until nothing is left to do, while time stands still; how many.
    pub(crate) fn rest(&mut self) -> usize {
        (0..ROUNDS_MAX)
            .find(|_| !self.round())
            .expect("the node comes to rest")
    }

    /// Rounds until nothing is left to do, where the test takes the place of a bus: every topic is live for which a
    /// shard wished. `note` gets all that shards say.
    pub(crate) fn settles(&mut self, mut note: impl FnMut(ShardId, ToBridge)) {
        loop {
            self.rest();
            let told = std::mem::take(&mut self.node.told);
            if told.is_empty() {
                return;
            }
            for (shard, _, message) in told {
                if let ToBridge::Topic { partition, wish } = &message {
                    let live = FromBridge::TopicsLive([(*partition, *wish)].into());
                    self.node.tell(usize::from(shard.0), live);
                }
                note(shard, message);
            }
        }
    }

    /// Lets time run on, from deadline to deadline.
    pub(crate) fn passes(&mut self, ms: u64) {
        let until = self.node.now.plus(ms);
        self.rest();
        while let Some(at) = self.node.next_deadline().filter(|at| *at <= until) {
            self.node.now = self.node.now.max(at);
            self.rest();
        }
        self.node.now = until;
        self.rest();
    }

    pub(crate) fn say(&mut self, link: usize, bytes: &[u8]) {
        self.node.links[link].to_server.extend(bytes);
    }

    /// What has come on a link, taken off it.
    pub(crate) fn takes(&mut self, link: usize) -> Vec<u8> {
        self.node.links[link].to_client.drain(..).collect()
    }

    /// Somebody who is established and at rest.
    pub(crate) fn arrives(&mut self, shard: usize) -> Visitor {
        self.arrive(1, |_| shard, |_| Vec::new()).remove(0)
    }

    /// Many at once, each with some bytes behind its request; all are established, what else they got
    /// lies on their links.
    pub(crate) fn arrive(
        &mut self,
        count: usize,
        shard_of: impl Fn(usize) -> usize,
        bytes_of: impl Fn(usize) -> Vec<u8>,
    ) -> Vec<Visitor> {
        let mut links = Vec::with_capacity(count);
        for number in 0..count {
            let link = self.node.connect(shard_of(number), usize::MAX);
            self.say(link, wire::upgrade_request(KEY.0).as_bytes());
            self.say(link, &bytes_of(number));
            links.push(link);
        }
        self.rest();
        links.into_iter().map(|link| self.greeted(link)).collect()
    }

    fn greeted(&mut self, link: usize) -> Visitor {
        let mut input = self.takes(link);
        let response = wire::take_response(&mut input).expect("an upgrade is answered");
        assert_eq!(response.status, 101);
        let greeting = wire::take_frame(&mut input).expect("a greeting follows");
        let wire::Frame::Text(greeting) = greeting else {
            panic!("{greeting:?} is no greeting");
        };
        let told = greeting["data"].as_str().expect("its data is text");
        let told: Value = serde_json::from_str(told).expect("which is JSON");
        let socket_id = told["socket_id"].as_str().expect("a socket id").to_owned();
        self.node.links[link].to_client.extend(input);
        Visitor { link, socket_id }
    }

    /// Rounds until a ping is answered. What came before is taken off the link.
    pub(crate) fn rounds_to_pong(&mut self, visitor: &Visitor) -> usize {
        self.takes(visitor.link);
        self.say(visitor.link, &ping());
        (1..ROUNDS_MAX)
            .find(|_| {
                self.round();
                self.has_pong(visitor)
            })
            .expect("a ping is answered")
    }

    pub(crate) fn has_pong(&self, visitor: &Visitor) -> bool {
        let to_client = &self.node.links[visitor.link].to_client;
        let (front, back) = to_client.as_slices();
        assert!(back.is_empty() || front.len() + back.len() < 1 << 20);
        count_of(&[front, back].concat(), b"pusher:pong") > 0
    }

    /// A signed request; `body` none for a GET.
    pub(crate) fn request(
        &self,
        path: &str,
        parameters: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Vec<u8> {
        self.request_of(("scene-id", KEY), path, parameters, body)
    }

    /// The same of another app: its id, its key and its secret.
    pub(crate) fn request_of(
        &self,
        (id, key): (&str, (&str, &str)),
        path: &str,
        parameters: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Vec<u8> {
        let method = if body.is_some() { "POST" } else { "GET" };
        let body = body.map(Value::to_string).unwrap_or_default();
        let path = format!("/apps/{id}{path}");
        let timestamp = (UNIX_MS + self.node.now.0) / 1_000;
        let query = sign::api_query(key, method, &path, parameters, body.as_bytes(), timestamp);
        let length = body.len();
        format!(
            "{method} {path}?{query} HTTP/1.1\r\nHost: node\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        )
        .into_bytes()
    }

    /// What each shard has counted so far; all that was told to the bridge is forgotten.
    pub(crate) fn counted(&mut self) -> Vec<ShardCounters> {
        self.node.tell_all(|| FromBridge::Scrape { token: 1 });
        self.rest();
        let told = self.node.told.drain(..);
        told.filter_map(|(_, _, told)| match told {
            ToBridge::Snapshot { snapshot, .. } => Some(snapshot.counters),
            _ => None,
        })
        .collect()
    }

    pub(crate) fn hangs_up(&mut self, link: usize, how: Closed) {
        self.node.end_link(link, how);
    }

    /// Nothing of anybody is left on any shard.
    pub(crate) fn is_empty(&self) -> bool {
        self.node
            .occupancy()
            .iter()
            .all(|it| *it == Default::default())
    }
}

fn merge(whole: &mut Value, part: &Value) {
    let part = part.as_object().expect("keys are an object");
    for (key, value) in part {
        whole[key] = value.clone();
    }
}

/// A client's frame.
pub(crate) fn frame(text: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    wire::put_frame(&mut bytes, 1, text.to_string().as_bytes(), MASK);
    bytes
}

pub(crate) fn ping() -> Vec<u8> {
    frame(&json!({"event": "pusher:ping", "data": {}}))
}

pub(crate) fn subscribe(channel: &str) -> Vec<u8> {
    frame(&json!({"event": "pusher:subscribe", "data": {"channel": channel}}))
}

pub(crate) fn unsubscribe(channel: &str) -> Vec<u8> {
    frame(&json!({"event": "pusher:unsubscribe", "data": {"channel": channel}}))
}

/// The server's frames in some bytes, all of them whole; the texts as JSON.
pub(crate) fn texts(mut bytes: &[u8]) -> Vec<Value> {
    let mut texts = Vec::new();
    while !bytes.is_empty() {
        let (payload, rest) = split_frame(bytes).expect("frames are whole");
        if bytes[0] & 0x0F == 1 {
            texts.push(serde_json::from_slice(payload).expect("the server sends JSON"));
        }
        bytes = rest;
    }
    texts
}

/// The payload of the first frame, and what follows it.
fn split_frame(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (start, length) = match *bytes.get(1)? {
        126 => (
            4,
            usize::from(u16::from_be_bytes(*bytes.get(2..4)?.first_chunk()?)),
        ),
        127 => (
            10,
            u64::from_be_bytes(*bytes.get(2..10)?.first_chunk()?) as usize,
        ),
        short => (2, usize::from(short)),
    };
    let payload = bytes.get(start..start + length)?;
    Some((payload, &bytes[start + length..]))
}

pub(crate) fn count_of(bytes: &[u8], needle: &[u8]) -> usize {
    let mut count = 0;
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| *byte == needle[0]) {
        rest = &rest[at..];
        let is_it = rest.starts_with(needle);
        count += usize::from(is_it);
        rest = &rest[if is_it { needle.len() } else { 1 }..];
    }
    count
}

/// Status and body of each response in some bytes, all of them whole; bodies in chunks are joined.
pub(crate) fn responses(mut bytes: &[u8]) -> Vec<(u16, Vec<u8>)> {
    let mut responses = Vec::new();
    while !bytes.is_empty() {
        let head_bytes = bytes.windows(4).position(|four| four == b"\r\n\r\n");
        let head_bytes = head_bytes.expect("a head ends") + 4;
        let head = std::str::from_utf8(&bytes[..head_bytes]).expect("a head is text");
        let head = head.to_ascii_lowercase();
        let status = head[9..12].parse().expect("a status is a number");
        bytes = &bytes[head_bytes..];
        let body = if head.contains("\r\ntransfer-encoding: chunked\r\n") {
            take_chunks(&mut bytes)
        } else {
            let (_, length) = head.split_once("\r\ncontent-length: ").expect("a length");
            let (length, _) = length.split_once("\r\n").expect("a line ends");
            let (body, rest) = bytes.split_at(length.parse().expect("a length is a number"));
            bytes = rest;
            body.to_vec()
        };
        responses.push((status, body));
    }
    responses
}

fn take_chunks(bytes: &mut &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let line = bytes.windows(2).position(|two| two == b"\r\n");
        let line = line.expect("a chunk has a line with its length");
        let text = std::str::from_utf8(&bytes[..line]).expect("a length is text");
        let length = usize::from_str_radix(text, 16).expect("a length is a number");
        let (chunk, rest) = bytes[line + 2..].split_at(length);
        body.extend_from_slice(chunk);
        *bytes = rest.strip_prefix(b"\r\n").expect("a chunk ends its line");
        if length == 0 {
            return body;
        }
    }
}
