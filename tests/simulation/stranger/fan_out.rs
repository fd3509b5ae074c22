//! Crowds on channels: bursts, readers that are slow or stop, all who leave at once.

use serde_json::{Value, json};

use super::HELD_BYTES_MAX;
use super::answered_per_round;
use crate::scene::{KEY, Scene, Visitor, frame, responses, subscribe, texts, unsubscribe};

/// A large channel with publishers, and what its subscribers have got.
struct Stadium {
    scene: Scene,
    audience: Vec<Visitor>,
    offsets: Vec<usize>,
    /// The one stream of events, as the first who got that far has it.
    stream: Vec<u8>,
    publishers: Vec<usize>,
    other: Visitor,
}

const AUDIENCE: usize = 4_000;
const PUBLISHERS: usize = 3;
const BATCH: usize = 10;

impl Stadium {
    fn start(shards: u16) -> Self {
        let mut scene = Scene::start(shards, &json!({}), &json!({}));
        let count = usize::from(shards);
        let wish = subscribe("stadium");
        let audience = scene.arrive(AUDIENCE, |number| number % count, |_| wish.clone());
        for visitor in &audience {
            let told = scene.takes_count(visitor.link, "subscription_succeeded");
            assert_eq!(told, 1);
        }
        let publishers = (0..PUBLISHERS)
            .map(|number| scene.node.connect(number % count, 1 << 16))
            .collect();
        let other = scene.arrives(0);
        Self {
            offsets: vec![0; audience.len()],
            stream: Vec::new(),
            scene,
            audience,
            publishers,
            other,
        }
    }

    /// Hands each publisher its part of the batches, all in one pipeline.
    fn publish(&mut self, events: usize) {
        for batch in 0..events / BATCH {
            let item = |number| {
                let data = format!("{:x<120}", format!("#{batch:05}-{number}#"));
                json!({"name": "news", "channel": "stadium", "data": data})
            };
            let items: Vec<Value> = (0..BATCH).map(item).collect();
            let body = json!({"batch": items});
            let request = self.scene.request("/batch_events", &[], Some(&body));
            let link = self.publishers[batch % PUBLISHERS];
            self.scene.say(link, &request);
        }
    }

    /// Everybody reads; each has what the others have.
    fn reads(&mut self) {
        for (visitor, offset) in self.audience.iter().zip(&mut self.offsets) {
            let bytes = self.scene.takes(visitor.link);
            let known = self.stream.len().min(*offset + bytes.len());
            let (old, new) = bytes.split_at(known - *offset);
            assert!(
                old == &self.stream[*offset..known],
                "two got different streams"
            );
            self.stream.extend_from_slice(new);
            *offset += bytes.len();
        }
    }

    fn check_all(&self, events: usize) {
        let is_whole = |offset: &usize| *offset == self.stream.len();
        assert!(self.offsets.iter().all(is_whole), "some miss the end");
        let mut next = [0, 1, 2];
        let told = texts(&self.stream);
        assert_eq!(told.len(), events);
        for batch in told.chunks(BATCH) {
            for (number, event) in batch.iter().enumerate() {
                let data = event["data"].as_str().expect("data is text");
                let at: usize = data[1..6].parse().expect("a batch's number");
                assert_eq!(data[7..8], number.to_string(), "order within {at}");
                assert_eq!(
                    at,
                    next[at % PUBLISHERS],
                    "order of publisher {}",
                    at % PUBLISHERS
                );
            }
            let at: usize = batch[0]["data"].as_str().expect("text")[1..6]
                .parse()
                .expect("seen above");
            next[at % PUBLISHERS] += PUBLISHERS;
        }
    }

    fn answers(&mut self) -> usize {
        let mut count = 0;
        for link in self.publishers.clone() {
            let answers = responses(&self.scene.takes(link));
            assert!(answers.iter().all(|(status, _)| *status == 200));
            count += answers.len();
        }
        count
    }
}

#[test]
fn stranger_bursts_on_a_large_channel_arrive_whole_in_turns_that_serve_others_too() {
    for (shards, events) in [(1, 300), (3, 300), (1, 3_000)] {
        let mut stadium = Stadium::start(shards);
        stadium.publish(events);
        let (mut answers, mut rounds, mut behind) = (0, 0, 0);
        loop {
            let other = stadium.other.clone();
            stadium.scene.check_pong(&other);
            stadium.reads();
            answers += stadium.answers();
            rounds += 1;
            let occupancy = stadium.scene.node.occupancy();
            behind = behind.max(occupancy.iter().map(|it| it.behind).sum());
            let held = occupancy.iter().map(|it| it.held_bytes_highest).max();
            assert!(held <= Some(HELD_BYTES_MAX), "{held:?} bytes held");
            if answers == events / BATCH && occupancy.iter().all(|it| it.jobs == 0) {
                break;
            }
        }
        stadium.scene.rest();
        stadium.reads();
        stadium.check_all(events);
        assert!(rounds > 20, "{events} events in {rounds} rounds");
        assert!(
            events < 3_000 || behind > 0,
            "nobody held the publishers back"
        );
    }
}

#[test]
fn stranger_to_haste_a_prompt_reader_gets_all_that_one_turn_brings_it() {
    let data = "x".repeat(100 * 1_024);
    let channels: Vec<String> = (0..11).map(|number| format!("channel-{number}")).collect();
    let one = json!({"name": "large", "channels": channels, "data": data});
    let item = |number| json!({"name": "large", "channel": channels[number], "data": data});
    let ten = json!({"batch": (0..10).map(item).collect::<Vec<_>>()});
    for shards in [1, 3] {
        for (path, body, requests, events) in
            [("/events", &one, 1, 11), ("/batch_events", &ten, 10, 100)]
        {
            let mut scene = Scene::start(shards, &json!({}), &json!({}));
            let reader = scene.node.connect(0, 1 << 18);
            scene.say(reader, crate::wire::upgrade_request(KEY.0).as_bytes());
            for channel in &channels {
                scene.say(reader, &subscribe(channel));
            }
            scene.rest();
            scene.takes(reader);
            let publishers: Vec<usize> = (0..requests)
                .map(|_| scene.node.connect(0, 1 << 16))
                .collect();
            for publisher in &publishers {
                scene.say(*publisher, &scene.request(path, &[], Some(body)));
            }
            let (mut delivered, mut is_moving) = (0, true);
            let mut input = Vec::new();
            while is_moving {
                is_moving = scene.round();
                let bytes = scene.takes(reader);
                is_moving |= !bytes.is_empty();
                input.extend(bytes);
            }
            delivered += texts(&input).len();
            assert!(!scene.node.links[reader].server_ended, "{path}: cut off");
            assert_eq!(delivered, events, "{path} on {shards} shards");
            for publisher in publishers {
                let answers = responses(&scene.takes(publisher));
                assert_eq!(answers.len(), 1);
                assert_eq!(answers[0].0, 200);
            }
        }
    }
}

#[test]
fn stranger_to_luck_all_leave_a_channel_that_is_behind_and_one_comes_back() {
    // Large channels keep the turns busy, so that a small one's fan-out waits for many of them.
    const LARGE: usize = 30;
    const LISTENERS: usize = 300;
    const BATCHES: usize = 40;
    for shards in [1_u16, 3] {
        let mut scene = Scene::start(shards, &json!({}), &json!({}));
        let count = usize::from(shards);
        let large: Vec<u8> = (0..LARGE)
            .flat_map(|it| subscribe(&format!("large-{it}")))
            .collect();
        scene.arrive(2_000 * count, |number| number % count, |_| large.clone());
        let wish = subscribe("small");
        let audience = scene.arrive(LISTENERS * count, |number| number % count, |_| wish.clone());
        let batch = |scene: &Scene, channel: &str| {
            let item = json!({"name": "n", "channel": channel, "data": "x"});
            let body = json!({"batch": vec![item; BATCH]});
            scene.request("/batch_events", &[], Some(&body))
        };
        for number in 0..LARGE {
            let link = scene.node.connect(number % count, 1 << 16);
            let request = batch(&scene, &format!("large-{number}"));
            scene.say(link, &request);
        }
        let publisher = scene.node.connect(0, 1 << 16);
        let request = batch(&scene, "small");
        scene.say(publisher, &request.repeat(BATCHES));
        let behind = |scene: &Scene| -> usize {
            let all = scene.node.occupancy();
            all.iter().map(|it| it.behind).sum()
        };
        let mut rounds = 0;
        while behind(&scene) == 0 {
            assert!(rounds < 1_000, "the small channel is not behind");
            scene.round();
            rounds += 1;
        }
        for (number, visitor) in audience.iter().enumerate() {
            let mut bytes = unsubscribe("small");
            if number + 1 == audience.len() {
                bytes.extend(&wish);
            }
            scene.say(visitor.link, &bytes);
        }
        scene.rest();
        let answers = responses(&scene.takes(publisher)).len();
        assert_eq!((answers, behind(&scene)), (BATCHES, 0), "{shards} shards");
    }
}

#[test]
fn stranger_that_reads_slowly_but_speaks_is_not_taken_for_dead() {
    let keys = json!({"net": {"slow_consumer": "drop_oldest"}});
    let mut scene = Scene::start(1, &keys, &json!({}));
    let wish = subscribe("news");
    let slow = scene.arrive(1, |_| 0, |_| wish.clone()).remove(0);
    scene.takes(slow.link);
    scene.node.links[slow.link].socket_bytes_max = 0;
    let publisher = scene.node.connect(0, 1 << 16);
    for minute in 0..10 {
        for _ in 0..16 {
            let event = json!({"name": "n", "channel": "news", "data": "x".repeat(90_000)});
            let request = scene.request("/events", &[], Some(&event));
            scene.say(publisher, &request);
        }
        scene.passes(60_000);
        assert_eq!(responses(&scene.takes(publisher)).len(), 16);
        let before = scene.node.occupancy()[0].held_bytes_highest;
        scene.say(
            slow.link,
            &frame(&json!({"event": "pusher:pong", "data": {}})),
        );
        scene.passes(100);
        let held = scene.node.occupancy()[0].held_bytes_highest;
        assert_eq!(
            (before, held),
            (0, 0),
            "it is listened to, in minute {minute}"
        );
        assert_eq!(
            scene.node.occupancy()[0].websockets,
            1,
            "after {minute} minutes"
        );
    }
}

#[test]
fn stranger_to_reading_10_000_that_stop_are_sent_away_in_turns_that_serve_others_too() {
    const AUDIENCE: usize = 10_000;
    let mut scene = Scene::start(1, &json!({}), &json!({}));
    let wish = subscribe("news");
    let audience = scene.arrive(AUDIENCE, |_| 0, |_| wish.clone());
    for visitor in &audience {
        scene.takes(visitor.link);
        scene.node.links[visitor.link].socket_bytes_max = 0;
    }
    let (publisher, other) = (scene.node.connect(0, 1 << 16), scene.arrives(0));
    let event = json!({"name": "n", "channel": "news", "data": "x".repeat(90_000)});
    let mut answers = 0;
    let mut published = 0;
    while scene.node.occupancy()[0].websockets > 1 {
        if published == answers && published < 200 {
            let request = scene.request("/events", &[], Some(&event));
            scene.say(publisher, &request);
            published += 1;
        }
        scene.check_pong(&other);
        answers += responses(&scene.takes(publisher)).len();
        scene.passes(100);
    }
    assert!(published >= 12, "{published} events filled their outboxes");
}

#[test]
fn stranger_or_not_who_publishes_to_100_channels_pays_for_each_copy() {
    const COUNT: usize = 30;
    let channels: Vec<String> = (0..100).map(|number| format!("channel-{number}")).collect();
    let body = json!({"name": "large", "channels": channels, "data": "x".repeat(100_000)});
    for shards in [1, 3] {
        let mut scene = Scene::start(shards, &json!({}), &json!({}));
        let links: Vec<usize> = (0..COUNT).map(|_| scene.node.connect(0, 1 << 16)).collect();
        let request = scene.request("/events", &[], Some(&body));
        for link in &links {
            scene.say(*link, &request[..request.len() - 1]);
        }
        scene.rest();
        for link in &links {
            scene.say(*link, &request[request.len() - 1..]);
        }
        let (highest, all) = answered_per_round(&mut scene, &links, "HTTP/1.1 200", 400);
        assert_eq!(all, COUNT);
        assert!(highest <= 2, "{highest} in one turn");
    }
}
