//! A shard's own view of the apps.
//!
//! Owns: `ShardApps`, `ShardApp`.
//! May depend on: `bridge::apps`, `channel::home::Rules`, `server::settings`.
//! Invariants: a shard clones only its own `Rc`s, so that no counter is shared between cores; a client finds
//! an app only when all shards know it.

use std::{collections::BTreeSet, rc::Rc, sync::Arc};

use ahash::RandomState;
use hashbrown::HashMap;

use super::settings::Settings;
use crate::{
    bridge::{
        apps::{AppChange, AppTable, entry::AppEntry},
        webhook_event::WebhookInterest,
    },
    channel::home::Rules,
    protocol::app::{AppIndex, AppNames, AppRows},
};

/// An app, and what follows from it for channels.
#[derive(Clone, Debug)]
pub(super) struct ShardApp {
    pub(super) entry: Arc<AppEntry>,
    pub(super) rules: Rules,
}

/// The apps by number, key and id.
#[derive(Clone)]
pub(super) struct ShardApps {
    apps: AppRows<Rc<ShardApp>>,
    by_key: AppNames,
    by_id: AppNames,
    /// Ids that apps had in earlier versions; they find an app where no app has them now.
    by_former_id: HashMap<&'static str, AppIndex, RandomState>,
    /// Apps that left and may come back under their number.
    gone: BTreeSet<AppIndex>,
    /// New ones, whose names lead nowhere until all shards know them: the number of the change.
    unopened: Vec<(u64, AppIndex)>,
    /// For channels of an app that is gone: nothing is announced to webhooks.
    quiet: Rules,
}

impl ShardApps {
    pub(super) fn new(table: &AppTable, settings: &Settings) -> Self {
        let mut apps = Self {
            apps: AppRows::default(),
            by_key: AppNames::default(),
            by_id: AppNames::default(),
            by_former_id: HashMap::default(),
            gone: BTreeSet::new(),
            unopened: Vec::new(),
            quiet: quiet_rules(settings),
        };
        for entry in table.iter() {
            apps.put(Arc::clone(entry));
            apps.list(entry.index);
        }
        apps
    }

    /// Takes changes. Apps that are new serve channels from now on, and clients after `open`: another
    /// shard may ask this one about them before.
    pub(super) fn apply(&mut self, number: u64, changes: &[AppChange]) {
        for change in changes {
            match change {
                AppChange::Put(entry) => {
                    let index = entry.index;
                    let is_listed = self.unlist(index);
                    self.put(Arc::clone(entry));
                    if is_listed {
                        self.list(index);
                    } else {
                        self.unopened.push((number, index));
                    }
                }
                AppChange::Gone(index) => {
                    self.unlist(*index);
                    self.apps.remove(*index);
                    self.gone.insert(*index);
                }
                AppChange::Forgotten(index, _) => _ = self.gone.remove(index),
            }
        }
    }

    /// All shards have taken the changes up to this number.
    pub(super) fn open(&mut self, number: u64) {
        for (at, index) in std::mem::take(&mut self.unopened) {
            if at > number {
                self.unopened.push((at, index));
            } else {
                self.list(index);
            }
        }
    }

    /// The settings from which rules follow have changed.
    pub(super) fn reconfigure(&mut self, settings: &Settings) {
        self.quiet = quiet_rules(settings);
        let entries: Vec<Arc<AppEntry>> = self
            .apps
            .iter()
            .map(|(_, app)| Arc::clone(&app.entry))
            .collect();
        for entry in entries {
            self.put(entry);
        }
    }

    fn put(&mut self, entry: Arc<AppEntry>) {
        let index = entry.index;
        let app = ShardApp {
            rules: rules(&entry, self.quiet),
            entry,
        };
        self.gone.remove(&index);
        self.apps.remove(index);
        self.apps.enter(index, || Rc::new(app));
    }

    fn list(&mut self, index: AppIndex) {
        let Some(app) = self.apps.get(index) else {
            return; // It has left meanwhile.
        };
        let (key, has_key) = (&app.entry.rules.key, app.entry.has_key);
        let app = &app.entry.app;
        if has_key {
            self.by_key.put(key, index, key_in(&self.apps));
        }
        self.by_id.put(&app.id, index, id_in(&self.apps));
        if let Some(id) = app.former_id {
            self.by_former_id.insert(id, index);
        }
    }

    /// Its names lead nowhere from now on; false if they did not before.
    fn unlist(&mut self, index: AppIndex) -> bool {
        let Some(app) = self.apps.get(index).map(Rc::clone) else {
            return false;
        };
        let (key, app) = (&app.entry.rules.key, &app.entry.app);
        // Another one may have taken a name over.
        self.by_key.remove(key, index);
        if let Some(id) = app.former_id
            && self.by_former_id.get(id) == Some(&index)
        {
            self.by_former_id.remove(id);
        }
        self.by_id.remove(&app.id, index)
    }

    pub(super) fn get(&self, app: AppIndex) -> Option<&Rc<ShardApp>> {
        self.apps.get(app)
    }

    pub(super) fn by_key(&self, key: &str) -> Option<&Rc<ShardApp>> {
        self.get(self.by_key.get(key, key_in(&self.apps))?)
    }

    pub(super) fn by_id(&self, id: &str) -> Option<&Rc<ShardApp>> {
        let index = self.by_id.get(id, id_in(&self.apps));
        self.get(index.or_else(|| self.by_former_id.get(id).copied())?)
    }

    /// The app is there, or left a short while ago.
    pub(super) fn knows(&self, app: AppIndex) -> bool {
        self.get(app).is_some() || self.gone.contains(&app)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// The rules of an app's channels.
    pub(super) fn rules(&self, app: AppIndex) -> Rules {
        self.get(app).map_or(self.quiet, |app| app.rules)
    }
}

fn id_in<'a>(apps: &'a AppRows<Rc<ShardApp>>) -> impl Fn(AppIndex) -> &'a str + Copy {
    |index| apps.get(index).map_or("", |app| &app.entry.app.id)
}

fn key_in<'a>(apps: &'a AppRows<Rc<ShardApp>>) -> impl Fn(AppIndex) -> &'a str + Copy {
    |index| apps.get(index).map_or("", |app| &app.entry.rules.key)
}

fn quiet_rules(settings: &Settings) -> Rules {
    Rules {
        members_max: 0,
        count_frames: false,
        hook_occupancy: false,
        hook_members: false,
        hook_counts: false,
        hook_misses: false,
        kept_ms: settings.kept_ms,
        grace_ms: settings.grace_ms,
        is_behind: false,
    }
}

fn rules(entry: &AppEntry, quiet: Rules) -> Rules {
    let wants = |bits| entry.webhook_interest.any(bits);
    Rules {
        members_max: entry.app.max_presence_members_per_channel,
        count_frames: entry.app.enable_subscription_count,
        hook_occupancy: wants(WebhookInterest::CHANNEL_OCCUPIED | WebhookInterest::CHANNEL_VACATED),
        hook_members: wants(WebhookInterest::MEMBER_ADDED | WebhookInterest::MEMBER_REMOVED),
        hook_counts: wants(WebhookInterest::SUBSCRIPTION_COUNT),
        hook_misses: wants(WebhookInterest::CACHE_MISS),
        ..quiet
    }
}
