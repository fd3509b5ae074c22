//! What is counted on a bus, and how it stands.
//!
//! Owns: `Status`, `RoadStatus`; within the room `Tally`.
//! May depend on: `cluster::topic`, `metrics::backend`.
//! Invariants: counters only grow, gauges are named so; no text here holds a secret.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use crate::{cluster::topic::Road, metrics::backend::Meter};

/// How a bus stands, for `/up`, metrics and operators.
#[derive(Clone, Debug)]
pub struct Status {
    pub driver: &'static str,
    pub events: RoadStatus,
    pub state: RoadStatus,
}

impl Status {
    pub fn is_up(&self) -> bool {
        self.events.is_up && self.state.is_up
    }

    /// Why it does not come up, where another try will not mend that.
    pub fn refusal(&self) -> Option<&str> {
        let mut roads = [&self.events, &self.state].into_iter();
        let refused = roads.find(|it| it.is_lasting)?;
        refused.trouble.as_deref()
    }

    pub fn road(&self, road: Road) -> &RoadStatus {
        match road {
            Road::Events => &self.events,
            Road::State => &self.state,
        }
    }
}

/// One road: its two connections, their queues, what went over them.
#[derive(Clone, Debug)]
pub struct RoadStatus {
    pub is_up: bool,
    /// Since when it is up, or down.
    pub since: Instant,
    /// Why it is down, or does not do all that it should.
    pub trouble: Option<String>,
    /// Another try will not mend it.
    pub is_lasting: bool,
    pub topics_wanted: u64,
    pub topics_live: u64,
    /// Servers at which a topic is to be proven before it is live, where there are several.
    pub witnesses: u64,
    /// Those that are waited for; the others hear nothing of us.
    pub witnesses_heard: u64,
    /// Waiting for the bus: queued, or sent and not answered.
    pub outgoing_bytes: usize,
    /// Waiting for us.
    pub incoming_bytes: usize,
    pub counts: Counts,
}

/// Batches, or their entries where it says so, of which one event is one; since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// The bus said that it has it.
    pub published: u64,
    /// Entries. Sent, and the connection ended before an answer: delivered or not, and not sent again.
    pub publish_unknown: u64,
    /// Entries. The bus answered with an error.
    pub publish_denied: u64,
    /// Entries. The queue was full.
    pub refused: u64,
    /// Entries. To be published while there was no connection.
    pub lost_while_down: u64,
    pub received: u64,
    /// Entries. Received, and not taken in time.
    pub dropped: u64,
    /// Received on a topic that is not ours.
    pub strange: u64,
    /// Connections that were made anew.
    pub reconnects: u64,
    /// Attempts that made none.
    pub connects_failed: u64,
}

/// What the connections of a road count, for whoever asks.
#[derive(Debug)]
pub(super) struct Tally {
    /// Of both roads.
    pub(super) meter: Meter,
    pub(super) published: AtomicU64,
    pub(super) publish_unknown: AtomicU64,
    pub(super) publish_denied: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) lost_while_down: AtomicU64,
    pub(super) received: AtomicU64,
    pub(super) dropped: AtomicU64,
    pub(super) strange: AtomicU64,
    pub(super) reconnects: AtomicU64,
    pub(super) connects_failed: AtomicU64,
    /// Gauge: batches dropped, and not yet told by `News::Dropped`.
    pub(super) dropped_untold: AtomicU64,
    /// Gauge.
    pub(super) topics_live: AtomicU64,
    /// Gauges.
    pub(super) witnesses: AtomicU64,
    pub(super) witnesses_heard: AtomicU64,
}

impl Tally {
    pub(super) fn new(meter: Meter) -> Self {
        Self {
            meter,
            published: AtomicU64::default(),
            publish_unknown: AtomicU64::default(),
            publish_denied: AtomicU64::default(),
            refused: AtomicU64::default(),
            lost_while_down: AtomicU64::default(),
            received: AtomicU64::default(),
            dropped: AtomicU64::default(),
            strange: AtomicU64::default(),
            reconnects: AtomicU64::default(),
            connects_failed: AtomicU64::default(),
            dropped_untold: AtomicU64::default(),
            topics_live: AtomicU64::default(),
            witnesses: AtomicU64::default(),
            witnesses_heard: AtomicU64::default(),
        }
    }

    pub(super) fn counts(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            published: read(&self.published),
            publish_unknown: read(&self.publish_unknown),
            publish_denied: read(&self.publish_denied),
            refused: read(&self.refused),
            lost_while_down: read(&self.lost_while_down),
            received: read(&self.received),
            dropped: read(&self.dropped),
            strange: read(&self.strange),
            reconnects: read(&self.reconnects),
            connects_failed: read(&self.connects_failed),
        }
    }
}
