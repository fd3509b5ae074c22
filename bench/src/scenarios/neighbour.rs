//! Neighbour: one channel with very many subscribers is published to. Do other channels notice?
//!
//! Owns: the `neighbour` scenario; the thread of the channels beside.
//! May depend on: what its siblings may, and `fanout`.
//! Invariants: the channels beside have a thread and a crowd of their own, so that their times hold none of
//! this side's work for the large one. There are several, so that some share a server's thread with it.

use std::{thread, time::Instant};

use clap::Args;

use super::{
    DELIVERED_CPU, count,
    fanout::{Load, Rooms},
    whole,
};
use crate::{
    casts::index,
    cpu,
    crowd::{Crowd, Subscription},
    outcome::{Outcome, Setting},
    pace::Pace,
    requests::Requests,
    rig::{self, Rig, RunError, cpu_figures, setting},
};

#[derive(Clone, Debug, Args)]
pub struct Neighbour {
    /// Subscribers of the large channel, 1..=1000000
    #[arg(long, value_name = "COUNT", default_value_t = 10_000, value_parser = count(1..=1_000_000))]
    pub subscribers: usize,
    /// Publishes per second to the large channel, 1..=1000
    #[arg(long, value_name = "RATE", default_value_t = 2, value_parser = whole(1..=1_000))]
    pub rate: u64,
    /// Other channels, 1..=1000, each with one subscriber
    #[arg(long, value_name = "COUNT", default_value_t = 10, value_parser = count(1..=1_000))]
    pub neighbours: usize,
    /// Publishes per second to the other channels, 1..=10000, to each in turn
    #[arg(long, value_name = "RATE", default_value_t = 100, value_parser = whole(1..=10_000))]
    pub neighbour_rate: u64,
    /// Bytes of an event's data, 16..=100000
    #[arg(long, value_name = "BYTES", default_value_t = 200, value_parser = count(16..=100_000))]
    pub message_bytes: usize,
}

/// Some rooms, a publisher, and what is published to them.
struct Part {
    name: &'static str,
    rooms: Rooms,
    rate: u64,
    message_bytes: usize,
    cpu_share: f64,
}

impl Neighbour {
    pub fn run(&self, rig: &Rig) -> Result<Outcome, RunError> {
        let part = |name, count, members, rate| Part {
            name,
            rooms: Rooms { count, members },
            rate,
            message_bytes: self.message_bytes,
            cpu_share: 0.0,
        };
        let mut large = part("large", 1, self.subscribers as u64, self.rate);
        let mut beside = part("beside", self.neighbours as u64, 1, self.neighbour_rate);
        let mut crowd = rig.crowd(self.subscribers + self.neighbours + 2)?;
        let requests = large.join(rig, &mut crowd)?;
        let mut crowd_beside = Crowd::new(rig.target.clone(), rig.step)?;
        let requests_beside = beside.join(rig, &mut crowd_beside)?;

        let meter = rig.start()?;
        let rig_beside = rig.clone();
        let beside = thread::spawn(move || {
            cpu::watch_exactly();
            let load = beside.publish(&rig_beside, &mut crowd_beside, requests_beside)?;
            Ok::<_, RunError>((load, beside.cpu_share))
        });
        let load = large.publish(rig, &mut crowd, requests)?;
        let (load_beside, cpu_share) = beside.join().map_err(|_| RunError::Thread)??;
        let late_ms = load_beside.pace.late_ms();
        let mut outcome = meter.finish(rig, "neighbour", self.settings(rig), late_ms)?;
        outcome.generator.cpu_share = outcome.generator.cpu_share.max(cpu_share);
        outcome.void = outcome.generator.verdict();
        Ok(complete(outcome, load, load_beside))
    }

    fn settings(&self, rig: &Rig) -> Vec<Setting> {
        vec![
            setting("seconds", rig.seconds),
            setting("subscribers", self.subscribers),
            setting("rate", self.rate),
            setting("neighbours", self.neighbours),
            setting("neighbour-rate", self.neighbour_rate),
            setting("message-bytes", self.message_bytes),
        ]
    }
}

impl Part {
    fn channel(&self, rig: &Rig, number: u64) -> String {
        rig.channel(&format!("{}-{}", self.name, number % self.rooms.count))
    }

    fn join(&self, rig: &Rig, crowd: &mut Crowd) -> Result<Requests, RunError> {
        let members = index(self.rooms.count * self.rooms.members);
        rig.join(crowd, members, |client| {
            vec![Subscription::to(self.channel(rig, client as u64))]
        })?;
        Ok(Requests::open(crowd, 1)?)
    }

    fn publish(
        &mut self,
        rig: &Rig,
        crowd: &mut Crowd,
        requests: Requests,
    ) -> Result<Load, RunError> {
        let (began, cpu_before) = (Instant::now(), cpu::thread_cpu());
        let pace = Pace::new(rig::beginning(), self.rate, rig.seconds);
        let mut load = Load::new(pace, requests, self.rooms, 1);
        load.run(rig, crowd, self.message_bytes, |number| {
            self.channel(rig, number)
        })?;
        let used = cpu::thread_cpu() - cpu_before;
        self.cpu_share = used.as_secs_f64() / began.elapsed().as_secs_f64();
        Ok(load)
    }
}

fn complete(outcome: Outcome, load: Load, beside: Load) -> Outcome {
    let beside = beside.complete(outcome.clone());
    let mut outcome = load.complete(outcome);
    let received = outcome.deliveries.map_or(0, |account| account.received);
    outcome
        .figures
        .extend(cpu_figures(&outcome, received, DELIVERED_CPU));
    outcome.faults.extend(beside.faults);
    if let Some(mut latency) = beside.latencies.into_iter().next() {
        latency.key = "neighbour";
        latency.label = "the other channels' delivery";
        // It is what the scenario is about.
        outcome.latencies.insert(0, latency);
    }
    outcome
}
