//! A way between two servers that can be shut: whoever goes through it is cut off, and comes no more until it is
//! open again. It may be slow.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Listens until the process ends.
pub(crate) struct Gate {
    state: Arc<Mutex<State>>,
}

struct State {
    is_open: bool,
    /// So far.
    passed: usize,
    streams: Vec<TcpStream>,
}

impl Gate {
    /// At that address, to that one.
    pub(crate) fn open(at: SocketAddr, to: SocketAddr) -> Self {
        Self::slow(at, to, Duration::ZERO)
    }

    /// The same, with each answer late by so much.
    pub(crate) fn slow(at: SocketAddr, to: SocketAddr, delay: Duration) -> Self {
        let listener = TcpListener::bind(at).expect("a free port");
        let state = State {
            is_open: true,
            passed: 0,
            streams: Vec::new(),
        };
        let state = Arc::new(Mutex::new(state));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut state = shared.lock().expect("nobody panics with it");
                // A connection that is dropped is closed.
                if state.is_open
                    && let Ok(target) = TcpStream::connect(to)
                {
                    let ends = [&stream, &target, &stream, &target];
                    let [a, b, c, d] = ends.map(|it| it.try_clone().expect("it can be copied"));
                    std::thread::spawn(move || carry(a, b, Duration::ZERO));
                    std::thread::spawn(move || carry(d, c, delay));
                    state.passed += 1;
                    state.streams.extend([stream, target]);
                }
            }
        });
        Self { state }
    }

    pub(crate) fn shut(&self) {
        let mut state = self.state.lock().expect("nobody panics with it");
        state.is_open = false;
        for stream in state.streams.drain(..) {
            // It may be closed already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// How many connections went through it.
    pub(crate) fn passed(&self) -> usize {
        self.state.lock().expect("nobody panics with it").passed
    }

    pub(crate) fn open_again(&self) {
        self.state.lock().expect("nobody panics with it").is_open = true;
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, delay: Duration) {
    let mut bytes = [0; 4_096];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        if !delay.is_zero() {
            std::thread::sleep(delay);
        }
        if to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}
