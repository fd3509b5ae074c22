//! Which node tells the webhooks of a partition: one of those that are there, the same for all who see
//! the same nodes.
//!
//! Owns: `Owners`: who is there for long enough, the partitions of this node.
//! May depend on: `cluster::{carrying, identity}`, `protocol::partition`, siphasher, serde. Time is an argument.
//! Invariants: who comes takes a share of the others' partitions, who goes leaves its own to them, and
//! nothing else moves; a node counts when it has been there for a lease, for itself as for others; of
//! nodes that start together the oldest tells what fell due before any of them counted, and before any
//! other tells anything, and no two tell all of it; where partitions change hands, what falls due in that
//! moment is told at least once, and who gives them away has told his last before who gets them tells the
//! first.

use std::{collections::BTreeMap, hash::Hasher};

use serde::{Deserialize, Serialize};
use shards::application::Millis;
use siphasher::sip::SipHasher13;

use super::{
    carrying::{Carrier, CarryError, Kind, read},
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
    /// Since when something may be this node's to tell, before its first share.
    tells_from: Millis,
    /// Who counted when this node's share was last computed, and the share.
    seated: Vec<NodeId>,
    owned: Option<Vec<Partition>>,
    /// Somebody has told what was before any node counted.
    is_founded: bool,
    /// This node may not hear who else is there.
    is_deaf: bool,
    /// It did not at some time before its first share.
    was_deaf: bool,
    /// Since when it hears them again.
    hears_from: Option<Millis>,
    stepped_at: Millis,
}

/// For the process that follows too.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
struct Seat {
    incarnation: Incarnation,
    counts_from: Millis,
    heard_at: Millis,
}

/// For the process that follows.
#[derive(Debug, Deserialize, Serialize)]
struct OwnersRecord {
    seats: Vec<(NodeId, Seat)>,
    seated: Vec<NodeId>,
    owned: Option<Vec<u16>>,
    tells_from: Millis,
    is_founded: bool,
    is_deaf: bool,
    was_deaf: bool,
    #[serde(default)]
    hears_from: Option<Millis>,
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
            tells_from: Millis(0),
            seated: Vec::new(),
            owned: None,
            is_founded: false,
            is_deaf: false,
            was_deaf: false,
            hears_from: None,
            stepped_at: Millis(0),
        }
    }

    pub(super) fn carry(&self, carrier: &mut Carrier<'_>) {
        let owned = self.owned.as_ref();
        let record = OwnersRecord {
            seats: self
                .seats
                .iter()
                .map(|(node, seat)| (*node, *seat))
                .collect(),
            seated: self.seated.clone(),
            owned: owned.map(|owned| owned.iter().map(|it| it.number()).collect()),
            tells_from: self.tells_from,
            is_founded: self.is_founded,
            is_deaf: self.is_deaf,
            was_deaf: self.was_deaf,
            hears_from: self.hears_from,
        };
        carrier.item(Kind::OWNERS, &record);
    }

    /// Goes on as those that were carried.
    pub(super) fn go_on(&mut self, item: &[u8]) -> Result<(), CarryError> {
        let record: OwnersRecord = read(item)?;
        let of = |number| Partition::from_number(number).ok_or(CarryError::NO_SUCH_PARTITION);
        let owned = record
            .owned
            .map(|owned| owned.into_iter().map(of).collect());
        self.seats = record.seats.into_iter().collect();
        if is_planted(Fault::CarriedWaitForgotten) {
            let seats = self.seats.values_mut();
            seats.for_each(|seat| seat.counts_from = Millis(0));
        }
        self.seated = record.seated;
        self.owned = owned.transpose()?;
        self.tells_from = record.tells_from;
        self.is_founded = record.is_founded;
        self.is_deaf = record.is_deaf;
        self.was_deaf = record.was_deaf;
        self.hears_from = record.hears_from;
        Ok(())
    }

    /// Whether this node may not hear who else is there: then it does not begin to own anything, since
    /// each of several would take itself for alone.
    pub fn set_deaf(&mut self, now: Millis, is_deaf: bool) {
        if std::mem::replace(&mut self.is_deaf, is_deaf) != is_deaf {
            self.hears_from = Some(now).filter(|_| !is_deaf);
        }
        self.was_deaf |= is_deaf && self.owned.is_none();
    }

    /// Somebody has told what was before, and said so then: from then on count all that are there.
    pub fn set_founded(&mut self, at: Millis) {
        if std::mem::replace(&mut self.is_founded, true) {
            return;
        }
        // Who heard it as it was said knows how much is told; not so who takes over from one that is gone.
        let heard_it = !self.is_deaf && self.hears_from.is_none_or(|from| from <= at);
        let own = self.seats.get(&self.own.node);
        if heard_it && own.is_some_and(|seat| seat.counts_from == self.tells_from) {
            self.tells_from = self.tells_from.max(self.before(at));
        }
        for seat in self.seats.values_mut() {
            seat.counts_from = seat.counts_from.max(at);
        }
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
        if node == self.own {
            self.tells_from = counts_from;
        }
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
        if self.owned.is_none() {
            // The first share comes with `step`. For others this node may count already, and where none
            // of them counts nobody takes over what that one leaves.
            let mut others = self.seats.iter().filter(|it| *it.0 != self.own.node);
            let is_left = !others.any(|(_, seat)| seat.counts_from <= now);
            if is_left || now.plus(self.overlap_ms()) >= self.tells_from {
                self.tells_from = self.tells_from.min(seat.heard_at);
            }
            return None;
        }
        // What this node saw just before it heard that one last may not have reached that one.
        self.change(now, self.before(seat.heard_at))
    }

    /// Time went on. What changed, in its order.
    pub fn step(&mut self, now: Millis) -> Vec<Change> {
        self.stepped_at = now;
        if self.owned.is_none() && self.is_deaf {
            return Vec::new();
        }
        if self.owned.is_some() {
            return self.change(now, now).into_iter().collect();
        }
        match self.begins_at() {
            Some(at) if at <= now && self.is_founded => self.take_share(now),
            Some(at) if at <= now => self.found(now),
            Some(_) | None => Vec::new(),
        }
    }

    /// When this node takes its first share: when those that have had it surely count this node, or,
    /// where nobody has had it, when it is this node's to tell what was before.
    fn begins_at(&self) -> Option<Millis> {
        let counts_from = self.seats.get(&self.own.node)?.counts_from;
        match self.is_founded {
            true => Some(counts_from.plus(self.overlap_ms())),
            false => self.founds_at(),
        }
    }

    /// When it tells what was before: in its turn. Who heard nobody then, or was not the oldest yet, keeps
    /// clear of the turns of the others, since of two that tell it at once neither hears of the other; and
    /// those that hear again at one time do it by their age.
    fn founds_at(&self) -> Option<Millis> {
        let turns = self.turns();
        let age = turns.iter().position(|(node, _)| *node == self.own.node)?;
        let (_, turn) = *turns.get(age)?;
        let again = self.hears_from.unwrap_or(Millis(0));
        let again = again.plus(self.lease_ms * age as u64);
        let mut at = turn.max(again).max(self.stepped_at);
        for (_, other) in turns.into_iter().filter(|it| it.0 != self.own.node) {
            let is_near = at.plus(self.overlap_ms()) > other && other.plus(self.overlap_ms()) > at;
            if is_near {
                at = other.plus(self.overlap_ms());
            }
        }
        Some(at)
    }

    /// By age, when each tells what was before if nobody has: a lease after the one before it, which may
    /// hear nobody.
    fn turns(&self) -> Vec<(NodeId, Millis)> {
        let mut seats: Vec<(&NodeId, &Seat)> = self.seats.iter().collect();
        seats.sort_unstable_by_key(|(node, seat)| (seat.incarnation, **node));
        let mut next = Millis(0);
        let turns = seats.into_iter().map(|(node, seat)| {
            let turn = seat.counts_from.max(next);
            next = turn.plus(self.lease_ms);
            (*node, turn)
        });
        turns.collect()
    }

    /// Takes everything since the beginning; what falls due from now on is for those that count.
    fn found(&mut self, now: Millis) -> Vec<Change> {
        self.set_founded(now);
        self.seated = vec![self.own.node];
        let all = self.share(&self.seated);
        self.owned = Some(all.clone());
        let rest = self.change(now, Millis(0));
        let first = Change {
            partitions: all,
            since: Millis(0),
            until: if rest.is_some() { now } else { FOR_EVER },
        };
        std::iter::once(first).chain(rest).collect()
    }

    /// Takes over from those that live, which tell what they see until they count this node. They see it
    /// a way earlier or later than this node does: what fell due a moment before is told again rather
    /// than by nobody, and only of the share that stays. With each that counts since then it is less.
    fn take_share(&mut self, now: Millis) -> Vec<Change> {
        let counted_from = self.seats.get(&self.own.node).map(|it| it.counts_from);
        let counted_from = counted_from.unwrap_or(now);
        // Who was deaf heard too late of those that have told all since.
        let is_late = self.was_deaf && now.since(self.tells_from) > self.lease_ms;
        let from = if is_late { now } else { counted_from };
        let since = self.before(self.tells_from);
        let overlap = Change {
            partitions: self.share(&self.seated_at(now)),
            since,
            until: from,
        };
        let own = self.own.node;
        let others = self.seats.iter().filter(|(node, _)| **node != own);
        let counting = others.map(|(_, seat)| seat.counts_from);
        let mut times: Vec<Millis> = counting.filter(|at| *at > from && *at <= now).collect();
        times.sort_unstable();
        times.dedup();
        let ends = times.iter().copied().chain([FOR_EVER]);
        let mut changes = vec![overlap];
        for (at, until) in std::iter::once(from).chain(times.iter().copied()).zip(ends) {
            self.seated = self.seated_at(at);
            let partitions = self.share(&self.seated);
            self.owned = Some(partitions.clone());
            changes.push(Change {
                partitions,
                since: self.tells_from,
                until,
            });
        }
        changes
    }

    /// What one node sees then, another one sees at the latest so much later.
    fn overlap_ms(&self) -> u64 {
        self.lease_ms / OVERLAPS_PER_LEASE
    }

    fn before(&self, at: Millis) -> Millis {
        Millis(at.0.saturating_sub(self.overlap_ms()))
    }

    /// When `step` may change something.
    pub fn due(&self) -> Option<Millis> {
        if self.owned.is_none() {
            if self.is_deaf {
                return None;
            }
            return self.begins_at();
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

    /// Of so many nodes, the oldest first.
    fn lives(count: u128) -> Vec<Identity> {
        let lives = nodes(count).into_iter().zip(1..);
        lives
            .map(|(node, number)| Identity {
                node,
                incarnation: Incarnation(number),
            })
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

    /// A partition that goes from the first node to the second one.
    struct Handover {
        /// The first one tells what falls due until then.
        first_until: Millis,
        /// The second one begins then, with what fell due since.
        second_at: Millis,
        second_since: Millis,
    }

    impl Handover {
        /// The second node comes at 100, which the first one hears so much later.
        fn of(first_founds: u64, hello: u64, way: u64) -> Self {
            let [a, b] = [0, 1].map(|at| Identity {
                node: nodes(2)[at],
                incarnation: Incarnation(1 + at as u64),
            });
            let (mut first, mut second) = (Owners::new(a, 5_000), Owners::new(b, 5_000));
            for (owners, of_a, of_b) in [(&mut first, 90, 100 + hello), (&mut second, 95, 100)] {
                owners.came(a, Millis(of_a));
                owners.came(b, Millis(of_b));
            }
            let founded = first.step(Millis(first_founds));
            assert_eq!(
                (founded[0].partitions.len(), founded[0].since.0),
                (1_024, 0)
            );
            let counts_at = first.due().map_or(founded[0].until, |due| {
                assert_eq!(first.step(due).len(), 1);
                due
            });
            second.set_founded(Millis(first_founds + way));
            let second_at = second.due().expect("its share");
            let gained = second.step(second_at);
            assert!(!gained[0].partitions.is_empty());
            Self {
                first_until: counts_at,
                second_at,
                second_since: gained[0].since,
            }
        }

        /// Whether anybody tells what the two nodes see at these times.
        fn is_told(&self, on_first: u64, on_second: u64) -> bool {
            Millis(on_first) < self.first_until || Millis(on_second) >= self.second_since
        }
    }

    #[test]
    fn what_falls_due_while_a_node_takes_its_share_is_told_at_least_once() {
        // Each hears what the other one has a way later.
        let ways = [0, 4, 40, 400, 999];
        for (hello, way) in ways.iter().flat_map(|it| ways.map(|way| (*it, way))) {
            for first_founds in [5_090, 5_100 + hello, 5_100 + hello + 2_900] {
                let handover = Handover::of(first_founds, hello, way);
                let of = format!("founded at {first_founds}, hello {hello}, way {way}");
                assert!(handover.second_at >= handover.first_until, "{of}");
                for at in 3_000..12_000 {
                    for (on_first, on_second) in [(at, at + way), (at + way, at)] {
                        assert!(handover.is_told(on_first, on_second), "{of}: {at}");
                    }
                }
            }
        }
    }

    #[test]
    fn who_comes_tells_of_the_time_before_it_counts_its_own_share_only() {
        let all = lives(3);
        // Alone at first, since the others count a moment later.
        let mut owners = Owners::new(all[1], 5_000);
        for (node, came) in all.iter().zip([20, 10, 50]) {
            owners.came(*node, Millis(came));
        }
        owners.set_founded(Millis(4_000));
        assert_eq!(stepped(&mut owners, 6_009), []);
        let changes = owners.step(Millis(6_010));
        let shares: Vec<usize> = changes.iter().map(|it| it.partitions.len()).collect();
        assert!((250..=430).contains(&shares[0]), "{shares:?}");
        assert_eq!((shares.len(), shares[1], shares[3]), (4, 1_024, shares[0]));
        assert_eq!(
            changes.iter().map(|it| it.since.0).collect::<Vec<_>>(),
            [4_010, 5_010, 5_010, 5_010]
        );
        let until: Vec<Millis> = changes.iter().map(|it| it.until).collect();
        assert_eq!(until, [5_010, 5_020, 5_050, u64::MAX].map(Millis));
    }

    #[test]
    fn nobody_tells_anything_before_the_oldest_and_a_lease_later_the_next_one_is_that() {
        let all = lives(3);
        let begin = |own: usize| {
            let mut owners = Owners::new(all[own], 5_000);
            for (node, came) in all.iter().zip([100, 10, 50]) {
                owners.came(*node, Millis(came));
            }
            owners
        };
        for (own, due) in [(0, 5_100), (1, 10_100), (2, 15_100)] {
            let mut owners = begin(own);
            assert_eq!(owners.due(), Some(Millis(due)));
            assert_eq!(stepped(&mut owners, due - 1), []);
            let all = stepped(&mut owners, due);
            assert_eq!(all[0], (1_024, 0), "node {own}");
            assert!(all[1].0 < 500, "node {own}");
        }
        // It dies: the next one is the oldest.
        let mut owners = begin(1);
        assert_eq!(owners.went(all[0].node, Millis(6_000)), None);
        assert_eq!(stepped(&mut owners, 6_000)[0], (1_024, 0));
        // It dies when it has said so, and others count this one already: its own is told since.
        let mut owners = begin(1);
        owners.set_founded(Millis(5_200));
        owners.heard(all[0].node, Millis(3_000));
        assert_eq!(owners.went(all[0].node, Millis(6_000)), None);
        assert_eq!(stepped(&mut owners, 6_200)[0].1, 2_000);
    }

    #[test]
    fn who_comes_as_the_last_that_counts_goes_tells_what_fell_due_since() {
        let all = lives(3);
        for (others_stay, since) in [(false, 58_000), (true, 64_000)] {
            let mut owners = Owners::new(all[2], 5_000);
            owners.came(all[0], Millis(50_000));
            owners.came(all[1], Millis(50_000 + if others_stay { 0 } else { 9_500 }));
            owners.set_founded(Millis(50_000));
            owners.came(all[2], Millis(60_000));
            owners.heard(all[0].node, Millis(59_000));
            assert_eq!(owners.went(all[0].node, Millis(61_000)), None);
            assert_eq!(stepped(&mut owners, 66_000)[0].1, since, "{others_stay}");
        }
    }

    #[test]
    fn who_does_not_hear_the_others_does_not_take_itself_for_alone() {
        let [a, b] = [0, 1].map(|at| Identity {
            node: nodes(2)[at],
            incarnation: Incarnation(2 - at as u64),
        });
        let mut owners = Owners::new(a, 5_000);
        owners.came(a, Millis(100));
        owners.set_deaf(Millis(200), true);
        assert_eq!(owners.due(), None);
        assert_eq!(stepped(&mut owners, 30_000), []);
        // Then it hears that it is not the oldest.
        owners.came(b, Millis(31_000));
        owners.set_founded(Millis(31_500));
        owners.set_deaf(Millis(32_000), false);
        let own = stepped(&mut owners, 36_000);
        assert_eq!(own, [(514, 4_100), (514, 5_100)]);
        // What it owns it keeps, whatever it hears.
        owners.set_deaf(Millis(40_000), true);
        assert_eq!(stepped(&mut owners, 90_000), []);
    }

    /// When each of the nodes, the oldest first, tells what was before; each came, and hears again, then.
    /// None hears the others.
    fn founded(nodes: &[(u64, Option<u64>)]) -> Vec<u64> {
        let all = lives(nodes.len() as u128);
        let times = (0..nodes.len()).map(|own| {
            let mut owners = Owners::new(all[own], 5_000);
            for (node, (came, _)) in all.iter().zip(nodes) {
                owners.came(*node, Millis(*came));
            }
            let (came, hears_from) = nodes[own];
            if let Some(hears_from) = hears_from {
                owners.set_deaf(Millis(came + 1), true);
                assert_eq!(owners.step(Millis(hears_from)), []);
                owners.set_deaf(Millis(hears_from), false);
            }
            owners.due().expect("its turn comes").0
        });
        times.collect()
    }

    #[test]
    fn who_hears_nobody_in_its_turn_does_not_tell_in_that_of_another() {
        let (came, counts) = (100, 5_100);
        for hears_from in (1_000..30_000).step_by(97) {
            for waits in [0, 1, 2] {
                for skew in [0, 400, 999] {
                    // One alone, or two of them, which hear again at about one time.
                    for others in [None, Some(hears_from + skew)] {
                        let mut nodes = [(came, others); 3];
                        nodes[waits].1 = Some(hears_from);
                        nodes[(waits + 1) % 3].1 = None;
                        let told = founded(&nodes);
                        let of = format!("{nodes:?}: {told:?}");
                        for (at, other) in [(0, 1), (0, 2), (1, 2)] {
                            assert!(told[at].abs_diff(told[other]) >= 1_000, "{of}");
                        }
                    }
                }
            }
        }
        assert_eq!(founded(&[(came, Some(9_990)), (came, None)])[0], 11_100);
        assert_eq!(founded(&[(came, Some(8_000)), (came, None)])[0], 8_000);
        assert_eq!(founded(&[(came, None); 2]), [counts, counts + 5_000]);
    }

    #[test]
    fn who_hears_that_the_oldest_told_it_late_tells_no_more_than_what_fell_due_around_that() {
        let all = lives(2);
        // It may have heard it long after.
        for (hears_from, since) in [(None, 6_000), (Some(7_999), 6_000), (Some(8_001), 4_110)] {
            let mut owners = Owners::new(all[1], 5_000);
            owners.came(all[0], Millis(100));
            owners.came(all[1], Millis(110));
            if let Some(hears_from) = hears_from {
                owners.set_deaf(Millis(200), true);
                owners.set_deaf(Millis(hears_from), false);
            }
            owners.set_founded(Millis(8_000));
            assert_eq!(stepped(&mut owners, 8_999), []);
            assert_eq!(stepped(&mut owners, 9_000)[0].1, since, "{hears_from:?}");
        }
    }

    #[test]
    fn who_waits_for_an_older_one_that_came_later_waits_for_its_turn() {
        assert_eq!(founded(&[(5_000, None), (100, None)]), [10_000, 15_000]);
    }

    #[test]
    fn who_is_the_oldest_all_of_a_sudden_does_not_tell_in_the_next_ones_turn() {
        let all = lives(3);
        let mut owners = Owners::new(all[1], 5_000);
        for node in &all {
            owners.came(*node, Millis(100));
        }
        assert_eq!(owners.went(all[0].node, Millis(9_990)), None);
        assert_eq!(stepped(&mut owners, 9_990), []);
        assert_eq!(owners.due(), Some(Millis(11_100)));
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
        let all = lives(3);
        // Each has its own clock, and hears of the others a little earlier or later.
        let told = [(0, 5_030), (1, 5_040), (2, 5_060)].map(|(at, ticks_at)| {
            let mut owners = Owners::new(all[at], 5_000);
            for (node, came) in all.iter().zip([20, 10, 50]) {
                owners.came(*node, Millis(came));
            }
            let mut told = match at {
                0 => stepped(&mut owners, ticks_at),
                _ => Vec::new(),
            };
            owners.set_founded(Millis(ticks_at));
            told.extend(stepped(&mut owners, 6_100));
            told
        });
        // Until it tells, until another one counts, and from then on.
        assert_eq!(told[0].len(), 3, "{told:?}");
        assert_eq!(told[0][0], (1_024, 0));
        let since: Vec<u64> = told
            .iter()
            .map(|it| it.last().expect("a share").1)
            .collect();
        assert_eq!(since, [6_100, 5_010, 5_050]);
        // A lease's fifth before it counts, for what the oldest sees a way later.
        assert_eq!(told[1][0].1, 4_010);
        let shares: usize = told.iter().map(|it| it.last().expect("a share").0).sum();
        assert_eq!(shares, 1_024);
        let mut late = Owners::new(all[0], 5_000);
        for (node, came) in all.iter().zip([20, 10, 50]) {
            late.came(*node, Millis(came));
        }
        let ends: Vec<Millis> = late.step(Millis(6_000)).iter().map(|it| it.until).collect();
        assert_eq!(ends, [Millis(6_000), FOR_EVER]);
        // One that started first and came when others had told it tells nothing of that time.
        let mut late = Owners::new(all[0], 5_000);
        late.came(all[1], Millis(60_000));
        late.came(all[0], Millis(60_000));
        late.set_founded(Millis(60_000));
        assert_eq!(stepped(&mut late, 66_500)[0].1, 64_000);
    }
}
