//! The Autobahn test suite against the codec: the echo example under the suite's fuzzing client.

#![expect(
    clippy::print_stdout,
    reason = "what a test measured is read beside its name"
)]
#![expect(clippy::disallowed_methods, reason = "each wait has a deadline")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

#[path = "support/skip.rs"]
mod skip;

/// Framing, pings, reserved bits, opcodes, fragmentation, UTF-8, closing, limits, auto-fragmentation.
const GROUPS: [&str; 9] = [
    "1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.*", "10.*",
];

const TIME_LIMIT: Duration = Duration::from_secs(14 * 60);

/// Stops a process when the test ends, however it ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only for a process that is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn no_case_of_the_autobahn_suite_fails() {
    let Some(wstest) = wstest() else {
        skip::skip(
            "no_case_of_the_autobahn_suite_fails",
            "the suite needs python2.7 and `scripts/test` to install it",
        );
        return;
    };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (_echo, address) = start_echo(folder.path());
    let spec = json!({
        "outdir": folder.path().join("reports"),
        "servers": [{"agent": "sockudo", "url": format!("ws://{address}"), "options": {"version": 18}}],
        "cases": GROUPS,
        "exclude-cases": [],
        "exclude-agent-cases": {},
    });
    let spec_file = folder.path().join("spec.json");
    std::fs::write(&spec_file, spec.to_string()).expect("the specification can be written");
    let log = std::fs::File::create(folder.path().join("wstest.log")).expect("a log");
    let suite = Command::new(wstest)
        .args(["--mode", "fuzzingclient", "--spec"])
        .arg(&spec_file)
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("the log's descriptor can be copied"))
        .stderr(log)
        .spawn()
        .expect("the suite starts");
    let mut suite = Running(suite);
    let start = Instant::now();
    while suite
        .0
        .try_wait()
        .expect("our child can be waited for")
        .is_none()
    {
        assert!(
            start.elapsed() < TIME_LIMIT,
            "the suite ran for {TIME_LIMIT:?}"
        );
        std::thread::sleep(Duration::from_millis(100));
    }
    let index = folder.path().join("reports/index.json");
    let index = std::fs::read_to_string(index).unwrap_or_else(|error| {
        let log = std::fs::read_to_string(folder.path().join("wstest.log")).unwrap_or_default();
        panic!("no report ({error}); the suite said: {log}")
    });
    let index: Value = serde_json::from_str(&index).expect("the report is JSON");
    let cases = index["sockudo"].as_object().expect("a report per agent");
    let mut failed = Vec::new();
    let mut groups: BTreeMap<u32, BTreeMap<String, usize>> = BTreeMap::new();
    for (case, result) in cases {
        let behavior = result["behavior"].as_str().expect("a word").to_owned();
        let closing = result["behaviorClose"].as_str().expect("a word").to_owned();
        if [&behavior, &closing]
            .iter()
            .any(|word| ["FAILED", "WRONG CODE"].contains(&word.as_str()))
        {
            failed.push(format!("{case}: {behavior}, closing {closing}"));
        }
        let group = case
            .split('.')
            .next()
            .and_then(|text| text.parse().ok())
            .expect("a number");
        *groups
            .entry(group)
            .or_default()
            .entry(behavior)
            .or_default() += 1;
    }
    let summary = summary(&groups, failed.len());
    println!("{summary}");
    assert!(cases.len() > 250, "only {} cases were run", cases.len());
    assert!(
        failed.is_empty(),
        "{} cases failed:\n{}",
        failed.len(),
        failed.join("\n")
    );
    if std::env::var_os("SOCKUDO_WRITE_CONFORMANCE").is_some() {
        write_conformance(&summary);
    }
}

/// The suite's program, if it was installed and its Python really runs.
fn wstest() -> Option<PathBuf> {
    let tools = std::env::var_os("SOCKUDO_TEST_TOOLS")
        .map(PathBuf::from)
        .unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-tools"));
    let wstest = tools.join("autobahn/bin/wstest");
    let runs = Command::new(&wstest)
        .arg("--help")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    runs.is_ok_and(|status| status.success()).then_some(wstest)
}

/// The echo example, which cargo builds beside the tests, on a free port.
fn start_echo(folder: &Path) -> (Running, SocketAddr) {
    let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = free.local_addr().expect("it is bound");
    drop(free);
    let server = Path::new(env!("CARGO_BIN_EXE_sockudo"));
    let echo = server.parent().expect("a folder").join("examples/echo");
    let log = std::fs::File::create(folder.join("echo.log")).expect("a log");
    let child = Command::new(&echo)
        .arg(address.port().to_string())
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("the log's descriptor can be copied"))
        .stderr(log)
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}", echo.display()));
    let running = Running(child);
    let deadline = Instant::now() + Duration::from_secs(15);
    while TcpStream::connect(address).is_err() {
        assert!(Instant::now() < deadline, "the echo server accepts");
        std::thread::sleep(Duration::from_millis(20));
    }
    (running, address)
}

fn summary(groups: &BTreeMap<u32, BTreeMap<String, usize>>, failed: usize) -> String {
    let mut text = String::from("| group | cases | how they ended |\n| --- | --- | --- |\n");
    let mut total = 0;
    for (group, words) in groups {
        let cases: usize = words.values().sum();
        total += cases;
        let ends: Vec<String> = words
            .iter()
            .map(|(word, count)| format!("{count} {}", word.to_lowercase()))
            .collect();
        writeln!(text, "| {group} | {cases} | {} |", ends.join(", ")).expect("a string takes all");
    }
    writeln!(text, "| all | {total} | {failed} failed |").expect("a string takes all");
    text
}

/// Replaces the table in the page; the words around it are written by hand.
fn write_conformance(summary: &str) {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/conformance.md");
    let text = std::fs::read_to_string(&page).expect("the page is there");
    let (start, end) = ("<!-- autobahn -->\n", "<!-- /autobahn -->\n");
    let (before, rest) = text.split_once(start).expect("the table's start is marked");
    let (_, after) = rest.split_once(end).expect("the table's end is marked");
    std::fs::write(&page, format!("{before}{start}{summary}{end}{after}"))
        .expect("it can be written");
}
