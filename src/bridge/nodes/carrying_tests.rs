//! Exchanges with a bus between them that loses nothing: one of them is another process's for the rest.
//!
//! Owns: `Scene`.
//! May depend on: `bridge::nodes`, `cluster`.
//! Invariants: none.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use ahash::RandomState;

use super::{
    carrying::KEPT_BYTES_MAX,
    exchange::{Command, Exchange, Setup},
    told::Told,
};
use crate::{
    bridge::{
        adapter::news::News,
        apps::AppTable,
        fixture,
        message::{FromBridge, NodeEvent, NodeState, StateChange, TopicWish},
    },
    cluster::{
        carrying::CarryError,
        entry::{Entry, Origin},
        fault::{Fault, Planted},
        identity::{ClusterTag, Identity, Incarnation, NodeId},
        mac::Secrets,
        membership::Times,
        node::Setup as NodeSetup,
        start::Name,
        topic::{Road, Topic},
        wire::{Batch, Version},
    },
    protocol::{app::AppIndex, partition::Partition},
};

const TIMES: Times = Times {
    lease_ms: 5_000,
    heartbeat_ms: 1_000,
    canary_ms: 1_000,
};

/// The node that is replaced, its peer, and the process that follows the first one.
pub(super) const OLD: usize = 0;
pub(super) const PEER: usize = 1;
pub(super) const NEW: usize = 2;

pub(super) fn setup(at: usize, shards: u16) -> Setup {
    let node = at % 2;
    let name = format!("node-{node}");
    Setup {
        node: NodeSetup {
            identity: Identity {
                node: NodeId::of_name(&name),
                incarnation: Incarnation(1 + node as u64),
            },
            name,
            program: "1.2.3".to_owned(),
            cluster: ClusterTag::of_name("scene"),
            secrets: Secrets::default(),
            version: Version::OURS,
            times: TIMES,
            hasher: RandomState::with_seeds(at as u64, 2, 3, 4),
            view_bytes_max: 1 << 30,
        },
        name: Name::Chance,
        linger: Duration::from_secs(1),
        shards,
    }
}

pub(super) struct Scene {
    now_ms: u64,
    apps: AppTable,
    pub(super) partition: Partition,
    pub(super) exchanges: Vec<Exchange>,
    told: Vec<Told>,
    pub(super) subscribed: Vec<BTreeSet<Topic>>,
    /// It hears nothing and does nothing.
    is_frozen: Vec<bool>,
    /// By process: numbers and topics of what it published.
    published: Vec<(usize, Topic, u64)>,
    /// For the channel's topic.
    wish: TopicWish,
}

impl Scene {
    /// Two nodes that know each other and have their shares; the first one is subscribed to a channel.
    pub(super) fn new() -> Self {
        let apps = AppTable::build(&[fixture::app("app")], None);
        let entry = apps.by_id("app").expect("it is there");
        let mut scene = Self {
            now_ms: 0,
            partition: entry.rules.partitions.of_channel("news"),
            apps,
            exchanges: [OLD, PEER]
                .map(|at| Exchange::new(Duration::ZERO, setup(at, 2)))
                .into(),
            told: vec![Told::new(), Told::new()],
            subscribed: vec![BTreeSet::new(); 2],
            is_frozen: vec![false; 2],
            published: Vec::new(),
            wish: TopicWish::default(),
        };
        scene.wishes(OLD, true);
        scene.told[OLD].clear();
        scene.reports(OLD, 3);
        scene.reports(PEER, 5);
        scene.passes(20_000);
        scene
    }

    fn now(&self) -> Duration {
        Duration::from_millis(self.now_ms)
    }

    pub(super) fn passes(&mut self, ms: u64) {
        for _ in 0..ms / 50 {
            self.now_ms += 50;
            let now = self.now();
            for at in 0..self.exchanges.len() {
                if !self.is_frozen[at] && now >= self.exchanges[at].due() {
                    self.exchanges[at].tick(now, &mut self.told[at]);
                }
            }
            self.settles();
        }
    }

    /// Until the bus is empty.
    fn settles(&mut self) {
        let now = self.now();
        let mut is_moving = true;
        while std::mem::take(&mut is_moving) {
            for at in 0..self.exchanges.len() {
                while let Some(command) = self.exchanges[at].next_command() {
                    is_moving = true;
                    self.obeys(at, command);
                }
                if !self.is_frozen[at] {
                    self.exchanges[at].settle(now, &mut self.told[at]);
                    while self.exchanges[at].has_views() {
                        self.exchanges[at].tell_views(&self.apps, &mut self.told[at]);
                    }
                    self.exchanges[at].flush();
                }
            }
        }
    }

    fn obeys(&mut self, at: usize, command: Command) {
        match command {
            Command::Subscribe(topic) => {
                self.subscribed[at].insert(topic);
                self.brings(at, News::Live(vec![topic]));
            }
            Command::Unsubscribe(topic) => _ = self.subscribed[at].remove(&topic),
            Command::Publish { topic, batch } => {
                let read = Batch::decode(&batch, ClusterTag::of_name("scene"), &Secrets::default());
                let read = read.expect("a batch");
                self.published.push((at, topic, read.header.number));
                let says_so = read.entries().flatten().any(|it| it == Entry::Goodbye);
                assert!(!says_so);
                for to in 0..self.exchanges.len() {
                    let is_at_home = topic != Topic::Echo || to % 2 == at % 2;
                    if is_at_home && self.subscribed[to].contains(&topic) {
                        let bytes = batch.clone();
                        self.brings(to, News::Batch { topic, bytes });
                    }
                }
            }
        }
    }

    pub(super) fn brings(&mut self, to: usize, news: News) {
        if !self.is_frozen[to] {
            let now = self.now();
            self.exchanges[to].take(now, &self.apps, news, &mut self.told[to]);
        }
    }

    pub(super) fn publishes(&mut self, at: usize, frame: &[u8]) {
        let app = self.apps.by_id("app").expect("it is there").index;
        let event = NodeEvent {
            app,
            partition: self.partition,
            channel: "news".into(),
            origin: Origin::Api,
            except: None,
            frame: frame.into(),
        };
        self.exchanges[at].publish(&self.apps, &event);
        self.exchanges[at].flush();
        self.settles();
    }

    fn reports(&mut self, at: usize, count: u32) {
        let app = self.apps.by_id("app").expect("it is there").index;
        self.has(
            at,
            app,
            self.partition,
            "news",
            StateChange::Subscriptions(count),
        );
    }

    fn has(
        &mut self,
        at: usize,
        app: AppIndex,
        partition: Partition,
        name: &str,
        change: StateChange,
    ) {
        let state = NodeState {
            app,
            partition,
            name: name.into(),
            change,
        };
        let now = self.now();
        self.exchanges[at].report(now, &self.apps, &state);
        self.exchanges[at].flush();
        self.settles();
    }

    /// A shard wishes for the channel's topic, or not any more.
    pub(super) fn wishes(&mut self, at: usize, is_wanted: bool) {
        self.wish = self.wish.changed(is_wanted);
        let (now, wish) = (self.now(), self.wish);
        self.exchanges[at].wish(now, self.partition, wish, &mut self.told[at]);
        self.settles();
    }

    /// How much the peer knows of the first node: of channels, members, users, apps, last events.
    fn seen_by_peer(&self) -> [usize; 5] {
        let held = self.exchanges[PEER].node().state_counters().view.held;
        [
            held.channels,
            held.members,
            held.users,
            held.apps,
            held.kept,
        ]
    }

    /// Another process begins to follow the first node's.
    pub(super) fn is_followed(&mut self, shards: u16) {
        let subscribed: Vec<Partition> = self.exchanges[OLD].subscribed().collect();
        let next = Exchange::following(self.now(), setup(NEW, shards), subscribed.clone());
        assert!(!next.is_proven(subscribed.clone()));
        self.exchanges.push(next);
        self.told.push(Told::new());
        self.subscribed.push(BTreeSet::new());
        self.is_frozen.push(false);
        self.settles();
        assert!(self.exchanges[NEW].is_proven(subscribed));
    }

    pub(super) fn carries(&mut self) -> Vec<Vec<u8>> {
        let mut records = Vec::new();
        self.is_frozen[OLD] = true;
        self.exchanges[OLD].carry(&self.apps, &mut |record| records.push(record));
        records
    }

    pub(super) fn takes_over(&mut self, records: &[Vec<u8>]) -> Result<(), CarryError> {
        let now = self.now();
        let told = &mut self.told[NEW];
        self.exchanges[NEW].take_records(now, records)?;
        self.exchanges[NEW].take_over(now, &self.apps, told);
        self.subscribed[OLD].clear();
        self.settles();
        Ok(())
    }

    /// Frames of events, and counts of the channel, that shards were told.
    pub(super) fn heard(&self, at: usize) -> (Vec<&[u8]>, Vec<u32>) {
        let (mut frames, mut counts) = (Vec::new(), Vec::new());
        for (_, message) in &self.told[at] {
            match message {
                FromBridge::Event(event) => frames.push(&*event.frame),
                FromBridge::State(state) => {
                    if let StateChange::Subscriptions(count) = state.change {
                        counts.push(count);
                    }
                }
                _ => {}
            }
        }
        (frames, counts)
    }

    /// Whose webhooks shards were told to be this node's last, by shard.
    fn owned(&self, at: usize) -> Vec<[u64; 16]> {
        let mut owned = Vec::new();
        for (shard, message) in &self.told[at] {
            if let FromBridge::Owned(ownership) = message {
                owned.resize(owned.len().max(usize::from(shard.0) + 1), [0; 16]);
                owned[usize::from(shard.0)] = ownership.partitions;
            }
        }
        owned
    }
}

#[test]
fn what_the_bus_brings_while_processes_change_is_heard_once_and_the_others_notice_nothing() {
    let mut scene = Scene::new();
    assert_eq!(scene.heard(OLD).1, [5]);
    scene.is_followed(3);
    scene.publishes(PEER, b"before");
    scene.reports(PEER, 6);
    scene.passes(1_000);
    let records = scene.carries();
    scene.publishes(PEER, b"meanwhile");
    scene.reports(PEER, 7);
    scene.passes(300);
    assert_eq!(scene.heard(OLD), (vec![&b"before"[..]], vec![5, 6]));
    assert!(scene.told[NEW].is_empty(), "it tells nothing before");
    assert!(scene.published.iter().all(|(at, ..)| *at != NEW));
    scene.takes_over(&records).expect("the records are whole");
    assert_eq!(scene.heard(NEW), (vec![&b"meanwhile"[..]], vec![7]));
    let owned = scene.owned(OLD);
    assert!(owned[0] != [0; 16] && owned[0] != [u64::MAX; 16], "a share");

    scene.publishes(NEW, b"after");
    scene.reports(NEW, 4);
    scene.passes(20_000);
    let peer = scene.exchanges[PEER].node();
    let [seen] = peer.peers().collect::<Vec<_>>()[..] else {
        panic!("one peer");
    };
    assert_eq!(seen.identity.incarnation, Incarnation(1));
    let lost = seen.counters.batches_lost;
    assert_eq!(
        (lost.events, lost.state, seen.counters.batches_doubled),
        (0, 0, 0)
    );
    assert_eq!(peer.state_counters().view.gaps, 0);
    assert_eq!(scene.heard(PEER).1, [3, 4]);
    assert_eq!(scene.owned(PEER).len(), 2);
    // Each lane goes on with the next number.
    let mut latest = std::collections::BTreeMap::new();
    for (at, topic, number) in &scene.published {
        let before = latest.insert((at % 2, *topic), *number).unwrap_or(0);
        assert_eq!(*number, before + 1, "{topic:?}");
    }
}

#[test]
fn what_the_process_before_had_of_an_app_that_is_no_more_has_ended_for_the_others() {
    let mut scene = Scene::new();
    let entry = scene.apps.by_id("app").expect("it is there");
    let (app, partitions) = (entry.index, entry.rules.partitions.clone());
    let room = partitions.of_channel("presence-room");
    let [alice, bob] = ["alice", "bob"].map(Arc::<str>::from);
    for user_id in [&alice, &bob] {
        let (user_id, info) = (Arc::clone(user_id), "{}".into());
        let joined = StateChange::MemberJoined { user_id, info };
        scene.has(OLD, app, room, "presence-room", joined);
    }
    for (partition, name, change) in [
        (room, "presence-room", StateChange::Subscriptions(2)),
        (
            partitions.of_user("alice"),
            "alice",
            StateChange::UserOnline,
        ),
        (partitions.own(), "", StateChange::Connections(5)),
        (
            partitions.of_channel("cache-a"),
            "cache-a",
            StateChange::EventKept(true),
        ),
    ] {
        scene.has(OLD, app, partition, name, change);
    }
    scene.is_followed(1);
    assert_eq!(scene.seen_by_peer(), [2, 2, 1, 1, 1]);
    let records = scene.carries();
    scene.apps = AppTable::build(&[fixture::app("other")], None);
    scene.takes_over(&records).expect("the records are whole");
    scene.passes(2_000);
    assert_eq!(scene.seen_by_peer(), [0; 5]);
    let states = [PEER, NEW].map(|at| scene.exchanges[at].node().state_counters());
    assert_eq!((states[0].view.gaps, states[1].own.held.bytes), (0, 0));
}

#[test]
fn what_ends_of_an_app_that_is_taken_away_is_told_though_it_was_quiet_since_the_upgrade() {
    let mut scene = Scene::new();
    scene.is_followed(1);
    let records = scene.carries();
    scene.takes_over(&records).expect("the records are whole");
    assert_eq!(scene.seen_by_peer(), [1, 0, 0, 0, 0]);
    let app = scene.apps.by_id("app").expect("it is there").index;
    assert!(!scene.apps.replace(&[]).is_empty(), "it is gone");
    let partition = scene.partition;
    scene.has(NEW, app, partition, "news", StateChange::Subscriptions(0));
    scene.passes(2_000);
    assert_eq!(scene.seen_by_peer(), [0; 5]);
}

#[test]
fn a_topic_is_live_at_once_for_who_wishes_for_it_and_lingers_as_usual() {
    let mut scene = Scene::new();
    scene.is_followed(1);
    let records = scene.carries();
    let (partition, wish) = (scene.partition, TopicWish::default().changed(true));
    // Before it takes over, and behind it.
    let now = scene.now();
    scene.exchanges[NEW].wish(now, partition, wish, &mut scene.told[NEW]);
    assert!(scene.told[NEW].is_empty());
    scene.takes_over(&records).expect("the records are whole");
    let is_live = |message: &FromBridge| match message {
        FromBridge::TopicsLive(topics) => topics.contains(&(partition, wish)),
        _ => false,
    };
    let told = scene.told[NEW].iter().filter(|(_, it)| is_live(it));
    assert_eq!(told.count(), 1);
    scene.passes(12_000);
    assert!(scene.subscribed[NEW].contains(&Topic::Events(partition)));
    let wish = wish.changed(false);
    let now = scene.now();
    scene.exchanges[NEW].wish(now, partition, wish, &mut scene.told[NEW]);
    scene.passes(2_000);
    assert!(!scene.subscribed[NEW].contains(&Topic::Events(partition)));
}

#[test]
fn what_nobody_wishes_for_behind_it_is_left_when_all_had_time_to_wish() {
    let mut scene = Scene::new();
    scene.is_followed(1);
    scene.passes(5_000);
    let topic = Topic::Events(scene.partition);
    assert!(
        scene.subscribed[NEW].contains(&topic),
        "it is kept until then"
    );
    let records = scene.carries();
    scene.takes_over(&records).expect("the records are whole");
    scene.passes(9_000);
    assert!(scene.subscribed[NEW].contains(&topic));
    scene.passes(2_000);
    assert!(!scene.subscribed[NEW].contains(&topic));
}

#[test]
fn records_that_are_not_whole_change_neither_process() {
    let mut scene = Scene::new();
    scene.is_followed(2);
    let records = scene.carries();
    let mut cut = records;
    let last = cut.last_mut().expect("records");
    last.truncate(last.len() / 2);
    let found = scene.takes_over(&cut);
    assert!(matches!(found, Err(CarryError::Cut)), "{found:?}");
    assert!(scene.exchanges[NEW].is_following());
    // The one before goes on as if it had been stopped for a moment.
    scene.publishes(PEER, b"missed");
    scene.is_frozen[OLD] = false;
    scene.publishes(PEER, b"heard");
    scene.passes(10_000);
    assert_eq!(scene.heard(OLD).0, [b"heard"]);
    assert!(scene.told[NEW].is_empty());
    let peer = scene.exchanges[PEER].node();
    let lost: Vec<u64> = peer
        .peers()
        .map(|it| it.counters.batches_lost.state)
        .collect();
    assert_eq!(lost, [0]);
    // And may be followed once more.
    let records = scene.carries();
    scene.takes_over(&records).expect("the records are whole");
    assert!(!scene.exchanges[NEW].is_following());
}

#[test]
fn a_bus_that_fails_before_it_takes_over_leaves_it_unproven_and_deaf_for_a_while() {
    let mut scene = Scene::new();
    scene.is_followed(2);
    let partitions = [scene.partition];
    for road in Road::ALL {
        scene.brings(NEW, News::Down(road));
        assert!(!scene.exchanges[NEW].is_proven(partitions));
        let topics = Topic::all().filter(|it| it.road() == road);
        let topics = topics
            .filter(|it| scene.subscribed[NEW].contains(it))
            .collect();
        scene.brings(NEW, News::Live(topics));
        assert!(scene.exchanges[NEW].is_proven(partitions));
    }
    scene.brings(NEW, News::Lost(vec![Topic::Events(scene.partition)]));
    assert!(!scene.exchanges[NEW].is_proven(partitions));
    let records = scene.carries();
    scene.takes_over(&records).expect("the records are whole");
    assert!(scene.exchanges[NEW].node().is_fresh());
    scene.passes(600);
    assert!(
        !scene.exchanges[NEW].node().is_fresh(),
        "something may have been missed"
    );
    assert!(scene.exchanges[NEW].is_failing(), "a topic is not proven");
    let topic = Topic::Events(scene.partition);
    scene.brings(NEW, News::Live(vec![topic]));
    scene.passes(8_000);
    assert!(scene.exchanges[NEW].node().is_fresh());
    assert!(!scene.exchanges[NEW].is_failing());
}

#[test]
fn a_bus_that_failed_a_lease_before_it_takes_over_leaves_it_no_less_sure_of_the_others() {
    let lease_ms = TIMES.lease_ms;
    for (is_down, ago_ms, is_fresh) in [
        (true, lease_ms - 50, false),
        (true, lease_ms, true),
        (false, lease_ms - 50, false),
        (false, lease_ms, true),
    ] {
        let lost = match is_down {
            true => News::Down(Road::State),
            false => News::Lost(vec![Topic::Nodes]),
        };
        let case = format!("{lost:?}, {ago_ms} ms before");
        let mut scene = Scene::new();
        scene.is_followed(2);
        scene.brings(NEW, lost);
        // It counts from when all are heard again.
        scene.passes(10_000);
        let topics = Topic::all().filter(|it| it.road() == Road::State);
        scene.brings(NEW, News::Live(topics.collect()));
        scene.passes(ago_ms);
        let records = scene.carries();
        scene.takes_over(&records).expect("the records are whole");
        scene.passes(600);
        let node = scene.exchanges[NEW].node();
        assert_eq!(node.is_fresh(), is_fresh, "{case}");
    }
}

#[test]
fn what_a_peer_said_before_it_ended_is_not_heard_again_whether_it_came_back_or_not() {
    for comes_back in [false, true] {
        let mut scene = Scene::new();
        scene.is_followed(2);
        scene.publishes(PEER, b"before");
        scene.passes(1_000);
        // It is silent, and its lease runs out long before the other process takes over.
        scene.is_frozen[PEER] = true;
        scene.passes(3 * TIMES.lease_ms);
        assert_eq!(scene.heard(OLD).0, [b"before"]);
        assert_eq!(scene.exchanges[OLD].node().peers().count(), 0);
        if comes_back {
            scene.is_frozen[PEER] = false;
            scene.passes(1_000);
        }
        let records = scene.carries();
        scene.takes_over(&records).expect("the records are whole");
        assert!(scene.heard(NEW).0.is_empty(), "it was heard before");
        let peers = scene.exchanges[NEW].node().peers().count();
        assert_eq!(peers, usize::from(comes_back));
    }
}

#[test]
fn what_is_kept_unread_is_bounded_and_what_is_given_up_is_counted() {
    let mut scene = Scene::new();
    scene.is_followed(2);
    let bytes = vec![0; KEPT_BYTES_MAX / 8];
    let mut came = 0;
    for (count, dropped) in [(7, 0), (8, 0), (9, 1), (20, 12)] {
        while came < count {
            came += 1;
            let topic = Topic::Events(scene.partition);
            let bytes = bytes.clone();
            scene.brings(NEW, News::Batch { topic, bytes });
        }
        let unkept = scene.exchanges[NEW].counters.batches_unkept;
        assert_eq!(unkept, dropped, "of {count}");
    }
}

#[test]
fn what_the_process_before_has_kept_unread_is_heard_by_whoever_goes_on() {
    for takes_over in [true, false] {
        let mut scene = Scene::new();
        scene.is_followed(2);
        scene.exchanges[OLD].hold();
        // It was sent before the next process was subscribed.
        let topic = Topic::Events(scene.partition);
        assert!(scene.subscribed[NEW].remove(&topic));
        scene.publishes(PEER, b"kept");
        scene.subscribed[NEW].insert(topic);
        assert!(scene.heard(OLD).0.is_empty());
        let records = scene.carries();
        let on = match takes_over {
            true => {
                scene.takes_over(&records).expect("the records are whole");
                NEW
            }
            false => {
                let (now, told) = (scene.now(), &mut scene.told[OLD]);
                scene.exchanges[OLD].release(now, &scene.apps, told);
                scene.is_frozen[OLD] = false;
                OLD
            }
        };
        scene.publishes(PEER, b"next");
        assert_eq!(scene.heard(on).0, [&b"kept"[..], b"next"]);
    }
}

#[test]
fn each_fault_that_is_planted_in_what_is_kept_is_found() {
    let scenarios: [(Fault, fn()); 3] = [
        (
            Fault::CarriedPeerBack,
            what_a_peer_said_before_it_ended_is_not_heard_again_whether_it_came_back_or_not,
        ),
        (
            Fault::CarriedHeldLost,
            what_the_process_before_has_kept_unread_is_heard_by_whoever_goes_on,
        ),
        (
            Fault::ReleasedHeldLost,
            what_the_process_before_has_kept_unread_is_heard_by_whoever_goes_on,
        ),
    ];
    for (fault, scenario) in scenarios {
        let _planted = Planted::new(fault);
        assert!(std::panic::catch_unwind(scenario).is_err(), "{fault:?}");
    }
}
