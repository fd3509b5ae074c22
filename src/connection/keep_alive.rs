//! When a silent connection is pinged, and when it is given up.
//!
//! Owns: `KeepAlive`.
//! May depend on: plain ids.
//! Invariants: at most one ping is outstanding; any complete inbound frame proves life.

use shards::application::Millis;

/// Silence of one open connection.
// One time and not two: a row's other eight bytes are somebody else's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum KeepAlive {
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
        Self::Heard { at: now }
    }

    /// A frame of any kind arrived. Returns true if it ended the wait for a pong: then the next
    /// deadline is nearer than the one before.
    #[must_use]
    pub fn heard(&mut self, now: Millis) -> bool {
        let before = std::mem::replace(self, Self::Heard { at: now });
        matches!(before, Self::Pinged { .. })
    }

    /// What is due at `now`; a due ping counts as sent.
    pub fn check(&mut self, now: Millis, activity_timeout_ms: u64) -> Due {
        if now < self.next_deadline(activity_timeout_ms) {
            return Due::Nothing;
        }
        match self {
            Self::Pinged { .. } => Due::GiveUp,
            Self::Heard { .. } => {
                let answer_by = now.plus(PONG_TIMEOUT_MS);
                *self = Self::Pinged { answer_by };
                Due::Ping
            }
        }
    }

    /// When `check` is next worth calling.
    pub fn next_deadline(&self, activity_timeout_ms: u64) -> Millis {
        match self {
            Self::Heard { at } => at.plus(activity_timeout_ms),
            Self::Pinged { answer_by } => *answer_by,
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
