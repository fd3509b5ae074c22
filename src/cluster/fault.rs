//! Faults that tests plant in the state's machine, to see that they are found.
//!
//! Owns: `Fault`, and which one is planted; outside of tests none ever is, and the question costs
//! nothing.
//! May depend on: nothing.
//! Invariants: a fault is planted for the thread of one test only, and for as long as its guard lives.

/// What can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
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
}

#[cfg(not(test))]
pub(super) const fn is_planted(_: Fault) -> bool {
    false
}

#[cfg(test)]
pub(super) use planted::{ALL, Planted, is_planted};

#[cfg(test)]
mod planted {
    use std::cell::Cell;

    use super::Fault;

    thread_local! {
        static PLANTED: Cell<Option<Fault>> = const { Cell::new(None) };
    }

    pub(in crate::cluster) const ALL: [Fault; 12] = [
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

    pub(in crate::cluster) fn is_planted(fault: Fault) -> bool {
        PLANTED.get() == Some(fault)
    }

    /// While it lives the fault is there.
    pub(in crate::cluster) struct Planted;

    impl Planted {
        pub(in crate::cluster) fn new(fault: Fault) -> Self {
            PLANTED.set(Some(fault));
            Self
        }
    }

    impl Drop for Planted {
        fn drop(&mut self) {
            PLANTED.set(None);
        }
    }
}
