//! Data path. The one budget of work of a turn, and what each kind of work takes of it.
//!
//! Owns: `Work` with its prices, `Budget`.
//! May depend on: std only, so that a simulator counts with the same prices.
//! Invariants: all that a turn does is spent in one budget; a stage of a turn may use what the
//! stages before it left, less what is kept for those behind it, but always at least a sixteenth
//! of the whole, so that no source starves another.

/// Work, in nanoseconds that it takes nominally: prices, not measurements, so that the same input
/// always ends a turn at the same place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Work(pub u32);

impl Work {
    /// Accepting a connection: its row, its receive, the kernel's part.
    pub const ACCEPT: Self = Self(15_000);
    /// Closing a connection's descriptor.
    pub const CLOSE: Self = Self(8_000);
    /// A receive, beside its bytes.
    pub const RECEIVE: Self = Self(1_000);
    /// The first frame of a send: 4.5 us over loopback (bench fanout).
    pub const SEND: Self = Self(4_500);
    /// A frame that joins a send, beside its bytes (bench fanout in tens).
    pub const JOINED_FRAME: Self = Self(150);
    /// A message of another shard or of the bridge.
    pub const MESSAGE: Self = Self(300);
    /// A timer.
    pub const TIMER: Self = Self(200);
    /// A row of a table that is looked at: a cache line or two.
    pub const ROW: Self = Self(40);
    /// A WebSocket frame, beside what it holds.
    pub const FRAME: Self = Self(150);
    /// A text of a client, parsed and checked.
    pub const TEXT: Self = Self(800);
    /// What follows the first step of a TLS handshake: a check of the client's last message, keys,
    /// tickets.
    pub const HANDSHAKE_STEP: Self = Self(25_000);
    /// A TLS record, beside its bytes.
    pub const RECORD: Self = Self(500);
    /// A signature.
    pub const SIGNATURE: Self = Self(2_000);
    /// A channel joined or left, at its home or on its shard.
    pub const MEMBERSHIP: Self = Self(800);

    /// An event for one channel, written or given its place at the home, beside its bytes.
    pub const EVENT: Self = Self(400);
    /// A user watched or not any more, at the user's home.
    pub const WATCH: Self = Self(250);

    /// Bytes that are copied or looked at once.
    pub const fn bytes(count: usize) -> Self {
        Self::of(count / 8)
    }

    /// Bytes of a TLS record that are sealed or opened: 0.13 ns each with AES-256-GCM and 0.41 with
    /// ChaCha20-Poly1305, between records of 1 and of 16 KB that take 0.46 and 2.4 us, 0.71 and 7.0 us.
    pub const fn bytes_sealed(count: usize) -> Self {
        Self::of(count / 4)
    }

    /// Bytes that are hashed or parsed.
    pub const fn bytes_hashed(count: usize) -> Self {
        Self::of(count.saturating_mul(2))
    }

    /// Escapes in JSON that is parsed, of which some is decoded and written anew, beside their bytes.
    pub const fn escapes(count: usize) -> Self {
        Self::of(count.saturating_mul(16))
    }

    /// This many times the work.
    pub const fn times(self, count: usize) -> Self {
        Self::of((self.0 as usize).saturating_mul(count))
    }

    /// Both together.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "compared first: `TryFrom` is not for constants"
    )]
    const fn of(ns: usize) -> Self {
        if ns > u32::MAX as usize {
            Self(u32::MAX)
        } else {
            Self(ns as u32)
        }
    }
}

/// What is left of a turn's budget.
#[derive(Clone, Debug)]
pub struct Budget {
    whole: u32,
    left: u32,
    stage_left: u32,
    /// Spent in this turn, also beyond the budget.
    spent: u64,
}

impl Budget {
    /// A budget of so much work per turn.
    pub const fn new(whole: Work) -> Self {
        Self {
            whole: whole.0,
            left: whole.0,
            stage_left: whole.0,
            spent: 0,
        }
    }

    /// A turn begins.
    pub const fn refill(&mut self) {
        self.left = self.whole;
        self.stage_left = self.whole;
        self.spent = 0;
    }

    /// A stage of the turn begins; this part of the whole is kept for those behind it.
    pub fn begin_stage(&mut self, kept_percent: u32) {
        let kept = u64::from(self.whole) * u64::from(kept_percent) / 100;
        let kept = u32::try_from(kept).unwrap_or(u32::MAX);
        self.stage_left = self.left.saturating_sub(kept).max(self.whole / 16).max(1);
    }

    /// The stage may use this part of the whole at most.
    pub fn limit_stage(&mut self, percent: u32) {
        let most = u64::from(self.whole) * u64::from(percent) / 100;
        let most = u32::try_from(most).unwrap_or(u32::MAX).max(1);
        self.stage_left = self.stage_left.min(most);
    }

    /// Takes work off; more than is left may be taken, by the one step that ends the stage.
    pub fn spend(&mut self, work: Work) {
        self.left = self.left.saturating_sub(work.0);
        self.stage_left = self.stage_left.saturating_sub(work.0);
        self.spent += u64::from(work.0);
    }

    /// What the stage may still do.
    pub const fn stage_left(&self) -> Work {
        Work(self.stage_left)
    }

    /// What the turn has done.
    pub const fn spent(&self) -> u64 {
        self.spent
    }

    /// What a turn may do.
    pub const fn whole(&self) -> Work {
        Work(self.whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_gets_what_is_left_less_what_is_kept_and_never_nothing() {
        let mut budget = Budget::new(Work(1_600));
        for (spends, kept_percent, granted) in [(0, 50, 800), (300, 0, 1_300), (1_300, 30, 100)] {
            budget.spend(Work(spends));
            budget.begin_stage(kept_percent);
            assert_eq!(budget.stage_left(), Work(granted), "after {spends}");
        }
        budget.spend(Work(500));
        assert_eq!(budget.stage_left(), Work(0));
        assert_eq!(budget.spent(), 2_100);
        budget.refill();
        assert_eq!(budget.stage_left(), Work(1_600));
        for (percent, granted) in [(200, 1_600), (25, 400), (50, 400), (0, 1)] {
            budget.limit_stage(percent);
            assert_eq!(budget.stage_left(), Work(granted), "{percent} %");
        }
    }
}
