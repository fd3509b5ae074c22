//! Which share of the last seconds a thread was busy.
//!
//! Owns: `BusyWindow`, a few samples of two counters that only grow.
//! May depend on: nothing.
//! Invariants: the ratio is in 0..=1.

use std::collections::VecDeque;

/// Samples of (time since start, time busy), both in nanoseconds, oldest first.
#[derive(Debug, Default)]
pub(super) struct BusyWindow {
    samples: VecDeque<(u64, u64)>,
}

/// The window that is aimed at.
const WINDOW_NS: u64 = 10_000_000_000;

/// Closer samples are not kept, so that frequent scrapes do not shorten the window.
const SPACING_NS: u64 = 1_000_000_000;

impl BusyWindow {
    /// Adds a sample and returns the busy share since the sample of about 10 s ago.
    pub(super) fn push(&mut self, since_start_ns: u64, busy_ns: u64) -> f64 {
        while self
            .samples
            .get(1)
            .is_some_and(|next| next.0 + WINDOW_NS <= since_start_ns)
        {
            self.samples.pop_front();
        }
        let (since, busy) = self.samples.front().copied().unwrap_or((0, 0));
        let is_spaced = self
            .samples
            .back()
            .is_none_or(|last| last.0 + SPACING_NS <= since_start_ns);
        if is_spaced {
            self.samples.push_back((since_start_ns, busy_ns));
        }
        let passed = since_start_ns.saturating_sub(since);
        if passed == 0 {
            return 0.0;
        }
        (busy_ns.saturating_sub(busy) as f64 / passed as f64).min(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_forgets_what_is_longer_ago_than_ten_seconds() {
        let second = 1_000_000_000;
        let mut window = BusyWindow::default();
        assert_eq!(window.push(2 * second, second), 0.5, "since the start");
        let mut ratio = 0.0;
        for at in 3..40 {
            ratio = window.push(at * second, second);
        }
        assert_eq!(ratio, 0.0, "idle for more than ten seconds");
        for at in 40..45 {
            ratio = window.push(at * second, (at - 38) * second);
        }
        assert!(
            (ratio - 0.5).abs() < 0.01,
            "busy for the last five: {ratio}"
        );
        assert!(window.samples.len() <= 12);
    }

    #[test]
    fn two_samples_of_the_same_moment_do_not_divide_by_zero() {
        let mut window = BusyWindow::default();
        assert_eq!(window.push(0, 0), 0.0);
        assert_eq!(window.push(0, 5), 0.0);
    }
}
