//! A node whose queue to the bus is full: what has an answer is refused whole before anybody gets it, what has none
//! reaches those who are here. One whose bus is gone: an order for all nodes is done here and refused, and who leaves
//! is told later. The test takes the place of the bus.

use serde_json::{Value, json};
use shards::application::{Closed, PublishRoom};
use sockudo::bridge::message::ToBridge;

use crate::{
    scene::{KEY, Scene, Visitor, frame, responses, subscribe, texts},
    sign,
};

const CHANNELS: [&str; 4] = ["news", "sports", "weather", "arts"];

struct FullBus {
    scene: Scene,
    publisher: usize,
    visitor: Visitor,
    /// Channels of events for the other nodes.
    crossed: Vec<String>,
    /// Orders for them to end somebody's connections.
    terminated: usize,
}

impl FullBus {
    /// Somebody has subscribed to all channels, which have homes on both shards.
    fn begins() -> Self {
        let keys = json!({"adapter": {"driver": "redis"}});
        let mut scene = Scene::start(2, &keys, &json!({}));
        let partitions = scene.apps.by_id("scene-id").expect("it is there");
        let home_of = |channel| {
            let partition = partitions.rules.partitions.of_channel(channel);
            partition.number() % 2
        };
        let homes = CHANNELS.map(home_of);
        assert!(homes.contains(&0) && homes.contains(&1), "{homes:?}");
        let publisher = scene.node.connect(0, 1 << 16);
        let visitor = scene.arrives(0);
        for channel in CHANNELS {
            scene.say(visitor.link, &subscribe(channel));
        }
        let mut full = Self {
            scene,
            publisher,
            visitor,
            crossed: Vec::new(),
            terminated: 0,
        };
        full.settles();
        full.hears();
        full
    }

    fn is_behind(&mut self, is_behind: bool) {
        for shard in &mut self.scene.node.shards {
            shard.turn.is_behind = is_behind;
        }
    }

    fn signs_in(&mut self, user: &str, watchlist: &[&str]) -> Visitor {
        let visitor = self.scene.arrives(1);
        let user_data = json!({"id": user, "watchlist": watchlist}).to_string();
        let auth = sign::signin_auth(KEY.0, KEY.1, &visitor.socket_id, &user_data);
        let data = json!({"auth": auth, "user_data": user_data});
        let asks = frame(&json!({"event": "pusher:signin", "data": data}));
        self.scene.say(visitor.link, &asks);
        self.settles();
        visitor
    }

    /// What one hears of those whom it watches: which of them came or went.
    fn heard_of_watched(&mut self, watcher: &Visitor) -> Vec<String> {
        let texts = texts(&self.scene.takes(watcher.link));
        let of_watched = |it: &&Value| it["event"] == "pusher_internal:watchlist_events";
        let data = texts.iter().filter(of_watched).map(|it| {
            let text = it["data"].as_str().expect("a text");
            serde_json::from_str::<Value>(text).expect("JSON")
        });
        let named = |event: &Value| format!("{} {}", event["name"], event["user_ids"]);
        let named = |data: Value| {
            let events = data["events"].as_array().expect("a list");
            events.iter().map(named).collect::<Vec<_>>()
        };
        data.flat_map(named).collect()
    }

    fn settles(&mut self) {
        self.scene.settles(|_, message| match message {
            ToBridge::Event(event) => self.crossed.push(event.channel.to_string()),
            ToBridge::Terminate(_) => self.terminated += 1,
            _ => {}
        });
    }

    fn takes_publishes(&mut self, shards: [bool; 2]) {
        self.has_room(shards.map(|takes| match takes {
            true => PublishRoom::Free,
            false => PublishRoom::None,
        }));
    }

    fn has_room(&mut self, shards: [PublishRoom; 2]) {
        for (shard, room) in self.scene.node.shards.iter_mut().zip(shards) {
            shard.turn.publish_room = room;
        }
    }

    fn status_of(&mut self, path: &str, body: &Value) -> u16 {
        let request = self.scene.request(path, &[], Some(body));
        self.scene.say(self.publisher, &request);
        self.settles();
        responses(&self.scene.takes(self.publisher))[0].0
    }

    /// Channels of what the subscriber has got.
    fn hears(&mut self) -> Vec<String> {
        let heard = texts(&self.scene.takes(self.visitor.link));
        let channel = |it: &Value| it["channel"].as_str().map(str::to_owned);
        heard.iter().filter_map(channel).collect()
    }

    /// Events that somebody has got.
    fn heard_by(&mut self, visitor: &Visitor) -> Vec<String> {
        let heard = texts(&self.scene.takes(visitor.link));
        let event = |it: &Value| it["event"].as_str().map(str::to_owned);
        let heard = heard.iter().filter_map(event);
        heard.filter(|it| it != "pusher:ping").collect()
    }

    /// Events that met a full queue, as they are counted.
    fn counted(&mut self) -> u64 {
        let counted = self.scene.counted();
        counted.iter().map(|it| it.bridge_full[2]).sum()
    }
}

#[test]
fn a_publish_that_the_bus_has_no_room_for_is_refused_whole_and_reaches_nobody() {
    let event = json!({"name": "n", "channels": CHANNELS, "data": "x"});
    let of_batch = |channel: &&str| json!({"name": "n", "channel": channel, "data": "x"});
    let batch = json!({"batch": CHANNELS.iter().map(of_batch).collect::<Vec<_>>()});
    for (path, body) in [("/events", &event), ("/batch_events", &batch)] {
        let mut full = FullBus::begins();
        full.takes_publishes([false; 2]);
        assert_eq!(full.status_of(path, body), 503, "{path}");
        assert_eq!(full.hears(), [""; 0], "{path}");
        assert_eq!(full.crossed, [""; 0], "{path}");
        assert_eq!(full.counted(), 4, "{path}");
        full.takes_publishes([true; 2]);
        assert_eq!(full.status_of(path, body), 200, "{path}");
        let mut heard = full.hears();
        heard.sort();
        full.crossed.sort();
        assert_eq!(heard, ["arts", "news", "sports", "weather"], "{path}");
        assert_eq!(full.crossed, heard, "{path}");
    }
}

#[test]
fn the_last_room_of_the_bus_is_for_who_publishes_little() {
    let mut full = FullBus::begins();
    let of = |bytes: usize| json!({"name": "n", "channels": CHANNELS, "data": "x".repeat(bytes)});
    let (little, much) = (of(1), of(90_000));
    full.has_room([PublishRoom::Scarce; 2]);
    assert_eq!(full.status_of("/events", &much), 200, "it published little");
    full.has_room([PublishRoom::Free; 2]);
    for _ in 0..6 {
        assert_eq!(full.status_of("/events", &much), 200, "there is room");
    }
    full.has_room([PublishRoom::Scarce; 2]);
    full.crossed.clear();
    full.hears();
    for body in [&much, &little] {
        assert_eq!(
            full.status_of("/events", body),
            503,
            "it published the most"
        );
    }
    assert_eq!((full.hears().len(), full.crossed.len()), (0, 0));
    // It is forgotten after two seconds.
    full.scene.passes(2_000);
    assert_eq!(full.status_of("/events", &little), 200);
    assert_eq!(full.crossed.len(), 4);
}

#[test]
fn what_a_home_refuses_reaches_nobody_though_other_homes_took_theirs() {
    let mut full = FullBus::begins();
    full.takes_publishes([true, false]);
    let event = json!({"name": "n", "channels": CHANNELS, "data": "x"});
    assert_eq!(full.status_of("/events", &event), 503);
    let mut heard = full.hears();
    heard.sort();
    full.crossed.sort();
    assert_eq!(full.crossed, heard, "who is here hears what crosses");
    assert!(!heard.is_empty() && heard.len() < 4, "{heard:?}");
}

#[test]
fn a_client_event_that_the_bus_has_no_room_for_reaches_those_who_are_here() {
    let mut full = FullBus::begins();
    let room = "private-room";
    let sender = full.scene.arrives(1);
    for visitor in [full.visitor.clone(), sender.clone()] {
        let auth = sign::channel_auth(KEY.0, KEY.1, &visitor.socket_id, room, None);
        let data = json!({"channel": room, "auth": auth});
        let asks = frame(&json!({"event": "pusher:subscribe", "data": data}));
        full.scene.say(visitor.link, &asks);
    }
    full.settles();
    assert_eq!(full.hears(), [room]);
    full.takes_publishes([false; 2]);
    let event = frame(&json!({"event": "client-typing", "channel": room, "data": "x"}));
    full.scene.say(sender.link, &event);
    full.settles();
    assert_eq!(full.hears(), [room]);
    assert_eq!(full.crossed, [""; 0]);
    assert_eq!(full.counted(), 1);
}

#[test]
fn users_are_ended_here_and_the_order_is_refused_while_other_nodes_hear_nothing() {
    let mut full = FullBus::begins();
    let path = "/users/ann/terminate_connections";
    for (is_cut_off, status) in [(true, 503), (false, 200), (true, 503)] {
        let ann = full.signs_in("ann", &[]);
        for shard in &mut full.scene.node.shards {
            shard.turn.is_cut_off = is_cut_off;
        }
        assert_eq!(full.status_of(path, &json!({})), status);
        assert_eq!(full.status_of(path, &json!({})), status, "said twice");
        let texts = texts(&full.scene.takes(ann.link));
        let codes = texts.iter().map(|it| it["data"]["code"].as_u64());
        let ends = codes.filter(|code| *code == Some(4_009)).count();
        assert_eq!(ends, 1, "{texts:?}");
        assert_eq!(std::mem::take(&mut full.terminated), 2);
    }
}

#[test]
fn who_leaves_is_told_when_the_node_is_not_behind_any_more() {
    let mut full = FullBus::begins();
    let room = "presence-room";
    let joins = |full: &mut FullBus, user: &str| {
        let visitor = full.scene.arrives(1);
        let member = json!({"user_id": user}).to_string();
        let auth = sign::channel_auth(KEY.0, KEY.1, &visitor.socket_id, room, Some(&member));
        let data = json!({"channel": room, "auth": auth, "channel_data": member});
        let asks = frame(&json!({"event": "pusher:subscribe", "data": data}));
        full.scene.say(visitor.link, &asks);
        full.settles();
        visitor
    };
    let stays = joins(&mut full, "ann");
    let leaves = joins(&mut full, "bob");
    full.scene.takes(stays.link);
    full.is_behind(true);
    full.scene.hangs_up(leaves.link, Closed::ByPeer);
    full.scene.passes(20_000);
    assert_eq!(full.heard_by(&stays), [""; 0]);
    full.is_behind(false);
    full.scene.passes(1_000);
    let removed = "pusher_internal:member_removed";
    assert_eq!(full.heard_by(&stays), [removed]);
    full.scene.passes(10_000);
    assert_eq!(full.heard_by(&stays), [""; 0], "once");
}

#[test]
fn who_watches_hears_of_a_going_when_the_node_is_not_behind_any_more() {
    let mut full = FullBus::begins();
    let watcher = full.signs_in("eve", &["ann", "bob"]);
    let [ann, bob] = ["ann", "bob"].map(|user| full.signs_in(user, &[]));
    let online = [r#""online" ["ann"]"#, r#""online" ["bob"]"#];
    assert_eq!(full.heard_of_watched(&watcher)[1..], online);
    full.is_behind(true);
    full.scene.hangs_up(ann.link, Closed::ByPeer);
    full.scene.hangs_up(bob.link, Closed::ByPeer);
    full.scene.passes(20_000);
    full.signs_in("bob", &[]);
    assert_eq!(full.heard_of_watched(&watcher), [""; 0]);
    full.is_behind(false);
    full.scene.passes(1_000);
    assert_eq!(full.heard_of_watched(&watcher), [r#""offline" ["ann"]"#]);
    full.scene.passes(100_000);
    assert_eq!(full.heard_of_watched(&watcher), [""; 0], "once");
}

#[test]
fn who_watches_hears_of_a_going_after_a_minute_though_the_node_is_behind_still() {
    let mut full = FullBus::begins();
    let watcher = full.signs_in("eve", &["ann"]);
    let ann = full.signs_in("ann", &[]);
    full.heard_of_watched(&watcher);
    assert!(!full.scene.node.keeps_ticking());
    full.is_behind(true);
    full.scene.hangs_up(ann.link, Closed::ByPeer);
    full.scene.passes(59_000);
    assert_eq!(full.heard_of_watched(&watcher), [""; 0]);
    assert!(full.scene.node.keeps_ticking(), "though nothing may come");
    full.scene.passes(2_000);
    assert_eq!(full.heard_of_watched(&watcher), [r#""offline" ["ann"]"#]);
}

#[test]
fn of_more_that_wait_for_the_bus_than_may_each_is_sent_away_and_all_others_wait_on() {
    /// As many as may wait on a shard.
    const WAIT: usize = 16_384;
    let keys = json!({"adapter": {"driver": "redis"}});
    let mut scene = Scene::start(1, &keys, &json!({}));
    let mut waiting = scene.arrive(WAIT - 1, |_| 0, |_| subscribe("news"));
    let [last, first_too_many, too_many] = [0; 3].map(|_| {
        let visitor = scene.arrives(0);
        scene.say(visitor.link, &subscribe("news"));
        scene.rest();
        visitor
    });
    waiting.push(last);
    for visitor in [first_too_many, too_many] {
        let texts = texts(&scene.takes(visitor.link));
        assert_eq!(texts.len(), 1, "{texts:?}");
        assert_eq!(texts[0]["data"]["code"], 4_100);
    }
    for visitor in &waiting {
        assert_eq!(scene.takes(visitor.link), [0; 0], "it waits");
    }
    scene.settles(|_, _| {});
    for visitor in &waiting {
        let texts = texts(&scene.takes(visitor.link));
        let event = "pusher_internal:subscription_succeeded";
        assert_eq!(texts[0]["event"], event, "{texts:?}");
    }
}
