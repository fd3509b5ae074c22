//! Bodies of signed requests that are under way: whose they are, which gives way when those that wait are too
//! many, and which goes on when those that are read are.
//!
//! Owns: what each of them holds, by its app: those that come or wait, and, with their frames, those that are read.
//! May depend on: `holders`, `protocol::app`. Not on connections: it knows the numbers of their slots.
//! Invariants: the bytes of all are the sum of each app's, and those of an app the sum of its bodies';
//! whatever an app sends, one that holds less is not turned away for it. What is read gives way to nobody, and
//! takes no room of what waits: beyond a bound of its own, the one that holds the most goes on alone. So all that
//! is read holds that bound, a slice, and what one publication may hold, at most.

use std::collections::BTreeMap;

use crate::{holders::Holders, protocol::app::AppIndex};

/// The bodies under way on a shard.
#[derive(Clone, Debug, Default)]
pub(super) struct Bodies {
    /// By slot, those that hold bytes.
    slots: BTreeMap<u32, Body>,
    /// Apps by the bytes of their bodies that come or wait, and those by their slots.
    apps: Holders<AppIndex, Holders<u32>>,
    /// Those that are read, by their slots.
    reading: Holders<u32>,
}

/// One that holds bytes.
#[derive(Clone, Copy, Debug)]
struct Body {
    app: AppIndex,
    bytes: u32,
    is_read: bool,
}

impl Bodies {
    /// Bytes of all that come or wait.
    pub(super) fn bytes(&self) -> u64 {
        self.apps.sum() as u64
    }

    /// Bytes of all that are read, and of their frames.
    pub(super) fn reading_bytes(&self) -> u64 {
        self.reading.sum() as u64
    }

    /// Bytes of the body in a slot.
    pub(super) fn bytes_of(&self, slot: u32) -> u32 {
        self.slots.get(&slot).map_or(0, |body| body.bytes)
    }

    /// An app's body begins in a slot that has none, with so many bytes.
    pub(super) fn begin(&mut self, slot: u32, app: AppIndex, bytes: u32) {
        let body = Body {
            app,
            bytes: 0,
            is_read: false,
        };
        self.slots.insert(slot, body);
        self.resize(slot, bytes);
    }

    /// The body in a slot, if there is one, is read from now on.
    pub(super) fn begin_reading(&mut self, slot: u32) {
        let Some(body) = self.slots.get(&slot).copied().filter(|it| !it.is_read) else {
            return;
        };
        self.resize(slot, 0);
        let is_read = true;
        self.slots.insert(slot, Body { is_read, ..body });
        self.resize(slot, body.bytes);
    }

    /// A slot has no body any more, if it had one.
    pub(super) fn forget(&mut self, slot: u32) {
        self.resize(slot, 0);
    }

    /// The body in a slot, if there is one, now holds so many bytes; 0: it is forgotten.
    // Per receive of a body in pieces: some look-ups among the bodies under way.
    pub(super) fn resize(&mut self, slot: u32, bytes: u32) {
        let Some(body) = self.slots.get_mut(&slot) else {
            return;
        };
        body.bytes = bytes;
        if body.is_read {
            self.reading
                .change(slot, |of_body, ()| *of_body = bytes as usize);
        } else {
            self.apps.change(body.app, |of_app, bodies| {
                bodies.change(slot, |of_body, ()| *of_body = bytes as usize);
                *of_app = bodies.sum();
            });
        }
        if bytes == 0 {
            self.slots.remove(&slot);
        }
    }

    /// What is read is more than so many bytes: whoever holds the most of that goes on alone, its app and slot.
    pub(super) fn goes_on_alone(&self, bytes_max: u64) -> Option<(AppIndex, u32)> {
        let (slot, ()) = self
            .reading
            .heaviest()
            .filter(|_| self.reading_bytes() > bytes_max)?;
        Some((self.slots.get(&slot)?.app, slot))
    }

    /// The slot of the largest body that comes or waits, of the app that holds the most of those.
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

    #[test]
    fn what_is_read_gives_way_to_nobody_and_beyond_its_bound_the_one_that_is_furthest_goes_on() {
        let [one, other] = [AppIndex(7), AppIndex(3)];
        let mut bodies = Bodies::default();
        for (slot, app, bytes) in [(1, one, 50), (2, one, 10), (3, other, 40)] {
            bodies.begin(slot, app, bytes);
        }
        bodies.begin_reading(9);
        bodies.begin_reading(1);
        bodies.begin_reading(1);
        assert_eq!((bodies.bytes(), bodies.reading_bytes()), (50, 50));
        assert_eq!(bodies.largest(), Some(3), "the one that is read is larger");
        bodies.begin_reading(3);
        bodies.resize(3, 70);
        assert_eq!((bodies.bytes(), bodies.reading_bytes()), (10, 120));
        assert_eq!(bodies.goes_on_alone(120), None);
        assert_eq!(bodies.goes_on_alone(119), Some((other, 3)));
        bodies.forget(3);
        assert_eq!(bodies.goes_on_alone(49), Some((one, 1)));
        bodies.resize(1, 0);
        assert_eq!(bodies.goes_on_alone(0), None);
        bodies.begin(1, other, 5);
        assert_eq!(
            (bodies.bytes(), bodies.bytes_of(1)),
            (15, 5),
            "it waits again"
        );
        assert_eq!(bodies.largest(), Some(2));
    }
}
