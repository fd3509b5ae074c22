//! Mixed: a day in small. Rooms that are published to, pairs that talk, newcomers, all at once.
//!
//! Owns: the `mixed` scenario.
//! May depend on: what its siblings may, and `fanout`, `chatter`, `churn`.
//! Invariants: each part has a pace and an account of its own; the outcome's deliveries are their sum.

use std::time::Instant;

use clap::Args;

use super::{
    chatter::{self, Turns, event},
    churn::{Churn, SUBSCRIBED},
    count,
    fanout::{self, Rooms},
    publication, whole,
};
use crate::{
    casts::index,
    crowd::{Crowd, Heard, Subscription},
    outcome::{Deliveries, Outcome, Setting},
    pace::Pace,
    requests::Requests,
    rig::{self, CpuKeys, Rig, RunError, cpu_figures, setting},
};

#[derive(Clone, Debug, Args)]
pub struct Mixed {
    /// Connections that stay, 2..=1000000; rounded up to a multiple of twice the rooms
    #[arg(long, value_name = "COUNT", default_value_t = 1_000, value_parser = count(2..=1_000_000))]
    pub connections: usize,
    /// Rooms, 1..=10000: public channels among which the connections are divided
    #[arg(long, value_name = "COUNT", default_value_t = 20, value_parser = count(1..=10_000))]
    pub rooms: usize,
    /// Publishes per second, 1..=100000, to the rooms in turn
    #[arg(long, value_name = "RATE", default_value_t = 50, value_parser = whole(1..=100_000))]
    pub publish_rate: u64,
    /// Client events per second, 1..=100000, between pairs of connections
    #[arg(long, value_name = "RATE", default_value_t = 500, value_parser = whole(1..=100_000))]
    pub client_event_rate: u64,
    /// Newcomers per second, 1..=10000, who subscribe and leave again
    #[arg(long, value_name = "RATE", default_value_t = 20, value_parser = whole(1..=10_000))]
    pub connect_rate: u64,
    /// Bytes of an event's data, 16..=10000
    #[arg(long, value_name = "BYTES", default_value_t = 200, value_parser = count(16..=10_000))]
    pub message_bytes: usize,
}

const CPU: CpuKeys = [
    ("cpu_per_delivered_us", "CPU of all, per delivered message"),
    ("cpu_user_per_delivered_us", "… in user space"),
    ("cpu_system_per_delivered_us", "… in the kernel"),
];

impl Mixed {
    pub fn run(&self, rig: &Rig) -> Result<Outcome, RunError> {
        let connections = self.connections.next_multiple_of(self.rooms * 2);
        let spare = 1 + index(self.connect_rate);
        let room_of = |number: u64| rig.channel(&format!("room-{}", number % self.rooms as u64));
        let pair_of = |pair: usize| format!("private-{}", rig.channel(&format!("pair-{pair}")));
        let mut crowd = rig.crowd(connections + spare)?;
        rig.join(&mut crowd, connections, |client| {
            let room = Subscription::to(room_of(client as u64));
            vec![room, Subscription::to(pair_of(client / 2))]
        })?;
        let requests = Requests::open(&mut crowd, 1)?;

        let meter = rig.start()?;
        let mut load = self.load(rig, connections, requests);
        while !load.is_done() {
            let now = Instant::now();
            if load.gives_up(now) {
                break;
            }
            load.churn.begin_due(&mut crowd, now);
            load.pairs.begin_due(&mut crowd, now, |number| {
                let pair = index(number) % (connections / 2);
                event(&pair_of(pair), number, self.message_bytes)
            });
            load.rooms.begin_due(&mut crowd, now, |number| {
                let numbers = number..number + 1;
                publication(&rig.target, &room_of(number), numbers, self.message_bytes)
            })?;
            load.turn(&mut crowd)?;
            load.pairs.is_welcome()?;
        }
        let mut outcome = meter.finish(rig, "mixed", self.settings(rig), load.late_ms())?;
        load.complete(&mut outcome);
        let received = outcome.deliveries.map_or(0, |account| account.received);
        outcome.figures.extend(cpu_figures(&outcome, received, CPU));
        Ok(outcome)
    }

    fn load(&self, rig: &Rig, connections: usize, requests: Requests) -> Load {
        let begins = rig::beginning();
        let pace = |per_s| Pace::new(begins, per_s, rig.seconds);
        let rooms = Rooms {
            count: self.rooms as u64,
            members: (connections / self.rooms) as u64,
        };
        let turns = Turns {
            channels: connections as u64 / 2,
            members: 2,
        };
        let wish = Subscription::to(rig.channel("newcomers"));
        Load {
            rooms: fanout::Load::new(pace(self.publish_rate), requests, rooms, 1),
            pairs: chatter::Load::new(pace(self.client_event_rate), turns),
            churn: Churn::new(pace(self.connect_rate), wish, SUBSCRIBED),
            members: connections,
        }
    }

    fn settings(&self, rig: &Rig) -> Vec<Setting> {
        vec![
            setting("seconds", rig.seconds),
            setting("connections", self.connections),
            setting("rooms", self.rooms),
            setting("publish-rate", self.publish_rate),
            setting("client-event-rate", self.client_event_rate),
            setting("connect-rate", self.connect_rate),
            setting("message-bytes", self.message_bytes),
        ]
    }
}

/// The parts while they run.
struct Load {
    rooms: fanout::Load,
    pairs: chatter::Load,
    churn: Churn,
    /// Connections that stay; they come first.
    members: usize,
}

impl Load {
    fn is_done(&self) -> bool {
        self.rooms.is_done() && self.pairs.is_done() && self.churn.is_done()
    }

    fn gives_up(&self, now: Instant) -> bool {
        self.paces().iter().all(|pace| pace.gives_up(now))
    }

    fn paces(&self) -> [&Pace; 3] {
        [&self.rooms.pace, &self.pairs.pace, &self.churn.pace]
    }

    /// The worst of the parts.
    fn late_ms(&self) -> (f64, f64) {
        let worst = |(p99, most): (f64, f64), pace: &Pace| {
            let late_ms = pace.late_ms();
            (p99.max(late_ms.0), most.max(late_ms.1))
        };
        self.paces().into_iter().fold((0.0, 0.0), worst)
    }

    fn turn(&mut self, crowd: &mut Crowd) -> Result<(), RunError> {
        let [rooms, pairs, churn] = self.paces().map(Pace::next_at);
        let until = rooms.min(pairs).min(churn);
        crowd.turn(until, &mut |now, client, heard| {
            let is_talk =
                matches!(&heard, Heard::Event { name, .. } if name.starts_with(b"client-"));
            if self.churn.owns(client) {
                self.churn.hear(now, client, &heard);
            } else if client < self.members && (is_talk || matches!(heard, Heard::Refused(_))) {
                self.pairs.hear(now, client, &heard);
            } else {
                self.rooms.hear(now, client, &heard);
            }
        })?;
        Ok(())
    }

    fn complete(self, outcome: &mut Outcome) {
        let mut sum = Deliveries::default();
        *outcome = self.rooms.complete(outcome.clone());
        add(&mut sum, outcome.deliveries.take());
        *outcome = self.pairs.complete(outcome.clone());
        add(&mut sum, outcome.deliveries.take());
        outcome.deliveries = Some(sum);
        self.churn.complete(outcome);
    }
}

fn add(sum: &mut Deliveries, part: Option<Deliveries>) {
    let part = part.unwrap_or_default();
    sum.expected += part.expected;
    sum.received += part.received;
    sum.lost += part.lost;
    sum.duplicates += part.duplicates;
    sum.out_of_order += part.out_of_order;
}
