//! Data path. How long events of the API took from their arrival to their last send on this shard.
//!
//! Owns: `Latencies`, those of a turn.
//! May depend on: `channel::timed`, `metrics::counters`, the turn.
//! Invariants: the clock is read once for all of a turn, and not at all without any; an event that
//! nobody got, or that no request of the API brought, is not counted.

use super::{ServerTurn, ShardServer};
use crate::{
    channel::timed::Timed,
    metrics::counters::{AppCounters, Latency},
    protocol::{app::AppIndex, name::ChannelKind},
};

/// Events that the last of this shard's subscribers gets in this turn: no more than the turn has
/// work for.
#[derive(Clone, Debug, Default)]
pub(super) struct Latencies(Vec<Sent>);

#[derive(Clone, Debug)]
struct Sent {
    app: AppIndex,
    kind: ChannelKind,
    timed: Timed,
}

impl Latencies {
    /// An event has been queued for the last of its subscribers here.
    pub(super) fn note(&mut self, app: AppIndex, kind: ChannelKind, timed: Timed) {
        if timed.sent > 0 {
            self.0.push(Sent { app, kind, timed });
        }
    }
}

impl ShardServer {
    /// Counts the events of this turn, which is about to send them.
    pub(super) fn count_latencies(&mut self, turn: &impl ServerTurn) {
        if self.latencies.0.is_empty() {
            return;
        }
        let now_us = turn.clock_us();
        for Sent { app, kind, timed } in self.latencies.0.drain(..) {
            let took_us = now_us.saturating_sub(timed.began_us);
            let column = kind.metric_column();
            observe(self.counters.app(app), column, timed.sent, took_us);
        }
    }
}

fn observe(counters: &mut AppCounters, column: usize, recipients: u64, took_us: u64) {
    let bucket = match recipients {
        0..=10 => 0,
        11..=100 => 1,
        101..=1_000 => 2,
        1_001..=10_000 => 3,
        _ => 4,
    };
    let table: &mut [[Latency; 5]; 5] = counters.broadcast_latency.get_or_insert_default();
    table[column][bucket].observe(took_us);
}
