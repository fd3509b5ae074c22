//! How the shards come to rest so that another process can go on where they stopped, and how they go on.
//!
//! Owns: `Freeze`; `Order`, which the bridge gives; `Record`, which each shard answers with; when all
//! have settled; `Frost`, a shard's part; what is cancelled and armed again.
//! May depend on: `shard`, `turn` and what it holds.
//! Invariants: a frozen shard arms no receive and no accept and fires no timer; one that is still sends
//! nothing either; all have settled only when no message is between two of them; whatever was frozen
//! can be thawed, and nothing is lost by it.

use crate::{
    application::{Application, Millis},
    connections::Flag,
    shard::Shard,
    turn::RingTurn,
    work::Work,
};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// How far the freezing of a node has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freeze {
    /// Nothing is read and accepted any more; what was begun goes on.
    Settling,
    /// Nothing of the application goes on; some shards may still send.
    Stilling,
    /// Nothing goes on on any shard.
    Still,
}

/// What shards do beside the usual.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    /// They run.
    #[default]
    Runs,
    /// They read, accept and fire nothing.
    Settles,
    /// They send nothing either.
    Still,
}

/// What the bridge wants of the shards: which freezing of the node's life, and how far it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Order {
    number: u64,
    phase: Phase,
}

impl Order {
    /// That of a node which starts frozen.
    pub(crate) const FROZEN: Self = Self {
        number: 1,
        phase: Phase::Still,
    };

    /// The next freezing begins.
    fn freeze(self) -> Self {
        Self {
            number: self.number + 1,
            phase: Phase::Settles,
        }
    }

    const fn still(self) -> Self {
        Self {
            phase: Phase::Still,
            ..self
        }
    }

    const fn thaw(self) -> Self {
        Self {
            phase: Phase::Runs,
            ..self
        }
    }
}

/// An `Order` as all threads see it.
#[derive(Default)]
pub(crate) struct OrderCell(AtomicU64);

impl OrderCell {
    pub(crate) fn set(&self, order: Order) {
        self.0.store(order.number << 2 | order.phase as u64, SeqCst);
    }

    pub(crate) fn get(&self) -> Order {
        let word = self.0.load(SeqCst);
        let phase = match word & 3 {
            0 => Phase::Runs,
            1 => Phase::Settles,
            _ => Phase::Still,
        };
        let number = word >> 2;
        Order { number, phase }
    }
}

/// What a shard says of itself at the end of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Said {
    /// The number of the freezing in which it says so.
    order: u64,
    /// Messages posted to other shards, ever.
    posted: u64,
    /// Messages received from other shards, ever.
    received: u64,
    /// What the application was told, ever.
    told: u64,
    /// Nothing is left to do.
    is_idle: bool,
}

/// What one shard lets the bridge know while it is frozen. Only the shard writes it, once per turn.
#[derive(Default)]
pub(crate) struct Record {
    /// Odd within a turn: what stands below is of the one before then.
    turn: AtomicU64,
    order: AtomicU64,
    posted: AtomicU64,
    received: AtomicU64,
    told: AtomicU64,
    is_idle: AtomicU64,
    /// The last freezing in which all receives and accepts were over.
    deaf_in: AtomicU64,
    /// The last freezing in which it sent nothing any more.
    still_in: AtomicU64,
}

impl Record {
    /// To be said before anything is taken from anywhere.
    fn turn_begins(&self) {
        self.turn.store(self.turn.load(SeqCst) | 1, SeqCst);
    }

    fn turn_ends(&self, said: Said) {
        self.order.store(said.order, SeqCst);
        self.posted.store(said.posted, SeqCst);
        self.received.store(said.received, SeqCst);
        self.told.store(said.told, SeqCst);
        self.is_idle.store(u64::from(said.is_idle), SeqCst);
        self.turn.store((self.turn.load(SeqCst) | 1) + 1, SeqCst);
    }

    /// What the shard said last; `None` within a turn.
    fn read(&self) -> Option<Said> {
        let turn = self.turn.load(SeqCst);
        let said = Said {
            order: self.order.load(SeqCst),
            posted: self.posted.load(SeqCst),
            received: self.received.load(SeqCst),
            told: self.told.load(SeqCst),
            is_idle: self.is_idle.load(SeqCst) == 1,
        };
        (turn.is_multiple_of(2) && self.turn.load(SeqCst) == turn).then_some(said)
    }
}

/// The bridge's part: what it has seen of the shards.
#[derive(Default)]
pub(crate) struct Watch {
    /// What all shards said when they were last looked at, if all were between two turns.
    last: Option<Vec<Said>>,
}

impl Watch {
    /// Begins a freezing.
    pub(crate) fn freeze(&mut self, cell: &OrderCell) {
        self.last = None;
        cell.set(cell.get().freeze());
    }

    pub(crate) fn thaw(&mut self, cell: &OrderCell) {
        self.last = None;
        cell.set(cell.get().thaw());
    }

    /// Looks at the shards, and orders what comes next if it is time. `has_posted`: the bridge has
    /// messages for shards that are not taken yet.
    pub(crate) fn step<'a>(
        &mut self,
        cell: &OrderCell,
        mut records: impl Iterator<Item = &'a Record> + Clone,
        has_posted: bool,
        is_overdue: bool,
    ) -> Freeze {
        let order = cell.get();
        match order.phase {
            Phase::Runs => Freeze::Settling,
            Phase::Settles => {
                let now: Option<Vec<Said>> = records.clone().map(Record::read).collect();
                let is_settled = !has_posted && self.has_settled(now, order.number);
                let is_deaf = |record: &Record| record.deaf_in.load(SeqCst) == order.number;
                if is_settled || (is_overdue && records.all(is_deaf)) {
                    cell.set(order.still());
                    return Freeze::Stilling;
                }
                Freeze::Settling
            }
            Phase::Still => {
                let is_still = |record: &Record| record.still_in.load(SeqCst) == order.number;
                if records.all(is_still) {
                    Freeze::Still
                } else {
                    Freeze::Stilling
                }
            }
        }
    }

    // Every shard was between two turns when it was looked at, twice, and the application heard nothing in
    // between. So at the moment between both looks nothing was under way on any of them, and what
    // they had posted and received by then is what they said.
    fn has_settled(&mut self, now: Option<Vec<Said>>, number: u64) -> bool {
        let is_same = now.is_some() && now == self.last;
        let all = now.as_deref().unwrap_or_default();
        let posted: u64 = all.iter().map(|said| said.posted).sum();
        let received: u64 = all.iter().map(|said| said.received).sum();
        let is_idle = all.iter().all(|said| said.order == number && said.is_idle);
        let is_settled = is_same && is_idle && posted == received;
        self.last = now;
        is_settled
    }
}

/// A shard's part.
#[derive(Default)]
pub(crate) struct Frost {
    order: Order,
    /// The next row whose receive is to be cancelled or, once it runs again, armed; `None` = all are.
    next: Option<u32>,
    /// When the last row was dealt with.
    walked_ns: u64,
    /// What the application was told of, ever: completions, messages, ends.
    pub(crate) told: u64,
}

impl Frost {
    pub(crate) fn starting(order: Order) -> Self {
        Self {
            order,
            ..Self::default()
        }
    }

    /// No receive or accept may be armed, no timer fires.
    pub(crate) fn is_frozen(&self) -> bool {
        self.order.phase != Phase::Runs
    }

    /// Nothing may be sent.
    pub(crate) fn is_still(&self) -> bool {
        self.order.phase == Phase::Still
    }

    /// Rows are left to deal with.
    pub(crate) fn walks(&self) -> bool {
        self.next.is_some()
    }
}

/// Rows that are dealt with in one turn: their cancellations fit into the ring's queue.
const ROWS_PER_TURN: u32 = 1_024;
/// A receive that is there so long after its cancellation is cancelled once more: it may have been
/// on its way to be armed again.
const AGAIN_NS: u64 = 10_000_000;

impl<A: Application> RingTurn<A> {
    fn obey(&mut self, order: Order) {
        let was_frozen = self.frost.is_frozen();
        let is_new = order.number != self.frost.order.number;
        self.frost.order = order;
        if self.frost.is_frozen() {
            if is_new || !was_frozen {
                self.cancel_accepts();
                self.frost.next = Some(0);
            }
        } else {
            self.frost.next = Some(0);
            let is_waited_for = self.inbound.waits() || self.inbound.rests_until().is_some();
            if self.inbound.is_accepting() && !is_waited_for {
                self.arm_accepts();
            }
        }
    }

    /// Receives and accepts are over, and what they brought was handed on.
    fn is_deaf(&self) -> bool {
        self.inbound.receiving() == 0 && !self.inbound.has_armed()
    }

    /// When a frozen shard looks again whether its receives are over.
    pub(crate) fn looks_again_at(&self) -> Option<Millis> {
        let waits = self.frost.is_frozen() && !self.is_deaf();
        waits.then(|| Millis((self.frost.walked_ns + AGAIN_NS) / 1_000_000 + 1))
    }

    /// Cancels the next rows' receives, or arms them.
    // Per row a cache line, and one entry of the ring.
    fn walk(&mut self) {
        let is_late = self.clock.now_ns >= self.frost.walked_ns + AGAIN_NS;
        if self.frost.is_frozen() && !self.frost.walks() && is_late && !self.is_deaf() {
            self.cancel_accepts();
            self.frost.next = Some(0);
        }
        let Some(from) = self.frost.next else { return };
        let rows = self.rows.capacity();
        let to = from.saturating_add(ROWS_PER_TURN).min(rows);
        for index in from..to {
            self.budget.spend(Work::ROW);
            if self.frost.is_frozen() {
                let row = self.rows.row(index);
                if row.is(Flag::RECV) {
                    self.wire.stop_receiving(index, row);
                }
            } else {
                self.arm_recv_if_wanted(index);
            }
        }
        self.frost.next = (to < rows).then_some(to);
        self.frost.walked_ns = self.clock.now_ns;
    }

    /// Nothing is left to do, `has_more` of the application's apart.
    fn is_idle(&self) -> bool {
        let is_sent = !self.outbound.has_listed() && !self.link.lanes.has_spilled();
        let is_heard = !self.has_left_over() && !self.link.has_incoming();
        let is_passed_on = !self.mesh.has_spilled() && !self.wire.sessions.has_ready();
        self.is_deaf() && !self.frost.walks() && is_sent && is_heard && is_passed_on
    }
}

impl<A: Application> Shard<A> {
    /// Sees what the bridge wants, first of all in a turn.
    pub(crate) fn take_order(&mut self) {
        let order = self.orders.frost.get();
        if order == self.turn.frost.order && !self.turn.frost.is_frozen() {
            if self.turn.frost.walks() {
                self.turn.walk();
            }
            return;
        }
        self.record.turn_begins();
        if order != self.turn.frost.order {
            self.turn.obey(order);
        }
        self.turn.walk();
    }

    /// The bridge wants something that the shard has not seen.
    pub(crate) fn has_order(&self) -> bool {
        self.orders.frost.get() != self.turn.frost.order
    }

    /// Says how far this shard is, last of all in a turn. `has_more`: the application has left
    /// something over.
    pub(crate) fn answer_order(&self, has_more: bool) {
        let turn = &self.turn;
        if !turn.frost.is_frozen() {
            return;
        }
        let (posted, received) = turn.mesh.counts();
        let is_idle = !has_more && turn.is_idle() && self.application.is_settled();
        let order = turn.frost.order.number;
        self.record.turn_ends(Said {
            order,
            posted,
            received,
            told: turn.frost.told,
            is_idle,
        });
        if turn.is_deaf() {
            self.record.deaf_in.store(order, SeqCst);
        }
        if turn.frost.is_still() {
            self.record.still_in.store(order, SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shards that say what a test wants.
    struct Shards {
        cell: OrderCell,
        records: Vec<Record>,
        watch: Watch,
    }

    impl Shards {
        fn freezing(count: usize) -> Self {
            let mut shards = Self {
                cell: OrderCell::default(),
                records: (0..count).map(|_| Record::default()).collect(),
                watch: Watch::default(),
            };
            shards.watch.freeze(&shards.cell);
            shards
        }

        fn says(&self, shard: usize, posted: u64, received: u64, told: u64, is_idle: bool) {
            let order = self.cell.get().number;
            self.records[shard].turn_begins();
            self.records[shard].turn_ends(Said {
                order,
                posted,
                received,
                told,
                is_idle,
            });
        }

        fn step(&mut self, is_overdue: bool) -> Freeze {
            let records = self.records.iter();
            self.watch.step(&self.cell, records, false, is_overdue)
        }
    }

    #[test]
    fn a_message_between_two_shards_keeps_the_node_from_having_settled() {
        let mut shards = Shards::freezing(2);
        shards.says(0, 5, 2, 9, true);
        shards.says(1, 2, 4, 9, true);
        for _ in 0..3 {
            assert_eq!(
                shards.step(false),
                Freeze::Settling,
                "one of five is under way"
            );
        }
        shards.records[1].turn_begins();
        assert_eq!(shards.step(false), Freeze::Settling, "it is being handled");
        shards.says(1, 3, 5, 10, true);
        assert_eq!(shards.step(false), Freeze::Settling, "it was answered");
        assert_eq!(shards.step(false), Freeze::Settling);
        shards.says(0, 5, 3, 10, true);
        assert_eq!(shards.step(false), Freeze::Settling, "looked at once");
        assert_eq!(shards.step(false), Freeze::Stilling, "looked at twice");
    }

    #[test]
    fn what_changes_between_two_looks_is_looked_at_again() {
        let mut shards = Shards::freezing(2);
        // Sums that are equal only because the looks fell into one exchange.
        shards.says(0, 1, 0, 1, true);
        shards.says(1, 0, 1, 1, true);
        assert_eq!(shards.step(false), Freeze::Settling);
        shards.says(1, 1, 1, 2, true);
        shards.says(0, 1, 1, 2, true);
        assert_eq!(shards.step(false), Freeze::Settling, "both moved");
        shards.says(0, 1, 1, 2, false);
        assert_eq!(
            shards.step(false),
            Freeze::Settling,
            "one has something left"
        );
        assert_eq!(shards.step(false), Freeze::Settling);
        // Turns in which the application heard nothing, as those that only send, do no harm.
        shards.says(0, 1, 1, 2, true);
        assert_eq!(shards.step(false), Freeze::Settling);
        shards.says(0, 1, 1, 2, true);
        assert_eq!(shards.step(false), Freeze::Stilling);
    }

    #[test]
    fn an_overdue_node_is_stilled_once_nothing_is_received_any_more() {
        let mut shards = Shards::freezing(2);
        shards.says(0, 7, 0, 1, false);
        assert_eq!(shards.step(true), Freeze::Settling);
        shards.records[0].deaf_in.store(1, SeqCst);
        assert_eq!(
            shards.step(true),
            Freeze::Settling,
            "the other still receives"
        );
        shards.records[1].deaf_in.store(1, SeqCst);
        assert_eq!(shards.step(false), Freeze::Settling, "it may still settle");
        assert_eq!(shards.step(true), Freeze::Stilling);
        shards.records[0].still_in.store(1, SeqCst);
        assert_eq!(shards.step(true), Freeze::Stilling);
        shards.records[1].still_in.store(1, SeqCst);
        assert_eq!(shards.step(true), Freeze::Still);
    }

    #[test]
    fn what_was_said_in_an_earlier_freezing_counts_for_nothing() {
        let mut shards = Shards::freezing(1);
        shards.says(0, 0, 0, 1, true);
        shards.records[0].deaf_in.store(1, SeqCst);
        assert_eq!(shards.step(false), Freeze::Settling);
        assert_eq!(shards.step(false), Freeze::Stilling);
        shards.records[0].still_in.store(1, SeqCst);
        assert_eq!(shards.step(false), Freeze::Still);
        shards.watch.thaw(&shards.cell);
        shards.watch.freeze(&shards.cell);
        for is_overdue in [false, false, true] {
            assert_eq!(shards.step(is_overdue), Freeze::Settling);
        }
    }
}
