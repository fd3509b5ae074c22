//! Certificates for an hour's tests: an authority, a server and a client that it knows, and another authority.

use std::net::IpAddr;
use std::path::Path;
use std::process::Command;

/// Files in PEM. Dropping this removes them.
pub(crate) struct Certificates {
    folder: tempfile::TempDir,
}

impl Certificates {
    /// For a server at that address; `None` without openssl.
    pub(crate) fn make(host: IpAddr) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let settings = format!(
            "[req]\ndistinguished_name = name\n[name]\n\
             [authority]\nbasicConstraints = critical, CA:TRUE\nkeyUsage = critical, keyCertSign\n\
             [own]\nbasicConstraints = critical, CA:FALSE\nsubjectAltName = IP:{host}\n\
             [foreign]\nbasicConstraints = critical, CA:FALSE\nsubjectAltName = DNS:elsewhere.test\n"
        );
        std::fs::write(folder.path().join("settings"), settings).expect("it can be written");
        make(folder.path(), "ca", "authority", None)?;
        make(folder.path(), "other-ca", "authority", None)?;
        for (name, section) in [("server", "own"), ("client", "own"), ("foreign", "foreign")] {
            make(folder.path(), name, section, Some("ca"))?;
        }
        Some(Self { folder })
    }

    /// Of `ca`, `other-ca`, `server`, `client` or `foreign`, which names another host.
    pub(crate) fn certificate(&self, name: &str) -> String {
        self.file(&format!("{name}.crt"))
    }

    pub(crate) fn key(&self, name: &str) -> String {
        self.file(&format!("{name}.key"))
    }

    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).to_string_lossy().into_owned()
    }
}

fn make(folder: &Path, name: &str, section: &str, signer: Option<&str>) -> Option<()> {
    let mut command = Command::new("openssl");
    command.current_dir(folder);
    command.args([
        "req", "-x509", "-nodes", "-days", "2", "-config", "settings",
    ]);
    command.args(["-subj", &format!("/CN={name}"), "-extensions", section]);
    command.args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]);
    command.args([
        "-keyout",
        &format!("{name}.key"),
        "-out",
        &format!("{name}.crt"),
    ]);
    if let Some(signer) = signer {
        command.args(["-CA", &format!("{signer}.crt")]);
        command.args(["-CAkey", &format!("{signer}.key")]);
    }
    let output = command.output().ok()?;
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words}");
    Some(())
}
