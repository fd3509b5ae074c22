//! What the configuration says of PostgreSQL, as the crate wants it.
//!
//! Owns: `PgsqlSetup`.
//! May depend on: `config`, `bridge::tls`, the crate `tokio-postgres`.
//! Invariants: a table's name is quoted; the password is in no text of ours.

use std::time::Duration;

use super::super::{
    StoreSetupError,
    crowd::{Connections, OwnPool, connections},
};
use crate::{
    bridge::tls::{TlsClient, TlsError, TlsFiles, TlsKeys},
    config::{Config, Secret},
};

/// Everything that a connection needs, and how many there may be.
pub(super) struct PgsqlSetup {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) user: String,
    pub(super) database: String,
    /// As it was given.
    pub(super) table: String,
    /// Between quotes.
    pub(super) table_quoted: String,
    pub(super) tls: Option<TlsClient>,
    pub(super) timeout: Duration,
    pub(super) of_known: Connections,
    pub(super) of_others: Connections,
    /// Host and port are ours to reach.
    pub(super) config: tokio_postgres::Config,
    password: Secret,
}

/// The crate's own configuration holds the password in the clear.
impl std::fmt::Debug for PgsqlSetup {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "PgsqlSetup({} as {})", self.at(), self.user)
    }
}

impl PgsqlSetup {
    pub(super) fn of(config: &Config) -> Result<Self, StoreSetupError> {
        let postgres = &config.database.postgres;
        let pool = OwnPool {
            min: postgres.pool_min,
            max: postgres.pool_max,
            unpooled: postgres.connection_pool_size,
        };
        let (of_known, of_others) = connections(&config.database_pooling, pool);
        let mut options = tokio_postgres::Config::new();
        options
            .user(&postgres.username)
            .dbname(&postgres.database)
            .application_name("sockudo");
        // Without one an account may be let in by its address, or be told that it needs one.
        if !postgres.password.expose().is_empty() {
            options.password(postgres.password.expose());
        }
        Ok(Self {
            host: postgres.host.clone(),
            port: postgres.port,
            user: postgres.username.clone(),
            database: postgres.database.clone(),
            table: postgres.table_name.clone(),
            table_quoted: quoted_table(&postgres.table_name),
            tls: tls(config)?,
            timeout: Duration::from_millis(postgres.timeout_ms),
            of_known,
            of_others,
            config: options,
            password: postgres.password.clone(),
        })
    }

    /// The server as an operator knows it.
    pub(super) fn at(&self) -> String {
        match self.host.contains(':') && !self.host.starts_with('[') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }

    /// The folder of a Unix socket is given as a path.
    pub(super) fn socket(&self) -> Option<String> {
        let folder = self.host.starts_with('/').then_some(&self.host)?;
        Some(format!("{folder}/.s.PGSQL.{}", self.port))
    }

    /// A server's words must not be shown.
    pub(super) fn is_leaked_by(&self, words: &str) -> bool {
        let password = self.password.expose();
        !password.is_empty() && words.contains(password)
    }
}

fn tls(config: &Config) -> Result<Option<TlsClient>, StoreSetupError> {
    let tls = &config.database.postgres.tls;
    if !tls.enabled {
        return Ok(None);
    }
    let files = TlsFiles {
        keys: TlsKeys::POSTGRES,
        ca_path: tls.ca_path.clone(),
        cert_path: tls.cert_path.clone(),
        key_path: tls.key_path.clone(),
    };
    let read = TlsClient::read(&files).map_err(|error| {
        let is_forbidden = error.is_forbidden();
        let (key, fault) = match error {
            TlsError::File {
                key, path, reason, ..
            } => (key, format!("{path:?}: {reason}")),
            other @ (TlsError::Half { .. } | TlsError::Pair { .. }) => {
                (TlsKeys::POSTGRES.cert, other.to_string())
            }
            other @ TlsError::NoRoots { .. } => (TlsKeys::POSTGRES.ca, other.to_string()),
        };
        StoreSetupError {
            key,
            fault,
            is_forbidden,
        }
    });
    read.map(Some)
}

/// `shop.apps` is a table of another schema. The database reads a name without quotes in lower case, and Sockudo
/// 2.9 wrote it so.
fn quoted_table(table: &str) -> String {
    let parts: Vec<String> = table.to_lowercase().split('.').map(quoted).collect();
    parts.join(".")
}

pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
