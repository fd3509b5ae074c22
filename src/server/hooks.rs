//! Which webhooks of channels this node tells: in a cluster one node tells each.
//!
//! Owns: the partitions of which this node is the owner, what fell due lately on others.
//! May depend on: `bridge::message`, `handover::record`.
//! Invariants: every node finds what falls due by itself, since all see the same channels; only the
//! owner tells it. What fell due while an owner was dead and not yet known to be is told by the next one; what is
//! told late is not the last word where another one has told something newer.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};

use shards::application::Millis;

use super::{ServerTurn, ShardServer};
use crate::{
    bridge::message::{Ownership, ToBridge},
    bridge::webhook_event::{WebhookEvent, WebhookKind},
    handover::record::{HookRecord, KeptHookRecord, OwnedRecord},
    protocol::{app::AppIndex, partition::Partition},
};

/// Bytes of what fell due elsewhere; beyond, the oldest goes.
const KEPT_BYTES_MAX: usize = 4 << 20;

/// On a node that is alone nothing of it is used.
#[derive(Clone, Default)]
pub(super) struct Owned {
    ownership: Ownership,
    is_known: bool,
    /// What fell due on partitions of others, oldest first.
    kept: VecDeque<Kept>,
    kept_bytes: usize,
}

#[derive(Clone)]
struct Kept {
    at: Millis,
    partition: Partition,
    event: WebhookEvent,
}

/// Of what a webhook says how it is: the next one about it takes the place of this one.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Subject {
    app: AppIndex,
    channel: Arc<str>,
    about: About,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum About {
    Occupancy,
    Member(Arc<str>),
    Count,
}

impl Subject {
    fn of(event: &WebhookEvent) -> Option<Self> {
        let about = match &event.kind {
            WebhookKind::ChannelOccupied | WebhookKind::ChannelVacated => About::Occupancy,
            WebhookKind::MemberAdded { user_id } | WebhookKind::MemberRemoved { user_id } => {
                About::Member(Arc::clone(user_id))
            }
            WebhookKind::SubscriptionCount { .. } => About::Count,
            WebhookKind::CacheMiss | WebhookKind::ClientEvent(_) => return None,
        };
        let (app, channel) = (event.app, Arc::clone(&event.channel));
        Some(Self {
            app,
            channel,
            about,
        })
    }
}

impl Owned {
    /// No other node tells anything.
    pub(super) fn has_all(&self) -> bool {
        let mut words = self.ownership.partitions.iter();
        words.all(|word| *word == u64::MAX)
    }

    /// Whether this node tells what falls due then.
    fn tells(&self, partition: Partition, at: Millis) -> bool {
        self.ownership.has(partition) && at < self.ownership.until
    }

    fn keep(&mut self, kept: Kept, until: Millis) {
        self.kept_bytes += kept.event.approximate_bytes();
        self.kept.push_back(kept);
        while let Some(first) = self.kept.front()
            && (self.kept_bytes > KEPT_BYTES_MAX || first.at < until)
        {
            self.kept_bytes -= first.event.approximate_bytes();
            self.kept.pop_front();
        }
    }

    /// Takes another ownership over; gives what is to be told now.
    fn change(&mut self, ownership: Ownership) -> Vec<WebhookEvent> {
        self.is_known = true;
        let before = std::mem::replace(&mut self.ownership, ownership);
        let after = &self.ownership;
        let (mut told, mut subjects) = (Vec::new(), BTreeSet::new());
        let kept_bytes = &mut self.kept_bytes;
        self.kept.retain(|kept| {
            if !after.has(kept.partition) {
                return true;
            }
            if kept.at >= after.until {
                // Whoever counts since then has told it: once more, or what is told now would be the last word.
                if Subject::of(&kept.event).is_some_and(|it| subjects.contains(&it)) {
                    told.push(kept.event.clone());
                }
                return true;
            }
            *kept_bytes -= kept.event.approximate_bytes();
            // Of one that was this node's before, what that was not to tell yet.
            if before.has(kept.partition) || kept.at >= after.since {
                subjects.extend(Subject::of(&kept.event));
                told.push(kept.event.clone());
            }
            false
        });
        told
    }
}

impl Owned {
    /// As another process is told of it, with at most so many webhooks in a record; `app_id` says which app one
    /// is of, if that is still known.
    pub(super) fn records(
        &self,
        kept_max: usize,
        app_id: impl Fn(AppIndex) -> Option<String>,
    ) -> impl Iterator<Item = OwnedRecord> {
        let kept = self.kept.iter().filter_map(move |kept| {
            Some(KeptHookRecord {
                at_ms: kept.at.0,
                partition: kept.partition.number(),
                app: app_id(kept.event.app)?,
                time_ms: kept.event.time_ms,
                channel: kept.event.channel.to_string(),
                kind: hook_record(&kept.event.kind)?,
            })
        });
        let kept: Vec<KeptHookRecord> = kept.collect();
        let first = OwnedRecord {
            is_known: self.is_known,
            partitions: self.ownership.partitions.to_vec(),
            since_ms: self.ownership.since.0,
            until_ms: self.ownership.until.0,
            kept: Vec::new(),
        };
        let parts: Vec<OwnedRecord> = kept
            .chunks(kept_max)
            .map(|kept| OwnedRecord {
                kept: kept.to_vec(),
                ..first.clone()
            })
            .collect();
        std::iter::once(first).chain(parts)
    }

    /// Takes over what a record says. `mine` says the app of a webhook whose channel's home is this shard.
    pub(super) fn restore(
        &mut self,
        record: OwnedRecord,
        mine: impl Fn(&KeptHookRecord) -> Option<AppIndex>,
    ) {
        self.is_known |= record.is_known;
        for (word, had) in self.ownership.partitions.iter_mut().zip(record.partitions) {
            *word |= had;
        }
        self.ownership.since = Millis(record.since_ms);
        self.ownership.until = Millis(record.until_ms);
        for kept in record.kept {
            let (Some(app), Some(partition)) =
                (mine(&kept), Partition::from_number(kept.partition))
            else {
                continue;
            };
            let event = WebhookEvent {
                app,
                time_ms: kept.time_ms,
                channel: kept.channel.into(),
                kind: hook_of(kept.kind),
            };
            let at = Millis(kept.at_ms);
            self.kept_bytes += event.approximate_bytes();
            self.kept.push_back(Kept {
                at,
                partition,
                event,
            });
        }
        // Several shards of that process had a part of it.
        self.kept.make_contiguous().sort_by_key(|it| it.at);
    }
}

/// None of what the node tells that has it.
fn hook_record(kind: &WebhookKind) -> Option<HookRecord> {
    Some(match kind {
        WebhookKind::ChannelOccupied => HookRecord::ChannelOccupied,
        WebhookKind::ChannelVacated => HookRecord::ChannelVacated,
        WebhookKind::MemberAdded { user_id } => HookRecord::MemberAdded(user_id.to_string()),
        WebhookKind::MemberRemoved { user_id } => HookRecord::MemberRemoved(user_id.to_string()),
        WebhookKind::CacheMiss => HookRecord::CacheMiss,
        WebhookKind::SubscriptionCount { count } => HookRecord::SubscriptionCount(*count),
        WebhookKind::ClientEvent(_) => return None,
    })
}

fn hook_of(record: HookRecord) -> WebhookKind {
    match record {
        HookRecord::ChannelOccupied => WebhookKind::ChannelOccupied,
        HookRecord::ChannelVacated => WebhookKind::ChannelVacated,
        HookRecord::MemberAdded(user_id) => WebhookKind::MemberAdded {
            user_id: user_id.into(),
        },
        HookRecord::MemberRemoved(user_id) => WebhookKind::MemberRemoved {
            user_id: user_id.into(),
        },
        HookRecord::CacheMiss => WebhookKind::CacheMiss,
        HookRecord::SubscriptionCount(count) => WebhookKind::SubscriptionCount { count },
    }
}

impl ShardServer {
    /// Home: an event of a channel for the app's webhooks, if this node is to tell it.
    pub(super) fn tell_owned(
        &mut self,
        turn: &mut impl ServerTurn,
        partition: Partition,
        event: WebhookEvent,
    ) {
        let at = turn.now();
        if !self.topics.has_bus() || self.owned.tells(partition, at) {
            return self.tell_webhook(turn, event);
        }
        // Who dies is known to be dead after a lease, and some for the way. Whose everything is is not
        // known before a node has come to its cluster.
        let until = match self.owned.is_known {
            true => Millis(at.0.saturating_sub(3 * self.settings.lease_ms)),
            false => Millis(0),
        };
        self.owned.keep(
            Kept {
                at,
                partition,
                event,
            },
            until,
        );
    }

    /// Other partitions are this node's.
    pub(super) fn on_owned(&mut self, turn: &mut impl ServerTurn, ownership: Ownership) {
        for event in self.owned.change(ownership) {
            self.tell_webhook(turn, event);
        }
    }

    /// A full bridge costs the app that floods it its oldest events.
    pub(super) fn tell_webhook(&mut self, turn: &mut impl ServerTurn, event: WebhookEvent) {
        let dropped = turn.to_bridge(ToBridge::Webhook(event)).err();
        for message in dropped.into_iter().flat_map(|dropped| dropped.0) {
            if let ToBridge::Webhook(event) = message {
                self.counters.bridge_full[0] += 1;
                self.counters.app(event.app).faults_mut().webhooks_dropped += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(number: u16) -> Partition {
        Partition::from_number(number).expect("a partition")
    }

    fn kept(at: u64, number: u16) -> Kept {
        Kept {
            at: Millis(at),
            partition: partition(number),
            event: WebhookEvent {
                app: AppIndex(0),
                time_ms: at,
                channel: number.to_string().into(),
                kind: WebhookKind::ChannelOccupied,
            },
        }
    }

    fn of(since: u64, numbers: &[u16]) -> Ownership {
        let mut ownership = Ownership {
            since: Millis(since),
            until: Millis(u64::MAX),
            ..Ownership::default()
        };
        for number in numbers {
            ownership.add(partition(*number));
        }
        ownership
    }

    #[test]
    fn who_takes_over_tells_what_fell_due_since_and_nothing_twice() {
        let mut owned = Owned::default();
        for (at, number) in [(1, 7), (2, 8), (3, 7), (4, 1_023), (5, 7)] {
            owned.keep(kept(at, number), Millis(0));
        }
        let times = |events: Vec<WebhookEvent>| -> Vec<u64> {
            events.into_iter().map(|event| event.time_ms).collect()
        };
        assert_eq!(times(owned.change(of(3, &[7]))), [3, 5]);
        assert_eq!(times(owned.change(of(0, &[7, 8]))), [2]);
        assert!(owned.change(of(0, &[8])).is_empty());
        assert_eq!(times(owned.change(of(0, &[7, 8, 1_023]))), [4]);
        assert_eq!((owned.kept.len(), owned.kept_bytes), (0, 0));
    }

    #[test]
    fn what_fell_due_elsewhere_goes_to_another_process_in_its_order() {
        let shards: [Owned; 2] = [0, 1].map(|shard| {
            let mut owned = Owned::default();
            owned.change(of(3, &[7]));
            for (at, number) in [(1, 8), (2, 9), (3, 8), (4, 9)] {
                if number % 2 == shard {
                    owned.keep(kept(at, number), Millis(0));
                }
            }
            owned
        });
        let mut next = Owned::default();
        for record in shards
            .iter()
            .flat_map(|it| it.records(1, |_| Some("app".to_owned())))
        {
            assert!(record.kept.len() <= 1);
            next.restore(record, |kept| {
                assert_eq!(kept.app, "app");
                Some(AppIndex(5))
            });
        }
        assert!(next.is_known && next.ownership == of(3, &[7]));
        let kept: Vec<_> = next.kept.iter().map(|it| (it.at.0, it.event.app)).collect();
        assert_eq!(kept, [1, 2, 3, 4].map(|at| (at, AppIndex(5))));
        let bytes: usize = shards.iter().map(|it| it.kept_bytes).sum();
        assert_eq!(next.kept_bytes, bytes);
    }

    #[test]
    fn what_fell_due_since_another_one_counts_is_told_by_that_one() {
        let mut owned = Owned::default();
        for (at, number) in [(1, 7), (2, 8), (5, 7), (6, 8)] {
            owned.keep(kept(at, number), Millis(0));
        }
        let times = |events: Vec<WebhookEvent>| -> Vec<u64> {
            events.into_iter().map(|event| event.time_ms).collect()
        };
        let all = Ownership {
            until: Millis(5),
            ..of(0, &[7, 8])
        };
        assert_eq!(
            times(owned.change(all)),
            [1, 2, 5, 6],
            "the last two once more"
        );
        for (at, is_told) in [(4, true), (5, false), (6, false)] {
            assert_eq!(owned.tells(partition(7), Millis(at)), is_told, "at {at}");
        }
        assert_eq!(times(owned.change(of(0, &[8]))), [6]);
        assert_eq!(owned.kept.len(), 1, "the other's, should it die");
    }

    #[test]
    fn what_is_told_late_is_followed_by_what_another_one_has_told_since_of_the_same() {
        let user = |user_id: &str| user_id.into();
        let (ann, bob) = (|| user("ann"), || user("bob"));
        let mut owned = Owned::default();
        for (at, number, kind) in [
            (1, 7, WebhookKind::ChannelOccupied),
            (2, 7, WebhookKind::MemberAdded { user_id: ann() }),
            (3, 7, WebhookKind::SubscriptionCount { count: 1 }),
            (4, 7, WebhookKind::CacheMiss),
            // What another one has told.
            (5, 7, WebhookKind::MemberRemoved { user_id: ann() }),
            (6, 7, WebhookKind::MemberAdded { user_id: bob() }),
            (7, 8, WebhookKind::ChannelOccupied),
            (8, 7, WebhookKind::CacheMiss),
            (9, 7, WebhookKind::SubscriptionCount { count: 2 }),
            (10, 7, WebhookKind::ChannelVacated),
        ] {
            let mut kept = kept(at, number);
            kept.event.kind = kind;
            owned.keep(kept, Millis(0));
        }
        let change = |owned: &mut Owned, since| -> Vec<u64> {
            let ownership = Ownership {
                until: Millis(5),
                ..of(since, &[7, 8])
            };
            let told = owned.change(ownership).into_iter();
            told.map(|event| event.time_ms).collect()
        };
        assert_eq!(change(&mut owned.clone(), 2), [2, 3, 4, 5, 9]);
        assert_eq!(change(&mut owned, 0), [1, 2, 3, 4, 5, 9, 10]);
        assert_eq!(owned.kept.len(), 6, "the other's, should it die");
        assert!(
            change(&mut owned, 0).is_empty(),
            "told once more, and not again"
        );
    }

    #[test]
    fn what_fell_due_elsewhere_is_kept_for_a_while_and_within_its_bytes() {
        let mut owned = Owned::default();
        owned.keep(kept(10, 7), Millis(0));
        owned.keep(kept(20, 7), Millis(15));
        assert_eq!(owned.kept.len(), 1);
        for at in 0..20_000 {
            owned.keep(kept(at, 7), Millis(0));
            assert!(owned.kept_bytes <= KEPT_BYTES_MAX);
        }
        assert!(owned.kept.len() > 5_000);
    }
}
