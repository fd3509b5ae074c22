//! The release binary as a child process with a configuration, an address and a log of its own.

use std::ffi::OsString;
use std::fs::File;
use std::fs::Permissions;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::api::Api;
use super::client::Client;
use super::config::{APP_ID, Config, KEY, SECRET, merge};
use super::eventually;
use super::wire::{Reply, Wire};

/// In the folder of a server.
const ADMIN_SOCKET: &str = "admin.sock";
/// Of an upgrade, at most: ten times the goal, since others use the machine.
const SILENCE_MS_MAX: f64 = 5_000.0;

/// A running server. Dropping it kills the process; a failing test prints the end of its log.
pub(crate) struct Server {
    child: Child,
    /// Took over from the child, and is nobody's child.
    successor: Option<u32>,
    pub(crate) address: SocketAddr,
    pub(crate) metrics: SocketAddr,
    pub(crate) prefix: String,
    folder: tempfile::TempDir,
    /// The port answers a request in plain text with a refusal.
    speaks_tls: bool,
    /// Beside that of whoever runs the test.
    environment: Vec<(OsString, OsString)>,
}

/// Each process has a loopback address of its own, so that no two tests can share a port, which
/// the server's `SO_REUSEPORT` would allow in silence.
pub(crate) fn own_address() -> Ipv4Addr {
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 64 + high % 128, middle, low)
}

static NEXT_PORT: AtomicU16 = AtomicU16::new(6_001);

pub(crate) fn next_port() -> u16 {
    NEXT_PORT.fetch_add(1, Ordering::Relaxed)
}

impl Server {
    pub(crate) fn start(config: &Config, shards: usize) -> Self {
        let server = Self::spawn(config, shards);
        server.is_ready_within(Duration::from_secs(30));
        server
    }

    /// Starts another server on the same address while this one drains, as a rolling restart does.
    pub(crate) fn is_succeeded(&self, config: &Config, shards: usize) -> Self {
        let successor = self.is_followed(config, shards);
        successor.is_ready_within(Duration::from_secs(30));
        successor
    }

    /// The same, without waiting for it.
    pub(crate) fn is_followed(&self, config: &Config, shards: usize) -> Self {
        Self::spawn_at(self.address, config, shards, None)
    }

    /// Starts a server that may open so many files.
    pub(crate) fn start_with_files(config: &Config, shards: usize, files_max: u64) -> Self {
        let address = SocketAddr::from((own_address(), next_port()));
        let server = Self::spawn_at(address, config, shards, Some(files_max));
        server.is_ready_within(Duration::from_secs(30));
        server
    }

    /// Starts the process and does not wait for it.
    pub(crate) fn spawn(config: &Config, shards: usize) -> Self {
        Self::spawn_at(
            SocketAddr::from((own_address(), next_port())),
            config,
            shards,
            None,
        )
    }

    fn spawn_at(
        address: SocketAddr,
        config: &Config,
        shards: usize,
        files_max: Option<u64>,
    ) -> Self {
        let metrics = SocketAddr::from((own_address(), next_port()));
        let mut json = config.json.clone();
        merge(
            &mut json,
            json!({
                "host": address.ip().to_string(), "port": address.port(), "shards": shards,
            }),
        );
        if json.get("metrics").is_none() {
            merge(
                &mut json,
                json!({"metrics": {
                    "enabled": true, "host": metrics.ip().to_string(), "port": metrics.port(),
                }}),
            );
        }
        let prefix = json["path_prefix"]
            .as_str()
            .unwrap_or("")
            .trim_end_matches('/')
            .to_owned();
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("config.json");
        if json.get("admin").is_none() {
            json["admin"] = json!({"socket": folder.path().join(ADMIN_SOCKET)});
        }
        std::fs::write(
            &file,
            serde_json::to_vec_pretty(&json).expect("a value is JSON"),
        )
        .expect("the configuration can be written");
        let mut command = Command::new(env!("CARGO_BIN_EXE_sockudo"));
        command.arg("serve").arg("--config").arg(&file);
        command.envs(config.environment.iter().cloned());
        if let Some(files_max) = files_max {
            let limit = libc::rlimit {
                rlim_cur: files_max,
                rlim_max: files_max,
            };
            // SAFETY: between fork and exec only setrlimit is called, which is async-signal-safe
            // and reads a value of the closure's own.
            unsafe {
                command.pre_exec(move || {
                    match libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) {
                        0 => Ok(()),
                        _ => Err(std::io::Error::last_os_error()),
                    }
                });
            }
        }
        let own = folder.path().join("log");
        let log = match config.log {
            Some(path) => File::options().write(true).open(path),
            None => File::create(own),
        };
        let log = log.expect("the log can be opened");
        let speaks_tls = json["ssl"]["enabled"] == true;
        let mut server = Self::run_with_log(command, log, folder, (address, metrics, prefix));
        server.speaks_tls = speaks_tls;
        server
    }

    /// Starts the server as an ordinary user with the limits of a usual desktop; only root can
    /// give them: `None` for everybody else.
    pub(crate) fn start_as_a_desktop_user(shards: usize) -> Option<Self> {
        const NOBODY: u32 = 65_534;
        // SAFETY: no arguments, no memory; the call cannot fail.
        if unsafe { libc::geteuid() } != 0 {
            return None;
        }
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (binary, file) = (
            folder.path().join("sockudo"),
            folder.path().join("config.json"),
        );
        let address = SocketAddr::from((own_address(), next_port()));
        let metrics = SocketAddr::from((own_address(), next_port()));
        let mut json = Config::new().json;
        merge(
            &mut json,
            json!({
                "host": address.ip().to_string(), "port": address.port(), "shards": shards,
                "metrics": {"host": metrics.ip().to_string(), "port": metrics.port()},
            }),
        );
        std::fs::write(&file, json.to_string()).expect("the configuration can be written");
        std::fs::copy(env!("CARGO_BIN_EXE_sockudo"), &binary).expect("the binary can be copied");
        for (path, mode) in [(folder.path(), 0o755), (&*file, 0o644), (&*binary, 0o755)] {
            std::fs::set_permissions(path, Permissions::from_mode(mode)).expect("it is ours");
        }
        let mut command = Command::new(&binary);
        command.arg("--config").arg(&file).uid(NOBODY).gid(NOBODY);
        // SAFETY: between fork and exec only setrlimit is called, which is async-signal-safe and
        // reads a local value.
        unsafe {
            command.pre_exec(|| {
                let limits = [
                    (libc::RLIMIT_NOFILE, 1_024, 4_096),
                    (libc::RLIMIT_MEMLOCK, 8 << 20, 8 << 20),
                ];
                for (resource, soft, hard) in limits {
                    let limit = libc::rlimit {
                        rlim_cur: soft,
                        rlim_max: hard,
                    };
                    if libc::setrlimit(resource, &raw const limit) != 0 {
                        return Err(std::io::Error::last_os_error());
                    }
                }
                Ok(())
            });
        }
        let server = Self::run(command, folder, address, metrics, String::new());
        server.is_ready_within(Duration::from_secs(30));
        Some(server)
    }

    /// Starts the server without any configuration: demo mode, on loopback.
    pub(crate) fn start_demo() -> Self {
        // 127.0.0.1 is shared with everything else on the machine, so the kernel names the port.
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = free.local_addr().expect("it is bound");
        drop(free);
        let metrics = SocketAddr::from((own_address(), next_port()));
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut command = Command::new(env!("CARGO_BIN_EXE_sockudo"));
        command
            .arg("serve")
            .arg("--port")
            .arg(address.port().to_string());
        // In demo mode metrics are on the shared address too, unless told otherwise.
        command.env("METRICS_HOST", metrics.ip().to_string());
        command.env("METRICS_PORT", metrics.port().to_string());
        let server = Self::run(command, folder, address, metrics, String::new());
        server.is_ready_within(Duration::from_secs(30));
        server
    }

    fn run(
        command: Command,
        folder: tempfile::TempDir,
        address: SocketAddr,
        metrics: SocketAddr,
        prefix: String,
    ) -> Self {
        let log = File::create(folder.path().join("log")).expect("the log can be created");
        Self::run_with_log(command, log, folder, (address, metrics, prefix))
    }

    fn run_with_log(
        mut command: Command,
        log: File,
        folder: tempfile::TempDir,
        (address, metrics, prefix): (SocketAddr, SocketAddr, String),
    ) -> Self {
        // The server reads its environment, which must be the test's and not that of who runs it.
        let kept = ["PATH", "HOME", "RUST_BACKTRACE"].map(|name| (name, std::env::var_os(name)));
        let own: Vec<(OsString, OsString)> = command
            .get_envs()
            .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())))
            .collect();
        command.env_clear();
        for (name, value) in kept {
            command.envs(value.map(|value| (name, value)));
        }
        command.envs(own.iter().cloned());
        let child = command
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log's descriptor can be copied"))
            .stderr(log)
            .spawn()
            .expect("the release binary starts");
        Self {
            child,
            successor: None,
            address,
            metrics,
            prefix,
            folder,
            speaks_tls: false,
            environment: own,
        }
    }

    fn is_ready_within(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        let path = format!("{}/up", self.prefix);
        loop {
            if let Ok(stream) = TcpStream::connect(self.address) {
                let mut wire = Wire::over(stream);
                wire.sends(format!(
                    "GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n",
                    self.address
                ));
                // The answer is one shard's; the log's word holds for all.
                let expected = if self.speaks_tls { 400 } else { 200 };
                let is_up = wire
                    .try_reply()
                    .is_some_and(|reply| reply.status == expected);
                if is_up && self.log().contains("ready") {
                    return;
                }
            }
            assert!(
                Instant::now() < deadline,
                "the server is not up after {limit:?}: {}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Runs a command that asks this node.
    pub(crate) fn is_asked(&self, command: &[&str]) -> Output {
        let mut sockudo = Command::new(env!("CARGO_BIN_EXE_sockudo"));
        sockudo.args(command).arg("--socket");
        sockudo.arg(self.folder.path().join(ADMIN_SOCKET));
        sockudo.output().expect("it starts")
    }

    /// The words of a command that asks this node, for a shell.
    pub(crate) fn asking(&self, command: &[&str]) -> Vec<String> {
        let socket = self.folder.path().join(ADMIN_SOCKET);
        let socket = socket.to_str().expect("a plain name");
        let program = env!("CARGO_BIN_EXE_sockudo");
        let words = [&[program], command, &["--socket", socket]].concat();
        words.into_iter().map(str::to_owned).collect()
    }

    /// Runs a command with this node's configuration.
    pub(crate) fn has_run(&self, command: &[&str]) -> Output {
        let mut sockudo = Command::new(env!("CARGO_BIN_EXE_sockudo"));
        sockudo.args(command).arg("--config");
        sockudo.arg(self.folder.path().join("config.json"));
        sockudo.envs(self.environment.iter().cloned());
        sockudo.output().expect("it starts")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.successor.unwrap_or_else(|| self.child.id())
    }

    /// Lets another process take over, by `sockudo upgrade`; what that says, as JSON.
    pub(crate) fn is_upgraded(&mut self) -> Value {
        let output = self.is_asked(&["upgrade", "--json"]);
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{words}: {}", self.log());
        let report: Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
        let silence_ms = report["silence_ms"].as_f64().expect("a number");
        assert!(silence_ms < SILENCE_MS_MAX, "{report}: {}", self.log());
        self.is_taken_over_by(report["pid"].as_u64().expect("a process"));
        report
    }

    /// Another process serves: the one before ends.
    pub(crate) fn is_taken_over_by(&mut self, pid: u64) {
        let before = self.pid();
        self.successor = Some(u32::try_from(pid).expect("a pid fits"));
        assert_ne!(self.pid(), before);
        if before == self.child.id() {
            assert!(self.exits().success());
        } else {
            eventually("the end of the process before", || has_ended(before));
        }
    }

    /// Waits for the end of the process that took over.
    pub(crate) fn successor_ends(&mut self) {
        let pid = self.successor.take().expect("there was an upgrade");
        eventually("the end of the process that took over", || has_ended(pid));
    }

    pub(crate) fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    pub(crate) fn log(&self) -> String {
        let bytes = std::fs::read(self.folder.path().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// A bare connection to the main port.
    pub(crate) fn wire(&self) -> Wire {
        Wire::connect(self.address)
    }

    /// An established client of the first app. The name is for the messages of failing tests.
    pub(crate) fn client(&self, name: &str) -> Client {
        Client::connect(self, name, KEY, SECRET)
    }

    pub(crate) fn client_of(&self, app: &str, name: &str) -> Client {
        Client::connect(self, name, &format!("{app}-key"), &format!("{app}-secret"))
    }

    /// The HTTP API with the first app's credentials.
    pub(crate) fn api(&self) -> Api {
        Api::new(self, APP_ID, KEY, SECRET)
    }

    pub(crate) fn api_of(&self, app: &str) -> Api {
        Api::new(
            self,
            &format!("{app}-id"),
            &format!("{app}-key"),
            &format!("{app}-secret"),
        )
    }

    /// One unsigned request to the main port.
    pub(crate) fn gets(&self, path: &str) -> Reply {
        let mut wire = self.wire();
        wire.sends(format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n",
            self.address
        ));
        wire.reply()
    }

    /// The sum of a metric over its labels, from the metrics port.
    pub(crate) fn metric(&self, name: &str) -> Option<f64> {
        self.metric_with(name, "")
    }

    /// The same over the rows that have the label, written as `name="value"`.
    pub(crate) fn metric_with(&self, name: &str, label: &str) -> Option<f64> {
        let mut wire = Wire::connect(self.metrics);
        wire.sends(format!(
            "GET /metrics HTTP/1.1\r\nHost: {}\r\n\r\n",
            self.metrics
        ));
        let text = wire.reply().text();
        let values = text
            .lines()
            .filter(|line| line.split(['{', ' ']).next() == Some(name) && line.contains(label))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        values.reduce(|sum, value| sum + value)
    }

    /// Sends SIGTERM: the server drains.
    pub(crate) fn drains(&self) {
        self.signal(libc::SIGTERM);
    }

    pub(crate) fn signal(&self, signal: i32) {
        let pid = i32::try_from(self.pid()).expect("a pid fits");
        // SAFETY: `kill` takes no pointers. The pid is our child's, which is not reaped before `self` drops or
        // `exits` returns, so it cannot name another process; or that of the process that took over from it, which
        // serves until a test ends it.
        let sent = unsafe { libc::kill(pid, signal) };
        assert!(
            sent == 0 || std::thread::panicking(),
            "the server can be signalled"
        );
    }

    /// Waits for the process to end.
    pub(crate) fn exits(&mut self) -> ExitStatus {
        let child = &mut self.child;
        eventually("the server's exit", || {
            child.try_wait().expect("our child can be waited for")
        })
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child
            .try_wait()
            .expect("our child can be waited for")
            .is_none()
    }

    /// Resident memory of the process in bytes.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(PathBuf::from(format!("/proc/{}/status", self.pid())))
            .expect("the server runs");
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .expect("Linux says VmRSS");
        let kib: u64 = line
            .split_whitespace()
            .nth(1)
            .expect("a number")
            .parse()
            .expect("digits");
        kib * 1024
    }

    /// Rewrites the configuration file and sends SIGHUP.
    pub(crate) fn reloads(&self, change: impl FnOnce(&mut Value)) {
        self.rewrites(change);
        self.signal(libc::SIGHUP);
    }

    /// Changes its configuration's file, and says nothing.
    pub(crate) fn rewrites(&self, change: impl FnOnce(&mut Value)) {
        let file = self.folder.path().join("config.json");
        let text = std::fs::read_to_string(&file).expect("the configuration is there");
        let mut json = serde_json::from_str(&text).expect("we wrote JSON");
        change(&mut json);
        std::fs::write(&file, json.to_string()).expect("the configuration can be written");
    }
}

/// A process that is nobody's child here may wait as a zombie for who reaps it.
fn has_ended(pid: u32) -> Option<()> {
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => stat
            .rsplit_once(") ")
            .is_some_and(|(_, rest)| rest.starts_with('Z'))
            .then_some(()),
        Err(_) => Some(()),
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.successor.is_some() {
            self.signal(libc::SIGKILL);
        } else if let Ok(Some(status)) = self.child.try_wait() {
            eprintln!("the server had ended by itself: {status}");
        }
        // Both fail only for a process that is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            let tail = &lines[lines.len().saturating_sub(40)..];
            eprintln!(
                "--- the end of the server's log ---\n{}\n---",
                tail.join("\n")
            );
        }
    }
}
