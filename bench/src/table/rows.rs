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
    Percentile {
        latency: &'static str,
        percentile: f64,
    },
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
            Source::Percentile {
                latency,
                percentile,
            } => {
                let mut latencies = outcome.latencies.iter();
                let latency = latencies.find(|other| other.key == latency)?;
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

    fn cpu(course: Course, key: &str, label: &str, keys: &'static [&'static str]) -> Self {
        let divisor = 1.0;
        Self::of(
            course,
            key,
            label,
            Kind::Cpu,
            Source::Figures { keys, divisor },
        )
    }

    fn memory(course: Course, key: &str, label: &str, keys: &'static [&'static str]) -> Self {
        let divisor = 1_024.0;
        Self::of(
            course,
            key,
            label,
            Kind::Memory,
            Source::Figures { keys, divisor },
        )
    }

    fn other(
        course: Course,
        key: &str,
        label: &str,
        keys: &'static [&'static str],
        unit: &'static str,
    ) -> Self {
        let divisor = 1.0;
        let source = Source::Figures { keys, divisor };
        Self {
            unit,
            ..Self::of(course, key, label, Kind::Other, source)
        }
    }

    fn percentile(
        course: Course,
        key: &str,
        label: &str,
        latency: &'static str,
        percentile: f64,
    ) -> Self {
        let source = Source::Percentile {
            latency,
            percentile,
        };
        Self::of(course, key, label, Kind::Latency, source)
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
const RESUMED: &[&str] = &["resumed_percent"];
const TURN: &[&str] = &["turn_p999_ms"];
const HOP: &[&str] = &["mesh_hop_p99_us"];

/// CPU time per message beside its floor: what a short run shows.
pub fn of_messages() -> Vec<Row> {
    use Course::{Fanout, FanoutBatch, Ingest, IngestBursts, Publish, PublishBursts};
    let beside = |course, key, label, figure, floor, of| {
        let mut row = Row::cpu(course, key, label, figure);
        row.floor = Some((floor, of));
        row
    };
    let (send, epoll) = (Floor::Send, Floor::Epoll);
    let (one, ten) = ("fan-out, 1 message per turn", "fan-out, 10 per turn");
    vec![
        beside(Fanout, "fanout_cpu", one, DELIVERED, send, Fanout),
        beside(
            FanoutBatch,
            "fanout_batch_cpu",
            ten,
            DELIVERED,
            send,
            Fanout,
        ),
        beside(
            Ingest,
            "ingest_cpu",
            "client event to nobody",
            CLIENT_EVENT,
            epoll,
            Ingest,
        ),
        beside(
            IngestBursts,
            "ingest_bursts_cpu",
            "… in bursts of 10",
            CLIENT_EVENT,
            epoll,
            IngestBursts,
        ),
        beside(
            Publish,
            "publish_cpu",
            "HTTP publish",
            REQUEST,
            epoll,
            Publish,
        ),
        beside(
            PublishBursts,
            "publish_bursts_cpu",
            "… in bursts of 8",
            REQUEST,
            epoll,
            PublishBursts,
        ),
    ]
}

/// All rows of the table with floors and budgets.
// tidy: table, an entry for each row.
pub fn of_budgets() -> Vec<Row> {
    use Course::{
        Burst300, Burst3000, Burst10000, BurstLarge, Chatter, ChatterBursts, Connect, Drop,
        DropLarge, Fanout, Hop, Hostile, IdleOwn, IdleShared, Listing, Neighbour, Presence,
        PublishBatch, PublishCounted, Storm, TlsConnect, TlsFanout, TlsIdle, TlsResumed, TlsStorm,
        WebhookBatches, Webhooks,
    };
    let mut ring = Row::cpu(
        Fanout,
        "fanout_ring_cpu",
        "… beside one io_uring batch",
        DELIVERED,
    );
    ring.floor = Some((Floor::Ring, Fanout));
    let mut batch = Row::cpu(
        PublishBatch,
        "publish_batch_cpu",
        "HTTP batch of 10",
        REQUEST,
    );
    batch.floor = Some((Floor::Epoll, PublishBatch));
    let (fresh, up) = ("storm: fresh connection p99", "storm: /up p99");
    let (beside, turns) = ("beside a large channel: p99", "… the server's turns, p99.9");
    let pings = |course, key, label| Row::percentile(course, key, label, "ping", 99.0);
    let alone = |course, key, label| Row::percentile(course, key, label, "ping_alone", 99.0);
    let times = |course, key, label, keys| Row::other(course, key, label, keys, "x alone");
    let mut rows = of_messages();
    rows.insert(1, ring);
    rows.extend([
        batch,
        Row::cpu(
            PublishCounted,
            "publish_counted_cpu",
            "HTTP publish, counted in Redis",
            REQUEST,
        ),
        Row::cpu(
            Webhooks,
            "webhook_cpu",
            "client event with a webhook",
            CLIENT_EVENT,
        ),
        Row::cpu(
            WebhookBatches,
            "webhook_batches_cpu",
            "… in batches of 50 ms",
            CLIENT_EVENT,
        ),
        Row::cpu(
            Chatter,
            "chatter_cpu",
            "client event to 1 other",
            CLIENT_EVENT,
        ),
        Row::cpu(
            ChatterBursts,
            "chatter_bursts_cpu",
            "… in bursts of 10",
            CLIENT_EVENT,
        ),
        Row::cpu(
            Presence,
            "presence_cpu",
            "presence join or leave",
            ROSTER_CHANGE,
        ),
        Row::cpu(IdleShared, "join_cpu", "connect to subscribed", CONNECTION),
        Row::cpu(Connect, "connect_cpu", "connect to closed", CONNECTION),
        Row::memory(IdleShared, "memory_shared", "memory, one channel", RESIDENT),
        Row::memory(IdleOwn, "memory_own", "memory, a channel each", RESIDENT),
        Row::memory(
            IdleShared,
            "memory_kernel",
            "… in the kernel, both ends",
            KERNEL,
        ),
        Row::other(IdleShared, "idle_cpu", "idle CPU", IDLE_CPU, "% of a core"),
        Row::percentile(Storm, "storm_canary_p99", fresh, "canary", 99.0),
        Row::percentile(Storm, "storm_up_p99", up, "up", 99.0),
        Row::percentile(Neighbour, "neighbour_p99", beside, "neighbour", 99.0),
        Row::other(Neighbour, "turn_p999", turns, TURN, "ms"),
        pings(Burst300, "burst_300", "300 events at once: a ping's p99"),
        pings(Burst3000, "burst_3000", "3 000 at once: a ping's p99"),
        pings(Burst10000, "burst_10000", "10 000 at once: a ping's p99"),
        pings(
            BurstLarge,
            "burst_large",
            "300 at once, more hear: a ping's p99",
        ),
        alone(BurstLarge, "burst_alone", "… the same connection before"),
        times(
            Hostile,
            "hostile_subscribe",
            "beside subscribes: a ping's p99",
            &["subscribe_ratio"],
        ),
        times(
            Hostile,
            "hostile_unsubscribe",
            "beside unsubscribes",
            &["unsubscribe_ratio"],
        ),
        times(
            Hostile,
            "hostile_chunks",
            "beside endless bodies",
            &["chunks_ratio"],
        ),
        times(
            Hostile,
            "hostile_head",
            "beside a HEAD pipeline",
            &["head_ratio"],
        ),
        times(
            Hostile,
            "hostile_forged",
            "beside forged bodies",
            &["forged_ratio"],
        ),
        times(
            Hostile,
            "hostile_pipelines",
            "beside 20 pipelines",
            &["pipelines_ratio"],
        ),
        alone(
            Hostile,
            "hostile_alone",
            "… the same connection before: p99",
        ),
        pings(Listing, "listing_p99", "beside a listing: a ping's p99"),
        alone(Listing, "listing_alone", "… the same connection before"),
        Row::other(
            Listing,
            "listing_turn_p999",
            "… the server's turns, p99.9",
            TURN,
            "ms",
        ),
        Row::percentile(
            Drop,
            "drop_p99",
            "5 000 drop: fresh connection p99",
            "fresh",
            99.0,
        ),
        Row::percentile(
            DropLarge,
            "drop_large_p99",
            "19 000 drop: the same",
            "fresh",
            99.0,
        ),
        Row::percentile(
            DropLarge,
            "drop_alone",
            "… before: the same",
            "fresh_alone",
            99.0,
        ),
        Row::other(Hop, "hop_p99", "hop to another shard, p99", HOP, "us"),
        Row::cpu(TlsFanout, "tls_fanout_cpu", "TLS: fan-out", DELIVERED),
        Row::cpu(
            TlsConnect,
            "tls_connect_cpu",
            "TLS: connect to closed",
            CONNECTION,
        ),
        Row::cpu(
            TlsResumed,
            "tls_resumed_cpu",
            "… with a resumed session",
            CONNECTION,
        ),
        Row::memory(TlsIdle, "tls_memory", "TLS: memory, one channel", RESIDENT),
        pings(
            TlsStorm,
            "tls_storm_p99",
            "TLS: 2 000 come back at once: a ping's p99",
        ),
        alone(
            TlsStorm,
            "tls_storm_alone",
            "… the same connection before: p99",
        ),
    ]);
    rows
}

/// Rows of one course in the table with peers.
struct Group {
    course: Course,
    what: &'static str,
    cpu: Option<&'static [&'static str]>,
    /// Key, and of what it is.
    latencies: &'static [(&'static str, &'static str)],
}

const GROUPS: [Group; 21] = [
    Group {
        course: Course::Fanout,
        what: "fan-out",
        cpu: Some(DELIVERED),
        latencies: &[("delivery", "delivery")],
    },
    Group {
        course: Course::FanoutBatch,
        what: "fan-out in tens",
        cpu: Some(DELIVERED),
        latencies: &[("delivery", "delivery")],
    },
    Group {
        course: Course::Chatter,
        what: "client event",
        cpu: Some(CLIENT_EVENT),
        latencies: &[("client_event", "delivery")],
    },
    Group {
        course: Course::Ingest,
        what: "client event to nobody",
        cpu: Some(CLIENT_EVENT),
        latencies: &[],
    },
    Group {
        course: Course::Publish,
        what: "HTTP publish",
        cpu: Some(REQUEST),
        latencies: &[("answer", "answer")],
    },
    Group {
        course: Course::PublishBatch,
        what: "HTTP batch of 10",
        cpu: Some(REQUEST),
        latencies: &[("answer", "answer")],
    },
    Group {
        course: Course::PublishCounted,
        what: "HTTP publish, counted in Redis",
        cpu: Some(REQUEST),
        latencies: &[("answer", "answer")],
    },
    Group {
        course: Course::Webhooks,
        what: "client event with a webhook",
        cpu: Some(CLIENT_EVENT),
        latencies: &[],
    },
    Group {
        course: Course::WebhookBatches,
        what: "client event with a webhook, batched",
        cpu: Some(CLIENT_EVENT),
        latencies: &[],
    },
    Group {
        course: Course::ChatterBursts,
        what: "client event, in bursts of 10",
        cpu: Some(CLIENT_EVENT),
        latencies: &[],
    },
    Group {
        course: Course::IngestBursts,
        what: "client event to nobody, in bursts of 10",
        cpu: Some(CLIENT_EVENT),
        latencies: &[],
    },
    Group {
        course: Course::PublishBursts,
        what: "HTTP publish, in bursts of 8",
        cpu: Some(REQUEST),
        latencies: &[],
    },
    Group {
        course: Course::Presence,
        what: "presence",
        cpu: Some(ROSTER_CHANGE),
        latencies: &[("member_added", "join"), ("member_removed", "leave")],
    },
    Group {
        course: Course::Connect,
        what: "connect",
        cpu: Some(CONNECTION),
        latencies: &[("subscribed", "subscribed")],
    },
    Group {
        course: Course::Storm,
        what: "storm",
        cpu: Some(CONNECTION),
        latencies: &[("canary", "fresh connection"), ("up", "/up")],
    },
    Group {
        course: Course::Slow,
        what: "beside slow readers",
        cpu: None,
        latencies: &[("delivery", "delivery")],
    },
    Group {
        course: Course::Mixed,
        what: "mixed",
        cpu: Some(DELIVERED),
        latencies: &[("delivery", "delivery"), ("client_event", "client event")],
    },
    Group {
        course: Course::Neighbour,
        what: "beside a large channel",
        cpu: None,
        latencies: &[("neighbour", "delivery")],
    },
    Group {
        course: Course::TlsFanout,
        what: "TLS, fan-out",
        cpu: Some(DELIVERED),
        latencies: &[("delivery", "delivery")],
    },
    Group {
        course: Course::TlsConnect,
        what: "TLS, connect in full",
        cpu: Some(CONNECTION),
        latencies: &[("subscribed", "subscribed")],
    },
    Group {
        course: Course::TlsResumed,
        what: "TLS, connect and resume",
        cpu: Some(CONNECTION),
        latencies: &[("subscribed", "subscribed")],
    },
];

/// Percentiles of the table with peers: in keys, shown, and as numbers.
const PERCENTILES: [(&str, &str, f64); 4] = [
    ("p50", "p50", 50.0),
    ("p99", "p99", 99.0),
    ("p999", "p99.9", 99.9),
    ("max", "max", 100.0),
];

impl Group {
    fn rows(&self) -> Vec<Row> {
        let (course, what) = (self.course, self.what);
        let name = course.name().replace('-', "_");
        let mut rows = Vec::new();
        if let Some(figures) = self.cpu {
            let label = format!("{what}: CPU");
            rows.push(Row::cpu(course, &format!("{name}_cpu"), &label, figures));
        }
        if matches!(course, Course::Publish | Course::PublishBatch) {
            let label = format!("{what}: reconnects");
            let key = format!("{name}_reconnects");
            rows.push(Row::other(course, &key, &label, RECONNECTS, ""));
        }
        for &(latency, of) in self.latencies {
            rows.extend(PERCENTILES.map(|(short, shown, at)| {
                let label = format!("{what}: {of} {shown}");
                let key = format!("{name}_{latency}_{short}");
                Row::percentile(course, &key, &label, latency, at)
            }));
        }
        rows
    }
}

/// All rows of the table with peers: CPU time and latencies, load by load, then idle connections.
pub fn of_peers() -> Vec<Row> {
    use Course::{IdleOwn, IdleShared, TlsIdle, TlsResumed};
    let mut rows: Vec<Row> = GROUPS.iter().flat_map(Group::rows).collect();
    rows.extend([
        Row::cpu(
            IdleShared,
            "join_cpu",
            "connect to subscribed: CPU",
            CONNECTION,
        ),
        Row::memory(IdleShared, "memory_shared", "memory, one channel", RESIDENT),
        Row::memory(IdleOwn, "memory_own", "memory, a channel each", RESIDENT),
        Row::other(IdleShared, "idle_cpu", "idle CPU", IDLE_CPU, "% of a core"),
        Row::other(
            TlsResumed,
            "tls_resumed_percent",
            "TLS, connect and resume: did resume",
            RESUMED,
            "%",
        ),
        Row::memory(TlsIdle, "tls_memory", "TLS, memory, one channel", RESIDENT),
    ]);
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
