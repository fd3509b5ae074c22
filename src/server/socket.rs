//! Data path. Frames of one WebSocket connection, and its silence.
//!
//! Owns: decoding, the performance of a connection's steps, keep-alive and its deadlines.
//! May depend on: `ws::codec`, `connection`, the other files of this room.
//! Invariants: any complete frame proves life; nothing is handled while an answer is awaited; what a
//! frame means is decided in `connection::step`.

use std::rc::Rc;

use shards::{application::Slot, work::Work};

use super::{ServerTurn, ShardServer};
use crate::{
    connection::{
        deadline::Due,
        effect::{Effect, Tally, View},
        row::{Awaited, State},
    },
    metrics::counters::ConnectionError,
    protocol::{app::AppIndex, code::CloseCode, outgoing},
    ws::{
        codec::{Decoded, Item, Limits},
        encode,
    },
};

impl ShardServer {
    /// Handles the next frame in `bytes`; returns how many bytes it took, 0 when there is none yet.
    pub(super) fn take_frame(
        &mut self,
        turn: &mut impl ServerTurn,
        slot: Slot,
        bytes: &mut [u8],
    ) -> usize {
        let limits = Limits {
            message_bytes_max: self.settings.message_bytes_max as usize,
        };
        let row = self
            .row(slot)
            .expect("take_frame follows a look at the row");
        let mut decoder = std::mem::take(&mut row.decoder);
        let result = decoder.decode(bytes, &limits);
        let consumed = match result {
            Ok(Decoded { consumed, item }) => {
                turn.spend(Work::FRAME.and(Work::bytes(consumed)));
                if consumed > 0 {
                    let now = turn.now();
                    let row = &mut self.connections[slot.index as usize];
                    if row.keep_alive.heard(now) && row.is_open() {
                        self.arm_deadline(turn, slot);
                    }
                }
                if let Some(item) = item {
                    self.take_item(turn, slot, item);
                }
                consumed
            }
            Err(error) => {
                let effect = self.held(slot).on_broken(&error);
                self.perform_step(turn, slot, effect);
                0
            }
        };
        if consumed > 0 {
            let rules = &self.settings.connections;
            let row = &mut self.connections[slot.index as usize];
            row.on_frame(turn.now(), rules, decoder.is_inside_message());
        }
        if decoder.held_bytes() > 0 && !decoder.is_inside_message() {
            // The message was handled: an idle connection holds no buffer. Nothing can come of it.
            decoder.decode(&mut [], &limits).ok();
        }
        if let Some(row) = self.row(slot) {
            row.decoder = decoder;
        }
        consumed
    }

    /// Steps the connection by a frame, and does what follows.
    fn take_item(&mut self, turn: &mut impl ServerTurn, slot: Slot, item: Item<'_>) {
        let row = &mut self.connections[slot.index as usize];
        let app = self.apps.get(row.app);
        let mut view = View {
            now: turn.now(),
            node: &self.settings.connections,
            app: app.map(|app| &app.entry.rules),
            channels: &self.locals,
            names: &self.name_hasher,
            token: &mut self.token,
            tally: Tally::default(),
        };
        let effect = row.on_item(&mut view, item);
        let (app, tally) = (row.app, view.tally);
        if tally != Tally::default() {
            self.count(turn, slot, app, tally);
        }
        self.perform_step(turn, slot, effect);
    }

    fn count(&mut self, turn: &mut impl ServerTurn, slot: Slot, app: AppIndex, tally: Tally) {
        turn.spend(tally.work);
        let counters = self.counters.app(app);
        counters.messages_received += u64::from(tally.messages);
        counters.received_bytes += tally.message_bytes;
        counters.client_event_checks += u64::from(tally.client_event_checks);
        counters.client_event_limited += u64::from(tally.client_events_limited);
        for (error, count) in [
            (ConnectionError::InvalidMessageFormat, tally.malformed),
            (ConnectionError::MissingEventName, tally.nameless),
            (ConnectionError::ProtocolError, tally.binary),
            (ConnectionError::AuthenticationFailed, tally.unauthorized),
            (ConnectionError::AuthenticationError, tally.sign_ins_refused),
        ] {
            if count > 0 {
                let errors = &mut counters.faults_mut().connection_errors;
                errors[error as usize] += u64::from(count);
            }
        }
        if tally.throttled > 0 {
            self.counters.inputs_throttled += u64::from(tally.throttled);
            self.arm_deadline(turn, slot);
        }
    }

    /// Does what a step of a connection asks for.
    fn perform_step(&mut self, turn: &mut impl ServerTurn, slot: Slot, effect: Effect<'_>) {
        match effect {
            Effect::Nothing => {}
            Effect::Reply(reply) => {
                self.tell_answer(slot, &reply);
                self.reply(turn, slot, |out| reply.write(out));
            }
            Effect::Pong(payload) => self.reply_pong(turn, slot, payload),
            Effect::Publish(publish) => self.publish_client_event(turn, slot, &publish),
            Effect::Join {
                channel,
                key,
                member,
            } => self.join(turn, slot, &channel, key, member),
            Effect::Snapshot { channel } => self.ask_snapshot(turn, slot, channel),
            Effect::Leave(left) => self.leave(turn, slot, left),
            Effect::SignIn { user_id } => self.ask_sign_in(turn, slot, user_id),
            Effect::WatchAgain { unwatched } => self.watch_again(turn, slot, unwatched),
            Effect::Close { code, reason } => self.close_saying(turn, slot, code, reason),
            Effect::BreakOff { code } => {
                let app = self.held(slot).app;
                let kind = match code {
                    CloseCode::TOO_BIG => ConnectionError::TooLarge,
                    _ => ConnectionError::ProtocolError,
                };
                self.counters.app(app).faults_mut().connection_errors[kind as usize] += 1;
                self.close(turn, slot, code);
                self.end(turn, slot);
            }
            Effect::EchoClose { code } => {
                self.tell_closed(slot, code, "closed by the client");
                self.reply_close(turn, slot, code, "");
                self.end(turn, slot);
            }
            Effect::End => self.end(turn, slot),
        }
    }

    /// The connection's timer fell due.
    pub(super) fn check_deadlines(&mut self, turn: &mut impl ServerTurn, slot: Slot) {
        let now = turn.now();
        loop {
            let outbox_bytes = turn.outbox_bytes(slot);
            let settings = Rc::clone(&self.settings);
            let Some(row) = self.row(slot) else { return };
            match row.on_timer(now, &settings.connections, outbox_bytes) {
                Due::Nothing => return self.arm_deadline(turn, slot),
                Due::Resume => self.queue_input(slot),
                Due::Ping => self.ping(turn, slot),
                Due::Close { code, reason } => {
                    let error = match code {
                        CloseCode::UNAUTHORIZED => Some(ConnectionError::UnauthorizedTimeout),
                        CloseCode::RECONNECT => None,
                        _ => Some(ConnectionError::PongTimeout),
                    };
                    let app = row.app;
                    match error {
                        Some(error) => {
                            self.counters.app(app).faults_mut().connection_errors
                                [error as usize] += 1;
                        }
                        None => self.counters.connections_aged += 1,
                    }
                    return self.close_saying(turn, slot, code, reason);
                }
                Due::NoProxyHeader => return self.refuse_late_proxy(turn, slot),
                Due::TimedOut => return self.refuse_late_request(turn, slot),
                Due::End => {
                    let has_body = row.rare.as_ref().is_some_and(|rare| rare.body.is_some());
                    // An answered request ends the wait for the first one.
                    let never_asked = row.state == State::Http(Awaited::Rest) && !has_body;
                    self.counters.handshake_failures[0] += u64::from(never_asked);
                    return self.end(turn, slot);
                }
                Due::Cut => {
                    row.state = State::Ending;
                    return turn.close_now(slot);
                }
            }
        }
    }

    /// Asks whether the client lives: as Pusher does, and as WebSocket does, since some clients (npm
    /// `pusher-client`) answer only that.
    fn ping(&mut self, turn: &mut impl ServerTurn, slot: Slot) {
        let mut frames = std::mem::take(&mut self.scratch);
        frames.clear();
        let start = encode::begin_text(&mut frames);
        outgoing::ping(&mut frames);
        encode::finish_text(&mut frames, start);
        let text_bytes = frames.len();
        encode::ping_frame(&mut frames, b"");
        turn.send(slot, &frames);
        self.count_reply(slot, text_bytes);
        self.scratch = frames;
    }

    /// Arms the connection's timer for whatever is due first.
    pub(super) fn arm_deadline(&mut self, turn: &mut impl ServerTurn, slot: Slot) {
        let row = &self.connections[slot.index as usize];
        if let Some((at, _)) = row.next_deadline(&self.settings.connections) {
            turn.arm_timer(slot, at);
        }
    }
}
