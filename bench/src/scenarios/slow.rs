//! Slow: some subscribers stop reading while a channel is published to. Do the others notice?
//!
//! Owns: the `slow` scenario.
//! May depend on: what its siblings may, and `fanout`.
//! Invariants: the load before and after is the same; the deliveries and latencies of the outcome are those
//! of subscribers who read on.

use std::time::{Duration, Instant};

use clap::Args;

use super::{
    count,
    fanout::{Load, Rooms},
    whole,
};
use crate::{
    crowd::{Crowd, Heard, Subscription},
    outcome::{Outcome, Setting},
    pace::Pace,
    requests::Requests,
    rig::{self, Rig, RunError, figure, setting},
};

#[derive(Clone, Debug, Args)]
pub struct Slow {
    /// Subscribers of the one channel, 2..=100000
    #[arg(long, value_name = "COUNT", default_value_t = 100, value_parser = count(2..=100_000))]
    pub subscribers: usize,
    /// Percentage of them that stops reading, 1..=90
    #[arg(long, value_name = "PERCENT", default_value_t = 10, value_parser = count(1..=90))]
    pub slow_percent: usize,
    /// Bytes of an event's data, 16..=100000
    #[arg(long, value_name = "BYTES", default_value_t = 8_192, value_parser = count(16..=100_000))]
    pub message_bytes: usize,
    /// Publish requests per second, 1..=100000
    #[arg(long, value_name = "RATE", default_value_t = 200, value_parser = whole(1..=100_000))]
    pub rate: u64,
}

/// For how long what slow readers still get is read.
const REST: Duration = Duration::from_secs(4);

impl Slow {
    pub fn run(&self, rig: &Rig) -> Result<Outcome, RunError> {
        let mut crowd = rig.crowd(self.subscribers + 2)?;
        let wish = Subscription::to(rig.channel("slow"));
        rig.join(&mut crowd, self.subscribers, |_| vec![wish.clone()])?;
        let requests = Requests::open(&mut crowd, 1)?;
        let slow = (self.subscribers * self.slow_percent / 100).max(1);
        let reading = self.subscribers - slow;

        // The first half: everybody reads.
        let before = self.publish(rig, &mut crowd, requests, self.subscribers)?;
        let (before, faults) = before.into_baseline(&mut crowd);
        let requests = Requests::open(&mut crowd, 1)?;

        for client in reading..self.subscribers {
            crowd.pause(client);
        }
        let meter = rig.start()?;
        let load = self.publish(rig, &mut crowd, requests, reading)?;
        let late_ms = load.pace.late_ms();
        let mut outcome = meter.finish(rig, "slow", self.settings(rig), late_ms)?;
        let closed = self.closed(&mut crowd, reading)?;

        outcome.faults = faults;
        outcome = load.complete(outcome);
        let p99_ms = [
            before.percentile_ms(99.0),
            outcome.latencies[0].percentile_ms(99.0),
        ];
        outcome.figures.extend([
            figure(
                "delivery_p99_before_ms",
                "p99 while all read",
                "ms",
                p99_ms[0],
            ),
            figure(
                "delivery_p99_ms",
                "p99 of those who read on",
                "ms",
                p99_ms[1],
            ),
            figure(
                "slow_readers",
                "subscribers that stopped reading",
                "",
                slow as f64,
            ),
            figure(
                "slow_closed",
                "of these, closed by the server",
                "",
                closed as f64,
            ),
        ]);
        outcome.latencies.push(before);
        Ok(outcome)
    }

    /// Publishes for half of the time.
    fn publish(
        &self,
        rig: &Rig,
        crowd: &mut Crowd,
        requests: Requests,
        members: usize,
    ) -> Result<Load, RunError> {
        let rooms = Rooms {
            count: 1,
            members: members as u64,
        };
        let pace = Pace::new(rig::beginning(), self.rate, rig.seconds.div_ceil(2));
        let mut load = Load::new(pace, requests, rooms, 1);
        load.run(rig, crowd, self.message_bytes, |_| rig.channel("slow"))?;
        Ok(load)
    }

    /// How many of those who stopped reading the server had closed meanwhile.
    fn closed(&self, crowd: &mut Crowd, reading: usize) -> Result<usize, RunError> {
        for client in reading..self.subscribers {
            crowd.resume(client);
        }
        let ends = Instant::now() + REST;
        let mut closed = 0;
        while Instant::now() < ends && closed < self.subscribers - reading {
            crowd.turn(ends, &mut |_, client, heard| {
                let is_slow = (reading..self.subscribers).contains(&client);
                closed += usize::from(is_slow && matches!(heard, Heard::Ended(_)));
            })?;
        }
        Ok(closed)
    }

    fn settings(&self, rig: &Rig) -> Vec<Setting> {
        vec![
            setting("seconds", rig.seconds),
            setting("subscribers", self.subscribers),
            setting("slow-percent", self.slow_percent),
            setting("message-bytes", self.message_bytes),
            setting("rate", self.rate),
        ]
    }
}
