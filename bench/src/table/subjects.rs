//! Subjects: our build, peers and floors, each as a child process with the same app and limits.
//!
//! Owns: configurations, free ports, waiting for readiness, the child's end.
//! May depend on: `floors`, `target`, `wire`, tempfile.
//! Invariants: a subject listens on loopback only and ends with its value; servers get limits far above
//! the load, no rate limit, and no metrics unless they are what is read.

use std::{
    fs::{self, File},
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustls::StreamOwned;
use serde_json::{Value, json};
use thiserror::Error;

use super::{
    cluster::bus::{Bus, Engine, Seat},
    identity::{CERTIFICATE, Identity, KEY},
    sink::Sink,
};
use crate::{
    floors::Floor,
    target::{Credentials, Target},
    tls::Tls,
    wire,
};

/// What is put under load.
#[derive(Clone, Debug)]
pub struct Subject {
    /// In the table's head.
    pub name: String,
    pub program: Program,
}

#[derive(Clone, Debug)]
pub enum Program {
    /// This server, with so many shards, or with as many as it likes; pinned to cores, as it is by
    /// default, or free to run on any, as other servers are.
    Ours {
        path: PathBuf,
        shards: Option<u16>,
        is_pinned: bool,
    },
    /// Sockudo 2.x to 5.x, which understand the same keys.
    Predecessor {
        path: PathBuf,
    },
    /// Any other server, run by `sh -c`.
    Shell {
        command: String,
    },
    Floor {
        path: PathBuf,
        floor: Floor,
    },
}

/// What a load wants of our server; other servers start as they always do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    pub metrics: bool,
    /// A connection may have any number of channels, as fast as it likes.
    pub is_unlimited: bool,
    pub shards_min: Option<u16>,
    /// It is a node of a cluster.
    pub seat: Option<Seat>,
    /// Client events become webhooks to a target of the table's own.
    pub webhooks: Option<Hooks>,
    /// Requests are counted in a Redis of the table's own, against limits that none reaches.
    pub counts_in_redis: bool,
    /// Webhooks wait in a Redis of the table's own.
    pub queues_in_redis: bool,
    /// It has an admin socket.
    pub admin_socket: bool,
    /// Its port speaks TLS, with a certificate that all of the table show.
    pub tls: bool,
}

/// How webhooks are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hooks {
    /// A request for each event.
    Single,
    /// A request for those of 50 ms.
    Batched,
}

/// Why a subject did not start.
#[derive(Debug, Error)]
pub enum SubjectError {
    #[error("{name}: {source}")]
    Spawn { name: String, source: io::Error },
    #[error("{name} ended early or was not ready within {} s; its log ends:\n{log}", READY.as_secs())]
    NotReady { name: String, log: String },
}

/// A subject that runs. Dropping it kills the process, and those that it started.
pub struct Running {
    child: Child,
    pub target: Target,
    /// Where its metrics are, if they were asked for.
    pub metrics: Option<SocketAddr>,
    /// Where its webhooks go, if it sends any.
    pub sink: Option<Sink>,
    _redis: Option<Bus>,
    folder: tempfile::TempDir,
}

/// In the folder of a subject.
const ADMIN_SOCKET: &str = "admin.sock";
const READY: Duration = Duration::from_secs(20);
/// Between two looks whether a subject is ready.
const LOOK: Duration = Duration::from_millis(20);

impl Subject {
    /// A build of this server; a name tells it from others in the table.
    pub fn ours(name: &str, path: PathBuf, shards: Option<u16>) -> Self {
        let name = match shards {
            None => name.to_owned(),
            Some(1) => format!("{name}, 1 shard"),
            Some(shards) => format!("{name}, {shards} shards"),
        };
        // A thread on each core of a smaller machine would pin two to one core.
        let is_pinned = shards.is_none();
        let program = Program::Ours {
            path,
            shards,
            is_pinned,
        };
        Self { name, program }
    }

    /// A build of this server that may run on any core.
    pub fn unpinned(name: &str, path: PathBuf) -> Self {
        let program = Program::Ours {
            path,
            shards: None,
            is_pinned: false,
        };
        let name = format!("{name}, not pinned");
        Self { name, program }
    }

    pub fn floor(path: PathBuf, floor: Floor) -> Self {
        Self {
            name: floor.to_string(),
            program: Program::Floor { path, floor },
        }
    }

    pub fn as_floor(&self) -> Option<Floor> {
        match &self.program {
            Program::Floor { floor, .. } => Some(*floor),
            Program::Ours { .. } | Program::Predecessor { .. } | Program::Shell { .. } => None,
        }
    }

    pub fn is_ours(&self) -> bool {
        matches!(self.program, Program::Ours { .. })
    }

    /// Made by `unpinned`.
    pub fn is_unpinned(&self) -> bool {
        match self.program {
            Program::Ours {
                shards, is_pinned, ..
            } => shards.is_none() && !is_pinned,
            Program::Predecessor { .. } | Program::Shell { .. } | Program::Floor { .. } => false,
        }
    }

    /// Two of this server that differ in their shards at most.
    pub fn is_same_build(&self, other: &Self) -> bool {
        match (&self.program, &other.program) {
            (Program::Ours { path, .. }, Program::Ours { path: other, .. }) => path == other,
            _ => false,
        }
    }

    /// Starts the process and waits until it answers.
    pub fn start(&self, needs: Needs) -> Result<Running, SubjectError> {
        let failed = |source| SubjectError::Spawn {
            name: self.name.clone(),
            source,
        };
        let folder = tempfile::tempdir().map_err(failed)?;
        let server = free_port().map_err(failed)?;
        let metrics = match needs.metrics && self.is_ours() {
            true => Some(free_port().map_err(failed)?),
            false => None,
        };
        let sink = needs.webhooks.map(|_| Sink::start()).transpose();
        let sink = sink.map_err(failed)?;
        let has_redis = needs.counts_in_redis || needs.queues_in_redis;
        let redis = has_redis.then(|| Bus::start(Engine::Redis));
        let redis = redis
            .transpose()
            .map_err(|error| failed(io::Error::other(error)))?;
        let present = || Identity::of_this_run()?.present(folder.path());
        let tls = needs.tls.then(present).transpose().map_err(failed)?;
        let ports = Ports {
            server,
            metrics,
            sink: sink.as_ref().map(|it| it.address),
            redis: redis.as_ref().map(|it| it.address.port()),
        };
        let app = Credentials {
            id: "bench-id".to_owned(),
            key: "bench-key".to_owned(),
            secret: "bench-secret".to_owned(),
        };
        let log = File::create(folder.path().join("log")).map_err(failed)?;
        let mut command = self
            .command(folder.path(), ports, needs, &app)
            .map_err(failed)?;
        let log_too = log.try_clone().map_err(failed)?;
        command
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(log_too)
            .stderr(log);
        let child = set_apart(command.process_group(0))
            .spawn()
            .map_err(failed)?;
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let target = Target {
            name: self.name.clone(),
            address: local(server),
            authority: local(server).to_string(),
            app,
            pid: Some(child.id()),
            tls,
            admin_socket: needs.admin_socket.then(|| folder.path().join(ADMIN_SOCKET)),
        };
        let mut running = Running {
            child,
            target,
            metrics: metrics.map(local),
            sink,
            _redis: redis,
            folder,
        };
        if running.is_ready() {
            running.target.pid = Some(running.server());
            return Ok(running);
        }
        let log = running.log_end();
        let name = self.name.clone();
        Err(SubjectError::NotReady { name, log })
    }

    fn command(
        &self,
        folder: &Path,
        ports: Ports,
        needs: Needs,
        app: &Credentials,
    ) -> io::Result<Command> {
        let port = ports.server;
        let configured = |path: &Path, first: &[&str], configuration: &Value| {
            let file = folder.join("config.json");
            fs::write(&file, configuration.to_string())?;
            let mut command = Command::new(path.canonicalize()?);
            command.args(first).arg("--config").arg(file).env_clear();
            Ok(command)
        };
        match &self.program {
            Program::Ours {
                path,
                shards,
                is_pinned,
            } => {
                let mut configuration = configuration(app, ports, needs);
                let shards = (*shards).max(needs.shards_min);
                if let Some(shards) = shards {
                    configuration["shards"] = json!(shards);
                }
                configuration["pin"] = json!(*is_pinned && shards.is_none());
                if needs.is_unlimited {
                    configuration["net"] = json!({"subscribe_rate_per_s": 0});
                    configuration["app_manager"]["array"]["apps"][0]["max_subscriptions_per_connection"] =
                        json!(0);
                }
                if let Some(seat) = needs.seat {
                    seat.joins(&mut configuration);
                    configuration["cluster"] = seat.cluster();
                }
                if needs.admin_socket {
                    configuration["admin"] = json!({"socket": folder.join(ADMIN_SOCKET)});
                }
                if let Some(port) = ports.metrics {
                    configuration["metrics"] =
                        json!({"enabled": true, "host": "127.0.0.1", "port": port});
                }
                configured(path, &["serve"], &configuration)
            }
            Program::Predecessor { path } => {
                let mut configuration = configuration(app, ports, needs);
                if let Some(seat) = needs.seat {
                    seat.joins(&mut configuration);
                }
                configured(path, &[], &configuration)
            }
            Program::Floor { path, floor } => {
                let mut command = Command::new(path.canonicalize()?);
                command
                    .args(["bench", "floor", floor.name(), "--port"])
                    .arg(port.to_string())
                    .env_clear();
                if let Some(sink) = ports.sink {
                    command.args(["--sink", &sink.to_string()]);
                }
                if needs.tls {
                    command.args(["--identity", CERTIFICATE, KEY]);
                }
                Ok(command)
            }
            Program::Shell { command: line } => Ok(shell(line, port, app, needs.tls)),
        }
    }
}

/// What it is to serve is in its environment.
fn shell(line: &str, port: u16, app: &Credentials, has_tls: bool) -> Command {
    let mut command = Command::new("sh");
    command
        .args(["-c", line])
        .env("HOST", "127.0.0.1")
        .env("PORT", port.to_string())
        .env("APP_ID", &app.id)
        .env("APP_KEY", &app.key)
        .env("APP_SECRET", &app.secret);
    if has_tls {
        command.envs([("CERTIFICATE", CERTIFICATE), ("KEY", KEY)]);
    }
    command
}

/// Where a subject listens.
#[derive(Clone, Copy)]
struct Ports {
    server: u16,
    metrics: Option<u16>,
    sink: Option<SocketAddr>,
    redis: Option<u16>,
}

/// Ends the child when this program is killed, whose drops then do not run; and lets it have huge
/// pages, which this program has left.
pub(super) fn set_apart(command: &mut Command) -> &mut Command {
    let prepare = || {
        // Where it is refused this program has not left them either.
        // SAFETY: the call takes numbers, and may be made between fork and exec.
        unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 0, 0, 0, 0) };
        // SAFETY: as above.
        match unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    // SAFETY: the closure only makes system calls, which is all that may be done in a forked child.
    unsafe { command.pre_exec(prepare) }
}

fn configuration(app: &Credentials, ports: Ports, needs: Needs) -> Value {
    let mut configuration = json!({
        "host": "127.0.0.1", "port": ports.server,
        "queue": {"driver": "none"},
        "rate_limiter": {"enabled": false},
        "metrics": {"enabled": false},
        "app_manager": {"driver": "memory", "array": {"apps": [{
            "id": app.id, "key": app.key, "secret": app.secret, "enabled": true,
            "max_connections": 1_000_000, "enable_client_messages": true,
            "max_client_events_per_second": 1_000_000,
        }]}},
    });
    if let (Some(sink), Some(hooks)) = (ports.sink, needs.webhooks) {
        let is_batched = hooks == Hooks::Batched;
        let driver = match needs.queues_in_redis {
            true => "redis",
            false => "memory",
        };
        configuration["queue"] = json!({"driver": driver});
        configuration["webhooks"] = json!({"batching": {"enabled": is_batched, "duration": 50}});
        configuration["app_manager"]["array"]["apps"][0]["webhooks"] = json!([{
            "url": format!("http://{sink}/"), "event_types": ["client_event"],
        }]);
    }
    if needs.tls {
        // The process works in its own folder.
        configuration["ssl"] = json!({"enabled": true, "cert_path": CERTIFICATE, "key_path": KEY});
    }
    if needs.counts_in_redis {
        configuration["rate_limiter"] = json!({
            "enabled": true, "driver": "redis",
            "api_rate_limit": {"max_requests": 1_000_000_000, "window_seconds": 60},
        });
    }
    if let Some(port) = ports.redis {
        configuration["database"] = json!({"redis": {"host": "127.0.0.1", "port": port}});
    }
    configuration
}

impl Running {
    /// Waits until a signed request for a channel is taken over.
    fn is_ready(&mut self) -> bool {
        let deadline = Instant::now() + READY;
        let body = r#"{"name":"ready","channels":["bench-ready"],"data":"{}"}"#;
        while Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return false;
            }
            let request = self.target.api_request("events", body);
            let tls = self.target.tls.as_ref();
            if ask(self.target.address, tls, &request).is_ok_and(|(status, _)| status == 200) {
                return true;
            }
            thread::sleep(LOOK);
        }
        false
    }

    /// The process that serves: a shell's last child, where the subject is a shell that waits for it.
    fn server(&self) -> u32 {
        let mut pid = self.child.id();
        let child_of = |pid: u32| {
            let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
            children.split_whitespace().next_back()?.parse().ok()
        };
        let is_shell = |pid: u32| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            matches!(name.trim(), "sh" | "bash" | "dash")
        };
        while is_shell(pid)
            && let Some(child) = child_of(pid)
        {
            pid = child;
        }
        pid
    }

    fn log_end(&self) -> String {
        let log = fs::read(self.folder.path().join("log")).unwrap_or_default();
        let end = &log[log.len().saturating_sub(2_000)..];
        String::from_utf8_lossy(end).trim().to_owned()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(group) = i32::try_from(self.child.id()) {
            // SAFETY: the call takes numbers; the group is the one that this child was made the head of,
            // and its id is not used again before the child is waited for below.
            unsafe { libc::kill(-group, libc::SIGKILL) };
        }
        // Fails only if the process is gone already.
        let _ = self.child.wait();
    }
}

/// Status and body of the answer to one request.
pub fn ask(address: SocketAddr, tls: Option<&Tls>, request: &[u8]) -> io::Result<(u16, Vec<u8>)> {
    const PATIENCE: Duration = Duration::from_secs(2);
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    match tls {
        None => wire::exchange(stream, request),
        Some(tls) => wire::exchange(StreamOwned::new(tls.begin(), stream), request),
    }
}

/// A port that nobody has. It is free again when this returns, so two programs could still race.
pub(super) fn free_port() -> io::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?.port())
}
