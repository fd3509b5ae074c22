//! A Redis server of the tests' own, which may be stopped, killed and started again.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use crate::certificates::Certificates;

/// A running server. Dropping it kills the process.
pub(crate) struct Redis {
    child: Child,
    pub(crate) address: SocketAddr,
    /// Where it speaks TLS too, if it does.
    pub(crate) tls: Option<SocketAddr>,
    /// Of the default user; none: whoever comes may do all.
    password: Option<String>,
    arguments: Vec<String>,
    folder: tempfile::TempDir,
}

static NEXT_PORT: AtomicU16 = AtomicU16::new(7_001);

impl Redis {
    /// `None` where the machine has no Redis.
    pub(crate) fn start() -> Option<Self> {
        Self::start_with_arguments(None, &[])
    }

    /// A server that wants a password.
    pub(crate) fn start_with_password(password: &str) -> Option<Self> {
        Self::start_with_arguments(Some(password), &[])
    }

    pub(crate) fn start_with_arguments(password: Option<&str>, arguments: &[&str]) -> Option<Self> {
        Self::start_as(password, |_| {
            arguments.iter().map(|it| (*it).to_owned()).collect()
        })
    }

    /// One that speaks TLS too, with the certificate of that name, to clients who show one.
    pub(crate) fn start_with_tls(certificates: &Certificates, name: &str) -> Option<Self> {
        Self::start_tls(certificates, name, |_| Vec::new())
    }

    /// One that has replicas, or is one of that master.
    pub(crate) fn start_replicated(master: Option<SocketAddr>) -> Option<Self> {
        Self::start_as(None, |address| {
            let (host, port) = (address.ip().to_string(), address.port().to_string());
            let own = [
                "--replica-announce-ip",
                &host,
                "--replica-announce-port",
                &port,
            ];
            let mut all = own.map(str::to_owned).to_vec();
            if let Some(master) = master {
                let (host, port) = (master.ip().to_string(), master.port().to_string());
                all.extend(["--replicaof".to_owned(), host, port]);
            }
            all
        })
    }

    /// One that may become part of a cluster.
    pub(crate) fn start_in_cluster(arguments: &[&str]) -> Option<Self> {
        Self::start_as(None, |address| in_cluster(address, arguments))
    }

    /// The same over TLS.
    pub(crate) fn start_in_tls_cluster(certificates: &Certificates) -> Option<Self> {
        let arguments = ["--tls-cluster", "yes", "--tls-replication", "yes"];
        Self::start_tls(certificates, "server", |it| in_cluster(it, &arguments))
    }

    fn start_tls(
        certificates: &Certificates,
        name: &str,
        more: impl FnOnce(SocketAddr) -> Vec<String>,
    ) -> Option<Self> {
        let tls = next_address();
        let (port, ca) = (tls.port().to_string(), certificates.certificate("ca"));
        let (cert, key) = (certificates.certificate(name), certificates.key(name));
        let own = ["--tls-port", &port, "--tls-ca-cert-file", &ca];
        let own = own.into_iter().chain(["--tls-cert-file", &cert]);
        let own = own.chain(["--tls-key-file", &key, "--tls-auth-clients", "yes"]);
        let own: Vec<String> = own.map(str::to_owned).collect();
        let mut server = Self::start_as(None, |address| [own, more(address)].concat())?;
        server.tls = Some(tls);
        Some(server)
    }

    fn start_as(
        password: Option<&str>,
        arguments: impl FnOnce(SocketAddr) -> Vec<String>,
    ) -> Option<Self> {
        let address = next_address();
        let folder = tempfile::tempdir().expect("a temporary folder");
        let password = password.map(str::to_owned);
        let arguments = arguments(address);
        let child = spawn(address, password.as_deref(), &arguments, folder.path())?;
        let server = Self {
            child,
            address,
            tls: None,
            password,
            arguments,
            folder,
        };
        server.wait();
        Some(server)
    }

    fn wait(&self) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !self.ask(&["PING"]).is_ok_and(|answer| answer == "+PONG") {
            assert!(Instant::now() < deadline, "Redis does not start");
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
        let (password, folder) = (self.password.as_deref(), self.folder.path());
        let child = spawn(self.address, password, &self.arguments, folder);
        self.child = child.expect("it was there a moment ago");
        self.wait();
    }

    /// `STOP` or `CONT`.
    pub(crate) fn signal(&self, signal: &str) {
        crate::signal::signal(signal, &[self.child.id()]);
    }

    /// Runs a command. Its answer must not be an error.
    #[track_caller]
    pub(crate) fn command(&mut self, words: &[&str]) -> String {
        let answer = self.ask(words).expect("Redis answers");
        assert!(!answer.starts_with('-'), "{words:?}: {answer}");
        if let ["CONFIG", "SET", "requirepass", password] = words {
            self.password = Some((*password).to_owned());
        }
        answer
    }

    /// Runs a command that a server refuses for a moment, as a replica that connects to its master anew does.
    #[allow(dead_code, reason = "not every binary of tests has such servers")]
    pub(crate) fn takes(&mut self, words: &[&str]) {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let answer = self.ask(words).expect("Redis answers");
            if !answer.starts_with('-') {
                return;
            }
            assert!(Instant::now() < deadline, "{words:?}: {answer}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// One answer as it comes, without the last line break; that of AUTH is left out.
    fn ask(&self, words: &[&str]) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let mut request = String::new();
        if let Some(password) = &self.password {
            request += &format!("*2\r\n$4\r\nAUTH\r\n${}\r\n{password}\r\n", password.len());
        }
        request += &format!("*{}\r\n", words.len());
        for word in words {
            request += &format!("${}\r\n{word}\r\n", word.len());
        }
        request += "*1\r\n$4\r\nQUIT\r\n";
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let answer = answer.strip_suffix("+OK\r\n").unwrap_or(&answer);
        let answer = match self.password {
            Some(_) => answer.strip_prefix("+OK\r\n").unwrap_or(answer),
            None => answer,
        };
        Ok(answer.trim_end().to_owned())
    }
}

/// Each process has a loopback address of its own, so that no two tests share a port.
pub(crate) fn own_host() -> IpAddr {
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 64 + high % 128, middle, low).into()
}

pub(crate) fn next_address() -> SocketAddr {
    SocketAddr::from((own_host(), NEXT_PORT.fetch_add(1, Ordering::Relaxed)))
}

fn in_cluster(address: SocketAddr, arguments: &[&str]) -> Vec<String> {
    let host = address.ip().to_string();
    let own = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000"];
    let own = own.into_iter().chain(["--cluster-announce-ip", &host]);
    let all = own.chain(arguments.iter().copied());
    all.map(str::to_owned).collect()
}

fn spawn(
    address: SocketAddr,
    password: Option<&str>,
    arguments: &[String],
    folder: &Path,
) -> Option<Child> {
    let log = std::fs::File::create(folder.join("redis.log")).expect("a log");
    let mut command = Command::new("redis-server");
    command
        .args(["--save", "", "--appendonly", "no", "--protected-mode", "no"])
        .arg("--bind")
        .arg(address.ip().to_string())
        .arg("--port")
        .arg(address.port().to_string())
        .arg("--dir")
        .arg(folder)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(Stdio::null());
    if let Some(password) = password {
        command.args(["--requirepass", password]);
    }
    command.spawn().ok()
}

impl Drop for Redis {
    fn drop(&mut self) {
        // Both fail only for a process that is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
