//! What an operator asks of a running node: how it and its cluster are, and to give connections away.
//!
//! Owns: how the loop's state becomes a `TopReport` and a `ClusterReport`, when and how a node sheds connections.
//! May depend on: `bridge::{admin, nodes, run}`, `cluster::node`.
//! Invariants: a node never sheds below the mean of what it knows, nor while what it knows is old.

use std::time::Duration;

use shards::{
    TlsCounters,
    application::{Millis, ShardId},
};

use super::{
    admin::report::{
        BackendTop, BridgeTop, ClusterReport, NodeReport, RebalanceReport, RoadReport, ShardTop,
        TlsTop, TopReport,
    },
    gather::Latest,
    health::Grade,
    link::ShardLink,
    message::FromBridge,
    nodes::Nodes,
    run::Bridge,
};
use crate::{
    cluster::{figures::Peer, identity::Incarnation, topic::Road},
    metrics::sample::backend_of,
};

/// Where `drain.rate_per_s` sets no pace.
const REBALANCE_WITHIN_S: u32 = 60;

impl<L: ShardLink> Bridge<L> {
    pub(super) fn top(&mut self) -> TopReport {
        let has_apps = self.source.is_some() || !self.apps.is_empty();
        let judgement = self.health().judge(has_apps);
        let health = match judgement.grade {
            Grade::Well => "ok",
            Grade::Degraded => "degraded",
            Grade::Unready => "error",
        };
        let others = self.nodes.as_ref().map_or(0, |nodes| nodes.peers().count());
        let shards = self.gathering.shards().iter().enumerate();
        TopReport {
            node_id: self.node_id.clone(),
            version: self.build.version.to_owned(),
            uptime_s: self.link.started().elapsed().as_secs(),
            health: health.to_owned(),
            reasons: judgement.reasons.into_iter().map(str::to_owned).collect(),
            draining: self.drain.is_some(),
            nodes: 1 + others as u64,
            shards: shards.map(shard_top).collect(),
            bridge: self.bridge_top(),
            backends: self.backends_top(),
            channels: self.largest_top(),
        }
    }

    fn bridge_top(&mut self) -> BridgeTop {
        let busy_ratio = self.busy_ratio();
        let webhooks = self.webhooks.state();
        BridgeTop {
            busy_ratio,
            queue: webhooks.driver.to_owned(),
            webhooks_waiting: webhooks.waiting_events as u64,
            webhooks_in_flight: webhooks.in_flight as u64,
            oldest_webhook_s: webhooks.oldest_s,
            dead_letters: webhooks.dead_letters,
            apps: self.apps.iter().count() as u64,
        }
    }

    fn backends_top(&self) -> Vec<BackendTop> {
        let apps = self.source.as_ref().map(|source| {
            let sample = source.sample();
            ("app_manager", sample.backend, sample.is_up)
        });
        let others = self.backends().into_iter();
        let others = others.map(|it| (it.role, it.backend, it.is_up));
        let webhooks = self.webhooks.state();
        let queue = webhooks
            .store
            .map(|it| ("queue", backend_of(webhooks.driver), it.is_up));
        let all = apps.into_iter().chain(queue).chain(others);
        let report = |(role, backend, is_up): (&str, &str, bool)| BackendTop {
            role: role.to_owned(),
            backend: backend.to_owned(),
            is_up,
        };
        all.map(report).collect()
    }

    pub(super) fn cluster(&mut self) -> ClusterReport {
        let has_apps = self.source.is_some() || !self.apps.is_empty();
        let judgement = self.health().judge(has_apps);
        let nodes = self.nodes.as_ref();
        let own = NodeReport {
            node_id: self.node_id.clone(),
            incarnation: shown(nodes.map_or(Incarnation(0), |it| it.exchange().incarnation())),
            program: self.build.version.to_owned(),
            is_this: true,
            state: LIVE.to_owned(),
            heard_ms_ago: 0,
            connections: Some(self.connections_by_shard().iter().sum()),
            partitions_behind: 0,
            batches_lost: 0,
        };
        let mut others = nodes.map(peers).unwrap_or_default();
        others.sort_by(|a, b| a.node_id.cmp(&b.node_id));
        ClusterReport {
            node_id: self.node_id.clone(),
            adapter: nodes
                .map_or("local", |it| it.bus_status().driver)
                .to_owned(),
            cluster: self.config.cluster.name.clone().unwrap_or_default(),
            is_ready: judgement.grade != Grade::Unready,
            reasons: judgement.reasons.into_iter().map(str::to_owned).collect(),
            roads: nodes.map(roads).unwrap_or_default(),
            nodes: std::iter::once(own).chain(others).collect(),
        }
    }

    /// Begins to close what this node has above the mean.
    pub(super) fn rebalance(&mut self) -> Result<RebalanceReport, String> {
        let Some(nodes) = &self.nodes else {
            return Err("this node is alone: adapter.driver = \"local\"".to_owned());
        };
        if self.drain.is_some() {
            return Err("this node drains: all of its connections go".to_owned());
        }
        if nodes.is_failing() || nodes.is_starting() {
            let why = "the bus to the other nodes does not work, so what they have is not known";
            return Err(why.to_owned());
        }
        let live = peers(nodes).into_iter().filter(|it| it.state == LIVE);
        let others: Vec<u64> = live.filter_map(|it| it.connections).collect();
        let by_shard = self.connections_by_shard();
        let rate_per_s = self.config.drain.rate_per_s;
        let connections = by_shard.iter().sum();
        let report = RebalanceReport::new(connections, &others, rate_per_s, REBALANCE_WITHIN_S);
        let until = self.link.started().elapsed() + Duration::from_secs(report.within_s.into());
        let until = Millis(u64::try_from(until.as_millis()).unwrap_or(u64::MAX));
        for (shard, connections) in (0..).map(ShardId).zip(report.shares(&by_shard)) {
            let message = FromBridge::Shed {
                connections,
                until,
                rate_per_s,
            };
            self.outbox.send(&self.link, shard, message);
        }
        let RebalanceReport { mean, closing, .. } = report;
        tracing::info!(connections, mean, closing, "giving connections away");
        Ok(report)
    }

    /// As of the last sample.
    pub(super) fn connections_by_shard(&self) -> Vec<u64> {
        let shards = self.gathering.shards().iter();
        let websockets = shards.map(|it| Some(it.snapshot.as_ref()?.counters.websockets));
        websockets.map(Option::unwrap_or_default).collect()
    }
}

fn shard_top((shard, latest): (usize, &Latest)) -> ShardTop {
    let shard = u16::try_from(shard).unwrap_or(u16::MAX);
    let Some(snapshot) = &latest.snapshot else {
        return ShardTop {
            shard,
            ..ShardTop::default()
        };
    };
    let (counters, runtime) = (&snapshot.counters, &snapshot.runtime);
    let mut top = ShardTop {
        shard,
        at_ms: runtime.since_start_ns / 1_000_000,
        connections: counters.websockets,
        channels: counters.home_channels,
        turns: runtime.turns,
        turns_us: runtime.turn_us_sum,
        turn_stalls: runtime.turn_stalls,
        busy_ratio: latest.busy_ratio,
        outbox_bytes: runtime.outbox_bytes,
        waiting_for_shards: runtime.mesh_depths.iter().map(|it| u64::from(*it)).sum(),
        waiting_for_bridge: runtime.to_bridge_depth.into(),
        tls: tls_top(&runtime.tls),
        ..ShardTop::default()
    };
    for (_, app) in counters.reported_apps() {
        top.messages_received += app.messages_received;
        top.messages_sent += app.messages_sent;
        top.api_requests += app.http_calls;
        top.slow_consumers += app.faults().slow_consumer_disconnects;
    }
    top
}

const fn tls_top(tls: &TlsCounters) -> TlsTop {
    TlsTop {
        connections: tls.connections,
        handshaking: tls.handshaking,
        handshakes_full: tls.handshakes_full,
        handshakes_resumed: tls.handshakes_resumed,
        handshakes_failed: tls.handshakes_failed(),
        sealed_bytes: tls.sealed_bytes,
    }
}

const LIVE: &str = "live";
const SUSPECT: &str = "suspect";

fn peers(nodes: &Nodes) -> Vec<NodeReport> {
    let report = |(peer, silent_ms): (Peer<'_>, u64)| {
        let lost = peer.counters.batches_lost;
        NodeReport {
            node_id: peer.name.to_owned(),
            incarnation: shown(peer.identity.incarnation),
            program: peer.program.to_owned(),
            is_this: false,
            state: match nodes.exchange().is_suspect(silent_ms) {
                true => SUSPECT.to_owned(),
                false => LIVE.to_owned(),
            },
            heard_ms_ago: silent_ms,
            connections: peer.connections,
            partitions_behind: peer.behind as u64,
            batches_lost: lost.events.saturating_add(lost.state),
        }
    };
    nodes.peers().map(report).collect()
}

fn roads(nodes: &Nodes) -> Vec<RoadReport> {
    let status = nodes.bus_status();
    let report = |road: Road| {
        let of_road = status.road(road);
        RoadReport {
            road: road.name().to_owned(),
            is_up: of_road.is_up,
            since_s: of_road.since.elapsed().as_secs(),
            trouble: of_road.trouble.clone(),
            round_trip_ms: nodes
                .exchange()
                .node()
                .echoes(road)
                .map(|it| it.round_trip_ms),
            topics_wanted: of_road.topics_wanted,
            topics_live: of_road.topics_live,
            outgoing_bytes: of_road.outgoing_bytes,
            incoming_bytes: of_road.incoming_bytes,
        }
    };
    Road::ALL.map(report).into()
}

fn shown(incarnation: Incarnation) -> String {
    format!("{:016x}", incarnation.0)
}
