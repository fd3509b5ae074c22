//! Data path. A shard's loop: turn, and park when there is nothing to do.
//!
//! Owns: the order of a turn's steps; the calls of the application; parking; stopping.
//! May depend on: `turn` and what it holds, glommio.
//! Invariants: the application is called from here only, one call at a time; a shard parks only
//! after it has looked at every queue since it said that it would.

use crate::{
    application::{Application, Millis, Peer, ShardId},
    bridge::{Orders, Pulse},
    connections::{Flag, State},
    doorbell::Doorbell,
    mesh::Envelope,
    ring::{Completion, Kind},
    settling::Record,
    timers::TICK_MS,
    turn::RingTurn,
    work::Work,
};
use std::{
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// What each stage of a turn keeps of the turn's budget for those behind it, percent.
const KEPT_AFTER_COMPLETIONS: u32 = 50;
const KEPT_AFTER_NEWCOMERS: u32 = 45;
const KEPT_AFTER_DRAINED: u32 = 45;
const KEPT_AFTER_MESSAGES: u32 = 35;
const KEPT_AFTER_BRIDGE: u32 = 30;
const KEPT_AFTER_TIMERS: u32 = 25;
const KEPT_AFTER_HANDSHAKES: u32 = 15;
/// Of a turn, for handshakes of TLS, percent: one of them is longer than most turns, and who is there already
/// waits for the turn's end.
const FOR_HANDSHAKES: u32 = 20;
/// For what is left over of the turn's ends.
const KEPT_AFTER_LAST_CALL: u32 = 6;
/// Messages taken from one peer before the next has its turn.
const MESSAGES_PER_ROUND: usize = 64;
/// A count that moved by this much is told to the peers at once, not with the next tick, so that
/// a burst of accepts is not taken for an imbalance.
const GOSSIP_STEP: u32 = 16;
/// For how long a stopping shard waits for its last completions.
const STOP_NS: u64 = 5_000_000_000;

/// Who a connection comes from; one that has ended already has nobody any more.
fn peer_of(connection: &OwnedFd) -> Peer {
    let socket = socket2::SockRef::from(connection);
    let address = socket.peer_addr().ok().and_then(|it| it.as_socket());
    let is_local = || socket.local_addr().is_ok_and(|ours| ours.is_unix());
    match address {
        Some(address) => Peer::Address(address),
        None if is_local() => Peer::Local,
        None => Peer::Gone,
    }
}

/// One shard: the application and what it runs on.
pub(crate) struct Shard<A: Application> {
    pub(crate) application: A,
    pub(crate) turn: RingTurn<A>,
    bell: Arc<Doorbell>,
    pub(crate) orders: Arc<Orders>,
    heartbeat: Arc<AtomicU64>,
    pub(crate) record: Arc<Record>,
    /// When this shard began to stop.
    stopping_since_ns: Option<u64>,
    busy_poll_ns: u64,
    last_moved_ns: u64,
}

impl<A: Application> Shard<A> {
    pub(crate) fn new(
        application: A,
        turn: RingTurn<A>,
        bell: Arc<Doorbell>,
        orders: Arc<Orders>,
        pulse: Pulse,
        busy_poll_us: u32,
    ) -> Self {
        Self {
            application,
            turn,
            bell,
            orders,
            heartbeat: pulse.turned_at,
            record: pulse.record,
            stopping_since_ns: None,
            busy_poll_ns: u64::from(busy_poll_us) * 1_000,
            last_moved_ns: 0,
        }
    }

    /// Tells the application and begins to accept.
    pub(crate) fn start(&mut self) {
        self.heartbeat
            .store(self.turn.clock.now.0.max(1), Ordering::Relaxed);
        self.application.on_started(&mut self.turn);
        self.turn.wire.hear_bell(self.bell.fd());
        self.begin_accepting();
    }

    /// Turns until the shard is told to stop and has stopped.
    pub(crate) async fn run(mut self) {
        loop {
            let has_more = self.take_turn();
            if self.has_stopped() {
                break;
            }
            if !has_more && !self.polls_on() {
                self.park();
            }
            // The executor's other tasks, if it has any, run between turns.
            glommio::yield_if_needed().await;
        }
    }

    /// The listeners listen, and nothing was armed on them yet that may be.
    fn may_begin_accepting(&self) -> bool {
        let turn = &self.turn;
        turn.inbound.waits() && !turn.frost.is_frozen() && self.orders.accept.load(Ordering::SeqCst)
    }

    /// Accepts as soon as the listeners listen.
    fn begin_accepting(&mut self) {
        if self.may_begin_accepting() {
            self.turn.inbound.waits_no_longer();
            self.turn.arm_accepts();
        }
    }

    /// One turn. Returns true when more is left to do at once.
    fn take_turn(&mut self) -> bool {
        // Also with completions left over: those of others must not wait until the last of them is
        // dealt with. A flush has entered the ring already.
        self.turn.wire.fetch();
        self.begin_turn();
        self.turn.budget.begin_stage(KEPT_AFTER_COMPLETIONS);
        let mut has_moved = self.take_completions();
        self.turn.budget.begin_stage(KEPT_AFTER_NEWCOMERS);
        has_moved |= self.take_newcomers();
        self.turn.budget.begin_stage(KEPT_AFTER_DRAINED);
        has_moved |= self.tell_drained();
        self.turn.budget.begin_stage(KEPT_AFTER_MESSAGES);
        has_moved |= self.take_messages();
        self.turn.budget.begin_stage(KEPT_AFTER_BRIDGE);
        has_moved |= self.take_from_bridge();
        self.turn.budget.begin_stage(KEPT_AFTER_TIMERS);
        has_moved |= self.fire_timers();
        self.turn.budget.begin_stage(KEPT_AFTER_HANDSHAKES);
        self.turn.budget.limit_stage(FOR_HANDSHAKES);
        has_moved |= self.take_handshakes();
        self.tick();
        self.turn.budget.begin_stage(KEPT_AFTER_LAST_CALL);
        let has_more = self.application.on_turn_end(&mut self.turn);
        self.turn.budget.begin_stage(0);
        has_moved |= self.tell_ended();
        // What the flush reaps has only just come.
        let is_cut = has_more || self.turn.has_left_over();
        self.turn.counts.turns_cut += u64::from(is_cut);
        let is_left_over = self.end_turn();
        self.answer_order(has_more);
        self.turn.count_turn();
        if has_moved {
            self.last_moved_ns = self.turn.clock.now_ns;
        }
        has_more || is_left_over
    }

    fn begin_turn(&mut self) {
        self.turn.clock.read();
        self.turn.budget.refill();
        let now = self.turn.clock.now;
        if now.0 >= self.heartbeat.load(Ordering::Relaxed) + TICK_MS {
            self.heartbeat.store(now.0, Ordering::Relaxed);
        }
        self.take_order();
        self.begin_accepting();
        if self.turn.inbound.is_accepting() && self.orders.stop_accepting.load(Ordering::Relaxed) {
            self.turn.stop_accepting();
        }
        if self.stopping_since_ns.is_none() && self.orders.stop.load(Ordering::Relaxed) {
            self.stopping_since_ns = Some(self.turn.clock.now_ns);
            self.turn.stop_accepting();
            self.end_all();
        }
        self.turn.rest_if_refused();
        let may_arm = !self.turn.inbound.waits() && !self.turn.frost.is_frozen();
        if may_arm && self.turn.inbound.rests_until().is_some_and(|at| at <= now) {
            self.turn.arm_accepts();
        }
    }

    /// Publishes, sends, wakes. Returns true if something is left over for the next turn; what
    /// waits in the queues between threads is for `park` to find.
    fn end_turn(&mut self) -> bool {
        let turn = &mut self.turn;
        turn.mesh.deliver_spilled();
        turn.mesh.balance_holds();
        if !turn.frost.is_frozen() {
            turn.mesh.gossip(turn.rows.open(), GOSSIP_STEP);
        }
        turn.mesh.ring_peers();
        turn.link.notify();
        turn.count_holding();
        turn.wire.publish_buffers();
        let may_read = !turn.mesh.holds_reading();
        if may_read {
            turn.feed_starved();
        }
        turn.flush();
        turn.frames.end_turn();
        turn.has_left_over()
            || turn.frost.walks()
            || (turn.outbound.has_listed() && !turn.frost.is_still())
            || turn.wire.sessions.has_ready()
            || (may_read && (turn.inbound.has_held() || turn.inbound.has_starved()))
    }

    fn take_completions(&mut self) -> bool {
        let mut has_moved = false;
        while self.has_work_left()
            && !self.turn.mesh.holds_reading()
            && let Some(completion) = self.turn.inbound.take_held()
        {
            self.on_receive(completion);
            has_moved = true;
        }
        // What arrives meanwhile waits for the next turn.
        for _ in 0..self.turn.wire.arrived() {
            if !self.has_work_left() {
                break;
            }
            let Some(completion) = self.turn.wire.take_arrived() else {
                break;
            };
            has_moved = true;
            // Behind others that are kept back, a receive is kept back too: order per connection.
            let is_held = self.turn.mesh.holds_reading() || self.turn.inbound.has_held();
            match completion.token.kind() {
                Kind::Recv if is_held => self.turn.inbound.hold(completion),
                Kind::Recv if self.turn.is_busy(completion.token.index()) => {
                    self.turn.inbound.queue_busy(completion);
                }
                Kind::Recv => self.on_receive(completion),
                // Thousands may come at once: who is here already comes first.
                Kind::Accept => self.turn.inbound.queue_newcomer(completion),
                Kind::Writable => self.turn.has_room(completion),
                Kind::Deadline => self.turn.wire.deadline_passed(),
                Kind::Wake => self.woken(completion),
                Kind::Cancel => {}
                Kind::Send => unreachable!("sends are reaped by the flush that began them"),
            }
        }
        has_moved |= self.take_busy();
        has_moved | self.tell_ended()
    }

    /// Receives of those who have cost much lately: after everybody else's, one each, then as many as the
    /// stage pays for. So one who floods waits for the others, and not they for it.
    fn take_busy(&mut self) -> bool {
        let mut has_moved = false;
        while self.has_work_left()
            && !self.turn.mesh.holds_reading()
            && let Some(completion) = self.turn.inbound.take_busy()
        {
            let row = self.turn.rows.row(completion.token.index());
            if row.received_in == self.turn.number() {
                self.turn.inbound.queue_served(completion);
            } else {
                self.on_receive(completion);
                has_moved = true;
            }
        }
        while self.has_work_left()
            && !self.turn.mesh.holds_reading()
            && let Some(completion) = self.turn.inbound.take_served()
        {
            self.on_receive(completion);
            has_moved = true;
        }
        let turn = &mut self.turn;
        let is_held = turn.mesh.holds_reading() || turn.inbound.has_held();
        // What came later of the same connections is there already.
        turn.inbound.put_back_busy(&mut turn.wire, is_held);
        has_moved
    }

    pub(crate) fn has_work_left(&self) -> bool {
        self.turn.budget.stage_left() > Work(0)
    }

    fn woken(&mut self, completion: Completion) {
        if !completion.goes_on() {
            self.turn.wire.hear_bell(self.bell.fd());
        }
    }

    fn on_receive(&mut self, completion: Completion) {
        self.turn.frost.told += 1;
        let index = completion.token.index();
        let slot = self.turn.rows.slot(index);
        assert!(completion.token.is_of(slot.generation));
        let bytes = completion.result.max(0) as usize;
        let spent_before = self.turn.budget.spent();
        self.turn
            .budget
            .spend(Work::RECEIVE.and(Work::bytes(bytes)));
        if let Some(mut filled) = self.turn.wire.take_bytes(completion) {
            if completion.result > 0 && self.turn.rows.row(index).state == State::Open {
                if self.turn.rows.row(index).is(Flag::TLS) {
                    self.receive_sealed(slot, filled.bytes());
                } else {
                    self.application
                        .on_received(&mut self.turn, slot, filled.bytes());
                }
            }
            self.turn.wire.give_back(filled);
        }
        self.turn.count_receive(index, bytes, spent_before);
        if self.turn.recv_went_on(completion) {
            if self.turn.rows.row(index).is(Flag::TLS) {
                self.turn.wire.sessions.counts.truncated += 1;
                self.peer_ended_sealed(slot);
                return;
            }
            self.application.on_peer_ended(&mut self.turn, slot);
        }
    }

    /// Connections that were accepted, in their order; the rest of them in the next turns.
    fn take_newcomers(&mut self) -> bool {
        let mut has_moved = false;
        while self.has_work_left()
            && let Some(completion) = self.turn.inbound.take_newcomer()
        {
            self.accepted(completion);
            has_moved = true;
        }
        has_moved
    }

    fn accepted(&mut self, completion: Completion) {
        if let Some(connection) = self.turn.accepted(completion) {
            self.adopt(connection);
        }
        self.turn.close_idle_listeners();
    }

    fn adopt(&mut self, connection: OwnedFd) {
        if self.stopping_since_ns.is_some() {
            return;
        }
        let peer = peer_of(&connection);
        let slot = self.turn.adopt(connection);
        self.turn.frost.told += 1;
        // Within a turn too: it may accept thousands.
        if !self.turn.frost.is_frozen() {
            self.turn.mesh.gossip(self.turn.rows.open(), GOSSIP_STEP);
        }
        self.application.on_accepted(&mut self.turn, slot, peer);
    }

    /// Takes a round of each peer's messages after the other, the first peer another each turn.
    fn take_messages(&mut self) -> bool {
        let shards = self.turn.mesh.shards();
        let mut has_moved = false;
        let first = self.turn.counts.turns % u64::from(shards);
        let mut next = u16::try_from(first).expect("below the number of shards");
        let mut idle = 0;
        while idle < shards && self.has_work_left() {
            let from = ShardId(next);
            next = (next + 1) % shards;
            if self.take_messages_of(from) {
                (idle, has_moved) = (0, true);
            } else {
                idle += 1;
            }
        }
        has_moved
    }

    fn take_messages_of(&mut self, from: ShardId) -> bool {
        let mut taken = 0;
        while taken < MESSAGES_PER_ROUND
            && self.has_work_left()
            && let Some(envelope) = self.turn.mesh.receive(from)
        {
            taken += 1;
            self.turn.frost.told += 1;
            self.turn.budget.spend(Work::MESSAGE);
            match envelope {
                Envelope::Message(message) => {
                    self.application.on_message(&mut self.turn, from, message);
                }
                Envelope::Connection(connection) => self.adopt(connection),
                Envelope::Sent(sent_ns) => self.turn.count_hop(sent_ns),
                Envelope::Count(_) | Envelope::Hold | Envelope::Release => {}
            }
        }
        if taken > 0 {
            self.turn.mesh.received_from(from);
        }
        taken > 0
    }

    fn take_from_bridge(&mut self) -> bool {
        let mut has_moved = false;
        while self.has_work_left()
            && !self.turn.mesh.holds_reading()
            && let Some(message) = self.turn.link.receive()
        {
            has_moved = true;
            self.turn.frost.told += 1;
            self.turn.budget.spend(Work::MESSAGE);
            self.application.on_bridge_message(&mut self.turn, message);
        }
        has_moved
    }

    /// Tells the application which outboxes have drained.
    fn tell_drained(&mut self) -> bool {
        let mut has_moved = false;
        while self.has_work_left()
            && let Some(slot) = self.turn.outbound.take_drained()
        {
            has_moved = true;
            self.turn.frost.told += 1;
            self.turn.budget.spend(Work::MESSAGE);
            if self.turn.rows.open_row(slot).is_some() {
                self.application.on_drained(&mut self.turn, slot);
            }
        }
        has_moved
    }

    fn fire_timers(&mut self) -> bool {
        if self.turn.frost.is_frozen() {
            return false;
        }
        self.turn.rows.advance(self.turn.clock.now);
        let mut has_moved = false;
        while self.has_work_left()
            && let Some(index) = self.turn.rows.take_fired()
        {
            has_moved = true;
            self.turn.budget.spend(Work::TIMER);
            match self.turn.rows.row(index).state {
                State::Open => {
                    let slot = self.turn.rows.slot(index);
                    self.application.on_timer(&mut self.turn, slot);
                }
                // The closing connection's own deadline.
                State::Flushing | State::Lingering => {
                    self.turn.end_now(index, crate::application::Closed::ByUs);
                }
                State::Ending | State::Free => {}
            }
        }
        has_moved
    }

    fn tick(&mut self) {
        let now = self.turn.clock.now;
        if now < self.turn.tick_at || self.turn.frost.is_frozen() {
            return;
        }
        self.turn.tick_at = now.plus(TICK_MS);
        let count = self.turn.rows.open();
        self.turn.mesh.gossip(count, 1);
        self.turn.sweep_lagging();
        self.application.on_tick(&mut self.turn);
    }

    /// Tells the application which connections ended.
    fn tell_ended(&mut self) -> bool {
        let mut has_moved = false;
        while self.has_work_left()
            && let Some(ended) = self.turn.rows.take_ended()
        {
            has_moved = true;
            self.turn.frost.told += 1;
            self.turn.budget.spend(Work::MESSAGE);
            self.application
                .on_closed(&mut self.turn, ended.slot, ended.how);
            self.turn.told(ended.slot.index);
        }
        has_moved
    }

    fn end_all(&mut self) {
        for index in self.turn.rows.used_rows() {
            self.turn.end_now(index, crate::application::Closed::ByUs);
        }
    }

    fn has_stopped(&self) -> bool {
        let Some(since) = self.stopping_since_ns else {
            return false;
        };
        let is_empty = self.turn.rows.used() == 0 && self.turn.inbound.has_closed();
        let is_late = self.turn.clock.now_ns > since + STOP_NS;
        if is_late && !is_empty {
            let connections = self.turn.rows.used();
            tracing::warn!(
                shard = self.turn.shard.0,
                connections,
                "stopped with work in flight"
            );
        }
        is_empty || is_late
    }

    /// True while the configured spin after the last movement lasts.
    fn polls_on(&self) -> bool {
        self.busy_poll_ns > 0 && self.turn.clock.now_ns < self.last_moved_ns + self.busy_poll_ns
    }

    /// The starting thread or the bridge wants something that was not done yet.
    fn has_orders(&self) -> bool {
        let orders = &self.orders;
        self.has_order()
            || self.may_begin_accepting()
            || (self.turn.inbound.is_accepting() && orders.stop_accepting.load(Ordering::Relaxed))
            || (self.stopping_since_ns.is_none() && orders.stop.load(Ordering::Relaxed))
    }

    /// Waits for a completion, a bell or a deadline, unless there is news already.
    // One system call, in our own ring: waiting on an eventfd through the executor's reactor cost
    // ten (three rings flushed, timers moved, a membarrier) and 48 us per wake-up.
    fn park(&mut self) {
        let turn = &mut self.turn;
        if let Some(at) = next_wake(turn, self.stopping_since_ns) {
            let now_ns = turn.clock.ns();
            if at.0 * 1_000_000 <= now_ns {
                return;
            }
            turn.wire.arm_deadline(now_ns, at.0 * 1_000_000);
        }
        self.bell.park();
        let has_orders = self.has_orders();
        let turn = &mut self.turn;
        let holds = turn.mesh.holds_reading();
        let has_news = has_orders
            || turn.wire.arrived() > 0
            || turn.mesh.has_incoming()
            || (!holds && turn.link.has_incoming())
            || turn.mesh.deliver_spilled()
            || turn.link.lanes.send_spilled();
        if !has_news {
            turn.wire.wait();
        }
        self.bell.unpark();
    }
}

/// When the shard must turn next, though nothing happens.
fn next_wake<A: Application>(turn: &RingTurn<A>, stopping_since_ns: Option<u64>) -> Option<Millis> {
    let stop_at = stopping_since_ns.map(|since| Millis((since + STOP_NS) / 1_000_000 + 1));
    if turn.frost.is_frozen() {
        let both = [stop_at, turn.looks_again_at()];
        return both.into_iter().flatten().min();
    }
    let ticks = turn.keeps_ticking
        || turn.mesh.owes_gossip(turn.rows.open())
        || turn.outbound.has_lagging();
    let tick_at = ticks.then_some(turn.tick_at);
    let all = [
        turn.rows.next_timer_at(),
        tick_at,
        turn.inbound.rests_until(),
        stop_at,
    ];
    all.into_iter().flatten().min()
}
