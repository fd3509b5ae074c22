//! Bodies of signed requests that are under way: whose they are, and which gives way when they are too
//! many.
//!
//! Owns: what each of them holds, by its app.
//! May depend on: `protocol::app`. Not on connections: it knows the numbers of their slots.
//! Invariants: the bytes of all are the sum of each app's, and those of an app the sum of its bodies';
//! whatever an app sends, one that holds less is not turned away for it.

use std::collections::{BTreeMap, BTreeSet};

use crate::protocol::app::AppIndex;

/// The bodies under way on a shard.
#[derive(Clone, Debug, Default)]
pub(super) struct Bodies {
    /// By slot: those that hold bytes.
    rows: BTreeMap<u32, Row>,
    /// Apps with bodies, and only those.
    apps: BTreeMap<AppIndex, BodiesOfApp>,
    by_bytes: BTreeSet<(u64, AppIndex)>,
    bytes: u64,
}

#[derive(Clone, Copy, Debug)]
struct Row {
    app: AppIndex,
    bytes: u32,
}

#[derive(Clone, Debug, Default)]
struct BodiesOfApp {
    bytes: u64,
    /// Their bytes and slots.
    by_bytes: BTreeSet<(u32, u32)>,
}

impl Bodies {
    /// Bytes of all bodies.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The body in a slot now holds so many bytes; 0: there is none. The app is that of its first bytes.
    // Per receive of a body in pieces: some look-ups among the bodies under way.
    pub(super) fn set(&mut self, slot: u32, app: AppIndex, bytes: u32) {
        let before = self.rows.remove(&slot).unwrap_or(Row { app, bytes: 0 });
        let app = before.app;
        let of_app = self.apps.entry(app).or_default();
        self.by_bytes.remove(&(of_app.bytes, app));
        of_app.by_bytes.remove(&(before.bytes, slot));
        of_app.bytes = of_app.bytes - u64::from(before.bytes) + u64::from(bytes);
        self.bytes = self.bytes - u64::from(before.bytes) + u64::from(bytes);
        if bytes > 0 {
            of_app.by_bytes.insert((bytes, slot));
            self.rows.insert(slot, Row { app, bytes });
        }
        if of_app.by_bytes.is_empty() {
            assert!(of_app.bytes == 0, "an app without bodies holds no bytes");
            self.apps.remove(&app);
        } else {
            self.by_bytes.insert((of_app.bytes, app));
        }
    }

    /// The slot of the largest body of the app that holds the most.
    pub(super) fn largest(&self) -> Option<u32> {
        let (_, app) = self.by_bytes.last()?;
        let (_, slot) = self.apps.get(app)?.by_bytes.last()?;
        Some(*slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_app_that_holds_the_most_gives_way_with_its_largest() {
        let [large, small] = [AppIndex(7), AppIndex(3)];
        let mut bodies = Bodies::default();
        assert_eq!(bodies.largest(), None);
        for (slot, app, bytes) in [
            (1, large, 10),
            (2, large, 30),
            (3, large, 25),
            (4, small, 40),
            (4, small, 50),
        ] {
            bodies.set(slot, app, bytes);
        }
        let mut order = Vec::new();
        while let Some(slot) = bodies.largest() {
            order.push((slot, bodies.bytes()));
            bodies.set(slot, AppIndex(u32::MAX), 0);
        }
        assert_eq!(order, [(2, 115), (4, 85), (3, 35), (1, 10)]);
        assert_eq!(bodies.bytes(), 0);
        assert!(bodies.rows.is_empty() && bodies.apps.is_empty() && bodies.by_bytes.is_empty());
    }
}
