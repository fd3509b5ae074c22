//! Fan-out: one channel, many subscribers, published to over the API.
//!
//! Owns: the `fanout` scenario.
//! May depend on: what its siblings may.
//! Invariants: every message has a number, and each subscriber must see 0, 1, 2, … in order.

use std::time::Instant;

use clap::Args;

use super::{ANSWER, DELIVERED_CPU, DELIVERY, Trouble, count, publication, whole};
use crate::{
    casts::index,
    crowd::{Crowd, Heard, Subscription},
    ledger::{self, Ledger},
    outcome::{Latency, Outcome, Setting},
    pace::Pace,
    requests::Requests,
    rig::{self, Rig, RunError, cpu_figures, figure, setting},
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
    #[arg(long, value_name = "RATE", default_value_t = 50, value_parser = whole(1..=100_000))]
    pub rate: u64,
    /// Messages of one publish request, 1..=10
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = whole(1..=10))]
    pub batch: u64,
}

impl Fanout {
    pub fn run(&self, rig: &Rig) -> Result<Outcome, RunError> {
        let channel = rig.channel("fanout");
        let mut crowd = rig.crowd(self.subscribers + 1)?;
        let wish = Subscription::to(&*channel);
        rig.join(&mut crowd, self.subscribers, |_| vec![wish.clone()])?;
        let requests = Requests::open(&mut crowd, 1)?;

        let meter = rig.start()?;
        let pace = Pace::new(rig::beginning(), self.rate, rig.seconds);
        let rooms = Rooms {
            count: 1,
            members: self.subscribers as u64,
        };
        let mut load = Load::new(pace, requests, rooms, self.batch);
        load.run(rig, &mut crowd, self.message_bytes, |_| channel.clone())?;
        let late_ms = load.pace.late_ms();
        let mut outcome = meter.finish(rig, "fanout", self.settings(rig), late_ms)?;
        outcome.figures = cpu_figures(&outcome, load.ledger.received(), DELIVERED_CPU);
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

/// Channels with equally many members, published to in turn; connection `c` is in room `c % count`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rooms {
    pub(super) count: u64,
    pub(super) members: u64,
}

/// Publishes and their deliveries, while they run.
pub(super) struct Load {
    pub(super) pace: Pace,
    rooms: Rooms,
    /// Messages of one request.
    batch: u64,
    requests: Requests,
    expected: u64,
    ledger: Ledger,
    deliveries: Track,
    answers: Track,
    trouble: Trouble,
}

impl Load {
    /// The crowd's first connections are the members, in the rooms' order.
    pub(super) fn new(pace: Pace, requests: Requests, rooms: Rooms, batch: u64) -> Self {
        let began = pace.time_of(0);
        let members = index(rooms.count * rooms.members);
        Self {
            deliveries: Track::new(began, DELIVERY).shown(),
            answers: Track::new(began, ANSWER),
            expected: pace.total() * batch * rooms.members,
            ledger: Ledger::new(members),
            trouble: Trouble::default(),
            rooms,
            batch,
            requests,
            pace,
        }
    }

    pub(super) fn received(&self) -> u64 {
        self.ledger.received()
    }

    pub(super) fn is_done(&self) -> bool {
        self.ledger.received() >= self.expected && self.requests.is_done()
    }

    /// Publishes until all has come, or what is left never will. `channel_of` names the channel of a number.
    pub(super) fn run(
        &mut self,
        rig: &Rig,
        crowd: &mut Crowd,
        message_bytes: usize,
        channel_of: impl Fn(u64) -> String,
    ) -> Result<(), RunError> {
        let batch = self.batch;
        let request_of = |number| {
            let numbers = number * batch..(number + 1) * batch;
            publication(&rig.target, &channel_of(number), numbers, message_bytes)
        };
        while !self.is_done() {
            let now = Instant::now();
            if self.pace.gives_up(now) {
                break;
            }
            self.begin_due(crowd, now, request_of)?;
            let until = self.pace.next_at();
            crowd.turn(until, &mut |now, client, heard| {
                self.hear(now, client, &heard);
            })?;
        }
        Ok(())
    }

    /// Publishes what is due. `request_of` makes the request of a number.
    pub(super) fn begin_due(
        &mut self,
        crowd: &mut Crowd,
        now: Instant,
        request_of: impl Fn(u64) -> Vec<u8>,
    ) -> Result<(), RunError> {
        while let Some(number) = self.pace.take_due(now) {
            self.requests.ask(number);
        }
        self.requests.pump(crowd, now, request_of)?;
        self.deliveries.tick(now);
        Ok(())
    }

    pub(super) fn hear(&mut self, now: Instant, client: usize, heard: &Heard<'_>) {
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
            && self.ledger.note(client, number / self.rooms.count)
        {
            self.deliveries.record(now, since);
        }
    }

    /// The deliveries' latency as what a later load is compared with, and what went wrong already.
    pub(super) fn into_baseline(self, crowd: &mut Crowd) -> (Latency, Vec<String>) {
        let mut faults = ledger::faults(&self.ledger.deliveries(self.expected), true);
        faults.extend(self.requests.faults(self.pace.total()));
        faults.extend(self.trouble.faults());
        let (mut latency, _) = self.deliveries.finish();
        latency.key = "delivery_before";
        latency.label = "the same, before";
        self.requests.close(crowd);
        (latency, faults)
    }

    pub(super) fn complete(self, mut outcome: Outcome) -> Outcome {
        let account = self.ledger.deliveries(self.expected);
        let per_s = account.received as f64 / outcome.seconds;
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
        outcome.faults.extend(ledger::faults(&account, true));
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
