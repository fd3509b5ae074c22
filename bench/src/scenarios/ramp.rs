//! Ramp: raises a load until an objective breaks, then narrows, and names the highest load that held.
//!
//! Owns: the `ramp` scenario; the search.
//! May depend on: the scenarios that it raises.
//! Invariants: the search ends; a void step ends it at once, for the generator was the limit and not the
//! target.

use std::{thread, time::Duration};

use clap::{Args, ValueEnum};

use super::{chatter::Chatter, count, fanout::Fanout, publish::Publish, whole};
use crate::{
    casts::whole_of,
    outcome::{Outcome, Ramp, RampStep},
    rig::{Rig, RunError},
};

/// Each step lasts --seconds.
#[derive(Clone, Debug, Args)]
pub struct RampUp {
    /// The scenario whose rate is raised
    #[arg(long, value_enum, default_value_t = Of::Fanout)]
    pub of: Of,
    /// The latency that must hold, in milliseconds, 1..=60000
    #[arg(long, value_name = "MS", default_value_t = 50, value_parser = whole(1..=60_000))]
    pub objective_ms: u64,
    /// The percentile for which it must, 1..=100
    #[arg(long, value_name = "PERCENT", default_value_t = 99.0, value_parser = percentile)]
    pub percentile: f64,
    /// First rate, in publishes, client events or requests per second, 1..=100000; if it breaks the
    /// objective, lower ones are tried [default: 20 publishes, 500 client events, 500 requests]
    #[arg(long, value_name = "RATE", value_parser = whole(1..=100_000))]
    pub from: Option<u64>,
    /// Highest rate to try, 1..=100000
    #[arg(long, value_name = "RATE", default_value_t = 100_000, value_parser = whole(1..=100_000))]
    pub to: u64,
    /// How much faster (or slower) each step is than the one before, 1.1..=10
    #[arg(long, default_value_t = 2.0, value_parser = factor)]
    pub factor: f64,
    /// Of fanout: subscribers, 1..=1000000
    #[arg(long, value_name = "COUNT", default_value_t = 1_000, value_parser = count(1..=1_000_000))]
    pub subscribers: usize,
    /// Of chatter: channels, 1..=100000
    #[arg(long, value_name = "COUNT", default_value_t = 100, value_parser = count(1..=100_000))]
    pub channels: usize,
    /// Of chatter: members of each channel, 2..=50
    #[arg(long, value_name = "COUNT", default_value_t = 2, value_parser = count(2..=50))]
    pub members: usize,
    /// Of publish: HTTP connections, 1..=10000
    #[arg(long, value_name = "COUNT", default_value_t = 32, value_parser = count(1..=10_000))]
    pub connections: usize,
    /// Of fanout and publish: messages of one request, 1..=10
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = whole(1..=10))]
    pub batch: u64,
    /// Bytes of an event's data, 16..=10000
    #[arg(long, value_name = "BYTES", default_value_t = 200, value_parser = count(16..=10_000))]
    pub message_bytes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Of {
    Fanout,
    Chatter,
    Publish,
}

/// What a step showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Held,
    Broke,
    Void,
}

/// The search ends when the lowest load that broke is within this factor of the highest that held.
const NARROW: f64 = 1.1;
/// Below this no rate is tried.
const LOWEST: u64 = 1;
/// Between steps, so that one does not pay for the queues of the one before.
const REST: Duration = Duration::from_millis(500);

impl RampUp {
    pub fn run(&self, rig: &Rig) -> Result<(Vec<Outcome>, Ramp), RunError> {
        let from = self.from.unwrap_or(match self.of {
            Of::Fanout => 20,
            Of::Chatter | Of::Publish => 500,
        });
        if from > self.to {
            let to = self.to;
            return Err(RunError::Setting(format!(
                "--from {from} is above --to {to}"
            )));
        }
        let (mut outcomes, mut steps) = (Vec::new(), Vec::new());
        let held = search(from, self.to, self.factor, |rate| {
            if !steps.is_empty() {
                thread::sleep(REST);
            }
            let rig = Rig {
                tag: format!("{}-{}", rig.tag, steps.len()),
                ..rig.clone()
            };
            let outcome = self.step(&rig, rate)?;
            let (verdict, step) = self.judge(&outcome, rate);
            outcomes.push(outcome);
            steps.push(step);
            Ok::<_, RunError>(verdict)
        })?;
        let ramp = Ramp {
            latency: self.latency(),
            percentile: self.percentile,
            objective_ms: self.objective_ms as f64,
            load_unit: match self.of {
                Of::Fanout => "deliveries per second",
                Of::Chatter => "client events per second",
                Of::Publish => "requests per second",
            },
            steps,
            highest_held: held.map(|rate| self.load(rate)),
        };
        Ok((outcomes, ramp))
    }

    fn step(&self, rig: &Rig, rate: u64) -> Result<Outcome, RunError> {
        let message_bytes = self.message_bytes;
        match self.of {
            Of::Fanout => Fanout {
                subscribers: self.subscribers,
                message_bytes,
                rate,
                batch: self.batch,
            }
            .run(rig),
            Of::Chatter => Chatter {
                channels: self.channels,
                members: self.members,
                rate,
                message_bytes,
            }
            .run(rig),
            Of::Publish => Publish {
                connections: self.connections,
                rate,
                batch: if self.batch == 1 { 0 } else { self.batch },
                message_bytes,
            }
            .run(rig),
        }
    }

    fn latency(&self) -> &'static str {
        match self.of {
            Of::Fanout => "delivery",
            Of::Chatter => "client_event",
            Of::Publish => "answer",
        }
    }

    /// A rate in the ramp's unit.
    fn load(&self, rate: u64) -> f64 {
        match self.of {
            Of::Fanout => (rate * self.batch) as f64 * self.subscribers as f64,
            Of::Chatter | Of::Publish => rate as f64,
        }
    }

    fn judge(&self, outcome: &Outcome, rate: u64) -> (Verdict, RampStep) {
        let mut latencies = outcome.latencies.iter();
        let latency = latencies.find(|latency| latency.key == self.latency());
        let reached_ms = latency.map_or(0.0, |latency| latency.percentile_ms(self.percentile));
        let verdict = match &outcome.void {
            Some(_) => Verdict::Void,
            None if !outcome.faults.is_empty() => Verdict::Broke,
            None if reached_ms > self.objective_ms as f64 => Verdict::Broke,
            None => Verdict::Held,
        };
        let step = RampStep {
            load: self.load(rate),
            reached_ms,
            has_held: verdict == Verdict::Held,
        };
        (verdict, step)
    }
}

/// The highest rate that held: up by the factor until one breaks, or down until one holds, then
/// between the two.
fn search<E>(
    from: u64,
    to: u64,
    factor: f64,
    mut step: impl FnMut(u64) -> Result<Verdict, E>,
) -> Result<Option<u64>, E> {
    let (mut held, mut broke) = (None, None);
    let mut rate = from;
    loop {
        match step(rate)? {
            Verdict::Held => held = Some(rate),
            Verdict::Broke => broke = Some(rate),
            Verdict::Void => return Ok(held),
        }
        rate = match (held, broke) {
            (None, None | Some(0..=LOWEST)) => return Ok(None),
            (None, Some(broke)) => whole_of((broke as f64 / factor).floor()).max(LOWEST),
            (Some(held), None) if held == to => return Ok(Some(held)),
            (Some(held), None) => whole_of((held as f64 * factor).ceil()).min(to),
            (Some(held), Some(broke)) => {
                let middle = whole_of((held as f64 * broke as f64).sqrt().round());
                let is_narrow = broke as f64 <= held as f64 * NARROW;
                if is_narrow || middle <= held || middle >= broke {
                    return Ok(Some(held));
                }
                middle
            }
        };
    }
}

fn percentile(text: &str) -> Result<f64, String> {
    within(text, 1.0, 100.0)
}

fn factor(text: &str) -> Result<f64, String> {
    within(text, 1.1, 10.0)
}

fn within(text: &str, least: f64, most: f64) -> Result<f64, String> {
    let number = text.parse::<f64>().ok();
    number
        .filter(|number| (least..=most).contains(number))
        .ok_or_else(|| format!("must be a number in {least}..={most}"))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn searched(from: u64, to: u64, holds: impl Fn(u64) -> Verdict) -> (Option<u64>, usize) {
        let mut steps = 0;
        let held = search(from, to, 2.0, |rate| {
            steps += 1;
            Ok::<_, Infallible>(holds(rate))
        });
        (held.expect("nothing can fail"), steps)
    }

    #[test]
    fn the_search_comes_within_a_tenth_of_what_breaks() {
        for limit in [10, 11, 17, 99, 1_000, 1_234, 77_777] {
            let holds = |rate| {
                if rate <= limit {
                    Verdict::Held
                } else {
                    Verdict::Broke
                }
            };
            let (held, steps) = searched(10, 100_000, holds);
            let held = held.expect("the first holds");
            assert!(held <= limit, "{held} of {limit}");
            assert!(
                held as f64 * NARROW + 1.0 >= limit as f64,
                "{held} of {limit}"
            );
            assert!(steps <= 20, "{steps} steps for {limit}");
        }
    }

    #[test]
    fn the_search_goes_down_when_the_first_load_breaks() {
        for (from, limit, most_steps) in [(10, 1, 4), (10, 5, 5), (1_000, 3, 12), (1_000, 700, 8)] {
            let holds = |rate| {
                if rate <= limit {
                    Verdict::Held
                } else {
                    Verdict::Broke
                }
            };
            let (held, steps) = searched(from, 100_000, holds);
            let held = held.expect("a lower one holds");
            assert!(held <= limit, "{held} of {limit}");
            assert!(
                held as f64 * NARROW + 1.0 >= limit as f64,
                "{held} of {limit}"
            );
            assert!(steps <= most_steps, "{steps} steps from {from} to {limit}");
        }
        let void_below = |rate| {
            if rate < 4 {
                Verdict::Void
            } else {
                Verdict::Broke
            }
        };
        assert_eq!(searched(16, 1_000, void_below), (None, 4)); // 16, 8, 4, 2
    }

    #[test]
    fn the_search_ends_at_the_top_at_a_void_step_and_at_once() {
        assert_eq!(searched(10, 1_000, |_| Verdict::Held), (Some(1_000), 8));
        assert_eq!(searched(10, 1_000, |_| Verdict::Broke), (None, 4)); // 10, 5, 2, 1
        assert_eq!(searched(10, 1_000, |_| Verdict::Void), (None, 1));
        let void_above = |rate| {
            if rate > 40 {
                Verdict::Void
            } else {
                Verdict::Held
            }
        };
        assert_eq!(searched(10, 1_000, void_above), (Some(40), 4));
    }
}
