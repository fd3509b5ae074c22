//! The homes of all channels whose home is this shard: by name, by reference, by what is due next.
//!
//! Owns: the entries and their names, the heap of their deadlines, the bound of kept last events, the number of
//! occupied channels.
//! May depend on: `channel::{home, home_effect, kept, kept_order, names, roster, rows}`, plain ids. Not on
//! connections, queues, clocks.
//! Invariants: an entry exists iff somebody subscribes, an event is kept, or a deadline is pending;
//! each entry's next deadline is on the heap, or an earlier time; kept events stay within `kept_max`.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    sync::Arc,
};

use shards::application::{Millis, ShardId};

pub use super::kept_order::KeptMax;
use super::{
    home::{Elsewhere, Home, HomeRef, Join, JoinRefused, News, Rules},
    home_effect::HomeEffect,
    kept::Event,
    kept_order::KeptOrder,
    names::{NameHash, NameKey, Names},
    roster::Roster,
    rows::Rows,
};
use crate::protocol::{app::AppIndex, partition::Partition};

/// All channels whose home is this shard.
#[derive(Clone, Debug)]
pub struct HomeTable {
    pub(super) rows: Rows<Home>,
    names: Names,
    /// Deadlines of entries; may hold other times than an entry's `due_at`, and entries that are gone: as many
    /// of these in vain as there are entries, and some.
    due: BinaryHeap<Reverse<(Millis, HomeRef)>>,
    kept: KeptOrder,
    /// Numbers events as they are kept.
    kept_number: u64,
    kept_max: KeptMax,
    /// Homes with at least one subscription here.
    pub(super) occupied: usize,
    /// Other nodes are told what changes here.
    has_nodes: bool,
    /// Homes with news for them, each once.
    owing: VecDeque<HomeRef>,
}

/// An app with so few channels is walked by its names.
const SMALL_WALK: usize = 1_024;

/// Deadlines that may be in vain, beside one for each entry.
const DUE_IN_VAIN_MAX: usize = 64;

/// A part of a walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Walked {
    /// Rows looked at.
    pub rows: u32,
    /// Where the walk goes on; `None` when it is over.
    pub next: Option<u32>,
}

impl HomeTable {
    /// A table that keeps no more last events than `kept_max` allows.
    pub fn new(kept_max: KeptMax) -> Self {
        Self {
            rows: Rows::default(),
            names: Names::default(),
            due: BinaryHeap::new(),
            kept: KeptOrder::default(),
            kept_number: 0,
            kept_max,
            occupied: 0,
            has_nodes: false,
            owing: VecDeque::new(),
        }
    }

    /// From now on `next_news` has what other nodes are to be told.
    pub fn tell_nodes(&mut self) {
        self.has_nodes = true;
    }

    /// The channel's entry, made if it is not there.
    pub fn enter(&mut self, app: AppIndex, name: &Arc<str>, key: NameKey) -> HomeRef {
        if let Some(at) = self.find(app, name, key.hash) {
            return at;
        }
        let mut home = Home::new(app, name, key);
        if self.has_nodes {
            home.tell_nodes();
        }
        let at = HomeRef(self.rows.insert(home));
        self.names.insert(app, key.hash, at.0.index);
        at
    }

    /// The channel's entry, if it has one.
    pub fn find(&self, app: AppIndex, name: &str, hash: NameHash) -> Option<HomeRef> {
        let is_named = |row| matches!(self.rows.at(row), Some((_, home)) if *home.name == *name);
        let row = self.names.find(app, hash, is_named)?;
        self.rows.at(row).map(|(at, _)| HomeRef(at))
    }

    /// The entry behind a reference, if it is still that channel's.
    pub fn get(&self, at: HomeRef) -> Option<&Home> {
        self.rows.get(at.0)
    }

    /// The frame that tells of a presence channel's roster; see `Roster::frame`. `encode` gets the
    /// channel's name too.
    pub fn roster_frame(
        &mut self,
        at: HomeRef,
        encode: impl FnOnce(&str, &Roster) -> Arc<[u8]>,
    ) -> Option<Arc<[u8]>> {
        self.rows.get_mut(at.0)?.roster_frame(encode)
    }

    /// Walks channels of an app with subscribers, from `cursor` on (0 at first), until `rows_max` rows
    /// were looked at or `visit` says that it has enough. A channel that is occupied throughout is
    /// visited once, whatever comes and goes meanwhile: rows do not move.
    ///
    /// An app with fewer channels than that is walked by its names.
    pub fn walk(
        &self,
        app: AppIndex,
        cursor: u32,
        rows_max: u32,
        mut visit: impl FnMut(&Home) -> bool,
    ) -> Walked {
        let of_app = self.names.count(app);
        if of_app <= SMALL_WALK.max(rows_max as usize) {
            return self.walk_names(app, cursor, visit);
        }
        let end = self.rows.bound().min(cursor.saturating_add(rows_max));
        let mut row = cursor;
        let mut goes_on = true;
        while row < end && goes_on {
            if let Some((_, home)) = self.rows.at(row)
                && home.app == app
                && home.total() > 0
            {
                goes_on = visit(home);
            }
            row += 1;
        }
        let next = (row < self.rows.bound()).then_some(row);
        let rows = row - cursor;
        Walked { rows, next }
    }

    /// In the order of their rows, so that the walk may go on either way.
    fn walk_names(
        &self,
        app: AppIndex,
        cursor: u32,
        mut visit: impl FnMut(&Home) -> bool,
    ) -> Walked {
        let ahead = self.names.of_app(app).filter(|row| *row >= cursor);
        let mut ahead: Vec<u32> = ahead.collect();
        ahead.sort_unstable();
        let rows = u32::try_from(self.names.count(app)).unwrap_or(u32::MAX);
        let mut homes = ahead
            .into_iter()
            .filter_map(|row| Some((row, self.rows.at(row)?.1)));
        let full = homes.find(|(_, home)| home.total() > 0 && !visit(home));
        let next = full.map(|(row, _)| row + 1);
        Walked { rows, next }
    }

    /// Number of channels with subscribers here.
    pub fn occupied(&self) -> usize {
        self.occupied
    }

    /// Channels with an entry.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// True without any entry.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// About the bytes of the last events that are kept now; at most the bound.
    pub fn kept_bytes(&self) -> usize {
        self.kept.bytes()
    }

    /// Last events that are kept now; at most the bound.
    pub fn kept_events(&self) -> usize {
        self.kept.events()
    }

    /// Adds a subscription.
    ///
    /// # Errors
    /// The channel is full; the entry is unchanged (the caller still calls `release_if_idle`).
    pub fn join(
        &mut self,
        at: HomeRef,
        now: Millis,
        rules: &Rules,
        join: &Join,
        effects: &mut Vec<HomeEffect>,
    ) -> Result<(), JoinRefused> {
        let home = self
            .rows
            .get_mut(at.0)
            .expect("a join enters its home first");
        home.join(now, rules, join, effects)?;
        self.occupied += usize::from(home.subscriptions() == 1);
        self.note_news(at);
        self.arm(at);
        Ok(())
    }

    /// Takes over what other nodes have changed. `release_if_idle` follows once the effects are
    /// performed.
    pub fn change_elsewhere(
        &mut self,
        at: HomeRef,
        now: Millis,
        rules: &Rules,
        change: Elsewhere,
        effects: &mut Vec<HomeEffect>,
    ) {
        let home = self.rows.get_mut(at.0).expect("a change enters its home");
        home.change_elsewhere(now, rules, change, effects);
        self.arm(at);
    }

    /// Lists a home with news for other nodes.
    pub(super) fn note_news(&mut self, at: HomeRef) {
        let home = self.rows.get_mut(at.0).expect("the caller's home");
        list_news(&mut self.owing, home, at);
    }

    /// The next thing that other nodes are to be told, and of which channel: of each what is so by
    /// now. `release_if_idle` of the channel follows.
    pub fn next_news(&mut self) -> Option<(HomeRef, Option<News>)> {
        let at = *self.owing.front()?;
        let home = self.rows.get_mut(at.0).expect("a home with news is kept");
        let news = home.next_news();
        if !home.owes() {
            home.is_owing = false;
            self.owing.pop_front();
        }
        Some((at, news))
    }

    /// Somebody has news for other nodes.
    pub fn has_news(&self) -> bool {
        !self.owing.is_empty()
    }

    /// Notes whether a home is counted as a use of its topic; returns what changed.
    pub fn note_use(&mut self, at: HomeRef) -> Option<(Partition, bool)> {
        let home = self.rows.get_mut(at.0)?;
        let needs_topic = home.needs_topic();
        if home.uses_topic == needs_topic {
            return None;
        }
        home.uses_topic = needs_topic;
        Some((home.key.partition, needs_topic))
    }

    /// Takes a subscription away. `release_if_idle` follows once the effects are performed.
    pub fn leave(
        &mut self,
        at: HomeRef,
        now: Millis,
        rules: &Rules,
        from: ShardId,
        user_id: Option<&Arc<str>>,
        effects: &mut Vec<HomeEffect>,
    ) {
        let home = self.rows.get_mut(at.0).expect("who leaves has joined");
        home.leave(now, rules, from, user_id, effects);
        self.occupied -= usize::from(home.subscriptions() == 0);
        self.note_news(at);
        self.arm(at);
    }

    /// Keeps an event as the channel's last one.
    pub fn keep(&mut self, at: HomeRef, now: Millis, rules: &Rules, event: Event) {
        let home = self
            .rows
            .get_mut(at.0)
            .expect("an event is kept in an entered home");
        self.kept_number += 1;
        let before = home.keep(now, rules, event, self.kept_number);
        let (app, bytes) = (home.app, home.kept_bytes());
        let rows = &self.rows;
        let keeps = |at: HomeRef, number| rows.get(at.0).is_some_and(|it| it.keeps(number));
        let place = (at, self.kept_number);
        self.kept.keep(app, place, bytes, before, keeps);
        self.evict();
        self.arm(at);
        self.note_news(at);
    }

    /// Another node has answered what it has as the channel's last event, or no other has any: what is kept
    /// now is in no doubt. Without an entry, or an event in it, nothing happens.
    pub fn confirm_kept(&mut self, at: HomeRef, now: Millis) {
        if let Some(home) = self.rows.get_mut(at.0) {
            home.confirm_kept(now);
        }
    }

    /// The next entry with something due, if any.
    pub fn pop_due(&mut self, now: Millis) -> Option<HomeRef> {
        while let Some(Reverse((at_ms, at))) = self.due.peek().copied() {
            if at_ms > now {
                return None;
            }
            self.due.pop();
            let Some(home) = self.rows.get_mut(at.0) else {
                continue;
            };
            if home.due_at == Some(at_ms) {
                home.due_at = None;
                return Some(at);
            }
        }
        None
    }

    /// When `pop_due` next has something.
    pub fn next_due(&self) -> Option<Millis> {
        self.due.peek().map(|Reverse((at, _))| *at)
    }

    /// Does what is due in an entry that `pop_due` gave.
    pub fn settle(
        &mut self,
        at: HomeRef,
        now: Millis,
        rules: &Rules,
        effects: &mut Vec<HomeEffect>,
    ) {
        let home = self
            .rows
            .get_mut(at.0)
            .expect("pop_due gives entries that are there");
        let (app, expired) = (home.app, home.expire_kept(now));
        home.settle_later(now, rules, effects);
        if let Some(bytes) = expired {
            self.kept.forget(app, bytes);
        }
        self.arm(at);
        self.note_news(at);
    }

    /// Forgets an entry that nothing holds any more.
    pub fn release_if_idle(&mut self, at: HomeRef, now: Millis) {
        let Some(home) = self.rows.get(at.0) else {
            return;
        };
        if !home.is_idle(now) {
            return;
        }
        let home = self.rows.remove(at.0).expect("it was there a line ago");
        assert!(home.interests().is_empty(), "an idle home has no interest");
        self.names.remove(home.app, home.key.hash, at.0.index);
    }

    /// Puts the entry's next deadline on the heap, unless an earlier one is there.
    pub(super) fn arm(&mut self, at: HomeRef) {
        let Some(home) = self.rows.get_mut(at.0) else {
            return;
        };
        let Some(next) = home.next_deadline() else {
            return;
        };
        if home.due_at.is_none_or(|due_at| next < due_at) {
            home.due_at = Some(next);
            self.due.push(Reverse((next, at)));
            self.forget_undue();
        }
    }

    /// Drops what the heap of deadlines holds in vain: of entries that were evicted long before their time.
    fn forget_undue(&mut self) {
        // Half of the heap is in vain by then, so a walk costs each deadline a constant.
        if self.due.len() > 2 * self.rows.len() + DUE_IN_VAIN_MAX {
            let rows = &self.rows;
            let is_due = |at_ms, home: &Home| home.due_at == Some(at_ms);
            self.due
                .retain(|Reverse((at_ms, at))| rows.get(at.0).is_some_and(|it| is_due(*at_ms, it)));
        }
    }

    /// Drops kept events above the bound.
    fn evict(&mut self) {
        let rows = &mut self.rows;
        while let Some((at, number)) = self.kept.next_beyond(self.kept_max) {
            let Some(home) = rows.get_mut(at.0).filter(|home| home.keeps(number)) else {
                continue;
            };
            if let Some(bytes) = home.evict_kept() {
                self.kept.forget(home.app, bytes);
            }
            // At once too: the entry must not go before the other nodes were told.
            list_news(&mut self.owing, home, at);
            // Due at once, so that the entry is released when nothing else holds it.
            if home.due_at != Some(Millis(0)) {
                home.due_at = Some(Millis(0));
                self.due.push(Reverse((Millis(0), at)));
            }
        }
        self.forget_undue();
    }
}

/// Lists a home with news for other nodes, once.
fn list_news(owing: &mut VecDeque<HomeRef>, home: &mut Home, at: HomeRef) {
    if home.owes() && !home.is_owing {
        home.is_owing = true;
        owing.push_back(at);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::{
        super::{
            home::tests::{APP, RULES, counted, join_from},
            home_effect::tests::words,
            kept::tests::event,
            names::tests::key,
        },
        *,
    };

    fn enter(table: &mut HomeTable, app: AppIndex, name: &str) -> HomeRef {
        table.enter(app, &name.into(), key(name))
    }

    fn find(table: &HomeTable, name: &str) -> Option<HomeRef> {
        table.find(APP, name, key(name).hash)
    }

    fn at_most(events: usize) -> KeptMax {
        let bytes = 1 << 20;
        KeptMax { events, bytes }
    }

    #[test]
    fn kept_events_are_bounded_by_their_bytes_too_and_the_oldest_goes() {
        let bytes = 3 * 10_512;
        let mut table = HomeTable::new(KeptMax { events: 100, bytes });
        let mut kept = Vec::new();
        for (number, frame_bytes) in [10_000, 10_000, 10_000, 10_000, 20_000]
            .into_iter()
            .enumerate()
        {
            let at = enter(&mut table, APP, &format!("cache-{number}"));
            let frame = vec![b'x'; frame_bytes].into();
            let event = Event {
                frame,
                data_start: 0,
                data_bytes: 0,
            };
            table.keep(at, Millis(0), &RULES, event);
            kept.push((table.kept_events(), table.kept_bytes()));
        }
        let of = |events: usize, bytes: usize| (events, events * 512 + bytes);
        let expected = [
            of(1, 10_000),
            of(2, 20_000),
            of(3, 30_000),
            of(3, 30_000),
            of(2, 30_000),
        ];
        assert_eq!(kept, expected);
        settle(&mut table, u64::MAX / 2);
        assert_eq!(
            (table.kept_events(), table.kept_bytes(), table.len()),
            (0, 0, 0)
        );
    }

    #[test]
    fn of_kept_events_the_app_that_has_the_most_loses_its_oldest() {
        let other = AppIndex(APP.0 + 1);
        for most in [
            at_most(10),
            KeptMax {
                events: 100,
                bytes: 10 * 513,
            },
        ] {
            let mut table = HomeTable::new(most);
            let quiet = enter(&mut table, other, "cache-prices");
            table.keep(quiet, Millis(0), &RULES, event(0));
            let flood: Vec<HomeRef> = (1..=200)
                .map(|number| {
                    let at = enter(&mut table, APP, &format!("cache-{number}"));
                    table.keep(at, Millis(0), &RULES, event(number));
                    at
                })
                .collect();
            assert_eq!(table.kept_events(), 10, "{most:?}");
            let keeps = |table: &HomeTable, at: HomeRef| {
                let home = table.get(at).expect("it is there");
                home.kept(Millis(0)).is_some()
            };
            assert!(keeps(&table, quiet), "{most:?}");
            let kept = flood.iter().filter(|at| keeps(&table, **at)).count();
            assert_eq!(kept, 9, "{most:?}");
            assert!(
                flood[191..].iter().all(|at| keeps(&table, *at)),
                "the newest"
            );
            settle(&mut table, u64::MAX / 2);
            assert_eq!(
                (table.kept_events(), table.kept_bytes(), table.len()),
                (0, 0, 0)
            );
        }
    }

    fn settle(table: &mut HomeTable, now: u64) -> Vec<HomeEffect> {
        let mut effects = Vec::new();
        while let Some(at) = table.pop_due(Millis(now)) {
            table.settle(at, Millis(now), &RULES, &mut effects);
            table.release_if_idle(at, Millis(now));
        }
        effects
    }

    #[test]
    fn vacating_is_told_after_the_grace_and_not_before() {
        for (now, told, entries) in [
            (3_009, vec![], 1),
            (3_010, vec!["hook vacated"], 0),
            (3_011, vec!["hook vacated"], 0),
        ] {
            let mut table = HomeTable::new(at_most(100));
            let at = enter(&mut table, APP, "news");
            let mut effects = Vec::new();
            let join = join_from(0, None);
            let joined = table.join(at, Millis(0), &RULES, &join, &mut effects);
            joined.expect("there is room");
            table.leave(at, Millis(10), &RULES, ShardId(0), None, &mut effects);
            table.release_if_idle(at, Millis(10));
            assert_eq!(words(&settle(&mut table, now)), told, "at {now} ms");
            assert_eq!(table.len(), entries, "entries at {now} ms");
        }
    }

    #[test]
    fn a_kept_event_alone_holds_its_entry_until_its_time_is_over() {
        let mut table = HomeTable::new(at_most(100));
        let at = enter(&mut table, APP, "cache-prices");
        table.keep(at, Millis(0), &RULES, event(7));
        settle(&mut table, 999);
        assert_eq!((table.len(), table.kept_events()), (1, 1));
        settle(&mut table, 1_000);
        assert_eq!((table.len(), table.kept_events()), (0, 0));
    }

    #[test]
    fn the_event_that_was_kept_longest_ago_is_evicted_first() {
        let mut table = HomeTable::new(at_most(2));
        let mut keep = |now, name: &str| {
            let at = enter(&mut table, APP, name);
            table.keep(at, Millis(now), &RULES, event(0));
            let kept = |name| {
                let home = table.get(find(&table, name)?)?;
                home.kept(Millis(now)).map(|_| name)
            };
            ["cache-a", "cache-b", "cache-c"]
                .into_iter()
                .filter_map(kept)
                .collect::<Vec<_>>()
        };
        assert_eq!(keep(0, "cache-a"), ["cache-a"]);
        assert_eq!(keep(1, "cache-b"), ["cache-a", "cache-b"]);
        assert_eq!(keep(2, "cache-a"), ["cache-a", "cache-b"], "kept anew");
        assert_eq!(keep(3, "cache-c"), ["cache-a", "cache-c"]);
        for now in 4..2_000 {
            keep(now, "cache-c");
        }
        assert!(table.kept.places() <= 2 * 2 + 65, "the order is bounded");
        settle(&mut table, 2_000);
        assert_eq!((table.len(), table.kept_events()), (1, 1));
        settle(&mut table, 3_000);
        assert!(table.is_empty());
    }

    #[test]
    fn an_event_that_was_evicted_long_before_its_time_leaves_no_deadline() {
        let mut table = HomeTable::new(at_most(2));
        let rules = Rules {
            kept_ms: 1_800_000,
            ..RULES
        };
        for number in 0..10_000 {
            let at = enter(&mut table, APP, &format!("cache-{number}"));
            table.keep(at, Millis(number), &rules, event(0));
            settle(&mut table, number);
            assert!(table.due.len() <= 2 * 3 + 65, "{}", table.due.len());
        }
        assert_eq!((table.len(), table.kept_events()), (2, 2));
        settle(&mut table, 2_000_000);
        assert_eq!((table.len(), table.due.len()), (0, 0));
    }

    #[test]
    fn other_nodes_are_told_of_an_evicted_event_though_its_channel_is_left_at_once() {
        let mut table = HomeTable::new(at_most(1));
        table.tell_nodes();
        let keep = |table: &mut HomeTable, now, name| {
            let at = enter(table, APP, name);
            table.keep(at, Millis(now), &RULES, event(0));
            at
        };
        let first = keep(&mut table, 1, "cache-a");
        let told = |table: &mut HomeTable| {
            let mut told = Vec::new();
            while let Some((at, news)) = table.next_news() {
                told.extend(news.map(|news| (at, news)));
            }
            told
        };
        assert_eq!(told(&mut table), [(first, News::EventKept(true))]);
        let second = keep(&mut table, 2, "cache-b");
        table.release_if_idle(first, Millis(2));
        let expected = [
            (second, News::EventKept(true)),
            (first, News::EventKept(false)),
        ];
        let mut news = told(&mut table);
        news.sort_by_key(|(at, _)| *at != second);
        assert_eq!(news, expected);
        table.release_if_idle(first, Millis(2));
        assert_eq!(find(&table, "cache-a"), None);
    }

    #[test]
    fn a_walk_of_few_channels_stops_where_it_has_enough_and_goes_on_there() {
        let mut table = HomeTable::new(at_most(2));
        for number in 0..100 {
            let app = AppIndex(number % 2);
            let at = enter(&mut table, app, &format!("channel-{number}"));
            let mut effects = Vec::new();
            let joined = table.join(at, Millis(0), &RULES, &join_from(0, None), &mut effects);
            joined.expect("there is room");
        }
        let (mut cursor, mut seen) = (0, Vec::new());
        let mut slices = 0;
        loop {
            let mut left = 9;
            let walked = table.walk(APP, cursor, 1_000, |home| {
                seen.push(home.name.to_string());
                left -= 1;
                left > 0
            });
            slices += 1;
            let Some(next) = walked.next else { break };
            cursor = next;
        }
        let wanted: Vec<String> = (0..50).map(|it| format!("channel-{}", 2 * it)).collect();
        assert_eq!((seen, slices), (wanted, 6));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Join(u16, u8),
        Leave(usize),
        Keep,
        Wait(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0_u16..3, 0_u8..4).prop_map(|(shard, user)| Step::Join(shard, user)),
            3 => any::<prop::sample::Index>().prop_map(|it| Step::Leave(it.index(64))),
            1 => Just(Step::Keep),
            2 => (1_u64..4_000).prop_map(Step::Wait),
        ]
    }

    /// What webhooks and members are told, each of which alternates.
    #[derive(Default)]
    struct Told(BTreeMap<String, bool>);

    impl Told {
        fn hear(&mut self, effects: &[HomeEffect]) {
            for word in words(effects) {
                let (thing, is_there) = match word.as_str() {
                    "hook occupied" => ("hook".to_owned(), true),
                    "hook vacated" => ("hook".to_owned(), false),
                    "occupied" => ("channel".to_owned(), true),
                    "vacant" => ("channel".to_owned(), false),
                    other if other.contains('+') => (other.replace('+', ""), true),
                    other if other.contains('-') => (other.replace('-', ""), false),
                    _ => continue,
                };
                let before = self.0.insert(thing, is_there).unwrap_or(false);
                assert_ne!(before, is_there, "{word} twice in a row");
            }
        }
    }

    proptest! {
        #[test]
        fn comings_and_goings_alternate_and_leave_nothing_behind(
            steps in prop::collection::vec(step(), 1..80)
        ) {
            let mut table = HomeTable::new(at_most(4));
            let name: Arc<str> = "presence-cache-room".into();
            let (mut now, mut there, mut told) = (0, Vec::new(), Told::default());
            for step in steps {
                let mut effects = Vec::new();
                match step {
                    Step::Join(shard, user) => {
                        let at = enter(&mut table, APP, &name);
                        let join = join_from(shard, Some(&format!("u{user}")));
                        if table.join(at, Millis(now), &RULES, &join, &mut effects).is_ok() {
                            there.push((shard, user));
                        } else {
                            table.release_if_idle(at, Millis(now));
                        }
                    }
                    Step::Leave(choice) if !there.is_empty() => {
                        let (shard, user) = there.swap_remove(choice % there.len());
                        let at = find(&table, &name).expect("somebody subscribes");
                        let (from, user) = (ShardId(shard), Arc::from(format!("u{user}")));
                        table.leave(at, Millis(now), &RULES, from, Some(&user), &mut effects);
                        table.release_if_idle(at, Millis(now));
                    }
                    Step::Keep => {
                        let at = enter(&mut table, APP, &name);
                        table.keep(at, Millis(now), &RULES, event(1));
                    }
                    Step::Leave(_) => {}
                    Step::Wait(ms) => now += ms,
                }
                told.hear(&effects);
                told.hear(&settle(&mut table, now));
                prop_assert_eq!(table.occupied(), usize::from(!there.is_empty()));
                let Some(home) = find(&table, &name).and_then(|at| table.get(at)) else {
                    prop_assert!(there.is_empty());
                    continue;
                };
                let is_in_time = |next| home.due_at.is_some_and(|due_at| due_at <= next);
                prop_assert!(home.next_deadline().is_none_or(is_in_time), "{:?}", home);
                prop_assert_eq!(home.subscriptions() as usize, there.len());
                prop_assert_eq!(counted(home) as usize, there.len());
                let shards: std::collections::BTreeSet<_> = there.iter().map(|it| it.0).collect();
                let users: std::collections::BTreeSet<_> = there.iter().map(|it| it.1).collect();
                prop_assert_eq!(home.interests().len(), shards.len());
                prop_assert_eq!(home.users(), users.len());
            }
            for (shard, user) in there {
                let at = find(&table, &name).expect("somebody subscribes");
                let (from, user) = (ShardId(shard), Arc::from(format!("u{user}")));
                let mut effects = Vec::new();
                table.leave(at, Millis(now), &RULES, from, Some(&user), &mut effects);
                told.hear(&effects);
            }
            told.hear(&settle(&mut table, now + 20_000));
            prop_assert!(told.0.values().all(|is_there| !is_there), "{:?}", told.0);
            prop_assert!(table.is_empty() && table.next_due().is_none());
        }
    }
}
