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
    cluster::{figures::Peer, identity::NodeId, node::Node, tallies::Tally, topic::Road},
    metrics::{
        backend::{BackendCounts, Operation},
        bridge::Seconds,
        cluster::{CanarySample, ClusterSample, OTHER_PEERS, PeerSample, PeerTally},
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
        let nodes = self.count_nodes(now);
        let now = millis(now);
        ClusterSample {
            driver: status.driver,
            is_up: status.is_up(),
            canary: self.canary_sample(now, unix_s),
            nodes,
            peers: self.peer_samples(now),
            tallies: self.peer_tallies(),
            messages: self.messages(),
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
            topics_wanted: roads.map(|it| it.topics_wanted).iter().sum(),
            topics: roads.map(|it| it.topics_live).iter().sum(),
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

    /// Adds what is counted here, and not on the bus.
    pub(super) fn add_subscribes(&self, counts: &mut BackendCounts) {
        let operations = counts.role.operations().iter();
        for (operation, seconds) in operations.zip(&mut counts.requests) {
            if *operation == Operation::Subscribe {
                seconds.absorb(&self.counters.subscribe);
            }
        }
    }

    /// By what `ClusterSample` has of kinds and directions.
    fn messages(&self) -> [[u64; 2]; 6] {
        let (node, state) = (self.node.counters(), self.node.state_counters());
        let (said, heard) = (self.node.entries_said(), node.entries_heard);
        [
            [node.events_published, node.events_heard],
            [state.own.deltas_told, state.view.deltas_applied],
            [said.heartbeats, heard.heartbeats],
            [said.snapshots, heard.snapshots],
            [said.requests, heard.requests],
            [said.others, heard.others],
        ]
    }

    fn canary_sample(&self, now: Millis, unix_s: u64) -> Option<CanarySample> {
        if !self.node.has_canaries() {
            return None;
        }
        let mut sample = CanarySample::default();
        let mut echoed = Vec::new();
        for (road, counted) in Road::ALL.into_iter().zip(&self.counters.echoes) {
            sample.echoes.absorb(&counted.seconds);
            sample.failures += counted.failures;
            echoed.push(self.node.echoes(road).map(|it| it.heard_at));
        }
        // `None` is less than any.
        if let Some(oldest) = echoed.into_iter().min().flatten() {
            sample.echoed_unix_s = unix_s as f64 - now.since(oldest) as f64 / 1e3;
        }
        Some(sample)
    }

    fn peer_tallies(&self) -> Vec<PeerTally> {
        let (rows, others) = self.node.tallies();
        let of = |name: String, tally: &Tally| PeerTally {
            name,
            gaps: tally.gaps,
            snapshots: [tally.snapshots_sent, tally.snapshots_merged],
            unknown: tally.entries_unknown,
            lease_expiries: tally.lease_expiries,
        };
        let mut others = others;
        let mut tallies = Vec::new();
        for (node, name, tally) in rows {
            let name = shown(name, node);
            match name == OTHER_PEERS {
                true => others.get_or_insert_default().absorb(tally),
                false => tallies.push(of(name, tally)),
            }
        }
        let others = others.map(|tally| of(OTHER_PEERS.to_owned(), &tally));
        tallies.extend(others);
        tallies
    }

    fn peer_samples(&self, now: Millis) -> Vec<PeerSample> {
        let sample = |peer: Peer<'_>| {
            let lost = peer.counters.batches_lost;
            PeerSample {
                name: shown(peer.name, peer.identity.node),
                silent_s: now.since(peer.heard_at) as f64 / 1e3,
                lost: [lost.events, lost.state],
            }
        };
        self.node.peers().map(sample).collect()
    }

    /// Live ones with this one, those of which nothing was heard for two heartbeats, and those whose lease has
    /// run out.
    fn count_nodes(&self, now: Duration) -> [u64; 3] {
        let all = self.peers(now).count() as u64;
        let silent = self.peers(now).filter(|(_, ms)| self.is_suspect(*ms));
        let suspect = silent.count() as u64;
        let expired = self.node.expired(millis(now)) as u64;
        [1 + all - suspect, suspect, expired]
    }
}

/// Its name, or where it has not said it yet what is left of that on the wire.
pub(super) fn shown(name: &str, node: NodeId) -> String {
    match name.is_empty() {
        true => node.to_string(),
        false => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        bridge::{
            adapter::{news::News, status::RoadStatus},
            apps::AppTable,
            nodes::{carrying_tests::setup, exchange::Command, told::Told},
        },
        cluster::topic::Topic,
        metrics::cluster::LOSSES,
    };

    /// Ticks each second, and brings back what goes out on the topics.
    fn flies(exchange: &mut Exchange, seconds: std::ops::Range<u64>, back: &[Topic]) {
        let (apps, mut told) = (AppTable::build(&[], None), Told::new());
        for now in seconds.map(Duration::from_secs) {
            exchange.tick(now, &mut told);
            while let Some(command) = exchange.next_command() {
                if let Command::Publish { topic, batch } = command
                    && back.contains(&topic)
                {
                    let bytes = batch;
                    exchange.take(now, &apps, News::Batch { topic, bytes }, &mut told);
                }
            }
            exchange.settle(now, &mut told);
        }
    }

    #[test]
    fn the_canaries_of_both_roads_are_one_whose_last_success_is_that_of_the_worse_road() {
        let (apps, mut told) = (AppTable::build(&[], None), Told::new());
        let mut exchange = Exchange::new(Duration::ZERO, setup(0, 1));
        let topics = exchange.topics.common().collect();
        exchange.take(Duration::ZERO, &apps, News::Live(topics), &mut told);
        let sample = |it: &Exchange, now_s: u64| {
            let sample = it.canary_sample(Millis(1_000 * now_s), 10_000);
            sample.expect("canaries fly")
        };
        let count = |it: &CanarySample| it.echoes.buckets.iter().sum::<u64>();
        flies(&mut exchange, 0..20, &[Topic::Nodes]);
        let one_road = sample(&exchange, 19);
        assert!(count(&one_road) >= 10, "{one_road:?}");
        assert_eq!((one_road.echoed_unix_s, one_road.failures), (0.0, 1));
        flies(&mut exchange, 20..30, &[Topic::Nodes, Topic::Echo]);
        let both = sample(&exchange, 29);
        assert_eq!(count(&both), count(&one_road) + 20);
        assert_eq!((both.echoed_unix_s, both.failures), (10_000.0, 1));
        flies(&mut exchange, 30..40, &[Topic::Echo]);
        let worse = sample(&exchange, 39);
        assert_eq!(count(&worse), count(&both) + 10);
        assert_eq!((worse.echoed_unix_s, worse.failures), (9_990.0, 2));
    }

    #[test]
    fn a_canary_that_does_not_fly_is_no_canary_that_was_never_back() {
        let mut setup = setup(0, 1);
        setup.node.times.canary_ms = 0;
        let mut exchange = Exchange::new(Duration::ZERO, setup);
        flies(&mut exchange, 0..20, &[Topic::Nodes, Topic::Echo]);
        assert!(exchange.canary_sample(Millis(20_000), 10_000).is_none());
    }

    #[test]
    fn what_is_lost_on_either_road_is_counted_under_its_own_reason() {
        let exchange = Exchange::new(Duration::ZERO, setup(0, 1));
        let dropped = |counts: Counts, events_dropped| {
            let road = |counts| RoadStatus {
                is_up: true,
                since: std::time::Instant::now(),
                trouble: None,
                is_lasting: false,
                topics_wanted: 0,
                topics_live: 0,
                witnesses: 0,
                witnesses_heard: 0,
                outgoing_bytes: 0,
                incoming_bytes: 0,
                counts,
            };
            let status = Status {
                driver: "redis",
                events: road(counts),
                state: road(counts),
            };
            let sample = exchange.sample(Duration::ZERO, &status, events_dropped, 0);
            let lost = LOSSES.into_iter().zip(sample.dropped);
            lost.filter(|(_, count)| *count > 0).collect::<Vec<_>>()
        };
        let none = Counts::default();
        assert_eq!(dropped(none, 0), []);
        let with = |change: fn(&mut Counts)| {
            let mut counts = none;
            change(&mut counts);
            dropped(counts, 0)
        };
        // Three on each road.
        assert_eq!(with(|it| it.lost_while_down = 3), [("bus_down", 6)]);
        assert_eq!(with(|it| it.publish_unknown = 3), [("bus_unknown", 6)]);
        assert_eq!(with(|it| it.publish_denied = 3), [("bus_denied", 6)]);
        assert_eq!(with(|it| it.refused = 3), [("queue_full", 6)]);
        assert_eq!(with(|it| it.dropped = 3), [("inbox_full", 6)]);
        assert_eq!(dropped(none, 3), [("shard_full", 3)]);
    }
}
