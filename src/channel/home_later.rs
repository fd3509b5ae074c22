//! What a channel's home has to do later, and what waits: webhooks for a return, counts for a quiet time, goings
//! while this node may be behind.
//!
//! Owns: a home's deadlines but that of its last event, and what becomes of them.
//! May depend on: `channel::{departures, home, home_effect}`. Not on connections, queues, clocks.
//! Invariants: a going is held back for `HOLD_MS_MAX` at most; who hears of members and of their channel hears of
//! the members first; one step tells `DEPARTURES_AT_ONCE` at most.

use shards::application::Millis;

use super::{
    departures::Departures,
    home::{Home, Rules, removed},
    home_effect::{Announcement, HomeEffect, Hook},
};

/// What has to happen later; boxed since most channels have nothing of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Later {
    pub(super) vacate_at: Option<Millis>,
    pub(super) departures: Departures,
    pub(super) miss_quiet_until: Millis,
    pub(super) count_at: Option<Millis>,
    pub(super) count_quiet_until: Millis,
    pub(super) hold: Option<Hold>,
}

/// Goings that are held back, since this node may be behind. One at a time of a channel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hold {
    since: Millis,
    /// Whether it is over is looked at then.
    look_at: Millis,
}

impl Home {
    /// Tells the new count: at once to a small channel, at most every 5 s to a large one.
    pub(super) fn count_changed(
        &mut self,
        now: Millis,
        rules: &Rules,
        effects: &mut Vec<HomeEffect>,
    ) {
        if !self.kind.counts_subscriptions() || !(rules.count_frames || rules.hook_counts) {
            return;
        }
        if self.total() > COUNT_SMALL_MAX {
            let later = self.later.get_or_insert_default();
            if now < later.count_quiet_until {
                later.count_at = Some(later.count_quiet_until);
                return;
            }
        }
        self.tell_count(now, rules, effects);
    }

    fn tell_count(&mut self, now: Millis, rules: &Rules, effects: &mut Vec<HomeEffect>) {
        if self.total() > COUNT_SMALL_MAX {
            let later = self.later.get_or_insert_default();
            later.count_quiet_until = now.plus(COUNT_QUIET_MS);
        }
        if let Some(later) = &mut self.later {
            later.count_at = None;
        }
        if rules.count_frames {
            let count = Announcement::SubscriptionCount(self.total());
            effects.push(HomeEffect::Announce(count));
        }
        if rules.hook_counts {
            effects.push(HomeEffect::Hook(Hook::SubscriptionCount(self.total())));
        }
    }

    /// Does what is due of webhooks and counts.
    pub(super) fn settle_later(
        &mut self,
        now: Millis,
        rules: &Rules,
        effects: &mut Vec<HomeEffect>,
    ) {
        if self.is_holding(now, rules) {
            return self.settle_count(now, rules, effects);
        }
        // Frames before webhooks, which may be due for long.
        if self.release_held(effects) {
            let later = self.later.get_or_insert_default();
            later.hold = Some(Hold {
                since: Millis(0),
                look_at: now,
            });
            return;
        }
        let Some(later) = &mut self.later else { return };
        // Members before the channel: who hears of both hears of the guests first.
        for _ in 0..DEPARTURES_AT_ONCE {
            let Some(user_id) = later.departures.pop_due(now) else {
                break;
            };
            if rules.hook_members {
                effects.push(HomeEffect::Hook(Hook::MemberRemoved { user_id }));
            }
        }
        if later.departures.next_at().is_some_and(|at| at <= now) {
            return; // Still due: the entry comes again.
        }
        let vacated = later.vacate_at.take_if(|at| *at <= now).is_some();
        self.settle_count(now, rules, effects);
        if vacated {
            assert_eq!(self.total(), 0, "a return cancels the vacating");
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

    fn settle_count(&mut self, now: Millis, rules: &Rules, effects: &mut Vec<HomeEffect>) {
        let Some(later) = &mut self.later else { return };
        later.end_quiet(now);
        if later.count_at.is_some_and(|at| at <= now) {
            self.tell_count(now, rules, effects);
        }
    }

    /// Whether goings that are due wait on; asked when something is due.
    fn is_holding(&mut self, now: Millis, rules: &Rules) -> bool {
        let Some(later) = &mut self.later else {
            return false;
        };
        let is_short = |hold: &Hold| now.since(hold.since) < HOLD_MS_MAX;
        let is_holding = rules.is_behind && later.hold.as_ref().is_none_or(is_short);
        if is_holding && (later.hold.is_some() || later.is_going_due(now)) {
            later.hold_on(now);
        } else {
            later.hold = None;
        }
        later.hold.is_some()
    }

    /// Tells who has gone while that was held back. True: more are left for the next step.
    fn release_held(&mut self, effects: &mut Vec<HomeEffect>) -> bool {
        let Some(roster) = &mut self.roster else {
            return false;
        };
        let gone = std::iter::from_fn(|| roster.release()).take(DEPARTURES_AT_ONCE);
        effects.extend(gone.map(removed));
        roster.held() > 0
    }
}

impl Later {
    pub(super) fn next_deadline(&self) -> Option<Millis> {
        let quiet = [self.miss_quiet_until, self.count_quiet_until];
        let quiet = quiet.into_iter().filter(|until| until.0 > 0);
        let going = [self.vacate_at, self.departures.next_at()];
        let going = going.into_iter().flatten();
        // Looked at together when that is due.
        let held = self.hold.map(|hold| hold.look_at);
        let going = match held {
            Some(_) => held,
            None => going.min(),
        };
        self.count_at.into_iter().chain(quiet).chain(going).min()
    }

    fn is_going_due(&self, now: Millis) -> bool {
        let going = [self.vacate_at, self.departures.next_at()];
        going.into_iter().flatten().any(|at| at <= now)
    }

    /// Holds goings back from now on, or for longer.
    pub(super) fn hold_on(&mut self, now: Millis) {
        let since = self.hold.map_or(now, |hold| hold.since);
        let look_at = now.plus(HOLD_LOOK_MS);
        self.hold = Some(Hold { since, look_at });
    }

    /// Forgets quiet times that have passed, so that they are no deadlines any more.
    fn end_quiet(&mut self, now: Millis) {
        for until in [&mut self.miss_quiet_until, &mut self.count_quiet_until] {
            if *until <= now {
                *until = Millis(0);
            }
        }
    }

    pub(super) fn is_over(&self, now: Millis) -> bool {
        self.vacate_at.is_none()
            && self.count_at.is_none()
            && self.departures.is_empty()
            && self.hold.is_none()
            && self.miss_quiet_until <= now
            && self.count_quiet_until <= now
    }
}

/// Channels up to this size hear of each change of their count.
const COUNT_SMALL_MAX: u32 = 100;
/// Larger ones hear at most this often.
const COUNT_QUIET_MS: u64 = 5_000;
/// Members of one channel whose going is told in one step.
const DEPARTURES_AT_ONCE: usize = 256;
/// For so long at most goings are held back: what is seen here is the best that is known by then, and what
/// waits is bounded by who goes in this time.
pub const HOLD_MS_MAX: u64 = 60_000;
/// How often it is looked at whether that is over.
// Of a hundred thousand channels that wait, as many entries of a heap a second.
pub const HOLD_LOOK_MS: u64 = 1_000;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use shards::application::ShardId;

    use super::{
        super::{
            home::{
                Elsewhere,
                tests::{APP, Channel, RULES, join_from},
            },
            home_effect::tests::words,
            names::tests::key,
        },
        *,
    };

    #[test]
    fn a_crowd_that_left_is_told_in_steps_and_before_the_channel() {
        const CROWD: usize = 2 * DEPARTURES_AT_ONCE + 1;
        let rules = Rules {
            members_max: u32::MAX,
            ..RULES
        };
        let mut home = Home::new(APP, &"presence-crowd".into(), key("presence-crowd"));
        let mut effects = Vec::new();
        for number in 0..CROWD {
            let join = join_from(0, Some(&number.to_string()));
            let joined = home.join(Millis(0), &rules, &join, &mut effects);
            joined.expect("there is room");
        }
        for number in 0..CROWD {
            let user_id = Arc::from(number.to_string());
            home.leave(Millis(1), &rules, ShardId(0), Some(&user_id), &mut effects);
        }
        let due = Millis(1 + rules.grace_ms);
        for told in [DEPARTURES_AT_ONCE, DEPARTURES_AT_ONCE, 1 + 1] {
            assert_eq!(home.next_deadline(), Some(due));
            effects.clear();
            home.settle_later(due, &rules, &mut effects);
            assert_eq!(effects.len(), told);
        }
        let last = effects.last();
        assert!(matches!(last, Some(HomeEffect::Hook(Hook::ChannelVacated))));
        assert!(home.is_idle(due));
    }

    /// A home whose node may be behind, or is not any more.
    struct Behind(Home, Rules);

    impl Behind {
        fn new() -> Self {
            let rules = Rules {
                is_behind: true,
                ..RULES
            };
            let mut behind = Self(Channel::new("presence-room").0, rules);
            behind.0.tell_nodes();
            behind
        }

        fn joins(&mut self, now: u64, user: &str) -> Vec<String> {
            let (mut effects, join) = (Vec::new(), join_from(0, Some(user)));
            let joined = self.0.join(Millis(now), &self.1, &join, &mut effects);
            joined.expect("there is room");
            words(&effects)
        }

        fn leaves(&mut self, now: u64, user: &str) -> Vec<String> {
            let (mut effects, user) = (Vec::new(), Arc::from(user));
            let from = ShardId(0);
            self.0
                .leave(Millis(now), &self.1, from, Some(&user), &mut effects);
            words(&effects)
        }

        fn hears(&mut self, now: u64, change: Elsewhere) -> Vec<String> {
            let mut effects = Vec::new();
            self.0
                .change_elsewhere(Millis(now), &self.1, change, &mut effects);
            words(&effects)
        }

        fn has(&mut self, now: u64, user: &str) -> Vec<String> {
            let member = join_from(0, Some(user)).member.expect("a user");
            self.hears(now, Elsewhere::MemberJoined(member))
        }

        /// From deadline to deadline.
        fn settles(&mut self, until: u64) -> Vec<String> {
            let mut effects = Vec::new();
            while let Some(at) = self.0.next_deadline().filter(|at| at.0 <= until) {
                self.0.settle_later(at, &self.1, &mut effects);
            }
            words(&effects)
        }

        fn is_not_any_more(&mut self) {
            self.1.is_behind = false;
        }
    }

    const NOTHING: [&str; 0] = [];

    #[test]
    fn who_leaves_a_node_that_may_be_behind_is_told_when_it_is_not_any_more() {
        let mut home = Behind::new();
        assert_eq!(
            home.joins(0, "ann"),
            [
                "occupied",
                "hook occupied",
                "tell +ann",
                "hook +ann",
                "joined"
            ]
        );
        assert_eq!(home.leaves(10, "ann"), ["vacant"]);
        assert_eq!(home.settles(50_000), NOTHING);
        assert_eq!(home.0.users(), 1, "nobody was told");
        home.is_not_any_more();
        let told = ["tell -ann", "hook -ann", "hook vacated"];
        assert_eq!(home.settles(51_000), told);
        assert!(home.0.is_idle(Millis(51_000)));
        assert_eq!(home.0.next_deadline(), None);
    }

    #[test]
    fn who_was_with_another_node_meanwhile_is_never_told_to_have_left() {
        let mut home = Behind::new();
        home.joins(0, "ann");
        assert_eq!(home.leaves(10, "ann"), ["vacant"]);
        assert_eq!(home.settles(20_000), NOTHING);
        assert_eq!(home.hears(20_000, Elsewhere::Subscriptions(1)), NOTHING);
        assert_eq!(home.has(20_000, "ann"), NOTHING);
        home.is_not_any_more();
        assert_eq!(home.settles(100_000), NOTHING);
        let left = Elsewhere::MemberLeft {
            user_id: "ann".into(),
        };
        assert_eq!(home.hears(100_000, left), ["tell -ann"]);
        assert_eq!(home.settles(103_000), ["hook -ann"]);
    }

    #[test]
    fn who_comes_back_before_it_was_told_was_never_gone() {
        let mut home = Behind::new();
        home.joins(0, "ann");
        home.leaves(10, "ann");
        assert_eq!(home.settles(20_000), NOTHING);
        assert_eq!(home.joins(20_000, "ann"), ["occupied", "joined"]);
        home.is_not_any_more();
        assert_eq!(home.settles(100_000), NOTHING);
        assert_eq!(home.0.users(), 1);
    }

    #[test]
    fn who_moves_between_other_nodes_is_not_told_to_have_left_either() {
        let mut home = Behind::new();
        assert_eq!(home.has(0, "ann"), ["tell +ann", "hook +ann"]);
        let left = || Elsewhere::MemberLeft {
            user_id: "ann".into(),
        };
        assert_eq!(home.hears(10, left()), NOTHING);
        assert_eq!(home.hears(20, left()), NOTHING, "said twice");
        assert_eq!(home.has(30, "ann"), NOTHING);
        home.is_not_any_more();
        assert_eq!(home.settles(100_000), NOTHING);
    }

    #[test]
    fn a_going_is_held_back_for_a_minute_and_gives_way_to_who_comes() {
        let mut home = Behind::new();
        home.joins(0, "ann");
        home.joins(0, "bob");
        home.leaves(10, "ann");
        home.leaves(20, "bob");
        let here: Vec<String> = home.0.user_ids().map(|it| it.to_string()).collect();
        assert_eq!(here, ["ann", "bob"]);
        // The channel holds two.
        let comes = ["tell -ann", "occupied", "tell +cid", "hook +cid", "joined"];
        assert_eq!(home.joins(30, "cid"), comes);
        assert_eq!(home.settles(59_000), NOTHING);
        let told = ["tell -bob", "hook -ann", "hook -bob"];
        assert_eq!(home.settles(61_000), told);
        assert_eq!(home.leaves(70_000, "cid"), ["vacant"]);
        assert_eq!(home.settles(129_000), NOTHING, "another minute");
        assert_eq!(
            home.settles(131_000),
            ["tell -cid", "hook -cid", "hook vacated"]
        );
    }

    #[test]
    fn many_that_were_held_back_are_told_in_steps() {
        const CROWD: usize = 2 * DEPARTURES_AT_ONCE + 1;
        let mut home = Behind::new();
        home.1.members_max = u32::MAX;
        home.1.hook_members = false;
        (0..CROWD).for_each(|it| drop(home.joins(0, &it.to_string())));
        (0..CROWD).for_each(|it| drop(home.leaves(1, &it.to_string())));
        assert_eq!(home.settles(20_000), NOTHING);
        home.is_not_any_more();
        for told in [DEPARTURES_AT_ONCE, DEPARTURES_AT_ONCE, 1 + 1] {
            let at = home.0.next_deadline().expect("more is to be told");
            let mut effects = Vec::new();
            home.0.settle_later(at, &home.1, &mut effects);
            assert_eq!(effects.len(), told);
        }
        assert_eq!(home.0.next_deadline(), None);
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
}
