//! Snapshots of the shards: asked for, collected, remembered.
//!
//! Owns: the latest snapshot of each shard, the scrape under way and who waits for it.
//! May depend on: `bridge::message`, `metrics::counters`. Not on the link: the caller sends.
//! Invariants: one scrape at a time, so concurrent ones share their answers; a shard that does not
//! answer in time is shown with its last snapshot; a late answer is still kept.

use std::time::{Duration, Instant};

use shards::application::ShardId;
use tokio::sync::oneshot;

use super::{admin::Scrape, busy::BusyWindow};
use crate::metrics::counters::ShardSnapshot;

/// The snapshots of all shards.
#[derive(Debug)]
pub(super) struct Gathering {
    latest: Vec<Latest>,
    token: u64,
    open: Option<Open>,
    waiting: Vec<oneshot::Sender<Scrape>>,
}

/// What is known of one shard.
#[derive(Debug, Default)]
pub(super) struct Latest {
    pub snapshot: Option<Box<ShardSnapshot>>,
    pub busy_ratio: f64,
    window: BusyWindow,
    /// Token of the scrape that it answered last.
    answered: u64,
    /// It did not answer the last scrape in time, which was told.
    is_late: bool,
}

#[derive(Debug)]
struct Open {
    deadline: Instant,
}

/// A shard that takes longer is shown with its last numbers.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// Scrapes that wait for the same answers; more are refused.
const WAITING_MAX: usize = 64;

impl Gathering {
    pub(super) fn new(shards: u16) -> Self {
        let latest = (0..shards).map(|_| Latest::default()).collect();
        Self {
            latest,
            token: 0,
            open: None,
            waiting: Vec::new(),
        }
    }

    /// Adds someone who waits for the scrape. Beyond `WAITING_MAX` the sender is dropped.
    pub(super) fn wait(&mut self, waiter: oneshot::Sender<Scrape>) {
        if self.waiting.len() < WAITING_MAX {
            self.waiting.push(waiter);
        }
    }

    /// Opens a scrape unless one is under way. Returns the token to send to all shards.
    pub(super) fn begin(&mut self, now: Instant) -> Option<u64> {
        if self.open.is_some() {
            return None;
        }
        self.token += 1;
        self.open = Some(Open {
            deadline: now + ANSWER_TIMEOUT,
        });
        Some(self.token)
    }

    /// A shard's answer.
    pub(super) fn answer(&mut self, shard: ShardId, token: u64, snapshot: Box<ShardSnapshot>) {
        let latest = &mut self.latest[usize::from(shard.0)];
        let runtime = &snapshot.runtime;
        latest.busy_ratio = latest.window.push(runtime.since_start_ns, runtime.busy_ns);
        latest.answered = latest.answered.max(token);
        latest.snapshot = Some(snapshot);
    }

    /// True once the scrape is complete or late; then `finish` is due.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.open
            .as_ref()
            .is_some_and(|open| self.missing().is_empty() || now >= open.deadline)
    }

    /// Ends the scrape: who waited for it, and the shards that did not answer, unless they did not
    /// answer the one before either.
    pub(crate) fn finish(&mut self) -> (Vec<oneshot::Sender<Scrape>>, Vec<ShardId>) {
        self.open = None;
        let mut newly_late = self.missing();
        newly_late.retain(|shard| !self.latest[usize::from(shard.0)].is_late);
        for latest in &mut self.latest {
            latest.is_late = latest.answered < self.token;
        }
        (std::mem::take(&mut self.waiting), newly_late)
    }

    /// When the scrape under way is late.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.open.as_ref().map(|open| open.deadline)
    }

    /// Every shard has answered at least once.
    pub(super) fn is_complete(&self) -> bool {
        self.latest.iter().all(|latest| latest.snapshot.is_some())
    }

    /// The shards by number.
    pub(super) fn shards(&self) -> &[Latest] {
        &self.latest
    }

    fn missing(&self) -> Vec<ShardId> {
        let late = self
            .latest
            .iter()
            .enumerate()
            .filter(|(_, l)| l.answered < self.token);
        late.map(|(index, _)| ShardId(u16::try_from(index).expect("a shard's number")))
            .collect()
    }
}

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "any instant will do to begin with"
)]
mod tests {
    use super::*;
    use crate::metrics::counters::ShardCounters;

    fn snapshot(accepted: u64) -> Box<ShardSnapshot> {
        let runtime = shards::application::RuntimeCounters {
            accepted,
            ..Default::default()
        };
        Box::new(ShardSnapshot {
            counters: ShardCounters::default(),
            runtime,
            draining: None,
        })
    }

    #[test]
    fn concurrent_scrapes_share_one_question_and_its_answers() {
        let mut gathering = Gathering::new(2);
        let now = Instant::now();
        let (one, _one) = oneshot::channel();
        let (two, _two) = oneshot::channel();
        gathering.wait(one);
        assert_eq!(gathering.begin(now), Some(1));
        gathering.wait(two);
        assert_eq!(gathering.begin(now), None, "one is under way");
        gathering.answer(ShardId(0), 1, snapshot(1));
        assert!(!gathering.is_due(now), "shard 1 has not answered");
        gathering.answer(ShardId(1), 1, snapshot(1));
        assert!(gathering.is_due(now));
        let (waiters, late) = gathering.finish();
        assert_eq!((waiters.len(), late.len()), (2, 0));
        assert_eq!(gathering.begin(now), Some(2));
    }

    #[test]
    fn a_late_shard_is_named_and_its_late_answer_kept() {
        let mut gathering = Gathering::new(1);
        let now = Instant::now();
        gathering.begin(now);
        let later = gathering.deadline().expect("under way");
        assert!(!gathering.is_due(now));
        assert!(gathering.is_due(later));
        assert_eq!(gathering.finish().1, [ShardId(0)]);
        assert!(!gathering.is_complete());
        gathering.answer(ShardId(0), 1, snapshot(5));
        assert!(gathering.is_complete());
        gathering.begin(now);
        assert!(
            !gathering.is_due(now),
            "an answer to the former question does not count"
        );
        assert!(gathering.finish().1.is_empty(), "late again: told once");
        gathering.begin(now);
        gathering.answer(ShardId(0), 3, snapshot(5));
        assert!(gathering.finish().1.is_empty());
        gathering.begin(now);
        assert_eq!(gathering.finish().1, [ShardId(0)], "late anew");
    }
}
