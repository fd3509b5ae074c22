//! Crowds whose requests are counted together with other nodes, in a store that the test is.

use serde_json::{Value, json};
use shards::application::Closed;
use sockudo::bridge::message::{FromBridge, RateGrant, RateQuestion, RateTaken, ToBridge};

use crate::scene::{Scene, responses};

/// What an app may read per second.
const LIMIT: u32 = 100;

fn start(shards: u16) -> Scene {
    let keys = json!({"rate_limiter": {"enabled": true, "driver": "redis"}});
    let app = json!({"max_read_requests_per_second": LIMIT});
    Scene::start(shards, &keys, &app)
}

fn events(channels: &[String]) -> Value {
    json!({"name": "e", "channels": channels, "data": "{}"})
}

/// What shards ask the store, each with its shard, taken off.
fn asked(scene: &mut Scene) -> Vec<(usize, RateQuestion)> {
    let told = scene.node.told.drain(..);
    told.filter_map(|(shard, _, message)| match message {
        ToBridge::TakeRate(question) => Some((usize::from(shard.0), question)),
        _ => None,
    })
    .collect()
}

/// Answers as a store that has so many left would, until nobody asks any more; how often it was asked.
fn answers(scene: &mut Scene, mut left: u32) -> usize {
    let mut count = 0;
    loop {
        scene.rest();
        let asked = asked(scene);
        if asked.is_empty() {
            return count;
        }
        for (shard, question) in asked {
            count += 1;
            assert!(count < 1_000, "it is asked for ever");
            let granted = match question.count {
                count if count > question.limit && left < question.limit => 0,
                count if count > question.limit => count,
                count => count.min(left),
            };
            left = left.saturating_sub(granted);
            let grant = Some(RateGrant {
                granted,
                remaining: left,
                whole_in_ms: 500,
                wait_ms: if left > 0 { 0 } else { 10 },
            });
            let taken = Box::new(RateTaken { question, grant });
            scene.node.tell(shard, FromBridge::RateTaken(taken));
        }
    }
}

fn statuses(scene: &mut Scene, link: usize) -> Vec<u16> {
    let all = responses(&scene.takes(link));
    all.into_iter().map(|(status, _)| status).collect()
}

#[test]
fn stranger_that_asks_again_before_the_store_has_counted_is_answered_twice() {
    for shards in [1, 3] {
        let mut scene = start(shards);
        // On one of the shards the rate has its home.
        for shard in 0..usize::from(shards) {
            let link = scene.node.connect(shard, 1 << 16);
            let one = scene.request("/channels/c", &[], None);
            scene.say(link, &one.repeat(2));
            answers(&mut scene, LIMIT);
            assert_eq!(
                statuses(&mut scene, link),
                [200, 200],
                "{shard} of {shards}"
            );
            assert!(!scene.node.links[link].server_ended);
            scene.say(link, &one);
            scene.hangs_up(link, Closed::ByPeer);
            answers(&mut scene, LIMIT);
            assert_eq!(statuses(&mut scene, link), [200]);
            assert!(scene.node.links[link].server_ended, "it has said its last");
            scene.passes(1_500);
        }
    }
}

#[test]
fn stranger_among_60_that_ask_at_once_passes_while_the_store_has_some() {
    for (left, passed) in [(LIMIT, 60), (60, 60), (59, 59), (1, 1), (0, 0)] {
        for shards in [1, 3] {
            let mut scene = start(shards);
            let count = usize::from(shards);
            let links: Vec<usize> = (0..60)
                .map(|number| scene.node.connect(number % count, 1 << 16))
                .collect();
            let one = scene.request("/channels", &[], None);
            links.iter().for_each(|link| scene.say(*link, &one));
            let asked = answers(&mut scene, left);
            let told: Vec<u16> = links
                .iter()
                .flat_map(|link| statuses(&mut scene, *link))
                .collect();
            assert_eq!(told.len(), 60, "{left} left");
            let of = |status| told.iter().filter(|it| **it == status).count();
            assert_eq!((of(200), of(429)), (passed, 60 - passed), "{left} left");
            assert!(asked <= 3, "asked {asked} times");
        }
    }
}

#[test]
fn stranger_beside_a_publication_that_is_larger_than_the_limit_passes_while_the_store_has_some() {
    let app = json!({"max_backend_events_per_second": 10});
    let keys = json!({"rate_limiter": {"enabled": true, "driver": "redis"}});
    let mut scene = Scene::start(1, &keys, &app);
    let channels: Vec<String> = (0..20).map(|number| format!("c{number}")).collect();
    let [large, small, other] = [&channels[..], &channels[..1], &channels[..2]].map(|channels| {
        let link = scene.node.connect(0, 1 << 16);
        let request = scene.request("/events", &[], Some(&events(channels)));
        scene.say(link, &request);
        scene.rest();
        link
    });
    // The first needs all ten.
    answers(&mut scene, 9);
    assert_eq!(statuses(&mut scene, large), [429]);
    for link in [small, other] {
        assert_eq!(statuses(&mut scene, link), [200]);
    }
}
