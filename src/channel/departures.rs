//! Users who have left a presence channel, while their return is waited for.
//!
//! Owns: `Departures`: who left, when that is told, and in which order.
//! May depend on: plain ids. Not on clocks.
//! Invariants: whoever waits is in the order at its time; the first of the order waits, so that the
//! next time is known at once; at most as many places of the order are in vain as are not, and some.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use shards::application::Millis;

/// Departures that are not told yet.
#[derive(Clone, Debug, Default)]
pub(super) struct Departures {
    /// Who waits, and the number of the departure.
    waiting: BTreeMap<Arc<str>, u64>,
    /// In the order of their times; some may have returned.
    order: VecDeque<Departure>,
    numbered: u64,
}

#[derive(Clone, Debug)]
struct Departure {
    user_id: Arc<str>,
    at: Millis,
    number: u64,
}

/// Places of the order that may be in vain, beside one for each who waits.
const IN_VAIN_MAX: usize = 64;

impl Departures {
    /// A user left. Who left before is told before, also if the grace has become shorter.
    pub(super) fn add(&mut self, user_id: Arc<str>, at: Millis) {
        let at = self.order.back().map_or(at, |last| at.max(last.at));
        self.numbered += 1;
        let number = self.numbered;
        self.waiting.insert(Arc::clone(&user_id), number);
        self.order.push_back(Departure {
            user_id,
            at,
            number,
        });
    }

    /// A user is back; true if its going was not told yet.
    pub(super) fn cancel(&mut self, user_id: &str) -> bool {
        let was_waiting = self.waiting.remove(user_id).is_some();
        self.skip_returned();
        was_waiting
    }

    /// When the first is due.
    pub(super) fn next_at(&self) -> Option<Millis> {
        self.order.front().map(|first| first.at)
    }

    /// The first, if it is due.
    pub(super) fn pop_due(&mut self, now: Millis) -> Option<Arc<str>> {
        let first = self.order.pop_front_if(|first| first.at <= now)?;
        self.waiting.remove(&first.user_id);
        self.skip_returned();
        Some(first.user_id)
    }

    /// Who waits, and until when (milliseconds), in the order of the times.
    pub(super) fn list(&self) -> Vec<(String, u64)> {
        let waits = |it: &&Departure| self.waiting.get(&it.user_id) == Some(&it.number);
        let waiting = self.order.iter().filter(waits);
        waiting
            .map(|it| (it.user_id.to_string(), it.at.0))
            .collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    fn skip_returned(&mut self) {
        let waiting = &self.waiting;
        let waits = |it: &Departure| waiting.get(&it.user_id) == Some(&it.number);
        while self.order.pop_front_if(|first| !waits(first)).is_some() {}
        // Half of the order is in vain by then, so this costs each departure a constant.
        if self.order.len() > 2 * waiting.len() + IN_VAIN_MAX {
            self.order.retain(waits);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against a list that is searched: the same users, in the same order, at the same times.
        #[test]
        fn who_left_and_did_not_return_is_told_in_order(
            steps in prop::collection::vec((0..3_u8, 0..6_u8, 0..4_u64), 0..200)
        ) {
            let (mut departures, mut list) = (Departures::default(), Vec::new());
            let mut now = Millis(0);
            for (step, user, ms) in steps {
                let user_id: Arc<str> = user.to_string().into();
                let is_away = list.iter().any(|(it, _)| *it == user_id);
                match step {
                    0 if !is_away => {
                        departures.add(Arc::clone(&user_id), now.plus(3));
                        list.push((user_id, now.plus(3)));
                    }
                    1 => {
                        prop_assert_eq!(departures.cancel(&user_id), is_away);
                        list.retain(|(it, _)| *it != user_id);
                    }
                    _ => {
                        now = now.plus(ms);
                        let due = list.extract_if(.., |(_, at)| *at <= now);
                        for (user_id, _) in due {
                            prop_assert_eq!(departures.pop_due(now), Some(user_id));
                        }
                        prop_assert_eq!(departures.pop_due(now), None);
                    }
                }
                prop_assert_eq!(departures.next_at(), list.first().map(|(_, at)| *at));
                prop_assert_eq!(departures.is_empty(), list.is_empty());
                prop_assert!(departures.order.len() <= 2 * list.len() + IN_VAIN_MAX);
            }
        }
    }
}
