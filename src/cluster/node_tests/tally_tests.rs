//! What a node counts of each of its peers, and of what it says and hears.

use super::*;
use crate::cluster::tallies::Tally;

impl Toy {
    /// By name.
    fn tallies(&mut self, at: usize) -> BTreeMap<String, Tally> {
        let (rows, others) = self.node(at).tallies();
        assert_eq!(others, None, "few have gone");
        rows.map(|(_, name, tally)| (name.to_owned(), *tally))
            .collect()
    }

    fn expired(&mut self, at: usize) -> usize {
        let now = Millis(self.now);
        self.node(at).expired(now)
    }
}

fn rows<const N: usize>(rows: [(usize, Tally); N]) -> BTreeMap<String, Tally> {
    rows.map(|(at, tally)| (name_of(at), tally)).into()
}

#[test]
fn what_is_missed_asked_for_and_sent_is_counted_of_the_peer_that_it_concerns() {
    let mut toy = Toy::new(3, 1);
    toy.until(2_500);
    toy.count(0, "a", 1);
    toy.until(4_500);
    let none = Tally::default();
    assert_eq!(toy.tallies(1), rows([(0, none), (2, none)]));
    toy.loses(|toy| toy.count(0, "a", 0));
    toy.until(toy.now + 2_600);
    let missed = Tally {
        gaps: 1,
        snapshots_merged: 1,
        ..none
    };
    assert_eq!(toy.tallies(1), rows([(0, missed), (2, none)]));
    assert_eq!(toy.tallies(2), rows([(0, missed), (1, none)]));
    // One snapshot served both.
    let sent = Tally {
        snapshots_sent: 1,
        ..none
    };
    assert_eq!(toy.tallies(0), rows([(1, sent), (2, none)]));
}

#[test]
fn a_node_that_died_is_shown_as_expired_until_it_is_heard_again() {
    let mut toy = Toy::new(3, 1);
    toy.until(4_500);
    toy.stations[0].node = None;
    toy.until(toy.now + 2 * TIMES.lease_ms);
    let none = Tally::default();
    let died = Tally {
        lease_expiries: 1,
        ..none
    };
    assert_eq!(toy.tallies(1), rows([(0, died), (2, none)]));
    assert_eq!(toy.expired(1), 1);
    toy.restart(0, 2);
    toy.until(toy.now + 3_000);
    assert_eq!(toy.tallies(1), rows([(0, died), (2, none)]));
    assert_eq!((toy.expired(1), toy.expired(0)), (0, 0));
    // Who says goodbye has not expired.
    toy.node(2).goodbye();
    toy.until(toy.now + 2 * TIMES.lease_ms);
    assert_eq!(toy.tallies(1), rows([(0, died), (2, none)]));
    assert_eq!(toy.expired(1), 0);
}

#[test]
fn what_is_said_is_counted_by_its_kind_as_it_is_heard() {
    let mut toy = Toy::new(2, 1);
    toy.until(2_500);
    toy.count(0, "a", 1);
    toy.until(4_500);
    toy.loses(|toy| toy.count(0, "a", 0));
    toy.until(toy.now + 2_600);
    let said = [0, 1].map(|at| toy.node(at).entries_said());
    let heard = [0, 1].map(|at| toy.counters(at).entries_heard);
    assert_eq!(said[0], heard[1]);
    assert_eq!(said[1], heard[0]);
    // For the numbers of a group, and for one partition.
    assert_eq!((said[1].requests, said[1].snapshots), (2, 0));
    assert_eq!((said[0].requests, said[0].snapshots), (0, 1));
    assert!(said[0].heartbeats >= 7, "{said:?}");
    assert!(said[0].others >= 2, "a hello, and the latest number");
}

#[test]
fn a_member_is_told_to_have_expired_only_where_the_lease_of_its_last_node_ran_out() {
    let mut toy = Toy::new(4, 1);
    toy.until(2_500);
    for (at, user_id) in [(0, "dies"), (0, "both"), (1, "both"), (2, "leaves")] {
        toy.join(at, "presence-a", user_id, "{}");
    }
    toy.join(1, "presence-a", "restarts", "{}");
    toy.until(toy.now + 1_000);
    toy.stations[0].node = None;
    toy.until(toy.now + 2 * TIMES.lease_ms);
    let told = |toy: &Toy| {
        let view = &toy.stations[3].view;
        (view.leaves, view.expiries)
    };
    // The other one is on a node that lives.
    assert_eq!(told(&toy), (1, 1));
    toy.node(2).goodbye();
    toy.until(toy.now + 1_000);
    toy.stations[2].node = None;
    assert_eq!(told(&toy), (2, 1));
    toy.restart(1, 2);
    toy.until(toy.now + 2 * TIMES.lease_ms);
    assert_eq!(told(&toy), (4, 1));
}
