//! Idle: connections that do nothing: what it costs to get them and to hold them.
//!
//! Owns: the `idle` scenario.
//! May depend on: what its siblings may, and `memory`.
//! Invariants: memory that the target freed before would hide what these connections take, so the figures
//! are exact for a target that just started.

use std::{
    thread,
    time::{Duration, Instant},
};

use clap::Args;

use super::{Trouble, count};
use crate::{
    crowd::{Crowd, Subscription},
    memory::KernelMemory,
    outcome::{Figure, Outcome, Series, Setting},
    rig::{CpuKeys, Rig, RunError, cpu_figures, figure, setting},
    track::WINDOW,
};

#[derive(Clone, Debug, Args)]
pub struct Idle {
    /// Connections, 1..=1000000
    #[arg(long, value_name = "COUNT", default_value_t = 5_000, value_parser = count(1..=1_000_000))]
    pub connections: usize,
    /// Each subscribes to a channel of its own, instead of one for all
    #[arg(long)]
    pub channel_each: bool,
}

const CPU: CpuKeys = [
    (
        "cpu_per_connection_us",
        "CPU per connection, to be subscribed",
    ),
    ("cpu_user_per_connection_us", "… in user space"),
    ("cpu_system_per_connection_us", "… in the kernel"),
];

/// Connections made before anything is measured, so that first-time costs are paid.
const WARM_UP: usize = 50;
/// What the target does after a rush is not idleness.
const SETTLING: Duration = Duration::from_secs(1);
/// Nothing is due, and nothing is timed.
const STEP: Duration = Duration::from_millis(5);

impl Idle {
    pub fn run(&self, rig: &Rig) -> Result<Outcome, RunError> {
        let rig = &Rig {
            step: rig.step.max(STEP),
            ..rig.clone()
        };
        let mut crowd = rig.crowd(self.connections + WARM_UP)?;
        let warm = Subscription::to(rig.channel("warm"));
        rig.join(&mut crowd, WARM_UP, |_| vec![warm.clone()])?;
        thread::sleep(SETTLING / 4);

        let kernel = KernelMemory::now();
        let meter = rig.start()?;
        rig.join(&mut crowd, self.connections, |client| {
            let channel = match self.channel_each {
                true => rig.channel(&format!("idle-{client}")),
                false => rig.channel("idle"),
            };
            vec![Subscription::to(channel)]
        })?;
        let mut outcome = meter.finish(rig, "idle", self.settings(rig), (0.0, 0.0))?;
        outcome.void = None; // Nothing was scheduled: the generator joins as fast as it can.
        let mut trouble = Trouble::default();
        watch(&mut crowd, SETTLING, &mut trouble, || Ok(()))?;
        outcome.figures = cpu_figures(&outcome, self.connections as u64, CPU);
        if let Some(used) = &mut outcome.used {
            let usage = rig.usage()?.unwrap_or_default();
            used.resident_bytes_after = usage.rss_bytes;
            let grown = usage.rss_bytes.saturating_sub(used.resident_bytes_before);
            outcome.figures.extend(self.memory(grown, kernel));
        }
        self.watch_idleness(rig, &mut crowd, &mut trouble, &mut outcome)?;
        outcome.faults = trouble.faults();
        Ok(outcome)
    }

    fn memory(&self, grown: u64, before: KernelMemory) -> [Figure; 3] {
        let after = KernelMemory::now();
        let each = |bytes: u64| bytes as f64 / self.connections as f64;
        [
            figure(
                "resident_per_connection_bytes",
                "memory of the process per connection",
                "B",
                each(grown),
            ),
            figure(
                "kernel_slab_per_connection_bytes",
                "kernel objects per connection, both ends and this program's",
                "B",
                each(after.slab_bytes.saturating_sub(before.slab_bytes)),
            ),
            figure(
                "kernel_tcp_per_connection_bytes",
                "kernel TCP buffers per connection, both ends",
                "B",
                each(after.tcp_bytes.saturating_sub(before.tcp_bytes)),
            ),
        ]
    }

    fn watch_idleness(
        &self,
        rig: &Rig,
        crowd: &mut Crowd,
        trouble: &mut Trouble,
        outcome: &mut Outcome,
    ) -> Result<(), RunError> {
        let began = Instant::now();
        let length = Duration::from_secs(rig.seconds);
        let Some(before) = rig.usage()? else {
            return watch(crowd, length, trouble, || Ok(()));
        };
        let (mut latest, mut points) = (before, Vec::new());
        let mut window = began;
        watch(crowd, length, trouble, || {
            let passed = window.elapsed();
            if passed >= WINDOW {
                let usage = rig.usage()?.unwrap_or_default();
                let share = usage.since(&latest).cpu.as_secs_f64() / passed.as_secs_f64();
                points.push((began.elapsed().as_secs_f64(), share * 100.0));
                (latest, window) = (usage, Instant::now());
            }
            Ok(())
        })?;
        let used = rig.usage()?.unwrap_or_default().since(&before);
        let percent = used.cpu.as_secs_f64() * 100.0 / began.elapsed().as_secs_f64();
        outcome.figures.push(figure(
            "idle_cpu_percent",
            "CPU while idle, of a core",
            "%",
            percent,
        ));
        outcome.series.push(Series {
            key: "idle_cpu_percent",
            label: "CPU while idle, of a core",
            unit: "%",
            points,
        });
        Ok(())
    }

    fn settings(&self, rig: &Rig) -> Vec<Setting> {
        vec![
            setting("seconds", rig.seconds),
            setting("connections", self.connections),
            setting("channel-each", self.channel_each),
        ]
    }
}

/// Answers pings for a while, and looks around after each turn.
fn watch(
    crowd: &mut Crowd,
    length: Duration,
    trouble: &mut Trouble,
    mut look: impl FnMut() -> Result<(), RunError>,
) -> Result<(), RunError> {
    let ends = Instant::now() + length;
    while Instant::now() < ends {
        crowd.turn(ends, &mut |_, _, heard| trouble.hear(&heard))?;
        look()?;
    }
    Ok(())
}
