//! A backend that answers only when the test lets it: a shard waits for none. Whoever asks nothing of it is served
//! meanwhile, turn for turn, beside those who wait for its answers.

use serde_json::json;
use sockudo::bridge::health::Health;
use sockudo::bridge::message::{
    AppFound, Found, FoundEvent, FromBridge, RateGrant, RateTaken, ToBridge,
};

use crate::{
    node::Node,
    scene::{KEY, Scene, Visitor, frame, responses, subscribe, texts},
    sign,
    turn::Limits,
    wire,
};

/// Who asks and waits, on each shard.
const ASKERS: usize = 40;
const EVENTS: usize = 50;
const ROOM: &str = "private-room";
/// From a client over the channel's home to another client, and one for chance.
const ROUNDS_MAX: usize = 4;
/// What nothing reaches in this test.
const MANY: u32 = 100_000;

#[derive(Clone, Copy, Debug)]
enum Backend {
    Apps,
    Rates,
    Cache,
}

impl Backend {
    const ALL: [Self; 3] = [Self::Apps, Self::Rates, Self::Cache];

    fn start(self, shards: u16) -> Scene {
        let keys = match self {
            Self::Apps => json!({}),
            Self::Rates => json!({"rate_limiter": {"enabled": true, "driver": "redis"}}),
            Self::Cache => json!({"cache": {"driver": "redis"}}),
        };
        let app = json!({
            "max_read_requests_per_second": MANY, "max_client_events_per_second": 0,
        });
        let mut scene = Scene::start(shards, &keys, &app);
        if matches!(self, Self::Apps) {
            scene.seed.settings.asks_for_apps = true;
            scene.node = Node::start(&scene.seed, shards, Limits::USUAL);
        }
        let well = Health {
            starting: false,
            ..Health::UNKNOWN
        };
        scene.node.tell_all(|| FromBridge::Health(well));
        scene
    }

    /// Somebody who asks what only the backend knows.
    fn is_asked(self, scene: &mut Scene, shard: usize, number: usize) -> usize {
        let link = match self {
            Self::Cache => scene.arrives(shard).link,
            Self::Apps | Self::Rates => scene.node.connect(shard, 1 << 16),
        };
        scene.takes(link);
        let bytes = match self {
            Self::Apps if number.is_multiple_of(2) => {
                wire::upgrade_request(&format!("late-key-{number}")).into_bytes()
            }
            Self::Apps => {
                format!("GET /apps/late-{number}/channels HTTP/1.1\r\nHost: node\r\n\r\n")
                    .into_bytes()
            }
            Self::Rates => scene.request("/channels", &[], None),
            Self::Cache => subscribe(&format!("cache-{number}")),
        };
        scene.say(link, &bytes);
        link
    }

    /// What it would say to a question.
    fn answer(self, question: ToBridge) -> Option<FromBridge> {
        match (self, question) {
            (Self::Apps, ToBridge::FindApp(wanted)) => Some(FromBridge::AppFound {
                name: Box::new(wanted.name),
                found: AppFound::Absent { for_ms: 5_000 },
            }),
            (Self::Rates, ToBridge::TakeRate(question)) => {
                let grant = Some(RateGrant {
                    granted: question.count,
                    remaining: MANY,
                    whole_in_ms: 1,
                    wait_ms: 0,
                });
                let taken = RateTaken { question, grant };
                Some(FromBridge::RateTaken(Box::new(taken)))
            }
            (Self::Cache, ToBridge::KeptAsk(name)) => {
                Some(FromBridge::Found(Box::new(FoundEvent {
                    app: name.app,
                    partition: name.partition,
                    channel: name.channel,
                    found: Found::Nothing,
                })))
            }
            _ => None,
        }
    }

    /// Opens the gate; how many questions waited behind it.
    fn answers(self, scene: &mut Scene) -> usize {
        let mut count = 0;
        loop {
            scene.rest();
            let told: Vec<_> = scene.node.told.drain(..).collect();
            let answered = told.into_iter().filter_map(|(shard, _, question)| {
                Some((usize::from(shard.0), self.answer(question)?))
            });
            let answered: Vec<_> = answered.collect();
            if answered.is_empty() {
                return count;
            }
            count += answered.len();
            for (shard, answer) in answered {
                scene.node.tell(shard, answer);
            }
        }
    }

    /// How many questions a crowd of so many puts: who asks for the same waits for the same answer.
    fn questions_of(self, askers: usize) -> std::ops::RangeInclusive<usize> {
        match self {
            Self::Apps | Self::Cache => askers..=askers,
            Self::Rates => 1..=2,
        }
    }

    fn has_answer(self, bytes: &[u8], number: usize) -> bool {
        match self {
            Self::Apps if number.is_multiple_of(2) => {
                let text = String::from_utf8_lossy(bytes);
                text.starts_with("HTTP/1.1 101") && text.contains(r#""code":4001"#)
            }
            Self::Apps => responses(bytes)[0].0 == 404,
            Self::Rates => responses(bytes)[0].0 == 200,
            Self::Cache => texts(bytes)
                .iter()
                .any(|it| it["event"] == "pusher:cache_miss"),
        }
    }
}

/// Two of the app that is known, on one shard.
struct Pair {
    speaks: Visitor,
    hears: Visitor,
}

impl Pair {
    fn arrives(scene: &mut Scene, shard: usize) -> Self {
        let [speaks, hears] = [(); 2].map(|()| {
            let visitor = scene.arrives(shard);
            let auth = sign::channel_auth(KEY.0, KEY.1, &visitor.socket_id, ROOM, None);
            let data = json!({"channel": ROOM, "auth": auth});
            scene.say(
                visitor.link,
                &frame(&json!({"event": "pusher:subscribe", "data": data})),
            );
            scene.rest();
            let told = texts(&scene.takes(visitor.link));
            assert_eq!(told[0]["event"], "pusher_internal:subscription_succeeded");
            visitor
        });
        Self { speaks, hears }
    }
}

/// One event of each pair, and one look at each shard's health, while the gate is shut.
fn all_are_served(scene: &mut Scene, pairs: &[Pair], probes: &[usize], number: usize) {
    for pair in pairs {
        scene.takes(pair.hears.link);
    }
    for (pair, probe) in pairs.iter().zip(probes) {
        let event = json!({"event": "client-e", "channel": ROOM, "data": number.to_string()});
        scene.say(pair.speaks.link, &frame(&event));
        scene.say(*probe, b"GET /up HTTP/1.1\r\nHost: node\r\n\r\n");
    }
    let mut heard = vec![0; pairs.len()];
    let mut rounds = 0;
    let mut well = vec![false; probes.len()];
    while heard.iter().any(|it| *it < pairs.len()) || well.contains(&false) {
        assert!(
            rounds < ROUNDS_MAX,
            "event {number}: {heard:?}, /up: {well:?}"
        );
        rounds += 1;
        scene.round();
        for (pair, heard) in pairs.iter().zip(&mut heard) {
            for event in texts(&scene.takes(pair.hears.link)) {
                // The one before was heard in the call before: none is late, lost or out of order.
                assert_eq!(event["data"], number.to_string(), "{event}");
                *heard += 1;
            }
        }
        for (probe, well) in probes.iter().zip(&mut well) {
            let answers = responses(&scene.takes(*probe));
            assert!(
                answers.iter().all(|(status, _)| *status == 200),
                "{answers:?}"
            );
            *well |= !answers.is_empty();
        }
    }
}

#[test]
fn a_shard_serves_who_asks_nothing_of_a_backend_that_does_not_answer() {
    for backend in Backend::ALL {
        for shards in [1, 3] {
            let mut scene = backend.start(shards);
            let shards = usize::from(shards);
            let pairs: Vec<Pair> = (0..shards)
                .map(|shard| Pair::arrives(&mut scene, shard))
                .collect();
            let probes: Vec<usize> = (0..shards)
                .map(|shard| scene.node.connect(shard, 1 << 16))
                .collect();
            backend.answers(&mut scene);
            let askers: Vec<usize> = (0..shards * ASKERS)
                .map(|number| backend.is_asked(&mut scene, number % shards, number))
                .collect();
            let is = format!("{backend:?} on {shards} shards");
            for number in 0..EVENTS {
                all_are_served(&mut scene, &pairs, &probes, number);
            }
            for link in &askers {
                assert!(scene.takes(*link).is_empty(), "{is}: somebody was answered");
            }
            let asked = backend.answers(&mut scene);
            assert!(
                backend.questions_of(askers.len()).contains(&asked),
                "{is}: {asked}"
            );
            for (number, link) in askers.iter().enumerate() {
                let told = scene.takes(*link);
                let text = String::from_utf8_lossy(&told);
                assert!(backend.has_answer(&told, number), "{is}: {number}: {text}");
            }
        }
    }
}
