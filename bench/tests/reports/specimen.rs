//! Made-up runs that have everything a report can show.

use std::time::Duration;

use bench::outcome::{
    Deliveries, Figure, Generator, Latency, Machine, Outcome, Ramp, RampStep, Run, Series, Setting,
    Used,
};

/// A target's name that tries to leave its place on a page and on a terminal.
pub(crate) const HOSTILE: &str = "<script>alert('x')</script>\"&\u{1b}[2J";

/// Fan-out on two targets beside each other; the second lost messages.
pub(crate) fn comparison() -> Run {
    let mut slower = outcome("sockudo 2.9.2", 4.0, 20_000.0);
    slower.faults = vec!["lost 3 of 1 000 000 messages".to_owned()];
    slower.deliveries = Some(Deliveries {
        expected: 1_000_000,
        received: 999_997,
        lost: 3,
        duplicates: 0,
        out_of_order: 2,
    });
    Run {
        machine: machine(),
        outcomes: vec![outcome("ours", 1.0, 50_000.0), slower],
        ramp: None,
    }
}

/// One run by a tired load generator, on a target with a hostile name.
pub(crate) fn void() -> Run {
    let mut outcome = outcome(HOSTILE, 1.0, 50_000.0);
    outcome.generator.cpu_share = 0.97;
    outcome.void = outcome.generator.verdict();
    outcome.faults = vec![format!("the server said {HOSTILE}")];
    outcome.used = None;
    Run {
        machine: machine(),
        outcomes: vec![outcome],
        ramp: None,
    }
}

/// One run in which nothing came.
pub(crate) fn empty() -> Run {
    let mut outcome = outcome("ours", 1.0, 0.0);
    outcome.latencies = vec![Latency::new("delivery", DELIVERY)];
    outcome.series.iter_mut().for_each(|one| one.points.clear());
    outcome.figures.clear();
    outcome.settings.clear();
    outcome.deliveries = None;
    Run {
        machine: machine(),
        outcomes: vec![outcome],
        ramp: None,
    }
}

/// A search that finds its limit between 80 000 and 113 000 deliveries per second.
pub(crate) fn ramp() -> Run {
    let loads = [10_000.0, 20_000.0, 40_000.0, 80_000.0, 160_000.0, 113_000.0];
    let reached = [1.4, 2.1, 3.3, 6.4, 870.0, 41.0];
    let mut outcomes = Vec::new();
    let mut steps = Vec::new();
    for (load, reached_ms) in loads.into_iter().zip(reached) {
        let mut step = outcome("ours", reached_ms / 1.4, load);
        step.settings[1].value = (load / 1_000.0).to_string();
        outcomes.push(step);
        steps.push(RampStep {
            load,
            reached_ms,
            has_held: reached_ms <= 20.0,
        });
    }
    Run {
        machine: machine(),
        outcomes,
        ramp: Some(Ramp {
            latency: "delivery",
            percentile: 99.0,
            objective_ms: 20.0,
            load_unit: "deliveries per second",
            steps,
            highest_held: Some(80_000.0),
        }),
    }
}

const DELIVERY: &str = "publish scheduled to event received";

fn machine() -> Machine {
    Machine {
        cpu: "A CPU with Cores & Caches".to_owned(),
        cores: 2,
        kernel: "6.18.5".to_owned(),
        memory_bytes: 8 << 30,
        date: "2026-01-31 12:00".to_owned(),
    }
}

/// A run of 20 s whose latencies grow with `slowness` and have a tail.
fn outcome(target: &str, slowness: f64, per_s: f64) -> Outcome {
    let mut delivery = Latency::new("delivery", DELIVERY);
    let mut answer = Latency::new("answer", "publish scheduled to answer received");
    for number in 1..100_000_u32 {
        let rank = f64::from(number) / 100_000.0;
        // The quantiles of a distribution with a heavy tail.
        let ms = slowness * 0.4 * (1.0 - rank).powf(-0.35);
        delivery.record(Duration::from_secs_f64(ms / 1e3));
        answer.record(Duration::from_secs_f64(ms / 2.2e3));
    }
    Outcome {
        scenario: "fanout",
        target: target.to_owned(),
        settings: vec![
            setting("subscribers", "1000"),
            setting("publishes_per_s", "50"),
            setting("message_bytes", "200"),
        ],
        began_unix_s: 1_769_860_800,
        seconds: 20.0,
        figures: figures(slowness, per_s),
        latencies: vec![delivery, answer],
        series: series(slowness, per_s),
        deliveries: Some(Deliveries {
            expected: 1_000_000,
            received: 1_000_000,
            ..Deliveries::default()
        }),
        used: Some(Used {
            cpu_user_s: 0.8,
            cpu_system_s: 4.0,
            switches_voluntary: 12_345,
            switches_involuntary: 67,
            system_calls: Some(250_000),
            resident_bytes_before: 24 << 20,
            resident_bytes_after: 31 << 20,
        }),
        generator: Generator {
            cpu_share: 0.42,
            late_p99_ms: 0.31,
            late_max_ms: 2.4,
        },
        faults: Vec::new(),
        void: None,
        verdict: None,
    }
}

fn setting(name: &'static str, value: &str) -> Setting {
    let value = value.to_owned();
    Setting { name, value }
}

fn figures(slowness: f64, per_s: f64) -> Vec<Figure> {
    let figure = |key, label, unit, value| Figure {
        key,
        label,
        unit,
        value,
    };
    vec![
        figure(
            "cpu_per_delivered_us",
            "CPU per delivered message",
            "us",
            4.8 * slowness,
        ),
        figure("delivered_per_s", "delivered", "per second", per_s),
        figure("reconnects", "reconnects", "", 0.0),
    ]
}

fn series(slowness: f64, per_s: f64) -> Vec<Series> {
    let over_time = |value: &dyn Fn(f64) -> f64| {
        let seconds = (0..20).map(f64::from);
        seconds.map(|at| (at + 1.0, value(at))).collect()
    };
    vec![
        Series {
            key: "delivered",
            label: "delivered",
            unit: "per second",
            points: over_time(&|at| per_s * (1.0 - 0.04 * (at * 1.3).sin().abs())),
        },
        Series {
            key: "delivery_p99",
            label: "p99 of delivery",
            unit: "ms",
            points: over_time(&|at| slowness * (2.0 + (at * 0.9).sin())),
        },
    ]
}
