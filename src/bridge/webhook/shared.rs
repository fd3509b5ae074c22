//! The queue's parts in stores that nodes share, and the turns with them that are under way.
//!
//! Owns: `Shared`, `Keeping`; which part a target belongs to; one log line per change of the store.
//! May depend on: `bridge::queue`, `metrics`, tokio.
//! Invariants: nothing here waits for a store.

use shards::application::Millis;
use tokio::{task::JoinSet, time::Instant};

use super::old::{self, OldJobs};
use crate::bridge::queue::{
    QueueSettings, TargetId, TargetName,
    part::{self, Part, PartBounds, PartCounters},
    store::{Answer, Store, StoreFault, StoreState, redis::old::OldList},
};
use crate::metrics::{
    backend::{BackendCounts, Operation},
    sample::WebhookStoreSample,
};

/// Where webhooks wait.
#[derive(Debug)]
pub enum Keeping {
    /// Nowhere: they are off.
    Nowhere,
    /// In this process.
    Memory,
    /// In a store that nodes share.
    Shared(SharedSetup),
}

#[derive(Debug)]
pub struct SharedSetup {
    /// As in `queue.driver`.
    pub driver: &'static str,
    /// One per part.
    pub stores: Vec<Store>,
    /// Where jobs of Sockudo 2.9 may be.
    pub old: Option<OldList>,
    /// Requests at the same time, per node.
    pub in_flight_max: usize,
}

/// All parts.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) driver: &'static str,
    parts: Vec<(Part, Store)>,
    turns: JoinSet<Turned>,
    pub(super) old: Option<OldJobs>,
    /// What stores have said of their trouble since they were all well, at most `TOLD_MAX`.
    told: Vec<String>,
}

/// Troubles that are told while one lasts: parts may have different ones in turn.
const TOLD_MAX: usize = 8;

/// What a store has said.
pub(super) enum Heard {
    Turned(Turned),
    Old(old::Heard),
    /// A store has jobs.
    Ready,
}

/// A turn that has ended.
pub(super) type Turned = (usize, Result<Answer, StoreFault>);

impl Shared {
    pub(super) fn new(setup: SharedSetup, settings: &QueueSettings) -> Self {
        assert!(!setup.stores.is_empty(), "a store has a part");
        let settings = of_part(settings, setup.stores.len());
        // While some are under way the next ones come. One target has a quarter at most.
        let jobs_per_target_max = settings.in_flight_per_target_max * 2;
        let jobs_max = (setup.in_flight_max * 2).div_ceil(setup.stores.len());
        let bounds = PartBounds {
            jobs_max: jobs_max.max(jobs_per_target_max * 4),
            jobs_per_target_max,
        };
        let part = |store| (Part::new(settings.clone(), bounds), store);
        Self {
            driver: setup.driver,
            parts: setup.stores.into_iter().map(part).collect(),
            turns: JoinSet::new(),
            old: setup.old.map(OldJobs::new),
            told: Vec::new(),
        }
    }

    pub(super) fn reconfigure(&mut self, settings: &QueueSettings, now: Millis) {
        let settings = of_part(settings, self.parts.len());
        for part in self.parts_mut() {
            part.reconfigure(settings.clone(), now);
        }
    }

    pub(super) fn part(&mut self, target: TargetName) -> &mut Part {
        let index = self.index(target);
        &mut self.parts[index].0
    }

    /// The number of the part that has a target's jobs.
    pub(super) fn index(&self, target: TargetName) -> usize {
        target.part(self.parts.len())
    }

    pub(super) fn parts(&self) -> impl Iterator<Item = &Part> {
        self.parts.iter().map(|(part, _)| part)
    }

    pub(super) fn parts_mut(&mut self) -> impl Iterator<Item = &mut Part> {
        self.parts.iter_mut().map(|(part, _)| part)
    }

    /// Begins the turns that are due.
    pub(super) fn begin<'a>(
        &mut self,
        now: Millis,
        wall_ms: u64,
        name_of: impl Fn(TargetId) -> Option<(&'a str, TargetName)>,
        app_of: impl Fn(TargetName) -> Option<&'a str>,
    ) {
        for (index, (part, store)) in self.parts.iter_mut().enumerate() {
            let Some(turn) = part.begin(now, wall_ms, &name_of, &app_of) else {
                continue;
            };
            let store = store.clone();
            let since = Instant::now();
            self.turns.spawn(async move {
                let answer = store.turn(&turn).await;
                let operation = match turn.put {
                    Some(_) => Operation::Put,
                    None => Operation::Turn,
                };
                store.meter().observe(operation, since.elapsed());
                (index, answer)
            });
        }
        let is_put = old::is_put(self);
        if let Some(old) = &mut self.old {
            old.step(now, is_put);
        }
    }

    pub(super) fn due(&self, now: Millis) -> Option<Millis> {
        let old = self.old.as_ref().and_then(OldJobs::due);
        let parts = self.parts().filter_map(|part| part.due(now));
        parts.chain(old).min()
    }

    /// The next answer; never while none is awaited.
    pub(super) async fn heard(&mut self) -> Heard {
        let old = async {
            match &mut self.old {
                Some(old) => old.heard().await,
                None => std::future::pending().await,
            }
        };
        let turned = async {
            match self.turns.join_next().await {
                Some(turned) => turned.expect("a turn ends by itself"),
                None => std::future::pending().await,
            }
        };
        let ready = async {
            match &*self.parts {
                [(_, store)] => store.ready().await,
                _ => std::future::pending().await, // Nobody has parts that tell.
            }
        };
        tokio::select! {
            () = ready => Heard::Ready,
            turned = turned => Heard::Turned(turned),
            heard = old => Heard::Old(heard),
        }
    }

    pub(super) fn hear(
        &mut self,
        (index, answer): Turned,
        now: Millis,
        jitter: f64,
    ) -> part::Heard {
        let put_fault = answer.as_ref().ok().and_then(|it| it.put_fault.clone());
        let part = &mut self.parts[index].0;
        let forgot = part.counters.forgot;
        let heard = part.ended(answer, now, jitter);
        if part.counters.forgot > forgot {
            tracing::error!(
                driver = self.driver,
                "the webhook queue has lost its jobs: was it started again without persistence?"
            );
        }
        match (heard, put_fault) {
            (Err(fault), _) => {
                self.tell(&fault, "webhooks wait in memory, and none is delivered");
                part::Heard::default()
            }
            (Ok(heard), Some(fault)) => {
                let text = "new webhooks wait in memory; those that the queue has are delivered";
                self.tell(&fault, text);
                heard
            }
            (Ok(heard), None) => {
                let is_ill = |part: &Part| part.is_failing() || part.is_refused();
                if !self.told.is_empty() && !self.parts().any(is_ill) {
                    self.told.clear();
                    tracing::info!(driver = self.driver, "the webhook queue takes jobs again");
                }
                heard
            }
        }
    }

    fn tell(&mut self, fault: &StoreFault, what: &str) {
        if self.told.len() < TOLD_MAX && !self.told.contains(&fault.0) {
            tracing::warn!(driver = self.driver, %fault, "{what}");
            self.told.push(fault.0.clone());
        }
    }

    /// All parts together: they ask one server, or one cluster.
    pub(super) fn backend_counts(&self) -> Option<BackendCounts> {
        let (_, store) = self.parts.first()?;
        Some(store.meter().counts())
    }

    /// All parts together.
    pub(super) fn sample(&self) -> WebhookStoreSample {
        let state = self.state();
        let sum = |of: fn(&PartCounters) -> u64| self.parts().map(|it| of(&it.counters)).sum();
        WebhookStoreSample {
            is_up: self.parts().all(Part::is_up),
            jobs: state.waiting,
            bytes: state.waiting_bytes,
            events: [
                sum(|it| it.put),
                sum(|it| it.taken),
                state.recovered,
                state.overflown,
                sum(|it| it.faults),
                sum(|it| it.forgot),
            ],
        }
    }

    pub(super) fn state(&self) -> StoreState {
        self.parts().fold(StoreState::default(), |sum, part| {
            let it = part.counters.store;
            StoreState {
                waiting: sum.waiting + it.waiting,
                waiting_bytes: sum.waiting_bytes + it.waiting_bytes,
                dead: sum.dead + it.dead,
                recovered: sum.recovered + it.recovered,
                overflown: sum.overflown + it.overflown,
                dead_dropped: sum.dead_dropped + it.dead_dropped,
            }
        })
    }
}

/// What waits for the store has one bound over all parts.
fn of_part(settings: &QueueSettings, parts: usize) -> QueueSettings {
    QueueSettings {
        bytes_max: settings.bytes_max.div_ceil(parts),
        ..settings.clone()
    }
}
