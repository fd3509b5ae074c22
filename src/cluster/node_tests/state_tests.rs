//! The state of nodes that are joined by a toy bus: at rest all hold what the others hold.

use std::{collections::BTreeSet, sync::Arc};

use super::*;
use crate::{
    cluster::{
        change::Change,
        entry::{Delta, GROUPS, Group},
        fault::{OF_STATE, Planted},
        ledger::{Own, OwnChange},
    },
    protocol::partition::AppPartitions,
};

impl Toy {
    pub(super) fn report(&mut self, at: usize, name: &str, change: OwnChange<'_>) {
        let partitions = AppPartitions::of_app("app");
        let partition = match change {
            OwnChange::UserOnline | OwnChange::UserOffline => partitions.of_user(name),
            OwnChange::Subscriptions(_)
            | OwnChange::MemberJoined { .. }
            | OwnChange::MemberLeft { .. }
            | OwnChange::EventKept
            | OwnChange::EventForgotten => partitions.of_channel(name),
            OwnChange::Connections(_) => partitions.own(),
        };
        let station = &mut self.stations[at];
        station.own.note(name, change);
        let own = Own {
            partition,
            app: "app",
            name: &Arc::from(name),
            change,
        };
        let node = station.node.as_mut().expect("it lives");
        node.report(Millis(self.now), &own);
    }

    pub(super) fn count(&mut self, at: usize, name: &str, count: u32) {
        self.report(at, name, OwnChange::Subscriptions(count));
    }

    pub(super) fn join(&mut self, at: usize, name: &str, user_id: &str, info: &str) {
        let (user_id, info) = (&user_id.into(), &info.into());
        self.report(at, name, OwnChange::MemberJoined { user_id, info });
    }

    pub(super) fn leave(&mut self, at: usize, name: &str, user_id: &str) {
        let user_id = &user_id.into();
        self.report(at, name, OwnChange::MemberLeft { user_id });
    }

    /// Each node that lives holds what the others that live hold of themselves.
    #[track_caller]
    pub(super) fn agrees(&self) {
        for (at, station) in self.stations.iter().enumerate() {
            if station.node.is_none() {
                continue;
            }
            let others = self.stations.iter().enumerate();
            let others = others.filter(|(it, other)| *it != at && other.node.is_some());
            let others: Vec<_> = others.map(|(_, other)| &other.own).collect();
            station.view.is_union_of(&others);
        }
    }

    pub(super) fn state_counters(&mut self, at: usize) -> crate::cluster::state::StateCounters {
        self.node(at).state_counters()
    }

    /// Loses what a node sends from now on, until it is sent.
    pub(super) fn loses(&mut self, deed: impl FnOnce(&mut Self)) {
        let before = self.faults;
        self.until(self.now + 10);
        self.faults.lost = 1_000;
        deed(self);
        self.until(self.now + 10);
        self.faults = before;
    }
}

#[test]
fn what_one_node_holds_all_others_hold() {
    let mut toy = Toy::new(3, 1);
    toy.until(2_500);
    toy.count(0, "news", 1);
    toy.count(1, "news", 2);
    toy.join(0, "presence-a", "u", "{}");
    toy.join(1, "presence-a", "u", "{\"n\":1}");
    toy.join(1, "presence-a", "v", "{}");
    toy.report(1, "u", OwnChange::UserOnline);
    toy.report(2, "u", OwnChange::UserOnline);
    toy.until(2_600);
    toy.agrees();
    assert_eq!(toy.stations[2].view.counts["news"], 3);
    let key = ("presence-a".to_owned(), "u".to_owned());
    assert_eq!(toy.stations[2].view.members[&key], "{}");
    // The user stays, with the info of who has it still.
    toy.leave(0, "presence-a", "u");
    toy.report(1, "u", OwnChange::UserOffline);
    toy.until(2_700);
    toy.agrees();
    assert_eq!(toy.stations[2].view.members[&key], "{\"n\":1}");
    assert_eq!(
        (toy.stations[2].view.joins, toy.stations[2].view.leaves),
        (2, 0)
    );
    for at in 0..3 {
        let state = toy.state_counters(at);
        assert_eq!((state.view.gaps, state.view.snapshots_asked), (0, 0));
    }
    toy.node(0).terminate("app", "u").expect("it fits");
    toy.until(2_800);
    let terminated = toy.stations.iter().map(|station| station.terminated.len());
    assert_eq!(terminated.collect::<Vec<_>>(), [0, 1, 1]);
}

#[test]
fn an_app_that_becomes_known_is_told_whole_and_one_that_is_forgotten_as_nothing() {
    let mut toy = Toy::new(3, 1);
    toy.until(2_500);
    for number in 0..500 {
        toy.count(0, &format!("c-{number}"), number + 1);
        toy.join(1, "presence-a", &number.to_string(), "{}");
    }
    toy.report(0, "u", OwnChange::UserOnline);
    toy.report(1, "", OwnChange::Connections(7));
    toy.report(1, "cache-a", OwnChange::EventKept);
    toy.until(4_000);
    toy.agrees();
    let known = toy.stations[2].view.clone();
    let node = toy.node(2);
    for limit in [1, 7, 100_000] {
        // Whoever takes it, `Watched` panics at what is told twice.
        let (mut told, mut untold) = (Watched::default(), known.clone());
        node.app_came("app");
        node.app_came("another"); // Of which nobody has anything.
        while node.next_views(limit, |view| told.take(&view)) {}
        assert_eq!(told.members, known.members);
        assert_eq!((&told.counts, &told.users), (&known.counts, &known.users));
        assert_eq!(told.kept, known.kept);
        node.app_went("app");
        while node.next_views(limit, |view| untold.take(&view)) {}
        assert!(untold.members.is_empty() && untold.counts.is_empty());
        assert!(untold.users.is_empty() && untold.kept.is_empty());
        // The last word counts, wherever the walk was.
        let mut names = BTreeSet::new();
        node.app_went("app");
        node.next_views(limit, |_| {});
        node.app_came("app");
        while node.next_views(limit, |view| {
            assert!(!view.change.is_nothing());
            names.insert(view.name.to_string());
        }) {}
        assert_eq!(
            names.len(),
            500 + 4,
            "channels, a user, the app, what is kept"
        );
    }
}

#[test]
fn a_count_is_told_ten_times_per_second_and_what_is_vacant_at_once() {
    let mut toy = Toy::new(2, 1);
    toy.until(2_500);
    for count in 1..=500 {
        toy.count(0, "news", count);
        toy.until(toy.now + 10);
    }
    let told = toy.stations[1].view.changes;
    assert!((40..=52).contains(&told), "{told}");
    toy.until(toy.now + 200);
    toy.agrees();
    let told = toy.stations[1].view.changes;
    toy.count(0, "news", 501);
    toy.count(0, "news", 0);
    toy.until(toy.now + 20);
    assert!(toy.stations[1].view.counts.is_empty());
    toy.until(toy.now + 1_000);
    assert!(toy.stations[1].view.changes <= told + 3);
    toy.agrees();
}

#[test]
fn whoever_comes_later_is_told_what_is_there_without_a_gap() {
    let mut toy = Toy::new(3, 1);
    toy.stations[2].node = None;
    for number in 0..3_000 {
        toy.count(0, &format!("c-{number}"), number % 7 + 1);
        toy.join(
            1,
            &format!("presence-{}", number % 50),
            &number.to_string(),
            "{}",
        );
    }
    toy.until(2_000);
    toy.restart(2, 1);
    toy.until(6_000);
    toy.agrees();
    let asked = toy.state_counters(2).view;
    assert_eq!(asked.wanted, 0);
    assert!(asked.snapshots_asked >= 900, "{asked:?}");
    assert_eq!(asked.snapshots_merged, asked.snapshots_asked);
    // What it asks for reaches the others too, which need nothing.
    assert_eq!(toy.state_counters(1).view.snapshots_merged, 0);
}

#[test]
fn a_gap_is_found_and_only_its_partition_is_asked_for() {
    let mut toy = Toy::new(2, 1);
    toy.until(2_500);
    for number in 0..200 {
        toy.count(0, &format!("c-{number}"), 1);
    }
    toy.join(0, "presence-a", "u", "{}");
    toy.join(0, "presence-a", "stays", "{}");
    toy.until(3_500);
    toy.loses(|toy| toy.join(0, "presence-a", "v", "{}"));
    toy.leave(0, "presence-a", "stays");
    toy.join(0, "presence-a", "stays", "{}");
    toy.leave(0, "presence-a", "u");
    toy.until(toy.now + 200);
    toy.agrees();
    let view = toy.state_counters(1).view;
    assert_eq!(
        (view.gaps, view.snapshots_asked, view.snapshots_merged),
        (1, 1, 1)
    );
    assert_eq!((view.deltas_held, view.wanted), (3, 0));
    // Nobody left and came back.
    let seen = &toy.stations[1].view;
    assert_eq!((seen.joins, seen.leaves), (3, 1));
    assert_eq!(toy.state_counters(0).supply.snapshots_sent, 1);
}

#[test]
fn a_last_delta_that_is_lost_is_found_by_the_sums() {
    let mut toy = Toy::new(3, 1);
    toy.until(2_500);
    toy.count(0, "a", 1);
    toy.until(4_500);
    toy.loses(|toy| toy.count(0, "a", 0));
    toy.until(toy.now + 2_600);
    toy.agrees();
    for at in [1, 2] {
        let view = toy.state_counters(at).view;
        assert_eq!((view.gaps, view.snapshots_merged), (1, 1), "{at}");
    }
    let supply = toy.state_counters(0).supply;
    assert_eq!(
        (supply.numbers_told, supply.snapshots_sent),
        (1, 1),
        "{supply:?}"
    );
}

#[test]
fn a_question_and_an_answer_that_are_lost_are_repeated() {
    let mut toy = Toy::new(2, 1);
    toy.until(2_500);
    toy.count(0, "a", 1);
    toy.until(4_500);
    toy.loses(|toy| toy.count(0, "a", 2));
    toy.until(toy.now + 200);
    toy.count(0, "a", 3);
    toy.until(toy.now + 10);
    // The question goes with the next step.
    toy.faults.lost = 1_000;
    toy.until(toy.now + 1_000);
    toy.faults.lost = 0;
    toy.until(toy.now + 2_500);
    toy.agrees();
    assert!(toy.state_counters(1).view.snapshots_asked >= 2);
}

#[test]
fn a_peer_that_is_expelled_leaves_once_in_slices_however_much_it_held() {
    let mut toy = Toy::new(3, 1);
    toy.work_limit = 700;
    toy.until(2_500);
    for number in 0..100_000 {
        toy.count(0, &format!("c-{number}"), 1);
    }
    for number in 0..20_000 {
        toy.join(0, "presence-a", &number.to_string(), "{}");
        if number % 4 == 0 {
            toy.join(1, "presence-a", &number.to_string(), "{}");
        }
    }
    toy.until(3_000);
    toy.agrees();
    let before = toy.stations[2].view.changes;
    toy.stations[0].node = None;
    let mut steps = 0;
    while toy.now < 14_000 {
        toy.until(toy.now + 10);
        let after = toy.stations[2].view.changes;
        steps +=
            u64::from(after != before && steps < 1_000 && !toy.stations[2].view.counts.is_empty());
    }
    toy.agrees();
    assert_eq!(toy.stations[2].view.leaves, 15_000);
    assert_eq!(toy.stations[2].view.changes - before, 115_000);
    assert!(steps > 100, "{steps}");
    let held = toy.state_counters(2).view.held;
    assert_eq!((held.channels, held.members), (1, 5_000));
}

#[test]
fn who_starts_anew_and_has_the_same_again_is_never_missing() {
    let mut toy = Toy::new(2, 1);
    toy.until(2_500);
    for number in 0..50 {
        toy.join(0, "presence-a", &number.to_string(), "{}");
    }
    toy.until(3_000);
    toy.work_limit = 1;
    toy.restart(0, 2);
    for number in 0..20 {
        toy.join(0, "presence-a", &number.to_string(), "{}");
    }
    toy.until(8_000);
    toy.agrees();
    assert_eq!(toy.state_counters(1).view.held.members, 20);
    // What it has again before the old entries are gone was never missing.
    assert_eq!(toy.stations[1].view.leaves, 30);
}

#[test]
fn deltas_that_are_faster_than_the_snapshot_are_taken_behind_it() {
    let mut toy = Toy::new(2, 1);
    toy.until(2_500);
    toy.join(0, "presence-a", "0", "{}");
    toy.until(2_600);
    toy.faults.delay_ms_max = 1;
    toy.loses(|toy| toy.leave(0, "presence-a", "0"));
    for number in 1..20 {
        toy.join(0, "presence-a", &number.to_string(), "{}");
        toy.until(toy.now + 10);
    }
    toy.until(toy.now + 100);
    toy.agrees();
    let view = toy.state_counters(1).view;
    assert_eq!((view.gaps, view.snapshots_merged), (1, 1), "{view:?}");
    assert!(view.deltas_held >= 2, "{view:?}");
}

#[test]
fn a_snapshot_comes_in_parts_and_only_whole() {
    let mut toy = Toy::new(3, 1);
    toy.stations[1].node = None;
    toy.stations[2].node = None;
    let info = "x".repeat(20_000);
    for number in 0..200 {
        toy.join(0, "presence-a", &number.to_string(), &info);
    }
    toy.until(100);
    toy.restart(1, 1);
    toy.restart(2, 1);
    toy.until(3_000);
    toy.agrees();
    let supply = toy.state_counters(0).supply;
    // Both asked at a time.
    assert_eq!(
        (supply.snapshots_sent, supply.snapshot_asks_heard),
        (1, 2),
        "{supply:?}"
    );
    assert!(supply.snapshot_bytes_sent > 4_000_000);
    // A middle part is lost.
    toy.restart(2, 2);
    let sent = toy.sent.len();
    while toy.state_counters(2).view.snapshot_bytes_heard == 0 {
        toy.until(toy.now + 10);
        assert!(toy.now < 8_000);
    }
    toy.faults.lost = 1_000;
    toy.until(toy.now + 20);
    toy.faults.lost = 0;
    assert!(toy.sent.len() > sent);
    toy.until(toy.now + 5_000);
    toy.agrees();
    assert_eq!(toy.state_counters(2).view.snapshots_merged, 1);
}

#[test]
fn a_node_that_was_stopped_for_long_is_whole_again() {
    let mut toy = Toy::new(3, 1);
    toy.until(2_500);
    for number in 0..300 {
        toy.count(0, &format!("c-{number}"), 1);
        toy.join(1, "presence-a", &number.to_string(), "{}");
    }
    toy.until(3_000);
    toy.stations[0].is_stopped = true;
    toy.until(12_000);
    assert!(toy.stations[1].view.counts.is_empty());
    toy.leave(1, "presence-a", "7");
    toy.stations[0].is_stopped = false;
    toy.until(22_000);
    toy.agrees();
    // It expelled nobody itself.
    assert_eq!(toy.stations[0].view.leaves, 1);
}

#[test]
fn what_peers_hold_takes_no_more_than_its_place() {
    let mut toy = Toy::new(2, 1);
    toy.until(2_500);
    toy.stations[0].node = None;
    toy.until(12_000);
    toy.restart(0, 2);
    let node = node_with(toy.now, 0, 2, secret(), 10_000);
    toy.stations[0].node = Some(node);
    for number in 0..200 {
        toy.count(1, &format!("c-{number}"), 1);
        toy.join(1, "c-0", &number.to_string(), "{}");
    }
    toy.until(16_000);
    let held = toy.state_counters(0).view.held;
    assert!(held.bytes <= 10_000 && held.refused > 200, "{held:?}");
    // What goes makes room.
    for number in 0..200 {
        toy.count(1, &format!("c-{number}"), 0);
        toy.leave(1, "c-0", &number.to_string());
    }
    toy.until(17_000);
    let held = toy.state_counters(0).view.held;
    assert_eq!((held.bytes, held.channels, held.members), (0, 0, 0));
}

#[test]
fn what_is_unknown_or_belongs_elsewhere_keeps_its_number_and_is_not_held() {
    let partition = AppPartitions::of_app("app").of_channel("c-0");
    let count = |channel| Change::Subscriptions {
        app: "app",
        channel,
        count: 1,
    };
    let changes = [
        count("elsewhere"),
        Change::Unknown { tag: 99 },
        count("c-0"),
    ];
    let entries: Vec<_> = (1..)
        .zip(changes)
        .map(|(number, change)| {
            Entry::Delta(Delta {
                partition,
                number,
                change,
            })
        })
        .collect();
    let topic = Topic::State(Group::of(partition));
    let other = Group::from_number((Group::of(partition).number() + 1) % GROUPS as u8);
    let other = Topic::State(other.expect("a group"));
    let mut node = node_of(0, 1, 1, secret());
    let (mut effects, mut view) = (Vec::new(), Watched::default());
    for topic in [other, topic] {
        let bytes = batch_of(topic, 1, &secret(), &entries);
        node.hear(Millis(0), topic, &bytes, &mut effects, |heard| {
            if let Heard::View(change) = heard {
                view.take(&change);
            }
        });
    }
    assert_eq!(
        view.counts.into_iter().collect::<Vec<_>>(),
        [("c-0".to_owned(), 1)]
    );
    assert_eq!(node.counters().entries_misplaced, 3);
    let counters = node.state_counters().view;
    assert_eq!(
        (
            counters.deltas_applied,
            counters.gaps,
            counters.changes_unknown
        ),
        (3, 0, 1)
    );
    assert_eq!(counters.changes_misplaced, 1);
}

/// What a channel and a member cost on a node that another one told of them.
#[test]
fn what_a_channel_and_a_member_cost_is_bounded() {
    let cost = |channels: usize, members: usize, holders: u16| {
        let mut holdings = crate::cluster::holdings::tests::holdings();
        holdings.fill(channels, members, holders);
        holdings.bytes_beyond_texts()
    };
    let empty = cost(0, 0, 0);
    for channels in [100_000, 150_000, 200_000] {
        let each = (cost(channels, 0, 1) - empty) as f64 / channels as f64;
        assert!(each <= 96.0, "{each}");
    }
    for members in [10, 100, 1_000, 30_000] {
        let each = (cost(100, members, 1) - cost(100, 0, 1)) as f64 / (100 * members) as f64;
        assert!(each <= 96.0, "{members}: {each}");
    }
    for holders in 2..6 {
        let holdings = 10_000 * usize::from(holders);
        let each = (cost(10_000, 0, holders) - empty) as f64 / holdings as f64;
        assert!(each <= 96.0, "a channel on {holders} nodes: {each}");
        let members = cost(100, 100, holders) - cost(100, 0, holders);
        let each = members as f64 / holdings as f64;
        assert!(each <= 96.0, "a member on {holders} nodes: {each}");
    }
}

#[test]
fn each_planted_fault_is_found() {
    let scenarios: [(&str, fn()); 9] = [
        ("all hold", what_one_node_holds_all_others_hold),
        (
            "counts",
            a_count_is_told_ten_times_per_second_and_what_is_vacant_at_once,
        ),
        ("gap", a_gap_is_found_and_only_its_partition_is_asked_for),
        ("sums", a_last_delta_that_is_lost_is_found_by_the_sums),
        ("again", a_question_and_an_answer_that_are_lost_are_repeated),
        (
            "anew",
            who_starts_anew_and_has_the_same_again_is_never_missing,
        ),
        (
            "behind",
            deltas_that_are_faster_than_the_snapshot_are_taken_behind_it,
        ),
        ("parts", a_snapshot_comes_in_parts_and_only_whole),
        ("stopped", a_node_that_was_stopped_for_long_is_whole_again),
    ];
    for fault in OF_STATE {
        let mut found = Vec::new();
        for (name, scenario) in scenarios {
            let _planted = Planted::new(fault);
            if std::panic::catch_unwind(scenario).is_err() {
                found.push(name);
            }
        }
        assert!(!found.is_empty(), "{fault:?}");
    }
}
