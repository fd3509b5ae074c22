//! Apps that this node knows are looked at again: which of them, and what becomes of those that are gone.
//!
//! Owns: when an app is looked at next, and for how long one that has left is remembered.
//! May depend on: `bridge::apps::watch`.
//! Invariants: an app leaves only when the store says so; one question is under way at a time.

use std::time::Duration;

use super::{AGAIN_AFTER, Finder, StoreState};

/// An app that has left keeps its number and counters so long.
const FORGET_AFTER: Duration = Duration::from_secs(60);

impl Finder {
    /// Begins with the apps that the process before knew.
    pub fn inherit(&mut self, now: Duration, ids: impl IntoIterator<Item = Box<str>>) {
        for id in ids {
            if self.watch.come(now, &id) {
                self.inherited.insert(id);
            }
        }
    }

    /// All apps that were inherited have been looked at.
    pub fn has_looked_at_inherited(&self) -> bool {
        self.inherited.is_empty()
    }

    /// Apps were looked at again; those that are there.
    pub fn looked_at(&mut self, now: Duration, ids: impl Iterator<Item = Box<str>>) {
        self.hear(now);
        self.is_looking = false;
        let inherited = &mut self.inherited;
        let ids = ids.inspect(|id| _ = inherited.remove(id));
        if std::mem::take(&mut self.looks_again) {
            let ids: Vec<_> = ids.collect();
            return self.watch.wait_first(now, &ids);
        }
        let due = now + self.settings.ttl;
        for id in ids {
            self.watch.wait(due, &id);
        }
    }

    /// Apps could not be looked at again: they stay as they are.
    pub fn look_failed(&mut self, now: Duration, ids: Vec<Box<str>>) {
        if self.store == StoreState::Well {
            self.store = StoreState::Failing;
        }
        self.is_looking = false;
        let again = now + AGAIN_AFTER;
        if ids.is_empty() {
            return self.watch.probe(again);
        }
        self.watch.wait_first(again, &ids);
    }

    /// An app has left the store.
    pub fn left(&mut self, now: Duration, id: &str) {
        self.watch.leave(id);
        self.inherited.remove(id);
        self.leaving.push_back((now + FORGET_AFTER, id.to_owned()));
    }

    /// Every app is to be looked at again now, and nothing is known to be absent.
    pub fn look_again(&mut self, now: Duration) {
        self.watch.hasten(now);
        if self.watch.due().is_none() && !self.is_looking {
            // Whoever wants that is told whether the store answers.
            self.watch.probe(now);
        }
        self.absent.clear();
        self.fades.clear();
        // What is under way may be answered by how it was before.
        self.looks_again = self.is_looking;
        self.line.doubt();
    }
}

#[cfg(test)]
mod tests {
    use shards::application::ShardId;

    use super::{
        super::{
            ANSWER_WITHIN, Errand,
            tests::{SETTINGS, answer, at, begun, errands, key, wanted},
        },
        *,
    };
    use crate::bridge::{
        apps::{AppName, AppTable},
        fixture,
        message::AppFound,
    };

    #[test]
    fn apps_of_the_process_before_are_looked_at_first() {
        let mut finder = Finder::new(at(7), SETTINGS);
        finder.inherit(at(7), ["a", "b"].map(Into::into));
        assert_eq!(finder.next_errand(), Some(Errand::FindAll(Vec::new())));
        finder.looked_at(at(7), [].into_iter());
        assert!(!finder.has_looked_at_inherited());
        finder.tick(at(7));
        let both = ["a", "b"].map(Box::<str>::from);
        assert_eq!(finder.next_errand(), Some(Errand::FindAll(both.to_vec())));
        finder.look_failed(at(8), both.to_vec());
        assert!(!finder.has_looked_at_inherited(), "the store did not say");
        finder.tick(at(9));
        assert_eq!(finder.next_errand(), Some(Errand::FindAll(both.to_vec())));
        finder.left(at(9), "b");
        finder.looked_at(at(9), ["a".into()].into_iter());
        assert!(finder.has_looked_at_inherited());
        assert_eq!(finder.due(), Some(at(69)), "b is forgotten");
    }

    #[test]
    fn known_apps_are_looked_at_within_their_time_and_stay_while_the_store_is_gone() {
        let (mut finder, mut table) = (begun(), AppTable::default());
        for id in ["a", "b"] {
            finder.ask(at(0), (&table, 0), ShardId(0), wanted(key(id)));
            table.put(&fixture::app(id));
            finder.found(at(0), &key(id), id, 0);
            finder.found(at(0), &AppName::Id(id.into()), id, 0);
        }
        errands(&mut finder);
        assert_eq!(finder.due(), Some(ANSWER_WITHIN));
        finder.tick(at(299));
        assert_eq!(errands(&mut finder), []);
        finder.tick(at(300));
        let ids: Vec<Box<str>> = vec!["a".into(), "b".into()];
        assert_eq!(errands(&mut finder), [Errand::FindAll(ids.clone())]);
        finder.tick(at(301));
        assert_eq!(errands(&mut finder), [], "one question at a time");
        finder.look_failed(at(302), ids.clone());
        assert!(finder.is_failing());
        assert_eq!(finder.due(), Some(at(303)));
        finder.tick(at(303));
        assert_eq!(errands(&mut finder), [Errand::FindAll(ids)]);
        finder.left(at(304), "b");
        finder.looked_at(at(304), ["a".into()].into_iter());
        assert!(!finder.is_failing());
        finder.tick(at(364));
        assert_eq!(errands(&mut finder), [Errand::Forget("b".to_owned())]);
        finder.tick(at(604));
        assert_eq!(errands(&mut finder), [Errand::FindAll(vec!["a".into()])]);
    }

    #[test]
    fn what_is_under_way_when_all_is_to_be_looked_at_again_is_asked_for_again() {
        let (mut finder, mut table) = (begun(), AppTable::default());
        for id in ["a", "b"] {
            finder.ask(at(0), (&table, 0), ShardId(0), wanted(key(id)));
        }
        errands(&mut finder);
        finder.look_again(at(1));
        table.put(&fixture::app("a"));
        finder.found(at(1), &key("a"), "a", 0);
        finder.not_found(at(1), &key("b"));
        let again = Errand::Find(key("b"));
        assert_eq!(
            errands(&mut finder),
            [answer(0, &key("a"), AppFound::Known), again]
        );
        finder.not_found(at(1), &key("b"));
        let absent = AppFound::Absent { for_ms: 10_000 };
        assert_eq!(errands(&mut finder), [answer(0, &key("b"), absent)]);
        finder.tick(at(1));
        let all = Errand::FindAll(vec!["a".into()]);
        assert_eq!(errands(&mut finder), std::slice::from_ref(&all));
        finder.look_again(at(2));
        finder.looked_at(at(3), ["a".into()].into_iter());
        finder.tick(at(3));
        assert_eq!(errands(&mut finder), [all]);
        finder.looked_at(at(4), ["a".into()].into_iter());
        finder.tick(at(300));
        assert_eq!(errands(&mut finder), []);
    }

    #[test]
    fn a_store_of_which_no_app_is_known_is_asked_when_all_is_to_be_looked_at_again() {
        let mut finder = begun();
        let probe = Errand::FindAll(Vec::new());
        finder.look_again(at(1));
        finder.tick(at(1));
        assert_eq!(errands(&mut finder), std::slice::from_ref(&probe));
        // One that is under way says it as well.
        finder.look_again(at(2));
        finder.tick(at(2));
        assert_eq!(errands(&mut finder), []);
        finder.look_failed(at(3), Vec::new());
        finder.look_again(at(3));
        finder.tick(at(3));
        assert_eq!(errands(&mut finder), [probe]);
        finder.looked_at(at(3), std::iter::empty());
        assert_eq!(finder.due(), Some(at(3) + SETTINGS.ask_every));
    }
}
