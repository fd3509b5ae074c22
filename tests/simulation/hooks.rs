//! The webhook events of a run, checked one by one as they leave the node.

use std::collections::{BTreeMap, BTreeSet};

use shards::application::Millis;
use sockudo::bridge::message::ToBridge;
use sockudo::bridge::webhook_event::{WebhookEvent, WebhookKind};

use crate::ledger::{Ledger, Place};

/// How long `channel_vacated` and `member_removed` wait for a return.
pub(crate) const GRACE_MS: u64 = 3_000;
const MISS_QUIET_MS: u64 = 10_000;

#[derive(Default)]
pub(crate) struct Hooks {
    /// Whether the channel is occupied, and since when it is as it is.
    occupied: BTreeMap<Place, (bool, Millis)>,
    members: BTreeMap<(Place, String), (bool, Millis)>,
    /// By node: each tells its own.
    misses: BTreeMap<(usize, Place), Millis>,
    counts: BTreeMap<Place, u64>,
    client_events: BTreeMap<usize, u32>,
    /// By node and shard.
    pub(crate) drained: BTreeMap<(usize, u16), Millis>,
    /// All shards were told that nobody will return, so no grace is waited for.
    pub(crate) settles: bool,
    /// What falls due before nodes of a cluster count is told when one does, and in the moment when
    /// others do perhaps twice: until then neither graces nor doubles are judged.
    late_until: Millis,
    pub(crate) settled: BTreeMap<(usize, u16), Millis>,
    /// Client events before this one are not judged.
    events_before: usize,
    /// Nodes that were told so alone.
    settling: BTreeSet<usize>,
}

impl Hooks {
    pub(crate) fn of(late_until: Millis) -> Self {
        Self {
            late_until,
            ..Self::default()
        }
    }

    /// Nodes may differ in who tells what, until then.
    pub(crate) fn are_late(&mut self, until: Millis) {
        self.late_until = self.late_until.max(until);
    }

    /// Nodes agree again. What was told while they did not is not judged: from here on it is the truth.
    pub(crate) fn begin_anew(
        &mut self,
        now: Millis,
        subscriptions: &BTreeMap<Place, u64>,
        members: &BTreeMap<Place, Vec<String>>,
        events: usize,
    ) {
        if now >= self.late_until {
            return; // They never differed.
        }
        self.late_until = now;
        self.events_before = events;
        let channels = subscriptions.keys().filter(|it| !it.1.starts_with('#'));
        self.occupied = channels.map(|it| (it.clone(), (true, Millis(0)))).collect();
        let users = members.iter().flat_map(|(place, users)| {
            let of_place = users.iter().map(move |user| (place.clone(), user.clone()));
            of_place.map(|key| (key, (true, Millis(0))))
        });
        self.members = users.collect();
        self.counts.clear();
    }

    /// It was told that nobody will return to it.
    pub(crate) fn node_settles(&mut self, node: usize) {
        self.settling.insert(node);
    }

    pub(crate) fn drained_of(&self, node: usize) -> usize {
        self.drained.keys().filter(|it| it.0 == node).count()
    }

    /// Its life is over.
    pub(crate) fn forget_node(&mut self, node: usize) {
        self.settling.remove(&node);
        self.drained.retain(|it, _| it.0 != node);
        self.settled.retain(|it, _| it.0 != node);
        self.misses.retain(|it, _| it.0 != node);
    }

    pub(crate) fn hear(&mut self, shard: (usize, u16), now: Millis, message: &ToBridge) {
        match message {
            ToBridge::Webhook(event) => self.hear_event(shard.0, now, event),
            ToBridge::Drained => {
                let before = self.drained.insert(shard, now);
                assert!(
                    before.is_none(),
                    "shard {shard:?} said twice that it is drained"
                );
            }
            ToBridge::Settled => {
                let is_asked = self.settles || self.settling.contains(&shard.0);
                assert!(is_asked, "shard {shard:?} settled unasked");
                let before = self.settled.insert(shard, now);
                assert!(before.is_none(), "shard {shard:?} settled twice");
            }
            ToBridge::Snapshot { .. }
            | ToBridge::Largest { .. }
            | ToBridge::Usage { .. }
            | ToBridge::AppsTaken { .. } => {}
            ToBridge::FindApp(name) => panic!("{name:?} is looked for without a store"),
            ToBridge::Event(_)
            | ToBridge::State(_)
            | ToBridge::Terminate(_)
            | ToBridge::Spent(_)
            | ToBridge::KeptAsk(_)
            | ToBridge::Kept(_)
            | ToBridge::Keep(_)
            | ToBridge::TakeRate(_)
            | ToBridge::Topic { .. } => {
                panic!("a node without a bus")
            }
            ToBridge::Exported(_) | ToBridge::Imported { .. } => {
                panic!("a node that is not replaced")
            }
        }
    }

    fn hear_event(&mut self, node: usize, now: Millis, event: &WebhookEvent) {
        let place = (event.app.0 as usize, event.channel.to_string());
        assert!(
            !place.1.starts_with('#'),
            "a webhook of a user's channel: {place:?}"
        );
        let grace_ms = match self.settles {
            _ if now < self.late_until => None,
            true => Some(0),
            false => Some(GRACE_MS),
        };
        match &event.kind {
            WebhookKind::ChannelOccupied => turn(&mut self.occupied, place, true, now, grace_ms),
            WebhookKind::ChannelVacated => turn(&mut self.occupied, place, false, now, grace_ms),
            WebhookKind::MemberAdded { user_id } => {
                let key = (place, user_id.to_string());
                turn(&mut self.members, key, true, now, grace_ms);
            }
            WebhookKind::MemberRemoved { user_id } => {
                let key = (place, user_id.to_string());
                turn(&mut self.members, key, false, now, grace_ms);
            }
            WebhookKind::ClientEvent(event) => {
                let data = serde_json::from_str::<String>(&event.data).expect("a string token");
                let number = crate::client::event_number(&data);
                let count = self.client_events.entry(number).or_default();
                *count += 1;
                assert_eq!(*count, 1, "client event {number} had two webhooks");
            }
            WebhookKind::CacheMiss => {
                let last = self.misses.insert((node, place), now);
                // A node that settles looks ahead by the grace, also to the end of quiet times.
                let ahead_ms = if self.settles { GRACE_MS } else { 0 };
                let quiet_ms = MISS_QUIET_MS.saturating_sub(ahead_ms);
                let quiet = last.is_none_or(|last| now.since(last) >= quiet_ms);
                assert!(quiet, "two cache_miss webhooks within {quiet_ms} ms");
            }
            WebhookKind::SubscriptionCount { count } => {
                self.counts.insert(place, *count);
            }
        }
    }

    /// At rest, and longer than the grace after the last change.
    pub(crate) fn check(
        &self,
        subscriptions: &BTreeMap<Place, u64>,
        members: &BTreeMap<Place, Vec<String>>,
        ledger: &Ledger,
    ) {
        for (place, (is_occupied, _)) in &self.occupied {
            let count = subscriptions.get(place).copied().unwrap_or(0);
            assert_eq!(
                *is_occupied,
                count > 0,
                "webhooks say that {place:?} is occupied"
            );
        }
        for place in subscriptions
            .keys()
            .filter(|place| !place.1.starts_with('#'))
        {
            assert!(
                self.occupied.contains_key(place),
                "{place:?} was never occupied for webhooks"
            );
        }
        for ((place, user), (is_there, _)) in &self.members {
            let there = members.get(place).is_some_and(|users| users.contains(user));
            assert_eq!(*is_there, there, "webhooks say that {user} is in {place:?}");
        }
        for (place, users) in members {
            for user in users {
                let key = (place.clone(), user.clone());
                assert!(
                    self.members.contains_key(&key),
                    "{user} was never added to {place:?}"
                );
            }
        }
        for (place, count) in &self.counts {
            let true_count = subscriptions.get(place).copied().unwrap_or(0);
            assert_eq!(
                *count, true_count,
                "the last subscription_count webhook of {place:?}"
            );
        }
        let events = ledger.events.iter().enumerate();
        for (number, event) in events.skip(self.events_before) {
            let hooked = self.client_events.contains_key(&number);
            let taken = event.sender.is_some() && event.acknowledged.is_some();
            assert!(hooked || !taken, "client event {number} had no webhook");
            assert!(
                !hooked || !event.is_refused,
                "refused event {number} had a webhook"
            );
        }
    }
}

/// A thing comes or goes: both alternate, beginning with its coming, and going waits for the grace.
/// Without one it is not judged.
fn turn<K: Ord + std::fmt::Debug + Clone>(
    table: &mut BTreeMap<K, (bool, Millis)>,
    key: K,
    comes: bool,
    now: Millis,
    grace_ms: Option<u64>,
) {
    let Some(grace_ms) = grace_ms else {
        table.insert(key, (comes, Millis(0)));
        return;
    };
    let (was_there, since) = table.get(&key).copied().unwrap_or((false, Millis(0)));
    assert_ne!(
        was_there, comes,
        "two webhooks of one kind in a row for {key:?}"
    );
    if !comes {
        assert!(
            now.since(since) >= grace_ms,
            "{key:?} went within the grace"
        );
    }
    table.insert(key, (comes, now));
}
