//! The table of apps over one connection: blocking, for a thread that may wait.
//!
//! Owns: the statements, connecting, and what a thread keeps between two questions.
//! May depend on: `mysql::{setup, row, fault}`, `config`, the crate `mysql`.
//! Invariants: every statement is prepared, no value stands in its text; a row is taken only if
//! its key or id is byte for byte the one that was asked; a connection that may be out of step is
//! never asked again.
//!
//! All columns are asked for: a column that is missing is as good as NULL, one that an operator
//! adds counts from the next question on, and other spellings of a column need no list here.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _},
    sync::Arc,
};

use mysql::{Conn, Row, Value, prelude::Queryable as _};

use super::{
    super::{
        AppName, StoreError,
        found::{self, Found, Malformed, ROW_BYTES_MAX},
    },
    fault, row,
    setup::MysqlSetup,
};
use crate::{
    config::{App, AppDefaults},
    metrics::backend::Meter,
};

pub(super) struct Table {
    setup: Arc<MysqlSetup>,
    connection: Option<Conn>,
    has_connected: bool,
    meter: Meter,
}

impl Table {
    pub(super) fn new(setup: Arc<MysqlSetup>, meter: Meter) -> Self {
        Self {
            setup,
            connection: None,
            has_connected: false,
            meter,
        }
    }

    /// The app of a name. `may_retry` is asked before a second try, which a connection that was
    /// lost while it lay idle gets.
    pub(super) fn find(
        &mut self,
        name: &AppName,
        defaults: &AppDefaults,
        may_retry: &dyn Fn() -> bool,
    ) -> Result<Option<App>, StoreError> {
        let column = match name {
            AppName::Key(_) => "key",
            AppName::Id(_) => "id",
        };
        let table = &self.setup.table_quoted;
        let statement = format!("SELECT * FROM {table} WHERE `{column}` = ? LIMIT {ALIKE_MAX}");
        let asked = name.as_str();
        let rows = self.ask(&statement, &[asked], may_retry, |row| {
            let is_it = row::text(row, column).is_some_and(|text| text == asked);
            is_it.then(|| app(row, defaults))
        });
        match rows {
            Ok(rows) => found::the_only_one(rows, column, asked),
            Err(error) if fault::is_of_no_row(&error.0) => Ok(None),
            Err(error) if fault::is_too_large(&error.0) => Err(too_large(asked).into()),
            Err(error) => Err(down(&error, &self.setup)),
        }
    }

    /// The rows of those ids.
    pub(super) fn find_all(
        &mut self,
        ids: &[Box<str>],
        defaults: &AppDefaults,
        may_retry: &dyn Fn() -> bool,
    ) -> Result<Vec<Found>, StoreError> {
        let Some(last) = ids.last() else {
            return Ok(Vec::new());
        };
        // Few lengths, so that few statements are prepared: the last one stands several times.
        let places = ids.len().next_power_of_two();
        let mut asked: Vec<&str> = ids.iter().map(|id| &**id).collect();
        asked.resize(places, last);
        let table = &self.setup.table_quoted;
        let marks = vec!["?"; places].join(",");
        let statement = format!("SELECT * FROM {table} WHERE `id` IN ({marks})");
        let rows = self.ask(&statement, &asked, may_retry, |row| {
            let id = row::text(row, "id")?;
            asked.contains(&&*id).then(|| app(row, defaults))
        });
        match rows {
            Ok(rows) => Ok(rows),
            // One of them spoils the statement.
            Err(error) if fault::is_too_large(&error.0) || fault::is_of_no_row(&error.0) => {
                self.find_each(ids, defaults, may_retry)
            }
            Err(error) => Err(down(&error, &self.setup)),
        }
    }

    fn find_each(
        &mut self,
        ids: &[Box<str>],
        defaults: &AppDefaults,
        may_retry: &dyn Fn() -> bool,
    ) -> Result<Vec<Found>, StoreError> {
        let mut found = Vec::with_capacity(ids.len());
        for id in ids {
            match self.find(&AppName::Id(id.clone()), defaults, may_retry) {
                Ok(app) => found.extend(app.map(Ok)),
                Err(StoreError::Malformed {
                    id,
                    faults,
                    stand_in,
                }) => {
                    found.push(Err(Malformed {
                        id,
                        faults,
                        stand_in,
                    }));
                }
                Err(error @ StoreError::Down(..)) => return Err(error),
            }
        }
        Ok(found)
    }

    fn connect(&mut self) -> Result<Conn, Failed> {
        let connection = connect(&self.setup)?;
        if std::mem::replace(&mut self.has_connected, true) {
            self.meter.reconnected();
        }
        Ok(connection)
    }

    /// Runs a statement, on a new connection if the old one turns out to be gone.
    fn ask<T>(
        &mut self,
        statement: &str,
        texts: &[&str],
        may_retry: &dyn Fn() -> bool,
        mut take: impl FnMut(&Row) -> Option<T>,
    ) -> Result<Vec<T>, Failed> {
        let values = || -> Vec<Value> { texts.iter().map(|text| Value::from(*text)).collect() };
        loop {
            let was_idle = self.connection.is_some();
            let mut connection = match self.connection.take() {
                Some(connection) => connection,
                None => self.connect()?,
            };
            match rows(&mut connection, statement, values(), &mut take) {
                Ok(rows) => {
                    self.connection = Some(connection);
                    return Ok(rows);
                }
                Err(error) if !fault::ends_connection(&error) => {
                    self.connection = Some(connection);
                    return Err(error.into());
                }
                Err(_) if was_idle && may_retry() => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

pub(super) fn down(Failed(error, at): &Failed, setup: &MysqlSetup) -> StoreError {
    let sentence = match (at, error) {
        (At::Resolving, mysql::Error::IoError(error)) => fault::unknown_host(error, setup),
        (At::Resolving | At::Server, _) => fault::sentence(error, setup),
    };
    StoreError::Down(sentence, fault::kind(error, setup))
}

/// An error, and how far it came.
#[derive(Debug)]
pub(super) struct Failed(mysql::Error, At);

#[derive(Clone, Copy, Debug)]
pub(super) enum At {
    Resolving,
    Server,
}

impl From<mysql::Error> for Failed {
    fn from(error: mysql::Error) -> Self {
        Self(error, At::Server)
    }
}

/// Tries every address of the host: a name such as localhost often has one where nobody listens.
pub(super) fn connect(setup: &MysqlSetup) -> Result<Conn, Failed> {
    let host = setup.host.trim_start_matches('[').trim_end_matches(']');
    let resolved = (host, setup.port).to_socket_addrs();
    let resolved = resolved.map_err(|error| Failed(error.into(), At::Resolving))?;
    let mut kinds: Vec<bool> = resolved.map(|address| address.is_ipv4()).collect();
    kinds.dedup();
    let mut last = Failed(io::Error::other("it has no address").into(), At::Resolving);
    for is_ipv4 in kinds.into_iter().take(2) {
        let any: SocketAddr = match is_ipv4 {
            true => (Ipv4Addr::UNSPECIFIED, 0).into(),
            false => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        match Conn::new(setup.opts(any)) {
            Ok(connection) => return Ok(connection),
            Err(error) if fault::is_of_nobody(&error) => last = error.into(),
            Err(error) => return Err(error.into()),
        }
    }
    Err(last)
}

fn rows<T>(
    connection: &mut Conn,
    statement: &str,
    values: Vec<Value>,
    take: &mut impl FnMut(&Row) -> Option<T>,
) -> Result<Vec<T>, mysql::Error> {
    let mut taken = Vec::new();
    for row in connection.exec_iter(statement, values)? {
        taken.extend(take(&row?));
    }
    Ok(taken)
}

fn app(row: &Row, defaults: &AppDefaults) -> Found {
    let id = row::text(row, "id").unwrap_or_default();
    found::app(&id, row::record(row), defaults)
}

fn too_large(name: &str) -> Malformed {
    let bytes = ROW_BYTES_MAX;
    Malformed {
        id: name.to_owned(),
        faults: vec![format!("the row has more than {bytes} bytes")],
        stand_in: None,
    }
}

/// Rows that the database thinks equal to one name; the table's unique index allows one.
const ALIKE_MAX: usize = 64;
