//! A user's home: on which sockets it is signed in, and who watches it.
//!
//! Owns: signed-in sockets and watchers of each user whose home is this shard.
//! May depend on: `protocol`, plain ids. Not on connections, queues, clocks.
//! Invariants: a user is online iff it has a signed-in socket; an entry exists iff the user has a
//! socket or a watcher; online and offline alternate.

use std::sync::Arc;

use ahash::AHashMap;
use shards::application::{ShardId, Slot};

use super::socket_set::SocketSet;
use crate::protocol::app::AppIndex;

/// A connection anywhere on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Socket {
    pub shard: ShardId,
    pub slot: Slot,
}

/// What a sign-in or sign-out meant for the user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// The first socket came, or the last one went: watchers are to be told.
    Changed,
    /// The user has other sockets.
    Same,
}

/// All users whose home is this shard.
#[derive(Debug, Default)]
pub struct UserTable {
    users: AHashMap<AppIndex, AHashMap<Arc<str>, User>>,
}

#[derive(Debug, Default)]
struct User {
    sockets: SocketSet,
    watchers: SocketSet,
}

impl UserTable {
    /// A socket signed in as the user.
    pub fn sign_in(&mut self, app: AppIndex, user_id: &Arc<str>, socket: Socket) -> Presence {
        let user = self.enter(app, user_id);
        assert!(user.sockets.insert(socket), "a socket signs in once");
        if user.sockets.len() == 1 {
            Presence::Changed
        } else {
            Presence::Same
        }
    }

    /// A signed-in socket ended.
    pub fn sign_out(&mut self, app: AppIndex, user_id: &str, socket: Socket) -> Presence {
        let users = self
            .users
            .get_mut(&app)
            .expect("who signs out has signed in");
        let user = users.get_mut(user_id).expect("who signs out has signed in");
        assert!(user.sockets.remove(&socket), "who signs out has signed in");
        if user.sockets.is_empty() {
            Presence::Changed
        } else {
            Presence::Same
        }
    }

    /// A socket wants to hear of the user. Returns whether the user is online.
    pub fn watch(&mut self, app: AppIndex, user_id: &Arc<str>, socket: Socket) -> bool {
        let user = self.enter(app, user_id);
        user.watchers.insert(socket);
        !user.sockets.is_empty()
    }

    /// A socket does not want to hear of the user any more.
    pub fn unwatch(&mut self, app: AppIndex, user_id: &str, socket: Socket) {
        if let Some(user) = self
            .users
            .get_mut(&app)
            .and_then(|users| users.get_mut(user_id))
        {
            user.watchers.remove(&socket);
        }
    }

    /// Sockets signed in as the user.
    pub fn sockets(&self, app: AppIndex, user_id: &str) -> &[Socket] {
        self.user(app, user_id)
            .map_or(&[], |user| user.sockets.as_slice())
    }

    /// Sockets that watch the user.
    pub fn watchers(&self, app: AppIndex, user_id: &str) -> &[Socket] {
        self.user(app, user_id)
            .map_or(&[], |user| user.watchers.as_slice())
    }

    /// Users with a socket or a watcher.
    pub fn len(&self) -> usize {
        self.users.values().map(|users| users.len()).sum()
    }

    /// True without any user.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// Forgets a user without sockets and watchers.
    pub fn release_if_idle(&mut self, app: AppIndex, user_id: &str) {
        let Some(users) = self.users.get_mut(&app) else {
            return;
        };
        let idle = |user: &User| user.sockets.is_empty() && user.watchers.is_empty();
        if users.get(user_id).is_some_and(idle) {
            users.remove(user_id);
        }
        if users.is_empty() {
            self.users.remove(&app);
        }
    }

    fn user(&self, app: AppIndex, user_id: &str) -> Option<&User> {
        self.users.get(&app)?.get(user_id)
    }

    fn enter(&mut self, app: AppIndex, user_id: &Arc<str>) -> &mut User {
        let users = self.users.entry(app).or_default();
        if !users.contains_key(user_id) {
            users.insert(Arc::clone(user_id), User::default());
        }
        users.get_mut(user_id).expect("inserted a line ago")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let (mut table, app, ann) = (UserTable::default(), AppIndex(0), Arc::from("ann"));
        assert!(!table.watch(app, &ann, socket(9)));
        assert_eq!(table.sign_in(app, &ann, socket(1)), Presence::Changed);
        assert_eq!(table.sign_in(app, &ann, socket(2)), Presence::Same);
        assert!(table.watch(app, &ann, socket(9)), "she is online");
        assert_eq!(table.sign_out(app, "ann", socket(1)), Presence::Same);
        assert_eq!(table.sign_out(app, "ann", socket(2)), Presence::Changed);
        assert_eq!(table.watchers(app, "ann"), [socket(9)]);
        table.unwatch(app, "ann", socket(9));
        table.release_if_idle(app, "ann");
        assert!(table.users.is_empty());
    }
}
