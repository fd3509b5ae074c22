//! A proxy of `examples/load-balancer/` in front of nodes: the very file, with addresses of the tests' own.

use std::fs::File;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::support::eventually;
use crate::support::server::{Server, next_port, own_address};

/// A running proxy. Dropping it ends the process; a failing test prints the end of its log.
pub(crate) struct Proxy {
    child: Child,
    /// Where it speaks without TLS, and with.
    pub(crate) plain: SocketAddr,
    pub(crate) tls: SocketAddr,
    folder: tempfile::TempDir,
}

const NODES: [&str; 2] = ["10.0.0.11:6001", "10.0.0.12:6001"];
const STREAM_MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

/// The text of an example.
pub(crate) fn example(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/load-balancer");
    std::fs::read_to_string(folder.join(name)).expect("the example is there")
}

impl Proxy {
    /// `None` where the machine lacks the program.
    pub(crate) fn start(name: &str, nodes: [&Server; 2]) -> Option<Self> {
        // The machine may allow few open files.
        Self::start_for(name, nodes, 1_000)
    }

    /// The same, for so many clients at once.
    pub(crate) fn start_for(name: &str, nodes: [&Server; 2], clients: usize) -> Option<Self> {
        let program = match name.starts_with("haproxy") {
            true => "/usr/sbin/haproxy",
            false => "/usr/sbin/nginx",
        };
        let is_there = |file: &str| Path::new(file).exists();
        let wants_stream = example(name).contains(STREAM_MODULE);
        if !is_there(program) || (wants_stream && !is_there(STREAM_MODULE)) {
            return None;
        }
        let [plain, tls] = [(); 2].map(|()| SocketAddr::from((own_address(), next_port())));
        let folder = tempfile::tempdir().expect("a temporary folder");
        make_certificate(folder.path())?;
        let at = |file: &str| folder.path().join(file).to_string_lossy().into_owned();
        let mut text = example(name);
        for (from, to) in NODES.into_iter().zip(nodes) {
            text = replaced(&text, from, &to.address.to_string());
        }
        if program.ends_with("haproxy") {
            text = replaced(&text, "bind :443", &format!("bind {tls}"));
            text = replaced(&text, "bind :80", &format!("bind {plain}"));
            let most = format!("maxconn {clients}");
            text = replaced(&text, "maxconn 50000", &most);
            text = replaced(&text, "/etc/haproxy/sockudo.pem", &at("pem"));
        } else {
            text = replaced(&text, "listen 443", &format!("listen {tls}"));
            text = replaced(&text, "listen 80", &format!("listen {plain}"));
            text = replaced(&text, "/etc/nginx/sockudo.crt", &at("crt"));
            text = replaced(&text, "/etc/nginx/sockudo.key", &at("key"));
        }
        std::fs::write(folder.path().join(name), text).expect("it can be written");
        let mut command = Command::new(program);
        if program.ends_with("haproxy") {
            command.args(["-db", "-f", &at(name)]);
        } else {
            let own = format!("daemon off; pid {};", at("pid"));
            command.args(["-c", &at(name), "-p", &at(""), "-e", &at("log"), "-g", &own]);
        }
        let log = File::options()
            .append(true)
            .create(true)
            .open(folder.path().join("log"));
        let log = log.expect("a log");
        let child = command
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("its descriptor can be copied"))
            .stderr(log)
            .spawn()
            .ok()?;
        let proxy = Self {
            child,
            plain,
            tls,
            folder,
        };
        eventually("the proxy to listen", || {
            TcpStream::connect(proxy.plain).ok()
        });
        Some(proxy)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

/// The example says it once; whoever changes the words there finds them here.
#[track_caller]
fn replaced(text: &str, from: &str, to: &str) -> String {
    assert_eq!(text.matches(from).count(), 1, "{from}");
    text.replace(from, to)
}

/// For an hour's tests; `None` without openssl.
fn make_certificate(folder: &Path) -> Option<()> {
    let [key, crt, pem]: [PathBuf; 3] = ["key", "crt", "pem"].map(|name| folder.join(name));
    let mut command = Command::new("openssl");
    command.args([
        "req",
        "-x509",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
    ]);
    command.args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]);
    command.arg("-keyout").arg(&key).arg("-out").arg(&crt);
    let output = command.output().ok()?;
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let read = |file: &Path| std::fs::read(file).expect("openssl wrote it");
    std::fs::write(pem, [read(&crt), read(&key)].concat()).expect("it can be written");
    Some(())
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // A killed nginx would leave its workers behind.
        let pid = self.child.id().to_string();
        let _ = Command::new("kill").args(["-s", "TERM", &pid]).status();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            let tail = &lines[lines.len().saturating_sub(40)..];
            eprintln!(
                "--- the end of the proxy's log ---\n{}\n---",
                tail.join("\n")
            );
        }
    }
}
