//! Data path. Consumers that are too slow for what is sent to them.
//!
//! Owns: who was found too slow, and what follows by `net.slow_consumer`.
//! May depend on: `connection`, `server::close`, the turn.
//! Invariants: who is found too slow while subscribers are walked is dealt with afterwards, so that
//! no list changes under the walk; nothing overtakes a frame that was refused: what follows it is
//! dropped in its order, or refused until the connection is closed.

use std::collections::VecDeque;

use shards::{
    application::{FrameId, Queued, Slot},
    work::Work,
};

use super::{ServerTurn, ShardServer};
use crate::{
    config::sections::SlowConsumer, metrics::counters::ConnectionError, protocol::code::CloseCode,
};

/// Those who were found too slow and are not dealt with yet.
#[derive(Clone, Default)]
pub(super) struct SlowConsumers {
    /// To be closed, each once; in later turns too, since closing is work.
    doomed: VecDeque<Slot>,
    /// Frames to be dropped before the walk goes on: of one slice at the most.
    refused: Vec<Refused>,
}

#[derive(Clone)]
struct Refused {
    slot: Slot,
    frame: FrameId,
    bytes: usize,
}

impl SlowConsumers {
    /// Nobody waits to be closed.
    pub(super) fn is_empty(&self) -> bool {
        self.doomed.is_empty()
    }

    /// Connections that wait to be closed.
    pub(super) fn len(&self) -> usize {
        self.doomed.len()
    }

    /// A connection's outbox had no room for a frame of this turn.
    pub(super) fn note(
        &mut self,
        turn: &mut impl ServerTurn,
        policy: SlowConsumer,
        slot: Slot,
        (frame, bytes): (FrameId, usize),
    ) {
        if policy == SlowConsumer::Disconnect {
            turn.seal(slot);
            self.doomed.push_back(slot);
        } else {
            self.refused.push(Refused { slot, frame, bytes });
        }
    }
}

impl ShardServer {
    /// Drops frames where `net.slow_consumer` says so, of those whose outbox was full just now.
    pub(super) fn relieve_slow(&mut self, turn: &mut impl ServerTurn) {
        let mut all = std::mem::take(&mut self.slow.refused);
        for Refused { slot, frame, bytes } in all.drain(..) {
            let Some(row) = self.row(slot) else {
                continue;
            };
            let app = row.app;
            let (mut frames, mut dropped, mut reason) = (1, bytes, SLOW_NEWEST);
            if self.settings.slow_consumer == SlowConsumer::DropOldest {
                let (older, older_bytes) = turn.drop_oldest(slot, bytes);
                if turn.send_frame(slot, frame) == Queued::Accepted {
                    (frames, dropped, reason) = (older, older_bytes, SLOW_OLDEST);
                }
            }
            let counters = self.counters.app(app).faults_mut();
            counters.dropped_frames[reason] += u64::from(frames);
            counters.dropped_bytes[reason] += dropped as u64;
        }
        self.slow.refused = all;
    }

    /// Closes those who were too slow with 4100, so that they back off, until this turn's work is
    /// done.
    pub(super) fn close_doomed(&mut self, turn: &mut impl ServerTurn) {
        while turn.work_left() > Work(0)
            && let Some(slot) = self.slow.doomed.pop_front()
        {
            turn.spend(Work::ROW);
            let Some(row) = self.row(slot).filter(|row| row.is_open()) else {
                continue;
            };
            let app = row.app;
            let counters = self.counters.app(app).faults_mut();
            counters.slow_consumer_disconnects += 1;
            counters.connection_errors[ConnectionError::SlowConsumer as usize] += 1;
            self.close(turn, slot, CloseCode::OVER_CAPACITY);
        }
    }
}

/// Columns of `AppFaults::dropped_frames`.
const SLOW_OLDEST: usize = 0;
const SLOW_NEWEST: usize = 1;
