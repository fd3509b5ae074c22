//! What became of jobs: told to the store, or kept as dead letters here.
//!
//! Owns: the part of `Webhooks` that keeps account, and takes jobs of a store.
//! May depend on: `bridge::{queue, webhook}`.
//! Invariants: a job that a store gave is called done, dead, again or back, once; what cannot be read or
//! belongs to nobody does not stay for ever.

use std::collections::BTreeSet;

use shards::application::Millis;

use super::{Webhooks, jitter, shared::Turned, unknown::UNKNOWN_MS, wall_ms};
use crate::{
    bridge::{
        admin::{
            Settle,
            report::{LetterReport, LettersReport, SettledReport},
        },
        queue::{
            Job, TargetId,
            dead::DeadLetter,
            memory::{Left, MemoryQueue},
            record::Record,
            store::{Dead, Receipt, Taken},
        },
    },
    metrics::bridge::{DeadReason, DeliveryResult, StrangeReason},
};

/// A target that this node does not know is left to others so long.
const LEAVE_MS: u64 = 2_000;

impl Webhooks {
    /// Apps of which there are jobs and that are not known here, or not with their targets.
    pub fn take_wanted_apps(&mut self) -> BTreeSet<Box<str>> {
        self.unknown.take_wanted()
    }

    /// The store of apps has said that there is no such app, or how it is now: `change_apps` knows already.
    pub fn store_said(&mut self, app_id: &str) {
        let now = self.now();
        self.unknown.store_said(app_id, now);
    }

    /// Tells the store, or notes down, what became of jobs that left the queues.
    pub(super) fn keep_account(&mut self) {
        let early = self.expected.early.as_mut().map(MemoryQueue::take_left);
        for left in early.into_iter().flatten().chain(self.queue.take_left()) {
            match left {
                Left::Again(_, job, due) => {
                    if let (Some(shared), Some(receipt)) = (&mut self.shared, &job.receipt) {
                        let error = job.error.clone();
                        shared.part(receipt.target).again(receipt, due, error);
                    }
                }
                Left::Dead(id, job, reason) => self.bury(id, job, reason),
            }
        }
        let mut gone = Vec::new();
        for part in self.shared.iter_mut().flat_map(|it| it.parts_mut()) {
            let (left, counters) = part.take_left();
            self.queue.counters.absorb(&counters);
            gone.extend(left);
        }
        for left in gone {
            if let Left::Dead(id, job, reason) = left {
                self.bury(id, job, reason);
            }
        }
    }

    fn bury(&mut self, id: TargetId, mut job: Job, reason: DeadReason) {
        let error = job.error.take();
        let now = self.now();
        let entry = self.targets.target_or_gone(id);
        if let (DeadReason::Gone, Some(entry)) = (reason, entry) {
            self.unknown.tell(&entry.entry.app.id, now);
        }
        let text = entry.map(|entry| {
            let wall_ms = wall_ms();
            let since_ms = wall_ms.saturating_sub(now.since(job.created));
            let head = (wall_ms, DeadReason::LABELS[reason as usize], job.attempts);
            let mut text = Vec::new();
            DeadLetter::write(&mut text, head, error.as_deref(), |out| {
                Record::write(out, &entry.entry.app.id, entry.name, since_ms, &job);
            });
            (entry.name, text)
        });
        match (&mut self.shared, &job.receipt, text) {
            (Some(shared), receipt, Some((name, text))) => {
                let receipt = receipt.clone();
                shared.part(name).dead(Dead { receipt, text });
            }
            // Its target went while it was under way: nobody could call it back.
            (Some(shared), Some(receipt), None) => {
                shared.part(receipt.target).done(receipt, now);
            }
            (None, _, Some((_, text))) => self.letters.push(text),
            (_, None, None) => {}
            (None, Some(_), None) => unreachable!("who has no store has no receipts"),
        }
    }

    /// A store has answered.
    pub(super) fn hear(&mut self, turned: Turned) {
        let (now, part) = (self.now(), turned.0);
        let Some(shared) = &mut self.shared else {
            return;
        };
        let heard = shared.hear(turned, now, jitter());
        if heard.was_dead {
            self.lose(part, heard.has_forgotten, now);
        }
        for taken in heard.taken {
            self.take(taken, now);
        }
    }

    /// A part has given this node's jobs away: others have them, or this node gets them again. Those that it has
    /// forgotten are this process' alone. The other parts know nothing of it.
    fn lose(&mut self, part: usize, has_forgotten: bool, now: Millis) {
        let Some(shared) = &self.shared else { return };
        let is_its = |job: &Job| {
            let receipt = job.receipt.as_ref();
            receipt.is_some_and(|it| shared.index(it.target) == part)
        };
        for (id, mut job) in self.queue.take_all_untried(now) {
            match (is_its(&job), has_forgotten) {
                (true, false) => continue,
                (true, true) => job.receipt = None,
                (false, _) => {}
            }
            self.queue.push_job(id, job, now);
        }
        if has_forgotten {
            let under_way = self.attempts.under_way().map(|(_, job)| job);
            let its = under_way.filter(|job| is_its(job));
            self.forgotten
                .extend(its.filter_map(|job| job.receipt.clone()));
        }
    }

    fn take(&mut self, taken: Taken, now: Millis) {
        let wall_ms = wall_ms();
        let mut record = match Record::read(&taken.text) {
            Ok(record) => record,
            Err(fault) => {
                tracing::warn!(%fault, "a job in the webhook queue is none and was given up");
                let counters = &mut self.queue.counters;
                counters.gave_up_strange(StrangeReason::Malformed);
                let text = DeadLetter::of_malformed(wall_ms, &fault.to_string());
                return self.bury_taken(taken.receipt, text);
            }
        };
        let age_ms = wall_ms.saturating_sub(record.since_ms);
        let target = self.targets.of_name(record.target);
        let target = target.filter(|(_, it)| it.entry.app.id == *record.app_id);
        let Some((id, target)) = target else {
            let name = Some(record.target);
            // A younger one is of somebody who knew its target a moment ago.
            if self.unknown.is_over(&record.app_id, name, now) && age_ms >= UNKNOWN_MS {
                self.count_gone(&record);
                self.unknown.tell(&record.app_id, now);
                let reason = DeadReason::LABELS[DeadReason::Gone as usize];
                let head = (wall_ms, reason, taken.attempts);
                let (error, mut text) = (record.error.take(), Vec::new());
                DeadLetter::write(&mut text, head, error.as_deref(), |out| {
                    out.extend(record.to_bytes());
                });
                return self.bury_taken(taken.receipt, text);
            }
            if let Some(shared) = &mut self.shared {
                let part = shared.part(taken.receipt.target);
                part.leave(taken.receipt.target, LEAVE_MS);
                part.back(&taken.receipt);
            }
            return;
        };
        let Some(shared) = &mut self.shared else {
            return;
        };
        let receipt = taken.receipt;
        let part = shared.part(receipt.target);
        if self.queue.is_target_failing(id) {
            part.set_failing(receipt.target, true);
        }
        let created = Millis(now.0.saturating_sub(age_ms));
        let mut job = record.into_job(target.entry.index, created);
        job.attempts = job.attempts.saturating_add(taken.attempts);
        job.receipt = Some(receipt);
        self.queue.push_job(id, job, now);
    }

    /// A job of a store leaves it with a letter in its place.
    fn bury_taken(&mut self, receipt: Receipt, text: Vec<u8>) {
        if let Some(shared) = &mut self.shared {
            let part = shared.part(receipt.target);
            let receipt = Some(receipt);
            part.dead(Dead { receipt, text });
        }
    }

    /// Nobody knows a job's target. Its app may be known all the same.
    fn count_gone(&mut self, record: &Record) {
        let counters = &mut self.queue.counters;
        let Some(app) = self.targets.app_of_id(&record.app_id) else {
            return counters.gave_up_strange(StrangeReason::Gone);
        };
        let counters = counters.app(app);
        counters.dead[DeadReason::Gone as usize] += 1;
        for event in &record.events {
            counters.deliveries[event.kind.column()][DeliveryResult::Dead as usize] += 1;
        }
    }

    /// A target that begins to fail keeps one job here; the others are free for when it is back.
    pub(super) fn fails(&mut self, id: TargetId) {
        let now = self.now();
        let (Some(shared), Some(target)) = (&mut self.shared, self.targets.target(id)) else {
            return;
        };
        let part = shared.part(target.name);
        part.set_failing(target.name, true);
        for job in self.queue.take_untried(id, 1, now) {
            match &job.receipt {
                Some(receipt) => part.back(receipt),
                None => self.queue.push_job(id, job, now),
            }
        }
    }

    pub(super) fn recovers(&mut self, id: TargetId) {
        if let (Some(shared), Some(target)) = (&mut self.shared, self.targets.target(id)) {
            shared.part(target.name).set_failing(target.name, false);
        }
    }

    /// Gives back what was not tried, and keeps what the store does not have.
    pub(super) fn close_parts(&mut self) {
        let now = self.now();
        let Some(shared) = &mut self.shared else {
            return;
        };
        let mut own = Vec::new();
        for (id, job) in self.queue.take_all_untried(now) {
            match &job.receipt {
                Some(receipt) => shared.part(receipt.target).back(receipt),
                None => own.push((id, job)),
            }
        }
        for part in shared.parts_mut() {
            part.close(now);
            if part.is_failing() {
                own.extend(part.take_backlog(now));
            }
        }
        for (id, job) in own {
            self.queue.push_job(id, job, now);
        }
    }

    /// Those of this process alone.
    ///
    /// # Errors
    /// When they are in a store.
    pub fn report_letters(&self) -> Result<LettersReport, String> {
        self.has_letters()?;
        let letters = self.letters.iter();
        let letters = letters.filter_map(|(id, text)| LetterReport::of(id.to_string(), text));
        Ok(LettersReport {
            letters: letters.collect(),
        })
    }

    fn has_letters(&self) -> Result<(), String> {
        match &self.shared {
            None => Ok(()),
            Some(shared) => Err(format!(
                "queue.driver = {}: the dead letters are in the store; ask it with the node's \
                 configuration, without --socket",
                shared.driver
            )),
        }
    }

    /// Tries letters again, or drops them. One whose target is no more stays.
    ///
    /// # Errors
    /// When they are in a store.
    pub fn settle_letters(
        &mut self,
        ids: Option<Vec<u64>>,
        settle: Settle,
    ) -> Result<SettledReport, String> {
        self.has_letters()?;
        let all = || self.letters.iter().map(|(id, _)| id).collect();
        let ids = ids.unwrap_or_else(all);
        let mut settled = 0;
        for id in ids {
            let is_settled = match settle {
                Settle::Drop => self.letters.remove(id).is_some(),
                Settle::Retry => self.retry_letter(id),
            };
            settled += u64::from(is_settled);
        }
        self.start();
        Ok(SettledReport { settled })
    }

    fn retry_letter(&mut self, id: u64) -> bool {
        let text = self.letters.text(id);
        let record = text.and_then(|text| DeadLetter::read(text)?.job);
        let Some(record) = record else { return false };
        let target = self.targets.of_name(record.target);
        let target = target.filter(|(_, it)| it.entry.app.id == *record.app_id);
        let Some((target, app)) = target.map(|(id, it)| (id, it.entry.index)) else {
            return false;
        };
        self.letters.remove(id);
        let now = self.now();
        let mut job = record.into_job(app, now);
        job.attempts = 0;
        self.queue.push_job(target, job, now);
        true
    }
}
