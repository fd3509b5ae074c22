//! Where nodes share the jobs that wait: put by the node where something occurred, taken by any.
//!
//! Owns: `Turn` and `Answer`, what is said to a store and what it says; the closed set of drivers.
//! May depend on: `bridge::queue`, `metrics::backend`; each driver its crate. Not on who delivers, nor on apps.
//! Invariants: a job that was put is there until it is done or dead, also when the node that took it
//! dies; whatever is said may be said twice; each answer comes within the driver's deadline; no error
//! holds a secret.

pub mod redis;
pub mod sqs;

use std::{collections::BTreeSet, sync::Arc};

use self::{redis::RedisStore, sqs::SqsStore};
use super::TargetName;
use crate::metrics::backend::Meter;

/// By which a store knows a job that was taken from it. Only the driver reads its text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Receipt {
    /// Whose job it is.
    pub target: TargetName,
    pub text: Arc<str>,
}

/// All that a node has to say at one moment, and what it wants.
#[derive(Clone, Debug, Default)]
pub struct Turn {
    /// Of this node: one that comes after a later one is not to be heard.
    pub number: u64,
    pub put: Option<Arc<Put>>,
    /// Delivered: these may be forgotten.
    pub done: Vec<Receipt>,
    /// An attempt failed.
    pub again: Vec<Again>,
    /// Taken and not tried: free for all at once.
    pub back: Vec<Receipt>,
    /// Given up.
    pub dead: Vec<Dead>,
    pub take: Take,
    /// After a turn without an answer: all that this node holds. What the store believes beside that to
    /// be held by this node is free again.
    pub holds: Option<Vec<Receipt>>,
}

/// A job that is to be taken again after so many milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Again {
    pub receipt: Receipt,
    pub ms: u64,
    /// What the attempt met, for a driver that can change what it keeps.
    pub error: Option<Arc<str>>,
}

/// Jobs to be kept.
#[derive(Clone, Debug)]
pub struct Put {
    /// Of this node. The same number is the same jobs: they are kept once however often they are sent.
    pub number: u64,
    pub jobs: Vec<NewJob>,
}

#[derive(Clone, Debug)]
pub struct NewJob {
    pub target: TargetName,
    /// Of the order of one channel, where a driver sorts by it.
    pub channel: u64,
    /// See `record`.
    pub text: Vec<u8>,
}

/// A job that is given up, as it is to be shown to an operator.
#[derive(Clone, Debug)]
pub struct Dead {
    /// `None`: it was never put.
    pub receipt: Option<Receipt>,
    /// See `dead::DeadLetter`.
    pub text: Vec<u8>,
}

/// What a node has places for.
#[derive(Clone, Debug, Default)]
pub struct Take {
    /// Jobs at most, beside those of targets that fail.
    pub room: usize,
    /// Jobs of one target at most that the node does not have already.
    pub room_per_target: usize,
    /// The same at the first time, for a driver whose targets belong to a node: so that many have some.
    pub room_per_new_target: usize,
    /// Apps of which this node has jobs, or targets, and how many jobs of targets that answer, for a driver that
    /// shares the room between apps. Of other apps it has none.
    pub apps: Vec<(Arc<str>, usize)>,
    /// Targets that this node has, first who is to have jobs first. A driver whose targets belong to no node gives
    /// what there is.
    pub targets: Vec<Wanted>,
    /// Within an app, targets that the node does not have come first this time.
    pub is_new_first: bool,
    /// Targets that are to be left to others for so many milliseconds.
    pub leave: Vec<(TargetName, u64)>,
    /// Targets that fail, each of which gets one job: for a driver that sees to it itself.
    pub failing: Arc<BTreeSet<TargetName>>,
}

/// A target, and how many more jobs of it a node wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub target: TargetName,
    pub jobs: usize,
    /// Its app's place in `Take::apps`; `None`: it fails, and has its job whatever the others do.
    pub app: Option<usize>,
}

/// What the store says.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// Nothing was asked of the store, and it has never answered: this says nothing of it.
    pub is_unheard: bool,
    /// Why the jobs were not kept although the rest was done; `None` = they were.
    pub put_fault: Option<StoreFault>,
    /// The put was beyond the store's bound: others' jobs, or these, were given up for it.
    pub is_full: bool,
    pub taken: Vec<Taken>,
    /// Targets that this node has no more: nothing of them waits, or they are another's.
    pub released: Vec<TargetName>,
    /// What the store says of its own beginning: another word than before, and it has lost all.
    pub born: Option<Arc<str>>,
    /// The store took this node for dead: what it had taken before is free for others.
    pub was_dead: bool,
    pub state: StoreState,
}

/// A job that is this node's until it says what became of it, for as long as it lives.
#[derive(Clone, Debug)]
pub struct Taken {
    pub receipt: Receipt,
    /// Attempts that failed since it was put.
    pub attempts: u32,
    pub text: Vec<u8>,
}

/// The store as a whole, for gauges; what only grows is what this turn adds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreState {
    pub waiting: u64,
    pub waiting_bytes: u64,
    pub dead: u64,
    /// Jobs of nodes that died, free again.
    pub recovered: u64,
    /// Jobs given up for want of room.
    pub overflown: u64,
    /// Dead letters dropped for want of room.
    pub dead_dropped: u64,
}

/// Why a store gives no answer: a sentence that names the key and what to do. Whether something was done
/// is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct StoreFault(pub String);

/// A dead letter that is one no more.
#[derive(Clone, Debug)]
pub struct SettledLetter {
    pub id: u64,
    /// The job that is to be tried again; `None`: it is dropped.
    pub again: Option<NewJob>,
}

/// The closed set of drivers. A clone is the same store.
#[derive(Clone, Debug)]
pub enum Store {
    Redis(RedisStore),
    Sqs(SqsStore),
}

impl Store {
    /// What is counted of the server.
    pub fn meter(&self) -> &Meter {
        match self {
            Self::Redis(store) => store.meter(),
            Self::Sqs(store) => store.meter(),
        }
    }

    /// Asks whether it answers, and changes nothing.
    ///
    /// # Errors
    /// As `turn`.
    pub async fn reach(&self) -> Result<(), StoreFault> {
        match self {
            Self::Redis(store) => store.reach().await,
            Self::Sqs(store) => store.reach().await,
        }
    }

    /// Why it does not answer, where another try will not mend that. What `reach` says of SQS, its own tries
    /// included, is the last word.
    pub fn refusal(&self, fault: &StoreFault) -> Option<String> {
        match self {
            Self::Redis(store) => store.refusal(),
            Self::Sqs(_) => Some(fault.0.clone()),
        }
    }

    /// Why it is not for this user, as far as asking tells: another try hears the same until somebody gives the rights.
    /// Never where only a turn knows.
    pub async fn forbids(&self) -> Option<StoreFault> {
        match self {
            Self::Redis(store) => store.forbids().await,
            Self::Sqs(_) => None,
        }
    }

    /// Ends when a turn may bring jobs that an earlier one did not; never where only a turn knows.
    pub async fn ready(&self) {
        match self {
            Self::Redis(_) => std::future::pending().await,
            Self::Sqs(store) => store.ready().await,
        }
    }

    /// Says it and hears the answer. Nothing is lost when it fails: the same may be said again.
    ///
    /// # Errors
    /// When there is no answer within the driver's deadline, or the store refuses.
    pub async fn turn(&self, turn: &Turn) -> Result<Answer, StoreFault> {
        match self {
            Self::Redis(store) => store.turn(turn).await,
            Self::Sqs(store) => store.turn(turn).await,
        }
    }

    /// The dead letters with their numbers, oldest first.
    ///
    /// # Errors
    /// As `turn`.
    pub async fn letters(&self) -> Result<Vec<(u64, Vec<u8>)>, StoreFault> {
        match self {
            Self::Redis(store) => store.letters().await,
            Self::Sqs(store) => store.letters().await,
        }
    }

    /// Takes letters away, and keeps the jobs that are given for them; the number of those that were
    /// there.
    ///
    /// # Errors
    /// As `turn`.
    pub async fn settle_letters(&self, letters: &[SettledLetter]) -> Result<u64, StoreFault> {
        match self {
            Self::Redis(store) => store.settle_letters(letters).await,
            Self::Sqs(store) => store.settle_letters(letters).await,
        }
    }
}
