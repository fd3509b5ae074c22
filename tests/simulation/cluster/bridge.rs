//! A node's bridge between its shards and the bus: the product's exchange, without its thread.

use std::{collections::VecDeque, time::Duration};

use shards::application::Millis;
use sockudo::bridge::{
    apps::AppTable,
    message::{FromBridge, ToBridge},
    nodes::{
        exchange::{Exchange, Setup},
        told::Told,
    },
};

use super::bus::Bus;
use crate::{dice::Dice, node::Node};

pub(crate) struct Bridge {
    /// Its seat on the bus.
    pub(super) number: usize,
    pub(crate) exchange: Exchange,
    /// What each shard said, by lane: those do not wait for each other.
    inbox: Vec<[VecDeque<ToBridge>; LANES]>,
    /// Since when this life has its share of webhooks.
    pub(super) shared_at: Option<Millis>,
}

const LANES: usize = 3;
/// News that are taken at once.
const NEWS_PER_TAKE: usize = 1_024;

pub(super) fn since_start(now: Millis) -> Duration {
    Duration::from_millis(now.0)
}

fn lane_of(message: &ToBridge) -> usize {
    match message {
        ToBridge::Event(_) | ToBridge::Kept(_) | ToBridge::Keep(_) => 0,
        ToBridge::State(_) | ToBridge::Terminate(_) | ToBridge::Spent(_) | ToBridge::KeptAsk(_) => {
            1
        }
        _ => 2,
    }
}

/// What goes to the other nodes.
pub(crate) fn is_for_nodes(message: &ToBridge) -> bool {
    matches!(
        message,
        ToBridge::Event(_)
            | ToBridge::State(_)
            | ToBridge::Terminate(_)
            | ToBridge::Spent(_)
            | ToBridge::KeptAsk(_)
            | ToBridge::Kept(_)
            | ToBridge::Keep(_)
            | ToBridge::TakeRate(_)
            | ToBridge::Topic { .. }
    )
}

impl Bridge {
    /// Of the node with this number.
    pub(crate) fn start(number: usize, now: Millis, setup: Setup) -> Self {
        let shards = usize::from(setup.shards);
        Self {
            number,
            exchange: Exchange::new(since_start(now), setup),
            inbox: (0..shards).map(|_| Default::default()).collect(),
            shared_at: None,
        }
    }

    /// Of a process that takes the place of another one, from this seat on the bus.
    pub(super) fn follow(number: usize, shards: u16, exchange: Exchange) -> Self {
        Self {
            number,
            exchange,
            inbox: (0..shards).map(|_| Default::default()).collect(),
            shared_at: None,
        }
    }

    /// Does what its shards have said and tells them what follows; hears nothing and does not tick. True if
    /// anything happened.
    pub(super) fn comes_to_rest(
        &mut self,
        node: &mut Node,
        apps: &AppTable,
        bus: &mut Bus,
        dice: &mut Dice,
    ) -> bool {
        let mut told = Told::new();
        let mut moved = self.take_messages(node.now, apps, dice, true, &mut told);
        while self.exchange.has_views() {
            self.exchange.tell_views(apps, &mut told);
        }
        self.exchange.flush();
        while let Some(command) = self.exchange.next_command() {
            bus.obey(self.number, command, dice);
        }
        moved |= !told.is_empty();
        for (shard, message) in told {
            node.tell(usize::from(shard.0), message);
        }
        moved
    }

    /// Takes what has landed, and reads nothing of it.
    pub(super) fn holds(&mut self, now: Millis, apps: &AppTable, bus: &mut Bus) {
        self.exchange.hold();
        self.exchange.hold_all();
        self.hears_in_silence(now, apps, bus);
    }

    /// The same, and says nothing to its shards.
    pub(super) fn hears_in_silence(&mut self, now: Millis, apps: &AppTable, bus: &mut Bus) {
        let mut told = Told::new();
        while let Some(news) = bus.next_news(self.number) {
            self.exchange.take(since_start(now), apps, news, &mut told);
        }
    }

    /// A shard says something.
    pub(crate) fn tell(&mut self, shard: usize, message: ToBridge) {
        self.inbox[shard][lane_of(&message)].push_back(message);
    }

    /// Does some of what waits; `all` of it when nothing is to be left. True if anything happened.
    pub(crate) fn turn(
        &mut self,
        node: &mut Node,
        apps: &AppTable,
        bus: &mut Bus,
        dice: &mut Dice,
        all: bool,
    ) -> bool {
        let now = node.now;
        let mut told = Told::new();
        let mut moved = false;
        if all || dice.percent(60) {
            moved |= self.take_news(now, apps, bus, dice, all, &mut told);
        }
        if all || dice.percent(60) {
            moved |= self.take_messages(now, apps, dice, all, &mut told);
        }
        if since_start(now) >= self.exchange.due() {
            moved = true;
            self.exchange.tick(since_start(now), &mut told);
            let has_share = told
                .iter()
                .any(|(_, it)| matches!(it, FromBridge::Owned(_)));
            self.shared_at = self.shared_at.or_else(|| has_share.then_some(now));
        }
        let (is_cut_off, is_behind) =
            (self.exchange.is_failing(), !self.exchange.node().is_fresh());
        for shard in &mut node.shards {
            (shard.turn.is_cut_off, shard.turn.is_behind) = (is_cut_off, is_behind);
        }
        if self.exchange.has_views() {
            self.exchange.tell_views(apps, &mut told);
            moved |= self.exchange.has_views();
        }
        while let Some(command) = self.exchange.next_command() {
            moved = true;
            bus.obey(self.number, command, dice);
        }
        moved |= !told.is_empty();
        for (shard, message) in told {
            node.tell(usize::from(shard.0), message);
        }
        moved
    }

    fn take_news(
        &mut self,
        now: Millis,
        apps: &AppTable,
        bus: &mut Bus,
        dice: &mut Dice,
        all: bool,
        told: &mut Told,
    ) -> bool {
        let count = match all {
            true => NEWS_PER_TAKE,
            false => dice.between(1, 20),
        };
        let mut moved = false;
        for _ in 0..count {
            let Some(news) = bus.next_news(self.number) else {
                break;
            };
            moved = true;
            self.exchange.take(since_start(now), apps, news, told);
        }
        if moved {
            self.exchange.settle(since_start(now), told);
        }
        moved
    }

    fn take_messages(
        &mut self,
        now: Millis,
        apps: &AppTable,
        dice: &mut Dice,
        all: bool,
        told: &mut Told,
    ) -> bool {
        let mut moved = false;
        let mut lanes: Vec<usize> = (0..self.inbox.len() * LANES).collect();
        dice.shuffle(&mut lanes);
        for lane in lanes {
            let waiting = self.inbox[lane / LANES][lane % LANES].len();
            let count = match all {
                true => waiting,
                false => dice.below(waiting + 1),
            };
            for _ in 0..count {
                let message = self.inbox[lane / LANES][lane % LANES].pop_front();
                moved = true;
                self.take_message(now, apps, &message.expect("counted above"), told);
            }
        }
        if moved {
            self.exchange.flush();
        }
        moved
    }

    fn take_message(&mut self, now: Millis, apps: &AppTable, message: &ToBridge, told: &mut Told) {
        let now = since_start(now);
        match message {
            ToBridge::Event(event) => self.exchange.publish(apps, event),
            ToBridge::State(state) => self.exchange.report(now, apps, state),
            ToBridge::Terminate(user) => self.exchange.terminate(apps, user),
            ToBridge::Spent(spent) => self.exchange.spend(apps, spent),
            ToBridge::KeptAsk(name) => self.exchange.ask_kept(apps, name, told),
            ToBridge::Kept(kept) => self.exchange.answer_kept(apps, kept),
            // Nobody shares a cache here.
            ToBridge::Keep(_) => {}
            ToBridge::Topic { partition, wish } => self.exchange.wish(now, *partition, *wish, told),
            _ => panic!("{message:?} is not for other nodes"),
        }
    }

    /// When it has something to do by itself.
    pub(crate) fn due(&self) -> Millis {
        let due = self.exchange.due();
        Millis(u64::try_from(due.as_millis()).expect("a run is short"))
    }
}
