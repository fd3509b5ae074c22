//! Connections that do nothing: what it costs to get them and to hold them.
//!
//! Owns: the measures of connecting, of memory per connection, of idle CPU.
//! May depend on: `client`, `cpu`, `target`.
//! Invariants: the subject is fresh: memory that it freed before would hide what these take.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::{Load, Measure, Meter, Sample, ScenarioError, process_of, read_usage};
use crate::{client::Joining, target::Target};

/// Which channels the connections are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channels {
    OneForAll,
    OneEach,
}

/// Connections made before anything is measured, so that first-time costs are paid.
const WARM_UP: usize = 50;
/// For how long idleness is watched.
const WATCHED: Duration = Duration::from_secs(5);

/// Connecting and holding `load.idle_connections`.
pub fn run(target: &Target, load: &Load, channels: Channels) -> Result<Vec<Sample>, ScenarioError> {
    let channel_of = |client: usize| match channels {
        Channels::OneForAll => "bench-idle".to_owned(),
        Channels::OneEach => format!("bench-idle-{client}"),
    };
    let (connect, memory) = match channels {
        Channels::OneForAll => (Measure::ConnectShared, Measure::MemoryShared),
        Channels::OneEach => (Measure::ConnectOwn, Measure::MemoryOwn),
    };
    let warm = Joining::subscribe(target, WARM_UP, |_| "bench-warm".to_owned())?;
    thread::sleep(Duration::from_millis(300));
    let before = read_usage(process_of(target))?;

    let count = load.idle_connections;
    let meter = Meter::start(target)?;
    let herd = Joining::subscribe(target, count, channel_of)?;
    let connected = meter.finish(connect, count as u64)?;

    thread::sleep(Duration::from_secs(1));
    let settled = read_usage(process_of(target))?;
    let grown = settled.rss_bytes.saturating_sub(before.rss_bytes);
    let memory = plain(memory, grown as f64 / 1_024.0 / count as f64);

    let watched = Instant::now();
    thread::sleep(WATCHED);
    let used = read_usage(process_of(target))?.since(&settled);
    let percent = used.cpu.as_secs_f64() * 100.0 / watched.elapsed().as_secs_f64();
    let idle = plain(Measure::IdleCpu, percent);
    drop((warm, herd));
    Ok(vec![connected, memory, idle])
}

/// A number that is not CPU time per operation.
fn plain(measure: Measure, value: f64) -> Sample {
    Sample {
        measure,
        value,
        user_share: 0.0,
        waits_per_operation: 0.0,
        generator_share: 0.0,
        faults: Vec::new(),
    }
}
