//! Rows without gaps, found by a hash that the caller makes.
//!
//! Owns: `Table`.
//! May depend on: hashbrown.
//! Invariants: a removed row's place is taken by the last one, no other row moves; so whoever walks
//! down from the end misses none that was there when it began. Nothing depends on the hash's order.

use hashbrown::HashTable;

/// Few rows are searched one by one; more have an index of five bytes per place.
// A vector that doubled, or a table that held the rows itself, would keep up to half its places
// empty: 48 bytes per row then cost 110, here 71.
#[derive(Clone, Debug)]
pub(super) struct Table<R> {
    rows: Vec<R>,
    /// Empty while there are few rows.
    index: HashTable<u32>,
}

impl<R> Default for Table<R> {
    fn default() -> Self {
        Self {
            rows: Vec::new(),
            index: HashTable::new(),
        }
    }
}

impl<R> Table<R> {
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &R> {
        self.rows.iter()
    }

    /// The row at a place that was found, while nothing was removed since.
    pub(super) fn row_mut(&mut self, at: usize) -> &mut R {
        self.rows.get_mut(at).expect("the place was found")
    }

    pub(super) fn row(&self, at: usize) -> &R {
        self.rows.get(at).expect("the place was found")
    }

    pub(super) fn position(&self, hash: u64, is_it: impl Fn(&R) -> bool) -> Option<usize> {
        if self.index.is_empty() {
            return self.rows.iter().position(is_it);
        }
        let is_there = |at: &u32| self.rows.get(*at as usize).is_some_and(&is_it);
        self.index.find(hash, is_there).map(|at| *at as usize)
    }

    /// Adds a row that is not there yet, and tells its place.
    pub(super) fn push(&mut self, row: R, hash_of: impl Fn(&R) -> u64) -> usize {
        let at = self.rows.len();
        if at == self.rows.capacity() {
            // A fifth more: some copying for few empty places.
            self.rows.reserve_exact(at / 5 + 1);
        }
        self.rows.push(row);
        let first = match (self.index.is_empty(), at >= UNINDEXED_MAX) {
            (true, false) => return at,
            (true, true) => 0,
            (false, _) => at,
        };
        let rows = &self.rows;
        let hash_at = |at: &u32| rows.get(*at as usize).map_or(0, &hash_of);
        for at in first..rows.len() {
            let at = u32::try_from(at).expect("rows are bounded in bytes");
            self.index.insert_unique(hash_at(&at), at, hash_at);
        }
        at
    }

    /// Takes a row out; the last one takes its place.
    pub(super) fn swap_remove(&mut self, at: usize, hash_of: impl Fn(&R) -> u64) -> R {
        let last = self.rows.len() - 1;
        if !self.index.is_empty() {
            let hash = hash_of(self.row(at));
            let found = self.index.find_entry(hash, |it| *it as usize == at);
            found.expect("a row is in the index").remove();
            if at != last {
                let hash = hash_of(self.row(last));
                let moved = self.index.find_mut(hash, |it| *it as usize == last);
                *moved.expect("a row is in the index") = u32::try_from(at).expect("it was one");
            }
        }
        let row = self.rows.swap_remove(at);
        if self.rows.len() < self.rows.capacity() / 2 {
            self.rows.shrink_to(self.rows.len() + self.rows.len() / 5);
            let hash_at = |at: &u32| self.rows.get(*at as usize).map_or(0, &hash_of);
            self.index.shrink_to(self.rows.len(), hash_at);
        }
        row
    }

    /// Of its own memory, without what rows point to.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.rows.capacity() * size_of::<R>() + self.index.allocation_size()
    }
}

const UNINDEXED_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_holds_what_a_set_holds(deeds in prop::collection::vec((0_u16..60, any::<bool>()), 0..400)) {
            // Many numbers of one hash.
            let hash_of = |number: &u16| u64::from(number % 16) << 57 | u64::from(number % 16);
            let (mut table, mut set) = (Table::default(), BTreeSet::new());
            for (number, is_there) in deeds {
                let found = table.position(hash_of(&number), |it| *it == number);
                prop_assert_eq!(found.is_some(), set.contains(&number));
                match (found, is_there) {
                    (None, true) => {
                        let at = table.push(number, hash_of);
                        prop_assert_eq!(*table.row(at), number);
                        set.insert(number);
                    }
                    (Some(at), false) => {
                        prop_assert_eq!(table.swap_remove(at, hash_of), number);
                        set.remove(&number);
                    }
                    (None, false) | (Some(_), true) => {}
                }
                prop_assert_eq!(table.iter().copied().collect::<BTreeSet<_>>(), set.clone());
                prop_assert_eq!(table.len(), set.len());
            }
        }
    }
}
