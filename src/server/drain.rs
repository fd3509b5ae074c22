//! Shutting a shard down gently, shedding some of its connections, and apps that change while
//! connections are open.
//!
//! Owns: the paced closing of connections with 4200, the last events of channels, closing the
//! connections of apps that are gone.
//! May depend on: `server::close`, `bridge::{apps, message}`.
//! Invariants: the bridge hears `Drained` once, when no WebSocket connection is left and what was whole when the
//! drain began is answered, and `Settled` once, when no webhook event waits for somebody's return and what was
//! whole by then is answered.

use std::rc::Rc;

use shards::{
    application::{Millis, ShardId, Slot},
    work::Work,
};

use super::{ServerTurn, Settings, ShardServer, errands::Errand, unanswered::Unanswered};
use crate::{
    bridge::{apps::AppChange, message::ToBridge},
    channel::home_later::HOLD_LOOK_MS,
    config::Config,
    protocol::code::CloseCode,
};

/// A drain under way.
#[derive(Clone, Debug)]
pub(super) struct Drain {
    deadline: Millis,
    pace: Pace,
    told: bool,
    /// Requests that are waited for: those of the drain's begin, and then those of its end.
    unanswered: Unanswered,
    /// Ticks since all shards are drained.
    settling: Option<u8>,
    /// They are those of its end.
    looks_last: bool,
}

/// Some connections go elsewhere; the others stay.
#[derive(Clone, Debug)]
pub(super) struct Shed {
    until: Millis,
    pace: Pace,
}

/// Connections that are closed one after another.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    /// Closes per second of all shards together; 0 = spread over what is left of the time.
    rate_per_s: u32,
    shards: u16,
    /// What ticks gave beyond whole connections: thousandths of a connection, times the shards.
    earned: u64,
    /// Connections that are to be closed, those owed included.
    left: u64,
    /// Connections to close at once.
    owed: u64,
    /// Where the walk over the connections goes on.
    next_index: usize,
}

impl Pace {
    /// Shards take turns: each has its first connection before the one that comes after it.
    pub(super) fn new(rate_per_s: u32, (shard, shards): (ShardId, u16), left: u64) -> Self {
        Self {
            rate_per_s,
            shards,
            earned: u64::from(shards.saturating_sub(shard.0)) * 1_000,
            left,
            owed: 0,
            next_index: 0,
        }
    }

    /// Adds a tick's share of the open connections.
    pub(super) fn owe(&mut self, time_left_ms: u64, open: u64) {
        let open = open.min(self.left);
        // What the rate leaves for the end goes then, or it would hear nothing.
        let share = if self.rate_per_s == 0 || time_left_ms <= LAST_MS {
            open.div_ceil((time_left_ms / TICK_MS).max(1))
        } else {
            let price = u64::from(self.shards) * 1_000;
            let earned = self.earned + u64::from(self.rate_per_s) * TICK_MS;
            self.earned = earned % price;
            earned / price
        };
        self.owed = self.owed.saturating_add(share).min(open);
    }

    /// Somebody is to go now.
    pub(super) const fn owes(&self) -> bool {
        self.owed > 0
    }

    /// One of them goes; false if none is to go now.
    pub(super) const fn take_one(&mut self) -> bool {
        if self.owed == 0 {
            return false;
        }
        self.owed -= 1;
        self.left -= 1;
        true
    }
}

/// At the end of the time for closing all are closed, whatever the rate.
const LAST_MS: u64 = 1_000;
/// The runtime ticks this often.
const TICK_MS: u64 = 100;
/// In so many ticks what other shards posted before has arrived.
const SETTLING_TICKS: u8 = 2;

impl ShardServer {
    pub(super) fn begin_drain(
        &mut self,
        turn: &mut impl ServerTurn,
        deadline: Millis,
        rate_per_s: u32,
    ) {
        self.shed = None;
        self.drain = Some(Drain {
            deadline,
            pace: Pace::new(rate_per_s, (self.shard, self.shards), u64::MAX),
            told: false,
            unanswered: Unanswered::among(self.connections.len()),
            settling: None,
            looks_last: false,
        });
        self.give_up_lookups(turn);
        self.hurry_strays(turn.now());
        turn.keep_ticking(true);
        self.search_unanswered(turn);
        self.drain_some(turn);
    }

    /// Adds this tick's share to the connections that are to be closed now.
    pub(super) fn drain_some(&mut self, turn: &mut impl ServerTurn) {
        let Some(drain) = &mut self.drain else { return };
        let open = self.counters.websockets;
        // Half of the time for closing: the other half is for echoes and what is queued.
        let time_left_ms = drain.deadline.since(turn.now()) / 2;
        drain.pace.owe(time_left_ms, open);
        self.continue_drain(turn);
        if self.drain.as_ref().is_some_and(|drain| drain.told) {
            return;
        }
        // Their channels have something left to tell, which the bridge must hear before it ends.
        let has_all = self.has_answered_all(turn);
        let is_answered = has_all && self.lookups.is_empty() && self.ready.is_empty();
        let has_nobody = self.counters.websockets == 0 && self.strays.is_none();
        let is_empty = has_nobody && self.departing.is_empty() && is_answered;
        let Some(drain) = &mut self.drain else { return };
        if is_empty {
            drain.told = turn.to_bridge(ToBridge::Drained).is_ok();
        }
    }

    /// Closes so many connections until then, and no more; the last order counts.
    pub(super) fn begin_shed(
        &mut self,
        turn: &mut impl ServerTurn,
        connections: u64,
        until: Millis,
        rate_per_s: u32,
    ) {
        if self.drain.is_some() {
            return; // All of them go.
        }
        let pace = Pace::new(rate_per_s, (self.shard, self.shards), connections);
        self.shed = Some(Shed { until, pace });
        turn.keep_ticking(true);
        self.shed_some(turn);
    }

    /// Adds this tick's share, as `drain_some`.
    pub(super) fn shed_some(&mut self, turn: &mut impl ServerTurn) {
        let Some(shed) = &mut self.shed else { return };
        let time_left_ms = shed.until.since(turn.now());
        shed.pace.owe(time_left_ms, self.counters.websockets);
        self.continue_drain(turn);
        let has_more = |shed: &Shed| shed.pace.left > 0 && turn.now() < shed.until;
        if self.counters.websockets == 0 || !self.shed.as_ref().is_some_and(has_more) {
            self.shed = None;
        }
    }

    /// Closes connections that are to be closed now, until this turn's work is done.
    pub(super) fn continue_drain(&mut self, turn: &mut impl ServerTurn) {
        while self.owes_drain() && turn.work_left() > Work(0) {
            let slot = self.next_to_drain(turn);
            let Some(pace) = self.pace_mut() else { return };
            let Some(slot) = slot else {
                pace.owed = 0;
                return;
            };
            pace.take_one();
            self.close(turn, slot, CloseCode::RECONNECT);
        }
    }

    fn pace_mut(&mut self) -> Option<&mut Pace> {
        let drain = self.drain.as_mut().map(|drain| &mut drain.pace);
        drain.or_else(|| self.shed.as_mut().map(|shed| &mut shed.pace))
    }

    /// The node is about to end, or waits for its balancer to notice.
    pub(super) fn is_draining(&self) -> bool {
        self.drain.is_some() || self.health.draining
    }

    /// Some connections are to be closed before the next tick.
    pub(super) fn owes_drain(&self) -> bool {
        let drain = self.drain.as_ref().map(|drain| &drain.pace);
        let pace = drain.or_else(|| self.shed.as_ref().map(|shed| &shed.pace));
        pace.is_some_and(Pace::owes)
    }

    /// All shards are drained: nobody will return within a grace.
    pub(super) fn begin_settling(&mut self) {
        if let Some(drain) = &mut self.drain {
            drain.settling.get_or_insert(0);
        }
    }

    /// Until when the deadlines of homes are due: a shard that settles looks beyond all graces. Where
    /// there are other nodes they go on waiting, and the next owner tells.
    pub(super) fn homes_due(&self, now: Millis) -> Millis {
        match self.tells_last() {
            true => now.plus(self.settings.grace_ms.max(HOLD_LOOK_MS)),
            false => now,
        }
    }

    /// This shard settles, and no other node tells what it leaves untold.
    pub(super) fn tells_last(&self) -> bool {
        let settles = self.drain.as_ref().is_some_and(|it| it.settling.is_some());
        let is_last = !self.topics.has_bus() || self.owned.has_all();
        settles && is_last
    }

    /// Reports, after the homes had their tick, that they have nothing left to tell, and that who asked meanwhile
    /// is answered: nobody new comes any more, and each answer is the last on its connection.
    pub(super) fn settle_some(&mut self, turn: &mut impl ServerTurn) {
        let rows = self.connections.len();
        let Some(drain) = &mut self.drain else { return };
        let Some(ticks) = &mut drain.settling else {
            return;
        };
        if *ticks == SETTLING_TICKS {
            return;
        }
        *ticks += 1;
        if *ticks < SETTLING_TICKS {
            return;
        }
        if !std::mem::replace(&mut drain.looks_last, true) {
            drain.unanswered = Unanswered::among(rows);
            self.search_unanswered(turn);
        }
        let is_told = self.has_answered_all(turn) && turn.to_bridge(ToBridge::Settled).is_ok();
        if !is_told && let Some(drain) = &mut self.drain {
            drain.settling = Some(SETTLING_TICKS - 1);
        }
    }

    /// What is waited for before this shard has drained or settled, while it is looked at; `None` without a drain.
    pub(super) fn take_unanswered(&mut self) -> Option<Unanswered> {
        let drain = self.drain.as_mut()?;
        Some(std::mem::take(&mut drain.unanswered))
    }

    pub(super) fn put_unanswered(&mut self, unanswered: Unanswered) {
        let drain = self.drain.as_mut().expect("it was taken from there");
        drain.unanswered = unanswered;
    }

    /// Rows are to be looked at before the next tick.
    pub(super) fn searches_unanswered(&self) -> bool {
        let drain = self.drain.as_ref();
        drain.is_some_and(|drain| drain.unanswered.is_searching())
    }

    fn next_to_drain(&mut self, turn: &mut impl ServerTurn) -> Option<Slot> {
        let next_index = self.pace_mut()?.next_index;
        let rest = self.connections.iter().enumerate().skip(next_index);
        let found = rest
            .filter(|(_, row)| row.is_open())
            .map(|(index, row)| (index, row.generation))
            .next();
        let walked = found.map_or(0, |(index, _)| index - next_index);
        turn.spend(Work::bytes(64 * walked));
        // New ones may have come below: the next tick looks again.
        self.pace_mut()?.next_index = found.map_or(0, |(index, _)| index + 1);
        let (index, generation) = found?;
        Some(Slot {
            index: u32::try_from(index).ok()?,
            generation,
        })
    }

    /// The configuration was read again: what can change while running does.
    pub(super) fn on_settings(&mut self, turn: &impl ServerTurn, config: &Config) {
        let node = self.settings.node.clone();
        // Header texts were checked when the configuration was read; without them the old ones stay.
        let sockets_max = self.settings.sockets_max;
        let Ok(settings) = Settings::from_config(config, node, sockets_max) else {
            return;
        };
        self.quotas.rates_changed(&settings, turn.shards());
        self.apps.reconfigure(&settings);
        self.settings = Rc::new(settings);
    }

    /// The apps changed: connections of those that are gone or disabled are closed, those of an app with its first
    /// limit counted, in slices.
    pub(super) fn on_apps(
        &mut self,
        turn: &mut impl ServerTurn,
        number: u64,
        changes: &[AppChange],
    ) {
        turn.spend(Work::ROW.times(changes.len()));
        let had_limit = |index| match self.apps.get(index) {
            Some(app) => app.entry.rules.limits_connections,
            None => true, // There is nobody to be counted.
        };
        let concerns_connections = |change: &AppChange| match change {
            AppChange::Put(entry) if !entry.rules.is_enabled => true,
            AppChange::Put(entry) => entry.app.max_connections > 0 && !had_limit(entry.index),
            AppChange::Gone(_) | AppChange::Forgotten(..) => true,
        };
        let is_check_due = changes.iter().any(concerns_connections);
        self.apps.apply(number, changes);
        if is_check_due {
            self.errands.push(Errand::CheckApps { next: 0 });
        }
        // There is always room in the lane of control; without an answer nothing new is opened.
        _ = turn.to_bridge(ToBridge::AppsTaken { number });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of all shards, tick by tick.
    fn closed_by_tick(rate_per_s: u32, shards: u16, ticks: usize) -> Vec<u64> {
        let all = 0..shards;
        let mut paces: Vec<Pace> = all
            .map(|shard| Pace::new(rate_per_s, (ShardId(shard), shards), u64::MAX))
            .collect();
        let tick = |_| {
            let owed = paces.iter_mut().map(|pace| {
                pace.owe(60_000, 1_000_000);
                std::mem::take(&mut pace.owed)
            });
            owed.sum()
        };
        (0..ticks).map(tick).collect()
    }

    #[test]
    fn all_shards_together_close_as_many_connections_per_second_as_was_asked_for() {
        for (rate_per_s, shards) in [(1, 1), (2, 1), (4, 4), (1, 4), (7, 3), (100, 8), (4_999, 7)] {
            let closed = closed_by_tick(rate_per_s, shards, 100);
            let all: u64 = closed.iter().sum();
            let (least, most) = (
                u64::from(rate_per_s) * 10,
                u64::from(rate_per_s) * 10 + u64::from(shards),
            );
            assert!(
                (least..=most).contains(&all),
                "{all} at {rate_per_s}/s on {shards} shards"
            );
        }
    }

    #[test]
    fn shards_that_close_slowly_take_turns() {
        let closed = closed_by_tick(1, 4, 60);
        let at: Vec<usize> = (0..60).filter(|tick| closed[*tick] > 0).collect();
        assert_eq!(at, [0, 9, 19, 29, 39, 49, 59]);
        assert_eq!(closed.iter().sum::<u64>(), 7);
    }
}
