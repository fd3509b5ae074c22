//! Bodies of signed requests that are under way: whose they are, and which gives way when they are too
//! many.
//!
//! Owns: what each of them holds, by its app.
//! May depend on: `holders`, `protocol::app`. Not on connections: it knows the numbers of their slots.
//! Invariants: the bytes of all are the sum of each app's, and those of an app the sum of its bodies';
//! whatever an app sends, one that holds less is not turned away for it.

use std::collections::BTreeMap;

use crate::{holders::Holders, protocol::app::AppIndex};

/// The bodies under way on a shard.
#[derive(Clone, Debug, Default)]
pub(super) struct Bodies {
    /// By slot, those that hold bytes: whose they are, and how many.
    slots: BTreeMap<u32, (AppIndex, u32)>,
    /// Apps by the bytes of their bodies, and those by their slots.
    apps: Holders<AppIndex, Holders<u32>>,
}

impl Bodies {
    /// Bytes of all bodies.
    pub(super) fn bytes(&self) -> u64 {
        self.apps.sum() as u64
    }

    /// Bytes of the body in a slot.
    pub(super) fn bytes_of(&self, slot: u32) -> u32 {
        self.slots.get(&slot).map_or(0, |(_, bytes)| *bytes)
    }

    /// An app's body begins in a slot that has none, with so many bytes.
    pub(super) fn begin(&mut self, slot: u32, app: AppIndex, bytes: u32) {
        self.slots.insert(slot, (app, 0));
        self.resize(slot, bytes);
    }

    /// A slot has no body any more, if it had one.
    pub(super) fn forget(&mut self, slot: u32) {
        self.resize(slot, 0);
    }

    /// The body in a slot, if there is one, now holds so many bytes; 0: it is forgotten.
    // Per receive of a body in pieces: some look-ups among the bodies under way.
    pub(super) fn resize(&mut self, slot: u32, bytes: u32) {
        let Some(row) = self.slots.get_mut(&slot) else {
            return;
        };
        row.1 = bytes;
        let app = row.0;
        self.apps.change(app, |of_app, bodies| {
            bodies.change(slot, |of_body, ()| *of_body = bytes as usize);
            *of_app = bodies.sum();
        });
        if bytes == 0 {
            self.slots.remove(&slot);
        }
    }

    /// The slot of the largest body of the app that holds the most.
    pub(super) fn largest(&self) -> Option<u32> {
        let (_, bodies) = self.apps.heaviest()?;
        let (slot, ()) = bodies.heaviest()?;
        Some(slot)
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
            match bodies.bytes_of(slot) {
                0 => bodies.begin(slot, app, bytes),
                _ => bodies.resize(slot, bytes),
            }
            assert_eq!(bodies.bytes_of(slot), bytes);
        }
        assert_eq!(bodies.bytes_of(9), 0);
        let mut order = Vec::new();
        while let Some(slot) = bodies.largest() {
            order.push((slot, bodies.bytes()));
            bodies.forget(slot);
        }
        assert_eq!(order, [(2, 115), (4, 85), (3, 35), (1, 10)]);
        assert_eq!(bodies.bytes(), 0);
        assert!(bodies.slots.is_empty() && bodies.apps.all_known().next().is_none());
    }
}
