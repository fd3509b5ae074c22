//! Where the servers of NATS are, and who we are there.
//!
//! Owns: `Servers`, `Server`.
//! May depend on: `adapter::BusError`, `bridge::tls`, `config::secret`, `protocol::query`, the crate `async-nats`.
//! Invariants: every server that is named is tried, in another order each time, the one that was just
//! lost last; nothing here prints a secret.

use std::time::Duration;

use async_nats::{Auth, ConnectOptions, ServerAddr};

use super::{super::BusError, NatsSetup};
use crate::{
    bridge::tls::{TlsClient, TlsFiles, TlsWords},
    config::Secret,
    protocol::query::decode_percent,
};

/// All that are named.
pub(super) struct Servers {
    servers: Vec<Server>,
    tls_required: bool,
    tls: TlsFiles,
    /// Of one attempt.
    pub(super) connect_within: Duration,
}

/// One of them.
pub(super) struct Server {
    pub(super) url: ServerAddr,
    /// For people.
    address: String,
    login: Login,
    is_named_in_url: bool,
}

#[derive(Clone, Default)]
struct Login {
    username: Option<String>,
    password: Option<Secret>,
    token: Option<Secret>,
}

impl Servers {
    pub(super) fn new(setup: &NatsSetup) -> Result<Self, BusError> {
        let login = match (&setup.username, &setup.password) {
            (Some(username), Some(password)) => Login {
                username: Some(username.clone()),
                password: Some(password.clone()),
                token: None,
            },
            _ => Login {
                token: setup.token.clone(),
                ..Login::default()
            },
        };
        let numbered = (1..).zip(&setup.servers);
        let servers: Result<Vec<_>, _> = numbered
            .map(|(number, url)| {
                let wrong = |reason| BusError::NatsUrl {
                    key: SERVERS,
                    number,
                    reason,
                };
                Server::new(url, &login).map_err(wrong)
            })
            .collect();
        let servers = servers?;
        if servers.is_empty() {
            return Err(BusError::NoServers { key: SERVERS });
        }
        let tls = &setup.tls;
        let files = [&tls.ca_path, &tls.cert_path, &tls.key_path];
        let is_tls = |server: &Server| server.url.tls_required();
        if setup.tls_required || files.iter().any(|it| it.is_some()) || servers.iter().any(is_tls) {
            // The crate reads them again for each connection; what is wrong now is told now.
            TlsClient::read(tls)?;
        }
        let connect_within = match servers.len() {
            1 => setup.connect_within,
            _ => setup.connect_within.min(CONNECT_WITHIN),
        };
        Ok(Self {
            servers,
            tls_required: setup.tls_required,
            tls: setup.tls.clone(),
            connect_within,
        })
    }

    /// With what TLS needs, where a server or we ask for it.
    pub(super) fn secured(&self, options: ConnectOptions) -> ConnectOptions {
        let TlsFiles {
            ca_path,
            cert_path,
            key_path,
            ..
        } = &self.tls;
        let mut options = options.require_tls(self.tls_required);
        if let Some(ca) = ca_path {
            options = options.add_root_certificates(ca.into());
        }
        if let (Some(cert), Some(key)) = (cert_path, key_path) {
            options = options.add_client_certificate(cert.into(), key.into());
        }
        options
    }

    pub(super) const fn tls_words(&self) -> TlsWords {
        self.tls.words()
    }

    /// Numbers of all servers in the order in which to try them.
    pub(super) fn round(&self, lost: Option<usize>) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.servers.len()).collect();
        for end in (1..order.len()).rev() {
            // Without chance the order is no less good for one node.
            let chance = getrandom::u32().unwrap_or_default() as usize;
            order.swap(end, chance % (end + 1));
        }
        order.sort_by_key(|number| Some(*number) == lost);
        order
    }

    pub(super) fn count(&self) -> usize {
        self.servers.len()
    }

    pub(super) fn server(&self, number: usize) -> &Server {
        self.servers
            .get(number)
            .expect("a number below their count")
    }
}

impl Server {
    fn new(url: &Secret, login: &Login) -> Result<Self, &'static str> {
        let text = url.expose();
        let scheme = text.split_once("://").map(|(scheme, _)| scheme);
        match scheme {
            None | Some("nats" | "tls") => {}
            Some(_) => return Err(FORM),
        }
        // The crate's own reason might quote the URL.
        let url: ServerAddr = text.parse().map_err(|_| FORM)?;
        let host = url.host();
        if host.is_empty() {
            return Err(FORM);
        }
        let address = match host.contains(':') {
            true => format!("[{host}]:{}", url.port()),
            false => format!("{host}:{}", url.port()),
        };
        let decoded = |text: &str| {
            let text = String::from_utf8(decode_percent(text));
            text.map_err(|_| "its user or password is no UTF-8")
        };
        let own = match (url.username(), url.password()) {
            (None, _) => None,
            (Some(username), Some(password)) => Some(Login {
                username: Some(decoded(username)?),
                password: Some(Secret::new(decoded(password)?)),
                token: None,
            }),
            // As all clients of NATS read it.
            (Some(token), None) => Some(Login {
                token: Some(Secret::new(decoded(token)?)),
                ..Login::default()
            }),
        };
        Ok(Self {
            address,
            is_named_in_url: own.is_some(),
            login: own.unwrap_or_else(|| login.clone()),
            url,
        })
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// The key to look at when we are not let in.
    pub(super) const fn login_keys(&self) -> &'static str {
        match self.is_named_in_url {
            true => "the user and password in adapter.nats.servers",
            false => "adapter.nats.username and adapter.nats.password, or adapter.nats.token",
        }
    }

    pub(super) const fn has_login(&self) -> bool {
        self.login.username.is_some() || self.login.token.is_some()
    }

    pub(super) fn auth(&self) -> Auth {
        let exposed = |secret: &Option<Secret>| secret.as_ref().map(|it| it.expose().to_owned());
        let mut auth = Auth::new();
        auth.username = self.login.username.clone();
        auth.password = exposed(&self.login.password);
        auth.token = exposed(&self.login.token);
        auth
    }

    /// Whether the text holds a secret.
    pub(super) fn is_leaked_by(&self, text: &str) -> bool {
        let secrets = [&self.login.password, &self.login.token];
        let mut secrets = secrets.into_iter().flatten().map(Secret::expose);
        secrets.any(|secret| !secret.is_empty() && text.contains(secret))
    }
}

const SERVERS: &str = "adapter.nats.servers";
const FORM: &str = "wants nats://[user:password@]host[:port], or tls://";
/// Where there is another server to try.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);
