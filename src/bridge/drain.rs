//! The order of a stop: unready, close, settle, flush, leave. New connections go to another process
//! as soon as one listens on the same port.
//!
//! Owns: the phases and their deadlines.
//! May depend on: `config::sections::Drain`. Time is an argument.
//! Invariants: phases only go forward; `Done` comes at `ends` at the latest.

use std::time::{Duration, Instant};

use shards::application::ShardId;

use crate::config::sections::Drain as Settings;

/// A stop under way.
#[derive(Debug)]
pub(super) struct Drain {
    phase: Phase,
    closing_at: Instant,
    /// Until when shards close their connections; the rest of the time is for webhooks.
    closed_by: Instant,
    ends: Instant,
    rate_per_s: u32,
    /// When to look next whether another process listens on our port; `None` = ours is closed.
    looks_at: Option<Instant>,
    /// By shard number: it has closed all its connections, and answered who had asked before.
    drained: Vec<bool>,
    /// Until when shards send the last events of their channels, and answer who asked meanwhile.
    settled_by: Instant,
    /// By shard number: it has sent them.
    settled: Vec<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Unready, still serving.
    Waiting,
    /// Connections are being closed.
    Closing,
    /// Channels that nobody is left in are being reported.
    Settling,
    /// Webhooks are being delivered.
    Flushing,
}

/// What the bridge does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Wait,
    /// Look whether another process listens on our port; if so stop accepting and say `succeeded`.
    Look,
    /// Tell all shards to close everything by then.
    Close {
        by: Instant,
        rate_per_s: u32,
    },
    /// Stop accepting; tell all shards that nobody will return.
    Settle,
    /// Send what webhooks wait.
    Flush,
    /// Leave.
    Done,
}

impl Drain {
    /// Begins a stop. It ends `deadline_s` from now, and later only if `lb_wait_s` would leave no
    /// time for closing.
    pub(super) fn begin(settings: &Settings, shards: u16, now: Instant) -> Self {
        let wait = Duration::from_secs(settings.lb_wait_s.into());
        let whole = Duration::from_secs(settings.deadline_s.into());
        let whole = whole.max(wait + CLOSING_MIN);
        let flushing = (whole - wait).mul_f64(FLUSHING_SHARE).min(FLUSHING_MAX);
        let closing_at = now + wait;
        let ends = now + whole;
        let closed_by = ends - flushing;
        assert!(closing_at < closed_by, "there is time for closing");
        assert!(closed_by < ends, "there is time for webhooks");
        Self {
            phase: Phase::Waiting,
            closing_at,
            closed_by,
            ends,
            rate_per_s: settings.rate_per_s,
            looks_at: Some(now),
            drained: vec![false; usize::from(shards)],
            settled_by: ends,
            settled: vec![false; usize::from(shards)],
        }
    }

    /// Another process takes what comes: nothing is accepted any more.
    pub(super) fn succeeded(&mut self) {
        self.looks_at = None;
    }

    /// A shard has closed all its connections.
    pub(super) fn drained(&mut self, shard: ShardId) {
        self.drained[usize::from(shard.0)] = true;
    }

    /// A shard has sent the last events of its channels.
    pub(super) fn settled(&mut self, shard: ShardId) {
        self.settled[usize::from(shard.0)] = true;
    }

    /// Goes on if it is time. Call again after each step other than `Wait`.
    pub(super) fn step(&mut self, now: Instant, webhooks_idle: bool) -> Step {
        if self.looks_at.is_some_and(|at| now >= at) {
            self.looks_at = Some(now + LOOKS_EVERY);
            return Step::Look;
        }
        match self.phase {
            Phase::Waiting if now >= self.closing_at => {
                self.phase = Phase::Closing;
                Step::Close {
                    by: self.closed_by,
                    rate_per_s: self.rate_per_s,
                }
            }
            Phase::Closing if all(&self.drained) || now >= self.closed_by => {
                self.phase = Phase::Settling;
                self.looks_at = None;
                // Who asked meanwhile has what is left of the time for closing.
                self.settled_by = self.ends.min(self.closed_by.max(now + SETTLING_MAX));
                Step::Settle
            }
            Phase::Settling if all(&self.settled) || now >= self.settled_by => {
                self.phase = Phase::Flushing;
                Step::Flush
            }
            Phase::Flushing if webhooks_idle || now >= self.ends => Step::Done,
            Phase::Waiting | Phase::Closing | Phase::Settling | Phase::Flushing => Step::Wait,
        }
    }

    /// When `step` has something to do by itself.
    pub(super) fn due(&self) -> Instant {
        let phase_ends = match self.phase {
            Phase::Waiting => self.closing_at,
            Phase::Closing => self.closed_by,
            Phase::Settling => self.settled_by,
            Phase::Flushing => self.ends,
        };
        self.looks_at.map_or(phase_ends, |at| at.min(phase_ends))
    }
}

fn all(shards: &[bool]) -> bool {
    shards.iter().all(|has| *has)
}

/// A successor may come at any time of the drain.
const LOOKS_EVERY: Duration = Duration::from_secs(1);

/// However short `drain.deadline_s` is, connections get a close frame.
const CLOSING_MIN: Duration = Duration::from_secs(1);

/// Of the time after `lb_wait_s`, for webhooks.
const FLUSHING_SHARE: f64 = 0.2;
const FLUSHING_MAX: Duration = Duration::from_secs(5);

/// However late it is: shards need two of their ticks of 100 ms, and a turn of each peer.
const SETTLING_MAX: Duration = Duration::from_secs(1);

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "any instant will do to begin with"
)]
mod tests {
    use super::*;

    fn begun(deadline_s: u32, lb_wait_s: u32) -> (Drain, Instant) {
        let now = Instant::now();
        let settings = Settings {
            deadline_s,
            rate_per_s: 7,
            lb_wait_s,
        };
        let mut drain = Drain::begin(&settings, 2, now);
        assert_eq!(drain.step(now, false), Step::Look);
        drain.succeeded();
        (drain, now)
    }

    fn at(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    #[test]
    fn a_stop_waits_for_the_load_balancer_then_closes_then_settles_then_flushes_then_ends() {
        let (mut drain, start) = begun(10, 2);
        assert_eq!(drain.step(start, true), Step::Wait);
        assert_eq!(drain.due(), at(start, 2_000));
        let by = at(start, 8_400); // 20 % of the 8 s after the wait are for webhooks.
        assert_eq!(
            drain.step(at(start, 2_000), true),
            Step::Close { by, rate_per_s: 7 }
        );
        assert_eq!(drain.step(at(start, 2_000), true), Step::Wait);
        drain.drained(ShardId(1));
        assert_eq!(
            drain.step(at(start, 3_000), true),
            Step::Wait,
            "shard 0 is not done"
        );
        drain.drained(ShardId(0));
        assert_eq!(drain.step(at(start, 3_000), false), Step::Settle);
        drain.settled(ShardId(0));
        assert_eq!(
            drain.step(at(start, 3_200), false),
            Step::Wait,
            "shard 1 is not done"
        );
        drain.settled(ShardId(1));
        assert_eq!(drain.step(at(start, 3_200), false), Step::Flush);
        assert_eq!(drain.step(at(start, 3_200), false), Step::Wait);
        assert_eq!(drain.step(at(start, 3_500), true), Step::Done);
    }

    #[test]
    fn a_shard_that_never_drains_and_a_webhook_that_never_arrives_end_at_the_deadline() {
        let (mut drain, start) = begun(10, 0);
        assert!(matches!(drain.step(start, false), Step::Close { .. }));
        assert_eq!(drain.step(at(start, 7_999), false), Step::Wait);
        assert_eq!(drain.step(at(start, 8_000), false), Step::Settle);
        assert_eq!(drain.due(), at(start, 9_000));
        assert_eq!(drain.step(at(start, 8_999), false), Step::Wait);
        assert_eq!(drain.step(at(start, 9_000), false), Step::Flush);
        assert_eq!(drain.step(at(start, 9_999), false), Step::Wait);
        assert_eq!(drain.due(), at(start, 10_000));
        assert_eq!(drain.step(at(start, 10_000), false), Step::Done);
    }

    #[test]
    fn who_asked_while_a_node_drained_has_the_rest_of_the_time_for_closing() {
        let (mut drain, start) = begun(10, 0);
        assert!(matches!(drain.step(start, true), Step::Close { .. }));
        drain.drained(ShardId(0));
        drain.drained(ShardId(1));
        assert_eq!(drain.step(at(start, 100), true), Step::Settle);
        assert_eq!(drain.due(), at(start, 8_000));
        assert_eq!(drain.step(at(start, 7_999), true), Step::Wait);
        assert_eq!(drain.step(at(start, 8_000), true), Step::Flush);
    }

    #[test]
    fn a_wait_beyond_the_deadline_still_leaves_a_second_for_closing() {
        let (mut drain, start) = begun(0, 3);
        let by = at(start, 3_800);
        assert_eq!(
            drain.step(at(start, 3_000), true),
            Step::Close { by, rate_per_s: 7 }
        );
        assert_eq!(drain.ends, at(start, 4_000));
    }

    #[test]
    fn a_successor_is_looked_for_at_once_and_each_second_until_it_is_there_or_the_port_closed() {
        let now = Instant::now();
        let settings = Settings {
            deadline_s: 10,
            rate_per_s: 0,
            lb_wait_s: 2,
        };
        let mut drain = Drain::begin(&settings, 1, now);
        assert_eq!(drain.due(), now);
        for ms in [0, 1_000, 2_000] {
            assert_eq!(drain.step(at(now, ms), true), Step::Look, "after {ms} ms");
            if ms < 2_000 {
                assert_eq!(drain.due(), at(now, ms + 1_000));
                assert_eq!(drain.step(at(now, ms + 999), true), Step::Wait);
            }
        }
        let mut succeeded = Drain::begin(&settings, 1, now);
        assert_eq!(succeeded.step(now, true), Step::Look);
        succeeded.succeeded();
        assert_eq!(succeeded.due(), at(now, 2_000));
        assert!(matches!(
            drain.step(at(now, 2_000), true),
            Step::Close { .. }
        ));
        drain.drained(ShardId(0));
        assert_eq!(drain.step(at(now, 2_500), true), Step::Settle);
        assert_eq!(
            drain.step(at(now, 3_100), true),
            Step::Wait,
            "the port is closed"
        );
    }
}
