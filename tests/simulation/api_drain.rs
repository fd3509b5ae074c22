//! A node that drains, and the requests that had arrived whole before: each is answered, and its answer is with the
//! kernel, before a shard says that it has drained.

use serde_json::{Value, json};
use shards::application::ShardId;
use sockudo::bridge::message::{FromBridge, ToBridge};

use crate::scene::{Scene, responses};

/// Two shards that publish as much as may be published.
fn publishing() -> Scene {
    Scene::start(2, &json!({}), &json!({}))
}

/// A batch of some 20 MB of frames: many turns are needed to write them.
fn batch(scene: &Scene) -> Vec<u8> {
    let channels: Vec<String> = (0..100).map(|number| format!("c-{number}")).collect();
    let event = json!({"name": "e", "channels": channels, "data": "x".repeat(102_000)});
    scene.request(
        "/batch_events",
        &[],
        Some(&json!({"batch": [event, event]})),
    )
}

fn drains(scene: &mut Scene) {
    let deadline = scene.node.now.plus(60_000);
    scene.node.tell_all(|| FromBridge::Drain {
        deadline,
        rate_per_s: 0,
    });
}

/// A tick, and the turns of it.
fn tick(scene: &mut Scene) {
    scene.node.now = scene.node.now.plus(100);
    scene.round();
}

fn told(scene: &Scene, shard: u16, wanted: fn(&ToBridge) -> bool) -> usize {
    let of_shard = |it: &&(ShardId, _, ToBridge)| it.0 == ShardId(shard) && wanted(&it.2);
    scene.node.told.iter().filter(of_shard).count()
}

fn drained(scene: &Scene, shard: u16) -> usize {
    told(scene, shard, |it| matches!(it, ToBridge::Drained))
}

fn settled(scene: &Scene, shard: u16) -> usize {
    told(scene, shard, |it| matches!(it, ToBridge::Settled))
}

fn is_silent(scene: &Scene, link: usize) -> bool {
    scene.node.links[link].to_client.is_empty()
}

/// What one was told, in one answer that is the last on its connection.
fn last_answer(scene: &mut Scene, link: usize) -> u16 {
    assert!(scene.node.links[link].server_ended, "it was the last");
    let bytes = scene.takes(link);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    assert!(text.contains("Connection: close"), "{text}");
    let answers: Vec<(u16, Vec<u8>)> = responses(&bytes);
    assert_eq!(answers.len(), 1, "{text}");
    answers[0].0
}

#[test]
fn each_publication_that_is_read_when_a_drain_begins_is_answered_before_its_shard_has_drained() {
    let mut scene = publishing();
    let links: Vec<usize> = (0..6)
        .map(|number| scene.node.connect(number % 2, 1 << 16))
        .collect();
    // Neither who keeps a connection nor who is in the middle of a request is waited for.
    for shard in 0..2 {
        let kept = scene.node.connect(shard, 1 << 16);
        scene.say(kept, b"GET /up HTTP/1.1\r\nHost: node\r\n\r\n");
        let late = scene.node.connect(shard, 1 << 16);
        let begun = batch(&scene);
        scene.say(late, &begun[..begun.len() / 2]);
    }
    scene.rest();
    let asked = batch(&scene);
    for link in &links {
        scene.say(*link, &asked);
    }
    while links
        .iter()
        .any(|link| !scene.node.links[*link].to_server.is_empty())
    {
        scene.round();
    }
    for shard in 0..2 {
        let waiting = links
            .iter()
            .filter(|link| scene.node.links[**link].shard == shard);
        let silent = waiting.filter(|link| is_silent(&scene, **link)).count();
        assert!(silent > 1, "{silent} wait on shard {shard}");
    }
    drains(&mut scene);
    let mut rounds = 0;
    while (0..2).any(|shard| drained(&scene, shard) == 0) {
        tick(&mut scene);
        for link in &links {
            let shard = u16::try_from(scene.node.links[*link].shard).expect("few shards");
            let is_answered = !is_silent(&scene, *link);
            assert!(
                is_answered || drained(&scene, shard) == 0,
                "shard {shard} has drained, and {link} is not answered"
            );
        }
        rounds += 1;
        assert!(rounds < 500, "the drain has an end");
    }
    for link in links {
        assert_eq!(last_answer(&mut scene, link), 200, "{link}");
    }
}

#[test]
fn an_answer_that_its_reader_has_not_taken_when_a_drain_begins_is_waited_for() {
    const COUNT: usize = 1_000;
    for has_asked_to_end in [false, true] {
        let mut scene = Scene::start(1, &json!({}), &json!({}));
        let reader = scene.node.connect(0, 1 << 10);
        let request = "GET /up HTTP/1.1\r\nHost: node\r\n\r\n";
        let last = "GET /up HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n";
        let last = if has_asked_to_end { last } else { request };
        scene.say(reader, request.repeat(COUNT - 1).as_bytes());
        scene.say(reader, last.as_bytes());
        scene.rest();
        drains(&mut scene);
        for _ in 0..20 {
            tick(&mut scene);
        }
        assert_eq!(drained(&scene, 0), 0, "much is left to send");
        let mut input = Vec::new();
        let mut ticks = 0;
        while drained(&scene, 0) == 0 {
            input.extend(scene.takes(reader));
            tick(&mut scene);
            ticks += 1;
            assert!(ticks < 2_000, "the drain has an end");
        }
        input.extend(scene.takes(reader));
        assert_eq!(responses(&input).len(), COUNT);
    }
}

#[test]
fn a_request_that_arrived_whole_behind_the_drain_is_answered_before_the_shard_has_settled() {
    let mut scene = publishing();
    drains(&mut scene);
    scene.passes(200);
    assert_eq!([0, 1].map(|shard| drained(&scene, shard)), [1, 1]);
    let link = scene.node.connect(0, 1 << 16);
    let asked = batch(&scene);
    scene.say(link, &asked);
    while !scene.node.links[link].to_server.is_empty() {
        scene.round();
    }
    assert!(is_silent(&scene, link), "it is read");
    scene.node.tell_all(|| FromBridge::Settle);
    let mut rounds = 0;
    while (0..2).any(|shard| settled(&scene, shard) == 0) {
        assert!(is_silent(&scene, link) || rounds > 0);
        tick(&mut scene);
        rounds += 1;
        assert!(rounds < 500, "it has an end");
        if settled(&scene, 0) > 0 {
            assert!(!is_silent(&scene, link), "it is answered first");
        }
    }
    assert_eq!(last_answer(&mut scene, link), 200);
    assert_eq!([0, 1].map(|shard| settled(&scene, shard)), [1, 1]);
}

#[test]
fn a_request_that_never_becomes_whole_and_a_kept_connection_hold_up_no_drain() {
    let mut scene = publishing();
    for shard in 0..2 {
        let kept = scene.node.connect(shard, 1 << 16);
        scene.say(kept, b"GET /up HTTP/1.1\r\nHost: node\r\n\r\n");
        let late = scene.node.connect(shard, 1 << 16);
        let begun = batch(&scene);
        scene.say(late, &begun[..begun.len() - 1]);
        let head: &Value = &json!({"name": "e", "channel": "c", "data": "x"});
        let head = scene.request("/events", &[], Some(head));
        let headless = scene.node.connect(shard, 1 << 16);
        scene.say(headless, &head[..20]);
    }
    scene.rest();
    drains(&mut scene);
    scene.passes(200);
    assert_eq!([0, 1].map(|shard| drained(&scene, shard)), [1, 1]);
    scene.node.tell_all(|| FromBridge::Settle);
    scene.passes(300);
    assert_eq!([0, 1].map(|shard| settled(&scene, shard)), [1, 1]);
}
