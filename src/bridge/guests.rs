//! The connections of listeners beside the port: of the metrics, of the admin socket, of plain HTTP that is redirected.
//!
//! Owns: the accept loop, how many there are, how long each may take.
//! May depend on: axum, hyper, tokio.
//! Invariants: at most `Bounds::connections_max` connections; a connection is one request and ends
//! within its times, so that no stranger holds a file for long; who comes last is heard: the
//! oldest that has not asked makes room.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{Router, serve::Listener};
use hyper::{
    server::conn::http1,
    service::{Service as _, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::JoinHandle,
};

use crate::bridge::handover::doors::{Gate, Served};

/// What the listener's peers may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub connections_max: usize,
    /// For a request's head.
    pub head_within: Duration,
    /// For all of it, the answer's last byte included.
    pub done_within: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections_max: 64,
            head_within: Duration::from_secs(5),
            done_within: Duration::from_secs(30),
        }
    }
}

/// Accepts and serves until the gate is closed for good; who is being served then is served.
pub(super) async fn serve(
    mut listener: impl Listener,
    router: Router,
    bounds: Bounds,
    mut gate: Gate,
) {
    let mut guests: Vec<Guest> = Vec::with_capacity(bounds.connections_max);
    loop {
        // Where no file is left it pauses and tries again: who is here already may give one back.
        if !gate.opens().await {
            return;
        }
        let (stream, _) = tokio::select! {
            biased;
            () = gate.shuts() => continue,
            accepted = listener.accept() => accepted,
        };
        make_room(&mut guests, bounds.connections_max);
        guests.push(Guest::welcome(stream, router.clone(), bounds, gate.guest()));
        assert!(guests.len() <= bounds.connections_max);
    }
}

/// A connection, oldest first in its list.
struct Guest {
    task: JoinHandle<()>,
    has_asked: Arc<AtomicBool>,
}

impl Guest {
    fn welcome<S>(stream: S, router: Router, bounds: Bounds, served: Served) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let has_asked = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&has_asked);
        let routes = TowerToHyperService::new(router);
        let service = service_fn(move |request| {
            asked.store(true, Ordering::Relaxed);
            routes.call(request)
        });
        let task = tokio::spawn(async move {
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(bounds.head_within)
                .keep_alive(false)
                .max_buf_size(HEAD_BYTES_MAX)
                .serve_connection(TokioIo::new(stream), service);
            // A peer that breaks off, or takes too long, is nobody's trouble but its own.
            let _ = tokio::time::timeout(bounds.done_within, connection).await;
            drop(served);
        });
        Self { task, has_asked }
    }
}

const HEAD_BYTES_MAX: usize = 16 << 10;

/// Sends somebody away when all places are taken.
fn make_room(guests: &mut Vec<Guest>, connections_max: usize) {
    guests.retain(|guest| !guest.task.is_finished());
    if guests.len() < connections_max {
        return;
    }
    let silent = guests
        .iter()
        .position(|guest| !guest.has_asked.load(Ordering::Relaxed));
    guests.remove(silent.unwrap_or(0)).task.abort();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bridge::handover::doors::Doors;
    use axum::routing::get;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::{TcpListener, TcpStream},
        time::timeout,
    };

    const PATIENCE: Duration = Duration::from_secs(15);

    async fn listening(bounds: Bounds) -> std::net::SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let router = Router::new().route("/up", get(async || "OK"));
        let gate = Doors::default().gate();
        tokio::spawn(serve(listener, router, bounds, gate));
        address
    }

    async fn connect(address: std::net::SocketAddr, says: &str) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        stream.write_all(says.as_bytes()).await.expect("it reads");
        stream
    }

    async fn heard(mut stream: TcpStream) -> String {
        let mut bytes = Vec::new();
        // A connection that was sent away may be reset.
        let read = timeout(PATIENCE, stream.read_to_end(&mut bytes));
        let _ = read.await.expect("the listener ends the connection");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    #[tokio::test]
    async fn whoever_asks_is_answered_however_many_are_silent_and_the_oldest_of_these_go() {
        let bounds = Bounds {
            connections_max: 8,
            head_within: PATIENCE * 4,
            done_within: PATIENCE * 4,
        };
        let address = listening(bounds).await;
        let mut silent = Vec::new();
        for number in 0..30 {
            let says = ["", "GET /up HT"][number % 2];
            silent.push(connect(address, says).await);
        }
        for _ in 0..3 {
            let asker = connect(address, "GET /up HTTP/1.1\r\nhost: x\r\n\r\n").await;
            let answer = heard(asker).await;
            assert!(answer.ends_with("\r\n\r\nOK"), "{answer}");
        }
        // All but those that there is a place for.
        for stream in silent.drain(..30 - bounds.connections_max) {
            assert_eq!(heard(stream).await, "");
        }
    }

    #[tokio::test]
    async fn a_head_that_does_not_come_in_time_ends_its_connection() {
        let bounds = Bounds {
            head_within: Duration::from_millis(20),
            ..Bounds::default()
        };
        let address = listening(bounds).await;
        for says in ["", "GET /up HTTP/1.1\r\nhost: "] {
            let stream = connect(address, says).await;
            assert!(!heard(stream).await.contains("OK"), "{says:?}");
        }
    }
}
