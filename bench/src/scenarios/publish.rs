//! Publish: signed requests on connections that stay, to a channel without subscribers.
//!
//! Owns: the `publish` scenario.
//! May depend on: what its siblings may.
//! Invariants: a connection has one request under way at most. Requests are signed once in a while, not one
//! by one: the target verifies each, and the load generator's time goes into sending.

use std::time::{Duration, Instant};

use clap::Args;

use super::{ANSWER, batch, count, publication, whole};
use crate::{
    crowd::Heard,
    outcome::{Outcome, Setting},
    pace::Pace,
    requests::Requests,
    rig::{self, CpuKeys, Rig, RunError, cpu_figures, figure, setting},
    track::Track,
};

#[derive(Clone, Debug, Args)]
pub struct Publish {
    /// HTTP connections, 1..=10000
    #[arg(long, value_name = "COUNT", default_value_t = 32, value_parser = count(1..=10_000))]
    pub connections: usize,
    /// Requests per second, 1..=200000
    #[arg(long, value_name = "RATE", default_value_t = 1_000, value_parser = whole(1..=200_000))]
    pub rate: u64,
    /// Events of one batch request, 1..=10; 0 = single events
    #[arg(long, value_name = "COUNT", default_value_t = 0, value_parser = whole(0..=10))]
    pub batch: u64,
    /// Bytes of an event's data, 16..=100000
    #[arg(long, value_name = "BYTES", default_value_t = 200, value_parser = count(16..=100_000))]
    pub message_bytes: usize,
}

const CPU: CpuKeys = [
    ("cpu_per_request_us", "CPU per request"),
    ("cpu_user_per_request_us", "… in user space"),
    ("cpu_system_per_request_us", "… in the kernel"),
];

/// A signature is good for 600 s.
const SIGNED_AGAIN: Duration = Duration::from_secs(60);

impl Publish {
    pub fn run(&self, rig: &Rig) -> Result<Outcome, RunError> {
        let mut crowd = rig.crowd(self.connections)?;
        rig.join(&mut crowd, 1, |_| Vec::new())?; // Says what is wrong with target or key.
        let mut requests = Requests::open(&mut crowd, self.connections)?;
        let mut signed = (Instant::now(), self.request(rig));

        let meter = rig.start()?;
        let mut pace = Pace::new(rig::beginning(), self.rate, rig.seconds);
        let mut answers = Track::new(meter.began, ANSWER).shown();
        while !pace.is_over() || !requests.is_done() {
            let now = Instant::now();
            if pace.gives_up(now) {
                break;
            }
            while let Some(number) = pace.take_due(now) {
                requests.ask(number);
            }
            if now > signed.0 + SIGNED_AGAIN {
                signed = (now, self.request(rig));
            }
            requests.pump(&mut crowd, now, |_| &*signed.1)?;
            answers.tick(now);
            crowd.turn(pace.next_at(), &mut |now, client, heard: Heard<'_>| {
                if requests.owns(client)
                    && let Some(number) = requests.hear(now, client, &heard)
                    && let Some(since) = pace.since(number, now)
                {
                    answers.record(now, since);
                }
            })?;
            if requests.refused > 0 && requests.refused == requests.answered {
                let first = requests.first_refusal.unwrap_or_default();
                return Err(RunError::Refused(format!("a publish: {first}")));
            }
        }
        let mut outcome = meter.finish(rig, "publish", self.settings(rig), pace.late_ms())?;
        let per_s = requests.answered as f64 / outcome.seconds;
        let reconnects = requests.reconnects as f64;
        outcome.figures = cpu_figures(&outcome, requests.answered, CPU);
        outcome.figures.extend([
            figure(
                "requests_per_s",
                "requests answered per second",
                "1/s",
                per_s,
            ),
            figure("reconnects", "reconnects of publishers", "", reconnects),
        ]);
        outcome.faults = requests.faults(pace.total());
        let (latency, series) = answers.finish();
        outcome.latencies.push(latency);
        outcome.series.extend(series);
        Ok(outcome)
    }

    fn request(&self, rig: &Rig) -> Vec<u8> {
        let channel = rig.channel("publish");
        match self.batch {
            0 => publication(&rig.target, &channel, 0..1, self.message_bytes),
            events => batch(&rig.target, &channel, 0..events, self.message_bytes),
        }
    }

    fn settings(&self, rig: &Rig) -> Vec<Setting> {
        vec![
            setting("seconds", rig.seconds),
            setting("connections", self.connections),
            setting("rate", self.rate),
            setting("batch", self.batch),
            setting("message-bytes", self.message_bytes),
        ]
    }
}
