//! Data path. The steps of an open connection: a frame in, one effect out.
//!
//! Owns: what each frame means in each state.
//! May depend on: `ws::codec`, `protocol::incoming`, the other files of this room.
//! Invariants: after a close was sent, whatever comes but a close is discarded; a step reads no clock
//! and performs nothing.

use shards::{application::Millis, work::Work};

use super::{
    effect::{Effect, Reply, View},
    row::{Awaited, Connection, State},
    rules::NodeRules,
};
use crate::{
    protocol::{
        code::CloseCode,
        incoming::{Incoming, IncomingError},
    },
    ws::codec::{Item, WsError, whole_frame_bytes},
};

impl Connection {
    /// A frame has ended, and with it its message, unless that `goes_on` in the next one.
    pub fn on_frame(&mut self, now: Millis, node: &NodeRules, goes_on: bool) {
        if goes_on {
            self.on_part(now, node);
        } else if self.is_open() {
            self.state = State::Open(Awaited::Next);
        }
    }

    /// A part of a message is here: the whole must be in time, whatever its fragments are and
    /// whatever comes between them.
    // No timer is armed: the next look at the connection's silence comes before the deadline.
    pub fn on_part(&mut self, now: Millis, node: &NodeRules) {
        if self.state == State::Open(Awaited::Next) {
            self.state = State::Open(Awaited::Rest);
            self.until = now.plus(node.message_within_ms);
        }
    }

    /// More input arrived behind `before` bytes that nobody has looked at. A frame that is whole by now
    /// proves life, the bytes of one that is not prove nothing. True if the wait for a pong has ended.
    // Each frame's header is looked at once, only while answers pile up that the peer does not take.
    pub fn on_unread(&mut self, now: Millis, before: usize) -> bool {
        // Where the hold is ours, silence does not count at all: see `on_timer`.
        if !self.is_open() || !self.is_held() || self.holds.are_ours() {
            return false;
        }
        let mut whole = self.rare.as_ref().map_or(0, |rare| rare.whole_bytes);
        let rest = |whole: usize| self.input.get(whole..).and_then(whole_frame_bytes);
        while let Some(frame_bytes) = rest(whole) {
            whole += frame_bytes;
        }
        self.rare().whole_bytes = whole;
        whole > before && self.keep_alive.heard(now)
    }

    /// A whole frame or message arrived.
    pub fn on_item<'a>(&mut self, view: &mut View<'_>, item: Item<'a>) -> Effect<'a> {
        match (self.state, item) {
            // The echo of our close, or the peer's own close while ours is on its way.
            (State::Closing, Item::Close(..)) => Effect::End,
            (State::Closing, _) => Effect::Nothing,
            (_, Item::Text(text)) => self.on_text(view, text),
            (_, Item::Binary(_)) => {
                view.tally.binary += 1;
                Effect::Close {
                    code: CloseCode::UNSUPPORTED_DATA,
                    reason: CloseCode::UNSUPPORTED_DATA.reason(),
                }
            }
            (_, Item::Ping(payload)) => Effect::Pong(payload),
            (_, Item::Pong(_)) => Effect::Nothing,
            (_, Item::Close(code, _)) => Effect::EchoClose { code },
        }
    }

    /// The peer's bytes are no frames (RFC 6455, 7.1.7).
    pub fn on_broken(&mut self, error: &WsError) -> Effect<'static> {
        if self.state == State::Closing {
            // What follows a close is of no interest, right or wrong.
            return Effect::End;
        }
        Effect::BreakOff {
            code: CloseCode(error.close_code()),
        }
    }

    fn on_text<'a>(&mut self, view: &mut View<'_>, text: &'a str) -> Effect<'a> {
        let escapes = text.bytes().filter(|byte| *byte == b'\\').count();
        let parsed = Work::bytes_hashed(text.len()).and(Work::escapes(escapes));
        view.tally.work = Work::TEXT.and(parsed);
        let incoming = match Incoming::parse(text) {
            Ok(incoming) => incoming,
            Err(error) => {
                view.tally.malformed += u32::from(error == IncomingError::Malformed);
                view.tally.nameless += u32::from(error == IncomingError::Nameless);
                view.tally.sign_ins_refused += u32::from(error == IncomingError::BadSignIn);
                return Effect::Reply(Reply::Error {
                    code: error.code(),
                    text: error.message(),
                    channel: None,
                });
            }
        };
        view.tally.messages += 1;
        view.tally.message_bytes += text.len() as u64;
        match incoming {
            Incoming::ClientEvent {
                event,
                event_token,
                channel,
                data,
            } => self.client_event(view, &event, event_token, channel, data),
            Incoming::Ping => Effect::Reply(Reply::Pong),
            Incoming::Subscribe {
                channel,
                auth,
                channel_data,
            } => self.subscribe(view, channel, auth.as_deref(), &channel_data),
            Incoming::Unsubscribe { channel } => self.unsubscribe(view, &channel),
            Incoming::SignIn { auth, user_data } => self.sign_in(view, &auth, &user_data),
            Incoming::Pong | Incoming::Ignored => Effect::Nothing,
        }
    }
}
