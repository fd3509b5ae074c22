//! Data path. A node among the others: batches in, batches and effects out.
//!
//! Owns: `Node`, what it keeps of each peer, when it speaks. What it does with a batch is in `hearing`.
//! May depend on: the rest of `cluster`, `protocol::{partition, socket_id}`, `Millis`. Time is an
//! argument, and nothing is left to chance: tokens are counted.
//! Invariants: each peer that membership knows has a row.

mod carrying;
mod hearing;

use std::collections::BTreeMap;

use ahash::RandomState;
use shards::application::Millis;

use super::{
    canary::{CANARIES_MISSED, Canaries},
    drafts::Drafts,
    entry::{Entry, Event, EventId, Heartbeat, Hello, Kept, KeptAsk, Origin, Spent, Token},
    field::NAME_BYTES_MAX,
    figures::{BusState, ByKind, Counters, Echoes, Peer, PeerCounters, RoadState},
    holdings::{Departure, ViewChange},
    identity::{ClusterTag, Identity, NodeId},
    ledger::Own,
    mac::Secrets,
    membership::{self, Membership, PEERS_MAX, Reason, Times, Verdict},
    replay::LanesHeard,
    retelling::Retold,
    start::{Name, Start},
    state::{State, StateCounters},
    tallies::{Gone, Tally},
    topic::{Road, Topic},
    wire::{Batch, BatchError, Entries, Header, PushError, Version},
};
use crate::protocol::{partition::Partition, socket_id::SocketId};

/// What a node is told before it starts.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Of this life; its node is that of the name.
    pub identity: Identity,
    /// `cluster.node_id`, of at most `NAME_BYTES_MAX`.
    pub name: String,
    /// The version of the program.
    pub program: String,
    pub cluster: ClusterTag,
    pub secrets: Secrets,
    /// What it speaks. A test may let it speak a later one: each batch then begins with an entry that
    /// nobody knows.
    pub version: Version,
    pub times: Times,
    /// Keys the look-up of names, which strangers choose.
    pub hasher: RandomState,
    /// Bytes that what the peers hold may take here. What is beyond is not kept, and counted.
    pub view_bytes_max: usize,
}

/// An event for the other nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outgoing<'a> {
    pub partition: Partition,
    pub app: &'a str,
    pub channel: &'a str,
    pub origin: Origin,
    /// The connection that does not get it.
    pub except: Option<SocketId>,
    /// The WebSocket frame, as clients get it.
    pub frame: &'a [u8],
}

/// What was heard, in this order.
#[derive(Clone, Copy, Debug)]
pub enum Heard<'a> {
    Event(Event<'a>),
    /// What all peers together hold has changed.
    View(ViewChange<'a>),
    /// All connections of the user are to be closed.
    Terminate {
        app: &'a str,
        user_id: &'a str,
    },
    /// Another node has used some of an app's rates.
    Spent(Spent<'a>),
    /// Another node asks for a channel's last event, which this one keeps.
    KeptAsk {
        app: &'a str,
        channel: &'a str,
    },
    /// A channel's last event, which somebody has asked for.
    Kept(Kept<'a>),
}

/// What a step means for the caller, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    Peer(membership::Effect),
    /// A peer said its name and its version, for the first time or others than before.
    Introduced(Identity),
    /// What this node sends itself on the road does not come back in time.
    Late(Road),
    /// It does again.
    InTime(Road),
    /// An operator has told a peer that apps have changed in the store that all ask.
    AppsChanged,
    /// Another node lives under this one's name: this one must not start. Told while it starts.
    NameTaken,
}

/// This node, as the cluster's protocol has it.
#[derive(Debug)]
pub struct Node {
    setup: Setup,
    membership: Membership,
    /// `None`: it has started.
    start: Option<Start>,
    /// By node; at most as many as membership knows.
    rows: BTreeMap<NodeId, Row>,
    drafts: Drafts,
    state: State,
    /// On the road of events. Those of the other road are membership's.
    echoes: Canaries,
    bus: BusState,
    /// WebSocket connections of this node.
    connections: u64,
    is_founded: bool,
    /// Given so far.
    event_ids: u64,
    tokens: u64,
    heartbeats: u64,
    heartbeat_at: Millis,
    canary_at: Millis,
    ticked_at: Millis,
    /// Somebody may not know this node's name.
    owes_hello: bool,
    /// Said goodbye.
    has_left: bool,
    counters: Counters,
}

/// What is kept of one life of a peer.
#[derive(Debug)]
struct Row {
    identity: Identity,
    /// From then on its numbers are remembered.
    since: Millis,
    /// Both of at most `NAME_BYTES_MAX`.
    name: Box<str>,
    program: Box<str>,
    version: Version,
    connections: Option<u64>,
    founded_at: Option<Millis>,
    lanes: LanesHeard,
    /// It said goodbye; what was on its way is taken for one lease.
    left_at: Option<Millis>,
    counters: PeerCounters,
}

impl Node {
    /// Of a node that starts now and knows nobody. Asserts that name and identity belong together.
    pub fn new(now: Millis, setup: Setup) -> Self {
        assert_eq!(setup.identity.node, NodeId::of_name(&setup.name));
        assert!(setup.name.len() <= NAME_BYTES_MAX);
        assert!(setup.program.len() <= NAME_BYTES_MAX);
        let (identity, times) = (setup.identity, setup.times);
        Self {
            membership: Membership::new(now, identity, times),
            start: None,
            rows: BTreeMap::new(),
            drafts: Drafts::new(identity, setup.cluster, setup.secrets.clone())
                .speaking(setup.version),
            state: State::new(
                identity,
                times.lease_ms,
                &setup.hasher,
                setup.view_bytes_max,
            ),
            echoes: Canaries::new(now, CANARIES_MISSED * times.canary_ms),
            bus: BusState::default(),
            connections: 0,
            is_founded: false,
            event_ids: 0,
            tokens: 0,
            heartbeats: 0,
            heartbeat_at: now,
            canary_at: now,
            ticked_at: now,
            owes_hello: true,
            has_left: false,
            counters: Counters::default(),
            setup,
        }
    }

    /// Like `new`, of a node that speaks only when it hears the others too, and, where its name was
    /// given, has made sure that no other lives under it. Until then what it has to say waits.
    pub fn listening(now: Millis, setup: Setup, name: Name) -> Self {
        let Setup {
            identity,
            cluster,
            times,
            ..
        } = setup;
        let secrets = setup.secrets.clone();
        let start = Start::new(identity, cluster, secrets, times.heartbeat_ms, name);
        Self {
            start: Some(start),
            ..Self::new(now, setup)
        }
    }

    /// False as long as the others do not hear of it.
    pub fn has_started(&self) -> bool {
        self.start.is_none()
    }

    /// It neither hears nor speaks, since it has not begun to listen.
    pub fn is_outside(&self) -> bool {
        self.start.as_ref().is_some_and(|it| !it.is_listening())
    }

    /// All topics of nodes are live, or not any more.
    pub fn listens(&mut self, now: Millis, does: bool) {
        if let Some(start) = &mut self.start {
            start.listens(now, does);
        }
    }

    /// Whether all that the others say of themselves is subscribed to, once it has been.
    pub fn hears_peers(&mut self, does: bool) {
        self.membership.hears_peers(does);
    }

    /// Tells the others that apps have changed in the store that all ask. False where there is no room.
    pub fn tell_apps_changed(&mut self) -> bool {
        let has_say = self.has_started() && !self.has_left;
        has_say && self.drafts.push(Topic::Nodes, &Entry::AppsChanged).is_ok()
    }

    /// So much waits that nothing more is taken until `take_batches`.
    pub fn is_full(&self) -> bool {
        self.drafts.is_full()
    }

    /// Takes an event to tell the others. `BatchFull`: so much waits that it is to be taken first.
    // Per event: one index by lane, the lengths added up, one copy.
    pub fn publish(&mut self, event: &Outgoing<'_>) -> Result<(), PushError> {
        let entry = Entry::Event(Event {
            id: EventId(self.event_ids + 1),
            partition: event.partition,
            app: event.app,
            channel: event.channel,
            origin: event.origin,
            except: event.except,
            frame: event.frame,
        });
        self.drafts.push(Topic::Events(event.partition), &entry)?;
        self.event_ids += 1;
        self.counters.events_published += 1;
        Ok(())
    }

    /// Takes a change of the own state. It is told in `take_batches`, or, a count that was told a moment
    /// ago, after a `tick`.
    pub fn report(&mut self, now: Millis, own: &Own<'_>) {
        if !self.has_left {
            self.state.report(now, own, &mut self.drafts);
        }
    }

    /// Has the connections of a user closed on all other nodes.
    pub fn terminate(&mut self, app: &str, user_id: &str) -> Result<(), PushError> {
        let entry = Entry::Terminate { app, user_id };
        self.drafts.push(Topic::Nodes, &entry)
    }

    /// Tells all other nodes what this one has used of an app's rates.
    pub fn spend(&mut self, spent: Spent<'_>) -> Result<(), PushError> {
        self.drafts.push(Topic::Nodes, &Entry::Spent(spent))
    }

    /// Asks nodes that keep the channel's last event for it, so many at most. How many there are.
    pub fn ask_kept(
        &mut self,
        partition: Partition,
        app: &str,
        channel: &str,
        count_max: usize,
    ) -> usize {
        let keepers = self.state.keepers(partition, app, channel, count_max);
        for of in &keepers {
            let of = *of;
            self.say(Topic::Nodes, &Entry::KeptAsk(KeptAsk { of, app, channel }));
        }
        keepers.len()
    }

    /// Answers whoever asked for a channel's last event.
    pub fn answer_kept(&mut self, kept: Kept<'_>) -> Result<(), PushError> {
        self.drafts
            .push(Topic::Events(kept.partition), &Entry::Kept(kept))
    }

    /// An app has become known here: `next_views` tells what the others have of it.
    pub fn app_came(&mut self, app: &str) {
        self.state.retell(app, Retold::All);
    }

    /// An app is known here no more: `next_views` tells that the others have nothing of it.
    pub fn app_went(&mut self, app: &str) {
        self.state.retell(app, Retold::Nothing);
    }

    /// Goes on with what is long, the end of a peer or a snapshot, looking at no more than `limit` rows.
    /// True: more is left.
    pub fn next_views(&mut self, limit: usize, mut take: impl FnMut(ViewChange<'_>)) -> bool {
        self.state.work(limit, &mut take)
    }

    /// Hands out what waits: one batch per topic, more if one is full, in the order of the topics'
    /// first entries.
    pub fn take_batches(&mut self, mut put: impl FnMut(Topic, Vec<u8>)) {
        if let Some(start) = &mut self.start {
            return start.take_probes(put);
        }
        let sent = &mut self.counters.batches_sent;
        self.drafts.take(|topic, bytes| {
            *sent += 1;
            put(topic, bytes);
        });
    }

    /// Follows membership.
    fn apply(&mut self, now: Millis, changes: &[membership::Effect], effects: &mut Vec<Effect>) {
        for change in changes {
            match *change {
                membership::Effect::Joined(peer) => self.apply_join(now, peer),
                membership::Effect::Restarted { old, new } => {
                    self.state.leave(old, Departure::Told);
                    let name = self.rows.get(&old.node).map_or("", |row| &row.name);
                    self.state.tallies_mut().went(old.node, name, Gone::Goodbye);
                    self.apply_join(now, new);
                }
                membership::Effect::Expelled(peer, Reason::LeaseRanOut) => {
                    let row = self.rows.remove(&peer.node);
                    let row = row.filter(|row| row.identity == peer);
                    let name = row.expect("who joined has a row").name;
                    self.state.leave(peer, Departure::LeaseRanOut);
                    let gone = Gone::Expired { at: now };
                    self.state.tallies_mut().went(peer.node, &name, gone);
                }
                membership::Effect::Expelled(peer, Reason::Goodbye) => {
                    let row = self.rows.get_mut(&peer.node);
                    let row = row.expect("who joined has a row");
                    row.left_at = Some(now);
                    let tallies = self.state.tallies_mut();
                    tallies.went(peer.node, &row.name, Gone::Goodbye);
                    self.state.leave(peer, Departure::Told);
                }
                membership::Effect::Conflict(_)
                | membership::Effect::Stale
                | membership::Effect::Fresh => {}
            }
            effects.push(Effect::Peer(*change));
        }
        assert!(self.rows.len() <= PEERS_MAX);
    }

    fn apply_join(&mut self, now: Millis, peer: Identity) {
        self.rows.insert(peer.node, Row::new(now, peer));
        self.state.join(peer);
        self.state.tallies_mut().came(peer.node);
        self.owes_hello = true;
    }

    /// The topic was left, or is live again: what passes in between is no loss, also behind what was left over.
    pub fn forget_lane(&mut self, topic: Topic) {
        for row in self.rows.values_mut() {
            row.lanes.break_off(topic.lane());
        }
    }

    /// Time went on: at `next_tick` at the latest, after what waited on the bus was heard.
    pub fn tick(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        self.ticked_at = now;
        if self.start.take_if(|start| start.is_over(now)).is_some() {
            self.heartbeat_at = now;
        }
        match self.start {
            _ if self.has_left => {}
            Some(_) => self.tick_probe(now),
            None => {
                self.state.tick(now, &mut self.drafts);
                self.tick_speak(now);
            }
        }
        let mut changes = Vec::new();
        self.membership.tick(now, &mut changes);
        self.apply(now, &changes, effects);
        self.counters.membership = self.membership.counters();
        self.tick_watch(now, effects);
        let lease_ms = self.setup.times.lease_ms;
        self.rows.retain(|_, row| {
            let left_at = row.left_at;
            left_at.is_none_or(|left_at| now.since(left_at) < lease_ms)
        });
    }

    /// Says to others of its name, if there are any, that it would start.
    fn tick_probe(&mut self, now: Millis) {
        let heartbeat_ms = self.setup.times.heartbeat_ms;
        if let Some(start) = &mut self.start
            && start.is_listening()
            && now >= self.heartbeat_at
        {
            self.heartbeat_at = following(self.heartbeat_at, heartbeat_ms, now);
            self.tokens += 1;
            start.probe(Token(self.tokens));
        }
    }

    /// Says what is due.
    fn tick_speak(&mut self, now: Millis) {
        let Times {
            heartbeat_ms,
            canary_ms,
            ..
        } = self.setup.times;
        let is_heartbeat_due = now >= self.heartbeat_at;
        if is_heartbeat_due {
            self.heartbeat_at = following(self.heartbeat_at, heartbeat_ms, now);
            self.owes_hello |= self.heartbeats.is_multiple_of(HELLO_HEARTBEATS);
            self.heartbeats += 1;
        }
        if std::mem::take(&mut self.owes_hello) {
            let hello = Entry::Hello(Hello {
                name: &self.setup.name,
                program: &self.setup.program,
            });
            let said = self.drafts.push(Topic::Nodes, &hello);
            self.counters.entries_unsaid += u64::from(said.is_err());
        }
        if is_heartbeat_due {
            let heartbeat = Heartbeat {
                sums: self.state.sums(),
                connections: self.connections,
                is_founded: self.is_founded,
            };
            self.say(Topic::Nodes, &Entry::Heartbeat(heartbeat));
        }
        if canary_ms > 0 && now >= self.canary_at {
            self.canary_at = following(self.canary_at, canary_ms, now);
            let token = self.send_canary(Topic::Nodes);
            self.membership.canary_sent(now, token);
            let token = self.send_canary(Topic::Echo);
            self.echoes.sent(now, token);
        }
    }

    fn send_canary(&mut self, topic: Topic) -> Token {
        self.tokens += 1;
        let token = Token(self.tokens);
        self.say(topic, &Entry::Canary(token));
        token
    }

    fn say(&mut self, topic: Topic, entry: &Entry<'_>) {
        let said = self.drafts.push(topic, entry);
        self.counters.entries_unsaid += u64::from(said.is_err());
    }

    /// Looks at the echoes.
    fn tick_watch(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        let state_of = |canaries: &Canaries| RoadState {
            is_late: canaries.is_late(now),
            round_trip_ms: canaries.round_trip_ms(),
        };
        let bus = BusState {
            events: state_of(&self.echoes),
            state: state_of(self.membership.canaries()),
        };
        let before = std::mem::replace(&mut self.bus, bus);
        for (road, before, after) in [
            (Road::Events, before.events, bus.events),
            (Road::State, before.state, bus.state),
        ] {
            match (before.is_late, after.is_late) {
                (false, true) => effects.push(Effect::Late(road)),
                (true, false) => effects.push(Effect::InTime(road)),
                (true, true) | (false, false) => {}
            }
        }
    }

    /// When `tick` is due.
    pub fn next_tick(&self) -> Millis {
        // Membership wants to be asked each half heartbeat.
        let half = self.ticked_at.plus(self.setup.times.heartbeat_ms / 2);
        if let Some(start) = &self.start {
            return start.ends_at().map_or(half, |at| half.min(at));
        }
        let speaks_at = match (self.has_left, self.setup.times.canary_ms) {
            (true, _) => half,
            (false, 0) => self.heartbeat_at,
            (false, _) => self.heartbeat_at.min(self.canary_at),
        };
        let has_say = self.has_started() && !self.has_left;
        let state_at = self.state.due(self.ticked_at).filter(|_| has_say);
        half.min(speaks_at).min(state_at.unwrap_or(half))
    }

    /// Ends this life for the others. Nothing is said after it but what is published, for less than a
    /// lease: a life that is heard later is taken for one that has come back.
    pub fn goodbye(&mut self) {
        if !self.has_left && self.has_started() {
            self.say(Topic::Nodes, &Entry::Goodbye);
        }
        self.has_left = true;
    }

    /// How the bus is, as of the last tick.
    pub fn bus(&self) -> BusState {
        self.bus
    }

    /// This node sends itself canaries; else the bus is believed.
    pub fn has_canaries(&self) -> bool {
        self.setup.times.canary_ms > 0
    }

    /// `None` before the first.
    pub fn echoes(&self, road: Road) -> Option<Echoes> {
        let canaries = match road {
            Road::Events => &self.echoes,
            Road::State => self.membership.canaries(),
        };
        Some(Echoes {
            count: canaries.echoes(),
            round_trip_ms: canaries.round_trip_ms()?,
            heard_at: canaries.echoed_at(),
        })
    }

    /// Another process lives under this node's name, and the others hear that one.
    pub fn is_succeeded(&self) -> bool {
        self.membership.is_succeeded()
    }

    /// False while nothing of the view may be announced.
    pub fn is_fresh(&self) -> bool {
        self.membership.is_fresh()
    }

    /// What the next heartbeat says of this node.
    pub fn set_connections(&mut self, connections: u64) {
        self.connections = connections;
    }

    /// From now on heartbeats say that somebody has told what was before. The first one at once: others
    /// wait for it.
    pub fn set_founded(&mut self, now: Millis) {
        if !std::mem::replace(&mut self.is_founded, true) && self.has_started() && !self.has_left {
            self.heartbeat_at = now;
            self.tick_speak(now);
        }
    }

    /// The others that are there, by node.
    pub fn peers(&self) -> impl Iterator<Item = Peer<'_>> {
        self.membership.peers().map(|(identity, heard_at)| {
            let row = self.rows.get(&identity.node);
            let row = row.expect("a peer that is there has a row");
            Peer {
                identity,
                name: &row.name,
                program: &row.program,
                version: row.version,
                heard_at,
                connections: row.connections,
                founded_at: row.founded_at,
                behind: self.state.behind(identity),
                counters: &row.counters,
            }
        })
    }

    /// What was counted of each peer that is or was there, with its name, which may be empty; and of those that are
    /// forgotten.
    pub fn tallies(&self) -> (impl Iterator<Item = (NodeId, &str, &Tally)>, Option<Tally>) {
        let tallies = self.state.tallies();
        let rows = tallies.rows().map(|(node, gone, tally)| {
            let name = gone.or_else(|| Some(&*self.rows.get(&node)?.name));
            (node, name.unwrap_or_default(), tally)
        });
        (rows, tallies.others())
    }

    /// Peers whose lease has run out a short while ago, and that were not heard since.
    pub fn expired(&self, now: Millis) -> usize {
        self.state.tallies().expired(now)
    }

    /// Entries for the others but events and changes, as far as there was room.
    pub fn entries_said(&self) -> ByKind {
        self.drafts.pushed()
    }

    /// What became of the state.
    // Adds up partitions that are wanted: for metrics, not for each batch.
    pub fn state_counters(&self) -> StateCounters {
        self.state.counters()
    }

    pub fn counters(&self) -> &Counters {
        &self.counters
    }
}

impl Row {
    fn new(since: Millis, identity: Identity) -> Self {
        Self {
            identity,
            since,
            name: Box::default(),
            program: Box::default(),
            version: Version::OURS,
            connections: None,
            founded_at: None,
            lanes: LanesHeard::new(),
            left_at: None,
            counters: PeerCounters::default(),
        }
    }
}

/// The next of a row of times, without those that were missed.
fn following(at: Millis, period_ms: u64, now: Millis) -> Millis {
    let next = at.plus(period_ms);
    if next > now {
        next
    } else {
        now.plus(period_ms)
    }
}

/// A hello goes out with every so many heartbeats, for whoever lost the first one.
const HELLO_HEARTBEATS: u64 = 10;
