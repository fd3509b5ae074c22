//! Connect: new connections at a pace, each subscribed and then closed.
//!
//! Owns: the `connect` scenario.
//! May depend on: what its siblings may.
//! Invariants: a connection is closed by a goodbye, so that the server has the work of both ends.

use std::time::Instant;

use clap::Args;

use super::{
    churn::{Churn, SUBSCRIBED},
    whole,
};
use crate::{
    casts::index,
    crowd::Subscription,
    outcome::Outcome,
    pace::Pace,
    rig::{self, CpuKeys, Rig, RunError, cpu_figures, figure, setting},
};

#[derive(Clone, Debug, Args)]
pub struct Connect {
    /// New connections per second, 1..=20000
    #[arg(long, value_name = "RATE", default_value_t = 100, value_parser = whole(1..=20_000))]
    pub rate: u64,
}

const CPU: CpuKeys = [
    ("cpu_per_connection_us", "CPU per connection, to its close"),
    ("cpu_user_per_connection_us", "… in user space"),
    ("cpu_system_per_connection_us", "… in the kernel"),
];

impl Connect {
    pub fn run(&self, rig: &Rig) -> Result<Outcome, RunError> {
        // Connections are short; a second of them may be open at once, beside as many from before.
        let mut crowd = rig.crowd(index(self.rate * 2))?;
        let wish = Subscription::to(rig.channel("connect"));
        // Says what is wrong with target or key; and first-time costs are paid. Where sessions are to be
        // resumed, there are tickets for all that may be under way at once.
        let resumes = rig.target.tls.as_ref().is_some_and(|tls| tls.resumes);
        let first = if resumes { index(self.rate) } else { 1 };
        rig.join(&mut crowd, first, |_| vec![wish.clone()])?;

        let meter = rig.start()?;
        let pace = Pace::new(rig::beginning(), self.rate, rig.seconds);
        let mut churn = Churn::new(pace, wish, SUBSCRIBED).shown();
        while !churn.is_done() {
            let now = Instant::now();
            if churn.pace.gives_up(now) {
                break;
            }
            churn.begin_due(&mut crowd, now);
            let until = churn.pace.next_at();
            crowd.turn(until, &mut |now, client, heard| {
                churn.hear(now, client, &heard);
            })?;
        }
        // The last ones say goodbye.
        churn.begin_due(&mut crowd, Instant::now());
        let settings = vec![setting("seconds", rig.seconds), setting("rate", self.rate)];
        let mut outcome = meter.finish(rig, "connect", settings, churn.pace.late_ms())?;
        let per_s = churn.subscribed as f64 / outcome.seconds;
        outcome.figures = cpu_figures(&outcome, churn.subscribed, CPU);
        outcome.figures.push(figure(
            "connections_per_s",
            "connections subscribed per second",
            "1/s",
            per_s,
        ));
        if rig.target.tls.is_some() {
            let percent = churn.resumed as f64 * 100.0 / churn.subscribed.max(1) as f64;
            let figure = figure("resumed_percent", "of which resumed TLS", "%", percent);
            outcome.figures.push(figure);
        }
        churn.complete(&mut outcome);
        Ok(outcome)
    }
}
