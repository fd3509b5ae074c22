//! Which app holds how much of the queue.
//!
//! Owns: the bytes that wait per target and app, and the order of the apps by them.
//! May depend on: `bridge::queue`, `protocol::app`.
//! Invariants: exactly the apps and targets with waiting bytes are listed; the sum is kept.

use std::collections::{BTreeMap, BTreeSet};

use super::TargetId;
use crate::protocol::app::AppIndex;

/// Bytes that wait, by app and target.
#[derive(Debug, Default)]
pub(super) struct Shares {
    apps: BTreeMap<AppIndex, Share>,
    by_bytes: BTreeSet<(usize, AppIndex)>,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Share {
    bytes: usize,
    targets: BTreeMap<TargetId, usize>,
}

impl Shares {
    /// Bytes of all apps.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn add(&mut self, app: AppIndex, target: TargetId, bytes: usize) {
        let share = self.apps.entry(app).or_default();
        self.by_bytes.remove(&(share.bytes, app));
        self.bytes += bytes;
        share.bytes += bytes;
        *share.targets.entry(target).or_default() += bytes;
        self.by_bytes.insert((share.bytes, app));
    }

    pub(super) fn take(&mut self, app: AppIndex, target: TargetId, bytes: usize) {
        let share = self.apps.get_mut(&app).expect("what leaves came");
        let held = share.targets.get_mut(&target).expect("what leaves came");
        assert!(*held >= bytes, "more bytes left a target than came");
        self.by_bytes.remove(&(share.bytes, app));
        self.bytes -= bytes;
        share.bytes -= bytes;
        *held -= bytes;
        if *held == 0 {
            share.targets.remove(&target);
        }
        if share.targets.is_empty() {
            assert!(share.bytes == 0, "bytes wait for a target");
            self.apps.remove(&app);
        } else {
            self.by_bytes.insert((share.bytes, app));
        }
    }

    /// The targets of the app that holds the most.
    pub(super) fn heaviest(&self) -> impl Iterator<Item = TargetId> {
        let app = self.by_bytes.last().map(|(_, app)| app);
        let share = app.and_then(|app| self.apps.get(app));
        share
            .into_iter()
            .flat_map(|share| share.targets.keys().copied())
    }
}
