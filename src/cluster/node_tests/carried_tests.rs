//! Nodes that another process goes on with: what it does is what the one before would have done.

use super::{
    state_deeds::{StateDeed, state_deed},
    *,
};
use crate::cluster::{
    carrying::{CarryError, RECORD_BYTES_MAX},
    fault::{OF_CARRYING, Planted},
    ledger::OwnChange,
    owner::{Change, Owners},
    start::Name,
};

/// As another process has it: its tables have other keys.
fn setup_of(at: usize, incarnation: u64, keys: u64) -> Setup {
    Setup {
        hasher: RandomState::with_seeds(keys, 2, 3, 4),
        ..setup_with(at, incarnation, secret(), 1 << 30)
    }
}

fn records_of(node: &Node, owners: &Owners) -> Vec<Vec<u8>> {
    let mut records = Vec::new();
    node.carry(owners, b"beside", &mut |record| records.push(record));
    let (last, others) = records.split_last().expect("records");
    assert!(others.iter().all(|it| it.len() == RECORD_BYTES_MAX));
    assert!((1..=RECORD_BYTES_MAX).contains(&last.len()));
    records
}

impl Toy {
    /// Another process goes on, and after it perhaps one more.
    fn is_carried(&mut self, at: usize, incarnation: u64, times: u64) {
        let now = Millis(self.now);
        let Some(node) = &mut self.stations[at].node else {
            return;
        };
        for keys in 0..times {
            let setup = setup_of(at, incarnation, 100 + keys);
            let owners = Owners::new(setup.identity, TIMES.lease_ms);
            let records = records_of(node, &owners);
            let carried = Node::carried(now, setup, &records);
            let carried = carried.expect("the records are whole");
            assert_eq!(carried.beside, b"beside");
            let again = records_of(&carried.node, &carried.owners);
            assert_eq!(again, records, "nothing is left out");
            *node = carried.node;
        }
    }

    /// All that may be seen of a node, and of what it told.
    fn seen(&mut self, at: usize) -> String {
        let station = &self.stations[at];
        let node = station.node.as_ref();
        let node = node.map(|node| {
            let peers = node.peers().map(|it| {
                let said = (it.name, it.program, it.connections, it.founded_at);
                (it.identity, said, it.version, it.heard_at, it.behind)
            });
            let fresh = (node.is_fresh(), node.bus(), node.next_tick());
            format!("{:?} {fresh:?}", peers.collect::<Vec<_>>())
        });
        let told = (&station.view, &station.terminated, &station.effects);
        format!("{node:?} {told:?} {:?}", station.heard)
    }
}

#[derive(PartialEq)]
struct Run {
    sent: Vec<(usize, Topic, Vec<u8>)>,
    /// After each step of each node.
    seen: Vec<String>,
}

/// Does all of it, with nodes that are carried or not.
fn run(seed: u64, work_limit: usize, deeds: &[(StateDeed, u64)], are_carried: bool) -> Run {
    let mut toy = Toy::new(3, seed);
    let mut incarnations = [1; 3];
    toy.faults = Faults {
        delay_ms_max: 60,
        lost: 20,
        doubled: 100,
        disordered: 30,
        ..Faults::default()
    };
    toy.work_limit = work_limit;
    let mut seen = Vec::new();
    let mut number = 0;
    for (deed, ms) in deeds {
        number += 1;
        toy.does_state(deed.of(3), number, &mut incarnations);
        let end = toy.now + ms;
        loop {
            // Chance of its own: that of the run goes on as ever.
            let chance = (seed ^ toy.now).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
            if are_carried && chance.is_multiple_of(4) {
                let at = (chance / 4 % 3) as usize;
                toy.is_carried(at, incarnations[at], 1 + chance / 12 % 2);
            }
            if toy.now >= end {
                break;
            }
            toy.until(toy.now + 10);
        }
        seen.extend((0..3).map(|at| toy.seen(at)));
        if number.is_multiple_of(8) {
            for station in &mut toy.stations {
                station.effects.clear();
                station.heard.clear();
            }
        }
    }
    let sent = toy.sent;
    Run { sent, seen }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn a_node_that_is_carried_does_what_it_would_have_done(
        deeds in prop::collection::vec((state_deed(), 0_u64..150), 1..120),
        seed: u64,
        work_limit in 1_usize..20,
    ) {
        let expected = run(seed, work_limit, &deeds, false);
        let found = run(seed, work_limit, &deeds, true);
        for (number, pair) in expected.seen.iter().zip(&found.seen).enumerate() {
            prop_assert_eq!(pair.0, pair.1, "after step {}", number / 3);
        }
        prop_assert!(expected == found);
    }

    #[test]
    fn records_that_are_broken_anywhere_give_a_reason_and_never_a_panic(
        deeds in prop::collection::vec((state_deed(), 0_u64..150), 1..60),
        seed: u64,
        wrong in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut: prop::sample::Index,
    ) {
        let mut toy = Toy::new(3, seed);
        toy.faults.lost = 50;
        let mut incarnations = [1; 3];
        for (number, (deed, ms)) in (0..).zip(deeds) {
            toy.does_state(deed.of(3), number, &mut incarnations);
            toy.until(toy.now + ms);
        }
        let (now, incarnation) = (Millis(toy.now), incarnations[0]);
        let Some(node) = &toy.stations[0].node else {
            return Ok(());
        };
        let setup = || setup_of(0, incarnation, 7);
        let owners = Owners::new(setup().identity, TIMES.lease_ms);
        let mut bytes = records_of(node, &owners).concat();
        let cut = Node::carried(now, setup(), [&bytes[..cut.index(bytes.len())]]);
        prop_assert!(cut.is_err());
        for (at, byte) in wrong {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        // Whatever came out of it.
        drop(Node::carried(now, setup(), [&bytes]));
    }
}

#[test]
fn records_of_another_life_or_another_node_are_refused() {
    let mut toy = Toy::new(2, 1);
    toy.until(1_000);
    let owners = Owners::new(identity_of(0, 1), TIMES.lease_ms);
    let records = records_of(toy.node(0), &owners);
    for (at, incarnation, is_taken) in [(0, 1, true), (0, 2, false), (1, 1, false)] {
        let found = Node::carried(Millis(1_000), setup_of(at, incarnation, 7), &records);
        match (found, is_taken) {
            (Ok(_), true) | (Err(CarryError::OtherNode), false) => {}
            (found, _) => panic!("{at} {incarnation}: {:?}", found.map(|_| ())),
        }
    }
    let none: [Vec<u8>; 0] = [];
    let found = Node::carried(Millis(0), setup_of(0, 1, 7), none);
    assert!(matches!(found, Err(CarryError::Cut)));
}

/// Names and infos that make many records, of which some go over the end of an item.
#[test]
fn much_that_is_held_is_carried_whole() {
    let mut toy = Toy::new(3, 1);
    toy.until(2_500);
    let long = "x".repeat(3_000);
    for number in 0..2_000_u32 {
        let name = format!("c-{number}-{}", &long[..number as usize % 300]);
        for at in 0..2 {
            toy.report(at, &name, OwnChange::Subscriptions(1 + number));
            let (user_id, info) = (&number.to_string().into(), &long[at..].into());
            toy.report(at, "presence", OwnChange::MemberJoined { user_id, info });
        }
        if number.is_multiple_of(50) {
            toy.until(toy.now + 10);
        }
    }
    toy.until(toy.now + 1_000);
    for at in 0..3 {
        toy.is_carried(at, 1, 1);
    }
    let held = [0, 2].map(|at| toy.node(at).state_counters());
    assert_eq!(held[0].own.held.members, 2_000);
    assert_eq!(
        (held[1].view.held.members, held[1].view.held.channels),
        (2_000, 2_001)
    );
    // It is the one that the others know: whoever goes takes what is its own, and no more.
    toy.node(0).goodbye();
    toy.until(toy.now + 3_000);
    let held = toy.node(2).state_counters().view.held;
    assert_eq!((held.members, held.channels), (2_000, 2_001));
    assert_eq!(toy.stations[2].view.leaves, 0);
    toy.node(1).goodbye();
    toy.until(toy.now + 3_000);
    let held = toy.node(2).state_counters().view.held;
    assert_eq!((held.bytes, held.members, held.channels), (0, 0, 0));
}

#[test]
fn a_node_that_listens_before_it_speaks_goes_on_to_listen() {
    let begin = |is_carried: bool| {
        let mut node = Node::listening(Millis(0), setup_of(0, 1, 7), Name::Given);
        let mut said = Vec::new();
        node.publish(&event(1, b"waits")).expect("there is room");
        for now in (0..5_000).step_by(100) {
            if now == 300 {
                node.listens(Millis(now), true);
            }
            node.tick(Millis(now), &mut Vec::new());
            node.take_batches(|topic, batch| said.push((now, topic, batch)));
            if is_carried {
                let owners = Owners::new(identity_of(0, 1), TIMES.lease_ms);
                let records = records_of(&node, &owners);
                let carried = Node::carried(Millis(now), setup_of(0, 1, now), &records);
                node = carried.expect("the records are whole").node;
            }
            said.push((now, Topic::Echo, format!("{}", node.has_started()).into()));
        }
        said
    };
    assert!(begin(false) == begin(true));
}

#[test]
fn whose_partitions_are_whose_is_carried() {
    let run = |is_carried: bool| {
        let mut owners = Owners::new(identity_of(0, 5), TIMES.lease_ms);
        let mut changes: Vec<Change> = Vec::new();
        for step in 0..400_u64 {
            let now = Millis(step * 100);
            let other = |number: u64| identity_of(1 + (number % 4) as usize, 1 + step / 100 * 10);
            match step {
                0 => owners.came(identity_of(0, 5), now),
                _ if step % 29 == 1 => owners.came(other(step / 29), now),
                _ if step % 83 == 5 => changes.extend(owners.went(other(step / 83).node, now)),
                _ if step % 2 == 0 => owners.heard(other(step).node, now),
                _ => owners.set_deaf(now, step % 90 < 5),
            }
            changes.extend(owners.step(now));
            if is_carried {
                let node = Node::new(now, setup_of(0, 5, 1));
                let records = records_of(&node, &owners);
                let carried = Node::carried(now, setup_of(0, 5, 2), &records);
                owners = carried.expect("the records are whole").owners;
            }
        }
        changes
    };
    let changes = run(true);
    assert!(changes.len() > 5, "{}", changes.len());
    assert_eq!(changes, run(false));
}

#[test]
fn a_peer_that_dies_before_a_node_is_carried_ends_with_its_lease() {
    let mut toy = Toy::new(2, 1);
    toy.until(2_000);
    toy.stations[1].node = None;
    toy.until(2_500);
    assert_eq!(toy.node(0).peers().count(), 1);
    toy.is_carried(0, 1, 1);
    toy.until(2_500 + 2 * TIMES.lease_ms);
    assert_eq!(toy.node(0).peers().count(), 0);
}

#[test]
fn what_a_node_says_and_hears_around_its_carrying_is_heard_once() {
    let mut toy = Toy::new(2, 1);
    toy.until(2_000);
    for frame in [&b"before"[..], b"after"] {
        for at in 0..2 {
            toy.publish(at, 7, frame);
        }
        toy.until(toy.now + 500);
        toy.is_carried(0, 1, 1);
        // The process that goes on has kept all of it.
        for (from, topic, bytes) in toy.sent.clone() {
            if from != 0 {
                toy.hear(0, topic, &bytes);
            }
        }
    }
    for at in 0..2 {
        let heard = &toy.stations[at].heard;
        let frames: Vec<&[u8]> = heard.iter().map(|(_, frame)| &**frame).collect();
        assert_eq!(frames, [&b"before"[..], b"after"], "{at}");
    }
}

#[test]
fn each_fault_that_is_planted_in_what_is_carried_is_found() {
    let scenarios: [fn(); 4] = [
        a_peer_that_dies_before_a_node_is_carried_ends_with_its_lease,
        what_a_node_says_and_hears_around_its_carrying_is_heard_once,
        whose_partitions_are_whose_is_carried,
        much_that_is_held_is_carried_whole,
    ];
    for fault in OF_CARRYING {
        let found = scenarios.iter().any(|scenario| {
            let _planted = Planted::new(fault);
            std::panic::catch_unwind(scenario).is_err()
        });
        assert!(found, "{fault:?}");
    }
}
