//! The largest channels, for an operator who asks.
//!
//! Owns: how a shard's search goes on from turn to turn, and its answer to the bridge.
//! May depend on: `channel::largest`, `server::errands`.
//! Invariants: one search at a time; the data path keeps nothing for it; no slice is longer than a turn's work.

use shards::work::Work;

use super::{ServerTurn, ShardServer, errands::Errand};
use crate::{
    bridge::message::{ChannelSize, ToBridge},
    channel::largest::{Search, Size},
};

/// A search and the question that it answers.
#[derive(Clone, Debug)]
pub(super) struct Largest {
    token: u64,
    search: Search,
}

/// Rows that a slice looks at most, and at least.
const SLICE_ROWS: u32 = 4_096;
const SLICE_ROWS_LEAST: u32 = 64;

impl ShardServer {
    /// The bridge asks. Where an older question is not answered yet, the answer to that is one to this.
    pub(super) fn on_largest_asked(&mut self, token: u64) {
        if let Some(largest) = &mut self.largest {
            largest.token = token;
            return;
        }
        let search = Search::default();
        self.largest = Some(Largest { token, search });
        self.errands.push(Errand::Largest);
    }

    /// Walks some of the channels; false when the answer has gone out.
    pub(super) fn search_largest(&mut self, turn: &mut impl ServerTurn) -> bool {
        let paid = turn.work_left().0 / Work::ROW.0;
        let largest = self.largest.as_mut().expect("the errand is for a search");
        let rows_max = paid.clamp(SLICE_ROWS_LEAST, SLICE_ROWS);
        let (rows, is_over) = largest.search.walk(&self.homes, rows_max);
        turn.spend(Work::MESSAGE.and(Work::ROW.times(rows as usize)));
        if !is_over {
            return true;
        }
        let Largest { token, search } = self.largest.take().expect("it was there above");
        let size = |it: Size| ChannelSize {
            app: it.app,
            channel: it.channel,
            subscribers: it.subscribers,
            everywhere: it.everywhere,
        };
        let channels = search.into_found().into_iter().map(size).collect();
        // The bridge does not wait for long, and asks again.
        if turn
            .to_bridge(ToBridge::Largest { token, channels })
            .is_err()
        {
            self.counters.bridge_full[1] += 1;
        }
        false
    }
}
