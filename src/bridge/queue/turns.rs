//! Whose turn it is: lanes that may start something, app by app.
//!
//! Owns: the requests under way and the listed lanes of each app, and the order of the apps.
//! May depend on: `bridge::queue`, `protocol::app`.
//! Invariants: of the apps with listed lanes the one with the fewest requests under way has its turn, and of
//! equals the one that had none for longest; an app that has some leaves a third of the places free, rounded down, and at
//! least one; no step walks the apps.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::TargetId;
use crate::protocol::app::AppIndex;

/// The places of a node, and who waits for one.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// Those with a request under way or a listed lane.
    apps: BTreeMap<AppIndex, AppTurns>,
    /// Those with a listed lane.
    order: BTreeSet<Rank>,
    /// Of the turns so far.
    number: u64,
    in_flight: usize,
    listed: usize,
}

/// Who has `held` jobs and takes another one leaves room for at least half as many as it has then. The first one may
/// always be taken.
pub(super) fn leaves_a_third(held: usize, free: usize) -> bool {
    free > 0 && (held == 0 || held + 1 < free * 2)
}

/// Who has `held` places and takes another one had not twice as many as are free. The last one is for an app that has
/// none: where places are few, one app or two would have them all.
fn leaves_places(held: usize, free: usize) -> bool {
    match free {
        0 => false,
        1 => held == 0,
        _ => held < free * 2,
    }
}

/// Requests under way, the number of the last turn, and whose they are.
type Rank = (usize, u64, AppIndex);

#[derive(Debug, Default)]
struct AppTurns {
    in_flight: usize,
    number: u64,
    lanes: VecDeque<TargetId>,
}

impl Turns {
    /// Requests under way of all apps.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Lanes that are listed.
    pub(super) fn listed(&self) -> usize {
        self.listed
    }

    /// Puts a lane behind the others of its app.
    pub(super) fn list(&mut self, app: AppIndex, lane: TargetId) {
        self.listed += 1;
        self.change(app, |it| it.lanes.push_back(lane));
    }

    /// There is a lane for `next`.
    pub(super) fn has_next(&self, places: usize, may: impl Fn(AppIndex) -> bool) -> bool {
        self.first(places, may).is_some()
    }

    /// Takes the lane whose turn it is, of an app that may start something, here and in the caller's eyes.
    pub(super) fn next(
        &mut self,
        places: usize,
        may: impl Fn(AppIndex) -> bool,
    ) -> Option<TargetId> {
        let app = self.first(places, may)?;
        let number = self.next_number();
        let mut lane = None;
        self.change(app, |it| {
            it.number = number;
            lane = it.lanes.pop_front();
        });
        self.listed -= usize::from(lane.is_some());
        lane
    }

    // An app that may not start something has begun something: no more apps are passed over than there are places.
    fn first(&self, places: usize, may: impl Fn(AppIndex) -> bool) -> Option<AppIndex> {
        let apps = self.order.iter().map(|(_, _, app)| *app);
        let mut able = apps.take_while(|app| self.may_start(*app, places));
        able.find(|app| may(*app))
    }

    /// An app that has many requests under way leaves places to those that have few.
    pub(super) fn may_start(&self, app: AppIndex, places: usize) -> bool {
        leaves_places(self.held(app), self.free(places))
    }

    /// An app that has so few may have several requests under way to one target.
    pub(super) fn has_spare(&self, app: AppIndex, places: usize) -> bool {
        self.held(app) < self.free(places)
    }

    pub(super) fn began(&mut self, app: AppIndex) {
        self.in_flight += 1;
        let number = self.next_number();
        self.change(app, |it| {
            it.in_flight += 1;
            it.number = number;
        });
    }

    pub(super) fn ended(&mut self, app: AppIndex) {
        assert!(
            self.held(app) > 0,
            "an attempt of an app ended that nobody began"
        );
        self.in_flight -= 1;
        self.change(app, |it| it.in_flight -= 1);
    }

    fn held(&self, app: AppIndex) -> usize {
        self.apps.get(&app).map_or(0, |it| it.in_flight)
    }

    fn free(&self, places: usize) -> usize {
        places.saturating_sub(self.in_flight)
    }

    fn next_number(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    /// Changes an app and puts it where it belongs.
    fn change(&mut self, app: AppIndex, change: impl FnOnce(&mut AppTurns)) {
        let number = self.number;
        let it = self.apps.entry(app).or_insert_with(|| AppTurns {
            number,
            ..AppTurns::default()
        });
        self.order.remove(&(it.in_flight, it.number, app));
        change(it);
        if !it.lanes.is_empty() {
            self.order.insert((it.in_flight, it.number, app));
        } else if it.in_flight == 0 {
            self.apps.remove(&app);
        }
    }
}
