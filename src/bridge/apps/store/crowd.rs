//! How many questions a store may have at once, and how many more may wait.
//!
//! Owns: `Crowd`; how places are divided between apps that are known and others.
//! May depend on: tokio.
//! Invariants: at most `places` are inside and `WAITING_MAX` wait, whatever the server does; who gives up leaves.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Semaphore, SemaphorePermit};

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

/// A node asks no more at once than there are places: this bounds whoever does.
pub(super) const WAITING_MAX: usize = 1_024;
