//! Presence: users who join and leave channels, before the eyes of members who stay.
//!
//! Owns: the `presence` scenario; who joins and leaves where, and when.
//! May depend on: what its siblings may.
//! Invariants: a visit is one join and one leave of a user of its own; each member who stays must hear both
//! once. Visits are on different connections, so that nothing is said about their order.

use std::time::Instant;

use clap::Args;

use super::{Trouble, count, whole};
use crate::{
    casts::index,
    crowd::{Crowd, Heard, Subscription},
    ledger::{self, Ledger},
    outcome::{Outcome, Setting},
    pace::Pace,
    rig::{self, CpuKeys, Rig, RunError, cpu_figures, figure, setting},
    track::{Names, Track},
    wire,
};

#[derive(Clone, Debug, Args)]
pub struct Presence {
    /// Presence channels, 1..=10000
    #[arg(long, value_name = "COUNT", default_value_t = 20, value_parser = count(1..=10_000))]
    pub channels: usize,
    /// Members who stay in each channel, 1..=95; each has a connection
    #[arg(long, value_name = "COUNT", default_value_t = 10, value_parser = count(1..=95))]
    pub members: usize,
    /// Joins and leaves per second, of all channels together, 2..=20000
    #[arg(long, value_name = "RATE", default_value_t = 100, value_parser = whole(2..=20_000))]
    pub rate: u64,
}

const CPU: CpuKeys = [
    ("cpu_per_roster_change_us", "CPU per join or leave"),
    ("cpu_user_per_roster_change_us", "… in user space"),
    ("cpu_system_per_roster_change_us", "… in the kernel"),
];

const ADDED: Names = Names {
    latency: ("member_added", "join scheduled to member_added received"),
    rate: ("member_added_per_s", "member_added received", "events/s"),
    p99: ("member_added_p99_ms", "p99 of member_added"),
};

const REMOVED: Names = Names {
    latency: (
        "member_removed",
        "leave scheduled to member_removed received",
    ),
    rate: (
        "member_removed_per_s",
        "member_removed received",
        "events/s",
    ),
    p99: ("member_removed_p99_ms", "p99 of member_removed"),
};

/// What an operation of the pace is: even ones are joins, odd ones are leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Join(u64),
    Leave(u64),
    /// Nobody is there yet who could leave.
    Nothing,
}

/// How long visits last.
#[derive(Clone, Copy, Debug)]
struct Visits {
    /// Later visits that begin before one ends.
    overlap: u64,
}

impl Visits {
    fn operation(self, number: u64) -> Operation {
        let visit = number / 2;
        match number % 2 {
            0 => Operation::Join(visit),
            _ if visit >= self.overlap => Operation::Leave(visit - self.overlap),
            _ => Operation::Nothing,
        }
    }

    fn join_of(self, visit: u64) -> u64 {
        visit * 2
    }

    fn leave_of(self, visit: u64) -> u64 {
        (visit + self.overlap) * 2 + 1
    }

    /// Connections that visits need: one leaves before its next visit begins.
    fn connections(self) -> u64 {
        self.overlap + 1
    }

    /// Joins and leaves among the first operations.
    fn changes(self, operations: u64) -> u64 {
        operations.div_ceil(2) + (operations / 2).saturating_sub(self.overlap)
    }
}

impl Presence {
    pub fn run(&self, rig: &Rig) -> Result<Outcome, RunError> {
        // A quarter of a second, and no more than one or two visitors in a channel.
        let overlap = (self.rate / 8).clamp(1, self.channels as u64);
        let visits = Visits { overlap };
        let staying = self.channels * self.members;
        let channels: Vec<String> = (0..self.channels)
            .map(|channel| format!("presence-{}", rig.channel(&channel.to_string())))
            .collect();
        let mut crowd = rig.crowd(staying + index(visits.connections()))?;
        rig.join(&mut crowd, staying, |client| {
            vec![Subscription {
                channel: channels[client % self.channels].clone(),
                user: Some(format!("member-{client}")),
            }]
        })?;
        rig.join(&mut crowd, index(visits.connections()), |_| Vec::new())?;
        // The last joiners' arrivals are still being told to those before.
        crowd.turn(Instant::now() + rig.step, &mut |_, _, _| {})?;

        let meter = rig.start()?;
        let pace = Pace::new(rig::beginning(), self.rate, rig.seconds);
        let changes = visits.changes(pace.total());
        let mut load = Load {
            added: Track::new(meter.began, ADDED).shown(),
            removed: Track::new(meter.began, REMOVED),
            ledger: Ledger::new(staying * 2),
            trouble: Trouble::default(),
            expected: changes * self.members as u64,
            channels,
            staying,
            visits,
            pace,
        };
        while load.ledger.received() < load.expected {
            let now = Instant::now();
            if load.pace.gives_up(now) {
                break;
            }
            load.begin_due(&mut crowd, now);
            let until = load.pace.next_at();
            crowd.turn(until, &mut |now, client, heard| {
                load.hear(now, client, &heard);
            })?;
        }
        let late_ms = load.pace.late_ms();
        let mut outcome = meter.finish(rig, "presence", self.settings(rig), late_ms)?;
        outcome.figures = cpu_figures(&outcome, changes, CPU);
        let per_s = changes as f64 / outcome.seconds;
        outcome.figures.push(figure(
            "roster_changes_per_s",
            "joins and leaves per second",
            "1/s",
            per_s,
        ));
        load.complete(&mut outcome);
        Ok(outcome)
    }

    fn settings(&self, rig: &Rig) -> Vec<Setting> {
        vec![
            setting("seconds", rig.seconds),
            setting("channels", self.channels),
            setting("members", self.members),
            setting("rate", self.rate),
        ]
    }
}

/// The load while it runs.
struct Load {
    pace: Pace,
    visits: Visits,
    channels: Vec<String>,
    /// Connections that stay come first, then those that visit.
    staying: usize,
    expected: u64,
    /// Two accounts per connection: added, removed.
    ledger: Ledger,
    added: Track,
    removed: Track,
    trouble: Trouble,
}

impl Load {
    fn begin_due(&mut self, crowd: &mut Crowd, now: Instant) {
        while let Some(number) = self.pace.take_due(now) {
            match self.visits.operation(number) {
                Operation::Join(visit) => {
                    let wish = Subscription {
                        channel: self.channel(visit).to_owned(),
                        user: Some(wire::numbered(visit, 0)),
                    };
                    crowd.subscribe(self.visitor(visit), &wish);
                }
                Operation::Leave(visit) => {
                    crowd.unsubscribe(self.visitor(visit), self.channel(visit));
                }
                Operation::Nothing => {}
            }
        }
        self.added.tick(now);
    }

    fn visitor(&self, visit: u64) -> usize {
        self.staying + index(visit % self.visits.connections())
    }

    fn channel(&self, visit: u64) -> &str {
        &self.channels[index(visit % self.channels.len() as u64)]
    }

    fn hear(&mut self, now: Instant, client: usize, heard: &Heard<'_>) {
        let Heard::Event { name, payload } = heard else {
            return self.trouble.hear(heard);
        };
        let Some(visit) = wire::number_of(payload).filter(|_| client < self.staying) else {
            return;
        };
        let (account, operation, track) = match *name {
            b"pusher_internal:member_added" => {
                (client * 2, self.visits.join_of(visit), &mut self.added)
            }
            b"pusher_internal:member_removed" => (
                client * 2 + 1,
                self.visits.leave_of(visit),
                &mut self.removed,
            ),
            _ => return,
        };
        if let Some(since) = self.pace.since(operation, now)
            && self
                .ledger
                .note(account, visit / self.channels.len() as u64)
        {
            track.record(now, since);
        }
    }

    fn complete(self, outcome: &mut Outcome) {
        let account = self.ledger.deliveries(self.expected);
        outcome.deliveries = Some(account);
        outcome.faults = ledger::faults(&account, false);
        outcome.faults.extend(self.trouble.faults());
        for track in [self.added, self.removed] {
            let (latency, series) = track.finish();
            outcome.latencies.push(latency);
            outcome.series.extend(series);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_visit_ends_before_its_connection_begins_another() {
        for overlap in [1, 2, 7] {
            let visits = Visits { overlap };
            let mut present = BTreeMap::new();
            let mut changes = 0;
            for number in 0..100 {
                match visits.operation(number) {
                    Operation::Join(visit) => {
                        assert_eq!(visits.join_of(visit), number);
                        let before = present.insert(visit % visits.connections(), visit);
                        assert_eq!(before, None);
                        changes += 1;
                    }
                    Operation::Leave(visit) => {
                        assert_eq!(visits.leave_of(visit), number);
                        let was = present.remove(&(visit % visits.connections()));
                        assert_eq!(was, Some(visit));
                        changes += 1;
                    }
                    Operation::Nothing => {}
                }
                assert_eq!(visits.changes(number + 1), changes);
            }
        }
    }
}
