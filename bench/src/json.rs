//! A run for scripts: the same facts as the other reports, in a shape that stays.
//!
//! Owns: the names and the nesting of the JSON report, also of one that says why there is none.
//! May depend on: `outcome`, serde_json.
//! Invariants: keys are added and never renamed; every key is always there, with null for what is not
//! known; a number that is none is null.

use std::{
    fmt::Display,
    io::{self, Write as _},
    process::ExitCode,
};

use serde_json::{Map, Value, json};

use crate::outcome::{Latency, Outcome, Run};

/// The whole run.
pub fn of(run: &Run) -> Value {
    json!({
        "machine": run.machine,
        "outcomes": run.outcomes.iter().map(outcome).collect::<Vec<_>>(),
        "ramp": run.ramp,
    })
}

/// Why there is no run: in words on stderr, and for who reads JSON as an object with `error`.
pub fn tell_failure(command: &str, error: impl Display, wants_json: bool) -> ExitCode {
    eprintln!("{command}: {error}");
    if wants_json {
        let failure = json!({"error": error.to_string()});
        // A reader that closed the pipe wants no more.
        let _ = writeln!(io::stdout().lock(), "{failure:#}");
    }
    ExitCode::FAILURE
}

fn outcome(outcome: &Outcome) -> Value {
    let settings = outcome.settings.iter();
    let settings: Map<String, Value> = settings
        .map(|setting| (setting.name.to_owned(), setting.value.clone().into()))
        .collect();
    json!({
        "scenario": outcome.scenario,
        "target": outcome.target,
        "began_unix_s": outcome.began_unix_s,
        "seconds": outcome.seconds,
        "settings": settings,
        "figures": outcome.figures,
        "latencies": outcome.latencies.iter().map(latency).collect::<Vec<_>>(),
        "series": outcome.series,
        "deliveries": outcome.deliveries,
        "used": outcome.used,
        "generator": outcome.generator,
        "faults": outcome.faults,
        "void": outcome.void,
        "verdict": outcome.verdict,
    })
}

fn latency(latency: &Latency) -> Value {
    let mut value = json!({
        "key": latency.key,
        "label": latency.label,
        "count": latency.histogram.len(),
        "mean_ms": latency.histogram.mean() / 1e6,
    });
    for (name, percentile) in Latency::PERCENTILES {
        // `p99.9` -> `p99_9_ms`.
        let key = format!("{}_ms", name.replace('.', "_"));
        value[key] = latency.percentile_ms(percentile).into();
    }
    value
}
