//! TLS: what is sealed comes out whole, in every size, and what is no TLS is told so.
//!
//! Owns: the tests of the wire's TLS with rustls as the client.
//! May depend on: shards, rustls, tests/support.
//! Invariants: no test sleeps; each waits for a condition with a deadline.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "each wait has a deadline; what shards saw is read by the test"
)]

#[path = "support/both.rs"]
mod both;
#[path = "../../tests/support/certificates.rs"]
mod certificates;
mod support;

use both::{Both, NOT_TLS, secure};
use rustls::{ClientConnection, HandshakeKind, ProtocolVersion, pki_types::ServerName};
use shards::{Config, TlsCounters, run};
use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr},
    sync::Arc,
    thread,
};
use support::{Facts, Mode, Probe, connect, pattern, read_to_end, wait_until};

/// Runs probes with TLS; what it did is known afterwards.
fn serve(
    config: Config,
    mode: Mode,
    client: impl FnOnce(SocketAddr) + Send + 'static,
) -> TlsCounters {
    let facts = Arc::new(Facts::default());
    let (made, counted) = (facts.clone(), facts.clone());
    run(
        config,
        move |shard| Probe::new(shard, mode, made.clone()),
        |link| async move {
            let address = link.addresses()[0];
            let ended = tokio::task::spawn_blocking(move || client(address)).await;
            ended.expect("the client is well");
            let shards = link.shards();
            for shard in 0..shards {
                link.send(shards::ShardId(shard), b"counters".to_vec())
                    .expect("there is room");
            }
            let all = move || {
                wait_until("all counters", || {
                    counted.counters.lock().expect("unpoisoned").len() == usize::from(shards)
                });
            };
            tokio::task::spawn_blocking(all).await.expect("counters");
        },
    )
    .expect("the runtime starts");
    let counters = facts.counters.lock().expect("unpoisoned");
    let mut sum = TlsCounters::default();
    for shard in counters.values() {
        assert_eq!(shard.outbox_bytes, 0, "what was queued is gone");
        sum.handshakes_full += shard.tls.handshakes_full;
        sum.handshakes_resumed += shard.tls.handshakes_resumed;
        sum.failed_not_tls += shard.tls.failed_not_tls;
        sum.failed_by_client += shard.tls.failed_by_client;
        sum.failed_by_us += shard.tls.failed_by_us;
        sum.failed_unfinished += shard.tls.failed_unfinished;
        sum.records_refused += shard.tls.records_refused;
        sum.truncated += shard.tls.truncated;
        sum.key_updates += shard.tls.key_updates;
        sum.handshaking += shard.tls.handshaking;
        sum.input_bytes += shard.tls.input_bytes;
    }
    sum
}

/// Starts what a test needs, or ends it where there is no openssl.
macro_rules! both_or_skip {
    () => {
        match Both::make() {
            Some(both) => both,
            None => return println!("skipped: there is no openssl"),
        }
    };
}

#[test]
fn every_byte_comes_back_through_both_versions_of_tls() {
    let both = both_or_skip!();
    for shards in [1, 3] {
        let all = both.all();
        let counts = serve(both.config(shards), Mode::Echo, move |address| {
            let clients = all
                .iter()
                .flat_map(|clients| [clients, clients])
                .enumerate();
            let threads: Vec<_> = clients
                .map(|(number, clients)| {
                    let mut stream = secure(address, clients);
                    thread::spawn(move || {
                        let sent = pattern(200_000 + number);
                        // Records of every size, most of them in parts.
                        for chunk in sent.chunks(7_777 * number + 77) {
                            stream.write_all(chunk).expect("written");
                            let mut got = vec![0; chunk.len()];
                            stream.read_exact(&mut got).expect("echoed");
                            assert!(got == chunk, "{number}");
                        }
                    })
                })
                .collect();
            for thread in threads {
                thread.join().expect("a client");
            }
        });
        let done = counts.handshakes_full + counts.handshakes_resumed;
        assert_eq!(done, 4, "{counts:?}");
        assert_eq!(counts.handshaking, 0, "{counts:?}");
        assert_eq!(counts.input_bytes, 0, "{counts:?}");
        assert_eq!(counts.records_refused, 0, "{counts:?}");
    }
}

#[test]
fn a_slow_reader_gets_a_large_answer_whole_and_its_end_said() {
    let both = both_or_skip!();
    let bytes = 12_000_000;
    for clients in both.all() {
        let settings = Config {
            outbox_bytes_max: 16_777_216,
            ..both.config(1)
        };
        let counts = serve(settings, Mode::BlastAndClose(bytes), move |address| {
            let mut stream = secure(address, &clients);
            stream.write_all(b"?").expect("written");
            let mut got = Vec::new();
            // Without a close_notify this would be an unexpected end.
            stream.read_to_end(&mut got).expect("an orderly end");
            assert!(got == pattern(bytes));
        });
        assert_eq!(counts.handshakes_full, 1);
    }
}

/// Numbers that are the same each time (xorshift).
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }

    /// A client's first message with some bytes changed, cut into records, with others between them.
    fn spoil(&mut self, hello: &[u8]) -> Vec<u8> {
        let mut message = hello[5..].to_vec();
        for _ in 0..self.below(3) {
            let at = self.below(message.len().min(80));
            message[at] = self.below(256) as u8;
        }
        message.truncate(1 + self.below(2 * message.len()));
        let mut bytes = Vec::new();
        while !message.is_empty() {
            let part = 1 + self.below(message.len());
            let kind = if self.below(4) > 0 {
                22
            } else {
                20 + self.below(6) as u8
            };
            bytes.extend([
                kind,
                3,
                1 + self.below(3) as u8,
                (part >> 8) as u8,
                part as u8,
            ]);
            bytes.extend(message.drain(..part));
        }
        bytes
    }
}

#[test]
fn a_spoilt_handshake_ends_its_own_connection_and_no_other() {
    let both = both_or_skip!();
    for clients in both.all() {
        let counts = serve(both.config(2), Mode::Echo, move |address| {
            let mut good = secure(address, &clients);
            let mut dice = Dice(0x5EED);
            for number in 0..600_u32 {
                let name = ServerName::from(address.ip());
                let mut client = ClientConnection::new(clients.clone(), name).expect("a client");
                let mut hello = Vec::new();
                client.write_tls(&mut hello).expect("it is there");
                let mut stream = connect(address);
                // Who is refused early may find its connection reset.
                let _ = stream.write_all(&dice.spoil(&hello));
                let _ = stream.shutdown(Shutdown::Write);
                let _ = stream.read_to_end(&mut Vec::new());
                if number.is_multiple_of(100) {
                    good.write_all(b"?").expect("written");
                    let mut got = [0];
                    good.read_exact(&mut got).expect("echoed");
                }
            }
        });
        let refused = counts.failed_by_us + counts.failed_by_client + counts.failed_not_tls;
        assert!(refused >= 200, "{counts:?}");
        assert_eq!(
            (counts.handshaking, counts.input_bytes),
            (0, 0),
            "{counts:?}"
        );
    }
}

#[test]
fn a_handshake_may_come_byte_by_byte() {
    let both = both_or_skip!();
    for clients in both.all() {
        let counts = serve(both.config(1), Mode::Echo, move |address| {
            let name = ServerName::from(address.ip());
            let mut client = ClientConnection::new(clients, name).expect("a client");
            let mut stream = connect(address);
            client.writer().write_all(b"hello").expect("it waits");
            let mut got = Vec::new();
            while got.len() < 5 {
                let mut flight = Vec::new();
                while client.wants_write() {
                    client.write_tls(&mut flight).expect("memory");
                }
                for byte in flight {
                    stream.write_all(&[byte]).expect("written");
                }
                client.read_tls(&mut stream).expect("read");
                let state = client.process_new_packets().expect("TLS");
                let mut plain = vec![0; state.plaintext_bytes_to_read()];
                client.reader().read_exact(&mut plain).expect("it is there");
                got.extend(plain);
            }
            assert_eq!(got, b"hello");
        });
        assert_eq!(counts.handshakes_full, 1);
    }
}

#[test]
fn a_ticket_of_one_shard_is_taken_by_the_others() {
    let both = both_or_skip!();
    for clients in both.all() {
        let counts = serve(both.config(3), Mode::Echo, move |address| {
            for number in 0..16 {
                let mut stream = secure(address, &clients);
                stream.write_all(b"hello").expect("written");
                let mut got = [0; 5];
                stream.read_exact(&mut got).expect("echoed");
                let kind = stream.conn.handshake_kind();
                assert_eq!(kind == Some(HandshakeKind::Resumed), number > 0, "{number}");
            }
        });
        assert_eq!((counts.handshakes_full, counts.handshakes_resumed), (1, 15));
    }
}

#[test]
fn a_client_that_renews_its_keys_gets_new_ones_too() {
    let both = both_or_skip!();
    let clients = both.all()[0].clone();
    let counts = serve(both.config(1), Mode::Echo, move |address| {
        let mut stream = secure(address, &clients);
        for number in 0..20 {
            let sent = pattern(1_000 + number);
            stream.write_all(&sent).expect("written");
            let mut got = vec![0; sent.len()];
            stream.read_exact(&mut got).expect("echoed");
            assert!(got == sent, "{number}");
            stream.conn.refresh_traffic_keys().expect("TLS 1.3");
        }
    });
    assert_eq!(counts.key_updates, 19, "the last one was not sent");
}

#[test]
fn what_is_no_tls_is_told_so_and_closed() {
    let both = both_or_skip!();
    let counts = serve(both.config(1), Mode::Echo, |address| {
        for first in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\x00", b"\r\n"] {
            let mut stream = connect(address);
            stream.write_all(first).expect("written");
            assert_eq!(read_to_end(&mut stream), NOT_TLS);
        }
        // An alert of TLS, code 10 or 50, and the end.
        let mut stream = connect(address);
        stream
            .write_all(b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00")
            .expect("written");
        let answer = read_to_end(&mut stream);
        assert_eq!(answer.first(), Some(&21), "{answer:?}");
    });
    assert_eq!((counts.failed_not_tls, counts.failed_by_us), (3, 1));
    assert_eq!(counts.handshaking, 0);
}

#[test]
fn a_record_that_was_changed_on_its_way_ends_the_connection() {
    let both = both_or_skip!();
    for clients in both.all() {
        let counts = serve(both.config(1), Mode::Echo, move |address| {
            let mut stream = secure(address, &clients);
            stream.write_all(b"hello").expect("written");
            stream.read_exact(&mut [0; 5]).expect("echoed");
            stream.conn.writer().write_all(b"again").expect("it waits");
            let mut sealed = Vec::new();
            stream.conn.write_tls(&mut sealed).expect("memory");
            *sealed.last_mut().expect("a tag") ^= 1;
            stream.sock.write_all(&sealed).expect("written");
            let error = stream.read(&mut [0; 5]).expect_err("an alert");
            assert!(error.to_string().contains("BadRecordMac"), "{error}");
        });
        assert_eq!(counts.records_refused, 1);
    }
}

#[test]
fn ends_of_either_kind_in_any_state_leave_nothing_behind() {
    let both = both_or_skip!();
    let clients = both.all()[0].clone();
    let counts = serve(both.config(1), Mode::Echo, move |address| {
        // Before a byte, within the hello, after it.
        drop(connect(address));
        let mut stream = connect(address);
        stream.write_all(b"\x16\x03\x01").expect("written");
        stream.shutdown(Shutdown::Write).expect("our side ends");
        assert_eq!(read_to_end(&mut stream), b"");
        // Said in TLS: what was asked before is answered, and our end is said too.
        let mut stream = secure(address, &clients);
        stream.write_all(b"hello").expect("written");
        stream.conn.send_close_notify();
        let mut got = Vec::new();
        stream.read_to_end(&mut got).expect("an orderly end");
        assert_eq!(got, b"hello");
        // Said by TCP alone.
        let mut stream = secure(address, &clients);
        stream.write_all(b"hello").expect("written");
        stream
            .sock
            .shutdown(Shutdown::Write)
            .expect("our side ends");
        got.clear();
        stream.read_to_end(&mut got).expect("an orderly end");
        assert_eq!(got, b"hello");
    });
    assert_eq!(counts.handshaking, 0);
    assert!(counts.failed_unfinished >= 1, "{counts:?}");
    assert!(counts.truncated >= 2, "{counts:?}");
}

#[test]
fn versions_are_the_two_that_are_safe() {
    let both = both_or_skip!();
    let [new, old] = both.all();
    serve(both.config(1), Mode::Echo, move |address| {
        for (clients, version) in [
            (new, ProtocolVersion::TLSv1_3),
            (old, ProtocolVersion::TLSv1_2),
        ] {
            let mut stream = secure(address, &clients);
            stream.write_all(b"hello").expect("written");
            stream.read_exact(&mut [0; 5]).expect("echoed");
            assert_eq!(stream.conn.protocol_version(), Some(version));
        }
    });
}
