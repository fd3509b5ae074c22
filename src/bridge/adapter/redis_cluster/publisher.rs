//! Data path. The publishing connections of a road, one per master.
//!
//! Owns: `run`.
//! May depend on: the rest of `adapter` and `redis_cluster`, `redis::publisher`, tokio.
//! Invariants: batches of one topic go to one master in the order in which they were queued; each holds
//! its bytes of the road's bound until its fate is known, whichever master it is for; what nobody can
//! take is lost and counted.

use std::sync::{Arc, atomic::Ordering};

use tokio::{sync::mpsc, task::JoinSet};

use super::{
    super::{queue::Queued, redis::publisher, roads::PublisherEnd, status::Tally},
    Duty,
    parts::{Parts, Turn},
    slots::SlotMap,
};

/// What is to be sent to one master. Bounded by the road's bytes.
type Line = mpsc::UnboundedSender<Queued>;

/// Publishes until the bus is closed.
pub(super) async fn run(duty: Duty, end: PublisherEnd) {
    let PublisherEnd {
        mut outgoing,
        reporter,
        tally,
    } = end;
    let mut parts: Parts<Line> = Parts::new(reporter, duty.chart.clone());
    let mut connections = JoinSet::new();
    let mut map: Option<Arc<SlotMap>> = None;
    let mut taken = Vec::new();
    loop {
        tokio::select! {
            biased;
            turn = parts.next() => {
                if let Turn::Known(known) = turn {
                    map.clone_from(&known.map);
                    while connections.try_join_next().is_some() {}
                    // One that is master no more sends what it has, and ends.
                    parts.adopt(known, |at, reporter| {
                        let (line, outgoing) = mpsc::unbounded_channel();
                        let tally = Arc::clone(&tally);
                        let end = PublisherEnd { outgoing, reporter, tally };
                        connections.spawn(publisher::run(duty.of(at), end));
                        line
                    });
                }
                parts.settle().await;
            }
            count = outgoing.recv_many(&mut taken, TAKEN_MAX) => {
                if count == 0 {
                    break;
                }
                share_out(taken.drain(..), map.as_deref(), &parts, &tally);
            }
        }
    }
    drop(parts);
    while connections.join_next().await.is_some() {}
}

// Per batch: one look-up among few masters.
fn share_out(
    taken: impl Iterator<Item = Queued>,
    map: Option<&SlotMap>,
    parts: &Parts<Line>,
    tally: &Tally,
) {
    for queued in taken {
        let entries = queued.entries;
        let owner = map.and_then(|map| map.owner(queued.topic));
        let line = owner.and_then(|at| parts.line(at));
        if line.is_none_or(|line| line.send(queued).is_err()) {
            tally.lost_while_down.fetch_add(entries, Ordering::Relaxed);
        }
    }
}

/// Batches that are taken from the queue at once.
const TAKEN_MAX: usize = 512;
