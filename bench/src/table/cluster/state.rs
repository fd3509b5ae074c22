//! What state costs: channels that are joined and left, and a node that comes to many of them.
//!
//! Owns: the loads `churn`, `members` and `join`.
//! May depend on: `pair`, and what scenarios may.
//! Invariants: what a node that only hears takes is its resident memory's growth, so it includes what the
//! allocator rounds up; a node that came has all state before its time is taken.

use std::{
    io, thread,
    time::{Duration, Instant},
};

use super::{
    Run,
    pair::{Counts, Pair, Setup},
};
use crate::{
    cpu::Usage,
    crowd::{Crowd, Heard, Subscription},
    rig::{Rig, RunError, figure},
    scenarios::listing::listed,
    table::subjects::{Needs, Running, Subject},
    target::Target,
};

/// Connections that join channels.
const JOINERS: usize = 10;
/// Channels that a connection joins or leaves before it waits for the last.
const CHUNK: usize = 100;
/// So long nothing may happen before a step counts as stuck.
const PATIENCE: Duration = Duration::from_secs(20);
const SETTLING: Duration = Duration::from_millis(1_500);

/// Channels of one load: each joiner has as many, or all have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Names {
    Split,
    /// Presence channels with each joiner as a member.
    Presence,
}

/// Joiners of channels on one node.
struct Joiners {
    rig: Rig,
    crowd: Crowd,
    /// Of each joiner.
    channels: usize,
    names: Names,
}

impl Joiners {
    fn enter(
        target: &Target,
        setup: &Setup,
        channels: usize,
        names: Names,
    ) -> Result<Self, RunError> {
        let rig = setup.rig(target);
        let mut crowd = rig.crowd(JOINERS)?;
        rig.join(&mut crowd, JOINERS, |joiner| vec![barrier(&rig, joiner)])?;
        Ok(Self {
            rig,
            crowd,
            channels,
            names,
        })
    }

    fn wish(&self, joiner: usize, number: usize) -> Subscription {
        match self.names {
            Names::Split => Subscription::to(self.rig.channel(&format!("{joiner}-{number:07}"))),
            Names::Presence => Subscription {
                channel: format!("presence-{}", self.rig.channel(&format!("{number:07}"))),
                user: Some(format!("user-{joiner}")),
            },
        }
    }

    /// Joins all of them.
    fn join_all(&mut self) -> Result<(), RunError> {
        for first in (0..self.channels).step_by(CHUNK) {
            for joiner in 0..JOINERS {
                for number in first..(first + CHUNK).min(self.channels) {
                    let wish = self.wish(joiner, number);
                    self.crowd.subscribe(joiner, &wish);
                }
            }
            self.meet()?;
        }
        Ok(())
    }

    fn leave_all(&mut self) -> Result<(), RunError> {
        for first in (0..self.channels).step_by(CHUNK) {
            for joiner in 0..JOINERS {
                for number in first..(first + CHUNK).min(self.channels) {
                    let wish = self.wish(joiner, number);
                    self.crowd.unsubscribe(joiner, &wish.channel);
                }
                // Leaving is not answered; joining again is.
                let barrier = barrier(&self.rig, joiner);
                self.crowd.unsubscribe(joiner, &barrier.channel);
                self.crowd.subscribe(joiner, &barrier);
            }
            self.meet()?;
        }
        Ok(())
    }

    /// Waits until each has all that it asked for.
    fn meet(&mut self) -> Result<(), RunError> {
        let mut waits = [true; JOINERS];
        let mut trouble = None;
        let deadline = Instant::now() + PATIENCE;
        while waits.contains(&true) {
            self.crowd
                .turn(deadline, &mut |_, joiner, heard| match heard {
                    Heard::Subscribed => waits[joiner] = false,
                    Heard::Refused(said) => {
                        let said = String::from_utf8_lossy(said).into_owned();
                        trouble.get_or_insert(RunError::Refused(said));
                    }
                    Heard::Ended(why) => {
                        trouble.get_or_insert_with(|| RunError::Closed(why.to_owned()));
                    }
                    _ => {}
                })?;
            if let Some(trouble) = trouble {
                return Err(trouble);
            }
            if Instant::now() > deadline {
                let left = waits.iter().filter(|waits| **waits).count();
                let count = JOINERS;
                return Err(RunError::Stuck { left, count });
            }
        }
        Ok(())
    }

    /// Reads what comes, for a while.
    fn rest(&mut self) -> Result<(), RunError> {
        let ends = Instant::now() + SETTLING;
        while Instant::now() < ends {
            self.crowd.turn(ends, &mut |_, _, _| {})?;
        }
        Ok(())
    }
}

fn barrier(rig: &Rig, joiner: usize) -> Subscription {
    Subscription::to(rig.channel(&format!("barrier-{joiner}")))
}

/// Channels are joined and left on the second node; the first hears of it.
pub(super) fn churn(subject: &Subject, setup: &Setup, channels: usize) -> Result<Run, String> {
    churn_pair(subject, setup, channels).map_err(|error| error.to_string())
}

fn churn_pair(subject: &Subject, setup: &Setup, channels: usize) -> Result<Run, RunError> {
    let each = channels.div_ceil(JOINERS);
    let channels = (each * JOINERS) as f64;
    let us = |used: &Usage| used.cpu.as_secs_f64() * 1e6 / channels;
    let mut figures = Vec::new();

    let alone = alone(subject)?;
    let before = usage(&alone.target)?;
    let mut joiners = Joiners::enter(&alone.target, setup, each, Names::Split)?;
    joiners.join_all()?;
    joiners.leave_all()?;
    joiners.rest()?;
    let alone_us = us(&usage(&alone.target)?.since(&before));
    drop((joiners, alone));

    let pair = Pair::start(subject, setup, 2).map_err(RunError::Setting)?;
    await_each_other(&pair)?;
    let mut joiners = Joiners::enter(pair.target(1), setup, each, Names::Split)?;
    joiners.rest()?;
    let before = pair.reading()?;
    joiners.join_all()?;
    joiners.rest()?;
    let joined = pair.reading()?;
    joiners.leave_all()?;
    joiners.rest()?;
    let used = pair.reading()?.since(&before);
    let doer_us = us(&used.nodes[1]);
    figures.extend([
        figure(
            "churn_doer_us",
            "a channel joined and left: CPU of that node",
            "us",
            doer_us,
        ),
        figure(
            "churn_alone_us",
            "… of a node without others",
            "us",
            alone_us,
        ),
        figure(
            "churn_hearer_us",
            "… of the node that hears of it",
            "us",
            us(&used.nodes[0]),
        ),
        figure("churn_bus_us", "… of the bus' server", "us", us(&used.bus)),
    ]);
    let name_bytes = joiners.wish(0, 0).channel.len();
    let grown = grown(&before.nodes[0], &joined.nodes[0]) / channels;
    let label = "memory of the hearer, a channel beyond its name";
    figures.push(figure(
        "channel_bytes",
        label,
        "B",
        grown - name_bytes as f64,
    ));
    Ok(Run {
        figures,
        ..Run::default()
    })
}

/// Members join presence channels on the second node; the first hears of it.
pub(super) fn members(subject: &Subject, setup: &Setup, members: usize) -> Result<Run, String> {
    members_pair(subject, setup, members).map_err(|error| error.to_string())
}

fn members_pair(subject: &Subject, setup: &Setup, members: usize) -> Result<Run, RunError> {
    let channels = members.div_ceil(JOINERS);
    let members = (channels * JOINERS) as f64;
    let pair = Pair::start(subject, setup, 2).map_err(RunError::Setting)?;
    await_each_other(&pair)?;
    let mut joiners = Joiners::enter(pair.target(1), setup, channels, Names::Presence)?;
    joiners.rest()?;
    let before = pair.reading()?;
    joiners.join_all()?;
    joiners.rest()?;
    let joined = pair.reading()?;
    let used = joined.since(&before);
    let us = |used: &Usage| used.cpu.as_secs_f64() * 1e6 / members;
    // An id of six bytes, no info, a tenth of the channel's name.
    let own_bytes = 6.0 + joiners.wish(0, 0).channel.len() as f64 / JOINERS as f64;
    let grown = grown(&before.nodes[0], &joined.nodes[0]) / members;
    let label = "memory of the hearer, a member with a tenth of a channel, beyond their names";
    Ok(Run {
        figures: vec![
            figure(
                "member_hearer_us",
                "a member joined: CPU of the node that hears of it",
                "us",
                us(&used.nodes[0]),
            ),
            figure("member_bytes", label, "B", grown - own_bytes),
        ],
        ..Run::default()
    })
}

/// Two nodes come, one after the other, to one with many channels.
pub(super) fn join(subject: &Subject, setup: &Setup, channels: usize) -> Result<Run, String> {
    join_nodes(subject, setup, channels).map_err(|error| error.to_string())
}

fn join_nodes(subject: &Subject, setup: &Setup, channels: usize) -> Result<Run, RunError> {
    let each = channels.div_ceil(JOINERS);
    let mut pair = Pair::start(subject, setup, 1).map_err(RunError::Setting)?;
    let mut joiners = Joiners::enter(pair.target(0), setup, each, Names::Split)?;
    joiners.join_all()?;
    joiners.rest()?;
    let mut run = Run::default();
    // A node that is alone says nothing, so the first that comes is told of every channel as it comes to be
    // known; the next one asks for how partitions stand.
    for node in [1, 2] {
        let coming = Coming {
            subject,
            setup,
            node,
            channels: each * JOINERS,
        };
        let Arrival { values, listed } = coming.measure(&mut pair, &mut joiners)?;
        let keys = if node == 1 { FIRST } else { NEXT };
        let figures = keys.into_iter().zip(values);
        run.figures
            .extend(figures.map(|((key, label, unit), value)| figure(key, label, unit, value)));
        // The barriers too.
        let expected = coming.channels + JOINERS;
        if listed != expected {
            let fault = format!("node {} lists {listed} of {expected} channels", node + 1);
            run.faults.push(fault);
        }
    }
    Ok(run)
}

type Keys = [(&'static str, &'static str, &'static str); 6];

const FIRST: Keys = [
    (
        "first_whole_s",
        "the first node to come to one: its state is whole after",
        "s",
    ),
    ("first_teller_s", "… CPU of the node that tells it", "s"),
    ("first_comer_s", "… its own CPU", "s"),
    ("first_told_bytes", "… told for a channel", "B"),
    ("first_heard_bytes", "… heard for a channel", "B"),
    ("first_memory_bytes", "… its memory for a channel", "B"),
];
const NEXT: Keys = [
    (
        "next_whole_s",
        "the next node to come: its state is whole after",
        "s",
    ),
    ("next_teller_s", "… CPU of the node that tells it", "s"),
    ("next_comer_s", "… its own CPU", "s"),
    ("next_told_bytes", "… told for a channel", "B"),
    ("next_heard_bytes", "… heard for a channel", "B"),
    ("next_memory_bytes", "… its memory for a channel", "B"),
];

/// A node that comes.
struct Coming<'a> {
    subject: &'a Subject,
    setup: &'a Setup,
    /// Its place among all.
    node: usize,
    channels: usize,
}

struct Arrival {
    values: [f64; 6],
    /// Channels, by its own account.
    listed: usize,
}

impl Coming<'_> {
    fn measure(&self, pair: &mut Pair, joiners: &mut Joiners) -> Result<Arrival, RunError> {
        let told = counts(pair, 0)?.bytes_out;
        let teller = pair.usage_of(0)?;
        let began = Instant::now();
        pair.add_node(self.subject, self.setup)
            .map_err(RunError::Setting)?;
        let deadline = began + PATIENCE * 6;
        while !self.is_whole(pair)? {
            if Instant::now() > deadline {
                let counts = counts(pair, self.node)?;
                return Err(RunError::Setting(format!(
                    "its state is not whole: {counts:?}"
                )));
            }
            joiners
                .crowd
                .turn(Instant::now() + LOOK, &mut |_, _, _| {})?;
            thread::sleep(LOOK);
        }
        let whole_s = began.elapsed().as_secs_f64();
        let comer = pair.usage_of(self.node)?;
        let teller = pair.usage_of(0)?.since(&teller);
        let per_channel = |bytes: f64| bytes / self.channels as f64;
        let values = [
            whole_s,
            teller.cpu.as_secs_f64(),
            comer.cpu.as_secs_f64(),
            per_channel(counts(pair, 0)?.bytes_out - told),
            per_channel(counts(pair, self.node)?.bytes_in),
            per_channel(comer.rss_bytes as f64),
        ];
        Ok(Arrival {
            values,
            listed: listed(&self.setup.rig(pair.target(self.node)))?,
        })
    }

    /// It knows the others, and has heard of every channel and missed none.
    fn is_whole(&self, pair: &Pair) -> Result<bool, RunError> {
        let counts = counts(pair, self.node)?;
        let is_calm = counts.live == self.node as f64 + 1.0 && counts.behind == 0.0;
        if !is_calm {
            return Ok(false);
        }
        if self.channels < FEW {
            return Ok(listed(&self.setup.rig(pair.target(self.node)))? >= self.channels + JOINERS);
        }
        Ok(counts.deltas_in >= self.channels as f64 || counts.snapshots_in >= PARTITIONS)
    }
}

/// With fewer channels some partitions may have none, and listing them all is nothing.
const FEW: usize = 20_000;
const PARTITIONS: f64 = 1_024.0;
const LOOK: Duration = Duration::from_millis(10);

/// A node without a bus.
fn alone(subject: &Subject) -> Result<Running, RunError> {
    let needs = Needs {
        is_unlimited: true,
        ..Needs::default()
    };
    let running = subject.start(needs);
    running.map_err(|error| RunError::Setting(error.to_string()))
}

fn usage(target: &Target) -> io::Result<Usage> {
    Usage::of(target.pid.unwrap_or_default())
}

fn grown(before: &Usage, after: &Usage) -> f64 {
    after.rss_bytes as f64 - before.rss_bytes as f64
}

fn counts(pair: &Pair, node: usize) -> Result<Counts, RunError> {
    let unknown = || RunError::Setting("only builds of this server count what is asked".to_owned());
    pair.counts(node)?.ok_or_else(unknown)
}

/// Each of the two has heard the other.
fn await_each_other(pair: &Pair) -> Result<(), RunError> {
    let deadline = Instant::now() + PATIENCE;
    while counts(pair, 0)?.live < 2.0 || counts(pair, 1)?.live < 2.0 {
        if Instant::now() > deadline {
            return Err(RunError::Setting(
                "the nodes do not hear each other".to_owned(),
            ));
        }
        thread::sleep(LOOK);
    }
    Ok(())
}
