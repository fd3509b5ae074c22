//! A target of webhooks: takes each request, answers 200, and counts the events in it.
//!
//! Owns: `Sink`.
//! May depend on: nothing of this crate.
//! Invariants: it listens on loopback only; what is no request ends its connection; the threads of
//! connections end with their peers.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use serde_json::Value;

/// A target that runs until the process ends.
#[derive(Clone, Debug)]
pub struct Sink {
    pub address: SocketAddr,
    events: Arc<AtomicU64>,
}

/// More than any batch has.
const BODY_BYTES_MAX: usize = 16 << 20;

impl Sink {
    pub fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let sink = Self {
            address: listener.local_addr()?,
            events: Arc::default(),
        };
        let events = Arc::clone(&sink.events);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let events = Arc::clone(&events);
                thread::spawn(move || serve(stream, &events));
            }
        });
        Ok(sink)
    }

    /// Events that came so far.
    pub fn events(&self) -> u64 {
        self.events.load(Ordering::Relaxed)
    }
}

/// Until the peer closes, or sends what is no request.
fn serve(stream: TcpStream, events: &AtomicU64) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut answers = stream.try_clone().ok()?;
    let mut requests = BufReader::new(stream);
    let mut line = String::new();
    let mut body = Vec::new();
    loop {
        let mut bytes = 0;
        loop {
            line.clear();
            if requests.read_line(&mut line).ok()? == 0 {
                return Some(());
            }
            if line == "\r\n" {
                break;
            }
            let (name, value) = line.split_once(':').unwrap_or_default();
            if name.eq_ignore_ascii_case("content-length") {
                bytes = value.trim().parse().ok()?;
            }
        }
        if bytes > BODY_BYTES_MAX {
            return None;
        }
        body.resize(bytes, 0);
        requests.read_exact(&mut body).ok()?;
        let parsed: Value = serde_json::from_slice(&body).ok()?;
        let count = parsed.get("events")?.as_array()?.len();
        events.fetch_add(count as u64, Ordering::Relaxed);
        answers
            .write_all(
                b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: text/plain\r\n\r\nok",
            )
            .ok()?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_each_request_are_counted() {
        let sink = Sink::start().expect("a port");
        let mut stream = TcpStream::connect(sink.address).expect("it listens");
        let body = r#"{"time_ms":1,"events":[{"name":"a"},{"name":"b"}]}"#;
        let request = format!(
            "POST / HTTP/1.1\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        for expected in [2, 4] {
            stream.write_all(request.as_bytes()).expect("it reads");
            let mut answer = [0; 66];
            stream.read_exact(&mut answer).expect("it answers");
            assert!(answer.ends_with(b"ok"));
            assert_eq!(sink.events(), expected);
        }
    }
}
