//! One node of several shards on a virtual clock: links to clients, the mesh, the bridge's queues.

use std::collections::VecDeque;

use ahash::RandomState;
use shards::{
    application::{Application, Closed, Millis, Peer, ShardId, Slot},
    work::Work,
};
use sockudo::{
    bridge::message::{FromBridge, ToBridge},
    server::{NodeSeed, Occupancy, ShardServer, message::Message},
};

use crate::{
    dice::Dice,
    turn::{Limits, SimulatedTurn, TICK_MS},
};

pub(crate) struct Node {
    pub(crate) now: Millis,
    pub(crate) shards: Vec<Shard>,
    /// From shard, to shard: what was posted and not delivered yet.
    mesh: Vec<Vec<VecDeque<Message>>>,
    from_bridge: Vec<VecDeque<FromBridge>>,
    pub(crate) links: Vec<Link>,
    /// What shards told the bridge, and when.
    pub(crate) told: Vec<(ShardId, Millis, ToBridge)>,
    pub(crate) trace: Trace,
    /// The most connections that fan-outs of one turn sent to, and the most work of one.
    pub(crate) sends_highest: usize,
    pub(crate) work_highest: u64,
    /// What all turns have done, nanoseconds.
    worked_ns: u64,
    /// Frames queued for fan-outs, and messages between shards, so far.
    pub(crate) frames: u64,
    pub(crate) posted: u64,
    /// Connections that it took over and is to close.
    pub(crate) closing: u64,
}

pub(crate) struct Shard {
    pub(crate) server: ShardServer,
    pub(crate) turn: SimulatedTurn,
    has_more: bool,
}

/// A connection between a client and a shard.
pub(crate) struct Link {
    pub(crate) shard: usize,
    /// Who is there, as the shard hears of it.
    pub(crate) peer: Peer,
    pub(crate) slot: Option<Slot>,
    /// It has or had a slot.
    pub(crate) was_accepted: bool,
    pub(crate) to_server: VecDeque<u8>,
    /// The client's side has ended, after what is in `to_server`.
    client_end: Option<Closed>,
    client_end_heard: bool,
    pub(crate) to_client: VecDeque<u8>,
    pub(crate) server_ended: bool,
    /// Bytes that wait in the client's socket at most.
    pub(crate) socket_bytes_max: usize,
    pub(crate) was_full: bool,
}

/// What one step may cost that nothing cuts: a batch of leavings, a request's publications.
const STEP_WORK_MAX: Work = Work(1_500_000);

/// A running hash of everything that left the node.
pub(crate) struct Trace(pub(crate) u64);

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
    pub(crate) fn start(seed: &NodeSeed, shards: u16, limits: Limits) -> Self {
        let make = |number| {
            let shard = ShardId(number);
            let mut turn = SimulatedTurn::new(shard, shards, limits);
            let mut server = ShardServer::new(seed, shard);
            server.on_started(&mut turn);
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
            work_highest: 0,
            worked_ns: 0,
            frames: 0,
            posted: 0,
            closing: 0,
        }
    }

    /// It was killed; this is its next life. What was under way to its clients is gone with the old one.
    pub(crate) fn restarts(&mut self, seed: &NodeSeed, limits: Limits) {
        let shards = u16::try_from(self.shards.len()).expect("few shards");
        let mut next = Self::start(seed, shards, limits);
        next.now = self.now;
        std::mem::swap(&mut next.links, &mut self.links);
        std::mem::swap(&mut next.trace, &mut self.trace);
        *self = next;
    }

    /// It is killed: its clients see their connections end.
    pub(crate) fn dies(&mut self) {
        for link in &mut self.links {
            link.shard = usize::MAX;
            link.server_ended = true;
            link.to_client.clear();
            link.to_server.clear();
        }
        self.told.clear();
    }

    /// Homes as they follow from a seed.
    pub(crate) fn homes(seed: u64) -> RandomState {
        RandomState::with_seeds(seed, seed ^ 1, seed ^ 2, seed ^ 3)
    }

    /// Every shard is put down as plain data, and goes on from that.
    pub(crate) fn restores_all(&mut self) {
        for it in &mut self.shards {
            it.server = ShardServer::restore(it.server.snapshot());
        }
    }

    pub(crate) fn shards(&self) -> usize {
        self.shards.len()
    }

    /// A client connects; the shard hears of it with its next turn.
    pub(crate) fn connect(&mut self, shard: usize, socket_bytes_max: usize) -> usize {
        self.links.push(Link {
            shard,
            peer: Peer::Gone,
            slot: None,
            was_accepted: false,
            to_server: VecDeque::new(),
            client_end: None,
            client_end_heard: false,
            to_client: VecDeque::new(),
            server_ended: false,
            socket_bytes_max,
            was_full: false,
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

    /// Sends a message of the bridge to one shard.
    pub(crate) fn tell(&mut self, shard: usize, message: FromBridge) {
        self.from_bridge[shard].push_back(message);
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
        it.turn.worked_ns = self.worked_ns;
        it.turn.budget.refill();
        it.turn.budget.begin_stage(50);
        self.tell_room(shard);
        let mut moved = self.take_input(shard, dice, all);
        moved |= self.tell_ended(shard);
        moved |= self.tell_drained(shard);
        moved |= self.take_messages(shard, dice, all);
        let it = &mut self.shards[shard];
        it.turn.budget.begin_stage(25);
        for slot in it.turn.due_timers() {
            // An end that was told between makes a timer void.
            if it.turn.is_open(slot) {
                moved = true;
                it.server.on_timer(&mut it.turn, slot);
            }
        }
        if self.now >= it.turn.tick_at {
            it.turn.tick_at = self.now.plus(TICK_MS);
            it.server.on_tick(&mut it.turn);
        }
        it.turn.budget.begin_stage(6);
        it.has_more = it.server.on_turn_end(&mut it.turn);
        moved |= it.has_more;
        it.turn.budget.begin_stage(0);
        moved |= self.tell_ended(shard);
        self.check_work(shard);
        moved | self.end_turn(shard)
    }

    /// No turn does more than its budget: beyond it goes what the last step of each stage may cost.
    fn check_work(&mut self, shard: usize) {
        let budget = &self.shards[shard].turn.budget;
        let bound = 2 * u64::from(budget.whole().0) + u64::from(STEP_WORK_MAX.0);
        let spent = budget.spent();
        assert!(
            spent <= bound,
            "a turn did work for {spent} ns, its bound is {bound}"
        );
        self.work_highest = self.work_highest.max(spent);
        self.worked_ns += spent;
    }

    fn tell_room(&mut self, shard: usize) {
        let it = &mut self.shards[shard];
        for link in self.links.iter().filter(|link| link.shard == shard) {
            let Some(slot) = link.slot else { continue };
            let room = if link.client_end == Some(Closed::ByError) {
                usize::MAX
            } else {
                link.socket_bytes_max.saturating_sub(link.to_client.len())
            };
            it.turn.has_room(slot, room);
        }
    }

    pub(crate) fn tell_drained(&mut self, shard: usize) -> bool {
        let it = &mut self.shards[shard];
        let mut moved = false;
        while let Some(slot) = it.turn.drained.pop_front() {
            moved = true;
            if it.turn.is_open(slot) {
                it.server.on_drained(&mut it.turn, slot);
            }
        }
        moved
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
            if self.shards[shard].turn.budget.stage_left() == Work(0) {
                return true;
            }
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
            link.was_accepted = true;
            it.turn.budget.spend(Work::ACCEPT);
            it.server.on_accepted(&mut it.turn, slot, link.peer);
            return true;
        };
        if !it.turn.is_open(slot) {
            // Nobody reads any more: what comes is discarded.
            let moved = !link.to_server.is_empty() || !link.client_end_heard;
            link.to_server.clear();
            if let Some(how) = link.client_end.filter(|_| !link.client_end_heard) {
                link.client_end_heard = true;
                let is_open = it.turn.peer_ends(slot, how);
                assert!(!is_open, "it was not open a line ago");
            }
            return moved;
        }
        if link.client_end == Some(Closed::ByError) && !link.client_end_heard {
            link.client_end_heard = true;
            let is_open = it.turn.peer_ends(slot, Closed::ByError);
            assert!(!is_open, "a reset ends a connection");
            return true;
        }
        if !it.turn.is_reading(slot) {
            return false;
        }
        if link.to_server.is_empty() {
            if link.client_end.is_some() && !link.client_end_heard {
                link.client_end_heard = true;
                if it.turn.peer_ends(slot, Closed::ByPeer) {
                    it.server.on_peer_ended(&mut it.turn, slot);
                }
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
        let work = Work::RECEIVE.and(Work::bytes(bytes.len()));
        it.turn.budget.spend(work);
        it.server.on_received(&mut it.turn, slot, &mut bytes);
        true
    }

    pub(crate) fn take_messages(&mut self, shard: usize, dice: &mut Dice, all: bool) -> bool {
        let mut moved = false;
        self.shards[shard].turn.budget.begin_stage(35);
        for from in 0..self.shards.len() {
            let waiting = self.mesh[from][shard].len();
            let count = if all {
                waiting
            } else {
                dice.below(waiting + 1)
            };
            for _ in 0..count {
                let it = &mut self.shards[shard];
                if it.turn.budget.stage_left() == Work(0) {
                    return true;
                }
                let Some(message) = self.mesh[from][shard].pop_front() else {
                    break;
                };
                moved = true;
                it.turn.budget.spend(Work::MESSAGE);
                let from = ShardId(u16::try_from(from).expect("few shards"));
                it.server.on_message(&mut it.turn, from, message);
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
            it.server.on_bridge_message(&mut it.turn, message);
        }
        moved
    }

    pub(crate) fn tell_ended(&mut self, shard: usize) -> bool {
        let it = &mut self.shards[shard];
        let mut moved = false;
        while it.turn.budget.stage_left() > Work(0)
            && let Some((slot, how)) = it.turn.ended.pop_front()
        {
            moved = true;
            it.turn.budget.spend(Work::MESSAGE.and(Work::CLOSE));
            it.server.on_closed(&mut it.turn, slot, how);
            it.turn.heard_end(slot);
        }
        moved
    }

    /// Flushes the outboxes and hands over what was posted.
    pub(crate) fn end_turn(&mut self, shard: usize) -> bool {
        let it = &mut self.shards[shard];
        let mut moved = false;
        let (links, trace) = (&mut self.links, &mut self.trace);
        it.turn.flush(|at, bytes| {
            moved = true;
            let link = &mut links[at];
            trace.add(&at.to_le_bytes());
            let Some(bytes) = bytes else { return };
            trace.add(bytes);
            if link.client_end != Some(Closed::ByError) {
                link.to_client.extend(bytes);
            }
        });
        for link in &mut self.links {
            if link.shard != shard || link.server_ended {
                continue;
            }
            let Some(slot) = link.slot else { continue };
            link.was_full |= it.turn.was_full(slot);
            link.server_ended = !it.turn.is_there(slot);
        }
        self.sends_highest = self.sends_highest.max(it.turn.sends);
        self.frames += it.turn.frames_sent as u64;
        self.posted += it.turn.posted.len() as u64;
        moved |= !it.turn.posted.is_empty();
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

    /// What closing connections still have to say goes out, as it would while the process ends.
    pub(crate) fn flush_closing(&mut self, shard: usize) {
        let (it, links) = (&mut self.shards[shard], &mut self.links);
        it.turn
            .flush_closing(|at, bytes| links[at].to_client.extend(bytes));
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
