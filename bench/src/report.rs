//! Samples in, one table out.
//!
//! Owns: medians, spread, ratios, the text and JSON forms.
//! May depend on: `measures` (samples).
//! Invariants: a ratio is of medians; nothing is left out because it looks odd.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Write as _},
};

use serde_json::{Value, json};

use crate::{
    compare::FLOOR,
    measures::{Measure, Sample},
};

/// All samples of a run.
#[derive(Default)]
pub struct Report {
    /// In the order in which they first came.
    subjects: Vec<String>,
    samples: BTreeMap<(Measure, usize), Vec<Sample>>,
}

/// Median and range of some values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    pub median: f64,
    pub least: f64,
    pub most: f64,
}

impl Spread {
    /// Of at least one value.
    pub fn of(mut values: Vec<f64>) -> Self {
        assert!(!values.is_empty());
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = match values.len() % 2 {
            0 => (values[middle - 1] + values[middle]) / 2.0,
            _ => values[middle],
        };
        Self {
            median,
            least: values[0],
            most: values[values.len() - 1],
        }
    }
}

impl Report {
    pub fn add(&mut self, subject: &str, sample: Sample) {
        let known = self.subjects.iter().position(|name| name == subject);
        let at = known.unwrap_or_else(|| {
            self.subjects.push(subject.to_owned());
            self.subjects.len() - 1
        });
        self.samples
            .entry((sample.measure, at))
            .or_default()
            .push(sample);
    }

    fn spread(&self, measure: Measure, at: usize) -> Option<Spread> {
        let samples = self.samples.get(&(measure, at))?;
        Some(Spread::of(
            samples.iter().map(|sample| sample.value).collect(),
        ))
    }

    /// The floor that a measure is held against.
    fn floor(&self, measure: Measure) -> Option<Spread> {
        let floor = self.subjects.iter().position(|name| name == FLOOR)?;
        let measured_as = match measure {
            Measure::FanoutTenPerTurn => Measure::Fanout,
            Measure::ClientEvent => Measure::ClientEventAlone,
            other => other,
        };
        self.spread(measured_as, floor)
    }

    fn measures(&self) -> BTreeSet<Measure> {
        self.samples.keys().map(|(measure, _)| *measure).collect()
    }

    /// The same numbers for a script.
    pub fn to_json(&self) -> Value {
        let rows = self.samples.iter().map(|((measure, at), samples)| {
            let values: Vec<f64> = samples.iter().map(|sample| sample.value).collect();
            let spread = Spread::of(values.clone());
            json!({
                "measure": measure.name(), "unit": measure.unit(), "subject": self.subjects[*at],
                "median": spread.median, "least": spread.least, "most": spread.most,
                "values": values,
                "faults": samples.iter().flat_map(|sample| &sample.faults).collect::<Vec<_>>(),
            })
        });
        Value::Array(rows.collect())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<36} {:<16} {:>9} {:>17} {:>8} {:>8} {:>6} {:>7} {:>6}",
            "measure",
            "subject",
            "median",
            "spread",
            "x first",
            "x floor",
            "user",
            "waits/op",
            "load"
        )?;
        let mut faults = String::new();
        for measure in self.measures() {
            let first = self.spread(measure, 0);
            let floor = self.floor(measure);
            for (at, subject) in self.subjects.iter().enumerate() {
                let Some(samples) = self.samples.get(&(measure, at)) else {
                    continue;
                };
                let spread = Spread::of(samples.iter().map(|sample| sample.value).collect());
                let median_of = |field: fn(&Sample) -> f64| {
                    Spread::of(samples.iter().map(field).collect()).median
                };
                let ratio = |to: Option<Spread>| {
                    to.map_or("-".to_owned(), |to| {
                        format!("{:.2}", spread.median / to.median)
                    })
                };
                writeln!(
                    f,
                    "{:<36} {subject:<16} {:>9} {:>17} {:>8} {:>8} {:>5.0}% {:>8.3} {:>5.0}%",
                    format!("{} ({})", measure.name(), measure.unit()),
                    format!("{:.2}", spread.median),
                    format!("{:.2}..{:.2}", spread.least, spread.most),
                    ratio(first),
                    ratio(floor),
                    median_of(|sample| sample.user_share) * 100.0,
                    median_of(|sample| sample.waits_per_operation),
                    median_of(|sample| sample.generator_share) * 100.0,
                )?;
                for fault in samples.iter().flat_map(|sample| &sample.faults) {
                    writeln!(faults, "  {}: {subject}: {fault}", measure.name())?;
                }
            }
        }
        if !faults.is_empty() {
            write!(f, "faults:\n{faults}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_lies_between_the_two_middle_values_of_an_even_count() {
        let spread = Spread::of(vec![4.0, 1.0, 2.0, 10.0]);
        assert_eq!(
            spread,
            Spread {
                median: 3.0,
                least: 1.0,
                most: 10.0
            }
        );
        assert_eq!(Spread::of(vec![7.0, 5.0, 6.0]).median, 6.0);
    }
}
