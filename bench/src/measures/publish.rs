//! HTTP publish: signed requests on keep-alive connections, for a channel without subscribers.
//!
//! Owns: the publish measure.
//! May depend on: `client`, `pace`, `target`.
//! Invariants: a connection has one request under way at most. All requests are the same bytes, signed
//! once: the subject verifies each, and the load generator's time goes into sending.

use std::time::Instant;

use super::{Load, Measure, Meter, PUBLISHED_BYTES, STEP, STRAGGLERS, Sample, ScenarioError};
use crate::{client::Joining, pace::Pace, target::Target, wire};

/// Keep-alive connections.
pub const CONNECTIONS: usize = 32;

/// The request whose cost is measured.
pub fn request(target: &Target) -> Vec<u8> {
    let data = "z".repeat(PUBLISHED_BYTES);
    let body = format!(r#"{{"name":"bench","channels":["bench-empty"],"data":"{data}"}}"#);
    target.api_request("events", &body)
}

/// CPU per answered request.
pub fn run(target: &Target, load: &Load) -> Result<Sample, ScenarioError> {
    let request = request(target);
    let mut herd = Joining::connect(target.address, CONNECTIONS)?.into_herd(wire::answer)?;
    let mut idle: Vec<usize> = (0..CONNECTIONS).collect();

    let meter = Meter::start(target)?;
    let mut pace = Pace::new(Instant::now(), load.requests_per_s, load.seconds);
    let (mut answered, mut refused) = (0_u64, 0_u64);
    let mut give_up_at = None;
    while !pace.is_over() || idle.len() < CONNECTIONS {
        // Without an idle connection the pace falls behind, which the sample then says.
        while let Some(&client) = idle.last()
            && pace.take_due(Instant::now()).is_some()
        {
            idle.pop();
            herd.send(client, &request)?;
        }
        herd.receive(STEP, |client, status, _| {
            idle.push(client);
            answered += 1;
            refused += u64::from(status != 200);
        })?;
        if pace.is_over() {
            let at = *give_up_at.get_or_insert_with(|| Instant::now() + STRAGGLERS);
            if Instant::now() > at {
                break;
            }
        }
    }
    let mut sample = meter.finish(Measure::Publish, answered)?;
    sample.expect("answers", pace.total(), answered);
    sample.expect("answers other than 200", 0, refused);
    sample.judge_generator(pace.latest);
    Ok(sample)
}
