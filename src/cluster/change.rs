//! What can change in the part of the cluster's state that one node reports of itself.
//!
//! Owns: `Change`, its form on the wire, a run of them (`Changes`, `ChangesWriter`).
//! May depend on: `cluster::field`.
//! Invariants: a change says what is so now on the sender, not by how much it differs, so that
//! hearing it twice is hearing it once; one that this version does not know is told from a broken
//! one.

use super::field::{FieldError, Measure, NAME_BYTES_MAX, Reader, Sink};

/// One thing that is so on the sender from now on. Apps and channels travel by their ids and names,
/// since an index means nothing elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    /// So many of the sender's connections subscribe to the channel; none: it is vacant there.
    Subscriptions {
        app: &'a str,
        channel: &'a str,
        count: u64,
    },
    /// The user is a member of the presence channel, with this `user_info` as JSON.
    MemberJoined {
        app: &'a str,
        channel: &'a str,
        user_id: &'a str,
        user_info: &'a str,
    },
    MemberLeft {
        app: &'a str,
        channel: &'a str,
        user_id: &'a str,
    },
    /// The user is signed in on a connection of the sender.
    UserOnline {
        app: &'a str,
        user_id: &'a str,
    },
    UserOffline {
        app: &'a str,
        user_id: &'a str,
    },
    /// So many connections of the app are on the sender.
    Connections {
        app: &'a str,
        count: u64,
    },
    /// Of a later version. It has its place in the numbers of its partition all the same.
    Unknown {
        tag: u64,
    },
}

const SUBSCRIPTIONS: u64 = 1;
const MEMBER_JOINED: u64 = 2;
const MEMBER_LEFT: u64 = 3;
const USER_ONLINE: u64 = 4;
const USER_OFFLINE: u64 = 5;
const CONNECTIONS: u64 = 6;

impl<'a> Change<'a> {
    /// What stands behind the fields is a later version's, and is skipped.
    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, FieldError> {
        let change = match reader.varint()? {
            SUBSCRIPTIONS => Self::Subscriptions {
                app: reader.name()?,
                channel: reader.name()?,
                count: reader.varint()?,
            },
            MEMBER_JOINED => Self::MemberJoined {
                app: reader.name()?,
                channel: reader.name()?,
                user_id: reader.name()?,
                user_info: reader.text()?,
            },
            MEMBER_LEFT => Self::MemberLeft {
                app: reader.name()?,
                channel: reader.name()?,
                user_id: reader.name()?,
            },
            USER_ONLINE => Self::UserOnline {
                app: reader.name()?,
                user_id: reader.name()?,
            },
            USER_OFFLINE => Self::UserOffline {
                app: reader.name()?,
                user_id: reader.name()?,
            },
            CONNECTIONS => Self::Connections {
                app: reader.name()?,
                count: reader.varint()?,
            },
            tag => Self::Unknown { tag },
        };
        Ok(change)
    }

    pub(super) fn write(&self, out: &mut impl Sink) {
        match *self {
            Self::Subscriptions {
                app,
                channel,
                count,
            } => {
                out.varint(SUBSCRIPTIONS);
                out.name(app);
                out.name(channel);
                out.varint(count);
            }
            Self::MemberJoined {
                app,
                channel,
                user_id,
                user_info,
            } => {
                out.varint(MEMBER_JOINED);
                out.name(app);
                out.name(channel);
                out.name(user_id);
                out.text(user_info);
            }
            Self::MemberLeft {
                app,
                channel,
                user_id,
            } => {
                out.varint(MEMBER_LEFT);
                out.name(app);
                out.name(channel);
                out.name(user_id);
            }
            Self::UserOnline { app, user_id } => {
                out.varint(USER_ONLINE);
                out.name(app);
                out.name(user_id);
            }
            Self::UserOffline { app, user_id } => {
                out.varint(USER_OFFLINE);
                out.name(app);
                out.name(user_id);
            }
            Self::Connections { app, count } => {
                out.varint(CONNECTIONS);
                out.name(app);
                out.varint(count);
            }
            Self::Unknown { tag } => out.varint(tag),
        }
    }
}

/// Changes one after another, each with its length in front: the content of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changes<'a> {
    encoded: &'a [u8],
}

impl<'a> Changes<'a> {
    pub(super) fn of_encoded(encoded: &'a [u8]) -> Self {
        Self { encoded }
    }

    pub(super) fn encoded(self) -> &'a [u8] {
        self.encoded
    }

    /// Each change, or why it cannot be read; a length that leads out of the run ends it.
    pub fn iter(self) -> impl Iterator<Item = Result<Change<'a>, FieldError>> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let (change, next) = self.read_at(at)?;
            at = next;
            Some(change)
        })
    }

    /// The change that begins there, and where the next one does; `None`: it is the end.
    pub(super) fn read_at(self, at: usize) -> Option<(Result<Change<'a>, FieldError>, usize)> {
        let rest = self.encoded.get(at..).filter(|rest| !rest.is_empty())?;
        let mut reader = Reader::new(rest);
        let record = reader.bytes();
        let next = match record {
            Ok(_) => self.encoded.len() - reader.bytes_left(),
            Err(_) => self.encoded.len(),
        };
        Some((
            record.and_then(|record| Change::read(&mut Reader::new(record))),
            next,
        ))
    }
}

/// Puts the changes of a snapshot's part together. The buffer is reused from part to part.
#[derive(Debug, Default)]
pub struct ChangesWriter {
    encoded: Vec<u8>,
}

impl ChangesWriter {
    /// Adds a change. One that has no place any more is for the next part.
    pub fn push(&mut self, change: &Change<'_>) -> Result<(), ChangeRefused> {
        let mut measure = Measure::default();
        change.write(&mut measure);
        let bytes = measure.bytes + LENGTH_BYTES_MAX;
        if measure.name_bytes > NAME_BYTES_MAX || bytes > CHANGES_BYTES_MAX {
            return Err(ChangeRefused::NeverFits);
        }
        if self.encoded.len() + bytes > CHANGES_BYTES_MAX {
            return Err(ChangeRefused::PartFull);
        }
        self.encoded.varint(measure.bytes as u64);
        change.write(&mut self.encoded);
        Ok(())
    }

    pub fn changes(&self) -> Changes<'_> {
        Changes::of_encoded(&self.encoded)
    }

    pub fn is_empty(&self) -> bool {
        self.encoded.is_empty()
    }

    /// Begins the next part.
    pub fn clear(&mut self) {
        self.encoded.clear();
    }
}

/// Why a change was not added to a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeRefused {
    PartFull,
    /// No part takes it: a name or a `user_info` is too long to travel.
    NeverFits,
}

/// Bytes of a snapshot's part. Half a batch, so that the lane's other entries are not held up long.
pub const CHANGES_BYTES_MAX: usize = 512 << 10;

/// Bytes of a length within a batch: a varint of 28 bits.
pub(super) const LENGTH_BYTES_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_takes_changes_until_it_is_full() {
        let text = "x".repeat(CHANGES_BYTES_MAX);
        let change = |info_bytes| Change::MemberJoined {
            app: "a",
            channel: "presence-c",
            user_id: "u",
            user_info: &text[..info_bytes],
        };
        // Tag, names, three bytes of the info's length, and the place of the change's own.
        let around = 1 + 2 + 11 + 2 + 3 + LENGTH_BYTES_MAX;
        for (info_bytes, expected) in [
            (CHANGES_BYTES_MAX - around - 1, Ok(())),
            (CHANGES_BYTES_MAX - around, Ok(())),
            (
                CHANGES_BYTES_MAX - around + 1,
                Err(ChangeRefused::NeverFits),
            ),
        ] {
            let mut part = ChangesWriter::default();
            assert_eq!(part.push(&change(info_bytes)), expected, "{info_bytes}");
        }
        let mut part = ChangesWriter::default();
        let half = change(CHANGES_BYTES_MAX / 2 - around);
        assert_eq!(part.push(&half), Ok(()));
        assert_eq!(part.push(&half), Ok(()));
        assert_eq!(part.push(&half), Err(ChangeRefused::PartFull));
        assert_eq!(part.changes().iter().collect::<Vec<_>>(), [Ok(half); 2]);
        part.clear();
        assert!(part.is_empty());
        assert_eq!(part.push(&half), Ok(()));

        let name = "x".repeat(NAME_BYTES_MAX + 1);
        let nobody = Change::UserOnline {
            app: "a",
            user_id: &name,
        };
        assert_eq!(part.push(&nobody), Err(ChangeRefused::NeverFits));
    }

    #[test]
    fn what_a_later_version_adds_is_skipped_and_what_is_broken_is_told() {
        let online = b"\x04\x01a\x01u";
        let run = [
            &b"\x05"[..],
            online, // As we know it.
            b"\x07",
            online,
            b"\xFF\xFF",         // With more behind.
            b"\x03\x7F\x01\x02", // A change that we do not know.
            b"\x02\x04\x05",     // A name that leads out of the change.
            b"\x05",
            online,
            b"\x06",
            online, // A length that leads out of the run.
        ];
        let run = run.concat();
        let known = Change::UserOnline {
            app: "a",
            user_id: "u",
        };
        let found: Vec<_> = Changes::of_encoded(&run).iter().collect();
        let expected = [
            Ok(known),
            Ok(known),
            Ok(Change::Unknown { tag: 0x7F }),
            Err(FieldError::Cut),
            Ok(known),
            Err(FieldError::Cut),
        ];
        assert_eq!(found, expected);
    }
}
