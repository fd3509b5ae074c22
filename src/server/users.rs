//! What a user's home does: knows the user's sockets, tells its watchers, ends its connections.
//!
//! Owns: the steps of `channel::user` and their messages.
//! May depend on: `channel::user`, `server::message`.
//! Invariants: watchers hear of the first socket's coming and the last one's going, and of nothing
//! between; of a going that a node behind the others sees, when it is not any more.

use std::sync::Arc;

use shards::{
    application::{Millis, ShardId, Slot, Waiter},
    work::Work,
};

use super::{
    ServerTurn, ShardServer,
    message::{Answer, Message},
};
use crate::{
    channel::{
        home_later::HOLD_MS_MAX,
        user::{Going, Held, Presence, Socket, UserId},
    },
    protocol::app::AppIndex,
};

impl ShardServer {
    /// Home: a socket signed in.
    pub(super) fn on_user_sign_in(
        &mut self,
        turn: &mut impl ServerTurn,
        waiter: Waiter,
        app: AppIndex,
        user_id: UserId,
    ) {
        let socket = Socket {
            shard: waiter.shard,
            slot: waiter.slot,
        };
        if self.users.sign_in(app, &user_id, socket) == Presence::Changed {
            self.tell_watchers(turn, app, &user_id, true);
        }
        self.answer(turn, waiter, Answer::SignedIn { app, user_id });
    }

    /// Home: a signed-in socket ended.
    pub(super) fn on_user_sign_out(
        &mut self,
        turn: &mut impl ServerTurn,
        app: AppIndex,
        user_id: &UserId,
        socket: Socket,
    ) {
        let going = self.going_of_users(turn);
        if self.users.sign_out(app, user_id, socket, going) == Presence::Changed {
            self.tell_watchers(turn, app, user_id, false);
        }
        self.users.release_if_idle(app, user_id);
    }

    /// Home: whether another node has the user has changed.
    pub(super) fn on_user_elsewhere(
        &mut self,
        turn: &mut impl ServerTurn,
        app: AppIndex,
        user_id: &UserId,
        is_elsewhere: bool,
    ) {
        let going = self.going_of_users(turn);
        let users = &mut self.users;
        if users.change_elsewhere(app, user_id, is_elsewhere, going) == Presence::Changed {
            self.tell_watchers(turn, app, user_id, is_elsewhere);
        }
        self.users.release_if_idle(app, user_id);
    }

    /// Whether who goes now may be with another node, of which this one has not heard.
    fn going_of_users(&self, turn: &impl ServerTurn) -> Going {
        match self.topics.has_bus() && turn.is_behind() {
            true => Going::HeldSince(turn.now()),
            false => Going::Told,
        }
    }

    /// Home: watchers hear of those whose going was held back, as soon as this node is not behind any
    /// more; after `HOLD_MS_MAX` in any case. A frozen shard does not tick, so of no socket that may still come.
    pub(super) fn release_held_users(&mut self, turn: &mut impl ServerTurn) {
        let since = match self.going_of_users(turn) {
            Going::HeldSince(now) => now.0.checked_sub(HOLD_MS_MAX).map(Millis),
            Going::Told => Some(turn.now()),
        };
        while let Some(since) = since
            && turn.work_left() > Work(0)
            && let Some(held) = self.users.next_held(since)
        {
            turn.spend(Work::MEMBERSHIP);
            if let Held::Gone(app, user_id) = held {
                self.tell_watchers(turn, app, &user_id, false);
                self.users.release_if_idle(app, &user_id);
            }
        }
    }

    /// Home: a socket wants to hear of these users.
    pub(super) fn on_users_watched(
        &mut self,
        turn: &mut impl ServerTurn,
        waiter: Waiter,
        app: AppIndex,
        user_ids: Vec<UserId>,
    ) {
        let socket = Socket {
            shard: waiter.shard,
            slot: waiter.slot,
        };
        turn.spend(Work::WATCH.times(user_ids.len()));
        let told = user_ids
            .into_iter()
            .map(|user_id| {
                let online = self.users.watch(app, &user_id, socket);
                (user_id.text, online)
            })
            .collect();
        self.answer(turn, waiter, Answer::Watched(told));
    }

    /// Home: a socket does not want to hear of these users any more.
    pub(super) fn on_users_unwatched(
        &mut self,
        turn: &mut impl ServerTurn,
        app: AppIndex,
        user_ids: &[UserId],
        socket: Socket,
    ) {
        turn.spend(Work::WATCH.times(user_ids.len()));
        for user_id in user_ids {
            self.users.unwatch(app, user_id, socket);
            self.users.release_if_idle(app, user_id);
        }
    }

    /// Home: all connections that are signed in as the user are to end.
    pub(super) fn on_user_terminate(
        &mut self,
        turn: &mut impl ServerTurn,
        app: AppIndex,
        user_id: &UserId,
    ) {
        let sockets = by_shard(self.shards, self.users.sockets(app, user_id));
        turn.spend(Work::bytes(
            12 * sockets.iter().map(Vec::len).sum::<usize>(),
        ));
        for (shard, slots) in sockets.into_iter().enumerate() {
            if slots.is_empty() {
                continue;
            }
            let shard = ShardId(u16::try_from(shard).expect("a shard's number"));
            let slots = slots.into();
            self.send_home(turn, shard, Message::Terminate { slots });
        }
    }

    /// One message per shard, whatever the number of watchers.
    fn tell_watchers(
        &mut self,
        turn: &mut impl ServerTurn,
        app: AppIndex,
        user_id: &UserId,
        online: bool,
    ) {
        let watchers = by_shard(self.shards, self.users.watchers(app, user_id));
        turn.spend(Work::bytes(
            12 * watchers.iter().map(Vec::len).sum::<usize>(),
        ));
        for (shard, slots) in watchers.into_iter().enumerate() {
            if slots.is_empty() {
                continue;
            }
            let shard = ShardId(u16::try_from(shard).expect("a shard's number"));
            let (slots, user_id) = (slots.into(), Arc::clone(&user_id.text));
            let message = Message::Watched {
                app,
                slots,
                user_id,
                online,
            };
            self.send_home(turn, shard, message);
        }
    }
}

/// The slots of sockets, by the shard that holds them.
fn by_shard(shards: u16, sockets: &[Socket]) -> Vec<Vec<Slot>> {
    let mut slots = vec![Vec::new(); usize::from(shards)];
    for socket in sockets {
        slots[usize::from(socket.shard.0)].push(socket.slot);
    }
    slots
}
