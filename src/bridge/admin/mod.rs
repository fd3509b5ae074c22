//! The metrics listener and the admin socket.
//!
//! Owns: the routes of `metrics.host:metrics.port`, which only read, those of `admin.socket`, and what
//! both ask of the bridge.
//! May depend on: axum, hyper, tokio, `metrics::exposition`. Not on the link: it asks the bridge's loop.
//! Invariants: a request waits for the loop, never the loop for a request; the port is bound before
//! a shard starts.

pub mod report;
mod routes;
pub mod socket;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, ToSocketAddrs},
    path::PathBuf,
    sync::Arc,
};

use prometheus::proto::MetricFamily;
use tokio::sync::{mpsc, oneshot};

use self::report::{
    AppsReport, ClusterReport, LettersReport, RebalanceReport, SettledReport, TopReport,
};
use super::{
    guests,
    handover::{UpgradeReport, doors::Gate},
    health::Health,
};
use crate::{config::sections::Metrics, metrics::exposition::Exposition};

/// What a route asks of the bridge's loop.
#[derive(Debug)]
pub enum AdminRequest {
    /// Fresh numbers of all shards.
    Scrape(oneshot::Sender<Scrape>),
    /// Whether this node is well.
    Status(oneshot::Sender<Status>),
    /// This node at this moment.
    Top(oneshot::Sender<TopReport>),
    /// The nodes, as this one sees them.
    Cluster(oneshot::Sender<ClusterReport>),
    /// Close what this node has above the mean; or why that cannot be.
    Rebalance(oneshot::Sender<Result<RebalanceReport, String>>),
    /// Webhooks that this node gave up.
    Letters(oneshot::Sender<Result<LettersReport, String>>),
    /// Try some of them again, or drop them; `None` = all.
    SettleLetters {
        ids: Option<Vec<u64>>,
        settle: Settle,
        waiter: oneshot::Sender<Result<SettledReport, String>>,
    },
    /// Look at the apps again.
    ReloadApps(oneshot::Sender<Result<AppsReport, String>>),
    /// Start another process, of this binary or another one, which takes over; or why that cannot be.
    BeginUpgrade {
        binary: Option<PathBuf>,
        waiter: oneshot::Sender<Result<UpgradeReport, String>>,
    },
    /// The last upgrade.
    Upgrade(oneshot::Sender<UpgradeReport>),
}

/// What becomes of a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settle {
    Retry,
    Drop,
}

/// One scrape, shared by all who waited for it.
#[derive(Clone, Debug)]
pub struct Scrape {
    pub families: Arc<Vec<MetricFamily>>,
    /// The body of `/debug/shards`.
    pub shards: Arc<serde_json::Value>,
    /// When it was made, seconds since the Unix epoch.
    pub unix_s: u64,
}

/// How this node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    pub node: String,
    pub health: Health,
    pub has_apps: bool,
}

/// Why the listener cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    #[error("metrics.host = {host}: does not resolve: {source}")]
    Resolve { host: String, source: io::Error },
    #[error("metrics.host = {host}: resolves to no address")]
    NoAddress { host: String },
    #[error(
        "metrics.port = {port} on {host}: cannot be bound: {source}{}; \
         metrics.required = false starts without metrics",
        held(host, *port, source)
    )]
    Bind {
        host: String,
        port: u16,
        source: io::Error,
    },
}

fn held(host: &str, port: u16, source: &io::Error) -> String {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    // A name may stand for any address.
    let ip = bare.parse().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let is_taken = source.kind() == io::ErrorKind::AddrInUse;
    let holders = is_taken
        .then(|| shards::holders_told(SocketAddr::new(ip, port)))
        .flatten();
    holders.map_or_else(String::new, |holders| format!("; it is held by {holders}"))
}

/// Binds the listener. `None` = metrics are off, or may be missing and the port is taken.
///
/// # Errors
/// When the port cannot be bound and `metrics.required` is on.
pub fn bind(metrics: &Metrics) -> Result<Option<TcpListener>, AdminError> {
    if !metrics.enabled {
        return Ok(None);
    }
    match bind_first(metrics) {
        Ok(listener) => Ok(Some(listener)),
        Err(error) if !metrics.required => {
            tracing::warn!(%error, "starting without metrics");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// IPv4 first, as for the main port.
fn bind_first(metrics: &Metrics) -> Result<TcpListener, AdminError> {
    let (host, port) = (metrics.host.clone(), metrics.port);
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let addresses = (bare, port)
        .to_socket_addrs()
        .map_err(|source| AdminError::Resolve {
            host: host.clone(),
            source,
        })?;
    let mut addresses: Vec<_> = addresses.collect();
    addresses.sort_by_key(|address| address.is_ipv6());
    let address = *addresses
        .first()
        .ok_or_else(|| AdminError::NoAddress { host: host.clone() })?;
    let bound = TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    bound.map_err(|source| AdminError::Bind { host, port, source })
}

/// Makes the queue of requests for the loop; more wait in their connections.
pub fn requests() -> (mpsc::Sender<AdminRequest>, mpsc::Receiver<AdminRequest>) {
    mpsc::channel(64)
}

/// Serves the listener on a task of its own. Needs a tokio runtime.
///
/// # Errors
/// When the listener cannot be registered with the runtime.
pub fn serve(
    listener: TcpListener,
    exposition: Arc<Exposition>,
    requests: mpsc::Sender<AdminRequest>,
    gate: Gate,
) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let router = routes::router(routes::Admin {
        requests,
        exposition,
    });
    tokio::spawn(guests::serve(
        listener,
        router,
        guests::Bounds::default(),
        gate,
    ));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics(port: u16, required: bool) -> Metrics {
        Metrics {
            enabled: true,
            host: "127.0.0.1".to_owned(),
            port,
            prefix: "sockudo_".to_owned(),
            required,
            max_apps: 1_000,
        }
    }

    #[test]
    fn a_taken_port_refuses_the_start_unless_metrics_may_be_missing() {
        let first = bind(&metrics(0, true))
            .expect("a free port")
            .expect("enabled");
        let port = first.local_addr().expect("bound").port();
        let refused = bind(&metrics(port, true))
            .expect_err("the port is taken")
            .to_string();
        assert!(
            refused.starts_with(&format!("metrics.port = {port} on 127.0.0.1: ")),
            "{refused}"
        );
        assert!(bind(&metrics(port, false)).expect("not required").is_none());
        let off = Metrics {
            enabled: false,
            ..metrics(port, true)
        };
        assert!(bind(&off).expect("off").is_none());
    }
}
