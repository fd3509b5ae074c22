//! A fan-out that is behind holds its publishers back: nothing is dropped, and no turn gets longer.
//!
//! Owns: which channels of this shard's homes are behind, whose publishers wait for that.
//! May depend on: `channel`, `server::{answers, receive, message}`.
//! Invariants: an event is taken over before its publisher is held, so order and delivery do not
//! change; a publisher has at most one request or client event beyond the bound, and goes on when
//! every shard has half of the bound left; whoever was told to hold is told to go on.

use ahash::AHashMap;
use shards::application::{ShardId, Slot, Waiter};

use super::{
    ServerTurn, ShardServer,
    message::{Answer, Message},
};
use crate::{
    channel::{home::HomeRef, local::LocalRef},
    connection::row::Hold,
};

/// Channels that are behind, at their homes and where their publishers are.
#[derive(Clone, Default)]
pub(super) struct Pressure {
    homes: AHashMap<HomeRef, Behind>,
    /// Connections of this shard that published to a channel which is behind. Each stands in one
    /// list at most, since its input is held from then on.
    publishers: AHashMap<LocalRef, Vec<Slot>>,
}

/// A home with shards that are behind.
#[derive(Clone, Default)]
struct Behind {
    shards: u16,
    /// Shards that were told to hold the channel's publishers, and its rows there.
    told: Vec<(ShardId, LocalRef)>,
    /// Answers to API requests, each kept back until no shard is behind.
    answers: Vec<(Waiter, Answer)>,
}

impl Pressure {
    /// Homes and publishers that wait; 0 at rest.
    pub(super) fn len(&self) -> usize {
        self.homes.len() + self.publishers.len()
    }

    pub(super) fn is_behind(&self, home: HomeRef) -> bool {
        !self.homes.is_empty() && self.homes.contains_key(&home)
    }
}

impl ShardServer {
    /// A channel's job grew or shrank: tells its home when it falls behind, and when it has
    /// caught up. Where everyone has left and come back meanwhile, the home is another one: who was
    /// told the one is told the other.
    pub(super) fn note_backlog(&mut self, turn: &mut impl ServerTurn, local: LocalRef) {
        let Some(channel) = self.locals.get_mut(local) else {
            return;
        };
        let told = channel.behind_at();
        let part = if told.is_some() { 2 } else { 1 };
        let is_behind = channel.backlog().is_above(part);
        let at = channel.home_ref.filter(|_| is_behind);
        if at == told {
            return;
        }
        channel.set_behind_at(at);
        let home = channel.home;
        self.counters.publishers_held += u64::from(at.is_some());
        for (at, is_behind) in [(told, false), (at, true)] {
            let Some(at) = at else { continue };
            let message = Message::Behind {
                home: at,
                is_behind,
            };
            self.send_home(turn, home, message);
        }
    }

    /// Home: a shard is behind with the channel's fan-out, or has caught up.
    pub(super) fn on_behind(&mut self, turn: &mut impl ServerTurn, at: HomeRef, is_behind: bool) {
        if is_behind {
            let behind = self.pressure.homes.entry(at).or_default();
            behind.shards += 1;
            if behind.shards == 1 {
                let home = self.homes.get(at);
                let interests = home.map_or(&[][..], |home| home.interests());
                behind.told = interests.iter().map(|it| (it.shard, it.local)).collect();
                let told = behind.told.clone();
                self.tell_publishers(turn, &told, true);
            }
            return;
        }
        let behind = self.pressure.homes.get_mut(&at);
        let behind = behind.expect("who catches up was behind");
        behind.shards -= 1;
        if behind.shards > 0 {
            return;
        }
        let behind = self.pressure.homes.remove(&at).expect("seen a line ago");
        self.tell_publishers(turn, &behind.told, false);
        for (waiter, answer) in behind.answers {
            self.answer(turn, waiter, answer);
            if waiter.shard == self.shard {
                self.queue_input(waiter.slot);
            }
        }
    }

    /// Home: a shard has joined a channel, perhaps one that is behind.
    pub(super) fn hold_if_behind(
        &mut self,
        turn: &mut impl ServerTurn,
        at: HomeRef,
        shard: ShardId,
        local: LocalRef,
    ) {
        if !self.pressure.is_behind(at) {
            return;
        }
        let behind = self.pressure.homes.get_mut(&at);
        let told = &mut behind.expect("seen a line ago").told;
        if !told.contains(&(shard, local)) {
            told.push((shard, local));
            self.tell_publishers(turn, &[(shard, local)], true);
        }
    }

    fn tell_publishers(
        &mut self,
        turn: &mut impl ServerTurn,
        told: &[(ShardId, LocalRef)],
        hold: bool,
    ) {
        for (shard, local) in told.iter().copied() {
            self.send_home(turn, shard, Message::HoldPublishers { local, hold });
        }
    }

    /// Home: keeps an answer back until the channel has caught up.
    pub(super) fn keep_answer_back(&mut self, at: HomeRef, waiter: Waiter, answer: Answer) {
        let behind = self.pressure.homes.get_mut(&at);
        let behind = behind.expect("answers are kept back for a channel that is behind");
        behind.answers.push((waiter, answer));
    }

    /// A home asks to hold those who publish to a channel from here, or to let them go on.
    pub(super) fn on_hold_publishers(&mut self, local: LocalRef, hold: bool) {
        if let Some(channel) = self.locals.get_mut(local) {
            channel.holds_publishers = hold;
        }
        if hold {
            return;
        }
        for slot in self.pressure.publishers.remove(&local).unwrap_or_default() {
            if let Some(row) = self.row(slot) {
                row.holds.remove(Hold::FanOut);
                self.queue_input(slot);
            }
        }
    }

    /// A connection published to a channel: its input is held if the channel is behind.
    pub(super) fn hold_if_pressed(&mut self, slot: Slot, local: LocalRef) {
        let channel = self.locals.get(local);
        if channel.is_some_and(|channel| channel.holds_publishers)
            && let Some(row) = self.row(slot)
        {
            row.holds.add(Hold::FanOut);
            self.pressure
                .publishers
                .entry(local)
                .or_default()
                .push(slot);
        }
    }
}
