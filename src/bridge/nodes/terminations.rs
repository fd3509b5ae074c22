//! Users whose connections this node's API has ended, for nodes that could not hear of it.
//!
//! Owns: `Terminations`.
//! May depend on: nothing. Time is an argument.
//! Invariants: at most `SAID_MAX` are kept, the newest; none is said again that is older than `KEPT_FOR`, nor while
//! the bus has not been gone.

use std::{collections::VecDeque, sync::Arc, time::Duration};

/// What was said, and may have been lost.
#[derive(Debug, Default)]
pub(super) struct Terminations {
    /// The oldest first.
    said: VecDeque<Said>,
    is_gone: bool,
    /// When all is said again.
    again_at: VecDeque<Duration>,
}

#[derive(Clone, Debug)]
pub(super) struct Said {
    at: Duration,
    pub(super) app: Arc<str>,
    pub(super) user_id: Arc<str>,
}

/// Of about a hundred bytes each.
const SAID_MAX: usize = 1_024;
/// A user who was ended longer ago may have been let in again.
const KEPT_FOR: Duration = Duration::from_secs(600);
/// That a bus is gone is known so long after it at the latest.
const NOTICED_WITHIN: Duration = Duration::from_secs(10);
/// All nodes have found the bus by then.
const AGAIN_AFTER: Duration = Duration::from_secs(5);

impl Terminations {
    pub(super) fn said(&mut self, now: Duration, app: Arc<str>, user_id: Arc<str>) {
        self.forget(now);
        if self.said.len() == SAID_MAX {
            self.said.pop_front();
        }
        let at = now;
        self.said.push_back(Said { at, app, user_id });
    }

    /// What is said from now on, and was said just before, is heard by nobody.
    pub(super) fn gone(&mut self, now: Duration) {
        self.forget(now);
        self.is_gone = true;
        self.again_at.clear();
    }

    pub(super) fn back(&mut self, now: Duration) {
        if std::mem::take(&mut self.is_gone) {
            self.again_at = [now, now + AGAIN_AFTER].into();
        }
    }

    /// When `take_due` has something to say.
    pub(super) fn due(&self) -> Option<Duration> {
        self.again_at.front().copied()
    }

    /// What is to be said again now.
    pub(super) fn take_due(&mut self, now: Duration) -> Vec<Said> {
        if self.again_at.pop_front_if(|at| *at <= now).is_none() {
            return Vec::new();
        }
        self.forget(now);
        if self.again_at.is_empty() {
            return std::mem::take(&mut self.said).into();
        }
        self.said.iter().cloned().collect()
    }

    fn forget(&mut self, now: Duration) {
        let is_awaited = self.is_gone || !self.again_at.is_empty();
        let kept_for = if is_awaited { KEPT_FOR } else { NOTICED_WITHIN };
        while self
            .said
            .pop_front_if(|it| it.at + kept_for < now)
            .is_some()
        {}
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::carrying_tests::{OLD as NODE, PEER, Scene},
        *,
    };
    use crate::{
        bridge::{
            adapter::news::News,
            message::{FromBridge, UserOfNodes},
        },
        cluster::topic::{Road, Topic},
    };

    impl Scene {
        fn terminates(&mut self, user_id: &str) {
            let entry = self.apps.by_id("app").expect("it is there");
            let user = UserOfNodes {
                app: entry.index,
                partition: entry.rules.partitions.of_user(user_id),
                id: user_id.into(),
            };
            let now = self.now();
            self.exchanges[PEER].terminate(now, &self.apps, &user);
            self.exchanges[PEER].flush();
            self.settles();
        }

        /// The peer's road of state is gone, and what it says is heard by nobody.
        fn is_cut_off(&mut self) {
            self.brings(PEER, News::Down(Road::State));
            self.subscribed[NODE].remove(&Topic::Nodes);
        }

        fn is_there_again(&mut self) {
            self.subscribed[NODE].insert(Topic::Nodes);
            let topics = self.exchanges[PEER].topics.common();
            let topics = topics.filter(|topic| topic.road() == Road::State).collect();
            self.brings(PEER, News::Up(Road::State));
            self.brings(PEER, News::Live(topics));
        }

        /// Users that the node was told of since this was asked.
        fn ended(&mut self) -> Vec<String> {
            let told = std::mem::take(&mut self.told[NODE]).into_iter();
            let user = |(_, message)| match message {
                FromBridge::Terminate(user) => Some(user.id.to_string()),
                _ => None,
            };
            told.filter_map(user).collect()
        }
    }

    #[test]
    fn who_was_ended_while_the_bus_was_gone_is_named_again_when_it_is_back() {
        let mut scene = Scene::new();
        scene.terminates("long ago");
        scene.passes(20_000);
        assert_eq!(scene.ended(), ["long ago"]);
        // That the bus is gone is not known at once.
        scene.subscribed[NODE].remove(&Topic::Nodes);
        scene.terminates("before");
        scene.passes(2_000);
        scene.is_cut_off();
        scene.terminates("meanwhile");
        scene.passes(1_000);
        assert_eq!(scene.ended(), [""; 0]);
        scene.is_there_again();
        scene.passes(500);
        assert_eq!(scene.ended(), ["before", "meanwhile"]);
        scene.passes(4_000);
        scene.terminates("after");
        assert_eq!(scene.ended(), ["after"]);
        // Whoever was not there yet.
        scene.passes(2_000);
        assert_eq!(scene.ended(), ["before", "meanwhile", "after"]);
        scene.passes(20_000);
        assert_eq!(scene.ended(), [""; 0]);
    }

    #[test]
    fn so_many_are_kept_for_so_long_and_the_newest_stay() {
        let user = |number: usize| (Arc::from("app"), Arc::from(number.to_string()));
        let at = Duration::from_secs;
        let mut terminations = Terminations::default();
        terminations.gone(at(1));
        for number in 0..SAID_MAX + 5 {
            let (app, user_id) = user(number);
            terminations.said(at(1), app, user_id);
        }
        terminations.back(at(2));
        let ids = |said: Vec<Said>| -> Vec<String> {
            said.iter().map(|it| it.user_id.to_string()).collect()
        };
        assert_eq!(terminations.due(), Some(at(2)));
        let said = ids(terminations.take_due(at(2)));
        assert_eq!((said.len(), &*said[0]), (SAID_MAX, "5"));
        // It goes once more before that was said again.
        terminations.gone(at(3));
        assert_eq!(terminations.due(), None);
        let (app, user_id) = user(9_999);
        terminations.said(at(602), app, user_id);
        terminations.back(at(603));
        assert_eq!(ids(terminations.take_due(at(603))), ["9999"]);
        assert_eq!(ids(terminations.take_due(at(604))), [""; 0]);
        assert_eq!(ids(terminations.take_due(at(608))), ["9999"]);
        assert_eq!((terminations.due(), terminations.said.len()), (None, 0));
    }
}
