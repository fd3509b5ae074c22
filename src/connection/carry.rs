//! A connection as another process is told of it.
//!
//! Owns: the two ways between `Connection` and `ConnectionRecord`, but for channels and users, which the
//! shard's tables know.
//! May depend on: `handover::record` and the other files of this room.
//! Invariants: what was written and read back is the same connection, but for what it was waiting for.

use shards::{
    Carried,
    application::{Millis, Slot},
};

use super::{
    body::Body,
    keep_alive::KeepAlive,
    row::{Awaited, Connection, Hold, PeerKind, Rare, Reading, State},
    token_bucket::TokenBucket,
};
use crate::{
    handover::record::{ConnectionRecord, Fragments, Silence, Stage},
    protocol::socket_id::SocketId,
    ws::codec::Decoder,
};

impl Connection {
    /// What another process is told, `carried` being the runtime's part. `None`: it has nothing left to say.
    pub fn record(&self, carried: Carried) -> Option<ConnectionRecord> {
        let stage = match self.state {
            State::Vacant | State::Ending => return None,
            State::ProxyHeader => Stage::ProxyHeader,
            State::Http(awaited) => Stage::Http(awaited == Awaited::Rest),
            State::Upgrading => Stage::Upgrading,
            State::Open(awaited) => Stage::Open(awaited == Awaited::Rest),
            State::Closing => Stage::Closing,
        };
        let silence = match self.keep_alive {
            KeepAlive::Heard { at } => Silence::Heard(at.0),
            KeepAlive::Pinged { answer_by } => Silence::Pinged(answer_by.0),
        };
        let rare = self.rare.as_deref();
        Some(ConnectionRecord {
            carried,
            app: None,
            stage,
            is_authorized: self.authorized,
            is_counted_by_app: self.counted.by_app.is_some(),
            is_counted_by_node: self.counted.by_node,
            opened_at_s: self.opened_at_s,
            socket_id: (self.socket_id.high(), self.socket_id.low()),
            until_ms: self.until.0,
            silence,
            client_events: self.client_events.parts(),
            memberships_rate: self.memberships_rate.parts(),
            fragments: self
                .decoder
                .message_begun()
                .map(|(is_text, payload)| Fragments {
                    is_text,
                    payload: payload.to_vec(),
                }),
            input: self.input.clone(),
            is_throttled: self.holds.has(Hold::Rate),
            throttled_until_ms: rare.and_then(|rare| rare.throttled_until).map(|at| at.0),
            authorize_by_ms: rare.and_then(|rare| rare.authorize_by).map(|at| at.0),
            peer: rare.and_then(|rare| rare.peer).map(PeerKind::carried),
            body: rare.and_then(|rare| rare.body.as_ref().map(|body| body.record())),
            subscriptions: Vec::new(),
            user: None,
            is_stuck: self.holds.has(Hold::Answer),
        })
    }

    /// The connection of a record, in a slot of this process. Who it subscribes with and is signed in as is
    /// the caller's to add.
    pub fn restored(
        slot: Slot,
        record: &mut ConnectionRecord,
        (is_paused, peer_ended, awaits_drained): (bool, bool, bool),
    ) -> Self {
        let awaited = |has_begun| {
            if has_begun {
                Awaited::Rest
            } else {
                Awaited::Next
            }
        };
        let state = match record.stage {
            Stage::ProxyHeader => State::ProxyHeader,
            Stage::Http(has_begun) => State::Http(awaited(has_begun)),
            Stage::Upgrading => State::Upgrading,
            Stage::Open(has_begun) => State::Open(awaited(has_begun)),
            Stage::Closing => State::Closing,
        };
        let (high, low) = record.socket_id;
        let rare = Rare {
            peer: record.peer.map(PeerKind::restored),
            body: record
                .body
                .take()
                .map(|body| Box::new(Body::restored(body))),
            authorize_by: record.authorize_by_ms.map(Millis),
            throttled_until: record.throttled_until_ms.map(Millis),
            ..Rare::default()
        };
        let mut row = Self {
            generation: slot.generation,
            state,
            authorized: record.is_authorized,
            opened_at_s: record.opened_at_s,
            socket_id: SocketId::new(high, low).unwrap_or_else(Self::no_socket_id),
            until: Millis(record.until_ms),
            keep_alive: match record.silence {
                Silence::Heard(at) => KeepAlive::Heard { at: Millis(at) },
                Silence::Pinged(at) => KeepAlive::Pinged {
                    answer_by: Millis(at),
                },
            },
            decoder: record.fragments.take().map_or_else(Decoder::new, |begun| {
                Decoder::inside_message(begun.is_text, begun.payload)
            }),
            client_events: TokenBucket::of_parts(record.client_events),
            memberships_rate: TokenBucket::of_parts(record.memberships_rate),
            input: std::mem::take(&mut record.input),
            rare: Some(Box::new(rare)),
            ..Self::vacant()
        };
        if record.is_throttled {
            row.holds.add(Hold::Rate);
        }
        if is_paused {
            row.reading = Reading::Paused;
        }
        if awaits_drained {
            row.holds.add(Hold::Outbox);
        }
        if peer_ended {
            row.reading = Reading::Ended;
        }
        row.shed_rare();
        row
    }

    fn no_socket_id() -> SocketId {
        SocketId::new(0, 0).expect("in range")
    }
}
