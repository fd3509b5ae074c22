//! Signing a connection in as a user.
//!
//! Owns: the way to the homes of a user and of those whom it watches, signing out.
//! May depend on: `connection`, `server::{users, replies}`.
//! Invariants: every check was made in `connection::sign_in`; after `signin_success` the user's home
//! knows the socket, so that a termination reaches it.

use std::sync::Arc;

use shards::{application::Slot, work::Work};

use super::{
    ServerTurn, ShardServer,
    message::{Message, Question},
};
use crate::{channel::user::UserId, connection::pending::Pending, protocol::app::AppIndex};

impl ShardServer {
    /// Tells the user's home of a socket that signs in.
    pub(super) fn ask_sign_in(&mut self, turn: &mut impl ServerTurn, slot: Slot, user_id: UserId) {
        let app = self.held(slot).app;
        let home = self.home_of(user_id.key.partition);
        let waiter = self.await_answer(slot);
        self.question(turn, home, waiter, Question::SignIn { app, user_id });
    }

    /// The same user has signed in again, perhaps with another watchlist.
    pub(super) fn watch_again(
        &mut self,
        turn: &mut impl ServerTurn,
        slot: Slot,
        unwatched: Vec<UserId>,
    ) {
        let app = self.held(slot).app;
        self.unwatch(turn, app, slot, unwatched);
        self.watch(turn, slot);
    }

    /// The user's home knows the socket: on to the watchlist.
    pub(super) fn on_sign_in_known(&mut self, turn: &mut impl ServerTurn, slot: Slot) {
        self.held(slot).on_signed_in();
        self.watch(turn, slot);
    }

    /// Asks the homes of all watched users at once; the sign-in is answered when all have.
    fn watch(&mut self, turn: &mut impl ServerTurn, slot: Slot) {
        let row = self.held(slot);
        let app = row.app;
        let watchlist = row
            .user()
            .expect("a watchlist follows a sign-in")
            .watchlist
            .clone();
        turn.spend(Work::ROW.times(watchlist.len()));
        let mut by_home: Vec<Vec<UserId>> = vec![Vec::new(); usize::from(self.shards)];
        for user_id in watchlist {
            by_home[usize::from(self.home_of(user_id.key.partition).0)].push(user_id);
        }
        let homes = by_home.iter().filter(|users| !users.is_empty()).count();
        let waiter = self.await_answer(slot);
        let Some(Pending::SignIn(sign_in)) = self.held(slot).pending() else {
            unreachable!("a watchlist follows a sign-in");
        };
        sign_in.answers_pending = u16::try_from(homes).expect("at most one per shard");
        if homes == 0 {
            self.sign_in_done(turn, slot);
            return;
        }
        for (home, user_ids) in by_home.into_iter().enumerate() {
            if !user_ids.is_empty() {
                let home = shards::application::ShardId(u16::try_from(home).expect("a shard"));
                self.question(turn, home, waiter, Question::Watch { app, user_ids });
            }
        }
    }

    /// A home has told which of its watched users are online.
    pub(super) fn on_watched(
        &mut self,
        turn: &mut impl ServerTurn,
        slot: Slot,
        users: Vec<(Arc<str>, bool)>,
    ) {
        let Some(Pending::SignIn(sign_in)) = self.held(slot).pending() else {
            unreachable!("a watchlist is answered during its sign-in");
        };
        // Each is looked for among all that were told.
        let told = sign_in.online.len() + sign_in.offline.len() + users.len();
        turn.spend(Work::bytes(8 * told * users.len()));
        for (user_id, online) in users {
            // After a former sign-in news of the same user may have come before this answer.
            sign_in.answer(user_id, online);
        }
        sign_in.answers_pending -= 1;
        if sign_in.answers_pending == 0 {
            self.sign_in_done(turn, slot);
        }
    }

    fn sign_in_done(&mut self, turn: &mut impl ServerTurn, slot: Slot) {
        let Some(Pending::SignIn(sign_in)) = self.answer_arrived(slot) else {
            unreachable!("a sign-in is done once");
        };
        for reply in sign_in.replies() {
            self.reply(turn, slot, |out| reply.write(out));
        }
    }

    /// The connection ends: its user's home and those of its watched users are told.
    pub(super) fn sign_out(&mut self, turn: &mut impl ServerTurn, slot: Slot) {
        let row = self.held(slot);
        let app = row.app;
        let Some(user) = row.rare.as_mut().and_then(|rare| rare.user.take()) else {
            return;
        };
        // While the sign-in itself is unanswered, its late answer undoes it.
        if user.is_known {
            let home = self.home_of(user.user_id.key.partition);
            let message = Message::SignOut {
                app,
                user_id: user.user_id,
                socket: self.socket(slot),
            };
            self.send_home(turn, home, message);
        }
        self.unwatch(turn, app, slot, user.watchlist);
    }

    fn unwatch(
        &mut self,
        turn: &mut impl ServerTurn,
        app: AppIndex,
        slot: Slot,
        watchlist: Vec<UserId>,
    ) {
        turn.spend(Work::ROW.times(watchlist.len()));
        let mut by_home: Vec<Vec<UserId>> = vec![Vec::new(); usize::from(self.shards)];
        for user_id in watchlist {
            by_home[usize::from(self.home_of(user_id.key.partition).0)].push(user_id);
        }
        for (home, user_ids) in by_home.into_iter().enumerate() {
            let home = shards::application::ShardId(u16::try_from(home).expect("a shard"));
            if user_ids.is_empty() {
                continue;
            }
            let message = Message::Unwatch {
                app,
                user_ids,
                socket: self.socket(slot),
            };
            self.send_home(turn, home, message);
        }
    }
}
