//! The `serve` command: the order in which a node starts and stops.
//!
//! Owns: that order, the start-up banner, exit codes of a start that fails.
//! May depend on: every room's front door.
//! Invariants: nothing listens before the configuration was found right; `ready` is said once all
//! shards listen.

mod sockets;

use std::{
    collections::BTreeMap,
    net::{SocketAddr, ToSocketAddrs as _},
    sync::Arc,
    time::Instant,
};

use ahash::RandomState;
use shards::{BridgeLink, Neighbour, Process};
use thiserror::Error;
use tracing::{info, warn};

use self::sockets::Sockets;
use crate::{
    bridge::{
        admin::{AdminError, socket::SocketError},
        apps::{
            AppTable,
            store::{Store, StoreSetupError},
        },
        handover::adapter_name,
        notify::Supervisor,
        port_tls::{PortTls, PortTlsError},
        reach::{queue_name, store_name},
        redirect::{self, RedirectError},
        refusals::{Reader, refusals},
        reload::Reload,
        run::{self as bridge, BridgeError, Exit, Setup},
        signals,
        tickets::TicketKeys,
    },
    config::{
        self, Config, ConfigErrors, Loaded, Notice, Sources,
        sections::{AdapterDriver, UnixSocket},
    },
    handover::{
        link::Link,
        packet::{Packet, Refused},
        predecessor::{MeetError, Predecessor},
        process,
    },
    http::cors::CorsError,
    logging::{self, LoggingError, ReloadHandle},
    metrics::sample::Build,
    server::{NodeSeed, Settings, ShardServer, SocketIdKey},
};

/// Why a node did not start, or did not stop well.
#[derive(Debug, Error)]
pub enum ServeError {
    #[error("{0}")]
    Config(ConfigErrors),
    #[error("logging: {0}")]
    Logging(#[from] LoggingError),
    #[error(transparent)]
    Cors(#[from] CorsError),
    #[error("host = {host:?}: {reason}")]
    Host { host: String, reason: String },
    #[error(transparent)]
    Admin(#[from] AdminError),
    #[error(transparent)]
    AdminSocket(#[from] SocketError),
    #[error(transparent)]
    Store(#[from] StoreSetupError),
    #[error("unix_socket.path = {path:?}: cannot be bound: {reason}")]
    UnixSocket { path: String, reason: String },
    #[error(transparent)]
    Tls(#[from] PortTlsError),
    #[error("the system's random source failed: {0}")]
    Random(getrandom::Error),
    #[error(transparent)]
    Start(#[from] shards::StartError),
    #[error("SOCKUDO_HANDOVER_FD names no link of `sockudo upgrade`: {0}")]
    Link(std::io::Error),
    #[error(transparent)]
    Predecessor(#[from] MeetError),
    #[error(
        "adapter.driver was {before:?} and is {now:?} now, which a running node cannot change: restart it"
    )]
    Adapter { before: String, now: &'static str },
    #[error(
        "{key} was {before:?} and is {now:?} now, which a running node cannot change: restart it"
    )]
    Cluster {
        key: &'static str,
        before: String,
        now: String,
    },
    #[error("the listeners' sockets cannot be copied: {0}")]
    Doors(std::io::Error),
    #[error("signal handlers: {0}")]
    Signals(std::io::Error),
    #[error(transparent)]
    Bridge(#[from] BridgeError),
    #[error(transparent)]
    Redirect(#[from] RedirectError),
}

impl ServeError {
    /// The process' exit code: 78 for a wrong configuration (sysexits.h), else 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Host { .. } | Self::Cors(_) | Self::Store(_) | Self::Tls(_) => {
                78
            }
            // A name is wrong, as that of the port's host may be.
            Self::Admin(AdminError::Resolve { .. } | AdminError::NoAddress { .. }) => 78,
            Self::Bridge(BridgeError::Bus(_) | BridgeError::NameTaken { .. }) => 78,
            Self::Logging(_)
            | Self::Admin(_)
            | Self::AdminSocket(_)
            | Self::UnixSocket { .. }
            | Self::Random(_)
            | Self::Start(_)
            | Self::Signals(_)
            | Self::Link(_)
            | Self::Predecessor(_)
            | Self::Adapter { .. }
            | Self::Cluster { .. }
            | Self::Doors(_)
            | Self::Bridge(_)
            | Self::Redirect(_) => 1,
        }
    }
}

/// Runs a node until a signal ends it.
///
/// # Errors
/// When it cannot start as configured.
pub fn serve(mut sources: Sources) -> Result<(), ServeError> {
    signals::hold();
    let link = process::link_of(&mut sources.environment);
    let link = link.map_err(ServeError::Link)?.map(Arc::new);
    let result = start(sources, link.clone());
    if let Err(error) = &result {
        tell(link.as_deref(), error);
    }
    result
}

/// Tells the process before why this one ends, as it is about to.
fn tell(before: Option<&Link>, error: &ServeError) {
    if let Some(before) = before {
        let reason = error.to_string();
        // It may have ended, or have given this process up.
        _ = before.try_send(&Packet::Refused(Refused { reason }), &[]);
    }
}

/// With a link it takes over from the process at the other end.
fn start(sources: Sources, link: Option<Arc<Link>>) -> Result<(), ServeError> {
    let environment = sources.environment.clone();
    let loaded = load(&sources)?;
    let logs = logging::init(&loaded.config.logging, loaded.config.debug)?;
    shards::abort_on_panic();
    tell_notices(&loaded.notices);
    let config = &loaded.config;
    let before = link.clone();
    let predecessor = meet(link, config)?;
    let node_id = match (&config.cluster.node_id, &predecessor) {
        (None, Some(predecessor)) => predecessor.welcome.node_id.clone(),
        _ => node_id(config),
    };
    info!(version = VERSION, node = %node_id, "starting");
    let settings = Settings::from_config(config, node_id.clone(), sockets_max(config))?;
    let tickets = predecessor.as_ref().map(|it| it.welcome.tickets());
    let tickets: TicketKeys = tickets.unwrap_or_default();
    let tls = PortTls::read(&config.ssl, &tickets, bridge::unix_s())?;
    let mut runtime = runtime_config(config, tls.as_ref())?;
    let redirects = redirect_addresses(config)?;
    let sockets = Sockets::take(config, redirects, predecessor, &mut runtime)?;
    let store = Store::start(config)?;
    let apps = match store {
        Some(_) => AppTable::of_store(),
        None => AppTable::build(&config.app_manager.apps, None),
    };
    let seed = NodeSeed {
        settings,
        apps: Arc::new(apps.clone()),
        homes: RandomState::new(),
        socket_ids: SocketIdKey::random().map_err(ServeError::Random)?,
    };
    let https_port = config.port;
    let reload = reload(sources, logs);
    let Sockets {
        metrics,
        admin,
        redirects,
        mut legacy,
        unix_file: _file, // Taken away when the node has stopped.
    } = sockets;
    let run = move |link: BridgeLink<ShardServer>| async move {
        announce(&loaded.config, &node_id, &link);
        tell_tls(tls.as_ref(), &loaded.config.unix_socket);
        tell_neighbours(&redirect::begin(redirects, https_port, &mut legacy.doors)?);
        let setup = Setup {
            apps,
            store,
            node_id,
            build: Build {
                version: VERSION,
                commit: "",
                features: "",
            },
            metrics,
            admin,
            signals: signals::listen().map_err(ServeError::Signals)?,
            reload: reload as Reload,
            tls,
            supervisor: supervisor(&environment),
            legacy,
            memory_root: "/".into(),
            loaded,
        };
        end(bridge::run(link, setup).await, before.as_deref())
    };
    shards::run(runtime, move |shard| ShardServer::new(&seed, shard), run)??;
    info!("stopped");
    Ok(())
}

/// What the start is of, unless it could not be started.
fn load(sources: &Sources) -> Result<Loaded, ServeError> {
    let loaded = config::load(sources).map_err(ServeError::Config)?;
    let refused = refusals(&loaded, Reader::Server);
    if refused.is_empty() {
        return Ok(loaded);
    }
    Err(ServeError::Config(ConfigErrors(refused)))
}

/// Reads everything again, and sets the log's level.
fn reload(
    sources: Sources,
    logs: ReloadHandle,
) -> Box<dyn FnMut() -> Result<Loaded, ConfigErrors> + Send> {
    Box::new(move || {
        let loaded = config::load(&sources)?;
        tell_notices(&loaded.notices);
        if let Err(error) = logs.set_level(&loaded.config.logging.level) {
            warn!(%error, "the log level was not changed");
        }
        Ok(loaded)
    })
}

/// An ordinary stop would end connections on sockets that are another process' as well.
fn end(ended: Result<Exit, BridgeError>, before: Option<&Link>) -> Result<(), ServeError> {
    match ended {
        Ok(Exit::HandedOver) => {
            info!("stopped: another process goes on");
            std::process::exit(0)
        }
        Ok(Exit::Drained | Exit::Interrupted) => Ok(()),
        Err(error) if before.is_some() => {
            tracing::error!(%error, "stopped");
            let error = ServeError::from(error);
            tell(before, &error);
            std::process::exit(error.exit_code().into())
        }
        Err(error) => Err(ServeError::from(error)),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the first moment of the watchdog"
)]
fn supervisor(environment: &BTreeMap<String, String>) -> Supervisor {
    Supervisor::find(environment, std::process::id(), Instant::now())
}

/// Whom this process takes over from. What they must have in common is looked at here.
fn meet(link: Option<Arc<Link>>, config: &Config) -> Result<Option<Predecessor>, ServeError> {
    let Some(link) = link else { return Ok(None) };
    let shards = config.shards.unwrap_or(0);
    let predecessor = Predecessor::meet(link, VERSION, shards)?;
    let (before, now) = (
        &predecessor.welcome.adapter,
        adapter_name(config.adapter.driver),
    );
    if before != now {
        return Err(ServeError::Adapter {
            before: before.clone(),
            now,
        });
    }
    let welcome = &predecessor.welcome;
    let cluster = config.cluster.name.clone().unwrap_or_default();
    let node_id = config.cluster.node_id.as_ref();
    let node_id = node_id.unwrap_or(&welcome.node_id);
    for (key, before, now) in [
        ("cluster.name", &welcome.cluster, &cluster),
        ("cluster.node_id", &welcome.node_id, node_id),
    ] {
        if config.adapter.driver != AdapterDriver::Local && before != now {
            let (before, now) = (before.clone(), now.clone());
            return Err(ServeError::Cluster { key, before, now });
        }
    }
    Ok(Some(predecessor))
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

fn tell_notices(notices: &[Notice]) {
    for notice in notices {
        match notice.level {
            config::Level::Warning => warn!("{notice}"),
            config::Level::Note => info!("{notice}"),
        }
    }
}

/// The node's name: the configured one, or the host's with a random part.
fn node_id(config: &Config) -> String {
    config.cluster.node_id.clone().unwrap_or_else(|| {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let host = host.trim();
        let host = if host.is_empty() { "node" } else { host };
        // A name, no secret: without a random source the host's name alone will do.
        getrandom::u32().map_or_else(|_| host.to_owned(), |random| format!("{host}-{random:08x}"))
    })
}

fn runtime_config(config: &Config, tls: Option<&PortTls>) -> Result<shards::Config, ServeError> {
    let defaults = shards::Config::default();
    let recv_buffers = config
        .net
        .recv_buffers
        .and_then(|count| u16::try_from(count).ok());
    Ok(shards::Config {
        shards: config.shards,
        pin: config.pin,
        bridge_core: config.bridge_core.map(usize::from),
        listen: match &config.unix_socket {
            UnixSocket {
                enabled: true,
                also_tcp: false,
                ..
            } => Vec::new(),
            _ => listen_addresses(config, config.port)?,
        },
        backlog: config.net.backlog,
        recv_buffers: recv_buffers.unwrap_or(defaults.recv_buffers),
        recv_buffer_bytes: config.net.recv_buffer_bytes,
        outbox_bytes_max: config.net.send_queue_bytes,
        burst_bytes_max: config.net.burst_queue_bytes,
        connections_max: u32::try_from(accepts_max(config)).unwrap_or(u32::MAX),
        bridge_event_bytes_max: config.webhooks.shard_queue_bytes,
        busy_poll_us: config.net.busy_poll_us,
        tls: tls.map(|tls| tls.port.clone()),
        ..defaults
    })
}

/// Where http is sent to https.
fn redirect_addresses(config: &Config) -> Result<Vec<SocketAddr>, ServeError> {
    if config.ssl.enabled && config.ssl.redirect_http {
        listen_addresses(config, config.ssl.http_port.unwrap_or(80))
    } else {
        Ok(Vec::new())
    }
}

/// One address per host: IPv4 first when a name has both.
fn listen_addresses(config: &Config, port: u16) -> Result<Vec<SocketAddr>, ServeError> {
    let resolve = |host: &String| {
        let refused = |reason: String| ServeError::Host {
            host: host.clone(),
            reason,
        };
        let found = (host.as_str(), port).to_socket_addrs();
        let mut found: Vec<_> = found.map_err(|error| refused(error.to_string()))?.collect();
        found.sort_by_key(SocketAddr::is_ipv6);
        found
            .first()
            .copied()
            .ok_or_else(|| refused("resolves to no address".to_owned()))
    };
    config.host.iter().map(resolve).collect()
}

fn tell_tls(tls: Option<&PortTls>, unix: &UnixSocket) {
    if let Some(tls) = tls {
        if unix.enabled && !unix.also_tcp {
            info!("TLS is for nobody: there is no port, and the Unix socket has none");
        } else {
            let kernel_tls = kernel_has_tls();
            info!(
                kernel_tls,
                "TLS on the port; the kernel's is not used, had or not"
            );
        }
        tls.tell_doubts();
    }
}

/// Whether the kernel has the module `tls` at hand.
fn kernel_has_tls() -> bool {
    let protocols = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_available_ulp");
    protocols.is_ok_and(|names| names.split_whitespace().any(|name| name == "tls"))
}

/// What an operator wants to see first.
fn announce(config: &Config, node_id: &str, link: &BridgeLink<ShardServer>) {
    let cores: Vec<String> = link
        .cores()
        .iter()
        .map(|core| core.map_or_else(|| "any".to_owned(), |core| core.to_string()))
        .collect();
    for address in link.addresses() {
        match link.waits_to_accept() {
            true => {
                info!(%address, "another process listens here: this one waits until it can serve")
            }
            false => info!(%address, "listening"),
        }
    }
    if config.unix_socket.enabled {
        info!(path = config.unix_socket.path, "listening");
    }
    tell_neighbours(&link.neighbours());
    info!(
        node = node_id,
        shards = link.shards(),
        cores = cores.join(","),
        bridge_core = link.bridge_core(),
        apps = config.app_manager.apps.len(),
        adapter = adapter_name(config.adapter.driver),
        app_manager = store_name(config.app_manager.driver),
        queue = queue_name(config.queue.driver),
        message_bytes_max = config.websocket.max_payload_bytes,
        outbox_bytes_max = config.net.send_queue_bytes,
        files_max = files_max(),
        "running"
    );
    let is_public = link
        .addresses()
        .iter()
        .any(|address| !address.ip().is_loopback());
    let demo = config.app_manager.apps.iter().any(|app| {
        app.key == "app-key" && app.secrets.iter().any(|it| it.expose() == "app-secret")
    });
    if is_public && demo {
        warn!("the demo app's secret is public, and this server listens beyond loopback");
    }
    if let Some(address) = link.addresses().first().filter(|_| config.demo) {
        let scheme = if config.ssl.enabled { "https" } else { "http" };
        let prefix = &config.path_prefix;
        info!(
            "demo mode: open {scheme}://{address}{prefix}/ and see a first event within a minute"
        );
    }
}

/// Right in a rolling restart, and a mistake at any other time, which nobody else would notice.
fn tell_neighbours(neighbours: &[Neighbour]) {
    for Neighbour { address, process } in neighbours {
        match process {
            Some(Process { pid, command }) => warn!(
                %address, pid, ?command,
                "another process listens here too, and the kernel gives it some of the connections"
            ),
            None => warn!(
                %address,
                "another process (not readable) listens here too, and the kernel gives it some of \
                 the connections"
            ),
        }
    }
}

/// WebSockets that the open-file limit leaves room for. Some files more are for requests, so that a
/// node that is full of sockets still answers `/up` and the API.
fn sockets_max(config: &Config) -> u64 {
    let accepts = accepts_max(config);
    (accepts - accepts / 64).max(64)
}

/// Connections that the open-file limit leaves room for; the runtime raises the limit.
fn accepts_max(config: &Config) -> u64 {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    let shards = config.shards.map_or(cores, u64::from);
    let of_shard = FILES_OF_SHARD + ACCEPTED_AHEAD_OF_SHARD + config.host.len() as u64 + 1;
    let reserved = FILES_RESERVED + shards * of_shard;
    files_max().saturating_sub(reserved).max(64)
}

/// Files for the bridge, webhooks, scrapes and logs.
const FILES_RESERVED: u64 = 256;
/// Rings and doorbells of one shard, beside a listener per host and the Unix socket.
const FILES_OF_SHARD: u64 = 8;
/// So many connections a shard accepts before the others hear of them.
const ACCEPTED_AHEAD_OF_SHARD: u64 = 16;

/// Open files that this process may have at most.
fn files_max() -> u64 {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    line.and_then(|line| line.split_whitespace().nth(4)?.parse().ok())
        .unwrap_or(0)
}
