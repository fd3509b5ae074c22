//! Webhooks that wait, passed from one process to the next.
//!
//! Owns: `Given`, what the old process still has to tell; `Expected`, what the new one still has to hear.
//! May depend on: `bridge::{queue, webhook}`, `handover::record`.
//! Invariants: a job is one process' at a time: what was written is kept here no more, and an attempt that the old
//! process has begun ends there, while its job is the new one's, which waits for the outcome; no first attempt of a
//! job begins before those that are older have come.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use shards::application::Millis;
use tokio::sync::oneshot;

use super::{Attempted, Webhooks, attempt::AttemptError, wall_ms};
use crate::{
    bridge::queue::{
        Job, TargetId, TargetName,
        dead::DeadLetter,
        memory::{Carried, MemoryQueue},
        record::Record,
    },
    handover::{
        packet::Verdict,
        record::{FailingRecord, JobRecord, LetterRecord, WebhookRecord},
    },
    metrics::bridge::DeadReason,
};

/// Of a process that is followed.
#[derive(Debug, Default)]
pub(super) struct Given {
    /// Nothing begins here any more.
    pub has_all: bool,
    /// Attempts under way whose jobs were given.
    under_way: Vec<(u64, Arc<Job>)>,
    /// How those ended that have.
    verdicts: Vec<Verdict>,
    delivered: BTreeSet<u64>,
    last: u64,
}

/// Of a process that follows.
#[derive(Debug, Default)]
pub(super) struct Expected {
    /// What occurred here while older jobs are on their way.
    pub early: Option<MemoryQueue>,
    /// Attempts of the old process, by their number.
    under_way: BTreeMap<u64, oneshot::Sender<Result<(), String>>>,
    /// Those of them whose target is no more here: jobs that become dead letters, unless they were delivered.
    gone: BTreeMap<u64, JobRecord>,
    /// Those that were given on to a third process, and their number there.
    relayed: BTreeMap<u64, u64>,
    came: usize,
}

impl Given {
    /// Notes how an attempt ended; false if its job is this process' own.
    pub(super) fn tell(&mut self, job: &Arc<Job>, result: &Result<(), AttemptError>) -> bool {
        let given = self.under_way.iter();
        let Some(index) = given.clone().position(|(_, it)| Arc::ptr_eq(it, job)) else {
            return false;
        };
        let (number, _) = self.under_way.swap_remove(index);
        let error = result.as_ref().err().map(ToString::to_string);
        if error.is_none() {
            self.delivered.insert(number);
        }
        self.verdicts.push(Verdict { number, error });
        true
    }

    /// Events that the other process has though their attempts run here.
    pub(super) fn events(&self) -> usize {
        self.under_way.iter().map(|(_, job)| job.events.len()).sum()
    }
}

impl Expected {
    /// The next process waits for words that are still to come here.
    pub(super) fn is_relaying(&self) -> bool {
        !self.relayed.is_empty()
    }
}

/// What came of another process' attempt.
pub(super) async fn verdict(
    told: oneshot::Receiver<Result<(), String>>,
) -> Result<(), AttemptError> {
    let told = told.await.unwrap_or_else(|_| Err(UNTOLD.to_owned()));
    told.map_err(AttemptError::Before)
}

const UNTOLD: &str = "the process before ended before it told how the attempt went";

/// Of a job whose target is no more, after so many attempts more than it says.
fn letter_of(mut record: Record, attempts: u32) -> Vec<u8> {
    let reason = DeadReason::LABELS[DeadReason::Gone as usize];
    let head = (wall_ms(), reason, record.attempts.saturating_add(attempts));
    let (error, mut text) = (record.error.take(), Vec::new());
    DeadLetter::write(&mut text, head, error.as_deref(), |out| {
        out.extend(record.to_bytes());
    });
    text
}

impl Webhooks {
    /// Everything that waits in this process' memory, for the one that follows: from now on that one goes on with
    /// it. What is in a store, or on its way there, stays this process' to tell.
    pub fn give(&mut self) -> Vec<WebhookRecord> {
        self.close_parts();
        self.receive_early();
        let now = self.now();
        let mut records = Vec::new();
        if self.shared.is_none() {
            self.given.has_all = true;
            self.give_under_way(&mut records);
            self.give_gone(&mut records);
        }
        for carried in self.queue.give(now) {
            records.extend(match carried {
                Carried::Failing(id, failures, resumes) => self.failing(id, failures, resumes),
                Carried::New(id, job) => self.written(id, &job, None, None),
                Carried::Retry(id, job, due) => self.written(id, &job, Some(due), None),
            });
        }
        for (id, text) in self.letters.take_all() {
            records.push(WebhookRecord::Letter(LetterRecord { id, text }));
        }
        self.start();
        records
    }

    fn give_under_way(&mut self, records: &mut Vec<WebhookRecord>) {
        let under_way: Vec<_> = self.attempts.under_way().cloned().collect();
        for (id, job) in under_way {
            let given = &mut self.given;
            if given.under_way.iter().any(|(_, it)| Arc::ptr_eq(it, &job)) {
                continue;
            }
            given.last += 1;
            let number = given.last;
            if let Some(record) = self.written(id, &job, None, Some(number)) {
                self.given.under_way.push((number, job));
                records.push(record);
            }
        }
    }

    /// Jobs whose target is no more, and of whose attempts another process is to tell yet.
    fn give_gone(&mut self, records: &mut Vec<WebhookRecord>) {
        for (number, job) in std::mem::take(&mut self.expected.gone) {
            self.given.last += 1;
            let under_way = Some(self.given.last);
            self.expected.relayed.insert(number, self.given.last);
            records.push(WebhookRecord::Job(JobRecord { under_way, ..job }));
        }
    }

    /// `None`: its target is no more.
    fn written(
        &self,
        id: TargetId,
        job: &Job,
        due: Option<Millis>,
        under_way: Option<u64>,
    ) -> Option<WebhookRecord> {
        let target = self.targets.target(id)?;
        let since_ms = wall_ms().saturating_sub(self.now().since(job.created));
        let mut text = Vec::new();
        Record::write(&mut text, &target.entry.app.id, target.name, since_ms, job);
        Some(WebhookRecord::Job(JobRecord {
            text,
            created_ms: job.created.0,
            due_ms: due.map(|due| due.0),
            under_way,
        }))
    }

    fn failing(&self, id: TargetId, failures: u32, resumes: Millis) -> Option<WebhookRecord> {
        let target = self.targets.target(id)?;
        Some(WebhookRecord::Failing(FailingRecord {
            app: target.entry.app.id.clone(),
            target: target.name.to_string(),
            failures,
            resumes_ms: resumes.0,
        }))
    }

    /// Something came to be here since all was given.
    pub fn has_more_to_give(&self) -> bool {
        self.given.has_all && self.queue.waiting_events() > 0
    }

    /// How attempts ended since this was asked last whose jobs were given.
    pub fn take_verdicts(&mut self) -> Vec<Verdict> {
        std::mem::take(&mut self.given.verdicts)
    }

    /// The process that follows did not take these, or may not have: they are this one's again.
    pub fn take_back(&mut self, records: Vec<WebhookRecord>) {
        let given = std::mem::take(&mut self.given);
        let relayed = std::mem::take(&mut self.expected.relayed).into_iter();
        let mut relayed: BTreeMap<u64, u64> = relayed.map(|(own, its)| (its, own)).collect();
        for record in records {
            match record {
                WebhookRecord::Job(
                    job @ JobRecord {
                        under_way: Some(number),
                        ..
                    },
                ) if relayed.contains_key(&number) => {
                    let own = relayed.remove(&number).unwrap_or_default();
                    self.expected.gone.insert(own, job);
                }
                WebhookRecord::Job(JobRecord {
                    under_way: Some(number),
                    ..
                }) if given.delivered.contains(&number)
                    || given.under_way.iter().any(|(it, _)| *it == number) => {}
                WebhookRecord::Job(job) => self.inherit(WebhookRecord::Job(JobRecord {
                    under_way: None,
                    ..job
                })),
                other @ (WebhookRecord::Failing(_) | WebhookRecord::Letter(_)) => {
                    self.inherit(other)
                }
            }
        }
        self.hurry();
    }

    /// There are webhooks on this node.
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// Webhooks of the process before are on their way: what occurs here meanwhile comes behind them.
    pub fn expect_heritage(&mut self) {
        if self.shared.is_none() {
            self.expected.early = Some(MemoryQueue::new(self.queue.settings().clone()));
        }
    }

    /// Takes what the process before had. What nobody is there for becomes a dead letter.
    pub fn inherit(&mut self, record: WebhookRecord) {
        let now = self.now();
        match record {
            WebhookRecord::Failing(record) => {
                let name = TargetName::parse(&record.target);
                if let Some((id, target)) = name.and_then(|name| self.targets.of_name(name)) {
                    let trouble = (record.failures, Millis(record.resumes_ms));
                    let app = target.entry.index;
                    self.queue.set_failing(id, app, trouble, now);
                }
            }
            WebhookRecord::Letter(LetterRecord { id, text }) => self.letters.restore(id, text),
            WebhookRecord::Job(job) => self.inherit_job(job, now),
        }
    }

    fn inherit_job(&mut self, job: JobRecord, now: Millis) {
        let record = match Record::read(&job.text) {
            Ok(record) => record,
            Err(fault) => {
                tracing::warn!(%fault, "a webhook of the process before is none and was given up");
                return;
            }
        };
        self.expected.came += 1;
        let target = self.targets.of_name(record.target);
        let target = target.filter(|(_, it)| it.entry.app.id == *record.app_id);
        let Some((id, app)) = target.map(|(id, target)| (id, target.entry.index)) else {
            return match job.under_way {
                Some(number) => _ = self.expected.gone.insert(number, job),
                None => {
                    self.unknown.tell(&record.app_id, now);
                    self.letters.push(letter_of(record, 0));
                }
            };
        };
        let JobRecord {
            created_ms,
            due_ms,
            under_way,
            ..
        } = job;
        let job = record.into_job(app, Millis(created_ms));
        match (under_way, due_ms) {
            (Some(number), _) => self.follow(id, job, number),
            (None, Some(due)) => self.queue.push_retry(id, job, Millis(due), now),
            (None, None) => self.queue.push_job(id, job, now),
        }
        self.keep_account();
    }

    /// Waits for the end of an attempt that the process before has begun, as if it had begun here.
    fn follow(&mut self, target: TargetId, job: Job, number: u64) {
        let (tell, told) = oneshot::channel();
        self.expected.under_way.insert(number, tell);
        self.queue.is_begun(target, &job);
        self.try_job(target, job, |_| async move { (verdict(told).await, None) });
    }

    /// How an attempt of the process before ended.
    pub fn is_told(&mut self, verdict: Verdict) {
        if let Some(job) = self.expected.gone.remove(&verdict.number) {
            if let Some(error) = verdict.error {
                self.lose_gone(&job, &error);
            }
            return;
        }
        if let Some(number) = self.expected.relayed.remove(&verdict.number) {
            if verdict.error.is_none() {
                self.given.delivered.insert(number);
            }
            return self.given.verdicts.push(Verdict { number, ..verdict });
        }
        if let Some(tell) = self.expected.under_way.remove(&verdict.number) {
            _ = tell.send(verdict.error.map_or(Ok(()), Err));
        }
    }

    /// Its attempt failed, and nobody is left who could try it again.
    fn lose_gone(&mut self, job: &JobRecord, error: &str) {
        if let Ok(mut record) = Record::read(&job.text) {
            record.error = Some(error.into());
            let now = self.now();
            self.unknown.tell(&record.app_id, now);
            self.letters.push(letter_of(record, 1));
            self.keep_account();
        }
    }

    /// All that waited has come, so what occurred here meanwhile may go. How many jobs came.
    pub fn has_inherited(&mut self) -> usize {
        self.receive_early();
        self.start();
        self.expected.came
    }

    /// The process before has ended, so no more verdicts come.
    pub fn is_orphaned(&mut self) {
        self.expected.under_way.clear();
        for (_, job) in std::mem::take(&mut self.expected.gone) {
            self.lose_gone(&job, UNTOLD);
        }
        for (_, number) in std::mem::take(&mut self.expected.relayed) {
            let error = Some(UNTOLD.to_owned());
            self.given.verdicts.push(Verdict { number, error });
        }
        self.receive_early();
        self.start();
    }

    fn receive_early(&mut self) {
        let now = self.now();
        let Some(mut early) = self.expected.early.take() else {
            return;
        };
        early.hurry(now);
        while let Some((id, job)) = early.pop(now) {
            self.queue.push_job(id, job, now);
        }
        self.queue.counters.absorb(&early.counters);
        self.queue.take_over_left(early.take_left());
        self.keep_account();
    }

    /// The queues that are this process' alone.
    pub(super) fn own_queues(&mut self) -> impl Iterator<Item = &mut MemoryQueue> {
        std::iter::once(&mut self.queue).chain(&mut self.expected.early)
    }

    /// An attempt has ended whose job is the next process'.
    pub(super) fn tell_of(&mut self, ended: &Attempted) -> bool {
        let is_given = self.given.tell(&ended.job, &ended.result);
        if is_given {
            let now = self.now();
            self.queue.is_told_elsewhere(ended.target, &ended.job, now);
        }
        is_given
    }
}
