//! Which node tells the webhooks of a partition: one of those that are there, the same for all who see
//! the same nodes.
//!
//! Owns: `Owners`: who is there for long enough, the partitions of this node.
//! May depend on: `cluster::identity`, `protocol::partition`, siphasher. Time is an argument.
//! Invariants: who comes takes a share of the others' partitions, who goes leaves its own to them, and
//! nothing else moves; a node counts when it has been there for a lease, for itself as for others; of
//! nodes that start together one tells what fell due before any of them counted; where partitions change
//! hands, what falls due in that moment is told at least once.

use std::{collections::BTreeMap, hash::Hasher};

use shards::application::Millis;
use siphasher::sip::SipHasher13;

use super::{
    fault::{Fault, is_planted},
    identity::{Identity, Incarnation, NodeId},
};
use crate::protocol::partition::{PARTITIONS, Partition};

/// The nodes that may own something.
#[derive(Clone, Debug)]
pub struct Owners {
    own: Identity,
    lease_ms: u64,
    seats: BTreeMap<NodeId, Seat>,
    /// Who counted when this node's share was last computed, and the share.
    seated: Vec<NodeId>,
    owned: Option<Vec<Partition>>,
    /// Somebody has told what was before any node counted.
    is_founded: bool,
    /// This node may not hear who else is there.
    is_deaf: bool,
}

#[derive(Clone, Copy, Debug)]
struct Seat {
    incarnation: Incarnation,
    counts_from: Millis,
    heard_at: Millis,
}

/// Other partitions are this node's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub partitions: Vec<Partition>,
    /// When the one that owned the new ones may last have told something.
    pub since: Millis,
    /// What fell due from then on is another's; the next change says whose. `FOR_EVER` of the last one.
    pub until: Millis,
}

/// Later than anything.
pub const FOR_EVER: Millis = Millis(u64::MAX);

impl Owners {
    /// Of a node that is not there yet: it comes with `came`, when the others hear of it.
    pub fn new(own: Identity, lease_ms: u64) -> Self {
        Self {
            own,
            lease_ms,
            seats: BTreeMap::new(),
            seated: Vec::new(),
            owned: None,
            is_founded: false,
            is_deaf: false,
        }
    }

    /// Whether this node may not hear who else is there: then it does not begin to own anything, since
    /// each of several would take itself for alone.
    pub fn set_deaf(&mut self, is_deaf: bool) {
        self.is_deaf = is_deaf;
    }

    /// Another node says that somebody has told what was before.
    pub fn set_founded(&mut self) {
        self.is_founded = true;
    }

    /// Whether somebody has, this node or another.
    pub fn is_founded(&self) -> bool {
        self.is_founded
    }

    /// A node is there, in a new life if it was there before.
    pub fn came(&mut self, node: Identity, now: Millis) {
        let counts_from = match is_planted(Fault::OwnerAtOnce) {
            true => now,
            false => now.plus(self.lease_ms),
        };
        let seat = Seat {
            incarnation: node.incarnation,
            counts_from,
            heard_at: now,
        };
        self.seats.insert(node.node, seat);
    }

    /// A node was heard then.
    pub fn heard(&mut self, node: NodeId, at: Millis) {
        if let Some(seat) = self.seats.get_mut(&node) {
            seat.heard_at = seat.heard_at.max(at);
        }
    }

    /// A node is gone. Call `step` before the next one goes or comes: what it owned is told since a
    /// moment before it was heard last.
    pub fn went(&mut self, node: NodeId, now: Millis) -> Option<Change> {
        let seat = self.seats.remove(&node)?;
        self.owned.as_ref()?; // Its first share comes with `step`.
        // What this node saw just before it heard that one last may not have reached that one.
        self.change(now, self.before(seat.heard_at))
    }

    /// Time went on. What changed, in its order.
    pub fn step(&mut self, now: Millis) -> Vec<Change> {
        if self.owned.is_none() && self.is_deaf {
            return Vec::new();
        }
        let own = self.seats.get(&self.own.node);
        let counts_from = own.map(|own| own.counts_from).filter(|from| *from <= now);
        match (&self.owned, counts_from) {
            (None, Some(_)) if self.is_founder() => self.found(now),
            (None, Some(counts_from)) => self.take_share(now, counts_from),
            (Some(_), _) | (None, None) => self.change(now, now).into_iter().collect(),
        }
    }

    /// Takes everything since the beginning, and gives each of the others its share of what fell due
    /// since that one counts, however late this is noticed.
    fn found(&mut self, now: Millis) -> Vec<Change> {
        let others = self
            .seats
            .iter()
            .filter(|(node, _)| **node != self.own.node);
        let mut times: Vec<Millis> = others
            .map(|(_, seat)| seat.counts_from)
            .filter(|from| *from <= now)
            .collect();
        times.sort_unstable();
        times.dedup();
        self.is_founded = true;
        let mut changes = Vec::new();
        let ends = times.iter().copied().chain([FOR_EVER]);
        for (from, until) in std::iter::once(Millis(0))
            .chain(times.iter().copied())
            .zip(ends)
        {
            let counts = |(node, seat): &(&NodeId, &Seat)| {
                **node == self.own.node || seat.counts_from <= from
            };
            let seated: Vec<NodeId> = self
                .seats
                .iter()
                .filter(counts)
                .map(|(node, _)| *node)
                .collect();
            let partitions = self.share(&seated);
            self.seated = seated;
            self.owned = Some(partitions.clone());
            changes.push(Change {
                partitions,
                since: Millis(0),
                until,
            });
        }
        changes
    }

    /// Takes over from those that live, which tell what they see until they count this node. They see it
    /// a way earlier or later than this node does: what fell due a moment before is told again rather
    /// than by nobody, and only of the share that stays when those count that come as well.
    fn take_share(&mut self, now: Millis, counts_from: Millis) -> Vec<Change> {
        let partitions = self.share(&self.seated_at(now.plus(self.overlap_ms())));
        let overlap = Change {
            partitions: partitions.clone(),
            since: self.before(counts_from),
            until: FOR_EVER,
        };
        self.owned = Some(partitions);
        let rest = self.change(now, counts_from);
        std::iter::once(overlap).chain(rest).collect()
    }

    /// What one node sees then, another one sees at the latest so much later.
    fn overlap_ms(&self) -> u64 {
        self.lease_ms / OVERLAPS_PER_LEASE
    }

    fn before(&self, at: Millis) -> Millis {
        Millis(at.0.saturating_sub(self.overlap_ms()))
    }

    /// It started before all others, which know it, and nobody has told what was before.
    fn is_founder(&self) -> bool {
        let mut seats = self.seats.values();
        !self.is_founded && seats.all(|seat| seat.incarnation >= self.own.incarnation)
    }

    /// When `step` may change something.
    pub fn due(&self) -> Option<Millis> {
        if self.owned.is_none() {
            if self.is_deaf {
                return None;
            }
            return Some(self.seats.get(&self.own.node)?.counts_from);
        }
        let seats = self.seats.iter();
        let waiting = seats.filter(|(node, _)| !self.seated.contains(node));
        waiting.map(|(_, seat)| seat.counts_from).min()
    }

    fn change(&mut self, now: Millis, since: Millis) -> Option<Change> {
        let own = self.seats.get(&self.own.node)?;
        if own.counts_from > now {
            return None;
        }
        let seated = self.seated_at(now);
        if seated == self.seated {
            return None;
        }
        let partitions = self.share(&seated);
        self.seated = seated;
        if self.owned.as_ref() == Some(&partitions) {
            return None;
        }
        self.owned = Some(partitions.clone());
        Some(Change {
            partitions,
            since,
            until: FOR_EVER,
        })
    }

    /// Who counts then, of those that are there now.
    fn seated_at(&self, at: Millis) -> Vec<NodeId> {
        let seats = self.seats.iter();
        let counting = seats.filter(|(_, seat)| seat.counts_from <= at);
        counting.map(|(node, _)| *node).collect()
    }

    /// What is this node's where these count.
    fn share(&self, seated: &[NodeId]) -> Vec<Partition> {
        let all = (0..PARTITIONS).filter_map(Partition::from_number);
        all.filter(|partition| owner_of(*partition, seated) == Some(self.own.node))
            .collect()
    }
}

/// The node with the highest weight for the partition; `None` where there is no node.
fn owner_of(partition: Partition, nodes: &[NodeId]) -> Option<NodeId> {
    let weight = |node: &NodeId| {
        let mut hasher = SipHasher13::new_with_key(KEY);
        hasher.write(&node.0.to_be_bytes());
        hasher.write(&partition.number().to_be_bytes());
        (hasher.finish(), *node)
    };
    nodes.iter().copied().max_by_key(weight)
}

/// The part is a heartbeat, by default.
const OVERLAPS_PER_LEASE: u64 = 5;

/// Public and fixed for ever, as that of partitions: nodes that differ would both tell, or neither.
const KEY: &[u8; 16] = b"sockudowebhookof";

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(count: u128) -> Vec<NodeId> {
        (0..count)
            .map(|number| NodeId::of_name(&format!("node-{number}")))
            .collect()
    }

    fn owners_of(nodes: &[NodeId]) -> Vec<NodeId> {
        let all = (0..PARTITIONS).filter_map(Partition::from_number);
        all.map(|it| owner_of(it, nodes).expect("somebody"))
            .collect()
    }

    #[test]
    fn shares_are_even_and_only_those_of_the_one_who_goes_move() {
        let four = nodes(4);
        let before = owners_of(&four);
        for node in &four {
            let share = before.iter().filter(|it| *it == node).count();
            assert!((200..=312).contains(&share), "{share} of 1 024");
        }
        let after = owners_of(&four[1..]);
        for (before, after) in before.iter().zip(&after) {
            assert!(before == after || *before == four[0]);
        }
    }

    #[test]
    fn a_node_counts_after_a_lease_and_what_the_dead_owned_is_told_since_before_it_was_heard() {
        let [a, b] = [0, 1].map(|at| Identity {
            node: nodes(2)[at],
            incarnation: Incarnation(1 + at as u64),
        });
        let mut owners = Owners::new(a, 5_000);
        assert_eq!(stepped(&mut owners, 100), []);
        owners.came(a, Millis(100));
        assert_eq!(owners.due(), Some(Millis(5_100)));
        assert_eq!(stepped(&mut owners, 5_099), []);
        assert_eq!(stepped(&mut owners, 5_100), [(1_024, 0)], "all is its own");
        assert_eq!(owners.due(), None);
        owners.came(b, Millis(6_000));
        assert_eq!(owners.due(), Some(Millis(11_000)));
        assert_eq!(stepped(&mut owners, 10_999), []);
        let shared = stepped(&mut owners, 11_000);
        assert!(shared.len() == 1 && (450..=574).contains(&shared[0].0));
        owners.heard(b.node, Millis(20_000));
        let all = owners.went(b.node, Millis(25_000)).expect("it comes back");
        // What was seen here at 19 000 may have been on its way to it when it died.
        assert_eq!((all.partitions.len(), all.since), (1_024, Millis(19_000)));
        assert_eq!(stepped(&mut owners, 26_000), []);
    }

    /// What the first node has told by then, and what the second one tells of what fell due before it counted.
    struct Handover {
        first_until: Millis,
        second_since: Millis,
    }

    impl Handover {
        /// Of a partition that goes from the first node to the second one.
        fn of(first: &[Change], second: &[Change]) -> Self {
            let gained = &second.first().expect("a share").partitions;
            let before = first.iter().rev().find(|it| it.partitions.len() == 1_024);
            let first_until = before.expect("all was the first one's").until;
            assert!(!gained.is_empty());
            Self {
                first_until,
                second_since: second.first().expect("a share").since,
            }
        }

        /// Whether anybody tells what the two nodes see at these times.
        fn is_told(&self, on_first: u64, on_second: u64) -> bool {
            Millis(on_first) < self.first_until || Millis(on_second) >= self.second_since
        }
    }

    #[test]
    fn what_falls_due_while_a_node_takes_its_share_is_told_at_least_once() {
        let [a, b] = [0, 1].map(|at| Identity {
            node: nodes(2)[at],
            incarnation: Incarnation(1 + at as u64),
        });
        // The second one comes at 100, which the first one hears at once or later. Each hears what the
        // other one has a way later.
        let ways = [0, 4, 40, 400, 999];
        for (hello, way) in ways.iter().flat_map(|it| ways.map(|way| (*it, way))) {
            let (mut first, mut second) = (Owners::new(a, 5_000), Owners::new(b, 5_000));
            for (owners, of_a, of_b) in [(&mut first, 90, 100 + hello), (&mut second, 95, 100)] {
                owners.came(a, Millis(of_a));
                owners.came(b, Millis(of_b));
            }
            let first = first.step(Millis(5_100 + hello));
            let second = second.step(Millis(5_100));
            let handover = Handover::of(&first, &second);
            for at in 3_000..7_000 {
                for (on_first, on_second) in [(at, at + way), (at + way, at)] {
                    assert!(
                        handover.is_told(on_first, on_second),
                        "hello after {hello} ms: {on_first} on the first, {on_second} on the second"
                    );
                }
            }
        }
    }

    #[test]
    fn who_comes_tells_of_the_time_before_it_counts_its_own_share_only() {
        let all: Vec<Identity> = (1..)
            .zip(nodes(3))
            .map(|(incarnation, node)| Identity {
                node,
                incarnation: Incarnation(incarnation),
            })
            .collect();
        // Alone at first, since the others count a moment later.
        let mut owners = Owners::new(all[1], 5_000);
        for (node, came) in all.iter().zip([20, 10, 50]) {
            owners.came(*node, Millis(came));
        }
        let changes = stepped(&mut owners, 5_010);
        assert_eq!(changes.len(), 2, "{changes:?}");
        assert!((250..=430).contains(&changes[0].0) && changes[0].1 == 4_010);
        assert_eq!(changes[1], (1_024, 5_010));
    }

    #[test]
    fn who_does_not_hear_the_others_does_not_take_itself_for_alone() {
        let [a, b] = [0, 1].map(|at| Identity {
            node: nodes(2)[at],
            incarnation: Incarnation(2 - at as u64),
        });
        let mut owners = Owners::new(a, 5_000);
        owners.came(a, Millis(100));
        owners.set_deaf(true);
        assert_eq!(owners.due(), None);
        assert_eq!(stepped(&mut owners, 30_000), []);
        // Then it hears that it is not the oldest.
        owners.came(b, Millis(31_000));
        owners.set_deaf(false);
        let own = stepped(&mut owners, 36_000);
        assert!(
            own.len() == 1 && own[0].0 < 1_024 && own[0].1 > 0,
            "{own:?}"
        );
        // What it owns it keeps, whatever it hears.
        owners.set_deaf(true);
        assert_eq!(stepped(&mut owners, 90_000), []);
    }

    /// Numbers of partitions and since when.
    fn stepped(owners: &mut Owners, now: u64) -> Vec<(usize, u64)> {
        let changes = owners.step(Millis(now));
        changes
            .iter()
            .map(|it| (it.partitions.len(), it.since.0))
            .collect()
    }

    #[test]
    fn of_nodes_that_start_together_the_oldest_tells_what_was_before_and_no_other() {
        let all: Vec<Identity> = (1..)
            .zip(nodes(3))
            .map(|(incarnation, node)| Identity {
                node,
                incarnation: Incarnation(incarnation),
            })
            .collect();
        // Each has its own clock, and hears of the others a little earlier or later.
        let told = [(0, 5_030), (1, 5_040), (2, 5_060)].map(|(at, ticks_at)| {
            let mut owners = Owners::new(all[at], 5_000);
            for (node, came) in all.iter().zip([20, 10, 50]) {
                owners.came(*node, Millis(came));
            }
            let mut told = stepped(&mut owners, ticks_at);
            told.extend(stepped(&mut owners, 5_100));
            told
        });
        // Until the first of the others counts, until the second one does, and from then on.
        assert_eq!(told[0].len(), 3, "{told:?}");
        assert_eq!(told[0][0], (1_024, 0));
        let since: Vec<u64> = told
            .iter()
            .map(|it| it.last().expect("a share").1)
            .collect();
        assert_eq!(since, [5_100, 5_100, 4_050]);
        // A lease's fifth before it counts, for what the oldest sees a way later.
        assert_eq!(told[1][0].1, 4_010);
        let shares: usize = told.iter().map(|it| it.last().expect("a share").0).sum();
        assert_eq!(shares, 1_024);
        let mut late = Owners::new(all[0], 5_000);
        for (node, came) in all.iter().zip([20, 10, 50]) {
            late.came(*node, Millis(came));
        }
        let ends: Vec<Millis> = late.step(Millis(6_000)).iter().map(|it| it.until).collect();
        assert_eq!(ends, [Millis(5_010), Millis(5_050), FOR_EVER]);
        // One that started first and came when others had told it tells nothing of that time.
        let mut late = Owners::new(all[0], 5_000);
        late.came(all[1], Millis(60_000));
        late.came(all[0], Millis(60_000));
        late.set_founded();
        assert_eq!(stepped(&mut late, 65_500)[0].1, 64_000);
    }
}
