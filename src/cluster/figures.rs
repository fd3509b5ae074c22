//! What a node tells of itself, its peers and the bus.
//!
//! Owns: `Counters`, `PeerCounters`, `Peer`, `BusState`, `Echoes`, `ByKind`.
//! May depend on: `cluster::{entry, identity, membership, topic, wire}`, `Millis`.
//! Invariants: counts only grow.

use shards::application::Millis;

use super::{
    entry::Entry,
    identity::Identity,
    membership,
    topic::Road,
    wire::{BatchError, Version},
};

/// How the bus is for this node, by what it sends itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BusState {
    pub events: RoadState,
    pub state: RoadState,
}

impl BusState {
    /// Whether any road is late.
    pub fn is_late(&self) -> bool {
        self.events.is_late || self.state.is_late
    }
}

/// One road of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RoadState {
    /// As of the last tick.
    pub is_late: bool,
    /// Of the last echo, to the grain of the caller's `now`; `None`: there was none yet.
    pub round_trip_ms: Option<u64>,
}

/// What came back of what this node sends itself on a road.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Echoes {
    pub count: u64,
    /// Of the last one.
    pub round_trip_ms: u64,
    pub heard_at: Millis,
}

/// Another node that is there.
#[derive(Clone, Copy, Debug)]
pub struct Peer<'a> {
    pub identity: Identity,
    /// Its `cluster.node_id`; empty until it said so.
    pub name: &'a str,
    /// The version of its program; empty until it said so.
    pub program: &'a str,
    /// In which its last batch was written.
    pub version: Version,
    pub heard_at: Millis,
    /// WebSocket connections; `None` until it said so.
    pub connections: Option<u64>,
    /// Since when it says `Heartbeat::is_founded`.
    pub founded_at: Option<Millis>,
    /// Partitions of what it has of which something is missing here.
    pub behind: usize,
    pub counters: &'a PeerCounters,
}

/// What came from one life of a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerCounters {
    pub batches_heard: u64,
    pub events_heard: u64,
    pub batches_doubled: u64,
    pub batches_lost: ByRoad,
    pub entries_broken: u64,
}

/// A count for each road.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByRoad {
    pub events: u64,
    pub state: u64,
}

impl ByRoad {
    pub(super) fn add(&mut self, road: Road, count: u64) {
        let total = match road {
            Road::Events => &mut self.events,
            Road::State => &mut self.state,
        };
        // Whoever may speak may leave out any number of numbers.
        *total = total.saturating_add(count);
    }
}

/// Entries by what they are for. Events and changes of state are counted where they are taken, and what a node sends
/// itself is no message to others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByKind {
    pub heartbeats: u64,
    /// Parts of them.
    pub snapshots: u64,
    /// Questions: for numbers, snapshots and last events.
    pub requests: u64,
    pub others: u64,
}

impl ByKind {
    pub(super) fn add(&mut self, entry: &Entry<'_>) {
        let count = match entry {
            Entry::Event(_) | Entry::Delta(_) | Entry::Canary(_) | Entry::Proof(_) => return,
            Entry::Heartbeat(_) => &mut self.heartbeats,
            Entry::Snapshot(_) => &mut self.snapshots,
            Entry::NumbersAsk(_) | Entry::SnapshotAsk(_) | Entry::KeptAsk(_) => &mut self.requests,
            Entry::Hello(_)
            | Entry::Goodbye
            | Entry::Latest(_)
            | Entry::Terminate { .. }
            | Entry::Spent(_)
            | Entry::Kept(_)
            | Entry::AppsChanged => &mut self.others,
        };
        *count += 1;
    }

    pub(super) fn absorb(&mut self, other: &Self) {
        self.heartbeats += other.heartbeats;
        self.snapshots += other.snapshots;
        self.requests += other.requests;
        self.others += other.others;
    }
}

/// What happened since the start, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub events_published: u64,
    pub batches_sent: u64,
    /// Own entries for which there was no room.
    pub entries_unsaid: u64,
    /// Batches of peers that were read.
    pub batches_heard: u64,
    pub events_heard: u64,
    /// Of those that are neither events nor changes.
    pub entries_heard: ByKind,
    /// Own batches that came back.
    pub batches_own: u64,
    /// Not of Sockudo.
    pub batches_foreign: u64,
    pub batches_malformed: u64,
    pub batches_of_other_version: u64,
    pub batches_of_other_cluster: u64,
    pub batches_without_mac: u64,
    pub batches_with_wrong_mac: u64,
    /// On another topic than that for which they were made.
    pub batches_misplaced: u64,
    /// With a number that was there before: a double or a replay.
    pub batches_doubled: u64,
    pub batches_lost: ByRoad,
    /// Of kinds of a later version.
    pub entries_unknown: u64,
    /// Of a known kind, and not what that kind must be.
    pub entries_broken: u64,
    /// Of a known kind, where it has no place.
    pub entries_misplaced: u64,
    pub membership: membership::Counters,
}

impl Counters {
    pub(super) fn refuse(&mut self, error: BatchError) {
        let count = match error {
            BatchError::Foreign => &mut self.batches_foreign,
            BatchError::Version { .. } => &mut self.batches_of_other_version,
            BatchError::OtherCluster => &mut self.batches_of_other_cluster,
            BatchError::NoMac => &mut self.batches_without_mac,
            BatchError::WrongMac => &mut self.batches_with_wrong_mac,
            BatchError::TooLong { .. }
            | BatchError::Header
            | BatchError::Flags { .. }
            | BatchError::TooManyEntries
            | BatchError::Frame(_) => &mut self.batches_malformed,
        };
        *count += 1;
    }
}
