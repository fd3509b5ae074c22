//! When a silent connection is pinged, and when it is given up.
//!
//! Owns: `KeepAlive`, `Phase`.
//! May depend on: plain ids.
//! Invariants: at most one ping is outstanding; any complete inbound frame proves life.

use shards::application::Millis;

/// Silence of one open connection: a `Phase` in eight bytes of its row.
// Twice the time, and one more where it is that of an answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KeepAlive(u64);

const _: () = assert!(size_of::<KeepAlive>() == 8);

/// What is known of a connection's silence.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Phase {
    Heard {
        at: Millis,
    },
    /// A ping is outstanding: without any frame by then the peer is given up.
    Pinged {
        answer_by: Millis,
    },
}

/// What silence asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    Nothing,
    Ping,
    /// No frame came in time after the ping: close with 4201.
    GiveUp,
}

/// How long a pong is waited for: as long as pusher-js waits for ours.
pub const PONG_TIMEOUT_MS: u64 = 30_000;

impl KeepAlive {
    /// A connection that spoke at `now`.
    pub fn new(now: Millis) -> Self {
        Self::in_phase(Phase::Heard { at: now })
    }

    /// See `phase`. What comes after the year 292 million is then.
    pub fn in_phase(phase: Phase) -> Self {
        let (time, is_pinged) = match phase {
            Phase::Heard { at } => (at, false),
            Phase::Pinged { answer_by } => (answer_by, true),
        };
        Self(time.0.min(u64::MAX / 2) * 2 + u64::from(is_pinged))
    }

    /// What is known now.
    pub fn phase(self) -> Phase {
        let time = Millis(self.0 / 2);
        if self.is_pinged() {
            Phase::Pinged { answer_by: time }
        } else {
            Phase::Heard { at: time }
        }
    }

    fn is_pinged(self) -> bool {
        self.0 % 2 == 1
    }

    /// A frame of any kind arrived. Returns true if it ended the wait for a pong: then the next
    /// deadline is nearer than the one before.
    #[must_use]
    pub fn heard(&mut self, now: Millis) -> bool {
        std::mem::replace(self, Self::new(now)).is_pinged()
    }

    /// What is due at `now`; a due ping counts as sent.
    pub fn check(&mut self, now: Millis, activity_timeout_ms: u64) -> Due {
        if now < self.next_deadline(activity_timeout_ms) {
            return Due::Nothing;
        }
        if self.is_pinged() {
            return Due::GiveUp;
        }
        let answer_by = now.plus(PONG_TIMEOUT_MS);
        *self = Self::in_phase(Phase::Pinged { answer_by });
        Due::Ping
    }

    /// When `check` is next worth calling.
    pub fn next_deadline(&self, activity_timeout_ms: u64) -> Millis {
        match self.phase() {
            Phase::Heard { at } => at.plus(activity_timeout_ms),
            Phase::Pinged { answer_by } => answer_by,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_client_is_pinged_once_then_given_up() {
        let mut keep_alive = KeepAlive::new(Millis(0));
        for (now, expected) in [
            (119_999, Due::Nothing),
            (120_000, Due::Ping),
            (149_999, Due::Nothing),
            (150_000, Due::GiveUp),
        ] {
            assert_eq!(
                keep_alive.check(Millis(now), 120_000),
                expected,
                "at {now} ms"
            );
        }
    }

    #[test]
    fn a_phase_is_kept_as_it_was_up_to_the_latest_time() {
        const LATEST: u64 = u64::MAX / 2;
        for (time, kept) in [
            (0, 0),
            (1, 1),
            (LATEST - 1, LATEST - 1),
            (LATEST, LATEST),
            (LATEST + 1, LATEST),
            (u64::MAX, LATEST),
        ] {
            let heard = |at| Phase::Heard { at: Millis(at) };
            assert_eq!(KeepAlive::in_phase(heard(time)).phase(), heard(kept));
            let pinged = |at| Phase::Pinged {
                answer_by: Millis(at),
            };
            assert_eq!(KeepAlive::in_phase(pinged(time)).phase(), pinged(kept));
        }
    }

    #[test]
    fn an_answer_begins_the_next_silence() {
        let mut keep_alive = KeepAlive::new(Millis(0));
        for cycle in 0..3 {
            let silent_until = cycle * 121_000 + 120_000;
            assert_eq!(keep_alive.check(Millis(silent_until), 120_000), Due::Ping);
            assert!(
                keep_alive.heard(Millis(silent_until + 1_000)),
                "the ping was answered"
            );
            assert!(
                !keep_alive.heard(Millis(silent_until + 1_000)),
                "nothing was waited for"
            );
            let deadline = keep_alive.next_deadline(120_000);
            assert_eq!(deadline, Millis(silent_until + 121_000));
        }
    }
}
