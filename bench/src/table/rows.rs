//! Rows: one number of a course, and what it is held against.
//!
//! Owns: the rows of both tables, their keys, which scripts and budgets refer to.
//! May depend on: `courses`, `floors`, `outcome`.
//! Invariants: a key names one row of one table; of CPU time, memory and latency less is better.

use crate::{floors::Floor, outcome::Outcome, table::courses::Course};

/// One number.
#[derive(Clone, Debug)]
pub struct Row {
    pub key: String,
    pub label: String,
    pub unit: &'static str,
    pub course: Course,
    pub source: Source,
    /// The floor beside it, and the course that it ran.
    pub floor: Option<(Floor, Course)>,
    pub kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// CPU time of the server per operation.
    Cpu,
    /// Bytes per connection.
    Memory,
    Latency,
    /// A count or a share, for information.
    Other,
}

/// Where an outcome has it.
#[derive(Clone, Copy, Debug)]
pub enum Source {
    /// The sum of some figures, in another unit.
    Figures {
        keys: &'static [&'static str],
        divisor: f64,
    },
    /// A percentile of a latency, in milliseconds.
    Percentile { key: &'static str, percentile: f64 },
}

impl Row {
    /// Its value in an outcome, if that has it.
    pub fn value(&self, outcome: &Outcome) -> Option<f64> {
        match self.source {
            Source::Figures { keys, divisor } => {
                let value_of = |key: &&str| {
                    let mut figures = outcome.figures.iter();
                    figures
                        .find(|figure| figure.key == *key)
                        .map(|figure| figure.value)
                };
                let values: Option<Vec<f64>> = keys.iter().map(value_of).collect();
                Some(values?.iter().sum::<f64>() / divisor)
            }
            Source::Percentile { key, percentile } => {
                let latency = outcome
                    .latencies
                    .iter()
                    .find(|latency| latency.key == key)?;
                let needed = needed_for(percentile);
                (latency.histogram.len() >= needed).then(|| latency.percentile_ms(percentile))
            }
        }
    }

    fn of(course: Course, key: &str, label: &str, kind: Kind, source: Source) -> Self {
        let unit = match kind {
            Kind::Cpu => "us",
            Kind::Memory => "KiB",
            Kind::Latency => "ms",
            Kind::Other => "",
        };
        Self {
            key: key.to_owned(),
            label: label.to_owned(),
            unit,
            course,
            source,
            floor: None,
            kind,
        }
    }

    fn cpu(course: Course, key: &str, label: &str, figure: &'static [&'static str]) -> Self {
        let source = Source::Figures {
            keys: figure,
            divisor: 1.0,
        };
        Self::of(course, key, label, Kind::Cpu, source)
    }

    fn memory(course: Course, key: &str, label: &str, figures: &'static [&'static str]) -> Self {
        let source = Source::Figures {
            keys: figures,
            divisor: 1_024.0,
        };
        Self::of(course, key, label, Kind::Memory, source)
    }

    fn figure(course: Course, key: &str, label: &str, figure: &'static [&'static str]) -> Self {
        let source = Source::Figures {
            keys: figure,
            divisor: 1.0,
        };
        Self::of(course, key, label, Kind::Other, source)
    }

    fn percentile(course: Course, key: &str, label: &str, latency: &'static str, at: f64) -> Self {
        let source = Source::Percentile {
            key: latency,
            percentile: at,
        };
        Self::of(course, key, label, Kind::Latency, source)
    }

    fn beside(mut self, floor: Floor, course: Course) -> Self {
        self.floor = Some((floor, course));
        self
    }

    fn in_unit(mut self, unit: &'static str) -> Self {
        self.unit = unit;
        self
    }
}

/// Of fewer values the percentile would be but their maximum.
fn needed_for(percentile: f64) -> u64 {
    match percentile < 100.0 {
        true => (50.0 / (100.0 - percentile)).round() as u64,
        false => 1,
    }
}

const DELIVERED: &[&str] = &["cpu_per_delivered_us"];
const CLIENT_EVENT: &[&str] = &["cpu_per_client_event_us"];
const REQUEST: &[&str] = &["cpu_per_request_us"];
const CONNECTION: &[&str] = &["cpu_per_connection_us"];
const ROSTER_CHANGE: &[&str] = &["cpu_per_roster_change_us"];
const RESIDENT: &[&str] = &["resident_per_connection_bytes"];
const KERNEL: &[&str] = &[
    "kernel_slab_per_connection_bytes",
    "kernel_tcp_per_connection_bytes",
];
const IDLE_CPU: &[&str] = &["idle_cpu_percent"];
const RECONNECTS: &[&str] = &["reconnects"];

/// CPU time per message beside its floor: what a short run shows.
pub fn of_messages() -> Vec<Row> {
    use Course::{Fanout, FanoutBatch, Ingest, Publish};
    vec![
        Row::cpu(
            Fanout,
            "fanout_cpu",
            "fan-out, 1 message per turn: CPU",
            DELIVERED,
        )
        .beside(Floor::Send, Fanout),
        Row::cpu(
            FanoutBatch,
            "fanout_batch_cpu",
            "fan-out, 10 per turn: CPU",
            DELIVERED,
        )
        .beside(Floor::Send, Fanout),
        Row::cpu(
            Ingest,
            "ingest_cpu",
            "client event to nobody: CPU",
            CLIENT_EVENT,
        )
        .beside(Floor::Epoll, Ingest),
        Row::cpu(Publish, "publish_cpu", "HTTP publish: CPU", REQUEST)
            .beside(Floor::Epoll, Publish),
    ]
}

/// All rows of the table with floors and budgets.
pub fn of_budgets() -> Vec<Row> {
    use Course::{Chatter, Connect, Fanout, IdleOwn, IdleShared, Presence, PublishBatch, Storm};
    let mut rows = of_messages();
    rows.insert(
        1,
        Row::cpu(
            Fanout,
            "fanout_ring_cpu",
            "… beside one io_uring batch",
            DELIVERED,
        )
        .beside(Floor::Ring, Fanout),
    );
    rows.extend([
        Row::cpu(
            PublishBatch,
            "publish_batch_cpu",
            "HTTP batch of 10: CPU",
            REQUEST,
        )
        .beside(Floor::Epoll, PublishBatch),
        Row::cpu(
            Chatter,
            "chatter_cpu",
            "client event to 1 other: CPU",
            CLIENT_EVENT,
        ),
        Row::cpu(
            Presence,
            "presence_cpu",
            "presence join or leave: CPU",
            ROSTER_CHANGE,
        ),
        Row::cpu(
            IdleShared,
            "join_cpu",
            "connect to subscribed: CPU",
            CONNECTION,
        ),
        Row::cpu(Connect, "connect_cpu", "connect to closed: CPU", CONNECTION),
        Row::memory(
            IdleShared,
            "memory_shared",
            "idle memory, one channel",
            RESIDENT,
        ),
        Row::memory(
            IdleOwn,
            "memory_own",
            "idle memory, a channel each",
            RESIDENT,
        ),
        Row::memory(
            IdleShared,
            "memory_kernel",
            "… in the kernel, both ends",
            KERNEL,
        ),
        Row::figure(IdleShared, "idle_cpu", "idle CPU", IDLE_CPU).in_unit("% of a core"),
        Row::percentile(
            Storm,
            "storm_canary_p99",
            "storm: fresh connection p99",
            "canary",
            99.0,
        ),
        Row::percentile(Storm, "storm_up_p99", "storm: /up p99", "up", 99.0),
    ]);
    rows
}

/// Percentiles of the table with peers.
const PERCENTILES: [(&str, &str, f64); 4] = [
    ("p50", "p50", 50.0),
    ("p99", "p99", 99.0),
    ("p999", "p99.9", 99.9),
    ("max", "max", 100.0),
];

/// All rows of the table with peers: CPU time, then the latencies' percentiles.
pub fn of_peers() -> Vec<Row> {
    use Course::{
        Chatter, Connect, Fanout, FanoutBatch, IdleOwn, IdleShared, Mixed, Presence, Publish,
        PublishBatch, Slow, Storm,
    };
    type Latencies = &'static [(&'static str, &'static str)];
    let group = |course, what: &str, figure, latencies: Latencies| {
        let name = Course::name(course).replace('-', "_");
        let cpu = Row::cpu(
            course,
            &format!("{name}_cpu"),
            &format!("{what}: CPU"),
            figure,
        );
        let mut rows = vec![cpu];
        for &(latency, of) in latencies {
            rows.extend(PERCENTILES.map(|(short, shown, at)| {
                let label = format!("{what}: {of} {shown}");
                Row::percentile(
                    course,
                    &format!("{name}_{latency}_{short}"),
                    &label,
                    latency,
                    at,
                )
            }));
        }
        rows
    };
    let delivery: Latencies = &[("delivery", "delivery")];
    let answer: Latencies = &[("answer", "answer")];
    let rosters: Latencies = &[
        ("member_added", "member_added"),
        ("member_removed", "member_removed"),
    ];
    let mut rows = group(Fanout, "fan-out", DELIVERED, delivery);
    rows.extend(group(
        FanoutBatch,
        "fan-out, batches of 10",
        DELIVERED,
        delivery,
    ));
    rows.extend(group(
        Chatter,
        "client event",
        CLIENT_EVENT,
        &[("client_event", "delivery")],
    ));
    rows.extend(group(Publish, "HTTP publish", REQUEST, answer));
    rows.push(Row::figure(
        Publish,
        "publish_reconnects",
        "HTTP publish: reconnects",
        RECONNECTS,
    ));
    rows.extend(group(PublishBatch, "HTTP batch of 10", REQUEST, answer));
    rows.extend(group(Presence, "presence", ROSTER_CHANGE, rosters));
    rows.extend(group(
        Connect,
        "connect to closed",
        CONNECTION,
        &[("subscribed", "subscribed")],
    ));
    rows.extend([
        Row::cpu(
            IdleShared,
            "join_cpu",
            "connect to subscribed: CPU",
            CONNECTION,
        ),
        Row::memory(
            IdleShared,
            "memory_shared",
            "idle memory, one channel",
            RESIDENT,
        ),
        Row::memory(
            IdleOwn,
            "memory_own",
            "idle memory, a channel each",
            RESIDENT,
        ),
        Row::figure(IdleShared, "idle_cpu", "idle CPU", IDLE_CPU).in_unit("% of a core"),
    ]);
    rows.extend(group(
        Storm,
        "storm",
        CONNECTION,
        &[("canary", "fresh connection"), ("up", "/up")],
    ));
    rows.extend(group(
        Mixed,
        "mixed",
        DELIVERED,
        &[("delivery", "delivery"), ("client_event", "client event")],
    ));
    rows.extend(
        group(Slow, "beside slow readers", DELIVERED, delivery)
            .into_iter()
            .skip(1),
    );
    rows
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_percentile_needs_values_beyond_it() {
        let needed = [50.0, 99.0, 99.9, 100.0].map(needed_for);
        assert_eq!(needed, [1, 50, 500, 1]);
    }

    #[test]
    fn a_key_names_one_row() {
        for rows in [of_messages(), of_budgets(), of_peers()] {
            let keys: BTreeSet<&str> = rows.iter().map(|row| &*row.key).collect();
            assert_eq!(keys.len(), rows.len());
        }
    }
}
