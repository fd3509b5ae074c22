//! The listening sockets of a start: taken from the process before where it had them, bound where not.
//!
//! Owns: which socket is wanted where; the place of the Unix socket.
//! May depend on: `bridge`'s doors, `handover::predecessor`, `config`.
//! Invariants: what is taken is what would have been bound; a copy of each is kept for the process after.

use std::{
    net::{SocketAddr, TcpListener},
    os::{fd::OwnedFd, unix::net::UnixListener},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use super::ServeError;
use crate::{
    bridge::{
        accounts::Account,
        admin::{self, socket::AdminSocket},
        handover::{Legacy, doors::Doors},
        socket_file::{Access, Ownership, SocketFile},
    },
    config::{
        Config,
        sections::{Metrics, UnixSocket},
    },
    handover::{clock, packet::Kind, predecessor::Predecessor, process::Program},
};

/// Beside those of the port, which the runtime has.
pub(super) struct Sockets {
    pub(super) metrics: Option<TcpListener>,
    pub(super) admin: Option<AdminSocket>,
    pub(super) redirects: Vec<(SocketAddr, Option<OwnedFd>)>,
    pub(super) legacy: Legacy,
    /// The Unix socket's place, as long as it is kept.
    pub(super) unix_file: Option<SocketFile>,
}

impl Sockets {
    /// Takes or binds all of them; those of the port and the Unix socket go into the runtime's settings.
    pub(super) fn take(
        config: &Config,
        redirects: Vec<SocketAddr>,
        mut predecessor: Option<Predecessor>,
        runtime: &mut shards::Config,
    ) -> Result<Self, ServeError> {
        let mut doors = Doors::default();
        doors.files.set(predecessor.is_none());
        let metrics = metrics(&config.metrics, predecessor.as_mut(), &mut doors)?;
        let admin = admin(config, predecessor.as_mut(), &mut doors)?;
        let unix = unix_socket(&config.unix_socket, predecessor.as_mut(), &mut doors)?;
        let (local, unix_file) = unix.unzip();
        runtime.local = local.map(Arc::new);
        let redirects = inherited(redirects, predecessor.as_mut());
        port(runtime, predecessor.as_mut());
        let program = Program::current();
        if let Err(error) = &program {
            tracing::warn!(%error, "it is not known which program this is: it cannot be upgraded while it runs");
        }
        let unwanted = predecessor.iter().flat_map(Predecessor::unwanted);
        let unwanted = unwanted.filter_map(|it| SocketFile::adopt(it, doors.files.clone()).ok());
        let legacy = Legacy {
            program: program.ok(),
            unwanted: unwanted.collect(),
            doors,
            predecessor: predecessor.map(Predecessor::into_link),
        };
        Ok(Self {
            metrics,
            admin,
            redirects,
            legacy,
            unix_file,
        })
    }
}

/// The listener for metrics, if there is one.
fn metrics(
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
fn admin(
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
fn unix_socket(
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
            doors.set_access_later(PathBuf::from(&socket.path), access(socket)?);
            (UnixListener::from(inherited), file)
        }
        None => bind_unix(socket, files)?,
    };
    let added = doors.add(Kind::Unix, socket.path.clone(), &listener);
    added.map_err(ServeError::Doors)?;
    Ok(Some((listener, file)))
}

/// Who may open its file.
fn access(socket: &UnixSocket) -> Result<Access, ServeError> {
    let number = |account: Account, name: &Option<String>| {
        let number = name.as_ref().map(|name| account.number(name));
        let unknown = || refused(socket, format!("{name:?} is no {}", account.word()));
        number.map(|it| it.ok_or_else(unknown)).transpose()
    };
    Ok(Access {
        mode: socket.permission_mode,
        owner: number(Account::User, &socket.owner)?,
        group: number(Account::Group, &socket.group)?,
    })
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
    let access = access(socket)?;
    let begun = Instant::now();
    loop {
        match SocketFile::bind(path, access) {
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
fn inherited(
    addresses: Vec<SocketAddr>,
    mut predecessor: Option<&mut Predecessor>,
) -> Vec<(SocketAddr, Option<OwnedFd>)> {
    let with_socket = |address: SocketAddr| {
        let place = address.to_string();
        let predecessor = predecessor.as_mut();
        let socket = predecessor.and_then(|it| it.take(Kind::Redirect, |its| its == place));
        (address, socket)
    };
    addresses.into_iter().map(with_socket).collect()
}

/// The port's listeners, which the shards choose from, and the node's clock.
fn port(runtime: &mut shards::Config, predecessor: Option<&mut Predecessor>) {
    if let Some(predecessor) = predecessor {
        runtime.frozen = true;
        runtime.inherited = predecessor.take_port();
        let origin_ns = predecessor.welcome.clock_origin_ns;
        runtime.started = Some(clock::from_ns(origin_ns));
    }
}
