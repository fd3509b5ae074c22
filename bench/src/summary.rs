//! A run for a person at a terminal.
//!
//! Owns: the order and the columns of the summary.
//! May depend on: `outcome`, `text`.
//! Invariants: a void run and every fault stand above the figures that they spoil, and again in the last
//! line; what a target said about itself cannot move the cursor.

use std::fmt;

use crate::{
    outcome::{Latency, Outcome, Ramp, Run, Used},
    text::{Plain, bytes, number},
};

/// Displays a run.
pub struct Summary<'a>(pub &'a Run);

type Formatter<'a, 'b> = &'a mut fmt::Formatter<'b>;

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: Formatter<'_, '_>) -> fmt::Result {
        let Run {
            machine,
            outcomes,
            ramp,
        } = self.0;
        let memory = bytes(machine.memory_bytes as f64);
        writeln!(
            f,
            "{} · {} cores · {memory} · Linux {} · {} UTC",
            Plain(&machine.cpu),
            machine.cores,
            Plain(&machine.kernel),
            Plain(&machine.date),
        )?;
        for outcome in outcomes {
            write_outcome(f, outcome)?;
        }
        if let Some(ramp) = ramp {
            write_ramp(f, ramp)?;
        }
        write_verdict(f, outcomes)
    }
}

fn write_outcome(f: Formatter<'_, '_>, outcome: &Outcome) -> fmt::Result {
    let target = Plain(&outcome.target);
    let seconds = number(outcome.seconds);
    writeln!(f, "\n{} on {target}, {seconds} s", outcome.scenario)?;
    if let Some(void) = &outcome.void {
        writeln!(f, "  VOID: {}", Plain(void))?;
        writeln!(f, "  VOID: the figures say nothing about the target")?;
    }
    for fault in &outcome.faults {
        writeln!(f, "  FAULT: {}", Plain(fault))?;
    }
    write_settings(f, outcome)?;
    if let Some(deliveries) = &outcome.deliveries {
        writeln!(
            f,
            "  deliveries  {} of {}: {} lost, {} duplicates, {} out of order",
            number(deliveries.received as f64),
            number(deliveries.expected as f64),
            number(deliveries.lost as f64),
            number(deliveries.duplicates as f64),
            number(deliveries.out_of_order as f64),
        )?;
    }
    write_latencies(f, &outcome.latencies)?;
    write_figures(f, outcome)?;
    if let Some(used) = &outcome.used {
        write_used(f, used, outcome)?;
    }
    let generator = &outcome.generator;
    writeln!(
        f,
        "  generator   {:.0} % of a core; operations late by {} ms (p99), {} ms (max)",
        generator.cpu_share * 100.0,
        number(generator.late_p99_ms),
        number(generator.late_max_ms),
    )
}

fn write_settings(f: Formatter<'_, '_>, outcome: &Outcome) -> fmt::Result {
    let settings = outcome.settings.iter();
    let settings: Vec<String> = settings
        .map(|setting| format!("{} = {}", setting.name, Plain(&setting.value)))
        .collect();
    match &*settings {
        [] => Ok(()),
        settings => writeln!(f, "  load        {}", settings.join(", ")),
    }
}

fn write_latencies(f: Formatter<'_, '_>, latencies: &[Latency]) -> fmt::Result {
    if latencies.is_empty() {
        return Ok(());
    }
    let width = widest(latencies.iter().map(|latency| latency.label), "latency, ms");
    write!(f, "  {:<width$} {:>11}", "latency, ms", "count")?;
    for (name, _) in Latency::PERCENTILES {
        write!(f, " {name:>8}")?;
    }
    writeln!(f)?;
    for latency in latencies {
        let count = latency.histogram.len();
        let label = latency.label;
        write!(f, "  {label:<width$} {:>11}", number(count as f64))?;
        for (_, percentile) in Latency::PERCENTILES {
            let value = match count {
                0 => "-".to_owned(),
                _ => number(latency.percentile_ms(percentile)),
            };
            write!(f, " {value:>8}")?;
        }
        writeln!(f)?;
    }
    Ok(())
}

fn write_figures(f: Formatter<'_, '_>, outcome: &Outcome) -> fmt::Result {
    if outcome.figures.is_empty() {
        return Ok(());
    }
    let width = widest(
        outcome.figures.iter().map(|figure| figure.label),
        "latency, ms",
    );
    for figure in &outcome.figures {
        let value = number(figure.value);
        write!(f, "  {:<width$} {value:>11}", figure.label)?;
        match figure.unit {
            "" => writeln!(f)?,
            unit => writeln!(f, " {unit}")?,
        }
    }
    Ok(())
}

fn write_used(f: Formatter<'_, '_>, used: &Used, outcome: &Outcome) -> fmt::Result {
    writeln!(
        f,
        "  target used {} s user, {} s system; switches: {} waited, {} pushed aside",
        number(used.cpu_user_s),
        number(used.cpu_system_s),
        number(used.switches_voluntary as f64),
        number(used.switches_involuntary as f64),
    )?;
    let before = bytes(used.resident_bytes_before as f64);
    let after = bytes(used.resident_bytes_after as f64);
    writeln!(f, "              memory {before} before, {after} after")?;
    let Some(calls) = used.system_calls else {
        return Ok(());
    };
    write!(f, "              {} system calls", number(calls as f64))?;
    let received = outcome
        .deliveries
        .map_or(0, |deliveries| deliveries.received);
    if received > 0 {
        let each = number(calls as f64 / received as f64);
        write!(f, ", {each} per message")?;
    }
    writeln!(f)
}

fn write_ramp(f: Formatter<'_, '_>, ramp: &Ramp) -> fmt::Result {
    let objective = number(ramp.objective_ms);
    let (latency, percentile) = (ramp.latency, ramp.percentile);
    writeln!(
        f,
        "\nramp: p{percentile} of {latency} within {objective} ms"
    )?;
    let width = ramp.load_unit.len().max(11);
    writeln!(f, "  {:>width$} {:>11}", ramp.load_unit, "reached, ms")?;
    for step in &ramp.steps {
        let verdict = if step.has_held { "held" } else { "MISSED" };
        let (load, reached) = (number(step.load), number(step.reached_ms));
        writeln!(f, "  {load:>width$} {reached:>11} {verdict}")?;
    }
    match ramp.highest_held {
        Some(load) => writeln!(
            f,
            "  highest that held: {} {}",
            number(load),
            ramp.load_unit
        ),
        None => writeln!(f, "  no load held the objective"),
    }
}

fn write_verdict(f: Formatter<'_, '_>, outcomes: &[Outcome]) -> fmt::Result {
    if let [only] = outcomes
        && let Some(verdict) = &only.verdict
    {
        return writeln!(f, "\n{}", Plain(&verdict.sentence()));
    }
    let runs = outcomes.len();
    let void = outcomes.iter().filter(|one| one.void.is_some()).count();
    let faulty = outcomes.iter().filter(|one| !one.faults.is_empty()).count();
    match (runs, void, faulty) {
        (0, ..) => writeln!(f, "\nnothing was run"),
        (_, 0, 0) => writeln!(f, "\nclean: nothing lost, doubled or refused"),
        (_, 0, _) => writeln!(f, "\nFAULTS in {faulty} of {runs} runs"),
        (_, _, 0) => writeln!(f, "\nVOID: {void} of {runs} runs"),
        _ => writeln!(f, "\nVOID: {void} of {runs} runs; FAULTS in {faulty}"),
    }
}

/// Columns that the longest label takes.
fn widest<'a>(labels: impl Iterator<Item = &'a str>, least: &str) -> usize {
    labels
        .map(|label| label.chars().count())
        .fold(least.len(), usize::max)
}
