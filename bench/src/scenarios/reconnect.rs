//! Reconnect: all connections drop at once and come back, all at once, again and again. Does somebody who stayed
//! notice?
//!
//! Owns: the `reconnect` scenario.
//! May depend on: what its siblings may, `bystander` and `storm`.
//! Invariants: who comes back has a thread that gives way to the bystander's, so that its handshakes on this
//! side are not in the bystander's times.

use std::{
    thread,
    time::{Duration, Instant},
};

use clap::Args;

use super::{
    bystander::{BESIDE, Bystander},
    count,
    storm::Back,
};
use crate::{
    cpu,
    crowd::{Crowd, Subscription},
    outcome::{Outcome, Setting},
    rig::{Rig, RunError, setting},
};

#[derive(Clone, Debug, Args)]
pub struct Reconnect {
    /// Connections that drop and come back, 1..=1000000
    #[arg(long, value_name = "COUNT", default_value_t = 2_000, value_parser = count(1..=1_000_000))]
    pub connections: usize,
}

/// For which the bystander is watched alone.
const CALM: Duration = Duration::from_secs(1);

impl Reconnect {
    pub fn run(&self, rig: &Rig) -> Result<Outcome, RunError> {
        let mut bystander = Bystander::arrive(rig)?;
        let mut crowd = rig.crowd(self.connections + 64)?;
        let wish = Subscription::to(rig.channel("reconnect"));
        rig.join(&mut crowd, self.connections, |_| vec![wish.clone()])?;
        let alone = bystander.alone(CALM)?;

        let meter = rig.start()?;
        let (beside, back) = bystander.beside(BESIDE, || {
            // A thread that has given way cannot take that back.
            thread::scope(|threads| {
                let raging = threads.spawn(|| {
                    cpu::give_way();
                    self.rage(rig, &mut crowd, &wish)
                });
                raging.join().map_err(|_| RunError::Thread)?
            })
        })?;
        let mut outcome = beside.finish(meter, rig, "reconnect", self.settings(rig))?;
        outcome.figures = back.figures(&outcome);
        back.complete(&mut outcome);
        alone.add_to(&mut outcome);
        Ok(outcome)
    }

    fn rage(&self, rig: &Rig, crowd: &mut Crowd, wish: &Subscription) -> Result<Back, RunError> {
        let began = Instant::now();
        let mut back = Back::new(self.connections, began);
        let ends = began + Duration::from_secs(rig.seconds);
        back.rage(crowd, self.connections, wish, ends)?;
        Ok(back)
    }

    fn settings(&self, rig: &Rig) -> Vec<Setting> {
        vec![
            setting("seconds", rig.seconds),
            setting("connections", self.connections),
        ]
    }
}
