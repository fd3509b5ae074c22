//! What a scenario is put up on: a target, a length, and the readings around the load.
//!
//! Owns: why a run cannot begin; joining; the reading of what target and generator used.
//! May depend on: `cpu`, `crowd`, `outcome`, `target`.
//! Invariants: a scenario measures nothing before everybody has joined.

use std::{
    io,
    ops::Range,
    path::PathBuf,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use thiserror::Error;

use crate::{
    cpu::{self, Usage},
    crowd::{Crowd, Heard, Kind, Subscription},
    outcome::{Figure, Generator, Outcome, Setting, Used},
    perf::{Sampler, SystemCalls},
    target::Target,
    wire,
};

/// A target and how long it is put under load.
#[derive(Clone, Debug)]
pub struct Rig {
    pub target: Target,
    pub seconds: u64,
    /// How long the generator sleeps between two looks at its sockets.
    pub step: Duration,
    /// In the names of channels, so that two runs do not hear each other.
    pub tag: String,
    /// What falls due in a step is sent at once at its end.
    pub in_bursts: bool,
    /// Counts system calls and samples user space, at the target's cost.
    pub is_traced: bool,
}

/// Why a scenario could not be run to its end.
#[derive(Debug, Error)]
pub enum RunError {
    #[error("{0} is no host and port that can be reached: {1}")]
    Name(String, io::Error),
    #[error("{authority} cannot be reached: {reason}")]
    Unreachable { authority: String, reason: String },
    #[error("the server closed a connection before it was subscribed: {0}")]
    Closed(String),
    #[error("the server refused {0}")]
    Refused(String),
    #[error("{left} of {count} connections were not subscribed after {} s without progress", PATIENCE.as_secs())]
    Stuck { left: usize, count: usize },
    #[error(
        "{connections} connections need {needed} open files, and this process may have {limit}; \
         raise the limit (ulimit -n {needed}) or ask for fewer"
    )]
    Descriptors {
        connections: usize,
        needed: u64,
        limit: u64,
    },
    #[error("cannot read what process {pid} used: {source}")]
    Usage { pid: u32, source: io::Error },
    #[error("the load generator's own sockets: {0}")]
    Sockets(#[from] io::Error),
    #[error("{0}")]
    Setting(String),
    #[error("{0}: {1}")]
    Page(PathBuf, io::Error),
    #[error("a thread of the load generator ended early")]
    Thread,
}

/// Connections under way at once while joining: the server may batch as it would in a rush.
const WAVE: usize = 200;
const PATIENCE: Duration = Duration::from_secs(10);
/// Files that a run has open beside its connections.
const OTHER_FILES: u64 = 64;

impl Rig {
    /// The run's own name for a channel.
    pub fn channel(&self, name: &str) -> String {
        format!("bench-{}-{name}", self.tag)
    }

    /// For what is sent to its socket as it is.
    pub fn must_be_plain(&self, scenario: &str) -> Result<(), RunError> {
        match self.target.tls {
            None => Ok(()),
            Some(_) => Err(RunError::Setting(format!("{scenario} speaks no TLS"))),
        }
    }

    /// Nobody yet, for so many connections.
    pub fn crowd(&self, connections: usize) -> Result<Crowd, RunError> {
        let limit = cpu::raise_descriptor_limit();
        let needed = connections as u64 + OTHER_FILES;
        if needed > limit {
            return Err(RunError::Descriptors {
                connections,
                needed,
                limit,
            });
        }
        cpu::sleep_exactly();
        let crowd = Crowd::new(self.target.clone(), self.step)?;
        Ok(match self.in_bursts {
            true => crowd.sends_in_bursts(),
            false => crowd,
        })
    }

    /// Opens so many WebSockets and waits until each has what it asked for.
    pub fn join(
        &self,
        crowd: &mut Crowd,
        count: usize,
        mut wishes_of: impl FnMut(usize) -> Vec<Subscription>,
    ) -> Result<Range<usize>, RunError> {
        let (mut opened, mut joined, mut first) = (0, 0, 0);
        let mut trouble = None;
        let mut progress_at = Instant::now();
        while joined < count {
            while opened < count && opened - joined < WAVE {
                let client = crowd.open(Kind::WebSocket, wishes_of(opened));
                let client = client.map_err(|error| self.unreachable(&error.to_string()))?;
                if opened == 0 {
                    first = client;
                }
                opened += 1;
            }
            let mut is_reached = joined > 0;
            let before = joined;
            crowd.turn(Instant::now(), &mut |_, client, heard| match heard {
                Heard::Connected => is_reached = true,
                Heard::Subscribed if client >= first => joined += 1,
                Heard::Refused(said) => {
                    trouble.get_or_insert_with(|| RunError::Refused(refusal(said)));
                }
                Heard::Ended(reason) if trouble.is_none() => {
                    trouble = Some(match is_reached {
                        true => RunError::Closed(reason.to_owned()),
                        false => self.unreachable(reason),
                    });
                }
                _ => {}
            })?;
            if let Some(trouble) = trouble {
                return Err(trouble);
            }
            if joined > before {
                progress_at = Instant::now();
            } else if progress_at.elapsed() > PATIENCE {
                let left = count - joined;
                return Err(RunError::Stuck { left, count });
            }
        }
        Ok(first..first + count)
    }

    fn unreachable(&self, reason: &str) -> RunError {
        RunError::Unreachable {
            authority: self.target.authority.clone(),
            reason: reason.to_owned(),
        }
    }

    pub fn usage(&self) -> Result<Option<Usage>, RunError> {
        let Some(pid) = self.target.pid else {
            return Ok(None);
        };
        let usage = Usage::of(pid).map_err(|source| RunError::Usage { pid, source })?;
        Ok(Some(usage))
    }

    pub fn start(&self) -> Result<Meter, RunError> {
        let traced = self.target.pid.filter(|_| self.is_traced);
        let system_calls = traced.and_then(SystemCalls::of);
        let sampler = traced.and_then(Sampler::of);
        let usage = self.usage()?;
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
        Ok(Meter {
            usage,
            system_calls,
            sampler,
            began_unix_s: since_epoch.map_or(0, |time| time.as_secs()),
            began: Instant::now(),
            generator: cpu::thread_cpu(),
        })
    }
}

/// When a load begins that is about to be made: the memory that it takes first must not count as
/// the server's latency.
pub fn beginning() -> Instant {
    const PREPARATION: Duration = Duration::from_millis(10);
    Instant::now() + PREPARATION
}

/// What an error event says, in words where it has them.
fn refusal(said: &[u8]) -> String {
    let what = match wire::event_name(said) {
        b"pusher:subscription_error" => "a subscription",
        _ => "a connection",
    };
    format!("{what}: {}", wire::error_words(said))
}

/// Readings from before a load.
pub struct Meter {
    usage: Option<Usage>,
    system_calls: Option<SystemCalls>,
    sampler: Option<Sampler>,
    began_unix_s: u64,
    pub began: Instant,
    generator: Duration,
}

impl Meter {
    /// Reads again, and makes the outcome that the scenario completes. `late_ms`: p99 and maximum.
    pub fn finish(
        mut self,
        rig: &Rig,
        scenario: &'static str,
        settings: Vec<Setting>,
        late_ms: (f64, f64),
    ) -> Result<Outcome, RunError> {
        let used = match (&self.usage, rig.usage()?) {
            (Some(before), Some(after)) => {
                let user_share = self.sampler.as_ref().and_then(Sampler::user_share);
                let system_calls = self.system_calls.as_mut().and_then(SystemCalls::count);
                Some(Used {
                    system_calls,
                    ..used(before, &after, user_share)
                })
            }
            _ => None,
        };
        let seconds = self.began.elapsed().as_secs_f64();
        let generator = Generator {
            cpu_share: (cpu::thread_cpu() - self.generator).as_secs_f64() / seconds,
            late_p99_ms: late_ms.0,
            late_max_ms: late_ms.1,
        };
        Ok(Outcome {
            scenario,
            target: rig.target.name.clone(),
            settings,
            began_unix_s: self.began_unix_s,
            seconds,
            figures: Vec::new(),
            latencies: Vec::new(),
            series: Vec::new(),
            deliveries: None,
            used,
            generator,
            faults: Vec::new(),
            void: generator.verdict(),
            verdict: None,
        })
    }
}

/// Samples tell better than ticks, whose ratio the kernel makes of the process' whole life.
fn used(before: &Usage, after: &Usage, user_share: Option<f64>) -> Used {
    let used = after.since(before);
    let user = user_share.map_or(used.user, |share| used.cpu.mul_f64(share));
    Used {
        cpu_user_s: user.as_secs_f64(),
        cpu_system_s: used.cpu.saturating_sub(user).as_secs_f64(),
        switches_voluntary: used.switches_waited,
        switches_involuntary: used.switches_pushed,
        system_calls: None,
        resident_bytes_before: before.rss_bytes,
        resident_bytes_after: after.rss_bytes,
    }
}

/// The three keys of CPU time per something: all, user, system.
pub type CpuKeys = [(&'static str, &'static str); 3];

/// CPU microseconds per operation, where the target's process is known.
pub fn cpu_figures(outcome: &Outcome, operations: u64, keys: CpuKeys) -> Vec<Figure> {
    let Some(used) = outcome.used else {
        return Vec::new();
    };
    let values = [
        used.cpu_user_s + used.cpu_system_s,
        used.cpu_user_s,
        used.cpu_system_s,
    ];
    let figure = |((key, label), value): ((&'static str, &'static str), f64)| {
        figure(key, label, "us", value * 1e6 / operations.max(1) as f64)
    };
    keys.into_iter().zip(values).map(figure).collect()
}

pub fn figure(key: &'static str, label: &'static str, unit: &'static str, value: f64) -> Figure {
    Figure {
        key,
        label,
        unit,
        value,
    }
}

pub fn setting(name: &'static str, value: impl ToString) -> Setting {
    Setting {
        name,
        value: value.to_string(),
    }
}
