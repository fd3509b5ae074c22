//! The queue that lives in this process.
//!
//! Owns: a lane per target with work, the bound over all of them, what became of each job.
//! May depend on: `bridge::queue`, `metrics::bridge`.
//! Invariants: at most `bytes_max` bytes wait; when something must go, it is the oldest job of the
//! app that holds the most, so an app within its equal part loses nothing; every job ends in
//! exactly one of delivered and dead; the work per event does not grow with what waits; a place that
//! becomes free goes to the app with the fewest (`turns`); targets that fail have half of the places at
//! most, however many they are.

mod carry;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use shards::application::Millis;

pub use self::carry::Carried;
use super::{
    Job, QueueSettings, TargetId, between_half_and_all, lane::Lane, shares::Shares, turns::Turns,
};
use crate::protocol::app::AppIndex;
use crate::{
    bridge::webhook_event::WebhookEvent,
    metrics::bridge::{DeadReason, DeliveryResult, WebhookCounters},
};

/// Webhooks that wait for delivery.
#[derive(Debug)]
pub struct MemoryQueue {
    settings: QueueSettings,
    /// Lanes with work; one per target at most.
    lanes: BTreeMap<TargetId, Lane>,
    /// Lanes that may start something, in turn, and what is under way.
    turns: Turns,
    /// The same of targets that fail, for the places that they have: listed here is who finds none of those.
    /// Attempts are counted there as well.
    probes: Turns,
    /// When the other lanes are to be looked at, one entry per lane at most.
    wakes: BTreeSet<(Millis, TargetId)>,
    /// What waits, by app.
    shares: Shares,
    waiting_events: usize,
    /// Lanes looked at and jobs dropped so far: the work done.
    looks: u64,
    in_flight_events: usize,
    overflowed_at: Option<Millis>,
    /// Jobs that left other than delivered, for who keeps account of them. It takes them after each call.
    left: Vec<Left>,
    pub counters: WebhookCounters,
}

/// A job that is this queue's no more, and why.
#[derive(Debug)]
pub enum Left {
    Dead(TargetId, Job, DeadReason),
    /// It is kept elsewhere until then.
    Again(TargetId, Job, Millis),
}

/// How a target's state changed with an attempt, for one log line per change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetChange {
    None,
    Fails,
    Recovered,
}

/// A failing target is tried at least this often, so that its return is noticed soon.
const PAUSE_MAX_MS: u64 = 5_000;

/// After an overflow the queue counts as failing for so long.
pub(super) const OVERFLOW_REMEMBERED_MS: u64 = 10_000;

impl MemoryQueue {
    pub fn new(settings: QueueSettings) -> Self {
        assert!(
            settings.in_flight_max > 0,
            "a queue without places never empties"
        );
        Self {
            settings,
            lanes: BTreeMap::new(),
            turns: Turns::default(),
            probes: Turns::default(),
            wakes: BTreeSet::new(),
            shares: Shares::default(),
            waiting_events: 0,
            looks: 0,
            in_flight_events: 0,
            overflowed_at: None,
            left: Vec::new(),
            counters: WebhookCounters::default(),
        }
    }

    pub fn settings(&self) -> &QueueSettings {
        &self.settings
    }

    /// Takes over a reloaded rhythm; what waits stays.
    pub fn reconfigure(&mut self, settings: QueueSettings, now: Millis) {
        self.settings = settings;
        self.each_lane(now, |lane| lane.close());
        self.make_room(now);
    }

    /// Adds an event for one target. When the queue is full, the app that holds the most loses its
    /// oldest job, which is counted.
    // Two look-ups by number and two moves in ordered sets, however much waits.
    pub fn push(&mut self, target: TargetId, app: AppIndex, event: Arc<WebhookEvent>, now: Millis) {
        self.waiting_events += 1;
        self.shares.add(app, target, event.approximate_bytes());
        let lane = self.lanes.entry(target).or_insert_with(|| Lane::new(app));
        assert!(lane.app() == app, "a target belongs to one app");
        lane.push(event, now, &self.settings);
        self.schedule(target, now);
        self.make_room(now);
    }

    /// Adds a job that was made elsewhere.
    pub fn push_job(&mut self, target: TargetId, job: Job, now: Millis) {
        self.waiting_events += job.events.len();
        self.shares.add(job.app, target, job.bytes);
        let lane = self.lanes.entry(target);
        let lane = lane.or_insert_with(|| Lane::new(job.app));
        assert!(lane.app() == job.app, "a target belongs to one app");
        lane.push_job(job);
        self.schedule(target, now);
        self.make_room(now);
    }

    /// Takes one whole job, to keep it elsewhere: it is this queue's no more. A queue that gives its jobs
    /// away so starts none.
    pub fn pop(&mut self, now: Millis) -> Option<(TargetId, Job)> {
        assert!(self.in_flight() == 0, "jobs are started or given away");
        self.list_due(now);
        while let Some(id) = self.next_turn() {
            self.looks += 1;
            self.give_up_old(id, now);
            let lane = self.lanes.get_mut(&id)?;
            lane.is_listed = false;
            lane.close_due(now, &self.settings);
            let job = lane.pop();
            if let Some(job) = &job {
                self.forget_waiting(id, job);
            }
            self.schedule(id, now);
            self.remove_if_idle(id);
            if let Some(job) = job {
                return Some((id, job));
            }
        }
        None
    }

    /// Takes the jobs of a target that were not tried yet, but for the first `keep`.
    pub fn take_untried(&mut self, target: TargetId, keep: usize, now: Millis) -> Vec<Job> {
        let lane = self.lanes.get_mut(&target);
        let jobs = lane.map_or_else(Vec::new, |lane| lane.take_untried(keep));
        for job in &jobs {
            self.forget_waiting(target, job);
        }
        self.schedule(target, now);
        self.remove_if_idle(target);
        jobs
    }

    /// Takes all jobs that were not tried yet.
    pub fn take_all_untried(&mut self, now: Millis) -> Vec<(TargetId, Job)> {
        let ids: Vec<TargetId> = self.lanes.keys().copied().collect();
        let mut taken = Vec::new();
        for id in ids {
            let jobs = self.take_untried(id, 0, now).into_iter();
            taken.extend(jobs.map(|job| (id, job)));
        }
        taken
    }

    /// Jobs that left other than delivered since this was asked last.
    pub fn take_left(&mut self) -> Vec<Left> {
        std::mem::take(&mut self.left)
    }

    /// Keeps account of what left another queue whose jobs came here.
    pub fn take_over_left(&mut self, left: Vec<Left>) {
        self.left.extend(left);
    }

    /// Targets that are left alone between attempts.
    pub fn targets_failing(&self) -> usize {
        self.lanes.values().filter(|lane| lane.is_failing()).count()
    }

    pub fn is_target_failing(&self, target: TargetId) -> bool {
        self.lanes.get(&target).is_some_and(Lane::is_failing)
    }

    fn make_room(&mut self, now: Millis) {
        while self.shares.bytes() > self.settings.bytes_max {
            self.overflowed_at = Some(now);
            self.drop_oldest(DeadReason::Overflow);
        }
    }

    /// Closes due batches, gives up what is too old, and takes one job that may start.
    pub fn start(&mut self, now: Millis) -> Option<(TargetId, Job)> {
        if self.in_flight() >= self.settings.in_flight_max {
            return None;
        }
        self.list_due(now);
        for _ in 0..self.turns.listed() + self.probes.listed() {
            let Some(id) = self.next_turn() else { break };
            if let Some(job) = self.start_from(id, now) {
                return Some((id, job));
            }
        }
        assert!(!self.has_turn(), "each lane was looked at once");
        None
    }

    /// The lane whose turn it is. Lanes of failing targets that wait for their places come last.
    fn next_turn(&mut self) -> Option<TargetId> {
        let places = self.settings.in_flight_max;
        let next = self.turns.next(places, |_| true);
        next.or_else(|| {
            let turns = &self.turns;
            let may = |app| turns.may_start(app, places);
            self.probes.next(probes_max(&self.settings), may)
        })
    }

    fn has_turn(&self) -> bool {
        let places = self.settings.in_flight_max;
        let may = |app| self.turns.may_start(app, places);
        let probes = probes_max(&self.settings);
        self.turns.has_next(places, |_| true) || self.probes.has_next(probes, may)
    }

    fn list_due(&mut self, now: Millis) {
        while self.wakes.first().is_some_and(|(at, _)| *at <= now)
            && let Some((_, id)) = self.wakes.pop_first()
        {
            self.list(id);
        }
    }

    /// Looks at a lane that was listed.
    fn start_from(&mut self, id: TargetId, now: Millis) -> Option<Job> {
        self.looks += 1;
        self.give_up_old(id, now);
        let lane = self.lanes.get_mut(&id)?;
        let app = lane.app();
        let spare = self.turns.has_spare(app, self.settings.in_flight_max);
        lane.close_due(now, &self.settings);
        let look = lane.next_look(spare, &self.settings);
        let is_probe = lane.is_failing() && look.is_some_and(|at| at <= now);
        if is_probe && !self.probes.may_start(app, probes_max(&self.settings)) {
            self.probes.list(app, id);
            return None;
        }
        lane.is_listed = false;
        let mut job = lane.start(now, spare, &self.settings);
        if let Some(job) = &mut job {
            job.is_probe = is_probe;
            if is_probe {
                self.probes.began(app);
            }
            self.turns.began(app);
            self.in_flight_events += job.events.len();
            self.forget_waiting(id, job);
        }
        self.schedule(id, now);
        self.remove_if_idle(id);
        job
    }

    /// Puts a lane at the end of those that may start something, unless it is there or held.
    fn list(&mut self, id: TargetId) {
        let Some(lane) = self.lanes.get_mut(&id) else {
            return;
        };
        if let Some(wake) = lane.wake.take() {
            self.wakes.remove(&(wake, id));
        }
        if !lane.is_listed {
            lane.is_listed = true;
            self.turns.list(lane.app(), id);
        }
    }

    /// Sees to it that a lane is looked at when it may start something.
    fn schedule(&mut self, id: TargetId, now: Millis) {
        let Some(lane) = self.lanes.get_mut(&id).filter(|lane| !lane.is_listed) else {
            return;
        };
        let places = self.settings.in_flight_max;
        let spare = self.turns.has_spare(lane.app(), places);
        let look = lane.next_look(spare, &self.settings);
        if look.is_some_and(|at| at <= now) {
            return self.list(id);
        }
        if lane.wake != look {
            if let Some(wake) = lane.wake {
                self.wakes.remove(&(wake, id));
            }
            lane.wake = look;
            self.wakes.extend(look.map(|at| (at, id)));
        }
    }

    /// Does something with all lanes: for what happens seldom.
    fn each_lane(&mut self, now: Millis, change: impl Fn(&mut Lane)) {
        let ids: Vec<TargetId> = self.lanes.keys().copied().collect();
        for id in ids {
            self.lanes.entry(id).and_modify(&change);
            self.schedule(id, now);
        }
    }

    /// The target took the job.
    pub fn delivered(&mut self, target: TargetId, job: &Job, now: Millis) -> TargetChange {
        let lane = lane_in_flight(&mut self.lanes, target);
        let was_failing = lane.is_failing();
        lane.ended(job, true);
        self.leave(job);
        self.counters
            .app(job.app)
            .count(&job.counts(), DeliveryResult::Ok);
        self.schedule(target, now);
        self.remove_if_idle(target);
        if was_failing {
            TargetChange::Recovered
        } else {
            TargetChange::None
        }
    }

    /// The attempt failed: the job waits for the next one, or is given up, and a target that keeps
    /// failing is left alone for a while. `jitter` is in 0..1.
    pub fn failed(
        &mut self,
        target: TargetId,
        mut job: Job,
        now: Millis,
        jitter: f64,
    ) -> TargetChange {
        let lane = lane_in_flight(&mut self.lanes, target);
        lane.ended(&job, false);
        let began_to_fail = lane.began_to_fail();
        if lane.is_failing() {
            let pause_ms = backoff_ms(&self.settings, lane.failures_as_failing(), jitter);
            lane.rest_until(now.plus(pause_ms.min(PAUSE_MAX_MS)));
        }
        self.leave(&job);
        job.attempts += 1;
        let retry = &self.settings.retry;
        let due = now.plus(backoff_ms(&self.settings, job.attempts, jitter));
        let ends = job.created.plus(retry.max_age_s.saturating_mul(1_000));
        if retry.attempts > 0 && job.attempts >= retry.attempts {
            self.bury(target, job, DeadReason::Attempts);
        } else if due > ends {
            self.bury(target, job, DeadReason::Age);
        } else if job.receipt.is_some() {
            self.count_retry(&job);
            self.left.push(Left::Again(target, job, due));
        } else {
            self.count_retry(&job);
            self.waiting_events += job.events.len();
            self.shares.add(job.app, target, job.bytes);
            lane_in_flight(&mut self.lanes, target).retry(job, due);
        }
        self.schedule(target, now);
        self.make_room(now);
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
                self.forget_waiting(id, &job);
                self.bury(id, job, DeadReason::Gone);
            }
            if let Some(lane) = self.lanes.get_mut(&id) {
                lane.forgive();
            }
            self.remove_if_idle(id);
        }
    }

    /// Counts a job whose target was removed while it was in flight.
    pub fn gone(&mut self, target: TargetId, job: &Job) {
        let lane = lane_in_flight(&mut self.lanes, target);
        lane.ended(job, false);
        lane.forgive();
        self.leave(job);
        self.bury(target, job.clone(), DeadReason::Gone);
        self.remove_if_idle(target);
    }

    /// Closes all batches and makes all retries due: the process is about to stop.
    pub fn hurry(&mut self, now: Millis) {
        self.each_lane(now, |lane| {
            lane.close();
            lane.hurry(now);
        });
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
        if self.in_flight() >= self.settings.in_flight_max {
            return None; // The end of an attempt comes first.
        }
        if self.has_turn() {
            return Some(Millis(0));
        }
        self.wakes.first().map(|(at, _)| *at)
    }

    pub fn waiting_events(&self) -> usize {
        self.waiting_events
    }

    pub fn waiting_bytes(&self) -> usize {
        self.shares.bytes()
    }

    /// The work done so far: lanes looked at, jobs dropped.
    pub fn looks(&self) -> u64 {
        self.looks
    }

    pub fn in_flight(&self) -> usize {
        self.turns.in_flight()
    }

    /// Nothing waits and nothing is in flight.
    pub fn is_idle(&self) -> bool {
        self.waiting_events == 0 && self.in_flight() == 0
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

    fn give_up_old(&mut self, id: TargetId, now: Millis) {
        let max_age_ms = self.settings.retry.max_age_s.saturating_mul(1_000);
        let oldest = Millis(now.0.saturating_sub(max_age_ms));
        while let Some(job) = self
            .lanes
            .get_mut(&id)
            .and_then(|lane| lane.take_older(oldest))
        {
            self.forget_waiting(id, &job);
            self.bury(id, job, DeadReason::Age);
        }
    }

    /// Drops the oldest job of the app that holds the most; false if nothing waits.
    // The app is the last of an ordered set; of its targets, a handful, each knows its oldest.
    fn drop_oldest(&mut self, reason: DeadReason) -> bool {
        self.looks += 1;
        let targets = self.shares.heaviest();
        let oldest = targets.filter_map(|id| Some((self.lanes.get(&id)?.oldest()?, id)));
        let Some((_, id)) = oldest.min() else {
            assert!(self.shares.bytes() == 0, "what waits is in a lane");
            return false;
        };
        let job = self.lanes.get_mut(&id).and_then(Lane::take_oldest);
        let job = job.expect("a lane with an oldest event gives it");
        self.forget_waiting(id, &job);
        self.bury(id, job, reason);
        self.remove_if_idle(id);
        true
    }

    /// An attempt has ended.
    fn leave(&mut self, job: &Job) {
        assert!(
            self.in_flight_events >= job.events.len(),
            "more events ended than began"
        );
        self.turns.ended(job.app);
        if job.is_probe {
            self.probes.ended(job.app);
        }
        self.in_flight_events -= job.events.len();
    }

    fn forget_waiting(&mut self, target: TargetId, job: &Job) {
        assert!(
            self.waiting_events >= job.events.len(),
            "more events left than came"
        );
        self.waiting_events -= job.events.len();
        self.shares.take(job.app, target, job.bytes);
    }

    fn bury(&mut self, target: TargetId, job: Job, reason: DeadReason) {
        let counters = self.counters.app(job.app);
        counters.count(&job.counts(), DeliveryResult::Dead);
        counters.dead[reason as usize] += 1;
        self.left.push(Left::Dead(target, job, reason));
    }

    fn count_retry(&mut self, job: &Job) {
        let counters = self.counters.app(job.app);
        counters.count(&job.counts(), DeliveryResult::Retry);
        counters.retries += 1;
    }

    fn remove_if_idle(&mut self, id: TargetId) {
        // A listed lane is removed when its turn comes.
        let lane = self.lanes.get(&id).filter(|lane| !lane.is_listed);
        if lane.is_some_and(Lane::is_removable)
            && let Some(lane) = self.lanes.remove(&id)
            && let Some(wake) = lane.wake
        {
            self.wakes.remove(&(wake, id));
        }
    }
}

/// Attempts at the same time to targets that fail: each may take as long as an attempt can.
fn probes_max(settings: &QueueSettings) -> usize {
    settings.in_flight_max.div_ceil(2)
}

fn lane_in_flight(lanes: &mut BTreeMap<TargetId, Lane>, target: TargetId) -> &mut Lane {
    let lane = lanes.get_mut(&target);
    lane.expect("a lane stays while a job is in flight")
}

/// Doubles from `backoff_ms` to `backoff_max_ms`; of that, a random part between half and all, so
/// that jobs that failed together do not come back together.
fn backoff_ms(settings: &QueueSettings, attempts: u32, jitter: f64) -> u64 {
    let doublings = attempts.saturating_sub(1).min(30);
    let full = settings.retry.backoff_ms.saturating_mul(1 << doublings);
    let full = full.min(settings.retry.backoff_max_ms);
    between_half_and_all(full, jitter)
}
