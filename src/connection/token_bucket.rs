//! Data path. A token bucket: `rate` tokens at most, refilled with `rate` per second.
//!
//! Owns: `TokenBucket`; `SmallBucket`, which is the same in the eight bytes that a connection's row has for it.
//! May depend on: plain ids.
//! Invariants: never more than `rate` tokens; a refused take costs none; time never runs backwards; a debt is paid
//! within an hour.

use shards::application::Millis;

/// The tokens of one connection or app, in thousandths.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TokenBucket {
    missing_milli: u64,
    at: Millis,
}

impl TokenBucket {
    /// A bucket that another process had: thousandths that are missing, and when that was so.
    pub fn of_parts((missing_milli, at): (u64, u64)) -> Self {
        let at = Millis(at);
        Self { missing_milli, at }
    }

    /// See `of_parts`.
    pub fn parts(&self) -> (u64, u64) {
        (self.missing_milli, self.at.0)
    }

    /// Takes `count` tokens if they are there. A burst of `rate_per_s` passes, the next one in the
    /// same instant does not, and a steady `rate_per_s` always does.
    pub fn take(&mut self, now: Millis, rate_per_s: u32, count: u32) -> bool {
        self.take_of(now, rate_per_s, rate_per_s, count)
    }

    /// As `take`, from a bucket that holds `burst` tokens.
    pub fn take_of(&mut self, now: Millis, burst: u32, rate_per_s: u32, count: u32) -> bool {
        self.missing_milli = self.missing_at(now, rate_per_s);
        self.at = self.at.max(now);
        let missing = self.missing_milli.saturating_add(u64::from(count) * 1_000);
        if missing > u64::from(burst) * 1_000 {
            return false;
        }
        self.missing_milli = missing;
        true
    }

    /// As `take`. More than the bucket ever holds is given when it is full, or it never would be; what it does not
    /// hold is owed, so that the rate holds all the same.
    pub fn take_or_owe(&mut self, now: Millis, rate_per_s: u32, count: u32) -> bool {
        let most = u64::from(rate_per_s) * 1_000 * (1 + DEBT_S_MAX);
        // What is missing of a higher rate would be paid for much longer.
        self.missing_milli = self.missing_milli.min(most);
        if !self.take(now, rate_per_s, count.min(rate_per_s)) {
            return false;
        }
        let owed = u64::from(count.saturating_sub(rate_per_s)) * 1_000;
        self.missing_milli = (self.missing_milli + owed).min(most);
        true
    }

    /// How long until `count` tokens are there, or as many as there ever are.
    pub fn wait_ms(&self, now: Millis, rate_per_s: u32, count: u32) -> u64 {
        let rate = u64::from(rate_per_s);
        let wanted = u64::from(count.min(rate_per_s)) * 1_000;
        let missing = self.missing_at(now, rate_per_s).saturating_add(wanted);
        missing.saturating_sub(rate * 1_000).div_ceil(rate.max(1))
    }

    fn missing_at(&self, now: Millis, rate_per_s: u32) -> u64 {
        let refilled = now.since(self.at).saturating_mul(u64::from(rate_per_s));
        self.missing_milli.saturating_sub(refilled)
    }

    /// Others took `count` tokens, which they had whether they are here or not. Beyond two bursts of
    /// them it forgets.
    pub fn taken_elsewhere(&mut self, now: Millis, rate_per_s: u32, count: u32) {
        let missing = self.missing_at(now, rate_per_s);
        self.at = self.at.max(now);
        let most = u64::from(rate_per_s) * 2_000;
        self.missing_milli = (missing + u64::from(count) * 1_000).min(most.max(missing));
    }

    /// Whole tokens left at `now`.
    pub fn left(&self, now: Millis, rate_per_s: u32) -> u32 {
        let missing = self.missing_at(now, rate_per_s);
        let whole = u64::from(rate_per_s) * 1_000;
        u32::try_from(whole.saturating_sub(missing) / 1_000).unwrap_or(u32::MAX)
    }
}

/// As `TokenBucket`, without debts and for bursts of up to `SMALL_BURST_MAX`.
// Its time is the last 32 bits of one. When nobody has taken of it for 49.7 days, or twice so long, what was missing
// then is so once more, from a minute before until it is refilled: it never holds more than a `TokenBucket` would.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SmallBucket {
    missing_milli: u32,
    at_ms: u32,
}

const _: () = assert!(size_of::<SmallBucket>() == 8);

/// Of a larger burst a `SmallBucket` holds so many.
pub const SMALL_BURST_MAX: u32 = u32::MAX / 1_000;
/// A time at most so far ahead of now is taken for what it is, and not for one of 49.7 days ago.
const AHEAD_MS_MAX: u32 = 60_000;

impl SmallBucket {
    /// See `TokenBucket::of_parts`.
    pub fn of_parts(now: Millis, parts: (u64, u64)) -> Self {
        let mut bucket = TokenBucket::of_parts(parts);
        if now.since(bucket.at) > u64::from(u32::MAX - AHEAD_MS_MAX) {
            // So long refills the largest burst, at a token a second: it is full, whatever its time.
            bucket = TokenBucket::default();
        }
        Self::of(bucket)
    }

    /// See `TokenBucket::parts`.
    pub fn parts(self, now: Millis) -> (u64, u64) {
        self.widened(now).parts()
    }

    /// See `TokenBucket::take`.
    pub fn take(&mut self, now: Millis, rate_per_s: u32, count: u32) -> bool {
        self.take_of(now, rate_per_s, rate_per_s, count)
    }

    /// See `TokenBucket::take_of`.
    pub fn take_of(&mut self, now: Millis, burst: u32, rate_per_s: u32, count: u32) -> bool {
        let mut bucket = self.widened(now);
        let is_taken = bucket.take_of(now, burst.min(SMALL_BURST_MAX), rate_per_s, count);
        *self = Self::of(bucket);
        is_taken
    }

    #[expect(clippy::cast_possible_truncation, reason = "the time wraps")]
    fn of(bucket: TokenBucket) -> Self {
        Self {
            missing_milli: u32::try_from(bucket.missing_milli).unwrap_or(u32::MAX),
            at_ms: bucket.at.0 as u32,
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "the time wraps")]
    fn widened(self, now: Millis) -> TokenBucket {
        let passed = (now.0 as u32).wrapping_sub(self.at_ms);
        let at = if self.missing_milli == 0 {
            now // A full one has no time.
        } else if passed > u32::MAX - AHEAD_MS_MAX {
            now.plus(u64::from(passed.wrapping_neg()))
        } else {
            Millis(now.0.saturating_sub(u64::from(passed)))
        };
        TokenBucket {
            missing_milli: self.missing_milli.into(),
            at,
        }
    }
}

/// Beyond what the bucket holds; whoever owes more is forgiven it.
pub const DEBT_S_MAX: u64 = 3_600;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_burst_of_the_rate_passes_and_the_next_one_waits_for_its_token() {
        let mut bucket = TokenBucket::default();
        let start = Millis(5_000);
        for event in 0..10 {
            assert!(bucket.take(start, 10, 1), "event {event} of the burst");
        }
        assert!(!bucket.take(start, 10, 1), "the 11th in one instant");
        assert!(!bucket.take(start.plus(99), 10, 1), "no token yet");
        assert!(
            bucket.take(start.plus(100), 10, 1),
            "one token after 100 ms"
        );
        assert!(!bucket.take(start.plus(100), 10, 1));
        assert_eq!(bucket.left(start.plus(100_000), 10), 10);
    }

    #[test]
    fn a_burst_of_its_own_is_spent_before_the_rate_holds() {
        let mut bucket = TokenBucket::default();
        for event in 0..50 {
            assert!(bucket.take_of(Millis(0), 50, 10, 1), "event {event}");
        }
        assert!(!bucket.take_of(Millis(99), 50, 10, 1));
        assert!(bucket.take_of(Millis(100), 50, 10, 1));
        assert!(!bucket.take_of(Millis(100), 50, 10, 1));
    }

    #[test]
    fn what_others_took_is_missing_here_and_owed_for_a_second_at_most() {
        let mut bucket = TokenBucket::default();
        bucket.taken_elsewhere(Millis(0), 10, 4);
        assert_eq!(bucket.left(Millis(0), 10), 6);
        assert!(bucket.take(Millis(0), 10, 6));
        bucket.taken_elsewhere(Millis(0), 10, 5);
        assert!(
            !bucket.take(Millis(599), 10, 1),
            "five are owed, one is wanted"
        );
        assert!(bucket.take(Millis(600), 10, 1));
        bucket.taken_elsewhere(Millis(600), 10, u32::MAX);
        assert!(!bucket.take(Millis(1_699), 10, 1));
        assert!(bucket.take(Millis(1_700), 10, 1));
    }

    #[test]
    fn what_is_given_beyond_the_bucket_is_owed_so_that_the_rate_holds() {
        let mut bucket = TokenBucket::default();
        assert!(bucket.take_or_owe(Millis(0), 10, 35));
        assert_eq!(bucket.left(Millis(0), 10), 0);
        assert_eq!(bucket.wait_ms(Millis(0), 10, 1), 2_600);
        assert!(!bucket.take_or_owe(Millis(2_599), 10, 1));
        assert!(bucket.take_or_owe(Millis(2_600), 10, 1));
        // It wants a full one, however much more it is.
        assert_eq!(bucket.wait_ms(Millis(2_600), 10, 35), 1_000);
        assert!(!bucket.take_or_owe(Millis(3_599), 10, 35));
        assert!(bucket.take_or_owe(Millis(3_600), 10, 35));

        let mut bucket = TokenBucket::default();
        let tries = (0..100_000).step_by(50).map(Millis);
        let passed = tries.filter(|now| bucket.take_or_owe(*now, 10, 25));
        assert_eq!(passed.count() * 25, 10 * 100);

        let mut bucket = TokenBucket::default();
        assert!(bucket.take_or_owe(Millis(0), 1, u32::MAX));
        assert_eq!(bucket.wait_ms(Millis(0), 1, 1), (1 + DEBT_S_MAX) * 1_000);
    }

    #[test]
    fn what_is_owed_of_a_higher_rate_is_paid_within_an_hour_of_a_lower_one() {
        let mut bucket = TokenBucket::default();
        assert!(bucket.take_or_owe(Millis(0), 1_000, u32::MAX));
        let paid_at = Millis((1 + DEBT_S_MAX) * 1_000);
        assert!(!bucket.take_or_owe(Millis(0), 1, 1));
        assert_eq!(bucket.wait_ms(Millis(0), 1, 1), paid_at.0);
        assert!(!bucket.take_or_owe(Millis(paid_at.0 - 1), 1, 1));
        assert!(bucket.take_or_owe(paid_at, 1, 1));
    }

    const WRAP_MS: u64 = 1 << 32;

    #[test]
    fn a_small_bucket_holds_a_burst_up_to_its_bound() {
        for (burst, held) in [
            (1, 1),
            (SMALL_BURST_MAX - 1, SMALL_BURST_MAX - 1),
            (SMALL_BURST_MAX, SMALL_BURST_MAX),
            (SMALL_BURST_MAX + 1, SMALL_BURST_MAX),
            (u32::MAX, SMALL_BURST_MAX),
        ] {
            let mut bucket = SmallBucket::default();
            assert!(!bucket.take_of(Millis(0), burst, 1, held.saturating_add(1)));
            assert!(bucket.take_of(Millis(0), burst, 1, held), "{burst}");
            assert!(!bucket.take_of(Millis(999), burst, 1, 1), "{burst}");
            assert!(bucket.take_of(Millis(1_000), burst, 1, 1), "{burst}");
        }
    }

    #[test]
    fn a_small_bucket_that_nobody_took_of_while_its_time_wrapped_is_as_it_was_or_fuller() {
        for wraps in 0..3 {
            for (later, left) in [(0, 0), (999, 0), (1_000, 1), (9_999, 9), (10_000, 10)] {
                let mut bucket = SmallBucket::default();
                let start = WRAP_MS * 7 - 500;
                assert!(bucket.take_of(Millis(start), 10, 1, 10));
                let now = Millis(start + wraps * WRAP_MS + later);
                assert!(!bucket.take_of(now, 10, 1, left + 1), "{wraps} {later}");
                assert!(bucket.take_of(now, 10, 1, left), "{wraps} {later}");
            }
        }
        // A fresh one is full whenever it is, and refilled from then on.
        for start in [WRAP_MS - u64::from(AHEAD_MS_MAX), WRAP_MS - 1, WRAP_MS] {
            let mut fresh = SmallBucket::default();
            assert!(fresh.take(Millis(start), 10, 10), "{start}");
            assert!(!fresh.take(Millis(start + 99), 10, 1), "{start}");
            assert!(fresh.take(Millis(start + 100), 10, 1), "{start}");
        }
        // Shortly before it wraps it does not pass for one whose time is ahead, but for a minute.
        let taken = |silence| {
            let mut bucket = SmallBucket::default();
            assert!(bucket.take(Millis(WRAP_MS), 10, 10));
            bucket.take(Millis(WRAP_MS + silence), 10, 10)
        };
        let ahead = u64::from(AHEAD_MS_MAX);
        let silences = [WRAP_MS - 1 - ahead, WRAP_MS - ahead, WRAP_MS - 1, WRAP_MS];
        assert_eq!(silences.map(taken), [true, false, false, false]);
        assert!(taken(WRAP_MS + 1_000));
    }

    #[test]
    fn a_small_bucket_is_the_same_in_another_process() {
        for start in [0, 5, WRAP_MS - 1, WRAP_MS, WRAP_MS * 3 + 17] {
            let mut bucket = SmallBucket::default();
            assert!(bucket.take(Millis(start), 10, 7));
            for now in [start, start + 1, start + WRAP_MS - 60_001].map(Millis) {
                let parts = bucket.parts(now);
                assert_eq!(parts, (7_000, start));
                assert_eq!(SmallBucket::of_parts(now, parts), bucket);
            }
        }
        let fresh = SmallBucket::default();
        assert_eq!(fresh.parts(Millis(77)), (0, 77));
        // What was missing for longer than its time can say is there again, whatever its last bits are.
        let now = Millis(WRAP_MS * 2 + 100);
        let left = |parts| {
            let mut bucket = SmallBucket::of_parts(now, parts);
            let left = |count: &u32| bucket.take(now, 10, *count);
            (0..=10).rev().find(left)
        };
        assert_eq!(left((10_000, 100)), Some(10));
        assert_eq!(left((10_000, WRAP_MS + 100)), Some(10));
        assert_eq!(left((10_000, now.0 - 300)), Some(3));
        // One that is ahead of our time is not refilled by that, and more than can be missing is all.
        assert_eq!(left((10_000, now.0 + 1)), Some(0));
        assert_eq!(left((10_000, now.0 + u64::from(AHEAD_MS_MAX))), Some(0));
        assert_eq!(left((u64::MAX, now.0)), None);
        assert_eq!(left((u64::MAX, u64::MAX)), None);
    }

    proptest! {
        #[test]
        fn a_small_bucket_gives_what_a_wide_one_gives(
            start in 0..WRAP_MS * 3,
            steps in prop::collection::vec((0_u64..30_000, 0_u32..30, 1_u32..30, 0_u32..30), 1..50),
        ) {
            let (mut small, mut wide) = (SmallBucket::default(), TokenBucket::default());
            let mut now = Millis(start);
            for (later, burst, rate, count) in steps {
                now = now.plus(later);
                let expected = wide.take_of(now, burst, rate, count);
                prop_assert_eq!(small.take_of(now, burst, rate, count), expected);
                prop_assert_eq!(small.parts(now), wide.parts());
            }
        }
    }

    #[test]
    fn a_steady_rate_always_passes() {
        let mut bucket = TokenBucket::default();
        for tick in 0..1_000_u64 {
            assert!(
                bucket.take(Millis(tick * 100), 10, 1),
                "at {} ms",
                tick * 100
            );
        }
    }
}
