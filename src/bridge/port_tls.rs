//! TLS on the port: what the node shows of itself, and whom it asks who they are.
//!
//! Owns: `PortTls`: the certificates by name, the clients' authorities, when tickets get a new key; what an
//! operator should know of them.
//! May depend on: rustls, pkcs8 for encrypted keys, `tls` for its files, `tickets`, `config`.
//! Invariants: what cannot be used is refused with its key and a reason, and no private key stands in
//! one; a ticket holds only where clients are asked the same as where it was given.

use std::{fmt, sync::Arc};

use pkcs8::{EncryptedPrivateKeyInfoRef, SecretDocument};
use rustls::{
    ServerConfig, SignatureAlgorithm,
    client::verify_server_name,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime},
    server::{
        ClientHello, NoServerSessionStorage, ParsedCertificate, ResolvesServerCert,
        WebPkiClientVerifier,
    },
    sign::CertifiedKey,
};
use sha2::{Digest as _, Sha256};
use shards::{TlsPort, Work};

use super::{
    certificate_chain,
    tickets::{Asked, TicketKeys},
    tls::{TlsError, read_certificates, read_key, read_roots},
};
use crate::config::{
    Secret,
    sections::{ClientCertificates, Ssl},
};

/// TLS as it is offered now, and what it takes to offer something else.
#[derive(Clone)]
pub struct PortTls {
    pub port: TlsPort,
    tickets: TicketKeys,
    /// They stand in a file: nobody here makes others.
    are_tickets_shared: bool,
    asked: Asked,
    /// What looks wrong with files that can be used.
    doubts: Vec<Doubt>,
}

/// What looks wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doubt {
    /// Whose file it is.
    pub key: &'static str,
    /// With the file's path.
    pub text: String,
}

/// Files that cannot be used, or a library that cannot start.
#[derive(Debug, thiserror::Error)]
pub enum PortTlsError {
    #[error(transparent)]
    File(#[from] TlsError),
    #[error("{key} = {path:?}: {reason}")]
    Unusable {
        key: &'static str,
        path: String,
        reason: String,
    },
    #[error(
        "ssl.extra_cert_paths has {certs} and ssl.extra_key_paths {keys}: each certificate wants its key, in the same order"
    )]
    Uneven { certs: usize, keys: usize },
    #[error("TLS cannot start: {0}")]
    Library(rustls::Error),
    /// A certificate and its key, neither of which can be read.
    #[error("{0}; {1}")]
    Both(TlsError, Box<Self>),
}

impl PortTlsError {
    /// This user may not read a file: whether the server can use it is not known.
    pub fn is_forbidden(&self) -> bool {
        match self {
            Self::File(error) => error.is_forbidden(),
            Self::Both(cert, key) => cert.is_forbidden() && key.is_forbidden(),
            Self::Unusable { .. } | Self::Uneven { .. } | Self::Library(_) => false,
        }
    }
}

impl fmt::Debug for PortTls {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("PortTls").finish_non_exhaustive()
    }
}

impl PortTls {
    /// Reads what the configuration names; `None` without `ssl.enabled`. The keys of tickets are those of
    /// before, be it a reload or another process, so that nobody must begin anew; a file of keys goes first.
    ///
    /// # Errors
    /// When a file is missing or is not what it should be.
    pub fn read(ssl: &Ssl, before: &TicketKeys, now_s: u64) -> Result<Option<Self>, PortTlsError> {
        if !ssl.enabled {
            return Ok(None);
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let certificates = Certificates::read(ssl, &provider)?;
        let doubts = certificates.doubts();
        let handshake = certificates.handshake();
        let (asked, verifier) = read_clients(ssl, &provider)?;
        let builder = ServerConfig::builder_with_provider(provider);
        let builder = builder.with_safe_default_protocol_versions();
        let builder = builder.map_err(PortTlsError::Library)?;
        let builder = match verifier {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::new(certificates));
        let shared = read_tickets(ssl)?;
        let are_tickets_shared = shared.is_some();
        let tickets = match shared {
            Some(shared) => shared,
            None => renewed(before, now_s).map_err(PortTlsError::Library)?,
        };
        let ticketer = tickets.ticketer(asked);
        config.ticketer = ticketer.map_err(PortTlsError::Library)?;
        // Tickets alone: what a server remembers itself would be another shard's.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.enable_secret_extraction = true;
        let port = TlsPort {
            config: Arc::new(config),
            handshake,
            not_tls: NOT_TLS,
        };
        Ok(Some(Self {
            port,
            tickets,
            are_tickets_shared,
            asked,
            doubts,
        }))
    }

    /// The keys of tickets, for whoever goes on where this process ends.
    pub const fn tickets(&self) -> &TicketKeys {
        &self.tickets
    }

    /// Gives tickets another key if it is time to. True if `port` is to be offered anew.
    ///
    /// # Errors
    /// When there are no random numbers; the old key stays.
    pub fn renew_tickets(&mut self, now_s: u64) -> Result<bool, rustls::Error> {
        if self.are_tickets_shared {
            return Ok(false);
        }
        let Some(renewed) = self.tickets.renewed(now_s)? else {
            return Ok(false);
        };
        let mut config = ServerConfig::clone(&self.port.config);
        config.ticketer = renewed.ticketer(self.asked)?;
        self.port.config = Arc::new(config);
        self.tickets = renewed;
        Ok(true)
    }
}

fn renewed(before: &TicketKeys, now_s: u64) -> Result<TicketKeys, rustls::Error> {
    let renewed = before.renewed(now_s)?;
    Ok(renewed.unwrap_or_else(|| before.clone()))
}

fn read_tickets(ssl: &Ssl) -> Result<Option<TicketKeys>, PortTlsError> {
    let path = ssl.ticket_keys_path.as_ref();
    let Some(path) = path.filter(|path| !path.is_empty()) else {
        return Ok(None);
    };
    let keys = TicketKeys::read("ssl.ticket_keys_path", path)?;
    Ok(Some(keys))
}

impl PortTls {
    /// Says what looks wrong.
    pub fn tell_doubts(&self) {
        for Doubt { key, text } in &self.doubts {
            tracing::warn!("{key} = {text}");
        }
    }

    /// What looks wrong, for who checks a configuration; nothing where it cannot be used, which is an error.
    pub fn doubts_of(ssl: &Ssl) -> Vec<Doubt> {
        let read = Self::read(ssl, &TicketKeys::default(), 0);
        let read = read.ok().flatten();
        read.map_or_else(Vec::new, |read| read.doubts)
    }
}

/// What the node can show, the first where no name fits.
#[derive(Debug)]
struct Certificates(Vec<Certificate>);

#[derive(Debug)]
struct Certificate {
    key: &'static str,
    path: String,
    shown: Arc<CertifiedKey>,
}

impl Certificates {
    fn read(ssl: &Ssl, provider: &CryptoProvider) -> Result<Self, PortTlsError> {
        let (certs, keys) = (ssl.extra_cert_paths.len(), ssl.extra_key_paths.len());
        if certs != keys {
            return Err(PortTlsError::Uneven { certs, keys });
        }
        let first = (
            ("ssl.cert_path", &ssl.cert_path),
            ("ssl.key_path", &ssl.key_path),
        );
        let more = ssl.extra_cert_paths.iter().zip(&ssl.extra_key_paths);
        let more =
            more.map(|(cert, key)| (("ssl.extra_cert_paths", cert), ("ssl.extra_key_paths", key)));
        let all = std::iter::once(first).chain(more);
        let all =
            all.map(|(cert, key)| Certificate::read(cert, key, ssl.passphrase.as_ref(), provider));
        all.collect::<Result<_, _>>().map(Self)
    }

    fn doubts(&self) -> Vec<Doubt> {
        self.0.iter().flat_map(Certificate::doubts).collect()
    }

    /// What a handshake costs with the slowest of the keys.
    fn handshake(&self) -> Work {
        let is_rsa = |certificate: &Certificate| {
            certificate.shown.key.algorithm() == SignatureAlgorithm::RSA
        };
        if self.0.iter().any(is_rsa) {
            HANDSHAKE_RSA
        } else {
            HANDSHAKE
        }
    }
}

impl Certificate {
    fn read(
        (key, path): (&'static str, &String),
        (private_key, private_path): (&'static str, &String),
        passphrase: Option<&Secret>,
        provider: &CryptoProvider,
    ) -> Result<Self, PortTlsError> {
        let chain = read_certificates(key, path);
        let private = open_key(private_key, private_path, passphrase);
        let (chain, private) = match (chain, private) {
            (Err(chain), Err(private)) => {
                return Err(PortTlsError::Both(chain, Box::new(private)));
            }
            (chain, private) => (chain?, private?),
        };
        let shown = CertifiedKey::from_der(chain, private, provider);
        let shown = shown.map_err(|error| PortTlsError::Unusable {
            key,
            path: path.clone(),
            reason: format!(
                "does not go with {private_key} = {private_path:?} ({error}): the key's own \
                 certificate comes first in the file, those that vouch for it follow"
            ),
        })?;
        Ok(Self {
            key,
            path: path.clone(),
            shown: Arc::new(shown),
        })
    }

    fn fits(&self, name: &ServerName<'_>) -> bool {
        let own = self.shown.end_entity_cert().ok();
        let own = own.and_then(|own| ParsedCertificate::try_from(own).ok());
        own.is_some_and(|own| verify_server_name(&own, name).is_ok())
    }

    /// What clients will not like.
    fn doubts(&self) -> impl Iterator<Item = Doubt> {
        let doubts = certificate_chain::doubts(&self.shown.cert, UnixTime::now());
        doubts.into_iter().map(|text| Doubt {
            key: self.key,
            text: format!("{:?}: {text}", self.path),
        })
    }
}

/// A private key, in plain or as its passphrase opens it.
fn open_key(
    key: &'static str,
    path: &str,
    passphrase: Option<&Secret>,
) -> Result<PrivateKeyDer<'static>, PortTlsError> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    if !text.contains("ENCRYPTED") {
        return Ok(read_key(key, path)?);
    }
    let unusable = |reason: &str| PortTlsError::Unusable {
        key,
        path: path.to_owned(),
        reason: reason.to_owned(),
    };
    let passphrase = passphrase.filter(|passphrase| !passphrase.expose().is_empty());
    let Some(passphrase) = passphrase else {
        return Err(unusable("the key is encrypted: set ssl.passphrase"));
    };
    let start = text.find("-----BEGIN ENCRYPTED PRIVATE KEY-----");
    let Some(text) = start.and_then(|start| text.get(start..)) else {
        return Err(unusable(
            "the key is encrypted in an old form: `openssl pkcs8 -topk8 -in OLD -out NEW` writes one \
             that can be read",
        ));
    };
    let end = text
        .find(END_OF_KEY)
        .map_or(text.len(), |end| end + END_OF_KEY.len());
    let Ok((_label, sealed)) = SecretDocument::from_pem(text.get(..end).unwrap_or_default()) else {
        return Err(unusable("holds no private key in PEM"));
    };
    let sealed = EncryptedPrivateKeyInfoRef::try_from(sealed.as_bytes());
    let opened = sealed
        .ok()
        .and_then(|sealed| sealed.decrypt(passphrase.expose()).ok());
    let Some(opened) = opened else {
        return Err(unusable("ssl.passphrase does not open the key"));
    };
    let opened = PrivatePkcs8KeyDer::from(opened.as_bytes().to_vec());
    Ok(PrivateKeyDer::Pkcs8(opened))
}

const END_OF_KEY: &str = "-----END ENCRYPTED PRIVATE KEY-----";

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let named = hello.server_name().filter(|_| self.0.len() > 1);
        let named = named.and_then(|name| ServerName::try_from(name).ok());
        let fitting = named.and_then(|name| self.0.iter().find(|one| one.fits(&name)));
        let shown = fitting.or_else(|| self.0.first())?;
        Some(Arc::clone(&shown.shown))
    }
}

type Verifier = Arc<dyn rustls::server::danger::ClientCertVerifier>;

fn read_clients(
    ssl: &Ssl,
    provider: &Arc<CryptoProvider>,
) -> Result<(Asked, Option<Verifier>), PortTlsError> {
    const KEY: &str = "ssl.ca_path";
    let Some(path) = ssl.ca_path.as_ref().filter(|path| !path.is_empty()) else {
        return Ok((Sha256::digest(b"nobody is asked").into(), None));
    };
    let authorities = read_certificates(KEY, path)?;
    let roots = Arc::new(read_roots(KEY, path)?);
    let builder = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(provider));
    let builder = match ssl.client_certificates {
        ClientCertificates::Required => builder,
        ClientCertificates::Optional => builder.allow_unauthenticated(),
    };
    let verifier = builder.build().map_err(|error| PortTlsError::Unusable {
        key: KEY,
        path: path.clone(),
        reason: error.to_string(),
    })?;
    Ok((asked(ssl.client_certificates, &authorities), Some(verifier)))
}

fn asked(rule: ClientCertificates, authorities: &[CertificateDer<'static>]) -> Asked {
    let mut asked = Sha256::new();
    asked.update([u8::from(rule == ClientCertificates::Required)]);
    for authority in authorities {
        asked.update((authority.len() as u64).to_be_bytes());
        asked.update(authority);
    }
    asked.finalize().into()
}

/// A handshake with an ECDSA or Ed25519 key: 128 us with P-256.
const HANDSHAKE: Work = Work(130_000);
/// With an RSA key of 2 048 bits: 770 us.
const HANDSHAKE_RSA: Work = Work(770_000);

/// To whoever speaks HTTP without TLS. A redirect would help no browser's WebSocket.
const NOT_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\n\
    Content-Type: text/plain\r\nContent-Length: 57\r\nConnection: close\r\n\r\n\
    this port speaks TLS only: use https:// or wss:// with it";
