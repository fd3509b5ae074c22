//! Subjects: our build and a peer, each as a child process with the same app and limits.
//!
//! Owns: configurations, free ports, waiting for readiness, the child's end.
//! May depend on: `target`, `wire`, tempfile.
//! Invariants: a subject listens on loopback only and ends with its value; both kinds get limits far
//! above the load, no rate limit, no metrics and no webhook queue.

use std::{
    fs::File,
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use thiserror::Error;

use crate::{
    client::Publisher,
    target::{Credentials, Target},
};

/// What is put under load.
#[derive(Clone, Debug)]
pub enum Subject {
    /// A build of ours, the `build`th of the run.
    Ours {
        program: PathBuf,
        build: usize,
        shards: Option<u16>,
    },
    /// Sockudo 2.x.
    Peer { program: PathBuf },
}

/// Why a subject did not start.
#[derive(Debug, Error)]
pub enum SubjectError {
    #[error("{program}: {source}")]
    Spawn { program: PathBuf, source: io::Error },
    #[error("{program} ended early or was not ready within {} s; its log ends:\n{log}", READY.as_secs())]
    NotReady { program: PathBuf, log: String },
}

/// A subject that runs. Dropping it kills the process.
pub struct Running {
    child: Child,
    pub target: Target,
    folder: tempfile::TempDir,
}

const READY: Duration = Duration::from_secs(20);

impl Subject {
    pub fn name(&self) -> String {
        match self {
            Self::Ours { build, shards, .. } => {
                let build = match build {
                    0 => String::new(),
                    later => format!(" (build {})", later + 1),
                };
                match shards {
                    None => format!("ours{build}"),
                    Some(1) => format!("ours{build}, 1 shard"),
                    Some(shards) => format!("ours{build}, {shards} shards"),
                }
            }
            Self::Peer { .. } => "sockudo 2.9.2".to_owned(),
        }
    }

    fn program(&self) -> &Path {
        match self {
            Self::Ours { program, .. } | Self::Peer { program } => program,
        }
    }

    /// Starts the process and waits until it answers.
    pub fn start(&self) -> Result<Running, SubjectError> {
        let failed = |source| SubjectError::Spawn {
            program: self.program().to_owned(),
            source,
        };
        let folder = tempfile::tempdir().map_err(failed)?;
        let port = free_port().map_err(failed)?;
        let app = Credentials {
            id: "bench-id".to_owned(),
            key: "bench-key".to_owned(),
            secret: "bench-secret".to_owned(),
        };
        let file = folder.path().join("config.json");
        std::fs::write(&file, self.configuration(&app, port).to_string()).map_err(failed)?;
        let log = File::create(folder.path().join("log")).map_err(failed)?;
        let program = self.program().canonicalize().map_err(failed)?;
        let mut command = Command::new(program);
        if matches!(self, Self::Ours { .. }) {
            command.arg("serve");
        }
        command
            .arg("--config")
            .arg(&file)
            .current_dir(folder.path())
            .env_clear();
        let log_too = log.try_clone().map_err(failed)?;
        command.stdin(Stdio::null()).stdout(log_too).stderr(log);
        let child = command.spawn().map_err(failed)?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let target = Target {
            name: self.name(),
            address,
            authority: address.to_string(),
            app,
            pid: Some(child.id()),
        };
        let mut running = Running {
            child,
            target,
            folder,
        };
        if running.is_ready() {
            return Ok(running);
        }
        let log = running.log_end();
        Err(SubjectError::NotReady {
            program: self.program().to_owned(),
            log,
        })
    }

    fn configuration(&self, app: &Credentials, port: u16) -> Value {
        let mut configuration = json!({
            "host": "127.0.0.1", "port": port,
            "queue": {"driver": "none"},
            "rate_limiter": {"enabled": false},
            "metrics": {"enabled": false},
            "app_manager": {"driver": "memory", "array": {"apps": [{
                "id": app.id, "key": app.key, "secret": app.secret, "enabled": true,
                "max_connections": 1_000_000, "enable_client_messages": true,
                "max_client_events_per_second": 1_000_000,
            }]}},
        });
        if let Self::Ours {
            shards: Some(shards),
            ..
        } = self
        {
            configuration["shards"] = json!(shards);
        }
        configuration
    }
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
            // Asked over a bare connection first: clients would wait long for one that is refused.
            if TcpStream::connect(self.target.address).is_ok()
                && let Ok(mut publisher) = Publisher::connect(self.target.address)
                && publisher
                    .request(&self.target.api_request("events", body))
                    .is_ok()
            {
                return true;
            }
            thread::sleep(Duration::from_millis(50));
        }
        false
    }

    fn log_end(&self) -> String {
        let log = std::fs::read(self.folder.path().join("log")).unwrap_or_default();
        let end = &log[log.len().saturating_sub(2_000)..];
        String::from_utf8_lossy(end).into_owned()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only if the process is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that nobody has. It is free again when this returns, so two programs could still race.
fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port())
}
