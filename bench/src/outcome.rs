//! What one run of one scenario showed: the value that scenarios make and reports read.
//!
//! Owns: the names and units of figures; the rule by which a run is void.
//! May depend on: hdrhistogram, serde.
//! Invariants: a figure says its unit; what was lost, doubled or refused is in `faults`; a run whose load
//! generator was the bottleneck has `void` set, and its figures count for nothing.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// One run of one scenario against one target.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The scenario's name on the command line, e.g. `fanout`.
    pub scenario: &'static str,
    /// The target's name, e.g. `127.0.0.1:6001` or `sockudo 2.9.2`.
    pub target: String,
    /// The load as it was asked for, in the order of the command line's flags.
    pub settings: Vec<Setting>,
    /// When the load began.
    pub began_unix_s: u64,
    /// How long the load lasted.
    pub seconds: f64,
    pub figures: Vec<Figure>,
    pub latencies: Vec<Latency>,
    pub series: Vec<Series>,
    /// Deliveries, where the scenario numbers its messages.
    pub deliveries: Option<Deliveries>,
    /// What the target used, where its process is known.
    pub used: Option<Used>,
    pub generator: Generator,
    /// What the target did wrong: lost, doubled, refused, closed. Empty = a clean run.
    pub faults: Vec<String>,
    /// Why the run says nothing about the target.
    pub void: Option<String>,
    /// Of a scenario that asks whether a load is carried.
    pub verdict: Option<Verdict>,
}

/// Whether a load was carried, and what the limit was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    pub has_passed: bool,
    /// None = it was carried.
    pub limit: Option<Limit>,
    /// What was seen of the limit.
    pub words: String,
    /// Connections that were subscribed, and those that were to be.
    pub connections: usize,
    pub asked: usize,
}

/// What a load that was not carried ran into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    Files,
    Ports,
    Memory,
    Unreachable,
    ServerRefused,
    ServerFiles,
    ServerClosed,
    ServerGone,
    ServerCpu,
    HostCpu,
    Generator,
    Latency,
    Faults,
    Stalled,
}

impl Limit {
    /// For people, and what to do.
    pub fn words(self) -> &'static str {
        match self {
            Self::Files => "open files of the load generator; raise its limit (ulimit -n)",
            Self::Ports => "ports of this host's addresses; name more addresses (--source)",
            Self::Memory => "this host's memory",
            Self::Unreachable => "the way to the server; look at address, port and firewall",
            Self::ServerRefused => "what the server takes; its words name the bound",
            Self::ServerFiles => "open files of the server; raise LimitNOFILE",
            Self::ServerClosed => "the server, which closes connections; its log may say why",
            Self::ServerGone => "the server's life",
            Self::ServerCpu => "the server's CPU; give it more shards, or cores",
            Self::HostCpu => "this host's CPU, which server and clients share; use two hosts",
            Self::Generator => "the load generator; nothing is known of the server",
            Self::Latency => "the latency that was asked for, though CPU was left",
            Self::Faults => "faults of the server, though CPU was left",
            Self::Stalled => "new connections, which the server left waiting",
        }
    }
}

impl Verdict {
    /// In one sentence.
    pub fn sentence(&self) -> String {
        let Self {
            connections, asked, ..
        } = self;
        match self.limit {
            None => format!(
                "PASSED: {connections} connections, and all that was published reached them in time"
            ),
            Some(limit) => format!(
                "FAILED with {connections} of {asked} connections: {}. The limit was {}",
                self.words,
                limit.words()
            ),
        }
    }
}

/// One part of the load: `subscribers = 1000`.
#[derive(Clone, Debug, Serialize)]
pub struct Setting {
    pub name: &'static str,
    pub value: String,
}

/// One number. Keys are stable: scripts and budgets refer to them.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// Snake case with the unit at its end, e.g. `cpu_per_delivered_us`.
    pub key: &'static str,
    /// For people, e.g. `CPU per delivered message`.
    pub label: &'static str,
    pub unit: &'static str,
    pub value: f64,
}

/// How long something took, counted from the time at which it was scheduled.
#[derive(Clone, Debug)]
pub struct Latency {
    /// Snake case, e.g. `delivery`, `answer`, `established`, `canary`.
    pub key: &'static str,
    /// For people, e.g. `publish scheduled to event received`.
    pub label: &'static str,
    /// Nanoseconds, three significant digits.
    pub histogram: Histogram<u64>,
}

/// A value over the time of the run.
#[derive(Clone, Debug, Serialize)]
pub struct Series {
    pub key: &'static str,
    pub label: &'static str,
    pub unit: &'static str,
    /// Seconds since the load began, value; ascending.
    pub points: Vec<(f64, f64)>,
}

/// An account of numbered messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Deliveries {
    pub expected: u64,
    /// Distinct messages that came.
    pub received: u64,
    pub lost: u64,
    pub duplicates: u64,
    /// Came after a later one.
    pub out_of_order: u64,
}

/// What the target's process used during the load.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Used {
    pub cpu_user_s: f64,
    pub cpu_system_s: f64,
    pub switches_voluntary: u64,
    pub switches_involuntary: u64,
    /// None where the kernel does not let us count (no perf events, no tracefs).
    pub system_calls: Option<u64>,
    pub resident_bytes_before: u64,
    pub resident_bytes_after: u64,
}

/// How well the load generator did its own part.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Generator {
    /// The busiest generator thread's CPU time as a part of the time that passed.
    pub cpu_share: f64,
    /// The 99th percentile and the maximum of how late operations began after their time.
    pub late_p99_ms: f64,
    pub late_max_ms: f64,
}

impl Generator {
    /// A generator thread busier than this adds its own queueing to what it measures.
    pub const MOST_CPU_SHARE: f64 = 0.9;
    /// Operations that begin later than this change the load's shape.
    pub const MOST_LATE_P99: Duration = Duration::from_millis(50);

    /// Why its run is void, if it is.
    pub fn verdict(&self) -> Option<String> {
        if self.cpu_share > Self::MOST_CPU_SHARE {
            return Some(format!(
                "the load generator was the bottleneck: it used {:.0} % of a core",
                self.cpu_share * 100.0
            ));
        }
        if self.late_p99_ms > Self::MOST_LATE_P99.as_secs_f64() * 1e3 {
            return Some(format!(
                "the load generator was the bottleneck: 1 % of its operations began more than {:.0} ms late",
                self.late_p99_ms
            ));
        }
        None
    }
}

impl Latency {
    /// The percentiles that every report shows.
    pub const PERCENTILES: [(&'static str, f64); 6] = [
        ("p50", 50.0),
        ("p90", 90.0),
        ("p99", 99.0),
        ("p99.9", 99.9),
        ("p99.99", 99.99),
        ("max", 100.0),
    ];

    /// An empty histogram of 1 us to 10 min.
    pub fn new(key: &'static str, label: &'static str) -> Self {
        const LONGEST_NS: u64 = 600_000_000_000;
        let histogram =
            Histogram::new_with_bounds(1_000, LONGEST_NS, 3).expect("the bounds are in order");
        Self {
            key,
            label,
            histogram,
        }
    }

    /// Longer than the longest counts as the longest.
    pub fn record(&mut self, latency: Duration) {
        let nanoseconds = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.histogram.saturating_record(nanoseconds);
    }

    /// Milliseconds below which that percentage of the values lies; 0 of no values.
    pub fn percentile_ms(&self, percentile: f64) -> f64 {
        self.histogram.value_at_percentile(percentile) as f64 / 1e6
    }
}

/// Everything that one call of the load generator showed.
#[derive(Clone, Debug)]
pub struct Run {
    pub machine: Machine,
    /// In the order in which they ran.
    pub outcomes: Vec<Outcome>,
    /// Of the `ramp` scenario, whose steps are the outcomes.
    pub ramp: Option<Ramp>,
}

/// Where and when a run took place.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    pub cpu: String,
    pub cores: usize,
    pub kernel: String,
    pub memory_bytes: u64,
    /// UTC, `2026-01-31 12:00`.
    pub date: String,
}

/// A search for the highest load that keeps an objective.
#[derive(Clone, Debug, Serialize)]
pub struct Ramp {
    /// The latency that is held against the objective, and its percentile.
    pub latency: &'static str,
    pub percentile: f64,
    pub objective_ms: f64,
    /// What is raised, e.g. `deliveries per second`.
    pub load_unit: &'static str,
    /// One per outcome, in the order in which they ran.
    pub steps: Vec<RampStep>,
    pub highest_held: Option<f64>,
}

/// One load of a ramp.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct RampStep {
    pub load: f64,
    pub reached_ms: f64,
    pub has_held: bool,
}
