//! HTTP/1.1 towards the targets of webhooks: one request, on a connection that was kept or is made.
//!
//! Owns: `Destination` (where a URL leads), `Client` (what connections are made with), `Kept` (one that may be
//! used again), `Connections` (all of those), `Exchange`.
//! May depend on: hyper, `webhook::policy`, `bridge::{queue, tls}`, tokio.
//! Invariants: no address outside the policy is connected to, no proxy is asked, no redirect followed; a
//! request is sent a second time only if nothing of it was sent; a connection is driven by who waits for
//! its answer, and by nobody while it is kept.

use std::{
    collections::VecDeque,
    fmt,
    future::{Future, poll_fn},
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Waker},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    HeaderMap, Method, Request, StatusCode, Uri, Version,
    body::{Body as _, Incoming},
    client::conn::http1::{Builder, SendRequest},
    header::{AUTHORIZATION, HOST, HeaderValue, USER_AGENT},
    rt::{Read, Write},
};
use hyper_util::rt::TokioIo;
use reqwest::Url;
use tokio::{
    net::TcpStream,
    time::{Instant, timeout, timeout_at},
};

use super::policy::{ResolveError, TargetPolicy, resolve};
use crate::bridge::{
    queue::TargetId,
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
        let hex = behind.get(..2).filter(|_| byte == b'%');
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

/// How long a target may take to answer, its connection included.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// Of each of several addresses, at least.
const ADDRESS_WITHIN_MIN: Duration = Duration::from_secs(1);
/// A connection that lay idle for longer is not used again.
const KEPT_FOR: Duration = Duration::from_secs(60);
/// Of all targets.
const KEPT_MAX: usize = 64;
/// More of an answer is not read; the connection is closed instead of used again.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
const AGENT: HeaderValue = HeaderValue::from_static(concat!("sockudo/", env!("CARGO_PKG_VERSION")));

type Driver = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>;

/// A connection that may be used again.
pub(in crate::bridge) struct Kept {
    sender: SendRequest<Full<Bytes>>,
    driver: Driver,
    /// Nothing is left to drive.
    has_ended: bool,
    since: Instant,
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept").field("since", &self.since).finish()
    }
}

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
pub(super) struct Connections(VecDeque<(TargetId, Kept)>);

impl Connections {
    /// One to that target.
    pub(super) fn take(&mut self, target: TargetId) -> Option<Kept> {
        let at = self.0.iter().rposition(|(of, _)| *of == target)?;
        self.0.remove(at).map(|(_, kept)| kept)
    }

    pub(super) fn put(&mut self, target: TargetId, kept: Kept) {
        if self.0.len() == KEPT_MAX {
            self.0.pop_front();
        }
        self.0.push_back((target, kept));
    }

    /// When the oldest is to be closed.
    pub(super) fn due(&self) -> Option<Instant> {
        self.0.front().map(|(_, kept)| kept.since + KEPT_FOR)
    }

    /// Closes what lay idle for too long.
    pub(super) fn close_old(&mut self) {
        while self
            .0
            .pop_front_if(|(_, kept)| kept.since.elapsed() >= KEPT_FOR)
            .is_some()
        {}
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
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

    /// Posts once, over `kept` if that still stands. Keeps so many bytes of the answer.
    pub(in crate::bridge) async fn post(
        &self,
        to: &Destination,
        kept: Option<Kept>,
        headers: HeaderMap,
        body: Bytes,
        keep_bytes: usize,
    ) -> Exchange {
        let until = Instant::now() + ANSWER_WITHIN;
        let mut connection = None;
        let posted = self.post_over(to, kept, headers, body, keep_bytes, &mut connection);
        let answer = timeout_at(until, posted).await;
        let answer = answer.unwrap_or(Err(ExchangeError::Timeout));
        let kept = connection.filter(|_| answer.is_ok()).and_then(Kept::rested);
        Exchange { answer, kept }
    }

    async fn post_over(
        &self,
        to: &Destination,
        kept: Option<Kept>,
        headers: HeaderMap,
        body: Bytes,
        keep_bytes: usize,
        connection: &mut Option<Kept>,
    ) -> Result<(StatusCode, Vec<u8>), ExchangeError> {
        let mut request = request(to, headers, body);
        if let Some(kept) = kept.and_then(Kept::standing) {
            match connection.insert(kept).send(request).await {
                Ok(response) => return read(connection, response, keep_bytes).await,
                // It ended just then, with nothing of the request sent.
                Err(Unsent::Whole(unsent)) => request = *unsent,
                Err(Unsent::Broken(error)) => return Err(error),
            }
        }
        let made = self.connect(to).await?;
        match connection.insert(made).send(request).await {
            Ok(response) => read(connection, response, keep_bytes).await,
            Err(Unsent::Whole(_)) => Err(ExchangeError::Broken("closed at once".to_owned())),
            Err(Unsent::Broken(error)) => Err(error),
        }
    }

    async fn connect(&self, to: &Destination) -> Result<Kept, ExchangeError> {
        let made = timeout(CONNECT_WITHIN, self.stream(to)).await;
        let stream = made.unwrap_or(Err(ExchangeError::Unreachable))?;
        if !to.is_tls {
            return Kept::over(TokioIo::new(stream)).await;
        }
        let tls = match &self.tls {
            Ok(tls) => tls,
            Err(reason) => return Err(ExchangeError::Broken(reason.to_string())),
        };
        match tls.over(&to.host, stream).await {
            Ok(stream) => Kept::over(TokioIo::new(stream)).await,
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

fn request(to: &Destination, mut headers: HeaderMap, body: Bytes) -> Request<Full<Bytes>> {
    headers.insert(HOST, to.host_header.clone());
    headers.entry(USER_AGENT).or_insert(AGENT);
    if let Some(authorization) = &to.authorization {
        headers
            .entry(AUTHORIZATION)
            .or_insert(authorization.clone());
    }
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = to.uri.clone();
    *request.version_mut() = Version::HTTP_11;
    *request.headers_mut() = headers;
    request
}

/// Why a request was not answered.
enum Unsent {
    /// Nothing of it was sent.
    Whole(Box<Request<Full<Bytes>>>),
    Broken(ExchangeError),
}

impl Kept {
    async fn over(io: impl Read + Write + Unpin + Send + 'static) -> Result<Self, ExchangeError> {
        let made = Builder::new().title_case_headers(true).handshake(io).await;
        let (sender, driver) = made.map_err(|error| broken(&error))?;
        Ok(Self {
            sender,
            driver: Box::pin(driver),
            has_ended: false,
            since: Instant::now(),
        })
    }

    /// Drives the connection as far as it goes.
    fn drive(&mut self, context: &mut Context<'_>) {
        self.has_ended = self.has_ended || self.driver.as_mut().poll(context).is_ready();
    }

    /// What is left of one whose exchange is over: it may be used again, or is closed.
    fn rested(mut self) -> Option<Self> {
        self.since = Instant::now();
        self.drive(&mut Context::from_waker(Waker::noop()));
        (!self.has_ended && self.sender.is_ready()).then_some(self)
    }

    /// One that the peer has not closed meanwhile, as far as that is known here.
    fn standing(mut self) -> Option<Self> {
        self.drive(&mut Context::from_waker(Waker::noop()));
        let is_young = self.since.elapsed() < KEPT_FOR;
        (is_young && !self.has_ended && self.sender.is_ready()).then_some(self)
    }

    async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<hyper::Response<Incoming>, Unsent> {
        let mut answer = Box::pin(self.sender.try_send_request(request));
        let driver = &mut self.driver;
        let has_ended = &mut self.has_ended;
        let answered = poll_fn(|context| {
            *has_ended = *has_ended || driver.as_mut().poll(context).is_ready();
            answer.as_mut().poll(context)
        });
        answered
            .await
            .map_err(|mut error| match error.take_message() {
                Some(unsent) => Unsent::Whole(Box::new(unsent)),
                None => Unsent::Broken(broken(error.error())),
            })
    }
}

/// Reads the body, as much as is read of any.
async fn read(
    connection: &mut Option<Kept>,
    response: hyper::Response<Incoming>,
    keep_bytes: usize,
) -> Result<(StatusCode, Vec<u8>), ExchangeError> {
    let status = response.status();
    let mut body = response.into_body();
    let (mut bytes, mut kept) = (0, Vec::new());
    loop {
        let next = poll_fn(|context| {
            if let Some(connection) = connection {
                connection.drive(context);
            }
            Pin::new(&mut body).poll_frame(context)
        });
        // A status has come, whatever becomes of the rest.
        let Some(Ok(frame)) = next.await else { break };
        let Ok(data) = frame.into_data() else {
            continue;
        };
        bytes += data.len();
        let room = keep_bytes.saturating_sub(kept.len());
        kept.extend_from_slice(&data[..data.len().min(room)]);
        if bytes > ANSWER_BYTES_MAX {
            *connection = None;
            break;
        }
    }
    Ok((status, kept))
}

fn broken(error: &hyper::Error) -> ExchangeError {
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
        let it = destination("https://only@h/").expect("it leads somewhere");
        assert_eq!(
            it.authorization,
            Some(HeaderValue::from_static("Basic b25seTo="))
        );
    }
}
