//! Who holds how much of what all share: when it is full, the one that holds the most gives way.
//!
//! Owns: `Holders`: the amount of each holder and of all, the order of the holders by it, and what else is known of each.
//! May depend on: std.
//! Invariants: the sum is that of the amounts; exactly those who hold something are listed; of two that hold as much
//! the later in their own order counts as the heavier.

use std::collections::{BTreeMap, BTreeSet};

/// Holders by how much they hold. `T` is what else is known of one, for as long as it holds something.
#[derive(Clone, Debug)]
pub(crate) struct Holders<K, T = ()> {
    rows: BTreeMap<K, Row<T>>,
    by_amount: BTreeSet<(usize, K)>,
    sum: usize,
}

#[derive(Clone, Debug, Default)]
struct Row<T> {
    amount: usize,
    known: T,
}

impl<K, T> Default for Holders<K, T> {
    fn default() -> Self {
        Self {
            rows: BTreeMap::new(),
            by_amount: BTreeSet::new(),
            sum: 0,
        }
    }
}

impl<K: Copy + Ord, T: Default> Holders<K, T> {
    /// What all hold.
    pub(crate) fn sum(&self) -> usize {
        self.sum
    }

    /// Changes how much one holds, and what is known of it: nothing yet, of one that held nothing. One that holds
    /// nothing then is forgotten, with what is known of it.
    // One look-up and, if the amount is another, one move in the order: the logarithm of how many hold something.
    pub(crate) fn change<O>(
        &mut self,
        holder: K,
        change: impl FnOnce(&mut usize, &mut T) -> O,
    ) -> O {
        let row = self.rows.entry(holder).or_default();
        let before = row.amount;
        let outcome = change(&mut row.amount, &mut row.known);
        let after = row.amount;
        if after != before {
            self.sum = self.sum - before + after;
            self.by_amount.remove(&(before, holder));
        }
        if after == 0 {
            self.rows.remove(&holder);
        } else if after != before {
            self.by_amount.insert((after, holder));
        }
        outcome
    }

    /// Who holds the most, and what is known of it.
    pub(crate) fn heaviest(&self) -> Option<(K, &T)> {
        let (_, holder) = self.by_amount.last()?;
        Some((*holder, &self.rows.get(holder)?.known))
    }

    /// What is known of one that holds something.
    pub(crate) fn known_mut(&mut self, holder: K) -> Option<&mut T> {
        Some(&mut self.rows.get_mut(&holder)?.known)
    }

    /// What is known of all.
    #[cfg(test)]
    pub(crate) fn all_known(&self) -> impl Iterator<Item = &T> {
        self.rows.values().map(|row| &row.known)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a holder holds, and how often that was changed since it held nothing.
    type Model = BTreeMap<u8, (usize, u32)>;

    fn heaviest(model: &Model) -> Option<(u8, u32)> {
        let heaviest = model
            .iter()
            .max_by_key(|(holder, (amount, _))| (*amount, **holder));
        heaviest.map(|(holder, (_, changes))| (*holder, *changes))
    }

    #[test]
    fn whoever_holds_the_most_gives_way_and_then_the_next() {
        let mut holders = Holders::<u8>::default();
        assert_eq!(holders.heaviest(), None);
        for (holder, more) in [(1, 20), (2, 30), (3, 30), (1, 5)] {
            holders.change(holder, |amount, ()| *amount += more);
        }
        let mut order = Vec::new();
        while let Some((holder, ())) = holders.heaviest() {
            order.push((holder, holders.sum()));
            holders.change(holder, |amount, ()| *amount = 0);
        }
        assert_eq!(order, [(3, 85), (2, 55), (1, 25)]);
        assert_eq!(holders.sum(), 0);
    }

    proptest! {
        #[test]
        fn holders_are_those_of_a_plain_table(
            steps in prop::collection::vec((0..6_u8, 0..5_usize), 0..200),
        ) {
            let (mut holders, mut model) = (Holders::<u8, u32>::default(), Model::new());
            for (holder, after) in steps {
                let told = holders.change(holder, |amount, changes| {
                    *changes += 1;
                    (std::mem::replace(amount, after), *changes)
                });
                let row = model.entry(holder).or_default();
                row.1 += 1;
                prop_assert_eq!(told, *row);
                row.0 = after;
                model.retain(|_, (amount, _)| *amount > 0);
                let sum: usize = model.values().map(|(amount, _)| amount).sum();
                prop_assert_eq!(holders.sum(), sum);
                let found = holders.heaviest().map(|(holder, changes)| (holder, *changes));
                prop_assert_eq!(found, heaviest(&model));
                let known: Vec<u32> = holders.all_known().copied().collect();
                let expected: Vec<u32> = model.values().map(|(_, changes)| *changes).collect();
                prop_assert_eq!(known, expected, "exactly those who hold something");
                prop_assert_eq!(holders.known_mut(holder).is_some(), after > 0);
                prop_assert_eq!(holders.by_amount.len(), model.len());
            }
        }
    }
}
