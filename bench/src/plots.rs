//! Which plots a run has.
//!
//! Owns: what is drawn against what; which colour is whose.
//! May depend on: `outcome`, `svg`, `axis`, `text`.
//! Invariants: series of one plot have one unit; latency is in ms on a logarithmic axis.

use crate::{
    axis::Scale,
    outcome::{Latency, Outcome, Ramp, Series},
    svg::{Across, Dimension, Dot, Line, Plot, Rule, Shape},
    text::number,
};

/// A plot and whose colour is whose.
pub struct Chart {
    pub plot: Plot,
    pub legend: Vec<(usize, String)>,
}

/// Everything that one outcome shows: its latencies, and its series by unit.
pub fn of(outcome: &Outcome) -> Vec<Chart> {
    let latencies: Vec<(&str, &Latency)> = outcome
        .latencies
        .iter()
        .map(|latency| (latency.label, latency))
        .collect();
    let title = match &*latencies {
        [(label, _)] => format!("Latency: {label}"),
        _ => "Latency".to_owned(),
    };
    let mut charts = Vec::new();
    if !latencies.is_empty() {
        charts.push(percentiles(title, &latencies));
    }
    let mut units: Vec<&str> = Vec::new();
    for series in &outcome.series {
        if !units.contains(&series.unit) {
            units.push(series.unit);
            let all = outcome.series.iter();
            let same: Vec<&Series> = all.filter(|one| one.unit == series.unit).collect();
            charts.push(over_time(&same));
        }
    }
    charts
}

/// Each latency of some outcomes of one scenario, over each other.
pub fn overlays(group: &[(&Outcome, &str)]) -> Vec<Chart> {
    let mut keys: Vec<&str> = Vec::new();
    let mut charts = Vec::new();
    for latency in group.iter().flat_map(|(outcome, _)| &outcome.latencies) {
        if keys.contains(&latency.key) {
            continue;
        }
        keys.push(latency.key);
        let same: Vec<(&str, &Latency)> = group
            .iter()
            .filter_map(|(outcome, name)| {
                let mut latencies = outcome.latencies.iter();
                Some((*name, latencies.find(|one| one.key == latency.key)?))
            })
            .collect();
        charts.push(percentiles(format!("Latency: {}", latency.label), &same));
    }
    charts
}

/// The load against the latency that was reached, with the objective and the highest load that held.
pub fn ramp(ramp: &Ramp) -> Chart {
    let mut steps = ramp.steps.clone();
    steps.sort_by(|a, b| a.load.total_cmp(&b.load));
    let points = steps
        .iter()
        .map(|step| (step.load, step.reached_ms))
        .collect();
    let mut dots: Vec<Dot> = Vec::new();
    for step in &steps {
        let (series, shape, verdict) = match step.has_held {
            true => (HELD, Shape::Disc, "held"),
            false => (MISSED, Shape::Cross, "missed"),
        };
        let dot = Dot {
            series,
            at: (step.load, step.reached_ms),
            shape,
            title: format!(
                "{} {}: {} ms, {verdict}",
                number(step.load),
                ramp.load_unit,
                number(step.reached_ms)
            ),
        };
        if step.has_held && Some(step.load) == ramp.highest_held {
            dots.push(Dot {
                shape: Shape::Ring,
                ..dot.clone()
            });
        }
        dots.push(dot);
    }
    let mut rules = vec![Rule {
        across: Across::Y,
        at: ramp.objective_ms,
        label: format!("objective: {} ms", number(ramp.objective_ms)),
    }];
    rules.extend(ramp.highest_held.map(|load| Rule {
        across: Across::X,
        at: load,
        label: format!("highest held: {}", number(load)),
    }));
    let latency = format!("p{} of {}", ramp.percentile, ramp.latency);
    Chart {
        plot: Plot {
            title: format!("Load against {latency}"),
            x: dimension(ramp.load_unit, Scale::Linear),
            y: dimension(&format!("{latency}, ms"), Scale::Log),
            lines: vec![Line {
                series: HELD,
                points,
            }],
            dots,
            rules,
        },
        legend: Vec::new(),
    }
}

/// Colours of a ramp.
const HELD: usize = 0;
const MISSED: usize = 1;

fn percentiles(title: String, latencies: &[(&str, &Latency)]) -> Chart {
    let mut lines = Vec::new();
    let mut dots = Vec::new();
    let mut legend = Vec::new();
    for (series, (name, latency)) in latencies.iter().enumerate() {
        legend.push((series, (*name).to_owned()));
        if latency.histogram.is_empty() {
            continue;
        }
        let points = curve().map(|percentile| (percentile, latency.percentile_ms(percentile)));
        lines.push(Line {
            series,
            points: points.collect(),
        });
        dots.extend(Latency::PERCENTILES.map(|(named, percentile)| {
            let reached = latency.percentile_ms(percentile);
            Dot {
                series,
                at: (percentile, reached),
                shape: Shape::Disc,
                title: format!("{name}, {named}: {} ms", number(reached)),
            }
        }));
    }
    Chart {
        plot: Plot {
            title,
            x: dimension("percentile", Scale::Nines),
            y: dimension("latency, ms", Scale::Log),
            lines,
            dots,
            rules: Vec::new(),
        },
        legend,
    }
}

/// Percentages at which a curve is drawn: 50 to 99.99 in equal steps of the axis, then the maximum.
fn curve() -> impl Iterator<Item = f64> {
    const PER_NINE: i32 = 20;
    let nines = (6..=4 * PER_NINE).map(|step| f64::from(step) / f64::from(PER_NINE));
    let inner = nines.map(|nines| 100.0 - 100.0 / 10_f64.powf(nines));
    [50.0]
        .into_iter()
        .chain(inner.filter(|p| *p > 50.0))
        .chain([100.0])
}

fn over_time(all: &[&Series]) -> Chart {
    let unit = all.first().map_or("", |series| series.unit);
    let title = match all {
        [one] => format!("Over time: {}", one.label),
        _ => "Over time".to_owned(),
    };
    let label = match all {
        [one] => with_unit(one.label, unit),
        _ => unit.to_owned(),
    };
    // A latency has its spikes far above its usual values; a rate is read by its height.
    let scale = if unit == "ms" {
        Scale::Log
    } else {
        Scale::Linear
    };
    let lines = all.iter().enumerate().map(|(series, one)| Line {
        series,
        points: one.points.clone(),
    });
    let legend = all.iter().enumerate();
    Chart {
        plot: Plot {
            title,
            x: dimension("time, s", Scale::Linear),
            y: dimension(&label, scale),
            lines: lines.collect(),
            dots: Vec::new(),
            rules: Vec::new(),
        },
        legend: legend
            .map(|(series, one)| (series, one.label.to_owned()))
            .collect(),
    }
}

/// `delivered, per second`; a unit that says it all stands alone: `answers/s` for answers.
pub fn with_unit(label: &str, unit: &str) -> String {
    match unit {
        "" => label.to_owned(),
        unit if unit.starts_with(label) => unit.to_owned(),
        unit => format!("{label}, {unit}"),
    }
}

fn dimension(label: &str, scale: Scale) -> Dimension {
    let label = label.to_owned();
    Dimension { label, scale }
}
