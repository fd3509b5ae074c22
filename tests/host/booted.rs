//! The unit under systemd itself, which is the first process of name spaces of its own.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpStream},
    os::fd::AsFd as _,
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::{
    package::{can_pack, packed},
    skip::skip,
    text,
};

/// Ten times what a busy machine needs.
const PATIENCE: Duration = Duration::from_secs(100);
/// A host on which systemd has not booted by then does not let it.
const BOOTS_WITHIN: Duration = Duration::from_secs(60);
const PORT: u16 = 6_001;
const CONFIG: &str = "host = \"127.0.0.1\"\nport = 6001\nshards = 2\n[metrics]\nenabled = false\n\
    [[app_manager.array.apps]]\nid = \"shop\"\nkey = \"shop-key\"\nsecret = \"a secret of its own\"\n";

const NAMESPACES: [&str; 6] = ["--pid", "--mount", "--ipc", "--uts", "--net", "--cgroup"];

/// A systemd with the unit, and without a network.
struct Booted {
    unshare: Child,
    /// Of systemd, as this host counts.
    pid: u32,
    folder: tempfile::TempDir,
}

impl Booted {
    /// `None` where this host does not allow it, which is said.
    fn start(test: &str) -> Option<Self> {
        let mut probe = Command::new("unshare");
        probe.args(NAMESPACES).args(["--fork", "true"]);
        let can_unshare = probe.output().is_ok_and(|output| output.status.success());
        if !can_unshare || !Path::new("/lib/systemd/systemd").exists() {
            skip(test, "needs root, name spaces and systemd");
            return None;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let log = fs::File::create(folder.path().join("log")).expect("ours");
        let unshare = Command::new("unshare")
            .args(NAMESPACES)
            .args(["--fork", "--kill-child"])
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/host/boot.sh"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a descriptor"))
            .stderr(log)
            .spawn()
            .expect("it was there just now");
        let mut booted = Self {
            unshare,
            pid: 0,
            folder,
        };
        if !booted.has_booted() {
            let log = fs::read_to_string(booted.folder.path().join("log")).unwrap_or_default();
            skip(test, &format!("systemd does not boot here: {log}"));
            return None;
        }
        let network = fs::File::open(format!("/proc/{}/ns/net", booted.pid)).expect("it runs");
        let kind = Some(LinkNameSpaceType::Network);
        move_into_link_name_space(network.as_fd(), kind).expect("root may");
        Some(booted)
    }

    /// False where it could not: nothing of ours has run yet.
    fn has_booted(&mut self) -> bool {
        let deadline = Instant::now() + BOOTS_WITHIN;
        while Instant::now() < deadline && matches!(self.unshare.try_wait(), Ok(None)) {
            self.pid = self.systemd().unwrap_or_default();
            let state = match self.pid {
                0 => String::new(),
                _ => text(&self.runs(&["systemctl", "is-system-running"]).stdout),
            };
            if matches!(state.trim(), "running" | "degraded") {
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }

    fn systemd(&self) -> Option<u32> {
        let pid = self.unshare.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
        let child = children.split_whitespace().next()?.parse().ok()?;
        let name = fs::read_to_string(format!("/proc/{child}/comm")).ok()?;
        (name.trim() == "systemd").then_some(child)
    }

    fn eventually<T>(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(value) = done(self) {
                return value;
            }
            let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            let ended = self.unshare.try_wait().expect("ours");
            assert!(ended.is_none(), "{what}: {ended:?}: {log}");
            assert!(Instant::now() < deadline, "{what}: not in time: {log}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Within its name spaces, as root.
    fn runs(&self, command: &[&str]) -> Output {
        let pid = self.pid.to_string();
        Command::new("nsenter")
            .args([
                "--target", &pid, "--pid", "--mount", "--ipc", "--uts", "--net", "--cgroup",
            ])
            .args(command)
            .output()
            .expect("nsenter is where unshare is")
    }

    fn succeeds(&self, command: &[&str]) -> String {
        let output = self.runs(command);
        let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{command:?}: {said}");
        said
    }

    /// As docs/host.md says; the program is not copied.
    fn installs_by_hand(&self) {
        let config = self.folder.path().join("sockudo.toml");
        fs::write(&config, CONFIG).expect("ours");
        let script = "cd \"$1\" && touch /usr/bin/sockudo && mount --bind \"$2\" /usr/bin/sockudo &&
            mkdir -p /etc/sockudo && cp systemd/*.service /etc/systemd/system/ &&
            cp systemd/sysusers.d/sockudo.conf /usr/lib/sysusers.d/ && systemd-sysusers sockudo.conf &&
            cp systemd/tmpfiles.d/sockudo.conf /usr/lib/tmpfiles.d/ && systemd-tmpfiles --create sockudo.conf &&
            install -m 640 -g sockudo \"$3\" /etc/sockudo/sockudo.toml && systemctl daemon-reload";
        let program = env!("CARGO_BIN_EXE_sockudo");
        let config = config.to_str().expect("a plain name");
        let repository = env!("CARGO_MANIFEST_DIR");
        self.succeeds(&["sh", "-c", script, "sh", repository, program, config]);
    }

    fn property(&self, name: &str) -> String {
        let shown = self.succeeds(&[
            "systemctl",
            "show",
            "sockudo",
            "--value",
            "--property",
            name,
        ]);
        shown.trim().to_owned()
    }

    /// The main process, as it is counted inside.
    fn main_process(&self) -> String {
        self.property("MainPID")
    }

    fn is_upgraded(&self) {
        let before = self.main_process();
        let command =
            "runuser --user sockudo -- sockudo upgrade --config /etc/sockudo/sockudo.toml";
        self.succeeds(&command.split(' ').collect::<Vec<_>>());
        assert_ne!(self.main_process(), before);
        assert_eq!(self.property("ActiveState"), "active");
    }

    fn journal(&self) -> String {
        self.succeeds(&[
            "journalctl",
            "--unit",
            "sockudo",
            "--no-pager",
            "--output",
            "cat",
        ])
    }

    /// The main process is another one, which is ready; systemd restarted the service so often by itself.
    fn is_started_anew(&mut self, before: &str, restarts: &str) {
        self.eventually("another start", |booted| {
            let main = booted.main_process();
            let is_another = main != "0" && main != before;
            let is_active = is_another && booted.property("ActiveState") == "active";
            (is_active && booted.property("NRestarts") == restarts).then_some(())
        });
    }
}

impl Drop for Booted {
    fn drop(&mut self) {
        // systemd goes with it, and all that systemd has started.
        let _ = self.unshare.kill();
        let _ = self.unshare.wait();
    }
}

/// A connection that is established.
fn client(key: &str) -> TcpStream {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, PORT)).expect("it is ready");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    let request = format!(
        "GET /app/{key}?protocol=7 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).expect("taken");
    hears(&mut stream, b"connection_established");
    stream
}

fn hears(stream: &mut TcpStream, wanted: &[u8]) {
    let mut heard = Vec::new();
    while !heard.windows(wanted.len()).any(|part| part == wanted) {
        let mut part = [0; 1_024];
        let bytes = stream.read(&mut part).expect("in time");
        assert!(
            bytes > 0,
            "it ended after {}",
            String::from_utf8_lossy(&heard)
        );
        heard.extend_from_slice(&part[..bytes]);
    }
}

fn pings(stream: &mut TcpStream) {
    let message = br#"{"event":"pusher:ping","data":{}}"#;
    let length = u8::try_from(message.len()).expect("a short one");
    // Masked with zeroes.
    stream
        .write_all(&[&[0x81, 0x80 | length, 0, 0, 0, 0], &message[..]].concat())
        .expect("taken");
    hears(stream, b"pusher:pong");
}

#[test]
fn systemd_starts_reloads_upgrades_and_stops_the_service() {
    let Some(mut booted) = Booted::start("systemd_starts_reloads_upgrades_and_stops_the_service")
    else {
        return;
    };
    booted.installs_by_hand();
    booted.succeeds(&["systemctl", "start", "sockudo"]);
    let mut alice = client("shop-key");
    pings(&mut alice);
    booted.succeeds(&["systemctl", "reload", "sockudo"]);
    for _ in 0..2 {
        booted.is_upgraded();
        pings(&mut alice);
    }
    booted.succeeds(&["systemctl", "reload", "sockudo"]);
    assert!(
        !booted.journal().contains("not our child"),
        "{}",
        booted.journal()
    );
    // The drain is waited for: it closes with 4200.
    booted.succeeds(&["systemctl", "stop", "sockudo"]);
    hears(&mut alice, &4_200_u16.to_be_bytes());
    let journal = booted.journal();
    assert!(journal.trim_end().ends_with("stopped"), "{journal}");
    assert_eq!(booted.property("Result"), "success");
    booted.succeeds(&["test", "!", "-e", "/run/sockudo/admin.sock"]);

    // After an upgrade too its end is seen, and that it does not turn.
    booted.succeeds(&["systemctl", "start", "sockudo"]);
    booted.is_upgraded();
    let before = booted.main_process();
    booted.succeeds(&["kill", "-s", "KILL", &before]);
    booted.is_started_anew(&before, "1");
    pings(&mut client("shop-key"));
    booted.succeeds(&["systemctl", "stop", "sockudo"]);
    let unit = "/run/systemd/system/sockudo.service.d";
    booted.succeeds(&["mkdir", unit]);
    let quick = format!("printf '[Service]\\nWatchdogSec=3\\n' >{unit}/quick.conf");
    booted.succeeds(&["sh", "-c", &quick]);
    booted.succeeds(&["systemctl", "daemon-reload"]);
    booted.succeeds(&["systemctl", "start", "sockudo"]);
    booted.is_upgraded();
    let before = booted.main_process();
    booted.succeeds(&["kill", "-s", "STOP", &before]);
    booted.is_started_anew(&before, "1");
    pings(&mut client("shop-key"));
    booted.succeeds(&["systemctl", "stop", "sockudo"]);

    // A wrong configuration is not tried again and again.
    booted.succeeds(&[
        "sh",
        "-c",
        "echo 'port = \"none\"' >/etc/sockudo/sockudo.toml",
    ]);
    let refused = booted.runs(&["systemctl", "start", "sockudo"]);
    assert!(!refused.status.success());
    booted.eventually("the end", |booted| {
        (booted.property("ActiveState") == "failed").then_some(())
    });
    assert_eq!(booted.property("ExecMainStatus"), "78");
    assert_eq!(booted.property("NRestarts"), "0");
}

#[test]
fn the_package_starts_the_service_and_drains_it_for_an_upgrade() {
    let test = "the_package_starts_the_service_and_drains_it_for_an_upgrade";
    if !can_pack() {
        return skip(test, "there is no dpkg-deb or strip");
    }
    let Some(mut booted) = Booted::start(test) else {
        return;
    };
    let folder = booted.folder.path().to_owned();
    let [first, second] = ["1.0~test1", "1.0~test2"].map(|it| packed(&folder, it));
    let [first, second] = [&first, &second].map(|it| it.to_str().expect("a plain name"));
    booted.succeeds(&["dpkg", "--install", first]);
    assert_eq!(booted.property("ActiveState"), "active");
    let config = booted.succeeds(&["cat", "/etc/sockudo/sockudo.toml"]);
    let key = config.lines().find_map(|line| line.strip_prefix("key = "));
    let key = key.expect("it made one").trim_matches('"');
    let mut alice = client(key);
    let before = booted.main_process();
    booted.succeeds(&["dpkg", "--install", second]);
    hears(&mut alice, &4_200_u16.to_be_bytes());
    booted.is_started_anew(&before, "0");
    let mut alice = client(key);
    booted.is_upgraded();
    pings(&mut alice);
    booted.succeeds(&["dpkg", "--remove", "sockudo"]);
    hears(&mut alice, &4_200_u16.to_be_bytes());
    assert_eq!(booted.property("ActiveState"), "inactive");
    booted.succeeds(&["dpkg", "--purge", "sockudo"]);
    booted.succeeds(&["test", "!", "-e", "/etc/sockudo"]);
}
