//! An app as the server keeps it: what is asked of it while it is known, and nothing else of its row.
//!
//! Owns: `AppEntry`, `AppFacts`; how they are made of an `App`.
//! May depend on: `config::app`, `protocol::{auth, origin, partition, rules}`, `bridge::webhook_event::WebhookInterest`.
//! Invariants: two entries are the same if no part of the server could tell them apart; the text of a secret
//! is not kept, only what signs with it.

use crate::{
    bridge::{webhook, webhook_event::WebhookInterest},
    config::app::{App, Webhook},
    protocol::{
        app::AppIndex, auth::Signer, origin::OriginPattern, partition::AppPartitions,
        rules::AppRules,
    },
};

/// An app with all that is prepared once and used per message. The bridge and all shards share it, and there may be
/// ten thousand: tests/app_memory.rs weighs it.
#[derive(Debug)]
pub struct AppEntry {
    pub index: AppIndex,
    pub webhook_interest: WebhookInterest,
    /// Its key leads to it; else another app has the same key.
    pub has_key: bool,
    pub rules: AppRules,
    pub app: AppFacts,
}

/// What connections do not ask of their app.
#[derive(Debug, PartialEq)]
pub struct AppFacts {
    pub id: String,
    /// An id of earlier versions that the HTTP API still answers to.
    pub former_id: Option<&'static str>,
    pub webhooks: Box<[Webhook]>,
    /// Cluster-wide; 0 = unlimited.
    pub max_connections: u64,
    /// 0 = unlimited.
    pub max_backend_events_per_second: u32,
    /// 0 = unlimited.
    pub max_read_requests_per_second: u32,
    pub max_presence_members_per_channel: u32,
    pub enable_subscription_count: bool,
}

impl AppEntry {
    pub(super) fn prepare(index: AppIndex, app: &App) -> Self {
        let kinds = app.webhooks.iter().flat_map(|hook| &hook.event_types);
        Self {
            index,
            webhook_interest: WebhookInterest(webhook::interest(kinds.copied())),
            has_key: true,
            rules: rules(index, app),
            app: AppFacts {
                id: app.id.clone(),
                former_id: app.former_id,
                webhooks: app.webhooks.as_slice().into(),
                max_connections: app.max_connections,
                max_backend_events_per_second: app.max_backend_events_per_second,
                max_read_requests_per_second: app.max_read_requests_per_second,
                max_presence_members_per_channel: app.max_presence_members_per_channel,
                enable_subscription_count: app.enable_subscription_count,
            },
        }
    }

    /// Nothing that its row says would be other than it was.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let AppRules {
            index,
            key,
            partitions: _, // They follow from the id.
            signers,
            origins,
            is_enabled,
            requires_tls,
            limits_connections,
            allows_client_events,
            client_events_per_s,
            subscriptions_max,
            channel_name_bytes_max,
            event_name_bytes_max,
            event_data_bytes_max,
            member_bytes_max,
            event_channels_max,
            batch_events_max,
            allows_sign_in,
            has_watchlists,
        } = &self.rules;
        let its = &other.rules;
        let sign_alike = signers.len() == its.signers.len()
            && signers.iter().zip(&its.signers).all(|(a, b)| a.is_same(b));
        self.app == other.app
            && *index == its.index
            && *key == its.key
            && sign_alike
            && *origins == its.origins
            && *is_enabled == its.is_enabled
            && *requires_tls == its.requires_tls
            && *limits_connections == its.limits_connections
            && *allows_client_events == its.allows_client_events
            && *client_events_per_s == its.client_events_per_s
            && *subscriptions_max == its.subscriptions_max
            && *channel_name_bytes_max == its.channel_name_bytes_max
            && *event_name_bytes_max == its.event_name_bytes_max
            && *event_data_bytes_max == its.event_data_bytes_max
            && *member_bytes_max == its.member_bytes_max
            && *event_channels_max == its.event_channels_max
            && *batch_events_max == its.batch_events_max
            && *allows_sign_in == its.allows_sign_in
            && *has_watchlists == its.has_watchlists
    }
}

fn rules(index: AppIndex, app: &App) -> AppRules {
    let signers = app.secrets.iter();
    AppRules {
        index,
        key: app.key.as_str().into(),
        partitions: AppPartitions::of_app(&app.id),
        signers: signers.map(|it| Signer::new(it.expose())).collect(),
        origins: origins(app),
        is_enabled: app.enabled,
        requires_tls: app.require_tls,
        limits_connections: app.max_connections > 0,
        allows_client_events: app.enable_client_messages,
        client_events_per_s: app.max_client_events_per_second,
        subscriptions_max: app.subscriptions_per_connection_max,
        channel_name_bytes_max: app.channel_name_bytes_max,
        event_name_bytes_max: app.event_name_bytes_max,
        event_data_bytes_max: app.event_payload_bytes_max,
        member_bytes_max: app.presence_member_bytes_max,
        event_channels_max: app.event_channels_max,
        batch_events_max: app.event_batch_max,
        allows_sign_in: app.enable_user_authentication,
        has_watchlists: app.enable_watchlist_events,
    }
}

/// The patterns were checked with the configuration. Should one fail here all the same, it becomes
/// one that no origin matches: leaving it out could leave none, which lets everyone in.
fn origins(app: &App) -> Box<[OriginPattern]> {
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
    use crate::{
        bridge::fixture,
        config::{Secret, app::EventType},
    };

    #[test]
    fn whatever_changes_in_an_app_makes_another_entry_of_it() {
        type Change = fn(&mut App);
        let changes: [Change; 24] = [
            |app| app.id.push('x'),
            |app| app.former_id = Some("former"),
            |app| app.key.push('x'),
            |app| app.secrets[0] = Secret::new("another"),
            |app| app.secrets.push(Secret::new("another")),
            |app| app.enabled = false,
            |app| app.max_connections = 1,
            |app| app.enable_client_messages = false,
            |app| app.max_client_events_per_second = 1,
            |app| app.max_backend_events_per_second = 1,
            |app| app.max_read_requests_per_second = 1,
            |app| app.max_presence_members_per_channel = 1,
            |app| app.presence_member_bytes_max = 1,
            |app| app.channel_name_bytes_max = 1,
            |app| app.event_channels_max = 1,
            |app| app.event_name_bytes_max = 1,
            |app| app.event_payload_bytes_max = 1,
            |app| app.event_batch_max = 1,
            |app| app.subscriptions_per_connection_max = 1,
            |app| app.enable_user_authentication = true,
            |app| app.enable_watchlist_events = true,
            |app| app.enable_subscription_count = false,
            |app| app.require_tls = true,
            |app| app.allowed_origins.push("https://example.com".to_owned()),
        ];
        let entry = |app: &App| AppEntry::prepare(AppIndex(3), app);
        let hook = fixture::webhook("http://127.0.0.1/1", &["channel_occupied"]);
        let mut before = fixture::app("a");
        before.webhooks.push(hook);
        assert!(entry(&before).is_same(&entry(&before)));
        for (number, change) in changes.iter().enumerate() {
            let mut app = before.clone();
            change(&mut app);
            assert_ne!(app, before, "change {number} is one");
            assert!(!entry(&before).is_same(&entry(&app)), "change {number}");
        }
        let mut app = before.clone();
        app.webhooks[0].event_types = vec![EventType::CacheMiss];
        assert!(!entry(&before).is_same(&entry(&app)), "of a webhook");
    }
}
