//! `sockudo bench cluster`: two nodes with a bus between them, beside the bare client of that bus and beside
//! other servers.
//!
//! Owns: the flags, the loads and their order, the goals, the sheet.
//! May depend on: its siblings, `bare`, `bus`, `loads`, `pair`, `state`.
//! Invariants: all that a row compares ran in the same rounds, each with a bus and nodes of its own; the exit
//! status says whether our builds ran through without a fault, not whether a goal is reached.

use std::{io, path::PathBuf, process::ExitCode, time::Duration};

use clap::{Args, builder::PossibleValuesParser};
use serde_json::{Value, json};

use super::{
    Form,
    flags::{Flags, named},
    print::{self, Sheet},
    rounds::in_turn,
    spread::Spread,
    subjects::{Program, Subject},
};
use crate::{
    casts::{index, whole_of},
    json::tell_failure,
    outcome::{Figure, Machine},
    scenarios::count,
    text,
};
use bus::{Engine, Signs};
use loads::{BATCH_BYTES, Load, Locals, Sharing};
use pair::Setup;

mod bare;
pub mod bus;
mod loads;
mod pair;
mod state;

#[derive(Clone, Debug, Args)]
pub struct ClusterTable {
    /// The bus, which is started for each run: its server must be installed
    #[arg(long, value_name = "NAME", value_enum, default_value_t = Engine::Redis)]
    adapter: Engine,
    /// Nodes of ours do not sign what they tell each other, which costs them something
    #[arg(long)]
    no_secret: bool,
    /// Sockudo of another version with the adapter built in, 5.x; may be repeated
    #[arg(long, value_name = "VERSION=PATH", value_parser = named)]
    sockudo: Vec<(String, String)>,
    /// Loads to run [default: all]
    #[arg(long, value_name = "NAMES", value_delimiter = ',',
        value_parser = PossibleValuesParser::new(Course::ALL.map(Course::name)))]
    loads: Vec<String>,
    /// Channels of the loads churn, members and join, 100..=2000000
    #[arg(long, value_name = "COUNT", default_value_t = 100_000, value_parser = count(100..=2_000_000))]
    channels: usize,
    #[command(flatten)]
    flags: Flags,
}

/// What is run, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Course {
    Events(Load),
    Idle(Load),
    Churn,
    Members,
    Join,
}

const SINGLE: Load = Load {
    name: "single",
    channels: 200,
    listeners: 4,
    sharing: Sharing::Split,
    burst: 1,
    rate: 1_000,
    locals: Locals::None,
};
const BURSTS: Load = Load {
    name: "bursts",
    burst: 10,
    rate: 100,
    ..SINGLE
};
const FANOUT: Load = Load {
    name: "fanout",
    channels: 1,
    listeners: 100,
    sharing: Sharing::All,
    burst: 1,
    rate: 100,
    locals: Locals::None,
};
const LATENCY: Load = Load {
    name: "latency",
    channels: 50,
    listeners: 1,
    rate: 500,
    locals: Locals::One,
    ..SINGLE
};

impl Course {
    const ALL: [Self; 8] = [
        Self::Idle(SINGLE),
        Self::Events(SINGLE),
        Self::Events(BURSTS),
        Self::Events(FANOUT),
        Self::Events(LATENCY),
        Self::Churn,
        Self::Members,
        Self::Join,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Events(load) => load.name,
            Self::Idle(_) => "idle",
            Self::Churn => "churn",
            Self::Members => "members",
            Self::Join => "join",
        }
    }

    fn described(self, channels: usize) -> String {
        match self {
            Self::Events(load) => load.described(),
            Self::Idle(_) => "idle: the nodes know each other, nothing is published".to_owned(),
            Self::Churn => format!("churn: {channels} channels joined and left on one node"),
            Self::Members => format!("members: {channels} members, ten in each presence channel"),
            Self::Join => format!("join: two nodes come to one with {channels} occupied channels"),
        }
    }

    fn is_for(self, contender: &Contender) -> bool {
        match (self, contender) {
            (Self::Events(_), _) => true,
            (Self::Idle(_), contender) => !matches!(contender, Contender::Bare),
            (Self::Churn | Self::Members | Self::Join, contender) => contender.is_ours(),
        }
    }
}

/// Who gets a load.
#[derive(Clone, Debug)]
enum Contender {
    Nodes(Subject),
    /// The client that the bus' makers offer, and nothing else.
    Bare,
}

impl Contender {
    fn name(&self) -> &str {
        match self {
            Self::Nodes(subject) => &subject.name,
            Self::Bare => "bare client",
        }
    }

    fn is_ours(&self) -> bool {
        matches!(self, Self::Nodes(subject) if subject.is_ours())
    }
}

/// What one run showed.
#[derive(Clone, Debug, Default)]
struct Run {
    figures: Vec<Figure>,
    /// What was lost, doubled or refused.
    faults: Vec<String>,
    /// Why it says nothing.
    void: Option<String>,
}

/// Larger ones are not what a small event makes.
const BATCH_BYTES_AT_FIRST: usize = 512;

impl ClusterTable {
    pub fn run(self) -> ExitCode {
        match self.measure() {
            Ok(table) => {
                table.print(self.flags.form());
                ExitCode::from(u8::from(table.has_erred()))
            }
            Err(error) => {
                let error = format!("the path of this program: {error}");
                tell_failure("sockudo bench cluster", error, self.flags.json)
            }
        }
    }

    fn contenders(&self) -> io::Result<Vec<Contender>> {
        let mut flags = self.flags.clone();
        if flags.shards.is_empty() {
            // Two nodes share the machine: neither has cores of its own.
            flags.shards = vec![1];
        }
        let mut subjects = flags.ours()?;
        subjects.extend(self.sockudo.iter().map(|(version, path)| Subject {
            name: format!("sockudo {version}"),
            program: Program::Predecessor {
                path: PathBuf::from(path),
            },
        }));
        let nodes = subjects.into_iter().map(Contender::Nodes);
        Ok(nodes.chain([Contender::Bare]).collect())
    }

    fn measure(&self) -> io::Result<Measured> {
        let is_wanted = |course: &Course| {
            self.loads.is_empty() || self.loads.iter().any(|name| name == course.name())
        };
        let courses: Vec<Course> = Course::ALL.into_iter().filter(is_wanted).collect();
        let contenders = self.contenders()?;
        let mut measured = Measured {
            machine: Machine::here(),
            command: self.flags.command(),
            engine: self.adapter,
            channels: self.channels,
            runs: vec![vec![Vec::new(); contenders.len()]; courses.len()],
            courses,
            contenders,
        };
        for round in 1..=self.flags.rounds {
            self.play_round(round, &mut measured);
        }
        Ok(measured)
    }

    fn play_round(&self, round: u32, measured: &mut Measured) {
        let rounds = self.flags.rounds;
        for (at, course) in measured.courses.iter().enumerate() {
            let mut batch_bytes = BATCH_BYTES_AT_FIRST;
            let nodes = measured.contenders.len() - 1;
            let mut turn = in_turn(0..nodes, round);
            // The bare client does what ours did.
            turn.push(nodes);
            for who in turn {
                let contender = &measured.contenders[who];
                if !course.is_for(contender) {
                    continue;
                }
                let (load, name) = (course.name(), contender.name());
                eprintln!("sockudo bench cluster: round {round} of {rounds}: {load}: {name}");
                let run = self.play(*course, contender, batch_bytes);
                if who == 0
                    && let Ok(run) = &run
                    && let Some(bytes) = value_of(run, BATCH_BYTES)
                {
                    batch_bytes = index(whole_of(bytes));
                }
                measured.runs[at][who].push(run);
            }
        }
    }

    fn play(
        &self,
        course: Course,
        contender: &Contender,
        batch_bytes: usize,
    ) -> Result<Run, String> {
        let setup = Setup {
            engine: self.adapter,
            signs: match self.no_secret {
                true => Signs::No,
                false => Signs::Yes,
            },
            seconds: self.flags.seconds,
            step: Duration::from_micros(self.flags.poll_interval_us),
        };
        match (course, contender) {
            (Course::Events(load), Contender::Nodes(subject)) => load.run(subject, &setup),
            (Course::Events(load), Contender::Bare) => bare::run(&load, &setup, batch_bytes),
            (Course::Idle(load), Contender::Nodes(subject)) => loads::idle(&load, subject, &setup),
            (Course::Churn, Contender::Nodes(it)) => state::churn(it, &setup, self.channels),
            (Course::Members, Contender::Nodes(it)) => state::members(it, &setup, self.channels),
            (Course::Join, Contender::Nodes(it)) => state::join(it, &setup, self.channels),
            (Course::Idle(_) | Course::Churn | Course::Members | Course::Join, Contender::Bare) => {
                Err("the bare client has no state".to_owned())
            }
        }
    }
}

fn value_of(run: &Run, key: &str) -> Option<f64> {
    let figure = run.figures.iter().find(|figure| figure.key == key)?;
    Some(figure.value)
}

/// All that a table shows.
struct Measured {
    machine: Machine,
    command: String,
    engine: Engine,
    channels: usize,
    courses: Vec<Course>,
    contenders: Vec<Contender>,
    /// By course and contender, round by round: what was shown, or why nothing was.
    runs: Vec<Vec<Vec<Result<Run, String>>>>,
}

/// A figure of a course.
struct Row {
    course: usize,
    key: &'static str,
    label: String,
    unit: &'static str,
}

/// What ours is held against.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Goal {
    /// Of the bare client's, at most so many times as much.
    OfBare(f64),
    /// A peer's is so many times as much at least.
    PeerIs(f64),
    Most(f64),
}

fn goal(course: Course, key: &str) -> Option<Goal> {
    match (course, key) {
        (Course::Events(_), "cpu_us") => Some(Goal::PeerIs(4.0)),
        (Course::Events(load), "bridge_out_us" | "bridge_in_us") if load != FANOUT => {
            Some(Goal::OfBare(1.3))
        }
        (Course::Events(_), "added_p99_ms") => Some(Goal::OfBare(1.5)),
        (Course::Churn, "channel_bytes") | (Course::Members, "member_bytes") => {
            Some(Goal::Most(96.0))
        }
        _ => None,
    }
}

impl Measured {
    /// In the order in which ours, then others tell them.
    fn rows(&self) -> Vec<Row> {
        let mut rows: Vec<Row> = Vec::new();
        for (course, of_course) in self.runs.iter().enumerate() {
            let runs = of_course.iter().flatten().flatten();
            for figure in runs.flat_map(|run| &run.figures) {
                let is_known = |row: &Row| row.course == course && row.key == figure.key;
                if !rows.iter().any(is_known) {
                    let load = self.courses[course].name();
                    let label = match figure.label.starts_with('…') {
                        true => figure.label.to_owned(),
                        false => format!("{load}: {}", figure.label),
                    };
                    let (key, unit) = (figure.key, figure.unit);
                    rows.push(Row {
                        course,
                        key,
                        label,
                        unit,
                    });
                }
            }
        }
        rows
    }

    fn values(&self, row: &Row, who: usize) -> Vec<Option<f64>> {
        let runs = self.runs[row.course][who].iter();
        let value = |run: &Result<Run, String>| {
            let run = run.as_ref().ok().filter(|run| run.void.is_none())?;
            value_of(run, row.key)
        };
        runs.map(value).collect()
    }

    fn spread(&self, row: &Row, who: usize) -> Option<Spread> {
        let values: Vec<f64> = self.values(row, who).into_iter().flatten().collect();
        Spread::of(&values)
    }

    /// How many times one's value is as large as another's.
    fn ratio(&self, row: &Row, one: usize, other: usize) -> Option<Spread> {
        Spread::of_ratio(&self.values(row, one), &self.values(row, other))
    }

    fn bare(&self) -> usize {
        self.contenders.len() - 1
    }

    /// Each goal, what there is of it, and whether it is reached.
    fn goals(&self) -> Vec<(String, bool)> {
        let mut goals = Vec::new();
        for row in self.rows() {
            let Some(goal) = goal(self.courses[row.course], row.key) else {
                continue;
            };
            let mut add = |spread: Option<Spread>,
                           what: String,
                           is_reached: fn(f64, f64) -> bool,
                           bound: f64| {
                if let Some(spread) = spread {
                    let shown = print::spread(Some(spread));
                    let load = self.courses[row.course].name();
                    let label = row.label.trim_start_matches("… ");
                    let label = label.trim_start_matches(&format!("{load}: "));
                    let verdict = is_reached(spread.median, bound);
                    let word = if verdict { "reached" } else { "missed" };
                    let line = format!("{load}, {label}: {shown} {what}: {word}");
                    goals.push((line, verdict));
                }
            };
            match goal {
                Goal::OfBare(most) => {
                    let ratio = self.ratio(&row, 0, self.bare());
                    let what = format!("x the bare client's, at most {}", text::number(most));
                    add(ratio, what, |value, most| value <= most, most);
                }
                Goal::PeerIs(least) => {
                    for (who, contender) in self.contenders.iter().enumerate() {
                        if let Contender::Nodes(subject) = contender
                            && !subject.is_ours()
                        {
                            let ratio = self.ratio(&row, who, 0);
                            let name = contender.name();
                            let least_shown = text::number(least);
                            let what = format!("x ours takes {name}, at least {least_shown}");
                            add(ratio, what, |value, least| value >= least, least);
                        }
                    }
                }
                Goal::Most(most) => {
                    let unit = row.unit;
                    let what = format!("{unit}, at most {}", text::number(most));
                    add(
                        self.spread(&row, 0),
                        what,
                        |value, most| value <= most,
                        most,
                    );
                }
            }
        }
        goals
    }

    /// What failed, was void or went wrong, run by run, and whose it was.
    fn troubles(&self) -> Vec<(usize, String)> {
        let mut troubles = Vec::new();
        for (course, of_course) in self.courses.iter().zip(&self.runs) {
            for (who, runs) in of_course.iter().enumerate() {
                for (round, run) in runs.iter().enumerate() {
                    let mut add = |what: &str| {
                        let (name, load) = (self.contenders[who].name(), course.name());
                        let round = round + 1;
                        troubles.push((who, format!("{name}: {load}, round {round}: {what}")));
                    };
                    match run {
                        Err(error) => add(error),
                        Ok(run) => {
                            run.void.iter().for_each(|void| add(void));
                            run.faults.iter().for_each(|fault| add(fault));
                        }
                    }
                }
            }
        }
        troubles
    }

    /// Something of ours failed or went wrong; a late load generator is no fault.
    fn has_erred(&self) -> bool {
        let ours = |who: &usize| self.contenders[*who].is_ours();
        let has_erred = |run: &Result<Run, String>| match run {
            Ok(run) => run.void.is_none() && !run.faults.is_empty(),
            Err(_) => true,
        };
        self.runs.iter().any(|of_course| {
            let of_ours = (0..of_course.len()).filter(ours);
            of_ours.flat_map(|who| &of_course[who]).any(has_erred)
        })
    }

    #[expect(clippy::print_stdout, reason = "the answer that was asked for")]
    fn print(&self, form: Form) {
        if form == Form::Json {
            println!("{:#}", self.as_value());
            return;
        }
        let heading = print::heading(&self.machine, &self.command);
        let courses = self.courses.iter();
        let notes = [
            (
                "Loads",
                courses.map(|it| it.described(self.channels)).collect(),
            ),
            (
                "Goals",
                self.goals().into_iter().map(|(line, _)| line).collect(),
            ),
            (
                "Failures and faults",
                self.troubles().into_iter().map(|(_, it)| it).collect(),
            ),
        ];
        print::print(&heading, &self.sheet(), &notes, form);
    }

    fn sheet(&self) -> Sheet {
        let mut sheet = Sheet::new(&["row", "unit"]);
        for (who, contender) in self.contenders.iter().enumerate() {
            sheet.head.push(contender.name().to_owned());
            if who > 0 {
                let ratio = match contender {
                    Contender::Nodes(_) => "x ours (range)",
                    Contender::Bare => "ours x that (range)",
                };
                sheet.head.push(ratio.to_owned());
            }
        }
        for row in self.rows() {
            let mut cells = vec![row.label.clone(), row.unit.to_owned()];
            for who in 0..self.contenders.len() {
                cells.push(print::spread(self.spread(&row, who)));
                if who > 0 {
                    let ratio = match who == self.bare() {
                        true => self.ratio(&row, 0, who),
                        false => self.ratio(&row, who, 0),
                    };
                    cells.push(print::spread(ratio));
                }
            }
            sheet.rows.push(cells);
        }
        sheet
    }

    fn as_value(&self) -> Value {
        let row = |row: &Row| {
            let servers = self.contenders.iter().enumerate().map(|(who, contender)| {
                json!({
                    "server": contender.name(),
                    "value": self.spread(row, who),
                    "values": self.values(row, who),
                    "ratio": self.ratio(row, who, 0).filter(|_| who > 0),
                })
            });
            json!({
                "load": self.courses[row.course].name(),
                "key": row.key, "label": row.label, "unit": row.unit,
                "servers": servers.collect::<Vec<_>>(),
            })
        };
        let goals = self.goals().into_iter();
        let goals = goals.map(|(goal, is_reached)| json!({"goal": goal, "reached": is_reached}));
        let troubles = self.troubles().into_iter().map(|(_, trouble)| trouble);
        json!({
            "machine": self.machine, "command": self.command, "bus": self.engine.name(),
            "rows": self.rows().iter().map(row).collect::<Vec<_>>(),
            "goals": goals.collect::<Vec<_>>(), "troubles": troubles.collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rig::figure;

    fn run(key: &'static str, value: f64) -> Result<Run, String> {
        Ok(Run {
            figures: vec![figure(key, key, "us", value)],
            ..Run::default()
        })
    }

    fn measured(course: Course, runs: Vec<Vec<Result<Run, String>>>) -> Measured {
        Measured {
            machine: Machine::here(),
            command: String::new(),
            engine: Engine::Redis,
            channels: 100,
            courses: vec![course],
            contenders: vec![
                Contender::Nodes(Subject::ours("ours", PathBuf::new(), None)),
                Contender::Nodes(Subject {
                    name: "a peer".to_owned(),
                    program: Program::Predecessor {
                        path: PathBuf::new(),
                    },
                }),
                Contender::Bare,
            ],
            runs: vec![runs],
        }
    }

    #[test]
    fn a_goal_is_judged_by_medians_of_one_run() {
        let single = Course::Events(SINGLE);
        for (key, ours, peer, bare, reached) in [
            ("bridge_out_us", 12.0, 0.0, 10.0, true),
            ("bridge_out_us", 14.0, 0.0, 10.0, false),
            ("added_p99_ms", 14.0, 0.0, 10.0, true),
            ("added_p99_ms", 16.0, 0.0, 10.0, false),
            ("cpu_us", 10.0, 41.0, 0.0, true),
            ("cpu_us", 10.0, 39.0, 0.0, false),
        ] {
            let runs = [ours, peer, bare].map(|value| match value > 0.0 {
                true => vec![run(key, value)],
                false => vec![run("other", 1.0)],
            });
            let goals = measured(single, runs.to_vec()).goals();
            let goals: Vec<bool> = goals.into_iter().map(|(_, reached)| reached).collect();
            assert_eq!(goals, [reached], "{key} {ours} {peer} {bare}");
        }
    }

    #[test]
    fn a_fault_of_ours_is_an_error_and_a_peers_is_not() {
        let faulty = || {
            let mut run = run("cpu_us", 1.0).expect("it is one");
            run.faults.push("1 of 9 deliveries was lost".to_owned());
            vec![Ok(run)]
        };
        let well = || vec![run("cpu_us", 1.0)];
        let single = Course::Events(SINGLE);
        let ours = measured(single, vec![faulty(), well(), well()]);
        let peers = measured(single, vec![well(), faulty(), well()]);
        assert!(ours.has_erred() && !peers.has_erred());
        assert_eq!((ours.troubles().len(), peers.troubles().len()), (1, 1));
        let failed = vec![Err("no bus".to_owned())];
        assert!(measured(single, vec![failed, well(), well()]).has_erred());
    }
}
