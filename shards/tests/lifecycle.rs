//! Many connections, abrupt ends, idling, stopping, the bridge.
//!
//! Owns: the tests of a whole runtime's life.
//! May depend on: shards, tests/support.
//! Invariants: no test sleeps but the one that measures an idle second.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "each wait has a deadline; what shards saw is read by the test"
)]

mod support;

use shards::{BridgeLink, ShardId, StartError, run};
use socket2::SockRef;
use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::{Arc, atomic::Ordering::SeqCst},
    thread,
    time::{Duration, Instant},
};
use support::{Facts, Mode, Probe, config, connect, serve, wait_until};

#[test]
fn two_thousand_abrupt_resets_leave_no_connection_and_tell_each_end_once() {
    let facts = Arc::new(Facts::default());
    let counted = facts.clone();
    serve(config(2), Mode::Echo, &facts, move |address| {
        let clients: Vec<_> = (0..4)
            .map(|client| {
                thread::spawn(move || {
                    for round in 0..500 {
                        let mut stream = connect(address);
                        SockRef::from(&stream)
                            .set_linger(Some(Duration::ZERO))
                            .expect("linger");
                        if (client + round) % 2 == 0 {
                            stream.write_all(&[b'x'; 3_000]).expect("written");
                            if round % 3 == 0 {
                                let _ = stream.read(&mut [0; 100]);
                            }
                        }
                    }
                })
            })
            .collect();
        clients
            .into_iter()
            .for_each(|client| client.join().expect("a client"));
        // A connection that was reset before its accept may never be seen: count what was seen.
        wait_until("all told", || {
            let accepted = counted.accepted.load(SeqCst);
            accepted > 1_900 && counted.closed.load(SeqCst) == accepted
        });
    });
    assert_eq!(facts.accepted.load(SeqCst), facts.closed.load(SeqCst));
}

#[test]
fn stopping_ends_every_connection_before_run_returns() {
    let facts = Arc::new(Facts::default());
    let counted = facts.clone();
    let started = Instant::now();
    let streams = serve(config(2), Mode::Echo, &facts, move |address| {
        let streams: Vec<TcpStream> = (0..100).map(|_| connect(address)).collect();
        wait_until("accepted", || counted.accepted.load(SeqCst) == 100);
        streams
    });
    assert_eq!(facts.closed.load(SeqCst), 100);
    for mut stream in streams {
        assert!(matches!(stream.read(&mut [0; 1]), Ok(0) | Err(_)));
    }
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_port_that_was_given_up_refuses_connections() {
    let facts = Arc::new(Facts::default());
    let counted = facts.clone();
    let make = move |shard| Probe::new(shard, Mode::Echo, facts.clone());
    run(config(2), make, move |link: BridgeLink<Probe>| async move {
        let address = link.addresses()[0];
        let kept = connect(address);
        wait_until("accepted", || counted.accepted.load(SeqCst) == 1);
        link.stop_accepting();
        let refused = tokio::task::spawn_blocking(move || {
            wait_until("refused", || TcpStream::connect(address).is_err());
            let mut kept = kept;
            kept.write_all(b"still here").expect("written");
            let mut got = [0; 10];
            kept.read_exact(&mut got).expect("connections stay");
            got
        });
        assert_eq!(&refused.await.expect("the client is well"), b"still here");
    })
    .expect("the runtime starts");
}

#[test]
fn a_bridge_that_has_ended_waits_for_nothing_that_blocks() {
    let facts = Arc::new(Facts::default());
    let make = move |shard| Probe::new(shard, Mode::Echo, facts.clone());
    let (open, gate) = std::sync::mpsc::channel::<()>();
    run(config(1), make, |_link: BridgeLink<Probe>| async move {
        let (begun, begins) = tokio::sync::oneshot::channel();
        tokio::task::spawn_blocking(move || {
            _ = begun.send(());
            _ = gate.recv_timeout(Duration::from_secs(30));
        });
        begins.await.expect("it has begun");
    })
    .expect("the runtime starts");
    assert!(open.send(()).is_ok(), "it was waited for");
}

#[test]
fn what_the_bridge_sends_to_each_shard_comes_back_in_order() {
    let facts = Arc::new(Facts::default());
    let make = move |shard| Probe::new(shard, Mode::Echo, facts.clone());
    run(config(3), make, |mut link: BridgeLink<Probe>| async move {
        assert_eq!(link.shards(), 3);
        assert_eq!(link.cores(), [None; 3]);
        for number in 0_u32..3_000 {
            let to = ShardId((number % 3) as u16);
            let message = number.to_le_bytes().to_vec();
            let sent = match number {
                ..1_500 => link.send(to, message),
                _ => link.post(to, message),
            };
            sent.expect("room for 1000");
        }
        link.ring();
        let mut next = [0_u32, 1, 2];
        let mut seen = 0;
        let mut messages = Vec::new();
        while seen < 3_000 {
            link.receive(&mut messages).await;
            assert!(!messages.is_empty());
            seen += messages.len();
            for (shard, bytes) in messages.drain(..) {
                let expected = &mut next[usize::from(shard.0)];
                assert_eq!(bytes, expected.to_le_bytes());
                *expected += 3;
            }
        }
        assert!((0..3).all(|shard| link.last_turn_ms(ShardId(shard)) > 0));
    })
    .expect("the runtime starts");
}

#[test]
fn a_full_queue_to_a_shard_gives_the_message_back() {
    let facts = Arc::new(Facts::default());
    let make = move |shard| Probe::new(shard, Mode::Echo, facts.clone());
    let settings = shards::Config {
        bridge_messages_max: 1,
        ..config(1)
    };
    run(settings, make, |mut link: BridgeLink<Probe>| async move {
        let mut refused = 0_u32;
        let mut messages = Vec::new();
        let deadline = Instant::now() + Duration::from_secs(20);
        while refused == 0 {
            assert!(Instant::now() < deadline, "a queue of one is never full");
            if let Err(full) = link.send(ShardId(0), b"tick".to_vec()) {
                assert_eq!(full.0, b"tick");
                refused += 1;
            }
        }
        let answered = loop {
            if link.send(ShardId(0), b"end".to_vec()).is_ok() {
                link.receive(&mut messages).await;
                break messages;
            }
        };
        assert_eq!(answered, [(ShardId(0), b"end".to_vec())]);
    })
    .expect("the runtime starts");
}

#[test]
fn events_that_wait_for_room_arrive_as_soon_as_the_bridge_makes_some() {
    let facts = Arc::new(Facts::default());
    let make = move |shard| Probe::new(shard, Mode::Echo, facts.clone());
    let settings = shards::Config {
        bridge_messages_max: 4, // On their way; the others wait on the shard, which then sleeps.
        ..config(1)
    };
    run(settings, make, |mut link: BridgeLink<Probe>| async move {
        for number in 0_u32..500 {
            let message = [b"event".as_slice(), &number.to_le_bytes()].concat();
            let deadline = Instant::now() + Duration::from_secs(20);
            while link.send(ShardId(0), message.clone()).is_err() {
                assert!(Instant::now() < deadline, "the shard takes nothing");
            }
        }
        let mut messages = Vec::new();
        while messages.len() < 500 {
            let received =
                tokio::time::timeout(Duration::from_secs(20), link.receive(&mut messages));
            received.await.expect("what waits arrives");
        }
        let numbers = messages.iter().map(|(_, message)| &message[5..]);
        let expected = (0_u32..500).map(u32::to_le_bytes);
        assert!(numbers.eq(expected), "in order, and all");
    })
    .expect("the runtime starts");
}

#[test]
fn an_address_that_cannot_be_had_stops_the_start_and_is_named() {
    let facts = Arc::new(Facts::default());
    let settings = shards::Config {
        listen: vec!["192.0.2.7:4".parse().expect("an address")],
        ..config(2)
    };
    let make = move |shard| Probe::new(shard, Mode::Echo, facts.clone());
    let error = run(settings, make, |_link: BridgeLink<Probe>| async {}).expect_err("not ours");
    assert!(matches!(error, StartError::Bind { .. }));
    assert!(error.to_string().contains("192.0.2.7:4"), "{error}");
}

/// The turns that each shard has taken, this question's among them.
fn turns(link: &BridgeLink<Probe>, facts: &Facts) -> Vec<u64> {
    let counters = || facts.counters.lock().expect("unpoisoned");
    counters().clear();
    for shard in 0..link.shards() {
        let sent = link.send(ShardId(shard), b"counters".to_vec());
        sent.expect("room");
    }
    wait_until("counted", || counters().len() == usize::from(link.shards()));
    (0..link.shards())
        .map(|shard| counters()[&shard].turns)
        .collect()
}

#[test]
fn a_hundred_idle_connections_take_no_turns() {
    let facts = Arc::new(Facts::default());
    let counted = facts.clone();
    let make = move |shard| Probe::new(shard, Mode::Timer, facts.clone());
    run(config(2), make, |link: BridgeLink<Probe>| async move {
        let address = link.addresses()[0];
        let client = tokio::task::spawn_blocking(move || {
            let mut streams: Vec<_> = (0..100).map(|_| connect(address)).collect();
            // Each has a timer that is far away.
            streams
                .iter_mut()
                .for_each(|stream| stream.write_all(b"100000").expect("written"));
            wait_until("armed", || counted.armed.load(SeqCst) == 100);
            let before = turns(&link, &counted);
            let began = Instant::now();
            while began.elapsed() < Duration::from_secs(1) {
                thread::park_timeout(Duration::from_millis(500));
            }
            let after = turns(&link, &counted);
            for (before, after) in before.iter().zip(&after) {
                // What was on its way when the first question came, and the second question.
                assert!(
                    after - before <= IDLE_TURNS_MAX,
                    "{before} to {after} turns"
                );
            }
        });
        client.await.expect("the client is well");
    })
    .expect("the runtime starts");
}

const IDLE_TURNS_MAX: u64 = 5;

#[test]
fn an_idle_shard_ticks_when_asked_to() {
    let facts = Arc::new(Facts::default());
    let counted = facts.clone();
    let make = move |shard| Probe::new(shard, Mode::Echo, facts.clone());
    run(config(1), make, |link: BridgeLink<Probe>| async move {
        link.send(ShardId(0), b"tick".to_vec()).expect("room");
        let began = Instant::now();
        let ticked = tokio::task::spawn_blocking(move || {
            wait_until("ten ticks", || counted.ticks.load(SeqCst) >= 10);
        });
        ticked.await.expect("ticked");
        assert!(
            began.elapsed() >= Duration::from_millis(850),
            "{:?}",
            began.elapsed()
        );
    })
    .expect("the runtime starts");
}

#[test]
fn timers_fire_and_never_early() {
    let facts = Arc::new(Facts::default());
    let counted = facts.clone();
    serve(config(2), Mode::Timer, &facts, move |address| {
        let delays = [1_u64, 99, 100, 101, 150, 333, 900, 1_200];
        let waits: Vec<_> = delays
            .into_iter()
            .map(|delay| {
                thread::spawn(move || {
                    let mut stream = connect(address);
                    let began = Instant::now();
                    stream
                        .write_all(delay.to_string().as_bytes())
                        .expect("written");
                    stream.read_exact(&mut [0; 1]).expect("fired");
                    let waited = began.elapsed();
                    assert!(
                        waited >= Duration::from_millis(delay),
                        "{delay}: {waited:?}"
                    );
                })
            })
            .collect();
        waits
            .into_iter()
            .for_each(|wait| wait.join().expect("fired"));
        assert_eq!(counted.timers.load(SeqCst), 8);
    });
    assert_eq!(facts.early_timers.load(SeqCst), 0);
}

#[test]
fn accepting_rests_when_descriptors_run_out_and_goes_on_afterwards() {
    let facts = Arc::new(Facts::default());
    let counted = facts.clone();
    let limit = libc::rlimit {
        rlim_cur: 120,
        rlim_max: 120,
    };
    // SAFETY: a valid limit; each test has a process of its own under nextest.
    let set = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
    assert_eq!(set, 0);
    let make = move |shard| Probe::new(shard, Mode::Echo, facts.clone());
    run(config(1), make, |link: BridgeLink<Probe>| async move {
        let address = link.addresses()[0];
        let client = tokio::task::spawn_blocking(move || {
            // Client and server share the limit: connect until a connect or an accept finds none.
            let mut streams: Vec<TcpStream> = Vec::new();
            while let Ok(stream) = TcpStream::connect(address) {
                streams.push(stream);
            }
            let before = turns(&link, &counted)[0];
            let failed = |counters: &shards::RuntimeCounters| counters.accept_failures;
            let mut questions = 0;
            wait_until("two failed accepts", || {
                link.send(ShardId(0), b"counters".to_vec()).expect("room");
                questions += 1;
                counted
                    .counters
                    .lock()
                    .expect("unpoisoned")
                    .values()
                    .map(failed)
                    .sum::<u64>()
                    >= 2
            });
            drop(streams);
            let after = turns(&link, &counted)[0];
            let asked = questions + 1;
            assert!(
                after - before <= asked + RESTING_TURNS_MAX,
                "spinning on accept: {} turns, {asked} of them asked for",
                after - before
            );
            wait_until("served again", || {
                let Ok(mut stream) = TcpStream::connect(address) else {
                    return false;
                };
                let timeout = Some(Duration::from_secs(1));
                stream.set_read_timeout(timeout).expect("a timeout");
                stream.write_all(b"x").is_ok() && stream.read_exact(&mut [0; 1]).is_ok()
            });
        });
        client.await.expect("the client is well");
    })
    .expect("the runtime starts");
}

/// Those of connections that were still on their way, and of the rests.
const RESTING_TURNS_MAX: u64 = 200;

#[test]
fn a_panic_on_a_shard_takes_the_process_down() {
    const CHILD: &str = "SHARDS_TEST_PANICS";
    let name = "a_panic_on_a_shard_takes_the_process_down";
    if std::env::var_os(CHILD).is_some() {
        // A timer's delay that is no number makes the probe panic.
        serve(
            config(1),
            Mode::Timer,
            &Arc::new(Facts::default()),
            |address| {
                let mut stream = connect(address);
                stream.write_all(b"junk").expect("written");
                let _ = stream.read(&mut [0; 1]);
            },
        );
        return;
    }
    let program = std::env::current_exe().expect("this program");
    let child = std::process::Command::new(program)
        .args(["--exact", name, "--nocapture"])
        .env(CHILD, "1")
        .output()
        .expect("it runs");
    let stderr = String::from_utf8_lossy(&child.stderr);
    assert!(!child.status.success());
    assert!(stderr.contains("aborting"), "{stderr}");
}
