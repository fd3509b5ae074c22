//! Budgets: what a row may cost, and whether it does.
//!
//! Owns: the form of the budgets' file; verdicts.
//! May depend on: toml_edit, `rows`, `spread`.
//! Invariants: a budget names a row that exists, with the floor that the row has or none; a row without a
//! value has no verdict but void.

use std::fmt;

use thiserror::Error;
use toml_edit::{DocumentMut, Table};

use crate::table::rows::Row;

/// What one row may cost at most.
#[derive(Clone, Debug, PartialEq)]
pub struct Budget {
    /// The row's key.
    pub row: String,
    /// A ratio to the row's floor, or a number in the row's unit.
    pub most: f64,
    pub is_ratio: bool,
    /// What a calm machine's runs differ by.
    pub noise_percent: f64,
    /// Who asks for it.
    pub source: String,
}

#[derive(Debug, Error)]
pub enum BudgetError {
    #[error("{0}")]
    Syntax(#[from] toml_edit::TomlError),
    #[error("budget {number}: {key} must be {expected}")]
    Value {
        number: usize,
        key: &'static str,
        expected: &'static str,
    },
    #[error("budget {number}: there is no row {row:?}; rows are {known}")]
    Row {
        number: usize,
        row: String,
        known: String,
    },
    #[error("budget {number}: {row:?} stands beside {found}, not beside {asked:?}")]
    Floor {
        number: usize,
        row: String,
        asked: String,
        found: String,
    },
}

impl Budget {
    /// All budgets of a file.
    pub fn parse_all(text: &str, rows: &[Row]) -> Result<Vec<Self>, BudgetError> {
        let document: DocumentMut = text.parse()?;
        let tables = document
            .get("budget")
            .and_then(|item| item.as_array_of_tables());
        let tables = tables.into_iter().flatten().enumerate();
        tables
            .map(|(at, table)| Self::parse(at + 1, table, rows))
            .collect()
    }

    fn parse(number: usize, table: &Table, rows: &[Row]) -> Result<Self, BudgetError> {
        let wrong = |key, expected| BudgetError::Value {
            number,
            key,
            expected,
        };
        let text = |key: &'static str| {
            let value = table.get(key).and_then(|item| item.as_str());
            value.map(str::to_owned).ok_or_else(|| wrong(key, "text"))
        };
        let positive = |key: &'static str| {
            let item = table.get(key);
            let value = item.and_then(|item| {
                item.as_float()
                    .or_else(|| item.as_integer().map(|whole| whole as f64))
            });
            let value = value.filter(|value| *value > 0.0);
            value.ok_or_else(|| wrong(key, "a number above 0"))
        };
        let name = text("row")?;
        let Some(row) = rows.iter().find(|row| row.key == name) else {
            let known: Vec<&str> = rows.iter().map(|row| &*row.key).collect();
            return Err(BudgetError::Row {
                number,
                row: name,
                known: known.join(", "),
            });
        };
        let beside = table.get("beside").and_then(|item| item.as_str());
        if let Some(asked) = beside {
            let found = row.floor.map_or("no floor", |(floor, _)| floor.name());
            if asked != found {
                return Err(BudgetError::Floor {
                    number,
                    row: name,
                    asked: asked.to_owned(),
                    found: found.to_owned(),
                });
            }
        }
        Ok(Self {
            row: name,
            most: positive("most")?,
            is_ratio: beside.is_some(),
            noise_percent: positive("noise_percent")?,
            source: text("source")?,
        })
    }

    /// Whether a value keeps within it. `slack` widens the noise: 1 = as the budget says.
    pub fn judge(&self, value: Option<f64>, slack: f64) -> Verdict {
        let Some(value) = value else {
            return Verdict::Void;
        };
        let noise = (1.0 + self.noise_percent / 100.0).max(slack);
        if value <= self.most {
            Verdict::Met
        } else if value <= self.most * noise {
            Verdict::WithinNoise
        } else {
            Verdict::Broken
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Met,
    WithinNoise,
    Broken,
    /// There is no value.
    Void,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Met => "met",
            Self::WithinNoise => "within noise",
            Self::Broken => "broken",
            Self::Void => "void",
        })
    }
}

/// The exit status of a table: 0 well, 1 something broken, 2 no verdict.
pub fn status(verdicts: impl IntoIterator<Item = Verdict>) -> u8 {
    let (mut is_broken, mut is_void) = (false, false);
    for verdict in verdicts {
        is_broken |= verdict == Verdict::Broken;
        is_void |= verdict == Verdict::Void;
    }
    match (is_broken, is_void) {
        (true, _) => 1,
        (false, true) => 2,
        (false, false) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::rows;

    const GOOD: &str = r#"
        [[budget]]
        row = "fanout_cpu"
        most = 0.85
        beside = "send"
        noise_percent = 15
        source = "a promise"
    "#;

    #[test]
    fn a_budget_says_row_limit_floor_noise_and_source() {
        let budgets = Budget::parse_all(GOOD, &rows::of_budgets()).expect("it is good");
        let expected = Budget {
            row: "fanout_cpu".to_owned(),
            most: 0.85,
            is_ratio: true,
            noise_percent: 15.0,
            source: "a promise".to_owned(),
        };
        assert_eq!(budgets, [expected]);
    }

    #[test]
    fn a_wrong_budget_is_refused_with_its_key() {
        for (from, to, expected) in [
            ("fanout_cpu", "fan_out", "there is no row \"fan_out\""),
            (
                "\"send\"",
                "\"ring\"",
                "stands beside send, not beside \"ring\"",
            ),
            ("0.85", "0", "most must be a number above 0"),
            ("15", "\"15 %\"", "noise_percent must be a number above 0"),
            ("source", "sauce", "source must be text"),
        ] {
            let error = Budget::parse_all(&GOOD.replace(from, to), &rows::of_budgets());
            let said = error.expect_err(expected).to_string();
            assert!(said.contains(expected), "{said}");
        }
    }

    #[test]
    fn the_repositorys_budgets_are_of_rows_that_exist() {
        let text = include_str!("../../budgets.toml");
        let budgets = Budget::parse_all(text, &rows::of_budgets()).expect("they are good");
        assert!(budgets.len() > 8);
    }

    #[test]
    fn a_verdict_turns_at_the_limit_and_at_its_noise() {
        let budget = &Budget::parse_all(GOOD, &rows::of_budgets()).expect("it is good")[0];
        for (value, slack, verdict) in [
            (Some(0.84), 1.0, Verdict::Met),
            (Some(0.85), 1.0, Verdict::Met),
            (Some(0.86), 1.0, Verdict::WithinNoise),
            (Some(0.977), 1.0, Verdict::WithinNoise),
            (Some(0.978), 1.0, Verdict::Broken),
            (Some(1.27), 1.5, Verdict::WithinNoise),
            (Some(1.28), 1.5, Verdict::Broken),
            (None, 1.5, Verdict::Void),
        ] {
            assert_eq!(budget.judge(value, slack), verdict, "{value:?} {slack}");
        }
    }

    #[test]
    fn one_broken_budget_is_a_failure_and_a_void_one_is_no_success() {
        use Verdict::{Broken, Met, Void, WithinNoise};
        for (verdicts, expected) in [
            (vec![Met, WithinNoise], 0),
            (vec![Met, Broken, Met], 1),
            (vec![Void, Broken], 1),
            (vec![Met, Void], 2),
            (vec![], 0),
        ] {
            assert_eq!(status(verdicts.clone()), expected, "{verdicts:?}");
        }
    }
}
