//! One latency over the run: all of it, and window by window.
//!
//! Owns: the windows of the series, what a terminal is shown meanwhile.
//! May depend on: `outcome`.
//! Invariants: every value is in exactly one window; a window without values has a rate of 0 and no
//! percentile.

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;

use crate::outcome::{Latency, Series};

/// The names of what a track makes.
#[derive(Clone, Copy, Debug)]
pub struct Names {
    /// Key and label of the latency.
    pub latency: (&'static str, &'static str),
    /// Key, label and unit of the series of how many came per second.
    pub rate: (&'static str, &'static str, &'static str),
    /// Key and label of the series of 99th percentiles.
    pub p99: (&'static str, &'static str),
}

pub struct Track {
    names: Names,
    began: Instant,
    all: Latency,
    window: Histogram<u64>,
    window_ends: Instant,
    rates: Vec<(f64, f64)>,
    p99s: Vec<(f64, f64)>,
    has_terminal: bool,
}

/// The length of a window.
pub const WINDOW: Duration = Duration::from_millis(250);

impl Track {
    pub fn new(began: Instant, names: Names) -> Self {
        let all = Latency::new(names.latency.0, names.latency.1);
        Self {
            names,
            began,
            window: all.histogram.clone(),
            all,
            window_ends: began + WINDOW,
            rates: Vec::new(),
            p99s: Vec::new(),
            has_terminal: false,
        }
    }

    /// Also shows each window on the terminal, if there is one.
    pub fn shown(mut self) -> Self {
        self.has_terminal = io::stderr().is_terminal();
        self
    }

    // Per value: one histogram slot. The whole gets the windows' sums.
    pub fn record(&mut self, now: Instant, latency: Duration) {
        if now >= self.window_ends {
            self.tick(now);
        }
        let nanoseconds = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.window.saturating_record(nanoseconds);
    }

    /// Closes the windows that have ended by now.
    pub fn tick(&mut self, now: Instant) {
        while now >= self.window_ends {
            self.close_window();
        }
    }

    fn close_window(&mut self) {
        let at = (self.window_ends - self.began).as_secs_f64();
        let rate = self.window.len() as f64 / WINDOW.as_secs_f64();
        self.rates.push((at, rate));
        if !self.window.is_empty() {
            let p99_ms = self.window.value_at_percentile(99.0) as f64 / 1e6;
            self.p99s.push((at, p99_ms));
        }
        self.all
            .histogram
            .add(&self.window)
            .expect("both have the same bounds");
        self.window.reset();
        self.window_ends += WINDOW;
        if self.has_terminal {
            self.show(at, rate);
        }
    }

    fn show(&self, at: f64, rate: f64) {
        let (unit, p99) = (self.names.rate.2, self.all.percentile_ms(99.0));
        let line = format!("{at:6.1} s  {rate:9.0} {unit}  p99 so far {p99:.2} ms");
        // A terminal that has gone away does not stop the run.
        let _ = write!(io::stderr(), "\r{line}\x1b[K");
    }

    /// The latency, and its two series.
    pub fn finish(mut self) -> (Latency, [Series; 2]) {
        if !self.window.is_empty() {
            self.close_window();
        }
        if self.has_terminal {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
        let (rate, p99) = (self.names.rate, self.names.p99);
        let rates = Series {
            key: rate.0,
            label: rate.1,
            unit: rate.2,
            points: self.rates,
        };
        let p99s = Series {
            key: p99.0,
            label: p99.1,
            unit: "ms",
            points: self.p99s,
        };
        (self.all, [rates, p99s])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: Names = Names {
        latency: ("delivery", "delivery"),
        rate: ("deliveries_per_s", "deliveries", "1/s"),
        p99: ("delivery_p99_ms", "p99 of deliveries"),
    };

    #[test]
    fn a_value_is_in_its_window_and_in_the_whole() {
        let began = Instant::now();
        let mut track = Track::new(began, NAMES);
        let at = |ms| began + Duration::from_millis(ms);
        track.record(at(10), Duration::from_millis(4));
        track.record(at(20), Duration::from_millis(4));
        track.record(at(800), Duration::from_millis(80));
        let (latency, [rates, p99s]) = track.finish();
        assert_eq!(
            rates.points,
            [(0.25, 8.0), (0.5, 0.0), (0.75, 0.0), (1.0, 4.0)]
        );
        assert_eq!(p99s.points.len(), 2);
        assert_eq!(latency.histogram.len(), 3);
        assert!((latency.percentile_ms(50.0) - 4.0).abs() < 0.01);
        assert!((latency.percentile_ms(100.0) - 80.0).abs() < 0.1);
    }
}
