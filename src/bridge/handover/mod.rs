//! One process after another on the same sockets: the bridge's part of a hand-over.
//!
//! Owns: `Handover`: what the bridge remembers of upgrades; the process that gives (`giving`), the one that takes
//! (`taking`), the doors that both know (`doors`), what is told of it (`report`).
//! May depend on: `handover`, `bridge::{run, link, message}`.
//! Invariants: until the one word `Yours` was sent, everything can be undone and the old process goes on; after it
//! nothing can, and nothing fails.

pub mod doors;
mod giving;
mod taking;

use std::{collections::VecDeque, sync::Arc, time::Instant};

use serde::{Deserialize, Serialize};

use self::doors::Doors;
pub use self::giving::adapter_name;
pub(super) use self::{
    giving::{Departing, Giving},
    taking::Taking,
};
use super::nodes::Nodes;
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
    /// The process that this one takes over from, once it is ready.
    pub predecessor: Option<(Arc<Link>, Welcome)>,
}

/// Upgrades of this node: the last one, those before, and the one under way.
pub(super) struct Handover {
    pub program: Option<Program>,
    pub doors: Doors,
    pub giving: Option<Giving>,
    pub taking: Option<Taking>,
    pub departing: Option<Departing>,
    /// The bus of a process that has been followed: to be left without a word.
    pub nodes: Option<Nodes>,
    /// Done, failed. They go on from one process to the next.
    pub counts: [u64; 2],
    pub last: Option<UpgradeReport>,
    /// A reload was asked for meanwhile.
    pub reload_waits: bool,
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
    /// Connections that the new process has.
    pub connections: u64,
    /// Connections that ended with the old one.
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
            predecessor,
        } = legacy;
        let taking = predecessor.map(|(link, welcome)| Taking::new(link, welcome));
        let taking = taking.transpose()?;
        doors.set_open(taking.is_none());
        Ok(Self {
            program,
            doors,
            giving: None,
            counts: taking.as_ref().map_or([0; 2], Taking::upgrades),
            taking,
            departing: None,
            nodes: None,
            last: None,
            reload_waits: false,
        })
    }

    /// Of the last upgrade, once it has ended.
    pub(super) fn silence_s(&self) -> Option<f64> {
        let ended = self.last.as_ref().filter(|_| self.giving.is_none());
        ended.map(|report| report.silence_ms / 1_000.0)
    }

    /// What the other process says. Waits for ever where there is none. Nothing is lost when it is dropped.
    pub(super) async fn hear(&self) -> Result<Received, LinkError> {
        let giving = self.giving.as_ref().map(Giving::link);
        let link: Option<&Waiting> = giving.or_else(|| Some(self.taking.as_ref()?.link()));
        match link {
            Some(link) => link.receive().await,
            None => std::future::pending().await,
        }
    }

    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        let giving = self.giving.as_ref().map(|it| it.due(now));
        giving.or_else(|| Some(self.departing.as_ref()?.due(now)))
    }
}

/// Packets that wait for their acknowledgement or to be sent.
type Waits<T> = VecDeque<T>;
