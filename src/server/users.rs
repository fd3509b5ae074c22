//! What a user's home does: knows the user's sockets, tells its watchers, ends its connections.
//!
//! Owns: the steps of `channel::user` and their messages.
//! May depend on: `channel::user`, `server::message`.
//! Invariants: watchers hear of the first socket's coming and the last one's going, and of nothing
//! between.

use std::sync::Arc;

use shards::application::{ShardId, Slot};

use super::{
    ServerTurn, ShardServer,
    message::{Answer, Message},
};
use crate::{
    bridge::message::Waiter,
    channel::user::{Presence, Socket},
    protocol::{app::AppIndex, code, code::CloseCode},
};

impl ShardServer {
    /// Home: a socket signed in.
    pub(super) fn user_signs_in(
        &mut self,
        turn: &mut impl ServerTurn,
        from: ShardId,
        waiter: Waiter,
        app: AppIndex,
        user_id: Arc<str>,
    ) {
        let socket = Socket {
            shard: from,
            slot: waiter.slot,
        };
        if self.users.sign_in(app, &user_id, socket) == Presence::Changed {
            self.tell_watchers(turn, app, &user_id, true);
        }
        self.answer(turn, from, waiter, Answer::SignedIn { app, user_id });
    }

    /// Home: a signed-in socket ended.
    pub(super) fn user_signs_out(
        &mut self,
        turn: &mut impl ServerTurn,
        from: ShardId,
        app: AppIndex,
        user_id: &str,
        slot: Slot,
    ) {
        if self
            .users
            .sign_out(app, user_id, Socket { shard: from, slot })
            == Presence::Changed
        {
            self.tell_watchers(turn, app, user_id, false);
        }
        self.users.release_if_idle(app, user_id);
    }

    /// Home: a socket wants to hear of these users.
    pub(super) fn users_watched(
        &mut self,
        turn: &mut impl ServerTurn,
        from: ShardId,
        waiter: Waiter,
        app: AppIndex,
        user_ids: Vec<Arc<str>>,
    ) {
        let socket = Socket {
            shard: from,
            slot: waiter.slot,
        };
        let told = user_ids
            .into_iter()
            .map(|user_id| {
                let online = self.users.watch(app, &user_id, socket);
                (user_id, online)
            })
            .collect();
        self.answer(turn, from, waiter, Answer::Watched(told));
    }

    /// Home: a socket does not want to hear of these users any more.
    pub(super) fn users_unwatched(
        &mut self,
        from: ShardId,
        app: AppIndex,
        user_ids: &[Arc<str>],
        slot: Slot,
    ) {
        for user_id in user_ids {
            self.users
                .unwatch(app, user_id, Socket { shard: from, slot });
            self.users.release_if_idle(app, user_id);
        }
    }

    /// Home: all connections that are signed in as the user are to end.
    pub(super) fn user_terminates(
        &mut self,
        turn: &mut impl ServerTurn,
        app: AppIndex,
        user_id: &str,
    ) {
        for Socket { shard, slot } in self.users.sockets(app, user_id).to_vec() {
            if shard == self.shard {
                self.terminate(turn, slot);
            } else {
                self.post(turn, shard, Message::Terminate { slot });
            }
        }
    }

    /// Ends a connection of this shard because its user was terminated.
    pub(super) fn terminate(&mut self, turn: &mut impl ServerTurn, slot: Slot) {
        self.close_saying(turn, slot, CloseCode::UNAUTHORIZED, code::USER_TERMINATED);
    }

    fn tell_watchers(
        &mut self,
        turn: &mut impl ServerTurn,
        app: AppIndex,
        user_id: &str,
        online: bool,
    ) {
        let watchers = self.users.watchers(app, user_id).to_vec();
        let user_id: Arc<str> = user_id.into();
        for Socket { shard, slot } in watchers {
            let user_id = Arc::clone(&user_id);
            if shard == self.shard {
                self.watched_changed(turn, slot, user_id, online);
            } else {
                self.post(
                    turn,
                    shard,
                    Message::Watched {
                        slot,
                        user_id,
                        online,
                    },
                );
            }
        }
    }
}
