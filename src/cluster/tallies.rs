//! What is counted of each peer for metrics, by its node and through all of its lives.
//!
//! Owns: `Tallies`: a row for each peer that is there and for those that went last, and the sum of all others.
//! May depend on: `cluster::identity`, `Millis`.
//! Invariants: at most `GONE_MAX` rows are of peers that are gone; the row of a peer that is there never shrinks; nothing
//! that was counted is lost: what a forgotten row had stays in the sum of the others.

use std::collections::{BTreeMap, VecDeque};

use shards::application::Millis;

use super::identity::NodeId;

/// What happened with one peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Partitions of it of which something was found to be missing.
    pub gaps: u64,
    /// Snapshots that were sent, for which it was the first to ask.
    pub snapshots_sent: u64,
    /// Snapshots of it that were merged.
    pub snapshots_merged: u64,
    /// Entries of kinds of a later version.
    pub entries_unknown: u64,
    /// Times that it was silent for a lease.
    pub lease_expiries: u64,
}

/// How a peer went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gone {
    Goodbye,
    Expired { at: Millis },
}

/// By node.
#[derive(Debug, Default)]
pub(super) struct Tallies {
    /// At most as many as membership knows, and `GONE_MAX`.
    rows: BTreeMap<NodeId, Row>,
    /// Nodes of those rows whose peers are gone, the one that went first in front.
    gone: VecDeque<NodeId>,
    /// Of rows that are forgotten; `None`: there were none.
    others: Option<Tally>,
}

#[derive(Debug, Default)]
struct Row {
    tally: Tally,
    /// `None` while the peer is there; else its name too, which may be empty.
    gone: Option<(Gone, Box<str>)>,
}

impl Tallies {
    /// A peer is there, perhaps again.
    pub(super) fn came(&mut self, node: NodeId) {
        self.gone.retain(|it| *it != node);
        self.rows.entry(node).or_default().gone = None;
    }

    /// A peer that was there is not any more.
    pub(super) fn went(&mut self, node: NodeId, name: &str, gone: Gone) {
        let Some(row) = self.rows.get_mut(&node) else {
            return;
        };
        row.tally.lease_expiries += u64::from(gone != Gone::Goodbye);
        row.gone = Some((gone, name.into()));
        self.gone.push_back(node);
        if self.gone.len() > GONE_MAX
            && let Some(row) = self.gone.pop_front().and_then(|it| self.rows.remove(&it))
        {
            self.others.get_or_insert_default().absorb(&row.tally);
        }
    }

    /// Where to count for a node, whether its row is there or was forgotten.
    pub(super) fn of(&mut self, node: NodeId) -> &mut Tally {
        match self.rows.get_mut(&node) {
            Some(row) => &mut row.tally,
            None => self.others.get_or_insert_default(),
        }
    }

    /// By node, with the names of those that are gone.
    pub(super) fn rows(&self) -> impl Iterator<Item = (NodeId, Option<&str>, &Tally)> {
        self.rows.iter().map(|(node, row)| {
            let name = row.gone.as_ref().map(|(_, name)| &**name);
            (*node, name, &row.tally)
        })
    }

    /// `None`: there are none.
    pub(super) fn others(&self) -> Option<Tally> {
        self.others
    }

    /// Peers whose lease has run out a short while ago, and that were not heard since.
    pub(super) fn expired(&self, now: Millis) -> usize {
        let rows = self.rows.values().filter_map(|row| row.gone.as_ref());
        rows.filter(|(gone, _)| match gone {
            Gone::Goodbye => false,
            Gone::Expired { at } => now.since(*at) < EXPIRED_MS,
        })
        .count()
    }
}

impl Tally {
    /// Adds what was counted of another peer.
    pub fn absorb(&mut self, other: &Self) {
        self.gaps += other.gaps;
        self.snapshots_sent += other.snapshots_sent;
        self.snapshots_merged += other.snapshots_merged;
        self.entries_unknown += other.entries_unknown;
        self.lease_expiries += other.lease_expiries;
    }
}

/// Peers that are gone and have rows. Nodes whose names are left to chance come under new ones for ever.
pub const GONE_MAX: usize = 32;
/// So long a peer is shown as expired: one that never comes back is nobody's concern for ever.
pub const EXPIRED_MS: u64 = 3_600_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(tallies: &Tallies) -> Tally {
        let mut sum = tallies.others().unwrap_or_default();
        tallies.rows().for_each(|(_, _, tally)| sum.absorb(tally));
        sum
    }

    #[test]
    fn a_peer_keeps_its_row_through_all_of_its_lives() {
        let (mut tallies, node) = (Tallies::default(), NodeId(1));
        tallies.came(node);
        tallies.of(node).gaps += 3;
        tallies.went(node, "one", Gone::Expired { at: Millis(5) });
        assert_eq!(tallies.expired(Millis(5)), 1);
        tallies.came(node);
        assert_eq!(tallies.expired(Millis(5)), 0);
        let expected = Tally {
            gaps: 3,
            lease_expiries: 1,
            ..Tally::default()
        };
        let rows: Vec<_> = tallies.rows().collect();
        assert_eq!(rows, [(node, None, &expected)]);
        tallies.went(node, "one", Gone::Goodbye);
        let rows: Vec<_> = tallies.rows().collect();
        assert_eq!(rows, [(node, Some("one"), &expected)]);
        assert_eq!((tallies.expired(Millis(5)), tallies.others()), (0, None));
    }

    #[test]
    fn however_many_come_and_go_the_rows_are_bounded_and_nothing_counted_is_lost() {
        let (mut tallies, stays) = (Tallies::default(), NodeId(0));
        tallies.came(stays);
        tallies.of(stays).entries_unknown = 7;
        for number in 1..=1_000 {
            let node = NodeId(number);
            tallies.came(node);
            tallies.of(node).snapshots_merged += 2;
            tallies.went(node, "", Gone::Expired { at: Millis(0) });
            assert!(tallies.rows().count() <= GONE_MAX + 1, "after {number}");
        }
        // What is sent for one that is forgotten.
        tallies.of(NodeId(1)).snapshots_sent += 1;
        let expected = Tally {
            gaps: 0,
            snapshots_sent: 1,
            snapshots_merged: 2_000,
            entries_unknown: 7,
            lease_expiries: 1_000,
        };
        assert_eq!(sum(&tallies), expected);
        assert_eq!(tallies.of(stays).entries_unknown, 7);
        assert_eq!(tallies.expired(Millis(EXPIRED_MS - 1)), GONE_MAX);
        assert_eq!(tallies.expired(Millis(EXPIRED_MS)), 0);
    }
}
