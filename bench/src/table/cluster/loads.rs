//! Loads of events: published on the first node, heard on the second.
//!
//! Owns: `Load`, its run on a pair, its figures.
//! May depend on: `pair`, and what scenarios may.
//! Invariants: nothing is measured before an event came through; each event is numbered, and every
//! subscriber must see its channel's numbers in order; latencies count from the time for which a publish was
//! scheduled.

use std::{
    collections::BTreeMap,
    io,
    ops::Range,
    time::{Duration, Instant},
};

use super::{
    Run,
    pair::{Pair, Reading, Setup},
};
use crate::{
    casts::index,
    cpu,
    crowd::{Crowd, Heard, Subscription},
    ledger::{self, Ledger},
    outcome::{Figure, Generator, Latency},
    pace::Pace,
    requests::Requests,
    rig::{self, Rig, RunError, figure},
    scenarios::publication,
    table::subjects::{Subject, ask},
    wire,
};

/// Events at a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Load {
    pub(super) name: &'static str,
    /// They get events in turn.
    pub(super) channels: usize,
    /// Connections of the second node.
    pub(super) listeners: usize,
    pub(super) sharing: Sharing,
    /// Events that are due at one moment.
    pub(super) burst: u64,
    /// Such moments in a second.
    pub(super) rate: u64,
    pub(super) locals: Locals,
}

/// Who subscribes to a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sharing {
    /// One listener each.
    Split,
    /// All listeners.
    All,
}

/// Whether somebody on the first node hears all of it too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Locals {
    None,
    One,
}

/// Bytes of an event's data.
const DATA_BYTES: usize = 200;
/// Connections to the first node's API.
const PUBLISHERS: usize = 8;
/// How long the first event may take to come through.
const PATIENCE: Duration = Duration::from_secs(20);
/// After it, so that what nodes tell each other at their start is told.
const SETTLING: Duration = Duration::from_millis(1_500);

impl Load {
    /// In words, below the table.
    pub(super) fn described(&self) -> String {
        let bursts = match self.burst {
            1 => format!("{} events/s", self.rate),
            burst => format!("{burst} events at once, {} times/s", self.rate),
        };
        let listeners = match self.sharing {
            Sharing::Split => format!("{} connections, a channel each event", self.listeners),
            Sharing::All => format!("{} connections to each", self.listeners),
        };
        let locals = match self.locals {
            Locals::None => "",
            Locals::One => ", and to one on the publishing node",
        };
        format!(
            "{}: {bursts}, {DATA_BYTES} B, {} channels, to {listeners}{locals}",
            self.name, self.channels
        )
    }

    pub(super) fn pace(&self, seconds: u64) -> Pace {
        Pace::new(rig::beginning(), self.rate, seconds)
    }

    fn channel(&self, rig: &Rig, number: u64) -> String {
        rig.channel(&format!("{}-{}", self.name, number % self.channels as u64))
    }

    /// Channels of a listener.
    fn channels_of(&self, listener: usize) -> Vec<usize> {
        let all = 0..self.channels;
        match self.sharing {
            Sharing::All => all.collect(),
            Sharing::Split => all.skip(listener).step_by(self.listeners).collect(),
        }
    }

    /// How many hear each event on the second node.
    fn hearers(&self) -> u64 {
        match self.sharing {
            Sharing::Split => 1,
            Sharing::All => self.listeners as u64,
        }
    }

    /// Starts a pair and puts the load on it.
    pub(super) fn run(&self, subject: &Subject, setup: &Setup) -> Result<Run, String> {
        let pair = Pair::start(subject, setup, 2)?;
        let scene = self.enter(&pair, setup).map_err(|it| it.to_string())?;
        scene.play(&pair, setup).map_err(|it| it.to_string())
    }

    /// Everybody is there, and an event has come through.
    fn enter(&self, pair: &Pair, setup: &Setup) -> Result<Scene<'_>, RunError> {
        let [near, far] = [0, 1].map(|node| setup.rig(pair.target(node)));
        let warm = far.channel("warm");
        let mut crowd = far.crowd(self.listeners + PUBLISHERS + 1)?;
        let wish = |at: usize| Subscription::to(self.channel(&far, at as u64));
        let listeners = far.join(&mut crowd, self.listeners, |listener| {
            let wishes = self.channels_of(listener).into_iter().map(wish);
            wishes.chain([Subscription::to(&*warm)]).collect()
        })?;
        crowd.turns_to(&near.target);
        if self.locals == Locals::One {
            near.join(&mut crowd, 1, |_| (0..self.channels).map(wish).collect())?;
        }
        await_first(&near, &mut crowd, &warm)?;
        let publishers = PUBLISHERS.min(self.channels);
        let requests = Requests::open(&mut crowd, publishers)?;
        let ends = Instant::now() + SETTLING;
        let mut scene = Scene {
            load: self,
            near,
            crowd,
            requests,
            listeners,
        };
        while Instant::now() < ends {
            let Scene {
                crowd, requests, ..
            } = &mut scene;
            crowd.turn(ends, &mut |now, client, heard| {
                if requests.owns(client) {
                    requests.hear(now, client, &heard);
                }
            })?;
        }
        Ok(scene)
    }
}

/// Publishes until somebody on the other node hears it.
fn await_first(near: &Rig, crowd: &mut Crowd, channel: &str) -> Result<(), RunError> {
    const PAUSE: Duration = Duration::from_millis(20);
    let deadline = Instant::now() + PATIENCE;
    let mut is_through = false;
    while !is_through {
        if Instant::now() > deadline {
            let said = "no event came from one node to the other".to_owned();
            return Err(RunError::Closed(said));
        }
        let request = publication(&near.target, channel, 0..1, DATA_BYTES);
        ask(near.target.address, None, &request)?;
        let until = Instant::now() + PAUSE;
        while Instant::now() < until {
            crowd.turn(until, &mut |_, _, heard| {
                is_through |= matches!(heard, Heard::Event { payload, .. }
                    if wire::number_of(payload).is_some());
            })?;
        }
    }
    Ok(())
}

/// Before the load.
struct Scene<'a> {
    load: &'a Load,
    near: Rig,
    crowd: Crowd,
    requests: Requests,
    listeners: Range<usize>,
}

/// What came, while the load runs.
struct Hearing<'a> {
    load: &'a Load,
    pace: Pace,
    listeners: Range<usize>,
    ledger: Ledger,
    expected: u64,
    /// On the second node.
    far: Latency,
    near: Latency,
    /// By how much the second node was later than the first.
    added: Latency,
    /// Numbers that only one of the two nodes has heard so far.
    halves: BTreeMap<u64, Instant>,
    refused: u64,
    closed: u64,
}

impl<'a> Hearing<'a> {
    fn new(load: &'a Load, pace: Pace, listeners: Range<usize>) -> Self {
        let receivers = match load.sharing {
            Sharing::Split => load.channels,
            Sharing::All => load.listeners,
        };
        Self {
            expected: pace.total() * load.burst * load.hearers(),
            ledger: Ledger::new(receivers),
            far: Latency::new("far", "on the other node"),
            near: Latency::new("near", "on the same node"),
            added: Latency::new("added", "added by the bus"),
            halves: BTreeMap::new(),
            refused: 0,
            closed: 0,
            load,
            pace,
            listeners,
        }
    }

    fn hear(&mut self, now: Instant, client: usize, heard: &Heard<'_>) {
        let payload = match heard {
            Heard::Event { payload, .. } => payload,
            Heard::Refused(_) => return self.refused += 1,
            Heard::Ended(_) => return self.closed += 1,
            _ => return,
        };
        let Some(number) = wire::number_of(payload) else {
            return;
        };
        let Some(since) = self.pace.since(number / self.load.burst, now) else {
            return;
        };
        if !self.listeners.contains(&client) {
            self.near.record(since);
            return self.pair_up(number, now);
        }
        let channels = self.load.channels as u64;
        let receiver = match self.load.sharing {
            Sharing::Split => index(number % channels),
            Sharing::All => client - self.listeners.start,
        };
        if self.ledger.note(receiver, number / channels) {
            self.far.record(since);
            if self.load.locals == Locals::One {
                self.pair_up(number, now);
            }
        }
    }

    fn pair_up(&mut self, number: u64, now: Instant) {
        match self.halves.remove(&number) {
            Some(first) => self.added.record(now.saturating_duration_since(first)),
            None => drop(self.halves.insert(number, now)),
        }
    }

    fn latencies(&self) -> Vec<Figure> {
        let mut figures = Vec::new();
        let mut add = |latency: &Latency, keys: [&'static str; 2], labels: [&'static str; 2]| {
            if latency.histogram.is_empty() {
                return;
            }
            for ((key, label), percentile) in keys.into_iter().zip(labels).zip([50.0, 99.0]) {
                let ms = latency.histogram.value_at_percentile(percentile) as f64 / 1e6;
                figures.push(figure(key, label, "ms", ms));
            }
        };
        if self.load.locals == Locals::One {
            add(
                &self.far,
                ["far_p50_ms", "far_p99_ms"],
                ["heard on the other node, p50", "… p99"],
            );
            add(
                &self.near,
                ["near_p50_ms", "near_p99_ms"],
                ["heard on the same node, p50", "… p99"],
            );
            add(&self.added, ADDED_KEYS, ADDED_LABELS);
        }
        figures
    }

    fn faults(&self, requests: &Requests) -> Vec<String> {
        let account = self.ledger.deliveries(self.expected);
        let mut faults = ledger::faults(&account, true);
        faults.extend(requests.faults(self.pace.total() * self.load.burst));
        for (count, what) in [(self.refused, "refused"), (self.closed, "closed")] {
            if count > 0 {
                faults.push(format!("{count} subscriptions or connections were {what}"));
            }
        }
        faults
    }
}

/// Of what the bus adds; of the bare client, its round trip.
pub(super) const ADDED_KEYS: [&str; 2] = ["added_p50_ms", "added_p99_ms"];
pub(super) const ADDED_LABELS: [&str; 2] = ["added by the bus, p50", "… p99"];

impl Scene<'_> {
    fn play(self, pair: &Pair, setup: &Setup) -> Result<Run, RunError> {
        let Self {
            load,
            near,
            mut crowd,
            mut requests,
            listeners,
        } = self;
        let counted = pair.counts(0)?;
        let read = pair.reading()?;
        let (began, generator) = (Instant::now(), cpu::thread_cpu());
        let mut hearing = Hearing::new(load, load.pace(setup.seconds), listeners);
        let is_done = |hearing: &Hearing<'_>, requests: &Requests| {
            hearing.ledger.received() >= hearing.expected && requests.is_done()
        };
        while !is_done(&hearing, &requests) && !hearing.pace.gives_up(Instant::now()) {
            let now = Instant::now();
            while let Some(due) = hearing.pace.take_due(now) {
                (due * load.burst..(due + 1) * load.burst).for_each(|it| requests.ask(it));
            }
            requests.pump(&mut crowd, now, |number| {
                let channel = load.channel(&near, number);
                publication(&near.target, &channel, number..number + 1, DATA_BYTES)
            })?;
            crowd.turn(hearing.pace.next_at(), &mut |now, client, heard| {
                if requests.owns(client) {
                    requests.hear(now, client, &heard);
                } else {
                    hearing.hear(now, client, &heard);
                }
            })?;
        }
        let used = pair.reading()?.since(&read);
        let late_ms = hearing.pace.late_ms();
        let generator = Generator {
            cpu_share: (cpu::thread_cpu() - generator).as_secs_f64()
                / began.elapsed().as_secs_f64(),
            late_p99_ms: late_ms.0,
            late_max_ms: late_ms.1,
        };
        let events = hearing.pace.total() * load.burst;
        let mut figures = cpu_figures(&used, events);
        figures.extend(hearing.latencies());
        if let (Some(before), Some(after)) = (counted, pair.counts(0)?) {
            let batches = (after.batches_out - before.batches_out).max(1.0);
            let bytes = after.bytes_out - before.bytes_out;
            figures.push(figure(
                BATCH_BYTES,
                "bytes of a batch",
                "B",
                bytes / batches,
            ));
            figures.push(figure(
                "batches_per_event",
                "batches of an event",
                "",
                batches / events as f64,
            ));
        }
        Ok(Run {
            figures,
            faults: hearing.faults(&requests),
            void: generator.verdict(),
        })
    }
}

/// By which the bare client knows how much to publish.
pub(super) const BATCH_BYTES: &str = "batch_bytes";
pub(super) const BRIDGE_OUT: (&str, &str) =
    ("bridge_out_us", "the bridge of the publishing node: CPU");
pub(super) const BRIDGE_IN: (&str, &str) = ("bridge_in_us", "… of the other node: CPU");
pub(super) const BUS_CPU: (&str, &str) = ("bus_us", "the bus' server: CPU");

/// CPU time per event.
fn cpu_figures(used: &Reading, events: u64) -> Vec<Figure> {
    let us = |cpu: Duration| cpu.as_secs_f64() * 1e6 / events.max(1) as f64;
    let [near, far] = used.nodes.map(|node| us(node.cpu));
    let mut figures = vec![
        figure("cpu_us", "both nodes: CPU of an event", "us", near + far),
        figure("cpu_near_us", "… the publishing one", "us", near),
        figure("cpu_far_us", "… the other one", "us", far),
    ];
    if let Some([out, into]) = used.bridges {
        figures.push(figure(BRIDGE_OUT.0, BRIDGE_OUT.1, "us", us(out)));
        figures.push(figure(BRIDGE_IN.0, BRIDGE_IN.1, "us", us(into)));
    }
    figures.push(figure(BUS_CPU.0, BUS_CPU.1, "us", us(used.bus.cpu)));
    figures
}

/// Two nodes that know each other and have nothing to do.
pub(super) fn idle(load: &Load, subject: &Subject, setup: &Setup) -> Result<Run, String> {
    let pair = Pair::start(subject, setup, 2)?;
    let mut scene = load.enter(&pair, setup).map_err(|it| it.to_string())?;
    let rest = |scene: &mut Scene<'_>| -> io::Result<Reading> {
        let before = pair.reading()?;
        let ends = Instant::now() + Duration::from_secs(setup.seconds);
        while Instant::now() < ends {
            scene.crowd.turn(ends, &mut |_, _, _| {})?;
        }
        Ok(pair.reading()?.since(&before))
    };
    let used = rest(&mut scene).map_err(|it| it.to_string())?;
    let percent = |cpu: Duration| cpu.as_secs_f64() * 100.0 / setup.seconds as f64;
    let [near, far] = used.nodes.map(|node| percent(node.cpu));
    let unit = "% of a core";
    let mut figures = vec![figure("idle_percent", "both nodes: CPU", unit, near + far)];
    if let Some([near, far]) = used.bridges {
        let both = percent(near) + percent(far);
        figures.push(figure(
            "idle_bridges_percent",
            "… of it their bridges",
            unit,
            both,
        ));
    }
    Ok(Run {
        figures,
        ..Run::default()
    })
}
