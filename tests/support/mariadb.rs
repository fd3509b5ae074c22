//! A MariaDB server of the tests' own, which may be stopped, killed and started again.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use mysql::prelude::Queryable as _;
use mysql::{Conn, OptsBuilder};

/// A running server. Dropping it kills the process.
pub(crate) struct MariaDb {
    child: Child,
    pub(crate) address: SocketAddr,
    arguments: Vec<String>,
    folder: tempfile::TempDir,
}

static NEXT_PORT: AtomicU16 = AtomicU16::new(7_401);

impl MariaDb {
    /// `None` where the machine has no MariaDB.
    pub(crate) fn start() -> Option<Self> {
        Self::start_with_arguments(&[])
    }

    /// Each process has a loopback address of its own, so that no two tests share a port.
    pub(crate) fn host() -> Ipv4Addr {
        let [_, high, middle, low] = std::process::id().to_be_bytes();
        Ipv4Addr::new(127, 64 + high % 128, middle, low)
    }

    pub(crate) fn start_with_arguments(arguments: &[&str]) -> Option<Self> {
        let host = Self::host();
        let port = NEXT_PORT.fetch_add(1, Ordering::Relaxed);
        let address = SocketAddr::from((host, port));
        let folder = tempfile::tempdir().expect("a temporary folder");
        install(folder.path())?;
        let arguments: Vec<String> = arguments.iter().map(|it| (*it).to_owned()).collect();
        let child = spawn(address, &arguments, folder.path());
        let server = Self {
            child,
            address,
            arguments,
            folder,
        };
        server.wait();
        Some(server)
    }

    fn wait(&self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while let Err(error) = self.connect() {
            assert!(Instant::now() < deadline, "MariaDB does not start: {error}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// As `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it was ours");
    }

    /// After `kill`: again on the same port, with the same data.
    pub(crate) fn start_again(&mut self) {
        self.child = spawn(self.address, &self.arguments, self.folder.path());
        self.wait();
    }

    /// `STOP` or `CONT`.
    pub(crate) fn signal(&self, signal: &str) {
        crate::signal::signal(signal, &[self.child.id()]);
    }

    /// Runs statements as root, one after the other.
    #[track_caller]
    pub(crate) fn run(&self, statements: &[&str]) {
        let mut root = self.connect().expect("root is let in over the socket");
        for statement in statements {
            if let Err(error) = root.query_drop(statement) {
                panic!("{statement}: {error}");
            }
        }
    }

    /// A counter of `SHOW GLOBAL STATUS`.
    pub(crate) fn counter(&self, name: &str) -> u64 {
        let mut root = self.connect().expect("root is let in over the socket");
        let query = format!("SHOW GLOBAL STATUS LIKE '{name}'");
        let row: Option<(String, u64)> = root.query_first(query).expect("a counter");
        row.expect("it is there").1
    }

    fn connect(&self) -> Result<Conn, mysql::Error> {
        let socket = self.folder.path().join("socket");
        Conn::new(
            OptsBuilder::new()
                .socket(Some(socket.to_string_lossy()))
                .user(Some("root"))
                .read_timeout(Some(Duration::from_secs(60))),
        )
    }
}

/// Makes the system tables; some seconds.
fn install(folder: &Path) -> Option<()> {
    let mut command = Command::new(program("mariadb-install-db")?);
    command
        .arg("--no-defaults")
        .args(["--auth-root-authentication-method=normal", "--skip-test-db"])
        .args(SMALL)
        .arg(format!("--datadir={}", folder.join("data").display()))
        .arg(format!("--tmpdir={}", folder.display()))
        .arg(format!("--user={}", user()))
        .stdin(Stdio::null());
    let done = command.output().expect("mariadb-install-db runs");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "mariadb-install-db: {said}");
    Some(())
}

fn spawn(address: SocketAddr, arguments: &[String], folder: &Path) -> Child {
    let log = std::fs::File::create(folder.join("mariadb.log")).expect("a log");
    let option = |name: &str, file: &str| format!("--{name}={}", folder.join(file).display());
    Command::new(program("mariadbd").expect("it stands beside mariadb-install-db"))
        .arg("--no-defaults")
        .args(SMALL)
        .args(["--skip-log-bin", "--skip-name-resolve"])
        // What was written outlives the process, if not the host.
        .args(["--innodb-flush-log-at-trx-commit=2", "--key-buffer-size=8K"])
        .arg(format!("--user={}", user()))
        .arg(format!("--bind-address={}", address.ip()))
        .arg(format!("--port={}", address.port()))
        .arg(option("datadir", "data"))
        .arg(option("tmpdir", ""))
        .arg(option("socket", "socket"))
        .arg(option("pid-file", "pid"))
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("mariadbd runs")
}

/// Debian puts servers where only root looks.
fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into()]);
    folders.map(|it| it.join(name)).find(|it| it.exists())
}

/// It runs as who runs the tests; root must say so.
fn user() -> String {
    let done = Command::new("id").arg("-un").output().expect("id runs");
    String::from_utf8_lossy(&done.stdout).trim().to_owned()
}

const SMALL: [&str; 3] = [
    "--innodb-buffer-pool-size=16M",
    "--innodb-log-file-size=4M",
    "--innodb-data-file-path=ibdata1:4M:autoextend",
];

impl Drop for MariaDb {
    fn drop(&mut self) {
        // Both fail only for a process that is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
