//! What was published and who must have got it: the truth that clients are compared with.

use std::collections::{BTreeMap, BTreeSet};

use shards::application::Millis;

use crate::plan::Keeping;

/// A channel of an app.
pub(crate) type Place = (usize, String);

/// Everything that was published in a run.
#[derive(Default)]
pub(crate) struct Ledger {
    pub(crate) events: Vec<Event>,
    /// For each event what some subscriber got right after it of those of one node, by channel and
    /// publishing node.
    followers: BTreeMap<(Place, usize), BTreeMap<usize, BTreeSet<usize>>>,
    /// Subscriptions that must get an event: client, epoch of its subscription, event.
    pub(crate) owed: Vec<(usize, u64, usize)>,
    /// API events by channel.
    api_events: BTreeMap<Place, Vec<usize>>,
}

pub(crate) struct Event {
    pub(crate) place: Place,
    /// The number in its data: that of the first event of its request.
    pub(crate) data_number: usize,
    pub(crate) publisher: usize,
    /// Where it was published.
    pub(crate) node: usize,
    pub(crate) sender: Option<usize>,
    /// Who sent it as a client, or must not get it.
    pub(crate) except: Option<String>,
    pub(crate) user_id: Option<String>,
    pub(crate) sent: Moment,
    /// When the publisher knew that it was taken over.
    pub(crate) acknowledged: Option<Moment>,
    pub(crate) is_refused: bool,
}

/// A point in a run: steps order what happens within one millisecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment {
    pub(crate) step: u64,
    pub(crate) at: Millis,
}

impl Ledger {
    pub(crate) fn publish(&mut self, event: Event) -> usize {
        let number = self.events.len();
        if event.sender.is_none() {
            let list = self.api_events.entry(event.place.clone()).or_default();
            list.push(number);
        }
        self.events.push(event);
        number
    }

    /// The event of a channel that carries this number in its data.
    pub(crate) fn find(&self, place: &Place, data_number: usize) -> usize {
        let rest = self.events.iter().enumerate().skip(data_number);
        let mut group = rest.take_while(|(_, event)| event.data_number == data_number);
        let found = group.find(|(_, event)| event.place == *place);
        found
            .unwrap_or_else(|| panic!("{place:?} never had an event {data_number}"))
            .0
    }

    /// Of the events of one node a subscriber got `next` right after `previous`.
    pub(crate) fn follows(&mut self, place: &Place, previous: usize, next: usize) {
        let key = (place.clone(), self.events[next].node);
        let followers = self.followers.entry(key).or_default();
        followers.entry(previous).or_default().insert(next);
    }

    /// A newcomer that subscribed at `asked` and heard at `heard` was given `cached`.
    pub(crate) fn check_cached(
        &self,
        place: &Place,
        cached: Option<usize>,
        asked: Moment,
        heard: Moment,
        keeping: Keeping,
    ) {
        let Keeping {
            kept_ms, spread_ms, ..
        } = keeping;
        let newer_than = cached.map(|number| {
            let event = &self.events[number];
            assert!(event.sender.is_none(), "a client event {number} was kept");
            event
        });
        if keeping.is_troubled {
            return;
        }
        if let Some(acknowledged) = newer_than.and_then(|event| event.acknowledged) {
            let dies_at = keeping.heard_by(acknowledged).plus(kept_ms);
            assert!(
                asked.at <= dies_at,
                "a newcomer of {place:?} got an expired event"
            );
        }
        // Of two that were published on two nodes at about the same time each may be the last.
        let follows = |known: Moment, sent: Moment| match spread_ms {
            0 => known >= sent,
            _ => keeping.heard_by(known) >= sent.at,
        };
        for number in self.api_events.get(place).into_iter().flatten() {
            let event = &self.events[*number];
            let Some(acknowledged) = event.acknowledged else {
                continue;
            };
            let before = match spread_ms {
                0 => acknowledged < asked,
                _ => keeping.heard_by(acknowledged) <= asked.at,
            };
            match newer_than {
                None => assert!(
                    !before || heard.at >= event.sent.at.plus(kept_ms),
                    "a newcomer of {place:?} missed the kept event {number}"
                ),
                Some(kept) => assert!(
                    !before || kept.acknowledged.is_none_or(|at| follows(at, event.sent)),
                    "a newcomer of {place:?} got {cached:?} though {number} came later"
                ),
            }
        }
    }

    /// Newcomers on two nodes, in their order, were given the same last event, or two that were published so close
    /// together that each node may have heard another one last. `hides`: one node may not know an event of the other.
    pub(crate) fn check_same(
        &self,
        given: [Option<usize>; 2],
        asked: Moment,
        keeping: Keeping,
        hides: impl Fn(Moment, usize, usize) -> bool,
    ) {
        let Keeping {
            kept_ms, spread_ms, ..
        } = keeping;
        let newest = given.into_iter().flatten();
        let Some(newest) = newest.max_by_key(|it| self.events[*it].sent) else {
            return;
        };
        let Event { sent, node, .. } = self.events[newest];
        if sent.at.plus(kept_ms) <= asked.at.plus(spread_ms) {
            return; // It ended on one node before it did on the other.
        }
        let is_near = |other: usize| {
            let Event {
                sent: before,
                acknowledged,
                ..
            } = self.events[other];
            let known = acknowledged.unwrap_or(before);
            keeping.heard_by(known) >= sent.at
        };
        for (at, other) in given.into_iter().enumerate() {
            let is_same = other.is_some_and(|other| other == newest || is_near(other));
            assert!(
                is_same || hides(sent, node, at),
                "newcomers on two nodes were given {given:?}"
            );
        }
    }

    /// All subscribers of a channel have seen its events of one node in one and the same order.
    pub(crate) fn check_order(&self) {
        for (place, followers) in &self.followers {
            let mut before: BTreeMap<usize, usize> = BTreeMap::new();
            for next in followers.values().flatten() {
                *before.entry(*next).or_default() += 1;
            }
            let all: BTreeSet<usize> = followers.keys().chain(before.keys()).copied().collect();
            let is_first = |event: &&usize| !before.contains_key(event);
            let mut free: Vec<usize> = all.iter().filter(is_first).copied().collect();
            let mut placed = 0;
            while let Some(event) = free.pop() {
                placed += 1;
                for next in followers.get(&event).into_iter().flatten() {
                    let count = before.get_mut(next).expect("counted above");
                    *count -= 1;
                    if *count == 0 {
                        free.push(*next);
                    }
                }
            }
            assert_eq!(
                placed,
                all.len(),
                "subscribers of {place:?} saw events in different orders"
            );
        }
    }
}
