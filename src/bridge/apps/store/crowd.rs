//! How many questions a store may have at once, and how many more may wait.
//!
//! Owns: `Crowd`; how places are divided between apps that are known and others.
//! May depend on: `config`, tokio.
//! Invariants: at most `places` are inside and `WAITING_MAX` wait, whatever the server does; who gives up leaves.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::config::sections::DatabasePooling;

#[derive(Debug)]
pub(super) struct Crowd {
    places: Semaphore,
    places_max: usize,
    /// Inside or waiting.
    open: AtomicUsize,
}

/// As many wait as may.
#[derive(Debug)]
pub(super) struct Crowded;

/// Leaves when it goes out of scope.
#[derive(Debug)]
pub(super) struct Place<'a> {
    _permit: SemaphorePermit<'a>,
    _open: Open<'a>,
}

#[derive(Debug)]
struct Open<'a>(&'a AtomicUsize);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Crowd {
    pub(super) fn new(places_max: usize) -> Self {
        Self {
            places: Semaphore::new(places_max),
            places_max,
            open: AtomicUsize::new(0),
        }
    }

    pub(super) async fn enter(&self) -> Result<Place<'_>, Crowded> {
        let open = self.open.fetch_add(1, Ordering::Relaxed);
        let _open = Open(&self.open);
        if open >= WAITING_MAX + self.places_max {
            return Err(Crowded);
        }
        let permit = self.places.acquire().await;
        let _permit = permit.expect("it is never closed");
        Ok(Place { _permit, _open })
    }
}

/// One place is kept for apps that are known, and for whether the store is there: none of these waits for a stranger's
/// question.
pub(super) const PLACES_OF_KNOWN: usize = 1;

/// Of all places those for other questions.
pub(super) const fn places_of_others(all: usize) -> usize {
    match all {
        0..=PLACES_OF_KNOWN => 1,
        _ => all - PLACES_OF_KNOWN,
    }
}

/// Connections of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Connections {
    /// They stay.
    pub(super) min: usize,
    pub(super) max: usize,
}

/// What a database's own section says of its connections.
#[derive(Clone, Copy, Debug)]
pub(super) struct OwnPool {
    /// Instead of those of all.
    pub(super) min: Option<u32>,
    pub(super) max: Option<u32>,
    /// Where pooling is off.
    pub(super) unpooled: u32,
}

/// A database's connections: for apps that are known, and for others.
pub(super) fn connections(pooling: &DatabasePooling, own: OwnPool) -> (Connections, Connections) {
    let (min, max) = match pooling.enabled {
        true => (
            own.min.unwrap_or(pooling.min),
            own.max.unwrap_or(pooling.max),
        ),
        false => (0, own.unpooled),
    };
    let (min, max) = (min as usize, (max as usize).min(CONNECTIONS_MAX));
    let of_known = Connections {
        min: min.min(PLACES_OF_KNOWN),
        max: PLACES_OF_KNOWN,
    };
    let of_others = Connections {
        min: min.saturating_sub(PLACES_OF_KNOWN),
        max: places_of_others(max),
    };
    (of_known, of_others)
}

/// Each look-up takes a millisecond or two: more than these would only wait for the server.
const CONNECTIONS_MAX: usize = 64;

/// A node asks no more at once than there are places: this bounds whoever does.
pub(super) const WAITING_MAX: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_divided_as_the_pool_of_all_the_databases_own_or_none_says() {
        let of = |min, max| Connections { min, max };
        // Of all: whether, least, most; its own: least, most, without a pool; then those of known apps, and of others.
        for (pooling, own, expected) in [
            ((true, 2, 10), (None, None, 7), (of(1, 1), of(1, 9))),
            ((true, 2, 10), (Some(0), None, 7), (of(0, 1), of(0, 9))),
            ((true, 2, 10), (Some(5), Some(20), 7), (of(1, 1), of(4, 19))),
            ((true, 2, 10), (None, Some(1), 7), (of(1, 1), of(1, 1))),
            ((true, 2, 64), (None, None, 7), (of(1, 1), of(1, 63))),
            ((true, 2, 65), (None, None, 7), (of(1, 1), of(1, 63))),
            ((true, 0, 1), (None, None, 7), (of(0, 1), of(0, 1))),
            ((false, 2, 10), (Some(5), Some(20), 7), (of(0, 1), of(0, 6))),
            ((false, 2, 10), (None, None, 1), (of(0, 1), of(0, 1))),
        ] {
            let (enabled, min, max) = pooling;
            let pooling = DatabasePooling { enabled, min, max };
            let (min, max, unpooled) = own;
            let own = OwnPool { min, max, unpooled };
            assert_eq!(connections(&pooling, own), expected, "{pooling:?}, {own:?}");
        }
    }
}
