//! Drop: all connections are gone at once, and nobody comes back. Is somebody who comes anew held up?
//!
//! Owns: the `drop` scenario.
//! May depend on: what its siblings may, and `churn`.
//! Invariants: who comes anew has a thread of its own, comes before the drop, during and after it, and each
//! time waits for its subscription.

use std::{
    thread,
    time::{Duration, Instant},
};

use clap::Args;

use super::{churn::Churn, count};
use crate::{
    cpu,
    crowd::{Crowd, Subscription},
    outcome::{Outcome, Setting},
    pace::Pace,
    rig::{self, Rig, RunError, setting},
    track::Names,
};

#[derive(Clone, Debug, Args)]
pub struct DropAll {
    /// Connections that drop, 1..=1000000
    #[arg(long, value_name = "COUNT", default_value_t = 5_000, value_parser = count(1..=1_000_000))]
    pub connections: usize,
}

const ALONE: Names = Names {
    latency: ("fresh_alone", "connect scheduled to subscribed, before"),
    rate: ("fresh_alone_per_s", "fresh, before", "connections/s"),
    p99: ("fresh_alone_p99_ms", "p99 of a fresh one, before"),
};

const FRESH: Names = Names {
    latency: ("fresh", "connect scheduled to subscribed"),
    rate: ("fresh_per_s", "fresh and subscribed", "connections/s"),
    p99: ("fresh_p99_ms", "p99 of a fresh one"),
};

/// Who comes anew does so that often, for a second before and the second in which all drop.
const FRESH_PER_S: u64 = 400;
const SECONDS: u64 = 1;
/// After so much of that second.
const DROPS_AFTER: Duration = Duration::from_millis(100);

impl DropAll {
    pub fn run(&self, rig: &Rig) -> Result<Outcome, RunError> {
        let mut crowd = rig.crowd(self.connections + 200)?;
        let wish = Subscription::to(rig.channel("drop"));
        rig.join(&mut crowd, self.connections, |_| vec![wish.clone()])?;
        let mut fresh = Crowd::new(rig.target.clone(), rig.step)?.from_elsewhere();
        let (alone, _) = come(rig, &mut fresh, ALONE)?;

        let meter = rig.start()?;
        let (beside, dropped) = thread::scope(|threads| {
            let coming = threads.spawn(|| {
                cpu::watch_exactly();
                come(rig, &mut fresh, FRESH)
            });
            thread::sleep(DROPS_AFTER);
            let began = Instant::now();
            (0..self.connections).for_each(|client| crowd.reset(client));
            let dropped = began.elapsed();
            let beside = coming.join().map_err(|_| RunError::Thread)??;
            Ok::<_, RunError>((beside, dropped))
        })?;
        let (beside, cpu_share) = beside;
        let late_ms = beside.pace.late_ms();
        let mut outcome = meter.finish(rig, "drop", self.settings(), late_ms)?;
        outcome.generator.cpu_share = cpu_share;
        outcome.void = outcome.generator.verdict();
        let dropped_ms = dropped.as_secs_f64() * 1e3;
        outcome.figures.push(rig::figure(
            "dropping_ms",
            "dropping them took this side",
            "ms",
            dropped_ms,
        ));
        beside.complete_whole(&mut outcome);
        alone.complete_whole(&mut outcome);
        Ok(outcome)
    }

    fn settings(&self) -> Vec<Setting> {
        vec![setting("connections", self.connections)]
    }
}

/// Comes again and again for a second; also the thread's CPU time as a part of that.
fn come(rig: &Rig, crowd: &mut Crowd, names: Names) -> Result<(Churn, f64), RunError> {
    let (began, cpu_before) = (Instant::now(), cpu::thread_cpu());
    let pace = Pace::new(rig::beginning(), FRESH_PER_S, SECONDS);
    let wish = Subscription::to(rig.channel("fresh"));
    let mut churn = Churn::new(pace, wish, names);
    while !churn.is_done() && !churn.pace.gives_up(Instant::now()) {
        churn.begin_due(crowd, Instant::now());
        let until = churn.pace.next_at();
        crowd.turn(until, &mut |now, client, heard| {
            churn.hear(now, client, &heard);
        })?;
    }
    let used = cpu::thread_cpu() - cpu_before;
    let share = used.as_secs_f64() / began.elapsed().as_secs_f64();
    Ok((churn, share))
}
