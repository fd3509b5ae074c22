//! Data path. Which row holds the channel of a name.
//!
//! Owns: `Names`, per app an index of rows by channel name.
//! May depend on: `protocol::app`, ahash, hashbrown. Not on the rows: who asks shows their names.
//! Invariants: a name stands at most once per app; an app without names has no index.

use ahash::{AHashMap, RandomState};
use hashbrown::HashTable;

use crate::protocol::app::AppIndex;

/// Rows by app and channel name. It keeps no name itself: eight bytes per channel.
#[derive(Debug, Default)]
pub struct Names {
    apps: AHashMap<AppIndex, HashTable<Entry>>,
    hasher: RandomState,
}

/// A row, and its name's hash, so that growing the index looks at no name.
#[derive(Clone, Copy, Debug)]
struct Entry {
    row: u32,
    hash: u32,
}

impl Entry {
    /// The index takes its place from the low bits and its tag from the high ones: both need all
    /// that was kept of the hash.
    fn spread(self) -> u64 {
        u64::from(self.hash) << 32 | u64::from(self.hash)
    }
}

impl Names {
    /// The row of a name. `is_named` tells whether a row has that name.
    // One hash of the name, one probe, and the row that the caller needs anyway.
    pub fn find(&self, app: AppIndex, name: &str, is_named: impl Fn(u32) -> bool) -> Option<u32> {
        let probe = self.entry(0, name);
        let rows = self.apps.get(&app)?;
        let found = rows.find(probe.spread(), |entry| {
            entry.hash == probe.hash && is_named(entry.row)
        });
        found.map(|entry| entry.row)
    }

    /// Lists a row under a name that `find` did not find.
    pub fn insert(&mut self, app: AppIndex, name: &str, row: u32) {
        let entry = self.entry(row, name);
        let rows = self.apps.entry(app).or_default();
        rows.insert_unique(entry.spread(), entry, |entry| entry.spread());
    }

    /// Takes a row off its app's list. Panics if it is not there: a row is listed while it lives.
    pub fn remove(&mut self, app: AppIndex, name: &str, row: u32) {
        let entry = self.entry(row, name);
        let rows = self
            .apps
            .get_mut(&app)
            .expect("the app of a row has an index");
        let found = rows.find_entry(entry.spread(), |other| other.row == row);
        found.expect("a row is listed by its name").remove();
        if rows.is_empty() {
            self.apps.remove(&app);
        }
    }

    /// How many rows an app has.
    pub fn count(&self, app: AppIndex) -> usize {
        self.apps.get(&app).map_or(0, HashTable::len)
    }

    /// The rows of an app, in no order.
    pub fn of_app(&self, app: AppIndex) -> impl Iterator<Item = u32> {
        let rows = self.apps.get(&app).into_iter().flatten();
        rows.map(|entry| entry.row)
    }

    fn entry(&self, row: u32, name: &str) -> Entry {
        let hash = (self.hasher.hash_one(name) >> 32) as u32;
        Entry { row, hash }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_app_has_its_own_names_and_a_name_its_own_row() {
        let names: Vec<String> = (0..2_000).map(|n| format!("channel-{n}")).collect();
        let is_named = |name: &str| {
            let name = name.to_owned();
            let names = names.clone();
            move |row: u32| names[row as usize % 2_000] == name
        };
        let (one, two) = (AppIndex(1), AppIndex(2));
        let mut index = Names::default();
        for (row, name) in (0..).zip(&names) {
            index.insert(one, name, row);
            index.insert(two, name, row + 2_000);
        }
        assert_eq!(index.find(one, "channel-7", is_named("channel-7")), Some(7));
        assert_eq!(
            index.find(two, "channel-7", is_named("channel-7")),
            Some(2_007)
        );
        assert_eq!(index.find(one, "channel-x", is_named("channel-x")), None);
        assert_eq!(index.find(AppIndex(3), "channel-7", |_| true), None);
        index.remove(one, "channel-7", 7);
        assert_eq!(index.find(one, "channel-7", is_named("channel-7")), None);
        let left: BTreeSet<u32> = index.of_app(one).collect();
        assert_eq!(left.len(), 1_999);
        for row in left {
            index.remove(one, &names[row as usize], row);
        }
        assert_eq!(
            (index.of_app(one).count(), index.of_app(two).count()),
            (0, 2_000)
        );
    }
}
