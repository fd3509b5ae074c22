//! What a bus tells the bridge, and what a driver tells of its connections.
//!
//! Owns: `News`, `Refused`; within the room `Report`, `End`, `Trouble`.
//! May depend on: `cluster::topic`, `metrics::backend`.
//! Invariants: a sentence of trouble names the key and what to do, and holds no secret.

use crate::{
    cluster::topic::{Road, Topic},
    metrics::backend::Fault,
};

/// What happened on the bus.
#[derive(Debug, PartialEq, Eq)]
pub enum News {
    /// A batch as it came: nobody has looked into it.
    Batch { topic: Topic, bytes: Vec<u8> },
    /// The bus confirmed these subscriptions: what is published from now on arrives, until the road
    /// is down. Topics that are not wished for any more are left out.
    Live(Vec<Topic>),
    /// The bus has given these subscriptions up, and no others of their road. They stay wished for, and
    /// are told live once they are.
    Lost(Vec<Topic>),
    /// A connection of the road is gone or silent: nothing of it is live, nothing can be published.
    Down(Road),
    /// All connections of the road stand again. Subscriptions follow.
    Up(Road),
    /// So many batches came faster than they were taken, and are lost.
    Dropped { road: Road, batches: u64 },
}

/// Why a batch was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("{queued_bytes} bytes wait to be published: at most {max}")]
    Full { queued_bytes: usize, max: usize },
    #[error("a batch of {bytes} bytes: at most {max}")]
    TooLong { bytes: usize, max: usize },
}

/// What a connection tells the caller's end.
#[derive(Debug)]
pub(super) enum Report {
    Up(End),
    Down(End, Trouble),
    /// Why an end stays down, or does not do all that it should; told once while it stays so.
    Trouble(End, Trouble),
    /// The trouble of an end that stood all the time is over.
    Cured(End),
    /// Confirmed subscriptions, each with the wish that it answers.
    Live(Vec<(Topic, Wish)>),
    /// Subscriptions that are there no more, on a connection that stands.
    Lost(Vec<Topic>),
}

/// The connections of a road.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Publisher,
    Subscriber,
}

impl TroubleKind {
    /// A server that was reached and has answered: another try hears the same, until somebody mends it.
    pub(in crate::bridge) fn is_lasting(self) -> bool {
        matches!(
            self,
            Self::Login | Self::Database | Self::Protocol | Self::Tls | Self::Permission
        )
    }

    /// A server that is gone shows it in turn by a closed connection, silence, a refused one.
    pub(in crate::bridge) fn is_like(self, other: Self) -> bool {
        let is_gone = |kind| matches!(kind, Self::Unreachable | Self::Closed | Self::Silent);
        self == other || (is_gone(self) && is_gone(other))
    }
}

impl TroubleKind {
    /// As it is counted; `None`: nothing has failed.
    pub(in crate::bridge) fn fault(self) -> Option<Fault> {
        match self {
            Self::Unreachable | Self::Closed => Some(Fault::Io),
            Self::Silent => Some(Fault::Timeout),
            Self::Login | Self::Permission | Self::Tls => Some(Fault::Auth),
            Self::Database | Self::Protocol | Self::Refused => Some(Fault::Protocol),
            Self::Unproven => None,
        }
    }
}

impl End {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Publisher => "publisher",
            Self::Subscriber => "subscriber",
        }
    }
}

/// Counts what was wished of a topic; odd: it is wanted. A confirmation that answers an older wish
/// than the last one may already be void.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wish(pub(super) u32);

/// What an operator should hear.
#[derive(Clone, Debug)]
pub(in crate::bridge) struct Trouble {
    pub(in crate::bridge) kind: TroubleKind,
    pub(in crate::bridge) sentence: String,
}

impl Trouble {
    /// Its sentence, where another try will not mend it.
    pub(in crate::bridge) fn refusal(&self) -> Option<String> {
        self.kind.is_lasting().then(|| self.sentence.clone())
    }
}

/// Troubles that are like each other are logged once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::bridge) enum TroubleKind {
    Unreachable,
    Closed,
    Silent,
    Login,
    Database,
    Protocol,
    Tls,
    Permission,
    /// What is live may not be known everywhere.
    Unproven,
    Refused,
}
