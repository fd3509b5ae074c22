//! Fan-out: one channel, many subscribers, published to over the API.
//!
//! Owns: the `fanout` scenario.
//! May depend on: what its siblings may.
//! Invariants: every message has a number, and each subscriber must see 0, 1, 2, … in order.

use std::time::Instant;

use clap::Args;

use super::{ANSWER, DELIVERY, Trouble, count, publication};
use crate::{
    crowd::{Crowd, Heard, Subscription},
    ledger::{self, Ledger},
    outcome::{Outcome, Setting},
    pace::Pace,
    requests::Requests,
    rig::{CpuKeys, Rig, RunError, cpu_figures, figure, setting},
    track::Track,
    wire,
};

#[derive(Clone, Debug, Args)]
pub struct Fanout {
    /// Subscribers of the one channel, 1..=1000000
    #[arg(long, value_name = "COUNT", default_value_t = 1_000, value_parser = count(1..=1_000_000))]
    pub subscribers: usize,
    /// Bytes of an event's data, 16..=100000
    #[arg(long, value_name = "BYTES", default_value_t = 200, value_parser = count(16..=100_000))]
    pub message_bytes: usize,
    /// Publish requests per second, 1..=100000
    #[arg(long, value_name = "RATE", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub rate: u64,
    /// Messages of one publish request, 1..=10
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=10))]
    pub batch: u64,
}

const CPU: CpuKeys = [
    ("cpu_per_delivered_us", "CPU per delivered message"),
    ("cpu_user_per_delivered_us", "… in user space"),
    ("cpu_system_per_delivered_us", "… in the kernel"),
];

impl Fanout {
    pub fn run(&self, rig: &Rig) -> Result<Outcome, RunError> {
        let channel = rig.channel("fanout");
        let mut crowd = rig.crowd(self.subscribers + 1)?;
        let wish = Subscription::to(&*channel);
        rig.join(&mut crowd, self.subscribers, |_| vec![wish.clone()])?;
        let requests = Requests::open(&mut crowd, 1)?;

        let meter = rig.start()?;
        let pace = Pace::new(Instant::now(), self.rate, rig.seconds);
        let mut load = Load {
            deliveries: Track::new(meter.began, DELIVERY).shown(),
            answers: Track::new(meter.began, ANSWER),
            expected: pace.total() * self.batch * self.subscribers as u64,
            ledger: Ledger::new(self.subscribers),
            trouble: Trouble::default(),
            batch: self.batch,
            requests,
            pace,
        };
        load.run(&mut crowd, |number| {
            let numbers = number * self.batch..(number + 1) * self.batch;
            publication(&rig.target, &channel, numbers, self.message_bytes)
        })?;
        let late_ms = load.pace.late_ms();
        let outcome = meter.finish(rig, "fanout", self.settings(rig), late_ms)?;
        Ok(load.complete(outcome))
    }

    fn settings(&self, rig: &Rig) -> Vec<Setting> {
        vec![
            setting("seconds", rig.seconds),
            setting("subscribers", self.subscribers),
            setting("message-bytes", self.message_bytes),
            setting("rate", self.rate),
            setting("batch", self.batch),
        ]
    }
}

/// The load while it runs.
struct Load {
    pace: Pace,
    batch: u64,
    requests: Requests,
    expected: u64,
    ledger: Ledger,
    deliveries: Track,
    answers: Track,
    trouble: Trouble,
}

impl Load {
    fn run(
        &mut self,
        crowd: &mut Crowd,
        request_of: impl Fn(u64) -> Vec<u8>,
    ) -> Result<(), RunError> {
        while self.ledger.received() < self.expected || !self.requests.is_done() {
            let now = Instant::now();
            if self.pace.gives_up(now) {
                break;
            }
            while let Some(number) = self.pace.take_due(now) {
                self.requests.ask(number);
            }
            self.requests.pump(crowd, now, &request_of)?;
            self.deliveries.tick(now);
            let until = self.pace.next_at();
            crowd.turn(until, &mut |now, client, heard| {
                self.hear(now, client, &heard);
            })?;
        }
        Ok(())
    }

    fn hear(&mut self, now: Instant, client: usize, heard: &Heard<'_>) {
        if self.requests.owns(client) {
            if let Some(number) = self.requests.hear(now, client, heard)
                && let Some(since) = self.pace.since(number, now)
            {
                self.answers.record(now, since);
            }
            return;
        }
        let Heard::Event { payload, .. } = heard else {
            return self.trouble.hear(heard);
        };
        if let Some(number) = wire::number_of(payload)
            && let Some(since) = self.pace.since(number / self.batch, now)
            && self.ledger.note(client, number)
        {
            self.deliveries.record(now, since);
        }
    }

    fn complete(self, mut outcome: Outcome) -> Outcome {
        let account = self.ledger.deliveries(self.expected);
        let per_s = account.received as f64 / outcome.seconds;
        outcome.figures = cpu_figures(&outcome, account.received, CPU);
        outcome.figures.extend([
            figure("deliveries_per_s", "deliveries per second", "1/s", per_s),
            figure(
                "reconnects",
                "reconnects of the publisher",
                "",
                self.requests.reconnects as f64,
            ),
        ]);
        outcome.deliveries = Some(account);
        outcome.faults = ledger::faults(&account, true);
        outcome
            .faults
            .extend(self.requests.faults(self.pace.total()));
        outcome.faults.extend(self.trouble.faults());
        for track in [self.deliveries, self.answers] {
            let (latency, series) = track.finish();
            outcome.latencies.push(latency);
            outcome.series.extend(series);
        }
        outcome
    }
}
