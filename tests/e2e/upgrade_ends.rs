//! One of the two processes of an upgrade ends, or waits, when the other one does not expect it.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use rustix::process::{getpid, set_child_subreaper};
use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::config::Config;
use crate::support::eventually;
use crate::support::server::{Server, next_port, own_address};
use crate::support::wire::Wire;
use crate::upgrade::reconfigures;

fn said(output: &Output) -> String {
    let parts = [&output.stdout, &output.stderr];
    parts.map(|part| String::from_utf8_lossy(part)).concat()
}

/// A webhook target that answers when it is told to.
struct Held(TcpListener);

impl Held {
    fn start() -> Self {
        Self(TcpListener::bind((own_address(), 0)).expect("a free port"))
    }

    fn address(&self) -> SocketAddr {
        self.0.local_addr().expect("it is bound")
    }

    /// Client events are told to it, one by one.
    fn is_told_by(&self, config: Config) -> Config {
        let url = format!("http://{}/", self.address());
        config
            .with(json!({"webhooks": {"batching": {"enabled": false}}}))
            .with_app(json!({"webhooks": [{"url": url, "event_types": ["client_event"]}]}))
    }

    /// The next request, which waits for its answer.
    fn takes(&self) -> TcpStream {
        let (mut stream, _) = self.0.accept().expect("it listens");
        assert!(stream.read(&mut [0; 64 << 10]).expect("a request") > 0);
        stream
    }
}

fn answers(mut stream: TcpStream, status: u16) {
    let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    stream.write_all(answer.as_bytes()).expect("it is awaited");
}

/// Lets another process take over, and does not wait for the end of the old one; the new one's number.
fn is_followed(server: &Server) -> u64 {
    let output = server.is_asked(&["upgrade", "--json"]);
    assert!(output.status.success(), "{}", said(&output));
    let report: Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    report["pid"].as_u64().expect("a process")
}

fn kills(pid: u64) {
    let pid = i32::try_from(pid).expect("a pid fits");
    // SAFETY: no pointers. The process took over, and was seen to serve.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGKILL) }, 0);
}

fn has_unix(server: Config, path: &std::path::Path) -> Config {
    server.with(json!({
        "drain": {"deadline_s": 60},
        "unix_socket": {"enabled": true, "path": path, "also_tcp": true},
    }))
}

/// A server that waits for the target's answer to a client event of Alice's.
fn is_telling(target: &Held, config: &Config, shards: usize) -> (Server, Client, TcpStream) {
    let server = Server::start(config, shards);
    let mut alice = server.client("alice");
    alice.subscribes("private-x");
    alice.triggers("client-a", "private-x", json!("a"));
    (server, alice, target.takes())
}

#[test]
fn a_process_that_waits_for_an_answer_listens_nowhere_where_the_next_one_does_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("proxies.sock");
    let target = Held::start();
    let config = has_unix(target.is_told_by(Config::new()), &path);
    let (mut server, mut alice, attempt) = is_telling(&target, &config, 2);
    let (port, metrics) = (next_port(), next_port());
    let elsewhere = folder.path().join("elsewhere.sock");
    reconfigures(&server, |json| {
        json["port"] = json!(port);
        json["metrics"]["port"] = json!(metrics);
        json["unix_socket"]["path"] = json!(elsewhere);
    });
    let pid = is_followed(&server);
    TcpStream::connect((own_address(), port)).expect("the new one listens");
    TcpStream::connect((own_address(), metrics)).expect("the new one listens");
    UnixStream::connect(&elsewhere).expect("the new one listens");
    let is_closed = |address| TcpStream::connect(address).is_err().then_some(());
    eventually("the port's end", || is_closed(server.address));
    eventually("the metrics port's end", || is_closed(server.metrics));
    eventually("the Unix socket's end", || {
        UnixStream::connect(&path).is_err().then_some(())
    });
    eventually("the end of its file", || (!path.exists()).then_some(()));
    assert!(server.is_running(), "it waits for the answer");
    alice.expects_pong();
    answers(attempt, 200);
    server.is_taken_over_by(pid);
    alice.expects_pong();
}

/// systemd waits for the drain of its own children alone: another main process it kills when the service is stopped.
#[test]
fn the_supervisor_is_told_of_a_process_that_is_its_own_child() {
    set_child_subreaper(Some(getpid()))
        .expect("this process adopts orphans, as the supervisor does");
    let target = Held::start();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("notify");
    let supervisor = UnixDatagram::bind(&path).expect("a socket");
    let patience = Some(Duration::from_secs(30));
    supervisor.set_read_timeout(patience).expect("a socket");
    let environment = [("NOTIFY_SOCKET", path.to_str().expect("a plain name"))];
    let config = target.is_told_by(Config::new().with_environment(&environment));
    let (mut server, mut alice, attempt) = is_telling(&target, &config, 1);
    let pid = is_followed(&server);
    let named = loop {
        let mut datagram = [0; 512];
        let bytes = supervisor.recv(&mut datagram).expect("it is told");
        let text = String::from_utf8_lossy(&datagram[..bytes]).into_owned();
        if let Some(named) = text.strip_prefix("MAINPID=") {
            break named.parse::<u64>().expect("a number");
        }
    };
    assert_eq!(named, pid);
    assert!(server.is_running(), "it waits for the answer");
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it serves");
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
    let parent = parent.expect("Linux says it").trim();
    assert_eq!(parent, std::process::id().to_string());
    answers(attempt, 200);
    server.is_taken_over_by(pid);
    alice.expects_pong();
}

/// A process that no `Server` knows.
struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        // Both fail only for a process that is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The same configuration again.
fn starts_anew(server: &Server) -> Started {
    let log = fs::File::create(server.folder().join("log of the fresh one")).expect("a file");
    let mut command = Command::new(env!("CARGO_BIN_EXE_sockudo"));
    command
        .arg("--config")
        .arg(server.folder().join("config.json"));
    command.stdin(Stdio::null()).stdout(Stdio::null());
    Started(command.stderr(log).spawn().expect("it starts"))
}

/// Somebody serves there.
fn is_up(server: &Server) {
    eventually("the fresh start to serve", || {
        let stream = TcpStream::connect(server.address).ok()?;
        let mut wire = Wire::over(stream);
        wire.sends("GET /up HTTP/1.1\r\nHost: x\r\n\r\n");
        (wire.try_reply()?.status == 200).then_some(())
    });
}

#[test]
fn a_process_that_waits_keeps_nothing_when_the_one_that_follows_it_dies() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("proxies.sock");
    let target = Held::start();
    let config = has_unix(target.is_told_by(Config::new()), &path);
    let (mut server, mut alice, attempt) = is_telling(&target, &config, 2);
    let pid = is_followed(&server);
    alice.expects_pong();
    kills(pid);
    alice.ends();
    let is_closed = |address| TcpStream::connect(address).is_err().then_some(());
    eventually("the port's end", || is_closed(server.address));
    eventually("the metrics port to be free", || {
        TcpListener::bind(server.metrics).ok().map(drop)
    });
    let fresh = starts_anew(&server);
    is_up(&server);
    UnixStream::connect(&path).expect("the fresh one listens");
    assert!(server.metric("sockudo_upgrades_total").is_some());
    let top = server.is_asked(&["top", "--json"]);
    assert!(top.status.success(), "{}", said(&top));
    assert!(server.is_running(), "it waits for the answer");
    answers(attempt, 200);
    assert!(server.exits().success());
    drop(fresh);
}

/// A program that says what a process says that takes over from a node with one client, and dies when it hears
/// `dies_at`, or when it has said `Begun`.
fn mimic(server: &Server, dies_at: &str) -> PathBuf {
    let path = server.folder().join("mimic");
    let script = format!(
        r#"#!/bin/sh
export LC_ALL=C
say() {{ printf "$1" >&0; }}
say '\000\201\245Hello\203\250protocol\001\247version\241x\252says_begun\303'
while dd bs=70000 count=1 status=none of=packet && test -s packet; do
    name=$(head -c 14 packet | tr -dc A-Za-z)
    case "$name" in {dies_at}*) kill -9 $$ ;; esac
    case "$name" in
    Listeners*) say '\000\201\245Ready\200' ;;
    State* | Connections*) say '\000\201\245Taken\201\245count\001' ;;
    End*) say '\000\201\250Imported\201\253connections\001' ;;
    Yours*) say '\000\201\245Begun\200'; kill -9 $$ ;;
    esac
done
"#
    );
    fs::write(&path, script).expect("the folder is ours");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("it is ours");
    path
}

#[test]
fn a_process_that_dies_before_it_serves_leaves_everything_with_the_old_one() {
    let mut server = Server::start(&Config::new(), 1);
    let mut alice = server.client("alice");
    alice.subscribes("news");
    for dies_at in [
        "Welcome",
        "Listeners",
        "State",
        "Connections",
        "End",
        "Yours",
    ] {
        let mimic = mimic(&server, dies_at);
        let mimic = mimic.to_str().expect("a plain name");
        let output = server.is_asked(&["upgrade", "--binary", mimic]);
        let words = said(&output);
        assert_eq!(output.status.code(), Some(1), "{dies_at}: {words}");
        assert!(
            words.contains("the process before goes on"),
            "{dies_at}: {words}"
        );
        assert!(server.is_running(), "{dies_at}");
        server.api().publishes("e", "news", dies_at);
        assert_eq!(alice.expects("e", "news")["data"], dies_at);
        alice.expects_pong();
    }
    // Nothing of it stands in the way of the real one.
    server.is_upgraded();
    alice.expects_pong();
}

#[test]
fn a_process_that_dies_when_it_serves_is_told_as_what_it_is() {
    let mut server = Server::start(&Config::new(), 1);
    let mut alice = server.client("alice");
    alice.subscribes("news");
    let mimic = mimic(&server, "nothing");
    let asking = server.asking(&["upgrade", "--binary", mimic.to_str().expect("a plain name")]);
    let asked = Command::new(&asking[0])
        .args(&asking[1..])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    assert!(server.exits().success());
    alice.ends();
    // As a service manager does.
    let fresh = starts_anew(&server);
    let output = asked.wait_with_output().expect("it ends");
    let words = said(&output);
    assert_eq!(output.status.code(), Some(1), "{words}");
    assert!(words.contains("started anew"), "{words}");
    is_up(&server);
    drop(fresh);
}

#[test]
fn an_attempt_for_a_target_that_is_no_more_is_a_dead_letter_only_if_it_fails() {
    for (status, letters) in [(200, 0), (500, 1)] {
        let target = Held::start();
        let config = target.is_told_by(Config::new());
        let (mut server, mut alice, attempt) = is_telling(&target, &config, 1);
        reconfigures(&server, |json| {
            json["app_manager"]["array"]["apps"][0]["webhooks"] = json!([]);
        });
        let pid = is_followed(&server);
        answers(attempt, status);
        server.is_taken_over_by(pid);
        let dead = server.is_asked(&["webhooks", "dead", "list", "--json"]);
        let dead: Value = serde_json::from_slice(&dead.stdout).expect("it is JSON");
        let found = dead["letters"].as_array().map(Vec::len);
        assert_eq!(found, Some(letters), "{status}: {dead}");
        alice.expects_pong();
    }
}
