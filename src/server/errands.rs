//! Work that a crowd or a large request causes, done in slices: news for a user's watchers, the ends of a user's
//! or an app's connections, the events of a publication, what goes on behind a hand-over.
//!
//! Owns: the list of errands and where each goes on.
//! May depend on: `connection`, `protocol::{code, outgoing}`, `server::{close, sign_in}`.
//! Invariants: errands are done in the order in which they came, so that news of one user reach a
//! watcher in theirs; a turn does as much as its work allows.

use std::{collections::VecDeque, rc::Rc, sync::Arc};

use ahash::{AHashMap, AHashSet};
use shards::{
    application::{FrameId, Queued, Slot, Waiter},
    work::Work,
};

use super::{ServerTurn, ShardServer, handover::Unbegun, message::Message};
use crate::{
    connection::{pending::Pending, row::SignedIn},
    protocol::{app::AppIndex, code::CloseCode, outgoing},
    ws::encode,
};

/// Something to do for many connections of this shard.
#[derive(Clone)]
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
    /// The next slice of a publication; listed once, while there are any that may go on.
    Read,
    /// The apps changed: connections of those that are gone or disabled are closed, those of an app that has its
    /// first limit are counted.
    CheckApps { next: usize },
    /// The next slice of a search for the largest channels.
    Largest,
    /// The next part of a report to the bridge.
    Report,
    /// What another process had goes on here.
    GoOn(Box<Unbegun>),
}

/// What watchers are told, encoded once for all of a shard.
#[derive(Clone)]
pub(super) struct WatchedNews {
    app: AppIndex,
    slots: Arc<[Slot]>,
    user_id: Arc<str>,
    online: bool,
    /// Made when the first of them is told: news may cancel each other before.
    frame: Option<Arc<[u8]>>,
}

/// What is to be done, first come first done. It is bounded by the connections of this shard: each
/// waits for one answer at most, and of a user who comes and goes faster than it can be told the
/// news cancel each other out.
#[derive(Clone, Default)]
pub(super) struct Errands {
    list: VecDeque<Errand>,
    /// The number of the first; the others are numbered from there.
    first: u64,
    /// Numbers of the news that nobody was told yet, by user.
    news: AHashMap<(AppIndex, Arc<str>), u64>,
    /// Behind the last answer to a sign-in. What is behind it may differ from what the answer says.
    answered: u64,
}

impl Errands {
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(super) fn push(&mut self, errand: Errand) {
        self.list.push_back(errand);
        if let Some(Errand::SignInAnswer { .. }) = self.list.back() {
            self.answered = self.end();
        }
    }

    /// Adds news. Where the contrary is listed and nobody was told it yet, whoever has not heard that needs to
    /// hear neither. Where the same is listed, the user was otherwise between while nobody of this shard was to
    /// hear of it (who watched had left, and who watches now was not answered): each hears it once.
    fn push_news(&mut self, mut news: WatchedNews) {
        let key = (news.app, Arc::clone(&news.user_id));
        let before = self.news.remove(&key).filter(|it| *it >= self.answered);
        let place = before.and_then(|it| usize::try_from(it - self.first).ok());
        let listed = place.and_then(|place| self.list.get_mut(place));
        if let (Some(number), Some(Errand::Watched { news: before, next })) = (before, listed) {
            assert_eq!(*next, 0, "news that were begun are not listed");
            let unheard: AHashSet<Slot> = before.slots.iter().copied().collect();
            let is_other = |slot: &&Slot| !unheard.contains(*slot);
            let others: Vec<Slot> = news.slots.iter().filter(is_other).copied().collect();
            if before.online == news.online {
                before.slots = before.slots.iter().copied().chain(others).collect();
                self.news.insert(key, number);
                return;
            }
            before.slots = Arc::default();
            news.slots = others.into();
            if news.slots.is_empty() {
                return;
            }
        }
        self.news.insert(key, self.end());
        self.list.push_back(Errand::Watched { news, next: 0 });
    }

    /// The number of the next one that is added.
    fn end(&self) -> u64 {
        self.first + self.list.len() as u64
    }

    fn pop(&mut self) -> Option<Errand> {
        let errand = self.list.pop_front()?;
        if let Errand::Watched { news, next: 0 } = &errand {
            let key = (news.app, Arc::clone(&news.user_id));
            if self.news.get(&key) == Some(&self.first) {
                self.news.remove(&key);
            }
        }
        self.first += 1;
        Some(errand)
    }

    /// Puts back what is left of the one that was popped last.
    fn put_back(&mut self, rest: Errand) {
        self.first -= 1;
        self.list.push_front(rest);
    }
}

impl ShardServer {
    /// Watchers of this shard are to hear that a user came or went.
    pub(super) fn on_watch_news(
        &mut self,
        turn: &mut impl ServerTurn,
        app: AppIndex,
        slots: Arc<[Slot]>,
        user_id: Arc<str>,
        online: bool,
    ) {
        turn.spend(Work::ROW.and(Work::bytes(64 * slots.len())));
        self.errands.push_news(WatchedNews {
            app,
            slots,
            user_id,
            online,
            frame: None,
        });
    }

    /// Connections of this shard are to end because their user was terminated.
    pub(super) fn terminate(&mut self, slots: Arc<[Slot]>) {
        self.errands.push(Errand::Terminate { slots, next: 0 });
    }

    /// Goes on with errands until this turn's work is done.
    pub(super) fn continue_errands(&mut self, turn: &mut impl ServerTurn) {
        while turn.work_left() > Work(0)
            && let Some(errand) = self.errands.pop()
        {
            if let Some(rest) = self.run_errand(turn, errand) {
                self.errands.put_back(rest);
            }
        }
        self.relieve_slow(turn);
    }

    /// Does a part of an errand; what is left of it comes back.
    fn run_errand(&mut self, turn: &mut impl ServerTurn, errand: Errand) -> Option<Errand> {
        match errand {
            Errand::Watched { news, .. } if news.slots.is_empty() => None,
            Errand::Watched { mut news, mut next } => {
                let bytes = news.frame.take().unwrap_or_else(|| {
                    watched_frame(&mut self.scratch, &news.user_id, news.online)
                });
                news.frame = Some(Arc::clone(&bytes));
                let frame = (turn.add_frame(Arc::clone(&bytes)), bytes.len());
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
                    self.on_watched(turn, waiter.slot, users);
                    self.queue_input(waiter.slot);
                }
                None
            }
            Errand::List(waiter) => {
                turn.spend(Work::MESSAGE);
                self.list_more(turn, waiter);
                None
            }
            Errand::Read => {
                turn.spend(Work::MESSAGE);
                self.reads.is_listed = false;
                if let Some(waiter) = self.next_read() {
                    self.read_more(turn, waiter);
                }
                self.list_reads();
                None
            }
            Errand::Largest => {
                // Behind the others: who waits for those does not wait for an operator.
                if self.search_largest(turn) {
                    self.errands.push(Errand::Largest);
                }
                None
            }
            Errand::Report => {
                if self.report_more(turn) {
                    self.errands.push(Errand::Report);
                }
                None
            }
            Errand::CheckApps { next } => self.check_apps(turn, next),
            Errand::GoOn(unbegun) => self.go_on(turn, unbegun).map(Errand::GoOn),
        }
    }

    /// Looks at some connections after a change of apps; what is left of that comes back.
    fn check_apps(&mut self, turn: &mut impl ServerTurn, mut next: usize) -> Option<Errand> {
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
        self.published.forget_apps(|app| apps.knows(app));
        None
    }

    fn tell_watcher(
        &mut self,
        turn: &mut impl ServerTurn,
        slot: Slot,
        news: &WatchedNews,
        (frame, frame_bytes): (FrameId, usize),
    ) {
        turn.spend(Work::ROW.times(8));
        let Some(row) = self.row(slot).filter(|row| row.is_open()) else {
            return;
        };
        // A later sign-in may have ended the watch while the news was on its way.
        let watches = |user: &SignedIn| {
            let mut watched = user.watchlist.iter();
            watched.any(|it| it.text == news.user_id)
        };
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
                counters.transmitted_bytes += encode::payload_bytes(frame_bytes) as u64;
            }
            Queued::Gone => {}
            Queued::Full => {
                let policy = self.settings.slow_consumer;
                let refused = (frame, frame_bytes);
                self.slow.note(turn, policy, slot, refused);
            }
        }
    }

    fn check_app_of(&mut self, turn: &mut impl ServerTurn, index: usize) {
        turn.spend(Work::ROW);
        let row = &self.connections[index];
        if !row.is_open() {
            return;
        }
        let code = match self.apps.get(row.app).map(Rc::as_ref) {
            None => CloseCode::APP_UNKNOWN,
            Some(app) if !app.entry.rules.is_enabled => CloseCode::APP_DISABLED,
            Some(app) if app.entry.rules.limits_connections && row.counted.by_app.is_none() => {
                return self.count_late(turn, index);
            }
            Some(_) => return,
        };
        let slot = Slot {
            index: u32::try_from(index).expect("slot indices are u32"),
            generation: row.generation,
        };
        self.close(turn, slot, code);
    }
}

impl ShardServer {
    /// Has an open connection counted that came before its app had a limit.
    fn count_late(&mut self, turn: &mut impl ServerTurn, index: usize) {
        turn.spend(Work::MESSAGE);
        let app = self.connections[index].app;
        let rules = self.apps.get(app).expect("the caller knows the app");
        let home = self.home_of(rules.entry.rules.partitions.own());
        self.connections[index].counted.by_app = Some(home);
        self.send_home(turn, home, Message::CountInApp { app });
    }
}

/// The frame that tells one user's watchers how it is now.
fn watched_frame(scratch: &mut Vec<u8>, user_id: &str, online: bool) -> Arc<[u8]> {
    let (one, none): (&[&str], &[&str]) = (&[user_id], &[]);
    let (on, off) = if online { (one, none) } else { (none, one) };
    scratch.clear();
    let start = encode::begin_text(scratch);
    outgoing::watchlist_events(scratch, on, off);
    encode::finish_text(scratch, start);
    Arc::from(scratch.as_slice())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(numbers: &[u32]) -> Arc<[Slot]> {
        let slot = |index: &u32| Slot {
            index: *index,
            generation: 1,
        };
        numbers.iter().map(slot).collect()
    }

    fn news(user_id: &str, online: bool, watchers: &[u32]) -> WatchedNews {
        WatchedNews {
            app: AppIndex(0),
            slots: slots(watchers),
            user_id: user_id.into(),
            online,
            frame: None,
        }
    }

    fn answer() -> Errand {
        let slot = slots(&[9])[0];
        Errand::SignInAnswer {
            waiter: Waiter {
                shard: shards::application::ShardId(0),
                slot,
                operation: 1,
            },
            users: Vec::new(),
        }
    }

    /// Who is told what of whom, in order; "?" for an answer.
    fn told(errands: &mut Errands) -> Vec<(String, u32)> {
        let mut told = Vec::new();
        while let Some(errand) = errands.pop() {
            if let Errand::Watched { news, .. } = errand {
                let sign = if news.online { '+' } else { '-' };
                let what = format!("{sign}{}", news.user_id);
                told.extend(news.slots.iter().map(|slot| (what.clone(), slot.index)));
            } else {
                told.push(("?".to_owned(), 9));
            }
        }
        told
    }

    #[test]
    fn a_user_who_comes_and_goes_unheard_is_no_news_to_those_who_would_have_heard() {
        let mut errands = Errands::default();
        for _ in 0..1_000 {
            errands.push_news(news("ann", true, &[1, 2]));
            errands.push_news(news("bob", true, &[2]));
            errands.push_news(news("ann", false, &[2, 3]));
            errands.push_news(news("bob", false, &[2]));
            errands.push_news(news("ann", true, &[2, 3]));
            errands.push_news(news("ann", false, &[2, 3]));
        }
        assert_eq!(told(&mut errands), [("-ann".to_owned(), 3)]);
        errands.push_news(news("ann", true, &[1]));
        assert_eq!(
            told(&mut errands),
            [("+ann".to_owned(), 1)],
            "it was told offline"
        );
        errands.push_news(news("ann", false, &[1]));
        assert_eq!(
            told(&mut errands),
            [("-ann".to_owned(), 1)],
            "it was told online"
        );
        assert!(errands.news.is_empty());
    }

    #[test]
    fn news_do_not_cancel_over_an_answer_that_says_how_it_was_between() {
        let mut errands = Errands::default();
        errands.push_news(news("ann", true, &[1, 9]));
        errands.push(answer());
        errands.push_news(news("ann", false, &[1, 9]));
        let told = told(&mut errands);
        let told: Vec<(&str, u32)> = told.iter().map(|(what, slot)| (&**what, *slot)).collect();
        assert_eq!(
            told,
            [("+ann", 1), ("+ann", 9), ("?", 9), ("-ann", 1), ("-ann", 9)]
        );
    }

    #[test]
    fn the_same_news_twice_are_told_once_to_each_and_cancelled_as_one() {
        let mut errands = Errands::default();
        // Between, ann was away, and nobody of this shard was to hear of it.
        errands.push_news(news("ann", true, &[1, 2]));
        errands.push_news(news("ann", true, &[2, 3]));
        let online = [1, 2, 3].map(|slot| ("+ann".to_owned(), slot));
        assert_eq!(told(&mut errands), online);
        assert!(errands.news.is_empty());
        errands.push_news(news("ann", true, &[1]));
        errands.push_news(news("ann", true, &[2]));
        errands.push_news(news("ann", false, &[1, 2, 3]));
        assert_eq!(told(&mut errands), [("-ann".to_owned(), 3)]);
    }

    #[test]
    fn news_that_were_begun_are_told_to_the_end() {
        let mut errands = Errands::default();
        errands.push_news(news("ann", true, &[1, 2]));
        let Some(Errand::Watched { news: begun, .. }) = errands.pop() else {
            panic!("the news");
        };
        errands.put_back(Errand::Watched {
            news: begun,
            next: 1,
        });
        errands.push_news(news("ann", false, &[1, 2]));
        assert_eq!(told(&mut errands).len(), 4);
    }
}
