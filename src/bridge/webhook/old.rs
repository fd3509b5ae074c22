//! Jobs of Sockudo 2.9, moved into the queue as it is now.
//!
//! Owns: `OldJobs`: what was read of the list, and when it leaves it.
//! May depend on: `bridge::{queue, webhook}`, `metrics::bridge`, tokio.
//! Invariants: a job leaves the list when all that it became is in the store, or nobody knows its app; nothing here
//! waits.

use std::collections::BTreeSet;

use shards::application::Millis;
use tokio::task::JoinSet;

use super::{Webhooks, shared::Shared};
use crate::{
    bridge::{
        queue::{
            part::Part,
            record::OldRecord,
            store::{StoreFault, redis::old::OldList},
        },
        webhook_event::WebhookEvent,
    },
    metrics::bridge::StrangeReason,
};

/// The list and what is done with it.
#[derive(Debug)]
pub(super) struct OldJobs {
    list: OldList,
    stage: Stage,
    due: Millis,
    asked: JoinSet<Heard>,
}

#[derive(Debug)]
enum Stage {
    Resting,
    Asking,
    /// On their way into the store.
    Moving(Vec<Vec<u8>>),
    Forgetting,
}

#[derive(Debug)]
pub(super) enum Heard {
    Jobs(Result<Vec<Vec<u8>>, StoreFault>),
    Forgotten(Result<(), StoreFault>),
}

/// An empty list is looked at so often: old nodes may still write to it.
const REST_MS: u64 = 10_000;
const RETRY_MS: u64 = 2_000;

impl OldJobs {
    pub(super) fn new(list: OldList) -> Self {
        Self {
            list,
            stage: Stage::Resting,
            due: Millis(0),
            asked: JoinSet::new(),
        }
    }

    pub(super) fn due(&self) -> Option<Millis> {
        matches!(self.stage, Stage::Resting).then_some(self.due)
    }

    /// Goes on. `is_put`: nothing waits for the store.
    pub(super) fn step(&mut self, now: Millis, is_put: bool) {
        match &mut self.stage {
            Stage::Resting if self.due <= now => {
                self.stage = Stage::Asking;
                let list = self.list.clone();
                self.asked
                    .spawn(async move { Heard::Jobs(list.peek().await) });
            }
            Stage::Moving(jobs) if is_put => {
                let (list, jobs) = (self.list.clone(), std::mem::take(jobs));
                self.stage = Stage::Forgetting;
                self.asked
                    .spawn(async move { Heard::Forgotten(list.forget(&jobs).await) });
            }
            Stage::Resting | Stage::Asking | Stage::Moving(_) | Stage::Forgetting => {}
        }
    }

    /// The next answer; never while nothing is asked.
    pub(super) async fn heard(&mut self) -> Heard {
        match self.asked.join_next().await {
            Some(heard) => heard.expect("a question ends by itself"),
            None => std::future::pending().await,
        }
    }

    fn rest(&mut self, now: Millis, ms: u64) {
        self.stage = Stage::Resting;
        self.due = now.plus(ms);
    }
}

impl Webhooks {
    /// The list has answered.
    pub(super) fn hear_old(&mut self, heard: Heard) {
        let now = self.now();
        let Some(old) = self.shared.as_mut().and_then(|it| it.old.as_mut()) else {
            return;
        };
        let jobs = match heard {
            Heard::Jobs(Ok(jobs)) if jobs.is_empty() => return old.rest(now, REST_MS),
            Heard::Jobs(Ok(jobs)) => jobs,
            Heard::Forgotten(Ok(())) => return old.rest(now, 0),
            Heard::Jobs(Err(fault)) | Heard::Forgotten(Err(fault)) => {
                tracing::debug!(%fault, "jobs of Sockudo 2.9 stay where they are");
                return old.rest(now, RETRY_MS);
            }
        };
        let records = jobs.iter().map(|text| OldRecord::read(text));
        let records: Vec<Option<OldRecord>> = records.collect();
        if self.unknown.asks_store {
            let apps: BTreeSet<_> = records.iter().flatten().map(|it| &*it.app_id).collect();
            let unknown = apps
                .into_iter()
                .filter(|id| self.targets.app_of_id(id).is_none());
            // Each is asked for, whatever became of those before it.
            let waits = unknown.filter(|id| !self.unknown.is_over(id, None, now));
            if waits.count() > 0 {
                return old.rest(now, RETRY_MS);
            }
        }
        old.stage = Stage::Moving(jobs);
        let (mut moved, mut strange) = (0, 0);
        for record in records {
            if let Some(record) = &record
                && self.targets.app_of_id(&record.app_id).is_none()
            {
                self.unknown.tell(&record.app_id, now);
            }
            match record.map(|record| self.events_of_old(record)) {
                Some(Some(events)) => {
                    moved += 1;
                    events.into_iter().for_each(|event| self.accept(event));
                }
                of_nobody => {
                    strange += 1;
                    let reason = match of_nobody {
                        Some(_) => StrangeReason::Gone,
                        None => StrangeReason::Malformed,
                    };
                    self.queue.counters.gave_up_strange(reason);
                }
            }
        }
        tracing::info!(moved, strange, "took over jobs of Sockudo 2.9");
    }

    /// `None`: of no app that is known here.
    fn events_of_old(&self, record: OldRecord) -> Option<Vec<WebhookEvent>> {
        let app = self.targets.app_of_id(&record.app_id)?;
        let events = record.events.into_iter();
        Some(events.map(|event| WebhookEvent { app, ..event }).collect())
    }
}

/// Nothing waits for the store.
pub(super) fn is_put(shared: &Shared) -> bool {
    shared.parts().all(Part::is_put)
}
