//! The floors of fan-out: a publish is sent to each subscriber, one after the other or in one submission.
//!
//! Owns: one thread that blocks: subscribers first, then a publisher until its end.
//! May depend on: what the other floors may.
//! Invariants: every subscriber gets each frame whole, or the floor ends with an error.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{TcpListener, TcpStream},
    os::fd::AsRawFd as _,
    path::Path,
    sync::Arc,
};

use io_uring::{IoUring, opcode, squeue, types::Fd};
use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};

use super::{ANSWER, greeting, subscribed, text_frame};
use crate::wire;

/// Serves one publisher after the other; its end is that of its subscribers too. `wrap` makes of an accepted
/// connection what is read and written.
pub(super) fn serve<S: Read + Write>(
    listener: &TcpListener,
    wrap: impl Fn(TcpStream) -> io::Result<S>,
    mut deliver: impl FnMut(&mut [S], &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    loop {
        let mut subscribers = Vec::new();
        let (mut publisher, mut input) = loop {
            let (stream, _) = listener.accept()?;
            stream.set_nodelay(true)?;
            let mut stream = wrap(stream)?;
            let first = read_some(&mut stream, Vec::new())?;
            if first.starts_with(b"GET ") {
                stream.write_all(&greeting())?;
                read_some(&mut stream, Vec::new())?;
                stream.write_all(&subscribed())?;
                subscribers.push(stream);
            } else {
                break (stream, first);
            }
        };
        while !input.is_empty() {
            if let Some(body) = body_of(&input) {
                deliver(&mut subscribers, &frame(body))?;
                publisher.write_all(ANSWER)?;
                input.clear();
            }
            let before = input.len();
            input = read_some(&mut publisher, input)?;
            if input.len() == before {
                break;
            }
        }
    }
}

/// Adds what one `recv` brings; nothing at the end.
fn read_some(stream: &mut impl Read, mut input: Vec<u8>) -> io::Result<Vec<u8>> {
    let mut buffer = [0; 4_096];
    match stream.read(&mut buffer) {
        Ok(count) => input.extend_from_slice(&buffer[..count]),
        // With TLS, an end without its alert is the second kind.
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof
            ) => {}
        Err(error) => return Err(error),
    }
    Ok(input)
}

/// The body of a complete request.
fn body_of(input: &[u8]) -> Option<&[u8]> {
    let body_begins = wire::find(input, b"\r\n\r\n")? + 4;
    let length = wire::content_length(std::str::from_utf8(&input[..body_begins]).ok()?)?;
    input.get(body_begins..body_begins.checked_add(length)?)
}

/// The event that a publish becomes.
fn frame(body: &[u8]) -> Vec<u8> {
    const KEY: &[u8] = br#""data":""#;
    let data = wire::find(body, KEY).map_or(&b"\"}"[..], |at| &body[at + KEY.len()..]);
    let mut event = br#"{"event":"bench","channel":"bench-000000000-fanout","data":""#.to_vec();
    event.extend_from_slice(data);
    text_frame(&event)
}

/// A `send` for each: a TLS stream seals a frame before it.
pub(super) fn send(streams: &mut [impl Write], frame: &[u8]) -> io::Result<()> {
    for stream in streams {
        stream.write_all(frame)?;
    }
    Ok(())
}

/// Makes of each connection one with TLS, with the identity of these two files in PEM.
pub(super) fn sealing(
    certificate: &Path,
    key: &Path,
) -> io::Result<impl Fn(TcpStream) -> io::Result<StreamOwned<ServerConnection, TcpStream>>> {
    let chain = CertificateDer::pem_file_iter(certificate).map_err(io::Error::other)?;
    let chain = chain
        .collect::<Result<Vec<_>, _>>()
        .map_err(io::Error::other)?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(io::Error::other)?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(io::Error::other)?;
    let config = Arc::new(config);
    Ok(move |stream| {
        let session = ServerConnection::new(Arc::clone(&config)).map_err(io::Error::other)?;
        Ok(StreamOwned::new(session, stream))
    })
}

/// A ring of which this thread is the only user.
pub(super) struct Ring(IoUring);

/// Sends of one submission.
const SENDS_MAX: u32 = 1_024;

impl Ring {
    pub(super) fn new() -> io::Result<Self> {
        let mut builder = IoUring::builder();
        builder.setup_single_issuer().setup_defer_taskrun();
        Ok(Self(builder.build(SENDS_MAX)?))
    }

    // Per subscriber: an entry and a completion; one system call for all.
    pub(super) fn send(&mut self, streams: &mut [TcpStream], frame: &[u8]) -> io::Result<()> {
        for batch in streams.chunks(SENDS_MAX as usize) {
            for stream in batch {
                let fd = Fd(stream.as_raw_fd());
                let length = u32::try_from(frame.len()).expect("floors send small frames");
                let entry = opcode::Send::new(fd, frame.as_ptr(), length)
                    .flags(libc::MSG_WAITALL)
                    .build();
                self.push(&entry)?;
            }
            self.0.submit_and_wait(batch.len())?;
            for completion in self.0.completion() {
                match completion.result() {
                    sent if sent < 0 => return Err(io::Error::from_raw_os_error(-sent)),
                    sent if sent as usize == frame.len() => {}
                    _ => return Err(ErrorKind::WriteZero.into()),
                }
            }
        }
        Ok(())
    }

    fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        // SAFETY: the entry's descriptor and frame are borrowed by `send`, which waits for all
        // completions of what it pushed before it returns; on an error the process ends.
        let pushed = unsafe { self.0.submission().push(entry) };
        pushed.map_err(|_| ErrorKind::StorageFull.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publish_becomes_an_event_with_its_data() {
        let request = b"POST / HTTP/1.1\r\nContent-Length: 15\r\n\r\n{\"data\":\"#7#x\"}";
        let body = body_of(request).expect("it is whole");
        assert_eq!(body_of(&request[..request.len() - 1]), None);
        let frame = frame(body);
        let unit = wire::frame(&frame).expect("it is whole");
        assert_eq!(unit.len, frame.len());
        assert!(unit.payload.ends_with(b"\"data\":\"#7#x\"}"));
    }
}
