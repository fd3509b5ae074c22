//! Faults that are planted between the nodes, to see that the seeds of clusters find them.

use sockudo::cluster::fault::{Fault, Planted};

use crate::{
    cluster::{FIRST, FIRST_OF_TROUBLE},
    try_seed, workload,
};

const PLANTED: [Fault; 13] = [
    Fault::LeaseForEver,
    Fault::LeaseWhileLate,
    Fault::GoodbyeIgnored,
    Fault::DoublesTaken,
    Fault::TopicLiveEarly,
    Fault::VacatedEarly,
    Fault::MemberLeftTwice,
    Fault::SnapshotsLost,
    Fault::OwnerAtOnce,
    Fault::ResyncSkipped,
    Fault::OldLifeKept,
    Fault::SumIgnored,
    Fault::PruneSkipped,
];
/// Within so many of the fixed seeds a fault is found.
const SEEDS_MAX: u64 = 40;

/// The first of the seeds that finds a fault, and how.
pub(crate) fn find(fault: Fault) -> Option<String> {
    let _planted = Planted::new(fault);
    let seeds = (0..SEEDS_MAX).flat_map(|number| [FIRST_OF_TROUBLE + number, FIRST + number]);
    let mut failures = seeds.map(|seed| try_seed(seed, workload::run));
    failures.find_map(Result::err)
}

pub(crate) fn check() {
    let mut unfound = Vec::new();
    for fault in PLANTED {
        match find(fault) {
            Some(how) => println!("{fault:?}: {how}"),
            None => unfound.push(fault),
        }
    }
    assert!(unfound.is_empty(), "no seed finds {unfound:?}");
}
