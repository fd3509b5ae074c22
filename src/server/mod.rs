//! The server on one shard: joins connections, channels and users to the runtime.
//!
//! Owns: `ShardServer`, the application that `shards` runs, one value per shard.
//! May depend on: every pure room, `metrics::counters`, `bridge::{apps, message}`, and the runtime
//! through its `Turn` only, so that a simulator can take the runtime's place.
//! Invariants: a question about a channel, user, app or address goes to its home shard, a plain call
//! when that is this shard; a connection's input is held while it waits for an answer.
//!
//! A message's way: `receive` (bytes) -> `socket` (frames) -> `client_event` or `subscribe` ->
//! `home` (order, roster, last event) -> `fan_out` (subscribers). An API request: `receive` ->
//! `request` -> `api` -> `home` -> `fan_out`.

#![deny(
    clippy::let_underscore_must_use,
    reason = "an answer cannot be lost: what a send says is looked at"
)]

mod addresses;
mod answers;
mod api;
mod apps;
mod bodies;
mod body;
mod client_event;
mod close;
mod drain;
mod errands;
mod fan_out;
mod forwarded;
mod handover;
mod health;
mod home;
mod hooks;
mod kept;
mod largest;
mod latency;
mod leases;
mod listing;
mod lookups;
pub mod message;
mod nodes;
mod notices;
mod occupancy;
mod pressure;
mod proxy_header;
mod published;
mod quota;
mod reading;
mod reads;
mod receive;
mod replies;
mod request;
mod settings;
mod shared_rates;
mod sign_in;
mod slow;
mod socket;
mod socket_ids;
mod strangers;
mod subscribe;
mod topics;
mod unanswered;
mod upgrade;
mod users;
mod welcome;

use std::{collections::VecDeque, rc::Rc, sync::Arc};

use ahash::RandomState;
use shards::application::{Application, Closed, Lane, Millis, Peer, ShardId, Slot, Turn};

use self::{
    apps::{ShardApp, ShardApps},
    bodies::Bodies,
    close::Departing,
    drain::{Drain, Shed},
    errands::Errands,
    forwarded::ToldDoubts,
    handover::{Handover, Strays},
    health::Report,
    hooks::Owned,
    kept::KeptAsks,
    largest::Largest,
    latency::Latencies,
    leases::Leases,
    lookups::Lookups,
    message::{Leaving, Message},
    pressure::Pressure,
    published::Published,
    quota::{ADDRESSES_MAX, Quotas},
    reads::Reads,
    slow::SlowConsumers,
    socket_ids::SocketIds,
    topics::Topics,
};
pub use self::{occupancy::Occupancy, settings::Settings, socket_ids::SocketIdKey};
use crate::{
    bridge::{
        apps::AppTable,
        health::Health,
        message::{FromBridge, ToBridge},
    },
    channel::{
        home_effect::HomeEffect,
        home_table::{HomeTable, KeptMax},
        local::{LocalRef, LocalTable},
        names::NameHasher,
        user::UserTable,
    },
    connection::{
        row::{Connection, PeerKind, State},
        table::ConnectionTable,
        upgrade::Lookup,
    },
    http::api::ApiError,
    metrics::counters::ShardCounters,
};

/// What the runtime offers this application.
pub trait ServerTurn: Turn<Message = Message, ToBridge = ToBridge> {}

impl<T: Turn<Message = Message, ToBridge = ToBridge>> ServerTurn for T {}

/// What all shards of a node have in common.
#[derive(Clone)]
pub struct NodeSeed {
    pub settings: Settings,
    pub apps: Arc<AppTable>,
    /// Chooses the homes of addresses, and where names stand in tables; the same on all shards,
    /// unknown to clients.
    pub homes: RandomState,
    pub socket_ids: SocketIdKey,
}

/// All that a shard knows, as data: no socket, no thread, nothing that somebody else may change.
/// What is not in it belongs to the runtime: outboxes, timers, messages on their way.
#[derive(Clone)]
pub struct Snapshot(Box<ShardServer>);

/// The application of one shard.
#[derive(Clone)]
pub struct ShardServer {
    shard: ShardId,
    shards: u16,
    settings: Rc<Settings>,
    apps: ShardApps,
    lookups: Lookups,
    /// By slot index.
    connections: ConnectionTable,
    /// Those of them that hold a connection.
    connections_held: u64,
    locals: LocalTable,
    homes: HomeTable,
    users: UserTable,
    quotas: Quotas,
    counters: ShardCounters,
    /// Questions for `/usage` that the bridge has not answered: `USAGES_ASKED_MAX` at most.
    usages_asked: u32,
    socket_ids: SocketIds,
    address_hasher: RandomState,
    name_hasher: NameHasher,
    /// Ended subscriptions by home shard, sent once per turn or before anything else goes there.
    leaving: Vec<Vec<Leaving>>,
    topics: Topics,
    published: Published,
    kept_asks: KeptAsks,
    leases: Leases,
    owned: Owned,
    /// What the other nodes are to be told and met a full lane: the news that met it, and orders of the
    /// API, each of which is to be carried out.
    untold: VecDeque<ToBridge>,
    /// Channels with a fan-out under way, in the order of their next slice.
    jobs: VecDeque<LocalRef>,
    /// Connections whose held input waits for its share of a turn, each once.
    ready: VecDeque<Slot>,
    pressure: Pressure,
    /// Bytes of input held for peers that nobody has vouched for.
    input_held: u64,
    /// The row that was looked at last for who holds most of it.
    holder_next: usize,
    /// Under way, of requests whose heads are signed.
    bodies: Bodies,
    /// Work for many connections, first come first done.
    errands: Errands,
    reads: Reads,
    /// The largest channels are looked for.
    largest: Option<Largest>,
    /// The bridge is being told what is counted here.
    report: Option<Report>,
    /// Tells a channel's fan-outs of this turn from earlier ones.
    turn_number: u32,
    slow: SlowConsumers,
    latencies: Latencies,
    departing: Departing,
    effects: Vec<HomeEffect>,
    scratch: Vec<u8>,
    /// The data token of a client event, when its data is no string.
    token: Vec<u8>,
    health: Health,
    doubts: ToldDoubts,
    drain: Option<Drain>,
    shed: Option<Shed>,
    strays: Option<Strays>,
    handover: Handover,
    tick_at: Millis,
}

impl ShardServer {
    /// The application of a shard; `started` tells it how many there are.
    pub fn new(seed: &NodeSeed, shard: ShardId) -> Self {
        let settings = Rc::new(seed.settings.clone());
        Self {
            shard,
            shards: 1,
            apps: ShardApps::new(&seed.apps, &settings),
            lookups: Lookups::default(),
            quotas: Quotas::new(&settings, 1),
            settings,
            connections: ConnectionTable::default(),
            connections_held: 0,
            locals: LocalTable::default(),
            homes: HomeTable::new(seed.settings.kept_max),
            users: UserTable::default(),
            counters: ShardCounters::default(),
            usages_asked: 0,
            socket_ids: SocketIds::new(seed.socket_ids, shard),
            address_hasher: seed.homes.clone(),
            name_hasher: NameHasher::new(seed.homes.clone()),
            leaving: Vec::new(),
            topics: Topics::default(),
            published: Published::default(),
            kept_asks: KeptAsks::default(),
            leases: Leases::new(ADDRESSES_MAX),
            owned: Owned::default(),
            untold: VecDeque::new(),
            jobs: VecDeque::new(),
            ready: VecDeque::new(),
            pressure: Pressure::default(),
            input_held: 0,
            holder_next: 0,
            bodies: Bodies::default(),
            errands: Errands::default(),
            reads: Reads::default(),
            largest: None,
            report: None,
            turn_number: 1,
            slow: SlowConsumers::default(),
            latencies: Latencies::default(),
            departing: Departing::default(),
            effects: Vec::new(),
            scratch: Vec::new(),
            token: Vec::new(),
            health: Health::UNKNOWN,
            doubts: ToldDoubts::default(),
            drain: None,
            shed: None,
            strays: None,
            handover: Handover::default(),
            tick_at: Millis(0),
        }
    }

    /// The shard's whole state between two turns.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot(Box::new(self.clone()))
    }

    /// A shard that goes on where a snapshot was taken.
    pub fn restore(snapshot: Snapshot) -> Self {
        *snapshot.0
    }

    /// The row of a slot, if the slot still holds the connection that is meant.
    fn row(&mut self, slot: Slot) -> Option<&mut Connection> {
        let row = self.connections.get_mut(slot.index as usize)?;
        (row.generation == slot.generation && row.state != State::Vacant).then_some(row)
    }

    /// The app that an API path names; counted.
    fn app_by_id(&mut self, now: Millis, id: &str) -> Result<Rc<ShardApp>, ApiError> {
        let app = match self.look_up_id(now, id) {
            Lookup::Known(app) => Ok(Rc::clone(app)),
            Lookup::Absent => Err(ApiError::AppUnknown),
            Lookup::Unavailable => Err(ApiError::Unavailable),
        };
        self.counters.app_lookups[usize::from(app.is_err())] += 1;
        app
    }

    /// Something is to be looked at again, though nothing may come.
    fn wants_ticks(&self) -> bool {
        self.homes.next_due().is_some()
            || self.drain.is_some()
            || self.shed.is_some()
            || self.strays.is_some()
            || !self.untold.is_empty()
            || self.quotas.wants_tick()
            || self.topics.is_stuck()
            || !self.kept_asks.is_empty()
            || self.users.has_held()
    }

    /// Nobody waits for what the bridge was asked.
    fn is_answered(&self) -> bool {
        self.lookups.is_empty()
            && self.topics.joins() == 0
            && self.kept_asks.is_empty()
            && self.usages_asked == 0
            && self.leases.is_served()
    }

    /// The row of a slot that the caller knows to be there.
    fn held(&mut self, slot: Slot) -> &mut Connection {
        self.row(slot)
            .expect("the caller's slot holds a connection")
    }
}

impl Application for ShardServer {
    type Message = Message;
    type ToBridge = ToBridge;
    type FromBridge = FromBridge;

    fn lane(message: &ToBridge) -> Lane {
        message.lane()
    }

    fn on_started<T: ServerTurn>(&mut self, turn: &mut T) {
        assert_eq!(turn.shard(), self.shard);
        let shards = turn.shards();
        self.shards = shards;
        self.leaving.resize_with(usize::from(shards), Vec::new);
        let KeptMax { events, bytes } = self.settings.kept_max;
        let parts = usize::from(shards);
        self.homes = HomeTable::new(KeptMax {
            events: events.div_ceil(parts).max(1),
            bytes: bytes.div_ceil(parts),
        });
        self.quotas = Quotas::new(&self.settings, shards).with_nodes(self.settings.has_bus);
        if self.settings.has_bus {
            self.topics = Topics::new(shards);
            self.homes.tell_nodes();
            self.users.tell_nodes();
        }
    }

    fn on_accepted<T: ServerTurn>(&mut self, turn: &mut T, slot: Slot, peer: Peer) {
        let index = slot.index as usize;
        self.connections.grow_to(index);
        let within_ms = self.first_request_ms();
        let until = turn.now().plus(within_ms);
        let is_local = peer == Peer::Local;
        let peer = match peer {
            Peer::Address(address) => Some(PeerKind::Address(address.ip())),
            Peer::Local => Some(PeerKind::Local),
            Peer::Gone => None,
        };
        let state = self.state_of_newcomer(peer);
        let peer = peer.filter(|_| self.keeps_peers());
        self.connections[index] = Connection::accepted(slot, state, peer, until);
        self.connections_held += 1;
        turn.arm_timer(slot, until);
        // Who speaks for others on this host has dealt with their TLS.
        if state != State::ProxyHeader && !is_local {
            turn.begin_tls(slot, &[]);
        }
    }

    fn on_received<T: ServerTurn>(&mut self, turn: &mut T, slot: Slot, bytes: &mut [u8]) {
        self.receive(turn, slot, bytes);
    }

    fn on_peer_ended<T: ServerTurn>(&mut self, turn: &mut T, slot: Slot) {
        self.on_peer_end(turn, slot);
    }

    fn on_drained<T: ServerTurn>(&mut self, turn: &mut T, slot: Slot) {
        self.on_outbox_drained(turn, slot);
    }

    fn on_closed<T: ServerTurn>(&mut self, turn: &mut T, slot: Slot, how: Closed) {
        self.on_ended(turn, slot, how);
    }

    fn on_message<T: ServerTurn>(&mut self, turn: &mut T, from: ShardId, message: Message) {
        self.hear(turn, from, message);
    }

    fn on_bridge_message<T: ServerTurn>(&mut self, turn: &mut T, message: FromBridge) {
        self.hear_bridge(turn, message);
    }

    fn on_timer<T: ServerTurn>(&mut self, turn: &mut T, slot: Slot) {
        self.check_deadlines(turn, slot);
    }

    fn on_tick<T: ServerTurn>(&mut self, turn: &mut T) {
        self.tick_at = turn.now();
        self.settle_homes(turn);
        self.drain_some(turn);
        self.shed_some(turn);
        self.send_some_away(turn);
        self.settle_some(turn);
        self.quotas.forget_old(turn.now());
        self.quotas.tick();
        self.release_late_kept(turn);
        self.release_held_users(turn);
        turn.keep_ticking(self.wants_ticks());
    }

    fn is_settled(&self) -> bool {
        let is_done = self.jobs.is_empty()
            && self.errands.is_empty()
            && self.reads.is_empty()
            && self.departing.is_empty()
            && self.slow.is_empty()
            && self.untold.is_empty()
            && self.kept_asks.is_empty()
            && !self.has_news();
        is_done && (self.is_answered() || self.handover.gives_up_waiting())
    }

    fn on_turn_end<T: ServerTurn>(&mut self, turn: &mut T) -> bool {
        let is_frozen = turn.is_frozen();
        // Who comes last may find nothing left, so each comes first in its turn.
        for step in 0..7 {
            match self.turn_number.wrapping_add(step) % 7 {
                0 => self.continue_jobs(turn),
                // It goes on where the connections go on.
                1 if is_frozen => self.continue_export(turn),
                1 => self.continue_input(turn),
                2 => self.continue_errands(turn),
                3 => self.continue_departing(turn),
                4 => self.close_doomed(turn),
                5 => {
                    self.continue_topics(turn);
                    self.continue_kept(turn);
                    self.continue_news(turn);
                }
                _ if is_frozen => self.release_kept_at_rest(turn),
                _ => {
                    self.settle_homes(turn);
                    self.continue_drain(turn);
                    self.search_unanswered(turn);
                    self.continue_strays(turn);
                }
            }
        }
        // What was waited for may have gone in this turn.
        self.list_reads();
        self.post_leaving(turn);
        self.count_latencies(turn);
        turn.keep_ticking(self.wants_ticks());
        self.turn_number = self.turn_number.wrapping_add(1);
        self.handover.turns(turn.now(), is_frozen);
        // Who waits for the bridge is looked at until that has taken long enough.
        let waits = || {
            let gives_up = self.handover.gives_up_waiting() && self.kept_asks.is_empty();
            !self.is_answered() && !gives_up
        };
        if is_frozen && (waits() || self.handover.is_exporting()) {
            return true;
        }
        let has_input = !is_frozen && !self.ready.is_empty();
        let owes = self.owes_drain() || self.searches_unanswered() || self.owes_strays();
        let is_due = !is_frozen && (owes || self.homes_are_due(turn.now()));
        !self.jobs.is_empty()
            || has_input
            || !self.errands.is_empty()
            || !self.departing.is_empty()
            || !self.slow.is_empty()
            || self.topics.has_ready()
            || self.kept_asks.has_ready()
            || self.has_news()
            || is_due
    }
}
