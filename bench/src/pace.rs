//! Open-loop pace: how many operations are due, whatever became of the earlier ones.
//!
//! Owns: the arithmetic of a fixed rate; how late the load generator was.
//! May depend on: hdrhistogram. Time is an argument.
//! Invariants: after `total` operations nothing is due; what was missed is due at once, never dropped;
//! an operation's number gives its time, so that a receiver needs nothing but the number.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

/// A fixed rate with an end.
pub struct Pace {
    started: Instant,
    per_s: u64,
    total: u64,
    begun: u64,
    /// The largest delay between an operation's time and its begin.
    pub latest: Duration,
    /// All such delays, in microseconds.
    late_us: Histogram<u64>,
}

/// How long answers and deliveries are waited for after the last operation.
pub const STRAGGLERS: Duration = Duration::from_secs(5);

impl Pace {
    /// `seconds` of `per_s` operations each, from `started` on.
    pub fn new(started: Instant, per_s: u64, seconds: u64) -> Self {
        assert!(per_s > 0);
        const LONGEST_US: u64 = 600_000_000;
        let late_us = Histogram::new_with_bounds(1, LONGEST_US, 2);
        Self {
            started,
            per_s,
            total: per_s * seconds,
            begun: 0,
            latest: Duration::ZERO,
            late_us: late_us.expect("the bounds are in order"),
        }
    }

    pub fn total(&self) -> u64 {
        self.total
    }

    pub fn is_over(&self) -> bool {
        self.begun == self.total
    }

    /// The time for which an operation is scheduled.
    pub fn time_of(&self, number: u64) -> Instant {
        // 200 000 per second for a day is 1.7e19 ns before the division: just within 64 bits.
        self.started + Duration::from_nanos(number * 1_000_000_000 / self.per_s)
    }

    /// How long after its scheduled time this is; nothing of a number that was never scheduled.
    pub fn since(&self, number: u64, now: Instant) -> Option<Duration> {
        (number < self.begun).then(|| now.saturating_duration_since(self.time_of(number)))
    }

    /// When the next operation is due.
    pub fn next_at(&self) -> Instant {
        self.time_of(self.begun)
    }

    /// Whether even stragglers should have come by now.
    pub fn gives_up(&self, now: Instant) -> bool {
        self.is_over() && now > self.time_of(self.total) + STRAGGLERS
    }

    /// Takes the next operation's number if it is due.
    pub fn take_due(&mut self, now: Instant) -> Option<u64> {
        if self.is_over() {
            return None;
        }
        let late = now.checked_duration_since(self.next_at())?;
        self.latest = self.latest.max(late);
        self.late_us
            .saturating_record(u64::try_from(late.as_micros()).unwrap_or(u64::MAX));
        self.begun += 1;
        Some(self.begun - 1)
    }

    /// The 99th percentile of the delays, and their maximum, in milliseconds.
    pub fn late_ms(&self) -> (f64, f64) {
        let p99_us = self.late_us.value_at_percentile(99.0) as f64;
        (p99_us / 1e3, self.latest.as_secs_f64() * 1e3)
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
        assert!(!pace.gives_up(start + Duration::from_secs(1)));
        assert!(pace.gives_up(start + Duration::from_secs(7)));
    }

    #[test]
    fn latency_counts_from_the_scheduled_time_however_late_the_operation_began() {
        let start = Instant::now();
        let mut pace = Pace::new(start, 4, 1);
        let stalled = start + Duration::from_secs(1);
        assert_eq!(std::iter::from_fn(|| pace.take_due(stalled)).count(), 4);
        let since = |number| pace.since(number, stalled + Duration::from_millis(10));
        assert_eq!(since(0), Some(Duration::from_millis(1_010)));
        assert_eq!(since(3), Some(Duration::from_millis(260)));
        assert_eq!(since(4), None);
        let (p99, most) = pace.late_ms();
        assert_eq!(most, 1_000.0);
        assert!((990.0..1_010.0).contains(&p99), "{p99}");
    }

    #[test]
    fn the_time_of_the_last_of_an_hour_at_the_highest_rate_is_exact() {
        let start = Instant::now();
        let pace = Pace::new(start, 200_000, 3_600);
        assert_eq!(
            pace.time_of(pace.total()),
            start + Duration::from_secs(3_600)
        );
    }
}
