//! One node of several shards on a virtual clock: links to clients, the mesh, the bridge's queues.

use std::collections::VecDeque;

use ahash::RandomState;
use shards::application::{Application, Closed, Millis, ShardId, Slot};
use sockudo::{
    bridge::message::{FromBridge, ToBridge},
    server::{NodeSeed, Occupancy, ShardServer, message::Message},
};

use crate::{
    dice::Dice,
    turn::{SimulatedTurn, TICK_MS},
};

pub(crate) struct Node {
    pub(crate) now: Millis,
    shards: Vec<Shard>,
    /// From shard, to shard: what was posted and not delivered yet.
    mesh: Vec<Vec<VecDeque<Message>>>,
    from_bridge: Vec<VecDeque<FromBridge>>,
    pub(crate) links: Vec<Link>,
    /// What shards told the bridge, and when.
    pub(crate) told: Vec<(ShardId, Millis, ToBridge)>,
    pub(crate) trace: Trace,
    /// The most connections that fan-outs of one turn sent to.
    pub(crate) sends_highest: usize,
    /// Frames queued for fan-outs, and messages between shards, so far.
    pub(crate) frames: u64,
    pub(crate) posted: u64,
}

struct Shard {
    server: ShardServer,
    turn: SimulatedTurn,
    has_more: bool,
}

/// A connection between a client and a shard.
pub(crate) struct Link {
    shard: usize,
    slot: Option<Slot>,
    pub(crate) to_server: VecDeque<u8>,
    /// The client's side has ended, after what is in `to_server`.
    client_end: Option<Closed>,
    client_end_heard: bool,
    pub(crate) to_client: VecDeque<u8>,
    pub(crate) server_ended: bool,
    /// Bytes that wait in the client's socket at most.
    pub(crate) socket_bytes_max: usize,
    pub(crate) was_full: bool,
    pub(crate) was_overrun: bool,
}

/// A running hash of everything that left the node.
pub(crate) struct Trace(u64);

impl Trace {
    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3);
        }
    }

    pub(crate) fn hash(&self) -> u64 {
        self.0
    }
}

impl Node {
    pub(crate) fn start(seed: &NodeSeed, shards: u16, outbox_bytes_max: usize) -> Self {
        let make = |number| {
            let shard = ShardId(number);
            let mut turn = SimulatedTurn::new(shard, shards, outbox_bytes_max);
            let mut server = ShardServer::new(seed, shard);
            server.started(&mut turn);
            Shard {
                server,
                turn,
                has_more: false,
            }
        };
        let count = usize::from(shards);
        let lanes = || (0..count).map(|_| VecDeque::new()).collect();
        Self {
            now: Millis(0),
            shards: (0..shards).map(make).collect(),
            mesh: (0..count).map(|_| lanes()).collect(),
            from_bridge: (0..count).map(|_| VecDeque::new()).collect(),
            links: Vec::new(),
            told: Vec::new(),
            trace: Trace(0xCBF2_9CE4_8422_2325),
            sends_highest: 0,
            frames: 0,
            posted: 0,
        }
    }

    /// Homes as they follow from a seed.
    pub(crate) fn homes(seed: u64) -> RandomState {
        RandomState::with_seeds(seed, seed ^ 1, seed ^ 2, seed ^ 3)
    }

    pub(crate) fn shards(&self) -> usize {
        self.shards.len()
    }

    /// A client connects; the shard hears of it with its next turn.
    pub(crate) fn connect(&mut self, shard: usize, socket_bytes_max: usize) -> usize {
        self.links.push(Link {
            shard,
            slot: None,
            to_server: VecDeque::new(),
            client_end: None,
            client_end_heard: false,
            to_client: VecDeque::new(),
            server_ended: false,
            socket_bytes_max,
            was_full: false,
            was_overrun: false,
        });
        self.links.len() - 1
    }

    /// The client ends its side: in order, or by a reset that also destroys what is under way.
    pub(crate) fn end_link(&mut self, link: usize, how: Closed) {
        let link = &mut self.links[link];
        link.client_end.get_or_insert(how);
        if how == Closed::ByError {
            link.client_end = Some(how);
            link.to_server.clear();
            link.to_client.clear();
        }
    }

    /// Sends a message of the bridge to every shard.
    pub(crate) fn tell_all(&mut self, message: impl Fn() -> FromBridge) {
        for queue in &mut self.from_bridge {
            queue.push_back(message());
        }
    }

    pub(crate) fn occupancy(&self) -> Vec<Occupancy> {
        self.shards
            .iter()
            .map(|shard| shard.server.occupancy())
            .collect()
    }

    /// One turn of a shard, with some of what waits for it; `all` of it when nothing is to be left.
    /// Returns true if anything happened.
    pub(crate) fn take_turn(&mut self, shard: usize, dice: &mut Dice, all: bool) -> bool {
        let it = &mut self.shards[shard];
        it.turn.now = self.now;
        let mut moved = self.take_input(shard, dice, all);
        self.tell_ended(shard);
        moved |= self.take_messages(shard, dice, all);
        let it = &mut self.shards[shard];
        for slot in it.turn.due_timers() {
            // An end that was told between makes a timer void.
            if it.turn.is_open(slot) {
                moved = true;
                it.server.timer(&mut it.turn, slot);
            }
        }
        if self.now >= it.turn.tick_at {
            it.turn.tick_at = self.now.plus(TICK_MS);
            it.server.tick(&mut it.turn);
        }
        it.has_more = it.server.turn_ends(&mut it.turn);
        moved |= it.has_more;
        moved |= self.tell_ended(shard);
        moved | self.end_turn(shard)
    }

    fn take_input(&mut self, shard: usize, dice: &mut Dice, all: bool) -> bool {
        let is_due = |link: &Link| {
            link.shard == shard
                && (link.slot.is_none()
                    || !link.to_server.is_empty()
                    || (link.client_end.is_some() && !link.client_end_heard))
        };
        let links = self.links.iter().enumerate();
        let mut due: Vec<usize> = links
            .filter(|(_, it)| is_due(it))
            .map(|(at, _)| at)
            .collect();
        dice.shuffle(&mut due);
        let mut moved = false;
        for at in due {
            if all || dice.percent(70) {
                moved |= self.take_link(at, dice, all);
            }
        }
        moved
    }

    fn take_link(&mut self, at: usize, dice: &mut Dice, all: bool) -> bool {
        let link = &mut self.links[at];
        let it = &mut self.shards[link.shard];
        let Some(slot) = link.slot else {
            let slot = it.turn.adopt(at);
            link.slot = Some(slot);
            it.server.accepted(&mut it.turn, slot, None);
            return true;
        };
        if !it.turn.is_open(slot) {
            // Nobody reads any more: what comes is discarded.
            let moved = !link.to_server.is_empty() || !link.client_end_heard;
            link.to_server.clear();
            if let Some(how) = link.client_end.filter(|_| !link.client_end_heard) {
                link.client_end_heard = true;
                it.turn.peer_ends(slot, how);
            }
            return moved;
        }
        if link.client_end == Some(Closed::ByError) && !link.client_end_heard {
            link.client_end_heard = true;
            it.turn.peer_ends(slot, Closed::ByError);
            return true;
        }
        if !it.turn.is_reading(slot) {
            return false;
        }
        if link.to_server.is_empty() {
            if link.client_end.is_some() && !link.client_end_heard {
                link.client_end_heard = true;
                it.turn.peer_ends(slot, Closed::ByPeer);
                return true;
            }
            return false;
        }
        let whole = link.to_server.len();
        let count = if all || dice.percent(50) {
            whole
        } else {
            dice.between(1, whole)
        };
        let mut bytes: Vec<u8> = link.to_server.drain(..count.min(16_384)).collect();
        it.server.received(&mut it.turn, slot, &mut bytes);
        true
    }

    fn take_messages(&mut self, shard: usize, dice: &mut Dice, all: bool) -> bool {
        let mut moved = false;
        for from in 0..self.shards.len() {
            let waiting = self.mesh[from][shard].len();
            let count = if all {
                waiting
            } else {
                dice.below(waiting + 1)
            };
            for message in self.mesh[from][shard].drain(..count) {
                moved = true;
                let it = &mut self.shards[shard];
                let from = ShardId(u16::try_from(from).expect("few shards"));
                it.server.message(&mut it.turn, from, message);
            }
        }
        let waiting = self.from_bridge[shard].len();
        let count = if all {
            waiting
        } else {
            dice.below(waiting + 1)
        };
        for message in self.from_bridge[shard].drain(..count) {
            moved = true;
            let it = &mut self.shards[shard];
            it.server.from_bridge(&mut it.turn, message);
        }
        moved
    }

    fn tell_ended(&mut self, shard: usize) -> bool {
        let it = &mut self.shards[shard];
        let mut moved = false;
        while let Some((slot, how)) = it.turn.ended.pop_front() {
            moved = true;
            it.server.closed(&mut it.turn, slot, how);
            it.turn.heard_end(slot);
        }
        moved
    }

    /// Flushes the outboxes and hands over what was posted.
    fn end_turn(&mut self, shard: usize) -> bool {
        let it = &mut self.shards[shard];
        let mut moved = false;
        let (links, trace) = (std::cell::RefCell::new(&mut self.links), &mut self.trace);
        it.turn.flush(
            |link| {
                let link = &links.borrow()[link];
                if link.client_end == Some(Closed::ByError) {
                    return usize::MAX;
                }
                link.socket_bytes_max.saturating_sub(link.to_client.len())
            },
            |at, bytes| {
                moved = true;
                let link = &mut links.borrow_mut()[at];
                trace.add(&at.to_le_bytes());
                let Some(bytes) = bytes else { return };
                trace.add(bytes);
                if link.client_end != Some(Closed::ByError) {
                    link.to_client.extend(bytes);
                }
            },
        );
        for link in &mut self.links {
            if link.shard != shard || link.server_ended {
                continue;
            }
            let Some(slot) = link.slot else { continue };
            link.was_full |= it.turn.was_full(slot);
            link.was_overrun |= it.turn.was_overrun(slot);
            link.server_ended = !it.turn.is_there(slot);
        }
        self.sends_highest = self.sends_highest.max(it.turn.sends);
        self.frames += it.turn.frames_sent as u64;
        self.posted += it.turn.posted.len() as u64;
        it.turn.end_turn();
        for (to, message) in it.turn.posted.drain(..) {
            self.mesh[shard][usize::from(to.0)].push_back(message);
        }
        let number = ShardId(u16::try_from(shard).expect("few shards"));
        for message in it.turn.told_bridge.drain(..) {
            self.trace.add(format!("{message:?}").as_bytes());
            self.told.push((number, self.now, message));
        }
        moved
    }

    /// When something next falls due on its own.
    pub(crate) fn next_deadline(&self) -> Option<Millis> {
        let of = |shard: &Shard| {
            let tick = shard.turn.keeps_ticking.then_some(shard.turn.tick_at);
            shard.turn.next_timer().into_iter().chain(tick).min()
        };
        self.shards.iter().filter_map(of).min()
    }

    pub(crate) fn keeps_ticking(&self) -> bool {
        self.shards.iter().any(|shard| shard.turn.keeps_ticking)
    }
}
