//! The load generator's tables, `sockudo bench table` and `sockudo bench peers`: what their exit status says.
//!
//! A busy machine can make the generator late; a row is void then, and says so.

use std::fs;
use std::process::{Command, Output};

use serde_json::Value;

fn bench(flags: &[&str]) -> (Output, Value) {
    let output = Command::new(env!("CARGO_BIN_EXE_sockudo"))
        .arg("bench")
        .args(flags)
        .args(["--rounds", "1", "--seconds", "1", "--json"])
        .output()
        .expect("the binary starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let json = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("{error}: {said}");
    });
    (output, json)
}

#[test]
fn a_table_fails_for_a_broken_budget_and_only_for_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("budgets.toml");
    for (most, expected) in [(0.001, "broken"), (1_000.0, "met")] {
        let budget = format!(
            "[[budget]]\nrow = \"publish_cpu\"\nmost = {most}\nbeside = \"epoll\"\n\
             noise_percent = 15\nsource = \"made up\"\n"
        );
        fs::write(&file, budget).expect("the folder takes a file");
        let path = file.to_str().expect("it is text");
        let (output, json) = bench(&["table", "--rows", "publish_cpu", "--budgets", path]);
        let verdict = json["rows"][0]["verdict"].as_str().expect("a verdict");
        assert!([expected, "void"].contains(&verdict), "{most}: {json:#}");
        let status = match verdict {
            "met" => 0,
            "broken" => 1,
            _ => 2,
        };
        assert_eq!(output.status.code(), Some(status), "{most}: {json:#}");
    }
}

#[test]
fn a_peer_that_does_not_start_is_shown_as_failed_and_the_run_goes_on() {
    let peer = "broken=echo no config >&2; exit 3";
    let (output, json) = bench(&["peers", "--peer", peer, "--loads", "publish,connect"]);
    assert_eq!(output.status.code(), Some(0));
    let troubles = json["troubles"].as_array().expect("a list");
    let of_peer: Vec<&str> = troubles
        .iter()
        .filter_map(Value::as_str)
        .filter(|trouble| trouble.starts_with("broken: "))
        .collect();
    assert_eq!(of_peer.len(), 2, "{troubles:?}");
    assert!(of_peer[0].contains("no config"), "{of_peer:?}");
    let rows = json["rows"].as_array().expect("a list");
    for row in rows {
        assert_eq!(row["servers"][0]["server"], "ours");
        assert_eq!(row["servers"][1]["server"], "ours, not pinned");
        assert_eq!(row["servers"][2]["server"], "broken");
        assert_eq!(row["servers"][2]["value"], Value::Null);
    }
}
