//! What a connection waits for while its input is held.
//!
//! Owns: `Pending`, one variant per question that another shard or the bridge answers.
//! May depend on: `protocol`, `http`, `channel` for references, plain ids.
//! Invariants: a connection waits for one thing at a time; everything needed to go on is in here.

use std::sync::Arc;

use crate::{
    channel::{kept::Event, local::LocalRef, names::NameKey, user::UserId},
    http::{
        info::Info,
        request::{Head, HttpError, Version},
        response::Content,
    },
    protocol::{app::AppIndex, request_auth::BodyDigest, socket_id::SocketId},
};

use super::{publication::PublicationUnderWay, sign_in::SignIn, upgrade::Upgrade};

/// What is awaited, with what is needed to go on.
#[derive(Clone, Debug)]
pub enum Pending {
    /// A WebSocket upgrade that passes its checks one by one.
    Upgrade(Box<Upgrade>),
    /// The home's answer to a subscription.
    Join { local: LocalRef },
    /// A fresh roster for a repeated presence subscription.
    Snapshot { local: LocalRef },
    /// The user home's answer to a sign-in.
    SignIn(Box<SignIn>),
    /// An API request that passes its limits or gathers answers.
    Api(Box<ApiCall>),
    /// The body of `/usage`.
    Usage(Asked),
    /// Whether there is the app that the request names, which is looked at again then.
    App,
}

/// How a long answer goes out in parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parts {
    Chunked,
    /// To HTTP/1.0: they end with the connection.
    Plain,
    /// To `HEAD`: nobody gets them, their length is told.
    Counted,
}

/// What every answer must know of its request, whenever it is made.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Another request may follow on the connection.
    pub keep_alive: bool,
    pub content: Content,
    pub parts: Parts,
    /// For the CORS headers.
    pub origin: Option<Box<str>>,
}

impl Asked {
    pub fn of(head: &Head<'_>) -> Self {
        Self {
            keep_alive: head.keep_alive,
            content: head.content(),
            parts: match (head.content(), head.version) {
                (Content::HeadOnly, _) => Parts::Counted,
                (Content::Whole, Version::Http11) => Parts::Chunked,
                (Content::Whole, Version::Http10) => Parts::Plain,
            },
            origin: head.origin.map(Into::into),
        }
    }

    /// By whoever is not answered a second time.
    pub fn last(content: Content, origin: Option<Box<str>>) -> Self {
        Self {
            keep_alive: false,
            content,
            parts: Parts::Chunked,
            origin,
        }
    }
}

/// An API request under way.
#[derive(Clone, Debug)]
pub struct ApiCall {
    pub exchange: Exchange,
    pub step: ApiStep,
}

/// What an API request's answer needs to know of the request.
#[derive(Clone, Debug)]
pub struct Exchange {
    pub app: AppIndex,
    pub asked: Asked,
    pub route: ApiRoute,
    /// When the request was whole, microseconds of the node's clock.
    pub began_us: u64,
    /// What the limiter said, for the answer's headers.
    pub rate: Option<RateState>,
}

/// The kind of an API request, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiRoute {
    Events,
    BatchEvents,
    Channels,
    Channel,
    Users,
    Terminate,
}

/// What the address or app limiter said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateState {
    pub limit: u32,
    pub remaining: u32,
    pub reset_s: u32,
}

impl RateState {
    /// Nobody could count.
    pub const UNKNOWN: Self = Self {
        limit: 0,
        remaining: 0,
        reset_s: 0,
    };
}

/// Where an API request stands.
#[derive(Clone, Debug)]
pub enum ApiStep {
    /// The whole request is kept until the address limiter has answered.
    AddressLimit {
        head: Box<[u8]>,
        body: Vec<u8>,
        digest: Option<BodyDigest>,
    },
    /// Events are read and their frames written, some in each turn.
    Read(Box<Reading>),
    /// A body that is too large: the address limiter is asked before that is told.
    TooLarge(HttpError),
    /// Checked; waits for the app's budget.
    AppLimit(Action),
    /// Homes answer; parts are gathered.
    Gather(Gathered),
    /// Channels are listed, a slice at a time.
    List(Box<Listing>),
}

/// A publication under way, and its body.
#[derive(Clone, Debug)]
pub struct Reading {
    pub publication: PublicationUnderWay,
    pub body: String,
}

impl ApiCall {
    /// What is in memory of its body, and of what came of that.
    pub fn body_bytes(&self) -> usize {
        match &self.step {
            ApiStep::AddressLimit { body, .. } => body.len(),
            ApiStep::Read(reading) => reading.body.len() + reading.publication.bytes(),
            ApiStep::AppLimit(Action::Publish(publication)) => {
                let events = publication.events.iter();
                events.map(|it| it.event.frame.len()).sum()
            }
            ApiStep::TooLarge(_) | ApiStep::AppLimit(_) | ApiStep::Gather(_) | ApiStep::List(_) => {
                0
            }
        }
    }
}

/// A listing under way.
#[derive(Clone, Debug)]
pub struct Listing {
    pub prefix: Arc<str>,
    pub info: Info,
    /// The shard whose channels come next, and where its walk goes on.
    pub shard: u16,
    pub cursor: u32,
    /// Channels told so far.
    pub entries: u64,
    /// What is not sent yet.
    pub body: Vec<u8>,
    /// What was before it, in parts that nobody gets.
    pub counted_bytes: usize,
    /// The answer's head and some of its body are sent.
    pub in_parts: bool,
}

/// A slice of an app's channels is asked for.
#[derive(Clone, Debug)]
pub struct ChannelsQuestion {
    pub app: AppIndex,
    pub prefix: Arc<str>,
    /// 0 or what the slice before said.
    pub cursor: u32,
}

/// A slice of an app's channels.
#[derive(Clone, Debug, Default)]
pub struct ChannelPart {
    pub channels: Vec<(Arc<str>, Counts)>,
    /// Where the walk goes on; `None` when it is over.
    pub next: Option<u32>,
}

/// A request that passed every check.
#[derive(Clone, Debug)]
pub enum Action {
    Publish(Publication),
    Channels {
        prefix: Box<str>,
        info: Info,
    },
    Channel {
        name: Arc<str>,
        key: NameKey,
        info: Info,
    },
    Users {
        name: Arc<str>,
        key: NameKey,
    },
    Terminate {
        user_id: UserId,
    },
}

/// Events to publish, in order, with what is to be told of each.
#[derive(Clone, Debug)]
pub struct Publication {
    pub events: Vec<PublicEvent>,
    /// Per item of a batch, or one for a single event.
    pub reports: Vec<Info>,
    pub is_batch: bool,
}

/// One event for one channel.
#[derive(Clone, Debug)]
pub struct PublicEvent {
    pub channel: Arc<str>,
    pub key: NameKey,
    pub event: Event,
    pub except: Option<SocketId>,
    /// The item that it belongs to.
    pub item: u32,
    /// The first channel of its item: the one that a batch reports.
    pub is_first: bool,
}

/// Answers gathered so far.
#[derive(Clone, Debug)]
pub struct Gathered {
    pub answers_pending: u16,
    pub parts: GatheredParts,
}

/// What is gathered.
#[derive(Clone, Debug)]
pub enum GatheredParts {
    Published {
        reports: Vec<Info>,
        is_batch: bool,
        /// An error where a home could not take over all of its events.
        counts: Result<Vec<ReportedCounts>, BusFull>,
    },
    Channel {
        info: Info,
    },
    Users,
    Terminated,
}

/// There was no room on the way to the other nodes: the first event of a home that met it, and all
/// behind it there, reached nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BusFull;

/// Counts of one channel for one item of a publication.
#[derive(Clone, Debug, PartialEq)]
pub struct ReportedCounts {
    pub item: u32,
    pub is_first: bool,
    pub channel: Arc<str>,
    pub counts: Counts,
}

/// A channel's occupancy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub subscriptions: u32,
    pub users: u32,
}

/// What a home has told of one channel.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChannelFacts {
    pub counts: Counts,
    /// The JSON string token of the last event's data, and its remaining life in seconds.
    pub cached: Option<(Box<str>, u64)>,
}
