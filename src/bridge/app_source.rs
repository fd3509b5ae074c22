//! Apps of a store, as the bridge has them: what shards look for, what the store says, who is told.
//!
//! Owns: `AppSource`: the finder and the questions that are under way, what a start does to the store; how changes
//! of apps reach shards, webhooks and the other nodes.
//! May depend on: `bridge::{apps, log_limit, message, run}`, `metrics`, tokio.
//! Invariants: nothing here waits for the store; a change reaches all shards in the order of its number.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use shards::application::{Millis, ShardId};
use tokio::{sync::oneshot, task::JoinSet};

use super::{
    adapter::backoff::Backoff,
    admin::report::AppsReport,
    apps::{
        AppChange, AppName,
        finder::{Errand, Finder, FinderCounters, FinderSettings},
        store::{FoundApps, MalformedApp, Preparation, Prepared, Store, StoreError},
    },
    link::ShardLink,
    log_limit::LogLimit,
    message::{AppWanted, FromBridge},
    nodes::Nodes,
    run::Bridge,
};
use crate::{
    config::{App, Config},
    metrics::{
        backend::{BackendCounts, Meter, Operation},
        sample::StoreSample,
    },
};

pub(super) struct AppSource {
    finder: Finder,
    store: Store,
    questions: JoinSet<Reached>,
    /// Start of the node's clock.
    started: Instant,
    told: Told,
    /// Operators who wait for the next answer to a look at known apps. Those who have gone leave with the next one.
    operators: Vec<Operator>,
    /// What the start is to do to the store, until that is done.
    preparing: Option<Preparing>,
}

/// Who waits to hear whether the store answers.
struct Operator {
    /// When he asked.
    known_apps: usize,
    waiter: oneshot::Sender<Result<AppsReport, String>>,
}

/// What the log was told of the store.
#[derive(Debug)]
struct Told {
    /// Its trouble, as it was told last.
    trouble: Option<String>,
    /// It has answered since.
    is_over: bool,
    /// Of one that is well and ill in turn.
    limit: LogLimit,
    /// Rows that cannot be apps, of those that are looked at, and why. One leaves when it is mended or not there any more
    /// when it is next looked at, which goes on as long as it is there: they are never more than the apps that are known.
    unusable: BTreeMap<Box<str>, String>,
}

struct Preparing {
    work: Preparation,
    /// When to begin, on the node's clock; `None` while it is under way.
    due: Option<Duration>,
    backoff: Backoff,
    failures: u32,
    /// What stood in its way last.
    fault: Option<String>,
}

/// When a question began, and where it is counted.
struct Clock {
    meter: Meter,
    operation: Operation,
    since: tokio::time::Instant,
}

impl Clock {
    async fn measure<T>(
        self,
        answer: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let answer = answer.await;
        self.meter.observe(self.operation, self.since.elapsed());
        match &answer {
            Err(StoreError::Down(_, fault)) => self.meter.failed(*fault),
            // Of the operator's row, not of the server.
            Err(StoreError::Malformed { .. }) | Ok(_) => {}
        }
        answer
    }
}

/// The store has answered, or could not be asked.
pub(super) enum Reached {
    One {
        name: AppName,
        result: Result<Option<App>, StoreError>,
    },
    All {
        ids: Vec<Box<str>>,
        result: Result<FoundApps, StoreError>,
    },
    Prepared(Result<Prepared, String>),
}

/// Names that nobody knows may be asked of the store so often, by all shards together.
const UNKNOWN_PER_S: u32 = 200;
/// A store of an idle node is asked so often whether it is there.
const ASK_EVERY: Duration = Duration::from_secs(5);
const TOLD_EVERY_MS: u64 = 10_000;
/// A store is written to anew after so many pauses of a bus: up to three seconds.
const PREPARE_PAUSES: u32 = 3;

fn settings(config: &Config, store: &Store) -> FinderSettings {
    let app_manager = &config.app_manager;
    let ttl_s = match app_manager.cache_enabled {
        true => app_manager.cache_ttl_s.max(1),
        false => 1,
    };
    FinderSettings {
        // What is looked at takes a moment.
        ttl: Duration::from_secs(ttl_s).mul_f64(0.9),
        negative_ttl: Duration::from_secs(app_manager.negative_ttl_s.clamp(1, ttl_s)),
        unknown_per_s: UNKNOWN_PER_S,
        ask_every: ASK_EVERY,
        places: store.places(),
        timeout: store.timeout(),
    }
}

impl Told {
    fn new() -> Self {
        Self {
            trouble: None,
            is_over: false,
            limit: LogLimit::new(1, TOLD_EVERY_MS),
            unusable: BTreeMap::new(),
        }
    }

    /// `Some` if it is to be told now: a trouble is told once while it lasts. With how many were not.
    fn trouble(&mut self, now: Millis, text: &str) -> Option<u64> {
        let lasts = self.trouble.as_deref() == Some(text) && !self.is_over;
        if lasts {
            return None;
        }
        let suppressed = self.limit.allow(now)?;
        self.trouble = Some(text.to_owned());
        self.is_over = false;
        Some(suppressed)
    }

    /// Of those that were looked at, a row that is to be told and how many others: each once, until it has
    /// another fault, is mended or leaves.
    fn unusable<'a>(
        &mut self,
        looked_at: &[Box<str>],
        malformed: &'a [MalformedApp],
    ) -> Option<(&'a MalformedApp, usize)> {
        let is_malformed = |id: &str| malformed.iter().any(|it| *it.id == *id);
        for id in looked_at.iter().filter(|id| !is_malformed(id)) {
            self.unusable.remove(id);
        }
        let mut new = malformed.iter().filter(|it| {
            let before = self.unusable.insert(it.id.clone(), it.faults.clone());
            before.as_ref() != Some(&it.faults)
        });
        let first = new.next()?;
        Some((first, new.count()))
    }
}

impl AppSource {
    /// `inherited` are ids of apps that the process before knew.
    pub(super) fn new(
        config: &Config,
        store: Store,
        preparation: Option<Preparation>,
        started: Instant,
        inherited: Vec<String>,
    ) -> Self {
        let now = started.elapsed();
        let preparing = preparation.map(|work| Preparing {
            work,
            due: Some(now),
            backoff: Backoff::default(),
            failures: 0,
            fault: None,
        });
        let mut finder = Finder::new(now, settings(config, &store));
        finder.inherit(now, inherited.into_iter().map(Into::into));
        Self {
            finder,
            store,
            questions: JoinSet::new(),
            started,
            told: Told::new(),
            operators: Vec::new(),
            preparing,
        }
    }

    /// The next answer of the store.
    pub(super) async fn reached(&mut self) -> Reached {
        loop {
            match self.questions.join_next().await {
                Some(Ok(reached)) => return reached,
                // A question that panicked: whoever asked is answered by its deadline.
                Some(Err(error)) => {
                    tracing::error!(%error, "a question to the store of apps broke")
                }
                None => std::future::pending().await,
            }
        }
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    pub(super) fn due(&self) -> Option<Instant> {
        let preparing = self.preparing.as_ref().and_then(|it| it.due);
        let due = self.finder.due().into_iter().chain(preparing).min()?;
        Some(self.started + due)
    }

    /// The store did not answer what it was asked last, has never been heard, or is not yet as the configuration wants
    /// it.
    pub(super) fn is_failing(&self) -> bool {
        self.finder.is_failing() || self.preparing.is_some()
    }

    /// Begins what the start is to do to the store, when that is due.
    fn prepare(&mut self, now: Duration) {
        if let Some(preparing) = &mut self.preparing
            && preparing.due.is_some_and(|due| due <= now)
        {
            preparing.due = None;
            let work = preparing.work.clone().run();
            let prepared = async move { Reached::Prepared(work.await) };
            self.questions.spawn(prepared);
        }
    }

    /// What the start did to the store, or why it must be tried again. True when that is done.
    fn prepared(&mut self, now: Duration, result: Result<Prepared, String>) -> bool {
        match (result, &mut self.preparing) {
            (Ok(prepared), _) => {
                let Prepared {
                    has_made_table,
                    has_completed_table,
                    apps,
                } = prepared;
                tracing::info!(
                    has_made_table,
                    has_completed_table,
                    added = apps.added,
                    changed = apps.changed,
                    left = apps.left,
                    "the store of apps is as the configuration wants it"
                );
                self.preparing = None;
                true
            }
            (Err(error), Some(preparing)) => {
                // Not the first: nodes that start at one time are in each other's way.
                let before = preparing.fault.replace(error);
                preparing.failures = preparing.failures.saturating_add(1);
                if preparing.failures == 2 || (preparing.failures > 2 && before != preparing.fault)
                {
                    let error = preparing.fault.as_deref();
                    tracing::warn!(error, "the store of apps cannot be written to: not ready");
                }
                preparing.due = Some(now + preparing.backoff.pause() * PREPARE_PAUSES);
                false
            }
            (Err(_), None) => false,
        }
    }

    /// The apps that the process before knew have been looked at.
    pub(super) fn has_inherited(&self) -> bool {
        self.finder.has_looked_at_inherited()
    }

    pub(super) fn sample(&self) -> StoreSample {
        let FinderCounters {
            hits,
            absent_hits,
            known,
            absent,
            failed,
            refused,
            late,
        } = self.finder.counters;
        StoreSample {
            backend: self.store.name(),
            is_up: !self.is_failing(),
            lookups: [hits + absent_hits, known + absent, failed + refused + late],
        }
    }

    pub(super) fn backend_counts(&self) -> BackendCounts {
        self.store.meter().counts()
    }

    /// Asks the store for one app.
    fn ask(&mut self, name: AppName) {
        let found = self.store.find(name.clone());
        let asked_at = self.finder.asked_at(&name);
        let since = asked_at.unwrap_or_else(|| self.now());
        let clock = self.clock(Operation::Lookup, since);
        self.questions.spawn(async move {
            let result = clock.measure(found).await;
            Reached::One { name, result }
        });
    }

    /// Of a question that began then, on the node's clock.
    fn clock(&self, operation: Operation, since: Duration) -> Clock {
        Clock {
            meter: self.store.meter().clone(),
            operation,
            since: tokio::time::Instant::from_std(self.started + since),
        }
    }

    fn tell_trouble(&mut self, error: &StoreError) {
        let error = error.to_string();
        let now = u64::try_from(self.now().as_millis()).unwrap_or(u64::MAX);
        if let Some(suppressed) = self.told.trouble(Millis(now), &error) {
            tracing::warn!(error, suppressed, "the store of apps");
        }
    }

    /// One that nobody knew before is there, and disabled until its row is mended.
    fn tell_disabled(&mut self, row: &MalformedApp) {
        if let Some((row, _)) = self.told.unusable(&[], std::slice::from_ref(row)) {
            let (app_id, faults) = (&*row.id, &*row.faults);
            tracing::error!(
                app_id,
                faults,
                "an app of the store is disabled: its row cannot be used"
            );
        }
    }

    fn tell_unusable(&mut self, looked_at: &[Box<str>], malformed: &[MalformedApp]) {
        if let Some((first, others)) = self.told.unusable(looked_at, malformed) {
            let (app_id, faults) = (&*first.id, &*first.faults);
            tracing::warn!(app_id, faults, others, "apps of the store cannot be used");
        }
    }
}

impl<L: ShardLink> Bridge<L> {
    /// A shard looks for an app.
    pub(super) fn find_app(&mut self, shard: ShardId, wanted: AppWanted) {
        if let Some(source) = &mut self.source {
            let now = source.now();
            let known = (&self.apps, self.openings.latest());
            source.finder.ask(now, known, shard, wanted);
            self.run_app_errands();
        }
    }

    /// Jobs of apps that this node has not used may have been put by another, and those of a target that its app
    /// does not have here by one that has looked at the app since.
    pub(super) fn find_apps_of_webhooks(&mut self) {
        for id in self.webhooks.take_wanted_apps() {
            let (is_known, name) = (self.apps.by_id(&id).is_some(), AppName::Id(id));
            match (is_known, &mut self.source) {
                // All shards hear of an app; this one may be told that there is none.
                (false, _) => {
                    let address = None;
                    self.find_app(ShardId(0), AppWanted { name, address });
                }
                (true, Some(source)) => source.ask(name),
                (true, None) => {}
            }
        }
    }

    /// A shard has taken changes of apps.
    pub(super) fn apps_taken(&mut self, shard: ShardId, number: u64) {
        let Some(number) = self.openings.taken(shard, number) else {
            return;
        };
        self.broadcast(|| FromBridge::AppsOpen { number });
        if let Some(source) = &mut self.source {
            source.finder.opened(number);
            self.run_app_errands();
        }
    }

    /// The configuration was read again.
    pub(super) fn reload_apps(&mut self) {
        if let Some(source) = &mut self.source {
            let settings = settings(&self.config, &source.store);
            source.finder.reconfigure(settings);
            source.store.reload(&self.config);
            return self.look_at_all_again();
        }
        let changes = self.apps.replace(&self.config.app_manager.apps);
        self.change_apps(changes);
    }

    /// An operator wants changes to hold at once. Apps of a file come with all of the file; of a store he is answered
    /// when it is.
    pub(super) fn look_at_apps(&mut self, waiter: oneshot::Sender<Result<AppsReport, String>>) {
        if let Some(source) = &mut self.source {
            source.operators.retain(|it| !it.waiter.is_closed());
            let known_apps = self.apps.iter().count();
            source.operators.push(Operator { known_apps, waiter });
            return self.tell_of_changed_apps();
        }
        self.reload();
        _ = waiter.send(match self.reloaded.succeeded {
            true => Ok(AppsReport {
                driver: "memory".to_owned(),
                apps: self.apps.iter().count(),
            }),
            false => Err("the configuration is refused; the log says why".to_owned()),
        });
    }

    /// The store has answered a look at known apps, or why it has not.
    fn tell_operators(&mut self, answered: Result<(), &StoreError>) {
        let Some(source) = &mut self.source else {
            return;
        };
        for Operator { known_apps, waiter } in source.operators.drain(..) {
            _ = waiter.send(match answered {
                Ok(()) => Ok(AppsReport {
                    driver: source.store.name().to_owned(),
                    apps: known_apps,
                }),
                Err(error) => Err(format!(
                    "the store of apps gives no answer: {error}\nthe {known_apps} apps that are known stay as they are, \
                     and are looked at again each second until it does"
                )),
            });
        }
    }

    /// The store has changed: what is known of it is looked at again, here and on the other nodes.
    fn tell_of_changed_apps(&mut self) {
        if let Some(nodes) = &mut self.nodes {
            nodes.tell_apps_changed();
        }
        self.look_at_all_again();
    }

    fn look_at_all_again(&mut self) {
        if let Some(source) = &mut self.source {
            let now = source.now();
            source.finder.look_again(now);
            self.broadcast(|| FromBridge::ForgetMissing);
            self.tick_apps();
        }
    }

    /// An operator has told another node that apps have changed.
    pub(super) fn hear_of_apps(&mut self) {
        let has_changed = self.nodes.as_mut().is_some_and(Nodes::take_apps_changed);
        if has_changed {
            self.look_at_all_again();
        }
    }

    /// Tells everybody what has changed; the number of the latest change.
    fn change_apps(&mut self, changes: Vec<AppChange>) -> u64 {
        if changes.is_empty() {
            return self.openings.latest();
        }
        self.webhooks.change_apps(&changes);
        if let Some(nodes) = &mut self.nodes {
            for change in &changes {
                match change {
                    AppChange::Put(entry) => nodes.app_came(&entry.app.id),
                    AppChange::Gone(_) => {} // It may come back.
                    AppChange::Forgotten(index, id) => nodes.app_went(*index, id),
                }
            }
        }
        let (number, changes) = (self.openings.begin(), Arc::from(changes));
        self.broadcast(|| FromBridge::Apps {
            number,
            changes: Arc::clone(&changes),
        });
        number
    }

    /// Takes an answer of the store.
    pub(super) fn reached_store(&mut self, reached: Reached) {
        let Some(source) = &mut self.source else {
            return;
        };
        let now = source.now();
        match reached {
            Reached::One { name, result } => match result {
                Ok(Some(app)) => {
                    let change = self.apps.put(&app);
                    let number = self.change_apps(change.into_iter().collect());
                    if let Some(source) = &mut self.source {
                        source.finder.found(now, &name, &app.id, number);
                        source.told.is_over = true;
                    }
                    self.webhooks.store_said(&app.id);
                }
                Ok(None) => {
                    source.finder.not_found(now, &name);
                    if let AppName::Id(id) = &name {
                        self.webhooks.store_said(id);
                    }
                }
                // Whoever knows the app already keeps it as it was.
                Err(StoreError::Malformed {
                    id,
                    faults,
                    stand_in: Some(app),
                }) if self.apps.by_id(&id).is_none() => {
                    source.tell_disabled(&MalformedApp::new(id, &faults));
                    let change = self.apps.put(&app);
                    let number = self.change_apps(change.into_iter().collect());
                    if let Some(source) = &mut self.source {
                        source.finder.found(now, &name, &app.id, number);
                        source.told.is_over = true;
                    }
                }
                // What has no name of an app is none, until the row is mended.
                Err(error @ StoreError::Malformed { .. }) => {
                    source.tell_trouble(&error);
                    source.finder.not_found(now, &name);
                }
                Err(error) => {
                    source.tell_trouble(&error);
                    source.finder.failed(now, &name);
                }
            },
            Reached::All { ids, result } => {
                match &result {
                    Ok(found) => self.looked_at(now, &ids, found),
                    Err(error) => {
                        source.tell_trouble(error);
                        source.finder.look_failed(now, ids);
                    }
                }
                self.tell_operators(result.as_ref().map(drop));
            }
            Reached::Prepared(result) => {
                if source.prepared(now, result) {
                    self.tell_of_changed_apps();
                }
            }
        }
        self.run_app_errands();
        // Before `/up` says so: from then on a store that dies takes no node with it.
        self.announce();
    }

    /// Known apps as they are now; of those that were asked for and are not among them, none is left. One
    /// whose row cannot be an app any more, or yet, stays as it was, like all of a file that is refused.
    fn looked_at(&mut self, now: Duration, ids: &[Box<str>], found: &FoundApps) {
        let FoundApps { apps, malformed } = found;
        let mut changes: Vec<AppChange> = Vec::new();
        let is_there = |id: &str| {
            apps.iter().any(|app| app.id == id) || malformed.iter().any(|it| *it.id == *id)
        };
        let Some(source) = &mut self.source else {
            return;
        };
        source.told.is_over = true;
        source.tell_unusable(ids, malformed);
        for id in ids.iter().filter(|id| !is_there(id)) {
            changes.extend(self.apps.remove(id));
            source.finder.left(now, id);
        }
        let stay = ids.iter().filter(|id| is_there(id)).cloned();
        source.finder.looked_at(now, stay);
        changes.extend(self.apps.put_all(apps));
        self.change_apps(changes);
    }

    /// Does what is due.
    pub(super) fn tick_apps(&mut self) {
        if let Some(source) = &mut self.source {
            let now = source.now();
            source.prepare(now);
            if source.finder.due().is_some_and(|due| due <= now) {
                source.finder.tick(now);
            }
            self.run_app_errands();
        }
    }

    fn run_app_errands(&mut self) {
        while let Some(errand) = self.source.as_mut().and_then(|it| it.finder.next_errand()) {
            match errand {
                Errand::Find(name) => {
                    if let Some(source) = &mut self.source {
                        source.ask(name);
                    }
                }
                Errand::FindAll(ids) => {
                    if let Some(source) = &mut self.source {
                        let found = source.store.find_all(ids.clone());
                        let clock = source.clock(Operation::Refresh, source.now());
                        source.questions.spawn(async move {
                            let result = clock.measure(found).await;
                            Reached::All { ids, result }
                        });
                    }
                }
                Errand::Answer { shard, name, found } => {
                    let name = Box::new(name);
                    let answer = FromBridge::AppFound { name, found };
                    self.outbox.send(&self.link, shard, answer);
                }
                Errand::Forget(id) => {
                    let change = self.apps.forget(&id);
                    self.change_apps(change.into_iter().collect());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trouble_is_told_once_while_it_lasts_and_now_and_then_where_it_comes_and_goes() {
        let mut told = Told::new();
        let at = |second: u64| Millis(second * 1_000);
        assert_eq!(told.trouble(at(1), "silent"), Some(0));
        assert_eq!(told.trouble(at(100), "silent"), None, "it lasts");
        told.is_over = true;
        assert_eq!(
            told.trouble(at(101), "silent"),
            Some(0),
            "it is another one"
        );
        for second in 101..111 {
            told.is_over = true;
            assert_eq!(told.trouble(at(second), "silent"), None, "{second}");
        }
        assert_eq!(told.trouble(at(111), "refused"), Some(10));
        assert_eq!(told.trouble(at(112), "silent"), None);
        assert_eq!(told.trouble(at(121), "silent"), Some(1));
    }

    #[test]
    fn a_row_that_cannot_be_an_app_is_told_once_until_it_is_mended() {
        let mut told = Told::new();
        let row = |id: &str| MalformedApp {
            id: id.into(),
            faults: String::new(),
        };
        let (a, b) = (row("a"), row("b"));
        let ids = ["a", "b", "c"].map(Box::<str>::from);
        let both = [a.clone(), b.clone()];
        assert_eq!(told.unusable(&ids, &both), Some((&a, 1)));
        assert_eq!(told.unusable(&ids, &both), None);
        assert_eq!(told.unusable(&["d".into()], &[]), None, "others");
        assert_eq!(told.unusable(&ids, std::slice::from_ref(&b)), None);
        assert_eq!(told.unusable(&ids, &both), Some((&a, 0)), "it was well");
        let otherwise = MalformedApp {
            faults: "key: is missing".to_owned(),
            ..b.clone()
        };
        let both = [a, otherwise];
        assert_eq!(told.unusable(&ids, &both), Some((&both[1], 0)));
        assert_eq!(told.unusable(&ids, &[]), None);
        assert!(told.unusable.is_empty());
    }
}
