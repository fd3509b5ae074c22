//! The row of one connection on its shard.
//!
//! Owns: `Connection` and its rare parts, which sit behind one optional box.
//! May depend on: the other files of this room, `ws`, `http::proxy_header`, `channel` for references,
//! plain ids.
//! Invariants: a vacant row holds nothing; input is held while an answer is awaited, so that a
//! connection's messages are handled strictly in order; the row is at most `ROW_BYTES_MAX`.

use std::{
    hash::BuildHasher,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use ahash::{AHasher, RandomState};
use hashbrown::HashMap;

use shards::application::{Millis, ShardId, Slot};

use super::{
    body::Body, input::Input, keep_alive::KeepAlive, pending::Pending,
    subscriptions::Subscriptions, token_bucket::SmallBucket,
};
use crate::{
    channel::user::UserId,
    http::proxy_header::Source,
    protocol::{app::AppIndex, socket_id::SocketId},
    ws::codec::Decoder,
};

/// One connection of this shard, in two lines of a cache.
#[derive(Clone, Debug)]
#[repr(align(64))]
pub struct Connection {
    /// Of the slot that holds the row.
    pub generation: u32,
    /// Known once the upgrade's key was found.
    pub app: AppIndex,
    pub state: State,
    /// Why its input is held, if it is.
    pub holds: Holds,
    /// What the runtime was told about reading from it.
    pub reading: Reading,
    /// Signed in, or subscribed to a channel that needs authentication.
    pub authorized: bool,
    /// Where it is counted.
    pub counted: Counted,
    /// When it was opened; in seconds, since it is looked at in hours.
    pub opened_at_s: u32,
    /// Numbers the awaited answers, so that a late one is recognised.
    pub operation: u32,
    /// Known once `connection_established` was sent.
    pub socket_id: SocketId,
    /// When the request or message that is awaited must be whole. Closing: when TCP is closed without
    /// an echo.
    pub until: Millis,
    pub keep_alive: KeepAlive,
    pub client_events: SmallBucket,
    /// Subscribes, unsubscribes and sign-ins.
    pub memberships_rate: SmallBucket,
    pub decoder: Decoder,
    /// Unfinished or held input.
    pub input: Input,
    /// What of it and of an unfinished message is counted for strangers.
    pub held_bytes: u32,
    pub subscriptions: Subscriptions,
    pub rare: Option<Box<Rare>>,
}

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nobody is here.
    Vacant,
    /// A proxy's, which has to say whose connection it is.
    ProxyHeader,
    /// Speaks HTTP.
    Http(Awaited),
    /// 101 was sent; the checks that follow are under way, and its frames are held.
    Upgrading,
    /// `connection_established` was sent; its end is to be cleaned up.
    Open(Awaited),
    /// A close frame was sent; the peer's is awaited, what else it sends is discarded.
    Closing,
    /// The runtime was asked to end the connection.
    Ending,
}

/// What a connection has to send by `until`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Awaited {
    /// Another request or message, if it likes.
    Next,
    /// The rest of the request or message that it has begun; the first request counts as begun with
    /// the accept.
    Rest,
}

/// What is known of the peer's sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    Flows,
    /// Too much input is held.
    Paused,
    /// The peer ended its side: ours ends when its input is handled.
    Ended,
}

/// Quotas that the connection is counted in, until it ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// The home that counts it for its app: when it ends, the app's id may be known no more.
    pub by_app: Option<ShardId>,
    pub by_node: bool,
}

/// A reason to hold input. Each comes and goes by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Hold {
    /// An answer of another shard or the bridge is awaited.
    Answer = 1,
    /// The outbox is full of answers, until it has drained.
    Outbox = 2,
    /// The rate of subscriptions is used up.
    Rate = 4,
    /// A channel that it publishes to is behind with its fan-out.
    FanOut = 8,
    /// Held input waits for its share of a turn.
    Turn = 16,
}

/// The reasons for which input is held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holds(u8);

impl Holds {
    /// No reason is left.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn has(self, hold: Hold) -> bool {
        self.0 & hold as u8 != 0
    }

    /// Returns false if the reason was there before.
    pub fn add(&mut self, hold: Hold) -> bool {
        let is_new = !self.has(hold);
        self.0 |= hold as u8;
        is_new
    }

    pub fn remove(&mut self, hold: Hold) {
        self.0 &= !(hold as u8);
    }

    /// Held by something that we wait for: what the peer has to say was not listened to.
    pub fn are_ours(self) -> bool {
        self.0 & !(Hold::Outbox as u8) != 0
    }
}

/// Presence channels (their rows) and the user id that a connection has in each.
// Rows are numbered by this shard: nobody outside can choose them to collide.
#[derive(Clone, Debug, Default)]
pub struct Memberships(HashMap<u32, Arc<str>, RowHash>);

/// The same in every process, so that one seed is one run of the simulator.
#[derive(Clone, Copy, Debug, Default)]
struct RowHash;

impl BuildHasher for RowHash {
    type Hasher = AHasher;

    fn build_hasher(&self) -> AHasher {
        RandomState::with_seeds(1, 2, 3, 4).build_hasher()
    }
}

impl Memberships {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn get(&self, channel: u32) -> Option<&Arc<str>> {
        self.0.get(&channel)
    }

    /// Any channel of them.
    pub fn any(&self) -> Option<u32> {
        self.0.keys().next().copied()
    }

    pub fn insert(&mut self, channel: u32, user_id: Arc<str>) {
        self.0.insert(channel, user_id);
    }

    pub fn remove(&mut self, channel: u32) -> Option<Arc<str>> {
        self.0.remove(&channel)
    }
}

/// What few connections have, or all have for a short time.
#[derive(Clone, Debug, Default)]
pub struct Rare {
    pub pending: Option<Pending>,
    pub memberships: Memberships,
    pub user: Option<SignedIn>,
    /// Of an HTTP connection: who sent it, or whom its proxy's header names.
    pub peer: Option<PeerKind>,
    /// A request's body under way.
    pub body: Option<Box<Body>>,
    /// When a connection that needs authorisation is closed without.
    pub authorize_by: Option<Millis>,
    /// Until when a throttled connection's input is held.
    pub throttled_until: Option<Millis>,
    /// What the outbox of a choked HTTP connection held when that was last looked at.
    pub outbox_bytes: Option<usize>,
    /// How much of a choked connection's held input is whole frames, as far as somebody has looked.
    pub whole_bytes: usize,
}

/// Who an HTTP connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerKind {
    /// A client or a proxy over TCP, or whom a proxy's header names.
    Address(IpAddr),
    /// A process of this host, over the Unix socket: only who may write to the socket's file gets here.
    Local,
}

impl PeerKind {
    /// What a limiter counts of a peer that forwards nothing: all that is local is one.
    pub fn address(self) -> IpAddr {
        match self {
            Self::Address(address) => address.to_canonical(),
            Self::Local => LOCAL_ADDRESS,
        }
    }

    /// As another process is told: one address stands for what is local.
    pub fn carried(self) -> IpAddr {
        match self {
            // Whoever was named so is not local, there either.
            Self::Address(LOCAL_ADDRESS) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            Self::Address(address) => address,
            Self::Local => LOCAL_ADDRESS,
        }
    }

    /// What another process told.
    pub fn restored(address: IpAddr) -> Self {
        if address == LOCAL_ADDRESS {
            Self::Local
        } else {
            Self::Address(address)
        }
    }
}

/// No client has it.
const LOCAL_ADDRESS: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

/// Who a connection is signed in as.
#[derive(Clone, Debug, PartialEq)]
pub struct SignedIn {
    pub user_id: UserId,
    /// `user_info` as JSON text, `null` when there was none.
    pub info: Arc<str>,
    pub watchlist: Vec<UserId>,
    /// The user's home knows the socket.
    pub is_known: bool,
}

/// The bound of a row; an idle connection has no more than this and its subscriptions.
const ROW_BYTES_MAX: usize = 128;
/// Input that may wait before reading pauses.
const HELD_BYTES_MAX: usize = 64 * 1_024;
const _: () = assert!(size_of::<Connection>() <= ROW_BYTES_MAX);

impl Connection {
    /// A row without a connection.
    pub fn vacant() -> Self {
        Self {
            generation: 0,
            app: AppIndex::NONE,
            state: State::Vacant,
            holds: Holds::default(),
            reading: Reading::Flows,
            authorized: false,
            counted: Counted::default(),
            opened_at_s: 0,
            operation: 0,
            socket_id: SocketId::new(0, 0).expect("in range"),
            until: Millis(0),
            keep_alive: KeepAlive::new(Millis(0)),
            client_events: SmallBucket::default(),
            memberships_rate: SmallBucket::default(),
            decoder: Decoder::default(),
            input: Input::default(),
            held_bytes: 0,
            subscriptions: Subscriptions::default(),
            rare: None,
        }
    }

    /// A connection that was just accepted and must send its request until `until`, a proxy its
    /// header before that.
    pub fn accepted(slot: Slot, state: State, peer: Option<PeerKind>, until: Millis) -> Self {
        let rare = peer.map(|peer| {
            Box::new(Rare {
                peer: Some(peer),
                ..Rare::default()
            })
        });
        Self {
            generation: slot.generation,
            state,
            until,
            rare,
            ..Self::vacant()
        }
    }

    /// A proxy has said whose connection it is: who that is takes the place of the peer.
    pub fn on_proxy_header(&mut self, source: Source) {
        assert_eq!(self.state, State::ProxyHeader, "there is one header");
        self.state = State::Http(Awaited::Rest);
        let peer = self.rare.as_mut().and_then(|rare| rare.peer.as_mut());
        if let (Some(peer), Source::Client(client)) = (peer, source) {
            *peer = PeerKind::Address(client);
        }
    }

    /// `connection_established` is about to be sent.
    pub fn open(&mut self, now: Millis, socket_id: SocketId) {
        self.state = State::Open(Awaited::Next);
        self.socket_id = socket_id;
        self.keep_alive = KeepAlive::new(now);
        self.opened_at_s = u32::try_from(now.0.div_ceil(1_000)).unwrap_or(u32::MAX);
    }

    /// True from `connection_established` until it is closed.
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open(_))
    }

    /// It is or was an established WebSocket: any other was opened at no time.
    pub fn was_open(&self) -> bool {
        self.opened_at_s > 0
    }

    /// True while input must not be handled.
    pub fn is_held(&self) -> bool {
        !self.holds.is_empty()
    }

    /// Reading pauses while much waits that must not be handled, and goes on when it need not. Gives what changes,
    /// for the caller to perform.
    pub fn on_input_kept(&mut self) -> Option<Reading> {
        let is_full = self.is_held() && self.input.len() > HELD_BYTES_MAX;
        self.reading = match self.reading {
            Reading::Flows if is_full => Reading::Paused,
            Reading::Paused if !is_full => Reading::Flows,
            Reading::Flows | Reading::Paused | Reading::Ended => return None,
        };
        Some(self.reading)
    }

    /// What the home of a question calls the connection by, until the answer; its input is held.
    pub fn await_answer(&mut self) -> u32 {
        self.holds.add(Hold::Answer);
        self.operation = self.operation.wrapping_add(1);
        self.operation
    }

    /// True while the answer to an operation is awaited.
    pub fn awaits(&self, operation: u32) -> bool {
        self.holds.has(Hold::Answer) && self.operation == operation
    }

    /// Ends the waiting; what was waited for comes back.
    pub fn on_answer(&mut self) -> Option<Pending> {
        self.holds.remove(Hold::Answer);
        let pending = self.rare.as_mut().and_then(|rare| rare.pending.take());
        self.shed_rare();
        pending
    }

    /// Goes over to a state in which no answer is wanted any more: a late one finds another
    /// number, and is undone by whoever it reaches. Returns the state before.
    pub fn leave_for(&mut self, state: State) -> State {
        self.operation = self.operation.wrapping_add(1);
        // What is listed for a share of a turn stays listed.
        let is_listed = self.holds.has(Hold::Turn);
        self.holds = Holds::default();
        if is_listed {
            self.holds.add(Hold::Turn);
        }
        if let Some(rare) = &mut self.rare {
            rare.pending = None;
        }
        std::mem::replace(&mut self.state, state)
    }

    /// The rare parts, made if there are none.
    pub fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    /// Frees the rare parts' box when nothing is in it.
    pub fn shed_rare(&mut self) {
        if self.rare.as_ref().is_some_and(|rare| rare.is_empty()) {
            self.rare = None;
        }
    }

    /// Takes out the input that was held.
    pub fn take_input(&mut self) -> Input {
        if let Some(rare) = &mut self.rare {
            rare.whole_bytes = 0;
        }
        self.shed_rare();
        std::mem::take(&mut self.input)
    }

    /// The user id that this connection has in a presence channel.
    pub fn membership(&self, channel: u32) -> Option<&Arc<str>> {
        self.rare.as_ref()?.memberships.get(channel)
    }

    /// Takes the membership of a channel out.
    pub fn end_membership(&mut self, channel: u32) -> Option<Arc<str>> {
        self.rare.as_mut()?.memberships.remove(channel)
    }

    /// Somebody has vouched for the client.
    pub fn authorize(&mut self) {
        self.authorized = true;
        if let Some(rare) = &mut self.rare {
            rare.authorize_by = None;
        }
    }

    /// The user that this connection is signed in as.
    pub fn user(&self) -> Option<&SignedIn> {
        self.rare.as_ref()?.user.as_ref()
    }

    /// What this connection waits for.
    pub fn pending(&mut self) -> &mut Option<Pending> {
        &mut self.rare().pending
    }
}

impl Rare {
    fn is_empty(&self) -> bool {
        self.pending.is_none()
            && self.memberships.is_empty()
            && self.user.is_none()
            && self.peer.is_none()
            && self.body.is_none()
            && self.authorize_by.is_none()
            && self.throttled_until.is_none()
            && self.outbox_bytes.is_none()
            && self.whole_bytes == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whom_a_proxy_names_takes_the_place_of_the_peer() {
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        let named = |text: &str| Some(PeerKind::Address(address(text)));
        let slot = Slot {
            index: 0,
            generation: 0,
        };
        let proxy = PeerKind::Address(address("10.0.0.1"));
        let local = PeerKind::Local;
        for (peer, source, expected) in [
            (
                Some(proxy),
                Source::Client(address("192.0.2.7")),
                named("192.0.2.7"),
            ),
            (Some(local), Source::Client(address("::")), named("::")),
            (Some(local), Source::Proxy, Some(local)),
            (Some(proxy), Source::Proxy, Some(proxy)),
            // Nobody asks for addresses: none is kept.
            (None, Source::Client(address("192.0.2.7")), None),
        ] {
            let mut row = Connection::accepted(slot, State::ProxyHeader, peer, Millis(0));
            row.on_proxy_header(source);
            assert_eq!(row.state, State::Http(Awaited::Rest));
            let peer = row.rare.as_ref().and_then(|rare| rare.peer);
            assert_eq!(peer, expected, "{source:?}");
        }
    }

    #[test]
    fn a_peer_is_of_its_kind_in_another_process_too() {
        let address = |text: &str| PeerKind::Address(text.parse().expect("an address"));
        for (peer, expected) in [
            (PeerKind::Local, PeerKind::Local),
            (address("192.0.2.7"), address("192.0.2.7")),
            (address("::1"), address("::1")),
            (address("::"), address("0.0.0.0")),
            (address("0.0.0.0"), address("0.0.0.0")),
        ] {
            let restored = PeerKind::restored(peer.carried());
            assert_eq!(restored, expected, "{peer:?}");
        }
    }

    #[test]
    fn reading_pauses_while_much_waits_that_is_held_and_only_then() {
        let slot = Slot {
            index: 0,
            generation: 0,
        };
        let mut row = Connection::accepted(slot, State::ProxyHeader, None, Millis(0));
        row.input.extend_from_slice(&vec![0; HELD_BYTES_MAX + 1]);
        assert_eq!(row.on_input_kept(), None, "it can be handled");
        row.holds.add(Hold::Turn);
        assert_eq!(row.on_input_kept(), Some(Reading::Paused));
        assert_eq!(row.on_input_kept(), None, "it is paused already");
        let mut input = row.take_input();
        input.drain(..1);
        row.input = input;
        assert_eq!(row.on_input_kept(), Some(Reading::Flows));
        assert_eq!(row.on_input_kept(), None);
        row.input.extend_from_slice(&[0]);
        assert_eq!(row.on_input_kept(), Some(Reading::Paused));
        row.holds.remove(Hold::Turn);
        assert_eq!(row.on_input_kept(), Some(Reading::Flows), "held no more");
        row.holds.add(Hold::Turn);
        row.reading = Reading::Ended;
        assert_eq!(row.on_input_kept(), None, "nothing comes");
    }
}
