//! Data path. The publishing connection of a road.
//!
//! Owns: `run`, `Flights` (what is sent and not proven), `Denied` (what the server did not take).
//! May depend on: the rest of `adapter` and `nats`, the crate `async-nats`, tokio.
//! Invariants: batches are sent in the order in which they were queued, each at most once; NATS answers
//! nothing, so a batch is published once a message to ourselves behind it came back, and holds its
//! room until then; what was not proven when the connection ends is unknown, and stays so; nothing
//! waits for a connection: while there is none, what is queued is lost and counted.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::atomic::Ordering,
};

use tokio::sync::OwnedSemaphorePermit;

use super::{
    super::{
        backoff::Backoff,
        news::Trouble,
        queue::{OutgoingReceiver, Queued, Sent},
        roads::PublisherEnd,
        status::Tally,
    },
    Duty,
    fault::{Denial, short_payload},
    link::{Link, connect},
    probe::Death,
};
use crate::{
    cluster::{topic::Topic, wire::BATCH_BYTES_MAX},
    metrics::backend::Operation,
};

/// Publishes until the bus is closed.
pub(super) async fn run(duty: Duty, mut end: PublisherEnd) {
    let mut backoff = Backoff::default();
    let mut lost = None;
    loop {
        let mut link = tokio::select! {
            link = connect(&duty, &mut lost, &mut backoff, &mut end.reporter, None) => link,
            () = discard(&mut end.outgoing, &end.tally) => return,
        };
        end.reporter.up().await;
        let Some(trouble) = publish(&duty, &mut end, &mut link).await else {
            return;
        };
        end.reporter.down(trouble).await;
        tokio::select! {
            () = link.ended(&mut backoff) => {}
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

/// Publishes over one connection until it is dead, or all is proven and the bus closed: `None`.
async fn publish(duty: &Duty, end: &mut PublisherEnd, link: &mut Link) -> Option<Trouble> {
    let mut flights = Flights::default();
    let mut denied = Denied::default();
    let mut taken = Vec::new();
    let mut is_open = true;
    tell_short_payload(end, link).await;
    let death = loop {
        tokio::select! {
            biased;
            Some(denial) = link.denials.recv() => denied.note(duty, &denial, end, link).await,
            () = link.left.wait() => break Death::Closed,
            heard = link.probe.next() => match heard {
                Ok(number) => {
                    // What was denied before it came has been read, and is only one step away.
                    tokio::task::yield_now().await;
                    while let Ok(denial) = link.denials.try_recv() {
                        denied.note(duty, &denial, end, link).await;
                    }
                    let landed = flights.land(number);
                    for Sent { since, .. } in &landed {
                        let meter = &end.tally.meter;
                        meter.observe(Operation::Publish, since.elapsed());
                    }
                    if denied.settle(landed, &end.tally) {
                        end.reporter.cured().await;
                        tell_short_payload(end, link).await;
                    }
                }
                Err(death) => break death,
            },
            count = end.outgoing.recv_many(&mut taken, TAKEN_MAX),
                if is_open && flights.has_room() =>
            {
                is_open = count > 0;
                if let Err(death) = send(duty, end, link, &mut flights, &mut taken).await {
                    break death;
                }
            }
        }
        if !is_open && flights.is_empty() {
            return None;
        }
    };
    let unknown = flights.entries();
    let tally = &end.tally;
    tally.publish_unknown.fetch_add(unknown, Ordering::Relaxed);
    Some(link.trouble(death))
}

async fn tell_short_payload(end: &mut PublisherEnd, link: &Link) {
    let bytes_max = link.client.max_payload();
    if bytes_max < BATCH_BYTES_MAX {
        let trouble = short_payload(bytes_max, BATCH_BYTES_MAX, link.server());
        end.reporter.trouble(trouble).await;
    }
}

/// Hands over what was taken, with a proof behind each load. What cannot be handed over is unknown too.
// Per batch: its bytes are moved; the crate copies short ones into its buffer.
async fn send(
    duty: &Duty,
    end: &PublisherEnd,
    link: &mut Link,
    flights: &mut Flights,
    taken: &mut Vec<Queued>,
) -> Result<(), Death> {
    let bytes_max = link.client.max_payload();
    let mut batches = taken.drain(..).peekable();
    while batches.peek().is_some() {
        let mut flight = Flight::default();
        let mut load_bytes = 0;
        while flight.batches.len() < LOAD_BATCHES_MAX
            && load_bytes < LOAD_BYTES_MAX
            && let Some(queued) = batches.next()
        {
            let Queued {
                topic,
                bytes,
                entries,
                room,
                since,
            } = queued;
            if bytes.len() > bytes_max {
                let denied = &end.tally.publish_denied;
                denied.fetch_add(entries, Ordering::Relaxed);
                continue;
            }
            load_bytes += bytes.len();
            let subject = duty.subjects.of(topic);
            let sent = link.client.publish(subject, bytes.into()).await;
            flight.batches.push(Sent {
                topic,
                entries,
                since,
            });
            flight.room.push(room);
            if sent.is_err() {
                flights.flying.push_back(flight);
                let left = batches.map(|it| it.entries).sum();
                let lost = &end.tally.lost_while_down;
                lost.fetch_add(left, Ordering::Relaxed);
                return Err(Death::Closed);
            }
        }
        if flight.batches.is_empty() {
            continue;
        }
        let proof = link.probe.send().await;
        flight.proof = proof.unwrap_or(u64::MAX);
        flights.flying.push_back(flight);
    }
    Ok(())
}

/// Loads on their way, the oldest first.
#[derive(Default)]
struct Flights {
    flying: VecDeque<Flight>,
}

#[derive(Default)]
struct Flight {
    batches: Vec<Sent>,
    /// Held until it lands.
    room: Vec<OwnedSemaphorePermit>,
    /// Number of the message to ourselves behind it.
    proof: u64,
}

impl Flights {
    fn is_empty(&self) -> bool {
        self.flying.is_empty()
    }

    fn has_room(&self) -> bool {
        self.flying.len() < FLIGHTS_MAX
    }

    fn entries(&self) -> u64 {
        let batches = self.flying.iter().flat_map(|it| &it.batches);
        batches.map(|it| it.entries).sum()
    }

    /// The batches that were done by then.
    fn land(&mut self, proof: u64) -> Vec<Sent> {
        let mut landed = Vec::new();
        while let Some(flight) = self.flying.pop_front_if(|it| it.proof <= proof) {
            landed.extend(flight.batches);
        }
        landed
    }
}

/// What the server did not let us publish.
#[derive(Default)]
struct Denied {
    /// Batches per topic whose denial came and whose proof did not yet.
    denials: BTreeMap<Topic, u64>,
    /// Topics whose last batch was denied: others may well be allowed, and do not end the trouble.
    topics: BTreeSet<Topic>,
}

impl Denied {
    async fn note(&mut self, duty: &Duty, denial: &Denial, end: &mut PublisherEnd, link: &Link) {
        if let Denial::Publish(subject) = denial
            && let Some(topic) = duty.subjects.topic(subject)
        {
            *self.denials.entry(topic).or_default() += 1;
        }
        let trouble = denial.trouble(duty.subjects.stem(), link.server());
        end.reporter.trouble(trouble).await;
    }

    /// Counts what has landed. Whether the last trouble is over by that.
    fn settle(&mut self, landed: Vec<Sent>, tally: &Tally) -> bool {
        let was_troubled = !self.topics.is_empty();
        let (mut published, mut denied) = (0, 0);
        for Sent { topic, entries, .. } in landed {
            match self.denials.get_mut(&topic) {
                Some(count) => {
                    *count -= 1;
                    if *count == 0 {
                        self.denials.remove(&topic);
                    }
                    self.topics.insert(topic);
                    denied += entries;
                }
                None => {
                    self.topics.remove(&topic);
                    published += 1;
                }
            }
        }
        tally.published.fetch_add(published, Ordering::Relaxed);
        tally.publish_denied.fetch_add(denied, Ordering::Relaxed);
        was_troubled && self.topics.is_empty()
    }
}

/// Batches that are taken from the queue at once.
const TAKEN_MAX: usize = 512;
/// Of one load. The crate keeps no more than 128 complaints at a time.
const LOAD_BATCHES_MAX: usize = 128;
const LOAD_BYTES_MAX: usize = 256 << 10;
const FLIGHTS_MAX: usize = 16;
