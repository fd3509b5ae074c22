//! The records that are handed over.
//!
//! Owns: `ConnectionRecord`, `HomeRecord`, `LimitsRecord`, `OwnedRecord`, `WebhookRecord` and their parts, how they are written and read; the
//! batches in which shards and the bridge pass them on, and `OnTheWay`, how much of those waits.
//! May depend on: serde, MessagePack, `http::body`, `shards` for what the runtime carries.
//! Invariants: every time is one of the node's clock, whose origin is handed over too; every field beyond
//! the first version's has a default.

use std::{
    net::IpAddr,
    os::fd::{OwnedFd, RawFd},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use shards::{Carried, SharedFrame};
use thiserror::Error;

use crate::http::body::ChunkedBody;

/// One connection, whatever it does.
#[derive(Debug, Deserialize, Serialize)]
pub struct ConnectionRecord {
    /// What the runtime holds of it.
    pub carried: Carried,
    /// The id of its app, once that is known.
    pub app: Option<String>,
    pub stage: Stage,
    pub is_authorized: bool,
    /// It counts in its app's, and in the node's, number of connections.
    pub is_counted_by_app: bool,
    pub is_counted_by_node: bool,
    /// Seconds of the node's clock.
    pub opened_at_s: u32,
    /// Both parts of its socket id; zeros before there is one.
    pub socket_id: (u64, u64),
    /// When what is awaited must be here, milliseconds.
    pub until_ms: u64,
    pub silence: Silence,
    /// Missing thousandths of tokens, and when that was so, in milliseconds.
    pub client_events: (u64, u64),
    pub memberships_rate: (u64, u64),
    /// The message that came in part.
    pub fragments: Option<Fragments>,
    /// Input that was not handled yet.
    #[serde(with = "serde_bytes")]
    pub input: Vec<u8>,
    /// Its input is held because it subscribed too fast.
    pub is_throttled: bool,
    pub throttled_until_ms: Option<u64>,
    pub authorize_by_ms: Option<u64>,
    /// Of an HTTP connection: whose it is.
    pub peer: Option<IpAddr>,
    pub body: Option<BodyRecord>,
    pub subscriptions: Vec<SubscriptionRecord>,
    pub user: Option<UserRecord>,
    /// An answer was awaited that did not come in time: it cannot go on.
    pub is_stuck: bool,
}

/// What a connection is doing.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub enum Stage {
    ProxyHeader,
    /// HTTP; true: a request has begun.
    Http(bool),
    Upgrading,
    /// WebSocket; true: a message has begun.
    Open(bool),
    Closing,
}

/// When it was heard last, or by when it must answer a ping; milliseconds.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub enum Silence {
    Heard(u64),
    Pinged(u64),
}

/// The part of a fragmented message that is here.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Fragments {
    pub is_text: bool,
    #[serde(with = "serde_bytes")]
    pub payload: Vec<u8>,
}

/// A request's body under way.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct BodyRecord {
    #[serde(with = "serde_bytes")]
    pub head: Vec<u8>,
    pub coding: CodingRecord,
    /// What has come of it; none: it is thrown away.
    pub kept: Option<serde_bytes::ByteBuf>,
    pub began_at_ms: u64,
    pub received_bytes: u64,
    pub body_bytes: u64,
}

/// How a body's end is found.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub enum CodingRecord {
    /// Bytes that are still to come.
    Length(u64),
    Chunked(ChunkedBody),
}

/// A channel that a connection is subscribed to.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct SubscriptionRecord {
    pub channel: String,
    /// As whom, on a presence channel; what is told of it stands in the channel's record.
    pub user_id: Option<String>,
}

/// As whom a connection is signed in.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct UserRecord {
    pub user_id: String,
    pub info: String,
    pub watchlist: Vec<String>,
    pub is_known: bool,
}

/// What belongs to no connection.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub enum StateRecord {
    Home(HomeRecord),
    Limits(LimitsRecord),
    User(UserOfNodesRecord),
    Owned(OwnedRecord),
}

/// A channel, as its home has it, beside its subscribers.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub struct HomeRecord {
    pub app: String,
    pub channel: String,
    /// Ids and infos of a presence channel's members.
    pub members: Vec<(String, String)>,
    pub kept: Option<KeptRecord>,
    pub vacate_at_ms: Option<u64>,
    /// Who left and is not told of yet, and when that is due, in its order.
    pub departures: Vec<(String, u64)>,
    pub miss_quiet_until_ms: u64,
    pub count_at_ms: Option<u64>,
    pub count_quiet_until_ms: u64,
    /// Only on a node with others.
    #[serde(default)]
    pub nodes: Option<HomeOfNodesRecord>,
}

/// What a channel's home and the other nodes know of each other.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default)]
pub struct HomeOfNodesRecord {
    /// Subscriptions here that they know of.
    pub told: u32,
    /// They know that the last event is kept here.
    pub is_kept_told: bool,
    /// Subscriptions on all of them.
    pub elsewhere: u32,
    /// One of them keeps the last event.
    pub is_kept_elsewhere: bool,
    /// Ids and infos of members on them.
    pub members: Vec<(String, String)>,
}

/// What a user's home and the other nodes know of each other.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default)]
pub struct UserOfNodesRecord {
    pub app: String,
    pub user_id: String,
    /// They know that it is here.
    pub is_told: bool,
    /// One of them has it.
    pub is_elsewhere: bool,
}

/// Whose webhooks a shard tells, and what fell due of those of others.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default)]
pub struct OwnedRecord {
    pub is_known: bool,
    /// A bit for each partition, in words of 64.
    pub partitions: Vec<u64>,
    pub since_ms: u64,
    pub until_ms: u64,
    pub kept: Vec<KeptHookRecord>,
}

/// A webhook that another node is to tell, or this one if that dies.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct KeptHookRecord {
    pub at_ms: u64,
    pub partition: u16,
    pub app: String,
    /// Wall clock, milliseconds since the Unix epoch.
    pub time_ms: u64,
    pub channel: String,
    pub kind: HookRecord,
}

/// What a webhook of a channel tells.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub enum HookRecord {
    ChannelOccupied,
    ChannelVacated,
    MemberAdded(String),
    MemberRemoved(String),
    CacheMiss,
    SubscriptionCount(u64),
}

/// A cache channel's last event.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct KeptRecord {
    #[serde(with = "serde_bytes")]
    pub frame: Vec<u8>,
    pub data_start: u32,
    pub data_bytes: u32,
    pub expires_at_ms: u64,
}

/// What of rates is used up.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub struct LimitsRecord {
    pub apps: Vec<AppRatesRecord>,
    pub addresses: Vec<WindowRecord>,
    /// Of rates that are counted in a store.
    #[serde(default)]
    pub leases: Vec<LeaseRecord>,
}

/// Of an app: thousandths of tokens that are missing, and when that was so (milliseconds).
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct AppRatesRecord {
    pub app: String,
    pub backend_events: (u64, u64),
    pub reads: (u64, u64),
    /// Connections on the other nodes.
    #[serde(default)]
    pub elsewhere: u64,
    /// Backend events and reads that they were not told of.
    #[serde(default)]
    pub spent: [u32; 2],
}

/// What was taken in advance of a rate that nodes count together, and what its store said last.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct LeaseRecord {
    pub of: LeaseOf,
    pub left: u32,
    pub left_until_ms: u64,
    /// Nothing is there until then.
    pub denied_until_ms: u64,
    pub again_at_ms: u64,
    pub remaining: u32,
    pub whole_at_ms: u64,
}

/// Whose rate; of an app by its id.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub enum LeaseOf {
    Api(IpAddr),
    Upgrade(IpAddr),
    BackendEvents(String),
    Reads(String),
}

/// Requests of an address in a window that is open.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct WindowRecord {
    pub address: IpAddr,
    /// It counts connections, not requests of the API.
    pub is_of_upgrades: bool,
    pub count: u32,
    pub ends_at_ms: u64,
}

/// Why a record cannot be had.
#[derive(Debug, Error)]
pub enum RecordError {
    #[error("cannot be written: {0}")]
    Written(#[from] rmp_serde::encode::Error),
    #[error("cannot be read: {0}")]
    Read(#[from] rmp_serde::decode::Error),
}

/// The bytes of a record.
///
/// # Errors
/// What it holds cannot be written, which no record's can.
pub fn write(record: &impl Serialize) -> Result<Vec<u8>, RecordError> {
    Ok(rmp_serde::to_vec_named(record)?)
}

/// The record that bytes hold.
///
/// # Errors
/// They are no such record.
pub fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, RecordError> {
    Ok(rmp_serde::from_slice(bytes)?)
}

/// A part of what the memory queue of webhooks holds.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub enum WebhookRecord {
    Failing(FailingRecord),
    Job(JobRecord),
    Letter(LetterRecord),
}

/// A target that failed when it was tried last.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default)]
pub struct FailingRecord {
    pub app: String,
    /// As every node calls it.
    pub target: String,
    /// Since the last success.
    pub failures: u32,
    /// It is left alone until then.
    pub resumes_ms: u64,
}

/// One request to one target.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default)]
pub struct JobRecord {
    /// As in a queue that nodes share.
    #[serde(with = "serde_bytes")]
    pub text: Vec<u8>,
    /// Of the queue's clock, as all its times.
    pub created_ms: u64,
    /// When it is to be tried again; `None` for one that was not tried.
    pub due_ms: Option<u64>,
    /// The process before is trying it: by this number it tells how that ended.
    pub under_way: Option<u64>,
}

/// A webhook that was given up.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default)]
pub struct LetterRecord {
    pub id: u64,
    #[serde(with = "serde_bytes")]
    pub text: Vec<u8>,
}

/// Connections of one batch at most: what one message of the socket between the processes takes.
pub const BATCH_CONNECTIONS_MAX: usize = 64;

/// A part of what a shard holds, for the next process. All parts with `state` or `frames` come before those with
/// connections.
#[derive(Clone, Debug, Default)]
pub struct Exported {
    /// Sockets, which stay this process', and the written records of their connections.
    pub connections: Vec<(RawFd, Vec<u8>)>,
    /// Written `StateRecord`s.
    pub state: Vec<Vec<u8>>,
    /// What several connections wait for; their records refer to it.
    pub frames: Vec<SharedFrame>,
    /// All that belongs to no connection is told: `FromBridge::ExportConnections` is awaited.
    pub is_state_told: bool,
    /// Connections of this part that cannot follow.
    pub left: u64,
    /// Connections of this part whose answer is awaited still: they follow, and are closed there.
    pub stuck: u64,
    pub is_last: bool,
}

impl Exported {
    /// Bytes of all that it tells.
    pub fn bytes(&self) -> usize {
        let records = self.connections.iter().map(|(_, record)| record.len());
        let state = self.state.iter().map(Vec::len);
        let frames = self.frames.iter().map(|frame| frame.bytes.len());
        records.chain(state).chain(frames).sum()
    }

    /// It tells nothing at all.
    pub fn is_empty(&self) -> bool {
        let says = self.is_state_told || self.is_last || self.left > 0;
        !says && self.connections.is_empty() && self.state.is_empty() && self.frames.is_empty()
    }
}

/// A part of what another process held.
#[derive(Debug, Default)]
pub struct Import {
    pub connections: Vec<(OwnedFd, Vec<u8>)>,
    /// Of the whole node: each shard takes what is its own.
    pub state: Arc<[Vec<u8>]>,
    /// Connections that follow may refer to them.
    pub frames: Arc<[SharedFrame]>,
    /// Nothing follows; `ToBridge::Imported` is the answer.
    pub is_last: bool,
    /// Dropped with it: its bytes wait no longer.
    pub on_the_way: Option<Arc<OnTheWay>>,
}

/// Bytes that wait until all shards have put them in their place.
#[derive(Debug)]
pub struct OnTheWay {
    bytes: usize,
    waiting: Arc<AtomicUsize>,
}

impl OnTheWay {
    /// Adds them to those that wait.
    pub fn new(bytes: usize, waiting: &Arc<AtomicUsize>) -> Arc<Self> {
        waiting.fetch_add(bytes, Ordering::Relaxed);
        Arc::new(Self {
            bytes,
            waiting: Arc::clone(waiting),
        })
    }
}

impl Drop for OnTheWay {
    fn drop(&mut self) {
        self.waiting.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use shards::CarriedFrame;

    use super::*;

    /// As the version before had it.
    #[derive(Debug, Default, Deserialize, PartialEq, Serialize)]
    #[serde(default)]
    struct OlderCarried {
        unsent: Vec<OlderFrame>,
        is_sealed: bool,
        timer_ms: Option<u64>,
    }

    #[derive(Debug, Default, Deserialize, PartialEq, Serialize)]
    #[serde(default)]
    struct OlderFrame {
        #[serde(with = "serde_bytes")]
        bytes: Vec<u8>,
        is_own: bool,
    }

    fn older(bytes: &[u8], is_own: bool) -> OlderFrame {
        let bytes = bytes.to_vec();
        OlderFrame { bytes, is_own }
    }

    #[test]
    fn outboxes_are_read_by_the_version_before_and_from_it_if_no_frame_is_shared() {
        let before = OlderCarried {
            unsent: vec![older(b"half", true), older(b"whole", false)],
            is_sealed: true,
            timer_ms: Some(7),
        };
        let text = write(&before).expect("plain fields");
        let carried: Carried = read(&text).expect("it lacks fields that have defaults");
        let frame = |bytes: &[u8], is_own| CarriedFrame {
            bytes: bytes.to_vec(),
            is_own,
            ..CarriedFrame::default()
        };
        let expected = Carried {
            unsent: vec![frame(b"half", true), frame(b"whole", false)],
            is_sealed: true,
            timer_ms: Some(7),
            ..Carried::default()
        };
        assert_eq!(carried, expected);
        let text = write(&carried).expect("plain fields");
        assert_eq!(read::<OlderCarried>(&text).expect("by name"), before);
    }

    #[test]
    fn a_reference_to_a_frame_is_short_and_read_as_it_was_written() {
        let frame = CarriedFrame {
            shared: Some(0x7FFF_FFFF_FFFF),
            ..CarriedFrame::default()
        };
        let text = write(&frame).expect("plain fields");
        assert!(text.len() <= 17, "{}", text.len());
        assert_eq!(read::<CarriedFrame>(&text).expect("by name"), frame);
    }
}
