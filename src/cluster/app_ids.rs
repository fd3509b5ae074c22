//! The ids of apps, each kept once: rows name an app by a small number.
//!
//! Owns: `AppIds`, `AppSlot`.
//! May depend on: `protocol::partition`, ahash.
//! Invariants: a slot stands for one id as long as the node lives; there are at most `APPS_MAX`.

use std::sync::Arc;

use ahash::{AHashMap, RandomState};

use crate::protocol::partition::AppPartitions;

/// Which app, on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct AppSlot(u32);

#[derive(Debug)]
pub(super) struct AppIds {
    rows: Vec<(Arc<str>, AppPartitions)>,
    index: AHashMap<Arc<str>, AppSlot>,
}

impl AppIds {
    pub(super) fn new(hasher: RandomState) -> Self {
        Self {
            rows: Vec::new(),
            index: AHashMap::with_hasher(hasher),
        }
    }

    /// `None`: of an app beyond the bound, of which nothing can be kept.
    pub(super) fn intern(&mut self, id: &str) -> Option<AppSlot> {
        if let Some(slot) = self.index.get(id) {
            return Some(*slot);
        }
        if self.rows.len() == APPS_MAX {
            return None;
        }
        let slot = AppSlot(u32::try_from(self.rows.len()).expect("apps are bounded"));
        let id: Arc<str> = id.into();
        self.rows.push((id.clone(), AppPartitions::of_app(&id)));
        self.index.insert(id, slot);
        Some(slot)
    }

    pub(super) fn id(&self, slot: AppSlot) -> &str {
        &self.row(slot).0
    }

    pub(super) fn partitions(&self, slot: AppSlot) -> &AppPartitions {
        &self.row(slot).1
    }

    fn row(&self, slot: AppSlot) -> &(Arc<str>, AppPartitions) {
        let row = self.rows.get(slot.0 as usize);
        row.expect("a slot is given by `intern` only")
    }
}

/// A stranger on the bus could name any number of them.
pub(super) const APPS_MAX: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_app_has_one_slot_and_there_are_so_many() {
        let mut apps = AppIds::new(RandomState::with_seeds(1, 2, 3, 4));
        let first = apps.intern("0");
        for number in 0..APPS_MAX {
            assert!(apps.intern(&number.to_string()).is_some(), "{number}");
        }
        assert_eq!(apps.intern("one more"), None);
        assert_eq!(apps.intern("0"), first);
        assert_eq!(apps.id(first.expect("there was room")), "0");
    }
}
