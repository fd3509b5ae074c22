//! Data path. What is to go out: one batch per topic, put together until the bus takes them.
//!
//! Owns: `Drafts`: the open batches, the numbers of this life's lanes, the buffers.
//! May depend on: `cluster::{carrying, entry, figures, identity, mac, topic, wire}`, serde.
//! Invariants: the batches of a lane are numbered from 1 without a gap, in the order in which they are
//! taken; no batch is without an entry; what is refused leaves no trace.

use serde::{Deserialize, Serialize};

use super::{
    carrying::{Carrier, CarryError, Kind, read},
    entry::Entry,
    fault::{Fault, is_planted},
    figures::ByKind,
    identity::{ClusterTag, Identity},
    mac::Secrets,
    topic::{LANES, Topic},
    wire::{BATCH_BYTES_MAX, BatchWriter, Header, Lane as WireLane, PushError, Version},
};

/// Batches that are being put together.
#[derive(Debug)]
pub(super) struct Drafts {
    sender: Identity,
    cluster: ClusterTag,
    secrets: Secrets,
    version: Version,
    lanes: Box<[Lane]>,
    /// In the order of the topics' first entries. Of a topic with several the last one is open.
    drafts: Vec<(Topic, BatchWriter)>,
    /// Of all drafts; nothing is added beyond `DRAFTS_BYTES_MAX`.
    bytes: usize,
    /// Buffers to begin with; at most `SPARE_MAX` of at most `SPARE_BYTES_MAX`.
    spare: Vec<Vec<u8>>,
    /// Entries that were added.
    pushed: ByKind,
}

/// How this life of the node speaks in a lane.
#[derive(Clone, Copy, Debug, Default)]
struct Lane {
    /// Batches that were begun.
    number: u64,
    /// The index of the open draft.
    open: Option<u32>,
}

/// A batch that waits, for the process that follows.
#[derive(Debug, Deserialize, Serialize)]
struct DraftRecord<'a> {
    lane: u16,
    number: u64,
    entries: usize,
    #[serde(with = "serde_bytes")]
    bytes: &'a [u8],
}

impl Drafts {
    pub(super) fn new(sender: Identity, cluster: ClusterTag, secrets: Secrets) -> Self {
        Self {
            sender,
            cluster,
            secrets,
            version: Version::OURS,
            lanes: vec![Lane::default(); usize::from(LANES)].into(),
            drafts: Vec::new(),
            bytes: 0,
            spare: Vec::new(),
            pushed: ByKind::default(),
        }
    }

    /// Entries that were added, for metrics.
    pub(super) fn pushed(&self) -> ByKind {
        self.pushed
    }

    /// In a later version each batch begins with an entry that nobody knows yet.
    pub(super) fn speaking(self, version: Version) -> Self {
        Self { version, ..self }
    }

    pub(super) fn carry(&self, carrier: &mut Carrier<'_>) {
        let numbers: Vec<u64> = self.lanes.iter().map(|lane| lane.number).collect();
        carrier.item(Kind::LANES, &numbers);
        // Of a lane with several drafts the last one has the lane's number.
        let mut behind = vec![0; self.lanes.len()];
        let mut records = Vec::new();
        for (topic, draft) in self.drafts.iter().rev() {
            let lane = topic.lane().0;
            let latest = numbers.get(usize::from(lane)).copied().unwrap_or(0);
            let behind = behind.get_mut(usize::from(lane));
            let behind = behind.expect("a topic's lane is below `LANES`");
            let (entries, bytes) = draft.entries();
            records.push(DraftRecord {
                lane,
                number: latest - *behind,
                entries,
                bytes,
            });
            *behind += 1;
        }
        for record in records.iter().rev() {
            carrier.item(Kind::DRAFT, record);
        }
    }

    /// Batches of a topic that were begun.
    pub(super) fn number(&self, topic: Topic) -> u64 {
        let lane = self.lanes.get(usize::from(topic.lane().0));
        lane.map_or(0, |lane| lane.number)
    }

    /// As if so many had been.
    pub(super) fn begin_behind(&mut self, topic: Topic, number: u64) {
        lane_mut(&mut self.lanes, topic).number = number;
    }

    /// Takes the numbers of those that were carried.
    pub(super) fn take_numbers(&mut self, item: &[u8]) -> Result<(), CarryError> {
        let numbers: Vec<u64> = read(item)?;
        if is_planted(Fault::CarriedLanesAnew) {
            return Ok(());
        }
        for (lane, number) in self.lanes.iter_mut().zip(numbers) {
            lane.number = number;
        }
        Ok(())
    }

    /// Takes a batch that waited; after the numbers, in their order.
    pub(super) fn take_draft(&mut self, item: &[u8]) -> Result<(), CarryError> {
        let record: DraftRecord<'_> = read(item)?;
        let topic = Topic::from_lane(WireLane(record.lane));
        let topic = topic.ok_or(CarryError::Inconsistent("a batch of no topic"))?;
        let header = Header {
            version: self.version,
            lane: topic.lane(),
            cluster: self.cluster,
            sender: self.sender,
            number: record.number,
        };
        let draft = BatchWriter::resume(&header, &self.secrets, record.entries, record.bytes);
        let draft = draft.ok_or(CarryError::Inconsistent("a batch that is too long"))?;
        let index = u32::try_from(self.drafts.len()).ok();
        lane_mut(&mut self.lanes, topic).open = index;
        self.bytes += draft.bytes();
        self.drafts.push((topic, draft));
        Ok(())
    }

    /// What is there is to be taken first.
    pub(super) fn is_full(&self) -> bool {
        self.bytes >= DRAFTS_BYTES_MAX
    }

    /// Adds an entry to what is to go out on a topic. `BatchFull`: what is there is to be taken first.
    // Per entry: one index by lane, one copy of its bytes. An allocation where a buffer grows, which
    // is kept for later.
    pub(super) fn push(&mut self, topic: Topic, entry: &Entry<'_>) -> Result<(), PushError> {
        self.push_uncounted(topic, entry)?;
        self.pushed.add(entry);
        Ok(())
    }

    fn push_uncounted(&mut self, topic: Topic, entry: &Entry<'_>) -> Result<(), PushError> {
        // Also where a batch is open: each of a thousand lanes may have one.
        if self.is_full() {
            return Err(PushError::BatchFull);
        }
        let lane = lane_mut(&mut self.lanes, topic);
        if let Some((_, draft)) = lane.open.and_then(|at| self.drafts.get_mut(at as usize)) {
            let before = draft.bytes();
            match draft.push(entry) {
                Err(PushError::BatchFull) => {}
                pushed => {
                    self.bytes += draft.bytes() - before;
                    return pushed;
                }
            }
        }
        let header = Header {
            version: self.version,
            lane: topic.lane(),
            cluster: self.cluster,
            sender: self.sender,
            number: lane.number + 1,
        };
        let buffer = self.spare.pop().unwrap_or_default();
        let mut draft = BatchWriter::begin(&header, &self.secrets, buffer);
        if self.version > Version::OURS {
            draft.push_unknown(LATER_KIND, b"later")?;
        }
        draft.push(entry)?;
        let index = u32::try_from(self.drafts.len()).expect("the bytes are bounded");
        *lane = Lane {
            number: header.number,
            open: Some(index),
        };
        self.bytes += draft.bytes();
        self.drafts.push((topic, draft));
        Ok(())
    }

    /// Hands out all batches.
    // Per batch: one allocation of its size, one copy, one HMAC if there is a secret.
    pub(super) fn take(&mut self, mut put: impl FnMut(Topic, Vec<u8>)) {
        for (topic, draft) in self.drafts.drain(..) {
            lane_mut(&mut self.lanes, topic).open = None;
            let mut bytes = draft.finish(&self.secrets);
            put(topic, bytes.clone());
            if bytes.capacity() <= SPARE_BYTES_MAX && self.spare.len() < SPARE_MAX {
                bytes.clear();
                self.spare.push(bytes);
            }
        }
        self.bytes = 0;
    }
}

fn lane_mut(lanes: &mut [Lane], topic: Topic) -> &mut Lane {
    let lane = lanes.get_mut(usize::from(topic.lane().0));
    lane.expect("a topic's lane is below `LANES`")
}

/// Beyond it nothing is added: at most one batch more than this waits.
pub(super) const DRAFTS_BYTES_MAX: usize = 32 * BATCH_BYTES_MAX;
/// A kind of a later version, whatever it will be.
const LATER_KIND: u64 = 1_000;
const SPARE_MAX: usize = 64;
const SPARE_BYTES_MAX: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{
        entry::Token,
        field::NAME_BYTES_MAX,
        identity::{Incarnation, NodeId},
        topic::Topic,
        wire::{BODY_BYTES_MAX, Batch},
    };

    const CLUSTER: ClusterTag = ClusterTag(1);

    fn drafts() -> Drafts {
        let sender = Identity {
            node: NodeId(1),
            incarnation: Incarnation(1),
        };
        Drafts::new(sender, CLUSTER, Secrets::default())
    }

    /// Topic, number, entries of each batch.
    fn taken(drafts: &mut Drafts) -> Vec<(Topic, u64, usize)> {
        let mut found = Vec::new();
        drafts.take(|topic, bytes| {
            let batch = Batch::decode(&bytes, CLUSTER, &Secrets::default()).expect("a batch");
            assert_eq!(batch.header.lane, topic.lane());
            found.push((topic, batch.header.number, batch.entries().count()));
        });
        assert!(drafts.drafts.is_empty());
        found
    }

    #[test]
    fn batches_go_out_in_the_order_of_their_first_entries_and_without_a_gap() {
        let mut drafts = drafts();
        let canary = Entry::Canary(Token(1));
        assert_eq!(taken(&mut drafts), []);
        for topic in [Topic::Nodes, Topic::Echo, Topic::Nodes] {
            assert_eq!(drafts.push(topic, &canary), Ok(()));
        }
        let expected = [(Topic::Nodes, 1, 2), (Topic::Echo, 1, 1)];
        assert_eq!(taken(&mut drafts), expected);
        assert_eq!(drafts.push(Topic::Nodes, &canary), Ok(()));
        assert_eq!(taken(&mut drafts), [(Topic::Nodes, 2, 1)]);
    }

    #[test]
    fn what_has_no_place_begins_the_next_batch_and_what_never_fits_leaves_no_trace() {
        let mut drafts = drafts();
        let terminate = |user_id| Entry::Terminate { app: "a", user_id };
        let (name, long) = ("x".repeat(NAME_BYTES_MAX), "x".repeat(NAME_BYTES_MAX + 1));
        let refused = Err(PushError::NameTooLong { bytes: long.len() });
        assert_eq!(drafts.push(Topic::Nodes, &terminate(&long)), refused);
        assert!(drafts.drafts.is_empty());
        for _ in 0..64 {
            assert_eq!(drafts.push(Topic::Nodes, &terminate(&name)), Ok(()));
            assert_eq!(drafts.push(Topic::Nodes, &terminate(&long)), refused);
        }
        let expected = [(Topic::Nodes, 1, 63), (Topic::Nodes, 2, 1)];
        assert_eq!(taken(&mut drafts), expected);
    }

    #[test]
    fn what_nobody_takes_is_bounded() {
        let mut drafts = drafts();
        let info = "x".repeat(BODY_BYTES_MAX - 100);
        let delta = crate::cluster::entry::Delta {
            partition: crate::protocol::partition::Partition::from_number(0).expect("one"),
            number: 1,
            change: crate::cluster::change::Change::MemberJoined {
                app: "a",
                channel: "c",
                user_id: "u",
                user_info: &info,
            },
        };
        let pushed = |drafts: &mut Drafts| drafts.push(Topic::Nodes, &Entry::Delta(delta));
        let mut count = 0;
        while pushed(&mut drafts).is_ok() {
            count += 1;
            assert!(drafts.bytes < DRAFTS_BYTES_MAX + BATCH_BYTES_MAX);
        }
        assert_eq!(pushed(&mut drafts), Err(PushError::BatchFull));
        assert_eq!(taken(&mut drafts).len(), count);
        assert_eq!(pushed(&mut drafts), Ok(()));
    }

    #[test]
    fn what_nobody_takes_is_bounded_however_many_batches_are_open() {
        let mut drafts = drafts();
        let name = "x".repeat(NAME_BYTES_MAX);
        let entry = Entry::Terminate {
            app: "a",
            user_id: &name,
        };
        let mut count = 0;
        while Topic::all().all(|topic| drafts.push(topic, &entry).is_ok()) {
            count += 1;
            assert!(drafts.bytes < DRAFTS_BYTES_MAX + BATCH_BYTES_MAX, "{count}");
        }
        assert!(count > 0, "a batch of each is open");
        let first = Topic::all().next().expect("a topic");
        assert_eq!(drafts.push(first, &entry), Err(PushError::BatchFull));
        taken(&mut drafts);
        assert_eq!(drafts.push(first, &entry), Ok(()));
    }
}
