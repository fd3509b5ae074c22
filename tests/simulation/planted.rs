//! Faults that are planted between the nodes, to see that the seeds of clusters find them.

use sockudo::cluster::fault::{Fault, Planted};

use crate::{
    FIRST_REPLACED,
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
/// Those of a process that takes a node's place.
const PLANTED_IN_CARRYING: [Fault; 2] = [Fault::CarriedLanesAnew, Fault::CarriedHeardForgotten];
/// Within so many of the fixed seeds a fault is found.
const SEEDS_MAX: u64 = 40;

/// The first of the seeds that finds a fault, and how.
pub(crate) fn find(fault: Fault) -> Option<String> {
    let _planted = Planted::new(fault);
    let seeds = (0..SEEDS_MAX).flat_map(|number| [FIRST_OF_TROUBLE + number, FIRST + number]);
    let mut failures = seeds.map(|seed| try_seed(seed, workload::run));
    failures.find_map(Result::err)
}

/// The same, of seeds in which processes are replaced.
fn find_in_carrying(fault: Fault) -> Option<String> {
    let _planted = Planted::new(fault);
    let seeds = FIRST_OF_TROUBLE + FIRST_REPLACED..;
    let seeds = seeds.take(SEEDS_MAX as usize);
    let mut failures = seeds.map(|seed| try_seed(seed, workload::run_replaced_in_trouble));
    failures.find_map(Result::err)
}

pub(crate) fn check() {
    let mut unfound = Vec::new();
    let found = PLANTED.into_iter().map(|fault| (fault, find(fault)));
    let carried = PLANTED_IN_CARRYING.into_iter();
    let carried = carried.map(|fault| (fault, find_in_carrying(fault)));
    for (fault, found) in found.chain(carried) {
        match found {
            Some(how) => println!("{fault:?}: {how}"),
            None => unfound.push(fault),
        }
    }
    assert!(unfound.is_empty(), "no seed finds {unfound:?}");
}
