//! What nodes tell each other. The bytes: a batch, or the entries of one.
//!
//! Owns: the framing of a batch told a second time; that what is read is written back; who is believed.
//! May depend on: `sockudo::cluster`.
//! Invariants: the secret has signed nothing that stands in an input, so whatever an input brings is forged.

use sockudo::cluster::entry::Entry;
use sockudo::cluster::identity::{ClusterTag, Identity, Incarnation, NodeId};
use sockudo::cluster::mac::Secrets;
use sockudo::cluster::wire::{
    BATCH_BYTES_MAX, Batch, BatchError, BatchWriter, ENTRIES_MAX, Header, Lane, Version,
};

pub fn check(bytes: &[u8]) {
    let none = Secrets::default();
    let mut batch = BatchWriter::begin(&header(), &none, Vec::new()).finish(&none);
    batch.extend(bytes);
    for batch in [bytes, &batch] {
        let secret = Secrets::new(["secret", "older secret"]);
        assert!(Batch::decode(batch, header().cluster, &secret).is_err());
        if let Ok(read) = Batch::decode(batch, header().cluster, &none) {
            read_back(&read, batch);
        }
    }
    let framed = matches!(frames(bytes), Some(count) if count <= ENTRIES_MAX);
    match Batch::decode(&batch, header().cluster, &none) {
        Ok(read) => {
            assert!(framed);
            assert_eq!(read.header, header());
        }
        Err(BatchError::TooLong { .. }) => {}
        Err(BatchError::TooManyEntries | BatchError::Frame(_)) => assert!(!framed),
        Err(error) => panic!("{error}"),
    }
}

/// What was understood, written anew, says the same; where nothing was skipped, in the same bytes.
fn read_back(batch: &Batch<'_>, bytes: &[u8]) {
    // A batch at its bound has no place for the MAC that a writer makes room for.
    if bytes.len() > BATCH_BYTES_MAX / 2 {
        return;
    }
    let mut entries = batch.entries();
    let read: Vec<_> = entries.by_ref().collect();
    let none = Secrets::default();
    let mut writer = BatchWriter::begin(&batch.header, &none, Vec::new());
    let understood: Vec<Entry<'_>> = read.iter().filter_map(|entry| entry.ok()).collect();
    for entry in &understood {
        writer.push(entry).expect("it came in a batch");
        changes_end(entry);
    }
    let written = writer.finish(&none);
    assert!(written.len() <= bytes.len(), "it was written shorter");
    let again = Batch::decode(&written, batch.header.cluster, &none).expect("our own");
    assert_eq!(again.header, batch.header);
    let again: Vec<_> = again
        .entries()
        .map(|entry| entry.expect("our own"))
        .collect();
    assert_eq!(again, understood);
    let is_whole = entries.unknown() == 0 && understood.len() == read.len();
    if is_whole && written.len() == bytes.len() {
        assert_eq!(written, bytes, "two spellings");
    }
}

/// A run of changes ends, and each change takes a byte at least.
fn changes_end(entry: &Entry<'_>) {
    if let Entry::Snapshot(snapshot) = entry {
        let mut writer = sockudo::cluster::change::ChangesWriter::default();
        for change in snapshot.changes.iter().flatten() {
            writer.push(&change).expect("it came in a batch");
        }
        let known: Vec<_> = snapshot.changes.iter().flatten().collect();
        let again: Vec<_> = writer.changes().iter().flatten().collect();
        assert_eq!(again, known);
    }
}

/// How many entries there are, if their frames fill the bytes.
fn frames(bytes: &[u8]) -> Option<usize> {
    let (mut at, mut count) = (0, 0);
    while at < bytes.len() {
        let _kind = number(bytes, &mut at)?;
        let length = number(bytes, &mut at)?;
        if length > (bytes.len() - at) as u128 {
            return None;
        }
        at += length as usize;
        count += 1;
    }
    Some(count)
}

/// A number in base 128, its lowest digit first, without needless digits.
fn number(bytes: &[u8], at: &mut usize) -> Option<u128> {
    let digits = bytes[*at..].iter().position(|byte| *byte < 128)? + 1;
    let spelling = &bytes[*at..*at + digits];
    *at += digits;
    if digits > 10 || (digits > 1 && spelling[digits - 1] == 0) {
        return None;
    }
    let value = spelling
        .iter()
        .rev()
        .fold(0, |value, digit| value * 128 + u128::from(digit & 127));
    (value <= u64::MAX.into()).then_some(value)
}

fn header() -> Header {
    Header {
        version: Version::OURS,
        lane: Lane(0),
        cluster: ClusterTag(0),
        sender: Identity {
            node: NodeId(0),
            incarnation: Incarnation(0),
        },
        number: 0,
    }
}
