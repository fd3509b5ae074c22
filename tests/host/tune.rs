//! `sockudo tune`: its files, applied to copies of hosts, content the doctor.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use super::{skip::skip, sockudo, synthetic, text, trees};

fn copy(name: &str, to: &Path) {
    let recorded = trees().join(name);
    if recorded.is_dir() {
        let copied = Command::new("cp")
            .arg("--recursive")
            .arg(&recorded)
            .arg(to)
            .status();
        assert!(copied.expect("cp is there").success());
    } else {
        synthetic(name, to);
    }
}

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().expect("a folder")).expect("ours");
    fs::write(path, text).expect("ours");
}

/// Does below `root` what the operator is told to do on the host.
fn apply(folder: &Path, root: &Path) {
    for part in ["etc", "usr"] {
        let copied = Command::new("cp")
            .arg("--recursive")
            .arg(folder.join(part))
            .arg(root)
            .status();
        assert!(copied.expect("cp is there").success());
    }
    let keys = fs::read_to_string(root.join("etc/sysctl.d/90-sockudo.conf")).expect("written");
    for line in keys
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        let (key, value) = line
            .trim_start_matches('-')
            .split_once(" = ")
            .expect("key = value");
        let path = root.join("proc/sys").join(key.replace('.', "/"));
        assert!(path.exists(), "{key} is set where the host shows it");
        write(&path, value);
    }
    // The kernel writes the effective list when the wanted one is written.
    for entry in fs::read_dir(root.join("proc/irq")).into_iter().flatten() {
        let _ = fs::remove_file(
            entry
                .expect("listed")
                .path()
                .join("effective_affinity_list"),
        );
    }
    let script = Command::new(root.join("usr/local/sbin/sockudo-host"))
        .env("ROOT", root)
        .output();
    let script = script.expect("the script is executable");
    assert!(script.status.success(), "{}", text(&script.stderr));
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/sockudo.service");
    write(
        &root.join("usr/lib/systemd/system/sockudo.service"),
        &fs::read_to_string(unit).expect("the unit is there"),
    );
}

fn tune(root: &Path, folder: &Path, connections: &str, more: &[&str]) -> Output {
    let (root, folder) = (root.display().to_string(), folder.display().to_string());
    let arguments = [
        "tune",
        "--connections",
        connections,
        "--root",
        &root,
        "--write",
        &folder,
    ];
    sockudo(&[&arguments[..], more].concat())
}

#[test]
fn the_doctor_is_content_with_what_tune_writes() {
    for (name, connections, shards, left) in [
        ("root", "10000", "1", &[][..]),
        ("root", "1000000", "1", &[]),
        ("container", "200000", "1", &[]),
        // What runs on the host is the operator's.
        ("two-sockets", "1000000", "63", &["cards.irqbalance"]),
        (
            "two-sockets",
            "3000000",
            "12",
            &["cards.irqbalance", "cores.nodes"],
        ),
        ("tuned", "2000000", "12", &[]),
        (
            "hardened",
            "100000",
            "7",
            &["kernel.io_uring", "kernel.clocksource"],
        ),
        (
            "full-tracking",
            "20000",
            "1",
            &["cgroup.memory", "cgroup.threads", "cgroup.cpu"],
        ),
    ] {
        let scratch = tempfile::tempdir().expect("a folder");
        let (root, folder) = (scratch.path().join("host"), scratch.path().join("tuned"));
        copy(name, &root);
        let written = tune(&root, &folder, connections, &["--shards", shards]);
        let page = text(&written.stdout);
        apply(&folder, &root);
        let root = root.display().to_string();
        let arguments = [
            "doctor",
            "--json",
            "--connections",
            connections,
            "--shards",
            shards,
            "--root",
            &root,
        ];
        let report: serde_json::Value =
            serde_json::from_slice(&sockudo(&arguments).stdout).expect("JSON");
        let findings = report["findings"].as_array().expect("a list").iter();
        let bad = findings.filter(|finding| finding["severity"] != "fine");
        let mut bad: Vec<&str> = bad
            .map(|finding| finding["check"].as_str().expect("a name"))
            .collect();
        bad.sort_unstable();
        let mut left = left.to_vec();
        left.sort_unstable();
        assert_eq!(bad, left, "{name} {connections}: {page}");
        // What is left was said before.
        for check in left {
            assert!(
                page.contains(&format!("{check}:")),
                "{check} of {name}: {page}"
            );
        }
    }
}

#[test]
fn a_target_that_the_host_cannot_reach_is_said() {
    let scratch = tempfile::tempdir().expect("a folder");
    let written = tune(
        &trees().join("root"),
        &scratch.path().join("tuned"),
        "50000000",
        &[],
    );
    let page = text(&written.stdout);
    assert_eq!(written.status.code(), Some(1), "{page}");
    assert!(
        page.contains("blocking  memory.total: 23.5 GiB; should be at least"),
        "{page}"
    );
    assert!(page.contains("This host's memory carries 4 79"), "{page}");
    // One address of a proxy has no more ports than that; the server itself needs none.
    let keys = fs::read_to_string(scratch.path().join("tuned/etc/sysctl.d/90-sockudo.conf"))
        .expect("written");
    assert!(
        keys.contains("net.ipv4.ip_local_port_range = 1024 65535"),
        "{keys}"
    );
    assert!(
        keys.contains("net.ipv4.ip_local_reserved_ports = 6001,9601"),
        "{keys}"
    );
}

#[test]
fn nothing_is_applied_and_nothing_goes_down() {
    let scratch = tempfile::tempdir().expect("a folder");
    let answer = sockudo(&["tune", "--connections", "1000", "--write", "/"]);
    assert_eq!(answer.status.code(), Some(2), "{}", text(&answer.stderr));
    let answer = sockudo(&["tune", "--connections", "1000"]);
    assert_eq!(answer.status.code(), Some(2), "{}", text(&answer.stderr));

    let root = scratch.path().join("host");
    copy("tuned", &root);
    let before = Command::new("diff")
        .arg("-r")
        .arg(&root)
        .arg(&root)
        .status();
    assert!(before.expect("diff is there").success());
    let folder = scratch.path().join("tuned");
    assert_eq!(tune(&root, &folder, "1000", &[]).status.code(), Some(0));
    let keys = fs::read_to_string(folder.join("etc/sysctl.d/90-sockudo.conf")).expect("written");
    for line in [
        "fs.nr_open = 2097152",
        "net.core.somaxconn = 16384",
        "net.ipv4.tcp_mem = 1500000 2000000 4000000",
    ] {
        assert!(keys.contains(line), "{line} in {keys}");
    }

    // Where a file stands in the way of a folder.
    let blocked = scratch.path().join("blocked");
    fs::write(&blocked, "").expect("ours");
    let answer = tune(&root, &blocked, "1000", &[]);
    assert_eq!(answer.status.code(), Some(1));
    assert!(
        text(&answer.stderr).contains("etc/sysctl.d/90-sockudo.conf: cannot be written"),
        "{answer:?}"
    );
}

#[test]
fn a_difference_is_to_what_the_host_has() {
    let scratch = tempfile::tempdir().expect("a folder");
    let (root, folder) = (scratch.path().join("host"), scratch.path().join("tuned"));
    copy("root", &root);
    assert_eq!(tune(&root, &folder, "100000", &[]).status.code(), Some(0));
    let root_text = root.display().to_string();
    let diff = || {
        text(
            &sockudo(&[
                "tune",
                "--connections",
                "100000",
                "--diff",
                "--root",
                &root_text,
            ])
            .stdout,
        )
    };
    assert!(diff().contains("+net.core.somaxconn = 8192"), "{}", diff());
    for part in ["etc", "usr"] {
        let copied = Command::new("cp")
            .arg("--recursive")
            .arg(folder.join(part))
            .arg(&root)
            .status();
        assert!(copied.expect("cp is there").success());
    }
    assert_eq!(diff().matches(": as it is").count(), 5, "{}", diff());
}

#[test]
fn keys_of_a_network_namespace_take_what_is_written() {
    let name = "keys_of_a_network_namespace_take_what_is_written";
    if !super::is_root() {
        skip(name, "needs root, to make a network namespace");
        return;
    }
    let scratch = tempfile::tempdir().expect("a folder");
    // So many that an untuned namespace lacks something, and so few that its table of connections has room: that one
    // is the host's.
    let script = r#"
        set -eu
        "$1" tune --connections 100000 --shards 1 --write "$2/tuned" >"$2/page"
        "$1" doctor --json --connections 100000 --shards 1 >"$2/before" || true
        grep '^net[.]' "$2/tuned/etc/sysctl.d/90-sockudo.conf" | while IFS=' =' read -r key value; do
            printf '%s\n' "$value" >"/proc/sys/$(printf %s "$key" | tr . /)"
        done
        "$1" doctor --json --connections 100000 --shards 1 >"$2/after" || true
    "#;
    let ran = Command::new("unshare")
        .args([
            "--net",
            "sh",
            "-c",
            script,
            "sh",
            env!("CARGO_BIN_EXE_sockudo"),
        ])
        .arg(scratch.path())
        .output()
        .expect("unshare is there");
    if text(&ran.stderr).contains("unshare failed") {
        skip(name, "this host lets nobody make a network namespace");
        return;
    }
    assert!(ran.status.success(), "{}", text(&ran.stderr));
    let complaints = |file: &str| -> Vec<String> {
        let report = fs::read(scratch.path().join(file)).expect("written");
        let report: serde_json::Value = serde_json::from_slice(&report).expect("JSON");
        let findings = report["findings"].as_array().expect("a list").iter();
        let bad = findings
            .filter(|finding| finding["group"] == "network" && finding["severity"] != "fine");
        let bad = bad.filter(|finding| {
            !finding["check"]
                .as_str()
                .is_some_and(|it| it.contains("conntrack"))
        });
        bad.map(|finding| finding["check"].to_string()).collect()
    };
    assert!(complaints("before").contains(&"\"net.ipv4.tcp_migrate_req\"".to_owned()));
    assert_eq!(complaints("after"), [""; 0]);
}
