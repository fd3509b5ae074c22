//! Data path. What was heard of a peer, lane by lane: a number heard twice is a double or a replay, one
//! left out is a loss.
//!
//! Owns: `LanesHeard`.
//! May depend on: `cluster::{fault, topic, wire}`, serde.
//! Invariants: the number of a lane only grows, through all times that the lane was not heard; what
//! stands in front of the first batch that is heard of a lane is no loss.

use serde::{Deserialize, Serialize};

use super::{
    fault::{Fault, is_planted},
    topic::LANES,
    wire::Lane,
};

/// For the process that follows.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct LanesRecord {
    numbers: Vec<u64>,
    broken: Vec<u64>,
}

/// The lanes of one life of a peer.
// 8.5 KB per peer in one piece: the bound on peers makes it 2 MB, and a look-up is one index.
#[derive(Debug)]
pub(super) struct LanesHeard {
    /// By lane the latest number; 0: none, since senders begin with 1.
    numbers: Box<[u64]>,
    /// By lane a bit: what is missing before the next batch is no loss.
    broken: [u64; WORDS],
}

impl LanesHeard {
    pub(super) fn new() -> Self {
        Self {
            numbers: vec![0; usize::from(LANES)].into(),
            broken: [0; WORDS],
        }
    }

    pub(super) fn carry(&self) -> LanesRecord {
        LanesRecord {
            numbers: self.numbers.to_vec(),
            broken: self.broken.to_vec(),
        }
    }

    pub(super) fn carried(record: &LanesRecord) -> Self {
        let mut lanes = Self::new();
        if is_planted(Fault::CarriedHeardForgotten) {
            return lanes;
        }
        for (lane, number) in lanes.numbers.iter_mut().zip(&record.numbers) {
            *lane = *number;
        }
        for (word, carried) in lanes.broken.iter_mut().zip(&record.broken) {
            *word = *carried;
        }
        lanes
    }

    /// Whether such a batch was there before.
    pub(super) fn has_heard(&self, lane: Lane, number: u64) -> bool {
        let latest = self.numbers.get(usize::from(lane.0));
        latest.is_none_or(|latest| number <= *latest)
    }

    /// Takes the number of a batch that was not there before; how many are missing in front of it.
    pub(super) fn hear(&mut self, lane: Lane, number: u64) -> u64 {
        assert!(!self.has_heard(lane, number));
        let latest = self.numbers.get_mut(usize::from(lane.0));
        let latest = latest.expect("a lane that is out of range was heard");
        let before = std::mem::replace(latest, number);
        let is_broken = self.mend(lane);
        match before {
            0 => 0,
            _ if is_broken => 0,
            _ => number - before - 1,
        }
    }

    /// The lane was left or taken up again: what passed meanwhile is no loss.
    pub(super) fn break_off(&mut self, lane: Lane) {
        let (word, bit) = place(lane);
        if let Some(word) = self.broken.get_mut(word) {
            *word |= bit;
        }
    }

    fn mend(&mut self, lane: Lane) -> bool {
        let (word, bit) = place(lane);
        let word = self.broken.get_mut(word).expect("every lane has a bit");
        let was_broken = *word & bit != 0;
        *word &= !bit;
        was_broken
    }
}

fn place(lane: Lane) -> (usize, u64) {
    (usize::from(lane.0) / 64, 1 << (lane.0 % 64))
}

const WORDS: usize = (LANES as usize).div_ceil(64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_grow_and_what_is_left_out_is_counted() {
        let mut heard = LanesHeard::new();
        let lane = Lane(LANES - 1);
        for (number, expected) in [
            (0, None),
            (7, Some(0)),
            (7, None),
            (6, None),
            (8, Some(0)),
            (12, Some(3)),
            (11, None),
            (u64::MAX, Some(u64::MAX - 13)),
            (u64::MAX, None),
        ] {
            let found = match heard.has_heard(lane, number) {
                true => None,
                false => Some(heard.hear(lane, number)),
            };
            assert_eq!(found, expected, "{number}");
        }
        assert!(!heard.has_heard(Lane(0), 1));
        assert!(heard.has_heard(Lane(LANES), 1));
    }

    #[test]
    fn what_passed_while_a_lane_was_not_heard_is_no_loss_and_no_way_back() {
        let mut heard = LanesHeard::new();
        let (lane, other) = (Lane(63), Lane(64));
        assert_eq!(heard.hear(lane, 1), 0);
        assert_eq!(heard.hear(other, 1), 0);
        heard.break_off(lane);
        assert!(heard.has_heard(lane, 1));
        assert_eq!(heard.hear(lane, 10), 0);
        assert_eq!(heard.hear(lane, 12), 1);
        assert_eq!(heard.hear(other, 3), 1);
    }
}
