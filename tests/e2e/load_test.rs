//! `scripts/load-test`: a verdict at its end, whatever happens.

use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::support::config::{APP_ID, Config, KEY, SECRET};
use crate::support::eventually;
use crate::support::server::Server;

fn load_test(arguments: &[&str]) -> Output {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/load-test");
    let binary = ["--binary", env!("CARGO_BIN_EXE_sockudo")];
    let output = Command::new(script)
        .args(binary)
        .args(arguments)
        .env("SOCKUDO_BENCH_SECRET", SECRET)
        .output();
    output.expect("bash is there")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The verdict of a run with `--json`.
#[track_caller]
fn verdict(output: &Output) -> Value {
    let json: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", said(output)));
    json["outcomes"][0]["verdict"].clone()
}

/// One that runs, as a target.
fn against(server: &Server, arguments: &[&str]) -> Output {
    let (url, pid) = (format!("ws://{}", server.address), server.pid().to_string());
    let target = [
        "--url", &url, "--app-id", APP_ID, "--key", KEY, "--pid", &pid,
    ];
    load_test(&[&target[..], arguments].concat())
}

#[test]
fn five_hundred_connections_are_carried_and_a_page_tells_of_it() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let page = folder.path().join("report.html");
    let page = page.to_str().expect("a plain name");
    // A busy machine is late; what is asked here is whether all come.
    let output = load_test(&[
        "--connections=500",
        "--seconds",
        "2",
        "--ports-per-address",
        "200",
        "--objective-ms",
        "60000",
        "--report",
        page,
        "--json",
    ]);
    let json: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", said(&output)));
    let outcome = &json["outcomes"][0];
    assert_eq!(outcome["settings"]["source-addresses"], "3");
    assert_eq!(outcome["deliveries"]["lost"], 0, "{outcome}");
    let html = std::fs::read_to_string(page).expect("the page is written");
    assert!(html.starts_with("<!doctype html>"), "{html}");
    // A generator that a busy machine held up says so, and nothing else is wrong.
    if outcome["void"].is_null() {
        assert_eq!(
            outcome["verdict"],
            json!({"has_passed": true, "limit": null, "words": "", "connections": 500, "asked": 500})
        );
        assert!(html.contains("PASSED: 500 connections"), "{html}");
        assert_eq!(output.status.code(), Some(0));
    } else {
        assert_eq!(outcome["verdict"]["limit"], "generator");
        assert_eq!(output.status.code(), Some(2));
    }
    let progress = said(&output);
    assert!(progress.contains("500 of 500 subscribed"), "{progress}");
}

#[test]
fn a_server_that_refuses_is_named_as_the_limit_with_its_own_words() {
    let server = Server::start(&Config::new().with_app(json!({"max_connections": 120})), 2);
    let output = against(&server, &["--connections", "300", "--json"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let verdict = verdict(&output);
    assert_eq!(verdict["limit"], "server_refused", "{verdict}");
    assert_eq!(verdict["asked"], 300);
    assert!(
        verdict["words"]
            .as_str()
            .is_some_and(|it| it.contains("4004")),
        "{verdict}"
    );
    // The server is not pressed further: others get what is left.
    assert!(verdict["connections"].as_u64() <= Some(120), "{verdict}");
    let output = against(&server, &["--connections", "300"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let last = text.lines().last().unwrap_or_default();
    assert!(last.starts_with("FAILED with "), "{text}");
}

#[test]
fn a_server_without_files_a_server_that_is_not_there_and_a_plan_without_addresses_are_told_apart() {
    let server = Server::start_with_files(&Config::new(), 1, 600);
    let output = against(&server, &["--connections", "900", "--json"]);
    let limit = verdict(&output);
    assert_eq!(limit["limit"], "server_files", "{limit}");
    let few = [
        "--connections",
        "300",
        "--ports-per-address",
        "100",
        "--source",
        "127.0.0.2",
        "--json",
    ];
    let limit = verdict(&against(&server, &few));
    assert_eq!(limit["limit"], "ports", "{limit}");
    let address = server.address;
    drop(server);
    // The kernel closes a killed server's listeners when its rings are gone.
    eventually("nobody to listen", || {
        std::net::TcpStream::connect(address).err()
    });
    let output = load_test(&["--url", &format!("ws://{address}"), "--connections", "10"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said(&output).contains("cannot be reached"),
        "{}",
        said(&output)
    );
}

#[test]
fn wrong_usage_is_refused_before_anything_is_started() {
    for (arguments, code, words) in [
        (
            &["--profile", "datacentre"][..],
            2,
            "--profile is laptop, one-host or two-hosts",
        ),
        (&["--profile", "two-hosts"], 2, "needs --url and --i-own"),
        (
            &["--connections", "many"],
            2,
            "--connections needs a whole number",
        ),
        (&["--connections", "0"], 2, "not a whole number 1..=1000000"),
        (&["--connections"], 2, "--connections needs a value"),
        (&["--url", "wss://127.0.0.1"], 2, "TLS is not spoken"),
        (&["--url", "127.0.0.1:6001"], 2, "--url begins with"),
        (&["--nonsense", "1"], 2, "--nonsense"),
        (&["word"], 2, "unknown argument word"),
    ] {
        let output = load_test(arguments);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{arguments:?}: {}",
            said(&output)
        );
        assert!(
            said(&output).contains(words),
            "{arguments:?}: {}",
            said(&output)
        );
    }
    let help = load_test(&["--help"]);
    assert!(help.status.success());
    assert!(String::from_utf8_lossy(&help.stdout).starts_with("Usage: scripts/load-test"));
}
