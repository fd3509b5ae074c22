//! A node's part in the protocol, for the process that follows: the other nodes notice nothing.
//!
//! Owns: how what is carried becomes records: items, each of a kind, cut into records of one length;
//! `Carried`, `CarryError`.
//! What the items hold stands with the types of which they are.
//! May depend on: `cluster::{node, owner}`, serde, MessagePack.
//! Invariants: whatever the records, the answer is a node or a reason; an item of a kind that is not known is
//! skipped, and so is a field; what is not of the same life of the same node is refused.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{node::Node, owner::Owners};

/// What there is again.
#[derive(Debug)]
pub struct Carried {
    pub node: Node,
    pub owners: Owners,
    /// As whoever had the node gave it along.
    pub beside: Vec<u8>,
}

/// Why there is no node.
#[derive(Debug, Error)]
pub enum CarryError {
    #[error("the records of the cluster's state end too early")]
    Cut,
    #[error("more records of the cluster's state than were written")]
    More,
    #[error("a record of the cluster's state cannot be read: {0}")]
    Unreadable(#[from] rmp_serde::decode::Error),
    #[error("the records are of another node, or of another life of it")]
    OtherNode,
    #[error("the records of the cluster's state do not fit together: {0}")]
    Inconsistent(&'static str),
}

impl CarryError {
    pub(super) const NO_SUCH_APP: Self = Self::Inconsistent("an app that has no number");
    pub(super) const NO_SUCH_PARTITION: Self = Self::Inconsistent("a partition beyond the last");
    pub(super) const NO_SUCH_PEER: Self = Self::Inconsistent("a peer that was not named");
}

/// What an item holds.
// A number is never given again. What a later version must have of an earlier one it must do without, so
// what it adds is of a new kind, or a field with a default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kind(u8);

impl Kind {
    pub(super) const NODE: Self = Self(1);
    pub(super) const OWNERS: Self = Self(2);
    pub(super) const MEMBERSHIP: Self = Self(3);
    pub(super) const PEER: Self = Self(4);
    pub(super) const LANES: Self = Self(5);
    pub(super) const DRAFT: Self = Self(6);
    pub(super) const APPS: Self = Self(7);
    pub(super) const LEDGER: Self = Self(8);
    pub(super) const LEDGER_ROWS: Self = Self(9);
    pub(super) const SUPPLY: Self = Self(10);
    pub(super) const SUPPLY_PART: Self = Self(11);
    pub(super) const REPLICA: Self = Self(12);
    pub(super) const WANT: Self = Self(13);
    pub(super) const MERGE: Self = Self(14);
    pub(super) const VIEW: Self = Self(15);
    pub(super) const VIEW_ROWS: Self = Self(16);
    /// What whoever has the node gave along.
    pub(super) const BESIDE: Self = Self(17);
    /// Nothing follows.
    pub(super) const END: Self = Self(255);
}

/// Cuts what is written into records.
pub(super) struct Carrier<'a> {
    put: &'a mut dyn FnMut(Vec<u8>),
    record: Vec<u8>,
}

impl<'a> Carrier<'a> {
    pub(super) fn new(put: &'a mut dyn FnMut(Vec<u8>)) -> Self {
        let record = Vec::new();
        Self { put, record }
    }

    pub(super) fn item(&mut self, kind: Kind, item: &impl Serialize) {
        let item = rmp_serde::to_vec_named(item).expect("plain values can be written");
        let bytes = u32::try_from(item.len()).expect("what an item holds is bounded");
        self.add(&[kind.0]);
        self.add(&bytes.to_be_bytes());
        self.add(&item);
    }

    /// Writes rows as items of about one size each.
    pub(super) fn rows<T: Serialize>(&mut self, kind: Kind, rows: impl IntoIterator<Item = T>) {
        let mut rows = rows.into_iter();
        loop {
            let some: Vec<T> = rows.by_ref().take(ROWS_PER_ITEM).collect();
            if some.is_empty() {
                return;
            }
            self.item(kind, &some);
        }
    }

    fn add(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = RECORD_BYTES_MAX - self.record.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.record.extend_from_slice(now);
            bytes = later;
            if self.record.len() == RECORD_BYTES_MAX {
                (self.put)(std::mem::take(&mut self.record));
            }
        }
    }

    pub(super) fn finish(mut self) {
        self.item(Kind::END, &());
        if !self.record.is_empty() {
            (self.put)(self.record);
        }
    }
}

/// The items of records.
pub(super) struct Items<I> {
    records: I,
    /// What was taken of the records.
    bytes: Vec<u8>,
    /// Where the next item begins.
    at: usize,
}

impl<I: Iterator<Item = R>, R: AsRef<[u8]>> Items<I> {
    pub(super) fn of(records: impl IntoIterator<Item = R, IntoIter = I>) -> Self {
        Self {
            records: records.into_iter(),
            bytes: Vec::new(),
            at: 0,
        }
    }

    /// The next one; `END` is the last.
    pub(super) fn take(&mut self) -> Result<(Kind, &[u8]), CarryError> {
        self.fill(HEAD_BYTES)?;
        let head = self.bytes.get(self.at..).and_then(<[u8]>::first_chunk);
        let [kind, length @ ..]: [u8; HEAD_BYTES] = *head.ok_or(CarryError::Cut)?;
        let length = u32::from_be_bytes(length) as usize;
        self.fill(HEAD_BYTES + length)?;
        let start = self.at + HEAD_BYTES;
        self.at = start + length;
        let item = self.bytes.get(start..self.at).ok_or(CarryError::Cut)?;
        Ok((Kind(kind), item))
    }

    /// Has so many bytes at least of what was not taken.
    fn fill(&mut self, bytes: usize) -> Result<(), CarryError> {
        while self.bytes.len() - self.at < bytes {
            let record = self.records.next().ok_or(CarryError::Cut)?;
            self.bytes.drain(..self.at);
            self.at = 0;
            self.bytes.extend_from_slice(record.as_ref());
        }
        Ok(())
    }

    /// Whether that was all.
    pub(super) fn end(mut self) -> Result<(), CarryError> {
        match self.at == self.bytes.len() && self.records.next().is_none() {
            true => Ok(()),
            false => Err(CarryError::More),
        }
    }
}

pub(super) fn read<'a, T: Deserialize<'a>>(item: &'a [u8]) -> Result<T, CarryError> {
    Ok(rmp_serde::from_slice(item)?)
}

/// Of one record.
pub const RECORD_BYTES_MAX: usize = 256 << 10;
/// Kind and length.
const HEAD_BYTES: usize = 5;
const ROWS_PER_ITEM: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    fn written(items: &[(u8, Vec<u8>)]) -> Vec<Vec<u8>> {
        let mut records = Vec::new();
        let mut put = |record| records.push(record);
        let mut carrier = Carrier::new(&mut put);
        for (kind, item) in items {
            carrier.item(Kind(*kind), item);
        }
        carrier.finish();
        records
    }

    #[test]
    fn items_of_any_length_come_back_from_records_of_one_length() {
        let lengths = [0, 1, RECORD_BYTES_MAX - 20, 7, 3 * RECORD_BYTES_MAX, 5];
        let items: Vec<_> = (1..)
            .zip(lengths)
            .map(|(kind, length)| (kind, vec![kind; length]))
            .collect();
        let records = written(&items);
        let (last, others) = records.split_last().expect("records");
        assert!(others.iter().all(|it| it.len() == RECORD_BYTES_MAX));
        assert!(last.len() <= RECORD_BYTES_MAX);
        let mut found = Items::of(&records);
        for (kind, item) in &items {
            let (found, bytes) = found.take().expect("an item");
            assert_eq!(found, Kind(*kind));
            assert_eq!(&read::<Vec<u8>>(bytes).expect("it is readable"), item);
        }
        assert_eq!(found.take().expect("the end").0, Kind::END);
        found.end().expect("nothing follows");
    }

    #[test]
    fn what_ends_too_early_or_too_late_is_refused() {
        let records = written(&[(1, vec![1; 10])]);
        let [record] = &records[..] else {
            panic!("it fits into one");
        };
        for cut in 0..record.len() {
            let mut items = Items::of([&record[..cut]]);
            let found = [(); 2].map(|()| items.take().map(|_| ()).is_err());
            assert!(found.contains(&true), "{cut} bytes");
        }
        let mut items = Items::of([&record[..], b"more"]);
        while items.take().expect("an item").0 != Kind::END {}
        assert!(matches!(items.end(), Err(CarryError::More)));
    }
}
