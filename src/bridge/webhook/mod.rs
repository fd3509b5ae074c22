//! Webhooks: from events of shards to signed requests.
//!
//! Owns: which target gets which event, batches, attempts under way, retries.
//! May depend on: `bridge::{apps, message, queue}`, `config`, `protocol`, `reqwest`, tokio.
//! Invariants: an event is delivered at least once or counted as dead; a slow target delays no
//! other; nothing here waits while the bridge has other work.

mod attempt;
mod lambda;
pub mod policy;
mod target;
#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "real time passes between real sockets"
)]
mod tests;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use shards::application::Millis;
use tokio::task::JoinSet;

use self::{
    attempt::AttemptError,
    policy::TargetPolicy,
    target::{TargetTable, Wanted},
};
use super::{
    apps::{AppChange, AppTable},
    message::WebhookEvent,
    queue::{
        Job, QueueSettings, TargetId,
        memory::{MemoryQueue, TargetChange},
    },
};
use crate::{
    config::{
        app::EventType,
        sections::{QueueDriver, Targets, Webhooks as Settings},
    },
    metrics::{
        bridge::{DeliveryResult, WebhookCounters},
        sample::WebhookState,
    },
};

/// Why webhooks cannot be sent at all.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    #[error("the HTTP client for webhooks cannot be made: {0}")]
    Client(#[from] reqwest::Error),
    #[error("queue.driver = {0}: this release has memory and none")]
    Driver(&'static str),
}

/// All webhooks of this node.
#[derive(Debug)]
pub struct Webhooks {
    /// `queue.driver = none` turns webhooks off.
    enabled: bool,
    queue: MemoryQueue,
    targets: TargetTable,
    policy: Arc<TargetPolicy>,
    client: reqwest::Client,
    attempts: JoinSet<Attempted>,
    started: Instant,
    told: LogLimit,
}

/// An attempt that has ended.
#[derive(Debug)]
struct Attempted {
    target: TargetId,
    job: Job,
    result: Result<(), AttemptError>,
    took: Duration,
}

impl Webhooks {
    /// `started` is the start of the node's clock.
    ///
    /// # Errors
    /// When the queue driver is not in this release, or the host has no usable TLS setup.
    pub fn new(
        driver: QueueDriver,
        settings: &Settings,
        started: Instant,
    ) -> Result<Self, WebhookError> {
        let enabled = match driver {
            QueueDriver::Memory => true,
            QueueDriver::None => false,
            QueueDriver::Redis => return Err(WebhookError::Driver("redis")),
            QueueDriver::RedisCluster => return Err(WebhookError::Driver("redis-cluster")),
            QueueDriver::Sqs => return Err(WebhookError::Driver("sqs")),
        };
        let policy = Arc::new(TargetPolicy::of(&settings.targets));
        Ok(Self {
            enabled,
            queue: MemoryQueue::new(QueueSettings::of(settings)),
            targets: TargetTable::new(settings.lambda_endpoint_url.as_deref()),
            client: attempt::client(&policy)?,
            policy,
            attempts: JoinSet::new(),
            started,
            told: LogLimit::default(),
        })
    }

    /// Takes over the apps that there are at the start.
    pub fn begin(&mut self, apps: &AppTable) {
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
            self.queue.retain(|id| self.targets.target(id).is_some());
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
    ///
    /// # Errors
    /// As `new`; the former settings stay.
    pub fn reconfigure(&mut self, settings: &Settings) -> Result<(), WebhookError> {
        self.set_policy(&settings.targets)?;
        self.queue
            .reconfigure(QueueSettings::of(settings), self.now());
        Ok(())
    }

    fn set_policy(&mut self, targets: &Targets) -> Result<(), WebhookError> {
        let policy = Arc::new(TargetPolicy::of(targets));
        self.client = attempt::client(&policy)?;
        self.policy = policy;
        Ok(())
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
                Wanted::Yes => self.queue.push(*id, event.app, Arc::clone(&event), now),
                Wanted::Filtered => {
                    let counters = self.queue.counters.app(event.app);
                    let row = &mut counters.deliveries[event.kind.column()];
                    row[DeliveryResult::Filtered as usize] += 1;
                }
                Wanted::No => {}
            }
        }
    }

    /// Begins every attempt that is due and has a place.
    pub fn start(&mut self) {
        while let Some((id, job)) = self.queue.start(self.now()) {
            let Some(target) = self.targets.target(id) else {
                self.queue.gone(id, &job); // `retain` has emptied its lane: only a race leads here.
                continue;
            };
            let (client, policy) = (self.client.clone(), Arc::clone(&self.policy));
            let target = Arc::clone(target);
            self.attempts.spawn(async move {
                #[expect(
                    clippy::disallowed_methods,
                    reason = "an attempt takes the time that it takes"
                )]
                let began = Instant::now();
                let result = attempt::attempt(client, policy, target, &job).await;
                Attempted {
                    target: id,
                    job,
                    result,
                    took: began.elapsed(),
                }
            });
        }
    }

    /// Waits until an attempt has ended or something is due, and deals with it. Nothing is lost
    /// when the future is dropped before it is ready.
    pub async fn progress(&mut self) {
        let due = self
            .queue
            .next_due()
            .map(|due| self.started + Duration::from_millis(due.0));
        let due = async {
            match due {
                Some(due) => tokio::time::sleep_until(due.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(ended) = self.attempts.join_next() => {
                // An attempt neither panics nor is aborted while we live.
                let ended = ended.expect("an attempt ends by itself");
                self.settle(ended);
            }
            () = due => {}
        }
        self.start();
    }

    fn settle(&mut self, ended: Attempted) {
        let Attempted {
            target,
            job,
            result,
            took,
        } = ended;
        self.queue.counters.attempts.observe(took.as_secs_f64());
        let Some(entry) = self.targets.target(target).cloned() else {
            match result {
                Ok(()) => _ = self.queue.delivered(target, &job, self.now()),
                Err(_) => self.queue.gone(target, &job),
            }
            return;
        };
        let app_id = &entry.entry.app.id;
        let (endpoint, now) = (entry.shown(), self.now());
        match result {
            Ok(()) => {
                let change = self.queue.delivered(target, &job, now);
                if change == TargetChange::Recovered
                    && let Some(suppressed) = self.told.allow(now)
                {
                    tracing::info!(app_id, endpoint, suppressed, "webhook target answers again");
                }
            }
            Err(error) => {
                let attempt = job.attempts + 1;
                tracing::debug!(app_id, endpoint, %error, attempt, "webhook failed");
                let change = self.queue.failed(target, job, now, jitter());
                if change == TargetChange::Fails
                    && let Some(suppressed) = self.told.allow(now)
                {
                    tracing::warn!(app_id, endpoint, %error, suppressed, "webhook target fails");
                }
            }
        }
    }

    /// Sends everything that waits as soon as it has a place: the process is about to stop.
    pub fn hurry(&mut self) {
        self.queue.hurry(self.now());
        self.start();
    }

    /// Gives up all that is left; returns the number of events that were lost.
    pub fn abandon(&mut self) -> usize {
        self.attempts.abort_all();
        self.queue.abandon()
    }

    /// Nothing waits and nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.queue.is_idle()
    }

    /// The queue overflowed a short while ago.
    pub fn is_failing(&self) -> bool {
        self.queue.is_failing(self.now())
    }

    pub fn counters(&self) -> &WebhookCounters {
        &self.queue.counters
    }

    /// The queue's gauges.
    pub fn state(&self) -> WebhookState {
        WebhookState {
            driver: if self.enabled { "memory" } else { "none" },
            waiting_events: self.queue.waiting_events(),
            waiting_bytes: self.queue.waiting_bytes(),
            in_flight: self.queue.in_flight(),
            oldest_s: self.queue.oldest_ms(self.now()) as f64 / 1e3,
        }
    }

    fn now(&self) -> Millis {
        let since = self.started.elapsed().as_millis();
        Millis(u64::try_from(since).expect("a process lives less than 500 million years"))
    }
}

/// Keeps targets that go up and down from filling the disk.
#[derive(Debug, Default)]
struct LogLimit {
    window: Millis,
    lines: u32,
    suppressed: u32,
}

impl LogLimit {
    const WINDOW_MS: u64 = 10_000;
    const LINES_MAX: u32 = 10;

    /// `Some` if a line may be written, with the number of those left out before it.
    fn allow(&mut self, now: Millis) -> Option<u32> {
        if now.since(self.window) >= Self::WINDOW_MS {
            self.window = now;
            self.lines = 0;
        }
        if self.lines >= Self::LINES_MAX {
            self.suppressed += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.suppressed))
    }
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
