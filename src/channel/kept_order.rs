//! How much of last events is kept, by app, and which goes when that is too much.
//!
//! Owns: the numbers of the kept events of each app, oldest first, and what they hold.
//! May depend on: `channel::home` for references, `protocol::app`. Not on what is kept.
//! Invariants: the sums are those of the apps; whatever one app keeps, one that holds less loses nothing for it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::home::HomeRef;
use crate::protocol::app::AppIndex;

/// How much of last events is kept: beyond it the app that holds the most loses its oldest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptMax {
    pub events: usize,
    pub bytes: usize,
}

#[derive(Clone, Debug, Default)]
pub(super) struct KeptOrder {
    /// Apps that keep an event, and only those.
    apps: BTreeMap<AppIndex, OfApp>,
    by_events: BTreeSet<(usize, AppIndex)>,
    by_bytes: BTreeSet<(usize, AppIndex)>,
    events: usize,
    bytes: usize,
}

#[derive(Clone, Debug, Default)]
struct OfApp {
    /// Homes and the numbers of their kept events, oldest first; may name some that are replaced or gone.
    order: VecDeque<(HomeRef, u64)>,
    events: usize,
    bytes: usize,
}

/// Places of an order that may be in vain, beside one for each event.
const IN_VAIN_MAX: usize = 64;

impl KeptOrder {
    /// Events that are kept.
    pub(super) fn events(&self) -> usize {
        self.events
    }

    /// About the bytes that they hold.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Places of all orders, those in vain too.
    #[cfg(test)]
    pub(super) fn places(&self) -> usize {
        self.apps.values().map(|of_app| of_app.order.len()).sum()
    }

    /// A home keeps an event under that number, of so many bytes. `keeps` says what is kept still.
    // Per event of a cache channel: some look-ups among the apps that have such channels.
    pub(super) fn keep(
        &mut self,
        app: AppIndex,
        at: HomeRef,
        number: u64,
        bytes: usize,
        keeps: impl Fn(HomeRef, u64) -> bool,
    ) {
        self.change(app, |of_app| {
            of_app.events += 1;
            of_app.bytes += bytes;
            of_app.order.push_back((at, number));
            // Half of the order is in vain by then, so a walk costs each entry a constant.
            if of_app.order.len() > 2 * of_app.events + IN_VAIN_MAX {
                of_app.order.retain(|(at, number)| keeps(*at, *number));
            }
        });
        self.events += 1;
        self.bytes += bytes;
    }

    /// An event of so many bytes is kept no more.
    pub(super) fn forget(&mut self, app: AppIndex, bytes: usize) {
        self.change(app, |of_app| {
            of_app.events -= 1;
            of_app.bytes -= bytes;
        });
        self.events -= 1;
        self.bytes -= bytes;
    }

    fn change(&mut self, app: AppIndex, change: impl FnOnce(&mut OfApp)) {
        let of_app = self.apps.entry(app).or_default();
        self.by_events.remove(&(of_app.events, app));
        self.by_bytes.remove(&(of_app.bytes, app));
        change(of_app);
        if of_app.events == 0 {
            assert!(of_app.bytes == 0, "without events no bytes");
            self.apps.remove(&app);
            return;
        }
        self.by_events.insert((of_app.events, app));
        self.by_bytes.insert((of_app.bytes, app));
    }

    /// The next that has to go, while there are more than may be; it may be replaced or gone already. One that
    /// goes is to be forgotten.
    pub(super) fn next_beyond(&mut self, most: KeptMax) -> Option<(HomeRef, u64)> {
        let heaviest = match (self.events > most.events, self.bytes > most.bytes) {
            (true, _) => self.by_events.last(),
            (false, true) => self.by_bytes.last(),
            (false, false) => return None,
        };
        let (_, app) = heaviest.expect("what is kept is an app's");
        let of_app = self.apps.get_mut(app).expect("it keeps events");
        let oldest = of_app.order.pop_front();
        Some(oldest.expect("each kept event is in the order"))
    }
}
