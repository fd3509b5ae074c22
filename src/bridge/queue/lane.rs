//! What waits for one target.
//!
//! Owns: the open batch, the jobs not yet tried, the jobs to try again, and which of them may go.
//! May depend on: `bridge::queue`.
//! Invariants: of two jobs with a channel in common, the later one's first attempt begins after the
//! earlier one's has ended; a job is in exactly one place; nothing here walks all that waits.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use shards::application::Millis;

use super::{Job, QueueSettings, batch::Batch};
use crate::bridge::webhook_event::WebhookEvent;
use crate::protocol::app::AppIndex;

/// The queue of one target.
#[derive(Debug)]
pub(crate) struct Lane {
    app: AppIndex,
    open: Batch,
    /// Not yet tried, oldest first.
    ready: VecDeque<Job>,
    /// To try again, by when; the number keeps two of the same time apart.
    retries: BTreeMap<(Millis, u64), Job>,
    /// By when each of them was made: until when it waits. One entry per retry.
    retries_by_age: BTreeMap<(Millis, u64), Millis>,
    next_retry: u64,
    /// Channels of first attempts under way, one entry per job.
    busy: Vec<Vec<u64>>,
    in_flight: usize,
    /// Failures since the last success.
    failures: u32,
    /// A failing target is left alone until then.
    resumes: Millis,
    /// When the queue looks at this lane by itself.
    pub(crate) wake: Option<Millis>,
    /// It is on the queue's list of lanes that may start something.
    pub(crate) is_listed: bool,
}

/// Jobs looked at for one that may overtake those blocked by a channel.
const LOOK_AHEAD: usize = 32;

/// From so many failures on a target gets one request at a time, and a pause after each failure.
const FAILING_FROM: u32 = 3;

impl Lane {
    pub(crate) fn new(app: AppIndex) -> Self {
        Self {
            app,
            open: Batch::default(),
            ready: VecDeque::new(),
            retries: BTreeMap::new(),
            retries_by_age: BTreeMap::new(),
            next_retry: 0,
            busy: Vec::new(),
            in_flight: 0,
            failures: 0,
            resumes: Millis(0),
            wake: None,
            is_listed: false,
        }
    }

    pub(crate) fn app(&self) -> AppIndex {
        self.app
    }

    /// Adds an event to the open batch and closes it when it is full.
    pub(crate) fn push(&mut self, event: Arc<WebhookEvent>, now: Millis, settings: &QueueSettings) {
        if self.open.push(event, now, settings) {
            self.close();
        }
    }

    /// Adds a job that was made elsewhere, behind all others.
    pub(crate) fn push_job(&mut self, job: Job) {
        self.ready.push_back(job);
    }

    /// Takes the first whole job that was not tried, whatever is under way.
    pub(crate) fn pop(&mut self) -> Option<Job> {
        self.ready.pop_front()
    }

    /// Takes the jobs that were not tried, but for the first `keep`.
    pub(crate) fn take_untried(&mut self, keep: usize) -> Vec<Job> {
        let keep = keep.min(self.ready.len());
        self.ready.split_off(keep).into()
    }

    /// Takes all that waits, each in its order: what was not tried, and what is to be tried again, with when.
    pub(crate) fn take_waiting(&mut self) -> (VecDeque<Job>, Vec<(Millis, Job)>) {
        self.close();
        self.retries_by_age.clear();
        let retries = std::mem::take(&mut self.retries).into_iter();
        let retries = retries.map(|((due, _), job)| (due, job)).collect();
        (std::mem::take(&mut self.ready), retries)
    }

    /// Its failures in a row, and until when it is left alone for them.
    pub(crate) fn trouble(&self) -> (u32, Millis) {
        (self.failures, self.resumes)
    }

    pub(crate) fn set_trouble(&mut self, (failures, resumes): (u32, Millis)) {
        self.failures = failures;
        self.resumes = resumes;
    }

    /// Another process has begun an attempt of `job`, which is to end here.
    pub(crate) fn is_begun(&mut self, job: &Job) {
        if job.attempts == 0 {
            self.busy.push(job.channels.clone());
        }
        self.in_flight += 1;
    }

    /// Closes the batch if its time is over.
    pub(crate) fn close_due(&mut self, now: Millis, settings: &QueueSettings) {
        if self.open.closes(settings).is_some_and(|at| at <= now) {
            self.close();
        }
    }

    /// Makes a job of the open batch, however young it is.
    pub(crate) fn close(&mut self) {
        self.ready.extend(self.open.close(self.app));
    }

    /// Takes the job that may start now. `spare` = its app has few of the places.
    pub(crate) fn start(
        &mut self,
        now: Millis,
        spare: bool,
        settings: &QueueSettings,
    ) -> Option<Job> {
        if self.in_flight >= self.places(spare, settings) || now < self.resumes {
            return None;
        }
        let due = self
            .retries
            .first_key_value()
            .map(|(key, _)| *key)
            .filter(|key| key.0 <= now);
        let first = self.startable();
        let retry_goes_first = match (due, first) {
            (Some(key), Some(index)) => key.0 <= self.ready[index].created,
            (Some(_), None) => true,
            (None, _) => false,
        };
        let job = if retry_goes_first {
            self.retries
                .first_key_value()
                .map(|(key, _)| *key)
                .and_then(|key| self.take_retry(key))
        } else {
            first.and_then(|index| self.ready.remove(index))
        }?;
        if job.attempts == 0 {
            self.busy.push(job.channels.clone());
        }
        self.in_flight += 1;
        Some(job)
    }

    /// Requests that this target may have at the same time. One that fails, or whose app has as many as are
    /// free, has one: a slow target must not take the places of the others.
    fn places(&self, spare: bool, settings: &QueueSettings) -> usize {
        let alone = self.is_failing() || !spare;
        if alone {
            1
        } else {
            settings.in_flight_per_target_max
        }
    }

    /// The first job not yet tried that no earlier one holds back.
    fn startable(&self) -> Option<usize> {
        let mut blocked: Vec<&[u64]> = self.busy.iter().map(Vec::as_slice).collect();
        for (index, job) in self.ready.iter().take(LOOK_AHEAD).enumerate() {
            if blocked
                .iter()
                .all(|channels| are_disjoint(channels, &job.channels))
            {
                return Some(index);
            }
            blocked.push(&job.channels);
        }
        None
    }

    /// An attempt of `job` has ended. Its attempts are those before this one.
    pub(crate) fn ended(&mut self, job: &Job, succeeded: bool) {
        assert!(self.in_flight > 0, "an attempt ended that nobody began");
        self.in_flight -= 1;
        if job.attempts == 0 {
            let index = self
                .busy
                .iter()
                .position(|channels| *channels == job.channels);
            self.busy
                .swap_remove(index.expect("a first attempt is listed while it runs"));
        }
        if succeeded {
            self.failures = 0;
            self.resumes = Millis(0);
        } else {
            self.failures = self.failures.saturating_add(1);
        }
    }

    /// Keeps a failed job for another attempt at `due`.
    pub(crate) fn retry(&mut self, job: Job, due: Millis) {
        assert!(job.attempts > 0, "a retry has had an attempt");
        let number = self.next_retry;
        self.next_retry += 1;
        self.retries_by_age.insert((job.created, number), due);
        self.retries.insert((due, number), job);
    }

    fn take_retry(&mut self, key: (Millis, u64)) -> Option<Job> {
        let job = self.retries.remove(&key)?;
        let due = self.retries_by_age.remove(&(job.created, key.1));
        assert!(due == Some(key.0), "a retry is listed by its age");
        Some(job)
    }

    /// Leaves a failing target alone until `at`.
    pub(crate) fn rest_until(&mut self, at: Millis) {
        self.resumes = at;
    }

    /// Makes all retries due, so that a stop tries each once more.
    pub(crate) fn hurry(&mut self, now: Millis) {
        let retries = std::mem::take(&mut self.retries);
        self.retries = retries
            .into_iter()
            .map(|((_, number), job)| ((now, number), job))
            .collect();
        self.retries_by_age.values_mut().for_each(|due| *due = now);
        self.resumes = now;
    }

    /// Takes the oldest job that is not in flight; the open batch counts as one.
    pub(crate) fn take_oldest(&mut self) -> Option<Job> {
        if self.ready.is_empty() && self.retries.is_empty() {
            self.close();
        }
        let ready = self.ready.front().map(|job| job.created);
        let retry = self.retries_by_age.first_key_value();
        let retry = retry.map(|((created, number), due)| ((*due, *number), *created));
        match (ready, retry) {
            (Some(ready), Some((key, created))) if created < ready => self.take_retry(key),
            (None, Some((key, _))) => self.take_retry(key),
            (Some(_), _) => self.ready.pop_front(),
            (None, None) => None,
        }
    }

    /// Takes a job made before `created_before`, unless it is in flight.
    pub(crate) fn take_older(&mut self, created_before: Millis) -> Option<Job> {
        if self
            .oldest()
            .is_some_and(|created| created < created_before)
        {
            return self.take_oldest();
        }
        None
    }

    /// When the oldest waiting event came.
    pub(crate) fn oldest(&self) -> Option<Millis> {
        let open = self.open.opened();
        let ready = self.ready.front().map(|job| job.created);
        let retries = self.retries_by_age.first_key_value();
        let retries = retries.map(|((created, _), _)| *created);
        [open, ready, retries].into_iter().flatten().min()
    }

    /// When something of this lane may start; `None` while only the end of an attempt can tell.
    /// A batch stays open for as long as it could not be sent anyway.
    pub(crate) fn next_look(&self, spare: bool, settings: &QueueSettings) -> Option<Millis> {
        if self.in_flight >= self.places(spare, settings) {
            return None;
        }
        let open = self.open.closes(settings);
        let ready = self.startable().map(|_| Millis(0));
        let retry = self.retries.first_key_value().map(|(key, _)| key.0);
        let first = [open, ready, retry].into_iter().flatten().min()?;
        Some(first.max(self.resumes))
    }

    /// Nothing waits, nothing is in flight, and no failure is to be remembered.
    pub(crate) fn is_removable(&self) -> bool {
        let nothing_waits =
            !self.open.is_open() && self.ready.is_empty() && self.retries.is_empty();
        nothing_waits && self.in_flight == 0 && self.failures == 0
    }

    /// The target is no more: its failures do not matter.
    pub(crate) fn forgive(&mut self) {
        self.failures = 0;
    }

    /// Failures since the target counts as failing, this one included.
    pub(crate) fn failures_as_failing(&self) -> u32 {
        self.failures.saturating_sub(FAILING_FROM - 1)
    }

    /// True at the failure from which the target counts as failing.
    pub(crate) fn began_to_fail(&self) -> bool {
        self.failures == FAILING_FROM
    }

    pub(crate) fn is_failing(&self) -> bool {
        self.failures >= FAILING_FROM
    }
}

fn are_disjoint(a: &[u64], b: &[u64]) -> bool {
    a.iter().all(|channel| b.binary_search(channel).is_err())
}
