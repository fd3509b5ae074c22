//! How connections end, and what must be undone when they do.
//!
//! Owns: closing with a code, the clean-up that every established connection gets exactly once.
//! May depend on: `connection`, `channel`, `protocol::{code, outgoing}`, `server::{home, users}`.
//! Invariants: clean-up runs once per established connection, whoever ends it; a 4xxx close is
//! announced by a `pusher:error` of the same code.

use std::collections::VecDeque;

use ahash::AHashMap;
use shards::{
    application::{Closed, FrameId, Slot},
    work::Work,
};

use super::{ServerTurn, ShardServer, home::Departure, message::Message};
use crate::{
    channel::local::Moved,
    connection::{
        row::{Connection, Memberships, State},
        subscriptions::Subscriptions,
    },
    metrics::counters::ConnectionError,
    protocol::{app::AppIndex, code::CloseCode, outgoing},
};

/// A connection too slow for a frame, to be dealt with once no table is being walked.
pub(super) struct Doomed {
    pub(super) slot: Slot,
    /// The frame that its outbox had no room for, and its size.
    pub(super) refused: (FrameId, usize),
}

/// Connections that have ended and are in more channels than are left in one step.
#[derive(Default)]
pub(super) struct Departing {
    /// Still listed in their channels.
    by_slot: AHashMap<Slot, Departed>,
    /// In the order in which they ended.
    order: VecDeque<Slot>,
}

/// What is left of a connection.
struct Departed {
    subscriptions: Subscriptions,
    memberships: Memberships,
}

impl Departing {
    /// Connections whose channels are still being left.
    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

/// So many channels are left in one step.
const LEFT_AT_ONCE_MAX: usize = 64;

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
        let Some(row) = self.row(slot).filter(|row| row.state == State::Open) else {
            return;
        };
        let until = turn.now().plus(CLOSE_ECHO_MS);
        row.state = State::Closing;
        row.until = until;
        self.clean_up(turn, slot);
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
        row.state = State::Ending;
        row.input = Vec::new();
        self.clean_up(turn, slot);
        turn.cancel_timer(slot);
        turn.close_after_flush(slot);
    }

    /// The runtime says that the connection is gone.
    pub(super) fn ended(&mut self, turn: &mut impl ServerTurn, slot: Slot, how: Closed) {
        let Some(row) = self.row(slot) else { return };
        let (established, app) = (row.established, row.app);
        if established && how == Closed::ByError {
            self.counters.app(app).connection_errors[ConnectionError::SocketFailed as usize] += 1;
        }
        self.clean_up(turn, slot);
        self.input_held -= u64::from(self.held(slot).held_bytes);
        self.bodies_kept -= u64::from(self.held(slot).kept_bytes);
        *self.held(slot) = Connection::vacant();
        self.connections_held -= 1;
    }

    /// Closes those that were found too slow while a table was walked.
    pub(super) fn close_doomed(&mut self, turn: &mut impl ServerTurn) {
        // Closing announces departures, which may find others too slow: until none is left.
        while !self.doomed.is_empty() {
            for doomed in std::mem::take(&mut self.doomed) {
                self.close_slow(turn, doomed.slot);
            }
        }
    }

    /// Undoes what an established connection has done to the rest of the node; once.
    fn clean_up(&mut self, turn: &mut impl ServerTurn, slot: Slot) {
        let row = self.held(slot);
        // A late answer finds another number and is undone by whoever it reaches.
        row.operation = row.operation.wrapping_add(1);
        (row.waiting, row.choked, row.throttled, row.pressed) = (false, false, false, false);
        let (in_app_quota, in_node_quota, app) = (row.in_app_quota, row.in_node_quota, row.app);
        (row.in_app_quota, row.in_node_quota) = (false, false);
        if let Some(rare) = &mut row.rare {
            rare.pending = None;
        }
        let established = std::mem::take(&mut row.established);
        if in_app_quota {
            self.release_app(turn, app);
        }
        if in_node_quota {
            self.release_node(turn);
        }
        if !established {
            return;
        }
        self.leave_all(turn, slot);
        self.sign_out(turn, slot);
        let counters = self.counters.app(app);
        counters.connected = counters.connected.checked_sub(1).expect("established once");
        counters.new_disconnections += 1;
        self.counters.websockets -= 1;
    }

    fn leave_all(&mut self, turn: &mut impl ServerTurn, slot: Slot) {
        let row = self.held(slot);
        if row.subscriptions.len() > LEFT_AT_ONCE_MAX {
            let subscriptions = std::mem::take(&mut row.subscriptions);
            let rare = row.rare.as_mut();
            let memberships = rare.map(|rare| std::mem::take(&mut rare.memberships));
            let departed = Departed {
                subscriptions,
                memberships: memberships.unwrap_or_default(),
            };
            self.departing.by_slot.insert(slot, departed);
            self.departing.order.push_back(slot);
            return;
        }
        while let Some(subscription) = self.held(slot).subscriptions.pop() {
            let user_id = self.held(slot).end_membership(subscription.channel);
            self.leave_channel(
                turn,
                Departure {
                    slot,
                    subscription,
                    user_id,
                },
            );
        }
    }

    /// Goes on with leaving the channels of connections that have ended.
    pub(super) fn continue_departing(&mut self, turn: &mut impl ServerTurn) {
        while turn.work_left() > Work(0)
            && let Some(slot) = self.departing.order.front().copied()
        {
            let departed = self.departing.by_slot.get_mut(&slot);
            let departed = departed.expect("a departing connection is listed once");
            let Some(subscription) = departed.subscriptions.pop() else {
                self.departing.by_slot.remove(&slot);
                self.departing.order.pop_front();
                continue;
            };
            let user_id = departed.memberships.remove(&subscription.channel);
            self.leave_channel(
                turn,
                Departure {
                    slot,
                    subscription,
                    user_id,
                },
            );
        }
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

    pub(super) fn release_app(&mut self, turn: &mut impl ServerTurn, app: AppIndex) {
        let home = self.home_of_app(app);
        if home == self.shard {
            self.quotas.release_app(app, 1);
        } else {
            self.post(
                turn,
                home,
                Message::Release {
                    app,
                    connections: 1,
                },
            );
        }
    }

    pub(super) fn release_node(&mut self, turn: &mut impl ServerTurn) {
        let home = Self::home_of_node();
        if home == self.shard {
            self.quotas.release_node(1);
        } else {
            self.post(turn, home, Message::ReleaseNode { connections: 1 });
        }
    }
}
