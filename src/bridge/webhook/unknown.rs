//! Apps and targets of waiting jobs that this node does not know: who looks for them, and when nobody will come.
//!
//! Owns: `Unknown`.
//! May depend on: `bridge::{log_limit, queue}`. Time is an argument; the store of apps is asked elsewhere.
//! Invariants: nothing is given up that was not unknown here for a minute; where apps are in a store, nothing
//! before the store has said so behind that minute: one that does not answer takes no job away.

use std::collections::{BTreeMap, BTreeSet};

use shards::application::Millis;

use crate::bridge::{log_limit::LogLimit, queue::TargetName};

#[derive(Debug)]
pub(super) struct Unknown {
    /// A store may have apps that this node has not heard of.
    pub(super) asks_store: bool,
    /// By app, and by target where one is named: at most `SIGHTS_MAX`.
    sights: BTreeMap<(Box<str>, Option<TargetName>), Sight>,
    /// Apps of which the store is to be asked: at most `WANTED_MAX`.
    wanted: BTreeSet<Box<str>>,
    told: LogLimit,
}

/// Since when something is not known, as far as jobs of it are seen.
#[derive(Clone, Copy, Debug)]
struct Sight {
    first: Millis,
    last: Millis,
    /// When the store of apps has answered last.
    answered: Option<Millis>,
}

/// What a node does not know may be known to others, whose configuration is newer or older; after so long its
/// jobs are given up. An answer of the store counts as long.
pub(super) const UNKNOWN_MS: u64 = 60_000;
const SIGHTS_MAX: usize = 4_096;
/// Apps that are looked for at once.
const WANTED_MAX: usize = 256;

impl Sight {
    /// It is unknown for good.
    fn is_over(&self, asks_store: bool, now: Millis) -> bool {
        let enough = self.first.plus(UNKNOWN_MS);
        let is_said = |at: Millis| at >= enough && now.since(at) < UNKNOWN_MS;
        now >= enough && (!asks_store || self.answered.is_some_and(is_said))
    }
}

impl Unknown {
    pub(super) fn new() -> Self {
        Self {
            asks_store: false,
            sights: BTreeMap::new(),
            wanted: BTreeSet::new(),
            told: LogLimit::once_a_minute(),
        }
    }

    /// Here is a job of an app that is not known, or has no such target; the store is asked for it. True if nobody
    /// will know it.
    pub(super) fn is_over(
        &mut self,
        app_id: &str,
        target: Option<TargetName>,
        now: Millis,
    ) -> bool {
        if self.asks_store && self.wanted.len() < WANTED_MAX {
            self.wanted.insert(app_id.into());
        }
        let is_seen = |it: &Sight| now.since(it.last) < UNKNOWN_MS;
        let new = Sight {
            first: now,
            last: now,
            answered: None,
        };
        let name = (app_id.into(), target);
        if let Some(sight) = self.sights.get_mut(&name) {
            match is_seen(sight) {
                true => sight.last = now,
                false => *sight = new,
            }
            return sight.is_over(self.asks_store, now);
        }
        if self.sights.len() >= SIGHTS_MAX {
            self.sights.retain(|_, it| is_seen(it));
        }
        if self.sights.len() < SIGHTS_MAX {
            self.sights.insert(name, new);
        }
        false
    }

    /// The store has said that it has no such app, or how that app is now.
    pub(super) fn store_said(&mut self, app_id: &str, now: Millis) {
        let from = (Box::from(app_id), None);
        let its = self.sights.range_mut(from..);
        for (_, sight) in its.take_while(|((id, _), _)| **id == *app_id) {
            sight.answered = Some(now);
        }
    }

    pub(super) fn take_wanted(&mut self) -> BTreeSet<Box<str>> {
        std::mem::take(&mut self.wanted)
    }

    /// Says in the log that jobs were given up.
    pub(super) fn tell(&mut self, app_id: &str, now: Millis) {
        if let Some(suppressed) = self.told.allow(now) {
            tracing::warn!(
                app_id,
                suppressed,
                "webhooks whose app or target is there no more are given up (gone)"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::*;

    const WAITS: bool = false;
    const OVER: bool = true;

    fn target(number: usize) -> TargetName {
        TargetName::of("a", "http://127.0.0.1:9", number)
    }

    #[test]
    fn what_is_unknown_is_left_to_others_for_a_minute_from_its_first_sight_on() {
        let mut unknown = Unknown::new();
        for (at, name, over) in [
            (1_000, target(0), WAITS),
            (60_999, target(0), WAITS),
            (60_999, target(1), WAITS),
            (61_000, target(0), OVER),
            (62_000, target(0), OVER),
            (62_000, target(1), WAITS),
            // It was known meanwhile, or others had it: the minute begins anew.
            (122_000, target(0), WAITS),
            (181_999, target(0), WAITS),
            (182_000, target(0), OVER),
        ] {
            let is_over = unknown.is_over("a", Some(name), Millis(at));
            assert_eq!(is_over, over, "{at}");
        }
        assert!(unknown.take_wanted().is_empty(), "all apps are known");
    }

    #[test]
    fn a_store_of_apps_that_may_know_it_has_to_say_that_it_does_not() {
        let mut unknown = Unknown::new();
        unknown.asks_store = true;
        let mut sees = |said: Option<u64>, at: u64, over: bool| {
            if let Some(said) = said {
                unknown.store_said("a", Millis(said));
                unknown.store_said("aa", Millis(said));
            }
            for name in [None, Some(target(0))] {
                assert_eq!(unknown.is_over("a", name, Millis(at)), over, "{at}");
            }
            assert_eq!(unknown.take_wanted(), BTreeSet::from(["a".into()]), "{at}");
        };
        sees(None, 1_000, WAITS);
        // It may have got the app since.
        sees(Some(1_001), 31_000, WAITS);
        sees(None, 61_000, WAITS);
        // It does not answer for minutes.
        for minute in 2..6 {
            sees(None, minute * 59_000, WAITS);
        }
        sees(Some(300_000), 300_000, OVER);
        sees(None, 359_999, OVER);
        sees(None, 360_000, WAITS);
        sees(Some(360_001), 360_002, OVER);
    }

    #[test]
    fn an_answer_for_one_app_is_none_for_its_neighbours() {
        let mut unknown = Unknown::new();
        unknown.asks_store = true;
        let sees = |unknown: &mut Unknown, at| {
            ["a", "b", "c"].map(|app| unknown.is_over(app, Some(target(0)), Millis(at)))
        };
        assert_eq!(sees(&mut unknown, 0), [WAITS; 3]);
        assert_eq!(sees(&mut unknown, 59_999), [WAITS; 3]);
        unknown.store_said("b", Millis(60_000));
        assert_eq!(sees(&mut unknown, 60_000), [WAITS, OVER, WAITS]);
    }

    #[test]
    fn what_is_remembered_and_asked_for_has_a_bound_and_nothing_is_given_up_beyond_it() {
        let mut unknown = Unknown::new();
        unknown.asks_store = true;
        let mut sees = |at: u64, numbers: Range<usize>| {
            let mut all = numbers.map(|number| number.to_string());
            let over = all.any(|app| unknown.is_over(&app, None, Millis(at)));
            assert!(!over, "{at}");
            (unknown.sights.len(), unknown.take_wanted().len())
        };
        let (first, others) = (0..SIGHTS_MAX, SIGHTS_MAX..SIGHTS_MAX + WANTED_MAX + 1);
        assert_eq!(sees(0, first), (SIGHTS_MAX, WANTED_MAX));
        let noted = sees(59_999, others.clone());
        assert_eq!(noted, (SIGHTS_MAX, WANTED_MAX), "there is no room for them");
        let noted = sees(60_000, others);
        assert_eq!(
            noted,
            (WANTED_MAX + 1, WANTED_MAX),
            "the first were not seen since"
        );
    }
}
