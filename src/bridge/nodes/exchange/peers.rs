//! What becomes known of the other nodes: what the log says of it, and whose webhooks this node tells from then on.
//!
//! Owns: what each effect of the cluster's protocol means here.
//! May depend on: `bridge::{log_limit, message}`, `cluster`.
//! Invariants: each change is one line of the log; of messages of another secret there is one a minute.

use std::time::Duration;

use super::{
    super::{
        sample::shown,
        told::{Told, tell_owned},
    },
    Exchange, millis,
};
use crate::cluster::{
    identity::Identity,
    membership::{self, Reason},
    node::Effect,
};

impl Exchange {
    /// A node with another secret is ready, and alone: each side says so.
    pub(super) fn tell_strangers(&mut self, now: Duration) {
        let counters = self.node.counters();
        let (wrong_mac, no_mac) = (
            counters.batches_with_wrong_mac,
            counters.batches_without_mac,
        );
        let count = wrong_mac + no_mac;
        // Whoever sends them goes on.
        if count > self.strangers && self.strangers_told.allow(millis(now)).is_some() {
            self.strangers = count;
            tracing::warn!(
                wrong_mac,
                no_mac,
                "messages over this bus are not signed with this node's cluster.secret, and are not read: a node with \
                 another one is no part of this cluster"
            );
        }
    }

    pub(super) fn tell_effects(&mut self, now: Duration, told: &mut Told) {
        for effect in std::mem::take(&mut self.effects) {
            match effect {
                Effect::Peer(effect) => self.tell_peer(now, effect, told),
                Effect::Introduced(peer) => {
                    tracing::info!(peer = %self.name_of(peer), "a node has said its name");
                }
                Effect::Late(road) => {
                    self.counters.count_late(road);
                    tracing::warn!(
                        road = road.name(),
                        "what is sent to the bus does not come back"
                    );
                }
                Effect::InTime(road) => tracing::info!(road = road.name(), "the bus answers again"),
                Effect::AppsChanged => self.apps_have_changed = true,
                Effect::NameTaken => self.name_is_taken = true,
            }
        }
    }

    fn tell_peer(&mut self, now: Duration, effect: membership::Effect, told: &mut Told) {
        let now = millis(now);
        match effect {
            membership::Effect::Joined(peer) => {
                self.owners.came(peer, now);
                tracing::info!(peer = %self.name_of(peer), "a node is there");
            }
            membership::Effect::Restarted { old, new } => {
                let change = self.owners.went(old.node, now);
                tell_owned(change, self.shards, told);
                self.owners.came(new, now);
                self.has_views = true;
                tracing::info!(peer = %self.name_of(new), "a node has started anew");
            }
            membership::Effect::Expelled(peer, reason) => {
                let change = self.owners.went(peer.node, now);
                tell_owned(change, self.shards, told);
                self.has_views = true;
                let reason = match reason {
                    Reason::Goodbye => "it said goodbye",
                    Reason::LeaseRanOut => "it was silent for cluster.lease_ms",
                };
                tracing::info!(peer = %self.name_of(peer), reason, "a node is gone");
            }
            membership::Effect::Conflict(node) => {
                let node = format!("{:032x}", node.0);
                tracing::error!(
                    node,
                    is_unheard = self.node.is_succeeded(),
                    "two nodes run under one cluster.node_id, of which the others hear the later one: give each its own"
                );
            }
            membership::Effect::Stale => {
                tracing::warn!(
                    "this node may be behind: no node is taken for dead until it is not, and who leaves a channel here \
                     is announced then, or after a minute"
                );
            }
            membership::Effect::Fresh => {
                tracing::info!("this node is up to date");
                // Who keeps a last event is known only now.
                self.tell_topics(told);
            }
        }
    }

    fn name_of(&self, peer: Identity) -> String {
        let known = self.node.peers().find(|it| it.identity.node == peer.node);
        shown(known.map_or("", |it| it.name), peer.node)
    }
}
