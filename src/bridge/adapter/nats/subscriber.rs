//! Data path. The subscribing connection of a road.
//!
//! Owns: `run`, `Subscriptions` (what was asked of the server, and what is proven).
//! May depend on: the rest of `adapter` and `nats`, the crate `async-nats`, tokio.
//! Invariants: each subscription is emptied at once into a bounded queue of ours, whatever this task
//! waits for; a topic is live only after a message to ourselves came back that was sent behind its
//! subscription on the connection that stands, and each witness that is waited for has heard the call behind
//! it; one such group at a time.

use std::{collections::BTreeMap, sync::Arc, sync::atomic::Ordering, time::Duration};

use async_nats::{Client, Subscriber};
use tokio::{
    task::{AbortHandle, JoinSet},
    time::{Instant, sleep_until},
};

use super::{
    super::{
        backoff::Backoff,
        news::{Trouble, Wish},
        queue::IncomingSender,
        roads::SubscriberEnd,
        wishes::Wishes,
    },
    Duty, Subjects,
    fault::Denial,
    link::{Link, connect},
    probe::{self, Death},
    witness::Hearing,
};
use crate::cluster::topic::{Road, Topic};

/// Subscribes until the bus is closed, which drops this.
pub(super) async fn run(duty: Duty, mut end: SubscriberEnd) {
    let mut backoff = Backoff::default();
    let mut lost = None;
    loop {
        let (reporter, incoming) = (&mut end.reporter, Some(&end.incoming));
        let mut link = connect(&duty, &mut lost, &mut backoff, reporter, incoming).await;
        end.reporter.up().await;
        let trouble = listen(&duty, &mut end, &mut link).await;
        end.tally.topics_live.store(0, Ordering::Relaxed);
        end.tally.witnesses_heard.store(0, Ordering::Relaxed);
        end.reporter.down(trouble).await;
        link.ended(&mut backoff).await;
    }
}

/// Keeps the subscriptions of one connection until it is dead.
async fn listen(duty: &Duty, end: &mut SubscriberEnd, link: &mut Link) -> Trouble {
    let mut subscriptions = Subscriptions::new(end, link.client.clone());
    let mut hearing = Hearing::new(&duty.witnesses, end.road);
    let mut retry_at = None;
    let mut is_denied = false;
    end.wishes.mark_changed(); // All that is wanted, at the first look.
    let death = loop {
        let is_idle = subscriptions.group.is_none() && retry_at.is_none();
        tokio::select! {
            biased;
            Some(denial) = link.denials.recv() => {
                is_denied = true;
                subscriptions.note(denial, duty, end, link).await;
            }
            () = link.left.wait() => break Death::Closed,
            heard = link.probe.next() => match heard {
                Ok(number) => {
                    // What was denied before it came has been read, and is only one step away.
                    tokio::task::yield_now().await;
                    while let Ok(denial) = link.denials.try_recv() {
                        is_denied = true;
                        subscriptions.note(denial, duty, end, link).await;
                    }
                    subscriptions.hear(number);
                }
                Err(death) => break death,
            },
            heard = hearing.next(&link.client) => match heard {
                Ok(()) => {}
                Err(death) => break death,
            },
            () = async { sleep_until(retry_at.expect("checked")).await }, if retry_at.is_some() => {
                retry_at = None;
                end.wishes.mark_changed();
            }
            changed = end.wishes.changed(), if is_idle => {
                if changed.is_err() {
                    return std::future::pending().await; // The bus is closed, and this dropped.
                }
                let wishes = end.wishes.borrow_and_update().clone();
                let again = subscriptions.compare(&wishes).await;
                end.reporter.live(again).await;
                if let Err(death) = subscriptions.ask(&duty.subjects, link, &mut hearing).await {
                    break death;
                }
            }
        }
        if let Some(proven) = subscriptions.prove(&hearing) {
            if proven.is_denied {
                retry_at = Some(Instant::now() + RETRY_AFTER);
            }
            is_denied = proven.is_denied;
            end.reporter.live(proven.live).await;
            end.wishes.mark_changed();
        }
        tell(duty, end, link, &hearing, is_denied).await;
        let live = subscriptions.live();
        end.tally.topics_live.store(live, Ordering::Relaxed);
    };
    link.trouble(death)
}

/// What is denied is told where it is heard, and stays the trouble until it is allowed.
async fn tell(
    duty: &Duty,
    end: &mut SubscriberEnd,
    link: &Link,
    hearing: &Hearing,
    is_denied: bool,
) {
    let tally = &end.tally;
    tally
        .witnesses
        .store(duty.witnesses.count() as u64, Ordering::Relaxed);
    tally
        .witnesses_heard
        .store(hearing.counting(), Ordering::Relaxed);
    if is_denied {
        return;
    }
    match hearing.trouble(duty, link) {
        Some(trouble) => end.reporter.trouble(trouble).await,
        None => end.reporter.cured().await,
    }
}

/// After a refusal, which an operator may lift.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What one connection has asked for.
struct Subscriptions {
    road: Road,
    client: Client,
    incoming: IncomingSender,
    asked: BTreeMap<Topic, Asked>,
    /// Each empties a subscription, and ends it when it is aborted.
    tasks: JoinSet<()>,
    /// What waits for its proof.
    group: Option<Group>,
}

struct Asked {
    wish: Wish,
    state: State,
}

enum State {
    /// For the next group.
    Waiting,
    Sent(AbortHandle),
    Live(AbortHandle),
}

/// Subscriptions that one message to ourselves proves.
struct Group {
    proof: u64,
    /// Of the call to the witnesses.
    call: u64,
    /// It came back.
    is_proven: bool,
    topics: Vec<Topic>,
    denied: Vec<Topic>,
    /// The server complained of something that names no topic.
    is_doubtful: bool,
}

/// What became of a group.
struct Proven {
    live: Vec<(Topic, Wish)>,
    is_denied: bool,
}

impl Subscriptions {
    fn new(end: &SubscriberEnd, client: Client) -> Self {
        Self {
            road: end.road,
            client,
            incoming: end.incoming.clone(),
            asked: BTreeMap::new(),
            tasks: JoinSet::new(),
            group: None,
        }
    }

    /// Gives up what is not wanted, and notes what must be asked for. The answer: what was wished for
    /// again and is live all along.
    async fn compare(&mut self, wishes: &Wishes) -> Vec<(Topic, Wish)> {
        while self.tasks.try_join_next().is_some() {} // Those that a denial has ended.
        let mut again = Vec::new();
        let mut ending = 0;
        for topic in Topic::all().filter(|topic| topic.road() == self.road) {
            let wish = wishes.of(topic);
            match (self.asked.get_mut(&topic), wish.is_wanted()) {
                (Some(asked), true) if asked.wish != wish => {
                    asked.wish = wish;
                    if let State::Live(_) = asked.state {
                        again.push((topic, wish));
                    }
                }
                (Some(_), true) | (None, false) => {}
                (Some(_), false) => {
                    let asked = self.asked.remove(&topic).expect("it was just there");
                    ending += usize::from(asked.abort());
                }
                (None, true) => {
                    let state = State::Waiting;
                    self.asked.insert(topic, Asked { wish, state });
                }
            }
        }
        // Before the topic can be subscribed again: two subscriptions would bring each batch twice.
        for _ in 0..ending {
            self.tasks.join_next().await;
        }
        again
    }

    /// Subscribes to what waits, as far as one group reaches, and sends the proof behind it.
    async fn ask(
        &mut self,
        subjects: &Arc<Subjects>,
        link: &mut Link,
        hearing: &mut Hearing,
    ) -> Result<(), Death> {
        assert!(self.group.is_none(), "one group at a time");
        let is_waiting = |asked: &Asked| matches!(asked.state, State::Waiting);
        let waiting = self.asked.iter().filter(|(_, asked)| is_waiting(asked));
        let topics: Vec<Topic> = waiting.map(|(topic, _)| *topic).take(GROUP_MAX).collect();
        if topics.is_empty() {
            return Ok(());
        }
        for topic in &topics {
            let subscriber = self.client.subscribe(subjects.of(*topic)).await;
            let subscriber = subscriber.map_err(|_| Death::Closed)?;
            let emptied = empty(*topic, subscriber, self.incoming.clone());
            let task = self.tasks.spawn(emptied);
            let asked = self.asked.get_mut(topic).expect("it was just there");
            asked.state = State::Sent(task);
        }
        self.group = Some(Group {
            call: hearing.call(&self.client).await?,
            proof: link.probe.send().await?,
            is_proven: false,
            topics,
            denied: Vec::new(),
            is_doubtful: false,
        });
        Ok(())
    }

    /// What the server complains of may concern the group that is on its way.
    async fn note(&mut self, denial: Denial, duty: &Duty, end: &mut SubscriberEnd, link: &Link) {
        let trouble = denial.trouble(duty.subjects.stem(), link.server());
        end.reporter.trouble(trouble).await;
        let Some(group) = &mut self.group else {
            return;
        };
        match denial {
            Denial::Subscribe(subject) => match duty.subjects.topic(&subject) {
                Some(topic) => group.denied.push(topic),
                None => group.is_doubtful = true,
            },
            Denial::Publish(_) => {}
            Denial::Other(_) => group.is_doubtful = true,
        }
    }

    /// The proof with this number is back.
    fn hear(&mut self, number: u64) {
        if let Some(group) = &mut self.group {
            group.is_proven |= group.proof <= number;
        }
    }

    /// Whether a group is proven, and by all who are waited for.
    fn prove(&mut self, hearing: &Hearing) -> Option<Proven> {
        let is_done = |group: &mut Group| group.is_proven && hearing.is_heard(group.call);
        let group = self.group.take_if(is_done)?;
        let mut live = Vec::new();
        let mut is_denied = false;
        for topic in group.topics {
            let Some(asked) = self.asked.get_mut(&topic) else {
                continue;
            };
            if group.is_doubtful || group.denied.contains(&topic) {
                is_denied = true;
                if let Some(asked) = self.asked.remove(&topic) {
                    asked.abort();
                }
                continue;
            }
            let state = std::mem::replace(&mut asked.state, State::Waiting);
            asked.state = match state {
                State::Sent(task) => State::Live(task),
                other @ (State::Waiting | State::Live(_)) => other,
            };
            live.push((topic, asked.wish));
        }
        Some(Proven { live, is_denied })
    }

    fn live(&self) -> u64 {
        let is_live = |asked: &&Asked| matches!(asked.state, State::Live(_));
        self.asked.values().filter(is_live).count() as u64
    }
}

impl Asked {
    /// Whether there was a subscription to end.
    fn abort(self) -> bool {
        match self.state {
            State::Waiting => false,
            State::Sent(task) | State::Live(task) => {
                task.abort();
                true
            }
        }
    }
}

/// Takes what comes until the connection ends or this is aborted, which ends the subscription.
// Per batch: one copy out of the crate's buffer, which would else be held as a whole.
async fn empty(topic: Topic, mut subscriber: Subscriber, incoming: IncomingSender) {
    while let Some(message) = probe::next(&mut subscriber).await {
        incoming.send(topic, message.payload.into());
    }
}

/// The crate keeps no more than 128 complaints at a time, so that none of a group's is lost.
const GROUP_MAX: usize = 100;
