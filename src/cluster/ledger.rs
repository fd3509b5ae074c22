//! What this node itself holds, and the numbers under which it told the others.
//!
//! Owns: `Ledger`: the own channels, members and users, the deltas' numbers and their sums, counts that
//! wait for their time; `Own`, what shards report.
//! May depend on: `cluster::{app_ids, carrying, change, drafts, entry, holdings, topic}`, `protocol::partition`,
//! serde, `Millis`.
//! Invariants: what is held and was told differs in nothing but counts that are due; the deltas of a
//! partition are numbered from 1 without a gap, also those for which there was no room.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use ahash::RandomState;
use serde::{Deserialize, Serialize};
use shards::application::Millis;

use super::{
    app_ids::{AppIds, AppNumber},
    carrying::{Carrier, CarryError, Kind, read},
    change::{Change, ChangeRefused, ChangesWriter},
    drafts::Drafts,
    entry::{Delta, Entry, GROUPS, Group},
    fault::{Fault, is_planted},
    holdings::{Fact, Held, Holder, Holdings, Merged, Place, Space, Text, ViewChange},
    topic::Topic,
};
use crate::protocol::partition::{PARTITIONS, Partition};

/// What changed on this node, in the order in which it did for its name.
#[derive(Clone, Copy, Debug)]
pub struct Own<'a> {
    /// Where the name belongs.
    pub partition: Partition,
    pub app: &'a str,
    /// Of a channel; for users the user's id; empty for the app itself.
    pub name: &'a Arc<str>,
    pub change: OwnChange<'a>,
}

#[derive(Clone, Copy, Debug)]
pub enum OwnChange<'a> {
    /// So many of the node's connections subscribe; none: vacant.
    Subscriptions(u32),
    /// The first connection of the user is there, or its info is another.
    MemberJoined {
        user_id: &'a Arc<str>,
        info: &'a Arc<str>,
    },
    MemberLeft {
        user_id: &'a Arc<str>,
    },
    UserOnline,
    UserOffline,
    /// So many connections of the app are on this node.
    Connections(u32),
    /// The channel's last event is kept on this node.
    EventKept,
    EventForgotten,
}

/// What was told of the own state, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LedgerCounters {
    pub deltas_told: u64,
    /// For which there was no room: peers find that they are missing.
    pub deltas_unsaid: u64,
    /// Counts that a later one replaced before they were told.
    pub counts_coalesced: u64,
    /// Changes of an app for which there was no room.
    pub changes_refused: u64,
    pub held: Held,
}

#[derive(Debug)]
pub(super) struct Ledger {
    holdings: Holdings,
    /// By partition the latest number; 0: none.
    numbers: Box<[u64]>,
    /// By group the sum of them.
    sums: [u64; GROUPS],
    /// What of which a count was told a moment ago, and whether it is another now; at most `RECENT_MAX`.
    recent: BTreeMap<CountKey, bool>,
    /// When each of them may be told again.
    due: VecDeque<(Millis, CountKey)>,
    counters: LedgerCounters,
}

type CountKey = (Space, Partition, AppNumber, Arc<str>);

/// Beside its rows, for the process that follows.
#[derive(Debug, Deserialize, Serialize)]
struct LedgerRecord {
    numbers: Vec<u64>,
    /// What was told a moment ago, in its order.
    recent: Vec<RecentRecord>,
}

#[derive(Debug, Deserialize, Serialize)]
struct RecentRecord {
    due: Millis,
    space: Space,
    partition: u16,
    app: u32,
    name: String,
    is_changed: bool,
}

impl Ledger {
    pub(super) fn new(hasher: RandomState) -> Self {
        Self {
            // What clients hold here is bounded where they hold it.
            holdings: Holdings::new(hasher, usize::MAX),
            numbers: vec![0; usize::from(PARTITIONS)].into(),
            sums: [0; GROUPS],
            recent: BTreeMap::new(),
            due: VecDeque::new(),
            counters: LedgerCounters::default(),
        }
    }

    pub(super) fn counters(&self) -> LedgerCounters {
        LedgerCounters {
            held: self.holdings.held(),
            ..self.counters
        }
    }

    pub(super) fn sums(&self) -> [u64; GROUPS] {
        self.sums
    }

    pub(super) fn number(&self, partition: Partition) -> u64 {
        let number = self.numbers.get(usize::from(partition.number()));
        *number.expect("each partition has a number")
    }

    /// Takes a change, and tells it at once, or a count when it is due.
    // Per change: one hash and one search for its name, and where it is told one delta's bytes.
    pub(super) fn report(
        &mut self,
        now: Millis,
        apps: &mut AppIds,
        own: &Own<'_>,
        drafts: &mut Drafts,
    ) {
        let Some(app) = apps.intern(own.app) else {
            self.counters.changes_refused += 1;
            return;
        };
        let (space, fact) = match own.change {
            OwnChange::Subscriptions(count) => (Space::Channels, Fact::Count(count)),
            OwnChange::MemberJoined { user_id, info } => {
                let (user_id, info) = (Text::Shared(user_id), Text::Shared(info));
                (Space::Channels, Fact::Joined { user_id, info })
            }
            OwnChange::MemberLeft { user_id } => (Space::Channels, Fact::Left { user_id }),
            OwnChange::UserOnline => (Space::Users, Fact::Count(1)),
            OwnChange::UserOffline => (Space::Users, Fact::Count(0)),
            OwnChange::Connections(count) => (Space::Apps, Fact::Count(count)),
            OwnChange::EventKept => (Space::Kept, Fact::Count(1)),
            OwnChange::EventForgotten => (Space::Kept, Fact::Count(0)),
        };
        let place = Place {
            partition: own.partition,
            space,
            app,
            name: Text::Shared(own.name),
        };
        let is_counted = match own.change {
            OwnChange::Subscriptions(count) | OwnChange::Connections(count) => {
                count > 0 && self.holdings.sum(place) > 0
            }
            OwnChange::MemberJoined { .. }
            | OwnChange::MemberLeft { .. }
            | OwnChange::UserOnline
            | OwnChange::UserOffline
            | OwnChange::EventKept
            | OwnChange::EventForgotten => false,
        };
        let key = || (space, own.partition, app, own.name.clone());
        let is_early = is_counted && self.recent.contains_key(&key());
        let Self {
            holdings,
            numbers,
            sums,
            recent,
            due,
            counters,
        } = self;
        holdings.apply(apps, place, OWN, fact, &mut |change| {
            if is_early {
                let is_changed = recent.insert(key(), true);
                counters.counts_coalesced += u64::from(is_changed == Some(true));
                return;
            }
            tell(&change, numbers, sums, drafts, counters);
            if let Merged::Subscriptions(_) | Merged::Connections(_) = change.change {
                remember(recent, due, now, key());
            }
        });
    }

    /// Tells counts that are due.
    pub(super) fn tick(&mut self, now: Millis, apps: &AppIds, drafts: &mut Drafts) {
        while let Some((_, key)) = self.due.pop_front_if(|(due, _)| *due <= now) {
            if self.recent.remove(&key) != Some(true) || is_planted(Fault::CountForgotten) {
                continue;
            }
            let (space, partition, app, name) = &key;
            let count = self.holdings.sum(Place {
                partition: *partition,
                space: *space,
                app: *app,
                name: Text::Shared(name),
            });
            let change = ViewChange {
                partition: *partition,
                app: apps.id(*app),
                name,
                change: match space {
                    Space::Channels | Space::Users | Space::Kept => Merged::Subscriptions(count),
                    Space::Apps => Merged::Connections(count),
                },
            };
            let Self {
                numbers,
                sums,
                recent,
                due,
                counters,
                ..
            } = self;
            tell(&change, numbers, sums, drafts, counters);
            remember(recent, due, now, key);
        }
    }

    /// When a count is due.
    pub(super) fn due(&self) -> Option<Millis> {
        self.due.front().map(|(due, _)| *due)
    }

    pub(super) fn carry(&self, carrier: &mut Carrier<'_>) {
        let recent = self.due.iter().map(|(due, key)| RecentRecord {
            due: *due,
            space: key.0,
            partition: key.1.number(),
            app: key.2.at(),
            name: key.3.to_string(),
            is_changed: self.recent.get(key) == Some(&true),
        });
        let record = LedgerRecord {
            numbers: self.numbers.to_vec(),
            recent: recent.collect(),
        };
        carrier.item(Kind::LEDGER, &record);
        self.holdings.carry(Kind::LEDGER_ROWS, carrier);
    }

    /// Takes what was carried beside the rows.
    pub(super) fn take_record(&mut self, apps: &AppIds, item: &[u8]) -> Result<(), CarryError> {
        let record: LedgerRecord = read(item)?;
        for (partition, carried) in (0..).map_while(Partition::from_number).zip(record.numbers) {
            let number = self.numbers.get_mut(usize::from(partition.number()));
            *number.expect("each partition has a number") = carried;
            let sum = self
                .sums
                .get_mut(usize::from(Group::of(partition).number()));
            let sum = sum.expect("each group has a sum");
            *sum = sum.wrapping_add(carried);
        }
        for it in record.recent {
            let partition = Partition::from_number(it.partition);
            let partition = partition.ok_or(CarryError::NO_SUCH_PARTITION)?;
            let app = apps.nth(it.app).ok_or(CarryError::NO_SUCH_APP)?;
            let key = (it.space, partition, app, it.name.into());
            self.recent.insert(key.clone(), it.is_changed);
            self.due.push_back((it.due, key));
        }
        Ok(())
    }

    pub(super) fn take_rows(&mut self, apps: &AppIds, item: &[u8]) -> Result<(), CarryError> {
        self.holdings.take_rows(apps, item)
    }

    /// Lets go what is held of apps that are not known here, and tells so: nobody will ever say that it has ended.
    pub(super) fn end_unknown(
        &mut self,
        now: Millis,
        apps: &mut AppIds,
        is_known: impl Fn(&str) -> bool,
        drafts: &mut Drafts,
    ) {
        let ids = (0..).zip(apps.all()).filter(|(_, id)| !is_known(id));
        let unknown: BTreeMap<u32, Arc<str>> = ids.map(|(at, id)| (at, id.into())).collect();
        if unknown.is_empty() {
            return;
        }
        for partition in (0..).map_while(Partition::from_number) {
            let is_meant = |app: AppNumber| unknown.contains_key(&app.at());
            for it in self.holdings.remains(partition, is_meant) {
                let Some(app) = unknown.get(&it.app.at()) else {
                    continue;
                };
                let left = it.members.iter();
                let left = left.map(|user_id| OwnChange::MemberLeft { user_id });
                let ended = match it.space {
                    Space::Channels => OwnChange::Subscriptions(0),
                    Space::Users => OwnChange::UserOffline,
                    Space::Apps => OwnChange::Connections(0),
                    Space::Kept => OwnChange::EventForgotten,
                };
                for change in left.chain([ended]) {
                    let name = &it.name;
                    let own = Own {
                        partition,
                        app,
                        name,
                        change,
                    };
                    self.report(now, apps, &own, drafts);
                }
            }
        }
    }

    /// All of a partition, in parts. What never fits into one is left out and counted.
    pub(super) fn cut(
        &mut self,
        apps: &AppIds,
        partition: Partition,
        parts: &mut VecDeque<Vec<u8>>,
    ) {
        let mut writer = ChangesWriter::default();
        let refused = &mut self.counters.deltas_unsaid;
        self.holdings.for_each(apps, partition, |change| {
            let mut pushed = writer.push(&change);
            if pushed == Err(ChangeRefused::PartFull) {
                parts.push_back(writer.changes().encoded().to_vec());
                writer.clear();
                pushed = writer.push(&change);
            }
            *refused += u64::from(pushed.is_err());
        });
        // An empty partition is a part too: what was there is gone.
        parts.push_back(writer.changes().encoded().to_vec());
    }
}

/// Gives a change its number and tells the others.
fn tell(
    change: &ViewChange<'_>,
    numbers: &mut [u64],
    sums: &mut [u64; GROUPS],
    drafts: &mut Drafts,
    counters: &mut LedgerCounters,
) {
    let (partition, group) = (change.partition, Group::of(change.partition));
    let number = numbers.get_mut(usize::from(partition.number()));
    let number = number.expect("each partition has a number");
    let sum = sums.get_mut(usize::from(group.number()));
    *number += 1;
    *sum.expect("each group has a sum") += 1;
    let delta = Delta {
        partition,
        number: *number,
        change: wire_change(change),
    };
    let said = drafts.push(Topic::State(group), &Entry::Delta(delta));
    counters.deltas_told += 1;
    counters.deltas_unsaid += u64::from(said.is_err());
}

fn wire_change<'a>(change: &ViewChange<'a>) -> Change<'a> {
    let (app, name) = (change.app, &**change.name);
    match change.change {
        Merged::Subscriptions(count) => Change::Subscriptions {
            app,
            channel: name,
            count: count.into(),
        },
        Merged::MemberJoined { user_id, info } => Change::MemberJoined {
            app,
            channel: name,
            user_id,
            user_info: info,
        },
        Merged::MemberLeft { user_id, .. } => Change::MemberLeft {
            app,
            channel: name,
            user_id,
        },
        Merged::UserOnline => Change::UserOnline { app, user_id: name },
        Merged::UserOffline => Change::UserOffline { app, user_id: name },
        Merged::EventKept => Change::EventKept { app, channel: name },
        Merged::EventForgotten => Change::EventForgotten { app, channel: name },
        Merged::Connections(count) => Change::Connections {
            app,
            count: count.into(),
        },
    }
}

/// The count was told: the next one has time.
fn remember(
    recent: &mut BTreeMap<CountKey, bool>,
    due: &mut VecDeque<(Millis, CountKey)>,
    now: Millis,
    key: CountKey,
) {
    if let Some(is_changed) = recent.get_mut(&key) {
        *is_changed = false;
    } else if recent.len() < RECENT_MAX {
        recent.insert(key.clone(), false);
        due.push_back((now.plus(COUNT_MS), key));
    }
}

/// Of the own state there is one holder.
const OWN: Holder = Holder::new(0, false);
/// A count is told ten times per second at most.
const COUNT_MS: u64 = 100;
/// Beyond it counts are told at once.
const RECENT_MAX: usize = 1 << 16;
