//! Open-loop pace: how many operations are due, whatever became of the earlier ones.
//!
//! Owns: the arithmetic of a fixed rate; how late the load generator was at worst.
//! May depend on: nothing. Time is an argument.
//! Invariants: after `total` operations nothing is due; what was missed is due at once, never dropped.

use std::time::{Duration, Instant};

/// A fixed rate with an end.
pub struct Pace {
    started: Instant,
    per_s: u64,
    total: u64,
    begun: u64,
    /// The largest delay between an operation's time and its begin.
    pub latest: Duration,
}

impl Pace {
    /// `seconds` of `per_s` operations each, from `started` on.
    pub fn new(started: Instant, per_s: u64, seconds: u64) -> Self {
        assert!(per_s > 0);
        Self {
            started,
            per_s,
            total: per_s * seconds,
            begun: 0,
            latest: Duration::ZERO,
        }
    }

    pub fn total(&self) -> u64 {
        self.total
    }

    pub fn is_over(&self) -> bool {
        self.begun == self.total
    }

    /// When the next operation is due.
    pub fn next_at(&self) -> Instant {
        self.started + Duration::from_nanos(self.begun * 1_000_000_000 / self.per_s)
    }

    /// Takes the next operation's number if it is due.
    pub fn take_due(&mut self, now: Instant) -> Option<u64> {
        if self.is_over() {
            return None;
        }
        let late = now.checked_duration_since(self.next_at())?;
        self.latest = self.latest.max(late);
        self.begun += 1;
        Some(self.begun - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_missed_is_due_at_once_and_nothing_after_the_end() {
        let start = Instant::now();
        let mut pace = Pace::new(start, 10, 1);
        assert_eq!(pace.take_due(start), Some(0));
        assert_eq!(pace.take_due(start), None);
        let later = start + Duration::from_millis(350);
        assert_eq!(
            (pace.take_due(later), pace.take_due(later)),
            (Some(1), Some(2))
        );
        assert_eq!(
            (pace.take_due(later), pace.take_due(later)),
            (Some(3), None)
        );
        assert_eq!(pace.latest, Duration::from_millis(250));
        let end = start + Duration::from_secs(9);
        assert_eq!(std::iter::from_fn(|| pace.take_due(end)).count(), 6);
        assert!(pace.is_over());
    }
}
