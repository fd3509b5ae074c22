//! TLS on the client's side: whom it trusts, and whether it resumes sessions.
//!
//! Owns: the client's configuration; tickets that were given and not yet used.
//! May depend on: rustls.
//! Invariants: nobody is trusted but the certificates that were named; a ticket is used once, the newest
//! first, and at most `TICKETS_MAX` are kept.

use std::{
    collections::VecDeque,
    fmt,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rustls::{
    ClientConfig, ClientConnection, NamedGroup, RootCertStore,
    client::{ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue},
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use thiserror::Error;

/// How a server is spoken to: the name that its certificate must have, and who vouches for that.
#[derive(Clone, Debug)]
pub struct Tls {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    pub(crate) resumes: bool,
}

#[derive(Debug, Error)]
pub enum TlsError {
    #[error("{0:?} is no name that a certificate can have")]
    Name(String),
    #[error("{0}")]
    Pem(#[from] rustls::pki_types::pem::Error),
    #[error("it holds no certificate in PEM")]
    NoCertificate,
    #[error("{0}")]
    Refused(#[from] rustls::Error),
}

impl Tls {
    /// Each connection shakes hands in full.
    pub fn to(host: &str, trusted_pem: &[u8]) -> Result<Self, TlsError> {
        let unnamed = |_| TlsError::Name(host.to_owned());
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let name = match bare.parse::<IpAddr>() {
            Ok(address) => ServerName::from(address),
            Err(_) => ServerName::try_from(host.to_owned()).map_err(unnamed)?,
        };
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(trusted_pem) {
            roots.add(certificate?)?;
        }
        if roots.is_empty() {
            return Err(TlsError::NoCertificate);
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.resumption = Resumption::disabled();
        Ok(Self {
            config: Arc::new(config),
            name,
            resumes: false,
        })
    }

    /// The same, but a connection resumes where the server gave an earlier one a ticket.
    pub fn resuming(&self) -> Self {
        let mut config = ClientConfig::clone(&self.config);
        config.resumption = Resumption::store(Arc::new(Tickets::default()));
        Self {
            config: Arc::new(config),
            name: self.name.clone(),
            resumes: true,
        }
    }

    /// A client that has not said anything yet.
    pub(crate) fn begin(&self) -> ClientConnection {
        ClientConnection::new(Arc::clone(&self.config), self.name.clone())
            .expect("the configuration has a suite and a group")
    }
}

/// As many as are under way at once in the largest load, twice: servers give two.
const TICKETS_MAX: usize = 10_000;

/// Tickets of TLS 1.3; rustls' own store keeps eight of a server, which a crowd has used up at once.
#[derive(Default)]
struct Tickets(Mutex<VecDeque<Tls13ClientSessionValue>>);

impl Tickets {
    fn all(&self) -> MutexGuard<'_, VecDeque<Tls13ClientSessionValue>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} tickets", self.all().len())
    }
}

impl ClientSessionStore for Tickets {
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, _: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        let mut all = self.all();
        all.push_back(ticket);
        if all.len() > TICKETS_MAX {
            all.pop_front();
        }
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.all().pop_back()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address_and_nothing_else() {
        for (host, is_taken) in [
            ("127.0.0.1", true),
            ("[::1]", true),
            ("sockudo.test", true),
            ("", false),
            ("not a name", false),
        ] {
            let refused = matches!(Tls::to(host, b""), Err(TlsError::Name(_)));
            assert_eq!(refused, !is_taken, "{host}");
        }
    }

    #[test]
    fn who_trusts_nobody_is_told_so() {
        for pem in [&b""[..], b"no certificate"] {
            let told = Tls::to("sockudo.test", pem);
            assert!(matches!(told, Err(TlsError::NoCertificate)));
        }
    }
}
