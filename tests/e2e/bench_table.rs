//! The load generator's tables, `sockudo bench table` and `sockudo bench peers`: what their exit status says.
//!
//! A busy machine can make the generator late; a row is void then, and says so.

use std::fs;
use std::process::{Command, Output};

use serde_json::Value;

use crate::support::skip::skip;

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
fn beside_peers_with_tls_all_who_can_resume_do() {
    let test = "beside_peers_with_tls_all_who_can_resume_do";
    if Command::new("openssl").arg("version").output().is_err() {
        return skip(test, "openssl is not installed: run scripts/test");
    }
    let (output, json) = bench(&["peers", "--loads", "tls-connect,tls-resumed,tls-fanout"]);
    assert_eq!(output.status.code(), Some(0));
    let value = |key: &str| {
        let mut rows = json["rows"].as_array().expect("a list").iter();
        let row = rows.find(|row| row["key"] == key).expect("the row");
        row["servers"][0]["value"]["median"].as_f64()
    };
    // A machine that is busy makes a run void.
    for key in ["tls_connect_cpu", "tls_fanout_cpu"] {
        assert!(value(key).is_none_or(|us| us > 0.0), "{key}: {json:#}");
    }
    let resumed = value("tls_resumed_percent");
    assert!(resumed.is_none_or(|percent| percent > 99.0), "{json:#}");
    let troubles = json["troubles"].as_array().expect("a list").iter();
    let is_void = |it: &Value| {
        it.to_string()
            .contains("the load generator was the bottleneck")
    };
    assert!(troubles.into_iter().all(is_void), "{json:#}");
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

/// Whether there is a value of a load, of this build and of the bare client of the bus.
struct Cluster(Value);

impl Cluster {
    /// `None`: there is no such server, or the machine was too busy.
    fn measured(test: &str, adapter: &str, loads: &str) -> Option<Self> {
        let server = format!("{adapter}-server");
        if Command::new(&server).arg("--version").output().is_err() {
            skip(test, &format!("no {server}"));
            return None;
        }
        let flags = ["cluster", "--adapter", adapter, "--channels", "100"];
        let (output, json) = bench(&[&flags[..], &["--loads", loads]].concat());
        assert_eq!(output.status.code(), Some(0), "{json:#}");
        assert_eq!(json["bus"], adapter);
        let troubles = json["troubles"].as_array().expect("a list");
        let is_void = |it: &Value| it.as_str().is_some_and(|it| it.contains("bottleneck"));
        assert!(troubles.iter().all(is_void), "{troubles:?}");
        troubles.is_empty().then_some(Self(json))
    }

    #[track_caller]
    fn values(&self, load: &str, key: &str) -> [Option<f64>; 2] {
        let rows = self.0["rows"].as_array().expect("a list");
        let is_it = |row: &&Value| row["load"] == load && row["key"] == key;
        let row = rows.iter().find(is_it);
        let row = row.unwrap_or_else(|| panic!("{load}: no {key} in {:#}", self.0));
        ["ours, 1 shard", "bare client"].map(|name| {
            let servers = row["servers"].as_array().expect("a list");
            let server = servers.iter().find(|it| it["server"] == name);
            server.expect("both are named")["value"]["median"].as_f64()
        })
    }

    #[track_caller]
    fn has_events(&self, load: &str) {
        for key in ["bridge_out_us", "bridge_in_us", "bus_us"] {
            let values = self.values(load, key);
            assert!(values.iter().all(Option::is_some), "{load}: {key}");
        }
        // An event is one batch; a few are of what nodes say anyway.
        let [batches, _] = self.values(load, "batches_per_event");
        let batches = batches.expect("ours counts them");
        assert!((0.5..2.0).contains(&batches), "{load}: {batches}");
    }
}

#[test]
fn two_nodes_with_redis_are_measured_beside_its_bare_client() {
    let test = "two_nodes_with_redis_are_measured_beside_its_bare_client";
    let loads = "single,latency,churn,members,join";
    let Some(cluster) = Cluster::measured(test, "redis", loads) else {
        return;
    };
    cluster.has_events("single");
    let added = cluster.values("latency", "added_p99_ms");
    assert!(added.iter().all(Option::is_some), "{added:?}");
    for (load, key) in [
        ("churn", "churn_hearer_us"),
        ("members", "member_hearer_us"),
        ("join", "first_told_bytes"),
        ("join", "next_told_bytes"),
    ] {
        let [ours, bare] = cluster.values(load, key);
        assert!(ours.is_some(), "{load}: {key}");
        assert_eq!(bare, None, "{load}: a bare client has no state");
    }
}

#[test]
fn two_nodes_with_nats_are_measured_beside_its_bare_client() {
    let test = "two_nodes_with_nats_are_measured_beside_its_bare_client";
    let Some(cluster) = Cluster::measured(test, "nats", "idle,bursts") else {
        return;
    };
    cluster.has_events("bursts");
    let [ours, bare] = cluster.values("idle", "idle_percent");
    assert!(ours.is_some() && bare.is_none());
}
