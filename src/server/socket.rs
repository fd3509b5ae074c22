//! Data path. Frames of one WebSocket connection, and its silence.
//!
//! Owns: decoding, dispatch of what a client says, keep-alive and its deadlines.
//! May depend on: `ws::codec`, `protocol::incoming`, `connection`, the other files of this room.
//! Invariants: any complete frame proves life; nothing is handled while an answer is awaited; after
//! a close was sent or received, data is discarded.

use shards::{
    application::{Millis, Slot},
    work::Work,
};

use super::{ServerTurn, ShardServer, client_event::Sent};
use crate::{
    connection::{
        body::Pace,
        keep_alive::{Due, KeepAlive},
        row::State,
    },
    metrics::counters::ConnectionError,
    protocol::{
        code::CloseCode,
        incoming::{Incoming, IncomingError},
        outgoing,
    },
    ws::{
        codec::{Decoded, Item, Limits, WsError},
        encode,
    },
};

/// How soon a late message is looked at again whose connection's input we hold.
const HELD_MESSAGE_MS: u64 = 1_000;

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
                    if row.keep_alive.heard(now) && row.established {
                        self.arm_silence(turn, slot);
                    }
                }
                if let Some(item) = item {
                    self.take_item(turn, slot, item);
                }
                consumed
            }
            Err(error) => {
                self.break_off(turn, slot, error);
                0
            }
        };
        if consumed > 0 {
            self.note_message(turn.now(), slot, decoder.is_inside_message());
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

    /// A frame has ended, and with it its message unless more fragments follow.
    // Per frame: a row that is in the cache already.
    fn note_message(&mut self, now: Millis, slot: Slot, is_inside: bool) {
        if is_inside {
            self.begin_message(now, slot);
        } else if let Some(row) = self.row(slot).filter(|row| row.state == State::Open) {
            row.has_begun = false;
        }
    }

    /// A part of a message is here: the whole must be in time, whatever its fragments are and
    /// whatever comes between them.
    // No timer is armed: the next look at the connection's silence comes before the deadline.
    pub(super) fn begin_message(&mut self, now: Millis, slot: Slot) {
        let pace = Pace {
            grace_ms: self.settings.activity_timeout_s * 1_000,
            bytes_per_s_min: self.settings.body_rate_min_bytes_per_s,
        };
        let within_ms = pace.within_ms(u64::from(self.settings.message_bytes_max));
        if let Some(row) = self.row(slot).filter(|row| row.state == State::Open)
            && !std::mem::replace(&mut row.has_begun, true)
        {
            row.until = now.plus(within_ms);
        }
    }

    /// Whether a message that was begun has come too slowly. While we hold the input, its end may
    /// lie there unread.
    fn is_message_late(&mut self, now: Millis, slot: Slot) -> bool {
        let row = self.held(slot);
        if !row.has_begun || now < row.until {
            return false;
        }
        if row.is_held() {
            row.until = now.plus(HELD_MESSAGE_MS);
            return false;
        }
        true
    }

    fn take_item(&mut self, turn: &mut impl ServerTurn, slot: Slot, item: Item<'_>) {
        let closing = self.held(slot).state == State::Closing;
        match item {
            // The echo of our close, or the peer's own close while ours is on its way.
            Item::Close(..) if closing => self.end(turn, slot),
            _ if closing => {}
            Item::Text(text) => self.take_text(turn, slot, text),
            Item::Binary(_) => self.close(turn, slot, CloseCode::UNSUPPORTED_DATA),
            Item::Ping(payload) => self.reply_pong(turn, slot, payload),
            Item::Pong(_) => {}
            Item::Close(code, _) => {
                self.reply_close(turn, slot, code, "");
                self.end(turn, slot);
            }
        }
    }

    fn break_off(&mut self, turn: &mut impl ServerTurn, slot: Slot, error: WsError) {
        let row = self.held(slot);
        let (app, state) = (row.app, row.state);
        if state == State::Closing {
            self.end(turn, slot); // What follows a close is of no interest, right or wrong.
            return;
        }
        let code = CloseCode(error.close_code());
        let kind = match code {
            CloseCode::TOO_BIG => ConnectionError::TooLarge,
            _ => ConnectionError::ProtocolError,
        };
        self.counters.app(app).connection_errors[kind as usize] += 1;
        self.close(turn, slot, code);
        // Where the peer's next frame would begin is unknown: no echo is waited for (RFC 6455, 7.1.7).
        self.end(turn, slot);
    }

    fn take_text(&mut self, turn: &mut impl ServerTurn, slot: Slot, text: &str) {
        turn.spend(Work::TEXT.and(Work::bytes_hashed(text.len())));
        let app = self.held(slot).app;
        let counters = self.counters.app(app);
        let incoming = match Incoming::parse(text) {
            Ok(incoming) => incoming,
            Err(error) => {
                if error == IncomingError::Malformed {
                    counters.connection_errors[ConnectionError::InvalidMessageFormat as usize] += 1;
                }
                self.reply(turn, slot, |out| {
                    outgoing::error(out, error.code(), error.message(), None);
                });
                return;
            }
        };
        counters.messages_received += 1;
        counters.received_bytes += text.len() as u64;
        match incoming {
            Incoming::ClientEvent {
                event,
                event_token,
                channel,
                data,
            } => {
                let channel = channel.as_deref();
                let sent = Sent {
                    event: &event,
                    event_token,
                    channel,
                    data,
                };
                self.client_event(turn, slot, &sent);
            }
            Incoming::Ping => self.reply(turn, slot, outgoing::pong),
            Incoming::Subscribe {
                channel,
                auth,
                channel_data,
            } => {
                self.subscribe(turn, slot, &channel, auth.as_deref(), &channel_data);
            }
            Incoming::Unsubscribe { channel } => self.unsubscribe(turn, slot, &channel),
            Incoming::SignIn { auth, user_data } => self.sign_in(turn, slot, &auth, &user_data),
            Incoming::Pong | Incoming::Ignored => {}
        }
    }

    /// The connection's timer fell due.
    pub(super) fn check_deadlines(&mut self, turn: &mut impl ServerTurn, slot: Slot) {
        let now = turn.now();
        let Some(row) = self.row(slot) else { return };
        match row.state {
            State::Vacant | State::Ending => {}
            State::Http => self.check_request_deadline(turn, slot),
            State::Closing if now >= row.until => {
                row.state = State::Ending;
                turn.close_now(slot);
            }
            State::Closing => turn.arm_timer(slot, row.until),
            State::Open => self.check_silence(turn, slot),
        }
    }

    fn check_silence(&mut self, turn: &mut impl ServerTurn, slot: Slot) {
        let now = turn.now();
        let activity_ms = self.settings.activity_timeout_s * 1_000;
        let row = self.held(slot);
        let app = row.app;
        let rare = row.rare.as_deref_mut();
        if let Some(rare) = rare.filter(|it| it.throttled_until.is_some_and(|at| now >= at)) {
            rare.throttled_until = None;
            row.throttled = false;
            self.queue_input(slot);
        }
        let row = self.held(slot);
        row.shed_rare();
        let authorize_by = row.rare.as_ref().and_then(|rare| rare.authorize_by);
        if authorize_by.is_some_and(|by| now >= by) && !row.authorized {
            let errors = &mut self.counters.app(app).connection_errors;
            errors[ConnectionError::UnauthorizedTimeout as usize] += 1;
            let reason = crate::protocol::code::NOT_AUTHORIZED_IN_TIME;
            self.close_saying(turn, slot, CloseCode::UNAUTHORIZED, reason);
            return;
        }
        if self.is_message_late(now, slot) {
            let errors = &mut self.counters.app(app).connection_errors;
            errors[ConnectionError::PongTimeout as usize] += 1;
            let reason = crate::protocol::code::MESSAGE_NOT_IN_TIME;
            self.close_saying(turn, slot, CloseCode::PONG_NOT_RECEIVED, reason);
            return;
        }
        let row = self.held(slot);
        if row.waiting || row.pressed || row.throttled || row.queued {
            // Its input is held by us: what it has to say was not listened to.
            row.keep_alive = KeepAlive::new(now);
        }
        match row.keep_alive.check(now, activity_ms) {
            Due::Nothing => {}
            Due::Ping => self.ping(turn, slot),
            Due::GiveUp => {
                let errors = &mut self.counters.app(app).connection_errors;
                errors[ConnectionError::PongTimeout as usize] += 1;
                self.close(turn, slot, CloseCode::PONG_NOT_RECEIVED);
                return;
            }
        }
        self.arm_silence(turn, slot);
    }

    /// Asks whether the client lives: as Pusher does, and as WebSocket does, since some clients (npm
    /// `pusher-client`) answer only that.
    fn ping(&mut self, turn: &mut impl ServerTurn, slot: Slot) {
        let mut frames = std::mem::take(&mut self.scratch);
        frames.clear();
        let start = encode::begin_text(&mut frames);
        outgoing::ping(&mut frames);
        encode::finish_text(&mut frames, start);
        encode::ping_frame(&mut frames, b"");
        self.reply_frame(turn, slot, &frames);
        self.scratch = frames;
    }

    /// Arms the timer of an open connection for whatever is due first.
    pub(super) fn arm_silence(&mut self, turn: &mut impl ServerTurn, slot: Slot) {
        let activity_ms = self.settings.activity_timeout_s * 1_000;
        let row = self.held(slot);
        let mut at = row.keep_alive.next_deadline(activity_ms);
        if row.has_begun {
            at = at.min(row.until);
        }
        if let Some(rare) = &row.rare {
            let sooner = [rare.authorize_by, rare.throttled_until];
            at = sooner.into_iter().flatten().fold(at, Millis::min);
        }
        turn.arm_timer(slot, at);
    }
}
