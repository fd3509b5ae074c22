//! Data path. The subscribing connection of a road.
//!
//! Owns: `run`, `Subscriptions` (what was asked of the server, and what it confirmed).
//! May depend on: the rest of `adapter` and `redis`, the crate `redis`, tokio.
//! Invariants: the socket is always read into a bounded queue of ours, whatever this task waits for;
//! a topic is live only after the server confirmed it on the connection that stands; one command at
//! a time, with all wishes that came meanwhile in the next.

use std::{
    collections::BTreeMap, future::Future, pin::Pin, sync::Arc, sync::atomic::Ordering,
    time::Duration,
};

use redis::{
    PushInfo, PushKind, RedisResult, Value,
    aio::{MultiplexedConnection, SendError},
};
use tokio::{
    sync::mpsc,
    time::{Instant, error::Elapsed, sleep_until, timeout},
};

use super::{
    super::{
        backoff::Backoff,
        news::{Trouble, Wish},
        queue::IncomingSender,
        roads::SubscriberEnd,
        status::Tally,
        wishes::Wishes,
    },
    Duty,
    fault::{closed, denied, silent},
    heartbeat::Heartbeat,
};
use crate::cluster::topic::{Road, Topic, TopicNames};

/// Subscribes until the bus is closed, which drops this.
pub(super) async fn run(duty: Duty, mut end: SubscriberEnd) {
    let mut backoff = Backoff::default();
    loop {
        let (signs_sender, mut signs) = mpsc::unbounded_channel();
        let listener = Listener {
            names: Arc::clone(&duty.names),
            incoming: end.incoming.clone(),
            tally: Arc::clone(&end.tally),
            signs: signs_sender,
        };
        let on_push = move |info| listener.hear(info);
        let standing = duty
            .server
            .connect(&mut backoff, &mut end.reporter, on_push)
            .await;
        end.reporter.up().await;
        let connection = standing.connection.clone();
        let trouble = listen(&duty, &mut end, connection, &mut signs).await;
        end.tally.topics_live.store(0, Ordering::Relaxed);
        end.reporter.down(trouble).await;
        standing.ended(&mut backoff).await;
    }
}

/// What the connection's reader does with what comes.
#[derive(Clone)]
struct Listener {
    names: Arc<TopicNames>,
    incoming: IncomingSender,
    tally: Arc<Tally>,
    signs: mpsc::UnboundedSender<Sign>,
}

/// Of the connection, to its task: at most one per topic that was asked for, and the last.
#[derive(Clone, Copy, Debug)]
enum Sign {
    Confirmed(Topic),
    Lost,
}

impl Listener {
    // Per batch: a look at its name and a place in the queue; never waits.
    fn hear(&self, info: PushInfo) -> Result<(), SendError> {
        let sign = if info.kind == PushKind::Message {
            self.hear_message(info.data);
            None
        } else if info.kind == PushKind::Subscribe {
            self.topic(info.data.first()).map(Sign::Confirmed)
        } else {
            (info.kind == PushKind::Disconnection).then_some(Sign::Lost)
        };
        match sign {
            Some(sign) => self.signs.send(sign).map_err(|_| SendError),
            None => Ok(()),
        }
    }

    fn topic(&self, name: Option<&Value>) -> Option<Topic> {
        match name {
            Some(Value::BulkString(name)) => self.names.topic(name),
            _ => None,
        }
    }

    fn hear_message(&self, message: Vec<Value>) {
        let message: Result<[Value; 2], _> = message.try_into();
        if let Ok([Value::BulkString(name), Value::BulkString(bytes)]) = message
            && let Some(topic) = self.names.topic(&name)
        {
            self.incoming.send(topic, bytes);
        } else {
            self.tally.strange.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Keeps the subscriptions of one connection until it is dead.
async fn listen(
    duty: &Duty,
    end: &mut SubscriberEnd,
    connection: MultiplexedConnection,
    signs: &mut mpsc::UnboundedReceiver<Sign>,
) -> Trouble {
    let mut heartbeat = Heartbeat::new(connection.clone());
    let mut subscriptions = Subscriptions::new(end.road, connection);
    let tally = Arc::clone(&end.tally);
    let received = || tally.received.load(Ordering::Relaxed);
    let mut command: Option<Command> = None;
    let mut retry_at = None;
    end.wishes.mark_changed(); // All that is wanted, at the first look.
    loop {
        tokio::select! {
            biased;
            sign = signs.recv() => {
                let mut confirmed = Vec::new();
                let mut next = Some(sign.unwrap_or(Sign::Lost)); // Its reader has ended.
                while let Some(sign) = next {
                    match sign {
                        Sign::Confirmed(topic) => confirmed.extend(subscriptions.confirm(topic)),
                        Sign::Lost => return closed(&duty.server),
                    }
                    next = signs.try_recv().ok();
                }
                end.reporter.live(confirmed).await;
            }
            answer = async { command.as_mut().expect("checked").await }, if command.is_some() => {
                command = None;
                end.wishes.mark_changed();
                let Ok(answer) = answer else {
                    return silent(&duty.server); // It answers pings, and yet not this.
                };
                match answer {
                    Ok(()) => end.reporter.cured().await,
                    Err(error) if error.is_unrecoverable_error() => return closed(&duty.server),
                    Err(error) => {
                        subscriptions.forget_unconfirmed();
                        retry_at = Some(Instant::now() + RETRY_AFTER);
                        let stem = duty.names.stem();
                        let trouble = denied("subscribe", stem, &error, &duty.server);
                        end.reporter.trouble(trouble).await;
                    }
                }
            }
            () = async { sleep_until(retry_at.expect("checked")).await }, if retry_at.is_some() => {
                retry_at = None;
            }
            changed = end.wishes.changed(), if command.is_none() && retry_at.is_none() => {
                if changed.is_err() {
                    return std::future::pending().await; // The bus is closed, and this dropped.
                }
                let wishes = end.wishes.borrow_and_update().clone();
                let again = subscriptions.compare(&wishes);
                command = subscriptions.command(&duty.names, duty.timeout);
                end.reporter.live(again).await;
            }
            trouble = heartbeat.until_dead(&duty.server, received) => return trouble,
        }
        end.tally
            .topics_live
            .store(subscriptions.live(), Ordering::Relaxed);
    }
}

type Command = Pin<Box<dyn Future<Output = Result<RedisResult<()>, Elapsed>> + Send>>;

/// After a refusal, which an operator may lift.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What one connection has asked for.
struct Subscriptions {
    road: Road,
    connection: MultiplexedConnection,
    asked: BTreeMap<Topic, Asked>,
    /// For the next command.
    to_subscribe: Vec<Topic>,
    to_unsubscribe: Vec<Topic>,
}

#[derive(Clone, Copy)]
struct Asked {
    wish: Wish,
    is_live: bool,
}

impl Subscriptions {
    fn new(road: Road, connection: MultiplexedConnection) -> Self {
        Self {
            road,
            connection,
            asked: BTreeMap::new(),
            to_subscribe: Vec::new(),
            to_unsubscribe: Vec::new(),
        }
    }

    /// Notes what must be asked for. The answer: what was wished for again and is live all along.
    fn compare(&mut self, wishes: &Wishes) -> Vec<(Topic, Wish)> {
        let mut again = Vec::new();
        for topic in Topic::all().filter(|topic| topic.road() == self.road) {
            let wish = wishes.of(topic);
            match (self.asked.get_mut(&topic), wish.is_wanted()) {
                (Some(asked), true) if asked.wish != wish => {
                    asked.wish = wish;
                    if asked.is_live {
                        again.push((topic, wish));
                    }
                }
                (Some(_), true) | (None, false) => {}
                (Some(_), false) => {
                    self.asked.remove(&topic);
                    self.to_unsubscribe.push(topic);
                }
                (None, true) => {
                    let is_live = false;
                    self.asked.insert(topic, Asked { wish, is_live });
                    self.to_subscribe.push(topic);
                }
            }
        }
        again
    }

    /// The command that makes it so, if one is needed.
    fn command(&mut self, names: &Arc<TopicNames>, within: Duration) -> Option<Command> {
        let to_unsubscribe = std::mem::take(&mut self.to_unsubscribe);
        let to_subscribe = std::mem::take(&mut self.to_subscribe);
        if to_unsubscribe.is_empty() && to_subscribe.is_empty() {
            return None;
        }
        let mut connection = self.connection.clone();
        let names = Arc::clone(names);
        let command = async move {
            let named = |topics: &[Topic]| -> Vec<&str> {
                topics.iter().map(|topic| names.name(*topic)).collect()
            };
            if !to_unsubscribe.is_empty() {
                connection.unsubscribe(named(&to_unsubscribe)).await?;
            }
            if !to_subscribe.is_empty() {
                connection.subscribe(named(&to_subscribe)).await?;
            }
            Ok(())
        };
        Some(Box::pin(timeout(within, command)))
    }

    fn confirm(&mut self, topic: Topic) -> Option<(Topic, Wish)> {
        let asked = self.asked.get_mut(&topic)?;
        asked.is_live = true;
        Some((topic, asked.wish))
    }

    /// A command was refused as a whole.
    fn forget_unconfirmed(&mut self) {
        self.asked.retain(|_, asked| asked.is_live);
    }

    fn live(&self) -> u64 {
        self.asked.values().filter(|asked| asked.is_live).count() as u64
    }
}
