//! A shard's own view of the apps.
//!
//! Owns: `ShardApps`, `ShardApp`.
//! May depend on: `bridge::apps`, `channel::home::Rules`, `connection::rules`, `server::settings`.
//! Invariants: a shard clones only its own `Rc`s, so that no counter is shared between cores.

use std::{rc::Rc, sync::Arc};

use super::settings::Settings;
use crate::{
    bridge::{
        apps::{AppEntry, AppTable},
        message::WebhookInterest,
    },
    channel::home::Rules,
    cluster::wire::EVENT_FRAME_BYTES_MAX,
    connection::rules::AppRules,
    protocol::app::{AppIndex, AppRows},
};

/// An app, and what follows from it for channels and connections.
#[derive(Clone, Debug)]
pub(super) struct ShardApp {
    pub(super) entry: Arc<AppEntry>,
    pub(super) rules: Rules,
    pub(super) connections: AppRules,
}

/// The apps by number, key and id.
#[derive(Clone)]
pub(super) struct ShardApps {
    table: Arc<AppTable>,
    apps: AppRows<Rc<ShardApp>>,
    /// For channels of an app that is gone: nothing is announced to webhooks.
    quiet: Rules,
}

impl ShardApps {
    pub(super) fn new(table: &Arc<AppTable>, settings: &Settings) -> Self {
        let quiet = Rules {
            members_max: 0,
            count_frames: false,
            hook_occupancy: false,
            hook_members: false,
            hook_counts: false,
            hook_misses: false,
            kept_ms: settings.kept_ms,
            grace_ms: settings.grace_ms,
        };
        let mut apps = AppRows::default();
        for entry in table.iter() {
            apps.enter(entry.index, || {
                Rc::new(ShardApp {
                    entry: Arc::clone(entry),
                    rules: rules(entry, quiet),
                    connections: connection_rules(entry, settings.has_bus),
                })
            });
        }
        Self {
            table: Arc::clone(table),
            apps,
            quiet,
        }
    }

    pub(super) fn get(&self, app: AppIndex) -> Option<&Rc<ShardApp>> {
        self.apps.get(app)
    }

    pub(super) fn by_key(&self, key: &str) -> Option<&Rc<ShardApp>> {
        self.get(self.table.by_key(key)?.index)
    }

    pub(super) fn by_id(&self, id: &str) -> Option<&Rc<ShardApp>> {
        self.get(self.table.by_id(id)?.index)
    }

    /// The app is there, or left with the latest change.
    pub(super) fn knows(&self, app: AppIndex) -> bool {
        self.table.knows(app)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// The rules of an app's channels.
    pub(super) fn rules(&self, app: AppIndex) -> Rules {
        self.get(app).map_or(self.quiet, |app| app.rules)
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

fn connection_rules(entry: &AppEntry, has_bus: bool) -> AppRules {
    let app = &entry.app;
    AppRules {
        index: entry.index,
        key: app.key.clone(),
        partitions: entry.partitions.clone(),
        signers: entry.signers.clone(),
        origins: entry.origins.clone(),
        is_enabled: app.enabled,
        requires_tls: app.require_tls,
        limits_connections: app.max_connections > 0,
        allows_client_events: app.enable_client_messages,
        client_events_per_s: app.max_client_events_per_second,
        subscriptions_max: app.subscriptions_per_connection_max as usize,
        channel_name_bytes_max: app.channel_name_bytes_max as usize,
        event_name_bytes_max: app.event_name_bytes_max as usize,
        event_data_bytes_max: app.event_payload_bytes_max as usize,
        frame_bytes_max: if has_bus {
            EVENT_FRAME_BYTES_MAX
        } else {
            usize::MAX
        },
        member_bytes_max: app.presence_member_bytes_max as usize,
        event_channels_max: app.event_channels_max as usize,
        batch_events_max: app.event_batch_max as usize,
        allows_sign_in: app.enable_user_authentication,
        has_watchlists: app.enable_watchlist_events,
    }
}
