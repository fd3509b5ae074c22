//! Messages between shards, and the balance of connections.
//!
//! Owns: the tests of the mesh over a whole runtime.
//! May depend on: shards, tests/support.
//! Invariants: no test sleeps; each waits for a condition with a deadline.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "each wait has a deadline; what shards saw is read by the test"
)]

mod support;

use shards::{BridgeLink, Config, ShardId, run};
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
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

/// Connects, and learns which shard has the connection.
fn connect_and_ask(address: SocketAddr) -> (TcpStream, usize) {
    let mut stream = connect(address);
    stream.write_all(b"?").expect("written");
    let mut shard = [0];
    stream.read_exact(&mut shard).expect("answered");
    (stream, usize::from(shard[0]))
}

#[test]
fn a_shard_with_far_more_connections_hands_fresh_ones_over() {
    let facts = Arc::new(Facts::default());
    let (made, counted) = (facts.clone(), facts.clone());
    let make = move |shard| Probe::new(shard, Mode::Who, made.clone());
    run(config(2), make, |link: BridgeLink<Probe>| async move {
        let address = link.addresses()[0];
        let client = tokio::task::spawn_blocking(move || {
            let all: Vec<_> = (0..500).map(|_| connect_and_ask(address)).collect();
            let (closing, mut kept): (Vec<_>, Vec<_>) =
                all.into_iter().partition(|(_, shard)| *shard == 0);
            let gone = closing.len() as u64;
            drop(closing);
            assert!(gone.abs_diff(250) <= 64, "{gone} of 500 went to shard 0");
            wait_until("closed", || counted.closed.load(SeqCst) == gone);
            // Shard 1 is far above the mean now, and the kernel still gives it every other one.
            let mut fresh = [0, 0];
            for _ in 0..100 {
                let (stream, shard) = connect_and_ask(address);
                fresh[shard] += 1;
                kept.push((stream, shard));
            }
            (gone, fresh)
        });
        let (gone, fresh) = client.await.expect("the client is well");
        link.send(ShardId(1), b"counters".to_vec()).expect("room");
        let asked = facts.clone();
        let counters = tokio::task::spawn_blocking(move || {
            wait_until("counted", || {
                !asked.counters.lock().expect("unpoisoned").is_empty()
            });
            asked.counters.lock().expect("unpoisoned")[&1].clone()
        });
        let counters = counters.await.expect("counted");
        let seen = (gone, fresh, counters.accepted, counters.handed_over);
        assert!(counters.handed_over >= 20, "{seen:?}");
        assert!(
            fresh[0] >= 95,
            "gone, fresh per shard, accepted, handed over: {seen:?}"
        );
    })
    .expect("the runtime starts");
}
