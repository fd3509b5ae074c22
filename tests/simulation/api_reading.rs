//! Publications whose frames are many times their bodies: who waits for whom, who gives way, and what is in memory.

use serde_json::{Value, json};

use crate::scene::{Scene, responses};

/// What a node of one shard keeps of bodies, and as much again of frames before publications go on one by one.
const KEPT_BYTES_MAX: u64 = 4 << 20;
/// Bytes of the frames of one `batch`, at most.
const BATCH_BYTES_MAX: u64 = 31_500_000;
const APPS: usize = 4;

fn id_of(app: usize) -> (String, String, String) {
    (
        format!("app-{app}"),
        format!("key-{app}"),
        format!("secret-{app}"),
    )
}

/// A node of one shard that keeps as little of bodies as may be.
fn begins() -> Scene {
    let of_app = |app| {
        let (id, key, secret) = id_of(app);
        json!({"id": id, "key": key, "secret": secret, "enabled": true})
    };
    let apps: Vec<Value> = (0..APPS).map(of_app).collect();
    let keys = json!({
        "app_manager": {"array": {"apps": apps}},
        "http_api": {"request_limit_in_mb": 1},
        "net": {"input_held_bytes": 1_048_576},
    });
    Scene::start(1, &keys, &json!({}))
}

fn request_of(scene: &Scene, app: usize, path: &str, body: &Value) -> Vec<u8> {
    let (id, key, secret) = id_of(app);
    scene.request_of((&id, (&key, &secret)), path, &[], Some(body))
}

/// So many events of 102 kB, for a hundred channels each.
fn batch(scene: &Scene, app: usize, events: usize) -> Vec<u8> {
    let channels: Vec<String> = (0..100).map(|number| format!("c-{number}")).collect();
    let event = json!({"name": "e", "channels": channels, "data": "x".repeat(102_000)});
    request_of(
        scene,
        app,
        "/batch_events",
        &json!({"batch": vec![event; events]}),
    )
}

/// Sends it to the last byte; rounds go on until it has arrived.
fn sends(scene: &mut Scene, asked: &[u8]) -> usize {
    let link = scene.node.connect(0, 1 << 16);
    scene.say(link, asked);
    link
}

fn arrive(scene: &mut Scene, links: &[usize]) {
    while links
        .iter()
        .any(|link| !scene.node.links[*link].to_server.is_empty())
    {
        scene.round();
    }
}

fn answered(scene: &mut Scene, links: &[usize]) -> Vec<u16> {
    let answers = links.iter().map(|link| responses(&scene.takes(*link)));
    answers.flatten().map(|(status, _)| status).collect()
}

fn is_answered(scene: &Scene, link: usize) -> bool {
    !scene.node.links[link].to_client.is_empty()
}

/// Nothing of them is left then.
fn all_hang_up(scene: &mut Scene, links: impl IntoIterator<Item = usize>) {
    for link in links {
        scene.hangs_up(link, shards::application::Closed::ByPeer);
    }
    scene.rest();
    assert!(scene.is_empty(), "{:?}", scene.node.occupancy());
}

/// Rounds until nothing is left to do; the most that was in memory of bodies and of what is read.
fn rests(scene: &mut Scene) -> (u64, u64) {
    let (mut bodies, mut reading) = (0, 0);
    while scene.round() {
        let occupancy = scene.node.occupancy()[0];
        bodies = bodies.max(occupancy.body_bytes);
        reading = reading.max(occupancy.reading_bytes);
    }
    (bodies, reading)
}

#[test]
fn stranger_whose_small_bodies_stall_costs_another_apps_large_batches_nothing() {
    let mut scene = begins();
    let small = json!({"name": "e", "channel": "c", "data": "x"});
    let stalled: Vec<usize> = (0..8)
        .map(|_| {
            let asked = request_of(&scene, 1, "/events", &small);
            sends(&mut scene, &asked[..asked.len() - 10])
        })
        .collect();
    scene.rest();
    let asked = batch(&scene, 0, 3);
    for number in 0..5 {
        let link = sends(&mut scene, &asked);
        scene.rest();
        assert_eq!(answered(&mut scene, &[link]), [200], "batch {number}");
    }
    assert_eq!(
        answered(&mut scene, &stalled),
        [0; 0],
        "and nobody else gives way"
    );
    assert_eq!(scene.counted()[0].reads_alone, 5);
}

#[test]
fn publishers_of_one_app_are_served_in_turn_however_many_frames_each_has() {
    let mut scene = begins();
    let asked = batch(&scene, 0, 3);
    let links: Vec<usize> = (0..6).map(|_| sends(&mut scene, &asked)).collect();
    let (bodies, reading) = rests(&mut scene);
    assert_eq!(answered(&mut scene, &links), [200; 6]);
    assert!(bodies <= KEPT_BYTES_MAX, "{bodies}");
    // The one that is read, and its body; nobody else has begun.
    assert!(reading <= BATCH_BYTES_MAX + 400_000, "{reading}");
}

#[test]
fn of_many_apps_with_large_batches_one_alone_has_more_frames_than_there_is_room_for() {
    let mut scene = begins();
    let links: Vec<usize> = (0..APPS)
        .map(|app| {
            let asked = batch(&scene, app, 3);
            sends(&mut scene, &asked)
        })
        .collect();
    let (bodies, reading) = rests(&mut scene);
    assert_eq!(answered(&mut scene, &links), [200; APPS]);
    assert!(bodies <= KEPT_BYTES_MAX, "{bodies}");
    assert!(
        reading <= KEPT_BYTES_MAX + BATCH_BYTES_MAX + 1_000_000,
        "{reading}"
    );
    let alone = scene.counted()[0].reads_alone;
    assert!((1..=APPS as u64).contains(&alone), "{alone}");
    all_hang_up(&mut scene, links);
}

#[test]
fn stranger_with_endless_large_batches_leaves_each_other_app_its_turn() {
    let mut scene = begins();
    let asked = batch(&scene, 0, 3);
    let greedy: Vec<usize> = (0..8).map(|_| sends(&mut scene, &asked)).collect();
    arrive(&mut scene, &greedy);
    let first = greedy.iter().filter(|link| is_answered(&scene, **link));
    assert_eq!(first.count(), 0, "the first is read");
    let small = json!({"name": "e", "channel": "c", "data": "x".repeat(5_000)});
    let asked = request_of(&scene, 1, "/events", &small);
    let small = sends(&mut scene, &asked);
    let asked = batch(&scene, 2, 1);
    let large = sends(&mut scene, &asked);
    scene.round();
    scene.round();
    assert!(is_answered(&scene, small), "a small one waits for nobody");
    arrive(&mut scene, &[large]);
    let others = |scene: &Scene| {
        let answered = greedy.iter().filter(|link| is_answered(scene, **link));
        answered.count()
    };
    let before = others(&scene);
    while !is_answered(&scene, large) {
        assert!(scene.round(), "it is answered");
    }
    let meanwhile = others(&scene) - before;
    // The one that is read when it comes, and the one that begins beside it.
    assert!(meanwhile <= 2, "{meanwhile} of them went before it");
    assert!(before + meanwhile < 7, "they had no end");
    scene.rest();
    assert_eq!(answered(&mut scene, &[small, large]), [200; 2]);
    assert_eq!(answered(&mut scene, &greedy), [200; 8]);
}

#[test]
fn stranger_whose_batch_waits_while_others_need_its_room_gives_way_and_the_one_that_is_read_does_not()
 {
    let mut scene = begins();
    // The largest bodies that may be, but for a little; 90 MB of frames each.
    let asked = batch(&scene, 0, 9);
    let links: Vec<usize> = (0..4).map(|_| sends(&mut scene, &asked)).collect();
    arrive(&mut scene, &links);
    scene.round();
    let silent = links.iter().filter(|link| !is_answered(&scene, **link));
    assert_eq!(silent.count(), 4, "one is read, and the others wait");
    // The one that is read has left them its room; they need more than that.
    let late: Vec<usize> = (0..10)
        .map(|_| sends(&mut scene, &asked[..150_000]))
        .collect();
    arrive(&mut scene, &late);
    let silent = links.iter().filter(|link| !is_answered(&scene, **link));
    assert_eq!(silent.count(), 3, "one of them made room");
    scene.rest();
    let mut told = answered(&mut scene, &links);
    told.sort_unstable();
    assert_eq!(told, [200, 200, 200, 503]);
    assert_eq!(answered(&mut scene, &late), [0; 0]);
    all_hang_up(&mut scene, links.into_iter().chain(late));
}

#[test]
fn a_body_that_follows_one_that_was_read_and_refused_is_one_that_comes() {
    let mut scene = begins();
    let bad = request_of(&scene, 0, "/batch_events", &json!("x".repeat(40_000)));
    let next = request_of(&scene, 0, "/events", &json!("x".repeat(40_000)));
    let link = sends(&mut scene, &[&*bad, &next[..next.len() - 36_000]].concat());
    scene.rest();
    assert_eq!(answered(&mut scene, &[link]), [400]);
    let occupancy = scene.node.occupancy()[0];
    assert!(occupancy.body_bytes > 1_000, "{occupancy:?}");
    assert_eq!(occupancy.reading_bytes, 0);
    scene.say(link, &next[next.len() - 36_000..]);
    scene.rest();
    assert_eq!(answered(&mut scene, &[link]), [400]);
    assert_eq!(scene.node.occupancy()[0].body_bytes, 0);
}
