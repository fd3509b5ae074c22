//! The queue that lives in this process.
//!
//! Owns: a lane per target with work, the bounds over all of them, what became of each job.
//! May depend on: `bridge::queue`, `metrics::bridge`.
//! Invariants: at most `events_max` events and `bytes_max` bytes wait (and the event that came
//! last); every job ends in exactly one of delivered and dead.

use std::{collections::BTreeMap, sync::Arc};

use shards::application::Millis;

use super::{Job, QueueSettings, TargetId, lane::Lane};
use crate::protocol::app::AppIndex;
use crate::{
    bridge::message::WebhookEvent,
    metrics::bridge::{DeadReason, DeliveryResult, WebhookCounters},
};

/// Webhooks that wait for delivery.
#[derive(Debug)]
pub struct MemoryQueue {
    settings: QueueSettings,
    /// Lanes with work; one per target at most.
    lanes: BTreeMap<TargetId, Lane>,
    /// Where the last start was, so that no target is always first.
    cursor: TargetId,
    waiting_events: usize,
    waiting_bytes: usize,
    in_flight: usize,
    in_flight_events: usize,
    overflowed_at: Option<Millis>,
    pub counters: WebhookCounters,
}

/// How a target's state changed with an attempt, for one log line per change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetChange {
    None,
    Fails,
    Recovered,
}

/// After an overflow the queue counts as failing for so long.
const OVERFLOW_REMEMBERED_MS: u64 = 10_000;

impl MemoryQueue {
    pub fn new(settings: QueueSettings) -> Self {
        assert!(
            settings.in_flight_max > 0,
            "a queue without places never empties"
        );
        Self {
            settings,
            lanes: BTreeMap::new(),
            cursor: TargetId(0),
            waiting_events: 0,
            waiting_bytes: 0,
            in_flight: 0,
            in_flight_events: 0,
            overflowed_at: None,
            counters: WebhookCounters::default(),
        }
    }

    /// Takes over a reloaded rhythm; what waits stays.
    pub fn reconfigure(&mut self, settings: QueueSettings) {
        for lane in self.lanes.values_mut() {
            lane.close();
        }
        self.settings = settings;
    }

    /// Adds an event for one target. When the queue is full its oldest job is dropped and counted.
    pub fn push(&mut self, target: TargetId, app: AppIndex, event: Arc<WebhookEvent>, now: Millis) {
        self.waiting_events += 1;
        self.waiting_bytes += event.approximate_bytes();
        let lane = self.lanes.entry(target).or_insert_with(|| Lane::new(app));
        lane.push(event, now, &self.settings);
        while self.waiting_events > self.settings.events_max
            || self.waiting_bytes > self.settings.bytes_max
        {
            self.overflowed_at = Some(now);
            if !self.drop_oldest(DeadReason::Overflow) {
                return;
            }
        }
    }

    /// Closes due batches, gives up what is too old, and takes one job that may start.
    pub fn start(&mut self, now: Millis) -> Option<(TargetId, Job)> {
        if self.in_flight >= self.settings.in_flight_max {
            return None;
        }
        let spare = self.has_spare_places();
        let after = (
            std::ops::Bound::Excluded(self.cursor),
            std::ops::Bound::Unbounded,
        );
        let mut ids: Vec<TargetId> = self.lanes.range(after).map(|(id, _)| *id).collect();
        ids.extend(self.lanes.range(..=self.cursor).map(|(id, _)| *id));
        for id in ids {
            self.give_up_old(id, now);
            let Some(lane) = self.lanes.get_mut(&id) else {
                continue;
            };
            lane.close_due(now, &self.settings);
            if let Some(job) = lane.start(now, spare, &self.settings) {
                self.cursor = id;
                self.in_flight += 1;
                self.in_flight_events += job.events.len();
                self.forget_waiting(&job);
                return Some((id, job));
            }
            self.remove_if_idle(id);
        }
        None
    }

    /// The target took the job.
    pub fn delivered(&mut self, target: TargetId, job: &Job) -> TargetChange {
        let lane = self.lane_in_flight(target);
        let was_failing = lane.is_failing();
        lane.ended(job, true);
        self.leave(job.events.len());
        self.counters
            .app(job.app)
            .count(&job.counts(), DeliveryResult::Ok);
        self.remove_if_idle(target);
        if was_failing {
            TargetChange::Recovered
        } else {
            TargetChange::None
        }
    }

    /// The attempt failed: the job waits for the next one, or is given up. `jitter` is in 0..1.
    pub fn failed(
        &mut self,
        target: TargetId,
        mut job: Job,
        now: Millis,
        jitter: f64,
    ) -> TargetChange {
        let lane = self.lane_in_flight(target);
        lane.ended(&job, false);
        let began_to_fail = lane.began_to_fail();
        self.leave(job.events.len());
        job.attempts += 1;
        let retry = &self.settings.retry;
        let due = now.plus(backoff_ms(&self.settings, job.attempts, jitter));
        let ends = job.created.plus(retry.max_age_s.saturating_mul(1_000));
        if retry.attempts > 0 && job.attempts >= retry.attempts {
            self.bury(&job, DeadReason::Attempts);
        } else if due > ends {
            self.bury(&job, DeadReason::Age);
        } else {
            let counters = self.counters.app(job.app);
            counters.count(&job.counts(), DeliveryResult::Retry);
            counters.retries += 1;
            self.waiting_events += job.events.len();
            self.waiting_bytes += job.bytes;
            self.lane_in_flight(target).retry(job, due);
        }
        self.remove_if_idle(target);
        if began_to_fail {
            TargetChange::Fails
        } else {
            TargetChange::None
        }
    }

    /// Drops what waits for targets that are no more. Jobs in flight end as they may.
    pub fn retain(&mut self, is_there: impl Fn(TargetId) -> bool) {
        let gone: Vec<TargetId> = self
            .lanes
            .keys()
            .copied()
            .filter(|id| !is_there(*id))
            .collect();
        for id in gone {
            while let Some(job) = self.lanes.get_mut(&id).and_then(Lane::take_oldest) {
                self.forget_waiting(&job);
                self.bury(&job, DeadReason::Gone);
            }
            if let Some(lane) = self.lanes.get_mut(&id) {
                lane.forgive();
            }
            self.remove_if_idle(id);
        }
    }

    /// Counts a job whose target was removed while it was in flight.
    pub fn gone(&mut self, target: TargetId, job: &Job) {
        let lane = self.lane_in_flight(target);
        lane.ended(job, false);
        lane.forgive();
        self.leave(job.events.len());
        self.bury(job, DeadReason::Gone);
        self.remove_if_idle(target);
    }

    /// Closes all batches and makes all retries due: the process is about to stop.
    pub fn hurry(&mut self, now: Millis) {
        for lane in self.lanes.values_mut() {
            lane.close();
            lane.hurry(now);
        }
    }

    /// Counts everything that still waits as dead; returns how many events are lost with it,
    /// those in flight included.
    pub fn abandon(&mut self) -> usize {
        let events = self.waiting_events + self.in_flight_events;
        while self.drop_oldest(DeadReason::Shutdown) {}
        events
    }

    /// When `start` has something new to do although nothing happened.
    pub fn next_due(&self) -> Option<Millis> {
        if self.in_flight >= self.settings.in_flight_max {
            return None; // The end of an attempt comes first.
        }
        let spare = self.has_spare_places();
        self.lanes
            .values()
            .filter_map(|lane| lane.next_due(spare, &self.settings))
            .min()
    }

    pub fn waiting_events(&self) -> usize {
        self.waiting_events
    }

    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Nothing waits and nothing is in flight.
    pub fn is_idle(&self) -> bool {
        self.waiting_events == 0 && self.in_flight == 0
    }

    /// Age of the oldest waiting event, ms.
    pub fn oldest_ms(&self, now: Millis) -> u64 {
        let oldest = self.lanes.values().filter_map(Lane::oldest).min();
        oldest.map_or(0, |created| now.since(created))
    }

    /// The queue overflowed a short while ago.
    pub fn is_failing(&self, now: Millis) -> bool {
        self.overflowed_at
            .is_some_and(|at| now.since(at) < OVERFLOW_REMEMBERED_MS)
    }

    /// Half of the places are free: a target may have more than one.
    fn has_spare_places(&self) -> bool {
        self.in_flight * 2 < self.settings.in_flight_max
    }

    fn give_up_old(&mut self, id: TargetId, now: Millis) {
        let max_age_ms = self.settings.retry.max_age_s.saturating_mul(1_000);
        let oldest = Millis(now.0.saturating_sub(max_age_ms));
        while let Some(job) = self
            .lanes
            .get_mut(&id)
            .and_then(|lane| lane.take_older(oldest))
        {
            self.forget_waiting(&job);
            self.bury(&job, DeadReason::Age);
        }
    }

    fn drop_oldest(&mut self, reason: DeadReason) -> bool {
        let oldest = self
            .lanes
            .iter()
            .filter_map(|(id, lane)| Some((lane.oldest()?, *id)))
            .min();
        let Some((_, id)) = oldest else { return false };
        let job = self.lanes.get_mut(&id).and_then(Lane::take_oldest);
        let job = job.expect("a lane with an oldest event gives it");
        self.forget_waiting(&job);
        self.bury(&job, reason);
        self.remove_if_idle(id);
        true
    }

    /// An attempt with so many events has ended.
    fn leave(&mut self, events: usize) {
        assert!(self.in_flight > 0, "an attempt ended that nobody began");
        assert!(
            self.in_flight_events >= events,
            "more events ended than began"
        );
        self.in_flight -= 1;
        self.in_flight_events -= events;
    }

    fn lane_in_flight(&mut self, target: TargetId) -> &mut Lane {
        self.lanes
            .get_mut(&target)
            .expect("a lane stays while a job is in flight")
    }

    fn forget_waiting(&mut self, job: &Job) {
        assert!(
            self.waiting_events >= job.events.len(),
            "more events left than came"
        );
        assert!(self.waiting_bytes >= job.bytes, "more bytes left than came");
        self.waiting_events -= job.events.len();
        self.waiting_bytes -= job.bytes;
    }

    fn bury(&mut self, job: &Job, reason: DeadReason) {
        let counters = self.counters.app(job.app);
        counters.count(&job.counts(), DeliveryResult::Dead);
        counters.dead[reason as usize] += 1;
    }

    fn remove_if_idle(&mut self, id: TargetId) {
        if self.lanes.get(&id).is_some_and(Lane::is_removable) {
            self.lanes.remove(&id);
        }
    }
}

/// Doubles from `backoff_ms` to `backoff_max_ms`; of that, a random part between half and all, so
/// that jobs that failed together do not come back together.
fn backoff_ms(settings: &QueueSettings, attempts: u32, jitter: f64) -> u64 {
    let doublings = attempts.saturating_sub(1).min(30);
    let full = settings.retry.backoff_ms.saturating_mul(1 << doublings);
    let full = full.min(settings.retry.backoff_max_ms);
    full / 2 + (full as f64 / 2.0 * jitter) as u64
}
