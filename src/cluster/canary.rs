//! What a node sends itself through the bus: whether it comes back, and how soon.
//!
//! Owns: `Canaries`: those of one road that are out, the last echo.
//! May depend on: `cluster::entry`, serde, `Millis`. Time is an argument.
//! Invariants: of those that are out the oldest is kept, since it says how late they are, and the newest
//! are, since they say that it is over: of what a bus has lost nothing comes back.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use shards::application::Millis;

use super::entry::Token;

/// For the process that follows.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct CanariesRecord {
    out: Vec<(Token, Millis)>,
    echoed_at: Millis,
    round_trip_ms: Option<u64>,
    was_late: bool,
}

/// The canaries of one road.
#[derive(Debug)]
pub(super) struct Canaries {
    /// An echo that takes so long is late.
    late_ms: u64,
    /// Sent and not echoed, oldest first; at most `CANARIES_MAX`.
    out: VecDeque<(Token, Millis)>,
    echoed_at: Millis,
    /// Of the last that came back.
    round_trip_ms: Option<u64>,
    /// Came back so far.
    echoes: u64,
    /// One came late since this was asked.
    was_late: bool,
}

impl Canaries {
    pub(super) fn new(now: Millis, late_ms: u64) -> Self {
        Self {
            late_ms,
            out: VecDeque::new(),
            echoed_at: now,
            round_trip_ms: None,
            echoes: 0,
            was_late: false,
        }
    }

    pub(super) fn carry(&self) -> CanariesRecord {
        CanariesRecord {
            out: self.out.iter().copied().collect(),
            echoed_at: self.echoed_at,
            round_trip_ms: self.round_trip_ms,
            was_late: self.was_late,
        }
    }

    /// Goes on as the one that was carried; what is counted begins anew.
    pub(super) fn go_on(&mut self, record: CanariesRecord) {
        let CanariesRecord {
            out,
            echoed_at,
            round_trip_ms,
            was_late,
        } = record;
        self.out = out.into_iter().take(CANARIES_MAX).collect();
        self.echoed_at = echoed_at;
        self.round_trip_ms = round_trip_ms;
        self.was_late = was_late;
    }

    /// One was handed to the bus. Beyond the bound the oldest but one is not kept.
    pub(super) fn sent(&mut self, now: Millis, token: Token) {
        if self.out.len() == CANARIES_MAX {
            self.out.remove(1);
        }
        self.out.push_back((token, now));
    }

    /// One came back, and with it whatever was sent before it.
    pub(super) fn heard(&mut self, now: Millis, token: Token) {
        let mut out = self.out.iter().enumerate();
        let Some((at, (_, sent_at))) = out.find(|(_, (sent, _))| *sent == token) else {
            return;
        };
        self.round_trip_ms = Some(now.since(*sent_at));
        self.was_late |= self.is_late(now);
        self.out.drain(..=at);
        self.echoes += 1;
        self.echoed_at = now;
    }

    pub(super) fn is_late(&self, now: Millis) -> bool {
        let oldest = self.out.front();
        oldest.is_some_and(|(_, sent_at)| now.since(*sent_at) >= self.late_ms)
    }

    /// Whether one came late since this was asked last.
    pub(super) fn take_was_late(&mut self) -> bool {
        std::mem::take(&mut self.was_late)
    }

    pub(super) fn echoed_at(&self) -> Millis {
        self.echoed_at
    }

    pub(super) fn echoes(&self) -> u64 {
        self.echoes
    }

    pub(super) fn round_trip_ms(&self) -> Option<u64> {
        self.round_trip_ms
    }
}

const CANARIES_MAX: usize = 64;
/// So many that do not come back make the bus late.
pub(super) const CANARIES_MISSED: u64 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_says_how_late_they_are_however_many_are_out() {
        let mut canaries = Canaries::new(Millis(0), 3_000);
        let sent = 2 * CANARIES_MAX as u64;
        for number in 0..sent {
            canaries.sent(Millis(number), Token(number));
        }
        assert!(!canaries.is_late(Millis(2_999)));
        assert!(canaries.is_late(Millis(3_000)));
        canaries.heard(Millis(3_000), Token(sent));
        assert!(canaries.is_late(Millis(3_000)));
        assert_eq!(canaries.round_trip_ms(), None);
        let kept = sent - CANARIES_MAX as u64 + 1;
        canaries.heard(Millis(3_000), Token(kept));
        assert_eq!(canaries.round_trip_ms(), Some(3_000 - kept));
        assert!(canaries.take_was_late());
        assert!(!canaries.is_late(Millis(3_000 + kept)));
        assert!(canaries.is_late(Millis(3_001 + kept)));
        assert!(!canaries.take_was_late());
    }

    #[test]
    fn after_however_many_that_were_lost_the_next_that_comes_back_is_the_end_of_it() {
        for lost in [1, CANARIES_MAX - 1, CANARIES_MAX, CANARIES_MAX + 1, 1_000] {
            let mut canaries = Canaries::new(Millis(0), 3_000);
            let lost = lost as u64;
            for number in 0..lost {
                canaries.sent(Millis(1_000 * number), Token(number));
            }
            let now = 1_000 * lost + 10_000;
            // The bus is there again, and slow: two are on their way at a time.
            canaries.sent(Millis(now), Token(lost));
            canaries.sent(Millis(now + 1_000), Token(lost + 1));
            assert!(canaries.is_late(Millis(now + 1_000)), "{lost} lost");
            canaries.heard(Millis(now + 1_500), Token(lost));
            assert!(!canaries.is_late(Millis(now + 1_500)), "{lost} lost");
            assert_eq!(canaries.round_trip_ms(), Some(1_500));
        }
    }
}
