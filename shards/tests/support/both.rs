//! A server's TLS, and clients that trust it.
//!
//! Owns: `Both`, `secure`.
//! May depend on: shards, rustls, tests/support.
//! Invariants: clients trust this server's authority and no other.

#![allow(dead_code, reason = "each test file uses a part of it")]

use crate::{
    certificates::Certificates,
    support::{config, connect},
};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, StreamOwned, SupportedCipherSuite,
    SupportedProtocolVersion,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
    version::{TLS12, TLS13},
};
use shards::{Config, TlsPort, Work};
use std::{
    net::{Ipv4Addr, SocketAddr, TcpStream},
    sync::Arc,
};

pub(crate) const NOT_TLS: &[u8] = b"speak TLS";

/// A server's TLS, and clients that trust it.
pub(crate) struct Both {
    pub(crate) port: TlsPort,
    roots: RootCertStore,
}

impl Both {
    /// `None` without openssl.
    pub(crate) fn make() -> Option<Self> {
        Self::with(aws_lc_rs::default_provider())
    }

    /// The server has this provider.
    pub(crate) fn with(of_server: CryptoProvider) -> Option<Self> {
        let files = Certificates::make(Ipv4Addr::LOCALHOST.into())?;
        let certificate = |name: &str| {
            CertificateDer::from_pem_file(files.certificate(name)).expect("a certificate")
        };
        let key = PrivateKeyDer::from_pem_file(files.key("server")).expect("a key");
        let config = ServerConfig::builder_with_provider(Arc::new(of_server));
        let config = config.with_safe_default_protocol_versions().expect("both");
        let config = config.with_no_client_auth();
        let mut config = config
            .with_single_cert(vec![certificate("server")], key)
            .expect("they belong together");
        config.enable_secret_extraction = true;
        config.ticketer = aws_lc_rs::Ticketer::new().expect("random numbers");
        let mut roots = RootCertStore::empty();
        roots.add(certificate("ca")).expect("an authority");
        Some(Self {
            port: TlsPort {
                config: Arc::new(config),
                handshake: Work(130_000),
                not_tls: NOT_TLS,
            },
            roots,
        })
    }

    /// Clients that know one version, and only suites that are called so.
    pub(crate) fn clients(
        &self,
        version: &'static SupportedProtocolVersion,
        suites: &str,
    ) -> Arc<ClientConfig> {
        let mut provider = aws_lc_rs::default_provider();
        let is_called_so = |suite: &SupportedCipherSuite| {
            let name = format!("{:?}", suite.suite());
            name.contains(suites)
        };
        provider.cipher_suites.retain(is_called_so);
        let config = ClientConfig::builder_with_provider(Arc::new(provider));
        let config = config.with_protocol_versions(&[version]);
        let config = config.expect("it is known");
        let config = config.with_root_certificates(self.roots.clone());
        Arc::new(config.with_no_client_auth())
    }

    pub(crate) fn all(&self) -> [Arc<ClientConfig>; 2] {
        [&TLS13, &TLS12].map(|version| self.clients(version, ""))
    }

    pub(crate) fn config(&self, shards: u16) -> Config {
        Config {
            tls: Some(self.port.clone()),
            ..config(shards)
        }
    }
}

pub(crate) type Stream = StreamOwned<ClientConnection, TcpStream>;

pub(crate) fn secure(address: SocketAddr, clients: &Arc<ClientConfig>) -> Stream {
    let name = ServerName::from(address.ip());
    let client = ClientConnection::new(Arc::clone(clients), name).expect("a client");
    StreamOwned::new(client, connect(address))
}
