//! A node whose process is replaced: every shard freezes, tells what it holds, and another set of shards takes
//! it over, in another number, with other keys.
//!
//! The runtime's part is simulated as `shards` promises it: nothing is read and no timer falls due while the
//! node is frozen, and nothing is sent once it is still.

use std::{collections::VecDeque, fs::File, os::fd::AsRawFd};

use shards::{FramesAs, application::Application};
use sockudo::{
    bridge::message::{FromBridge, ToBridge},
    handover::record::{Exported, Import},
    server::NodeSeed,
};

use crate::{
    dice::Dice,
    node::{Node, Trace},
    turn::Limits,
};

/// Rounds in which everything has settled.
const ROUNDS_MAX: usize = 100_000;
/// What a shard may tell before it must wait: less than most have to tell.
const TOLD_BYTES: usize = 3_000;
/// Who cannot go on in the next process is closed in half of that.
const CLOSED_WITHIN_MS: u64 = 10_000;

impl Node {
    /// Goes on as another process of so many shards.
    pub(crate) fn is_replaced(&mut self, seed: &NodeSeed, limits: Limits, shards: u16) {
        self.freezes();
        let exported = self.exports();
        self.is_replaced_by(seed, limits, shards, exported);
    }

    /// The same with what it told, since when nothing has happened in it.
    pub(crate) fn is_replaced_by(
        &mut self,
        seed: &NodeSeed,
        limits: Limits,
        shards: u16,
        exported: Vec<Exported>,
    ) {
        for shard in 0..self.shards() {
            self.flush_closing(shard);
        }
        let mut next = Self::start(seed, shards, limits);
        next.now = self.now;
        (next.frames, next.posted) = (self.frames, self.posted);
        next.links = std::mem::take(&mut self.links);
        next.told = std::mem::take(&mut self.told);
        next.trace = Trace(self.trace.hash());
        for link in &mut next.links {
            link.shard %= usize::from(shards);
            link.slot = None;
        }
        next.imports(exported);
        *self = next;
    }

    /// Goes on with what has arrived, until nothing moves.
    fn freezes(&mut self) {
        assert!(self.may_freeze(ROUNDS_MAX), "a frozen node does not settle");
    }

    /// The same, unless a shard waits for longer than so many rounds, as for an answer of other nodes.
    pub(crate) fn may_freeze(&mut self, rounds_max: usize) -> bool {
        for it in &mut self.shards {
            it.turn.is_frozen = true;
        }
        self.may_settle(rounds_max)
    }

    /// Goes on itself, also behind `exports`.
    pub(crate) fn thaws(&mut self) {
        for it in &mut self.shards {
            (it.turn.is_frozen, it.turn.is_still) = (false, false);
        }
    }

    /// Nothing is left to be done on any shard.
    pub(crate) fn is_settled(&self) -> bool {
        self.shards.iter().all(|it| it.server.is_settled())
    }

    fn settles(&mut self) {
        assert!(self.may_settle(ROUNDS_MAX), "a frozen node does not settle");
    }

    /// Turns of frozen shards, until nothing moves.
    fn may_settle(&mut self, rounds_max: usize) -> bool {
        for _ in 0..rounds_max {
            let mut moved = false;
            for shard in 0..self.shards() {
                let it = &mut self.shards[shard];
                it.turn.now = self.now;
                it.turn.budget.refill();
                it.turn.budget.begin_stage(0);
                moved |= self.tell_ended(shard);
                moved |= self.tell_drained(shard);
                moved |= self.take_messages(shard, &mut Dice::new(0), true);
                let it = &mut self.shards[shard];
                moved |= it.server.on_turn_end(&mut it.turn);
                moved |= self.tell_ended(shard);
                moved |= self.end_turn(shard);
            }
            if !moved {
                assert!(self.is_settled(), "a shard at rest is settled");
                return true;
            }
        }
        false
    }

    /// Sends nothing any more, and tells what it holds.
    pub(crate) fn exports(&mut self) -> Vec<Exported> {
        self.exports_as(FramesAs::Numbers)
    }

    /// The same for a process that knows frames as numbers, or does not. What shards have told they may tell on for.
    pub(crate) fn exports_as(&mut self, frames: FramesAs) -> Vec<Exported> {
        for it in &mut self.shards {
            it.turn.is_still = true;
        }
        let told_before = std::mem::take(&mut self.told);
        let bytes = TOLD_BYTES;
        self.tell_all(|| FromBridge::Export { bytes, frames });
        let (mut exported, mut states, mut lasts) = (Vec::new(), 0, 0);
        while lasts < self.shards() {
            self.settles();
            let told = std::mem::take(&mut self.told);
            assert!(!told.is_empty(), "a shard stops midway");
            let mut gone = vec![0; self.shards()];
            for (shard, _, message) in told {
                let ToBridge::Exported(part) = message else {
                    panic!("a still shard says {message:?}");
                };
                assert_eq!(part.stuck, 0, "every answer has come");
                let before = &mut gone[usize::from(shard.0)];
                assert!(*before < TOLD_BYTES, "it tells more than it may");
                *before += part.bytes();
                let is_state = part.connections.is_empty();
                assert!(is_state || states == self.shards(), "states come first");
                states += usize::from(part.is_state_told);
                if part.is_state_told && states == self.shards() {
                    self.tell_all(|| FromBridge::ExportConnections);
                }
                lasts += usize::from(part.is_last);
                exported.push(*part);
            }
            for (shard, bytes) in gone.into_iter().enumerate() {
                self.tell(shard, FromBridge::ExportMore { bytes });
            }
        }
        self.told = told_before;
        exported
    }

    fn imports(&mut self, exported: Vec<Exported>) {
        let count = self.shards();
        for it in &mut self.shards {
            (it.turn.is_frozen, it.turn.is_still) = (true, true);
        }
        let told_before = std::mem::take(&mut self.told);
        let mut parts: Vec<VecDeque<Import>> = (0..count).map(|_| VecDeque::new()).collect();
        for (number, part) in exported.into_iter().enumerate() {
            for queue in &mut parts {
                queue.push_back(Import {
                    state: part.state.clone().into(),
                    frames: part.frames.clone().into(),
                    ..Import::default()
                });
            }
            let shard = number % count;
            let mut connections = Vec::new();
            for (link, record) in part.connections {
                let stand_in = File::open("/dev/null").expect("a descriptor");
                let link = usize::try_from(link).expect("a link's number");
                self.shards[shard]
                    .turn
                    .arriving
                    .insert(stand_in.as_raw_fd(), link);
                connections.push((stand_in.into(), record));
            }
            parts[shard].push_back(Import {
                connections,
                ..Import::default()
            });
        }
        for (shard, queue) in parts.into_iter().enumerate() {
            let last = Import {
                is_last: true,
                ..Import::default()
            };
            for import in queue.into_iter().chain([last]) {
                self.tell(shard, FromBridge::Import(Box::new(import)));
            }
        }
        self.settles();
        for (_, _, message) in std::mem::replace(&mut self.told, told_before) {
            let ToBridge::Imported(part) = message else {
                panic!("a frozen shard says {message:?}");
            };
            assert_eq!(part.refused, 0, "every connection is taken over");
            self.closing += part.closing;
        }
        for shard in 0..count {
            let it = &mut self.shards[shard];
            for (link, slot) in it.turn.adopted.drain(..) {
                (self.links[link].shard, self.links[link].slot) = (shard, Some(slot));
            }
        }
        self.ends_what_was_left();
        let (until, rate_per_s) = (self.now.plus(CLOSED_WITHIN_MS), 0);
        self.tell_all(|| FromBridge::TakenOver { until, rate_per_s });
        for it in &mut self.shards {
            (it.turn.is_frozen, it.turn.is_still) = (false, false);
        }
    }

    /// Connections that ended with the process before.
    fn ends_what_was_left(&mut self) {
        for link in &mut self.links {
            if link.slot.is_none() && link.was_accepted {
                link.shard = usize::MAX;
                link.server_ended = true;
                link.to_server.clear();
            }
        }
    }
}
