//! The bus between nodes, and who is on it: the numbers of one moment, and their rows.
//!
//! Owns: `ClusterSample`, the names of its columns.
//! May depend on: `metrics::{bridge, catalogue, families, sample}`.
//! Invariants: nothing of it is shown on a node without a bus; no two rows of a metric have the same labels, whatever
//! peers are called.

use super::{
    bridge::Seconds,
    catalogue as name,
    catalogue::{BUCKETS_S, Family},
    families::Families,
    sample::backend_of,
};

/// All numbers of the bus and the other nodes. Counters are since the start.
#[derive(Clone, Debug, Default)]
pub struct ClusterSample {
    /// As in `adapter.driver`.
    pub driver: &'static str,
    /// All connections stand.
    pub is_up: bool,
    /// `None` where none flies.
    pub canary: Option<CanarySample>,
    /// By `NODE_STATES`.
    pub nodes: [u64; 3],
    /// Those that are there.
    pub peers: Vec<PeerSample>,
    /// Of those that are there or went last, and of all others under `OTHER_PEERS`.
    pub tallies: Vec<PeerTally>,
    /// By `KINDS` and `DIRECTIONS`.
    pub messages: [[u64; 2]; 6],
    /// Partitions of peers of which something is missing now.
    pub behind: u64,
    pub batches: [u64; 2],
    pub bytes: [u64; 2],
    /// By `REFUSALS`.
    pub batches_refused: [u64; 8],
    /// Of a known kind, and wrong or in a wrong place.
    pub entries_broken: u64,
    /// By `LOSSES`.
    pub dropped: [u64; 9],
    /// Batches that came before this process took over, beyond what it could keep.
    pub unkept: u64,
    pub topics_wanted: u64,
    /// Confirmed.
    pub topics: u64,
    /// By `WITNESS_STATES`.
    pub witnesses: [u64; 2],
    pub subscribe: Seconds,
}

/// What a node sends itself, on both roads together.
#[derive(Clone, Debug, Default)]
pub struct CanarySample {
    pub echoes: Seconds,
    /// Of the last echo on the road whose last is older; 0: there was none on one of them.
    pub echoed_unix_s: f64,
    pub failures: u64,
}

/// Another node.
#[derive(Clone, Debug, Default)]
pub struct PeerSample {
    pub name: String,
    /// Since it was heard last.
    pub silent_s: f64,
    /// Batches, by `ROADS`.
    pub lost: [u64; 2],
}

/// What was counted of a peer through all of its lives.
#[derive(Clone, Debug, Default)]
pub struct PeerTally {
    pub name: String,
    /// Partitions of it of which something was found to be missing.
    pub gaps: u64,
    /// By `DIRECTIONS`.
    pub snapshots: [u64; 2],
    pub unknown: u64,
    pub lease_expiries: u64,
}

/// What all peers share that have no rows any more, and one of that name, if somebody calls it so.
pub const OTHER_PEERS: &str = "other";

const ROADS: [&str; 2] = ["events", "state"];
const NODE_STATES: [&str; 3] = ["live", "suspect", "expired"];
const DIRECTIONS: [&str; 2] = ["out", "in"];
const KINDS: [&str; 6] = [
    "event",
    "delta",
    "heartbeat",
    "snapshot",
    "request",
    "other",
];
const WITNESS_STATES: [&str; 2] = ["wanted", "heard"];
const REFUSALS: [&str; 8] = [
    "foreign",
    "malformed",
    "version",
    "other_cluster",
    "no_mac",
    "wrong_mac",
    "misplaced",
    "doubled",
];
/// Why messages are lost between nodes.
pub(crate) const LOSSES: [&str; 9] = [
    "bus_down",
    "bus_unknown",
    "bus_denied",
    "queue_full",
    "inbox_full",
    "shard_full",
    "too_long",
    "starting",
    "unknown_app",
];

/// Adds the rows of the bus.
pub(super) fn add(families: &mut Families<'_>, node: &str, sample: &ClusterSample) {
    let labels = [backend_of(sample.driver), node, "adapter"];
    let is_up = f64::from(u8::from(sample.is_up));
    families.add(&name::BACKEND_UP, &labels, is_up);
    if let Some(canary) = &sample.canary {
        add_canary(families, node, canary);
    }
    add_peers(families, node, sample);
    for (family, labels, counts) in [
        (&name::CLUSTER_BATCHES, DIRECTIONS, sample.batches),
        (&name::CLUSTER_BYTES, DIRECTIONS, sample.bytes),
    ] {
        for (label, count) in labels.into_iter().zip(counts) {
            families.add(family, &[label, node], count as f64);
        }
    }
    for (kind, counts) in KINDS.into_iter().zip(sample.messages) {
        for (direction, count) in DIRECTIONS.into_iter().zip(counts) {
            let labels = [direction, kind, node];
            families.add(&name::CLUSTER_MESSAGES, &labels, count as f64);
        }
    }
    add_columns(
        families,
        node,
        &name::CLUSTER_NODES,
        &NODE_STATES,
        &sample.nodes,
    );
    let (family, witnesses) = (&name::CLUSTER_WITNESSES, &sample.witnesses);
    add_columns(families, node, family, &WITNESS_STATES, witnesses);
    let refused = &sample.batches_refused;
    add_columns(
        families,
        node,
        &name::CLUSTER_REFUSED_BATCHES,
        &REFUSALS,
        refused,
    );
    let dropped = &sample.dropped;
    add_columns(families, node, &name::CLUSTER_DROPPED, &LOSSES, dropped);
    let numbers: [(&'static Family, u64); 5] = [
        (&name::UPGRADE_DROPPED_BATCHES, sample.unkept),
        (&name::CLUSTER_BEHIND, sample.behind),
        (&name::CLUSTER_BROKEN_MESSAGES, sample.entries_broken),
        (&name::CLUSTER_TOPICS, sample.topics),
        (&name::CLUSTER_TOPICS_WANTED, sample.topics_wanted),
    ];
    for (family, count) in numbers {
        families.add(family, &[node], count as f64);
    }
    let all = dropped.iter().sum::<u64>() as f64;
    families.add(&name::TRANSPORT_DROPPED, &[node, sample.driver], all);
    let (family, taken) = (&name::CLUSTER_SUBSCRIBE_SECONDS, &sample.subscribe);
    families.add_histogram(family, &[node], &BUCKETS_S, &taken.buckets, taken.sum_s);
}

fn add_columns(
    families: &mut Families<'_>,
    node: &str,
    family: &'static Family,
    labels: &[&str],
    counts: &[u64],
) {
    for (label, count) in labels.iter().zip(counts) {
        families.add(family, &[node, label], *count as f64);
    }
}

fn add_canary(families: &mut Families<'_>, node: &str, canary: &CanarySample) {
    let (family, echoes) = (&name::ADAPTER_CANARY_SECONDS, &canary.echoes);
    families.add_histogram(family, &[node], &BUCKETS_S, &echoes.buckets, echoes.sum_s);
    let echoed_unix_s = canary.echoed_unix_s;
    families.add(&name::ADAPTER_CANARY_SUCCESS, &[node], echoed_unix_s);
    let failures = canary.failures as f64;
    families.add(&name::ADAPTER_CANARY_FAILURES, &[node], failures);
}

fn add_peers(families: &mut Families<'_>, node: &str, sample: &ClusterSample) {
    for peer in &sample.peers {
        let labels = [node, &peer.name];
        families.add(&name::CLUSTER_PEER_LAST_HEARD, &labels, peer.silent_s);
        for (road, lost) in ROADS.into_iter().zip(peer.lost) {
            let labels = [node, &peer.name, road];
            families.add(&name::CLUSTER_LOST_BATCHES, &labels, lost as f64);
        }
    }
    for peer in &sample.tallies {
        for (direction, count) in DIRECTIONS.into_iter().zip(peer.snapshots) {
            let labels = [direction, node, &peer.name];
            families.add(&name::CLUSTER_SNAPSHOTS, &labels, count as f64);
        }
        let numbers: [(&'static Family, u64); 3] = [
            (&name::CLUSTER_SEQUENCE_GAPS, peer.gaps),
            (&name::CLUSTER_UNKNOWN_MESSAGES, peer.unknown),
            (&name::CLUSTER_LEASE_EXPIRIES, peer.lease_expiries),
        ];
        for (family, count) in numbers {
            families.add(family, &[node, &peer.name], count as f64);
        }
    }
}
