//! What an error of MariaDB or MySQL means for an operator.
//!
//! Owns: the sentences, and which errors end a connection.
//! May depend on: `mysql::setup`, the crate `mysql`.
//! Invariants: a sentence names the key and what to do; a server's own words are shown only where
//! they cannot hold the password, bounded and on one line.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "of another crate's errors those are named that an operator can do something about"
)]

use std::io;

use mysql::{DriverError, Error, MySqlError};

use super::setup::MysqlSetup;
use crate::metrics::backend::Fault;

/// What went wrong, and what to do.
pub(super) fn sentence(error: &Error, setup: &MysqlSetup) -> String {
    match error {
        Error::MySqlError(error) => said_by_server(error, setup),
        Error::DriverError(error) => said_by_driver(error, setup),
        Error::TlsError(_) => tls(&words(error, setup), setup),
        _ => match io_error(error) {
            Some(error) => not_reached(error, setup),
            None => format!(
                "{} is not understood: {}",
                server(setup),
                words(error, setup)
            ),
        },
    }
}

/// As it is counted.
pub(super) fn kind(error: &Error, setup: &MysqlSetup) -> Fault {
    let by_io = |kind: io::ErrorKind| match kind {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Fault::Timeout,
        io::ErrorKind::InvalidData if setup.has_tls => Fault::Auth,
        _ => Fault::Io,
    };
    match error {
        Error::MySqlError(error) if OF_RIGHTS.contains(&error.code) => Fault::Auth,
        Error::MySqlError(_) => Fault::Protocol,
        Error::TlsError(_) => Fault::Auth,
        Error::DriverError(error) => match error {
            DriverError::ConnectTimeout => Fault::Timeout,
            DriverError::CouldNotConnect(_) => Fault::Io,
            DriverError::TlsNotSupported
            | DriverError::UnknownAuthPlugin(_)
            | DriverError::OldMysqlPasswordDisabled
            | DriverError::CleartextPluginDisabled => Fault::Auth,
            _ => Fault::Protocol,
        },
        _ => io_error(error).map_or(Fault::Protocol, |error| by_io(error.kind())),
    }
}

fn said_by_server(error: &MySqlError, setup: &MysqlSetup) -> String {
    let server = server(setup);
    let MysqlSetup {
        user,
        database,
        table,
        ..
    } = setup;
    let words = words(error, setup);
    match error.code {
        ACCESS_DENIED => {
            let hint = match setup.has_tls {
                true => "",
                false => {
                    " (the same is said to an account that must use TLS: \
                          database.mysql.tls.enabled)"
                }
            };
            format!(
                "{server} refuses this user and password: set database.mysql.username and \
                 database.mysql.password{hint}"
            )
        }
        ONLY_ON_SOCKET => format!(
            "{server} lets the account {user} in over the Unix socket of its own host only: give \
             it a password, or set another one (database.mysql.username)"
        ),
        TLS_REQUIRED => {
            format!("{server} wants TLS: set database.mysql.tls.enabled = true")
        }
        NO_DATABASE => format!(
            "{server} has no database {database}: create it, or set database.mysql.database"
        ),
        DATABASE_DENIED => format!(
            "{server} does not let {user} into the database {database}, if it is there at all: \
             GRANT SELECT on it, or set database.mysql.database"
        ),
        TABLE_DENIED | COLUMN_DENIED => format!(
            "{server} does not let {user} do that with {database}: GRANT SELECT is needed to \
             serve, INSERT, UPDATE, DELETE and CREATE to change apps ({words})"
        ),
        NO_TABLE => format!(
            "{server} has no table {table} in {database}: `sockudo apps init` creates it, or set \
             database.mysql.table_name"
        ),
        NO_COLUMN => format!(
            "the table {table} of {server} lacks a column: `sockudo apps init` says which \
             ({words})"
        ),
        _ => format!("{server} refuses us: {words}"),
    }
}

fn said_by_driver(error: &DriverError, setup: &MysqlSetup) -> String {
    let server = server(setup);
    match error {
        DriverError::ConnectTimeout => silent(setup),
        // After its addresses of one kind the crate tries the others, bound to the first kind.
        DriverError::CouldNotConnect(Some((_, _, io::ErrorKind::InvalidInput))) => {
            unreachable(&"none of its addresses answers", setup)
        }
        DriverError::CouldNotConnect(Some((_, reason, _))) => unreachable(reason, setup),
        DriverError::TlsNotSupported => format!(
            "{server} has no TLS: turn it on there, or set database.mysql.tls.enabled = false"
        ),
        DriverError::UnknownAuthPlugin(_)
        | DriverError::OldMysqlPasswordDisabled
        | DriverError::CleartextPluginDisabled => format!(
            "{server} asks for a login that is not spoken here: identify the account by \
             mysql_native_password, caching_sha2_password or ed25519 ({})",
            words(error, setup)
        ),
        _ => format!("{server} is not understood: {}", words(error, setup)),
    }
}

fn not_reached(error: &io::Error, setup: &MysqlSetup) -> String {
    match error.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => silent(setup),
        // What rustls finds wrong with a server.
        io::ErrorKind::InvalidData if setup.has_tls => tls(&words(error, setup), setup),
        _ => unreachable(error, setup),
    }
}

fn unreachable(reason: &dyn std::fmt::Display, setup: &MysqlSetup) -> String {
    format!(
        "{} cannot be reached (database.mysql.host, database.mysql.port): {}",
        server(setup),
        words(reason, setup)
    )
}

fn tls(words: &str, setup: &MysqlSetup) -> String {
    format!(
        "no TLS with {}: {words} (database.mysql.tls.ca_path names the CA that signed its \
         certificate, database.mysql.host must be a name in it)",
        server(setup)
    )
}

pub(super) fn unknown_host(error: &io::Error, setup: &MysqlSetup) -> String {
    format!(
        "the host {} is not known here (database.mysql.host): {}",
        setup.host,
        words(error, setup)
    )
}

/// It took longer than it may.
pub(super) fn silent(setup: &MysqlSetup) -> String {
    format!(
        "{} does not answer within {} ms (database.mysql.timeout_ms)",
        server(setup),
        setup.timeout.as_millis()
    )
}

/// Those who wait are as many as may.
pub(super) fn crowded(setup: &MysqlSetup) -> String {
    format!(
        "{} is too slow: as many look-ups wait for it as may",
        server(setup)
    )
}

fn server(setup: &MysqlSetup) -> String {
    format!("the database at {}", setup.at())
}

fn words(error: &dyn std::fmt::Display, setup: &MysqlSetup) -> String {
    let words = error.to_string();
    if setup.is_leaked_by(&words) {
        return "its words hold the password".to_owned();
    }
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    words.chars().take(WORDS_MAX).map(plain).collect()
}

/// The connection may be out of step, or is gone.
pub(super) fn ends_connection(error: &Error) -> bool {
    match error {
        Error::MySqlError(error) => ENDS.contains(&error.code),
        _ => true,
    }
}

/// Nobody answered at this address; another one of the host may.
pub(super) fn is_of_nobody(error: &Error) -> bool {
    match error {
        Error::MySqlError(_) => false,
        Error::DriverError(error) => matches!(
            error,
            DriverError::ConnectTimeout | DriverError::CouldNotConnect(_)
        ),
        _ => true,
    }
}

/// The row does not fit into what a row may have.
pub(super) fn is_too_large(error: &Error) -> bool {
    match error {
        // The crate does not name its type.
        Error::CodecError(error) => error.to_string().starts_with("Packet is larger than"),
        Error::DriverError(error) => matches!(error, DriverError::PacketTooLarge),
        _ => false,
    }
}

/// The name has characters that the column's character set does not: no row has it.
pub(super) fn is_of_no_row(error: &Error) -> bool {
    matches!(error, Error::MySqlError(error) if OF_NO_ROW.contains(&error.code))
}

pub(super) fn is_of_no_table(error: &Error) -> bool {
    matches!(error, Error::MySqlError(error) if error.code == NO_TABLE)
}

/// The server prepares no such statement.
pub(super) fn is_of_no_prepare(error: &Error) -> bool {
    matches!(error, Error::MySqlError(error) if error.code == 1295)
}

/// A unique index has this value already.
pub(super) fn is_of_a_double(error: &Error) -> bool {
    matches!(error, Error::MySqlError(error) if [1062, 1586].contains(&error.code))
}

fn io_error(error: &Error) -> Option<&io::Error> {
    use std::error::Error as _;
    match error {
        Error::IoError(error) => Some(error),
        Error::CodecError(error) => error.source()?.downcast_ref(),
        _ => None,
    }
}

const WORDS_MAX: usize = 200;

const DATABASE_DENIED: u16 = 1044;
const ACCESS_DENIED: u16 = 1045;
const NO_DATABASE: u16 = 1049;
const NO_COLUMN: u16 = 1054;
const TABLE_DENIED: u16 = 1142;
const COLUMN_DENIED: u16 = 1143;
const NO_TABLE: u16 = 1146;
const ONLY_ON_SOCKET: u16 = 1698;
const TLS_REQUIRED: u16 = 3159;

const OF_RIGHTS: [u16; 6] = [
    ACCESS_DENIED,
    ONLY_ON_SOCKET,
    TLS_REQUIRED,
    DATABASE_DENIED,
    TABLE_DENIED,
    COLUMN_DENIED,
];
/// It shuts down; it has killed us; we were idle too long.
const ENDS: [u16; 4] = [1053, 1927, 3169, 4031];
/// Illegal mix of collations; a text that the column's character set cannot say.
const OF_NO_ROW: [u16; 4] = [1267, 1270, 1271, 3988];
