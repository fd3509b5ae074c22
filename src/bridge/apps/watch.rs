//! Which apps are to be looked at again, and when.
//!
//! Owns: `Watch`.
//! May depend on: `protocol::app`.
//! Invariants: an app that is watched waits, or is looked at; what waits is in the order in which it is taken.

use std::{collections::VecDeque, time::Duration};

use crate::protocol::app::{AppIndex, AppNames, AppRows};

/// Apps of a store by their ids, each once, however it waits. There may be ten thousand.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// By numbers of its own, given once.
    ids: AppRows<Box<str>>,
    by_id: AppNames,
    given: u32,
    /// Nanoseconds of the node's clock; no app is a question whether the store is there.
    dues: VecDeque<(u64, Option<Number>)>,
}

/// Never 0, so that none of them takes no room.
type Number = std::num::NonZeroU32;

fn nanos(at: Duration) -> u64 {
    u64::try_from(at.as_nanos()).unwrap_or(u64::MAX)
}

fn index(number: Number) -> AppIndex {
    AppIndex(number.get())
}

fn id_in<'a>(ids: &'a AppRows<Box<str>>) -> impl Fn(AppIndex) -> &'a str + Copy {
    |number| ids.get(number).map_or("", |id| id)
}

impl Watch {
    fn number(&self, id: &str) -> Option<Number> {
        Number::new(self.by_id.get(id, id_in(&self.ids))?.0)
    }

    /// Watches an app from now on; `None` if it did before.
    fn enter(&mut self, id: &str) -> Option<Number> {
        if self.number(id).is_some() {
            return None;
        }
        self.given = self.given.checked_add(1).expect("fewer than 2^32 apps");
        let number = Number::new(self.given).expect("one was added");
        self.ids.enter(index(number), || id.into());
        self.by_id.put(id, index(number), id_in(&self.ids));
        Some(number)
    }

    /// A new one is looked at behind those that wait.
    pub(super) fn come(&mut self, at: Duration, id: &str) -> bool {
        let number = self.enter(id);
        self.dues
            .extend(number.map(|number| (nanos(at), Some(number))));
        number.is_some()
    }

    /// A new one is looked at before those that wait.
    pub(super) fn come_first(&mut self, at: Duration, id: &str) {
        if let Some(number) = self.enter(id) {
            self.dues.push_front((nanos(at), Some(number)));
        }
    }

    /// It is watched no more.
    pub(super) fn leave(&mut self, id: &str) {
        if let Some(number) = self.number(id) {
            self.by_id.remove(id, index(number));
            self.ids.remove(index(number));
        }
    }

    /// One that was taken waits again, behind all others.
    pub(super) fn wait(&mut self, at: Duration, id: &str) {
        let number = self.number(id).or_else(|| self.enter(id));
        self.dues.push_back((nanos(at), number));
    }

    /// Those that were taken wait again, before all others.
    pub(super) fn wait_first(&mut self, at: Duration, ids: &[Box<str>]) {
        for id in ids.iter().rev() {
            let number = self.number(id).or_else(|| self.enter(id));
            self.dues.push_front((nanos(at), number));
        }
    }

    /// The store is to be asked whether it is there.
    pub(super) fn probe(&mut self, at: Duration) {
        self.dues.push_front((nanos(at), None));
    }

    /// Nobody waits longer than until then.
    pub(super) fn hasten(&mut self, at: Duration) {
        for (due, _) in &mut self.dues {
            *due = (*due).min(nanos(at));
        }
    }

    pub(super) fn due(&self) -> Option<Duration> {
        let (due, _) = self.dues.front()?;
        Some(Duration::from_nanos(*due))
    }

    /// Takes those that are due, so many at most. Without one it is a question whether the store is there.
    pub(super) fn take(&mut self, now: Duration, most: usize) -> Vec<Box<str>> {
        let mut taken = Vec::new();
        let mut count = 0;
        while count < most
            && let Some((_, number)) = self.dues.pop_front_if(|(due, _)| *due <= nanos(now))
        {
            count += 1;
            let id = number.and_then(|number| self.ids.get(index(number)));
            taken.extend(id.cloned());
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_app_waits_once_and_is_taken_in_its_turn_until_it_leaves() {
        let mut watch = Watch::default();
        let at = Duration::from_millis;
        assert!(watch.come(at(2), "b") && watch.come(at(3), "c"));
        assert!(!watch.come(at(1), "b"), "it waits already");
        watch.come_first(at(1), "a");
        watch.come_first(at(0), "c");
        watch.probe(at(1));
        assert_eq!((watch.due(), watch.take(at(0), 9).len()), (Some(at(1)), 0));
        let taken = watch.take(at(2), 3);
        assert_eq!(taken, ["a", "b"].map(Box::<str>::from), "beside the probe");
        watch.leave("a");
        watch.wait_first(at(9), &taken[1..]);
        watch.wait(at(9), "a");
        watch.hasten(at(4));
        assert_eq!(watch.take(at(4), 2), ["b", "c"].map(Box::<str>::from));
        watch.leave("b");
        assert!(watch.come(at(5), "b"), "it comes anew");
        assert_eq!(watch.take(at(5), 9), ["a", "b"].map(Box::<str>::from));
        assert_eq!(watch.due(), None);
    }
}
