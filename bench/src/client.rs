//! Many connections on one thread: WebSocket clients, keep-alive HTTP clients, or bare streams.
//!
//! Owns: the sockets, what of each one's input is incomplete, the thread's wait for readiness.
//! May depend on: mio, `wire`, `target`.
//! Invariants: each readable socket is read until the kernel has no more; a unit is handed over once,
//! in order. A run is shorter than the servers' activity timeout (120 s), so that no ping is due.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    thread,
    time::Duration,
};

use mio::{Events, Interest, Poll, Token};
use thiserror::Error;

use crate::{
    target::Target,
    wire::{self, Splitter},
};

/// Why clients could not do their part.
#[derive(Debug, Error)]
pub enum ClientError {
    #[error("{doing} (client {client}): {source}")]
    Io {
        doing: &'static str,
        client: usize,
        source: io::Error,
    },
    #[error("client {client} expected {expected}, got {got}")]
    Unexpected {
        client: usize,
        expected: &'static str,
        got: String,
    },
    #[error("the server ended client {client}'s connection")]
    Ended { client: usize },
}

struct Socket<S> {
    stream: S,
    /// Input up to the first incomplete unit.
    unfinished: Vec<u8>,
    socket_id: String,
}

/// Clients that connect and subscribe in waves, so that the server may batch as it would in a rush.
pub struct Joining(Vec<Socket<TcpStream>>);

/// Connections of one wave.
const WAVE: usize = 100;
const PATIENCE: Duration = Duration::from_secs(20);

impl Joining {
    /// Opens `count` bare connections.
    pub fn connect(address: SocketAddr, count: usize) -> Result<Self, ClientError> {
        let mut sockets = Vec::with_capacity(count);
        for client in 0..count {
            let doing = |source| ClientError::Io {
                doing: "connect",
                client,
                source,
            };
            let stream = TcpStream::connect(address).map_err(doing)?;
            stream.set_nodelay(true).map_err(doing)?;
            stream.set_read_timeout(Some(PATIENCE)).map_err(doing)?;
            sockets.push(Socket {
                stream,
                unfinished: Vec::new(),
                socket_id: String::new(),
            });
        }
        Ok(Self(sockets))
    }

    /// Opens `count` WebSockets and subscribes the client of each number to the channel it names.
    pub fn subscribe(
        target: &Target,
        count: usize,
        channel_of: impl Fn(usize) -> String,
    ) -> Result<Self, ClientError> {
        let mut all = Self(Vec::with_capacity(count));
        while all.0.len() < count {
            let first = all.0.len();
            let mut wave = Self::connect(target.address, WAVE.min(count - first))?;
            let upgrade = wire::upgrade(&target.address.to_string(), &target.app.key);
            wave.write_each(|_, _| upgrade.clone().into_bytes())?;
            wave.read_each(wire::answer, "status 101", |_, unit| unit.code == 101)?;
            wave.read_each(wire::frame, "connection_established", |socket, unit| {
                socket.socket_id = wire::socket_id(&unit.payload).unwrap_or_default();
                !socket.socket_id.is_empty()
            })?;
            wave.write_each(|at, socket| subscription(target, socket, &channel_of(first + at)))?;
            wave.read_each(wire::frame, "subscription_succeeded", |_, unit| {
                wire::find(&unit.payload, b"subscription_succeeded").is_some()
            })?;
            all.0.append(&mut wave.0);
        }
        Ok(all)
    }

    fn write_each(&mut self, bytes_of: impl Fn(usize, &str) -> Vec<u8>) -> Result<(), ClientError> {
        for (client, socket) in self.0.iter_mut().enumerate() {
            let bytes = bytes_of(client, &socket.socket_id);
            let doing = |source| ClientError::Io {
                doing: "write",
                client,
                source,
            };
            socket.stream.write_all(&bytes).map_err(doing)?;
        }
        Ok(())
    }

    /// Reads one unit of each client, which `check` must accept.
    fn read_each(
        &mut self,
        split: Splitter,
        expected: &'static str,
        check: impl Fn(&mut Socket<TcpStream>, &Owned) -> bool,
    ) -> Result<(), ClientError> {
        for (client, socket) in self.0.iter_mut().enumerate() {
            let unit = read_unit(socket, client, split)?;
            if !check(socket, &unit) {
                let got = String::from_utf8_lossy(&unit.payload).into_owned();
                return Err(ClientError::Unexpected {
                    client,
                    expected,
                    got,
                });
            }
        }
        Ok(())
    }

    /// Makes them ready for load.
    pub fn into_herd(self, split: Splitter) -> Result<Herd, ClientError> {
        Herd::new(self.0, split).map_err(|source| ClientError::Io {
            doing: "watch",
            client: 0,
            source,
        })
    }
}

/// A unit that outlives the input it was cut from.
struct Owned {
    payload: Vec<u8>,
    code: u16,
}

fn read_unit(
    socket: &mut Socket<TcpStream>,
    client: usize,
    split: Splitter,
) -> Result<Owned, ClientError> {
    let mut buffer = [0; 4_096];
    loop {
        if let Some(unit) = split(&socket.unfinished) {
            let (len, code, payload) = (unit.len, unit.code, unit.payload.to_vec());
            socket.unfinished.drain(..len);
            return Ok(Owned { payload, code });
        }
        match socket.stream.read(&mut buffer) {
            Ok(0) => return Err(ClientError::Ended { client }),
            Ok(count) => socket.unfinished.extend_from_slice(&buffer[..count]),
            Err(source) => {
                return Err(ClientError::Io {
                    doing: "read",
                    client,
                    source,
                });
            }
        }
    }
}

fn subscription(target: &Target, socket_id: &str, channel: &str) -> Vec<u8> {
    let auth = match channel.starts_with("private-") {
        true => format!(r#","auth":"{}""#, target.channel_auth(socket_id, channel)),
        false => String::new(),
    };
    let event = format!(r#"{{"event":"pusher:subscribe","data":{{"channel":"{channel}"{auth}}}}}"#);
    wire::masked_text(event.as_bytes())
}

/// Connected clients under load, all on the calling thread.
pub struct Herd {
    poll: Poll,
    events: Events,
    sockets: Vec<Socket<mio::net::TcpStream>>,
    split: Splitter,
    buffer: Box<[u8]>,
}

const READ_BYTES: usize = 65_536;

impl Herd {
    fn new(sockets: Vec<Socket<TcpStream>>, split: Splitter) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut watched = Vec::with_capacity(sockets.len());
        for (at, socket) in sockets.into_iter().enumerate() {
            socket.stream.set_nonblocking(true)?;
            let mut stream = mio::net::TcpStream::from_std(socket.stream);
            poll.registry()
                .register(&mut stream, Token(at), Interest::READABLE)?;
            let (unfinished, socket_id) = (socket.unfinished, socket.socket_id);
            watched.push(Socket {
                stream,
                unfinished,
                socket_id,
            });
        }
        Ok(Self {
            poll,
            events: Events::with_capacity(1_024),
            sockets: watched,
            split,
            buffer: vec![0; READ_BYTES].into(),
        })
    }

    pub fn len(&self) -> usize {
        self.sockets.len()
    }

    pub fn is_empty(&self) -> bool {
        self.sockets.is_empty()
    }

    /// Sends bytes at once. The load's messages are small; a full socket buffer means that the
    /// server does not keep up, which is an error of the run.
    pub fn send(&mut self, client: usize, bytes: &[u8]) -> Result<(), ClientError> {
        let doing = |source| ClientError::Io {
            doing: "send",
            client,
            source,
        };
        match self.sockets[client].stream.write(bytes) {
            Ok(sent) if sent == bytes.len() => Ok(()),
            Ok(_) => Err(doing(ErrorKind::WriteZero.into())),
            Err(source) => Err(doing(source)),
        }
    }

    /// Sleeps that long, then hands over each complete unit that has come, with its client.
    ///
    /// Clients never wait in epoll: over loopback the sender would pay for waking them, which no
    /// server pays for a client behind a network (2 to 3 us per message on a virtual machine).
    // Per message: one recv, no allocation, no copy unless a unit is cut in two.
    pub fn receive(
        &mut self,
        after: Duration,
        mut take: impl FnMut(usize, u16, &[u8]),
    ) -> Result<(), ClientError> {
        thread::sleep(after);
        loop {
            match self.poll.poll(&mut self.events, Some(Duration::ZERO)) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(source) => {
                    return Err(ClientError::Io {
                        doing: "poll",
                        client: 0,
                        source,
                    });
                }
                Ok(()) if self.events.is_empty() => return Ok(()),
                Ok(()) => self.read_ready(&mut take)?,
            }
        }
    }

    fn read_ready(&mut self, take: &mut impl FnMut(usize, u16, &[u8])) -> Result<(), ClientError> {
        for event in &self.events {
            let client = event.token().0;
            let socket = &mut self.sockets[client];
            loop {
                match socket.stream.read(&mut self.buffer) {
                    Ok(0) => return Err(ClientError::Ended { client }),
                    Ok(count) => {
                        let bytes = &self.buffer[..count];
                        let mut take = |code, payload: &[u8]| take(client, code, payload);
                        digest(&mut socket.unfinished, bytes, self.split, &mut take);
                        // A short read empties the socket: a later byte is a new edge.
                        if count < self.buffer.len() {
                            break;
                        }
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(source) => {
                        return Err(ClientError::Io {
                            doing: "receive",
                            client,
                            source,
                        });
                    }
                }
            }
        }
        Ok(())
    }
}

/// Cuts input into units and keeps what is incomplete.
fn digest(
    unfinished: &mut Vec<u8>,
    mut bytes: &[u8],
    split: Splitter,
    take: &mut impl FnMut(u16, &[u8]),
) {
    if unfinished.is_empty() {
        while let Some(unit) = split(bytes) {
            take(unit.code, unit.payload);
            bytes = &bytes[unit.len..];
        }
        unfinished.extend_from_slice(bytes);
        return;
    }
    unfinished.extend_from_slice(bytes);
    let mut used = 0;
    while let Some(unit) = split(&unfinished[used..]) {
        take(unit.code, unit.payload);
        used += unit.len;
    }
    unfinished.drain(..used);
}

/// One keep-alive HTTP connection that waits for each answer.
pub struct Publisher(Socket<TcpStream>);

impl Publisher {
    pub fn connect(address: SocketAddr) -> Result<Self, ClientError> {
        let mut one = Joining::connect(address, 1)?;
        Ok(Self(one.0.pop().expect("one was opened")))
    }

    /// Sends a request and waits for its answer, which must be 200.
    pub fn request(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        let doing = |source| ClientError::Io {
            doing: "publish",
            client: 0,
            source,
        };
        self.0.stream.write_all(bytes).map_err(doing)?;
        let answer = read_unit(&mut self.0, 0, wire::answer)?;
        if answer.code == 200 {
            return Ok(());
        }
        let body = String::from_utf8_lossy(&answer.payload);
        let got = format!("{}: {body}", answer.code);
        Err(ClientError::Unexpected {
            client: 0,
            expected: "status 200",
            got,
        })
    }
}
