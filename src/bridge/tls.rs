//! TLS towards servers whose client we are: whom we trust, who we are, what a failure means.
//!
//! Owns: `TlsFiles`, `TlsKeys`, `TlsClient`; `TlsError` (files that cannot be used), `Failure` (no connection), `TlsWords`
//! (what that means).
//! May depend on: rustls, the system's roots, tokio.
//! Invariants: a certificate and its name are verified always; a sentence names the key and what to do,
//! and no private key stands in one.

use std::{error::Error, io, sync::Arc, time::Duration};

use rustls::{
    AlertDescription, CertificateError, ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// The keys that an operator would change, by what is wrong.
#[derive(Clone, Copy, Debug)]
pub struct TlsKeys {
    pub ca: &'static str,
    pub cert: &'static str,
    pub key: &'static str,
    /// How to go without TLS.
    plain: &'static str,
}

impl TlsKeys {
    pub const REDIS: Self = Self {
        ca: "database.redis.tls.ca_path",
        cert: "database.redis.tls.cert_path",
        key: "database.redis.tls.key_path",
        plain: "redis://, or database.redis.tls.enabled and database.redis.cluster.use_tls = false",
    };
    /// No file is named for it: the system's authorities count.
    pub const WEBHOOKS: Self = Self {
        ca: "the system's certificate authorities",
        cert: "",
        key: "",
        plain: "http:// in the webhook's url",
    };
    pub const NATS: Self = Self {
        ca: "adapter.nats.tls.ca_path",
        cert: "adapter.nats.tls.cert_path",
        key: "adapter.nats.tls.key_path",
        plain: "nats:// and adapter.nats.tls.required = false",
    };
    pub const POSTGRES: Self = Self {
        ca: "database.postgres.tls.ca_path",
        cert: "database.postgres.tls.cert_path",
        key: "database.postgres.tls.key_path",
        plain: "database.postgres.tls.enabled = false",
    };
}

/// What the configuration says. Files are PEM.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    pub keys: TlsKeys,
    /// Whom to trust instead of the system's authorities.
    pub ca_path: Option<String>,
    /// Who we are, where a server asks.
    pub cert_path: Option<String>,
    pub key_path: Option<String>,
}

impl TlsFiles {
    pub const fn none(keys: TlsKeys) -> Self {
        Self {
            keys,
            ca_path: None,
            cert_path: None,
            key_path: None,
        }
    }

    pub const fn words(&self) -> TlsWords {
        TlsWords {
            keys: self.keys,
            has_ca: self.ca_path.is_some(),
            has_cert: self.cert_path.is_some(),
        }
    }
}

/// Files that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{key} = {path:?}: {reason}")]
    File {
        key: &'static str,
        path: String,
        reason: String,
        /// Why it could not be read; `None` where what it holds is wrong.
        unread: Option<io::ErrorKind>,
    },
    #[error("{set} is set and {unset} is not: a client certificate wants both")]
    Half {
        set: &'static str,
        unset: &'static str,
    },
    #[error("{cert} and {key} do not belong together: {reason}")]
    Pair {
        cert: &'static str,
        key: &'static str,
        reason: rustls::Error,
    },
    #[error(
        "TLS, and this system knows no certificate authority ({reason}): install its package \
         ca-certificates, or set {ca}"
    )]
    NoRoots { ca: &'static str, reason: String },
}

impl TlsError {
    /// The key with which its sentence begins, or that would mend it.
    pub const fn key(&self) -> &'static str {
        match self {
            Self::File { key, .. } => key,
            Self::Half { set, .. } => set,
            Self::Pair { cert, .. } => cert,
            Self::NoRoots { ca, .. } => ca,
        }
    }

    /// This user may not read a file: whether the server can use it is not known.
    pub fn is_forbidden(&self) -> bool {
        let forbidden = Some(io::ErrorKind::PermissionDenied);
        matches!(self, Self::File { unread, .. } if *unread == forbidden)
    }
}

/// What connections are made with.
#[derive(Clone, Debug)]
pub struct TlsClient {
    config: Arc<ClientConfig>,
    pub words: TlsWords,
}

/// What to say of servers that TLS does not reach.
#[derive(Clone, Copy, Debug)]
pub struct TlsWords {
    keys: TlsKeys,
    has_ca: bool,
    has_cert: bool,
}

/// Why there is no connection.
#[derive(Debug)]
pub enum Failure {
    /// Of the host's name or of TCP.
    Unreachable(io::Error),
    Unanswered,
    Handshake(io::Error),
    /// TCP stands, and nobody says anything there.
    Mute,
}

impl TlsClient {
    /// # Errors
    /// When a file is missing or is not what it should be.
    pub fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        let keys = files.keys;
        let roots = match &files.ca_path {
            Some(path) => read_roots(keys.ca, path)?,
            None => system_roots(keys.ca)?,
        };
        let config = ClientConfig::builder().with_root_certificates(roots);
        let config = match (&files.cert_path, &files.key_path) {
            (None, None) => config.with_no_client_auth(),
            (Some(cert), Some(key)) => {
                let chain = read_certificates(keys.cert, cert)?;
                let key = read_key(keys.key, key)?;
                let wrong = |reason| TlsError::Pair {
                    cert: keys.cert,
                    key: keys.key,
                    reason,
                };
                config.with_client_auth_cert(chain, key).map_err(wrong)?
            }
            (Some(_), None) => {
                let (set, unset) = (keys.cert, keys.key);
                return Err(TlsError::Half { set, unset });
            }
            (None, Some(_)) => {
                let (set, unset) = (keys.key, keys.cert);
                return Err(TlsError::Half { set, unset });
            }
        };
        Ok(Self {
            config: Arc::new(config),
            words: files.words(),
        })
    }

    /// Makes a connection, or gives up after that time.
    ///
    /// # Errors
    /// When there is none by then.
    pub async fn connect(
        &self,
        host: &str,
        port: u16,
        within: Duration,
    ) -> Result<TlsStream<TcpStream>, Failure> {
        let until = Instant::now() + within;
        let stream = timeout_at(until, TcpStream::connect((host, port))).await;
        let stream = stream.map_err(|_| Failure::Unanswered)?;
        let stream = stream.map_err(Failure::Unreachable)?;
        stream.set_nodelay(true).map_err(Failure::Unreachable)?;
        let stream = timeout_at(until, self.over(host, stream)).await;
        stream.map_err(|_| Failure::Mute)?
    }

    /// Makes TLS of a connection that stands, however long the server takes.
    ///
    /// # Errors
    /// When the server does not take part, or is not whom we trust.
    pub async fn over(
        &self,
        host: &str,
        stream: TcpStream,
    ) -> Result<TlsStream<TcpStream>, Failure> {
        let name = ServerName::try_from(host.to_owned());
        let name = name.map_err(|error| Failure::Unreachable(io::Error::other(error)))?;
        let connector = TlsConnector::from(Arc::clone(&self.config));
        let stream = connector.connect(name, stream).await;
        stream.map_err(Failure::Handshake)
    }
}

impl TlsWords {
    /// What a failure says of the server, and what to do. It follows the server's name.
    pub fn meaning(&self, failure: &Failure) -> Option<String> {
        match failure {
            Failure::Unreachable(_) | Failure::Unanswered => None,
            Failure::Mute => Some(format!(
                "does not answer to TLS: if it speaks none there, set {}",
                self.keys.plain
            )),
            Failure::Handshake(error) => Some(self.meaning_of(error).unwrap_or_else(|| {
                format!(
                    "ends the connection when TLS begins: if it speaks none there, set {}",
                    self.keys.plain
                )
            })),
        }
    }

    /// The same of an error that may come from TLS, such as one that is read later.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "what we have no words for is told in those of the crate"
    )]
    pub fn meaning_of(&self, error: &(dyn Error + 'static)) -> Option<String> {
        let keys = self.keys;
        Some(match tls_error(error)? {
            rustls::Error::InvalidCertificate(error) => self.certificate_meaning(error),
            rustls::Error::InvalidMessage(_) => {
                format!("speaks no TLS on this port: set {}", keys.plain)
            }
            rustls::Error::AlertReceived(alert) => self.alert_meaning(*alert),
            other => format!("and we agree on no TLS: {other}"),
        })
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "what we have no words for is told in those of the crate"
    )]
    fn certificate_meaning(&self, error: &CertificateError) -> String {
        use CertificateError as Wrong;
        let ca = self.keys.ca;
        match error {
            Wrong::UnknownIssuer if self.has_ca => {
                format!("shows a certificate that is of no CA in the file of {ca}")
            }
            Wrong::UnknownIssuer => format!(
                "shows a certificate of a CA that this system does not know: set {ca} to a file \
                 with that CA's certificate"
            ),
            Wrong::NotValidForName | Wrong::NotValidForNameContext { .. } => format!(
                "shows a certificate for another name ({error}): connect by a name that stands in \
                 it, or add this one to its subjectAltName"
            ),
            Wrong::Expired
            | Wrong::ExpiredContext { .. }
            | Wrong::NotValidYet
            | Wrong::NotValidYetContext { .. } => {
                format!("shows a certificate that is not valid now: {error}")
            }
            other if other.to_string().contains("CaUsedAsEndEntity") => format!(
                "shows the certificate of a CA as its own: give it one that the CA has signed, and \
                 set {ca} to the CA's"
            ),
            other => format!("shows a certificate that we cannot accept: {other}"),
        }
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "what we have no words for is told in those of the crate"
    )]
    fn alert_meaning(&self, alert: AlertDescription) -> String {
        use AlertDescription as Alert;
        let TlsKeys { cert, key, .. } = self.keys;
        let wants = format!("wants a client certificate: set {cert} and {key}");
        match alert {
            Alert::CertificateRequired | Alert::NoCertificate => wants,
            // Before TLS 1.3 a server says no more when it was shown none.
            Alert::BadCertificate | Alert::HandshakeFailure if !self.has_cert => wants,
            Alert::BadCertificate
            | Alert::UnknownCA
            | Alert::CertificateUnknown
            | Alert::CertificateExpired
            | Alert::CertificateRevoked
            | Alert::UnsupportedCertificate
            | Alert::AccessDenied => {
                format!("refuses our client certificate ({alert:?}): look at {cert} and {key}")
            }
            other => format!("ends the connection when TLS begins: {other:?}"),
        }
    }
}

/// TLS did not come to be, or was ended for what one side thinks of the other.
pub fn is_of_tls(error: &(dyn Error + 'static)) -> bool {
    tls_error(error).is_some()
}

/// An error of TLS says it is one of input and output.
fn tls_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let mut error = Some(error);
    while let Some(outer) = error {
        if let Some(found) = outer.downcast_ref() {
            return Some(found);
        }
        // As the crate `redis` holds them: the source of this is that of what it holds.
        if let Some(held) = outer.downcast_ref::<Arc<dyn Error + Send + Sync>>() {
            error = Some(&**held);
            continue;
        }
        error = match outer.downcast_ref::<io::Error>().map(io::Error::get_ref) {
            Some(inner) => inner.map(|inner| inner as &'a (dyn Error + 'static)),
            None => outer.source(),
        };
    }
    None
}

fn read(key: &'static str, path: &str) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|error| unread(key, path, &error))
}

pub(super) fn unread(key: &'static str, path: &str, error: &io::Error) -> TlsError {
    TlsError::File {
        key,
        path: path.to_owned(),
        reason: format!("cannot be read: {error}"),
        unread: Some(error.kind()),
    }
}

pub(super) fn file(key: &'static str, path: &str, reason: &str) -> TlsError {
    TlsError::File {
        key,
        path: path.to_owned(),
        reason: reason.to_owned(),
        unread: None,
    }
}

pub(super) fn read_certificates(
    key: &'static str,
    path: &str,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(key, path)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        Ok(_) | Err(_) => Err(file(key, path, "holds no certificate in PEM")),
    }
}

pub(super) fn read_roots(key: &'static str, path: &str) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in read_certificates(key, path)? {
        let added = roots.add(certificate);
        added.map_err(|error| file(key, path, &format!("is no CA's certificate: {error}")))?;
    }
    Ok(roots)
}

pub(super) fn read_key(key: &'static str, path: &str) -> Result<PrivateKeyDer<'static>, TlsError> {
    let text = read(key, path)?;
    // Else it is only said that there is none.
    if String::from_utf8_lossy(&text).contains("ENCRYPTED") {
        let reason = "the key is encrypted: wants it without a password";
        return Err(file(key, path, reason));
    }
    let wrong = |_| file(key, path, "holds no private key in PEM");
    PrivateKeyDer::from_pem_slice(&text).map_err(wrong)
}

fn system_roots(ca: &'static str) -> Result<RootCertStore, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (known, _strange) = roots.add_parsable_certificates(found.certs);
    if known == 0 {
        let reason = found.errors.first().map(ToString::to_string);
        let reason = reason.unwrap_or_else(|| "none is installed".to_owned());
        return Err(TlsError::NoRoots { ca, reason });
    }
    Ok(roots)
}
