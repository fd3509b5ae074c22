//! Rounds: every subject gets every course once per round, in turn.
//!
//! Owns: the order of a run, repetitions of void runs, what each run showed.
//! May depend on: `cores`, `courses`, `cpu`, `exposition`, `rows`, `sink`, `spread`, `stalls`, `subjects`.
//! Invariants: a course's subjects follow each other, in an order that changes, so that what the
//! machine does meanwhile falls on all of them; each run has a fresh process; a void run has no value.

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use crate::{
    cores::Placed,
    cpu::Usage,
    floors::Floor,
    outcome::{Figure, Outcome},
    rig::{Rig, figure},
    stalls::Stalls,
    table::{
        courses::Course,
        exposition::Buckets,
        rows::Row,
        sink::Sink,
        spread::Spread,
        subjects::{Subject, ask},
    },
};

/// What to run.
pub struct Plan {
    /// The one that the table is about comes first.
    pub subjects: Vec<Subject>,
    /// Pairs of a subject's index and a course that it gets.
    pub runs: Vec<(Course, usize)>,
    pub rounds: u32,
    pub seconds: u64,
    pub step: Duration,
    /// Files that a process may have open.
    pub descriptors: u64,
}

/// All that was shown.
#[derive(Default)]
pub struct Shown {
    /// Round by round: the outcome, or why there is none.
    pub runs: BTreeMap<(usize, Course), Vec<Result<Outcome, String>>>,
    /// What the machine does by itself, watched before each round.
    pub stalls: Stalls,
}

/// For how long the machine alone is watched.
const WATCHED: Duration = Duration::from_secs(2);
/// A run whose load generator was the bottleneck is tried so often in all.
const ATTEMPTS: u32 = 2;

impl Plan {
    /// The rows' courses for each server, and for each floor those of the rows that it stands beside.
    pub fn runs(subjects: &[Subject], rows: &[Row]) -> Vec<(Course, usize)> {
        let is_wanted = |course, subject: &Subject| match subject.as_floor() {
            Some(floor) => rows.iter().any(|row| row.floor == Some((floor, course))),
            None => rows.iter().any(|row| row.course == course),
        };
        let mut runs = Vec::new();
        for &course in Course::ALL {
            let takers = subjects.iter().enumerate();
            let takers = takers.filter(|(_, subject)| is_wanted(course, subject));
            runs.extend(takers.map(|(at, _)| (course, at)));
        }
        runs
    }

    /// Runs all rounds; `progress` hears of each step.
    pub fn run(&self, shown: &mut Shown, mut progress: impl FnMut(&str)) {
        for round in 1..=self.rounds {
            progress(&format!(
                "round {round} of {}: the machine alone",
                self.rounds
            ));
            shown.stalls.watch(WATCHED);
            for &course in Course::ALL {
                for at in in_turn(self.takers(course), round) {
                    let name = &self.subjects[at].name;
                    progress(&format!(
                        "round {round} of {}: {}: {name}",
                        self.rounds,
                        course.name()
                    ));
                    let outcome = self.measure(course, at, &mut progress);
                    shown.runs.entry((at, course)).or_default().push(outcome);
                }
            }
        }
    }

    fn takers(&self, course: Course) -> impl Iterator<Item = usize> {
        let runs = self.runs.iter();
        runs.filter(move |(of, _)| *of == course)
            .map(|&(_, subject)| subject)
    }

    fn measure(
        &self,
        course: Course,
        at: usize,
        progress: &mut impl FnMut(&str),
    ) -> Result<Outcome, String> {
        let mut outcome = self.measure_once(course, at)?;
        for _ in 1..ATTEMPTS {
            let Some(void) = &outcome.void else { break };
            progress(&format!("… again, since {void}"));
            outcome = self.measure_once(course, at)?;
        }
        Ok(outcome)
    }

    fn measure_once(&self, course: Course, at: usize) -> Result<Outcome, String> {
        let running = self.subjects[at].start(course.needs());
        let running = running.map_err(|error| error.to_string())?;
        let rig = Rig {
            target: running.target.clone(),
            seconds: self.seconds,
            step: self.step,
            tag: "table".to_owned(),
            in_bursts: false,
            is_traced: false,
        };
        // The server has been started: it keeps all cores.
        let placed = Placed::on_last();
        let outcome = course.run(&rig, self.descriptors);
        drop(placed);
        let mut outcome = outcome.map_err(|error| error.to_string())?;
        if let (Some(sink), Some(pid)) = (&running.sink, rig.target.pid) {
            wait_for_webhooks(&mut outcome, sink, course.webhooks(self.seconds), pid);
        }
        if let Some(metrics) = running.metrics {
            let request = rig.target.plain_request("/metrics");
            let (_, body) =
                ask(metrics, None, &request).map_err(|error| format!("metrics: {error}"))?;
            outcome.figures.extend(own_figures(&body));
        }
        Ok(outcome)
    }
}

/// The order of a round, counted from 1. The first of a course comes behind another course, which is not the
/// same, so each of them is the first in its turn: in as many rounds as there are of them each has each place once.
pub(super) fn in_turn(all: impl Iterator<Item = usize>, round: u32) -> Vec<usize> {
    let mut order: Vec<usize> = all.collect();
    let by = (round as usize - 1) % order.len().max(1);
    order.rotate_left(by);
    order
}

/// Of the last ones.
const WEBHOOKS_WITHIN: Duration = Duration::from_secs(10);

/// What the server measured of itself since it started.
fn own_figures(metrics: &[u8]) -> Vec<Figure> {
    let metrics = String::from_utf8_lossy(metrics);
    let of = |name, percentile| Buckets::parse(&metrics, name).percentile(percentile);
    let hop = of("sockudo_mesh_hop_seconds", 99.0)
        .map(|s| figure("mesh_hop_p99_us", "p99 of a hop", "us", s * 1e6));
    let turn = of("sockudo_shard_turn_seconds", 99.9)
        .map(|s| figure("turn_p999_ms", "p99.9 of turns", "ms", s * 1e3));
    hop.into_iter().chain(turn).collect()
}

impl Shown {
    /// A row's values of a subject, round by round.
    pub fn values(&self, row: &Row, subject: usize) -> Vec<Option<f64>> {
        self.values_in(row, subject, row.course)
    }

    fn values_in(&self, row: &Row, subject: usize, course: Course) -> Vec<Option<f64>> {
        let value = |run: &Result<Outcome, String>| match run {
            Ok(outcome) if outcome.void.is_none() => row.value(outcome),
            Ok(_) | Err(_) => None,
        };
        let runs = self.runs.get(&(subject, course));
        runs.map_or_else(Vec::new, |runs| runs.iter().map(value).collect())
    }

    pub fn spread(&self, row: &Row, subject: usize) -> Option<Spread> {
        let values: Vec<f64> = self.values(row, subject).into_iter().flatten().collect();
        Spread::of(&values)
    }

    /// A subject's ratio to the floor that the row names.
    pub fn ratio_to_floor(
        &self,
        row: &Row,
        subject: usize,
        subjects: &[Subject],
    ) -> Option<Spread> {
        let (floor, course) = row.floor?;
        let is_it = |subject: &Subject| subject.as_floor() == Some(floor);
        let at = subjects.iter().position(is_it)?;
        let under = self.values_in(row, at, course);
        Spread::of_ratio(&self.values(row, subject), &under)
    }

    /// The floor's own values.
    pub fn floor_spread(&self, row: &Row, subjects: &[Subject]) -> Option<(Floor, Spread)> {
        let (floor, course) = row.floor?;
        let is_it = |subject: &Subject| subject.as_floor() == Some(floor);
        let at = subjects.iter().position(is_it)?;
        let values: Vec<f64> = self
            .values_in(row, at, course)
            .into_iter()
            .flatten()
            .collect();
        Some((floor, Spread::of(&values)?))
    }

    /// How many times another's value is as large as the first subject's.
    pub fn ratio_of(&self, row: &Row, other: usize) -> Option<Spread> {
        self.ratio_between(row, other, 0)
    }

    /// How many times one subject's value is as large as another's.
    pub fn ratio_between(&self, row: &Row, one: usize, other: usize) -> Option<Spread> {
        Spread::of_ratio(&self.values(row, one), &self.values(row, other))
    }

    /// What failed, was void or went wrong, run by run.
    pub fn troubles(&self, subjects: &[Subject]) -> Vec<Trouble> {
        let mut troubles = Vec::new();
        for ((subject, course), runs) in &self.runs {
            for (round, run) in runs.iter().enumerate() {
                let mut add = |kind, what: &str| {
                    let name = &subjects[*subject].name;
                    let round = round + 1;
                    let course = course.name();
                    troubles.push(Trouble {
                        subject: *subject,
                        kind,
                        text: format!("{name}: {course}, round {round}: {what}"),
                    });
                };
                match run {
                    Err(error) => add(TroubleKind::Failed, error),
                    Ok(outcome) => {
                        if let Some(void) = &outcome.void {
                            add(TroubleKind::Void, void);
                        }
                        for fault in &outcome.faults {
                            add(TroubleKind::Fault, fault);
                        }
                    }
                }
            }
        }
        troubles
    }
}

/// What a reader of a table must know of a run.
#[derive(Clone, Debug)]
pub struct Trouble {
    pub subject: usize,
    pub kind: TroubleKind,
    pub text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TroubleKind {
    /// The scenario could not be run to its end.
    Failed,
    /// The load generator was the bottleneck.
    Void,
    /// Something was lost, refused or closed.
    Fault,
}

/// Waits until all webhooks of a run have come, and counts what the server does for them behind the load as
/// the client events' too: one that falls behind is not cheaper for it.
fn wait_for_webhooks(outcome: &mut Outcome, sink: &Sink, wanted: u64, pid: u32) {
    let at_end = Usage::of(pid);
    let until = Instant::now() + WEBHOOKS_WITHIN;
    while sink.events() < wanted && Instant::now() < until {
        thread::sleep(Duration::from_millis(10));
    }
    let came = sink.events();
    if came < wanted {
        let fault = format!("{came} of {wanted} webhooks came");
        outcome.faults.push(fault);
    }
    if let (Ok(at_end), Ok(usage)) = (at_end, Usage::of(pid)) {
        let behind_us = usage.since(&at_end).cpu.as_secs_f64() * 1e6;
        let mut figures = outcome.figures.iter_mut();
        if let Some(figure) = figures.find(|it| it.key == "cpu_per_client_event_us") {
            figure.value += behind_us / wanted.max(1) as f64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_subject_has_each_place_once_in_as_many_rounds_as_there_are_subjects() {
        for count in 1..6 {
            let orders: Vec<Vec<usize>> = (1..=count as u32)
                .map(|round| in_turn(0..count, round))
                .collect();
            for place in 0..count {
                let mut there: Vec<usize> = orders.iter().map(|order| order[place]).collect();
                there.sort_unstable();
                assert_eq!(
                    there,
                    (0..count).collect::<Vec<_>>(),
                    "place {place} of {count}"
                );
            }
        }
        assert_eq!(in_turn(0..3, 4), in_turn(0..3, 1));
        assert!(in_turn(0..0, 2).is_empty());
    }
}
