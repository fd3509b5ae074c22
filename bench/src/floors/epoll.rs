//! The floor of ingest and of publishes: epoll, one `recv` per message, and for a request its HMAC and a `send`.
//!
//! Owns: one thread that waits for readiness; each connection's stage.
//! May depend on: what the other floors may.
//! Invariants: per message of an open connection there is one `recv` and nothing else but what its kind asks.

use std::{
    hint,
    io::{self, ErrorKind, Read as _, Write as _},
    net,
};

use hmac::{Hmac, KeyInit as _, Mac as _};
use mio::{
    Events, Interest, Poll, Token,
    net::{TcpListener, TcpStream},
};
use sha2::Sha256;

use super::{ANSWER, greeting, subscribed};

/// What the next bytes of a connection are.
#[derive(Clone, Copy, Debug)]
enum Stage {
    First,
    Subscription,
    Messages,
    Requests,
}

struct Peer {
    stream: TcpStream,
    stage: Stage,
}

const LISTENER: Token = Token(usize::MAX);
/// Bytes of `POST`, path and query, over which a request is signed.
const SIGNED_BYTES: usize = 160;

struct Server {
    poll: Poll,
    listener: TcpListener,
    /// As many as ever connect: a floor lives for one scenario.
    peers: Vec<Option<Peer>>,
    buffer: Box<[u8]>,
    hmac: Hmac<Sha256>,
}

pub(super) fn serve(listener: net::TcpListener) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let mut server = Server {
        poll: Poll::new()?,
        listener: TcpListener::from_std(listener),
        peers: Vec::new(),
        buffer: vec![0; 16_384].into(),
        hmac: Hmac::new_from_slice(b"floor-secret").expect("HMAC takes keys of any length"),
    };
    let interest = Interest::READABLE;
    let registry = server.poll.registry();
    registry.register(&mut server.listener, LISTENER, interest)?;
    let mut events = Events::with_capacity(1_024);
    loop {
        server.poll.poll(&mut events, None)?;
        for event in &events {
            match event.token() {
                LISTENER => server.accept()?,
                Token(at) => server.read(at)?,
            }
        }
    }
}

impl Server {
    fn accept(&mut self) -> io::Result<()> {
        loop {
            let mut stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            stream.set_nodelay(true)?;
            let token = Token(self.peers.len());
            let registry = self.poll.registry();
            registry.register(&mut stream, token, Interest::READABLE)?;
            let stage = Stage::First;
            self.peers.push(Some(Peer { stream, stage }));
        }
    }

    fn read(&mut self, at: usize) -> io::Result<()> {
        let Some(peer) = &mut self.peers[at] else {
            return Ok(());
        };
        match peer.stream.read(&mut self.buffer) {
            Ok(count) if count > 0 => peer.react(&self.buffer[..count], &self.hmac),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            Ok(_) | Err(_) => {
                self.peers[at] = None;
                Ok(())
            }
        }
    }
}

impl Peer {
    fn react(&mut self, bytes: &[u8], hmac: &Hmac<Sha256>) -> io::Result<()> {
        match self.stage {
            Stage::Messages => Ok(()),
            Stage::First if bytes.starts_with(b"GET ") => {
                self.stage = Stage::Subscription;
                self.stream.write_all(&greeting())
            }
            Stage::Subscription => {
                self.stage = Stage::Messages;
                self.stream.write_all(&subscribed())
            }
            Stage::First | Stage::Requests => {
                self.stage = Stage::Requests;
                let mut hmac = hmac.clone();
                hmac.update(&bytes[..bytes.len().min(SIGNED_BYTES)]);
                hint::black_box(hmac.finalize());
                self.stream.write_all(ANSWER)
            }
        }
    }
}
