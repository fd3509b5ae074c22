//! Bytes in, bytes out: echo, slow readers, full outboxes, orderly ends.
//!
//! Owns: the tests of receiving, sending and closing over real loopback sockets.
//! May depend on: shards, tests/support.
//! Invariants: no test sleeps, a reader that is slow apart; each waits for a condition with a
//! deadline.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "each wait has a deadline; what shards saw is read by the test"
)]

mod support;

use shards::{Closed, Config};
use std::{
    io::{Read, Write},
    net::Shutdown,
    sync::{Arc, atomic::Ordering::SeqCst},
    thread,
    time::Duration,
};
use support::{Facts, Mode, config, connect, pattern, read_to_end, serve, wait_until};

#[test]
fn every_byte_comes_back_whatever_the_number_of_shards() {
    for shards in [1, 2, 7] {
        let facts = Arc::new(Facts::default());
        serve(config(shards), Mode::Echo, &facts, move |address| {
            let clients: Vec<_> = (0..8)
                .map(|client: usize| {
                    thread::spawn(move || {
                        let mut stream = connect(address);
                        let sent = pattern(200_000 + client);
                        let mut writer = stream.try_clone().expect("a second handle");
                        let expected = sent.clone();
                        let writing = thread::spawn(move || {
                            for chunk in sent.chunks(777 + client) {
                                writer.write_all(chunk).expect("written");
                            }
                            writer
                        });
                        let mut got = vec![0; expected.len()];
                        stream.read_exact(&mut got).expect("echoed");
                        assert!(got == expected);
                        drop(writing.join());
                    })
                })
                .collect();
            clients
                .into_iter()
                .for_each(|client| client.join().expect("a client"));
        });
        assert_eq!(facts.accepted.load(SeqCst), 8, "{shards} shards");
        assert_eq!(facts.closed.load(SeqCst), 8, "{shards} shards");
    }
}

#[test]
fn a_slow_reader_gets_a_large_answer_whole() {
    let facts = Arc::new(Facts::default());
    let bytes = 24_000_000;
    let settings = Config {
        outbox_bytes_max: 16_777_216,
        ..config(1)
    };
    serve(settings, Mode::Blast(bytes), &facts, move |address| {
        let mut stream = connect(address);
        stream.write_all(b"?").expect("written");
        let mut got = vec![0; bytes];
        for chunk in got.chunks_mut(300_000) {
            stream.read_exact(chunk).expect("more");
            thread::yield_now();
        }
        assert!(got == pattern(bytes));
    });
}

#[test]
fn an_outbox_past_its_bound_says_full_and_drops_only_when_asked() {
    let facts = Arc::new(Facts::default());
    let counted = facts.clone();
    let settings = Config {
        outbox_bytes_max: 50_000,
        burst_bytes_max: 50_000,
        ..config(1)
    };
    serve(settings, Mode::Fill, &facts, move |address| {
        let mut stream = connect(address);
        stream.write_all(b"?").expect("written");
        wait_until("filled", || counted.full.load(SeqCst) > 0);
        let frames = usize::try_from(counted.full.load(SeqCst)).expect("some dozens");
        assert!(
            frames > 50 - 3 + 1,
            "the kernel takes more than it has sent"
        );
        let mut got = vec![0; frames * 1_000 + 3];
        stream.read_exact(&mut got).expect("all that was kept");
        let own = got
            .windows(3)
            .position(|bytes| bytes == b"own")
            .expect("own bytes are kept");
        assert_eq!(own, (frames - 1) * 1_000);
    });
}

#[test]
fn a_prompt_reader_gets_more_in_one_turn_than_its_outbox_may_hold() {
    let facts = Arc::new(Facts::default());
    serve(config(1), Mode::Burst(100), &facts, |address| {
        let mut stream = connect(address);
        stream.write_all(b"?").expect("written");
        let mut got = vec![0; 100 * 100_000];
        stream.read_exact(&mut got).expect("all of it");
        let frame = pattern(100_000);
        assert!(got.chunks(100_000).all(|chunk| chunk == frame));
    });
}

#[test]
fn a_peer_that_ended_its_side_gets_the_answer_that_was_under_way() {
    let facts = Arc::new(Facts::default());
    serve(config(1), Mode::Later, &facts, |address| {
        let mut stream = connect(address);
        stream.write_all(b"?").expect("written");
        stream.shutdown(Shutdown::Write).expect("our side ends");
        assert_eq!(read_to_end(&mut stream), b"later");
    });
}

#[test]
fn connections_beyond_the_bound_are_closed_at_once_and_counted_by_nobody_else() {
    let facts = Arc::new(Facts::default());
    let settings = Config {
        connections_max: 4,
        ..config(1)
    };
    let counted = facts.clone();
    serve(settings, Mode::Echo, &facts, move |address| {
        let mut streams: Vec<_> = (0..4).map(|_| connect(address)).collect();
        wait_until("accepted", || counted.accepted.load(SeqCst) == 4);
        let mut refused = connect(address);
        let mut byte = [0];
        let end = refused.read(&mut byte);
        assert!(!matches!(end, Ok(1..)), "it is closed without a byte");
        for stream in &mut streams {
            stream.write_all(b"!").expect("written");
            stream.read_exact(&mut byte).expect("still served");
        }
        drop(streams.pop());
        wait_until("closed", || counted.closed.load(SeqCst) == 1);
        let mut next = connect(address);
        next.write_all(b"!").expect("written");
        next.read_exact(&mut byte).expect("there is room again");
        assert_eq!(counted.accepted.load(SeqCst), 5);
    });
}

#[test]
fn closing_after_the_flush_delivers_everything_and_then_an_end() {
    let facts = Arc::new(Facts::default());
    let bytes = 5_000_000;
    let settings = Config {
        outbox_bytes_max: 16_777_216,
        ..config(1)
    };
    serve(
        settings,
        Mode::BlastAndClose(bytes),
        &facts,
        move |address| {
            let mut stream = connect(address);
            // More than the answer needs: unread input must not turn the end into a reset.
            stream.write_all(&pattern(100_000)).expect("written");
            assert!(read_to_end(&mut stream) == pattern(bytes));
        },
    );
    assert_eq!(*facts.ends.lock().expect("unpoisoned"), [Closed::ByUs]);
}

#[test]
fn a_peer_that_takes_its_last_bytes_slowly_gets_them_all() {
    let facts = Arc::new(Facts::default());
    // Far more than the kernel holds, for longer than a peer may take nothing.
    let bytes = 16_000_000;
    let settings = Config {
        outbox_bytes_max: 1 << 26,
        ..config(1)
    };
    serve(
        settings,
        Mode::BlastAndClose(bytes),
        &facts,
        move |address| {
            let mut stream = connect(address);
            stream.write_all(b"?").expect("written");
            let mut got = vec![0; 600_000];
            for _ in 0..12 {
                thread::sleep(Duration::from_secs(1));
                stream.read_exact(&mut got).expect("it goes on");
            }
            assert!(read_to_end(&mut stream).len() == bytes - 12 * got.len());
        },
    );
    assert_eq!(*facts.ends.lock().expect("unpoisoned"), [Closed::ByUs]);
}

#[test]
fn a_peer_that_ends_its_side_still_gets_what_was_answered() {
    let facts = Arc::new(Facts::default());
    serve(config(1), Mode::Echo, &facts, move |address| {
        let mut stream = connect(address);
        let sent = pattern(60_000);
        stream.write_all(&sent).expect("written");
        stream.shutdown(Shutdown::Write).expect("half closed");
        assert!(read_to_end(&mut stream) == sent);
    });
    assert_eq!(*facts.ends.lock().expect("unpoisoned"), [Closed::ByPeer]);
}

#[test]
fn closing_now_is_told_once_and_frees_the_connection() {
    let facts = Arc::new(Facts::default());
    let counted = facts.clone();
    serve(config(1), Mode::CloseNow, &facts, move |address| {
        for round in 1..=50 {
            let mut stream = connect(address);
            stream.write_all(b"?").expect("written");
            let _ = stream.read(&mut [0; 8]);
            wait_until("told", || counted.closed.load(SeqCst) == round);
        }
    });
    assert_eq!(facts.closed.load(SeqCst), 50);
    assert_eq!(
        facts.ends.lock().expect("unpoisoned")[..],
        [Closed::ByUs; 50]
    );
}

#[test]
fn a_paused_connection_holds_its_peer_back_and_goes_on_when_resumed() {
    let facts = Arc::new(Facts::default());
    serve(config(1), Mode::Pause, &facts, move |address| {
        let mut stream = connect(address);
        let sent = pattern(40_000);
        for chunk in sent.chunks(10_000) {
            stream.write_all(chunk).expect("written");
            let mut got = vec![0; chunk.len()];
            stream.read_exact(&mut got).expect("echoed in the end");
            assert!(got == chunk);
        }
    });
}

#[test]
fn connections_that_starve_for_buffers_are_served_in_the_end() {
    let facts = Arc::new(Facts::default());
    let settings = Config {
        recv_buffers: 8,
        recv_buffer_bytes: 256,
        ..config(1)
    };
    serve(settings, Mode::Echo, &facts, move |address| {
        let mut streams: Vec<_> = (0..200).map(|_| connect(address)).collect();
        let sent = pattern(3_000);
        streams
            .iter_mut()
            .for_each(|stream| stream.write_all(&sent).expect("written"));
        for stream in &mut streams {
            let mut got = vec![0; sent.len()];
            stream.read_exact(&mut got).expect("echoed");
            assert!(got == sent);
        }
    });
}
