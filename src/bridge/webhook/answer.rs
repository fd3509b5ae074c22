//! An HTTP/1.1 answer: from bytes, as they come, to its status and its end.
//!
//! Owns: `Answer`, which collects one; `Done`; `Fault`, why it is none.
//! May depend on: httparse, hyper's status codes. No socket, no clock.
//! Invariants: however the bytes are cut, the outcome is the same; what is held is bounded; a connection
//! counts as usable again only if nothing lies behind an answer that ended where it says.

use httparse::{EMPTY_HEADER, Header, ParserConfig, Response, Status, parse_chunk_size};
use hyper::StatusCode;

/// One answer on its way.
#[derive(Debug)]
pub struct Answer {
    /// What came and is not done with: of the head, then of the body with its framing.
    bytes: Vec<u8>,
    /// Ends of lines that came before the head.
    blank: usize,
    /// So many of `bytes` were looked through for the head's end.
    looked: usize,
    head: Option<Head>,
    /// Answers that only say that another comes.
    interim: usize,
    /// So many bytes of the body are to be kept.
    keep_bytes: usize,
}

/// What the end of an answer depends on.
#[derive(Clone, Copy, Debug)]
struct Head {
    status: StatusCode,
    body: Framing,
    /// The peer does not close behind it.
    stays: bool,
}

#[derive(Clone, Copy, Debug)]
enum Framing {
    Bytes(u64),
    /// The chunks before that place were looked at.
    Chunks(usize),
    /// To the end of the connection.
    Rest,
}

/// A whole answer, or as much as is read of any.
#[derive(Debug, PartialEq, Eq)]
pub struct Done {
    pub status: StatusCode,
    pub body: Vec<u8>,
    /// The connection may be used again.
    pub stays: bool,
}

/// Why there is no status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("it closed the connection without an answer")]
    Closed,
    #[error("its answer is not HTTP/1.1")]
    NotHttp,
    #[error("its answer's head is larger than {HEAD_BYTES_MAX} B")]
    LargeHead,
    #[error("its answer's length is none")]
    BadLength,
    #[error("it says more than {INTERIM_MAX} times that an answer comes")]
    Interim,
}

/// What every answer begins with.
const VERSION: &[u8] = b"HTTP/1.";
/// Of one head, and of what came before it.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// More have room elsewhere; the head's bytes are their bound.
const HEADERS_AT_HAND: usize = 64;
/// Interim answers before the answer; a target sends one or two.
const INTERIM_MAX: usize = 16;
/// More of a body is not read; the connection is closed instead of used again.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// A chunk's length with its extension.
const CHUNK_LINE_MAX: usize = 1_024;
const TRAILERS_BYTES_MAX: usize = 16 * 1024;

impl Answer {
    pub fn new(keep_bytes: usize) -> Self {
        Self {
            bytes: Vec::new(),
            blank: 0,
            looked: 0,
            head: None,
            interim: 0,
            keep_bytes,
        }
    }

    /// Takes what came; `Some` when that is all of it. Then nothing more is to be handed over.
    ///
    /// # Errors
    /// When it is no answer.
    pub fn take(&mut self, bytes: &[u8]) -> Result<Option<Done>, Fault> {
        self.bytes.extend_from_slice(bytes);
        while self.head.is_none() {
            let Some(end) = self.head_end()? else {
                return Ok(None);
            };
            self.take_head(end)?;
        }
        Ok(self.take_body())
    }

    /// Its status is known, and only the body may be missing.
    pub fn has_status(&self) -> bool {
        self.head.is_some()
    }

    /// The peer sends no more, or nobody waits for it.
    ///
    /// # Errors
    /// When there is no status.
    pub fn end(&self) -> Result<Done, Fault> {
        let head = self.head.ok_or(Fault::Closed)?;
        Ok(self.cut(head))
    }

    /// Where the head ends, if that has come. Each byte is looked at once, and no more of them than a head may have.
    fn head_end(&mut self) -> Result<Option<usize>, Fault> {
        if self.looked == 0 {
            // Some targets end the answer before with a line more.
            let begins = self.bytes.iter().position(|it| !b"\r\n".contains(it));
            let blank = begins.unwrap_or(self.bytes.len());
            self.bytes.drain(..blank);
            self.blank += blank;
        }
        let room = HEAD_BYTES_MAX.checked_sub(self.blank);
        let room = room.ok_or(Fault::LargeHead)?;
        let bytes = &self.bytes[..self.bytes.len().min(room)];
        if !bytes
            .iter()
            .zip(VERSION)
            .all(|(byte, expected)| byte == expected)
        {
            return Err(Fault::NotHttp);
        }
        let from = self.looked.saturating_sub(2);
        let end = empty_line_end(&bytes[from..]).map(|end| from + end);
        self.looked = bytes.len();
        match end {
            None if self.bytes.len() > room => Err(Fault::LargeHead),
            end => Ok(end),
        }
    }

    /// Takes a whole head. One that only says that another comes leaves `head` empty.
    fn take_head(&mut self, end: usize) -> Result<(), Fault> {
        let parsed = with_headers(&self.bytes[..end], |response| {
            let status = response.code.map(StatusCode::from_u16);
            let status = status.and_then(Result::ok).ok_or(Fault::NotHttp)?;
            let is_last = !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS;
            let head = Head::of(status, response.version == Some(1), response.headers);
            is_last.then_some(head).transpose()
        });
        self.head = parsed?;
        if self.head.is_none() {
            self.interim += 1;
            if self.interim > INTERIM_MAX {
                return Err(Fault::Interim);
            }
        }
        self.bytes.drain(..end);
        (self.blank, self.looked) = (0, 0);
        Ok(())
    }

    fn take_body(&mut self) -> Option<Done> {
        let head = self.head?;
        let is_large = self.bytes.len() > BODY_BYTES_MAX;
        self.bytes.truncate(BODY_BYTES_MAX + 1); // As if they came one by one.
        let ends_at = match head.body {
            Framing::Bytes(bytes) => usize::try_from(bytes).ok(),
            Framing::Rest => None,
            Framing::Chunks(at) => match self.walk_chunks(at) {
                Ok(end) => end,
                // A status has come, whatever becomes of the rest.
                Err(Malformed) => return Some(self.cut(head)),
            },
        };
        match ends_at.filter(|end| *end <= self.bytes.len()) {
            Some(end) => Some(Done {
                status: head.status,
                body: self.kept(head),
                stays: head.stays && end == self.bytes.len() && !is_large,
            }),
            None if is_large => Some(self.cut(head)),
            None => None,
        }
    }

    /// What there is of it, and nothing comes behind.
    fn cut(&self, head: Head) -> Done {
        Done {
            status: head.status,
            body: self.kept(head),
            stays: false,
        }
    }

    /// Where the last chunk ends, if that has come. Each chunk is looked at once.
    fn walk_chunks(&mut self, mut at: usize) -> Result<Option<usize>, Malformed> {
        let end = loop {
            let rest = &self.bytes[at..];
            match chunk(rest)? {
                Chunk::Whole { end, .. } => at += end,
                Chunk::Last { end } => break Some(at + end),
                Chunk::Partial { .. } => break None,
            }
        };
        if let Some(head) = &mut self.head {
            head.body = Framing::Chunks(at);
        }
        Ok(end)
    }

    /// The first bytes of the body, without framing.
    fn kept(&self, head: Head) -> Vec<u8> {
        let room = self.keep_bytes;
        let first = |bytes: &[u8]| bytes[..bytes.len().min(room)].to_vec();
        match head.body {
            Framing::Bytes(bytes) => {
                let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
                first(&self.bytes[..bytes.min(self.bytes.len())])
            }
            Framing::Rest => first(&self.bytes),
            Framing::Chunks(_) => {
                let (mut kept, mut rest) = (Vec::new(), &*self.bytes);
                while kept.len() < room {
                    let (data, end) = match chunk(rest) {
                        Ok(Chunk::Whole { data, end }) => (data, Some(end)),
                        Ok(Chunk::Partial { data }) => (data, None),
                        Ok(Chunk::Last { .. }) | Err(Malformed) => break,
                    };
                    kept.extend_from_slice(&data[..data.len().min(room - kept.len())]);
                    let Some(end) = end else { break };
                    rest = &rest[end..];
                }
                kept
            }
        }
    }
}

impl Head {
    /// RFC 9112, 6.3 and 9.3. An answer with two manners of ending is believed once, and its connection is
    /// not used again.
    fn of(status: StatusCode, is_http_11: bool, headers: &[Header<'_>]) -> Result<Self, Fault> {
        let named = |name: &'static str| {
            let headers = headers.iter();
            headers.filter(move |header| header.name.eq_ignore_ascii_case(name))
        };
        let has = |name, token: &str| named(name).any(|header| has_token(header.value, token));
        let mut length = None;
        for header in named("content-length") {
            let bytes = number(header.value).ok_or(Fault::BadLength)?;
            if length.is_some_and(|other| other != bytes) {
                return Err(Fault::BadLength);
            }
            length = Some(bytes);
        }
        let coding = named("transfer-encoding").next_back();
        let body = match (coding, length) {
            _ if has_no_body(status) => Framing::Bytes(0),
            (Some(coding), _) => match last_token(coding.value).eq_ignore_ascii_case(b"chunked") {
                true => Framing::Chunks(0),
                false => Framing::Rest,
            },
            (None, Some(bytes)) => Framing::Bytes(bytes),
            (None, None) => Framing::Rest,
        };
        let is_sure = coding.is_none() || (length.is_none() && is_http_11);
        let stays = match is_http_11 {
            true => !has("connection", "close"),
            false => has("connection", "keep-alive"),
        };
        let stays = stays && is_sure && status != StatusCode::SWITCHING_PROTOCOLS;
        Ok(Self {
            status,
            body,
            stays,
        })
    }
}

fn has_no_body(status: StatusCode) -> bool {
    status.is_informational()
        || [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&status)
}

fn number(value: &[u8]) -> Option<u64> {
    let value = value.trim_ascii();
    let is_number = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(value).ok().filter(|_| is_number)?;
    text.parse().ok()
}

fn tokens(value: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

fn has_token(value: &[u8], token: &str) -> bool {
    tokens(value).any(|it| it.eq_ignore_ascii_case(token.as_bytes()))
}

fn last_token(value: &[u8]) -> &[u8] {
    tokens(value).next_back().unwrap_or_default()
}

/// Behind the first empty line.
fn empty_line_end(bytes: &[u8]) -> Option<usize> {
    let mut from = 0;
    while let Some(at) = bytes[from..].iter().position(|it| *it == b'\n') {
        from += at + 1;
        match &bytes[from..] {
            [b'\n', ..] => return Some(from + 1),
            [b'\r', b'\n', ..] => return Some(from + 2),
            _ => {}
        }
    }
    None
}

/// Hands over what the head says, which nothing follows. What HTTP lets a reader of answers forgive is forgiven:
/// folded lines, and spaces where none belong (RFC 9112, 4, 5.1 and 5.2).
fn with_headers<T>(
    head: &[u8],
    read: impl FnOnce(Response<'_, '_>) -> Result<T, Fault>,
) -> Result<T, Fault> {
    let mut config = ParserConfig::default();
    config
        .allow_obsolete_multiline_headers_in_responses(true)
        .allow_spaces_after_header_name_in_responses(true)
        .allow_multiple_spaces_in_response_status_delimiters(true);
    let lines = head.iter().filter(|byte| **byte == b'\n').count();
    let (mut at_hand, mut more);
    let headers: &mut [Header<'_>] = match lines {
        0..=HEADERS_AT_HAND => {
            at_hand = [EMPTY_HEADER; HEADERS_AT_HAND];
            &mut at_hand
        }
        _ => {
            more = vec![EMPTY_HEADER; lines];
            &mut more
        }
    };
    let mut response = Response::new(headers);
    match config.parse_response(&mut response, head) {
        Ok(Status::Complete(bytes)) if bytes == head.len() => read(response),
        Ok(_) | Err(_) => Err(Fault::NotHttp),
    }
}

/// What chunks begin with.
enum Chunk<'a> {
    Whole {
        data: &'a [u8],
        end: usize,
    },
    Partial {
        data: &'a [u8],
    },
    /// With all that follows the last one.
    Last {
        end: usize,
    },
}

/// No chunk.
struct Malformed;

fn chunk(bytes: &[u8]) -> Result<Chunk<'_>, Malformed> {
    let partial = Chunk::Partial { data: &[] };
    let (begin, length) = match parse_chunk_size(bytes) {
        Ok(Status::Complete(found)) if found.0 <= CHUNK_LINE_MAX => found,
        Ok(Status::Partial) if bytes.len() <= CHUNK_LINE_MAX => return Ok(partial),
        Ok(_) | Err(_) => return Err(Malformed),
    };
    // Digits first, on one line (RFC 9112, 7.1).
    let line = bytes.get(..begin.saturating_sub(2)).ok_or(Malformed)?;
    let has_size = line.first().is_some_and(u8::is_ascii_hexdigit);
    if !has_size || line.iter().any(|byte| b"\r\n".contains(byte)) {
        return Err(Malformed);
    }
    let rest = bytes.get(begin..).ok_or(Malformed)?;
    if length == 0 {
        return match trailers_end(rest) {
            Some(end) if end <= TRAILERS_BYTES_MAX => Ok(Chunk::Last { end: begin + end }),
            None if rest.len() <= TRAILERS_BYTES_MAX => Ok(partial),
            _ => Err(Malformed),
        };
    }
    let length = usize::try_from(length).map_err(|_| Malformed)?;
    match rest.split_at_checked(length) {
        None => Ok(Chunk::Partial { data: rest }),
        Some((data, behind)) if behind.len() < 2 => Ok(Chunk::Partial { data }),
        Some((data, behind)) if behind.starts_with(b"\r\n") => {
            let end = begin + length + 2;
            Ok(Chunk::Whole { data, end })
        }
        Some(_) => Err(Malformed),
    }
}

/// Lines up to an empty one.
fn trailers_end(bytes: &[u8]) -> Option<usize> {
    if bytes.starts_with(b"\r\n") {
        return Some(2);
    }
    let end = bytes.windows(4).position(|it| it == b"\r\n\r\n")?;
    Some(end + 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ok(body: &str, stays: bool) -> Result<Done, Fault> {
        done(200, body, stays)
    }

    fn done(status: u16, body: &str, stays: bool) -> Result<Done, Fault> {
        Ok(Done {
            status: StatusCode::from_u16(status).expect("a status"),
            body: body.as_bytes().to_vec(),
            stays,
        })
    }

    /// The outcome of bytes that come in pieces, and then the end.
    fn read(bytes: &[u8], piece: usize) -> Result<Done, Fault> {
        let mut answer = Answer::new(8);
        for piece in bytes.chunks(piece) {
            if let Some(done) = answer.take(piece)? {
                return Ok(done);
            }
        }
        answer.end()
    }

    fn interim(count: usize) -> String {
        "HTTP/1.1 103 X\r\n\r\n".repeat(count)
    }

    #[test]
    fn an_answer_is_read_alike_however_it_is_cut() {
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        for (text, expected) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_owned(), ok("ok", true)),
            ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_owned(), ok("", true)),
            ("HTTP/1.1 200\r\ncontent-length:12\r\n\r\n123456789012".to_owned(), ok("12345678", true)),
            ("HTTP/1.1 200 OK\ncontent-length: 1\n\nx".to_owned(), ok("x", true)),
            ("HTTP/1.1 204 X\r\n\r\n".to_owned(), done(204, "", true)),
            ("HTTP/1.1 304 X\r\ncontent-length: 7\r\n\r\n".to_owned(), done(304, "", true)),
            ("HTTP/1.1 500 X\r\ncontent-length: 1\r\n\r\nx".to_owned(), done(500, "x", true)),
            (
                "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 100 Go\r\n\r\nHTTP/1.1 200 OK\r\n\
                 content-length: 0\r\n\r\n".to_owned(),
                ok("", true),
            ),
            ("\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_owned(), ok("", true)),
            (interim(INTERIM_MAX) + "HTTP/1.1 204 X\r\n\r\n", done(204, "", true)),
            (interim(INTERIM_MAX + 1) + "HTTP/1.1 204 X\r\n\r\n", Err(Fault::Interim)),
            ("HTTP/1.1 101 X\r\nupgrade: y\r\n\r\n".to_owned(), done(101, "", false)),
            ("HTTP/1.1 200 OK\r\n\r\nto the end".to_owned(), ok("to the e", false)),
            ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort".to_owned(), ok("short", false)),
            (
                "HTTP/1.1 200 OK\r\nconnection: x, Close\r\ncontent-length: 0\r\n\r\n".to_owned(),
                ok("", false),
            ),
            ("HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n".to_owned(), ok("", false)),
            (
                "HTTP/1.1 200 OK\r\nx: a\r\n b\r\ncontent-length:\r\n\t2\r\nconnection: x,\r\n  close\r\n\r\nok"
                    .to_owned(),
                ok("ok", false),
            ),
            (
                "HTTP/1.1 200 OK\r\nx: y\r\n \r\ncontent-length: 2\r\n\r\nok".to_owned(),
                ok("ok", true),
            ),
            (
                "HTTP/1.1 200 OK\r\ncontent-length: 1\r\n 2\r\n\r\nok".to_owned(),
                Err(Fault::BadLength),
            ),
            ("HTTP/1.1  200  OK\r\nContent-Length : 2\r\n\r\nok".to_owned(), ok("ok", true)),
            (
                format!("HTTP/1.1 200 OK\r\n{}content-length: 2\r\n\r\nok", "x: y\r\n".repeat(1_000)),
                ok("ok", true),
            ),
            ("\r\n\r\n\nHTTP/1.1 204 OK\r\n\r\n".to_owned(), done(204, "", true)),
            (
                "HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 0\r\n\r\n".to_owned(),
                ok("", true),
            ),
            (format!("{chunked}2\r\nab\r\na;x=\"y\"\r\ncdefghijkl\r\n0\r\n\r\n"), ok("abcdefgh", true)),
            (format!("{chunked}0\r\nx: y\r\nz: 1\r\n\r\n"), ok("", true)),
            (format!("{chunked}4\r\nab"), ok("ab", false)),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n1\r\na\r\n0\r\n\r\n"
                    .to_owned(),
                ok("a", false),
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabc".to_owned(),
                ok("abc", false),
            ),
            (String::new(), Err(Fault::Closed)),
            ("HTTP/1.1 200 OK\r\ncontent-le".to_owned(), Err(Fault::Closed)),
            ("HTTP/1.1 100 Go\r\n\r\n".to_owned(), Err(Fault::Closed)),
            ("SSH-2.0-x\r\n\r\n".to_owned(), Err(Fault::NotHttp)),
            ("SSH-2.0-x".to_owned(), Err(Fault::NotHttp)),
            ("HTTP/2 200\r\n\r\n".to_owned(), Err(Fault::NotHttp)),
            ("HTTP/1.1 099 X\r\n\r\n".to_owned(), Err(Fault::NotHttp)),
            ("HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n".to_owned(), Err(Fault::BadLength)),
            ("HTTP/1.1 200 OK\r\ncontent-length:\r\n\r\n".to_owned(), Err(Fault::BadLength)),
            (
                "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n".to_owned(),
                Err(Fault::BadLength),
            ),
        ] {
            for piece in [1, 2, 3, 7, text.len().max(1)] {
                assert_eq!(read(text.as_bytes(), piece), expected, "{text:?} by {piece}");
            }
        }
    }

    #[test]
    fn what_lies_behind_an_answer_ends_its_connection() {
        for text in [
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nxH",
            "HTTP/1.1 204 OK\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n0",
        ] {
            let done = read(text.as_bytes(), text.len()).expect("a status");
            assert!(!done.stays, "{text:?}");
        }
    }

    #[test]
    fn chunks_that_are_none_end_the_answer_and_its_connection() {
        let head = "HTTP/1.1 202 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        let long_line = "0".repeat(15) + &";".repeat(CHUNK_LINE_MAX);
        let long_trailer = format!("0\r\nx: {}", "y".repeat(TRAILERS_BYTES_MAX));
        for (body, expected) in [
            ("x\r\n", ""),
            (";x\r\n\r\n", ""),
            ("2\r\nab\r\n;x=y\r\nz\r\n\r\n", "ab"),
            ("0;x\ny\r\n\r\n", ""),
            ("1\r\nabc", "a"),
            ("2\r\nab\r\n-\r\n", "ab"),
            ("ffffffffffffffff\r\nab", "ab"),
            ("ffffffffffffffffff\r\nab", ""),
            (&long_line, ""),
            (&long_trailer, ""),
        ] {
            let text = format!("{head}{body}");
            for piece in [97, text.len()] {
                let done = read(text.as_bytes(), piece).expect("a status");
                assert_eq!(done.status, StatusCode::ACCEPTED);
                assert!(!done.stays, "{body:?}");
                assert!(
                    expected.as_bytes().starts_with(&done.body),
                    "{body:?}: {:?}",
                    done.body
                );
            }
        }
    }

    #[test]
    fn heads_and_bodies_are_bounded() {
        let endless = format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(HEAD_BYTES_MAX));
        assert_eq!(read(endless.as_bytes(), 4_096), Err(Fault::LargeHead));
        let head = |padding: usize| {
            let head = "HTTP/1.1 204 X\r\nx: \r\n\r\n";
            head.replace(": ", &format!(": {}", "y".repeat(padding - head.len())))
        };
        for (bytes, blank, expected) in [
            (HEAD_BYTES_MAX, 0, done(204, "", true)),
            (HEAD_BYTES_MAX, 1, Err(Fault::LargeHead)),
            (HEAD_BYTES_MAX - 1, 1, done(204, "", true)),
            (HEAD_BYTES_MAX + 1, 0, Err(Fault::LargeHead)),
            (100, HEAD_BYTES_MAX, Err(Fault::LargeHead)),
        ] {
            let text = "\n".repeat(blank) + &head(bytes);
            for piece in [1, 4_096, text.len()] {
                assert_eq!(
                    read(text.as_bytes(), piece),
                    expected,
                    "{bytes} {blank} {piece}"
                );
            }
        }
        for (bytes, stays) in [(BODY_BYTES_MAX, true), (BODY_BYTES_MAX + 2, false)] {
            let mut answer = Answer::new(2);
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {bytes}\r\n\r\n");
            assert_eq!(answer.take(head.as_bytes()), Ok(None));
            assert_eq!(
                answer
                    .take(&vec![b'x'; bytes - 1])
                    .is_ok_and(|it| it.is_some()),
                !stays
            );
            if stays {
                assert_eq!(answer.take(b"x"), ok("xx", true).map(Some));
            }
        }
    }
}
