//! A node comes to rest, hands its connections to another, or goes on.
//!
//! Owns: the tests of freezing, carrying, adopting and thawing over real loopback sockets.
//! May depend on: shards, tokio, tests/support.
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
#[path = "support/clients.rs"]
mod clients;
#[path = "support/mover.rs"]
mod mover;
mod support;

use both::{Both, Stream, secure};
use clients::{Clients, Connect, Line};
use mover::{Ask, Mover, Moves, OUTBOX_BYTES_MAX, Parcel, Seen};
use rustls::{
    ProtocolVersion,
    version::{TLS12, TLS13},
};
use shards::{BridgeLink, Config, Freeze, ShardId, run};
use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    thread::{self, JoinHandle},
};
use support::{config, connect, pattern, wait_until};
use tokio::sync::oneshot;

/// Runs what waits for sockets beside the bridge.
async fn beside<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> R {
    let ended = tokio::task::spawn_blocking(work).await;
    ended.expect("it ends well")
}

fn movers(seen: &Arc<Seen>) -> impl Fn(ShardId) -> Mover + Send + Clone + 'static {
    let seen = seen.clone();
    move |shard| Mover::new(shard, seen.clone())
}

/// Writes ahead and reads back until told to stop; counts what came back.
fn chatter(address: SocketAddr, kind: u8, number: usize, stop: &AtomicBool, back: &AtomicU64) {
    let mut stream = connect(address);
    let mut sent = pattern(3_000 + number * 13);
    sent[0] = kind;
    let mut ahead = 0;
    while !stop.load(SeqCst) || ahead > 0 {
        while ahead < 3 && !stop.load(SeqCst) {
            stream.write_all(&sent).expect("written");
            ahead += 1;
        }
        let mut got = vec![0; sent.len()];
        stream.read_exact(&mut got).expect("echoed");
        assert!(got == sent, "lost or out of order");
        back.fetch_add(got.len() as u64, SeqCst);
        ahead -= 1;
    }
}

#[test]
fn two_hundred_busy_clients_lose_nothing_by_a_node_that_freezes_and_thaws() {
    let seen = Arc::new(Seen::default());
    let looked = seen.clone();
    run(
        config(3),
        movers(&seen),
        |mut link: BridgeLink<Mover>| async move {
            let address = link.addresses()[0];
            let (stop, back) = (
                Arc::new(AtomicBool::new(false)),
                Arc::new(AtomicU64::new(0)),
            );
            let clients: Vec<JoinHandle<()>> = (0..200)
                .map(|number| {
                    let kind = if number % 2 == 0 { b'e' } else { b'm' };
                    let (stop, back) = (stop.clone(), back.clone());
                    thread::spawn(move || chatter(address, kind, number, &stop, &back))
                })
                .collect();
            for round in 0..12 {
                let (goes_on, before) = (back.clone(), back.load(SeqCst));
                beside(move || {
                    wait_until("all go on", || goes_on.load(SeqCst) >= before + 2_000_000);
                })
                .await;
                link.come_to_rest().await;
                let still = (looked.received.load(SeqCst), looked.messages.load(SeqCst));
                for _ in 0..3 {
                    link.ask_all(|| Ask::Ping).await;
                    assert_eq!(link.freeze_step(), Freeze::Still);
                }
                let after = (looked.received.load(SeqCst), looked.messages.load(SeqCst));
                assert_eq!(still, after, "round {round}");
                link.thaw();
            }
            stop.store(true, SeqCst);
            beside(|| {
                clients
                    .into_iter()
                    .for_each(|it| it.join().expect("a client"))
            })
            .await;
        },
    )
    .expect("the runtime starts");
    assert_eq!(seen.accepted.load(SeqCst), 200);
    assert_eq!(seen.closed.load(SeqCst), 200);
}

#[test]
fn thousands_of_receives_are_cancelled_and_armed_again() {
    let seen = Arc::new(Seen::default());
    let looked = seen.clone();
    run(
        config(1),
        movers(&seen),
        |link: BridgeLink<Mover>| async move {
            let address = link.addresses()[0];
            let mut streams = beside(move || {
                let streams: Vec<_> = (0..3_000).map(|_| connect(address)).collect();
                wait_until("accepted", || looked.accepted.load(SeqCst) == 3_000);
                streams
            })
            .await;
            for _ in 0..3 {
                link.come_to_rest().await;
                for stream in &mut streams {
                    stream.write_all(b"echo").expect("written");
                }
                link.thaw();
                streams = beside(move || {
                    for stream in &mut streams {
                        stream.read_exact(&mut [0; 4]).expect("echoed");
                    }
                    streams
                })
                .await;
            }
        },
    )
    .expect("the runtime starts");
}

#[test]
fn a_frozen_node_goes_on_though_it_is_thawed_at_any_step() {
    let seen = Arc::new(Seen::default());
    run(
        config(2),
        movers(&seen),
        |link: BridgeLink<Mover>| async move {
            let address = link.addresses()[0];
            let mut stream = connect(address);
            for steps in 0..40 {
                stream.write_all(b"echo").expect("written");
                link.freeze();
                (0..steps % 10).for_each(|_| {
                    let _ = link.freeze_step();
                });
                if steps % 4 == 0 {
                    link.freeze();
                }
                link.thaw();
                stream = beside(move || {
                    stream.read_exact(&mut [0; 4]).expect("echoed");
                    stream
                })
                .await;
            }
        },
    )
    .expect("the runtime starts");
}

#[test]
fn a_node_that_does_not_settle_is_never_still_and_goes_on_when_it_is_thawed() {
    let seen = Arc::new(Seen::default());
    run(
        config(2),
        movers(&seen),
        |mut link: BridgeLink<Mover>| async move {
            link.ask_all(|| Ask::Restless(true)).await;
            link.freeze();
            for _ in 0..50 {
                assert_eq!(link.freeze_step(), Freeze::Settling);
                link.ask_all(|| Ask::Ping).await;
            }
            link.thaw();
            link.ask_all(|| Ask::Restless(false)).await;
            link.come_to_rest().await;
            link.thaw();
        },
    )
    .expect("the runtime starts");
}

/// What the two nodes of a hand-over and their test say to each other.
struct Heir {
    parcels: oneshot::Receiver<Vec<Parcel>>,
    adopted: oneshot::Sender<usize>,
    /// Never said when the hand-over fails.
    go: oneshot::Receiver<Left>,
}

/// Starts the node that takes over.
fn start_heir(config: Config, seen: &Arc<Seen>, heir: Heir) -> JoinHandle<()> {
    let make = movers(seen);
    let bridge = |mut link: BridgeLink<Mover>| async move {
        let Ok(parcels) = heir.parcels.await else {
            return;
        };
        assert_eq!(link.neighbours(), [], "its predecessor is none");
        let adopted = link.adopt(parcels).await;
        heir.adopted.send(adopted).expect("it is awaited");
        let Ok(left) = heir.go.await else { return };
        link.thaw();
        for shard in 0..link.shards() {
            assert!(link.send(ShardId(shard), Ask::Resume).is_ok(), "room");
        }
        beside(|| left.finish()).await;
    };
    thread::spawn(move || run(config, make, bridge).expect("the heir starts"))
}

/// What is left to be said when the new node runs: of clients that it took over, and of those that have
/// called meanwhile.
struct Left {
    clients: Clients,
    calls: Vec<Box<dyn Line>>,
    have_spoken: bool,
}

impl Left {
    fn finish(self) {
        Clients::finish_calls(self.calls, self.have_spoken);
        self.clients.finish();
    }
}

struct Plan {
    /// Of the two nodes.
    configs: [Config; 2],
    connect: Connect,
    clients: usize,
    fails: bool,
    /// Clients that have said nothing: with TLS, not even that they speak it.
    mute: usize,
    /// Clients that connect while nobody accepts.
    calls: usize,
    /// Who calls while nobody accepts speaks at once; a handshake must wait.
    speaks_first: bool,
}

/// Of `Plan::calls`, where nothing stands against them.
const CALLS: usize = 40;
/// Of `Plan::mute`.
const MUTE: usize = 10;

fn hand_over(plan: Plan) {
    let [old, new] = plan.configs;
    let (seen, seen_after) = (Arc::new(Seen::default()), Arc::new(Seen::default()));
    let (parcels_to, parcels) = oneshot::channel();
    let (adopted, adopted_back) = oneshot::channel();
    let (go_to, go) = oneshot::channel();
    let heir = Heir {
        parcels,
        adopted,
        go,
    };
    let (looked, heirs_seen) = (seen.clone(), seen_after.clone());
    let bridge = move |mut link: BridgeLink<Mover>| async move {
        let address = link.addresses()[0];
        let watched = looked.clone();
        let (connect, connects) = (plan.connect.clone(), plan.connect);
        let mut clients = beside(move || {
            let clients = Clients::begin(address, connects, (plan.clients, plan.mute));
            let heard = || {
                watched.received.load(SeqCst) >= clients.heard
                    && watched.accepted.load(SeqCst) == clients.len() as u64
            };
            wait_until("all is heard", heard);
            clients
        })
        .await;
        let listening = link.listening().expect("copies");
        let config = Config {
            listen: link.addresses().to_vec(),
            frozen: true,
            inherited: listening.into_iter().map(Arc::new).collect(),
            started: Some(link.started()),
            ..new
        };
        let heir = start_heir(config, &heirs_seen, heir);
        link.come_to_rest().await;
        let (received, ticks) = (looked.received.load(SeqCst), looked.ticks.load(SeqCst));
        clients.go_on();
        let calls = Clients::call(address, &connect, plan.speaks_first, plan.calls);
        let parcels = link.export().await;
        assert_eq!(parcels.len(), clients.len(), "all are carried");
        let half_sent = parcels.iter().filter(|it| it.is_half_sent()).count();
        assert!(
            half_sent > 0,
            "nothing is half sent: the kernel took it all"
        );
        assert!(parcels.iter().any(Parcel::awaits_drained));
        assert!(parcels_to.send(parcels).is_ok(), "they are awaited");
        assert_eq!(adopted_back.await, Ok(clients.len()));
        assert_eq!(looked.received.load(SeqCst), received, "nothing was read");
        assert_eq!(looked.ticks.load(SeqCst), ticks, "nor did it tick");
        let left = Left {
            clients,
            calls,
            have_spoken: plan.speaks_first,
        };
        if !plan.fails {
            return Some((left, heir, go_to));
        }
        drop(go_to);
        beside(|| heir.join().expect("it ended")).await;
        link.thaw();
        for shard in 0..link.shards() {
            assert!(link.send(ShardId(shard), Ask::Resume).is_ok(), "room");
        }
        beside(|| left.finish()).await;
        None
    };
    let left = run(old, movers(&seen), bridge).expect("the runtime starts");
    let before = seen.accepted.load(SeqCst);
    assert_eq!(seen.closed.load(SeqCst), before);
    let Some((left, heir, go)) = left else {
        assert_eq!(seen_after.accepted.load(SeqCst), 0);
        return;
    };
    assert_eq!(before, left.clients.len() as u64);
    // They were never told that their node had changed, and waited for it.
    assert!(go.send(left).is_ok(), "it is awaited");
    heir.join().expect("it ended well");
    assert_eq!(seen_after.accepted.load(SeqCst), plan.calls as u64);
}

fn plain() -> Connect {
    Arc::new(|address| Box::new(connect(address)) as Box<dyn Line>)
}

fn settings(shards: u16) -> Config {
    Config {
        outbox_bytes_max: OUTBOX_BYTES_MAX,
        ..config(shards)
    }
}

#[test]
fn five_hundred_connections_with_unfinished_business_go_on_in_another_node() {
    for [old, new] in [[3, 3], [1, 3], [3, 1], [2, 5]] {
        hand_over(Plan {
            configs: [settings(old), settings(new)],
            connect: plain(),
            clients: 454,
            fails: false,
            mute: MUTE,
            calls: CALLS,
            speaks_first: true,
        });
    }
}

#[test]
fn a_node_whose_heir_fails_goes_on_as_if_nothing_had_been() {
    for [old, new] in [[3, 3], [1, 2]] {
        hand_over(Plan {
            configs: [settings(old), settings(new)],
            connect: plain(),
            clients: 454,
            fails: true,
            mute: MUTE,
            calls: CALLS,
            speaks_first: true,
        });
    }
}

#[test]
fn a_node_that_has_let_go_keeps_no_connection_and_no_port() {
    let seen = Arc::new(Seen::default());
    let looked = seen.clone();
    run(
        settings(3),
        movers(&seen),
        |mut link: BridgeLink<Mover>| async move {
            let address = link.addresses()[0];
            let mut streams = beside(move || {
                let mut streams: Vec<_> = (0..2_000).map(|_| connect(address)).collect();
                // These wait for room when it comes to rest.
                for stream in &mut streams[..20] {
                    stream.write_all(b"b").expect("written");
                }
                let heard =
                    || looked.accepted.load(SeqCst) == 2_000 && looked.received.load(SeqCst) == 20;
                wait_until("accepted", heard);
                streams
            })
            .await;
            link.come_to_rest().await;
            let parcels = link.export().await;
            assert_eq!(parcels.len(), 2_000);
            link.let_go();
            link.ask_all(|| Ask::Ping).await;
            streams = beside(move || {
                wait_until("the port is closed", || {
                    TcpStream::connect(address).is_err()
                });
                let last = streams.last_mut().expect("there are some");
                last.set_nonblocking(true).expect("a socket");
                let waits = last.read(&mut [0]).expect_err("another process has it");
                assert_eq!(waits.kind(), ErrorKind::WouldBlock);
                streams
            })
            .await;
            // Whoever has the other copies dies: nobody is left.
            drop(parcels);
            beside(move || {
                for mut stream in streams {
                    stream.set_nonblocking(false).expect("a socket");
                    // What was sent comes; then the end, or a reset.
                    if let Err(error) = stream.read_to_end(&mut Vec::new()) {
                        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
                    }
                }
            })
            .await;
        },
    )
    .expect("the runtime starts");
    assert_eq!(seen.closed.load(SeqCst), 2_000);
}

impl Line for Stream {
    fn end(&mut self) {
        self.conn.send_close_notify();
        self.flush().expect("our side ends");
    }

    fn socket(&self) -> &TcpStream {
        self.get_ref()
    }

    fn renew(&mut self) {
        // TLS 1.2 has no such thing.
        if self.conn.protocol_version() == Some(ProtocolVersion::TLSv1_3) {
            self.conn.refresh_traffic_keys().expect("TLS 1.3");
        }
    }
}

#[test]
fn sealed_connections_go_on_in_another_node_whatever_their_cipher() {
    let Some(both) = Both::make() else {
        return eprintln!("skipped: there is no openssl");
    };
    for (version, suites, fails) in [
        (&TLS13, "AES_256", false),
        (&TLS13, "AES_128", false),
        (&TLS13, "CHACHA20", false),
        (&TLS12, "AES_128", false),
        (&TLS12, "CHACHA20", false),
        (&TLS13, "AES_128", true),
        (&TLS12, "AES_256", true),
    ] {
        let clients = both.clients(version, suites);
        let sealed = |shards| Config {
            tls: Some(both.port.clone()),
            ..settings(shards)
        };
        hand_over(Plan {
            configs: [sealed(2), sealed(3)],
            connect: Arc::new(move |address| Box::new(secure(address, &clients))),
            clients: 96,
            fails,
            mute: MUTE,
            calls: CALLS,
            speaks_first: false,
        });
    }
}

#[test]
fn sealed_connections_go_on_in_a_node_that_offers_no_tls() {
    let Some(both) = Both::make() else {
        return eprintln!("skipped: there is no openssl");
    };
    for (version, suites) in [(&TLS13, "AES_128"), (&TLS12, "CHACHA20")] {
        let clients = both.clients(version, suites);
        let sealed = Config {
            tls: Some(both.port.clone()),
            ..settings(2)
        };
        hand_over(Plan {
            configs: [sealed, settings(3)],
            connect: Arc::new(move |address| Box::new(secure(address, &clients))),
            clients: 96,
            fails: false,
            // It would read their handshakes as they are.
            mute: 0,
            calls: 0,
            speaks_first: false,
        });
    }
}
