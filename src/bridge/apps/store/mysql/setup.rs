//! What the configuration says of MariaDB and MySQL, as the crate wants it.
//!
//! Owns: `MysqlSetup`.
//! May depend on: `config`, the crate `mysql`, rustls for its provider.
//! Invariants: each wait of a connection has an end; a table's name is quoted.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use mysql::{ClientIdentity, Opts, OptsBuilder, SslOpts};

use super::super::{
    StoreSetupError,
    crowd::{Connections, OwnPool, connections},
    found::ROW_BYTES_MAX,
};
use crate::config::{Config, Secret};

/// Everything that a connection needs, and how many there may be.
#[derive(Clone)]
pub(super) struct MysqlSetup {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) user: String,
    pub(super) database: String,
    /// As it was given.
    pub(super) table: String,
    /// Between backquotes.
    pub(super) table_quoted: String,
    pub(super) has_tls: bool,
    pub(super) timeout: Duration,
    pub(super) of_known: Connections,
    pub(super) of_others: Connections,
    password: Secret,
    opts: Opts,
}

/// The crate's own options hold the password in the clear.
impl std::fmt::Debug for MysqlSetup {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "MysqlSetup({} as {})", self.at(), self.user)
    }
}

impl MysqlSetup {
    pub(super) fn of(config: &Config) -> Result<Self, StoreSetupError> {
        let mysql = &config.database.mysql;
        let timeout = Duration::from_millis(mysql.timeout_ms);
        let pool = OwnPool {
            min: mysql.pool_min,
            max: mysql.pool_max,
            unpooled: mysql.connection_pool_size,
        };
        let (of_known, of_others) = connections(&config.database_pooling, pool);
        let mut opts = OptsBuilder::new()
            .user(Some(&mysql.username))
            .pass(Some(mysql.password.expose()))
            .db_name(Some(&mysql.database))
            .tcp_port(mysql.port)
            // Otherwise the crate goes over to whatever listens on a socket of the server's path.
            .prefer_socket(false)
            .tcp_connect_timeout(Some(timeout))
            .read_timeout(Some(timeout))
            .write_timeout(Some(timeout))
            .tcp_keepalive_time_ms(Some(KEEP_ALIVE_MS))
            .max_allowed_packet(Some(ROW_BYTES_MAX))
            // A server may be set to ignore the character set with which a client greets it.
            .init(vec!["SET NAMES utf8mb4"]);
        if mysql.tls.enabled {
            opts = opts.ssl_opts(tls(config)?);
        }
        Ok(Self {
            host: mysql.host.clone(),
            port: mysql.port,
            user: mysql.username.clone(),
            database: mysql.database.clone(),
            table: mysql.table_name.clone(),
            table_quoted: quoted(&mysql.table_name),
            has_tls: mysql.tls.enabled,
            timeout,
            of_known,
            of_others,
            password: mysql.password.clone(),
            opts: with_host(opts, &mysql.host).into(),
        })
    }

    /// Options for addresses of one kind: the crate tries only the first one otherwise.
    pub(super) fn opts(&self, any_address: SocketAddr) -> Opts {
        OptsBuilder::from_opts(self.opts.clone())
            .bind_address(Some(any_address))
            .into()
    }

    /// The server as an operator knows it.
    pub(super) fn at(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }

    /// A server's words must not be shown.
    pub(super) fn is_leaked_by(&self, words: &str) -> bool {
        let password = self.password.expose();
        !password.is_empty() && words.contains(password)
    }
}

fn with_host(opts: OptsBuilder, host: &str) -> OptsBuilder {
    match host.contains(':') && !host.starts_with('[') {
        true => opts.ip_or_hostname(Some(format!("[{host}]"))),
        false => opts.ip_or_hostname(Some(host)),
    }
}

/// The files are read at each connection, so that a new certificate is taken up; here they are
/// looked at once, so that a wrong path is told at the start.
fn tls(config: &Config) -> Result<SslOpts, StoreSetupError> {
    let tls = &config.database.mysql.tls;
    for (key, path) in [
        ("database.mysql.tls.ca_path", &tls.ca_path),
        ("database.mysql.tls.cert_path", &tls.cert_path),
        ("database.mysql.tls.key_path", &tls.key_path),
    ] {
        if let Some(path) = path {
            std::fs::read(path).map_err(|error| StoreSetupError {
                key,
                fault: format!("{path:?} cannot be read: {error}"),
                is_forbidden: error.kind() == std::io::ErrorKind::PermissionDenied,
            })?;
        }
    }
    // The crate asks for the process's; a second one changes nothing.
    _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let path = |path: &Option<String>| path.as_ref().map(PathBuf::from);
    let identity = path(&tls.cert_path)
        .zip(path(&tls.key_path))
        .map(|(certificate, key)| ClientIdentity::new(certificate, key));
    Ok(SslOpts::default()
        .with_root_cert_path(path(&tls.ca_path))
        .with_client_identity(identity))
}

/// `shop.apps` is a table of another database.
fn quoted(table: &str) -> String {
    let parts: Vec<String> = table.split('.').map(|part| format!("`{part}`")).collect();
    parts.join(".")
}

const KEEP_ALIVE_MS: u32 = 60_000;
