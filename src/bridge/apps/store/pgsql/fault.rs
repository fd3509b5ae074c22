//! What an error of PostgreSQL or pgbouncer means for an operator.
//!
//! Owns: the sentences, and which errors end a connection.
//! May depend on: `pgsql::{setup, link}`, `bridge::tls`, the crate `tokio-postgres`.
//! Invariants: a sentence names the key and what to do; a server's own words are shown only where
//! they cannot hold the password, bounded and on one line.

use std::{error::Error as _, fmt::Display};

use tokio_postgres::{
    Error,
    error::{DbError, SqlState},
};

use super::{super::StoreError, link::Failed, setup::PgsqlSetup};
use crate::{bridge::tls::Failure, metrics::backend::Fault};

pub(super) fn down(failed: &Failed, setup: &PgsqlSetup) -> StoreError {
    StoreError::Down(sentence(failed, setup), kind(failed))
}

/// As it is counted.
fn kind(failed: &Failed) -> Fault {
    match failed {
        Failed::Resolving(_) | Failed::Reaching(_) => Fault::Io,
        Failed::Tls(Failure::Unreachable(_)) => Fault::Io,
        Failed::NoTls | Failed::Tls(_) => Fault::Auth,
        Failed::Asking(error) => kind_of_asking(error),
        Failed::Crowded | Failed::Silent => Fault::Timeout,
    }
}

fn kind_of_asking(error: &Error) -> Fault {
    let source = error.source();
    let Some(said) = error.as_db_error() else {
        let is_io = source.is_some_and(|source| source.is::<std::io::Error>());
        let is_missing = source.is_some_and(|it| it.to_string().contains("password missing"));
        return match (is_missing, is_io || error.is_closed()) {
            (true, _) => Fault::Auth,
            (false, true) => Fault::Io,
            (false, false) => Fault::Protocol,
        };
    };
    let (code, words) = (said.code(), said.message());
    let is_refused = words.contains("authentication failed") || words.starts_with("no such user");
    let is_of_rights = code.code().starts_with("28") || *code == SqlState::INSUFFICIENT_PRIVILEGE;
    match (is_refused || is_of_rights, ends(code)) {
        (true, _) => Fault::Auth,
        (false, true) => Fault::Io,
        (false, false) => Fault::Protocol,
    }
}

/// What went wrong, and what to do.
fn sentence(failed: &Failed, setup: &PgsqlSetup) -> String {
    let server = server(setup);
    match failed {
        Failed::Resolving(error) => format!(
            "the host {} is not known here (database.postgres.host): {}",
            setup.host,
            words(error, setup)
        ),
        Failed::Reaching(error) => unreachable(error, setup),
        Failed::NoTls => format!(
            "{server} has no TLS: turn it on there, or set database.postgres.tls.enabled = false"
        ),
        Failed::Tls(failure) => {
            let meaning = setup
                .tls
                .as_ref()
                .and_then(|tls| tls.words.meaning(failure));
            match meaning {
                Some(meaning) => format!("{server} {meaning}"),
                // The host is no name that a certificate could be for.
                None => format!("{server} cannot be reached by TLS (database.postgres.host)"),
            }
        }
        Failed::Asking(error) => asking(error, setup),
        Failed::Crowded => format!("{server} is too slow: as many look-ups wait for it as may"),
        Failed::Silent => silent(setup),
    }
}

fn asking(error: &Error, setup: &PgsqlSetup) -> String {
    let server = server(setup);
    if let Some(error) = error.as_db_error() {
        return said_by_server(error, setup);
    }
    let source = error.source();
    // With TLS 1.3 a server that does not like our certificate says so when we believe that all is well.
    let meaning = setup.tls.as_ref().zip(source);
    if let Some(meaning) = meaning.and_then(|(tls, source)| tls.words.meaning_of(source)) {
        return format!("{server} {meaning}");
    }
    if let Some(source) = source.filter(|source| source.is::<std::io::Error>()) {
        return unreachable(source, setup);
    }
    if error.is_closed() {
        return unreachable(error, setup);
    }
    match source {
        Some(source) if source.to_string().contains("password missing") => format!(
            "{server} wants a password of {}: set database.postgres.password",
            setup.user
        ),
        Some(source) => format!(
            "{server} is not understood: {}: {}",
            words(error, setup),
            words(source, setup)
        ),
        None => format!("{server} is not understood: {}", words(error, setup)),
    }
}

fn said_by_server(error: &DbError, setup: &PgsqlSetup) -> String {
    let server = server(setup);
    let PgsqlSetup {
        user,
        database,
        table,
        ..
    } = setup;
    let words = words(&error.message(), setup);
    let code = error.code();
    // A pooler has no codes for these.
    let is_refused = words.contains("authentication failed") || words.starts_with("no such user");
    if *code == SqlState::INVALID_PASSWORD || is_refused {
        return format!(
            "{server} refuses this user and password: set database.postgres.username and \
             database.postgres.password"
        );
    }
    if *code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION {
        let hint = match setup.tls.is_some() {
            true => "database.postgres.tls.cert_path shows who we are",
            false => "database.postgres.tls.enabled if it wants TLS",
        };
        return format!(
            "{server} does not let {user} in: set database.postgres.username, mend its \
             pg_hba.conf, or set {hint} ({words})"
        );
    }
    if *code == SqlState::INVALID_CATALOG_NAME || words.starts_with("no such database") {
        return format!(
            "{server} has no database {database}: create it, or set database.postgres.database"
        );
    }
    if *code == SqlState::UNDEFINED_TABLE || *code == SqlState::INVALID_SCHEMA_NAME {
        return format!(
            "{server} has no table {table} in {database} that {user} would find: `sockudo apps init` \
             creates it, or set database.postgres.table_name"
        );
    }
    if *code == SqlState::UNDEFINED_COLUMN {
        return format!(
            "the table {table} of {server} lacks a column: `sockudo apps init` says which ({words})"
        );
    }
    if *code == SqlState::INSUFFICIENT_PRIVILEGE {
        return format!(
            "{server} does not let {user} do that with {table}: GRANT SELECT is needed to serve, \
             INSERT, UPDATE, DELETE and CREATE to change apps ({words})"
        );
    }
    if *code == SqlState::TOO_MANY_CONNECTIONS {
        return format!(
            "{server} has no connection left: lower database_pooling.max on the nodes, or raise its \
             max_connections ({words})"
        );
    }
    if *code == SqlState::CANNOT_CONNECT_NOW || ends(code) {
        return format!("{server} is not there just now: {words}");
    }
    format!("{server} refuses us: {words}")
}

/// A right that a write needs.
pub(super) fn lacks(right: &str, setup: &PgsqlSetup) -> String {
    let PgsqlSetup { user, table, .. } = setup;
    format!(
        "{} does not let {user} do that with {table}: {right} is needed to write it",
        server(setup)
    )
}

pub(super) fn read_only(setup: &PgsqlSetup) -> String {
    format!(
        "{} takes no writes: set database.postgres.host to the one that does, or let {} write there",
        server(setup),
        setup.user
    )
}

fn unreachable(reason: &dyn Display, setup: &PgsqlSetup) -> String {
    format!(
        "{} cannot be reached (database.postgres.host, database.postgres.port): {}",
        server(setup),
        words(reason, setup)
    )
}

/// It took longer than it may.
pub(super) fn silent(setup: &PgsqlSetup) -> String {
    format!(
        "{} does not answer within {} ms (database.postgres.timeout_ms)",
        server(setup),
        setup.timeout.as_millis()
    )
}

fn server(setup: &PgsqlSetup) -> String {
    format!("the database at {}", setup.at())
}

fn words(error: &dyn Display, setup: &PgsqlSetup) -> String {
    let words = error.to_string();
    if setup.is_leaked_by(&words) {
        return "its words hold the password".to_owned();
    }
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    words.chars().take(WORDS_MAX).map(plain).collect()
}

/// The connection may be out of step, or is gone, or will not answer this statement ever again.
pub(super) fn ends_connection(failed: &Failed) -> bool {
    let Failed::Asking(error) = failed else {
        return true;
    };
    error.code().is_none_or(ends)
}

/// It shuts down, has ended our session, or lost the server behind it; a statement that it knows is about another table
/// by now.
fn ends(code: &SqlState) -> bool {
    let class = code.code().get(..2).unwrap_or_default();
    ["08", "57", "58", "XX"].contains(&class)
        || *code == SqlState::FEATURE_NOT_SUPPORTED
        || *code == SqlState::INVALID_SQL_STATEMENT_NAME
        || *code == SqlState::READ_ONLY_SQL_TRANSACTION
        || *code == SqlState::IDLE_SESSION_TIMEOUT
}

/// The name is none that the column could hold: no row has it.
pub(super) fn is_of_no_row(failed: &Failed) -> bool {
    let Failed::Asking(error) = failed else {
        return false;
    };
    let codes = [
        SqlState::INVALID_TEXT_REPRESENTATION,
        SqlState::NUMERIC_VALUE_OUT_OF_RANGE,
        SqlState::CHARACTER_NOT_IN_REPERTOIRE,
        SqlState::UNTRANSLATABLE_CHARACTER,
        SqlState::STRING_DATA_RIGHT_TRUNCATION,
    ];
    error.code().is_some_and(|code| codes.contains(code))
}

pub(super) fn is_of_no_table(failed: &Failed) -> bool {
    is_code(failed, &SqlState::UNDEFINED_TABLE)
}

/// A unique index has this value already.
pub(super) fn is_of_a_double(failed: &Failed) -> bool {
    is_code(failed, &SqlState::UNIQUE_VIOLATION)
}

fn is_code(failed: &Failed, code: &SqlState) -> bool {
    match failed {
        Failed::Asking(error) => error.code() == Some(code),
        Failed::Resolving(_)
        | Failed::Reaching(_)
        | Failed::NoTls
        | Failed::Tls(_)
        | Failed::Crowded
        | Failed::Silent => false,
    }
}

const WORDS_MAX: usize = 200;
