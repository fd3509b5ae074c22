//! The floors of fan-out: a publish is sent to each subscriber, one after the other or in one submission.
//!
//! Owns: one thread that blocks: subscribers first, then a publisher until its end.
//! May depend on: what the other floors may.
//! Invariants: every subscriber gets each frame whole, or the floor ends with an error.

use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::fd::AsRawFd as _,
};

use io_uring::{IoUring, opcode, squeue, types::Fd};

use super::{ANSWER, greeting, subscribed, text_frame};
use crate::wire;

/// Serves one publisher after the other; its end is that of its subscribers too.
pub(super) fn serve(
    listener: &TcpListener,
    mut deliver: impl FnMut(&[TcpStream], &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    loop {
        let mut subscribers = Vec::new();
        let (mut publisher, mut input) = loop {
            let (mut stream, _) = listener.accept()?;
            stream.set_nodelay(true)?;
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
                deliver(&subscribers, &frame(body))?;
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
fn read_some(stream: &mut TcpStream, mut input: Vec<u8>) -> io::Result<Vec<u8>> {
    let mut buffer = [0; 4_096];
    match stream.read(&mut buffer) {
        Ok(count) => input.extend_from_slice(&buffer[..count]),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
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

pub(super) fn send(streams: &[TcpStream], frame: &[u8]) -> io::Result<()> {
    for mut stream in streams {
        stream.write_all(frame)?;
    }
    Ok(())
}

/// A ring of which this thread is the only user.
pub(super) struct Ring(IoUring);

/// Sends of one submission.
const SENDS_MAX: usize = 1_024;

impl Ring {
    pub(super) fn new() -> io::Result<Self> {
        let mut builder = IoUring::builder();
        builder.setup_single_issuer().setup_defer_taskrun();
        Ok(Self(builder.build(SENDS_MAX as u32)?))
    }

    // Per subscriber: an entry and a completion; one system call for all.
    pub(super) fn send(&mut self, streams: &[TcpStream], frame: &[u8]) -> io::Result<()> {
        for batch in streams.chunks(SENDS_MAX) {
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
