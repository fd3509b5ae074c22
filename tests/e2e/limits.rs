//! A crowd of connections: what it costs, and what its sudden end does to the others.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::config::Config;
use crate::support::eventually;
use crate::support::server::Server;
use crate::support::skip::skip;
use crate::support::wire::Wire;

/// As many as this, or as the limit of open files lets both this process and the server have.
const CONNECTIONS_MAX: usize = 20_000;

/// Fewer would say nothing.
const CONNECTIONS_MIN: usize = 5_000;

/// What is needed beside the connections themselves.
const SPARE_DESCRIPTORS: usize = 1_000;

/// Source addresses, since one has only some 28 000 ports.
const SOURCES: usize = 8;

/// P-014, P-115: see the design's budget for an idle connection; the kernel's part is apart.
#[test]
fn up_to_twenty_thousand_idle_connections_are_held_and_let_go_at_once() {
    let allowed = raise_descriptor_limit(CONNECTIONS_MAX + SPARE_DESCRIPTORS);
    let crowd = allowed
        .saturating_sub(SPARE_DESCRIPTORS)
        .min(CONNECTIONS_MAX)
        / 100
        * 100;
    if crowd < CONNECTIONS_MIN {
        skip(
            "up_to_twenty_thousand_idle_connections_are_held_and_let_go_at_once",
            &format!("{allowed} open files are allowed"),
        );
        return;
    }
    let server = Server::start(&Config::new(), 1);
    let mut bystander = server.client("bystander");
    bystander.subscribes("news");
    let before = server.resident_bytes();
    let start = Instant::now();
    let (held, ids) = connect_all(&server, crowd);
    println!("{crowd} connections subscribed in {:?}", start.elapsed());
    assert_eq!(ids.len(), crowd, "all socket ids differ");
    let full = server.resident_bytes();
    let each = (full - before) / crowd as u64;
    println!("{each} bytes of resident memory per idle subscribed connection");

    // All at once, by reset, while others come.
    for wire in &held {
        wire.resets_on_drop();
    }
    let slowest = std::thread::scope(|scope| {
        let dropper = scope.spawn(move || drop(held));
        let mut slowest = Duration::ZERO;
        for number in 0..100 {
            let start = Instant::now();
            server.client(&number.to_string()).subscribes("news");
            assert_eq!(server.gets("/up").status, 200);
            slowest = slowest.max(start.elapsed());
        }
        dropper.join().expect("the connections can be dropped");
        slowest
    });
    println!("meanwhile a fresh connection with subscription and /up took at most {slowest:?}");
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    eventually("the channel to hold the bystander alone", || {
        let answer = server
            .api()
            .reads("/channels/news", &[("info", "subscription_count")]);
        (answer["subscription_count"] == 1).then_some(())
    });
    bystander.expects_pong();
    let (again, _) = connect_all(&server, crowd);
    let second = server.resident_bytes();
    drop(again);
    println!("resident: {before} before, {full} full, {second} full again");
    assert!(each <= 4_096, "{each} bytes per idle connection");
    let grown = second.saturating_sub(full);
    assert!(
        grown < full / 5,
        "the second crowd reuses what the first left: {grown} bytes more"
    );
}

// Files are kept in reserve for the metrics port, and no stranger keeps a place of the main port for long
// once most are taken.
#[test]
fn a_server_that_silent_strangers_have_filled_answers_metrics_and_soon_everybody_again() {
    const FILES: u64 = 400;
    // With the second time-out none of the strangers would be gone before this test is.
    for handshake_timeout_ms in [1_500, 3_600_000] {
        let config = Config::new().with(json!({"net": {
            "handshake_timeout_ms": handshake_timeout_ms,
        }}));
        let server = Server::start_with_files(&config, 2, FILES);
        let strangers: Vec<_> = (0..FILES)
            .map(|_| TcpStream::connect(server.address).expect("it listens"))
            .collect();
        eventually("a scrape that tells of refused connections", || {
            let refused = server.metric("sockudo_shard_accepts_refused_total");
            (refused.expect("the metrics port answers") > 0.0).then_some(())
        });
        let up = || {
            let mut wire = Wire::over(TcpStream::connect(server.address).ok()?);
            wire.sends("GET /up HTTP/1.1\r\nHost: x\r\n\r\n");
            (wire.try_reply()?.status == 200).then_some(())
        };
        eventually("the main port to answer", up);
        drop(strangers);
    }
}

/// Connects and subscribes everyone; gives the sockets and the distinct socket ids.
fn connect_all(server: &Server, crowd: usize) -> (Vec<Wire>, HashSet<String>) {
    let mut wires = Vec::with_capacity(crowd);
    let mut ids = HashSet::new();
    for first in (0..crowd).step_by(100) {
        let mut some: Vec<Wire> = (first..first + 100)
            .map(|number| Wire::over(connect_from(source(number), server.address)))
            .collect();
        for wire in &mut some {
            wire.asks_upgrade("/app/app-key?protocol=7", "");
        }
        for wire in &mut some {
            assert_eq!(wire.reply().status, 101);
            let frame: Value = serde_json::from_slice(&wire.frame().payload).expect("JSON");
            ids.insert(frame["data"].as_str().expect("a string").to_owned());
            wire.sends_text(r#"{"event":"pusher:subscribe","data":{"channel":"news"}}"#);
        }
        for wire in &mut some {
            let answer = String::from_utf8(wire.frame().payload).expect("UTF-8");
            assert!(answer.contains("subscription_succeeded"), "{answer}");
        }
        wires.extend(some);
    }
    (wires, ids)
}

fn source(number: usize) -> Ipv4Addr {
    let last = u8::try_from(number % SOURCES).expect("few sources") + 2;
    Ipv4Addr::new(127, 200, 0, last)
}

fn connect_from(source: Ipv4Addr, target: SocketAddr) -> TcpStream {
    let socket =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    // The port is chosen at connect, so that one may serve several targets.
    socket.set_reuse_address(true).expect("a fresh socket");
    socket
        .bind(&SocketAddr::from((source, 0)).into())
        .expect("a loopback address");
    socket.connect(&target.into()).expect("the server accepts");
    socket.into()
}

/// Raises the limit of open files for this process and the server that it will start, as far as it may; gives the limit.
fn raise_descriptor_limit(wanted: usize) -> usize {
    let wanted = wanted as libc::rlim_t;
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is a valid rlimit for the call's duration, which is all that getrlimit asks.
    let read = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    assert_eq!(read, 0, "the limit can be read");
    let allowed = limit.rlim_max;
    // Only a privileged process may raise the hard limit; every other may still go up to it.
    for (soft, hard) in [
        (wanted, allowed.max(wanted)),
        (allowed.min(wanted), allowed),
    ] {
        let limit = libc::rlimit {
            rlim_cur: soft,
            rlim_max: hard,
        };
        // SAFETY: setrlimit only reads `limit`, which lives for the call.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } == 0 {
            return usize::try_from(soft).expect("a limit of open files fits");
        }
    }
    usize::try_from(limit.rlim_cur).expect("a limit of open files fits")
}
