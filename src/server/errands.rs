//! Work that a crowd causes, done in slices: news for a user's watchers, the ends of a user's or an
//! app's connections.
//!
//! Owns: the list of errands and where each goes on.
//! May depend on: `connection`, `protocol::{code, outgoing}`, `server::{close, sign_in}`.
//! Invariants: errands are done in the order in which they came, so that news of one user reach a
//! watcher in theirs; a turn does as much as its work allows and one step at least.

use std::{rc::Rc, sync::Arc};

use shards::{
    application::{FrameId, Queued, Slot},
    work::Work,
};

use super::{ServerTurn, ShardServer};
use crate::{
    bridge::message::Waiter,
    connection::{
        pending::Pending,
        row::{SignedIn, State},
    },
    protocol::{code::CloseCode, outgoing},
    ws::encode,
};

/// Something to do for many connections of this shard.
pub(super) enum Errand {
    /// A watched user came or went.
    Watched { news: WatchedNews, next: usize },
    /// A user was terminated on these.
    Terminate { slots: Arc<[Slot]>, next: usize },
    /// A user home's answer to a sign-in, which must not overtake news that came before it.
    SignInAnswer {
        waiter: Waiter,
        users: Vec<(Arc<str>, bool)>,
    },
    /// The next slice of a listing.
    List(Waiter),
    /// The apps changed: connections of those that are gone or disabled are closed.
    CheckApps { next: usize },
}

/// What watchers are told, encoded once for all of a shard.
pub(super) struct WatchedNews {
    slots: Arc<[Slot]>,
    user_id: Arc<str>,
    online: bool,
    frame: Arc<[u8]>,
}

impl ShardServer {
    /// Watchers of this shard are to hear that a user came or went.
    pub(super) fn watched_changed(&mut self, slots: Arc<[Slot]>, user_id: Arc<str>, online: bool) {
        let (one, none): ([&str; 1], [&str; 0]) = ([&user_id], []);
        self.scratch.clear();
        let start = encode::begin_text(&mut self.scratch);
        let (on, off) = if online {
            (&one[..], &none[..])
        } else {
            (&none[..], &one[..])
        };
        outgoing::watchlist_events(&mut self.scratch, on, off);
        encode::finish_text(&mut self.scratch, start);
        let frame = Arc::from(self.scratch.as_slice());
        let news = WatchedNews {
            slots,
            user_id,
            online,
            frame,
        };
        self.errands.push_back(Errand::Watched { news, next: 0 });
    }

    /// Connections of this shard are to end because their user was terminated.
    pub(super) fn terminate(&mut self, slots: Arc<[Slot]>) {
        self.errands.push_back(Errand::Terminate { slots, next: 0 });
    }

    /// Goes on with errands until this turn's work is done.
    pub(super) fn continue_errands(&mut self, turn: &mut impl ServerTurn) {
        while turn.work_left() > Work(0)
            && let Some(errand) = self.errands.pop_front()
        {
            if let Some(rest) = self.run_errand(turn, errand) {
                self.errands.push_front(rest);
            }
        }
        self.relieve_slow(turn);
    }

    /// Does a part of an errand; what is left of it comes back.
    fn run_errand(&mut self, turn: &mut impl ServerTurn, errand: Errand) -> Option<Errand> {
        match errand {
            Errand::Watched { news, mut next } => {
                let frame = turn.add_frame(Arc::clone(&news.frame));
                while let Some(slot) = news.slots.get(next) {
                    next += 1;
                    self.tell_watcher(turn, *slot, &news, frame);
                    if turn.work_left() == Work(0) {
                        break;
                    }
                }
                (next < news.slots.len()).then_some(Errand::Watched { news, next })
            }
            Errand::Terminate { slots, mut next } => {
                while let Some(slot) = slots.get(next) {
                    next += 1;
                    turn.spend(Work::MEMBERSHIP);
                    let reason = crate::protocol::code::USER_TERMINATED;
                    self.close_saying(turn, *slot, CloseCode::UNAUTHORIZED, reason);
                    if turn.work_left() == Work(0) {
                        break;
                    }
                }
                (next < slots.len()).then_some(Errand::Terminate { slots, next })
            }
            Errand::SignInAnswer { waiter, users } => {
                turn.spend(Work::MESSAGE);
                if self.awaits(waiter) {
                    self.watched(turn, waiter.slot, users);
                    self.queue_input(waiter.slot);
                }
                None
            }
            Errand::List(waiter) => {
                turn.spend(Work::MESSAGE);
                self.list_more(turn, waiter);
                None
            }
            Errand::CheckApps { mut next } => {
                while next < self.connections.len() {
                    self.check_app_of(turn, next);
                    next += 1;
                    if turn.work_left() == Work(0) {
                        break;
                    }
                }
                if next < self.connections.len() {
                    return Some(Errand::CheckApps { next });
                }
                // Nobody of theirs is left to be counted.
                let apps = &self.apps;
                self.counters.forget_apps(|app| apps.knows(app));
                self.quotas.forget_apps(|app| apps.knows(app));
                None
            }
        }
    }

    fn tell_watcher(
        &mut self,
        turn: &mut impl ServerTurn,
        slot: Slot,
        news: &WatchedNews,
        frame: FrameId,
    ) {
        turn.spend(Work::ROW.times(8));
        let Some(row) = self.row(slot).filter(|row| row.established) else {
            return;
        };
        // A later sign-in may have ended the watch while the news was on its way.
        let watches = |user: &SignedIn| user.watchlist.contains(&news.user_id);
        if !row.user().is_some_and(watches) {
            return;
        }
        if let Some(Pending::SignIn(sign_in)) = row.rare.as_mut().and_then(|it| it.pending.as_mut())
        {
            // Not told yet: the first frame shall say how it is now.
            sign_in.tell(Arc::clone(&news.user_id), news.online);
            return;
        }
        let app = row.app;
        match turn.send_frame(slot, frame) {
            Queued::Accepted => {
                let counters = self.counters.app(app);
                counters.messages_sent += 1;
                counters.transmitted_bytes += news.frame.len() as u64;
            }
            Queued::Gone => {}
            Queued::Full => {
                let policy = self.settings.slow_consumer;
                let refused = (frame, news.frame.len());
                self.slow.note(turn, policy, slot, refused);
            }
        }
    }

    fn check_app_of(&mut self, turn: &mut impl ServerTurn, index: usize) {
        turn.spend(Work::ROW);
        let row = &self.connections[index];
        if row.state != State::Open || !row.established {
            return;
        }
        let code = match self.apps.get(row.app).map(Rc::as_ref) {
            None => CloseCode::APP_UNKNOWN,
            Some(app) if !app.entry.app.enabled => CloseCode::APP_DISABLED,
            Some(_) => return,
        };
        let slot = Slot {
            index: u32::try_from(index).expect("slot indices are u32"),
            generation: row.generation,
        };
        self.close(turn, slot, code);
    }
}
