//! What an operator is told of a cluster, of connections that move, and of webhooks that were given up.
//!
//! Owns: the JSON of the admin socket's answers.
//! May depend on: serde, `bridge::{message, queue}`.
//! Invariants: nothing here holds a secret or a URL; only a dead letter names users, it and the largest channels
//! name channels; fields are added, never renamed.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::bridge::{queue::dead::DeadLetter, webhook_event::WebhookEvent};

/// The nodes as one of them sees them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClusterReport {
    /// Who answers.
    pub node_id: String,
    /// `adapter.driver`.
    pub adapter: String,
    /// `cluster.name`.
    pub cluster: String,
    /// As `/ready` has it.
    pub is_ready: bool,
    /// Why not.
    pub reasons: Vec<String>,
    /// Empty on a node that is alone.
    pub roads: Vec<RoadReport>,
    /// The one that answers comes first, then the others by name.
    pub nodes: Vec<NodeReport>,
}

/// What travels over the bus together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RoadReport {
    /// `events` or `state`.
    pub road: String,
    pub is_up: bool,
    pub since_s: u64,
    /// Why it is down, or does not do all that it should.
    pub trouble: Option<String>,
    /// Of the last canary that came back.
    pub round_trip_ms: Option<u64>,
    pub topics_wanted: u64,
    pub topics_live: u64,
    pub outgoing_bytes: usize,
    pub incoming_bytes: usize,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeReport {
    pub node_id: String,
    /// Of this life, in hexadecimal.
    pub incarnation: String,
    /// Version of its program.
    pub program: String,
    pub is_this: bool,
    /// `live`, or `suspect`: not heard for two heartbeats.
    pub state: String,
    /// Since it was last heard; 0 of this one.
    pub heard_ms_ago: u64,
    /// WebSocket connections; none: it has not said.
    pub connections: Option<u64>,
    /// Partitions of its state of which something is missing here, and asked for.
    pub partitions_behind: u64,
    /// Batches of it that did not arrive here.
    pub batches_lost: u64,
}

/// A node at one moment; what counts, counts since its start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TopReport {
    pub node_id: String,
    pub version: String,
    pub uptime_s: u64,
    /// `ok`, `degraded` or `error`, as `/up` has it.
    pub health: String,
    pub reasons: Vec<String>,
    pub draining: bool,
    /// Nodes of the cluster, this one included.
    pub nodes: u64,
    pub shards: Vec<ShardTop>,
    pub bridge: BridgeTop,
    /// But for the bus, of which `cluster status` speaks.
    pub backends: Vec<BackendTop>,
    /// Those with the most subscribers on this node, largest first, at most ten; as of some seconds ago at most.
    #[serde(default)]
    pub channels: Vec<ChannelTop>,
}

/// One shard, as of its last sample, which is at most some seconds old.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ShardTop {
    pub shard: u16,
    /// Of the shard's clock; differences of counts are over differences of this.
    pub at_ms: u64,
    pub connections: u64,
    pub channels: u64,
    pub messages_received: u64,
    pub messages_sent: u64,
    pub api_requests: u64,
    pub turns: u64,
    pub turns_us: u64,
    /// Turns of more than 100 ms.
    pub turn_stalls: u64,
    /// Of the last ten seconds.
    pub busy_ratio: f64,
    /// What clients have not taken yet.
    pub outbox_bytes: u64,
    /// Messages that wait for other shards, and for the bridge.
    pub waiting_for_shards: u64,
    pub waiting_for_bridge: u64,
    pub slow_consumers: u64,
    #[serde(default)]
    pub tls: TlsTop,
}

/// The TLS of a shard's connections, or of a node's; all zero where the port has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsTop {
    pub connections: u64,
    /// Of these, those whose handshake is not done.
    pub handshaking: u64,
    pub handshakes_full: u64,
    pub handshakes_resumed: u64,
    pub handshakes_failed: u64,
    pub sealed_bytes: u64,
}

impl std::iter::Sum for TlsTop {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| Self {
            connections: sum.connections + one.connections,
            handshaking: sum.handshaking + one.handshaking,
            handshakes_full: sum.handshakes_full + one.handshakes_full,
            handshakes_resumed: sum.handshakes_resumed + one.handshakes_resumed,
            handshakes_failed: sum.handshakes_failed + one.handshakes_failed,
            sealed_bytes: sum.sealed_bytes + one.sealed_bytes,
        })
    }
}

/// What leaves the host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BridgeTop {
    /// Of the last ten seconds.
    pub busy_ratio: f64,
    /// `queue.driver`.
    pub queue: String,
    pub webhooks_waiting: u64,
    pub webhooks_in_flight: u64,
    pub oldest_webhook_s: f64,
    pub dead_letters: u64,
    /// Apps that this node knows.
    pub apps: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendTop {
    pub role: String,
    pub backend: String,
    pub is_up: bool,
}

/// A channel by its subscribers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelTop {
    pub app_id: String,
    pub channel: String,
    /// Subscribed connections of this node.
    pub subscribers: u32,
    /// Of all nodes.
    pub everywhere: u32,
}

/// A webhook that was given up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LetterReport {
    /// For `show`, `retry` and `drop`.
    pub id: String,
    /// Milliseconds since the Unix epoch.
    pub died_ms: u64,
    /// As in the label of `webhook_dead_letters_total`, or `malformed`.
    pub reason: String,
    pub attempts: u32,
    /// What the last attempt met.
    pub error: Option<String>,
    /// Of what was no job there is no app.
    pub app_id: Option<String>,
    /// A digest of the app's id and the URL.
    pub target: Option<String>,
    /// As they go on the wire.
    pub events: Vec<serde_json::Value>,
}

/// Those that a node or a store keeps, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LettersReport {
    pub letters: Vec<LetterReport>,
}

/// How many letters were tried again, or dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettledReport {
    pub settled: u64,
}

impl LetterReport {
    /// `None` for what is no letter.
    pub fn of(id: String, text: &[u8]) -> Option<Self> {
        let letter = DeadLetter::read(text)?;
        let job = letter.job.as_ref();
        let events = job.map_or(&[][..], |job| &job.events);
        let event = |event: &Arc<WebhookEvent>| {
            let mut text = Vec::new();
            event.on_the_wire().write(&mut text);
            serde_json::from_slice(&text).unwrap_or_default()
        };
        Some(Self {
            id,
            died_ms: letter.died_ms,
            reason: letter.reason.into(),
            attempts: letter.attempts,
            error: letter.error.map(Into::into),
            app_id: job.map(|job| job.app_id.to_string()),
            target: job.map(|job| job.target.to_string()),
            events: events.iter().map(event).collect(),
        })
    }
}

/// What `apps reload` does, if the store answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AppsReport {
    /// As `app_manager.driver` has it.
    pub driver: String,
    /// Apps that are looked at again; of a file, that are there now.
    pub apps: usize,
}

/// What `cluster rebalance` does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RebalanceReport {
    /// Of this node.
    pub connections: u64,
    /// Of all live nodes, rounded up.
    pub mean: u64,
    /// To be closed with 4200.
    pub closing: u64,
    /// Closed per second at most; 0: evenly within `within_s`.
    pub rate_per_s: u32,
    pub within_s: u32,
}

impl RebalanceReport {
    /// Of a node with so many connections among live nodes with those of `others`.
    pub fn new(connections: u64, others: &[u64], rate_per_s: u32, within_s: u32) -> Self {
        let all = others
            .iter()
            .fold(connections, |sum, it| sum.saturating_add(*it));
        let mean = all.div_ceil(others.len() as u64 + 1);
        let closing = connections.saturating_sub(mean);
        let within_s = match rate_per_s {
            0 => within_s,
            rate => u32::try_from(closing.div_ceil(rate.into())).unwrap_or(u32::MAX),
        };
        Self {
            connections,
            mean,
            closing,
            rate_per_s,
            within_s,
        }
    }

    /// Which part of it each shard closes, in proportion to what it has.
    pub fn shares(&self, by_shard: &[u64]) -> Vec<u64> {
        let all = by_shard.iter().sum::<u64>().max(1);
        let mut left = self.closing;
        let mut shares: Vec<u64> = Vec::with_capacity(by_shard.len());
        for connections in by_shard {
            let share = u128::from(self.closing) * u128::from(*connections) / u128::from(all);
            let share = u64::try_from(share).unwrap_or(u64::MAX).min(left);
            left -= share;
            shares.push(share);
        }
        for (share, connections) in shares.iter_mut().zip(by_shard) {
            let more = left.min(connections.saturating_sub(*share));
            *share += more;
            left -= more;
        }
        shares
    }
}

/// Why an order is not carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    pub error: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_closes_what_it_has_above_the_mean_and_no_more() {
        for (own, others, mean, closing) in [
            (0, &[][..], 0, 0),
            (900, &[], 900, 0),
            (900, &[0, 0], 300, 600),
            (900, &[100], 500, 400),
            (100, &[900], 500, 0),
            (10, &[9, 9], 10, 0),
            (u64::MAX, &[u64::MAX], u64::MAX.div_ceil(2), u64::MAX / 2),
        ] {
            let report = RebalanceReport::new(own, others, 0, 60);
            assert_eq!(
                (report.mean, report.closing),
                (mean, closing),
                "{own} {others:?}"
            );
        }
        assert_eq!(RebalanceReport::new(900, &[0], 100, 60).within_s, 5);
        assert_eq!(RebalanceReport::new(900, &[0], 0, 60).within_s, 60);
    }

    #[test]
    fn shards_share_what_is_closed_by_what_they_have() {
        for (closing, by_shard, expected) in [
            (0, &[5, 5][..], &[0, 0][..]),
            (4, &[5, 5], &[2, 2]),
            (5, &[5, 5], &[3, 2]),
            (7, &[1, 9], &[1, 6]),
            (3, &[0, 3], &[0, 3]),
            (1, &[1, 1, 1], &[1, 0, 0]),
        ] {
            let report = RebalanceReport {
                closing,
                ..RebalanceReport::new(0, &[], 0, 60)
            };
            assert_eq!(
                report.shares(by_shard),
                expected,
                "{closing} of {by_shard:?}"
            );
        }
    }
}
