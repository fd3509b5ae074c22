//! Presence roster of one channel: who is here, on how many connections, and what a join or leave
//! announces.
//!
//! Owns: the map user -> (info, connections) of one channel's home entry, the frame that tells of it.
//! May depend on: `protocol::outgoing` (the bytes of a snapshot). Not on slots, queues, clocks, nor
//! on `ws`: whoever asks for the frame says how it is encoded.
//! Invariants: a user is listed iff its connection count is > 0; additions and removals alternate
//! per user; ids are sorted, so that the same members always give the same bytes.

use std::{collections::BTreeMap, sync::Arc};

use crate::protocol::outgoing;

/// A member as it joins: its id, and its `user_info` as JSON text (`null` when it gave none).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub user_id: Arc<str>,
    pub info: Arc<str>,
}

/// The members of one presence channel.
#[derive(Clone, Debug, Default)]
pub struct Roster {
    members: BTreeMap<Arc<str>, Row>,
    /// What newcomers are told, until the next change.
    frame: Option<Arc<[u8]>>,
}

#[derive(Clone, Debug)]
struct Row {
    info: Arc<str>,
    connections: u32,
}

/// What a connection's joining or leaving meant for its user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The user's first connection came, or its last one went.
    User,
    /// The user has other connections here.
    ConnectionOnly,
}

impl Roster {
    /// Adds a connection of a user. A later connection's info replaces the stored one.
    pub fn join(&mut self, member: &Member) -> Change {
        if let Some(row) = self.members.get_mut(&member.user_id) {
            assert!(row.connections > 0, "a listed user has a connection");
            row.connections += 1;
            if row.info == member.info {
                return Change::ConnectionOnly;
            }
            self.frame = None;
            row.info = Arc::clone(&member.info);
            return Change::ConnectionOnly;
        }
        let row = Row {
            info: Arc::clone(&member.info),
            connections: 1,
        };
        self.members.insert(Arc::clone(&member.user_id), row);
        self.frame = None;
        Change::User
    }

    /// Takes a connection of a user away. Panics if the user is not listed: who leaves has joined.
    pub fn leave(&mut self, user_id: &str) -> Change {
        let row = self
            .members
            .get_mut(user_id)
            .expect("who leaves has joined");
        row.connections = row
            .connections
            .checked_sub(1)
            .expect("a listed user has a connection");
        if row.connections > 0 {
            return Change::ConnectionOnly;
        }
        self.members.remove(user_id);
        self.frame = None;
        Change::User
    }

    /// True if the user is listed.
    pub fn contains(&self, user_id: &str) -> bool {
        self.members.contains_key(user_id)
    }

    /// Number of users.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// True without users.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Ids of the users, sorted.
    pub fn user_ids(&self) -> impl Iterator<Item = &Arc<str>> {
        self.members.keys()
    }

    /// The frame that a newcomer gets. `encode` makes it when somebody came or went since the last
    /// time.
    pub fn frame(&mut self, encode: impl FnOnce(&Self) -> Arc<[u8]>) -> Arc<[u8]> {
        if let Some(frame) = &self.frame {
            return Arc::clone(frame);
        }
        let frame = encode(self);
        self.frame = Some(Arc::clone(&frame));
        frame
    }

    /// The JSON in a newcomer's frame: `{"presence":{"count":..,"ids":[..],"hash":{..}}}`
    /// (Pusher Channels protocol, "Presence channel events").
    pub fn snapshot(&self) -> String {
        let mut json = Vec::with_capacity(64 + self.members.len() * 64);
        let members = self.members.iter();
        let members = members.map(|(user_id, row)| (&**user_id, &*row.info));
        outgoing::presence_snapshot(&mut json, members);
        String::from_utf8(json).expect("ids and infos are text")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(user_id: &str, info: &str) -> Member {
        Member {
            user_id: user_id.into(),
            info: info.into(),
        }
    }

    #[test]
    fn a_second_connection_of_a_user_is_not_a_second_member() {
        let mut roster = Roster::default();
        assert_eq!(
            roster.join(&member("10", "{\"name\":\"Ann\"}")),
            Change::User
        );
        assert_eq!(roster.join(&member("10", "null")), Change::ConnectionOnly);
        assert_eq!(roster.len(), 1);
        assert_eq!(roster.leave("10"), Change::ConnectionOnly);
        assert_eq!(roster.leave("10"), Change::User);
        assert!(roster.is_empty());
    }

    #[test]
    fn a_snapshot_lists_each_user_once_with_the_latest_info() {
        let mut roster = Roster::default();
        let _ = roster.join(&member("7", "{\"name\":\"Bob\"}"));
        let _ = roster.join(&member("10", "null"));
        let _ = roster.join(&member("10", "{\"name\":\"Ann\"}"));
        let expected = concat!(
            r#"{"presence":{"count":2,"ids":["10","7"],"#,
            r#""hash":{"10":{"name":"Ann"},"7":{"name":"Bob"}}}}"#
        );
        assert_eq!(&*roster.snapshot(), expected);
        let _ = roster.leave("7");
        assert_eq!(
            &*roster.snapshot(),
            r#"{"presence":{"count":1,"ids":["10"],"hash":{"10":{"name":"Ann"}}}}"#
        );
    }

    #[test]
    fn the_frame_is_encoded_anew_after_each_change_of_what_it_tells_and_only_then() {
        let mut roster = Roster::default();
        let ann = member("10", "null");
        let named = member("10", "{\"name\":\"Ann\"}");
        let mut told = |change: &dyn Fn(&mut Roster) -> Change| {
            let change = change(&mut roster);
            let mut encoded = false;
            let frame = roster.frame(|roster| {
                encoded = true;
                roster.snapshot().into_bytes().into()
            });
            assert_eq!(*frame, *roster.snapshot().as_bytes());
            (change, encoded)
        };
        let (user, connection) = (Change::User, Change::ConnectionOnly);
        assert_eq!(told(&|it| it.join(&ann)), (user, true));
        assert_eq!(told(&|it| it.join(&ann)), (connection, false));
        assert_eq!(told(&|it| it.join(&named)), (connection, true));
        assert_eq!(told(&|it| it.leave("10")), (connection, false));
        assert_eq!(told(&|it| it.join(&member("7", "null"))), (user, true));
        assert_eq!(told(&|it| it.leave("7")), (user, true));
    }
}
