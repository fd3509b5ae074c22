//! Apps of a store that this node does not know: who asks, what is asked of the store, who is answered.
//! It decides, and does nothing: time comes in, errands go out.
//!
//! Owns: `Finder`, `Errand`; `look` is what becomes of apps that are known.
//! May depend on: `bridge::{apps, message}`, `shards::application` for ids.
//! Invariants: a name is asked of the store once at a time, however many ask for it; whoever asks is
//! answered, at the latest after `ANSWER_WITHIN`; a known app is never asked for because of a question, so
//! that strangers' questions delay nobody else's; an app is shown to clients only when all shards have it;
//! a store that is gone takes no app away.

mod look;

use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

use ahash::{AHashMap, AHashSet};
use shards::application::ShardId;

use super::{AppName, AppTable, askers::Askers, line::Line, watch::Watch};
use crate::bridge::message::{AppFound, AppWanted};

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Errand {
    /// Ask the store for one app; `found` takes the answer.
    Find(AppName),
    /// Ask the store for those of these ids that are there; `found_all` takes the answer.
    FindAll(Vec<Box<str>>),
    /// Tell a shard what became of its question.
    Answer {
        shard: ShardId,
        name: AppName,
        found: AppFound,
    },
    /// An app that has left will not come back.
    Forget(String),
}

/// How often apps are looked at again, and how much strangers may ask.
#[derive(Clone, Copy, Debug)]
pub struct FinderSettings {
    /// A change in the store is seen within this time.
    pub ttl: Duration,
    /// So long a name that the store does not know stays unknown.
    pub negative_ttl: Duration,
    /// Names that are not known may be asked of the store so often.
    pub unknown_per_s: u32,
    /// A store that nobody has asked for so long is asked whether it is there.
    pub ask_every: Duration,
    /// Questions for one app that the store takes at once, and how long it may take for one.
    pub places: usize,
    pub timeout: Duration,
}

#[derive(Debug)]
pub struct Finder {
    settings: FinderSettings,
    asked: AHashMap<AppName, Asked>,
    /// When the questions must be answered, in the order in which they came.
    deadlines: VecDeque<(Duration, AppName)>,
    absent: AHashMap<AppName, Duration>,
    /// The same in the order in which they end.
    fades: VecDeque<(Duration, AppName)>,
    /// Who asks often.
    askers: Askers,
    /// Questions that the store has, or will have when there is a place.
    line: Line,
    /// Apps that are to be looked at again.
    watch: Watch,
    /// Those of them that the process before knew, until they were looked at for the first time.
    inherited: AHashSet<Box<str>>,
    is_looking: bool,
    /// What is looked at is to be looked at once more.
    looks_again: bool,
    /// Apps that have left, by the time at which they are forgotten.
    leaving: VecDeque<(Duration, String)>,
    /// All shards have the changes up to this number.
    opened: u64,
    /// Answers that wait until all shards have a change.
    unopened: VecDeque<(u64, AppName)>,
    store: StoreState,
    /// When it answered last.
    heard_at: Duration,
    errands: VecDeque<Errand>,
    pub counters: FinderCounters,
}

/// For metrics: questions of shards, each counted once, whatever becomes of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FinderCounters {
    /// For an app that another shard had asked for, or asks for at the moment.
    pub hits: u64,
    /// For a name that the store did not know a moment ago.
    pub absent_hits: u64,
    pub known: u64,
    pub absent: u64,
    pub failed: u64,
    /// Questions that were not put to the store: there were too many for the node, or for the store.
    pub refused: u64,
    /// Questions that the store did not answer in time.
    pub late: u64,
}

#[derive(Debug, Default)]
struct Asked {
    shards: BTreeSet<u16>,
    until: Duration,
    /// The store is not asked: the app is on its way to the shards.
    is_known: bool,
}

/// How the store is, as far as is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StoreState {
    /// It has not answered yet.
    Unheard,
    Well,
    Failing,
}

/// After so long whoever asks is told to come back.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(4);
/// Apps that are looked at again with one question.
const LOOKED_AT_ONCE: usize = 256;
/// A store that fails is asked again so often.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Names that are asked for at one time, and names that are remembered as absent.
const NAMES_MAX: usize = 16_384;

impl FinderSettings {
    /// Half of the time of who asks is for waiting, the other half for the store.
    fn patience(&self) -> Duration {
        self.timeout.min(ANSWER_WITHIN) / 2
    }
}

impl Finder {
    /// Begins with a question, by which it is known whether the store is there.
    pub fn new(now: Duration, settings: FinderSettings) -> Self {
        Self {
            settings,
            asked: AHashMap::new(),
            deadlines: VecDeque::new(),
            absent: AHashMap::new(),
            fades: VecDeque::new(),
            askers: Askers::new(now, settings.unknown_per_s),
            line: Line::new(settings.places, settings.patience()),
            watch: Watch::default(),
            inherited: AHashSet::new(),
            is_looking: true,
            looks_again: false,
            leaving: VecDeque::new(),
            opened: 0,
            unopened: VecDeque::new(),
            store: StoreState::Unheard,
            heard_at: now,
            errands: [Errand::FindAll(Vec::new())].into(),
            counters: FinderCounters::default(),
        }
    }

    pub fn next_errand(&mut self) -> Option<Errand> {
        self.errands.pop_front()
    }

    pub fn reconfigure(&mut self, settings: FinderSettings) {
        self.settings = settings;
        self.line.resize(settings.places, settings.patience());
    }

    /// When somebody asked first for what is put to the store now, if he waits still.
    pub fn asked_at(&self, name: &AppName) -> Option<Duration> {
        let asked = self.asked.get(name)?;
        Some(asked.until.saturating_sub(ANSWER_WITHIN))
    }

    /// What was asked last was not answered.
    pub fn is_failing(&self) -> bool {
        self.store != StoreState::Well
    }

    /// A shard looks for an app. `latest` is the number of the latest change.
    pub fn ask(
        &mut self,
        now: Duration,
        (table, latest): (&AppTable, u64),
        shard: ShardId,
        AppWanted { name, address }: AppWanted,
    ) {
        if let Some(asked) = self.asked.get_mut(&name) {
            self.counters.hits += u64::from(asked.shards.insert(shard.0));
            return;
        }
        let known = match &name {
            AppName::Key(key) => table.by_key(key),
            AppName::Id(id) => table.by_id(id),
        };
        if known.is_some() {
            self.counters.hits += 1;
            if latest <= self.opened {
                return self.answer(shard, name, AppFound::Known);
            }
            // Another shard was first, and it may be on its way to some.
            self.unopened.push_back((latest, name.clone()));
            return self.await_answer(now, shard, name, true);
        }
        if let Some(until) = self.absent.get(&name).filter(|until| **until > now) {
            let for_ms = millis(*until - now);
            self.counters.absent_hits += 1;
            return self.answer(shard, name, AppFound::Absent { for_ms });
        }
        let rank = match self.asked.len() < NAMES_MAX {
            true => self.askers.ask(now, self.settings.unknown_per_s, address),
            false => None,
        };
        let Some(rank) = rank.filter(|rank| self.line.has_room(*rank)) else {
            self.counters.refused += 1;
            return self.answer(shard, name, AppFound::Unavailable);
        };
        self.line.enter(now, rank, name.clone());
        self.await_answer(now, shard, name, false);
        self.advance(now);
    }

    /// Puts to the store what there is a place for; who has waited too long is told to come back.
    fn advance(&mut self, now: Duration) {
        while let Some(name) = self.line.give_up(now) {
            self.counters.refused += self.is_waited_for(&name);
            self.answer_all(&name, AppFound::Unavailable);
        }
        while let Some(name) = self.line.put(now) {
            self.errands.push_back(Errand::Find(name));
        }
    }

    fn await_answer(&mut self, now: Duration, shard: ShardId, name: AppName, is_known: bool) {
        let (shards, until) = (BTreeSet::from([shard.0]), now + ANSWER_WITHIN);
        let asked = Asked {
            shards,
            until,
            is_known,
        };
        self.asked.insert(name.clone(), asked);
        self.deadlines.push_back((until, name));
    }

    fn hear(&mut self, now: Duration) {
        self.store = StoreState::Well;
        self.heard_at = now;
    }

    /// The store knows the app, and it is in the table with the change of this number.
    pub fn found(&mut self, now: Duration, name: &AppName, id: &str, number: u64) {
        self.hear(now);
        self.counters.known += self.is_waited_for(name);
        match self.line.leave(now, name) {
            true => self.watch.come_first(now, id),
            false => _ = self.watch.come(now + self.settings.ttl, id),
        }
        self.unopened.push_back((number, name.clone()));
        self.answer_opened();
        self.advance(now);
    }

    /// The store does not know the name.
    pub fn not_found(&mut self, now: Duration, name: &AppName) {
        self.hear(now);
        if self.line.leave(now, name) {
            if self.asked.contains_key(name) {
                self.line.put_again(now, name.clone());
                self.errands.push_back(Errand::Find(name.clone()));
            }
            return self.advance(now);
        }
        self.counters.absent += self.is_waited_for(name);
        let until = now + self.settings.negative_ttl;
        self.absent.insert(name.clone(), until);
        self.fades.push_back((until, name.clone()));
        let for_ms = millis(self.settings.negative_ttl);
        self.answer_all(name, AppFound::Absent { for_ms });
        self.advance(now);
    }

    /// The store could not be asked.
    pub fn failed(&mut self, now: Duration, name: &AppName) {
        if self.store == StoreState::Well {
            self.store = StoreState::Failing;
        }
        self.line.leave(now, name);
        self.counters.failed += self.is_waited_for(name);
        let again = now + AGAIN_AFTER;
        // Nobody may ask for long, and it is to be known when it is back.
        if !self.is_looking && self.watch.due().is_none_or(|due| due > again) {
            self.watch.probe(again);
        }
        self.answer_all(name, AppFound::Unavailable);
        self.advance(now);
    }

    /// 1, or 0 for an answer that came too late: its question was counted then.
    fn is_waited_for(&self, name: &AppName) -> u64 {
        u64::from(self.asked.contains_key(name))
    }

    /// All shards have the changes up to this number.
    pub fn opened(&mut self, number: u64) {
        self.opened = number;
        self.answer_opened();
    }

    fn answer_opened(&mut self) {
        while let Some((number, name)) = self.unopened.pop_front() {
            if number > self.opened {
                return self.unopened.push_front((number, name));
            }
            self.answer_all(&name, AppFound::Known);
        }
    }

    fn answer_all(&mut self, name: &AppName, found: AppFound) {
        let asked = self.asked.remove(name).unwrap_or_default();
        for shard in asked.shards {
            self.answer(ShardId(shard), name.clone(), found);
        }
    }

    fn answer(&mut self, shard: ShardId, name: AppName, found: AppFound) {
        self.errands
            .push_back(Errand::Answer { shard, name, found });
    }

    /// When `tick` is due.
    pub fn due(&self) -> Option<Duration> {
        let look = self.watch.due().filter(|_| !self.is_looking);
        let dues = [
            self.idle_until(),
            self.line.due(),
            self.deadlines.front().map(|(due, _)| *due),
            self.fades.front().map(|(due, _)| *due),
            self.leaving.front().map(|(due, _)| *due),
            look,
        ];
        dues.into_iter().flatten().min()
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Duration) {
        while let Some((due, name)) = self.deadlines.pop_front_if(|(due, _)| *due <= now) {
            // Answered questions leave their deadline behind; what is asked again has a later one.
            if let Some(asked) = self.asked.get(&name).filter(|it| it.until == due) {
                self.counters.late += u64::from(!asked.is_known);
                self.answer_all(&name, AppFound::Unavailable);
            }
        }
        self.advance(now);
        while let Some((_, name)) = self.fades.pop_front_if(|(due, _)| *due <= now) {
            self.absent.remove_entry(&name);
        }
        while self.fades.len() > NAMES_MAX {
            let oldest = self.fades.pop_front();
            self.absent.remove(&oldest.expect("there are more").1);
        }
        while let Some((_, id)) = self.leaving.pop_front_if(|(due, _)| *due <= now) {
            self.errands.push_back(Errand::Forget(id));
        }
        if !self.is_looking && self.watch.due().is_some_and(|due| due <= now) {
            let ids = self.watch.take(now, LOOKED_AT_ONCE);
            self.is_looking = true;
            self.errands.push_back(Errand::FindAll(ids));
        }
        if self.idle_until().is_some_and(|due| due <= now) {
            self.is_looking = true;
            self.errands.push_back(Errand::FindAll(Vec::new()));
        }
    }

    /// When a store is asked that was well and that nobody asks. One that fails is due anyway.
    fn idle_until(&self) -> Option<Duration> {
        let is_idle = !self.is_looking && self.store == StoreState::Well;
        is_idle.then(|| self.heard_at + self.settings.ask_every)
    }
}

/// Too long a time is as long as can be said.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bridge::fixture;

    pub(super) const SETTINGS: FinderSettings = FinderSettings {
        ttl: Duration::from_secs(300),
        negative_ttl: Duration::from_secs(10),
        unknown_per_s: 100,
        ask_every: Duration::from_secs(86_400),
        places: 1_000,
        timeout: Duration::from_secs(2),
    };

    pub(super) fn key(name: &str) -> AppName {
        AppName::Key(format!("key-{name}").into())
    }

    pub(super) fn wanted(name: AppName) -> AppWanted {
        let address = None;
        AppWanted { name, address }
    }

    pub(super) fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    pub(super) fn begun() -> Finder {
        let mut finder = Finder::new(at(0), SETTINGS);
        assert_eq!(errands(&mut finder), [Errand::FindAll(Vec::new())]);
        finder.looked_at(at(0), std::iter::empty());
        finder
    }

    pub(super) fn errands(finder: &mut Finder) -> Vec<Errand> {
        std::iter::from_fn(|| finder.next_errand()).collect()
    }

    pub(super) fn answer(shard: u16, name: &AppName, found: AppFound) -> Errand {
        Errand::Answer {
            shard: ShardId(shard),
            name: name.clone(),
            found,
        }
    }

    #[test]
    fn however_many_ask_the_store_is_asked_once_and_all_are_answered_when_all_shards_have_the_app()
    {
        let (mut finder, mut table) = (begun(), AppTable::default());
        let name = key("a");
        for shard in [2, 0, 2] {
            finder.ask(at(1), (&table, 0), ShardId(shard), wanted(name.clone()));
        }
        assert_eq!(errands(&mut finder), [Errand::Find(name.clone())]);
        table.put(&fixture::app("a"));
        finder.found(at(2), &name, "a", 7);
        finder.opened(6);
        assert_eq!(errands(&mut finder), [], "a shard has not taken it yet");
        finder.opened(7);
        let known = |shard| answer(shard, &name, AppFound::Known);
        assert_eq!(errands(&mut finder), [known(0), known(2)]);
        finder.ask(at(3), (&table, 7), ShardId(1), wanted(name.clone()));
        // While a change is on its way it may be this app.
        finder.ask(at(3), (&table, 8), ShardId(3), wanted(name.clone()));
        finder.opened(8);
        assert_eq!(
            errands(&mut finder),
            [known(1), known(3)],
            "the store is left in peace"
        );
    }

    #[test]
    fn what_is_absent_is_not_asked_for_again_for_a_while() {
        let (mut finder, table) = (begun(), AppTable::default());
        let name = key("nobody");
        finder.ask(at(1), (&table, 0), ShardId(0), wanted(name.clone()));
        finder.not_found(at(1), &name);
        let absent = |for_ms| answer(0, &name, AppFound::Absent { for_ms });
        let asked = Errand::Find(name.clone());
        assert_eq!(errands(&mut finder), [asked.clone(), absent(10_000)]);
        finder.ask(at(5), (&table, 0), ShardId(0), wanted(name.clone()));
        assert_eq!(errands(&mut finder), [absent(6_000)]);
        finder.tick(at(11));
        finder.ask(at(11), (&table, 0), ShardId(0), wanted(name.clone()));
        assert_eq!(errands(&mut finder), std::slice::from_ref(&asked));
        // Asked for by hand to look again, nothing counts as absent.
        finder.not_found(at(11), &name);
        finder.look_again(at(12));
        errands(&mut finder);
        finder.ask(at(12), (&table, 0), ShardId(0), wanted(name.clone()));
        assert_eq!(errands(&mut finder), [asked]);
    }

    #[test]
    fn strangers_ask_so_often_and_delay_nobody_whose_app_is_known() {
        let (mut finder, mut table) = (begun(), AppTable::default());
        table.put(&fixture::app("a"));
        let mut put_to_the_store = 0;
        for number in 0..1_000 {
            finder.ask(
                at(1),
                (&table, 0),
                ShardId(0),
                wanted(key(&format!("stranger-{number}"))),
            );
            put_to_the_store += errands(&mut finder)
                .iter()
                .filter(|errand| matches!(errand, Errand::Find(_)))
                .count();
        }
        assert_eq!(put_to_the_store, 200, "two seconds' worth");
        assert_eq!(finder.counters.refused, 800);
        finder.ask(at(1), (&table, 0), ShardId(0), wanted(key("a")));
        assert_eq!(
            errands(&mut finder),
            [answer(0, &key("a"), AppFound::Known)]
        );
        finder.ask(at(2), (&table, 0), ShardId(0), wanted(key("later")));
        assert_eq!(errands(&mut finder), [Errand::Find(key("later"))]);
    }

    #[test]
    fn who_asks_a_store_that_is_silent_or_gone_is_told_to_come_back() {
        let (mut finder, table) = (begun(), AppTable::default());
        let name = key("a");
        finder.ask(at(1), (&table, 0), ShardId(0), wanted(name.clone()));
        errands(&mut finder);
        assert_eq!(finder.due(), Some(at(1) + ANSWER_WITHIN));
        finder.tick(at(1) + ANSWER_WITHIN);
        let unavailable = answer(0, &name, AppFound::Unavailable);
        assert_eq!(errands(&mut finder), std::slice::from_ref(&unavailable));
        assert_eq!(finder.counters.late, 1);
        assert!(!finder.is_failing());
        finder.ask(at(6), (&table, 0), ShardId(0), wanted(name.clone()));
        assert_eq!(errands(&mut finder), [], "the store has it still");
        finder.failed(at(6), &name);
        assert_eq!(errands(&mut finder), [unavailable]);
        assert_eq!(finder.store, StoreState::Failing);
        // Whether it is back is found though nobody asks.
        finder.tick(at(7));
        assert_eq!(errands(&mut finder), [Errand::FindAll(Vec::new())]);
        finder.looked_at(at(7), std::iter::empty());
        assert!(!finder.is_failing());
    }

    #[test]
    fn a_flood_on_a_slow_store_keeps_no_other_question_waiting_and_is_no_sign_that_it_is_gone() {
        let (mut finder, table) = (begun(), AppTable::default());
        finder.reconfigure(FinderSettings {
            places: 3,
            ..SETTINGS
        });
        // In milliseconds: one place is free each 50, where strangers may ask each 10.
        let (now, takes) = (Duration::from_millis, 150);
        let (mut under_way, mut most) = (VecDeque::new(), 0);
        let (mut put, mut refused) = (0, 0);
        for ms in (1..=60_000).step_by(5) {
            while let Some((_, name)) = under_way.pop_front_if(|(until, _)| *until <= ms) {
                finder.not_found(now(ms), &name);
            }
            let flood = AppWanted {
                name: key(&format!("stranger-{ms}")),
                address: Some([192, 0, 2, 1].into()),
            };
            finder.ask(now(ms), (&table, 0), ShardId(0), flood);
            let real = AppWanted {
                name: key(&format!("real-{ms}")),
                address: Some([198, 51, 100, 1].into()),
            };
            if ms % 1_000 == 1 {
                finder.ask(now(ms), (&table, 0), ShardId(1), real);
            }
            finder.tick(now(ms));
            for errand in errands(&mut finder) {
                match errand {
                    Errand::Find(name) => {
                        put += 1;
                        under_way.push_back((ms + takes, name));
                    }
                    Errand::Answer { shard, found, .. } => {
                        let is_refused = found == AppFound::Unavailable;
                        assert!(shard == ShardId(0) || !is_refused, "real, at {ms} ms");
                        refused += u64::from(is_refused);
                    }
                    // One who looks is not in this line.
                    Errand::FindAll(ids) => finder.looked_at(now(ms), ids.into_iter()),
                    Errand::Forget(id) => panic!("{id} never was"),
                }
            }
            most = most.max(under_way.len());
            assert!(!finder.is_failing());
        }
        assert_eq!(most, 3);
        assert!((1_180..=1_200).contains(&put), "{put}: no place was idle");
        let FinderCounters { absent, late, .. } = finder.counters;
        assert_eq!((absent + 3, late), (put, 0), "what was put was answered");
        assert_eq!(refused, finder.counters.refused);
    }

    #[test]
    fn what_waits_for_a_place_was_asked_when_it_came() {
        let (mut finder, table) = (begun(), AppTable::default());
        finder.reconfigure(FinderSettings {
            places: 1,
            ..SETTINGS
        });
        for (second, name) in [(1, "a"), (2, "b")] {
            finder.ask(at(second), (&table, 0), ShardId(0), wanted(key(name)));
        }
        assert_eq!(errands(&mut finder), [Errand::Find(key("a"))]);
        finder.not_found(Duration::from_millis(2_500), &key("a"));
        let absent = answer(0, &key("a"), AppFound::Absent { for_ms: 10_000 });
        assert_eq!(errands(&mut finder), [absent, Errand::Find(key("b"))]);
        let asked_at = ["a", "b"].map(|name| finder.asked_at(&key(name)));
        assert_eq!(asked_at, [None, Some(at(2))]);
    }

    #[test]
    fn each_question_of_a_shard_is_counted_once_whatever_becomes_of_it() {
        let (mut finder, mut table) = (begun(), AppTable::default());
        let ask = |finder: &mut Finder, table: &AppTable, second, shard, name: &str| {
            finder.ask(at(second), (table, 0), ShardId(shard), wanted(key(name)));
        };
        // Two shards at once; one of them again, which it does not; a third one later.
        for shard in [0, 1, 1] {
            ask(&mut finder, &table, 1, shard, "a");
        }
        table.put(&fixture::app("a"));
        finder.found(at(1), &key("a"), "a", 0);
        ask(&mut finder, &table, 1, 2, "a");
        // Not there, and not there a moment ago.
        ask(&mut finder, &table, 1, 0, "nobody");
        finder.not_found(at(1), &key("nobody"));
        ask(&mut finder, &table, 1, 1, "nobody");
        // Answered too late, and not at all.
        ask(&mut finder, &table, 2, 0, "b");
        finder.tick(at(2) + ANSWER_WITHIN);
        finder.not_found(at(8), &key("b"));
        ask(&mut finder, &table, 9, 0, "c");
        finder.failed(at(9), &key("c"));
        // Nobody asked for what is looked at again.
        finder.tick(at(10));
        finder.look_failed(at(10), Vec::new());
        let expected = FinderCounters {
            hits: 2,
            absent_hits: 1,
            known: 1,
            absent: 1,
            failed: 1,
            refused: 0,
            late: 1,
        };
        assert_eq!(finder.counters, expected);
    }

    #[test]
    fn a_store_that_was_never_heard_is_asked_until_it_answers() {
        let mut finder = Finder::new(at(0), SETTINGS);
        errands(&mut finder);
        assert_eq!(finder.store, StoreState::Unheard);
        assert!(finder.is_failing());
        for second in 1..5 {
            finder.look_failed(at(second - 1), Vec::new());
            assert_eq!(finder.due(), Some(at(second)));
            finder.tick(at(second));
            assert_eq!(errands(&mut finder), [Errand::FindAll(Vec::new())]);
        }
        finder.looked_at(at(5), std::iter::empty());
        assert!(!finder.is_failing());
        assert_eq!(finder.due(), Some(at(5) + SETTINGS.ask_every));
    }

    #[test]
    fn a_store_that_nobody_asks_is_asked_whether_it_is_there() {
        let (mut finder, table) = (begun(), AppTable::default());
        finder.reconfigure(FinderSettings {
            ask_every: at(10),
            ..SETTINGS
        });
        let probe = || [Errand::FindAll(Vec::new())];
        finder.tick(at(9));
        assert_eq!(errands(&mut finder), []);
        assert_eq!(finder.due(), Some(at(10)));
        finder.tick(at(10));
        assert_eq!(errands(&mut finder), probe());
        finder.tick(at(30));
        assert_eq!(errands(&mut finder), [], "once at a time");
        finder.looked_at(at(30), std::iter::empty());
        // Any answer is one.
        finder.ask(at(35), (&table, 0), ShardId(0), wanted(key("nobody")));
        finder.not_found(at(35), &key("nobody"));
        errands(&mut finder);
        finder.tick(at(44));
        assert_eq!(errands(&mut finder), []);
        finder.tick(at(45));
        assert_eq!(errands(&mut finder), probe());
        // From then on it is asked each second, until it is back.
        finder.look_failed(at(47), Vec::new());
        assert!(finder.is_failing());
        finder.tick(at(48));
        assert_eq!(errands(&mut finder), probe());
        finder.looked_at(at(48), std::iter::empty());
        assert!(!finder.is_failing());
        assert_eq!(finder.due(), Some(at(58)));
    }
}
