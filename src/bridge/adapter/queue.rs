//! Data path. What waits between the bridge and a connection of the bus, bounded in bytes.
//!
//! Owns: `outgoing` and `incoming` queues, the bytes that a batch counts for.
//! May depend on: tokio, `adapter::status`, `cluster`.
//! Invariants: a batch holds its bytes of the bound until its fate is known (outgoing) or it is taken
//! (incoming); sending never waits; what does not fit is counted and, incoming, told by one mark where
//! the gap begins; one that was widened has room when it is said to have none.

use std::sync::{Arc, atomic::Ordering};

use shards::application::PublishRoom;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::Instant,
};

use super::{news::Refused, status::Tally};
use crate::cluster::{
    topic::Topic,
    wire::{BATCH_BYTES_MAX, entries_of},
};

/// A batch and its bytes of the bound.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) topic: Topic,
    pub(super) bytes: Vec<u8>,
    /// What is lost with it.
    pub(super) entries: u64,
    pub(super) room: OwnedSemaphorePermit,
    pub(super) since: Instant,
}

/// What is kept of a batch that is on its way.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) topic: Topic,
    pub(super) entries: u64,
    /// When it was queued.
    pub(super) since: Instant,
}

/// Bytes of a bound, shared by both ends of a queue.
#[derive(Clone, Debug)]
struct Room {
    free: Arc<Semaphore>,
    bytes_max: usize,
}

impl Room {
    fn new(bytes_max: usize) -> Self {
        let bytes_max = bytes_max.clamp(BATCH_BYTES_MAX + BATCH_COST, Semaphore::MAX_PERMITS);
        Self {
            free: Arc::new(Semaphore::new(bytes_max)),
            bytes_max,
        }
    }

    /// Before anything is queued by another end.
    fn add(&mut self, bytes: usize) {
        let bytes = bytes.min(Semaphore::MAX_PERMITS - self.bytes_max);
        self.free.add_permits(bytes);
        self.bytes_max += bytes;
    }

    fn used(&self) -> usize {
        self.bytes_max - self.free.available_permits()
    }

    fn take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let bytes = u32::try_from(bytes + BATCH_COST).ok()?;
        Arc::clone(&self.free).try_acquire_many_owned(bytes).ok()
    }
}

/// What a queued batch costs beside its bytes: the entry, its two allocations, its topic.
const BATCH_COST: usize = 128;

/// Makes a queue towards the bus.
pub(super) fn outgoing(bytes_max: usize, tally: Arc<Tally>) -> (OutgoingSender, OutgoingReceiver) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let room = Room::new(bytes_max);
    let mark = room.bytes_max;
    (
        OutgoingSender {
            room,
            mark,
            full_from: mark,
            told: PublishRoom::Free,
            sender,
            tally,
        },
        receiver,
    )
}

/// The bridge's end.
#[derive(Debug)]
pub(super) struct OutgoingSender {
    room: Room,
    /// Bytes from three quarters of which on those who fill it the most are to be told.
    mark: usize,
    /// Bytes from which on all are; beyond is room for what they have on its way.
    full_from: usize,
    told: PublishRoom,
    sender: mpsc::UnboundedSender<Queued>,
    tally: Arc<Tally>,
}

/// The publishing connection's end. Closed when the bus is being closed.
pub(super) type OutgoingReceiver = mpsc::UnboundedReceiver<Queued>;

impl OutgoingSender {
    // Per batch: its entries are counted, an entry of the queue; the bytes are moved.
    pub(super) fn send(&self, topic: Topic, bytes: Vec<u8>) -> Result<(), Refused> {
        let max = BATCH_BYTES_MAX;
        if bytes.len() > max {
            let bytes = bytes.len();
            return Err(Refused::TooLong { bytes, max });
        }
        let entries = entries_of(&bytes);
        let Some(room) = self.room.take(bytes.len()) else {
            self.tally.refused.fetch_add(entries, Ordering::Relaxed);
            return Err(Refused::Full {
                queued_bytes: self.room.used(),
                max: self.room.bytes_max,
            });
        };
        let queued = Queued {
            topic,
            bytes,
            entries,
            room,
            since: Instant::now(),
        };
        if self.sender.send(queued).is_err() {
            self.tally
                .lost_while_down
                .fetch_add(entries, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Adds room beyond the mark for what is on its way when somebody is told, at most so many bytes: all of it, and
    /// before that what those who fill it the most have of it, three quarters.
    pub(super) fn widen(&mut self, on_their_way_bytes: usize) {
        let of_most = on_their_way_bytes - on_their_way_bytes / 4;
        self.full_from = self.mark.saturating_add(of_most);
        self.room.add(of_most);
        self.room.add(on_their_way_bytes);
    }

    /// What room there is for those who fill it: little from three quarters of its mark on, none when what was on its
    /// way then has filled it too, each until half of its mark is left.
    pub(super) fn publish_room(&mut self) -> PublishRoom {
        let used = self.room.used();
        let stays = |told| self.told == told && used > self.mark / 2;
        self.told = if used >= self.full_from || stays(PublishRoom::None) {
            PublishRoom::None
        } else if used >= self.mark - self.mark / 4 || stays(PublishRoom::Scarce) {
            PublishRoom::Scarce
        } else {
            PublishRoom::Free
        };
        self.told
    }

    pub(super) fn queued_bytes(&self) -> usize {
        self.room.used()
    }
}

/// Makes a queue from the bus.
pub(super) fn incoming(bytes_max: usize, tally: Arc<Tally>) -> (IncomingSender, IncomingReceiver) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let room = Room::new(bytes_max);
    let incoming = IncomingSender {
        room: room.clone(),
        sender,
        tally: Arc::clone(&tally),
    };
    (
        incoming,
        IncomingReceiver {
            room,
            receiver,
            tally,
        },
    )
}

/// The subscribing connection's end.
#[derive(Clone, Debug)]
pub(super) struct IncomingSender {
    room: Room,
    sender: mpsc::UnboundedSender<Incoming>,
    tally: Arc<Tally>,
}

#[derive(Debug)]
enum Incoming {
    Batch {
        topic: Topic,
        bytes: Vec<u8>,
        room: OwnedSemaphorePermit,
    },
    /// Batches were dropped from here on; the tally knows how many.
    Gap,
}

impl IncomingSender {
    // Per batch: a few atomic additions and an entry of the queue; the bytes are moved.
    pub(super) fn send(&self, topic: Topic, bytes: Vec<u8>) {
        self.tally.received.fetch_add(1, Ordering::Relaxed);
        match self.room.take(bytes.len()) {
            Some(room) => {
                // Who closes the bus takes no more.
                _ = self.sender.send(Incoming::Batch { topic, bytes, room });
            }
            None => self.lose(entries_of(&bytes)),
        }
    }

    /// A batch of so many entries is missing from here on.
    pub(super) fn lose(&self, entries: u64) {
        self.tally.dropped.fetch_add(entries, Ordering::Relaxed);
        if self.tally.dropped_untold.fetch_add(1, Ordering::Relaxed) == 0 {
            _ = self.sender.send(Incoming::Gap);
        }
    }
}

/// The bridge's end.
#[derive(Debug)]
pub(super) struct IncomingReceiver {
    room: Room,
    receiver: mpsc::UnboundedReceiver<Incoming>,
    tally: Arc<Tally>,
}

/// What was taken from the queue.
#[derive(Debug)]
pub(super) enum Taken {
    Batch { topic: Topic, bytes: Vec<u8> },
    Dropped { batches: u64 },
}

impl IncomingReceiver {
    /// Nothing is lost when the future is dropped. Never ready again once all senders are gone.
    pub(super) async fn take(&mut self) -> Taken {
        match self.receiver.recv().await {
            Some(incoming) => self.understand(incoming),
            None => std::future::pending().await,
        }
    }

    pub(super) fn try_take(&mut self) -> Option<Taken> {
        let incoming = self.receiver.try_recv().ok()?;
        Some(self.understand(incoming))
    }

    fn understand(&self, incoming: Incoming) -> Taken {
        match incoming {
            Incoming::Batch { topic, bytes, room } => {
                drop(room);
                Taken::Batch { topic, bytes }
            }
            Incoming::Gap => Taken::Dropped {
                batches: self.tally.dropped_untold.swap(0, Ordering::Relaxed),
            },
        }
    }

    pub(super) fn queued_bytes(&self) -> usize {
        self.room.used()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;
    use crate::cluster::{
        entry::{Entry, Token},
        identity::{ClusterTag, Identity, Incarnation, NodeId},
        mac::Secrets,
        wire::{BatchWriter, Header, Version},
    };
    use crate::metrics::backend::{Meter, Role};

    const BATCH: usize = BATCH_BYTES_MAX;

    fn tally() -> Arc<Tally> {
        Arc::new(Tally::new(Meter::new("redis", Role::Adapter)))
    }

    #[tokio::test]
    async fn a_queue_has_little_room_near_its_mark_none_beyond_what_was_on_its_way_and_takes_that()
    {
        let tally = tally();
        let batch = || vec![0; BATCH];
        let (mut sender, mut receiver) = outgoing(4 * (BATCH + BATCH_COST), Arc::clone(&tally));
        sender.widen(4 * (BATCH + BATCH_COST));
        for number in 0..11 {
            let room = match number {
                0..3 => PublishRoom::Free,
                3..7 => PublishRoom::Scarce,
                _ => PublishRoom::None,
            };
            assert_eq!(sender.publish_room(), room, "{number}");
            assert_eq!(sender.send(Topic::Nodes, batch()), Ok(()), "{number}");
        }
        assert!(matches!(
            sender.send(Topic::Nodes, batch()),
            Err(Refused::Full { .. })
        ));
        assert_eq!(tally.refused.load(Ordering::Relaxed), 1);
        for left in (0..11).rev() {
            drop(receiver.recv().await.expect("it was queued"));
            let has_none = sender.publish_room() == PublishRoom::None;
            assert_eq!(has_none, left > 2, "{left}");
        }
        for _ in 0..3 {
            assert_eq!(sender.send(Topic::Nodes, batch()), Ok(()));
            assert_ne!(
                sender.publish_room(),
                PublishRoom::None,
                "it was not up to its mark since"
            );
        }
        assert_eq!(sender.publish_room(), PublishRoom::Scarce);
        drop(receiver.recv().await.expect("it was queued"));
        assert_eq!(sender.publish_room(), PublishRoom::Free, "half is left");
    }

    /// A batch of three entries, with a MAC or without.
    fn batch_of_three(secrets: &Secrets) -> Vec<u8> {
        let header = Header {
            version: Version::OURS,
            lane: Topic::Nodes.lane(),
            cluster: ClusterTag(1),
            sender: Identity {
                node: NodeId(1),
                incarnation: Incarnation(1),
            },
            number: 1,
        };
        let mut batch = BatchWriter::begin(&header, secrets, Vec::new());
        for token in 0..3 {
            let pushed = batch.push(&Entry::Canary(Token(token)));
            assert_eq!(pushed, Ok(()));
        }
        batch.finish(secrets)
    }

    #[tokio::test]
    async fn what_is_lost_with_a_batch_is_counted_by_its_entries() {
        for secrets in [Secrets::default(), Secrets::new(["secret"].into_iter())] {
            let batch = || batch_of_three(&secrets);
            let filler = || vec![0; BATCH];
            let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
            let tally = tally();
            let (sender, mut receiver) = outgoing(0, Arc::clone(&tally));
            assert_eq!(sender.send(Topic::Nodes, filler()), Ok(()));
            assert!(sender.send(Topic::Nodes, batch()).is_err());
            assert_eq!(count(&tally.refused), 3);
            drop(receiver.recv().await);
            assert_eq!(sender.send(Topic::Nodes, batch()), Ok(()));
            let queued = receiver.recv().await.expect("it was queued");
            assert_eq!(queued.entries, 3);
            drop((queued, receiver));
            assert_eq!(sender.send(Topic::Nodes, batch()), Ok(()));
            assert_eq!(count(&tally.lost_while_down), 3);

            let (sender, mut receiver) = incoming(0, Arc::clone(&tally));
            sender.send(Topic::Nodes, filler());
            sender.send(Topic::Nodes, batch());
            sender.send(Topic::Nodes, b"no batch at all".to_vec());
            assert_eq!(count(&tally.dropped), 3 + 1);
            assert!(matches!(receiver.take().await, Taken::Batch { .. }));
            assert!(matches!(
                receiver.take().await,
                Taken::Dropped { batches: 2 }
            ));
        }
    }
}
