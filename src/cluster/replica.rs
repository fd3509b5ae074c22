//! How far what a peer reports of itself was heard, and what of it waits for a snapshot.
//!
//! Owns: `Replica`: the latest numbers and their sums, partitions of which something is missing, deltas
//! and parts of snapshots that wait.
//! May depend on: `cluster::{carrying, change, entry, holdings, identity}`, `protocol::partition`, serde,
//! `Millis`.
//! Invariants: a number grows by one with each delta, or to that of a snapshot; while something of a
//! partition is missing none of its deltas is applied; what waits is at most `WAITING_BYTES_MAX`.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use serde_bytes::Bytes;
use shards::application::Millis;

use super::{
    carrying::{Carrier, CarryError, Kind, read},
    entry::{Delta, GROUPS, Group, Rest, Snapshot},
    fault::{Fault, is_planted},
    holdings::Holder,
    identity::{Identity, NodeId},
};
use crate::protocol::partition::{PARTITIONS, Partition};

#[derive(Debug)]
pub(super) struct Replica {
    pub(super) identity: Identity,
    /// Its place among the holders; `None`: none was free.
    pub(super) seat: Option<u16>,
    /// By partition the latest number that was applied; 0: none.
    numbers: Box<[u64]>,
    /// By group the sum of them.
    sums: [u64; GROUPS],
    /// By partition the side on which it holds, a bit each.
    sides: [u64; SIDE_WORDS],
    /// The sums of the last heartbeat.
    said: Option<[u64; GROUPS]>,
    numbers_asked_at: [Option<Millis>; GROUPS],
    wants: BTreeMap<Partition, Want>,
    /// Of deltas and parts that wait.
    waiting_bytes: usize,
}

/// Of a partition something is missing.
#[derive(Debug)]
struct Want {
    /// When it is to be asked for; `None`: its snapshot is there and is being merged.
    due: Option<Millis>,
    /// Later deltas, by growing number.
    held: VecDeque<(u64, Box<[u8]>)>,
    parts: Option<Parts>,
}

/// What came of a snapshot.
#[derive(Debug)]
struct Parts {
    id: u64,
    number: u64,
    /// The part that is next.
    next: u64,
    encoded: Vec<u8>,
}

/// Beside what it wants, for the process that follows.
#[derive(Debug, Deserialize, Serialize)]
struct ReplicaRecord {
    identity: Identity,
    seat: Option<u16>,
    numbers: Vec<u64>,
    sides: Vec<u64>,
    said: Option<Vec<u64>>,
    numbers_asked_at: Vec<Option<Millis>>,
}

/// Of a peer, likewise.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct WantRecord<'a> {
    pub(super) of: NodeId,
    partition: u16,
    due: Option<Millis>,
    #[serde(borrow)]
    held: Vec<(u64, &'a Bytes)>,
    parts: Option<PartsRecord<'a>>,
}

#[derive(Debug, Deserialize, Serialize)]
struct PartsRecord<'a> {
    id: u64,
    number: u64,
    next: u64,
    #[serde(with = "serde_bytes")]
    encoded: &'a [u8],
}

/// What is to be done with a delta.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heed {
    Apply,
    /// It was there before.
    Doubled,
    /// It comes after a gap: it is held, and its partition is to be asked for.
    Gap,
    /// Something of its partition is missing.
    Hold,
}

/// What a delta that waits may do now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Release {
    /// Nothing waits any more, nothing is missing.
    Done,
    Apply(Box<[u8]>),
    Doubled,
    /// Something is missing before it: its partition is to be asked for again.
    Gap,
}

/// What became of a part of a snapshot.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PartHeed {
    /// It is needed by nobody here, or not the next one.
    Ignored,
    Kept,
    /// There is no room for it: the snapshot is lost.
    Overflow,
    /// It was the last one: number and changes of the snapshot.
    Whole(u64, Vec<u8>),
}

impl Replica {
    pub(super) fn new(identity: Identity, seat: Option<u16>) -> Self {
        Self {
            identity,
            seat,
            numbers: vec![0; usize::from(PARTITIONS)].into(),
            sums: [0; GROUPS],
            sides: [0; SIDE_WORDS],
            said: None,
            numbers_asked_at: [None; GROUPS],
            wants: BTreeMap::new(),
            waiting_bytes: 0,
        }
    }

    pub(super) fn carry(&self, carrier: &mut Carrier<'_>) {
        let record = ReplicaRecord {
            identity: self.identity,
            seat: self.seat,
            numbers: self.numbers.to_vec(),
            sides: self.sides.to_vec(),
            said: self.said.map(Vec::from),
            numbers_asked_at: self.numbers_asked_at.to_vec(),
        };
        carrier.item(Kind::REPLICA, &record);
        for (partition, want) in &self.wants {
            let held = want.held.iter();
            let record = WantRecord {
                of: self.identity.node,
                partition: partition.number(),
                due: want.due,
                held: held.map(|(number, it)| (*number, Bytes::new(it))).collect(),
                parts: want.parts.as_ref().map(|parts| PartsRecord {
                    id: parts.id,
                    number: parts.number,
                    next: parts.next,
                    encoded: &parts.encoded,
                }),
            };
            carrier.item(Kind::WANT, &record);
        }
    }

    pub(super) fn carried(item: &[u8]) -> Result<Self, CarryError> {
        let record: ReplicaRecord = read(item)?;
        let mut replica = Self::new(record.identity, record.seat);
        for (partition, number) in (0..).map_while(Partition::from_number).zip(record.numbers) {
            if number > 0 {
                replica.reach(partition, number);
            }
        }
        for (sides, carried) in replica.sides.iter_mut().zip(record.sides) {
            *sides = carried;
        }
        replica.said = record.said.and_then(|said| said.try_into().ok());
        let asked_at = replica.numbers_asked_at.iter_mut();
        for (asked_at, carried) in asked_at.zip(record.numbers_asked_at) {
            *asked_at = carried;
        }
        Ok(replica)
    }

    /// Takes what is missing of a partition.
    pub(super) fn take_want(&mut self, record: &WantRecord<'_>) -> Result<(), CarryError> {
        let partition = Partition::from_number(record.partition);
        let partition = partition.ok_or(CarryError::NO_SUCH_PARTITION)?;
        let held = record.held.iter();
        let parts = record.parts.as_ref();
        let want = Want {
            due: record.due,
            held: held
                .map(|(number, it)| (*number, Box::from(&***it)))
                .collect(),
            parts: parts.map(|parts| Parts {
                id: parts.id,
                number: parts.number,
                next: parts.next,
                encoded: parts.encoded.to_vec(),
            }),
        };
        let parts_bytes = want.parts.as_ref().map_or(0, |parts| parts.encoded.len());
        self.waiting_bytes += held_bytes(&want.held) + parts_bytes;
        match self.wants.insert(partition, want) {
            None => Ok(()),
            Some(_) => Err(CarryError::Inconsistent("a partition is wanted twice")),
        }
    }

    /// So many bytes of a snapshot wait to be merged.
    pub(super) fn take_merge(&mut self, bytes: usize) {
        self.waiting_bytes += bytes;
    }

    /// As whom it holds what it reports of a partition.
    pub(super) fn holder(&self, seat: u16, partition: Partition) -> Holder {
        let (word, bit) = side_place(partition);
        let side = self.sides.get(word).is_some_and(|word| word & bit != 0);
        Holder::new(seat, side)
    }

    /// From now on it holds as another one; who it was.
    pub(super) fn change_side(&mut self, seat: u16, partition: Partition) -> Holder {
        let before = self.holder(seat, partition);
        let (word, bit) = side_place(partition);
        *self.sides.get_mut(word).expect("each has a bit") ^= bit;
        before
    }

    pub(super) fn number(&self, partition: Partition) -> u64 {
        let number = self.numbers.get(usize::from(partition.number()));
        *number.expect("each partition has a number")
    }

    /// All up to this number is there.
    pub(super) fn reach(&mut self, partition: Partition, number: u64) {
        let at = self.numbers.get_mut(usize::from(partition.number()));
        let at = at.expect("each partition has a number");
        let sum = self
            .sums
            .get_mut(usize::from(Group::of(partition).number()));
        let sum = sum.expect("each group has a sum");
        assert!(number >= *at, "numbers only grow");
        // Who lies about numbers may make a sum too great for its place.
        *sum = sum.wrapping_add(number - *at);
        *at = number;
    }

    /// How a delta is to be taken.
    pub(super) fn heed(&self, delta: &Delta<'_>) -> Heed {
        let number = self.number(delta.partition);
        match self.wants.get(&delta.partition) {
            _ if delta.number <= number => Heed::Doubled,
            Some(want) => {
                let latest = want.held.back().map_or(0, |(latest, _)| *latest);
                match delta.number > latest {
                    true => Heed::Hold,
                    false => Heed::Doubled,
                }
            }
            None if delta.number == number + 1 || is_planted(Fault::ResyncSkipped) => Heed::Apply,
            None => Heed::Gap,
        }
    }

    /// Something is missing. False: that was known.
    pub(super) fn want(&mut self, partition: Partition, due: Millis) -> bool {
        if self.wants.contains_key(&partition) {
            return false;
        }
        let want = Want {
            due: Some(due),
            held: VecDeque::new(),
            parts: None,
        };
        self.wants.insert(partition, want);
        true
    }

    /// How many partitions miss something.
    pub(super) fn wants_count(&self) -> usize {
        self.wants.len()
    }

    /// When a partition is to be asked for.
    pub(super) fn due(&self, partition: Partition) -> Option<Millis> {
        self.wants.get(&partition).and_then(|want| want.due)
    }

    /// It was asked for, and is again if nothing comes until then.
    pub(super) fn asked(&mut self, partition: Partition, again_at: Millis) {
        if let Some(want) = self.wants.get_mut(&partition) {
            want.due = Some(again_at);
        }
    }

    /// Keeps a delta until what is missing is there, if all peers' together leave `room`. False: there is none, and all that waits for the
    /// partition goes, since behind a gap it is worth nothing.
    pub(super) fn hold(&mut self, delta: &Delta<'_>, room: usize) -> bool {
        let Some(want) = self.wants.get_mut(&delta.partition) else {
            return false;
        };
        let mut encoded = Vec::new();
        delta.change.write(&mut encoded);
        let bytes = encoded.len() + HELD_BYTES;
        if self.waiting_bytes + bytes > WAITING_BYTES_MAX || bytes > room {
            self.waiting_bytes -= held_bytes(&want.held);
            want.held.clear();
            return false;
        }
        self.waiting_bytes += bytes;
        if is_planted(Fault::HeldForgotten) {
            self.waiting_bytes -= bytes;
            return true;
        }
        want.held.push_back((delta.number, encoded.into()));
        true
    }

    /// Keeps a part of a snapshot of which something is missing, if all peers' together leave `room`.
    pub(super) fn keep_part(&mut self, snapshot: &Snapshot<'_>, room: usize) -> PartHeed {
        let number = self.number(snapshot.partition);
        let want = self.wants.get_mut(&snapshot.partition);
        let Some(want) = want.filter(|want| want.due.is_some() && snapshot.number >= number) else {
            return PartHeed::Ignored;
        };
        let waiting_bytes = &mut self.waiting_bytes;
        let is_next = want.parts.as_ref().is_some_and(|parts| {
            let next = (parts.id, parts.number, parts.next);
            next == (snapshot.id, snapshot.number, snapshot.part)
                || is_planted(Fault::PartsUnchecked)
        });
        if !is_next {
            // Another one begins, or a part was lost.
            let old = want.parts.take();
            *waiting_bytes -= old.map_or(0, |parts| parts.encoded.len());
            if snapshot.part != 0 {
                return PartHeed::Ignored;
            }
        }
        let encoded = snapshot.changes.encoded();
        if *waiting_bytes + encoded.len() > WAITING_BYTES_MAX || encoded.len() > room {
            let old = want.parts.take();
            *waiting_bytes -= old.map_or(0, |parts| parts.encoded.len());
            return PartHeed::Overflow;
        }
        *waiting_bytes += encoded.len();
        let parts = want.parts.get_or_insert_with(|| Parts {
            id: snapshot.id,
            number: snapshot.number,
            next: 0,
            encoded: Vec::new(),
        });
        parts.next += 1;
        parts.encoded.extend_from_slice(encoded);
        match snapshot.rest {
            Rest::Follows => PartHeed::Kept,
            Rest::None => {
                let parts = want.parts.take().expect("a part was put there");
                want.due = None;
                PartHeed::Whole(parts.number, parts.encoded)
            }
        }
    }

    pub(super) fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// So many bytes of a whole snapshot are merged and do not wait any more.
    pub(super) fn merged(&mut self, bytes: usize) {
        self.waiting_bytes -= bytes;
    }

    /// The next delta that waited for a snapshot that is merged now.
    pub(super) fn release(&mut self, partition: Partition, due: Millis) -> Release {
        let number = self.number(partition);
        let Some(want) = self.wants.get_mut(&partition) else {
            return Release::Done;
        };
        let Some((next, encoded)) = want.held.pop_front() else {
            self.wants.remove(&partition);
            return Release::Done;
        };
        self.waiting_bytes -= encoded.len() + HELD_BYTES;
        if next <= number {
            if is_planted(Fault::DeltaTwice) {
                return Release::Apply(encoded);
            }
            return Release::Doubled;
        }
        if next == number + 1 {
            return Release::Apply(encoded);
        }
        // What is behind it may still be of use, behind the snapshot that is asked for.
        self.waiting_bytes += encoded.len() + HELD_BYTES;
        want.held.push_front((next, encoded));
        want.due = Some(due);
        Release::Gap
    }

    /// Groups of which something is missing that nobody has asked for, by the sums of a heartbeat.
    // Changes and heartbeats travel on different lanes: a sum that is not reached may be on its way. One
    // that is still not reached at the next heartbeat is missed. Of a newcomer nothing was heard before.
    pub(super) fn missed(&mut self, sums: &[u64; GROUPS]) -> Vec<Group> {
        let before = self.said.replace(*sums).unwrap_or(*sums);
        let mut missed = Vec::new();
        for (number, (ours, before)) in (0..).zip(self.sums.iter().zip(before)) {
            let group = Group::from_number(number).expect("each sum is of a group");
            let is_asked_for = || group.partitions().any(|it| self.wants.contains_key(&it));
            if *ours < before && !is_asked_for() && !is_planted(Fault::SumIgnored) {
                missed.push(group);
            }
        }
        missed
    }

    /// Whether the group's numbers may be asked for now, at most once in so many milliseconds.
    pub(super) fn ask_numbers(&mut self, now: Millis, group: Group, each_ms: u64) -> bool {
        let asked_at = self.numbers_asked_at.get_mut(usize::from(group.number()));
        let asked_at = asked_at.expect("each group has a time");
        let is_due = asked_at.is_none_or(|at| now.since(at) >= each_ms);
        if is_due {
            *asked_at = Some(now);
        }
        is_due
    }

    /// When partitions are to be asked for.
    pub(super) fn dues(&self) -> impl Iterator<Item = (Millis, Partition)> {
        let wants = self.wants.iter();
        wants.filter_map(|(partition, want)| want.due.map(|due| (due, *partition)))
    }
}

fn held_bytes(held: &VecDeque<(u64, Box<[u8]>)>) -> usize {
    held.iter()
        .map(|(_, encoded)| encoded.len() + HELD_BYTES)
        .sum()
}

fn side_place(partition: Partition) -> (usize, u64) {
    let number = usize::from(partition.number());
    (number / 64, 1 << (number % 64))
}

const SIDE_WORDS: usize = PARTITIONS as usize / 64;
/// What a delta that waits takes beyond its change.
const HELD_BYTES: usize = 32;
/// Of one peer, for deltas that wait and for snapshots: a partition of some 600 000 members fits.
pub(super) const WAITING_BYTES_MAX: usize = 64 << 20;
