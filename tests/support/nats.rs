//! Servers of NATS of the tests' own, which may be stopped, killed and started again.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use crate::certificates::Certificates;
use crate::gate::Gate;

/// A running server. Dropping it kills the process.
pub(crate) struct Nats {
    child: Child,
    pub(crate) address: SocketAddr,
    folder: tempfile::TempDir,
    /// What its configuration always says.
    fixed: String,
}

static NEXT_PORT: AtomicU16 = AtomicU16::new(8_001);

impl Nats {
    /// `None` where the machine has no NATS.
    pub(crate) fn start() -> Option<Self> {
        Self::start_with("")
    }

    /// With more lines in its configuration.
    pub(crate) fn start_with(lines: &str) -> Option<Self> {
        let address = next_address();
        Self::start_fixed(address, String::new(), lines)
    }

    /// One that speaks TLS, with the certificate of that name, to clients who show one.
    pub(crate) fn start_with_tls(certificates: &Certificates, name: &str) -> Option<Self> {
        Self::start_with(&format!(
            "tls {{ cert_file: {:?}, key_file: {:?}, ca_file: {:?}, verify: true }}",
            certificates.certificate(name),
            certificates.key(name),
            certificates.certificate("ca")
        ))
    }

    /// Servers that are one cluster.
    pub(crate) fn start_cluster<const COUNT: usize>() -> Option<[Self; COUNT]> {
        let all: [[SocketAddr; 2]; COUNT] =
            std::array::from_fn(|_| [next_address(), next_address()]);
        let routes = all
            .map(|[_, route]| format!("\"nats-route://{route}\""))
            .join(", ");
        let start = |[address, route]: [SocketAddr; 2]| {
            let cluster =
                format!("cluster {{ name: test, listen: \"{route}\", routes: [{routes}] }}\n");
            Self::start_fixed(address, cluster, "")
        };
        let servers: Option<Vec<Self>> = all.into_iter().map(start).collect();
        servers?.try_into().ok()
    }

    /// Two servers that are one cluster by way of a gate.
    pub(crate) fn start_pair() -> Option<([Self; 2], Gate)> {
        let [near, far, near_route, far_route, gate] = [(); 5].map(|()| next_address());
        let cluster = |own: SocketAddr, routes: &str| {
            format!("cluster {{ name: test, listen: \"{own}\", routes: [{routes}] }}\n")
        };
        let near = Self::start_fixed(near, cluster(near_route, ""), "")?;
        let through = Gate::open(gate, near_route);
        let routes = format!("\"nats-route://{gate}\"");
        let far = Self::start_fixed(far, cluster(far_route, &routes), "")?;
        Some(([near, far], through))
    }

    fn start_fixed(address: SocketAddr, more: String, lines: &str) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let fixed = format!("listen: \"{address}\"\nserver_name: \"{address}\"\n{more}");
        configure(folder.path(), &fixed, lines);
        let child = spawn(folder.path())?;
        let server = Self {
            child,
            address,
            folder,
            fixed,
        };
        server.wait();
        Some(server)
    }

    fn wait(&self) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.connect().is_err() {
            assert!(Instant::now() < deadline, "NATS does not start");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// As `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it was ours");
    }

    /// After `kill`: another one on the same port, which knows nothing of the first.
    pub(crate) fn start_again(&mut self) {
        self.child = spawn(self.folder.path()).expect("it was there a moment ago");
        self.wait();
    }

    /// Other lines in its configuration, from now on.
    pub(crate) fn configure(&self, lines: &str) {
        configure(self.folder.path(), &self.fixed, lines);
        self.signal("HUP");
    }

    /// `STOP`, `CONT` or `HUP`.
    pub(crate) fn signal(&self, signal: &str) {
        crate::signal::signal(signal, &[self.child.id()]);
    }

    /// Publishes as a stranger without a login.
    pub(crate) fn publish(&self, subject: &str, bytes: &[u8]) {
        let mut stream = self.connect().expect("it runs");
        let head = format!(
            "CONNECT {{\"verbose\":false}}\r\nPUB {subject} {}\r\n",
            bytes.len()
        );
        let request = [head.as_bytes(), bytes, b"\r\nPING\r\n"].concat();
        stream.get_mut().write_all(&request).expect("it reads");
        let mut line = String::new();
        stream.read_line(&mut line).expect("it answers");
        assert_eq!(line, "PONG\r\n");
    }

    /// After its first line.
    fn connect(&self) -> std::io::Result<BufReader<TcpStream>> {
        let stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        stream.read_line(&mut line)?;
        match line.starts_with("INFO ") {
            true => Ok(stream),
            false => Err(std::io::ErrorKind::InvalidData.into()),
        }
    }
}

/// Each process has a loopback address of its own, so that no two tests share a port.
fn next_address() -> SocketAddr {
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    let host = Ipv4Addr::new(127, 64 + high % 128, middle, low);
    (host, NEXT_PORT.fetch_add(1, Ordering::Relaxed)).into()
}

fn configure(folder: &Path, fixed: &str, lines: &str) {
    let path = folder.join("nats.conf");
    std::fs::write(path, format!("{fixed}{lines}\n")).expect("a configuration");
}

fn spawn(folder: &Path) -> Option<Child> {
    let log = std::fs::File::create(folder.join("nats.log")).expect("a log");
    let mut command = Command::new("nats-server");
    command
        .arg("--config")
        .arg(folder.join("nats.conf"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    command.spawn().ok()
}

impl Drop for Nats {
    fn drop(&mut self) {
        // Both fail only for a process that is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
