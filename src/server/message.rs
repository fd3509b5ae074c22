//! What shards say to each other.
//!
//! Owns: `Message` and its parts: questions with answers, and news without.
//! May depend on: `channel`, `connection::pending`, `protocol`, plain ids.
//! Invariants: all is owned data; an encoded frame crosses as shared bytes; what a home sends to a
//! shard after `Answer::Joined` arrives after it.

use std::{net::IpAddr, sync::Arc};

use shards::application::{Slot, Waiter};

use crate::{
    bridge::webhook_event::ClientEventOfWebhook,
    channel::{
        home::{HomeRef, JoinRefused},
        home_effect::LastEvent,
        local::LocalRef,
        names::NameKey,
        roster::Member,
        user::{Socket, UserId},
    },
    connection::pending::{
        BusFull, ChannelFacts, ChannelPart, ChannelsQuestion, PublicEvent, RateState,
        ReportedCounts,
    },
    protocol::{app::AppIndex, socket_id::SocketId},
};

/// From one shard to another.
#[derive(Debug)]
pub enum Message {
    /// A question for a home; the answer goes to the waiter's shard.
    Ask { waiter: Waiter, question: Question },
    /// The answer to a question of this shard.
    Answer { waiter: Waiter, answer: Answer },
    /// To a home: these subscriptions ended.
    Leave(Vec<Leaving>),
    /// To a home: a client event for a channel.
    ClientEvent(ClientEvent),
    /// From a home: a frame for this shard's subscribers of a channel.
    Deliver(Delivery),
    /// To a home: its fan-out is behind on this shard, or has caught up.
    Behind { home: HomeRef, is_behind: bool },
    /// From a home: hold those who publish to a channel, or let them go on.
    HoldPublishers { local: LocalRef, hold: bool },
    /// To the home of an app's quota: a connection counts that came when the app had no limit.
    CountInApp { app: AppIndex },
    /// To the home of an app's quota: connections ended.
    Release { app: AppIndex, connections: u32 },
    /// To the home of the node's quota: connections ended.
    ReleaseNode { connections: u32 },
    /// To a user's home: a socket signed out.
    SignOut {
        app: AppIndex,
        user_id: UserId,
        socket: Socket,
    },
    /// To the homes of users: a socket does not watch them any more.
    Unwatch {
        app: AppIndex,
        user_ids: Vec<UserId>,
        socket: Socket,
    },
    /// From a user's home to the watchers of a shard: the user came or went.
    Watched {
        app: AppIndex,
        slots: Arc<[Slot]>,
        user_id: Arc<str>,
        online: bool,
    },
    /// From a user's home: close these sockets of the user.
    Terminate { slots: Arc<[Slot]> },
    /// To a home: what its shard had in another process.
    Restore(Box<Restored>),
    /// From a home: where a channel stands whose subscription was restored.
    HomeIs { local: LocalRef, home: HomeRef },
    /// That was all that this shard restores.
    RestoreEnds,
    /// All of that is there, and was said.
    RestoreTaken,
}

/// What connections that another process had are to a home.
#[derive(Debug, Default)]
pub struct Restored {
    pub subscriptions: Vec<RestoredSubscription>,
    /// Connections that count for these apps.
    pub of_apps: Vec<AppIndex>,
    /// Connections that count for the node.
    pub of_node: u32,
    pub signed_in: Vec<(AppIndex, UserId, Socket)>,
    pub watched: Vec<(AppIndex, UserId, Socket)>,
}

/// A subscription that another process had.
#[derive(Debug)]
pub struct RestoredSubscription {
    pub app: AppIndex,
    pub channel: Arc<str>,
    pub key: NameKey,
    pub local: LocalRef,
    pub user_id: Option<Arc<str>>,
}

/// A question for a home shard.
#[derive(Debug)]
pub enum Question {
    Join(Box<JoinQuestion>),
    Snapshot {
        home: HomeRef,
    },
    Publish(Box<PublishQuestion>),
    Channels(ChannelsQuestion),
    Channel {
        app: AppIndex,
        name: Arc<str>,
        key: NameKey,
    },
    Users {
        app: AppIndex,
        name: Arc<str>,
        key: NameKey,
    },
    SignIn {
        app: AppIndex,
        user_id: UserId,
    },
    Watch {
        app: AppIndex,
        user_ids: Vec<UserId>,
    },
    Terminate {
        app: AppIndex,
        user_id: UserId,
    },
    /// May one more connection of the app be opened?
    AdmitToApp {
        app: AppIndex,
    },
    /// May one more connection of the node be opened?
    AdmitToNode,
    /// May the app spend this much of its rate now?
    Spend {
        app: AppIndex,
        budget: Budget,
        count: u32,
    },
    /// May the address make one more request?
    AddressLimit {
        address: IpAddr,
        limit: AddressLimit,
    },
}

/// A subscription for the home to add.
#[derive(Clone, Debug)]
pub struct JoinQuestion {
    pub app: AppIndex,
    pub channel: Arc<str>,
    pub key: NameKey,
    pub local: LocalRef,
    pub member: Option<Member>,
    /// Other nodes were asked for the channel's last event.
    pub has_asked: bool,
    /// Nobody could be asked for it, or none answered: that it is missing is not known.
    pub is_unanswered: bool,
}

/// Events of one API request whose channels have their home on one shard.
#[derive(Debug)]
pub struct PublishQuestion {
    pub app: AppIndex,
    pub events: Vec<PublicEvent>,
    /// Counts are wanted for each event.
    pub wants_counts: bool,
    /// When the request was whole, microseconds of the node's clock.
    pub began_us: u64,
}

/// The answer to a `Question`, with what must be undone if the asker is gone.
#[derive(Clone, Debug)]
pub enum Answer {
    Joined {
        local: LocalRef,
        user_id: Option<Arc<str>>,
        result: Result<Box<Joined>, JoinRefused>,
    },
    /// The frame of a presence channel's roster.
    Snapshot(Option<Arc<[u8]>>),
    Published(Result<Vec<ReportedCounts>, BusFull>),
    Channels(ChannelPart),
    Channel(Box<ChannelFacts>),
    Users(Vec<Arc<str>>),
    SignedIn {
        app: AppIndex,
        user_id: UserId,
    },
    Watched(Vec<(Arc<str>, bool)>),
    /// Here, and on the other nodes if they hear of it.
    Terminated {
        everywhere: bool,
    },
    AdmittedToApp {
        app: AppIndex,
        granted: bool,
    },
    AdmittedToNode {
        granted: bool,
    },
    Spent {
        granted: bool,
        rate: RateState,
    },
    AddressLimited {
        granted: bool,
        rate: RateState,
    },
}

/// A subscription that succeeded.
#[derive(Clone, Debug)]
pub struct Joined {
    pub home: HomeRef,
    /// The frame of the roster, on a presence channel.
    pub roster: Option<Arc<[u8]>>,
    pub last: LastEvent,
}

/// A rate that belongs to a whole app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Budget {
    BackendEvents,
    Reads,
}

/// A limiter by client address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AddressLimit {
    Api,
    Upgrade,
}

/// A subscription that ended.
#[derive(Clone, Debug)]
pub struct Leaving {
    pub home: HomeRef,
    pub user_id: Option<Arc<str>>,
}

/// A client event on its way to its channel's home.
#[derive(Debug)]
pub struct ClientEvent {
    pub home: HomeRef,
    pub frame: Arc<[u8]>,
    pub except: SocketId,
    /// For the app's webhooks, if one wants client events.
    pub hook: Option<Box<ClientEventOfWebhook>>,
}

/// A frame on its way to a shard's subscribers.
#[derive(Debug)]
pub struct Delivery {
    pub local: LocalRef,
    pub frame: Arc<[u8]>,
    pub except: Option<SocketId>,
    /// When the API's request was whole, microseconds of the node's clock; `None` for what is not
    /// timed.
    pub began_us: Option<u64>,
}

const _: () = assert!(size_of::<Message>() <= 72);
