//! Socket ids: `high.low`, the name that a connection has towards its client and the application's
//! servers.
//!
//! Owns: the grammar and the bounds of both parts.
//! May depend on: nothing.
//! Invariants: each part is at most `PART_MAX`, so a printed id has 3..=23 bytes and no leading
//! zeros.

use std::fmt;

use thiserror::Error;

/// The id of one connection. Holding one proves that both parts are in range, not that the
/// connection lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SocketId {
    high: u64,
    low: u64,
}

impl SocketId {
    /// Puts an id together from two random parts; `None` when one exceeds `PART_MAX`.
    pub fn new(high: u64, low: u64) -> Option<Self> {
        (high <= PART_MAX && low <= PART_MAX).then_some(Self { high, low })
    }

    pub fn high(self) -> u64 {
        self.high
    }

    pub fn low(self) -> u64 {
        self.low
    }

    /// Reads an id that an application's server sent.
    ///
    /// `Ok(None)` is an id of the right form (`^\d+\.\d+$`) that no connection of ours can have: a
    /// part is too large or has a leading zero. Excluding it from an event excludes nobody, which
    /// is not an error.
    pub fn parse(text: &str) -> Result<Option<Self>, SocketIdError> {
        let (high, low) = text.split_once('.').ok_or(SocketIdError)?;
        let part = |digits: &str| {
            if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
                return Err(SocketIdError);
            }
            let is_ours = digits == "0" || !digits.starts_with('0');
            Ok(digits.parse::<u64>().ok().filter(|_| is_ours))
        };
        let (high, low) = (part(high)?, part(low)?);
        Ok(high.zip(low).and_then(|(high, low)| Self::new(high, low)))
    }
}

impl fmt::Display for SocketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.high, self.low)
    }
}

/// A socket id must be two runs of digits with a dot between.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("socket_id must have the form 1234.5678")]
pub struct SocketIdError;

/// The largest value of each part (Pusher's server libraries check only the form; this is the
/// contract's range).
pub const PART_MAX: u64 = 10_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_may_be_exactly_ten_thousand_million() {
        for (part, accepted) in [
            (0, true),
            (PART_MAX - 1, true),
            (PART_MAX, true),
            (PART_MAX + 1, false),
        ] {
            assert_eq!(SocketId::new(part, 1).is_some(), accepted, "high {part}");
            assert_eq!(SocketId::new(1, part).is_some(), accepted, "low {part}");
        }
    }

    #[test]
    fn printed_ids_are_read_back() {
        for (high, low, text) in [
            (0, 0, "0.0"),
            (1234, 5678, "1234.5678"),
            (PART_MAX, PART_MAX, "10000000000.10000000000"),
        ] {
            let id = SocketId::new(high, low).expect(text);
            assert_eq!(id.to_string(), text);
            assert_eq!(SocketId::parse(text), Ok(Some(id)));
        }
    }

    #[test]
    fn an_id_of_the_right_form_that_none_of_ours_can_have_is_unknown() {
        for text in [
            "10000000001.1",
            "1.10000000001",
            "01.2",
            "1.00",
            "99999999999999999999999.1",
        ] {
            assert_eq!(SocketId::parse(text), Ok(None), "{text}");
        }
    }

    #[test]
    fn an_id_of_another_form_is_refused() {
        for text in [
            "", ".", "1", "1.", ".1", "1.2.3", "1.a", "-1.2", "+1.2", " 1.2", "1.2\n", "1,2", "١.٢",
        ] {
            assert_eq!(SocketId::parse(text), Err(SocketIdError), "{text:?}");
        }
    }
}
