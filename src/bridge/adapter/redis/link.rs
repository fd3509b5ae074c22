//! One connection to a Redis server: where it goes, how it is made.
//!
//! Owns: `Server`, `Keys`.
//! May depend on: `redis::fault`, `adapter`, `config::secret`, the crate `redis`.
//! Invariants: RESP3 and TCP_NODELAY always; an attempt ends within its time; nothing here prints a
//! password.

use std::time::Duration;

use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo,
    ProtocolVersion, PushInfo, RedisConnectionInfo, RedisResult,
    aio::{MultiplexedConnection, SendError},
};
use tokio::time::{Instant, sleep};

use super::{
    super::{
        BusError,
        backoff::{Backoff, CEILING},
        roads::Reporter,
    },
    RedisServer,
    fault::fault,
};
use crate::config::Secret;

/// A server as one end of a road sees it.
#[derive(Clone)]
pub(in crate::bridge::adapter) struct Server {
    client: Client,
    keys: Keys,
    /// For people.
    address: String,
    database: u32,
}

/// The keys that an operator would change, by what is wrong.
#[derive(Clone, Copy, Debug)]
pub(in crate::bridge::adapter) struct Keys {
    pub(in crate::bridge::adapter) url: &'static str,
    pub(in crate::bridge::adapter) address: &'static str,
    pub(in crate::bridge::adapter) login: &'static str,
    pub(in crate::bridge::adapter) database: &'static str,
    /// What a user must be allowed.
    pub(in crate::bridge::adapter) commands: &'static str,
    /// The oldest release that will do.
    pub(in crate::bridge::adapter) release: &'static str,
}

impl Keys {
    pub(in crate::bridge::adapter) const PUBLISHER: Self =
        Self::of_database("adapter.redis.redis_pub_options.url");
    pub(in crate::bridge::adapter) const SUBSCRIBER: Self =
        Self::of_database("adapter.redis.redis_sub_options.url");

    const fn of_database(url: &'static str) -> Self {
        Self {
            url,
            address: "database.redis.host, database.redis.port",
            login: "database.redis.username, database.redis.password",
            database: "database.redis.db",
            commands: "HELLO, SELECT, PING, PUBLISH, SUBSCRIBE and UNSUBSCRIBE",
            release: "6",
        }
    }

    /// Most servers of a cluster are found, not named.
    pub(in crate::bridge::adapter) const CLUSTER: Self = Self {
        url: "adapter.cluster.nodes",
        address: "adapter.cluster.nodes or database.redis.cluster_nodes",
        login: "database.redis.cluster.username, database.redis.cluster.password",
        database: "adapter.cluster.nodes",
        commands: "HELLO, PING, CLUSTER INFO, CLUSTER SLOTS, SPUBLISH, SSUBSCRIBE and SUNSUBSCRIBE",
        release: "7",
    };

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
    /// The one of the URL, or else of `database.redis`.
    pub(in crate::bridge::adapter) fn new(
        url: Option<&Secret>,
        server: &RedisServer,
        keys: Keys,
    ) -> Result<Self, BusError> {
        let (connection, keys) = match url {
            Some(url) => (parse(url, keys.url)?, keys.of_url()),
            None => (of_server(server), keys),
        };
        if matches!(connection.addr(), ConnectionAddr::TcpTls { .. }) {
            return Err(BusError::Tls { key: keys.url });
        }
        let address = connection.addr().to_string();
        let database = u32::try_from(connection.redis_settings().db());
        let database = database.map_err(|_| wrong_url(keys.database, "a database below 0"))?;
        let login = connection.redis_settings().clone();
        let login = login
            .set_protocol(ProtocolVersion::RESP3)
            .set_lib_name("sockudo", env!("CARGO_PKG_VERSION"));
        // Off by default in the crate: a small PUBLISH would wait for the acknowledgement of the last.
        let tcp = connection.tcp_settings().clone().set_nodelay(true);
        let connection = connection.set_redis_settings(login).set_tcp_settings(tcp);
        let reason = |_| wrong_url(keys.address, "it names no server");
        Ok(Self {
            client: Client::open(connection).map_err(reason)?,
            keys,
            address,
            database,
        })
    }

    pub(in crate::bridge::adapter) const fn database(&self) -> u32 {
        self.database
    }

    /// The connection, as soon as there is one. Tells why there is none.
    pub(in crate::bridge::adapter) async fn connect(
        &self,
        backoff: &mut Backoff,
        reporter: &mut Reporter,
        on_push: impl Fn(PushInfo) -> Result<(), SendError> + Clone + Send + Sync + 'static,
    ) -> Standing {
        loop {
            match self.attempt(on_push.clone()).await {
                Ok(connection) => {
                    let since = Instant::now();
                    return Standing { connection, since };
                }
                Err(error) => {
                    reporter.failed(fault(&error, self)).await;
                    sleep(backoff.pause()).await;
                }
            }
        }
    }

    /// One attempt.
    pub(in crate::bridge::adapter) async fn attempt(
        &self,
        on_push: impl Fn(PushInfo) -> Result<(), SendError> + Send + Sync + 'static,
    ) -> RedisResult<MultiplexedConnection> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_WITHIN))
            .set_response_timeout(None) // Each wait for an answer has a deadline of its own.
            .set_pipeline_buffer_size(COMMANDS_QUEUED_MAX)
            .set_push_sender(on_push);
        let client = &self.client;
        let connected = client.get_multiplexed_async_connection_with_config(&config);
        connected.await
    }

    pub(in crate::bridge::adapter) fn address(&self) -> &str {
        &self.address
    }

    pub(in crate::bridge::adapter) const fn keys(&self) -> Keys {
        self.keys
    }

    /// Whether the text holds the password; an old server repeats a command that it does not know.
    pub(in crate::bridge::adapter) fn is_leaked_by(&self, text: &str) -> bool {
        let password = self
            .client
            .get_connection_info()
            .redis_settings()
            .password();
        password.is_some_and(|password| !password.is_empty() && text.contains(password))
    }
}

/// A connection that was made.
pub(in crate::bridge::adapter) struct Standing {
    pub(in crate::bridge::adapter) connection: MultiplexedConnection,
    since: Instant,
}

impl Standing {
    /// It has ended. One that stood for a while is made anew at once.
    pub(in crate::bridge::adapter) async fn ended(self, backoff: &mut Backoff) {
        let stood = self.since.elapsed();
        drop(self);
        if stood >= CEILING {
            backoff.rest();
        } else {
            sleep(backoff.pause()).await;
        }
    }
}

pub(in crate::bridge::adapter) fn parse(
    url: &Secret,
    key: &'static str,
) -> Result<ConnectionInfo, BusError> {
    if let Some(("rediss" | "valkeys", _)) = url.expose().split_once("://") {
        return Err(BusError::Tls { key });
    }
    // The crate's own reason may quote a part of the URL.
    url.expose().into_connection_info().map_err(|error| {
        let is_malformed = error.kind() == ErrorKind::InvalidClientConfig;
        let reason = if is_malformed {
            "wants redis://[user:password@]host[:port][/database]"
        } else {
            "it cannot be read"
        };
        wrong_url(key, reason)
    })
}

pub(in crate::bridge::adapter) fn wrong_url(key: &'static str, reason: &str) -> BusError {
    let reason = reason.to_owned();
    BusError::Url { key, reason }
}

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
