//! The head of a request: the line and the few headers that count.
//!
//! Owns: head limits, framing rules against request smuggling, what keeps a connection alive.
//! May depend on: `response` (statuses); `httparse`, `memchr`.
//! Invariants: a head has at most 16 KiB and 64 headers, each line ended by CR LF; the body's length
//! is known from exactly one source.

use std::mem::MaybeUninit;

use httparse::{Error as ParseError, Header, Request, Status as Progress};
use memchr::memchr_iter;
use smallvec::SmallVec;
use thiserror::Error;

use crate::http::response::{Content, Status};

/// A request without its body. Text borrows from the bytes that were parsed.
#[derive(Clone, Debug)]
pub struct Head<'a> {
    /// How many bytes the head took; the body follows.
    pub bytes: usize,
    pub method: &'a str,
    /// Up to `?`, not decoded. `*` for `OPTIONS *`.
    pub raw_path: &'a str,
    /// Behind `?`, not decoded; empty when there is none.
    pub query: &'a str,
    pub version: Version,
    /// Whether another request may follow on this connection.
    pub keep_alive: bool,
    pub body: BodyFraming,
    /// The client waits for `100 Continue` before it sends the body.
    pub expect_continue: bool,
    /// `Upgrade` lists `websocket`.
    pub upgrade_websocket: bool,
    /// `Connection` lists `upgrade`.
    pub connection_upgrade: bool,
    /// `None` when missing or repeated.
    pub ws_key: Option<&'a str>,
    pub ws_version: Option<&'a str>,
    pub origin: Option<&'a str>,
    pub host: Option<&'a str>,
    /// Each header line in order; `forwarded_entry` looks into them.
    pub x_forwarded_for: SmallVec<[&'a str; 1]>,
    /// Likewise, for `forwarded_proto`.
    pub x_forwarded_proto: SmallVec<[&'a str; 1]>,
    pub x_real_ip: Option<&'a str>,
    pub accept: Option<&'a str>,
    pub access_control_request_method: Option<&'a str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    Http10,
    Http11,
}

/// How the end of the body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFraming {
    Empty,
    /// Never zero.
    Length(u64),
    Chunked,
}

/// Parses the head at the start of `bytes`. `Ok(None)`: it has not ended yet, come back with more.
pub fn parse_head(bytes: &[u8]) -> Result<Option<Head<'_>>, HttpError> {
    let mut headers = [const { MaybeUninit::<Header<'_>>::uninit() }; HEADERS_MAX];
    let mut request = Request::new(&mut []);
    match request.parse_with_uninit_headers(bytes, &mut headers) {
        Ok(Progress::Complete(head_bytes)) if head_bytes <= HEAD_BYTES_MAX => {
            check_line_ends(bytes.get(..head_bytes).unwrap_or_default())?;
            Head::of(&request, head_bytes).map(Some)
        }
        Ok(Progress::Partial) if bytes.len() < HEAD_BYTES_MAX => Ok(None),
        Ok(Progress::Complete(_) | Progress::Partial) => Err(HttpError::HeadTooLarge),
        Err(ParseError::TooManyHeaders) => Err(HttpError::TooManyHeaders),
        Err(ParseError::Version) => Err(HttpError::Version),
        Err(
            ParseError::HeaderName
            | ParseError::HeaderValue
            | ParseError::NewLine
            | ParseError::Status
            | ParseError::Token,
        ) => Err(HttpError::Malformed("request head")),
    }
}

/// A line feed alone ends a line for one parser and not for another (RFC 9112, section 2.2).
fn check_line_ends(head: &[u8]) -> Result<(), HttpError> {
    let follows_cr = |at: usize| at.checked_sub(1).and_then(|at| head.get(at)) == Some(&b'\r');
    match memchr_iter(b'\n', head).all(follows_cr) {
        true => Ok(()),
        false => Err(HttpError::Malformed("line end")),
    }
}

/// How much of an answer the request that begins `bytes` wants, be the rest of it as broken or as
/// unfinished as it may.
pub fn content_asked(bytes: &[u8]) -> Content {
    match bytes.trim_ascii_start().starts_with(b"HEAD ") {
        true => Content::HeadOnly,
        false => Content::Whole,
    }
}

impl<'a> Head<'a> {
    fn of(request: &Request<'_, 'a>, bytes: usize) -> Result<Self, HttpError> {
        let (Some(method), Some(target), Some(version)) =
            (request.method, request.path, request.version)
        else {
            return Err(HttpError::Malformed("request line"));
        };
        let version = if version == 0 {
            Version::Http10
        } else {
            Version::Http11
        };
        let (raw_path, query) = split_target(target)?;
        let mut head = Head {
            bytes,
            method,
            raw_path,
            query,
            version,
            keep_alive: version == Version::Http11,
            body: BodyFraming::Empty,
            expect_continue: false,
            upgrade_websocket: false,
            connection_upgrade: false,
            ws_key: None,
            ws_version: None,
            origin: None,
            host: None,
            x_forwarded_for: SmallVec::new(),
            x_forwarded_proto: SmallVec::new(),
            x_real_ip: None,
            accept: None,
            access_control_request_method: None,
        };
        let mut framing = Framing::default();
        let mut seen = Seen::default();
        for header in request.headers.iter() {
            head.take(header, &mut framing, &mut seen)?;
        }
        // RFC 9112, section 3.2.
        if seen.hosts == 0 && version == Version::Http11 {
            return Err(HttpError::Malformed("request: no Host"));
        }
        if seen.ws_keys > 1 {
            head.ws_key = None;
        }
        head.body = framing.resolve(version)?;
        Ok(head)
    }

    /// Headers that do not count are skipped; so are texts that are no UTF-8, save where framing
    /// depends on them.
    fn take(
        &mut self,
        header: &Header<'a>,
        framing: &mut Framing,
        seen: &mut Seen,
    ) -> Result<(), HttpError> {
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        let text = std::str::from_utf8(header.value).ok();
        if is("content-length") {
            framing.content_length(header.value)?;
        } else if is("transfer-encoding") {
            framing.transfer_encoding(header.value)?;
        } else if is("connection") {
            for token in tokens(text) {
                if token.eq_ignore_ascii_case("close") {
                    self.keep_alive = false;
                } else if token.eq_ignore_ascii_case("keep-alive") {
                    self.keep_alive |= self.version == Version::Http10;
                } else if token.eq_ignore_ascii_case("upgrade") {
                    self.connection_upgrade = true;
                }
            }
        } else if is("upgrade") {
            self.upgrade_websocket |= tokens(text).any(|t| t.eq_ignore_ascii_case("websocket"));
        } else if is("sec-websocket-key") {
            self.ws_key = text;
            seen.ws_keys += 1;
        } else if is("sec-websocket-version") {
            self.ws_version = text;
        } else if is("host") {
            seen.hosts += 1;
            if seen.hosts > 1 {
                return Err(HttpError::Malformed("request: Host is there twice"));
            }
            self.host = text;
        } else if is("origin") {
            self.origin = text;
        } else if is("expect") {
            self.expect_continue = text.is_some_and(|t| t.eq_ignore_ascii_case("100-continue"));
        } else if is("x-forwarded-for") {
            self.x_forwarded_for.extend(text);
        } else if is("x-forwarded-proto") {
            self.x_forwarded_proto.extend(text);
        } else if is("x-real-ip") {
            self.x_real_ip = text;
        } else if is("accept") {
            self.accept = text;
        } else if is("access-control-request-method") {
            self.access_control_request_method = text;
        }
        Ok(())
    }

    /// How much of the answer is wanted.
    pub fn content(&self) -> Content {
        match self.method {
            "HEAD" => Content::HeadOnly,
            _ => Content::Whole,
        }
    }

    /// What the last of `hops` trusted proxies saw: entry `len - hops` of `X-Forwarded-For`. `None`
    /// when there are not so many entries, or `hops` is 0: then nobody's word counts.
    pub fn forwarded_entry(&self, hops: usize) -> Option<&'a str> {
        let entries = self
            .x_forwarded_for
            .iter()
            .rev()
            .flat_map(|line| line.rsplit(','));
        entries.map(str::trim).nth(hops.checked_sub(1)?)
    }

    /// The scheme that the first of `hops` trusted proxies saw. Proxies write over this header more
    /// often than they add to it, so the first word counts when there are fewer.
    pub fn forwarded_proto(&self, hops: usize) -> Option<&'a str> {
        let entries = self
            .x_forwarded_proto
            .iter()
            .rev()
            .flat_map(|line| line.rsplit(','));
        entries.map(str::trim).take(hops).last()
    }

    /// Refuses a declared body beyond the limit before a byte of it is read.
    pub fn check_body_bytes(&self, bytes_max: usize) -> Result<(), HttpError> {
        match self.body {
            BodyFraming::Length(bytes) if bytes > bytes_max as u64 => {
                Err(HttpError::BodyTooLarge { bytes_max })
            }
            BodyFraming::Empty | BodyFraming::Length(_) | BodyFraming::Chunked => Ok(()),
        }
    }
}

/// Why a request cannot be read. The connection is closed after the answer: where the next request
/// begins is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HttpError {
    #[error("malformed {0}")]
    Malformed(&'static str),
    #[error("request head exceeds {HEAD_BYTES_MAX} bytes")]
    HeadTooLarge,
    #[error("request has more than {HEADERS_MAX} headers")]
    TooManyHeaders,
    #[error("request body exceeds {bytes_max} bytes")]
    BodyTooLarge { bytes_max: usize },
    // RFC 9112, section 7.1.1, wants a bound and leaves the status to the server. These are no
    // header fields, which 431 is about, and no content, which 413 is about.
    #[error("chunk extensions and trailers exceed {CHUNK_FRAMING_BYTES_MAX} bytes")]
    ChunkFraming,
    #[error("only the transfer coding chunked is supported")]
    TransferCoding,
    #[error("only HTTP/1.0 and HTTP/1.1 are supported")]
    Version,
}

impl HttpError {
    pub fn status(self) -> Status {
        match self {
            Self::Malformed(_) | Self::ChunkFraming => Status::BadRequest,
            Self::HeadTooLarge | Self::TooManyHeaders => Status::HeadTooLarge,
            Self::BodyTooLarge { .. } => Status::ContentTooLarge,
            Self::TransferCoding => Status::NotImplemented,
            Self::Version => Status::VersionNotSupported,
        }
    }
}

/// How often a header that must not be repeated was there, whatever its value: one that is no UTF-8
/// leaves no other trace.
#[derive(Default)]
struct Seen {
    hosts: usize,
    ws_keys: usize,
}

/// What the headers say about the body's length. Two that disagree are the smuggler's tool (RFC
/// 9112, section 11.2).
#[derive(Default)]
struct Framing {
    content_length: Option<u64>,
    chunked: bool,
}

impl Framing {
    fn content_length(&mut self, value: &[u8]) -> Result<(), HttpError> {
        const MALFORMED: HttpError = HttpError::Malformed("Content-Length");
        if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
            return Err(MALFORMED);
        }
        let length = std::str::from_utf8(value)
            .ok()
            .and_then(|digits| digits.parse().ok());
        let length = length.ok_or(MALFORMED)?;
        match self.content_length.replace(length) {
            Some(other) if other != length => Err(MALFORMED),
            Some(_) | None => Ok(()),
        }
    }

    fn transfer_encoding(&mut self, value: &[u8]) -> Result<(), HttpError> {
        if self.chunked {
            return Err(HttpError::Malformed(
                "request: Transfer-Encoding is there twice",
            ));
        }
        if !value.eq_ignore_ascii_case(b"chunked") {
            return Err(HttpError::TransferCoding);
        }
        self.chunked = true;
        Ok(())
    }

    fn resolve(self, version: Version) -> Result<BodyFraming, HttpError> {
        match (self.content_length, self.chunked) {
            (Some(_), true) => Err(HttpError::Malformed("body framing: two lengths")),
            (None, true) if version == Version::Http10 => {
                Err(HttpError::Malformed("body framing: chunked needs HTTP/1.1"))
            }
            (None, true) => Ok(BodyFraming::Chunked),
            (None | Some(0), false) => Ok(BodyFraming::Empty),
            (Some(length), false) => Ok(BodyFraming::Length(length)),
        }
    }
}

/// Path and query of a target. The absolute form, which servers must accept, loses its scheme and
/// authority.
fn split_target(target: &str) -> Result<(&str, &str), HttpError> {
    let scheme = (!target.starts_with('/')).then(|| target.split_once("://"));
    let origin_form = match scheme.flatten() {
        Some(("http" | "https", rest)) => {
            let path_at = rest.find(['/', '?']).unwrap_or(rest.len());
            rest.get(path_at..).unwrap_or_default()
        }
        _ => target,
    };
    let (raw_path, query) = origin_form.split_once('?').unwrap_or((origin_form, ""));
    match raw_path {
        "" if origin_form.len() != target.len() => Ok(("/", query)),
        path if path.starts_with('/') || path == "*" => Ok((path, query)),
        _ => Err(HttpError::Malformed("request target")),
    }
}

/// The items of a comma list.
fn tokens(value: Option<&str>) -> impl Iterator<Item = &str> {
    value.unwrap_or_default().split(',').map(str::trim)
}

pub const HEAD_BYTES_MAX: usize = 16 * 1024;
pub const HEADERS_MAX: usize = 64;
/// Of a chunked body, in all: what is read but not kept.
pub const CHUNK_FRAMING_BYTES_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(text: &str) -> Head<'_> {
        parse_head(text.as_bytes()).expect(text).expect(text)
    }

    fn with_headers(headers: &str) -> String {
        format!("POST /x HTTP/1.1\r\nHost: h\r\n{headers}\r\n")
    }

    #[test]
    fn an_upgrade_request_shows_what_counts() {
        let text = "GET /app/app-key?protocol=7&client=js HTTP/1.1\r\nHost: example.com\r\nUpgrade: WebSocket\r\n\
                    Connection: keep-alive, Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: https://example.com\r\n\r\nrest";
        let head = parsed(text);
        assert_eq!(
            (head.method, head.raw_path, head.query),
            ("GET", "/app/app-key", "protocol=7&client=js")
        );
        assert_eq!(head.bytes, text.len() - 4);
        assert!(head.upgrade_websocket);
        assert!(head.connection_upgrade);
        assert!(head.keep_alive);
        assert_eq!(head.ws_key, Some("dGhlIHNhbXBsZSBub25jZQ=="));
        assert_eq!(head.ws_version, Some("13"));
        assert_eq!(head.origin, Some("https://example.com"));
        assert_eq!(head.host, Some("example.com"));
        assert_eq!(head.body, BodyFraming::Empty);
    }

    #[test]
    fn a_repeated_key_is_no_key() {
        let text = with_headers("Sec-WebSocket-Key: a\r\nSec-WebSocket-Key: a\r\n");
        assert_eq!(parsed(&text).ws_key, None);
    }

    #[test]
    fn a_repeated_host_is_refused_whatever_the_values_are() {
        for (hosts, accepted) in [
            (&b"Host: a\r\n"[..], true),
            (b"Host: \xFF\r\n", true),
            (b"Host: a\r\nHost: \xFF\r\n", false),
            (b"Host: \xFF\r\nHost: a\r\n", false),
            (b"Host: \xFF\r\nhost: \xFF\r\n", false),
        ] {
            let text = [b"GET / HTTP/1.1\r\n", hosts, b"\r\n"].concat();
            let parsed = parse_head(&text);
            assert_eq!(parsed.is_ok(), accepted, "{}", text.escape_ascii());
        }
    }

    #[test]
    fn only_http_1_0_does_without_a_host() {
        for (text, accepted) in [
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", true),
            ("GET / HTTP/1.1\r\nHost:\r\n\r\n", true),
            ("GET / HTTP/1.1\r\n\r\n", false),
            ("GET / HTTP/1.1\r\nX-Host: a\r\n\r\n", false),
            ("GET http://a/ HTTP/1.1\r\n\r\n", false),
            ("GET / HTTP/1.0\r\n\r\n", true),
            ("GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", false),
        ] {
            assert_eq!(parse_head(text.as_bytes()).is_ok(), accepted, "{text:?}");
        }
    }

    #[test]
    fn each_line_of_a_head_ends_with_cr_and_lf() {
        let whole = "\r\nGET / HTTP/1.1\r\nHost: a\r\nA: b\r\n\r\n";
        assert!(matches!(parse_head(whole.as_bytes()), Ok(Some(_))));
        for (at, _) in whole.match_indices("\r\n") {
            let text = format!("{}{}", &whole[..at], &whole[at + 1..]);
            let error = parse_head(text.as_bytes()).expect_err(&text);
            assert_eq!(error.status().code(), 400, "{text:?}");
        }
    }

    #[test]
    fn a_request_for_the_head_only_is_known_before_it_is_whole() {
        for (bytes, expected) in [
            ("HEAD / HTTP/1.1\r\nHo", true),
            ("\r\nHEAD /", true),
            ("HEA", false),
            ("HEADER / HTTP/1.1\r\n", false),
            ("head / HTTP/1.1\r\n", false),
            ("GET /HEAD  HTTP/1.1\r\n", false),
        ] {
            let head_only = content_asked(bytes.as_bytes()) == Content::HeadOnly;
            assert_eq!(head_only, expected, "{bytes:?}");
        }
    }

    #[test]
    fn a_head_ends_with_its_empty_line() {
        let text = with_headers("A: b\r\n");
        for bytes in 0..text.len() {
            assert!(
                matches!(parse_head(&text.as_bytes()[..bytes]), Ok(None)),
                "{bytes} bytes"
            );
        }
        assert_eq!(parsed(&text).bytes, text.len());
    }

    #[test]
    fn a_head_may_have_exactly_16_kib_and_64_headers() {
        let around = with_headers("A: \r\n").len();
        for (bytes, accepted) in [
            (16_383, true),
            (16_384, true),
            (16_385, false),
            (100_000, false),
        ] {
            let text = with_headers(&format!("A: {}\r\n", "x".repeat(bytes - around)));
            assert_eq!(text.len(), bytes);
            assert_eq!(
                parse_head(text.as_bytes()).is_ok(),
                accepted,
                "{bytes} bytes"
            );
        }
        for (bytes, expected) in [(16_383, None), (16_384, Some(HttpError::HeadTooLarge))] {
            let unfinished = format!("GET / HTTP/1.1\r\nA: {}", "x".repeat(bytes - 19));
            assert_eq!(
                parse_head(unfinished.as_bytes()).err(),
                expected,
                "{bytes} bytes so far"
            );
        }
        for (headers, expected) in [
            (63, None),
            (64, None),
            (65, Some(HttpError::TooManyHeaders)),
        ] {
            let others = "A: b\r\n".repeat(headers - 1);
            let text = format!("GET / HTTP/1.1\r\nHost: h\r\n{others}\r\n");
            assert_eq!(
                parse_head(text.as_bytes()).err(),
                expected,
                "{headers} headers"
            );
        }
    }

    #[test]
    fn a_malformed_head_is_refused_with_its_status() {
        for (text, status) in [
            ("GET /\r\n\r\n", 400),
            ("GET  / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
            ("GET x HTTP/1.1\r\nHost: h\r\n\r\n", 400),
            ("GET ?a HTTP/1.1\r\nHost: h\r\n\r\n", 400),
            ("CONNECT example.com:443 HTTP/1.1\r\nHost: h\r\n\r\n", 400),
            ("G\x01T / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: h\r\nA : b\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: h\r\nA\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: h\r\nA: b\r\n c\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: h\r\nA: b\0\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
            ("GET / HTTP/2.0\r\n\r\n", 505),
            ("GET / HTTP/0.9\r\n\r\n", 505),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        ] {
            let error = parse_head(text.as_bytes()).expect_err(text);
            assert_eq!(error.status().code(), status, "{text:?}");
        }
    }

    #[test]
    fn the_body_has_one_length_from_one_source() {
        use BodyFraming::*;
        for (headers, expected) in [
            ("", Ok(Empty)),
            ("Content-Length: 0\r\n", Ok(Empty)),
            ("content-length: 5\r\n", Ok(Length(5))),
            ("Content-Length: 5\r\nContent-Length: 5\r\n", Ok(Length(5))),
            (
                "Content-Length: 18446744073709551615\r\n",
                Ok(Length(u64::MAX)),
            ),
            ("Transfer-Encoding: Chunked\r\n", Ok(Chunked)),
            ("Content-Length: 5\r\nContent-Length: 6\r\n", Err(400)),
            ("Content-Length: 5, 5\r\n", Err(400)),
            ("Content-Length: +5\r\n", Err(400)),
            ("Content-Length: -5\r\n", Err(400)),
            ("Content-Length: 0x5\r\n", Err(400)),
            ("Content-Length: 5 5\r\n", Err(400)),
            ("Content-Length:\r\n", Err(400)),
            ("Content-Length: 18446744073709551616\r\n", Err(400)),
            (
                "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
                Err(400),
            ),
            (
                "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
                Err(400),
            ),
            (
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
                Err(400),
            ),
            ("Transfer-Encoding: gzip, chunked\r\n", Err(501)),
            ("Transfer-Encoding: chunked, identity\r\n", Err(501)),
            ("Transfer-Encoding: xchunked\r\n", Err(501)),
            ("Transfer-Encoding:\r\n", Err(501)),
            ("Transfer-Encoding : chunked\r\n", Err(400)),
        ] {
            let text = with_headers(headers);
            let framing = parse_head(text.as_bytes()).map(|head| head.expect("whole").body);
            assert_eq!(
                framing.map_err(|error| error.status().code()),
                expected,
                "{headers:?}"
            );
        }
        let old = "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(
            parse_head(old.as_bytes()).expect_err("1.0").status().code(),
            400
        );
    }

    #[test]
    fn a_declared_body_may_have_exactly_the_limit() {
        for (bytes, accepted) in [(99, true), (100, true), (101, false)] {
            let text = with_headers(&format!("Content-Length: {bytes}\r\n"));
            assert_eq!(
                parsed(&text).check_body_bytes(100).is_ok(),
                accepted,
                "{bytes} bytes"
            );
        }
    }

    #[test]
    fn a_connection_is_kept_as_its_version_and_headers_say() {
        for (version, headers, expected) in [
            ("1.1", "", true),
            ("1.1", "Connection: close\r\n", false),
            ("1.1", "Connection: Keep-Alive, Close\r\n", false),
            (
                "1.1",
                "Connection: close\r\nConnection: keep-alive\r\n",
                false,
            ),
            ("1.1", "Connection: closed\r\n", true),
            ("1.0", "", false),
            ("1.0", "Connection: Keep-Alive\r\n", true),
            ("1.0", "Connection: keep-alive, close\r\n", false),
        ] {
            let text = format!("GET / HTTP/{version}\r\nHost: h\r\n{headers}\r\n");
            assert_eq!(parsed(&text).keep_alive, expected, "{version} {headers:?}");
        }
    }

    #[test]
    fn a_target_has_a_path_and_a_query() {
        for (target, raw_path, query) in [
            ("/", "/", ""),
            ("/a?b=c?d", "/a", "b=c?d"),
            ("/a%20b", "/a%20b", ""),
            ("/a?", "/a", ""),
            ("//a", "//a", ""),
            ("/a://b", "/a://b", ""),
            ("http://example.com/a?b", "/a", "b"),
            ("http://example.com", "/", ""),
            ("http://example.com?b", "/", "b"),
            ("*", "*", ""),
        ] {
            let text = format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n");
            let head = parsed(&text);
            assert_eq!((head.raw_path, head.query), (raw_path, query), "{target}");
        }
    }

    #[test]
    fn the_forwarded_entry_is_counted_from_the_nearest_proxy() {
        let text =
            with_headers("X-Forwarded-For: 1.1.1.1, 2.2.2.2\r\nX-Forwarded-For: 3.3.3.3\r\n");
        let head = parsed(&text);
        for (hops, expected) in [
            (0, None),
            (1, Some("3.3.3.3")),
            (2, Some("2.2.2.2")),
            (3, Some("1.1.1.1")),
            (4, None),
        ] {
            assert_eq!(head.forwarded_entry(hops), expected, "{hops} hops");
        }
        let none = with_headers("");
        assert_eq!(parsed(&none).forwarded_entry(1), None);
    }

    #[test]
    fn a_client_may_wait_for_the_go_ahead() {
        let text = with_headers("Expect: 100-Continue\r\nContent-Length: 1\r\n");
        assert!(parsed(&text).expect_continue);
        let other = with_headers("Expect: x\r\n");
        assert!(!parsed(&other).expect_continue);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse_head(&bytes);
        }
    }
}
