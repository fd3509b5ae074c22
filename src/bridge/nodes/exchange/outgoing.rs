//! What shards have for the other nodes: it becomes entries of batches, which `flush` sends.
//!
//! Owns: which of the cluster's entries each message of a shard is.
//! May depend on: `bridge::{apps, message}`, `cluster`.
//! Invariants: an app is named by its id, also while it ends; what finds no room is counted.

use std::{sync::Arc, time::Duration};

use super::{
    super::told::{Told, home_of},
    Exchange, millis,
};
use crate::{
    bridge::{
        apps::AppTable,
        message::{
            Found, FoundEvent, FromBridge, KeptEvent, KeptName, NodeEvent, NodeState, Spent,
            StateChange, UserOfNodes,
        },
    },
    cluster::{
        entry,
        ledger::{Own, OwnChange},
        node::Outgoing,
        wire::PushError,
    },
    protocol::app::AppIndex,
};

/// Nodes that are asked for a channel's last event where they may not have heard the same ones.
const KEEPERS_MAX: usize = 8;

impl Exchange {
    /// Takes an event of this node; `flush` sends it.
    // Per event: one look-up of its app, one copy into a batch.
    pub fn publish(&mut self, apps: &AppTable, event: &NodeEvent) {
        let Some(app) = apps.get(event.app) else {
            return; // It was taken away meanwhile, on all nodes.
        };
        if self.node.is_outside() {
            self.counters.events_before_start += 1;
            return; // Nobody knows how long it would have to wait.
        }
        let outgoing = Outgoing {
            partition: event.partition,
            app: &app.app.id,
            channel: &event.channel,
            origin: event.origin,
            except: event.except,
            frame: &event.frame,
        };
        let mut result = self.node.publish(&outgoing);
        if result == Err(PushError::BatchFull) {
            self.flush();
            result = self.node.publish(&outgoing);
        }
        match result {
            Ok(()) => {}
            Err(PushError::BatchFull) => self.counters.events_before_start += 1,
            Err(_) => self.counters.events_too_long += 1,
        }
    }

    /// Takes a change of what this node has; `flush` sends it.
    pub fn report(&mut self, now: Duration, apps: &AppTable, state: &NodeState) {
        let Some(app) = self.app_id(apps, state.app) else {
            return;
        };
        let change = match &state.change {
            StateChange::Subscriptions(count) => OwnChange::Subscriptions(*count),
            StateChange::MemberJoined { user_id, info } => {
                OwnChange::MemberJoined { user_id, info }
            }
            StateChange::MemberLeft { user_id, .. } => OwnChange::MemberLeft { user_id },
            StateChange::UserOnline => OwnChange::UserOnline,
            StateChange::UserOffline => OwnChange::UserOffline,
            StateChange::Connections(count) => OwnChange::Connections(*count),
            StateChange::EventKept(true) => OwnChange::EventKept,
            StateChange::EventKept(false) => OwnChange::EventForgotten,
        };
        self.make_room();
        let own = Own {
            partition: state.partition,
            app: &app,
            name: &state.name,
            change,
        };
        self.node.report(millis(now), &own);
    }

    /// Has a user's connections on the other nodes ended; `flush` sends it.
    pub fn terminate(&mut self, apps: &AppTable, user: &UserOfNodes) {
        let Some(app) = self.app_id(apps, user.app) else {
            return;
        };
        self.make_room();
        let result = self.node.terminate(&app, &user.id);
        self.counters.events_too_long += u64::from(result.is_err());
    }

    /// Tells the other nodes what was used of an app's rates; `flush` sends it.
    pub fn spend(&mut self, apps: &AppTable, spent: &Spent) {
        if self.node.is_outside() {
            return; // What was used an hour ago is nothing to anybody when the bus is there.
        }
        let Some(app) = self.app_id(apps, spent.app) else {
            return;
        };
        self.make_room();
        // Without room they hear less of it: a rate is kept less well for a moment.
        _ = self.node.spend(entry::Spent {
            app: &app,
            backend_events: spent.backend_events.into(),
            reads: spent.reads.into(),
        });
    }

    /// Asks other nodes for a channel's last event; `flush` sends it. Whoever waits for the answers hears
    /// how many there are if it is not one.
    pub fn ask_kept(&mut self, apps: &AppTable, name: &KeptName, told: &mut Told) {
        let KeptName {
            app,
            partition,
            ref channel,
            is_doubted,
            ..
        } = *name;
        // Those who were not parted have heard the same.
        let count_max = if is_doubted { KEEPERS_MAX } else { 1 };
        self.make_room();
        let id = self.app_id(apps, app);
        let asked = id.map_or(0, |id| {
            self.node.ask_kept(partition, &id, channel, count_max)
        });
        let found = match asked {
            0 => Found::Unknown,
            1 => return,
            several => Found::Asked(several),
        };
        let found = FoundEvent {
            app,
            partition,
            channel: Arc::clone(channel),
            found,
        };
        let home = home_of(partition, self.shards);
        told.push((home, FromBridge::Found(Box::new(found))));
    }

    /// Answers another node's question for a channel's last event; `flush` sends it.
    pub fn answer_kept(&mut self, apps: &AppTable, kept: &KeptEvent) {
        let Some(app) = self.app_id(apps, kept.app) else {
            return;
        };
        self.make_room();
        let result = self.node.answer_kept(entry::Kept {
            partition: kept.partition,
            app: &app,
            channel: &kept.channel,
            left_ms: kept.left_ms,
            frame: &kept.frame,
        });
        self.counters.events_too_long += u64::from(result.is_err());
    }

    /// What one wake-up brings may be more than may wait.
    fn make_room(&mut self) {
        if self.node.is_full() {
            self.flush();
        }
    }

    /// An app that has been taken away still has connections that end; perhaps it was never named before.
    fn app_id(&mut self, apps: &AppTable, index: AppIndex) -> Option<Arc<str>> {
        if let Some(id) = self.app_ids.get(&index) {
            return Some(Arc::clone(id));
        }
        let id: Arc<str> = apps.id_of(index)?.into();
        self.app_ids.insert(index, Arc::clone(&id));
        Some(id)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Command, *};
    use crate::{
        bridge::{adapter::news::News, fixture, nodes::carrying_tests::setup},
        cluster::{
            entry::Entry,
            identity::ClusterTag,
            mac::Secrets,
            wire::{Batch, EVENT_FRAME_BYTES_MAX},
        },
    };

    #[test]
    fn what_comes_behind_more_events_than_may_wait_is_told_like_they_are() {
        let apps = AppTable::build(&[fixture::app("app")], None);
        let entry = apps.by_id("app").expect("it is there");
        let (app, partitions) = (entry.index, &entry.rules.partitions);
        let mut exchange = Exchange::new(Duration::ZERO, setup(0, 1));
        let (now, mut told) = (Duration::from_secs(1), Told::new());
        let topics = exchange.topics.common().collect();
        exchange.take(now, &apps, News::Live(topics), &mut told);
        exchange.tick(now, &mut told);
        let partition = partitions.of_channel("news");
        let event = NodeEvent {
            app,
            partition,
            channel: "news".into(),
            origin: entry::Origin::Api,
            except: None,
            frame: vec![b'x'; EVENT_FRAME_BYTES_MAX].into(),
        };
        while !exchange.node.is_full() {
            exchange.publish(&apps, &event);
        }
        let state = NodeState {
            app,
            partition,
            name: "news".into(),
            change: StateChange::Subscriptions(1),
        };
        exchange.report(now, &apps, &state);
        while !exchange.node.is_full() {
            exchange.publish(&apps, &event);
        }
        let partition = partitions.of_user("alice");
        let id = "alice".into();
        exchange.terminate(&apps, &UserOfNodes { app, partition, id });
        let counters = exchange.node.state_counters();
        assert_eq!(counters.own.deltas_unsaid, 0);
        assert_eq!(exchange.counters.events_too_long, 0);
    }

    #[test]
    fn what_was_used_before_the_bus_was_there_is_not_told_when_it_is() {
        let apps = AppTable::build(&[fixture::app("app")], None);
        let app = apps.by_id("app").expect("it is there").index;
        let mut exchange = Exchange::new(Duration::ZERO, setup(0, 1));
        let spent = |backend_events| Spent {
            app,
            backend_events,
            reads: 0,
        };
        for _ in 0..100 {
            exchange.spend(&apps, &spent(1));
        }
        let (now, mut told) = (Duration::from_secs(1), Told::new());
        let topics = exchange.topics.common().collect();
        exchange.take(now, &apps, News::Live(topics), &mut told);
        exchange.tick(now, &mut told);
        exchange.spend(&apps, &spent(7));
        exchange.flush();
        let mut said = Vec::new();
        while let Some(command) = exchange.next_command() {
            if let Command::Publish { batch, .. } = command {
                let read = Batch::decode(&batch, ClusterTag::of_name("scene"), &Secrets::default());
                for entry in read.expect("a batch").entries().flatten() {
                    if let Entry::Spent(spent) = entry {
                        said.push(spent.backend_events);
                    }
                }
            }
        }
        assert_eq!(said, [7]);
    }
}
