//! How long to wait before a bus is tried again.
//!
//! Owns: `Backoff`.
//! May depend on: `getrandom`.
//! Invariants: a pause grows to its ceiling and no further; two nodes that lost one server do not
//! come back in step.

use std::time::Duration;

/// Pauses of an end that has no connection.
#[derive(Debug, Default)]
pub(in crate::bridge) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The next pause: between half and all of what doubles with each failure.
    pub(in crate::bridge) fn pause(&mut self) -> Duration {
        let whole = FIRST.saturating_mul(1 << self.failures.min(DOUBLINGS_MAX));
        self.failures = self.failures.saturating_add(1);
        let half = whole.min(CEILING) / 2;
        // Without chance the pauses of all nodes are equal, which is no reason to stop.
        let chance = getrandom::u32().unwrap_or(u32::MAX);
        half + half.mul_f64(f64::from(chance) / f64::from(u32::MAX))
    }

    /// After a connection that stood for a while.
    pub(in crate::bridge) fn rest(&mut self) {
        self.failures = 0;
    }
}

const FIRST: Duration = Duration::from_millis(50);
/// A bus that is back is used again soon: what nodes miss meanwhile is lost.
pub(in crate::bridge) const CEILING: Duration = Duration::from_secs(1);
const DOUBLINGS_MAX: u32 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_ceiling() {
        let mut backoff = Backoff::default();
        for whole_ms in [50, 100, 200, 400, 800, 1_000, 1_000, 1_000] {
            let pause = backoff.pause();
            let whole = Duration::from_millis(whole_ms);
            assert!(
                pause >= whole / 2 && pause <= whole,
                "{pause:?} of {whole:?}"
            );
        }
        for _ in 0..1_000 {
            assert!(backoff.pause() <= CEILING);
        }
        backoff.rest();
        assert!(backoff.pause() <= FIRST);
    }
}
