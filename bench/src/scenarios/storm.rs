//! Storm: all connections drop at once and come back, again and again. A canary tells how others fare.
//!
//! Owns: the `storm` scenario; the canary's thread.
//! May depend on: what its siblings may, and `churn`.
//! Invariants: the canary has a thread and a crowd of its own, so that its times hold none of the storm's
//! work on this side.

use std::{
    collections::VecDeque,
    thread,
    time::{Duration, Instant},
};

use clap::Args;

use super::{Trouble, churn::Churn, count};
use crate::{
    cpu,
    crowd::{Crowd, Heard, Kind, Subscription},
    outcome::{Figure, Outcome, Setting},
    pace::Pace,
    requests::Requests,
    rig::{self, CpuKeys, Rig, RunError, cpu_figures, figure, setting},
    track::{Names, Track},
};

#[derive(Clone, Debug, Args)]
pub struct Storm {
    /// Connections, 1..=1000000
    #[arg(long, value_name = "COUNT", default_value_t = 2_000, value_parser = count(1..=1_000_000))]
    pub connections: usize,
    /// Connections that are on their way back at once, 1..=100000
    #[arg(long, value_name = "COUNT", default_value_t = 500, value_parser = count(1..=100_000))]
    pub in_flight: usize,
}

const CPU: CpuKeys = [
    (
        "cpu_per_connection_us",
        "CPU per connection dropped and back",
    ),
    ("cpu_user_per_connection_us", "… in user space"),
    ("cpu_system_per_connection_us", "… in the kernel"),
];

const REJOINED: Names = Names {
    latency: ("rejoined", "drop to subscribed again"),
    rate: ("rejoined_per_s", "subscribed again", "connections/s"),
    p99: ("rejoined_p99_ms", "p99 of subscribed again"),
};

const CANARY: Names = Names {
    latency: ("canary", "canary's connect scheduled to subscribed"),
    rate: ("canary_per_s", "canaries subscribed", "connections/s"),
    p99: ("canary_p99_ms", "p99 of the canary"),
};

const UP: Names = Names {
    latency: ("up", "GET /up scheduled to answer received"),
    rate: ("up_per_s", "answers of /up", "answers/s"),
    p99: ("up_p99_ms", "p99 of /up"),
};

/// A fresh connection, and a look at `/up`, each 50 ms.
const CANARIES_PER_S: u64 = 20;
/// In which everybody should be back.
const PATIENCE: Duration = Duration::from_secs(30);
/// Calm before the storm.
const CALM: Duration = Duration::from_secs(1);
/// How long who was turned away waits: 100 ms and up to as much again, by number.
const RETRY_MS: u64 = 100;

impl Storm {
    pub fn run(&self, rig: &Rig) -> Result<Outcome, RunError> {
        let mut crowd = rig.crowd(self.connections + 64)?;
        let wish = Subscription::to(rig.channel("storm"));
        rig.join(&mut crowd, self.connections, |_| vec![wish.clone()])?;

        let meter = rig.start()?;
        let (watched, began) = (rig.clone(), Instant::now());
        let canary = thread::spawn(move || Canary::run(&watched, began));
        while began.elapsed() < CALM.min(Duration::from_secs(rig.seconds) / 4) {
            crowd.turn(began + CALM, &mut |_, _, _| {})?;
        }
        let ends = began + Duration::from_secs(rig.seconds);
        let mut back = Back::new(self.connections, began);
        back.rage(&mut crowd, self.in_flight, &wish, ends)?;
        let canary = canary.join().map_err(|_| RunError::Thread)??;
        let late_ms = canary.churn.pace.late_ms();
        let mut outcome = meter.finish(rig, "storm", self.settings(rig), late_ms)?;
        outcome.generator.cpu_share = outcome.generator.cpu_share.max(canary.cpu_share);
        outcome.void = outcome.generator.verdict();
        outcome.figures = back.figures(&outcome);
        back.complete(&mut outcome);
        canary.complete(&mut outcome);
        Ok(outcome)
    }

    fn settings(&self, rig: &Rig) -> Vec<Setting> {
        vec![
            setting("seconds", rig.seconds),
            setting("connections", self.connections),
            setting("in-flight", self.in_flight),
        ]
    }
}

/// Connections on their way back.
pub(super) struct Back {
    dropped: Instant,
    /// Who waits, and until when; in the order of their times.
    waiting: VecDeque<(usize, Instant)>,
    has_joined: Vec<bool>,
    under_way: usize,
    joined: usize,
    storms: u64,
    longest: Duration,
    away: u64,
    track: Track,
    trouble: Trouble,
}

impl Back {
    /// Everybody is there.
    pub(super) fn new(connections: usize, began: Instant) -> Self {
        Self {
            dropped: began,
            waiting: VecDeque::new(),
            has_joined: vec![true; connections],
            under_way: 0,
            joined: connections,
            storms: 0,
            longest: Duration::ZERO,
            away: 0,
            track: Track::new(began, REJOINED).shown(),
            trouble: Trouble::default(),
        }
    }

    /// Drops all and has them come back, until that time; the last storm is seen to its end.
    pub(super) fn rage(
        &mut self,
        crowd: &mut Crowd,
        in_flight: usize,
        wish: &Subscription,
        ends: Instant,
    ) -> Result<(), RunError> {
        while Instant::now() < ends && self.is_complete() {
            self.drop_all(crowd);
            while !self.is_complete() && self.dropped.elapsed() < PATIENCE {
                self.begin(crowd, in_flight, wish)?;
                crowd.turn(ends, &mut |now, client, heard| {
                    self.hear(now, client, &heard)
                })?;
            }
            self.longest = self.longest.max(self.dropped.elapsed());
        }
        Ok(())
    }

    /// What a storm costs and how it went, in figures.
    pub(super) fn figures(&self, outcome: &Outcome) -> Vec<Figure> {
        let connections = self.has_joined.len() as u64 * self.storms;
        let mut figures = cpu_figures(outcome, connections, CPU);
        figures.extend([
            figure("storms", "times that all dropped", "", self.storms as f64),
            figure(
                "rejoined_all_s",
                "all were back after, at worst",
                "s",
                self.longest.as_secs_f64(),
            ),
            figure(
                "turned_away",
                "attempts that the server turned away",
                "",
                self.away as f64,
            ),
        ]);
        figures
    }

    fn is_complete(&self) -> bool {
        self.joined == self.has_joined.len()
    }

    fn drop_all(&mut self, crowd: &mut Crowd) {
        self.dropped = Instant::now();
        for client in 0..self.has_joined.len() {
            crowd.reset(client);
            self.waiting.push_back((client, self.dropped));
        }
        self.has_joined.fill(false);
        self.joined = 0;
        self.storms += 1;
    }

    fn begin(
        &mut self,
        crowd: &mut Crowd,
        in_flight: usize,
        wish: &Subscription,
    ) -> Result<(), RunError> {
        let now = Instant::now();
        while self.under_way < in_flight
            && let Some((client, _)) = self.waiting.pop_front_if(|(_, when)| *when <= now)
        {
            crowd.reopen(client, Kind::WebSocket, vec![wish.clone()])?;
            self.under_way += 1;
        }
        self.track.tick(now);
        Ok(())
    }

    fn hear(&mut self, now: Instant, client: usize, heard: &Heard<'_>) {
        match heard {
            Heard::Subscribed if !self.has_joined[client] => {
                self.has_joined[client] = true;
                self.under_way -= 1;
                self.joined += 1;
                self.track.record(now, now - self.dropped);
            }
            // Who is back should stay.
            Heard::Ended(_) if self.has_joined[client] => self.trouble.hear(heard),
            Heard::Ended(_) => {
                self.under_way -= 1;
                self.away += 1;
                let wait_ms = RETRY_MS + client as u64 % RETRY_MS;
                self.waiting
                    .push_back((client, now + Duration::from_millis(wait_ms)));
            }
            Heard::Connected
            | Heard::Established
            | Heard::Subscribed
            | Heard::Event { .. }
            | Heard::Refused(_)
            | Heard::Answer { .. } => {}
        }
    }

    pub(super) fn complete(self, outcome: &mut Outcome) {
        outcome.faults.extend(self.trouble.faults());
        let all = self.has_joined.len();
        if !self.is_complete() {
            let left = all - self.joined;
            outcome
                .faults
                .push(format!("{left} of {all} connections did not come back"));
        }
        let (latency, series) = self.track.finish();
        outcome.latencies.push(latency);
        outcome.series.extend(series);
    }
}

/// Somebody else, who connects and asks while the storm rages.
struct Canary {
    churn: Churn,
    up_pace: Pace,
    up: Track,
    requests: Requests,
    cpu_share: f64,
}

impl Canary {
    fn run(rig: &Rig, began: Instant) -> Result<Self, RunError> {
        cpu::watch_exactly();
        let mut crowd = Crowd::new(rig.target.clone(), rig.step)?;
        let begins = rig::beginning();
        let pace = || Pace::new(begins, CANARIES_PER_S, rig.seconds);
        let wish = Subscription::to(rig.channel("canary"));
        let mut canary = Self {
            requests: Requests::open(&mut crowd, 1)?,
            churn: Churn::new(pace(), wish, CANARY),
            up: Track::new(began, UP),
            up_pace: pace(),
            cpu_share: 0.0,
        };
        let request = rig.target.plain_request("/up");
        while !canary.churn.is_done() || !canary.requests.is_done() {
            let now = Instant::now();
            if canary.churn.pace.gives_up(now) {
                break;
            }
            canary.churn.begin_due(&mut crowd, now);
            while let Some(number) = canary.up_pace.take_due(now) {
                canary.requests.ask(number);
            }
            canary.requests.pump(&mut crowd, now, |_| &*request)?;
            canary.up.tick(now);
            let until = canary.churn.pace.next_at();
            crowd.turn(until, &mut |now, client, heard| {
                canary.hear(now, client, &heard);
            })?;
        }
        canary.cpu_share = cpu::thread_cpu().as_secs_f64() / began.elapsed().as_secs_f64();
        Ok(canary)
    }

    fn hear(&mut self, now: Instant, client: usize, heard: &Heard<'_>) {
        if !self.requests.owns(client) {
            self.churn.hear(now, client, heard);
        } else if let Some(number) = self.requests.hear(now, client, heard)
            && let Some(since) = self.up_pace.since(number, now)
        {
            self.up.record(now, since);
        }
    }

    fn complete(self, outcome: &mut Outcome) {
        let asked = self.up_pace.total();
        self.churn.complete_whole(outcome);
        outcome.faults.extend(self.requests.faults(asked));
        let (latency, series) = self.up.finish();
        outcome.latencies.push(latency);
        outcome.series.extend(series);
    }
}
