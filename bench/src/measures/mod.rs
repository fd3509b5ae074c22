//! What is measured: one file per scenario, and the meter that they share.
//!
//! Owns: the sizes of the load; the reading of a subject's use around a load.
//! May depend on: `client`, `cpu`, `pace`, `target`.
//! Invariants: a scenario bounds its load in count and time; what was lost or late is in its sample.

use std::{
    io,
    time::{Duration, Instant},
};

use thiserror::Error;

use crate::{
    client::ClientError,
    cpu::{Usage, thread_cpu},
    target::Target,
};

pub mod client_events;
pub mod fanout;
pub mod idle;
pub mod publish;

/// Sizes of the load. Rates are such that no subject is at its limit on two cores.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub seconds: u64,
    pub subscribers: usize,
    pub publishes_per_s: u64,
    /// Sockets that exchange client events, two per channel.
    pub talkers: usize,
    pub client_events_per_s: u64,
    pub requests_per_s: u64,
    pub idle_connections: usize,
}

impl Default for Load {
    fn default() -> Self {
        Self {
            seconds: 5,
            subscribers: 1_000,
            publishes_per_s: 50,
            talkers: 200,
            client_events_per_s: 5_000,
            requests_per_s: 4_000,
            idle_connections: 5_000,
        }
    }
}

/// Bytes of a published event's data.
pub const PUBLISHED_BYTES: usize = 200;
/// Bytes of a client event's data.
pub const CLIENT_EVENT_BYTES: usize = 100;
/// How long stragglers are waited for after the last operation.
pub const STRAGGLERS: Duration = Duration::from_secs(3);
/// The load generator looks at its pace this often.
pub const STEP: Duration = Duration::from_millis(1);

/// One measured number.
#[derive(Clone, Debug)]
pub struct Sample {
    pub measure: Measure,
    pub value: f64,
    /// User space's part of the CPU time.
    pub user_share: f64,
    /// Times that a thread of the subject waited, per operation.
    pub waits_per_operation: f64,
    /// CPU time of the load generator's thread as a part of the time that passed.
    pub generator_share: f64,
    /// What was lost, doubled or refused, and whether the load generator kept its pace.
    pub faults: Vec<String>,
}

/// Everything that can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Measure {
    Fanout,
    FanoutTenPerTurn,
    ClientEvent,
    ClientEventAlone,
    Publish,
    ConnectShared,
    ConnectOwn,
    MemoryShared,
    MemoryOwn,
    IdleCpu,
}

impl Measure {
    pub fn name(self) -> &'static str {
        match self {
            Self::Fanout => "fan-out, 1 message per turn",
            Self::FanoutTenPerTurn => "fan-out, 10 messages per turn",
            Self::ClientEvent => "client event, to 1 other",
            Self::ClientEventAlone => "client event, to nobody (ingest)",
            Self::Publish => "HTTP publish, no subscribers",
            Self::ConnectShared => "connect to subscribed, one channel",
            Self::ConnectOwn => "connect to subscribed, channel each",
            Self::MemoryShared => "idle memory, one channel",
            Self::MemoryOwn => "idle memory, channel each",
            Self::IdleCpu => "idle CPU",
        }
    }

    pub fn unit(self) -> &'static str {
        match self {
            Self::MemoryShared | Self::MemoryOwn => "KB/conn",
            Self::IdleCpu => "% of core",
            _ => "us",
        }
    }
}

/// Why a scenario could not be run.
#[derive(Debug, Error)]
pub enum ScenarioError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("cannot read what process {pid} used: {source}")]
    Usage { pid: u32, source: io::Error },
    #[error("the publisher's thread ended early")]
    Publisher,
    #[error("a floor's own sockets: {0}")]
    Floor(io::Error),
}

/// Reads a subject's use around a load.
pub struct Meter {
    pid: u32,
    usage: Usage,
    started: Instant,
    generator: Duration,
}

impl Meter {
    pub fn start(target: &Target) -> Result<Self, ScenarioError> {
        let pid = process_of(target);
        Ok(Self {
            pid,
            usage: read_usage(pid)?,
            started: Instant::now(),
            generator: thread_cpu(),
        })
    }

    /// CPU microseconds per operation since the start.
    pub fn finish(self, measure: Measure, operations: u64) -> Result<Sample, ScenarioError> {
        let used = read_usage(self.pid)?.since(&self.usage);
        let operations = operations.max(1) as f64;
        let passed = self.started.elapsed().as_secs_f64();
        Ok(Sample {
            measure,
            value: used.cpu.as_secs_f64() * 1e6 / operations,
            user_share: used.user.as_secs_f64() / used.cpu.as_secs_f64().max(1e-9),
            waits_per_operation: used.switches_waited as f64 / operations,
            generator_share: (thread_cpu() - self.generator).as_secs_f64() / passed,
            faults: Vec::new(),
        })
    }
}

/// The process of a subject.
pub fn process_of(target: &Target) -> u32 {
    target.pid.expect("a subject is a child of this process")
}

/// What a process has used so far.
pub fn read_usage(pid: u32) -> Result<Usage, ScenarioError> {
    Usage::of(pid).map_err(|source| ScenarioError::Usage { pid, source })
}

impl Sample {
    /// Notes that something came less or more often than it should.
    pub fn expect(&mut self, what: &str, expected: u64, got: u64) {
        if expected != got {
            self.faults.push(format!("{what}: {got} of {expected}"));
        }
    }

    /// Notes when the load generator was the bottleneck, so that the number says less.
    pub fn judge_generator(&mut self, latest: Duration) {
        if self.generator_share > 0.9 {
            let percent = self.generator_share * 100.0;
            self.faults
                .push(format!("load generator used {percent:.0} % of a core"));
        }
        if latest > Duration::from_millis(250) {
            self.faults
                .push(format!("load was up to {} ms late", latest.as_millis()));
        }
    }
}
