//! A PostgreSQL server of the tests' own, which may be stopped, killed and started again; and pgbouncer before it.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use crate::certificates::Certificates;

/// A running server with a database `sockudo`. Dropping it kills the process.
pub(crate) struct Postgres {
    child: Child,
    pub(crate) address: SocketAddr,
    arguments: Vec<String>,
    folder: tempfile::TempDir,
}

static NEXT_PORT: AtomicU16 = AtomicU16::new(7_601);

impl Postgres {
    /// `None` where the machine has no PostgreSQL.
    pub(crate) fn start() -> Option<Self> {
        Self::start_with(&["host all all all scram-sha-256"], &[])
    }

    /// Each process has a loopback address of its own, so that no two tests share a port.
    pub(crate) fn host() -> Ipv4Addr {
        let [_, high, middle, low] = std::process::id().to_be_bytes();
        Ipv4Addr::new(127, 64 + high % 128, middle, low)
    }

    /// Who may come in, as lines of `pg_hba.conf`, and what else the server is told.
    pub(crate) fn start_with(access: &[&str], arguments: &[&str]) -> Option<Self> {
        let port = NEXT_PORT.fetch_add(1, Ordering::Relaxed);
        let address = SocketAddr::from((Self::host(), port));
        let folder = folder();
        install(folder.path(), access)?;
        let arguments: Vec<String> = arguments.iter().map(|it| (*it).to_owned()).collect();
        let child = spawn(address, &arguments, folder.path());
        let server = Self {
            child,
            address,
            arguments,
            folder,
        };
        server.wait();
        server.run_in("postgres", &["CREATE DATABASE sockudo"]);
        Some(server)
    }

    fn wait(&self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while let Err(error) = self.ask("postgres", &["SELECT 1"]) {
            assert!(Instant::now() < deadline, "no PostgreSQL: {error}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends the server and all its sessions at once; nothing is put in order.
    pub(crate) fn kill(&mut self) {
        crate::signal::signal("QUIT", &[self.child.id()]);
        self.child.wait().expect("it was ours");
    }

    /// After `kill`: again on the same port, with the same rows.
    pub(crate) fn start_again(&mut self) {
        self.child = spawn(self.address, &self.arguments, self.folder.path());
        self.wait();
    }

    /// `STOP` or `CONT`, to the server and all its sessions.
    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.child.id();
        let path = format!("/proc/{pid}/task/{pid}/children");
        let children = std::fs::read_to_string(path).expect("the server runs");
        let mut pids = vec![pid];
        pids.extend(children.split_whitespace().flat_map(str::parse::<u32>));
        crate::signal::signal(signal, &pids);
    }

    /// Runs statements as the owner of everything, one after the other.
    #[track_caller]
    pub(crate) fn run(&self, statements: &[&str]) {
        self.run_in("sockudo", statements);
    }

    #[track_caller]
    fn run_in(&self, database: &str, statements: &[&str]) {
        if let Err(error) = self.ask(database, statements) {
            panic!("{error}");
        }
    }

    /// What a query answers, its rows as lines.
    pub(crate) fn says(&self, query: &str) -> String {
        match self.ask("sockudo", &[query]) {
            Ok(said) => said.trim().to_owned(),
            Err(error) => panic!("{query}: {error}"),
        }
    }

    fn ask(&self, database: &str, statements: &[&str]) -> Result<String, String> {
        let mut psql = Command::new(program("psql").expect("it comes with the server"));
        psql.args(["-X", "-q", "-t", "-A", "-U", "postgres", "-d", database])
            .args(["-v", "ON_ERROR_STOP=1"])
            .arg("-h")
            .arg(self.folder.path())
            .arg("-p")
            .arg(self.address.port().to_string());
        for statement in statements {
            psql.args(["-c", statement]);
        }
        let done = psql.output().expect("psql runs");
        match done.status.success() {
            true => Ok(String::from_utf8_lossy(&done.stdout).into_owned()),
            false => Err(String::from_utf8_lossy(&done.stderr).into_owned()),
        }
    }

    /// Starts it again with the certificate of that name, for clients that one of its authority has signed.
    pub(crate) fn encrypts(&mut self, files: &Certificates, name: &str) {
        self.kill();
        let data = self.folder.path().join("data");
        // The server wants a key that only its own user may read.
        for (from, to) in [
            (files.certificate("ca"), "ca.crt"),
            (files.certificate(name), "server.crt"),
            (files.key(name), "server.key"),
        ] {
            let to = data.join(to);
            std::fs::copy(from, &to).expect("both are ours");
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
            std::fs::set_permissions(&to, mode).expect("it is ours");
            if let Some((user, group)) = other_user() {
                chown(&to, Some(user), Some(group)).expect("root may");
            }
        }
        std::fs::write(data.join("pg_ident.conf"), "any /^.*$ known\n").expect("it can be written");
        let options = ["ssl=on", "ssl_ca_file=ca.crt"];
        self.arguments = options
            .iter()
            .flat_map(|it| ["-c", it])
            .map(str::to_owned)
            .collect();
        self.start_again();
    }

    /// The folder of its Unix socket.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // It fails only for a process that is gone already; a stopped one hears nothing before it goes on.
        self.signal_if_there();
        let _ = self.child.wait();
    }
}

impl Postgres {
    fn signal_if_there(&self) {
        let pid = self.child.id();
        crate::signal::signal("QUIT", &[pid]);
        let path = format!("/proc/{pid}/task/{pid}/children");
        let children = std::fs::read_to_string(path).unwrap_or_default();
        let mut pids: Vec<u32> = children.split_whitespace().flat_map(str::parse).collect();
        pids.push(pid);
        crate::signal::signal("CONT", &pids);
    }
}

/// A pooler before a server, that gives a connection for one transaction at a time. Dropping it kills the process.
pub(crate) struct PgBouncer {
    child: Child,
    pub(crate) address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl PgBouncer {
    /// `None` where the machine has none. It lets users in with these passwords, on so many connections.
    pub(crate) fn start(
        server: &Postgres,
        users: &[(&str, &str)],
        connections: usize,
    ) -> Option<Self> {
        let program = program("pgbouncer")?;
        let port = NEXT_PORT.fetch_add(1, Ordering::Relaxed);
        let address = SocketAddr::from((Postgres::host(), port));
        let folder = folder();
        let file = |name: &str| folder.path().join(name);
        let lines = users
            .iter()
            .map(|(user, password)| format!("\"{user}\" \"{password}\"\n"));
        std::fs::write(file("users"), lines.collect::<String>()).expect("it can be written");
        let settings = format!(
            "[databases]\nsockudo = host={} port={}\n[pgbouncer]\nlisten_addr = {}\nlisten_port = {}\n\
             auth_type = scram-sha-256\nauth_file = {}\npool_mode = transaction\n\
             default_pool_size = {connections}\nunix_socket_dir =\nserver_login_retry = 1\n",
            server.address.ip(),
            server.address.port(),
            address.ip(),
            address.port(),
            file("users").display(),
        );
        std::fs::write(file("settings"), settings).expect("it can be written");
        let log = std::fs::File::create(file("log")).expect("a log");
        let child = as_nobody_special(&program)
            .arg(file("settings"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("pgbouncer runs");
        let deadline = Instant::now() + Duration::from_secs(60);
        while let Err(error) = std::net::TcpStream::connect(address) {
            assert!(Instant::now() < deadline, "no pgbouncer: {error}");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(Self {
            child,
            address,
            _folder: folder,
        })
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        // Both fail only for a process that is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A temporary folder of whom the server runs as.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    if let Some((user, group)) = other_user() {
        chown(folder.path(), Some(user), Some(group)).expect("root may");
    }
    folder
}

/// Makes the system tables; some seconds.
fn install(folder: &Path, access: &[&str]) -> Option<()> {
    let data = folder.join("data");
    let done = as_nobody_special(&program("initdb")?)
        .args(["--no-sync", "--auth=trust", "--username=postgres"])
        .args(["--encoding=UTF8", "--locale=C"])
        .arg("--pgdata")
        .arg(&data)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .expect("initdb runs");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "initdb: {said}");
    let mut lines = vec!["local all all trust"];
    lines.extend(access);
    std::fs::write(data.join("pg_hba.conf"), lines.join("\n") + "\n").expect("it can be written");
    Some(())
}

fn spawn(address: SocketAddr, arguments: &[String], folder: &Path) -> Child {
    let log = std::fs::File::create(folder.join("postgres.log")).expect("a log");
    let mut command = as_nobody_special(&program("postgres").expect("it stands beside initdb"));
    command.arg("-D").arg(folder.join("data"));
    let settings = [
        format!("listen_addresses={}", address.ip()),
        format!("port={}", address.port()),
        format!("unix_socket_directories={}", folder.display()),
    ];
    let small = ["fsync=off", "shared_buffers=16MB", "max_connections=60"];
    for setting in settings.iter().map(String::as_str).chain(small) {
        command.args(["-c", setting]);
    }
    command
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("postgres runs")
}

/// Neither program runs as root: then it is the user that Debian's package makes.
fn as_nobody_special(program: &Path) -> Command {
    if other_user().is_none() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=postgres", "--regid=postgres", "--clear-groups"])
        .arg(program);
    command
}

/// Whom root becomes; `None` for others.
fn other_user() -> Option<(u32, u32)> {
    let id = |arguments: &[&str]| -> Option<u32> {
        let done = Command::new("id").args(arguments).output().ok()?;
        String::from_utf8_lossy(&done.stdout).trim().parse().ok()
    };
    if id(&["-u"]) != Some(0) {
        return None;
    }
    Some((id(&["-u", "postgres"])?, id(&["-g", "postgres"])?))
}

/// Debian puts servers where only root looks, and PostgreSQL's programs in a folder by version.
fn program(name: &str) -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten();
    let mut versions: Vec<PathBuf> = versions.flatten().map(|it| it.path().join("bin")).collect();
    versions.sort();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into()]);
    let mut folders = versions.into_iter().rev().chain(folders);
    folders.find_map(|folder| Some(folder.join(name)).filter(|it| it.exists()))
}
