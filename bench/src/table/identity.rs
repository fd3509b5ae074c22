//! The certificate that every subject with TLS shows.
//!
//! Owns: its making, by openssl; the copy that a subject reads.
//! May depend on: tempfile, `tls`.
//! Invariants: all subjects of a run have the same one, of P-256, for 127.0.0.1; it vouches for itself, and is
//! good for two days.

use std::{fs, io, path::Path, process::Command, sync::OnceLock};

use crate::tls::Tls;

/// In PEM.
#[derive(Debug)]
pub struct Identity {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

/// Files in a subject's folder.
pub const CERTIFICATE: &str = "certificate.pem";
pub const KEY: &str = "key.pem";

impl Identity {
    /// Made when it is asked for first.
    pub fn of_this_run() -> io::Result<&'static Self> {
        static MADE: OnceLock<Result<Identity, String>> = OnceLock::new();
        let made = MADE.get_or_init(|| Self::make().map_err(|error| error.to_string()));
        made.as_ref()
            .map_err(|error| io::Error::other(error.as_str()))
    }

    fn make() -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        let (certificate, key) = (folder.path().join(CERTIFICATE), folder.path().join(KEY));
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-x509", "-nodes", "-days", "2", "-subj", "/CN=bench"]);
        openssl.args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]);
        openssl.args(["-addext", "subjectAltName = IP:127.0.0.1"]);
        openssl.args(["-addext", "basicConstraints = critical, CA:FALSE"]);
        openssl.arg("-keyout").arg(&key);
        openssl.arg("-out").arg(&certificate);
        let failed = |reason: &str| {
            let words = "the certificate for TLS could not be made by openssl";
            io::Error::other(format!("{words}: {}", reason.trim()))
        };
        let made = openssl.output();
        let made = made.map_err(|error| failed(&error.to_string()))?;
        if !made.status.success() {
            return Err(failed(&String::from_utf8_lossy(&made.stderr)));
        }
        Ok(Self {
            certificate: fs::read(certificate)?,
            key: fs::read(key)?,
        })
    }

    /// Lays it down in a subject's folder, which is nobody else's; a client that trusts it alone.
    pub fn present(&self, folder: &Path) -> io::Result<Tls> {
        fs::write(folder.join(CERTIFICATE), &self.certificate)?;
        fs::write(folder.join(KEY), &self.key)?;
        Tls::to("127.0.0.1", &self.certificate).map_err(io::Error::other)
    }
}
