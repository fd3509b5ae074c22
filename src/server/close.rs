//! How connections end, and what must be undone when they do.
//!
//! Owns: closing with a code, the clean-up that every established connection gets exactly once,
//! `Departing`.
//! May depend on: `connection`, `channel`, `protocol::{code, outgoing}`, `server::{home, notices, users}`.
//! Invariants: clean-up runs once per established connection, whoever ends it; a 4xxx close is
//! announced by a `pusher:error` of the same code.

use std::collections::VecDeque;

use ahash::AHashMap;
use shards::{
    application::{Closed, ShardId, Slot},
    work::Work,
};

use super::{ServerTurn, ShardServer, home::Departure, message::Message};
use crate::{
    channel::local::Moved,
    connection::{
        input::Input,
        row::{Connection, Memberships, State},
        subscriptions::{Subscription, Subscriptions},
    },
    metrics::counters::ConnectionError,
    protocol::{app::AppIndex, code::CloseCode, outgoing},
};

/// Connections that have ended, and are still listed in some of their channels.
#[derive(Clone, Default)]
pub(super) struct Departing {
    by_slot: AHashMap<Slot, Departed>,
    /// In the order in which they ended.
    order: VecDeque<Slot>,
}

/// The channels that a connection which has ended is listed in.
#[derive(Clone)]
struct Departed {
    subscriptions: Subscriptions,
    memberships: Memberships,
}

/// A subscription to end, and the one that took its number.
struct Next {
    departure: Departure,
    renumbered: Option<(Subscription, u32)>,
}

impl Departing {
    /// Connections that are still listed.
    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

impl Departed {
    /// Takes a subscription out: presence channels come first, since somebody else may want the
    /// place or read the name.
    fn next(&mut self, slot: Slot) -> Option<Next> {
        let Some(channel) = self.memberships.any() else {
            let subscription = self.subscriptions.pop()?;
            let departure = Departure {
                slot,
                subscription,
                user_id: None,
            };
            return Some(Next {
                departure,
                renumbered: None,
            });
        };
        let number = self.subscriptions.find(channel);
        let number = number.expect("a member has subscribed");
        let (subscription, renumbered) = self.subscriptions.remove(number);
        let departure = Departure {
            slot,
            subscription,
            user_id: self.memberships.remove(channel),
        };
        Some(Next {
            departure,
            renumbered: renumbered.map(|other| (other, number)),
        })
    }
}

/// So many channels of a connection that ends are gone before the next step.
const LEAVES_AT_ONCE_MAX: usize = 64;

/// How long the peer's close frame is waited for.
const CLOSE_ECHO_MS: u64 = 5_000;

impl ShardServer {
    /// Closes a WebSocket connection with a code and that code's usual reason.
    pub(super) fn close(&mut self, turn: &mut impl ServerTurn, slot: Slot, code: CloseCode) {
        self.close_saying(turn, slot, code, code.reason());
    }

    /// Closes a WebSocket connection: error frame (4xxx only), close frame, up to 5 s for the echo.
    pub(super) fn close_saying(
        &mut self,
        turn: &mut impl ServerTurn,
        slot: Slot,
        code: CloseCode,
        reason: &str,
    ) {
        let is_open =
            |row: &&mut Connection| matches!(row.state, State::Upgrading | State::Open(_));
        let Some(row) = self.row(slot).filter(is_open) else {
            return;
        };
        let until = turn.now().plus(CLOSE_ECHO_MS);
        row.until = until;
        self.tell_closed(slot, Some(code.value()), reason);
        self.leave_for(turn, slot, State::Closing);
        if code.is_announced() {
            self.reply(turn, slot, |out| {
                outgoing::error(out, Some(code.value()), reason, None)
            });
        }
        self.reply_close(turn, slot, code.value(), reason);
        // It may still stand in the lists of channels, but nothing follows a close frame.
        turn.seal(slot);
        turn.arm_timer(slot, until);
    }

    /// Ends a connection that has nothing more to say, after what is queued was sent.
    pub(super) fn end(&mut self, turn: &mut impl ServerTurn, slot: Slot) {
        let Some(row) = self.row(slot) else { return };
        row.input = Input::default();
        self.leave_for(turn, slot, State::Ending);
        turn.cancel_timer(slot);
        turn.close_after_flush(slot);
    }

    /// The runtime says that the connection is gone.
    pub(super) fn on_ended(&mut self, turn: &mut impl ServerTurn, slot: Slot, how: Closed) {
        let Some(row) = self.row(slot) else { return };
        let (state, app) = (row.state, row.app);
        if matches!(state, State::Open(_)) && how == Closed::ByError {
            self.counters.app(app).faults_mut().connection_errors
                [ConnectionError::SocketFailed as usize] += 1;
        }
        self.tell_ended(slot, how);
        self.leave_for(turn, slot, State::Ending);
        self.input_held -= u64::from(self.held(slot).held_bytes);
        self.bodies.forget(slot.index);
        *self.held(slot) = Connection::vacant();
        self.connections_held -= 1;
    }

    /// Ends what the connection was doing, and undoes what an open one has done to the rest of the
    /// node: once, since no state leads back.
    fn leave_for(&mut self, turn: &mut impl ServerTurn, slot: Slot, state: State) {
        let row = self.held(slot);
        let app = row.app;
        let counted = std::mem::take(&mut row.counted);
        let before = row.leave_for(state);
        if let Some(home) = counted.by_app {
            self.release_app(turn, home, app);
        }
        if counted.by_node {
            self.release_node(turn);
        }
        if !matches!(before, State::Open(_)) {
            return;
        }
        self.leave_all(turn, slot);
        self.sign_out(turn, slot);
        self.socket_ids
            .forget(self.connections[slot.index as usize].socket_id);
        let counters = self.counters.app(app);
        counters.connected = counters.connected.checked_sub(1).expect("established once");
        counters.new_disconnections += 1;
        self.counters.websockets -= 1;
    }

    fn leave_all(&mut self, turn: &mut impl ServerTurn, slot: Slot) {
        let row = self.held(slot);
        let memberships = row.rare.as_mut().map(|rare| &mut rare.memberships);
        let mut departed = Departed {
            memberships: memberships.map(std::mem::take).unwrap_or_default(),
            subscriptions: std::mem::take(&mut row.subscriptions),
        };
        for _ in 0..LEAVES_AT_ONCE_MAX {
            let Some(next) = departed.next(slot) else {
                return;
            };
            self.leave_next(turn, next);
        }
        if !departed.subscriptions.is_empty() {
            self.departing.by_slot.insert(slot, departed);
            self.departing.order.push_back(slot);
        }
    }

    /// Goes on with leaving the channels of connections that have ended, until this turn's work is
    /// done.
    pub(super) fn continue_departing(&mut self, turn: &mut impl ServerTurn) {
        while turn.work_left() > Work(0)
            && let Some(slot) = self.departing.order.front().copied()
        {
            let departed = self.departing.by_slot.get_mut(&slot);
            let departed = departed.expect("a departing connection is listed once");
            if let Some(next) = departed.next(slot) {
                self.leave_next(turn, next);
            } else {
                self.departing.by_slot.remove(&slot);
                self.departing.order.pop_front();
            }
        }
    }

    fn leave_next(&mut self, turn: &mut impl ServerTurn, next: Next) {
        if let Some((other, number)) = next.renumbered {
            self.locals
                .held(other.channel)
                .renumber(other.position, number);
        }
        self.leave_channel(turn, next.departure);
    }

    /// Tells a subscriber its new position in a channel's list.
    pub(super) fn reposition(&mut self, moved: Moved) {
        let Moved {
            subscriber,
            position,
        } = moved;
        let departed = if self.departing.is_empty() {
            None
        } else {
            self.departing.by_slot.get_mut(&subscriber.slot)
        };
        let subscriptions = match departed {
            Some(departed) => &mut departed.subscriptions,
            None => &mut self.connections[subscriber.slot.index as usize].subscriptions,
        };
        subscriptions.reposition(subscriber.subscription, position);
    }

    pub(super) fn release_app(&mut self, turn: &mut impl ServerTurn, home: ShardId, app: AppIndex) {
        let message = Message::Release {
            app,
            connections: 1,
        };
        self.send_home(turn, home, message);
    }

    pub(super) fn release_node(&mut self, turn: &mut impl ServerTurn) {
        let message = Message::ReleaseNode { connections: 1 };
        self.send_home(turn, Self::home_of_node(), message);
    }
}
