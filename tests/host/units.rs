//! The units of systemd, by systemd's own tools, and the server that a unit starts.

use std::{
    fs,
    io::{ErrorKind, Read as _, Write as _},
    net::{Ipv4Addr, TcpStream},
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixDatagram},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use super::skip::skip;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd")
}

const UNITS: [&str; 2] = ["sockudo.service", "sockudo@.service"];

/// What `docs/host.md` says.
const EXPOSURE_MAX: f64 = 1.5;

#[test]
fn the_units_name_nothing_that_systemd_does_not_know() {
    let copies = tempfile::tempdir().expect("a temporary folder");
    for name in UNITS {
        let unit = fs::read_to_string(folder().join(name)).expect("the unit is there");
        // The program and the user are the package's to make.
        let unit = unit
            .replace("/usr/bin/sockudo", "/bin/true")
            .replace("User=sockudo\n", "");
        let path = copies.path().join(name);
        fs::write(&path, unit.replace("Group=sockudo\n", "")).expect("the folder is ours");
        let verify = Command::new("systemd-analyze")
            .args(["verify", "--man=no", "--recursive-errors=no"])
            .arg(&path)
            .output();
        let Ok(output) = verify else {
            skip(
                "the_units_name_nothing_that_systemd_does_not_know",
                "systemd is not installed",
            );
            return;
        };
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && !said.contains("sockudo"),
            "{name}: {said}"
        );
    }
}

#[test]
fn the_units_are_exposed_no_more_than_the_page_says() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/host.md"));
    assert!(
        page.expect("the page is there")
            .contains(&format!("exposure of {EXPOSURE_MAX}"))
    );
    for name in UNITS {
        let security = Command::new("systemd-analyze")
            .args(["security", "--offline=true", "--no-pager"])
            .arg(folder().join(name))
            .output();
        let Ok(output) = security else {
            skip(
                "the_units_are_exposed_no_more_than_the_page_says",
                "systemd is not installed",
            );
            return;
        };
        let said = String::from_utf8_lossy(&output.stdout);
        let line = said
            .lines()
            .find(|line| line.contains("Overall exposure level"));
        let score = line.and_then(|line| {
            line.rsplit_once(": ")?
                .1
                .split(' ')
                .next()?
                .parse::<f64>()
                .ok()
        });
        let score = score.unwrap_or_else(|| panic!("{name}: no score in {said}"));
        assert!(score <= EXPOSURE_MAX, "{name}: {score}");
    }
}

#[test]
fn the_user_and_the_folders_are_made() {
    let name = "the_user_and_the_folders_are_made";
    let dry = Command::new("systemd-sysusers")
        .arg("--dry-run")
        .arg(folder().join("sysusers.d/sockudo.conf"))
        .output();
    let Ok(output) = dry else {
        skip(name, "systemd is not installed");
        return;
    };
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );

    if !super::is_root() {
        skip(name, "only root can give folders to others");
        return;
    }
    let root = tempfile::tempdir().expect("a temporary folder");
    let etc = root.path().join("etc");
    fs::create_dir(&etc).expect("ours");
    fs::write(etc.join("passwd"), "root:x:0:0:::\nsockudo:x:990:990:::\n").expect("ours");
    fs::write(etc.join("group"), "root:x:0:\nsockudo:x:990:\n").expect("ours");
    let made = Command::new("systemd-tmpfiles")
        .arg("--create")
        .arg(format!("--root={}", root.path().display()))
        .arg(folder().join("tmpfiles.d/sockudo.conf"))
        .output()
        .expect("it came with the other");
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    for path in ["etc/sockudo", "run/sockudo"] {
        assert!(root.path().join(path).is_dir(), "{path}");
    }
}

/// A server as the unit starts it, and what it tells its supervisor.
struct Supervised {
    child: Child,
    heard: UnixDatagram,
}

impl Supervised {
    fn start(config: &Path, socket: &str, heard: UnixDatagram) -> Self {
        let unit = fs::read_to_string(folder().join("sockudo.service")).expect("the unit is there");
        let line = unit
            .lines()
            .find_map(|line| line.strip_prefix("ExecStart="))
            .expect("it starts something");
        let config = config.display().to_string();
        let line = line.replace("/etc/sockudo/sockudo.toml", &config);
        let mut words = line.split_whitespace();
        assert_eq!(words.next(), Some("/usr/bin/sockudo"));
        heard.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        let child = Command::new(env!("CARGO_BIN_EXE_sockudo"))
            .args(words)
            .env_clear()
            .env("NOTIFY_SOCKET", socket)
            .env("WATCHDOG_USEC", "1000000")
            .current_dir("/")
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("the program was built");
        Self { child, heard }
    }

    /// What comes next, apart from what comes again and again.
    fn next(&self) -> String {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let said = self.any();
            if said != "WATCHDOG=1" && !said.starts_with("STATUS=") {
                return said;
            }
        }
        panic!("nothing new in time");
    }

    fn any(&self) -> String {
        let mut buffer = [0; 4_096];
        match self.heard.recv(&mut buffer) {
            Ok(length) => String::from_utf8_lossy(&buffer[..length]).into_owned(),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                panic!("nothing was said in time")
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn waits_for(&self, said: &str) {
        // The watchdog's food comes twice a second, so that silence is no bound.
        let deadline = Instant::now() + PATIENCE;
        while self.any() != said {
            assert!(Instant::now() < deadline, "not in time: {said}");
        }
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(sent.expect("kill is there").success());
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const PATIENCE: Duration = Duration::from_secs(30);

/// A loopback address that no other test process has.
fn own_address() -> Ipv4Addr {
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 64 + high % 128, middle, low)
}

fn is_up(address: (Ipv4Addr, u16)) -> bool {
    let mut stream = TcpStream::connect(address).expect("it listens once it is ready");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    stream
        .write_all(b"GET /up HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .expect("taken");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    answer.starts_with("HTTP/1.1 200")
}

fn a_unit_follows_its_server(socket: &str, heard: UnixDatagram, folder: &Path, port: u16) {
    let host = own_address();
    let address = (host, port);
    let config = folder.join("sockudo.toml");
    let text = format!(
        "host = \"{host}\"\nport = {port}\nshards = 2\n[metrics]\nhost = \"{host}\"\nport = {}\n[admin]\nsocket = \"\"\n\
         [[app_manager.array.apps]]\nid = \"shop\"\nkey = \"shop-key\"\nsecret = \"a secret of its own\"\n",
        port + 3_600
    );
    fs::write(&config, &text).expect("ours");
    let mut server = Supervised::start(&config, socket, heard);
    server.waits_for("STATUS=connections 0, shards 2");
    assert_eq!(server.next(), "READY=1");
    assert!(is_up(address));
    server.waits_for("WATCHDOG=1");

    // A configuration that is refused ends a reload too: the server goes on with the old one.
    for text in [&*text, "port = \"none\""] {
        fs::write(&config, text).expect("ours");
        server.signal("HUP");
        let said = server.next();
        let since = said
            .strip_prefix("RELOADING=1\nMONOTONIC_USEC=")
            .map(str::parse::<u64>);
        assert!(matches!(since, Some(Ok(1..))), "{said}");
        assert_eq!(server.next(), "READY=1");
        assert!(is_up(address));
    }
    server.waits_for("WATCHDOG=1");

    server.signal("TERM");
    assert_eq!(server.next(), "STOPPING=1");
    assert_eq!(server.child.wait().expect("ours").code(), Some(0));
}

#[test]
fn a_unit_follows_its_server_through_start_reload_and_stop() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("notify");
    let heard = UnixDatagram::bind(&path).expect("ours");
    a_unit_follows_its_server(path.to_str().expect("UTF-8"), heard, folder.path(), 6_001);
}

#[test]
fn a_unit_may_listen_at_an_abstract_address() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let name = format!("sockudo-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).expect("short enough");
    let heard = UnixDatagram::bind_addr(&address).expect("nobody else has it");
    a_unit_follows_its_server(&format!("@{name}"), heard, folder.path(), 6_002);
}
