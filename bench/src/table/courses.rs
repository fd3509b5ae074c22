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
        upgrade::Upgrade,
    },
    tls::Tls,
};

/// A row for each course: its name, of what its figures speak, and how it is run.
macro_rules! courses {
    ($rig:ident, $descriptors:ident; $(
        $(#[$meaning:meta])* $course:ident $name:literal ($($words:tt)*) => $run:expr,
    )*) => {
        /// One scenario with fixed parameters.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Course { $($(#[$meaning])* $course,)* }

        impl Course {
            /// In the order in which they run.
            pub const ALL: &[Self] = &[$(Self::$course,)*];

            /// On the command line and in JSON.
            pub fn name(self) -> &'static str {
                match self { $(Self::$course => $name,)* }
            }

            /// In words with the parameters. `descriptors` is how many files each process may have open.
            pub fn description(self, $descriptors: u64) -> String {
                match self { $(Self::$course => format!($($words)*),)* }
            }

            pub fn run(self, $rig: &Rig, $descriptors: u64) -> Result<Outcome, RunError> {
                match self { $(Self::$course => $run,)* }
            }
        }
    };
}

courses! { rig, descriptors;
    Fanout "fanout"
        ("{SUBSCRIBERS} subscribers of a channel, {PUBLISHES_PER_S} publishes/s, {PUBLISHED_BYTES} B")
        => FANOUT.run(rig),
    FanoutBatch "fanout-batch"
        ("{SUBSCRIBERS} subscribers of a channel, {BATCHES_PER_S} batches/s of {BATCH}, {PUBLISHED_BYTES} B")
        => Fanout { rate: BATCHES_PER_S, batch: BATCH, ..FANOUT }.run(rig),
    Chatter "chatter"
        ("{CLIENT_EVENTS_PER_S} client events/s, {TALKERS} connections in pairs, {CLIENT_EVENT_BYTES} B")
        => PAIRS.run(rig),
    /// Client events in channels of one member: parsed, checked, delivered to nobody.
    Ingest "ingest"
        ("{CLIENT_EVENTS_PER_S} client events/s, {TALKERS} connections alone in their channels")
        => ALONE.run(rig),
    Publish "publish"
        ("{REQUESTS_PER_S} requests/s, {PUBLISHERS} connections that stay, {PUBLISHED_BYTES} B, no subscribers")
        => PUBLISH.run(rig),
    PublishBatch "publish-batch"
        ("{BATCH_REQUESTS_PER_S} requests/s of {BATCH} events, {PUBLISHERS} connections that stay")
        => Publish { rate: BATCH_REQUESTS_PER_S, batch: BATCH, ..PUBLISH }.run(rig),
    /// Publishes that are counted in a Redis, none of which is refused.
    PublishCounted "publish-counted"
        ("as publish, each request counted in a Redis that is never reached")
        => PUBLISH.run(rig),
    /// Client events of which each becomes a webhook, alone and in batches.
    Webhooks "webhooks"
        ("{WEBHOOKS_PER_S} client events/s, alone in their channels, a webhook for each")
        => Chatter { rate: WEBHOOKS_PER_S, ..ALONE }.run(rig),
    WebhookBatches "webhook-batches"
        ("as webhooks, in batches of 50 ms")
        => Chatter { rate: WEBHOOKS_PER_S, ..ALONE }.run(rig),
    WebhooksMany "webhooks-many"
        ("as webhooks, {MANY_WEBHOOKS_PER_S} client events/s")
        => Chatter { rate: MANY_WEBHOOKS_PER_S, ..ALONE }.run(rig),
    /// The same two with the jobs in a Redis of the table's own.
    WebhooksInRedis "webhooks-in-redis"
        ("as webhooks, which wait in a Redis")
        => Chatter { rate: WEBHOOKS_PER_S, ..ALONE }.run(rig),
    WebhooksManyInRedis "webhooks-many-in-redis"
        ("as webhooks-many, which wait in a Redis")
        => Chatter { rate: MANY_WEBHOOKS_PER_S, ..ALONE }.run(rig),
    /// Three from above as they come to a busy shard: some at once, then nothing for a while.
    ChatterBursts "chatter-bursts"
        ("as chatter, {}", bursts(CLIENT_EVENTS_PER_S))
        => PAIRS.run(&in_bursts(rig)),
    IngestBursts "ingest-bursts"
        ("as ingest, {}", bursts(CLIENT_EVENTS_PER_S))
        => ALONE.run(&in_bursts(rig)),
    PublishBursts "publish-bursts"
        ("as publish, {}", bursts(REQUESTS_PER_S))
        => PUBLISH.run(&in_bursts(rig)),
    Presence "presence"
        ("{ROSTER_CHANGES_PER_S} joins and leaves/s, 20 channels, 10 members who stay in each")
        => Presence { channels: 20, members: 10, rate: ROSTER_CHANGES_PER_S }.run(rig),
    Connect "connect"
        ("{CONNECTIONS_PER_S} connections/s, subscribed, closed")
        => CONNECT.run(rig),
    IdleShared "idle-shared"
        ("{} connections in one channel", allowed(IDLE_CONNECTIONS, descriptors))
        => idle(descriptors, false).run(rig),
    IdleOwn "idle-own"
        ("{} connections, each in a channel of its own", allowed(IDLE_CONNECTIONS, descriptors))
        => idle(descriptors, true).run(rig),
    Storm "storm"
        ("{STORM_CONNECTIONS} connections drop at once and come back")
        => Storm { connections: STORM_CONNECTIONS, in_flight: 500 }.run(rig),
    Slow "slow"
        ("100 subscribers, 10 % of them stop reading; those who read on")
        => Slow { subscribers: 100, slow_percent: 10, message_bytes: 8_192, rate: 200 }.run(rig),
    Mixed "mixed"
        ("1000 connections in 20 rooms: publishes, talk, newcomers")
        => Mixed {
            connections: 1_000,
            rooms: 20,
            publish_rate: 50,
            client_event_rate: 500,
            connect_rate: 20,
            message_bytes: PUBLISHED_BYTES,
        }.run(rig),
    Neighbour "neighbour"
        ("10 small channels beside one with {} subscribers that gets {LARGE_PER_S} publishes/s",
            allowed(LARGE_SUBSCRIBERS, descriptors))
        => Neighbour {
            subscribers: allowed(LARGE_SUBSCRIBERS, descriptors),
            rate: LARGE_PER_S,
            neighbours: 10,
            neighbour_rate: 100,
            message_bytes: PUBLISHED_BYTES,
        }.run(rig),
    /// So many events at once on a large channel, and on one as large as open files allow.
    Burst300 "burst-300"
        ("{}", beside_burst(&burst(300, BURST_SUBSCRIBERS, descriptors)))
        => burst(300, BURST_SUBSCRIBERS, descriptors).run(rig),
    Burst3000 "burst-3000"
        ("{}", beside_burst(&burst(3_000, BURST_SUBSCRIBERS, descriptors)))
        => burst(3_000, BURST_SUBSCRIBERS, descriptors).run(rig),
    Burst10000 "burst-10000"
        ("{}", beside_burst(&burst(10_000, BURST_SUBSCRIBERS, descriptors)))
        => burst(10_000, BURST_SUBSCRIBERS, descriptors).run(rig),
    BurstLarge "burst-large"
        ("{}", beside_burst(&burst(300, CROWD_MAX, descriptors)))
        => burst(300, CROWD_MAX, descriptors).run(rig),
    Hostile "hostile"
        ("one connection's pings while another floods, in six manners")
        => Hostile {}.run(rig),
    Listing "listing"
        ("one connection's pings while {LISTED} channels are listed, and searched in vain")
        => Listing { channels: LISTED, connections: LISTED_BY }.run(rig),
    Drop "drop"
        ("400 fresh connections/s while {} others drop at once", allowed(DROPPED, descriptors))
        => DropAll { connections: allowed(DROPPED, descriptors) }.run(rig),
    DropLarge "drop-large"
        ("400 fresh connections/s while {} others drop at once", allowed(CROWD_MAX, descriptors))
        => DropAll { connections: allowed(CROWD_MAX, descriptors) }.run(rig),
    /// Chatter on two shards at least, and what their messages to each other take.
    Hop "hop"
        ("{CLIENT_EVENTS_PER_S} client events/s on {HOP_SHARDS} shards that are not pinned")
        => PAIRS.run(rig),
    /// The same as some above with TLS on the port; handshakes in full, but for `TlsResumed`.
    TlsFanout "tls-fanout"
        ("as fanout, with TLS")
        => FANOUT.run(rig),
    TlsConnect "tls-connect"
        ("as connect, each with a TLS handshake in full")
        => CONNECT.run(rig),
    TlsResumed "tls-resumed"
        ("as connect, each resuming a TLS session")
        => CONNECT.run(&resuming(rig)),
    TlsIdle "tls-idle"
        ("as idle-shared, with TLS")
        => idle(descriptors, false).run(rig),
    /// Who comes back shakes hands in full, all at once.
    TlsStorm "tls-storm"
        ("one connection's pings while {STORM_CONNECTIONS} drop and come back at once, again and again, with TLS")
        => Reconnect { connections: STORM_CONNECTIONS }.run(rig),
    Upgrade "upgrade"
        ("{} connections in tens, {UPGRADE_PUBLISHES_PER_S} publishes/s, before and while one process after another takes over",
            allowed(IDLE_CONNECTIONS, descriptors))
        => Upgrade {
            admin_socket: rig.target.admin_socket.clone().unwrap_or_default(),
            connections: allowed(IDLE_CONNECTIONS, descriptors),
            message_bytes: PUBLISHED_BYTES,
            rate: UPGRADE_PUBLISHES_PER_S,
        }.run(rig),
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
const UPGRADE_PUBLISHES_PER_S: u64 = 500;
const LARGE_PER_S: u64 = 2;
const WEBHOOKS_PER_S: u64 = 1_000;
const MANY_WEBHOOKS_PER_S: u64 = 10_000;
const HOP_SHARDS: u16 = 2;
/// As many, if both processes may have so many files open.
const IDLE_CONNECTIONS: usize = 10_000;
/// The same, and not more than one address has ports for on loopback.
const LARGE_SUBSCRIBERS: usize = 25_000;
/// What a burst of events goes to, and what drops at once; the larger ones as above, with less.
const BURST_SUBSCRIBERS: usize = 4_000;
const DROPPED: usize = 5_000;
const BURST_BYTES: usize = 120;
const CROWD_MAX: usize = 19_000;
const LISTED: usize = 1_000_000;
const LISTED_BY: usize = 200;
/// Files that a server or this program has open beside connections.
const OTHER_FILES: u64 = 1_000;

const FANOUT: Fanout = Fanout {
    subscribers: SUBSCRIBERS,
    message_bytes: PUBLISHED_BYTES,
    rate: PUBLISHES_PER_S,
    batch: 1,
};
const PAIRS: Chatter = Chatter {
    channels: TALKERS / 2,
    members: 2,
    rate: CLIENT_EVENTS_PER_S,
    message_bytes: CLIENT_EVENT_BYTES,
};
const ALONE: Chatter = Chatter {
    channels: TALKERS,
    members: 1,
    ..PAIRS
};
const PUBLISH: Publish = Publish {
    connections: PUBLISHERS,
    rate: REQUESTS_PER_S,
    batch: 0,
    message_bytes: PUBLISHED_BYTES,
};
const CONNECT: Connect = Connect {
    rate: CONNECTIONS_PER_S,
};

impl Course {
    /// What of our server it needs beyond what all have.
    pub fn needs(self) -> Needs {
        Needs {
            metrics: matches!(self, Self::Neighbour | Self::Hop | Self::Listing),
            is_unlimited: self == Self::Listing,
            shards_min: (self == Self::Hop).then_some(HOP_SHARDS),
            seat: None,
            webhooks: match self {
                Self::Webhooks
                | Self::WebhooksMany
                | Self::WebhooksInRedis
                | Self::WebhooksManyInRedis => Some(Hooks::Single),
                Self::WebhookBatches => Some(Hooks::Batched),
                _ => None,
            },
            counts_in_redis: self == Self::PublishCounted,
            queues_in_redis: matches!(self, Self::WebhooksInRedis | Self::WebhooksManyInRedis),
            admin_socket: self == Self::Upgrade,
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
            Self::Webhooks | Self::WebhookBatches | Self::WebhooksInRedis => {
                WEBHOOKS_PER_S * seconds
            }
            Self::WebhooksMany | Self::WebhooksManyInRedis => MANY_WEBHOOKS_PER_S * seconds,
            _ => 0,
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
    let each = u128::from(per_s) * BURSTS_EVERY.as_millis() / 1_000;
    format!("in bursts of {each} every {} ms", BURSTS_EVERY.as_millis())
}

/// How many of so many connections this program and a server may hold.
fn allowed(connections: usize, descriptors: u64) -> usize {
    let most = descriptors.saturating_sub(OTHER_FILES).max(1);
    connections.min(usize::try_from(most).unwrap_or(usize::MAX))
}

fn idle(descriptors: u64, channel_each: bool) -> Idle {
    Idle {
        connections: allowed(IDLE_CONNECTIONS, descriptors),
        channel_each,
    }
}

fn burst(events: u64, subscribers: usize, descriptors: u64) -> Burst {
    Burst {
        subscribers: allowed(subscribers, descriptors),
        events,
        message_bytes: BURST_BYTES,
        publishers: PUBLISHERS,
    }
}

fn beside_burst(burst: &Burst) -> String {
    let (events, subscribers) = (burst.events, burst.subscribers);
    format!(
        "one connection's pings while {events} events of {BURST_BYTES} B come at once for {subscribers} subscribers"
    )
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
                .iter()
                .filter(|other| other.name() == course.name());
            assert_eq!(named.count(), 1, "{course:?}");
        }
    }
}
