//! Plain HTTP that is sent to https: a listener of its own beside the port.
//!
//! Owns: `Redirect`: its listeners, how many it serves at once, what it answers.
//! May depend on: tokio, httparse, `shards` for who else listens there.
//! Invariants: nobody is served for longer than `WITHIN`, nor more than `SERVED_MAX` at once; nothing that
//! was not checked stands in an answer.

use std::{io, net::SocketAddr, os::fd::OwnedFd, sync::Arc, time::Duration};

use shards::Neighbour;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::Semaphore,
    time::timeout,
};

use super::handover::doors::{Doors, Gate};
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
    let served = Arc::new(Semaphore::new(SERVED_MAX));
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
        let served = Arc::clone(&served);
        tokio::spawn(serve(listener, https_port, served, doors.gate()));
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

async fn serve(listener: TcpListener, https_port: u16, served: Arc<Semaphore>, mut gate: Gate) {
    loop {
        let permit = tokio::select! {
            permit = Arc::clone(&served).acquire_owned() => permit,
            () = gate.closes() => return,
        };
        let Ok(permit) = permit else { return };
        if !gate.opens().await {
            return;
        }
        let accepted = tokio::select! {
            biased;
            () = gate.shuts() => continue,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            // Too many open files: the next try is a little later.
            tokio::time::sleep(REST).await;
            continue;
        };
        let guest = gate.guest();
        tokio::spawn(async move {
            let _ = timeout(WITHIN, answer(stream, https_port)).await;
            drop(guest);
            drop(permit);
        });
    }
}

async fn answer(mut stream: TcpStream, https_port: u16) -> io::Result<()> {
    let mut head = Vec::with_capacity(1_024);
    while !head.ends_with(b"\r\n\r\n") && head.len() < HEAD_BYTES_MAX {
        if stream.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
        if head.windows(4).any(|end| end == b"\r\n\r\n") {
            break;
        }
    }
    let place = location(&head, https_port);
    let answer = place.map_or_else(
        || format!("HTTP/1.1 400 Bad Request\r\n{END}"),
        |place| format!("HTTP/1.1 308 Permanent Redirect\r\nLocation: {place}\r\n{END}"),
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}

/// Where a request is sent; `None` for what is none, or names no host.
fn location(head: &[u8], https_port: u16) -> Option<String> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let parsed = request.parse(head).ok()?;
    let target = request.path.filter(|_| parsed.is_complete())?;
    let is_plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
    if !target.starts_with('/') || !is_plain(target) {
        return None;
    }
    let mut headers = request.headers.iter();
    let host = headers.find(|header| header.name.eq_ignore_ascii_case("host"))?;
    let host = std::str::from_utf8(host.value).ok()?.trim();
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

const END: &str = "Content-Length: 0\r\nConnection: close\r\n\r\n";
const WITHIN: Duration = Duration::from_secs(10);
const REST: Duration = Duration::from_millis(100);
const SERVED_MAX: usize = 256;
const BACKLOG: u32 = 1_024;
const HEAD_BYTES_MAX: usize = 16 * 1_024;
const HEADERS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::location;

    #[test]
    fn a_request_is_sent_to_the_same_place_by_https() {
        for (head, port, expected) in [
            (
                "GET /app/k?a=b HTTP/1.1\r\nHost: h.test\r\n\r\n",
                443,
                Some("https://h.test/app/k?a=b"),
            ),
            (
                "POST / HTTP/1.1\r\nHost: h.test:80\r\n\r\n",
                6_001,
                Some("https://h.test:6001/"),
            ),
            (
                "GET / HTTP/1.1\r\nhost: [::1]:80\r\n\r\n",
                443,
                Some("https://[::1]/"),
            ),
            (
                "GET / HTTP/1.1\r\nHost: [::1]\r\n\r\n",
                443,
                Some("https://[::1]/"),
            ),
            ("GET / HTTP/1.1\r\n\r\n", 443, None),
            ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 443, None),
            ("GET http://x/ HTTP/1.1\r\nHost: h\r\n\r\n", 443, None),
            ("GET / HTTP/1.1\r\nHost: h\r\n", 443, None),
            ("\x16\x03\x01", 443, None),
        ] {
            let found = location(head.as_bytes(), port);
            assert_eq!(found.as_deref(), expected, "{head:?}");
        }
    }
}
