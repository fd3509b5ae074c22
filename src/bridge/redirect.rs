//! Plain HTTP that is sent to https: a listener of its own beside the port.
//!
//! Owns: its listeners, what it answers.
//! May depend on: axum, `guests`, `shards` for who else listens there.
//! Invariants: nobody is served for longer, nor more at once, than `BOUNDS` says; nothing that was not checked stands
//! in an answer.

use std::{io, net::SocketAddr, os::fd::OwnedFd, time::Duration};

use axum::{
    Router,
    extract::Request,
    response::{IntoResponse as _, Response},
};
use hyper::{
    HeaderMap, Method, StatusCode, Uri,
    header::{HOST, LOCATION},
};
use shards::Neighbour;
use tokio::net::{TcpListener, TcpSocket};

use super::{
    guests::{self, Bounds},
    handover::doors::Doors,
};
use crate::handover::packet::Kind;

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("ssl.http_port: cannot listen on {address}: {source}{}", shards::advice(*address, source))]
pub struct RedirectError {
    pub address: SocketAddr,
    pub source: io::Error,
}

/// Listens on these addresses, or takes the process' before socket there, and sends whoever asks there to
/// `https_port`. Needs a tokio runtime; ends with it. Gives back who listened there before, and gets a part of those
/// who ask.
///
/// # Errors
/// When an address cannot be had.
pub fn begin(
    addresses: Vec<(SocketAddr, Option<OwnedFd>)>,
    https_port: u16,
    doors: &mut Doors,
) -> Result<Vec<Neighbour>, RedirectError> {
    let mut neighbours = Vec::new();
    let router = Router::new().fallback(move |request| answer(https_port, request));
    for (address, inherited) in addresses {
        let refused = |source| RedirectError { address, source };
        let listener = match inherited {
            Some(socket) => adopt(socket),
            None => {
                // Our own is none of them yet.
                neighbours.extend(shards::holders_of(address));
                listen(address)
            }
        };
        let listener = listener.map_err(refused)?;
        let place = address.to_string();
        doors
            .add(Kind::Redirect, place, &listener)
            .map_err(refused)?;
        tracing::info!(%address, "listening for http, which is sent to https");
        tokio::spawn(guests::serve(
            listener,
            router.clone(),
            BOUNDS,
            doors.gate(),
        ));
    }
    Ok(neighbours)
}

fn adopt(socket: OwnedFd) -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::from(socket);
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    socket.set_reuseaddr(true)?;
    // As the port's own listeners: the next process of a rolling restart listens meanwhile.
    socket.set_reuseport(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

async fn answer(https_port: u16, request: Request) -> Response {
    match location(
        request.method(),
        request.uri(),
        request.headers(),
        https_port,
    ) {
        Some(place) => (StatusCode::PERMANENT_REDIRECT, [(LOCATION, place)]).into_response(),
        None => StatusCode::BAD_REQUEST.into_response(),
    }
}

/// Where a request is sent; `None` for one that asks for no place of ours, or names no host.
fn location(method: &Method, uri: &Uri, headers: &HeaderMap, https_port: u16) -> Option<String> {
    let target = uri.path_and_query()?.as_str();
    let is_plain = target.bytes().all(|byte| byte.is_ascii_graphic());
    if uri.host().is_some() || method == Method::CONNECT || !target.starts_with('/') || !is_plain {
        return None;
    }
    let host = headers.get(HOST)?.to_str().ok()?.trim();
    // Of `[::1]:80` all but the port.
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        Some(_) | None => host,
    };
    let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
    if name.is_empty() || !name.bytes().all(is_host) {
        return None;
    }
    let port = match https_port {
        443 => String::new(),
        port => format!(":{port}"),
    };
    Some(format!("https://{name}{port}{target}"))
}

const BOUNDS: Bounds = Bounds {
    connections_max: 256,
    head_within: Duration::from_secs(10),
    done_within: Duration::from_secs(10),
};
const BACKLOG: u32 = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_sent_to_the_same_place_by_https() {
        for (method, target, host, port, expected) in [
            (
                "GET",
                "/app/k?a=b",
                "h.test",
                443,
                Some("https://h.test/app/k?a=b"),
            ),
            (
                "POST",
                "/",
                "h.test:80",
                6_001,
                Some("https://h.test:6001/"),
            ),
            ("GET", "/", "[::1]:80", 443, Some("https://[::1]/")),
            ("GET", "/", "[::1]", 443, Some("https://[::1]/")),
            ("GET", "/", "", 443, None),
            ("GET", "/", "a/b", 443, None),
            ("GET", "http://x/", "h", 443, None),
            ("CONNECT", "x:443", "h", 443, None),
            ("OPTIONS", "*", "h", 443, None),
        ] {
            let method: Method = method.parse().expect(method);
            let uri: Uri = target.parse().expect(target);
            let mut headers = HeaderMap::new();
            headers.insert(HOST, host.parse().expect(host));
            let found = location(&method, &uri, &headers, port);
            assert_eq!(found.as_deref(), expected, "{method} {target} {host}");
        }
        let nobody = location(&Method::GET, &Uri::from_static("/"), &HeaderMap::new(), 443);
        assert_eq!(nobody, None, "no host");
    }
}
