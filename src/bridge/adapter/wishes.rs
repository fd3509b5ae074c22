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

    /// Those of some topics, for a connection that is not asked for the others; `before` is what it was
    /// asked last. What it is not asked for any more becomes `given_up`, so that it sees that there was
    /// a wish, also one that came and went between two looks.
    pub(super) fn only(
        &self,
        before: &Self,
        given_up: Wish,
        mut is_asked: impl FnMut(Topic) -> bool,
    ) -> Self {
        assert!(!given_up.is_wanted());
        let mut wishes = self.0;
        for ((topic, wish), before) in Topic::all().zip(&mut wishes).zip(&before.0) {
            if wish.is_wanted() && is_asked(topic) {
                continue;
            }
            *wish = match before.is_wanted() {
                true => given_up,
                false => *before,
            };
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
    fn a_connection_that_was_asked_between_two_looks_sees_it() {
        let (mut sender, receiver) = wishes();
        sender.set(Topic::Nodes, true);
        let all = receiver.borrow().clone();
        let first = all.only(&Wishes::none(), Wish(2), |_| false);
        assert_eq!(first, Wishes::none(), "it was never asked");
        let asked = all.only(&first, Wish(4), |_| true);
        assert_eq!(asked, all);
        let given_up = asked.only(&asked, Wish(6), |_| false);
        let asked = all.only(&given_up, Wish(8), |_| true);
        let last = asked.only(&asked, Wish(10), |_| false);
        assert_ne!(last.of(Topic::Nodes), given_up.of(Topic::Nodes));
        assert!(!last.of(Topic::Nodes).is_wanted());
        assert_eq!(last.of(Topic::Echo), Wish::default());
    }

    #[test]
    fn a_topic_that_nobody_wanted_can_be_given_up() {
        let (mut sender, receiver) = wishes();
        sender.set(Topic::Nodes, false);
        assert!(!receiver.has_changed().expect("the sender is there"));
        assert_eq!(sender.wanted(), 0);
    }
}
