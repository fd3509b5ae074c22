//! Data path. The publishing connection of a road.
//!
//! Owns: `run`, `Load` (a pipeline of batches), `Flights` (those that are sent and not answered).
//! May depend on: the rest of `adapter` and `redis`, the crate `redis`, tokio.
//! Invariants: batches are sent in the order in which they were queued, each at most once; what was
//! sent and not answered when the connection ends is unknown, and stays so; nothing waits for a
//! connection: while there is none, what is queued is lost and counted.

use std::{
    collections::{BTreeSet, VecDeque},
    future::{Future, poll_fn},
    pin::Pin,
    sync::atomic::Ordering,
    task::Poll,
    time::Duration,
};

use redis::{
    Pipeline, PushInfo, PushKind, RedisError, RedisResult, Value,
    aio::{MultiplexedConnection, SendError},
};
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    time::{Instant, timeout_at},
};

use super::{
    super::{
        backoff::Backoff,
        news::Trouble,
        queue::{OutgoingReceiver, Queued, Sent},
        roads::PublisherEnd,
        status::Tally,
    },
    Duty,
    fault::{self, closed, silent},
    heartbeat::Heartbeat,
};
use crate::{cluster::topic::Topic, metrics::backend::Operation};

/// Publishes until the bus is closed.
pub(in crate::bridge::adapter) async fn run(duty: Duty, mut end: PublisherEnd) {
    let mut backoff = Backoff::default();
    loop {
        let (lost_sender, mut lost) = mpsc::unbounded_channel();
        let on_push = move |info: PushInfo| {
            if info.kind == PushKind::Disconnection {
                return lost_sender.send(()).map_err(|_| SendError);
            }
            Ok(()) // Nothing is subscribed here.
        };
        let standing = tokio::select! {
            standing = duty.server.connect(&mut backoff, &mut end.reporter, on_push) => standing,
            () = discard(&mut end.outgoing, &end.tally) => return,
        };
        end.reporter.up().await;
        let at = duty.at(&standing);
        let ended = publish(&at, &mut end, standing.connection.clone(), &mut lost).await;
        let Some(trouble) = ended else {
            return;
        };
        duty.way.moved();
        end.reporter.down(trouble).await;
        tokio::select! {
            () = standing.ended(&mut backoff) => {}
            () = discard(&mut end.outgoing, &end.tally) => return,
        }
    }
}

/// Ends when the bus is closed.
async fn discard(outgoing: &mut OutgoingReceiver, tally: &Tally) {
    while let Some(Queued { entries, .. }) = outgoing.recv().await {
        tally.lost_while_down.fetch_add(entries, Ordering::Relaxed);
    }
}

/// Publishes over one connection until it is dead, or all is sent and the bus closed: `None`.
async fn publish(
    duty: &Duty,
    end: &mut PublisherEnd,
    connection: MultiplexedConnection,
    lost: &mut mpsc::UnboundedReceiver<()>,
) -> Option<Trouble> {
    let mut heartbeat = Heartbeat::new(connection.clone());
    let mut flights = Flights::new(duty.timeout);
    let mut taken = Vec::new();
    let mut denied = BTreeSet::new();
    let mut is_open = true;
    let trouble = loop {
        tokio::select! {
            biased;
            landing = flights.land(), if !flights.is_empty() => match landing {
                Ok(landing) => {
                    heartbeat.heard();
                    publish_landed(duty, end, &mut denied, landing).await;
                }
                Err(FlightError::TimedOut) => break silent(&duty.server),
                Err(FlightError::Lost) => break closed(&duty.server),
            },
            count = end.outgoing.recv_many(&mut taken, TAKEN_MAX),
                if is_open && flights.has_room() =>
            {
                is_open = count > 0;
                for load in loads(duty, taken.drain(..)) {
                    flights.start(&connection, load).await;
                }
            }
            _ = lost.recv() => break closed(&duty.server),
            trouble = heartbeat.until_dead(&duty.server, || 0) => break trouble,
        }
        if !is_open && flights.is_empty() {
            return None;
        }
    };
    let unknown = flights.entries();
    end.tally
        .publish_unknown
        .fetch_add(unknown, Ordering::Relaxed);
    Some(trouble)
}

/// Counts what the server said. `denied` are the topics whose last batch it refused: others may well be
/// allowed, and do not end the trouble.
async fn publish_landed(
    duty: &Duty,
    end: &mut PublisherEnd,
    denied: &mut BTreeSet<Topic>,
    Landing { batches, answers }: Landing,
) {
    let mut denials: Vec<RedisError> = Vec::new();
    let (mut published, mut entries_denied) = (0, 0);
    for (sent, answer) in batches.into_iter().zip(answers) {
        let Sent {
            topic,
            entries,
            since,
        } = sent;
        let meter = &end.tally.meter;
        meter.observe(Operation::Publish, since.elapsed());
        // The number of receivers is no proof of anything, so it is not looked at.
        if let Value::ServerError(error) = answer {
            let error = error.into();
            entries_denied += entries;
            // One that moved is another server's: nothing will end the trouble here.
            if duty.way.is_redirection(&error) {
                denied.remove(&topic);
            } else {
                denied.insert(topic);
                denials.push(error);
            }
        } else {
            published += 1;
            denied.remove(&topic);
        }
    }
    let tally = &end.tally;
    tally.published.fetch_add(published, Ordering::Relaxed);
    tally
        .publish_denied
        .fetch_add(entries_denied, Ordering::Relaxed);
    if let Some(error) = denials.first() {
        let trouble = fault::denied(duty.way.publish(), duty.names.stem(), error, &duty.server);
        end.reporter.trouble(trouble).await;
    } else if denied.is_empty() {
        end.reporter.cured().await;
    }
}

/// One pipeline and what it carries.
struct Load {
    pipeline: Pipeline,
    batches: Vec<Sent>,
    room: Vec<OwnedSemaphorePermit>,
}

/// What was queued, in as few pipelines as their bound allows.
// Per batch: name and bytes are copied into the command, and once more when the pipeline is packed.
fn loads(duty: &Duty, taken: impl Iterator<Item = Queued>) -> Vec<Load> {
    let mut loads: Vec<Load> = Vec::new();
    let mut load_bytes = usize::MAX;
    for queued in taken {
        let Queued {
            topic,
            bytes,
            entries,
            room,
            since,
        } = queued;
        if load_bytes.saturating_add(bytes.len()) > PIPELINE_BYTES_MAX {
            loads.push(Load {
                pipeline: Pipeline::new(),
                batches: Vec::new(),
                room: Vec::new(),
            });
            load_bytes = 0;
        }
        load_bytes += bytes.len();
        let load = loads.last_mut().expect("the first batch opens one");
        let publish = load.pipeline.cmd(duty.way.publish());
        publish.arg(duty.names.name(topic)).arg(bytes);
        load.batches.push(Sent {
            topic,
            entries,
            since,
        });
        load.room.push(room);
    }
    loads
}

/// Pipelines on their way, the oldest first. Several, so that a batch does not wait for the answer to
/// the ones before it; answers come in the order of the questions.
struct Flights {
    flying: VecDeque<Flight>,
    timeout: Duration,
}

struct Flight {
    answer: Pin<Box<dyn Future<Output = RedisResult<Vec<Value>>> + Send>>,
    /// Answered while it was started.
    early: Option<RedisResult<Vec<Value>>>,
    batches: Vec<Sent>,
    answer_by: Instant,
    /// Held until it lands.
    _room: Vec<OwnedSemaphorePermit>,
}

/// What the server said to the batches of a pipeline, one by one.
struct Landing {
    batches: Vec<Sent>,
    answers: Vec<Value>,
}

enum FlightError {
    TimedOut,
    Lost,
}

impl Flights {
    fn new(timeout: Duration) -> Self {
        Self {
            flying: VecDeque::new(),
            timeout,
        }
    }

    fn is_empty(&self) -> bool {
        self.flying.is_empty()
    }

    fn has_room(&self) -> bool {
        self.flying.len() < FLIGHTS_MAX
    }

    fn entries(&self) -> u64 {
        let batches = self.flying.iter().flat_map(|flight| &flight.batches);
        batches.map(|it| it.entries).sum()
    }

    /// Hands the pipeline to the connection: the order of starts is the order on the wire.
    async fn start(&mut self, connection: &MultiplexedConnection, load: Load) {
        let Load {
            pipeline,
            batches,
            room,
        } = load;
        let mut connection = connection.clone();
        let mut answer: Pin<Box<dyn Future<Output = _> + Send>> = Box::pin(async move {
            connection
                .send_packed_commands(&pipeline, 0, pipeline.len())
                .await
        });
        // The first poll is what queues it.
        let early = poll_fn(|waker| match answer.as_mut().poll(waker) {
            Poll::Ready(early) => Poll::Ready(Some(early)),
            Poll::Pending => Poll::Ready(None),
        });
        let early = early.await;
        self.flying.push_back(Flight {
            answer,
            early,
            batches,
            answer_by: Instant::now() + self.timeout,
            _room: room,
        });
    }

    /// The oldest one's answer. Nothing is lost when the future is dropped.
    async fn land(&mut self) -> Result<Landing, FlightError> {
        let Some(flight) = self.flying.front_mut() else {
            return std::future::pending().await;
        };
        let answer = match flight.early.take() {
            Some(answer) => Ok(answer),
            None => timeout_at(flight.answer_by, &mut flight.answer).await,
        };
        let answers = match answer {
            Ok(Ok(answers)) => answers,
            Ok(Err(_)) => return Err(FlightError::Lost),
            Err(_) => return Err(FlightError::TimedOut),
        };
        let flight = self.flying.pop_front().expect("it has just landed");
        Ok(Landing {
            batches: flight.batches,
            answers,
        })
    }
}

/// Batches that are taken from the queue at once.
const TAKEN_MAX: usize = 512;
/// More than a batch may have. An answer comes for all of it, and the heartbeat waits behind it.
const PIPELINE_BYTES_MAX: usize = 2 << 20;
const FLIGHTS_MAX: usize = 16;
