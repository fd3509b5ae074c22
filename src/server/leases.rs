//! Rates that are counted in a store that nodes share: what this shard has taken in advance.
//!
//! Owns: `Leases`.
//! May depend on: `bridge::message`, `connection::pending`, `handover::record`.
//! Invariants: what is granted here was taken from the store before; at most one question per rate is on
//! its way; nobody who waits is refused while the store has what it wants; what was taken and not used is void after
//! `LEASE_MS`, and so is a refusal; at most `leases_max` rates are remembered, and one that somebody waits for is not
//! forgotten.

use std::collections::VecDeque;

use ahash::AHashMap;
use shards::application::{Millis, Waiter};

use crate::{
    bridge::message::{RateGrant, RateOf, RateQuestion},
    connection::pending::RateState,
    handover::record::{LeaseOf, LeaseRecord},
};

/// The rates of which this shard is the home.
#[derive(Clone)]
pub(super) struct Leases {
    leases: AHashMap<RateOf, Lease>,
    /// Each rate once, to be looked at from then on: it may be forgotten.
    ends: VecDeque<(Millis, RateOf)>,
    leases_max: usize,
    /// Questions that the store has not answered.
    asked: usize,
}

#[derive(Clone, Default)]
struct Lease {
    /// Taken from the store and not used.
    left: u32,
    left_until: Millis,
    /// The store is not asked again until then.
    denied_until: Millis,
    /// When it will have some again, by what it said.
    again_at: Millis,
    /// What the store had left, and when all of it will be there again.
    remaining: u32,
    whole_at: Millis,
    waiting: Vec<(Waiter, u32)>,
    is_asked: bool,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    Granted(RateState),
    Denied(RateState),
    /// It waits for the store, which is to be asked this, unless it is asked already.
    Waits(Option<RateQuestion>),
    /// Too many rates are waited for.
    Full,
}

/// Who waited, and what becomes of them; `None`: the store did not say.
pub(super) type Served = Vec<(Waiter, u32, Option<(bool, RateState)>)>;

/// What follows an answer of the store.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) served: Served,
    /// Others wait for more than it gave: it is to be asked this.
    pub(super) next: Option<RateQuestion>,
}

/// A rate as the configuration has it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    pub(super) limit: u32,
    pub(super) window_ms: u64,
    /// What requests of more than the limit may owe beyond it.
    pub(super) debt_ms_max: u64,
}

/// What is taken beyond what is asked for: so much of the limit, so that a busy rate asks some fifty
/// times per window and node.
const LEASE_PART: u32 = 50;
const LEASE_MAX: u32 = 1_000;
/// What other nodes may still use of the rate is not kept from them for long; nor is a refusal believed for
/// longer, since the limit or what was counted may be others by then.
const LEASE_MS: u64 = 1_000;
/// Looked at per request.
const FORGOTTEN_PER_REQUEST: usize = 4;

impl Leases {
    pub(super) fn new(leases_max: usize) -> Self {
        assert!(leases_max > 0, "the rate that is asked for must be counted");
        Self {
            leases: AHashMap::new(),
            ends: VecDeque::new(),
            leases_max,
            asked: 0,
        }
    }

    /// Takes `count` of a rate for who waits. More than the limit the store gives when all of it is there.
    pub(super) fn take(
        &mut self,
        now: Millis,
        of: RateOf,
        rate: Rate,
        waiter: Waiter,
        count: u32,
    ) -> Taken {
        self.forget_old(now);
        if !self.leases.contains_key(&of) {
            if self.leases.len() >= self.leases_max {
                return Taken::Full;
            }
            self.leases.insert(of, Lease::default());
            self.ends.push_back((now.plus(LEASE_MS), of));
        }
        let lease = self.leases.get_mut(&of).expect("it was put there");
        if let Some(state) = lease.use_up(now, rate.limit, count) {
            return Taken::Granted(state);
        }
        if now < lease.denied_until {
            return Taken::Denied(lease.denied(now, rate.limit));
        }
        lease.waiting.push((waiter, count));
        if std::mem::replace(&mut lease.is_asked, true) {
            return Taken::Waits(None);
        }
        self.asked += 1;
        Taken::Waits(Some(question_of(of, rate, count, count)))
    }

    /// The store has answered, or could not be asked.
    pub(super) fn on_answer(
        &mut self,
        now: Millis,
        question: &RateQuestion,
        grant: Option<RateGrant>,
    ) -> Answered {
        let mut served = Vec::new();
        let Some(lease) = self.leases.get_mut(&question.of) else {
            let next = None;
            return Answered { served, next };
        };
        let waiting = std::mem::take(&mut lease.waiting);
        match grant {
            Some(grant) => lease.serve(now, question, grant, waiting, &mut served),
            None => served.extend(
                waiting
                    .into_iter()
                    .map(|(waiter, count)| (waiter, count, None)),
            ),
        }
        let next = lease.next_question(question);
        if next.is_none() {
            self.asked -= usize::from(std::mem::take(&mut lease.is_asked));
        }
        Answered { served, next }
    }

    /// What is known of each rate, for the process that follows; `name` is what it is called there.
    pub(super) fn records<'a>(
        &'a self,
        now: Millis,
        name: impl Fn(RateOf) -> Option<LeaseOf> + 'a,
    ) -> impl Iterator<Item = LeaseRecord> + 'a {
        let leases = self.leases.iter();
        let leases = leases.filter(move |(_, lease)| lease.needed_until(now).is_some());
        leases.filter_map(move |(of, lease)| {
            Some(LeaseRecord {
                of: name(*of)?,
                left: lease.left,
                left_until_ms: lease.left_until.0,
                denied_until_ms: lease.denied_until.0,
                again_at_ms: lease.again_at.0,
                remaining: lease.remaining,
                whole_at_ms: lease.whole_at.0,
            })
        })
    }

    /// The process before knew this of a rate.
    pub(super) fn restore(&mut self, now: Millis, of: RateOf, record: &LeaseRecord) {
        if self.leases.len() >= self.leases_max {
            return; // Its store is asked.
        }
        let lease = Lease {
            left: record.left,
            left_until: Millis(record.left_until_ms),
            denied_until: Millis(record.denied_until_ms),
            again_at: Millis(record.again_at_ms),
            remaining: record.remaining,
            whole_at: Millis(record.whole_at_ms),
            ..Lease::default()
        };
        if self.leases.insert(of, lease).is_none() {
            self.ends.push_back((now.plus(LEASE_MS), of));
        }
    }

    /// Nobody waits for the store.
    pub(super) fn is_served(&self) -> bool {
        self.asked == 0
    }

    /// Rates remembered.
    pub(super) fn len(&self) -> usize {
        self.leases.len()
    }

    fn forget_old(&mut self, now: Millis) {
        for _ in 0..FORGOTTEN_PER_REQUEST {
            let Some((_, of)) = self.ends.pop_front_if(|(end, _)| *end <= now) else {
                return;
            };
            match self
                .leases
                .get(&of)
                .and_then(|lease| lease.needed_until(now))
            {
                Some(end) => self.ends.push_back((end, of)),
                None => _ = self.leases.remove(&of),
            }
        }
    }
}

impl Lease {
    /// Takes over what the store gave, for those who wait, first come first served. Whoever it does not cover is
    /// refused if it was that or less which the store refused, or if that has nothing left, and waits on if not.
    // The first who waits wants what is asked for at least: so each answer serves or refuses it.
    fn serve(
        &mut self,
        now: Millis,
        question: &RateQuestion,
        grant: RateGrant,
        waiting: Vec<(Waiter, u32)>,
        served: &mut Served,
    ) {
        let left = if now < self.left_until { self.left } else { 0 };
        self.left = left.saturating_add(grant.granted);
        self.left_until = now.plus(LEASE_MS.min(question.window_ms));
        self.remaining = grant.remaining;
        self.whole_at = now.plus(grant.whole_in_ms);
        let is_refused = grant.granted < question.least;
        let is_empty = grant.remaining == 0;
        if is_empty {
            self.again_at = now.plus(grant.wait_ms);
        }
        if is_refused && is_empty {
            self.denied_until = now.plus(grant.wait_ms.clamp(1, LEASE_MS));
        }
        for (waiter, count) in waiting {
            let is_denied = is_empty || (is_refused && count >= question.least);
            let said = match self.use_up(now, question.limit, count) {
                Some(state) => (true, state),
                None if is_denied => (false, self.denied(now, question.limit)),
                None => {
                    self.waiting.push((waiter, count));
                    continue;
                }
            };
            served.push((waiter, count, Some(said)));
        }
    }

    /// All that those want together who wait on.
    fn next_question(&self, before: &RateQuestion) -> Option<RateQuestion> {
        let (_, least) = *self.waiting.first()?;
        let wanted = self.waiting.iter().map(|(_, count)| *count);
        let rate = Rate {
            limit: before.limit,
            window_ms: before.window_ms,
            debt_ms_max: before.debt_ms_max,
        };
        let all = wanted.fold(0, u32::saturating_add);
        Some(question_of(before.of, rate, all, least))
    }

    fn use_up(&mut self, now: Millis, limit: u32, count: u32) -> Option<RateState> {
        if now >= self.left_until {
            self.left = 0;
        }
        self.left = self.left.checked_sub(count)?;
        Some(RateState {
            limit,
            remaining: self.remaining.saturating_add(self.left).min(limit),
            reset_s: seconds(self.whole_at.since(now)),
        })
    }

    fn denied(&self, now: Millis, limit: u32) -> RateState {
        RateState {
            limit,
            remaining: 0,
            reset_s: seconds(self.again_at.since(now)).max(1),
        }
    }

    /// `None` once it may be forgotten.
    fn needed_until(&self, now: Millis) -> Option<Millis> {
        let end = self.left_until.max(self.denied_until);
        if self.is_asked {
            return Some(now.plus(LEASE_MS));
        }
        (end > now).then_some(end)
    }
}

/// For those who want so much together, of whom the first wants `least`.
fn question_of(of: RateOf, rate: Rate, count: u32, least: u32) -> RateQuestion {
    let more = (rate.limit / LEASE_PART).min(LEASE_MAX);
    RateQuestion {
        of,
        limit: rate.limit,
        window_ms: rate.window_ms,
        debt_ms_max: rate.debt_ms_max,
        count: count.saturating_add(more).min(rate.limit).max(least),
        least,
    }
}

fn seconds(ms: u64) -> u32 {
    u32::try_from(ms.div_ceil(1_000)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use shards::application::{ShardId, Slot};

    use super::*;
    use crate::protocol::app::AppIndex;

    const RATE: Rate = Rate {
        limit: 100,
        window_ms: 60_000,
        debt_ms_max: 0,
    };

    fn of(number: u32) -> RateOf {
        RateOf::Reads(AppIndex(number))
    }

    fn waiter(number: u32) -> Waiter {
        let slot = Slot {
            index: number,
            generation: 0,
        };
        Waiter {
            shard: ShardId(0),
            slot,
            operation: 0,
        }
    }

    fn grant(granted: u32, remaining: u32, wait_ms: u64) -> Option<RateGrant> {
        Some(RateGrant {
            granted,
            remaining,
            whole_in_ms: 3_000,
            wait_ms,
        })
    }

    fn asks(leases: &mut Leases, now: u64, number: u32, count: u32) -> RateQuestion {
        match leases.take(Millis(now), of(0), RATE, waiter(number), count) {
            Taken::Waits(Some(question)) => question,
            other => panic!("{other:?}"),
        }
    }

    fn granted(answered: &Answered) -> Vec<(u32, Option<bool>)> {
        let said = answered.served.iter();
        said.map(|(waiter, _, said)| (waiter.slot.index, said.map(|it| it.0)))
            .collect()
    }

    #[test]
    fn the_first_asks_the_others_wait_with_it_and_what_is_left_is_used_without_asking() {
        let mut leases = Leases::new(10);
        let question = asks(&mut leases, 0, 1, 1);
        assert_eq!((question.count, question.least), (3, 1));
        for number in 2..=4 {
            let taken = leases.take(Millis(0), of(0), RATE, waiter(number), 1);
            assert_eq!(taken, Taken::Waits(None));
        }
        let answered = leases.on_answer(Millis(5), &question, grant(3, 97, 0));
        let expected = [1, 2, 3].map(|number| (number, Some(true)));
        assert_eq!(granted(&answered), expected);
        let question = answered.next.expect("the fourth waits on");
        assert_eq!((question.count, question.least), (3, 1));
        assert!(!leases.is_served());
        let answered = leases.on_answer(Millis(6), &question, grant(1, 96, 0));
        assert_eq!(granted(&answered), [(4, Some(true))]);
        assert!(answered.next.is_none() && leases.is_served());
        let question = asks(&mut leases, 6, 5, 1);
        leases.on_answer(Millis(7), &question, grant(3, 94, 0));
        let Taken::Granted(state) = leases.take(Millis(8), of(0), RATE, waiter(6), 2) else {
            panic!("two are left");
        };
        assert_eq!((state.limit, state.remaining, state.reset_s), (100, 94, 3));
    }

    #[test]
    fn whoever_waits_is_refused_when_the_store_has_nothing_left_or_not_as_much() {
        for (case, counts, given, expected, next) in [
            ("nothing left", [1, 1, 2, 1], (2, 0), "++--", None),
            ("not for all", [1, 1, 5, 1], (3, 7), "++ +", Some((7, 5))),
            (
                "not for the first",
                [5, 6, 1, 2],
                (0, 4),
                "--  ",
                Some((5, 1)),
            ),
            ("some for the others", [5, 6, 1, 2], (3, 4), "--++", None),
        ] {
            let mut leases = Leases::new(10);
            let question = asks(&mut leases, 0, 0, counts[0]);
            for (number, count) in (0..).zip(counts).skip(1) {
                let taken = leases.take(Millis(0), of(0), RATE, waiter(number), count);
                assert_eq!(taken, Taken::Waits(None));
            }
            let (granted, remaining) = given;
            let answered = leases.on_answer(Millis(1), &question, grant(granted, remaining, 0));
            let mut said = [' '; 4];
            for (waiter, _, passed) in &answered.served {
                let (passed, _) = passed.expect("the store has answered");
                said[waiter.slot.index as usize] = if passed { '+' } else { '-' };
            }
            assert_eq!(String::from_iter(said), expected, "{case}");
            let asked = answered.next.map(|it| (it.count, it.least));
            assert_eq!(asked, next, "{case}");
            assert_eq!(leases.is_served(), next.is_none(), "{case}");
        }
    }

    #[test]
    fn what_the_store_refused_is_refused_here_until_it_has_some_again() {
        let mut leases = Leases::new(10);
        let question = asks(&mut leases, 0, 1, 1);
        let served = leases.on_answer(Millis(1), &question, grant(0, 0, 1_500));
        assert_eq!(granted(&served), [(1, Some(false))]);
        for (now, reset_s) in [(2, 2), (600, 1), (1_000, 1)] {
            let Taken::Denied(state) = leases.take(Millis(now), of(0), RATE, waiter(1), 1) else {
                panic!("nothing is left at {now}");
            };
            assert_eq!((state.remaining, state.reset_s), (0, reset_s));
        }
        // Somebody may have raised the limit meanwhile.
        let question = asks(&mut leases, 1_001, 1, 1);
        let served = leases.on_answer(Millis(1_002), &question, grant(0, 0, 500));
        assert_eq!(granted(&served), [(1, Some(false))]);
    }

    #[test]
    fn what_was_taken_and_not_used_is_void_after_a_while() {
        let mut leases = Leases::new(10);
        let question = asks(&mut leases, 0, 1, 1);
        leases.on_answer(Millis(0), &question, grant(3, 97, 0));
        assert!(matches!(
            leases.take(Millis(999), of(0), RATE, waiter(1), 1),
            Taken::Granted(_)
        ));
        asks(&mut leases, 1_000, 1, 1);
    }

    #[test]
    fn without_an_answer_all_who_wait_are_told_so_and_the_next_asks_again() {
        let mut leases = Leases::new(10);
        let question = asks(&mut leases, 0, 1, 7);
        leases.take(Millis(0), of(0), RATE, waiter(2), 1);
        let answered = leases.on_answer(Millis(1), &question, None);
        assert_eq!(granted(&answered), [(1, None), (2, None)]);
        assert_eq!(answered.served[0].1, 7);
        asks(&mut leases, 2, 3, 1);
    }

    #[test]
    fn what_is_left_and_what_is_refused_goes_on_in_the_next_process() {
        let mut before = Leases::new(10);
        let question = asks(&mut before, 0, 1, 1);
        before.on_answer(Millis(0), &question, grant(3, 97, 0));
        let taken = before.take(Millis(0), of(1), RATE, waiter(1), 1);
        let Taken::Waits(Some(question)) = taken else {
            panic!("{taken:?}");
        };
        before.on_answer(Millis(0), &question, grant(0, 0, 1_500));
        let name = |of| match of {
            RateOf::Reads(app) => Some(LeaseOf::Reads(app.0.to_string())),
            _ => None,
        };
        let mut after = Leases::new(10);
        for record in before.records(Millis(10), name) {
            let LeaseOf::Reads(number) = &record.of else {
                panic!("{record:?}");
            };
            let of = of(number.parse().expect("a number"));
            after.restore(Millis(20), of, &record);
        }
        for number in 1..=2 {
            let taken = after.take(Millis(30), of(0), RATE, waiter(number), 1);
            assert!(matches!(taken, Taken::Granted(_)), "{taken:?}");
        }
        asks(&mut after, 30, 3, 1);
        let taken = after.take(Millis(30), of(1), RATE, waiter(1), 1);
        assert!(matches!(taken, Taken::Denied(_)), "{taken:?}");
        assert_eq!(
            before.records(Millis(1_000), name).count(),
            0,
            "all is void"
        );
    }

    #[test]
    fn a_request_of_more_than_the_limit_asks_for_all_of_it_and_nothing_in_advance() {
        let mut leases = Leases::new(10);
        let question = asks(&mut leases, 0, 1, 1_000);
        assert_eq!((question.count, question.least), (1_000, 1_000));
        let served = leases.on_answer(Millis(1), &question, grant(1_000, 0, 9_010));
        assert_eq!(granted(&served), [(1, Some(true))]);
        let question = asks(&mut leases, 2, 1, 101);
        let served = leases.on_answer(Millis(3), &question, grant(0, 0, 9_008));
        assert_eq!(granted(&served), [(1, Some(false))]);
        let Taken::Denied(state) = leases.take(Millis(4), of(0), RATE, waiter(1), 1) else {
            panic!("it is owed");
        };
        assert_eq!(state.reset_s, 10);
    }

    #[test]
    fn rates_are_bounded_and_old_ones_make_room() {
        let mut leases = Leases::new(2);
        let mut questions = Vec::new();
        for number in 0..2 {
            let taken = leases.take(Millis(0), of(number), RATE, waiter(1), 1);
            let Taken::Waits(Some(question)) = taken else {
                panic!("{taken:?}");
            };
            questions.push(question);
        }
        let taken = leases.take(Millis(5_000), of(9), RATE, waiter(1), 1);
        assert_eq!(taken, Taken::Full, "somebody waits for each");
        for question in &questions {
            leases.on_answer(Millis(5_000), question, grant(3, 97, 0));
        }
        assert_eq!(
            leases.take(Millis(5_500), of(9), RATE, waiter(1), 1),
            Taken::Full
        );
        let taken = leases.take(Millis(6_001), of(9), RATE, waiter(1), 1);
        assert!(matches!(taken, Taken::Waits(Some(_))), "{taken:?}");
        assert_eq!(leases.len(), 1);
    }
}
