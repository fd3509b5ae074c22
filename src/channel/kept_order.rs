//! How much of last events is kept, by app, and which goes when that is too much.
//!
//! Owns: the numbers of the kept events of each app, oldest first, and what they hold.
//! May depend on: `channel::home` for references, `holders`, `protocol::app`. Not on what is kept.
//! Invariants: whoever keeps events keeps bytes; whatever one app keeps, one that holds less loses nothing for it.

use std::collections::VecDeque;

use super::home::HomeRef;
use crate::{holders::Holders, protocol::app::AppIndex};

/// How much of last events is kept: beyond it the app that holds the most loses its oldest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptMax {
    pub events: usize,
    pub bytes: usize,
}

#[derive(Clone, Debug, Default)]
pub(super) struct KeptOrder {
    /// Apps by how many events they keep; and homes and the numbers of these events, oldest first. May name some
    /// that are replaced or gone.
    events: Holders<AppIndex, VecDeque<(HomeRef, u64)>>,
    bytes: Holders<AppIndex>,
}

/// Places of an order that may be in vain, beside one for each event.
const IN_VAIN_MAX: usize = 64;

impl KeptOrder {
    /// Events that are kept.
    pub(super) fn events(&self) -> usize {
        self.events.sum()
    }

    /// About the bytes that they hold.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.sum()
    }

    /// Places of all orders, those in vain too.
    #[cfg(test)]
    pub(super) fn places(&self) -> usize {
        self.events.all_known().map(VecDeque::len).sum()
    }

    /// A home keeps an event under that number, of so many bytes, maybe in place of one of `before`. `keeps`
    /// says what is kept still.
    // Per event of a cache channel: some look-ups among the apps that have such channels.
    pub(super) fn keep(
        &mut self,
        app: AppIndex,
        (at, number): (HomeRef, u64),
        bytes: usize,
        before: Option<usize>,
        keeps: impl Fn(HomeRef, u64) -> bool,
    ) {
        self.events.change(app, |events, order| {
            *events += usize::from(before.is_none());
            order.push_back((at, number));
            // Half of the order is in vain by then, so a walk costs each entry a constant.
            if order.len() > 2 * *events + IN_VAIN_MAX {
                order.retain(|(at, number)| keeps(*at, *number));
            }
        });
        self.bytes.change(app, |held, ()| {
            *held = *held + bytes - before.unwrap_or(0);
        });
    }

    /// An event of so many bytes is kept no more.
    pub(super) fn forget(&mut self, app: AppIndex, bytes: usize) {
        let events = self.events.change(app, |events, _| {
            *events -= 1;
            *events
        });
        let bytes = self.bytes.change(app, |held, ()| {
            *held -= bytes;
            *held
        });
        assert!((events == 0) == (bytes == 0), "without events no bytes");
    }

    /// The next that has to go, while there are more than may be; it may be replaced or gone already. One that
    /// goes is to be forgotten.
    pub(super) fn next_beyond(&mut self, most: KeptMax) -> Option<(HomeRef, u64)> {
        let is_beyond = (self.events() > most.events, self.bytes() > most.bytes);
        let app = match is_beyond {
            (true, _) => self.events.heaviest().map(|(app, _)| app),
            (false, true) => self.bytes.heaviest().map(|(app, ())| app),
            (false, false) => return None,
        };
        let app = app.expect("what is kept is an app's");
        let order = self.events.known_mut(app).expect("it keeps events");
        let oldest = order.pop_front();
        Some(oldest.expect("each kept event is in the order"))
    }
}

#[cfg(test)]
mod tests {
    use super::{super::rows::RowRef, *};

    const MANY: AppIndex = AppIndex(9);
    const LARGE: AppIndex = AppIndex(3);

    fn at(number: u64) -> HomeRef {
        let index = u32::try_from(number).expect("small");
        HomeRef(RowRef {
            index,
            generation: 0,
        })
    }

    /// Three small events of one app, then two large ones of another.
    fn kept() -> KeptOrder {
        let mut kept = KeptOrder::default();
        for (number, app, bytes) in [
            (1, MANY, 10),
            (2, MANY, 10),
            (3, MANY, 10),
            (4, LARGE, 100),
            (5, LARGE, 100),
        ] {
            kept.keep(app, (at(number), number), bytes, None, |_, _| true);
        }
        kept
    }

    #[test]
    fn too_many_events_are_those_of_who_has_many_and_too_many_bytes_those_of_who_has_large_ones() {
        for (events, bytes, expected) in [
            (5, 230, None),
            (4, 230, Some(1)),
            (5, 229, Some(4)),
            (4, 229, Some(1)),
        ] {
            let gone = kept().next_beyond(KeptMax { events, bytes });
            let expected = expected.map(|number| (at(number), number));
            assert_eq!(gone, expected, "{events} events, {bytes} bytes");
        }
    }

    #[test]
    fn an_event_in_place_of_another_is_the_newest_and_counts_once() {
        let mut kept = kept();
        kept.keep(LARGE, (at(4), 6), 60, Some(100), |_, _| true);
        assert_eq!((kept.events(), kept.bytes()), (5, 190));
        let most = KeptMax {
            events: 5,
            bytes: 0,
        };
        let mut gone = Vec::new();
        // The first place is in vain.
        for bytes in [None, Some(100), Some(60)] {
            gone.push(kept.next_beyond(most).expect("there is more").1);
            if let Some(bytes) = bytes {
                kept.forget(LARGE, bytes);
            }
        }
        assert_eq!(gone, [4, 5, 6]);
        assert_eq!((kept.events(), kept.bytes()), (3, 30));
    }
}
