//! Presence roster of one channel: who is there, here on how many connections or on another node, and
//! what a join or leave announces.
//!
//! Owns: the map user -> (info, connections) of one channel's home entry, the frame that tells of it,
//! what the other nodes do not know yet of those who are here, whose going is told later.
//! May depend on: `protocol::outgoing` (the bytes of a snapshot). Not on slots, queues, clocks, nor
//! on `ws`: whoever asks for the frame says how it is encoded.
//! Invariants: a user is listed iff it has a connection here, is on another node, or its going is held back;
//! additions and removals alternate per user, and so do what other nodes are told of a user; ids are sorted, so that
//! the same members always give the same bytes.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    sync::Arc,
};

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
    /// Who is nowhere, as far as this node knows, and is listed until that is told.
    held: BTreeSet<Arc<str>>,
    /// What newcomers are told, until the next change.
    frame: Option<Arc<[u8]>>,
    /// Users of whom other nodes may know something that is not so any more, and what they know;
    /// `None` where there are no other nodes.
    owed: Option<BTreeMap<Arc<str>, Owed>>,
}

#[derive(Clone, Debug)]
struct Row {
    /// Of the connections here, or without any what the other nodes say.
    info: Arc<str>,
    /// On this node.
    connections: u32,
    /// What the other nodes say of it; `None`: they do not have it.
    elsewhere: Option<Arc<str>>,
}

#[derive(Clone, Debug)]
struct Owed {
    known: Known,
    /// It was here and nowhere else since then, with this info, and they do not know it. They are told
    /// even if it is gone: one of them may have to tell webhooks that it went.
    visit: Option<Arc<str>>,
}

/// What other nodes know of a user on this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    Absent,
    Present,
    /// Present, with another info.
    Outdated,
}

/// What other nodes are to be told of this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberNews {
    Joined(Member),
    Left { user_id: Arc<str> },
}

/// What a joining or leaving meant for the user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The user came, or is nowhere any more.
    User,
    /// The user has other connections, here or on other nodes.
    ConnectionOnly,
    /// The user is nowhere any more, and listed until that is told.
    Held,
    /// The user is back before that was told.
    Returned,
}

/// When it is told that a user is nowhere any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tell {
    Now,
    /// With `release`: the user may be where this node does not see it.
    Later,
}

impl Roster {
    /// Of a channel without members; with other nodes, `next_news` has what they are to be told.
    pub fn new(has_nodes: bool) -> Self {
        Self {
            owed: has_nodes.then(BTreeMap::new),
            ..Self::default()
        }
    }

    /// Adds a connection of a user. A later connection's info replaces the stored one.
    pub fn join(&mut self, member: &Member) -> Change {
        let Some(row) = self.members.get_mut(&member.user_id) else {
            self.add(member, 1, None);
            self.owe(&member.user_id, Known::Absent);
            return Change::User;
        };
        row.connections += 1;
        let came = row.connections == 1;
        let is_new = row.info != member.info;
        if is_new {
            self.frame = None;
            row.info = Arc::clone(&member.info);
        }
        if came {
            self.owe(&member.user_id, Known::Absent);
        } else if is_new {
            self.owe(&member.user_id, Known::Outdated);
        }
        self.returned(&member.user_id)
    }

    fn returned(&mut self, user_id: &str) -> Change {
        match self.held.remove(user_id) {
            true => Change::Returned,
            false => Change::ConnectionOnly,
        }
    }

    fn add(&mut self, member: &Member, connections: u32, elsewhere: Option<Arc<str>>) {
        self.held.remove(&member.user_id);
        let row = Row {
            info: Arc::clone(&member.info),
            connections,
            elsewhere,
        };
        self.members.insert(Arc::clone(&member.user_id), row);
        self.frame = None;
    }

    /// The first other node has the user, or says another info.
    pub fn join_elsewhere(&mut self, member: &Member) -> Change {
        let Some(row) = self.members.get_mut(&member.user_id) else {
            self.add(member, 0, Some(Arc::clone(&member.info)));
            return Change::User;
        };
        row.elsewhere = Some(Arc::clone(&member.info));
        // Who is here knows best.
        if row.connections == 0 && row.info != member.info {
            self.frame = None;
            row.info = Arc::clone(&member.info);
        }
        self.returned(&member.user_id)
    }

    /// No other node has the user any more. One that is not listed is ignored.
    pub fn leave_elsewhere(&mut self, user_id: &Arc<str>, tell: Tell) -> Change {
        let Some(row) = self.members.get_mut(user_id) else {
            return Change::ConnectionOnly;
        };
        let was_elsewhere = row.elsewhere.take().is_some();
        if row.connections > 0 || !was_elsewhere {
            return Change::ConnectionOnly;
        }
        self.went(user_id, tell)
    }

    fn went(&mut self, user_id: &Arc<str>, tell: Tell) -> Change {
        match tell {
            Tell::Now => {
                self.members.remove(user_id);
                self.frame = None;
                Change::User
            }
            Tell::Later => {
                self.held.insert(Arc::clone(user_id));
                Change::Held
            }
        }
    }

    /// Takes out one of those whose going was held back, which is to be told now.
    pub fn release(&mut self) -> Option<Arc<str>> {
        let user_id = self.held.pop_first()?;
        self.members.remove(&user_id);
        self.frame = None;
        Some(user_id)
    }

    /// Users whose going is held back.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// What other nodes know of a user may not be so any more. What they were told last stands; who
    /// came back may have come with another info.
    fn owe(&mut self, user_id: &Arc<str>, known: Known) {
        let Some(owed) = &mut self.owed else { return };
        match owed.entry(Arc::clone(user_id)) {
            Entry::Vacant(entry) => {
                let visit = None;
                entry.insert(Owed { known, visit });
            }
            Entry::Occupied(mut entry) => {
                let owed = entry.get_mut();
                if known != Known::Present && owed.known == Known::Present {
                    owed.known = Known::Outdated;
                }
            }
        }
    }

    /// A user that was here alone has gone.
    fn owe_visit(&mut self, user_id: &Arc<str>, info: Arc<str>) {
        let owed = self.owed.as_mut().and_then(|owed| owed.get_mut(user_id));
        if let Some(owed) = owed.filter(|owed| owed.known == Known::Absent) {
            owed.visit = Some(info);
        }
    }

    /// True if other nodes are to be told something.
    pub fn owes(&self) -> bool {
        self.owed.as_ref().is_some_and(|owed| !owed.is_empty())
    }

    /// The next thing that other nodes are to be told.
    pub fn next_news(&mut self) -> Option<MemberNews> {
        let owed = self.owed.as_mut()?;
        while let Some((user_id, Owed { known, visit })) = owed.pop_first() {
            let here = self.members.get(&user_id).filter(|row| row.connections > 0);
            match (here, known) {
                (Some(row), Known::Absent | Known::Outdated) => {
                    let info = Arc::clone(&row.info);
                    return Some(MemberNews::Joined(Member { user_id, info }));
                }
                (None, Known::Present | Known::Outdated) => {
                    return Some(MemberNews::Left { user_id });
                }
                (None, Known::Absent) => {
                    let Some(info) = visit else { continue };
                    let left = Owed {
                        known: Known::Present,
                        visit: None,
                    };
                    owed.insert(Arc::clone(&user_id), left);
                    return Some(MemberNews::Joined(Member { user_id, info }));
                }
                (Some(_), Known::Present) => {}
            }
        }
        None
    }

    /// Takes a connection of a user away. Panics if the user is not listed: who leaves has joined.
    pub fn leave(&mut self, user_id: &Arc<str>, tell: Tell) -> Change {
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
        let (elsewhere, info_here) = (row.elsewhere.clone(), Arc::clone(&row.info));
        if let Some(info) = &elsewhere
            && row.info != *info
        {
            self.frame = None;
            row.info = Arc::clone(info);
        }
        self.owe(user_id, Known::Present);
        if elsewhere.is_some() {
            return Change::ConnectionOnly;
        }
        self.owe_visit(user_id, info_here);
        self.went(user_id, tell)
    }

    /// Ids and infos of those who are here, and of those whose going is held back: who takes over tells it.
    pub fn here(&self) -> Vec<(String, String)> {
        let is_here = |id: &Arc<str>, row: &Row| row.connections > 0 || self.held.contains(id);
        let here = self.members.iter().filter(|(id, row)| is_here(id, row));
        here.map(|(user_id, row)| (user_id.to_string(), row.info.to_string()))
            .collect()
    }

    /// Ids and infos of those who are on other nodes, as these say.
    pub fn elsewhere(&self) -> Vec<(String, String)> {
        let rows = self.members.iter();
        rows.filter_map(|(user_id, row)| {
            Some((user_id.to_string(), row.elsewhere.as_ref()?.to_string()))
        })
        .collect()
    }

    /// A member whom another process had, with its info; its connections come before or after. Other nodes
    /// know it.
    pub fn restore_member(&mut self, member: &Member) {
        self.frame = None;
        match self.members.get_mut(&member.user_id) {
            Some(row) => row.info = Arc::clone(&member.info),
            None => self.add(member, 0, None),
        }
        self.owe(&member.user_id, Known::Present);
    }

    /// A member who is on another node, as that says; what is restored of it here comes before or after.
    pub fn restore_elsewhere(&mut self, member: &Member) {
        match self.members.get_mut(&member.user_id) {
            Some(row) => row.elsewhere = Some(Arc::clone(&member.info)),
            None => self.add(member, 0, Some(Arc::clone(&member.info))),
        }
    }

    /// A connection that a member had in another process.
    pub fn restore_connection(&mut self, user_id: &Arc<str>) {
        // It was nowhere only as long as this had not come.
        self.held.remove(user_id);
        if let Some(row) = self.members.get_mut(user_id) {
            row.connections += 1;
            return;
        }
        let member = Member {
            user_id: Arc::clone(user_id),
            info: "null".into(),
        };
        self.add(&member, 1, None);
    }

    /// Takes out, or holds back, who was restored and has no connection, here or on another node. Whose
    /// going was held back before is told with the others.
    pub fn restored(&mut self, tell: Tell) -> Vec<(Arc<str>, Change)> {
        for row in self.members.values_mut().filter(|row| row.connections == 0) {
            if let Some(info) = &row.elsewhere
                && *info != row.info
            {
                row.info = Arc::clone(info);
                self.frame = None;
            }
        }
        let is_absent = |id: &Arc<str>, row: &Row| {
            row.connections == 0 && row.elsewhere.is_none() && !self.held.contains(id)
        };
        let members = self.members.iter().filter(|(id, row)| is_absent(id, row));
        let absent: Vec<Arc<str>> = members.map(|(user_id, _)| Arc::clone(user_id)).collect();
        let went = |user_id| {
            let change = self.went(&user_id, tell);
            (user_id, change)
        };
        absent.into_iter().map(went).collect()
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
    fn who_was_held_back_before_its_connection_was_restored_is_here() {
        let (mut roster, ann) = (Roster::default(), member("10", "null"));
        roster.restore_elsewhere(&ann);
        let change = roster.leave_elsewhere(&ann.user_id, Tell::Later);
        assert_eq!(change, Change::Held);
        roster.restore_connection(&ann.user_id);
        assert_eq!(
            (roster.held(), roster.release(), roster.len()),
            (0, None, 1)
        );
    }

    #[test]
    fn who_was_held_back_and_did_not_follow_goes_once() {
        for tell in [Tell::Now, Tell::Later] {
            let (mut roster, ann) = (Roster::default(), member("10", "null"));
            let bob = member("20", "null");
            roster.restore_elsewhere(&ann);
            roster.restore_member(&bob);
            let change = roster.leave_elsewhere(&ann.user_id, Tell::Later);
            assert_eq!(change, Change::Held);
            let (change, held) = match tell {
                Tell::Now => (Change::User, 1),
                Tell::Later => (Change::Held, 2),
            };
            assert_eq!(roster.restored(tell), [(bob.user_id, change)]);
            assert_eq!((roster.held(), roster.len()), (held, held));
            assert_eq!(roster.restored(tell), [], "once");
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
        assert_eq!(
            roster.leave(&"10".into(), Tell::Now),
            Change::ConnectionOnly
        );
        assert_eq!(roster.leave(&"10".into(), Tell::Now), Change::User);
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
        let _ = roster.leave(&"7".into(), Tell::Now);
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
        assert_eq!(
            told(&|it| it.leave(&"10".into(), Tell::Now)),
            (connection, false)
        );
        assert_eq!(told(&|it| it.join(&member("7", "null"))), (user, true));
        assert_eq!(told(&|it| it.leave(&"7".into(), Tell::Now)), (user, true));
    }

    #[test]
    fn a_user_on_several_nodes_comes_once_and_goes_with_the_last_of_them() {
        let ann = member("10", "null");
        let id: Arc<str> = "10".into();
        let (user, same) = (Change::User, Change::ConnectionOnly);
        let mut roster = Roster::default();
        assert_eq!(roster.join_elsewhere(&ann), user);
        assert_eq!(roster.join(&ann), same);
        assert_eq!(roster.leave_elsewhere(&"10".into(), Tell::Now), same);
        assert_eq!(
            roster.leave_elsewhere(&"10".into(), Tell::Now),
            same,
            "said twice"
        );
        assert_eq!(roster.join_elsewhere(&ann), same);
        assert_eq!(roster.leave(&id, Tell::Now), same);
        assert_eq!(roster.len(), 1);
        assert_eq!(roster.leave_elsewhere(&"10".into(), Tell::Now), user);
        assert!(roster.is_empty());
        assert_eq!(
            roster.leave_elsewhere(&"10".into(), Tell::Now),
            same,
            "never heard of"
        );
    }

    #[test]
    fn who_leaves_here_and_stays_elsewhere_is_as_the_others_say() {
        let (here, there) = (member("10", "1"), member("10", "2"));
        let id: Arc<str> = "10".into();
        let infos = |first: &Member, second: &Member, is_first_here: bool| {
            let mut roster = Roster::default();
            for (member, is_here) in [(first, is_first_here), (second, !is_first_here)] {
                let _ = match is_here {
                    true => roster.join(member),
                    false => roster.join_elsewhere(member),
                };
            }
            let shown = |roster: &mut Roster| {
                let frame = roster.frame(|roster| roster.snapshot().into_bytes().into());
                String::from_utf8_lossy(&frame).contains(r#""10":1"#)
            };
            let before = shown(&mut roster);
            assert_eq!(roster.leave(&id, Tell::Now), Change::ConnectionOnly);
            (before, shown(&mut roster))
        };
        assert_eq!(infos(&here, &there, true), (true, false));
        assert_eq!(infos(&there, &here, false), (true, false));
    }

    #[test]
    fn other_nodes_hear_what_is_so_in_the_end_and_nothing_twice() {
        let (ann, named) = (member("10", "null"), member("10", "{\"name\":\"Ann\"}"));
        let id: Arc<str> = "10".into();
        let joined = |it: &Member| Some(MemberNews::Joined(it.clone()));
        let left = Some(MemberNews::Left {
            user_id: Arc::clone(&id),
        });
        let mut roster = Roster::new(true);
        let _ = roster.join_elsewhere(&ann);
        assert_eq!(roster.next_news(), None, "they know it from each other");
        let _ = roster.join(&ann);
        let _ = roster.join(&ann);
        assert_eq!(roster.next_news(), joined(&ann));
        assert_eq!(roster.next_news(), None);
        let _ = roster.join(&named);
        assert_eq!(roster.next_news(), joined(&named));
        for _ in 0..3 {
            let _ = roster.leave(&id, Tell::Now);
        }
        let _ = roster.join(&named);
        assert_eq!(roster.next_news(), joined(&named), "perhaps another info");
        let _ = roster.join(&ann);
        let _ = roster.leave(&id, Tell::Now);
        let _ = roster.leave(&id, Tell::Now);
        assert_eq!(roster.next_news(), left);
        let _ = roster.leave_elsewhere(&id, Tell::Now);
        for _ in 0..2 {
            let _ = roster.join(&ann);
            let _ = roster.leave(&id, Tell::Now);
        }
        assert_eq!(roster.next_news(), joined(&ann), "came and went");
        assert_eq!(roster.next_news(), left);
        let _ = roster.join(&named);
        let _ = roster.leave(&id, Tell::Now);
        let _ = roster.join(&ann);
        assert_eq!(roster.next_news(), joined(&ann), "is there again");
        assert!(!roster.owes());
        let _ = roster.leave(&id, Tell::Now);
        assert_eq!(roster.next_news(), left);
        let _ = roster.join_elsewhere(&named);
        let _ = roster.join(&ann);
        let _ = roster.leave(&id, Tell::Now);
        assert_eq!(roster.next_news(), None, "they had it all the time");
        assert!(!roster.owes());
    }
}
