//! Rows: one number of a course, and what it is held against.
//!
//! Owns: the rows of both tables, their keys, which scripts and budgets refer to.
//! May depend on: `courses`, `floors`, `outcome`.
//! Invariants: a key names one row of one table; of CPU time, memory and latency less is better.

use crate::{casts::whole_of, floors::Floor, outcome::Outcome, table::courses::Course};

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
        let source = Source::Figures { keys, divisor };
        Self::of(course, key, label, Kind::Cpu, source)
    }

    /// Beside a floor that ran that course.
    fn beside(
        course: Course,
        key: &str,
        label: &str,
        keys: &'static [&'static str],
        floor: Floor,
        of: Course,
    ) -> Self {
        Self {
            floor: Some((floor, of)),
            ..Self::cpu(course, key, label, keys)
        }
    }

    fn memory(course: Course, key: &str, label: &str, keys: &'static [&'static str]) -> Self {
        let divisor = 1_024.0;
        let source = Source::Figures { keys, divisor };
        Self::of(course, key, label, Kind::Memory, source)
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

    fn p99(course: Course, key: &str, label: &str, latency: &'static str) -> Self {
        Self::percentile(course, key, label, latency, 99.0)
    }
}

/// Of fewer values the percentile would be but their maximum.
fn needed_for(percentile: f64) -> u64 {
    match percentile < 100.0 {
        true => whole_of((50.0 / (100.0 - percentile)).round()),
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
const PING: &str = "ping";
const PING_ALONE: &str = "ping_alone";

/// A line for each row: how it is made, its course, key and label, and where its value is.
macro_rules! rows {
    ($($make:ident $course:ident $key:literal $label:literal ($($source:expr),*),)*) => {
        vec![$(Row::$make(Course::$course, $key, $label, $($source),*),)*]
    };
}

/// CPU time per message beside its floor: what a short run shows.
pub fn of_messages() -> Vec<Row> {
    use Course::{Fanout, Ingest, IngestBursts, Publish, PublishBursts};
    use Floor::{Epoll, Send};
    rows! {
        beside Fanout "fanout_cpu" "fan-out, 1 message per turn" (DELIVERED, Send, Fanout),
        beside FanoutBatch "fanout_batch_cpu" "fan-out, 10 per turn" (DELIVERED, Send, Fanout),
        beside Ingest "ingest_cpu" "client event to nobody" (CLIENT_EVENT, Epoll, Ingest),
        beside IngestBursts "ingest_bursts_cpu" "… in bursts of 10" (CLIENT_EVENT, Epoll, IngestBursts),
        beside Publish "publish_cpu" "HTTP publish" (REQUEST, Epoll, Publish),
        beside PublishBursts "publish_bursts_cpu" "… in bursts of 8" (REQUEST, Epoll, PublishBursts),
    }
}

/// All rows of the table with floors and budgets.
pub fn of_budgets() -> Vec<Row> {
    use Course::{Fanout, PublishBatch, TlsFanout, Webhooks, WebhooksMany};
    use Floor::{Epoll, Ring, Sealed, Webhook};
    const TIMES: &str = "x alone";
    let mut rows = of_messages();
    let ring = rows! {
        beside Fanout "fanout_ring_cpu" "… beside one io_uring batch" (DELIVERED, Ring, Fanout),
    };
    rows.splice(1..1, ring);
    rows.extend(rows! {
        beside PublishBatch "publish_batch_cpu" "HTTP batch of 10" (REQUEST, Epoll, PublishBatch),
        cpu PublishCounted "publish_counted_cpu" "HTTP publish, counted in Redis" (REQUEST),
        beside Webhooks "webhook_cpu" "client event with a webhook" (CLIENT_EVENT, Webhook, Webhooks),
        cpu WebhookBatches "webhook_batches_cpu" "… in batches of 50 ms" (CLIENT_EVENT),
        beside WebhooksMany "webhook_many_cpu" "client event with a webhook, 10 000/s" (CLIENT_EVENT, Webhook, WebhooksMany),
        cpu WebhooksInRedis "webhook_in_redis_cpu" "… which waits in Redis, 1 000/s" (CLIENT_EVENT),
        cpu WebhooksManyInRedis "webhook_many_in_redis_cpu" "… which waits in Redis, 10 000/s" (CLIENT_EVENT),
        cpu Chatter "chatter_cpu" "client event to 1 other" (CLIENT_EVENT),
        cpu ChatterBursts "chatter_bursts_cpu" "… in bursts of 10" (CLIENT_EVENT),
        cpu Presence "presence_cpu" "presence join or leave" (ROSTER_CHANGE),
        cpu IdleShared "join_cpu" "connect to subscribed" (CONNECTION),
        cpu Connect "connect_cpu" "connect to closed" (CONNECTION),
        memory IdleShared "memory_shared" "memory, one channel" (RESIDENT),
        memory IdleOwn "memory_own" "memory, a channel each" (RESIDENT),
        memory IdleShared "memory_kernel" "… in the kernel, both ends" (KERNEL),
        other IdleShared "idle_cpu" "idle CPU" (IDLE_CPU, "% of a core"),
        p99 Storm "storm_canary_p99" "storm: fresh connection p99" ("canary"),
        p99 Storm "storm_up_p99" "storm: /up p99" ("up"),
        p99 Neighbour "neighbour_p99" "beside a large channel: p99" ("neighbour"),
        other Neighbour "turn_p999" "… the server's turns, p99.9" (TURN, "ms"),
        p99 Burst300 "burst_300" "300 events at once: a ping's p99" (PING),
        p99 Burst3000 "burst_3000" "3 000 at once: a ping's p99" (PING),
        p99 Burst10000 "burst_10000" "10 000 at once: a ping's p99" (PING),
        p99 BurstLarge "burst_large" "300 at once, more hear: a ping's p99" (PING),
        p99 BurstLarge "burst_alone" "… the same connection before" (PING_ALONE),
        other Hostile "hostile_subscribe" "beside subscribes: a ping's p99" (&["subscribe_ratio"], TIMES),
        other Hostile "hostile_unsubscribe" "beside unsubscribes" (&["unsubscribe_ratio"], TIMES),
        other Hostile "hostile_chunks" "beside endless bodies" (&["chunks_ratio"], TIMES),
        other Hostile "hostile_head" "beside a HEAD pipeline" (&["head_ratio"], TIMES),
        other Hostile "hostile_forged" "beside forged bodies" (&["forged_ratio"], TIMES),
        other Hostile "hostile_pipelines" "beside 20 pipelines" (&["pipelines_ratio"], TIMES),
        p99 Hostile "hostile_alone" "… the same connection before: p99" (PING_ALONE),
        p99 Listing "listing_p99" "beside a listing: a ping's p99" (PING),
        p99 Listing "listing_alone" "… the same connection before" (PING_ALONE),
        other Listing "listing_turn_p999" "… the server's turns, p99.9" (TURN, "ms"),
        p99 Drop "drop_p99" "5 000 drop: fresh connection p99" ("fresh"),
        p99 DropLarge "drop_large_p99" "19 000 drop: the same" ("fresh"),
        p99 DropLarge "drop_alone" "… before: the same" ("fresh_alone"),
        other Hop "hop_p99" "hop to another shard, p99" (HOP, "us"),
        beside TlsFanout "tls_fanout_cpu" "TLS: fan-out" (DELIVERED, Sealed, TlsFanout),
        cpu TlsConnect "tls_connect_cpu" "TLS: connect to closed" (CONNECTION),
        cpu TlsResumed "tls_resumed_cpu" "… with a resumed session" (CONNECTION),
        memory TlsIdle "tls_memory" "TLS: memory, one channel" (RESIDENT),
        p99 TlsStorm "tls_storm_p99" "TLS: 2 000 come back at once: a ping's p99" (PING),
        p99 TlsStorm "tls_storm_alone" "… the same connection before: p99" (PING_ALONE),
        percentile Upgrade "upgrade_longest" "upgrades: the longest delivery of 10 000" ("delivery", 100.0),
        percentile Upgrade "upgrade_alone" "… the same connections before" ("delivery_before", 100.0),
    });
    rows
}

/// Rows of one course in the table with peers.
struct Group {
    course: Course,
    what: &'static str,
    /// Of CPU time; none = not shown.
    cpu: &'static [&'static str],
    /// Key, and of what it is.
    latencies: &'static [(&'static str, &'static str)],
}

/// A line for each group.
macro_rules! groups {
    ($($course:ident $what:literal $cpu:expr, $latencies:expr;)*) => {
        &[$(Group {
            course: Course::$course,
            what: $what,
            cpu: $cpu,
            latencies: &$latencies,
        },)*]
    };
}

const GROUPS: &[Group] = groups! {
    Fanout "fan-out" DELIVERED, [("delivery", "delivery")];
    FanoutBatch "fan-out in tens" DELIVERED, [("delivery", "delivery")];
    Chatter "client event" CLIENT_EVENT, [("client_event", "delivery")];
    Ingest "client event to nobody" CLIENT_EVENT, [];
    Publish "HTTP publish" REQUEST, [("answer", "answer")];
    PublishBatch "HTTP batch of 10" REQUEST, [("answer", "answer")];
    PublishCounted "HTTP publish, counted in Redis" REQUEST, [("answer", "answer")];
    Webhooks "client event with a webhook" CLIENT_EVENT, [];
    WebhookBatches "client event with a webhook, batched" CLIENT_EVENT, [];
    ChatterBursts "client event, in bursts of 10" CLIENT_EVENT, [];
    IngestBursts "client event to nobody, in bursts of 10" CLIENT_EVENT, [];
    PublishBursts "HTTP publish, in bursts of 8" REQUEST, [];
    Presence "presence" ROSTER_CHANGE, [("member_added", "join"), ("member_removed", "leave")];
    Connect "connect" CONNECTION, [("subscribed", "subscribed")];
    Storm "storm" CONNECTION, [("canary", "fresh connection"), ("up", "/up")];
    Slow "beside slow readers" &[], [("delivery", "delivery")];
    Mixed "mixed" DELIVERED, [("delivery", "delivery"), ("client_event", "client event")];
    Neighbour "beside a large channel" &[], [("neighbour", "delivery")];
    TlsFanout "TLS, fan-out" DELIVERED, [("delivery", "delivery")];
    TlsConnect "TLS, connect in full" CONNECTION, [("subscribed", "subscribed")];
    TlsResumed "TLS, connect and resume" CONNECTION, [("subscribed", "subscribed")];
};

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
        if !self.cpu.is_empty() {
            let label = format!("{what}: CPU");
            rows.push(Row::cpu(course, &format!("{name}_cpu"), &label, self.cpu));
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
    let mut rows: Vec<Row> = GROUPS.iter().flat_map(Group::rows).collect();
    rows.extend(rows! {
        cpu IdleShared "join_cpu" "connect to subscribed: CPU" (CONNECTION),
        memory IdleShared "memory_shared" "memory, one channel" (RESIDENT),
        memory IdleOwn "memory_own" "memory, a channel each" (RESIDENT),
        other IdleShared "idle_cpu" "idle CPU" (IDLE_CPU, "% of a core"),
        other TlsResumed "tls_resumed_percent" "TLS, connect and resume: did resume" (RESUMED, "%"),
        memory TlsIdle "tls_memory" "TLS, memory, one channel" (RESIDENT),
    });
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
