//! The ids of apps, each kept once: rows name an app by a small number.
//!
//! Owns: `AppIds`, `AppNumber`.
//! May depend on: `protocol::partition`, ahash.
//! Invariants: a number stands for one id as long as the node lives; there are at most `APPS_MAX`.

use std::sync::Arc;

use ahash::{AHashMap, RandomState};

use crate::protocol::partition::AppPartitions;

/// Which app, on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct AppNumber(u32);

impl AppNumber {
    /// So many others were given before it.
    pub(super) fn at(self) -> u32 {
        self.0
    }
}

#[derive(Debug)]
pub(super) struct AppIds {
    rows: Vec<(Arc<str>, AppPartitions)>,
    index: AHashMap<Arc<str>, AppNumber>,
}

impl AppIds {
    pub(super) fn new(hasher: RandomState) -> Self {
        Self {
            rows: Vec::new(),
            index: AHashMap::with_hasher(hasher),
        }
    }

    /// `None`: of an app beyond the bound, of which nothing can be kept.
    pub(super) fn intern(&mut self, id: &str) -> Option<AppNumber> {
        if let Some(number) = self.index.get(id) {
            return Some(*number);
        }
        if self.rows.len() == APPS_MAX {
            return None;
        }
        let number = AppNumber(u32::try_from(self.rows.len()).expect("apps are bounded"));
        let id: Arc<str> = id.into();
        self.rows.push((id.clone(), AppPartitions::of_app(&id)));
        self.index.insert(id, number);
        Some(number)
    }

    /// All of them, by growing number.
    pub(super) fn all(&self) -> impl Iterator<Item = &str> {
        self.rows.iter().map(|(id, _)| &**id)
    }

    /// The one that was given so many others before.
    pub(super) fn nth(&self, at: u32) -> Option<AppNumber> {
        ((at as usize) < self.rows.len()).then_some(AppNumber(at))
    }

    /// `None`: nothing was ever kept of it.
    pub(super) fn find(&self, id: &str) -> Option<AppNumber> {
        self.index.get(id).copied()
    }

    pub(super) fn id(&self, number: AppNumber) -> &str {
        &self.row(number).0
    }

    pub(super) fn partitions(&self, number: AppNumber) -> &AppPartitions {
        &self.row(number).1
    }

    fn row(&self, number: AppNumber) -> &(Arc<str>, AppPartitions) {
        let row = self.rows.get(number.0 as usize);
        row.expect("a number is given by `intern` only")
    }
}

/// A stranger on the bus could name any number of them.
pub(super) const APPS_MAX: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_app_has_one_number_and_there_are_so_many() {
        let mut apps = AppIds::new(RandomState::with_seeds(1, 2, 3, 4));
        let first = apps.intern("0");
        for id in 0..APPS_MAX {
            assert!(apps.intern(&id.to_string()).is_some(), "{id}");
        }
        assert_eq!(apps.intern("one more"), None);
        assert_eq!(apps.intern("0"), first);
        assert_eq!(apps.id(first.expect("there was room")), "0");
    }
}
