//! Apps that this shard does not know: the bridge is asked once, while whoever wants them waits.
//!
//! Owns: `Lookups`: names that are asked for, who waits, and what was found missing.
//! May depend on: `bridge::{apps, message}`, `connection`, `http::{request, route}`.
//! Invariants: a request that names such an app is not looked at further until it is known whether
//! there is one; whoever waits is known to the bridge, which always answers; what is remembered as
//! missing is bounded, and never for long.

use std::collections::{BTreeMap, VecDeque};

use shards::{
    application::{Millis, Slot, Waiter},
    work::Work,
};

use super::{ServerTurn, ShardServer, apps::ShardApp};
use crate::{
    bridge::{
        apps::AppName,
        message::{AppFound, AppWanted, ToBridge},
    },
    connection::{pending::Pending, upgrade::Lookup},
    http::{request::Head, route::Route},
};

/// Names that are asked for at one time; beyond, the asker is told to come back.
const ASKED_MAX: usize = 1_024;
/// Names that are remembered as missing; beyond, the oldest goes.
const MISSING_MAX: usize = 4_096;
/// For so long a store that could not be asked is not asked again for the same name, and one that does not
/// know it at least.
const MISSING_MS_MIN: u64 = 1_000;
/// No store has longer names.
const NAME_BYTES_MAX: usize = 255;

/// What this shard asks for and what was not there. Empty where all apps are known from the start.
#[derive(Clone, Default)]
pub(super) struct Lookups {
    asked: BTreeMap<AppName, Vec<Waiter>>,
    missing: BTreeMap<AppName, (Missing, Millis)>,
    /// The same in the order in which they were found missing.
    fades: VecDeque<(AppName, Millis)>,
}

/// Why there is no app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Missing {
    /// The store says that there is none.
    Absent,
    /// It could not be asked.
    Unavailable,
}

impl Lookups {
    fn missing(&self, now: Millis, name: &AppName) -> Option<Missing> {
        if name.as_str().len() > NAME_BYTES_MAX {
            return Some(Missing::Absent); // Which need not be remembered.
        }
        let (missing, until) = self.missing.get(name)?;
        (*until > now).then_some(*missing)
    }

    /// What was missing may be there now.
    pub(super) fn forget_missing(&mut self) {
        self.missing.clear();
        self.fades.clear();
    }

    /// Nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.asked.is_empty()
    }

    fn note(&mut self, now: Millis, name: AppName, missing: Missing, for_ms: u64) {
        let until = now.plus(for_ms.max(MISSING_MS_MIN));
        self.missing.insert(name.clone(), (missing, until));
        self.fades.push_back((name, until));
        while let Some((name, until)) = self.fades.front()
            && (*until <= now || self.fades.len() > MISSING_MAX)
        {
            // It may have been found missing again since.
            if self.missing.get(name).is_some_and(|(_, at)| at == until) {
                self.missing.remove(name);
            }
            self.fades.pop_front();
        }
    }
}

impl ShardServer {
    /// Whether the request that names an app has to wait until it is known if there is one.
    pub(super) fn awaits_app(
        &mut self,
        turn: &mut impl ServerTurn,
        slot: Slot,
        head: &Head<'_>,
    ) -> bool {
        if !self.settings.asks_for_apps {
            return false;
        }
        let route = Route::of(head.raw_path, &self.settings.path_prefix);
        let (name, is_known) = match (&route, route.api_app()) {
            (Route::App { key }, _) => {
                let is_known = self.apps.by_key(key).is_some();
                (AppName::Key((&**key).into()), is_known)
            }
            (Route::UpApp { app }, _) => {
                (AppName::Id((&**app).into()), self.apps.by_id(app).is_some())
            }
            (_, Some(id)) => (AppName::Id(id.into()), self.apps.by_id(id).is_some()),
            (_, None) => return false,
        };
        if is_known || self.lookups.missing(turn.now(), &name).is_some() {
            return false;
        }
        let address = self.address_of_asker(slot, head);
        self.ask_for_app(turn, slot, AppWanted { name, address })
    }

    fn ask_for_app(&mut self, turn: &mut impl ServerTurn, slot: Slot, wanted: AppWanted) -> bool {
        turn.spend(Work::MESSAGE);
        let name = wanted.name.clone();
        if !self.lookups.asked.contains_key(&name) {
            let is_full = self.lookups.asked.len() == ASKED_MAX;
            let ask = ToBridge::FindApp(Box::new(wanted));
            if is_full || turn.to_bridge(ask).is_err() {
                let now = turn.now();
                self.lookups.note(now, name, Missing::Unavailable, 0);
                return false;
            }
        }
        *self.held(slot).pending() = Some(Pending::App);
        let waiter = self.await_answer(slot);
        self.lookups.asked.entry(name).or_default().push(waiter);
        true
    }

    /// The bridge says whether there is such an app; who waited goes on, each with its share of a turn.
    pub(super) fn on_app_found(
        &mut self,
        turn: &mut impl ServerTurn,
        name: AppName,
        found: AppFound,
    ) {
        let now = turn.now();
        let waiters = self.lookups.asked.remove(&name).unwrap_or_default();
        match found {
            AppFound::Known if self.leads_somewhere(&name) => {}
            // Asked again it would be found again.
            AppFound::Known => self.lookups.note(now, name, Missing::Unavailable, 0),
            AppFound::Absent { for_ms } => self.lookups.note(now, name, Missing::Absent, for_ms),
            AppFound::Unavailable => self.lookups.note(now, name, Missing::Unavailable, 0),
        }
        turn.spend(Work::ROW.times(waiters.len()));
        for waiter in waiters {
            if self.awaits(waiter) {
                self.answer_arrived(waiter.slot);
                self.queue_input(waiter.slot);
            }
        }
    }

    fn leads_somewhere(&self, name: &AppName) -> bool {
        match name {
            AppName::Key(key) => self.apps.by_key(key).is_some(),
            AppName::Id(id) => self.apps.by_id(id).is_some(),
        }
    }

    /// The node is about to end: nobody waits for the store any longer.
    pub(super) fn give_up_lookups(&mut self, turn: &mut impl ServerTurn) {
        let names: Vec<AppName> = self.lookups.asked.keys().cloned().collect();
        for name in names {
            self.on_app_found(turn, name, AppFound::Unavailable);
        }
    }

    /// What is known of a client's key.
    pub(super) fn look_up_key(&self, now: Millis, key: &str) -> Lookup<&ShardApp> {
        match self.apps.by_key(key) {
            Some(app) => Lookup::Known(app),
            None => self.not_known(now, || AppName::Key(key.into())),
        }
    }

    /// What is known of the app that the API's path names.
    pub(super) fn look_up_id(&self, now: Millis, id: &str) -> Lookup<&std::rc::Rc<ShardApp>> {
        match self.apps.by_id(id) {
            Some(app) => Lookup::Known(app),
            None => self.not_known(now, || AppName::Id(id.into())),
        }
    }

    fn not_known<T>(&self, now: Millis, name: impl FnOnce() -> AppName) -> Lookup<T> {
        if !self.settings.asks_for_apps {
            return Lookup::Absent;
        }
        match self.lookups.missing(now, &name()) {
            Some(Missing::Absent) => Lookup::Absent,
            Some(Missing::Unavailable) | None => Lookup::Unavailable,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_no_store_has_is_missing_though_nobody_was_asked_and_nothing_is_remembered() {
        let lookups = Lookups::default();
        for (bytes, missing) in [
            (NAME_BYTES_MAX - 1, None),
            (NAME_BYTES_MAX, None),
            (NAME_BYTES_MAX + 1, Some(Missing::Absent)),
        ] {
            let name = AppName::Key("k".repeat(bytes).into());
            assert_eq!(lookups.missing(Millis(0), &name), missing, "{bytes}");
        }
    }

    #[test]
    fn what_is_missing_is_remembered_for_a_while_and_within_its_bound() {
        let mut lookups = Lookups::default();
        let name = |number: usize| AppName::Key(number.to_string().into());
        for number in 0..2 * MISSING_MAX {
            lookups.note(Millis(0), name(number), Missing::Absent, 5_000);
        }
        assert_eq!(lookups.missing.len(), MISSING_MAX);
        assert_eq!(lookups.missing(Millis(0), &name(0)), None);
        let last = name(2 * MISSING_MAX - 1);
        assert_eq!(lookups.missing(Millis(4_999), &last), Some(Missing::Absent));
        assert_eq!(lookups.missing(Millis(5_000), &last), None);
        // Found missing again before it fades: the later word counts.
        lookups.note(Millis(4_000), last.clone(), Missing::Unavailable, 0);
        assert_eq!(
            lookups.missing(Millis(4_999), &last),
            Some(Missing::Unavailable)
        );
        lookups.note(Millis(5_001), name(0), Missing::Absent, 0);
        assert_eq!(
            lookups.missing.len(),
            1,
            "the others have faded, and it has"
        );
    }
}
