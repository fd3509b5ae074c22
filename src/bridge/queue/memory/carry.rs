//! What waits, given to the process that follows, and taken from the one before.
//!
//! Owns: `Carried`, and how it leaves and enters a queue.
//! May depend on: `bridge::queue`.
//! Invariants: jobs of a target keep their order; what was given is here no more; an attempt under way stays where it
//! runs, and holds back here what it held back there.

use shards::application::Millis;

use super::{Lane, MemoryQueue, lane_in_flight};
use crate::bridge::queue::{Job, TargetId};
use crate::protocol::app::AppIndex;

/// A part of what waits.
#[derive(Debug)]
pub enum Carried {
    /// Failures in a row, and until when the target is left alone for them.
    Failing(TargetId, u32, Millis),
    /// Not tried yet.
    New(TargetId, Job),
    /// To be tried again then.
    Retry(TargetId, Job, Millis),
}

impl MemoryQueue {
    /// Gives all that waits away. What is in flight stays.
    pub fn give(&mut self, now: Millis) -> Vec<Carried> {
        let ids: Vec<TargetId> = self.lanes.keys().copied().collect();
        let mut given = Vec::new();
        for id in ids {
            let Some(lane) = self.lanes.get_mut(&id) else {
                continue;
            };
            let (failures, resumes) = lane.trouble();
            let (new, retries) = lane.take_waiting();
            lane.set_trouble((0, Millis(0)));
            if failures > 0 {
                given.push(Carried::Failing(id, failures, resumes));
            }
            for job in new {
                self.forget_waiting(id, &job);
                given.push(Carried::New(id, job));
            }
            for (due, job) in retries {
                self.forget_waiting(id, &job);
                given.push(Carried::Retry(id, job, due));
            }
            self.schedule(id, now);
            self.remove_if_idle(id);
        }
        given
    }

    /// A target of `app` failed so often elsewhere.
    pub fn set_failing(
        &mut self,
        target: TargetId,
        app: AppIndex,
        (failures, resumes): (u32, Millis),
        now: Millis,
    ) {
        self.lane(target, app).set_trouble((failures, resumes));
        self.schedule(target, now);
        self.remove_if_idle(target);
    }

    /// A job that failed elsewhere, to be tried again.
    pub fn push_retry(&mut self, target: TargetId, job: Job, due: Millis, now: Millis) {
        if job.attempts == 0 {
            return self.push_job(target, job, now);
        }
        self.waiting_events += job.events.len();
        self.shares.add(job.app, target, job.bytes);
        self.lane(target, job.app).retry(job, due);
        self.schedule(target, now);
        self.make_room(now);
    }

    /// Another process has begun an attempt, whose end is told here as if it had begun here.
    pub fn is_begun(&mut self, target: TargetId, job: &Job) {
        self.turns.began(job.app);
        self.in_flight_events += job.events.len();
        self.lane(target, job.app).is_begun(job);
    }

    /// An attempt ended whose job is another process' by now.
    pub fn is_told_elsewhere(&mut self, target: TargetId, job: &Job, now: Millis) {
        lane_in_flight(&mut self.lanes, target).ended(job, true);
        self.leave(job);
        self.schedule(target, now);
        self.remove_if_idle(target);
    }

    fn lane(&mut self, target: TargetId, app: AppIndex) -> &mut Lane {
        let lane = self.lanes.entry(target).or_insert_with(|| Lane::new(app));
        assert!(lane.app() == app, "a target belongs to one app");
        lane
    }
}
