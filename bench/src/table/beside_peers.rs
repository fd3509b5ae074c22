//! `sockudo bench peers`: this build and other servers, side by side.
//!
//! Owns: the flags, the goals that other servers are held against, the sheet.
//! May depend on: its siblings.
//! Invariants: a peer that fails a load is shown as failed, and the run goes on; the exit status says only
//! whether there is a table.

use std::{collections::BTreeSet, env, io, path::PathBuf, process::ExitCode};

use clap::{Args, builder::PossibleValuesParser};
use serde_json::{Value, json};

use super::{
    Form,
    courses::{self, Course},
    flags::{Flags, named},
    print::{self, Sheet},
    rounds::Shown,
    rows::{self, Kind, Row},
    spread::Spread,
    subjects::{Program, Subject},
};
use crate::{
    json::tell_failure,
    outcome::{Machine, Outcome},
    text,
};

#[derive(Clone, Debug, Args)]
pub struct PeerTable {
    /// Sockudo of another version, 2.x to 5.x; may be repeated
    #[arg(long, value_name = "VERSION=PATH", value_parser = named)]
    sockudo: Vec<(String, String)>,
    /// Another server, run by `sh -c` with HOST, PORT, APP_ID, APP_KEY and APP_SECRET in its
    /// environment, and CERTIFICATE and KEY, its files for TLS; may be repeated. The CPU time is that of the shell's last child
    #[arg(long, value_name = "NAME=COMMAND", value_parser = named)]
    peer: Vec<(String, String)>,
    /// The loads with TLS on the port instead of those without
    #[arg(long, conflicts_with = "loads")]
    tls: bool,
    /// Loads to run [default: all without TLS]
    #[arg(long, value_name = "NAMES", value_delimiter = ',',
        value_parser = PossibleValuesParser::new(loads()))]
    loads: Vec<String>,
    #[command(flatten)]
    flags: Flags,
}

/// The names of what the rows are of, in the order in which they run.
fn loads() -> Vec<&'static str> {
    let courses: BTreeSet<Course> = rows::of_peers().iter().map(|row| row.course).collect();
    courses.into_iter().map(Course::name).collect()
}

impl PeerTable {
    pub fn run(self) -> ExitCode {
        match self.measure() {
            Ok(table) => {
                table.print(self.flags.form());
                ExitCode::SUCCESS
            }
            Err(error) => {
                let error = format!("the path of this program: {error}");
                tell_failure("sockudo bench peers", error, self.flags.json)
            }
        }
    }

    fn measure(&self) -> io::Result<Measured> {
        let is_wanted = |row: &Row| {
            if self.loads.is_empty() {
                return row.course.has_tls() == self.tls;
            }
            self.loads.iter().any(|name| name == row.course.name())
        };
        let rows: Vec<Row> = rows::of_peers().into_iter().filter(is_wanted).collect();
        let subjects = self.subjects()?;
        let plan = self.flags.plan(&subjects, &rows);
        let mut measured = Measured {
            machine: Machine::here(),
            command: self.flags.command(),
            shown: Shown::default(),
            descriptors: plan.descriptors,
            subjects,
            rows,
        };
        let progress = |step: &str| eprintln!("sockudo bench peers: {step}");
        plan.run(&mut measured.shown, progress);
        Ok(measured)
    }

    fn subjects(&self) -> io::Result<Vec<Subject>> {
        let mut subjects = self.flags.ours()?;
        // Where shards are given they are not pinned anyway.
        if self.flags.shards.is_empty() {
            subjects.insert(1, Subject::unpinned("ours", env::current_exe()?));
        }
        subjects.extend(self.sockudo.iter().map(|(version, path)| Subject {
            name: format!("sockudo {version}"),
            program: Program::Predecessor {
                path: PathBuf::from(path),
            },
        }));
        subjects.extend(self.peer.iter().map(|(name, command)| Subject {
            name: name.clone(),
            program: Program::Shell {
                command: command.clone(),
            },
        }));
        Ok(subjects)
    }
}

/// All that a table shows.
struct Measured {
    machine: Machine,
    command: String,
    subjects: Vec<Subject>,
    rows: Vec<Row>,
    shown: Shown,
    descriptors: u64,
}

/// How many times as much as ours a peer should need at least.
fn goal(row: &Row) -> Option<f64> {
    match (row.kind, row.course) {
        (
            Kind::Cpu,
            Course::Chatter | Course::ChatterBursts | Course::Publish | Course::PublishBursts,
        ) => Some(3.0),
        (Kind::Cpu, Course::Fanout | Course::FanoutBatch | Course::TlsFanout) => Some(2.0),
        (Kind::Memory, Course::TlsIdle) => Some(4.0),
        (Kind::Memory, _) => Some(8.0),
        (Kind::Latency, _) => Some(1.0),
        (Kind::Cpu | Kind::Other, _) => None,
    }
}

/// Whether a ratio reaches its goal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reached {
    Yes,
    /// The best of the rounds does.
    InARound,
    No,
}

fn reached(ratio: Spread, goal: f64) -> Reached {
    if ratio.median >= goal {
        Reached::Yes
    } else if ratio.most >= goal {
        Reached::InARound
    } else {
        Reached::No
    }
}

impl Measured {
    #[expect(clippy::print_stdout, reason = "the answer that was asked for")]
    fn print(&self, form: Form) {
        if form == Form::Json {
            println!("{:#}", self.as_value());
            return;
        }
        let heading = print::heading(&self.machine, &self.command);
        let notes = [
            ("Loads", courses::described(&self.rows, self.descriptors)),
            ("The machine alone", self.shown.stalls.lines()),
            ("Behind our goals", self.missed()),
            ("Failures and faults", self.troubles()),
        ];
        print::print(&heading, &self.sheet(), &notes, form);
    }

    /// Those that are no build of ours.
    fn others(&self) -> impl Iterator<Item = usize> {
        let subjects = self.subjects.iter().enumerate();
        let others = subjects.filter(|(_, subject)| !subject.is_ours());
        others.map(|(at, _)| at)
    }

    fn sheet(&self) -> Sheet {
        let mut sheet = Sheet::new(&["row", "unit"]);
        for (at, subject) in self.subjects.iter().enumerate() {
            sheet.head.push(subject.name.clone());
            if at > 0 {
                sheet.head.push("x ours (range)".to_owned());
            }
        }
        for row in &self.rows {
            let mut cells = vec![row.label.clone(), row.unit.to_owned()];
            let mut has_values = false;
            for at in 0..self.subjects.len() {
                let cell = self.cell(row, at);
                has_values |= cell != print::NOTHING;
                cells.push(cell);
                if at > 0 {
                    cells.push(print::spread(self.shown.ratio_of(row, at)));
                }
            }
            // A percentile that needs more values than any server got has no row.
            if has_values {
                sheet.rows.push(cells);
            }
        }
        sheet
    }

    fn cell(&self, row: &Row, at: usize) -> String {
        let spread = self.shown.spread(row, at);
        if spread.is_some() {
            return print::spread(spread);
        }
        let runs = self.shown.runs.get(&(at, row.course));
        let runs = runs.map_or(&[][..], Vec::as_slice);
        let is_void =
            |run: &Result<Outcome, String>| run.as_ref().is_ok_and(|it| it.void.is_some());
        if runs.iter().any(is_void) {
            "void".to_owned()
        } else if runs.iter().any(Result::is_err) {
            "failed".to_owned()
        } else {
            print::NOTHING.to_owned()
        }
    }

    /// Our build on like terms with the peers, whose threads run on any core, also the load generator's.
    fn unpinned(&self) -> Option<usize> {
        self.subjects.iter().position(Subject::is_unpinned)
    }

    /// Rows in which a peer is nearer than our goals allow.
    fn missed(&self) -> Vec<String> {
        let mut missed = Vec::new();
        for row in &self.rows {
            for at in self.others() {
                let (Some(ratio), Some(goal)) = (self.shown.ratio_of(row, at), goal(row)) else {
                    continue;
                };
                let doubt = match reached(ratio, goal) {
                    Reached::Yes => continue,
                    Reached::InARound => ", reached in a round",
                    Reached::No => "",
                };
                let (label, peer) = (&row.label, &self.subjects[at].name);
                let shown = print::spread(Some(ratio));
                let goal = text::number(goal);
                let unpinned = self
                    .unpinned()
                    .and_then(|at_ours| self.shown.ratio_between(row, at, at_ours))
                    .map(|ratio| format!("; x {} of ours, not pinned", print::spread(Some(ratio))));
                let unpinned = unpinned.unwrap_or_default();
                missed.push(format!(
                    "{label}: {peer} x {shown}, goal {goal}{doubt}{unpinned}"
                ));
            }
        }
        missed
    }

    fn troubles(&self) -> Vec<String> {
        let troubles = self.shown.troubles(&self.subjects);
        troubles.into_iter().map(|trouble| trouble.text).collect()
    }

    fn as_value(&self) -> Value {
        let row = |row: &Row| {
            let subjects = self.subjects.iter().enumerate().map(|(at, subject)| {
                json!({
                    "server": subject.name,
                    "value": self.shown.spread(row, at),
                    "values": self.shown.values(row, at),
                    "ratio": self.shown.ratio_of(row, at).filter(|_| at > 0),
                })
            });
            json!({
                "key": row.key, "label": row.label, "unit": row.unit, "goal": goal(row),
                "servers": subjects.collect::<Vec<_>>(),
            })
        };
        json!({
            "machine": self.machine, "command": self.command,
            "rows": self.rows.iter().map(row).collect::<Vec<_>>(),
            "machine_late": self.shown.stalls.as_value(),
            "missed": self.missed(), "troubles": self.troubles(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_is_reached_by_the_median_or_in_doubt_by_the_best_round() {
        let ratio = |median, most| Spread {
            median,
            least: 1.0,
            most,
        };
        assert_eq!(reached(ratio(3.0, 3.1), 3.0), Reached::Yes);
        assert_eq!(reached(ratio(2.9, 3.0), 3.0), Reached::InARound);
        assert_eq!(reached(ratio(2.5, 2.9), 3.0), Reached::No);
    }
}
