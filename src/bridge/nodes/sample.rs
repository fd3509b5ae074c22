//! The numbers of the bus and the other nodes, for a scrape.
//!
//! Owns: `Counters`, and how they become a `ClusterSample`.
//! May depend on: `bridge::adapter::status`, `cluster`, `metrics`. Time is an argument.
//! Invariants: reads only, but for what is counted as it happens; counters only grow.

use std::time::Duration;

use shards::application::Millis;

use super::exchange::{Exchange, millis};
use crate::{
    bridge::adapter::status::{Counts, Status},
    cluster::{figures::Peer, identity::Identity, node::Node, topic::Road},
    metrics::{
        bridge::Seconds,
        cluster::{ClusterSample, PeerSample, RoadSample},
    },
};

/// What happened, for metrics.
#[derive(Debug, Default)]
pub(super) struct Counters {
    /// Own events that do not fit into a batch.
    pub(super) events_too_long: u64,
    /// Own events from before this node had started, beyond what may wait for that.
    pub(super) events_before_start: u64,
    /// Events of others for apps that this node does not have.
    pub(super) events_of_unknown_apps: u64,
    /// Events of others for a channel that does not belong to their partition.
    pub(super) events_misplaced: u64,
    /// Own batches that are too long for the bus.
    pub(super) batches_too_long: u64,
    /// Batches that a process that follows another one kept no longer.
    pub(super) batches_unkept: u64,
    pub(super) bytes_out: u64,
    pub(super) bytes_in: u64,
    pub(super) lease_expiries: u64,
    /// From a topic's asking to its confirmation.
    pub(super) subscribe: Seconds,
    /// By `Road::ALL`.
    pub(super) echoes: [Echoed; 2],
}

/// What this node sent itself on a road.
#[derive(Debug, Default)]
pub(super) struct Echoed {
    /// Counted so far.
    count: u64,
    seconds: Seconds,
    failures: u64,
}

impl Counters {
    pub(super) fn count_late(&mut self, road: Road) {
        let [events, state] = &mut self.echoes;
        match road {
            Road::Events => events.failures += 1,
            Road::State => state.failures += 1,
        }
    }

    /// Counts what has come back since.
    pub(super) fn count_echoes(&mut self, node: &Node) {
        for (road, echoed) in Road::ALL.into_iter().zip(&mut self.echoes) {
            if let Some(echoes) = node.echoes(road)
                && echoes.count > echoed.count
            {
                echoed.count = echoes.count;
                let round_trip = Duration::from_millis(echoes.round_trip_ms);
                echoed.seconds.observe(round_trip.as_secs_f64());
            }
        }
    }
}

impl Exchange {
    /// For a scrape. Of other nodes' events shards will not get so many.
    pub(super) fn sample(
        &self,
        now: Duration,
        status: &Status,
        events_dropped: u64,
        unix_s: u64,
    ) -> ClusterSample {
        let (node, ours) = (self.node.counters(), &self.counters);
        let roads = [&status.events, &status.state];
        let state = self.node.state_counters();
        let sum = |count: fn(&Counts) -> u64| roads.map(|it| count(&it.counts)).iter().sum();
        let doubled = node.batches_doubled;
        let (live, suspect) = self.count_nodes(now);
        let now = millis(now);
        ClusterSample {
            driver: status.driver,
            is_up: status.is_up(),
            reconnects: sum(|it| it.reconnects),
            roads: self.road_samples(now, unix_s),
            nodes: [live, suspect],
            lease_expiries: ours.lease_expiries,
            peers: self.peer_samples(),
            events: [node.events_published, node.events_heard],
            deltas: [state.own.deltas_told, state.view.deltas_applied],
            snapshots: [state.supply.snapshots_sent, state.view.snapshots_merged],
            gaps: state.view.gaps,
            behind: state.view.wanted as u64,
            batches: [node.batches_sent, node.batches_heard],
            bytes: [ours.bytes_out, ours.bytes_in],
            batches_refused: [
                node.batches_foreign + sum(|it| it.strange),
                node.batches_malformed,
                node.batches_of_other_version,
                node.batches_of_other_cluster,
                node.batches_without_mac,
                node.batches_with_wrong_mac,
                node.batches_misplaced,
                doubled,
            ],
            entries_unknown: node.entries_unknown,
            entries_broken: node.entries_broken + node.entries_misplaced + ours.events_misplaced,
            dropped: [
                sum(|it| it.lost_while_down),
                sum(|it| it.publish_unknown),
                sum(|it| it.publish_denied),
                sum(|it| it.refused),
                sum(|it| it.dropped),
                events_dropped,
                ours.events_too_long + ours.batches_too_long,
                ours.events_before_start,
                ours.events_of_unknown_apps,
            ],
            unkept: ours.batches_unkept,
            topics: [
                roads.map(|it| it.topics_wanted).iter().sum(),
                roads.map(|it| it.topics_live).iter().sum(),
            ],
            witnesses: [
                roads.map(|it| it.witnesses).into_iter().max().unwrap_or(0),
                roads
                    .map(|it| it.witnesses_heard)
                    .into_iter()
                    .min()
                    .unwrap_or(0),
            ],
            subscribe: ours.subscribe.clone(),
        }
    }

    fn road_samples(&self, now: Millis, unix_s: u64) -> [RoadSample; 2] {
        let mut echoed = Road::ALL.into_iter().zip(&self.counters.echoes);
        std::array::from_fn(|_| {
            let (road, echoed) = echoed.next().expect("there are two roads");
            let heard_at = self.node.echoes(road).map(|it| it.heard_at);
            let age_s = heard_at.map(|at| now.since(at) as f64 / 1e3);
            RoadSample {
                echoes: echoed.seconds.clone(),
                echoed_unix_s: age_s.map_or(0.0, |age_s| unix_s as f64 - age_s),
                failures: echoed.failures,
            }
        })
    }

    fn peer_samples(&self) -> Vec<PeerSample> {
        let sample = |peer: Peer<'_>| {
            let lost = peer.counters.batches_lost;
            PeerSample {
                name: shown(peer.name, peer.identity),
                lost: [lost.events, lost.state],
            }
        };
        self.node.peers().map(sample).collect()
    }

    /// Live ones with this one, and those of which nothing was heard for two heartbeats.
    fn count_nodes(&self, now: Duration) -> (u64, u64) {
        let all = self.peers(now).count() as u64;
        let silent = self.peers(now).filter(|(_, ms)| self.is_suspect(*ms));
        let suspect = silent.count() as u64;
        (1 + all - suspect, suspect)
    }
}

/// Its name, or where it has not said it yet what is left of that on the wire.
pub(super) fn shown(name: &str, peer: Identity) -> String {
    match name.is_empty() {
        true => peer.node.to_string(),
        false => name.to_owned(),
    }
}
