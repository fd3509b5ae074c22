//! Webhooks: from events of shards to signed requests.
//!
//! Owns: which target gets which event, attempts under way, what is told of them; `shared` has the parts of
//! a queue that nodes share, `account` what became of jobs, `heritage` what one process gives the next.
//! May depend on: `bridge::{apps, log_limit, message, queue}`, `config`, `protocol`, tokio.
//! Invariants: an event is delivered at least once or counted as dead; a slow target delays no
//! other; nothing here waits while the bridge has other work.

mod account;
pub mod answer;
mod attempt;
mod attempts;
mod client;
mod connection;
mod heritage;
mod lambda;
mod old;
pub mod policy;
pub mod probe;
pub mod shared;
mod target;
#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "real time passes between real sockets"
)]
mod tests;
mod unknown;

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use shards::application::Millis;

use self::{
    attempt::AttemptError,
    attempts::Attempts,
    client::{Client, Connections},
    connection::Kept,
    heritage::{Expected, Given},
    policy::TargetPolicy,
    shared::{Heard, Keeping, Shared},
    target::{TargetTable, Wanted},
    unknown::Unknown,
};
use super::{
    alarm::Alarm,
    apps::{AppChange, AppTable},
    log_limit::LogLimit,
    queue::{
        Job, QueueSettings, TargetId,
        dead::DeadLetters,
        memory::{Carried, MemoryQueue, TargetChange},
        part::Part,
        store::Receipt,
    },
    webhook_event::WebhookEvent,
};
use crate::{
    config::{
        app::EventType,
        sections::{Targets, Webhooks as Settings},
    },
    metrics::{
        backend::BackendCounts,
        bridge::{DeliveryResult, WebhookCounters},
        sample::WebhookState,
    },
};

/// All webhooks of this node.
#[derive(Debug)]
pub struct Webhooks {
    /// `queue.driver = none` turns webhooks off.
    enabled: bool,
    /// What this process may deliver.
    queue: MemoryQueue,
    /// What waits elsewhere; `None` = all waits in `queue`.
    shared: Option<Shared>,
    /// `None` of a store's.
    letters: DeadLetters,
    /// Of attempts under way, those whose jobs the store has forgotten.
    forgotten: BTreeSet<Receipt>,
    targets: TargetTable,
    unknown: Unknown,
    client: Client,
    connections: Connections,
    attempts: Attempts<Attempted, (TargetId, Arc<Job>)>,
    given: Given,
    expected: Expected,
    alarm: Alarm,
    started: Instant,
    told: LogLimit,
}

/// An attempt that has ended.
#[derive(Debug)]
struct Attempted {
    target: TargetId,
    job: Arc<Job>,
    result: Result<(), AttemptError>,
    took: Duration,
    kept: Option<Kept>,
    /// See `Connections`.
    policy: u64,
}

impl Webhooks {
    /// `started` is the start of the node's clock.
    pub fn new(keeping: Keeping, settings: &Settings, started: Instant) -> Self {
        let enabled = !matches!(keeping, Keeping::Nowhere);
        let mut queue = QueueSettings::of(settings);
        let shared = match keeping {
            Keeping::Nowhere | Keeping::Memory => None,
            Keeping::Shared(setup) => {
                queue.in_flight_max = setup.in_flight_max;
                Some(Shared::new(setup, &queue))
            }
        };
        Self {
            enabled,
            queue: MemoryQueue::new(queue),
            shared,
            letters: DeadLetters::default(),
            forgotten: BTreeSet::new(),
            targets: TargetTable::new(settings.lambda_endpoint_url.as_deref()),
            unknown: Unknown::new(),
            client: client_of(&settings.targets),
            connections: Connections::default(),
            attempts: Attempts::default(),
            given: Given::default(),
            expected: Expected::default(),
            alarm: Alarm::default(),
            started,
            told: LogLimit::new(10, 10_000),
        }
    }

    /// Takes over the apps that there are at the start.
    pub fn begin(&mut self, apps: &AppTable) {
        self.unknown.asks_store = apps.is_partial();
        for entry in apps.iter() {
            self.targets.put(entry);
        }
    }

    /// Takes over changed apps. Jobs of webhooks that are no more are given up.
    pub fn change_apps(&mut self, changes: &[AppChange]) {
        let (mut any_target_went, mut any_app_went) = (false, false);
        for change in changes {
            match change {
                AppChange::Put(entry) => any_target_went |= self.targets.put(entry),
                AppChange::Gone(app) => any_target_went |= self.targets.remove(*app),
                AppChange::Forgotten(..) => any_app_went = true,
            }
        }
        if any_target_went {
            let targets = &self.targets;
            let early = &mut self.expected.early;
            for queue in std::iter::once(&mut self.queue).chain(early) {
                queue.retain(|id| targets.target(id).is_some());
            }
            for part in self.shared.iter_mut().flat_map(Shared::parts_mut) {
                part.retain(|id| self.targets.target(id).is_some());
            }
            if let Some(shared) = &mut self.shared {
                // If it comes back it has not failed.
                for name in self.targets.gone_names() {
                    shared.part(name).set_failing(name, false);
                }
            }
            self.keep_account();
            self.targets.forget_gone();
        }
        if any_app_went {
            let is_forgotten = |app| {
                let mut changes = changes.iter();
                changes.any(|it| matches!(it, AppChange::Forgotten(index, _) if *index == app))
            };
            self.queue.counters.forget_apps(|app| !is_forgotten(app));
        }
    }

    /// Takes over a reloaded `webhooks` section.
    pub fn reconfigure(&mut self, settings: &Settings) {
        self.client = client_of(&settings.targets);
        self.connections.change_policy();
        let now = self.now();
        let mut settings = QueueSettings::of(settings);
        if let Some(shared) = &mut self.shared {
            settings.in_flight_max = self.queue.settings().in_flight_max;
            shared.reconfigure(&settings, now);
        }
        for queue in self.own_queues() {
            queue.reconfigure(settings.clone(), now);
        }
        self.keep_account();
    }

    /// Queues an event for every target that wants it. `start` sends what is due.
    pub fn accept(&mut self, event: WebhookEvent) {
        if !self.enabled {
            return;
        }
        let now = self.now();
        let event = Arc::new(event);
        for id in self.targets.of_app(event.app) {
            let target = self
                .targets
                .target(*id)
                .expect("a listed target is in the table");
            match target.wants(&event) {
                Wanted::Yes => match &mut self.shared {
                    None => {
                        let queue = self.expected.early.as_mut().unwrap_or(&mut self.queue);
                        queue.push(*id, event.app, Arc::clone(&event), now);
                    }
                    Some(shared) => {
                        let part = shared.part(target.name);
                        part.push(*id, event.app, Arc::clone(&event), now);
                    }
                },
                Wanted::Filtered => {
                    let counters = self.queue.counters.app(event.app);
                    let row = &mut counters.deliveries[event.kind.column()];
                    row[DeliveryResult::Filtered as usize] += 1;
                }
                Wanted::No => {}
            }
        }
        self.keep_account();
    }

    /// Begins every attempt that is due and has a place, and says to the store what is to be said.
    pub fn start(&mut self) {
        self.start_attempts();
        self.keep_account();
        let now = self.now();
        if let Some(shared) = &mut self.shared {
            let targets = &self.targets;
            let name_of = |id| {
                let target = targets.target(id)?;
                Some((&*target.entry.app.id, target.name))
            };
            let app_of = |name| targets.of_name(name).map(|(_, it)| &*it.entry.app.id);
            shared.begin(now, wall_ms(), name_of, app_of);
        }
    }

    fn start_attempts(&mut self) {
        while !self.given.has_all
            && let Some((id, job)) = self.queue.start(self.now())
        {
            let Some(target) = self.targets.target(id) else {
                self.queue.gone(id, &job); // `retain` has emptied its lane: only a race leads here.
                continue;
            };
            let (client, kept) = (self.client.clone(), self.connections.take(id));
            let target = Arc::clone(target);
            self.try_job(id, job, |job| async move {
                attempt::attempt(client, kept, target, &job).await
            });
        }
    }

    fn try_job<F>(&mut self, target: TargetId, job: Job, attempt: impl FnOnce(Arc<Job>) -> F)
    where
        F: Future<Output = (Result<(), AttemptError>, Option<Kept>)> + Send + 'static,
    {
        let job = Arc::new(job);
        let attempt = attempt(Arc::clone(&job));
        let (of, policy) = ((target, Arc::clone(&job)), self.connections.policy());
        self.attempts.begin(of, async move {
            #[expect(
                clippy::disallowed_methods,
                reason = "an attempt takes the time that it takes"
            )]
            let began = Instant::now();
            let (result, kept) = attempt.await;
            Attempted {
                target,
                job,
                result,
                took: began.elapsed(),
                kept,
                policy,
            }
        });
    }

    /// Waits until an attempt has ended or something is due, and deals with it. Nothing is lost
    /// when the future is dropped before it is ready.
    pub async fn progress(&mut self) {
        let now = self.now();
        let shared_due = self.shared.as_ref().and_then(|it| it.due(now));
        // Who has given all its jobs away begins none.
        let due = match self.given.has_all {
            true => [None, shared_due],
            false => [self.queue.next_due(), shared_due],
        };
        let due = due.into_iter().flatten().min();
        let due = due
            .map(|due| self.started + Duration::from_millis(due.0.saturating_sub(CLOCK_BEGINS_MS)))
            .map(tokio::time::Instant::from_std);
        let due = [due, self.connections.due()].into_iter().flatten().min();
        let heard = async {
            match &mut self.shared {
                Some(shared) => shared.heard().await,
                None => std::future::pending::<Heard>().await,
            }
        };
        tokio::select! {
            heard = heard => match heard {
                Heard::Turned(turned) => self.hear(turned),
                Heard::Old(heard) => self.hear_old(heard),
                Heard::Ready => {
                    let parts = self.shared.iter_mut().flat_map(Shared::parts_mut);
                    parts.for_each(Part::is_offered);
                }
            },
            ended = self.attempts.next() => self.settle(ended),
            () = self.alarm.until(due) => self.connections.close_old(),
        }
        self.start();
    }

    fn settle(&mut self, ended: Attempted) {
        if self.tell_of(&ended) {
            return;
        }
        let Attempted {
            target,
            job,
            result,
            took,
            kept,
            policy,
        } = ended;
        if let Some(kept) = kept {
            self.connections.put(target, kept, policy);
        }
        self.queue.counters.attempts.observe(took.as_secs_f64());
        let receipt = job.receipt.as_ref();
        let is_forgotten = receipt.is_some_and(|it| self.forgotten.remove(it));
        if let (Ok(()), Some(shared), Some(receipt)) = (&result, &mut self.shared, &job.receipt) {
            shared
                .part(receipt.target)
                .done(receipt, since(self.started));
        }
        let Some(entry) = self.targets.target(target).cloned() else {
            match result {
                Ok(()) => _ = self.queue.delivered(target, &job, self.now()),
                Err(_) => self.queue.gone(target, &job),
            }
            self.keep_account();
            return;
        };
        let (app_id, now) = (&entry.entry.app.id, self.now());
        match result {
            Ok(()) => {
                let change = self.queue.delivered(target, &job, now);
                if change == TargetChange::Recovered {
                    self.recovers(target);
                }
                if change == TargetChange::Recovered
                    && let Some(suppressed) = self.told.allow(now)
                {
                    let endpoint = entry.shown();
                    tracing::info!(app_id, endpoint, suppressed, "webhook target answers again");
                }
            }
            Err(error) => {
                let (attempt, endpoint) = (job.attempts + 1, entry.shown());
                tracing::debug!(app_id, endpoint, %error, attempt, "webhook failed");
                let mut job = Arc::unwrap_or_clone(job);
                job.met(&error.to_string());
                if is_forgotten {
                    job.receipt = None;
                }
                let change = self.queue.failed(target, job, now, jitter());
                self.keep_account();
                if change == TargetChange::Fails {
                    self.fails(target);
                }
                if change == TargetChange::Fails
                    && let Some(suppressed) = self.told.allow(now)
                {
                    tracing::warn!(app_id, endpoint, %error, suppressed, "webhook target fails");
                }
            }
        }
    }

    /// Sends everything that waits as soon as it has a place, or gives it to the store: the process is about
    /// to stop.
    pub fn hurry(&mut self) {
        self.close_parts();
        self.queue.hurry(self.now());
        self.start();
    }

    /// Gives up all that is left; returns the number of events that were lost.
    pub fn abandon(&mut self) -> usize {
        // What is in a store stays there.
        let own_events = |job: &Job| match job.receipt {
            Some(_) => 0,
            None => job.events.len(),
        };
        let under_way = self.attempts.under_way().map(|(_, job)| own_events(job));
        let under_way: usize = under_way.sum();
        self.attempts.abort();
        let given = self.given.events();
        let Some(shared) = &mut self.shared else {
            let lost: usize = self.own_queues().map(MemoryQueue::abandon).sum();
            return lost.saturating_sub(given);
        };
        let backlog: usize = shared.parts_mut().map(Part::abandon).sum();
        let waiting = self.queue.give(self.now()).into_iter();
        let waiting = waiting.map(|carried| match carried {
            Carried::New(_, job) | Carried::Retry(_, job, _) => own_events(&job),
            Carried::Failing(..) => 0,
        });
        backlog + under_way + waiting.sum::<usize>()
    }

    /// Nothing waits and nothing is under way.
    pub fn is_idle(&self) -> bool {
        let mut parts = self.shared.iter().flat_map(Shared::parts);
        let early = self.expected.early.as_ref();
        let is_idle = self.queue.is_idle() && early.is_none_or(MemoryQueue::is_idle);
        is_idle && !self.expected.is_relaying() && parts.all(Part::is_idle)
    }

    /// The queue overflows, or its store does not answer.
    pub fn is_failing(&self) -> bool {
        let mut parts = self.shared.iter().flat_map(Shared::parts);
        self.is_overflowing() || parts.any(Part::is_failing)
    }

    /// What waits here overflowed a short while ago.
    pub fn is_overflowing(&self) -> bool {
        let now = self.now();
        let mut parts = self.shared.iter().flat_map(Shared::parts);
        self.queue.is_failing(now) || parts.any(|part| part.is_overflowing(now))
    }

    pub fn counters(&self) -> &WebhookCounters {
        &self.queue.counters
    }

    /// Of the store that nodes share, for a scrape.
    pub(super) fn backend_counts(&self) -> Option<BackendCounts> {
        self.shared.as_ref()?.backend_counts()
    }

    /// The queue's gauges.
    pub fn state(&self) -> WebhookState {
        let now = self.now();
        let parts = || self.shared.iter().flat_map(Shared::parts);
        let oldest = parts().map(|part| part.oldest_ms(now)).max().unwrap_or(0);
        let oldest = oldest.max(self.queue.oldest_ms(now));
        let driver = match &self.shared {
            Some(shared) => shared.driver,
            None if self.enabled => "memory",
            None => "none",
        };
        let store = self.shared.as_ref().map(Shared::state);
        let early = self.expected.early.as_ref();
        WebhookState {
            dead_letters: store.map_or(self.letters.len() as u64, |it| it.dead),
            dead_letters_dropped: store.map_or(self.letters.dropped, |it| it.dead_dropped),
            store: self.shared.as_ref().map(Shared::sample),
            driver,
            waiting_events: self.queue.waiting_events()
                + early.map_or(0, MemoryQueue::waiting_events)
                + parts().map(Part::waiting_events).sum::<usize>(),
            waiting_bytes: self.queue.waiting_bytes()
                + early.map_or(0, MemoryQueue::waiting_bytes)
                + parts().map(Part::waiting_bytes).sum::<usize>(),
            in_flight: self.queue.in_flight(),
            targets_failing: self.queue.targets_failing(),
            oldest_s: oldest as f64 / 1e3,
        }
    }

    fn now(&self) -> Millis {
        since(self.started)
    }
}

fn client_of(targets: &Targets) -> Client {
    Client::new(Arc::new(TargetPolicy::of(targets)))
}

/// The queue's clock begins so that a job which is older than this process has a time on it.
const CLOCK_BEGINS_MS: u64 = 1 << 40;

fn since(started: Instant) -> Millis {
    let since = u64::try_from(started.elapsed().as_millis());
    Millis(CLOCK_BEGINS_MS + since.expect("a process lives less than 500 million years"))
}

/// Milliseconds since the Unix epoch.
#[expect(
    clippy::disallowed_methods,
    reason = "nodes that share jobs have no other clock in common"
)]
pub(super) fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

/// The bits of the kinds that any webhook of an app wants.
pub fn interest(kinds: impl Iterator<Item = EventType>) -> u8 {
    kinds.fold(0, |bits, kind| bits | target::bit(kind))
}

/// In 0..1. Without randomness the jobs only lose their spread.
fn jitter() -> f64 {
    let random = getrandom::u32().unwrap_or(u32::MAX / 2);
    f64::from(random) / (f64::from(u32::MAX) + 1.0)
}
