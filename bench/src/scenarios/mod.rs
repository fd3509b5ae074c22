//! What can be put on a target: one file per scenario, and the few things that they share.
//!
//! Owns: the names of what tracks make; bodies of publications; an account of what servers refuse.
//! May depend on: `crowd`, `ledger`, `pace`, `ranges`, `requests`, `rig`, `track`, `outcome`.
//! Invariants: a scenario bounds its load in count and time; what was lost, refused or closed is in its
//! outcome's faults.

use std::ops::{Range, RangeInclusive};

use crate::{crowd::Heard, ranges::within, rig::CpuKeys, target::Target, track::Names, wire};

pub mod burst;
mod bystander;
pub mod carry;
pub mod chatter;
mod churn;
pub mod connect;
pub mod drop_all;
pub mod fanout;
pub mod hostile;
pub mod idle;
pub mod listing;
pub mod mixed;
pub mod neighbour;
pub mod presence;
pub mod publish;
pub mod ramp;
pub mod reconnect;
pub mod slow;
pub mod storm;
pub mod upgrade;

/// Checks a count on the command line.
pub(crate) fn count(
    range: RangeInclusive<u64>,
) -> impl Fn(&str) -> Result<usize, String> + Clone + Send + Sync + 'static {
    within(range)
}

/// Checks another whole number on the command line.
pub(crate) fn whole(
    range: RangeInclusive<u64>,
) -> impl Fn(&str) -> Result<u64, String> + Clone + Send + Sync + 'static {
    within(range)
}

const DELIVERED_CPU: CpuKeys = [
    ("cpu_per_delivered_us", "CPU per delivered message"),
    ("cpu_user_per_delivered_us", "… in user space"),
    ("cpu_system_per_delivered_us", "… in the kernel"),
];

const DELIVERY: Names = Names {
    latency: ("delivery", "publish scheduled to event received"),
    rate: ("deliveries_per_s", "deliveries", "deliveries/s"),
    p99: ("delivery_p99_ms", "p99 of delivery"),
};

const ANSWER: Names = Names {
    latency: ("answer", "request scheduled to answer received"),
    rate: ("answers_per_s", "answers", "answers/s"),
    p99: ("answer_p99_ms", "p99 of answer"),
};

const CLIENT_EVENT: Names = Names {
    latency: ("client_event", "client event scheduled to received"),
    rate: ("client_events_per_s", "client events received", "events/s"),
    p99: ("client_event_p99_ms", "p99 of client event"),
};

/// A signed request that publishes one event, or a batch of them, each with its number.
pub(crate) fn publication(
    target: &Target,
    channel: &str,
    numbers: Range<u64>,
    bytes: usize,
) -> Vec<u8> {
    if numbers.end - numbers.start == 1 {
        let data = wire::numbered(numbers.start, bytes);
        let body = format!(r#"{{"name":"bench","channels":["{channel}"],"data":"{data}"}}"#);
        return target.api_request("events", &body);
    }
    batch(target, channel, numbers, bytes)
}

fn batch(target: &Target, channel: &str, numbers: Range<u64>, bytes: usize) -> Vec<u8> {
    let event = |number| {
        let data = wire::numbered(number, bytes);
        format!(r#"{{"name":"bench","channel":"{channel}","data":"{data}"}}"#)
    };
    let events: Vec<String> = numbers.map(event).collect();
    let body = format!(r#"{{"batch":[{}]}}"#, events.join(","));
    target.api_request("batch_events", &body)
}

/// What a server refused or ended during a load.
#[derive(Debug, Default)]
struct Trouble {
    refused: u64,
    first_refused: Option<String>,
    closed: u64,
    first_closed: Option<String>,
}

impl Trouble {
    fn hear(&mut self, heard: &Heard<'_>) {
        match heard {
            Heard::Refused(said) => {
                self.refused += 1;
                self.first_refused
                    .get_or_insert_with(|| wire::error_words(said));
            }
            Heard::Ended(reason) => {
                self.closed += 1;
                self.first_closed
                    .get_or_insert_with(|| (*reason).to_owned());
            }
            Heard::Connected
            | Heard::Established
            | Heard::Subscribed
            | Heard::Event { .. }
            | Heard::Answer { .. } => {}
        }
    }

    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if let Some(first) = &self.first_refused {
            let count = self.refused;
            faults.push(format!("the server refused {count} times, first: {first}"));
        }
        if let Some(first) = &self.first_closed {
            let count = self.closed;
            faults.push(format!(
                "the server closed {count} connections, first: {first}"
            ));
        }
        faults
    }
}
