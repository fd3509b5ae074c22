//! Fan-out: one channel, many subscribers, published to over the API.
//!
//! Owns: the two fan-out measures; each subscriber's account of lost and doubled messages.
//! May depend on: `client`, `pace`, `target`.
//! Invariants: every message carries its number, and each subscriber must see 0, 1, 2, … in order.

use std::{thread, time::Instant};

use super::{Load, Measure, Meter, PUBLISHED_BYTES, STEP, STRAGGLERS, Sample, ScenarioError};
use crate::{
    client::{ClientError, Joining, Publisher},
    pace::Pace,
    target::Target,
    wire,
};

const CHANNEL: &str = "bench-fanout";

/// CPU per delivered message with `batch` messages in each API request.
pub fn run(target: &Target, load: &Load, batch: u64) -> Result<Sample, ScenarioError> {
    let measure = match batch {
        1 => Measure::Fanout,
        _ => Measure::FanoutTenPerTurn,
    };
    // Ten times the messages in a request, at a fifth of the rate: twice the messages.
    let per_s = if batch == 1 {
        load.publishes_per_s
    } else {
        load.publishes_per_s / 5
    };
    let joining = Joining::subscribe(target, load.subscribers, |_| CHANNEL.to_owned())?;
    let mut herd = joining.into_herd(wire::frame)?;
    let mut publisher = Publisher::connect(target.address)?;

    let meter = Meter::start(target)?;
    let mut pace = Pace::new(Instant::now(), per_s, load.seconds);
    let expected = pace.total() * batch * herd.len() as u64;
    let asks = target.clone();
    let publishing = thread::spawn(move || {
        while !pace.is_over() {
            thread::sleep(pace.next_at().saturating_duration_since(Instant::now()));
            while let Some(number) = pace.take_due(Instant::now()) {
                publisher.request(&request(&asks, number, batch))?;
            }
        }
        Ok::<_, ClientError>(pace.latest)
    });
    let mut ledger = Ledger::new(herd.len());
    let mut give_up_at = None;
    while ledger.received < expected && give_up_at.is_none_or(|at| Instant::now() < at) {
        herd.receive(STEP * 5, |client, _, payload| ledger.note(client, payload))?;
        if give_up_at.is_none() && publishing.is_finished() {
            give_up_at = Some(Instant::now() + STRAGGLERS);
        }
    }
    let mut sample = meter.finish(measure, ledger.received)?;
    let latest = publishing.join().map_err(|_| ScenarioError::Publisher)??;
    sample.expect("deliveries", expected, ledger.received);
    sample.expect("out of sequence", 0, ledger.out_of_sequence);
    sample.judge_generator(latest);
    Ok(sample)
}

fn request(target: &Target, number: u64, batch: u64) -> Vec<u8> {
    if batch == 1 {
        let data = data(number);
        let body = format!(r#"{{"name":"bench","channels":["{CHANNEL}"],"data":"{data}"}}"#);
        return target.api_request("events", &body);
    }
    let events: Vec<String> = (number * batch..(number + 1) * batch)
        .map(|number| {
            let data = data(number);
            format!(r#"{{"name":"bench","channel":"{CHANNEL}","data":"{data}"}}"#)
        })
        .collect();
    target.api_request(
        "batch_events",
        &format!(r#"{{"batch":[{}]}}"#, events.join(",")),
    )
}

/// Data that begins with the message's number between number signs.
fn data(number: u64) -> String {
    format!("{:x<PUBLISHED_BYTES$}", format!("#{number:08}#"))
}

/// What each subscriber has seen.
struct Ledger {
    next: Vec<u64>,
    received: u64,
    out_of_sequence: u64,
}

impl Ledger {
    fn new(subscribers: usize) -> Self {
        Self {
            next: vec![0; subscribers],
            received: 0,
            out_of_sequence: 0,
        }
    }

    fn note(&mut self, client: usize, payload: &[u8]) {
        let Some(number) = number_of(payload) else {
            return;
        };
        self.received += 1;
        self.out_of_sequence += u64::from(number != self.next[client]);
        self.next[client] = number + 1;
    }
}

fn number_of(payload: &[u8]) -> Option<u64> {
    let begins = payload.iter().position(|&byte| byte == b'#')? + 1;
    std::str::from_utf8(payload.get(begins..begins + 8)?)
        .ok()?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_and_a_double_are_both_out_of_sequence() {
        let mut ledger = Ledger::new(1);
        for number in [0, 1, 3, 3, 4] {
            ledger.note(0, data(number).as_bytes());
        }
        ledger.note(0, b"something else");
        assert_eq!((ledger.received, ledger.out_of_sequence), (5, 2));
        assert_eq!(data(7).len(), PUBLISHED_BYTES);
    }
}
