//! Telling once more what the other nodes have of some apps: of one that has just become known here, or
//! that nothing is left of one that nobody here knows any more.
//!
//! Owns: `Retelling`: which apps, and how far the walk over all partitions has come.
//! May depend on: `cluster::{app_ids, carrying, holdings}`, `protocol::partition`, serde.
//! Invariants: one walk serves all apps, so that many of them cost what one does; each app is told once
//! around, from where the walk was when it was added.

use ahash::AHashMap;
use serde::{Deserialize, Serialize};

use super::{
    app_ids::{AppIds, AppNumber},
    carrying::CarryError,
    holdings::{Cursor, Holdings, ViewChange},
};
use crate::protocol::partition::{PARTITIONS, Partition};

/// What is told of an app.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(super) enum Retold {
    /// What is so.
    All,
    /// That nothing is so.
    Nothing,
}

/// For the process that follows.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct RetellingRecord {
    apps: Vec<(u32, Retold, u16)>,
    at: u16,
    cursor: Cursor,
}

#[derive(Debug)]
pub(super) struct Retelling {
    /// With the partitions that are left.
    apps: AHashMap<AppNumber, (Retold, u16)>,
    at: u16,
    cursor: Cursor,
}

impl Retelling {
    pub(super) fn new() -> Self {
        Self {
            apps: AHashMap::new(),
            at: 0,
            cursor: Cursor::START,
        }
    }

    pub(super) fn carry(&self) -> RetellingRecord {
        let apps = self.apps.iter();
        let mut apps: Vec<_> = apps
            .map(|(app, (retold, left))| (app.at(), *retold, *left))
            .collect();
        apps.sort_unstable_by_key(|(app, ..)| *app);
        RetellingRecord {
            apps,
            at: self.at,
            cursor: self.cursor,
        }
    }

    pub(super) fn carried(ids: &AppIds, record: &RetellingRecord) -> Result<Self, CarryError> {
        let mut retelling = Self {
            apps: AHashMap::new(),
            at: record.at % PARTITIONS,
            cursor: record.cursor,
        };
        for (app, retold, left) in &record.apps {
            let app = ids.nth(*app).ok_or(CarryError::NO_SUCH_APP)?;
            if *left > 0 {
                retelling.apps.insert(app, (*retold, *left));
            }
        }
        Ok(retelling)
    }

    /// The last word on an app counts.
    pub(super) fn add(&mut self, app: AppNumber, retold: Retold) {
        // One more where only a part of the partition is ahead: what was before it is told again, which
        // changes nothing for whoever hears it twice.
        let parts = PARTITIONS + u16::from(self.cursor != Cursor::START);
        self.apps.insert(app, (retold, parts));
    }

    /// Goes on, looking at as many rows and members as there are in `budget`. True: more is left.
    pub(super) fn work(
        &mut self,
        ids: &AppIds,
        holdings: &Holdings,
        budget: &mut usize,
        tell: &mut impl FnMut(ViewChange<'_>),
    ) -> bool {
        while !self.apps.is_empty() {
            if *budget == 0 {
                return true;
            }
            let partition = Partition::from_number(self.at).expect("it wraps around");
            let apps = &self.apps;
            let of = |app| apps.get(&app).map(|(retold, _)| *retold);
            if !holdings.tell_again(ids, partition, &mut self.cursor, budget, &of, tell) {
                return true;
            }
            *budget = budget.saturating_sub(1);
            self.cursor = Cursor::START;
            self.at = (self.at + 1) % PARTITIONS;
            self.apps.retain(|_, (_, left)| {
                *left -= 1;
                *left > 0
            });
        }
        false
    }
}
