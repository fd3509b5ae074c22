//! The bus between nodes, and who is on it: the numbers of one moment, and their rows.
//!
//! Owns: `ClusterSample`, the names of its columns.
//! May depend on: `metrics::{bridge, catalogue, families, sample}`.
//! Invariants: nothing of it is shown on a node without a bus; a peer has rows while it is there.

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
    pub reconnects: u64,
    /// By `ROADS`.
    pub roads: [RoadSample; 2],
    /// By `NODE_STATES`.
    pub nodes: [u64; 2],
    pub lease_expiries: u64,
    pub peers: Vec<PeerSample>,
    /// By `DIRECTIONS`.
    pub events: [u64; 2],
    /// Changes of what is where.
    pub deltas: [u64; 2],
    pub snapshots: [u64; 2],
    /// Partitions of peers of which something was found to be missing.
    pub gaps: u64,
    /// Of which something is missing now.
    pub behind: u64,
    pub batches: [u64; 2],
    pub bytes: [u64; 2],
    /// By `REFUSALS`.
    pub batches_refused: [u64; 8],
    pub entries_unknown: u64,
    /// Of a known kind, and wrong or in a wrong place.
    pub entries_broken: u64,
    /// By `LOSSES`.
    pub dropped: [u64; 9],
    /// Batches that came before this process took over, beyond what it could keep.
    pub unkept: u64,
    /// By `TOPIC_STATES`.
    pub topics: [u64; 2],
    /// By `WITNESS_STATES`.
    pub witnesses: [u64; 2],
    pub subscribe: Seconds,
}

/// What a node sends itself on one road.
#[derive(Clone, Debug, Default)]
pub struct RoadSample {
    pub echoes: Seconds,
    /// Of the last echo, 0: there was none.
    pub echoed_unix_s: f64,
    pub failures: u64,
}

/// Another node.
#[derive(Clone, Debug, Default)]
pub struct PeerSample {
    pub name: String,
    /// Batches, by `ROADS`.
    pub lost: [u64; 2],
}

const ROADS: [&str; 2] = ["events", "state"];
const NODE_STATES: [&str; 2] = ["live", "suspect"];
const DIRECTIONS: [&str; 2] = ["out", "in"];
const TOPIC_STATES: [&str; 2] = ["wanted", "live"];
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
const LOSSES: [&str; 9] = [
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
    let reconnects = sample.reconnects as f64;
    families.add(&name::BACKEND_RECONNECTS, &labels, reconnects);
    for (road, numbers) in ROADS.into_iter().zip(&sample.roads) {
        add_road(families, &[node, road], numbers);
    }
    for peer in &sample.peers {
        for (road, lost) in ROADS.into_iter().zip(peer.lost) {
            let labels = [node, &peer.name, road];
            families.add(&name::CLUSTER_LOST_BATCHES, &labels, lost as f64);
        }
    }
    for (family, labels, counts) in [
        (&name::CLUSTER_BATCHES, DIRECTIONS, sample.batches),
        (&name::CLUSTER_BYTES, DIRECTIONS, sample.bytes),
        (&name::CLUSTER_SNAPSHOTS, DIRECTIONS, sample.snapshots),
    ] {
        for (label, count) in labels.into_iter().zip(counts) {
            families.add(family, &[label, node], count as f64);
        }
    }
    for (kind, counts) in [("event", sample.events), ("delta", sample.deltas)] {
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
    let (family, topics) = (&name::CLUSTER_TOPICS, &sample.topics);
    add_columns(families, node, family, &TOPIC_STATES, topics);
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
    let numbers: [(&'static Family, u64); 6] = [
        (&name::UPGRADE_DROPPED_BATCHES, sample.unkept),
        (&name::CLUSTER_SEQUENCE_GAPS, sample.gaps),
        (&name::CLUSTER_BEHIND, sample.behind),
        (&name::CLUSTER_LEASE_EXPIRIES, sample.lease_expiries),
        (&name::CLUSTER_UNKNOWN_MESSAGES, sample.entries_unknown),
        (&name::CLUSTER_BROKEN_MESSAGES, sample.entries_broken),
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

fn add_road(families: &mut Families<'_>, labels: &[&str; 2], road: &RoadSample) {
    let (family, echoes) = (&name::ADAPTER_CANARY_SECONDS, &road.echoes);
    families.add_histogram(family, labels, &BUCKETS_S, &echoes.buckets, echoes.sum_s);
    let echoed_unix_s = road.echoed_unix_s;
    families.add(&name::ADAPTER_CANARY_SUCCESS, labels, echoed_unix_s);
    let failures = road.failures as f64;
    families.add(&name::ADAPTER_CANARY_FAILURES, labels, failures);
}
