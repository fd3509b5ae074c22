//! Runs scenarios on subjects and floors in turn, round after round.
//!
//! Owns: the order of a run: which subject, which scenario, fresh or not.
//! May depend on: `peers`, `measures`, `floors`, `report`.
//! Invariants: within a round every subject gets every scenario once, so that what the machine does
//! meanwhile falls on all of them.

use thiserror::Error;

use crate::{
    floors,
    measures::{
        Load, ScenarioError,
        client_events::{self, Audience},
        fanout,
        idle::{self, Channels},
        publish,
    },
    peers::{Subject, SubjectError},
    report::Report,
};

/// A group of measures that is run or left out together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    Fanout,
    ClientEvents,
    Publish,
    Idle,
}

impl Scenario {
    pub const ALL: [Self; 4] = [Self::Fanout, Self::ClientEvents, Self::Publish, Self::Idle];

    pub fn name(self) -> &'static str {
        match self {
            Self::Fanout => "fanout",
            Self::ClientEvents => "client-events",
            Self::Publish => "publish",
            Self::Idle => "idle",
        }
    }
}

/// What to run.
pub struct Comparison {
    pub subjects: Vec<Subject>,
    pub scenarios: Vec<Scenario>,
    pub load: Load,
    pub rounds: u32,
    pub with_floors: bool,
}

/// Why a run ended early.
#[derive(Debug, Error)]
pub enum CompareError {
    #[error(transparent)]
    Subject(#[from] SubjectError),
    #[error("{subject}: {source}")]
    Scenario {
        subject: String,
        source: ScenarioError,
    },
}

impl Comparison {
    /// Runs all rounds; `progress` hears of each step.
    pub fn run(&self, mut progress: impl FnMut(&str)) -> Result<Report, CompareError> {
        let mut report = Report::default();
        for round in 1..=self.rounds {
            for subject in &self.subjects {
                for &scenario in &self.scenarios {
                    let (name, what) = (subject.name(), scenario.name());
                    progress(&format!("round {round} of {}: {name}: {what}", self.rounds));
                    self.measure(&mut report, subject, scenario)?;
                }
            }
            if self.with_floors {
                progress(&format!("round {round} of {}: floors", self.rounds));
                self.measure_floors(&mut report)?;
            }
        }
        Ok(report)
    }

    fn measure(
        &self,
        report: &mut Report,
        subject: &Subject,
        scenario: Scenario,
    ) -> Result<(), CompareError> {
        let name = subject.name();
        let failed = |source| CompareError::Scenario {
            subject: name.clone(),
            source,
        };
        let load = &self.load;
        match scenario {
            Scenario::Fanout => {
                let running = subject.start()?;
                report.add(
                    &name,
                    fanout::run(&running.target, load, 1).map_err(failed)?,
                );
                report.add(
                    &name,
                    fanout::run(&running.target, load, 10).map_err(failed)?,
                );
            }
            Scenario::ClientEvents => {
                let running = subject.start()?;
                for audience in [Audience::OneOther, Audience::Nobody] {
                    let sample = client_events::run(&running.target, load, audience);
                    report.add(&name, sample.map_err(failed)?);
                }
            }
            Scenario::Publish => {
                let running = subject.start()?;
                report.add(&name, publish::run(&running.target, load).map_err(failed)?);
            }
            Scenario::Idle => {
                for channels in [Channels::OneForAll, Channels::OneEach] {
                    let running = subject.start()?;
                    let samples = idle::run(&running.target, load, channels).map_err(failed)?;
                    samples
                        .into_iter()
                        .for_each(|sample| report.add(&name, sample));
                }
            }
        }
        Ok(())
    }

    fn measure_floors(&self, report: &mut Report) -> Result<(), CompareError> {
        let failed = |source| CompareError::Scenario {
            subject: FLOOR.to_owned(),
            source,
        };
        for scenario in &self.scenarios {
            let sample = match scenario {
                Scenario::Fanout => floors::send(&self.load),
                Scenario::ClientEvents => floors::recv(&self.load),
                Scenario::Publish => floors::publish(&self.load),
                Scenario::Idle => continue,
            };
            report.add(FLOOR, sample.map_err(failed)?);
        }
        Ok(())
    }
}

/// The floors' name in a report.
pub const FLOOR: &str = "floor";
