//! Client events: many private channels, each socket says something now and then.
//!
//! Owns: the two client event measures.
//! May depend on: `client`, `pace`, `target`.
//! Invariants: every event has one receiver (or none, alone); who received what is counted.

use std::time::Instant;

use super::{CLIENT_EVENT_BYTES, Load, Measure, Meter, STEP, STRAGGLERS, Sample, ScenarioError};
use crate::{client::Joining, pace::Pace, target::Target, wire};

/// Who hears an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    OneOther,
    Nobody,
}

/// CPU per client event that the subject receives.
pub fn run(target: &Target, load: &Load, audience: Audience) -> Result<Sample, ScenarioError> {
    let channel_of = |client: usize| match audience {
        Audience::OneOther => format!("private-bench-{}", client / 2),
        Audience::Nobody => format!("private-bench-{client}"),
    };
    let joining = Joining::subscribe(target, load.talkers, channel_of)?;
    let mut herd = joining.into_herd(wire::frame)?;
    let frames: Vec<Vec<u8>> = (0..herd.len())
        .map(|client| wire::masked_text(&event(&channel_of(client))))
        .collect();

    let meter = Meter::start(target)?;
    let mut pace = Pace::new(Instant::now(), load.client_events_per_s, load.seconds);
    let expected = match audience {
        Audience::OneOther => pace.total(),
        Audience::Nobody => 0,
    };
    let (mut received, mut others) = (0_u64, 0_u64);
    let mut give_up_at = None;
    while !pace.is_over() || received < expected {
        while let Some(number) = pace.take_due(Instant::now()) {
            let client = number as usize % frames.len();
            herd.send(client, &frames[client])?;
        }
        herd.receive(STEP, |_, _, payload| {
            match wire::find(payload, b"client-bench") {
                Some(_) => received += 1,
                None => others += 1,
            }
        })?;
        if pace.is_over() {
            let at = *give_up_at.get_or_insert_with(|| Instant::now() + STRAGGLERS);
            if Instant::now() > at {
                break;
            }
        }
    }
    let measure = match audience {
        Audience::OneOther => Measure::ClientEvent,
        Audience::Nobody => Measure::ClientEventAlone,
    };
    let mut sample = meter.finish(measure, pace.total())?;
    sample.expect("deliveries", expected, received);
    sample.expect("errors and other events", 0, others);
    sample.judge_generator(pace.latest);
    Ok(sample)
}

fn event(channel: &str) -> Vec<u8> {
    let data = "y".repeat(CLIENT_EVENT_BYTES);
    format!(r#"{{"event":"client-bench","channel":"{channel}","data":"{data}"}}"#).into_bytes()
}
