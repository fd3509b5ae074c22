//! Which topics are wanted: said by the bridge, carried out by a connection.
//!
//! Owns: `WishSender`, `Wishes`.
//! May depend on: tokio, `cluster::topic`.
//! Invariants: bounded by the number of topics, however often they change; the connection sees the
//! last wish of each, and by its count whether there were others in between.

use tokio::sync::watch;

use super::news::Wish;
use crate::cluster::topic::{LANES, Topic};

impl Wish {
    pub(super) const fn is_wanted(self) -> bool {
        self.0 % 2 == 1
    }

    /// The next count with this meaning.
    const fn next(self, is_wanted: bool) -> Self {
        let step = if self.is_wanted() == is_wanted { 2 } else { 1 };
        Self(self.0.wrapping_add(step))
    }
}

/// The last wish for each topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wishes([Wish; LANES as usize]);

impl Wishes {
    pub(super) fn of(&self, topic: Topic) -> Wish {
        let wish = self.0.get(usize::from(topic.lane().0));
        *wish.expect("every lane has a wish")
    }

    /// Those of some topics, for a connection that is not asked for the others. It sees that there was
    /// a wish, also where it never saw that one.
    pub(super) fn only(&self, mut is_asked: impl FnMut(Topic) -> bool) -> Self {
        let mut wishes = self.0;
        for (topic, wish) in Topic::all().zip(&mut wishes) {
            if wish.is_wanted() && !is_asked(topic) {
                *wish = wish.next(false);
            }
        }
        Self(wishes)
    }

    /// Nothing is wanted.
    pub(super) fn none() -> Self {
        Self([Wish::default(); LANES as usize])
    }
}

/// The bridge's end. The connection is woken by each change, and by the end of this.
#[derive(Debug)]
pub(super) struct WishSender {
    sender: watch::Sender<Wishes>,
    wanted: u64,
}

/// The connection's end.
pub(super) type WishReceiver = watch::Receiver<Wishes>;

pub(super) fn wishes() -> (WishSender, WishReceiver) {
    let (sender, receiver) = watch::channel(Wishes::none());
    (WishSender { sender, wanted: 0 }, receiver)
}

impl WishSender {
    pub(super) fn set(&mut self, topic: Topic, is_wanted: bool) {
        let was_wanted = self.of(topic).is_wanted();
        match (was_wanted, is_wanted) {
            (false, true) => self.wanted += 1,
            (true, false) => self.wanted -= 1,
            (false, false) => return,
            (true, true) => {}
        }
        self.sender.send_modify(|Wishes(wishes)| {
            let wish = wishes.get_mut(usize::from(topic.lane().0));
            let wish = wish.expect("every lane has a wish");
            *wish = wish.next(is_wanted);
        });
    }

    pub(super) fn of(&self, topic: Topic) -> Wish {
        self.sender.borrow().of(topic)
    }

    pub(super) fn wanted(&self) -> u64 {
        self.wanted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_that_came_and_went_between_two_looks_is_seen() {
        let (mut sender, mut receiver) = wishes();
        sender.set(Topic::Nodes, true);
        let first = receiver.borrow_and_update().of(Topic::Nodes);
        sender.set(Topic::Nodes, false);
        sender.set(Topic::Nodes, true);
        let last = receiver.borrow_and_update().of(Topic::Nodes);
        assert!(first.is_wanted() && last.is_wanted());
        assert_ne!(first, last);
        assert_eq!(sender.wanted(), 1);
    }

    #[test]
    fn a_topic_that_nobody_wanted_can_be_given_up() {
        let (mut sender, receiver) = wishes();
        sender.set(Topic::Nodes, false);
        assert!(!receiver.has_changed().expect("the sender is there"));
        assert_eq!(sender.wanted(), 0);
    }
}
