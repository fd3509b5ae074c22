//! Nodes that are joined in memory by a toy bus: what they hear, whom they know, what they count.
//!
//! Owns: what one node and its bus do, as tests; `toy` is the bus.
//! May depend on: `cluster`.
//! Invariants: the same seed gives the same run.

mod carried_tests;
mod state_deeds;
mod state_tests;
mod tally_tests;
mod toy;
mod watched;

use std::collections::BTreeMap;

use ahash::RandomState;
use proptest::prelude::*;
use shards::application::Millis;

use super::{
    entry::{Entry, Event, EventId, Hello, Origin, Token},
    field::NAME_BYTES_MAX,
    figures::*,
    identity::{ClusterTag, Identity, Incarnation, NodeId},
    mac::Secrets,
    membership::{self, Reason, Times},
    node::*,
    topic::{Road, Topic},
    wire::*,
};
use crate::protocol::partition::Partition;
use toy::{Faults, Toy};
use watched::Watched;

const TIMES: Times = Times {
    lease_ms: 5_000,
    heartbeat_ms: 1_000,
    canary_ms: 1_000,
};

fn cluster() -> ClusterTag {
    ClusterTag::of_name("toy")
}

fn name_of(at: usize) -> String {
    format!("node-{at}")
}

fn identity_of(at: usize, incarnation: u64) -> Identity {
    Identity {
        node: NodeId::of_name(&name_of(at)),
        incarnation: Incarnation(incarnation),
    }
}

fn node_of(now: u64, at: usize, incarnation: u64, secrets: Secrets) -> Node {
    node_with(now, at, incarnation, secrets, 1 << 30)
}

fn node_with(
    now: u64,
    at: usize,
    incarnation: u64,
    secrets: Secrets,
    view_bytes_max: usize,
) -> Node {
    let setup = setup_with(at, incarnation, secrets, view_bytes_max);
    Node::new(Millis(now), setup)
}

fn setup_with(at: usize, incarnation: u64, secrets: Secrets, view_bytes_max: usize) -> Setup {
    Setup {
        identity: identity_of(at, incarnation),
        name: name_of(at),
        program: "1.2.3".to_owned(),
        cluster: cluster(),
        secrets,
        version: Version::OURS,
        times: TIMES,
        hasher: RandomState::with_seeds(1, 2, 3, 4),
        view_bytes_max,
    }
}

fn secret() -> Secrets {
    Secrets::new(["secret"])
}

fn partition(number: u16) -> Partition {
    Partition::from_number(number).expect("a partition")
}

fn event(number: u16, frame: &[u8]) -> Outgoing<'_> {
    Outgoing {
        partition: partition(number),
        app: "app",
        channel: "news",
        origin: Origin::Api,
        except: None,
        frame,
    }
}

fn peer(effect: membership::Effect) -> Effect {
    Effect::Peer(effect)
}

#[test]
fn who_starts_is_known_by_name_to_all_and_knows_all() {
    let mut toy = Toy::new(3, 1);
    toy.stations[2].node = None;
    toy.until(3_000);
    assert_eq!(toy.known_to(0), ["node-1"]);
    let newcomer = identity_of(1, 1);
    let expected = [
        (20, peer(membership::Effect::Joined(newcomer))),
        (20, Effect::Introduced(newcomer)),
    ];
    assert_eq!(toy.effects_of(0), expected);
    toy.restart(2, 1);
    toy.until(3_600);
    for (at, known) in [
        (0, ["node-1", "node-2"]),
        (1, ["node-0", "node-2"]),
        (2, ["node-0", "node-1"]),
    ] {
        assert_eq!(toy.known_to(at), known);
        assert!(!toy.node(at).bus().is_late());
        assert_eq!(toy.node(at).bus().events.round_trip_ms, Some(10));
        assert_eq!(toy.node(at).bus().state.round_trip_ms, Some(10));
    }
    let node = toy.node(2);
    let found: Vec<_> = node
        .peers()
        .map(|peer| (peer.program, peer.version))
        .collect();
    assert_eq!(found, [("1.2.3", Version::OURS); 2]);
    assert!(node.peers().all(|peer| peer.heard_at >= Millis(3_000)));
}

#[test]
fn events_arrive_once_and_in_order_whatever_is_doubled() {
    let mut toy = Toy::new(3, 7);
    toy.faults = Faults {
        delay_ms_max: 300,
        doubled: 300,
        ..Faults::default()
    };
    toy.until(2_000);
    let mut published: BTreeMap<u16, Vec<Vec<u8>>> = BTreeMap::new();
    for number in 0..600_u32 {
        let lane = (number % 7 * 100) as u16;
        toy.publish(0, lane, &number.to_be_bytes());
        let frames = published.entry(lane).or_default();
        frames.push(number.to_be_bytes().to_vec());
        if number % 3 == 0 {
            toy.until(toy.now + 10);
        }
    }
    toy.until(toy.now + 1_000);
    assert!(toy.stations[0].heard.is_empty());
    for at in [1, 2] {
        let mut heard: BTreeMap<u16, Vec<Vec<u8>>> = BTreeMap::new();
        for (lane, frame) in std::mem::take(&mut toy.stations[at].heard) {
            heard.entry(lane).or_default().push(frame);
        }
        assert_eq!(heard, published);
        let counters = toy.counters(at);
        assert_eq!(counters.events_heard, 600);
        assert!(counters.batches_doubled > 50, "{counters:?}");
        assert_eq!(counters.batches_lost, ByRoad::default());
        let of_sender = toy.node(at).peers().find(|peer| peer.name == "node-0");
        assert_eq!(of_sender.expect("known").counters.events_heard, 600);
    }
}

#[test]
fn what_is_lost_is_counted_for_its_sender_and_road() {
    let mut toy = Toy::new(2, 1);
    toy.until(1_500);
    let topic = Topic::Events(partition(5));
    let send = |toy: &mut Toy, count: u8| {
        for _ in 0..count {
            toy.publish(0, 5, b"x");
            toy.until(toy.now + 10);
        }
    };
    let lost = |toy: &mut Toy| {
        let total = toy.counters(1).batches_lost;
        let peers: Vec<_> = toy
            .node(1)
            .peers()
            .map(|peer| peer.counters.batches_lost)
            .collect();
        assert_eq!(peers, [total]);
        (total.events, total.state)
    };
    let silence = |toy: &mut Toy, is_silent| toy.faults.events_are_silent = is_silent;
    // The first one that is heard may be any.
    silence(&mut toy, true);
    send(&mut toy, 2);
    silence(&mut toy, false);
    send(&mut toy, 3);
    assert_eq!(lost(&mut toy), (0, 0));
    silence(&mut toy, true);
    send(&mut toy, 4);
    silence(&mut toy, false);
    send(&mut toy, 1);
    assert_eq!(lost(&mut toy), (4, 0));
    // What passes while the topic is left is no loss, also behind what was left over.
    toy.node(1).forget_lane(topic);
    send(&mut toy, 1);
    silence(&mut toy, true);
    send(&mut toy, 5);
    silence(&mut toy, false);
    toy.node(1).forget_lane(topic);
    send(&mut toy, 2);
    assert_eq!(lost(&mut toy), (4, 0));
    toy.faults.state_is_silent = true;
    toy.until(toy.now + 2_000);
    toy.faults.state_is_silent = false;
    toy.until(toy.now + 1_000);
    let (events, state) = lost(&mut toy);
    assert_eq!(events, 4);
    assert!((1..=3).contains(&state), "{state}");
}

/// A batch of node 0, as if it had sent it.
fn batch_of(topic: Topic, number: u64, secrets: &Secrets, entries: &[Entry<'_>]) -> Vec<u8> {
    let header = Header {
        version: Version::OURS,
        lane: topic.lane(),
        cluster: cluster(),
        sender: identity_of(0, 1),
        number,
    };
    let mut writer = BatchWriter::begin(&header, secrets, Vec::new());
    for entry in entries {
        assert_eq!(writer.push(entry), Ok(()));
    }
    writer.finish(secrets)
}

fn news(partition: Partition, frame: &[u8]) -> Entry<'_> {
    Entry::Event(Event {
        id: EventId(1),
        partition,
        app: "app",
        channel: "news",
        origin: Origin::Api,
        except: None,
        frame,
    })
}

/// What a node counts, without what grows with good batches.
fn refusals(counters: &Counters) -> [u64; 8] {
    [
        counters.batches_foreign,
        counters.batches_malformed,
        counters.batches_of_other_version,
        counters.batches_of_other_cluster,
        counters.batches_without_mac,
        counters.batches_with_wrong_mac,
        counters.batches_misplaced,
        counters.batches_doubled,
    ]
}

#[test]
fn what_is_not_for_us_changes_a_counter_and_nothing_else() {
    let topic = Topic::Events(partition(300));
    let good = batch_of(topic, 5, &secret(), &[news(partition(300), b"x")]);
    let patched = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    };
    let elsewhere = Topic::Events(partition(301));
    let mut cases = vec![
        ("another's bytes", topic, b"PING\r\n".to_vec(), 0),
        ("nothing", topic, Vec::new(), 1),
        ("an unknown flag", topic, patched(5, 0x81), 1),
        ("too much", topic, vec![b'S'; BATCH_BYTES_MAX + 1], 0),
        ("a version from afar", topic, patched(4, 9), 2),
        ("another cluster's", topic, patched(8, 0), 3),
        (
            "no MAC",
            topic,
            batch_of(topic, 6, &Secrets::default(), &[]),
            4,
        ),
        (
            "another secret",
            topic,
            batch_of(topic, 6, &Secrets::new(["no"]), &[]),
            5,
        ),
        ("another sender", topic, patched(16, 0), 5),
        ("another number", topic, patched(47, 9), 5),
        ("another lane", topic, patched(7, 0), 5),
        ("another topic", elsewhere, good.clone(), 6),
        (
            "another's echo",
            Topic::Echo,
            batch_of(Topic::Echo, 1, &secret(), &[]),
            6,
        ),
        ("a double", topic, good.clone(), 7),
        ("a replay", topic, batch_of(topic, 4, &secret(), &[]), 7),
        ("no number", topic, batch_of(topic, 0, &secret(), &[]), 1),
    ];
    for length in 0..good.len() {
        let expected = match length {
            0..HEADER_BYTES => 1,
            // The last bytes are taken for the MAC.
            _ => 5,
        };
        cases.push(("a cut batch", topic, good[..length].to_vec(), expected));
    }
    let mut node = node_of(0, 1, 1, secret());
    let (mut effects, mut heard) = (Vec::new(), 0);
    let of_nobody = batch_of(topic, 0, &secret(), &[]);
    node.hear(Millis(0), topic, &of_nobody, &mut effects, |_| heard += 1);
    assert_eq!((effects.len(), node.peers().count()), (0, 0));
    node.hear(Millis(0), topic, &good, &mut effects, |_| heard += 1);
    assert_eq!(heard, 1);
    effects.clear();
    for (case, topic, bytes, expected) in cases {
        let before = refusals(node.counters());
        node.hear(Millis(4_000), topic, &bytes, &mut effects, |_| heard += 1);
        let mut after = before;
        after[expected] += 1;
        assert_eq!(refusals(node.counters()), after, "{case}");
        assert_eq!((effects.as_slice(), heard), (&[][..], 1), "{case}");
        let peers: Vec<_> = node.peers().map(|peer| peer.heard_at).collect();
        assert_eq!(peers, [Millis(0)], "{case}: a sign of life");
    }
    assert_eq!(node.counters().batches_heard, 1);
}

#[test]
fn entries_are_read_where_they_have_their_place() {
    let mut node = node_of(0, 1, 1, secret());
    let events = Topic::Events(partition(300));
    let state = Topic::from_lane(Lane(1_030)).expect("a group");
    let hello = |name| Entry::Hello(Hello { name, program: "1" });
    let canary = Entry::Canary(Token(1));
    let mut number = 0;
    let mut hear = |topic, entries: &[Entry<'_>]| {
        number += 1;
        let (mut effects, mut heard) = (Vec::new(), 0);
        let bytes = batch_of(topic, number, &secret(), entries);
        node.hear(Millis(0), topic, &bytes, &mut effects, |_| heard += 1);
        let counters = node.counters();
        (heard, counters.entries_misplaced, counters.entries_broken)
    };
    let (here, there) = (news(partition(300), b"x"), news(partition(301), b"x"));
    assert_eq!(hear(events, &[here, there, canary, here]), (2, 2, 0));
    assert_eq!(hear(Topic::Nodes, &[here, canary]), (0, 3, 0));
    assert_eq!(hear(state, &[here, Entry::Goodbye]), (0, 5, 0));
    assert_eq!(hear(Topic::Nodes, &[hello("node-7")]), (0, 5, 1));
    assert_eq!(hear(Topic::Nodes, &[hello("node-0")]), (0, 5, 1));
    let known: Vec<_> = node.peers().map(|peer| (peer.name, peer.program)).collect();
    assert_eq!(known, [("node-0", "1")]);
}

#[test]
fn a_later_version_is_heard_as_far_as_it_is_understood() {
    let mut node = node_of(0, 1, 1, secret());
    let topic = Topic::Events(partition(300));
    let header = Header {
        version: Version(Version::OURS.0 + 1),
        lane: topic.lane(),
        cluster: cluster(),
        sender: identity_of(0, 1),
        number: 1,
    };
    let mut writer = BatchWriter::begin(&header, &secret(), Vec::new());
    assert_eq!(writer.push_unknown(300, b"later"), Ok(()));
    assert_eq!(writer.push_unknown(4, b"broken"), Ok(()));
    assert_eq!(writer.push(&news(partition(300), b"x")), Ok(()));
    let bytes = writer.finish(&secret());
    let (mut effects, mut heard) = (Vec::new(), 0);
    node.hear(Millis(0), topic, &bytes, &mut effects, |_| heard += 1);
    let counters = node.counters();
    assert_eq!(
        (heard, counters.entries_unknown, counters.entries_broken),
        (1, 1, 1)
    );
    let [(of, _, tally)] = node.tallies().0.collect::<Vec<_>>()[..] else {
        panic!("one peer is there");
    };
    assert_eq!((of, tally.entries_unknown), (identity_of(0, 1).node, 1));
    let versions: Vec<_> = node.peers().map(|peer| peer.version).collect();
    assert_eq!(versions, [header.version]);
}

#[test]
fn a_node_does_not_hear_itself() {
    let mut toy = Toy::new(1, 1);
    toy.publish(0, 5, b"x");
    toy.until(1_500);
    assert!(toy.stations[0].heard.is_empty());
    let counters = toy.counters(0);
    assert_eq!(counters.batches_own, counters.batches_sent);
    assert_eq!(refusals(&counters), [0; 8]);
    assert_eq!(toy.node(0).peers().count(), 0);
}

#[test]
fn what_cannot_travel_is_refused_and_harms_nothing() {
    let mut toy = Toy::new(2, 1);
    toy.until(1_000);
    let name = "x".repeat(NAME_BYTES_MAX + 1);
    let frame = vec![0; BATCH_BYTES_MAX];
    toy.publish(0, 5, b"before");
    for (number, outgoing) in [
        (
            5,
            Outgoing {
                channel: &name,
                ..event(5, b"")
            },
        ),
        (
            6,
            Outgoing {
                app: &name,
                ..event(6, b"")
            },
        ),
    ] {
        let refused = Err(PushError::NameTooLong { bytes: name.len() });
        assert_eq!(toy.node(0).publish(&outgoing), refused, "{number}");
    }
    let refused = toy.node(0).publish(&event(7, &frame));
    assert!(matches!(refused, Err(PushError::EntryTooLong { .. })));
    toy.publish(0, 5, b"after");
    // As long as can be.
    let around = 1 + 2 + 4 + 5 + 1 + 3;
    toy.publish(0, 5, &frame[..BODY_BYTES_MAX - around]);
    let before = toy.counters(0).batches_sent;
    toy.until(1_020);
    assert_eq!(toy.counters(0).batches_sent - before, 2);
    let heard: Vec<_> = toy.stations[1]
        .heard
        .iter()
        .map(|(_, frame)| frame.len())
        .collect();
    assert_eq!(heard, [6, 5, BODY_BYTES_MAX - around]);
    assert_eq!(toy.counters(0).events_published, 3);
}

#[test]
fn a_bus_that_is_silent_is_told_and_nobody_is_expelled() {
    let mut toy = Toy::new(3, 1);
    toy.until(2_500);
    let _ = toy.effects_of(0);
    toy.faults.events_are_silent = true;
    toy.faults.state_is_silent = true;
    toy.until(30_000);
    let told: Vec<_> = toy
        .effects_of(0)
        .into_iter()
        .map(|(_, effect)| effect)
        .collect();
    let expected = [
        peer(membership::Effect::Stale),
        Effect::Late(Road::State),
        Effect::Late(Road::Events),
    ];
    assert!(
        expected.iter().all(|effect| told.contains(effect)),
        "{told:?}"
    );
    assert_eq!(told.len(), expected.len(), "{told:?}");
    assert!(toy.node(0).bus().is_late());
    assert_eq!(toy.known_to(0), ["node-1", "node-2"]);
    toy.faults = Faults::default();
    toy.until(40_000);
    let told: Vec<_> = toy
        .effects_of(0)
        .into_iter()
        .map(|(_, effect)| effect)
        .collect();
    let expected = [
        Effect::InTime(Road::Events),
        Effect::InTime(Road::State),
        peer(membership::Effect::Fresh),
    ];
    assert_eq!(told, expected);
    assert!(!toy.node(0).bus().is_late());
}

#[test]
fn the_roads_are_watched_apart() {
    for (road, other) in [(Road::Events, Road::State), (Road::State, Road::Events)] {
        let mut toy = Toy::new(2, 1);
        toy.until(2_500);
        let _ = toy.effects_of(0);
        toy.faults.events_are_silent = road == Road::Events;
        toy.faults.state_is_silent = road == Road::State;
        toy.until(10_000);
        let told = toy.effects_of(0);
        let is_told = |told: &[(u64, Effect)], effect| told.iter().any(|(_, told)| *told == effect);
        assert!(is_told(&told, Effect::Late(road)), "{told:?}");
        assert!(!is_told(&told, Effect::Late(other)), "{told:?}");
        let is_stale = is_told(&told, peer(membership::Effect::Stale));
        assert_eq!(is_stale, road == Road::State);
        let bus = toy.node(0).bus();
        assert_eq!(
            (bus.events.is_late, bus.state.is_late),
            (road == Road::Events, road == Road::State)
        );
        toy.faults = Faults::default();
        toy.until(20_000);
        assert!(is_told(&toy.effects_of(0), Effect::InTime(road)));
        assert_eq!(toy.known_to(0), ["node-1"]);
    }
}

#[test]
fn whoever_says_goodbye_goes_at_once_and_its_last_events_are_heard() {
    let mut toy = Toy::new(2, 1);
    toy.until(2_500);
    let _ = toy.effects_of(1);
    toy.publish(0, 5, b"last");
    toy.node(0).goodbye();
    toy.node(0).goodbye();
    let mut batches = Vec::new();
    toy.node(0)
        .take_batches(|topic, bytes| batches.push((topic, bytes)));
    // The road of events is slower.
    let [(events, last), (Topic::Nodes, goodbye)] = &batches[..] else {
        panic!("{batches:?}");
    };
    toy.hear(1, Topic::Nodes, goodbye);
    let gone = membership::Effect::Expelled(identity_of(0, 1), Reason::Goodbye);
    assert_eq!(toy.effects_of(1), [(2_500, peer(gone))]);
    assert!(toy.known_to(1).is_empty());
    toy.hear(1, *events, last);
    toy.hear(1, *events, last);
    assert_eq!(toy.stations[1].heard, [(5, b"last".to_vec())]);
    // It says nothing more, and what is old news of it is not read.
    let sent = toy.counters(0).batches_sent;
    toy.until(9_000);
    assert_eq!(toy.counters(0).batches_sent, sent);
    let heartbeat = batch_of(Topic::Nodes, 1_000, &secret(), &[]);
    toy.restart(0, 2);
    toy.until(9_100);
    let told = toy.effects_of(1);
    let back = peer(membership::Effect::Joined(identity_of(0, 2)));
    assert_eq!(told.first().map(|(_, effect)| *effect), Some(back));
    let before = toy.counters(1);
    toy.hear(1, Topic::Nodes, &heartbeat);
    assert_eq!(toy.counters(1).batches_heard, before.batches_heard);
}

#[test]
fn whoever_is_silent_is_expelled_and_a_recording_does_not_keep_it() {
    let mut toy = Toy::new(3, 1);
    toy.until(2_500);
    let _ = toy.effects_of(1);
    toy.stations[0].node = None;
    let recording: Vec<_> = toy
        .sent
        .iter()
        .filter(|(from, ..)| *from == 0)
        .cloned()
        .collect();
    while toy.now < 12_000 {
        toy.until(toy.now + 500);
        for (_, topic, bytes) in &recording {
            if toy.now < 7_000 && *topic != Topic::Echo {
                toy.hear(1, *topic, bytes);
            }
        }
    }
    let gone = membership::Effect::Expelled(identity_of(0, 1), Reason::LeaseRanOut);
    let told = toy.effects_of(1);
    assert_eq!(told.len(), 1, "{told:?}");
    let (at, effect) = told[0];
    assert_eq!(effect, peer(gone));
    assert!((7_000..=8_500).contains(&at), "{at}");
    toy.restart(0, 2);
    toy.until(13_000);
    assert_eq!(toy.known_to(1), ["node-0", "node-2"]);
}

#[test]
fn a_node_speaks_when_it_is_due() {
    let mut node = node_of(0, 0, 1, secret());
    let (mut hellos, mut heartbeats, mut canaries) = (0, 0, [0; 2]);
    let mut effects = Vec::new();
    while node.next_tick() < Millis(60_000) {
        let now = node.next_tick();
        node.tick(now, &mut effects);
        let mut batches = Vec::new();
        node.take_batches(|topic, bytes| batches.push((topic, bytes)));
        for (topic, bytes) in &batches {
            let batch = Batch::decode(bytes, cluster(), &secret()).expect("a batch");
            for entry in batch.entries() {
                match (*topic, entry.expect("our own")) {
                    (Topic::Nodes, Entry::Hello(_)) => hellos += 1,
                    (Topic::Nodes, Entry::Heartbeat(_)) => heartbeats += 1,
                    (Topic::Nodes, Entry::Canary(_)) => canaries[0] += 1,
                    (Topic::Echo, Entry::Canary(_)) => canaries[1] += 1,
                    (topic, entry) => panic!("{entry:?} on {topic:?}"),
                }
            }
            node.hear(now, *topic, bytes, &mut effects, |_| {});
        }
    }
    assert_eq!((hellos, heartbeats, canaries), (6, 60, [60, 60]));
    assert_eq!(effects, []);
    // After a pause it says what is due once.
    node.tick(Millis(90_000), &mut effects);
    assert_eq!(effects, [peer(membership::Effect::Stale)]);
    assert!(node.next_tick() > Millis(90_000));
    let mut batches = 0;
    node.take_batches(|_, _| batches += 1);
    assert_eq!(batches, 2);
}

/// What a run may do between steps.
#[derive(Clone, Copy, Debug)]
enum Deed {
    Publish(usize, u16),
    Silence(bool, bool),
    Loss(u64),
    Kill(usize),
    Stop(usize),
    GoOn(usize),
    Leave(usize),
}

fn deed() -> impl Strategy<Value = Deed> {
    let at = 0_usize..3;
    prop_oneof![
        12 => (at.clone(), 0_u16..4).prop_map(|(at, lane)| Deed::Publish(at, lane * 300)),
        1 => (any::<bool>(), any::<bool>()).prop_map(|(events, state)| Deed::Silence(events, state)),
        1 => (0_u64..300).prop_map(Deed::Loss),
        1 => at.clone().prop_map(Deed::Kill),
        1 => at.clone().prop_map(Deed::Stop),
        2 => at.clone().prop_map(Deed::GoOn),
        1 => at.prop_map(Deed::Leave),
    ]
}

/// Each life that joined ends before it joins again.
fn follow(lives: &mut BTreeMap<NodeId, Identity>, effect: Effect) {
    let Effect::Peer(effect) = effect else {
        return;
    };
    match effect {
        membership::Effect::Joined(peer) => assert_eq!(lives.insert(peer.node, peer), None),
        membership::Effect::Restarted { old, new } => {
            assert_eq!(lives.insert(new.node, new), Some(old));
        }
        membership::Effect::Expelled(peer, _) => {
            assert_eq!(lives.remove(&peer.node), Some(peer));
        }
        membership::Effect::Conflict(_) | membership::Effect::Stale | membership::Effect::Fresh => {
        }
    }
}

impl Toy {
    fn does(&mut self, deed: Deed, frame: u32, incarnations: &mut [u64]) {
        match deed {
            Deed::Publish(at, lane) => {
                let is_running = !self.stations[at].is_stopped;
                if let Some(node) = self.stations[at].node.as_mut().filter(|_| is_running) {
                    let frame = [[at as u8; 4], frame.to_be_bytes()].concat();
                    assert_eq!(node.publish(&event(lane, &frame)), Ok(()));
                }
            }
            Deed::Silence(events, state) => {
                self.faults.events_are_silent = events;
                self.faults.state_is_silent = state;
            }
            Deed::Loss(lost) => self.faults.lost = lost,
            Deed::Kill(at) => self.stations[at].node = None,
            Deed::Stop(at) => self.stations[at].is_stopped = true,
            Deed::Leave(at) if self.stations[at].is_stopped => {}
            Deed::Leave(at) => {
                if let Some(node) = &mut self.stations[at].node {
                    node.goodbye();
                    self.does(Deed::Publish(at, 0), frame, incarnations);
                    self.send(at);
                    self.stations[at].node = None;
                }
            }
            Deed::GoOn(at) => {
                self.stations[at].is_stopped = false;
                if self.stations[at].node.is_none() {
                    incarnations[at] += 1;
                    self.restart(at, incarnations[at]);
                    self.stations[at].effects.clear();
                    self.stations[at].ends_in_order();
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn whatever_happens_events_keep_their_order_and_all_find_each_other(
        deeds in prop::collection::vec((deed(), 0_u64..400), 1..120),
        seed: u64,
    ) {
        let mut toy = Toy::new(3, seed);
        let mut incarnations = [1; 3];
        let mut lives: [BTreeMap<NodeId, Identity>; 3] = Default::default();
        toy.faults = Faults { delay_ms_max: 60, doubled: 100, disordered: 30, ..Faults::default() };
        for (number, (deed, ms)) in deeds.into_iter().enumerate() {
            let before = incarnations;
            toy.does(deed, number as u32, &mut incarnations);
            for (at, lives) in lives.iter_mut().enumerate() {
                if before[at] != incarnations[at] {
                    lives.clear();
                }
            }
            toy.until(toy.now + ms);
            for (at, lives) in lives.iter_mut().enumerate() {
                for (_, effect) in toy.effects_of(at) {
                    follow(lives, effect);
                }
            }
        }
        // All is well again, and whoever left or died comes back.
        toy.faults = Faults::default();
        for at in 0..3 {
            toy.stations[at].node = None;
            toy.does(Deed::GoOn(at), 0, &mut incarnations);
        }
        toy.until(toy.now + 3 * TIMES.lease_ms);
        for at in 0..3 {
            prop_assert_eq!(toy.known_to(at).len(), 2);
            prop_assert!(!toy.node(at).bus().is_late());
            prop_assert!(toy.node(at).is_fresh());
            toy.stations[at].ends_in_order();
        }
    }

    #[test]
    fn no_bytes_of_the_bus_are_too_strange(
        changes in prop::collection::vec((0_usize..4, any::<prop::sample::Index>(), any::<u8>()), 1..60),
        lanes in prop::collection::vec(0_u16..1_042, 1..8),
    ) {
        let none = Secrets::default();
        let mut node = node_of(0, 1, 1, none.clone());
        let mut other = node_of(0, 0, 1, none);
        let mut effects = Vec::new();
        let mut batches = Vec::new();
        prop_assert_eq!(other.publish(&event(300, b"x")), Ok(()));
        other.tick(Millis(0), &mut effects);
        other.goodbye();
        other.take_batches(|topic, bytes| batches.push((topic, bytes)));
        for (at, place, byte) in changes {
            let (topic, bytes) = &batches[at % batches.len()];
            let mut bytes = bytes.clone();
            let place = place.index(bytes.len());
            bytes[place] = byte;
            node.hear(Millis(0), *topic, &bytes, &mut effects, |_| {});
            for lane in &lanes {
                let topic = Topic::from_lane(Lane(*lane)).expect("a lane");
                bytes[6..8].copy_from_slice(&lane.to_be_bytes());
                bytes[40..48].copy_from_slice(&u64::from(byte / 4).to_be_bytes());
                bytes[31] = byte % 4;
                node.hear(Millis(0), topic, &bytes, &mut effects, |_| {});
            }
            node.tick(Millis(0), &mut effects);
        }
        prop_assert!(node.peers().count() <= membership::PEERS_MAX);
    }
}
