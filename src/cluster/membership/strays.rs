//! Whether two processes live under one name, or an older life has only left something on the bus.
//!
//! Owns: `Strays`: the batches of one older life, as far as they prove that it lives.
//! May depend on: `cluster::membership` for its times, serde, `Millis`.
//! Invariants: at most one is counted per heartbeat, and none before the newer life's first lease is over.

use serde::{Deserialize, Serialize};
use shards::application::Millis;

use super::Times;

/// Batches of an older life, heard after the newer one's first lease: the older one lives.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(super) struct Strays {
    /// What a dead one left on the bus has arrived by then.
    after: Millis,
    heard_at: Option<Millis>,
    count: u8,
}

impl Strays {
    pub(super) fn since(now: Millis, times: &Times) -> Self {
        Self {
            after: now.plus(times.lease_ms),
            heard_at: None,
            count: 0,
        }
    }

    /// True when there is no doubt any more. Counts at most one per heartbeat, so that a burst of what
    /// a bus had held back is one.
    pub(super) fn hear(&mut self, now: Millis, times: &Times) -> bool {
        let is_next = self
            .heard_at
            .is_none_or(|heard_at| now.since(heard_at) >= times.heartbeat_ms);
        if now < self.after || !is_next {
            return false;
        }
        self.heard_at = Some(now);
        self.count = self.count.saturating_add(1);
        self.count == STRAYS_OF_A_CONFLICT
    }
}

const STRAYS_OF_A_CONFLICT: u8 = 3;
