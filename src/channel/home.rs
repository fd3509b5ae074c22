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

use ahash::AHashMap;
use shards::application::{Millis, ShardId};
use smallvec::SmallVec;

use super::{
    local::LocalRef,
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
    by_name: AHashMap<AppIndex, AHashMap<Arc<str>, HomeRef>>,
    due: BinaryHeap<Reverse<(Millis, HomeRef)>>,
    /// Homes with a kept event, oldest first; may name some that have none any more.
    kept_order: VecDeque<HomeRef>,
    kept: usize,
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
            by_name: AHashMap::new(),
            due: BinaryHeap::new(),
            kept_order: VecDeque::new(),
            kept: 0,
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
        self.by_name
            .entry(app)
            .or_default()
            .insert(Arc::clone(name), at);
        at
    }

    /// The channel's entry, if it has one.
    pub fn find(&self, app: AppIndex, name: &str) -> Option<HomeRef> {
        self.by_name.get(&app)?.get(name).copied()
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
        let names = self
            .by_name
            .get(&app)
            .into_iter()
            .flat_map(|names| names.values());
        names
            .filter_map(|at| self.get(*at))
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
        let kept = Kept {
            event,
            expires_at: now.plus(rules.kept_ms),
        };
        if home.kept.replace(Box::new(kept)).is_none() {
            self.kept += 1;
            self.kept_order.push_back(at);
            self.evict();
        }
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
        let names = self
            .by_name
            .get_mut(&home.app)
            .expect("a home is listed by name");
        assert_eq!(
            names.remove(&home.name),
            Some(at),
            "a home is listed by name"
        );
        if names.is_empty() {
            self.by_name.remove(&home.app);
        }
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
        while self.kept > self.kept_max {
            let oldest = self
                .kept_order
                .pop_front()
                .expect("each kept event is in the order");
            let Some(home) = self.rows.get_mut(oldest.0) else {
                continue;
            };
            if home.kept.take().is_some() {
                self.kept -= 1;
                // Due at once, so that the entry is released when nothing else holds it.
                self.due.push(Reverse((Millis(0), oldest)));
                home.due_at = Some(Millis(0));
            }
        }
        if self.kept_order.len() > 2 * self.kept + 64 {
            let rows = &self.rows;
            let mut seen = AHashMap::new();
            self.kept_order.retain(|at| {
                rows.get(at.0).is_some_and(|home| home.kept.is_some())
                    && seen.insert(*at, ()).is_none()
            });
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
