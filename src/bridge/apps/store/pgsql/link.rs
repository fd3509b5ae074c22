//! One connection to PostgreSQL.
//!
//! Owns: `Link`: how it is made, and the task that drives it.
//! May depend on: `pgsql::setup`, `bridge::tls`, tokio, the crate `tokio-postgres`.
//! Invariants: a statement has no name, and is prepared and run in one round trip; a link that goes out of
//! scope is closed at once, whatever the server does.

use std::{io, net::SocketAddr};

use bytes::BytesMut;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpStream, UnixStream, lookup_host},
    task::AbortHandle,
    time::Instant,
};
use tokio_postgres::{
    Client, NoTls, Row, RowStream,
    types::{Format, IsNull, ToSql, Type},
};

use super::setup::PgsqlSetup;
use crate::bridge::tls::Failure;

#[derive(Debug)]
pub(super) struct Link {
    client: Client,
    driver: AbortHandle,
    /// It has lain idle since.
    pub(super) used_at: Instant,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Failed {
    Resolving(io::Error),
    Reaching(io::Error),
    /// It was asked for TLS and has none.
    NoTls,
    Tls(Failure),
    Asking(tokio_postgres::Error),
    /// Those who wait are as many as may.
    Crowded,
    /// It took longer than it may.
    Silent,
}

impl From<tokio_postgres::Error> for Failed {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Asking(error)
    }
}

impl Link {
    pub(super) async fn connect(setup: &PgsqlSetup) -> Result<Self, Failed> {
        if let Some(path) = setup.socket() {
            let stream = UnixStream::connect(path).await;
            return Self::greet(setup, stream.map_err(Failed::Reaching)?).await;
        }
        let host = setup.host.trim_start_matches('[').trim_end_matches(']');
        let addresses = lookup_host((host, setup.port)).await;
        let addresses: Vec<SocketAddr> = addresses.map_err(Failed::Resolving)?.collect();
        // Tries one after the other.
        let stream = TcpStream::connect(&*addresses).await;
        let mut stream = stream.map_err(Failed::Reaching)?;
        stream.set_nodelay(true).map_err(Failed::Reaching)?;
        let Some(tls) = &setup.tls else {
            return Self::greet(setup, stream).await;
        };
        ask_for_tls(&mut stream).await?;
        let stream = tls.over(host, stream).await.map_err(Failed::Tls)?;
        Self::greet(setup, stream).await
    }

    async fn greet<S>(setup: &PgsqlSetup, stream: S) -> Result<Self, Failed>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (client, connection) = setup.config.connect_raw(stream, NoTls).await?;
        // Whoever waits for an answer is told why there is none.
        let driver = tokio::spawn(async move { _ = connection.await });
        Ok(Self {
            client,
            driver: driver.abort_handle(),
            used_at: Instant::now(),
        })
    }

    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// All rows of a statement with one value.
    pub(super) async fn ask(&self, statement: &str, text: &str) -> Result<Vec<Row>, Failed> {
        let text = Some(text);
        let values: [(&(dyn ToSql + Sync), Type); 1] = [(&Text(text), Type::UNKNOWN)];
        Ok(self.client.query_typed(statement, &values).await?)
    }

    /// The rows of a statement without values, one after the other.
    pub(super) async fn stream(&self, statement: &str) -> Result<RowStream, Failed> {
        let none: [(&(dyn ToSql + Sync), Type); 0] = [];
        Ok(self.client.query_typed_raw(statement, none).await?)
    }

    /// How many rows a statement has changed.
    pub(super) async fn run(
        &self,
        statement: &str,
        values: &[Option<String>],
    ) -> Result<u64, Failed> {
        let values: Vec<(Text<'_>, Type)> = values
            .iter()
            .map(|value| (Text(value.as_deref()), Type::UNKNOWN))
            .collect();
        let values: Vec<(&(dyn ToSql + Sync), Type)> = values
            .iter()
            .map(|(text, kind)| (text as &(dyn ToSql + Sync), kind.clone()))
            .collect();
        Ok(self.client.execute_typed(statement, &values).await?)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// The server answers with one byte before TLS begins.
async fn ask_for_tls(stream: &mut TcpStream) -> Result<(), Failed> {
    let mut answer = [0];
    let asked = async {
        stream.write_all(&TLS_REQUEST).await?;
        stream.read_exact(&mut answer).await
    };
    asked.await.map_err(Failed::Reaching)?;
    match answer {
        [b'S'] => Ok(()),
        _ => Err(Failed::NoTls),
    }
}

/// Length and code of `SSLRequest`: PostgreSQL's documentation, "Message Formats".
const TLS_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xD2, 0x16, 0x2F];

/// A value as a text of no type: the database takes it for that of the column, so that a column of any type is found
/// by its own index.
#[derive(Debug)]
struct Text<'a>(Option<&'a str>);

impl ToSql for Text<'_> {
    fn to_sql(
        &self,
        _: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        let Some(text) = self.0 else {
            return Ok(IsNull::Yes);
        };
        out.extend_from_slice(text.as_bytes());
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }

    tokio_postgres::types::to_sql_checked!();
}
