//! A server of the tests' own that answers as services of AWS do. It keeps what it has in memory only.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A running server. Dropping it kills the process.
pub(crate) struct Moto {
    child: Child,
    pub(crate) address: SocketAddr,
    asks_who: bool,
    /// Certificate and key, where it speaks TLS.
    tls: Option<[String; 2]>,
}

static NEXT_PORT: AtomicU16 = AtomicU16::new(7_801);

impl Moto {
    /// `None` where it is not installed. It lets everybody in.
    pub(crate) fn start() -> Option<Self> {
        Self::start_as(false, None)
    }

    /// One that speaks TLS only.
    #[allow(dead_code, reason = "not every binary of tests has such servers")]
    pub(crate) fn start_with_tls(certificate: String, key: String) -> Option<Self> {
        Self::start_as(false, Some([certificate, key]))
    }

    /// One that knows no credentials, and so refuses all.
    pub(crate) fn start_knowing_nobody() -> Option<Self> {
        Self::start_as(true, None)
    }

    fn start_as(asks_who: bool, tls: Option<[String; 2]>) -> Option<Self> {
        // Each process has a loopback address of its own, so that no two tests share a port.
        let [_, high, middle, low] = std::process::id().to_be_bytes();
        let host = Ipv4Addr::new(127, 64 + high % 128, middle, low);
        let port = NEXT_PORT.fetch_add(1, Ordering::Relaxed);
        let address = SocketAddr::from((host, port));
        let child = spawn(address, asks_who, tls.as_ref())?;
        let server = Self {
            child,
            address,
            asks_who,
            tls,
        };
        server.wait();
        Some(server)
    }

    fn wait(&self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while let Err(error) = TcpStream::connect(self.address) {
            assert!(Instant::now() < deadline, "moto does not start: {error}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// As `kill -9`: everything is forgotten.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it was ours");
    }

    /// After `kill`: again on the same port, empty.
    pub(crate) fn start_again(&mut self) {
        let child = spawn(self.address, self.asks_who, self.tls.as_ref());
        self.child = child.expect("it was there before");
        self.wait();
    }

    /// `STOP` or `CONT`.
    pub(crate) fn signal(&self, signal: &str) {
        crate::signal::signal(signal, &[self.child.id()]);
    }

    /// Calls an operation as another client does, such as `DynamoDB_20120810.PutItem`.
    #[track_caller]
    pub(crate) fn does(&self, service: &str, operation: &str, body: &Value) -> Value {
        let body = body.to_string();
        let head = format!(
            "POST / HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Type: application/x-amz-json-1.0\r\n\
             X-Amz-Target: {operation}\r\nAuthorization: AWS4-HMAC-SHA256 Credential=test/20260101/\
             us-east-1/{service}/aws4_request, SignedHeaders=host, Signature=0\r\nContent-Length: {}\r\n\r\n",
            self.address,
            body.len()
        );
        let mut stream = TcpStream::connect(self.address).expect("it runs");
        stream
            .write_all((head + &body).as_bytes())
            .expect("it listens");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        assert!(answer.starts_with("HTTP/1.1 200"), "{operation}: {answer}");
        let (_, json) = answer.split_once("\r\n\r\n").expect("a body");
        serde_json::from_str(json).unwrap_or_default()
    }
}

fn spawn(address: SocketAddr, asks_who: bool, tls: Option<&[String; 2]>) -> Option<Child> {
    let tools = std::env::var_os("SOCKUDO_TEST_TOOLS").map(PathBuf::from);
    let program = tools?.join("python/bin/moto_server");
    if !program.exists() {
        return None;
    }
    let mut command = Command::new(program);
    if asks_who {
        command.env("INITIAL_NO_AUTH_ACTION_COUNT", "0");
    }
    if let Some([certificate, key]) = tls {
        command.args(["--ssl-cert", certificate, "--ssl-key", key]);
    }
    let child = command
        .args(["--host", &address.ip().to_string()])
        .args(["--port", &address.port().to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    Some(child.expect("moto_server runs"))
}

impl Drop for Moto {
    fn drop(&mut self) {
        // Both fail only for a process that is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
