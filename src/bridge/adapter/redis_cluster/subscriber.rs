//! The subscribing connections of a road, one per master.
//!
//! Owns: `run`, `Places` (where each topic is subscribed to).
//! May depend on: the rest of `adapter` and `redis_cluster`, `redis::subscriber`, tokio.
//! Invariants: a topic is subscribed to at one master at a time, so that what two masters bring of it
//! cannot come out of order; it is live while the master that has its slot has confirmed it.

use std::{collections::BTreeMap, sync::Arc};

use tokio::{
    sync::watch,
    task::{AbortHandle, JoinSet},
};

use super::{
    super::{
        news::{Report, Wish},
        redis::subscriber,
        roads::SubscriberEnd,
        wishes::Wishes,
    },
    Duty,
    parts::{Heard, Parts, Turn},
    slots::{Address, SlotMap},
};
use crate::cluster::topic::{Road, Topic};

/// A connection, and what it is to subscribe to.
struct Line {
    wishes: watch::Sender<Wishes>,
    task: AbortHandle,
}

/// Subscribes until the bus is closed, which drops this.
pub(super) async fn run(duty: Duty, end: SubscriberEnd) {
    let SubscriberEnd {
        road,
        incoming,
        mut wishes,
        reporter,
        tally,
    } = end;
    let mut parts: Parts<Line> = Parts::new(reporter, duty.chart.clone());
    let mut connections = JoinSet::new();
    let mut places = Places::new(road);
    let mut given_up = Wish::default();
    wishes.mark_changed();
    loop {
        tokio::select! {
            biased;
            turn = parts.next() => {
                let told = match turn {
                    Turn::Heard(at, heard) => heard.and_then(|heard| places.hear(&at, heard)),
                    Turn::Known(known) => {
                        places.map.clone_from(&known.map);
                        while connections.try_join_next().is_some() {}
                        let gone = parts.adopt(known, |at, reporter| {
                            let (sender, wishes) = watch::channel(Wishes::none());
                            let (incoming, tally) = (incoming.clone(), Arc::clone(&tally));
                            let end = SubscriberEnd { road, incoming, wishes, reporter, tally };
                            let task = connections.spawn(subscriber::run(duty.of(at), end));
                            Line { wishes: sender, task }
                        });
                        Some(places.leave_all(gone))
                    }
                };
                settle(&mut parts, &places, told).await;
            }
            changed = wishes.changed() => {
                if changed.is_err() {
                    return std::future::pending().await; // The bus is closed, and this dropped.
                }
            }
        }
        let wanted = wishes.borrow_and_update().clone();
        given_up = Wish(given_up.0.wrapping_add(2));
        for (at, line) in parts.lines() {
            let before = line.wishes.borrow().clone();
            let only = wanted.only(&before, given_up, |topic| places.is_at(topic, at));
            line.wishes.send_if_modified(|wishes| {
                let is_new = *wishes != only;
                *wishes = only;
                is_new
            });
        }
    }
}

/// Tells how the road stands, and what is live on it.
async fn settle(parts: &mut Parts<Line>, places: &Places, told: Option<Report>) {
    if parts.settle().await {
        let live = places.live.iter().map(|(topic, wish)| (*topic, *wish));
        parts.tell(Report::Live(live.collect())).await;
    } else if parts.is_up()
        && let Some(told) = told
    {
        parts.tell(told).await;
    }
}

/// Where topics are.
struct Places {
    road: Road,
    map: Option<Arc<SlotMap>>,
    /// Where they were asked for and not given up since.
    at: BTreeMap<Topic, Address>,
    /// Those that are confirmed there, with the wish that was answered.
    live: BTreeMap<Topic, Wish>,
}

impl Places {
    fn new(road: Road) -> Self {
        Self {
            road,
            map: None,
            at: BTreeMap::new(),
            live: BTreeMap::new(),
        }
    }

    /// Whether a wanted topic is to be subscribed to there. One that is elsewhere is left there first.
    fn is_at(&mut self, topic: Topic, at: &Address) -> bool {
        let owner = self.map.as_ref().and_then(|map| map.owner(topic));
        if owner != Some(at) || topic.road() != self.road {
            return false;
        }
        match self.at.get(&topic) {
            Some(other) => other == at,
            None => {
                self.at.insert(topic, at.clone());
                true
            }
        }
    }

    fn hear(&mut self, at: &Address, heard: Heard) -> Option<Report> {
        match heard {
            Heard::Live(mut confirmed) => {
                confirmed.retain(|(topic, _)| self.at.get(topic) == Some(at));
                self.live.extend(confirmed.iter().copied());
                Some(Report::Live(confirmed))
            }
            Heard::Lost(mut topics) => {
                topics.retain(|topic| self.at.get(topic) == Some(at));
                for topic in &topics {
                    self.at.remove(topic);
                    self.live.remove(topic);
                }
                Some(Report::Lost(topics))
            }
            // The road is down with it, and nothing on it is live.
            Heard::Down => {
                self.leave(at);
                None
            }
        }
    }

    /// They are masters no more.
    fn leave_all(&mut self, gone: Vec<(Address, Line)>) -> Report {
        let mut lost = Vec::new();
        for (at, line) in gone {
            line.task.abort();
            lost.extend(self.leave(&at));
        }
        Report::Lost(lost)
    }

    /// Its connection is gone. What was there, and may be asked for elsewhere.
    fn leave(&mut self, at: &Address) -> Vec<Topic> {
        let left: Vec<Topic> = self
            .at
            .extract_if(.., |_, it| it == at)
            .map(|it| it.0)
            .collect();
        self.live.retain(|topic, _| !left.contains(topic));
        left
    }
}
