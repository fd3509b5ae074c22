//! The listening sockets of a start: taken from the process before where it had them, bound where not.
//!
//! Owns: which socket is wanted where; the place of the Unix socket.
//! May depend on: `bridge`'s doors, `handover::predecessor`, `config`.
//! Invariants: what is taken is what would have been bound; a copy of each is kept for the process after.

use std::{
    net::{SocketAddr, TcpListener},
    os::{fd::OwnedFd, unix::net::UnixListener},
    path::Path,
    time::{Duration, Instant},
};

use super::ServeError;
use crate::{
    bridge::{
        admin::{self, socket::AdminSocket},
        handover::doors::Doors,
        socket_file::{Ownership, SocketFile},
    },
    config::{
        Config,
        sections::{Metrics, UnixSocket},
    },
    handover::{clock, packet::Kind, predecessor::Predecessor},
};

/// The listener for metrics, if there is one.
pub(super) fn metrics(
    metrics: &Metrics,
    predecessor: Option<&mut Predecessor>,
    doors: &mut Doors,
) -> Result<Option<TcpListener>, ServeError> {
    let place = format!("{}:{}", metrics.host, metrics.port);
    let wanted = predecessor.filter(|_| metrics.enabled);
    let inherited = wanted.and_then(|it| it.take(Kind::Metrics, |its| its == place));
    let listener = match inherited {
        Some(socket) => {
            let listener = TcpListener::from(socket);
            listener.set_nonblocking(true).map_err(ServeError::Doors)?;
            Some(listener)
        }
        None => admin::bind(metrics)?,
    };
    if let Some(listener) = &listener {
        let added = doors.add(Kind::Metrics, place, listener);
        added.map_err(ServeError::Doors)?;
    }
    Ok(listener)
}

/// The admin socket, if there is one.
pub(super) fn admin(
    config: &Config,
    predecessor: Option<&mut Predecessor>,
    doors: &mut Doors,
) -> Result<Option<AdminSocket>, ServeError> {
    let configured = config.admin.socket.as_deref();
    let path = AdminSocket::place(configured, config.demo);
    let inherited = predecessor.zip(path.as_ref()).and_then(|(it, path)| {
        let place = path.to_string_lossy();
        it.take(Kind::Admin, |its| its == place)
    });
    let files = doors.files.clone();
    let admin = match (inherited, path) {
        (Some(socket), Some(path)) => Some(AdminSocket::adopt(path, socket, files)?),
        (Some(_), None) | (None, _) => AdminSocket::bind(configured, config.demo, files)?,
    };
    if let Some(admin) = &admin {
        let place = admin.path().to_string_lossy().into_owned();
        doors.add_later(Kind::Admin, place, admin.copied());
    }
    Ok(admin)
}

/// The listener that proxies on this host may use.
pub(super) fn unix_socket(
    socket: &UnixSocket,
    predecessor: Option<&mut Predecessor>,
    doors: &mut Doors,
) -> Result<Option<(UnixListener, SocketFile)>, ServeError> {
    if !socket.enabled {
        return Ok(None);
    }
    let files = doors.files.clone();
    let inherited = predecessor.and_then(|it| it.take(Kind::Unix, |its| its == socket.path));
    let (listener, file) = match inherited {
        Some(inherited) => {
            let file = SocketFile::adopt(Path::new(&socket.path), files);
            let file = file.map_err(|error| refused(socket, error.to_string()))?;
            (UnixListener::from(inherited), file)
        }
        None => bind_unix(socket, files)?,
    };
    let added = doors.add(Kind::Unix, socket.path.clone(), &listener);
    added.map_err(ServeError::Doors)?;
    Ok(Some((listener, file)))
}

fn refused(socket: &UnixSocket, reason: String) -> ServeError {
    ServeError::UnixSocket {
        path: socket.path.clone(),
        reason,
    }
}

/// How long a listener there may still answer whose process has just ended: the kernel takes its rings
/// apart later.
const SOCKET_WITHIN: Duration = Duration::from_secs(3);

#[expect(
    clippy::disallowed_methods,
    reason = "nothing runs yet that could be held up"
)]
fn bind_unix(
    socket: &UnixSocket,
    files: Ownership,
) -> Result<(UnixListener, SocketFile), ServeError> {
    let path = Path::new(&socket.path);
    if let Some(folder) = path.parent() {
        let made = std::fs::create_dir_all(folder);
        made.map_err(|error| refused(socket, error.to_string()))?;
    }
    let begun = Instant::now();
    loop {
        match SocketFile::bind(path, socket.permission_mode) {
            Ok(Some((listener, file))) => return Ok((listener, file.owned_by(files))),
            Ok(None) if begun.elapsed() < SOCKET_WITHIN => {
                std::thread::sleep(Duration::from_millis(100));
            }
            Ok(None) => return Err(refused(socket, "another process answers there".to_owned())),
            Err(error) => return Err(refused(socket, error.to_string())),
        }
    }
}

/// For each address the socket that is there already.
pub(super) fn redirects(
    addresses: Vec<SocketAddr>,
    mut predecessor: Option<&mut Predecessor>,
) -> Vec<(SocketAddr, Option<OwnedFd>)> {
    let inherited = |address: SocketAddr| {
        let place = address.to_string();
        let socket = predecessor
            .as_mut()?
            .take(Kind::Redirect, |its| its == place);
        Some((address, socket))
    };
    let mut inherited = inherited;
    addresses
        .into_iter()
        .map(|address| inherited(address).unwrap_or((address, None)))
        .collect()
}

/// The port's listeners, which the shards choose from, and the node's clock.
pub(super) fn port(runtime: &mut shards::Config, predecessor: Option<&mut Predecessor>) {
    if let Some(predecessor) = predecessor {
        runtime.frozen = true;
        runtime.inherited = predecessor.take_port();
        let origin_ns = predecessor.welcome.clock_origin_ns;
        runtime.started = Some(clock::from_ns(origin_ns));
    }
}
