//! By when a connection must have done what, and what follows if it has not.
//!
//! Owns: `Deadline`, `Due`, the times that no key sets.
//! May depend on: the other files of this room.
//! Invariants: a connection has one timer, armed for the first of its deadlines or earlier; what is
//! due is due once, since answering it moves or ends the deadline.

use shards::application::Millis;

use super::{
    keep_alive::{Due as SilenceDue, KeepAlive},
    row::{Awaited, Connection, Hold, State},
    rules::NodeRules,
};
use crate::protocol::code::{CloseCode, MESSAGE_NOT_IN_TIME, NOT_AUTHORIZED_IN_TIME};

/// What has a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deadline {
    /// A proxy's word whose connection it is.
    ProxyHeader,
    /// HTTP: the rest of a request, or the next one.
    Request,
    /// HTTP: our answer. Homes answer in microseconds, or when a channel has caught up with its
    /// fan-out; a bridge that is gone must not keep connections.
    Answer,
    /// HTTP: the peer has taken some of its answers.
    Taking,
    /// The peer's close frame.
    CloseEcho,
    /// The rest of a message.
    Message,
    /// Any frame: without one the peer is pinged.
    Silence,
    /// A sign-in, or a subscription that needs authentication.
    Authorization,
    /// Our own: held input goes on.
    Rate,
    /// Our own: it has lasted long enough.
    Age,
}

/// What follows a deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// The timer is to be armed for what comes next.
    Nothing,
    /// Held input may go on.
    Resume,
    Ping,
    Close {
        code: CloseCode,
        reason: &'static str,
    },
    /// A proxy did not say in time whose connection it is: the end, without a word.
    NoProxyHeader,
    /// The request did not come in time: 408.
    TimedOut,
    /// Nothing was asked: the connection ends without a word.
    End,
    /// The connection ends at once, whatever is queued.
    Cut,
}

/// How long a kept connection may wait for its next request, or take no byte of its answers.
pub const KEEP_ALIVE_MS: u64 = 75_000;
/// How much longer than for its request a client waits for an answer at the most.
const WAITING_MS: u64 = 30_000;
/// For how much longer a kept connection is looked at: what has arrived by then, though no turn has
/// come to it yet, is answered.
const LAST_LOOK_MS: u64 = 200;
/// How soon a late message is looked at again whose connection's input we hold.
const HELD_MESSAGE_MS: u64 = 1_000;

impl Connection {
    /// The first deadline, if there is any.
    pub fn next_deadline(&self, node: &NodeRules) -> Option<(Millis, Deadline)> {
        match self.state {
            State::Vacant | State::Ending => None,
            State::ProxyHeader => Some((self.until, Deadline::ProxyHeader)),
            State::Http(awaited) => Some(self.http_deadline(awaited)),
            State::Closing => Some((self.until, Deadline::CloseEcho)),
            State::Upgrading | State::Open(_) => {
                let silence = self.keep_alive.next_deadline(node.activity_timeout_ms);
                let rare = self.rare.as_deref();
                let authorize_by = rare.and_then(|rare| rare.authorize_by);
                let throttled_until = rare.and_then(|rare| rare.throttled_until);
                let has_begun = self.state == State::Open(Awaited::Rest);
                let all = [
                    throttled_until.map(|at| (at, Deadline::Rate)),
                    authorize_by.map(|at| (at, Deadline::Authorization)),
                    has_begun.then_some((self.until, Deadline::Message)),
                    Some((silence, Deadline::Silence)),
                    self.ends_at(node).map(|at| (at, Deadline::Age)),
                ];
                all.into_iter().flatten().min_by_key(|(at, _)| *at)
            }
        }
    }

    /// When an open connection has lasted long enough. Those that came in one moment go within a
    /// tenth of the time, each when its id says.
    fn ends_at(&self, node: &NodeRules) -> Option<Millis> {
        let age_max_ms = node.age_max_ms;
        if age_max_ms == 0 || !self.is_open() {
            return None;
        }
        let later_ms = self.socket_id.low() % (age_max_ms / 10 + 1);
        let opened_at = Millis(u64::from(self.opened_at_s) * 1_000);
        Some(opened_at.plus(age_max_ms + later_ms))
    }

    fn http_deadline(&self, awaited: Awaited) -> (Millis, Deadline) {
        if self.holds.has(Hold::Outbox) {
            (self.until, Deadline::Taking)
        } else if self.holds.has(Hold::Answer) {
            (self.until.plus(WAITING_MS), Deadline::Answer)
        } else if awaited == Awaited::Next && self.is_idle() {
            (self.until.plus(LAST_LOOK_MS), Deadline::Request)
        } else {
            (self.until, Deadline::Request)
        }
    }

    /// Nothing of a request is here.
    fn is_idle(&self) -> bool {
        let body = self.rare.as_ref().and_then(|rare| rare.body.as_ref());
        body.is_none() && self.input.is_empty()
    }

    /// Does what is due first; called until it says `Nothing`. `outbox_bytes` is what the
    /// connection has not taken yet.
    pub fn on_timer(&mut self, now: Millis, node: &NodeRules, outbox_bytes: usize) -> Due {
        if matches!(self.state, State::Upgrading | State::Open(_)) && self.holds.are_ours() {
            // What it has to say was not listened to.
            self.keep_alive = KeepAlive::new(now);
        }
        let Some((at, deadline)) = self.next_deadline(node) else {
            return Due::Nothing;
        };
        if now < at {
            return Due::Nothing;
        }
        match deadline {
            Deadline::Taking => {
                let before = self.rare().outbox_bytes.replace(outbox_bytes);
                if before == Some(outbox_bytes) {
                    return Due::Cut;
                }
                self.until = now.plus(KEEP_ALIVE_MS);
                Due::Nothing
            }
            Deadline::ProxyHeader => Due::NoProxyHeader,
            Deadline::Answer | Deadline::CloseEcho => Due::Cut,
            Deadline::Request => self.request_is_due(),
            Deadline::Message if self.is_held() => {
                // Its end may lie there unread.
                self.until = now.plus(HELD_MESSAGE_MS);
                Due::Nothing
            }
            Deadline::Message => Due::Close {
                code: CloseCode::PONG_NOT_RECEIVED,
                reason: MESSAGE_NOT_IN_TIME,
            },
            Deadline::Silence => match self.keep_alive.check(now, node.activity_timeout_ms) {
                SilenceDue::Nothing => Due::Nothing,
                SilenceDue::Ping => Due::Ping,
                SilenceDue::GiveUp => Due::Close {
                    code: CloseCode::PONG_NOT_RECEIVED,
                    reason: CloseCode::PONG_NOT_RECEIVED.reason(),
                },
            },
            Deadline::Authorization => {
                self.rare().authorize_by = None;
                self.shed_rare();
                if self.authorized {
                    return Due::Nothing;
                }
                Due::Close {
                    code: CloseCode::UNAUTHORIZED,
                    reason: NOT_AUTHORIZED_IN_TIME,
                }
            }
            Deadline::Rate => {
                self.rare().throttled_until = None;
                self.shed_rare();
                self.holds.remove(Hold::Rate);
                Due::Resume
            }
            Deadline::Age => Due::Close {
                code: CloseCode::RECONNECT,
                reason: CloseCode::RECONNECT.reason(),
            },
        }
    }

    fn request_is_due(&self) -> Due {
        let body = self.rare.as_ref().and_then(|rare| rare.body.as_ref());
        let is_answered = body.is_some_and(|body| body.is_answered());
        if self.is_idle() || is_answered {
            Due::End
        } else {
            Due::TimedOut
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::fixture::{Step, app_rules, node_rules};
    use crate::{http::proxy_header::Source, protocol::socket_id::SocketId};

    /// What is due at each time, from the first to the last.
    fn dues(connection: &mut Connection, times: &[u64]) -> Vec<Due> {
        let due = |at: &u64| connection.on_timer(Millis(*at), &node_rules(), 100);
        times.iter().map(due).collect()
    }

    fn open_at(now: u64) -> Connection {
        let mut connection = Step::new(app_rules()).connection;
        connection.keep_alive = KeepAlive::new(Millis(now));
        connection
    }

    fn close(code: CloseCode) -> Due {
        let reason = code.reason();
        Due::Close { code, reason }
    }

    #[test]
    fn a_silent_client_is_pinged_then_closed_with_4201() {
        let times = [119_999, 120_000, 120_001, 149_999, 150_000];
        let given_up = close(CloseCode::PONG_NOT_RECEIVED);
        assert_eq!(
            dues(&mut open_at(0), &times),
            [
                Due::Nothing,
                Due::Ping,
                Due::Nothing,
                Due::Nothing,
                given_up
            ]
        );
    }

    #[test]
    fn whoever_we_do_not_listen_to_is_not_silent() {
        let mut held = open_at(0);
        held.holds.add(Hold::FanOut);
        assert_eq!(dues(&mut held, &[120_000]), [Due::Nothing]);
        held.holds.remove(Hold::FanOut);
        assert_eq!(
            dues(&mut held, &[239_999, 240_000]),
            [Due::Nothing, Due::Ping]
        );
        let mut choked = open_at(0);
        choked.holds.add(Hold::Outbox);
        assert_eq!(dues(&mut choked, &[120_000]), [Due::Ping]);
    }

    #[test]
    fn who_does_not_sign_in_in_time_is_closed_with_4009_and_who_has_is_left_alone() {
        let mut late = open_at(0);
        late.rare().authorize_by = Some(Millis(30_000));
        let due = dues(&mut late, &[29_999, 30_000]);
        let unauthorized = Due::Close {
            code: CloseCode::UNAUTHORIZED,
            reason: NOT_AUTHORIZED_IN_TIME,
        };
        assert_eq!(due, [Due::Nothing, unauthorized]);
        let mut in_time = open_at(0);
        in_time.rare().authorize_by = Some(Millis(30_000));
        in_time.authorize();
        assert_eq!(dues(&mut in_time, &[30_000]), [Due::Nothing]);
    }

    #[test]
    fn a_frame_that_is_not_whole_is_no_sign_of_life_read_or_unread() {
        // RFC 6455, section 5.7: a masked "Hello".
        let frame = [
            0x81, 0x85, 0x37, 0xFA, 0x21, 0x3D, 0x7F, 0x9F, 0x4D, 0x51, 0x58,
        ];
        let last = frame.len() - 1;
        // It is read: what is there of it waits for the rest.
        let mut trickling = open_at(0);
        trickling.on_part(Millis(1_000), &node_rules());
        assert!(!trickling.on_unread(Millis(119_000), 0));
        assert_eq!(
            dues(&mut trickling, &[119_999, 120_000]),
            [Due::Nothing, Due::Ping]
        );
        // Nobody reads it, since the peer does not take its answers.
        let mut choked = open_at(0);
        choked.holds.add(Hold::Outbox);
        let receive = |choked: &mut Connection, at, bytes: &[u8]| {
            let before = choked.input.len();
            choked.input.extend_from_slice(bytes);
            choked.on_unread(Millis(at), before)
        };
        for (at, byte) in (1..).zip(&frame[..last]) {
            assert!(!receive(&mut choked, at * 9_000, &[*byte]));
        }
        let due = dues(&mut choked, &[119_999, 120_000, 149_999]);
        assert_eq!(due, [Due::Nothing, Due::Ping, Due::Nothing]);
        // Its last byte is, once.
        assert!(receive(&mut choked, 149_999, &frame[last..]));
        assert!(!receive(&mut choked, 200_000, &frame[..last]));
        let due = dues(&mut choked, &[269_998, 269_999, 299_998, 299_999]);
        let given_up = close(CloseCode::PONG_NOT_RECEIVED);
        assert_eq!(due, [Due::Nothing, Due::Ping, Due::Nothing, given_up]);
        // Two at once are one sign, and what is left of the input is counted anew when it was taken out.
        let mut choked = open_at(0);
        choked.holds.add(Hold::Outbox);
        assert!(!receive(&mut choked, 60_000, &frame.repeat(2)));
        choked.input = choked.take_input();
        choked.input.drain(..frame.len());
        assert!(!receive(&mut choked, 100_000, &frame[..last]));
        assert_eq!(
            dues(&mut choked, &[179_999, 180_000]),
            [Due::Nothing, Due::Ping]
        );
        assert!(receive(&mut choked, 180_001, &frame[last..]));
        // What is no frame says nothing.
        assert!(!receive(&mut choked, 300_000, &[0xFF; 64]));
        assert_eq!(dues(&mut choked, &[300_001]), [Due::Ping]);
    }

    #[test]
    fn a_message_has_one_deadline_from_its_first_byte_and_what_we_hold_is_not_late() {
        let rules = node_rules();
        let mut connection = open_at(0);
        connection.on_part(Millis(1_000), &rules);
        for at in [50_000, 100_000, 150_000] {
            connection.on_frame(Millis(at), &rules, true);
            assert!(!connection.keep_alive.heard(Millis(at)));
        }
        connection.holds.add(Hold::Turn);
        assert_eq!(dues(&mut connection, &[201_000]), [Due::Nothing]);
        connection.holds.remove(Hold::Turn);
        let late = Due::Close {
            code: CloseCode::PONG_NOT_RECEIVED,
            reason: MESSAGE_NOT_IN_TIME,
        };
        let due = dues(&mut connection, &[201_999, 202_000]);
        assert_eq!(due, [Due::Nothing, late]);
        connection.on_frame(Millis(202_000), &rules, false);
        assert_eq!(dues(&mut connection, &[202_000]), [Due::Nothing]);
    }

    #[test]
    fn held_input_goes_on_before_anything_else_is_due() {
        let mut connection = open_at(0);
        connection.holds.add(Hold::Rate);
        connection.rare().throttled_until = Some(Millis(100));
        let due = dues(&mut connection, &[99, 100, 101]);
        assert_eq!(due, [Due::Nothing, Due::Resume, Due::Nothing]);
        assert!(!connection.is_held());
        assert!(connection.rare.is_none());
    }

    #[test]
    fn an_old_connection_is_closed_with_4200_within_a_tenth_of_its_age_when_its_id_says() {
        let rules = |age_max_s: u64| NodeRules {
            age_max_ms: age_max_s * 1_000,
            ..node_rules()
        };
        let lasting = |low| {
            let mut connection = Step::new(app_rules()).connection;
            let socket_id = SocketId::new(1, low).expect("in range");
            connection.open(Millis(4_500), socket_id);
            connection
        };
        let old = close(CloseCode::RECONNECT);
        for (low, ends_at) in [
            // From the next whole second on.
            (0, 65_000),
            (5_999, 70_999),
            (6_000, 71_000),
            (6_001, 65_000),
            (9_999_999_999, 65_000 + 9_999_999_999 % 6_001),
        ] {
            let mut connection = lasting(low);
            let due =
                [ends_at - 1, ends_at].map(|at| connection.on_timer(Millis(at), &rules(60), 0));
            assert_eq!(due, [Due::Nothing, old], "{low}");
        }
        // A busy one ends as well, one that has no bound does not, and silence is looked at as ever.
        let mut busy = lasting(0);
        assert!(!busy.keep_alive.heard(Millis(64_999)));
        assert_eq!(busy.on_timer(Millis(65_000), &rules(60), 0), old);
        let next = |age_max_s| lasting(0).next_deadline(&rules(age_max_s));
        assert_eq!(next(0), Some((Millis(124_500), Deadline::Silence)));
        assert_eq!(next(119), Some((Millis(124_000), Deadline::Age)));
        assert_eq!(next(120), Some((Millis(124_500), Deadline::Silence)));
        // Another bound holds for whoever is there already; one that closes goes on closing.
        let mut there = lasting(0);
        assert_eq!(
            there.on_timer(Millis(100_000), &rules(3_600), 0),
            Due::Nothing
        );
        assert_eq!(there.on_timer(Millis(100_000), &rules(60), 0), old);
        there.leave_for(State::Closing);
        there.until = Millis(105_000);
        assert_eq!(there.on_timer(Millis(100_000), &rules(60), 0), Due::Nothing);
        assert_eq!(there.on_timer(Millis(105_000), &rules(60), 0), Due::Cut);
    }

    #[test]
    fn a_proxy_has_the_time_of_a_first_request_for_its_header_and_the_request() {
        let slot = shards::application::Slot {
            index: 0,
            generation: 0,
        };
        let accepted = || Connection::accepted(slot, State::ProxyHeader, None, Millis(10_000));
        let mut silent = accepted();
        assert_eq!(
            dues(&mut silent, &[9_999, 10_000]),
            [Due::Nothing, Due::NoProxyHeader]
        );
        let mut half = accepted();
        half.input = b"PROXY ".to_vec().into();
        assert_eq!(dues(&mut half, &[10_000]), [Due::NoProxyHeader]);
        let mut said = accepted();
        said.on_proxy_header(Source::Proxy);
        assert_eq!(dues(&mut said, &[9_999, 10_000]), [Due::Nothing, Due::End]);
    }

    #[test]
    fn what_an_http_connection_owes_decides_how_it_ends() {
        let http = |awaited, input: &[u8], hold: Option<Hold>| {
            let mut connection = Connection::vacant();
            connection.state = State::Http(awaited);
            connection.until = Millis(1_000);
            connection.input = input.to_vec().into();
            hold.map(|hold| connection.holds.add(hold));
            connection
        };
        for (mut connection, at, expected) in [
            // A peer that never said anything, and one that said half.
            (http(Awaited::Rest, b"", None), 1_000, Due::End),
            (http(Awaited::Rest, b"GET", None), 1_000, Due::TimedOut),
            // What was sent in the last moment is looked at.
            (http(Awaited::Next, b"", None), 1_200, Due::End),
            (
                http(Awaited::Next, b"", Some(Hold::Answer)),
                31_000,
                Due::Cut,
            ),
        ] {
            let early = connection.on_timer(Millis(at - 1), &node_rules(), 0);
            assert_eq!(early, Due::Nothing);
            let due = connection.on_timer(Millis(at), &node_rules(), 0);
            assert_eq!(due, expected);
        }
        // Who takes some of its answers has time, who takes none is cut off.
        let mut slow = http(Awaited::Next, b"", Some(Hold::Outbox));
        for (at, outbox_bytes, expected) in [
            (1_000, 500, Due::Nothing),
            (76_000, 400, Due::Nothing),
            (151_000, 400, Due::Cut),
        ] {
            let due = slow.on_timer(Millis(at), &node_rules(), outbox_bytes);
            assert_eq!(due, expected, "at {at}");
        }
        let mut closing = http(Awaited::Next, b"", None);
        closing.state = State::Closing;
        assert_eq!(dues(&mut closing, &[999, 1_000]), [Due::Nothing, Due::Cut]);
    }
}
