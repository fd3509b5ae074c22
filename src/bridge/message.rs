//! What shards and the bridge say to each other.
//!
//! Owns: `ToBridge`, `FromBridge` and their parts.
//! May depend on: `bridge::{apps, health, webhook_event}`, `config`, `metrics::counters`. Not on sockets or
//! drivers.
//! Invariants: every message is owned data; a request carries the slot it is for, and the answer
//! carries it back.

use std::{net::IpAddr, sync::Arc};

use shards::{
    FramesAs, TlsPort,
    application::{Lane, Millis, Waiter},
};

use super::{
    apps::{AppChange, AppName},
    health::Health,
    webhook_event::WebhookEvent,
};
use crate::{
    cluster::{entry::Origin, holdings::Departure},
    config::Config,
    handover::record::{Exported, Import},
    metrics::counters::ShardSnapshot,
    protocol::{
        app::AppIndex,
        partition::{PARTITIONS, Partition},
        socket_id::SocketId,
    },
};

/// From a shard to the bridge.
#[derive(Clone, Debug)]
pub enum ToBridge {
    /// Answer to `FromBridge::Scrape`.
    Snapshot {
        token: u64,
        snapshot: Box<ShardSnapshot>,
    },
    /// Answer to `FromBridge::Largest`: this shard's channels with the most subscribers.
    Largest {
        token: u64,
        channels: Vec<ChannelSize>,
    },
    /// An event for the webhooks of an app, in the order of its channel.
    Webhook(WebhookEvent),
    /// `/usage` was asked for; the answer is `FromBridge::Usage`.
    Usage { waiter: Waiter },
    /// This shard has closed all its WebSocket connections after `FromBridge::Drain`, and answered who had asked before.
    Drained,
    /// The last webhook events of this shard's channels were sent, and who asked meanwhile is answered, after
    /// `FromBridge::Settle`.
    Settled,
    /// An app is looked for that this shard does not know; the answer is `FromBridge::AppFound`.
    FindApp(Box<AppWanted>),
    /// This shard has taken the changes of apps up to this number.
    AppsTaken { number: u64 },
    /// An event that the other nodes are to hear.
    Event(Box<NodeEvent>),
    /// What has changed here, for the other nodes.
    State(Box<NodeState>),
    /// All connections of a user on the other nodes are to end.
    Terminate(Box<UserOfNodes>),
    /// What was used here of an app's rates, for the other nodes.
    Spent(Spent),
    /// A channel's last event is wanted, which another node or the shared cache keeps.
    KeptAsk(Box<KeptName>),
    /// A channel's last event, for the node that asked.
    Kept(Box<KeptEvent>),
    /// A channel's last event, for the shared cache.
    Keep(Box<KeepEvent>),
    /// Some of a rate is wanted that nodes share; the answer is `FromBridge::RateTaken`.
    TakeRate(RateQuestion),
    /// Whether a partition's topic is wanted, from now on.
    Topic {
        partition: Partition,
        wish: TopicWish,
    },
    /// A part of what this shard holds, after `FromBridge::Export`.
    Exported(Box<Exported>),
    /// All that was given to this shard with `FromBridge::Import` stands.
    Imported(Box<ImportedPart>),
}

impl ToBridge {
    /// Webhooks of one app do not hold up those of another, nor anything else.
    pub fn lane(&self) -> Lane {
        match self {
            // One at a time, since the bridge asks for it.
            Self::Snapshot { .. } | Self::Largest { .. } | Self::Drained => Lane::Control,
            // The shard is still: nothing else is on its way.
            Self::Exported(_) | Self::Imported(_) => Lane::Control,
            // At most one for each partition between two turns of the shard.
            Self::Topic { .. } => Lane::Control,
            // One for each message of the bridge.
            Self::AppsTaken { .. } => Lane::Control,
            Self::State(state) => Lane::State {
                bytes: state.approximate_bytes(),
            },
            Self::Terminate(user) => Lane::State {
                bytes: user.approximate_bytes(),
            },
            Self::Spent(_) => Lane::State { bytes: 0 },
            Self::Kept(kept) => Lane::Publish {
                bytes: kept.approximate_bytes(),
            },
            Self::Keep(keep) => Lane::Publish {
                bytes: keep.approximate_bytes(),
            },
            // It must not overtake what was kept before.
            Self::KeptAsk(name) => Lane::Publish {
                bytes: name.approximate_bytes(),
            },
            Self::Event(event) => Lane::Publish {
                bytes: event.approximate_bytes(),
            },
            Self::FindApp(wanted) => Lane::Question {
                bytes: wanted.approximate_bytes(),
            },
            Self::Usage { .. } | Self::TakeRate(_) => Lane::Question { bytes: 0 },
            Self::Webhook(event) => Lane::Event {
                source: event.app.0,
                bytes: event.approximate_bytes(),
            },
            // What it follows must not be overtaken, or a stop would not wait for it.
            Self::Settled => Lane::AfterEvents,
        }
    }
}

/// From the bridge to a shard.
#[derive(Debug)]
pub enum FromBridge {
    /// Send a `ToBridge::Snapshot` with this token.
    Scrape { token: u64 },
    /// Send a `ToBridge::Largest` with this token.
    Largest { token: u64 },
    /// The body of `/usage`.
    Usage { waiter: Waiter, body: Box<str> },
    /// The configuration was read again: the keys that reload hold from now on. `Apps` follows.
    Config(Arc<Config>),
    /// New connections are offered this.
    Tls(Box<TlsPort>),
    /// The apps changed; the answer is `ToBridge::AppsTaken`. Apps that are new are not shown to clients
    /// before `AppsOpen`.
    Apps {
        number: u64,
        changes: Arc<[AppChange]>,
    },
    /// All shards have taken the changes of apps up to this number.
    AppsOpen { number: u64 },
    /// What was found missing may be there now.
    ForgetMissing,
    /// Whether there is an app of that name.
    AppFound { name: Box<AppName>, found: AppFound },
    /// The bridge's view of the node's health changed.
    Health(Health),
    /// Close all connections with 4200 until `deadline`, `rate_per_s` at most (0 = evenly spread).
    Drain { deadline: Millis, rate_per_s: u32 },
    /// Close so many connections with 4200 until then, `rate_per_s` on the node at most (0 = evenly
    /// spread); the others stay. The last order counts.
    Shed {
        connections: u64,
        until: Millis,
        rate_per_s: u32,
    },
    /// All shards are drained, nobody will return: events that wait for that are due now.
    Settle,
    /// Another node's event, for a channel whose home is this shard.
    Event(Box<NodeEvent>),
    /// What the other nodes together have, for a name whose home is this shard.
    State(Box<NodeState>),
    /// Another node asks for a channel's last event, whose home is this shard.
    KeptAsk(Box<KeptName>),
    /// A channel's last event that was asked for.
    Kept(Box<KeptEvent>),
    /// What the shared cache has of a channel's last event that was asked for.
    Found(Box<FoundEvent>),
    /// What the shared store gave of a rate.
    RateTaken(Box<RateTaken>),
    /// Another node has used some of an app's rates, whose home is this shard.
    Spent(Spent),
    /// Another node was asked to end all connections of a user whose home is this shard.
    Terminate(Box<UserOfNodes>),
    /// Whose webhooks this node tells, from now on.
    Owned(Box<Ownership>),
    /// These topics are live, by the wishes that they answer.
    TopicsLive(Box<[(Partition, TopicWish)]>),
    /// No topic is live any more; what is wished stands.
    TopicsLost,
    /// The shard is still: say what it holds and belongs to no connection (`ToBridge::Exported`), so many bytes of it
    /// for now, one part being longer if need be.
    Export { bytes: usize, frames: FramesAs },
    /// So many bytes more may be said.
    ExportMore { bytes: usize },
    /// All shards have said what belongs to no connection: connections follow.
    ExportConnections,
    /// What another process held, a part of it. This shard is frozen.
    Import(Box<Import>),
    /// What was imported is this process' from now on; comes before the shards thaw. Who cannot go on here is closed
    /// as `Drain` closes.
    TakenOver { until: Millis, rate_per_s: u32 },
}

/// Connections of another process that a shard has got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImportedPart {
    pub connections: u64,
    /// Could not be taken over, and have ended.
    pub refused: u64,
    /// Of `connections`: are to be closed, since they cannot go on here.
    pub closing: u64,
    /// Of `closing`: waited for an answer, and were counted by the other process.
    pub stuck: u64,
}

/// A channel by its subscribers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelSize {
    pub app: AppIndex,
    pub channel: Arc<str>,
    /// Subscribed sockets on this node.
    pub subscribers: u32,
    /// The same on all nodes.
    pub everywhere: u32,
}

/// What became of a search for an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppFound {
    /// All shards know it now.
    Known,
    /// There is none; for so long that need not be asked again.
    Absent { for_ms: u64 },
    /// That cannot be known now: whoever wants it should come back.
    Unavailable,
}

/// An event on its way between nodes. Its frame is the one that subscribers get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeEvent {
    pub app: AppIndex,
    pub partition: Partition,
    pub channel: Arc<str>,
    pub origin: Origin,
    /// Who does not get it.
    pub except: Option<SocketId>,
    pub frame: Arc<[u8]>,
}

impl NodeEvent {
    /// About the bytes that it holds while it waits.
    pub fn approximate_bytes(&self) -> usize {
        size_of::<Self>() + self.channel.len() + self.frame.len()
    }
}

/// The partitions whose channels' webhooks are told by this node, and by no other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ownership {
    /// A bit for each partition.
    pub partitions: [u64; PARTITIONS as usize / 64],
    /// What fell due on a partition that is new here since then was told by nobody.
    pub since: Millis,
    /// What fell due from then on is not to be told yet.
    pub until: Millis,
}

impl Ownership {
    pub fn has(&self, partition: Partition) -> bool {
        let number = usize::from(partition.number());
        self.partitions[number / 64] & (1 << (number % 64)) != 0
    }

    pub fn add(&mut self, partition: Partition) {
        let number = usize::from(partition.number());
        self.partitions[number / 64] |= 1 << (number % 64);
    }
}

/// A user, as nodes name it to each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserOfNodes {
    pub app: AppIndex,
    pub partition: Partition,
    pub id: Arc<str>,
}

impl UserOfNodes {
    /// About the bytes that it holds while it waits.
    pub fn approximate_bytes(&self) -> usize {
        size_of::<Self>() + self.id.len()
    }
}

/// A change of what one node has of a name, or of what all other nodes have together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeState {
    pub app: AppIndex,
    pub partition: Partition,
    /// A channel's, or a user's id; empty for the app itself.
    pub name: Arc<str>,
    pub change: StateChange,
}

impl NodeState {
    /// About the bytes that it holds while it waits.
    pub fn approximate_bytes(&self) -> usize {
        let texts = match &self.change {
            StateChange::MemberJoined { user_id, info } => user_id.len() + info.len(),
            StateChange::MemberLeft { user_id, .. } => user_id.len(),
            StateChange::Subscriptions(_)
            | StateChange::UserOnline
            | StateChange::UserOffline
            | StateChange::Connections(_)
            | StateChange::EventKept(_) => 0,
        };
        size_of::<Self>() + self.name.len() + texts
    }
}

/// A channel whose last event is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptName {
    pub app: AppIndex,
    pub partition: Partition,
    pub channel: Arc<str>,
    /// Another node has said that it keeps it.
    pub is_elsewhere: bool,
    /// Some nodes may not have heard the last one.
    pub is_doubted: bool,
}

impl KeptName {
    /// About the bytes that it holds while it waits.
    pub fn approximate_bytes(&self) -> usize {
        size_of::<Self>() + self.channel.len()
    }
}

/// A channel's last event on its way to the shared cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeepEvent {
    pub app: AppIndex,
    pub channel: Arc<str>,
    /// For so long it is kept.
    pub left_ms: u64,
    pub frame: Arc<[u8]>,
    /// Where the event's text begins in the frame.
    pub text_from: usize,
}

impl KeepEvent {
    /// About the bytes that it holds while it waits.
    pub fn approximate_bytes(&self) -> usize {
        size_of::<Self>() + self.channel.len() + self.frame.len()
    }
}

/// What the shared cache has of a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundEvent {
    pub app: AppIndex,
    pub partition: Partition,
    pub channel: Arc<str>,
    pub found: Found,
}

/// An answer of the bridge to a question for a channel's last event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// The event as JSON, whoever wrote it, and for how many milliseconds it is kept.
    Text(Box<[u8]>, u64),
    Nothing,
    /// Nobody answers, or not so that it could be understood.
    Unknown,
    /// So many other nodes were asked, more than one: each answers for itself, or dies.
    Asked(usize),
}

/// A channel's last event on its way between nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptEvent {
    pub app: AppIndex,
    pub partition: Partition,
    pub channel: Arc<str>,
    /// For so long it is kept.
    pub left_ms: u64,
    pub frame: Arc<[u8]>,
}

impl KeptEvent {
    /// About the bytes that it holds while it waits.
    pub fn approximate_bytes(&self) -> usize {
        size_of::<Self>() + self.channel.len() + self.frame.len()
    }
}

/// A rate that nodes share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RateOf {
    /// API requests of a client address.
    Api(IpAddr),
    /// New connections of a client address.
    Upgrade(IpAddr),
    /// Events that an app publishes.
    BackendEvents(AppIndex),
    /// What an app reads.
    Reads(AppIndex),
}

/// An app that somebody names and that his shard does not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppWanted {
    pub name: AppName,
    /// Of who named it first, as limits by address count it; `None` where that is not known.
    pub address: Option<IpAddr>,
}

impl AppWanted {
    /// About the bytes that it holds while it waits.
    pub fn approximate_bytes(&self) -> usize {
        size_of::<Self>() + self.name.as_str().len()
    }
}

/// How much is wanted of a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateQuestion {
    pub of: RateOf,
    /// Not 0.
    pub limit: u32,
    pub window_ms: u64,
    /// What may be owed beyond it, by requests of more than the limit.
    pub debt_ms_max: u64,
    /// More than the limit is given whole, when all of it is there, or not at all.
    pub count: u32,
    /// Less is of no use to who asks first.
    pub least: u32,
}

/// What is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateGrant {
    pub granted: u32,
    pub remaining: u32,
    /// Until all of the limit is there again.
    pub whole_in_ms: u64,
    /// Until one is there; 0 while there is.
    pub wait_ms: u64,
}

/// The answer to a question; `None`: the store did not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateTaken {
    pub question: RateQuestion,
    pub grant: Option<RateGrant>,
}

/// What was used of an app's rates on one node since it was told last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spent {
    pub app: AppIndex,
    pub backend_events: u32,
    pub reads: u32,
}

/// What is so now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StateChange {
    /// Sockets that subscribe to the channel there.
    Subscriptions(u32),
    /// The user is in the presence channel there, with this `user_info` as JSON.
    MemberJoined {
        user_id: Arc<str>,
        info: Arc<str>,
    },
    MemberLeft {
        user_id: Arc<str>,
        why: Departure,
    },
    /// The user whose id is the name is signed in there.
    UserOnline,
    UserOffline,
    /// So many connections of the app are there. The name is empty.
    Connections(u32),
    /// The channel's last event is kept there, or not any more.
    EventKept(bool),
}

/// Whether a topic is wanted. Each change has a number, so that the answer to an older wish is not
/// taken for one to this.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TopicWish {
    number: u32,
    is_wanted: bool,
}

impl TopicWish {
    /// The next one.
    #[must_use]
    pub fn changed(self, is_wanted: bool) -> Self {
        let number = self.number.wrapping_add(1);
        Self { number, is_wanted }
    }

    pub fn is_wanted(self) -> bool {
        self.is_wanted
    }
}

/// Answers to `ToBridge::Usage` that one shard awaits at most; further requests get 503.
pub const USAGES_ASKED_MAX: u32 = 1_024;
