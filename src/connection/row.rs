//! The row of one connection on its shard.
//!
//! Owns: `Connection` and its rare parts, which sit behind one optional box.
//! May depend on: the other files of this room, `ws`, `channel` for references, plain ids.
//! Invariants: a vacant row holds nothing; input is held while an answer is awaited, so that a
//! connection's messages are handled strictly in order; the row is at most `ROW_BYTES_MAX`.

use std::{hash::BuildHasherDefault, net::IpAddr, sync::Arc};

use ahash::AHasher;
use hashbrown::HashMap;

use shards::application::{Millis, Slot};

use super::{
    body::Body, keep_alive::KeepAlive, pending::Pending, subscriptions::Subscriptions,
    token_bucket::TokenBucket,
};
use crate::{protocol::app::AppIndex, ws::codec::Decoder};

/// One connection of this shard.
#[derive(Debug)]
pub struct Connection {
    /// Of the slot that holds the row.
    pub generation: u32,
    /// Known once the upgrade's key was found.
    pub app: AppIndex,
    pub state: State,
    /// An answer of another shard or the bridge is awaited: input is held meanwhile.
    pub waiting: bool,
    /// `connection_established` was sent, and the clean-up is still to come.
    pub established: bool,
    /// Its outbox is full of answers: input is held until it has drained.
    pub choked: bool,
    /// Its input is held until its rate of subscriptions allows more.
    pub throttled: bool,
    /// A channel that it publishes to is behind with its fan-out: input is held meanwhile.
    pub pressed: bool,
    /// Held input waits for its share of a turn.
    pub queued: bool,
    /// A part of the request's head, or of a WebSocket message, has arrived, and `until` is its deadline.
    pub has_begun: bool,
    /// The peer ended its side: ours ends when its input is handled.
    pub peer_ended: bool,
    /// Reading is paused because too much input is held.
    pub paused: bool,
    /// Signed in, or subscribed to a channel that needs authentication.
    pub authorized: bool,
    /// The user's home knows this socket.
    pub signed_in: bool,
    /// Counted at the app's quota home.
    pub in_app_quota: bool,
    /// Counted at the node's quota home.
    pub in_node_quota: bool,
    /// Numbers the awaited answers, so that a late one is recognised.
    pub operation: u32,
    /// The second part of the socket id.
    pub socket_low: u64,
    /// HTTP: when the request must be complete. Open: when the message must be that `has_begun`.
    /// Closing: when TCP is closed without an echo.
    pub until: Millis,
    pub keep_alive: KeepAlive,
    pub client_events: TokenBucket,
    /// Subscribes, unsubscribes and sign-ins.
    pub memberships_rate: TokenBucket,
    pub decoder: Decoder,
    /// Unfinished or held input.
    pub input: Vec<u8>,
    /// What of it and of an unfinished message is counted for strangers.
    pub held_bytes: u32,
    /// What is counted of a body whose head is signed.
    pub kept_bytes: u32,
    pub subscriptions: Subscriptions,
    pub rare: Option<Box<Rare>>,
}

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nobody is here.
    Vacant,
    /// Speaks HTTP.
    Http,
    /// 101 was sent; frames may be sent, and are read once the connection is established.
    Open,
    /// A close frame was sent; the peer's is awaited, what else it sends is discarded.
    Closing,
    /// The runtime was asked to end the connection.
    Ending,
}

/// Presence channels (their rows) and the user id that a connection has in each.
// Rows are numbered by this shard: nobody outside can choose them to collide.
pub type Memberships = HashMap<u32, Arc<str>, BuildHasherDefault<AHasher>>;

/// What few connections have, or all have for a short time.
#[derive(Debug, Default)]
pub struct Rare {
    pub pending: Option<Pending>,
    pub memberships: Memberships,
    pub user: Option<SignedIn>,
    /// Of an HTTP connection.
    pub peer: Option<IpAddr>,
    /// A request's body under way.
    pub body: Option<Box<Body>>,
    /// When a connection that needs authorisation is closed without.
    pub authorize_by: Option<Millis>,
    /// Until when a throttled connection's input is held.
    pub throttled_until: Option<Millis>,
    /// What the outbox of a choked HTTP connection held when that was last looked at.
    pub outbox_bytes: Option<usize>,
}

/// Who a connection is signed in as.
#[derive(Clone, Debug)]
pub struct SignedIn {
    pub user_id: Arc<str>,
    /// `user_info` as JSON text, `null` when there was none.
    pub info: Arc<str>,
    pub watchlist: Vec<Arc<str>>,
}

/// The bound of a row; an idle connection has no more than this and its subscriptions.
const ROW_BYTES_MAX: usize = 256;
const _: () = assert!(size_of::<Connection>() <= ROW_BYTES_MAX);

impl Connection {
    /// A row without a connection.
    pub fn vacant() -> Self {
        Self {
            generation: 0,
            app: AppIndex(u32::MAX),
            state: State::Vacant,
            waiting: false,
            choked: false,
            throttled: false,
            pressed: false,
            queued: false,
            has_begun: false,
            peer_ended: false,
            established: false,
            paused: false,
            authorized: false,
            signed_in: false,
            in_app_quota: false,
            in_node_quota: false,
            operation: 0,
            socket_low: 0,
            until: Millis(0),
            keep_alive: KeepAlive::new(Millis(0)),
            client_events: TokenBucket::default(),
            memberships_rate: TokenBucket::default(),
            decoder: Decoder::default(),
            input: Vec::new(),
            held_bytes: 0,
            kept_bytes: 0,
            subscriptions: Subscriptions::default(),
            rare: None,
        }
    }

    /// A connection that was just accepted and must send its request until `until`.
    pub fn accepted(slot: Slot, peer: Option<IpAddr>, until: Millis) -> Self {
        let rare = peer.map(|peer| {
            Box::new(Rare {
                peer: Some(peer),
                ..Rare::default()
            })
        });
        Self {
            generation: slot.generation,
            state: State::Http,
            // The first request's time counts from the accept.
            has_begun: true,
            until,
            rare,
            ..Self::vacant()
        }
    }

    /// True while input must not be handled.
    pub fn is_held(&self) -> bool {
        self.waiting || self.choked || self.throttled || self.pressed || self.queued
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

    /// The user id that this connection has in a presence channel.
    pub fn membership(&self, channel: u32) -> Option<&Arc<str>> {
        self.rare.as_ref()?.memberships.get(&channel)
    }

    /// Takes the membership of a channel out.
    pub fn end_membership(&mut self, channel: u32) -> Option<Arc<str>> {
        self.rare.as_mut()?.memberships.remove(&channel)
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
    }
}
