//! The floor of ingest, of publishes and of webhooks: epoll, one `recv` per message, and for a request its HMAC and a
//! `send`.
//!
//! Owns: one thread that waits for readiness; each connection's stage; kept connections to a target.
//! May depend on: what the other floors may.
//! Invariants: per message of an open connection there is one `recv` and nothing else but what its kind asks; a
//! request to the target is one `send`, its answer one `recv`.

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
    /// The target's: an answer, or its end.
    Answers,
}

struct Peer {
    stream: TcpStream,
    stage: Stage,
}

const LISTENER: Token = Token(usize::MAX);
/// Bytes of `POST`, path and query, over which a request is signed.
const SIGNED_BYTES: usize = 160;
/// Bytes of a client event's data.
const MESSAGE_BYTES: usize = 100;

struct Server {
    poll: Poll,
    listener: TcpListener,
    /// As many as ever connect: a floor lives for one scenario.
    peers: Vec<Option<Peer>>,
    buffer: Box<[u8]>,
    hmac: Hmac<Sha256>,
    webhooks: Option<Webhooks>,
}

/// Each message goes to a target.
struct Webhooks {
    target: net::SocketAddr,
    request: Vec<u8>,
    /// Where the body begins, which is signed.
    body_begins: usize,
    /// Connections that wait for no answer.
    idle: Vec<usize>,
}

pub(super) fn serve(listener: net::TcpListener, target: Option<net::SocketAddr>) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let mut server = Server {
        poll: Poll::new()?,
        listener: TcpListener::from_std(listener),
        peers: Vec::new(),
        buffer: vec![0; 16_384].into(),
        hmac: Hmac::new_from_slice(b"floor-secret").expect("HMAC takes keys of any length"),
        webhooks: target.map(Webhooks::new),
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
            Ok(count) if count > 0 => match (peer.stage, &mut self.webhooks) {
                (Stage::Answers, Some(webhooks)) => {
                    webhooks.idle.push(at);
                    Ok(())
                }
                (Stage::Messages, Some(_)) => self.send_webhook(),
                _ => peer.react(&self.buffer[..count], &self.hmac),
            },
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            Ok(_) | Err(_) => {
                self.peers[at] = None;
                Ok(())
            }
        }
    }

    /// On a connection that waits for no answer, or a new one.
    fn send_webhook(&mut self) -> io::Result<()> {
        let Some(webhooks) = &mut self.webhooks else {
            return Ok(());
        };
        let mut hmac = self.hmac.clone();
        hmac.update(&webhooks.request[webhooks.body_begins..]);
        hint::black_box(hmac.finalize());
        let at = match webhooks.idle.pop() {
            Some(at) => at,
            None => {
                let stream = net::TcpStream::connect(webhooks.target)?;
                stream.set_nodelay(true)?;
                stream.set_nonblocking(true)?;
                let mut stream = TcpStream::from_std(stream);
                let token = Token(self.peers.len());
                let registry = self.poll.registry();
                registry.register(&mut stream, token, Interest::READABLE)?;
                let stage = Stage::Answers;
                self.peers.push(Some(Peer { stream, stage }));
                token.0
            }
        };
        match &mut self.peers[at] {
            Some(peer) => peer.stream.write_all(&webhooks.request),
            None => Err(ErrorKind::NotConnected.into()),
        }
    }
}

impl Webhooks {
    /// As many bytes as our server sends for a client event of the tables' size.
    fn new(target: net::SocketAddr) -> Self {
        let data = "x".repeat(MESSAGE_BYTES);
        let body = format!(
            r#"{{"time_ms":1700000000000,"events":[{{"name":"client_event","channel":"private-bench-000000000-0000","event":"client-bench","data":"{data}","socket_id":"1234567890.1234567890"}}]}}"#
        );
        let signature = "0".repeat(64);
        let mut request = format!(
            "POST / HTTP/1.1\r\nHost: {target}\r\nContent-Type: application/json\r\n\
             User-Agent: floor\r\nX-Pusher-Key: bench-key\r\nX-Pusher-Signature: {signature}\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        );
        let body_begins = request.len();
        request.push_str(&body);
        Self {
            target,
            request: request.into_bytes(),
            body_begins,
            idle: Vec::new(),
        }
    }
}

impl Peer {
    fn react(&mut self, bytes: &[u8], hmac: &Hmac<Sha256>) -> io::Result<()> {
        match self.stage {
            Stage::Messages | Stage::Answers => Ok(()),
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
