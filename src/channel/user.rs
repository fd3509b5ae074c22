//! A user's home: on which sockets it is signed in, whether other nodes have some, and who watches it.
//!
//! Owns: signed-in sockets and watchers of each user whose home is this shard; what other nodes do not
//! know yet; whose going is held back.
//! May depend on: `channel::{names, rows}`, `protocol`, plain ids. Not on connections, queues, clocks.
//! Invariants: a user is online iff it has a signed-in socket here or on another node, or its going is held
//! back; an entry exists iff the user is online, is watched, or other nodes are to be told; online and
//! offline alternate.

use std::{collections::VecDeque, sync::Arc};

use shards::application::{Millis, ShardId, Slot};

use super::{
    names::{NameHasher, NameKey, Names},
    rows::{RowRef, Rows},
    socket_set::SocketSet,
};
use crate::protocol::{app::AppIndex, partition::AppPartitions};

/// A user of an app, with the key that was made where its id came in: it says which shard is the
/// user's home, also when the app is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserId {
    pub text: Arc<str>,
    pub key: NameKey,
}

impl UserId {
    /// A user of the app with these partitions.
    pub fn new(names: &NameHasher, app: &AppPartitions, text: impl Into<Arc<str>>) -> Self {
        let text = text.into();
        let key = names.user_key(app, &text);
        Self { text, key }
    }
}

/// A connection anywhere on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Socket {
    pub shard: ShardId,
    pub slot: Slot,
}

/// Whether watchers hear at once that a user has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Going {
    Told,
    /// Not before `next_held` gives it: this node may be behind, and the user with another one.
    HeldSince(Millis),
}

/// A user whose going was held back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// Watchers are to be told now; `release_if_idle` of the user follows.
    Gone(AppIndex, UserId),
    /// The user came back meanwhile.
    Back,
}

/// What a sign-in or sign-out meant for the user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// The first socket came, or the last one went: watchers are to be told.
    Changed,
    /// The user has other sockets, here or on other nodes, or its going is held back.
    Same,
}

/// All users whose home is this shard.
#[derive(Clone, Debug, Default)]
pub struct UserTable {
    rows: Rows<User>,
    names: Names,
    /// Other nodes are told what changes here.
    has_nodes: bool,
    /// Users of whom they may know something that is not so any more, each once.
    owing: VecDeque<(AppIndex, UserId)>,
    /// Whose going is held back, since when, oldest first; those who came back among them: no more than go
    /// within the longest time for which that is done.
    held: VecDeque<(Millis, AppIndex, UserId)>,
}

#[derive(Clone, Debug)]
struct User {
    app: AppIndex,
    id: Arc<str>,
    sockets: SocketSet,
    watchers: SocketSet,
    is_elsewhere: bool,
    /// Other nodes were told that the user is here.
    is_told: bool,
    is_owing: bool,
    held_since: Option<Millis>,
}

impl User {
    fn is_online(&self) -> bool {
        self.is_there() || self.held_since.is_some()
    }

    fn is_there(&self) -> bool {
        self.is_elsewhere || !self.sockets.is_empty()
    }
}

impl UserTable {
    /// From now on `next_news` has what other nodes are to be told.
    pub fn tell_nodes(&mut self) {
        self.has_nodes = true;
    }

    /// The next user of whom other nodes are to be told, and whether it is on this one. `None` inside:
    /// they know already. `release_if_idle` of the user follows.
    pub fn next_news(&mut self) -> Option<(AppIndex, UserId, Option<bool>)> {
        let (app, user_id) = self.owing.pop_front()?;
        let user = self.user_mut(app, &user_id);
        let user = user.expect("a user with news is kept");
        user.is_owing = false;
        let is_here = !user.sockets.is_empty();
        let was_told = std::mem::replace(&mut user.is_told, is_here);
        Some((app, user_id, (was_told != is_here).then_some(is_here)))
    }

    /// Somebody has news for other nodes.
    pub fn has_news(&self) -> bool {
        !self.owing.is_empty()
    }

    /// Whether another node has the user has changed.
    pub fn change_elsewhere(
        &mut self,
        app: AppIndex,
        user_id: &UserId,
        is_elsewhere: bool,
        going: Going,
    ) -> Presence {
        let user = self.enter(app, user_id);
        let was_online = user.is_online();
        user.is_elsewhere = is_elsewhere;
        self.changed(app, user_id, was_online, going)
    }

    /// A socket of the user came or went, here or on another node.
    fn changed(
        &mut self,
        app: AppIndex,
        user_id: &UserId,
        was_online: bool,
        going: Going,
    ) -> Presence {
        let user = self.user_mut(app, user_id).expect("the caller's user");
        if user.is_there() {
            user.held_since = None;
        } else if let Going::HeldSince(now) = going
            && was_online
            && user.held_since.is_none()
            && !user.watchers.is_empty()
        {
            user.held_since = Some(now);
            self.held.push_back((now, app, user_id.clone()));
            return Presence::Same;
        }
        if user.is_online() == was_online {
            Presence::Same
        } else {
            Presence::Changed
        }
    }

    /// The next of those whose going is held back since then or before.
    pub fn next_held(&mut self, since: Millis) -> Option<Held> {
        let (at, app, user_id) = self.held.pop_front_if(|(at, ..)| *at <= since)?;
        let user = self.user_mut(app, &user_id);
        let held = user.filter(|user| user.held_since == Some(at));
        Some(match held {
            Some(user) => {
                user.held_since = None;
                Held::Gone(app, user_id)
            }
            None => Held::Back,
        })
    }

    /// Somebody's going is held back.
    pub fn has_held(&self) -> bool {
        !self.held.is_empty()
    }

    fn note_news(&mut self, app: AppIndex, user_id: &UserId) {
        if !self.has_nodes {
            return;
        }
        let user = self.user_mut(app, user_id).expect("the caller's user");
        if !std::mem::replace(&mut user.is_owing, true) {
            self.owing.push_back((app, user_id.clone()));
        }
    }

    /// A socket signed in as the user.
    pub fn sign_in(&mut self, app: AppIndex, user_id: &UserId, socket: Socket) -> Presence {
        let user = self.enter(app, user_id);
        let was_online = user.is_online();
        assert!(user.sockets.insert(socket), "a socket signs in once");
        if user.sockets.len() == 1 {
            self.note_news(app, user_id);
        }
        self.changed(app, user_id, was_online, Going::Told)
    }

    /// A signed-in socket ended.
    pub fn sign_out(
        &mut self,
        app: AppIndex,
        user_id: &UserId,
        socket: Socket,
        going: Going,
    ) -> Presence {
        let user = self
            .user_mut(app, user_id)
            .expect("who signs out has signed in");
        assert!(user.sockets.remove(&socket), "who signs out has signed in");
        if user.sockets.is_empty() {
            self.note_news(app, user_id);
        }
        self.changed(app, user_id, true, going)
    }

    /// A socket wants to hear of the user. Returns whether the user is online.
    pub fn watch(&mut self, app: AppIndex, user_id: &UserId, socket: Socket) -> bool {
        let user = self.enter(app, user_id);
        user.watchers.insert(socket);
        user.is_online()
    }

    /// A socket does not want to hear of the user any more.
    pub fn unwatch(&mut self, app: AppIndex, user_id: &UserId, socket: Socket) {
        if let Some(user) = self.user_mut(app, user_id) {
            user.watchers.remove(&socket);
        }
    }

    /// Sockets signed in as the user.
    pub fn sockets(&self, app: AppIndex, user_id: &UserId) -> &[Socket] {
        self.user(app, user_id)
            .map_or(&[], |user| user.sockets.as_slice())
    }

    /// Sockets that watch the user.
    pub fn watchers(&self, app: AppIndex, user_id: &UserId) -> &[Socket] {
        self.user(app, user_id)
            .map_or(&[], |user| user.watchers.as_slice())
    }

    /// What users and other nodes know of each other, from a row on, until `rows_max` were looked at: who is
    /// told of, whether they know it here, whether one of them has it. Where it goes on.
    pub fn of_nodes(
        &self,
        from: u32,
        rows_max: u32,
        mut told: impl FnMut(AppIndex, &str, bool, bool),
    ) -> Option<u32> {
        let end = self.rows.bound().min(from.saturating_add(rows_max));
        for row in from..end {
            let Some((_, user)) = self.rows.at(row) else {
                continue;
            };
            // Who takes over tells of the going, others and watchers.
            let is_told = user.is_told || user.held_since.is_some();
            if is_told || user.is_elsewhere {
                told(user.app, &user.id, is_told, user.is_elsewhere);
            }
        }
        (end < self.rows.bound()).then_some(end)
    }

    /// A user as another process had it; its sockets and watchers come before or after. If no socket
    /// comes its going is held back since `now`.
    pub fn restore(
        &mut self,
        now: Millis,
        app: AppIndex,
        user_id: &UserId,
        is_told: bool,
        is_elsewhere: bool,
    ) {
        let user = self.enter(app, user_id);
        user.is_told = is_told;
        user.is_elsewhere = is_elsewhere;
        if is_told && !user.is_there() {
            user.held_since = Some(now);
            self.held.push_back((now, app, user_id.clone()));
        }
        // What is not so any more is told, once all stands.
        self.note_news(app, user_id);
    }

    /// Users with an entry.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// True without any user.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Forgets a user whom nothing holds.
    pub fn release_if_idle(&mut self, app: AppIndex, user_id: &UserId) {
        let Some(at) = self.find(app, user_id) else {
            return;
        };
        let idle = |user: &User| !user.is_online() && user.watchers.is_empty() && !user.is_owing;
        if self.rows.get(at).is_some_and(idle) {
            self.rows.remove(at);
            self.names.remove(app, user_id.key.hash, at.index);
        }
    }

    fn user(&self, app: AppIndex, user_id: &UserId) -> Option<&User> {
        self.rows.get(self.find(app, user_id)?)
    }

    fn user_mut(&mut self, app: AppIndex, user_id: &UserId) -> Option<&mut User> {
        self.rows.get_mut(self.find(app, user_id)?)
    }

    fn find(&self, app: AppIndex, user_id: &UserId) -> Option<RowRef> {
        let is_named =
            |row| matches!(self.rows.at(row), Some((_, user)) if user.id == user_id.text);
        let row = self.names.find(app, user_id.key.hash, is_named)?;
        self.rows.at(row).map(|(at, _)| at)
    }

    fn enter(&mut self, app: AppIndex, user_id: &UserId) -> &mut User {
        let at = self.find(app, user_id).unwrap_or_else(|| {
            let at = self.rows.insert(User {
                app,
                id: Arc::clone(&user_id.text),
                sockets: SocketSet::default(),
                watchers: SocketSet::default(),
                is_elsewhere: false,
                is_told: false,
                is_owing: false,
                held_since: None,
            });
            self.names.insert(app, user_id.key.hash, at.index);
            at
        });
        self.rows.get_mut(at).expect("found or made above")
    }
}

#[cfg(test)]
mod tests {
    use super::{super::names::tests::hasher, *};

    fn user_id(text: &str) -> UserId {
        UserId::new(&hasher(), &AppPartitions::of_app("app"), text)
    }

    fn socket(index: u32) -> Socket {
        Socket {
            shard: ShardId(0),
            slot: Slot {
                index,
                generation: 0,
            },
        }
    }

    #[test]
    fn only_the_first_and_the_last_socket_of_a_user_change_its_presence() {
        let (mut table, app, ann) = (UserTable::default(), AppIndex(0), user_id("ann"));
        assert!(!table.watch(app, &ann, socket(9)));
        assert_eq!(table.sign_in(app, &ann, socket(1)), Presence::Changed);
        assert_eq!(table.sign_in(app, &ann, socket(2)), Presence::Same);
        assert!(table.watch(app, &ann, socket(9)), "she is online");
        assert_eq!(
            table.sign_out(app, &ann, socket(1), Going::Told),
            Presence::Same
        );
        assert_eq!(
            table.sign_out(app, &ann, socket(2), Going::Told),
            Presence::Changed
        );
        assert_eq!(table.watchers(app, &ann), [socket(9)]);
        table.unwatch(app, &ann, socket(9));
        table.release_if_idle(app, &ann);
        assert!(table.is_empty() && table.names.count(app) == 0);
    }

    #[test]
    fn a_user_on_several_nodes_is_online_on_any_of_them_and_others_hear_what_is_so() {
        let (mut table, app, ann) = (UserTable::default(), AppIndex(0), user_id("ann"));
        table.tell_nodes();
        let (changed, same) = (Presence::Changed, Presence::Same);
        let told = |table: &mut UserTable| {
            let mut told = Vec::new();
            while let Some((_, _, news)) = table.next_news() {
                told.extend(news);
            }
            told
        };
        assert_eq!(
            table.change_elsewhere(app, &ann, true, Going::Told),
            changed
        );
        assert_eq!(table.change_elsewhere(app, &ann, true, Going::Told), same);
        assert_eq!(table.sign_in(app, &ann, socket(1)), same);
        assert_eq!(told(&mut table), [true]);
        assert_eq!(table.change_elsewhere(app, &ann, false, Going::Told), same);
        assert_eq!(table.sign_out(app, &ann, socket(1), Going::Told), changed);
        assert_eq!(table.sign_in(app, &ann, socket(1)), changed);
        assert!(told(&mut table).is_empty(), "gone and back");
        assert_eq!(table.sign_out(app, &ann, socket(1), Going::Told), changed);
        table.release_if_idle(app, &ann);
        assert_eq!(table.len(), 1, "others are to be told");
        assert_eq!(told(&mut table), [false]);
        table.release_if_idle(app, &ann);
        assert!(table.is_empty() && !table.has_news());
    }

    #[test]
    fn what_other_nodes_know_of_a_user_and_have_of_it_goes_to_another_process() {
        let app = AppIndex(0);
        let mut table = UserTable::default();
        table.tell_nodes();
        let users = ["ann", "bob", "eve"].map(user_id);
        for (user, number) in users.iter().zip(1..) {
            table.sign_in(app, user, socket(number));
        }
        table.change_elsewhere(app, &users[1], true, Going::Told);
        while table.next_news().is_some() {}
        let mut next = UserTable::default();
        next.tell_nodes();
        next.sign_in(app, &users[0], socket(1));
        let rest = table.of_nodes(0, 10, |app, id, is_told, is_elsewhere| {
            next.restore(Millis(7), app, &user_id(id), is_told, is_elsewhere);
        });
        assert_eq!(rest, None);
        next.sign_in(app, &users[1], socket(2));
        let mut told = Vec::new();
        while let Some((_, user, news)) = next.next_news() {
            told.extend(news.map(|is_here| (user.text.to_string(), is_here)));
        }
        assert_eq!(
            told,
            [("eve".to_owned(), false)],
            "her socket did not follow"
        );
        let gone = Held::Gone(app, users[2].clone());
        assert_eq!(next.next_held(Millis(7)), Some(gone), "watchers too");
        assert_eq!(next.next_held(Millis(7)), None, "the others are there");
        let same = Presence::Same;
        assert_eq!(
            next.sign_out(app, &users[1], socket(2), Going::Told),
            same,
            "elsewhere"
        );
    }

    #[test]
    fn a_going_that_is_held_back_is_told_later_unless_the_user_is_back_anywhere() {
        let (mut table, app, ann) = (UserTable::default(), AppIndex(0), user_id("ann"));
        let (changed, same) = (Presence::Changed, Presence::Same);
        let held = |at| Going::HeldSince(Millis(at));
        assert_eq!(table.sign_in(app, &ann, socket(1)), changed);
        let unwatched = table.sign_out(app, &ann, socket(1), held(10));
        assert_eq!(unwatched, changed, "there is nobody to be told");
        table.watch(app, &ann, socket(9));
        assert_eq!(table.sign_in(app, &ann, socket(1)), changed);
        assert_eq!(table.sign_out(app, &ann, socket(1), held(10)), same);
        assert!(table.watch(app, &ann, socket(8)), "as others were told");
        // Back with another node, and gone from there.
        assert_eq!(table.change_elsewhere(app, &ann, true, held(20)), same);
        assert_eq!(table.change_elsewhere(app, &ann, false, held(30)), same);
        assert_eq!(table.next_held(Millis(9)), None, "not yet");
        assert_eq!(table.next_held(Millis(29)), Some(Held::Back));
        assert_eq!(table.next_held(Millis(29)), None, "not yet");
        table.release_if_idle(app, &ann);
        let gone = Held::Gone(app, ann.clone());
        assert_eq!(table.next_held(Millis(30)), Some(gone));
        assert!(!table.has_held());
        assert_eq!(table.sign_in(app, &ann, socket(2)), changed);
    }

    #[test]
    fn a_user_of_one_app_is_nobody_in_another() {
        let (mut table, ann) = (UserTable::default(), user_id("ann"));
        let apps = [AppIndex(0), AppIndex(1)];
        for (app, number) in apps.into_iter().zip(1..) {
            let came = table.sign_in(app, &ann, socket(number));
            assert_eq!(came, Presence::Changed);
        }
        assert_eq!(table.len(), 2);
        for (app, number) in apps.into_iter().zip(1..) {
            assert_eq!(table.sockets(app, &ann), [socket(number)]);
            let went = table.sign_out(app, &ann, socket(number), Going::Told);
            assert_eq!(went, Presence::Changed);
            table.release_if_idle(app, &ann);
            assert_eq!(table.sockets(app, &ann), []);
        }
        assert!(table.is_empty());
    }
}
