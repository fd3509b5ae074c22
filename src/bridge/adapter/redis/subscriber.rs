//! Data path. The subscribing connection of a road.
//!
//! Owns: `run`, `Subscriptions` (what was asked of the server, and what it confirmed).
//! May depend on: the rest of `adapter` and `redis`, the crate `redis`, tokio.
//! Invariants: the socket is always read into a bounded queue of ours, whatever this task waits for;
//! a topic is live only after the server confirmed it on the connection that stands; one command at
//! a time, with all wishes that came meanwhile in the next.

use std::{
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    sync::Arc,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use redis::{
    ErrorKind, Pipeline, PushInfo, PushKind, RedisError, RedisResult, ServerErrorKind, Value,
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
        roads::{Reporter, SubscriberEnd},
        status::Tally,
        wishes::Wishes,
    },
    Duty, Way,
    fault::{closed, denied, silent},
    heartbeat::Heartbeat,
    link::OnPush,
};
use crate::cluster::topic::{Road, Topic, TopicNames};

/// Subscribes until the bus is closed, which drops this.
pub(in crate::bridge::adapter) async fn run(duty: Duty, mut end: SubscriberEnd) {
    let mut backoff = Backoff::default();
    loop {
        let (signs_sender, mut signs) = mpsc::unbounded_channel();
        let heard = Arc::new(AtomicU64::new(0));
        let listener = Listener {
            names: Arc::clone(&duty.names),
            incoming: end.incoming.clone(),
            tally: Arc::clone(&end.tally),
            heard: Arc::clone(&heard),
            signs: signs_sender,
        };
        let standing = duty
            .server
            .connect(&mut backoff, &mut end.reporter, listener)
            .await;
        end.reporter.up().await;
        let connection = standing.connection.clone();
        let at = duty.at(&standing);
        let trouble = listen(&at, &mut end, connection, &heard, &mut signs).await;
        duty.way.moved();
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
    /// Batches that this connection brought.
    heard: Arc<AtomicU64>,
    signs: mpsc::UnboundedSender<Sign>,
}

/// Of the connection, to its task: few per topic that was asked for, and the last.
#[derive(Clone, Copy, Debug)]
enum Sign {
    Confirmed(Topic),
    /// Whether it was asked to or not.
    Ended(Topic),
    Lost,
}

impl OnPush for Listener {
    const TAKES_MESSAGES: bool = true;

    // Per batch: a look at its name, one copy and a place in the queue; never waits.
    fn message(&self, name: &[u8], bytes: &[u8]) -> bool {
        self.heard.fetch_add(1, Ordering::Relaxed);
        match self.names.topic(name) {
            Some(topic) => self.incoming.send(topic, bytes.to_vec()),
            None => _ = self.tally.strange.fetch_add(1, Ordering::Relaxed),
        }
        true
    }

    fn push(&self, info: PushInfo) -> Result<(), SendError> {
        let is = |kinds: [PushKind; 2]| kinds.contains(&info.kind);
        let sign = if is([PushKind::Message, PushKind::SMessage]) {
            self.hear_message(info.data);
            None
        } else if is([PushKind::Subscribe, PushKind::SSubscribe]) {
            self.topic(info.data.first()).map(Sign::Confirmed)
        } else if is([PushKind::Unsubscribe, PushKind::SUnsubscribe]) {
            self.topic(info.data.first()).map(Sign::Ended)
        } else {
            (info.kind == PushKind::Disconnection).then_some(Sign::Lost)
        };
        match sign {
            Some(sign) => self.signs.send(sign).map_err(|_| SendError),
            None => Ok(()),
        }
    }
}

impl Listener {
    fn topic(&self, name: Option<&Value>) -> Option<Topic> {
        match name {
            Some(Value::BulkString(name)) => self.names.topic(name),
            _ => None,
        }
    }

    fn hear_message(&self, message: Vec<Value>) {
        self.heard.fetch_add(1, Ordering::Relaxed);
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
    heard: &AtomicU64,
    signs: &mut mpsc::UnboundedReceiver<Sign>,
) -> Trouble {
    let mut heartbeat = Heartbeat::new(connection.clone());
    let mut subscriptions = Subscriptions::new(end.road, connection);
    let received = || heard.load(Ordering::Relaxed);
    let mut gauge = LiveGauge::new(&end.tally);
    let mut command: Option<Command> = None;
    let mut retry_at = None;
    end.wishes.mark_changed(); // All that is wanted, at the first look.
    loop {
        tokio::select! {
            biased;
            sign = signs.recv() => {
                let first = sign.unwrap_or(Sign::Lost); // Its reader has ended.
                let all = std::iter::once(first).chain(std::iter::from_fn(|| signs.try_recv().ok()));
                let Some(noted) = subscriptions.note(all) else {
                    return closed(&duty.server);
                };
                if !noted.lost.is_empty() {
                    // What stood there is wished for elsewhere, as soon as somebody knows where.
                    duty.way.moved();
                    retry_at = Some(Instant::now() + LOOK_AGAIN_AFTER);
                    end.wishes.mark_changed();
                }
                end.reporter.live(noted.confirmed).await;
                end.reporter.lost(noted.lost).await;
            }
            answer = async { command.as_mut().expect("checked").await }, if command.is_some() => {
                command = None;
                end.wishes.mark_changed();
                let Ok(answer) = answer else {
                    return silent(&duty.server); // It answers pings, and yet not this.
                };
                end.reporter.lost(subscriptions.ended()).await;
                // Answers come behind the confirmations that they speak of, unless others got between.
                let is_partial = subscriptions.forget_unconfirmed();
                match listen_answered(duty, &mut end.reporter, answer, is_partial).await {
                    Ok(after) => retry_at = after.map(|after| Instant::now() + after),
                    Err(trouble) => return trouble,
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
                if let Way::Sharded(_) = duty.way {
                    end.reporter.lost(subscriptions.absent(wishes)).await;
                }
                command = subscriptions.command(duty);
                end.reporter.live(again).await;
            }
            trouble = heartbeat.until_dead(&duty.server, received) => return trouble,
        }
        gauge.set(subscriptions.live());
    }
}

/// After which pause to look at the wishes again; the connection's end as an error.
async fn listen_answered(
    duty: &Duty,
    reporter: &mut Reporter,
    answer: RedisResult<()>,
    is_partial: bool,
) -> Result<Option<Duration>, Trouble> {
    match answer {
        Err(error) if error.is_unrecoverable_error() => return Err(closed(&duty.server)),
        Err(error) if !duty.way.is_redirection(&error) => {
            let (what, stem) = (duty.way.subscribe(), duty.names.stem());
            let trouble = denied(what, stem, &error, &duty.server);
            reporter.trouble(trouble).await;
            return Ok(Some(RETRY_AFTER));
        }
        Ok(()) if !is_partial => {
            reporter.cured().await;
            return Ok(None);
        }
        Ok(()) | Err(_) => {}
    }
    Ok(Some(LOOK_AGAIN_AFTER))
}

/// What one connection adds to the gauge.
struct LiveGauge {
    tally: Arc<Tally>,
    live: u64,
}

impl LiveGauge {
    fn new(tally: &Arc<Tally>) -> Self {
        let tally = Arc::clone(tally);
        Self { tally, live: 0 }
    }

    fn set(&mut self, live: u64) {
        let change = live.wrapping_sub(std::mem::replace(&mut self.live, live));
        self.tally.topics_live.fetch_add(change, Ordering::Relaxed);
    }
}

impl Drop for LiveGauge {
    fn drop(&mut self) {
        self.set(0);
    }
}

type Command = Pin<Box<dyn Future<Output = Result<RedisResult<()>, Elapsed>> + Send>>;

/// After a refusal, which an operator may lift.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// After a slot has moved, which somebody finds meanwhile.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// What one connection has asked for.
struct Subscriptions {
    road: Road,
    connection: MultiplexedConnection,
    asked: BTreeMap<Topic, Asked>,
    /// For the next command.
    to_subscribe: Vec<Topic>,
    to_unsubscribe: Vec<Topic>,
    /// By the command that is on its way.
    unsubscribing: Vec<Topic>,
    seen: Wishes,
}

#[derive(Clone, Copy)]
struct Asked {
    wish: Wish,
    is_live: bool,
}

#[derive(Default)]
struct Noted {
    confirmed: Vec<(Topic, Wish)>,
    lost: Vec<Topic>,
}

impl Subscriptions {
    fn new(road: Road, connection: MultiplexedConnection) -> Self {
        Self {
            road,
            connection,
            asked: BTreeMap::new(),
            to_subscribe: Vec::new(),
            to_unsubscribe: Vec::new(),
            unsubscribing: Vec::new(),
            seen: Wishes::none(),
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

    /// What is not wished for any more and was not there: who moves it may ask for it elsewhere.
    fn absent(&mut self, wishes: Wishes) -> Vec<Topic> {
        let seen = std::mem::replace(&mut self.seen, wishes);
        let topics = Topic::all().filter(|topic| topic.road() == self.road);
        let is_absent = |topic: &Topic| {
            let wish = self.seen.of(*topic);
            !wish.is_wanted() && wish != seen.of(*topic) && !self.to_unsubscribe.contains(topic)
        };
        topics.filter(is_absent).collect()
    }

    /// The command that makes it so, if one is needed.
    fn command(&mut self, duty: &Duty) -> Option<Command> {
        let to_unsubscribe = std::mem::take(&mut self.to_unsubscribe);
        let to_subscribe = std::mem::take(&mut self.to_subscribe);
        if to_unsubscribe.is_empty() && to_subscribe.is_empty() {
            return None;
        }
        let mut connection = self.connection.clone();
        let names = Arc::clone(&duty.names);
        if let Way::Sharded(_) = duty.way {
            self.unsubscribing.clone_from(&to_unsubscribe);
            let command = sharded(connection, &names, &to_unsubscribe, &to_subscribe);
            return Some(Box::pin(timeout(duty.timeout, command)));
        }
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
        Some(Box::pin(timeout(duty.timeout, command)))
    }

    /// What signs say; `None` if the connection is gone.
    fn note(&mut self, signs: impl Iterator<Item = Sign>) -> Option<Noted> {
        let mut noted = Noted::default();
        for sign in signs {
            match sign {
                Sign::Confirmed(topic) => noted.confirmed.extend(self.confirm(topic)),
                Sign::Ended(topic) => noted.lost.extend(self.end(topic)),
                Sign::Lost => return None,
            }
        }
        let lost = &noted.lost;
        noted.confirmed.retain(|(topic, _)| !lost.contains(topic));
        Some(noted)
    }

    fn confirm(&mut self, topic: Topic) -> Option<(Topic, Wish)> {
        let asked = self.asked.get_mut(&topic)?;
        asked.is_live = true;
        Some((topic, asked.wish))
    }

    /// The server says that it is over; the answer: a topic that was to stay.
    fn end(&mut self, topic: Topic) -> Option<Topic> {
        self.asked.remove(&topic).map(|_| topic)
    }

    /// What the command unsubscribed that was answered.
    fn ended(&mut self) -> Vec<Topic> {
        std::mem::take(&mut self.unsubscribing)
    }

    /// A command was answered. Whether there was something that it did not bring.
    fn forget_unconfirmed(&mut self) -> bool {
        let asked = self.asked.len();
        self.asked.retain(|_, asked| asked.is_live);
        self.asked.len() < asked
    }

    fn live(&self) -> u64 {
        self.asked.values().filter(|asked| asked.is_live).count() as u64
    }
}

/// A command per topic, since a command may name one slot only; all in one go. The worst that was
/// answered, if anything went wrong.
fn sharded(
    mut connection: MultiplexedConnection,
    names: &TopicNames,
    to_unsubscribe: &[Topic],
    to_subscribe: &[Topic],
) -> impl Future<Output = RedisResult<()>> + use<> {
    let mut commands = Pipeline::new();
    for (command, topics) in [
        ("SUNSUBSCRIBE", to_unsubscribe),
        ("SSUBSCRIBE", to_subscribe),
    ] {
        for topic in topics {
            commands.cmd(command).arg(names.name(*topic));
        }
    }
    async move {
        let count = commands.len();
        let answers = connection.send_packed_commands(&commands, 0, count).await?;
        let errors = answers.into_iter().filter_map(|answer| {
            let Value::ServerError(error) = answer else {
                return None;
            };
            Some(RedisError::from(error))
        });
        // A redirection mends itself.
        let worst = errors.max_by_key(|error| error.kind() != MOVED);
        worst.map_or(Ok(()), Err)
    }
}

const MOVED: ErrorKind = ErrorKind::Server(ServerErrorKind::Moved);
