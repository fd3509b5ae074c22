//! What a step of a connection may look at, and what it asks for.
//!
//! Owns: `View`, `Tally`, `Effect`, `Reply`.
//! May depend on: `connection::rules`, `channel::{local, names, roster, user}`, `protocol`, plain ids.
//! Invariants: an effect is performed before the next step of any connection; it owns what it
//! carries, or borrows it from the frame.

use std::{borrow::Cow, sync::Arc};

use shards::{application::Millis, work::Work};

use super::rules::NodeRules;
use crate::{
    channel::{
        local::LocalTable,
        names::{NameHasher, NameKey},
        roster::Member,
        user::UserId,
    },
    connection::subscriptions::Subscription,
    protocol::{
        code::{CloseCode, SubscriptionRefusal},
        incoming::ClientData,
        outgoing,
        rules::AppRules,
    },
};

/// What a step may look at, beside its connection.
pub struct View<'v> {
    pub now: Millis,
    pub node: &'v NodeRules,
    /// The connection's app, unless it is gone.
    pub app: Option<&'v AppRules>,
    pub channels: &'v LocalTable,
    /// By which they are found there.
    pub names: &'v NameHasher,
    /// Room for the data token of a client event whose data is no string.
    pub token: &'v mut Vec<u8>,
    pub tally: Tally,
}

/// What a step has cost, and what is to be counted of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub work: Work,
    /// Messages that were understood, and their bytes.
    pub messages: u32,
    pub message_bytes: u64,
    /// Texts that are no message, and those of them that are JSON but name no event.
    pub malformed: u32,
    pub nameless: u32,
    /// Messages of bytes, which end a connection.
    pub binary: u32,
    /// Its further input is held until its rate allows more: its timer is to be armed anew.
    pub throttled: u32,
    /// Client events that were held against their rate, and those of them that were refused.
    pub client_event_checks: u32,
    pub client_events_limited: u32,
    /// Subscriptions whose signature is none, and sign-ins that were refused.
    pub unauthorized: u32,
    pub sign_ins_refused: u32,
}

/// What a step asks for.
#[derive(Debug, PartialEq)]
pub enum Effect<'a> {
    Nothing,
    Reply(Reply<'a>),
    /// Answers a WebSocket ping.
    Pong(&'a [u8]),
    /// A client event goes to its channel's home.
    Publish(Publish<'a>),
    /// The channel's home is asked to add a subscription.
    Join {
        channel: Cow<'a, str>,
        key: NameKey,
        member: Option<Member>,
    },
    /// The channel's home is asked for its roster, for a member who subscribes again.
    Snapshot {
        channel: u32,
    },
    /// A subscription has ended.
    Leave(Left),
    /// The user's home is told of the socket.
    SignIn {
        user_id: UserId,
    },
    /// The same user has signed in again: whom it watched before, and whom now.
    WatchAgain {
        unwatched: Vec<UserId>,
    },
    /// An error frame where the code has one, a close frame; the echo is waited for.
    Close {
        code: CloseCode,
        reason: &'static str,
    },
    /// The same, without waiting: where the peer's next frame would begin is unknown.
    BreakOff {
        code: CloseCode,
    },
    /// The peer's close is echoed, and that is the end.
    EchoClose {
        code: Option<u16>,
    },
    /// The end, once what is queued is sent.
    End,
}

/// A client event that passed every check.
#[derive(Debug, PartialEq)]
pub struct Publish<'a> {
    /// The row of its channel.
    pub channel: u32,
    pub name: Cow<'a, str>,
    pub event_token: &'a str,
    /// A string; any other is in the view's `token`.
    pub data: ClientData<'a>,
    /// Who sends it, on a presence channel.
    pub user_id: Option<Arc<str>>,
}

/// A subscription that was taken out of a connection's list.
#[derive(Debug, PartialEq)]
pub struct Left {
    pub subscription: Subscription,
    /// The one that took its number, and that number.
    pub renumbered: Option<(Subscription, u32)>,
    pub user_id: Option<Arc<str>>,
}

/// A frame for the connection itself.
#[derive(Debug, PartialEq)]
pub enum Reply<'a> {
    Pong,
    Error {
        code: Option<u16>,
        text: &'static str,
        channel: Option<Cow<'a, str>>,
    },
    /// Told again, on a channel without members.
    Subscribed {
        channel: Cow<'a, str>,
    },
    Refused {
        channel: Cow<'a, str>,
        refusal: SubscriptionRefusal,
    },
    SignedIn {
        user_data: &'a str,
    },
    /// Watched users.
    Watched {
        online: &'a [Arc<str>],
        offline: &'a [Arc<str>],
    },
}

impl Reply<'_> {
    /// Appends the frame's JSON.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Pong => outgoing::pong(out),
            Self::Error {
                code,
                text,
                channel,
            } => outgoing::error(out, *code, text, channel.as_deref()),
            Self::Subscribed { channel } => {
                outgoing::subscription_succeeded(out, channel, None);
            }
            Self::Refused { channel, refusal } => {
                outgoing::subscription_error(out, channel, *refusal);
            }
            Self::SignedIn { user_data } => outgoing::signin_success(out, user_data),
            Self::Watched { online, offline } => {
                let online: Vec<&str> = online.iter().map(|it| &**it).collect();
                let offline: Vec<&str> = offline.iter().map(|it| &**it).collect();
                outgoing::watchlist_events(out, &online, &offline);
            }
        }
    }
}
