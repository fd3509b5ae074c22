//! A node of several whose process is replaced in the middle of something: what waited is said once, by the
//! process that follows. The test takes the bus's place.

use std::sync::Arc;

use serde_json::json;
use shards::{FramesAs, application::Millis};
use sockudo::{
    bridge::{
        apps::AppTable,
        message::{FromBridge, NodeState, Ownership, StateChange, ToBridge},
        webhook_event::{WebhookEvent, WebhookKind},
    },
    protocol::partition::{PARTITIONS, Partition},
    server::{NodeSeed, SocketIdKey},
};

use crate::{
    hooks::GRACE_MS,
    node::Node,
    scene::{KEY, Scene, Visitor, frame, subscribe, texts},
    sign,
    turn::Limits,
};

const CHANNEL: &str = "presence-room";

fn keys() -> serde_json::Value {
    json!({
        "adapter": {"driver": "redis"},
        "webhooks": {"grace_ms": GRACE_MS},
    })
}

/// With webhooks of all that waits.
fn app() -> serde_json::Value {
    let events = ["channel_vacated", "member_removed"];
    json!({"webhooks": [{"url": "http://127.0.0.1:9/hook", "event_types": events}]})
}

/// All webhooks are this node's from now on, or another's; also what fell due since then and was told by nobody.
fn owns(scene: &mut Scene, all: bool, since: u64) -> Vec<String> {
    let mut ownership = Ownership {
        since: Millis(since),
        until: Millis(u64::MAX),
        ..Ownership::default()
    };
    if all {
        let partitions = (0..PARTITIONS).filter_map(Partition::from_number);
        partitions.for_each(|it| ownership.add(it));
    }
    let owned = || FromBridge::Owned(Box::new(ownership.clone()));
    scene.node.tell_all(owned);
    passes(scene, 0)
}

/// At rest, with every topic live for which a shard wished; the webhooks that it told.
fn settles(scene: &mut Scene) -> Vec<WebhookEvent> {
    let mut webhooks = Vec::new();
    loop {
        scene.rest();
        let told = std::mem::take(&mut scene.node.told);
        if told.is_empty() {
            return webhooks;
        }
        for (shard, _, message) in told {
            match message {
                ToBridge::Topic { partition, wish } if wish.is_wanted() => {
                    let live = [(partition, wish)].into();
                    let shard = usize::from(shard.0);
                    scene.node.tell(shard, FromBridge::TopicsLive(live));
                }
                ToBridge::Webhook(event) => webhooks.push(event),
                _ => {}
            }
        }
    }
}

fn passes(scene: &mut Scene, ms: u64) -> Vec<String> {
    scene.passes(ms);
    let webhooks = settles(scene).into_iter();
    let mut names: Vec<String> = webhooks
        .map(|event| match event.kind {
            WebhookKind::ChannelVacated => format!("{} is vacated", event.channel),
            WebhookKind::MemberRemoved { user_id } => {
                format!("{user_id} is removed from {}", event.channel)
            }
            kind => panic!("{kind:?} was not asked for"),
        })
        .collect();
    names.sort_unstable();
    names
}

fn joins(scene: &mut Scene, visitor: &Visitor) {
    let data = json!({"user_id": "alice"}).to_string();
    let id = &visitor.socket_id;
    let auth = sign::channel_auth(KEY.0, KEY.1, id, CHANNEL, Some(&data));
    let data = json!({"channel": CHANNEL, "auth": auth, "channel_data": data});
    let text = frame(&json!({"event": "pusher:subscribe", "data": data}));
    scene.say(visitor.link, &text);
    settles(scene);
    let told = texts(&scene.takes(visitor.link));
    let event = &told.last().expect("an answer")["event"];
    assert_eq!(event, "pusher_internal:subscription_succeeded");
}

/// Another process takes over, with so many shards and other keys.
fn is_replaced(scene: Scene, keys: &serde_json::Value, app: &serde_json::Value) -> Scene {
    let mut next = Scene::start(3, keys, app);
    let seed = NodeSeed {
        homes: Node::homes(7),
        socket_ids: SocketIdKey::from_seed(7),
        ..next.seed.clone()
    };
    next.node = scene.node;
    next.node.is_replaced(&seed, Limits::USUAL, 3);
    settles(&mut next);
    next
}

/// A node that is one of several, and a member of a channel whose only connection there ends.
fn left_by_a_member(owns_all: bool) -> Scene {
    let mut scene = Scene::start(2, &keys(), &app());
    owns(&mut scene, owns_all, 0);
    let alice = scene.arrives(0);
    joins(&mut scene, &alice);
    assert_eq!(passes(&mut scene, 5_000), [""; 0]);
    let leaves = json!({"event": "pusher:unsubscribe", "data": {"channel": CHANNEL}});
    scene.say(alice.link, &frame(&leaves));
    settles(&mut scene);
    scene
}

const LEFT: [&str; 2] = [
    "alice is removed from presence-room",
    "presence-room is vacated",
];

#[test]
fn a_grace_that_began_before_an_upgrade_ends_when_it_would_have_and_is_told_once() {
    let mut scene = left_by_a_member(true);
    assert_eq!(passes(&mut scene, 1_000), [""; 0]);
    let mut scene = is_replaced(scene, &keys(), &app());
    assert_eq!(passes(&mut scene, GRACE_MS - 1_200), [""; 0]);
    assert_eq!(passes(&mut scene, 400), LEFT);
    assert_eq!(passes(&mut scene, 2 * GRACE_MS), [""; 0]);
}

#[test]
fn who_comes_back_behind_an_upgrade_within_the_grace_was_never_away() {
    let mut scene = is_replaced(left_by_a_member(true), &keys(), &app());
    let alice = scene.arrives(1);
    joins(&mut scene, &alice);
    assert_eq!(passes(&mut scene, 2 * GRACE_MS), [""; 0]);
}

#[test]
fn what_another_node_was_to_tell_is_told_once_if_that_one_dies_behind_the_upgrade() {
    let mut scene = left_by_a_member(false);
    let left_at = scene.node.now.0;
    // It falls due, and is another's to tell.
    assert_eq!(passes(&mut scene, GRACE_MS + 200), [""; 0]);
    let mut scene = is_replaced(scene, &keys(), &app());
    assert_eq!(passes(&mut scene, 500), [""; 0]);
    assert_eq!(owns(&mut scene, true, left_at), LEFT);
    assert_eq!(owns(&mut scene, true, left_at), [""; 0]);
    assert_eq!(passes(&mut scene, 2 * GRACE_MS), [""; 0]);
}

#[test]
fn whose_app_the_next_process_does_not_know_comes_back_where_there_is_a_store_to_ask() {
    for (asks_for_apps, code) in [(false, 4_001), (true, 4_200)] {
        let mut scene = Scene::start(2, &json!({}), &json!({}));
        let alice = scene.arrives(0);
        settles(&mut scene);
        let mut seed = NodeSeed {
            apps: Arc::new(AppTable::of_store()),
            ..scene.seed.clone()
        };
        seed.settings.asks_for_apps = asks_for_apps;
        scene.node.is_replaced(&seed, Limits::USUAL, 2);
        scene.passes(200);
        let told = texts(&scene.takes(alice.link));
        let codes: Vec<_> = told.iter().map(|it| it["data"]["code"].clone()).collect();
        assert_eq!(codes, [json!(code)], "{told:?}");
    }
}

#[test]
fn whose_app_is_unknown_behind_an_upgrade_goes_as_slowly_as_in_a_drain() {
    const VISITORS: usize = 60;
    let mut scene = Scene::start(2, &json!({}), &json!({}));
    let visitors = scene.arrive(VISITORS, |number| number % 2, |_| Vec::new());
    settles(&mut scene);
    let mut seed = NodeSeed {
        apps: Arc::new(AppTable::of_store()),
        ..scene.seed.clone()
    };
    seed.settings.asks_for_apps = true;
    scene.node.is_replaced(&seed, Limits::USUAL, 2);
    assert_eq!(scene.node.closing, VISITORS as u64, "they are counted");
    let mut told = 0;
    // Half of the drain's time, in ticks of 100 ms: each shard's share is one in a tick.
    for tick in 0..60 {
        scene.passes(100);
        settles(&mut scene);
        let before = told;
        for visitor in &visitors {
            for text in texts(&scene.takes(visitor.link)) {
                assert_eq!(text["data"]["code"], json!(4_200), "{text}");
                told += 1;
            }
        }
        assert!(
            told - before <= 2,
            "{} of them in tick {tick}",
            told - before
        );
    }
    assert_eq!(told, VISITORS);
}

#[test]
fn a_crowd_that_was_taken_over_goes_on_in_slices() {
    const CROWD: usize = 6_000;
    let mut scene = Scene::start(1, &json!({}), &json!({}));
    let mut crowd = Vec::new();
    for hundred in 0..CROWD / 100 {
        let channel = |number| subscribe(&format!("room-{}", hundred * 100 + number));
        crowd.extend(scene.arrive(100, |_| 0, channel));
    }
    settles(&mut scene);
    let seed = scene.seed.clone();
    scene.node.is_replaced(&seed, Limits::USUAL, 1);
    let ping = json!({"event": "pusher:ping", "data": {}});
    for visitor in &crowd {
        scene.takes(visitor.link);
        scene.say(visitor.link, &frame(&ping));
    }
    // A channel or a connection each costs something of a turn's work: no turn does all of them.
    let turns = (0..1_000).find(|_| {
        scene.turn_of(0);
        scene.node.is_settled()
    });
    assert!(turns.is_some_and(|turns| turns >= 4), "{turns:?}");
    settles(&mut scene);
    for visitor in &crowd {
        let told = texts(&scene.takes(visitor.link));
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!(told[0]["event"], "pusher:pong");
    }
}

#[test]
fn who_waits_for_another_nodes_last_event_while_a_process_is_replaced_hears_that_there_is_none() {
    let mut scene = Scene::start(2, &keys(), &json!({}));
    owns(&mut scene, true, 0);
    let channel = "cache-prices";
    let entry = scene.apps.by_id("scene-id").expect("it is there");
    let (app, partition) = (entry.index, entry.rules.partitions.of_channel(channel));
    let keeps = NodeState {
        app,
        partition,
        name: channel.into(),
        change: StateChange::EventKept(true),
    };
    let home = usize::from(partition.number() % 2);
    scene.node.tell(home, FromBridge::State(Box::new(keeps)));
    let alice = scene.arrives(0);
    settles(&mut scene);
    scene.say(alice.link, &subscribe(channel));
    settles(&mut scene);
    let before = texts(&scene.takes(alice.link));
    assert!(before.is_empty(), "it waits for the other node: {before:?}");
    let mut scene = is_replaced(scene, &keys(), &json!({}));
    let told = texts(&scene.takes(alice.link)).into_iter();
    let told: Vec<_> = told.map(|it| it["event"].clone()).collect();
    let expected = [
        "pusher_internal:subscription_succeeded",
        "pusher:cache_miss",
    ];
    assert_eq!(told, expected);
    // It is subscribed like anybody.
    let ping = json!({"event": "pusher:ping", "data": {}});
    scene.say(alice.link, &frame(&ping));
    settles(&mut scene);
    let told = texts(&scene.takes(alice.link));
    assert_eq!(told.len(), 1, "{told:?}");
}

/// In which a node comes to rest that waits for nobody.
const ROUNDS_MAX: usize = 1_000;
const READERS: usize = 20;
const EVENTS: usize = 30;

/// A node of two shards with readers of one channel whose sockets take a part of its first event and nothing more.
fn with_slow_readers() -> (Scene, Vec<Visitor>) {
    let mut scene = Scene::start(2, &json!({}), &json!({}));
    let readers = scene.arrive(READERS, |number| number % 2, |_| subscribe("news"));
    for reader in &readers {
        assert_eq!(
            texts(&scene.takes(reader.link)).len(),
            1,
            "it is subscribed"
        );
        scene.node.links[reader.link].socket_bytes_max = 100;
    }
    let publisher = scene.node.connect(0, usize::MAX);
    for number in 0..EVENTS {
        let data = format!("{number:04}").repeat(200);
        let event = json!({"name": "e", "channels": ["news"], "data": data});
        let request = scene.request("/events", &[], Some(&event));
        scene.say(publisher, &request);
        scene.rest();
    }
    (scene, readers)
}

#[test]
fn what_slow_readers_wait_for_goes_over_once_and_comes_whole_and_in_order() {
    for frames in [FramesAs::Numbers, FramesAs::Bytes] {
        let (mut scene, readers) = with_slow_readers();
        assert!(scene.node.may_freeze(ROUNDS_MAX), "it comes to rest");
        let exported = scene.node.exports_as(frames);
        let told: usize = exported.iter().map(|part| part.frames.len()).sum();
        let records = exported.iter().flat_map(|part| &part.connections);
        let record_bytes: usize = records.map(|(_, record)| record.len()).sum();
        match frames {
            FramesAs::Numbers => {
                assert_eq!(told, 2 * EVENTS, "once for each shard");
                assert!(record_bytes < READERS * 1_500, "{record_bytes}");
            }
            FramesAs::Bytes => {
                assert_eq!(told, 0);
                assert!(record_bytes > READERS * EVENTS * 800, "{record_bytes}");
            }
        }
        let mut next = Scene::start(3, &json!({}), &json!({}));
        let seed = NodeSeed {
            homes: Node::homes(7),
            socket_ids: SocketIdKey::from_seed(7),
            ..next.seed.clone()
        };
        next.node = scene.node;
        next.node.is_replaced_by(&seed, Limits::USUAL, 3, exported);
        for reader in &readers {
            next.node.links[reader.link].socket_bytes_max = usize::MAX;
        }
        next.rest();
        for reader in &readers {
            let got = texts(&next.takes(reader.link)).into_iter();
            let got: Vec<_> = got.map(|it| it["data"].clone()).collect();
            let expected = (0..EVENTS).map(|number| json!(format!("{number:04}").repeat(200)));
            assert_eq!(got, expected.collect::<Vec<_>>());
        }
    }
}
