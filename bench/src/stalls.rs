//! Stalls of the machine itself: how late a thread is woken that does nothing but sleep.
//!
//! Owns: the sleepers on the first and the last core, their histograms.
//! May depend on: hdrhistogram, `cores`, `cpu`.
//! Invariants: no server and no load runs meanwhile, so that what is late is the kernel's, another program's
//! or the host's of a virtual machine. What a load's percentile has below these says nothing of its server.

use std::{
    thread,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::{cores::Placed, cpu};

/// How late sleeps ended, on the core of pinned servers and on the load generator's.
pub struct Stalls {
    first: Histogram<u64>,
    last: Histogram<u64>,
}

const SLEEP: Duration = Duration::from_millis(1);

impl Default for Stalls {
    fn default() -> Self {
        Self {
            first: empty(),
            last: empty(),
        }
    }
}

/// Nanoseconds, three significant digits.
fn empty() -> Histogram<u64> {
    const LONGEST_NS: u64 = 60_000_000_000;
    Histogram::new_with_bounds(1, LONGEST_NS, 3).expect("the bounds are in order")
}

impl Stalls {
    /// Sleeps on both cores at once, for so long, and adds what was seen.
    pub fn watch(&mut self, length: Duration) {
        thread::scope(|threads| {
            threads.spawn(|| sleep(&mut self.first, Placed::on_first(), length));
            threads.spawn(|| sleep(&mut self.last, Placed::on_last(), length));
        });
    }

    /// A line for each core.
    pub fn lines(&self) -> Vec<String> {
        let line = |(core, late): (&str, &Histogram<u64>)| {
            format!(
                "{core} core: a sleep of {} ms ends {:.2} ms late (p50), {:.2} (p99), {:.2} (p99.9), {:.2} (max)",
                SLEEP.as_millis(),
                at(late, 50.0),
                at(late, 99.0),
                at(late, 99.9),
                at(late, 100.0),
            )
        };
        self.cores().map(line).to_vec()
    }

    pub fn as_value(&self) -> Value {
        let [first, last] = self.cores().map(|(_, late)| {
            json!({
                "p50_ms": at(late, 50.0), "p99_ms": at(late, 99.0),
                "p99_9_ms": at(late, 99.9), "max_ms": at(late, 100.0),
            })
        });
        json!({"first_core": first, "last_core": last})
    }

    fn cores(&self) -> [(&'static str, &Histogram<u64>); 2] {
        [("first", &self.first), ("last", &self.last)]
    }
}

fn at(late: &Histogram<u64>, percentile: f64) -> f64 {
    late.value_at_percentile(percentile) as f64 / 1e6
}

/// Sleeps from one time to the next, whatever became of the earlier ones.
fn sleep(late: &mut Histogram<u64>, _placed: Option<Placed>, length: Duration) {
    cpu::sleep_exactly();
    let began = Instant::now();
    let mut due = began + SLEEP;
    while due < began + length {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let nanoseconds = due.elapsed().as_nanos();
        late.saturating_record(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
        due += SLEEP;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sleep_of_both_cores_is_counted_and_none_ends_early() {
        let mut stalls = Stalls::default();
        stalls.watch(Duration::from_millis(20));
        stalls.watch(Duration::from_millis(20));
        for (core, late) in stalls.cores() {
            assert_eq!(late.len(), 38, "{core}");
            assert!(late.min() > 0, "{core}");
        }
        assert!(stalls.lines()[0].starts_with("first core: a sleep of 1 ms ends "));
    }
}
