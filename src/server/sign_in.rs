//! Signing a connection in as a user.
//!
//! Owns: the checks of a sign-in, the order of its answers, signing out.
//! May depend on: `protocol::{auth, presence}`, `connection`, `server::{users, replies}`.
//! Invariants: a connection is signed in as at most one user id, until it ends; after
//! `signin_success` the user's home knows the socket, so that a termination reaches it.

use std::{rc::Rc, sync::Arc};

use shards::{application::Slot, work::Work};

use super::{
    ServerTurn, ShardServer,
    message::{Message, Question},
};
use crate::{
    connection::{
        pending::{Pending, SignIn},
        row::SignedIn,
    },
    protocol::{app::AppIndex, auth, code, code::CloseCode, outgoing, presence::User},
};

impl ShardServer {
    /// A client wants to sign in. Failure is an error frame; the connection stays open.
    pub(super) fn sign_in(
        &mut self,
        turn: &mut impl ServerTurn,
        slot: Slot,
        auth: &str,
        user_data: &str,
    ) {
        self.throttle_memberships(turn, slot);
        if let Err(reason) = self.sign_in_checked(turn, slot, auth, user_data) {
            self.reply(turn, slot, |out| {
                outgoing::error(out, Some(CloseCode::UNAUTHORIZED.value()), reason, None);
            });
        }
    }

    fn sign_in_checked(
        &mut self,
        turn: &mut impl ServerTurn,
        slot: Slot,
        auth: &str,
        user_data: &str,
    ) -> Result<(), &'static str> {
        let app_index = self.held(slot).app;
        let app = self
            .apps
            .get(app_index)
            .map(Rc::clone)
            .ok_or("The app is gone")?;
        if !app.entry.app.enable_user_authentication {
            return Err("User authentication is not enabled for this app");
        }
        let socket_low = self.held(slot).socket_low;
        let socket_id = self.socket_ids.of(slot.index, socket_low).to_string();
        let (key, signers) = (&app.entry.app.key, &app.entry.signers);
        let hashed = Work::SIGNATURE.and(Work::bytes_hashed(user_data.len()));
        turn.spend(hashed.times(signers.len()));
        auth::verify_sign_in(key, signers, auth, &socket_id, user_data)
            .map_err(|_| "The sign-in's signature is invalid")?;
        let user = User::parse(user_data).map_err(|_| "The user_data is invalid")?;
        let user_id: Arc<str> = user.id.into();
        let previous = self.held(slot).user().cloned();
        if previous
            .as_ref()
            .is_some_and(|previous| previous.user_id != user_id)
        {
            return Err("Already signed in as another user");
        }
        let watches = app.entry.app.enable_watchlist_events;
        let watchlist: Vec<Arc<str>> = if watches {
            user.watchlist.into_iter().map(Into::into).collect()
        } else {
            Vec::new()
        };
        let signed_in = SignedIn {
            user_id: Arc::clone(&user_id),
            info: user.user_info.into(),
            watchlist,
        };
        self.held(slot).rare().user = Some(signed_in);
        let sign_in = Box::new(SignIn {
            user_data: user_data.into(),
            watchlist_cut: watches && user.watchlist_cut,
            online: Vec::new(),
            offline: Vec::new(),
            answers_pending: 0,
            has_news: false,
        });
        if let Some(previous) = previous {
            self.unwatch(turn, app_index, slot, previous.watchlist);
            self.held(slot).rare().pending = Some(Pending::SignIn(sign_in));
            self.watch(turn, slot);
            return Ok(());
        }
        let home = self.home_of_user(app_index, &user_id);
        let question = Question::SignIn {
            app: app_index,
            user_id,
        };
        self.ask(turn, slot, home, Pending::SignIn(sign_in), question);
        Ok(())
    }

    /// The user's home knows the socket: on to the watchlist.
    pub(super) fn signed_in(&mut self, turn: &mut impl ServerTurn, slot: Slot) {
        let row = self.held(slot);
        row.authorized = true;
        row.signed_in = true;
        row.rare().authorize_by = None;
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
        let mut by_home: Vec<Vec<Arc<str>>> = vec![Vec::new(); usize::from(self.shards)];
        for user_id in watchlist {
            by_home[usize::from(self.home_of_user(app, &user_id).0)].push(user_id);
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
    pub(super) fn watched(
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
        self.reply(turn, slot, |out| {
            outgoing::signin_success(out, &sign_in.user_data)
        });
        if sign_in.watchlist_cut {
            let (code, text) = (Some(code::WATCHLIST_LIMIT), code::WATCHLIST_CUT);
            self.reply(turn, slot, |out| outgoing::error(out, code, text, None));
        }
        if !sign_in.online.is_empty() || !sign_in.offline.is_empty() {
            let online: Vec<&str> = sign_in.online.iter().map(|it| &**it).collect();
            let offline: Vec<&str> = sign_in.offline.iter().map(|it| &**it).collect();
            self.reply(turn, slot, |out| {
                outgoing::watchlist_events(out, &online, &offline)
            });
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
        if row.signed_in {
            row.signed_in = false;
            let home = self.home_of_user(app, &user.user_id);
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
        watchlist: Vec<Arc<str>>,
    ) {
        turn.spend(Work::ROW.times(watchlist.len()));
        let mut by_home: Vec<Vec<Arc<str>>> = vec![Vec::new(); usize::from(self.shards)];
        for user_id in watchlist {
            by_home[usize::from(self.home_of_user(app, &user_id).0)].push(user_id);
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
