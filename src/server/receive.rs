//! Data path. Bytes of one connection, in order: a proxy's header where there must be one, HTTP,
//! frames after an upgrade.
//!
//! Owns: unfinished and held input, whose input has its share of a turn next.
//! May depend on: `connection::row`, the other files of this room.
//! Invariants: input is handled strictly in order; while an answer is awaited, or answers pile up, or
//! the turn's work is spent, it is held, up to a bound beyond which TCP holds the peer back; an idle
//! connection holds no buffer; what a peer sent before it ended its side is handled and answered.

use std::rc::Rc;

use shards::{
    application::{Closed, Slot},
    work::Work,
};

use super::{ServerTurn, ShardServer};
use crate::{
    connection::{
        input::Input,
        pending::Pending,
        row::{Awaited, Hold, Reading, State},
    },
    protocol::code::CloseCode,
    ws::codec::Decoder,
};

/// Rows that are looked at for who holds most.
const HOLDERS_LOOKED_AT: usize = 64;

/// What a connection's input may cost before others have their share of the turn: a tenth of it.
const SHARE: Work = Work(250_000);
/// So many bodies of signed requests may be under way on a shard, whatever their size.
const BODIES_KEPT_MIN: u64 = 4;

impl ShardServer {
    /// Bytes arrived.
    // With nothing held, whole frames are handled in the receive buffer itself: no copy.
    pub(super) fn receive(&mut self, turn: &mut impl ServerTurn, slot: Slot, bytes: &mut [u8]) {
        let Some(row) = self.row(slot) else { return };
        if row.state == State::Ending {
            return;
        }
        if !row.is_held() && row.input.is_empty() {
            let used = self.consume(turn, slot, bytes);
            self.hold(turn, slot, bytes.get(used..).unwrap_or_default());
            return self.count_held(turn, slot);
        }
        let before = row.input.len();
        row.input.extend_from_slice(bytes);
        if row.on_unread(turn.now(), before) {
            self.arm_deadline(turn, slot);
        }
        self.count_held(turn, slot);
        let Some(row) = self.row(slot) else { return };
        if row.is_held() {
            self.change_reading(turn, slot);
        } else {
            self.resume(turn, slot);
        }
    }

    /// Goes on with held input, if nothing holds it any more.
    pub(super) fn resume(&mut self, turn: &mut impl ServerTurn, slot: Slot) {
        let Some(row) = self.row(slot) else { return };
        if row.is_held() {
            // An answer has come, and another one is awaited: what is held meanwhile may be more now.
            return self.count_held(turn, slot);
        }
        let mut input = row.take_input();
        let used = self.consume(turn, slot, &mut input);
        let Some(row) = self.row(slot) else { return };
        assert!(row.input.is_empty(), "input is kept by whoever took it");
        if row.state == State::Ending {
            return;
        }
        if used < input.len() {
            input.drain(..used);
            row.input = input;
            self.await_rest(turn, slot);
        }
        // Only now: if each answer let in a receive, a pipeline of small messages that each wait
        // would have ever more held.
        self.change_reading(turn, slot);
        self.end_if_peer_ended(turn, slot);
        self.count_held(turn, slot);
    }

    fn change_reading(&mut self, turn: &mut impl ServerTurn, slot: Slot) {
        match self.row(slot).and_then(|row| row.on_input_kept()) {
            Some(Reading::Paused) => turn.pause_reading(slot),
            Some(Reading::Flows) => turn.resume_reading(slot),
            Some(Reading::Ended) | None => {}
        }
    }

    /// Keeps count of the input that is held for peers which nobody has vouched for, and of the bodies
    /// whose heads are signed. Beyond the node's bound somebody who holds much is sent away.
    // Per receive: some lengths and compares.
    pub(super) fn count_held(&mut self, turn: &mut impl ServerTurn, slot: Slot) {
        let Some(row) = self.row(slot) else { return };
        let (mut held, mut kept) = (0, 0);
        if !row.authorized && row.state != State::Ending {
            held = row.input.len() + row.decoder.held_bytes();
            if let Some(rare) = &row.rare {
                if let Some(body) = &rare.body {
                    held += body.head.len();
                    kept = body.kept_bytes();
                }
                if let Some(Pending::Api(call)) = &rare.pending {
                    kept += call.body_bytes();
                }
            }
        }
        let held = u32::try_from(held).unwrap_or(u32::MAX);
        let kept = u32::try_from(kept).unwrap_or(u32::MAX);
        let held_before = std::mem::replace(&mut row.held_bytes, held);
        let kept_before = self.bodies.bytes_of(slot.index);
        self.input_held = self.input_held + u64::from(held) - u64::from(held_before);
        if kept != kept_before {
            match kept_before {
                0 => self.bodies.begin(slot.index, self.app_of_body(slot), kept),
                _ => self.bodies.resize(slot.index, kept),
            }
        }
        let held_max = self.settings.input_held_bytes / u64::from(self.shards);
        if held > held_before && self.input_held > held_max {
            let victim = self.largest_holder(turn, slot, held);
            self.shed(turn, victim);
        }
        while kept > kept_before && self.bodies.bytes() > self.bodies_max() {
            self.shed_body(turn);
        }
    }

    /// What bodies that come or wait may hold, and as much again those that are read before one goes on alone. A few
    /// whole ones pass, however many shards share the bound.
    pub(super) fn bodies_max(&self) -> u64 {
        let held_max = self.settings.input_held_bytes / u64::from(self.shards);
        held_max.max(BODIES_KEPT_MIN * self.settings.request_bytes_max)
    }

    /// The app that holds the most in bodies that come or wait gives way with the largest of them: 503.
    fn shed_body(&mut self, turn: &mut impl ServerTurn) {
        let index = self.bodies.largest().expect("there are bodies");
        self.bodies.forget(index);
        self.counters.bodies_shed += 1;
        let row = &mut self.connections[index as usize];
        let generation = row.generation;
        let slot = Slot { index, generation };
        let body = row.rare.as_mut().and_then(|rare| rare.body.take());
        if let Some(body) = body {
            self.refuse_body(turn, slot, &body);
        } else {
            self.give_up_api_call(turn, slot);
        }
    }

    /// Who holds most: the one whose input grew, or one of some rows, others each time. Whoever
    /// fills the bound is found soon, and not those who hold a little of it.
    fn largest_holder(&mut self, turn: &mut impl ServerTurn, slot: Slot, held: u32) -> Slot {
        turn.spend(Work::ROW.times(HOLDERS_LOOKED_AT));
        let count = self.connections.len();
        let (mut victim, mut most) = (slot, held);
        for _ in 0..HOLDERS_LOOKED_AT.min(count) {
            self.holder_next = (self.holder_next + 1) % count;
            let row = &self.connections[self.holder_next];
            if row.held_bytes > most {
                most = row.held_bytes;
                victim = Slot {
                    index: u32::try_from(self.holder_next).expect("slot indices are u32"),
                    generation: row.generation,
                };
            }
        }
        victim
    }

    /// Sends a peer away, and forgets what it has sent.
    fn shed(&mut self, turn: &mut impl ServerTurn, slot: Slot) {
        self.counters.inputs_shed += 1;
        match self.held(slot).state {
            State::Upgrading | State::Open(_) => self.close(turn, slot, CloseCode::OVER_CAPACITY),
            State::ProxyHeader | State::Http(_) | State::Closing => turn.close_now(slot),
            State::Vacant | State::Ending => {}
        }
        let row = self.held(slot);
        row.input = Input::default();
        row.decoder = Decoder::default();
        let held = std::mem::take(&mut row.held_bytes);
        self.input_held -= u64::from(held);
    }

    /// The peer ended its side: what it asked for before is answered first.
    pub(super) fn on_peer_end(&mut self, turn: &mut impl ServerTurn, slot: Slot) {
        if let Some(row) = self.row(slot) {
            row.reading = Reading::Ended;
            self.end_if_peer_ended(turn, slot);
        }
    }

    fn end_if_peer_ended(&mut self, turn: &mut impl ServerTurn, slot: Slot) {
        let Some(row) = self.row(slot).filter(|row| row.reading == Reading::Ended) else {
            return;
        };
        if !row.is_held() && row.state != State::Ending {
            self.tell_ended(slot, Closed::ByPeer);
            self.end(turn, slot);
        }
    }

    /// The connection's answers have gone: on with its input.
    pub(super) fn on_outbox_drained(&mut self, turn: &mut impl ServerTurn, slot: Slot) {
        if let Some(row) = self.row(slot) {
            row.holds.remove(Hold::Outbox);
            if let Some(rare) = row.rare.as_mut() {
                rare.outbox_bytes = None;
            }
            self.list_on(slot);
            self.resume(turn, slot);
        }
    }

    /// Gives the connection's held input its share of a later turn.
    pub(super) fn queue_input(&mut self, slot: Slot) {
        let Some(row) = self.row(slot) else { return };
        if row.holds.add(Hold::Turn) {
            self.ready.push_back(slot);
        }
    }

    /// Goes on with input that had used up its share: one share for each in a turn, or every turn
    /// would be as long as it may be for as long as somebody floods, and all others wait for its end.
    pub(super) fn continue_input(&mut self, turn: &mut impl ServerTurn) {
        for _ in 0..self.ready.len() {
            if turn.work_left() == Work(0) {
                return;
            }
            let slot = self.ready.pop_front().expect("as many as were counted");
            if let Some(row) = self.row(slot) {
                row.holds.remove(Hold::Turn);
                self.resume(turn, slot);
            }
        }
    }

    /// Handles what is whole in `bytes` and returns how many bytes that was.
    fn consume(&mut self, turn: &mut impl ServerTurn, slot: Slot, bytes: &mut [u8]) -> usize {
        let mut used = 0;
        let share_ends = turn.work_left().0.saturating_sub(SHARE.0);
        while let Some(rest) = bytes.get_mut(used..).filter(|rest| !rest.is_empty()) {
            let Some(row) = self.row(slot).filter(|row| row.state != State::Ending) else {
                return bytes.len();
            };
            if row.is_held() {
                break;
            }
            if used > 0 && turn.work_left().0 <= share_ends {
                self.queue_input(slot);
                break;
            }
            if turn.is_congested(slot) {
                self.held(slot).holds.add(Hold::Outbox);
                turn.await_drained(slot);
                break;
            }
            let has_body = self.has_body_under_way(slot);
            let taken = match self.held(slot).state {
                State::ProxyHeader => self.take_proxy_header(turn, slot, rest),
                State::Http(_) if has_body => self.take_body(turn, slot, rest),
                State::Http(_) => self.take_request(turn, slot, rest),
                State::Upgrading | State::Open(_) | State::Closing => {
                    self.take_frame(turn, slot, rest)
                }
                State::Vacant | State::Ending => return bytes.len(),
            };
            if taken == 0 {
                break;
            }
            used += taken;
        }
        used
    }

    /// Keeps what is left of a receive.
    fn hold(&mut self, turn: &mut impl ServerTurn, slot: Slot, rest: &[u8]) {
        let Some(row) = self.row(slot).filter(|row| row.state != State::Ending) else {
            return;
        };
        if rest.is_empty() {
            return;
        }
        row.input.extend_from_slice(rest);
        self.await_rest(turn, slot);
    }

    /// A part of a frame or request is in the input.
    fn await_rest(&mut self, turn: &mut impl ServerTurn, slot: Slot) {
        let now = turn.now();
        let settings = Rc::clone(&self.settings);
        let row = self.held(slot);
        if row.state == State::Http(Awaited::Next) && !row.is_held() {
            // The next request on a kept connection has begun: it must be whole in time.
            row.state = State::Http(Awaited::Rest);
            row.until = now.plus(settings.handshake_timeout_ms);
            turn.arm_timer(slot, row.until);
        } else if row.is_open() && !row.is_held() {
            row.on_part(now, &settings.connections);
        }
    }
}
