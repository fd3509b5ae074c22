//! What all peers together hold, as far as it was heard.
//!
//! Owns: `View`: the replicas of the peers, what they hold merged, what is to be asked, what is merged or
//! let go in slices.
//! May depend on: `cluster::{app_ids, carrying, change, entry, holdings, identity, replica, tallies}`,
//! `protocol::partition`, serde, `Millis`.
//! Invariants: at rest it is the union of what the peers hold of themselves; a snapshot is merged as
//! a difference: what stays is not told; each peer that was asked for a partition is asked again until
//! it is there; no step works longer than its batch or its `limit`.

mod carrying;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ahash::RandomState;
use serde::{Deserialize, Serialize};
use shards::application::Millis;

use super::{
    app_ids::{AppIds, AppNumber},
    change::{Change, Changes},
    entry::{Delta, Entry, Heartbeat, Latest, NumbersAsk, Snapshot, SnapshotAsk},
    fault::{Fault, is_planted},
    field::Reader,
    holdings::{
        Cursor, Departure, Fact, HOLDERS_MAX, Held, Holder, Holdings, Place, Space, Text,
        ViewChange,
    },
    identity::{Identity, NodeId},
    replica::{Heed, PartHeed, Release, Replica, WAITING_BYTES_MAX},
    retelling::{Retelling, Retold},
    tallies::Tallies,
};
use crate::protocol::partition::{PARTITIONS, Partition};

/// What became of what peers report, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ViewCounters {
    pub deltas_applied: u64,
    /// They were there before.
    pub deltas_doubled: u64,
    /// They wait for a snapshot.
    pub deltas_held: u64,
    /// For which there was no room, or no place for their sender.
    pub deltas_dropped: u64,
    /// Partitions of which something was found to be missing.
    pub gaps: u64,
    pub snapshots_asked: u64,
    pub numbers_asked: u64,
    pub snapshots_merged: u64,
    /// Of parts that were kept.
    pub snapshot_bytes_heard: u64,
    /// Snapshots for which there was no room.
    pub snapshots_dropped: u64,
    /// Of a later version.
    pub changes_unknown: u64,
    /// In snapshots: not what a change must be.
    pub changes_broken: u64,
    /// Of a name that belongs to another partition.
    pub changes_misplaced: u64,
    /// Of an app for which there was no room.
    pub changes_refused: u64,
    /// Partitions of peers of which something is missing now.
    pub wanted: usize,
    pub held: Held,
}

#[derive(Debug)]
pub(super) struct View {
    holdings: Holdings,
    /// By node; as many as membership knows.
    replicas: BTreeMap<NodeId, Replica>,
    /// By seat whether somebody has it.
    seats: Box<[bool]>,
    merges: VecDeque<Merge>,
    /// Those whose entries go.
    leaving: Vec<Leaving>,
    sweep_at: u16,
    sweep_cursor: Cursor,
    retelling: Retelling,
    /// What is to be asked, by when. One for each partition that is wanted and not there.
    asks: BTreeSet<(Millis, NodeId, Partition)>,
    /// Of what waits, of all peers.
    waiting_bytes: usize,
    /// Of each peer, some of what `counters` has of all.
    tallies: Tallies,
    counters: ViewCounters,
}

/// A snapshot that is being merged.
#[derive(Debug)]
struct Merge {
    of: Identity,
    seat: u16,
    partition: Partition,
    number: u64,
    encoded: Vec<u8>,
    phase: Phase,
    /// Where the next change begins.
    at: usize,
    cursor: Cursor,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
enum Phase {
    Begin,
    /// Its changes are taken; as whom the peer held before.
    Take(Holder),
    /// What it held and is not in the snapshot goes.
    Prune(Holder),
    /// What waited for it follows.
    Release,
}

/// A life that has ended, of which entries may be left in so many partitions.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
struct Leaving {
    seat: u16,
    parts: u16,
    #[serde(default)]
    why: Departure,
}

impl View {
    pub(super) fn new(hasher: RandomState, bytes_max: usize) -> Self {
        Self {
            holdings: Holdings::new(hasher, bytes_max),
            replicas: BTreeMap::new(),
            seats: vec![false; usize::from(HOLDERS_MAX)].into(),
            merges: VecDeque::new(),
            leaving: Vec::new(),
            sweep_at: 0,
            sweep_cursor: Cursor::START,
            retelling: Retelling::new(),
            asks: BTreeSet::new(),
            waiting_bytes: 0,
            tallies: Tallies::default(),
            counters: ViewCounters::default(),
        }
    }

    pub(super) fn tallies(&self) -> &Tallies {
        &self.tallies
    }

    pub(super) fn tallies_mut(&mut self) -> &mut Tallies {
        &mut self.tallies
    }

    pub(super) fn counters(&self) -> ViewCounters {
        let wanted = self.replicas.values().map(Replica::wants_count).sum();
        ViewCounters {
            held: self.holdings.held(),
            wanted,
            ..self.counters
        }
    }

    /// A peer is there. What it holds is found by the sums of its first heartbeat.
    pub(super) fn join(&mut self, peer: Identity) {
        let seat = self.take_seat();
        let before = self.replicas.insert(peer.node, Replica::new(peer, seat));
        assert!(before.is_none(), "a life ends before the next one begins");
    }

    /// A life of a peer has ended: what it held goes, in slices.
    pub(super) fn leave(&mut self, peer: Identity, why: Departure) {
        let replica = self.replicas.remove(&peer.node);
        let replica = replica.expect("a peer that is there has a replica");
        assert_eq!(replica.identity, peer);
        for (due, partition) in replica.dues() {
            self.asks.remove(&(due, peer.node, partition));
        }
        self.waiting_bytes -= replica.waiting_bytes();
        self.merges.retain(|merge| merge.of != peer);
        if let Some(seat) = replica.seat {
            if is_planted(Fault::OldLifeKept) {
                return;
            }
            if is_planted(Fault::SeatFreedEarly) {
                self.free_seat(seat);
            }
            // One more: where the walk is now, only a part of the partition is ahead.
            let parts = PARTITIONS + 1;
            self.leaving.push(Leaving { seat, parts, why });
        }
    }

    fn take_seat(&mut self) -> Option<u16> {
        let mut seats = (0..).zip(&mut self.seats);
        let (number, is_taken) = seats.find(|(_, is_taken)| !**is_taken)?;
        *is_taken = true;
        Some(number)
    }

    /// Takes a change of a peer.
    // Per delta: one search among at most 256 peers, one hash of the name for its partition and one for
    // its row.
    pub(super) fn hear_delta(
        &mut self,
        now: Millis,
        sender: Identity,
        apps: &mut AppIds,
        delta: &Delta<'_>,
        tell: &mut impl FnMut(ViewChange<'_>),
    ) {
        if self.seat_of(sender).is_none() {
            self.counters.deltas_dropped += 1;
            return;
        }
        let Some(replica) = replica_of(&mut self.replicas, sender) else {
            return;
        };
        let partition = delta.partition;
        match replica.heed(delta) {
            Heed::Doubled => self.counters.deltas_doubled += 1,
            Heed::Apply => self.apply_delta(sender, apps, delta, tell),
            Heed::Hold => self.hold(sender, delta),
            Heed::Gap => {
                self.want(now, sender, partition);
                self.hold(sender, delta);
            }
        }
    }

    fn apply_delta(
        &mut self,
        sender: Identity,
        apps: &mut AppIds,
        delta: &Delta<'_>,
        tell: &mut impl FnMut(ViewChange<'_>),
    ) {
        let seat = self.seat_of(sender);
        let replica = replica_of(&mut self.replicas, sender);
        let (Some(replica), Some(seat)) = (replica, seat) else {
            return;
        };
        let holder = replica.holder(seat, delta.partition);
        if !is_planted(Fault::DeltaTwice) || delta.number > replica.number(delta.partition) {
            replica.reach(delta.partition, delta.number);
        }
        self.counters.deltas_applied += 1;
        self.apply(apps, delta.partition, holder, delta.change, tell);
    }

    fn apply(
        &mut self,
        apps: &mut AppIds,
        partition: Partition,
        holder: Holder,
        change: Change<'_>,
        tell: &mut impl FnMut(ViewChange<'_>),
    ) {
        let Some((space, app, name, fact)) = fact_of(change) else {
            self.counters.changes_unknown += 1;
            return;
        };
        let Some(app) = apps.intern(app) else {
            self.counters.changes_refused += 1;
            return;
        };
        let partitions = apps.partitions(app);
        let its_own = match space {
            Space::Channels | Space::Kept => partitions.of_channel(name),
            Space::Users => partitions.of_user(name),
            Space::Apps => partitions.own(),
        };
        // Elsewhere nobody would look for it.
        if its_own != partition {
            self.counters.changes_misplaced += 1;
            return;
        }
        let place = Place {
            partition,
            space,
            app,
            name: Text::Plain(name),
        };
        self.holdings.apply(apps, place, holder, fact, tell);
    }

    /// Whose the sender is among the holders. Where none was free one may be now.
    fn seat_of(&mut self, sender: Identity) -> Option<u16> {
        let seat = replica_of(&mut self.replicas, sender)?.seat;
        let seat = seat.or_else(|| self.take_seat());
        replica_of(&mut self.replicas, sender)?.seat = seat;
        seat
    }

    fn hold(&mut self, sender: Identity, delta: &Delta<'_>) {
        let Some(replica) = replica_of(&mut self.replicas, sender) else {
            return;
        };
        self.waiting_bytes -= replica.waiting_bytes();
        let all = self.waiting_bytes + replica.waiting_bytes();
        let room = WAITING_BYTES_OF_ALL_MAX.saturating_sub(all);
        let is_held = replica.hold(delta, room);
        self.waiting_bytes += replica.waiting_bytes();
        self.counters.deltas_held += u64::from(is_held);
        self.counters.deltas_dropped += u64::from(!is_held);
    }

    /// Something of a partition is missing.
    fn want(&mut self, due: Millis, of: Identity, partition: Partition) {
        let replica = replica_of(&mut self.replicas, of);
        if replica.is_some_and(|replica| replica.want(partition, due)) {
            self.count_gap(of);
            self.asks.insert((due, of.node, partition));
        }
    }

    fn count_gap(&mut self, of: Identity) {
        self.counters.gaps += 1;
        self.tallies.of(of.node).gaps += 1;
    }

    /// Takes a part of a snapshot, whoever asked for it.
    pub(super) fn hear_snapshot(
        &mut self,
        sender: Identity,
        snapshot: &Snapshot<'_>,
        again_at: Millis,
    ) {
        let Some(seat) = self.seat_of(sender) else {
            return;
        };
        let partition = snapshot.partition;
        let is_ahead = replica_of(&mut self.replicas, sender)
            .is_some_and(|replica| snapshot.number > replica.number(partition));
        // Deltas that stood in front of it in the lane were lost.
        if is_ahead && snapshot.part == 0 {
            self.want(again_at, sender, partition);
        }
        let Some(replica) = replica_of(&mut self.replicas, sender) else {
            return;
        };
        let due = replica.due(partition);
        let bytes = snapshot.changes.encoded().len() as u64;
        let before = replica.waiting_bytes();
        let room = WAITING_BYTES_OF_ALL_MAX.saturating_sub(self.waiting_bytes);
        let heed = replica.keep_part(snapshot, room);
        self.waiting_bytes -= before;
        self.waiting_bytes += replica.waiting_bytes();
        match heed {
            PartHeed::Ignored => {}
            PartHeed::Kept => self.counters.snapshot_bytes_heard += bytes,
            PartHeed::Overflow => self.counters.snapshots_dropped += 1,
            PartHeed::Whole(number, encoded) => {
                self.counters.snapshot_bytes_heard += bytes;
                let due = due.expect("what is merged is not asked for");
                self.asks.remove(&(due, sender.node, partition));
                self.merges.push_back(Merge {
                    of: sender,
                    seat,
                    partition,
                    number,
                    encoded,
                    phase: Phase::Begin,
                    at: 0,
                    cursor: Cursor::START,
                });
            }
        }
    }

    /// Peers that keep the channel's last event: first who does for longest.
    pub(super) fn keepers(&self, place: Place<'_>) -> impl Iterator<Item = Identity> {
        self.holdings.holders(place).filter_map(|holder| {
            let mut replicas = self.replicas.values();
            let replica = replicas.find(|it| it.seat == Some(holder.seat()))?;
            Some(replica.identity)
        })
    }

    /// Partitions of a peer of which something is missing.
    pub(super) fn behind(&self, peer: Identity) -> usize {
        let replica = self.replicas.get(&peer.node);
        replica.map_or(0, Replica::wants_count)
    }

    /// Takes the latest number of a partition. It travels behind the deltas that it counts.
    pub(super) fn hear_latest(&mut self, now: Millis, sender: Identity, latest: Latest) {
        let replica = replica_of(&mut self.replicas, sender);
        if replica.is_some_and(|replica| replica.number(latest.partition) < latest.number) {
            self.want(now, sender, latest.partition);
        }
    }

    /// Compares sums; asks for the numbers of groups in which something is missing.
    pub(super) fn hear_heartbeat(
        &mut self,
        now: Millis,
        sender: Identity,
        heartbeat: &Heartbeat,
        again_ms: u64,
        mut say: impl FnMut(Entry<'_>),
    ) {
        let Some(replica) = replica_of(&mut self.replicas, sender) else {
            return;
        };
        for group in replica.missed(&heartbeat.sums) {
            if replica.ask_numbers(now, group, again_ms) {
                self.counters.numbers_asked += 1;
                say(Entry::NumbersAsk(NumbersAsk { of: sender, group }));
            }
        }
    }

    /// Asks for what is due, so much at a time that neither the bus nor a peer is flooded.
    pub(super) fn ask(&mut self, now: Millis, again_ms: u64, mut say: impl FnMut(Entry<'_>)) {
        for _ in 0..ASKS_PER_TICK {
            let Some(&(due, node, partition)) = self.asks.first() else {
                return;
            };
            if due > now {
                return;
            }
            let again_at = match is_planted(Fault::AskedOnce) {
                true => Millis(u64::MAX),
                false => now.plus(again_ms),
            };
            self.asks.pop_first();
            self.asks.insert((again_at, node, partition));
            let replica = self.replicas.get_mut(&node);
            let replica = replica.expect("who is asked is there");
            replica.asked(partition, again_at);
            self.counters.snapshots_asked += 1;
            say(Entry::SnapshotAsk(SnapshotAsk {
                of: replica.identity,
                partition,
                from: replica.number(partition),
            }));
        }
    }

    /// When something is to be asked.
    pub(super) fn due(&self) -> Option<Millis> {
        self.asks.first().map(|(due, ..)| *due)
    }

    /// What the others have of an app is told once more, in slices, or that they have nothing.
    pub(super) fn retell(&mut self, app: AppNumber, retold: Retold) {
        self.retelling.add(app, retold);
    }

    /// Goes on with what is long, looking at no more than `limit` rows. True: more is left.
    pub(super) fn work(
        &mut self,
        apps: &mut AppIds,
        limit: usize,
        tell: &mut impl FnMut(ViewChange<'_>),
    ) -> bool {
        let mut budget = limit;
        // Who is gone goes first: a node that starts anew is heard behind it.
        while !self.leaving.is_empty() {
            if !self.sweep(apps, &mut budget, tell) {
                return true;
            }
        }
        while let Some(mut merge) = self.merges.pop_front() {
            if !self.merge(apps, &mut merge, &mut budget, tell) {
                self.merges.push_front(merge);
                return true;
            }
        }
        let holdings = &self.holdings;
        self.retelling.work(apps, holdings, &mut budget, tell)
    }

    /// Lets go what those hold that are gone, in one partition. False: the budget is used up.
    fn sweep(
        &mut self,
        apps: &AppIds,
        budget: &mut usize,
        tell: &mut impl FnMut(ViewChange<'_>),
    ) -> bool {
        let partition = Partition::from_number(self.sweep_at).expect("it wraps around");
        let leaving = &self.leaving;
        let gone = |holder: Holder| {
            let mut leaving = leaving.iter();
            Some(leaving.find(|it| it.seat == holder.seat())?.why)
        };
        let cursor = &mut self.sweep_cursor;
        let holdings = &mut self.holdings;
        if !holdings.sweep(apps, partition, cursor, budget, &gone, tell) {
            return false;
        }
        self.sweep_cursor = Cursor::START;
        self.sweep_at = (self.sweep_at + 1) % PARTITIONS;
        for leaving in &mut self.leaving {
            leaving.parts -= 1;
        }
        while let Some(at) = self.leaving.iter().position(|it| it.parts == 0) {
            let leaving = self.leaving.swap_remove(at);
            self.free_seat(leaving.seat);
        }
        true
    }

    fn free_seat(&mut self, seat: u16) {
        let seat = self.seats.get_mut(usize::from(seat));
        *seat.expect("seats are bounded") = false;
    }

    /// Merges a snapshot. False: the budget is used up.
    fn merge(
        &mut self,
        apps: &mut AppIds,
        merge: &mut Merge,
        budget: &mut usize,
        tell: &mut impl FnMut(ViewChange<'_>),
    ) -> bool {
        let &mut Merge {
            of,
            seat,
            partition,
            number,
            ..
        } = merge;
        loop {
            let Some(replica) = replica_of(&mut self.replicas, of) else {
                return true;
            };
            match merge.phase {
                Phase::Begin => {
                    let before = replica.change_side(seat, partition);
                    if is_planted(Fault::NotAsDifference) {
                        let (cursor, budget) = (&mut { Cursor::START }, &mut { usize::MAX });
                        let gone = |holder| (holder == before).then_some(Departure::Told);
                        let holdings = &mut self.holdings;
                        holdings.sweep(apps, partition, cursor, budget, &gone, tell);
                    }
                    merge.phase = Phase::Take(before);
                }
                Phase::Take(before) => {
                    let holder = replica.holder(seat, partition);
                    if !self.merge_changes(apps, merge, holder, budget, tell) {
                        return false;
                    }
                    // Of a newcomer nothing was held that could go.
                    if replica_of(&mut self.replicas, of)
                        .is_some_and(|it| it.number(partition) == 0)
                    {
                        merge.cursor = Cursor::END;
                    }
                    merge.phase = Phase::Prune(before);
                }
                Phase::Prune(before) => {
                    let is_gone = |holder| holder == before && !is_planted(Fault::PruneSkipped);
                    let gone = |holder| is_gone(holder).then_some(Departure::Told);
                    let (holdings, cursor) = (&mut self.holdings, &mut merge.cursor);
                    if !holdings.sweep(apps, partition, cursor, budget, &gone, tell) {
                        return false;
                    }
                    replica.merged(merge.encoded.len());
                    self.waiting_bytes -= merge.encoded.len();
                    replica.reach(partition, number);
                    self.counters.snapshots_merged += 1;
                    self.tallies.of(of.node).snapshots_merged += 1;
                    merge.phase = Phase::Release;
                }
                Phase::Release => return self.release(apps, of, partition, budget, tell),
            }
        }
    }

    /// Takes the changes of a snapshot. False: the budget is used up.
    fn merge_changes(
        &mut self,
        apps: &mut AppIds,
        merge: &mut Merge,
        holder: Holder,
        budget: &mut usize,
        tell: &mut impl FnMut(ViewChange<'_>),
    ) -> bool {
        while let Some((change, next)) = Changes::of_encoded(&merge.encoded).read_at(merge.at) {
            if *budget == 0 {
                return false;
            }
            *budget -= 1;
            merge.at = next;
            match change {
                Ok(change) => self.apply(apps, merge.partition, holder, change, tell),
                Err(_) => self.counters.changes_broken += 1,
            }
        }
        true
    }

    /// Takes the deltas that waited for a snapshot. False: the budget is used up.
    fn release(
        &mut self,
        apps: &mut AppIds,
        of: Identity,
        partition: Partition,
        budget: &mut usize,
        tell: &mut impl FnMut(ViewChange<'_>),
    ) -> bool {
        // At once.
        let due = Millis(0);
        loop {
            let Some(replica) = replica_of(&mut self.replicas, of) else {
                return true;
            };
            if *budget == 0 {
                return false;
            }
            *budget -= 1;
            self.waiting_bytes -= replica.waiting_bytes();
            let release = replica.release(partition, due);
            self.waiting_bytes += replica.waiting_bytes();
            match release {
                Release::Done => return true,
                Release::Doubled => self.counters.deltas_doubled += 1,
                Release::Apply(encoded) => {
                    let number = match is_planted(Fault::DeltaTwice) {
                        true => replica.number(partition),
                        false => replica.number(partition) + 1,
                    };
                    let change = Change::read(&mut Reader::new(&encoded));
                    let delta = Delta {
                        partition,
                        number,
                        change: change.expect("it was written by `hold`"),
                    };
                    self.apply_delta(of, apps, &delta, tell);
                }
                Release::Gap => {
                    self.count_gap(of);
                    self.asks.insert((due, of.node, partition));
                    return true;
                }
            }
        }
    }
}

/// What a change says, and of what: space, app, name.
fn fact_of(change: Change<'_>) -> Option<(Space, &str, &str, Fact<'_>)> {
    let found = match change {
        Change::Subscriptions {
            app,
            channel,
            count,
        } => {
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            (Space::Channels, app, channel, Fact::Count(count))
        }
        Change::MemberJoined {
            app,
            channel,
            user_id,
            user_info,
        } => {
            let (user_id, info) = (Text::Plain(user_id), Text::Plain(user_info));
            (
                Space::Channels,
                app,
                channel,
                Fact::Joined { user_id, info },
            )
        }
        Change::MemberLeft {
            app,
            channel,
            user_id,
        } => (Space::Channels, app, channel, Fact::Left { user_id }),
        Change::UserOnline { app, user_id } => (Space::Users, app, user_id, Fact::Count(1)),
        Change::UserOffline { app, user_id } => (Space::Users, app, user_id, Fact::Count(0)),
        Change::Connections { app, count } => {
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            (Space::Apps, app, "", Fact::Count(count))
        }
        Change::EventKept { app, channel } => (Space::Kept, app, channel, Fact::Count(1)),
        Change::EventForgotten { app, channel } => (Space::Kept, app, channel, Fact::Count(0)),
        Change::Unknown { .. } => return None,
    };
    Some(found)
}

/// What is known of the sender in this life.
fn replica_of(replicas: &mut BTreeMap<NodeId, Replica>, sender: Identity) -> Option<&mut Replica> {
    let replica = replicas.get_mut(&sender.node);
    replica.filter(|replica| replica.identity == sender)
}

const ASKS_PER_TICK: usize = 64;
/// For what waits, of all peers: strangers could pass themselves off as many.
const WAITING_BYTES_OF_ALL_MAX: usize = 4 * WAITING_BYTES_MAX;
