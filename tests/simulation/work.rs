//! What one message costs a node of 1, 2, 4 and 8 shards: frames queued and messages between shards.
//!
//! `WORK_LOOPS` repeats each step that often, for a profiler that counts instructions.

use serde_json::json;
use sockudo::config::Config;

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
        let mut work = Self {
            node: Node::start(&node_seed(&config(), 1), shards, Limits::USUAL),
            dice: Dice::new(1),
            shards: usize::from(shards),
            publisher: 0,
        };
        for number in 0..MEMBERS * work.shards {
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
        let body = json!({"name": "news", "channels": [channel], "data": "x".repeat(200)});
        let body = body.to_string();
        let path = "/apps/work-id/events";
        let query = sign::api_query(KEY, "POST", path, &[], body.as_bytes(), UNIX_MS / 1_000);
        let length = body.len();
        let request = format!(
            "POST {path}?{query} HTTP/1.1\r\nHost: node\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        );
        let cost = self.cost(|work| work.say(work.publisher, request.as_bytes()));
        assert!(!self.node.links[self.publisher].server_ended);
        cost
    }

    fn client_event(&mut self) -> Cost {
        let data = "y".repeat(100);
        let text = json!({"event": "client-says", "channel": CHANNEL, "data": data}).to_string();
        self.cost(|work| work.frame(0, &text))
    }
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
