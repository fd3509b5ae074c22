//! Somebody else: one connection that only pings, alone and beside a load. How long does its pong take?
//!
//! Owns: the bystander's connection and thread, the latencies of its pings.
//! May depend on: what the scenarios may.
//! Invariants: it has a crowd and a thread of its own, so that its times hold none of this side's work for
//! the load; each ping is expected back in order, and one that never came is a fault.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::{
    cpu,
    crowd::{Crowd, Heard, Subscription},
    outcome::{Latency, Outcome, Series, Setting},
    pace::{Pace, STRAGGLERS},
    rig::{self, Meter, Rig, RunError},
    track::{Names, Track},
};

/// A connection that is subscribed to a channel of its own.
pub(super) struct Bystander {
    crowd: Crowd,
    client: usize,
}

/// What it saw for a while.
pub(super) struct Watched {
    pub(super) latency: Latency,
    series: [Series; 2],
    late_ms: (f64, f64),
    cpu_share: f64,
    faults: Vec<String>,
}

const PINGS_PER_S: u64 = 500;
/// Longer than any load.
const SECONDS_MAX: u64 = 3_600;
const PING_EVENT: &str = r#"{"event":"pusher:ping","data":{}}"#;
const PONG: &[u8] = b"pusher:pong";

pub(super) const ALONE: Names = Names {
    latency: ("ping_alone", "ping scheduled to pong, alone"),
    rate: ("pongs_alone_per_s", "pongs, alone", "pongs/s"),
    p99: ("ping_alone_p99_ms", "p99 of a ping, alone"),
};

pub(super) const BESIDE: Names = Names {
    latency: ("ping", "ping scheduled to pong"),
    rate: ("pongs_per_s", "pongs", "pongs/s"),
    p99: ("ping_p99_ms", "p99 of a ping"),
};

impl Bystander {
    pub(super) fn arrive(rig: &Rig) -> Result<Self, RunError> {
        let mut crowd = Crowd::new(rig.target.clone(), rig.step)?;
        let wish = Subscription::to(rig.channel("bystander"));
        let clients = rig.join(&mut crowd, 1, |_| vec![wish.clone()])?;
        let client = clients.start;
        Ok(Self { crowd, client })
    }

    /// Pings for so long while nothing else is there.
    pub(super) fn alone(&mut self, length: Duration) -> Result<Watched, RunError> {
        self.beside(ALONE, || {
            thread::sleep(length);
            Ok(())
        })
        .map(|(watched, ())| watched)
    }

    /// Pings on a thread of its own while this one makes a load.
    pub(super) fn beside<T>(
        &mut self,
        names: Names,
        load: impl FnOnce() -> Result<T, RunError>,
    ) -> Result<(Watched, T), RunError> {
        let is_over = AtomicBool::new(false);
        thread::scope(|threads| {
            let watching = threads.spawn(|| {
                cpu::watch_exactly();
                self.watch(names, &is_over)
            });
            let made = load();
            is_over.store(true, Ordering::Relaxed);
            let watched = watching.join().map_err(|_| RunError::Thread)??;
            Ok((watched, made?))
        })
    }

    fn watch(&mut self, names: Names, is_over: &AtomicBool) -> Result<Watched, RunError> {
        let (began, cpu_before) = (Instant::now(), cpu::thread_cpu());
        let begins = rig::beginning();
        let mut pace = Pace::new(begins, PINGS_PER_S, SECONDS_MAX);
        let mut track = Track::new(begins, names);
        let (mut asked, mut answered) = (0_u64, 0_u64);
        let mut ended = None;
        let mut gives_up = None;
        while ended.is_none() {
            let now = Instant::now();
            if is_over.load(Ordering::Relaxed) {
                let gives_up = *gives_up.get_or_insert(now + STRAGGLERS);
                if answered == asked || now > gives_up {
                    break;
                }
            } else {
                while let Some(number) = pace.take_due(now) {
                    self.crowd.send_text(self.client, PING_EVENT);
                    asked = number + 1;
                }
            }
            track.tick(now);
            let until = pace.next_at();
            self.crowd.turn(until, &mut |now, _, heard| match heard {
                Heard::Event { name: PONG, .. } => {
                    if let Some(since) = pace.since(answered, now) {
                        track.record(now, since);
                    }
                    answered += 1;
                }
                Heard::Ended(reason) => ended = Some(reason.to_owned()),
                _ => {}
            })?;
        }
        let mut faults = Vec::new();
        if let Some(reason) = ended {
            faults.push(format!("the bystander was cut off: {reason}"));
        }
        if answered < asked {
            let left = asked - answered;
            faults.push(format!("{left} of {asked} pings got no pong"));
        }
        let (latency, series) = track.finish();
        let used = cpu::thread_cpu() - cpu_before;
        Ok(Watched {
            latency,
            series,
            late_ms: pace.late_ms(),
            cpu_share: used.as_secs_f64() / began.elapsed().as_secs_f64(),
            faults,
        })
    }
}

impl Watched {
    pub(super) fn p99_ms(&self) -> f64 {
        self.latency.percentile_ms(99.0)
    }

    /// The outcome of a load that it stood beside, void only if its own thread was the bottleneck: the
    /// load's thread measures nothing.
    pub(super) fn finish(
        self,
        meter: Meter,
        rig: &Rig,
        scenario: &'static str,
        settings: Vec<Setting>,
    ) -> Result<Outcome, RunError> {
        let mut outcome = meter.finish(rig, scenario, settings, self.late_ms)?;
        outcome.generator.cpu_share = self.cpu_share;
        outcome.void = outcome.generator.verdict();
        self.add_to(&mut outcome);
        Ok(outcome)
    }

    /// Adds what it saw to an outcome.
    pub(super) fn add_to(self, outcome: &mut Outcome) {
        outcome.latencies.push(self.latency);
        outcome.series.extend(self.series);
        outcome.faults.extend(self.faults);
    }
}
