//! Until when the other process of a hand-over is waited for.
//!
//! Owns: `Terms`: by when the next word is heard, and by when all is.
//! May depend on: nothing. Time is an argument.
//! Invariants: words that come, however slowly, end the wait for the next one, and never move the end of all.

use std::time::{Duration, Instant};

/// By when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    step: Instant,
    all: Instant,
}

/// Each step of a hand-over takes milliseconds; one that takes so long does not end.
pub(super) const STEP_WITHIN: Duration = Duration::from_secs(10);
/// A million connections, and all that a queue in memory may hold, take some seconds.
pub(super) const ALL_WITHIN: Duration = Duration::from_secs(60);

impl Terms {
    /// The other process is to say something from now on.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            step: now + STEP_WITHIN,
            all: now + ALL_WITHIN,
        }
    }

    /// It has said something, and not all.
    pub(super) fn heard(&mut self, now: Instant) {
        self.step = now + STEP_WITHIN;
    }

    pub(super) fn ends(&self) -> Instant {
        self.step.min(self.all)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "some instant to count from")]

    use super::*;

    #[test]
    fn who_says_a_little_again_and_again_is_not_waited_for_without_an_end() {
        let began = Instant::now();
        let mut terms = Terms::new(began);
        assert_eq!(terms.ends(), began + STEP_WITHIN);
        let (mut now, mut words) = (began, 0);
        while now < terms.ends() {
            words += 1;
            assert!(words < 100, "{:?}", now - began);
            terms.heard(now);
            now += STEP_WITHIN * 9 / 10;
        }
        assert_eq!(terms.ends(), began + ALL_WITHIN);
    }
}
