//! Strangers and crowds that subscribe, leave, sign in, watch, hang up.

use std::sync::Arc;

use serde_json::json;
use shards::application::Closed;
use sockudo::bridge::{apps::AppTable, message::FromBridge};

use super::{BURST, HELD_BYTES_MAX, RATE};
use crate::{
    outage::{CHANNEL, Outage},
    scene::{KEY, Scene, Visitor, count_of, frame, ping, subscribe, unsubscribe},
    sign,
};

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
fn stranger_that_watches_and_is_gone_before_the_answer_lets_the_same_news_come_twice() {
    const CROWD: usize = 8_000;
    // On one of the two shards ann has her home, and only from the other one news are on their way for a while.
    for (here, there) in [(0, 1), (1, 0)] {
        let mut scene = Scene::start(2, &json!({}), &json!({}));
        let crowd = scene.arrive(CROWD, |_| here, |_| Vec::new());
        for (number, fan) in crowd.iter().enumerate() {
            scene.say(fan.link, &sign_in(fan, &format!("fan-{number}"), &["star"]));
        }
        let [star, first, second, ann, ann_again] =
            [there, here, here, there, there].map(|shard| scene.arrives(shard));
        scene.say(first.link, &sign_in(&first, "first", &["ann"]));
        scene.say(second.link, &sign_in(&second, "second", &[]));
        scene.rest();
        // While the crowd is told of its star, other news wait.
        scene.say(star.link, &sign_in(&star, "star", &[]));
        while scene.node.occupancy()[here].ready == 0 {
            assert!(scene.round(), "the crowd is told of its star");
        }
        scene.say(ann.link, &sign_in(&ann, "ann", &[]));
        scene.round();
        scene.round();
        scene.hangs_up(first.link, Closed::ByError);
        scene.round();
        scene.round();
        scene.hangs_up(ann.link, Closed::ByError);
        scene.round();
        // Somebody else watches ann, who comes back, and has gone when that is told.
        scene.say(second.link, &sign_in(&second, "second", &["ann"]));
        scene.turn_of(here);
        scene.turn_of(there);
        scene.say(ann_again.link, &sign_in(&ann_again, "ann", &[]));
        scene.turn_of(there);
        scene.hangs_up(second.link, Closed::ByError);
        scene.turn_of(here);
        let waiting = scene.node.occupancy()[here].ready;
        assert!(waiting > 0, "the crowd was told before");
        scene.rest();
        let heard: usize = crowd
            .iter()
            .map(|fan| scene.takes_count(fan.link, "online"))
            .sum();
        assert_eq!(heard, CROWD);
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
fn stranger_or_not_12_000_that_waited_for_a_last_event_begin_in_slices_and_hear_each_event_once() {
    const CROWD: usize = 12_000;
    type Ends = fn(&mut Outage);
    let ends: [(&str, Ends); 2] = [
        ("two", |it| it.hears_of_newest("two")),
        ("one", Outage::is_too_late),
    ];
    for (first, ends) in ends {
        for shards in [1_u16, 3] {
            let count = usize::from(shards);
            let mut outage = Outage::is_over(shards);
            let other = outage.scene.arrives(0);
            let crowd = outage
                .scene
                .arrive(CROWD, |number| number % count, |_| Vec::new());
            for visitor in &crowd {
                outage.scene.takes(visitor.link);
                outage.scene.say(visitor.link, &subscribe(CHANNEL));
            }
            outage.settles();
            let waiting = |scene: &Scene| {
                let of_shards = scene.node.occupancy().into_iter();
                of_shards.map(|it| it.joins_waiting).sum::<usize>()
            };
            assert_eq!(waiting(&outage.scene), CROWD);
            ends(&mut outage);
            outage.scene.check_pong(&other);
            let left = waiting(&outage.scene);
            assert!((1..CROWD).contains(&left), "{left} wait after a few turns");
            outage.publishes("three");
            while waiting(&outage.scene) > 0 {
                outage.scene.check_pong(&other);
            }
            outage.settles();
            let mut heard_first = 0;
            for visitor in &crowd {
                let told = outage.scene.takes(visitor.link);
                let said = |text: &str| count_of(&told, text.as_bytes());
                assert_eq!(said("subscription_succeeded"), 1);
                assert_eq!(said("three"), 1, "{first} on {shards} shards");
                let before = said(&format!(r#""data":"{first}""#));
                assert_eq!(
                    said(r#""data":""#),
                    1 + 1 + before,
                    "of its subscription, too"
                );
                heard_first += before;
            }
            assert!(
                (1..=CROWD).contains(&heard_first),
                "{heard_first} of {CROWD}"
            );
            outage.scene.passes(2_000);
            let more = crowd.iter().map(|it| outage.scene.takes(it.link).len());
            assert_eq!(more.sum::<usize>(), 0);
        }
    }
}

#[test]
fn stranger_whose_app_a_home_does_not_know_yet_comes_back_later() {
    let mut scene = Scene::start(3, &json!({}), &json!({}));
    let new = json!({"id": "new-id", "key": "new-key", "secret": "new-secret", "enabled": true});
    let config = json!({"app_manager": {"driver": "memory", "array": {"apps": [new]}}});
    let apps = crate::plan::loaded(&config).app_manager.apps;
    let changes = AppTable::clone(&scene.apps).replace(&apps).into();
    scene.node.tell(0, FromBridge::Apps { number: 1, changes });
    scene.node.tell(0, FromBridge::AppsOpen { number: 1 });
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
        let mut table = AppTable::clone(&scene.apps);
        for other in ["one", "two"] {
            let app = json!({"id": other, "key": other, "secret": other, "enabled": true});
            let config = json!({"app_manager": {"driver": "memory", "array": {"apps": [app]}}});
            let apps = crate::plan::loaded(&config).app_manager.apps;
            let changes = table.replace(&apps).into();
            scene.node.tell_all(|| FromBridge::Apps {
                number: 1,
                changes: Arc::clone(&changes),
            });
        }
        scene.rest();
        scene.passes(10_000);
        let left = scene.node.occupancy();
        assert!(scene.is_empty(), "after {rounds_before} rounds: {left:?}");
    }
}
