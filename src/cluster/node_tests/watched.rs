//! Test only. A naive model of channels, members and users.
//!
//! Owns: `Watched`.
//! May depend on: `cluster::{holdings, ledger}`.
//! Invariants: joined and left, occupied and vacant, online and offline alternate, or it panics.

use std::collections::{BTreeMap, BTreeSet};

use ahash::RandomState;

use crate::cluster::{
    holdings::{Departure, Merged, ViewChange},
    ledger::OwnChange,
};

const TRACE: RandomState = RandomState::with_seeds(1, 2, 3, 4);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Watched {
    /// Subscriptions by channel, and under the empty name the app's connections.
    pub(super) counts: BTreeMap<String, u32>,
    /// By channel and user the info.
    pub(super) members: BTreeMap<(String, String), String>,
    pub(super) users: BTreeSet<String>,
    pub(super) kept: BTreeSet<String>,
    /// How often a member joined that was not there, and left.
    pub(super) joins: u64,
    pub(super) leaves: u64,
    /// Of those that left, with the lease of the last node that had them.
    pub(super) expiries: u64,
    pub(super) changes: u64,
    /// Of all changes in their order.
    pub(super) trace: u64,
}

impl Watched {
    /// Takes what a node tells of all others together. Nothing is told twice.
    pub(super) fn take(&mut self, change: &ViewChange<'_>) {
        let name = change.name.to_string();
        self.changes += 1;
        self.trace = TRACE.hash_one((self.trace, format!("{change:?}")));
        match change.change {
            Merged::Subscriptions(0) | Merged::Connections(0) => {
                assert!(self.counts.remove(&name).is_some(), "{name} was vacant");
            }
            Merged::Subscriptions(count) | Merged::Connections(count) => {
                let before = self.counts.insert(name.clone(), count);
                assert_ne!(before, Some(count), "{name} had it");
            }
            Merged::MemberJoined { user_id, info } => {
                let key = (name, user_id.to_string());
                let before = self.members.insert(key.clone(), info.to_string());
                assert_ne!(before.as_deref(), Some(&**info), "{key:?} was there");
                self.joins += u64::from(before.is_none());
            }
            Merged::MemberLeft { user_id, why } => {
                let key = (name, user_id.to_string());
                assert!(self.members.remove(&key).is_some(), "{key:?} was not there");
                self.leaves += 1;
                self.expiries += u64::from(why == Departure::LeaseRanOut);
            }
            Merged::UserOnline => assert!(self.users.insert(name)),
            Merged::UserOffline => assert!(self.users.remove(&name)),
            Merged::EventKept => assert!(self.kept.insert(name)),
            Merged::EventForgotten => assert!(self.kept.remove(&name)),
        }
    }

    /// Notes what a node does itself.
    pub(super) fn note(&mut self, name: &str, change: OwnChange<'_>) {
        let name = name.to_owned();
        match change {
            OwnChange::Subscriptions(0) | OwnChange::Connections(0) => {
                self.counts.remove(&name);
            }
            OwnChange::Subscriptions(count) | OwnChange::Connections(count) => {
                self.counts.insert(name, count);
            }
            OwnChange::MemberJoined { user_id, info } => {
                let key = (name, user_id.to_string());
                self.members.insert(key, info.to_string());
            }
            OwnChange::MemberLeft { user_id } => {
                self.members.remove(&(name, user_id.to_string()));
            }
            OwnChange::UserOnline => drop(self.users.insert(name)),
            OwnChange::UserOffline => drop(self.users.remove(&name)),
            OwnChange::EventKept => drop(self.kept.insert(name)),
            OwnChange::EventForgotten => drop(self.kept.remove(&name)),
        }
    }

    /// Whether it is what these come to together. Of several infos of a member any may count.
    #[track_caller]
    pub(super) fn is_union_of(&self, others: &[&Self]) {
        let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
        for (name, count) in others.iter().flat_map(|it| &it.counts) {
            *counts.entry(name).or_default() += count;
        }
        let found: BTreeMap<&str, u32> = self.counts.iter().map(|(k, v)| (&**k, *v)).collect();
        assert_eq!(found, counts);
        let members: BTreeSet<_> = others.iter().flat_map(|it| it.members.keys()).collect();
        assert_eq!(self.members.keys().collect::<BTreeSet<_>>(), members);
        for (key, info) in &self.members {
            let has_it = |it: &&Self| it.members.get(key) == Some(info);
            assert!(others.iter().any(has_it), "{key:?} with {info}");
        }
        let users: BTreeSet<_> = others.iter().flat_map(|it| &it.users).collect();
        assert_eq!(self.users.iter().collect::<BTreeSet<_>>(), users);
        let kept: BTreeSet<_> = others.iter().flat_map(|it| &it.kept).collect();
        assert_eq!(self.kept.iter().collect::<BTreeSet<_>>(), kept);
    }
}
