//! Publications that are read and written over several turns: whose turn it is.
//!
//! Owns: their order.
//! May depend on: `protocol::app`, the runtime's waiters.
//! Invariants: each app's are done one after the other, so that of each app one at most has frames and the others
//! what its first slice made; between apps a slice each.

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
}
