//! Nodes of several shards, simulated, one alone or several with a bus between them: the real application on a virtual clock, a mesh whose
//! deliveries interleave by chance, and clients that check every frame. All chance comes from a seed.
//!
//! Entry points: `workload::run` is one run; `node` and `turn` take the runtime's place; `client`,
//! `ledger`, `hooks` and `world` hold the invariants.

#![expect(
    clippy::print_stdout,
    reason = "what a test measured is read beside its name"
)]
#![expect(
    clippy::cast_possible_truncation,
    reason = "numbers of a test are its own"
)]
#![expect(
    clippy::disallowed_methods,
    reason = "a soak lasts so many real seconds, as its environment says"
)]

mod api;
mod api_bodies;
mod api_drain;
mod api_order;
mod api_reading;
mod client;
mod cluster;
mod dice;
mod full_bus;
mod hooks;
mod ledger;
mod node;
mod nodes;
mod outage;
mod plan;
mod planted;
mod replaced;
mod replaced_scene;
mod scale;
mod scene;
#[path = "../support/sign.rs"]
#[expect(dead_code, reason = "the end-to-end tests use the rest")]
mod sign;
mod slow_backend;
mod stadium;
mod stranger;
mod trouble;
mod turn;
mod wire;
mod work;
mod workload;
mod world;

use std::{
    cell::{Cell, RefCell},
    panic::{self, AssertUnwindSafe},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Seeds that each size of node gets, the same each time: fresh ones are for `scripts/soak`.
const SEEDS: u64 = 400;
/// Those of several nodes.
const CLUSTER_SEEDS: u64 = 100;
/// Those of several nodes of which some die, on a bus that fails.
const TROUBLE_SEEDS: u64 = 200;
/// Of each of both, with cache channels.
const CACHE_SEEDS: u64 = 30;
/// The same, with processes that are replaced, and the first of them.
const REPLACED_SEEDS: u64 = 100;
const FIRST_REPLACED: u64 = 6_000;
const FIRST: u64 = 7_000_000;
/// After so many failures a soak has seen enough.
const FAILURES_MAX: usize = 10;

thread_local! {
    /// Where and why the run of this thread failed.
    static FAILURE: RefCell<Option<String>> = const { RefCell::new(None) };
    static IS_RUNNING: Cell<bool> = const { Cell::new(false) };
}

/// Runs a seed; a failure is one line that says how to replay it.
fn try_seed<T>(seed: u64, run: fn(u64, &Cell<u64>) -> T) -> Result<T, String> {
    let step = Cell::new(0);
    IS_RUNNING.set(true);
    let result = panic::catch_unwind(AssertUnwindSafe(|| run(seed, &step)));
    IS_RUNNING.set(false);
    result.map_err(|_| {
        let failure = FAILURE.take().unwrap_or_default();
        format!(
            "seed {seed}, step {}: {failure}; replay: SIMULATION_SEED={seed} scripts/test simulation",
            step.get()
        )
    })
}

/// Keeps the panic's message for that line.
fn catch_failures() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !IS_RUNNING.get() {
                return usual(info);
            }
            let message = info
                .payload_as_str()
                .unwrap_or("a panic")
                .replace('\n', " ");
            let place = info.location().map(ToString::to_string).unwrap_or_default();
            FAILURE.set(Some(format!("{message} ({place})")));
        }));
    });
}

fn must_hold(seed: u64) -> u64 {
    catch_failures();
    try_seed(seed, workload::run).unwrap_or_else(|failure| panic!("{failure}"))
}

/// The seeds of the node size of `residue`, or the one that the environment names.
fn hold_for_size(residue: u64) {
    if let Some(seed) = named_seed() {
        if !cluster::is_of_cluster(seed) && seed % 4 == residue {
            must_hold(seed);
        }
        return;
    }
    match soak_time() {
        Some(time) => {
            let shards = plan::SHARD_COUNTS[residue as usize];
            soak(&format!("{shards} shards"), residue, 4, time, workload::run);
        }
        None => (0..SEEDS).for_each(|number| {
            must_hold(FIRST + 4 * number + residue);
        }),
    }
}

/// Fresh seeds for so long, also after one that failed; tells how many there were, and all failures.
fn soak(of: &str, base: u64, step: u64, time: Duration, run: fn(u64, &Cell<u64>) -> u64) {
    catch_failures();
    let started = Instant::now();
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("the clock is past 1970");
    let first = since.as_nanos() as u64 / 1_000 % 1_000_000_000 * 4 + base;
    let (mut count, mut failures) = (0, Vec::new());
    while started.elapsed() < time && failures.len() < FAILURES_MAX {
        if let Err(failure) = try_seed(first + step * count, run) {
            println!("{failure}");
            failures.push(failure);
        }
        count += 1;
    }
    println!(
        "{of}: {count} seeds from {first} in steps of {step}, {} failed",
        failures.len()
    );
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// `SIMULATION_SECONDS` asks for a soak of each size.
fn soak_time() -> Option<Duration> {
    let seconds = std::env::var("SIMULATION_SECONDS").ok()?;
    let seconds = seconds.parse().expect("SIMULATION_SECONDS is a number");
    Some(Duration::from_secs(seconds))
}

fn named_seed() -> Option<u64> {
    let seed = std::env::var("SIMULATION_SEED").ok()?;
    Some(seed.parse().expect("SIMULATION_SEED is a number"))
}

#[test]
fn simulation_of_one_shard_keeps_every_promise() {
    hold_for_size(0);
}

#[test]
fn simulation_of_two_shards_keeps_every_promise() {
    hold_for_size(1);
}

#[test]
fn simulation_of_three_shards_keeps_every_promise() {
    hold_for_size(2);
}

#[test]
fn simulation_of_seven_shards_keeps_every_promise() {
    hold_for_size(3);
}

#[test]
fn simulation_of_many_nodes_keeps_every_promise() {
    hold_from("calm nodes", cluster::FIRST, CLUSTER_SEEDS);
}

#[test]
fn simulation_of_nodes_that_die_on_a_bus_that_fails_keeps_every_promise() {
    hold_from("troubled nodes", cluster::FIRST_OF_TROUBLE, TROUBLE_SEEDS);
}

#[test]
fn simulation_of_many_nodes_with_cache_channels_keeps_every_promise() {
    let first = cluster::FIRST_WITH_CACHES;
    hold_from("calm caching nodes", first, CACHE_SEEDS);
}

#[test]
fn simulation_of_nodes_that_die_with_cache_channels_keeps_every_promise() {
    let first = cluster::FIRST_OF_TROUBLE_WITH_CACHES;
    hold_from("troubled caching nodes", first, CACHE_SEEDS);
}

#[test]
fn simulation_finds_each_fault_that_is_planted_between_nodes() {
    catch_failures();
    planted::check();
}

/// Whether a seed is of the kind that begins there.
fn is_from(first: u64, seed: u64) -> bool {
    seed / cluster::FIRST == first / cluster::FIRST
}

/// So many seeds of clusters from there on, or the one of them that the environment names.
fn hold_from(of: &str, first: u64, count: u64) {
    match (named_seed(), soak_time()) {
        (Some(seed), _) => {
            Some(seed)
                .filter(|seed| is_from(first, *seed))
                .map(must_hold);
        }
        (None, Some(time)) => soak(of, first, 1, time, workload::run),
        (None, None) => (first..first + count).for_each(|seed| {
            must_hold(seed);
        }),
    }
}

#[test]
fn simulation_of_seeds_that_once_failed_keeps_every_promise() {
    catch_failures();
    for line in include_str!("regressions.txt").lines() {
        let mut words = line.split_whitespace();
        let (seed, run): (_, fn(u64, &Cell<u64>) -> u64) = match words.next() {
            None | Some("#") => continue,
            Some("replaced") => (words.next(), replaced_in_trouble),
            seed => (seed, workload::run),
        };
        let seed = seed.and_then(|seed| seed.parse().ok());
        let seed = seed.expect("a line begins with a seed");
        if let Err(failure) = try_seed(seed, run) {
            panic!("{failure}");
        }
    }
}

#[test]
fn simulation_of_one_seed_twice_leaves_the_same_trace() {
    for seed in 1_000..1_008 {
        assert_eq!(must_hold(seed), must_hold(seed), "seed {seed}");
    }
}

#[test]
fn simulation_of_shards_that_are_put_down_and_restored_leaves_the_same_trace() {
    catch_failures();
    for seed in 2_000..2_016 {
        let restored = try_seed(seed, workload::run_restored);
        let restored = restored.unwrap_or_else(|failure| panic!("restored: {failure}"));
        assert_eq!(restored, must_hold(seed), "seed {seed}");
    }
}

#[test]
fn simulation_of_a_node_whose_process_is_replaced_keeps_every_promise() {
    catch_failures();
    let seeds = match named_seed() {
        Some(seed) if cluster::is_of_cluster(seed) => return,
        Some(seed) => seed..seed + 1,
        None => 3_000..3_064,
    };
    for seed in seeds {
        if let Err(failure) = try_seed(seed, workload::run_replaced) {
            panic!("replaced: {failure}");
        }
    }
}

#[test]
fn simulation_of_a_node_of_a_cluster_whose_process_is_replaced_keeps_every_promise() {
    catch_failures();
    let first = cluster::FIRST + FIRST_REPLACED;
    let seeds = match named_seed() {
        Some(seed) if !is_from(cluster::FIRST, seed) => return,
        Some(seed) => seed..seed + 1,
        None => first..first + 24,
    };
    let count = seeds.clone().count() as u64;
    let replaced = seeds.map(|seed| {
        let replaced = try_seed(seed, workload::run_replaced_in_cluster);
        replaced.unwrap_or_else(|failure| panic!("replaced: {failure}"))
    });
    let replaced: u64 = replaced.sum();
    assert!(replaced >= count, "{replaced} times in {count} runs");
}

/// How often it was.
fn replaced_in_trouble(seed: u64, step: &Cell<u64>) -> u64 {
    workload::run_replaced_in_trouble(seed, step)[0]
}

#[test]
fn simulation_of_nodes_that_die_while_processes_are_replaced_keeps_every_promise() {
    catch_failures();
    let first = cluster::FIRST_OF_TROUBLE;
    let seeds = match (named_seed(), soak_time()) {
        (Some(seed), _) if !is_from(first, seed) => return,
        (Some(seed), _) => seed..seed + 1,
        (None, Some(time)) => return soak("replaced nodes", first, 1, time, replaced_in_trouble),
        (None, None) => {
            let first = first + FIRST_REPLACED;
            first..first + REPLACED_SEEDS
        }
    };
    let (mut replaced, mut left) = (0, 0);
    for seed in seeds.clone() {
        let both = try_seed(seed, workload::run_replaced_in_trouble);
        let both = both.unwrap_or_else(|failure| panic!("replaced: {failure}"));
        (replaced, left) = (replaced + both[0], left + both[1]);
    }
    println!("{replaced} times, and {left} times it came to nothing");
    let count = seeds.count() as u64;
    assert!(count == 1 || replaced > count / 2 && left > count / 4);
}

#[test]
fn simulation_of_a_stadium_keeps_a_small_channel_flowing() {
    catch_failures();
    for seed in [4, 5, 6] {
        if let Err(failure) = try_seed(seed, stadium::run) {
            panic!("stadium: {failure}");
        }
    }
}
