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
    keep_alive::{KeepAlive, Phase},
    row::{Awaited, Connection, Hold, PeerKind, Rare, Reading, State},
    token_bucket::SmallBucket,
};
use crate::{
    handover::record::{ConnectionRecord, Fragments, Silence, Stage},
    protocol::socket_id::SocketId,
    ws::codec::Decoder,
};

impl Connection {
    /// What another process is told at `now`, `carried` being the runtime's part. `None`: it has nothing left to say.
    pub fn record(&self, now: Millis, carried: Carried) -> Option<ConnectionRecord> {
        let stage = match self.state {
            State::Vacant | State::Ending => return None,
            State::ProxyHeader => Stage::ProxyHeader,
            State::Http(awaited) => Stage::Http(awaited == Awaited::Rest),
            State::Upgrading => Stage::Upgrading,
            State::Open(awaited) => Stage::Open(awaited == Awaited::Rest),
            State::Closing => Stage::Closing,
        };
        let silence = match self.keep_alive.phase() {
            Phase::Heard { at } => Silence::Heard(at.0),
            Phase::Pinged { answer_by } => Silence::Pinged(answer_by.0),
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
            client_events: self.client_events.parts(now),
            memberships_rate: self.memberships_rate.parts(now),
            fragments: self
                .decoder
                .message_begun()
                .map(|(is_text, payload)| Fragments {
                    is_text,
                    payload: payload.to_vec(),
                }),
            input: self.input.to_vec(),
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
        now: Millis,
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
            keep_alive: KeepAlive::in_phase(match record.silence {
                Silence::Heard(at) => Phase::Heard { at: Millis(at) },
                Silence::Pinged(at) => Phase::Pinged {
                    answer_by: Millis(at),
                },
            }),
            decoder: record.fragments.take().map_or_else(Decoder::new, |begun| {
                Decoder::inside_message(begun.is_text, begun.payload)
            }),
            client_events: SmallBucket::of_parts(now, record.client_events),
            memberships_rate: SmallBucket::of_parts(now, record.memberships_rate),
            input: std::mem::take(&mut record.input).into(),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::fixture::{Step, app_rules};

    #[test]
    fn silence_rates_and_input_are_the_same_in_another_process() {
        const WRAP_MS: u64 = 1 << 32;
        let slot = Slot {
            index: 3,
            generation: 4,
        };
        for start in [1_000, WRAP_MS - 1, WRAP_MS * 2 + 1_000] {
            let [at, now] = [start, start + 400].map(Millis);
            let mut row = Step::new(app_rules()).connection;
            assert!(row.client_events.take(at, 10, 8));
            assert!(row.memberships_rate.take_of(at, 100, 10, 60));
            row.input.extend_from_slice(b"half");
            row.keep_alive = KeepAlive::in_phase(Phase::Pinged { answer_by: at });
            row.decoder = Decoder::inside_message(true, b"part".to_vec());
            let mut record = row.record(now, Carried::default()).expect("it is open");
            assert_eq!(record.client_events, (8_000, start));
            assert_eq!(record.memberships_rate, (60_000, start));
            assert_eq!(record.input, b"half");
            assert!(matches!(record.silence, Silence::Pinged(at) if at == start));
            let fragments = record.fragments.as_ref().expect("a part");
            assert_eq!(
                (fragments.is_text, &*fragments.payload),
                (true, &b"part"[..])
            );
            let restored = Connection::restored(now, slot, &mut record, (false, false, false));
            assert_eq!(restored.client_events, row.client_events);
            assert_eq!(restored.memberships_rate, row.memberships_rate);
            assert_eq!(restored.keep_alive, row.keep_alive);
            assert_eq!(restored.input, row.input);
            assert_eq!(restored.decoder.message_begun(), Some((true, &b"part"[..])));
        }
    }
}
