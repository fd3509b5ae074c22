//! One process after another on the same sockets: the bridge's part of a hand-over.
//!
//! Owns: `Handover`: what the bridge remembers of upgrades; the process that gives (`giving`), the one that takes
//! (`taking`), what is on its way between them (`parcels`, `intake`), the doors that both know (`doors`), what follows when all
//! is done (`heritage`), by when (`terms`).
//! May depend on: `handover`, `bridge::{run, link, message}`.
//! Invariants: until the new process says `Begun`, in answer to the one word `Yours`, everything can be undone and the
//! old process goes on; after it nothing can, and nothing fails.

pub mod doors;
mod giving;
mod heritage;
mod intake;
mod parcels;
mod taking;
mod terms;

use std::{collections::VecDeque, sync::Arc, time::Instant};

use serde::{Deserialize, Serialize};

use self::doors::Doors;
pub use self::giving::adapter_name;
pub(super) use self::{
    giving::{Departing, Giving},
    heritage::Heir,
    taking::Taking,
};
use super::{nodes::Nodes, socket_file::SocketFile};
use crate::handover::{
    link::{Link, LinkError, Received, Waiting},
    packet::Welcome,
    process::Program,
};

/// What the start knows of hand-overs.
#[derive(Debug, Default)]
pub struct Legacy {
    /// How this process was started; `None`: it cannot be started again.
    pub program: Option<Program>,
    pub doors: Doors,
    /// Of sockets that the process before has and this one does not want.
    pub unwanted: Vec<SocketFile>,
    /// The process that this one takes over from, once it is ready.
    pub predecessor: Option<(Arc<Link>, Welcome)>,
}

/// Upgrades of this node: the last one, those before, and the one under way.
pub(super) struct Handover {
    pub program: Option<Program>,
    pub doors: Doors,
    /// Files that go when this process takes over.
    pub unwanted: Vec<SocketFile>,
    pub giving: Option<Giving>,
    pub taking: Option<Taking>,
    pub departing: Option<Departing>,
    pub heir: Option<Heir>,
    /// The bus of a process that has been followed: to be left without a word.
    pub nodes: Option<Nodes>,
    /// Done, failed. They go on from one process to the next.
    pub counts: [u64; 2],
    pub last: Option<UpgradeReport>,
    /// A reload was asked for meanwhile.
    pub reload_waits: bool,
    /// A stop was asked for when another process might have served already.
    pub stop_waits: bool,
}

/// The last upgrade of a node, whichever process answers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct UpgradeReport {
    /// Counts from 1, over all processes of the node.
    pub number: u64,
    /// `running`, `done` or `failed`.
    pub state: String,
    /// Why it failed.
    pub reason: Option<String>,
    pub from_version: String,
    pub to_version: String,
    /// The process that serves.
    pub pid: u32,
    /// Connections that go on in the new process.
    pub connections: u64,
    /// Connections that ended with the old one, or that the new one closes since they cannot go on there.
    pub closed: u64,
    /// For so long nothing was read or sent.
    pub silence_ms: f64,
}

impl Legacy {
    /// What the process before said of itself.
    pub(super) fn welcome(&self) -> Option<&Welcome> {
        self.predecessor.as_ref().map(|(_, welcome)| welcome)
    }

    /// Ids of apps that the process before knew.
    pub(super) fn inherited_apps(&self) -> Vec<String> {
        self.welcome()
            .map_or_else(Vec::new, |welcome| welcome.apps.clone())
    }
}

impl Handover {
    pub(super) fn new(legacy: Legacy) -> std::io::Result<Self> {
        let Legacy {
            program,
            doors,
            unwanted,
            predecessor,
        } = legacy;
        let taking = predecessor.map(|(link, welcome)| Taking::new(link, welcome));
        let taking = taking.transpose()?;
        doors.set_open(taking.is_none());
        Ok(Self {
            program,
            doors,
            unwanted,
            giving: None,
            counts: taking.as_ref().map_or([0; 2], Taking::upgrades),
            taking,
            departing: None,
            heir: None,
            nodes: None,
            last: None,
            reload_waits: false,
            stop_waits: false,
        })
    }

    /// Of the last upgrade, once it has ended.
    pub(super) fn silence_s(&self) -> Option<f64> {
        let ended = self.last.as_ref().filter(|_| self.giving.is_none());
        ended.map(|report| report.silence_ms / 1_000.0)
    }

    /// What the processes before and after this one say. Waits for ever where there is none. Nothing is lost when it
    /// is dropped.
    pub(super) async fn hear(&self) -> Said {
        let giving = self
            .giving
            .as_ref()
            .map(|it| (Speaker::Successor, it.link()));
        let heir = || Some((Speaker::Heir, self.departing.as_ref()?.heir()?));
        let taking = self.taking.as_ref();
        let taking = taking.map(|it| (Speaker::Predecessor, it.link()));
        let testator = || Some((Speaker::Testator, self.heir.as_ref()?.link()));
        tokio::select! {
            said = hear_one(giving.or_else(heir)) => said,
            said = hear_one(taking.or_else(testator)) => said,
        }
    }

    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        let taking = self.taking.as_ref().and_then(|it| it.due(now));
        let giving = self.giving.as_ref().map(|it| it.due(now));
        let next = giving.or_else(|| Some(self.departing.as_ref()?.due(now)));
        let heir = self.heir.as_ref().and_then(Heir::due);
        next.into_iter().chain(heir).chain(taking).min()
    }
}

/// Whose word it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speaker {
    /// It is to follow.
    Successor,
    /// It follows, and takes what waited.
    Heir,
    /// It is to be followed.
    Predecessor,
    /// It was followed, and gives what waited.
    Testator,
}

/// What one of them said.
pub(super) type Said = (Speaker, Result<Received, LinkError>);

async fn hear_one(link: Option<(Speaker, &Waiting)>) -> Said {
    match link {
        Some((speaker, link)) => (speaker, link.receive().await),
        None => std::future::pending().await,
    }
}

/// Packets that wait for their acknowledgement or to be sent.
type Waits<T> = VecDeque<T>;
