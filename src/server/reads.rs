//! Publications that are read and written over several turns: whose turn it is.
//!
//! Owns: their order.
//! May depend on: `protocol::app`, the runtime's waiters.
//! Invariants: each app's are done one after the other, so that of each app one at most has frames and the others
//! what their first slice made; between apps a slice each, until all that are read hold too much: then the one that
//! holds the most goes on to its end (`bodies`), and who waits begins when there is room again, apps in turn.

use std::collections::VecDeque;

use ahash::AHashMap;
use shards::application::Waiter;

use crate::protocol::app::AppIndex;

/// Who waits, by app.
#[derive(Clone, Debug, Default)]
pub(super) struct Reads {
    /// Apps with somebody who waits; the first is next.
    order: VecDeque<AppIndex>,
    waiters: AHashMap<AppIndex, VecDeque<Waiter>>,
    /// There is an errand for the next slice.
    pub(super) is_listed: bool,
    /// The slot of the one that goes on alone.
    alone: Option<u32>,
}

impl Reads {
    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Adds one behind those of its app.
    pub(super) fn push(&mut self, app: AppIndex, waiter: Waiter) {
        self.waiters_of(app).push_back(waiter);
    }

    /// Puts back the one that was taken last, under the number by which it waits now: before those of its app,
    /// which comes behind the other apps.
    pub(super) fn put_back(&mut self, app: AppIndex, waiter: Waiter) {
        self.waiters_of(app).push_front(waiter);
    }

    fn waiters_of(&mut self, app: AppIndex) -> &mut VecDeque<Waiter> {
        let order = &mut self.order;
        self.waiters.entry(app).or_insert_with(|| {
            order.push_back(app);
            VecDeque::new()
        })
    }

    /// Who goes on alone, if anybody does. True where one begins to.
    pub(super) fn goes_on_alone(&mut self, slot: Option<u32>) -> bool {
        std::mem::replace(&mut self.alone, slot) != slot && slot.is_some()
    }

    /// The next one of an app is in this slot.
    pub(super) fn is_next_of(&self, app: AppIndex, slot: u32) -> bool {
        let next = self.waiters.get(&app).and_then(VecDeque::front);
        next.is_some_and(|it| it.slot.index == slot)
    }

    /// The next one of an app, out of its turn: the app keeps its place among the others.
    pub(super) fn pop_of(&mut self, app: AppIndex) -> Option<Waiter> {
        let waiters = self.waiters.get_mut(&app)?;
        let waiter = waiters.pop_front();
        if waiters.is_empty() {
            self.waiters.remove(&app);
            self.order.retain(|it| *it != app);
        }
        waiter
    }

    /// The one whose turn it is. Its app comes behind the others.
    pub(super) fn pop(&mut self) -> Option<Waiter> {
        let app = self.order.pop_front()?;
        let waiters = self.waiters.get_mut(&app)?;
        let waiter = waiters.pop_front();
        if waiters.is_empty() {
            self.waiters.remove(&app);
        } else {
            self.order.push_back(app);
        }
        waiter
    }
}

#[cfg(test)]
mod tests {
    use shards::application::{ShardId, Slot};

    use super::*;

    #[test]
    fn apps_take_turns_and_each_does_one_after_the_other() {
        let waiter = |operation| Waiter {
            shard: ShardId(0),
            slot: Slot {
                index: 0,
                generation: 0,
            },
            operation,
        };
        let mut reads = Reads::default();
        for (app, operation) in [(7, 71), (7, 72), (7, 73), (3, 31)] {
            reads.push(AppIndex(app), waiter(operation));
        }
        // Each takes two slices; what is left of one waits under a number that is higher by a hundred.
        let mut told = Vec::new();
        while let Some(next) = reads.pop() {
            told.push(next.operation);
            if next.operation < 100 {
                let app = AppIndex(next.operation / 10);
                reads.put_back(app, waiter(next.operation + 100));
            }
        }
        assert_eq!(told, [71, 31, 171, 131, 72, 172, 73, 173]);
        assert!(reads.is_empty() && reads.waiters.is_empty());
    }

    #[test]
    fn one_that_goes_on_alone_takes_no_turn_of_its_app_or_of_another() {
        let waiter = |operation| Waiter {
            shard: ShardId(0),
            slot: Slot {
                index: operation,
                generation: 0,
            },
            operation,
        };
        let mut reads = Reads::default();
        for (app, operation) in [(7, 71), (7, 72), (3, 31)] {
            reads.push(AppIndex(app), waiter(operation));
        }
        let [one, other] = [AppIndex(7), AppIndex(3)];
        assert!(reads.is_next_of(one, 71) && !reads.is_next_of(one, 72));
        assert!(!reads.is_next_of(other, 71) && !reads.is_next_of(AppIndex(1), 71));
        assert_eq!(reads.pop_of(AppIndex(1)), None);
        let of = |waiter: Option<Waiter>| waiter.map(|it| it.operation);
        assert_eq!(of(reads.pop_of(one)), Some(71));
        reads.put_back(one, waiter(71));
        assert_eq!(of(reads.pop_of(other)), Some(31));
        assert_eq!(of(reads.pop_of(other)), None);
        reads.put_back(other, waiter(31));
        let rest: Vec<u32> = std::iter::from_fn(|| of(reads.pop())).collect();
        assert_eq!(rest, [71, 31, 72]);
        assert!(reads.is_empty() && reads.waiters.is_empty());
    }
}
