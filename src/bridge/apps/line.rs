//! Questions of strangers to the store: which are with it, which wait for a place, and which would wait in vain.
//! It decides, and does nothing: time comes in.
//!
//! Owns: `Line`, `Rank`.
//! May depend on: `bridge::apps` for names.
//! Invariants: no more are with the store than it has places; what is put to it has waited for `patience` at most, so
//! that its work is of use to whoever asked; who has asked less waits for none that has asked more.

use std::{collections::VecDeque, time::Duration};

use ahash::AHashMap;

use super::AppName;

#[derive(Debug)]
pub(super) struct Line {
    /// Questions that the store may have at once.
    places: usize,
    patience: Duration,
    inside: AHashMap<AppName, Inside>,
    /// By rank, and since when.
    waiting: [VecDeque<(Duration, AppName)>; 3],
    /// For one answer, as the store was lately; 0 before the first.
    takes: Duration,
}

/// Whom a question is of: of one who has asked nothing of late, not much, or more than that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rank {
    First,
    Modest,
    Other,
}

/// With the store.
#[derive(Clone, Copy, Debug)]
struct Inside {
    since: Duration,
    /// What the store says may be older than a call to look again.
    is_stale: bool,
}

impl Line {
    pub(super) fn new(places: usize, patience: Duration) -> Self {
        Self {
            places,
            patience,
            inside: AHashMap::new(),
            waiting: Default::default(),
            takes: Duration::ZERO,
        }
    }

    pub(super) fn resize(&mut self, places: usize, patience: Duration) {
        (self.places, self.patience) = (places, patience);
    }

    /// One more would be put to the store in time.
    pub(super) fn has_room(&self, rank: Rank) -> bool {
        let before = self.waiting.iter().take(rank as usize + 1);
        let before: usize = before.map(VecDeque::len).sum();
        let rounds = self.patience.as_nanos() / self.takes.as_nanos().max(1);
        // A store that is that slow may be faster with the next one.
        let rounds = usize::try_from(rounds.max(1)).unwrap_or(usize::MAX);
        before < self.places.saturating_mul(rounds)
    }

    /// A question waits for a place, unless the store has it already.
    pub(super) fn enter(&mut self, now: Duration, rank: Rank, name: AppName) {
        if !self.inside.contains_key(&name) {
            self.waiting[rank as usize].push_back((now, name));
        }
    }

    /// The next one that has waited in vain.
    pub(super) fn give_up(&mut self, now: Duration) -> Option<AppName> {
        let patience = self.patience;
        let mut ranks = self.waiting.iter_mut();
        let late = ranks.find_map(|rank| rank.pop_front_if(|(since, _)| *since + patience <= now));
        late.map(|(_, name)| name)
    }

    /// The next one that is put to the store.
    pub(super) fn put(&mut self, now: Duration) -> Option<AppName> {
        if self.inside.len() >= self.places {
            return None;
        }
        let (_, name) = self.waiting.iter_mut().find_map(VecDeque::pop_front)?;
        self.put_again(now, name.clone());
        Some(name)
    }

    /// One that had its place keeps it.
    pub(super) fn put_again(&mut self, now: Duration, name: AppName) {
        let is_stale = false;
        let since = now;
        self.inside.insert(name, Inside { since, is_stale });
    }

    /// What the store says of those that it has may be how it was.
    pub(super) fn doubt(&mut self) {
        for inside in self.inside.values_mut() {
            inside.is_stale = true;
        }
    }

    /// The store has answered, or could not. True if that may be how it was before a call to look again.
    pub(super) fn leave(&mut self, now: Duration, name: &AppName) -> bool {
        let Some(Inside { since, is_stale }) = self.inside.remove(name) else {
            return false;
        };
        let took = now.saturating_sub(since);
        self.takes = match self.takes {
            Duration::ZERO => took,
            before => (before * 3 + took) / 4,
        };
        is_stale
    }

    /// When `give_up` has something.
    pub(super) fn due(&self) -> Option<Duration> {
        let fronts = self.waiting.iter().filter_map(VecDeque::front);
        let since = fronts.map(|(since, _)| *since).min();
        since.map(|since| since + self.patience)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(1);

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn name(name: &str) -> AppName {
        AppName::Key(name.into())
    }

    fn all_put(line: &mut Line, now: Duration) -> Vec<AppName> {
        std::iter::from_fn(|| line.put(now)).collect()
    }

    fn names<const N: usize>(names: [&str; N]) -> Vec<AppName> {
        names.map(name).to_vec()
    }

    #[test]
    fn the_store_has_as_many_as_it_has_places_and_who_has_asked_less_goes_first() {
        let mut line = Line::new(2, PATIENCE);
        for flood in ["f-1", "f-2", "f-3", "f-4"] {
            line.enter(at(0), Rank::Other, name(flood));
        }
        line.enter(at(0), Rank::Modest, name("a"));
        assert_eq!(all_put(&mut line, at(0)), names(["a", "f-1"]));
        line.enter(at(1), Rank::Modest, name("b"));
        line.enter(at(1), Rank::First, name("c"));
        // It has this one: its answer is that of whoever asks anew.
        line.enter(at(1), Rank::Modest, name("a"));
        assert_eq!(all_put(&mut line, at(1)), []);
        assert!(!line.leave(at(2), &name("f-1")));
        assert_eq!(all_put(&mut line, at(2)), names(["c"]));
        assert!(!line.leave(at(2), &name("nobody's")));
        assert_eq!(all_put(&mut line, at(2)), []);
        line.leave(at(3), &name("a"));
        line.leave(at(3), &name("c"));
        assert_eq!(all_put(&mut line, at(3)), names(["b", "f-2"]));
        line.leave(at(4), &name("b"));
        line.leave(at(4), &name("f-2"));
        assert_eq!(all_put(&mut line, at(4)), names(["f-3", "f-4"]));
        assert_eq!(line.due(), None);
    }

    #[test]
    fn as_many_may_wait_as_the_store_answers_in_time_and_none_of_a_flood_counts_for_others() {
        let line = Line::new(2, PATIENCE);
        assert!(line.has_room(Rank::Other), "nothing is known of the store");
        // Milliseconds of an answer, and how many may wait.
        for (takes, most) in [
            (0, 1_000),
            (100, 20),
            (500, 4),
            (501, 2),
            (1_000, 2),
            (9_000, 2),
        ] {
            let mut line = Line::new(2, PATIENCE);
            line.enter(at(0), Rank::Other, name("first"));
            assert_eq!(line.put(at(0)), Some(name("first")));
            line.leave(at(takes), &name("first"));
            let mut enter = |rank, waiting: usize| {
                for number in 0..waiting {
                    assert!(line.has_room(rank), "{number} of {waiting} at {takes} ms");
                    line.enter(at(takes), rank, name(&format!("{rank:?}-{number}")));
                }
                line.has_room(rank)
            };
            for rank in [Rank::Other, Rank::Modest, Rank::First] {
                assert_eq!(enter(rank, most), takes == 0, "{rank:?}, {takes} ms");
            }
        }
    }

    #[test]
    fn what_a_store_takes_is_as_it_was_lately() {
        let mut line = Line::new(1, PATIENCE);
        let mut takes = |ms| {
            line.enter(at(0), Rank::Modest, name("a"));
            line.put(at(0));
            line.leave(at(ms), &name("a"));
            line.takes
        };
        assert_eq!(takes(2_000), at(2_000));
        assert_eq!(takes(0), at(1_500));
        for _ in 0..100 {
            takes(100);
        }
        assert!((at(100)..at(101)).contains(&line.takes), "{:?}", line.takes);
    }

    #[test]
    fn who_has_waited_too_long_is_not_put_to_the_store() {
        let mut line = Line::new(1, PATIENCE);
        line.enter(at(0), Rank::Other, name("inside"));
        assert_eq!(line.put(at(0)), Some(name("inside")));
        for (ms, rank, who) in [
            (10, Rank::Other, "other"),
            (20, Rank::Modest, "modest"),
            (30, Rank::Modest, "later"),
        ] {
            line.enter(at(ms), rank, name(who));
        }
        assert_eq!(line.due(), Some(at(1_010)));
        assert_eq!(line.give_up(at(1_009)), None);
        assert_eq!(line.give_up(at(1_010)), Some(name("other")));
        assert_eq!(line.due(), Some(at(1_020)));
        assert_eq!(line.give_up(at(1_020)), Some(name("modest")));
        assert_eq!(line.give_up(at(1_020)), None);
        line.leave(at(1_029), &name("inside"));
        assert_eq!(line.put(at(1_029)), Some(name("later")));
        assert_eq!(line.due(), None);
    }

    #[test]
    fn what_the_store_had_before_a_call_to_look_again_may_be_stale() {
        let mut line = Line::new(1, PATIENCE);
        line.enter(at(0), Rank::Modest, name("a"));
        line.enter(at(0), Rank::Modest, name("b"));
        line.put(at(0));
        line.doubt();
        assert!(line.leave(at(1), &name("a")));
        line.put_again(at(1), name("a"));
        assert_eq!(line.put(at(1)), None, "it has kept its place");
        assert!(!line.leave(at(2), &name("a")));
        assert_eq!(line.put(at(2)), Some(name("b")));
        assert!(!line.leave(at(3), &name("b")), "it only waited then");
    }
}
