//! A running node is followed by another process on the same sockets, and no client notices.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustls::{
    HandshakeKind,
    version::{TLS12, TLS13},
};
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

use crate::certificates::Certificates;
use crate::on_one_and_three_shards;
use crate::returning::{Returning, TEN_THOUSAND};
use crate::support::client::Client;
use crate::support::config::{Config, KEY, SECRET};
use crate::support::eventually;
use crate::support::server::{Server, next_port, own_address};
use crate::support::skip::skip;
use crate::support::webhook::WebhookSink;
use crate::support::wire::Wire;
use crate::tls::{asks_up, clients, connects};

fn said(output: &Output) -> String {
    let parts = [&output.stdout, &output.stderr];
    parts.map(|part| String::from_utf8_lossy(part)).concat()
}

/// Asks again and again, on a connection of its own each time; the number of answers, and what was none.
fn asks_until(
    server: &Server,
    ends: &Arc<AtomicBool>,
) -> std::thread::JoinHandle<(u64, Vec<String>)> {
    let (address, ends) = (server.address, Arc::clone(ends));
    std::thread::spawn(move || {
        let (mut answered, mut unanswered) = (0, Vec::new());
        while !ends.load(Ordering::Relaxed) {
            match TcpStream::connect(address) {
                Ok(stream) => {
                    let mut wire = Wire::over(stream);
                    wire.sends("GET /up HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
                    match wire.try_reply().map(|reply| reply.status) {
                        Some(200) => answered += 1,
                        other => unanswered.push(format!("{other:?}")),
                    }
                }
                Err(error) => unanswered.push(error.to_string()),
            }
        }
        (answered, unanswered)
    })
}

fn no_request_of_ten_upgrades_is_refused_or_lost(shards: usize) {
    let mut server = Server::start(&Config::new(), shards);
    let ends = Arc::new(AtomicBool::new(false));
    let askers: Vec<_> = (0..3).map(|_| asks_until(&server, &ends)).collect();
    let mut silences = Vec::new();
    for number in 1..=10 {
        let report = server.is_upgraded();
        assert_eq!(report["state"], "done");
        assert_eq!(report["number"], number);
        silences.push(report["silence_ms"].as_f64().expect("a number"));
    }
    ends.store(true, Ordering::Relaxed);
    let mut answers = 0;
    for asker in askers {
        let (answered, unanswered) = asker.join().expect("it ends well");
        assert!(unanswered.is_empty(), "{unanswered:?}");
        answers += answered;
    }
    println!("{answers} answers; silences in ms: {silences:.1?}");
    let done = server.metric_with("sockudo_upgrades_total", r#"result="done""#);
    assert_eq!(done, Some(10.0));
    assert!(server.metric("sockudo_upgrade_silence_seconds").is_some());
}

fn a_program_that_cannot_take_over_leaves_everything_with_the_one_that_serves(shards: usize) {
    let config = Config::new().with(json!({"upgrade": {"ready_within_s": 5}}));
    let mut server = Server::start(&config, shards);
    let mut alice = server.client("alice");
    alice.subscribes("news");
    let program = |name: &str, script: &str, mode: u32| -> PathBuf {
        let path = server.folder().join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("the folder is ours");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("it is ours");
        path
    };
    let cases = [
        (server.folder().join("none"), "No such file"),
        (program("plain", "exit 0", 0o644), "may not be executed"),
        (program("ends", "exit 3", 0o755), "ended with exit status 3"),
        (
            program("hangs", "exec sleep 1000", 0o755),
            "it said nothing in time",
        ),
        (
            program("babbles", "printf 'hello' >&0; exec sleep 1000", 0o755),
            "cut short",
        ),
        (
            program("other", "printf '\\000hello' >&0; exec sleep 1000", 0o755),
            "not understood",
        ),
    ];
    let pid = server.pid();
    for (binary, reason) in cases {
        let binary = binary.to_str().expect("a plain name");
        let output = server.is_asked(&["upgrade", "--binary", binary]);
        let words = said(&output);
        assert_eq!(output.status.code(), Some(1), "{binary}: {words}");
        assert!(words.contains(reason), "{binary}: {words}");
        alice.expects_pong();
        server.api().publishes("e", "news", "x");
        alice.expects("e", "news");
        assert!(server.is_running());
        assert_eq!(server.pid(), pid);
    }
    let failed = server.metric_with("sockudo_upgrades_total", r#"result="failed""#);
    assert_eq!(failed, Some(4.0), "those that were started");
    // Nothing of it stands in the way of the real one.
    let report = server.is_upgraded();
    assert_eq!(report["number"], 5);
}

fn a_configuration_that_is_refused_is_said_and_the_old_process_goes_on(shards: usize) {
    let mut server = Server::start(&Config::new(), shards);
    let mut alice = server.client("alice");
    let file = server.folder().join("config.json");
    let right = fs::read(&file).expect("it is there");
    fs::write(&file, "{\"port\": \"nonsense\"}").expect("it is ours");
    let output = server.is_asked(&["upgrade", "--json"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let failure: Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    let error = failure["error"].as_str().expect("a sentence");
    assert!(error.contains("port"), "{error}");
    alice.expects_pong();
    fs::write(&file, right).expect("it is ours");
    server.is_upgraded();
}

#[test]
fn connections_of_an_app_that_is_no_more_are_told_so_and_the_others_stay() {
    let config = Config::new()
        .and_app("second", json!({}))
        .and_app("third", json!({}));
    let mut server = Server::start(&config, 2);
    let mut bob = Client::connect(&server, "bob", "second-key", "second-secret");
    bob.subscribes("news");
    let mut carol = Client::connect(&server, "carol", "third-key", "third-secret");
    carol.subscribes("news");
    let mut alice = server.client("alice");
    alice.subscribes("news");
    reconfigures(&server, |json| {
        let apps = json["app_manager"]["array"]["apps"].as_array_mut();
        let apps = apps.expect("apps is a list");
        apps.remove(1);
        apps[1]["enabled"] = json!(false);
    });
    let report = server.is_upgraded();
    assert_eq!(
        (&report["connections"], &report["closed"]),
        (&json!(1), &json!(2)),
        "{report}"
    );
    bob.is_closed_with(4001);
    carol.is_closed_with(4003);
    server.api().publishes("e", "news", "x");
    alice.expects("e", "news");
}

/// What the next process is to read.
pub(crate) fn reconfigures(server: &Server, change: impl FnOnce(&mut Value)) {
    let file = server.folder().join("config.json");
    let text = fs::read(&file).expect("it is there");
    let mut json: Value = serde_json::from_slice(&text).expect("it is JSON");
    change(&mut json);
    fs::write(&file, json.to_string()).expect("it is ours");
}

/// The socket that stands for systemd's.
fn supervisor_at(path: &Path) -> UnixDatagram {
    let supervisor = UnixDatagram::bind(path).expect("a socket");
    let patience = Some(Duration::from_secs(30));
    supervisor.set_read_timeout(patience).expect("a socket");
    supervisor
}

#[test]
fn the_supervisor_hears_of_the_new_process_from_the_old_one_then_from_itself() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("notify");
    let supervisor = supervisor_at(&path);
    let hears = |wanted: &str| loop {
        let mut datagram = [0; 512];
        let bytes = supervisor.recv(&mut datagram).expect(wanted);
        let text = String::from_utf8_lossy(&datagram[..bytes]).into_owned();
        if text.starts_with(wanted) {
            return text;
        }
        assert!(
            text.starts_with("STATUS=") || text.starts_with("WATCHDOG="),
            "{text}"
        );
    };
    let environment = [("NOTIFY_SOCKET", path.to_str().expect("a plain name"))];
    let mut server = Server::start(&Config::new().with_environment(&environment), 2);
    hears("READY=1");
    for _ in 0..2 {
        let report = server.is_upgraded();
        assert_eq!(hears("MAINPID="), format!("MAINPID={}", report["pid"]));
        hears("READY=1");
    }
    server.drains();
    hears("STOPPING=1");
    server.successor_ends();
}

#[test]
fn a_watchdog_is_fed_by_the_process_that_took_over() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("notify");
    let supervisor = supervisor_at(&path);
    let environment = [
        ("NOTIFY_SOCKET", path.to_str().expect("a plain name")),
        ("WATCHDOG_USEC", "1000000"),
    ];
    let mut server = Server::start(&Config::new().with_environment(&environment), 1);
    server.is_upgraded();
    let (mut is_new, mut datagram) = (false, [0; 512]);
    loop {
        let bytes = supervisor.recv(&mut datagram).expect("the watchdog is fed");
        let text = String::from_utf8_lossy(&datagram[..bytes]);
        is_new |= text.starts_with("MAINPID=");
        if is_new && text == "WATCHDOG=1" {
            return;
        }
    }
}

#[test]
fn sigusr2_upgrades_and_the_log_tells() {
    let mut server = Server::start(&Config::new(), 2);
    let mut alice = server.client("alice");
    server.signal(libc::SIGUSR2);
    let line = eventually("the old process to say that the other one serves", || {
        let log = server.log();
        let mut lines = log.lines();
        let line = lines.find(|line| line.contains("another process has taken over"));
        line.map(str::to_owned)
    });
    let pid = line
        .split("pid=")
        .nth(1)
        .and_then(|rest| rest.split(' ').next());
    let pid = pid.and_then(|pid| pid.parse().ok()).expect("it names it");
    server.is_taken_over_by(pid);
    alice.expects_pong();
}

#[test]
fn sockets_files_stay_and_go_with_the_process_that_has_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("proxies.sock");
    let socket = json!({"enabled": true, "path": path, "also_tcp": true});
    let mut server = Server::start(&Config::new().with(json!({"unix_socket": socket})), 2);
    let admin = server.folder().join("admin.sock");
    let inode = |path: &Path| {
        use std::os::unix::fs::MetadataExt as _;
        fs::symlink_metadata(path).expect("it is there").ino()
    };
    let before = [inode(&path), inode(&admin)];
    let name = |pid: u32| fs::read_to_string(format!("/proc/{pid}/comm")).expect("it runs");
    let called = name(server.pid());
    for mode in [0o660, 0o600, 0o666] {
        server.rewrites(|json| json["unix_socket"]["permission_mode"] = json!(format!("{mode:o}")));
        server.is_upgraded();
        assert_eq!([inode(&path), inode(&admin)], before);
        let metadata = fs::symlink_metadata(&path).expect("it is there");
        assert_eq!(metadata.permissions().mode() & 0o777, mode);
        UnixStream::connect(&path).expect("it listens");
        assert!(server.is_asked(&["top", "--json"]).status.success());
        assert_eq!(name(server.pid()), called, "tools find it by its name");
    }
    server.drains();
    server.successor_ends();
    assert!(!path.exists());
    assert!(!admin.exists());
}

/// Client events are told to `sink` one by one.
fn with_client_events_for(sink: &WebhookSink, config: Config) -> Config {
    config
        .with(json!({"webhooks": {
            "batching": {"enabled": false},
            "retry": {"backoff_ms": 100, "backoff_max_ms": 200},
        }}))
        .with_app(json!({"max_client_events_per_second": 0}))
        .with_app(json!({"webhooks": [sink.entry(&["client_event"])]}))
}

fn numbered(number: u64) -> Value {
    json!({"event": "client-n", "channel": "private-x", "data": number.to_string()})
}

fn number_of(event: &Value) -> u64 {
    let data = event["data"].as_str().expect("a text");
    data.parse().expect("a number")
}

#[test]
fn webhooks_that_wait_go_along_and_are_delivered_when_the_target_is_back() {
    let mut sink = WebhookSink::start();
    // Nothing is lost though the old processes end at once, and the target is down over both upgrades.
    let config = Config::new().with(json!({"drain": {"deadline_s": 0}}));
    let mut server = Server::start(&with_client_events_for(&sink, config), 2);
    let mut alice = server.client("alice");
    alice.subscribes("private-x");
    sink.answers_with(&[503; 12]);
    let mut first_attempts = Vec::new();
    let mut taken = 0;
    for number in 0..40_u64 {
        alice.sends(numbered(number));
        if number == 9 || number == 29 {
            alice.expects_pong();
            server.is_upgraded();
        }
    }
    for delivery in 0..40 + 12 {
        let number = number_of(&sink.next());
        if !first_attempts.contains(&number) {
            first_attempts.push(number);
        }
        taken += u64::from(delivery >= 12);
    }
    assert_eq!(first_attempts, Vec::from_iter(0..40), "in their order");
    assert_eq!(taken, 40);
    sink.expects_nothing_for(Duration::from_millis(500));
    alice.expects_pong();
    assert!(
        !server.log().contains("webhook_events_lost"),
        "{}",
        server.log()
    );
}

#[test]
fn an_attempt_under_way_ends_in_the_old_process_and_what_comes_behind_it_waits() {
    let mut sink = WebhookSink::start();
    let config = with_client_events_for(&sink, Config::new());
    let mut server = Server::start(&config, 2);
    let mut alice = server.client("alice");
    alice.subscribes("private-x");
    sink.answers_after(Duration::from_millis(700));
    for number in 0..3_u64 {
        alice.sends(numbered(number));
    }
    assert_eq!(number_of(&sink.next()), 0, "it is on its way");
    let report = server.is_asked(&["upgrade", "--json"]);
    assert!(report.status.success(), "{}", said(&report));
    let report: Value = serde_json::from_slice(&report.stdout).expect("it is JSON");
    alice.sends(numbered(3));
    alice.expects_pong();
    for number in 1..4 {
        assert_eq!(number_of(&sink.next()), number, "once, and in order");
    }
    sink.expects_nothing_for(Duration::from_secs(1));
    server.is_taken_over_by(report["pid"].as_u64().expect("a process"));
    assert!(server.log().contains("goes on with webhooks that waited"));
}

fn connections_with_tls_follow_and_sessions_are_resumed(shards: usize) {
    let name = "connections_with_tls_follow_and_sessions_are_resumed";
    let Some(files) = Certificates::make(own_address().into()) else {
        return skip(name, "no openssl");
    };
    let ssl = json!({
        "enabled": true, "cert_path": files.certificate("server"), "key_path": files.key("server"),
    });
    let mut server = Server::start(&Config::new().with(json!({"ssl": ssl})), shards);
    for version in [&TLS13, &TLS12] {
        let config = clients(&files, version);
        let connect = |address| connects(&config, address);
        let mut streams: Vec<_> = (0..20).map(|_| connect(server.address)).collect();
        for _ in 0..2 {
            let report = server.is_upgraded();
            assert_eq!(report["closed"], 0, "{report}");
            streams.iter_mut().for_each(asks_up);
        }
        let kind = connect(server.address).conn.handshake_kind();
        assert_eq!(kind, Some(HandshakeKind::Resumed), "{version:?}");
    }
}

fn connections_with_tls_go_on_where_the_next_process_offers_none(shards: usize) {
    let name = "connections_with_tls_go_on_where_the_next_process_offers_none";
    let Some(files) = Certificates::make(own_address().into()) else {
        return skip(name, "no openssl");
    };
    let ssl = json!({
        "enabled": true, "cert_path": files.certificate("server"), "key_path": files.key("server"),
    });
    let mut server = Server::start(&Config::new().with(json!({"ssl": ssl})), shards);
    let configs = [&TLS13, &TLS12].map(|version| clients(&files, version));
    let all = configs.iter().cycle().take(20);
    let mut streams: Vec<_> = all.map(|it| connects(it, server.address)).collect();
    reconfigures(&server, |json| json["ssl"]["enabled"] = json!(false));
    for _ in 0..2 {
        let report = server.is_upgraded();
        assert_eq!(report["closed"], 0, "{report}");
        streams.iter_mut().for_each(asks_up);
    }
    // Who comes now speaks as the port does.
    server.client("alice").expects_pong();
}

#[test]
fn plain_http_is_sent_on_to_https_after_an_upgrade_as_before() {
    let name = "plain_http_is_sent_on_to_https_after_an_upgrade_as_before";
    let Some(certificates) = Certificates::make(own_address().into()) else {
        return skip(name, "no openssl");
    };
    let port = next_port();
    let ssl = json!({
        "enabled": true, "redirect_http": true, "http_port": port,
        "cert_path": certificates.certificate("server"), "key_path": certificates.key("server"),
    });
    let mut server = Server::start(&Config::new().with(json!({"ssl": ssl})), 1);
    for _ in 0..2 {
        let mut wire = Wire::connect((own_address(), port).into());
        wire.sends("GET /x HTTP/1.1\r\nHost: h.test\r\n\r\n");
        assert_eq!(wire.reply().status, 308);
        server.is_upgraded();
    }
}

#[test]
fn a_node_that_drains_is_not_upgraded() {
    let drain = json!({"drain": {"deadline_s": 60, "lb_wait_s": 30}});
    let server = Server::start(&Config::new().with(drain), 1);
    server.drains();
    eventually("the drain to be known", || {
        (server.gets("/up").status == 503).then_some(())
    });
    let output = server.is_asked(&["upgrade"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("drains"), "{}", said(&output));
}

#[test]
fn ten_thousand_clients_do_not_notice_ten_upgrades() {
    let mut server = Server::start(&Config::new(), 2);
    let clients = Returning::start(server.address, TEN_THOUSAND);
    clients.are_joined(TEN_THOUSAND.clients);
    let mut silences = Vec::new();
    for _ in 0..10 {
        let report = server.is_upgraded();
        assert_eq!(report["closed"], 0, "{report}");
        silences.push(report["silence_ms"].as_f64().expect("a number"));
    }
    let suffered = clients.end();
    println!("{}", suffered.summary());
    println!("silences in ms: {silences:.1?}");
    let log = server.log();
    let parts = log
        .lines()
        .filter_map(|line| line.split_once("settled_ms="));
    parts.for_each(|(_, parts)| println!("of these: settled_ms={parts}"));
    suffered.is_nothing();
}

/// Clients that do not read.
const READERS: usize = 60;
/// Bytes that wait for each of them at least when the node is upgraded.
const UNREAD_BYTES: usize = 1 << 20;

/// A client whose kernel takes little. Said before it connects: what a window has promised once is sent, and if it is
/// lost then, sent again later and later.
fn narrow(server: &Server, name: &str) -> Client {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket
        .set_recv_buffer_size(64 * 1024)
        .expect("a small window");
    socket.connect(&server.address.into()).expect("it listens");
    let target = format!("{}/app/{KEY}?protocol=7&client=test", server.prefix);
    Client::over(Wire::over(socket.into()), &target, name, KEY, SECRET)
}

/// Bytes of memory that the process which serves has had at once.
fn memory_highest(server: &Server) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid()));
    let status = status.expect("it serves");
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<usize>().ok());
    kib.expect("the kernel says it") * 1_024
}

/// The data of an event of this number.
fn long(number: usize) -> String {
    format!("{number:08}").repeat(1_250)
}

/// Publishes until every outbox is as full as it is to be; how many events that took, and the bytes that wait.
fn fills_outboxes(server: &Server) -> (usize, usize) {
    let (mut api, mut count) = (server.api(), 0);
    loop {
        for _ in 0..20 {
            api.publishes("e", "news", &long(count));
            count += 1;
        }
        let waiting = server.metric("sockudo_send_queue_bytes");
        let waiting = waiting.expect("it is there") as usize;
        if waiting >= READERS * UNREAD_BYTES {
            return (count, waiting);
        }
        assert!(count < 4_000, "kernels take it all: {waiting} bytes wait");
    }
}

fn what_many_who_do_not_read_wait_for_goes_over_once_and_they_get_every_byte(shards: usize) {
    let queue = json!({"net": {"send_queue_bytes": 16 << 20, "burst_queue_bytes": 16 << 20}});
    let mut server = Server::start(&Config::new().with(queue), shards);
    let readers = Vec::from_iter((0..READERS).map(|number| {
        let mut reader = narrow(&server, &format!("reader {number}"));
        reader.subscribes("news");
        reader
    }));
    let (events, waiting) = fills_outboxes(&server);
    let before = memory_highest(&server);
    let report = server.is_upgraded();
    assert_eq!(report["closed"], 0, "{report}");
    // Copies for each client would be all that waits, in each of the two.
    let after = memory_highest(&server);
    println!("{before} bytes of memory in the old process, {after} in the new one");
    assert!(after < before + waiting / 4, "{after} after {before} bytes");
    let log = server.log();
    let sent = log.split_once("sent_bytes=").expect("the log says it").1;
    let sent = sent.split(|it: char| !it.is_ascii_digit()).next();
    let sent: usize = sent.and_then(|it| it.parse().ok()).expect("a number");
    println!("{events} events: {waiting} bytes wait, {sent} went over");
    assert!(sent * 10 < waiting, "{sent} of {waiting} bytes went over");
    // Nothing comes to whom it came before, and what is new comes behind it.
    server.api().publishes("e", "news", &long(events));
    let reading = readers.into_iter().map(|mut reader| {
        std::thread::spawn(move || {
            for number in 0..=events {
                let event = reader.expects("e", "news");
                assert_eq!(event["data"], long(number), "{}: {number}", reader.name);
            }
            reader.expects_pong();
        })
    });
    let reading: Vec<_> = reading.collect();
    for it in reading {
        it.join().expect("every byte came");
    }
}

on_one_and_three_shards! {
    what_many_who_do_not_read_wait_for_goes_over_once_and_they_get_every_byte,
    no_request_of_ten_upgrades_is_refused_or_lost,
    a_program_that_cannot_take_over_leaves_everything_with_the_one_that_serves,
    a_configuration_that_is_refused_is_said_and_the_old_process_goes_on,
    connections_with_tls_follow_and_sessions_are_resumed,
    connections_with_tls_go_on_where_the_next_process_offers_none,
}

#[test]
fn a_process_that_is_followed_ends_its_last_request_though_it_is_told_to_stop() {
    let mut sink = WebhookSink::start();
    let config = with_client_events_for(&sink, Config::new());
    let mut server = Server::start(&config, 1);
    let mut alice = server.client("alice");
    alice.subscribes("private-x");
    sink.answers_after(Duration::from_millis(700));
    for number in 0..2_u64 {
        alice.sends(numbered(number));
    }
    assert_eq!(number_of(&sink.next()), 0, "it is on its way");
    let report = server.is_asked(&["upgrade", "--json"]);
    assert!(report.status.success(), "{}", said(&report));
    server.signal(libc::SIGTERM);
    assert_eq!(number_of(&sink.next()), 1, "the first is not sent again");
    sink.expects_nothing_for(Duration::from_secs(1));
    let report: Value = serde_json::from_slice(&report.stdout).expect("it is JSON");
    server.is_taken_over_by(report["pid"].as_u64().expect("a process"));
    alice.expects_pong();
}

#[test]
fn webhooks_that_the_next_process_does_not_want_are_delivered_by_the_old_one() {
    let mut sink = WebhookSink::start();
    let config = with_client_events_for(&sink, Config::new());
    let mut server = Server::start(&config, 1);
    let mut alice = server.client("alice");
    alice.subscribes("private-x");
    sink.answers_with(&[503; 3]);
    for number in 0..5_u64 {
        alice.sends(numbered(number));
    }
    alice.expects_pong();
    server.rewrites(|json| json["queue"] = json!({"driver": "none"}));
    server.is_upgraded();
    let mut numbers: Vec<u64> = (0..5 + 3).map(|_| number_of(&sink.next())).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers, Vec::from_iter(0..5));
    alice.sends(numbered(5));
    alice.expects_pong();
    sink.expects_nothing_for(Duration::from_millis(500));
}

#[test]
fn webhooks_that_the_next_process_does_not_want_are_delivered_once() {
    let mut sink = WebhookSink::start();
    let config = with_client_events_for(&sink, Config::new());
    let mut server = Server::start(&config, 1);
    let mut alice = server.client("alice");
    alice.subscribes("private-x");
    // One is under way, the others wait for it.
    sink.answers_after(Duration::from_millis(200));
    (0..12).for_each(|number| alice.sends(numbered(number)));
    alice.expects_pong();
    server.rewrites(|json| json["queue"] = json!({"driver": "none"}));
    server.is_upgraded();
    let mut numbers: Vec<u64> = (0..12).map(|_| number_of(&sink.next())).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, Vec::from_iter(0..12));
    sink.expects_nothing_for(Duration::from_secs(2));
}
