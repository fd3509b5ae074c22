//! Data path. A batch: the unit in which nodes speak to each other, as bytes.
//!
//! Owns: the header, the frame around each entry, the place of the MAC, which versions understand
//! each other, the bounds.
//! May depend on: `cluster::{entry, field, identity, mac}`.
//! Invariants: nothing of a batch is believed before its MAC is; a decoded batch has whole frames,
//! so that one entry's fault leaves the others readable; decoding allocates nothing and never
//! panics.

use thiserror::Error;

use super::{
    change::LENGTH_BYTES_MAX,
    entry::{Entry, EntryError},
    field::{FieldError, Measure, NAME_BYTES_MAX, Reader, Sink},
    identity::{ClusterTag, Identity, Incarnation, NodeId},
    mac::{Secrets, TAG_BYTES, Tag},
};

/// Who sent a batch, and which one it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub version: Version,
    pub lane: Lane,
    pub cluster: ClusterTag,
    pub sender: Identity,
    /// Grows by one with each batch of the sender's life in this lane.
    pub number: u64,
}

/// Of this protocol. Each understands the one before it and the one after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u8);

impl Version {
    /// The one that is spoken here.
    pub const OURS: Self = Self(1);

    fn is_understood(self) -> bool {
        self.0 > 0 && self.0.abs_diff(Self::OURS.0) <= 1
    }
}

/// A frame of an event that fits into a batch, whatever its names are.
pub const EVENT_FRAME_BYTES_MAX: usize =
    BATCH_BYTES_MAX - HEADER_BYTES - TAG_BYTES - 3 * NAME_BYTES_MAX;

/// A road from a sender on which batches keep their order: a topic. Numbers are compared within it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lane(pub u16);

/// A batch that was understood so far as its frames go.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    pub header: Header,
    entries: &'a [u8],
}

impl<'a> Batch<'a> {
    /// Reads a batch of this cluster. Whatever the bytes, the answer is a batch or a reason.
    // Per batch: one HMAC over it if there is a secret, then two numbers per entry.
    pub fn decode(
        bytes: &'a [u8],
        cluster: ClusterTag,
        secrets: &Secrets,
    ) -> Result<Self, BatchError> {
        if bytes.len() > BATCH_BYTES_MAX {
            return Err(BatchError::TooLong { bytes: bytes.len() });
        }
        let (header, flags) = Header::read(bytes)?;
        if header.cluster != cluster {
            return Err(BatchError::OtherCluster);
        }
        if flags & !HAS_MAC != 0 {
            return Err(BatchError::Flags { flags });
        }
        let signed = decode_mac(bytes, flags, secrets)?;
        let (_, entries) = signed
            .split_at_checked(HEADER_BYTES)
            .ok_or(BatchError::Header)?;
        check_frames(entries)?;
        Ok(Self { header, entries })
    }

    /// The entries in order.
    pub fn entries(&self) -> Entries<'a> {
        Entries {
            frames: Reader::new(self.entries),
            unknown: 0,
        }
    }
}

/// How many entries a batch has, before anything of it is believed; what cannot be read counts as one.
// Per entry: two numbers.
pub fn entries_of(bytes: &[u8]) -> u64 {
    let Ok((_, flags)) = Header::read(bytes) else {
        return 1;
    };
    let tag_bytes = if flags & HAS_MAC == 0 { 0 } else { TAG_BYTES };
    let end = bytes.len().saturating_sub(tag_bytes);
    let mut frames = Reader::new(bytes.get(HEADER_BYTES..end).unwrap_or_default());
    let mut count = 0;
    while !frames.is_empty() && read_frame(&mut frames).is_ok() {
        count += 1;
    }
    count.max(1)
}

/// What the MAC covers: all before it. Where there is no secret, a MAC is not looked at.
fn decode_mac<'a>(bytes: &'a [u8], flags: u8, secrets: &Secrets) -> Result<&'a [u8], BatchError> {
    if flags & HAS_MAC == 0 {
        return match secrets.is_empty() {
            true => Ok(bytes),
            false => Err(BatchError::NoMac),
        };
    }
    let (signed, tag): (_, &Tag) = bytes.split_last_chunk().ok_or(BatchError::Header)?;
    if secrets.is_empty() || secrets.verify(signed, tag) {
        return Ok(signed);
    }
    Err(BatchError::WrongMac)
}

fn check_frames(entries: &[u8]) -> Result<(), BatchError> {
    let mut frames = Reader::new(entries);
    let mut count = 0;
    while !frames.is_empty() {
        count += 1;
        if count > ENTRIES_MAX {
            return Err(BatchError::TooManyEntries);
        }
        read_frame(&mut frames).map_err(BatchError::Frame)?;
    }
    Ok(())
}

fn read_frame<'a>(frames: &mut Reader<'a>) -> Result<(u64, &'a [u8]), FieldError> {
    Ok((frames.varint()?, frames.bytes()?))
}

impl Header {
    /// What a batch says of itself, before anything of it is believed.
    pub fn peek(bytes: &[u8]) -> Result<Self, BatchError> {
        Self::read(bytes).map(|(header, _)| header)
    }

    fn read(bytes: &[u8]) -> Result<(Self, u8), BatchError> {
        let mut reader = Reader::new(bytes);
        let cut = |_| BatchError::Header;
        if reader.array().map_err(cut)? != MAGIC {
            return Err(BatchError::Foreign);
        }
        let [version, flags] = reader.array().map_err(cut)?;
        let version = Version(version);
        if !version.is_understood() {
            return Err(BatchError::Version { theirs: version });
        }
        let header = Self {
            version,
            lane: Lane(u16::from_be_bytes(reader.array().map_err(cut)?)),
            cluster: ClusterTag(u64::from_be_bytes(reader.array().map_err(cut)?)),
            sender: Identity {
                node: NodeId(u128::from_be_bytes(reader.array().map_err(cut)?)),
                incarnation: Incarnation(u64::from_be_bytes(reader.array().map_err(cut)?)),
            },
            number: u64::from_be_bytes(reader.array().map_err(cut)?),
        };
        Ok((header, flags))
    }

    fn write(&self, flags: u8, out: &mut Vec<u8>) {
        out.put(&MAGIC);
        out.put(&[self.version.0, flags]);
        out.put(&self.lane.0.to_be_bytes());
        out.put(&self.cluster.0.to_be_bytes());
        out.identity(self.sender);
        out.put(&self.number.to_be_bytes());
    }
}

/// The entries of a batch. Those of kinds that this version does not know are skipped and counted;
/// one that is broken is told, and the next follows.
#[derive(Clone, Debug)]
pub struct Entries<'a> {
    frames: Reader<'a>,
    unknown: usize,
}

impl Entries<'_> {
    /// How many were skipped so far.
    pub fn unknown(&self) -> usize {
        self.unknown
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<Entry<'a>, EntryError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.frames.is_empty() {
            let (kind, body) = read_frame(&mut self.frames).expect("checked by `decode`");
            match Entry::read(kind, body).transpose() {
                Some(entry) => return Some(entry),
                None => self.unknown += 1,
            }
        }
        None
    }
}

/// Puts a batch together.
#[derive(Debug)]
pub struct BatchWriter {
    bytes: Vec<u8>,
    entries: usize,
    is_signed: bool,
}

impl BatchWriter {
    /// Begins a batch in a buffer, whose content goes and whose memory stays.
    pub fn begin(header: &Header, secrets: &Secrets, mut buffer: Vec<u8>) -> Self {
        buffer.clear();
        let flags = if secrets.is_empty() { 0 } else { HAS_MAC };
        header.write(flags, &mut buffer);
        assert_eq!(buffer.len(), HEADER_BYTES);
        Self {
            bytes: buffer,
            entries: 0,
            is_signed: !secrets.is_empty(),
        }
    }

    /// Goes on with a batch that had so many entries. `None`: those are none that it can have.
    pub(super) fn resume(
        header: &Header,
        secrets: &Secrets,
        entries: usize,
        bytes: &[u8],
    ) -> Option<Self> {
        let is_short = HEADER_BYTES + bytes.len() + TAG_BYTES <= BATCH_BYTES_MAX;
        if !is_short || entries > ENTRIES_MAX || check_frames(bytes).is_err() {
            return None;
        }
        let mut batch = Self::begin(header, secrets, Vec::new());
        batch.bytes.put(bytes);
        batch.entries = entries;
        Some(batch)
    }

    /// How many there are, and their bytes.
    pub(super) fn entries(&self) -> (usize, &[u8]) {
        let entries = self.bytes.get(HEADER_BYTES..);
        (self.entries, entries.expect("a header stands in front"))
    }

    /// Adds an entry.
    // Per entry: its lengths are added up, then one copy of its bytes.
    pub fn push(&mut self, entry: &Entry<'_>) -> Result<(), PushError> {
        let mut measure = Measure::default();
        entry.write(&mut measure);
        if measure.name_bytes > NAME_BYTES_MAX {
            let bytes = measure.name_bytes;
            return Err(PushError::NameTooLong { bytes });
        }
        self.push_frame(entry.kind(), measure.bytes)?;
        let before = self.bytes.len();
        entry.write(&mut self.bytes);
        assert_eq!(self.bytes.len() - before, measure.bytes);
        Ok(())
    }

    /// Adds an entry of any kind, as a later version might.
    pub fn push_unknown(&mut self, kind: u64, body: &[u8]) -> Result<(), PushError> {
        self.push_frame(kind, body.len())?;
        self.bytes.put(body);
        Ok(())
    }

    fn push_frame(&mut self, kind: u64, body_bytes: usize) -> Result<(), PushError> {
        if body_bytes > BODY_BYTES_MAX {
            return Err(PushError::EntryTooLong { bytes: body_bytes });
        }
        let mut frame = Measure::default();
        frame.varint(kind);
        frame.varint(body_bytes as u64);
        let bytes = self.bytes.len() + frame.bytes + body_bytes + TAG_BYTES;
        if bytes > BATCH_BYTES_MAX || self.entries == ENTRIES_MAX {
            return Err(PushError::BatchFull);
        }
        self.entries += 1;
        self.bytes.varint(kind);
        self.bytes.varint(body_bytes as u64);
        Ok(())
    }

    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// Its bytes so far, without the MAC.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The batch, ready for the bus; with the secrets with which it began.
    pub fn finish(self, secrets: &Secrets) -> Vec<u8> {
        assert_eq!(self.is_signed, !secrets.is_empty());
        let mut bytes = self.bytes;
        if let Some(tag) = secrets.sign(&bytes) {
            bytes.put(&tag);
        }
        assert!(bytes.len() <= BATCH_BYTES_MAX);
        bytes
    }
}

/// Why bytes of the bus are no batch for us. Anything may be on a shared bus: the caller counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BatchError {
    #[error("{bytes} bytes: at most {BATCH_BYTES_MAX} are allowed")]
    TooLong { bytes: usize },
    #[error("ends inside the header")]
    Header,
    #[error("is no batch of Sockudo")]
    Foreign,
    #[error("version {} does not speak with version {}", .theirs.0, Version::OURS.0)]
    Version { theirs: Version },
    #[error("belongs to another cluster")]
    OtherCluster,
    #[error("has unknown flags: {flags:#04x}")]
    Flags { flags: u8 },
    #[error("has no MAC, and there is a secret")]
    NoMac,
    #[error("has a wrong MAC")]
    WrongMac,
    #[error("has more than {ENTRIES_MAX} entries")]
    TooManyEntries,
    #[error("entries: {0}")]
    Frame(FieldError),
}

/// Why an entry was not added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PushError {
    /// It is for the next batch.
    #[error("the batch is full")]
    BatchFull,
    #[error("an entry of {bytes} bytes: at most {BODY_BYTES_MAX} can travel")]
    EntryTooLong { bytes: usize },
    #[error("a name of {bytes} bytes: at most {NAME_BYTES_MAX} can travel")]
    NameTooLong { bytes: usize },
}

const MAGIC: [u8; 4] = *b"SKDO";
const HAS_MAC: u8 = 1;

/// Magic, version, flags, lane, cluster, sender, number.
pub const HEADER_BYTES: usize = 4 + 1 + 1 + 2 + 8 + 24 + 8;
/// What a server of NATS takes by default.
pub const BATCH_BYTES_MAX: usize = 1 << 20;
/// Of one entry that has a batch for itself. Every kind of ours has one byte.
pub const BODY_BYTES_MAX: usize = BATCH_BYTES_MAX - HEADER_BYTES - TAG_BYTES - 1 - LENGTH_BYTES_MAX;
/// Entries of a batch: what one costs whoever hears it.
pub const ENTRIES_MAX: usize = 16 << 10;
