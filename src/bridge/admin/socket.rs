//! The Unix socket over which an operator asks or changes a running node.
//!
//! Owns: `AdminSocket` (its place in the file system, mode 0600), who may connect, its routes.
//! May depend on: axum, tokio, `bridge::admin`.
//! Invariants: nobody but this process' user and root is heard; a socket that another live process
//! answers on is never taken away; the file goes with the process that made it.

use std::{
    io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::UnixListener as StdListener,
    },
    path::{Path, PathBuf},
    time::Duration,
};

use axum::{
    Router,
    extract::{Query, State},
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::{get, post},
    serve::Listener,
};
use tokio::{
    net::{UnixListener, UnixStream, unix::SocketAddr},
    sync::{mpsc, oneshot},
};

use super::{
    super::{
        guests,
        handover::doors::{Copied, Gate},
        socket_file::{Access, Ownership, SocketFile},
    },
    AdminRequest, Settle,
    report::Refusal,
};

/// Where it is, unless `admin.socket` says otherwise.
pub const DEFAULT_PATH: &str = crate::config::sections::ADMIN_SOCKET;

/// Why the socket cannot be had.
#[derive(Debug, thiserror::Error)]
#[error(
    "admin.socket = {path:?}: cannot be bound: {source}; its folder must be there and this user may \
     write to it, or set admin.socket = \"none\" to go without"
)]
pub struct SocketError {
    path: PathBuf,
    source: io::Error,
}

/// The place of the socket, and the socket once it is ours.
#[derive(Debug)]
pub struct AdminSocket {
    path: PathBuf,
    bound: Option<(StdListener, SocketFile)>,
    files: Ownership,
    copy: Copied,
}

impl AdminSocket {
    /// Binds the configured path; without one the default path, if that is possible. An empty one is
    /// none. `None` is a node without a socket.
    ///
    /// # Errors
    /// When a configured path cannot be bound. One that another process answers on is no error: it
    /// is tried again while the node runs.
    pub fn bind(
        configured: Option<&str>,
        is_demo: bool,
        files: Ownership,
    ) -> Result<Option<Self>, SocketError> {
        let Some(path) = Self::place(configured, is_demo) else {
            return Ok(None);
        };
        match bind(&path, &files) {
            Ok(bound) => {
                if bound.is_none() {
                    tracing::warn!(
                        path = %path.display(),
                        "another process answers on the admin socket; this one takes it over when that has ended"
                    );
                }
                Ok(Some(Self::with(path, bound, files)))
            }
            Err(source) if configured.is_some() => Err(SocketError { path, source }),
            Err(error) => {
                tracing::info!(path = %path.display(), %error, "no admin socket");
                Ok(None)
            }
        }
    }

    /// Where it is to be; `None` is a node without one.
    pub fn place(configured: Option<&str>, is_demo: bool) -> Option<PathBuf> {
        match configured {
            Some("") => None,
            Some(path) => Some(PathBuf::from(path)),
            None if is_demo => None,
            None => Some(PathBuf::from(DEFAULT_PATH)),
        }
    }

    /// The socket of the process before, with its file.
    ///
    /// # Errors
    /// When the file has gone.
    pub fn adopt(path: PathBuf, socket: OwnedFd, files: Ownership) -> Result<Self, SocketError> {
        let listener = StdListener::from(socket);
        let adopted = listener
            .set_nonblocking(true)
            .and_then(|()| SocketFile::adopt(&path, files.clone()));
        match adopted {
            Ok(file) => Ok(Self::with(path, Some((listener, file)), files)),
            Err(source) => Err(SocketError { path, source }),
        }
    }

    fn with(path: PathBuf, bound: Option<(StdListener, SocketFile)>, files: Ownership) -> Self {
        let admin = Self {
            path,
            bound,
            files,
            copy: Copied::default(),
        };
        admin.keep_copy();
        admin
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A copy of the socket for the next process, once this one has it.
    pub fn copied(&self) -> Copied {
        Copied::clone(&self.copy)
    }

    fn keep_copy(&self) {
        keep_copy(&self.copy, self.bound.as_ref());
    }

    /// Serves it on a task of its own, which takes the path over where another process has it still.
    pub(in crate::bridge) fn serve(self, requests: mpsc::Sender<AdminRequest>, gate: Gate) {
        let mut waits = gate.clone();
        tokio::spawn(async move {
            let Self {
                path,
                mut bound,
                files,
                copy,
            } = self;
            let (listener, file) = loop {
                match bound.take() {
                    Some(bound) => break bound,
                    None => tokio::select! {
                        () = tokio::time::sleep(RETRY_AFTER) => {}
                        // It is the next process' to wait for it.
                        () = waits.closes() => return,
                    },
                }
                bound = bind(&path, &files).unwrap_or_default();
                keep_copy(&copy, bound.as_ref());
            };
            match UnixListener::from_std(listener) {
                Ok(listener) => {
                    let owner = file.owner();
                    let door = OwnersOnly { listener, owner };
                    guests::serve(door, router(requests), guests::Bounds::default(), gate).await;
                }
                Err(error) => tracing::warn!(%error, "the admin socket cannot be served"),
            }
        });
    }
}

const RETRY_AFTER: Duration = Duration::from_secs(1);

/// `None` where another process answers.
fn bind(path: &Path, files: &Ownership) -> io::Result<Option<(StdListener, SocketFile)>> {
    let Some((listener, file)) = SocketFile::bind(path, Access::of_mode(0o600))? else {
        return Ok(None);
    };
    listener.set_nonblocking(true)?;
    Ok(Some((listener, file.owned_by(files.clone()))))
}

/// Without room for a copy the next process finds the path taken until this one has ended.
fn keep_copy(copy: &Copied, bound: Option<&(StdListener, SocketFile)>) {
    let socket = bound.and_then(|(listener, _)| listener.as_fd().try_clone_to_owned().ok());
    if let Some(socket) = socket {
        _ = copy.set(socket); // It is set once.
    }
}

/// Accepts this process' user and root; hangs up on others, whatever the file's mode became.
struct OwnersOnly {
    listener: UnixListener,
    owner: u32,
}

impl Listener for OwnersOnly {
    type Io = UnixStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (UnixStream, SocketAddr) {
        loop {
            let (stream, address) = Listener::accept(&mut self.listener).await;
            match stream.peer_cred() {
                Ok(peer) if peer.uid() == 0 || peer.uid() == self.owner => {
                    return (stream, address);
                }
                Ok(peer) => tracing::warn!(uid = peer.uid(), "refused on the admin socket"),
                Err(error) => tracing::warn!(%error, "refused on the admin socket"),
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

fn router(requests: mpsc::Sender<AdminRequest>) -> Router {
    Router::new()
        .route("/top", get(top))
        .route("/debug/channels", get(largest))
        .route("/cluster", get(cluster))
        .route("/cluster/rebalance", post(rebalance))
        .route("/apps/reload", post(reload_apps))
        .route("/upgrade", get(upgrade).post(begin_upgrade))
        .route("/webhooks/dead", get(letters))
        .route("/webhooks/dead/retry", post(retry_letters))
        .route("/webhooks/dead/drop", post(drop_letters))
        .with_state(requests)
}

async fn top(State(requests): State<mpsc::Sender<AdminRequest>>) -> Response {
    match asked(&requests, AdminRequest::Top).await {
        Some(report) => json(StatusCode::OK, &report),
        None => ending(),
    }
}

async fn largest(State(requests): State<mpsc::Sender<AdminRequest>>) -> Response {
    match asked(&requests, AdminRequest::Top).await {
        Some(report) => json(StatusCode::OK, &report.channels),
        None => ending(),
    }
}

async fn cluster(State(requests): State<mpsc::Sender<AdminRequest>>) -> Response {
    match asked(&requests, AdminRequest::Cluster).await {
        Some(report) => json(StatusCode::OK, &report),
        None => ending(),
    }
}

async fn rebalance(State(requests): State<mpsc::Sender<AdminRequest>>) -> Response {
    match asked(&requests, AdminRequest::Rebalance).await {
        Some(Ok(report)) => json(StatusCode::OK, &report),
        Some(Err(error)) => json(StatusCode::CONFLICT, &Refusal { error }),
        None => ending(),
    }
}

async fn reload_apps(State(requests): State<mpsc::Sender<AdminRequest>>) -> Response {
    match asked(&requests, AdminRequest::ReloadApps).await {
        Some(Ok(report)) => json(StatusCode::OK, &report),
        Some(Err(error)) => json(StatusCode::CONFLICT, &Refusal { error }),
        None => ending(),
    }
}

/// `?binary=/usr/bin/sockudo`; without it the file that this process was started from.
#[derive(Debug, serde::Deserialize)]
struct Binary {
    binary: Option<PathBuf>,
}

async fn begin_upgrade(
    State(requests): State<mpsc::Sender<AdminRequest>>,
    Query(Binary { binary }): Query<Binary>,
) -> Response {
    let ask = |waiter| AdminRequest::BeginUpgrade { binary, waiter };
    match asked(&requests, ask).await {
        Some(Ok(report)) => json(StatusCode::ACCEPTED, &report),
        Some(Err(error)) => json(StatusCode::CONFLICT, &Refusal { error }),
        None => ending(),
    }
}

async fn upgrade(State(requests): State<mpsc::Sender<AdminRequest>>) -> Response {
    match asked(&requests, AdminRequest::Upgrade).await {
        Some(report) => json(StatusCode::OK, &report),
        None => ending(),
    }
}

async fn letters(State(requests): State<mpsc::Sender<AdminRequest>>) -> Response {
    match asked(&requests, AdminRequest::Letters).await {
        Some(Ok(report)) => json(StatusCode::OK, &report),
        Some(Err(error)) => json(StatusCode::CONFLICT, &Refusal { error }),
        None => ending(),
    }
}

/// `?id=17`; without it all.
#[derive(Debug, serde::Deserialize)]
struct Which {
    id: Option<String>,
}

async fn retry_letters(
    State(requests): State<mpsc::Sender<AdminRequest>>,
    Query(which): Query<Which>,
) -> Response {
    settle_letters(&requests, which, Settle::Retry).await
}

async fn drop_letters(
    State(requests): State<mpsc::Sender<AdminRequest>>,
    Query(which): Query<Which>,
) -> Response {
    settle_letters(&requests, which, Settle::Drop).await
}

async fn settle_letters(
    requests: &mpsc::Sender<AdminRequest>,
    which: Which,
    settle: Settle,
) -> Response {
    // What is no number, as the list has it, is the name of none.
    let number = |id: String| {
        let number = id.parse().ok();
        number.filter(|it: &u64| it.to_string() == id)
    };
    let ids = which.id.map(|id| number(id).into_iter().collect());
    let ask = |waiter| AdminRequest::SettleLetters {
        ids,
        settle,
        waiter,
    };
    match asked(requests, ask).await {
        Some(Ok(report)) => json(StatusCode::OK, &report),
        Some(Err(error)) => json(StatusCode::CONFLICT, &Refusal { error }),
        None => ending(),
    }
}

async fn asked<T>(
    requests: &mpsc::Sender<AdminRequest>,
    ask: impl FnOnce(oneshot::Sender<T>) -> AdminRequest,
) -> Option<T> {
    let (waiter, answer) = oneshot::channel();
    requests.send(ask(waiter)).await.ok()?;
    answer.await.ok()
}

fn ending() -> Response {
    let error = "the node is ending".to_owned();
    json(StatusCode::SERVICE_UNAVAILABLE, &Refusal { error })
}

fn json(status: StatusCode, body: &impl serde::Serialize) -> Response {
    let body = serde_json::to_string(body).expect("plain fields");
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn while_another_process_answers_there_it_waits() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("admin.sock");
        let bind =
            || AdminSocket::bind(path.to_str(), false, Ownership::default()).expect("it may wait");
        let first = bind().expect("configured");
        assert!(first.bound.is_some());
        assert!(bind().expect("configured").bound.is_none());
        drop(first);
        assert!(bind().expect("configured").bound.is_some());
    }

    #[test]
    fn nobody_but_its_owner_may_write_to_it() {
        use std::os::unix::fs::PermissionsExt;

        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("admin.sock");
        let bound = AdminSocket::bind(path.to_str(), false, Ownership::default());
        let _bound = bound.expect("it binds").expect("configured");
        let mode = std::fs::metadata(&path)
            .expect("there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn without_a_path_there_is_none_and_one_that_cannot_be_is_said() {
        let bind = |path, is_demo| AdminSocket::bind(path, is_demo, Ownership::default());
        assert!(bind(Some(""), false).expect("none").is_none());
        assert!(bind(None, true).expect("none").is_none());
        let error = bind(Some("/nowhere/at/all/admin.sock"), false);
        let error = error.expect_err("no such folder").to_string();
        assert!(
            error.starts_with("admin.socket = \"/nowhere/at/all/admin.sock\": "),
            "{error}"
        );
    }
}
