//! Courses: scenarios with the parameters that the tables use. All of them are in this file.
//!
//! Owns: sizes and rates of the tables' loads.
//! May depend on: `rig`, `scenarios`, `outcome`.
//! Invariants: every subject gets a course with the same parameters. Rates are such that no subject is at its
//! limit on two cores, so that CPU time per operation compares.

use std::{collections::BTreeSet, time::Duration};

use super::{
    rows::Row,
    subjects::{Hooks, Needs},
};
use crate::{
    outcome::Outcome,
    rig::{Rig, RunError},
    scenarios::{
        burst::Burst, chatter::Chatter, connect::Connect, drop_all::DropAll, fanout::Fanout,
        hostile::Hostile, idle::Idle, listing::Listing, mixed::Mixed, neighbour::Neighbour,
        presence::Presence, publish::Publish, reconnect::Reconnect, slow::Slow, storm::Storm,
    },
    tls::Tls,
};

/// One scenario with fixed parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Course {
    Fanout,
    FanoutBatch,
    Chatter,
    /// Client events in channels of one member: parsed, checked, delivered to nobody.
    Ingest,
    Publish,
    PublishBatch,
    /// The same three as they come to a busy shard: some at once, then nothing for a while.
    ChatterBursts,
    IngestBursts,
    PublishBursts,
    Presence,
    Connect,
    IdleShared,
    IdleOwn,
    Storm,
    Slow,
    Mixed,
    Neighbour,
    /// So many events at once on a large channel, and on one as large as open files allow.
    Burst300,
    Burst3000,
    Burst10000,
    BurstLarge,
    Hostile,
    Listing,
    Drop,
    DropLarge,
    /// Client events of which each becomes a webhook, alone and in batches.
    Webhooks,
    WebhookBatches,
    /// Publishes that are counted in a Redis, none of which is refused.
    PublishCounted,
    /// Chatter on two shards at least, and what their messages to each other take.
    Hop,
    /// The same as some above with TLS on the port; handshakes in full, but for `TlsResumed`.
    TlsFanout,
    TlsConnect,
    TlsResumed,
    TlsIdle,
    /// Who comes back shakes hands in full, all at once.
    TlsStorm,
}

const SUBSCRIBERS: usize = 1_000;
const PUBLISHES_PER_S: u64 = 50;
/// Requests of ten messages: twice the messages of single ones.
const BATCHES_PER_S: u64 = 10;
const BATCH: u64 = 10;
const PUBLISHED_BYTES: usize = 200;
/// Connections that exchange client events, in pairs or each in a channel of its own.
const TALKERS: usize = 200;
const CLIENT_EVENTS_PER_S: u64 = 10_000;
const CLIENT_EVENT_BYTES: usize = 100;
const PUBLISHERS: usize = 32;
const REQUESTS_PER_S: u64 = 8_000;
const BATCH_REQUESTS_PER_S: u64 = 1_000;
const ROSTER_CHANGES_PER_S: u64 = 500;
const CONNECTIONS_PER_S: u64 = 500;
const STORM_CONNECTIONS: usize = 2_000;
const LARGE_PER_S: u64 = 2;
const WEBHOOKS_PER_S: u64 = 1_000;
const HOP_SHARDS: u16 = 2;
/// As many, if both processes may have so many files open.
const IDLE_CONNECTIONS: u64 = 10_000;
/// The same, and not more than one address has ports for on loopback.
const LARGE_SUBSCRIBERS: u64 = 25_000;
/// What a burst of events goes to, and what drops at once; the larger ones as above, with less.
const BURST_SUBSCRIBERS: u64 = 4_000;
const DROPPED: u64 = 5_000;
const BURST_BYTES: usize = 120;
const LARGE_BURST: u64 = 300;
const CROWD_MAX: u64 = 19_000;
const LISTED: usize = 1_000_000;
const LISTED_BY: usize = 200;
/// Files that a server or this program has open beside connections.
const OTHER_FILES: u64 = 1_000;

impl Course {
    pub const ALL: [Self; 34] = [
        Self::Fanout,
        Self::FanoutBatch,
        Self::Chatter,
        Self::Ingest,
        Self::Publish,
        Self::PublishBatch,
        Self::PublishCounted,
        Self::Webhooks,
        Self::WebhookBatches,
        Self::ChatterBursts,
        Self::IngestBursts,
        Self::PublishBursts,
        Self::Presence,
        Self::Connect,
        Self::IdleShared,
        Self::IdleOwn,
        Self::Storm,
        Self::Slow,
        Self::Mixed,
        Self::Neighbour,
        Self::Burst300,
        Self::Burst3000,
        Self::Burst10000,
        Self::BurstLarge,
        Self::Hostile,
        Self::Listing,
        Self::Drop,
        Self::DropLarge,
        Self::Hop,
        Self::TlsFanout,
        Self::TlsConnect,
        Self::TlsResumed,
        Self::TlsIdle,
        Self::TlsStorm,
    ];

    /// On the command line and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fanout => "fanout",
            Self::FanoutBatch => "fanout-batch",
            Self::Chatter => "chatter",
            Self::Ingest => "ingest",
            Self::Publish => "publish",
            Self::PublishBatch => "publish-batch",
            Self::PublishCounted => "publish-counted",
            Self::Webhooks => "webhooks",
            Self::WebhookBatches => "webhook-batches",
            Self::ChatterBursts => "chatter-bursts",
            Self::IngestBursts => "ingest-bursts",
            Self::PublishBursts => "publish-bursts",
            Self::Presence => "presence",
            Self::Connect => "connect",
            Self::IdleShared => "idle-shared",
            Self::IdleOwn => "idle-own",
            Self::Storm => "storm",
            Self::Slow => "slow",
            Self::Mixed => "mixed",
            Self::Neighbour => "neighbour",
            Self::Burst300 => "burst-300",
            Self::Burst3000 => "burst-3000",
            Self::Burst10000 => "burst-10000",
            Self::BurstLarge => "burst-large",
            Self::Hostile => "hostile",
            Self::Listing => "listing",
            Self::Drop => "drop",
            Self::DropLarge => "drop-large",
            Self::Hop => "hop",
            Self::TlsFanout => "tls-fanout",
            Self::TlsConnect => "tls-connect",
            Self::TlsResumed => "tls-resumed",
            Self::TlsIdle => "tls-idle",
            Self::TlsStorm => "tls-storm",
        }
    }

    /// Of what the figures speak, in words with the parameters.
    // tidy: table, an arm for each course.
    pub fn description(self, descriptors: u64) -> String {
        let idle = allowed(IDLE_CONNECTIONS, descriptors);
        let large = allowed(LARGE_SUBSCRIBERS, descriptors);
        match self {
            Self::Fanout => format!(
                "{SUBSCRIBERS} subscribers of a channel, {PUBLISHES_PER_S} publishes/s, {PUBLISHED_BYTES} B"
            ),
            Self::FanoutBatch => format!(
                "{SUBSCRIBERS} subscribers of a channel, {BATCHES_PER_S} batches/s of {BATCH}, {PUBLISHED_BYTES} B"
            ),
            Self::Chatter => format!(
                "{CLIENT_EVENTS_PER_S} client events/s, {TALKERS} connections in pairs, {CLIENT_EVENT_BYTES} B"
            ),
            Self::Ingest => format!(
                "{CLIENT_EVENTS_PER_S} client events/s, {TALKERS} connections alone in their channels"
            ),
            Self::Publish => format!(
                "{REQUESTS_PER_S} requests/s, {PUBLISHERS} connections that stay, {PUBLISHED_BYTES} B, no subscribers"
            ),
            Self::PublishBatch => format!(
                "{BATCH_REQUESTS_PER_S} requests/s of {BATCH} events, {PUBLISHERS} connections that stay"
            ),
            Self::PublishCounted => {
                "as publish, each request counted in a Redis that is never reached".to_owned()
            }
            Self::Webhooks => format!(
                "{WEBHOOKS_PER_S} client events/s, alone in their channels, a webhook for each"
            ),
            Self::WebhookBatches => "as webhooks, in batches of 50 ms".to_owned(),
            Self::ChatterBursts => format!("as chatter, {}", bursts(CLIENT_EVENTS_PER_S)),
            Self::IngestBursts => format!("as ingest, {}", bursts(CLIENT_EVENTS_PER_S)),
            Self::PublishBursts => format!("as publish, {}", bursts(REQUESTS_PER_S)),
            Self::Presence => format!(
                "{ROSTER_CHANGES_PER_S} joins and leaves/s, 20 channels, 10 members who stay in each"
            ),
            Self::Connect => format!("{CONNECTIONS_PER_S} connections/s, subscribed, closed"),
            Self::IdleShared => format!("{idle} connections in one channel"),
            Self::IdleOwn => format!("{idle} connections, each in a channel of its own"),
            Self::Storm => format!("{STORM_CONNECTIONS} connections drop at once and come back"),
            Self::Slow => {
                "100 subscribers, 10 % of them stop reading; those who read on".to_owned()
            }
            Self::Mixed => "1000 connections in 20 rooms: publishes, talk, newcomers".to_owned(),
            Self::Neighbour => format!(
                "10 small channels beside one with {large} subscribers that gets {LARGE_PER_S} publishes/s"
            ),
            Self::Burst300 | Self::Burst3000 | Self::Burst10000 | Self::BurstLarge => {
                let (subscribers, events) = self.burst(descriptors).unwrap_or_default();
                format!(
                    "one connection's pings while {events} events of {BURST_BYTES} B come at once for {subscribers} subscribers"
                )
            }
            Self::Hostile => {
                "one connection's pings while another floods, in five manners".to_owned()
            }
            Self::Listing => {
                format!(
                    "one connection's pings while {LISTED} channels are listed, and searched in vain"
                )
            }
            Self::Drop | Self::DropLarge => {
                let dropped = self.dropped(descriptors);
                format!("400 fresh connections/s while {dropped} others drop at once")
            }
            Self::Hop => format!(
                "{CLIENT_EVENTS_PER_S} client events/s on {HOP_SHARDS} shards that are not pinned"
            ),
            Self::TlsFanout => "as fanout, with TLS".to_owned(),
            Self::TlsConnect => "as connect, each with a TLS handshake in full".to_owned(),
            Self::TlsResumed => "as connect, each resuming a TLS session".to_owned(),
            Self::TlsIdle => "as idle-shared, with TLS".to_owned(),
            Self::TlsStorm => format!(
                "one connection's pings while {STORM_CONNECTIONS} drop and come back at once, again and again, with TLS"
            ),
        }
    }

    /// What of our server it needs beyond what all have.
    pub fn needs(self) -> Needs {
        Needs {
            metrics: matches!(self, Self::Neighbour | Self::Hop | Self::Listing),
            is_unlimited: self == Self::Listing,
            shards_min: (self == Self::Hop).then_some(HOP_SHARDS),
            seat: None,
            webhooks: match self {
                Self::Webhooks => Some(Hooks::Single),
                Self::WebhookBatches => Some(Hooks::Batched),
                _ => None,
            },
            counts_in_redis: self == Self::PublishCounted,
            tls: self.has_tls(),
        }
    }

    pub fn has_tls(self) -> bool {
        use Course::{TlsConnect, TlsFanout, TlsIdle, TlsResumed, TlsStorm};
        matches!(
            self,
            TlsFanout | TlsConnect | TlsResumed | TlsIdle | TlsStorm
        )
    }

    /// Webhooks that a run of so many seconds makes.
    pub fn webhooks(self, seconds: u64) -> u64 {
        match self {
            Self::Webhooks | Self::WebhookBatches => WEBHOOKS_PER_S * seconds,
            _ => 0,
        }
    }

    /// Subscribers and events of a burst.
    fn burst(self, descriptors: u64) -> Option<(u64, u64)> {
        let subscribers = allowed(BURST_SUBSCRIBERS, descriptors);
        match self {
            Self::Burst300 => Some((subscribers, 300)),
            Self::Burst3000 => Some((subscribers, 3_000)),
            Self::Burst10000 => Some((subscribers, 10_000)),
            Self::BurstLarge => Some((allowed(CROWD_MAX, descriptors), LARGE_BURST)),
            _ => None,
        }
    }

    fn dropped(self, descriptors: u64) -> u64 {
        let wanted = match self {
            Self::DropLarge => CROWD_MAX,
            _ => DROPPED,
        };
        allowed(wanted, descriptors)
    }

    /// Runs it. `descriptors` is how many files each process may have open.
    // tidy: table, an arm for each course.
    pub fn run(self, rig: &Rig, descriptors: u64) -> Result<Outcome, RunError> {
        match self {
            Self::Fanout => fanout(PUBLISHES_PER_S, 1).run(rig),
            Self::FanoutBatch => fanout(BATCHES_PER_S, BATCH).run(rig),
            Self::Chatter => chatter(TALKERS / 2, 2).run(rig),
            Self::Ingest => chatter(TALKERS, 1).run(rig),
            Self::Webhooks | Self::WebhookBatches => Chatter {
                rate: WEBHOOKS_PER_S,
                ..chatter(TALKERS, 1)
            }
            .run(rig),
            Self::PublishCounted => publish(REQUESTS_PER_S, 0).run(rig),
            Self::Publish => publish(REQUESTS_PER_S, 0).run(rig),
            Self::PublishBatch => publish(BATCH_REQUESTS_PER_S, BATCH).run(rig),
            Self::ChatterBursts => Self::Chatter.run(&in_bursts(rig), descriptors),
            Self::IngestBursts => Self::Ingest.run(&in_bursts(rig), descriptors),
            Self::PublishBursts => Self::Publish.run(&in_bursts(rig), descriptors),
            Self::Presence => Presence {
                channels: 20,
                members: 10,
                rate: ROSTER_CHANGES_PER_S,
            }
            .run(rig),
            Self::Connect => Connect {
                rate: CONNECTIONS_PER_S,
            }
            .run(rig),
            Self::IdleShared | Self::IdleOwn => Idle {
                connections: allowed(IDLE_CONNECTIONS, descriptors) as usize,
                channel_each: self == Self::IdleOwn,
            }
            .run(rig),
            Self::Storm => Storm {
                connections: STORM_CONNECTIONS,
                in_flight: 500,
            }
            .run(rig),
            Self::Slow => Slow {
                subscribers: 100,
                slow_percent: 10,
                message_bytes: 8_192,
                rate: 200,
            }
            .run(rig),
            Self::Mixed => Mixed {
                connections: 1_000,
                rooms: 20,
                publish_rate: 50,
                client_event_rate: 500,
                connect_rate: 20,
                message_bytes: PUBLISHED_BYTES,
            }
            .run(rig),
            Self::Neighbour => Neighbour {
                subscribers: allowed(LARGE_SUBSCRIBERS, descriptors) as usize,
                rate: LARGE_PER_S,
                neighbours: 10,
                neighbour_rate: 100,
                message_bytes: PUBLISHED_BYTES,
            }
            .run(rig),
            Self::Burst300 | Self::Burst3000 | Self::Burst10000 | Self::BurstLarge => {
                let (subscribers, events) = self.burst(descriptors).unwrap_or_default();
                let burst = Burst {
                    subscribers: subscribers as usize,
                    events,
                    message_bytes: BURST_BYTES,
                    publishers: PUBLISHERS,
                };
                burst.run(rig)
            }
            Self::Hostile => Hostile {}.run(rig),
            Self::Listing => Listing {
                channels: LISTED,
                connections: LISTED_BY,
            }
            .run(rig),
            Self::Drop | Self::DropLarge => DropAll {
                connections: self.dropped(descriptors) as usize,
            }
            .run(rig),
            Self::Hop => chatter(TALKERS / 2, 2).run(rig),
            Self::TlsFanout => Self::Fanout.run(rig, descriptors),
            Self::TlsConnect => Self::Connect.run(rig, descriptors),
            Self::TlsResumed => Self::Connect.run(&resuming(rig), descriptors),
            Self::TlsIdle => Self::IdleShared.run(rig, descriptors),
            Self::TlsStorm => Reconnect {
                connections: STORM_CONNECTIONS,
            }
            .run(rig),
        }
    }
}

/// The loads of some rows, in words.
pub fn described(rows: &[Row], descriptors: u64) -> Vec<String> {
    let courses: BTreeSet<Course> = rows.iter().map(|row| row.course).collect();
    let described = |course: Course| {
        let description = course.description(descriptors);
        format!("{}: {description}", course.name())
    };
    courses.into_iter().map(described).collect()
}

fn resuming(rig: &Rig) -> Rig {
    let mut rig = rig.clone();
    rig.target.tls = rig.target.tls.as_ref().map(Tls::resuming);
    rig
}

const BURSTS_EVERY: Duration = Duration::from_millis(1);

fn in_bursts(rig: &Rig) -> Rig {
    Rig {
        step: BURSTS_EVERY,
        in_bursts: true,
        ..rig.clone()
    }
}

fn bursts(per_s: u64) -> String {
    let each = per_s * BURSTS_EVERY.as_millis() as u64 / 1_000;
    format!("in bursts of {each} every {} ms", BURSTS_EVERY.as_millis())
}

/// How many of so many connections this program and a server may hold.
fn allowed(connections: u64, descriptors: u64) -> u64 {
    connections.min(descriptors.saturating_sub(OTHER_FILES).max(1))
}

fn fanout(rate: u64, batch: u64) -> Fanout {
    Fanout {
        subscribers: SUBSCRIBERS,
        message_bytes: PUBLISHED_BYTES,
        rate,
        batch,
    }
}

fn chatter(channels: usize, members: usize) -> Chatter {
    Chatter {
        channels,
        members,
        rate: CLIENT_EVENTS_PER_S,
        message_bytes: CLIENT_EVENT_BYTES,
    }
}

fn publish(rate: u64, batch: u64) -> Publish {
    Publish {
        connections: PUBLISHERS,
        rate,
        batch,
        message_bytes: PUBLISHED_BYTES,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_as_many_as_both_processes_may_hold() {
        for (descriptors, expected) in [
            (1_000_000, 10_000),
            (20_000, 10_000),
            (5_000, 4_000),
            (64, 1),
        ] {
            assert_eq!(allowed(IDLE_CONNECTIONS, descriptors), expected);
        }
        let said = Course::Neighbour.description(20_000);
        assert!(said.contains("19000 subscribers"), "{said}");
    }

    #[test]
    fn a_name_is_of_one_course() {
        for course in Course::ALL {
            let named = Course::ALL
                .into_iter()
                .filter(|other| other.name() == course.name());
            assert_eq!(named.count(), 1, "{course:?}");
        }
    }
}
