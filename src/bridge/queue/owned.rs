//! The targets that a node has of a part, by app, and for which of them it asks.
//!
//! Owns: `Owned`: the jobs per target and app, which targets fail, and whose turn it is to be asked for.
//! May depend on: `bridge::queue`.
//! Invariants: an app with the fewest jobs is asked for first, of equals the one that was not for longest, and so are
//! the targets of an app; jobs of targets that fail count for no app; no turn walks all
//! apps or targets.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{TargetName, store::Wanted, turns::leaves_a_third};

/// Targets of one part.
#[derive(Debug, Default)]
pub(super) struct Owned {
    targets: BTreeMap<TargetName, Row>,
    /// Those with a target that answers.
    apps: BTreeMap<Arc<str>, AppRow>,
    order: BTreeSet<(usize, u64, Arc<str>)>,
    failing: Arc<BTreeSet<TargetName>>,
    /// Targets that fail and have no job here, by when they were asked for.
    probes: BTreeSet<(u64, TargetName)>,
    /// Whose they are is not known yet.
    fresh: Vec<TargetName>,
    /// Jobs of targets that answer.
    busy: usize,
    /// Of the last time that something was asked for.
    number: u64,
}

#[derive(Debug, Default)]
struct Row {
    jobs: usize,
    asked: u64,
    app: Option<Arc<str>>,
}

#[derive(Debug, Default)]
struct AppRow {
    jobs: usize,
    asked: u64,
    /// By when they were asked for.
    targets: BTreeSet<(u64, TargetName)>,
}

/// What a turn asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Asked {
    /// Apps of which there are jobs here or something is asked for, and how many jobs.
    pub(super) apps: Vec<(Arc<str>, usize)>,
    /// First who is to have jobs first.
    pub(super) targets: Vec<Wanted>,
}

/// Targets whose failing is remembered.
const FAILING_MAX: usize = 10_000;

impl Owned {
    /// Jobs of targets that answer.
    pub(super) fn busy(&self) -> usize {
        self.busy
    }

    pub(super) fn failing(&self) -> &Arc<BTreeSet<TargetName>> {
        &self.failing
    }

    pub(super) fn is_empty(&self) -> bool {
        self.targets.is_empty()
    }

    /// Those without a job here.
    pub(super) fn idle(&self) -> impl Iterator<Item = TargetName> {
        let idle = self.targets.iter().filter(|(_, row)| row.jobs == 0);
        idle.map(|(name, _)| *name)
    }

    /// A job of the target came.
    pub(super) fn took(&mut self, target: TargetName) {
        self.targets.entry(target).or_insert_with(|| {
            self.fresh.push(target);
            Row::default()
        });
        self.change(target, |row| row.jobs += 1);
    }

    /// A job of the target is here no more.
    pub(super) fn let_go(&mut self, target: TargetName) {
        self.change(target, |row| row.jobs = row.jobs.saturating_sub(1));
    }

    /// None of the jobs is here any more.
    pub(super) fn let_go_all(&mut self) {
        let all: Vec<TargetName> = self.targets.keys().copied().collect();
        for target in all {
            self.change(target, |row| row.jobs = 0);
        }
    }

    /// The target is this node's no more.
    pub(super) fn remove(&mut self, target: TargetName) {
        self.unlist(target);
        let row = self.targets.remove(&target);
        self.forget_without_targets(row.and_then(|row| row.app));
    }

    pub(super) fn remove_idle(&mut self) {
        let idle: Vec<TargetName> = self.idle().collect();
        idle.into_iter().for_each(|target| self.remove(target));
    }

    pub(super) fn set_failing(&mut self, target: TargetName, is_failing: bool) {
        self.unlist(target);
        match is_failing {
            true => Arc::make_mut(&mut self.failing).insert(target),
            false => Arc::make_mut(&mut self.failing).remove(&target),
        };
        self.list(target);
        let app = self.targets.get(&target).and_then(|row| row.app.clone());
        self.forget_without_targets(app);
    }

    /// Forgets of some targets that they failed, if they are too many.
    pub(super) fn forget_failing(&mut self) {
        if self.failing.len() > FAILING_MAX {
            let targets = &self.targets;
            Arc::make_mut(&mut self.failing).retain(|name| targets.contains_key(name));
        }
    }

    /// What is asked for with so much room, where a target may have `most` jobs: of at most `count` targets.
    pub(super) fn ask<'a>(
        &mut self,
        (room, most, count): (usize, usize, usize),
        app_of: impl Fn(TargetName) -> Option<&'a str>,
    ) -> Asked {
        self.find_apps(app_of);
        // Targets that fail have their one job whatever the others do.
        let probes = self.probes.iter().take(count / 2);
        let probes: Vec<TargetName> = probes.map(|(_, target)| *target).collect();
        let (jobs, app) = (1, None);
        let wanted = |target: &TargetName| Wanted {
            target: *target,
            jobs,
            app,
        };
        let mut targets: Vec<Wanted> = probes.iter().map(wanted).collect();
        let mut apps: Vec<(Arc<str>, usize)> = self.apps_with_share(room).take(count).collect();
        let others = self.order.iter().rev().take(self.order.len() - apps.len());
        let others = others.take_while(|(jobs, ..)| *jobs > 0);
        let others: Vec<_> = others
            .map(|(jobs, _, app)| (Arc::clone(app), *jobs))
            .collect();
        targets.extend(self.in_rounds(&apps, most, count - targets.len()));
        self.note_asked(&apps, &targets, count);
        apps.extend(others);
        Asked { apps, targets }
    }

    /// Who was asked for first comes last; where there was no place for all, whoever was asked for.
    fn note_asked(&mut self, apps: &[(Arc<str>, usize)], targets: &[Wanted], count: usize) {
        self.number += 1;
        let number = self.number;
        let is_cut = targets.len() >= count || apps.len() >= count;
        let mut seen = BTreeSet::new();
        for wanted in targets {
            if is_cut || seen.insert(wanted.app) {
                self.change(wanted.target, |row| row.asked = number);
            }
        }
        let is_noted = |index| is_cut || index == 0;
        for (_, (app, _)) in apps.iter().enumerate().filter(|(it, _)| is_noted(*it)) {
            self.change_app(app, |it| it.asked = number);
        }
    }

    fn find_apps<'a>(&mut self, app_of: impl Fn(TargetName) -> Option<&'a str>) {
        for target in std::mem::take(&mut self.fresh) {
            // All that nobody here knows are one's.
            let app = app_of(target).unwrap_or_default();
            let known = self.apps.get_key_value(app);
            let app = known.map_or_else(|| app.into(), |(app, _)| Arc::clone(app));
            self.change(target, |row| row.app = Some(app));
        }
    }

    /// Who has the fewest jobs first.
    fn apps_with_share(&self, room: usize) -> impl Iterator<Item = (Arc<str>, usize)> {
        let apps = self.order.iter();
        let apps = apps.take_while(move |(jobs, ..)| leaves_a_third(*jobs, room));
        apps.map(|(jobs, _, app)| (Arc::clone(app), *jobs))
    }

    /// A target of each app, and another one, until there are `count`.
    // Only those are passed over that have all their jobs here: no more than there is room for.
    fn in_rounds(&self, apps: &[(Arc<str>, usize)], most: usize, count: usize) -> Vec<Wanted> {
        let rings = apps.iter().filter_map(|(app, _)| self.apps.get(app));
        let mut rings: Vec<_> = rings.map(|it| it.targets.iter()).collect();
        let mut found = Vec::new();
        loop {
            let before = found.len();
            for (app, ring) in rings.iter_mut().enumerate() {
                let mut free = ring.filter_map(|(_, target)| {
                    let jobs = most.checked_sub(self.targets.get(target)?.jobs);
                    Some((*target, jobs.filter(|it| *it > 0)?))
                });
                if found.len() < count
                    && let Some((target, jobs)) = free.next()
                {
                    let app = Some(app);
                    found.push(Wanted { target, jobs, app });
                }
            }
            if found.len() == before {
                return found;
            }
        }
    }

    fn change(&mut self, target: TargetName, change: impl FnOnce(&mut Row)) {
        self.unlist(target);
        if let Some(row) = self.targets.get_mut(&target) {
            change(row);
        }
        self.list(target);
    }

    /// Takes a target out of all but `targets`.
    fn unlist(&mut self, target: TargetName) {
        let Some(row) = self.targets.get(&target) else {
            return;
        };
        let (jobs, key, app) = (row.jobs, (row.asked, target), row.app.clone());
        if self.failing.contains(&target) {
            self.probes.remove(&key);
            return;
        }
        self.busy -= jobs;
        if let Some(app) = app {
            self.change_app(&app, |it| {
                it.jobs -= jobs;
                it.targets.remove(&key);
            });
        }
    }

    /// Puts it where it belongs.
    fn list(&mut self, target: TargetName) {
        let Some(row) = self.targets.get(&target) else {
            return;
        };
        let (jobs, key, app) = (row.jobs, (row.asked, target), row.app.clone());
        if self.failing.contains(&target) {
            if jobs == 0 {
                self.probes.insert(key);
            }
            return;
        }
        self.busy += jobs;
        if let Some(app) = app {
            self.change_app(&app, |it| {
                it.jobs += jobs;
                it.targets.insert(key);
            });
        }
    }

    fn change_app(&mut self, app: &Arc<str>, change: impl FnOnce(&mut AppRow)) {
        let it = self.apps.entry(Arc::clone(app)).or_default();
        self.order.remove(&(it.jobs, it.asked, Arc::clone(app)));
        change(it);
        if !it.targets.is_empty() {
            self.order.insert((it.jobs, it.asked, Arc::clone(app)));
        }
    }

    fn forget_without_targets(&mut self, app: Option<Arc<str>>) {
        let Some(app) = app else { return };
        if self.apps.get(&app).is_some_and(|it| it.targets.is_empty()) {
            self.apps.remove(&app);
        }
    }
}
