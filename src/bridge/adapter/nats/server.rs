//! Where the servers of NATS are, and who we are there.
//!
//! Owns: `Servers`, `Server`.
//! May depend on: `adapter::BusError`, `nats::{login, login_file}`, `bridge::tls`, `config::secret`, `protocol::query`, the
//! crate `async-nats`.
//! Invariants: every server that is named is tried, in another order each time, the one that was just
//! lost last; nothing here prints a secret.

use std::{sync::Arc, time::Duration};

use async_nats::{ConnectOptions, ServerAddr};

use super::{
    super::BusError,
    NatsSetup,
    login::Login,
    login_file::{FileKind, LoginFile},
};
use crate::{
    bridge::tls::{TlsClient, TlsFiles, TlsWords},
    config::{Secret, secret::masked_text},
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
    source: Source,
}

/// What says who we are.
#[derive(Clone)]
enum Source {
    /// The server's own URL.
    Url(Login),
    /// Keys of the configuration.
    Keys(Login),
    /// A file that one of them names.
    File(Arc<LoginFile>),
}

impl Source {
    fn new(setup: &NatsSetup) -> Result<Self, BusError> {
        for (kind, path) in [
            (FileKind::Creds, &setup.creds_file),
            (FileKind::Nkey, &setup.nkey_seed_file),
        ] {
            if let Some(path) = path {
                let file = LoginFile::open(kind, path)?;
                return Ok(Self::File(Arc::new(file)));
            }
        }
        let login = match (&setup.username, &setup.password, &setup.token) {
            (Some(username), Some(password), _) => Login::User {
                username: username.clone(),
                password: password.clone(),
            },
            (_, _, Some(token)) => Login::Token(token.clone()),
            (_, _, None) => Login::Nobody,
        };
        Ok(Self::Keys(login))
    }
}

impl Servers {
    pub(super) fn new(setup: &NatsSetup) -> Result<Self, BusError> {
        let source = Source::new(setup)?;
        let servers = setup.servers.iter();
        let servers: Result<Vec<_>, _> = servers
            .map(|url| {
                let wrong = |reason| BusError::NatsUrl {
                    key: SERVERS,
                    shown: masked_text(url.expose()),
                    reason,
                };
                Server::new(url, &source).map_err(wrong)
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
    fn new(url: &Secret, source: &Source) -> Result<Self, &'static str> {
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
            (Some(username), Some(password)) => Some(Login::User {
                username: decoded(username)?,
                password: Secret::new(decoded(password)?),
            }),
            // As all clients of NATS read it.
            (Some(token), None) => Some(Login::Token(Secret::new(decoded(token)?))),
        };
        Ok(Self {
            address,
            source: own.map_or_else(|| source.clone(), Source::Url),
            url,
        })
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// The key to look at when we are not let in.
    pub(super) fn login_keys(&self) -> &'static str {
        match &self.source {
            Source::Url(_) => "the user and password in adapter.nats.servers",
            Source::Keys(_) => {
                "adapter.nats.username and adapter.nats.password, or adapter.nats.token"
            }
            Source::File(file) => file.kind.key(),
        }
    }

    /// For one attempt to connect. A file is read again.
    pub(super) async fn login(&self) -> Login {
        match &self.source {
            Source::Url(login) | Source::Keys(login) => login.clone(),
            Source::File(file) => Login::Signed(file.renewed().await),
        }
    }

    /// Whether the text holds a secret.
    pub(super) fn is_leaked_by(&self, text: &str) -> bool {
        match &self.source {
            Source::Url(login) | Source::Keys(login) => login.is_leaked_by(text),
            Source::File(file) => Login::Signed(file.identity()).is_leaked_by(text),
        }
    }
}

const SERVERS: &str = "adapter.nats.servers";
const FORM: &str = "wants nats://[user:password@]host[:port], or tls://";
/// Where there is another server to try.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);
