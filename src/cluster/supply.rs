//! Answers to the peers' questions about the own state, at a pace that the bus bears.
//!
//! Owns: `Supply`: which groups' numbers and which partitions are asked for, the snapshot that is being
//! sent.
//! May depend on: `cluster::{app_ids, carrying, change, drafts, entry, identity, ledger, topic}`,
//! `protocol::partition`, serde, `Millis`.
//! Invariants: a snapshot is of one moment, that of its number; answers go to all peers, and what several
//! ask for at a time is sent once; questions take a bit each, whoever asks and how often.

use std::{collections::VecDeque, iter};

use serde::{Deserialize, Serialize};
use shards::application::Millis;

use super::{
    app_ids::AppIds,
    carrying::{Carrier, CarryError, Kind, read},
    change::Changes,
    drafts::Drafts,
    entry::{Entry, GROUPS, Group, Latest, Rest, Snapshot},
    fault::{Fault, is_planted},
    identity::NodeId,
    ledger::Ledger,
    topic::Topic,
};
use crate::protocol::partition::{PARTITIONS, Partition};

/// What was asked and answered, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SupplyCounters {
    pub numbers_asks_heard: u64,
    pub numbers_told: u64,
    pub snapshot_asks_heard: u64,
    /// What they ask for is on its way.
    pub snapshot_asks_spared: u64,
    pub snapshots_sent: u64,
    pub snapshot_bytes_sent: u64,
}

#[derive(Debug)]
pub(super) struct Supply {
    groups: [bool; GROUPS],
    /// Those with their mark, in the order in which they were asked for.
    wanted: VecDeque<Partition>,
    /// By partition.
    rows: Box<[Row]>,
    sending: Option<Sending>,
    snapshots: u64,
    counters: SupplyCounters,
}

#[derive(Clone, Copy, Debug, Default)]
struct Row {
    is_wanted: bool,
    /// Who asked for it first, of that for which there is a mark.
    asker: Option<NodeId>,
    /// When the last snapshot was sent, and its number.
    sent: Option<(Millis, u64)>,
}

#[derive(Debug)]
struct Sending {
    id: u64,
    partition: Partition,
    number: u64,
    asker: Option<NodeId>,
    part: u64,
    /// Never empty.
    parts: VecDeque<Vec<u8>>,
}

/// For the process that follows. The parts of the snapshot that is being sent come behind it.
#[derive(Debug, Deserialize, Serialize)]
struct SupplyRecord {
    groups: Vec<u8>,
    wanted: Vec<u16>,
    /// Who asked for each of them first.
    #[serde(default)]
    askers: Vec<Option<NodeId>>,
    /// By partition when the last snapshot was sent, and its number.
    sent: Vec<(u16, Millis, u64)>,
    sending: Option<SendingRecord>,
    snapshots: u64,
}

#[derive(Debug, Deserialize, Serialize)]
struct SendingRecord {
    id: u64,
    partition: u16,
    number: u64,
    #[serde(default)]
    asker: Option<NodeId>,
    part: u64,
}

impl Supply {
    pub(super) fn new() -> Self {
        Self {
            groups: [false; GROUPS],
            wanted: VecDeque::new(),
            rows: vec![Row::default(); usize::from(PARTITIONS)].into(),
            sending: None,
            snapshots: 0,
            counters: SupplyCounters::default(),
        }
    }

    pub(super) fn counters(&self) -> SupplyCounters {
        self.counters
    }

    /// A peer asks for the numbers of a group.
    pub(super) fn ask_numbers(&mut self, group: Group) {
        self.counters.numbers_asks_heard += 1;
        let is_wanted = self.groups.get_mut(usize::from(group.number()));
        *is_wanted.expect("each group has a mark") = true;
    }

    /// A peer that has heard all up to a number asks for a partition.
    pub(super) fn ask_snapshot(
        &mut self,
        now: Millis,
        asker: NodeId,
        partition: Partition,
        from: u64,
    ) {
        self.counters.snapshot_asks_heard += 1;
        let row = row_mut(&mut self.rows, partition);
        // It asked before the snapshot for another peer reached it.
        let is_on_its_way = row
            .sent
            .is_some_and(|(sent_at, number)| from < number && now.since(sent_at) < SENT_MS);
        if is_on_its_way || row.is_wanted {
            self.counters.snapshot_asks_spared += 1;
            return;
        }
        row.is_wanted = true;
        row.asker = Some(asker);
        self.wanted.push_back(partition);
    }

    pub(super) fn carry(&self, carrier: &mut Carrier<'_>) {
        let groups = (0..).zip(self.groups).filter(|(_, is_wanted)| *is_wanted);
        let sent = (0..).zip(&self.rows).filter_map(|(partition, row)| {
            let (at, number) = row.sent?;
            Some((partition, at, number))
        });
        let sending = self.sending.as_ref().map(|it| SendingRecord {
            id: it.id,
            partition: it.partition.number(),
            number: it.number,
            asker: it.asker,
            part: it.part,
        });
        let asker_of = |it: &Partition| self.rows.get(usize::from(it.number()))?.asker;
        let record = SupplyRecord {
            groups: groups.map(|(group, _)| group).collect(),
            wanted: self.wanted.iter().map(|it| it.number()).collect(),
            askers: self.wanted.iter().map(asker_of).collect(),
            sent: sent.collect(),
            sending,
            snapshots: self.snapshots,
        };
        carrier.item(Kind::SUPPLY, &record);
        for part in self.sending.iter().flat_map(|sending| &sending.parts) {
            carrier.item(Kind::SUPPLY_PART, &serde_bytes::Bytes::new(part));
        }
    }

    pub(super) fn carried(item: &[u8]) -> Result<Self, CarryError> {
        let record: SupplyRecord = read(item)?;
        let of = |number| Partition::from_number(number).ok_or(CarryError::NO_SUCH_PARTITION);
        let mut supply = Self::new();
        for group in record.groups {
            if let Some(is_wanted) = supply.groups.get_mut(usize::from(group)) {
                *is_wanted = true;
            }
        }
        for (partition, at, number) in record.sent {
            row_mut(&mut supply.rows, of(partition)?).sent = Some((at, number));
        }
        let askers = record.askers.into_iter().chain(iter::repeat(None));
        for (partition, asker) in record.wanted.into_iter().zip(askers) {
            let partition = of(partition)?;
            let row = row_mut(&mut supply.rows, partition);
            (row.is_wanted, row.asker) = (true, asker);
            supply.wanted.push_back(partition);
        }
        if let Some(sending) = record.sending {
            supply.sending = Some(Sending {
                id: sending.id,
                partition: of(sending.partition)?,
                number: sending.number,
                asker: sending.asker,
                part: sending.part,
                parts: VecDeque::new(),
            });
        }
        supply.snapshots = record.snapshots;
        Ok(supply)
    }

    /// Takes a part of the snapshot that is being sent.
    pub(super) fn take_part(&mut self, item: &[u8]) -> Result<(), CarryError> {
        let part: serde_bytes::ByteBuf = read(item)?;
        let sending = self.sending.as_mut();
        let sending = sending.ok_or(CarryError::Inconsistent("a part of no snapshot"))?;
        sending.parts.push_back(part.into_vec());
        Ok(())
    }

    pub(super) fn is_busy(&self) -> bool {
        self.sending.is_some() || !self.wanted.is_empty() || self.groups.contains(&true)
    }

    /// Answers what was asked, so many bytes at a time. `sent` is told of each snapshot who asked for it first.
    pub(super) fn tick(
        &mut self,
        now: Millis,
        apps: &AppIds,
        ledger: &mut Ledger,
        drafts: &mut Drafts,
        mut sent: impl FnMut(NodeId),
    ) {
        self.tell_numbers(ledger, drafts);
        let mut bytes = 0;
        while bytes < BYTES_PER_TICK {
            let Some(sending) = &mut self.sending else {
                let Some(partition) = self.wanted.pop_front() else {
                    return;
                };
                self.begin(now, partition, apps, ledger);
                continue;
            };
            let Some(encoded) = sending.parts.front() else {
                self.sending = None;
                continue;
            };
            let snapshot = Snapshot {
                id: sending.id,
                partition: sending.partition,
                number: sending.number,
                part: sending.part,
                rest: match sending.parts.len() {
                    1 => Rest::None,
                    _ => Rest::Follows,
                },
                changes: Changes::of_encoded(encoded),
            };
            let topic = Topic::State(Group::of(sending.partition));
            if drafts.push(topic, &Entry::Snapshot(snapshot)).is_err() {
                return; // The bus takes nothing now; the part goes out later.
            }
            let cost = encoded.len() + ASK_BYTES;
            bytes += cost;
            self.counters.snapshot_bytes_sent += cost as u64;
            sending.part += 1;
            sending.parts.pop_front();
            if sending.parts.is_empty() {
                let (partition, number) = (sending.partition, sending.number);
                sending.asker.into_iter().for_each(&mut sent);
                self.sending = None;
                self.counters.snapshots_sent += 1;
                row_mut(&mut self.rows, partition).sent = Some((now, number));
            }
        }
    }

    /// Cuts a snapshot. Its bytes are those of the partition, until they are sent.
    fn begin(&mut self, now: Millis, partition: Partition, apps: &AppIds, ledger: &mut Ledger) {
        let late = u64::from(is_planted(Fault::SnapshotNumberLate));
        let number = ledger.number(partition) + late;
        let mut parts = VecDeque::new();
        ledger.cut(apps, partition, &mut parts);
        self.snapshots += 1;
        if is_planted(Fault::SnapshotsLost) && partition.number() % 128 < 64 {
            return;
        }
        // From here on a question is about what came later.
        let row = row_mut(&mut self.rows, partition);
        let asker = row.asker.take();
        *row = Row {
            is_wanted: false,
            asker: None,
            sent: Some((now, number)),
        };
        self.sending = Some(Sending {
            id: self.snapshots,
            partition,
            number,
            asker,
            part: 0,
            parts,
        });
    }

    fn tell_numbers(&mut self, ledger: &Ledger, drafts: &mut Drafts) {
        for (number, is_wanted) in (0..).zip(&mut self.groups) {
            if !std::mem::take(is_wanted) {
                continue;
            }
            let group = Group::from_number(number).expect("each mark is of a group");
            let told = group.partitions().map(|partition| Latest {
                partition,
                number: ledger.number(partition),
            });
            for latest in told.filter(|latest| latest.number > 0) {
                let said = drafts.push(Topic::State(group), &Entry::Latest(latest));
                self.counters.numbers_told += u64::from(said.is_ok());
            }
        }
    }
}

fn row_mut(rows: &mut [Row], partition: Partition) -> &mut Row {
    let row = rows.get_mut(usize::from(partition.number()));
    row.expect("each partition has a row")
}

/// At 50 ticks per second 13 MB per second, beside which deltas still pass.
const BYTES_PER_TICK: usize = 256 << 10;
/// What an answer costs beyond its content: small ones are bounded by their number.
const ASK_BYTES: usize = 256;
/// A snapshot that was sent so long ago has arrived.
const SENT_MS: u64 = 200;
