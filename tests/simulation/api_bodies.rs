//! What an API call holds of its body until it is done, and what of that gives way when there is too much: never a
//! call whose events are read, wait for their app's limit or are with their homes.

use serde_json::json;
use shards::application::Peer;

use crate::scene::{Scene, responses};

/// What a shard of two keeps of bodies: four of the largest.
const KEPT_BYTES_MAX: usize = 4 << 20;
/// Nearly a whole body.
const PART_BYTES: usize = 1_000_000;
const _: () = assert!(4 * PART_BYTES < KEPT_BYTES_MAX, "four have room");

/// A node of two shards. Who publishes is on one of them, all homes are on the other one, which does nothing unless
/// it is told to.
struct Bodies {
    scene: Scene,
    shard: usize,
    publisher: usize,
    channels: Vec<String>,
}

impl Bodies {
    fn begin(rate_limiter: &serde_json::Value) -> Self {
        let keys = json!({
            "net": {"input_held_bytes": 1_048_576},
            "http_api": {"request_limit_in_mb": 1},
            "rate_limiter": rate_limiter,
        });
        let app = json!({"max_backend_events_per_second": 1_000});
        let mut scene = Scene::start(2, &keys, &app);
        let app = scene.apps.by_id("scene-id").expect("it is there");
        let partitions = app.rules.partitions.clone();
        let own = partitions.own().number() % 2;
        let names = (0..).map(|number| format!("c-{number}"));
        let is_own = |name: &String| partitions.of_channel(name).number() % 2 == own;
        let channels = names.filter(is_own).take(11).collect();
        let shard = 1 - usize::from(own);
        let publisher = scene.node.connect(shard, 1 << 16);
        Self {
            scene,
            shard,
            publisher,
            channels,
        }
    }

    /// An event for so many channels is asked for: 102 kB of frames for each.
    fn publish(&mut self, channels: usize) {
        let channels = &self.channels[..channels];
        let body = json!({"name": "e", "channels": channels, "data": "x".repeat(102_000)});
        let request = self.scene.request("/events", &[], Some(&body));
        self.scene.say(self.publisher, &request);
    }

    /// Turns of the shard that has the publisher.
    fn turns(&mut self) {
        (0..20).for_each(|_| self.scene.turn_of(self.shard));
    }

    /// A turn of the homes.
    fn homes_answer(&mut self) {
        self.scene.turn_of(1 - self.shard);
    }

    /// A connection whose requests the other shard counts. One that is not signed tells: where its address is counted
    /// here, it is refused at once.
    fn connects_from_elsewhere(&mut self) -> usize {
        let unsigned = ("scene-id", ("scene-key", "guessed"));
        let asks = self.scene.request_of(unsigned, "/channels", &[], None);
        for number in 1..100 {
            let link = self.scene.node.connect(self.shard, 1 << 16);
            let address = format!("192.0.2.{number}:1024");
            let address = address.parse().expect("an address");
            self.scene.node.links[link].peer = Peer::Address(address);
            self.scene.say(link, &asks);
            self.turns();
            let at_once = self.answered(&[link]);
            self.homes_answer();
            self.turns();
            let then = self.answered(&[link]);
            match (&*at_once, &*then) {
                ([401], []) => {}
                ([], [401]) => return link,
                told => panic!("{told:?}"),
            }
        }
        panic!("each address is counted here");
    }

    /// So many others send nearly all of a body.
    fn others_send(&mut self, count: usize) -> Vec<usize> {
        let signed = self
            .scene
            .request("/events", &[], Some(&json!("x".repeat(PART_BYTES))));
        let begin = |_| {
            let link = self.scene.node.connect(self.shard, 1 << 16);
            self.scene.say(link, &signed[..signed.len() - 10]);
            while !self.scene.node.links[link].to_server.is_empty() {
                self.scene.turn_of(self.shard);
            }
            link
        };
        (0..count).map(begin).collect()
    }

    fn answered(&mut self, links: &[usize]) -> Vec<u16> {
        let answers = links.iter().map(|link| responses(&self.scene.takes(*link)));
        answers.flatten().map(|(status, _)| status).collect()
    }
}

#[test]
fn frames_of_an_event_that_waits_for_its_apps_limit_give_way_to_no_body_and_take_no_room_of_any() {
    let mut bodies = Bodies::begin(&json!({"enabled": false}));
    bodies.publish(11);
    bodies.turns();
    assert_eq!(bodies.answered(&[bodies.publisher]), [0; 0], "it waits");
    let others = bodies.others_send(3);
    assert_eq!(
        bodies.answered(&[bodies.publisher]),
        [0; 0],
        "there is room"
    );
    let fourth = bodies.others_send(1);
    let others = [others, fourth].concat();
    assert_eq!(bodies.answered(&others), [0; 0], "all of it is theirs");
    let fifth = bodies.others_send(1);
    let others = [others, fifth].concat();
    assert_eq!(bodies.answered(&others), [503], "and no more");
    assert_eq!(bodies.answered(&[bodies.publisher]), [0; 0], "it waits");
    bodies.scene.rest();
    assert_eq!(bodies.answered(&[bodies.publisher]), [200]);
}

#[test]
fn an_event_that_is_with_its_homes_is_answered_as_they_say_however_much_others_send() {
    let mut bodies = Bodies::begin(&json!({"enabled": false}));
    bodies.publish(11);
    bodies.turns();
    // The limit is known, and who is asked next says nothing.
    bodies.homes_answer();
    bodies.turns();
    assert_eq!(bodies.answered(&[bodies.publisher]), [0; 0], "it waits");
    let others = bodies.others_send(4);
    let told = bodies.answered(&[bodies.publisher]);
    assert_eq!(told, [0; 0], "its events are on their way");
    bodies.scene.rest();
    assert_eq!(bodies.answered(&[bodies.publisher]), [200]);
    assert_eq!(bodies.answered(&others), [0; 0], "they have room");
}

#[test]
fn frames_that_are_made_behind_the_limit_of_an_address_are_counted_too() {
    let limit = json!({"max_requests": 1_000, "window_seconds": 60});
    let mut bodies = Bodies::begin(&json!({"enabled": true, "api_rate_limit": limit}));
    bodies.publisher = bodies.connects_from_elsewhere();
    bodies.publish(4);
    bodies.turns();
    bodies.homes_answer();
    bodies.turns();
    assert_eq!(bodies.answered(&[bodies.publisher]), [0; 0], "it waits");
    let shard = bodies.shard;
    let reading = |bodies: &Bodies| bodies.scene.node.occupancy()[shard].reading_bytes;
    assert!(
        (408_000..410_000).contains(&reading(&bodies)),
        "four frames"
    );
    bodies.scene.rest();
    assert_eq!(bodies.answered(&[bodies.publisher]), [200]);
}
