//! The messages that this node has: those that wait to be taken, and those that were.
//!
//! Owns: `Jobs`: which of them a turn is given, which go back, which are to be lent again.
//! May depend on: `bridge::queue::store`. Time is an argument.
//! Invariants: a message is here once, whatever is received twice; what waits has a bound in messages and bytes; a
//! target that fails has one message here.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use ahash::AHashMap;
use tokio::time::Instant;

use super::super::{Receipt, Take, Taken};
use crate::bridge::queue::TargetName;

/// A message as it was received.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) id: Arc<str>,
    pub(super) handle: String,
    pub(super) target: TargetName,
    pub(super) text: String,
    /// How often, this time included.
    pub(super) receives: u32,
}

/// To whom a message is to be lent for how long, from now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lend {
    pub(super) id: Arc<str>,
    pub(super) handle: String,
    pub(super) seconds: i32,
}

#[derive(Debug)]
struct Kept {
    handle: String,
    target: TargetName,
    lent: Instant,
    receives: u32,
    /// `None` = it was taken.
    text: Option<String>,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    kept: AHashMap<Arc<str>, Kept>,
    /// Those to be taken, in the order in which they came.
    waiting: VecDeque<Arc<str>>,
    waiting_bytes: usize,
    /// Messages here, by target.
    per_target: BTreeMap<TargetName, usize>,
    /// Of those, how many were taken.
    taken: BTreeMap<TargetName, usize>,
    /// Messages that polls under way may bring.
    awaited: usize,
    failing: Arc<BTreeSet<TargetName>>,
    /// Attempts that failed here, of messages that are not here now.
    tried: AHashMap<Arc<str>, u32>,
    tried_order: VecDeque<Arc<str>>,
}

impl Jobs {
    /// A poll may bring so many; `false` = there is no room.
    pub(super) fn expect(&mut self, messages: usize, waiting_max: usize) -> bool {
        let has_room = self.waiting.len() + self.awaited + messages <= waiting_max
            && self.waiting_bytes < WAITING_BYTES_MAX;
        if has_room {
            self.awaited += messages;
        }
        has_room
    }

    /// A poll that was to bring so many has ended. Returns what is not wanted now.
    pub(super) fn receive(
        &mut self,
        expected: usize,
        received: Vec<Received>,
        now: Instant,
    ) -> Vec<Lend> {
        self.awaited = self.awaited.saturating_sub(expected);
        let mut unwanted = Vec::new();
        for message in received {
            if let Some(kept) = self.kept.get_mut(&message.id) {
                // It was lent longer than we said: the newer handle counts.
                kept.handle = message.handle;
                kept.lent = now;
                continue;
            }
            let count = self.per_target.entry(message.target).or_default();
            // What is too much for a target that answers waits here, and no more is fetched.
            if *count > 0 && self.failing.contains(&message.target) {
                unwanted.push(Lend {
                    seconds: rest_s(message.receives),
                    id: message.id,
                    handle: message.handle,
                });
                continue;
            }
            *count += 1;
            self.waiting_bytes += message.text.len();
            self.waiting.push_back(Arc::clone(&message.id));
            self.kept.insert(
                message.id,
                Kept {
                    handle: message.handle,
                    target: message.target,
                    lent: now,
                    receives: message.receives,
                    text: Some(message.text),
                },
            );
        }
        unwanted
    }

    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Those that the node has places for, and what waits for targets that fail.
    pub(super) fn take(&mut self, take: &Take) -> (Vec<Taken>, Vec<Lend>) {
        self.failing = Arc::clone(&take.failing);
        let (mut taken, mut unwanted) = (Vec::new(), Vec::new());
        let mut room = take.room;
        let mut left = VecDeque::with_capacity(self.waiting.len());
        for id in std::mem::take(&mut self.waiting) {
            let Some(kept) = self.kept.get_mut(&id) else {
                continue;
            };
            let target = kept.target;
            let is_failing = self.failing.contains(&target);
            let count = self.taken.entry(target).or_default();
            let has_place = match is_failing {
                true => *count == 0,
                false => room > 0 && *count < take.room_per_target,
            };
            match (has_place, is_failing) {
                (true, _) => {
                    *count += 1;
                    room -= usize::from(!is_failing);
                    let text = kept.text.take().unwrap_or_default();
                    self.waiting_bytes = self.waiting_bytes.saturating_sub(text.len());
                    taken.push(Taken {
                        receipt: Receipt {
                            target,
                            text: Arc::clone(&id),
                        },
                        attempts: self.tried.get(&id).copied().unwrap_or(0),
                        text: text.into_bytes(),
                    });
                }
                // It would keep the place of others.
                (false, true) => {
                    let seconds = rest_s(kept.receives);
                    unwanted.extend(self.lend(&id, seconds));
                    self.let_go(&id);
                }
                (false, false) => left.push_back(id),
            }
        }
        self.waiting = left;
        self.taken.retain(|_, count| *count > 0);
        (taken, unwanted)
    }

    /// Gives back all that waits.
    pub(super) fn give_up(&mut self) -> Vec<Lend> {
        let mut all = Vec::new();
        for id in std::mem::take(&mut self.waiting) {
            all.extend(self.lend(&id, 0));
            self.let_go(&id);
        }
        all
    }

    pub(super) fn lend(&self, id: &Arc<str>, seconds: i32) -> Option<Lend> {
        let kept = self.kept.get(id)?;
        Some(Lend {
            id: Arc::clone(id),
            handle: kept.handle.clone(),
            seconds,
        })
    }

    /// How long a message that was not tried is left to others.
    pub(super) fn rest_s(&self, receipt: &Receipt) -> i32 {
        let kept = self.kept.get(&receipt.text);
        match kept {
            Some(kept) if self.failing.contains(&receipt.target) => rest_s(kept.receives),
            Some(_) | None => 0,
        }
    }

    /// The store has it again, or nobody.
    pub(super) fn let_go(&mut self, id: &Arc<str>) {
        let Some(kept) = self.kept.remove(id) else {
            return;
        };
        lower(&mut self.per_target, kept.target);
        match kept.text {
            None => lower(&mut self.taken, kept.target),
            Some(text) => self.waiting_bytes = self.waiting_bytes.saturating_sub(text.len()),
        }
    }

    /// An attempt failed, of which the message itself does not tell.
    pub(super) fn was_tried(&mut self, id: &Arc<str>) {
        match self.tried.get_mut(id) {
            Some(count) => *count += 1,
            None => {
                self.tried.insert(Arc::clone(id), 1);
                self.tried_order.push_back(Arc::clone(id));
                if self.tried_order.len() > TRIED_MAX
                    && let Some(oldest) = self.tried_order.pop_front()
                {
                    self.tried.remove(&oldest);
                }
            }
        }
    }

    pub(super) fn has_any_of(&self, target: TargetName) -> bool {
        self.taken.contains_key(&target)
    }

    /// Those that were lent before `at` and are still here.
    pub(super) fn lent_before(&self, at: Instant, lease: Duration) -> Vec<Lend> {
        let seconds = i32::try_from(lease.as_secs()).unwrap_or(i32::MAX);
        let old = self.kept.iter().filter(|(_, kept)| kept.lent < at);
        old.filter_map(|(id, _)| self.lend(id, seconds)).collect()
    }

    pub(super) fn was_lent(&mut self, lends: &[Lend], now: Instant) {
        for lend in lends {
            if let Some(kept) = self.kept.get_mut(&lend.id) {
                kept.lent = now;
            }
        }
    }
}

fn lower(counts: &mut BTreeMap<TargetName, usize>, target: TargetName) {
    if let Some(count) = counts.get_mut(&target) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            counts.remove(&target);
        }
    }
}

/// The more often nobody wanted it, the longer.
fn rest_s(receives: u32) -> i32 {
    1 << receives.clamp(1, 5)
}

const WAITING_BYTES_MAX: usize = 16 << 20;
const TRIED_MAX: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn name(of: &str) -> TargetName {
        TargetName::of(of, "", 0)
    }

    fn message(id: &str, target: &str) -> Received {
        Received {
            id: id.into(),
            handle: format!("handle-{id}"),
            target: name(target),
            text: "text".into(),
            receives: 1,
        }
    }

    fn room(room: usize, room_per_target: usize, failing: &[&str]) -> Take {
        let failing: BTreeSet<TargetName> = failing.iter().map(|it| name(it)).collect();
        Take {
            room,
            room_per_target,
            failing: Arc::new(failing),
            ..Take::default()
        }
    }

    fn ids(taken: &[Taken]) -> Vec<&str> {
        taken.iter().map(|it| &*it.receipt.text).collect()
    }

    #[test]
    fn they_are_taken_in_order_within_the_places_of_each_target() {
        let now = Instant::now();
        let mut jobs = Jobs::default();
        jobs.take(&room(9, 2, &[]));
        assert!(jobs.expect(10, 10));
        assert!(!jobs.expect(1, 10));
        let all = ["a1", "a2", "a3", "b1"].map(|id| message(id, &id[..1]));
        assert!(jobs.receive(10, all.into(), now).is_empty());
        // A second time it is the same one.
        let again = Received {
            handle: "newer".into(),
            ..message("a1", "a")
        };
        assert!(jobs.receive(0, vec![again], now).is_empty());
        assert_eq!(
            jobs.lend(&"a1".into(), 5).map(|it| it.handle),
            Some("newer".to_owned())
        );
        let (taken, unwanted) = jobs.take(&room(9, 2, &[]));
        assert_eq!((ids(&taken), unwanted.len()), (vec!["a1", "a2", "b1"], 0));
        let (taken, _) = jobs.take(&room(9, 2, &[]));
        assert!(taken.is_empty());
        jobs.let_go(&"a1".into());
        let (taken, _) = jobs.take(&room(0, 2, &[]));
        assert!(taken.is_empty());
        let (taken, _) = jobs.take(&room(1, 2, &[]));
        assert_eq!(ids(&taken), ["a3"]);
        assert!(jobs.has_any_of(name("b")));
        jobs.let_go(&"b1".into());
        assert!(!jobs.has_any_of(name("b")));
        assert_eq!(jobs.waiting_bytes, 0);
    }

    #[test]
    fn a_target_that_fails_has_one_and_the_others_rest() {
        let now = Instant::now();
        let mut jobs = Jobs::default();
        jobs.take(&room(9, 2, &[]));
        let all = ["a1", "a2", "b1"].map(|id| message(id, &id[..1]));
        jobs.receive(10, all.into(), now);
        let (taken, unwanted) = jobs.take(&room(0, 2, &["a"]));
        assert_eq!(ids(&taken), ["a1"]);
        assert_eq!(unwanted.len(), 1);
        assert_eq!((&*unwanted[0].id, unwanted[0].seconds), ("a2", 2));
        let unwanted = jobs.receive(0, vec![message("a3", "a")], now);
        assert_eq!(unwanted.len(), 1);
        let receipt = taken[0].receipt.clone();
        jobs.was_tried(&receipt.text);
        jobs.let_go(&receipt.text);
        jobs.receive(0, vec![message("a1", "a")], now);
        let (taken, _) = jobs.take(&room(0, 2, &["a"]));
        assert_eq!((ids(&taken), taken[0].attempts), (vec!["a1"], 1));
        // What is here is lent again, and what waits goes back in the end.
        let later = now + Duration::from_secs(9);
        assert_eq!(jobs.lent_before(later, Duration::from_secs(30)).len(), 2);
        assert_eq!(jobs.lent_before(now, Duration::from_secs(30)).len(), 0);
        let back = jobs.give_up();
        assert_eq!((&*back[0].id, back[0].seconds), ("b1", 0));
        assert!(!jobs.has_waiting());
    }
}
