//! Faults that tests plant in what is between nodes, to see that they are found.
//!
//! Owns: `Fault`, and which one is planted; outside of tests none ever is: nothing but `Planted` plants
//! one, and no input of a node reaches that.
//! May depend on: nothing.
//! Invariants: a fault is planted for the thread of one test only, and for as long as its guard lives.

use std::cell::Cell;

/// What can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A delta that a snapshot holds already is applied again.
    DeltaTwice,
    /// A gap is not looked at.
    ResyncSkipped,
    /// Deltas that waited for a snapshot are thrown away.
    HeldForgotten,
    /// What an ended life held stays.
    OldLifeKept,
    /// Heartbeats' sums are not compared.
    SumIgnored,
    /// What was held goes before the snapshot is taken.
    NotAsDifference,
    /// What is not in a snapshot stays.
    PruneSkipped,
    /// A question without an answer is not repeated.
    AskedOnce,
    /// A count that waited is never told.
    CountForgotten,
    /// A lost part of a snapshot is not missed.
    PartsUnchecked,
    /// A place among the holders is given again before it is empty.
    SeatFreedEarly,
    /// A snapshot of a moment gets the number of a later one.
    SnapshotNumberLate,
    /// A peer that is silent stays for ever.
    LeaseForEver,
    /// Leases run out though this node hears nothing itself.
    LeaseWhileLate,
    /// A goodbye is not heard.
    GoodbyeIgnored,
    /// A batch that came twice is taken twice.
    DoublesTaken,
    /// A topic is told live before the bus has confirmed it.
    TopicLiveEarly,
    /// A channel is told vacant when one of the others has left it.
    VacatedEarly,
    /// A member is told to have left with each node that it left.
    MemberLeftTwice,
    /// Snapshots of one half of the groups are not sent.
    SnapshotsLost,
    /// A node counts as an owner as soon as it comes.
    OwnerAtOnce,
    /// A process that takes a node's place numbers its batches from the beginning.
    CarriedLanesAnew,
    /// It takes again what the process before has heard.
    CarriedHeardForgotten,
    /// A peer that has ended while it followed comes back with what it said before.
    CarriedPeerBack,
    /// The lease of a peer that it was told of never runs out.
    CarriedLeaseForgotten,
    /// Nodes that did not count as owners yet count at once.
    CarriedWaitForgotten,
    /// What the process before kept unread is not told.
    CarriedHeldLost,
    /// A process that goes on after all forgets what it kept unread.
    ReleasedHeldLost,
}

thread_local! {
    static PLANTED: Cell<Option<Fault>> = const { Cell::new(None) };
}

// One load; asked per batch, delta and tick, and never per event.
pub(crate) fn is_planted(fault: Fault) -> bool {
    PLANTED.get() == Some(fault)
}

/// While it lives the fault is there.
#[derive(Debug)]
pub struct Planted(());

impl Planted {
    /// Of tests only.
    pub fn new(fault: Fault) -> Self {
        PLANTED.set(Some(fault));
        Self(())
    }
}

impl Drop for Planted {
    fn drop(&mut self) {
        PLANTED.set(None);
    }
}

/// Those that the tests of what is carried find.
#[cfg(test)]
pub(super) const OF_CARRYING: [Fault; 4] = [
    Fault::CarriedLanesAnew,
    Fault::CarriedHeardForgotten,
    Fault::CarriedLeaseForgotten,
    Fault::CarriedWaitForgotten,
];

/// Those that the state's own tests find.
#[cfg(test)]
pub(super) const OF_STATE: [Fault; 12] = [
    Fault::DeltaTwice,
    Fault::ResyncSkipped,
    Fault::HeldForgotten,
    Fault::OldLifeKept,
    Fault::SumIgnored,
    Fault::NotAsDifference,
    Fault::PruneSkipped,
    Fault::AskedOnce,
    Fault::CountForgotten,
    Fault::PartsUnchecked,
    Fault::SeatFreedEarly,
    Fault::SnapshotNumberLate,
];
