//! A channel's home: the node's only truth about that channel.
//!
//! Owns: interested shards, subscription count, presence roster, last event of a cache channel, and
//! the deadlines of webhooks and counts.
//! May depend on: `channel::{roster, rows}`, `protocol`, plain ids. Not on connections, queues, clocks.
//! Invariants: the subscription count is the sum of the interests' counts; a shard is interested iff
//! its count is > 0; occupied and vacated alternate, member added and removed alternate per user;
//! an entry exists iff somebody subscribes, an event is kept, or a deadline is pending.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    sync::Arc,
};

use shards::application::{Millis, ShardId};
use smallvec::SmallVec;

use super::{
    local::LocalRef,
    names::Names,
    roster::{Change, Member, Roster},
    rows::{RowRef, Rows},
};
use crate::protocol::{app::AppIndex, name::ChannelKind};

/// Points at a home entry from other shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HomeRef(pub RowRef);

/// All channels whose home is this shard.
#[derive(Debug)]
pub struct HomeTable {
    rows: Rows<Home>,
    names: Names,
    due: BinaryHeap<Reverse<(Millis, HomeRef)>>,
    /// Homes and the numbers of their kept events, oldest first; may name some that are replaced
    /// or gone.
    kept_order: VecDeque<(HomeRef, u64)>,
    kept: usize,
    /// Numbers events as they are kept.
    kept_number: u64,
    kept_max: usize,
    /// Homes with at least one subscription.
    occupied: usize,
}

/// One channel.
#[derive(Debug)]
pub struct Home {
    pub app: AppIndex,
    pub name: Arc<str>,
    pub kind: ChannelKind,
    interests: SmallVec<[Interest; 1]>,
    subscriptions: u32,
    roster: Option<Box<Roster>>,
    kept: Option<Box<Kept>>,
    later: Option<Box<Later>>,
    /// When the entry is next looked at; the heap may hold older times, which are ignored.
    due_at: Option<Millis>,
}

/// The bound of a channel's row at its home; an idle channel has no more than this and its name.
const ROW_BYTES_MAX: usize = 120;
const _: () = assert!(size_of::<Home>() <= ROW_BYTES_MAX);

/// A shard that has subscribers of this channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interest {
    pub shard: ShardId,
    pub local: LocalRef,
    count: u32,
}

/// An encoded event: its WebSocket frame, and where in it the JSON string token of `data` stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub frame: Arc<[u8]>,
    pub data_start: u32,
    pub data_bytes: u32,
}

/// A cache channel's last event.
#[derive(Debug)]
struct Kept {
    event: Event,
    expires_at: Millis,
    number: u64,
}

/// What has to happen later; boxed since most channels have nothing of it.
#[derive(Debug, Default)]
struct Later {
    vacate_at: Option<Millis>,
    departures: Vec<(Arc<str>, Millis)>,
    miss_quiet_until: Millis,
    count_at: Option<Millis>,
    count_quiet_until: Millis,
}

/// What the app's settings mean for a channel.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Users of a presence channel at most.
    pub members_max: u32,
    /// Send `subscription_count` frames.
    pub count_frames: bool,
    pub hook_occupancy: bool,
    pub hook_members: bool,
    pub hook_counts: bool,
    pub hook_misses: bool,
    /// Life of a kept event.
    pub kept_ms: u64,
    /// How long `channel_vacated` and `member_removed` webhooks wait for a return.
    pub grace_ms: u64,
}

/// Someone wants to subscribe.
#[derive(Clone, Debug)]
pub struct Join {
    pub from: ShardId,
    pub local: LocalRef,
    /// Who it is, on a presence channel.
    pub member: Option<Member>,
}

/// What a step of a home asks for, in this order.
#[derive(Debug, PartialEq)]
pub enum HomeEffect {
    /// The answer to the joiner.
    Joined(Joined),
    /// A frame for all subscribers.
    Announce(Announcement),
    /// An event for the app's webhooks.
    Hook(Hook),
    /// The first subscription came.
    Occupied,
    /// The last subscription went.
    Vacant,
}

/// A subscription that succeeded.
#[derive(Clone, Debug, PartialEq)]
pub struct Joined {
    pub home: HomeRef,
    /// The roster's JSON, on a presence channel.
    pub snapshot: Option<Arc<str>>,
    pub last: LastEvent,
}

/// What a cache channel has for a newcomer.
#[derive(Clone, Debug, PartialEq)]
pub enum LastEvent {
    NotCached,
    Miss,
    Hit(Event),
}

/// Why a home refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinRefused {
    /// The presence channel has as many users as it may.
    ChannelFull,
}

/// A frame that the home makes itself.
#[derive(Clone, Debug, PartialEq)]
pub enum Announcement {
    MemberAdded(Member),
    MemberRemoved { user_id: Arc<str> },
    SubscriptionCount(u32),
}

/// An event for webhooks.
#[derive(Clone, Debug, PartialEq)]
pub enum Hook {
    ChannelOccupied,
    ChannelVacated,
    MemberAdded { user_id: Arc<str> },
    MemberRemoved { user_id: Arc<str> },
    CacheMiss,
    SubscriptionCount(u32),
}

impl HomeTable {
    /// A table that keeps at most `kept_max` last events.
    pub fn new(kept_max: usize) -> Self {
        Self {
            rows: Rows::default(),
            names: Names::default(),
            due: BinaryHeap::new(),
            kept_order: VecDeque::new(),
            kept: 0,
            kept_number: 0,
            kept_max: kept_max.max(1),
            occupied: 0,
        }
    }

    /// The channel's entry, made if it is not there.
    pub fn enter(&mut self, app: AppIndex, name: &Arc<str>) -> HomeRef {
        if let Some(at) = self.find(app, name) {
            return at;
        }
        let at = HomeRef(self.rows.insert(Home {
            app,
            name: Arc::clone(name),
            kind: ChannelKind::of(name),
            interests: SmallVec::new(),
            subscriptions: 0,
            roster: None,
            kept: None,
            later: None,
            due_at: None,
        }));
        self.names.insert(app, name, at.0.index);
        at
    }

    /// The channel's entry, if it has one.
    pub fn find(&self, app: AppIndex, name: &str) -> Option<HomeRef> {
        let is_named = |row| matches!(self.rows.at(row), Some((_, home)) if *home.name == *name);
        let row = self.names.find(app, name, is_named)?;
        self.rows.at(row).map(|(at, _)| HomeRef(at))
    }

    /// The entry behind a reference, if it is still that channel's.
    pub fn get(&self, at: HomeRef) -> Option<&Home> {
        self.rows.get(at.0)
    }

    /// A channel's roster as JSON, for who subscribes again.
    pub fn snapshot(&mut self, at: HomeRef) -> Option<Arc<str>> {
        self.rows
            .get_mut(at.0)?
            .roster
            .as_mut()
            .map(|roster| roster.snapshot())
    }

    /// Channels of an app with subscribers, in no order.
    pub fn occupied_of(&self, app: AppIndex) -> impl Iterator<Item = &Home> {
        let homes = self.names.of_app(app).filter_map(|row| self.rows.at(row));
        homes
            .map(|(_, home)| home)
            .filter(|home| home.subscriptions > 0)
    }

    /// Number of channels with subscribers.
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

    /// Last events that are kept now; at most the bound.
    pub fn kept_events(&self) -> usize {
        self.kept
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
        if let Some(member) = &join.member {
            assert!(
                home.kind.is_presence(),
                "only presence channels have members"
            );
            let roster = home.roster.get_or_insert_default();
            if roster.len() >= rules.members_max as usize && !roster.contains(&member.user_id) {
                return Err(JoinRefused::ChannelFull);
            }
        }
        home.add_interest(join.from, join.local);
        home.subscriptions += 1;
        if home.subscriptions == 1 {
            self.occupied += 1;
            effects.push(HomeEffect::Occupied);
            let returned = home
                .later
                .as_mut()
                .is_some_and(|later| later.vacate_at.take().is_some());
            if rules.hook_occupancy && !returned {
                effects.push(HomeEffect::Hook(Hook::ChannelOccupied));
            }
        }
        if let Some(member) = &join.member {
            home.join_member(rules, member, effects);
        }
        let last = home.last_event(now, rules, effects);
        let snapshot = home.roster.as_mut().map(|roster| roster.snapshot());
        effects.push(HomeEffect::Joined(Joined {
            home: at,
            snapshot,
            last,
        }));
        home.count_changed(now, rules, effects);
        self.arm(at);
        Ok(())
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
        home.remove_interest(from);
        home.subscriptions = home
            .subscriptions
            .checked_sub(1)
            .expect("who leaves has joined");
        if let Some(user_id) = user_id {
            home.leave_member(now, rules, user_id, effects);
        }
        if home.subscriptions == 0 {
            assert!(home.interests.is_empty(), "no subscription, no interest");
            self.occupied -= 1;
            effects.push(HomeEffect::Vacant);
        }
        home.count_changed(now, rules, effects);
        if home.subscriptions == 0 && rules.hook_occupancy {
            home.later.get_or_insert_default().vacate_at = Some(now.plus(rules.grace_ms));
        }
        self.arm(at);
    }

    /// Keeps an event as the channel's last one.
    pub fn keep(&mut self, at: HomeRef, now: Millis, rules: &Rules, event: Event) {
        let home = self
            .rows
            .get_mut(at.0)
            .expect("an event is kept in an entered home");
        assert!(home.kind.is_cache(), "only cache channels keep an event");
        self.kept_number += 1;
        let kept = Kept {
            event,
            expires_at: now.plus(rules.kept_ms),
            number: self.kept_number,
        };
        let is_first = home.kept.replace(Box::new(kept)).is_none();
        self.kept += usize::from(is_first);
        self.kept_order.push_back((at, self.kept_number));
        self.evict();
        self.arm(at);
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
        if home
            .kept
            .as_ref()
            .is_some_and(|kept| kept.expires_at <= now)
        {
            home.kept = None;
            self.kept -= 1;
        }
        home.settle_later(now, rules, effects);
        self.arm(at);
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
        assert!(home.interests.is_empty(), "an idle home has no interest");
        self.names.remove(home.app, &home.name, at.0.index);
    }

    /// Puts the entry's next deadline on the heap, unless an earlier one is there.
    fn arm(&mut self, at: HomeRef) {
        let Some(home) = self.rows.get_mut(at.0) else {
            return;
        };
        let Some(next) = home.next_deadline() else {
            return;
        };
        if home.due_at.is_none_or(|due_at| next < due_at) {
            home.due_at = Some(next);
            self.due.push(Reverse((next, at)));
        }
    }

    /// Drops the oldest kept events above the bound, and what the order lists in vain.
    fn evict(&mut self) {
        let rows = &mut self.rows;
        while self.kept > self.kept_max {
            let oldest = self.kept_order.pop_front();
            let (at, number) = oldest.expect("each kept event is in the order");
            let Some(home) = rows.get_mut(at.0).filter(|home| home.keeps(number)) else {
                continue;
            };
            home.kept = None;
            self.kept -= 1;
            // Due at once, so that the entry is released when nothing else holds it.
            self.due.push(Reverse((Millis(0), at)));
            home.due_at = Some(Millis(0));
        }
        // Half of the order is in vain by then, so a walk costs each entry a constant.
        if self.kept_order.len() > 2 * self.kept + 64 {
            let keeps = |at: &HomeRef, number| rows.get(at.0).is_some_and(|it| it.keeps(number));
            self.kept_order.retain(|(at, number)| keeps(at, *number));
        }
    }
}

impl Home {
    /// Shards to send this channel's frames to.
    pub fn interests(&self) -> &[Interest] {
        &self.interests
    }

    /// Subscribed sockets on this node.
    pub fn subscriptions(&self) -> u32 {
        self.subscriptions
    }

    /// Distinct users of a presence channel.
    pub fn users(&self) -> usize {
        self.roster.as_ref().map_or(0, |roster| roster.len())
    }

    /// Ids of a presence channel's users.
    pub fn user_ids(&self) -> impl Iterator<Item = &Arc<str>> {
        self.roster.iter().flat_map(|roster| roster.user_ids())
    }

    /// The last event and its remaining life in whole seconds.
    pub fn kept(&self, now: Millis) -> Option<(&Event, u64)> {
        let kept = self.kept.as_ref().filter(|kept| kept.expires_at > now)?;
        Some((&kept.event, (kept.expires_at.0 - now.0) / 1_000))
    }

    /// The kept event is the one with this number.
    fn keeps(&self, number: u64) -> bool {
        self.kept.as_ref().is_some_and(|kept| kept.number == number)
    }

    fn add_interest(&mut self, shard: ShardId, local: LocalRef) {
        if let Some(interest) = self.interests.iter_mut().find(|it| it.shard == shard) {
            assert_eq!(
                interest.local, local,
                "a shard has one table row for a channel"
            );
            interest.count += 1;
        } else {
            self.interests.push(Interest {
                shard,
                local,
                count: 1,
            });
        }
    }

    fn remove_interest(&mut self, shard: ShardId) {
        let position = self.interests.iter().position(|it| it.shard == shard);
        let position = position.expect("who leaves has joined from its shard");
        self.interests[position].count -= 1;
        if self.interests[position].count == 0 {
            self.interests.swap_remove(position);
        }
    }

    fn join_member(&mut self, rules: &Rules, member: &Member, effects: &mut Vec<HomeEffect>) {
        let roster = self.roster.get_or_insert_default();
        if roster.join(member) == Change::ConnectionOnly {
            return;
        }
        effects.push(HomeEffect::Announce(Announcement::MemberAdded(
            member.clone(),
        )));
        let returned = self
            .later
            .as_mut()
            .is_some_and(|later| later.departs_not(&member.user_id));
        if rules.hook_members && !returned {
            let user_id = Arc::clone(&member.user_id);
            effects.push(HomeEffect::Hook(Hook::MemberAdded { user_id }));
        }
    }

    fn leave_member(
        &mut self,
        now: Millis,
        rules: &Rules,
        user_id: &Arc<str>,
        effects: &mut Vec<HomeEffect>,
    ) {
        let roster = self
            .roster
            .as_mut()
            .expect("a member's channel has a roster");
        if roster.leave(user_id) == Change::ConnectionOnly {
            return;
        }
        let user_id = Arc::clone(user_id);
        let announcement = Announcement::MemberRemoved {
            user_id: Arc::clone(&user_id),
        };
        effects.push(HomeEffect::Announce(announcement));
        if rules.hook_members {
            let later = self.later.get_or_insert_default();
            later.departures.push((user_id, now.plus(rules.grace_ms)));
        }
    }

    fn last_event(
        &mut self,
        now: Millis,
        rules: &Rules,
        effects: &mut Vec<HomeEffect>,
    ) -> LastEvent {
        if !self.kind.is_cache() {
            return LastEvent::NotCached;
        }
        if let Some((event, _)) = self.kept(now) {
            return LastEvent::Hit(event.clone());
        }
        if rules.hook_misses {
            let later = self.later.get_or_insert_default();
            if now >= later.miss_quiet_until {
                later.miss_quiet_until = now.plus(MISS_QUIET_MS);
                effects.push(HomeEffect::Hook(Hook::CacheMiss));
            }
        }
        LastEvent::Miss
    }

    /// Tells the new count: at once to a small channel, at most every 5 s to a large one.
    fn count_changed(&mut self, now: Millis, rules: &Rules, effects: &mut Vec<HomeEffect>) {
        if !self.kind.counts_subscriptions() || !(rules.count_frames || rules.hook_counts) {
            return;
        }
        if self.subscriptions > COUNT_SMALL_MAX {
            let later = self.later.get_or_insert_default();
            if now < later.count_quiet_until {
                later.count_at = Some(later.count_quiet_until);
                return;
            }
        }
        self.tell_count(now, rules, effects);
    }

    fn tell_count(&mut self, now: Millis, rules: &Rules, effects: &mut Vec<HomeEffect>) {
        if self.subscriptions > COUNT_SMALL_MAX {
            let later = self.later.get_or_insert_default();
            later.count_quiet_until = now.plus(COUNT_QUIET_MS);
        }
        if let Some(later) = &mut self.later {
            later.count_at = None;
        }
        if rules.count_frames {
            let count = Announcement::SubscriptionCount(self.subscriptions);
            effects.push(HomeEffect::Announce(count));
        }
        if rules.hook_counts {
            effects.push(HomeEffect::Hook(Hook::SubscriptionCount(
                self.subscriptions,
            )));
        }
    }

    fn settle_later(&mut self, now: Millis, rules: &Rules, effects: &mut Vec<HomeEffect>) {
        let Some(later) = &mut self.later else { return };
        // Members before the channel: who hears of both hears of the guests first.
        for (user_id, _) in later
            .departures
            .extract_if(.., |departure| departure.1 <= now)
        {
            if rules.hook_members {
                effects.push(HomeEffect::Hook(Hook::MemberRemoved { user_id }));
            }
        }
        let vacated = later.vacate_at.take_if(|at| *at <= now).is_some();
        let count_due = later.count_at.is_some_and(|at| at <= now);
        if count_due {
            self.tell_count(now, rules, effects);
        }
        if vacated {
            assert_eq!(self.subscriptions, 0, "a return cancels the vacating");
            if rules.hook_occupancy {
                effects.push(HomeEffect::Hook(Hook::ChannelVacated));
            }
        }
        let Some(later) = &mut self.later else { return };
        if later.is_over(now) {
            self.later = None;
            return;
        }
        later.end_quiet(now);
    }

    fn next_deadline(&self) -> Option<Millis> {
        let kept = self.kept.as_ref().map(|kept| kept.expires_at);
        let later = self.later.as_ref().and_then(|later| later.next_deadline());
        kept.into_iter().chain(later).min()
    }

    fn is_idle(&self, now: Millis) -> bool {
        self.subscriptions == 0
            && self.kept.is_none()
            && self.later.as_ref().is_none_or(|later| later.is_over(now))
    }
}

impl Later {
    /// Cancels a departure; true if there was one.
    fn departs_not(&mut self, user_id: &str) -> bool {
        let position = self
            .departures
            .iter()
            .position(|(departed, _)| **departed == *user_id);
        position
            .map(|position| self.departures.remove(position))
            .is_some()
    }

    fn next_deadline(&self) -> Option<Millis> {
        let fixed = [self.vacate_at, self.count_at];
        let quiet = [self.miss_quiet_until, self.count_quiet_until];
        let quiet = quiet.into_iter().filter(|until| until.0 > 0);
        let departures = self.departures.iter().map(|(_, at)| *at);
        fixed
            .into_iter()
            .flatten()
            .chain(quiet)
            .chain(departures)
            .min()
    }

    /// Forgets quiet times that have passed, so that they are no deadlines any more.
    fn end_quiet(&mut self, now: Millis) {
        for until in [&mut self.miss_quiet_until, &mut self.count_quiet_until] {
            if *until <= now {
                *until = Millis(0);
            }
        }
    }

    fn is_over(&self, now: Millis) -> bool {
        self.vacate_at.is_none()
            && self.count_at.is_none()
            && self.departures.is_empty()
            && self.miss_quiet_until <= now
            && self.count_quiet_until <= now
    }
}

/// Channels up to this size hear of each change of their count.
const COUNT_SMALL_MAX: u32 = 100;
/// Larger ones hear at most this often.
const COUNT_QUIET_MS: u64 = 5_000;
/// One `cache_miss` webhook per channel and this time.
const MISS_QUIET_MS: u64 = 10_000;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const APP: AppIndex = AppIndex(0);
    const RULES: Rules = Rules {
        members_max: 2,
        count_frames: true,
        hook_occupancy: true,
        hook_members: true,
        hook_counts: false,
        hook_misses: true,
        kept_ms: 1_000,
        grace_ms: 3_000,
    };

    /// A table with one channel, and whoever acts on it from shard 0.
    struct Channel {
        table: HomeTable,
        name: Arc<str>,
    }

    impl Channel {
        fn new(name: &str) -> Self {
            let table = HomeTable::new(100);
            let name = name.into();
            Self { table, name }
        }

        fn at(&self) -> HomeRef {
            self.table.find(APP, &self.name).expect("it has an entry")
        }

        fn try_join(
            &mut self,
            now: u64,
            user: Option<&str>,
        ) -> Result<Vec<HomeEffect>, JoinRefused> {
            let at = self.table.enter(APP, &self.name);
            let join = join_from(0, user);
            let mut effects = Vec::new();
            let joined = self
                .table
                .join(at, Millis(now), &RULES, &join, &mut effects);
            self.table.release_if_idle(at, Millis(now));
            joined.map(|()| effects)
        }

        fn join(&mut self, now: u64, user: Option<&str>) -> Vec<HomeEffect> {
            self.try_join(now, user).expect("there is room")
        }

        fn leave(&mut self, now: u64, user: Option<&str>) -> Vec<HomeEffect> {
            let (at, user) = (self.at(), user.map(Arc::from));
            let mut effects = Vec::new();
            self.table.leave(
                at,
                Millis(now),
                &RULES,
                ShardId(0),
                user.as_ref(),
                &mut effects,
            );
            self.table.release_if_idle(at, Millis(now));
            effects
        }

        fn settle(&mut self, now: u64) -> Vec<HomeEffect> {
            settle(&mut self.table, now)
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

    fn join_from(shard: u16, user: Option<&str>) -> Join {
        let local = LocalRef(RowRef {
            index: shard.into(),
            generation: 0,
        });
        let member = user.map(|user| Member {
            user_id: user.into(),
            info: "null".into(),
        });
        Join {
            from: ShardId(shard),
            local,
            member,
        }
    }

    fn event(number: u8) -> Event {
        Event {
            frame: Arc::from([number].as_slice()),
            data_start: 0,
            data_bytes: 1,
        }
    }

    /// The effects as words, so that a table of them can be read.
    fn words(effects: &[HomeEffect]) -> Vec<String> {
        let word = |effect: &HomeEffect| match effect {
            HomeEffect::Joined(joined) => match &joined.last {
                LastEvent::NotCached => "joined".to_owned(),
                LastEvent::Miss => "joined, miss".to_owned(),
                LastEvent::Hit(event) => format!("joined, hit {}", event.frame[0]),
            },
            HomeEffect::Announce(Announcement::MemberAdded(member)) => {
                format!("tell +{}", member.user_id)
            }
            HomeEffect::Announce(Announcement::MemberRemoved { user_id }) => {
                format!("tell -{user_id}")
            }
            HomeEffect::Announce(Announcement::SubscriptionCount(count)) => format!("tell {count}"),
            HomeEffect::Hook(Hook::ChannelOccupied) => "hook occupied".to_owned(),
            HomeEffect::Hook(Hook::ChannelVacated) => "hook vacated".to_owned(),
            HomeEffect::Hook(Hook::MemberAdded { user_id }) => format!("hook +{user_id}"),
            HomeEffect::Hook(Hook::MemberRemoved { user_id }) => format!("hook -{user_id}"),
            HomeEffect::Hook(Hook::CacheMiss) => "hook miss".to_owned(),
            HomeEffect::Hook(Hook::SubscriptionCount(count)) => format!("hook {count}"),
            HomeEffect::Occupied => "occupied".to_owned(),
            HomeEffect::Vacant => "vacant".to_owned(),
        };
        effects.iter().map(word).collect()
    }

    #[test]
    fn a_channel_is_occupied_by_its_first_subscription_and_vacant_after_its_last() {
        let mut channel = Channel::new("news");
        let first = ["occupied", "hook occupied", "joined", "tell 1"];
        assert_eq!(words(&channel.join(0, None)), first);
        assert_eq!(words(&channel.join(0, None)), ["joined", "tell 2"]);
        assert_eq!(channel.table.occupied(), 1);
        assert_eq!(words(&channel.leave(10, None)), ["tell 1"]);
        assert_eq!(words(&channel.leave(10, None)), ["vacant", "tell 0"]);
        assert_eq!(channel.table.occupied(), 0);
    }

    #[test]
    fn vacating_is_told_after_the_grace_and_not_before() {
        for (now, told, entries) in [
            (3_009, vec![], 1),
            (3_010, vec!["hook vacated"], 0),
            (3_011, vec!["hook vacated"], 0),
        ] {
            let mut channel = Channel::new("news");
            channel.join(0, None);
            channel.leave(10, None);
            assert_eq!(words(&channel.settle(now)), told, "at {now} ms");
            assert_eq!(channel.table.len(), entries, "entries at {now} ms");
        }
    }

    #[test]
    fn who_returns_within_the_grace_was_never_gone_for_webhooks() {
        let mut channel = Channel::new("presence-room");
        channel.join(0, Some("ann"));
        channel.leave(10, Some("ann"));
        let back = ["occupied", "tell +ann", "joined"];
        assert_eq!(words(&channel.join(3_009, Some("ann"))), back);
        assert!(channel.settle(60_000).is_empty());
        channel.leave(60_000, Some("ann"));
        let gone = ["hook -ann", "hook vacated"];
        assert_eq!(
            words(&channel.settle(63_000)),
            gone,
            "guests before the channel"
        );
        assert!(channel.table.is_empty());
    }

    #[test]
    fn a_member_is_told_of_once_however_many_connections_it_has() {
        let mut channel = Channel::new("presence-room");
        let first = [
            "occupied",
            "hook occupied",
            "tell +ann",
            "hook +ann",
            "joined",
        ];
        assert_eq!(words(&channel.join(0, Some("ann"))), first);
        assert_eq!(words(&channel.join(0, Some("ann"))), ["joined"]);
        assert!(channel.leave(0, Some("ann")).is_empty());
        assert_eq!(
            words(&channel.leave(0, Some("ann"))),
            ["tell -ann", "vacant"]
        );
    }

    #[test]
    fn a_full_channel_lets_in_who_is_there_already_and_nobody_else() {
        let mut channel = Channel::new("presence-room");
        for user in ["ann", "bob", "ann"] {
            channel.join(0, Some(user));
        }
        assert_eq!(
            channel.try_join(0, Some("eve")),
            Err(JoinRefused::ChannelFull)
        );
        let home = channel.table.get(channel.at()).expect("it is there");
        assert_eq!((home.subscriptions(), home.users()), (3, 2));
        channel.leave(0, Some("bob"));
        assert!(channel.try_join(0, Some("eve")).is_ok());
    }

    #[test]
    fn a_newcomer_gets_the_kept_event_until_its_time_is_over() {
        for (now, last) in [
            (1_049, "joined, hit 7"),
            (1_050, "joined, miss"),
            (1_051, "joined, miss"),
        ] {
            let mut channel = Channel::new("cache-prices");
            let at = channel.table.enter(APP, &channel.name);
            channel.table.keep(at, Millis(0), &RULES, event(6));
            channel.table.keep(at, Millis(50), &RULES, event(7));
            let effects = words(&channel.join(now, None));
            assert!(
                effects.contains(&last.to_owned()),
                "at {now} ms: {effects:?}"
            );
        }
    }

    #[test]
    fn a_kept_event_alone_holds_its_entry_until_its_time_is_over() {
        let mut channel = Channel::new("cache-prices");
        let at = channel.table.enter(APP, &channel.name);
        channel.table.keep(at, Millis(0), &RULES, event(7));
        channel.settle(999);
        assert_eq!((channel.table.len(), channel.table.kept_events()), (1, 1));
        channel.settle(1_000);
        assert_eq!((channel.table.len(), channel.table.kept_events()), (0, 0));
    }

    #[test]
    fn misses_have_one_webhook_in_ten_seconds() {
        let mut channel = Channel::new("cache-prices");
        for (now, hooked) in [(0, true), (5, false), (9_999, false), (10_000, true)] {
            let effects = channel.join(now, None);
            let miss = HomeEffect::Hook(Hook::CacheMiss);
            assert_eq!(effects.contains(&miss), hooked, "at {now} ms");
            channel.settle(now);
        }
    }

    #[test]
    fn a_large_channel_hears_its_count_at_most_every_five_seconds() {
        let mut channel = Channel::new("news");
        for count in 1..=101_u32 {
            let told = format!("tell {count}");
            assert!(
                words(&channel.join(0, None)).contains(&told),
                "subscription {count}"
            );
        }
        assert_eq!(words(&channel.join(1, None)), ["joined"]);
        assert_eq!(words(&channel.join(2, None)), ["joined"]);
        assert!(channel.settle(4_999).is_empty());
        assert_eq!(words(&channel.settle(5_000)), ["tell 103"]);
        assert!(
            channel.settle(60_000).is_empty(),
            "without a change nothing is told"
        );
        for _ in 0..3 {
            channel.leave(60_000, None);
        }
        assert_eq!(
            words(&channel.leave(60_001, None)),
            ["tell 99"],
            "small ones hear at once"
        );
    }

    #[test]
    fn the_event_that_was_kept_longest_ago_is_evicted_first() {
        let mut table = HomeTable::new(2);
        let mut keep = |now, name: &str| {
            let at = table.enter(APP, &name.into());
            table.keep(at, Millis(now), &RULES, event(0));
            let kept = |name| {
                let home = table.get(table.find(APP, name)?)?;
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
        assert!(table.kept_order.len() <= 2 * 2 + 65, "the order is bounded");
        settle(&mut table, 2_000);
        assert_eq!((table.len(), table.kept_events()), (1, 1));
        settle(&mut table, 3_000);
        assert!(table.is_empty());
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
            let mut table = HomeTable::new(4);
            let name: Arc<str> = "presence-cache-room".into();
            let (mut now, mut there, mut told) = (0, Vec::new(), Told::default());
            for step in steps {
                let mut effects = Vec::new();
                match step {
                    Step::Join(shard, user) => {
                        let at = table.enter(APP, &name);
                        let join = join_from(shard, Some(&format!("u{user}")));
                        if table.join(at, Millis(now), &RULES, &join, &mut effects).is_ok() {
                            there.push((shard, user));
                        } else {
                            table.release_if_idle(at, Millis(now));
                        }
                    }
                    Step::Leave(choice) if !there.is_empty() => {
                        let (shard, user) = there.swap_remove(choice % there.len());
                        let at = table.find(APP, &name).expect("somebody subscribes");
                        let (from, user) = (ShardId(shard), Arc::from(format!("u{user}")));
                        table.leave(at, Millis(now), &RULES, from, Some(&user), &mut effects);
                        table.release_if_idle(at, Millis(now));
                    }
                    Step::Keep => {
                        let at = table.enter(APP, &name);
                        table.keep(at, Millis(now), &RULES, event(1));
                    }
                    Step::Leave(_) => {}
                    Step::Wait(ms) => now += ms,
                }
                told.hear(&effects);
                told.hear(&settle(&mut table, now));
                let Some(home) = table.find(APP, &name).and_then(|at| table.get(at)) else {
                    prop_assert!(there.is_empty());
                    continue;
                };
                let counts = home.interests().iter().map(|it| it.count);
                prop_assert_eq!(home.subscriptions() as usize, there.len());
                prop_assert_eq!(counts.sum::<u32>() as usize, there.len());
                let shards: std::collections::BTreeSet<_> = there.iter().map(|it| it.0).collect();
                let users: std::collections::BTreeSet<_> = there.iter().map(|it| it.1).collect();
                prop_assert_eq!(home.interests().len(), shards.len());
                prop_assert_eq!(home.users(), users.len());
            }
            for (shard, user) in there {
                let at = table.find(APP, &name).expect("somebody subscribes");
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
