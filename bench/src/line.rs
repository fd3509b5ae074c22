//! The socket of a conversation, with or without TLS.
//!
//! Owns: the socket; what TLS has sealed and the socket has not taken.
//! May depend on: mio, rustls, `tls`.
//! Invariants: it never waits; `WouldBlock` says that nothing more can be done before the next event of the socket;
//! the end of the stream is a read of nothing, whether TLS took leave or not.

use std::io::{self, ErrorKind, Read, Write as _};

use mio::net::TcpStream;
use rustls::{ClientConnection, HandshakeKind};

use crate::tls::Tls;

pub(crate) enum Line {
    Plain(TcpStream),
    Sealed(Box<Sealed>),
}

pub(crate) struct Sealed {
    tcp: TcpStream,
    tls: ClientConnection,
    /// The last read left nothing in the socket.
    is_drained: bool,
}

impl Line {
    pub(crate) fn new(tcp: TcpStream, tls: Option<&Tls>) -> Self {
        match tls {
            None => Self::Plain(tcp),
            Some(tls) => Self::Sealed(Box::new(Sealed {
                tcp,
                tls: tls.begin(),
                is_drained: false,
            })),
        }
    }

    pub(crate) fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Sealed(sealed) => &sealed.tcp,
        }
    }

    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.read(buffer),
            Self::Sealed(sealed) => sealed.read(buffer),
        }
    }

    /// Whether there may be more after a read of `count` bytes: a later byte is a new event otherwise.
    pub(crate) fn may_hold_more(&self, count: usize, asked: usize) -> bool {
        count == asked || matches!(self, Self::Sealed(sealed) if !sealed.is_drained)
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.write(bytes),
            Self::Sealed(sealed) => sealed.write(bytes),
        }
    }

    /// Sends what was written before and not taken: records, or the handshake's next step.
    pub(crate) fn push(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Sealed(sealed) => sealed.push(),
        }
    }

    /// Whether TLS went on with an earlier session.
    pub(crate) fn has_resumed(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Sealed(sealed) => sealed.tls.handshake_kind() == Some(HandshakeKind::Resumed),
        }
    }
}

impl Sealed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.tls.reader().read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                read => return read,
            }
            let mut tcp = Noting(&mut self.tcp, &mut self.is_drained);
            if self.tls.read_tls(&mut tcp)? == 0 {
                return Ok(0);
            }
            let opened = self.tls.process_new_packets();
            // Also an alert that says why.
            self.push()?;
            opened.map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = self.tls.writer().write(bytes)?;
        self.push()?;
        match taken {
            0 => Err(ErrorKind::WouldBlock.into()),
            taken => Ok(taken),
        }
    }

    fn push(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut self.tcp) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                written => drop(written?),
            }
        }
        Ok(())
    }
}

/// A socket, and whether the last read left nothing in it.
struct Noting<'a>(&'a mut TcpStream, &'a mut bool);

impl Read for Noting<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.0.read(buffer)?;
        *self.1 = count < buffer.len();
        Ok(count)
    }
}
