//! The rows of what is held, for the process that follows.
//!
//! Owns: the record of a row; `Remains`, what is left of an app that the process does not know.
//! May depend on: `cluster::{app_ids, carrying, table}`, serde.
//! Invariants: rows, members and holders keep their order, on which it depends what is told first; a row
//! that was held has room, whatever the bound.

use serde::{Deserialize, Serialize};

use super::{
    AppNumber, Arc, HOLDERS_MAX, Holder, Holdings, PARTITIONS, Partition, ROW_BYTES_MAX, Row,
    Space, Text,
    members::{Holders, MEMBER_BYTES_MAX, Member},
    part, part_mut,
};
use crate::cluster::{
    app_ids::AppIds,
    carrying::{Carrier, CarryError, Kind, read},
};

/// Rows of one partition, in their order.
#[derive(Debug, Deserialize, Serialize)]
struct RowsRecord<'a> {
    partition: u16,
    #[serde(borrow)]
    rows: Vec<RowRecord<'a>>,
}

#[derive(Debug, Deserialize, Serialize)]
struct RowRecord<'a> {
    app: u32,
    space: Space,
    name: &'a str,
    /// Who counts, in the order in which they came: the seat, doubled, and the side; and how many.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    counts: Vec<(u16, u32)>,
    #[serde(default, borrow, skip_serializing_if = "Vec::is_empty")]
    members: Vec<MemberRecord<'a>>,
    /// There are more members of the row before it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    goes_on: bool,
}

#[derive(Debug, Deserialize, Serialize)]
struct MemberRecord<'a> {
    id: &'a str,
    /// With their infos; none: as the one before.
    #[serde(borrow)]
    holders: Vec<(u16, Option<&'a str>)>,
}

/// What is held of one name.
pub(in crate::cluster) struct Remains {
    pub(in crate::cluster) app: AppNumber,
    pub(in crate::cluster) space: Space,
    pub(in crate::cluster) name: Arc<str>,
    /// Their user ids.
    pub(in crate::cluster) members: Vec<Arc<str>>,
}

impl Holdings {
    /// What is held in a partition of the apps that are meant.
    pub(in crate::cluster) fn remains(
        &self,
        partition: Partition,
        is_meant: impl Fn(AppNumber) -> bool,
    ) -> Vec<Remains> {
        let rows = part(&self.parts, partition).iter();
        let remains = rows.filter(|row| is_meant(row.app)).map(|row| {
            let members = row.members.iter().flat_map(|members| members.iter());
            Remains {
                app: row.app,
                space: row.space,
                name: Arc::clone(&row.name),
                members: members.map(|member| Arc::clone(&member.user_id)).collect(),
            }
        });
        remains.collect()
    }

    pub(in crate::cluster) fn carry(&self, kind: Kind, carrier: &mut Carrier<'_>) {
        for partition in (0..PARTITIONS).filter_map(Partition::from_number) {
            let mut writer = RowsWriter {
                kind,
                carrier,
                rows: RowsRecord {
                    partition: partition.number(),
                    rows: Vec::new(),
                },
                bytes: 0,
            };
            for row in part(&self.parts, partition).iter() {
                writer.row(row);
            }
            writer.flush();
        }
    }

    /// Takes rows that were carried.
    pub(in crate::cluster) fn take_rows(
        &mut self,
        apps: &AppIds,
        item: &[u8],
    ) -> Result<(), CarryError> {
        let record: RowsRecord<'_> = read(item)?;
        let partition = Partition::from_number(record.partition);
        let partition = partition.ok_or(CarryError::NO_SUCH_PARTITION)?;
        for row in &record.rows {
            let at = self.take_row(apps, partition, row)?;
            for member in &row.members {
                self.take_member(partition, at, member)?;
            }
        }
        Ok(())
    }

    /// Where it is.
    fn take_row(
        &mut self,
        apps: &AppIds,
        partition: Partition,
        record: &RowRecord<'_>,
    ) -> Result<usize, CarryError> {
        let (parts, hasher) = (&mut self.parts, &self.hasher);
        let table = part_mut(parts, partition);
        if record.goes_on {
            let last = table.len().checked_sub(1);
            return last.ok_or(CarryError::Inconsistent("a row goes on that did not begin"));
        }
        if record.counts.is_empty() && record.members.is_empty() {
            return Err(CarryError::Inconsistent("nobody holds a row"));
        }
        let mut row = Row {
            name: record.name.into(),
            app: apps.nth(record.app).ok_or(CarryError::NO_SUCH_APP)?,
            space: record.space,
            first: Holder::NONE,
            count: 0,
            more: None,
            members: None,
        };
        for (holder, count) in &record.counts {
            let holder = holder_of(*holder)?;
            match row.first == Holder::NONE {
                true => (row.first, row.count) = (holder, *count),
                false => row.more.get_or_insert_default().push((holder, *count)),
            }
        }
        self.held.bytes += row.name.len() + ROW_BYTES_MAX + row.more_bytes();
        *self.held.rows_mut(row.space) += 1;
        Ok(table.push(row, |row| row.hash(hasher)))
    }

    fn take_member(
        &mut self,
        partition: Partition,
        at: usize,
        record: &MemberRecord<'_>,
    ) -> Result<(), CarryError> {
        let hasher = &self.hasher;
        let mut found: Option<Holders> = None;
        let mut last = "";
        for (holder, info) in &record.holders {
            let holder = holder_of(*holder)?;
            last = info.unwrap_or(last);
            match &mut found {
                None => found = Some(Holders::One(holder, last.into())),
                Some(holders) => _ = holders.put(holder, Text::Plain(last)),
            }
        }
        let member = Member {
            user_id: record.id.into(),
            holders: found.ok_or(CarryError::Inconsistent("nobody holds a member"))?,
        };
        self.held.members += 1;
        self.held.bytes += member.user_id.len() + member.holders.bytes() + MEMBER_BYTES_MAX;
        let row = part_mut(&mut self.parts, partition).row_mut(at);
        let members = row.members.get_or_insert_default();
        members.push(member, |member| hasher.hash_one(&*member.user_id));
        Ok(())
    }
}

fn holder_of(number: u16) -> Result<Holder, CarryError> {
    match number >> 1 < HOLDERS_MAX {
        true => Ok(Holder(number)),
        false => Err(CarryError::Inconsistent("a holder without a seat")),
    }
}

/// Collects rows until an item is long enough.
struct RowsWriter<'a, 'b, 'c> {
    kind: Kind,
    carrier: &'b mut Carrier<'c>,
    rows: RowsRecord<'a>,
    /// About what they take.
    bytes: usize,
}

impl<'a> RowsWriter<'a, '_, '_> {
    fn row(&mut self, row: &'a Row) {
        self.begin(row, false);
        if row.first != Holder::NONE {
            self.count(row.first, row.count);
        }
        for (holder, count) in row.more.iter().flat_map(|more| more.iter()) {
            self.count(*holder, *count);
        }
        for member in row.members.iter().flat_map(|members| members.iter()) {
            if self.bytes >= ITEM_BYTES && !self.last().members.is_empty() {
                self.flush();
                self.begin(row, true);
            }
            self.member(member);
        }
        if self.bytes >= ITEM_BYTES {
            self.flush();
        }
    }

    fn begin(&mut self, row: &'a Row, goes_on: bool) {
        self.bytes += row.name.len() + RECORD_BYTES;
        self.rows.rows.push(RowRecord {
            app: row.app.at(),
            space: row.space,
            name: &row.name,
            counts: Vec::new(),
            members: Vec::new(),
            goes_on,
        });
    }

    fn last(&mut self) -> &mut RowRecord<'a> {
        self.rows.rows.last_mut().expect("a row was begun")
    }

    fn count(&mut self, holder: Holder, count: u32) {
        self.last().counts.push((holder.0, count));
    }

    fn member(&mut self, member: &'a Member) {
        let mut before: Option<&Arc<str>> = None;
        let mut bytes = member.user_id.len() + RECORD_BYTES;
        let mut of = |holder: Holder, info: &'a Arc<str>| {
            let is_same = before.replace(info).is_some_and(|before| before == info);
            let info = (!is_same).then_some(&**info);
            bytes += info.map_or(0, str::len) + 8;
            (holder.0, info)
        };
        let holders = match &member.holders {
            Holders::One(holder, info) => vec![of(*holder, info)],
            Holders::Several(all) => all.iter().map(|(holder, info)| of(*holder, info)).collect(),
        };
        self.bytes += bytes;
        let id = &member.user_id;
        self.last().members.push(MemberRecord { id, holders });
    }

    fn flush(&mut self) {
        if !self.rows.rows.is_empty() {
            self.carrier.item(self.kind, &self.rows);
            self.rows.rows.clear();
            self.bytes = 0;
        }
    }
}

/// Of an item about.
const ITEM_BYTES: usize = 64 << 10;
/// What a row or a member takes about, beyond its texts.
const RECORD_BYTES: usize = 32;
