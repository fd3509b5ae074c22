//! HTTP/1.1 towards the targets of webhooks: one request, on a connection that was kept or is made.
//!
//! Owns: `Destination` (where a URL leads), `Head` (what its requests begin with), `Client` (what connections
//! are made with), `Connections` (those that are kept), `Exchange`.
//! May depend on: `webhook::{answer, connection, policy}`, `bridge::{queue, tls}`, hyper's headers, tokio.
//! Invariants: no address outside the policy is connected to, no proxy is asked, no redirect followed; a
//! request is sent a second time only if nothing of it was sent.

use std::{
    collections::VecDeque,
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hyper::{
    HeaderMap, StatusCode, Uri,
    header::{AUTHORIZATION, CONTENT_LENGTH, HOST, HeaderName, HeaderValue, USER_AGENT},
};
use reqwest::Url;
use tokio::{
    net::TcpStream,
    time::{Instant, timeout, timeout_at},
};

use super::{
    connection::{Asked, KEPT_FOR, Kept, Unanswered},
    policy::{ResolveError, TargetPolicy, resolve},
};
use crate::bridge::{
    queue::{IN_FLIGHT_MAX, TargetId},
    tls::{Failure, TlsClient, TlsFiles, TlsKeys},
};

/// Where a URL leads.
#[derive(Clone, Debug)]
pub(in crate::bridge) struct Destination {
    is_tls: bool,
    /// Without brackets.
    host: String,
    port: u16,
    /// Path and query.
    uri: Uri,
    host_header: HeaderValue,
    /// Of a user and a password in the URL.
    authorization: Option<HeaderValue>,
}

impl Destination {
    /// `None` for what HTTP cannot be asked for.
    pub(in crate::bridge) fn of(url: &Url) -> Option<Self> {
        let host = url.host_str()?;
        let authority = match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        let path = match url.query() {
            Some(query) => format!("{}?{query}", url.path()),
            None => url.path().to_owned(),
        };
        let authorization = (!url.username().is_empty() || url.password().is_some())
            .then(|| authorization(url.username(), url.password().unwrap_or_default()));
        Some(Self {
            is_tls: url.scheme() == "https",
            host: host.trim_matches(['[', ']']).to_owned(),
            port: url.port_or_known_default()?,
            uri: path.parse().ok()?,
            host_header: authority.parse().ok()?,
            authorization: authorization.flatten(),
        })
    }

    /// What a request with these headers begins with. Of ours, `Host` is always so, others unless given.
    pub(super) fn head(&self, headers: &HeaderMap) -> Head {
        let mut head = format!("POST {} HTTP/1.1\r\n", self.uri).into_bytes();
        let own = [
            (HOST, Some(&self.host_header)),
            (USER_AGENT, Some(&AGENT)),
            (AUTHORIZATION, self.authorization.as_ref()),
        ];
        for (name, value) in own {
            if let Some(value) = value
                && (name == HOST || !headers.contains_key(&name))
            {
                write_header(&mut head, &name, value.as_bytes());
            }
        }
        for (name, value) in headers {
            if ![HOST, CONTENT_LENGTH].contains(name) {
                write_header(&mut head, name, value.as_bytes());
            }
        }
        Head(head)
    }
}

/// The request line and headers, each with its end.
#[derive(Clone)]
pub(super) struct Head(Vec<u8>);

impl fmt::Debug for Head {
    // It may hold a credential.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Head({} B)", self.0.len())
    }
}

impl Head {
    /// A whole request, with more headers.
    pub(super) fn request(&self, headers: &[(HeaderName, &[u8])], body: &[u8]) -> Vec<u8> {
        let mut request = Vec::with_capacity(self.0.len() + MORE_HEADERS_BYTES + body.len());
        request.extend_from_slice(&self.0);
        for (name, value) in headers {
            write_header(&mut request, name, value);
        }
        let length = body.len().to_string();
        write_header(&mut request, &CONTENT_LENGTH, length.as_bytes());
        request.extend_from_slice(b"\r\n");
        request.extend_from_slice(body);
        request
    }
}

/// Of the signature and the length.
const MORE_HEADERS_BYTES: usize = 128;

/// Each word of the name with a capital, as most write them.
fn write_header(out: &mut Vec<u8>, name: &HeaderName, value: &[u8]) {
    let mut begins = true;
    for byte in name.as_str().bytes() {
        out.push(match begins {
            true => byte.to_ascii_uppercase(),
            false => byte,
        });
        begins = byte == b'-';
    }
    for part in [b": ", value, b"\r\n"] {
        out.extend_from_slice(part);
    }
}

/// The parts stand in a URL as it writes them.
fn authorization(user: &str, password: &str) -> Option<HeaderValue> {
    let mut both = percent_decoded(user);
    both.push(b':');
    both.extend(percent_decoded(password));
    let mut value = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(both))).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn percent_decoded(text: &str) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        let is_hex = |it: &&[u8]| byte == b'%' && it.iter().all(u8::is_ascii_hexdigit);
        let hex = behind.get(..2).filter(is_hex);
        let hex = hex.and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                decoded.push(byte);
                rest = &behind[2..];
            }
            None => {
                decoded.push(byte);
                rest = behind;
            }
        }
    }
    decoded
}

/// What connections are made with.
#[derive(Clone, Debug)]
pub(in crate::bridge) struct Client {
    policy: Arc<TargetPolicy>,
    /// Or why there is no TLS on this host.
    tls: Result<TlsClient, Arc<str>>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(in crate::bridge) enum ExchangeError {
    #[error("{0} is an address that webhooks.targets denies")]
    Denied(IpAddr),
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    #[error("no answer within {} s", ANSWER_WITHIN.as_secs())]
    Timeout,
    #[error("no connection within {} s", CONNECT_WITHIN.as_secs())]
    Unreachable,
    /// The innermost cause; neither path nor query, which may hold a credential.
    #[error("{0}")]
    Broken(String),
}

/// How long a target may take to the end of its answer's head, its connection included.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// How long the rest may take, which only tells whether the connection can be used again; or is to be read.
const REST_WITHIN: Duration = Duration::from_millis(250);
const REST_TO_READ_WITHIN: Duration = Duration::from_secs(2);
/// Of each of several addresses, at least.
const ADDRESS_WITHIN_MIN: Duration = Duration::from_secs(1);
/// Of all targets.
const KEPT_MAX: usize = IN_FLIGHT_MAX;
const AGENT: HeaderValue = HeaderValue::from_static(concat!("sockudo/", env!("CARGO_PKG_VERSION")));

/// What came of a request.
#[derive(Debug)]
pub(in crate::bridge) struct Exchange {
    /// The status, and the first bytes of the body.
    pub(in crate::bridge) answer: Result<(StatusCode, Vec<u8>), ExchangeError>,
    /// For the next request to the same destination.
    pub(in crate::bridge) kept: Option<Kept>,
}

/// Connections that are kept, the one that was used last at the end.
#[derive(Debug, Default)]
pub(super) struct Connections {
    kept: VecDeque<(TargetId, Kept)>,
    /// The number of the policy under which connections are made.
    policy: u64,
}

impl Connections {
    /// One to that target.
    pub(super) fn take(&mut self, target: TargetId) -> Option<Kept> {
        let at = self.kept.iter().rposition(|(of, _)| *of == target)?;
        self.kept.remove(at).map(|(_, kept)| kept)
    }

    /// Keeps one that was taken, or made, under that policy; one of an earlier policy is closed.
    pub(super) fn put(&mut self, target: TargetId, kept: Kept, policy: u64) {
        if policy != self.policy {
            return;
        }
        if self.kept.len() == KEPT_MAX {
            self.kept.pop_front();
        }
        self.kept.push_back((target, kept));
    }

    /// For `put`, of an attempt that begins now.
    pub(super) fn policy(&self) -> u64 {
        self.policy
    }

    /// When the oldest is to be closed.
    pub(super) fn due(&self) -> Option<Instant> {
        self.kept.front().map(|(_, kept)| kept.since() + KEPT_FOR)
    }

    /// Closes what lay idle for too long.
    pub(super) fn close_old(&mut self) {
        while self
            .kept
            .pop_front_if(|(_, kept)| kept.since().elapsed() >= KEPT_FOR)
            .is_some()
        {}
    }

    /// There is another policy: some may lead where nothing may go any more, those in use too.
    pub(super) fn change_policy(&mut self) {
        self.kept.clear();
        self.policy += 1;
    }
}

impl Client {
    pub(in crate::bridge) fn new(policy: Arc<TargetPolicy>) -> Self {
        let tls = TlsClient::read(&TlsFiles::none(TlsKeys::WEBHOOKS));
        Self {
            policy,
            tls: tls.map_err(|error| error.to_string().into()),
        }
    }

    /// Sends a request once, over `kept` if that still stands. Keeps so many bytes of the answer.
    pub(super) async fn send(
        &self,
        to: &Destination,
        kept: Option<Kept>,
        request: &[u8],
        keep_bytes: usize,
    ) -> Exchange {
        let until = Instant::now() + ANSWER_WITHIN;
        let sent = timeout_at(until, self.send_over(to, kept, request, keep_bytes));
        match sent.await.unwrap_or(Err(ExchangeError::Timeout)) {
            Ok((asked, mut connection)) => {
                // The status has come in time, whatever becomes of the rest.
                let done = connection.rest(asked, rest_within(keep_bytes)).await;
                Exchange {
                    answer: Ok((done.status, done.body)),
                    kept: done.stays.then_some(connection),
                }
            }
            Err(error) => Exchange {
                answer: Err(error),
                kept: None,
            },
        }
    }

    async fn send_over<'a>(
        &self,
        to: &Destination,
        kept: Option<Kept>,
        request: &'a [u8],
        keep_bytes: usize,
    ) -> Result<(Asked<'a>, Kept), ExchangeError> {
        if let Some(mut kept) = kept.and_then(Kept::standing) {
            match kept.ask(request, keep_bytes).await {
                Ok(asked) => return Ok((asked, kept)),
                Err(Unanswered::Unsent) => {} // It ended just then.
                Err(error) => return Err(broken(&error)),
            }
        }
        // In a box, so that an attempt over a kept connection is small: it is moved more than once.
        let mut made = Box::pin(self.connect(to)).await?;
        match made.ask(request, keep_bytes).await {
            Ok(asked) => Ok((asked, made)),
            Err(error) => Err(broken(&error)),
        }
    }

    async fn connect(&self, to: &Destination) -> Result<Kept, ExchangeError> {
        let made = timeout(CONNECT_WITHIN, self.stream(to)).await;
        let stream = made.unwrap_or(Err(ExchangeError::Unreachable))?;
        if !to.is_tls {
            return Ok(Kept::plain(stream));
        }
        let tls = match &self.tls {
            Ok(tls) => tls,
            Err(reason) => return Err(ExchangeError::Broken(reason.to_string())),
        };
        match tls.over(&to.host, stream).await {
            Ok(stream) => Ok(Kept::tls(stream)),
            Err(failure) => Err(ExchangeError::Broken(match failure {
                Failure::Unreachable(error) | Failure::Handshake(error) => innermost(&error),
                Failure::Unanswered | Failure::Mute => "it does not answer to TLS".to_owned(),
            })),
        }
    }

    async fn stream(&self, to: &Destination) -> Result<TcpStream, ExchangeError> {
        let addresses: Vec<SocketAddr> = match to.host.parse::<IpAddr>() {
            Ok(ip) if !self.policy.permits(ip) => return Err(ExchangeError::Denied(ip)),
            Ok(ip) => vec![(ip, to.port).into()],
            Err(_) => resolve(&self.policy, &to.host, to.port).await?,
        };
        let count = u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
        let each = (CONNECT_WITHIN / count).max(ADDRESS_WITHIN_MIN);
        let mut last = ExchangeError::Unreachable;
        for address in addresses {
            match timeout(each, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    let nodelay = stream.set_nodelay(true);
                    nodelay.map_err(|error| ExchangeError::Broken(error.to_string()))?;
                    return Ok(stream);
                }
                Ok(Err(error)) => last = ExchangeError::Broken(innermost(&error)),
                Err(_) => {}
            }
        }
        Err(last)
    }
}

fn rest_within(keep_bytes: usize) -> Duration {
    match keep_bytes {
        0 => REST_WITHIN,
        _ => REST_TO_READ_WITHIN,
    }
}

fn broken(error: &Unanswered) -> ExchangeError {
    ExchangeError::Broken(innermost(error))
}

fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn destination(url: &str) -> Option<Destination> {
        Destination::of(&Url::parse(url).expect("a URL"))
    }

    #[test]
    fn a_url_says_where_and_what() {
        for (url, is_tls, host, port, path, header) in [
            ("http://h", false, "h", 80, "/", "h"),
            (
                "https://h:444/a/b?c=d#e",
                true,
                "h",
                444,
                "/a/b?c=d",
                "h:444",
            ),
            ("https://[::1]/ä", true, "::1", 443, "/%C3%A4", "[::1]"),
            ("http://h:80/", false, "h", 80, "/", "h"),
        ] {
            let it = destination(url).expect("it leads somewhere");
            assert_eq!(
                (it.is_tls, &*it.host, it.port),
                (is_tls, host, port),
                "{url}"
            );
            assert_eq!(
                (it.uri.to_string().as_str(), &it.host_header),
                (path, &HeaderValue::from_static(header))
            );
            assert_eq!(it.authorization, None);
        }
    }

    #[test]
    fn a_user_in_the_url_is_told_to_the_target() {
        let it = destination("https://me:p%40ss@h/").expect("it leads somewhere");
        // Of `me:p@ss`.
        let expected = HeaderValue::from_static("Basic bWU6cEBzcw==");
        assert_eq!(it.authorization, Some(expected));
        assert!(!format!("{it:?}").contains("bWU6"), "{it:?}");
        let it = destination("https://me:p%+fs@h/").expect("it leads somewhere");
        // Of `me:p%+fs`: no digits.
        let expected = HeaderValue::from_static("Basic bWU6cCUrZnM=");
        assert_eq!(it.authorization, Some(expected));
        let it = destination("https://only@h/").expect("it leads somewhere");
        assert_eq!(
            it.authorization,
            Some(HeaderValue::from_static("Basic b25seTo="))
        );
    }
}
