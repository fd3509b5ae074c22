//! What an error of PostgreSQL or pgbouncer means for an operator.
//!
//! Owns: the sentences, and which errors end a connection.
//! May depend on: `pgsql::{setup, link}`, `bridge::tls`, the crate `tokio-postgres`.
//! Invariants: a sentence names the key and what to do; a server's own words are shown only where
//! they cannot hold the password, bounded and on one line.

use std::{error::Error as _, fmt::Display, io};

use tokio_postgres::{
    Error,
    error::{DbError, SqlState},
};

use super::{super::StoreError, link::Failed, setup::PgsqlSetup};
use crate::{
    bridge::tls::{Failure, is_of_tls},
    metrics::backend::Fault,
};

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
        // What is not understood has the type too.
        let is_io = |error: &io::Error| {
            use io::ErrorKind::{InvalidData, InvalidInput};
            !matches!(error.kind(), InvalidData | InvalidInput)
        };
        let is_io = source.and_then(|it| it.downcast_ref()).is_some_and(is_io);
        let is_missing = source.is_some_and(|it| it.to_string().contains("password missing"));
        // With TLS 1.3 our certificate is refused when we believe that all is well.
        let is_of_rights = is_missing || source.is_some_and(is_of_tls);
        return match (is_of_rights, is_io || error.is_closed()) {
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
    if let Some(source) = source.filter(|source| source.is::<io::Error>()) {
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

#[cfg(test)]
mod tests {
    use std::{
        pin::Pin,
        task::{Context, Poll},
    };

    use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf, Sink};
    use tokio_postgres::{Config, NoTls};

    use super::*;

    /// What the crate makes of a server that says this, and no more.
    async fn said(words: &[u8]) -> Failed {
        let (ours, mut theirs) = tokio::io::duplex(4_096);
        theirs.write_all(words).await.expect("it has room");
        let mut config = Config::new();
        config.user("reader");
        let connecting = config.connect_raw(ours, NoTls);
        let ends = async {
            theirs.shutdown().await.expect("it is open");
            let mut greeting = Vec::new();
            // Until the other end goes.
            _ = tokio::io::copy(&mut theirs, &mut greeting).await;
        };
        let (connected, ()) = tokio::join!(connecting, ends);
        Failed::Asking(connected.err().expect("it was not let in"))
    }

    /// A connection that breaks with this when somebody reads there; what is written goes nowhere.
    struct Broken(io::ErrorKind, rustls::Error, Sink);

    impl AsyncRead for Broken {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Poll::Ready(Err(io::Error::new(self.0, self.1.clone())))
        }
    }

    impl AsyncWrite for Broken {
        fn poll_write(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            Pin::new(&mut self.2).poll_write(context, bytes)
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    async fn breaks_with(alert: rustls::Error) -> Failed {
        let stream = Broken(io::ErrorKind::InvalidData, alert, tokio::io::sink());
        let mut config = Config::new();
        config.user("reader");
        let connected = config.connect_raw(stream, NoTls).await;
        Failed::Asking(connected.err().expect("it was not let in"))
    }

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).expect("it is short");
        [&[kind], &length.to_be_bytes()[..], body].concat()
    }

    async fn refused(code: &str, words: &str) -> Failed {
        let fields = format!("SFATAL\0VFATAL\0C{code}\0M{words}\0\0");
        said(&message(b'E', fields.as_bytes())).await
    }

    #[tokio::test]
    async fn what_a_server_says_is_counted_as_what_it_is() {
        for (code, words, counted) in [
            ("28P01", "password authentication failed", Fault::Auth),
            ("28000", "no pg_hba.conf entry", Fault::Auth),
            ("42501", "permission denied for table apps", Fault::Auth),
            // pgbouncer has no code of its own for these.
            ("08P01", "no such user: reader", Fault::Auth),
            ("08P01", "SASL authentication failed", Fault::Auth),
            ("08P01", "server closed the connection", Fault::Io),
            ("57P01", "terminating connection", Fault::Io),
            ("57P03", "the database system is starting up", Fault::Io),
            ("XX000", "cache lookup failed", Fault::Io),
            ("3D000", "database does not exist", Fault::Protocol),
            ("42P01", "relation does not exist", Fault::Protocol),
            ("42703", "column does not exist", Fault::Protocol),
            ("53300", "too many clients", Fault::Protocol),
        ] {
            let failed = refused(code, words).await;
            assert_eq!(kind(&failed), counted, "{code}: {failed:?}");
        }
    }

    #[tokio::test]
    async fn what_no_server_says_is_counted_as_what_it_is() {
        let io = |kind| io::Error::from(kind);
        let of_tls = |error| io::Error::new(io::ErrorKind::InvalidData, error);
        let alert = rustls::Error::AlertReceived(rustls::AlertDescription::CertificateRequired);
        let asks_password = message(b'R', &3_u32.to_be_bytes());
        let asks_strange = message(b'R', &6_u32.to_be_bytes());
        let unknown = message(b'?', b"");
        for (failed, counted) in [
            (Failed::Resolving(io(io::ErrorKind::NotFound)), Fault::Io),
            (
                Failed::Reaching(io(io::ErrorKind::ConnectionRefused)),
                Fault::Io,
            ),
            (
                Failed::Tls(Failure::Unreachable(io(io::ErrorKind::TimedOut))),
                Fault::Io,
            ),
            (Failed::NoTls, Fault::Auth),
            (Failed::Crowded, Fault::Timeout),
            (Failed::Silent, Fault::Timeout),
            (said(b"").await, Fault::Io),
            (said(&asks_password).await, Fault::Auth),
            (said(&asks_strange).await, Fault::Protocol),
            (said(&unknown).await, Fault::Protocol),
            (breaks_with(alert.clone()).await, Fault::Auth),
            (Failed::Tls(Failure::Handshake(of_tls(alert))), Fault::Auth),
        ] {
            assert_eq!(kind(&failed), counted, "{failed:?}");
        }
    }
}
