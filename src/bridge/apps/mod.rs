//! Apps as the server uses them: numbered, with their signers and patterns prepared.
//!
//! Owns: `AppIndex`, `App` made ready (`AppEntry`), the table that shards read (`AppTable`).
//! May depend on: `config::app`, `protocol::{auth, origin}`, `bridge::message::WebhookInterest`.
//! Invariants: an index is given once per app id and process and never to another app; a table is
//! immutable, so a change is a new table.

use std::sync::Arc;

use ahash::AHashMap;

use super::{message::WebhookInterest, webhook};
use crate::{
    config::app::App,
    protocol::app::AppIndex,
    protocol::{auth::Signer, origin::OriginPattern},
};

/// An app with all that is prepared once and used per message.
#[derive(Debug)]
pub struct AppEntry {
    pub index: AppIndex,
    pub app: App,
    /// One per secret; the first one signs.
    pub signers: Vec<Signer>,
    pub origins: Vec<OriginPattern>,
    pub webhook_interest: WebhookInterest,
}

/// All apps of this node.
#[derive(Debug, Default)]
pub struct AppTable {
    entries: Vec<Option<Arc<AppEntry>>>,
    by_key: AHashMap<String, AppIndex>,
    by_id: AHashMap<String, AppIndex>,
    /// Ids of all apps that ever had an index, by that index.
    ids: Vec<Arc<str>>,
    indices: AHashMap<Arc<str>, AppIndex>,
}

impl AppTable {
    /// The table of `apps`. Apps that `previous` knows keep their index, also when they are away
    /// for a while.
    pub fn build(apps: &[App], previous: Option<&Self>) -> Self {
        let mut table = Self {
            ids: previous.map_or_else(Vec::new, |previous| previous.ids.clone()),
            indices: previous.map_or_else(AHashMap::new, |previous| previous.indices.clone()),
            ..Self::default()
        };
        table.entries.resize(table.ids.len(), None);
        for app in apps {
            let index = table.index_for(&app.id);
            table.by_key.insert(app.key.clone(), index);
            table.by_id.insert(app.id.clone(), index);
            table.entries[index.0 as usize] = Some(Arc::new(AppEntry::prepare(index, app)));
        }
        assert!(
            table.entries.len() == table.ids.len(),
            "every index has an id"
        );
        table
    }

    pub fn by_key(&self, key: &str) -> Option<&Arc<AppEntry>> {
        self.by_key.get(key).and_then(|index| self.get(*index))
    }

    pub fn by_id(&self, id: &str) -> Option<&Arc<AppEntry>> {
        self.by_id.get(id).and_then(|index| self.get(*index))
    }

    /// The app of an index; `None` when it was removed.
    pub fn get(&self, index: AppIndex) -> Option<&Arc<AppEntry>> {
        self.entries.get(index.0 as usize)?.as_ref()
    }

    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// The apps by their index, without the removed ones.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<AppEntry>> {
        self.entries.iter().flatten()
    }

    /// One more than the highest index ever given.
    pub fn index_bound(&self) -> u32 {
        u32::try_from(self.entries.len()).expect("an index is a u32")
    }

    /// Ids by index, those of removed apps included: their counters stay.
    pub fn ids(&self) -> &[Arc<str>] {
        &self.ids
    }

    fn index_for(&mut self, id: &str) -> AppIndex {
        if let Some(index) = self.indices.get(id) {
            return *index;
        }
        let index = AppIndex(self.index_bound());
        let id: Arc<str> = Arc::from(id);
        self.ids.push(Arc::clone(&id));
        self.indices.insert(id, index);
        self.entries.push(None);
        index
    }
}

impl AppEntry {
    fn prepare(index: AppIndex, app: &App) -> Self {
        let signers = app
            .secrets
            .iter()
            .map(|secret| Signer::new(secret.expose()))
            .collect();
        let kinds = app
            .webhooks
            .iter()
            .flat_map(|hook| &hook.event_types)
            .copied();
        Self {
            index,
            signers,
            origins: origins(app),
            webhook_interest: WebhookInterest(webhook::interest(kinds)),
            app: app.clone(),
        }
    }
}

/// The patterns were checked with the configuration. Should one fail here all the same, it becomes
/// one that no origin matches: leaving it out could leave none, which lets everyone in.
fn origins(app: &App) -> Vec<OriginPattern> {
    let parse = |pattern: &String| {
        OriginPattern::parse(pattern).unwrap_or_else(|error| {
            tracing::warn!(app_id = app.id, pattern, %error, "an origin pattern matches nothing");
            OriginPattern::Exact("\0".to_owned())
        })
    };
    app.allowed_origins.iter().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bridge::fixture;

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
        assert_eq!(third.index_bound(), 3);
        assert_eq!(third.iter().count(), 2);
        assert_eq!(&*third.ids()[2], "c");
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
    fn an_empty_table_says_so() {
        assert!(AppTable::default().is_empty());
        assert!(!AppTable::build(&[fixture::app("a")], None).is_empty());
    }
}
