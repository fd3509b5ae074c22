//! Answers as bytes.
//!
//! Owns: statuses, the head of an answer, the rate limit headers.
//! May depend on: `protocol::json` (numbers).
//! Invariants: every answer says its length and whether the connection lives on, so a client can
//! pipeline; what answers `HEAD` has no body.

use crate::protocol::json::write_u64;

/// The statuses that this server sends, 101 apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Ok,
    BadRequest,
    Unauthorized,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    RequestTimeout,
    ContentTooLarge,
    UpgradeRequired,
    TooManyRequests,
    HeadTooLarge,
    Internal,
    NotImplemented,
    Unavailable,
    VersionNotSupported,
}

impl Status {
    pub fn code(self) -> u16 {
        match self {
            Self::Ok => 200,
            Self::BadRequest => 400,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::RequestTimeout => 408,
            Self::ContentTooLarge => 413,
            Self::UpgradeRequired => 426,
            Self::TooManyRequests => 429,
            Self::HeadTooLarge => 431,
            Self::Internal => 500,
            Self::NotImplemented => 501,
            Self::Unavailable => 503,
            Self::VersionNotSupported => 505,
        }
    }

    fn line(self) -> &'static [u8] {
        match self {
            Self::Ok => b"HTTP/1.1 200 OK\r\n",
            Self::BadRequest => b"HTTP/1.1 400 Bad Request\r\n",
            Self::Unauthorized => b"HTTP/1.1 401 Unauthorized\r\n",
            Self::Forbidden => b"HTTP/1.1 403 Forbidden\r\n",
            Self::NotFound => b"HTTP/1.1 404 Not Found\r\n",
            Self::MethodNotAllowed => b"HTTP/1.1 405 Method Not Allowed\r\n",
            Self::RequestTimeout => b"HTTP/1.1 408 Request Timeout\r\n",
            Self::ContentTooLarge => b"HTTP/1.1 413 Content Too Large\r\n",
            Self::UpgradeRequired => b"HTTP/1.1 426 Upgrade Required\r\n",
            Self::TooManyRequests => b"HTTP/1.1 429 Too Many Requests\r\n",
            Self::HeadTooLarge => b"HTTP/1.1 431 Request Header Fields Too Large\r\n",
            Self::Internal => b"HTTP/1.1 500 Internal Server Error\r\n",
            Self::NotImplemented => b"HTTP/1.1 501 Not Implemented\r\n",
            Self::Unavailable => b"HTTP/1.1 503 Service Unavailable\r\n",
            Self::VersionNotSupported => b"HTTP/1.1 505 HTTP Version Not Supported\r\n",
        }
    }
}

/// What the body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentType {
    Json,
    Text,
    /// No body: no type.
    None,
}

/// What follows the answer on this connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persistence {
    KeepAlive,
    Close,
}

impl Persistence {
    pub fn of(keep_alive: bool) -> Self {
        if keep_alive {
            Self::KeepAlive
        } else {
            Self::Close
        }
    }
}

/// One answer.
#[derive(Clone, Copy, Debug)]
pub struct Response<'a> {
    pub status: Status,
    pub content_type: ContentType,
    pub persistence: Persistence,
    /// Whole header lines, each with its CRLF: CORS, rate limits, `ALLOW_GET`, and the like.
    pub headers: &'a [&'a [u8]],
    pub body: &'a [u8],
    pub content: Content,
}

/// How much of an answer is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    Whole,
    /// To `HEAD`: the length of the body is said, the body is not sent (RFC 9110, section 9.3.2).
    HeadOnly,
}

/// How a client knows where the body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyEnd {
    Length(usize),
    /// `write_part` for each part, then `LAST_PART` (RFC 9112, section 7.1).
    Chunked,
    /// With the connection's end.
    Connection,
}

impl Response<'_> {
    /// Appends the answer. No allocation when `out` has room.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.reserve(160 + self.body.len());
        self.write_head(out, BodyEnd::Length(self.body.len()));
        if self.content == Content::Whole {
            out.extend_from_slice(self.body);
        }
    }

    /// Appends the head of an answer whose body is not `body`, but follows or is not sent.
    pub fn write_head(&self, out: &mut Vec<u8>, end: BodyEnd) {
        self.write_start(out);
        match end {
            BodyEnd::Length(bytes) => {
                out.extend_from_slice(b"Content-Length: ");
                write_u64(out, bytes as u64);
                out.extend_from_slice(b"\r\n");
            }
            BodyEnd::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
            BodyEnd::Connection => {}
        }
        out.extend_from_slice(b"\r\n");
    }

    fn write_start(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.status.line());
        out.extend_from_slice(match self.content_type {
            ContentType::Json => b"Content-Type: application/json\r\n",
            ContentType::Text => b"Content-Type: text/plain; charset=utf-8\r\n",
            ContentType::None => b"",
        });
        // Said even where it is the default: HTTP/1.0 clients need it.
        out.extend_from_slice(match self.persistence {
            Persistence::KeepAlive => b"Connection: keep-alive\r\n",
            Persistence::Close => b"Connection: close\r\n",
        });
        for lines in self.headers {
            out.extend_from_slice(lines);
        }
    }
}

/// Appends a part of a body, which is not empty: an empty one would end it.
pub fn write_part(out: &mut Vec<u8>, bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    out.extend_from_slice(format!("{:x}\r\n", bytes.len()).as_bytes());
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// Ends a body of parts.
pub const LAST_PART: &[u8] = b"0\r\n\r\n";

/// Appends the header lines of a rate limit; `retry_after_s` on a refusal only.
pub fn write_rate_limit_headers(
    out: &mut Vec<u8>,
    limit: u64,
    remaining: u64,
    reset_s: u64,
    retry_after_s: Option<u64>,
) {
    for (name, value) in [
        ("X-RateLimit-Limit: ", Some(limit)),
        ("X-RateLimit-Remaining: ", Some(remaining)),
        ("X-RateLimit-Reset: ", Some(reset_s)),
        ("RateLimit-Limit: ", Some(limit)),
        ("RateLimit-Remaining: ", Some(remaining)),
        ("RateLimit-Reset: ", Some(reset_s)),
        ("Retry-After: ", retry_after_s),
    ] {
        let Some(value) = value else { continue };
        out.extend_from_slice(name.as_bytes());
        write_u64(out, value);
        out.extend_from_slice(b"\r\n");
    }
}

/// The go-ahead for a client that waits before sending its body.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
/// Goes with 426.
pub const WS_VERSION_13: &[u8] = b"Sec-WebSocket-Version: 13\r\nUpgrade: websocket\r\n";
/// Go with 405.
pub const ALLOW_GET: &[u8] = b"Allow: GET, HEAD, OPTIONS\r\n";
pub const ALLOW_POST: &[u8] = b"Allow: POST, OPTIONS\r\n";

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Status; 15] = [
        Status::Ok,
        Status::BadRequest,
        Status::Unauthorized,
        Status::Forbidden,
        Status::NotFound,
        Status::MethodNotAllowed,
        Status::RequestTimeout,
        Status::ContentTooLarge,
        Status::UpgradeRequired,
        Status::TooManyRequests,
        Status::HeadTooLarge,
        Status::Internal,
        Status::NotImplemented,
        Status::Unavailable,
        Status::VersionNotSupported,
    ];

    #[test]
    fn an_answer_has_exactly_these_bytes() {
        let mut out = Vec::new();
        let mut rate = Vec::new();
        write_rate_limit_headers(&mut rate, 100, 0, 17, Some(17));
        let whole = Response {
            status: Status::TooManyRequests,
            content_type: ContentType::Json,
            persistence: Persistence::KeepAlive,
            headers: &[b"Access-Control-Allow-Origin: *\r\n", &rate],
            body: b"{}",
            content: Content::Whole,
        };
        whole.write(&mut out);
        let head = "HTTP/1.1 429 Too Many Requests\r\nContent-Type: application/json\r\n\
                    Connection: keep-alive\r\nAccess-Control-Allow-Origin: *\r\n\
                    X-RateLimit-Limit: 100\r\nX-RateLimit-Remaining: 0\r\n\
                    X-RateLimit-Reset: 17\r\nRateLimit-Limit: 100\r\nRateLimit-Remaining: 0\r\n\
                    RateLimit-Reset: 17\r\nRetry-After: 17\r\nContent-Length: 2\r\n\r\n";
        assert_eq!(String::from_utf8_lossy(&out), format!("{head}{{}}"));
        let mut head_only = Vec::new();
        let content = Content::HeadOnly;
        Response { content, ..whole }.write(&mut head_only);
        assert_eq!(String::from_utf8_lossy(&head_only), head);
    }

    #[test]
    fn every_status_line_carries_its_code() {
        for status in ALL {
            for (content_type, persistence) in [
                (ContentType::Text, Persistence::Close),
                (ContentType::None, Persistence::KeepAlive),
            ] {
                let mut out = Vec::new();
                Response {
                    status,
                    content_type,
                    persistence,
                    headers: &[],
                    body: b"",
                    content: Content::Whole,
                }
                .write(&mut out);
                let mut headers = [httparse::EMPTY_HEADER; 8];
                let mut response = httparse::Response::new(&mut headers);
                assert!(matches!(
                    response.parse(&out),
                    Ok(httparse::Status::Complete(_))
                ));
                assert_eq!(response.code, Some(status.code()));
            }
        }
    }
}
