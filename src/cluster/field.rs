//! Data path. What entries are made of: numbers of varying length, bounded texts, runs of bytes.
//!
//! Owns: `Reader`, `Sink`, `FieldError`, the spelling of each field.
//! May depend on: `protocol::partition`.
//! Invariants: a length is checked before it is used; a value has one spelling; reading allocates
//! nothing and never panics.

use std::str;

use thiserror::Error;

use super::identity::{Identity, Incarnation, NodeId};
use crate::protocol::partition::Partition;

/// Takes one field after another from the front.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn bytes_left(&self) -> usize {
        self.rest.len()
    }

    /// Seven bits per byte, the lowest first; a set top bit says that more follow.
    pub(super) fn varint(&mut self) -> Result<u64, FieldError> {
        let mut value = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let (&byte, rest) = self.rest.split_first().ok_or(FieldError::Cut)?;
            self.rest = rest;
            let bits = u64::from(byte & 0x7F);
            // The tenth byte has place for one bit.
            if bits << shift >> shift != bits {
                return Err(FieldError::Varint);
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                let is_shortest = byte != 0 || shift == 0;
                return is_shortest.then_some(value).ok_or(FieldError::Varint);
            }
        }
        Err(FieldError::Varint)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], FieldError> {
        let (array, rest) = self.rest.split_first_chunk().ok_or(FieldError::Cut)?;
        self.rest = rest;
        Ok(*array)
    }

    /// A length and so many bytes.
    pub(super) fn bytes(&mut self) -> Result<&'a [u8], FieldError> {
        let length = self.varint()?;
        let length = usize::try_from(length).map_err(|_| FieldError::Cut)?;
        let (bytes, rest) = self.rest.split_at_checked(length).ok_or(FieldError::Cut)?;
        self.rest = rest;
        Ok(bytes)
    }

    /// Text that only the batch bounds.
    pub(super) fn text(&mut self) -> Result<&'a str, FieldError> {
        str::from_utf8(self.bytes()?).map_err(|_| FieldError::NotUtf8)
    }

    /// The name or id of something.
    pub(super) fn name(&mut self) -> Result<&'a str, FieldError> {
        let name = self.text()?;
        match name.len() {
            0..=NAME_BYTES_MAX => Ok(name),
            bytes => Err(FieldError::NameTooLong { bytes }),
        }
    }

    pub(super) fn partition(&mut self) -> Result<Partition, FieldError> {
        let number = self.varint()?;
        let partition = u16::try_from(number).ok().and_then(Partition::from_number);
        partition.ok_or(FieldError::OutOfRange { value: number })
    }

    pub(super) fn identity(&mut self) -> Result<Identity, FieldError> {
        Ok(Identity {
            node: NodeId(u128::from_be_bytes(self.array()?)),
            incarnation: Incarnation(u64::from_be_bytes(self.array()?)),
        })
    }
}

/// Where fields go: into a batch, or only to be measured.
pub(super) trait Sink {
    fn put(&mut self, bytes: &[u8]);

    fn varint(&mut self, value: u64) {
        let mut rest = value;
        while rest >= 0x80 {
            self.put(&[(rest & 0x7F) as u8 | 0x80]);
            rest >>= 7;
        }
        self.put(&[(rest & 0x7F) as u8]);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.varint(bytes.len() as u64);
        self.put(bytes);
    }

    fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    fn name(&mut self, name: &str) {
        self.text(name);
    }

    fn partition(&mut self, partition: Partition) {
        self.varint(partition.number().into());
    }

    fn identity(&mut self, identity: Identity) {
        self.put(&identity.node.0.to_be_bytes());
        self.put(&identity.incarnation.0.to_be_bytes());
    }
}

impl Sink for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// How long fields would be, and whether a reader would take them.
#[derive(Debug, Default)]
pub(super) struct Measure {
    pub(super) bytes: usize,
    /// Length of the longest name.
    pub(super) name_bytes: usize,
}

impl Sink for Measure {
    fn put(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len();
    }

    fn name(&mut self, name: &str) {
        self.name_bytes = self.name_bytes.max(name.len());
        self.text(name);
    }
}

/// Why a field cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FieldError {
    #[error("ends inside a field")]
    Cut,
    #[error("a number is over 64 bits or has a longer form than it needs")]
    Varint,
    #[error("a name has {bytes} bytes: at most {NAME_BYTES_MAX} are allowed")]
    NameTooLong { bytes: usize },
    #[error("a text is not UTF-8")]
    NotUtf8,
    #[error("{value} is out of its field's range")]
    OutOfRange { value: u64 },
}

/// Longest id of an app or a user, longest name of a channel or a node, in bytes. Far above the
/// defaults of the configuration, which may lift its own limits.
pub const NAME_BYTES_MAX: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_number_has_one_spelling() {
        for (value, spelling) in [
            (0, &b"\x00"[..]),
            (1, b"\x01"),
            (127, b"\x7F"),
            (128, b"\x80\x01"),
            (300, b"\xAC\x02"),
            (16_383, b"\xFF\x7F"),
            (16_384, b"\x80\x80\x01"),
            (u64::MAX, b"\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01"),
        ] {
            let mut bytes = Vec::new();
            bytes.varint(value);
            assert_eq!(bytes, spelling, "{value}");
            let mut reader = Reader::new(spelling);
            assert_eq!(reader.varint(), Ok(value));
            assert!(reader.is_empty());
        }
        for (spelling, error) in [
            (&b""[..], FieldError::Cut),
            (b"\x80", FieldError::Cut),
            (b"\x80\x00", FieldError::Varint),
            (b"\xFF\x80\x00", FieldError::Varint),
            (
                b"\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x02",
                FieldError::Varint,
            ),
            (
                b"\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x81\x00",
                FieldError::Varint,
            ),
        ] {
            assert_eq!(Reader::new(spelling).varint(), Err(error), "{spelling:X?}");
        }
    }

    #[test]
    fn a_name_may_have_exactly_the_limit_in_bytes() {
        for (bytes, accepted) in [
            (NAME_BYTES_MAX - 1, true),
            (NAME_BYTES_MAX, true),
            (NAME_BYTES_MAX + 1, false),
        ] {
            let mut out = Vec::new();
            out.name(&"x".repeat(bytes));
            assert_eq!(Reader::new(&out).name().is_ok(), accepted, "{bytes} bytes");
        }
    }

    #[test]
    fn what_is_out_of_range_or_no_text_is_refused() {
        let refused = FieldError::OutOfRange { value: 1_024 };
        assert_eq!(Reader::new(b"\x80\x08").partition(), Err(refused));
        assert_eq!(Reader::new(b"\x01\xFF").text(), Err(FieldError::NotUtf8));
        assert_eq!(Reader::new(b"\x02a").text(), Err(FieldError::Cut));
        let endless = b"\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01a";
        assert_eq!(Reader::new(endless).bytes(), Err(FieldError::Cut));
    }

    proptest! {
        #[test]
        fn every_number_is_read_back(value: u64) {
            let (mut bytes, mut measure) = (Vec::new(), Measure::default());
            bytes.varint(value);
            measure.varint(value);
            prop_assert_eq!(measure.bytes, bytes.len());
            prop_assert_eq!(Reader::new(&bytes).varint(), Ok(value));
        }
    }
}
