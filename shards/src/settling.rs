//! When all shards of a node have come to rest.
//!
//! Owns: `Freeze`; `Order`, which the bridge gives; `Record`, which each shard answers with; `Watch`, which finds that
//! nothing is under way.
//! May depend on: std only.
//! Invariants: all have settled only when no message is between two of them; what was said in an
//! earlier freezing counts for nothing.

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
    /// And have let go of their sockets: another process has them.
    Gone,
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

    const fn let_go(self) -> Self {
        Self {
            phase: Phase::Gone,
            ..self
        }
    }

    const fn thaw(self) -> Self {
        Self {
            phase: Phase::Runs,
            ..self
        }
    }

    /// Which freezing it belongs to.
    pub(crate) const fn number(self) -> u64 {
        self.number
    }

    /// Nothing may be read or accepted.
    pub(crate) const fn freezes(self) -> bool {
        !matches!(self.phase, Phase::Runs)
    }

    /// Nothing may be sent either.
    pub(crate) const fn stills(self) -> bool {
        matches!(self.phase, Phase::Still | Phase::Gone)
    }

    /// No socket may be kept.
    pub(crate) const fn lets_go(self) -> bool {
        matches!(self.phase, Phase::Gone)
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
            2 => Phase::Still,
            _ => Phase::Gone,
        };
        let number = word >> 2;
        Order { number, phase }
    }
}

/// What a shard says of itself at the end of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    /// The number of the freezing in which it says so.
    pub(crate) order: u64,
    /// Messages posted to other shards, ever.
    pub(crate) posted: u64,
    /// Messages received from other shards, ever.
    pub(crate) received: u64,
    /// What the application was told, ever.
    pub(crate) told: u64,
    /// Nothing is left to do.
    pub(crate) is_idle: bool,
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
    /// The last freezing in which it sent nothing any more.
    still_in: AtomicU64,
}

impl Record {
    /// To be said before anything is taken from anywhere.
    pub(crate) fn turn_begins(&self) {
        self.turn.store(self.turn.load(SeqCst) | 1, SeqCst);
    }

    pub(crate) fn turn_ends(&self, said: Said) {
        self.order.store(said.order, SeqCst);
        self.posted.store(said.posted, SeqCst);
        self.received.store(said.received, SeqCst);
        self.told.store(said.told, SeqCst);
        self.is_idle.store(u64::from(said.is_idle), SeqCst);
        self.turn.store((self.turn.load(SeqCst) | 1) + 1, SeqCst);
    }

    /// Nothing is sent any more.
    pub(crate) fn is_still(&self, order: Order) {
        self.still_in.store(order.number, SeqCst);
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

    /// After it nothing thaws.
    pub(crate) fn let_go(&mut self, cell: &OrderCell) {
        self.last = None;
        cell.set(cell.get().let_go());
    }

    /// Looks at the shards, and orders what comes next if it is time. `has_posted`: the bridge has
    /// messages for shards that are not taken yet.
    pub(crate) fn step<'a>(
        &mut self,
        cell: &OrderCell,
        mut records: impl Iterator<Item = &'a Record> + Clone,
        has_posted: bool,
    ) -> Freeze {
        let order = cell.get();
        match order.phase {
            Phase::Runs => Freeze::Settling,
            Phase::Settles => {
                let now: Option<Vec<Said>> = records.clone().map(Record::read).collect();
                if !has_posted && self.has_settled(now, order.number) {
                    cell.set(order.still());
                    return Freeze::Stilling;
                }
                Freeze::Settling
            }
            Phase::Still | Phase::Gone => {
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

        fn step(&mut self) -> Freeze {
            self.watch.step(&self.cell, self.records.iter(), false)
        }
    }

    #[test]
    fn a_message_between_two_shards_keeps_the_node_from_having_settled() {
        let mut shards = Shards::freezing(2);
        shards.says(0, 5, 2, 9, true);
        shards.says(1, 2, 4, 9, true);
        for _ in 0..3 {
            assert_eq!(shards.step(), Freeze::Settling, "one of five is under way");
        }
        shards.records[1].turn_begins();
        assert_eq!(shards.step(), Freeze::Settling, "it is being handled");
        shards.says(1, 3, 5, 10, true);
        assert_eq!(shards.step(), Freeze::Settling, "it was answered");
        assert_eq!(shards.step(), Freeze::Settling);
        shards.says(0, 5, 3, 10, true);
        assert_eq!(shards.step(), Freeze::Settling, "looked at once");
        assert_eq!(shards.step(), Freeze::Stilling, "looked at twice");
    }

    #[test]
    fn what_changes_between_two_looks_is_looked_at_again() {
        let mut shards = Shards::freezing(2);
        // Sums that are equal only because the looks fell into one exchange.
        shards.says(0, 1, 0, 1, true);
        shards.says(1, 0, 1, 1, true);
        assert_eq!(shards.step(), Freeze::Settling);
        shards.says(1, 1, 1, 2, true);
        shards.says(0, 1, 1, 2, true);
        assert_eq!(shards.step(), Freeze::Settling, "both moved");
        shards.says(0, 1, 1, 2, false);
        assert_eq!(shards.step(), Freeze::Settling, "one has something left");
        assert_eq!(shards.step(), Freeze::Settling);
        // Turns in which the application heard nothing, as those that only send, do no harm.
        shards.says(0, 1, 1, 2, true);
        assert_eq!(shards.step(), Freeze::Settling);
        shards.says(0, 1, 1, 2, true);
        assert_eq!(shards.step(), Freeze::Stilling);
    }

    #[test]
    fn what_was_said_in_an_earlier_freezing_counts_for_nothing() {
        let mut shards = Shards::freezing(1);
        shards.says(0, 0, 0, 1, true);
        assert_eq!(shards.step(), Freeze::Settling);
        assert_eq!(shards.step(), Freeze::Stilling);
        shards.records[0].is_still(shards.cell.get());
        assert_eq!(shards.step(), Freeze::Still);
        shards.watch.thaw(&shards.cell);
        shards.watch.freeze(&shards.cell);
        for _ in 0..3 {
            assert_eq!(shards.step(), Freeze::Settling);
        }
    }
}
