//! Data path. Bounded queues between every ordered pair of shards.
//!
//! Owns: the queues, what spilled over from them, the peers' connection counts.
//! May depend on: crossbeam-channel, `doorbell`, `application::ShardId`.
//! Invariants: envelopes of one pair arrive in the order of `post` and none is lost; while
//! anything is spilled `holds_reading` is true, here and (past a bound) on every peer. What is
//! spilled has no bound of its own: it is what the input that was already read, and the messages
//! already queued, cause at the most (`mesh_overflow_depth` shows it).

use crate::{application::ShardId, doorbell::Doorbell};
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use std::{
    collections::VecDeque,
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering, fence},
    },
};

/// What travels between shards.
pub(crate) enum Envelope<M> {
    /// The application's.
    Message(M),
    /// The sender's number of open connections.
    Count(u32),
    /// When it was sent, nanoseconds of the node's clock: a sample of what a hop takes.
    Sent(u64),
    /// A connection just accepted, for the receiver to adopt.
    Connection(OwnedFd),
    /// The sender is swamped: stop reading, so that no new work arises.
    Hold,
    /// The sender is no longer swamped.
    Release,
}

/// What both ends of a pair know.
struct PairFlags {
    /// The sender has spilled: it wants to be woken when there is room.
    spilled: AtomicBool,
}

struct Outgoing<M> {
    queue: Sender<Envelope<M>>,
    spilled: VecDeque<Envelope<M>>,
    flags: Arc<PairFlags>,
    bell: Arc<Doorbell>,
    /// Something was queued since the bell was last rung.
    posted: bool,
}

struct Incoming<M> {
    queue: Receiver<Envelope<M>>,
    flags: Arc<PairFlags>,
    bell: Arc<Doorbell>,
    /// Open connections there, as last heard.
    count: u32,
    /// It asked us to hold.
    holds: bool,
}

/// One shard's end of the mesh.
pub(crate) struct MeshEnd<M> {
    outgoing: Vec<Option<Outgoing<M>>>,
    incoming: Vec<Option<Incoming<M>>>,
    spilled: usize,
    /// Spilled envelopes above which all peers are asked to hold.
    spilled_max: usize,
    asked_to_hold: bool,
    /// Peers that asked us to hold.
    holds: u16,
    count_sent: u32,
    /// Envelopes handed to `post`, or told beside it, and taken, ever: equal over all ends when none is under way.
    posted: u64,
    received: u64,
}

/// Makes the ends of a mesh, one per bell.
pub(crate) fn mesh<M>(bells: &[Arc<Doorbell>], messages_max: usize) -> Vec<MeshEnd<M>> {
    let shards = bells.len();
    let mut ends: Vec<MeshEnd<M>> = (0..shards).map(|_| MeshEnd::empty(messages_max)).collect();
    for from in 0..shards {
        for to in 0..shards {
            if from == to {
                ends[from].outgoing.push(None);
                ends[from].incoming.push(None);
                continue;
            }
            let (sender, receiver) = bounded(messages_max);
            let flags = Arc::new(PairFlags {
                spilled: AtomicBool::new(false),
            });
            ends[from].outgoing.push(Some(Outgoing {
                queue: sender,
                spilled: VecDeque::new(),
                flags: flags.clone(),
                bell: bells[to].clone(),
                posted: false,
            }));
            ends[to].incoming.push(Some(Incoming {
                queue: receiver,
                flags,
                bell: bells[from].clone(),
                count: 0,
                holds: false,
            }));
        }
    }
    ends
}

impl<M> MeshEnd<M> {
    fn empty(messages_max: usize) -> Self {
        Self {
            outgoing: Vec::new(),
            incoming: Vec::new(),
            spilled: 0,
            spilled_max: messages_max,
            asked_to_hold: false,
            holds: 0,
            count_sent: 0,
            posted: 0,
            received: 0,
        }
    }

    pub(crate) fn shards(&self) -> u16 {
        u16::try_from(self.outgoing.len()).expect("`start::run` counted them in 16 bits")
    }

    /// Queues an envelope; a full queue spills.
    pub(crate) fn post(&mut self, to: ShardId, envelope: Envelope<M>) {
        let outgoing = self.outgoing[usize::from(to.0)].as_mut();
        let outgoing = outgoing.expect("a shard posts to others only");
        outgoing.posted = true;
        self.posted += 1;
        let refused = if outgoing.spilled.is_empty() {
            match outgoing.queue.try_send(envelope) {
                Ok(()) => return,
                // The peer has stopped: the whole node is stopping.
                Err(TrySendError::Disconnected(_)) => return,
                Err(TrySendError::Full(envelope)) => {
                    outgoing.flags.spilled.store(true, Ordering::SeqCst);
                    envelope
                }
            }
        } else {
            envelope
        };
        outgoing.spilled.push_back(refused);
        self.spilled += 1;
    }

    /// Moves what was spilled to its queues, as far as there is room. Returns true if any moved.
    pub(crate) fn deliver_spilled(&mut self) -> bool {
        if self.spilled == 0 {
            return false;
        }
        let before = self.spilled;
        for outgoing in self.outgoing.iter_mut().flatten() {
            while let Some(envelope) = outgoing.spilled.pop_front() {
                match outgoing.queue.try_send(envelope) {
                    Ok(()) => outgoing.posted = true,
                    Err(TrySendError::Disconnected(_)) => {}
                    Err(TrySendError::Full(envelope)) => {
                        outgoing.spilled.push_front(envelope);
                        break;
                    }
                }
                self.spilled -= 1;
            }
            if outgoing.spilled.is_empty() {
                outgoing.flags.spilled.store(false, Ordering::Relaxed);
            }
        }
        self.spilled < before
    }

    /// Tells the peers to hold when too much is spilled, and to go on when none is.
    pub(crate) fn balance_holds(&mut self) {
        let wanted = self.spilled
            > if self.asked_to_hold {
                0
            } else {
                self.spilled_max
            };
        if wanted == self.asked_to_hold {
            return;
        }
        self.asked_to_hold = wanted;
        for to in (0..self.shards()).map(ShardId) {
            if self.outgoing[usize::from(to.0)].is_some() {
                self.post(
                    to,
                    if wanted {
                        Envelope::Hold
                    } else {
                        Envelope::Release
                    },
                );
            }
        }
    }

    /// Rings the peers to which something was posted.
    pub(crate) fn ring_peers(&mut self) {
        for outgoing in self.outgoing.iter_mut().flatten() {
            if std::mem::take(&mut outgoing.posted) {
                outgoing.bell.ring();
            }
        }
    }

    /// The next message from a peer; what is ours alone is dealt with here.
    pub(crate) fn receive(&mut self, from: ShardId) -> Option<Envelope<M>> {
        let incoming = self.incoming[usize::from(from.0)].as_mut()?;
        let envelope = incoming.queue.try_recv().ok()?;
        self.received += 1;
        match envelope {
            Envelope::Count(count) => incoming.count = count,
            Envelope::Hold => {
                self.holds += u16::from(!std::mem::replace(&mut incoming.holds, true));
            }
            Envelope::Release => {
                self.holds -= u16::from(std::mem::replace(&mut incoming.holds, false));
            }
            Envelope::Message(_) | Envelope::Connection(_) | Envelope::Sent(_) => {}
        }
        Some(envelope)
    }

    /// Call after receiving from a peer: it may wait for room.
    pub(crate) fn received_from(&self, from: ShardId) {
        let Some(incoming) = &self.incoming[usize::from(from.0)] else {
            return;
        };
        fence(Ordering::SeqCst);
        if incoming.flags.spilled.load(Ordering::Relaxed) {
            incoming.bell.ring();
        }
    }

    pub(crate) fn has_incoming(&self) -> bool {
        self.incoming
            .iter()
            .flatten()
            .any(|incoming| !incoming.queue.is_empty())
    }

    /// Envelopes posted and received, ever.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.posted, self.received)
    }

    /// Envelopes wait here for room.
    pub(crate) fn has_spilled(&self) -> bool {
        self.spilled > 0
    }

    /// True while this shard must not read its sockets or the bridge.
    pub(crate) fn holds_reading(&self) -> bool {
        self.spilled > 0 || self.holds > 0
    }

    /// Tells the peers our count, if it moved by `step` or more. A count is news, not a message:
    /// it is skipped where the queue is full and told again later.
    pub(crate) fn gossip(&mut self, count: u32, step: u32) {
        if count.abs_diff(self.count_sent) < step {
            return;
        }
        self.count_sent = count;
        for outgoing in self.outgoing.iter_mut().flatten() {
            if !outgoing.spilled.is_empty() {
                continue;
            }
            match outgoing.queue.try_send(Envelope::Count(count)) {
                Ok(()) => {
                    outgoing.posted = true;
                    self.posted += 1;
                }
                Err(_) => self.count_sent = u32::MAX / 2,
            }
        }
    }

    pub(crate) fn owes_gossip(&self, count: u32) -> bool {
        self.outgoing.len() > 1 && count != self.count_sent
    }

    /// Open connections of the node: `own` here, and what the peers last said.
    pub(crate) fn connections(&self, own: u32) -> u64 {
        let heard = self.incoming.iter().flatten();
        u64::from(own) + heard.map(|it| u64::from(it.count)).sum::<u64>()
    }

    /// The least loaded peer, if a shard with `own` connections should hand it a fresh one:
    /// more than 10 % and more than 32 above the mean.
    pub(crate) fn lighter_peer(&self, own: u32) -> Option<ShardId> {
        let shards = u64::from(self.shards());
        let total = self.connections(own);
        // own > mean + mean / 10 and own > mean + 32, in whole numbers.
        if u64::from(own) * shards * 10 <= total * 11
            || u64::from(own) * shards <= total + 32 * shards
        {
            return None;
        }
        let peers = (0_u16..).zip(&self.incoming);
        let lightest = peers.filter_map(|(peer, incoming)| Some((incoming.as_ref()?.count, peer)));
        let (_, peer) = lightest.min()?;
        let outgoing = self.outgoing[usize::from(peer)].as_ref()?;
        outgoing.spilled.is_empty().then_some(ShardId(peer))
    }

    /// Hands a fresh connection over, and counts it there until that shard says otherwise.
    pub(crate) fn hand_over(&mut self, to: ShardId, connection: OwnedFd) {
        if let Some(incoming) = &mut self.incoming[usize::from(to.0)] {
            incoming.count += 1;
        }
        self.post(to, Envelope::Connection(connection));
    }

    /// Messages waiting to each peer (0 for this shard itself).
    pub(crate) fn depths(&self) -> Vec<u32> {
        self.depths_of(|o| o.queue.len())
    }

    /// Messages spilled to each peer.
    pub(crate) fn spilled_depths(&self) -> Vec<u32> {
        self.depths_of(|o| o.spilled.len())
    }

    fn depths_of(&self, waiting: impl Fn(&Outgoing<M>) -> usize) -> Vec<u32> {
        let depth = |o: &Option<Outgoing<M>>| o.as_ref().map_or(0, &waiting);
        let depths = self.outgoing.iter().map(depth);
        depths
            .map(|it| u32::try_from(it).unwrap_or(u32::MAX))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(messages_max: usize) -> (MeshEnd<u32>, MeshEnd<u32>) {
        let bells: Vec<_> = (0..2)
            .map(|_| Arc::new(Doorbell::new().expect("an eventfd")))
            .collect();
        let mut ends = mesh(&bells, messages_max).into_iter();
        (
            ends.next().expect("two ends"),
            ends.next().expect("two ends"),
        )
    }

    fn drain(end: &mut MeshEnd<u32>, from: u16) -> Vec<u32> {
        let mut messages = Vec::new();
        while let Some(envelope) = end.receive(ShardId(from)) {
            if let Envelope::Message(message) = envelope {
                messages.push(message);
            }
        }
        messages
    }

    #[test]
    fn messages_past_the_bound_spill_hold_the_sender_and_arrive_in_order() {
        let (mut one, mut two) = pair(4);
        (0..11).for_each(|n| one.post(ShardId(1), Envelope::Message(n)));
        assert!(one.holds_reading());
        one.balance_holds();
        let mut all = Vec::new();
        while all.len() < 11 {
            all.extend(drain(&mut two, 0));
            one.deliver_spilled();
            one.balance_holds();
        }
        assert_eq!(all, (0..11).collect::<Vec<_>>());
        assert!(!one.holds_reading());
        drain(&mut two, 0);
        assert!(
            !two.holds_reading(),
            "a hold is released when nothing is spilled"
        );
    }

    #[test]
    fn a_swamped_shard_makes_its_peers_hold_too() {
        let (mut one, mut two) = pair(2);
        (0..3).for_each(|n| one.post(ShardId(1), Envelope::Message(n)));
        one.balance_holds();
        drain(&mut two, 0);
        assert!(!two.holds_reading(), "one message over is not swamped");
        (3..9).for_each(|n| one.post(ShardId(1), Envelope::Message(n)));
        one.balance_holds();
        while one.deliver_spilled() {
            drain(&mut two, 0);
        }
        assert!(two.holds_reading());
        one.balance_holds();
        drain(&mut two, 0);
        assert!(!two.holds_reading());
    }

    #[test]
    fn a_connection_is_handed_over_only_well_above_the_mean() {
        let (mut one, mut two) = pair(64);
        two.gossip(1_000, 1);
        drain(&mut one, 1);
        for (own, expected) in [
            (1_000, None),
            (1_032, None),
            (1_222, None),
            (1_223, Some(ShardId(1))),
        ] {
            assert_eq!(one.lighter_peer(own), expected, "{own} against 1000");
        }
        two.gossip(0, 1);
        drain(&mut one, 1);
        assert_eq!(one.lighter_peer(64), None);
        assert_eq!(one.lighter_peer(65), Some(ShardId(1)));
    }
}
