//! One clock for two processes: its origin as a number that both understand.
//!
//! Owns: turning a moment into nanoseconds of `CLOCK_MONOTONIC`, and back.
//! May depend on: rustix.
//! Invariants: a moment comes back within microseconds; one that cannot be is now.

#![expect(
    clippy::disallowed_methods,
    reason = "both clocks are read at the same time"
)]

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds of `CLOCK_MONOTONIC` at this moment.
pub fn to_ns(moment: Instant) -> u64 {
    let ago = u64::try_from(moment.elapsed().as_nanos()).unwrap_or(u64::MAX);
    now_ns().saturating_sub(ago)
}

/// The moment of another process of this host.
pub fn from_ns(ns: u64) -> Instant {
    let ago = Duration::from_nanos(now_ns().saturating_sub(ns));
    let now = Instant::now();
    now.checked_sub(ago).unwrap_or(now)
}

fn now_ns() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds * 1_000_000_000 + nanoseconds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_of_a_minute_ago_comes_back() {
        let now = Instant::now();
        let Some(moment) = now.checked_sub(Duration::from_secs(60)) else {
            return; // The machine has just started.
        };
        let back = from_ns(to_ns(moment));
        let off = back.max(moment) - back.min(moment);
        assert!(off < Duration::from_secs(10), "{off:?}");
        assert!(from_ns(u64::MAX) >= now, "the future is now");
    }
}
