//! A channel's home: the node's only truth about that channel, and the rules by which it changes.
//!
//! Owns: interested shards, subscription count, presence roster; `home_later` has its deadlines, `kept` what concerns
//! the last event of a cache channel.
//! May depend on: `channel::{home_effect, home_later, kept, names, roster, rows}`, `protocol`, plain ids. Not on
//! connections, queues, clocks.
//! Invariants: the subscription count is the sum of the interests' counts; a shard is interested iff
//! its count is > 0; occupied and vacated alternate, member added and removed alternate per user.

use std::sync::Arc;

use shards::application::{Millis, ShardId, Waiter};
use smallvec::SmallVec;

use super::{
    home_effect::{Announcement, HomeEffect, Hook},
    home_later::Later,
    kept::Kept,
    local::LocalRef,
    names::NameKey,
    roster::{Change, Member, MemberNews, Roster, Tell},
    rows::RowRef,
};
use crate::protocol::{app::AppIndex, name::ChannelKind};

/// Points at a home entry from other shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HomeRef(pub RowRef);

/// One channel.
#[derive(Clone, Debug)]
pub struct Home {
    pub app: AppIndex,
    pub name: Arc<str>,
    pub key: NameKey,
    pub kind: ChannelKind,
    interests: SmallVec<[Interest; 1]>,
    pub(super) subscriptions: u32,
    /// On other nodes.
    pub(super) elsewhere: u32,
    /// What other nodes were told of `subscriptions`.
    pub(super) told: u32,
    /// It was occupied here and nowhere else since then: they are told even if it is vacant again, since
    /// one of them may have to tell webhooks so.
    was_occupied: bool,
    /// Whether other nodes were told that the last event is kept here.
    pub(super) told_kept: bool,
    /// It is kept on another node.
    pub(super) kept_elsewhere: bool,
    /// Other nodes are told what changes here.
    pub(super) has_nodes: bool,
    /// The table's note: it is listed as one with news for other nodes.
    pub(super) is_owing: bool,
    /// The server's note: it is counted as a use of its partition's topic.
    pub uses_topic: bool,
    pub(super) roster: Option<Box<Roster>>,
    pub(super) kept: Option<Box<Kept>>,
    pub(super) later: Option<Box<Later>>,
    /// The table's note: when the entry is next looked at.
    pub(super) due_at: Option<Millis>,
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

impl Interest {
    /// It has one subscriber.
    pub(super) fn is_first(&self) -> bool {
        self.count == 1
    }
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
    /// This node may be behind the others: who has gone may be with them.
    pub is_behind: bool,
}

impl Rules {
    pub(super) fn tell(&self) -> Tell {
        match self.is_behind {
            true => Tell::Later,
            false => Tell::Now,
        }
    }
}

/// Someone wants to subscribe.
#[derive(Clone, Debug)]
pub struct Join {
    /// Who joins, and gets the answer.
    pub to: Waiter,
    pub local: LocalRef,
    /// Who it is, on a presence channel.
    pub member: Option<Member>,
}

/// What other nodes are to be told of this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// Sockets that subscribe here.
    Subscriptions(u32),
    Member(MemberNews),
    /// The last event is kept here, or not any more.
    EventKept(bool),
}

/// What all other nodes together have of a channel, as it changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Elsewhere {
    /// Sockets that subscribe there.
    Subscriptions(u32),
    /// The first of them has the user, or says another info.
    MemberJoined(Member),
    /// None of them has the user any more.
    MemberLeft { user_id: Arc<str> },
    /// One of them keeps the last event, or none does any more.
    EventKept(bool),
}

/// Why a home refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinRefused {
    /// The presence channel has as many users as it may.
    ChannelFull,
    /// The home's shard does not know the app: a reload has not reached it, or has taken it away.
    AppUnknown,
    /// As many as may already wait for the bus.
    TooManyWait,
}

impl Home {
    /// A channel that nobody subscribes yet.
    pub(super) fn new(app: AppIndex, name: &Arc<str>, key: NameKey) -> Self {
        Self {
            app,
            name: Arc::clone(name),
            key,
            kind: ChannelKind::of(name),
            interests: SmallVec::new(),
            subscriptions: 0,
            elsewhere: 0,
            told: 0,
            was_occupied: false,
            told_kept: false,
            kept_elsewhere: false,
            has_nodes: false,
            is_owing: false,
            uses_topic: false,
            roster: None,
            kept: None,
            later: None,
            due_at: None,
        }
    }

    /// Shards to send this channel's frames to.
    pub fn interests(&self) -> &[Interest] {
        &self.interests
    }

    /// Subscribed sockets on this node.
    pub fn subscriptions(&self) -> u32 {
        self.subscriptions
    }

    /// Subscribed sockets on all nodes.
    pub fn total(&self) -> u32 {
        self.subscriptions.saturating_add(self.elsewhere)
    }

    /// Events of other nodes matter: somebody is here, or the last event is kept.
    pub fn needs_topic(&self) -> bool {
        self.subscriptions > 0 || self.has_kept()
    }

    /// Other nodes are to be told something.
    pub(super) fn owes(&self) -> bool {
        let owes_members = || self.roster.as_ref().is_some_and(|it| it.owes());
        let owes_kept = self.told_kept != self.has_kept();
        let owes_count = self.told != self.subscriptions || self.was_occupied;
        self.has_nodes && (owes_count || owes_kept || owes_members())
    }

    /// The next thing that other nodes are to be told.
    pub(super) fn next_news(&mut self) -> Option<News> {
        let was_occupied = std::mem::take(&mut self.was_occupied);
        if was_occupied && self.told == 0 && self.subscriptions == 0 {
            self.told = 1;
            return Some(News::Subscriptions(1));
        }
        if self.told != self.subscriptions {
            self.told = self.subscriptions;
            return Some(News::Subscriptions(self.subscriptions));
        }
        if self.told_kept != self.has_kept() {
            self.told_kept = self.has_kept();
            return Some(News::EventKept(self.told_kept));
        }
        let news = self.roster.as_mut()?.next_news()?;
        Some(News::Member(news))
    }

    /// Has other nodes told what changes here; before anybody joins.
    pub(super) fn tell_nodes(&mut self) {
        assert!(self.subscriptions == 0, "nobody is here yet");
        self.has_nodes = true;
    }

    pub(super) fn roster_mut(&mut self) -> &mut Roster {
        let new = || Box::new(Roster::new(self.has_nodes));
        self.roster.get_or_insert_with(new)
    }

    /// What other nodes have changed.
    pub(super) fn change_elsewhere(
        &mut self,
        now: Millis,
        rules: &Rules,
        change: Elsewhere,
        effects: &mut Vec<HomeEffect>,
    ) {
        match change {
            Elsewhere::Subscriptions(count) => {
                if count == self.elsewhere {
                    return;
                }
                let before = self.total();
                self.elsewhere = count;
                self.occupied_or_vacant(now, rules, before, effects);
                self.count_changed(now, rules, effects);
            }
            Elsewhere::MemberJoined(member) => {
                let change = self.roster_mut().join_elsewhere(&member);
                self.member_joined(rules, &member, change, effects);
            }
            Elsewhere::EventKept(is_kept) => self.kept_elsewhere = is_kept,
            Elsewhere::MemberLeft { user_id } => {
                let Some(roster) = &mut self.roster else {
                    return;
                };
                let change = roster.leave_elsewhere(&user_id, rules.tell());
                self.member_left(now, rules, &user_id, change, effects);
            }
        }
    }

    /// The channel's first subscription on any node came, or its last one went.
    pub(super) fn occupied_or_vacant(
        &mut self,
        now: Millis,
        rules: &Rules,
        before: u32,
        effects: &mut Vec<HomeEffect>,
    ) {
        match (before, self.total()) {
            (0, 1..) => {
                let returned = self
                    .later
                    .as_mut()
                    .is_some_and(|later| later.vacate_at.take().is_some());
                if rules.hook_occupancy && !returned {
                    effects.push(HomeEffect::Hook(Hook::ChannelOccupied));
                }
            }
            (1.., 0) if rules.hook_occupancy => {
                self.later.get_or_insert_default().vacate_at = Some(now.plus(rules.grace_ms));
            }
            (_, _) => {}
        }
    }

    /// Distinct users of a presence channel.
    pub fn users(&self) -> usize {
        self.roster.as_ref().map_or(0, |roster| roster.len())
    }

    /// Ids of a presence channel's users.
    pub fn user_ids(&self) -> impl Iterator<Item = &Arc<str>> {
        self.roster.iter().flat_map(|roster| roster.user_ids())
    }

    /// The frame that tells of the roster, on a presence channel.
    pub(super) fn roster_frame(
        &mut self,
        encode: impl FnOnce(&str, &Roster) -> Arc<[u8]>,
    ) -> Option<Arc<[u8]>> {
        let (roster, name) = (self.roster.as_mut()?, &self.name);
        Some(roster.frame(|roster| encode(name, roster)))
    }

    /// Adds a subscription.
    ///
    /// # Errors
    /// The channel is full; nothing has changed.
    pub(super) fn join(
        &mut self,
        now: Millis,
        rules: &Rules,
        join: &Join,
        effects: &mut Vec<HomeEffect>,
    ) -> Result<(), JoinRefused> {
        if let Some(member) = &join.member {
            assert!(
                self.kind.is_presence(),
                "only presence channels have members"
            );
            if !self.has_place(rules, member, effects) {
                return Err(JoinRefused::ChannelFull);
            }
        }
        self.add_interest(join.to.shard, join.local);
        self.subscriptions += 1;
        if self.subscriptions == 1 {
            effects.push(HomeEffect::Occupied);
        }
        self.occupied_or_vacant(now, rules, self.total() - 1, effects);
        if let Some(member) = &join.member {
            self.join_member(rules, member, effects);
        }
        let last = self.last_event(now, rules, effects);
        effects.push(HomeEffect::Joined { to: join.to, last });
        self.count_changed(now, rules, effects);
        Ok(())
    }

    /// Takes a subscription away.
    pub(super) fn leave(
        &mut self,
        now: Millis,
        rules: &Rules,
        from: ShardId,
        user_id: Option<&Arc<str>>,
        effects: &mut Vec<HomeEffect>,
    ) {
        self.remove_interest(from);
        self.subscriptions = self
            .subscriptions
            .checked_sub(1)
            .expect("who leaves has joined");
        if let Some(user_id) = user_id {
            self.leave_member(now, rules, user_id, effects);
        }
        if self.subscriptions == 0 {
            assert!(self.interests.is_empty(), "no subscription, no interest");
            effects.push(HomeEffect::Vacant);
            self.was_occupied = self.has_nodes && self.elsewhere == 0 && self.told == 0;
        }
        self.count_changed(now, rules, effects);
        self.occupied_or_vacant(now, rules, self.total() + 1, effects);
    }

    pub(super) fn add_interest(&mut self, shard: ShardId, local: LocalRef) {
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

    /// Whether the member may come; who is listed only since its going is held back gives way.
    fn has_place(&mut self, rules: &Rules, member: &Member, effects: &mut Vec<HomeEffect>) -> bool {
        let roster = self.roster_mut();
        let most = rules.members_max as usize;
        if roster.len() < most || roster.contains(&member.user_id) {
            return true;
        }
        if roster.len() - roster.held() >= most {
            return false;
        }
        while roster.len() >= most
            && let Some(user_id) = roster.release()
        {
            effects.push(removed(user_id));
        }
        true
    }

    fn join_member(&mut self, rules: &Rules, member: &Member, effects: &mut Vec<HomeEffect>) {
        let change = self.roster_mut().join(member);
        self.member_joined(rules, member, change, effects);
    }

    fn member_joined(
        &mut self,
        rules: &Rules,
        member: &Member,
        change: Change,
        effects: &mut Vec<HomeEffect>,
    ) {
        match change {
            Change::User => self.member_came(rules, member, effects),
            // Nobody has heard that it went.
            Change::Returned => {
                if let Some(later) = &mut self.later {
                    later.departures.cancel(&member.user_id);
                }
            }
            Change::ConnectionOnly | Change::Held => {}
        }
    }

    fn member_came(&mut self, rules: &Rules, member: &Member, effects: &mut Vec<HomeEffect>) {
        effects.push(HomeEffect::Announce(Announcement::MemberAdded(
            member.clone(),
        )));
        let returned = self
            .later
            .as_mut()
            .is_some_and(|later| later.departures.cancel(&member.user_id));
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
        let change = roster.leave(user_id, rules.tell());
        self.member_left(now, rules, user_id, change, effects);
    }

    pub(super) fn member_left(
        &mut self,
        now: Millis,
        rules: &Rules,
        user_id: &Arc<str>,
        change: Change,
        effects: &mut Vec<HomeEffect>,
    ) {
        match change {
            Change::User => self.member_went(now, rules, Arc::clone(user_id), effects),
            Change::Held => {
                self.await_return(now, rules, Arc::clone(user_id));
                self.later.get_or_insert_default().hold_on(now);
            }
            Change::ConnectionOnly | Change::Returned => {}
        }
    }

    fn member_went(
        &mut self,
        now: Millis,
        rules: &Rules,
        user_id: Arc<str>,
        effects: &mut Vec<HomeEffect>,
    ) {
        effects.push(removed(Arc::clone(&user_id)));
        self.await_return(now, rules, user_id);
    }

    /// Webhooks hear of it when the grace is over.
    fn await_return(&mut self, now: Millis, rules: &Rules, user_id: Arc<str>) {
        if rules.hook_members {
            let later = self.later.get_or_insert_default();
            later.departures.add(user_id, now.plus(rules.grace_ms));
        }
    }

    /// When something is due next.
    pub(super) fn next_deadline(&self) -> Option<Millis> {
        let later = self.later.as_ref().and_then(|later| later.next_deadline());
        self.kept_until().into_iter().chain(later).min()
    }

    /// Nobody subscribes, nothing is kept, nothing is to come.
    pub(super) fn is_idle(&self, now: Millis) -> bool {
        self.total() == 0
            && self.users() == 0
            && !self.is_owing
            && !self.has_kept()
            && !self.kept_elsewhere
            && self.later.as_ref().is_none_or(|later| later.is_over(now))
    }
}

/// A user is to be told to have gone.
pub(super) fn removed(user_id: Arc<str>) -> HomeEffect {
    HomeEffect::Announce(Announcement::MemberRemoved { user_id })
}

#[cfg(test)]
pub(super) mod tests {
    use super::{
        super::{home_effect::tests::words, names::tests::key},
        *,
    };

    pub(in crate::channel) const APP: AppIndex = AppIndex(0);
    pub(in crate::channel) const RULES: Rules = Rules {
        members_max: 2,
        count_frames: true,
        hook_occupancy: true,
        hook_members: true,
        hook_counts: false,
        hook_misses: true,
        kept_ms: 1_000,
        grace_ms: 3_000,
        is_behind: false,
    };

    /// One home, and whoever acts on it from shard 0.
    pub(in crate::channel) struct Channel(pub(in crate::channel) Home);

    impl Channel {
        pub(in crate::channel) fn new(name: &str) -> Self {
            Self(Home::new(APP, &name.into(), key(name)))
        }

        fn try_join(
            &mut self,
            now: u64,
            user: Option<&str>,
        ) -> Result<Vec<HomeEffect>, JoinRefused> {
            let mut effects = Vec::new();
            let join = join_from(0, user);
            let joined = self.0.join(Millis(now), &RULES, &join, &mut effects);
            joined.map(|()| effects)
        }

        pub(in crate::channel) fn join(&mut self, now: u64, user: Option<&str>) -> Vec<HomeEffect> {
            self.try_join(now, user).expect("there is room")
        }

        pub(in crate::channel) fn leave(
            &mut self,
            now: u64,
            user: Option<&str>,
        ) -> Vec<HomeEffect> {
            let user = user.map(Arc::from);
            let mut effects = Vec::new();
            self.0
                .leave(Millis(now), &RULES, ShardId(0), user.as_ref(), &mut effects);
            effects
        }

        /// What is due by now, as the table asks for it: not before a deadline, and until none is left.
        pub(in crate::channel) fn settle(&mut self, now: u64) -> Vec<HomeEffect> {
            let now = Millis(now);
            let mut effects = Vec::new();
            while self.0.next_deadline().is_some_and(|at| at <= now) {
                self.0.expire_kept(now);
                self.0.settle_later(now, &RULES, &mut effects);
            }
            effects
        }
    }

    pub(in crate::channel) fn join_from(shard: u16, user: Option<&str>) -> Join {
        let local = LocalRef(RowRef {
            index: shard.into(),
            generation: 0,
        });
        let member = user.map(|user| Member {
            user_id: user.into(),
            info: "null".into(),
        });
        let slot = shards::application::Slot {
            index: 0,
            generation: 0,
        };
        let to = Waiter {
            shard: ShardId(shard),
            slot,
            operation: 0,
        };
        Join { to, local, member }
    }

    /// What the interests count together.
    pub(in crate::channel) fn counted(home: &Home) -> u32 {
        home.interests.iter().map(|it| it.count).sum()
    }

    #[test]
    fn a_channel_is_occupied_by_its_first_subscription_and_vacant_after_its_last() {
        let mut channel = Channel::new("news");
        let first = ["occupied", "hook occupied", "joined", "tell 1"];
        assert_eq!(words(&channel.join(0, None)), first);
        assert_eq!(words(&channel.join(0, None)), ["joined", "tell 2"]);
        assert_eq!(channel.0.subscriptions(), 2);
        assert_eq!(words(&channel.leave(10, None)), ["tell 1"]);
        assert_eq!(words(&channel.leave(10, None)), ["vacant", "tell 0"]);
        assert_eq!(channel.0.subscriptions(), 0);
    }

    #[test]
    fn other_nodes_hear_of_a_channel_that_was_occupied_for_a_moment() {
        let mut channel = Channel::new("news");
        channel.0.tell_nodes();
        let mut told = |comes: &[u32], elsewhere: u32| {
            let there = Elsewhere::Subscriptions(elsewhere);
            let effects = &mut Vec::new();
            channel
                .0
                .change_elsewhere(Millis(0), &RULES, there, effects);
            for count in comes {
                (0..*count).for_each(|_| drop(channel.join(0, None)));
                (0..*count).for_each(|_| drop(channel.leave(0, None)));
            }
            let news = std::iter::from_fn(|| channel.0.owes().then(|| channel.0.next_news()));
            news.flatten().collect::<Vec<_>>()
        };
        let [occupied, vacant] = [1, 0].map(News::Subscriptions);
        assert_eq!(told(&[1], 0), [occupied.clone(), vacant.clone()]);
        assert_eq!(told(&[3, 1], 0), [occupied, vacant], "once");
        assert_eq!(told(&[1], 2), [], "it was occupied all the time");
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
        assert!(channel.0.is_idle(Millis(63_000)));
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
        assert_eq!((channel.0.subscriptions(), channel.0.users()), (3, 2));
        channel.leave(0, Some("bob"));
        assert!(channel.try_join(0, Some("eve")).is_ok());
    }
}
