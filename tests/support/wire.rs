//! A bare TCP connection that can send anything, well formed or not, and read HTTP answers and frames.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;
use socket2::{Domain, Socket, Type};

use super::DEADLINE;

pub(crate) const CONTINUATION: u8 = 0x0;
pub(crate) const TEXT: u8 = 0x1;
pub(crate) const BINARY: u8 = 0x2;
pub(crate) const CLOSE: u8 = 0x8;
pub(crate) const PING: u8 = 0x9;
pub(crate) const PONG: u8 = 0xA;

/// The sample key of RFC 6455 1.3, and the accept value that belongs to it.
pub(crate) const WS_KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub(crate) const WS_ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

pub(crate) struct Wire {
    pub(crate) stream: TcpStream,
    received: Vec<u8>,
    /// Set once the peer closed or reset; everything received before stays readable.
    ended: bool,
}

/// An HTTP answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut found = self
            .headers
            .iter()
            .filter(|(key, _)| key.eq_ignore_ascii_case(name));
        found.next().map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in the body {:?}", self.text()))
    }
}

/// A frame as it came; servers must not fragment or mask, which `Wire::frame` checks.
#[derive(Debug, PartialEq)]
pub(crate) struct Frame {
    pub(crate) opcode: u8,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// The code of a close frame, if it has one.
    pub(crate) fn close_code(&self) -> Option<u16> {
        let bytes = self.payload.first_chunk::<2>()?;
        (self.opcode == CLOSE).then(|| u16::from_be_bytes(*bytes))
    }
}

impl Wire {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&address, DEADLINE).expect("the server accepts");
        Self::over(stream)
    }

    /// Connects from another address of this machine.
    pub(crate) fn connect_from(source: Ipv4Addr, address: SocketAddr) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        let source = SocketAddr::from((source, 0));
        socket.bind(&source.into()).expect("loopback has it");
        let connected = socket.connect_timeout(&address.into(), DEADLINE);
        connected.expect("the server accepts");
        Self::over(socket.into())
    }

    pub(crate) fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("TCP has nodelay");
        stream
            .set_write_timeout(Some(DEADLINE))
            .expect("a deadline is not zero");
        Self {
            stream,
            received: Vec::new(),
            ended: false,
        }
    }

    /// Sends bytes; a peer that closed meanwhile is for the reading side to notice.
    pub(crate) fn sends(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref());
    }

    /// Asks for an upgrade of `target` with further header lines, each ending in CR LF.
    pub(crate) fn asks_upgrade(&mut self, target: &str, more_headers: &str) {
        self.sends(format!(
            "GET {target} HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {WS_KEY}\r\n{more_headers}\r\n"
        ));
    }

    /// Upgrades and checks the answer's fixed parts.
    #[track_caller]
    pub(crate) fn upgrades(&mut self, target: &str, more_headers: &str) -> Reply {
        self.asks_upgrade(target, more_headers);
        let reply = self.reply();
        assert_eq!(reply.status, 101, "{target} is upgraded: {reply:?}");
        assert_eq!(reply.header("sec-websocket-accept"), Some(WS_ACCEPT));
        reply
    }

    /// Sends one masked frame with the FIN bit.
    pub(crate) fn sends_frame(&mut self, opcode: u8, payload: &[u8]) {
        self.sends(frame(0x80 | opcode, payload));
    }

    pub(crate) fn sends_text(&mut self, text: &str) {
        self.sends_frame(TEXT, text.as_bytes());
    }

    /// The next HTTP answer.
    #[track_caller]
    pub(crate) fn reply(&mut self) -> Reply {
        self.try_reply()
            .expect("an HTTP answer before the connection ends")
    }

    /// The next HTTP answer, or `None` when the connection ends before one.
    #[track_caller]
    pub(crate) fn try_reply(&mut self) -> Option<Reply> {
        let mut reply = self.reply_head()?;
        let status = reply.status;
        if status >= 200 && status != 204 && status != 304 {
            let chunked = reply.header("transfer-encoding") == Some("chunked");
            reply.body = if chunked {
                self.chunked_body()
            } else {
                self.sized_body(&reply)
            };
        }
        Some(reply)
    }

    /// The head of the next HTTP answer; after `HEAD` that is all of it.
    #[track_caller]
    pub(crate) fn reply_head(&mut self) -> Option<Reply> {
        let deadline = Instant::now() + DEADLINE;
        let head_bytes = loop {
            if let Some(end) = find(&self.received, b"\r\n\r\n") {
                break end + 4;
            }
            if !self.receives_more(deadline, "the head of an HTTP answer") {
                return None;
            }
        };
        let head = String::from_utf8(self.received[..head_bytes].to_vec()).expect("an ASCII head");
        let mut lines = head.trim_end().split("\r\n");
        let status_line = lines.next().expect("split gives at least one");
        assert!(
            status_line.starts_with("HTTP/1.1 "),
            "a status line: {status_line:?}"
        );
        let status = status_line[9..12]
            .parse()
            .expect("a status of three digits");
        let headers: Vec<(String, String)> = lines
            .map(|line| line.split_once(':').expect("a header has a colon"))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        self.received.drain(..head_bytes);
        Some(Reply {
            status,
            headers,
            body: Vec::new(),
        })
    }

    #[track_caller]
    fn sized_body(&mut self, reply: &Reply) -> Vec<u8> {
        let length = reply
            .header("content-length")
            .expect("an answer says its length");
        let length: usize = length.parse().expect("a length in digits");
        self.takes(length, "the body of an HTTP answer")
            .expect("the whole body")
    }

    #[track_caller]
    fn chunked_body(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let mut line = Vec::new();
            while !line.ends_with(b"\r\n") {
                line.extend(self.takes(1, "a chunk's size").expect("a chunk's size"));
            }
            let text = std::str::from_utf8(&line).expect("digits").trim();
            let length = usize::from_str_radix(text, 16).expect("a chunk's size in hex");
            let chunk = self.takes(length + 2, "a chunk").expect("a whole chunk");
            body.extend_from_slice(&chunk[..length]);
            if length == 0 {
                return body;
            }
        }
    }

    /// The next frame; fails when the connection ends before one.
    #[track_caller]
    pub(crate) fn frame(&mut self) -> Frame {
        self.try_frame(DEADLINE)
            .expect("a frame before the connection ends")
    }

    /// The next frame, or `None` when the connection ends or, with nothing of a frame received, time does.
    #[track_caller]
    pub(crate) fn try_frame(&mut self, limit: Duration) -> Option<Frame> {
        let deadline = Instant::now() + limit;
        while self.received.len() < 2 {
            if !self.try_receive(deadline) {
                return None;
            }
        }
        let [first, second] = [self.received[0], self.received[1]];
        assert_eq!(
            first & 0xF0,
            0x80,
            "a server's frame is whole and uses no extension"
        );
        assert_eq!(second & 0x80, 0, "a server's frame is not masked");
        let (length_bytes, short) = match second {
            126 => (2, 0),
            127 => (8, 0),
            short => (0, usize::from(short)),
        };
        let head = self.takes(2 + length_bytes, "a frame's head")?;
        let long = head[2..]
            .iter()
            .fold(0usize, |sum, byte| sum << 8 | usize::from(*byte));
        let payload = self.takes(short + long, "a frame's payload")?;
        Some(Frame {
            opcode: first & 0x0F,
            payload,
        })
    }

    /// Everything up to the end of the connection, as frames.
    #[track_caller]
    pub(crate) fn frames_until_end(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some(frame) = self.try_frame(DEADLINE) {
            frames.push(frame);
        }
        assert!(
            self.ended,
            "the connection ends within {DEADLINE:?}; so far {frames:?}"
        );
        frames
    }

    /// Expects a close frame with the code (after any text frames, which are returned) and the end of the stream.
    #[track_caller]
    pub(crate) fn is_closed_with(&mut self, code: u16) -> Vec<Value> {
        let mut texts = Vec::new();
        loop {
            let frame = self.frame();
            match frame.opcode {
                TEXT => texts.push(serde_json::from_slice(&frame.payload).expect("JSON")),
                CLOSE => {
                    assert_eq!(
                        frame.close_code(),
                        Some(code),
                        "{:?} after {texts:?}",
                        reason(&frame)
                    );
                    self.sends_frame(CLOSE, &code.to_be_bytes());
                    assert_eq!(self.frames_until_end(), [], "nothing follows a close frame");
                    return texts;
                }
                PING | PONG => {}
                opcode => panic!("a server sends no opcode {opcode:#x}"),
            }
        }
    }

    /// Expects the stream's end, with or without bytes before it, and gives those bytes.
    #[track_caller]
    pub(crate) fn ends(&mut self) -> Vec<u8> {
        let deadline = Instant::now() + DEADLINE;
        while self.receives_more(deadline, "the end of the connection") {}
        std::mem::take(&mut self.received)
    }

    /// Exactly `count` bytes, or `None` when the connection ends before.
    #[track_caller]
    fn takes(&mut self, count: usize, what: &str) -> Option<Vec<u8>> {
        let deadline = Instant::now() + DEADLINE;
        while self.received.len() < count {
            if !self.receives_more(deadline, what) {
                return None;
            }
        }
        Some(self.received.drain(..count).collect())
    }

    /// Reads once; false at the end of the stream; fails at the deadline.
    #[track_caller]
    fn receives_more(&mut self, deadline: Instant, what: &str) -> bool {
        let more = self.try_receive(deadline);
        assert!(
            more || self.ended,
            "waited for {what}; so far {:?}",
            lossy(&self.received)
        );
        more
    }

    /// Reads once; false at the end of the stream and at the deadline.
    fn try_receive(&mut self, deadline: Instant) -> bool {
        if self.ended {
            return false;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        self.stream
            .set_read_timeout(Some(left))
            .expect("a deadline is not zero");
        let mut buffer = [0; 16 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(0) => self.ended = true,
            Ok(count) => self.received.extend_from_slice(&buffer[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return false;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => self.ended = true,
        }
        !self.ended
    }

    /// Makes the kernel send a reset instead of an orderly end when the connection is dropped.
    pub(crate) fn resets_on_drop(&self) {
        socket2::SockRef::from(&self.stream)
            .set_linger(Some(Duration::ZERO))
            .expect("TCP has linger");
    }
}

/// A masked client frame with the given first byte (FIN, RSV and opcode).
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];
    let mut bytes = head(first, 0x80, payload.len() as u64);
    bytes.extend(MASK);
    bytes.extend(
        payload
            .iter()
            .zip(MASK.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    bytes
}

/// A frame's head without mask key; `mask` is 0x80 or 0.
pub(crate) fn head(first: u8, mask: u8, length: u64) -> Vec<u8> {
    let mut bytes = vec![first];
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short @ 0..=125), _) => bytes.push(mask | short),
        (_, Ok(long)) => {
            bytes.push(mask | 126);
            bytes.extend(long.to_be_bytes());
        }
        _ => {
            bytes.push(mask | 127);
            bytes.extend(length.to_be_bytes());
        }
    }
    bytes
}

pub(crate) fn reason(frame: &Frame) -> String {
    lossy(frame.payload.get(2..).unwrap_or_default())
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(300)]).into_owned()
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}
