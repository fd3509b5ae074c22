//! What a stranger or a crowd may do to a node, while somebody else's ping is answered in the next turns.
//!
//! Work is counted and time stands still unless a test lets it pass: nothing here depends on a clock.

use std::{collections::BTreeSet, sync::Arc};

use serde_json::{Value, json};
use shards::application::Closed;
use sockudo::bridge::{apps::AppTable, message::FromBridge};

use crate::{
    scene::{KEY, Scene, Visitor, count_of, frame, ping, responses, subscribe, texts, unsubscribe},
    sign,
    turn::Limits,
};

/// Rounds within which a ping is answered, whoever else is there.
const PONG_ROUNDS_MAX: usize = 3;
/// Subscribes and unsubscribes that pass at once, and per second, unless configured.
const BURST: usize = 1_000;
const RATE: usize = 500;
/// Input that a shard holds for one connection: its bound and one receive.
const HELD_BYTES_MAX: usize = 64 * 1_024 + 16_384;

impl Scene {
    /// The rounds that a ping took.
    fn check_pong(&mut self, visitor: &Visitor) -> usize {
        let rounds = self.rounds_to_pong(visitor);
        assert!(
            rounds <= PONG_ROUNDS_MAX,
            "a ping was answered after {rounds} rounds"
        );
        rounds
    }

    /// Takes what is on a link and counts a text in it.
    fn takes_count(&mut self, link: usize, needle: &str) -> usize {
        count_of(&self.takes(link), needle.as_bytes())
    }
}

#[test]
fn stranger_that_floods_with_unsubscribes_waits_for_its_rate_and_holds_nobody_up() {
    const COUNT: usize = 70_000;
    let mut scene = Scene::start(1, &json!({}), &json!({}));
    let (flooder, other) = (scene.arrives(0), scene.arrives(0));
    let one = unsubscribe("where-nobody-is");
    scene.say(flooder.link, &one.repeat(COUNT));
    for _ in 0..20 {
        scene.check_pong(&other);
    }
    scene.rest();
    let waiting = scene.node.links[flooder.link].to_server.len();
    let taken_max = BURST + HELD_BYTES_MAX / one.len() + 1;
    assert!(
        COUNT - waiting / one.len() <= taken_max,
        "{waiting} bytes wait"
    );
    scene.say(flooder.link, &ping());
    let mut seconds = 0;
    while !scene.has_pong(&flooder) {
        scene.passes(1_000);
        seconds += 1;
        scene.check_pong(&other);
    }
    let wanted = (COUNT - BURST) / RATE;
    assert!(
        (wanted * 9 / 10..=wanted * 11 / 10).contains(&seconds),
        "all were taken in {seconds} s"
    );
}

#[test]
fn stranger_with_200_000_channels_costs_each_turn_no_more_than_its_share() {
    const COUNT: usize = 200_000;
    let keys = json!({"net": {"subscribe_rate_per_s": 0}});
    for shards in [1_u16, 3] {
        let app = json!({"max_subscriptions_per_connection": 0});
        let mut scene = Scene::start(shards, &keys, &app);
        let (hoarder, other) = (scene.arrives(0), scene.arrives(0));
        let frames: Vec<u8> = (0..COUNT)
            .flat_map(|number| subscribe(&format!("channel-{number}")))
            .collect();
        scene.say(hoarder.link, &frames);
        let mut subscribed = 0;
        while subscribed < COUNT {
            scene.check_pong(&other);
            subscribed += scene.takes_count(hoarder.link, "subscription_succeeded");
        }
        let ends = unsubscribe("channel-7").repeat(1_000);
        scene.say(hoarder.link, &ends);
        scene.check_pong(&other);
        scene.rest();
    }
}

#[test]
fn stranger_that_hangs_up_with_many_channels_is_forgotten_within_a_turns_bound() {
    const COUNT: usize = 4_000;
    let keys = json!({"net": {"subscribe_rate_per_s": 0}});
    for shards in [1_u16, 3] {
        let mut scene = Scene::start(shards, &keys, &json!({}));
        let other = scene.arrives(0);
        let bytes = |at: usize| {
            // Two are in each channel, so that one's going moves the other in its list.
            let numbers = at / 2 * COUNT..(at / 2 + 1) * COUNT;
            numbers
                .flat_map(|number| subscribe(&format!("channel-{number}")))
                .collect()
        };
        let hoarders = scene.arrive(10, |_| 0, bytes);
        for hoarder in hoarders {
            let told = scene.takes_count(hoarder.link, "subscription_succeeded");
            assert_eq!(told, COUNT);
            scene.hangs_up(hoarder.link, Closed::ByError);
        }
        while scene
            .node
            .occupancy()
            .iter()
            .any(|it| it.occupied_channels > 0)
        {
            scene.check_pong(&other);
        }
    }
}

#[test]
fn stranger_that_is_sent_away_gets_nothing_after_its_close_frame_though_its_channels_are_many() {
    const COUNT: usize = 4_000;
    let keys = json!({"net": {"subscribe_rate_per_s": 0}});
    for shards in [1_u16, 3] {
        let mut scene = Scene::start(shards, &keys, &json!({}));
        let (hoarder, other) = (scene.arrives(0), scene.arrives(0));
        let publisher = scene.node.connect(0, 1 << 16);
        scene.say(hoarder.link, &sign_in(&hoarder, "hoarder", &[]));
        let channels = (0..COUNT).flat_map(|number| subscribe(&format!("channel-{number}")));
        scene.say(hoarder.link, &channels.collect::<Vec<u8>>());
        scene.rest();
        let told = scene.takes_count(hoarder.link, "subscription_succeeded");
        assert_eq!(told, COUNT);
        let path = "/users/hoarder/terminate_connections";
        let mut requests = scene.request(path, &[], Some(&json!({})));
        for number in (0..COUNT).step_by(40) {
            let channel = format!("channel-{number}");
            let event = json!({"name": "news", "channel": channel, "data": "x"});
            requests.extend(scene.request("/events", &[], Some(&event)));
        }
        scene.say(publisher, &requests);
        while scene
            .node
            .occupancy()
            .iter()
            .any(|it| it.occupied_channels > 0)
        {
            scene.check_pong(&other);
        }
        scene.rest();
        let frames = scene.takes(hoarder.link);
        let close_frame = frames
            .windows(4)
            .rposition(|it| it[0] == 0x88 && it[2..] == [0x0F, 0xA9]);
        let rest = &frames[close_frame.expect("4009 was told")..];
        assert_eq!(rest.len(), 2 + usize::from(rest[1]), "{shards} shards");
    }
}

#[test]
fn stranger_or_not_500_channels_pass_at_once_and_more_in_their_time_and_none_is_refused() {
    // The one that finds its allowance used up passes, too: what follows it waits.
    for (count, at_once, ms) in [
        (500, 500, 0),
        (1_000, 1_000, 0),
        (1_001, 1_001, 0),
        (1_002, 1_001, 100),
        (1_500, 1_001, 1_000),
    ] {
        let mut scene = Scene::start(1, &json!({}), &json!({}));
        let visitor = scene.arrives(0);
        let frames: Vec<u8> = (0..count)
            .flat_map(|number| subscribe(&format!("channel-{number}")))
            .collect();
        scene.say(visitor.link, &frames);
        scene.rest();
        let told = scene.takes(visitor.link);
        assert_eq!(
            count_of(&told, b"subscription_succeeded"),
            at_once,
            "{count}"
        );
        scene.passes(ms);
        let later = scene.takes(visitor.link);
        let all = count_of(&later, b"subscription_succeeded") + at_once;
        assert_eq!(all, count, "{count} in {ms} ms");
        for bytes in [told, later] {
            assert_eq!(count_of(&bytes, b"error"), 0, "{count}");
        }
    }
}

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

/// A node with so many channels, made by connections with 4 000 each.
fn with_channels(
    shards: u16,
    count: usize,
    name: impl Fn(usize) -> String,
    limits: Limits,
) -> Scene {
    const EACH: usize = 4_000;
    let keys = json!({"net": {"subscribe_rate_per_s": 0}});
    let mut scene = Scene::start_with(shards, &keys, &json!({}), limits);
    let wishes = |at: usize| {
        let numbers = at * EACH..count.min((at + 1) * EACH);
        numbers
            .flat_map(|number| subscribe(&name(number)))
            .collect()
    };
    let modulus = usize::from(shards);
    let all = scene.arrive(count.div_ceil(EACH), |at| at % modulus, wishes);
    let mut subscribed = 0;
    for visitor in &all {
        subscribed += scene.takes_count(visitor.link, "subscription_succeeded");
    }
    assert_eq!(subscribed, count);
    scene
}

/// The channels that a whole answer names.
fn channels_of(answer: &[u8]) -> BTreeSet<String> {
    let answers = responses(answer);
    assert_eq!(answers.len(), 1);
    let (status, body) = &answers[0];
    assert_eq!(*status, 200);
    // As text first: a map would hide a channel that is told twice.
    let told = count_of(body, b"\":{");
    let body: Value = serde_json::from_slice(body).expect("a body is JSON");
    let channels = body["channels"].as_object().expect("channels");
    assert_eq!(channels.len() + 1, told, "each is told once");
    channels.keys().cloned().collect()
}

#[test]
fn stranger_that_lists_200_000_channels_gets_each_once_over_many_turns() {
    const COUNT: usize = 200_000;
    let wanted: BTreeSet<String> = (0..COUNT)
        .map(|number| format!("channel-{number}"))
        .collect();
    let limits = Limits {
        burst_bytes_max: 1 << 20,
        ..Limits::USUAL
    };
    for shards in [1, 3] {
        let mut scene = with_channels(shards, COUNT, |number| format!("channel-{number}"), limits);
        let other = scene.arrives(0);
        // Bytes that the reader's socket holds, and takes per round.
        for (prefix, socket, bytes, rounds_min) in [
            ("channel-", 1 << 20, usize::MAX, 8),
            ("channel-", 8_192, 8_192, 300),
            ("no-such", 1 << 20, usize::MAX, 4),
        ] {
            let reader = scene.node.connect(0, socket);
            let parameters = [("filter_by_prefix", prefix)];
            scene.say(reader, &scene.request("/channels", &parameters, None));
            let (mut answer, mut rounds) = (Vec::new(), 0);
            while !answer.ends_with(b"\r\n0\r\n\r\n") && !answer.ends_with(b"{\"channels\":{}}") {
                rounds += scene.check_pong(&other);
                let to_client = &mut scene.node.links[reader].to_client;
                answer.extend(to_client.drain(..to_client.len().min(bytes)));
                assert!(rounds < 20_000, "{prefix}: {} bytes came", answer.len());
            }
            assert!(rounds >= rounds_min, "{prefix}: all in {rounds} rounds");
            let channels = channels_of(&answer);
            match prefix {
                "channel-" => assert!(channels == wanted, "{} are told", channels.len()),
                _ => assert!(channels.is_empty()),
            }
            scene.hangs_up(reader, Closed::ByPeer);
        }
    }
}

#[test]
fn stranger_to_short_names_an_answer_of_more_than_two_mebibytes_arrives_whole() {
    let name = |number| format!("{number:x<190}");
    let mut scene = with_channels(1, 12_000, name, Limits::USUAL);
    let reader = scene.node.connect(0, usize::MAX);
    for _ in 0..2 {
        scene.say(reader, &scene.request("/channels", &[], None));
        scene.rest();
        let answer = scene.takes(reader);
        assert!(answer.len() > 2 << 20);
        assert_eq!(channels_of(&answer).len(), 12_000);
    }
}

fn sign_in(visitor: &Visitor, user: &str, watchlist: &[&str]) -> Vec<u8> {
    let user_data = json!({"id": user, "watchlist": watchlist}).to_string();
    let auth = sign::signin_auth(KEY.0, KEY.1, &visitor.socket_id, &user_data);
    let data = json!({"auth": auth, "user_data": user_data});
    frame(&json!({"event": "pusher:signin", "data": data}))
}

#[test]
fn stranger_that_signs_in_again_and_again_waits_for_its_rate_and_pays_for_each_watched_user() {
    const COUNT: usize = 1_500;
    let ids: Vec<String> = (0..100).map(|number| format!("user-{number}")).collect();
    let watchlist: Vec<&str> = ids.iter().map(String::as_str).collect();
    for shards in [1_u16, 3] {
        let mut scene = Scene::start(shards, &json!({}), &json!({}));
        let (signer, other) = (scene.arrives(0), scene.arrives(0));
        let one = sign_in(&signer, "signer", &watchlist);
        scene.say(signer.link, &one.repeat(COUNT));
        let (mut told, mut highest) = (0, 0);
        while told <= BURST {
            scene.check_pong(&other);
            let now = scene.takes_count(signer.link, "pusher:signin_success");
            highest = highest.max(now);
            told += now;
        }
        scene.rest();
        told += scene.takes_count(signer.link, "pusher:signin_success");
        assert_eq!(told, BURST + 1, "what passes at once on {shards} shards");
        assert!(highest <= 3 * 60, "{highest} sign-ins in three turns");
        scene.passes(1_000);
        let later = scene.takes_count(signer.link, "pusher:signin_success");
        assert_eq!(told + later, COUNT, "none is refused");
    }
}

#[test]
fn stranger_that_8_000_watch_is_told_to_them_in_slices_and_once_per_shard() {
    const WATCHERS: usize = 8_000;
    for shards in [1_u16, 3] {
        let count = usize::from(shards);
        let mut scene = Scene::start(shards, &json!({}), &json!({}));
        let watchers = scene.arrive(WATCHERS, |number| number % count, |_| Vec::new());
        for (number, watcher) in watchers.iter().enumerate() {
            let bytes = sign_in(watcher, &format!("fan-{number}"), &["star"]);
            scene.say(watcher.link, &bytes);
        }
        scene.rest();
        for watcher in &watchers {
            let told = scene.takes(watcher.link);
            assert_eq!(count_of(&told, b"pusher:signin_success"), 1);
            assert_eq!(count_of(&told, b"offline"), 1);
        }
        let (star, other) = (scene.arrives(0), scene.arrives(0));
        for news in ["online", "offline"] {
            let posted = scene.node.posted;
            if news == "online" {
                scene.say(star.link, &sign_in(&star, "star", &[]));
            } else {
                scene.hangs_up(star.link, Closed::ByError);
            }
            let mut heard = 0;
            let mut rounds = 0;
            while heard < WATCHERS {
                scene.check_pong(&other);
                for watcher in &watchers {
                    heard += scene.takes_count(watcher.link, news);
                }
                rounds += 1;
                assert!(rounds < 1_000, "{heard} heard that the star is {news}");
            }
            scene.rest();
            let more: usize = watchers.iter().map(|it| scene.takes(it.link).len()).sum();
            assert_eq!((heard, more), (WATCHERS, 0), "{news}");
            let messages = scene.node.posted - posted;
            assert!(
                messages <= 12,
                "{messages} messages between {shards} shards"
            );
        }
    }
}

#[test]
fn stranger_beside_5_000_that_drop_at_once_is_greeted_in_the_next_turns() {
    for count in [5_000_usize, 15_000] {
        let mut scene = Scene::start(1, &json!({}), &json!({}));
        let bytes = |number| [subscribe("all"), subscribe(&format!("own-{number}"))].concat();
        let crowd = scene.arrive(count, |_| 0, bytes);
        let other = scene.arrives(0);
        for visitor in &crowd {
            scene.takes(visitor.link);
            scene.hangs_up(visitor.link, Closed::ByError);
        }
        let mut turns_with_crowd = 0;
        while scene.node.occupancy()[0].connections > 1 {
            let fresh = scene.node.connect(0, usize::MAX);
            scene.say(fresh, crate::wire::upgrade_request(KEY.0).as_bytes());
            let mut rounds = 0;
            while count_of(&scene.takes(fresh), b"connection_established") == 0 {
                scene.round();
                rounds += 1;
                assert!(rounds <= 6, "{count}: not greeted after {rounds} rounds");
            }
            scene.hangs_up(fresh, Closed::ByError);
            scene.check_pong(&other);
            turns_with_crowd += rounds;
        }
        assert!(turns_with_crowd > 5, "{count} were gone at once");
        scene.hangs_up(other.link, Closed::ByError);
        scene.passes(20_000);
        assert!(scene.is_empty(), "{:?}", scene.node.occupancy());
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
fn stranger_that_holds_little_stays_when_others_fill_what_is_held_for_strangers() {
    const HOARDERS: usize = 40;
    let keys = json!({"net": {"input_held_bytes": 1_048_576}});
    let mut scene = Scene::start(1, &keys, &json!({}));
    let hoarders = scene.arrive(HOARDERS, |_| 0, |_| Vec::new());
    let unfinished = frame(&json!({"event": "x", "data": "x".repeat(60_000)}));
    let innocents = scene.arrive(20, |_| 0, |_| Vec::new());
    for hoarder in &hoarders {
        scene.takes(hoarder.link);
        scene.say(hoarder.link, &unfinished[..unfinished.len() - 1]);
    }
    scene.rest();
    let wish = subscribe("news");
    let (first, second) = wish.split_at(wish.len() / 2);
    for innocent in &innocents {
        scene.takes(innocent.link);
        scene.say(innocent.link, first);
        scene.rest();
    }
    for innocent in &innocents {
        scene.say(innocent.link, second);
        scene.rest();
        let told = scene.takes_count(innocent.link, "subscription_succeeded");
        assert_eq!(told, 1);
    }
    let told: Vec<Vec<u8>> = hoarders.iter().map(|it| scene.takes(it.link)).collect();
    let sent_away = told
        .iter()
        .filter(|bytes| count_of(bytes, b"4100") > 0)
        .count();
    // 40 times 60 kB are more than twice the bound.
    assert!((22..=25).contains(&sent_away), "{sent_away} were sent away");
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
fn stranger_that_ends_its_side_after_a_request_gets_the_answer_from_any_shard() {
    let mut scene = Scene::start(3, &json!({}), &json!({}));
    for number in 0..60 {
        let link = scene.node.connect(number % 3, 1 << 16);
        let body = json!({"name": "e", "channel": format!("channel-{number}"), "data": "{}"});
        scene.say(link, &scene.request("/events", &[], Some(&body)));
        scene.hangs_up(link, Closed::ByPeer);
        scene.rest();
        let answers = responses(&scene.takes(link));
        let told: Vec<u16> = answers.iter().map(|(status, _)| *status).collect();
        assert_eq!(told, [200], "channel {number}");
        assert!(scene.node.links[link].server_ended, "channel {number}");
    }
}

#[test]
fn stranger_that_asks_on_and_reads_nothing_is_not_read_and_later_gets_every_answer() {
    const COUNT: usize = 20_000;
    for shards in [1_u16, 3] {
        let mut scene = Scene::start(shards, &json!({}), &json!({}));
        let other = scene.arrives(0);
        let asker = scene.node.connect(0, 1 << 16);
        let request = scene.request("/channels/some-channel", &[], None);
        scene.say(asker, &request.repeat(COUNT));
        for _ in 0..50 {
            scene.check_pong(&other);
        }
        scene.rest();
        let waiting = scene.node.links[asker].to_server.len();
        let taken = COUNT * request.len() - waiting;
        // Half of its outbox, of answers that are no longer than the requests, and what is held.
        let taken_max = (1 << 20) + (1 << 16) + HELD_BYTES_MAX;
        assert!(taken <= 3 * taken_max, "{taken} bytes were taken");
        assert!(waiting > 0, "all was taken");
        let mut input = Vec::new();
        let mut is_moving = true;
        while is_moving {
            is_moving = scene.round();
            let bytes = scene.takes(asker);
            is_moving |= !bytes.is_empty();
            input.extend(bytes);
        }
        let answers = responses(&input);
        assert!(answers.iter().all(|(status, _)| *status == 200));
        assert_eq!(answers.len(), COUNT, "{shards} shards");
    }
}

/// The most answers of one kind that came in a round, and how many in all, while another is served.
fn answered_per_round(
    scene: &mut Scene,
    links: &[usize],
    needle: &str,
    rounds: usize,
) -> (usize, usize) {
    let (mut highest, mut all) = (0, 0);
    for _ in 0..rounds {
        scene.round();
        let mut now = 0;
        for link in links {
            now += scene.takes_count(*link, needle);
        }
        highest = highest.max(now);
        all += now;
    }
    (highest, all)
}

/// A head that is whole, of so many bytes, for a body that does not come.
fn long_head(path_and_query: &str, bytes: usize) -> Vec<u8> {
    let head =
        format!("POST {path_and_query} HTTP/1.1\r\nHost: node\r\nContent-Length: 9000000\r\n");
    let padding = "x".repeat(bytes - head.len() - "X-Long: \r\n\r\n".len());
    format!("{head}X-Long: {padding}\r\n\r\n").into_bytes()
}

#[test]
fn stranger_whose_body_nobody_wants_is_counted_with_its_head() {
    let keys = json!({"net": {"input_held_bytes": 1_048_576}});
    let mut scene = Scene::start(1, &keys, &json!({}));
    let head = long_head("/apps/scene-id/events?auth_key=forged", 15_000);
    let links: Vec<usize> = (0..80).map(|_| scene.node.connect(0, 1 << 16)).collect();
    for link in &links {
        scene.say(*link, &head);
    }
    scene.rest();
    let is_open = |link: &&usize| !scene.node.links[**link].server_ended;
    assert_eq!(links.iter().filter(is_open).count(), 1_048_576 / 15_000);
}

#[test]
fn stranger_that_repeats_a_signed_head_is_held_to_a_few_bodies_and_one_alone_passes() {
    let keys = json!({"net": {"input_held_bytes": 1_048_576}});
    let mut scene = Scene::start(1, &keys, &json!({}));
    let signed = scene.request("/events", &[], Some(&json!("x".repeat(9_000_000))));
    let most = &signed[..signed.len() - 1];
    let links: Vec<usize> = (0..6).map(|_| scene.node.connect(0, 1 << 16)).collect();
    for (number, link) in links.iter().enumerate() {
        scene.say(*link, most);
        scene.rest();
        let open = links
            .iter()
            .filter(|it| !scene.node.links[**it].server_ended);
        assert_eq!(
            open.count(),
            if number < 4 { 6 } else { 6 - (number - 3) },
            "{number}"
        );
    }
    for link in links {
        scene.hangs_up(link, Closed::ByError);
    }
    scene.rest();
    assert!(scene.is_empty(), "{:?}", scene.node.occupancy());
}

#[test]
fn stranger_whose_next_request_begins_while_it_waits_has_ten_seconds_for_the_rest() {
    let mut scene = Scene::start(3, &json!({}), &json!({}));
    let links: Vec<usize> = (0..12)
        .map(|number| scene.node.connect(number % 3, 1 << 16))
        .collect();
    for (number, link) in links.iter().enumerate() {
        let path = format!("/channels/channel-{number}");
        scene.say(*link, &scene.request(&path, &[], None));
        scene.say(*link, b"GET /up HTTP/1.1\r\n");
    }
    scene.passes(9_000);
    for link in &links {
        let answers = responses(&scene.takes(*link));
        assert_eq!(answers.iter().map(|it| it.0).collect::<Vec<_>>(), [200]);
    }
    scene.passes(1_500);
    for (number, link) in links.iter().enumerate() {
        let answers = responses(&scene.takes(*link));
        assert_eq!(
            answers.iter().map(|it| it.0).collect::<Vec<_>>(),
            [408],
            "{number}"
        );
    }
}

#[test]
fn stranger_that_lets_long_queries_be_signed_many_times_pays_for_each() {
    const COUNT: usize = 400;
    let mut scene = Scene::start(1, &json!({"path_prefix": "/ws"}), &json!({}));
    let links: Vec<usize> = (0..COUNT).map(|_| scene.node.connect(0, 1 << 16)).collect();
    let (now_s, signature) = (crate::turn::UNIX_MS / 1_000, "0".repeat(64));
    let forged = format!(
        "GET /apps/scene-id/channels/a%20b?auth_key={}&auth_timestamp={now_s}&auth_version=1.0&\
         auth_signature={signature}&x=a%20b+{} HTTP/1.1\r\nHost: node\r\n\r\n",
        KEY.0,
        "x".repeat(14_000)
    );
    for link in &links {
        scene.say(*link, forged.as_bytes());
    }
    let (highest, all) = answered_per_round(&mut scene, &links, "HTTP/1.1 401", 400);
    assert_eq!(all, COUNT);
    assert!(highest <= 10, "{highest} in one turn");
}

#[test]
fn stranger_with_long_texts_pays_for_their_parsing() {
    const COUNT: usize = 300;
    let mut scene = Scene::start(1, &json!({}), &json!({}));
    let visitors = scene.arrive(COUNT, |_| 0, |_| Vec::new());
    let text = frame(&json!({"event": "pusher:ping", "data": {"x": "x".repeat(60_000)}}));
    for visitor in &visitors {
        scene.say(visitor.link, &text[..text.len() - 1]);
    }
    scene.rest();
    for visitor in &visitors {
        scene.say(visitor.link, &text[text.len() - 1..]);
    }
    let links: Vec<usize> = visitors.iter().map(|it| it.link).collect();
    let (highest, all) = answered_per_round(&mut scene, &links, "pusher:pong", 100);
    assert_eq!(all, COUNT);
    assert!(highest <= 21, "{highest} in one turn");
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
        let (highest, all) = answered_per_round(&mut scene, &links, "HTTP/1.1 200", 100);
        assert_eq!(all, COUNT);
        assert!(highest <= 2, "{highest} in one turn");
    }
}

/// A `GET` of all channels, with another method and version.
fn listing_request(scene: &Scene, method: &str, version: &str) -> Vec<u8> {
    let request = scene.request("/channels", &[], None);
    let request = String::from_utf8(request).expect("a request is text");
    let request = request.replacen("GET", method, 1);
    request.replacen("HTTP/1.1", version, 1).into_bytes()
}

#[test]
fn stranger_or_not_who_knows_no_chunks_gets_all_channels_in_parts_and_head_gets_their_length() {
    const COUNT: usize = 20_000;
    let name = |number| format!("channel-{number}-{}", "x".repeat(100));
    let mut scene = with_channels(1, COUNT, name, Limits::USUAL);
    let other = scene.arrives(0);
    let reader = scene.node.connect(0, 1 << 16);
    scene.say(reader, &listing_request(&scene, "GET", "HTTP/1.0"));
    let mut answer = Vec::new();
    while !scene.node.links[reader].server_ended {
        scene.check_pong(&other);
        answer.extend(scene.takes(reader));
    }
    let head_bytes = answer.windows(4).position(|four| four == b"\r\n\r\n");
    let (head, body) = answer.split_at(head_bytes.expect("a head ends") + 4);
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    assert!(head.contains("connection: close"), "{head}");
    assert!(
        !head.contains("content-length") && !head.contains("transfer-encoding"),
        "{head}"
    );
    assert_eq!(count_of(body, b"\":{"), COUNT + 1);
    let told: Value = serde_json::from_slice(body).expect("a body is JSON");
    assert_eq!(told["channels"].as_object().map(|it| it.len()), Some(COUNT));
    for version in ["HTTP/1.0", "HTTP/1.1"] {
        let asker = scene.node.connect(0, 1 << 16);
        scene.say(asker, &listing_request(&scene, "HEAD", version));
        for _ in 0..100 {
            scene.check_pong(&other);
        }
        let answer = String::from_utf8(scene.takes(asker)).expect("a head is text");
        let length = format!("Content-Length: {}\r\n", body.len());
        assert!(answer.contains(&length), "{answer}");
        assert!(answer.ends_with("\r\n\r\n"), "{answer}");
    }
}

#[test]
fn stranger_that_takes_its_answers_slowly_gets_them_all_and_one_that_takes_none_is_let_go() {
    const COUNT: usize = 20_000;
    for reads in [true, false] {
        let mut scene = Scene::start(1, &json!({}), &json!({}));
        let asker = scene.node.connect(0, 1 << 14);
        let request = b"GET /up HTTP/1.1\r\nHost: node\r\n\r\n";
        scene.say(asker, &request.repeat(COUNT));
        let mut input = Vec::new();
        for _ in 0..8 {
            scene.passes(40_000);
            if reads {
                input.extend(scene.takes(asker));
            }
        }
        assert_eq!(scene.node.links[asker].server_ended, !reads);
        let mut is_moving = reads;
        while is_moving {
            is_moving = scene.round();
            let bytes = scene.takes(asker);
            is_moving |= !bytes.is_empty();
            input.extend(bytes);
        }
        let answers = responses(&input);
        assert!(answers.iter().all(|(status, _)| *status != 408));
        assert_eq!(answers.len(), if reads { COUNT } else { 0 });
    }
}

#[test]
fn stranger_or_not_whose_request_has_arrived_when_a_kept_connection_ends_is_answered() {
    let mut scene = Scene::start(1, &json!({}), &json!({}));
    let link = scene.node.connect(0, 1 << 16);
    let request = b"GET /up HTTP/1.1\r\nHost: node\r\n\r\n";
    for _ in 0..3 {
        scene.say(link, request);
        scene.rest();
        assert_eq!(responses(&scene.takes(link)).len(), 1);
        scene.passes(75_000);
    }
    scene.passes(1_000);
    assert!(scene.node.links[link].server_ended, "kept for ever");
}

#[test]
fn stranger_or_not_who_asks_while_a_node_drains_is_told_to_go_and_gets_no_second_answer() {
    for (case, method, version, extra, api) in [
        ("kept", "GET", "HTTP/1.1", "", false),
        (
            "kept, HTTP/1.0",
            "GET",
            "HTTP/1.0",
            "Connection: keep-alive\r\n",
            false,
        ),
        ("head only", "HEAD", "HTTP/1.1", "", false),
        ("a home's answer", "GET", "HTTP/1.1", "", true),
        ("a listing", "HEAD", "HTTP/1.1", "", true),
    ] {
        let mut scene = Scene::start(3, &json!({}), &json!({}));
        let request = if api {
            String::from_utf8(listing_request(&scene, method, version)).expect("a request is text")
        } else {
            format!("{method} /up {version}\r\nHost: node\r\n{extra}\r\n")
        };
        let link = scene.node.connect(0, 1 << 16);
        for drains in [false, true] {
            if drains {
                let deadline = scene.node.now.plus(60_000);
                for shard in 0..3 {
                    let rate_per_s = 1;
                    let order = FromBridge::Drain {
                        deadline,
                        rate_per_s,
                    };
                    scene.node.tell(shard, order);
                }
                scene.rest();
            }
            // The second is for nobody once the first was told to be the last.
            scene.say(link, request.repeat(2).as_bytes());
            scene.rest();
            let told = String::from_utf8(scene.takes(link)).expect("answers are text");
            let (answers, closes) = if drains { (1, 1) } else { (2, 0) };
            assert_eq!(told.matches("HTTP/1.1 ").count(), answers, "{case}: {told}");
            assert_eq!(
                told.matches("Connection: close").count(),
                closes,
                "{case}: {told}"
            );
            assert_eq!(scene.node.links[link].server_ended, drains, "{case}");
        }
    }
}

#[test]
fn stranger_whose_app_a_home_does_not_know_yet_comes_back_later() {
    let mut scene = Scene::start(3, &json!({}), &json!({}));
    let new = json!({"id": "new-id", "key": "new-key", "secret": "new-secret", "enabled": true});
    let config = json!({"app_manager": {"driver": "memory", "array": {"apps": [new]}}});
    let apps = crate::plan::loaded(&config).app_manager.apps;
    let table = Arc::new(AppTable::build(&apps, Some(&scene.apps)));
    scene.node.tell(0, FromBridge::Apps(table));
    scene.rest();
    let mut closed = 0;
    for number in 0..30 {
        let link = scene.node.connect(0, usize::MAX);
        scene.say(link, crate::wire::upgrade_request("new-key").as_bytes());
        scene.say(link, &subscribe(&format!("channel-{number}")));
        scene.rest();
        let told = scene.takes(link);
        let is_in = count_of(&told, b"subscription_succeeded") == 1;
        let is_closed = told
            .windows(4)
            .any(|it| it[0] == 0x88 && it[2..] == [0x10, 0x04]);
        assert_eq!(count_of(&told, b"subscription_error"), 0);
        assert!(is_in != is_closed, "channel {number}");
        closed += usize::from(is_closed);
    }
    assert!((10..30).contains(&closed), "{closed} of 30 were sent away");
}

#[test]
fn stranger_whose_app_is_taken_away_is_missed_at_no_home() {
    const COUNT: usize = 40;
    let ids: Vec<String> = (0..COUNT).map(|number| format!("user-{number}")).collect();
    let watchlist: Vec<&str> = ids.iter().map(String::as_str).collect();
    for rounds_before in 0..5 {
        let mut scene = Scene::start(7, &json!({}), &json!({"max_connections": 1_000}));
        let visitors = scene.arrive(COUNT, |number| number % 7, |_| Vec::new());
        for (number, (visitor, id)) in visitors.iter().zip(&ids).enumerate() {
            if number == COUNT / 2 {
                scene.rest(); // The first half is at rest, the other still asks its homes.
            }
            scene.say(visitor.link, &sign_in(visitor, id, &watchlist));
            scene.say(visitor.link, &subscribe(&format!("channel-{number}")));
        }
        for number in 0..COUNT {
            let link = scene.node.connect(number % 7, usize::MAX);
            scene.say(link, crate::wire::upgrade_request(KEY.0).as_bytes());
        }
        for _ in 0..rounds_before {
            scene.round();
        }
        // After the second change nobody knows its id any more.
        let mut table = Arc::clone(&scene.apps);
        for other in ["one", "two"] {
            let app = json!({"id": other, "key": other, "secret": other, "enabled": true});
            let config = json!({"app_manager": {"driver": "memory", "array": {"apps": [app]}}});
            let apps = crate::plan::loaded(&config).app_manager.apps;
            table = Arc::new(AppTable::build(&apps, Some(&table)));
            scene.node.tell_all(|| FromBridge::Apps(Arc::clone(&table)));
        }
        scene.rest();
        scene.passes(10_000);
        let left = scene.node.occupancy();
        assert!(scene.is_empty(), "after {rounds_before} rounds: {left:?}");
    }
}
