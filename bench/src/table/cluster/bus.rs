//! The bus between nodes: a Redis or a NATS server of the table's own, and how a node is told of it.
//!
//! Owns: `Engine`, `Bus` (a running one), `Seat` (a node's place at it).
//! May depend on: `subjects`, tempfile.
//! Invariants: a bus listens on loopback only, stores nothing, and ends with its value.

use std::{
    fs::File,
    io,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use clap::ValueEnum;
use serde_json::{Value, json};
use thiserror::Error;

use crate::{
    cpu::Usage,
    table::subjects::{free_port, set_apart},
};

/// What carries what nodes tell each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Engine {
    Redis,
    Nats,
}

impl Engine {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::Nats => "nats",
        }
    }

    const fn program(self) -> &'static str {
        match self {
            Self::Redis => "redis-server",
            Self::Nats => "nats-server",
        }
    }
}

#[derive(Debug, Error)]
pub enum BusError {
    #[error("{program} cannot be run: {source}; apt-get install {program}")]
    Spawn {
        program: &'static str,
        source: io::Error,
    },
    #[error("{program} did not listen within {} s", READY.as_secs())]
    Deaf { program: &'static str },
}

/// A server that runs. Dropping it kills the process.
#[derive(Debug)]
pub struct Bus {
    child: Child,
    pub engine: Engine,
    pub address: SocketAddr,
    _folder: tempfile::TempDir,
}

const READY: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(10);

impl Bus {
    pub fn start(engine: Engine) -> Result<Self, BusError> {
        let program = engine.program();
        let failed = |source| BusError::Spawn { program, source };
        let folder = tempfile::tempdir().map_err(failed)?;
        let port = free_port().map_err(failed)?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let log = File::create(folder.path().join("log")).map_err(failed)?;
        let mut command = Command::new(program);
        match engine {
            Engine::Redis => {
                command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
            }
            Engine::Nats => {
                command.args(["--addr", "127.0.0.1"]);
            }
        }
        command
            .arg("--port")
            .arg(port.to_string())
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(failed)?)
            .stderr(log);
        let child = set_apart(&mut command).spawn().map_err(failed)?;
        let mut bus = Self {
            child,
            engine,
            address,
            _folder: folder,
        };
        let deadline = Instant::now() + READY;
        while TcpStream::connect(address).is_err() {
            if Instant::now() > deadline || !matches!(bus.child.try_wait(), Ok(None)) {
                return Err(BusError::Deaf { program });
            }
            thread::sleep(LOOK);
        }
        Ok(bus)
    }

    pub fn usage(&self) -> io::Result<Usage> {
        Usage::of(self.child.id())
    }

    /// The place of the node with that number.
    pub fn seat(&self, node: u8, signs: Signs) -> Seat {
        Seat {
            engine: self.engine,
            port: self.address.port(),
            node,
            signs,
        }
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        // Both fail only for a process that is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether nodes sign what they tell each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signs {
    Yes,
    No,
}

/// A node's place at a bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat {
    engine: Engine,
    port: u16,
    node: u8,
    signs: Signs,
}

impl Seat {
    /// Adds the keys that our server and its predecessors have in common.
    pub fn joins(&self, configuration: &mut Value) {
        match self.engine {
            Engine::Redis => {
                configuration["adapter"] = json!({"driver": "redis"});
                configuration["database"] =
                    json!({"redis": {"host": "127.0.0.1", "port": self.port}});
                // Predecessors do not start as a cluster with a cache in memory.
                configuration["cache"] = json!({"driver": "redis"});
            }
            Engine::Nats => {
                let server = format!("nats://127.0.0.1:{}", self.port);
                configuration["adapter"] = json!({"driver": "nats", "nats": {"servers": [server]}});
            }
        }
    }

    /// Those of our server alone.
    pub fn cluster(&self) -> Value {
        let mut keys = json!({"name": "bench", "node_id": format!("node-{}", self.node)});
        if self.signs == Signs::Yes {
            keys["secret"] = json!("as long as a secret of a cluster ought to be");
        }
        keys
    }
}
