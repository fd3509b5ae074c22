//! The largest channels of all shards: asked for when an operator looks, collected, remembered for a moment.
//!
//! Owns: the last answers, the question under way, who waits for it, and how it becomes a report.
//! May depend on: `bridge::{admin, message, run}`.
//! Invariants: one question at a time, and none sooner than `FRESH` after the one before, however many ask; a
//! shard that does not answer in time is shown with its last answer.

use std::{
    cmp::Reverse,
    time::{Duration, Instant},
};

use shards::application::ShardId;
use tokio::sync::oneshot;

use super::{
    admin::report::{ChannelTop, TopReport},
    link::ShardLink,
    message::{ChannelSize, FromBridge},
    run::Bridge,
};
/// What the shards answered.
#[derive(Debug)]
pub(super) struct LargestChannels {
    by_shard: Vec<Answered>,
    token: u64,
    /// When the question under way is late.
    deadline: Option<Instant>,
    asked_at: Option<Instant>,
    waiting: Vec<oneshot::Sender<TopReport>>,
}

#[derive(Debug, Default)]
struct Answered {
    token: u64,
    channels: Vec<ChannelSize>,
}

/// So many are shown.
const LARGEST_MAX: usize = 10;
/// A shard that takes longer is shown with its last answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// So long an answer serves whoever asks.
const FRESH: Duration = Duration::from_secs(2);
/// Who waits for the same answers; more are refused.
const WAITING_MAX: usize = 64;

impl LargestChannels {
    pub(super) fn new(shards: u16) -> Self {
        Self {
            by_shard: (0..shards).map(|_| Answered::default()).collect(),
            token: 0,
            deadline: None,
            asked_at: None,
            waiting: Vec::new(),
        }
    }

    /// Adds someone who waits for the answers, beyond `WAITING_MAX` nobody. Returns the token to send to all
    /// shards, if they are to be asked.
    fn wait(&mut self, now: Instant, waiter: oneshot::Sender<TopReport>) -> Option<u64> {
        if self.waiting.len() < WAITING_MAX {
            self.waiting.push(waiter);
        }
        let is_fresh = |at: Instant| now.saturating_duration_since(at) < FRESH;
        if self.deadline.is_some() || self.asked_at.is_some_and(is_fresh) {
            return None;
        }
        self.token += 1;
        self.asked_at = Some(now);
        self.deadline = Some(now + ANSWER_TIMEOUT);
        Some(self.token)
    }

    /// A shard's answer.
    pub(super) fn hear(&mut self, shard: ShardId, token: u64, channels: Vec<ChannelSize>) {
        self.by_shard[usize::from(shard.0)] = Answered { token, channels };
    }

    /// When the question under way is late.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Those who waited, once all shards have answered or are late.
    fn take_served(&mut self, now: Instant) -> Vec<oneshot::Sender<TopReport>> {
        if self.deadline.is_none() && self.waiting.is_empty() {
            return Vec::new();
        }
        let is_complete = self.by_shard.iter().all(|it| it.token == self.token);
        let is_late = self.deadline.is_none_or(|deadline| now >= deadline);
        if !is_complete && !is_late {
            return Vec::new();
        }
        self.deadline = None;
        std::mem::take(&mut self.waiting)
    }

    /// Of all shards together; each channel has one home.
    fn largest(&self) -> Vec<&ChannelSize> {
        let mut all: Vec<_> = self.by_shard.iter().flat_map(|it| &it.channels).collect();
        all.sort_by_key(|it| Reverse(it.subscribers));
        all.truncate(LARGEST_MAX);
        all
    }
}

impl<L: ShardLink> Bridge<L> {
    /// An operator looks at this node.
    pub(super) fn ask_top(&mut self, now: Instant, waiter: oneshot::Sender<TopReport>) {
        if let Some(token) = self.largest.wait(now, waiter) {
            self.broadcast(|| FromBridge::Largest { token });
        }
        self.serve_top(now);
    }

    /// Answers whoever looks, if the shards have said enough.
    pub(super) fn serve_top(&mut self, now: Instant) {
        let waiters = self.largest.take_served(now);
        if waiters.is_empty() {
            return;
        }
        let report = self.top();
        for waiter in waiters {
            _ = waiter.send(report.clone()); // Who has gone meanwhile needs no answer.
        }
    }

    pub(super) fn largest_top(&self) -> Vec<ChannelTop> {
        let largest = self.largest.largest().into_iter();
        // An app that has gone since then has no channels.
        let told = largest.filter_map(|it| {
            Some(ChannelTop {
                app_id: self.apps.get(it.app)?.app.id.clone(),
                channel: it.channel.to_string(),
                subscribers: it.subscribers,
                everywhere: it.everywhere,
            })
        });
        told.collect()
    }
}

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "any instant will do to begin with"
)]
mod tests {
    use super::*;
    use crate::protocol::app::AppIndex;

    fn size(subscribers: u32) -> ChannelSize {
        ChannelSize {
            app: AppIndex(0),
            channel: format!("c{subscribers}").into(),
            subscribers,
            everywhere: subscribers,
        }
    }

    fn sizes(largest: &LargestChannels) -> Vec<u32> {
        largest.largest().iter().map(|it| it.subscribers).collect()
    }

    #[test]
    fn all_who_look_at_once_share_one_question_and_soon_after_it_none_is_asked() {
        let mut largest = LargestChannels::new(2);
        let now = Instant::now();
        let waiter = || oneshot::channel().0;
        assert_eq!(largest.wait(now, waiter()), Some(1));
        assert_eq!(largest.wait(now, waiter()), None, "one is under way");
        largest.hear(ShardId(0), 1, vec![size(3)]);
        assert!(largest.take_served(now).is_empty(), "shard 1 is missing");
        largest.hear(ShardId(1), 1, vec![size(5), size(1)]);
        assert_eq!(largest.take_served(now).len(), 2);
        assert_eq!(sizes(&largest), [5, 3, 1]);
        let soon = now + FRESH - Duration::from_millis(1);
        assert_eq!(largest.wait(soon, waiter()), None);
        assert_eq!(largest.take_served(soon).len(), 1, "at once");
        assert_eq!(largest.wait(now + FRESH, waiter()), Some(2));
    }

    #[test]
    fn a_late_shard_is_shown_with_its_last_answer() {
        let mut largest = LargestChannels::new(1);
        let now = Instant::now();
        let waiter = || oneshot::channel().0;
        largest.wait(now, waiter());
        largest.hear(ShardId(0), 1, vec![size(3)]);
        assert_eq!(largest.take_served(now).len(), 1);
        let later = now + FRESH;
        assert_eq!(largest.wait(later, waiter()), Some(2));
        assert!(largest.take_served(later).is_empty());
        let deadline = largest.deadline().expect("under way");
        assert_eq!(largest.take_served(deadline).len(), 1);
        assert_eq!(sizes(&largest), [3]);
    }

    #[test]
    fn of_several_shards_the_largest_are_told() {
        let mut largest = LargestChannels::new(2);
        largest.hear(ShardId(0), 1, (1..=10).rev().map(size).collect());
        largest.hear(ShardId(1), 1, (6..=15).rev().map(size).collect());
        assert_eq!(sizes(&largest), [15, 14, 13, 12, 11, 10, 10, 9, 9, 8]);
    }
}
