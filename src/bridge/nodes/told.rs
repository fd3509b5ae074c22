//! What shards are told of the other nodes: each message goes to the home of its partition.
//!
//! Owns: `Told`, and how what is heard becomes messages for shards.
//! May depend on: `bridge::{apps, message}`, `cluster`.
//! Invariants: of an app that this node does not know nothing is told, but that nothing is left; an event
//! is told only where its channel's name says that it belongs.

use std::sync::Arc;

use shards::application::ShardId;

use super::sample::Counters;
use crate::{
    bridge::{
        apps::AppTable,
        message::{
            FromBridge, KeptEvent, KeptName, NodeEvent, NodeState, Ownership, Spent, StateChange,
            UserOfNodes,
        },
    },
    cluster::{
        entry::{self, Event},
        holdings::{Merged, ViewChange},
        node::Heard,
        owner,
    },
    protocol::{app::AppIndex, partition::Partition},
};

/// Messages for shards, in their order.
pub type Told = Vec<(ShardId, FromBridge)>;

/// Who tells: the apps that this node has, and where their homes are.
pub(super) struct Teller<'a> {
    pub(super) apps: &'a AppTable,
    pub(super) shards: u16,
    pub(super) counters: &'a mut Counters,
    pub(super) told: &'a mut Told,
}

impl Teller<'_> {
    pub(super) fn tell(&mut self, heard: Heard<'_>) {
        match heard {
            Heard::Event(event) => self.tell_event(&event),
            Heard::View(view) => self.tell_view(&view),
            Heard::Terminate { app, user_id } => self.tell_terminate(app, user_id),
            Heard::Spent(spent) => self.tell_spent(&spent),
            Heard::KeptAsk { app, channel } => self.tell_kept_ask(app, channel),
            Heard::Kept(kept) => self.tell_kept(&kept),
        }
    }

    fn tell_event(&mut self, event: &Event<'_>) {
        let Some(app) = self.apps.by_id(event.app) else {
            self.unknown_app();
            return;
        };
        // Its name says where it belongs, whatever the sender says.
        if app.rules.partitions.of_channel(event.channel) != event.partition {
            self.counters.events_misplaced += 1;
            return;
        }
        let owned = Box::new(owned(app.index, event));
        self.push(event.partition, FromBridge::Event(owned));
    }

    pub(super) fn tell_view(&mut self, view: &ViewChange<'_>) {
        // One that has just left may come back: it stays up to date until it is forgotten.
        match self.apps.index_of(view.app) {
            Some(index) => self.tell_view_of(index, view),
            None => self.unknown_app(),
        }
    }

    pub(super) fn tell_view_of(&mut self, app: AppIndex, view: &ViewChange<'_>) {
        let change = match view.change {
            Merged::Subscriptions(count) => StateChange::Subscriptions(count),
            Merged::MemberJoined { user_id, info } => StateChange::MemberJoined {
                user_id: Arc::clone(user_id),
                info: Arc::clone(info),
            },
            Merged::MemberLeft { user_id, why } => StateChange::MemberLeft {
                user_id: Arc::clone(user_id),
                why,
            },
            Merged::UserOnline => StateChange::UserOnline,
            Merged::UserOffline => StateChange::UserOffline,
            Merged::Connections(count) => StateChange::Connections(count),
            Merged::EventKept => StateChange::EventKept(true),
            Merged::EventForgotten => StateChange::EventKept(false),
        };
        let state = NodeState {
            app,
            partition: view.partition,
            name: Arc::clone(view.name),
            change,
        };
        self.push(view.partition, FromBridge::State(Box::new(state)));
    }

    fn tell_terminate(&mut self, app: &str, user_id: &str) {
        let Some(app) = self.apps.by_id(app) else {
            return;
        };
        let partition = app.rules.partitions.of_user(user_id);
        let user = UserOfNodes {
            app: app.index,
            partition,
            id: user_id.into(),
        };
        self.push(partition, FromBridge::Terminate(Box::new(user)));
    }

    fn tell_spent(&mut self, spent: &entry::Spent<'_>) {
        let Some(app) = self.apps.by_id(spent.app) else {
            return;
        };
        let of = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
        let (index, partition) = (app.index, app.rules.partitions.own());
        let spent = Spent {
            app: index,
            backend_events: of(spent.backend_events),
            reads: of(spent.reads),
        };
        self.push(partition, FromBridge::Spent(spent));
    }

    fn tell_kept_ask(&mut self, app: &str, channel: &str) {
        let Some(app) = self.apps.by_id(app) else {
            return;
        };
        let partition = app.rules.partitions.of_channel(channel);
        let name = KeptName {
            is_elsewhere: true,
            is_doubted: false,
            app: app.index,
            partition,
            channel: channel.into(),
        };
        self.push(partition, FromBridge::KeptAsk(Box::new(name)));
    }

    fn tell_kept(&mut self, kept: &entry::Kept<'_>) {
        let Some(app) = self.apps.by_id(kept.app) else {
            return;
        };
        // Its name says where it belongs, whatever the sender says.
        if app.rules.partitions.of_channel(kept.channel) != kept.partition {
            self.counters.events_misplaced += 1;
            return;
        }
        let event = KeptEvent {
            app: app.index,
            partition: kept.partition,
            channel: kept.channel.into(),
            left_ms: kept.left_ms,
            frame: kept.frame.into(),
        };
        self.push(kept.partition, FromBridge::Kept(Box::new(event)));
    }

    fn unknown_app(&mut self) {
        // Of a store's app that nobody here has used nobody here wants to know.
        if !self.apps.is_partial() {
            self.counters.events_of_unknown_apps += 1;
        }
    }

    fn push(&mut self, partition: Partition, message: FromBridge) {
        let home = home_of(partition, self.shards);
        self.told.push((home, message));
    }
}

/// Tells all shards whose webhooks are this node's, where that has changed.
pub(super) fn tell_owned(change: Option<owner::Change>, shards: u16, told: &mut Told) {
    let Some(owner::Change {
        partitions,
        since,
        until,
    }) = change
    else {
        return;
    };
    let mut owned = Ownership {
        since,
        until,
        ..Ownership::default()
    };
    for partition in partitions {
        owned.add(partition);
    }
    for shard in 0..shards {
        told.push((ShardId(shard), FromBridge::Owned(Box::new(owned.clone()))));
    }
}

/// The shard that is the home of a partition's names.
pub(in crate::bridge) fn home_of(partition: Partition, shards: u16) -> ShardId {
    ShardId(partition.number() % shards)
}

fn owned(app: AppIndex, event: &Event<'_>) -> NodeEvent {
    NodeEvent {
        app,
        partition: event.partition,
        channel: Arc::from(event.channel),
        origin: event.origin,
        except: event.except,
        frame: Arc::from(event.frame),
    }
}
