//! Apps as the server uses them: numbered, with their signers and patterns prepared.
//!
//! Owns: the table of apps that are known (`AppTable`) and its changes (`AppChange`); `entry`, what is kept of one;
//! `finder`, which looks for others.
//! May depend on: `config::app`, `protocol::app`.
//! Invariants: an index is never given to another app; an app keeps its own while it is there and
//! until the second change after that; of apps with one key the one that had it first keeps it, until it gives it up.

mod askers;
pub mod entry;
pub mod finder;
mod line;
pub mod openings;
pub mod store;
mod watch;

use std::{collections::BTreeMap, sync::Arc};

use ahash::{AHashMap, AHashSet};

use self::entry::AppEntry;
use crate::{
    config::app::App,
    protocol::app::{AppIndex, AppNames, AppRows},
};

/// Who is looked for: exact, byte for byte.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AppName {
    Key(Box<str>),
    Id(Box<str>),
}

impl AppName {
    pub fn as_str(&self) -> &str {
        match self {
            Self::Key(name) | Self::Id(name) => name,
        }
    }
}

/// A change of what apps there are, for those who keep their own view of them.
#[derive(Clone, Debug)]
pub enum AppChange {
    /// It is new, or other than before.
    Put(Arc<AppEntry>),
    /// It is there no more; its index and counters stay, in case it comes back.
    Gone(AppIndex),
    /// It will not come back under this index.
    Forgotten(AppIndex, Box<str>),
}

/// The apps that this node knows.
#[derive(Clone, Debug, Default)]
pub struct AppTable {
    entries: AppRows<Arc<AppEntry>>,
    by_key: AppNames,
    by_id: AppNames,
    /// Ids that apps had in earlier versions; they find an app where no app has them now.
    by_former_id: AHashMap<&'static str, AppIndex>,
    /// Apps that the latest change took away. They keep their index and counters until the next
    /// one, so that a mistake that is mended costs neither, and are forgotten then.
    gone: AHashMap<String, AppIndex>,
    gone_indices: AHashSet<AppIndex>,
    /// Apps whose key is another's, which the log has told, and whose it is.
    told: BTreeMap<AppIndex, AppIndex>,
    /// Indices given so far.
    given: u32,
    /// There may be apps that it does not know.
    is_partial: bool,
}

impl AppTable {
    /// The table of `apps`. Apps that `previous` knows keep their index.
    pub fn build(apps: &[App], previous: Option<&Self>) -> Self {
        let mut table = previous.cloned().unwrap_or_default();
        table.replace(apps);
        table
    }

    /// Without an app, of a store where there may be any.
    pub fn of_store() -> Self {
        Self {
            is_partial: true,
            ..Self::default()
        }
    }

    /// There may be apps that it does not know: what is said of them is no fault.
    pub fn is_partial(&self) -> bool {
        self.is_partial
    }

    /// From now on there are these and no others. Apps that were known keep their index.
    pub fn replace(&mut self, apps: &[App]) -> Vec<AppChange> {
        let forgotten = std::mem::take(&mut self.gone);
        let stay: AHashSet<&str> = apps.iter().map(|app| app.id.as_str()).collect();
        let leave = self.iter().map(|entry| &entry.app.id);
        let leave = leave.filter(|id| !stay.contains(id.as_str()));
        let leave: Vec<String> = leave.cloned().collect();
        let mut changes: Vec<AppChange> = Vec::new();
        for id in leave {
            changes.extend(self.remove(&id));
        }
        // What was gone before and comes back keeps its index.
        for (id, index) in forgotten {
            if stay.contains(id.as_str()) {
                self.gone.insert(id, index);
            } else {
                self.gone_indices.remove(&index);
                changes.push(AppChange::Forgotten(index, id.into()));
            }
        }
        changes.extend(self.put_all(apps));
        changes
    }

    /// Takes apps as they are now, whichever of them gives up a key that another one has from now on.
    pub fn put_all(&mut self, apps: &[App]) -> Vec<AppChange> {
        let mut changes: Vec<AppChange> = apps.iter().filter_map(|app| self.enter(app)).collect();
        let is_kept_out = |table: &Self, app: &&App| !table.has_key(&app.id);
        let kept_out: Vec<&App> = apps.iter().filter(|it| is_kept_out(self, it)).collect();
        for app in kept_out {
            changes.extend(self.enter(app));
            self.tell_holder(app);
        }
        changes
    }

    /// Takes an app as it is now; `None` if it was so before.
    pub fn put(&mut self, app: &App) -> Option<AppChange> {
        let change = self.enter(app);
        self.tell_holder(app);
        change
    }

    fn enter(&mut self, app: &App) -> Option<AppChange> {
        let known = self.by_id.get(&app.id, id_in(&self.entries));
        let known = known.or_else(|| self.gone.get(&app.id).copied());
        let index = known.unwrap_or_else(|| self.next_index());
        let holder = self.by_key.get(&app.key, key_in(&self.entries));
        let has_key = holder.is_none_or(|it| it == index);
        let entry = Arc::new(AppEntry {
            has_key,
            ..AppEntry::prepare(index, app)
        });
        if let Some(former) = self.entries.get(index).map(Arc::clone) {
            // Another one may have had its key meanwhile, and given it up.
            if former.is_same(&entry) && former.has_key == has_key {
                return None;
            }
            self.unlist(&former);
        }
        self.gone.remove(&app.id);
        self.gone_indices.remove(&index);
        self.entries.remove(index);
        self.entries.enter(index, || Arc::clone(&entry));
        if has_key {
            self.by_key.put(&app.key, index, key_in(&self.entries));
            self.told.remove(&index);
        }
        self.by_id.put(&app.id, index, id_in(&self.entries));
        if let Some(id) = app.former_id {
            self.by_former_id.insert(id, index);
        }
        Some(AppChange::Put(entry))
    }

    /// Takes an app away; its index is remembered.
    pub fn remove(&mut self, id: &str) -> Option<AppChange> {
        let index = self.by_id.get(id, id_in(&self.entries))?;
        self.by_id.remove(id, index);
        let entry = self.entries.remove(index)?;
        self.unlist(&entry);
        self.told.remove(&index);
        self.gone.insert(id.to_owned(), index);
        self.gone_indices.insert(index);
        Some(AppChange::Gone(index))
    }

    /// An app that is gone will not come back under its index.
    pub fn forget(&mut self, id: &str) -> Option<AppChange> {
        let index = self.gone.remove(id)?;
        self.gone_indices.remove(&index);
        Some(AppChange::Forgotten(index, id.into()))
    }

    fn has_key(&self, id: &str) -> bool {
        self.by_id(id).is_some_and(|entry| entry.has_key)
    }

    /// Tells once who has the key that leads to another app.
    fn tell_holder(&mut self, app: &App) {
        let Some(index) = self.by_id.get(&app.id, id_in(&self.entries)) else {
            return;
        };
        let Some(holder) = self.by_key(&app.key).filter(|it| it.index != index) else {
            return;
        };
        let (holder, keeps) = (holder.index, holder.app.id.clone());
        if self.told.insert(index, holder) != Some(holder) {
            let app_id = &app.id;
            tracing::warn!(
                app_id,
                keeps,
                "two apps have one key: who was known first keeps it, and no client reaches the other one by it"
            );
        }
    }

    /// Its names lead nowhere; a key that is another's stays that one's.
    fn unlist(&mut self, entry: &AppEntry) {
        self.by_key.remove(&entry.rules.key, entry.index);
        if let Some(id) = entry.app.former_id
            && self.by_former_id.get(id) == Some(&entry.index)
        {
            self.by_former_id.remove(id);
        }
    }

    pub fn by_key(&self, key: &str) -> Option<&Arc<AppEntry>> {
        self.get(self.by_key.get(key, key_in(&self.entries))?)
    }

    pub fn by_id(&self, id: &str) -> Option<&Arc<AppEntry>> {
        let index = self.by_id.get(id, id_in(&self.entries));
        self.get(index.or_else(|| self.by_former_id.get(id).copied())?)
    }

    /// The app of an index; `None` when it was removed.
    pub fn get(&self, index: AppIndex) -> Option<&Arc<AppEntry>> {
        self.entries.get(index)
    }

    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// The apps by their index.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<AppEntry>> {
        self.entries.iter().map(|(_, entry)| entry)
    }

    /// The app is there, or left with the latest change.
    pub fn knows(&self, index: AppIndex) -> bool {
        self.get(index).is_some() || self.gone_indices.contains(&index)
    }

    /// The index of an app that is there, or left with the latest change.
    pub fn index_of(&self, id: &str) -> Option<AppIndex> {
        let index = self.by_id.get(id, id_in(&self.entries));
        index.or_else(|| self.gone.get(id).copied())
    }

    /// The id of an app that is there, or left with the latest change.
    pub fn id_of(&self, index: AppIndex) -> Option<&str> {
        if let Some(entry) = self.get(index) {
            return Some(&entry.app.id);
        }
        let is_gone = self.gone_indices.contains(&index);
        let mut gone = self.gone.iter().filter(|_| is_gone);
        gone.find(|(_, it)| **it == index).map(|(id, _)| &**id)
    }

    /// Indices and ids of the apps that are known, by index.
    pub fn known(&self) -> Vec<(AppIndex, &str)> {
        let there = self
            .iter()
            .map(|entry| (entry.index, entry.app.id.as_str()));
        let gone = self.gone.iter().map(|(id, index)| (*index, id.as_str()));
        let mut all: Vec<_> = there.chain(gone).collect();
        all.sort_unstable();
        all
    }

    fn next_index(&mut self) -> AppIndex {
        let index = AppIndex(self.given);
        self.given = self.given.checked_add(1).expect("fewer than 2^32 apps");
        index
    }
}

fn id_in<'a>(entries: &'a AppRows<Arc<AppEntry>>) -> impl Fn(AppIndex) -> &'a str + Copy {
    |index| entries.get(index).map_or("", |entry| &entry.app.id)
}

fn key_in<'a>(entries: &'a AppRows<Arc<AppEntry>>) -> impl Fn(AppIndex) -> &'a str + Copy {
    |index| entries.get(index).map_or("", |entry| &entry.rules.key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bridge::{fixture, webhook_event::WebhookInterest};

    #[test]
    fn an_index_survives_a_reload_and_is_never_given_to_another_app() {
        let first = AppTable::build(&[fixture::app("a"), fixture::app("b")], None);
        let second = AppTable::build(&[fixture::app("c"), fixture::app("b")], Some(&first));
        let third = AppTable::build(&[fixture::app("a"), fixture::app("b")], Some(&second));
        for (table, id, index) in [
            (&first, "a", Some(0)),
            (&first, "b", Some(1)),
            (&second, "a", None),
            (&second, "b", Some(1)),
            (&second, "c", Some(2)),
            (&third, "a", Some(0)),
            (&third, "c", None),
        ] {
            let found = table.by_id(id).map(|entry| entry.index.0);
            assert_eq!(found, index, "{id}");
            let by_key = table
                .by_key(&format!("key-{id}"))
                .map(|entry| entry.index.0);
            assert_eq!(by_key, index, "key of {id}");
        }
        assert!(second.get(AppIndex(0)).is_none());
        assert!(second.get(AppIndex(9)).is_none());
        assert_eq!(third.iter().count(), 2);
        let known: Vec<_> = third.known().into_iter().map(|(_, id)| id).collect();
        assert_eq!(known, ["a", "b", "c"]);
    }

    fn owner(table: &AppTable, key: &str) -> Option<String> {
        table.by_key(key).map(|entry| entry.app.id.clone())
    }

    #[test]
    fn of_two_apps_with_one_key_the_first_keeps_it_until_it_gives_it_up() {
        let (mut thief, mut holder) = (fixture::app("a"), fixture::app("b"));
        let mut table = AppTable::build(&[thief.clone(), holder.clone()], None);
        let (before, key) = (thief.key.clone(), holder.key.clone());
        thief.key.clone_from(&key);
        assert!(table.put(&thief).is_some(), "it has lost its own");
        assert_eq!(owner(&table, &key).as_deref(), Some("b"));
        assert_eq!(owner(&table, &before), None);
        assert!(table.by_id("a").is_some_and(|entry| !entry.has_key));
        // While both rows have it nothing goes to and fro, and it is told once.
        assert_eq!(table.told.len(), 1);
        assert!(table.put(&holder).is_none() && table.put(&thief).is_none());
        assert_eq!(owner(&table, &key).as_deref(), Some("b"));
        // Given up, it is the other one's as soon as its row comes.
        holder.key = "another".to_owned();
        assert!(table.put(&holder).is_some());
        assert_eq!(owner(&table, &key), None);
        assert!(table.put(&thief).is_some(), "all shards must hear of it");
        assert_eq!(owner(&table, &key).as_deref(), Some("a"));
        assert!(table.put(&thief).is_none() && table.told.is_empty());
    }

    #[test]
    fn keys_that_go_round_in_one_change_lead_to_their_new_apps() {
        let apps = ["a", "b", "c"].map(fixture::app);
        let mut table = AppTable::build(&apps, None);
        let mut next = apps.clone();
        for (app, other) in next.iter_mut().zip(apps.iter().cycle().skip(1)) {
            app.key.clone_from(&other.key);
        }
        let changes = table.put_all(&next);
        for app in &next {
            assert_eq!(owner(&table, &app.key).as_deref(), Some(&*app.id));
        }
        assert!(table.told.is_empty());
        // What shards hear last of each leads to it.
        let mut has_key = BTreeMap::new();
        for change in &changes {
            let AppChange::Put(entry) = change else {
                panic!("none has left: {change:?}");
            };
            has_key.insert(entry.index, entry.has_key);
        }
        assert!(has_key.len() == 3 && has_key.values().all(|has| *has));
        assert!(table.put_all(&next).is_empty());
    }

    #[test]
    fn an_app_that_is_gone_is_forgotten_with_the_second_change() {
        let mut table = AppTable::build(&[fixture::app("stays"), fixture::app("0")], None);
        for round in 1..1_000 {
            let other = fixture::app(&round.to_string());
            table = AppTable::build(&[fixture::app("stays"), other], Some(&table));
            let ids: Vec<(u32, String)> = table
                .known()
                .into_iter()
                .map(|(index, id)| (index.0, id.to_owned()))
                .collect();
            let expected = [
                (0, "stays".to_owned()),
                (round, (round - 1).to_string()),
                (round + 1, round.to_string()),
            ];
            assert_eq!(ids, expected);
            assert!(table.knows(AppIndex(round)));
            assert!(round == 1 || !table.knows(AppIndex(round - 1)));
        }
        assert!(table.by_id("1").is_none());
        let back = AppTable::build(&[fixture::app("1")], Some(&table));
        assert_eq!(back.known()[2], (AppIndex(1_001), "1"), "a new number");
    }

    #[test]
    fn the_interest_of_an_app_is_that_of_all_its_webhooks() {
        let mut app = fixture::app("a");
        app.webhooks = vec![
            fixture::webhook("http://127.0.0.1/1", &["channel_occupied"]),
            fixture::webhook(
                "http://127.0.0.1/2",
                &["client_event", "subscription_count"],
            ),
        ];
        let table = AppTable::build(&[app], None);
        let interest = table.by_id("a").expect("built above").webhook_interest;
        let expected = WebhookInterest::CHANNEL_OCCUPIED
            | WebhookInterest::CLIENT_EVENT
            | WebhookInterest::SUBSCRIPTION_COUNT;
        assert_eq!(interest.0, expected);
    }

    #[test]
    fn a_former_id_finds_the_app_unless_another_has_it_now() {
        let mut app = fixture::app("1");
        app.former_id = Some("app-id");
        let named = |table: &AppTable, id: &str| table.by_id(id).map(|e| e.app.id.clone());
        let alone = AppTable::build(std::slice::from_ref(&app), None);
        for id in ["1", "app-id"] {
            assert_eq!(named(&alone, id).as_deref(), Some("1"), "{id}");
        }
        assert_eq!(alone.known().len(), 1);
        let both = AppTable::build(&[app, fixture::app("app-id")], Some(&alone));
        assert_eq!(named(&both, "app-id").as_deref(), Some("app-id"));
        let without = AppTable::build(&[fixture::app("1")], Some(&both));
        assert_eq!(named(&without, "app-id"), None);
        assert_eq!(without.known().len(), 2); // The second one's counters stay until the next change.
    }

    #[test]
    fn an_empty_table_says_so() {
        assert!(AppTable::default().is_empty());
        assert!(!AppTable::build(&[fixture::app("a")], None).is_empty());
    }
}
