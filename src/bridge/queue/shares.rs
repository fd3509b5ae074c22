//! Which app holds how much of the queue.
//!
//! Owns: the bytes that wait per target and app.
//! May depend on: `bridge::queue`, `holders`, `protocol::app`.
//! Invariants: exactly the apps and targets with waiting bytes are listed; the bytes of an app are those of its targets.

use std::collections::BTreeMap;

use super::TargetId;
use crate::{holders::Holders, protocol::app::AppIndex};

/// Bytes that wait, by app and target.
#[derive(Debug, Default)]
pub(super) struct Shares {
    apps: Holders<AppIndex, BTreeMap<TargetId, usize>>,
}

impl Shares {
    /// Bytes of all apps.
    pub(super) fn bytes(&self) -> usize {
        self.apps.sum()
    }

    pub(super) fn add(&mut self, app: AppIndex, target: TargetId, bytes: usize) {
        self.apps.change(app, |of_app, targets| {
            *of_app += bytes;
            *targets.entry(target).or_default() += bytes;
        });
    }

    pub(super) fn take(&mut self, app: AppIndex, target: TargetId, bytes: usize) {
        self.apps.change(app, |of_app, targets| {
            let held = targets.get_mut(&target).expect("what leaves came");
            assert!(*held >= bytes, "more bytes left a target than came");
            *of_app -= bytes;
            *held -= bytes;
            if *held == 0 {
                targets.remove(&target);
            }
            assert!(
                targets.is_empty() == (*of_app == 0),
                "bytes wait for a target"
            );
        });
    }

    /// The targets of the app that holds the most.
    pub(super) fn heaviest(&self) -> impl Iterator<Item = TargetId> {
        let heaviest = self.apps.heaviest().into_iter();
        heaviest.flat_map(|(_, targets)| targets.keys().copied())
    }
}
