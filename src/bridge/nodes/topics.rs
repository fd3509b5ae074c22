//! Which topics shards wish for, which are asked for, and which are live.
//!
//! Owns: `Topics`: a row per partition, what lingers, the topics to which every node listens.
//! May depend on: `bridge::message`, `cluster::{entry, topic}`, `protocol::partition`. Time is an argument.
//! Invariants: a topic is live from its confirmation until it or its road is lost, or it is left; one that
//! nobody wishes for is left after `linger`, and not before.

use std::{collections::BTreeSet, time::Duration};

use crate::{
    bridge::message::TopicWish,
    cluster::{
        entry::Group,
        topic::{Road, Topic},
    },
    protocol::partition::{PARTITIONS, Partition},
};

/// Shards that another process's connections have come to have wished for their topics.
const WISHES_WITHIN: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Topics {
    /// By partition.
    rows: Vec<Row>,
    /// Topics that nobody wishes for, and until when they are kept; each once.
    lingering: BTreeSet<(Duration, Partition)>,
    linger: Duration,
    /// Topics that are subscribed to and not confirmed since the road last went down.
    unproven: usize,
    /// The topics that every node listens to.
    common: Vec<(Topic, bool)>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Row {
    wish: TopicWish,
    state: State,
    /// When it was asked for; none while it is live, or is asked for again because its road went down.
    asked_at: Option<Duration>,
    /// Confirmed again or not, it was live before its road went down.
    is_unproven: bool,
    /// It was given up here, and is not live again since.
    was_left: bool,
    /// Its place among those that linger.
    lingers_until: Option<Duration>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Idle,
    Asked,
    Live,
}

impl Row {
    /// Whether it was live.
    fn lose(&mut self) -> bool {
        let was_live = self.state == State::Live;
        if was_live {
            self.state = State::Asked;
            self.is_unproven = true;
        }
        was_live
    }
}

/// What a wish means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wished {
    /// The topic is to be subscribed.
    Subscribe,
    /// It is live already.
    Live,
    /// It will be told when it is, or is kept for a while.
    Wait,
}

/// A partition's topic that the bus confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Confirmed {
    /// The wish that it answers; none if nobody wishes for it.
    pub(super) wish: Option<TopicWish>,
    /// Since it was asked for; none if that was for a road that came back.
    pub(super) taken: Option<Duration>,
    /// It had been given up here: what passed meanwhile was not wanted.
    pub(super) was_left: bool,
}

impl Topics {
    pub(super) fn new(linger: Duration) -> Self {
        let groups = (0..).map_while(Group::from_number).map(Topic::State);
        let common = groups.chain([Topic::Nodes, Topic::Echo]);
        Self {
            rows: vec![Row::default(); usize::from(PARTITIONS)],
            lingering: BTreeSet::new(),
            linger,
            unproven: 0,
            common: common.map(|topic| (topic, false)).collect(),
        }
    }

    /// To which every node listens.
    pub(super) fn common(&self) -> impl Iterator<Item = Topic> {
        self.common.iter().map(|(topic, _)| *topic)
    }

    fn row(&mut self, partition: Partition) -> &mut Row {
        &mut self.rows[usize::from(partition.number())]
    }

    /// A shard wishes for a topic, or not any more.
    pub(super) fn wish(&mut self, now: Duration, partition: Partition, wish: TopicWish) -> Wished {
        let until = now + self.linger;
        self.keep_until(partition, Some(until).filter(|_| !wish.is_wanted()));
        let row = self.row(partition);
        row.wish = wish;
        if !wish.is_wanted() {
            return Wished::Wait;
        }
        match row.state {
            State::Idle => {
                row.state = State::Asked;
                row.asked_at = Some(now);
                Wished::Subscribe
            }
            State::Asked => Wished::Wait,
            State::Live => Wished::Live,
        }
    }

    /// Keeps a topic until then, whatever was said of it before; `None`: as long as it is wished for.
    fn keep_until(&mut self, partition: Partition, until: Option<Duration>) {
        let row = self.row(partition);
        if let Some(before) = std::mem::replace(&mut row.lingers_until, until) {
            self.lingering.remove(&(before, partition));
        }
        self.lingering.extend(until.map(|until| (until, partition)));
    }

    /// A topic that nobody wishes for yet: kept until `let_linger`. Whether it is to be subscribed.
    pub(super) fn follow(&mut self, partition: Partition) -> bool {
        let row = self.row(partition);
        let is_new = row.state == State::Idle;
        if is_new {
            row.state = State::Asked;
        }
        is_new
    }

    /// Keeps what nobody wishes for no longer than usual, but until wishes have had their time.
    pub(super) fn let_linger(&mut self, now: Duration) {
        let until = now + self.linger.max(WISHES_WITHIN);
        for partition in (0..PARTITIONS).filter_map(Partition::from_number) {
            let row = self.row(partition);
            // What is not live here the process before may have left.
            row.was_left |= row.state != State::Live && !row.is_unproven;
            let lingers = row.state != State::Idle && !row.wish.is_wanted();
            self.keep_until(partition, lingers.then_some(until));
        }
    }

    /// Partitions whose topics are subscribed to, confirmed or not.
    pub(super) fn subscribed(&self) -> impl Iterator<Item = Partition> {
        let partitions = (0..PARTITIONS).filter_map(Partition::from_number);
        let rows = partitions.zip(&self.rows);
        let subscribed = rows.filter(|(_, row)| row.state != State::Idle);
        subscribed.map(|(partition, _)| partition)
    }

    pub(super) fn is_live(&self, partition: Partition) -> bool {
        self.rows[usize::from(partition.number())].state == State::Live
    }

    /// The bus confirmed a partition's topic; `None` if it was left meanwhile.
    pub(super) fn confirm(&mut self, now: Duration, partition: Partition) -> Option<Confirmed> {
        let row = self.row(partition);
        if row.state == State::Idle {
            return None;
        }
        row.state = State::Live;
        let asked_at = row.asked_at.take();
        let confirmed = Confirmed {
            wish: Some(row.wish).filter(|wish| wish.is_wanted()),
            taken: asked_at.map(|asked_at| now.saturating_sub(asked_at)),
            was_left: std::mem::take(&mut row.was_left),
        };
        let was_unproven = std::mem::take(&mut row.is_unproven);
        self.unproven -= usize::from(was_unproven);
        Some(confirmed)
    }

    /// The bus confirmed a topic to which every node listens.
    pub(super) fn confirm_common(&mut self, topic: Topic) {
        for (_, is_live) in self.common.iter_mut().filter(|(it, _)| *it == topic) {
            *is_live = true;
        }
    }

    /// A road is gone, and with it what was live there.
    pub(super) fn lose(&mut self, road: Road) {
        for (topic, is_live) in &mut self.common {
            *is_live &= topic.road() != road;
        }
        if road == Road::State {
            return;
        }
        for row in &mut self.rows {
            self.unproven += usize::from(row.lose());
        }
    }

    /// One topic is gone, and others of its road are not. Whether it was live.
    pub(super) fn lose_one(&mut self, topic: Topic) -> bool {
        if let Topic::Events(partition) = topic {
            let was_live = self.row(partition).lose();
            self.unproven += usize::from(was_live);
            return was_live;
        }
        let same = self.common.iter_mut().find(|(it, _)| *it == topic);
        same.is_some_and(|(_, is_live)| std::mem::take(is_live))
    }

    /// Partitions' topics that are live and wished for.
    pub(super) fn live(&self) -> impl Iterator<Item = (Partition, TopicWish)> {
        let partitions = (0..PARTITIONS).filter_map(Partition::from_number);
        let rows = partitions.zip(&self.rows);
        let live = rows.filter(|(_, row)| row.state == State::Live && row.wish.is_wanted());
        live.map(|(partition, row)| (partition, row.wish))
    }

    /// Gives up a topic that lingered long enough and is not wished for again. Call again until there
    /// is none.
    pub(super) fn leave(&mut self, now: Duration) -> Option<Partition> {
        while let Some((until, partition)) = self.lingering.first().copied()
            && until <= now
        {
            self.keep_until(partition, None);
            let row = self.row(partition);
            if row.state == State::Idle {
                continue;
            }
            row.state = State::Idle;
            row.was_left = true;
            row.asked_at = None;
            let was_unproven = std::mem::take(&mut row.is_unproven);
            self.unproven -= usize::from(was_unproven);
            return Some(partition);
        }
        None
    }

    /// When `leave` has something to do.
    pub(super) fn due(&self) -> Option<Duration> {
        self.lingering.first().map(|(until, _)| *until)
    }

    /// All on which the others speak of themselves.
    pub(super) fn is_state_live(&self) -> bool {
        let common = self.common.iter();
        let mut state = common.filter(|(topic, _)| topic.road() == Road::State);
        state.all(|(_, is_live)| *is_live)
    }

    pub(super) fn are_common_live(&self) -> bool {
        self.common.iter().all(|(_, is_live)| *is_live)
    }

    /// Some topic was live, and is not proven again since its road went down.
    pub(super) fn is_unproven(&self) -> bool {
        self.unproven > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_that_is_lost_alone_is_unproven_until_it_is_confirmed_again() {
        let mut topics = Topics::new(Duration::ZERO);
        let now = Duration::ZERO;
        let partitions = [1, 2].map(|it| Partition::from_number(it).expect("a partition"));
        let wish = TopicWish::default().changed(true);
        for partition in partitions {
            assert_eq!(topics.wish(now, partition, wish), Wished::Subscribe);
            assert!(topics.confirm(now, partition).is_some());
        }
        let [lost, kept] = partitions;
        assert!(topics.lose_one(Topic::Events(lost)));
        assert!(!topics.lose_one(Topic::Events(lost)), "once");
        assert!(topics.is_unproven());
        assert_eq!(topics.live().collect::<Vec<_>>(), [(kept, wish)]);
        let confirmed = topics.confirm(now, lost).expect("it is wished for");
        assert_eq!((confirmed.wish, confirmed.taken), (Some(wish), None));
        assert!(!topics.is_unproven());

        topics.confirm_common(Topic::Nodes);
        assert!(topics.lose_one(Topic::Nodes));
        assert!(!topics.lose_one(Topic::Nodes), "once");
    }

    #[test]
    fn a_topic_lingers_from_the_last_time_that_nobody_wished_for_it() {
        let mut topics = Topics::new(Duration::from_secs(5));
        let at = Duration::from_secs;
        let partition = Partition::from_number(1).expect("a partition");
        let mut wish = TopicWish::default();
        for (now, is_wanted) in [(0, true), (0, false), (1, true), (4, false)] {
            wish = wish.changed(is_wanted);
            let _ = topics.wish(at(now), partition, wish);
        }
        assert_eq!(topics.due(), Some(at(9)));
        assert_eq!(topics.leave(at(8)), None, "it was wished for at 4");
        assert_eq!(topics.leave(at(9)), Some(partition));
        assert_eq!((topics.leave(at(20)), topics.due()), (None, None));
        // However often it is wished for and not: of each one time is kept.
        for now in 20..40 {
            for is_wanted in [true, false] {
                wish = wish.changed(is_wanted);
                let _ = topics.wish(at(now), partition, wish);
            }
        }
        assert_eq!(topics.lingering.len(), 1);
        assert_eq!(topics.due(), Some(at(44)));
    }
}
