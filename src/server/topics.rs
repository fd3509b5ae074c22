//! The bus, as a shard sees it: which topics its channels need, who waits until one is live.
//!
//! Owns: per partition of this shard the wish for its topic, joins that wait for it.
//! May depend on: `bridge::message`, `channel`, `server::{home, message}`.
//! Invariants: on a node with a bus a subscription begins only while its topic is live: *subscribed
//! means subscribed*; a topic is wished for as long as a home of its partition needs it or a join waits;
//! the bridge hears of a wish's last change, of each at last.

use std::collections::VecDeque;

use shards::{
    application::{Millis, Waiter},
    work::Work,
};

use super::{
    ServerTurn, ShardServer,
    message::{Answer, JoinQuestion},
};
use crate::{
    bridge::message::{ToBridge, TopicWish},
    channel::home::{HomeRef, JoinRefused},
    protocol::partition::{PARTITIONS, Partition},
};

/// Joins of one shard that wait for the bus; beyond, a client is told to come back.
pub(super) const JOINS_MAX: usize = 16_384;

/// The topics of the partitions whose home is this shard. Without a bus it has none, and every one
/// of them is live.
#[derive(Clone, Default)]
pub(super) struct Topics {
    shards: u16,
    /// By partition, divided by the number of shards; empty without a bus.
    rows: Vec<Row>,
    /// Rows whose wish has changed since the bridge heard of it.
    unsent: Vec<Partition>,
    /// The bridge had no room for the last one: a tick tries again.
    is_stuck: bool,
    /// Joins that waited for a topic which is live now.
    ready: VecDeque<Parked>,
    /// Joins that wait, ready ones too.
    joins: usize,
}

#[derive(Clone, Default)]
struct Row {
    /// Homes in this partition that need it, and joins that wait for it.
    uses: u32,
    wish: TopicWish,
    is_live: bool,
    /// Since when all that is published is heard, if it is live.
    live_since: Millis,
    is_unsent: bool,
    joins: Vec<Parked>,
}

/// A subscription that has not begun.
type Parked = (Waiter, JoinQuestion);

impl Topics {
    /// Of a shard on a node with a bus, where nothing is live yet.
    pub(super) fn new(shards: u16) -> Self {
        let count = PARTITIONS.div_ceil(shards);
        Self {
            shards,
            rows: (0..count).map(|_| Row::default()).collect(),
            ..Self::default()
        }
    }

    /// The node speaks with others.
    pub(super) fn has_bus(&self) -> bool {
        !self.rows.is_empty()
    }

    /// Joins that wait.
    pub(super) fn joins(&self) -> usize {
        self.joins
    }

    /// There is something to do at once.
    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty() || (!self.unsent.is_empty() && !self.is_stuck)
    }

    pub(super) fn is_stuck(&self) -> bool {
        self.is_stuck
    }

    fn is_live(&self, partition: Partition) -> bool {
        !self.has_bus() || self.rows[self.at(partition)].is_live
    }

    fn at(&self, partition: Partition) -> usize {
        usize::from(partition.number() / self.shards.max(1))
    }

    /// One home or join more, or one less.
    pub(super) fn used(&mut self, partition: Partition, is_more: bool) {
        let at = self.at(partition);
        let Some(row) = self.rows.get_mut(at) else {
            return;
        };
        let was_wanted = row.uses > 0;
        row.uses = match is_more {
            true => row.uses + 1,
            false => row.uses.checked_sub(1).expect("what ends was counted"),
        };
        let is_wanted = row.uses > 0;
        if is_wanted == was_wanted {
            return;
        }
        row.wish = row.wish.changed(is_wanted);
        row.is_live = false;
        if !row.is_unsent {
            row.is_unsent = true;
            self.unsent.push(partition);
        }
    }

    /// Keeps a join until its topic is live. Gives it back where too many wait.
    fn park(&mut self, partition: Partition, parked: Parked) -> Result<(), Parked> {
        if self.joins == JOINS_MAX {
            return Err(parked);
        }
        self.joins += 1;
        self.used(partition, true);
        let at = self.at(partition);
        self.rows[at].joins.push(parked);
        Ok(())
    }

    /// What was published before it others may know better; `0` without a bus.
    pub(super) fn live_since(&self, partition: Partition) -> Millis {
        let row = self.rows.get(self.at(partition));
        row.map_or(Millis(0), |row| row.live_since)
    }

    /// The bus has confirmed a wish.
    fn confirm(&mut self, now: Millis, partition: Partition, wish: TopicWish) {
        let at = self.at(partition);
        let Some(row) = self.rows.get_mut(at) else {
            return;
        };
        // Another wish than the one that stands: the answer to that one is on its way.
        if row.wish == wish && wish.is_wanted() {
            (row.is_live, row.live_since) = (true, now);
            self.ready.extend(row.joins.drain(..));
        }
    }

    /// The bus is gone, or may have forgotten: nothing is live until it is confirmed again.
    fn lose(&mut self) {
        for row in &mut self.rows {
            row.is_live = false;
        }
    }

    fn pop_ready(&mut self) -> Option<Parked> {
        let parked = self.ready.pop_front()?;
        self.joins -= 1;
        Some(parked)
    }
}

impl ShardServer {
    /// Home: a step is over. The entry counts as a use of its topic or not, and is forgotten if nothing
    /// holds it any more.
    pub(super) fn settle_home(&mut self, turn: &impl ServerTurn, at: HomeRef) {
        if self.topics.has_bus()
            && let Some((partition, is_used)) = self.homes.note_use(at)
        {
            self.topics.used(partition, is_used);
        }
        self.homes.release_if_idle(at, turn.now());
    }

    /// Home: a subscription that cannot begin yet waits for its topic. Gives back one that need not.
    pub(super) fn await_topic(
        &mut self,
        turn: &mut impl ServerTurn,
        to: Waiter,
        question: JoinQuestion,
    ) -> Option<(Waiter, JoinQuestion)> {
        let partition = question.key.partition;
        if self.topics.is_live(partition) {
            return Some((to, question));
        }
        let Err((to, question)) = self.topics.park(partition, (to, question)) else {
            return None;
        };
        self.counters.joins_refused += 1;
        let answer = Answer::Joined {
            local: question.local,
            user_id: question.member.map(|member| member.user_id),
            result: Err(JoinRefused::TooManyWait),
        };
        self.answer(turn, to, answer);
        None
    }

    /// Tells the bridge what is wished, and begins subscriptions whose topics are live.
    pub(super) fn continue_topics(&mut self, turn: &mut impl ServerTurn) {
        if self.handover.is_importing() {
            return;
        }
        self.topics.is_stuck = false;
        while let Some(partition) = self.topics.unsent.pop() {
            let at = self.topics.at(partition);
            let wish = self.topics.rows[at].wish;
            if turn.to_bridge(ToBridge::Topic { partition, wish }).is_err() {
                self.topics.unsent.push(partition);
                self.topics.is_stuck = true;
                break;
            }
            self.topics.rows[at].is_unsent = false;
        }
        while turn.work_left() > Work(0)
            && let Some((to, question)) = self.topics.pop_ready()
        {
            self.begin_join(turn, to, question);
        }
    }

    /// Home: a subscription that waited, and counts as a use of its topic, goes on.
    pub(super) fn begin_join(
        &mut self,
        turn: &mut impl ServerTurn,
        to: Waiter,
        question: JoinQuestion,
    ) {
        let partition = question.key.partition;
        // Also for one whose connection has gone.
        turn.spend(Work::ROW);
        // Its undoing, a plain call here, would be told before the join itself.
        if to.shard == self.shard && !self.awaits(to) {
            self.forget_join(question.local);
            self.topics.used(partition, false);
            return;
        }
        self.home_join(turn, to, question);
        self.topics.used(partition, false);
        // What it has sent meanwhile was held; nobody else goes on with it here.
        if to.shard == self.shard {
            self.queue_input(to.slot);
        }
    }

    /// The bus has confirmed these wishes.
    pub(super) fn on_topics_live(&mut self, now: Millis, topics: &[(Partition, TopicWish)]) {
        for (partition, wish) in topics {
            self.topics.confirm(now, *partition, *wish);
        }
    }

    /// No topic is live any more.
    pub(super) fn on_topics_lost(&mut self) {
        self.topics.lose();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(number: u16) -> Partition {
        Partition::from_number(number).expect("a partition")
    }

    #[test]
    fn without_a_bus_every_topic_is_live_and_nothing_is_wished_for() {
        let mut topics = Topics::default();
        topics.used(partition(7), true);
        assert!(topics.is_live(partition(7)) && !topics.has_bus());
        topics.used(partition(7), false);
        assert!(topics.unsent.is_empty());
    }

    #[test]
    fn a_topic_is_live_when_the_wish_that_stands_is_confirmed_and_not_an_older_one() {
        let mut topics = Topics::new(3);
        let last = partition(PARTITIONS - 1);
        topics.used(last, true);
        let first = topics.rows[topics.at(last)].wish;
        topics.used(last, true);
        topics.used(last, false);
        topics.used(last, false);
        topics.confirm(Millis(1), last, first);
        assert!(!topics.is_live(last), "nobody wants it");
        topics.used(last, true);
        topics.confirm(Millis(2), last, first);
        assert!(!topics.is_live(last), "that was the wish before");
        let second = topics.rows[topics.at(last)].wish;
        topics.confirm(Millis(3), last, second);
        assert!(topics.is_live(last));
        assert_eq!(topics.unsent, [last], "once, with the last wish");
        topics.lose();
        assert!(!topics.is_live(last));
        topics.confirm(Millis(4), last, second);
        assert!(topics.is_live(last), "confirmed anew");
        assert_eq!(topics.live_since(last), Millis(4));
    }
}
