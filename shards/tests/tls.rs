//! TLS: what is sealed comes out whole, in every size, and what is no TLS is told so.
//!
//! Owns: the tests of the wire's TLS with rustls as the client.
//! May depend on: shards, rustls, tests/support.
//! Invariants: no test sleeps; each waits for a condition with a deadline.

#![expect(
    clippy::cast_possible_truncation,
    reason = "numbers of a test are its own"
)]
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
use rustls::{
    CipherSuiteCommon, ClientConfig, ClientConnection, HandshakeKind, ProtocolVersion,
    ServerConfig, StreamOwned, SupportedCipherSuite, Tls12CipherSuite, Tls13CipherSuite,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::ServerName,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use shards::{Closed, Config, TlsCounters, TlsPort, Work, run};
use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    os::fd::AsRawFd as _,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    thread,
};
use support::{Facts, Mode, Moment, Probe, config, connect, pattern, read_to_end, wait_until};

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
        sum.sealed_bytes += shard.tls.sealed_bytes;
        sum.connections += shard.tls.connections;
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
        assert_eq!(counts.sealed_bytes, bytes as u64);
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
                let spoilt = dice.spoil(&hello);
                for piece in spoilt.chunks(1 + dice.below(400)) {
                    let _ = stream.write_all(piece);
                }
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
fn whatever_comes_right_behind_a_handshake_comes_back() {
    let both = both_or_skip!();
    let clients = both.all();
    let counts = serve(both.config(1), Mode::Echo, move |address| {
        for number in 0..20 {
            let clients = clients[number % clients.len()].clone();
            let name = ServerName::from(address.ip());
            let mut client = ClientConnection::new(clients, name).expect("a client");
            client.set_buffer_limit(None);
            let sent = pattern(150_000 + number);
            // It goes out with the last word of the handshake.
            client.writer().write_all(&sent).expect("kept");
            let mut got = vec![0; sent.len()];
            let mut stream = StreamOwned::new(client, connect(address));
            stream.read_exact(&mut got).expect("echoed");
            assert!(got == sent, "{number}");
        }
    });
    assert_eq!(
        (counts.handshaking, counts.input_bytes),
        (0, 0),
        "{counts:?}"
    );
    assert_eq!(counts.failed_unfinished, 0, "{counts:?}");
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
fn a_handshakes_messages_may_come_in_many_records_one_after_the_other() {
    let both = both_or_skip!();
    let clients = both.all();
    let counts = serve(both.config(1), Mode::Echo, move |address| {
        for (clients, record_bytes_max) in clients
            .iter()
            .flat_map(|it| [32, 37, 64, 150, 250].map(|max| (it, max)))
        {
            let mut clients = ClientConfig::clone(clients);
            clients.max_fragment_size = Some(record_bytes_max);
            let mut stream = connect(address);
            let name = ServerName::from(address.ip());
            let mut client = ClientConnection::new(Arc::new(clients), name).expect("a client");
            while client.is_handshaking() || client.wants_write() {
                if !client.wants_write() {
                    client.read_tls(&mut stream).expect("read");
                    client.process_new_packets().expect("of the server");
                    continue;
                }
                let mut flight = Vec::new();
                while client.wants_write() {
                    client.write_tls(&mut flight).expect("kept");
                }
                while flight.len() > 5 {
                    let len = 5 + usize::from(u16::from_be_bytes([flight[3], flight[4]]));
                    let record: Vec<u8> = flight.drain(..len).collect();
                    stream.write_all(&record).expect("written");
                    wait_until("it has come", || has_arrived(&stream));
                }
            }
            let mut stream = StreamOwned::new(client, stream);
            stream.write_all(b"here").expect("written");
            stream.read_exact(&mut [0; 4]).expect("echoed");
        }
    });
    assert_eq!(
        (counts.handshaking, counts.handshakes_failed()),
        (0, 0),
        "{counts:?}"
    );
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

/// Counts certificates that are shown: one in the first step of each handshake.
#[derive(Debug)]
struct Counting {
    inner: Arc<dyn ResolvesServerCert>,
    shown: Arc<AtomicUsize>,
}

impl ResolvesServerCert for Counting {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.shown.fetch_add(1, SeqCst);
        self.inner.resolve(hello)
    }
}

/// The other side's kernel has all that was written.
fn has_arrived(stream: &TcpStream) -> bool {
    let mut unacknowledged: libc::c_int = -1;
    // SAFETY: the descriptor is open, and the answer is an int that outlives the call.
    let done = unsafe { libc::ioctl(stream.as_raw_fd(), libc::TIOCOUTQ, &raw mut unacknowledged) };
    assert_eq!(done, 0);
    unacknowledged == 0
}

/// What was shown when turns ended, and when the ping came.
#[derive(Default)]
struct Seen {
    at_ends: Vec<usize>,
    at_ping: Option<(usize, usize)>,
}

#[test]
fn a_turn_takes_its_part_of_a_storm_of_handshakes_after_everybodys_frames() {
    const STORM: usize = 40;
    let both = both_or_skip!();
    let shown = Arc::new(AtomicUsize::new(0));
    let mut tls = ServerConfig::clone(&both.port.config);
    tls.cert_resolver = Arc::new(Counting {
        inner: Arc::clone(&tls.cert_resolver),
        shown: Arc::clone(&shown),
    });
    let settings = Config {
        turn_work_us: 1_000,
        tls: Some(TlsPort {
            config: Arc::new(tls),
            // Three use up what a turn has for them, a fifth of it.
            handshake: Work(80_000),
            not_tls: NOT_TLS,
        }),
        ..config(1)
    };
    let (facts, seen) = (
        Arc::new(Facts::default()),
        Arc::new(Mutex::new(Seen::default())),
    );
    let (holds, is_held) = mpsc::channel();
    let (lets_go, let_go) = mpsc::channel::<()>();
    let (watched, counted, let_go) = (seen.clone(), shown.clone(), Mutex::new(let_go));
    let watcher = move |moment| {
        let mut seen = watched.lock().expect("unpoisoned");
        let now = counted.load(SeqCst);
        match moment {
            Moment::TurnEnds => seen.at_ends.push(now),
            Moment::Received(b'p') => {
                let before = *seen.at_ends.last().expect("turns ended");
                seen.at_ping = Some((before, now));
            }
            Moment::Received(b'h') => {
                holds.send(()).expect("it is waited for");
                // Everything else comes while the shard is held here.
                let let_go = let_go.lock().expect("unpoisoned");
                let_go.recv().expect("it is let go");
            }
            Moment::Received(_) => {}
        }
    };
    assert!(facts.watcher.set(Box::new(watcher)).is_ok());
    let (clients, accepted) = (both.all()[0].clone(), facts.clone());
    let storm = move |address| {
        let mut canary = secure(address, &clients);
        canary.write_all(b"?").expect("written");
        canary.read_exact(&mut [0]).expect("echoed");
        let mut streams: Vec<_> = (0..STORM).map(|_| connect(address)).collect();
        wait_until("all are there", || {
            accepted.accepted.load(SeqCst) == STORM as u64 + 1
        });
        canary.write_all(b"h").expect("written");
        is_held.recv().expect("the shard is held");
        for stream in &mut streams {
            let name = ServerName::from(address.ip());
            let mut client = ClientConnection::new(clients.clone(), name).expect("a client");
            client.write_tls(stream).expect("written");
        }
        canary.write_all(b"p").expect("written");
        wait_until("all has come", || {
            streams.iter().chain([&canary.sock]).all(has_arrived)
        });
        lets_go.send(()).expect("it waits");
        canary.read_exact(&mut [0; 2]).expect("echoed");
        wait_until("all are served", || shown.load(SeqCst) == STORM + 1);
    };
    support::serve(settings, Mode::Echo, &facts, storm);
    let seen = seen.lock().expect("unpoisoned");
    let steps = seen.at_ends.windows(2).map(|ends| ends[1] - ends[0]);
    let steps: Vec<_> = steps.skip_while(|&taken| taken == 0).collect();
    // The canary's own is the first, long before.
    let storm = steps[1..].iter().skip_while(|&&taken| taken == 0);
    let mut left = STORM;
    for taken in storm.take_while(|&&taken| taken > 0) {
        assert!(*taken <= 3, "{steps:?}");
        left -= taken;
    }
    assert_eq!(left, 0, "no turn leaves all of them waiting: {steps:?}");
    let (before, at_ping) = seen.at_ping.expect("it came");
    assert_eq!(at_ping, before, "frames come before handshakes");
    assert!(
        at_ping < STORM / 2,
        "a ping waits for few of them: {at_ping}"
    );
}

/// A provider whose keys are worn after so few records.
fn worn_after(records: u64) -> CryptoProvider {
    let common = |common: &CipherSuiteCommon| CipherSuiteCommon {
        suite: common.suite,
        hash_provider: common.hash_provider,
        confidentiality_limit: records,
    };
    let mut provider = aws_lc_rs::default_provider();
    for suite in &mut provider.cipher_suites {
        *suite = match *suite {
            SupportedCipherSuite::Tls13(suite) => {
                SupportedCipherSuite::Tls13(Box::leak(Box::new(Tls13CipherSuite {
                    common: common(&suite.common),
                    hkdf_provider: suite.hkdf_provider,
                    aead_alg: suite.aead_alg,
                    quic: suite.quic,
                })))
            }
            SupportedCipherSuite::Tls12(suite) => {
                SupportedCipherSuite::Tls12(Box::leak(Box::new(Tls12CipherSuite {
                    common: common(&suite.common),
                    prf_provider: suite.prf_provider,
                    kx: suite.kx,
                    sign: suite.sign,
                    aead_alg: suite.aead_alg,
                })))
            }
        };
    }
    provider
}

const WORN_AFTER: usize = 16;

/// Starts what a test of worn keys needs, or ends it where there is no openssl.
macro_rules! worn_or_skip {
    () => {
        match Both::with(worn_after(WORN_AFTER as u64)) {
            Some(both) => both,
            None => return println!("skipped: there is no openssl"),
        }
    };
}

/// A stream that keeps what it has read.
struct Kept {
    stream: TcpStream,
    bytes: Vec<u8>,
}

impl Read for Kept {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.stream.read(into)?;
        self.bytes.extend_from_slice(&into[..read]);
        Ok(read)
    }
}

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

#[test]
fn a_worn_key_is_renewed_and_the_client_is_told() {
    let both = worn_or_skip!();
    let clients = both.all()[0].clone();
    let counts = serve(both.config(1), Mode::Echo, move |address| {
        let name = ServerName::from(address.ip());
        let client = ClientConnection::new(clients, name).expect("a client");
        let (stream, bytes) = (connect(address), Vec::new());
        let mut stream = StreamOwned::new(client, Kept { stream, bytes });
        let sent = pattern(1_000);
        for number in 0..100 {
            stream.write_all(&sent).expect("written");
            let mut got = vec![0; sent.len()];
            stream.read_exact(&mut got).expect("echoed");
            assert!(got == sent, "{number}");
        }
        let mut lengths = Vec::new();
        let mut rest = &stream.sock.bytes[..];
        while let [_, _, _, high, low, ..] = *rest {
            let len = usize::from(u16::from_be_bytes([high, low]));
            lengths.push(len);
            rest = &rest[5 + len..];
        }
        // A record of ours is 17 bytes longer than what it holds: 1 000, or a key update of five.
        let first = lengths.iter().position(|&len| len == 1_017);
        let keys = lengths[first.expect("an echo")..].split(|&len| len == 22);
        let keys: Vec<_> = keys.map(<[usize]>::len).collect();
        assert!(keys.iter().all(|&records| records < WORN_AFTER), "{keys:?}");
        assert_eq!(keys.iter().sum::<usize>(), 100, "{keys:?}");
    });
    assert_eq!(counts.handshakes_full, 1);
    assert_eq!(counts.records_refused, 0);
}

#[test]
fn a_worn_key_that_has_no_successor_ends_its_connection() {
    let both = worn_or_skip!();
    let [_, old] = both.all();
    let facts = Arc::new(Facts::default());
    support::serve(both.config(1), Mode::Echo, &facts, move |address| {
        let mut other = secure(address, &old);
        let mut stream = secure(address, &old);
        let mut echoes = 0;
        while stream.write_all(b"x").is_ok() && stream.read_exact(&mut [0]).is_ok() {
            echoes += 1;
            assert!(echoes < WORN_AFTER, "a key seals more than it may");
        }
        assert!(echoes > WORN_AFTER / 2, "only {echoes}");
        other.write_all(b"x").expect("written");
        other.read_exact(&mut [0]).expect("another goes on");
    });
    let ends = facts.ends.lock().expect("unpoisoned");
    assert_eq!(ends.first(), Some(&Closed::ByUs), "{ends:?}");
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
