//! Data path. Which row holds a name, and the key by which names are looked up.
//!
//! Owns: `NameKey`, what a name is hashed to once, where it comes in; `Names`, per app an index of
//! rows by name.
//! May depend on: `protocol::{app, partition}`, ahash, hashbrown. Not on the rows: who asks shows their
//! names.
//! Invariants: a name stands at most once per app; an app without names has no index; no table
//! hashes a name itself.

use ahash::{AHashMap, RandomState};
use hashbrown::HashTable;

use crate::protocol::{
    app::AppIndex,
    partition::{AppPartitions, Partition},
};

/// What a name of an app was hashed to. It goes wherever the name goes on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameKey {
    /// Decides which shard is its home.
    pub partition: Partition,
    /// Finds it in that shard's tables, and in those of others.
    pub hash: NameHash,
}

/// Where a name stands in tables. Strangers choose names, so it must not be known to them: it is
/// made with a key of this process, leaves the node in no form, and has nothing to do with the
/// partition, which is public.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameHash(u32);

/// Makes the hashes of names; the same on all shards of a node.
#[derive(Clone, Debug)]
pub struct NameHasher(RandomState);

impl NameHasher {
    /// With this key.
    pub const fn new(key: RandomState) -> Self {
        Self(key)
    }

    pub fn hash(&self, name: &str) -> NameHash {
        NameHash((self.0.hash_one(name) >> 32) as u32)
    }

    /// The key of a channel's name.
    // Per name: two hashes of its bytes; whoever looks it up later does none.
    pub fn channel_key(&self, app: &AppPartitions, name: &str) -> NameKey {
        NameKey {
            partition: app.of_channel(name),
            hash: self.hash(name),
        }
    }

    /// The key of a user's id.
    pub fn user_key(&self, app: &AppPartitions, id: &str) -> NameKey {
        NameKey {
            partition: app.of_user(id),
            hash: self.hash(id),
        }
    }
}

/// Rows by app and name. It keeps no name itself: eight bytes per name.
#[derive(Clone, Debug, Default)]
pub struct Names {
    apps: AHashMap<AppIndex, HashTable<Entry>>,
}

/// A row, and its name's hash, so that growing the index looks at no name.
#[derive(Clone, Copy, Debug)]
struct Entry {
    row: u32,
    hash: NameHash,
}

impl NameHash {
    /// The index takes its place from the low bits and its tag from the high ones: both need all
    /// that was kept of the hash.
    fn spread(self) -> u64 {
        u64::from(self.0) << 32 | u64::from(self.0)
    }
}

impl Names {
    /// The row of a name. `is_named` tells whether a row has that name.
    // One probe, and the row that the caller needs anyway.
    pub fn find(
        &self,
        app: AppIndex,
        hash: NameHash,
        is_named: impl Fn(u32) -> bool,
    ) -> Option<u32> {
        let rows = self.apps.get(&app)?;
        let found = rows.find(hash.spread(), |entry| {
            entry.hash == hash && is_named(entry.row)
        });
        found.map(|entry| entry.row)
    }

    /// Lists a row under a name that `find` did not find.
    pub fn insert(&mut self, app: AppIndex, hash: NameHash, row: u32) {
        let rows = self.apps.entry(app).or_default();
        let entry = Entry { row, hash };
        rows.insert_unique(hash.spread(), entry, |entry| entry.hash.spread());
    }

    /// Takes a row off its app's list. Panics if it is not there: a row is listed while it lives.
    pub fn remove(&mut self, app: AppIndex, hash: NameHash, row: u32) {
        let rows = self
            .apps
            .get_mut(&app)
            .expect("the app of a row has an index");
        let found = rows.find_entry(hash.spread(), |entry| entry.row == row);
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
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeSet;

    use super::*;

    pub(crate) fn hasher() -> NameHasher {
        NameHasher::new(RandomState::with_seeds(1, 2, 3, 4))
    }

    fn hash(name: &str) -> NameHash {
        hasher().hash(name)
    }

    pub(in crate::channel) fn key(name: &str) -> NameKey {
        hasher().channel_key(&AppPartitions::of_app("app"), name)
    }

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
            index.insert(one, hash(name), row);
            index.insert(two, hash(name), row + 2_000);
        }
        assert_eq!(
            index.find(one, hash("channel-7"), is_named("channel-7")),
            Some(7)
        );
        assert_eq!(
            index.find(two, hash("channel-7"), is_named("channel-7")),
            Some(2_007)
        );
        assert_eq!(
            index.find(one, hash("channel-x"), is_named("channel-x")),
            None
        );
        assert_eq!(index.find(AppIndex(3), hash("channel-7"), |_| true), None);
        index.remove(one, hash("channel-7"), 7);
        assert_eq!(
            index.find(one, hash("channel-7"), is_named("channel-7")),
            None
        );
        let left: BTreeSet<u32> = index.of_app(one).collect();
        assert_eq!(left.len(), 1_999);
        for row in left {
            index.remove(one, hash(&names[row as usize]), row);
        }
        assert_eq!(
            (index.of_app(one).count(), index.of_app(two).count()),
            (0, 2_000)
        );
    }
}
