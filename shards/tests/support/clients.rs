//! Clients of `Mover` that have every kind of unfinished business while their node changes.
//!
//! Owns: `Clients`, `Line`.
//! May depend on: std, `mover`.
//! Invariants: each client knows byte by byte what it is still owed.

#![allow(dead_code, reason = "each test file uses a part of it")]

use crate::{
    mover::{BLAST_BYTES, DRAINED, LATER, MESSAGE_BYTES},
    support::pattern,
};
use socket2::SockRef;
use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::Arc,
};

/// A connection, sealed or not.
pub(crate) trait Line: Read + Write + Send {
    /// Ends our side.
    fn end(&mut self);
    fn socket(&self) -> &TcpStream;
    /// Takes other keys, where there are some.
    fn renew(&mut self) {}
}

impl Line for TcpStream {
    fn end(&mut self) {
        self.shutdown(Shutdown::Write).expect("our side ends");
    }

    fn socket(&self) -> &TcpStream {
        self
    }
}

/// Makes a client's connection.
pub(crate) type Connect = Arc<dyn Fn(SocketAddr) -> Box<dyn Line> + Send + Sync>;

struct Client {
    kind: u8,
    line: Box<dyn Line>,
    owed: Vec<u8>,
}

impl Client {
    fn write(&mut self, bytes: &[u8], is_echoed: bool) {
        self.line.write_all(bytes).expect("written");
        if is_echoed {
            self.owed.extend_from_slice(bytes);
        }
    }

    fn read(&mut self, bytes: usize) {
        let mut got = vec![0; bytes];
        let kind = char::from(self.kind);
        let read = self.line.read_exact(&mut got);
        read.unwrap_or_else(|error| panic!("{kind}: {error}"));
        assert!(got == self.owed[..bytes], "{kind}: not what it is owed");
        self.owed.drain(..bytes);
    }
}

pub(crate) struct Clients {
    all: Vec<Client>,
    connect: Connect,
    /// Bytes that the node hears before it freezes.
    pub(crate) heard: u64,
}

/// What is different in each client, so that none gets another's.
fn bytes_of(kind: u8, number: usize, bytes: usize) -> Vec<u8> {
    let mut all = pattern(bytes + number);
    all.drain(..number);
    all[0] = kind;
    all
}

const KINDS: &[u8] = b"emhpetme";
/// Bytes that wait in the kernel for one who does not read.
const UNREAD_BYTES: usize = 3_000;

impl Clients {
    /// `count` clients, some who read nothing or have ended their side, and `mute` ones who have said nothing.
    pub(crate) fn begin(
        address: SocketAddr,
        connect: Connect,
        (count, mute): (usize, usize),
    ) -> Self {
        let mut clients = Self {
            all: Vec::new(),
            connect,
            heard: 0,
        };
        let kinds = KINDS.iter().copied().cycle().take(count);
        let mute = std::iter::repeat_n(b'q', mute);
        for kind in kinds.chain([b'b'; 8]).chain([b'l'; 12]).chain(mute) {
            clients.add(kind, address);
        }
        clients
    }

    fn add(&mut self, kind: u8, address: SocketAddr) {
        let number = self.all.len();
        let line = (self.connect)(address);
        let owed = Vec::new();
        let mut client = Client { kind, line, owed };
        if kind == b'b' {
            // Or the kernel would take all of it.
            let socket = SockRef::from(client.line.socket());
            socket.set_recv_buffer_size(65_536).expect("a small window");
        }
        if kind == b'q' {
            self.all.push(client);
            return;
        }
        let bytes = match kind {
            b'e' | b'm' => 2_000,
            b'h' => 2 * MESSAGE_BYTES + 50,
            b'p' => 100,
            _ => 1,
        };
        let first = bytes_of(kind, number, bytes);
        self.heard += first.len() as u64;
        client.write(&first, matches!(kind, b'e' | b'm' | b'h' | b'p'));
        match kind {
            b'e' | b'm' => {
                client.read(600);
                client.line.renew();
                let more = bytes_of(b'-', number, 70);
                self.heard += more.len() as u64;
                client.write(&more, true);
                client.read(400);
            }
            b'h' => client.read(2 * MESSAGE_BYTES),
            b'p' => {
                client.read(first.len());
                client.write(&bytes_of(b'P', number, UNREAD_BYTES), true);
            }
            b'b' => {
                client.owed = pattern(BLAST_BYTES);
                client.owed.extend_from_slice(DRAINED);
            }
            b't' => client.owed = b"!".to_vec(),
            _ => {
                client.owed = LATER.to_vec();
                client.line.end();
            }
        }
        self.all.push(client);
    }

    /// While nobody reads: more of all who may say more, and new ones who cannot be heard yet.
    pub(crate) fn go_on(&mut self) {
        for (number, client) in self.all.iter_mut().enumerate() {
            match client.kind {
                b'e' | b'm' => {
                    client.line.renew();
                    client.write(&bytes_of(b'+', number, 500), true);
                }
                b'h' => client.write(&bytes_of(b'+', number, 50), true),
                _ => {}
            }
        }
    }

    /// Connects some who are not heard yet; they say something as soon as they are.
    pub(crate) fn call(
        address: SocketAddr,
        connect: &Connect,
        speaks_first: bool,
        count: usize,
    ) -> Vec<Box<dyn Line>> {
        let call = |number: usize| {
            let mut line = connect(address);
            if speaks_first {
                let bytes = bytes_of(b'e', number, 300);
                line.write_all(&bytes).expect("written");
            }
            line
        };
        (0..count).map(call).collect()
    }

    /// Reads all that is owed, and sees that nothing else comes.
    pub(crate) fn finish(mut self) {
        for client in &mut self.all {
            client.read(client.owed.len());
            match client.kind {
                b'q' => {
                    client.write(b"e, at last", true);
                    client.read(10);
                }
                b'e' | b'm' => {
                    client.line.renew();
                    client.write(b"last", true);
                    client.read(4);
                }
                b'l' => {
                    let end = client.line.read_to_end(&mut Vec::new());
                    assert_eq!(end.expect("an orderly end"), 0);
                }
                _ => {}
            }
        }
    }

    pub(crate) fn finish_calls(calls: Vec<Box<dyn Line>>, have_spoken: bool) {
        for (number, mut line) in calls.into_iter().enumerate() {
            let bytes = bytes_of(b'e', number, 300);
            if !have_spoken {
                line.write_all(&bytes).expect("written");
            }
            let mut got = vec![0; 300];
            line.read_exact(&mut got).expect("echoed");
            assert!(got == bytes);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }
}
