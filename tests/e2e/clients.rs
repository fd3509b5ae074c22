//! Unmodified clients and server libraries, run as their users run them.
//!
//! The scripts in `tests/clients/` print a line per promise kept; here they get a server and are judged by their exit.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use serde_json::json;

use crate::on_one_and_three_shards;
use crate::support::config::Config;
use crate::support::server::{Server, next_port, own_address};
use crate::support::skip::skip;

const VERSIONS: [&str; 2] = ["pusher-js", "pusher-js-7"];

/// A script under way, with its lines.
pub(crate) struct Script {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<std::process::ChildStdout>,
    said: String,
}

impl Script {
    /// `None` where the program or its packages are missing.
    fn start(
        interpreter: &Path,
        script: &str,
        arguments: &[&str],
        environment: &[(&str, String)],
    ) -> Option<Self> {
        let file = clients().join(script);
        let mut child = Command::new(interpreter)
            .arg(&file)
            .args(arguments)
            .envs(environment.iter().cloned())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .ok()?;
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        Some(Self {
            child,
            input,
            output,
            said: String::new(),
        })
    }

    /// Reads up to the line `# step`.
    #[track_caller]
    pub(crate) fn says(&mut self, step: &str) {
        let step = format!("# {step}");
        loop {
            let mut line = String::new();
            let count = self
                .output
                .read_line(&mut line)
                .expect("its output is UTF-8");
            self.said.push_str(&line);
            assert_ne!(count, 0, "the script ended before `{step}`:\n{}", self.said);
            if line.trim_end() == step {
                return;
            }
        }
    }

    pub(crate) fn hears(&mut self, line: &str) {
        let input = self.input.as_mut().expect("it is open");
        writeln!(input, "{line}").expect("the script reads");
    }

    /// Waits for the end, which must be a success with at least one promise kept.
    #[track_caller]
    pub(crate) fn succeeds(mut self) {
        let mut rest = String::new();
        std::io::Read::read_to_string(&mut self.output, &mut rest).expect("its output is UTF-8");
        self.said.push_str(&rest);
        let status = self.child.wait().expect("our child can be waited for");
        println!("{}", self.said);
        assert!(status.success(), "{status}:\n{}", self.said);
        assert!(
            self.said.contains("ok 1 "),
            "it kept at least one promise:\n{}",
            self.said
        );
    }
}

fn clients() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients")
}

/// Starts a script under node, or notes that the test is skipped.
pub(crate) fn node(test: &str, server: &Server, script: &str, more: &[&str]) -> Option<Script> {
    node_at(test, server.address, script, more)
}

/// The same for a server that is reached by another address.
pub(crate) fn node_at(
    test: &str,
    address: SocketAddr,
    script: &str,
    more: &[&str],
) -> Option<Script> {
    node_with(test, address, script, more, &[])
}

/// The same with variables of its own.
pub(crate) fn node_with(
    test: &str,
    address: SocketAddr,
    script: &str,
    more: &[&str],
    environment: &[(&str, String)],
) -> Option<Script> {
    if !clients().join("node_modules/pusher-js").exists() {
        skip(test, "the npm clients are not installed: run scripts/test");
        return None;
    }
    let (host, port) = (address.ip().to_string(), address.port().to_string());
    let arguments: Vec<&str> = [&*host, &*port]
        .into_iter()
        .chain(more.iter().copied())
        .collect();
    let script = Script::start(Path::new("node"), script, &arguments, environment);
    if script.is_none() {
        skip(test, "node is not installed");
    }
    script
}

fn config() -> Config {
    Config::new()
        .with_users()
        .with_app(json!({"enable_subscription_count": true, "max_client_events_per_second": 100}))
}

// P-116
fn pusher_js_works_as_its_users_know_it(shards: usize) {
    for version in VERSIONS {
        let server = Server::start(&config(), shards);
        let name = "pusher_js_works_as_its_users_know_it";
        let Some(script) = node(name, &server, "pusher-js.mjs", &[version]) else {
            return;
        };
        script.succeeds();
    }
}

// P-116
fn laravel_echo_works_as_its_users_know_it(shards: usize) {
    let server = Server::start(&config(), shards);
    let name = "laravel_echo_works_as_its_users_know_it";
    let Some(script) = node(name, &server, "laravel-echo.mjs", &[]) else {
        return;
    };
    script.succeeds();
}

// P-116
fn pusher_js_comes_back_at_once_after_a_drain(shards: usize) {
    for version in VERSIONS {
        let server = Server::start(&config(), shards);
        let name = "pusher_js_comes_back_at_once_after_a_drain";
        let Some(mut script) = node(name, &server, "reconnect.mjs", &[version, "drained"]) else {
            return;
        };
        script.says("ready to be drained");
        server.drains();
        script.hears("drained");
        let _successor = server.is_succeeded(&config(), shards);
        script.succeeds();
    }
}

// P-116
#[test]
fn pusher_js_comes_back_when_the_server_gave_up_on_it_after_thirty_seconds() {
    let server = Server::start(&config().with(json!({"activity_timeout": 1})), 1);
    let name = "pusher_js_comes_back_when_the_server_gave_up_on_it_after_thirty_seconds";
    let Some(script) = node(name, &server, "reconnect.mjs", &["pusher-js", "unheard"]) else {
        return;
    };
    script.succeeds();
}

// P-116
#[test]
fn pusher_js_stays_away_when_it_is_not_wanted() {
    let name = "pusher_js_stays_away_when_it_is_not_wanted";
    for version in VERSIONS {
        let server = Server::start(&config(), 1);
        let Some(script) = node(name, &server, "reconnect.mjs", &[version, "unknown"]) else {
            return;
        };
        script.succeeds();
        let origins = json!({"allowed_origins": ["https://example.com"]});
        let server = Server::start(&config().with_app(origins), 1);
        let Some(script) = node(name, &server, "reconnect.mjs", &[version, "unwelcome"]) else {
            return;
        };
        script.succeeds();
    }
}

fn with_webhooks_to(port: u16) -> Config {
    config().with_app(json!({"webhooks": [{
        "url": format!("http://{}:{port}/hooks", own_address()),
        "event_types": ["channel_occupied", "member_added"],
    }]}))
}

// P-117
fn the_node_library_makes_every_call_and_verifies_webhooks(shards: usize) {
    let port = next_port();
    let server = Server::start(&with_webhooks_to(port), shards);
    let name = "the_node_library_makes_every_call_and_verifies_webhooks";
    let Some(script) = node(name, &server, "pusher-node.mjs", &[&port.to_string()]) else {
        return;
    };
    script.succeeds();
}

/// The Python that has the library, or a note that (part of) the test is skipped.
fn python(test: &str) -> Option<PathBuf> {
    let tools = std::env::var_os("SOCKUDO_TEST_TOOLS")
        .map(PathBuf::from)
        .unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-tools"));
    let python = tools.join("python/bin/python");
    if python.exists() {
        return Some(python);
    }
    skip(
        test,
        "the Python library is not installed: run scripts/test",
    );
    None
}

// P-117
fn the_python_library_makes_every_call_and_verifies_webhooks(shards: usize) {
    let name = "the_python_library_makes_every_call_and_verifies_webhooks";
    let Some(python) = python(name) else {
        return;
    };
    let port = next_port();
    let config = with_webhooks_to(port).with_app(json!({"id": "1234"}));
    let server = Server::start(&config, shards);
    let (host, main_port) = (
        server.address.ip().to_string(),
        server.address.port().to_string(),
    );
    let arguments = [&*host, &*main_port, &*port.to_string()];
    let mut script =
        Script::start(&python, "pusher_python.py", &arguments, &[]).expect("it is there");
    script.says("ready for the member");
    let mut member = server.client("member");
    member.subscribes("news");
    member.expects("pusher_internal:subscription_count", "news");
    member.joins("presence-room", "10");
    script.hears("joined");
    script.succeeds();
    let heard = [("hello", "news"), ("hello", "news"), ("first", "news")];
    let mut on_news = Vec::new();
    while on_news.len() < heard.len() {
        let frame = member.next();
        if frame["channel"] == "news" {
            on_news.push(frame["event"].as_str().expect("a name").to_owned());
        }
    }
    assert_eq!(on_news, heard.map(|(event, _)| event));
}

/// Packagist is not reached everywhere; where composer has fetched the library, it would be run here.
#[test]
fn the_php_library_makes_every_call_and_verifies_webhooks() {
    skip(
        "the_php_library_makes_every_call_and_verifies_webhooks",
        "its registry is not reached; its signatures are covered by vectors",
    );
}

// The page that a newcomer sees first, in a real browser.
#[test]
fn the_welcome_page_shows_an_event_that_its_form_published() {
    let name = "the_welcome_page_shows_an_event_that_its_form_published";
    if !Path::new("/usr/bin/chromium").exists() {
        skip(name, "chromium is not installed");
        return;
    }
    let server = Server::start_demo();
    let shot = std::env::temp_dir().join(format!("sockudo-welcome-{}.png", std::process::id()));
    let shot_text = shot.to_string_lossy().into_owned();
    let python = python(name).map(|python| python.to_string_lossy().into_owned());
    let more: Vec<&str> = [&*shot_text].into_iter().chain(python.as_deref()).collect();
    let Some(script) = node(name, &server, "welcome.mjs", &more) else {
        return;
    };
    script.succeeds();
    std::fs::remove_file(shot).expect("the script took a picture");
}

// What a newcomer copies first.
#[test]
fn the_snippets_of_the_readme_work_as_they_are_printed() {
    let name = "the_snippets_of_the_readme_work_as_they_are_printed";
    let server = Server::start_demo();
    let python = python(name).map(|python| python.to_string_lossy().into_owned());
    let more: Vec<&str> = python.as_deref().into_iter().collect();
    let Some(script) = node(name, &server, "readme.mjs", &more) else {
        return;
    };
    script.succeeds();
}

on_one_and_three_shards! {
    pusher_js_works_as_its_users_know_it,
    laravel_echo_works_as_its_users_know_it,
    pusher_js_comes_back_at_once_after_a_drain,
    the_node_library_makes_every_call_and_verifies_webhooks,
    the_python_library_makes_every_call_and_verifies_webhooks,
}
