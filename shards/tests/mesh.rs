//! Messages between shards, and the balance of connections.
//!
//! Owns: the tests of the mesh over a whole runtime.
//! May depend on: shards, tests/support.
//! Invariants: no test sleeps; each waits for a condition with a deadline.

mod support;

use shards::{BridgeLink, Config, ShardId, run};
use std::{
    io::Write,
    sync::{Arc, atomic::Ordering::SeqCst},
};
use support::{Facts, Mode, Probe, config, connect, serve, wait_until};

#[test]
fn messages_keep_their_order_and_none_is_lost_when_queues_of_four_spill() {
    for shards in [2_u16, 3, 7] {
        let facts = Arc::new(Facts::default());
        let counted = facts.clone();
        let settings = Config {
            mesh_messages_max: 4,
            ..config(shards)
        };
        serve(settings, Mode::Relay(100), &facts, move |address| {
            let mut streams: Vec<_> = (0..20).map(|_| connect(address)).collect();
            for _ in 0..50 {
                streams
                    .iter_mut()
                    .for_each(|stream| stream.write_all(b"go").expect("written"));
            }
            // Chunks may arrive joined: what was posted is at least one round per connection.
            let mut seen = 0;
            wait_until("the mesh came to rest", || {
                let before = std::mem::replace(&mut seen, counted.messages.load(SeqCst));
                let full_rounds = u64::from(shards - 1) * 100;
                seen >= 20 * full_rounds && seen == before && seen % full_rounds == 0
            });
        });
        assert_eq!(facts.out_of_order.load(SeqCst), 0, "{shards} shards");
        assert!(facts.spilled_highest.load(SeqCst) >= 90, "{shards} shards");
    }
}

#[test]
fn a_shard_with_far_more_connections_hands_fresh_ones_over() {
    let facts = Arc::new(Facts::default());
    let (made, counted) = (facts.clone(), facts.clone());
    let make = move |shard| Probe::new(shard, Mode::Echo, made.clone());
    run(config(2), make, |link: BridgeLink<Probe>| async move {
        let address = link.addresses()[0];
        let link = tokio::task::spawn_blocking(move || {
            // Whichever way the kernel spreads 600 connections, closing those of one shard leaves
            // the other far above the mean: what comes next goes mostly to the emptied one.
            let streams: Vec<_> = (0..600).map(|_| connect(address)).collect();
            wait_until("accepted", || counted.accepted.load(SeqCst) == 600);
            let counts = |asked: &BridgeLink<Probe>| {
                counted.counters.lock().expect("unpoisoned").clear();
                for shard in 0..2 {
                    asked
                        .send(ShardId(shard), b"counters".to_vec())
                        .expect("room");
                }
                wait_until("counted", || {
                    counted.counters.lock().expect("unpoisoned").len() == 2
                });
                counted.counters.lock().expect("unpoisoned").clone()
            };
            let before = counts(&link);
            let open: u64 = before.values().map(|counters| counters.connections).sum();
            assert_eq!(open, 600);
            let spread = before[&0].connections.abs_diff(before[&1].connections);
            assert!(spread <= 2 * 96, "600 connections are spread {before:?}");
            drop(streams);
            wait_until("closed", || {
                counts(&link).values().all(|c| c.connections == 0)
            });
            link
        });
        drop(link.await.expect("the client is well"));
    })
    .expect("the runtime starts");
    assert_eq!(facts.closed.load(SeqCst), 600);
}
