//! A node of several that has lost the bus for a while: others may know a newer last event of its cache channel. The
//! test takes the place of the bus and of the other nodes.

use std::collections::BTreeMap;

use serde_json::json;
use shards::application::ShardId;
use sockudo::{
    bridge::message::{
        FromBridge, KeptEvent, KeptName, NodeState, StateChange, ToBridge, TopicWish,
    },
    protocol::{app::AppIndex, partition::Partition},
};

use crate::scene::{Scene, responses, subscribe, texts};

pub(crate) const CHANNEL: &str = "cache-prices";
/// Life of an event.
const KEPT_MS: u64 = 1_800_000;
/// Longer than an answer is waited for.
const TOO_LATE_MS: u64 = 700;

/// The node, when that is over.
pub(crate) struct Outage {
    pub(crate) scene: Scene,
    app: AppIndex,
    partition: Partition,
    publisher: usize,
    /// What each shard wished last of its topics.
    wishes: BTreeMap<Partition, (ShardId, TopicWish)>,
    /// What the other nodes were asked.
    asked: Vec<KeptName>,
}

impl Outage {
    /// It keeps the event `one`, which is in doubt: another node has one, too.
    pub(crate) fn is_over(shards: u16) -> Self {
        let keys = json!({
            "adapter": {"driver": "redis"},
            "channel_limits": {"cache_ttl": KEPT_MS / 1_000},
        });
        let mut scene = Scene::start(shards, &keys, &json!({}));
        let entry = scene.apps.by_id("scene-id").expect("it is there");
        let (app, partition) = (entry.index, entry.rules.partitions.of_channel(CHANNEL));
        let publisher = scene.node.connect(0, 1 << 16);
        let mut outage = Self {
            scene,
            app,
            partition,
            publisher,
            wishes: BTreeMap::new(),
            asked: Vec::new(),
        };
        outage.publishes("one");
        outage.settles();
        assert_eq!(responses(&outage.scene.takes(publisher))[0].0, 200);
        let keeps = NodeState {
            app,
            partition,
            name: CHANNEL.into(),
            change: StateChange::EventKept(true),
        };
        outage.home_hears(FromBridge::State(Box::new(keeps)));
        outage.scene.passes(1_000);
        outage.scene.node.tell_all(|| FromBridge::TopicsLost);
        outage.scene.passes(1_000);
        for (partition, (shard, wish)) in outage.wishes.clone() {
            let live = FromBridge::TopicsLive([(partition, wish)].into());
            outage.scene.node.tell(usize::from(shard.0), live);
        }
        outage.settles();
        outage
    }

    fn home_hears(&mut self, message: FromBridge) {
        let (home, _) = self.wishes[&self.partition];
        self.scene.node.tell(usize::from(home.0), message);
    }

    pub(crate) fn settles(&mut self) {
        self.scene.settles(|shard, message| match message {
            ToBridge::Topic { partition, wish } => {
                self.wishes.insert(partition, (shard, wish));
            }
            ToBridge::KeptAsk(name) => self.asked.push(*name),
            _ => {}
        });
    }

    /// An event is sent to the node's API.
    pub(crate) fn publishes(&mut self, data: &str) {
        let event = json!({"name": "n", "channel": CHANNEL, "data": data});
        let request = self.scene.request("/events", &[], Some(&event));
        self.scene.say(self.publisher, &request);
    }

    /// Another node has this event, which it keeps for so long.
    pub(crate) fn hears_of(&mut self, data: &str, left_ms: u64) {
        // As a node writes it.
        let text = format!(r#"{{"event":"n","channel":"{CHANNEL}","data":"{data}"}}"#);
        let mut frame = vec![0x81, u8::try_from(text.len()).expect("a short event")];
        frame.extend(text.as_bytes());
        let kept = KeptEvent {
            app: self.app,
            partition: self.partition,
            channel: CHANNEL.into(),
            left_ms,
            frame: frame.into(),
        };
        self.home_hears(FromBridge::Kept(Box::new(kept)));
    }

    /// An event that is newer than any before it.
    pub(crate) fn hears_of_newest(&mut self, data: &str) {
        self.hears_of(data, KEPT_MS);
    }

    pub(crate) fn is_too_late(&mut self) {
        self.scene.node.now = self.scene.node.now.plus(TOO_LATE_MS);
    }

    /// Questions for events in doubt, and events that answers have replaced, as they are counted.
    fn counted(&mut self) -> [u64; 2] {
        let counted = self.scene.counted();
        counted.iter().fold([0, 0], |[doubted, replaced], it| {
            [doubted + it.kept_doubted, replaced + it.kept_replaced]
        })
    }

    /// What somebody who subscribes now hears; the events' data, or `pusher:cache_miss`.
    fn newcomer_hears(&mut self, answers: impl Fn(&mut Self)) -> Vec<String> {
        let newcomer = self.scene.arrives(0);
        self.scene.say(newcomer.link, &subscribe(CHANNEL));
        self.settles();
        answers(self);
        self.settles();
        let heard = texts(&self.scene.takes(newcomer.link));
        let (first, events) = heard.split_first().expect("the subscription is answered");
        assert_eq!(first["event"], "pusher_internal:subscription_succeeded");
        let data = events
            .iter()
            .map(|it| it["data"].as_str().or_else(|| it["event"].as_str()));
        data.map(|it| it.unwrap_or_default().to_owned()).collect()
    }
}

#[test]
fn a_last_event_in_doubt_is_asked_for_once_and_counted_where_an_answer_replaces_it() {
    type Answers = fn(&mut Outage);
    let cases: [(&str, Answers, &str, [u64; 2]); 4] = [
        ("newer", |it| it.hears_of_newest("two"), "two", [1, 1]),
        ("older", |it| it.hears_of("zero", 1_000), "one", [1, 0]),
        ("the same", |it| it.hears_of_newest("one"), "one", [1, 0]),
        (
            "newer, then older",
            |it| {
                it.hears_of_newest("two");
                it.hears_of("zero", 1_000);
            },
            "two",
            [1, 1],
        ),
    ];
    for (case, answers, expected, counted) in cases {
        let mut outage = Outage::is_over(2);
        assert_eq!(outage.counted(), [0, 0], "{case}: nobody has subscribed");
        assert_eq!(outage.newcomer_hears(answers), [expected], "{case}");
        assert_eq!(
            outage.newcomer_hears(|_| {}),
            [expected],
            "{case}: no doubt is left"
        );
        assert_eq!(outage.asked.len(), 1, "{case}");
        assert!(outage.asked[0].is_doubted, "{case}");
        assert_eq!(outage.counted(), counted, "{case}");
    }
    let mut outage = Outage::is_over(2);
    for asked in 1..3 {
        assert_eq!(outage.newcomer_hears(Outage::is_too_late), ["one"]);
        assert_eq!(outage.counted(), [asked, 0], "nobody answers");
    }
}
