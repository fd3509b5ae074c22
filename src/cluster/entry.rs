//! Data path. What a batch holds: events, news of the sender's state, questions between nodes.
//!
//! Owns: `Entry`, what its variants carry, their numbers and their form on the wire.
//! May depend on: `cluster::{change, field, identity}`, `protocol::{partition, socket_id}`, serde.
//! Invariants: an entry borrows from its batch; a kind's number and the order of its fields never
//! change: a later version adds fields at the end or takes a new number.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{
    change::{Change, Changes},
    field::{FieldError, Reader, Sink},
    identity::Identity,
};
use crate::protocol::{
    partition::{PARTITIONS, Partition},
    socket_id::SocketId,
};

/// One thing that a node tells others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry<'a> {
    Hello(Hello<'a>),
    Heartbeat(Heartbeat),
    /// The sender's life ends, and what it reported of itself with it.
    Goodbye,
    Event(Event<'a>),
    Delta(Delta<'a>),
    NumbersAsk(NumbersAsk),
    Latest(Latest),
    SnapshotAsk(SnapshotAsk),
    Snapshot(Snapshot<'a>),
    /// From the sender to itself: the bus works.
    Canary(Token),
    /// From the sender to itself: the topic on which it comes back is subscribed.
    Proof(Token),
    /// All connections of the user are to be closed.
    Terminate {
        app: &'a str,
        user_id: &'a str,
    },
    Spent(Spent<'a>),
    /// What is the channel's last event?
    KeptAsk(KeptAsk<'a>),
    Kept(Kept<'a>),
    /// An operator has changed apps in the store that all nodes ask: they are to be looked at again.
    AppsChanged,
}

/// Who the sender is, in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello<'a> {
    /// Its `cluster.node_id`.
    pub name: &'a str,
    /// The version of its program.
    pub program: &'a str,
}

/// The sender lives, and has numbered so many changes: for each group of partitions the sum of their
/// latest numbers. Whoever has heard all of them has the same sum.
// A number per partition would be 1 to 3 KB each second from each node; one for the whole node would
// mean nothing to a node that holds a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    pub sums: [u64; GROUPS],
    /// WebSocket connections that the sender has.
    pub connections: u64,
    /// Somebody has told what fell due before any node counted, as far as the sender knows.
    pub is_founded: bool,
}

/// A channel's event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    pub id: EventId,
    pub partition: Partition,
    pub app: &'a str,
    pub channel: &'a str,
    pub origin: Origin,
    /// The connection that does not get it.
    pub except: Option<SocketId>,
    /// The WebSocket frame, as clients get it.
    pub frame: &'a [u8],
}

/// An event of one life of a node, for whoever looks at the traffic: doubles are known by their batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventId(pub u64);

/// Who published an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    Api,
    /// A subscriber of the channel; a cache channel does not keep it.
    Client,
}

/// A change of the sender's state. The numbers of a partition begin at 1 and have no gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delta<'a> {
    pub partition: Partition,
    pub number: u64,
    pub change: Change<'a>,
}

/// Which numbers have the partitions of this group? Asked where the sum of a heartbeat is not reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NumbersAsk {
    /// Who is asked.
    pub of: Identity,
    pub group: Group,
}

/// The latest number of a partition: one of the answers to `NumbersAsk`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Latest {
    pub partition: Partition,
    pub number: u64,
}

/// What clients of the sender have used of an app's rates since it said so last. One that is lost is
/// a rate that is kept less well for a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spent<'a> {
    pub app: &'a str,
    /// Of `max_backend_events_per_second`.
    pub backend_events: u64,
    /// Of `max_read_requests_per_second`.
    pub reads: u64,
}

/// A question for a channel's last event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptAsk<'a> {
    /// Who is asked.
    pub of: Identity,
    pub app: &'a str,
    pub channel: &'a str,
}

/// A channel's last event: the answer to `KeptAsk`, on the topic of its partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept<'a> {
    pub partition: Partition,
    pub app: &'a str,
    pub channel: &'a str,
    /// For so long it is kept from now on.
    pub left_ms: u64,
    /// The WebSocket frame, as clients get it.
    pub frame: &'a [u8],
}

/// How does the partition stand? Asked where numbers are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotAsk {
    /// Who is asked.
    pub of: Identity,
    pub partition: Partition,
    /// The asker has heard all up to this number.
    pub from: u64,
}

/// A part of how a partition stands on the sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot<'a> {
    /// The parts with this id belong together.
    pub id: u64,
    pub partition: Partition,
    /// The changes up to this number are in it.
    pub number: u64,
    /// Which part this is, from 0.
    pub part: u64,
    pub rest: Rest,
    pub changes: Changes<'a>,
}

/// Whether parts follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    Follows,
    None,
}

/// What comes back to whoever sent it.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Hash, Serialize)]
pub struct Token(pub u64);

/// Partitions whose changes travel together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Group(u8);

impl Group {
    /// The one to which a partition belongs.
    pub fn of(partition: Partition) -> Self {
        let number = partition.number() / GROUP_PARTITIONS;
        Self(u8::try_from(number).expect("there are few groups"))
    }

    /// Its number, below `GROUPS`.
    pub const fn number(self) -> u8 {
        self.0
    }

    /// The one with this number; `None` where there is none.
    pub const fn from_number(number: u8) -> Option<Self> {
        if (number as usize) < GROUPS {
            Some(Self(number))
        } else {
            None
        }
    }

    /// Its partitions, in the order of their numbers.
    pub fn partitions(self) -> impl Iterator<Item = Partition> {
        let first = u16::from(self.0) * GROUP_PARTITIONS;
        (first..first + GROUP_PARTITIONS).filter_map(Partition::from_number)
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, FieldError> {
        let value = reader.varint()?;
        let group = u8::try_from(value).ok().and_then(Self::from_number);
        group.ok_or(FieldError::OutOfRange { value })
    }
}

const HELLO: u64 = 1;
const HEARTBEAT: u64 = 2;
const GOODBYE: u64 = 3;
const EVENT: u64 = 4;
const DELTA: u64 = 5;
const NUMBERS_ASK: u64 = 6;
const LATEST: u64 = 7;
const SNAPSHOT_ASK: u64 = 8;
const SNAPSHOT: u64 = 9;
const CANARY: u64 = 10;
const PROOF: u64 = 11;
const TERMINATE: u64 = 12;
const SPENT: u64 = 13;
const KEPT_ASK: u64 = 14;
const KEPT: u64 = 15;
const APPS_CHANGED: u64 = 16;

impl<'a> Entry<'a> {
    pub(super) fn kind(&self) -> u64 {
        match self {
            Self::Hello(_) => HELLO,
            Self::Heartbeat(_) => HEARTBEAT,
            Self::Goodbye => GOODBYE,
            Self::Event(_) => EVENT,
            Self::Delta(_) => DELTA,
            Self::NumbersAsk(_) => NUMBERS_ASK,
            Self::Latest(_) => LATEST,
            Self::SnapshotAsk(_) => SNAPSHOT_ASK,
            Self::Snapshot(_) => SNAPSHOT,
            Self::Canary(_) => CANARY,
            Self::Proof(_) => PROOF,
            Self::Terminate { .. } => TERMINATE,
            Self::Spent(_) => SPENT,
            Self::KeptAsk(_) => KEPT_ASK,
            Self::Kept(_) => KEPT,
            Self::AppsChanged => APPS_CHANGED,
        }
    }

    /// `None` is a kind that this version does not know. What stands behind the known fields is a
    /// later version's, and is skipped.
    pub(super) fn read(kind: u64, body: &'a [u8]) -> Result<Option<Self>, EntryError> {
        let fault = |fault| EntryError { kind, fault };
        Self::read_body(kind, &mut Reader::new(body)).map_err(fault)
    }

    fn read_body(kind: u64, body: &mut Reader<'a>) -> Result<Option<Self>, FieldError> {
        let entry = match kind {
            HELLO => Self::Hello(Hello {
                name: body.name()?,
                program: body.name()?,
            }),
            HEARTBEAT => Self::Heartbeat(Heartbeat::read(body)?),
            GOODBYE => Self::Goodbye,
            EVENT => Self::Event(Event::read(body)?),
            DELTA => Self::Delta(Delta {
                partition: body.partition()?,
                number: body.varint()?,
                change: Change::read(body)?,
            }),
            NUMBERS_ASK => Self::NumbersAsk(NumbersAsk {
                of: body.identity()?,
                group: Group::read(body)?,
            }),
            LATEST => Self::Latest(Latest {
                partition: body.partition()?,
                number: body.varint()?,
            }),
            SNAPSHOT_ASK => Self::SnapshotAsk(SnapshotAsk {
                of: body.identity()?,
                partition: body.partition()?,
                from: body.varint()?,
            }),
            SNAPSHOT => Self::Snapshot(Snapshot::read(body)?),
            CANARY => Self::Canary(Token(u64::from_be_bytes(body.array()?))),
            PROOF => Self::Proof(Token(u64::from_be_bytes(body.array()?))),
            TERMINATE => Self::Terminate {
                app: body.name()?,
                user_id: body.name()?,
            },
            SPENT => Self::Spent(Spent {
                app: body.name()?,
                backend_events: body.varint()?,
                reads: body.varint()?,
            }),
            KEPT_ASK => Self::KeptAsk(KeptAsk {
                of: body.identity()?,
                app: body.name()?,
                channel: body.name()?,
            }),
            KEPT => Self::Kept(Kept {
                partition: body.partition()?,
                app: body.name()?,
                channel: body.name()?,
                left_ms: body.varint()?,
                frame: body.bytes()?,
            }),
            APPS_CHANGED => Self::AppsChanged,
            _ => return Ok(None),
        };
        Ok(Some(entry))
    }

    pub(super) fn write(&self, out: &mut impl Sink) {
        match self {
            Self::Hello(hello) => {
                out.name(hello.name);
                out.name(hello.program);
            }
            Self::Heartbeat(heartbeat) => {
                heartbeat.sums.iter().for_each(|sum| out.varint(*sum));
                out.varint(heartbeat.connections);
                out.varint(if heartbeat.is_founded { IS_FOUNDED } else { 0 });
            }
            Self::Goodbye | Self::AppsChanged => {}
            Self::Event(event) => event.write(out),
            Self::Delta(delta) => {
                out.partition(delta.partition);
                out.varint(delta.number);
                delta.change.write(out);
            }
            Self::NumbersAsk(ask) => {
                out.identity(ask.of);
                out.varint(ask.group.0.into());
            }
            Self::Latest(latest) => {
                out.partition(latest.partition);
                out.varint(latest.number);
            }
            Self::SnapshotAsk(ask) => {
                out.identity(ask.of);
                out.partition(ask.partition);
                out.varint(ask.from);
            }
            Self::Snapshot(snapshot) => snapshot.write(out),
            Self::Canary(token) | Self::Proof(token) => out.put(&token.0.to_be_bytes()),
            Self::Terminate { app, user_id } => {
                out.name(app);
                out.name(user_id);
            }
            Self::Spent(spent) => {
                out.name(spent.app);
                out.varint(spent.backend_events);
                out.varint(spent.reads);
            }
            Self::KeptAsk(ask) => {
                out.identity(ask.of);
                out.name(ask.app);
                out.name(ask.channel);
            }
            Self::Kept(kept) => {
                out.partition(kept.partition);
                out.name(kept.app);
                out.name(kept.channel);
                out.varint(kept.left_ms);
                out.bytes(kept.frame);
            }
        }
    }
}

/// A heartbeat's flag.
const IS_FOUNDED: u64 = 1;

impl Heartbeat {
    fn read(body: &mut Reader<'_>) -> Result<Self, FieldError> {
        let mut sums = [0; GROUPS];
        for sum in &mut sums {
            *sum = body.varint()?;
        }
        Ok(Self {
            sums,
            connections: body.varint()?,
            is_founded: read_flags(body, IS_FOUNDED)? != 0,
        })
    }
}

impl<'a> Event<'a> {
    fn read(body: &mut Reader<'a>) -> Result<Self, FieldError> {
        let id = EventId(body.varint()?);
        let partition = body.partition()?;
        let app = body.name()?;
        let channel = body.name()?;
        let flags = read_flags(body, FROM_CLIENT | HAS_EXCEPT)?;
        let except = match flags & HAS_EXCEPT {
            0 => None,
            _ => Some(read_socket_id(body)?),
        };
        Ok(Self {
            id,
            partition,
            app,
            channel,
            origin: match flags & FROM_CLIENT {
                0 => Origin::Api,
                _ => Origin::Client,
            },
            except,
            frame: body.bytes()?,
        })
    }

    fn write(&self, out: &mut impl Sink) {
        out.varint(self.id.0);
        out.partition(self.partition);
        out.name(self.app);
        out.name(self.channel);
        let from_client = match self.origin {
            Origin::Api => 0,
            Origin::Client => FROM_CLIENT,
        };
        match self.except {
            None => out.varint(from_client),
            Some(except) => {
                out.varint(from_client | HAS_EXCEPT);
                out.varint(except.high());
                out.varint(except.low());
            }
        }
        out.bytes(self.frame);
    }
}

impl<'a> Snapshot<'a> {
    fn read(body: &mut Reader<'a>) -> Result<Self, FieldError> {
        Ok(Self {
            id: body.varint()?,
            partition: body.partition()?,
            number: body.varint()?,
            part: body.varint()?,
            rest: match read_flags(body, IS_LAST)? {
                0 => Rest::Follows,
                _ => Rest::None,
            },
            changes: Changes::of_encoded(body.bytes()?),
        })
    }

    fn write(&self, out: &mut impl Sink) {
        out.varint(self.id);
        out.partition(self.partition);
        out.varint(self.number);
        out.varint(self.part);
        out.varint(match self.rest {
            Rest::Follows => 0,
            Rest::None => IS_LAST,
        });
        out.bytes(self.changes.encoded());
    }
}

/// Flags say how to read on, so one that is not known is refused.
fn read_flags(body: &mut Reader<'_>, known: u64) -> Result<u64, FieldError> {
    match body.varint()? {
        flags if flags & !known == 0 => Ok(flags),
        value => Err(FieldError::OutOfRange { value }),
    }
}

fn read_socket_id(body: &mut Reader<'_>) -> Result<SocketId, FieldError> {
    let (high, low) = (body.varint()?, body.varint()?);
    let value = high.max(low);
    SocketId::new(high, low).ok_or(FieldError::OutOfRange { value })
}

/// An entry of a known kind that is not what that kind must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("entry of kind {kind}: {fault}")]
pub struct EntryError {
    pub kind: u64,
    pub fault: FieldError,
}

const FROM_CLIENT: u64 = 1;
const HAS_EXCEPT: u64 = 2;
const IS_LAST: u64 = 1;

/// Groups of partitions: each has a topic for its changes, and a sum in each heartbeat.
pub const GROUPS: usize = GROUP_COUNT as usize;
/// The same as lanes and partitions are counted.
pub const GROUP_COUNT: u16 = 16;
pub const GROUP_PARTITIONS: u16 = PARTITIONS / GROUP_COUNT;
const _: () = assert!(GROUP_COUNT * GROUP_PARTITIONS == PARTITIONS);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_partition_is_in_one_group() {
        let all = (0..PARTITIONS).filter_map(Partition::from_number);
        let mut members = [0; GROUPS];
        for partition in all {
            let group = Group::of(partition);
            assert!(group.partitions().any(|member| member == partition));
            members[usize::from(group.number())] += 1;
        }
        assert_eq!(members, [GROUP_PARTITIONS; GROUPS]);
    }
}
