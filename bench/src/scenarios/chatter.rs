//! Chatter: private channels whose members send client events to each other.
//!
//! Owns: the `chatter` scenario; whose turn it is to speak.
//! May depend on: what its siblings may.
//! Invariants: each receiver must see each other member's events in that member's order. Between members
//! there is no order: their connections may be on different threads of the server.

use std::time::Instant;

use clap::Args;

use super::{CLIENT_EVENT, Trouble, count, whole};
use crate::{
    casts::index,
    crowd::{Crowd, Heard, Subscription},
    ledger::{self, Ledger},
    outcome::{Outcome, Setting},
    pace::Pace,
    rig::{self, CpuKeys, Rig, RunError, cpu_figures, figure, setting},
    track::Track,
    wire,
};

#[derive(Clone, Debug, Args)]
pub struct Chatter {
    /// Private channels, 1..=100000
    #[arg(long, value_name = "COUNT", default_value_t = 100, value_parser = count(1..=100_000))]
    pub channels: usize,
    /// Members of each channel, 2..=50; each has a connection
    #[arg(long, value_name = "COUNT", default_value_t = 2, value_parser = count(2..=50))]
    pub members: usize,
    /// Client events per second, of all together, 1..=200000
    #[arg(long, value_name = "RATE", default_value_t = 1_000, value_parser = whole(1..=200_000))]
    pub rate: u64,
    /// Bytes of an event's data, 16..=10000
    #[arg(long, value_name = "BYTES", default_value_t = 100, value_parser = count(16..=10_000))]
    pub message_bytes: usize,
}

const CPU: CpuKeys = [
    ("cpu_per_client_event_us", "CPU per client event"),
    ("cpu_user_per_client_event_us", "… in user space"),
    ("cpu_system_per_client_event_us", "… in the kernel"),
];

/// Who says what: the channels take turns, and within a channel its members do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turns {
    pub(super) channels: u64,
    pub(super) members: u64,
}

impl Turns {
    pub(super) fn channel(self, number: u64) -> usize {
        index(number % self.channels)
    }

    /// The connection that sends an event.
    fn speaker(self, number: u64) -> usize {
        let channel = number % self.channels;
        let member = number / self.channels % self.members;
        index(channel * self.members + member)
    }

    /// Of a speaker's events, which one this is.
    fn rank(self, number: u64) -> u64 {
        number / (self.channels * self.members)
    }

    /// The account of what a connection hears from the speaker of an event.
    fn account(self, receiver: usize, number: u64) -> usize {
        let member = number / self.channels % self.members;
        receiver * index(self.members) + index(member)
    }

    fn accounts(self) -> usize {
        index(self.channels * self.members * self.members)
    }
}

impl Chatter {
    pub fn run(&self, rig: &Rig) -> Result<Outcome, RunError> {
        let turns = Turns {
            channels: self.channels as u64,
            members: self.members as u64,
        };
        let connections = self.channels * self.members;
        let channel_of = |client: usize| {
            let number = client / self.members;
            format!("private-{}", rig.channel(&format!("chatter-{number}")))
        };
        let mut crowd = rig.crowd(connections)?;
        let wish = |client| vec![Subscription::to(channel_of(client))];
        rig.join(&mut crowd, connections, wish)?;
        let channels: Vec<String> = (0..self.channels)
            .map(|channel| channel_of(channel * self.members))
            .collect();

        let meter = rig.start()?;
        let pace = Pace::new(rig::beginning(), self.rate, rig.seconds);
        let mut load = Load::new(pace, turns).shown();
        while !load.is_done() {
            let now = Instant::now();
            if load.pace.gives_up(now) {
                break;
            }
            load.begin_due(&mut crowd, now, |number| {
                event(&channels[turns.channel(number)], number, self.message_bytes)
            });
            let until = load.pace.next_at();
            crowd.turn(until, &mut |now, client, heard| {
                load.hear(now, client, &heard);
            })?;
            load.is_welcome()?;
        }
        let late_ms = load.pace.late_ms();
        let mut outcome = meter.finish(rig, "chatter", self.settings(rig), late_ms)?;
        outcome.figures = cpu_figures(&outcome, load.pace.total(), CPU);
        Ok(load.complete(outcome))
    }

    fn settings(&self, rig: &Rig) -> Vec<Setting> {
        vec![
            setting("seconds", rig.seconds),
            setting("channels", self.channels),
            setting("members", self.members),
            setting("rate", self.rate),
            setting("message-bytes", self.message_bytes),
        ]
    }
}

/// The event with a number.
pub(super) fn event(channel: &str, number: u64, bytes: usize) -> String {
    let data = wire::numbered(number, bytes);
    format!(r#"{{"event":"client-bench","channel":"{channel}","data":"{data}"}}"#)
}

/// Client events, while they run.
pub(super) struct Load {
    pub(super) pace: Pace,
    turns: Turns,
    expected: u64,
    ledger: Ledger,
    heard: Track,
    trouble: Trouble,
}

impl Load {
    /// The crowd's first connections are the members, channel by channel.
    pub(super) fn new(pace: Pace, turns: Turns) -> Self {
        Self {
            heard: Track::new(pace.time_of(0), CLIENT_EVENT),
            expected: pace.total() * (turns.members - 1),
            ledger: Ledger::new(turns.accounts()),
            trouble: Trouble::default(),
            turns,
            pace,
        }
    }

    /// Shows its progress.
    fn shown(mut self) -> Self {
        self.heard = self.heard.shown();
        self
    }

    pub(super) fn is_done(&self) -> bool {
        // With one member per channel nothing is expected, but all is to be sent.
        self.pace.is_over() && self.ledger.received() >= self.expected
    }

    /// Sends what is due. `event_of` makes the event of a number.
    pub(super) fn begin_due(
        &mut self,
        crowd: &mut Crowd,
        now: Instant,
        event_of: impl Fn(u64) -> String,
    ) {
        while let Some(number) = self.pace.take_due(now) {
            crowd.send_text(self.turns.speaker(number), &event_of(number));
        }
        self.heard.tick(now);
    }

    /// Servers that forbid client events, or so many of them, say so each time.
    pub(super) fn is_welcome(&self) -> Result<(), RunError> {
        match &self.trouble.first_refused {
            Some(first) if self.ledger.received() == 0 => {
                Err(RunError::Refused(format!("client events: {first}")))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn hear(&mut self, now: Instant, client: usize, heard: &Heard<'_>) {
        let Heard::Event { payload, .. } = heard else {
            return self.trouble.hear(heard);
        };
        if let Some(number) = wire::number_of(payload)
            && let Some(since) = self.pace.since(number, now)
        {
            let account = self.turns.account(client, number);
            if self.ledger.note(account, self.turns.rank(number)) {
                self.heard.record(now, since);
            }
        }
    }

    pub(super) fn complete(self, mut outcome: Outcome) -> Outcome {
        let account = self.ledger.deliveries(self.expected);
        let per_s = account.received as f64 / outcome.seconds;
        outcome.figures.push(figure(
            "client_events_per_s",
            "client events received per second",
            "1/s",
            per_s,
        ));
        outcome.deliveries = Some(account);
        outcome.faults.extend(ledger::faults(&account, true));
        outcome.faults.extend(self.trouble.faults());
        let (latency, series) = self.heard.finish();
        outcome.latencies.push(latency);
        outcome.series.extend(series);
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_hears_each_other_member_in_that_members_order() {
        let turns = Turns {
            channels: 3,
            members: 4,
        };
        let mut ledger = Ledger::new(turns.accounts());
        let numbers = 3 * 4 * 5;
        for number in 0..numbers {
            let speaker = turns.speaker(number);
            let channel = speaker / 4;
            for receiver in channel * 4..(channel + 1) * 4 {
                if receiver != speaker {
                    ledger.note(turns.account(receiver, number), turns.rank(number));
                }
            }
        }
        let account = ledger.deliveries(numbers * 3);
        assert_eq!(
            (account.lost, account.duplicates, account.out_of_order),
            (0, 0, 0)
        );
    }
}
