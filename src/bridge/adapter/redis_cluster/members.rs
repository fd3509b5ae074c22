//! Where the servers of a cluster are, and who we are there.
//!
//! Owns: `ClusterServers`, `Members`.
//! May depend on: `adapter::BusError`, `redis::link`, `bridge::tls`, `config::secret`.
//! Invariants: one login for all servers, since most of them are found and not named; nothing here
//! prints a secret.

use redis::ConnectionAddr;

use super::{
    super::{
        BusError,
        redis::{
            RedisServer,
            link::{Keys, Server, parse, scheme_is_tls, wrong_url},
        },
    },
    slots::Address,
};
use crate::{
    bridge::tls::{TlsClient, TlsFiles},
    config::Secret,
};

/// What the configuration says of a cluster's servers.
#[derive(Clone, Debug)]
pub struct ClusterServers {
    /// URLs, or hosts with or without a port. Any of the cluster: the others are found by them.
    pub nodes: Vec<Secret>,
    /// `database.redis.cluster.username` and `.password`, for all servers; those of the first URL that
    /// has any where there are none.
    pub username: Option<String>,
    pub password: Option<Secret>,
    /// `database.redis.cluster.use_tls` or `database.redis.tls.enabled`; else TLS is spoken if the nodes are
    /// `rediss://`.
    pub uses_tls: bool,
    /// `database.redis.tls`.
    pub tls: TlsFiles,
}

/// Servers that are named, and the login for those and all others.
pub(in crate::bridge) struct Members {
    pub(in crate::bridge) seeds: Vec<Address>,
    username: Option<String>,
    password: Option<Secret>,
    keys: Keys,
    /// With all servers or none, since those that are found do not say.
    tls: Option<TlsClient>,
}

impl Members {
    /// `keys` are those that name them.
    pub(in crate::bridge) fn new(setup: &ClusterServers, keys: Keys) -> Result<Self, BusError> {
        let nodes_key = keys.url;
        let mut members = Self {
            seeds: Vec::new(),
            username: setup.username.clone(),
            password: setup.password.clone(),
            keys,
            tls: None,
        };
        let mut named_plain = false;
        let mut named_tls = setup.uses_tls;
        let has_login = setup.username.is_some() || setup.password.is_some();
        for node in &setup.nodes {
            let has_scheme = node.expose().contains("://");
            let named = match has_scheme {
                true => node.clone(),
                false => Secret::new(format!("redis://{}", node.expose())),
            };
            let is_tls = scheme_is_tls(&named);
            named_plain |= has_scheme && !is_tls;
            named_tls |= is_tls;
            let connection = parse(&named, node, nodes_key)?;
            let settings = connection.redis_settings();
            if settings.db() != 0 {
                return Err(wrong_url(
                    nodes_key,
                    Some(node),
                    "a cluster has database 0 only",
                ));
            }
            let ConnectionAddr::Tcp(host, port) = connection.addr().clone() else {
                return Err(wrong_url(nodes_key, Some(node), "it names no host"));
            };
            members.seeds.push(Address { host, port });
            if !has_login && members.password.is_none() {
                members.username = settings.username().map(str::to_owned);
                members.password = settings.password().map(Secret::from);
                if members.password.is_some() {
                    members.keys.login = nodes_key;
                }
            }
        }
        if members.seeds.is_empty() {
            return Err(BusError::NoNodes { key: keys.address });
        }
        if named_tls {
            // Who asks for TLS by its own key means servers of any scheme.
            if named_plain && !setup.uses_tls {
                return Err(BusError::MixedTls { key: nodes_key });
            }
            members.tls = Some(TlsClient::read(&setup.tls)?);
        }
        Ok(members)
    }

    pub(in crate::bridge) fn server(&self, at: &Address) -> Server {
        let server = RedisServer {
            host: at.host.clone(),
            port: at.port,
            uses_tls: self.tls.is_some(),
            database: 0,
            username: self.username.clone(),
            password: self.password.clone(),
        };
        let made = Server::new(None, &server, self.keys, self.tls.as_ref());
        made.expect("a host, a port and database 0 will do")
    }
}
