//! TLS on the port: what openssl, curl and the npm clients make of it.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore, ServerConfig, ServerConnection,
    StreamOwned, SupportedProtocolVersion,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
    version::{TLS12, TLS13},
};
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};
use sockudo::bridge::{port_tls::PortTls, tickets::TicketKeys};
use sockudo::config::{Sources, load};

use crate::certificates::Certificates;
use crate::clients::node_with;
use crate::on_one_and_three_shards;
use crate::support::config::Config;
use crate::support::eventually;
use crate::support::server::{Server, next_port, own_address};
use crate::support::skip::skip;

/// Certificates of the server's address, or the end of the test where they cannot be made.
macro_rules! certificates_or_skip {
    ($test:literal) => {
        match Certificates::make(own_address().into()) {
            Some(files) => files,
            None => return skip($test, "openssl is not installed: run scripts/test"),
        }
    };
}

fn config(files: &Certificates, more: Value) -> Config {
    let ssl = json!({
        "enabled": true, "cert_path": files.certificate("server"), "key_path": files.key("server"),
    });
    Config::new()
        .with(json!({"ssl": ssl}))
        .with(json!({"ssl": more}))
}

fn curl(arguments: &[&str]) -> Output {
    let mut curl = Command::new("curl");
    let curl = curl.args(["--silent", "--show-error", "--max-time", "15"]);
    curl.args(arguments).output().expect("curl is installed")
}

/// Clients of one version of TLS that trust the authority.
pub(crate) fn clients(
    files: &Certificates,
    version: &'static SupportedProtocolVersion,
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let authority = CertificateDer::from_pem_file(files.certificate("ca")).expect("a certificate");
    roots.add(authority).expect("an authority");
    let config = ClientConfig::builder_with_protocol_versions(&[version]);
    Arc::new(config.with_root_certificates(roots).with_no_client_auth())
}

/// A connection over TLS that has asked for `/up`.
pub(crate) fn connects(
    config: &Arc<ClientConfig>,
    address: SocketAddr,
) -> StreamOwned<ClientConnection, TcpStream> {
    let name = ServerName::from(address.ip());
    let client = ClientConnection::new(Arc::clone(config), name).expect("a client");
    let stream = TcpStream::connect(address).expect("it listens");
    let patience = Some(Duration::from_secs(30));
    stream.set_read_timeout(patience).expect("a socket");
    let mut stream = StreamOwned::new(client, stream);
    asks_up(&mut stream);
    stream
}

/// A request for `/up` over TLS; its answer begins with 200.
pub(crate) fn asks_up(stream: &mut StreamOwned<ClientConnection, TcpStream>) {
    let request = b"GET /up HTTP/1.1\r\nHost: h.test\r\n\r\n";
    stream.write_all(request).expect("it is read");
    let (mut answer, mut byte) = (Vec::new(), [0]);
    while !answer.ends_with(b"\r\n\r\nOK") {
        stream.read_exact(&mut byte).expect("an answer");
        answer.extend_from_slice(&byte);
    }
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{answer:?}");
}

/// What `openssl s_client` says of a connection, and of `/up` over it.
fn openssl(server: &Server, files: &Certificates, arguments: &[&str]) -> String {
    let mut command = Command::new("openssl");
    command.args([
        "s_client",
        "-ign_eof",
        "-connect",
        &server.address.to_string(),
    ]);
    command
        .args(["-CAfile", &files.certificate("ca")])
        .args(arguments);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("openssl is installed");
    let mut input = child.stdin.take().expect("it is piped");
    let request = b"GET /up HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
    // It may be refused before that.
    let _ = input.write_all(request);
    drop(input);
    let output = child.wait_with_output().expect("it ends");
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

#[track_caller]
fn says(output: &str, parts: &[&str]) {
    for part in parts {
        assert!(output.contains(part), "no {part:?} in:\n{output}");
    }
}

fn openssl_and_curl_are_served_by_both_versions(shards: usize) {
    let files = certificates_or_skip!("openssl_and_curl_are_served_by_both_versions");
    let server = Server::start(&config(&files, json!({})), shards);
    for (flag, version) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let output = openssl(&server, &files, &[flag, "-alpn", "h2,http/1.1"]);
        says(
            &output,
            &[
                version,
                "Verify return code: 0 (ok)",
                "HTTP/1.1 200 OK",
                "ALPN protocol: http/1.1",
            ],
        );
    }
    for flag in ["-tls1", "-tls1_1"] {
        let output = openssl(&server, &files, &[flag, "-cipher", "ALL:@SECLEVEL=0"]);
        assert!(!output.contains("200 OK"), "{output}");
    }
    let (ca, address) = (files.certificate("ca"), server.address);
    let output = curl(&["--cacert", &ca, &format!("https://{address}/up")]);
    assert!(output.status.success(), "{output:?}");
    let output = curl(&[
        "--write-out",
        " %{http_code}",
        &format!("http://{address}/up"),
    ]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    says(&said, &["speaks TLS only", " 400"]);
}

fn pusher_js_and_its_library_work_over_tls(shards: usize) {
    let test = "pusher_js_and_its_library_work_over_tls";
    let files = certificates_or_skip!("pusher_js_and_its_library_work_over_tls");
    let server = Server::start(&config(&files, json!({})), shards);
    let ca = [("NODE_EXTRA_CA_CERTS", files.certificate("ca"))];
    let Some(script) = node_with(test, server.address, "tls.mjs", &[], &ca) else {
        return;
    };
    script.succeeds();
}

fn each_name_has_its_certificate(shards: usize) {
    let files = certificates_or_skip!("each_name_has_its_certificate");
    let more = json!({
        "extra_cert_paths": [files.certificate("foreign")], "extra_key_paths": [files.key("foreign")],
    });
    let server = Server::start(&config(&files, more), shards);
    for (name, subject) in [
        ("elsewhere.test", "subject=CN = foreign"),
        ("unknown.test", "subject=CN = server"),
    ] {
        let output = openssl(&server, &files, &["-servername", name]);
        says(&output, &[subject, "HTTP/1.1 200 OK"]);
    }
    let output = openssl(&server, &files, &["-noservername"]);
    says(&output, &["subject=CN = server"]);
}

fn clients_are_asked_who_they_are(shards: usize) {
    let files = certificates_or_skip!("clients_are_asked_who_they_are");
    let ca = files.certificate("ca");
    for (rule, passes_without) in [("required", false), ("optional", true)] {
        let more = json!({"ca_path": ca, "client_certificates": rule});
        let server = Server::start(&config(&files, more), shards);
        let url = format!("https://{}/up", server.address);
        let output = curl(&["--cacert", &ca, &url]);
        assert_eq!(
            output.status.success(),
            passes_without,
            "{rule}: {output:?}"
        );
        let (cert, key) = (files.certificate("client"), files.key("client"));
        let output = curl(&["--cacert", &ca, "--cert", &cert, "--key", &key, &url]);
        assert!(output.status.success(), "{rule}: {output:?}");
    }
}

fn a_reload_shows_another_certificate_and_a_broken_file_keeps_the_old(shards: usize) {
    let files = certificates_or_skip!("a_reload_shows_another_certificate");
    let server = Server::start(&config(&files, json!({})), shards);
    let copy = |from: &str, to: &str| {
        std::fs::copy(files.certificate(from), files.certificate(to)).expect("a copy");
        std::fs::copy(files.key(from), files.key(to)).expect("a copy");
    };
    let shown = || openssl(&server, &files, &[]);
    says(&shown(), &["subject=CN = server"]);
    copy("client", "server");
    server.signal(libc::SIGHUP);
    eventually("another certificate", || {
        shown().contains("subject=CN = client").then_some(())
    });
    std::fs::write(files.certificate("server"), "no certificate").expect("it can be written");
    server.signal(libc::SIGHUP);
    eventually("a refusal in the log", || {
        let log = server.log();
        let is_said = log.contains("ssl.cert_path") && log.contains("holds no certificate in PEM");
        is_said.then_some(())
    });
    says(&shown(), &["subject=CN = client", "HTTP/1.1 200 OK"]);
}

/// Whoever is connected stays, and whoever comes while files change is served with either certificate.
fn reloads_of_certificates_end_no_connection_and_fail_no_handshake(shards: usize) {
    let files = certificates_or_skip!("reloads_of_certificates_end_no_connection");
    let shown = |name: &str| {
        std::fs::copy(files.certificate(name), files.certificate("shown")).expect("a copy");
        std::fs::copy(files.key(name), files.key("shown")).expect("a copy");
    };
    shown("server");
    let shows = json!({"cert_path": files.certificate("shown"), "key_path": files.key("shown")});
    let server = Server::start(&config(&files, shows), shards);
    let of_versions = [&TLS13, &TLS12].map(|version| clients(&files, version));
    let mut stay: Vec<_> = (0..20)
        .map(|number| connects(&of_versions[number % 2], server.address))
        .collect();
    for round in 0..10 {
        let name = ["client", "server"][round % 2];
        shown(name);
        server.signal(libc::SIGHUP);
        let own = CertificateDer::from_pem_file(files.certificate(name)).expect("a certificate");
        // Full handshakes, each of a client that has no session.
        let comes = |number: usize| {
            let version = [&TLS13, &TLS12][number % 2];
            let mut came = connects(&clients(&files, version), server.address);
            asks_up(&mut came);
            came.conn.peer_certificates().expect("it showed one")[0] == own
        };
        assert_eq!((0..6).map(comes).count(), 6);
        eventually("the other certificate", || comes(round).then_some(()));
        stay.iter_mut().for_each(asks_up);
    }
    assert_eq!(stay.len(), 20);
}

fn tls_follows_the_header_of_a_trusted_proxy(shards: usize) {
    let files = certificates_or_skip!("tls_follows_the_header_of_a_trusted_proxy");
    let trusting = json!({
        "net": {"proxy_protocol": "v1v2"}, "rate_limiter": {"trusted_proxies": ["127.0.0.2"]},
    });
    let server = Server::start(&config(&files, json!({})).with(trusting), shards);
    let (ca, url) = (
        files.certificate("ca"),
        format!("https://{}/up", server.address),
    );
    let from = |source: &str, more: &[&str]| {
        let common = ["--interface", source, "--cacert", &ca, &url];
        curl(&[&common[..], more].concat()).status.success()
    };
    assert!(from("127.0.0.2", &["--haproxy-protocol"]));
    assert!(
        !from("127.0.0.2", &[]),
        "a proxy says whose the connection is"
    );
    assert!(from("127.0.0.3", &[]));
    assert!(
        !from("127.0.0.3", &["--haproxy-protocol"]),
        "a stranger may not"
    );
}

fn an_encrypted_key_is_opened_by_its_passphrase(shards: usize) {
    let files = certificates_or_skip!("an_encrypted_key_is_opened_by_its_passphrase");
    let sealed = format!("{}.sealed", files.key("server"));
    let mut openssl_pkcs8 = Command::new("openssl");
    openssl_pkcs8.args([
        "pkcs8",
        "-topk8",
        "-in",
        &files.key("server"),
        "-out",
        &sealed,
    ]);
    let status = openssl_pkcs8.args(["-passout", "pass:opens it"]).status();
    assert!(status.expect("openssl is installed").success());
    let with = |passphrase: Value| json!({"key_path": sealed, "passphrase": passphrase});
    let server = Server::start(&config(&files, with(json!("opens it"))), shards);
    says(&openssl(&server, &files, &[]), &["HTTP/1.1 200 OK"]);
    for (passphrase, part) in [
        (json!("does not"), "ssl.passphrase does not open the key"),
        (Value::Null, "the key is encrypted: set ssl.passphrase"),
    ] {
        let mut server = Server::spawn(&config(&files, with(passphrase)), shards);
        assert_eq!(server.exits().code(), Some(78), "{}", server.log());
        says(&server.log(), &["ssl.key_path", part]);
    }
}

fn plain_http_is_sent_to_https(shards: usize) {
    let files = certificates_or_skip!("plain_http_is_sent_to_https");
    let port = next_port();
    let more = json!({"redirect_http": true, "http_port": port});
    let server = Server::start(&config(&files, more), shards);
    let (host, ca) = (server.address.ip(), files.certificate("ca"));
    let url = format!("http://{host}:{port}/up");
    let output = curl(&["--write-out", "%{http_code} %{redirect_url}", &url]);
    let expected = format!("308 https://{}/up", server.address);
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
    let output = curl(&["--location", "--cacert", &ca, &url]);
    assert_eq!(output.stdout, b"OK", "{output:?}");
    // More than are served at once have begun to ask and say no more: whoever asks is heard.
    let silent: Vec<TcpStream> = (0..300)
        .map(|_| {
            let mut stream = TcpStream::connect((host, port)).expect("it listens");
            stream.write_all(b"GET / HT").expect("written");
            stream
        })
        .collect();
    let output = curl(&[
        "--write-out",
        "%{http_code} %{redirect_url}",
        "--max-time",
        "8",
        &url,
    ]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
    drop(silent);
}

#[test]
fn another_server_on_the_redirects_port_is_told_of() {
    let files = certificates_or_skip!("another_server_on_the_redirects_port_is_told_of");
    let us = format!("(pid {})", std::process::id());
    for shares in [true, false] {
        let port = next_port();
        let other = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        other.set_reuse_port(shares).expect("a socket");
        let address = SocketAddr::from((own_address(), port));
        other.bind(&address.into()).expect("it is free");
        other.listen(1).expect("it is bound");
        let config = config(&files, json!({"redirect_http": true, "http_port": port}));
        if shares {
            let server = Server::start(&config, 1);
            let log = server.log();
            let mut lines = log.lines();
            let line = lines.find(|line| line.contains("another process listens here too"));
            let line = line.unwrap_or_else(|| panic!("{log}"));
            assert!(line.contains(&address.to_string()), "{line}");
        } else {
            let mut server = Server::spawn(&config, 1);
            assert_eq!(server.exits().code(), Some(1));
            says(&server.log(), &["ssl.http_port", "it is held by", &us]);
        }
    }
}

/// A file that only its owner may read.
fn write_keys(path: &str, text: &str) {
    let mut file = std::fs::OpenOptions::new();
    let file = file.write(true).create(true).truncate(true).mode(0o600);
    let written = file
        .open(path)
        .and_then(|mut it| it.write_all(text.as_bytes()));
    written.expect("it can be written");
}

fn nodes_that_share_keys_resume_each_others_sessions(shards: usize) {
    let files = certificates_or_skip!("nodes_that_share_keys_resume_each_others_sessions");
    let (keys, session) = (files.key("tickets"), files.key("session"));
    let (old, new) = ("5a".repeat(48), "c3".repeat(48));
    write_keys(&keys, &old);
    let sharing = config(&files, json!({"ticket_keys_path": keys}));
    let (one, other) = (
        Server::start(&sharing, shards),
        Server::start(&sharing, shards),
    );
    let alone = Server::start(&config(&files, json!({})), shards);
    for version in ["-tls1_2", "-tls1_3"] {
        openssl(&one, &files, &[version, "-sess_out", &session]);
        let resumes = |server| {
            let output = openssl(server, &files, &[version, "-sess_in", &session]);
            says(&output, &["HTTP/1.1 200 OK"]);
            output.contains("Reused, TLS")
        };
        assert!(resumes(&other), "{version}");
        assert!(!resumes(&alone), "{version}: another node's ticket");
    }
    openssl(&one, &files, &["-sess_out", &session]);
    let resumes = || {
        let output = openssl(&other, &files, &["-sess_in", &session]);
        output.contains("Reused, TLS")
    };
    let reload = || {
        let reloads = || other.log().matches("configuration reloaded").count();
        let before = reloads();
        other.signal(libc::SIGHUP);
        eventually("a reload", || (reloads() > before).then_some(()));
    };
    write_keys(&keys, &format!("{new}\n{old}\n"));
    reload();
    assert!(resumes(), "the old key is still there");
    write_keys(&keys, &new);
    reload();
    eventually("the old key is gone on all shards", || {
        (!resumes()).then_some(())
    });
}

/// TLS as a node offers it that begins now and was given these keys.
fn port(ssl: Value, before: &TicketKeys, now_s: u64) -> PortTls {
    let file = tempfile::Builder::new()
        .suffix(".json")
        .tempfile()
        .expect("a file");
    std::fs::write(file.path(), json!({"ssl": ssl}).to_string()).expect("it can be written");
    let sources = Sources {
        config: Some(file.path().to_owned()),
        env_file: None,
        search: Vec::new(),
        environment: std::collections::BTreeMap::new(),
        flags: Vec::new(),
        lenient: false,
        allow_demo_app: true,
    };
    let loaded = load(&sources).expect("a configuration");
    let port = PortTls::read(&loaded.config.ssl, before, now_s);
    port.expect("files that can be used")
        .expect("it is enabled")
}

/// Shakes hands in memory. Whether an earlier session went on.
fn resumes(clients: &Arc<ClientConfig>, server: &Arc<ServerConfig>) -> bool {
    let name = ServerName::from(std::net::IpAddr::from(own_address()));
    let mut client = ClientConnection::new(Arc::clone(clients), name).expect("a client");
    let mut server = ServerConnection::new(Arc::clone(server)).expect("a server");
    while client.wants_write() || server.wants_write() {
        let mut flight = Vec::new();
        client.write_tls(&mut flight).expect("memory");
        server.read_tls(&mut &flight[..]).expect("memory");
        server.process_new_packets().expect("TLS");
        flight.clear();
        while server.wants_write() {
            server.write_tls(&mut flight).expect("memory");
        }
        let mut flight = &flight[..];
        while !flight.is_empty() {
            client.read_tls(&mut flight).expect("memory");
            client.process_new_packets().expect("TLS");
        }
    }
    assert!(!client.is_handshaking());
    client.handshake_kind() == Some(HandshakeKind::Resumed)
}

#[test]
fn sessions_go_on_where_the_keys_went_and_not_when_a_key_is_too_old() {
    const HOUR_S: u64 = 3_600;
    const NOW_S: u64 = 1_800_000_000;
    let files = certificates_or_skip!("sessions_go_on_where_the_keys_went");
    let ssl = json!({
        "enabled": true, "cert_path": files.certificate("server"), "key_path": files.key("server"),
    });
    let mut asking = ssl.clone();
    asking["ca_path"] = json!(files.certificate("ca"));
    asking["client_certificates"] = json!("optional");
    let authority = CertificateDer::from_pem_file(files.certificate("ca")).expect("a certificate");
    let mut roots = RootCertStore::empty();
    roots.add(authority).expect("an authority");
    for version in [&TLS12, &TLS13] {
        let nobody = TicketKeys::default();
        let mut first = port(ssl.clone(), &nobody, NOW_S);
        let clients = ClientConfig::builder_with_protocol_versions(&[version]);
        let clients = clients.with_root_certificates(roots.clone());
        let clients = Arc::new(clients.with_no_client_auth());
        assert!(!resumes(&clients, &first.port.config), "the first time");
        assert!(resumes(&clients, &first.port.config));
        let handed = serde_json::to_vec(first.tickets()).expect("plain data");
        let handed: TicketKeys = serde_json::from_slice(&handed).expect("plain data");
        // Each attempt leaves a ticket of the node that was tried: so the first one is tried again.
        for (what, ssl, keys, hours, goes_on) in [
            ("a successor", &ssl, &handed, 1, true),
            ("one whose key is new", &ssl, &handed, 7, true),
            ("one that begins too late", &ssl, &handed, 12, false),
            ("one without the keys", &ssl, &nobody, 1, false),
            ("one that asks who clients are", &asking, &handed, 1, false),
        ] {
            resumes(&clients, &first.port.config);
            let second = port(ssl.clone(), keys, NOW_S + hours * HOUR_S);
            let kind = resumes(&clients, &second.port.config);
            assert_eq!(kind, goes_on, "{what}, {version:?}");
        }
        resumes(&clients, &first.port.config);
        for (hours, renews, goes_on) in [(5, false, true), (6, true, true), (6, false, true)] {
            let renewed = first.renew_tickets(NOW_S + hours * HOUR_S);
            assert_eq!(renewed, Ok(renews), "after {hours} hours");
            assert_eq!(resumes(&clients, &first.port.config), goes_on, "{hours}");
        }
        assert_eq!(first.renew_tickets(NOW_S + 18 * HOUR_S), Ok(true));
        assert!(
            !resumes(&clients, &first.port.config),
            "both keys are too old"
        );
    }
}

#[test]
fn files_that_cannot_be_used_are_refused_at_the_start_with_their_key() {
    let files = certificates_or_skip!("files_that_cannot_be_used_are_refused");
    for (more, parts) in [
        (
            json!({"cert_path": "/nowhere.pem"}),
            ["ssl.cert_path = \"/nowhere.pem\"", "cannot be read"],
        ),
        (
            json!({"key_path": files.key("client")}),
            ["ssl.key_path", "the key's own certificate comes first"],
        ),
        (
            json!({"key_path": files.certificate("server")}),
            ["ssl.key_path", "holds no private key in PEM"],
        ),
        (
            json!({"extra_cert_paths": [files.certificate("foreign")]}),
            ["ssl.extra_cert_paths has 1", "ssl.extra_key_paths 0"],
        ),
        (
            json!({"ca_path": files.key("client")}),
            ["ssl.ca_path", "holds no certificate in PEM"],
        ),
        (
            json!({"ticket_keys_path": files.certificate("ca")}),
            ["ssl.ticket_keys_path", "chmod 640"],
        ),
        (
            json!({"ticket_keys_path": "/nowhere"}),
            ["ssl.ticket_keys_path", "cannot be read"],
        ),
        (
            json!({"ticket_keys_path": files.key("server")}),
            ["ssl.ticket_keys_path", "line 1 is no key"],
        ),
    ] {
        let mut server = Server::spawn(&config(&files, more), 1);
        let status = server.exits();
        assert_eq!(status.code(), Some(78), "{}", server.log());
        says(&server.log(), &parts);
    }
}

on_one_and_three_shards!(
    openssl_and_curl_are_served_by_both_versions,
    pusher_js_and_its_library_work_over_tls,
    each_name_has_its_certificate,
    clients_are_asked_who_they_are,
    an_encrypted_key_is_opened_by_its_passphrase,
    tls_follows_the_header_of_a_trusted_proxy,
    plain_http_is_sent_to_https,
    nodes_that_share_keys_resume_each_others_sessions,
    a_reload_shows_another_certificate_and_a_broken_file_keeps_the_old,
    reloads_of_certificates_end_no_connection_and_fail_no_handshake,
);
