//! Where the servers of a cluster are, and who we are there.
//!
//! Owns: `Members`.
//! May depend on: `adapter::BusError`, `redis::link`, `config::secret`.
//! Invariants: one login for all servers, since most of them are found and not named; nothing here
//! prints a secret.

use redis::ConnectionAddr;

use super::{
    super::{
        BusError,
        redis::{
            RedisServer,
            link::{Keys, Server, parse, wrong_url},
        },
    },
    RedisClusterSetup,
    slots::Address,
};
use crate::config::Secret;

/// Servers that are named, and the login for those and all others.
pub(super) struct Members {
    pub(super) seeds: Vec<Address>,
    username: Option<String>,
    password: Option<Secret>,
    keys: Keys,
}

impl Members {
    pub(super) fn new(setup: &RedisClusterSetup) -> Result<Self, BusError> {
        let mut members = Self {
            seeds: Vec::new(),
            username: setup.username.clone(),
            password: setup.password.clone(),
            keys: Keys::CLUSTER,
        };
        let has_login = setup.username.is_some() || setup.password.is_some();
        for node in &setup.nodes {
            let named = match node.expose().contains("://") {
                true => node.clone(),
                false => Secret::new(format!("redis://{}", node.expose())),
            };
            let connection = parse(&named, NODES)?;
            let settings = connection.redis_settings();
            if settings.db() != 0 {
                return Err(wrong_url(NODES, "a cluster has database 0 only"));
            }
            if let ConnectionAddr::TcpTls { .. } = connection.addr() {
                return Err(BusError::Tls { key: NODES });
            }
            let ConnectionAddr::Tcp(host, port) = connection.addr().clone() else {
                return Err(wrong_url(NODES, "it names no host"));
            };
            members.seeds.push(Address { host, port });
            if !has_login && members.password.is_none() {
                members.username = settings.username().map(str::to_owned);
                members.password = settings.password().map(Secret::from);
                if members.password.is_some() {
                    members.keys.login = NODES;
                }
            }
        }
        if members.seeds.is_empty() {
            return Err(BusError::NoNodes { key: NODES });
        }
        Ok(members)
    }

    pub(super) fn server(&self, at: &Address) -> Server {
        let server = RedisServer {
            host: at.host.clone(),
            port: at.port,
            database: 0,
            username: self.username.clone(),
            password: self.password.clone(),
        };
        Server::new(None, &server, self.keys).expect("a host, a port and database 0 will do")
    }
}

const NODES: &str = "adapter.cluster.nodes";
