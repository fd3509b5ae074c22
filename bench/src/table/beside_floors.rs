//! `sockudo bench table`: this build beside bare system calls, and whether it keeps its budgets.
//!
//! Owns: the flags, the short run's repetitions, the sheet and the exit status.
//! May depend on: its siblings.
//! Invariants: 0 = all budgets kept, 1 = one is broken by more than its noise or a run went wrong, 2 = a
//! budget has no verdict. The short run fails for what is broken beyond doubt only.

use std::{env, fs, io, path::PathBuf, process::ExitCode};

use clap::{Args, ValueEnum as _};
use serde_json::{Value, json};
use thiserror::Error;

use super::{
    Form,
    budgets::{Budget, BudgetError, Verdict, status},
    courses,
    flags::Flags,
    print::{self, Sheet},
    rounds::{Shown, Trouble, TroubleKind},
    rows::{self, Row},
    spread::Spread,
    subjects::Subject,
};
use crate::{cpu, floors::Floor, json::tell_failure, outcome::Machine, text};

#[derive(Clone, Debug, Args)]
pub struct BudgetTable {
    /// TOML file of budgets; the repository's is bench/budgets.toml [default: none, ratios only]
    #[arg(long, value_name = "FILE")]
    budgets: Option<PathBuf>,
    /// CPU time per message only, one round of 2 s; what is beyond 1.5 times its budget is tried
    /// twice more, and fails only then
    #[arg(long)]
    quick: bool,
    /// Rows to show, by the beginnings of their keys [default: all]
    #[arg(long, value_name = "KEYS", value_delimiter = ',')]
    rows: Vec<String>,
    #[command(flatten)]
    flags: Flags,
}

#[derive(Debug, Error)]
enum TableError {
    #[error("{file}: {source}")]
    Unreadable { file: PathBuf, source: io::Error },
    #[error("{file}: {source}")]
    Budgets { file: PathBuf, source: BudgetError },
    #[error("no row begins with {0}")]
    NoRow(String),
    #[error("the path of this program: {0}")]
    Program(io::Error),
}

/// Beyond this times its budget a short run's row is broken.
const QUICK_SLACK: f64 = 1.5;
const QUICK_SECONDS: u64 = 2;
/// A short run's rows that seem broken are measured so often in all.
const QUICK_ATTEMPTS: u32 = 3;

impl BudgetTable {
    pub fn run(self) -> ExitCode {
        match self.measure() {
            Ok(table) => {
                table.print(self.flags.form());
                ExitCode::from(table.status())
            }
            Err(error) => tell_failure("sockudo bench table", error, self.flags.json),
        }
    }

    fn measure(&self) -> Result<Measured, TableError> {
        let rows = self.chosen_rows()?;
        let budgets = self.read_budgets()?;
        let program = env::current_exe().map_err(TableError::Program)?;
        let mut subjects = self.flags.ours().map_err(TableError::Program)?;
        let floors = Floor::value_variants().iter();
        subjects.extend(floors.map(|&floor| Subject::floor(program.clone(), floor)));
        let plan = |rows: &[Row]| {
            let mut plan = self.flags.plan(&subjects, rows);
            if self.quick {
                (plan.rounds, plan.seconds) = (1, plan.seconds.min(QUICK_SECONDS));
            }
            plan
        };
        let progress = |step: &str| eprintln!("sockudo bench table: {step}");
        let mut measured = Measured {
            subjects: subjects.clone(),
            descriptors: cpu::raise_descriptor_limit(),
            is_quick: self.quick,
            command: self.flags.command(),
            machine: Machine::here(),
            shown: Shown::default(),
            budgets,
            rows,
        };
        plan(&measured.rows).run(&mut measured.shown, progress);
        for _ in 1..QUICK_ATTEMPTS {
            let doubtful = measured.doubtful();
            if !self.quick || doubtful.is_empty() {
                break;
            }
            progress("again, what seems broken or has no value");
            plan(&doubtful).run(&mut measured.shown, progress);
        }
        Ok(measured)
    }

    fn chosen_rows(&self) -> Result<Vec<Row>, TableError> {
        let all = match self.quick {
            true => rows::of_messages(),
            false => rows::of_budgets(),
        };
        for wish in &self.rows {
            if !all.iter().any(|row| row.key.starts_with(wish)) {
                return Err(TableError::NoRow(wish.clone()));
            }
        }
        let is_wanted = |row: &Row| {
            self.rows.is_empty() || self.rows.iter().any(|wish| row.key.starts_with(wish))
        };
        Ok(all.into_iter().filter(is_wanted).collect())
    }

    fn read_budgets(&self) -> Result<Vec<Budget>, TableError> {
        let Some(file) = &self.budgets else {
            return Ok(Vec::new());
        };
        let text = fs::read_to_string(file).map_err(|source| TableError::Unreadable {
            file: file.clone(),
            source,
        })?;
        Budget::parse_all(&text, &rows::of_budgets()).map_err(|source| TableError::Budgets {
            file: file.clone(),
            source,
        })
    }
}

/// All that a table shows.
struct Measured {
    machine: Machine,
    command: String,
    subjects: Vec<Subject>,
    rows: Vec<Row>,
    budgets: Vec<Budget>,
    shown: Shown,
    descriptors: u64,
    is_quick: bool,
}

/// A row of one subject.
struct Line<'a> {
    row: &'a Row,
    subject: usize,
    value: Option<Spread>,
    floor: Option<(Floor, Spread)>,
    ratio: Option<Spread>,
    budget: Option<&'a Budget>,
    verdict: Option<Verdict>,
}

impl Measured {
    fn lines(&self) -> Vec<Line<'_>> {
        let servers = self.subjects.iter().enumerate();
        let servers: Vec<usize> = servers
            .filter(|(_, subject)| subject.is_ours())
            .map(|(at, _)| at)
            .collect();
        let of_row = |row| servers.iter().map(move |&subject| (row, subject));
        let all = self.rows.iter().flat_map(of_row);
        all.map(|(row, subject)| self.line(row, subject)).collect()
    }

    fn line<'a>(&'a self, row: &'a Row, subject: usize) -> Line<'a> {
        let value = self.shown.spread(row, subject);
        let ratio = self.shown.ratio_to_floor(row, subject, &self.subjects);
        let budget = self.budgets.iter().find(|budget| budget.row == row.key);
        let verdict = budget.map(|budget| {
            let spread = if budget.is_ratio { ratio } else { value };
            // A short run's best counts, a long one's median.
            match self.is_quick {
                true => budget.judge(spread.map(|it| it.least), QUICK_SLACK),
                false => budget.judge(spread.map(|it| it.median), 1.0),
            }
        });
        Line {
            floor: self.shown.floor_spread(row, &self.subjects),
            row,
            subject,
            value,
            ratio,
            budget,
            verdict,
        }
    }

    /// Rows that seem broken or have no value.
    fn doubtful(&self) -> Vec<Row> {
        let lines = self.lines().into_iter();
        lines
            .filter(|line| matches!(line.verdict, Some(Verdict::Broken | Verdict::Void)))
            .map(|line| line.row.clone())
            .collect()
    }

    fn troubles(&self) -> Vec<Trouble> {
        self.shown.troubles(&self.subjects)
    }

    fn status(&self) -> u8 {
        let verdicts: Vec<Verdict> = self
            .lines()
            .iter()
            .filter(|line| self.is_judged(line.subject))
            .filter_map(|line| line.verdict)
            .collect();
        let status = status(verdicts);
        if self.is_quick {
            // Void is no fault of a change, but a server that never got through a load is.
            return u8::from(status == 1 || self.has_never_run());
        }
        let has_erred = |trouble: &Trouble| {
            trouble.kind != TroubleKind::Void && self.subjects[trouble.subject].is_ours()
        };
        match self.troubles().iter().any(has_erred) {
            true => 1,
            false => status,
        }
    }

    /// Whether its budgets decide the exit status: this build's do, another build is there to compare.
    fn is_judged(&self, subject: usize) -> bool {
        let (first, other) = (&self.subjects[0], &self.subjects[subject]);
        first.is_same_build(other)
    }

    fn has_never_run(&self) -> bool {
        let mut runs = self.shown.runs.iter();
        runs.any(|((subject, _), runs)| {
            self.subjects[*subject].is_ours() && runs.iter().all(Result::is_err)
        })
    }

    #[expect(clippy::print_stdout, reason = "the answer that was asked for")]
    fn print(&self, form: Form) {
        if form == Form::Json {
            println!("{:#}", self.as_value());
            return;
        }
        let heading = print::heading(&self.machine, &self.command);
        let troubles = self.troubles().into_iter().map(|it| it.text).collect();
        let notes = [
            ("Loads", courses::described(&self.rows, self.descriptors)),
            ("The machine alone", self.shown.stalls.lines()),
            ("Where the broken budgets come from", self.reasons()),
            ("Failures and faults", troubles),
        ];
        print::print(&heading, &self.sheet(), &notes, form);
    }

    fn reasons(&self) -> Vec<String> {
        let lines = self.lines().into_iter();
        let broken = lines.filter(|line| line.verdict == Some(Verdict::Broken));
        let reason = |line: Line<'_>| {
            let source = &line.budget?.source;
            Some(format!("{}: {source}", line.row.label))
        };
        broken.filter_map(reason).collect()
    }

    fn sheet(&self) -> Sheet {
        let has_several = self.subjects.iter().filter(|it| it.is_ours()).count() > 1;
        let mut sheet = Sheet::new(&[
            "row",
            "server",
            "unit",
            "median (range)",
            "floor",
            "its median",
            "x floor (range)",
            "budget",
            "verdict",
        ]);
        if !has_several {
            sheet.head.remove(1);
        }
        for line in self.lines() {
            let budget = line.budget.map_or_else(String::new, |budget| {
                let times = if budget.is_ratio { "x " } else { "" };
                format!("{times}{}", text::number(budget.most))
            });
            let floor = line
                .floor
                .map(|(floor, spread)| (floor.to_string(), text::number(spread.median)));
            let (floor, its) = floor.unwrap_or_default();
            let ratio = line
                .ratio
                .map_or_else(String::new, |it| print::spread(Some(it)));
            let verdict = line.verdict.map_or_else(String::new, |it| it.to_string());
            let mut cells = vec![
                line.row.label.clone(),
                self.subjects[line.subject].name.clone(),
                line.row.unit.to_owned(),
                print::spread(line.value),
                floor,
                its,
                ratio,
                budget,
                verdict,
            ];
            if !has_several {
                cells.remove(1);
            }
            sheet.rows.push(cells);
        }
        sheet
    }

    fn as_value(&self) -> Value {
        let lines = self.lines();
        let rows = lines.iter().map(|line| {
            json!({
                "key": line.row.key, "label": line.row.label, "unit": line.row.unit,
                "server": self.subjects[line.subject].name,
                "value": line.value, "values": self.shown.values(line.row, line.subject),
                "floor": line.floor.map(|(floor, _)| floor.name()),
                "floor_value": line.floor.map(|(_, spread)| spread),
                "ratio": line.ratio,
                "budget": line.budget.map(|budget| budget.most),
                "source": line.budget.map(|budget| &budget.source),
                "verdict": line.verdict.map(|verdict| verdict.to_string()),
            })
        });
        let troubles: Vec<String> = self.troubles().into_iter().map(|it| it.text).collect();
        json!({
            "machine": self.machine, "command": self.command,
            "rows": rows.collect::<Vec<_>>(), "troubles": troubles,
            "machine_late": self.shown.stalls.as_value(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        outcome::{Generator, Outcome},
        rig::figure,
        table::courses::Course,
    };

    type Run<'a> = Result<f64, &'a str>;

    /// CPU time per request, or a void run for its text.
    fn outcome(cpu_us: Run<'_>) -> Outcome {
        Outcome {
            scenario: "publish",
            target: "made up".to_owned(),
            settings: Vec::new(),
            began_unix_s: 0,
            seconds: 1.0,
            figures: vec![figure(
                "cpu_per_request_us",
                "",
                "us",
                cpu_us.unwrap_or(1.0),
            )],
            latencies: Vec::new(),
            series: Vec::new(),
            deliveries: None,
            used: None,
            generator: Generator::default(),
            faults: Vec::new(),
            void: cpu_us.err().map(str::to_owned),
            verdict: None,
        }
    }

    /// A floor of 10 us, a budget of twice as much with a noise of 15 %.
    fn measured(ours: Vec<Result<Outcome, String>>, is_quick: bool) -> Measured {
        let rows = rows::of_messages();
        let rows: Vec<Row> = rows
            .into_iter()
            .filter(|row| row.key == "publish_cpu")
            .collect();
        let floors = vec![Ok(outcome(Ok(10.0))); ours.len()];
        let mut shown = Shown::default();
        shown.runs.insert((0, Course::Publish), ours);
        shown.runs.insert((1, Course::Publish), floors);
        Measured {
            machine: Machine::here(),
            command: String::new(),
            subjects: vec![
                Subject::ours("ours", PathBuf::new(), None),
                Subject::floor(PathBuf::new(), Floor::Epoll),
            ],
            budgets: vec![Budget {
                row: "publish_cpu".to_owned(),
                most: 2.0,
                is_ratio: true,
                noise_percent: 15.0,
                source: String::new(),
            }],
            rows,
            shown,
            descriptors: 0,
            is_quick,
        }
    }

    #[test]
    fn a_long_run_is_judged_by_its_median_and_a_short_one_by_its_best() {
        let runs = |values: &[f64]| {
            values
                .iter()
                .map(|&cpu_us| Ok(outcome(Ok(cpu_us))))
                .collect()
        };
        for (values, long, short) in [
            (&[19.0, 20.0, 40.0][..], 0, 0),
            (&[19.0, 22.9, 40.0], 0, 0),
            (&[19.0, 23.1, 40.0], 1, 0),
            (&[29.9, 31.0, 31.0], 1, 0),
            (&[30.1, 31.0, 31.0], 1, 1),
        ] {
            assert_eq!(measured(runs(values), false).status(), long, "{values:?}");
            assert_eq!(measured(runs(values), true).status(), short, "{values:?}");
        }
    }

    #[test]
    fn void_is_no_verdict_and_what_never_ran_is_a_failure() {
        let void = || vec![Ok(outcome(Err("the generator was late")))];
        assert_eq!(measured(void(), false).status(), 2);
        assert_eq!(measured(void(), true).status(), 0);
        let failed = || vec![Err("refused".to_owned())];
        assert_eq!(measured(failed(), false).status(), 1);
        assert_eq!(measured(failed(), true).status(), 1);
    }

    #[test]
    fn a_fault_of_ours_fails_a_long_run_whose_budgets_are_kept() {
        let mut faulty = outcome(Ok(10.0));
        faulty.faults.push("1 of 9 deliveries was lost".to_owned());
        let measured = measured(vec![Ok(faulty)], false);
        assert_eq!(measured.status(), 1);
        let sheet = measured.sheet().text();
        assert!(sheet.contains("x 2") && sheet.contains("met"), "{sheet}");
    }
}
