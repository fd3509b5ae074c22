//! One connection to a Redis server: where it goes, how it is made.
//!
//! Owns: `Server`, `Keys`, `Standing` (a connection that was made).
//! May depend on: `redis::{fault, sentinel, tap}`, `adapter`, `bridge::tls`, `config::secret`, the crate `redis`.
//! Invariants: RESP3 and TCP_NODELAY always; an attempt ends within its time; nothing here prints a
//! password.

use std::{io, sync::Arc, time::Duration};

use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo,
    ProtocolVersion, PushInfo, RedisConnectionInfo, RedisResult,
    aio::{MultiplexedConnection, SendError},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::JoinSet,
    time::{Instant, sleep, timeout, timeout_at},
};

use super::{
    super::{
        BusError,
        backoff::{Backoff, CEILING},
        news::Trouble,
        roads::Reporter,
    },
    RedisServer,
    fault::{fault, tls_fault, unanswered, wants_tls},
    sentinel::Sentinels,
    tap::{Ear, Tap},
};
use crate::{
    bridge::{redis_commands::Purpose, tls::TlsClient},
    config::{Secret, secret::masked_text},
};

/// A server as one end of a road sees it.
#[derive(Clone)]
pub(in crate::bridge) struct Server {
    client: Client,
    keys: Keys,
    tls: Option<TlsClient>,
    /// For people.
    address: String,
    database: u32,
    /// Who says where it is; then all but the database is found anew for each connection.
    sentinels: Option<Arc<Sentinels>>,
    is_master: bool,
}

/// What is done with what comes unasked.
pub(in crate::bridge) trait OnPush:
    Clone + Send + Sync + Unpin + 'static
{
    /// Published messages are many, and taken before the crate reads them.
    const TAKES_MESSAGES: bool = false;

    fn push(&self, info: PushInfo) -> Result<(), SendError>;

    /// Takes a message, or leaves it to `push`.
    fn message(&self, _name: &[u8], _bytes: &[u8]) -> bool {
        false
    }
}

impl<F> OnPush for F
where
    F: Fn(PushInfo) -> Result<(), SendError> + Clone + Send + Sync + Unpin + 'static,
{
    fn push(&self, info: PushInfo) -> Result<(), SendError> {
        self(info)
    }
}

impl<P: OnPush> Ear for P {
    fn message(&self, name: &[u8], bytes: &[u8]) -> bool {
        OnPush::message(self, name, bytes)
    }
}

/// The keys that an operator would change, by what is wrong.
#[derive(Clone, Copy, Debug)]
pub(in crate::bridge) struct Keys {
    /// What a server is called.
    what: &'static str,
    pub(in crate::bridge) url: &'static str,
    pub(in crate::bridge) address: &'static str,
    pub(in crate::bridge) login: &'static str,
    pub(in crate::bridge) database: &'static str,
    /// What a user must be allowed.
    pub(in crate::bridge) commands: &'static str,
    /// The oldest release that will do.
    pub(in crate::bridge) release: &'static str,
    pub(in crate::bridge) driver: &'static str,
}

impl Keys {
    pub(in crate::bridge) const PUBLISHER: Self =
        Self::of_database("adapter.redis.redis_pub_options.url");
    pub(in crate::bridge) const SUBSCRIBER: Self =
        Self::of_database("adapter.redis.redis_sub_options.url");

    const fn of_database(url: &'static str) -> Self {
        Self {
            what: "Redis",
            url,
            address: "database.redis.host, database.redis.port",
            login: "database.redis.username, database.redis.password",
            database: "database.redis.db",
            commands: "HELLO, SELECT, PING, PUBLISH, SUBSCRIBE and UNSUBSCRIBE",
            release: "6",
            driver: "adapter.driver",
        }
    }

    /// Of one server that is asked for something.
    pub(in crate::bridge) const fn of_one(purpose: Purpose) -> Self {
        Self {
            commands: purpose.commands,
            driver: purpose.driver,
            ..Self::of_database(purpose.url)
        }
    }

    /// Of a cluster that is asked for something.
    pub(in crate::bridge) const fn of_cluster(purpose: Purpose) -> Self {
        Self {
            url: purpose.nodes,
            address: purpose.nodes,
            database: purpose.nodes,
            commands: purpose.commands,
            release: "6",
            driver: purpose.driver,
            ..Self::CLUSTER
        }
    }

    /// Most servers of a cluster are found, not named.
    pub(in crate::bridge) const CLUSTER: Self = Self {
        what: "Redis",
        url: "adapter.cluster.nodes",
        address: "adapter.cluster.nodes or database.redis.cluster_nodes",
        login: "database.redis.cluster.username, database.redis.cluster.password",
        database: "adapter.cluster.nodes",
        commands: "HELLO, PING, CLUSTER INFO, CLUSTER SLOTS, SPUBLISH, SSUBSCRIBE and SUNSUBSCRIBE",
        release: "7",
        driver: "adapter.driver",
    };

    pub(super) const SENTINEL: Self = Self {
        what: "Sentinel",
        url: "database.redis.sentinels",
        address: "database.redis.sentinels",
        login: "database.redis.sentinel_password",
        database: "database.redis.sentinels",
        commands: "HELLO and SENTINEL",
        release: "6",
        driver: "adapter.driver",
    };

    /// Of a master that is found.
    pub(super) const fn of_sentinels(self) -> Self {
        Self {
            address: "database.redis.sentinels",
            commands: "HELLO, SELECT, ROLE, PUBLISH, SUBSCRIBE and UNSUBSCRIBE",
            ..self
        }
    }

    /// A URL says all of it.
    const fn of_url(self) -> Self {
        Self {
            url: self.url,
            address: self.url,
            login: self.url,
            database: self.url,
            ..self
        }
    }
}

impl Server {
    /// The one of the URL, or else of `database.redis`. `tls` is there if `uses_tls`.
    pub(in crate::bridge) fn new(
        url: Option<&Secret>,
        server: &RedisServer,
        keys: Keys,
        tls: Option<&TlsClient>,
    ) -> Result<Self, BusError> {
        let tls = uses_tls(url, server).then(|| tls.expect("read for whom uses it").clone());
        let (connection, keys) = match url {
            Some(url) => (parse(url, url, keys.url)?, keys.of_url()),
            None => (of_server(server), keys),
        };
        if tls.is_some() && !matches!(connection.addr(), ConnectionAddr::Tcp(..)) {
            return Err(wrong_url(keys.url, url, "it names no host"));
        }
        let address = format!("{} at {}", keys.what, connection.addr());
        let database = u32::try_from(connection.redis_settings().db());
        let database = database.map_err(|_| wrong_url(keys.database, url, "a database below 0"))?;
        let login = connection.redis_settings().clone();
        let login = login
            .set_protocol(ProtocolVersion::RESP3)
            .set_lib_name("sockudo", env!("CARGO_PKG_VERSION"));
        // Off by default in the crate: a small PUBLISH would wait for the acknowledgement of the last.
        let tcp = connection.tcp_settings().clone().set_nodelay(true);
        let connection = connection.set_redis_settings(login).set_tcp_settings(tcp);
        let reason = |_| wrong_url(keys.address, url, "it names no server");
        Ok(Self {
            client: Client::open(connection).map_err(reason)?,
            keys,
            tls,
            address,
            database,
            sentinels: None,
            is_master: false,
        })
    }

    /// It is where the Sentinels say.
    pub(in crate::bridge) fn by(self, sentinels: Sentinels) -> Self {
        let sentinels = Some(Arc::new(sentinels));
        Self { sentinels, ..self }
    }

    /// It was found as a master, and is to be left when it is none.
    pub(super) fn into_master(self) -> Self {
        let is_master = true;
        Self { is_master, ..self }
    }

    pub(super) const fn is_master(&self) -> bool {
        self.is_master
    }

    pub(in crate::bridge) const fn database(&self) -> u32 {
        self.database
    }

    /// The connection, as soon as there is one. Tells why there is none.
    pub(in crate::bridge::adapter) async fn connect(
        &self,
        backoff: &mut Backoff,
        reporter: &mut Reporter,
        on_push: impl OnPush,
    ) -> Standing {
        for turn in 0.. {
            match self.attempt_nth(turn, on_push.clone()).await {
                Ok(standing) => return standing,
                Err(trouble) => {
                    reporter.failed(trouble).await;
                    sleep(backoff.pause()).await;
                }
            }
        }
        unreachable!("nobody counts so far")
    }

    /// One attempt; where Sentinels say where it is, each turn begins with another of them.
    pub(in crate::bridge) async fn attempt_nth(
        &self,
        turn: usize,
        on_push: impl OnPush,
    ) -> Result<Standing, Trouble> {
        match &self.sentinels {
            Some(sentinels) => sentinels.connect(turn, on_push).await,
            None => self.attempt(on_push).await,
        }
    }

    /// One attempt.
    pub(in crate::bridge) async fn attempt<P: OnPush>(
        &self,
        on_push: P,
    ) -> Result<Standing, Trouble> {
        let pushed = on_push.clone();
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_WITHIN))
            .set_response_timeout(None) // Each wait for an answer has a deadline of its own.
            .set_pipeline_buffer_size(COMMANDS_QUEUED_MAX)
            .set_push_sender(move |info| pushed.push(info));
        if let Some(tls) = &self.tls {
            return self.attempt_tls(tls, config, on_push).await;
        }
        let client = &self.client;
        let connected = if P::TAKES_MESSAGES
            && let ConnectionAddr::Tcp(host, port) = client.get_connection_info().addr()
        {
            let made = self.tapped(host, *port, config, on_push);
            let made = timeout(CONNECT_WITHIN, made).await;
            made.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()))
        } else {
            let made = client.get_multiplexed_async_connection_with_config(&config);
            made.await.map(|connection| (connection, JoinSet::new()))
        };
        match connected {
            Ok((connection, drivers)) => Ok(Standing::new(self, connection, drivers)),
            Err(error) if error.is_connection_dropped() && !error.is_connection_refusal() => {
                Err(wants_tls(&error, self))
            }
            Err(error) => Err(fault(&error, self)),
        }
    }

    async fn tapped(
        &self,
        host: &str,
        port: u16,
        config: AsyncConnectionConfig,
        ear: impl OnPush,
    ) -> RedisResult<(MultiplexedConnection, JoinSet<()>)> {
        let stream = TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        self.over(Tap::new(stream, ear), config).await
    }

    /// The crate's connection over a stream that stands, and what drives it.
    async fn over(
        &self,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        config: AsyncConnectionConfig,
    ) -> RedisResult<(MultiplexedConnection, JoinSet<()>)> {
        let login = self.client.get_connection_info().redis_settings();
        let made = MultiplexedConnection::new_with_config(login, stream, config);
        let (connection, driver) = made.await?;
        let mut drivers = JoinSet::new();
        drivers.spawn(driver);
        Ok((connection, drivers))
    }

    async fn attempt_tls<P: OnPush>(
        &self,
        tls: &TlsClient,
        config: AsyncConnectionConfig,
        on_push: P,
    ) -> Result<Standing, Trouble> {
        let until = Instant::now() + CONNECT_WITHIN;
        let info = self.client.get_connection_info();
        let ConnectionAddr::Tcp(host, port) = info.addr() else {
            panic!("TLS was refused for anything else");
        };
        let stream = tls.connect(host, *port, CONNECT_WITHIN).await;
        let stream = stream.map_err(|failure| tls_fault(&failure, tls, self))?;
        let made = async {
            match P::TAKES_MESSAGES {
                true => self.over(Tap::new(stream, on_push), config).await,
                false => self.over(stream, config).await,
            }
        };
        let made = timeout_at(until, made).await;
        let made = made.map_err(|_| unanswered(self))?;
        let (connection, drivers) = made.map_err(|error| fault(&error, self))?;
        Ok(Standing::new(self, connection, drivers))
    }

    pub(in crate::bridge) const fn tls(&self) -> Option<&TlsClient> {
        self.tls.as_ref()
    }

    pub(in crate::bridge) fn address(&self) -> &str {
        &self.address
    }

    pub(in crate::bridge) const fn keys(&self) -> Keys {
        self.keys
    }

    /// Whether the text holds the password; an old server repeats a command that it does not know.
    pub(in crate::bridge) fn is_leaked_by(&self, text: &str) -> bool {
        let password = self
            .client
            .get_connection_info()
            .redis_settings()
            .password();
        password.is_some_and(|password| !password.is_empty() && text.contains(password))
    }
}

/// A connection that was made.
pub(in crate::bridge) struct Standing {
    pub(in crate::bridge) connection: MultiplexedConnection,
    /// Where it leads to.
    pub(super) server: Server,
    since: Instant,
    /// What reads and writes, where that is ours to run. Ends with this.
    _drivers: JoinSet<()>,
}

impl Standing {
    fn new(server: &Server, connection: MultiplexedConnection, drivers: JoinSet<()>) -> Self {
        Self {
            connection,
            server: server.clone(),
            since: Instant::now(),
            _drivers: drivers,
        }
    }

    pub(in crate::bridge) const fn server(&self) -> &Server {
        &self.server
    }

    /// It has ended. One that stood for a while is made anew at once.
    pub(in crate::bridge) async fn ended(self, backoff: &mut Backoff) {
        let stood = self.since.elapsed();
        drop(self);
        if stood >= CEILING {
            backoff.rest();
        } else {
            sleep(backoff.pause()).await;
        }
    }
}

/// `written` is what stands in the configuration, which may want a scheme before it.
pub(in crate::bridge) fn parse(
    url: &Secret,
    written: &Secret,
    key: &'static str,
) -> Result<ConnectionInfo, BusError> {
    let text = url.expose();
    let plain = behind_tls_scheme(text).map(|rest| format!("redis://{rest}"));
    let wrong = |reason| wrong_url(key, Some(written), reason);
    let is_in_login = text.find('#') < text.rfind('@');
    if plain.is_some() && text.contains('#') {
        return Err(wrong(match is_in_login {
            true => HASH_IN_LOGIN,
            false => {
                "wants nothing behind a #: a certificate is always verified, and a private CA \
                 is given by database.redis.tls.ca_path"
            }
        }));
    }
    let text = plain.as_deref().unwrap_or(text);
    // The crate's own reason may quote a part of the URL.
    text.into_connection_info().map_err(|error| {
        let is_malformed = error.kind() == ErrorKind::InvalidClientConfig;
        wrong(match is_malformed {
            true if text.contains('#') && is_in_login => HASH_IN_LOGIN,
            true => "wants redis://[user:password@]host[:port][/database], or rediss:// for TLS",
            false => "it cannot be read",
        })
    })
}

/// Whether the URL, or else the server, is to be spoken to by TLS.
pub(in crate::bridge) fn uses_tls(url: Option<&Secret>, server: &RedisServer) -> bool {
    match url {
        Some(url) => scheme_is_tls(url),
        None => server.uses_tls,
    }
}

pub(in crate::bridge) fn scheme_is_tls(url: &Secret) -> bool {
    behind_tls_scheme(url.expose()).is_some()
}

/// The crate is told nothing of TLS, which is ours.
fn behind_tls_scheme(url: &str) -> Option<&str> {
    let (scheme, rest) = url.split_once("://")?;
    let is_tls = ["rediss", "valkeys"]
        .iter()
        .any(|it| scheme.eq_ignore_ascii_case(it));
    is_tls.then_some(rest)
}

pub(in crate::bridge) fn wrong_url(
    key: &'static str,
    url: Option<&Secret>,
    reason: &'static str,
) -> BusError {
    let shown = url.map(|url| masked_text(url.expose())).unwrap_or_default();
    BusError::Url { key, shown, reason }
}

/// A URL ends before it.
const HASH_IN_LOGIN: &str = "a # in its user or password must be percent-encoded, as %23";

fn of_server(server: &RedisServer) -> ConnectionInfo {
    let mut login = RedisConnectionInfo::default().set_db(i64::from(server.database));
    if let Some(username) = server.username.as_ref().filter(|it| !it.is_empty()) {
        login = login.set_username(username);
    }
    if let Some(password) = server
        .password
        .as_ref()
        .filter(|it| !it.expose().is_empty())
    {
        login = login.set_password(password.expose());
    }
    let address = (server.host.as_str(), server.port).into_connection_info();
    let address = address.expect("a host and a port are an address");
    address.set_redis_settings(login)
}

/// Of one attempt: name, TCP, login.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);
/// Pipelines that the crate takes before it waits; more than are ever in flight.
const COMMANDS_QUEUED_MAX: usize = 256;
