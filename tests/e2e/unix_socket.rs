//! The listener on a Unix socket, by itself and behind the proxies that people put before it.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::json;

use crate::support::config::{Config, KEY, SECRET};
use crate::support::eventually;
use crate::support::server::{Server, next_port, own_address};
use crate::support::sign::{api_query, unix_now};
use crate::support::skip::skip;
use crate::support::wire::{WS_KEY, Wire};
use crate::support::{client::Client, config::APP_ID};
use crate::upgrade::reconfigures;

const LIMIT: u64 = 3;

/// A node on a socket, and on TCP, where the tests see that it is ready.
fn node(path: &Path, more: serde_json::Value, shards: usize) -> Server {
    let socket = json!({"enabled": true, "path": path, "also_tcp": true});
    Server::start(
        &Config::new()
            .with(json!({"unix_socket": socket}))
            .with(more),
        shards,
    )
}

fn limited() -> serde_json::Value {
    let limit = json!({"max_requests": LIMIT, "window_seconds": 600});
    json!({"rate_limiter": {"enabled": true, "api_rate_limit": limit}})
}

/// One request on a connection of its own; the answer as it came.
fn asks(path: &Path, headers: &str) -> String {
    may_ask(path, headers).expect("an answer")
}

fn may_ask(path: &Path, headers: &str) -> std::io::Result<String> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let resource = format!("/apps/{APP_ID}/channels");
    let query = api_query((KEY, SECRET), "GET", &resource, &[], b"", unix_now());
    let head =
        format!("GET {resource}?{query} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(head.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn status(answer: &str) -> u16 {
    let status = answer.split(' ').nth(1).and_then(|it| it.parse().ok());
    status.unwrap_or_else(|| panic!("no answer: {answer:?}"))
}

#[test]
fn many_connections_of_one_socket_are_served_by_all_shards() {
    let folder = tempfile::tempdir().expect("a folder");
    // Its folder is made.
    let path = folder.path().join("run/sockudo.sock");
    let mut server = node(&path, json!({}), 3);
    let mode = fs::metadata(&path)
        .expect("it is there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o660);
    let head = format!(
        "GET /app/{KEY}?protocol=7 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {WS_KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    );
    let clients: Vec<UnixStream> = (0..300)
        .map(|_| {
            let mut stream = UnixStream::connect(&path).expect("it listens");
            stream
                .set_read_timeout(Some(Duration::from_secs(30)))
                .expect("a limit");
            stream.write_all(head.as_bytes()).expect("it reads");
            let mut answer = Vec::new();
            while !answer.windows(9).any(|it| it == b"socket_id") {
                let mut bytes = [0; 1_024];
                let count = stream.read(&mut bytes).expect("an answer");
                assert!(count > 0, "{}", String::from_utf8_lossy(&answer));
                answer.extend_from_slice(&bytes[..count]);
            }
            stream
        })
        .collect();
    eventually("all shards to have their part", || {
        let of = |shard: usize| {
            let label = format!("shard=\"{shard}\"");
            server.metric_with("sockudo_shard_connections", &label)
        };
        (0..3)
            .all(|shard| of(shard).unwrap_or(0.0) >= 30.0)
            .then_some(())
    });
    drop(clients);
    server.drains();
    assert!(server.exits().success());
    assert!(!path.exists(), "the file goes with the process");
}

#[test]
fn what_comes_over_the_socket_is_believed_whom_it_forwards_and_tcp_is_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("sockudo.sock");
    let server = node(&path, limited(), 2);
    for client in 0..3 {
        let header = format!("X-Forwarded-For: 203.0.113.{client}\r\n");
        for _ in 0..LIMIT {
            assert_eq!(status(&asks(&path, &header)), 200);
        }
        assert_eq!(status(&asks(&path, &header)), 429);
    }
    // Without a word of whom they come from all are one.
    for _ in 0..LIMIT {
        assert_eq!(status(&asks(&path, "")), 200);
    }
    assert_eq!(status(&asks(&path, "")), 429);
    let mut api = server.api();
    for number in 0..=LIMIT {
        let reply = api.get("/channels", &[]);
        assert_eq!(reply.status, if number < LIMIT { 200 } else { 429 });
    }
}

#[test]
fn a_socket_in_use_and_a_file_are_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("sockudo.sock");
    let config = |path: &Path| {
        let socket = json!({"enabled": true, "path": path});
        Config::new().with(json!({"unix_socket": socket}))
    };
    let first = node(&path, json!({}), 1);
    let file = folder.path().join("text");
    fs::write(&file, "text").expect("written");
    for (path, fault) in [
        (&path, "another process answers there"),
        (&file, "something else than a socket"),
    ] {
        let mut server = Server::spawn(&config(path), 1);
        assert_eq!(server.exits().code(), Some(1));
        let log = server.log();
        assert!(
            log.contains("unix_socket.path") && log.contains(fault),
            "{log}"
        );
    }
    assert_eq!(status(&asks(&path, "")), 200);
    assert_eq!(fs::read(&file).expect("there"), b"text");
    drop(first); // Killed: its file stays, and is taken over.
    assert!(path.exists());
    let alone = Server::spawn(&config(&path), 1);
    // What the kernel still takes for the one that was killed is never answered.
    eventually("the successor's answer", || {
        let answer = may_ask(&path, "").ok()?;
        (status(&answer) == 200).then_some(())
    });
    assert!(
        std::net::TcpStream::connect(alone.address).is_err(),
        "instead of TCP"
    );
}

#[test]
fn a_sockets_file_is_given_to_the_user_and_the_group_that_are_set() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("sockudo.sock");
    let config = |more: &serde_json::Value| {
        let mut socket = json!({"enabled": true, "path": path, "also_tcp": true});
        let keys = socket.as_object_mut().expect("an object");
        keys.extend(more.as_object().expect("an object").clone());
        Config::new().with(json!({"unix_socket": socket}))
    };
    for (more, key) in [
        (json!({"owner": "nobody of this name"}), "unix_socket.owner"),
        (json!({"group": "nobody of this name"}), "unix_socket.group"),
    ] {
        let mut server = Server::spawn(&config(&more), 1);
        assert_eq!(server.exits().code(), Some(78));
        let log = server.log();
        assert!(
            log.contains(key) && log.contains("nobody of this name"),
            "{log}"
        );
    }
    let more = json!({"owner": "65534", "group": 12_345.to_string(), "permission_mode": "640"});
    if !rustix::process::geteuid().is_root() {
        let mut server = Server::spawn(&config(&more), 1);
        assert_eq!(server.exits().code(), Some(1));
        let log = server.log();
        assert!(
            log.contains("unix_socket.owner = 65534, unix_socket.group = 12345"),
            "{log}"
        );
        return assert!(!path.exists());
    }
    let mut server = Server::start(&config(&more), 1);
    let whose = || {
        let file = fs::metadata(&path).expect("it is there");
        (file.uid(), file.gid(), file.mode() & 0o777)
    };
    assert_eq!(whose(), (65_534, 12_345, 0o640));
    reconfigures(&server, |json| {
        json["unix_socket"]["owner"] = json!("root");
        json["unix_socket"]["permission_mode"] = json!("600");
    });
    server.is_upgraded();
    assert_eq!(whose(), (0, 12_345, 0o600));
    assert_eq!(status(&asks(&path, "")), 200);
}

/// A proxy with a configuration of its own. Dropping it ends the process.
struct Proxy {
    child: Child,
    address: SocketAddr,
}

impl Proxy {
    fn start(
        program: &str,
        arguments: &[&str],
        folder: &Path,
        text: impl Fn(SocketAddr) -> String,
    ) -> Self {
        let address = SocketAddr::from((own_address(), next_port()));
        fs::write(folder.join("proxy.conf"), text(address)).expect("written");
        let child = Command::new(program)
            .args(arguments)
            .current_dir(folder)
            .stdin(Stdio::null())
            .spawn()
            .expect("it starts");
        eventually("the proxy", || std::net::TcpStream::connect(address).ok());
        Self { child, address }
    }

    fn serves(&self, limit: bool) {
        let path = format!("/app/{KEY}?protocol=7");
        let mut alice = Client::over(Wire::connect(self.address), &path, "alice", KEY, SECRET);
        alice.subscribes("private-news");
        let resource = format!("/apps/{APP_ID}/channels");
        let query = api_query((KEY, SECRET), "GET", &resource, &[], b"", unix_now());
        // The proxy says that these are other clients, or one by one that they are this one.
        for number in 0..=LIMIT {
            let mut wire = Wire::connect(self.address);
            wire.sends(format!(
                "GET {resource}?{query} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
            ));
            let refused = limit && number == LIMIT;
            assert_eq!(wire.reply().status, if refused { 429 } else { 200 });
        }
        alice.expects_pong();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // A killed nginx would leave its workers behind.
        let pid = self.child.id().to_string();
        let _ = Command::new("kill").args(["-s", "TERM", &pid]).status();
        let _ = self.child.wait();
    }
}

fn found(program: &str) -> Option<PathBuf> {
    let path = Path::new("/usr/sbin").join(program);
    path.exists().then_some(path)
}

#[test]
fn haproxy_and_nginx_reach_it_over_the_socket() {
    let name = "haproxy_and_nginx_reach_it_over_the_socket";
    let (Some(haproxy), Some(nginx)) = (found("haproxy"), found("nginx")) else {
        return skip(
            name,
            "there is no haproxy or nginx; `scripts/test` installs them",
        );
    };
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("sockudo.sock");
    let text = path.display();
    let nginx = nginx.to_str().expect("text");
    let haproxy = haproxy.to_str().expect("text");
    {
        let _server = node(&path, limited(), 2);
        let proxy = Proxy::start(
            nginx,
            &["-c", "proxy.conf", "-p", ".", "-e", "error.log"],
            folder.path(),
            |at| {
                format!(
                "user root; daemon off; pid nginx.pid; events {{}}
                 http {{ access_log off; server {{ listen {at}; location / {{
                     proxy_pass http://unix:{text}:; proxy_http_version 1.1;
                     proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $http_connection;
                     proxy_set_header X-Forwarded-For $remote_addr;
                 }} }} }}"
            )
            },
        );
        proxy.serves(true);
    }
    for (more, how) in [
        (json!({}), ""),
        (json!({"net": {"proxy_protocol": "v1v2"}}), "send-proxy-v2"),
    ] {
        let mut keys = limited();
        crate::support::config::merge(&mut keys, more);
        let _server = node(&path, keys, 2);
        let proxy = Proxy::start(haproxy, &["-db", "-f", "proxy.conf"], folder.path(), |at| {
            format!(
                "global\n maxconn 100\ndefaults\n mode http\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n \
                 timeout tunnel 60s\n option forwardfor\nlisten sockudo\n bind {at}\n server node unix@{text} {how}\n"
            )
        });
        proxy.serves(true);
    }
}
