//! What the peers hold, for the process that follows.
//!
//! Owns: the records of what is beside the replicas and the rows.
//! May depend on: `cluster::{app_ids, carrying, identity, replica, retelling}`, serde.
//! Invariants: what follows from the rest is not carried: seats, what is to be asked, what waits.

use serde::{Deserialize, Serialize};

use super::{Cursor, HOLDERS_MAX, Identity, Leaving, Merge, PARTITIONS, Partition, Phase, View};
use crate::cluster::{
    app_ids::AppIds,
    carrying::{Carrier, CarryError, Kind, read},
    replica::{Replica, WantRecord},
    retelling::{Retelling, RetellingRecord},
};

#[derive(Debug, Deserialize, Serialize)]
struct ViewRecord {
    leaving: Vec<Leaving>,
    sweep_at: u16,
    sweep_cursor: Cursor,
    retelling: RetellingRecord,
}

#[derive(Debug, Deserialize, Serialize)]
struct MergeRecord<'a> {
    of: Identity,
    seat: u16,
    partition: u16,
    number: u64,
    #[serde(with = "serde_bytes")]
    encoded: &'a [u8],
    phase: Phase,
    at: usize,
    cursor: Cursor,
}

impl View {
    pub(in crate::cluster) fn carry(&self, carrier: &mut Carrier<'_>) {
        let record = ViewRecord {
            leaving: self.leaving.clone(),
            sweep_at: self.sweep_at,
            sweep_cursor: self.sweep_cursor,
            retelling: self.retelling.carry(),
        };
        carrier.item(Kind::VIEW, &record);
        for replica in self.replicas.values() {
            replica.carry(carrier);
        }
        for merge in &self.merges {
            let record = MergeRecord {
                of: merge.of,
                seat: merge.seat,
                partition: merge.partition.number(),
                number: merge.number,
                encoded: &merge.encoded,
                phase: merge.phase,
                at: merge.at,
                cursor: merge.cursor,
            };
            carrier.item(Kind::MERGE, &record);
        }
        self.holdings.carry(Kind::VIEW_ROWS, carrier);
    }

    /// Takes an item of what was carried; those of kinds that are not known are skipped.
    pub(in crate::cluster) fn take_item(
        &mut self,
        apps: &AppIds,
        kind: Kind,
        item: &[u8],
    ) -> Result<(), CarryError> {
        match kind {
            Kind::VIEW => self.take_view(apps, &read(item)?),
            Kind::REPLICA => {
                let replica = Replica::carried(item)?;
                self.replicas.insert(replica.identity.node, replica);
                Ok(())
            }
            Kind::WANT => {
                let record: WantRecord<'_> = read(item)?;
                let replica = self.replicas.get_mut(&record.of);
                replica.ok_or(CarryError::NO_SUCH_PEER)?.take_want(&record)
            }
            Kind::MERGE => self.take_merge(&read(item)?),
            Kind::VIEW_ROWS => self.holdings.take_rows(apps, item),
            _ => Ok(()),
        }
    }

    fn take_view(&mut self, apps: &AppIds, record: &ViewRecord) -> Result<(), CarryError> {
        self.leaving.clone_from(&record.leaving);
        if self.leaving.iter().any(|it| it.parts == 0) {
            return Err(CarryError::Inconsistent("who has left has left nothing"));
        }
        self.sweep_at = record.sweep_at % PARTITIONS;
        self.sweep_cursor = record.sweep_cursor;
        self.retelling = Retelling::carried(apps, &record.retelling)?;
        Ok(())
    }

    fn take_merge(&mut self, record: &MergeRecord<'_>) -> Result<(), CarryError> {
        let replica = self.replicas.get_mut(&record.of.node);
        let replica = replica.filter(|it| it.identity == record.of && it.seat == Some(record.seat));
        let replica = replica.ok_or(CarryError::NO_SUCH_PEER)?;
        // Behind it, its bytes do not wait any more.
        match record.phase {
            Phase::Begin | Phase::Take(_) | Phase::Prune(_) => {
                replica.take_merge(record.encoded.len());
            }
            Phase::Release => {}
        }
        let partition = Partition::from_number(record.partition);
        self.merges.push_back(Merge {
            of: record.of,
            seat: record.seat,
            partition: partition.ok_or(CarryError::NO_SUCH_PARTITION)?,
            number: record.number,
            encoded: record.encoded.to_vec(),
            phase: record.phase,
            at: record.at,
            cursor: record.cursor,
        });
        Ok(())
    }

    /// Makes what follows from what was carried. Whether its peers are these, and each has its own seat.
    pub(in crate::cluster) fn settle(&mut self, peers: impl Iterator<Item = Identity>) -> bool {
        let replicas = self.replicas.values();
        self.waiting_bytes = replicas.clone().map(Replica::waiting_bytes).sum();
        for replica in replicas.clone() {
            let node = replica.identity.node;
            let dues = replica.dues();
            self.asks.extend(dues.map(|(due, of)| (due, node, of)));
        }
        let leaving = self.leaving.iter().map(|it| it.seat);
        for seat in replicas.filter_map(|it| it.seat).chain(leaving) {
            match self.seats.get_mut(usize::from(seat)) {
                Some(is_taken) if !*is_taken && seat < HOLDERS_MAX => *is_taken = true,
                _ => return false,
            }
        }
        peers.eq(self.replicas.values().map(|it| it.identity))
    }
}
