//! What has come of another process and lies between the link and the shards.
//!
//! Owns: `Intake`: how many bytes those are, and the words that let the other process send more.
//! May depend on: `handover::record`.
//! Invariants: where more than `WAITING_BYTES_MAX` wait, no packet is acknowledged, so that of those that the other
//! process sends on its own no more come; what a shard has put in its place waits no longer.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::handover::record::OnTheWay;

/// Bytes that wait for shards before no more are asked for: those that come unasked are few packets more.
pub(super) const WAITING_BYTES_MAX: usize = 16 << 20;

/// What came, and was not put in its place yet.
#[derive(Debug, Default)]
pub(super) struct Intake {
    waiting: Arc<AtomicUsize>,
    /// Packets that have come, and not been acknowledged: how much was in each.
    owed: VecDeque<u32>,
    /// The most bytes that have waited at once.
    pub waiting_bytes_highest: usize,
    /// Acknowledgements that had to wait.
    pub held_up: u64,
}

impl Intake {
    /// A part of so many bytes goes on to shards, each of which holds what comes back until it is done with it.
    pub(super) fn goes_on(&mut self, bytes: usize) -> Arc<OnTheWay> {
        let part = OnTheWay::new(bytes, &self.waiting);
        let waiting = self.waiting.load(Ordering::Relaxed);
        self.waiting_bytes_highest = self.waiting_bytes_highest.max(waiting);
        part
    }

    /// A packet has come whole: it is to be acknowledged when there is room for another.
    pub(super) fn owe(&mut self, count: u32) {
        self.owed.push_back(count);
        self.held_up += u64::from(!self.has_room());
    }

    /// The next acknowledgement, if it may be said.
    pub(super) fn take_due(&mut self) -> Option<u32> {
        self.has_room().then(|| self.owed.pop_front())?
    }

    /// Acknowledgements wait for room.
    pub(super) fn owes(&self) -> bool {
        !self.owed.is_empty()
    }

    fn has_room(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) <= WAITING_BYTES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_acknowledged_when_no_more_than_the_bound_waits_for_shards() {
        for (bytes, is_acknowledged) in [
            (WAITING_BYTES_MAX - 1, true),
            (WAITING_BYTES_MAX, true),
            (WAITING_BYTES_MAX + 1, false),
        ] {
            let mut intake = Intake::default();
            let part = intake.goes_on(bytes);
            intake.owe(7);
            assert_eq!(intake.take_due().is_some(), is_acknowledged, "{bytes}");
            assert_eq!(intake.owes(), !is_acknowledged, "{bytes}");
            assert_eq!(intake.held_up, u64::from(!is_acknowledged), "{bytes}");
            assert_eq!(intake.waiting_bytes_highest, bytes);
            drop(part);
            assert_eq!(intake.take_due().is_some(), !is_acknowledged, "{bytes}");
            assert!(!intake.owes(), "{bytes}");
        }
    }

    #[test]
    fn what_goes_to_several_shards_waits_once_and_until_the_last_of_them_has_it() {
        let mut intake = Intake::default();
        let part = intake.goes_on(WAITING_BYTES_MAX + 1);
        let shards = [Arc::clone(&part), part];
        intake.owe(1);
        intake.owe(2);
        let [first, second] = shards;
        drop(first);
        assert_eq!(intake.take_due(), None);
        drop(second);
        assert_eq!([intake.take_due(), intake.take_due()], [Some(1), Some(2)]);
        assert_eq!(intake.waiting_bytes_highest, WAITING_BYTES_MAX + 1);
        assert_eq!(intake.held_up, 2);
    }
}
